//! The model inside the binary: what runs when no file is named.

use std::path::Path;
use std::sync::Arc;

use tern_kernels::Bytes;

use crate::error::Result;
use crate::file::{self, File, OpenOptions};
use crate::model::{Model, Options};

/// The name by which the built-in model is asked for.
pub const STORY: &str = "story";

/// A GGUF, as `tern convert` wrote it. Any good model can take its place: what tests compare with is `testdata/models/page`.
static GGUF: &[u8] = include_bytes!("story.gguf");

/// Bytes of the built-in model's file.
pub fn story_bytes() -> u64 {
    GGUF.len() as u64
}

/// The built-in model's file.
pub fn story_file() -> Result<File> {
    let bytes = Bytes::new(Arc::new(GGUF), 0..GGUF.len()).expect("the range is the whole");
    file::from_bytes(Path::new(STORY), bytes, OpenOptions::default())
}

impl Model {
    /// The built-in model.
    pub fn story(options: &Options) -> Result<Model> {
        Self::from_file(&story_file()?, options)
    }
}
