"""evaluate.py PAGE_HF SHARED_DATA OUT: items, and what transformers makes of them with the model `page`.

PAGE_HF is `tern convert testdata/models/page/page.gguf PAGE_HF --to hf`; SHARED_DATA holds the public test sets. Writes to OUT
the items (a few of each set whose licence lets them be copied, made-up ones for the others), a slice of WikiText-2, and
expected.json: perplexities in both conventions and the grades of every item."""
import json, math, os, random, re, subprocess, sys
import torch, transformers
from evalref import GOLDEN, Reference
from tokenizers import Tokenizer

page, data, out = sys.argv[1:4]
os.makedirs(out, exist_ok=True)
tasks = {}
folder = os.path.join(GOLDEN, "../../eval/src/tasks/builtin")
for name in sorted(os.listdir(folder)):
    task = json.load(open(os.path.join(folder, name)))
    tasks[task["name"]] = task
reference = Reference(page)
config = reference.model.config
tokenizer = Tokenizer.from_file(os.path.join(page, "tokenizer.json"))
BOS, EOS, CONTEXT = config.bos_token_id, config.eos_token_id, config.max_position_embeddings
ADDS = tokenizer.encode("a").ids[0] == BOS


def encode(text):
    return ([BOS] if ADDS else []) + tokenizer.encode(text, add_special_tokens=False).ids


# ------------------------------------------------------------------ items
def lines(name):
    plain = os.path.join(data, "eval", name)
    if os.path.exists(plain):
        return [json.loads(line) for line in open(plain)]
    return [json.loads(line) for line in subprocess.run(["zstd", "-dc", plain + ".zst"], capture_output=True, check=True).stdout.splitlines()]


source = random.Random(11)
NOUNS = "bird sea boat stone cat tree river house star wind fish child shore nest rope lamp".split()
VERBS = "sees finds keeps likes wants hears follows carries".split()


def sentence():
    return f"The {source.choice(NOUNS)} {source.choice(VERBS)} the {source.choice(NOUNS)}"


def made(name, count):
    for _ in range(count):
        a, b = sentence(), sentence()
        choices = [f"the {noun}" for noun in source.sample(NOUNS, 4)]
        choices[source.randrange(4)] += f" and {source.choice(NOUNS)}"
        gold = source.randrange(4)
        if name in ("arc_easy", "arc_challenge"):
            yield {"query": f"Question: {a}. What does it see?", "choices": choices, "gold": gold}
        elif name == "piqa":
            yield {"query": f"Question: How do I find {choices[0]}?\n", "choices": [a, b], "gold": gold % 2}
        elif name == "siqa":
            yield {"query": f"Context: {a}.\nQuestion: Why?\nChoices:\nA. {b}\nB. {choices[1]}\nAnswer:", "choices": ["A", "B"], "gold": gold % 2}
        elif name == "boolq":
            yield {"query": f"Passage: {a}. {b}.\nQuestion: is there a {source.choice(NOUNS)}?", "choices": ["no", "yes"], "gold": gold % 2}
        elif name == "winogrande":
            x, y = source.sample(NOUNS, 2)
            yield {"context_options": [f"{a}, and the {x}", f"{a}, and the {y}"], "continuation": f"{source.choice(VERBS)} it.", "gold": gold % 2}
        elif name == "mmlu":
            yield {"split": "test", "subject": source.choice(["sea_birds", "boats"]), "question": f"{a}?", "choices": source.sample(NOUNS, 4), "answer": gold}


items = {}
short = lambda item: len(json.dumps(item)) < 420
for name, count in [("copa", 24), ("openbook_qa", 24), ("commonsense_qa", 24), ("hellaswag", 16), ("lambada", 16)]:
    file = "hellaswag-subset.jsonl" if name == "hellaswag" else tasks[name]["file"]
    items[name] = [item for item in lines(file) if short(item)][:count]
for name in ("arc_easy", "arc_challenge", "piqa", "siqa", "boolq", "winogrande"):
    items[name] = list(made(name, 24))
shots = [dict(item, split="dev", subject=subject) for subject in ("boats", "sea_birds") for item in made("mmlu", 5)]
items["mmlu"] = shots + list(made("mmlu", 16))
items["gsm8k_short"] = [item for item in lines("gsm8k-test.jsonl") if len(item["question"]) < 150][:12]
items["ifeval_short"] = [item for item in lines("ifeval-input_data.jsonl") if short(item)][:16]
own = {"gsm8k_short": dict(tasks["gsm8k"], name="gsm8k_short", file="gsm8k_short.jsonl", tokens=40,
                           preamble="Question: Tom has 2 apples and buys 3. How many has he?\nAnswer: 2 + 3 = 5.\n#### 5\n\n"),
       "ifeval_short": dict(tasks["ifeval"], name="ifeval_short", file="ifeval_short.jsonl", tokens=40, chat=False)}
for name, task in own.items():
    tasks[name] = task
    json.dump(task, open(f"{out}/{name}.json", "w"), indent=1)
for name, list_ in items.items():
    with open(os.path.join(out, tasks[name]["file"]), "w") as file:
        file.writelines(json.dumps(item) + "\n" for item in list_)


