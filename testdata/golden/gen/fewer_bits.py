"""The quantisers of BitNet a4.8 and v2 on rows with ties and zeros, and the straight-through gradients of a layer (PyTorch,
float64). `fewer_bits.py OUT` writes OUT/fewer_bits.json; floats stand there as the integers of their bits."""

import json
import math
import sys

import numpy as np
import torch

from quantisers import bits, f32, hadamard, int4, int8, top

random = np.random.default_rng(8)
rows = [random.standard_normal(n).astype(f32) for n in (1, 2, 5, 7, 16, 17, 24, 96, 160)]
rows += [(random.standard_normal(64) * 10 ** random.uniform(-3, 2, 64)).astype(f32)]
rows += [np.zeros(9, f32), np.full(6, -0.0, f32)]
# More zeros than values, and so than half.
rows += [np.where(random.random(48) < 0.7, 0, random.standard_normal(48)).astype(f32)]
# Equal magnitudes of both signs across the border of the half.
rows += [np.array([1, -1, 1, -1, 2, 1, -1], f32), np.array([3, 3, -3, 3, -3, 3], f32)]
rows += [np.array([0, 0, -0.0, 5, 0, 0, 0, 0], f32), np.array([0.5, -0.5] * 10 + [0.25] * 5, f32)]
# Halves between codes: the last value makes the mean sqrt(7), so that codes are the values rounded; the largest is 127.
halves = [0.5, -1.5, 2.5, -2.5, 3.5, -4.5, 6.5, 7.5, -7.5, -8.5, 0, 0, 0, 0, 0, 0, 0, 0, 0]
rest = f32(20 * float(np.sqrt(f32(7))) - float(np.abs(halves).sum()))
rows += [np.array(halves + [rest], f32)]
assert f32(math.fsum(map(abs, map(float, rows[-1]))) / 20) == np.sqrt(f32(7))
rows += [np.array([127, 0.5, 1.5, -2.5, -0.5, 126.5, 63.5, -127], f32)]
# One value alone is cut off by int4; values below the least scale; large and small ones.
rows += [np.array([100] + [0.01] * 31, f32), np.array([-100] + [0.01] * 30, f32)]
rows += [np.array([1e-6, -3e-6, 9e-6, 2e-6], f32), np.array([1e30, -2e30, 3e30, 1e-30], f32)]

out = []
for x in rows:
    case = {"x": bits(x)}
    for name, quantiser in (("int8", int8), ("int4", int4), ("top", top)):
        q, step = quantiser(x)
        case[name] = {"codes": q.tolist(), "step": bits(step)[0]}
    block = 1
    while len(x) % (2 * block) == 0 and block < 1024:
        block *= 2
    turned = hadamard(x, block)
    case["hadamard"] = {"block": block, "x": bits(turned)}
    for name, quantiser in (("int8", int8), ("int4", int4)):
        q, step = quantiser(turned)
        case["hadamard"][name] = {"codes": q.tolist(), "step": bits(step)[0]}
    out.append(case)

# Straight through: every quantiser is `v + (q(v) - v).detach()`, and so is the choice of the half.
layers = []
tokens, inputs, outputs, block = 5, 24, 6, 8
h = np.ones((1, 1))
while len(h) < block:
    h = np.block([[h, h], [h, -h]]) / math.sqrt(2)
for name, quantiser, rotates in (("int4", int4, 0), ("top", top, 0), ("int4", int4, 1), ("int8", int8, 1)):
    x32, w32, g32 = (
        random.standard_normal(size).astype(f32)
        for size in ((tokens, inputs), (outputs, inputs), (tokens, outputs))
    )
    x32[1, 3] = x32[1, 4] = -x32[1, 5]
    x, w = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x32, w32))
    turned = x
    turned32 = x32
    if rotates:
        whole = torch.block_diag(*[torch.tensor(h)] * (inputs // block))
        turned = x @ whole.T
        turned32 = np.stack([hadamard(row, block) for row in x32])
    rounded = np.stack([q * float(step) for q, step in map(quantiser, turned32)])
    m = float(f32(np.abs(w32.astype(np.float64)).mean()))
    trits = np.clip(np.rint(w32 / m), -1, 1)
    xq = turned + (torch.tensor(rounded) - turned).detach()
    wq = w + (torch.tensor(trits * m) - w).detach()
    y = xq @ wq.T
    y.backward(torch.tensor(g32, dtype=torch.float64))
    layers.append({
        "rounding": name, "block": block if rotates else 1, "tokens": tokens, "inputs": inputs, "outputs": outputs,
        "x": bits(x32.ravel()), "w": bits(w32.ravel()), "g": bits(g32.ravel()), "y": bits(y.detach().numpy().ravel()),
        "dx": bits(x.grad.numpy().ravel()), "dw": bits(w.grad.numpy().ravel()),
    })

with open(sys.argv[1] + "/fewer_bits.json", "w") as file:
    json.dump({"rows": out, "layers": layers}, file, separators=(",", ":"))
    file.write("\n")
