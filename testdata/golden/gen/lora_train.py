"""What PEFT comes to when it trains adapters beside a ternary base: `lora_train.py GOLDEN`.

`adapters/bitnet/gradients.safetensors`: loss and gradients of the adapter `bitnet` (adapters.py) on its prompt, through
transformers' AutoBitLinear, whose quantisers are straight through. `adapters/train`: 200 steps of AdamW on the float twin of
bitnet_online_bf16, plain layers of trits times scale whose inputs are not rounded, with the adapter it begins with, its data and
its losses; beside them those of the same steps through AutoBitLinear.
"""
import json, os, sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import peft, torch, transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitNetConfig, BitNetForCausalLM

GOLDEN = sys.argv[1]
torch.set_num_threads(1)
BASE = f"{GOLDEN}/bitnet_online_bf16"
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def loss_of(model, ids):
    logits = model(ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def plain(name):
    return name.replace(".default", "")


# Gradients through the ternary layers themselves.
base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, attn_implementation="eager").to(torch.float32)
model = PeftModel.from_pretrained(base, f"{GOLDEN}/adapters/bitnet", is_trainable=True)
ids = load_file(f"{GOLDEN}/adapters/bitnet/golden.safetensors")["input_ids"]
loss = loss_of(model, ids)
loss.backward()
out = {plain(name): p.grad.contiguous() for name, p in model.named_parameters() if "lora_" in name}
out["loss"] = loss.detach().reshape(1)
save_file(out, f"{GOLDEN}/adapters/bitnet/gradients.safetensors")
print("gradients", len(out), float(loss))

# 200 steps beside the float twin.
with open(f"{BASE}/config.json") as file:
    config = json.load(file)
config.pop("quantization_config")
config = BitNetConfig(**config)
config._attn_implementation = "eager"
twin = BitNetForCausalLM(config).float()
state = {name: tensor.float() for name, tensor in load_file(f"{BASE}/model.safetensors").items()}
for name, tensor in state.items():
    if name.split(".")[-2] in PROJECTIONS:
        scale = tensor.abs().mean().clamp(min=1e-5)
        state[name] = (tensor / scale).round().clamp(-1, 1) * scale
print(twin.load_state_dict(state, strict=False))
STEPS, LENGTH, SEQUENCES, RATE = 200, 24, 4, float(sys.argv[2]) if len(sys.argv) > 2 else 1e-3
gen = torch.Generator().manual_seed(6)
# Each token follows from the two before it, but for one in eight.
rows = []
for _ in range(48):
    row = torch.randint(3, 96, (2,), generator=gen).tolist()
    while len(row) < LENGTH:
        noise = int(torch.randint(0, 8, (1,), generator=gen)) == 0
        row.append(int(torch.randint(3, 96, (1,), generator=gen)) if noise else 3 + (row[-1] * 2 + row[-2]) % 93)
    rows.append(row)
data = torch.tensor(rows)


def train(base):
    torch.manual_seed(5)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, lora_dropout=0.0, target_modules=PROJECTIONS))
    model.train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in trained)
    start = {plain(name): p.detach().clone().contiguous() for name, p in trained.items()}
    optimiser = torch.optim.AdamW(trained.values(), lr=RATE, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
    losses = []
    for step in range(STEPS):
        batch = data[[(SEQUENCES * step + n) % len(data) for n in range(SEQUENCES)]]
        loss = loss_of(model, batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimiser.step()
        losses.append(float(loss))
    return start, losses


start, losses = train(twin)
# The same beside the ternary layers: what rounding alone makes of it.
again, ternary = train(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, attn_implementation="eager").to(torch.float32))
assert all(torch.equal(start[name], again[name]) for name in start)
for at in range(0, STEPS, 20):
    mean = [sum(of[at:at + 20]) / 20 for of in (losses, ternary)]
    print(f"steps {at}..{at + 20}: twin {mean[0]:.4f}, ternary {mean[1]:.4f}, {100 * (mean[1] / mean[0] - 1):+.2f} %")
folder = f"{GOLDEN}/adapters/train"
os.makedirs(folder, exist_ok=True)
save_file({**start, "ids": data}, f"{folder}/start.safetensors")
with open(f"{folder}/losses.json", "w") as file:
    json.dump(dict(base="bitnet_online_bf16", rank=4, alpha=8, rate=RATE, weight_decay=0.01, clip=1.0, beta1=0.9, beta2=0.95, eps=1e-8,
                   sequences=SEQUENCES, peft=peft.__version__, transformers=transformers.__version__, torch=torch.__version__,
                   losses=losses, ternary=ternary), file)
