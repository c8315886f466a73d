"""rope.py OUT: rope_scaling.json, frequencies and logits of the golden checkpoints under scaled rotary positions."""
import json, sys
import torch, transformers
from evalref import Reference, searched

CASES = [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 16},
    {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 8192},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 2048, "beta_fast": 16.0, "beta_slow": 2.0,
     "truncate": False},
    {"rope_type": "yarn", "factor": 2.5, "original_max_position_embeddings": 32, "attention_factor": 0.75},
    {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 64, "mscale": 0.7, "mscale_all_dim": 1.3},
]

out = []
for model in ["bitnet_packed_autobitlinear", "llama_packed_bitlinear"]:
    for nth, case in enumerate(CASES):
        theta = 500000.0 if "bitnet" in model else 1000042.0
        # Both spellings of one wish: transformers 5 reads the nested one.
        reference = Reference(model, {"rope_parameters": dict(case, rope_theta=theta)})
        rotary = reference.model.model.rotary_emb
        margin, ids = searched(reference, 24, 40, seed=nth)
        out.append({"model": model, "scaling": case, "frequencies": rotary.inv_freq.tolist(),
                    "magnitude": float(rotary.attention_scaling), "ids": ids, "margin": margin,
                    "logits": [round(x, 6) for x in reference.logits(ids)[-1].tolist()]})
        print(model, case, margin, rotary.attention_scaling)
json.dump({"torch": torch.__version__, "transformers": transformers.__version__, "cases": out},
          open(sys.argv[1] + "/rope_scaling.json", "w"))
