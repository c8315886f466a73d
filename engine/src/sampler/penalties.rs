//! What changes logits before anything is dropped.

use super::Dry;
use super::changed::Changed;

/// Makes each of these tokens `penalty` times less likely, towards less likely on both sides of zero.
pub(super) fn repeated(logits: &mut Changed<'_>, recent: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    for same in counted(recent).chunk_by(|a, b| a == b) {
        let logit = logits.at(same[0]);
        *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
    }
}

/// Takes `presence` off the logit of every token that was said, and `frequency` for each time.
pub(super) fn said(logits: &mut Changed<'_>, said: &[u32], presence: f32, frequency: f32) {
    if presence == 0.0 && frequency == 0.0 {
        return;
    }
    for same in counted(said).chunk_by(|a, b| a == b) {
        *logits.at(same[0]) -= presence + frequency * same.len() as f32;
    }
}

/// Takes off the logits of tokens that would go on with a sequence which the text had before and ends in now.
pub(super) fn dry(logits: &mut Changed<'_>, text: &[u32], dry: &Dry) {
    if dry.multiplier == 0.0 {
        return;
    }
    let mut longest: Vec<(u32, usize)> = continuations(text, dry);
    longest.sort_unstable();
    for same in longest.chunk_by(|a, b| a.0 == b.0) {
        let &(id, length) = same.last().expect("chunks are not empty");
        // Powers soon leave the floats' range; no logit is anywhere near the bound.
        let power = dry.base.powf((length - dry.allowed) as f32);
        *logits.at(id) -= (dry.multiplier * power).min(LARGEST);
    }
}

/// The most that a continuation costs: more than logits differ, and far from infinity, which would be no number's
/// difference.
const LARGEST: f32 = 1e6;

/// Adds a bias to the logits of these tokens. Ids at or beyond the vocabulary's size are ignored.
pub(super) fn bias(logits: &mut Changed<'_>, bias: &[(u32, f32)]) {
    for (id, bias) in bias {
        if (*id as usize) < logits.len() {
            *logits.at(*id) += bias;
        }
    }
}

/// Tokens sorted, so that equal ones are neighbours.
fn counted(tokens: &[u32]) -> Vec<u32> {
    let mut tokens = tokens.to_vec();
    tokens.sort_unstable();
    tokens
}

/// Each token that followed an earlier copy of at least the last `allowed` tokens, and how long that copy is.
fn continuations(text: &[u32], dry: &Dry) -> Vec<(u32, usize)> {
    let breaks = |id: &u32| dry.breakers.binary_search(id).is_ok();
    let back: Vec<u32> = text.iter().rev().take(dry.range).copied().collect();
    // A copy of what has no break in it has none either.
    let unbroken = back.iter().position(breaks).unwrap_or(back.len());
    if unbroken < dry.allowed {
        return Vec::new();
    }
    let found = |(at, length): (usize, &usize)| {
        let (next, length) = (back[at - 1], (*length).min(unbroken));
        (length >= dry.allowed && !breaks(&next)).then_some((next, length))
    };
    common_beginnings(&back).iter().enumerate().skip(1).filter_map(found).collect()
}

