//! How a byte-level vocabulary cuts its text, by the name in `tokenizer.ggml.pre`: the names that llama.cpp knows, with
//! the patterns of the tokenizers they stand for. Where llama.cpp approximates a pattern, the original is taken, with
//! which the model was trained.

/// Cuts and their consequences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pre {
    /// Each pattern cuts what the one before left.
    pub patterns: &'static [&'static str],
    /// A piece that is in the vocabulary as a whole needs no merges (`ignore_merges`).
    pub whole: bool,
    /// Texts begin with BOS unless a key says not.
    pub bos: bool,
}

/// What a name stands for.
pub(super) fn of_name(name: &str) -> Option<Pre> {
    TABLE.iter().find(|(names, _)| names.contains(&name)).map(|(_, pre)| *pre)
}

/// Names of llama.cpp's whose vocabularies are no byte-level ones, although the files call them `gpt2`.
pub(super) const NOT_BYTES: [&str; 4] = ["gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace"];

/// The name under which other programs cut as these patterns do.
pub fn name_of(patterns: &[&str], whole: bool) -> Option<&'static str> {
    let fits = |pre: &Pre| pre.patterns == patterns;
    let entry = TABLE.iter().find(|(_, pre)| fits(pre) && pre.whole == whole);
    entry.or_else(|| TABLE.iter().find(|(_, pre)| fits(pre))).map(|(names, _)| names[0])
}

const fn cut(patterns: &'static [&'static str]) -> Pre {
    Pre { patterns, whole: false, bos: false }
}

const fn whole(patterns: &'static [&'static str], bos: bool) -> Pre {
    Pre { patterns, whole: true, bos }
}

