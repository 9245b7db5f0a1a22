#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes recall_golden.inc: what FAISS's own evaluation code says about made-up lists of neighbours.

Needs numpy and faiss-cpu. The lists come from integer formulas, which tests/test_measures.c repeats, so that nothing
but the values has to be kept. Values are hexadecimal floats: tests compare them to the last bit.

  intersection   faiss.contrib.evaluation.knn_intersection_measure
  recall_1       (I[:, :R] == gt[:, :1]).sum() / nq, the formula of FAISS's benchmarks
  range          faiss.contrib.evaluation.range_PR, both modes
  big_ann, distance, ties   the definitions of big-ann-benchmarks and ann-benchmarks (plotting/metrics.py of each),
                 and DiskANN's ties at the k-th distance, put into a few lines here: neither project is a package
"""
import os

import faiss
import numpy as np
from faiss.contrib.evaluation import knn_intersection_measure, range_PR

QUERIES, DEPTH, PRIME = 1000, 100, 10007
RANKS = [1, 2, 5, 10, 50, 100]


def mix(*numbers):
    """A hash of small integers to 64 bits."""
    x = 0
    for number in numbers:
        x = (x ^ number) + 0x9E3779B97F4A7C15 & 2**64 - 1
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & 2**64 - 1
        x = (x ^ x >> 27) * 0x94D049BB133111EB & 2**64 - 1
        x ^= x >> 31
    return x


def list_id(query, place):
    """Distinct for places below PRIME."""
    return (mix(1, query) + place * (1 + mix(2, query) % (PRIME - 1))) % PRIME


def truth_distance(query, place):
    """Rises, with ties: a multiple of 1/4."""
    return np.float32(place * (1 + mix(3, query) % 3) // 3 * 0.25)


def result_place(query, place):
    """Where the result at `place` stands in the truth; a quarter is not there."""
    return place + 1000 if mix(4, query, place) % 4 == 0 else place ^ mix(5, query) % 8


def result_distance(query, place):
    there = result_place(query, place)
    near = truth_distance(query, there) if there < DEPTH else truth_distance(query, place) + np.float32(0.125)
    return np.float32(near)


def table(of, dtype):
    return np.array([[of(query, place) for place in range(DEPTH)] for query in range(QUERIES)], dtype)


def ranges(stream, length):
    """Lists of differing lengths, some empty; odd places of the second kind are not in the first."""
    counts = [mix(stream, query) % length if mix(stream, query, 1) % 5 else 0 for query in range(QUERIES)]
    ids = [list_id(query, place + 1000 * (place % 2) * (stream - 10)) for query in range(QUERIES) for place in range(counts[query])]
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), np.array(ids, np.int64)


def recall_ties(ids, truth, distances, k):
    end = [int((row <= row[k - 1]).sum()) for row in distances]
    return sum(len(set(truth[q, :end[q]]) & set(ids[q, :k])) for q in range(QUERIES)) / (QUERIES * k)


def recall_big_ann(ids, truth, distances, k):
    recalls = np.zeros(QUERIES)
    for q in range(QUERIES):
        allowed = np.unique(distances[q])[:k]
        recalls[q] = len(set(truth[q, np.isin(distances[q], allowed)]) & set(ids[q, :k]))
    return np.mean(recalls) / float(k)


def recall_distance(found, distances, k, epsilon=1e-3):
    recalls = np.zeros(QUERIES)
    for q in range(QUERIES):
        recalls[q] = (np.sqrt(found[q, :k].astype(np.float64)) <= np.sqrt(np.float64(distances[q, k - 1])) + epsilon).sum()
    return np.mean(recalls) / float(k)


def main():
    truth, distances = table(list_id, np.int64), table(truth_distance, np.float32)
    result = table(lambda query, place: list_id(query, result_place(query, place)), np.int64)
    found = table(result_distance, np.float32)
    lines = ["/* SPDX-License-Identifier: Apache-2.0", " *",
             f" * Made by make_recall_golden.py with faiss {faiss.__version__}. Do not edit. */"]
    for rank in RANKS:
        values = [(result[:, :rank] == truth[:, :1]).sum() / float(QUERIES),
                  knn_intersection_measure(result[:, :rank], truth[:, :rank]),
                  recall_ties(result, truth, distances, rank), recall_big_ann(result, truth, distances, rank),
                  recall_distance(found, distances, rank)]
        lines.append(f"GOLDEN_RANK({rank}, {', '.join(float(v).hex() for v in values)})")
    truth_range, result_range = ranges(10, 40), ranges(11, 50)
    for mode in ("overall", "average"):
        precision, recall = range_PR(*truth_range, *result_range, mode=mode)
        lines.append(f"GOLDEN_RANGE({mode}, {float(precision).hex()}, {float(recall).hex()})")
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recall_golden.inc")
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
