"""Exported models in `transformers` on a CPU, as they lie: python exports.py TERN FOLDER...

Each FOLDER is a Hugging Face directory that Tern wrote. It is opened without any option; greedy texts after a prompt and,
where there is a chat template, after questions must be Tern's own, token by token, from the folder and from a GGUF made of
it; and in each folder at least one text must end by itself, because the folder says what ends it.

Sums of floats in another order now and then round an activation the other way, which moves a logit by some hundredths. So a text
may part from Tern's where transformers itself has Tern's token within TIE of its best; it is told, and few may.
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers

TERN, FOLDERS = sys.argv[1], sys.argv[2:]
TOKENS = 48
TIE = 0.1
PROMPTS = ["Once upon a time", "the tern flies"]
QUESTIONS = ["Hello!", "Who are you?", "the tern flies over"]
warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(2)


def tern(*words):
    done = subprocess.run([TERN, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, f"tern {' '.join(map(str, words))}: {done.stderr}"
    return done.stdout


def ours(model, ids):
    # The head and the cache as they were trained: transformers has no int8 head.
    words = ["--ids", json.dumps(ids), "--temp", "0", "-n", TOKENS, "--json", "--head", "stored", "--kv", "f32", "-t", "1"]
    return json.loads(tern("run", model, *words))["ids"]


def check(folder, room):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    assert ends and None not in ends and model.generation_config.bos_token_id is not None, (folder, ends)
    gguf = room / "again.gguf"
    tern("convert", folder, gguf, "--to", "t5")
    asked = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt).input_ids
        assert ids == json.loads(tern("tokenize", folder, prompt)), (folder, prompt, ids)
        asked.append((prompt, ids))
    if tokenizer.chat_template:
        for question in QUESTIONS:
            talk = [{"role": "user", "content": question}]
            ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=True, return_dict=True)
            asked.append((question, list(ids["input_ids"])))
    stopped = texts = parted = 0
    for words, ids in asked:
        # `tern run` never ends with its first token.
        with torch.no_grad():
            out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                                 max_new_tokens=TOKENS, min_new_tokens=1, do_sample=False)
        theirs = out[0, len(ids):].tolist()
        if theirs and theirs[-1] in ends:
            stopped += 1
            theirs.pop()
        for source in (folder, gguf):
            found = [i for i in ours(source, ids) if i not in ends]
            texts += 1
            if found == theirs:
                continue
            at = next((n for n, (a, b) in enumerate(zip(found, theirs)) if a != b), min(len(found), len(theirs)))
            with torch.no_grad():
                logits = model(torch.tensor([ids + theirs[:at]])).logits[0, -1]
            # A text that is over parts at its end.
            own = logits[found[at]] if at < len(found) else max(logits[i] for i in ends)
            gap = (logits.max() - own).item()
            assert gap < TIE, f"{source}: {words!r} parts at token {at}, {gap:.3f} below\n{theirs}\n{found}"
            parted += 1
            print(f"{source}: {words!r} parts at token {at}, where the two lie {gap:.3f} apart")
        print(f"{folder}: {words!r} -> {tokenizer.decode(theirs)!r}")
    assert stopped > 0, f"{folder}: no text of {len(asked)} ended within {TOKENS} tokens"
    assert 5 * parted <= 2 * texts, f"{folder}: {parted} of {texts} texts part from Tern's"


assert FOLDERS, __doc__
for folder in FOLDERS:
    with tempfile.TemporaryDirectory() as room:
        check(folder, Path(room))
print(f"{len(FOLDERS)} exports generate and stop in transformers {transformers.__version__}, and are Tern's token by token")
