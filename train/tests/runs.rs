//! Whole runs of a tiny model: stopped and resumed, broken and refused, exported and run by the engine.

mod common;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use common::{compare, convert_from, folder, numbers, run};
use tern::file::OpenOptions;
use tern::{Head, Model, Options};
use tern_convert::{ConvertOptions, Floats, Target};
use tern_kernels::{KvFormat, Rounding};
use tern_train::check::check;
use tern_train::config::Run;
use tern_train::corpus::{Corpus, Place, Sequences};
use tern_train::metrics::{self, Line};
use tern_train::ops::loss::NONE;
use tern_train::run::{End, Event, train};
use tern_train::start::Start;
use tern_train::{checkpoint, export};

fn masters(end: End) -> Vec<u8> {
    let End::Done(model) = end else { panic!("{end:?}") };
    fs::read(model.join("model.safetensors")).unwrap()
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bits_whatever_the_threads() {
    let dir = folder();
    let whole = run(dir.path(), "whole", "sample_every = 6");
    let model = masters(train(&whole, &|| false, &mut |_| {}).unwrap());
    let want = numbers(&whole.out);
    assert!(want.len() > 14, "{want:?}");
    for (out, threads, stops) in [("a", 2, [1, 4, 7]), ("b", 1, [2, 3, 11]), ("c", 3, [5, 6, 9])] {
        let broken = run(dir.path(), out, &format!("sample_every = 6\nthreads = {threads}"));
        for stop in stops {
            let steps = Cell::new(0);
            let end = train(&broken, &|| steps.get() >= stop, &mut |event| {
                if let Event::Step(step) = event {
                    steps.set(step.step);
                }
            });
            assert!(matches!(end.unwrap(), End::Stopped(_)));
        }
        assert!(masters(train(&broken, &|| false, &mut |_| {}).unwrap()) == model, "{out}: other weights");
        assert_eq!(numbers(&broken.out), want, "{out}");
    }
}

#[test]
fn the_loss_falls_and_recomputation_changes_nothing() {
    let dir = folder();
    let kept = run(dir.path(), "kept", "");
    let model = masters(train(&kept, &|| false, &mut |_| {}).unwrap());
    let losses: Vec<f64> = metrics::read(&kept.out)
        .unwrap()
        .into_iter()
        .filter_map(|line| if let Line::Step(s) = line { Some(s.loss) } else { None })
        .collect();
    assert!(losses[11] < losses[0] - 0.5, "{losses:?}");
    let again = run(dir.path(), "again", "recompute = true");
    assert!(masters(train(&again, &|| false, &mut |_| {}).unwrap()) == model);
}

/// The losses that a run wrote down.
fn losses_of(out: &Path) -> Vec<f64> {
    let loss = |line| if let Line::Step(step) = line { Some(step.loss) } else { None };
    metrics::read(out).unwrap().into_iter().filter_map(loss).collect()
}

#[test]
fn the_exported_model_says_what_the_trainer_says() {
    let dir = folder();
    let run = run(dir.path(), "x", "");
    let End::Done(masters) = train(&run, &|| false, &mut |_| {}).unwrap() else { panic!() };
    let convert = |name: &str, options: &ConvertOptions| convert_from(&masters, dir.path(), name, options);
    let as_trained = ConvertOptions::new(Target::T5);
    let rounded =
        |embedding| ConvertOptions { embedding, head: embedding, ..ConvertOptions::new(Target::I2) };
    let t5 = convert("t5.gguf", &as_trained);
    let f16 = convert("f16.gguf", &rounded(Floats::F16));
    let bf16 = convert("bf16.gguf", &rounded(Floats::Bf16));
    let q8 = convert("q8.gguf", &rounded(Floats::Q8_0));
    for (path, format) in [(&masters, "F32"), (&t5, "F32"), (&f16, "F16"), (&bf16, "BF16"), (&q8, "Q8_0")] {
        let found = compare(&run, path).unwrap();
        assert!(found.tokens > 100 && found.chars > found.tokens, "{found:?}");
        assert_eq!((found.step, found.recorded), (12, Some(found.unrounded)), "{found:?}");
        assert_eq!(found.embedding.name(), format, "{found:?}");
        // Sums of floats in another order move a logit by a few of its last bits; the embedding is the file's on both
        // sides.
        assert!((found.engine - found.trainer).abs() < 1e-6 && found.is_equal(), "{found:?}");
        assert!(found.widest < 1e-4 && (found.others == 0 || format != "F32"), "{found:?}");
        let cost = (found.trainer - found.unrounded).abs();
        assert!(if format == "F32" { cost == 0.0 } else { cost > 0.0 && cost < 1e-2 }, "{found:?}");
    }
    // Another model is not the same.
    let mut other = run.clone();
    other.out = dir.path().join("other");
    other.seed = 2;
    train(&other, &|| false, &mut |_| {}).unwrap();
    for path in [&t5, &f16, &bf16, &q8] {
        let error = compare(&other, path).unwrap_err().to_string();
        assert!(error.contains("not the model of the run's latest checkpoint"), "{error}");
    }
    // Nor is one with a single other weight: here of one in the last matrix, before the 32 numbers of the last norm.
    let damaged = dir.path().join("damaged");
    fs::create_dir(&damaged).unwrap();
    for entry in fs::read_dir(&masters).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, damaged.join(path.file_name().unwrap())).unwrap();
    }
    let mut weights = fs::read(damaged.join("model.safetensors")).unwrap();
    let last = weights.len() - 4 * 32 - 4 * 10 - 1;
    weights[last] = 0x42; // above 32, where all are far below 1
    fs::write(damaged.join("model.safetensors"), weights).unwrap();
    let error = compare(&run, &damaged).unwrap_err().to_string();
    assert!(error.contains("blk.1.ffn_down.weight") && error.contains("where the run has"), "{error}");
    let trits = convert_from(&damaged, dir.path(), "damaged.gguf", &as_trained);
    let error = compare(&run, &trits).unwrap_err().to_string();
    assert!(error.contains("blk.1.ffn_down.weight"), "{error}");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/models/page/page.gguf");
    let error = compare(&run, page.as_ref()).unwrap_err().to_string();
    assert!(error.starts_with("the model has 736 tokens, 256 wide, 3 layers, the run "), "{error}");
}

