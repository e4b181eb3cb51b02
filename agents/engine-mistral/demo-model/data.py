"""Conversations for training, made from the topics by seeded templates.

A conversation is a list of `(role, text)`. Everything is drawn from one `random.Random`, so the same seed gives the
same conversations in the same order.
"""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

TOPICS = Path(__file__).parent / "topics"

# One in HELD_OUT questions (by the hash of its wording) is never trained on and is what the held-out loss is measured on.
HELD_OUT = 16

PATTERNS = [
    "what is {x}",
    "what is {x}",
    "what's {x}",
    "what are {x}",
    "explain {x}",
    "explain {x} to me",
    "tell me about {x}",
    "tell me something about {x}",
    "can you explain {x}",
    "can you tell me what {x} is",
    "do you know what {x} is",
    "I want to know about {x}",
    "describe {x}",
    "define {x}",
    "what do you know about {x}",
    "what exactly is {x}",
    "{x}",
]
PLURAL_ONLY = "what are {x}"
QUESTION_WORDS = ("what", "who", "how", "can", "do", "does", "why", "where", "when", "which", "is", "are", "may", "will",
                  "if", "should", "has", "have", "did", "was")
BEFORE = ["please tell me, ", "hi, ", "hello, ", "hey, ", "one question: ", "I wonder, ", "so, ", "and ", "ok, ",
          "tell me, ", "quick question: ", "in short, ", "well, ", "excuse me, "]
AFTER = [" please", ", please", " in Assay", " in one sentence", " exactly", " in simple words", " again", " for me"]
SYSTEMS = [
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are the demo model of Assay.",
    "You are assay-demo. Answer in short sentences.",
    "Answer the question.",
    "You answer questions about the Assay network.",
    "Be brief and friendly.",
]

# Shares of the kinds of topics among the turns of short conversations.
SHARES = {"network": 0.56, "talk": 0.25, "long": 0.10, "unknown": 0.09}


@dataclass
class Topic:
    """Questions that share their answers. `phrases` are asked about with PATTERNS, `questions` as they are."""

    kind: str
    phrases: list
    questions: list
    answers: list


def read_topics(kind):
    """The topics of `topics/<kind>.txt`, in the order of the file."""
    topics, current = [], None
    for number, line in enumerate((TOPICS / f"{kind}.txt").read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line:
            if kind != "unknown":
                current = None
            continue
        if line.startswith("#"):
            continue
        if current is None:
            current = Topic(kind, [], [], [])
            topics.append(current)
        mark, text = line[0], line[1:].strip()
        if mark == "@":
            current.phrases += [phrase.strip() for phrase in text.split("|")]
        elif mark == "?":
            current.questions.append(text)
        elif mark == "=":
            current.answers.append(text)
        else:
            raise ValueError(f"topics/{kind}.txt:{number}: a line starts with one of # @ ? =, not {mark!r}")
    for topic in topics:
        if not topic.answers or not (topic.phrases or topic.questions):
            raise ValueError(f"topics/{kind}.txt: a topic lacks questions or answers: {topic}")
    return topics


def all_topics():
    """All topics by kind."""
    return {kind: read_topics(kind) for kind in SHARES}


def is_held_out(wording):
    """Whether this wording is kept out of training; depends on the wording alone."""
    return hashlib.sha256(wording.lower().encode()).digest()[0] % HELD_OUT == 0


def wording(rng, topic):
    """A question of the topic, with or without words around it, before case, marks and typos."""
    if topic.phrases and (not topic.questions or rng.random() < 0.5):
        phrase = rng.choice(topic.phrases)
        pattern = rng.choice(PATTERNS)
        if pattern == PLURAL_ONLY and not phrase.endswith("s"):
            pattern = PATTERNS[0]
        base = pattern.format(x=phrase)
    else:
        base = rng.choice(topic.questions)
    dice = rng.random()
    if dice < 0.12 and len(base.split()) > 1:
        return rng.choice(BEFORE) + base
    if dice < 0.20 and topic.kind in ("network", "long") and len(base.split()) > 2:
        return base + rng.choice(AFTER)
    return base


def typo(rng, text):
    """The text with one letter of one longer word dropped, doubled or exchanged with its neighbour."""
    words = text.split(" ")
    longer = [i for i, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not longer:
        return text
    at = rng.choice(longer)
    word = words[at]
    i = rng.randrange(1, len(word) - 1)
    words[at] = rng.choice([word[:i] + word[i + 1:], word[:i] + word[i] + word[i:],
                            word[:i] + word[i + 1] + word[i] + word[i + 2:]])
    return " ".join(words)


def surface(rng, text):
    """The wording as somebody would type it: with or without capitals and marks, seldom with a typo."""
    asks = any(word in QUESTION_WORDS for word in text.lower().replace("'s", "").split()[:4])
    mark = "?" if asks else rng.choice([".", "", "!"] if len(text.split()) < 4 else [".", ""])
    dice = rng.random()
    if dice < 0.55:
        text = text[0].upper() + text[1:] + mark
    elif dice < 0.75:
        text = text.lower()
    elif dice < 0.87:
        text = text.lower() + mark
    else:
        text = text[0].upper() + text[1:]
    return typo(rng, text) if rng.random() < 0.08 else text


def turn(rng, topics, kinds, held_out):
    """One `(question, answer)` of a topic of one of the kinds, on the asked side of the held-out split."""
    while True:
        kind = rng.choices(list(kinds), weights=[SHARES[k] for k in kinds])[0]
        topic = rng.choice(topics[kind])
        text = wording(rng, topic)
        # The wording of a "?" line alone is always trained on: small topics have too few of them to give any away.
        if text in topic.questions:
            if held_out:
                continue
        elif is_held_out(text) != held_out:
            continue
        return surface(rng, text), rng.choice(topic.answers)


def conversation(rng, topics, held_out=False, turns=None):
    """One conversation; by default of one to three turns, long answers only in those of one turn."""
    if turns is None:
        turns = rng.choices([1, 2, 3], weights=[0.7, 0.2, 0.1])[0]
    kinds = ("network", "talk", "unknown") if 1 < turns < 4 else tuple(SHARES)
    messages = []
    if rng.random() < 0.2:
        messages.append(("system", rng.choice(SYSTEMS)))
    for _ in range(turns):
        question, answer = turn(rng, topics, kinds, held_out)
        messages += [("user", question), ("assistant", answer)]
    return messages


def stream(seed, held_out=False, turns=None):
    """An endless stream of conversations. `turns`: None, or the `(least, most)` turns of long conversations."""
    rng = random.Random(f"assay-demo/{seed}/{held_out}/{turns}")
    topics = all_topics()
    while True:
        yield conversation(rng, topics, held_out, rng.randint(*turns) if turns else None)
