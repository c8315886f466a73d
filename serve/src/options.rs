//! The settings of a server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tern::{Drafts, Dry, Pooling, Sampling};

use crate::library::Library;
use crate::log::Log;
use crate::served::Load;
use crate::system;
use tern::date::now;

/// What a server is to do.
#[derive(Clone)]
pub struct Options {
    /// Sequences that run at the same time.
    pub parallel: usize,
    /// Requests that may wait beside those that run.
    pub queue: usize,
    /// Tokens of a sequence; the model's own context, or what the memory holds, if `None`.
    pub context: Option<usize>,
    /// How an embedding model's hidden states become one vector; as its file says if `None`.
    pub pooling: Option<Pooling>,
    /// Bytes for keys and values; what suits the model and the machine if `None`.
    pub kv_memory: Option<u64>,
    /// Bytes for all loaded models together, their keys and values included; most of what is free if `None`. Where there
    /// is but one model it has no part in it.
    pub model_memory: Option<u64>,
    /// How long a model of several stays loaded after its last request; for good if `None`.
    pub keep_alive: Option<Duration>,
    /// Bytes for all requests together: bodies, what they are read into, answers that wait.
    pub request_memory: usize,
    /// Whether tokens are guessed ahead.
    pub drafts: Drafts,
    /// A smaller model that guesses for the only model of the server: its name and how it is loaded.
    pub draft: Option<(String, Load)>,
    /// Adapters of the only model of the server: their names, their folders, and what their products are multiplied by beside
    /// their own scale. Clients ask for them by the model's name with theirs, `model:name`.
    pub adapters: Vec<(String, PathBuf, f32)>,
    /// The settings of requests that do not say.
    pub sampling: Sampling,
    /// The seed of requests that do not say; a new one for each if `None`.
    pub seed: Option<u64>,
    /// Texts across which no repeated sequence goes, see [`tern::Dry`]; the tokens in `sampling` are found by them.
    pub breakers: Vec<String>,
    /// From where clients may add models, and where they may delete them; they may not without it.
    pub library: Option<Arc<dyn Library>>,
    /// Keys of which every request must bring one; anybody may come if there are none.
    pub keys: Vec<String>,
    /// Whether prompts are remembered for each key apart.
    pub isolate: bool,
    /// Whether people get a page to chat on.
    pub page: bool,
    /// Origins whose pages may use the server; `*` for all.
    pub cors: Vec<String>,
    /// Names that the server goes by, beside addresses and those that only a private network has; `*` for all. Where
    /// there are keys and no names here, any name will do.
    pub hosts: Vec<String>,
    /// Whether `/metrics` is told without a key.
    pub metrics_open: bool,
    /// How long one request may take.
    pub request_time: Duration,
    /// How long running requests may go on when the server is told to end.
    pub grace: Duration,
    /// How long a step may take for prompts while others wait for their next token.
    pub pause: Duration,
    /// How a process is started that does nothing but call [`crate::try_grammars`]. Grammars and schemas are compiled there
    /// first, because compiling has no bounds of time, memory and stack by itself; without it they are only counted.
    pub try_grammars: Option<crate::Start>,
    /// Serve TLS with this certificate.
    pub tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
    /// Gets a JSON object at the end of each request, and for what else happens.
    pub log: Log,
    /// When it was started, in seconds since 1970.
    pub started: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parallel: 16,
            queue: 128,
            context: None,
            pooling: None,
            kv_memory: None,
            model_memory: None,
            keep_alive: Some(Duration::from_secs(300)),
            request_memory: system::for_requests(),
            drafts: Drafts::default(),
            draft: None,
            adapters: Vec::new(),
            sampling: Sampling::default(),
            seed: None,
            breakers: Dry::BREAKERS.map(str::to_owned).to_vec(),
            library: None,
            keys: Vec::new(),
            isolate: false,
            page: true,
            cors: Vec::new(),
            hosts: Vec::new(),
            metrics_open: false,
            request_time: Duration::from_secs(1800),
            grace: Duration::from_secs(30),
            pause: Duration::from_millis(200),
            try_grammars: None,
            tls: None,
            log: Log::default(),
            started: now(),
        }
    }
}
