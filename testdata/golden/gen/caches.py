"""What the rotated caches make of a key or a value, in NumPy: `caches.py OUT` writes caches.json. Floats are told by their bits."""
import json, sys
import numpy as np

f32 = np.float32


def hadamard(row):
    """Normalised, over blocks of the largest power of two that divides the row; steps of 1, 2, 4 and so on."""
    n = len(row) & -len(row)
    out = row.reshape(-1, n)
    step = 1
    while step < n:
        pairs = out.reshape(len(out), n // (2 * step), 2, step)
        out = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], 2).reshape(-1, n)
        step *= 2
    return (out * (f32(1) / np.sqrt(f32(n)))).astype(f32).reshape(-1)


def grouped(row, bits):
    """An f16 scale for every 32 numbers, by which the one of the largest magnitude (of two the negative) is the lowest code."""
    levels, out = f32(2 ** (bits - 1)), []
    for group in np.split(row, range(32, len(row), 32)):
        least, most = min(group.min(), f32(0)), max(group.max(), f32(0))
        extreme = least if -least >= most else most
        scale = f32(np.float16(extreme / -levels))
        codes = np.clip(np.rint(group * (f32(1) / scale if scale != 0 else f32(0))), -levels, levels - 1)
        out.append((codes * scale).astype(f32))
    return np.concatenate(out)


def bits_of(row):
    return row.astype(f32).view(np.uint32).tolist()


random = np.random.default_rng(19)
cases = []
for dim in (2, 36, 64, 100, 128):
    normal = random.standard_normal(dim).astype(f32)
    outlier = normal.copy()
    outlier[1] = 60
    ties = (np.arange(dim) % 17 - 8).astype(f32) / f32(2)
    for row in (normal, outlier, ties, normal * f32(1e-5), np.zeros(dim, f32)):
        case = {"row": bits_of(row)}
        for bits in (8, 4, 3):
            case[f"q{bits}"] = bits_of(hadamard(grouped(hadamard(row), bits)))
        cases.append(case)
with open(sys.argv[1] + "/caches.json", "w") as out:
    json.dump({"cases": cases}, out)
