"""litellm, as a gateway uses it."""

import json

import litellm
from common import ANSWER, FORMAT, HELLO, TOOL, URL, city, refused

ask = lambda **more: litellm.completion(**({"model": "openai/page", "api_base": f"{URL}/v1", "api_key": "none", "messages": HELLO, "temperature": 0} | more))
assert ask().choices[0].message.content == ANSWER
assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(stream=True)) == ANSWER
assert ask(stop=["like"]).choices[0].message.content == "Hello! Would you "
assert len(ask(logprobs=True, top_logprobs=2).choices[0].logprobs.content) > 5
assert json.loads(ask(response_format=FORMAT).choices[0].message.content).keys() == {"ok"}
call = ask(tools=[TOOL], tool_choice="required").choices[0].message.tool_calls[0]
assert call.function.name == "weather"
city(call.function.arguments)
with refused(litellm.BadRequestError):
    ask(messages=[{"role": "boss", "content": "x"}], num_retries=0)
