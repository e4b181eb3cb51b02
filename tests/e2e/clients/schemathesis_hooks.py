"""What a schema cannot say of a request, for the requests that schemathesis makes. A good request stays good and a
bad one bad."""

import json

import schemathesis

MOST_TOKENS = 4
"""An answer of so many tokens is as good for a test, and leaves the context to the prompt."""
MOST_BYTES = 700
"""A token has at least a byte: so the prompt fits beside the default answer."""
MOST_ANSWERS = 2
"""The network has a few nodes, and every answer takes a moment."""


def lower(value, most, limit):
    """A whole number that is allowed, but larger than it has to be, becomes smaller."""
    return most if type(value) in (int, float) and most < value <= limit and value % 1 == 0 else value


@schemathesis.hook
def filter_body(context, body):
    """What does not fit into the model's context is refused, and no schema can say so."""
    return len(json.dumps(body, ensure_ascii=False, default=str).encode(errors="replace")) <= MOST_BYTES


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    if not isinstance(body, dict):
        return
    schemas = case.operation.schema.raw_schema["components"]["schemas"]
    context_limit = schemas["AnswerTokens"]["maximum"]
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if name in body:
            body[name] = lower(body[name], MOST_TOKENS, context_limit)
    if "n" in body:
        body["n"] = lower(body["n"], MOST_ANSWERS, schemas["Choices"]["maximum"])
    network = body.get("assay")
    if isinstance(network, dict) and "redundancy" in network:
        limit = schemas["Network"]["properties"]["redundancy"]["maximum"]
        network["redundancy"] = lower(network["redundancy"], MOST_ANSWERS, limit)
    # As many equal messages as are allowed do not fit into the context of a small model.
    for name in ("messages", "input"):
        many = body.get(name)
        if isinstance(many, list) and 8 < len(many) <= 1024 and all(one == many[0] for one in many):
            body[name] = many[:8]
    # Prompts times answers are eight at most.
    prompt = body.get("prompt")
    if isinstance(prompt, list) and all(isinstance(text, str) for text in prompt) and len(prompt) <= 8:
        body["prompt"] = prompt[:2]
    # The last of Anthropic's messages is the user's.
    messages = body.get("messages")
    if case.operation.path == "/v1/messages" and isinstance(messages, list) and messages:
        if isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant":
            messages[-1]["role"] = "user"
