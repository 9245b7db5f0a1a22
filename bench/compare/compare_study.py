# SPDX-License-Identifier: Apache-2.0
"""Studies of a kind of index and its rivals: batch rates at a recall, single queries, build times and memory, on one or more
sets. Inverted files (ivf) and graphs (graph) differ in what is measured, not in how.

For each data folder every engine is built, one after the other, in a process of its own; then each climbs its ladders of
settings once (the scan); then come the rounds: every engine in turn is measured again at the settings of its front around
each wanted recall. All that was measured is in the output file after every step: the same command goes on where it stopped.
"""
import json
import os
import sys
import time

import compare_data
from compare_pairs import pairs_named, settings_of

RECALLS = (0.90, 0.95, 0.99)
RECALL_GAIN = 0.0003    # less is no gain
BATCH_SECONDS = 0.2     # in a round a batch is repeated until it has taken so long: else the waking of a thread decides


class Kind:
    """kith's specs and the peers of a study. `recall_enough`: a ladder is climbed up to there. `one_thread_too`: kith's indexes
    are built on each thread count."""

    def __init__(self, specs, peers, recall_enough, one_thread_too=False):
        self.specs, self.peers, self.recall_enough, self.one_thread_too = specs, peers, recall_enough, one_thread_too


KINDS = {
    "ivf": Kind(["IVF{lists},Flat", "IVF{lists},SQ8", "IVF{lists},PQ{pq}", "IVF{lists},PQ{half}x4fs,RFlat", "IVF{lists},Line64,Rf16",
                 "IVF{lists},RaBitQ,Rf16", "IVF{lists},RaBitQ4,Rf16", "IVF{lists},RaBitQ7"],
                ["faiss-ivf", "faiss-ivfsq8", "faiss-ivfpq", "faiss-ivfpqfs", "faiss-ivfpqfs4", "faiss-ivfrabitq", "faiss-ivfrabitq1", "scann",
                 "rabitq-ivf", "rabitq-ivf4"], recall_enough=0.995),
    "graph": Kind(["HNSW", "HNSW32", "HNSW32,SQ8", "HNSW32,SQ8,RFlat", "HNSW32,Line64,RSQ8", "HNSW32,RaBitQ,Rf16"],
                  ["symqg", "glass-sq4", "glass-sq8", "hnswlib", "faiss-hnsw", "svs-lvq4x8", "scann"], recall_enough=0.9985, one_thread_too=True),
}


class OutOfTime(Exception):
    """The time that was given is over; what was measured is written."""


class Study:
    """The output file: {"kind", "machine", "sets": [{..., "engines": {name: {"about", "points", "latency"}}}]}."""

    def __init__(self, kind, path, machine, seconds):
        self.path, self.content = path, {"kind": kind, "machine": machine, "sets": []}
        self.deadline = time.monotonic() + seconds if seconds else None
        if path and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.content = json.load(file)
            if self.content.get("kind") != kind:
                raise SystemExit(f"{path}: holds results of another kind")

    def write(self):
        if self.path:
            with open(self.path + ".part", "w", encoding="utf-8") as file:
                json.dump(self.content, file, indent=1)
                file.write("\n")
            os.replace(self.path + ".part", self.path)

    def write_progress(self):
        """After a step that need not be done again: here the time may be over."""
        self.write()
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTime

    def set_of(self, head):
        """The results of a data set; those of another k, number of queries or of rows are no match."""
        for one in self.content["sets"]:
            if all(one[key] == head[key] for key in head):
                return one
        self.content["sets"].append({**head, "engines": {}})
        return self.content["sets"][-1]


# ---- Data ------------------------------------------------------------------------------------------------------------


