//! A Hugging Face checkpoint: safetensors files, an index if there are several, and the JSON files beside them; where a
//! matrix is in several tensors (`transformers`' packed weights, MLX's), they are joined here.

use super::safetensors::{self, sentence};
use super::{Affine, File, Format, Metadata, Tensor, map};
use crate::codec;
use crate::error::quoted;
use crate::tensor::Encoding;
use crate::{Error, Result};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Component, Path};
use tern_kernels::Bytes;

/// The configuration of a model.
pub const CONFIG: &str = "config.json";
/// The tokens that begin and end a text, for programs that write on.
pub const GENERATION: &str = "generation_config.json";
/// The one file of a small model.
pub const MODEL: &str = "model.safetensors";
/// The index of a model in several files.
pub const INDEX: &str = "model.safetensors.index.json";

/// The most bytes of a JSON file, which may take sixteen times that in memory. Real ones are far below.
const JSON_LIMIT: u64 = 8 << 20;

/// Opens a directory with a `config.json`.
pub(super) fn open_dir(dir: &Path) -> Result<File> {
    if !dir.join(CONFIG).exists() {
        return Err(Error::file(dir, format!("expected a directory with a {CONFIG}, found none")));
    }
    if dir.join(INDEX).exists() {
        return open_index(&dir.join(INDEX));
    }
    let path = dir.join(MODEL);
    if !path.exists() {
        return Err(Error::file(dir, format!("expected {MODEL} or {INDEX} beside {CONFIG}, found neither")));
    }
    open_file(&path, map::map(&path)?)
}

/// One safetensors file and what lies beside it.
pub(super) fn open_file(path: &Path, bytes: Bytes) -> Result<File> {
    let tensors = safetensors::read(path, &bytes)?;
    assemble(path, 1, tensors, sidecars(path)?)
}

/// A safetensors file that is in memory already, with its configuration (or null); `name` stands for the path in
/// messages.
pub fn from_bytes(name: &Path, bytes: Bytes, config: Value) -> Result<File> {
    let tensors = safetensors::read(name, &bytes)?;
    let dir = name.parent().unwrap_or(Path::new("")).to_owned();
    assemble(name, 1, tensors, Metadata::Hf { dir, config, tokenizer_config: None, generation_config: None })
}

/// The files that an index names. It decides which tensors there are and where.
pub(super) fn open_index(path: &Path) -> Result<File> {
    let index = json(path)?;
    let Some(places) = index.get("weight_map").and_then(Value::as_object) else {
        return Err(Error::key(
            path,
            "weight_map",
            "expected an object of tensor names and their files, found none",
        ));
    };
    let mut shards = BTreeMap::new();
    for (tensor, shard) in places {
        let wrong = |what: String| Err(Error::tensor(path, tensor, what));
        let Some(shard) = shard.as_str() else {
            return wrong(format!("expected the name of its file, found {}", describe(shard)));
        };
        let inside = Path::new(shard).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || !shard.ends_with(".safetensors") {
            return wrong(format!(
                "expected a .safetensors file of this directory, found `{}`",
                quoted(shard)
            ));
        }
        shards.entry(shard).or_insert_with(Vec::new).push(tensor.as_str());
    }
    let dir = path.parent().unwrap_or(Path::new(""));
    if let Some((shard, names)) = shards.iter().find(|(shard, _)| !dir.join(shard).exists()) {
        return Err(Error::tensor(
            path,
            names[0],
            format!("expected its file `{}`, found none", quoted(shard)),
        ));
    }
    let mut tensors = Vec::new();
    for (shard, names) in &shards {
        let shard_path = dir.join(shard);
        let mut found: HashMap<String, Tensor> = safetensors::read(&shard_path, &map::map(&shard_path)?)?
            .into_iter()
            .map(|tensor| (tensor.name.clone(), tensor))
            .collect();
        for name in names {
            let Some(tensor) = found.remove(*name) else {
                let what = format!("expected it in `{}`, found no such tensor there", quoted(shard));
                return Err(Error::tensor(path, name, what));
            };
            tensors.push(tensor);
        }
        if let Some((name, at)) = found.keys().find_map(|name| Some((name, places.get(name)?))) {
            let what = format!(
                "expected it in `{}` alone, found it in `{}` too",
                quoted(at.as_str().unwrap_or_default()),
                quoted(shard)
            );
            return Err(Error::tensor(path, name, what));
        }
    }
    assemble(path, shards.len(), tensors, sidecars(path)?)
}

