//! One model and the one text that it writes, a step at a time: what a worker of the page calls.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tern::file::{self, OpenOptions};
use tern::{
    Batch, Bounds, Bytes, Decoder, Error, Finish, Job, Message, Model, Options, Output, Result, Sampling,
    Scored, Specials, Ticket, Tokenizer,
};

use crate::settings::Settings;

/// The longest context unless another is asked for: keys and values of more would fill a phone.
const CONTEXT: usize = 4096;

/// A model and what it is writing.
pub struct Session {
    /// For ever: a decoder borrows from it, and memory that WebAssembly has taken is never given back anyway. Another model is
    /// loaded into another worker, and this one ends with all that it holds.
    model: &'static Model,
    name: String,
    context: usize,
    batch: Batch,
    text: Option<Text>,
}

/// The text that is being written.
struct Text {
    ticket: Ticket,
    decoder: Option<Decoder<'static>>,
}

impl Session {
    /// Makes a model of a GGUF that is in memory. `name` stands for its path in messages. A `context` of 0 is the model's own, up
    /// to 4096 tokens.
    pub fn load(name: &str, bytes: Bytes, threads: usize, context: usize) -> Result<Self> {
        let file = file::from_bytes(Path::new(name), bytes, OpenOptions::default())?;
        let options = Options { threads: Some(threads), ..Options::default() };
        let model: &'static Model = Box::leak(Box::new(Model::from_file(&file, &options)?));
        model.writes()?;
        let most = model.config().context;
        let context = if context == 0 { most.min(CONTEXT) } else { context };
        // Those of the text, and one more so that its beginning is still there when the next text has it too.
        let pages = context.div_ceil(Batch::PAGE) + 1;
        let bounds = Bounds { parallel: 1, context, pages, pause: Duration::ZERO };
        Ok(Self { model, name: name.to_owned(), context, batch: Batch::new(model, bounds)?, text: None })
    }

    /// What the model is, and how it runs here.
    pub fn facts(&self) -> Value {
        let (model, config) = (self.model, self.model.config());
        let own = Sampling::default();
        let template = model.tokenizer().is_ok_and(|tokenizer| tokenizer.template().is_some());
        json!({
            "name": self.name,
            "context": self.context,
            "model_context": config.context,
            "vocabulary": config.vocab,
            "layers": config.layers,
            "chat": template,
            "cpu": model.cpu_name(),
            "threads": model.threads(),
            "load_seconds": model.load_time().as_secs_f64(),
            "warnings": model.warnings(),
            "sampling": {
                "temperature": own.temperature,
                "top_k": own.top_k,
                "top_p": own.top_p,
                "min_p": own.min_p,
                "repeat_penalty": own.repeat_penalty,
            },
        })
    }

