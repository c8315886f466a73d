"""Lay out the data that `story` is trained on, from the project's shared data: python prepare.py SHARED_DATA OUT

stories.jsonl    TinyStories, deduplicated, without those held out
held-out.jsonl   every thirtieth story by the hash of its beginning: never trained on
as-they-lie.jsonl the same stories, with their lines as their authors broke them
chat.jsonl       requests for stories answered with training stories, and small talk written for this model
*.jsonl.zst      the other sources, as they are
"""

import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

DATA, OUT = Path(sys.argv[1]), Path(sys.argv[2])

OTHERS = ["more-stories/african-storybook-pratham.jsonl.zst", "more-stories/fairytaleqa.jsonl.zst",
          "more-books/books-more.jsonl.zst", "gutenberg-children/books.jsonl.zst", "dialogue/topical-chat.jsonl.zst",
          "dialogue/taskmaster4.jsonl.zst"]

NOUNS = """dog cat bird fish bear rabbit mouse frog duck cow horse pig sheep lion tiger elephant monkey fox wolf turtle bee
ant spider snake dragon princess prince king queen knight fairy robot doll ball car truck train boat plane bike kite toy
game book tree flower garden forest river lake sea beach mountain moon sun star rain snow wind cloud cake cookie apple
banana bread soup candy ice-cream birthday present party school teacher friend mom dad grandma grandpa baby brother sister
boy girl farmer doctor clown balloon hat shoe dress box key door house castle park swing slide bridge butterfly owl squirrel
puppy kitten chicken lizard monster ghost treasure map drum piano song picture crayon puzzle block bell lamp bed blanket
pillow mirror bucket shovel rock leaf seed carrot tomato potato pumpkin egg milk honey""".split()

ASKS = ["Tell me a story about a {}.", "Can you tell me a story about a {}?", "Please tell me a story about a {}.",
        "I want to hear a story about a {}.", "Write a short story about a {}."]
PLAIN = ["Tell me a story.", "Can you tell me a story?", "Please tell me a story.", "I want to hear a story.",
         "Tell me a bedtime story.", "Do you know a story?", "Another story, please.", "Write a short story."]

TALK = [
    (["Hello!", "Hello", "Hi", "Hi!", "Hi there!", "Hey", "Good morning!", "Good day!"],
     ["Hello! Would you like to hear a story?", "Hi! I am happy to see you. Shall I tell you a story?"]),
    (["Who are you?", "What are you?", "What is your name?", "What's your name?", "Who am I talking to?"],
     ["I am story, a tiny language model. I tell little stories.", "My name is story. I am a very small model that tells stories."]),
    (["What can you do?", "How can you help me?", "What do you do?", "Help"],
     ["I can tell you little stories. Say: Tell me a story about a dog.", "I tell short stories for children. Ask me for one!"]),
    (["How are you?", "How are you today?", "How do you do?"],
     ["I am fine, thank you! How are you?", "I am very well, thank you. Would you like a story?"]),
    (["I am fine.", "I am good, thank you.", "I feel good today."],
     ["I am glad to hear that! Shall I tell you a story?"]),
    (["I am sad.", "I feel sad today.", "I had a bad day."],
     ["I am sorry that you are sad. Maybe a story will help. Shall I tell you one?"]),
    (["Thank you!", "Thanks!", "Thank you very much.", "That was nice.", "I liked that story."],
     ["You are welcome!", "I am glad you liked it. Would you like another story?"]),
    (["Goodbye!", "Bye!", "Bye bye", "See you later!", "Good night!"],
     ["Goodbye! Come back soon for another story.", "Good night and sweet dreams!"]),
    (["Yes", "Yes, please.", "Yes please!", "Okay", "Sure."],
     ["Good! What should the story be about?", "I am happy! Tell me what the story should be about."]),
    (["No", "No, thank you.", "Not now."], ["That is fine. Tell me when you would like a story."]),
    (["Do you like stories?", "Do you like animals?", "Do you like to play?"],
     ["Yes, I like them very much!", "Yes! I know many stories about that."]),
    (["What does a dog say?"], ["A dog says woof."]), (["What does a cat say?"], ["A cat says meow."]),
    (["What does a cow say?"], ["A cow says moo."]), (["What does a duck say?"], ["A duck says quack."]),
    (["What color is the sky?"], ["The sky is blue."]), (["What color is grass?"], ["Grass is green."]),
    (["What color is the sun?"], ["The sun is yellow."]), (["What color is snow?"], ["Snow is white."]),
    (["Where do fish live?"], ["Fish live in the water."]), (["Where do birds live?"], ["Many birds live in nests in the trees."]),
    (["How old are you?"], ["I am very young. I was made not long ago."]),
    (["Are you a person?", "Are you human?", "Are you real?"], ["No, I am a small computer program that tells stories."]),
    (["Are you smart?", "Do you know everything?"], ["No, I am very small and I know little. But I can tell stories."]),
    (["What is Tern?", "Who made you?"], ["I was trained by Tern, a program for small and fast language models."]),
    (["What is the capital of France?", "What is two plus two?", "Write a program.", "What is the weather today?",
      "Who is the president?", "Explain quantum physics."],
     ["I do not know. I only know little stories. Shall I tell you one?"]),
]


