"""Tiny checkpoints of the families of 2026 and what `transformers` computes with them: `families.py OUT`.

Every projection is exactly ternary with its family's kind of scale. The families that were trained with float
activations (Bonsai, BitCPM, TriLM) are run as plain float models: their weights are the ternary values. VibeVoice's
language model and the embedding models are run with int8 activations by token, as they were trained; their inputs were
chosen by `margin`, so that no code lies near a rounding tie. transformers has no `minicpm`: its Granite module computes
the same graph (Llama with a scale on the embedding, on each branch and on the logits), and does.
"""
import json, os, struct, sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import gguf
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers, processors
from transformers import (Gemma3TextConfig, Gemma3TextModel, GraniteConfig, GraniteForCausalLM, LlamaConfig,
                          LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, Qwen3Model)

torch.set_num_threads(1)
OUT = sys.argv[1]
HERE = os.path.dirname(os.path.abspath(__file__))
PROJ = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
gen = torch.Generator()
MARGIN = [1.0]


def projection(name):
    return name.endswith(".weight") and name.split(".")[-2] in PROJ


def randn(shape):
    return torch.randn(shape, generator=gen)


def trits(shape):
    return torch.randint(-1, 2, shape, generator=gen).float()


def ternary(shape, group, dtype, size=0.06):
    """Random trits under one random scale for each `group` columns of a row (None: a row), exact in `dtype`."""
    rows, cols = shape
    group = group or cols
    scales = (size * (0.5 + torch.rand((rows, cols // group), generator=gen))).to(dtype).float()
    return trits(shape) * scales.repeat_interleave(group, 1)


def shards(shape, axis, size=0.06):
    """Trits under two scales, one for each half of the rows or of the columns: a model-parallel shard each."""
    scales = (size * (0.5 + torch.rand(2, generator=gen))).to(torch.bfloat16).float()
    by = scales.repeat_interleave(shape[axis] // 2)
    return trits(shape) * (by[:, None] if axis == 0 else by[None, :])


def fill(model, weight):
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1 and name.endswith(".bias"):
                p.copy_((0.3 * randn(p.shape)).to(torch.bfloat16).float())
            elif p.dim() == 1:
                p.copy_((1 + 0.25 * randn(p.shape)).to(torch.bfloat16).float())
            else:
                p.copy_(weight(name, tuple(p.shape)))
    return model.eval()


class BitLinear(torch.nn.Linear):
    """int8 activations by token, weights by absmean; `norm` where the family has one in front of each projection."""

    def __init__(self, linear, norm):
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None)
        self.norm = torch.nn.RMSNorm(linear.in_features, eps=1e-8) if norm else None

    def forward(self, x):
        x = self.norm(x) if self.norm is not None else x
        scaled = x * (127.0 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5))
        MARGIN[0] = min(MARGIN[0], float((scaled.double() - scaled.double().floor() - 0.5).abs().min()))
        x = scaled.round().clamp(-128, 127) / (127.0 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5))
        scale = 1.0 / self.weight.abs().mean().clamp(min=1e-5)
        return F.linear(x, (self.weight * scale).round().clamp(-1, 1) / scale, self.bias)


def bitlinear(model, norm):
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name.split(".")[-1] in PROJ:
            model.set_submodule(name, BitLinear(module, norm))
    return model


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].float().contiguous()


def language(model, ids, start=5, new=12):
    with torch.no_grad():
        prompt = torch.tensor([ids[:start]])
        tokens = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, do_sample=False,
                                eos_token_id=None, pad_token_id=0)
    return {"input_ids": torch.tensor([ids]), "logits": logits(model, ids), "greedy_from_first_5": tokens[0].contiguous()}


def margin(run, candidates):
    """The candidate whose activations are furthest from a rounding tie."""
    best = (0.0, None)
    for ids in candidates:
        MARGIN[0] = 1.0
        run(ids)
        best = max(best, (MARGIN[0], ids), key=lambda b: b[0])
    return best


def random_ids(n, vocab, count):
    r = np.random.default_rng(n)
    return [[1] + [int(v) for v in r.integers(3, vocab, n - 1)] for _ in range(count)]


def write(name, tensors, config, golden, note, **more):
    d = f"{OUT}/{name}"
    os.makedirs(d, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, f"{d}/model.safetensors", metadata={"format": "pt"})
    save_file(golden, f"{d}/golden.safetensors")
    with open(f"{d}/config.json", "w") as f:
        json.dump(config, f, indent=1)
    with open(f"{d}/README.json", "w") as f:
        json.dump({"note": note, "script": "gen/families.py", "transformers": transformers.__version__,
                   "torch": torch.__version__, "compute": "float32, eager attention, CPU", **more}, f, indent=1)
    print(name, os.path.getsize(f"{d}/model.safetensors"))


