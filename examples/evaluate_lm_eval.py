"""Puts questions of your own to a model through lm-evaluation-harness, and shows what it said.

    pip install "lm-eval[api]" wheels/tern-*.whl
    python examples/evaluate_lm_eval.py story testdata/golden/eval/copa.jsonl

A line of the file is {"query": "...", "choices": ["...", "..."], "gold": 0}. Nothing is downloaded: tasks that lm-eval brings, such as
arc_easy, take the place of `task` below and come from the Hub.
"""

import argparse
import os

import lm_eval

import tern
import tern.lm_eval  # from here on lm-eval knows model type `tern`

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("items")
parser.add_argument("--limit", type=int)
told = parser.parse_args()

# %% The task, in lm-eval's words.

task = {
    "task": "own",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": os.path.abspath(told.items)}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{query}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "gold",
    "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
}

# %% Asked, with the answer to every item kept.

found = lm_eval.simple_evaluate(
    model="tern", model_args={"pretrained": told.model, "threads": 2}, tasks=[task], limit=told.limit, log_samples=True, bootstrap_iters=0
)
for sample in found["samples"]["own"]:
    likelihoods = [float(answer[0][0]) for answer in sample["resps"]]
    best = likelihoods.index(max(likelihoods))
    print("right" if sample["acc"] else "wrong", "|", sample["doc"]["query"], "->", sample["doc"]["choices"][best])
figures = found["results"]["own"]
print(f"acc {figures['acc,none']:.3f}, acc_norm {figures['acc_norm,none']:.3f}")

# %% The same without lm-eval: `tern.eval` has tasks of its own.

own = {"name": "own", "file": os.path.basename(told.items), "kind": "choice", "prompt": "{query}", "choices": "choices", "gold": "gold", "metric": "acc"}
(same,) = tern.eval.tasks(told.model, [own], data=os.path.dirname(told.items) or ".", limit=told.limit)
assert same.value == figures["acc,none"]
