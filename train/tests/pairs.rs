//! Learning from pairs: loss and gradients against PyTorch and PEFT (testdata/golden/gen/dpo.py), and whole runs.

mod common;

use std::cell::Cell;
use std::fs;
use std::path::Path;

use common::beside::{Beside, base, floats, golden, ids};
use common::{folder, numbers, run};
use safetensors::SafeTensors;
use tern_kernels::{Cpu, Pool};
use tern_train::config::Run;
use tern_train::corpus::{Corpus, Place, Sequences};
use tern_train::lora::Lora;
use tern_train::metrics::{self, Line, Step};
use tern_train::network::Batch;
use tern_train::ops::Machine;
use tern_train::ops::lora::Pair;
use tern_train::ops::loss::{NONE, RowLoss};
use tern_train::pairs::Pairs;
use tern_train::run::{End, Event, train};
use tern_train::start::Start;

const LENGTH: usize = 16;

/// The golden's four answers, each a sequence.
fn batch(known: &SafeTensors) -> Sequences {
    let mut batch = Sequences { documents: vec![0, 1, 2, 3], ..Sequences::default() };
    for nth in 0..2 {
        for answer in ["chosen", "rejected"] {
            let prompt = ids(known, &format!("prompt.{nth}"));
            let all = [prompt.clone(), ids(known, &format!("{answer}.{nth}"))].concat();
            for at in 0..LENGTH {
                batch.tokens.push(all.get(at).copied().unwrap_or(0));
                let answers = at + 1 >= prompt.len();
                batch.targets.push(all.get(at + 1).copied().filter(|_| answers).unwrap_or(NONE));
                batch.starts.push(if at < all.len() { 0 } else { at as u32 });
            }
        }
    }
    batch
}

#[test]
fn loss_and_gradients_equal_those_of_pytorch() {
    let bytes = fs::read(golden("adapters/bitnet/adapter_model.safetensors")).unwrap();
    let lora = Lora::parse("rank=4,alpha=6,targets=all").unwrap();
    let beside = Beside::open(&lora, &SafeTensors::deserialize(&bytes).unwrap());
    let known = fs::read(golden("adapters/bitnet/dpo.safetensors")).unwrap();
    let known = SafeTensors::deserialize(&known).unwrap();
    let batch = batch(&known);
    // The reference has no adapter.
    let mut plain = beside.params.clone();
    for Pair { b, .. } in beside.layout.blocks.iter().flat_map(|block| block.adapters.iter().flatten()) {
        plain[b.clone()].fill(0.0);
    }
    for cpu in Cpu::available() {
        let mut first = None;
        for (threads, recompute) in [(1, false), (3, true)] {
            let pool = Pool::new(threads);
            let on = Machine { cpu, pool: &pool };
            let mut network = beside.network(on, LENGTH, recompute);
            let mut rows = vec![RowLoss::default(); batch.tokens.len()];
            let of = Batch { tokens: &batch.tokens, targets: &batch.targets, starts: &batch.starts };
            network.prepare(on, &plain).unwrap();
            network.run(on, &plain, of, &mut rows, None).unwrap();
            let log = |rows: &[RowLoss]| -rows.iter().map(|row| f64::from(row.loss)).sum::<f64>();
            let reference: Vec<f64> = rows.chunks(LENGTH).map(log).collect();
            for (got, want) in reference.iter().zip(floats(&known, "reference")) {
                assert!((got - f64::from(want)).abs() < 1e-3, "{got}, expected {want}");
            }
            let pairs = Pairs::new(floats(&known, "beta")[0], reference);
            let mut grads = Vec::new();
            let sum =
                pairs.learn(&mut network, on, &beside.params, &batch, 0.5, &mut rows, &mut grads).unwrap();
            for (got, want) in rows.chunks(LENGTH).map(log).zip(floats(&known, "logs")) {
                assert!((got - f64::from(want)).abs() < 1e-3, "{got}, expected {want}");
            }
            let want = f64::from(floats(&known, "loss")[0]);
            assert!((sum.loss / 2.0 - want).abs() < 1e-4, "{} {want}", sum.loss / 2.0);
            let margin = floats(&known, "margins").iter().sum::<f32>();
            assert!((sum.margin - f64::from(margin)).abs() < 1e-4, "{} {margin}", sum.margin);
            assert_eq!(sum.right, 0.0);
            beside.assert_gradients(0..1, &grads, &known);
            let bits: Vec<u32> = grads.iter().map(|g| g.to_bits()).collect();
            assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{threads} threads");
        }
    }
}

