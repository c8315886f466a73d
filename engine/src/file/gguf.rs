//! GGUF versions 2 and 3, little endian.
//!
//! ```text
//! "GGUF"  version u32  tensor_count u64  kv_count u64
//! kv_count x      key string, value type u32, value
//! tensor_count x  name string, n_dims u32, dims u64[n_dims] innermost first, type u32, offset u64
//! padding to the alignment, then the data: each tensor at its offset, padded to the alignment
//! ```
//!
//! The same type number means different things in different forks. The offsets tell them apart: a tensor must fill the
//! space up to the next one but for the padding, so a type of another size does not pass for it.

mod pairs;

pub use pairs::{Array, Kind, Pairs, Value};

use super::{File, Format, Metadata, OpenOptions, Tensor};
use crate::codec;
use crate::error::quoted;
use crate::keys::{SCALE_NAMES, SCALE_VALUES};
use crate::tensor::Encoding;
use crate::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use tern_kernels::Bytes;

/// The first bytes of every GGUF file.
pub const MAGIC: &[u8] = b"GGUF";
/// Where the data begins, and what each tensor is padded to, unless `general.alignment` says otherwise.
pub const ALIGNMENT: u64 = 32;
/// The longest tensor name.
pub const NAME_LIMIT: usize = 63;

/// Far above any real header (tens of keys, thousands of tensors): bounds the memory of a hostile one.
const PAIRS_LIMIT: u64 = 1 << 14;
const TENSORS_LIMIT: u64 = 1 << 18;
/// The fewest bytes of a pair (key length, type, one byte) and of a tensor (name length, dims, one dim, type, offset).
const PAIR_BYTES: u64 = 8 + 4 + 1;
const TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

/// Reads the header; the tensors share `bytes`.
pub(super) fn read(path: &Path, bytes: Bytes, options: OpenOptions) -> Result<File> {
    let mut header = Header { path, bytes: &bytes, at: 0 };
    let version = header.version()?;
    let tensor_count = header.count("tensors", TENSOR_BYTES, TENSORS_LIMIT)?;
    let pair_count = header.count("keys", PAIR_BYTES, PAIRS_LIMIT)?;
    let mut pairs = Pairs::new(path);
    for _ in 0..pair_count {
        header.pair(&bytes, &mut pairs)?;
    }
    let mut infos = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..tensor_count {
        let info = header.tensor()?;
        if !names.insert(info.name.clone()) {
            return Err(Error::tensor(path, &info.name, "expected each name once, found it twice"));
        }
        infos.push(info);
    }
    if let Some(count) = pairs.u32("split.count")?.filter(|&count| count > 1) {
        let what =
            format!("expected a whole model, found one of {count} parts; merge them with llama-gguf-split");
        return Err(pairs.error("split.count", what));
    }
    let alignment = alignment(&pairs)?;
    let start = (header.at as u64).next_multiple_of(alignment);
    let data = data(path, &bytes, start, infos.is_empty())?;
    let mut tensors = place(path, infos, &data, alignment, options)?;
    take_factors(path, &mut tensors)?;
    take_exact_scales(&pairs, &mut tensors)?;
    Ok(File::new(path, Format::Gguf { version }, Metadata::Gguf(pairs), tensors))
}

/// The header as a stream; `at` never passes the end of `bytes`.
struct Header<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

/// One tensor of the header, before its data is looked at.
struct Info {
    name: String,
    /// Innermost first, as in the file; each above 0 and the product fits i64.
    dims: Vec<u64>,
    type_id: u32,
    offset: u64,
}

impl<'a> Header<'a> {
    fn error(&self, what: impl Into<String>) -> Error {
        Error::file(self.path, what)
    }

