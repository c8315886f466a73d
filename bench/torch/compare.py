"""The same run in PyTorch: same masters, same tokens in the same order, plain autograd with straight-through quantisers.

    cargo run --release -p tern-train --example torch_run bench/torch/compare.toml OUT
    python bench/torch/compare.py bench/torch/compare.toml OUT [f32|bf16|nudged] [STEPS]

Prints `step loss tokens/s` lines and, with the losses of Tern beside them, the largest relative difference. `nudged` is f32 with
the first weights changed in their last bit or two: how far PyTorch comes from itself.
"""

import json
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

RUN = tomllib.loads(Path(sys.argv[1]).read_text())
OUT, KIND = Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "f32"
STEPS = int(sys.argv[4]) if len(sys.argv) > 4 else RUN["steps"]
LENGTH, SEQUENCES = RUN["length"], RUN["sequences"]
NONE = 2**32 - 1
torch.set_num_threads(2)


def load(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8:8 + size]), data[8 + size:]
    header.pop("__metadata__", None)
    return {name: torch.from_numpy(np.frombuffer(body[a:b], np.float32).reshape(about["shape"]).copy()).requires_grad_()
            for name, about in header.items() for a, b in [about["data_offsets"]]}


CONFIG = json.loads((OUT / "masters/config.json").read_text())
W = load(OUT / "masters/model.safetensors")
if KIND == "nudged":
    torch.manual_seed(0)
    for w in W.values():
        w.data *= 1 + 1e-7 * torch.randn_like(w)
DIM, HEADS, KV = CONFIG["hidden_size"], CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
D, EPS = CONFIG["head_dim"], CONFIG["rms_norm_eps"]
freq = CONFIG["rope_theta"] ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
angles = torch.outer(torch.arange(LENGTH, dtype=torch.float32), freq.float())
COS, SIN = angles.double().cos().float(), angles.double().sin().float()


def ste(x, q):
    return x + (q - x).detach()


def linear(x, w):
    m = w.detach().double().abs().mean().float().clamp(min=1e-5)
    s = 127 / x.detach().abs().amax(-1, keepdim=True).clamp(min=1e-5)
    return F.linear(ste(x, (x * s).round() / s), ste(w, (w / m).round().clamp(-1, 1) * m))


def norm(x, name):
    return W[name] * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS))


def rope(x):
    a, b = x[..., :D // 2], x[..., D // 2:]
    return torch.cat([a * COS - b * SIN, b * COS + a * SIN], -1)


def forward(tokens, mask):
    x = W["model.embed_tokens.weight"][tokens]
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        h = norm(x, at + "input_layernorm.weight")
        split = lambda y, n: y.view(SEQUENCES, LENGTH, n, D).transpose(1, 2)
        q, k, v = (split(linear(h, W[f"{at}self_attn.{p}_proj.weight"]), n) for p, n in [("q", HEADS), ("k", KV), ("v", KV)])
        k, v = (y.repeat_interleave(HEADS // KV, 1) for y in (rope(k), v))
        o = F.scaled_dot_product_attention(rope(q), k, v, attn_mask=mask)
        o = o.transpose(1, 2).reshape(SEQUENCES, LENGTH, HEADS * D)
        x = x + linear(norm(o, at + "self_attn.attn_sub_norm.weight"), W[at + "self_attn.o_proj.weight"])
        h = norm(x, at + "post_attention_layernorm.weight")
        g = F.relu(linear(h, W[at + "mlp.gate_proj.weight"])).pow(2) * linear(h, W[at + "mlp.up_proj.weight"])
        x = x + linear(norm(g, at + "mlp.ffn_sub_norm.weight"), W[at + "mlp.down_proj.weight"])
    return F.linear(norm(x, "model.norm.weight"), W["model.embed_tokens.weight"])


def rate(step):
    """Tern's `cosine`."""
    peak, warmup, steps = RUN["rate"], RUN["warmup"], RUN["steps"]
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.5 + 0.5 * np.cos(np.pi * (step - warmup) / (steps - warmup)))


decayed = [w for w in W.values() if w.dim() == 2]
plain = [w for w in W.values() if w.dim() == 1]
optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": RUN["weight_decay"]}, {"params": plain, "weight_decay": 0.0}],
                              lr=1.0, betas=(0.9, 0.95), eps=1e-8)
rows = SEQUENCES * LENGTH
data = np.fromfile(OUT / "tokens.bin", np.uint32).reshape(-1, 3, SEQUENCES, LENGTH).astype(np.int64)
known = [float(line.split()[1]) for line in (OUT / "losses.txt").read_text().splitlines()]
worst = 0.0
for step in range(STEPS):
    start = time.time()
    tokens, targets, starts = (torch.from_numpy(part) for part in data[step])
    position = torch.arange(LENGTH)
    mask = (position[None, :, None] >= position[None, None, :]) & (position[None, None, :] >= starts[:, :, None])
    with torch.autocast("cpu", torch.bfloat16, enabled=KIND == "bf16"):
        logits = forward(tokens, mask[:, None])
    targets[targets == NONE] = -100
    loss = F.cross_entropy(logits.float().view(rows, -1), targets.view(-1))
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(W.values(), RUN["clip"])
    for group in optimiser.param_groups:
        group["lr"] = rate(step)
    optimiser.step()
    apart = abs(loss.item() / known[step] - 1)
    worst = max(worst, apart)
    print(f"{step + 1} {loss.item():.6f} {known[step]:.6f} {100 * apart:.3f}% {rows / (time.time() - start):.0f} tokens/s", flush=True)
print(f"largest difference {100 * worst:.3f}%")
