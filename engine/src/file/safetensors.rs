//! The safetensors container.
//!
//! ```text
//! length u64   of the header
//! header JSON  {"name": {"dtype": "F32", "shape": [rows, cols], "data_offsets": [begin, end]}, "__metadata__": {...}}
//! data         offsets count from here; tensors fill it without gaps
//! ```

use super::Tensor;
use crate::error::quoted;
use crate::tensor::Encoding;
use crate::{Error, Result};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use tern_kernels::Bytes;

/// The limit of the reference implementation.
const HEADER_LIMIT: u64 = 100_000_000;
/// More than any checkpoint has: bounds the memory of a hostile header.
const TENSORS_LIMIT: usize = 1 << 18;
const DIMS_LIMIT: usize = 8;
const METADATA: &str = "__metadata__";

/// The dtypes, their bytes, and what they are to Tern.
const DTYPES: [(&str, u64, Encoding); 15] = [
    ("F32", 4, Encoding::F32),
    ("F16", 2, Encoding::F16),
    ("BF16", 2, Encoding::Bf16),
    ("F64", 8, Encoding::Dtype("F64")),
    ("F8_E4M3", 1, Encoding::Dtype("F8_E4M3")),
    ("F8_E5M2", 1, Encoding::Dtype("F8_E5M2")),
    ("I8", 1, Encoding::Dtype("I8")),
    ("I16", 2, Encoding::Dtype("I16")),
    ("I32", 4, Encoding::Dtype("I32")),
    ("I64", 8, Encoding::Dtype("I64")),
    ("U8", 1, Encoding::Dtype("U8")),
    ("U16", 2, Encoding::Dtype("U16")),
    ("U32", 4, Encoding::Dtype("U32")),
    ("U64", 8, Encoding::Dtype("U64")),
    ("BOOL", 1, Encoding::Dtype("BOOL")),
];

/// The tensors of one file, in the order of their data.
pub(super) fn read(path: &Path, bytes: &Bytes) -> Result<Vec<Tensor>> {
    let file_len = bytes.len() as u64;
    let Some(length) = bytes.first_chunk().map(|&length| u64::from_le_bytes(length)) else {
        return Err(Error::file(
            path,
            format!("expected a header length of 8 bytes, found a file of {file_len}"),
        ));
    };
    if length > HEADER_LIMIT {
        return Err(Error::file(
            path,
            format!("expected a header of at most {HEADER_LIMIT} bytes, found {length}"),
        ));
    }
    if length > file_len - 8 {
        let left = file_len - 8;
        return Err(Error::file(
            path,
            format!("expected a header of {length} bytes, found {left} to the end of the file"),
        ));
    }
    let start = 8 + length as usize;
    let header: Header = serde_json::from_slice(&bytes[8..start])
        .map_err(|e| Error::file(path, format!("expected a safetensors header, found {}", sentence(&e))))?;
    let data = bytes.slice(start..bytes.len()).expect("the header lies inside the file");
    place(path, header, &data)
}

/// A JSON error on one line; it may quote the file.
pub(super) fn sentence(error: &serde_json::Error) -> String {
    quoted(&error.to_string())
}

/// Gives each tensor its bytes.
fn place(path: &Path, mut header: Header, data: &Bytes) -> Result<Vec<Tensor>> {
    header.0.sort_by_key(|(_, info)| info.data_offsets);
    let mut names = HashSet::new();
    let mut tensors = Vec::new();
    let mut at = 0; // the end of the tensors so far
    for (name, info) in &header.0 {
        let wrong = |what: String| Error::tensor(path, name, what);
        if !names.insert(name) {
            return Err(wrong("expected each name once, found it twice".into()));
        }
        let Some(&(dtype, size, encoding)) = DTYPES.iter().find(|entry| entry.0 == info.dtype) else {
            let known: Vec<_> = DTYPES.iter().map(|entry| entry.0).collect();
            return Err(wrong(format!(
                "expected a dtype of {}, found `{}`",
                known.join(", "),
                quoted(&info.dtype)
            )));
        };
        let shape = &info.shape.0;
        let weights = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        let Some(length) =
            weights.filter(|&weights| weights > 0).and_then(|weights| weights.checked_mul(size))
        else {
            return Err(wrong(format!("expected sizes above 0 whose product fits 64 bits, found {shape:?}")));
        };
        let (begin, end) = info.data_offsets;
        if begin != at {
            return Err(wrong(format!(
                "expected data at offset {at}, where the tensor before it ends, found {begin}"
            )));
        }
        if end.checked_sub(begin) != Some(length) {
            return Err(wrong(format!(
                "expected {length} bytes for {dtype} {shape:?}, found offsets {begin} to {end}"
            )));
        }
        let bytes = usize::try_from(end).ok().and_then(|end| data.slice(begin as usize..end));
        let Some(bytes) = bytes else {
            return Err(wrong(format!(
                "expected data up to offset {end}, found the end of the file at {}",
                data.len()
            )));
        };
        at = end;
        // The product fits the file, so each size fits this machine.
        let dims: Vec<usize> = shape.iter().map(|&dim| dim as usize).collect();
        tensors.push(Tensor::new(name, dims, encoding, bytes));
    }
    if at != data.len() as u64 {
        return Err(Error::file(path, format!("expected {at} bytes of tensors, found {}", data.len())));
    }
    Ok(tensors)
}

/// The header without its metadata, as pairs: duplicates are still there to be refused.
struct Header(Vec<(String, Info)>);

#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// A few sizes.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let info = map
                        .next_value()
                        .map_err(|e| A::Error::custom(format!("tensor `{}`: {e}", quoted(&name))))?;
                    tensors.push((name, info));
                    if tensors.len() > TENSORS_LIMIT {
                        return Err(A::Error::custom(format!("more than {TENSORS_LIMIT} tensors")));
                    }
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a list of at most {DIMS_LIMIT} sizes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = seq.next_element()? {
                    sizes.push(size);
                    if sizes.len() > DIMS_LIMIT {
                        return Err(A::Error::invalid_length(sizes.len(), &self));
                    }
                }
                Ok(Shape(sizes))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}
