"""LoRA adapters for the tiny checkpoints, and the logits that PEFT computes with them: `adapters.py GOLDEN`.

PEFT adds `lora_B(lora_A(x)) * scaling` to a projection whose input is x, so A sees the floats from which a BitLinear makes its
int8. `bitnet` and `bitnet_qv` are for bitnet_online_bf16, whose projections are transformers' AutoBitLinear; `llama` is for
llama_packed_bitlinear and its GGUF twin, whose packed layers PEFT does not know: there a Linear rounds as BitLinear does.
Of many seeds the one is kept whose activations lie farthest from the ties of rounding.
"""
import json, os, sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import peft, torch, transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.bitnet import unpack_weights

GOLDEN = sys.argv[1]
torch.set_num_threads(1)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MARGIN = [0.0]


def codes(x):
    """int8 by token; notes how near to a tie any value came."""
    scaled = x * (127.0 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5))
    MARGIN[0] = min(MARGIN[0], float(((scaled - scaled.floor()) - 0.5).abs().min()))
    return scaled.round().clamp(-128, 127) * (x.abs().amax(-1, keepdim=True).clamp(min=1e-5) / 127.0)


def note(x):
    codes(x)


class Rounding(torch.nn.Linear):
    def forward(self, x):
        return torch.nn.functional.linear(codes(x), self.weight)


def bitnet():
    model = AutoModelForCausalLM.from_pretrained(f"{GOLDEN}/bitnet_online_bf16", dtype=torch.float32, attn_implementation="eager").to(torch.float32)
    for module in model.modules():
        if type(module).__name__ == "AutoBitLinear":
            module.register_forward_pre_hook(lambda module, args: note(args[0]))
    return model


def llama():
    with open(f"{GOLDEN}/llama_packed_bitlinear/config.json") as file:
        config = json.load(file)
    config.pop("quantization_config")
    config = transformers.LlamaConfig(**config)
    config._attn_implementation = "eager"
    model = transformers.LlamaForCausalLM(config).float()
    state = {}
    for name, tensor in load_file(f"{GOLDEN}/llama_packed_bitlinear/model.safetensors").items():
        if name.endswith("weight_scale"):
            continue
        if tensor.dtype == torch.uint8:
            scale = load_file(f"{GOLDEN}/llama_packed_bitlinear/model.safetensors")[name + "_scale"].float()
            tensor = unpack_weights(tensor, torch.float32) / scale
        state[name] = tensor.float()
    for name, module in list(model.named_modules()):
        if name.split(".")[-1] in ALL:
            model.set_submodule(name, Rounding(module.in_features, module.out_features, bias=False))
    print(model.load_state_dict(state, strict=False))
    return model


def randomise(model, seed, dtype):
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_((0.08 * torch.randn(p.shape, generator=gen)).to(dtype).float())


for name, make, source, dtype, told in [
    ("bitnet", bitnet, "bitnet_online_bf16", torch.float32, dict(r=4, lora_alpha=6, target_modules=ALL)),
    ("bitnet_qv", bitnet, "bitnet_online_bf16", torch.bfloat16, dict(r=3, lora_alpha=8, target_modules=["q_proj", "v_proj"], use_rslora=True)),
    ("llama", llama, "llama_packed_bitlinear", torch.float16, dict(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj", "o_proj", "down_proj"])),
]:
    ids = load_file(f"{GOLDEN}/{source}/golden.safetensors")["input_ids"]
    model = get_peft_model(make(), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **told)).eval()
    best = (-1.0, 0)
    with torch.no_grad():
        with model.disable_adapter():
            alone = model(ids, use_cache=False).logits[0]
        for seed in range(150):
            randomise(model, seed, dtype)
            MARGIN[0] = 1.0
            model(ids, use_cache=False)
            best = max(best, (MARGIN[0], seed))
        randomise(model, best[1], dtype)
        logits = model(ids, use_cache=False).logits[0].float()
    folder = f"{GOLDEN}/adapters/{name}"
    model.save_pretrained(folder)
    os.remove(f"{folder}/README.md")
    kept = {key: tensor.to(dtype).contiguous() for key, tensor in load_file(f"{folder}/adapter_model.safetensors").items()}
    save_file(kept, f"{folder}/adapter_model.safetensors", metadata={"format": "pt"})
    with open(f"{folder}/adapter_config.json") as file:
        config = json.load(file)
    config["base_model_name_or_path"] = source
    with open(f"{folder}/adapter_config.json", "w") as file:
        json.dump(config, file, indent=1, default=list)
    save_file({"input_ids": ids, "logits": logits.contiguous()}, f"{folder}/golden.safetensors")
    with open(f"{folder}/README.json", "w") as file:
        json.dump(dict(base=source, peft=peft.__version__, transformers=transformers.__version__, torch=torch.__version__,
                       compute="float32, eager attention, CPU", rounding_margin=best[0], seed=best[1]), file, indent=1)
    print(name, best, "moved by", float((logits - alone).abs().max()), "of", float(logits.abs().max()),
          os.path.getsize(f"{folder}/adapter_model.safetensors"))
