//! What is measured: the tests that a command line asks for, and the figures of many repetitions.

use std::fmt;

use tern::embed::ROWS as EMBEDDED;
use tern::{CHUNK, Cost, Step};

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) work: Work,
    /// Tokens that are there before it begins.
    pub(super) depth: usize,
    pub(super) threads: usize,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// So many tokens of one prompt are read.
    Prompt(usize),
    /// So many tokens are written, in each of so many sequences at once.
    Text { tokens: usize, sequences: usize },
    /// So many texts of so many tokens become vectors.
    Vectors { tokens: usize, texts: usize },
}

impl Test {
    /// Every combination, those of one number of threads together.
    pub(super) fn all(
        prompts: &[usize],
        texts: &[usize],
        depths: &[usize],
        batches: &[usize],
        threads: &[usize],
    ) -> Vec<Test> {
        let prompts = distinct(prompts).filter(|&tokens| tokens > 0).map(Work::Prompt);
        let texts = distinct(texts)
            .filter(|&tokens| tokens > 0)
            .flat_map(|tokens| distinct(batches).map(move |sequences| Work::Text { tokens, sequences }));
        let works: Vec<Work> = prompts.chain(texts).collect();
        let mut all = Vec::new();
        for threads in distinct(threads) {
            for depth in distinct(depths) {
                all.extend(works.iter().map(|&work| Test { work, depth, threads }));
            }
        }
        all
    }

    /// Those of an embedding model: texts of each length, in each number of them.
    pub(super) fn vectors(lengths: &[usize], texts: &[usize], threads: &[usize]) -> Vec<Test> {
        let mut all = Vec::new();
        for threads in distinct(threads) {
            for tokens in distinct(lengths).filter(|&tokens| tokens > 0) {
                let work = distinct(texts).map(|texts| Work::Vectors { tokens, texts });
                all.extend(work.map(|work| Test { work, depth: 0, threads }));
            }
        }
        all
    }

    /// The longest that a sequence becomes.
    pub(super) fn positions(&self) -> usize {
        self.depth.saturating_add(match self.work {
            Work::Prompt(tokens) | Work::Text { tokens, .. } | Work::Vectors { tokens, .. } => tokens,
        })
    }

    /// Rows of one ternary product.
    pub(super) fn rows(&self) -> usize {
        match self.work {
            Work::Prompt(tokens) => tokens.min(CHUNK),
            Work::Text { sequences, .. } => sequences,
            Work::Vectors { tokens, texts } => tokens.saturating_mul(texts).min(EMBEDDED),
        }
    }

    /// All tokens that are read or written.
    pub(super) fn tokens(&self) -> usize {
        match self.work {
            Work::Prompt(tokens) => tokens,
            Work::Text { tokens, sequences: times } | Work::Vectors { tokens, texts: times } => {
                tokens.saturating_mul(times)
            }
        }
    }

    /// What one token costs, on the average of the test: bytes from memory, where a step reads `head` bytes of the head,
    /// and multiply-adds of ternary products.
    pub(super) fn cost(&self, cost: &Cost, head: f64) -> (f64, f64) {
        let (step, tokens) = match self.work {
            Work::Prompt(tokens) => (cost.prefill(tokens, self.depth, CHUNK, head), tokens),
            Work::Text { tokens, sequences } => {
                let middle = self.depth as f64 + (tokens as f64 - 1.0) / 2.0;
                (cost.decode(sequences, middle, head), sequences)
            }
            // Weights are read once for all rows of a pass, which may be of many texts.
            Work::Vectors { tokens, .. } => {
                let one = cost.prefill(tokens, 0, self.rows().max(tokens), 0.0);
                let weights = (cost.trits + cost.scales) as f64;
                let shared = weights * tokens as f64 / self.rows() as f64;
                (Step { bytes: one.bytes - weights + shared, ..one }, tokens)
            }
        };
        (step.bytes / tokens as f64, step.ternary_macs / tokens as f64)
    }
}

/// The numbers of a list, each once, as they come.
fn distinct(list: &[usize]) -> impl Iterator<Item = usize> + '_ {
    list.iter().enumerate().filter(|(at, n)| !list[..*at].contains(n)).map(|(_, &n)| n)
}

/// `pp512`, `tg128`, `tg128 x4`, `tg128 @ d4096`, `emb128 x512`.
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.work {
            Work::Prompt(tokens) => write!(f, "pp{tokens}")?,
            Work::Text { tokens, sequences: 1 } => write!(f, "tg{tokens}")?,
            Work::Text { tokens, sequences } => write!(f, "tg{tokens} x{sequences}")?,
            Work::Vectors { tokens, texts: 1 } => write!(f, "emb{tokens}")?,
            Work::Vectors { tokens, texts } => write!(f, "emb{tokens} x{texts}")?,
        }
        if self.depth > 0 { write!(f, " @ d{}", self.depth) } else { Ok(()) }
    }
}

/// The middle of some numbers, and the ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// Of at least one number.
    pub(super) fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (n, half) = (sorted.len(), sorted.len() / 2);
        let median = if n % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 };
        Self { median, least: sorted[0], most: sorted[n - 1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_a_test_once() {
        let all = Test::all(&[512, 0], &[128, 128], &[0, 64], &[1, 4], &[1, 2]);
        let names: Vec<String> = all.iter().map(Test::to_string).collect();
        let one = ["pp512", "tg128", "tg128 x4", "pp512 @ d64", "tg128 @ d64", "tg128 x4 @ d64"];
        assert_eq!(names, [one, one].concat());
        assert_eq!((all[5].threads, all[6].threads, all[5].positions()), (1, 2, 192));
        assert!(Test::all(&[0], &[0], &[0], &[1], &[1]).is_empty());
        let vectors = Test::vectors(&[128, 0, 8], &[1, 512], &[2]);
        let names: Vec<String> = vectors.iter().map(Test::to_string).collect();
        assert_eq!(names, ["emb128", "emb128 x512", "emb8", "emb8 x512"]);
        assert_eq!((vectors[1].tokens(), vectors[1].rows(), vectors[2].rows()), (65_536, 512, 8));
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(Spread::of([3.0, 1.0, 7.0]), Spread { median: 3.0, least: 1.0, most: 7.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]).median, 3.0);
    }
}