/// Questions with an answer in order and one out of it; every fifth in messages.
fn pairs(dir: &Path) {
    let words = ["the", "tern", "flies", "over", "a", "cold", "sea", "and", "sleeps", "on", "warm", "sand"];
    let text = |from: usize, step: usize, count: usize| {
        (0..count).map(|at| words[(from + step * at) % words.len()]).collect::<Vec<_>>().join(" ")
    };
    let line = |nth: usize| {
        let (asked, better, worse) = (text(nth, 1, 3), text(nth + 3, 1, 5 + nth % 4), text(nth + 3, 7, 6));
        if nth.is_multiple_of(5) {
            let turn =
                |role: &str, content: &str| format!("{{\"role\": \"{role}\", \"content\": \"{content}\"}}");
            let (user, assistant) = (turn("user", &asked), |answer: &str| turn("assistant", answer));
            return format!(
                "{{\"prompt\": [{user}], \"chosen\": [{}], \"rejected\": [{}]}}",
                assistant(&better),
                assistant(&worse)
            );
        }
        format!("{{\"prompt\": \"{asked}\", \"chosen\": \" {better}\", \"rejected\": \" {worse}\"}}")
    };
    let long = format!("{{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"{}\"}}", text(0, 1, 40));
    let lines: Vec<String> = (0..60).map(line).chain([long]).collect();
    fs::write(dir.join("pairs.jsonl"), lines.join("\n")).unwrap();
}

fn learn(dir: &Path, out: &str, from: &Path, more: &str) -> Run {
    let text = format!(
        "train = [\"pairs.jsonl\"]\nfrom = \"{}\"\ndpo = 0.5\nsequences = 4\nrate = 1e-2\nsteps = 96\n{more}",
        from.display()
    );
    run(dir, out, &text)
}

const LORA: &str = "lora = \"rank=4,alpha=8,targets=all\"\nrate = 5e-3";

#[test]
fn a_run_comes_to_prefer_the_better_answers_and_a_stopped_one_goes_on_to_the_same_bits() {
    let dir = folder();
    let (masters, packed) = base(dir.path());
    pairs(dir.path());
    for (name, from, more) in [("whole", &masters, ""), ("lora", &packed, LORA)] {
        let whole = learn(dir.path(), name, from, more);
        let mut notes = Vec::new();
        let end = train(&whole, &|| false, &mut |event| {
            if let Event::Note(note) = event {
                notes.push(note);
            }
        });
        assert!(matches!(end.unwrap(), End::Done(_)));
        let told = |what: &str| assert!(notes.iter().any(|note| note.contains(what)), "{what}: {notes:?}");
        told("1 of 61 pairs are left out: longer than a `length` of 32");
        told("the model reads 122 answers first, as its own reference");
        let lines = metrics::read(&whole.out).unwrap();
        let steps: Vec<_> = lines
            .iter()
            .filter_map(|line| if let Line::Step(step) = line { Some(step) } else { None })
            .collect();
        // At the first step nothing has changed.
        assert!((steps[0].loss - 2f64.ln()).abs() < 1e-6, "{}", steps[0].loss);
        assert_eq!((steps[0].preferred, steps[0].margin), (Some(0.0), Some(0.0)));
        let mean = |of: fn(&Step) -> f64| steps[88..].iter().map(|step| of(step)).sum::<f64>() / 8.0;
        let (loss, share) = (mean(|step| step.loss), mean(|step| step.preferred.unwrap()));
        let margin = mean(|step| step.margin.unwrap());
        assert!(loss < 0.6 && share > 0.7 && margin > 0.1, "{loss} {share} {margin}");
        let held_out = lines.iter().filter_map(|line| match line {
            Line::Validation(found) => Some((found.preferred.unwrap(), found.loss)),
            _ => None,
        });
        let held_out: Vec<(f64, f64)> = held_out.collect();
        assert_eq!(held_out.len(), 20);
        assert!(
            held_out.iter().all(|(share, loss)| (0.0..=1.0).contains(share) && *loss > 0.0),
            "{held_out:?}"
        );
        for threads in [1, 3] {
            let out = format!("{name}-{threads}");
            let broken = learn(dir.path(), &out, from, &format!("threads = {threads}\n{more}"));
            // In the middle of the reference's reading first.
            let asked = Cell::new(0);
            let stop = || {
                asked.set(asked.get() + 1);
                asked.get() > 7
            };
            let error = train(&broken, &stop, &mut |_| {}).unwrap_err().to_string();
            assert!(error.contains("stopped while the reference was reading"), "{error}");
            for stop in [1, 5, 8] {
                let (steps, notes) = (Cell::new(0), Cell::new(0));
                let end = train(&broken, &|| steps.get() >= stop, &mut |event| match event {
                    Event::Step(step) => steps.set(step.step),
                    Event::Note(note) if note.contains("as its own reference") => {
                        assert!(!note.contains("122"), "{note}");
                        notes.set(notes.get() + 1);
                    }
                    _ => {}
                });
                assert!(matches!(end.unwrap(), End::Stopped(_)));
                assert_eq!(notes.get(), u64::from(stop == 1));
            }
            assert!(matches!(train(&broken, &|| false, &mut |_| {}).unwrap(), End::Done(_)));
            assert_eq!(numbers(&broken.out), numbers(&whole.out), "{out}");
        }
    }
}

