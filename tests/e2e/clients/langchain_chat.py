"""LangChain's OpenAI chat class; prints what it saw as one JSON object."""

import json
import sys

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

base, model = sys.argv[1] + "/v1", sys.argv[2]


def chat(**options):
    return ChatOpenAI(
        **{
            "base_url": base,
            "api_key": "unused",
            "model": model,
            "temperature": 0,
            "max_tokens": 48,
            "max_retries": 0,
            **options,
        }
    )


messages = [SystemMessage("You are Assay's assistant."), HumanMessage("What is a session?")]
seen = {}

plain = chat().invoke(messages)
seen["plain"] = [plain.content, plain.response_metadata["finish_reason"], plain.usage_metadata]
chunks = list(chat(stream_usage=True).stream(messages))
whole = chunks[0]
for chunk in chunks[1:]:
    whole += chunk
seen["streamed"] = [whole.content, whole.usage_metadata, len(chunks)]
seen["batch"] = [answer.content for answer in chat().batch([messages, messages])]
seen["responses"] = chat(use_responses_api=True).invoke(messages).text

seen["errors"] = {}
for name, call in {
    "model": lambda: chat(model="x").invoke(messages),
    "seed": lambda: chat(seed=1).invoke(messages),
    "stream": lambda: list(chat(model="x").stream(messages)),
}.items():
    try:
        call()
    except openai.APIStatusError as e:
        seen["errors"][name] = [type(e).__name__, e.code]
print(json.dumps(seen))
