//! Whole distillations of tiny models: the teacher trained here, students of it and of the float families' checkpoints.

mod common;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use common::{compare, convert_from, folder, numbers, run};
use tern::file::OpenOptions;
use tern::{Model, Options};
use tern_convert::masters::Masters;
use tern_convert::{ConvertOptions, Target};
use tern_train::config::Run;
use tern_train::forecast::Forecast;
use tern_train::metrics::{self, Line, Step};
use tern_train::run::{End, Event, train};
use tern_train::start::Start;

/// A float teacher of the folder's texts.
fn teacher(dir: &Path) -> PathBuf {
    let more = "ternary = false\nsub_norms = false\nactivation = \"silu\"\nsteps = 30";
    let run = run(dir, "teacher", more);
    let End::Done(model) = train(&run, &|| false, &mut |_| {}).unwrap() else { panic!() };
    let found = compare(&run, &model).unwrap();
    assert!((found.engine - found.trainer).abs() < 1e-6 && found.others == 0, "{found:?}");
    assert_eq!(found.recorded, Some(found.unrounded));
    model
}

fn student(dir: &Path, out: &str, teacher: &Path, more: &str) -> Run {
    let teacher = teacher.display();
    let text = format!(
        "teacher = \"{teacher}\"\nfrom = \"{teacher}\"\nsubln = true\nrelation_heads = 2\nquantise_steps = 4\n{more}"
    );
    run(dir, out, &text)
}

fn steps(out: &Path) -> Vec<Step> {
    let step = |line| if let Line::Step(step) = line { Some(step) } else { None };
    metrics::read(out).unwrap().into_iter().filter_map(step).collect()
}

fn weights(end: End) -> Vec<u8> {
    let End::Done(model) = end else { panic!("{end:?}") };
    fs::read(model.join("model.safetensors")).unwrap()
}

#[test]
fn a_student_begins_as_its_teacher_learns_from_it_and_runs_in_the_engine() {
    let dir = folder();
    let teacher = teacher(dir.path());
    let whole = student(dir.path(), "student", &teacher, "relation = 1.0");
    let mut notes = Vec::new();
    let end = train(&whole, &|| false, &mut |event| {
        if let Event::Note(note) = event {
            notes.push(note);
        }
    });
    let model = weights(end.unwrap());
    assert!(
        notes.iter().any(|note| note.contains("MB of memory") && note.contains("for 12 steps")),
        "{notes:?}"
    );
    let steps = steps(&whole.out);
    // Nothing is rounded in the first step, so that logits and relations are the teacher's but for the norms put in.
    let (first, last) = (steps[0], steps[11]);
    assert!(first.divergence.unwrap() > 0.0 && first.relation.unwrap() < 0.1, "{first:?}");
    assert!(first.divergence.unwrap() < 1e-2 && last.relation.unwrap() < 0.1, "{steps:?}");
    let path = whole.out.join("masters");
    for path in [path.clone(), convert_from(&path, dir.path(), "s.gguf", &ConvertOptions::new(Target::T5))] {
        let found = compare(&whole, &path).unwrap();
        assert!((found.engine - found.trainer).abs() < 1e-6 && found.others == 0, "{found:?}");
    }
    // Stopped and begun again, on other numbers of threads: within the growth of rounding, at its end, and behind it.
    for (out, threads, stops) in [("a", 1, [2, 4]), ("b", 3, [5, 9])] {
        let broken = student(dir.path(), out, &teacher, &format!("relation = 1.0\nthreads = {threads}"));
        for stop in stops {
            let seen = Cell::new(0);
            let end = train(&broken, &|| seen.get() >= stop, &mut |event| {
                if let Event::Step(step) = event {
                    seen.set(step.step);
                }
            });
            assert!(matches!(end.unwrap(), End::Stopped(_)));
        }
        assert!(weights(train(&broken, &|| false, &mut |_| {}).unwrap()) == model, "{out}");
        assert_eq!(numbers(&broken.out), numbers(&whole.out), "{out}");
    }
    // Listening less, it ends further from its teacher; without, it becomes another.
    let weak = student(dir.path(), "weak", &teacher, "relation = 1e-6\nkl = 1e-6");
    train(&weak, &|| false, &mut |_| {}).unwrap();
    let strong = student(dir.path(), "strong", &teacher, "relation = 30.0\nkl = 30.0");
    train(&strong, &|| false, &mut |_| {}).unwrap();
    let [weak, strong] = [weak, strong].map(|run| self::steps(&run.out)[11]);
    assert!(strong.divergence.unwrap() < 0.8 * weak.divergence.unwrap(), "{strong:?} {weak:?}");
    assert!(strong.relation.unwrap() < 0.8 * weak.relation.unwrap(), "{strong:?} {weak:?}");
    for (out, more) in [("no-kl", "relation = 1.0\nkl = 0.0"), ("no-relation", "relation = 0.0")] {
        let other = student(dir.path(), out, &teacher, more);
        assert!(weights(train(&other, &|| false, &mut |_| {}).unwrap()) != model, "{out}");
    }
}

