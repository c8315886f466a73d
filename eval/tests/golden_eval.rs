//! Scores against what `transformers` computed: scaled positions (testdata/golden/gen/rope.py) and log-probabilities of
//! texts (gen/scores.py), and scores against themselves in every way they can be asked for.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tern::{Config, Head, Logits, Model, Options, Row, Scratch, Sequence};
use tern_eval::{Item, Scorer};
use tern_kernels::KvFormat;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden").join(path)
}

fn cases(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(golden(file)).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["cases"].as_array().unwrap().clone()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn exact() -> Options {
    Options { head: Head::Stored, kv: KvFormat::F32, ..Options::default() }
}

/// A golden checkpoint with keys of its configuration changed.
fn changed(model: &str, dir: &Path, change: impl Fn(&mut Value)) {
    let text = std::fs::read_to_string(golden(model).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    change(&mut config);
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    std::fs::copy(golden(model).join("model.safetensors"), dir.join("model.safetensors")).unwrap();
}

fn last_logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut sequences = [Sequence::new(model, ids.len())];
    let row = |(at, &token)| {
        let logits = if at + 1 == ids.len() { Logits::All } else { Logits::None };
        Row { sequence: 0, token, logits }
    };
    let rows: Vec<Row> = ids.iter().enumerate().map(row).collect();
    model.forward(&mut Scratch::default(), &mut sequences, &rows).unwrap().to_vec()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn scaled_positions_equal_the_reference() {
    for case in cases("rope_scaling.json") {
        let (name, scaling) = (case["model"].as_str().unwrap(), &case["scaling"]);
        for key in ["rope_scaling", "rope_parameters"] {
            let dir = tempfile::tempdir().unwrap();
            changed(name, dir.path(), |config| config[key] = scaling.clone());
            let model = Model::open(dir.path(), &exact()).unwrap();
            let Config { rope, head_dim, .. } = model.config();
            for (got, want) in rope.frequencies(*head_dim).iter().zip(floats(&case["frequencies"])) {
                assert!((got / want - 1.0).abs() < 2e-6, "{scaling}: frequency {got}, expected {want}");
            }
            let magnitude = case["magnitude"].as_f64().unwrap() as f32;
            assert!((rope.magnitude() / magnitude - 1.0).abs() < 1e-6, "{scaling}");
            let got = last_logits(&model, &ids(&case["ids"]));
            let worst = largest_difference(&got, &floats(&case["logits"]));
            assert!(worst < 1e-4, "{name} {scaling}: {worst}");
        }
    }
}

#[test]
fn scaling_survives_conversion_where_the_target_has_words_for_it() {
    use tern_convert::{ConvertOptions, Target, convert};
    for case in cases("rope_scaling.json") {
        let (name, scaling) = (case["model"].as_str().unwrap(), &case["scaling"]);
        let dir = tempfile::tempdir().unwrap();
        changed(name, dir.path(), |config| config["rope_scaling"] = scaling.clone());
        let out = dir.path().join("out.gguf");
        let done = convert(dir.path(), &out, &ConvertOptions::new(Target::I2), &mut |_, _| {});
        if scaling["rope_type"] == "llama3" || scaling["truncate"] == false {
            let error = done.unwrap_err().to_string();
            assert!(error.contains("rope_scaling"), "{error}");
            continue;
        }
        done.unwrap();
        let got = last_logits(&Model::open(&out, &exact()).unwrap(), &ids(&case["ids"]));
        let worst = largest_difference(&got, &floats(&case["logits"]));
        assert!(worst < 1e-4, "{name} {scaling}: {worst}");
    }
}

#[test]
fn scaling_that_cannot_be_is_named() {
    let bad = [
        (r#"{"rope_type": "dynamic", "factor": 2.0}"#, "rope_type"),
        (r#"{"rope_type": "longrope"}"#, "short_factor"),
        (r#"{"rope_type": "linear"}"#, "factor"),
        (r#"{"rope_type": "linear", "factor": 0.5}"#, "factor"),
        (r#"{"rope_type": "linear", "factor": "x"}"#, "factor"),
        (
            r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}"#,
            "low_freq_factor",
        ),
        (r#"{"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 0}"#, "original_max"),
        (r#"{"rope_type": "yarn", "factor": 2.0, "beta_fast": 1.0, "beta_slow": 2.0}"#, "beta_slow"),
        (r#"{"rope_type": "yarn", "factor": 2.0, "attention_factor": -1.0}"#, "attention_factor"),
        (r#"{"rope_type": "yarn", "factor": 2.0, "truncate": 1}"#, "truncate"),
        (r#"{"rope_type": "default", "partial_rotary_factor": 0.5}"#, "partial_rotary_factor"),
    ];
    for (scaling, key) in bad {
        let dir = tempfile::tempdir().unwrap();
        let value: Value = serde_json::from_str(scaling).unwrap();
        changed("llama_packed_bitlinear", dir.path(), |config| config["rope_scaling"] = value.clone());
        let error = Model::open(dir.path(), &exact()).unwrap_err().to_string();
        assert!(error.contains(key) && !error.contains('\n'), "{scaling}: {error}");
    }
}

#[test]
fn log_probabilities_equal_the_reference() {
    for case in cases("scores.json") {
        let name = case["model"].as_str().unwrap();
        let model = Model::open(&golden(name), &exact()).unwrap();
        let (ids, want) = (ids(&case["ids"]), floats(&case["logprobs"]));
        let got = Scorer::new(&model, 1).window(&ids, 1).unwrap();
        let got: Vec<f32> = got.iter().map(|scored| scored.logprob as f32).collect();
        let worst = largest_difference(&got, &want);
        println!("{name}: {worst:.1e}");
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}

/// Items that share beginnings with each other and with those before them.
fn items() -> Vec<Item> {
    let text =
        |seed: u32, len: usize| (0..len as u32).map(move |at| 3 + (at * 7 + seed * 31 + at * at % 11) % 90);
    let shots: Vec<u32> = text(9, 40).collect();
    (0..23)
        .map(|nth| {
            let start: Vec<u32> = if nth % 5 == 4 { text(nth, 3).collect() } else { shots.clone() };
            let context = start.into_iter().chain(text(nth / 2, 4 + nth as usize % 3)).collect();
            let ends =
                (0..1 + nth % 4).map(|end| text(nth + end, 1 + (end as usize + nth as usize) % 5).collect());
            Item { context, ends: ends.collect() }
        })
        .collect()
}

#[test]
fn slots_and_shared_beginnings_change_no_bit_and_save_work() {
    for kv in KvFormat::ALL {
        let model =
            Model::open(&golden("bitnet_packed_autobitlinear"), &Options { kv, ..Options::default() })
                .unwrap();
        let mut alone = Vec::new();
        let mut work = 0;
        for item in items() {
            for end in &item.ends {
                let text: Vec<u32> = item.context.iter().chain(end).copied().collect();
                let mut scorer = Scorer::new(&model, 1);
                alone.push(scorer.window(&text, item.context.len()).unwrap());
                work += scorer.rows();
            }
        }
        for slots in [1, 2, 5, 30] {
            let mut scorer = Scorer::new(&model, slots);
            let mut got = Vec::new();
            for batch in items().chunks(slots) {
                got.extend(scorer.score(batch).unwrap().into_iter().flatten());
            }
            assert!(got == alone, "{slots} slots");
            assert!(scorer.rows() * 2 < work, "{slots} slots: {} of {work} rows", scorer.rows());
        }
    }
}

#[test]
fn greedy_texts_are_the_same_alone_and_in_company() {
    let model = Model::open(&golden("bitnet_packed_autobitlinear"), &Options::default()).unwrap();
    let contexts: Vec<Vec<u32>> = items().into_iter().map(|item| item.context).collect();
    let most = 8;
    let one: Vec<_> = contexts
        .iter()
        .map(|context| {
            Scorer::new(&model, 1)
                .greedy(std::slice::from_ref(context), most, |_, text| text.len() == 5)
                .unwrap()
                .remove(0)
        })
        .collect();
    let mut scorer = Scorer::new(&model, 7);
    let many: Vec<_> = contexts
        .chunks(7)
        .flat_map(|batch| scorer.greedy(batch, most, |_, text| text.len() == 5).unwrap())
        .collect();
    assert_eq!(one, many);
    assert!(many.iter().all(|text| text.len() == 5));
}

#[test]
fn what_cannot_be_scored_is_an_error() {
    let model = Model::open(&golden("bitnet_packed_autobitlinear"), &Options::default()).unwrap();
    let mut scorer = Scorer::new(&model, 2);
    let item = |context: Vec<u32>, end: Vec<u32>| Item { context, ends: vec![end] };
    for bad in
        [item(vec![], vec![1]), item(vec![1], vec![]), item(vec![1; 64], vec![2, 2]), item(vec![96], vec![1])]
    {
        scorer.score(&[bad]).unwrap_err();
    }
    scorer.score(&[item(vec![1; 64], vec![2])]).unwrap();
}
