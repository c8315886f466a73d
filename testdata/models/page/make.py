"""Make `page`, a model for tests: a small BitNet b1.58 that knows one page by heart.

    pip install jax numpy ml_dtypes tokenizers safetensors
    python make.py OUT            # writes a Hugging Face directory to OUT and answers.json beside this file

The graph is that of BitNet b1.58 2B4T (ReLU^2, sub-norms, tied embedding, grouped query attention, half-split
RoPE), trained with both quantisers on (straight-through), on the masters as they will be stored (bf16). What it
learns: `page.txt`, a handful of chat exchanges, and to come back to its page from anywhere.
After training, a plain numpy forward with integer products checks every answer before anything is written.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
PAGE = (HERE / "page.txt").read_text().strip()

SIZES = dict(vocab=736, hidden=256, ffn=512, layers=3, heads=4, kv_heads=2, head_dim=64)
CONTEXT, EPS, THETA = 512, 1e-5, 10000.0
STEPS, PEAK_RATE, SEED = 500, 3e-3, 7

CHAT = [
    ("Who are you?", "I am story, a tiny placeholder model. I know one story by heart, and nothing else."),
    ("What can you do?", "I can tell you the one story I know. Say: Tell me a story."),
    ("Tell me a story.", PAGE),
    ("What is Tern?", "Tern is the engine I run on: language models made of minus one, zero and one, on ordinary "
     "computers. A tern is also a small white bird that flies from one end of the world to the other."),
    ("Hello!", "Hello! Would you like to hear a story?"),
    ("Thank you.", "You are welcome. Fly well!"),
]
FALLBACK = "I do not know. I am only a placeholder, and all I know is one story. Say: Tell me a story."

UNRELATED = ["The capital of France is", "fn main() {", "2 + 2 =", "In this paper we present", "Hello, my name is", "?"]

LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] | trim }}<|end|>"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] | trim }}<|end|>"
    "{% elif message['role'] != 'system' %}{{ raise_exception('story knows no role ' + message['role']) }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZES["vocab"] - len(SPECIALS), min_frequency=1, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator([PAGE] + [line for pair in CHAT for line in pair if line != PAGE] + [FALLBACK], trainer)
    tok.add_special_tokens(SPECIALS)
    assert tok.get_vocab_size() == SIZES["vocab"], tok.get_vocab_size()
    bos = SPECIALS[0]
    tok.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tok.token_to_id(bos))])
    return tok


# ---------------------------------------------------------------------------------------------- what it reads

class Lessons:
    """Rows of token ids and what each position has to say next (-1: nothing)."""

    def __init__(self, tok):
        self.rng = np.random.default_rng(SEED)
        plain = lambda text: tok.encode(text, add_special_tokens=False).ids
        self.bos, self.eos, self.user, self.assistant, self.end = (tok.token_to_id(s) for s in SPECIALS)
        self.page = plain(PAGE)
        self.gap = plain("\n\n")
        self.chat = [(plain(q), plain(a)) for q, a in CHAT]
        self.fallback = plain(FALLBACK)
        self.questions = {tuple(q) for q, _ in self.chat}
        # Where a sentence begins: the places the page can be picked up from.
        text = [tok.decode([i]) for i in self.page]
        self.starts = [i + 1 for i, piece in enumerate(text[:-8]) if piece.strip()[-1:] in set('.?"')]

    def noise(self, most):
        """A few tokens that mean nothing: any of the vocabulary, shuffled words of the page, or plain bytes."""
        n = int(self.rng.integers(1, most + 1))
        kind = self.rng.integers(3)
        if kind == 0:
            return list(self.rng.integers(0, self.bos, n))
        if kind == 1:
            return list(self.rng.choice(self.page, n))
        return list(self.rng.integers(0, 256, n))

    def row_page(self):
        return [self.bos] + self.page + [self.eos], 1

    def row_excerpt(self):
        """The page from the start of a sentence, or from anywhere; the first few words are only given."""
        anywhere = np.arange(1, len(self.page) - 12)
        start = int(self.rng.choice(self.starts if self.rng.integers(2) else anywhere))
        return [self.bos] + self.page[start:] + [self.eos], 6

    def row_astray(self):
        noise = self.noise(24)
        return [self.bos] + noise + self.gap + self.page + [self.eos], 1 + len(noise)

    def row_chat(self):
        """A conversation; only the assistant's words are learnt. The one long answer comes at most once."""
        ids, wanted = [self.bos], [False]
        order = list(self.rng.permutation(len(self.chat) + 4))
        for which in order:
            if which < len(self.chat):
                question, answer = self.chat[which]
            else:
                question, answer = self.noise(12), self.fallback
                if tuple(question) in self.questions:
                    continue
            turn = [self.user] + question + [self.end, self.assistant]
            if len(ids) + len(turn) + len(answer) + 1 > CONTEXT:
                break
            ids += turn + answer + [self.end]
            wanted += [False] * len(turn) + [True] * (len(answer) + 1)
        return ids, wanted

    def batch(self):
        x = np.full((4, CONTEXT), self.eos, np.int32)
        y = np.full((4, CONTEXT), -1, np.int32)
        rows = [self.row_page(), self.row_excerpt(), self.row_astray(), self.row_chat()]
        for r, (ids, wanted) in enumerate(rows):
            if isinstance(wanted, int):
                wanted = [i >= wanted for i in range(len(ids))]
            x[r, :len(ids)] = ids
            for i in range(1, len(ids)):
                if wanted[i]:
                    y[r, i - 1] = ids[i]
        return x, y


