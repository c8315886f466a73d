//! Safetensors files: the length of the header as a u64, then JSON that gives each tensor its type, shape and place.
//! The tensors follow without gaps; readers want each at a multiple of its element size, so wide elements go first.

use super::write::{Draft, Entry, Out};
use crate::error::{Error, Result};
use crate::tensor::Encoding;
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::path::Path;

/// Writes a small file into a draft directory.
pub fn put(draft: &Draft, name: &str, bytes: &[u8]) -> Result<()> {
    let io = |e| Error::io(&draft.path().join(name), e);
    let mut out = draft.create(name)?;
    out.write_all(bytes).map_err(io)?;
    out.finish().map_err(io)
}

/// JSON as people write it.
pub fn pretty(json: &Value) -> String {
    format!("{json:#}\n")
}

/// Writes a safetensors file of this name into a draft directory: `body` writes the bytes of one entry after another. The entries
/// must come with falling [element sizes](dtype). The file's size.
pub fn write(
    draft: &Draft,
    name: &str,
    entries: &[Entry],
    mut body: impl FnMut(usize, &mut Out) -> Result<()>,
) -> Result<u64> {
    let path = draft.path().join(name);
    let io = |e| Error::io(&path, e);
    let mut out = draft.create(name)?;
    out.write_all(&header(&path, entries)?).map_err(io)?;
    for (nth, entry) in entries.iter().enumerate() {
        let start = out.written();
        body(nth, &mut out)?;
        assert_eq!(out.written() - start, entry.bytes, "bytes of {}", entry.name);
    }
    let bytes = out.written();
    out.finish().map_err(io)?;
    Ok(bytes)
}

/// The type name of an encoding and the bytes of one element; `None` for what safetensors cannot hold.
pub fn dtype(encoding: Encoding) -> Option<(&'static str, usize)> {
    match encoding {
        Encoding::F32 => Some(("F32", 4)),
        Encoding::F16 => Some(("F16", 2)),
        Encoding::Bf16 => Some(("BF16", 2)),
        Encoding::Packed => Some(("U8", 1)),
        _ => None,
    }
}

/// Everything before the data.
fn header(path: &Path, entries: &[Entry]) -> Result<Vec<u8>> {
    let mut map = Map::new();
    // Without this key transformers refuses the file.
    map.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut start = 0u64;
    for entry in entries {
        let wrong = |what: String| Error::tensor(path, &entry.name, what);
        let (dtype, _) = dtype(entry.encoding)
            .ok_or_else(|| wrong(format!("safetensors has no type for {}", entry.encoding)))?;
        // Four rows, one of each quarter of the outputs, share a row of bytes.
        let shape: Vec<usize> = match (entry.encoding, &entry.dims[..]) {
            (Encoding::Packed, [rows, cols]) => vec![rows / 4, *cols],
            (_, dims) => dims.to_vec(),
        };
        let end =
            start.checked_add(entry.bytes).ok_or_else(|| wrong("its offset does not fit 64 bits".into()))?;
        map.insert(
            entry.name.clone(),
            json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }),
        );
        start = end;
    }
    let mut json = Value::Object(map).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend(json);
    Ok(out)
}
