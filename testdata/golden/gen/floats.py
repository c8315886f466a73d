"""Tiny float checkpoints of Llama, Mistral, Qwen2, Qwen3 and Gemma3, and the logits that `transformers` computes: `floats.py OUT`.

Weights are random, norms and biases too, so that each of them matters. The windows of Mistral and Gemma3 are shorter than the
prompt. One is stored in f16, one in f32, the others in bf16; all are run in f32, eagerly, on one thread.
"""
import json, os, sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import torch
import transformers
from safetensors.torch import save_file
from transformers import (Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

OUT = sys.argv[1]
torch.set_num_threads(1)
gen = torch.Generator().manual_seed(11)
SIZES = dict(vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             head_dim=8, max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=0)
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, torch.float16, dict(tie_word_embeddings=False, rope_theta=10000.0)),
    "mistral": (MistralConfig, MistralForCausalLM, torch.bfloat16, dict(tie_word_embeddings=False, sliding_window=7, rope_theta=1e6)),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, torch.bfloat16, dict(tie_word_embeddings=True, rope_theta=1e6)),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, torch.bfloat16, dict(tie_word_embeddings=True, rope_theta=1e6)),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, torch.float32,
               dict(tie_word_embeddings=True, sliding_window=6, query_pre_attn_scalar=12, rope_theta=1e6,
                    layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
}

for name, (config, model, dtype, own) in FAMILIES.items():
    config = config(**SIZES, **own)
    config._attn_implementation = "eager"
    torch.manual_seed(3)
    model = model(config).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            random = torch.randn(p.shape, generator=gen)
            # Gemma's norms are stored less 1.
            norm = 0.25 * random + (0.0 if name == "gemma3" else 1.0)
            p.copy_(norm if "norm" in key else 0.3 * random if p.dim() == 1 else 0.15 * random)
            p.copy_(p.to(dtype).float())
    folder = os.path.join(OUT, f"float_{name}")
    os.makedirs(folder, exist_ok=True)
    tensors = {key: p.to(dtype).contiguous() for key, p in model.state_dict().items()
               if not (config.tie_word_embeddings and key == "lm_head.weight")}
    save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
    told = {key: value for key, value in config.to_dict().items() if value is not None}
    with open(f"{folder}/config.json", "w") as file:
        json.dump({**told, "architectures": [type(model).__name__]}, file, indent=1)
    ids = torch.randint(3, SIZES["vocab_size"], (1, 24), generator=gen)
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits[0].float()
    save_file({"input_ids": ids.to(torch.int64), "logits": logits.contiguous()}, f"{folder}/golden.safetensors")
    about = dict(transformers=transformers.__version__, torch=torch.__version__, compute="float32, eager attention, CPU", dtype=str(dtype))
    with open(f"{folder}/README.json", "w") as file:
        json.dump(about, file, indent=1)
    print(name, os.path.getsize(f"{folder}/model.safetensors"), float(logits.abs().max()))
