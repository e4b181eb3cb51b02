// Chat, streaming, responses and errors with the official client for Node; prints what it saw as one JSON object.

import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "unused", maxRetries: 0 });
const seen = {};
const model = (await client.models.list()).data[0].id;
const few = { model, temperature: 0, max_tokens: 48 };
const messages = [{ role: "user", content: "What is a session?" }];

const { data: plain, response } = await client.chat.completions.create({ ...few, messages }).withResponse();
seen.plain = [plain.choices[0].message.content, plain.choices[0].finish_reason, plain.usage];
seen.task = response.headers.get("x-assay-task");

const chunks = await client.chat.completions.create({ ...few, messages, stream: true, stream_options: { include_usage: true } });
let pieces = [], finish, usage;
for await (const chunk of chunks) {
  if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
  finish = chunk.choices[0]?.finish_reason ?? finish;
  usage = chunk.usage ?? usage;
}
seen.streamed = [pieces.join(""), finish, usage, pieces.length];

// The client's own helper puts the pieces together.
const runner = client.chat.completions.stream({ ...few, messages });
seen.helper = await runner.finalContent();

// A client that has read enough.
const left = await client.chat.completions.create({ ...few, messages, stream: true });
for await (const chunk of left) if (chunk.choices[0]?.delta.content) break;

const answer = await client.responses.create({ model, temperature: 0, max_output_tokens: 48, input: messages[0].content });
seen.response = [answer.output_text, answer.status];
const events = await client.responses.create({ model, temperature: 0, max_output_tokens: 48, input: messages[0].content, stream: true });
let text = "";
let last;
for await (const event of events) {
  if (event.type === "response.output_text.delta") text += event.delta;
  last = event.type;
}
seen.response_streamed = [text, last];

seen.errors = {};
const calls = {
  model: () => client.chat.completions.create({ model: "x", messages }),
  tools: () => client.chat.completions.create({ ...few, messages, tools: [{ type: "function", function: { name: "f" } }] }),
  streamed: () => client.chat.completions.create({ ...few, messages, stream: true, top_p: 3 }),
};
for (const [name, call] of Object.entries(calls)) {
  try {
    await call();
  } catch (error) {
    seen.errors[name] = [error.constructor.name, error.status, error.code, error.param];
  }
}
console.log(JSON.stringify(seen));
