"""LoRA adapters beside a model, in the words of llama-cpp-python, of vLLM and of `tern.Model`."""

import asyncio
import json
import pickle
import shutil

import pytest

import tern
from tern import LLM, Llama, LoRARequest, SamplingParams

PROMPT = "Once upon a time"
GREEDY = SamplingParams(temperature=0, max_tokens=16)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """One that has learnt to speak of one thing alone."""
    dir = tmp_path_factory.mktemp("adapter")
    data = dir / "data.txt"
    data.write_text("Once upon a time the tern flew over the cold sea, and the tern flew on. " * 60)
    result = tern.train({
        "from": "story", "lora": "rank=4,targets=all", "out": dir / "run", "train": [data], "length": 32, "sequences": 2,
        "steps": 12, "rate": 2e-2, "warmup": 1, "validation": 0.0, "log_every": 6, "threads": 2,
    })
    assert result.done
    return result.path


@pytest.fixture(scope="module")
def both(adapter):
    with LLM("story", threads=2, enable_lora=True, max_lora_rank=16, adapters={"tern": adapter, "none": (adapter, 0.0)}) as model:
        yield model


def ids(outputs):
    return [output.outputs[0].token_ids for output in outputs]


def test_one_model_answers_with_adapters_and_without(both, llm):
    plain = ids(llm.generate(PROMPT, GREEDY))
    assert ids(both.generate(PROMPT, GREEDY)) == plain
    tuned = ids(both.generate([PROMPT], GREEDY, lora_request=LoRARequest("tern", 1, both.model.adapters["tern"][0])))
    assert tuned != plain
    assert ids(both.generate(PROMPT, GREEDY, lora_request=LoRARequest("none"))) == plain, "a scale of 0 adds nothing"
    requests = [
        {"prompt": both.model.tokenize(PROMPT), "temperature": 0, "n_predict": 16, "model": model, "return_tokens": True}
        for model in (None, both.model.adapted("tern"), None, both.model.adapted("tern"))
    ]
    found = dict(both.model.requests("/completion", requests))
    assert [found[at]["tokens"] for at in range(4)] == [plain[0], tuned[0], plain[0], tuned[0]], "in one batch"
    talk = [{"role": "user", "content": "Hello"}]
    assert ids(both.chat(talk, GREEDY, lora_request=LoRARequest("tern"))) != ids(both.chat(talk, GREEDY))

    async def last():
        async for output in tern.AsyncLLM(both.model).generate(PROMPT, GREEDY, lora_request=LoRARequest("tern")):
            pass
        return output

    assert ids([asyncio.run(last())]) == tuned


def test_llama_takes_a_path_and_a_scale(adapter, both, tmp_path):
    def says(**words):
        with Llama("story", n_ctx=0, n_threads=2, **words) as model:
            with pickle.loads(pickle.dumps(model)) as again:
                answers = [one(PROMPT, max_tokens=16, temperature=0) for one in (model, again)]
            pieces = [piece["choices"][0]["text"] for piece in model(PROMPT, max_tokens=16, temperature=0, stream=True)]
        assert answers[0]["choices"] == answers[1]["choices"] and answers[0]["model"] == "story"
        assert "".join(pieces) == answers[0]["choices"][0]["text"]
        return answers[0]["choices"][0]["text"]

    tuned = both.generate(PROMPT, GREEDY, lora_request=LoRARequest("tern"))[0].outputs[0].text
    assert says(lora_path=adapter) == tuned
    assert says() == says(lora_path=adapter, lora_scale=0.0) != tuned
    # A share of an adapter is the adapter with that share of `alpha`.
    shared = tmp_path / "shared"
    shutil.copytree(adapter, shared)
    settings = json.loads((shared / "adapter_config.json").read_text())
    settings["lora_alpha"] *= 0.25
    (shared / "adapter_config.json").write_text(json.dumps(settings))
    assert says(lora_path=adapter, lora_scale=0.25) == says(lora_path=shared)


def test_what_cannot_be_is_said(adapter, both, tmp_path):
    with pytest.raises(ValueError, match="'other': expected one of .* \\(tern, none\\)"):
        both.generate(PROMPT, GREEDY, lora_request=LoRARequest("other", 2, adapter))
    with pytest.raises(ValueError, match="which was loaded with the model, and not"):
        both.generate(PROMPT, GREEDY, lora_request=LoRARequest("tern", 1, str(tmp_path)))
    with pytest.raises(ValueError, match="expected a name of letters"):
        LLM("story", adapters={"a:b": adapter})
    with pytest.raises(ValueError, match="its scale nan: expected a number"):
        Llama("story", lora_path=adapter, lora_scale=float("nan"))
    with pytest.raises(Exception, match="adapter_config.json"):
        Llama("story", lora_path=tmp_path)
    with Llama("story", lora_path=adapter) as model, pytest.raises(ValueError, match="lora_path: vectors"):
        model.embed("x")
