#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Filtered search: kith's graphs and inverted lists beside hnswlib with its filter callback and FAISS with
IDSelectorBitmap, under filters that allow a share of the vectors, drawn at random or the ones around one vector.

    compare_filtered.py DIR... --build build --work work --hnswlib hnswlib-0.8.0 --out filtered.json

hnswlib is driven in C++ (hnswlib_filtered.cc, compiled here): --hnswlib names the folder that holds hnswlib/hnswlib.h, 0.7 or
later, as `pip download --no-deps --no-binary :all: hnswlib==0.8.0` brings it. Debian's 0.6.2 has no filters. "none": without.

For each filter every engine climbs its settings until --recall is reached. Then --rounds rounds measure those on both
sides of it, engine after engine, and kith at its default settings. One thread. A setting that is too slow for all
queries gets as many as fit into --point-seconds, and is measured once where even the fewest do not fit.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import compare_data
import compare_peers
from compare_kith import Kith
from compare_report import at_recall, machine_line, markdown, number

K = 10
EF = [10, 14, 20, 28, 40, 56, 80, 112, 160, 240, 360, 540, 800, 1600]
PROBES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024]
K_FACTORS = (2, 4, 8, 16)  # of kith's refinements; a ladder each
FEWEST = 20  # queries of the slowest settings
HERE = os.path.dirname(os.path.abspath(__file__))
# (kith's specs begin with, peer, least ratio)
PAIRS = [("HNSW", "hnswlib", 2), ("HNSW", "faiss-hnsw", 2), ("IVF", "faiss-ivf", 2)]


# ---- Filters ---------------------------------------------------------------------------------------------------------


def masks(data, shares, seed):
    """(kind, share, bool per vector)."""
    import numpy as np

    draw = np.random.default_rng(seed)
    base = data.base
    anchor = base[int(draw.integers(len(base)))]
    square = np.einsum("ij,ij->i", base, base) if data.metric == "l2" else 0
    orders = {"random": draw.permutation(len(base)), "clustered": np.argsort(square - 2 * (base @ anchor), kind="stable")}
    for share in shares:
        for kind, order in orders.items():
            mask = np.zeros(len(base), bool)
            mask[order[: max(K, round(share * len(base)))]] = True
            yield kind, share, mask


def truth_of(data, mask):
    """By FAISS's exact search among the allowed vectors."""
    import faiss
    import numpy as np

    allowed = np.flatnonzero(mask)
    faiss.omp_set_num_threads(os.cpu_count())
    metric = faiss.METRIC_L2 if data.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    found = faiss.knn(data.query, data.base[allowed], K, metric=metric)[1]
    faiss.omp_set_num_threads(1)
    return allowed[found]


def recall(truth, ids):
    import numpy as np

    return sum(np.intersect1d(found, true).size for found, true in zip(ids, truth)) / truth[: len(ids)].size


# ---- Engines: ladders of settings, restrict(mask), search(setting, count) -> seconds, ids -------------------------------


class KithFiltered:
    """One of kith's specs, whose settings {} are its defaults."""

    def __init__(self, spec, data, settings):
        self.kith, self.query = Kith(spec, settings, compare_peers.spec_of), data.query
        self.about = self.kith.build(data, settings["threads"])
        holder = argparse.Namespace(query=data.query)
        self.kith.ready(holder)
        self.query = holder.query
        main, values = ("ef", EF) if spec.startswith("HNSW") else ("nprobe", PROBES)
        factors = K_FACTORS if any("k_factor" in rung for rungs in self.kith.ladders for rung in rungs) else (None,)
        self.ladders = [[{**({"k_factor": factor} if factor else {}), main: value} for value in values] for factor in factors]

    def restrict(self, mask, path):
        del path
        self.kith.restrict(mask)

    def search(self, setting, count):
        self.kith.set(setting, 1)
        start = time.perf_counter()
        ids = self.kith.search(self.query[:count], K)
        return time.perf_counter() - start, ids


class FaissFiltered:
    def __init__(self, name, data, cache, threads):
        self.peer, self.query = compare_peers.make(name, {}), data.query
        self.about = index_of(self.peer, data, cache, threads)
        main, values = ("efSearch", EF) if name == "faiss-hnsw" else ("nprobe", [probes for probes in PROBES if probes <= self.peer.index.nlist])
        self.ladders = [[{main: value} for value in values]]

    def restrict(self, mask, path):
        import faiss
        import numpy as np

        del path
        self.bits = np.packbits(mask, bitorder="little")
        self.selector = faiss.IDSelectorBitmap(self.bits)

    def search(self, setting, count):
        import faiss

        kind = faiss.SearchParametersHNSW if "efSearch" in setting else faiss.SearchParametersIVF
        params = kind(sel=self.selector, **setting)
        start = time.perf_counter()
        ids = self.peer.index.search(self.query[:count], K, params=params)[1]
        return time.perf_counter() - start, ids


