#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Filtered search: kith's graphs and inverted lists beside FAISS's with IDSelectorBitmap and hnswlib with its filter
callback, at filters that allow a share of the vectors, drawn at random or the ones around one vector.

    compare_filtered.py DATA --kith build/tools/kith --out filtered.json

Prints, for each filter, the queries a second of each engine where its recall@10 reaches --recall (between two settings
by interpolation of the logarithm), and kith's recall and rate at its default settings. A round measures every engine once
at every setting; the best of --rounds counts. One thread.

hnswlib's Python interface calls a Python function for each node that it meets: its rates say what a user of that
interface gets, not what the C++ library could.
"""
import argparse
import json
import math
import os
import subprocess
import tempfile
import time

import numpy as np

import compare_data

K = 10
WIDTHS = [10, 16, 24, 40, 64, 100, 160, 250, 400, 800, 1600]  # ef
PROBES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


def masks(base, square, shares, seed):
    """(kind, share, bool per vector)."""
    draw = np.random.default_rng(seed)
    anchor = int(draw.integers(len(base)))
    orders = {"random": draw.permutation(len(base)),
              "clustered": np.argsort(square - 2 * base @ base[anchor], kind="stable")}
    for share in shares:
        for kind, order in orders.items():
            mask = np.zeros(len(base), bool)
            mask[order[:max(K, round(share * len(base)))]] = True
            yield kind, share, mask


def truth_of(base, square, queries, mask):
    allowed = np.flatnonzero(mask)
    rows, norms, found = base[allowed], square[allowed], []
    for first in range(0, len(queries), 256):
        distances = norms - 2 * queries[first:first + 256] @ rows.T
        found.append(allowed[np.argpartition(distances, K - 1, axis=1)[:, :K]])
    return np.concatenate(found)


def recall(truth, got):
    return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(truth, got)])) / K


class Kith:
    def __init__(self, name, spec, setting, args, folder, metric):
        self.name, self.setting, self.args, self.folder = name, setting, args, folder
        self.index = os.path.join(folder, name + ".kith")
        self.run("build", "--base", args.base_path, "--spec", spec, "--metric", metric, "--out", self.index)

    def run(self, *words):
        done = subprocess.run([self.args.kith, *words, "--threads", "1", "--json", "--quiet"], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout)

    def prepare(self, mask):
        np.packbits(mask, bitorder="little").tofile(os.path.join(self.folder, "mask"))

    def search(self, value):
        out = os.path.join(self.folder, "out.npy")
        words = ["search", "--index", self.index, "--map", "--query", self.args.query_path, "--k", str(K), "--out", out,
                 "--filter", "bits:" + os.path.join(self.folder, "mask")]
        if value is not None:
            words += ["--set", f"{self.setting}={value}"]
        return self.run(*words)["qps"], np.load(out)


class Faiss:
    """HNSW or inverted lists of float vectors, searched with an IDSelectorBitmap."""

    def __init__(self, name, index, params, setting, base, queries):
        self.name, self.index, self.params, self.setting, self.queries = name, index, params, setting, queries
        if not index.is_trained:
            index.train(base)
        index.add(base)

    def prepare(self, mask):
        import faiss
        self.selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))

    def search(self, value):
        params = self.params(sel=self.selector, **{self.setting: value})
        start = time.perf_counter()
        _, ids = self.index.search(self.queries, K, params=params)
        return len(self.queries) / (time.perf_counter() - start), ids


class Hnswlib:
    def __init__(self, space, base, queries):
        import hnswlib
        self.name, self.queries = "hnswlib", queries
        self.index = hnswlib.Index(space, base.shape[1])
        self.index.init_index(len(base), ef_construction=200, M=32)
        self.index.add_items(base)
        self.index.set_num_threads(1)

    def prepare(self, mask):
        allowed = mask.tolist()
        self.allow = lambda label: allowed[label]

    def search(self, value):
        self.index.set_ef(value)
        start = time.perf_counter()
        try:
            ids, _ = self.index.knn_query(self.queries, K, num_threads=1, filter=self.allow)
        except RuntimeError:  # fewer than k found
            return None
        return len(self.queries) / (time.perf_counter() - start), ids


def engines_of(args, base, queries, metric, folder):
    import faiss
    faiss.omp_set_num_threads(1)
    dim, lists = base.shape[1], args.lists or max(16, round(4 * math.sqrt(len(base))))
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    stored = ",u8" if args.stored == np.uint8 else ""
    yield Kith("kith-graph", args.spec or "HNSW32" + stored, "ef", args, folder, metric), WIDTHS
    yield Faiss("faiss-hnsw", faiss.IndexHNSWFlat(dim, 32, kind), faiss.SearchParametersHNSW, "efSearch", base, queries), WIDTHS
    if args.hnswlib:
        yield Hnswlib("l2" if metric == "l2" else "ip", base, queries), WIDTHS
    yield Kith("kith-ivf", f"IVF{lists},Flat" if args.exact_lists else f"IVF{lists},SQ8", "nprobe", args, folder, metric), PROBES
    quantiser = faiss.IndexFlat(dim, kind)
    lists_index = faiss.IndexIVFFlat(quantiser, dim, lists, kind) if args.exact_lists else \
        faiss.IndexIVFScalarQuantizer(quantiser, dim, lists, faiss.ScalarQuantizer.QT_8bit, kind)
    yield Faiss("faiss-ivf", lists_index, faiss.SearchParametersIVF, "nprobe", base, queries), [p for p in PROBES if p <= lists]


def measure(engine, settings, truth, args):
    """{setting: [recall, best rate]}, up to the first setting that reaches --recall by a margin."""
    points = {}
    for value in settings:
        best = None
        for _ in range(args.rounds):
            found = engine.search(value)
            if found is None:
                break
            if best is None or found[0] > best[0]:
                best = found
        if best is None:
            continue
        points[value] = [recall(truth, best[1]), best[0]]
        if points[value][0] >= min(1, args.recall + 0.02):
            break
    return points


def rate_at(points, wanted):
    """Queries a second where the recall is reached; None: nowhere."""
    ordered = sorted(points.values())
    above = [point for point in ordered if point[0] >= wanted]
    below = [point for point in ordered if point[0] < wanted]
    if not above:
        return None
    if not below:
        return max(rate for _, rate in above)
    (low, slow), (high, fast) = below[-1], above[0]
    part = (wanted - low) / (high - low)
    return math.exp(math.log(slow) + part * (math.log(fast) - math.log(slow)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a folder with base.*, query.* and meta.json")
    parser.add_argument("--kith", default="build/tools/kith")
    parser.add_argument("--rows", type=int, default=0, help="of the base; 0: all")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--shares", default="0.5,0.1,0.01,0.001")
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spec", default="", help="of kith's graph (default HNSW32 of the stored type)")
    parser.add_argument("--lists", type=int, default=0, help="default: 4 roots of the rows")
    parser.add_argument("--exact-lists", action="store_true", help="lists of floats instead of 8-bit codes")
    parser.add_argument("--no-hnswlib", dest="hnswlib", action="store_false")
    parser.add_argument("--out", default="")
    args = parser.parse_args()
    compare_data.wake_openblas()
    metric = compare_data.read_meta(args.data).get("metric", "l2")
    stored = compare_data.read(compare_data.find(args.data, "base"), args.rows)
    args.stored = stored.dtype
    base = np.ascontiguousarray(stored, np.float32)
    queries = np.ascontiguousarray(compare_data.read(compare_data.find(args.data, "query"), args.queries), np.float32)
    if metric == "cosine":
        base, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (base, queries))
    square = (base * base).sum(1) if metric == "l2" else np.zeros(len(base), np.float32)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        args.base_path, args.query_path = (os.path.join(folder, name) for name in ("base.npy", "query.npy"))
        np.save(args.base_path, stored if stored.dtype == np.uint8 else base)
        np.save(args.query_path, queries.astype(np.uint8) if stored.dtype == np.uint8 else queries)
        engines = list(engines_of(args, base, queries, metric, folder))
        shares = [float(share) for share in args.shares.split(",")]
        for kind, share, mask in masks(base, square, shares, 7):
            truth, row = truth_of(base, square, queries, mask), {"kind": kind, "share": share, "engines": {}}
            for engine, settings in engines:
                engine.prepare(mask)
                points = measure(engine, settings, truth, args)
                entry = {"points": points, "rate": rate_at(points, args.recall)}
                if isinstance(engine, Kith):
                    rate, ids = engine.search(None)
                    entry["default"] = [recall(truth, ids), rate]
                row["engines"][engine.name] = entry
                default = " default: recall %.3f %9.0f/s" % tuple(entry["default"]) if "default" in entry else ""
                print("%-9s %-6g %-10s %s%s" % (kind, share, engine.name, "%9.0f/s" % entry["rate"] if entry["rate"] else
                                               "  nowhere ", default), flush=True)
            results.append(row)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump({"data": os.path.basename(os.path.abspath(args.data)), "recall": args.recall, "rows": len(base),
                       "queries": len(queries), "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
