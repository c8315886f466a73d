"""A conversation in the terminal, with what was said before, written as it comes.

    pip install wheels/tern-*.whl
    python examples/chat.py story

An empty line ends it. What comes through a pipe is a conversation, too: `printf 'Hello!\\nAnd then?\\n' | python examples/chat.py story`
"""

import argparse
import sys

from tern import Llama

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--tokens", type=int, default=120, help="of an answer, at most")
parser.add_argument("--seed", type=int, default=1)
told = parser.parse_args()

# %% The model, with as long a context as it was made for.

llm = Llama(told.model, n_ctx=0, seed=told.seed)
talk = []

# %% A line is a turn.

while True:
    if sys.stdin.isatty():
        print("> ", end="", flush=True)
    line = sys.stdin.readline().strip()
    if not line:
        break
    talk.append({"role": "user", "content": line})
    said = ""
    for piece in llm.create_chat_completion(talk, max_tokens=told.tokens, temperature=0.7, stream=True):
        new = piece["choices"][0]["delta"].get("content") if piece["choices"] else None
        if new:
            said += new
            print(new, end="", flush=True)
    print()
    talk.append({"role": "assistant", "content": said})

llm.close()
