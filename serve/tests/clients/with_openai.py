"""OpenAI's own client: chat, completions, responses, streams, tools, schemas, probabilities, errors."""

import json

import openai
from common import ANSWER, FORMAT, HELLO, PARAMETERS, SCHEMA, TOOL, URL, city, refused

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
ask = lambda **more: client.chat.completions.create(**({"model": "page", "messages": HELLO, "temperature": 0} | more))
respond = lambda **more: client.responses.create(**({"model": "page", "input": "Hello!", "temperature": 0} | more))
assert [model.id for model in client.models.list()] == ["page"]

# Chat.
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
with client.chat.completions.stream(model="page", messages=HELLO, temperature=0) as stream:
    assert stream.get_final_completion().choices[0].message.content == ANSWER

# Schemas.
assert json.loads(ask(response_format=FORMAT).choices[0].message.content).keys() == {"ok"}
choice = ask(response_format={"type": "json_object"}, max_tokens=100).choices[0]
# This model may never come to the end of a text in it.
assert choice.message.content.startswith("{") and (choice.finish_reason == "length" or json.loads(choice.message.content) is not None)

# Tools.
call = ask(tools=[TOOL], tool_choice="required").choices[0].message.tool_calls[0]
assert call.function.name == "weather"
city(call.function.arguments)
pieces = [c.choices[0].delta.tool_calls for c in ask(tools=[TOOL], tool_choice="required", stream=True) if c.choices]
pieces = [piece[0] for piece in pieces if piece]
assert pieces[0].function.name == "weather" and len(pieces) > 2, "arguments come in pieces"
city("".join(piece.function.arguments for piece in pieces))
talk = HELLO + [{"role": "assistant", "tool_calls": [call.model_dump()]}, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
assert ask(messages=talk, tools=[TOOL], max_tokens=4).choices
open_tool = {"type": "function", "function": {"name": "note", "parameters": {"type": "object", "properties": {"text": {"type": "string", "minLength": 200}}, "required": ["text"]}}}
cut = ask(tools=[open_tool], tool_choice="required", max_tokens=60).choices[0]
assert cut.finish_reason == "length" and not cut.message.content and cut.message.tool_calls[0].function.name == "note", cut

# What cannot be done is said.
with refused(openai.BadRequestError, "messages"):
    ask(messages=[])
with refused(openai.BadRequestError, "`n`"):
    ask(n=99)
with refused(openai.BadRequestError, "tokens"):
    ask(messages=[{"role": "user", "content": "x " * 9000}])
with refused(openai.BadRequestError, "min_tokens"):
    ask(extra_body={"min_tokens": 5})
with refused(openai.APIStatusError, "501"):
    client.embeddings.create(model="page", input="x")

# Completions.
text = client.completions.create(model="page", prompt="Once upon a time", max_tokens=8, temperature=0).choices[0].text
assert text.startswith(", on a small"), text

# Responses.
response = respond()
assert response.output_text == ANSWER and response.status == "completed"
events = list(respond(stream=True))
assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == ANSWER
assert events[-1].type == "response.completed" and events[-1].response.output_text == ANSWER
tool = {"type": "function", "name": "weather", "parameters": PARAMETERS}
called = respond(tools=[tool], tool_choice="required")
assert called.output[0].type == "function_call"
city(called.output[0].arguments)
deltas = [e.delta for e in respond(tools=[tool], tool_choice="required", stream=True) if e.type == "response.function_call_arguments.delta"]
assert len(deltas) > 1, deltas
city("".join(deltas))
parsed = respond(text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}})
assert json.loads(parsed.output_text).keys() == {"ok"}
# What was said before need not be sent again.
output = {"type": "function_call_output", "call_id": called.output[0].call_id, "output": "rain"}
more = respond(previous_response_id=called.id, input=[output], tools=[tool], max_output_tokens=16)
assert more.usage.input_tokens > called.usage.input_tokens, more
with refused(openai.BadRequestError, "previous_response_not_found"):
    respond(previous_response_id=respond(store=False).id)
with refused(openai.BadRequestError, "conversation"):
    respond(conversation="conv_1")
top = respond(top_logprobs=2, include=["message.output_text.logprobs"]).output[0].content[0].logprobs
assert "".join(token.token for token in top) == ANSWER and len(top[0].top_logprobs) == 2
count = client.responses.input_tokens.count(model="page", input="Hello!").input_tokens
assert count == response.usage.input_tokens