/// The JSON files beside a safetensors file or index.
fn sidecars(path: &Path) -> Result<Metadata> {
    let dir = path.parent().unwrap_or(Path::new("")).to_owned();
    let optional = |name: &str| json_beside(&dir.join(name));
    Ok(Metadata::Hf {
        config: optional(CONFIG)?.unwrap_or(Value::Null),
        tokenizer_config: optional("tokenizer_config.json")?,
        generation_config: optional(GENERATION)?,
        dir,
    })
}

/// A JSON file as values.
pub(crate) fn json(path: &Path) -> Result<Value> {
    serde_json::from_slice(&map::read(path, JSON_LIMIT)?)
        .map_err(|e| Error::file(path, format!("expected JSON, found {}", sentence(&e))))
}

/// A JSON file beside a model as values, if it is there.
pub(crate) fn json_beside(path: &Path) -> Result<Option<Value>> {
    if path.exists() { json(path).map(Some) } else { Ok(None) }
}

/// The most bytes of a tokenizer's file: Gemma's tokenizer.json has 33 MB. It is read piece by piece, not as values.
const TOKENIZER_LIMIT: u64 = 256 << 20;

/// The bytes of a tokenizer's file, if it is there.
pub fn bytes_beside(path: &Path) -> Result<Option<Vec<u8>>> {
    if path.exists() { map::read(path, TOKENIZER_LIMIT).map(Some) } else { Ok(None) }
}

/// A JSON value on one line, short.
fn describe(value: &Value) -> String {
    quoted(&value.to_string())
}

fn assemble(path: &Path, shards: usize, mut tensors: Vec<Tensor>, metadata: Metadata) -> Result<File> {
    if let Metadata::Hf { dir, config, .. } = &metadata
        && let Some(rule) = Rule::of(&dir.join(CONFIG), config)?
    {
        take_packed(path, &mut tensors, rule)?;
    }
    if let Metadata::Hf { dir, config, .. } = &metadata
        && let Some(group) = mlx_group(&dir.join(CONFIG), config)?
    {
        take_affine(path, &mut tensors, group)?;
    }
    Ok(File::new(path, Format::Safetensors { shards }, metadata, tensors))
}

/// What a `weight_scale` does. Both conventions are in use under the same name, and values near 1 look alike, so only
/// the configuration decides.
#[derive(Clone, Copy)]
enum Rule {
    /// `linear_class` "bitlinear", the default: the weights are divided by it.
    Divides,
    /// `linear_class` "autobitlinear": the weights are multiplied by it.
    Multiplies,
}

impl Rule {
    /// The rule of a BitNet configuration; none for other models.
    fn of(path: &Path, config: &Value) -> Result<Option<Self>> {
        let quantization = &config["quantization_config"];
        if quantization["quant_method"] != "bitnet" {
            return Ok(None);
        }
        match &quantization["linear_class"] {
            Value::Null => Ok(Some(Self::Divides)),
            Value::String(class) if class == "bitlinear" => Ok(Some(Self::Divides)),
            Value::String(class) if class == "autobitlinear" => Ok(Some(Self::Multiplies)),
            other => {
                let what = format!("expected \"bitlinear\" or \"autobitlinear\", found {}", describe(other));
                Err(Error::key(path, "quantization_config.linear_class", what))
            }
        }
    }
}

/// Joins each `uint8` `X.weight` `[R, K]` with its `X.weight_scale` into a packed ternary matrix `[4R, K]`.
fn take_packed(path: &Path, tensors: &mut Vec<Tensor>, rule: Rule) -> Result<()> {
    let mut scales = HashMap::new();
    for tensor in tensors.iter().filter(|tensor| tensor.name.ends_with(".weight_scale")) {
        scales.insert(tensor.name.clone(), tensor.clone());
    }
    let mut used = HashSet::new();
    for tensor in tensors.iter_mut() {
        if tensor.encoding != Encoding::Dtype("U8") || !tensor.name.ends_with(".weight") {
            continue;
        }
        let wrong = |what: String| Error::tensor(path, &tensor.name, what);
        let [rows, cols] = tensor.dims[..] else {
            return Err(wrong(format!("expected packed weights of 2 dimensions, found {:?}", tensor.dims)));
        };
        let name = format!("{}_scale", tensor.name);
        let scale = scales
            .get(&name)
            .ok_or_else(|| wrong(format!("expected `{}` beside it, found none", quoted(&name))))?;
        let scale = multiplier(scale, rule).map_err(|what| Error::tensor(path, &name, what))?;
        let rows = rows.checked_mul(4).filter(|rows| rows.checked_mul(cols).is_some());
        let rows = rows.ok_or_else(|| wrong("expected sizes that can be counted".into()))?;
        tensor.dims = vec![rows, cols];
        tensor.encoding = Encoding::Packed;
        tensor.scale = Some(scale);
        used.insert(name);
    }
    tensors.retain(|tensor| !used.contains(&tensor.name));
    Ok(())
}

