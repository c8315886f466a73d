//! Tern in the browser: what a page's workers call. The page and the package of `web/` stand above it; [`Session`] is the same for
//! any caller, the rest says it in JavaScript's types.

mod session;
mod settings;

pub use session::Session;
use tern_kernels::Buffer;
use wasm_bindgen::prelude::*;

fn told(error: tern::Error) -> JsError {
    JsError::new(&error.to_string())
}

/// Says what a panic says: without it, the page hears of an instruction that was not to be reached.
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| wasm_bindgen::throw_str(&panic.to_string())));
}

/// Memory for a model's file, filled in pieces as they come.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Upload(Buffer);

#[wasm_bindgen]
impl Upload {
    /// Takes so many bytes.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: f64) -> Result<Upload, JsError> {
        let what = || {
            JsError::new(&format!("{:.0} MB of memory for the model: the browser gives no more", bytes / 1e6))
        };
        // 4 GiB is what a page can have.
        let len = (0.0..4_294_967_296.0).contains(&bytes).then_some(bytes as usize).ok_or_else(what)?;
        Buffer::try_zeroed(len).map(Upload).ok_or_else(what)
    }

    /// Puts a piece where it belongs.
    pub fn write(&mut self, at: f64, piece: &[u8]) -> Result<(), JsError> {
        let at = at as usize;
        let place = at.checked_add(piece.len()).and_then(|end| self.0.get_mut(at..end));
        let what = || JsError::new("the model's file is longer than was said");
        place.ok_or_else(what).map(|place| place.copy_from_slice(piece))
    }
}

/// A model, and the text that it writes.
#[wasm_bindgen]
pub struct Engine(Session);

#[wasm_bindgen]
impl Engine {
    /// See [`Session::load`].
    #[wasm_bindgen(constructor)]
    pub fn new(name: &str, file: Upload, threads: usize, context: usize) -> Result<Engine, JsError> {
        Session::load(name, file.0.into(), threads, context).map(Engine).map_err(told)
    }

    /// JSON: see [`Session::facts`].
    pub fn facts(&self) -> String {
        self.0.facts().to_string()
    }

    /// See [`Session::encode`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, JsError> {
        self.0.encode(text).map_err(told)
    }

    /// See [`Session::encode_chat`].
    pub fn encode_chat(&self, messages: &str) -> Result<Vec<u32>, JsError> {
        self.0.encode_chat(messages).map_err(told)
    }

    /// See [`Session::decode`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, JsError> {
        self.0.decode(ids).map_err(told)
    }

    /// See [`Session::begin`].
    pub fn begin(&mut self, ids: Vec<u32>, settings: &str) -> Result<(), JsError> {
        self.0.begin(ids, settings).map_err(told)
    }

    /// JSON: see [`Session::step`].
    pub fn step(&mut self) -> Result<String, JsError> {
        self.0.step().map(|events| serde_json::Value::from(events).to_string()).map_err(told)
    }

    /// See [`Session::stop`].
    pub fn stop(&mut self) {
        self.0.stop();
    }
}

/// Makes a worker that shares this module's memory one of the engine's threads.
#[wasm_bindgen]
pub fn help() {
    tern_kernels::help();
}
