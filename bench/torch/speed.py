"""Tokens a second of whole training steps, Tern and PyTorch in turns: same model, same masters, same tokens, two threads.

    cargo build --release -p tern-train --example torch_run
    python bench/torch/speed.py TORCH_RUN CONFIG.toml OUT [ROUNDS]

CONFIG.toml is a copy of speed.toml with the data and the tokenizer beside it. Every round runs Tern, then PyTorch in f32, then
PyTorch with bf16 autocast, each as a process of its own; the first two steps of each do not count. Prints a table of medians
of rounds; a round's figure is the median of its steps.
"""

import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

RUN, CONFIG, OUT = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
ROUNDS = int(sys.argv[4]) if len(sys.argv) > 4 else 3
COMPARE = Path(__file__).parent / "compare.py"


def tern():
    # A run of its own each time, not a resumed one.
    shutil.rmtree(CONFIG.parent / tomllib.loads(CONFIG.read_text())["out"] / "checkpoints", ignore_errors=True)
    subprocess.run([RUN, CONFIG, OUT], check=True, capture_output=True)
    return [float(line.split()[2]) for line in (OUT / "losses.txt").read_text().splitlines()]


def torch(kind):
    done = subprocess.run([sys.executable, COMPARE, CONFIG, OUT, kind], check=True, capture_output=True, text=True)
    apart = float(re.search(r"largest difference ([\d.]+)%", done.stdout)[1])
    assert apart < 1, f"{kind}: losses {apart}% apart, so it is not the same work"
    return [float(speed) for speed in re.findall(r"(\d+) tokens/s", done.stdout)]


WAYS = [("Tern", tern), ("PyTorch f32", lambda: torch("f32")), ("PyTorch bf16 autocast", lambda: torch("bf16"))]
rounds = {name: [] for name, _ in WAYS}
for number in range(ROUNDS):
    for name, way in WAYS:
        rounds[name].append(statistics.median(way()[2:]))
        print(f"round {number + 1}: {name}: {rounds[name][-1]:.0f}", file=sys.stderr, flush=True)
ours = statistics.median(rounds["Tern"])
print("| | tokens/s, median of rounds | each round | Tern is faster by |\n|---|---|---|---|")
for name, speeds in rounds.items():
    middle = statistics.median(speeds)
    print(f"| {name} | {middle:.0f} | {', '.join(f'{speed:.0f}' for speed in speeds)} | {ours / middle:.2f} |")
