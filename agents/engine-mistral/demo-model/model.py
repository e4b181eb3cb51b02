"""The model in jax: a Llama (RMSNorm, rotary positions, grouped key/value heads, SwiGLU, tied embeddings), in f32."""

import jax
import jax.numpy as jnp
import numpy as np

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "max_position_embeddings": 1024,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": 1024,
}

HIDDEN, FEED = CONFIG["hidden_size"], CONFIG["intermediate_size"]
HEADS, KV_HEADS, HEAD = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"], CONFIG["head_dim"]
LAYERS = CONFIG["num_hidden_layers"]


def shapes():
    """Names (as in the safetensors file) and shapes `[out, in]` of all weights."""
    out = {"model.embed_tokens.weight": (CONFIG["vocab_size"], HIDDEN), "model.norm.weight": (HIDDEN,)}
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        out |= {
            at + "input_layernorm.weight": (HIDDEN,),
            at + "post_attention_layernorm.weight": (HIDDEN,),
            at + "self_attn.q_proj.weight": (HEADS * HEAD, HIDDEN),
            at + "self_attn.k_proj.weight": (KV_HEADS * HEAD, HIDDEN),
            at + "self_attn.v_proj.weight": (KV_HEADS * HEAD, HIDDEN),
            at + "self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD),
            at + "mlp.gate_proj.weight": (FEED, HIDDEN),
            at + "mlp.up_proj.weight": (FEED, HIDDEN),
            at + "mlp.down_proj.weight": (HIDDEN, FEED),
        }
    return out


def parameter_count():
    return sum(int(np.prod(shape)) for shape in shapes().values())


def init(seed):
    """Seeded weights: norms at one, matrices normal with the usual deviations (less for those that write back)."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in sorted(shapes().items()):
        if len(shape) == 1:
            weights[name] = jnp.ones(shape, jnp.float32)
            continue
        if "embed" in name:
            deviation = 0.02
        else:
            deviation = shape[1] ** -0.5
            if "o_proj" in name or "down_proj" in name:
                deviation /= (2 * LAYERS) ** 0.5
        weights[name] = jnp.asarray(rng.normal(0.0, deviation, shape), jnp.float32)
    return weights


def norm(x, weight):
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + CONFIG["rms_norm_eps"]) * weight


def rotary(positions):
    """Cosines and sines `[B, T, 1, HEAD / 2]` of the positions `[B, T]`."""
    frequencies = CONFIG["rope_theta"] ** (-jnp.arange(0, HEAD, 2, dtype=jnp.float32) / HEAD)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x, cos, sin):
    """Rotates the first half of a head against the second (the layout of the safetensors form)."""
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def forward(weights, ids, positions, segments):
    """Logits `[B, T, vocabulary]`. A token sees the earlier ones of its own segment; all arguments are `[B, T]`."""
    b, t = ids.shape
    x = weights["model.embed_tokens.weight"][ids]
    cos, sin = rotary(positions)
    causal = jnp.tril(jnp.ones((t, t), bool))
    mask = (causal[None] & (segments[:, :, None] == segments[:, None, :]))[:, None, None]
    for i in range(LAYERS):
        w = {name.rsplit(".", 2)[1]: value for name, value in weights.items() if name.startswith(f"model.layers.{i}.")}
        h = norm(x, w["input_layernorm"])
        q = rotate((h @ w["q_proj"].T).reshape(b, t, HEADS, HEAD), cos, sin)
        k = rotate((h @ w["k_proj"].T).reshape(b, t, KV_HEADS, HEAD), cos, sin)
        v = (h @ w["v_proj"].T).reshape(b, t, KV_HEADS, HEAD)
        q = q.reshape(b, t, KV_HEADS, HEADS // KV_HEADS, HEAD)
        scores = jnp.einsum("btkgd,bskd->bkgts", q, k) * HEAD**-0.5
        shares = jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=-1)
        y = jnp.einsum("bkgts,bskd->btkgd", shares, v).reshape(b, t, HEADS * HEAD)
        x = x + y @ w["o_proj"].T
        h = norm(x, w["post_attention_layernorm"])
        x = x + (jax.nn.silu(h @ w["gate_proj"].T) * (h @ w["up_proj"].T)) @ w["down_proj"].T
    return norm(x, weights["model.norm.weight"]) @ weights["model.embed_tokens.weight"].T


def loss(weights, batch):
    """Mean cross entropy (nats) over the tokens of the batch, by their weights."""
    logits = forward(weights, batch["ids"], batch["positions"], batch["segments"])
    chosen = jnp.take_along_axis(logits, batch["targets"][..., None], axis=-1)[..., 0]
    nats = jax.scipy.special.logsumexp(logits, axis=-1) - chosen
    return jnp.sum(nats * batch["weights"]) / jnp.maximum(jnp.sum(batch["weights"]), 1.0)
