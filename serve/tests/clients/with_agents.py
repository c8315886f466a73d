"""OpenAI's agents: a tool that is called, an answer that follows a type, both at once, by chat and by responses."""

import asyncio

from agents import Agent, MaxTurnsExceeded, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from common import ANSWER, CITIES, URL
from openai import AsyncOpenAI
from pydantic import BaseModel
from typing import Literal


class Answer(BaseModel):
    ok: bool


called = []


@function_tool
def weather(city: Literal["Oslo", "Bergen"]) -> str:
    """What it is like."""
    called.append(city)
    return "rain"


async def main():
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
    for kind in OpenAIChatCompletionsModel, OpenAIResponsesModel:
        model = kind(model="page", openai_client=client)
        greedy = ModelSettings(temperature=0)
        result = await Runner.run(Agent(name="plain", model=model, model_settings=greedy), "Hello!")
        assert result.final_output == ANSWER, result.final_output
        result = Runner.run_streamed(Agent(name="plain", model=model, model_settings=greedy), "Hello!")
        async for _ in result.stream_events():
            pass
        assert result.final_output == ANSWER, result.final_output
        result = await Runner.run(Agent(name="typed", model=model, output_type=Answer, model_settings=greedy), "Hello!")
        assert isinstance(result.final_output, Answer)
        called.clear()
        forced = ModelSettings(temperature=0, tool_choice="required")
        agent = Agent(name="tools", model=model, tools=[weather], model_settings=forced, tool_use_behavior="stop_on_first_tool")
        result = await Runner.run(agent, "Hello!")
        assert result.final_output == "rain" and called and called[0] in CITIES, result.final_output
        # Both in one request: the grammar leaves the choice between a call and an answer of the type, and nothing else.
        called.clear()
        one = ModelSettings(temperature=0, parallel_tool_calls=False)
        both = Agent(name="both", model=model, tools=[weather], output_type=Answer, model_settings=one)
        try:
            result = await Runner.run(both, "Hello!", max_turns=3)
            assert isinstance(result.final_output, Answer), result.final_output
        except MaxTurnsExceeded:
            assert called and all(city in CITIES for city in called), called
        # The choice made for it: no call, and only a call.
        both.model_settings = ModelSettings(temperature=0, tool_choice="none")
        assert isinstance((await Runner.run(both, "Hello!")).final_output, Answer)
        both.model_settings, both.tool_use_behavior = forced, "stop_on_first_tool"
        called.clear()
        assert "rain" in str((await Runner.run(both, "Hello!")).final_output) and called[0] in CITIES


asyncio.run(main())
