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


def lanes_sum(numbers):
    """Number i is added in lane i % 16, one after another; then the upper half of the lanes to the lower, and so on."""
    lanes = np.zeros(16, f32)
    for some in np.split(np.pad(numbers, (0, -len(numbers) % 16)), -(-len(numbers) // 16)):
        lanes = lanes + some
    while len(lanes) > 1:
        lanes = lanes[:len(lanes) // 2] + lanes[len(lanes) // 2:]
    return lanes[0]


def grouped(row, bits):
    """An f16 scale for every 128 numbers. By the first that is tried the one of the largest magnitude (of two the negative) is the
    lowest code; with few bits smaller ones are tried too, and the one of the least squared error is kept."""
    levels, out = f32(2 ** (bits - 1)), []
    for group in np.split(row, range(128, len(row), 128)):
        least, most = min(group.min(), f32(0)), max(group.max(), f32(0))
        extreme = least if -least >= most else most
        tries = []
        for factor in [1.0] if bits == 8 else [1.0, 0.9, 0.8]:
            scale = f32(np.float16(extreme * f32(factor) / -levels))
            codes = np.rint(np.clip(group * (f32(1) / scale if scale != 0 else f32(0)), -levels, levels - 1))
            values = (codes * scale).astype(f32)
            tries.append((lanes_sum((values - group) ** 2), values))
        out.append(min(tries, key=lambda one: one[0])[1])
    return np.concatenate(out)


def bits_of(row):
    return row.astype(f32).view(np.uint32).tolist()


random = np.random.default_rng(19)
cases = []
for dim in (2, 36, 64, 100, 128, 200):
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
