"""Lay out the data that `story` is trained on, from the project's shared data: python prepare.py SHARED_DATA OUT

stories.jsonl    TinyStories as they lie, deduplicated, without those held out
held-out.jsonl   every thirtieth story by the hash of its beginning: never trained on
requests.jsonl   requests for stories about something, answered with such stories; some are told of others than they were
talk.jsonl       small talk, from talk.py
hashes.txt       of the beginnings of the stories that were trained on, and of those held out: none is in both

No question of judge.json is among the conversations.
"""

import collections
import hashlib
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import talk

DATA, OUT = Path(sys.argv[1]), Path(sys.argv[2])
HERE = Path(__file__).parent

# What stories are asked for, with plural; each kind's words take each other's place in a story.
KINDS = {
    "creature": """dog/dogs puppy/puppies cat/cats kitten/kittens bird/birds bunny/bunnies rabbit/rabbits bear/bears frog/frogs fox/foxes mouse/mice
        duck/ducks lion/lions monkey/monkeys turtle/turtles squirrel/squirrels elephant/elephants pig/pigs butterfly/butterflies owl/owls
        dragon/dragons unicorn/unicorns dinosaur/dinosaurs monster/monsters wolf/wolves horse/horses pony/ponies fish/fish bee/bees tiger/tigers
        penguin/penguins giraffe/giraffes hedgehog/hedgehogs robot/robots ghost/ghosts fairy/fairies cow/cows sheep/sheep whale/whales
        snail/snails spider/spiders ant/ants crab/crabs goat/goats parrot/parrots hippo/hippos zebra/zebras alien/aliens""",
    "girl": "girl/girls princess/princesses queen/queens fairy/fairies witch/witches mermaid/mermaids",
    "boy": "boy/boys prince/princes king/kings knight/knights pirate/pirates wizard/wizards farmer/farmers",
    "vehicle": """car/cars truck/trucks train/trains boat/boats ship/ships plane/planes bus/buses tractor/tractors rocket/rockets bike/bikes
        airplane/airplanes helicopter/helicopters""",
    "thing": """ball/balls doll/dolls kite/kites balloon/balloons toy/toys drum/drums hat/hats book/books box/boxes key/keys lamp/lamps
        cup/cups spoon/spoons shoe/shoes umbrella/umbrellas bell/bells""",
    "food": "cake/cakes cookie/cookies apple/apples banana/bananas pie/pies sandwich/sandwiches carrot/carrots",
    "grown": "flower/flowers tree/trees mushroom/mushrooms leaf/leaves plant/plants",
}
KINDS = {kind: dict(pair.split("/") for pair in text.split()) for kind, text in KINDS.items()}
ALONE = """star moon sun cloud rainbow river garden castle house park beach sea mountain snowman treasure king birthday party school farm zoo
    mom dad grandma grandpa baby doctor teacher clown chef""".split()
# Stories about each word, at least, where others can be told of it: more where a kind has few words to learn copying from.
EACH = collections.defaultdict(lambda: 60, girl=240, boy=160, vehicle=120)

ASKS = ["Tell me a story about {}.", "Can you tell me a story about {}?", "Please tell me a story about {}.", "I want to hear a story about {}.",
        "Write a short story about {}.", "Make up a story about {}.", "Do you know a story about {}?", "A story about {}, please.",
        "I would like a story about {}.", "Tell me a bedtime story about {}.", "Write a story about {}.", "Could you tell a story about {}?",
        "Tell a story about {}!", "tell me a story about {}", "story about {}", "Tell me about {} in a story.", "Give me a story about {}."]
PLAIN = ["Tell me a story.", "Can you tell me a story?", "Please tell me a story.", "I want to hear a story.", "Tell me a bedtime story.",
         "Do you know a story?", "Another story, please.", "Write a short story.", "tell me a story", "A story, please!", "One more story!",
         "Make up a story.", "Tell me something."]
CALLED = ["named", "named", "called", "whose name is"]


def lines(name):
    text = subprocess.run(["zstd", "-dc", DATA / name], check=True, capture_output=True).stdout
    return [json.loads(line) for line in text.decode().splitlines()]


