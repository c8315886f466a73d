"""The calls of llama-cpp-python's own high-level examples, with the import changed, and what they give."""

import json

import numpy as np
import pytest

import tern
from tern import Llama


def test_a_completion_has_the_shape(llama):
    output = llama("Once upon a time", max_tokens=8, stop=["Q:", "\n"], echo=True, temperature=0)
    assert output["object"] == "text_completion"
    assert {"id", "created", "model", "choices", "usage"} <= set(output)
    (choice,) = output["choices"]
    assert choice["text"].startswith("Once upon a time") and choice["index"] == 0
    assert choice["finish_reason"] in ("stop", "length") and choice["logprobs"] is None
    usage = output["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert output["model"] == "story"


def test_a_stream_says_what_the_whole_says(llama):
    whole = llama("Once upon a time", max_tokens=24, temperature=0)
    pieces = list(llama("Once upon a time", max_tokens=24, temperature=0, stream=True))
    assert len(pieces) > 3
    assert "".join(piece["choices"][0]["text"] for piece in pieces if piece["choices"]) == whole["choices"][0]["text"]


def test_a_stream_that_is_left_is_cancelled(llama):
    stream = llama("Once upon a time", max_tokens=400, temperature=0, stream=True)
    next(stream)
    stream.close()
    assert llama("Once", max_tokens=1)["usage"]["completion_tokens"] == 1


def test_seeds_and_logprobs(llama):
    one = llama("The dog", max_tokens=12, seed=7, temperature=1.0)
    two = llama("The dog", max_tokens=12, seed=7, temperature=1.0)
    assert one["choices"] == two["choices"]
    told = llama("The dog", max_tokens=3, logprobs=2, temperature=0)["choices"][0]["logprobs"]
    assert set(told) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert len(told["tokens"]) == 3 and all(len(top) >= 1 for top in told["top_logprobs"])


def test_chat(llama):
    messages = [{"role": "user", "content": "Hello!"}]
    answer = llama.create_chat_completion(messages, max_tokens=5, temperature=0)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    pieces = llama.create_chat_completion(messages, max_tokens=5, temperature=0, stream=True)
    text = "".join(p["choices"][0]["delta"].get("content") or "" for p in pieces if p["choices"])
    assert text == answer["choices"][0]["message"]["content"]


def test_json_schema(llama):
    schema = {"type": "object", "properties": {"team": {"enum": ["red", "blue"]}}, "required": ["team"],
              "additionalProperties": False}
    answer = llama.create_chat_completion(
        [{"role": "user", "content": "Who won?"}],
        response_format={"type": "json_object", "schema": schema}, max_tokens=60, temperature=0.7,
    )
    assert json.loads(answer["choices"][0]["message"]["content"])["team"] in ("red", "blue")


def test_tools(llama):
    tool = {"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"in_celsius": {"type": "boolean"}}, "required": ["in_celsius"],
        "additionalProperties": False}}}
    answer = llama.create_chat_completion(
        [{"role": "user", "content": "How warm is it?"}], tools=[tool],
        tool_choice={"type": "function", "function": {"name": "weather"}}, max_tokens=60,
    )
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert isinstance(json.loads(call["function"]["arguments"])["in_celsius"], bool)


def test_embeddings(llama):
    one = llama.create_embedding("Hello, world!")
    assert one["object"] == "list" and one["data"][0]["object"] == "embedding"
    vectors = llama.embed(["Hello, world!", "Goodbye"])
    assert len(vectors) == 2 and abs(np.linalg.norm(vectors[0]) - 1) < 1e-5
    assert vectors[0] == pytest.approx(one["data"][0]["embedding"])


def test_tokens(llama):
    ids = llama.tokenize(b"Once upon a time", add_bos=False)
    assert llama.detokenize(ids) == b"Once upon a time"
    assert llama.detokenize(ids[1:], prev_tokens=ids[:1]) == llama.detokenize(ids)[len(llama.detokenize(ids[:1])):]
    assert llama.n_vocab() > max(ids) and llama.n_ctx() > 0 and llama.token_eos() >= 0
    assert llama(ids, max_tokens=4, temperature=0)["usage"]["prompt_tokens"] in (len(ids), len(ids) + 1)
    llama.reset()


@pytest.mark.parametrize("word, value", [
    ("lora_base", "x"), ("rope_freq_base", 5e5), ("draft_model", object()), ("type_k", 3),
    ("n_ctx", -1), ("kv_overrides", {}), ("vocab_only", True),
])
def test_what_would_change_the_answer_is_refused_by_name(word, value):
    with pytest.raises(ValueError, match=word):
        Llama("story", **{word: value})


def test_unknown_words_are_refused_and_harmless_ones_are_not():
    with pytest.raises(TypeError, match="n_ctxx"):
        Llama("story", n_ctxx=5)
    with Llama("story", n_gpu_layers=-1, n_batch=64, use_mlock=False, verbose=False) as model:
        assert model.n_ctx() == 512


def test_the_format_of_a_chat_is_the_models_own_and_that_is_said(llama):
    with pytest.warns(UserWarning, match="chat_format='chatml' has no effect"):
        model = Llama("story", chat_format="chatml")
    with model:
        talk = [{"role": "user", "content": "Hello!"}]
        found = [one.create_chat_completion(talk, max_tokens=5, temperature=0)["choices"] for one in (model, llama)]
    assert found[0] == found[1]


def test_from_pretrained_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RuntimeError, match="nobody/nothing"):
        Llama.from_pretrained("nobody/nothing", filename="*Q2_0*", cache_dir=tmp_path)


def test_after_close():
    model = Llama("story")
    model.close()
    model.close()
    for call in (lambda: model("x"), lambda: model.tokenize(b"x"), lambda: list(model("x", stream=True)), model.reset,
                 lambda: model.embed("x"), lambda: model.model.logits([1])):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_the_names_are_there():
    assert all(hasattr(tern, name) for name in tern.__all__)
