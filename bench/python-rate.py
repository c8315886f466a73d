"""256 prompts of mixed length: LLM.generate, one by one, and the engine alone behind the same queue by bare requests."""
import json, sys, time, tern
from tern import SamplingParams
llm = tern.LLM("story", threads=2, max_num_seqs=16)
text = "Once upon a time there was a little dog. The dog liked to play in the park with a red ball. "
rounds = [0]
def prompts():
    rounds[0] += 1
    return [{"prompt_token_ids": [(i * 7919 + (n + 1000 * rounds[0]) * 104729 + 11) % 4000 + 50 for i in range(4 + (n * 37) % 120)]} for n in range(256)]
params = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True)
def rate(call):
    start = time.perf_counter(); count = call(); return count / (time.perf_counter() - start)
together = lambda: sum(len(o.outputs[0].token_ids) for o in llm.generate(prompts(), params, use_tqdm=False))
alone = lambda: sum(len(llm.generate(p, params, use_tqdm=False)[0].outputs[0].token_ids) for p in prompts())
together()
for _ in range(3):
    print(f"together {rate(together):.0f} tokens/s, one by one {rate(alone):.0f}", flush=True)
