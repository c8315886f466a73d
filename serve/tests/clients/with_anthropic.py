"""Anthropic's own client: messages, streams, tools, structured output, counting."""

import json

import anthropic
from common import ANSWER, HELLO, PARAMETERS, SCHEMA, URL, city, refused

client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
ask = lambda **more: client.messages.create(**({"model": "page", "max_tokens": 150, "messages": HELLO} | more))
whole = ask()
assert whole.content[0].text == ANSWER and whole.stop_reason == "end_turn", whole
with client.messages.stream(model="page", max_tokens=60, messages=HELLO) as stream:
    assert "".join(stream.text_stream) == ANSWER
    assert stream.get_final_message().stop_reason == "end_turn"
stopped = ask(stop_sequences=["like"])
assert (stopped.stop_reason, stopped.stop_sequence, stopped.content[0].text) == ("stop_sequence", "like", "Hello! Would you ")
assert ask(max_tokens=3).stop_reason == "max_tokens"
assert [model.id for model in client.models.list()] == ["page"]

tool = {"name": "weather", "input_schema": PARAMETERS}
called = ask(tools=[tool], tool_choice={"type": "tool", "name": "weather"})
assert called.stop_reason == "tool_use", called
city(called.content[0].input)
with client.messages.stream(model="page", max_tokens=150, messages=HELLO, tools=[tool], tool_choice={"type": "any"}) as stream:
    pieces = [event.partial_json for event in stream if event.type == "input_json"]
    assert len(pieces) > 1, pieces
    city(stream.get_final_message().content[0].input)
talk = HELLO + [{"role": "assistant", "content": [b.model_dump(include={"type", "id", "name", "input"}) for b in called.content]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": called.content[0].id, "content": "rain"}]}]
assert ask(messages=talk, tools=[tool], max_tokens=4).usage.output_tokens == 4

formed = ask(output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
assert json.loads(formed.content[0].text).keys() == {"ok"}, formed
assert ask(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048).content[-1].text == ANSWER
assert client.messages.count_tokens(model="page", messages=HELLO).input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
with refused(anthropic.BadRequestError, "invalid_request_error"):
    ask(messages=[])
with refused(anthropic.BadRequestError, "image"):
    ask(messages=[{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}]}])
