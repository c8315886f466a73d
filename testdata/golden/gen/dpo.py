"""DPO on pairs by PyTorch and PEFT: `dpo.py GOLDEN`.

`adapters/bitnet/dpo.safetensors`: the adapter `bitnet` (adapters.py) on its base, whose layers round as transformers' AutoBitLinear
does; the reference is the base without it. Two pairs of answers, each behind its prompt; the logarithms of their probabilities, the loss
`-log sigmoid(beta * ((chosen - its reference) - (rejected - its reference)))`, the mean of both pairs, and its gradients by layer 0.
"""
import os, sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

GOLDEN, BETA = sys.argv[1], 0.05
torch.set_num_threads(1)
base = AutoModelForCausalLM.from_pretrained(f"{GOLDEN}/bitnet_online_bf16", dtype=torch.float32, attn_implementation="eager")
model = PeftModel.from_pretrained(base.to(torch.float32), f"{GOLDEN}/adapters/bitnet", is_trainable=True)
gen = torch.Generator().manual_seed(10)
draw = lambda count: torch.randint(3, 96, (count,), generator=gen)
prompts = [draw(5), draw(3)]
answers = [[draw(7), draw(9)], [draw(10), draw(4)]]


def log_of(prompt, answer):
    ids = torch.cat([prompt, answer])[None]
    logs = model(ids, use_cache=False).logits.log_softmax(-1)
    return logs[0, len(prompt) - 1:-1].gather(1, answer[:, None]).sum()


with torch.no_grad(), model.disable_adapter():
    reference = torch.stack([torch.stack([log_of(p, a) for a in two]) for p, two in zip(prompts, answers)])
logs = torch.stack([torch.stack([log_of(p, a) for a in two]) for p, two in zip(prompts, answers)])
gains = logs - reference
margins = BETA * (gains[:, 0] - gains[:, 1])
loss = -torch.nn.functional.logsigmoid(margins).mean()
loss.backward()
out = {name.replace(".default", ""): p.grad.contiguous() for name, p in model.named_parameters() if "lora_" in name and ".layers.0." in name}
out |= {"logs": logs.detach(), "reference": reference, "margins": margins.detach(), "loss": loss.detach().reshape(1), "beta": torch.tensor([BETA])}
for nth, (prompt, two) in enumerate(zip(prompts, answers)):
    out[f"prompt.{nth}"], out[f"chosen.{nth}"], out[f"rejected.{nth}"] = prompt, two[0].clone(), two[1].clone()
save_file(out, f"{GOLDEN}/adapters/bitnet/dpo.safetensors")
print("margins", margins.tolist(), "loss", float(loss.detach()), len(out))
