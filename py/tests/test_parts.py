import math
import os

import numpy as np
import pytest

import tern

TEXT = "Once upon a time there was a little dog. The dog liked to play in the park with a red ball. " * 12
RUN = {"from": "story", "separator": "\n\n", "length": 32, "sequences": 2, "warmup": 1, "log_every": 1, "validation": 0.0}


def test_tokenizer(llm):
    tokenizer = tern.Tokenizer("story")
    assert tokenizer.encode(TEXT) == llm.model.tokenize(TEXT)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert len(tokenizer) == tokenizer.vocab_size and tokenizer.eos_token_id in tokenizer.stop_token_ids
    ids = tokenizer.encode("dog", add_special_tokens=False)
    assert tokenizer.token_to_id(tokenizer.id_to_token(ids[0])) == ids[0]
    text, ids = llm.model.apply_chat_template([{"role": "user", "content": "Hi"}])
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}]) == ids


def test_likelihoods_are_those_of_the_logits(llm):
    model = llm.model
    context, ends = model.tokenize("The dog ran"), [model.tokenize(end, add_bos=False) for end in (" home", " to the park")]
    found = model.loglikelihood([(context, ends[0]), (model.tokenize("A"), ends[0]), (context, ends[1])])
    for (total, greedy), end in zip((found[0], found[2]), ends):
        logits = model.logits([*context, *end[:-1]], start=len(context) - 1).astype(np.float64)
        logprobs = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True)) - logits.max(1, keepdims=True)
        assert total == pytest.approx(sum(row[token] for row, token in zip(logprobs, end)), abs=1e-4)
        assert greedy == (logits.argmax(1).tolist() == end)


def test_arrays_are_their_own(llm):
    logits = llm.model.logits([1, 2, 3])
    assert logits.shape == (3, llm.model.n_vocab) and logits.dtype == np.float32
    assert logits.flags["C_CONTIGUOUS"] and logits.flags["WRITEABLE"]


def test_perplexity(llm):
    ids = llm.model.tokenize(TEXT)[:64]
    found = tern.eval.perplexity(llm.model, ids, n_ctx=64, stride=64)
    assert found.perplexity == pytest.approx(math.exp(-llm.model.logprobs(ids).mean()), rel=1e-9)
    assert found.tokens == 63


def test_embedder(llm):
    embedder = tern.Embedder(llm.model, pooling="mean")
    vectors = embedder.encode(["a dog", "a cat and a dog"])
    assert vectors.shape == (2, embedder.get_sentence_embedding_dimension()) and vectors.dtype == np.float32
    assert np.array_equal(embedder.encode("a dog"), vectors[0])
    assert np.allclose(np.linalg.norm(embedder.encode(["a dog"], dimensions=8), axis=1), 1)
    with pytest.raises(ValueError, match="pooling"):
        tern.Embedder(llm.model)


def test_train_stop_resume_convert(tmp_path):
    data = tmp_path / "data.txt"
    data.write_text("\n\n".join(f"Story {n}. " + TEXT for n in range(6)))
    run = {**RUN, "out": tmp_path / "run", "train": [data], "steps": 6}
    seen = []

    def stop_after_two(event):
        seen.append(event)
        return event["kind"] == "step" and event["step"] == 2

    stopped = tern.train(run, callback=stop_after_two)
    assert not stopped.done and os.path.exists(stopped.path)
    assert [event["step"] for event in seen if event["kind"] == "step"][:2] == [1, 2]
    steps = []
    done = tern.train(tmp_path / "run", callback=lambda event: steps.append(event) if event["kind"] == "step" else None)
    assert done.done and steps[-1]["step"] == 6 and steps[0]["step"] > 1
    whole = tern.train({**run, "out": str(tmp_path / "whole")}, callback=seen.append)
    assert [e["loss"] for e in seen if e["kind"] == "step"][-1] == steps[-1]["loss"]
    made = tern.convert(whole.path, tmp_path / "m.gguf", to="i2")
    assert made.tensors > 0 and made.bytes > 0
    with tern.LLM(tmp_path / "m.gguf", max_model_len=32) as llm:
        assert llm.generate("S", tern.SamplingParams(max_tokens=2, ignore_eos=True))[0].outputs[0].token_ids


def test_an_exception_of_a_callback_ends_a_run(tmp_path):
    data = tmp_path / "data.txt"
    data.write_text(TEXT)
    run = {**RUN, "out": tmp_path / "run", "train": [data], "steps": 10**6}
    with pytest.raises(ZeroDivisionError):
        tern.train(run, callback=lambda event: 1 / 0)
