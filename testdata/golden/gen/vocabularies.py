"""Small vocabularies of our own, and the ids that other programs give with them:

    python vocabularies.py OUT/tokenizers        # needs xllamacpp, gguf, numpy, tokenizers, sentencepiece, tiktoken

`pre.json`: llama.cpp under every `tokenizer.ggml.pre` name of a byte-level vocabulary.
`spm_small.model`, `spm_small.json`: a SentencePiece model, and the ids of sentencepiece and of llama.cpp.
`tiktoken.json`: tiktoken with rank files of the sizes of Llama 3 and cl100k, whose ranks are the pieces of `pre.json` and filler.

The vocabulary is learned from the texts themselves, without cutting them first: nearly every place where a name cuts and another
does not shows in the ids. llama.cpp approximates some patterns (`\\s` and `\\d` of ASCII, words without marks, no upper and lower case);
where the ids of the `tokenizers` crate with the original pattern differ, they are kept beside llama.cpp's, by the number of the text.
"""
import io
import json
import os
import sys
import tempfile
import urllib.request

import gguf
import numpy as np
import sentencepiece
import tiktoken
import tokenizers
import xllamacpp

NAMES = """default llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano minicpm5 deepseek-llm deepseek-coder
deepseek-v3 spark2_5 youtu falcon mpt starcoder gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert
jais-2 jina-v1-en jina-v2-code roberta-bpe refact command-r qwen2 deepseek-r1-qwen kormo f2llmv2 qwen35 stablelm2 olmo dbrx smaug-bpe
poro-chat glm4 chatglm-bpe viking jais tekken smollm codeshell bloom gpt3-finnish exaone exaone4 exaone-moe chameleon minerva-7b megrez
gpt-4o llama4 kanana2 talkie granite-embed-multi-97m tiny_aya cohere2moe superbpe trillion granite-docling bailingmoe bailingmoe2
llada-moe seed-coder hunyuan hunyuan-dense hy_v4 joyai-llm kimi-k2 ufakzeka grok-2 afmoe laguna minimax-m2 solar-open mellum2
gemma4 granite-embed-multi-311m sarvam-moe whitespace""".split()

TEXTS = [
    "", " ", "  ", "\n", "\n\n", "\t\n \n", "a", " a", "Hello, world!", "The cat's toy isn't THEIRS; I'LL say we'Ve won, didn'T we?",
    "one  two   three    four\tfive \t six", "line one\nline two\r\nline three\n\n\nline six  \n  indented\n", "trailing spaces   ",
    "   leading spaces", "1 12 123 1234 12345 123456 1234567 0.5 3,141,592 2026-11-27 v1.2.3", "abc123def456 7th 8ths x86_64",
    "snake_case camelCase PascalCase HTTPServer ABCdef aB Ab ABC", "fn main() { println!(\"{}\", x[0] != 3); } // done",
    "a+b=c; $5 <tag/> ^2 ~x |y| `z` @me #tag 50% & more*", "https://example.org/path?q=1&r=two#frag", "C:\\dir\\file.txt \\n",
    "(round) [square] {curly} 'single' \"double\" ...", "wait... what?! no!!! -- yes--no", "don't can't I'm you're he'd she'll they've it's",
    "DON'T CAN'T I'M YOU'RE HE'D SHE'LL THEY'VE IT'S", "Straße Ünïcödé naïve façade Ärger", "Être ou ne pas être, l'été d'à côté",
    "Привет, мир! Как дела? 2 часа", "Γειά σου Κόσμε", "שלום עולם", "مرحبا بالعالم، كيف؟ نعم۔", "नमस्ते दुनिया, किताबें १२३", "สวัสดีชาวโลก ๑๒",
    "你好，世界！今天是2026年11月。", "こんにちは世界。カタカナもある", "안녕하세요 세계 한국어ㄱㄴ", "ㄅㄆㄇ 注音", "中文English混合123文本 汉字abc",
    "e\u0301 cafe\u0301 n\u0303 a\u0308b", "👋 hi 👩‍👩‍👧 🏳️‍🌈 ok 😀😀", "no\u00a0break\u2003em\u3000wide", "½ ² Ⅷ ① ٣ 𝟗", "ªº ǅ ʰ ᵃ ﬁ",
    "«quoted» “curly” ‘single’ — – … ·", "word\nWord", "a\n b", "a \nb", "a\t\tb", "x\r\ry", "; \n\n;", "!\n?", " !\n", "\n!", "a/b\n//c",
    "/**/\n\n", "one\u2028two\u0085three", "tab\tend\t", "  \n  x", "IMGIMGABCZ<sentinel:12>", "1\n2\n", "a1b2c3", "Ωmega €5 £10 ¥100 ©2026",
    "'s 't 're 've 'm 'll 'd 'S 'x", "''''", " 's", "the dog and the cat and the dog and the cat", "aaaaaaaaaaaaaaaa", "    if x:\n        return y\n",
    "mot-clé, mot clé; über-alles", "A.B.C. i.e. e.g.", "100% of $1,000.00", "१२३४ ५६७८९", "ก็ ที่ น้ำ", "İstanbul'da Ankara'nın", "한글 띄어쓰기 테스트",
    "x²+y²=z²", "🇩🇪🇫🇷", "\u200bzero\u200dwidth", "tel. +49 (0)30 1234567890 12", "end.", "日本語1234日本語",
]


