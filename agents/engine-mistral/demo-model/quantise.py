"""Q4_K quantisation in numpy: the `gguf` package reads this form but does not write it.

A block of 256 values has eight groups of 32. A value is `d * scale * q - dmin * minimum` with a 4-bit `q`, 6-bit
`scale` and `minimum` of the group, and the half floats `d` and `dmin` of the block. 144 bytes a block.
"""

import numpy as np

BLOCK, GROUPS, GROUP = 256, 8, 32
# Trials of a group's scale; the one with the least squared error is kept.
TRIALS = np.linspace(0.80, 1.10, 13)


def group_fit(x):
    """Scale and minimum (>= 0, subtracted) of every group of `x` `[n, 32]` with the least squared error."""
    low = np.minimum(x.min(axis=1), 0.0)
    span = np.maximum(x.max(axis=1) - low, 1e-12)
    best_scale, best_low = span / 15.0, low
    best_error = np.full(len(x), np.inf)
    for trial in TRIALS:
        scale = span * trial / 15.0
        q = np.clip(np.rint((x - low[:, None]) / scale[:, None]), 0, 15)
        # The least-squares line through (q, x), with its offset held at or below zero.
        mean_q, mean_x = q.mean(axis=1), x.mean(axis=1)
        spread = ((q - mean_q[:, None]) ** 2).sum(axis=1)
        slope = ((q - mean_q[:, None]) * (x - mean_x[:, None])).sum(axis=1) / np.maximum(spread, 1e-12)
        offset = mean_x - slope * mean_q
        through_zero = (q * x).sum(axis=1) / np.maximum((q * q).sum(axis=1), 1e-12)
        positive = offset > 0
        slope, offset = np.where(positive, through_zero, slope), np.where(positive, 0.0, offset)
        usable = slope > 0
        slope, offset = np.where(usable, slope, scale), np.where(usable, offset, low)
        error = ((slope[:, None] * q + offset[:, None] - x) ** 2).sum(axis=1)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_scale, best_low = np.where(better, slope, best_scale), np.where(better, offset, best_low)
    return best_scale, -best_low


def six_bits(values):
    """Eight non-negative values a block as 6-bit integers times a half float: `(half, integers)`."""
    half = (values.max(axis=1) / 63.0).astype(np.float16)
    step = half.astype(np.float64)
    integers = np.where(step[:, None] > 0, np.rint(values / np.where(step > 0, step, 1.0)[:, None]), 0)
    return half, np.clip(integers, 0, 63).astype(np.uint8)


def q4_k(matrix):
    """`matrix` `[rows, columns]`, columns a multiple of 256, as rows of Q4_K bytes."""
    rows, columns = matrix.shape
    if columns % BLOCK:
        raise ValueError(f"Q4_K needs a multiple of {BLOCK} columns, not {columns}")
    x = matrix.astype(np.float64).reshape(-1, GROUP)
    scale, minimum = group_fit(x)
    d, scales = six_bits(scale.reshape(-1, GROUPS))
    dmin, minima = six_bits(minimum.reshape(-1, GROUPS))

    step = (d.astype(np.float64)[:, None] * scales).reshape(-1, 1)
    offset = (dmin.astype(np.float64)[:, None] * minima).reshape(-1, 1)
    q = np.where(step > 0, np.rint((x + offset) / np.where(step > 0, step, 1.0)), 0)
    q = np.clip(q, 0, 15).astype(np.uint8).reshape(-1, GROUPS // 2, 2, GROUP)

    packed = np.empty((len(d), 144), np.uint8)
    packed[:, 0:2] = d.view(np.uint8).reshape(-1, 2)
    packed[:, 2:4] = dmin.view(np.uint8).reshape(-1, 2)
    # Groups 0..3 lie in the low six bits of bytes 0..7; of groups 4..7 the low halves share bytes 8..11 and the
    # two high bits lie above the groups 0..3.
    packed[:, 4:8] = scales[:, :4] | ((scales[:, 4:] >> 4) << 6)
    packed[:, 8:12] = minima[:, :4] | ((minima[:, 4:] >> 4) << 6)
    packed[:, 12:16] = (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)
    packed[:, 16:] = (q[:, :, 0] | (q[:, :, 1] << 4)).reshape(len(d), 128)
    return packed.reshape(rows, columns // BLOCK * 144)
