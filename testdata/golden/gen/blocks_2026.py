"""Golden vectors of the block encodings that joined in 2026: `blocks_2026.py OUT [MLX]`.

Float blocks (Q4_1, Q5_0, Q5_1, Q2_K to Q5_K, and Q4_0, Q8_0, Q6_K and TQ1_0 again) are random bytes in which every byte value occurs, decoded by the `gguf` package.
Trit blocks (Q2_0, PQ2_0, PTQ1_0, Q1_0, STQ1_0), which it does not know, follow the formulas of the formats, in NumPy; blocks are made
from trits by one formula and read back by another. With MLX given (a Python that has `mlx`), it decodes the 2-bit matrix."""
import json, os, subprocess, sys
import numpy as np
from gguf import quants, GGMLQuantizationType as T

OUT = sys.argv[1]
rng = np.random.default_rng(20261127)
hx = lambda a: np.ascontiguousarray(a).view(np.uint8).tobytes().hex()
signs = lambda t: "".join("-0+"[int(x) + 1] for x in np.asarray(t).ravel())
f16 = lambda x: np.frombuffer(np.float16(x).tobytes(), np.uint8)


def dump(name, obj):
    with open(os.path.join(OUT, name), "w") as f:
        json.dump(obj, f, separators=(",", ":"))
        f.write("\n")


# ---------- floats ----------
KINDS = {  # bytes of a block, weights, where the f16 numbers are
    "Q4_1": (20, 32, (0, 2)), "Q5_0": (22, 32, (0,)), "Q5_1": (24, 32, (0, 2)),
    "Q2_K": (84, 256, (80, 82)), "Q3_K": (110, 256, (108,)), "Q4_K": (144, 256, (0, 2)), "Q5_K": (176, 256, (0, 2)),
}
# Older ones, whose first goldens do not have every byte. In TQ1_0 there are bytes that no encoder writes.
MORE = {"Q4_0": (18, 32, (0,)), "Q8_0": (34, 32, (0,)), "Q6_K": (210, 256, (208,)), "TQ1_0": (54, 256, (52,))}
cases = []