/// Sizes that groups divide.
const GROUPS: &str =
    "sub_norms = false\nactivation = \"silu\"\ndim = 64\nhidden = 128\nhead_dim = 32\nsteps = 8";

#[test]
fn scales_by_group_run_as_they_were_trained_and_go_on_exactly() {
    let dir = folder();
    for (name, more) in [("group", "scales = \"group\"\ngroup = 32"), ("row", "scales = \"row\"")] {
        let whole = run(dir.path(), name, &format!("{GROUPS}\n{more}"));
        let End::Done(model) = train(&whole, &|| false, &mut |_| {}).unwrap() else { panic!() };
        let losses = losses_of(&whole.out);
        assert!(losses[7] < losses[0] - 0.3, "{losses:?}");
        // Stopped, and on another number of threads.
        let again = run(dir.path(), &format!("{name}-again"), &format!("{GROUPS}\n{more}\nthreads = 1"));
        let seen = Cell::new(0);
        let mut count = |event: Event| {
            if let Event::Step(step) = event {
                seen.set(step.step);
            }
        };
        assert!(matches!(train(&again, &|| seen.get() >= 3, &mut count).unwrap(), End::Stopped(_)));
        train(&again, &|| false, &mut |_| {}).unwrap();
        assert_eq!(numbers(&again.out), numbers(&whole.out), "{name}");

        // The engine takes it for a weight-only model, and with float activations says what the trainer says.
        let opened = Model::open(&model, &Options::default()).unwrap();
        assert_eq!(opened.activations(), Rounding::Group.name());
        let convert = |to: Target| {
            convert_from(&model, dir.path(), &format!("{name}-{}", to.name()), &ConvertOptions::new(to))
        };
        let mut files = vec![model.clone(), convert(Target::I2), convert(Target::T5)];
        if name == "row" {
            files.push(convert(Target::Q2_0));
        }
        for path in &files {
            let found = compare(&whole, path).unwrap();
            assert_eq!(found.recorded, Some(found.unrounded), "{found:?}");
            assert!((found.engine - found.trainer).abs() < 1e-6 && found.others == 0, "{found:?}");
        }
        // int8 is another arithmetic: the comparison above can fail.
        let file = tern::file::open(&files[1], OpenOptions::default()).unwrap();
        let options = Options { head: Head::Stored, kv: KvFormat::F32, ..Options::default() };
        let found = check(&whole, &file, &Model::from_file(&file, &options).unwrap(), &mut |_| {}).unwrap();
        assert!((found.engine - found.trainer).abs() > 1e-6, "{found:?}");

        // Fine-tuning begins with the same trits and scales, and so with the same loss.
        for (nth, from) in [&model, &files[1]].into_iter().enumerate() {
            let text =
                format!("{GROUPS}\n{more}\nfrom = \"{}\"\nrate = 0.0\nsteps = 1\nwarmup = 0", from.display());
            let tuned = run(dir.path(), &format!("{name}-tuned-{nth}"), &text);
            train(&tuned, &|| false, &mut |_| {}).unwrap();
            let found = compare(&tuned, from).unwrap();
            assert!(found.is_equal() && found.others == 0, "{found:?}");
        }
        let text = format!("from = \"{}\"", model.display());
        let error = train(&run(dir.path(), &format!("{name}-matrix"), &text), &|| false, &mut |_| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("`scales = \"{name}\"` trains with such")), "{error}");
    }
    let odd = run(dir.path(), "odd", "scales = \"group\"");
    let error = train(&odd, &|| false, &mut |_| {}).unwrap_err().to_string();
    assert_eq!(error, "key `group`: 128 does not divide dim, 32");
}

