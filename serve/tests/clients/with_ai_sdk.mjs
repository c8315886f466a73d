// The AI SDK, by OpenAI's two dialects, its provider for compatible servers, and Anthropic's: node with_ai_sdk.mjs URL
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const url = process.argv[2];
const answer = "Hello! Would you like to hear a story?";
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const compatible = createOpenAICompatible({ name: "tern", baseURL: `${url}/v1`, supportsStructuredOutputs: true });
const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey: "none" });
const city = z.object({ city: z.enum(["Oslo", "Bergen"]) });
const models = { chat: openai.chat("page"), responses: openai.responses("page"), compatible: compatible("page"), anthropic: anthropic("page") };

for (const [name, model] of Object.entries(models)) {
  const common = { model, temperature: 0, maxRetries: 0, prompt: "Hello!", maxOutputTokens: 100 };
  assert.equal((await generateText(common)).text, answer, name);
  let text = "";
  for await (const piece of streamText(common).textStream) text += piece;
  assert.equal(text, answer, name);

  const asked = [];
  const tools = { weather: tool({ description: "What it is like", inputSchema: city, execute: async (input) => (asked.push(input.city), "rain") }) };
  const called = await generateText({ ...common, tools, toolChoice: "required", stopWhen: stepCountIs(2) });
  assert(["Oslo", "Bergen"].includes(asked[0]), name);
  assert.equal(called.steps[0].toolCalls[0].toolName, "weather", name);
  const streamed = streamText({ ...common, tools, toolChoice: "required", stopWhen: stepCountIs(1) });
  const parts = [];
  for await (const part of streamed.fullStream) parts.push(part.type);
  assert(parts.includes("tool-input-delta") && parts.includes("tool-call"), `${name}: ${parts}`);

  const formed = await generateText({ ...common, output: Output.object({ schema: city }) });
  assert(["Oslo", "Bergen"].includes(formed.output.city), name);
}
