//! Tern's own keys: all that a GGUF's metadata or a `config.json` may hold under `tern.` (docs/formats.md).

/// What `tern run` does with a prompt unless told: `raw` or `chat`.
pub const PROMPT: &str = "tern.prompt";
/// How the inputs of projections are rounded, by [`Scheme::name`](crate::Scheme::name); int8 where it is missing.
pub const ACTIVATIONS: &str = "tern.activations";
/// True where the weights are random: such a model is for measuring speed only.
pub const DUMMY: &str = "tern.dummy";
/// True where `output.weight` is the embedding once more, as the engine uses it: the model has no head of its own.
pub const READY_HEAD: &str = "tern.head.ready";
/// Names of the tensors whose exact scales [`SCALE_VALUES`] holds, in a GGUF whose blocks hold rounded ones.
pub const SCALE_NAMES: &str = "tern.scale.names";
/// One f32 for each of [`SCALE_NAMES`].
pub const SCALE_VALUES: &str = "tern.scale.values";
