#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs kith and other engines on the same data, interleaved, and reports medians and ratios.

  compare.py prepare fashion-mnist DIR    Fashion-MNIST from the Debian package dataset-fashion-mnist
  compare.py prepare DIR                  ground truth for a folder that has base.* and query.* alone
  compare.py verify DIR...                kith's exact search against the folder's own gt.*
  compare.py exact DIR... --out F.json    batch and single-query exact search: kith, OpenBLAS's sgemm, FAISS
  compare.py kmeans DIR... --out F.json   k-means: kith and faiss.Kmeans from the same initial rows
  compare.py run DIR --out F.json         operating points: recall and QPS of kith and of the peers
  compare.py ivf DIR... --out F.json      inverted files and their rivals: rates at recall .90, .95, .99, single queries
  compare.py builds DIR... --out F.json   training and adding alone: inverted files of kith, FAISS and ScaNN
  compare.py graph DIR... --out F.json    graphs and their rivals, in the same way
  compare.py table F.json...              the tables as Markdown
  compare.py plot F.json... --out F.svg   the figure (matplotlib)

README.md has the details. The kith command and bench_exact are taken from --build (default: ./build).
"""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import compare_builds
import compare_data
import compare_kmeans
import compare_pairs
import compare_report
import compare_study

HERE = os.path.dirname(os.path.abspath(__file__))
KITH_SPECS = {"kith-flat": ("Flat,f32", ""), "kith-flat-f16": ("Flat,f16", ""), "kith-flat-u8": ("Flat,u8", "")}


# ---- The machine and the programs ------------------------------------------------------------------------------------


def describe_machine():
    fields = {}
    for line in subprocess.run(["lscpu"], capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout.splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    flags = set(fields.get("Flags", "").split())
    shown = ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "asimddp", "fphp"]
    return {"cpu": fields.get("Model name", platform.machine()), "processors": os.cpu_count(),
            "caches": {name: fields[name] for name in ("L1d cache", "L2 cache", "L3 cache") if name in fields},
            "flags": [flag for flag in shown if flag in flags], "kernel": platform.release(),
            "KITH_ISA": os.environ.get("KITH_ISA", ""), "FAISS_SIMD_LEVEL": os.environ.get("FAISS_SIMD_LEVEL", ""),
            "OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE", ""),
            "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0]}


class Programs:
    def __init__(self, build):
        self.kith = self.find(build, "tools/kith", "kith")
        self.bench_exact = self.find(build, "bench/bench_exact", "bench_exact")

    @staticmethod
    def find(build, inside, name):
        path = os.path.join(build, inside)
        return path if os.path.exists(path) else shutil.which(name)

    def run_kith(self, *words):
        if self.kith is None:
            raise SystemExit("the command kith was not found; build it, or give --build")
        done = subprocess.run([self.kith, *map(str, words)], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"kith {words[0]}: {done.stderr.strip()}")
        return json.loads(done.stdout) if "--json" in words else done.stdout


def folder_file(folder, part):
    path = compare_data.find(folder, part)
    if path is None:
        raise SystemExit(f"{folder}: no {part}.* of a known format")
    return path


# ---- Engines that answer one measurement at a time -------------------------------------------------------------------


class KithEngine:
    """An index file and `kith sweep`, a process for each measurement; times are taken inside it."""

    def __init__(self, programs, name, folder, args, scratch):
        spec, grid = KITH_SPECS[name]
        self.programs, self.args = programs, args
        self.index = os.path.join(scratch, name + ".kith")
        meta = compare_data.read_meta(folder)
        self.query = first_rows(folder, "query", args.queries, scratch)
        self.truth = first_rows(folder, "gt", args.queries, scratch)
        start = time.perf_counter()
        programs.run_kith("build", "--spec", spec, "--metric", meta["metric"], "--base", folder_file(folder, "base"),
                          "--out", self.index, "--quiet", "--json")
        self.points = [grid]
        self.about = {"version": f"kith {spec}", "build_seconds": time.perf_counter() - start}

    def measure(self, point, threads):
        setting = ["--set", self.points[point]] if self.points[point] else []
        found = self.programs.run_kith("sweep", "--index", self.index, "--query", self.query, "--gt", self.truth,
                                       "--k", self.args.k, "--ranks", self.args.k, "--threads", max(threads),
                                       "--repeats", 1, "--warmup", 1, "--latency-queries", 200, "--json", "--quiet", *setting)
        row = found["points"][0]
        self.about.update(rows=found["count"], dim=found["dim"], queries=found["query_count"], memory_bytes=found["memory_bytes"])
        return row["recall"], {count: row["qps_1" if count == 1 else "qps_n"] for count in threads}

    def close(self):
        os.remove(self.index)


class PeerEngine:
    """compare_peers.py, which stays alive and waits between measurements."""

    def __init__(self, name, folder, args, cache=""):
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        self.name, self.scratch = name, tempfile.TemporaryDirectory()
        settings = {"peer": name, "folder": folder, "queries": args.queries, "k": args.k, "threads": max(args.threads), "build": args.build,
                    "cache": cache, "scratch": self.scratch.name,
                    "kith_threads": args.threads if args.command in compare_study.KINDS and compare_study.KINDS[args.command].one_thread_too else []}
        command = [sys.executable, os.path.join(HERE, "compare_peers.py"), json.dumps(settings)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.about = self.read()
        self.points, self.ladders = self.about.pop("points"), self.about.pop("ladders")

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self.process.wait()}")
        return json.loads(line)

    def ask(self, point, threads, single=0, seconds=0):
        """One batch, or as many as take so many seconds; or `single` queries one by one."""
        self.process.stdin.write(json.dumps({"point": point, "threads": threads, "single": single, "seconds": seconds}) + "\n")
        self.process.stdin.flush()
        return self.read()

    def measure(self, point, threads):
        recall, qps = None, {}
        for count in threads:
            reply = self.ask(point, count)
            recall, qps[count] = reply["recall"], self.about["queries"] / reply["seconds"]
        return recall, qps

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.scratch.cleanup()


def first_rows(folder, part, count, scratch):
    """A file of the first `count` rows (all for 0), written in the scratch folder where the file has more."""
    path = folder_file(folder, part)
    rows = compare_data.read(path)
    if count == 0 or len(rows) <= count:
        return path
    import numpy as np

    short = os.path.join(scratch, part + ".npy")
    np.save(short, np.ascontiguousarray(rows[:count]))
    return short


# ---- Commands --------------------------------------------------------------------------------------------------------


def prepare(args, programs):
    words = list(args.folders)
    if words[0] == "fashion-mnist":
        words.pop(0)
        if len(words) != 1:
            raise SystemExit("usage: compare.py prepare fashion-mnist DIR")
        compare_data.prepare_fashion(words[0])
    for folder in words:
        meta = compare_data.read_meta(folder)
        if compare_data.find(folder, "gt") is None:
            report = programs.run_kith("gt", "--base", folder_file(folder, "base"), "--query", folder_file(folder, "query"),
                                       "--metric", meta["metric"], "--k", 100, "--out", os.path.join(folder, "gt.ivecs"),
                                       "--distances", os.path.join(folder, "gt-distances.fvecs"), "--quiet", "--json")
            print(json.dumps(report))


def verify(args, programs):
    """Recall of kith's ground truth by that of the folder: plain, and by distance, so that ties and last digits pass."""
    failed = 0
    for folder in args.folders:
        meta = compare_data.read_meta(folder)
        with tempfile.TemporaryDirectory() as scratch:
            query = first_rows(folder, "query", args.queries, scratch)
            truth = first_rows(folder, "gt", args.queries, scratch)
            depth = compare_data.read(truth).shape[1]
            own = os.path.join(scratch, "kith.npy")
            base = folder_file(folder, "base")
            report = programs.run_kith("gt", "--base", base, "--query", query, "--metric", meta["metric"], "--k", depth,
                                       "--out", own, "--quiet", "--json")
            found = programs.run_kith("eval", "--result", own, "--gt", truth, "--base", base, "--query", query,
                                      "--metric", meta["metric"], "--json", "--quiet")
        deepest = found["measures"][-1]
        exact_enough = deepest["recall_distance"] == 1.0 and deepest["intersection"] > 0.999
        failed += not exact_enough
        measures = ", ".join(f"recall@{one['rank']} {one['intersection']:.6f} (ties {one['recall_distance']:.6f})" for one in found["measures"])
        print(f"{meta['name']}: {measures}; {report['seconds']:.1f} s, {report['scratch_bytes_peak'] / 2**20:.0f} MiB of scratch memory: "
              f"{'as it should be' if exact_enough else 'NOT EXACT'}")
    return 1 if failed else 0


