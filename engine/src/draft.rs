//! Drafts: tokens that are guessed and go through the model as rows of one step, beside the token that is known. A draft
//! changes no text: every token is the one that the sampler chooses from the model's own logits, and what a step computed
//! after the first wrong guess is forgotten.

mod costs;
mod ledger;
mod lookup;
mod model;
#[cfg(test)]
mod replay;

pub(crate) use self::costs::Costs;
pub(crate) use self::model::{Ask, DraftModel};

/// Whether and how far texts are drafted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drafts {
    /// Most tokens of one text that are guessed in a step, up to [`Drafts::MOST`]; 0 for none.
    pub tokens: usize,
    /// Try every guess, where else only those are tried that are likely to save time: for tests and measurements.
    pub always: bool,
}

impl Default for Drafts {
    fn default() -> Self {
        Self { tokens: Self::MOST, always: false }
    }
}

impl Drafts {
    /// The most tokens that can be asked for: with the one that is known they are a small batch.
    pub const MOST: usize = 15;
    /// No drafts at all.
    pub const NONE: Self = Self { tokens: 0, always: false };
}

/// What became of guesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drafted {
    /// Tokens that were guessed and went through the model.
    pub tokens: usize,
    /// Those of them that were right.
    pub accepted: usize,
}

impl Drafted {
    /// Those that came after `before`.
    pub fn since(self, before: Self) -> Self {
        Self { tokens: self.tokens - before.tokens, accepted: self.accepted - before.accepted }
    }

    /// Counts others as well.
    pub fn add(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.accepted += other.accepted;
    }
}

/// Rows of a step that drafts may fill: a draft is for steps that wait for memory.
pub(crate) const MOST_ROWS: usize = 64;

/// By how much more a step with drafts must write in the same time, so that an error of measurement is no reason.
const WORTH: f64 = 1.03;

/// Guesses at how one text goes on, and how good they were of late.
#[derive(Debug, Default)]
pub(crate) struct Drafter {
    guess: Vec<u32>,
    /// How many tokens of the text's end were in its copy; more than any of them where a draft model guessed.
    length: usize,
    /// Tokens of the guess that the text went on with since.
    right: usize,
    /// Guesses of a draft model that were right since it was asked for them.
    won: usize,
    odds: Odds,
}

impl Drafter {
    /// Guesses what comes after `text` and `last`.
    pub(crate) fn look(&mut self, text: &[u32], last: u32, most: usize) {
        self.length = lookup::look_up(text, last, most, &mut self.guess);
        self.right = 0;
    }

    /// Empties the guess for a draft model to fill it.
    fn modelled(&mut self) -> &mut Vec<u32> {
        if self.length != MODELLED {
            (self.length, self.right) = (MODELLED, 0);
            self.guess.clear();
        }
        &mut self.guess
    }

    /// The chance of a token that a draft model guesses.
    fn model_odds(&self) -> f64 {
        self.odds.0[Odds::place(MODELLED)]
    }

    /// Goes back towards what is thought of a draft model that is not known yet.
    fn forgive(&mut self, share: f64) {
        let odds = &mut self.odds.0[Odds::place(MODELLED)];
        *odds += share * (Odds::default().0[Odds::place(MODELLED)] - *odds);
    }

    /// The guess.
    pub(crate) fn guess(&self) -> &[u32] {
        &self.guess
    }

    /// The chance of the nth token of the guess, if those before it are right.
    fn chance(&self, nth: usize) -> f64 {
        if nth < self.guess.len() { self.odds.0[Odds::place(self.length + nth)] } else { 0.0 }
    }

    /// Learns from the token that came, whether the guess was tried or not: to be wrong on paper costs nothing.
    pub(crate) fn came(&mut self, token: u32) {
        let Some(&guess) = self.guess.get(self.right) else { return };
        let odds = &mut self.odds.0[Odds::place(self.length + self.right)];
        if guess == token {
            *odds += LEARNED * (1.0 - *odds);
            self.won += usize::from(self.length == MODELLED);
            self.right += 1;
        } else {
            *odds -= LEARNED * *odds;
            self.guess.clear();
        }
    }
}

/// The length that stands for a draft model's guess.
const MODELLED: usize = usize::MAX / 2;

/// How much a single guess changes the odds.
const LEARNED: f64 = 0.1;

/// How often the token after a copy was right, by the copy's length, and at last that of a draft model.
#[derive(Debug)]
struct Odds([f64; 6]);

