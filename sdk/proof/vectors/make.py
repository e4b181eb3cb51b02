#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Writes noise.json: the sampling noise and the contrasted pairs computed a second time, with nothing but Python.

ChaCha8 in Bernstein's form (64-bit block counter from 0, 64-bit nonce), as proof.md uses it, and
-ln(-ln(u)) in 50 decimal digits. Run it in this folder: ./make.py > noise.json
"""
import decimal
import json
import struct

decimal.getcontext().prec = 60
D = decimal.Decimal
MASK = 0xFFFFFFFF


def quarter(s, a, b, c, d):
    for x, y, z, r in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = (s[x] + s[y]) & MASK
        v = s[z] ^ s[x]
        s[z] = ((v << r) | (v >> (32 - r))) & MASK


def block(key, nonce, counter):
    head = struct.unpack("<4I", b"expand 32-byte k")
    tail = struct.unpack("<4I", struct.pack("<QQ", counter, nonce))
    start = list(head + struct.unpack("<8I", key) + tail)
    s = list(start)
    for _ in range(4):
        for q in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
            quarter(s, *q)
        for q in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            quarter(s, *q)
    return struct.pack("<16I", *((x + y) & MASK for x, y in zip(s, start)))


def word(key, step, token):
    stream = block(key, step, token // 8)
    return struct.unpack_from("<Q", stream, (token % 8) * 8)[0]


def gumbel(w):
    u = (D(w >> 11) + D("0.5")) / D(2**53)
    return -(-u.ln()).ln()


def rows():
    for seed in (bytes(32), bytes(range(32)), bytes([0xA5] * 32)):
        for step in (1, 2, 65536, 2**32 + 5):
            for token in (0, 1, 7, 8, 31, 32, 33, 1000, 151935):
                w = word(seed, step, token)
                yield {
                    "seed": "0x" + seed.hex(),
                    "step": step,
                    "token": token,
                    "word": f"0x{w:016x}",
                    "noise": f"{gumbel(w):.20f}",
                }


def extremes():
    for w in (0, 1 << 11, (2**52 - 1) << 11, 2**52 << 11, (2**53 - 2) << 11, (2**53 - 1) << 11):
        yield {"word": f"0x{w:016x}", "noise": f"{gumbel(w):.20f}"}


def pairs():
    for seed in (bytes(32), bytes(range(32))):
        for step in (1, 2, 65536):
            for vocabulary in (2, 3, 512, 151669, 2**21):
                words = (word(seed, step, n) * vocabulary >> 64 for n in range(1000))
                found = []
                while len(found) < 4:
                    a = next(words)
                    found.append([a, next(b for b in words if b != a)])
                yield {"seed": "0x" + seed.hex(), "step": step, "vocabulary": vocabulary, "pairs": found}


print(json.dumps({"noise": list(rows()), "words": list(extremes()), "pairs": list(pairs())}, indent=1))
