//! Float models run as they are (`Options::floats`), against what `transformers` computed of tiny checkpoints
//! (testdata/golden/gen/floats.py).

mod golden;

use golden::{Golden, bits, exact, golden, largest_difference, logits, open};
use tern::{Logits, Model, Options, Row, Scratch, Sequence};
use tern_kernels::Cpu;

const MODELS: [&str; 5] = ["float_llama", "float_mistral", "float_qwen2", "float_qwen3", "float_gemma3"];

fn floats() -> Options {
    Options { floats: true, ..exact() }
}

#[test]
fn logits_equal_the_reference() {
    for name in MODELS {
        let reference = Golden::open(name);
        let (ids, want) = (reference.ids("input_ids"), reference.floats("logits"));
        let got = logits(&open(&golden(name), floats()), &ids);
        let worst = largest_difference(&got, &want);
        println!("{name}: largest difference {worst:.2e}");
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}

#[test]
fn sets_threads_and_pieces_do_not_change_a_bit() {
    for name in MODELS {
        // Many rows are multiplied in another way than few.
        let ids: Vec<u32> = Golden::open(name).ids("input_ids").into_iter().cycle().take(75).collect();
        let want = bits(&logits(&open(&golden(name), floats()), &ids));
        for cpu in Cpu::available() {
            for threads in [1, 3] {
                let options =
                    Options { cpu: Some(cpu.name().to_owned()), threads: Some(threads), ..floats() };
                let model = open(&golden(name), options.clone());
                assert!(bits(&logits(&model, &ids)) == want, "{name} {options:?}");
                assert!(bits(&one_by_one(&model, &ids)) == want, "{name} token by token, {options:?}");
            }
        }
    }
}

fn one_by_one(model: &Model, ids: &[u32]) -> Vec<f32> {
    let (mut scratch, mut sequence) = (Scratch::default(), [Sequence::new(model, ids.len())]);
    let mut all = Vec::new();
    for &token in ids {
        let row = Row { sequence: 0, token, logits: Logits::All };
        all.extend_from_slice(model.forward(&mut scratch, &mut sequence, &[row]).unwrap());
    }
    all
}

#[test]
fn without_being_asked_for_they_are_refused_and_the_way_is_named() {
    for name in MODELS {
        let error = Model::open(&golden(name), &Options::default()).unwrap_err().to_string();
        assert!(error.contains("not trained ternary") && error.contains("`--floats`"), "{error}");
        assert!(!error.contains('\n'));
    }
}

#[test]
fn a_ternary_model_is_run_as_ever() {
    for name in ["llama_packed_bitlinear", "bitnet_online_bf16", "qwen3_bonsai"] {
        let ids = Golden::open(name).ids("input_ids");
        let [with, without] = [floats(), exact()].map(|options| logits(&open(&golden(name), options), &ids));
        assert!(bits(&with) == bits(&without), "{name}");
    }
}