def exact(args, programs):
    """One bench_exact per round, then FAISS on the same queries; every round gives its own ratios."""
    results = []
    for folder in args.folders:
        meta = compare_data.read_meta(folder)
        faiss = PeerEngine("faiss-flat", folder, args) if args.peers != "none" else None
        with tempfile.TemporaryDirectory() as scratch:
            rounds = [exact_round(args, programs, folder, meta, faiss, os.path.join(scratch, "bench.json")) for _ in range(args.rounds)]
        if faiss is not None:
            faiss.close()
        results.append({"data": meta["name"], "metric": meta["metric"], "k": args.k,
                        "faiss": faiss.about["version"] if faiss else None, "rounds": rounds})
        write(args, {"kind": "exact", "machine": describe_machine(), "results": results})


def exact_round(args, programs, folder, meta, faiss, path):
    subprocess.run([programs.bench_exact, "--data", folder, "--rows", "0", "--metric", meta["metric"], "--queries", str(args.queries),
                    "--k", str(args.k), "--types", args.types, "--threads", ",".join(map(str, args.threads)),
                    "--repeats", "1", "--singles", str(args.singles), "--json", path], stdout=subprocess.DEVNULL, check=True)
    with open(path, encoding="utf-8") as file:
        measured = json.load(file)
    peers = []
    for threads in args.threads if faiss is not None else []:
        about = faiss.about
        work = 2e-9 * about["rows"] * about["dim"]
        batch = faiss.ask(0, threads)
        single = faiss.ask(0, threads, args.singles)
        peers.append({"threads": threads, "batch_gflops": work * about["queries"] / batch["seconds"], "recall": batch["recall"],
                      "single_gbs": 4e-9 * about["rows"] * about["dim"] * args.singles / single["seconds"]})
    return {"isa": measured["isa"], "openblas": measured["openblas"], "kith": measured["results"], "faiss": peers}


