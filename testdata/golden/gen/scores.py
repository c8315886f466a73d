"""scores.py OUT: scores.json, log-probabilities of the tokens of random texts by the golden checkpoints."""
import json, sys
import torch, transformers
from evalref import MODELS, Reference, searched

out = []
for model in MODELS:
    reference = Reference(model)
    for nth in range(3):
        margin, ids = searched(reference, 32, 60, seed=100 + nth)
        out.append({"model": model, "ids": ids, "margin": margin, "logprobs": [round(x, 7) for x in reference.logprobs(ids)]})
        print(model, margin)
json.dump({"torch": torch.__version__, "transformers": transformers.__version__, "cases": out},
          open(sys.argv[1] + "/scores.json", "w"))
