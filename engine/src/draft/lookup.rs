//! Prompt lookup: where a text ends as it did before, it may go on as it did before.

/// The shortest end that is looked for: a single token says next to nothing about the one after it.
const LEAST: usize = 2;
/// Nothing longer is compared, so that looking through a text of `n` tokens takes at most so many times `n` steps.
const LONGEST: usize = 12;

/// Fills `guess` with up to `most` tokens that may come after `text` and `last`: those that followed the latest of the longest
/// earlier copies of that end. Returns how many tokens the copy has, 0 where there is no guess.
pub(super) fn look_up(text: &[u32], last: u32, most: usize, guess: &mut Vec<u32>) -> usize {
    guess.clear();
    let (mut next, mut longest) = (0, LEAST - 1);
    for at in (0..text.len()).rev() {
        if text[at] == last {
            let back = text[..at].iter().rev().zip(text.iter().rev());
            let length = 1 + back.take(LONGEST - 1).take_while(|(a, b)| a == b).count();
            if length > longest {
                (next, longest) = (at + 1, length);
                if length == LONGEST {
                    break;
                }
            }
        }
    }
    if next == 0 || most == 0 {
        return 0;
    }
    for at in next..next + most {
        // A copy that reaches the end goes on with the guess itself: what repeats, repeats.
        let token = text.get(at).copied().or_else(|| Some(guess[at.checked_sub(text.len() + 1)?]));
        guess.push(token.unwrap_or(last));
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(text: &[u32], most: usize) -> (usize, Vec<u32>) {
        let (mut guess, (last, before)) = (vec![99], text.split_last().unwrap());
        (look_up(before, *last, most, &mut guess), guess)
    }

    #[test]
    fn the_longest_copy_of_the_end_goes_on_and_of_equals_the_latest() {
        assert_eq!(guess(&[1, 2, 3, 4, 9, 1, 2], 2), (2, vec![3, 4]));
        assert_eq!(guess(&[1, 2, 3, 1, 2, 4, 1, 2], 1), (2, vec![4]), "the latest of two");
        assert_eq!(guess(&[7, 1, 2, 3, 1, 2, 4, 7, 1, 2], 1), (3, vec![3]), "the longer of two");
        assert_eq!(guess(&[2, 5, 2], 1), (0, vec![]), "one token is no copy");
        for (text, most) in [(&[4][..], 3), (&[4, 5], 3), (&[1, 2, 3, 1, 2], 0)] {
            assert_eq!(guess(text, most), (0, vec![]));
        }
    }

    #[test]
    fn what_repeats_goes_on_repeating() {
        assert_eq!(guess(&[1, 2, 3, 1, 2, 3], 7), (3, vec![1, 2, 3, 1, 2, 3, 1]));
        assert_eq!(guess(&[5; 30], 3), (LONGEST, vec![5; 3]));
    }
}
