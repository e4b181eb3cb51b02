"""Plain and streamed messages with Anthropic's official client; prints what it saw as one JSON object."""

import json
import sys

import anthropic
from anthropic import Anthropic

client = Anthropic(base_url=sys.argv[1], api_key="unused", max_retries=0)
model = sys.argv[2]
messages = [{"role": "user", "content": "What is a session?"}]
few = {"model": model, "max_tokens": 48, "messages": messages}
# The client has no parameter for it any more.
few["extra_body"] = {"temperature": 0}
seen = {}


def error_of(call):
    """The class and the body that a client sees."""
    try:
        call()
    except anthropic.APIStatusError as e:
        return {"class": type(e).__name__, "body": e.body}
    return None


plain = client.messages.create(**few, system="You are Assay's assistant.")
seen["plain"] = [plain.content[0].text, plain.stop_reason, plain.usage.model_dump()]
cut = client.messages.create(**{**few, "max_tokens": 2})
seen["cut"] = [cut.stop_reason, cut.usage.output_tokens]
stopped = client.messages.create(**few, stop_sequences=["session"])
seen["stopped"] = [stopped.content[0].text, stopped.stop_reason, stopped.stop_sequence]

with client.messages.stream(**few) as stream:
    deltas = list(stream.text_stream)
    final = stream.get_final_message()
seen["streamed"] = ["".join(deltas), final.content[0].text, final.stop_reason, len(deltas)]
seen["streamed_usage"] = final.usage.model_dump()

seen["errors"] = {
    "model": error_of(lambda: client.messages.create(**{**few, "model": "claude"})),
    "tools": error_of(
        lambda: client.messages.create(
            **few, tools=[{"name": "f", "input_schema": {"type": "object"}}]
        )
    ),
    "streamed": error_of(lambda: client.messages.create(**{**few, "extra_body": {"top_k": -1}}, stream=True)),
}
print(json.dumps(seen))