def floats(kinds, rng):
    for name, (size, weights, halves) in kinds.items():
        keep = np.delete(np.arange(size), [at + i for at in halves for i in (0, 1)])
        count = -(-256 // len(keep)) + 1
        codes = np.concatenate([rng.permutation(256), rng.integers(0, 256, count * len(keep) - 256)])
        blocks = np.zeros((count, size), np.uint8)
        blocks[:, keep] = codes.reshape(count, -1)
        for nth in range(count):
            for at in halves:
                value = rng.standard_normal() * [1e-3, 0.1, 30.0][nth % 3]
                # Trits have no scale below 0.
                blocks[nth, at : at + 2] = f16(abs(value) if name == "TQ1_0" else value)
        values = quants.dequantize(blocks.reshape(-1), T[name]).astype(np.float32)
        assert values.size == count * weights and np.isfinite(values).all()
        cases.append({"type": name, "weights": count * weights, "bytes_hex": hx(blocks), "f32_hex": hx(values)})


floats(KINDS, rng)
floats(MORE, np.random.default_rng(42))
dump("float_blocks.json", {"decoded_by": "the gguf package", "cases": cases})


# ---------- trits ----------
def q2_0(trits, d, group):
    out = []
    for block, scale in zip(np.asarray(trits).reshape(-1, group), d):
        code = (block + 1).astype(np.uint8).reshape(-1, 4)
        out.append(np.concatenate([f16(scale), code @ np.array([1, 4, 16, 64], np.uint8)]))
    return np.concatenate(out).astype(np.uint8)


def q2_0_back(data, group):
    blocks = data.reshape(-1, 2 + group // 4)
    j = np.arange(group)
    return ((blocks[:, 2 + j // 4] >> (2 * (j % 4))) & 3).astype(int) - 1


ORDER = [(16 * n + m, m, n) for m in range(16) for n in range(5)] + \
        [(80 + 8 * n + m, 16 + m, n) for m in range(8) for n in range(5)] + \
        [(120 + 2 * n + h, 24 + h, n) for h in range(2) for n in range(4)]
assert sorted(e for e, _, _ in ORDER) == list(range(128))


def ptq1_0(trits, d):
    out = []
    for block, scale in zip(np.asarray(trits).reshape(-1, 128), d):
        number = np.zeros(26, int)
        for e, byte, n in ORDER:
            number[byte] += (block[e] + 1) * 3 ** (4 - n)
        out.append(np.concatenate([-(-256 * number // 243), f16(scale)]))
    return np.concatenate(out).astype(np.uint8)


def ptq1_0_back(data):
    blocks = data.reshape(-1, 28).astype(int)
    out = np.zeros((len(blocks), 128), int)
    for e, byte, n in ORDER:
        out[:, e] = ((((blocks[:, byte] * 3**n) & 255) * 3) >> 8) - 1
    return out


def q1_0_back(data):
    blocks = data.reshape(-1, 18)
    j = np.arange(128)
    return ((blocks[:, 2 + j // 8] >> (j % 8)) & 1).astype(int) * 2 - 1


CB = bytes.fromhex("A9892909A68626069A921A126A624A42012181A1042484A41018909840486068")
assert all(CB[16 + i] == 0xAA - CB[i] for i in range(16)) and len(set(CB)) == 32


def stq1_0_back(data):
    out = np.zeros((data.size // 42, 256), int)
    for b, block in enumerate(data.reshape(-1, 42).astype(int)):
        for g in range(64):
            code, s = (block[g // 2] >> 4 * (g & 1)) & 15, (block[32 + g // 8] >> (g % 8)) & 1
            for p in range(4):
                out[b, 64 * (g // 16) + g % 16 + 16 * p] = ((CB[(s << 4) | code] >> 2 * p) & 3) - 1
    return out


def scales(count):
    d = np.float16(rng.uniform(0.005, 0.2, count)).astype(np.float32)
    d[-1] = d[0]
    return d


cases = []


def case(name, cols, data, trits, d, made):
    cases.append({"type": name, "cols": cols, "bytes_hex": hx(data), "trits": signs(trits), "scales": [float(x) for x in d], "written": made})


every = np.array([[(v // 3**i) % 3 - 1 for i in range(4)] for v in range(81)])  # every byte of four codes
for name, group in (("Q2_0", 64), ("PQ2_0", 128)):
    trits = np.concatenate([every.ravel(), rng.integers(-1, 2, 512 - 324 % 512)])[:512]
    d = scales(512 // group)
    data = q2_0(trits, d, group)
    assert (q2_0_back(data, group).ravel() == trits).all()
    case(name, 512, data, trits, d, True)
every = np.array([[(v // 3**i) % 3 - 1 for i in range(5)] for v in range(243)])
trits = rng.integers(-1, 2, (11, 128))
for nth, five in enumerate(every):  # every number of five digits somewhere in the 24 bytes of a block
    places = [e for e, byte, _ in ORDER if byte == nth % 24]
    trits[nth // 24, places] = five
d = scales(11)
data = ptq1_0(trits, d)
assert (ptq1_0_back(data) == trits).all()
case("PTQ1_0", 11 * 128, data, trits, d, True)
blocks = np.zeros((11, 28), np.uint8)  # every byte, those that no encoder writes too
blocks[:, :24] = (np.arange(264) % 256).reshape(11, 24)
blocks[:, 24:26] = rng.integers(0, 256, (11, 2))
for block, scale in zip(blocks, d):
    block[26:] = f16(scale)
case("PTQ1_0", 11 * 128, blocks, ptq1_0_back(blocks), d, False)
blocks = np.zeros((16, 18), np.uint8)
blocks[:, 2:] = rng.permutation(256).reshape(16, 16)
d = scales(16)
for block, scale in zip(blocks, d):
    block[:2] = f16(scale)
case("Q1_0", 16 * 128, blocks, q1_0_back(blocks), d, False)
blocks = np.zeros((8, 42), np.uint8)
blocks[:, :32] = rng.permutation(256).reshape(8, 32)
blocks[:, 32:40] = rng.integers(0, 256, (8, 8))
d = scales(8)
for block, scale in zip(blocks, d):
    block[40:] = f16(scale)
back = stq1_0_back(blocks)
assert ((back.reshape(8, 4, 4, 16) == 0).sum(axis=2) == 1).all()  # one zero in each four
case("STQ1_0", 8 * 256, blocks, back, d, False)
dump("trit_blocks.json", {"decoded_by": "the formats' formulas; trits as - 0 +, scales block by block", "cases": cases})

# ---------- MLX ----------
MLX = """
import sys, json
import numpy as np, mlx.core as mx
w, s, b = (np.load(sys.argv[1] + x) for x in ('/w.npy', '/s.npy', '/b.npy'))
out = mx.dequantize(mx.array(w), mx.array(s), mx.array(b), group_size=128, bits=2)
np.save(sys.argv[1] + '/out.npy', np.array(out.astype(mx.float32)))
"""
if len(sys.argv) > 2:
    import tempfile
    rows, cols = 3, 512
    codes = rng.integers(0, 3, (rows, cols))
    codes[0, :324] = (every[:81, :4] + 1).ravel()[:324]
    words = (codes.reshape(rows, -1, 16).astype(np.uint64) << (2 * np.arange(16, dtype=np.uint64))).sum(axis=2).astype(np.uint32)
    s = np.float16(rng.uniform(0.005, 0.2, (rows, cols // 128)))
    with tempfile.TemporaryDirectory() as d:
        for name, a in (("w", words), ("s", s), ("b", -s)):
            np.save(f"{d}/{name}.npy", a)
        subprocess.run([sys.argv[2], "-c", MLX, d], check=True)
        out = np.load(f"{d}/out.npy")
    # MLX computes in the scales' f16; a trit times an f16 is exact there.
    assert (out == (codes - 1) * np.repeat(s.astype(np.float32), 128, axis=1)).all()
    dump("mlx_2bit.json", {"decoded_by": "mlx.core.dequantize", "rows": rows, "cols": cols, "group": 128, "words_hex": hx(words),
                           "scales_f16_hex": hx(s), "biases_f16_hex": hx(-s), "f32_hex": hx(out.astype(np.float32))})
