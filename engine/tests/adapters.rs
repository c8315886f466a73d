//! LoRA adapters against what PEFT computed (testdata/golden/gen/adapters.py), in company, in the prefix cache, and those that lie.

mod golden;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use golden::{bits, exact, golden, largest_difference, logits, open};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tern::{
    Adapter, Batch, Bounds, Generation, Job, Logits, Model, Options, Output, Random, Row, Sampling, Scratch,
    Sequence,
};
use tern_kernels::{Cpu, Packing};

/// Adapters and the models that they are for.
const ADAPTERS: [(&str, &str); 4] = [
    ("bitnet", "bitnet_online_bf16"),
    ("bitnet_qv", "bitnet_online_bf16"),
    ("llama", "llama_packed_bitlinear"),
    ("llama", "gguf/llama_i2s_permuted.gguf"),
];

fn folder(adapter: &str) -> std::path::PathBuf {
    golden("adapters").join(adapter)
}

fn adapter(name: &str, model: &Model) -> Arc<Adapter> {
    Arc::new(Adapter::open(&folder(name), model.config()).unwrap_or_else(|error| panic!("{error}")))
}

fn adapted(model: &Model, adapter: &Arc<Adapter>, ids: &[u32]) -> Vec<f32> {
    let mut sequences = [Sequence::new(model, ids.len()).with_adapter(Some(adapter.clone()))];
    let rows: Vec<Row> = ids.iter().map(|&token| Row { sequence: 0, token, logits: Logits::All }).collect();
    model.forward(&mut Scratch::default(), &mut sequences, &rows).unwrap().to_vec()
}