def beginning(story):
    """What tells a story from others: its first letters, however its lines are broken."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", story.strip())]
    return re.sub(r"\W+", " ", "\n\n".join(part for part in paragraphs if part)[:160].lower())


def digest(start):
    return hashlib.sha1(start.encode()).digest()[:8]


def replaced(text, old, new):
    """The text with a word in the place of another, its capital and its article too."""
    def other(found):
        article, word = found.group(1) or "", found.group(2)
        if article:
            article = article[0] + ("n " if talk.an(new).startswith("an ") else " ")
        return article + (new[0].upper() + new[1:] if word[0].isupper() else new)

    return re.sub(rf"\b([Aa]n? )?({re.escape(old)}|{re.escape(old.capitalize())})\b", other, text)


def about(story, word, plural=None, times=3, by=220):
    """Whether the story is about this: it is in the opening, and again and again to the end."""
    pattern = re.compile(rf"\b(?:{word}|{plural or word + 's'})\b", re.I)
    places = [found.start() for found in pattern.finditer(story)]
    return len(places) >= times and places[0] < by and places[-1] > len(story) * 0.6


def retold(story, kind, old, new, rng):
    words = KINDS[kind]
    if re.search(rf"\b{new}\b", story, re.I):
        return None
    return replaced(replaced(story, words[old], words[new]), old, new)


HERO = re.compile(r"\b(?:named|called|name was) ([A-Z][a-z]+)\b")


def renamed(story, rng):
    """The story with another name for its hero, and that name; the first one if that is among ours, or nothing."""
    found = HERO.search(story[:220])
    if not found or len(re.findall(rf"\b{found.group(1)}\b", story)) < 3:
        return None
    old, new = found.group(1), rng.choice(talk.NAMES)
    if re.search(rf"\b{new}\b", story) or old in ("The", "Mr", "Mrs", "Miss", "It", "Mommy", "Mom"):
        return None
    return re.sub(rf"\b{old}\b", new, story), new


def requests(stories, rng):
    """Pairs of a request and a story."""
    pairs, nouns = [], [(kind, word) for kind, words in KINDS.items() for word in words]
    told = collections.defaultdict(list)
    for story in stories:
        for kind, word in nouns:
            if word in story and about(story, word, KINDS[kind][word]):
                told[kind, word].append(story)
    for (kind, word), own in [(key, told[key]) for key in nouns]:
        own = rng.sample(own, min(len(own), max(120, EACH[kind])))
        texts, tries = list(own), 0
        while len(texts) < EACH[kind] and tries < 20 * EACH[kind]:
            tries += 1
            old = rng.choice([other for other in KINDS[kind] if other != word and told[kind, other]])
            text = retold(rng.choice(told[kind, old]), kind, old, word, rng)
            if text and about(text, word, KINDS[kind][word], 4, 130):
                texts.append(text)
        for text in texts:
            thing = talk.an(word)
            if rng.random() < 0.12 and re.search(rf"\blittle {word}\b", text[:220]):
                thing = f"a little {word}"
            if rng.random() < 0.45 and (other := renamed(text, rng)):
                text, name = other
                if re.search(rf"\b{word} (?:{'|'.join(('named', 'called', 'whose name was'))}) {name}\b", text[:260]) or rng.random() < 0.3:
                    thing = f"{thing} {rng.choice(CALLED)} {name}"
            pairs.append((thing, text))
    for word in ALONE:
        own = [story for story in stories if word in story and about(story, word)]
        pairs += [("the " + word if word in ("moon", "sun", "sea") else talk.an(word), story) for story in rng.sample(own, min(len(own), 40))]
    heroes = [story for story in stories if HERO.search(story[:220])]
    for story in rng.sample(heroes, min(len(heroes), 2600)):
        other = renamed(story, rng)
        if not other:
            continue
        text, name = other
        noun = re.search(rf"\b(\w+) (?:named|called) {name}\b", text[:220])
        noun = noun.group(1) if noun and noun.group(1).islower() else None
        thing = f"{talk.an(noun)} {rng.choice(CALLED)} {name}" if noun and rng.random() < 0.75 else name
        pairs.append((thing, text))
    return pairs


def conversations(stories, rng, held_out):
    chats, pairs = [], requests(stories, rng)
    pairs += [("", story) for story in rng.sample(stories, len(pairs) // 12)]
    rng.shuffle(pairs)
    for thing, story in pairs:
        ask = rng.choice(ASKS if rng.random() < 0.5 else ASKS[:3]).format(thing) if thing else rng.choice(PLAIN)
        if ("", ask) in held_out:
            ask = f"Could you tell me a nice story about {thing}?"
        chat = [("user", ask), ("assistant", story)]
        if rng.random() < 0.12:
            chat = [turn for question, answer in [talk.small(rng)] for turn in (("user", question), ("assistant", answer))] + chat
        if rng.random() < 0.05:
            chat = [("system", rng.choice(talk.PLAIN_SYSTEM))] + chat
        draw = rng.random()
        if draw < 0.1:
            questions, answers = next(turn for turn in talk.SMALL if "Thank you!" in turn[0])
            chat += [("user", rng.choice(questions)), ("assistant", rng.choice(answers))]
        elif draw < 0.25 and thing:
            chat += [("user", rng.choice(["What was the story about?", "Who was in the story?", "Who was the story about?"])),
                     ("assistant", f"The story was about {thing}.")]
        if not any(role == "user" and ("", text) in held_out for role, text in chat):
            chats.append(chat)
    return chats


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    found = (DATA / "tinystories/tinystories-train.txt").read_text().split("<|endoftext|>")
    found += [record["text"] for record in lines("more-stories/tinystories-more.jsonl.zst")]
    seen, train, held = set(), [], []
    for story in map(str.strip, found):
        start = beginning(story)
        if len(story) < 100 or start in seen:
            continue
        seen.add(start)
        (held if int.from_bytes(digest(start), "big") % 30 == 0 else train).append(story)

    judged = json.loads((HERE / "judge.json").read_text())
    held_out = {(question.get("system", ""), question["ask"]) for question in judged["questions"] + judged["subjects"]}
    rng = random.Random(2)
    chats = conversations(train, rng, held_out)
    small = talk.chats(30000, 3, held_out)

    def write(name, records):
        (OUT / name).write_text("".join(json.dumps(record) + "\n" for record in records))

    def messages(chat):
        return {"messages": [{"role": role, "content": content} for role, content in chat]}

    write("stories.jsonl", [{"text": story} for story in train])
    write("held-out.jsonl", [{"text": story} for story in held])
    write("requests.jsonl", map(messages, chats))
    write("talk.jsonl", map(messages, small))
    ours, others = ({digest(beginning(story)).hex() for story in side} for side in (train, held))
    assert not ours & others
    (OUT / "hashes.txt").write_text("".join(f"{name} {hash_}\n" for name, side in (("trained", ours), ("held-out", others)) for hash_ in sorted(side)))
    spoken = {(chat[0][1] if chat[0][0] == "system" else "", text) for chat in chats + small for role, text in chat if role == "user"}
    assert not spoken & held_out, spoken & held_out
    size = lambda all: sum(len(text) for chat in all for _, text in chat)
    print(f"{len(train)} stories ({sum(map(len, train))} characters), {len(held)} held out; {len(chats)} requests ({size(chats)}); "
          f"{len(small)} conversations ({size(small)})")


main()