# The patterns of these models' own tokenizer files.
ORIGINAL = {
    'gpt-4o': [
        "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    ],
    'tekken': [
        '[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
    ],
    'tiny_aya': [
        '\\d{1,3}(?=(?:\\d{3})*\\b)',
        "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    ],
    'youtu': [
        '[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+',
        "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    ],
    'kimi-k2': [
        "[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?[[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]&&[^\\p{Han}]]*[[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]&&[^\\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]&&[^\\p{Han}]]+[[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]&&[^\\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    ],
    'superbpe': [
        '\\p{N}+',
        '(?=(\\d{3})+(?!\\d))',
    ],
    'deepseek-llm': [
        '[\r\n]',
        '\\s?[A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+',
        '\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+',
        '\\s+$',
        '[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+',
        '\\p{N}+',
    ],
    'deepseek-coder': [
        '[\r\n]',
        '\\s?\\p{L}+',
        '\\s?\\p{P}+',
        '[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+',
        '\\p{N}',
    ],
}
WHOLE = {"tekken", "youtu"}  # a piece that is a token as a whole needs no merges


def alphabet():
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in own]
    return {**{b: chr(b) for b in own}, **{b: chr(256 + n) for n, b in enumerate(other)}}


def learn(texts, count):
    """Merges of the most frequent pairs, each text one word."""
    letters = alphabet()
    words = [[letters[b] for b in text.encode()] for text in texts]
    merges = []
    while len(merges) < count:
        pairs = {}
        for word in words:
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        known = {left + right for left, right in merges}
        pairs = {pair: n for pair, n in pairs.items() if pair[0] + pair[1] not in known and len(pair[0] + pair[1]) <= 24}
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], -len(pair[0] + pair[1]), pair))
        merges.append(best)
        for at, word in enumerate(words):
            out, i = [], 0
            while i < len(word):
                if i + 1 < len(word) and (word[i], word[i + 1]) == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            words[at] = out
    return merges


def write(path, tokens, vocabulary):
    """A GGUF with this vocabulary and weights of nothing, as llama.cpp wants them."""
    dim = 32
    out = gguf.GGUFWriter(path, "llama")
    out.add_block_count(1)
    out.add_context_length(64)
    out.add_embedding_length(dim)
    out.add_feed_forward_length(dim)
    out.add_head_count(1)
    out.add_head_count_kv(1)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(tokens))
    out.add_token_list(tokens)
    vocabulary(out)
    zeros = lambda *dims: np.zeros(dims, dtype=np.float32)
    out.add_tensor("token_embd.weight", zeros(len(tokens), dim))
    out.add_tensor("output_norm.weight", zeros(dim))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        out.add_tensor(f"blk.0.{name}.weight", zeros(dim, dim))
    for name in ("attn_norm", "ffn_norm"):
        out.add_tensor(f"blk.0.{name}.weight", zeros(dim))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def ids(server, text, special=False):
    body = json.dumps({"content": text, "add_special": special, "parse_special": False}).encode()
    request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["tokens"]


