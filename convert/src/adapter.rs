//! LoRA adapters, written in PEFT's layout and merged into masters.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use tern::adapter::{SETTINGS, TENSORS, shapes, tensor_name};
use tern::family::PROJECTIONS;
use tern::file::hf_write::{self, pretty};
use tern::file::write::{Draft, Entry};
use tern::file::{File, Metadata};
use tern::{Adapter, Encoding, Error, Result, keys};

use crate::masters::{Master, Masters, Weights, write_masters};

/// An adapter to be written.
#[derive(Clone, Debug)]
pub struct NewAdapter<'a> {
    /// What it was trained beside, for people.
    pub base: String,
    /// The width between its matrices.
    pub rank: usize,
    /// `alpha / rank` is what it counts.
    pub alpha: f32,
    /// Names of projections that have one: `q_proj`.
    pub targets: Vec<&'a str>,
    /// Layer and projection (by [`PROJECTIONS`]), `A (rank, inputs)`, `B (outputs, rank)`.
    pub pairs: Vec<(usize, usize, &'a [f32], &'a [f32])>,
}

/// Writes an adapter: a new directory, there when it is whole.
pub fn write_adapter(dir: &Path, adapter: &NewAdapter<'_>) -> Result<()> {
    let NewAdapter { base, rank, alpha, targets, pairs } = adapter;
    let whole = |number: f32| number.fract() == 0.0 && number.abs() < 1e9;
    let settings = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": if whole(*alpha) { json!(*alpha as i64) } else { json!(alpha) },
        "target_modules": targets,
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
        "use_dora": false,
        "use_rslora": false,
    });
    let mut entries = Vec::new();
    let mut bodies = Vec::new();
    for &(layer, projection, a, b) in pairs {
        for (half, values, dims) in
            [("lora_A", a, vec![*rank, a.len() / rank]), ("lora_B", b, vec![b.len() / rank, *rank])]
        {
            let (name, bytes) = (tensor_name(layer, projection, half), 4 * values.len() as u64);
            entries.push(Entry { name, dims, encoding: Encoding::F32, bytes });
            bodies.push(values);
        }
    }
    let draft = Draft::directory(dir)?;
    hf_write::put(&draft, SETTINGS, pretty(&settings).as_bytes())?;
    hf_write::write(&draft, TENSORS, &entries, |nth, out| {
        let bytes: Vec<u8> = bodies[nth].iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes).map_err(|e| Error::io(dir, e))
    })?;
    draft.publish()
}

/// Adds an adapter's products to the masters of a model, and writes masters again. The model's own file stays as it is.
pub fn merge(base: &File, adapter: &Path, out: &Path) -> Result<()> {
    let masters = Masters::of(base)?;
    let config = masters.config();
    let adapter = Adapter::open(adapter, config)?;
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    let mut read = |name: String, rows: Option<usize>, cols: usize| {
        let mut values = vec![0f32; rows.unwrap_or(1) * cols];
        masters.read(&name, rows.unwrap_or(1), &mut values)?;
        tensors.push((name, rows.into_iter().chain([cols]).collect(), values));
        Ok::<_, Error>(tensors.len() - 1)
    };
    read("token_embd.weight".to_owned(), Some(config.vocab), config.dim)?;
    let mut added = Vec::new();
    for layer in 0..config.layers {
        let name = |module: &str| format!("blk.{layer}.{module}.weight");
        let sub_norms = [("attn_sub_norm", config.q_dim()), ("ffn_sub_norm", config.hidden)];
        let norms = [("attn_norm", config.dim), ("ffn_norm", config.dim)];
        for (module, width) in norms.into_iter().chain(sub_norms.into_iter().filter(|_| config.sub_norms)) {
            read(name(module), None, width)?;
        }
        for (projection, (rows, cols)) in shapes(config).into_iter().enumerate() {
            let name = name(PROJECTIONS[projection].0);
            if adapter.pair(layer, projection).is_some() {
                if masters.trits(&name, rows, &mut vec![0i8; rows * cols])?.is_some() {
                    let what = "holds trits and no masters: what an adapter adds is less than a trit, and rounding would take \
                                it away; `--adapter` runs it beside this file";
                    return Err(base.error(&name, what));
                }
                added.push((read(name, Some(rows), cols)?, layer, projection));
            } else {
                read(name, Some(rows), cols)?;
            }
        }
    }
    read("output_norm.weight".to_owned(), None, config.dim)?;
    if masters.has_head() {
        read("output.weight".to_owned(), Some(config.vocab), config.dim)?;
    }
    for (at, layer, projection) in added {
        let Some(pair) = adapter.pair(layer, projection) else { continue };
        add(&mut tensors[at].2, &pair.a, &pair.b, adapter.rank(), adapter.scale());
    }
    let list: Vec<Master<'_>> = tensors
        .iter()
        .map(|(name, dims, values)| Master { name: name.clone(), dims: dims.clone(), values })
        .collect();
    let prompt = match &base.metadata {
        Metadata::Hf { config, .. } => config.get(keys::PROMPT).cloned(),
        Metadata::Gguf(pairs) => pairs.str(keys::PROMPT)?.map(Value::from),
    };
    let more: Vec<_> = prompt.into_iter().map(|value| (keys::PROMPT, value)).collect();
    write_masters(out, config, Weights::Masters, &list, &more, &masters.tokenizer_files()?)
}

/// `w (outputs, inputs) += scale B A`, with `b` as `(rank, outputs)`; the sums in the order of the rank.
fn add(w: &mut [f32], a: &[f32], b: &[f32], rank: usize, scale: f32) {
    let (inputs, outputs) = (a.len() / rank, b.len() / rank);
    let mut row = vec![0f32; inputs];
    for (output, w) in w.chunks_exact_mut(inputs).enumerate() {
        row.fill(0.0);
        for (lane, a) in a.chunks_exact(inputs).enumerate() {
            let b = scale * b[lane * outputs + output];
            row.iter_mut().zip(a).for_each(|(row, a)| *row += b * a);
        }
        w.iter_mut().zip(&row).for_each(|(w, row)| *w += row);
    }
}