#[test]
fn what_is_stored_is_what_the_teacher_says_and_is_made_once() {
    let dir = folder();
    let teacher = teacher(dir.path());
    let live = student(dir.path(), "live", &teacher, "steps = 6");
    train(&live, &|| false, &mut |_| {}).unwrap();
    // With every token kept, nothing is lost but the last bits.
    let all = "steps = 6\nteacher_logits = \"stored\"\nteacher_top = 100000";
    let stored = student(dir.path(), "stored", &teacher, all);
    let model = weights(train(&stored, &|| false, &mut |_| {}).unwrap());
    for (a, b) in steps(&live.out).iter().zip(steps(&stored.out)) {
        assert!((a.divergence.unwrap() - b.divergence.unwrap()).abs() < 1e-3, "{a:?} {b:?}");
    }
    // Cut off in the middle, it goes on; with the file, the teacher is not read again.
    let again = student(dir.path(), "again", &teacher, all);
    fs::create_dir_all(&again.out).unwrap();
    let bytes = fs::read(stored.out.join("teacher.logits")).unwrap();
    fs::write(again.out.join("teacher.logits"), &bytes[..bytes.len() * 2 / 5]).unwrap();
    assert!(weights(train(&again, &|| false, &mut |_| {}).unwrap()) == model);
    assert!(fs::read(again.out.join("teacher.logits")).unwrap() == bytes);
    // Broken, or of other sequences, it is refused.
    let mut notes = String::new();
    let few = student(dir.path(), "few", &teacher, "steps = 6\nteacher_logits = \"stored\"\nteacher_top = 9");
    train(&few, &|| false, &mut |event| {
        if let Event::Note(note) = event {
            notes += &note;
        }
    })
    .unwrap();
    assert!(notes.contains("its 9 likeliest of 300 tokens hold"), "{notes}");
    let path = few.out.join("teacher.logits");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    fs::remove_dir_all(few.out.join("checkpoints")).unwrap();
    let error = train(&few, &|| false, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("holds what a teacher said of other sequences, or is broken"), "{error}");
    let other =
        student(dir.path(), "few", &teacher, "steps = 6\nteacher_logits = \"stored\"\nteacher_top = 8");
    let error = train(&other, &|| false, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("was made with another `length`, `teacher_top` or `temperature`"), "{error}");
}

#[test]
fn fewer_layers_are_those_spread_over_the_teacher() {
    let dir = folder();
    let teacher = teacher(dir.path());
    let small = student(dir.path(), "small", &teacher, "keep_layers = 1\nrelation = 1.0\nsteps = 6");
    train(&small, &|| false, &mut |_| {}).unwrap();
    let found = compare(&small, &small.out.join("masters")).unwrap();
    assert!((found.engine - found.trainer).abs() < 1e-6, "{found:?}");
    assert_eq!(Model::open(&small.out.join("masters"), &Options::default()).unwrap().config().layers, 1);
}

