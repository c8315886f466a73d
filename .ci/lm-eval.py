"""lm-eval over items on this disk, three ways: in this process through model type `tern`, through its own `local-completions`
against a running `tern serve`, and beside them `tern eval tasks` and `tern.eval.tasks`. Item by item they must say the same.

Usage: lm-eval.py TERN MODEL FOLDER URL, where TERN is the command, MODEL its model's file, FOLDER the same as `tern convert MODEL
FOLDER --to hf` writes it (for the tokenizer) and URL a server of it.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TERN, MODEL, FOLDER, URL = sys.argv[1:]
folder = tempfile.TemporaryDirectory()
# Nothing is looked up on the Hub, and what `datasets` keeps is not kept.
os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=folder.name, TQDM_DISABLE="1")

import lm_eval
import tern
import tern.lm_eval
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

assert "torch" not in sys.modules
items = ROOT / "testdata/golden/eval"
CHOICES = ["copa", "openbook_qa"]
WRITTEN = str(items / "gsm8k_short.json")


def task(name, **rest):
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(items / f"{name}.jsonl")}}}
    return {"task": name, **data, "test_split": "test", **rest}


def tasks():
    choice = dict(output_type="multiple_choice", doc_to_text="{{query}}", doc_to_choice="{{choices}}", doc_to_target="gold",
                  metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}])
    own = json.loads(Path(WRITTEN).read_text())
    # A single task that writes: the text is compared, so its metric is the plainest.
    write = task("gsm8k_short", output_type="generate_until", doc_to_text=own["preamble"] + "Question: {{question}}\nAnswer:", doc_to_target="answer",
                 generation_kwargs={"until": own["stop"], "max_gen_toks": own["tokens"], "do_sample": False},
                 metric_list=[{"metric": "exact_match"}])
    return [*(task(name, **choice) for name in CHOICES), write]


def harness(model):
    # Its own seeds; nothing here is sampled, no bootstrap is wanted.
    found = lm_eval.simple_evaluate(model=model, tasks=tasks(), bootstrap_iters=0, log_samples=True)
    samples = {name: sorted(of, key=lambda one: one["doc_id"]) for name, of in found["samples"].items()}
    return samples, found["results"]


# What `tern eval tasks` says, by its log and its table.
logs = Path(folder.name) / "logs"
run = [TERN, "eval", "tasks", MODEL, *CHOICES, WRITTEN, "--data", str(items), "--log-items", str(logs), "--json"]
table = {one["task"]: one for one in json.loads(subprocess.run(run, capture_output=True, check=True).stdout)["tasks"]}
log = {name: [json.loads(line) for line in (logs / f"{name}.jsonl").read_text().splitlines()[1:]] for name in table}

# The same in Python, to the bit.
model = tern.Model(MODEL)
heard = []
for found in tern.eval.tasks(model, [*CHOICES, WRITTEN], data=items, callback=lambda *told: heard.append(told)):
    assert found.items == log[found.task], found.task
    assert {name: vars(figure) for name, figure in found.figures.items()} == table[found.task]["figures"]
assert heard[0] == ("copa", 0, 24) and heard[-1][1] == heard[-1][2], heard

known = tern.lm_eval.TernLM(model)


def served(**tokenizer):
    return LocalCompletionsAPI(model="page", base_url=f"{URL}/v1/completions", max_retries=1, max_length=known.max_length, **tokenizer)


over = served(tokenizer=FOLDER, tokenizer_backend="huggingface", add_bos_token=True)
largest, counted = 0.0, 0
for name, lm in ("tern", known), ("local-completions", over):
    samples, results = harness(lm)
    for task_name in CHOICES:
        assert len(samples[task_name]) == len(log[task_name]) == 24
        for sample, record in zip(samples[task_name], log[task_name]):
            found = [float(answer[0][0]) for answer in sample["resps"]]
            own = record["detail"]["logprobs"]
            if name == "tern":
                assert found == own, (task_name, record["line"], found, own)
            else:
                largest = max(largest, *(abs(a - b) for a, b in zip(found, own)))
            counted += len(found)
            for metric in "acc", "acc_norm":
                assert sample[metric] == record["grades"][metric], (name, task_name, record["line"], metric)
        for metric in "acc", "acc_norm":
            assert abs(results[task_name][f"{metric},none"] - table[task_name]["figures"][metric]["value"]) < 1e-12
    for sample, record in zip(samples["gsm8k_short"], log["gsm8k_short"]):
        assert sample["resps"] == [[record["detail"]["text"]]], (name, sample["resps"], record["detail"]["text"])
# The server tells its log-probabilities as they are printed: in 32 bits.
assert largest < 1e-3, largest

# Rolling: each token of a text once, in windows; and the two ways agree.
text = (items / "wikitext-slice.txt").read_text()[:6000]
# The server's own tokenizer puts no begin-of-text token anywhere.
plain = served(tokenizer_backend="remote", custom_prefix_token_id=known.prefix_token_id)
# Its windows are two tokens shorter than what it is told: one is written, and one stands before the first.
bare = tern.lm_eval.TernLM(model, add_bos_token=False, max_length=known.max_length - 2)
(own,), (other,) = (lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)]) for lm in (bare, plain))
ids = known.tok_encode(text, add_special_tokens=False)
assert len(ids) > known.max_length and abs(own - other) < 1e-3, (own, other)
short = known.tok_encode(text[:400], add_special_tokens=False)
(whole,) = known.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text[:400],), 0)])
assert abs(whole - model.logprobs([known.prefix_token_id, *short]).sum()) < 1e-9

# Chat templates: the server's own tokens for the same conversation.
talk = [{"role": "user", "content": "Hello!"}]
assert known.tok_encode(known.apply_chat_template(talk)) == model.apply_chat_template(talk)[1]
chat = lm_eval.simple_evaluate(model="tern", model_args={"pretrained": MODEL}, tasks=tasks()[:1], apply_chat_template=True, bootstrap_iters=0,
                               log_samples=True)
assert chat["samples"]["copa"][0]["arguments"][0][0].startswith("<|begin_of_text|><|user|>")

# The command line, over a task's file.
(Path(folder.name) / "copa.yaml").write_text(json.dumps(tasks()[0]))
words = ["run", "--model", "tern", "--model_args", f"pretrained={MODEL},threads=1", "--include_path", folder.name, "--tasks", "copa", "--batch_size", "4"]
told = subprocess.run([sys.executable, "-m", "tern.lm_eval", *words], capture_output=True, text=True)
assert told.returncode == 0 and f"|{table['copa']['figures']['acc']['value']:.4f}|" in told.stdout.replace(" ", ""), told.stdout + told.stderr

# What cannot be is said.
for words, what in ({"num_beams": 4}, "num_beams=4"), ({"max_gen_toks": 512}, "leaves no room"):
    try:
        known.generate_until([Instance("generate_until", {}, ("A", words), 0)])
        raise AssertionError(words)
    except ValueError as error:
        assert what in str(error), error
print(f"{counted} log-likelihoods and 2 x {len(log['gsm8k_short'])} texts: the same through tern to the bit, over the network to {largest:.1e}")