def lines(name):
    text = subprocess.run(["zstd", "-dc", DATA / name], check=True, capture_output=True).stdout
    return [json.loads(line) for line in text.decode().splitlines()]


def join(text):
    """One line a paragraph, one empty line between paragraphs."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    return "\n\n".join(part for part in paragraphs if part)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    stories = (DATA / "tinystories/tinystories-train.txt").read_text().split("<|endoftext|>")
    stories += [record["text"] for record in lines("more-stories/tinystories-more.jsonl.zst")]
    seen, train, held_out, as_they_lie = set(), [], [], []
    for text in stories:
        story = join(text)
        start = re.sub(r"\W+", " ", story[:160].lower())
        if len(story) < 100 or start in seen:
            continue
        seen.add(start)
        digest = int.from_bytes(hashlib.sha1(start.encode()).digest()[:8], "big")
        (held_out if digest % 30 == 0 else train).append(story)
        if digest % 30 == 0:
            as_they_lie.append(text.strip())

    rng = random.Random(1)
    chats = []
    for story in rng.sample(train, len(train) // 3):
        opening = story[:200].lower()
        nouns = [noun for noun in NOUNS if re.search(rf"\b{noun}\b", opening)]
        ask = rng.choice(ASKS).format(rng.choice(nouns)) if nouns and rng.random() < 0.8 else rng.choice(PLAIN)
        ask = ask.replace(" a apple", " an apple").replace(" a elephant", " an elephant").replace(" a owl", " an owl")
        ask = ask.replace(" a ant", " an ant").replace(" a egg", " an egg").replace(" a ice", " an ice")
        chat = [("user", ask), ("assistant", story)]
        if rng.random() < 0.2:
            questions, answers = TALK[0]
            chat = [("user", rng.choice(questions)), ("assistant", rng.choice(answers))] + chat
        if rng.random() < 0.2:
            questions, answers = rng.choice(TALK[6:8])
            chat += [("user", rng.choice(questions)), ("assistant", rng.choice(answers))]
        chats.append(chat)
    for _ in range(2500):
        chat = []
        for questions, answers in rng.sample(TALK, rng.randint(1, 3)):
            chat += [("user", rng.choice(questions)), ("assistant", rng.choice(answers))]
        chats.append(chat)

    for name in OTHERS:
        shutil.copy(DATA / name, OUT)

    def write(name, records):
        (OUT / name).write_text("".join(json.dumps(record) + "\n" for record in records))

    write("stories.jsonl", [{"text": story} for story in train])
    write("held-out.jsonl", [{"text": story} for story in held_out])
    write("as-they-lie.jsonl", [{"text": story} for story in as_they_lie])
    write("chat.jsonl", [{"messages": [{"role": r, "content": c} for r, c in chat]} for chat in chats])
    print(f"{len(train)} stories ({sum(map(len, train))} characters), {len(held_out)} held out, {len(chats)} chats")


main()