    fn tokenizer(&self) -> Result<&'static Tokenizer> {
        self.model.tokenizer()
    }

    /// The ids of a text; what the model puts before every text comes first.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let tokenizer = self.tokenizer()?;
        tokenizer.encode(text, tokenizer.adds_bos(), Specials::Text)
    }

    /// The ids of a conversation in the model's own format: a JSON list of objects with `role` and `content`.
    pub fn encode_chat(&self, messages: &str) -> Result<Vec<u32>> {
        let list: Vec<Value> = serde_json::from_str(messages)
            .map_err(|error| Error::Input(format!("messages: expected a JSON list, found {error}")))?;
        let field = |message: &Value, name: &str| {
            let what = || Error::Input(format!("messages: expected `{name}` with a text in each"));
            message[name].as_str().map(str::to_owned).ok_or_else(what)
        };
        let message =
            |message| Ok(Message { role: field(message, "role")?, content: field(message, "content")? });
        let messages = list.iter().map(message).collect::<Result<Vec<_>>>()?;
        self.tokenizer()?.encode_chat(&messages, false)
    }

    /// The text of these ids, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        Ok(self.tokenizer()?.decode(ids, false))
    }

    /// Begins a text that goes on after these ids; one that is being written ends. `settings` is a JSON object.
    pub fn begin(&mut self, ids: Vec<u32>, settings: &str) -> Result<()> {
        self.stop();
        let settings = Settings::read(settings)?;
        let decoder = self.tokenizer().ok().map(|tokenizer| tokenizer.decoder_after(&ids));
        let mut job = Job::new(ids, settings.sampling()?, settings.most());
        job.logprobs = settings.logprobs();
        job.ignore_stops = settings.ignore_eos;
        let ticket = self.batch.add(self.model, job)?;
        self.text = Some(Text { ticket, decoder });
        Ok(())
    }

    /// Ends the text that is being written, if one is.
    pub fn stop(&mut self) {
        if let Some(text) = self.text.take() {
            self.batch.cancel(text.ticket);
        }
    }

    /// Goes on by a piece of the prompt or by a token; a list of what happened, which ends with `done` when the text has ended.
    pub fn step(&mut self) -> Result<Vec<Value>> {
        if self.text.is_none() {
            return Err(Error::Input("no text was begun".to_owned()));
        }
        let outputs = self.batch.step(self.model, |_| true);
        outputs.into_iter().filter_map(|(_, output)| self.told(output).transpose()).collect()
    }

    fn told(&mut self, output: Output) -> Result<Option<Value>> {
        Ok(Some(match output {
            // The page has no use for it.
            Output::Drafted(_) => return Ok(None),
            Output::Reading { cached, read } => json!({"reading": {"cached": cached, "read": read}}),
            Output::Read { cached, .. } => json!({"read": {"cached": cached}}),
            Output::Token(scored) => {
                let decoder = self.text.as_mut().and_then(|text| text.decoder.as_mut());
                let text = decoder.and_then(|decoder| decoder.push(scored.id)).unwrap_or_default();
                let mut token = self.scored(&scored);
                token["text"] = text.into();
                json!({"token": token})
            }
            Output::Done(finish) => {
                let decoder = self.text.take().and_then(|text| text.decoder);
                let rest = decoder.map_or(String::new(), Decoder::finish);
                match finish {
                    Finish::Stop(scored) => {
                        json!({"done": {"reason": "stop", "text": rest, "token": self.scored(&scored)}})
                    }
                    Finish::Complete => json!({"done": {"reason": "stop", "text": rest}}),
                    Finish::Length => json!({"done": {"reason": "length", "text": rest}}),
                    Finish::Astray(what) | Finish::Failed(what) => return Err(Error::Input(what)),
                }
            }
        }))
    }

    /// A token, and where that was asked for the likeliest at its place.
    fn scored(&self, scored: &Scored) -> Value {
        let mut token = json!({"id": scored.id});
        if let Some(logprob) = scored.logprob {
            token["logprob"] = logprob.into();
            token["piece"] = self.piece(scored.id);
            token["top"] = scored
                .top
                .iter()
                .map(|&(id, logprob)| json!({"id": id, "logprob": logprob, "piece": self.piece(id)}))
                .collect();
        }
        token
    }

    fn piece(&self, id: u32) -> Value {
        self.tokenizer().ok().and_then(|tokenizer| tokenizer.token_text(id)).into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tern::Generation;

    use super::*;

    const PAGE: &[u8] = include_bytes!("../../testdata/models/page/page.gguf");

    fn session() -> Session {
        let bytes = Bytes::new(Arc::new(PAGE), 0..PAGE.len()).unwrap();
        Session::load("page.gguf", bytes, 2, 0).unwrap()
    }

    /// All ids and the text up to the end, and how it ended.
    fn write(session: &mut Session) -> (Vec<u32>, String, String) {
        let (mut ids, mut text) = (Vec::new(), String::new());
        loop {
            for event in session.step().unwrap() {
                if let Some(token) = event.get("token") {
                    ids.push(token["id"].as_u64().unwrap() as u32);
                    text += token["text"].as_str().unwrap();
                } else if let Some(done) = event.get("done") {
                    text += done["text"].as_str().unwrap();
                    return (ids, text, done["reason"].as_str().unwrap().to_owned());
                }
            }
        }
    }

    #[test]
    fn a_text_is_what_the_library_writes() {
        let mut session = session();
        for (settings, sampling) in [
            (r#"{"temperature": 0, "max_tokens": 40}"#, Sampling::greedy()),
            (r#"{"seed": 7, "max_tokens": 40}"#, Sampling { seed: 7, ..Sampling::default() }),
        ] {
            for prompt in ["Hello!", "Tell me a story."] {
                let messages = json!([{"role": "user", "content": prompt}]).to_string();
                let ids = session.encode_chat(&messages).unwrap();
                session.begin(ids.clone(), settings).unwrap();
                let (said, text, reason) = write(&mut session);
                let mut generation =
                    Generation::new(session.model, session.context, sampling.clone()).unwrap();
                generation.prompt(&ids).unwrap();
                let mut expected = Vec::new();
                while expected.len() < 40
                    && let Some(token) = generation.next().unwrap()
                {
                    expected.push(token.id);
                }
                assert_eq!(said, expected);
                assert_eq!(text, session.decode(&said).unwrap());
                assert_eq!(reason, if generation.stopped().is_some() { "stop" } else { "length" });
            }
        }
    }

    #[test]
    fn a_text_that_was_stopped_leaves_room_for_the_next() {
        let mut session = session();
        let ids = session.encode("Once upon a time").unwrap();
        for _ in 0..20 {
            session.begin(ids.clone(), r#"{"max_tokens": 400, "ignore_eos": true}"#).unwrap();
            for _ in 0..3 {
                session.step().unwrap();
            }
            session.stop();
            assert!(session.step().is_err());
        }
        session.begin(ids, r#"{"max_tokens": 2, "logprobs": true, "top_logprobs": 3}"#).unwrap();
        let events = [session.step().unwrap(), session.step().unwrap()].concat();
        let token = events.iter().find_map(|event| event.get("token")).unwrap();
        assert_eq!(token["top"].as_array().unwrap().len(), 3);
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
    }

    #[test]
    fn what_cannot_be_is_an_error_of_one_line() {
        let mut session = session();
        let ids = session.encode("a").unwrap();
        for (settings, expected) in [
            (r#"{"temprature": 1}"#, "temprature"),
            (r#"{"temperature": -1}"#, "temperature -1: expected 0 to 100"),
            (r#"{"max_tokens": -1}"#, "settings"),
            ("", "settings"),
        ] {
            let error = session.begin(ids.clone(), settings).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
        assert!(session.begin(vec![u32::MAX], "{}").is_err());
        assert!(session.begin(vec![], "{}").is_err());
        assert!(session.encode_chat(r#"[{"role": "user"}]"#).unwrap_err().to_string().contains("`content`"));
        let bytes = Bytes::new(Arc::new(&PAGE[..1000]), 0..1000).unwrap();
        let error = Session::load("cut.gguf", bytes, 1, 0).err().unwrap().to_string();
        assert!(error.starts_with("cut.gguf"), "{error}");
    }
}
