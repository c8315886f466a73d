"""Fine-tunes a model on texts of your own, says what that changed, and serves the result.

    pip install wheels/tern-*.whl
    python examples/fine_tune_and_serve.py stories.txt out --serve tern

`stories.txt` holds texts with empty lines between them. The folder `out` gets the run and model.gguf; run again after it was
interrupted, it goes on. With `--serve` and the command `tern` the model answers on an address, else in this process.
"""

import argparse
import json
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

import tern

parser = argparse.ArgumentParser()
parser.add_argument("texts")
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--model", default="story")
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--serve", metavar="TERN", help="the command to serve it with")
parser.add_argument("--prompt", default="Once upon a time")
told = parser.parse_args()

# %% Train, or go on. Every key is explained by `tern train init`.

run = told.out / "run"
keys = {
    "from": told.model, "out": str(run), "train": [told.texts], "separator": "\n\n", "validation": 0.0, "length": 64, "sequences": 4,
    "steps": told.steps, "warmup": 2, "rate": 3e-4, "log_every": 10,
}


def heard(event):
    if event["kind"] == "step":
        print(f"step {event['step']}: loss {event['loss']:.3f}")


result = tern.train(run if (run / "train.toml").is_file() else keys, callback=heard)
if not result.done:
    raise SystemExit(f"stopped: {result.path} goes on when this is run again")

# %% What it became, as one file.

model = told.out / "model.gguf"
tern.convert(result.path, model, to="i2")
text = pathlib.Path(told.texts).read_text()
before, after = (tern.eval.perplexity(one, text, n_ctx=64, stride=32).perplexity for one in (told.model, model))
print(f"perplexity of these texts: {before:.2f} before, {after:.2f} after")

# %% Serve it.


def loaded(url):
    """Until its model is loaded, a server answers 503."""
    try:
        return urllib.request.urlopen(f"{url}/health").status == 200
    except urllib.error.HTTPError:
        return False


if told.serve is None:
    with tern.LLM(model) as llm:
        print(told.prompt + llm.generate(told.prompt, tern.SamplingParams(temperature=0, max_tokens=24))[0].outputs[0].text)
else:
    server = subprocess.Popen([told.serve, "serve", str(model), "--port", "0"], stderr=subprocess.PIPE, text=True)
    try:
        # It says where it listens, and then a line for each request.
        url = next(line.split()[-1] for line in server.stderr if line.startswith("listening on"))
        while not loaded(url):
            time.sleep(0.1)
        body = json.dumps({"prompt": told.prompt, "max_tokens": 24, "temperature": 0}).encode()
        with urllib.request.urlopen(f"{url}/v1/completions", body) as answer:
            print(told.prompt + json.load(answer)["choices"][0]["text"])
    finally:
        server.terminate()
        server.wait()
