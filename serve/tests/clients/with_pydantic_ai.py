"""pydantic-ai: typed answers by a tool and by a schema, a tool beside them; by chat and by responses."""

from typing import Literal

from common import ANSWER, CITIES, URL
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class Weather(BaseModel):
    city: Literal["Oslo", "Bergen"]


openai = OpenAIProvider(base_url=f"{URL}/v1", api_key="none")
models = [OpenAIChatModel("page", provider=openai), OpenAIResponsesModel("page", provider=openai)]
settings = {"temperature": 0, "max_tokens": 100}
for model in models:
    assert Agent(model, model_settings=settings).run_sync("Hello!").output == ANSWER
    with_tool = Agent(model, output_type=ToolOutput(Weather), model_settings=settings)
    assert with_tool.run_sync("Hello!").output.city in CITIES
    assert Agent(model, output_type=NativeOutput(Weather), model_settings=settings).run_sync("Hello!").output.city in CITIES
    called = []
    agent = Agent(model, output_type=ToolOutput(Weather), model_settings=settings)

    # Offered once: this model would call it for ever.
    async def once(ctx, definition):
        return None if called else definition

    @agent.tool_plain(prepare=once)
    def weather(city: Literal["Oslo", "Bergen"]) -> str:
        """What it is like."""
        called.append(city)
        return "rain"

    assert agent.run_sync("Hello!").output.city in CITIES
