//! The tokenizer of a model on its way: whole as `tokenizer.huggingface.json`, and as the `tokenizer.ggml` arrays that
//! other programs read (`arrays`); out of such arrays alone, as a `tokenizer.json` (`json`).

mod arrays;
mod json;

use arrays::Vocabulary;
use serde_json::{Map, Value as Json, json};
use std::path::Path;
use tern::file::gguf::{Pairs, Value};
use tern::file::hf::{GENERATION, bytes_beside};
use tern::file::hf_write::pretty;
use tern::file::{File, Metadata};
use tern::tokenizer::{self, template_beside};
use tern::{Error, Result, Tokenizer};

/// The key that holds a whole `tokenizer.json`.
const WHOLE: &str = "tokenizer.huggingface.json";
const TEMPLATE: &str = "tokenizer.chat_template";
const FILE: &str = "tokenizer.json";
/// SentencePiece's own form, or tiktoken's.
const PIECES: &str = "tokenizer.model";

/// What a checkpoint directory keeps beside its weights that belongs to its text.
const COPIED: [&str; 9] = [
    FILE,
    "tokenizer_config.json",
    GENERATION,
    "special_tokens_map.json",
    "added_tokens.json",
    PIECES,
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// The JSON files of a checkpoint directory.
pub(crate) struct Hf<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) config: &'a Json,
    pub(crate) tokenizer_config: &'a Option<Json>,
    pub(crate) generation_config: &'a Option<Json>,
}

