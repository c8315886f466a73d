"""The model card of `story`, from a finished run:

    python models/story/card.py TERN RUN_TOML MODEL.gguf OUT [--twin TWIN_TOML] [--note "what else is to be said"]

RUN_TOML is the configuration that was run, with its data and its `out` where it says; MODEL.gguf is what was made of it.
Writes OUT/README.md and OUT/loss.svg. Every figure is measured here: the held-out loss by `tern train check`, which reads the
run's last checkpoint and the model file; samples are what `tern run` writes with the seeds that stand beside them.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import curves

# What a sample begins with; its seed is its number.
PROMPTS = ["Once upon a time", "Once upon a time, there was a little bird", "One day, a boy named Tom", "Lily found a",
           "The old fisherman", "It was raining, and the dog", "Mia and her grandma", "In a small village by the sea",
           "The dragon was", "Ben did not want to share his"]
CHATS = ["Hello!", "Who are you?", "Tell me a story about a cat.", "What is the capital of France?"]
AGAIN = ["--temp", "0.7", "--top-p", "0.95", "-n", "220"]

SOURCES = """| data | licence | from |
|---|---|---|
| TinyStories (small slices of it) | CDLA-Sharing-1.0 | Eldan and Li, [arXiv:2305.07759](https://arxiv.org/abs/2305.07759); slices kept by s-ajaykumar/smallGPT, mines-opt-ml/decoding-gpt, yuninxia/moe-routing-bench, czhou578/train-gpt2, Aditya584cloud/small-scale-gpt2-type-from-scratch |
| African Storybook and Pratham Books | CC BY; every story names its author in the data | global-asp/asp-source, global-asp/pb-source |
| FairytaleQA (the tales) | Apache-2.0; the tales are in the public domain | uci-soe/FairytaleQAData |
| children's books of Project Gutenberg | public domain in the USA | GITenberg, birmingham-ccr/corpora (ChiLit) |
| Topical-Chat | CDLA-Sharing-1.0 | alexa/Topical-Chat |
| Taskmaster-4 | CC BY 4.0 | google-research-datasets/Taskmaster |
| requests for stories, small talk | MIT OR Apache-2.0 | written for this project, in [prepare.py](prepare.py) |"""

CARD = """# story

The model inside `tern`: what runs when no model is named. It continues a story for small children in plain English, and
answers a few simple turns of a chat. It knows nothing else.

| | |
|---|---|
| kind | BitNet b1.58: ternary weights, int8 activations, ReLU² gate, sub-norms, tied embedding |
| size | {layers} layers, {dim} wide, feed-forward {hidden}, {heads} heads of {head_dim} over {kv_heads} key-value heads: {ternary:.2f} M ternary weights and an embedding of {vocab} × {dim}; {megabytes:.2f} MB |
| context | {context} tokens |
| tokenizer | byte-level BPE, {vocab} tokens, learnt from the training stories and chats |
| chat | `<\\|user\\|>question<\\|end\\|><\\|assistant\\|>answer<\\|end\\|>`; a system prompt is ignored |
| prompts | `tern run` continues beginnings as text (`tern.prompt` = `raw`) and answers questions and requests by the chat template, as `tern chat` does |
| trained by | `tern train` on {where}; {steps} steps, {tokens:.1f} M tokens, {hours:.1f} hours of training, {epochs:.1f} epochs |
| licence | MIT OR Apache-2.0 for the weights, as far as they are ours to license; the data's licences stand below |

## How good it is

On {held_documents} held-out TinyStories ({held_tokens} tokens, {held_chars} characters) that it never saw:

| | nats a token | perplexity | bits a character |
|---|---|---|---|
{figures}

{agreement}
{note}
![loss over steps](loss.svg)

## Data

{sources}

TinyStories was written by GPT-3.5 and GPT-4. No text that a Llama model wrote is among the data. The stories were
deduplicated by their beginnings, and every thirtieth, by the hash of its beginning, was held out of the training. The
tokenizer was learnt from an earlier layout of the same stories and chats. On a conversation the loss is on the assistant's
turns only.

## To train it again

DATA is a folder with the files of the table, laid out and named as [prepare.py](prepare.py) reads them. In a copy of this
folder:

```sh
python prepare.py DATA data                 # the tokenizer is in tokenizer/
tern train train.toml                       # Ctrl-C saves; the same command goes on
tern convert run/masters story.gguf --to t5 --embedding {embedding}
tern train check run story.gguf             # what was trained is what runs
```

The same data, tokenizer and seed give the same weights bit for bit, whatever the number of threads or interruptions, by
one version of Tern on CPUs with the same instruction set. What was run:

```toml
{config}```

## Ten samples

Unedited: `tern run story PROMPT {again} --seed N`. The prompt is in bold.

{samples}

## A few turns

Greedy: `tern chat --temp 0`, each asked afresh.

{chats}

## Limits

It is tiny. It knows the words of a small child's stories and no facts; names change, things get lost, and what happens
need not follow from what happened before. It may contradict itself within a paragraph. It speaks English only. It is no assistant,
and nothing it says is advice. The stories it learnt from were written by other language models and by authors of
another time (children's books in the public domain); their clichés and views may show.
"""


def run(*words, text=None):
    done = subprocess.run([str(word) for word in words], input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def metrics(toml, keys):
    return [json.loads(line) for line in (toml.parent / keys["out"] / "metrics.jsonl").read_text().splitlines()]


def quoted(text):
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines())


def main():
    parser = argparse.ArgumentParser()
    for name in ["tern", "toml", "model", "out"]:
        parser.add_argument(name, type=Path)
    parser.add_argument("--twin", type=Path, help="configuration of the float twin's run")
    parser.add_argument("--where", default="two CPU cores (Intel Xeon, Sapphire Rapids class); no GPU helped")
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    tern, keys = args.tern.resolve(), tomllib.loads(args.toml.read_text())
    check = json.loads(run(tern, "train", "check", args.toml.parent / keys["out"], args.model, "--json"))
    about = json.loads(run(tern, "inspect", args.model, "--json"))
    lines = metrics(args.toml, keys)
    steps = [line for line in lines if line["kind"] == "step" and line["step"] <= check["step"]]
    held = [line for line in lines if line["kind"] == "validation" and line["step"] <= check["step"]]
    last = steps[-1]
    shape = {key: about["config"][key] for key in ["layers", "dim", "hidden", "heads", "kv_heads", "head_dim", "vocab", "context"]}
    matrices = [t for t in about["tensors"] if t["encoding"] in ("T5", "I2")]
    ternary = sum(t["dims"][0] * t["dims"][1] for t in matrices) / 1e6
    embedding = next(t["encoding"] for t in about["tensors"] if "embd" in t["name"]).lower()

    row = lambda name, side: f"| {name} | {side['loss']:.4f} | {side['perplexity']:.4f} | {side['bits_per_char']:.4f} |"
    figures = [row("the trainer's own forward pass", check["trainer"])]
    if check["rounded"] != check["trainer"]:
        figures.append(row(f"the same with the file's {embedding} embedding", check["rounded"]))
    figures.append(row("this file in the engine", check["engine"]))
    if args.twin:
        twin = tomllib.loads(args.twin.read_text())
        end = [line for line in metrics(args.twin, twin) if line["kind"] == "validation"][-1]
        import math
        figures.append(f"| its float twin, not quantised, after {end['step']} steps | {end['loss']:.4f} | {math.exp(end['loss']):.4f} "
                       f"| {end['bits_per_char']:.4f} |")
    agreement = "The likeliest token is the same at every one of them." if check["other_likeliest"] == 0 else (
        f"The likeliest token is the same at all of them but {check['other_likeliest']}, where the two lie at most "
        f"{check['widest_tie']:.1e} apart, both with the file's embedding.")
    if check["recorded_loss"] is not None:
        agreement += f" The run itself wrote down {check['recorded_loss']:.4f} nats."

    trained = curves.thinned([(line["step"], line["loss"]) for line in steps])
    trained = [point for point in trained if point[0] > steps[-1]["step"] * 0.01]
    curve = [("training", trained, False), ("held out", [(line["step"], line["loss"]) for line in held], False)]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "loss.svg").write_text(curves.svg("Training of `story`", "steps", "nats a token", curve))

    samples = []
    for seed, prompt in enumerate(PROMPTS, 1):
        text = json.loads(run(tern, "run", args.model, prompt, *AGAIN, "--seed", seed, "--json"))["text"]
        samples.append(f"{seed}.\n\n" + quoted(f"**{prompt}**{text}"))
    chats = [f"**{ask}**\n\n" + quoted(run(tern, "chat", args.model, "--temp", "0", text=ask + "\n")) for ask in CHATS]
    held_out = args.toml.parent / keys["validation_files"][0]
    card = CARD.format(
        **shape, ternary=ternary, megabytes=args.model.stat().st_size / 1e6, where=args.where, steps=last["step"],
        tokens=last["tokens"] / 1e6, hours=last["seconds"] / 3600, epochs=last["epoch"] + 1, embedding=embedding,
        held_documents=sum(1 for _ in held_out.open()), held_tokens=check["tokens"], held_chars=check["characters"],
        figures="\n".join(figures), agreement=agreement, note=args.note + "\n" if args.note else "", sources=SOURCES,
        config=re.sub(r"^#.*\n", "", args.toml.read_text(), flags=re.M), again=" ".join(AGAIN),
        samples="\n\n".join(samples), chats="\n\n".join(chats))
    (args.out / "README.md").write_text(card)
    print(f"wrote {args.out / 'README.md'} and {args.out / 'loss.svg'}", file=sys.stderr)


main()
