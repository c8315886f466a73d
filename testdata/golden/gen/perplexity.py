"""perplexity.py OUT: perplexity.json, of the golden checkpoints over ids made from a text's bytes, in both conventions."""
import json, math, os, sys
import torch, transformers
from evalref import GOLDEN, MODELS, Reference

CONTEXT, STRIDE = 64, 24
text = open(os.path.join(GOLDEN, "eval/wikitext-slice.txt"), "rb").read()[:6000]
ids = [3 + byte % 93 for byte in text]
out = []
for model in MODELS:
    reference = Reference(model)
    chunks, sliding, done = [], [], 0
    for start in range(0, len(ids) // CONTEXT * CONTEXT, CONTEXT):
        chunks += reference.logprobs(ids[start:start + CONTEXT])[CONTEXT // 2:]
    for start in range(0, len(ids), STRIDE):
        end = min(start + CONTEXT, len(ids))
        sliding += reference.logprobs(ids[start:end])[-min(end - done, end - start - 1):]
        done = end
        if end == len(ids):
            break
    for stride, logprobs in [(None, chunks), (STRIDE, sliding)]:
        out.append({"model": model, "context": CONTEXT, "stride": stride, "tokens": len(logprobs),
                    "perplexity": math.exp(-sum(logprobs) / len(logprobs))})
        print(out[-1])
json.dump({"torch": torch.__version__, "transformers": transformers.__version__, "ids": ids, "cases": out},
          open(sys.argv[1] + "/perplexity.json", "w"))