#[test]
fn both_answers_to_a_question_are_in_one_batch_and_only_they_are_learnt() {
    let dir = folder();
    pairs(dir.path());
    let run = learn(dir.path(), "x", Path::new("story"), "length = 64\nvalidation = 0.25");
    let start = Start::of(&run).unwrap();
    let end = start.end().unwrap();
    let mut corpus =
        Corpus::open(&run, &start.tokenizer, end, &mut |note| assert!(!note.contains("left out"), "{note}"))
            .unwrap();
    let (mut place, mut out) = (Place::default(), Sequences::default());
    let count = corpus.sequences(0, 64);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..count / 4 {
        corpus.next(&mut place, 4, 64, &mut out).unwrap();
        for (pair, tokens) in out.documents.chunks(2).zip(out.tokens.chunks(128)) {
            assert!(pair[0] % 2 == 0 && pair[1] == pair[0] + 1 && seen.insert(pair[0]), "{pair:?}");
            assert_eq!(tokens[..2], tokens[64..66], "both begin with what was asked");
        }
        for (tokens, targets) in out.tokens.chunks(64).zip(out.targets.chunks(64)) {
            let learnt: Vec<usize> = (0..64).filter(|at| targets[*at] != NONE).collect();
            assert!(learnt.len() >= 2 && learnt[0] >= 1, "{learnt:?}");
            assert!(learnt.windows(2).all(|two| two[1] == two[0] + 1), "one answer: {learnt:?}");
            assert!(learnt.iter().all(|at| targets[*at] == tokens[at + 1]));
        }
    }
    let (held_out, _) = corpus.held_out(1 << 20, 64).unwrap();
    assert!(held_out.documents.iter().all(|nth| !seen.contains(nth)));
    assert_eq!(2 * seen.len() + held_out.documents.len(), 122);
}

#[test]
fn texts_and_pairs_do_not_go_together() {
    let dir = folder();
    pairs(dir.path());
    for (more, wanted) in [
        ("train = [\"a.txt\"]", "a.txt, line 1: expected a pair, `chosen` and `rejected`"),
        (
            "dpo = 0.0",
            "pairs.jsonl, line 1: a pair of `chosen` and `rejected`: learning from pairs wants `dpo`",
        ),
        ("length = 4", "key `length`: 4: no pair to train on is that short"),
    ] {
        let run = learn(dir.path(), "e", Path::new("story"), more);
        let error = train(&run, &|| false, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
