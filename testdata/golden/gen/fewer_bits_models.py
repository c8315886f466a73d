"""Logits of bitnet_online_bf16 as if it were a BitNet a4.8 or v2 (NumPy, float32; the quantisers are those of fewer_bits.py, which
says their formulas). `fewer_bits_models.py GOLDEN OUT` writes OUT/fewer_bits_logits.json; floats as the integers of their bits."""

import json
import struct
import sys

import numpy as np

from quantisers import bits, f32, hadamard, int4, int8, top

golden, out = sys.argv[1:]
folder = golden + "/bitnet_online_bf16"
config = json.load(open(folder + "/config.json"))


def tensors(path):
    with open(path, "rb") as file:
        head = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        body = file.read()
    head.pop("__metadata__", None)
    found = {}
    for name, at in head.items():
        raw = body[slice(*at["data_offsets"])]
        if at["dtype"] == "BF16":
            values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(f32)
        else:
            values = np.frombuffer(raw, {"F32": f32, "I64": np.int64}[at["dtype"]])
        found[name] = values.reshape(at["shape"])
    return found


# The share of every linear's input that is not zero, token by token.
live = {}
weights = tensors(folder + "/model.safetensors")
ids = tensors(folder + "/golden.safetensors")["input_ids"].ravel()
heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
width = config["hidden_size"] // heads
eps, count = config["rms_norm_eps"], len(ids)


def norm(x, name):
    return (x / np.sqrt((x * x).mean(-1, keepdims=True) + f32(eps)) * weights[name + ".weight"]).astype(f32)


def linear(name, x, quantiser, rotates):
    w = weights[name + ".weight"].astype(f32)
    m = max(f32(np.abs(w.astype(np.float64)).mean()), f32(1e-5))
    trits = np.clip(np.rint(w / m), -1, 1).astype(np.int64)
    rows = []
    for row in x:
        block = len(row) & -len(row) if rotates else 1
        codes, step = quantiser(hadamard(row, min(block, 1024)))
        live.setdefault(name, []).append(np.count_nonzero(codes) / len(codes))
        rows.append((trits @ codes).astype(f32) * step * m)
    return np.stack(rows).astype(f32)


def rope(x):
    half = width // 2
    angle = np.arange(count)[:, None] * config["rope_theta"] ** (-np.arange(half) / half)[None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(f32)


# The quantisers for the inputs of q, k, v; o; gate, up; down, and whether the second and the fourth are transformed.
SCHEMES = {
    "a8": (int8, int8, int8, int8, False),
    "a4.8": (int4, top, int4, int8, False),
    "v2-a8": (int8, int8, int8, int8, True),
    "v2-a4": (int4, int4, int4, int4, True),
    "a4": (int4, int4, int4, int4, False),
}


def logits(scheme):
    qkv, o, ffn, down, rotates = SCHEMES[scheme]
    x = weights["model.embed_tokens.weight"][ids].astype(f32)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        h = norm(x, at + "input_layernorm")
        q, k, v = (linear(f"{at}self_attn.{n}_proj", h, qkv, False).reshape(count, -1, width) for n in "qkv")
        k, v = (np.repeat(part, heads // kv_heads, 1) for part in (rope(k), v))
        scores = np.einsum("ihd,jhd->hij", rope(q), k) / np.sqrt(width)
        scores = np.where(np.tril(np.ones((count, count), bool)), scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        h = np.einsum("hij,jhd->ihd", scores, v).reshape(count, -1).astype(f32)
        x = x + linear(at + "self_attn.o_proj", norm(h, at + "self_attn.attn_sub_norm"), o, rotates)
        h = norm(x, at + "post_attention_layernorm")
        gate, up = (linear(f"{at}mlp.{n}_proj", h, ffn, False) for n in ("gate", "up"))
        open_rows = (gate > 0).mean(-1)
        live[at + "mlp.up_proj"] = list(np.array(live[at + "mlp.up_proj"]) * open_rows)
        h = norm(np.maximum(gate, 0) ** 2 * up, at + "mlp.ffn_sub_norm")
        x = x + linear(at + "mlp.down_proj", h, down, rotates)
    for n in ("q", "k", "v", "o", "gate", "up", "down"):
        every = [np.mean(shares) for name, shares in live.items() if f".{n}_proj" in name]
        active.setdefault(scheme, []).append(float(np.mean(every)))
    live.clear()
    return norm(x, "model.norm") @ weights["model.embed_tokens.weight"].astype(f32).T


# The share of every projection's parameters that takes part in a token, over all blocks.
active = {}
found = {name: bits(logits(name).ravel()) for name in SCHEMES}
# The same code with eight bits is the model that transformers computed.
want = tensors(folder + "/golden.safetensors")["logits"].ravel()
print("a8 beside transformers:", np.abs(np.array(found["a8"], np.uint32).view(f32) - want).max())
with open(out + "/fewer_bits_logits.json", "w") as file:
    json.dump({"ids": ids.tolist(), "logits": found, "active": active}, file, separators=(",", ":"))
    file.write("\n")