class HnswlibFiltered:
    """hnswlib_filtered, in a process of its own; the index comes from hnswlib's Python package, which writes the same file."""

    def __init__(self, program, data, cache, threads, folder):
        self.about = index_of(compare_peers.make("hnswlib", {}), data, cache, threads)
        self.out, queries = os.path.join(folder, "labels"), os.path.join(folder, "queries.f32")
        data.query.tofile(queries)
        command = [program, "l2" if data.metric == "l2" else "ip", str(data.base.shape[1]), str(K), cache, queries, self.out]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.reply()
        self.ladders = [[{"ef": value} for value in EF]]

    def reply(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"hnswlib_filtered ended with status {self.process.wait()}")
        return line.strip()

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.reply()

    def restrict(self, mask, path):
        del mask
        self.ask("filter " + path)

    def search(self, setting, count):
        import numpy as np

        seconds = float(self.ask(f"search {setting['ef']} {count}"))
        return seconds, np.fromfile(self.out, np.int64).reshape(count, K)


def index_of(peer, data, cache, threads):
    """Loads a peer's kept index, or builds it and keeps it, as compare.py does."""
    about_path = cache + ".json"
    if os.path.exists(about_path):
        peer.load(cache, data)
        with open(about_path, encoding="utf-8") as file:
            return json.load(file)
    about = {"rows": len(data.base), "dim": data.base.shape[1], **peer.build(data, threads)}
    peer.save(cache)
    with open(about_path, "w", encoding="utf-8") as file:
        json.dump(about, file)
    return about


def compile_hnswlib(include, folder):
    """The path of hnswlib_filtered; None where hnswlib is to be left out."""
    if include == "none":
        return None
    header = os.path.join(include, "hnswlib", "hnswlib.h")
    if not os.path.exists(header):
        raise SystemExit(f"{header}: not there; --hnswlib names the folder that hnswlib/hnswlib.h lies in, or none")
    with open(header, encoding="utf-8") as file:
        if "BaseFilterFunctor" not in file.read():
            raise SystemExit(f"{header}: this hnswlib has no filters, 0.7 is the first that has")
    program = os.path.join(folder, "hnswlib_filtered")
    command = [os.environ.get("CXX", "c++"), "-O3", "-march=native", "-std=c++17", "-I", include, os.path.join(HERE, "hnswlib_filtered.cc"), "-o", program]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return program


def engines_of(folder, data, program, scratch, args):
    name, work = os.path.basename(os.path.abspath(folder)), args.work or scratch
    threads = os.cpu_count()
    settings = {"build": args.build, "folder": folder, "scratch": scratch, "threads": threads, "kith_threads": []}
    for spec in args.kith.split(";"):
        yield spec, KithFiltered(spec, data, settings)
    for peer in ("faiss-hnsw", "faiss-ivf"):
        if peer in args.peers.split(","):
            yield peer, FaissFiltered(peer, data, os.path.join(work, f"{name}-{peer}.index"), threads)
    if program is not None and "hnswlib" in args.peers.split(","):
        yield "hnswlib", HnswlibFiltered(program, data, os.path.join(work, f"{name}-hnswlib.index"), threads, scratch)


# ---- Measuring -------------------------------------------------------------------------------------------------------


def measure_first(engine, setting, truth, point_seconds):
    """A point: its setting, how many queries it gets, recall and rate of the first time."""
    count = min(FEWEST, len(truth))
    seconds, ids = engine.search(setting, count)
    affordable = min(len(truth), int(point_seconds * count / max(seconds, 1e-9)))
    is_slow = affordable <= count < len(truth)
    if not is_slow:
        count = affordable
        seconds, ids = engine.search(setting, count)
    return {"setting": setting, "queries": count, "is_slow": is_slow, "recall": recall(truth, ids), "rates": [], "first": count / seconds}


def climb(engine, truth, args):
    """The points on both sides of --recall, of the two ladders that are fastest there; or the best ones where it is not reached."""
    found = []
    for rungs in engine.ladders:
        points = []
        for setting in rungs:
            points.append(measure_first(engine, setting, truth, args.point_seconds))
            if points[-1]["recall"] >= args.recall or points[-1]["is_slow"]:
                break
        rate = at_recall([(point["recall"], point["first"]) for point in points], args.recall)
        found.append((rate or 0, points[-1]["recall"], len(found), points[-2:]))
    found.sort(reverse=True, key=lambda one: one[:2])
    return [point for one in found[:2] if one[0] > 0 or one is found[0] for point in one[3]]


def measure_again(engine, point):
    if point["is_slow"]:
        point["rates"].append(point["first"])
        return
    seconds, _ = engine.search(point["setting"], point["queries"])
    point["rates"].append(point["queries"] / seconds)


def measure_filter(engines, kind, share, mask, data, scratch, args):
    import numpy as np

    truth, path, records = truth_of(data, mask), os.path.join(scratch, "mask"), {}
    np.packbits(mask, bitorder="little").tofile(path)
    for name, engine in engines.items():
        engine.restrict(mask, path)
        records[name] = {"points": climb(engine, truth, args)}
        if isinstance(engine, KithFiltered):
            records[name]["default"] = measure_first(engine, {}, truth, args.point_seconds)
    for _ in range(args.rounds):
        for name, engine in engines.items():
            for point in records[name]["points"] + [records[name][key] for key in ("default",) if key in records[name]]:
                measure_again(engine, point)
    return {"kind": kind, "share": share, "allowed": int(mask.sum()), "engines": records}


