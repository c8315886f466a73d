//! How much memory keys and values get.

use tern::{Batch, Model};

use crate::options::Options;

/// Tokens of a sequence and pages for all of them together, where there are no more than so many bytes for this model.
pub(crate) fn plan(
    model: &Model,
    draft: Option<&Model>,
    options: &Options,
    most: u64,
) -> Result<(usize, usize), String> {
    // A draft model has read no more than the texts whose pages these are.
    let page = Batch::page_bytes(model) + draft.map_or(0, Batch::page_bytes);
    let free = match tern::free_memory() {
        Some(free) => Some(free.min(most)),
        None => Some(most).filter(|most| *most < u64::MAX),
    };
    sized(model.config().context, page, free, options)
}

fn sized(most: usize, page: usize, free: Option<u64>, options: &Options) -> Result<(usize, usize), String> {
    if let Some(context) = options.context.filter(|context| *context > most || *context < 2) {
        return Err(format!("a context of {context}: expected 2 to {most}, the model's own"));
    }
    let wanted = options.context.unwrap_or(most);
    let per_sequence = wanted.div_ceil(Batch::PAGE);
    let page = page as u64;
    let pages = match options.kv_memory {
        Some(bytes) => {
            if let Some(free) = free.filter(|free| bytes > *free) {
                return Err(format!(
                    "{bytes} bytes for keys and values: only {free} bytes of memory are free"
                ));
            }
            bytes / page
        }
        // Every sequence at its longest, but no more than half of what is free.
        None => {
            let all = (options.parallel * per_sequence) as u64;
            free.map_or(all, |free| all.min((free / 2) / page))
        }
    };
    let pages = usize::try_from(pages).unwrap_or(usize::MAX);
    if pages >= per_sequence {
        return Ok((wanted, pages));
    }
    let needed = per_sequence as u64 * page;
    match options.context {
        // Nobody asked for so much: what there is room for will do.
        None if pages > 0 => Ok((pages * Batch::PAGE, pages)),
        _ => Err(format!(
            "a context of {wanted} takes {needed} bytes of keys and values, the budget is {}: `--ctx-size` or \
             `--kv int8` make it smaller",
            pages as u64 * page
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_kept_and_impossible_ones_told() {
        let options = |context, kv_memory| Options { context, kv_memory, parallel: 4, ..Options::default() };
        assert_eq!(sized(1000, 10, None, &options(None, None)), Ok((1000, 16)));
        assert_eq!(sized(1000, 10, Some(100), &options(None, None)), Ok((1000, 5)), "half of what is free");
        assert_eq!(sized(1000, 10, Some(1000), &options(Some(300), Some(95))), Ok((300, 9)));
        assert_eq!(
            sized(1000, 10, Some(60), &options(None, None)),
            Ok((768, 3)),
            "as much as there is room for"
        );
        for (context, memory, free, expected) in [
            (Some(1001), None, None, "expected 2 to 1000"),
            (Some(1000), Some(39), None, "the budget is 30"),
            (None, Some(100), Some(99), "only 99 bytes"),
            (None, Some(9), Some(99), "the budget is 0"),
        ] {
            let error = sized(1000, 10, free, &options(context, memory)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
