"""Training: AdamW with a cosine schedule on packed conversations, with checkpoints to go on from."""

import functools
import itertools
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

import data
import model

# Most steps see rows of short conversations; every LONG_EVERY-th one has rows over the whole context, so that
# positions up to the last one are trained. Both hold the same number of tokens.
SHORT_ROWS, SHORT = 8, 256
LONG_ROWS, LONG = 2, 1024
LONG_EVERY, LONG_TURNS = 16, (4, 18)

PEAK, LAST, WARM_UP = 3e-3, 1e-5, 60
BETA1, BETA2, EPSILON, DECAY, CLIP = 0.9, 0.98, 1e-8, 0.05, 1.0
CHECKPOINT_EVERY, PRINT_EVERY = 200, 50
HELD_OUT_BATCHES = 16


def pack(encoder, conversations, rows, length):
    """Batches of conversations laid one after the other into rows; what does not fit into a row is cut off."""
    def empty():
        return {
            "ids": np.zeros((rows, length), np.int32),
            "targets": np.zeros((rows, length), np.int32),
            "weights": np.zeros((rows, length), np.float32),
            "positions": np.zeros((rows, length), np.int32),
            "segments": np.full((rows, length), -1, np.int32),
        }

    batch, row, at, segment = empty(), 0, 0, 0
    for messages in conversations:
        ids, weights = encoder.encode(messages)
        if at and at + len(ids) > length:
            row, at = row + 1, 0
        if row == rows:
            yield batch
            batch, row, at, segment = empty(), 0, 0, 0
        ids, weights = ids[:length], weights[:length]
        n = len(ids)
        here = slice(at, at + n)
        batch["ids"][row, here] = ids
        batch["positions"][row, here] = np.arange(n)
        batch["segments"][row, here] = segment
        batch["targets"][row, at:at + n - 1] = ids[1:]
        batch["weights"][row, at:at + n - 1] = weights[1:]
        at, segment = at + n, segment + 1


def batches(encoder, seed):
    """Step `i` (from 0) and its batch, always the same for the same seed."""
    short = pack(encoder, data.stream(f"{seed}/short"), SHORT_ROWS, SHORT)
    long = pack(encoder, data.stream(f"{seed}/long", turns=LONG_TURNS), LONG_ROWS, LONG)
    for i in itertools.count():
        yield i, next(long if i % LONG_EVERY == LONG_EVERY - 1 else short)


def rate(step, steps):
    """The learning rate of a step."""
    warm = jnp.minimum(1.0, (step + 1) / WARM_UP)
    done = jnp.clip(step / steps, 0.0, 1.0)
    return warm * (LAST + (PEAK - LAST) * 0.5 * (1.0 + jnp.cos(jnp.pi * done)))


@functools.partial(jax.jit, static_argnums=4, donate_argnums=(0, 1))
def update(weights, moments, step, batch, steps):
    """One step of AdamW. `moments` is a pair of trees of the weights' shape."""
    value, slope = jax.value_and_grad(model.loss)(weights, batch)
    size = jnp.sqrt(sum(jnp.sum(g * g) for g in slope.values()))
    scale = jnp.minimum(1.0, CLIP / (size + 1e-6))
    lr, first, second = rate(step, steps), {}, {}
    out = {}
    for name, w in weights.items():
        g = slope[name] * scale
        first[name] = BETA1 * moments[0][name] + (1 - BETA1) * g
        second[name] = BETA2 * moments[1][name] + (1 - BETA2) * g * g
        m = first[name] / (1 - BETA1 ** (step + 1.0))
        v = second[name] / (1 - BETA2 ** (step + 1.0))
        decay = DECAY if w.ndim == 2 else 0.0
        out[name] = w - lr * (m / (jnp.sqrt(v) + EPSILON) + decay * w)
    return out, (first, second), value


def held_out_loss(weights, encoder, seed):
    """Mean loss over wordings that are never trained on, all tokens of the answers weighing the same."""
    source = pack(encoder, data.stream(f"{seed}/held out", held_out=True), SHORT_ROWS, SHORT)
    measure = jax.jit(model.loss)
    source = ({**batch, "weights": np.sign(batch["weights"])} for batch in source)
    return float(np.mean([measure(weights, batch) for batch in itertools.islice(source, HELD_OUT_BATCHES)]))


def save(path, weights, moments, step, seconds):
    """Writes a checkpoint, complete or not at all."""
    arrays = {f"w/{k}": v for k, v in weights.items()}
    arrays |= {f"m/{k}": v for k, v in moments[0].items()} | {f"v/{k}": v for k, v in moments[1].items()}
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, step=step, seconds=seconds, **{k: np.asarray(v) for k, v in arrays.items()})
    os.replace(partial, path)


def load(path):
    """`(weights, moments, next step, seconds so far)` of a checkpoint."""
    with np.load(path) as stored:
        part = {p: {k[2:]: jnp.asarray(stored[k]) for k in stored.files if k.startswith(p)} for p in ("w/", "m/", "v/")}
        return part["w/"], (part["m/"], part["v/"]), int(stored["step"]), float(stored["seconds"])


def train(encoder, seed, steps, checkpoint):
    """Trains for `steps`, going on from the checkpoint if there is one. Returns the weights and the seconds used."""
    if checkpoint.exists():
        weights, moments, begin, before = load(checkpoint)
        print(f"going on from step {begin} of {checkpoint}", flush=True)
    else:
        weights, begin, before = model.init(seed), 0, 0.0
        moments = tuple({k: jnp.zeros_like(v) for k, v in weights.items()} for _ in range(2))
    start, recent = time.monotonic(), []
    for step, batch in batches(encoder, seed):
        if step >= steps:
            break
        if step < begin:
            continue
        weights, moments, value = update(weights, moments, jnp.float32(step), batch, steps)
        recent.append(float(value))
        done, seconds = step + 1, before + time.monotonic() - start
        if done % PRINT_EVERY == 0 or done == steps:
            print(f"step {done}/{steps}  loss {np.mean(recent[-PRINT_EVERY:]):.4f}  {seconds:.0f} s", flush=True)
        if done % CHECKPOINT_EVERY == 0 or done == steps:
            save(checkpoint, weights, moments, done, seconds)
    return weights, before + time.monotonic() - start
