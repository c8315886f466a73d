"""The model card of `story`, from a finished run:

    python models/story/card.py TERN RUN_TOML MODEL.gguf FIRST.gguf OUT

RUN_TOML is the configuration that was run, with its data and its `out` where it says; MODEL.gguf is what was made of it, and
FIRST.gguf the model that the run began with. Writes OUT/README.md and OUT/loss.svg. Every figure is measured here: the held-out
loss by `tern train check`, which reads the run's last checkpoint and the model file; bits a character, questions and subjects by
judge.py; samples are what `tern run` writes with the seeds that stand beside them.
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
import judge

# What a sample begins with; its seed is its number.
PROMPTS = ["Once upon a time", "Once upon a time, there was a little bird", "One day, a boy named Tom", "Lily found a",
           "The old fisherman", "It was raining, and the dog", "Mia and her grandma", "In a small village by the sea",
           "The dragon was", "Ben did not want to share his"]
# Ten of the questions of judge.json, one of each kind.
CHATS = [0, 7, 10, 16, 22, 29, 35, 42, 44, 46]
AGAIN = ["--temp", "0.7", "--top-p", "0.95", "-n", "220"]

SOURCES = """| data | licence | from |
|---|---|---|
| TinyStories (small slices of it) | CDLA-Sharing-1.0 | Eldan and Li, [arXiv:2305.07759](https://arxiv.org/abs/2305.07759); slices kept by s-ajaykumar/smallGPT, mines-opt-ml/decoding-gpt, yuninxia/moe-routing-bench, czhou578/train-gpt2, Aditya584cloud/small-scale-gpt2-type-from-scratch |
| African Storybook and Pratham Books (first stage) | CC BY; every story names its author in the data | global-asp/asp-source, global-asp/pb-source |
| FairytaleQA (the tales; first stage) | Apache-2.0; the tales are in the public domain | uci-soe/FairytaleQAData |
| children's books of Project Gutenberg (first stage) | public domain in the USA | GITenberg, birmingham-ccr/corpora (ChiLit) |
| Topical-Chat (first stage) | CDLA-Sharing-1.0 | alexa/Topical-Chat |
| Taskmaster-4 (first stage) | CC BY 4.0 | google-research-datasets/Taskmaster |
| requests for stories, small talk | MIT OR Apache-2.0 | written for this project, in [prepare.py](prepare.py) and [talk.py](talk.py) |"""

CARD = """# story

The model inside `tern`: what runs when no model is named. It continues a story for small children in plain English, and
answers simple turns of a chat with a small child. It knows nothing else.

| | |
|---|---|
| kind | BitNet b1.58: ternary weights, int8 activations, ReLU² gate, sub-norms, tied embedding |
| size | {layers} layers, {dim} wide, feed-forward {hidden}, {heads} heads of {head_dim} over {kv_heads} key-value heads: {ternary:.2f} M ternary weights and an embedding of {vocab} × {dim}; {megabytes:.2f} MB |
| context | {context} tokens |
| tokenizer | byte-level BPE, {vocab} tokens, learnt from the training stories and chats |
| chat | `<\\|user\\|>question<\\|end\\|><\\|assistant\\|>answer<\\|end\\|>`; a system message stands before it as `<\\|user\\|>message<\\|end\\|>` |
| prompts | `tern run` continues beginnings as text (`tern.prompt` = `raw`) and answers questions and requests by the chat template, as `tern chat` does |
| trained by | `tern train` on two CPU cores, no GPU helped: 5400 steps, 22.1 M tokens, from random weights, then {steps} steps, {tokens:.1f} M tokens, from the first stage's file |
| licence | MIT OR Apache-2.0 for the weights, as far as they are ours to license; the data's licences stand below |

## How good it is

{held_documents} TinyStories ({held_chars} characters) were held out of both stages. The first stage read stories with the lines of a
paragraph joined, the second reads them as they lie.

| | after the first stage | this file |
|---|---|---|
{judged}

The first row is `tern eval ppl MODEL held-out.jsonl --documents`; all of it is `python judge.py TERN MODEL held-out.jsonl`, anybody can run
it. The 50 questions and 8 requests stand in [judge.json](judge.json); none of them is in the training data word for word, though the same
facts are there in other words. Each request was made with eight seeds, at temperature 0.7 and top-p 0.95.

`tern train check` reads the first of these stories ({validation} tokens; lines of these are broken more often), cut to sequences:

| | nats a token | perplexity | bits a character |
|---|---|---|---|
{figures}

{agreement}

![loss over steps](loss.svg)

## Data

{sources}

TinyStories was written by GPT-3.5 and GPT-4. No text that a Llama model wrote is among the data. The stories were
deduplicated by their beginnings, and every thirtieth, by the hash of its beginning, was held out of the training: `hashes.txt` of
[prepare.py](prepare.py) lists both sides. Of the stories that answer a request, many are told of another hero than their author's: words and
names were replaced through the whole story, so that what is asked for is what is told of. The tokenizer was learnt from an earlier
layout of the same stories. On a conversation the loss is on the assistant's turns only.

## To train it again

DATA is a folder with the files of the table, laid out and named as [prepare.py](prepare.py) reads them. The first stage's recipe and
file are those of the commit `{first}`. In a copy of this folder:

```sh
git show {first}:engine/src/story.gguf > first.gguf
tern convert first.gguf base --to hf && cp tokenizer/tokenizer_config.json base/
python prepare.py DATA data
tern train train.toml                       # Ctrl-C saves; the same command goes on
tern convert run/masters story.gguf --to t5 --embedding {embedding}
tern train check run story.gguf             # what was trained is what runs
python judge.py tern story.gguf data/held-out.jsonl
```

With 384 columns TQ1_0 and TQ2_0 cannot hold it, so llama.cpp cannot run it. The same data, tokenizer and seed give the same weights bit
for bit, whatever the number of threads or interruptions, by one version of Tern on CPUs with the same instruction set. What was run
in the second stage:

```toml
{config}```

## Ten samples

Unedited: `tern run story PROMPT {again} --seed N`. The prompt is in bold.

{samples}

## Ten chats

As they came, greedy: `tern chat --temp 0`, each asked afresh. A ✗ is by the rule of [judge.py](judge.py).

{chats}

## Five stories

As they came: `tern chat {warm} --seed 1`. A ✗ is by the rule of [judge.py](judge.py).

{stories}

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


def verdicts(documents, characters, sides):
    """Rows of a table, with what each side came to."""
    rows = [("bits a character, each story by itself as it lies", [f"{bits:.4f}" for bits, *_ in sides])]
    rows.append(("questions answered, of 50", [str(sum(good for *_, good in questions)) for _, questions, _ in sides]))
    rows.append(("answers that are empty", [str(sum(not answer for _, answer, _ in questions)) for _, questions, _ in sides]))
    texts = [[answer for _, answer, _ in questions] + [story for _, told, _ in subjects for story in told] for _, questions, subjects in sides]
    rows.append(("answers and stories with words of the first stage's other talk", [str(sum(bool(judge.leaks(text)) for text in all)) for all in texts]))
    for nth, (turn, told, _) in enumerate(sides[0][2]):
        rows.append((f"\"{turn['ask']}\": about it, of {len(told)}", [str(sum(subjects[nth][2])) for *_, subjects in sides]))
    return "\n".join(f"| {name} | {' | '.join(values)} |" for name, values in rows)


def main():
    parser = argparse.ArgumentParser()
    for name in ["tern", "toml", "model", "first", "out"]:
        parser.add_argument(name, type=Path)
    parser.add_argument("--commit", default="cc0219f", help="where the first stage's file lies")
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
    held_out = args.toml.parent / keys["validation_files"][0]
    sides = []
    for model in (args.first, args.model):
        bits, documents, characters, _ = judge.bits(tern, model, held_out)
        sides.append((bits, *judge.judge(tern, model, 8)))
    _, questions, subjects = sides[-1]
    mark = lambda good: "" if good else " ✗"
    system = lambda turn: f" (system message: {turn['system']})" if "system" in turn else ""
    chats = [f"**{turn['ask']}**{system(turn)}{mark(good)}\n\n{quoted(answer)}" for turn, answer, good in (questions[nth] for nth in CHATS)]
    stories = [f"**{turn['ask']}**{mark(good[0])}\n\n{quoted(told[0])}" for turn, told, good in subjects[:5]]
    card = CARD.format(
        **shape, ternary=ternary, megabytes=args.model.stat().st_size / 1e6, steps=last["step"], tokens=last["tokens"] / 1e6,
        embedding=embedding, first=args.commit, held_documents=documents, held_chars=characters, validation=keys["validation_tokens"],
        judged=verdicts(documents, characters, sides), figures="\n".join(figures), agreement=agreement, sources=SOURCES,
        config=re.sub(r"^#.*\n", "", args.toml.read_text(), flags=re.M), again=" ".join(AGAIN), warm=" ".join(judge.WARM),
        samples="\n\n".join(samples), chats="\n\n".join(chats), stories="\n\n".join(stories))
    (args.out / "README.md").write_text(card)
    print(f"wrote {args.out / 'README.md'} and {args.out / 'loss.svg'}", file=sys.stderr)


main()