def kmeans(args, programs):
    results = []
    for folder in args.folders:
        with tempfile.TemporaryDirectory() as scratch:
            for count in args.centroids:
                paths = compare_kmeans.prepare(folder, count, args.rows, scratch)
                for threads in args.threads:
                    rounds = [{"kith": compare_kmeans.run_kith(programs, paths, count, args.iterations, threads),
                               "faiss": compare_kmeans.run_faiss(paths, args.iterations, threads)} for _ in range(args.rounds)]
                    results.append({"data": compare_data.read_meta(folder)["name"], "k": count, "threads": threads,
                                    "iterations": args.iterations, "rounds": rounds})
                    write(args, {"kind": "kmeans", "machine": describe_machine(), "results": results})


def run(args, programs):
    names = (list(KITH_SPECS) + ["faiss-flat"]) if args.peers == "" else args.peers.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        for folder in args.folders:
            engines = {}
            for name in names:
                try:
                    engines[name] = KithEngine(programs, name, folder, args, scratch) if name in KITH_SPECS else PeerEngine(name, folder, args)
                except SystemExit as refused:
                    print(f"left out {name}: {refused}", file=sys.stderr)
            points = measure_rounds(engines, args)
            for engine in engines.values():
                engine.close()
            meta = compare_data.read_meta(folder)
            write(args, {"kind": "run", "machine": describe_machine(), "data": meta["name"], "metric": meta["metric"],
                         "k": args.k, "threads": args.threads, "points": points})


def study(args, programs):
    content, is_complete = compare_study.run(args, programs, describe_machine(), PeerEngine)
    if not args.build_only:
        print(compare_report.table(json.loads(json.dumps(content))))
    return 0 if is_complete else 1


def builds(args, programs):
    print(compare_report.table(compare_builds.run(args, programs, describe_machine(), PeerEngine)))