    /// The next `length` bytes, or what the header wanted them for.
    fn take(&mut self, length: u64, what: &str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        if length > rest.len() as u64 {
            let (at, left) = (self.at, rest.len());
            return Err(self.error(format!(
                "expected {length} bytes of {what} at byte {at}, found {left} to the end of the file"
            )));
        }
        self.at += length as usize;
        Ok(&rest[..length as usize])
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4, what)?.try_into().expect("four bytes were taken")))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8, what)?.try_into().expect("eight bytes were taken")))
    }

    /// A string of the header itself; `what` names it in messages.
    fn string(&mut self, what: &str) -> Result<&'a str> {
        let length = self.u64(what)?;
        let at = self.at;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|e| {
            self.error(format!(
                "expected UTF-8 in {what} at byte {at}, found an invalid byte after {}",
                e.valid_up_to()
            ))
        })
    }

    fn version(&mut self) -> Result<u32> {
        let magic = self.take(4, "the magic `GGUF`")?;
        if magic != MAGIC {
            let found = String::from_utf8_lossy(magic);
            return Err(self.error(format!("expected the magic `GGUF`, found `{}`", quoted(&found))));
        }
        match self.u32("the version")? {
            version @ (2 | 3) => Ok(version),
            1 => Err(self.error("expected GGUF version 2 or 3, found version 1; convert the model again with a current tool")),
            version if version != 0 && version & 0xffff == 0 => {
                Err(self.error("expected a little-endian GGUF, found a big-endian one; convert the model again for this machine"))
            }
            version => Err(self.error(format!("expected GGUF version 2 or 3, found version {version}"))),
        }
    }

    /// A count of things that take at least `least` bytes each in what is left of the file.
    fn count(&mut self, what: &str, least: u64, limit: u64) -> Result<u64> {
        let count = self.u64(&format!("the number of {what}"))?;
        let room = (self.bytes.len() - self.at) as u64 / least;
        if count > limit.min(room) {
            return Err(
                self.error(format!("expected at most {} {what}, found a count of {count}", limit.min(room)))
            );
        }
        Ok(count)
    }

    /// One key and its value. `bytes` owns what `self.bytes` looks at: arrays keep a part of it.
    fn pair(&mut self, bytes: &Bytes, pairs: &mut Pairs) -> Result<()> {
        let key = self.string("a key")?;
        // From here on the key can be named.
        let what = |e: Error| match e {
            Error::File { path, what } => Error::key(&path, key, what),
            other => other,
        };
        let kind = self.kind(key)?;
        let value = match kind {
            Kind::String => Value::String(self.string("a string").map_err(what)?.to_owned()),
            Kind::Array => Value::Array(self.array(key, bytes).map_err(what)?),
            scalar => {
                let size = scalar.size().expect("strings and arrays are handled above") as u64;
                let raw = self.take(size, "a value").map_err(what)?;
                Value::from_bytes(scalar, raw).ok_or_else(|| {
                    Error::key(self.path, key, format!("expected a bool of 0 or 1, found {}", raw[0]))
                })?
            }
        };
        match pairs.insert(key, value) {
            true => Ok(()),
            false => Err(Error::key(self.path, key, "expected each key once, found it twice")),
        }
    }

    fn kind(&mut self, key: &str) -> Result<Kind> {
        let id = self.u32(&format!("the type of key `{}`", quoted(key)))?;
        Kind::from_id(id).ok_or_else(|| {
            Error::key(self.path, key, format!("expected a value type of 0 to 12, found {id}"))
        })
    }

    fn array(&mut self, key: &str, bytes: &Bytes) -> Result<Array> {
        let kind = self.kind(key)?;
        let count = self.u64("the length of an array")?;
        let left = (self.bytes.len() - self.at) as u64;
        let least = match kind {
            Kind::Array => {
                return Err(self.error("expected an array of numbers or strings, found an array of arrays"));
            }
            Kind::String => 8,
            scalar => scalar.size().expect("strings and arrays are handled above") as u64,
        };
        if count > left / least {
            let what = format!(
                "expected at most {} elements to the end of the file, found a count of {count}",
                left / least
            );
            return Err(self.error(what));
        }
        let start = self.at;
        if kind == Kind::String {
            for _ in 0..count {
                self.string("a string of an array")?;
            }
        } else {
            let raw = self.take(count * least, "an array")?;
            if let Some(bad) = raw.iter().find(|&&byte| kind == Kind::Bool && byte > 1) {
                return Err(self.error(format!("expected bools of 0 or 1, found {bad}")));
            }
        }
        let elements = bytes.slice(start..self.at).expect("what was taken lies inside the file");
        Ok(Array::new(kind, count as usize, elements))
    }

    fn tensor(&mut self) -> Result<Info> {
        let name = self.string("a tensor name")?;
        let wrong = |what: String| Err(Error::tensor(self.path, name, what));
        if name.len() > NAME_LIMIT {
            return wrong(format!("expected a name of at most {NAME_LIMIT} bytes, found {}", name.len()));
        }
        let what = |e: Error| match e {
            Error::File { path, what } => Error::tensor(&path, name, what),
            other => other,
        };
        let count = self.u32("the number of dimensions").map_err(what)?;
        if !(1..=4).contains(&count) {
            return wrong(format!("expected 1 to 4 dimensions, found {count}"));
        }
        let mut dims = Vec::new();
        for _ in 0..count {
            dims.push(self.u64("a dimension").map_err(what)?);
        }
        let elements =
            dims.iter().try_fold(1i64, |product, &dim| product.checked_mul(i64::try_from(dim).ok()?));
        if elements.is_none_or(|elements| elements == 0) {
            return wrong(format!("expected dimensions above 0 whose product fits 63 bits, found {dims:?}"));
        }
        let type_id = self.u32("the type").map_err(what)?;
        let offset = self.u64("the offset").map_err(what)?;
        Ok(Info { name: name.to_owned(), dims, type_id, offset })
    }
}

