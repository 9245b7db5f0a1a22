#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes sq_golden.inc: rows as FAISS's scalar quantisers decode them.

Needs numpy and faiss-cpu. Rows come from an integer formula, which tests/test_sq.c repeats, so that only decoded values
are kept, as hexadecimal floats: the test compares them to the last bit. The last rows reach beyond the trained ranges.
"""
import os

import faiss
import numpy as np

TRAIN, ROWS, DIM = 200, 8, 21
SQ = faiss.ScalarQuantizer
KINDS = [  # kith's name, FAISS's type, range and argument
    ("SQ8", SQ.QT_8bit, SQ.RS_minmax, 0), ("SQ6", SQ.QT_6bit, SQ.RS_minmax, 0), ("SQ4", SQ.QT_4bit, SQ.RS_minmax, 0),
    ("SQ8u", SQ.QT_8bit_uniform, SQ.RS_minmax, 0), ("SQ4u", SQ.QT_4bit_uniform, SQ.RS_minmax, 0),
    ("SQ8_quantile25", SQ.QT_8bit, SQ.RS_quantiles, 0.025), ("SQ4_quantile25", SQ.QT_4bit, SQ.RS_quantiles, 0.025),
    ("SQ4u_quantile25", SQ.QT_4bit_uniform, SQ.RS_quantiles, 0.025)]


def mix(*numbers):
    """A hash of small integers to 64 bits."""
    x = 0
    for number in numbers:
        x = (x ^ number) + 0x9E3779B97F4A7C15 & 2**64 - 1
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & 2**64 - 1
        x = (x ^ x >> 27) * 0x94D049BB133111EB & 2**64 - 1
        x ^= x >> 31
    return x


def value(row, d):
    """Exact in f32; dimension 5 is constant."""
    return 0.75 if d == 5 else (mix(row, d) % 20001 - 7000) / 1024 * (1 + d % 4)


def main():
    sample = np.array([[value(i, d) for d in range(DIM)] for i in range(TRAIN)], np.float32)
    rows = np.array([[value(TRAIN + i, d) * (3 if i >= ROWS - 2 else 1) for d in range(DIM)] for i in range(ROWS)], np.float32)
    lines = ["/* SPDX-License-Identifier: Apache-2.0", " *",
             f" * Made by make_sq_golden.py with faiss {faiss.__version__}. Do not edit. */"]
    for name, kind, ranges, argument in KINDS:
        index = faiss.IndexScalarQuantizer(DIM, kind)
        index.sq.rangestat, index.sq.rangestat_arg = ranges, argument
        index.train(sample)
        decoded = index.sa_decode(index.sa_encode(rows))
        lines.append(f"GOLDEN_SQ({name}, {', '.join(float(v).hex() for v in decoded.ravel())})")
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sq_golden.inc")
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
