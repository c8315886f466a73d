//! What a draft model's guesses have saved and cost: guessing that does not pay ends before it is felt.

/// Steps of the model that may be lost before anything was saved.
const CREDIT: f64 = 1.5;
/// The share of all steps that may be lost for trying again.
const SHARE: f64 = 0.005;
/// Steps that what was saved before may cost once nothing is saved any more.
const MOST: f64 = 20.0;

/// Seconds saved, less those that guesses took.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    balance: f64,
    /// The most guesses at one text so far: what more of them cost is not known.
    longest: usize,
    begun: bool,
}

impl Ledger {
    /// Notes that a step without guesses takes so many seconds, and how many of such steps guesses have saved since the last time.
    pub(super) fn step(&mut self, seconds: f64, saved: f64) {
        let share = if self.begun { SHARE } else { CREDIT };
        self.begun |= seconds > 0.0;
        self.balance = (self.balance + seconds * (share + saved)).min(MOST * seconds);
    }

    /// Up to `wanted` guesses at each text: as many as can be lost. `price` is what so many are thought to take.
    pub(super) fn affordable(&self, wanted: usize, price: impl Fn(usize) -> f64) -> usize {
        let most = wanted.min((2 * self.longest).max(1));
        (1..=most).rev().find(|&length| price(length) <= self.balance).unwrap_or(0)
    }

    /// Notes what so many guesses at each text took.
    pub(super) fn paid(&mut self, length: usize, seconds: f64) {
        self.longest = self.longest.max(length);
        self.balance -= seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_kernels::Random;

    /// A text of so many tokens, whose guesses are right with a chance of `odds`: how many times as fast it is with them. A step
    /// with guesses costs `row` more for each, a step of the draft model `draft`, in steps of the model; nothing is foreseen of
    /// either but the truth.
    fn gain(tokens: usize, odds: f64, row: f64, draft: f64) -> f64 {
        let (mut ledger, mut random) = (Ledger::default(), Random(3));
        let (mut said, mut time, mut right) = (0, 0.0, 0);
        while said < tokens {
            ledger.step(1.0, right as f64);
            let price = |length: usize| length as f64 * (row + draft);
            let length = ledger.affordable(7, price);
            if length > 0 {
                ledger.paid(length, price(length));
            }
            right = (0..length).take_while(|_| f64::from(random.unit()) < odds).count();
            time += 1.0 + price(length);
            said += 1 + right;
        }
        said as f64 / time
    }

    #[test]
    fn what_never_pays_is_hardly_felt_and_what_pays_is_not_held_up() {
        for odds in [0.0, 0.2, 0.4] {
            assert!(gain(150, odds, 0.75, 0.8) > 0.975, "{}", gain(150, odds, 0.75, 0.8));
            assert!(gain(1000, odds, 0.75, 0.8) > 0.985, "{}", gain(1000, odds, 0.75, 0.8));
        }
        // Seven guesses at odds of 0.9 say 5.7 tokens in 2.6 steps.
        assert!(gain(150, 0.9, 0.13, 0.1) > 1.9, "{}", gain(150, 0.9, 0.13, 0.1));
    }

    #[test]
    fn nothing_is_tried_before_a_step_was_measured() {
        let mut ledger = Ledger::default();
        ledger.step(0.0, 0.0);
        assert_eq!(ledger.affordable(7, |length| length as f64), 0);
        ledger.step(1.0, 0.0);
        assert_eq!(ledger.affordable(7, |length| length as f64), 1);
    }
}
