"""What three values cost: two sizes, each trained ternary and as its float twin, on the same data in the same order.

    python bench/twin/twin.py TERN DATA OUT [--steps N] [--validation-tokens N] [--name 2026-11-21-twin]

DATA is what models/story/prepare.py lays out. OUT gets a tokenizer, a configuration and a run for each of the four, one after
the other; called again, it goes on where it was cut off, and does what is done already no more. At the end OUT holds
NAME.md (the record), NAME.json (all validations) and NAME.svg (the plot). With the steps it has by default the four take
about two hours on two cores.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import curves

# Names, and the keys that make the sizes: 1.4 M and 4.3 M parameters with the tied embedding of 4096 tokens.
SIZES = {"1.4 M": dict(dim=128, layers=4, hidden=384, heads=2, kv_heads=2, head_dim=64),
         "4.3 M": dict(dim=256, layers=4, hidden=704, heads=4, kv_heads=4, head_dim=64)}
KINDS = {"ternary": True, "float": False}


def config(size, kind, args):
    keys = dict(
        out=f"{size.replace(' ', '')}-{kind}", tokenizer="tokenizer", train=[str(args.data / "stories.jsonl")],
        validation=0.0, validation_files=[str(args.data / "held-out.jsonl")], validation_tokens=args.validation_tokens,
        ternary=KINDS[kind], length=256, context=256, sequences=8, steps=args.steps, schedule="cosine",
        warmup=max(1, args.steps // 40), rate=2e-3, weight_decay=0.1, log_every=max(1, args.steps // 400),
        validate_every=max(1, args.steps // 20), save_every=0, save_minutes=2.0, **SIZES[size])
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def main():
    parser = argparse.ArgumentParser()
    for name in ["tern", "data", "out"]:
        parser.add_argument(name, type=lambda text: Path(text).resolve())
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--validation-tokens", type=int, default=100000)
    parser.add_argument("--name", default="2026-11-21-twin")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "tokenizer/tokenizer.json").exists():
        subprocess.run([args.tern, "train", "tokenizer", args.data / "stories.jsonl", "--vocab", "4096", "--out",
                        args.out / "tokenizer"], check=True)
    runs = {}
    for size in SIZES:
        for kind in KINDS:
            text = config(size, kind, args)
            path = args.out / f"{size.replace(' ', '')}-{kind}.toml"
            path.write_text(text)
            out = args.out / f"{size.replace(' ', '')}-{kind}"
            print(f"{size} {kind}", file=sys.stderr, flush=True)
            subprocess.run([args.tern, "train", path], check=True)
            runs[size, kind] = lines(out)

    found = {key: [line for line in all_lines if line["kind"] == "validation"] for key, all_lines in runs.items()}
    tokens = 8 * 256 / 1e6
    plot = [(f"{size} {kind}", [(line["step"] * tokens, line["loss"]) for line in found[size, kind]], kind == "float")
            for size, kind in runs]
    title = f"Held-out loss, {args.steps * tokens:.1f} M tokens"
    (args.out / f"{args.name}.svg").write_text(curves.svg(title, "million tokens", "nats a token", plot))
    record = {f"{size} {kind}": [{key: line[key] for key in ["step", "loss", "bits_per_char"]} for line in all_lines]
              for (size, kind), all_lines in found.items()}
    (args.out / f"{args.name}.json").write_text(json.dumps(record, indent=1) + "\n")

    version = subprocess.run([args.tern, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    text = [f"# Ternary and its float twin\n\n{version}; {args.steps} steps of {8 * 256} tokens, cosine from 2e-3, the same data in",
            "the same order, the same first weights; only `ternary` differs. Held out: stories that no run saw.\n",
            f"    python bench/twin/twin.py TERN DATA OUT --steps {args.steps} --validation-tokens {args.validation_tokens}\n",
            "| parameters | ternary: nats a token | float | gap | ternary: bits a character | float | minutes, ternary | float |",
            "|---|---|---|---|---|---|---|---|"]
    for size in SIZES:
        one, two = found[size, "ternary"][-1], found[size, "float"][-1]
        minutes = [max(line.get("seconds", 0) for line in runs[size, kind]) / 60 for kind in KINDS]
        text.append(f"| {size} | {one['loss']:.4f} | {two['loss']:.4f} | {100 * (one['loss'] / two['loss'] - 1):+.1f}% "
                    f"| {one['bits_per_char']:.4f} | {two['bits_per_char']:.4f} | {minutes[0]:.1f} | {minutes[1]:.1f} |")
    text.append(f"\n![held-out loss over tokens]({args.name}.svg)\n")
    (args.out / f"{args.name}.md").write_text("\n".join(text))
    print("\n".join(text))


main()
