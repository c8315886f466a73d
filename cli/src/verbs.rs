//! Words and flags that people bring from ollama and llama.cpp, and what does the same here.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::Failure;
use crate::model;

/// A command of another program, what is to be said about it, and the command that does its work.
const VERBS: &[(&[&str], &str, &str)] = &[
    (
        &["download", "get", "fetch", "hf"],
        "it has another name here",
        "`tern pull NAME` downloads a model; `tern list --known` prints short names",
    ),
    (
        &["push", "publish", "login", "signin", "signout"],
        "Tern sends nothing to a model hub",
        "`tern convert MODEL DIR --to hf` writes a directory that `hf upload` can send",
    ),
    (
        &["models"],
        "it has another name here",
        "`tern list` prints the models on this machine, `tern list --known` those that have a short name",
    ),
    (
        &["info", "gguf", "gguf-dump", "llama-gguf"],
        "it has another name here",
        "`tern inspect MODEL` shows what is in a model",
    ),
    (
        &["ps", "stop", "kill", "status"],
        "no model stays in memory after its command",
        "a running `tern serve` tells what it does at http://127.0.0.1:8080/metrics, and Ctrl-C stops it",
    ),
    (&["remove", "delete"], "it has another name here", "`tern rm NAME` removes a downloaded model"),
    (&["cp", "copy", "mv", "rename"], "a model is a file or a directory", "`cp` and `mv` work on it"),
    (
        &["create", "import"],
        "a model is a file or a directory, and its settings are flags",
        "`tern chat MODEL --system TEXT --temp T` says how it behaves",
    ),
    (
        &["quantize", "llama-quantize", "convert_hf_to_gguf.py", "convert-hf-to-gguf"],
        "it has another name here",
        "`tern convert IN OUT.gguf` writes a model in another format",
    ),
    (
        &[
            "generate",
            "ask",
            "complete",
            "completion",
            "prompt",
            "simple",
            "main",
            "llama",
            "cli",
            "llama-cli",
            "llama-run",
            "llama-simple",
        ],
        "it has another name here",
        "`tern run MODEL \"PROMPT\"` answers or continues a text, `tern chat MODEL` holds a conversation",
    ),
    (&["talk", "repl", "interactive"], "it has another name here", "`tern chat MODEL` holds a conversation"),
    (
        &["embedding", "embeddings", "llama-embedding"],
        "it has another name here",
        "`tern embed MODEL \"TEXT\"` makes vectors with an embedding model",
    ),
    (
        &["perplexity", "ppl", "llama-perplexity"],
        "it has another name here",
        "`tern eval ppl MODEL FILE` measures it",
    ),
    (
        &["server", "llama-server", "start", "api"],
        "it has another name here",
        "`tern serve MODEL` answers OpenAI's, Anthropic's and Ollama's clients, and has a page to chat on",
    ),
    (&["llama-bench", "benchmark", "speed"], "it has another name here", "`tern bench MODEL` measures speed"),
    (
        &["llama-tokenize", "tokenise", "encode"],
        "it has another name here",
        "`tern tokenize MODEL \"TEXT\"` prints token ids",
    ),
    (
        &["finetune", "fine-tune", "llama-finetune"],
        "it has another name here",
        "`tern train CONFIG --from MASTERS` trains a model further",
    ),
    (&["version"], "it has another name here", "`tern --version` prints it"),
    (
        &["update", "upgrade", "self-update"],
        "Tern does not update itself",
        "in its clone: `git pull` and `cargo install --locked --path cli`",
    ),
];

/// Flags of other programs, and how the same is said here.
const FLAGS: &[(&[&str], &str)] = &[
    (&["-m", "--model"], "the model is the first word after the command: `tern run model.gguf \"PROMPT\"`"),
    (&["-p", "--prompt"], "the prompt is the word after the model: `tern run model.gguf \"PROMPT\"`"),
    (&["-f", "--file"], "a prompt can come from a file: `tern run model.gguf < prompt.txt`"),
    (&["--predict", "--n-predict", "--max-tokens"], "`-n N` writes at most N tokens"),
    (&["--ctx", "--num-ctx", "--n-ctx", "--max-model-len"], "`-c N` gives room for N tokens"),
    (&["--temperature"], "`--temp T` sets the temperature"),
    (&["--top_p", "--top_k", "--min_p"], "words are joined by `-`: `--top-p`, `--top-k`, `--min-p`"),
    (
        &["-ngl", "--n-gpu-layers", "--gpu-layers", "--device"],
        "Tern computes on the CPU, and leaves nothing to a GPU",
    ),
    (&["-i", "-cnv", "--interactive", "--conversation"], "`tern chat MODEL` holds a conversation"),
    (&["-sys", "--system-prompt", "-st"], "`--system TEXT` tells the model how to behave"),
    (&["-np"], "`--parallel N` lets N answers be written at the same time"),
    (
        &["-ctk", "-ctv", "--cache-type-k", "--cache-type-v"],
        "`--kv int8` keeps keys and values in 8 bits, `--kv q8:q4` keys in 8 and values in 4",
    ),
    (&["-s"], "`--seed N` sets the seed"),
];

/// What to say about a command line that clap does not take, where it is one of another program.
pub(crate) fn foreign(error: &clap::Error) -> Option<Failure> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = word(ContextKind::InvalidSubcommand)?;
            let named = VERBS.iter().find(|(words, ..)| words.contains(&word));
            if let Some((_, why, way)) = named {
                return Some(Failure::misused(format!("there is no `tern {word}`: {why}")).hint(*way));
            }
            model::is_model(word).then(|| {
                Failure::misused(format!("there is no `tern {word}`")).hint(format!(
                    "`tern run {word} \"PROMPT\"` runs this model, `tern chat {word}` talks with it"
                ))
            })
        }
        ErrorKind::UnknownArgument | ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let unknown = word(ContextKind::InvalidArg).unwrap_or_default();
            let unknown = unknown.split(['=', ' ']).next().unwrap_or_default();
            // clap reads `-ngl` as letters that each are a flag, or as the value `gl` of `-n`.
            let letters = |typed: &str| typed.len() > 2 && !typed.starts_with("--");
            let unknown = |typed: &str| error.kind() == ErrorKind::UnknownArgument && typed == unknown;
            let typed = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
            let typed: Vec<String> = typed.take_while(|word| word != "--").collect();
            typed.iter().find_map(|typed| {
                let typed = typed.split('=').next().unwrap_or(typed);
                let (_, way) = FLAGS.iter().find(|(flags, _)| flags.contains(&typed))?;
                (unknown(typed) || letters(typed))
                    .then(|| Failure::misused(format!("there is no `{typed}` here")).hint(*way))
            })
        }
        _ => None,
    }
}