#[test]
fn when_no_checkpoint_is_whole_the_run_does_not_begin_anew_in_silence() {
    let dir = folder();
    let run = run(dir.path(), "broken", "steps = 8");
    train(&run, &|| false, &mut |_| {}).unwrap();
    let all = checkpoint::list(&dir.path().join("broken/checkpoints"));
    assert_eq!(all.len(), 2);
    let cut = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 9]).unwrap();
    };
    cut(&all[0].1);
    let mut notes = String::new();
    train(&run, &|| false, &mut |event| {
        if let Event::Note(note) = event {
            notes += &note;
        }
    })
    .unwrap();
    assert!(notes.contains("is cut short; trying the one before"), "{notes}");
    checkpoint::list(&dir.path().join("broken/checkpoints")).iter().for_each(|(_, path)| cut(path));
    let error = train(&run, &|| false, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("none of the 2 checkpoints is whole; remove them"), "{error}");
}

#[test]
fn sequences_cover_every_document_once_an_epoch_and_stay_within_them() {
    let dir = folder();
    let run = run(dir.path(), "y", "validation = 0.0").clone();
    let start = Start::of(&run).unwrap();
    let (end, bos) = (start.end().unwrap(), start.tokenizer.bos().unwrap());
    let mut corpus = Corpus::open(&run, &start.tokenizer, end, &mut |_| {}).unwrap();
    let total = corpus.size(false);
    assert_eq!(total.documents, 140);
    let mut place = Place::default();
    let mut out = Sequences::default();
    let mut orders = Vec::new();
    for epoch in 0..2 {
        let count = corpus.sequences(epoch, 32);
        assert_eq!(count, total.tokens / 32);
        let mut tokens = Vec::<u32>::new();
        for _ in 0..count {
            corpus.next(&mut place, 1, 32, &mut out).unwrap();
            for (at, (&token, &start)) in out.tokens.iter().zip(&out.starts).enumerate() {
                // A document begins where its beginning stands, and nowhere else but at the start of a sequence.
                assert_eq!(token == bos, start as usize == at && token == bos);
                assert!(token == bos || at == 0 || out.starts[at - 1] == start);
                let target = out.targets[at];
                assert!(target == NONE || at + 1 == 32 || target == out.tokens[at + 1]);
                assert!(token != end || target == NONE);
            }
            tokens.extend(&out.tokens);
        }
        assert_eq!(place, Place { epoch, sequence: count });
        let begun = tokens.iter().filter(|token| **token == bos).count();
        assert!((138..=140).contains(&begun), "{begun} documents");
        orders.push(tokens);
    }
    assert_ne!(orders[0], orders[1], "epochs have orders of their own");
    // The same again from the file that is there now, and from the middle.
    let mut corpus = Corpus::open(&run, &start.tokenizer, end, &mut |note| panic!("{note}")).unwrap();
    let mut place = Place { epoch: 1, sequence: 3 };
    corpus.next(&mut place, 2, 32, &mut out).unwrap();
    assert_eq!(out.tokens, orders[1][3 * 32..5 * 32]);
}

#[cfg(unix)]
#[test]
fn a_corpus_that_is_made_anew_stays_whole_for_who_has_the_old_one_open() {
    let dir = folder();
    let run = run(dir.path(), "w", "validation = 0.0");
    let start = Start::of(&run).unwrap();
    let end = start.end().unwrap();
    let mut first = Corpus::open(&run, &start.tokenizer, end, &mut |_| {}).unwrap();
    let mut other = run.clone();
    other.train.truncate(1);
    let second = Corpus::open(&other, &start.tokenizer, end, &mut |_| {}).unwrap();
    assert!(second.size(false).tokens < first.size(false).tokens);
    let (mut place, mut out) = (Place::default(), Sequences::default());
    for _ in 0..first.sequences(0, 32) {
        first.next(&mut place, 1, 32, &mut out).unwrap();
    }
}