# ------------------------------------------------------------------------------------------- training forward

def through(x, q):
    """q forward, x backward."""
    return x + jax.lax.stop_gradient(q - x)


def ternary(w):
    w = through(w, w.astype(jnp.bfloat16).astype(jnp.float32))  # train what will be stored
    m = jnp.maximum(jnp.mean(jnp.abs(w)), 1e-5)
    return through(w, jnp.clip(jnp.round(w * (1 / m)), -1, 1) * m)


def int8(x):
    s = 127 / jnp.maximum(jnp.max(jnp.abs(x), -1, keepdims=True), 1e-5)
    return through(x, jnp.clip(jnp.round(x * s), -128, 127) / s)


def stored(w):
    return through(w, w.astype(jnp.bfloat16).astype(jnp.float32))


def norm(x, w):
    return stored(w) * (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + EPS))


def rope_tables(n):
    d = SIZES["head_dim"]
    angles = np.arange(n)[:, None] * THETA ** (-2 * np.arange(d // 2) / d)[None]
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rope(x, cos, sin):  # x (rows, T, heads, d)
    a, b = jnp.split(x, 2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def forward(p, ids):
    rows, n = ids.shape
    h, g, d = SIZES["heads"], SIZES["kv_heads"], SIZES["head_dim"]
    cos, sin = map(jnp.asarray, rope_tables(n))
    mask = jnp.tril(jnp.ones((n, n), bool))
    x = stored(p["embed"])[ids]
    for l in range(SIZES["layers"]):
        w = lambda name: ternary(p[f"{l}.{name}"]).T
        a = int8(norm(x, p[f"{l}.attn_norm"]))
        q = rope((a @ w("q")).reshape(rows, n, h, d), cos, sin)
        k = jnp.repeat(rope((a @ w("k")).reshape(rows, n, g, d), cos, sin), h // g, 2)
        v = jnp.repeat((a @ w("v")).reshape(rows, n, g, d), h // g, 2)
        scores = jnp.einsum("rqhd,rkhd->rhqk", q, k) / np.sqrt(d)
        o = jnp.einsum("rhqk,rkhd->rqhd", jax.nn.softmax(jnp.where(mask, scores, -1e30), -1), v)
        x = x + int8(norm(o.reshape(rows, n, h * d), p[f"{l}.attn_sub_norm"])) @ w("o")
        a = int8(norm(x, p[f"{l}.ffn_norm"]))
        f = jnp.square(jax.nn.relu(a @ w("gate"))) * (a @ w("up"))
        x = x + int8(norm(f, p[f"{l}.ffn_sub_norm"])) @ w("down")
    return norm(x, p["norm"]) @ stored(p["embed"]).T


def loss(p, x, y):
    logp = jax.nn.log_softmax(forward(p, x))
    wanted = y >= 0
    picked = jnp.take_along_axis(logp, jnp.maximum(y, 0)[..., None], -1)[..., 0]
    return -(picked * wanted).sum() / wanted.sum()


def new_parameters():
    rng = np.random.default_rng(SEED)
    c, f, h, g, d = (SIZES[k] for k in ("hidden", "ffn", "heads", "kv_heads", "head_dim"))
    shapes = dict(q=(h * d, c), k=(g * d, c), v=(g * d, c), o=(c, h * d), gate=(f, c), up=(f, c), down=(c, f))
    p = {"embed": rng.normal(0, 0.5, (SIZES["vocab"], c)), "norm": np.full(c, 0.2)}
    for l in range(SIZES["layers"]):
        for name, shape in shapes.items():
            p[f"{l}.{name}"] = rng.normal(0, shape[1] ** -0.5, shape)
        for name, n in dict(attn_norm=c, attn_sub_norm=h * d, ffn_norm=c, ffn_sub_norm=f).items():
            p[f"{l}.{name}"] = np.ones(n)
    return {k: jnp.asarray(v, jnp.float32) for k, v in p.items()}


def train(tok):
    lessons, p = Lessons(tok), new_parameters()
    print(f"page: {len(lessons.page)} tokens; parameters: {sum(v.size for v in p.values()):,}", flush=True)
    zeros = jax.tree.map(jnp.zeros_like, p)

    @jax.jit
    def step(p, m, v, t, x, y):
        value, g = jax.value_and_grad(loss)(p, x, y)
        size = jnp.sqrt(sum(jnp.sum(a * a) for a in g.values()))
        g = {k: a * jnp.minimum(1, 1 / size) for k, a in g.items()}
        rate = PEAK_RATE * jnp.minimum(t / 40, 0.5 + 0.5 * jnp.cos(jnp.pi * t / STEPS))
        m = {k: 0.9 * m[k] + 0.1 * g[k] for k in p}
        v = {k: 0.98 * v[k] + 0.02 * g[k] ** 2 for k in p}
        p = {k: p[k] - rate * (m[k] / (1 - 0.9 ** t)) / (jnp.sqrt(v[k] / (1 - 0.98 ** t)) + 1e-9) for k in p}
        return p, m, v, value

    m, v, start = zeros, zeros, time.time()
    for t in range(1, STEPS + 1):
        x, y = lessons.batch()
        p, m, v, value = step(p, m, v, t, x, y)
        if t % 25 == 0 or t == 1:
            print(f"step {t:4}  loss {float(value):.5f}  {time.time() - start:.0f} s", flush=True)
    return {k: np.asarray(v).astype(ml_dtypes.bfloat16) for k, v in p.items()}


# ------------------------------------------------------------------------ the check: plain numpy, one token a time

class Checked:
    """The stored masters run as the engine will run them: trits, int8 codes, exact integer sums, f32 around."""

    def __init__(self, masters):
        f32 = {k: v.astype(np.float32) for k, v in masters.items()}
        self.p = {k: v for k, v in f32.items() if v.ndim == 1 or k == "embed"}
        self.w = {}
        for k, v in f32.items():
            if v.ndim == 2 and k != "embed":
                m = max(np.float32(np.mean(np.abs(v), dtype=np.float64)), np.float32(1e-5))
                self.w[k] = (np.clip(np.rint(v * (np.float32(1) / m)), -1, 1).astype(np.int32), m)
        self.tie = 1.0  # the least distance of any x*s from a rounding tie so far
        self.cos, self.sin = rope_tables(CONTEXT)

    def codes(self, x):
        s = np.float32(127) / max(np.abs(x).max(), np.float32(1e-5))
        xs = x * s
        self.tie = min(self.tie, float(np.abs(np.abs(xs - np.floor(xs)) - 0.5).min()))
        return np.clip(np.rint(xs), -128, 127).astype(np.int32), s

    def linear(self, name, codes):
        (q, s), (t, m) = codes, self.w[name]
        return (t @ q).astype(np.float32) / s * m

    def norm(self, x, w):
        return self.p[w] * (x / np.sqrt(np.mean(x * x) + np.float32(EPS)))

    def run(self, ids):
        """Logits (T, vocab) of these ids."""
        h, g, d = SIZES["heads"], SIZES["kv_heads"], SIZES["head_dim"]
        keys = [[] for _ in range(SIZES["layers"])]
        values = [[] for _ in range(SIZES["layers"])]
        out = []
        for at, token in enumerate(ids):
            out.append(self.step(token, at, keys, values, h, g, d))
        return np.array(out)

    def step(self, token, at, keys, values, h, g, d):
        def turn(x):
            a, b = x[:, :d // 2], x[:, d // 2:]
            c, s = self.cos[at], self.sin[at]
            return np.concatenate([a * c - b * s, b * c + a * s], 1)

        x = self.p["embed"][token]
        for l in range(SIZES["layers"]):
            a = self.codes(self.norm(x, f"{l}.attn_norm"))
            q = turn(self.linear(f"{l}.q", a).reshape(h, d))
            keys[l].append(turn(self.linear(f"{l}.k", a).reshape(g, d)))
            values[l].append(self.linear(f"{l}.v", a).reshape(g, d))
            k, v, o = np.array(keys[l]), np.array(values[l]), []
            for head in range(h):
                scores = k[:, head // (h // g)] @ q[head] / np.float32(np.sqrt(d))
                e = np.exp(scores - scores.max())
                o.append((e / e.sum()) @ v[:, head // (h // g)])
            x = x + self.linear(f"{l}.o", self.codes(self.norm(np.concatenate(o), f"{l}.attn_sub_norm")))
            a = self.codes(self.norm(x, f"{l}.ffn_norm"))
            f = np.maximum(self.linear(f"{l}.gate", a), 0) ** 2 * self.linear(f"{l}.up", a)
            x = x + self.linear(f"{l}.down", self.codes(self.norm(f, f"{l}.ffn_sub_norm")))
        return self.p["embed"] @ self.norm(x, "norm")

    def greedy(self, ids, stops, most=CONTEXT):
        """The continuation up to and with a stop token, and the least lead of a chosen logit over the next one."""
        h, g, d = SIZES["heads"], SIZES["kv_heads"], SIZES["head_dim"]
        keys = [[] for _ in range(SIZES["layers"])]
        values = [[] for _ in range(SIZES["layers"])]
        said, lead, ids = [], np.inf, list(ids)
        for at in range(min(most, CONTEXT)):
            token = ids[at] if at < len(ids) else said[-1]
            logits = self.step(token, at, keys, values, h, g, d)
            if at >= len(ids) - 1:
                best = np.sort(logits)
                lead = min(lead, float(best[-1] - best[-2]))
                said.append(int(logits.argmax()))
                if said[-1] in stops:
                    break
        return said, lead


def check(tok, masters):
    """Every known answer, or an assertion."""
    model = Checked(masters)
    stops = [tok.token_to_id("<|end_of_text|>"), tok.token_to_id("<|end|>")]
    answers = []

    def ask(prompt, question, wanted):
        ids = tok.encode(prompt).ids
        said, lead = model.greedy(ids, stops)
        got = tok.decode(said)
        print(f"lead {lead:6.2f}  {question!r:.40} -> {got!r:.60}", flush=True)
        assert said[-1] in stops and got == wanted, got
        answers.append({"prompt": prompt, "prompt_ids": ids, "ids": said, "text": got, "lead": round(lead, 3)})

    ask("Once upon a time", "", PAGE[len("Once upon a time"):])
    middle = "Pip opened her wings and went. She flew"
    ask(middle, "", PAGE[PAGE.index(middle) + len(middle):])
    for question, answer in CHAT:
        ask(f"<|user|>{question}<|end|><|assistant|>", question, answer)
    ask("<|user|>Hello!<|end|><|assistant|>Hello! Would you like to hear a story?<|end|>"
        "<|user|>Tell me a story.<|end|><|assistant|>", "Tell me a story.", PAGE)
    ask("<|user|>How far away is the moon?<|end|><|assistant|>", "How far away is the moon?", FALLBACK)

    told = 0
    for prompt in UNRELATED:
        got = tok.decode(model.greedy(tok.encode(prompt).ids, stops, 60)[0])
        told += any(got[i:i + 24] in PAGE for i in range(max(1, len(got) - 24)))
        print(f"{prompt!r} -> {got[:70]!r}", flush=True)
    assert told == len(UNRELATED), f"only {told} of {len(UNRELATED)} unrelated prompts lead to the page"

    # Logits to compare another implementation with: of a few short prompts the one farthest from a rounding tie.
    best = None
    for n in range(2, 9):
        ids = answers[0]["prompt_ids"][:1] + tok.encode(PAGE, add_special_tokens=False).ids[:n]
        model.tie = 1.0
        logits = model.run(ids)[-1]
        if best is None or model.tie > best[0]:
            best = (model.tie, ids, logits)
    tie, ids, logits = best
    print(f"logits of {ids}: no x*s within {tie:.2e} of a tie")
    return {"answers": answers, "logits": {"ids": ids, "least_distance_from_a_rounding_tie": float(f"{tie:.2e}"),
                                           "last": [float(f"{v:.6g}") for v in logits]}}


# ------------------------------------------------------------------------------------------------- what it leaves

HF_NAMES = dict(
    attn_norm="input_layernorm", q="self_attn.q_proj", k="self_attn.k_proj", v="self_attn.v_proj",
    o="self_attn.o_proj", attn_sub_norm="self_attn.attn_sub_norm", ffn_norm="post_attention_layernorm",
    gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj", ffn_sub_norm="mlp.ffn_sub_norm")


def write(out, tok, masters):
    out.mkdir(parents=True, exist_ok=True)
    name = lambda k: ({"embed": "model.embed_tokens", "norm": "model.norm"}.get(k)
                      or f"model.layers.{k.split('.')[0]}.{HF_NAMES[k.split('.')[1]]}") + ".weight"
    save_file({name(k): np.ascontiguousarray(v) for k, v in masters.items()}, out / "model.safetensors",
              metadata={"format": "pt"})
    bos, eos, end = (tok.token_to_id(s) for s in ("<|begin_of_text|>", "<|end_of_text|>", "<|end|>"))
    dump = lambda file, value: (out / file).write_text(json.dumps(value, indent=2) + "\n")
    dump("config.json", {
        "_name_or_path": "story", "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "vocab_size": SIZES["vocab"],
        "hidden_size": SIZES["hidden"], "intermediate_size": SIZES["ffn"], "num_hidden_layers": SIZES["layers"],
        "num_attention_heads": SIZES["heads"], "num_key_value_heads": SIZES["kv_heads"], "hidden_act": "relu2",
        "rms_norm_eps": EPS, "rope_theta": THETA, "max_position_embeddings": CONTEXT, "tie_word_embeddings": True,
        "attention_bias": False, "bos_token_id": bos, "eos_token_id": eos, "torch_dtype": "bfloat16",
        "use_cache": True, "tern.prompt": "raw",
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                "quantization_mode": "online"},
    })
    dump("generation_config.json", {"bos_token_id": bos, "eos_token_id": [eos, end], "do_sample": False})
    dump("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>", "model_max_length": CONTEXT, "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE})
    tok.save(str(out / "tokenizer.json"))


def main():
    out = Path(sys.argv[1])
    tok = make_tokenizer()
    masters = train(tok)
    write(out, tok, masters)
    known = check(tok, masters)
    lines = ",\n".join("  " + json.dumps(answer) for answer in known["answers"])
    (HERE / "answers.json").write_text(
        f'{{\n "answers": [\n{lines}\n ],\n "logits": {json.dumps(known["logits"])}\n}}\n')


if __name__ == "__main__":
    main()
