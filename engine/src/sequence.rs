//! A sequence: its tokens and their KV cache.

use std::sync::Arc;

use tern_kernels::{Cache, Chunk, ChunkCount};

use crate::adapter::Adapter;
use crate::error::{Error, Result};
use crate::model::Model;

/// The tokens that went through the model and their KV cache. A clone shares the cache; it is copied on write.
#[derive(Clone, Debug)]
pub struct Sequence {
    tokens: Vec<u32>,
    /// Keys and values of every layer. It may hold more positions than there are tokens: what is past the last token is
    /// written anew before it is read.
    cache: Cache,
    context: usize,
    adapter: Option<Arc<Adapter>>,
}

impl Sequence {
    /// An empty sequence of this model, for at most `context` positions.
    pub fn new(model: &Model, context: usize) -> Self {
        let config = model.config();
        let cache = Cache::new(model.kv(), config.layers, config.kv_heads, config.head_dim);
        Self { tokens: Vec::new(), cache, context, adapter: None }
    }

    /// Lets an adapter take part in all its tokens from now on: before the first, or its keys and values are of two models.
    pub fn with_adapter(mut self, adapter: Option<Arc<Adapter>>) -> Self {
        self.adapter = adapter;
        self
    }

    /// The adapter that takes part, if there is one.
    pub fn adapter(&self) -> Option<&Arc<Adapter>> {
        self.adapter.as_ref()
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Most positions it may have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Forgets all after the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
    }

    /// Reserves cache for `count` more tokens. An error past the context, where memory runs out, and for a model whose
    /// KV cache has another format.
    pub(crate) fn reserve(&mut self, model: &Model, count: usize) -> Result<()> {
        let needed = self.tokens.len() + count;
        if needed > self.context {
            let what = format!("{needed} tokens do not fit into a context of {}", self.context);
            return Err(Error::Input(what));
        }
        let config = model.config();
        if !self.cache.fits(model.kv(), config.layers, config.kv_heads, config.head_dim) {
            return Err(Error::Input("a sequence was begun with another model".to_owned()));
        }
        if let Some(adapter) = self.adapter.as_ref().filter(|adapter| !adapter.fits(config)) {
            let path = adapter.path().display();
            return Err(Error::Input(format!("{path}: the adapter was read for another model")));
        }
        let full = |_| Error::Input(format!("no memory for the cache of {needed} tokens"));
        self.cache.reserve(self.tokens.len(), needed).map_err(full)
    }

    /// Adds its chunks to this count.
    pub(crate) fn counted(mut self, count: &ChunkCount) -> Self {
        self.cache = self.cache.counted(count);
        self
    }

    /// How many chunks `count` more tokens would make.
    pub(crate) fn missing(&self, count: usize) -> usize {
        self.cache.missing(self.tokens.len(), self.tokens.len() + count)
    }

    /// Its memory in chunks of [`Cache::CHUNK`] positions, as far as there are tokens.
    pub(crate) fn chunks(&self) -> &[Chunk] {
        &self.cache.chunks()[..self.tokens.len().div_ceil(Cache::CHUNK)]
    }

    /// Begins anew with these tokens and the chunks that another sequence of the same model filled with them.
    pub(crate) fn adopt(&mut self, tokens: &[u32], chunks: Vec<Chunk>) {
        assert_eq!(chunks.len(), tokens.len().div_ceil(Cache::CHUNK), "chunks of {} tokens", tokens.len());
        self.tokens.clear();
        self.tokens.extend_from_slice(tokens);
        self.cache.adopt(chunks);
    }

    /// Forgets everything and gives its memory back.
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.cache.shrink(0);
    }

    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }
}

impl AsRef<Cache> for Sequence {
    fn as_ref(&self) -> &Cache {
        &self.cache
    }
}

impl AsMut<Cache> for Sequence {
    fn as_mut(&mut self) -> &mut Cache {
        &mut self.cache
    }
}