# ---- GGUF twins: a writer of our own, since the published type numbers include ones that `gguf` does not have

def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def value(v):
    kinds = {bool: (7, "<?"), int: (4, "<I"), float: (6, "<f")}
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    if isinstance(v, list):
        first = value(v[0])
        return struct.pack("<I", 9) + first[:4] + struct.pack("<Q", len(v)) + b"".join(value(e)[4:] for e in v)
    kind, form = kinds[type(v)]
    return struct.pack("<I", kind) + struct.pack(form, v)


def write_gguf(path, pairs, tensors):
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    head += b"".join(text(k) + value(v) for k, v in pairs.items())
    data = b""
    for name, shape, kind, body in tensors:
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", kind, len(data))
        data += body + b"\0" * (-len(body) % 32)
    open(path, "wb").write(head + b"\0" * (-len(head) % 32) + data)
    print(os.path.basename(path), os.path.getsize(path))


def f32(w):
    return 0, w.float().numpy().astype("<f4").tobytes()


def f16(w):
    half = w.float().numpy().astype("<f2")
    assert (half.astype(np.float32) == w.float().numpy()).all()
    return 1, half.tobytes()


def i2_s(w):
    """bitnet.cpp's x86 blocks of 128, the scale that absmean gives."""
    w = w.float().numpy()
    scale = np.float32(np.abs(w).mean(dtype=np.float64))
    codes = (np.clip(np.rint(w * (np.float32(1) / scale)), -1, 1) + 1).astype(np.uint8).reshape(-1, 4, 32)
    packed = codes[:, 0] << 6 | codes[:, 1] << 4 | codes[:, 2] << 2 | codes[:, 3]
    return 36, packed.tobytes() + struct.pack("<f", scale) + b"\0" * 28


def q2_0(group, kind):
    """PrismML's 2-bit blocks: an f16 scale, then codes of `trit + 1`, four to a byte, low bits first."""
    def encode(w):
        blocks = w.float().numpy().reshape(-1, group)
        d = np.abs(blocks).max(1, keepdims=True)
        codes = (np.rint(blocks / np.where(d == 0, 1, d)) + 1).astype(np.uint8).reshape(-1, group // 4, 4)
        packed = codes[..., 0] | codes[..., 1] << 2 | codes[..., 2] << 4 | codes[..., 3] << 6
        assert (d.astype("<f2").astype(np.float32) == d).all()
        return kind, b"".join(d[i].astype("<f2").tobytes() + packed[i].tobytes() for i in range(len(d)))
    return encode


NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
GEMMA = {**NAMES, "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
         "post_feedforward_layernorm": "post_ffw_norm"}


def gguf_name(key, names):
    if key.startswith("embed_tokens"):
        return "token_embd.weight"
    if key.startswith("lm_head"):
        return "output.weight"
    if key == "norm.weight":
        return "output_norm.weight"
    _, layer, rest = key.split(".", 2)
    module, last = rest.rsplit(".", 1)
    if module.endswith("_proj.norm"):
        return f"blk.{layer}.{names[module[:-5]]}_norm_in.weight"
    return f"blk.{layer}.{names[module]}.{last}"


def permute(w, heads):
    return w.reshape(heads, 2, w.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(w.shape)


def twin(path, arch, tensors, c, proj, embed, extra=None, permuted=False, names=NAMES, plus_one=False, more=()):
    """The same model as a GGUF: `proj` and `embed` encode projections and embeddings, all else is f32."""
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    head_dim = c.get("head_dim") or c["hidden_size"] // heads
    pairs = {"general.architecture": arch, "general.name": "tiny", f"{arch}.vocab_size": c["vocab_size"],
             f"{arch}.context_length": c["max_position_embeddings"], f"{arch}.embedding_length": c["hidden_size"],
             f"{arch}.block_count": c["num_hidden_layers"], f"{arch}.feed_forward_length": c["intermediate_size"],
             f"{arch}.attention.head_count": heads, f"{arch}.attention.head_count_kv": kv,
             f"{arch}.attention.key_length": head_dim, f"{arch}.attention.value_length": head_dim,
             f"{arch}.attention.layer_norm_rms_epsilon": float(c["rms_norm_eps"]),
             f"{arch}.rope.freq_base": float(c.get("rope_theta") or c["rope_parameters"]["rope_theta"]), **(extra or {})}
    out = list(more)
    for key, w in tensors.items():
        key = key.replace("model.language_model.", "").replace("model.", "")
        name = gguf_name(key, names)
        if permuted and key.endswith(("q_proj.weight", "k_proj.weight")):
            w = permute(w, heads if "q_proj" in key else kv)
        if plus_one and key.endswith("norm.weight") and "_proj.norm" not in key:
            w = w.float() + 1
        kind, body = (proj if projection(key) else embed if w.dim() == 2 else f32)(w)
        out.append((name, list(w.shape), kind, body))
    write_gguf(path, pairs, out)
    if all(kind in (0, 1) for _, _, kind, _ in out):
        assert len(gguf.GGUFReader(path).tensors) == len(out)


def without_tied(state):
    return {k: v for k, v in state.items() if k != "lm_head.weight"}


# ---- Ternary-Bonsai: qwen3, one scale for each 128 inputs, the tied embedding too; YaRN; float activations
gen.manual_seed(20261)
bonsai = dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3", vocab_size=96, hidden_size=256,
              intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=1, head_dim=32,
              hidden_act="silu", max_position_embeddings=64, max_window_layers=1, rms_norm_eps=1e-6,
              rope_parameters=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=1e6),
              tie_word_embeddings=True, attention_bias=False, attention_dropout=0.0, use_sliding_window=False,
              sliding_window=None, layer_types=["full_attention"], initializer_range=0.02, bos_token_id=1,
              eos_token_id=2, dtype="float16", use_cache=True)
