"""The quantisers of BitNet a4.8 and v2 by their formulas, for one row (NumPy, float32).

int8   s = 127 / max(max |x|, 1e-5),         code = rint(x s)
int4   s = sqrt(7) / max(mean |x|, 1e-5),    code = clip(rint(x s), -8, 7); the mean is exact, then rounded to float32
top    int8 of the ceil(n / 2) largest |x|, of equal ones the first; 0 for the others
H      blocks of b: sums and differences of neighbours, then of pairs, ...; times 1 / sqrt(b)
The paper adds an epsilon that it does not give to the denominators; the code that was published for int8 has the maximum.
"""

import math

import numpy as np

f32 = np.float32
bits = lambda a: [int(v) for v in np.atleast_1d(np.asarray(a, f32)).view(np.uint32)]


def codes(x, s, low, high):
    return np.clip(np.rint(x * s), low, high).astype(int)


def int8(x):
    s = f32(127) / np.maximum(np.abs(x).max(), f32(1e-5))
    return codes(x, s, -128, 127), f32(1) / s


def int4(x):
    mean = f32(math.fsum(float(abs(v)) for v in x) / len(x))
    s = np.sqrt(f32(7)) / np.maximum(mean, f32(1e-5))
    return codes(x, s, -8, 7), f32(1) / s


def top(x):
    q, step = int8(x)
    kept = np.argsort(-np.abs(x), kind="stable")[: (len(x) + 1) // 2]
    mask = np.zeros(len(x), int)
    mask[kept] = 1
    return q * mask, step


def hadamard(x, block):
    given = x.reshape(-1, block)
    x, half = given, 1
    while half < block:
        pairs = x.reshape(-1, block // (2 * half), 2, half)
        a, b = pairs[:, :, 0], pairs[:, :, 1]
        x = np.stack([a + b, a - b], 2).reshape(-1, block)
        half *= 2
    out = (x * (f32(1) / np.sqrt(f32(block)))).reshape(-1)
    # The definition, by the matrix.
    h = np.ones((1, 1))
    while len(h) < block:
        h = np.block([[h, h], [h, -h]]) / math.sqrt(2)
    want = (given.astype(np.float64) @ h.T).reshape(-1)
    assert np.allclose(out, want, atol=1e-5 * max(1.0, np.abs(want).max()))
    return out
