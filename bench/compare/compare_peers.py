#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One other engine in a process of its own: builds its index, then answers requests, a line of JSON each.

Started by compare.py as: compare_peers.py PEER FOLDER QUERIES K BUILD_THREADS. First line out: what was built. Then, for
each line {"point": i, "threads": t, "single": 0 or n} in, one line out: seconds and recall of one batch, or seconds of n
queries handed over one at a time. A process each, because the engines bring OpenMP runtimes that clash.

A peer is a class: build(data, threads), `points` (names of its operating points), search(point, queries, k, threads).
"""
import json
import os
import sys
import time

from compare_data import DataSet

EF = [10, 20, 40, 80, 160, 320, 640]
PROBES = [1, 2, 4, 8, 16, 32, 64, 128]


class Faiss:
    """A FAISS factory string, and the parameters to try."""

    def __init__(self, spec, parameters=("",)):
        self.spec, self.parameters = spec, parameters
        self.points = list(parameters)

    def build(self, data, threads):
        import faiss

        self.faiss, self.space = faiss, faiss.ParameterSpace()
        lists = 1 << int(4 * len(data.base) ** 0.5).bit_length() - 1
        metric = faiss.METRIC_L2 if data.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        faiss.omp_set_num_threads(threads)
        self.index = faiss.index_factory(data.base.shape[1], self.spec.format(lists=lists), metric)
        self.index.train(data.base)
        self.index.add(data.base)
        level = os.environ.get("FAISS_SIMD_LEVEL") or faiss.SIMDConfig.get_level_name()
        return f"faiss-cpu {faiss.__version__} {self.index_name()} ({level})"

    def index_name(self):
        return self.spec.format(lists="*")

    def search(self, point, queries, k, threads):
        self.faiss.omp_set_num_threads(threads)
        if self.parameters[point]:
            self.space.set_index_parameters(self.index, self.parameters[point])
        return self.index.search(queries, k)[1]


class Hnswlib:
    points = [f"ef={ef}" for ef in EF]

    def build(self, data, threads):
        import hnswlib

        self.index = hnswlib.Index("l2" if data.metric == "l2" else "ip", data.base.shape[1])
        self.index.init_index(len(data.base), ef_construction=200, M=16)
        self.index.add_items(data.base, num_threads=threads)
        return "hnswlib M=16 efConstruction=200"

    def search(self, point, queries, k, threads):
        self.index.set_ef(max(EF[point], k))
        return self.index.knn_query(queries, k, num_threads=threads)[0]


class USearch:
    points = [f"ef={ef}" for ef in EF]

    def __init__(self, dtype):
        self.dtype = dtype

    def build(self, data, threads):
        import numpy as np
        from usearch import __version__ as version
        from usearch.index import Index

        metric = {"l2": "l2sq", "ip": "ip", "cosine": "cos"}[data.metric]
        self.index = Index(ndim=data.base.shape[1], metric=metric, dtype=self.dtype, connectivity=16, expansion_add=200)
        self.index.add(np.arange(len(data.base)), data.base, threads=threads)
        return f"usearch {version} {self.dtype} M=16 efConstruction=200"

    def search(self, point, queries, k, threads):
        self.index.expansion_search = max(EF[point], k)
        return self.index.search(queries, k, threads=threads).keys.reshape(len(queries), -1)


class USearchExact:
    points = [""]

    def build(self, data, threads):
        from usearch import __version__ as version
        from usearch.index import MetricKind

        del threads
        self.base = data.base
        self.metric = {"l2": MetricKind.L2sq, "ip": MetricKind.IP, "cosine": MetricKind.Cos}[data.metric]
        return f"usearch {version} exact"

    def search(self, point, queries, k, threads):
        from usearch.index import search

        del point
        return search(self.base, queries, k, self.metric, exact=True, threads=threads).keys.reshape(len(queries), -1)


class ScaNN:
    LEAVES = [(5, 50), (10, 50), (20, 100), (40, 150), (80, 250), (160, 400)]
    points = [f"leaves={leaves},reorder={reorder}" for leaves, reorder in LEAVES]

    def build(self, data, threads):
        import scann

        builder = scann.scann_ops_pybind.builder(data.base, data.k, "squared_l2" if data.metric == "l2" else "dot_product")
        builder = builder.set_n_training_threads(threads)
        builder = builder.tree(int(2 * len(data.base) ** 0.5), 10, training_sample_size=min(len(data.base), 250000))
        threshold = float("nan") if data.metric == "l2" else 0.2
        self.index = builder.score_ah(2, anisotropic_quantization_threshold=threshold).reorder(100).build()
        return "scann tree-AH"

    def search(self, point, queries, k, threads):
        leaves, reorder = self.LEAVES[point]
        call = self.index.search_batched if threads == 1 else self.index.search_batched_parallel
        return call(queries, final_num_neighbors=k, leaves_to_search=leaves, pre_reorder_num_neighbors=reorder)[0]


NPROBE = tuple(f"nprobe={probes}" for probes in PROBES)
PEERS = {
    "faiss-flat": lambda: Faiss("Flat"),
    "faiss-ivf": lambda: Faiss("IVF{lists},Flat", NPROBE),
    "faiss-ivfsq8": lambda: Faiss("IVF{lists},SQ8", NPROBE),
    "faiss-hnsw": lambda: Faiss("HNSW32,Flat", tuple(f"efSearch={ef}" for ef in EF)),
    "hnswlib": Hnswlib,
    "usearch": lambda: USearch("f32"),
    "usearch-f16": lambda: USearch("f16"),
    "usearch-exact": USearchExact,
    "scann": ScaNN,
}


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def answer(peer, data, request):
    threads, single = request["threads"], request["single"]
    start = time.perf_counter()
    if single:
        for number in range(single):
            row = number % len(data.query)
            peer.search(request["point"], data.query[row : row + 1], data.k, threads)
        return {"seconds": time.perf_counter() - start}
    ids = peer.search(request["point"], data.query, data.k, threads)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "recall": data.recall(ids)}


def main():
    name, folder, queries, k, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the engines print must not come among the replies

    def reply(content):
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    data, peer = DataSet(folder, queries, k), PEERS[name]()
    before, start = resident_bytes(), time.perf_counter()
    version = peer.build(data, threads)
    reply({"version": version, "points": peer.points, "build_seconds": time.perf_counter() - start,
           "memory_bytes": resident_bytes() - before, "rows": len(data.base), "dim": data.base.shape[1],
           "queries": len(data.query)})
    for line in sys.stdin:
        reply(answer(peer, data, json.loads(line)))


if __name__ == "__main__":
    main()