fn multiplier(tensor: &Tensor, rule: Rule) -> Result<f32, String> {
    if tensor.rows() * tensor.cols() != 1 {
        return Err(format!("expected one number, found {:?}", tensor.dims));
    }
    let mut scale = [0.0];
    codec::floats(tensor, 0, &mut scale)?;
    match rule {
        Rule::Multiplies => codec::check_scale(scale[0]),
        // Only of a finite number above 0 the inverse is a scale: that of infinity would be 0.
        Rule::Divides if scale[0].is_finite() && scale[0] > 0.0 => codec::check_scale(1.0 / scale[0])
            .map_err(|what| format!("{what}, which is 1 over {:?}", scale[0])),
        Rule::Divides => Err(format!("expected a finite scale above 0, found {:?}", scale[0])),
    }
}

/// The columns that share a scale, where the configuration says that MLX quantised the matrices.
fn mlx_group(path: &Path, config: &Value) -> Result<Option<usize>> {
    let Some(quantization) = config.get("quantization").and_then(Value::as_object) else { return Ok(None) };
    let wrong =
        |key: &str, what: String| Err(Error::key(path, &format!("quantization.{}", quoted(key)), what));
    let value = |key: &str| quantization.get(key).unwrap_or(&Value::Null);
    if value("bits") != 2 {
        let what = format!("expected 2, which ternary models have, found {}", describe(value("bits")));
        return wrong("bits", what);
    }
    if !value("mode").is_null() && value("mode") != "affine" {
        return wrong("mode", format!("expected \"affine\", found {}", describe(value("mode"))));
    }
    let known = ["bits", "group_size", "mode", "quant_method"];
    if let Some(key) = quantization.keys().find(|key| !known.contains(&key.as_str())) {
        return wrong(key, "is not a key that Tern knows, so it may change what the weights mean".to_owned());
    }
    match value("group_size").as_u64() {
        Some(size @ (32 | 64 | 128)) => Ok(Some(size as usize)),
        _ => wrong("group_size", format!("expected 32, 64 or 128, found {}", describe(value("group_size")))),
    }
}

/// Joins each `uint32` `X.weight` `[N, K / 16]` with its `X.scales` and `X.biases` into a ternary matrix `[N, K]`.
fn take_affine(path: &Path, tensors: &mut Vec<Tensor>, group: usize) -> Result<()> {
    let beside = |name: &str| name.ends_with(".scales") || name.ends_with(".biases");
    let (floats, rest): (Vec<Tensor>, Vec<Tensor>) =
        std::mem::take(tensors).into_iter().partition(|tensor| beside(&tensor.name));
    let mut floats: HashMap<String, Tensor> =
        floats.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
    *tensors = rest;
    for tensor in tensors.iter_mut() {
        let Some(stem) = tensor.name.strip_suffix(".weight") else { continue };
        if tensor.encoding != Encoding::Dtype("U32") {
            continue;
        }
        let wrong = |what: String| Error::tensor(path, &tensor.name, what);
        let [rows, words] = tensor.dims[..] else {
            return Err(wrong(format!("expected packed weights of 2 dimensions, found {:?}", tensor.dims)));
        };
        let cols = words.checked_mul(16).filter(|cols| rows.checked_mul(*cols).is_some());
        let cols = cols.ok_or_else(|| wrong("expected sizes that can be counted".into()))?;
        if cols % group != 0 {
            return Err(wrong(format!("expected rows of whole groups of {group}, found {cols} columns")));
        }
        let mut take = |kind: &str| {
            let name = format!("{stem}.{kind}");
            let found = floats.remove(&name);
            let found =
                found.ok_or_else(|| wrong(format!("expected `{}` beside it, found none", quoted(&name))))?;
            let is_float = matches!(found.encoding, Encoding::F32 | Encoding::F16 | Encoding::Bf16);
            if !is_float || found.dims != [rows, cols / group] {
                let expected = [rows, cols / group];
                let what = format!("expected floats {expected:?}, found {} {:?}", found.encoding, found.dims);
                return Err(Error::tensor(path, &name, what));
            }
            Ok(found)
        };
        let affine = Affine { scales: take("scales")?, biases: take("biases")? };
        tensor.dims = vec![rows, cols];
        tensor.encoding = Encoding::Mlx2;
        tensor.affine = Some(Box::new(affine));
    }
    // What belongs to no matrix is refused by its name with all other strangers.
    let mut strangers: Vec<Tensor> = floats.into_values().collect();
    strangers.sort_by(|a, b| a.name.cmp(&b.name));
    tensors.extend(strangers);
    Ok(())
}
