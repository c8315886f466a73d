//! Whole models of BitNet a4.8 and v2 against NumPy (testdata/golden/gen/fewer_bits_models.py), and against themselves on every
//! instruction set, packing and number of threads, alone and in company.

mod golden;

use golden::{bits, exact, golden, largest_difference, logits, open};
use serde_json::{Value, json};
use tern::{Head, KvFormat, Logits, Model, Options, Packing, Row, Scheme, Scratch, Sequence, Zeros};
use tern_kernels::Cpu;

/// The masters of a golden BitNet b1.58 under the configuration of another family.
fn checkpoint(architecture: &str, model_type: &str, activations: Value) -> tempfile::TempDir {
    let (from, to) = (golden("bitnet_online_bf16"), tempfile::tempdir().unwrap());
    std::fs::copy(from.join("model.safetensors"), to.path().join("model.safetensors")).unwrap();
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(from.join("config.json")).unwrap()).unwrap();
    config["architectures"] = json!([architecture]);
    config["model_type"] = model_type.into();
    config["tern.activations"] = activations;
    std::fs::write(to.path().join("config.json"), config.to_string()).unwrap();
    to
}

fn of(scheme: &str) -> tempfile::TempDir {
    match scheme {
        "a4.8" => checkpoint("BitNetA48ForCausalLM", "bitnet-a4.8", scheme.into()),
        other => checkpoint("BitNetV2ForCausalLM", "bitnet-v2", other.into()),
    }
}

const SCHEMES: [&str; 4] = ["a4.8", "v2-a8", "v2-a4", "a4"];

