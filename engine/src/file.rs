//! Model files as they lie on disk: a list of tensors and the metadata beside them. What the bytes of a tensor mean is
//! [`codec`](crate::codec)'s; what the metadata says about a model is the families'.
//!
//! Everything here is hostile input: each length, count and offset is checked against the file before it is used.

use crate::tensor::{Affine, Tensor};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tern_kernels::Bytes;

pub mod gguf;
pub mod gguf_write;
pub mod hf;
pub mod hf_write;
pub(crate) mod map;
mod safetensors;
pub mod write;

pub use map::end_in_words;
pub use write::Whole;

/// Which container a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// GGUF, version 2 or 3.
    Gguf {
        /// As in the header.
        version: u32,
    },
    /// One or more safetensors files.
    Safetensors {
        /// How many.
        shards: usize,
    },
}

/// What a file says about its model.
#[derive(Clone, Debug)]
pub enum Metadata {
    /// The key-value pairs of a GGUF header.
    Gguf(gguf::Pairs),
    /// The JSON files beside a safetensors checkpoint.
    Hf {
        /// Where they are.
        dir: PathBuf,
        /// `config.json`; null when there is none.
        config: Value,
        /// `tokenizer_config.json`.
        tokenizer_config: Option<Value>,
        /// `generation_config.json`.
        generation_config: Option<Value>,
    },
}

/// An opened model file; its tensors stay on disk, mapped, until they are read.
#[derive(Clone, Debug)]
pub struct File {
    /// What was opened, for messages.
    pub path: PathBuf,
    /// The container.
    pub format: Format,
    /// What the file says about its model.
    pub metadata: Metadata,
    tensors: Vec<Tensor>,
    /// Where each name is in `tensors`.
    places: HashMap<String, usize>,
}

impl File {
    /// Its parts put together; names are unique.
    fn new(path: &Path, format: Format, metadata: Metadata, tensors: Vec<Tensor>) -> Self {
        let places = tensors.iter().enumerate().map(|(at, tensor)| (tensor.name.clone(), at)).collect();
        Self { path: path.to_owned(), format, metadata, tensors, places }
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.places.get(name).map(|&at| &self.tensors[at])
    }

    /// Where the keys of the metadata stand, for messages: in the file itself, or in the `config.json` beside it.
    pub fn keys_path(&self) -> PathBuf {
        match &self.metadata {
            Metadata::Gguf(_) => self.path.clone(),
            Metadata::Hf { dir, .. } => dir.join("config.json"),
        }
    }

    /// Reads what is mapped into memory of our own.
    fn copy(&mut self) -> Result<()> {
        for tensor in &mut self.tensors {
            tensor.copy(&self.path)?;
            if let Some(affine) = &mut tensor.affine {
                affine.scales.copy(&self.path)?;
                affine.biases.copy(&self.path)?;
            }
        }
        Ok(())
    }

    /// An error about one tensor of this file.
    pub fn error(&self, tensor: &str, what: impl Into<String>) -> Error {
        Error::tensor(&self.path, tensor, what)
    }
}

/// What the user must say because no file does.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// I2_S tensors hold blocks of 64 weights, as written by bitnet.cpp's quantize tool on ARM, instead of 128.
    pub i2s_arm: bool,
    /// Read the tensors into memory at once instead of mapping them, so that the file may change afterwards.
    pub copy: bool,
}

/// Opens a `.gguf`, a `.safetensors`, a directory with a `config.json`, or a `model.safetensors.index.json`.
pub fn open(path: &Path, options: OpenOptions) -> Result<File> {
    let mut file = open_mapped(path, options)?;
    if options.copy {
        file.copy()?;
    }
    Ok(file)
}

fn open_mapped(path: &Path, options: OpenOptions) -> Result<File> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if meta.is_dir() {
        return hf::open_dir(path);
    }
    if path.extension().is_some_and(|ext| ext == "json") {
        return hf::open_index(path);
    }
    let bytes = map::map(path)?;
    if bytes.starts_with(gguf::MAGIC) {
        return gguf::read(path, bytes, options);
    }
    if path.extension().is_some_and(|ext| ext == "safetensors") {
        return hf::open_file(path, bytes);
    }
    let start: String = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Err(Error::file(
        path,
        format!("expected a GGUF or .safetensors file, found a file that begins with bytes {start}"),
    ))
}

/// Reads a GGUF that is in memory already; `name` stands for the path in messages.
pub fn from_bytes(name: &Path, bytes: Bytes, options: OpenOptions) -> Result<File> {
    gguf::read(name, bytes, options)
}