/// For every place, how many elements from there on are those of the beginning: the Z-array (Gusfield, 1997), in time
/// that grows with the length only.
fn common_beginnings(text: &[u32]) -> Vec<usize> {
    let mut common = vec![0; text.len()];
    // `text[start..end]` is the copy of the beginning found so far that ends last.
    let (mut start, mut end) = (0, 0);
    for at in 1..text.len() {
        let mut length = if at < end { common[at - start].min(end - at) } else { 0 };
        while at + length < text.len() && text[length] == text[at + length] {
            length += 1;
        }
        common[at] = length;
        if at + length > end {
            (start, end) = (at, at + length);
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::super::changed::Changes;
    use super::*;
    use proptest::prelude::*;

    fn open() -> Dry {
        Dry { multiplier: 1.0, base: 2.0, ..Dry::default() }
    }

    /// Eight logits after a change.
    fn after(logits: &[f32], change: impl FnOnce(&mut Changed<'_>)) -> [f32; 8] {
        let mut changes = Changes::default();
        let mut changed = Changed::new(logits, &mut changes);
        change(&mut changed);
        let after: Vec<f32> = changed.iter().map(|(logit, _)| logit).collect();
        after.try_into().unwrap()
    }

    /// What each of eight tokens costs after this text.
    fn costs(text: &[u32], setting: &Dry) -> [f32; 8] {
        after(&[0.0; 8], |logits| dry(logits, text, setting)).map(|logit| -logit)
    }

    #[test]
    fn only_what_followed_a_repeated_sequence_costs() {
        // 1 2 3 was there, then came 4: that costs, once more than for two tokens.
        assert_eq!(costs(&[1, 2, 3, 4, 0, 1, 2, 3], &open()), [0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(costs(&[1, 2, 3, 4, 0, 5, 2, 3], &open()), [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(costs(&[1, 2, 3, 4, 0, 5, 6, 3], &open()), [0.0; 8], "one token is allowed");
        let single = Dry { allowed: 1, ..open() };
        assert_eq!(costs(&[1, 2, 3, 4, 0, 5, 6, 3], &single)[4], 1.0);
        // The longest of several copies counts.
        assert_eq!(costs(&[2, 3, 4, 1, 2, 3, 4, 0, 1, 2, 3], &open())[4], 2.0);
        // Two different continuations.
        assert_eq!(costs(&[1, 2, 5, 1, 2, 6, 1, 2], &open()), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn breakers_and_range_bound_the_sequences() {
        let text = [1, 2, 3, 4, 0, 1, 2, 3];
        let with = |breakers: &[u32]| Dry { breakers: breakers.into(), ..open() };
        assert_eq!(costs(&text, &with(&[1]))[4], 1.0, "2 3 is left");
        assert_eq!(costs(&text, &with(&[2])), [0.0; 8]);
        assert_eq!(costs(&text, &with(&[3])), [0.0; 8]);
        assert_eq!(costs(&text, &with(&[4])), [0.0; 8], "a breaker is not made less likely");
        assert_eq!(costs(&text, &Dry { range: 7, ..open() })[4], 1.0);
        assert_eq!(costs(&text, &Dry { range: 5, ..open() }), [0.0; 8]);
        assert_eq!(costs(&text, &Dry { range: 0, ..open() }), [0.0; 8]);
    }

    #[test]
    fn a_long_repetition_stays_a_number() {
        let cost = costs(&[7; 4000], &open());
        assert_eq!(cost[7], LARGEST);
        assert_eq!(costs(&[], &open()), [0.0; 8]);
    }

    /// The definition of the DRY penalty, said in the slowest way.
    fn slow(text: &[u32], dry: &Dry) -> [f32; 8] {
        let text = &text[text.len().saturating_sub(dry.range)..];
        let mut longest = [0usize; 8];
        for end in 1..text.len() {
            let copy = |n: usize| {
                n <= end
                    && text[end - n..end] == text[text.len() - n..]
                    && !text[end - n..end].iter().any(|id| dry.breakers.contains(id))
            };
            let length = (1..=end).take_while(|n| copy(*n)).count();
            if !dry.breakers.contains(&text[end]) {
                longest[text[end] as usize] = longest[text[end] as usize].max(length);
            }
        }
        longest.map(|n| {
            if n < dry.allowed { 0.0 } else { dry.multiplier * dry.base.powf((n - dry.allowed) as f32) }
        })
    }

    proptest! {
        #[test]
        fn dry_is_its_slow_definition(
            text in proptest::collection::vec(0u32..4, 0..40), allowed in 1usize..4, range in 0usize..50, breaker in 0u32..8,
        ) {
            let setting = Dry { allowed, range, breakers: [breaker].into(), base: 1.1, ..open() };
            prop_assert_eq!(costs(&text, &setting), slow(&text, &setting));
        }

        #[test]
        fn penalties_only_lower_and_more_lowers_more(
            logits in proptest::collection::vec(-20f32..20.0, 8), text in proptest::collection::vec(0u32..8, 0..30),
            strength in 0f32..3.0, more in 0f32..3.0,
        ) {
            let after = |change: &dyn Fn(&mut Changed<'_>)| after(&logits, change);
            let falls = |weak: [f32; 8], strong: [f32; 8]| {
                let fall = weak.iter().zip(&logits).zip(&strong).all(|((weak, before), strong)| strong <= weak && weak <= before);
                let others = (0..8).all(|id| text.contains(&id) || strong[id as usize] == logits[id as usize]);
                fall && others
            };
            let (weak, strong) = (strength, strength + more);
            prop_assert!(falls(after(&|l| repeated(l, &text, 1.0 + weak)), after(&|l| repeated(l, &text, 1.0 + strong))));
            prop_assert!(falls(after(&|l| said(l, &text, weak, 0.0)), after(&|l| said(l, &text, strong, 0.0))));
            prop_assert!(falls(after(&|l| said(l, &text, 0.0, weak)), after(&|l| said(l, &text, 0.0, strong))));
            let setting = |multiplier| Dry { multiplier, ..Dry::default() };
            prop_assert!(falls(after(&|l| dry(l, &text, &setting(weak))), after(&|l| dry(l, &text, &setting(strong)))));
        }
    }
}
