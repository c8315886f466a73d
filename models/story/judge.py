"""What a model that tells stories can do, judged by rule: python models/story/judge.py TERN MODEL [HELD_OUT] [--stories 8] [--all]

Prints a table in Markdown, then transcripts as they came. HELD_OUT is held-out.jsonl of prepare.py: bits a character on these
stories as they lie, each by itself. Questions and subjects stand in judge.json; none of them is in the training data.
A question is answered if its pattern is in the answer, and the answer is neither empty nor of the sort that `leaks` names.
A story is about its subject if that is in its first and in its last third, or in it three times or more.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

JUDGED = json.loads((Path(__file__).parent / "judge.json").read_text())
GREEDY = ["--temp", "0", "-n", "100"]
WARM = ["--temp", "0.7", "--top-p", "0.95", "-n", "400"]


def run(*words, text=None):
    done = subprocess.run([str(word) for word in words], input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def chat(tern, model, turn, *options):
    system = ["--system", turn["system"]] if "system" in turn else []
    return run(tern, "chat", model, *system, *options, text=turn["ask"] + "\n").strip()


def bits(tern, model, held_out):
    """Bits a character on these documents, and how many documents, tokens and characters they are."""
    stories = [json.loads(line)["text"] for line in held_out.open()]
    found = json.loads(run(tern, "eval", "ppl", model, held_out, "--documents", "--json"))
    characters, octets = sum(map(len, stories)), sum(len(story.encode()) for story in stories)
    return found["bits_per_byte"] * octets / characters, len(stories), characters, found["perplexity"]


def leaks(text):
    return re.search(rf"\b(?:{JUDGED['leaks']})s?\b", text, re.I)


def answered(turn, answer):
    return bool(answer) and not leaks(answer) and bool(re.search(turn["expect"], answer, re.I | re.S))


def tells_of(story, words):
    places = [found.start() for found in re.finditer("|".join(rf"\b{word}s?\b" for word in words), story, re.I)]
    third = len(story) / 3
    return len(places) >= 3 or bool(places) and places[0] < third and places[-1] > 2 * third


def quoted(text):
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines()) or "> (nothing)"


def judge(tern, model, stories):
    """Of every question, turn, answer and verdict; of every subject, turn, its stories and their verdicts."""
    questions, subjects = [], []
    for turn in JUDGED["questions"]:
        answer = chat(tern, model, turn, *GREEDY)
        questions.append((turn, answer, answered(turn, answer)))
    for turn in JUDGED["subjects"]:
        told = [chat(tern, model, turn, *WARM, "--seed", seed) for seed in range(1, stories + 1)]
        subjects.append((turn, told, [tells_of(story, turn["about"]) for story in told]))
    return questions, subjects


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tern", type=Path)
    parser.add_argument("model")
    parser.add_argument("held_out", type=Path, nargs="?")
    parser.add_argument("--stories", type=int, default=8, help="stories of each subject")
    parser.add_argument("--all", action="store_true", help="print every answer and story, not ten and five")
    args = parser.parse_args()
    tern = args.tern.resolve()
    print("| | |\n|---|---|")
    if args.held_out:
        found, documents, characters, perplexity = bits(tern, args.model, args.held_out)
        print(f"| bits a character, {documents} held-out stories as they lie ({characters} characters) | {found:.4f} |")
        print(f"| perplexity a token of them | {perplexity:.4f} |")
    questions, subjects = judge(tern, args.model, args.stories)
    print(f"| questions answered | {sum(good for _, _, good in questions)} of {len(questions)} |")
    print(f"| answers that are empty | {sum(not answer for _, answer, _ in questions)} |")
    texts = [answer for _, answer, _ in questions] + [story for _, told, _ in subjects for story in told]
    print(f"| answers and stories with words of the data's other talk | {sum(bool(leaks(text)) for text in texts)} |")
    for turn, told, verdicts in subjects:
        print(f"| \"{turn['ask']}\": about it | {sum(verdicts)} of {len(told)} |")
    print("\nQuestions, greedy (`tern chat --temp 0`); those that the rule takes for wrong have a ✗:\n")
    shown = questions if args.all else [entry for entry in questions if not entry[2]] + questions[::5]
    for turn, answer, good in shown:
        system = f" (system: {turn['system']})" if "system" in turn else ""
        print(f"**{turn['ask']}**{system}{'' if good else ' ✗'}\n\n{quoted(answer)}\n")
    print(f"Stories (`tern chat {' '.join(WARM)} --seed 1` and on):\n")
    for turn, told, verdicts in subjects if args.all else subjects[:5]:
        for story, good in list(zip(told, verdicts))[: None if args.all else 1]:
            print(f"**{turn['ask']}**{'' if good else ' ✗'}\n\n{quoted(story)}\n")


if __name__ == "__main__":
    main()