settings = {k: v for k, v in bonsai.items() if k not in ("architectures", "model_type", "dtype")}
m = fill(Qwen3ForCausalLM(Qwen3Config(**settings, attn_implementation="eager")),
         lambda name, shape: ternary(shape, 128, torch.float16, 0.5 if "embed" in name else 0.06))
state = {k: v.to(torch.float16) for k, v in without_tied(m.state_dict()).items()}
write("qwen3_bonsai", state, bonsai, language(m, random_ids(24, 96, 1)[0]),
      "Qwen3 with per-head q and k norms, YaRN by 4, tied ternary embedding and head, one scale for each 128 inputs; float "
      "activations. Unpacked f16; the GGUF twins are PQ2_0 (type 142) and Q2_0 in groups of 64 (type 42)")
yarn = {"qwen3.rope.scaling.type": "yarn", "qwen3.rope.scaling.factor": 4.0,
        "qwen3.rope.scaling.original_context_length": 16}
twin(f"{OUT}/gguf/qwen3_bonsai_pq2_0.gguf", "qwen3", state, bonsai, q2_0(128, 142), q2_0(128, 142), yarn)
twin(f"{OUT}/gguf/qwen3_bonsai_q2_0_g64.gguf", "qwen3", state, bonsai, q2_0(64, 42), q2_0(64, 42), yarn)

# ---- VibeVoice-ASR-BitNet's language model: qwen2 with biases, float latents, one scale a tensor, int8 activations
gen.manual_seed(20262)
lm = dict(model_type="qwen2", vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
          num_attention_heads=4, num_key_value_heads=2, hidden_act="silu", max_position_embeddings=64,
          max_window_layers=2, rms_norm_eps=1e-6, rope_theta=1e6, rope_scaling=None, tie_word_embeddings=True,
          attention_dropout=0.0, use_sliding_window=False, sliding_window=None, initializer_range=0.02, use_mrope=False,
          torch_dtype="bfloat16", use_cache=True)
settings = {k: v for k, v in lm.items() if k not in ("model_type", "torch_dtype", "rope_scaling", "use_mrope")}
m = bitlinear(Qwen2ForCausalLM(Qwen2Config(**settings, attn_implementation="eager")), False)
fill(m, lambda name, shape: (0.5 * randn(shape) if "embed" in name else 0.06 * randn(shape)).to(torch.bfloat16).float())
room, ids = margin(lambda ids: logits(m, ids), random_ids(7, 96, 250))
golden = language(m, ids)
state = {k.replace("model.", "model.language_model."): v.to(torch.bfloat16)
         for k, v in without_tied(m.state_dict()).items()}
