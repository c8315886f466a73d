//! What happens in a run as lines of JSON, for programs: those of `metrics.jsonl`, and what else people are told.

use serde_json::{Value, json};
use tern_train::metrics::Line;
use tern_train::run::{End, Event};

pub(super) fn event(event: Event) -> Value {
    // By way of the text: a 32-bit float keeps the digits that the file has.
    let measured = |line: Line| {
        let text = serde_json::to_string(&line).expect("plain numbers and texts");
        serde_json::from_str(&text).expect("what was just written")
    };
    match event {
        Event::Note(text) => json!({"kind": "note", "text": text}),
        Event::Warning(text) => json!({"kind": "warning", "text": text}),
        Event::Begin { step, steps, params, train, held_out, cpu, threads } => json!({
            "kind": "begin",
            "step": step,
            "steps": steps,
            "parameters": params,
            "train": {"tokens": train.tokens, "documents": train.documents},
            "held_out": {"tokens": held_out.tokens, "documents": held_out.documents},
            "cpu": cpu,
            "threads": threads,
        }),
        Event::Step(step) => measured(Line::Step(step)),
        Event::Validation(found) => measured(Line::Validation(found)),
        Event::Evaluation(found) => measured(Line::Evaluation(found)),
        Event::Sample { step, text } => measured(Line::Sample { step, text }),
        Event::Saved(path) => json!({"kind": "saved", "path": path.to_string_lossy()}),
    }
}

pub(super) fn end(end: &End) -> Value {
    match end {
        End::Done(model) => json!({"kind": "done", "model": model.to_string_lossy()}),
        End::Stopped(checkpoint) => json!({"kind": "stopped", "path": checkpoint.to_string_lossy()}),
    }
}
