"""Writes the model: a folder in the form of the Hugging Face hub, and GGUF copies with 8-bit and 4-bit weights."""

import hashlib
import json
import os

import gguf
import jinja2
import numpy as np
from safetensors.numpy import save_file

import data
import model
import tokenizer as tok
from quantise import q4_k

NAME = "assay-demo"
Q8, Q4 = f"{NAME}-q8_0.gguf", f"{NAME}-q4_k.gguf"
# All committed forms together, in bytes.
MOST_BYTES = 10_000_000
GENERATION = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}

GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def gguf_name(name):
    """The GGUF name of a weight."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    parts = name.split(".")
    return f"blk.{parts[2]}.{GGUF_NAMES[parts[-2]]}.weight"


def interleave(matrix, heads):
    """Rows of a query or key matrix from halves (safetensors) to neighbouring pairs (GGUF's llama) for the rotation."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def check_template():
    """The template must render what the model is trained on."""
    topics = data.all_topics()["talk"]
    messages = [("system", "Be brief."), ("user", topics[0].questions[0]), ("assistant", topics[0].answers[0]),
                ("user", "What is a session?")]
    # mistral.rs sets the same two options.
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    rendered = environment.from_string(tok.CHAT_TEMPLATE).render(
        messages=[{"role": role, "content": text} for role, text in messages], add_generation_prompt=True)
    if rendered != tok.render(messages):
        raise ValueError(f"the chat template renders {rendered!r}, the training {tok.render(messages)!r}")


def write_gguf(path, weights, tokenizer, file_type):
    """One GGUF file with tokenizer and chat template in its metadata. Norms stay F32."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(NAME)
    writer.add_file_type(file_type)
    writer.add_context_length(model.CONFIG["max_position_embeddings"])
    writer.add_embedding_length(model.HIDDEN)
    writer.add_block_count(model.LAYERS)
    writer.add_feed_forward_length(model.FEED)
    writer.add_head_count(model.HEADS)
    writer.add_head_count_kv(model.KV_HEADS)
    writer.add_key_length(model.HEAD)
    writer.add_value_length(model.HEAD)
    writer.add_rope_dimension_count(model.HEAD)
    writer.add_rope_freq_base(model.CONFIG["rope_theta"])
    writer.add_layer_norm_rms_eps(model.CONFIG["rms_norm_eps"])
    writer.add_vocab_size(model.CONFIG["vocab_size"])
    add_tokenizer(writer, tokenizer)
    for name, value in sorted(weights.items()):
        value = value.astype(np.float32)
        if name.endswith("q_proj.weight"):
            value = interleave(value, model.HEADS)
        elif name.endswith("k_proj.weight"):
            value = interleave(value, model.KV_HEADS)
        if value.ndim == 1:
            writer.add_tensor(gguf_name(name), value)
        elif file_type == gguf.LlamaFileType.MOSTLY_Q8_0 or "embed" in name:
            # The embedding is the output matrix too and is the most sensitive one: 8 bits in both files.
            q = gguf.quants.quantize(value, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(gguf_name(name), q, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(gguf_name(name), q4_k(value), raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer, tokenizer):
    """The tokenizer as GGUF metadata: byte-level BPE ("gpt2")."""
    stored = json.loads(tokenizer.to_str())["model"]
    by_id = {i: token for token, i in stored["vocab"].items()}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in stored["merges"]]
    writer.add_tokenizer_model("gpt2")
    # The pattern of tokenizer.SPLIT under the name that llama.cpp has for it; mistral.rs does not read this key.
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([by_id[i] for i in range(tok.VOCAB)])
    writer.add_token_types([gguf.TokenType.CONTROL if i < len(tok.SPECIAL) else gguf.TokenType.NORMAL
                            for i in range(tok.VOCAB)])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(model.CONFIG["bos_token_id"])
    writer.add_eos_token_id(model.CONFIG["eos_token_id"])
    writer.add_pad_token_id(model.CONFIG["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(tok.CHAT_TEMPLATE)


def half(weights):
    """The weights as they are written: half floats (a finer step than bfloat16, and none is near half's limits)."""
    out = {name: np.asarray(value).astype(np.float16) for name, value in weights.items()}
    for name, value in out.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name} does not fit into half floats")
    return out


def export(weights, tokenizer, out, build):
    """Writes everything into `build` first and then moves it to `out`, file by file. Returns the paths."""
    check_template()
    weights = half(weights)
    temporary = build / "export"
    (temporary / NAME).mkdir(parents=True, exist_ok=True)
    save_file(weights, temporary / NAME / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(temporary / NAME / "tokenizer.json"))
    for name, value in [("config.json", model.CONFIG), ("tokenizer_config.json", tok.config()),
                        ("generation_config.json", GENERATION)]:
        (temporary / NAME / name).write_text(tok.dump(value), encoding="utf-8")
    write_gguf(temporary / Q8, weights, tokenizer, gguf.LlamaFileType.MOSTLY_Q8_0)
    write_gguf(temporary / Q4, weights, tokenizer, gguf.LlamaFileType.MOSTLY_Q4_K_S)
    (out / NAME).mkdir(exist_ok=True)
    paths = [p.relative_to(temporary) for p in sorted(temporary.rglob("*")) if p.is_file()]
    size = sum((temporary / p).stat().st_size for p in paths)
    if size > MOST_BYTES:
        raise ValueError(f"the files have {size} bytes together, more than {MOST_BYTES}: use smaller forms")
    sums = "".join(f"{hashlib.sha256((temporary / p).read_bytes()).hexdigest()}  {p}\n" for p in paths)
    for p in paths:
        os.chmod(temporary / p, 0o644)
        os.replace(temporary / p, out / p)
    (out / "SHA256SUMS").write_text(sums, encoding="utf-8")
    print(f"wrote {len(paths)} files, {size} bytes together")
    return paths