#[test]
fn a_run_that_memory_cannot_hold_is_refused_before_it_takes_any() {
    let dir = folder();
    let large = "dim = 16384\nlayers = 80\nhidden = 53248\nheads = 128\nkv_heads = 8\nhead_dim = 128";
    let run = run(dir.path(), "large", large);
    if tern::free_memory().is_some() {
        let error = train(&run, &|| false, &mut |_| {}).unwrap_err().to_string();
        assert!(error.starts_with("the run needs ") && error.contains(" of memory, and "), "{error}");
        assert!(!run.out.exists(), "nothing was written");
    }
}

#[test]
fn only_the_assistant_is_learnt() {
    let dir = folder();
    let mut run = run(dir.path(), "z", "validation = 0.0");
    run.train = vec![dir.path().join("b.jsonl")];
    let start = Start::of(&run).unwrap();
    let mut corpus = Corpus::open(&run, &start.tokenizer, start.end().unwrap(), &mut |_| {}).unwrap();
    let mut out = Sequences::default();
    corpus.next(&mut Place::default(), 4, 32, &mut out).unwrap();
    let id = |name: &str| start.tokenizer.token_id(name).unwrap();
    let (assistant, turn_end) = (id("<|assistant|>"), id("<|end|>"));
    let mut speaking = None;
    for (at, (&token, &target)) in out.tokens.iter().zip(&out.targets).enumerate() {
        if at % 32 == 0 {
            speaking = None; // a sequence may begin within a turn
        }
        if token == assistant {
            speaking = Some(true);
        } else if token == turn_end {
            speaking = Some(false);
        }
        if let Some(speaking) = speaking {
            assert_eq!(target != NONE, speaking, "position {at}");
        }
    }
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoints() {
    let dir = folder();
    let mut bad = run(dir.path(), "nan", "warmup = 0\nsave_every = 2");
    let end = train(&bad, &|| checkpoint::list(&dir.path().join("nan/checkpoints")).len() == 1, &mut |_| {});
    assert!(matches!(end.unwrap(), End::Stopped(_)));
    bad.rate = 1e30;
    bad.weight_decay = 1e20;
    let error = train(&bad, &|| false, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("step ") && error.contains("is whole") && error.contains("`rate`"), "{error}");
    let kept = checkpoint::list(&bad.out.join("checkpoints"));
    assert!(!kept.is_empty());
    let start = Start::of(&bad).unwrap();
    let mut room = [start.params.clone(), start.params.clone(), start.params];
    checkpoint::read(&kept[0].1, &mut room.each_mut()).unwrap();
    assert!(room.iter().flatten().all(|value| value.is_finite()), "what was saved is finite");
}

/// The losses of every step.
fn losses(run: &Run) -> Vec<f64> {
    let mut all = Vec::new();
    train(run, &|| false, &mut |event| {
        if let Event::Step(step) = event {
            all.push(step.loss);
        }
    })
    .unwrap();
    all
}

#[test]
fn fine_tuning_starts_from_masters_and_from_packed_weights_alike() {
    let dir = folder();
    let first = run(dir.path(), "first", "");
    let End::Done(model) = train(&first, &|| false, &mut |_| {}).unwrap() else { panic!() };
    let last = *losses_of(&first.out).last().unwrap();
    let tuned = run(dir.path(), "tuned", &format!("from = \"{}\"\nrate = 1e-4", model.display()));
    let from_masters = losses(&tuned);
    assert!((from_masters[0] - last).abs() < 0.5, "{} after {last}", from_masters[0]);
    // A run's folder stands for its model; the tokenizer is the model's, and the new model has it.
    let by_folder = run(dir.path(), "by-folder", "from = \"first\"\nrate = 1e-4");
    assert_eq!(losses(&by_folder), from_masters);
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let bytes = |out: &Path| fs::read(out.join("masters").join(name)).unwrap();
        assert!(bytes(&by_folder.out) == bytes(&first.out), "{name}");
    }

    // Trits and scales are kept to the bit, so that the first step has the same loss; the places between are lost.
    for target in [Target::Hf, Target::T5, Target::I2, Target::I2S] {
        let name = format!("packed-{}", target.name());
        let packed = dir.path().join(&name);
        tern_convert::convert(&model, &packed, &ConvertOptions::new(target), &mut |_, _| {}).unwrap();
        let again = run(dir.path(), &format!("from-{name}"), &format!("from = \"{name}\"\nrate = 1e-4"));
        let losses = losses(&again);
        assert_eq!(losses[0], from_masters[0], "{name}");
        assert_ne!(losses, from_masters, "{name}");
        let tokenizer = Model::open(&again.out.join("masters"), &Options::default()).unwrap();
        assert!(tokenizer.tokenizer().unwrap().template().is_some(), "{name}");
    }
}

