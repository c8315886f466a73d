//! What drops tokens. Candidates are `(logit or weight, id)`, sorted by falling number from [`top_k`] on; every filter
//! leaves at least one and keeps the order.

use std::cmp::Ordering;

/// A number and the token it belongs to: a logit, later a weight, which is a probability times a constant.
pub(super) type Candidate = (f32, u32);

/// By falling logit, equals by rising id.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Sorts by falling logit, equals by rising id, and keeps the first `k` of all, which come by rising id (0: keeps all). Never
/// holds more than twice as many.
pub(super) fn top_k(kept: &mut Vec<Candidate>, all: impl Iterator<Item = Candidate>, k: usize) {
    kept.clear();
    if k == 0 {
        kept.extend(all);
    } else {
        // The last of the k that are known to be before all others so far.
        let mut last: Option<f32> = None;
        for candidate in all {
            if last.is_some_and(|last| candidate.0.total_cmp(&last).is_le()) {
                continue;
            }
            kept.push(candidate);
            if kept.len() == 2 * k {
                last = Some(kept.select_nth_unstable_by(k - 1, order).1.0);
                kept.truncate(k);
            }
        }
    }
    kept.sort_unstable_by(order);
    if k > 0 {
        kept.truncate(k);
    }
}

/// Keeps the tokens whose surprise, `-ln probability`, is nearest to its expectation, the entropy: the fewest whose sum
/// reaches the share `p` (Meister et al., "Locally typical sampling", 2022). The likeliest token may go, where it is far
/// likelier than the rest together are surprising.
pub(super) fn typical(weights: &mut Vec<Candidate>, p: f32) {
    if p >= 1.0 {
        return;
    }
    let total = sum(weights);
    let surprise = |weight: f32| if weight > 0.0 { -(weight / total).ln() } else { f32::INFINITY };
    let likely = weights.iter().filter(|(weight, _)| *weight > 0.0);
    let entropy: f32 = likely.map(|(weight, _)| weight / total * surprise(*weight)).sum();
    let far = |place: usize| (surprise(weights[place].0) - entropy).abs();
    let mut nearest: Vec<usize> = (0..weights.len()).collect();
    // Stable: the likelier of two that are as far.
    nearest.sort_by(|a, b| far(*a).total_cmp(&far(*b)));
    let mut sum = 0.0;
    let enough = nearest.iter().position(|&place| {
        sum += weights[place].0;
        sum >= total * p
    });
    nearest.truncate(enough.map_or(weights.len(), |last| last + 1));
    nearest.sort_unstable();
    *weights = nearest.into_iter().map(|place| weights[place]).collect();
}

/// Of falling weights keeps the fewest whose sum reaches the share `p`.
pub(super) fn top_p(weights: &mut Vec<Candidate>, p: f32) {
    if p >= 1.0 {
        return;
    }
    let bound = sum(weights) * p;
    let mut sum = 0.0;
    let enough = weights.iter().position(|(weight, _)| {
        sum += weight;
        sum >= bound
    });
    if let Some(last) = enough {
        weights.truncate(last + 1);
    }
}

/// Of falling weights keeps those of at least `p` times the first.
pub(super) fn min_p(weights: &mut Vec<Candidate>, p: f32) {
    let bound = weights[0].0 * p;
    let keep = weights.iter().take_while(|(weight, _)| *weight >= bound).count();
    weights.truncate(keep.max(1));
}

/// In the order of the candidates.
pub(super) fn sum(weights: &[Candidate]) -> f32 {
    weights.iter().map(|(weight, _)| weight).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(candidates: &[Candidate]) -> Vec<u32> {
        candidates.iter().map(|(_, id)| *id).collect()
    }

    fn kept(filter: impl Fn(&mut Vec<Candidate>), weights: &[f32]) -> Vec<u32> {
        let mut candidates = Vec::new();
        top_k(&mut candidates, weights.iter().copied().zip(0..), 0);
        filter(&mut candidates);
        ids(&candidates)
    }

    fn largest(weights: &[f32], k: usize) -> Vec<u32> {
        let mut candidates = Vec::new();
        top_k(&mut candidates, weights.iter().copied().zip(0..), k);
        assert!(k == 0 || candidates.capacity() <= (2 * k).next_power_of_two().max(4), "{k}: {candidates:?}");
        ids(&candidates)
    }

    #[test]
    fn each_keeps_what_it_says() {
        let weights = [0.05, 0.3, 0.5, 0.15];
        assert_eq!(largest(&weights, 2), [2, 1]);
        assert_eq!(largest(&weights, 9), [2, 1, 3, 0]);
        assert_eq!(largest(&[-0.0, 0.0, -0.0], 1), [1]);
        assert_eq!(kept(|c| top_p(c, 0.6), &weights), [2, 1]);
        assert_eq!(kept(|c| top_p(c, 0.5), &weights), [2]);
        assert_eq!(kept(|c| min_p(c, 0.2), &weights), [2, 1, 3]);
        assert_eq!(kept(|c| min_p(c, 1.0), &weights), [2]);
    }

    #[test]
    fn typical_takes_what_is_as_surprising_as_expected() {
        // Surprises 0.69, 1.20, 1.90, 3.00 and entropy 1.14: the second token is nearest, then the first.
        let weights = [0.5, 0.3, 0.15, 0.05];
        assert_eq!(kept(|c| typical(c, 0.2), &weights), [1]);
        assert_eq!(kept(|c| typical(c, 0.6), &weights), [0, 1]);
        assert_eq!(kept(|c| typical(c, 0.9), &weights), [0, 1, 2]);
        // All as surprising as expected: the lowest ids.
        assert_eq!(kept(|c| typical(c, 0.5), &[1.0; 4]), [0, 1]);
    }

    proptest! {
        #[test]
        fn filters_keep_the_likeliest_and_all_above_what_they_keep(
            weights in proptest::collection::vec(0f32..1.0, 1..60), k in 0usize..70, p in 0.001f32..=1.0, m in 0f32..=1.0,
        ) {
            let all = kept(|_| (), &weights);
            for some in [largest(&weights, k), kept(|c| top_p(c, p), &weights), kept(|c| min_p(c, m), &weights)] {
                prop_assert!(!some.is_empty());
                prop_assert_eq!(&some[..], &all[..some.len()]);
            }
        }

        #[test]
        fn the_largest_are_the_first_of_all_in_order(levels in proptest::collection::vec(0u8..6, 1..200), k in 0usize..70) {
            let weights: Vec<f32> = levels.iter().map(|level| f32::from(*level) - 3.0).collect();
            let all = kept(|_| (), &weights);
            prop_assert_eq!(&largest(&weights, k)[..], &all[..if k == 0 { all.len() } else { k.min(all.len()) }]);
        }

        #[test]
        fn typical_keeps_all_nearer_to_the_entropy_than_what_it_keeps(
            weights in proptest::collection::vec(1e-6f32..1.0, 1..60), p in 0.001f32..=1.0,
        ) {
            let some = kept(|c| typical(c, p), &weights);
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            let share = |id: u32| f64::from(weights[id as usize]) / total;
            let all = 0..weights.len() as u32;
            let entropy: f64 = all.clone().map(|id| -share(id) * share(id).ln()).sum();
            let far = |id: u32| (-share(id).ln() - entropy).abs();
            let farthest = some.iter().map(|id| far(*id)).fold(0.0, f64::max);
            for id in all {
                prop_assert!(some.contains(&id) || far(id) >= farthest - 1e-4);
            }
            let sum: f64 = some.iter().map(|id| share(*id)).sum();
            prop_assert!(sum >= f64::from(p) - 1e-4);
        }
    }
}
