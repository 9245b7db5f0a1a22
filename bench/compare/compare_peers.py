#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One engine in a process of its own: builds its index, then answers requests, a line of JSON each.

Started by compare.py as: compare_peers.py JSON, where JSON has peer, folder, queries, k, threads (of the build), build
(kith's build folder) and cache (a path that a built index may be kept under, or ""). First line out: what was built. Then,
for each line {"point": i, "threads": t, "single": 0 or n, "seconds": s} in, one line out: seconds and recall of a batch, the
mean of as many batches as take s seconds, or seconds, p50 and p99 of n queries handed over one at a time. A process each,
because the engines bring OpenMP runtimes that clash.

A build's seconds count for little while others use the processors: how many of them did, on average, is told as `disturbance`.

A peer is a class: `ladders` (lists of settings, each by rising effort), build(data, threads) -> what is to be told of the
index, set(setting, threads), search(queries, k) -> ids; save(path) and load(path, data) where the engine has them; ready(data), what comes
between the build and the searches; `imports`, the modules that it loads.
"""
import concurrent.futures
import ctypes
import importlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import time

from compare_data import DataSet
from compare_kith import Kith

EF = [10, 14, 20, 28, 40, 56, 80, 112, 160, 240, 360, 540, 800]
PROBES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]

LEAVES = [3, 5, 8, 10, 15, 20, 30, 45, 60, 90, 130, 200, 300, 450]


def ladder(name, values, **fixed):
    """Settings that differ in one parameter."""
    return [{**fixed, name: value} for value in values]


def list_count(rows):
    """Inverted lists: the power of two nearest to 4 sqrt(rows)."""
    root = 4 * rows**0.5
    power = 1 << int(root).bit_length() - 1
    return power if root * root < 2 * power * power else 2 * power


def spec_of(data, spec):
    """{lists}: inverted lists for so many rows; {half}, {quarter}: 4-bit PQ of two and four dimensions a part; {pq}: about 16 parts."""
    rows, dim = data.base.shape
    half = dim // 2 if dim % 4 == 0 else dim // 4
    quarter = dim // 4 if dim % 4 == 0 else dim // 8
    parts = next(count for count in (16, 20, 14, 12, 10, 8, 5, 4, 3, 2, 1) if dim % count == 0)
    return spec.format(lists=list_count(rows), half=half, quarter=quarter, pq=parts)


class Faiss:
    """A FAISS factory string; its search parameters, by kith's names, are those of the ladders."""

    imports = ("faiss",)
    NAMES = {"nprobe": "nprobe", "k_factor": "k_factor_rf", "ef": "efSearch"}

    def __init__(self, spec, ladders=({},)):
        self.spec, self.ladders = spec, [rungs if isinstance(rungs, list) else [rungs] for rungs in ladders]

    def start(self, threads):
        import faiss

        self.faiss, self.space = faiss, faiss.ParameterSpace()
        faiss.omp_set_num_threads(threads)
        level = os.environ.get("FAISS_SIMD_LEVEL") or faiss.SIMDConfig.get_level_name()
        return f"faiss-cpu {faiss.__version__} {self.spec} ({level})"

    def build(self, data, threads):
        self.spec = spec_of(data, self.spec)
        version = self.start(threads)
        metric = self.faiss.METRIC_L2 if data.metric == "l2" else self.faiss.METRIC_INNER_PRODUCT
        self.index = self.faiss.index_factory(data.base.shape[1], self.spec, metric)
        self.set_rounds()
        start = time.perf_counter()
        self.index.train(data.base)
        trained = time.perf_counter()
        self.index.add(data.base)
        return {"version": version, "train_seconds": trained - start, "add_seconds": time.perf_counter() - trained}

    def set_rounds(self):
        """An OPQ takes as many rounds as kith's: compare_builds.py."""
        if self.spec.startswith("OPQ"):
            opq = self.faiss.downcast_VectorTransform(self.faiss.downcast_index(self.index).chain.at(0))
            opq.niter, opq.niter_pq, opq.niter_pq_0 = 20, 1, 10

    def save(self, path):
        self.faiss.write_index(self.index, path)

    def load(self, path, data):
        del data
        self.start(1)
        self.index = self.faiss.read_index(path)

    def set(self, setting, threads):
        self.faiss.omp_set_num_threads(threads)
        text = ",".join(f"{self.NAMES[name]}={value}" for name, value in setting.items())
        if text:
            self.space.set_index_parameters(self.index, text)

    def search(self, queries, k):
        return self.index.search(queries, k)[1]


class Hnswlib:
    imports = ("hnswlib",)
    ladders = [ladder("ef", EF)]

    def build(self, data, threads):
        import hnswlib

        self.index = hnswlib.Index("l2" if data.metric == "l2" else "ip", data.base.shape[1])
        self.index.init_index(len(data.base), ef_construction=200, M=16)
        self.index.add_items(data.base, num_threads=threads)
        return {"version": "hnswlib M=16 efConstruction=200"}

    def save(self, path):
        self.index.save_index(path)

    def load(self, path, data):
        import hnswlib

        self.index = hnswlib.Index("l2" if data.metric == "l2" else "ip", data.base.shape[1])
        self.index.load_index(path)

    def set(self, setting, threads):
        self.index.set_ef(setting["ef"])
        self.threads = threads

    def search(self, queries, k):
        return self.index.knn_query(queries, k, num_threads=self.threads)[0]


class USearch:
    imports = ("usearch.index",)
    ladders = [ladder("ef", EF)]

    def __init__(self, dtype):
        self.dtype = dtype

    def build(self, data, threads):
        import numpy as np
        from usearch import __version__ as version
        from usearch.index import Index

        metric = {"l2": "l2sq", "ip": "ip", "cosine": "cos"}[data.metric]
        self.index = Index(ndim=data.base.shape[1], metric=metric, dtype=self.dtype, connectivity=16, expansion_add=200)
        self.index.add(np.arange(len(data.base)), data.base, threads=threads)
        return {"version": f"usearch {version} {self.dtype} M=16 efConstruction=200"}

    def set(self, setting, threads):
        self.index.expansion_search = setting["ef"]
        self.threads = threads

    def search(self, queries, k):
        return self.index.search(queries, k, threads=self.threads).keys.reshape(len(queries), -1)


class USearchExact:
    imports = ("usearch.index",)
    ladders = [[{}]]

    def build(self, data, threads):
        from usearch import __version__ as version
        from usearch.index import MetricKind

        del threads
        self.base = data.base
        self.metric = {"l2": MetricKind.L2sq, "ip": MetricKind.IP, "cosine": MetricKind.Cos}[data.metric]
        return {"version": f"usearch {version} exact"}

    def set(self, setting, threads):
        del setting
        self.threads = threads

    def search(self, queries, k):
        from usearch.index import search

        return search(self.base, queries, k, self.metric, exact=True, threads=self.threads).keys.reshape(len(queries), -1)


class ScaNN:
    """A tree of 2 sqrt(n) leaves, 4-bit codes of two dimensions each, exact reordering; anisotropic loss for inner product."""

    imports = ("scann",)
    ladders = [ladder("leaves", LEAVES, reorder=reorder) for reorder in (30, 60, 100, 200, 400)]

    def build(self, data, threads):
        import scann

        builder = scann.scann_ops_pybind.builder(data.base, data.k, "squared_l2" if data.metric == "l2" else "dot_product")
        builder = builder.set_n_training_threads(threads)
        builder = builder.tree(int(2 * len(data.base) ** 0.5), 10, training_sample_size=min(len(data.base), 250000))
        threshold = float("nan") if data.metric == "l2" else 0.2
        self.index = builder.score_ah(2, anisotropic_quantization_threshold=threshold).reorder(100).build()
        return {"version": f"scann {importlib.metadata.version('scann')} tree-AH"}

    def save(self, path):
        os.makedirs(path, exist_ok=True)
        self.index.serialize(path)

    def load(self, path, data):
        import scann

        del data
        self.index = scann.scann_ops_pybind.load_searcher(path)

    def set(self, setting, threads):
        self.setting = {"leaves_to_search": setting["leaves"], "pre_reorder_num_neighbors": setting["reorder"]}
        self.call = self.index.search_batched if threads == 1 else self.index.search_batched_parallel

    def search(self, queries, k):
        if len(queries) == 1:
            return self.index.search(queries[0], final_num_neighbors=k, **self.setting)[0][None]
        return self.call(queries, final_num_neighbors=k, **self.setting)[0]


class RabitqIvf:
    """IVF-RaBitQ by its authors; centroids from faiss.Kmeans, as their examples take them."""

    imports = ("faiss", "rabitqlib")
    ladders = [ladder("nprobe", PROBES)]

    def __init__(self, bits):
        self.bits = bits

    def build(self, data, threads):
        import faiss
        import numpy as np
        import rabitqlib

        faiss.omp_set_num_threads(threads)
        rows, dim = data.base.shape
        start = time.perf_counter()
        clusters = faiss.Kmeans(dim, list_count(rows), niter=10, spherical=data.metric != "l2")
        clusters.train(data.base)
        trained = time.perf_counter()
        lists = clusters.index.search(data.base, 1)[1].ravel().astype(np.uint32)
        self.index = rabitqlib.IvfIndex(dim, rows, list_count(rows), self.bits, "l2" if data.metric == "l2" else "ip")
        self.index.build(data.base, clusters.centroids, lists, threads)
        return {"version": f"rabitqlib IVF{list_count(rows)}, {self.bits} bits", "train_seconds": trained - start,
                "add_seconds": time.perf_counter() - trained}

    def save(self, path):
        self.index.save(path)

    def load(self, path, data):
        import rabitqlib

        del data
        self.index = rabitqlib.IvfIndex.load(path)

    def set(self, setting, threads):
        self.probes, self.threads = setting["nprobe"], threads

    def search(self, queries, k):
        return self.index.search(queries, k, self.probes, num_threads=self.threads)[0]


class SymphonyQG:
    imports = ("rabitqlib",)
    ladders = [ladder("ef", EF)]

    def build(self, data, threads):
        import rabitqlib

        self.index = rabitqlib.SymqgIndex(data.base.shape[1], 32, "l2" if data.metric == "l2" else "ip", 0)
        self.index.build(data.base, 200, threads)
        return {"version": "rabitqlib SymphonyQG R=32 L=200"}

    def save(self, path):
        self.index.save(path)

    def load(self, path, data):
        import rabitqlib

        del data
        self.index = rabitqlib.SymqgIndex.load(path)

    def set(self, setting, threads):
        self.ef, self.threads = setting["ef"], threads

    def search(self, queries, k):
        return self.index.search_batch(queries, k, self.ef, self.threads)[0]


class Glass:
    """HNSW built on 8-bit codes, walked on codes of 8 or 4 bits, the short list compared in f16. Not on PyPI: built from its
    public source (github.com/hhy3/pyglass) by `pip install --no-build-isolation ./python`, with pybind11 < 3."""

    imports = ("glass",)
    ladders = [ladder("ef", EF)]

    def __init__(self, quant):
        self.quant, self.scratch = quant, tempfile.TemporaryDirectory()

    def build(self, data, threads):
        import glass

        glass.set_num_threads(threads)
        start = time.perf_counter()
        graph = glass.Index("HNSW", self.metric(data), "SQ8U", 32, 200).build(data.base)
        self.links = os.path.join(self.scratch.name, "links")
        built = time.perf_counter() - start
        graph.save(self.links)  # the searcher takes the graph away
        start = time.perf_counter()
        self.encode(graph, data)
        return {"version": f"glass HNSW R=32 L=200 {self.quant} FP16", "build_seconds": built + time.perf_counter() - start}

    @staticmethod
    def metric(data):
        return "L2" if data.metric == "l2" else "IP"

    def encode(self, graph, data):
        import glass

        self.searcher = glass.Searcher(graph, data.base, self.metric(data), self.quant, "FP16")

    def ready(self, data):
        """Its own choice of how far ahead it prefetches, made as its examples make it; part of no build."""
        del data
        self.searcher.set_ef(64)
        self.searcher.optimize(1)

    def save(self, path):
        shutil.move(self.links, path)

    def load(self, path, data):
        import glass

        self.encode(glass.Graph(path, "glass"), data)

    def set(self, setting, threads):
        self.threads = threads
        self.searcher.set_ef(setting["ef"])

    def search(self, queries, k):
        if len(queries) == 1:
            return self.searcher.search(queries[0], k)[0][None]
        return self.searcher.batch_search(queries, k, self.threads)[0]


class SVS:
    """Vamana; primary and residual bits of LVQ, 0 for none."""

    imports = ("svs",)
    ladders = [ladder("ef", EF)]

    def __init__(self, primary, residual):
        self.primary, self.residual = primary, residual

    def build(self, data, threads):
        import svs

        parameters = svs.VamanaBuildParameters(graph_max_degree=64, window_size=128, alpha=1.2 if data.metric == "l2" else 0.95)
        with tempfile.TemporaryDirectory() as folder:
            rows = data.base
            if self.primary:
                path = os.path.join(folder, "base.fvecs")
                svs.write_vecs(rows, path)
                rows = svs.LVQLoader(svs.VectorDataLoader(path, svs.DataType.float32, dims=data.base.shape[1]),
                                     primary=self.primary, residual=self.residual, strategy=self.strategy())
            start = time.perf_counter()
            self.index = svs.Vamana.build(parameters, rows, self.metric(data), num_threads=threads)
            seconds = time.perf_counter() - start
        codes = f" LVQ{self.primary}x{self.residual}" if self.primary else ""
        return {"version": "svs Vamana R=64 L=128" + codes, "build_seconds": seconds}

    @staticmethod
    def metric(data):
        import svs

        return svs.DistanceType.L2 if data.metric == "l2" else svs.DistanceType.MIP

    def strategy(self):
        import svs

        return svs.LVQStrategy.Turbo if self.primary == 4 else svs.LVQStrategy.Auto

    def save(self, path):
        os.makedirs(path, exist_ok=True)
        self.index.save(*(os.path.join(path, part) for part in ("config", "graph", "data")))

    def load(self, path, data):
        import svs

        config, graph, rows = (os.path.join(path, part) for part in ("config", "graph", "data"))
        loader = svs.LVQLoader(rows, strategy=self.strategy()) if self.primary else svs.VectorDataLoader(rows)
        self.index = svs.Vamana(config, svs.GraphLoader(graph), loader, self.metric(data))

    def set(self, setting, threads):
        self.index.num_threads = threads
        self.index.search_window_size = setting["ef"]

    def search(self, queries, k):
        return self.index.search(queries, k)[0]


class VSAG:
    """HGraph on codes of 8 bits with exact vectors for the last word. It takes one query a call: a batch is a loop in Python, parted
    among threads, so that its rates hold a little of the interpreter's."""

    imports = ("pyvsag",)
    ladders = [ladder("ef", EF)]

    def make(self, data, threads):
        import pyvsag

        metric = "l2" if data.metric == "l2" else "ip"
        codes = {"base_quantization_type": "sq8_uniform", "use_reorder": True, "precise_quantization_type": "fp32"}
        self.index = pyvsag.Index("hgraph", json.dumps({
            "dtype": "float32", "metric_type": metric, "dim": data.base.shape[1],
            "index_param": {**codes, "max_degree": 32, "ef_construction": 200, "build_thread_count": threads}}))

    def build(self, data, threads):
        import numpy as np

        self.make(data, threads)
        rows, dim = data.base.shape
        self.index.build(data.base.ravel(), np.arange(rows, dtype=np.int64), rows, dim)
        return {"version": f"vsag {importlib.metadata.version('pyvsag')} HGraph R=32 L=200 sq8_uniform"}

    def save(self, path):
        self.index.save(path)

    def load(self, path, data):
        self.make(data, 1)
        self.index.load(path)

    def set(self, setting, threads):
        self.parameters = json.dumps({"hgraph": {"ef_search": setting["ef"]}})
        self.threads = threads

    def search(self, queries, k):
        import numpy as np

        def some(part):
            return [self.index.knn_search(query, k, self.parameters)[0] for query in part]

        if self.threads == 1 or len(queries) == 1:
            return np.array(some(queries))
        with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            return np.concatenate(list(pool.map(some, np.array_split(queries, self.threads))))


def refined(*factors):
    return [ladder("nprobe", PROBES, k_factor=factor) for factor in factors]


NPROBE = [ladder("nprobe", PROBES)]
PEERS = {
    "faiss-flat": lambda: Faiss("Flat"),
    "faiss-ivf": lambda: Faiss("IVF{lists},Flat", NPROBE),
    "faiss-ivfsq8": lambda: Faiss("IVF{lists},SQ8", NPROBE),
    "faiss-ivfpq": lambda: Faiss("IVF{lists},PQ{pq}", NPROBE),
    "faiss-ivfpqfs": lambda: Faiss("IVF{lists},PQ{half}x4fs,RFlat", refined(2, 4, 8, 16, 64)),
    "faiss-ivfpqfs4": lambda: Faiss("IVF{lists},PQ{quarter}x4fs,RFlat", refined(4, 8, 16, 32, 64)),
    "faiss-ivfrabitq": lambda: Faiss("IVF{lists},RaBitQfs4,RFlat", refined(1, 2, 4, 8)),
    "faiss-ivfrabitq1": lambda: Faiss("IVF{lists},RaBitQfs,RFlat", refined(4, 8, 16, 64)),
    "faiss-hnsw": lambda: Faiss("HNSW32,Flat", [ladder("ef", EF)]),
    "faiss-hnswsq8": lambda: Faiss("HNSW32,SQ8,RFlat", [ladder("ef", EF, k_factor=4)]),
    "hnswlib": Hnswlib,
    "usearch": lambda: USearch("f32"),
    "usearch-f16": lambda: USearch("f16"),
    "usearch-exact": USearchExact,
    "scann": ScaNN,
    "glass-sq4": lambda: Glass("SQ4U"),
    "glass-sq8": lambda: Glass("SQ8U"),
    "rabitq-ivf": lambda: RabitqIvf(7),
    "rabitq-ivf4": lambda: RabitqIvf(4),
    "rabitq-ivfraw": lambda: RabitqIvf(32),
    "symqg": SymphonyQG,
    "svs": lambda: SVS(0, 0),
    "svs-lvq8": lambda: SVS(8, 0),
    "svs-lvq4x8": lambda: SVS(4, 8),
    "vsag": VSAG,
}


def make(name, settings):
    """A peer by its name, kith=SPEC, or faiss=FACTORY STRING with nprobe as its parameter."""
    if name.startswith("kith="):
        return Kith(name[5:], settings, spec_of)
    if name.startswith("faiss="):
        return Faiss(name[6:], NPROBE)
    if name not in PEERS:
        raise SystemExit(f"{name}: not one of {', '.join(PEERS)}, kith=SPEC, faiss=SPEC")
    return PEERS[name]()


def resident_bytes():
    """What this process has in memory, after what it freed went back to the system."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Witness:
    """How many processors others used meanwhile, on average."""

    def __init__(self):
        self.began, self.busy, self.own = time.perf_counter(), self.busy_seconds(), self.own_seconds()

    @staticmethod
    def busy_seconds():
        try:
            with open("/proc/stat", encoding="ascii") as file:
                ticks = [int(word) for word in file.readline().split()[1:9]]
        except OSError:
            return None
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for a disk

    @staticmethod
    def own_seconds():
        return sum(os.times()[:4])

    def disturbance(self):
        if self.busy is None:
            return None
        others = self.busy_seconds() - self.busy - (self.own_seconds() - self.own)
        return round(max(0.0, others / (time.perf_counter() - self.began)), 3)


def build(peer, data, settings):
    """Builds the index, or takes the kept one, and tells what is to be known of it. The base goes from our hands."""
    cache, about = settings.get("cache", ""), None
    rows, dim = data.base.shape
    if cache and os.path.exists(cache + ".json"):
        with open(cache + ".json", encoding="utf-8") as file:
            about = json.load(file)
        peer.load(cache, data)
    else:
        for module in getattr(peer, "imports", ()):
            importlib.import_module(module)  # its own memory is not the index's
        before, start, witness = resident_bytes(), time.perf_counter(), Witness()
        about = {"rows": rows, "dim": dim, **peer.build(data, settings["threads"])}
        about.setdefault("build_seconds", time.perf_counter() - start)
        about.setdefault("disturbance", witness.disturbance())
        about.setdefault("memory_bytes", resident_bytes() - before)
        if cache and hasattr(peer, "save"):
            peer.save(cache)
            with open(cache + ".json", "w", encoding="utf-8") as file:
                json.dump(about, file)
    if hasattr(peer, "ready"):
        peer.ready(data)
    data.base = None
    points, ladders = [], []
    for rungs in peer.ladders:
        ladders.append(list(range(len(points), len(points) + len(rungs))))
        points += rungs
    names = [",".join(f"{name}={value}" for name, value in point.items()) for point in points]
    return points, {**about, "queries": len(data.query), "points": names, "ladders": ladders}


def percentile(ordered, share):
    """Nearest rank."""
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def answer(peer, data, points, request):
    threads, single = request["threads"], request["single"]
    peer.set(points[request["point"]], threads)
    if single:
        seconds = []
        for number in range(single):
            query = data.query[number % len(data.query)][None]
            start = time.perf_counter()
            peer.search(query, data.k)
            seconds.append(time.perf_counter() - start)
        total = sum(seconds)
        seconds.sort()
        return {"seconds": total, "p50": percentile(seconds, 50), "p99": percentile(seconds, 99)}
    batches, start = 0, time.perf_counter()
    while batches == 0 or seconds < request["seconds"]:
        ids = peer.search(data.query, data.k)
        seconds = time.perf_counter() - start
        batches += 1
    return {"seconds": seconds / batches, "recall": data.recall(ids)}


def main():
    settings = json.loads(sys.argv[1])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the engines print must not come among the replies

    def reply(content):
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    data = DataSet(settings["folder"], settings["queries"], settings["k"])
    peer = make(settings["peer"], settings)
    points, about = build(peer, data, settings)
    reply(about)
    for line in sys.stdin:
        reply(answer(peer, data, points, json.loads(line)))


if __name__ == "__main__":
    main()
