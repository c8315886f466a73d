//! One text in the making: its tokens and their keys and values.

use crate::config::Config;
use crate::error::{Error, Result};

/// Tokens that went through the model, and what attention keeps of them.
#[derive(Clone, Debug)]
pub struct Sequence {
    tokens: Vec<u32>,
    /// For each layer keys and values, `(positions, kv_dim)` each.
    layers: Vec<Cache>,
    kv_dim: usize,
    context: usize,
}

/// Keys (rotated) and values of one layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

/// Positions by which the caches grow.
const GROWTH: usize = 256;

impl Sequence {
    /// An empty sequence for at most `context` positions.
    pub fn new(config: &Config, context: usize) -> Self {
        let layers = (0..config.layers).map(|_| Cache::default()).collect();
        Self { tokens: Vec::new(), layers, kv_dim: config.kv_dim(), context }
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
        for cache in &mut self.layers {
            cache.keys.truncate(self.tokens.len() * self.kv_dim);
            cache.values.truncate(self.tokens.len() * self.kv_dim);
        }
    }

    /// Makes room for `count` more tokens in every cache; refuses past the context, and where memory runs out.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<()> {
        let needed = self.tokens.len() + count;
        if needed > self.context {
            let what = format!("{needed} tokens do not fit into a context of {}", self.context);
            return Err(Error::Input(what));
        }
        let room = needed.next_multiple_of(GROWTH).min(self.context) * self.kv_dim;
        for cache in &mut self.layers {
            for values in [&mut cache.keys, &mut cache.values] {
                let more = room.saturating_sub(values.len());
                if values.capacity() < needed * self.kv_dim && values.try_reserve_exact(more).is_err() {
                    return Err(Error::Input(format!("no memory for the cache of {needed} tokens")));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }

    pub(crate) fn cache(&mut self, layer: usize) -> &mut Cache {
        &mut self.layers[layer]
    }

    pub(crate) fn cached(&self, layer: usize) -> &Cache {
        &self.layers[layer]
    }

    /// Brings the caches back to the tokens: after a step that failed half way they may hold more.
    pub(crate) fn settle(&mut self) {
        self.truncate(self.tokens.len());
    }
}