impl Default for Odds {
    fn default() -> Self {
        Self([0.2, 0.4, 0.5, 0.65, 0.8, 0.6])
    }
}

impl Odds {
    fn place(length: usize) -> usize {
        match length {
            0..=2 => 0,
            3 => 1,
            4 | 5 => 2,
            6..=8 => 3,
            9..MODELLED => 4,
            _ => 5,
        }
    }
}

/// How many tokens of each guess a step takes that has `rows` without them, each of which says a token: those by which the
/// step is expected to write most in its time.
pub(crate) fn lengths(drafts: Drafts, costs: &Costs, rows: usize, drafters: &[&Drafter]) -> Vec<usize> {
    let mut lengths = vec![0; drafters.len()];
    if drafts.always {
        let whole = drafters.iter().map(|drafter| drafter.guess.len());
        lengths.iter_mut().zip(whole).for_each(|(length, whole)| *length = whole);
        return lengths;
    }
    // Of each text the chance that its next guess is reached and right.
    let mut chances: Vec<f64> = drafters.iter().map(|drafter| drafter.chance(0)).collect();
    let mut tokens = rows as f64;
    let (mut best, mut best_rate, mut order) = (0, WORTH * tokens / costs.of(rows), Vec::new());
    while rows + order.len() < MOST_ROWS {
        let Some(next) = (0..chances.len()).max_by(|a, b| chances[*a].total_cmp(&chances[*b])) else { break };
        if chances[next] < 0.05 {
            break;
        }
        tokens += chances[next];
        order.push(next);
        lengths[next] += 1;
        chances[next] *= drafters[next].chance(lengths[next]);
        let rate = tokens / costs.of(rows + order.len());
        if rate > best_rate {
            (best, best_rate) = (order.len(), rate);
        }
    }
    for &last in &order[best..] {
        lengths[last] -= 1;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text that repeats, and what it costs to guess at it.
    fn drafter() -> Drafter {
        let mut drafter = Drafter::default();
        drafter.look(&[1, 2, 3, 4, 5, 6, 7, 1, 2, 3], 4, 7);
        assert_eq!(drafter.guess(), [5, 6, 7, 1, 2, 3, 4]);
        drafter
    }

    fn costs(of: impl Fn(usize) -> f64) -> Costs {
        let mut costs = Costs::default();
        for _ in 0..20 {
            (1..=MOST_ROWS).for_each(|rows| costs.note(rows, of(rows)));
        }
        costs
    }

    #[test]
    fn a_draft_is_as_long_as_it_pays() {
        let drafts = Drafts::default();
        let length = |costs: &Costs, drafter: &Drafter| lengths(drafts, costs, 1, &[drafter])[0];
        let (free, dear) = (costs(|_| 1.0), costs(|rows| rows as f64));
        let some = costs(|rows| 1.0 + 0.3 * (rows - 1) as f64);
        let mut good = drafter();
        assert!(length(&free, &good) > length(&some, &good), "what costs nothing is worth every guess");
        assert_eq!(length(&dear, &good), 0, "no guess is better than certain");
        (0..60).for_each(|_| {
            [5, 6, 7, 1, 2, 3, 4].into_iter().for_each(|token| good.came(token));
            good.look(&[1, 2, 3, 4, 5, 6, 7, 1, 2, 3], 4, 7);
        });
        assert_eq!((length(&some, &good), length(&dear, &good)), (7, 0));
        let mut bad = drafter();
        (0..60).for_each(|_| {
            bad.came(9);
            bad.look(&[1, 2, 3, 4, 5, 6, 7, 1, 2, 3], 4, 7);
        });
        assert_eq!(length(&some, &bad), 0, "what was wrong of late is not tried");
        assert_eq!(lengths(drafts, &some, 2, &[&good, &bad]), [7, 0]);
        assert_eq!(lengths(Drafts { always: true, ..drafts }, &dear, 2, &[&good, &bad]), [7, 7]);
        assert!(lengths(drafts, &Costs::default(), 0, &[]).is_empty());
    }

    #[test]
    fn guesses_on_paper_teach_as_well() {
        let mut drafter = drafter();
        let before = drafter.chance(0);
        [5, 6, 9, 7].into_iter().for_each(|token| drafter.came(token));
        assert!(drafter.guess().is_empty(), "a wrong guess says nothing about what comes after");
        drafter.look(&[1, 2, 3, 4, 5, 6, 7, 1, 2, 3], 4, 7);
        assert!(drafter.chance(0) > before);
    }
}
