"""A float teacher and ternary students of it, with each part of the recipe left out in turn; then the same for a task of classes.

    python bench/distil.py TERN STORIES OUT [--teacher-steps 2200] [--steps 1000] [--task-steps 300] [--only NAME] [--table]

STORIES are files of one story a document (.txt, .jsonl, .zst). OUT gets a tokenizer, the task's items, and a folder for each run; runs that are
there already go on or are read, so the command can be stopped and begun again. `--only` does one run, `--table` none. The table has
held-out losses in nats, of every model as it is exported, and accuracies by `tern eval tasks`.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

# What the task asks for: the creature that a story is about, whose name is taken out of it.
CREATURES = ["dog", "cat", "bird", "bear", "fish", "frog", "bunny", "duck"]
ASKED = "\nWhich animal is the friend? It is a"
PART = ["--length", "256", "--sequences", "8", "--save-every", "0", "--save-minutes", "3", "--log-every", "10", "--seed", "1"]
SIZE = ["--dim", "256", "--layers", "5", "--hidden", "1024", "--heads", "4", "--kv-heads", "2", "--head-dim", "64", "--context", "256",
        "--activation", "silu"]

parser = argparse.ArgumentParser()
parser.add_argument("tern", type=lambda text: str(Path(text).resolve()))
parser.add_argument("stories", nargs="+", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--teacher-steps", type=int, default=2200)
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--task-steps", type=int, default=300)
parser.add_argument("--threads", default="0")
parser.add_argument("--only")
parser.add_argument("--table", action="store_true")
args = parser.parse_args()
OUT = args.out


def tern(*words, **options):
    return subprocess.run([args.tern, *map(str, words)], check=True, **options)


def read(path):
    if path.suffix == ".zst":
        text = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True, text=True).stdout
        path = path.with_suffix("")
    else:
        text = path.read_text()
    return [json.loads(line)["text"] for line in text.splitlines()] if path.suffix == ".jsonl" else text.split("<|endoftext|>")


def lay_out():
    """Stories and the task's items, those held out by every fiftieth and every fifth."""
    stories = list(dict.fromkeys(story.strip() for path in args.stories for story in read(path) if story.strip()))
    name = re.compile(r"\b(" + "|".join(CREATURES) + r")(s|es)?\b", re.I)
    items = []
    for story in stories:
        found = [match.group(1).lower() for match in name.finditer(story)]
        if len(set(found)) == 1 and len(found) >= 3 and len(story) < 850:
            items.append({"story": name.sub("friend", story), "creature": found[0]})
    write = lambda name, records: (OUT / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    write("stories.jsonl", [{"text": story} for nth, story in enumerate(stories) if nth % 50])
    write("held-out.jsonl", [{"text": story} for story in stories[::50]])
    write("task-held-out.jsonl", items[::5])
    write("task.jsonl", [{"text": f"{item['story']}{ASKED} {item['creature']}"} for nth, item in enumerate(items) if nth % 5])
    write("task-validation.jsonl", [{"text": f"{item['story']}{ASKED} {item['creature']}"} for item in items[::5]])
    task = {"name": "creature", "file": "task-held-out.jsonl", "kind": "choice", "prompt": "{story}" + ASKED, "options": CREATURES,
            "gold": "creature", "metric": "acc"}
    (OUT / "task.json").write_text(json.dumps(task))
    print(f"{len(stories)} stories, {len(items)} items of the task", file=sys.stderr)


def runs():
    """Name, what it shows, and the words after `tern train`."""
    stories = ["--train", OUT / "stories.jsonl", "--validation", "0", "--validation-files", OUT / "held-out.jsonl"]
    task = ["--train", OUT / "task.jsonl", "--validation", "0", "--validation-files", OUT / "task-validation.jsonl"]
    teacher, expert = OUT / "teacher/masters", OUT / "expert/masters"
    fall = ["--schedule", "cosine", "--warmup", "40", "--rate", "1.5e-3"]
    grow = ["--quantise-steps", args.steps // 10]
    few = lambda rate: ["--steps", args.task_steps, "--schedule", "cosine", "--warmup", "20", "--rate", rate]
    grow_few = ["--quantise-steps", args.task_steps // 10]
    student = [*stories, *fall, "--steps", args.steps]
    distil = ["distil", teacher, *student]
    return [
        ("teacher", "the teacher, in floats", ["--tokenizer", OUT / "tokenizer", "--ternary", "false", "--sub-norms", "false", *SIZE, *stories, "--steps",
         args.teacher_steps, "--schedule", "cosine", "--warmup", "50", "--rate", "2e-3"]),
        ("rounded", "its weights rounded", ["--from", teacher, *stories, "--steps", "1", "--warmup", "0", "--rate", "0"]),
        ("scratch", "from scratch, ternary", ["--tokenizer", OUT / "tokenizer", *SIZE, "--sub-norms", "true", *student]),
        ("continued", "continued without a teacher", ["--from", teacher, "--subln", "true", *grow, *student]),
        ("distilled", "distilled", [*distil, *grow]),
        ("no-logits", "without its logits", [*distil, *grow, "--kl", "0"]),
        ("no-relations", "without its relations", [*distil, *grow, "--relation", "0"]),
        ("no-growing", "rounded at once", [*distil, "--quantise-steps", "0"]),
        ("no-norms", "without norms put in", [*distil, *grow, "--subln", "false"]),
        ("expert", "task: the teacher, tuned in floats", ["--from", teacher, "--ternary", "false", *task, *few("5e-4")]),
        ("expert-rounded", "task: its weights rounded", ["--from", expert, *task, "--steps", "1", "--warmup", "0", "--rate", "0"]),
        ("task-alone", "task: a student without a teacher", ["--from", teacher, "--subln", "true", *grow_few, *task, *few("1e-3")]),
        ("task-distilled", "task: distilled", ["distil", expert, *task, *grow_few, *few("1e-3")]),
        ("task-both", "task: distilled, from the student distilled above", ["distil", expert, "--from", OUT / "distilled/masters", "--subln",
         "false", "--quantise-steps", "0", *task, *few("1e-3")]),
        ("longer", "distilled, three times as long", ["distil", teacher, *stories, *fall, "--steps", 3 * args.steps, *grow]),
    ]


def accuracy(name, masters):
    """Share of the held-out items that are answered well."""
    kept = OUT / f"{name}.accuracy.json"
    if not kept.exists():
        floats = ["--floats"] if name == "expert" else []
        found = tern("eval", "tasks", masters, OUT / "task.json", "--data", OUT, "--json", *floats, capture_output=True, text=True)
        kept.write_text(found.stdout)
    return json.loads(kept.read_text())["tasks"][0]["figures"]["acc"]["value"]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    if not (OUT / "task.json").exists():
        lay_out()
    if not (OUT / "tokenizer").exists():
        tern("train", "tokenizer", OUT / "stories.jsonl", "--vocab", "2048", "--out", OUT / "tokenizer")
    rows = []
    for name, what, words in runs():
        folder = OUT / name
        if not args.table and args.only in (None, name) and not (folder / "masters").exists():
            if folder.exists():
                tern("train", folder)
            else:
                tern("train", *words, "--out", folder, "--validate-every", args.steps // 5, "--threads", args.threads, *PART)
        if (folder / "masters").exists():
            lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            last = [line for line in lines if line["kind"] == "validation"][-1]
            seconds = [line for line in lines if line["kind"] == "step"][-1]["seconds"]
            rows.append((name, what, last, seconds))
    teacher = next((last["loss"] for name, _, last, _ in rows if name == "teacher"), None)
    print("| | steps | held-out loss, nats | above the teacher | accuracy | minutes |\n|---|--:|--:|--:|--:|--:|")
    for name, what, last, seconds in rows:
        is_task = what.startswith("task")
        above = "" if is_task or teacher is None else f"{100 * (last['loss'] / teacher - 1):+.1f} %"
        right = f"{accuracy(name, OUT / name / 'masters'):.3f}" if is_task else ""
        print(f"| {what} | {last['step']} | {last['loss']:.4f} | {above} | {right} | {seconds / 60:.1f} |")


main()
