// OpenAI's JavaScript client against a running server. Usage: node clients.mjs URL, in a folder with `openai` installed.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(path.join(process.cwd(), "x.js"));
const { default: OpenAI } = await import(pathToFileURL(require.resolve("openai")));
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
assert.equal((await client.responses.create({ model: "page", input: "Hello!", temperature: 0 })).output_text, answer);

// Who stops listening frees the server.
const long = await ask({ stream: true, messages: [{ role: "user", content: "Tell me a story." }], ignore_eos: true });
for await (const _ of long) break;
const start = Date.now();
for (;;) {
  const page = await (await fetch(`${url}/metrics`)).text();
  if (/^tern_requests_active 0$/m.test(page)) break;
  assert(Date.now() - start < 1000, "the request still runs a second after it was given up");
  await new Promise((done) => setTimeout(done, 20));
}
console.log("openai (JavaScript): ok");