fn known() -> (Vec<u32>, Value, Value) {
    let text = std::fs::read_to_string(golden("fewer_bits_logits.json")).unwrap();
    let known: Value = serde_json::from_str(&text).unwrap();
    let ids = known["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    (ids, known["logits"].clone(), known["active"].clone())
}

#[test]
fn logits_equal_the_reference() {
    let (ids, known, _) = known();
    for scheme in SCHEMES {
        let dir = of(scheme);
        let model = open(dir.path(), exact());
        assert_eq!(
            (model.activations(), model.config().graph.scheme),
            (scheme, Scheme::from_name(scheme).unwrap())
        );
        let want = known[scheme].as_array().unwrap();
        let want: Vec<f32> = want.iter().map(|x| f32::from_bits(x.as_u64().unwrap() as u32)).collect();
        let worst = largest_difference(&logits(&model, &ids), &want);
        println!("{scheme}: largest difference {worst:.2e}");
        assert!(worst < 1e-4, "{scheme}: {worst}");
    }
}

#[test]
fn threads_packings_and_instruction_sets_do_not_change_a_bit() {
    let ids = known().0;
    for scheme in SCHEMES {
        let dir = of(scheme);
        let base = Options { head: Head::Int8, kv: KvFormat::F16, ..Options::default() };
        let want = bits(&logits(&open(dir.path(), base.clone()), &ids));
        for cpu in Cpu::available() {
            for packing in Packing::ALL {
                for threads in [1, 3] {
                    let cpu = Some(cpu.name().to_owned());
                    let options =
                        Options { cpu, threads: Some(threads), packing: Some(packing), ..base.clone() };
                    let got = logits(&open(dir.path(), options.clone()), &ids);
                    assert!(bits(&got) == want, "{scheme} {options:?}");
                }
            }
        }
    }
}

#[test]
fn alone_in_pieces_and_in_company_the_logits_are_the_same() {
    let ids = known().0;
    for scheme in SCHEMES {
        let dir = of(scheme);
        let model = open(dir.path(), Options::default());
        let (want, vocab) = (bits(&logits(&model, &ids)), model.config().vocab);
        let mut scratch = Scratch::default();
        let mut company: Vec<_> = (0..5).map(|_| Sequence::new(&model, 64)).collect();
        // The first goes alone for two tokens, the others come a step apart.
        for at in 0..ids.len() + 4 {
            let live: Vec<usize> = (0..5).filter(|&s| at >= s && at - s < ids.len()).collect();
            let row = |sequence: usize| Row { sequence, token: ids[at - sequence], logits: Logits::All };
            let rows: Vec<Row> = live.iter().map(|&sequence| row(sequence)).collect();
            let got = bits(model.forward(&mut scratch, &mut company, &rows).unwrap());
            for (row, sequence) in live.iter().enumerate() {
                let want = &want[(at - sequence) * vocab..][..vocab];
                assert!(got[row * vocab..][..vocab] == *want, "{scheme}, sequence {sequence}");
            }
        }
    }
}

#[test]
fn what_a_file_does_not_say_is_not_guessed() {
    for (architecture, model_type, activations, wanted) in [
        (
            "BitNetV2ForCausalLM",
            "bitnet-v2",
            Value::Null,
            "missing, and a BitNet v2 model has \"v2-a8\" or \"v2-a4\" or \"a4\"",
        ),
        (
            "BitNetA48ForCausalLM",
            "bitnet-a4.8",
            "a8".into(),
            "expected \"a4.8\" in a BitNet a4.8 model, found \"a8\"",
        ),
        ("BitNetA48ForCausalLM", "bitnet", "a4.8".into(), "expected \"bitnet-a4.8\", found \"bitnet\""),
        (
            "BitNetForCausalLM",
            "bitnet",
            "a4.8".into(),
            "expected \"a8\" in a BitNet b1.58 model, found \"a4.8\"",
        ),
        ("BitNetForCausalLM", "bitnet", 4.into(), "expected a name, found 4"),
    ] {
        let dir = checkpoint(architecture, model_type, activations);
        let error = Model::open(dir.path(), &exact()).unwrap_err().to_string();
        assert!(error.contains(wanted) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn what_takes_part_is_counted_as_numpy_counts_it() {
    let (ids, _, active) = known();
    let plain = golden("bitnet_online_bf16");
    for scheme in ["a8"].into_iter().chain(SCHEMES) {
        let dir = (scheme != "a8").then(|| of(scheme));
        let model = open(dir.as_ref().map_or(plain.as_path(), |dir| dir.path()), exact());
        let found = model.activity(&ids).unwrap();
        assert_eq!(found.tokens, ids.len() as u64);
        let want = active[scheme].as_array().unwrap();
        for ((name, share), want) in found.shares().into_iter().zip(want) {
            assert!(
                (share - want.as_f64().unwrap()).abs() < 1e-6,
                "{scheme} {name}: {share}, expected {want}"
            );
        }
        let config = model.config();
        let (dim, hidden) = (config.dim, config.hidden);
        let sizes = [
            dim * dim,
            config.kv_dim() * dim,
            config.kv_dim() * dim,
            dim * dim,
            hidden * dim,
            hidden * dim,
            hidden * dim,
        ];
        let all = sizes.iter().sum::<usize>() as f64;
        let mean =
            found.shares().iter().zip(sizes).map(|((_, share), size)| share * size as f64).sum::<f64>() / all;
        assert!((found.share() - mean).abs() < 1e-9);
    }
    // The larger half of what o gets is all that a4.8 leaves.
    let dir = of("a4.8");
    assert!(open(dir.path(), exact()).activity(&ids).unwrap().shares()[3].1 <= 0.5);
}

#[test]
fn what_is_left_out_behind_closed_gates_changes_no_bit() {
    let (ids, ..) = known();
    for scheme in SCHEMES {
        let dir = of(scheme);
        let open = |zeros, packing| {
            open(
                dir.path(),
                Options { zeros, packing: Some(packing), threads: Some(2), ..Options::default() },
            )
        };
        for packing in Packing::ALL {
            let want = bits(&logits(&open(Zeros::Read, packing), &ids));
            let model = open(Zeros::Skip, packing);
            let (mut scratch, mut sequence) = (Scratch::default(), [Sequence::new(&model, ids.len())]);
            for (&token, want) in ids.iter().zip(want.chunks(model.config().vocab)) {
                let row = Row { sequence: 0, token, logits: Logits::All };
                let got = model.forward(&mut scratch, &mut sequence, &[row]).unwrap();
                assert!(bits(got) == want, "{scheme} {packing:?}");
                assert!(scratch.unit_reads().closed > 0, "{scheme}");
            }
            assert!(model.unit_bytes() > 0, "{scheme}: nothing was copied");
        }
    }
}