#[rustfmt::skip]
const TABLE: &[(&[&str], Pre)] = &[
    (&["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon_e", "falcon-e", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
       "jina-v5-nano"], whole(&[LLAMA3], true)),
    (&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], cut(&[LLAMA3])),
    (&["qwen2", "stablelm2", "hunyuan", "solar-open", "grok-2", "megrez", "deepseek-r1-qwen", "kormo", "f2llmv2"],
     cut(&[QWEN2])),
    (&["gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "jina-es", "jina-de", "gigachat",
       "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code", "roberta-bpe", "a.x-4.0", "mellum", "modern-bert",
       "exaone4"], cut(&[GPT2])),
    (&["default"], cut(&[DEFAULT_MARKS, GPT2, r"\p{N}+", THREE_DIGITS])),
    (&["falcon"], cut(&[FALCON, GPT2, THREE_DIGITS])),
    (&["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
     cut(&[DIGIT, GPT2])),
    (&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], cut(&[O200K])),
    (&["granite-embed-multi-97m"], whole(&[O200K], false)),
    (&["tekken"], whole(&[TEKKEN], true)),
    (&["tiny_aya", "cohere2moe"], cut(&[r"\d{1,3}(?=(?:\d{3})*\b)", O200K])),
    (&["youtu"], whole(&[YOUTU_SCRIPTS, YOUTU], false)),
    (&["kimi-k2"], cut(&[KIMI_K2])),
    (&["deepseek-llm"],
     cut(&[LINE_END, DEEPSEEK_WORDS, DEEPSEEK_MARKS, r"\s+$", DEEPSEEK_SCRIPTS, r"\p{N}+"])),
    (&["deepseek-coder"], cut(&[LINE_END, r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_SCRIPTS, DIGIT])),
    (&["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"], cut(&[UP_TO_THREE, HAN_KANA, DEEPSEEK3])),
    (&["spark2_5"], cut(&[UP_TO_THREE, HAN_KANA, SPARK, DIGIT])),
    (&["qwen35"], cut(&[QWEN35])),
    (&["jais-2"], cut(&[JAIS2])),
    (&["bloom", "poro-chat", "gpt3-finnish"], cut(&[BLOOM])),
    (&["viking"], cut(&[BLOOM, DIGIT])),
    (&["chameleon"], Pre {
        patterns: &["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\t\n]|    |  )", DIGIT,
                    r"[\p{P}!-/:-@\[-`{-~]", GPT2],
        whole: false,
        bos: true,
    }),
    // Digits in threes from the right.
    (&["superbpe"], cut(&[r"\p{N}+", r"(?=(\d{3})+(?!\d))"])),
    (&["afmoe"], cut(&[r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", AFMOE_SCRIPTS, DEEPSEEK3])),
    (&["bailingmoe", "bailingmoe2", "llada-moe"], cut(&[BAILING])),
    (&["seed-coder"], cut(&[SEED])),
    (&["ufakzeka"], cut(&[UFAKZEKA])),
    (&["laguna"], cut(&[r"[^\n]+|[\n]+", QWEN2])),
    (&["exaone-moe"], cut(&[EXAONE_MOE])),
    (&["minicpm5"], whole(&[UP_TO_THREE, MINICPM5], false)),
];

/// GPT-2's.
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama-3's: contractions in any case, at most three digits, line ends kept with what is before them.
pub(crate) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen2's: Llama-3's with single digits.
pub(crate) const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with letters and their marks together.
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same without English contractions.
const UFAKZEKA: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Of GPT-4o, o200k: small letters end a word, so that `camelCase` is two.
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's: the same without contractions, single digits.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const YOUTU: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same for all but Chinese characters, which stand apart.
const KIMI_K2: &str = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]*[[\p{Ll}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]+[[\p{Ll}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const JAIS2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}";
const BAILING: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const SEED: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const EXAONE_MOE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+";
const MINICPM5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const SPARK: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"##;

/// Falcon's first cut, before GPT-2's and three-digit groups.
const FALCON: &str = r"[\p{P}\$\+<=>\^~\|`]+";
const DEFAULT_MARKS: &str = r"[\p{P}\$\+<=>\^~\|]+";
const THREE_DIGITS: &str = "[0-9][0-9][0-9]";
const UP_TO_THREE: &str = r"\p{N}{1,3}";
const DIGIT: &str = r"\p{N}";
const LINE_END: &str = "[\r\n]";
const BLOOM: &str = " ?[^(\\s|.,!?\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c})]+";
/// Chinese characters and both kana.
const HAN_KANA: &str = "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";
const DEEPSEEK_SCRIPTS: &str = "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
const DEEPSEEK_MARKS: &str =
    "\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+";
/// Letters that have a case.
#[rustfmt::skip]
const DEEPSEEK_WORDS: &str = "\\s?[A-Za-z\
    \u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}\
    \u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\
    \u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\
    \u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\
    \u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\
    \u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\
    \u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\
    \u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\
    \u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\
    \u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\
    \u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\
    \u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\
    \u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\
    \u{1e900}-\u{1e943}]+";
/// Korean; full-width marks; Bopomofo; Chinese and kana.
const YOUTU_SCRIPTS: &str = "[\u{ac00}-\u{d7a3}\u{3131}-\u{318e}]+|[\u{ff01}\u{2026}\u{201c}\u{201d}\u{2018}\u{2019}\u{2014}\u{ff1a}\u{ff1b}\u{ff0c}\u{3001}-\u{303f}\u{fe30}-\u{fe4f}]+|\
    [\u{3105}-\u{312f}]+|[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";
/// Scripts without spaces between words.
const AFMOE_SCRIPTS: &str = "[\u{4e00}-\u{9fff}\u{3400}-\u{4dbf}\u{f900}-\u{faff}\u{3040}-\u{309f}\u{30a0}-\u{30ff}\
    \u{ff65}-\u{ff9f}\u{2f00}-\u{2fdf}\u{e40}-\u{e7f}\u{e80}-\u{eff}\u{1780}-\u{17ff}\u{1000}-\u{109f}\
    \u{aa60}-\u{aa7f}\u{a9e0}-\u{a9ff}\u{ac00}-\u{d7af}\u{1100}-\u{11ff}]+";