/// Names and bytes of small files.
pub type Files = Vec<(&'static str, Vec<u8>)>;

/// What belongs to a model's text beside its weights in a Hugging Face directory, and what the user should know.
pub(crate) fn files(file: &File) -> Result<(Files, Vec<String>)> {
    match &file.metadata {
        Metadata::Gguf(pairs) => from_gguf(pairs),
        Metadata::Hf { dir, .. } => {
            let (mut files, notes) = copied(dir)?;
            // Without its ids, transformers writes on behind the end of a text.
            if !files.iter().any(|(name, _)| *name == GENERATION)
                && let Ok(Some(tokenizer)) = Tokenizer::from_file(file)
            {
                files.push((GENERATION, generation_config(tokenizer.bos(), tokenizer.stops())));
            }
            Ok((files, notes))
        }
    }
}

/// `generation_config.json`: the token that begins a text, and those that end it, the usual one first.
pub fn generation_config(bos: Option<u32>, ends: &[u32]) -> Vec<u8> {
    pretty(&json!({ "bos_token_id": bos, "eos_token_id": ends })).into_bytes()
}

/// The text files of a directory.
fn copied(dir: &Path) -> Result<(Files, Vec<String>)> {
    let mut files = Files::new();
    for name in COPIED {
        if let Some(bytes) = bytes_beside(&dir.join(name))? {
            files.push((name, bytes));
        }
    }
    let notes = match files.iter().any(|(name, _)| [FILE, PIECES].contains(name)) {
        true => Vec::new(),
        false => vec!["the input has no tokenizer, so the output has none".into()],
    };
    Ok((files, notes))
}

/// The text files that a GGUF's keys amount to.
fn from_gguf(pairs: &Pairs) -> Result<(Files, Vec<String>)> {
    let none = |note: String| Ok((Files::new(), vec![note]));
    let tokenizer = match Tokenizer::from_keys(pairs) {
        Ok(Some(tokenizer)) => tokenizer,
        Ok(None) => return none("the input has no tokenizer, so the output has none".into()),
        Err(e) => {
            return none(format!("the output has no tokenizer, for the input's cannot be used: {e}"));
        }
    };
    let (bos, eos) = (tokenizer.bos(), pairs.u32("tokenizer.ggml.eos_token_id")?);
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    for (key, id) in [("bos_token", bos), ("eos_token", eos)] {
        if let Some(text) = id.and_then(|id| tokenizer.token_text(id)) {
            config.insert(key.into(), text.into());
        }
    }
    if let Some(template) = tokenizer::template_of(pairs)? {
        config.insert("chat_template".into(), template.into());
    }
    let json = match pairs.str(WHOLE)? {
        Some(whole) => whole.as_bytes().to_vec(),
        None => json::write(pairs, &tokenizer)?.into_bytes(),
    };
    let config = pretty(&Json::Object(config)).into_bytes();
    let files = vec![
        (GENERATION, generation_config(tokenizer.bos(), tokenizer.stops())),
        ("tokenizer_config.json", config),
        (FILE, json),
    ];
    Ok((files, Vec::new()))
}

/// Puts the tokenizer and the chat template of a directory into keys.
pub(crate) fn to_gguf(hf: &Hf, rows: usize, pairs: &mut Pairs) -> Result<Vec<String>> {
    if let Some(template) = template_beside(hf.dir, hf.tokenizer_config.as_ref().unwrap_or(&Json::Null))? {
        pairs.insert(TEMPLATE, Value::String(template));
    }
    if let Some(text) = bytes_beside(&hf.dir.join(FILE))? {
        let notes = match Vocabulary::of_json(&text, hf) {
            Some(vocabulary) => vocabulary.insert(hf, rows, pairs),
            None => Some("this kind of tokenizer has no GGUF form; only Tern will read the output's".into()),
        };
        pairs.insert(
            WHOLE,
            Value::String(
                String::from_utf8(text).map_err(|_| Error::file(&hf.dir.join(FILE), "expected UTF-8"))?,
            ),
        );
        return Ok(notes.into_iter().collect());
    }
    let path = hf.dir.join(PIECES);
    let Some(model) = bytes_beside(&path)? else {
        return Ok(vec!["the input has no tokenizer, so the output has none".into()]);
    };
    let more = tokenizer::added_beside(hf.dir)?;
    match tokenizer::pieces(&model) {
        Ok(model) => {
            Ok(Vocabulary::of_pieces(&model, &more, hf).insert(hf, rows, pairs).into_iter().collect())
        }
        Err(what) => Ok(vec![format!(
            "the output has no tokenizer, for the input's {PIECES} cannot be put into a GGUF: {what}"
        )]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use tern::file::gguf::Array;
    use tern::{Specials, Tokenizer};

    fn testdata(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden/tokenizers").join(name)
    }

    fn hf<'a>(dir: &'a Path, config: &'a Json, tokenizer_config: &'a Option<Json>) -> Hf<'a> {
        Hf { dir, config, tokenizer_config, generation_config: &None }
    }

    fn texts() -> Vec<String> {
        let cases = fs::read(testdata("bpe_llama3_tiny.cases.json")).unwrap();
        let cases: Vec<Json> = serde_json::from_slice(&cases).unwrap();
        assert!(cases.len() > 20);
        cases.iter().map(|case| case["text"].as_str().unwrap().to_owned()).collect()
    }

    fn same(a: &Tokenizer, b: &Tokenizer, texts: &[String], what: &str) {
        for text in texts {
            for specials in [Specials::Text, Specials::Parse] {
                let ids = a.encode(text, true, specials).unwrap();
                assert_eq!(b.encode(text, true, specials).unwrap(), ids, "{what}: {text:?}");
                assert_eq!(b.decode(&ids, true), a.decode(&ids, true), "{what}: {text:?}");
            }
        }
    }

    #[test]
    fn arrays_and_json_made_of_a_tokenizer_read_text_alike() {
        for name in ["bpe_llama3_tiny", "bpe_qwen2_tiny", "spm_bpe_tiny"] {
            let text = fs::read(testdata(&format!("{name}.json"))).unwrap();
            let original = Tokenizer::from_json(&text).unwrap();
            let config = Json::Null;
            let beside = Some(json!({ "bos_token": original.bos().and_then(|id| original.token_text(id)) }));
            let hf = hf(Path::new(""), &config, &beside);
            let mut pairs = Pairs::new(Path::new(name));
            let note = Vocabulary::of_json(&text, &hf).unwrap().insert(&hf, original.size(), &mut pairs);
            assert_eq!(note, None);
            let arrays = Tokenizer::from_keys(&pairs).unwrap().unwrap();
            same(&original, &arrays, &texts(), name);
            pairs.insert("tokenizer.ggml.eos_token_id", Value::U32(7));
            pairs.insert(TEMPLATE, Value::String("{{ messages[0].content }}".into()));
            let dir = tempfile::tempdir().unwrap();
            let (files, notes) = from_gguf(&pairs).unwrap();
            assert!(notes.is_empty(), "{notes:?}");
            for (name, bytes) in files {
                fs::write(dir.path().join(name), bytes).unwrap();
            }
            let again = Tokenizer::open(dir.path()).unwrap();
            same(&arrays, &again, &texts(), name);
            assert!(again.stops().contains(&7) && again.template().is_some(), "{:?}", again.stops());
        }
    }

    /// A byte-level vocabulary under a name of llama.cpp's: the arrays of `pre.json`.
    fn byte_level(pre: &str, file: &Json) -> Pairs {
        let merges: Vec<&str> = file["merges"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
        let own = |code: &u32| matches!(code, 33..=126 | 161..=172 | 174..=255);
        let mut tokens = vec!["<|e|>".to_owned()];
        tokens.extend(
            (0..512)
                .filter(|code| own(code) || (256..324).contains(code))
                .map(|code| char::from_u32(code).unwrap().to_string()),
        );
        for merge in &merges {
            let piece = merge.replace(' ', "");
            if !tokens.contains(&piece) {
                tokens.push(piece);
            }
        }
        let mut kinds = vec![1; tokens.len()];
        kinds[0] = 3;
        let mut pairs = Pairs::new(Path::new(pre));
        let mut put = |key: &str, value: Value| pairs.insert(&format!("tokenizer.ggml.{key}"), value);
        put("model", Value::String("gpt2".into()));
        put("pre", Value::String(pre.into()));
        put("tokens", Value::Array(Array::from_strings(tokens)));
        put("token_type", Value::Array(Array::from_i32s(&kinds)));
        put("merges", Value::Array(Array::from_strings(merges)));
        put("bos_token_id", Value::U32(0));
        pairs
    }

    #[test]
    fn arrays_of_every_name_become_json_that_reads_text_alike_and_back() {
        let file: Json = serde_json::from_slice(&fs::read(testdata("pre.json")).unwrap()).unwrap();
        let texts: Vec<String> =
            file["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
        for group in file["groups"].as_array().unwrap() {
            let name = group["names"][0].as_str().unwrap();
            let pairs = byte_level(name, &file);
            let Ok(Some(arrays)) = Tokenizer::from_keys(&pairs) else { continue };
            let json = json::write(&pairs, &arrays).unwrap();
            let read = Tokenizer::from_json(json.as_bytes()).unwrap();
            same(&arrays, &read, &texts, name);
            // And under a name again that cuts alike.
            let (config, beside) = (Json::Null, Some(json!({ "bos_token": "<|e|>" })));
            let hf = hf(Path::new(""), &config, &beside);
            let mut again = Pairs::new(Path::new(name));
            let note =
                Vocabulary::of_json(json.as_bytes(), &hf).unwrap().insert(&hf, read.size(), &mut again);
            assert_eq!(note, None, "{name}");
            same(&read, &Tokenizer::from_keys(&again).unwrap().unwrap(), &texts, name);
        }
    }

    #[test]
    fn sentencepiece_models_become_arrays_that_read_text_alike() {
        let path = testdata("spm_small.model");
        let dir = tempfile::tempdir().unwrap();
        fs::copy(&path, dir.path().join(PIECES)).unwrap();
        let original = Tokenizer::open(&path).unwrap();
        let (config, beside) = (json!({ "bos_token_id": 1, "eos_token_id": 2 }), None);
        let mut pairs = Pairs::new(&path);
        let notes = to_gguf(&hf(dir.path(), &config, &beside), original.size() + 2, &mut pairs).unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        let arrays = Tokenizer::from_keys(&pairs).unwrap().unwrap();
        assert_eq!((arrays.bos(), arrays.stops()), (Some(1), original.stops()));
        same(&original, &arrays, &texts(), "spm_small");
        // Arrays alone, and a tokenizer.json out of them.
        let json = json::write(&pairs, &arrays).unwrap();
        same(&arrays, &Tokenizer::from_json(json.as_bytes()).unwrap(), &texts(), "spm_small");
    }
}
