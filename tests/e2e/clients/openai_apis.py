"""OpenAI's other APIs with the official client; prints what it saw as one JSON object."""

import json
import sys

import openai
from openai import OpenAI

client = OpenAI(base_url=sys.argv[1] + "/v1", api_key="unused", max_retries=0)
model = client.models.list().data[0].id
question = "What is a session?"
messages = [{"role": "user", "content": question}]
few = {"model": model, "temperature": 0}
seen = {}


def error_of(call):
    """The class, the code, the parameter and the message that a client sees."""
    try:
        call()
    except openai.APIStatusError as e:
        return {"class": type(e).__name__, "code": e.code, "param": e.param, "message": e.message}
    return None


several = client.chat.completions.create(**few, messages=messages, max_tokens=24, n=2)
seen["several"] = [choice.message.content for choice in several.choices]
stopped = client.chat.completions.create(
    **few, messages=messages, max_tokens=48, stop=["session"], frequency_penalty=0.5
)
seen["stopped"] = [stopped.choices[0].message.content, stopped.choices[0].finish_reason]



def likely(content):
    """Text, log probabilities, and whether the likeliest token leads, of each entry of a chat's."""
    return {
        "text": b"".join(bytes(entry.bytes or []) for entry in content).decode(),
        "logprobs": [entry.logprob for entry in content],
        "tops": [len(entry.top_logprobs) for entry in content],
        "greedy": [entry.token == entry.top_logprobs[0].token for entry in content],
    }


with_logprobs = {**few, "messages": messages, "max_tokens": 24, "logprobs": True, "top_logprobs": 3}
whole = client.chat.completions.create(**with_logprobs)
content = whole.choices[0].logprobs.content
seen["logprobs"] = likely(content) | {
    "shown": whole.choices[0].message.content,
    "tokens": whole.usage.completion_tokens,
}
shown, entries, together = "", [], []
for chunk in client.chat.completions.create(**with_logprobs, stream=True):
    choice = chunk.choices[0]
    shown += choice.delta.content or ""
    if choice.logprobs:
        entries += choice.logprobs.content
        said = b"".join(bytes(entry.bytes or []) for entry in choice.logprobs.content).decode()
        together.append(said == (choice.delta.content or ""))
seen["logprobs_streamed"] = likely(entries) | {"shown": shown, "together": together}
listed = client.completions.create(**few, prompt="A session is", max_tokens=8, logprobs=2).choices[0]
seen["logprobs_listed"] = listed.logprobs.model_dump() | {"shown": listed.text}

included = client.responses.create(
    **few, input=question, max_output_tokens=16, include=["message.output_text.logprobs"], top_logprobs=2
)
seen["logprobs_included"] = likely(included.output[0].content[0].logprobs) | {
    "shown": included.output_text,
    "tokens": included.usage.output_tokens,
}

completion = client.completions.create(**few, prompt="A session is", max_tokens=16)
seen["completion"] = [completion.choices[0].text, completion.choices[0].finish_reason]
seen["completion_streamed"] = "".join(
    chunk.choices[0].text
    for chunk in client.completions.create(**few, prompt="A session is", max_tokens=16, stream=True)
)

response = client.responses.create(**few, input=question, max_output_tokens=48)
seen["response"] = [response.output_text, response.status, response.usage.total_tokens]
with client.responses.stream(**few, input=question, max_output_tokens=48) as stream:
    deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    final = stream.get_final_response()
seen["response_streamed"] = ["".join(deltas), final.output_text, final.status, len(deltas)]

with client.responses.connect() as connection:
    connection.response.create(**few, input=question, max_output_tokens=48)
    deltas = []
    for event in connection:
        if event.type == "response.output_text.delta":
            deltas.append(event.delta)
        elif event.type in ("response.completed", "response.incomplete", "error"):
            break
seen["websocket"] = ["".join(deltas), event.type]

retrieved = client.models.retrieve(model)
seen["model"] = retrieved.model_dump()["assay"]

seen["errors"] = {
    "model": error_of(lambda: client.chat.completions.create(model="x", messages=messages)),
    "seed": error_of(lambda: client.chat.completions.create(**few, messages=messages, seed=1)),
    "logprobs": error_of(
        lambda: client.chat.completions.create(**few, messages=messages, top_logprobs=2)
    ),
    "previous": error_of(
        lambda: client.responses.create(**few, input="x", previous_response_id="resp_1")
    ),
    "embeddings": error_of(lambda: client.embeddings.create(model=model, input="x")),
    "long": error_of(
        lambda: client.chat.completions.create(
            **few, messages=[{"role": "user", "content": "word " * 4000}]
        )
    ),
}
print(json.dumps(seen))