#[test]
fn a_narrower_student_keeps_the_units_and_heads_that_weigh_most() {
    let dir = folder();
    let more =
        "ternary = false\nsub_norms = false\nactivation = \"silu\"\nsteps = 30\nheads = 4\nkv_heads = 2";
    let wide = run(dir.path(), "wide", more);
    let End::Done(teacher) = train(&wide, &|| false, &mut |_| {}).unwrap() else { panic!() };
    // As it begins: rows and columns of the teacher's, found again by a plain search.
    let keys = "keep_heads = 2\nkeep_hidden = 32\nkeep_layers = 1";
    let narrow = student(dir.path(), "narrow", &teacher, &format!("{keys}\nrelation = 1.0\nsteps = 6"));
    let Start { config, layout, params, .. } = Start::of(&narrow).unwrap();
    assert_eq!((config.heads, config.kv_heads, config.hidden, config.layers), (2, 1, 32, 1));
    let file = tern::file::open(&teacher, OpenOptions::default()).unwrap();
    let masters = Masters::of(&file).unwrap();
    let theirs = |name: &str, rows: usize, cols: usize| -> Vec<Vec<f32>> {
        let mut out = vec![0f32; rows * cols];
        masters.read(&format!("blk.1.{name}.weight"), rows, &mut out).unwrap();
        out.chunks(cols).map(<[f32]>::to_vec).collect()
    };
    let ours = |name: &str| -> Vec<Vec<f32>> {
        let slice = layout.slices.iter().find(|slice| slice.name == format!("blk.0.{name}.weight")).unwrap();
        params[slice.range.clone()].chunks(slice.cols).map(<[f32]>::to_vec).collect()
    };
    let turned = |m: &[Vec<f32>]| -> Vec<Vec<f32>> {
        (0..m[0].len()).map(|at| m.iter().map(|row| row[at]).collect()).collect()
    };
    let square = |row: &[f32]| row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>();
    let (gate, up, down) =
        (theirs("ffn_gate", 48, 32), theirs("ffn_up", 48, 32), turned(&theirs("ffn_down", 32, 48)));
    let weight = |unit: usize| square(&gate[unit]) * square(&up[unit]) * square(&down[unit]);
    let places: Vec<usize> =
        ours("ffn_gate").iter().map(|row| gate.iter().position(|other| other == row).unwrap()).collect();
    assert!(places.len() == 32 && places.is_sorted(), "{places:?}");
    let least = places.iter().map(|unit| weight(*unit)).fold(f64::INFINITY, f64::min);
    assert!((0..48).filter(|unit| !places.contains(unit)).all(|unit| weight(unit) <= least));
    let chosen = |all: &[Vec<f32>]| places.iter().map(|unit| all[*unit].clone()).collect::<Vec<_>>();
    assert!(ours("ffn_up") == chosen(&up) && turned(&ours("ffn_down")) == chosen(&down));
    // One group of two heads, 16 wide each, of two.
    let (q, k, v, o) = (
        theirs("attn_q", 64, 32),
        theirs("attn_k", 32, 32),
        theirs("attn_v", 32, 32),
        turned(&theirs("attn_output", 32, 64)),
    );
    let weight = |group: usize| {
        let sum = |rows: &[Vec<f32>]| rows.iter().map(|row| square(row)).sum::<f64>();
        sum(&v[16 * group..][..16]) * sum(&o[32 * group..][..32])
    };
    let group = usize::from(weight(1) > weight(0));
    assert!(ours("attn_q") == q[32 * group..][..32] && turned(&ours("attn_output")) == o[32 * group..][..32]);
    assert!(ours("attn_k") == k[16 * group..][..16] && ours("attn_v") == v[16 * group..][..16]);

    // It learns, and runs as it was trained, in files too.
    train(&narrow, &|| false, &mut |_| {}).unwrap();
    let path = narrow.out.join("masters");
    for path in [path.clone(), convert_from(&path, dir.path(), "n.gguf", &ConvertOptions::new(Target::T5))] {
        let found = compare(&narrow, &path).unwrap();
        assert!((found.engine - found.trainer).abs() < 1e-6 && found.others == 0, "{found:?}");
        let model = Model::open(&path, &Options::default()).unwrap();
        assert_eq!((model.config().heads, model.config().hidden), (2, 32));
    }
    for (more, wanted) in [
        (
            "keep_heads = 3",
            "key `keep_heads`: 3: expected a multiple of 2, the query heads to a key head, up to 4",
        ),
        ("keep_heads = 6", "key `keep_heads`: 6: expected a multiple of 2"),
        ("keep_hidden = 49", "key `keep_hidden`: 49: the model has 48"),
    ] {
        let error = train(&student(dir.path(), "x", &teacher, more), &|| false, &mut |_| {});
        assert!(error.unwrap_err().to_string().contains(wanted), "{more}");
    }
}

/// A float checkpoint of a family with the folder's tokenizer: its 48 tokens become as many as the tokenizer has.
fn checkpoint(dir: &Path, family: &str) -> PathBuf {
    use safetensors::SafeTensors;
    use tern_train::random::Random;
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../testdata/golden/float_{family}"));
    let out = dir.join(family);
    fs::create_dir_all(&out).unwrap();
    let text = fs::read_to_string(from.join("config.json")).unwrap();
    fs::write(out.join("config.json"), text.replace("\"vocab_size\": 48", "\"vocab_size\": 300")).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(dir.join("tok").join(name), out.join(name)).unwrap();
    }
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut random = Random::new(4, 4);
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, tensor) in tensors.tensors() {
        let mut shape = tensor.shape().to_vec();
        let start = data.len();
        let mut kind = format!("{:?}", tensor.dtype());
        if name.contains("embed_tokens") || name.contains("lm_head") {
            shape[0] = 300;
            kind = "F32".into();
            let mut values = vec![0f32; 300 * shape[1]];
            random.normals(0.15, &mut values);
            data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        } else {
            data.extend_from_slice(tensor.data());
        }
        let offsets = [start, data.len()];
        header.insert(name, serde_json::json!({"dtype": kind, "shape": shape, "data_offsets": offsets}));
    }
    let mut header = serde_json::Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let whole = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs::write(out.join("model.safetensors"), whole).unwrap();
    out
}

