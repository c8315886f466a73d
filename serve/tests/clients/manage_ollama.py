"""Ollama's own client manages the models of a server with `--manage-models`, whose Hub has `org/page-gguf`: pull with its
progress, list, show, chat, ps, copy, delete."""

import ollama
from common import URL, refused

client = ollama.Client(host=URL)
name = "org/page-gguf"


def names(models):
    return {model.model for model in models}


assert names(client.list().models) == {"story:latest"}
steps = list(client.pull(name, stream=True))
assert steps[0].status == "pulling manifest" and steps[-1].status == "success", steps
coming = [step for step in steps if step.digest]
assert coming and all(step.digest.startswith("sha256:") and step.completed <= step.total for step in coming), steps
assert coming[-1].completed == coming[-1].total > 1000, coming
assert client.pull(name).status == "success", "it is here already"
assert names(client.list().models) == {"story:latest", f"{name}:latest"}
shown = client.show(name)
assert "completion" in shown.capabilities and shown.details.parameter_size and shown.modelinfo["general.architecture"], shown
assert client.ps().models == []
assert client.chat(model=name, messages=[{"role": "user", "content": "Hello!"}], options={"num_predict": 4}).message.content
assert names(client.ps().models) == {f"{name}:latest"}
assert client.copy(name, "mine").status == "success"
assert client.generate(model="mine", prompt="Hello!", options={"num_predict": 4}).response
assert client.delete("mine").status == "success"
assert client.delete(name).status == "success"
assert names(client.list().models) == {"story:latest"}
for call, what in [
    (lambda: client.chat(model=name, messages=[{"role": "user", "content": "Hello!"}]), "no model"),
    (lambda: client.delete(name), "no model"),
    (lambda: client.delete("story"), "cannot delete"),
    (lambda: client.copy(name, "mine"), "no model"),
    (lambda: client.pull("org/none"), "not found on the Hub"),
    (lambda: list(client.pull("org/none", stream=True)), "not found on the Hub"),
    (lambda: client.pull("../../etc/passwd"), "letters"),
]:
    with refused(ollama.ResponseError, what):
        call()
print("ok")