def measure_rounds(engines, args):
    points = []
    for name, engine in engines.items():
        for number, parameter in enumerate(engine.points):
            points.append({"engine": name, "number": number, "parameter": parameter, "qps": {count: [] for count in args.threads}})
    for turn in range(args.rounds):
        for point in points:
            engine = engines[point["engine"]]
            point["recall"], qps = engine.measure(point["number"], args.threads)
            for count in args.threads:
                point["qps"][count].append(qps[count])
        print(f"round {turn + 1} of {args.rounds}", file=sys.stderr, flush=True)
    for point in points:
        point.update(engines[point["engine"]].about)
        point["qps_median"] = {count: statistics.median(rates) for count, rates in point["qps"].items()}
    return points


def write(args, content):
    text = json.dumps(content, indent=1)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        print(compare_report.table(json.loads(text)))
    else:
        print(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["prepare", "verify", "exact", "kmeans", "run", "ivf", "builds", "graph", "table", "plot"])
    parser.add_argument("folders", nargs="+", metavar="DIR or FILE")
    parser.add_argument("--build", default="build", help="the build folder of kith")
    parser.add_argument("--out", default="", help="where the result goes")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--queries", type=int, default=1000, help="the first so many queries; verify: 0 for all")
    parser.add_argument("--threads", type=lambda text: [int(word) for word in text.split(",")], default=[1, os.cpu_count()])
    parser.add_argument("--rounds", type=int, default=0, help="default 5; builds: 1")
    parser.add_argument("--singles", type=int, default=0, help="exact, ivf, graph: queries handed over one by one in a round (default 20, 500, 500)")
    parser.add_argument("--types", default="f32,f16,u8", help="exact: stored types")
    parser.add_argument("--peers", default="", help="run, ivf, graph: engines, of " + ", ".join(KITH_SPECS) + " and compare_peers.py; none")
    parser.add_argument("--centroids", type=lambda text: [int(word) for word in text.split(",")], default=[1024, 4096], help="kmeans: k")
    parser.add_argument("--iterations", type=int, default=10, help="kmeans: rounds")
    parser.add_argument("--rows", type=int, default=262144, help="kmeans: train on a sample of so many rows")
    parser.add_argument("--kith", default="", help="ivf, graph: kith's specs, parted by ';'; {lists}, {half} and {pq} follow the data; none")
    parser.add_argument("--work", default="", help="ivf, graph: a folder for the peers' indexes, which are kept, and for subsets")
    parser.add_argument("--only", default="", help="ivf, graph: only what these pairs need, parted by ',': " +
                        "; ".join(f"{kind}: " + ", ".join(pair.name for pair in pairs) for kind, pairs in compare_pairs.PAIRS.items()))
    parser.add_argument("--subset", type=int, default=0, help="ivf, graph, builds: the first so many rows of the base, with their own ground truth")
    parser.add_argument("--max-seconds", type=float, default=0, help="ivf, graph: stop after so long; the same command goes on")
    parser.add_argument("--point-seconds", type=float, default=10, help="ivf, graph: no slower settings once a batch takes so long")
    parser.add_argument("--forget", default="", help="ivf, graph: measure these engines again, parted by ';'")
    parser.add_argument("--build-only", action="store_true", help="ivf, graph: build the peers' indexes that --work does not have yet, and end")
    parser.add_argument("--rebuild", default="", help="ivf, graph: build these peers again, though --work has their indexes; parted by ','")
    args = parser.parse_args()
    compare_data.wake_openblas()
    args.threads = sorted(set(args.threads))
    args.rounds = args.rounds or (1 if args.command == "builds" else 5)
    args.singles = args.singles or {"exact": 20, "ivf": 500, "graph": 500}.get(args.command, 0)
    if args.command in ("table", "plot"):
        contents = []
        for path in args.folders:
            with open(path, encoding="utf-8") as file:
                contents.append(json.load(file))
        if args.command == "plot":
            return compare_report.plot(contents, args.out or "compare.svg")
        return print("\n\n".join(compare_report.table(content) for content in contents))
    return {"prepare": prepare, "verify": verify, "exact": exact, "kmeans": kmeans, "run": run, "ivf": study, "builds": builds,
            "graph": study}[args.command](args, Programs(args.build))


if __name__ == "__main__":
    sys.exit(main())
