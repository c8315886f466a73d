"""lm-eval: log-likelihoods and texts as `tern run` has them, with a tokenizer of its own and with the server's.

Usage: with_lm_eval.py URL FOLDER TERN MODEL, where FOLDER is the tokenizer (`tern convert MODEL FOLDER --to hf`), TERN the
binary and MODEL the model's file.
"""

import json
import subprocess
import sys

from common import URL
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

FOLDER, TERN, MODEL = sys.argv[2:5]
context = "Once upon a time"
run = subprocess.run([TERN, "run", MODEL, context, "--temp", "0", "-n", "40", "--json"], capture_output=True, check=True)
own = json.loads(run.stdout)
for tokenizer in {"tokenizer_backend": "huggingface", "tokenizer": FOLDER}, {"tokenizer_backend": "remote"}:
    model = LocalCompletionsAPI(model="page", base_url=f"{URL}/v1/completions", num_concurrent=1, max_retries=1, add_bos_token=True, max_length=512, **tokenizer)
    requests = [Instance("loglikelihood", {}, (context, own["text"]), 0), Instance("loglikelihood", {}, (context, " a bird flew."), 1)]
    (known, greedy), (other, guessed) = model.loglikelihood(requests)
    assert greedy and abs(known - sum(own["logprobs"])) < 1e-3, (known, sum(own["logprobs"]))
    assert not guessed and other < known
    text = model.generate_until([Instance("generate_until", {}, (context, {"until": ["island"], "max_gen_toks": 20, "temperature": 0}), 0)])
    assert own["text"].startswith(text[0]), text
