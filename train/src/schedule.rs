//! How the learning rate and the weight decay go.

/// A rate for every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Its shape.
    pub kind: Kind,
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// The highest rate.
    pub rate: f32,
    /// The rate at the end.
    pub last: f32,
    /// Weight decay.
    pub decay: f32,
}

/// Shapes of a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// BitNet b1.58: the rate falls linearly from its peak towards the end; in the middle it drops onto the line from
    /// a lower peak at the same beginning to the same end, and weight decay ends.
    TwoStage {
        /// The peak of the lower line.
        second: f32,
    },
    /// A cosine from the highest rate to the last.
    Cosine,
    /// The highest rate until `decay` steps before the end, then linearly to the last, without weight decay.
    StableThenDecay {
        /// Steps of the decay.
        decay: u64,
    },
    /// The highest rate after the warm-up.
    Constant,
}

impl Schedule {
    /// Rate and weight decay of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> (f32, f32) {
        let Self { kind, steps, warmup, rate, last, decay } = *self;
        let step_f = step as f64;
        if step < warmup {
            return ((f64::from(rate) * (step_f + 1.0) / warmup as f64) as f32, decay);
        }
        // From 0 after the warm-up to 1 at the end.
        let share =
            |from: u64| ((step_f - from as f64) / (steps.saturating_sub(from)).max(1) as f64).clamp(0.0, 1.0);
        let line =
            |from: f32, share: f64| (f64::from(from) + (f64::from(last) - f64::from(from)) * share) as f32;
        match kind {
            Kind::Constant => (rate, decay),
            Kind::Cosine => {
                let weight = 0.5 + 0.5 * (std::f64::consts::PI * share(warmup)).cos();
                ((f64::from(last) + (f64::from(rate) - f64::from(last)) * weight) as f32, decay)
            }
            Kind::TwoStage { second } if step >= steps / 2 => (line(second, share(warmup)), 0.0),
            Kind::TwoStage { .. } => (line(rate, share(warmup)), decay),
            Kind::StableThenDecay { decay: length } => {
                let from = steps.saturating_sub(length).max(warmup);
                if step < from { (rate, decay) } else { (line(rate, share(from)), 0.0) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: Kind) -> Schedule {
        Schedule { kind, steps: 100, warmup: 10, rate: 1.0, last: 0.0, decay: 0.1 }
    }

    #[test]
    fn two_stage_drops_in_the_middle_and_stops_decaying() {
        let s = schedule(Kind::TwoStage { second: 0.3 });
        assert_eq!(s.at(0), (0.1, 0.1));
        assert_eq!(s.at(10), (1.0, 0.1));
        let (before, after) = (s.at(49), s.at(50));
        assert!(before.0 > 0.5 && before.1 == 0.1, "{before:?}");
        assert!((after.0 - 0.3 * before.0).abs() < 0.01 && after.1 == 0.0, "{before:?} {after:?}");
        assert!(s.at(99).0 < 0.01);
        // After the warm-up it never rises, up to the least of drops.
        for second in [0.0, 0.3, 0.667, 1.0] {
            let s = schedule(Kind::TwoStage { second });
            assert!((10..100).all(|step| s.at(step + 1).0 <= s.at(step).0), "{second}");
        }
    }

    #[test]
    fn wsd_is_flat_and_then_falls_to_the_last_rate() {
        let s = schedule(Kind::StableThenDecay { decay: 20 });
        assert_eq!(s.at(79), (1.0, 0.1));
        assert_eq!(s.at(90), (0.5, 0.0));
        assert_eq!(s.at(100), (0.0, 0.0));
    }

    #[test]
    fn cosine_ends_at_the_last_rate() {
        let s = schedule(Kind::Cosine);
        assert_eq!(s.at(10).0, 1.0);
        assert!((s.at(55).0 - 0.5).abs() < 1e-6);
        assert!(s.at(100).0.abs() < 1e-6);
    }
}
