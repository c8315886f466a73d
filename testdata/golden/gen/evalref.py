"""The reference for evaluation: checkpoints in transformers (float32, CPU, eager attention), and how close a forward
pass came to a rounding tie. Shared by rope.py and evaluate.py."""
import json, os, tempfile
os.environ["TORCHDYNAMO_DISABLE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import torch
torch.set_num_threads(1)
from transformers import AutoConfig, AutoModelForCausalLM

GOLDEN = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
MODELS = ["bitnet_online_bf16", "bitnet_packed_autobitlinear", "llama_packed_bitlinear", "bitnet_1bitllm_f16"]


def checkpoint(name, change={}):
    """A directory that transformers can read: 1bitLLM's names in transformers' own, and keys of the config changed."""
    from safetensors.torch import load_file, save_file
    source = name if os.path.isdir(name) else os.path.join(GOLDEN, name)
    config = json.load(open(os.path.join(source, "config.json")))
    tensors = load_file(os.path.join(source, "model.safetensors"))
    if config["architectures"] == ["BitnetForCausalLM"]:
        config.update(architectures=["BitNetForCausalLM"], model_type="bitnet", quantization_config={
            "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"})
        for key in ("input_bits", "weight_bits", "rope_scaling"):
            config.pop(key, None)
        rename = lambda key: key.replace("inner_attn_ln", "attn_sub_norm").replace("ffn_layernorm", "ffn_sub_norm")
        tensors = {rename(key): value for key, value in tensors.items()}
    config.update(change)
    target = tempfile.mkdtemp()
    json.dump(config, open(target + "/config.json", "w"))
    save_file(tensors, target + "/model.safetensors", metadata={"format": "pt"})
    return target


class Reference:
    def __init__(self, name, change={}):
        self.model = AutoModelForCausalLM.from_pretrained(
            checkpoint(name, change), dtype=torch.float32, attn_implementation="eager").to(torch.float32).eval()
        self.margin = self.ulps = 1.0
        for module in self.model.modules():
            if type(module).__name__ in ("BitLinear", "AutoBitLinear"):
                module.dtype = torch.float32
                module.register_forward_pre_hook(self.look)

    def look(self, _, inputs):
        """Keeps the smallest distance of a scaled activation from a tie of its rounding, absolute and over its size."""
        x = inputs[0].float()
        v = (x * (127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5))).double()
        distance = (v - v.floor() - 0.5).abs()
        self.margin = min(self.margin, distance.min().item())
        self.ulps = min(self.ulps, (distance / v.abs().clamp(min=1.0)).min().item())

    @torch.no_grad()
    def logits(self, ids):
        self.margin = self.ulps = 1.0
        return self.model(torch.tensor([ids]), use_cache=False).logits[0].float()

    def logprobs(self, ids):
        """Of each token after the first, given those before it."""
        table = torch.log_softmax(self.logits(ids).double(), -1)
        return [table[at, token].item() for at, token in enumerate(ids[1:])]


def searched(reference, length, tries, seed, vocab=96):
    """Random ids whose forward pass stays far from every tie: another order of additions gives the same codes."""
    import random
    source, best = random.Random(seed), (0.0, None)
    for _ in range(tries):
        ids = [1] + [source.randrange(3, vocab) for _ in range(length - 1)]
        reference.logits(ids)
        if reference.margin > best[0]:
            best = (reference.margin, ids)
    return best
