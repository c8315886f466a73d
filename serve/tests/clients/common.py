"""What the scripts beside this one share: the server's address, and questions with known answers.

Each script is one library against a running `tern serve` with the model `page` (testdata/models/page), greedy by itself:
`python with_LIBRARY.py URL`. The first thing that is not as expected ends it.
"""

import json
import sys
from contextlib import contextmanager

URL = sys.argv[1]
HELLO = [{"role": "user", "content": "Hello!"}]
ANSWER = "Hello! Would you like to hear a story?"
PARAMETERS = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Bergen"]}}, "required": ["city"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "weather", "description": "What it is like", "parameters": PARAMETERS}}
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
CITIES = ("Oslo", "Bergen")


@contextmanager
def refused(kind, *words):
    """What is inside must raise this, with these words in its message."""
    try:
        yield
    except kind as error:
        missing = [word for word in words if word not in str(error)]
        assert not missing, f"{missing} in {error}"
        return
    raise AssertionError(f"expected {kind.__name__}")


def city(arguments):
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    assert arguments["city"] in CITIES, arguments