outer = dict(architectures=["VibeVoiceForASRTraining"], model_type="vibevoice", decoder_config=lm,
             acoustic_vae_dim=64, semantic_vae_dim=128, torch_dtype="bfloat16",
             acoustic_tokenizer_config=dict(model_type="vibevoice_acoustic_tokenizer", vae_dim=64),
             semantic_tokenizer_config=dict(model_type="vibevoice_semantic_tokenizer", vae_dim=128),
             quantization_config=dict(quant_method="bitnet", linear_class="autobitlinear", quantization_mode="online"))
audio = {"model.acoustic_connector.fc1.weight": torch.zeros(4, 4, dtype=torch.bfloat16),
         "model.semantic_tokenizer.encoder.head.conv.conv.bias": torch.zeros(4, dtype=torch.bfloat16)}
write("qwen2_vibevoice", {**state, **audio}, outer, golden,
      "Qwen2 with q, k and v biases under the names of VibeVoice (its audio parts stand in as two empty tensors), float "
      "latents by absmean, int8 activations by token; the GGUF twin is I2_S with an f16 embedding",
      rounding_margin=room)
twin(f"{OUT}/gguf/qwen2_vibevoice_i2s.gguf", "qwen2", state, lm, i2_s, f16)

# ---- BitCPM: minicpm, one scale a row, bf16 that is ternary already; three scales, LongRoPE; float activations
gen.manual_seed(20263)
short = [round(1.0 + 0.11 * i, 4) for i in range(8)]
long = [round(2.0 + 0.57 * i, 4) for i in range(8)]
cpm = dict(architectures=["MiniCPMForCausalLM"], model_type="minicpm", vocab_size=96, hidden_size=64,
           intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_act="silu",
           max_position_embeddings=64, rms_norm_eps=1e-6, rope_theta=10000.0,
           rope_scaling=dict(rope_type="longrope", short_factor=short, long_factor=long,
                             original_max_position_embeddings=64),
           scale_emb=12, scale_depth=1.4, dim_model_base=16, mup_denominator=32, tie_word_embeddings=False,
           attention_bias=False, attention_dropout=0.0, initializer_range=0.1, pretraining_tp=1, bos_token_id=1,
           eos_token_id=[2, 73440], torch_dtype="bfloat16", use_cache=True)
granite = GraniteConfig(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-6,
                        rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, short_factor=short,
                                             long_factor=long, original_max_position_embeddings=64),
                        embedding_multiplier=12.0, residual_multiplier=1.4 / 2 ** 0.5, logits_scaling=64 / 16,
                        attention_multiplier=16 ** -0.5, tie_word_embeddings=False, attn_implementation="eager")
m = fill(GraniteForCausalLM(granite), lambda name, shape:
         (0.5 * randn(shape)).to(torch.bfloat16).float() if "embed" in name or "lm_head" in name
         else ternary(shape, None, torch.bfloat16))
m.model.embed_tokens.weight.data = (0.1 * m.model.embed_tokens.weight.data).to(torch.float16).to(torch.bfloat16).float()
state = {k: v.to(torch.bfloat16) for k, v in m.state_dict().items()}
state = {k: v.to(torch.float16).to(torch.bfloat16) for k, v in state.items()}
with torch.no_grad():
    for k, v in m.named_parameters():
        v.copy_(state[k].float())
write("minicpm_bitcpm", state, cpm, language(m, random_ids(9, 96, 1)[0]),
      "MiniCPM by transformers' Granite module: scale_emb, scale_depth / sqrt(layers) and dim_model_base as its "
      "multipliers, LongRoPE with short factors (original = max, so the attention factor is 1); one scale a row; float "
      "activations; the GGUF twin is F16 with permuted q and k rows")
factors = [("rope_factors_long.weight", [8], *f32(torch.tensor(long))),
           ("rope_factors_short.weight", [8], *f32(torch.tensor(short)))]
twin(f"{OUT}/gguf/minicpm_bitcpm_f16.gguf", "minicpm", state, cpm, f16, f16,
     {"minicpm.embedding_scale": 12.0, "minicpm.residual_scale": 1.4 / 2 ** 0.5, "minicpm.logit_scale": 4.0,
      "minicpm.rope.scaling.type": "longrope", "minicpm.rope.dimension_count": 16}, permuted=True, more=factors)

# ---- TriLM: llama, bf16 that is ternary already, one scale for each of two shards; float activations
gen.manual_seed(20264)
tri = dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=96, hidden_size=64,
           intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, hidden_act="silu",
           max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, rope_scaling=None,
           tie_word_embeddings=False, attention_bias=False, attention_dropout=0.0, mlp_bias=False,
           initializer_range=0.02, pretraining_tp=1, bos_token_id=1, eos_token_id=2, torch_dtype="bfloat16",
           use_cache=True)
