"""The official clients against a running server: chat, streams, tools, JSON schemas, probabilities, stops, errors, models.

Usage: clients.py URL FOLDER TERN MODEL, where the server has the model `page` (testdata/models/page), FOLDER its tokenizer
(`tern convert MODEL FOLDER --to hf`), TERN is the binary and MODEL the model's file. Every function whose name begins with `test_` runs; the first failure ends the run.
"""

import json
import subprocess
import sys

URL, FOLDER, TERN, MODEL = sys.argv[1:5]
HELLO = [{"role": "user", "content": "Hello!"}]
ANSWER = "Hello! Would you like to hear a story?"
PARAMETERS = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Bergen"]}}, "required": ["city"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "weather", "description": "What it is like", "parameters": PARAMETERS}}
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}


def test_openai():
    import openai

    client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["page"]
    ask = lambda **more: client.chat.completions.create(**({"model": "page", "messages": HELLO, "temperature": 0} | more))
    whole = ask()
    assert whole.choices[0].message.content == ANSWER and whole.choices[0].finish_reason == "stop", whole
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert ask(stop="like").choices[0].message.content == "Hello! Would you "
    assert ask(max_tokens=3).choices[0].finish_reason == "length"
    logprobs = ask(logprobs=True, top_logprobs=4).choices[0].logprobs.content
    assert "".join(token.token for token in logprobs) == ANSWER and len(logprobs[0].top_logprobs) == 4
    assert json.loads(ask(response_format=FORMAT).choices[0].message.content).keys() == {"ok"}
    choice = ask(response_format={"type": "json_object"}, max_tokens=100).choices[0]
    # This model may never come to the end of a text in it.
    assert choice.message.content.startswith("{") and (choice.finish_reason == "length" or json.loads(choice.message.content) is not None)
    call = ask(tools=[TOOL], tool_choice="required").choices[0].message.tool_calls[0]
    assert call.function.name == "weather" and json.loads(call.function.arguments)["city"] in ("Oslo", "Bergen")
    pieces = [c.choices[0].delta.tool_calls for c in ask(tools=[TOOL], tool_choice="required", stream=True) if c.choices]
    pieces = [piece[0] for piece in pieces if piece]
    assert pieces[0].function.name == "weather" and json.loads("".join(p.function.arguments for p in pieces))
    talk = HELLO + [{"role": "assistant", "tool_calls": [call.model_dump()]}, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    assert ask(messages=talk, tools=[TOOL], max_tokens=4).choices
    for bad, kind in [({"messages": []}, openai.BadRequestError), ({"n": 99}, openai.BadRequestError), ({"messages": [{"role": "user", "content": "x " * 9000}]}, openai.BadRequestError)]:
        try:
            ask(**bad)
            raise AssertionError(bad)
        except kind as error:
            assert error.body["message"], error
    try:
        client.embeddings.create(model="page", input="x")
        raise AssertionError("embeddings")
    except openai.APIStatusError as error:
        assert error.status_code == 501
    text = client.completions.create(model="page", prompt="Once upon a time", max_tokens=8, temperature=0).choices[0].text
    assert text.startswith(", on a small"), text
    with client.chat.completions.stream(model="page", messages=HELLO, temperature=0) as stream:
        assert stream.get_final_completion().choices[0].message.content == ANSWER
    response = client.responses.create(model="page", input="Hello!", temperature=0)
    assert response.output_text == ANSWER and response.status == "completed"
    events = list(client.responses.create(model="page", input="Hello!", temperature=0, stream=True))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == ANSWER
    assert events[-1].type == "response.completed" and events[-1].response.output_text == ANSWER
    tool = {"type": "function", "name": "weather", "parameters": PARAMETERS}
    response = client.responses.create(model="page", input="Hello!", tools=[tool], tool_choice="required")
    assert response.output[0].type == "function_call" and json.loads(response.output[0].arguments)
    parsed = client.responses.create(model="page", input="Hello!", text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}})
    assert json.loads(parsed.output_text).keys() == {"ok"}


def test_litellm():
    import litellm

    ask = lambda **more: litellm.completion(**({"model": "openai/page", "api_base": f"{URL}/v1", "api_key": "none", "messages": HELLO, "temperature": 0} | more))
    assert ask().choices[0].message.content == ANSWER
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(stream=True)) == ANSWER
    assert ask(stop=["like"]).choices[0].message.content == "Hello! Would you "
    assert len(ask(logprobs=True, top_logprobs=2).choices[0].logprobs.content) > 5
    assert json.loads(ask(response_format=FORMAT).choices[0].message.content).keys() == {"ok"}
    call = ask(tools=[TOOL], tool_choice="required").choices[0].message.tool_calls[0]
    assert call.function.name == "weather"
    try:
        ask(messages=[{"role": "boss", "content": "x"}], num_retries=0)
        raise AssertionError("a bad role")
    except litellm.BadRequestError:
        pass


