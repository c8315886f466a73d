"""instructor: typed answers in its modes for OpenAI's and Anthropic's dialects."""

from typing import Literal

import anthropic
import instructor
import openai
from common import CITIES, HELLO, URL
from pydantic import BaseModel, ConfigDict


class Weather(BaseModel):
    # As OpenAI's strict schemas have it: this model would invent members without an end.
    model_config = ConfigDict(extra="forbid")
    city: Literal["Oslo", "Bergen"]


client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
for mode in instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA:
    asked = instructor.from_openai(client, mode=mode)
    found = asked.chat.completions.create(model="page", messages=HELLO, response_model=Weather, temperature=0, max_retries=0)
    assert found.city in CITIES, (mode, found)
asked = instructor.from_anthropic(anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0), mode=instructor.Mode.ANTHROPIC_TOOLS)
assert asked.messages.create(model="page", max_tokens=100, messages=HELLO, response_model=Weather, max_retries=0).city in CITIES
