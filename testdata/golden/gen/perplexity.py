"""perplexity.py OUT: perplexity.json, of the golden checkpoints over ids made from a text's bytes, in both conventions: over all
of it, and over a short slice whose forward passes stay far from every tie of the activations' rounding."""
import json, math, os, sys
import torch, transformers
from evalref import GOLDEN, MODELS, Reference

# Length of the text, context and stride. One model has so many activations that only a shorter slice stays clear of ties.
WHOLE, SLICE, SHORTER = (6000, 64, 24), (48, 32, 12), (24, 16, 6)
text = open(os.path.join(GOLDEN, "eval/wikitext-slice.txt"), "rb").read()[:6000]
ids = [3 + byte % 93 for byte in text]


def chunks(reference, ids, context, _):
    for start in range(0, len(ids) // context * context, context):
        yield reference.logprobs(ids[start:start + context])[context // 2:]


def sliding(reference, ids, context, stride):
    done = 0
    for start in range(0, len(ids), stride):
        end = min(start + context, len(ids))
        yield reference.logprobs(ids[start:end])[-min(end - done, end - start - 1):]
        done = end
        if end == len(ids):
            break


def distance(reference, ids, windows, least):
    """How far from ties all forward passes of both conventions stay, or something up to `least`."""
    far = 1.0
    for convention in (chunks, sliding):
        for _ in convention(reference, ids, *windows):
            far = min(far, reference.ulps)
            if far <= least:
                return far
    return far


def clear(reference, length, *windows):
    """How far from ties the slice stays that stays farthest from them, as a share of the activation, and where it begins."""
    best = (0.0, 0)
    for start in range(len(ids) - length):
        best = max(best, (distance(reference, ids[start:start + length], windows, best[0]), start))
    return best


out = []
for model in MODELS:
    reference = Reference(model)
    short = SHORTER if model == "llama_packed_bitlinear" else SLICE
    margin, start = clear(reference, *short)
    for first, far, (length, context, stride) in [(0, None, WHOLE), (start, margin, short)]:
        for stride, convention in [(None, chunks), (stride, sliding)]:
            windows = convention(reference, ids[first:first + length], context, stride)
            logprobs = [x for window in windows for x in window]
            out.append({"model": model, "context": context, "stride": stride, "tokens": len(logprobs), "first": first,
                        "length": length, "margin": far, "perplexity": math.exp(-sum(logprobs) / len(logprobs))})
            print(out[-1], flush=True)
json.dump({"torch": torch.__version__, "transformers": transformers.__version__, "ids": ids, "cases": out},
          open(sys.argv[1] + "/perplexity.json", "w"))