#[test]
fn a_llama_gguf_has_its_rows_in_another_order_and_trains_alike() {
    let dir = folder();
    let first = run(dir.path(), "llama", "sub_norms = false\nactivation = \"silu\"");
    let End::Done(model) = train(&first, &|| false, &mut |_| {}).unwrap() else { panic!() };
    let packed = dir.path().join("llama.gguf");
    tern_convert::convert(&model, &packed, &ConvertOptions::new(Target::I2), &mut |_, _| {}).unwrap();
    let by_masters = run(dir.path(), "m", "from = \"llama/masters\"\nrate = 0.0\nsteps = 1\nwarmup = 0");
    let by_gguf = run(dir.path(), "g", "from = \"llama.gguf\"\nrate = 0.0\nsteps = 1\nwarmup = 0");
    assert_eq!(losses(&by_gguf), losses(&by_masters));
    let found = compare(&by_gguf, &by_gguf.out.join("masters")).unwrap();
    assert!(found.is_equal() && found.others == 0, "{found:?}");
    assert!(compare(&by_gguf, &packed).unwrap().is_equal());
}

#[test]
fn story_goes_on_where_it_was() {
    let dir = folder();
    let text =
        "sequences = 2\naccumulate = 1\nlength = 64\nsteps = 2\nrate = 1e-5\nwarmup = 0\nvalidation = 0.3";
    let mut tuned = run(dir.path(), "story", &format!("from = \"story\"\n{text}"));
    tuned.tokenizer = None;
    train(&tuned, &|| false, &mut |_| {}).unwrap();
    // A rate of 0 changes nothing: the trainer's figures are those of the built-in file in the engine.
    let mut still = tuned.clone();
    (still.out, still.rate, still.steps) = (dir.path().join("still"), 0.0, 1);
    train(&still, &|| false, &mut |_| {}).unwrap();
    let options = Options { head: Head::Stored, kv: KvFormat::F32, ..Options::default() };
    let story = tern::story_file().unwrap();
    let found = check(&still, &story, &Model::from_file(&story, &options).unwrap(), &mut |_| {}).unwrap();
    assert!(found.is_equal() && found.trainer == found.unrounded && found.tokens > 200, "{found:?}");
    assert!(
        (losses_of(&still.out)[0] - losses_of(&tuned.out)[0]).abs() < 1e-12,
        "step 0 is before any change"
    );
    let changed = compare(&tuned, &tuned.out.join("masters")).unwrap();
    assert!(changed.is_equal() && changed.trainer != found.trainer, "{changed:?}");
}

#[test]
fn the_float_twin_trains_too() {
    let dir = folder();
    let twin = run(dir.path(), "twin", "ternary = false");
    train(&twin, &|| false, &mut |_| {}).unwrap();
    let lines = metrics::read(&twin.out).unwrap();
    let losses: Vec<f64> = lines
        .into_iter()
        .filter_map(|line| if let Line::Step(s) = line { Some(s.loss) } else { None })
        .collect();
    assert!(losses[11] < losses[0] - 0.5, "{losses:?}");
}

#[test]
fn a_run_can_be_exported_while_it_is_under_way() {
    let dir = folder();
    let run = run(dir.path(), "e", "");
    let out: PathBuf = dir.path().join("exported");
    let error = export::latest(&run, &out, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("expected a whole checkpoint"), "{error}");
    let steps = Cell::new(0);
    let count = |event: Event| {
        if let Event::Step(step) = event {
            steps.set(step.step);
        }
    };
    train(&run, &|| steps.get() >= 5, &mut { count }).unwrap();
    assert_eq!(export::latest(&run, &out, &mut |_| {}).unwrap(), 5);
    assert!(Model::open(&out, &Options::default()).is_ok());
}

#[test]
fn a_learnt_tokenizer_shows_a_system_message_to_the_model() {
    let dir = folder();
    let tokenizer = tern::Tokenizer::open(&dir.path().join("tok")).unwrap();
    assert!(tokenizer.template().unwrap().reads_system());
    let turn =
        |role: &str, content: &str| tern::Message { role: role.to_owned(), content: content.to_owned() };
    let ids = tokenizer.encode_chat(&[turn("system", "Be brief."), turn("user", "Hello!")], false).unwrap();
    let text = tokenizer.decode(&ids, true);
    assert!(text.ends_with("<|system|>Be brief.<|end|><|user|>Hello!<|end|><|assistant|>"), "{text}");
}
