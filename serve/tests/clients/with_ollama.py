"""Ollama's own client: chat, generate, formats, tools, the model's card."""

import json

import ollama
from common import ANSWER, HELLO, SCHEMA, TOOL, URL, refused

client = ollama.Client(host=URL)
greedy = {"temperature": 0}
models = client.list().models
assert [model.model for model in models] == ["page:latest"] and models[0].size > 1000 and len(models[0].digest) == 64, models
assert [model.model for model in client.ps().models] == ["page:latest"]
for name in "page", "page:latest":
    assert client.chat(model=name, messages=HELLO, options=greedy).message.content == ANSWER
assert "".join(part.message.content for part in client.chat(model="page", messages=HELLO, options=greedy, stream=True)) == ANSWER
whole = client.generate(model="page", prompt="Hello!", options=greedy)
assert whole.response == ANSWER and whole.done and whole.eval_count > 5
assert client.generate(model="page").done_reason == "load"
assert json.loads(client.chat(model="page", messages=HELLO, format=SCHEMA).message.content).keys() == {"ok"}
assert client.chat(model="page", messages=HELLO, options=greedy | {"stop": ["like"]}).message.content == "Hello! Would you "
assert client.chat(model="page", messages=HELLO, tools=[TOOL], options=greedy | {"num_predict": 4}).message is not None
assert client.show("page").capabilities
assert client.pull("page").status == "success", "it is here already"
with refused(ollama.ResponseError, "400"):
    client.chat(model="page", messages=[{"role": "user", "content": "x " * 9000}])
with refused(ollama.ResponseError, "images"):
    client.generate(model="page", prompt="What is this?", images=[b"x"])
with refused(ollama.ResponseError, "think"):
    client.chat(model="page", messages=HELLO, think=True)
with refused(ollama.ResponseError, "501"):
    client.embed("page", "x")
for call in lambda: client.pull("org/repo"), lambda: client.delete("page"), lambda: client.copy("page", "other"):
    with refused(ollama.ResponseError, "--manage-models"):
        call()