fn alignment(pairs: &Pairs) -> Result<u64> {
    match pairs.get("general.alignment") {
        None => Ok(ALIGNMENT),
        Some(&Value::U32(alignment)) if alignment.is_power_of_two() => Ok(alignment.into()),
        Some(value) => {
            let what = format!("expected a u32 that is a power of two, found {}", value.describe());
            Err(pairs.error("general.alignment", what))
        }
    }
}

/// The data section. A file without tensors may end anywhere after its header.
fn data(path: &Path, bytes: &Bytes, start: u64, empty: bool) -> Result<Bytes> {
    let end = bytes.len();
    match usize::try_from(start).ok().and_then(|start| bytes.slice(start..end)) {
        Some(data) => Ok(data),
        None if empty => Ok(Vec::new().into()),
        None => Err(Error::file(
            path,
            format!("expected tensor data at byte {start}, found the end of the file at {end}"),
        )),
    }
}

/// Gives each tensor its bytes. Tensors lie one after another from offset 0, each padded to the alignment; the padding
/// of the last may be missing.
fn place(
    path: &Path,
    infos: Vec<Info>,
    data: &Bytes,
    alignment: u64,
    options: OpenOptions,
) -> Result<Vec<Tensor>> {
    let mut order: Vec<usize> = (0..infos.len()).collect();
    order.sort_by_key(|&i| infos[i].offset);
    let forty_two = settle_42(&infos, &order, data.len() as u64, alignment);
    let mut tensors: Vec<Option<Tensor>> = vec![None; infos.len()];
    for (nth, &i) in order.iter().enumerate() {
        let Info { name, dims, type_id, offset } = &infos[i];
        let wrong = |what: String| Error::tensor(path, name, what);
        if offset % alignment != 0 {
            return Err(wrong(format!(
                "expected an offset that is a multiple of {alignment}, found {offset}"
            )));
        }
        if nth == 0 && *offset != 0 {
            return Err(wrong(format!("expected the first tensor at offset 0, found {offset}")));
        }
        let next = order.get(nth + 1).map(|&next| &infos[next]);
        let end = next.map_or(data.len() as u64, |next| next.offset.min(data.len() as u64));
        let room = usize::try_from(*offset)
            .ok()
            .and_then(|start| data.slice(start..end as usize))
            .ok_or_else(|| {
                wrong(format!(
                    "expected data at offset {offset}, found the end of the file at offset {}",
                    data.len()
                ))
            })?;
        let dims = dims.iter().rev().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
        let dims = dims.map_err(|_| wrong("expected dimensions that this machine can count".into()))?;
        let encoding = match Encoding::from_gguf(*type_id) {
            Encoding::I2S if options.i2s_arm => Encoding::I2SArm,
            Encoding::Q2_0 => forty_two,
            encoding => encoding,
        };
        let (encoding, length) = codec::measure(encoding, &dims, &room).map_err(wrong)?;
        if length > room.len() as u64 || room.len() as u64 - length >= alignment {
            let behind = match next {
                Some(next) if next.offset <= data.len() as u64 => {
                    format!("up to tensor `{}`", quoted(&next.name))
                }
                _ => "to the end of the file".to_owned(),
            };
            let what =
                format!("expected {length} bytes of {encoding} for {dims:?}, found {} {behind}", room.len());
            return Err(wrong(what));
        }
        let bytes = room.slice(0..length as usize).expect("the length was compared with the room");
        tensors[i] = Some(Tensor::new(name, dims, encoding, bytes));
    }
    Ok(tensors.into_iter().map(|tensor| tensor.expect("every index is in the order once")).collect())
}

