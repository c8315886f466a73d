//! Other servers' names for settings that this one has too.

use serde_json::{Value, json};

use crate::error::Refusal;
use crate::wire::{Request, Structured};

/// Brings them under their names here.
pub(crate) fn unify(request: &mut Request) -> Result<(), Refusal> {
    let Structured { json, regex, choice, grammar, json_object } =
        request.structured_outputs.take().unwrap_or_default();
    let schemas = [request.guided_json.take(), json].into_iter().flatten().filter(|schema| !schema.is_null());
    for schema in schemas {
        // vLLM takes a schema's text too.
        let schema = match &schema {
            Value::String(text) => serde_json::from_str(text)
                .map_err(|_| Refusal::field("guided_json", "expected a JSON schema"))?,
            _ => schema,
        };
        once(&mut request.json_schema, schema, "guided_json")?;
    }
    if json_object == Some(true) {
        once(&mut request.json_schema, json!({"type": "object"}), "structured_outputs.json_object")?;
    }
    for choices in [request.guided_choice.take(), choice].into_iter().flatten() {
        if choices.is_empty() {
            return Err(Refusal::field("guided_choice", "expected at least one text"));
        }
        let one_of: Vec<String> = choices.iter().map(|text| literal(text)).collect();
        once(&mut request.regex, one_of.join("|"), "guided_choice")?;
    }
    for regex in [request.guided_regex.take(), regex].into_iter().flatten() {
        once(&mut request.regex, regex, "guided_regex")?;
    }
    for grammar in [request.guided_grammar.take(), grammar].into_iter().flatten() {
        once(&mut request.grammar, grammar, "guided_grammar")?;
    }
    Ok(())
}

fn once<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), Refusal> {
    if place.replace(value).is_some() {
        return Err(Refusal::field(name, "an answer can follow one grammar only, found two"));
    }
    Ok(())
}

/// A text as a regular expression that matches nothing else.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammars_of_other_names_find_their_places() {
        let unified = |body: Value| {
            let mut request: Request = serde_json::from_value(body).unwrap();
            unify(&mut request).map(|()| request)
        };
        let schema = json!({"type": "object"});
        for body in [
            json!({"guided_json": schema}),
            json!({"guided_json": schema.to_string()}),
            json!({"structured_outputs": {"json": schema}}),
            json!({"structured_outputs": {"json_object": true}}),
        ] {
            assert_eq!(unified(body).unwrap().json_schema, Some(schema.clone()));
        }
        let regex = |body| unified(body).unwrap().regex.unwrap();
        assert_eq!(regex(json!({"guided_choice": ["yes.", "a b"]})), "yes\\.|a b");
        assert_eq!(regex(json!({"structured_outputs": {"regex": "a+"}})), "a+");
        assert_eq!(unified(json!({"guided_grammar": "g"})).unwrap().grammar.unwrap(), "g");
        for bad in [json!({"guided_regex": "a", "guided_choice": ["b"]}), json!({"guided_choice": []})] {
            assert!(unified(bad).is_err());
        }
    }
}
