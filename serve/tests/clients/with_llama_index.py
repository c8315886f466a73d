"""llama-index: completion, chat, streams, structured output, tools."""

from typing import Literal

from common import ANSWER, CITIES, URL
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class Weather(BaseModel):
    city: Literal["Oslo", "Bergen"]


def weather(city: Literal["Oslo", "Bergen"]) -> str:
    """What it is like."""
    return "rain"


model = OpenAILike(model="page", api_base=f"{URL}/v1", api_key="none", is_chat_model=True, is_function_calling_model=True, context_window=8192, temperature=0, max_retries=0)
hello = [ChatMessage(role="user", content="Hello!")]
assert model.chat(hello).message.content == ANSWER
assert "".join(piece.delta for piece in model.stream_chat(hello)) == ANSWER
written = OpenAILike(model="page", api_base=f"{URL}/v1", api_key="none", is_chat_model=False, temperature=0, max_tokens=8, max_retries=0)
text = written.complete("Once upon a time").text
assert text and "".join(piece.delta for piece in written.stream_complete("Once upon a time")) == text
call = model.get_tool_calls_from_response(model.chat_with_tools([FunctionTool.from_defaults(weather)], user_msg="Hello!", tool_required=True))[0]
assert call.tool_name == "weather" and call.tool_kwargs["city"] in CITIES
assert model.as_structured_llm(Weather).chat(hello).raw.city in CITIES
