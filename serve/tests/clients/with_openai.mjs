// OpenAI's JavaScript client against a running server: node with_openai.mjs URL
import assert from "node:assert/strict";
import OpenAI from "openai";

const url = process.argv[2];
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Hello!" }];
const answer = "Hello! Would you like to hear a story?";
const parameters = { type: "object", properties: { city: { enum: ["Oslo", "Bergen"] } }, required: ["city"], additionalProperties: false };
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const schema = { type: "object", properties: { ok: { type: "boolean" } }, required: ["ok"], additionalProperties: false };
const ask = (more) => client.chat.completions.create({ model: "page", messages, temperature: 0, ...more });

assert.deepEqual((await client.models.list()).data.map((model) => model.id), ["page"]);
assert.equal((await ask({})).choices[0].message.content, answer);
let text = "";
for await (const chunk of await ask({ stream: true })) text += chunk.choices[0]?.delta?.content ?? "";
assert.equal(text, answer);
assert.equal((await ask({ stop: "like" })).choices[0].message.content, "Hello! Would you ");
assert.equal((await ask({ logprobs: true, top_logprobs: 2 })).choices[0].logprobs.content[0].top_logprobs.length, 2);
const format = { type: "json_schema", json_schema: { name: "x", strict: true, schema } };
assert.deepEqual(Object.keys(JSON.parse((await ask({ response_format: format })).choices[0].message.content)), ["ok"]);
const call = (await ask({ tools, tool_choice: "required" })).choices[0].message.tool_calls[0];
assert.equal(call.function.name, "weather");
const streamed = await client.chat.completions.stream({ model: "page", messages, tools, tool_choice: "required" }).finalChatCompletion();
assert(JSON.parse(streamed.choices[0].message.tool_calls[0].function.arguments).city);
await assert.rejects(ask({ messages: [] }), (error) => error instanceof OpenAI.BadRequestError && error.message.includes("messages"));

const first = await client.responses.create({ model: "page", input: "Hello!", temperature: 0 });
assert.equal(first.output_text, answer);
const second = await client.responses.create({ model: "page", input: "Yes.", previous_response_id: first.id, max_output_tokens: 16 });
assert(second.usage.input_tokens > first.usage.input_tokens);
assert.equal((await client.responses.retrieve(first.id)).output_text, answer);
await client.responses.delete(first.id);
await assert.rejects(client.responses.retrieve(first.id), (error) => error instanceof OpenAI.NotFoundError);

// Who stops listening frees the server.
const long = await ask({ stream: true, messages: [{ role: "user", content: "Tell me a story." }], ignore_eos: true });
for await (const _ of long) break;
const start = Date.now();
for (;;) {
  const page = await (await fetch(`${url}/metrics`)).text();
  if (/^tern_requests_active 0$/m.test(page)) break;
  assert(Date.now() - start < 5000, "the request still runs seconds after it was given up");
  await new Promise((done) => setTimeout(done, 20));
}
