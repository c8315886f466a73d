//! Texts that the model continues with its likeliest tokens, several side by side: answers to be graded.

use super::slots::shared;
use super::{Job, Scorer};
use tern::{Error, Logits, Result, Row, likeliest};

impl Scorer<'_> {
    /// Continues at most as many contexts as there are slots by the likeliest tokens, up to `most` each or to the end
    /// of the model's context. `finished(which, tokens)` says that a text is complete; it may be asked after every
    /// token.
    pub fn greedy(
        &mut self,
        contexts: &[Vec<u32>],
        most: usize,
        mut finished: impl FnMut(usize, &[u32]) -> bool,
    ) -> Result<Vec<Vec<u32>>> {
        assert!(contexts.len() <= self.slots.len(), "{} texts in {} slots", contexts.len(), self.slots.len());
        let room = self.model.config().context;
        if let Some(long) = contexts.iter().find(|context| context.is_empty() || context.len() >= room) {
            let what = format!("a prompt of {} tokens in a context of {room} leaves no answer", long.len());
            return Err(Error::Input(what));
        }
        let borrowed: Vec<&[u32]> = contexts.iter().map(|context| &context[..]).collect();
        let kept = self.settle(&borrowed)?;
        let job = |(slot, (context, kept)): (usize, (&Vec<u32>, usize))| Job {
            slot,
            tokens: context[kept..context.len() - 1].to_vec(),
            targets: Vec::new(),
        };
        let jobs: Vec<Job> = contexts.iter().zip(kept).enumerate().map(job).collect();
        self.run(&jobs, &mut [])?;

        let mut texts = vec![Vec::new(); contexts.len()];
        let mut live: Vec<usize> = if most == 0 { Vec::new() } else { (0..contexts.len()).collect() };
        while !live.is_empty() {
            let next = |&at: &usize| *texts[at].last().unwrap_or(&contexts[at][contexts[at].len() - 1]);
            let rows: Vec<Row> = live
                .iter()
                .map(|at| Row { sequence: *at, token: next(at), logits: Logits::Top(1) })
                .collect();
            let vocab = self.model.config().vocab;
            let logits = self.model.forward(&mut self.scratch, &mut self.slots, &rows)?;
            let chosen: Vec<u32> = logits.chunks_exact(vocab).filter_map(likeliest).collect();
            self.rows += rows.len() as u64;
            for (&at, token) in live.iter().zip(chosen) {
                texts[at].push(token);
            }
            live.retain(|&at| {
                let full = texts[at].len() == most || contexts[at].len() + texts[at].len() >= room;
                !finished(at, &texts[at]) && !full
            });
        }
        debug_assert!(contexts.iter().zip(&self.slots).all(|(c, s)| shared(c, s.tokens()) == c.len()));
        Ok(texts)
    }
}