#[test]
fn students_of_every_family_run_in_the_engine_as_they_were_trained() {
    let dir = folder();
    let names = [
        ("llama", "BitNet b1.58"),
        ("mistral", "Mistral with sub-norms"),
        ("qwen2", "Qwen2 with sub-norms"),
        ("qwen3", "Qwen3 with sub-norms"),
        ("gemma3", "Gemma 3 with sub-norms"),
    ];
    for (family, name) in names {
        let teacher = checkpoint(dir.path(), family);
        let more = "relation = 1.0\nsteps = 5\nquantise_steps = 2\nrate = 2e-3";
        let run = student(dir.path(), &format!("student-{family}"), &teacher, more);
        train(&run, &|| false, &mut |_| {}).unwrap();
        let masters = run.out.join("masters");
        let gguf = (family != "gemma3").then(|| {
            convert_from(&masters, dir.path(), &format!("{family}.gguf"), &ConvertOptions::new(Target::I2))
        });
        for path in std::iter::once(&masters).chain(&gguf) {
            let model = Model::open(path, &Options::default()).unwrap();
            // A GGUF with SiLU goes by 1bitLLM's name.
            if family != "llama" || path == &masters {
                assert_eq!(model.config().family, name);
            }
            let found = compare(&run, path).unwrap();
            // Codes of activations that fall on the other side now and then; nothing is likelier elsewhere.
            assert!((found.engine - found.trainer).abs() < 1e-4 && found.is_equal(), "{family}: {found:?}");
            assert_eq!(found.others, 0, "{family}: {found:?}");
            assert_eq!(found.recorded, Some(found.unrounded), "{family}");
        }
        // It can be trained further, as what it is.
        let text = format!("from = \"{}\"\nrate = 0.0\nsteps = 1\nwarmup = 0", masters.display());
        let tuned = common::run(dir.path(), &format!("tuned-{family}"), &text);
        train(&tuned, &|| false, &mut |_| {}).unwrap();
        assert!(compare(&tuned, &masters).unwrap().is_equal(), "{family}");
    }
}

#[test]
fn memory_that_is_not_there_is_told_before_the_run() {
    let dir = folder();
    let config = run(dir.path(), "x", "").model(300).unwrap();
    let run = student(dir.path(), "x", dir.path(), "");
    let layout = tern_train::params::Layout::new(&config, true);
    let forecast = Forecast::of(&run, &config, &layout, Some((&config, 1 << 20))).unwrap();
    // Weights, gradients of a step and of a batch, moments; and the teacher with its head.
    assert!(forecast.student > 20 * layout.len as u64 && forecast.teacher > 1 << 20, "{forecast:?}");
    forecast.check(None).unwrap();
    forecast.check(Some(forecast.student + forecast.teacher)).unwrap();
    let error = forecast.check(Some(forecast.student)).unwrap_err().to_string();
    assert!(error.starts_with("key `teacher`: the run needs") && error.contains("are free"), "{error}");
}

#[test]
fn what_cannot_teach_is_refused() {
    let dir = folder();
    let teacher = teacher(dir.path());
    let refused = |run: &Run| train(run, &|| false, &mut |_| {}).unwrap_err().to_string();
    let ternary = run(dir.path(), "ternary", "steps = 2");
    train(&ternary, &|| false, &mut |_| {}).unwrap();
    let error = refused(&student(dir.path(), "x", &ternary.out.join("masters"), ""));
    assert!(
        error.contains("key `teacher`") && error.contains("is a ternary model; a teacher is a float model"),
        "{error}"
    );
    let from = format!("from = \"{}\"\nsubln = false", ternary.out.join("masters").display());
    // Another tokenizer of the same size.
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer_config.json"] {
        fs::copy(teacher.join(name), other.join(name)).unwrap();
    }
    let text = fs::read_to_string(teacher.join("tokenizer.json")).unwrap();
    let swapped = text.replace("\"!\": 6,", "\"!\": 7777,").replace("\"\\\"\": 7,", "\"\\\"\": 6,");
    let swapped = swapped.replace("\"!\": 7777,", "\"!\": 7,");
    assert_ne!(swapped, text);
    fs::write(other.join("tokenizer.json"), swapped).unwrap();
    let error = refused(&student(dir.path(), "x", &other, &from));
    assert!(error.contains("its tokenizer differs from the student's: token 6 is"), "{error}");
    for (more, wanted) in [
        ("length = 600\nsequences = 1", "key `length`: 600: the teacher reads at most"),
        ("relation = 1.0\nrelation_layer = 2", "key `relation_layer`: 2: the teacher's layers are 0 to 1"),
        ("relation = 1.0\nrelation_heads = 3", "key `relation_heads`: 3 does not divide"),
        ("keep_layers = 3", "key `keep_layers`: 3: the model has 2"),
    ] {
        let error = refused(&student(dir.path(), "x", &teacher, more));
        assert!(error.contains(wanted), "{error}");
    }
}