def subset(folder, rows, queries, work, programs):
    """A folder with the first `rows` of the base and the first queries, and their ground truth; made once."""
    import numpy as np

    meta = compare_data.read_meta(folder)
    path = os.path.join(work, f"{meta['name']}-{rows}")
    if compare_data.find(path, "gt") is not None:
        return path
    os.makedirs(path, exist_ok=True)
    for part, count in (("base", rows), ("query", queries)):
        np.save(os.path.join(path, part + ".npy"), np.ascontiguousarray(compare_data.read(compare_data.find(folder, part))[:count]))
    with open(os.path.join(path, "meta.json"), "w", encoding="utf-8") as file:
        json.dump({"name": f"{meta['name']}[:{rows}]", "metric": meta["metric"]}, file)
    programs.run_kith("gt", "--base", os.path.join(path, "base.npy"), "--query", os.path.join(path, "query.npy"), "--metric", meta["metric"],
                      "--k", min(100, rows), "--out", os.path.join(path, "gt.ivecs"), "--quiet", "--json")
    return path


# ---- Measuring -------------------------------------------------------------------------------------------------------


def is_beaten(points, recall, rate):
    """Does another point find all that is wanted, and as much as this, at one and a half times the rate?"""
    return any(other["recall"] >= max(recall, RECALLS[-1] + 0.002) and other["scan_qps"] > 1.5 * rate for other in points)


def measure_point(engine, number, threads):
    """One batch, twice where it is over soon."""
    reply = engine.ask(number, threads)
    if reply["seconds"] < 0.3:
        reply = min(reply, engine.ask(number, threads), key=lambda one: one["seconds"])
    return {"number": number, "parameters": engine.points[number], "recall": reply["recall"],
            "scan_qps": engine.about["queries"] / reply["seconds"], "rounds": []}, reply["seconds"]


def scan(engine, args):
    """Climbs every ladder on the first thread count; stops where recall is enough, stands still, or is had for far less. A rung
    that the last ladder gained nothing on is left out of those to come: they differ by a parameter that only adds effort. An
    empty ladder stands before those that differ by more."""
    threads, enough = args.threads[0], KINDS[args.command].recall_enough
    engine.ask(engine.ladders[0][0], threads)  # the first call is slow everywhere
    points, reached, spent = [], {}, set()
    for rungs in engine.ladders:
        before, idle = 0.0, 0
        if not rungs:
            reached, spent = {}, set()
        for place, number in enumerate(rungs):
            if place in spent:
                continue
            point, seconds = measure_point(engine, number, threads)
            recall = point["recall"]
            idle = idle + 1 if recall < before + RECALL_GAIN or is_beaten(points, recall, point["scan_qps"]) else 0
            if place in reached and recall < reached[place] + RECALL_GAIN:
                spent.add(place)
            points.append(point)
            before, reached[place] = max(before, recall), recall
            if recall >= enough or idle >= 3 or seconds > args.point_seconds:
                break
    return points


def scan_settings(engine, settings, args):
    """Of an engine that is measured at given settings."""
    threads = args.threads[0]
    numbers = [number for number, name in enumerate(engine.points) if name in settings]
    engine.ask(engine.ladders[0][0], threads)
    points = [measure_point(engine, number, threads)[0] for number in numbers]
    for point in points:
        point["is_chosen"] = True
    return points


def front(points):
    """The best points, by rising recall."""
    best, kept = 0.0, []
    for point in sorted(points, key=lambda one: (-one["recall"], -one["scan_qps"])):
        if point["scan_qps"] > best:
            best = point["scan_qps"]
            kept.append(point)
    return kept[::-1]


def choose(points):
    """Marks the points of the rounds: on the front, two on either side of each wanted recall; and, for single queries, the
    one that just reaches it."""
    kept = front(points)
    for wanted in RECALLS:
        above = next((at for at, point in enumerate(kept) if point["recall"] >= wanted), None)
        for point in kept[max(0, above - 2) : above + 2] if above is not None else kept[-1:]:
            point["is_chosen"] = True
        if above is not None:
            kept[above].setdefault("single_of", []).append(wanted)


def measure_round(engine, record, turn, args):
    """Every chosen point once on each thread count, and its single queries."""
    for point in record["points"]:
        if not point.get("is_chosen"):
            continue
        rates = {str(threads): engine.about["queries"] / engine.ask(point["number"], threads, seconds=BATCH_SECONDS)["seconds"]
                 for threads in args.threads}
        if "single_of" in point and args.singles:
            reply = engine.ask(point["number"], 1, args.singles)
            rates.update(p50=reply["p50"], p99=reply["p99"])
        point["rounds"].append({"round": turn, **rates})
    record["rounds"] = turn + 1


