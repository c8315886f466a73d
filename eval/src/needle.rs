//! Whether a model finds one sentence in a long text: a sentence with a number stands somewhere in it, and the text ends with
//! the sentence without its number.

use tern::{Error, Model, Result, Specials};

use crate::score::{Item, Scorer};

const NEEDLE: &str = " The secret number of the lighthouse is";

/// What was found at one length and depth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// How many of the numbers: each of their tokens was the model's likeliest.
    pub found: usize,
    /// Mean log-probability of a number.
    pub logprob: f64,
}

/// Asks for `repeat` different numbers, each at `depth` percent of `text`, which is repeated or cut to `length` tokens.
/// `None` where the needle and its question alone take that many.
pub fn find(
    scorer: &mut Scorer,
    model: &Model,
    text: &str,
    [length, depth]: [usize; 2],
    repeat: usize,
) -> Result<Option<Found>> {
    let mut all = Found::default();
    for nth in 0..repeat {
        let Some(item) = item(model, text, length, depth, nth)? else { return Ok(None) };
        let scores = scorer.score(&[item])?;
        let number = &scores[0][0];
        all.found += usize::from(number.iter().all(|scored| scored.best));
        all.logprob += number.iter().map(|scored| scored.logprob).sum::<f64>() / repeat as f64;
    }
    Ok(Some(all))
}

/// The text of a place, cut to so many tokens, and its number.
fn item(model: &Model, text: &str, length: usize, depth: usize, nth: usize) -> Result<Option<Item>> {
    let tokenizer = model.tokenizer()?;
    // Numbers that no text is likely to hold, another for each place.
    let number = 1009 + (nth * 2711 + length * 31 + depth * 173) % 8987;
    let plain = |text: &str| tokenizer.encode(text, false, Specials::Text);
    let (needle, question) = (plain(&format!("{NEEDLE} {number}."))?, plain(NEEDLE)?);
    let asked = plain(&format!("{NEEDLE} {number}"))?;
    let end = asked.strip_prefix(&question[..]).filter(|end| !end.is_empty()).ok_or_else(|| {
        let what = "this tokenizer joins the needle's words and its number: there is no token to ask for";
        Error::Input(what.to_owned())
    })?;
    let first: Vec<u32> = tokenizer.bos().filter(|_| tokenizer.adds_bos()).into_iter().collect();
    let hay = plain(text)?;
    if hay.is_empty() {
        return Err(Error::Input("the text around the needle has no tokens".to_owned()));
    }
    let room = length.checked_sub(first.len() + needle.len() + question.len() + end.len());
    let Some(room) = room.filter(|room| *room > 0) else { return Ok(None) };
    let hay: Vec<u32> = hay.iter().copied().cycle().take(room).collect();
    let (before, after) = hay.split_at(room * depth / 100);
    let context = first.iter().chain(before).chain(&needle).chain(after).chain(&question).copied().collect();
    Ok(Some(Item { context, ends: vec![end.to_vec()] }))
}

/// Powers of two, and the whole context.
pub fn usual_lengths(context: usize) -> Vec<usize> {
    let mut lengths: Vec<usize> =
        (8..).map(|power| 1 << power).take_while(|length| *length < context).collect();
    lengths.push(context);
    lengths
}

/// Sentences of our own, without numbers; what is longer repeats them.
pub fn haystack() -> String {
    const WHO: [&str; 8] = [
        "The fisherman",
        "A gull",
        "The old woman",
        "The harbour cat",
        "A sailor",
        "The baker",
        "A child",
        "The keeper",
    ];
    const DID: [&str; 7] = [
        "watched the tide come in",
        "carried a basket along the pier",
        "told a story about the storm",
        "mended a net by the window",
        "waited for the evening boat",
        "sang quietly to the waves",
        "painted the door of the boathouse blue",
    ];
    const WHEN: [&str; 5] =
        ["in the morning.", "before the rain.", "when the bells rang.", "all afternoon.", "once more."];
    let mut text = String::new();
    for nth in 0..WHO.len() * DID.len() * WHEN.len() {
        text.push_str(&format!(" {} {} {}", WHO[nth * 3 % 8], DID[nth * 5 % 7], WHEN[nth * 2 % 5]));
    }
    text
}
