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
        lambda: client.chat.completions.create(**few, messages=messages, logprobs=True)
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
