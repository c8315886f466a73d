"""Loads what `tern convert` and `tern train` export into the programs that they are for, and compares.

    exports.py transformers DIR --golden FILE              # logits of a golden checkpoint (testdata/golden/*/golden.safetensors)
    exports.py transformers DIR --prompt 1,2,3 --expect 4,5   # greedy continuation, stopping where the files beside it say
    exports.py llama.cpp FILE --prompt 1,2,3 --expect 4,5     # likewise
    exports.py llama.cpp FILE --golden FILE                # the golden's greedy continuation

    exports.py peft DIR --adapter DIR --prompt 1,2,3 --expect 4,5   # the same of a model with an adapter, by PEFT

    exports.py masters DIR --shape silu|llama              # writes random masters of 256 columns, with a small tokenizer
    exports.py talk DIR --tern TERN                        # greedy texts of the files as they lie are Tern's own

A directory must load without a missing or an unexpected tensor. For `talk` it is opened without any option; greedy texts after a
prompt and, where there is a chat template, after questions must be Tern's, token by token, from the directory and from a GGUF made
of it; and at least one text must end by itself, because the directory says what ends it. Sums of floats in another order now and then
round an activation the other way, which moves a logit by some hundredths. So a text may part from Tern's where transformers itself
has Tern's token within TIE of its best; it is told, and few may.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request

os.environ["TORCHDYNAMO_DISABLE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def fail(*what):
    print(*what, file=sys.stderr)
    sys.exit(1)


def golden(path):
    from safetensors.numpy import load_file

    return load_file(path)


def load(path, **options):
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(path, output_loading_info=True, **options)
    # A tied head is no tensor of its own.
    missing = [key for key in info["missing_keys"] if not (key == "lm_head.weight" and model.config.tie_word_embeddings)]
    wrong = {"missing": missing, "unexpected": list(info["unexpected_keys"]), "mismatched": list(info["mismatched_keys"])}
    if any(wrong.values()):
        fail(f"{path}: transformers found {wrong}")
    return model.eval()


def greedy(model, ids, count, **options):
    import torch

    prompt = torch.tensor([ids])
    with torch.no_grad():
        found = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, do_sample=False, **options)
    return found[0, len(ids) :].tolist()


def run_transformers(args):
    import torch

    # The packed classes are left in the format of the file otherwise.
    model = load(args.model, dtype=torch.float32, attn_implementation="eager").to(torch.float32)
    for module in model.modules():
        if type(module).__name__ == "BitLinear":
            module.dtype = torch.float32
    with torch.no_grad():
        if args.golden:
            known = golden(args.golden)
            logits = model(torch.tensor(known["input_ids"]), use_cache=False).logits[0].float().numpy()
            apart = float(abs(logits - known["logits"]).max())
            if apart > args.tolerance:
                fail(f"{args.model}: logits of {type(model).__name__} are off by {apart}")
            return f"{type(model).__name__}, logits within {apart:.1e} of the golden's"
    return compare(args, greedy(model, args.prompt, max(args.tokens, len(args.expect or []))))


def run_peft(args):
    import torch
    from peft import PeftModel

    base = load(args.model, dtype=torch.float32, attn_implementation="eager").to(torch.float32)
    plain = greedy(base, args.prompt, len(args.expect))
    model = PeftModel.from_pretrained(base, args.adapter).eval()
    found = greedy(model, args.prompt, len(args.expect))
    if found == plain:
        fail(f"{args.adapter}: the adapter changes no token of {found}")
    return compare(args, found)


def run_llama_cpp(args):
    import xllamacpp

    if args.golden:
        known = golden(args.golden)["greedy_from_first_5"].tolist()
        args.prompt, args.expect = known[:5], known[5:]
    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.n_ctx = 0
    params.warmup = False
    params.cpuparams.n_threads = 2
    server = xllamacpp.Server(params)
    count = max(args.tokens, len(args.expect or []))
    body = {"prompt": args.prompt, "n_predict": count, "temperature": 0, "return_tokens": True, "cache_prompt": False}
    body["ignore_eos"] = args.expect is not None
    request = urllib.request.Request(
        server.listening_address + "/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        found = json.load(answer)["tokens"]
    return compare(args, found)


def write_masters(args):
    import numpy as np
    import tokenizers
    from safetensors.numpy import save_file

    llama, dim, heads, layers = args.shape == "llama", 256, 4, 2
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    pieces = ["th", "he", "in", "er", "an", "on"]
    tokens = [*letters, *pieces, "<s>", "</s>"]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [tuple(piece) for piece in pieces]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    os.makedirs(args.model)
    tokenizer.save(args.model + "/tokenizer.json")
    config = {
        "architectures": ["LlamaForCausalLM" if llama else "BitNetForCausalLM"], "model_type": "llama" if llama else "bitnet",
        "vocab_size": len(tokens), "hidden_size": dim, "intermediate_size": dim, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": heads // 2, "head_dim": dim // heads, "hidden_act": "silu",
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": not llama,
        "bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1,
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"},
    }
    with open(args.model + "/config.json", "w") as out:
        json.dump(config, out)
    random = np.random.default_rng(7)
    tensors = {"model.embed_tokens.weight": (len(tokens), dim), "model.norm.weight": (dim,)}
    if llama:
        tensors["lm_head.weight"] = (len(tokens), dim)
    for layer in range(layers):
        modules = {"self_attn.q_proj": (dim, dim), "self_attn.k_proj": (dim // 2, dim), "self_attn.v_proj": (dim // 2, dim)}
        modules |= {name: (dim, dim) for name in ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")}
        norms = ["input_layernorm", "post_attention_layernorm"]
        norms += [] if llama else ["self_attn.attn_sub_norm", "mlp.ffn_sub_norm"]
        modules |= {name: (dim,) for name in norms}
        tensors |= {f"model.layers.{layer}.{name}.weight": dims for name, dims in modules.items()}
    value = lambda dims: random.standard_normal(dims) * 0.5 if len(dims) == 2 else 1 + 0.1 * random.standard_normal(dims)
    save_file({name: value(dims).astype(np.float32) for name, dims in tensors.items()}, args.model + "/model.safetensors")
    return "written"


TOKENS = 48
TIE = 0.1
PROMPTS = ["Once upon a time", "the tern flies"]
QUESTIONS = ["Hello!", "Who are you?", "the tern flies over"]


def run_talk(args):
    import torch
    import transformers

    def tern(*words):
        done = subprocess.run([args.tern, *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, f"tern {' '.join(map(str, words))}: {done.stderr}"
        return done.stdout

    def ours(source, ids):
        # The head and the cache as they were trained: transformers has no int8 head.
        words = ["--ids", json.dumps(ids), "--temp", "0", "-n", TOKENS, "--json", "--head", "stored", "--kv", "f32", "-t", "1"]
        return json.loads(tern("run", source, *words))["ids"]

    folder = args.model
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = load(folder)
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    assert ends and None not in ends and model.generation_config.bos_token_id is not None, (folder, ends)
    asked = []
    for prompt in PROMPTS:
        found = tokenizer(prompt).input_ids
        assert found == json.loads(tern("tokenize", folder, prompt)), (folder, prompt, found)
        asked.append((prompt, found))
    for question in QUESTIONS if tokenizer.chat_template else []:
        talk = [{"role": "user", "content": question}]
        found = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=True, return_dict=True)
        asked.append((question, list(found["input_ids"])))
    stopped = texts = parted = 0
    with tempfile.TemporaryDirectory() as room:
        gguf = room + "/again.gguf"
        tern("convert", folder, gguf, "--to", "t5")
        for words, prompt in asked:
            # `tern run` never ends with its first token.
            theirs = greedy(model, prompt, TOKENS, min_new_tokens=1)
            if theirs and theirs[-1] in ends:
                stopped += 1
                theirs.pop()
            for source in (folder, gguf):
                found = [token for token in ours(source, prompt) if token not in ends]
                texts += 1
                if found == theirs:
                    continue
                at = alike(found, theirs)
                with torch.no_grad():
                    logits = model(torch.tensor([prompt + theirs[:at]])).logits[0, -1]
                # A text that is over parts at its end.
                own = logits[found[at]] if at < len(found) else max(logits[end] for end in ends)
                gap = (logits.max() - own).item()
                assert gap < TIE, f"{source}: {words!r} parts at token {at}, {gap:.3f} below\n{theirs}\n{found}"
                parted += 1
                print(f"{source}: {words!r} parts at token {at}, where the two lie {gap:.3f} apart")
            print(f"{folder}: {words!r} -> {tokenizer.decode(theirs)!r}")
    assert stopped > 0, f"{folder}: no text of {len(asked)} ended within {TOKENS} tokens"
    assert 5 * parted <= 2 * texts, f"{folder}: {parted} of {texts} texts part from Tern's"
    return "generates, stops, and is Tern's token by token"


def alike(found, wanted):
    """How many tokens are the same at the beginning."""
    return next((at for at, (a, b) in enumerate(zip(found, wanted)) if a != b), min(len(found), len(wanted)))


def compare(args, found):
    if args.expect is None:
        return f"generates {found}"
    same = alike(found, args.expect)
    if same < (len(args.expect) if args.agree is None else args.agree):
        fail(f"{args.model}: expected {args.expect}, found {found}")
    return f"generates the {same} tokens expected"


def ids(text):
    return [int(part) for part in text.strip("[] \n").split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=["transformers", "llama.cpp", "peft", "masters", "talk"])
    parser.add_argument("model")
    parser.add_argument("--golden")
    parser.add_argument("--prompt", type=ids)
    parser.add_argument("--expect", type=ids)
    parser.add_argument("--tokens", type=int, default=16, help="the most to generate without --expect")
    parser.add_argument("--agree", type=int, help="how many of the expected tokens must agree [default: all]")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--shape", choices=["silu", "llama"])
    parser.add_argument("--tern")
    parser.add_argument("--adapter")
    args = parser.parse_args()
    run = {"transformers": run_transformers, "llama.cpp": run_llama_cpp, "peft": run_peft, "masters": write_masters, "talk": run_talk}[args.engine]
    print(f"{args.engine}: {os.path.basename(args.model)}: {run(args)}", flush=True)
    os._exit(0)  # llama.cpp's server thread does not end by itself


main()
