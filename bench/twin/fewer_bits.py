"""The same small model with activations in eight bits, as a BitNet a4.8 and as a BitNet v2, from scratch and in two stages:
held-out losses, and a curve.

    python bench/twin/fewer_bits.py TERN CONFIG OUT [--first 800] [--only NAME | --plot]

CONFIG is a configuration of `tern train` with data, tokenizer, sizes and steps. Runs that are in OUT already go on or are read.
A run of two stages is a copy of the one in eight bits at step `--first`, which CONFIG must save (`save_every`, `keep`).
With `--only NAME` there is one run, and with `--plot` none: the table and OUT/fewer-bits.svg of what is there.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import curves

# A run's folder, its activations, and the run in eight bits that it goes on from.
RUNS = [
    ("a8", "a8", None), ("a4.8", "a4.8", None), ("a8 then a4.8", "a4.8", "a8"),
    ("v2-a8", "v2-a8", None), ("v2-a8 then v2-a4", "v2-a4", "v2-a8"), ("a8 then a4", "a4", "a8"),
    ("v2-a4", "v2-a4", None), ("a4", "a4", None),
]
parser = argparse.ArgumentParser()
parser.add_argument("tern", type=lambda text: str(Path(text).resolve()))
parser.add_argument("config")
parser.add_argument("out", type=Path)
parser.add_argument("--first", type=int, default=800)
parser.add_argument("--only")
parser.add_argument("--plot", action="store_true")
args = parser.parse_args()

for name, activations, before in RUNS:
    folder = args.out / name.replace(" ", "-")
    if args.plot or args.only not in (None, name) or (folder / "masters").exists():
        continue
    if before and not folder.exists():
        shutil.copytree(args.out / before, folder)
        shutil.rmtree(folder / "masters", ignore_errors=True)
        for path in (folder / "checkpoints").iterdir():
            if int("".join(filter(str.isdigit, path.name))) != args.first:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    what = [str(folder)] if folder.exists() else [args.config, "--out", str(folder)]
    subprocess.run([args.tern, "train", *what, "--activations", activations], check=True)

losses = {}
for name, _, _ in RUNS:
    path = args.out / name.replace(" ", "-") / "metrics.jsonl"
    if path.exists():
        lines = map(json.loads, path.read_text().splitlines())
        losses[name] = {line["step"]: line["loss"] for line in lines if line["kind"] == "validation"}
losses = {name: found for name, found in losses.items() if found}
last = max(step for found in losses.values() for step in found)
print("| activations | step | nats a token | perplexity | loss beside a8 | perplexity beside a8 |\n|---|--:|--:|--:|--:|--:|")
for name, found in losses.items():
    step = max(found)
    loss, base = found[step], losses["a8"][step]
    print(f"| {name} | {step} | {loss:.4f} | {math.exp(loss):.2f} | {100 * (loss / base - 1):+.2f} % | "
          f"{100 * (math.exp(loss - base) - 1):+.2f} % |")
# What lies before a second stage is the other run's, and the beginning would flatten the rest.
plot = []
for name, _, before in RUNS:
    if name in losses:
        points = [at for at in sorted(losses[name].items()) if at[0] >= max(last // 5, args.first if before else 0)]
        plot.append((name, points, bool(before)))
title = "held-out loss by activations"
(args.out / "fewer-bits.svg").write_text(curves.svg(title, "steps", "nats a token", plot, width=900))
