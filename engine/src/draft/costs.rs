//! What a step costs by the number of its rows, as lately measured.

/// Rows whose costs are told apart.
const MOST: usize = 64;
/// What a further row is thought to add to a step, as a share of the first one, until it was measured. Little: what was never
/// tried is never measured.
const GUESSED: f64 = 0.15;

/// Seconds of steps by their rows.
#[derive(Clone, Debug)]
pub(crate) struct Costs {
    /// A common factor: texts grow longer, machines become busy.
    scale: f64,
    /// `scale` times this is the time of a step with one row more than the index; how often it was measured.
    known: Vec<(f64, u32)>,
}

impl Default for Costs {
    fn default() -> Self {
        Self { scale: 0.0, known: vec![(0.0, 0); MOST] }
    }
}

impl Costs {
    /// Notes what a step took.
    pub(crate) fn note(&mut self, rows: usize, seconds: f64) {
        if !(1..=MOST).contains(&rows) || !seconds.is_normal() || seconds < 0.0 {
            return;
        }
        if self.scale == 0.0 {
            self.scale = seconds / self.guess(rows);
        }
        // A first step pays for what later ones find in the caches.
        let first = (seconds / self.scale).min(1.5 * self.of(rows));
        let (ratio, count) = &mut self.known[rows - 1];
        if *count == 0 {
            self.known[rows - 1] = (first, 1);
            return;
        }
        // A step that was held up by something else says little about its rows.
        let error = (seconds / (self.scale * *ratio)).ln().clamp(-0.5, 0.5);
        // Of what is well known a change is everybody's, and is slow to be its own.
        let known = f64::from(*count);
        *ratio *= (error * (1.0 / (known + 1.0)).max(0.03)).exp();
        self.scale *= (error * 0.2 * (known / 8.0).min(1.0)).exp();
        *count = count.saturating_add(1);
    }

    /// Seconds of a step with so many rows; 0 while nothing was measured.
    pub(crate) fn seconds(&self, rows: usize) -> f64 {
        self.scale * self.of(rows)
    }

    /// What a step with so many rows takes, in no particular unit.
    pub(crate) fn of(&self, rows: usize) -> f64 {
        let at = rows.clamp(1, MOST) - 1;
        let measured = |at: &usize| self.known[*at].1 > 0;
        let below = (0..=at).rev().find(measured);
        let above = (at..MOST).find(measured);
        let cost = match (below, above) {
            (Some(below), Some(above)) if above > below => {
                let share = (at - below) as f64 / (above - below) as f64;
                self.known[below].0 * (1.0 - share) + self.known[above].0 * share
            }
            (Some(below), _) => self.known[below].0 * self.guess(at + 1) / self.guess(below + 1),
            (None, Some(above)) => self.known[above].0 * self.guess(at + 1) / self.guess(above + 1),
            (None, None) => self.guess(at + 1),
        };
        // Beyond what is told apart every row costs as much as one of the last.
        cost * rows.max(MOST) as f64 / MOST as f64
    }

    fn guess(&self, rows: usize) -> f64 {
        1.0 + GUESSED * (rows - 1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_known_and_the_rest_lies_between() {
        let mut costs = Costs::default();
        assert!(costs.of(1) == 1.0 && costs.of(9) > 1.0);
        for _ in 0..12 {
            costs.note(1, 0.010);
            costs.note(5, 0.030);
        }
        let share = |costs: &Costs, rows| costs.of(rows) / costs.of(1);
        assert!((2.7..3.1).contains(&share(&costs, 5)), "{}", share(&costs, 5));
        assert!((share(&costs, 3) - 0.5 * (1.0 + share(&costs, 5))).abs() < 1e-9);
        assert!(share(&costs, 9) > share(&costs, 5));
        assert!(share(&costs, 200) > 3.0 * share(&costs, 64));
        // Everything becomes slower: the shares stay.
        (0..200).for_each(|_| costs.note(1, 0.020));
        assert!((2.4..3.1).contains(&share(&costs, 5)), "{}", share(&costs, 5));
        // A step that was held up does not spoil what is known.
        (0..20).for_each(|_| costs.note(5, 0.050));
        costs.note(5, 10.0);
        assert!(share(&costs, 5) < 3.0, "{}", share(&costs, 5));
        for (rows, seconds) in [(0, 1.0), (3, 0.0), (3, f64::NAN), (65, 1.0)] {
            costs.note(rows, seconds);
        }
        assert!(share(&costs, 3).is_finite());
    }
}