def measure_folder(folder, program, args):
    data = compare_data.DataSet(folder, args.queries, K)
    with tempfile.TemporaryDirectory() as scratch:
        engines = dict(engines_of(folder, data, program, scratch, args))
        filters = [measure_filter(engines, *one, data, scratch, args) for one in masks(data, args.shares, 7)]
    return {"data": data.name, "rows": len(data.base), "dim": data.base.shape[1], "metric": data.metric, "queries": len(data.query), "recall": args.recall,
            "rounds": args.rounds, "engines": {name: engine.about for name, engine in engines.items()}, "filters": filters}


# ---- The table -------------------------------------------------------------------------------------------------------


def rates_of(record, wanted):
    """Queries a second at a recall in each round, at the defaults where these are faster; None where it is not reached."""
    points = record["points"] + [record[key] for key in ("default",) if key in record]
    return [at_recall([(point["recall"], point["rates"][turn]) for point in points], wanted) for turn in range(len(points[0]["rates"]))]


def rate_text(record, wanted):
    rates = rates_of(record, wanted)
    if None not in rates:
        return number(statistics.median(rates), 0)
    best = max(record["points"], key=lambda point: point["recall"])
    return f"{best['recall']:.2f} at {number(statistics.median(best['rates']), 0)}"


def ratio_cell(own, peer, wanted, least):
    """The median of the rounds' own ratios. A peer that does not reach the recall counts with the rate of its best recall."""
    mine, theirs = rates_of(own, wanted), rates_of(peer, wanted)
    if None in mine:
        return "- **not reached**"
    best = max(peer["points"], key=lambda point: point["recall"])
    ratios = [a / (b or best["rates"][turn]) for turn, (a, b) in enumerate(zip(mine, theirs))]
    found = statistics.median(ratios)
    text = f"{'> ' if None in theirs else ''}{found:.{2 if found < 10 else 0}f}"
    return text + ("" if found >= least else " **not reached**")


def table_family(result, prefix):
    wanted, own = result["recall"], [name for name in result["engines"] if name.startswith(prefix)]
    pairs = [(peer, least) for start, peer, least in PAIRS if start == prefix and peer in result["engines"]]
    head = ["filter", "allowed"]
    for name in own:
        head += [f"kith {result['engines'][name]['spec']}, defaults: recall, QPS", f"QPS at {wanted:g}"]
    head += [f"{peer}, QPS at {wanted:g}" for peer, _ in pairs] + [f"{name} by {peer}, goal {least:g}" for name in own for peer, least in pairs]
    rows = []
    for one in result["filters"]:
        records, cells = one["engines"], [f"{one['kind']} {100 * one['share']:g}%", f"{one['allowed']:,}"]
        for name in own:
            default = records[name]["default"]
            mark = "" if default["recall"] >= 0.95 else " **not reached**"
            cells += [f"{default['recall']:.3f}{mark}, {number(statistics.median(default['rates']), 0)}", rate_text(records[name], wanted)]
        cells += [rate_text(records[peer], wanted) for peer, _ in pairs]
        rows.append(cells + [ratio_cell(records[name], records[peer], wanted, least) for name in own for peer, least in pairs])
    return markdown(head, rows) if own else ""


def table(content):
    parts = []
    for result in content["results"]:
        parts.append(f"**{result['data']}**, {result['rows']} x {result['dim']}, {result['metric']}, {result['queries']} queries, k = {K}, one thread; "
                     f"{machine_line(content['machine'])}; {result['rounds']} rounds")
        parts += [text for text in (table_family(result, prefix) for prefix in ("HNSW", "IVF")) if text]
    return "\n\n".join(parts)


def main():
    import compare

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a data folder, see README.md")
    parser.add_argument("--build", default="build", help="the build folder of kith")
    parser.add_argument("--kith", default="HNSW;IVF{lists},Flat", help="kith's specs, parted by ';'")
    parser.add_argument("--peers", default="hnswlib,faiss-hnsw,faiss-ivf")
    parser.add_argument("--hnswlib", default="/usr/include", help="the folder that holds hnswlib/hnswlib.h; none")
    parser.add_argument("--work", default="", help="a folder for the peers' indexes, which are kept")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--shares", type=lambda text: [float(word) for word in text.split(",")], default=[0.5, 0.1, 0.01, 0.001])
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--point-seconds", type=float, default=1)
    parser.add_argument("--out", default="", help="where the result goes, as JSON")
    args = parser.parse_args()
    compare_data.wake_openblas()
    content = {"kind": "filtered", "machine": compare.describe_machine(), "results": []}
    with tempfile.TemporaryDirectory() as scratch:
        program = compile_hnswlib(args.hnswlib, scratch) if "hnswlib" in args.peers else None
        for folder in args.folders:
            content["results"].append(measure_folder(folder, program, args))
            if args.out:
                with open(args.out, "w", encoding="utf-8") as file:
                    json.dump(content, file, indent=1)
            print(table({**content, "results": content["results"][-1:]}) + "\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
