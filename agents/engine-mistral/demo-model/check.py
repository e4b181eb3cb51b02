"""A second implementation, in numpy: reads the written files, not the training's weights, and answers questions."""

import json

import gguf
import numpy as np
from safetensors.numpy import load_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

import tokenizer as tok

ENDS = 2


class Reader:
    """A written model: weights as f32, its configuration and tokenizer. `pairs`: how the rotation pairs a head."""

    def __init__(self, weights, shape, tokenizer, template, pairs):
        self.weights, self.shape, self.tokenizer, self.template, self.pairs = weights, shape, tokenizer, template, pairs

    @staticmethod
    def folder(path):
        """Reads the folder with `config.json` and `model.safetensors`."""
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        weights = {k: v.astype(np.float32) for k, v in load_file(path / "model.safetensors").items()}
        names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
        short = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "q_proj": "attn_q",
                 "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate",
                 "up_proj": "ffn_up", "down_proj": "ffn_down"}
        renamed = {}
        for name, value in weights.items():
            name = name.removesuffix(".weight")
            parts = name.split(".")
            renamed[names.get(name) or f"blk.{parts[2]}.{short[parts[-1]]}"] = value
        shape = {"layers": config["num_hidden_layers"], "heads": config["num_attention_heads"],
                 "kv": config["num_key_value_heads"], "base": config["rope_theta"], "eps": config["rms_norm_eps"]}
        template = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
        return Reader(renamed, shape, Tokenizer.from_file(str(path / "tokenizer.json")), template, False)

    @staticmethod
    def gguf(path):
        """Reads a GGUF file; the tokenizer is built from its metadata alone, the way mistral.rs builds it."""
        reader = gguf.GGUFReader(path)
        field = lambda name: reader.get_field(name).contents()
        weights = {t.name.removesuffix(".weight"): gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
                   for t in reader.tensors}
        shape = {"layers": field("llama.block_count"), "heads": field("llama.attention.head_count"),
                 "kv": field("llama.attention.head_count_kv"), "base": field("llama.rope.freq_base"),
                 "eps": field("llama.attention.layer_norm_rms_epsilon")}
        tokens = field("tokenizer.ggml.tokens")
        merges = [tuple(merge.split(" ", 1)) for merge in field("tokenizer.ggml.merges")]
        tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(tok.SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
        tokenizer.decoder = decoders.ByteLevel()
        types = field("tokenizer.ggml.token_type")
        tokenizer.add_special_tokens([AddedToken(t, special=True) for t, kind in zip(tokens, types) if kind != 1])
        return Reader(weights, shape, tokenizer, field("tokenizer.chat_template"), True)

    def rotate(self, x, at):
        """Rotates `x` `[T, heads, size]` for the positions from `at` on."""
        t, _, size = x.shape
        angle = np.outer(np.arange(at, at + t), self.shape["base"] ** (-np.arange(0, size, 2) / size))[:, None]
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        a, b = (x[..., 0::2], x[..., 1::2]) if self.pairs else (x[..., : size // 2], x[..., size // 2:])
        out = np.empty_like(x)
        first, second = a * cos - b * sin, b * cos + a * sin
        if self.pairs:
            out[..., 0::2], out[..., 1::2] = first, second
        else:
            out[..., : size // 2], out[..., size // 2:] = first, second
        return out

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.shape["eps"]) * self.weights[name]

    def logits(self, ids, cache=None):
        """Logits `[T, vocabulary]` of new ids after those in `cache` (a list that is filled, one entry a layer)."""
        w, heads, kv = self.weights, self.shape["heads"], self.shape["kv"]
        cache = [None] * self.shape["layers"] if cache is None else cache
        x = w["token_embd"][np.asarray(ids)]
        t = len(ids)
        for i in range(self.shape["layers"]):
            at = 0 if cache[i] is None else cache[i][0].shape[0]
            h = self.norm(x, f"blk.{i}.attn_norm")
            q = self.rotate((h @ w[f"blk.{i}.attn_q"].T).reshape(t, heads, -1), at)
            k = self.rotate((h @ w[f"blk.{i}.attn_k"].T).reshape(t, kv, -1), at)
            v = (h @ w[f"blk.{i}.attn_v"].T).reshape(t, kv, -1)
            if cache[i] is not None:
                k, v = np.concatenate([cache[i][0], k]), np.concatenate([cache[i][1], v])
            cache[i] = (k, v)
            k, v = (np.repeat(part, heads // kv, axis=1).transpose(1, 0, 2) for part in (k, v))
            scores = q.transpose(1, 0, 2) @ k.transpose(0, 2, 1) / np.sqrt(np.float32(q.shape[-1]))
            hidden = np.arange(at + t)[None, :] > np.arange(at, at + t)[:, None]
            scores = np.where(hidden, -np.inf, scores)
            shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
            y = (shares / shares.sum(axis=-1, keepdims=True)) @ v
            x = x + y.transpose(1, 0, 2).reshape(t, -1) @ w[f"blk.{i}.attn_output"].T
            h = self.norm(x, f"blk.{i}.ffn_norm")
            gate = h @ w[f"blk.{i}.ffn_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w[f"blk.{i}.ffn_up"].T)) @ w[f"blk.{i}.ffn_down"].T
        return self.norm(x, "output_norm") @ w["token_embd"].T

    def answer(self, messages, temperature=0.0, rng=None, most=300):
        """The answer to a conversation: `(text, whether it ended by itself)`."""
        ids, cache, out = self.tokenizer.encode(tok.render(messages), add_special_tokens=False).ids, \
            [None] * self.shape["layers"], []
        while len(out) < most:
            row = self.logits(ids, cache)[-1].astype(np.float64)
            if temperature > 0:
                row = row / temperature + rng.gumbel(size=len(row))
            ids = [int(row.argmax())]
            if ids[0] == ENDS:
                return self.tokenizer.decode(out), True
            out += ids
        return self.tokenizer.decode(out), False