fn recorded(name: &str) -> (Vec<u32>, Vec<f32>) {
    let bytes = std::fs::read(folder(name).join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let ids = tensors.tensor("input_ids").unwrap().data();
    let ids = ids.as_chunks::<8>().0.iter().map(|id| u64::from_le_bytes(*id) as u32).collect();
    let floats = tensors.tensor("logits").unwrap().data();
    (ids, floats.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

#[test]
fn logits_equal_those_of_peft() {
    for (name, base) in ADAPTERS {
        let (ids, want) = recorded(name);
        let model = open(&golden(base), exact());
        let got = adapted(&model, &adapter(name, &model), &ids);
        let worst = largest_difference(&got, &want);
        println!("{name} on {base}: largest difference {worst:.2e}");
        assert!(worst < 1e-4, "{name} on {base}: {worst}");
        assert!(largest_difference(&logits(&model, &ids), &want) > 1.0, "{name} changes nothing");
    }
}

#[test]
fn threads_packings_and_instruction_sets_do_not_change_a_bit() {
    let ids = recorded("bitnet").0;
    let run = |options: Options| {
        let model = open(&golden("bitnet_online_bf16"), options);
        bits(&adapted(&model, &adapter("bitnet", &model), &ids))
    };
    let want = run(Options::default());
    for cpu in Cpu::available() {
        for packing in Packing::ALL {
            for threads in [1, 2, 3] {
                let cpu = Some(cpu.name().to_owned());
                let options =
                    Options { cpu, threads: Some(threads), packing: Some(packing), ..Options::default() };
                assert!(run(options.clone()) == want, "{options:?}");
            }
        }
    }
}

#[test]
fn rows_of_other_adapters_and_of_none_change_no_bit() {
    let model = open(&golden("bitnet_online_bf16"), Options::default());
    let ids = recorded("bitnet").0;
    let adapters = [None, Some(adapter("bitnet", &model)), Some(adapter("bitnet_qv", &model)), None];
    let want: Vec<Vec<u32>> = adapters
        .iter()
        .map(|adapter| match adapter {
            Some(adapter) => bits(&adapted(&model, adapter, &ids)),
            None => bits(&logits(&model, &ids)),
        })
        .collect();
    assert!(want[0] != want[1] && want[0] != want[2] && want[1] != want[2]);
    let vocab = model.config().vocab;
    let mut company: Vec<Sequence> =
        adapters.iter().map(|adapter| Sequence::new(&model, 64).with_adapter(adapter.clone())).collect();
    let mut scratch = Scratch::default();
    for at in 0..ids.len() + 3 {
        let live: Vec<usize> = (0..4).filter(|&s| at >= s && at - s < ids.len()).collect();
        let row = |&sequence: &usize| Row { sequence, token: ids[at - sequence], logits: Logits::All };
        let rows: Vec<Row> = live.iter().map(row).collect();
        let got = bits(model.forward(&mut scratch, &mut company, &rows).unwrap());
        for (row, sequence) in live.iter().enumerate() {
            let want = &want[*sequence][(at - sequence) * vocab..][..vocab];
            assert!(&got[row * vocab..][..vocab] == want, "sequence {sequence}, token {at}");
        }
    }
}

/// Texts of a batch in the order of their jobs, and how many tokens of their prompts were found.
fn texts(batch: &mut Batch, model: &Model, jobs: Vec<Job>) -> (Vec<Vec<u32>>, usize) {
    let tickets: Vec<_> = jobs.into_iter().map(|job| batch.add(model, job).unwrap()).collect();
    let (mut texts, mut found) = (vec![Vec::new(); tickets.len()], 0);
    while !batch.is_idle() {
        for (ticket, output) in batch.step(model, |_| true) {
            let at = tickets.iter().position(|other| *other == ticket).unwrap();
            match output {
                Output::Token(token) => texts[at].push(token.id),
                Output::Read { cached, .. } => found += cached,
                _ => {}
            }
        }
    }
    (texts, found)
}

#[test]
fn the_prefix_cache_keeps_adapters_apart() {
    let model = open(&golden("bitnet_online_bf16"), Options::default());
    let prompt: Vec<u32> = (0..40).map(|at| 3 + at * 7 % 90).collect();
    let adapters = [None, Some(adapter("bitnet", &model)), Some(adapter("bitnet_qv", &model))];
    let job = |adapter: &Option<Arc<Adapter>>| {
        let mut job = Job::new(prompt.clone(), Sampling::greedy(), 12);
        job.adapter = adapter.clone();
        job
    };
    let bounds = Bounds { parallel: 8, context: 64, pages: 16, pause: Duration::from_millis(50) };
    let fresh = || Batch::new(&model, bounds).unwrap();
    let alone: Vec<Vec<u32>> =
        adapters.iter().map(|adapter| texts(&mut fresh(), &model, vec![job(adapter)]).0.remove(0)).collect();
    assert!(alone[0] != alone[1] && alone[0] != alone[2] && alone[1] != alone[2]);
    for (adapter, want) in adapters.iter().zip(&alone).skip(1) {
        let mut generation =
            Generation::new(&model, 64, Sampling::greedy()).unwrap().with_adapter(adapter.clone().unwrap());
        generation.prompt(&prompt).unwrap();
        let text: Vec<u32> = (0..12).map(|_| generation.next().unwrap().unwrap().id).collect();
        assert_eq!(text, *want);
    }
    // One after another in one batch, then all at once, twice: what is found is each one's own.
    let mut batch = fresh();
    for (adapter, want) in adapters.iter().zip(&alone) {
        let (got, found) = texts(&mut batch, &model, vec![job(adapter)]);
        assert_eq!((&got[0], found), (want, 0));
    }
    let all = || adapters.iter().chain(&adapters).map(job).collect();
    let (got, found) = texts(&mut batch, &model, all());
    assert_eq!(got, [&alone[..], &alone[..]].concat());
    assert_eq!(found, 6 * 39);
}

#[test]
fn a_sequence_refuses_the_adapter_of_another_model() {
    let (bitnet, llama) =
        (open(&golden("bitnet_online_bf16"), exact()), open(&golden("bitnet_1bitllm_f16"), exact()));
    let mut sequences = [Sequence::new(&llama, 8).with_adapter(Some(adapter("bitnet", &bitnet)))];
    let row = Row { sequence: 0, token: 1, logits: Logits::All };
    let error = llama.forward(&mut Scratch::default(), &mut sequences, &[row]).unwrap_err().to_string();
    assert!(error.ends_with("the adapter was read for another model"), "{error}");
}

/// A copy of an adapter in a folder of its own, its settings and its tensors changed.
fn changed(
    settings: impl FnOnce(&mut Value),
    header: impl FnOnce(&mut Value),
) -> Result<Adapter, tern::Error> {
    let (from, to) = (folder("bitnet_qv"), tempfile::tempdir().unwrap());
    let text = std::fs::read_to_string(from.join("adapter_config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    settings(&mut json);
    std::fs::write(to.path().join("adapter_config.json"), json.to_string()).unwrap();
    let bytes = std::fs::read(from.join("adapter_model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut json: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header(&mut json);
    let text = json.to_string();
    let new = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &bytes[8 + length..]].concat();
    std::fs::write(to.path().join("adapter_model.safetensors"), new).unwrap();
    read(to.path())
}

fn read(dir: &Path) -> Result<Adapter, tern::Error> {
    let config = open(&golden("bitnet_online_bf16"), exact()).config().clone();
    Adapter::open(dir, &config)
}

/// Gives a tensor of the header another name.
fn rename(header: &mut Value, from: &str, to: &str) {
    let tensors = header.as_object_mut().unwrap();
    let key = tensors.keys().find(|key| key.contains(from)).unwrap().clone();
    let tensor = tensors.remove(&key).unwrap();
    tensors.insert(key.replace(from, to), tensor);
}

#[test]
fn what_tern_does_not_do_is_refused_by_its_name() {
    assert!(changed(|_| {}, |_| {}).is_ok());
    for (key, value, wanted) in [
        ("peft_type", json!("IA3"), "key `peft_type`: expected \"LORA\""),
        ("r", json!(0), "key `r`: expected a rank"),
        ("r", json!(1u64 << 40), "key `r`: expected a rank"),
        ("r", json!("line\nbreak"), "key `r`: expected a rank"),
        ("r", json!(4), "expected [4, 128] by the model and the rank 4, found [3, 128]: the adapter belongs"),
        ("lora_alpha", Value::Null, "key `lora_alpha`: expected a number"),
        ("lora_alpha", json!(1e300), "key `lora_alpha`: expected a number"),
        ("bias", json!("all"), "key `bias`: expected \"none\""),
        ("use_dora", json!(true), "key `use_dora`: expected nothing"),
        ("fan_in_fan_out", json!(true), "key `fan_in_fan_out`: expected nothing"),
        ("rank_pattern", json!({"q_proj": 8}), "key `rank_pattern`: expected nothing"),
        ("alpha_pattern", json!({"q_proj": 8}), "key `alpha_pattern`: expected nothing"),
        ("modules_to_save", json!(["lm_head"]), "key `modules_to_save`: expected nothing"),
        ("layer_replication", json!([[0, 1]]), "key `layer_replication`: expected nothing"),
        ("init_lora_weights", json!("pissa"), "key `init_lora_weights`: expected a beginning"),
        ("of_next_year", json!(3), "key `of_next_year`: expected nothing"),
    ] {
        let error = changed(|json| json[key] = value.clone(), |_| {}).unwrap_err().to_string();
        assert!(error.contains(wanted), "{key}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    for (from, to, wanted) in [
        ("layers.1.", "layers.2.", "the model has 2 layers: the adapter belongs to another base"),
        (
            "layers.1.",
            "layers.01.",
            "expected `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`",
        ),
        (
            "q_proj.lora_A",
            "k_proj.lora_A",
            "expected `base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight` beside",
        ),
        (
            "q_proj.lora_B",
            "o_proj.lora_B",
            "expected `base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight` beside",
        ),
        (
            "model.layers.1.self_attn.v_proj.lora_A",
            "lm_head.lora_A",
            "for layers and the projections of a block alone",
        ),
        (
            "self_attn.v_proj.lora_A",
            "mlp.down_proj.lora_A",
            "expected [3, 256] by the model and the rank 3, found [3, 128]",
        ),
    ] {
        let error = changed(|_| {}, |header| rename(header, from, to)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{from} {to}: {error}");
    }
    let error = changed(
        |_| {},
        |header| {
            let tensors = header.as_object_mut().unwrap();
            tensors
                .values_mut()
                .filter(|tensor| tensor["dtype"] == "BF16")
                .for_each(|tensor| tensor["dtype"] = json!("I16"));
        },
    );
    assert!(error.unwrap_err().to_string().contains("expected f32, f16 or bf16, found I16"));
    let error = read(&folder("llama")).unwrap_err().to_string();
    assert!(error.contains("the adapter belongs to another base"), "{error}");
    let nowhere = read(&golden("bitnet_online_bf16")).unwrap_err().to_string();
    assert!(nowhere.contains("adapter_config.json"), "{nowhere}");
}

#[test]
fn broken_bytes_are_an_error_or_an_adapter() {
    let (from, to) = (folder("bitnet_qv"), tempfile::tempdir().unwrap());
    let names = ["adapter_config.json", "adapter_model.safetensors"];
    let whole = names.map(|name| std::fs::read(from.join(name)).unwrap());
    let mut random = Random(5);
    for round in 0..600 {
        for (nth, name) in names.iter().enumerate() {
            let mut bytes = whole[nth].clone();
            if round % 2 == nth {
                let header = bytes.len().min(1600);
                for _ in 0..1 + random.below(3) {
                    let at = random.below(header);
                    bytes[at] = random.below(256) as u8;
                }
                if random.below(4) == 0 {
                    let len = random.below(bytes.len());
                    bytes.truncate(len);
                }
            }
            std::fs::write(to.path().join(name), bytes).unwrap();
        }
        if let Err(error) = read(to.path()) {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