# ------------------------------------------------------------------ scoring
def score(context, end):
    """As lm-evaluation-harness parts a text: trailing spaces of the beginning go to the end."""
    kept = context.rstrip()
    end = context[len(kept):] + end
    first, whole = encode(kept), encode(kept + end)
    if not first:
        first, whole = [BOS], [BOS] + whole
    table = torch.log_softmax(reference.logits(whole).double(), -1)
    ids = range(len(first), len(whole))
    logprob = sum(table[at - 1, whole[at]].item() for at in ids)
    return logprob, all(table[at - 1].argmax().item() == whole[at] for at in ids)


def generate(prompt, most, stops):
    ids, new = encode(prompt), []
    while len(new) < most and len(ids) + len(new) < CONTEXT:
        new.append(int(reference.logits(ids + new)[-1].argmax()))
        if new[-1] == EOS:
            new.pop()
            break
        if any(stop in tokenizer.decode(new[-24:]) for stop in stops):
            break
    text = tokenizer.decode(new)
    return text[:min([text.find(stop) for stop in stops if stop in text], default=len(text))]


def fill(template, item):
    def value(match):
        found = item
        for part in match.group(1).split("."):
            found = found[int(part) if isinstance(found, list) else part]
        return str(found).replace("_", " ") if match.group(1) == "subject" else str(found)
    return re.sub(r"\{([^}]+)\}", value, template)


def best(scores):
    return max(range(len(scores)), key=lambda at: (scores[at], -at))


def choices_of(task, item):
    if "options" in task:
        return list(zip(task["options"], task["options"]))
    found = item[task.get("choices") or task["prompts"]]
    return list(found.items()) if isinstance(found, dict) else [(str(n), text) for n, text in enumerate(found)]


def gold_of(task, item, choices):
    gold = item[task["gold"]]
    return gold if isinstance(gold, int) else [letter for letter, _ in choices].index(gold)


def grade(task, item, everything):
    before = fill(task.get("preamble", ""), item)
    where = lambda other, key: all(other.get(k) == v for k, v in task.get(key, {}).items())
    same = task.get("shots_same")
    found = [o for o in everything if task.get("shots") and where(o, "shots_where") and (not same or o[same] == item[same])]
    for shot in found[:task.get("shots", 0)]:
        choices = choices_of(task, shot)
        before += fill(task["prompt"], shot) + " " + choices[gold_of(task, shot, choices)][1] + "\n\n"
    if task["kind"] == "choice":
        choices = choices_of(task, item)
        gold = gold_of(task, item, choices)
        if "prompts" in task:
            end = " " + fill(task["end"], item)
            pairs = [(before + text, end) for _, text in choices]
            letters = [len(end) - 1] * len(pairs)
        else:
            prompt = before + fill(task["prompt"], item)
            pairs = [(prompt, " " + text) for _, text in choices]
            letters = [len(text) for _, text in choices]
        scores = [score(*pair)[0] for pair in pairs]
        grades = {"acc": int(best(scores) == gold), "acc_norm": int(best([s / n for s, n in zip(scores, letters)]) == gold)}
        if "unconditional" in task:
            alone = [score(task["unconditional"], end)[0] for _, end in pairs]
            grades["acc_uncond"] = int(best([s - a for s, a in zip(scores, alone)]) == gold)
        return grades, scores
    prompt = before + fill(task["prompt"], item)
    if task["kind"] == "cloze":
        logprob, all_best = score(prompt, " " + fill(task["end"], item))
        return {"acc": int(all_best), "logprob": logprob}, [logprob]
    return {}, generate(prompt, task["tokens"], task.get("stop", []))


expected = {"torch": torch.__version__, "transformers": transformers.__version__, "tasks": {}}
for name in items:
    task, kept = tasks[name], []
    for line, item in enumerate(items[name], 1):
        if all(item.get(k) == v for k, v in task.get("where", {}).items()):
            grades, detail = grade(task, item, items[name])
            kept.append({"line": line, "grades": grades, "detail": detail})
    expected["tasks"][name] = kept
    names = kept[0]["grades"]
    print(name, len(kept), {figure: sum(item["grades"][figure] for item in kept) / len(kept) for figure in names})

# ------------------------------------------------------------------ perplexity
wiki = open(os.path.join(data, "wikitext-2-raw/wiki.test.raw")).read()
text = wiki[:9000].rsplit("\n", 1)[0] + "\n"
open(f"{out}/wikitext-slice.txt", "w").write(text)
ids = encode(text)
expected["perplexity"] = []
for context, stride in [(128, None), (512, None), (128, 32), (256, 256), (512, 200)]:
    nlls = []
    if stride is None:
        for start in range(0, len(ids) // context * context, context):
            chunk = ids[start:start + context]
            chunk = [BOS] + chunk[1:] if ADDS else chunk
            nlls += [-x for x in reference.logprobs(chunk)[context // 2:]]
    else:
        done = 0
        for start in range(0, len(ids), stride):
            end = min(start + context, len(ids))
            nlls += [-x for x in reference.logprobs(ids[start:end])[-min(end - done, end - start - 1):]] if end > done and end - start > 1 else []
            done = max(done, end)
            if end == len(ids):
                break
    expected["perplexity"].append({"context": context, "stride": stride, "tokens": len(nlls), "perplexity": math.exp(sum(nlls) / len(nlls))})
    print(expected["perplexity"][-1])
json.dump(expected, open(f"{out}/expected.json", "w"))