def test_anthropic():
    import anthropic

    client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
    ask = lambda **more: client.messages.create(**({"model": "page", "max_tokens": 60, "messages": HELLO} | more))
    whole = ask()
    assert whole.content[0].text == ANSWER and whole.stop_reason == "end_turn", whole
    with client.messages.stream(model="page", max_tokens=60, messages=HELLO) as stream:
        assert "".join(stream.text_stream) == ANSWER
        assert stream.get_final_message().stop_reason == "end_turn"
    stopped = ask(stop_sequences=["like"])
    assert (stopped.stop_reason, stopped.stop_sequence, stopped.content[0].text) == ("stop_sequence", "like", "Hello! Would you ")
    assert ask(max_tokens=3).stop_reason == "max_tokens"
    tool = {"name": "weather", "input_schema": PARAMETERS}
    called = ask(tools=[tool], tool_choice={"type": "tool", "name": "weather"})
    assert called.stop_reason == "tool_use" and called.content[0].input["city"] in ("Oslo", "Bergen"), called
    with client.messages.stream(model="page", max_tokens=60, messages=HELLO, tools=[tool], tool_choice={"type": "any"}) as stream:
        assert stream.get_final_message().content[0].input["city"]
    talk = HELLO + [{"role": "assistant", "content": [b.model_dump(include={"type", "id", "name", "input"}) for b in called.content]},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": called.content[0].id, "content": "rain"}]}]
    assert ask(messages=talk, tools=[tool], max_tokens=4).usage.output_tokens == 4
    assert client.messages.count_tokens(model="page", messages=HELLO).input_tokens > 3
    assert [model.id for model in client.models.list()] == ["page"]
    try:
        ask(messages=[])
        raise AssertionError("no messages")
    except anthropic.BadRequestError as error:
        assert error.body["error"]["type"] == "invalid_request_error"


def test_ollama():
    import ollama

    client = ollama.Client(host=URL)
    greedy = {"temperature": 0}
    assert [model.model for model in client.list().models] == ["page"]
    assert client.chat(model="page", messages=HELLO, options=greedy).message.content == ANSWER
    assert "".join(part.message.content for part in client.chat(model="page", messages=HELLO, options=greedy, stream=True)) == ANSWER
    whole = client.generate(model="page", prompt="Hello!", options=greedy)
    assert whole.response == ANSWER and whole.done and whole.eval_count > 5
    assert json.loads(client.chat(model="page", messages=HELLO, format=SCHEMA).message.content).keys() == {"ok"}
    assert client.chat(model="page", messages=HELLO, options=greedy | {"stop": ["like"]}).message.content == "Hello! Would you "
    assert client.chat(model="page", messages=HELLO, tools=[TOOL], options=greedy | {"num_predict": 4}).message is not None
    assert client.show("page").capabilities
    try:
        client.chat(model="page", messages=[{"role": "user", "content": "x " * 9000}])
        raise AssertionError("too long")
    except ollama.ResponseError as error:
        assert error.status_code == 400


def test_lm_eval():
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    context = "Once upon a time"
    run = subprocess.run([TERN, "run", MODEL, context, "--temp", "0", "-n", "40", "--json"], capture_output=True, check=True)
    own = json.loads(run.stdout)
    model = LocalCompletionsAPI(model="page", base_url=f"{URL}/v1/completions", tokenizer_backend="huggingface", tokenizer=FOLDER,
                                num_concurrent=1, max_retries=1, add_bos_token=True, max_length=512)
    requests = [Instance("loglikelihood", {}, (context, own["text"]), 0), Instance("loglikelihood", {}, (context, " a bird flew."), 1)]
    (known, greedy), (other, guessed) = model.loglikelihood(requests)
    assert greedy and abs(known - sum(own["logprobs"])) < 1e-3, (known, sum(own["logprobs"]))
    assert not guessed and other < known
    text = model.generate_until([Instance("generate_until", {}, (context, {"until": ["island"], "max_gen_toks": 20, "temperature": 0}), 0)])
    assert own["text"].startswith(text[0]), text


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(f"{name}: ok", flush=True)
