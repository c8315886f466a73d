"""langchain-openai: chat, streams, tools, structured output."""

from typing import Literal

from common import ANSWER, CITIES, URL, city
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Weather(BaseModel):
    city: Literal["Oslo", "Bergen"]


@tool
def weather(city: Literal["Oslo", "Bergen"]) -> str:
    """What it is like."""
    return "rain"


for responses in False, True:
    model = ChatOpenAI(base_url=f"{URL}/v1", api_key="none", model="page", temperature=0, max_retries=0, use_responses_api=responses)
    assert model.invoke("Hello!").text == ANSWER
    assert "".join(chunk.text for chunk in model.stream("Hello!")) == ANSWER
    call = model.bind_tools([weather], tool_choice="any").invoke("Hello!").tool_calls[0]
    assert call["name"] == "weather"
    city(call["args"])
    for method in "json_schema", "function_calling":
        assert model.with_structured_output(Weather, method=method).invoke("Hello!").city in CITIES
