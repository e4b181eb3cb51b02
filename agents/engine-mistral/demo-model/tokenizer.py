"""The tokenizer: byte-level BPE of 1024 tokens, trained on the conversations themselves, and the chat template."""

import itertools
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import data

VOCAB = 1024
# Ids 0, 1 and 2. The first one separates nothing in a conversation; it is the padding and the BOS by name only.
END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = [END_OF_TEXT, START, END]

# mistral.rs splits with this pattern when it reads a BPE tokenizer from GGUF metadata, whatever the file says.
# With the same pattern here, the safetensors and the GGUF copies see the same ids.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")

# ChatML. No clock, no default system message: the same messages always give the same text.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train(seed, conversations=40_000):
    """Trains the tokenizer on as many seeded conversations."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL],
    )
    source = itertools.islice(data.stream(f"{seed}/tokenizer"), conversations)
    tokenizer.train_from_iterator((f"{role}\n{text}" for messages in source for role, text in messages), trainer)
    if tokenizer.get_vocab_size() != VOCAB:
        raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens, not {VOCAB}: give it more text")
    return tokenizer


def render(messages, add_generation_prompt=True):
    """What CHAT_TEMPLATE renders, without a template engine; `export` checks that both agree."""
    text = "".join(f"{START}{role}\n{content}{END}\n" for role, content in messages)
    return text + (f"{START}assistant\n" if add_generation_prompt else "")


def config():
    """`tokenizer_config.json`."""
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(i): {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                     "special": True}
            for i, text in enumerate(SPECIAL)
        },
        "bos_token": END_OF_TEXT,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "model_max_length": 1024,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


# The first ids of an answer decide which answer it is; the rest follows from them. They weigh more in the loss.
FIRST, FIRST_WEIGHT = 10, 3.0


class Encoder:
    """Turns conversations into ids and their weights in the loss: zero but for the assistant's text and its end."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.cache = {}

    def piece(self, text):
        if text not in self.cache:
            self.cache[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self.cache[text]

    def encode(self, messages):
        """`(ids, weights)` of equal length."""
        ids, weights = [], []
        for role, text in messages:
            head = [SPECIAL.index(START)] + self.piece(role + "\n")
            body = self.piece(text) + [SPECIAL.index(END)]
            tail = self.piece("\n")
            ids += head + body + tail
            mine = [FIRST_WEIGHT if i < FIRST else 1.0 for i in range(len(body))]
            weights += [0.0] * len(head) + (mine if role == "assistant" else [0.0] * len(body)) + [0.0] * len(tail)
        return ids, weights


def dump(value):
    """JSON as all files of the model have it."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
