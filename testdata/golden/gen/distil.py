"""Goldens of distillation, computed by PyTorch: `distil.py OUT`, beside the float checkpoints that `floats.py` made.

`distil_gradients.json`: each float checkpoint with SubLN put into it (norms before the output and down projections), its loss on
the golden's ids and the gradient of every parameter: the norm of each, and a few of its numbers.
`distil_losses.json`: the losses of BitNet Distillation and their gradients on small random numbers: the divergence of logits at
a temperature, of all tokens and of the likeliest few with the rest as one; the relations of queries, keys or values; a linear
layer half way from floats to trits.
"""
import json, os, sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

OUT = sys.argv[1]
torch.set_num_threads(1)
EPS = 1e-5


def gain(layer, which, width):
    """The gain of a sub-norm, as the test has it too."""
    at = torch.arange(width, dtype=torch.float64)
    return (1 + 0.3 * torch.sin(0.7 * at + layer + 10 * which)).float()


class SubNorm(torch.nn.Module):
    """A norm in front of a projection."""

    def __init__(self, linear, weight):
        super().__init__()
        self.linear, self.gain = linear, torch.nn.Parameter(weight)

    def forward(self, x):
        return self.linear(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * self.gain)


NAMES = [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output"), ("model.layers.", "blk."),
         ("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"), ("self_attn.v_proj", "attn_v"),
         ("self_attn.o_proj.linear", "attn_output"), ("self_attn.o_proj.gain", "attn_sub_norm.weight"),
         ("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj.linear", "ffn_down"),
         ("mlp.down_proj.gain", "ffn_sub_norm.weight"), ("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm"),
         ("input_layernorm", "attn_norm")]
GEMMA = [("post_attention_layernorm", "post_attention_norm"), ("pre_feedforward_layernorm", "ffn_norm"),
         ("post_feedforward_layernorm", "post_ffw_norm")]
LLAMA = [("post_attention_layernorm", "ffn_norm")]

families = {}
for family in ["llama", "mistral", "qwen2", "qwen3", "gemma3"]:
    folder = f"{OUT}/float_{family}"
    config = AutoConfig.from_pretrained(folder)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    assert abs(config.rms_norm_eps - EPS) < 1e-12
    for nth, layer in enumerate(model.model.layers):
        layer.self_attn.o_proj = SubNorm(layer.self_attn.o_proj, gain(nth, 0, layer.self_attn.o_proj.in_features))
        layer.mlp.down_proj = SubNorm(layer.mlp.down_proj, gain(nth, 1, layer.mlp.down_proj.in_features))
    ids = load_file(f"{folder}/golden.safetensors")["input_ids"]
    logits = model(ids, use_cache=False).logits[0].float()
    loss = F.cross_entropy(logits[:-1], ids[0, 1:])
    loss.backward()
    tensors = {}
    for key, p in model.named_parameters():
        for old, new in NAMES + (GEMMA if family == "gemma3" else LLAMA):
            key = key.replace(old, new)
        g = p.grad.flatten()
        some = range(0, g.numel(), max(1, g.numel() // 7))
        tensors[key] = dict(norm=g.double().norm().item(), at=list(some), values=[g[i].item() for i in some])
    families[family] = dict(loss=loss.item(), tensors=tensors)
    print(family, loss.item(), len(tensors))
with open(f"{OUT}/distil_gradients.json", "w") as file:
    json.dump(families, file)

gen = torch.Generator().manual_seed(5)


def rand(*shape, scale=1.0):
    return (scale * torch.randn(*shape, generator=gen)).float()


def told(**values):
    return {key: value.flatten().tolist() if torch.is_tensor(value) else value for key, value in values.items()}


# Logits: cross-entropy + kl * tau^2 * KL(teacher || student), means over rows that have a target.
ROWS, VOCAB, TAU, KL, TOP = 5, 37, 5.0, 0.7, 6
student, teacher = rand(ROWS, VOCAB, scale=3).requires_grad_(), rand(ROWS, VOCAB, scale=3)
targets = torch.tensor([3, 36, -100, 0, 17])
known = targets >= 0
cross = F.cross_entropy(student, targets)
log_q = F.log_softmax(student / TAU, -1)[known]
log_p = F.log_softmax(teacher / TAU, -1)[known]
divergence = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * TAU**2
(cross + KL * divergence).backward()
dense = told(rows=ROWS, vocab=VOCAB, temperature=TAU, kl=KL, student=student.detach(), teacher=teacher, targets=targets,
             loss=cross.item(), divergence=divergence.item(), gradient=student.grad)
# The likeliest few by themselves, the rest as one.
student.grad = None
log_q = F.log_softmax(student / TAU, -1)[known]
top = log_p.topk(TOP, -1).indices
inside = torch.zeros_like(log_p, dtype=torch.bool).scatter(-1, top, True)
rest = lambda log: torch.where(inside, -torch.inf, log).logsumexp(-1, keepdim=True)
few_p, few_q = (torch.cat([log.gather(-1, top), rest(log)], -1) for log in (log_p, log_q))
few = F.kl_div(few_q, few_p, reduction="batchmean", log_target=True) * TAU**2
(F.cross_entropy(student, targets) + KL * few).backward()
stored = told(top=TOP, divergence=few.item(), gradient=student.grad)

# Relations: rows of heads of length one, their products, softmax; KL(teacher || student), rows that count, by the heads' square.
TOKENS, HEADS = 9, 2
starts = torch.tensor([0, 0, 0, 0, 0, 5, 5, 5, 5])
counts = torch.tensor([1, 1, 1, 0, 0, 1, 1, 1, 0]).bool()
mine, theirs = rand(TOKENS, 12).requires_grad_(), rand(TOKENS, 8)


def relations(x):
    heads = x.view(TOKENS, HEADS, -1).transpose(0, 1)
    unit = F.normalize(heads, dim=-1)
    scores = unit @ unit.transpose(1, 2)
    scores = torch.where(starts[:, None] == starts[None, :], scores, -torch.inf)
    return scores.softmax(-1).clamp(min=1e-8)


p, q = relations(theirs), relations(mine)
same = (starts[:, None] == starts[None, :])
rows = torch.where(same, p * (p.log() - q.log()), 0.0).sum(-1)[:, counts]
relation = rows.mean() / HEADS
relation.backward()
relation = told(tokens=TOKENS, heads=HEADS, starts=starts, counts=counts.int(), student=mine.detach(), teacher=theirs,
                loss=relation.item(), gradient=mine.grad)

# Warm-up: w + share * (round(w) - w), x the same, straight through.
SHARE, X, IN, UP = 0.3, 4, 24, 7
x, w, g = rand(X, IN).requires_grad_(), rand(UP, IN).requires_grad_(), rand(X, UP)
m = w.detach().abs().mean().clamp(min=1e-5)
trits = (w.detach() / m).round().clamp(-1, 1) * m
step = x.detach().abs().amax(-1, keepdim=True).clamp(min=1e-5) / 127
codes = (x.detach() / step).round().clamp(-128, 127) * step
y = (x + SHARE * (codes - x).detach()) @ (w + SHARE * (trits - w).detach()).T
(y * g).sum().backward()
warm = told(share=SHARE, rows=X, inputs=IN, outputs=UP, x=x.detach(), w=w.detach(), g=g, y=y.detach(), dx=x.grad, dw=w.grad)

with open(f"{OUT}/distil_losses.json", "w") as file:
    json.dump(dict(torch=torch.__version__, dense=dense, stored=stored, relation=relation, warm=warm), file)