settings = {k: v for k, v in tri.items() if k not in ("architectures", "model_type", "torch_dtype", "rope_scaling")}


def trilm(name, shape):
    if "embed" in name or "lm_head" in name:
        return (0.5 * randn(shape)).to(torch.float16).to(torch.bfloat16).float()
    if "layers.0.mlp" in name:
        return ternary(shape, None, torch.bfloat16)
    return shards(shape, 1 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0)


m = fill(LlamaForCausalLM(LlamaConfig(**settings, attn_implementation="eager")), trilm)
state = {k: v.to(torch.bfloat16) for k, v in m.state_dict().items()}
write("llama_trilm", state, tri, language(m, random_ids(8, 96, 1)[0]),
      "Llama of bf16 values that are ternary already: scales by shard of rows (q, k, v, gate, up) or of columns (o, down), "
      "and by row in the first feed-forward; float activations; the GGUF twin is F16 with permuted q and k rows")
twin(f"{OUT}/gguf/llama_trilm_f16.gguf", "llama", state, tri, f16, f16, {"llama.rope.dimension_count": 16},
     permuted=True)

# ---- GGUF twins of the embedding models that models.py made
for name, arch, names, extra in (
        ("qwen3_embedding_norm_bitlinear", "qwen3", NAMES, {"qwen3.pooling_type": 3}),
        ("gemma3_embedding_norm_bitlinear", "gemma3", GEMMA,
         {"gemma3.pooling_type": 3, "gemma3.attention.sliding_window": 4,
          "gemma3.attention.sliding_window_pattern": [True, False], "gemma3.rope.freq_base_swa": 10000.0})):
    config = json.load(open(f"{OUT}/{name}/config.json"))
    twin(f"{OUT}/gguf/{name}_i2s.gguf", arch, load_file(f"{OUT}/{name}/model.safetensors"), config, i2_s,
         lambda w: (30, w.view(torch.int16).numpy().astype("<i2").tobytes()), extra, names=names,
         plus_one=arch == "gemma3")

# ---- An embedding model with its tokenizer: texts in, vectors out; the end of the text is appended by the tokenizer
gen.manual_seed(20266)
tokenizer = Tokenizer.from_file(f"{OUT}/tokenizers/bpe_qwen2_tiny.json")
tokenizer.normalizer = normalizers.NFC()
tokenizer.post_processor = processors.TemplateProcessing(single="$A <|endoftext|>", pair="$A <|endoftext|> $B <|endoftext|>",
                                                         special_tokens=[("<|endoftext|>", 420)])
c = json.load(open(f"{OUT}/qwen3_embedding_norm_bitlinear/config.json"))
c.update(vocab_size=424, max_position_embeddings=256, eos_token_id=420, num_hidden_layers=1)
settings = {k: v for k, v in c.items() if k not in ("architectures", "model_type", "torch_dtype")}
m = bitlinear(Qwen3Model(Qwen3Config(**settings, attn_implementation="eager")), True)
fill(m, lambda name, shape: (0.5 * randn(shape) if "embed" in name else 0.06 * randn(shape)).to(torch.bfloat16).float())


def embed(ids):
    with torch.no_grad():
        return F.normalize(m(torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1], dim=-1)


texts = [t.strip() for t in open(f"{HERE}/texts.txt") if t.strip()]
kept = []
for t in texts:
    MARGIN[0] = 1.0
    embed(tokenizer.encode(t).ids)
    kept.append((MARGIN[0], t))
kept = sorted(kept, reverse=True)[:12]
golden = {f"text.{i}": embed(tokenizer.encode(t).ids).contiguous() for i, (_, t) in enumerate(kept)}
write("qwen3_embedding_text", {k: v.to(torch.bfloat16) for k, v in m.state_dict().items()}, c, golden,
      "The embedding model on Qwen3's backbone with a tokenizer whose post-processing appends <|endoftext|>: the vector of "
      "each of the texts", texts=[t for _, t in kept], ids=[tokenizer.encode(t).ids for _, t in kept],
      rounding_margin=kept[-1][0])
tokenizer.save(f"{OUT}/qwen3_embedding_text/tokenizer.json")
with open(f"{OUT}/qwen3_embedding_text/tokenizer_config.json", "w") as f:
    json.dump({"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer"}, f)
