//! GGUF files, version 3, little endian; see [`gguf`](super::gguf) for their structure. The tensors follow the header
//! in the order of their entries, each padded to the alignment.

use super::gguf::{ALIGNMENT, Array, MAGIC, NAME_LIMIT, Pairs, Value};
use super::write::{Draft, Entry, Out};
use crate::error::{Error, Result};
use std::io::Write as _;
use std::path::Path;

/// The key that says what the data and each tensor are padded to.
pub const ALIGNMENT_KEY: &str = "general.alignment";

/// Writes a file: `body` writes the bytes of one entry after another. The file's size.
pub fn write(
    output: &Path,
    pairs: Pairs,
    entries: &[Entry],
    mut body: impl FnMut(usize, &mut Out) -> Result<()>,
) -> Result<u64> {
    let io = |e| Error::io(output, e);
    let header = header(&pairs, entries)?;
    let alignment = alignment(&pairs)?;
    drop(pairs); // a vocabulary takes some megabytes
    let (draft, mut out) = Draft::file(output)?;
    out.write_all(&header).map_err(io)?;
    drop(header);
    for (nth, entry) in entries.iter().enumerate() {
        let start = out.written();
        body(nth, &mut out)?;
        assert_eq!(out.written() - start, entry.bytes, "bytes of {}", entry.name);
        out.pad_to(alignment).map_err(io)?;
    }
    let bytes = out.written();
    out.finish().map_err(io)?;
    draft.publish()?;
    Ok(bytes)
}

/// The padding these pairs ask for.
fn alignment(pairs: &Pairs) -> Result<u64> {
    Ok(pairs.u32(ALIGNMENT_KEY)?.map_or(ALIGNMENT, u64::from))
}

/// Everything before the data, padded.
fn header(pairs: &Pairs, entries: &[Entry]) -> Result<Vec<u8>> {
    let alignment = alignment(pairs)?;
    let mut out = MAGIC.to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs.iter() {
        string(&mut out, key);
        out.extend(value.kind().id().to_le_bytes());
        put(&mut out, value);
    }
    let mut offset = 0u64;
    for entry in entries {
        let wrong = |what: String| Error::tensor(pairs.path(), &entry.name, what);
        if entry.name.len() > NAME_LIMIT {
            return Err(wrong(format!(
                "a GGUF name has at most {NAME_LIMIT} bytes, this one has {}",
                entry.name.len()
            )));
        }
        if !(1..=4).contains(&entry.dims.len()) {
            return Err(wrong(format!(
                "a GGUF tensor has 1 to 4 dimensions, this one has {}",
                entry.dims.len()
            )));
        }
        let id = entry.encoding.gguf_type();
        let id = id.ok_or_else(|| wrong(format!("GGUF has no type for {}", entry.encoding)))?;
        string(&mut out, &entry.name);
        out.extend((entry.dims.len() as u32).to_le_bytes());
        for &dim in entry.dims.iter().rev() {
            out.extend((dim as u64).to_le_bytes());
        }
        out.extend(id.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset = offset
            .checked_add(entry.bytes)
            .and_then(|end| end.checked_next_multiple_of(alignment))
            .ok_or_else(|| wrong("its offset does not fit 64 bits".into()))?;
    }
    out.resize(out.len().next_multiple_of(alignment as usize), 0);
    Ok(out)
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.push(*v),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => string(out, v),
        Value::Array(v) => array(out, v),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
    }
}

fn array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.kind().id().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    out.extend(array.bytes());
}