def original(name, tokens, merges):
    """Ids of the `tokenizers` crate."""
    model = tokenizers.models.BPE({t: i for i, t in enumerate(tokens)}, merges, ignore_merges=name in WHOLE)
    tokenizer = tokenizers.Tokenizer(model)
    steps = [tokenizers.pre_tokenizers.Split(tokenizers.Regex(p), "isolated") for p in ORIGINAL[name]]
    steps.append(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(steps)
    return [tokenizer.encode(text).ids for text in TEXTS]


def served(path, answer):
    """What `answer` makes of a llama.cpp server with this file, in a process of its own: an assertion ends it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_ctx = 64
        params.warmup = False
        params.cpuparams.n_threads = 1
        server = xllamacpp.Server(params)
        os.write(writer, json.dumps(answer(server)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    return json.loads(text) if os.waitpid(child, 0)[1] == 0 else None


def pre(folder, path, merges, tokens):
    groups = {}
    for name in NAMES:

        def vocabulary(out):
            out.add_tokenizer_model("gpt2")
            out.add_tokenizer_pre(name)
            out.add_token_types([3] + [1] * (len(tokens) - 1))
            out.add_token_merges([" ".join(merge) for merge in merges])
            out.add_bos_token_id(0)
            out.add_eos_token_id(0)

        write(path, tokens, vocabulary)
        found = served(path, lambda server: [ids(server, "a", True)[:1] == [0], [ids(server, text) for text in TEXTS]])
        if found is None:
            print("refused:", name)
            continue
        groups.setdefault(json.dumps(found), []).append(name)
    found = []
    for key, names in groups.items():
        bos, theirs = json.loads(key)
        found.append({"names": names, "bos": bos, "ids": theirs, "original": {}})
        for name in ORIGINAL.keys() & names:
            mine = original(name, tokens, merges)
            found[-1]["original"] = {at: mine[at] for at in range(len(TEXTS)) if mine[at] != theirs[at]}
            print(name, "differs from the original in", len(found[-1]["original"]), "texts")
    with open(folder + "/pre.json", "w") as out:
        out.write("{\n")
        out.write(f' "made with": {json.dumps("llama.cpp by xllamacpp " + xllamacpp.__version__)},\n')
        out.write(f' "merges": {json.dumps([" ".join(m) for m in merges], ensure_ascii=False)},\n')
        out.write(f' "texts": {json.dumps(TEXTS)},\n "groups": [\n')
        out.write(",\n".join("  " + json.dumps(group, separators=(",", ":")) for group in found))
        out.write("\n ]\n}\n")
    print(len(found), "groups of", sum(len(group["names"]) for group in found), "names,", len(tokens), "tokens")


def spm(folder, path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in TEXTS for line in text.split("\n") if line.strip()]), model_writer=model,
        model_type="bpe", vocab_size=700, byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity",
        remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2, num_threads=1,
    )
    with open(folder + "/spm_small.model", "wb") as out:
        out.write(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    count = pieces.get_piece_size()

    def vocabulary(out):
        kind = lambda i: 2 if pieces.is_unknown(i) else 3 if pieces.is_control(i) else 6 if pieces.is_byte(i) else 1
        out.add_tokenizer_model("llama")
        out.add_token_scores([pieces.get_score(i) for i in range(count)])
        out.add_token_types([kind(i) for i in range(count)])
        out.add_bos_token_id(1)
        out.add_eos_token_id(2)
        out.add_unk_token_id(0)

    write(path, [pieces.id_to_piece(i) for i in range(count)], vocabulary)
    theirs = served(path, lambda server: [ids(server, text) for text in TEXTS])
    mine = [pieces.encode(text) for text in TEXTS]
    differ = [at for at in range(len(TEXTS)) if mine[at] != theirs[at]]
    print("spm:", count, "pieces; llama.cpp differs from sentencepiece in", [TEXTS[at] for at in differ])
    with open(folder + "/spm_small.json", "w") as out:
        json.dump({"texts": TEXTS, "sentencepiece": mine, "llama.cpp": theirs}, out, separators=(",", ":"))


def ranks(folder, tokens):
    """Rank r is token r + 1 of `pre.json`, then `zz000000`, `zz000001`, ..."""
    letters = {letter: byte for byte, letter in alphabet().items()}
    known = [bytes(letters[letter] for letter in token) for token in tokens[1:]]
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    found = {}
    for name, count in (("llama3", 128_000), ("cl100k", 100_256)):
        pieces = known + [b"zz%06d" % n for n in range(count - len(known))]
        encoding = tiktoken.Encoding(
            name, pat_str=pattern, mergeable_ranks={piece: rank for rank, piece in enumerate(pieces)}, special_tokens={}
        )
        found[name] = [encoding.encode_ordinary(text) for text in TEXTS]
    assert found["llama3"] == found["cl100k"]
    with open(folder + "/tiktoken.json", "w") as out:
        json.dump({"made with": "tiktoken " + tiktoken.__version__, "ids": found["llama3"]}, out, separators=(",", ":"))


def main():
    folder = sys.argv[1]
    merges = learn(TEXTS, 1400)
    letters = alphabet()
    tokens = ["<|e|>", *(letters[b] for b in range(256)), *dict.fromkeys(left + right for left, right in merges)]
    with tempfile.TemporaryDirectory() as temporary:
        path = os.path.join(temporary, "vocab.gguf")
        pre(folder, path, merges, tokens)
        spm(folder, path)
    ranks(folder, tokens)


main()