/// What type 42 means in this file, by the room that each tensor of the type has; `order` is that of their offsets.
fn settle_42(infos: &[Info], order: &[usize], end: u64, alignment: u64) -> Encoding {
    let mut tensors = Vec::new();
    for (nth, &i) in order.iter().enumerate() {
        let Info { dims, type_id, offset, .. } = &infos[i];
        let sizes = dims.iter().rev().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
        if let (Encoding::Q2_0, Ok(sizes)) = (Encoding::from_gguf(*type_id), sizes) {
            let next = order.get(nth + 1).map_or(end, |&next| infos[next].offset.min(end));
            tensors.push((sizes, next.saturating_sub(*offset)));
        }
    }
    codec::settle_42(tensors.iter().map(|(dims, room)| (&dims[..], *room)), alignment)
}

/// Moves each `X.scale` (one f32) into the `X.weight` it belongs to.
fn take_factors(path: &Path, tensors: &mut Vec<Tensor>) -> Result<()> {
    let mut factors = HashMap::new();
    for tensor in tensors.iter() {
        let stem = tensor.name.strip_suffix(".scale");
        if let (Some(stem), Encoding::F32, [1]) = (stem, tensor.encoding, &tensor.dims[..]) {
            let bytes = tensor.bytes.first_chunk().expect("one f32 was measured");
            factors.insert(format!("{stem}.weight"), f32::from_le_bytes(*bytes));
        }
    }
    let mut used = HashSet::new();
    for tensor in tensors.iter_mut() {
        let Some(&factor) = factors.get(&tensor.name) else { continue };
        codec::check_scale(factor).map_err(|what| Error::tensor(path, &tensor.name, what))?;
        tensor.factor = factor;
        let stem = tensor.name.strip_suffix(".weight").expect("the keys end so");
        used.insert(format!("{stem}.scale"));
    }
    tensors.retain(|tensor| !used.contains(&tensor.name));
    Ok(())
}

/// The exact scales that Tern writes beside tensors that round theirs, by tensor name.
fn take_exact_scales(pairs: &Pairs, tensors: &mut [Tensor]) -> Result<()> {
    let Some(names) = pairs.strings(SCALE_NAMES)? else { return Ok(()) };
    let values = pairs.f32s(SCALE_VALUES)?.unwrap_or_default();
    if names.len() != values.len() {
        let what = format!(
            "expected {} values, one for each of `{SCALE_NAMES}`, found {}",
            names.len(),
            values.len()
        );
        return Err(pairs.error(SCALE_VALUES, what));
    }
    let scales: HashMap<&str, f32> = names.into_iter().zip(values).collect();
    for tensor in tensors.iter_mut().filter(|tensor| tensor.encoding.rounds_scales()) {
        tensor.scale = scales.get(tensor.name.as_str()).copied();
    }
    Ok(())
}
