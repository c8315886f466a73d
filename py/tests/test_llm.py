import asyncio
import pickle

import pytest

import tern
from tern import LLM, SamplingParams

PROMPTS = ["Once upon a time", "The dog", "Tom and his mum went", "One day, a little girl named Lily"]
GREEDY = SamplingParams(temperature=0, max_tokens=16)


def test_results_are_in_order_and_the_same_as_alone(llm):
    together = llm.generate(PROMPTS * 8, GREEDY, use_tqdm=False)
    assert [output.prompt for output in together] == PROMPTS * 8
    for prompt, output in zip(PROMPTS, together):
        (alone,) = llm.generate(prompt, GREEDY)
        assert alone.outputs[0].token_ids == output.outputs[0].token_ids
        assert alone.outputs[0].text == output.outputs[0].text
    assert len({output.request_id for output in together}) == len(together)


def test_the_attributes(llm):
    (output,) = llm.generate({"prompt_token_ids": llm.model.tokenize("The dog")}, SamplingParams(
        temperature=0, max_tokens=4, logprobs=2, n=2, seed=1))
    assert output.finished and output.prompt is None and output.prompt_token_ids == llm.model.tokenize("The dog")
    first, second = output.outputs
    assert (first.index, second.index) == (0, 1) and first.text == second.text
    assert first.finish_reason == "length" and first.finished() and len(first.token_ids) == 4
    chosen = sum(top[token].logprob for token, top in zip(first.token_ids, first.logprobs))
    assert first.cumulative_logprob == pytest.approx(chosen)
    assert first.logprobs[0][first.token_ids[0]].rank == 1


def test_greedy_is_what_the_logits_say(llm):
    (output,) = llm.generate(PROMPTS[0], GREEDY)
    ids, written = output.prompt_token_ids, output.outputs[0].token_ids
    logits = llm.model.logits([*ids, *written[:-1]], start=len(ids) - 1)
    assert logits.argmax(axis=1).tolist() == written


def test_stops_and_each_its_own_settings(llm):
    outputs = llm.generate(PROMPTS[:2], [SamplingParams(max_tokens=3), SamplingParams(max_tokens=5)])
    assert [len(output.outputs[0].token_ids) for output in outputs] == [3, 5]
    (text,) = llm.generate(PROMPTS[0], SamplingParams(temperature=0, max_tokens=60, stop=["."]))
    assert text.outputs[0].stop_reason == "." and text.outputs[0].finish_reason == "stop"


def test_chat(llm):
    (answer,) = llm.chat([{"role": "user", "content": "Hello"}], GREEDY)
    whole = llm.model.request("/v1/chat/completions", {
        "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16, "temperature": 0})
    assert answer.outputs[0].text.strip() == whole["choices"][0]["message"]["content"].strip()
    assert answer.prompt_token_ids


def test_vectors_and_scores(llm):
    first, second = llm.embed(["a dog", "a cat"], pooling="mean")
    assert len(first.outputs.embedding) == llm.model.dim
    same, other = llm.score("a dog", ["a dog", "a cat"], pooling="mean")
    assert same.outputs.score == pytest.approx(1, abs=1e-5) and other.outputs.score < same.outputs.score


def test_a_wrong_prompt_ends_all_and_the_next_call_works(llm):
    with pytest.raises(ValueError):
        llm.generate([*PROMPTS, {"prompt_token_ids": [10**6]}], GREEDY, use_tqdm=False)
    assert len(llm.generate(PROMPTS, GREEDY, use_tqdm=False)) == len(PROMPTS)


def test_async(llm):
    engine = tern.AsyncLLM(llm.model)

    async def one(prompt):
        last = None
        async for output in engine.generate(prompt, GREEDY, prompt):
            last = output
        return last

    async def left():
        async for output in engine.generate(PROMPTS[0], SamplingParams(max_tokens=200)):
            return output

    async def all_of_them():
        await left()
        return await asyncio.gather(*(one(prompt) for prompt in PROMPTS))

    outputs = asyncio.run(all_of_them())
    whole = llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    assert [o.outputs[0].text for o in outputs] == [o.outputs[0].text for o in whole]
    assert all(output.finished for output in outputs)


def test_pickled_by_path_and_options():
    with LLM("story", max_model_len=64, threads=1) as llm:
        copy = pickle.loads(pickle.dumps(llm))
        assert (copy.model.n_ctx, copy.model.threads) == (64, 1)
        assert copy.generate("The", GREEDY)[0].outputs[0].text == llm.generate("The", GREEDY)[0].outputs[0].text
        copy.close()


@pytest.mark.parametrize("word, value", [("n", 0), ("max_tokens", 0), ("min_tokens", 3), ("stop_token_ids", [1]),
                                         ("prompt_logprobs", 1)])
def test_settings_that_cannot_be_kept_are_refused(word, value):
    with pytest.raises(ValueError, match=word):
        SamplingParams(**{word: value})


def test_guesses_change_no_text_and_are_counted():
    params = [GREEDY, SamplingParams(temperature=0.8, seed=3, max_tokens=24)] * 2
    texts = []
    for options in ({"draft_tokens": 0}, {}, {"draft": "story"}):
        with LLM("story", **options) as llm:
            texts.append([output.outputs[0].token_ids for output in llm.generate(PROMPTS, params, use_tqdm=False)])
    assert texts[0] == texts[1] == texts[2]
    with tern.Model("story", draft="story") as model:
        told = model.request("/completion", {"prompt": "One day", "temperature": 0, "n_predict": 32})["timings"]
    assert told["draft_n"] > 0 and told["draft_n_accepted"] == told["draft_n"], "a model that is its own draft is always right"
    with pytest.raises(ValueError, match="draft_tokens 16: expected 0 to 15"):
        LLM("story", draft_tokens=16)
    with LLM("story", speculative_config={"model": "story", "num_speculative_tokens": 4}) as llm:
        assert [output.outputs[0].token_ids for output in llm.generate(PROMPTS, params, use_tqdm=False)] == texts[0]
    LLM("story", speculative_config={"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}).close()
    for wrong in ({}, {"method": "medusa"}, {"method": "ngram", "model": "story"}, {"model": "story", "disable_by_batch_size": 4}):
        with pytest.raises(ValueError, match="speculative_config"):
            LLM("story", speculative_config=wrong)
