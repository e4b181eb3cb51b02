"""Checks the written files and shows what the model answers."""

import itertools

import numpy as np

import check
import data
import export
import tokenizer as tok

# All of these are wordings of the topics or close to them, except those marked.
QUESTIONS = [
    "What is a session?",
    "What is Assay?",
    "Who are the miners?",
    "hello",
    "How do I get paid?",
    "What does an oracle do?",
    "What is IPFS used for?",
    "Explain how Assay works.",
    "what does a router do",
    "How do I run it?",
    "What happens if a miner cheats?",  # not in the topics in these words
    "Could you tell me what a session is?",  # not in the topics in these words
    "How does Proof of Inference work?",
    "What is slashing?",
    "Can I use the OpenAI client?",
    "Who are you?",
    "Tell me a joke.",
    "Count from one to twenty.",
    "What is the capital of France?",
    "What is a trombone?",  # nothing in the topics
]
# The largest difference of a logit between the training's code and the reader of the safetensors form.
LOGIT_BOUND = 2e-3
HELD_OUT_QUESTIONS = 100


def sample_ids(tokenizer, seed):
    """The ids of one conversation of some turns."""
    messages = next(data.stream(f"{seed}/check", turns=(4, 4)))
    return tok.Encoder(tokenizer).encode(messages)[0]


def check_logits(reader, weights, ids):
    """The written weights against the training's code: both must compute the same function."""
    import jax.numpy as jnp

    import model

    rounded = {name: jnp.asarray(value, jnp.float32) for name, value in export.half(weights).items()}
    row = jnp.asarray([ids])
    theirs = np.asarray(model.forward(rounded, row, jnp.arange(len(ids))[None], jnp.zeros_like(row)))[0]
    difference = float(np.abs(theirs - reader.logits(ids)).max())
    print(f"safetensors, read again: largest difference of a logit to the training's code {difference:.1e}")
    if difference > LOGIT_BOUND:
        raise ValueError(f"the written model computes something else: a logit differs by {difference}")


def check_copies(readers, ids, seed):
    """The GGUF copies against the folder: same ids and template, and nearly the same answers."""
    folder = readers["safetensors"]
    texts = [tok.render(messages) for messages in itertools.islice(data.stream(f"{seed}/texts"), 300)]
    texts += ["naïve café 日本語 🙂\r\n\n  x  12345 don't <|im_end|> a\tb", "   leading", "trailing   "]
    logits = folder.logits(ids)
    for name, reader in readers.items():
        for text in texts:
            one, other = (r.tokenizer.encode(text, add_special_tokens=False).ids for r in (folder, reader))
            if one != other:
                raise ValueError(f"{name} has other ids for {text!r}: {other}, not {one}")
        if reader.template != folder.template:
            raise ValueError(f"{name} has another chat template")
        off = np.abs(reader.logits(ids) - logits)
        print(f"{name}: logits differ from the half floats by {off.mean():.3f} in the mean, {off.max():.2f} at most")


def right(question_answers, reader, temperature=0.0, rng=None):
    """The share of `(messages, accepted answers)` that are answered word by word."""
    hits = 0
    for messages, accepted in question_answers:
        text, ended = reader.answer(messages, temperature, rng)
        hits += ended and text in accepted
    return hits / len(question_answers)


def held_out_questions(seed):
    """Questions in wordings that are never trained on, each with the answers that its topic accepts."""
    topics = data.all_topics()
    by_answer = {answer: topic.answers for group in topics.values() for topic in group for answer in topic.answers}
    source = data.stream(f"{seed}/questions", held_out=True, turns=(1, 1))
    picked = itertools.islice(source, HELD_OUT_QUESTIONS)
    return [(messages[:-1], by_answer[messages[-1][1]]) for messages in picked]


def evaluate(out, weights, seed):
    """Checks the files in `out` and prints figures and answers. `weights`: the trained ones, or None."""
    readers = {
        "safetensors": check.Reader.folder(out / export.NAME),
        export.Q8: check.Reader.gguf(out / export.Q8),
        export.Q4: check.Reader.gguf(out / export.Q4),
    }
    folder = readers["safetensors"]
    ids = sample_ids(folder.tokenizer, seed)
    if weights is not None:
        check_logits(folder, weights, ids)
    check_copies(readers, ids, seed)
    questions = held_out_questions(seed)
    for name, reader in readers.items():
        share = right(questions, reader)
        print(f"{name}: {share:.0%} of {len(questions)} held-out questions answered word by word", flush=True)
    share = right(questions, folder, 0.7, np.random.default_rng(seed))
    print(f"safetensors at temperature 0.7: {share:.0%} of them", flush=True)
    print("\ngreedy:")
    for question in QUESTIONS:
        text, ended = folder.answer([("user", question)])
        print(f"  {question}\n    {text}{'' if ended else ' [not ended]'}")
    print("\nat temperature 0.7:")
    rng = np.random.default_rng(seed)
    for question in QUESTIONS:
        text, ended = folder.answer([("user", question)], 0.7, rng)
        print(f"  {question}\n    {text}{'' if ended else ' [not ended]'}")
    print("\na conversation:")
    messages = [("system", data.SYSTEMS[0])]
    for question in ["Hello!", "What is a session?", "And how do I close it?", "thank you"]:
        messages.append(("user", question))
        text, _ = folder.answer(messages)
        messages.append(("assistant", text))
        print(f"  {question}\n    {text}")
