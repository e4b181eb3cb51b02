"""A plain and a streamed answer with the official client; prints what it saw as one JSON object."""

import json
import sys

from openai import OpenAI

client = OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "What is a session?"}]

raw = client.chat.completions.with_raw_response.create(
    model=model, messages=messages, temperature=0, max_tokens=48
)
plain = raw.parse()

text, finish, usage, chunks = "", None, None, 0
for chunk in client.chat.completions.create(
    model=model,
    messages=messages,
    temperature=0,
    max_tokens=48,
    stream=True,
    stream_options={"include_usage": True},
):
    if chunk.usage is not None:
        usage = chunk.usage.model_dump()
    for choice in chunk.choices:
        text += choice.delta.content or ""
        chunks += bool(choice.delta.content)
        finish = choice.finish_reason or finish

try:
    client.chat.completions.create(model="no-such-model", messages=messages)
    error = None
except Exception as e:  # noqa: BLE001 - the class is what is asserted
    error = type(e).__name__

print(
    json.dumps(
        {
            "model": model,
            "task": raw.headers.get("x-assay-task"),
            "plain": plain.choices[0].message.content,
            "plain_finish": plain.choices[0].finish_reason,
            "plain_usage": plain.usage.model_dump(),
            "streamed": text,
            "streamed_finish": finish,
            "streamed_usage": usage,
            "chunks": chunks,
            "unknown_model": error,
        }
    )
)