def names_of(args):
    """kith's specs and the peers, kith first."""
    kind = KINDS[args.command]
    kith = [f"kith={spec}" for spec in (args.kith.split(";") if args.kith else kind.specs) if spec and spec != "none"]
    peers = args.peers.split(",") if args.peers else kind.peers
    names = kith + [name for name in peers if name != "none"]
    pairs = pairs_named(args.command, args.only.split(",") if args.only else [])
    return [name for name in names if not args.only or any(pair.has(name) for pair in pairs)]


def cache_of(name, folder, args):
    """Where a peer's index is kept for the next time. kith's would outlive a change of kith."""
    if not args.work or name.startswith("kith="):
        return ""
    path = os.path.join(args.work, f"{os.path.basename(os.path.abspath(folder))}-{name}.index")
    if name in args.rebuild.split(",") and os.path.exists(path + ".json"):
        os.remove(path + ".json")
    return path


def start_engines(names, folder, results, study, args, make_engine):
    """The engines that have something left to measure, built one after the other."""
    engines = {}
    for name in names:
        record = results["engines"].get(name, {})
        if record.get("refused") or record.get("rounds", 0) >= args.rounds:
            continue
        print(f"{results['data']}: building {name}", file=sys.stderr, flush=True)
        try:
            engines[name] = make_engine(name, folder, args, cache_of(name, folder, args))
        except SystemExit as refused:
            print(f"left out {name}: {refused}", file=sys.stderr)
            continue
        record = results["engines"].setdefault(name, {"about": engines[name].about, "rounds": 0, "points": []})
        study.write()
    return engines


def fill_cache(folder, args, make_engine):
    """Builds the peers' indexes that are not kept yet, and measures nothing."""
    for name in names_of(args):
        cache = cache_of(name, folder, args)
        if not cache or os.path.exists(cache + ".json"):
            continue
        print(f"{folder}: building {name}", file=sys.stderr, flush=True)
        try:
            make_engine(name, folder, args, cache).close()
        except SystemExit as refused:
            print(f"left out {name}: {refused}", file=sys.stderr)


def run_set(folder, study, args, programs, make_engine):
    meta = compare_data.read_meta(folder)
    results = study.set_of({"data": meta["name"], "metric": meta["metric"], "k": args.k, "queries": args.queries, "threads": args.threads})
    for name in args.forget.split(";"):
        results["engines"].pop(name, None)
    engines = start_engines(names_of(args), folder, results, study, args, make_engine)
    try:
        for name, engine in engines.items():
            record = results["engines"][name]
            if not record["points"]:
                print(f"{results['data']}: scanning {name}", file=sys.stderr, flush=True)
                settings = settings_of(args.command, name)
                record["points"] = scan_settings(engine, settings, args) if settings else scan(engine, args)
                choose(record["points"])
                study.write_progress()
        for turn in range(args.rounds):
            for name, engine in engines.items():
                if results["engines"][name]["rounds"] <= turn:
                    measure_round(engine, results["engines"][name], turn, args)
                    study.write_progress()
            print(f"{results['data']}: round {turn + 1} of {args.rounds}", file=sys.stderr, flush=True)
    finally:
        for engine in engines.values():
            engine.close()


def run(args, programs, machine, make_engine):
    """Returns the content of the output file, and whether it is complete."""
    if args.subset and not args.work:
        raise SystemExit("--subset needs --work, a folder for the data and the indexes")
    if args.build_only and not args.work:
        raise SystemExit("--build-only needs --work, a folder that keeps the indexes")
    if args.work:
        os.makedirs(args.work, exist_ok=True)
    study = Study(args.command, args.out, machine, args.max_seconds)
    try:
        for folder in args.folders:
            if args.subset:
                folder = subset(folder, args.subset, args.queries, args.work, programs)
            if args.build_only:
                fill_cache(folder, args, make_engine)
            else:
                run_set(folder, study, args, programs, make_engine)
        study.write()
    except OutOfTime:
        print("the time is over; the same command goes on from here", file=sys.stderr)
        return study.content, False
    return study.content, True
