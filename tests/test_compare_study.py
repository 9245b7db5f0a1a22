#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What compare.py ivf and graph make of measurements, on engines made up here: scan, choice of settings, rounds, going on after a
stop, ratios and tables. Needs no other engine, no NumPy and no kith.

Usage: test_compare_study.py ROOT [unittest arguments]
"""
import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import unittest

ROOT = ""
QUERIES = 1000


class MadeUp:
    """Recall 1 - .5 / effort, and 100,000 x speed / effort queries a second; the call of an engine counts."""

    LADDER = [1, 2, 4, 5, 8, 10, 16, 25, 32, 50, 64, 100, 128, 500]

    def __init__(self, name, speed, calls, cap=1.0):
        self.name, self.speed, self.calls, self.cap = name, speed, calls, cap
        self.points = ["nprobe=%d" % value for value in self.LADDER]
        self.ladders = [list(range(len(self.LADDER)))]
        self.about = {"rows": 5000, "dim": 7, "queries": QUERIES, "version": name, "build_seconds": 6.0 / speed, "memory_bytes": 50000}
        self.is_open = True

    def ask(self, point, threads, single=0, seconds=0):
        self.calls.append((self.name, point, threads, single))
        effort = self.LADDER[point]
        each = effort / (100000.0 * self.speed * threads)
        if single:
            return {"seconds": single * each, "p50": each, "p99": 3 * each}
        return {"seconds": QUERIES * each, "recall": min(self.cap, 1 - 0.5 / effort)}

    def close(self):
        self.is_open = False


class CompareStudy(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="kith-compare-")
        self.out = os.path.join(self.folder, "ivf.json")
        self.calls, self.engines = [], []

    def settings(self, **changes):
        values = {"command": "ivf", "folders": [self.folder], "out": self.out, "k": 10, "queries": QUERIES, "threads": [1, 2], "rounds": 3, "singles": 10,
                  "kith": "IVF{lists},Flat;none", "peers": "faiss-ivf,scann", "work": "", "subset": 0, "max_seconds": 0, "point_seconds": 10,
                  "forget": "", "build_only": False, "rebuild": "", "only": ""}
        return argparse.Namespace(**{**values, **changes})

    SPEEDS = {"kith=IVF{lists},Flat": 3.0, "kith=HNSW": 5.0, "faiss-ivf": 1.0, "scann": 2.0, "hnswlib": 1.5, "glass-sq8": 2.0, "symqg": 2.5,
              "kith=IVF{lists},PQ{pq}": 3.0, "faiss-ivfpq": 2.0}

    def run_all(self, **changes):
        def make(name, folder, args, cache):
            self.assertEqual((folder, cache), (self.folder, ""))
            engine = MadeUp(name, self.SPEEDS[name], self.calls, cap=0.97 if name in ("scann", "symqg") else 1.0)
            engine.about["disturbance"] = 0.7 if name == "glass-sq8" else 0.01
            if name == "kith=HNSW":
                engine.about.update(spec="HNSW16", build_seconds_on={"1": 2.1})
            self.engines.append(engine)
            return engine

        with contextlib.redirect_stderr(io.StringIO()):
            content, done = compare_study.run(self.settings(**changes), None, {"cpu": "made up", "processors": 2, "date": "today"}, make)
        self.assertFalse(any(engine.is_open for engine in self.engines))
        return json.loads(json.dumps(content)), done

    def test_front(self):
        points = [{"recall": recall, "scan_qps": qps} for recall, qps in [(0.5, 9), (0.6, 10), (0.9, 5), (0.9, 4), (0.95, 5), (0.8, 5)]]
        self.assertEqual([(point["recall"], point["scan_qps"]) for point in compare_study.front(points)], [(0.6, 10), (0.95, 5)])

    def test_scan_and_choice(self):
        content, done = self.run_all()
        self.assertTrue(done)
        record = content["sets"][0]["engines"]["faiss-ivf"]
        self.assertEqual([point["recall"] for point in record["points"]][:3], [0.5, 0.75, 0.875])
        self.assertEqual(record["points"][-1]["parameters"], "nprobe=100")  # .995 is enough, and only there
        chosen = [point["parameters"] for point in record["points"] if point.get("is_chosen")]
        self.assertEqual(chosen, ["nprobe=" + word for word in "2 4 5 8 10 16 25 32 50 64".split()])
        single = {point["parameters"]: point["single_of"] for point in record["points"] if "single_of" in point}
        self.assertEqual(single, {"nprobe=5": [0.9], "nprobe=10": [0.95], "nprobe=50": [0.99]})
        capped = content["sets"][0]["engines"]["scann"]
        self.assertEqual(max(point["recall"] for point in capped["points"]), 0.97)
        self.assertLess(len(capped["points"]), len(MadeUp.LADDER))  # no further, once recall stands still

    def test_rounds_take_turns(self):
        content, _ = self.run_all()
        engines = content["sets"][0]["engines"]
        for record in engines.values():
            self.assertEqual(record["rounds"], 3)
            for point in record["points"]:
                self.assertEqual([one["round"] for one in point["rounds"]], [0, 1, 2] if point.get("is_chosen") else [])
        order = [call[0] for at, call in enumerate(self.calls) if at == 0 or call[0] != self.calls[at - 1][0]]
        self.assertEqual(order, list(engines) * 4)  # a scan and three rounds
        self.assertEqual({call[2] for call in self.calls if call[3]}, {1})  # single queries run on one thread

    def test_goes_on(self):
        whole, _ = self.run_all()
        os.remove(self.out)
        calls = len(self.calls)
        stops = 0
        while not self.run_all(max_seconds=1e-9)[1]:
            stops += 1
            self.assertLess(stops, 100)
        self.assertGreater(stops, 5)
        with open(self.out, encoding="utf-8") as file:
            self.assertEqual(json.load(file), whole)
        self.assertGreaterEqual(len(self.calls), 2 * calls)
        before = len(self.engines)
        self.run_all()
        self.assertEqual(len(self.engines), before)  # nothing is left to be measured
        self.run_all(forget="scann")
        self.assertEqual([engine.name for engine in self.engines[before:]], ["scann"])

    def test_spent_rungs(self):
        """A rung that the last ladder gained nothing on is not measured again."""
        class Ladders(MadeUp):
            def __init__(self, calls):
                super().__init__("scann", 1.0, calls)
                self.points = ["k_factor=%d,nprobe=%d" % (factor, value) for factor in (1, 2, 3) for value in (1, 2, 4)]
                self.ladders = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]

            def ask(self, point, threads, single=0, seconds=0):
                self.calls.append(point)
                factor, place = divmod(point, 3)
                return {"seconds": 1.0, "recall": [0.5, 0.6 + 0.1 * min(factor, 1), 0.7 + 0.05 * factor][place]}

        points = compare_study.scan(Ladders(self.calls), self.settings())
        self.assertEqual([point["number"] for point in points], [0, 1, 2, 3, 4, 5, 7, 8])
        self.assertEqual(self.calls, [0, 0, 1, 2, 3, 4, 5, 7, 8])

    def test_same_settings(self):
        """Codes that get nowhere near .90 are compared at equal nprobe, and so is what they find."""
        content, _ = self.run_all(kith="IVF{lists},PQ{pq}", peers="faiss-ivfpq")
        engines = content["sets"][0]["engines"]
        self.assertEqual([point["parameters"] for point in engines["faiss-ivfpq"]["points"]], ["nprobe=8", "nprobe=32", "nprobe=128"])
        table = compare_study_report.table(content)
        self.assertIn("| IVF-PQ by faiss IVF,PQ | rate, 1 thr | 1.50 (1.50..1.50), goal 1.3 |", table)
        self.assertIn("| IVF-PQ by faiss IVF,PQ | recall, kith / the peer | 0.9375 / 0.9375, goal -0.003 |", table)
        self.assertNotIn("not reached", table.split("recall, kith")[1].split("\n")[0])
        engines["kith=IVF{lists},PQ{pq}"]["points"][0]["recall"] = 0.934
        self.assertIn("0.9340 / 0.9375, goal -0.003 **not reached** |", compare_study_report.table(content))

    def test_only(self):
        names = compare_study.names_of(self.settings(kith="", peers="", only="sq8,scann"))
        self.assertEqual([name for name in names if not name.startswith("kith=")], ["faiss-ivfsq8", "scann"])
        self.assertEqual(names[:3], ["kith=IVF{lists},SQ8", "kith=IVF{lists},PQ{half}x4fs,RFlat", "kith=IVF{lists},Line64,Rf16"])
        self.assertNotIn("kith=IVF{lists},Flat", names)
        self.assertEqual(len(compare_study.names_of(self.settings(kith="", peers=""))), 18)
        with self.assertRaisesRegex(SystemExit, "nonsense: not one of flat, sq8"):
            compare_study.names_of(self.settings(only="flat,nonsense"))

    def run_builds(self, seconds_of, **changes):
        made = []

        def make(name, folder, args, cache):
            self.assertEqual((folder, cache, len(args.threads)), (self.folder, "", 1))
            made.append((name, args.threads[0]))
            engine = MadeUp(name, 1.0, self.calls)
            engine.about.update(build_seconds=seconds_of(name) / args.threads[0], train_seconds=0.5, add_seconds=0.25, disturbance=0.01)
            self.engines.append(engine)
            return engine

        with contextlib.redirect_stderr(io.StringIO()):
            content = compare_builds.run(self.settings(command="builds", rounds=1, **changes), None, {"cpu": "made up", "processors": 2, "date": "today"}, make)
        self.assertFalse(any(engine.is_open for engine in self.engines))
        return json.loads(json.dumps(content)), made

    def test_builds(self):
        """Every pair on each thread count, a new build each; what is in the output file is not built again."""
        content, made = self.run_builds(lambda name: 1.0 if name.startswith("kith=") else 2.5 if name == "scann" else 4.0)
        self.assertEqual(made[:4], [("kith=IVF{lists},Flat", 1), ("faiss=IVF{lists},Flat", 1), ("kith=IVF{lists},Flat", 2), ("faiss=IVF{lists},Flat", 2)])
        self.assertEqual(len(made), 20)
        table = compare_builds.table(content)
        name = content["results"][0]["data"]
        self.assertIn(f"| {name} | IVF-Flat | 1 | kith=IVF{{lists}},Flat | 1.00 (0.50 + 0.25) | 4.00 (0.50 + 0.25) | 4.00, goal 3 | 0.9844 / 0.9844 |", table)
        self.assertIn("| best compressed, by ScaNN | 2 |", table)
        self.assertEqual(self.run_builds(lambda name: 1.0)[1], [])
        content["results"][0]["rounds"][0]["peer"].update(disturbance=0.4, build_seconds=2.0)
        table = compare_builds.table(content)
        self.assertIn("| [2.00 (0.50 + 0.25)] | 2.00, goal 3 **not reached** |", table)
        self.assertIn("not to be quoted", table)

    def test_other_results_are_refused(self):
        with open(self.out, "w", encoding="utf-8") as file:
            json.dump({"kind": "exact"}, file)
        with self.assertRaises(SystemExit):
            self.run_all()

    def test_tables(self):
        content, _ = self.run_all()
        results = content["sets"][0]
        own, peer = results["engines"]["kith=IVF{lists},Flat"], results["engines"]["faiss-ivf"]
        for wanted, effort in [(0.90, 5), (0.95, 10), (0.99, 50)]:
            self.assertAlmostEqual(compare_study_report.rate_median(peer, 2, wanted), 2 * 100000 / effort)
            self.assertAlmostEqual(compare_study_report.ratio([own], [peer], 1, wanted)[1], 3.0)
            self.assertAlmostEqual(compare_study_report.single(peer, wanted, "p99"), 3e6 * effort / 100000)
        self.assertIsNone(compare_study_report.ratio([own], [results["engines"]["scann"]], 1, 0.99))
        table = compare_study_report.table(content)
        self.assertIn("| IVF-Flat by faiss IVF,Flat | 1 thr | 3.00 (3.00..3.00), goal 2.5 | 3.00", table)
        self.assertIn("| IVF-Flat by faiss IVF,Flat | one query, p50 | 3.00 (3.00..3.00), goal 1.3 |", table)
        self.assertIn("| kith=IVF{lists},Flat | faiss-ivf | 2.0 | 6.0 | 3.00, goal 3 |", table)
        self.assertIn("**%s**, 5000 x 7, l2, 1000 queries, k = 10; made up, 2 processors, today; 3 rounds" % results["data"], table)
        self.assertRegex(table, r"\n\| scann \| 3\.0 \| 10 \| [\d,]+ \| [\d,]+ \| - \|")

    def graph_table(self, **changes):
        return compare_study_report.table(self.run_all(command="graph", kith="HNSW", **changes)[0])

    def test_graph_tables(self):
        table = self.graph_table(peers="hnswlib,glass-sq8,symqg")
        # symqg is the fastest peer up to its .97, glass past that: the best of each recall is what counts.
        self.assertIn("| best of kith by the best peer | 1 thr | 2.00 (2.00..2.00), goal 2 | 2.00 (2.00..2.00), goal 2 | 2.50 (2.50..2.50), goal 2 |", table)
        self.assertIn("| best of kith by the best peer | one query, p50 | 2.00 (2.00..2.00), goal 1.5 |", table)
        self.assertIn("| best of kith by hnswlib | 2 thr | 3.33 (3.33..3.33), goal 4 **not reached** |", table)
        self.assertIn("| kith HNSW16 by the best peer | 1 thr | 2.00 (2.00..2.00) |", table)
        self.assertIn("| kith HNSW16 | 10.0 / 30.0 | 3.0 | 20.0 / 60.0 | 3.0 | 100.0 / 300.0 | 3.0 |", table)
        self.assertIn("| symqg | 20.0 / 60.0 | 3.0 | 40.0 / 120.0 | 3.0 | - | - |", table)
        # glass is built sooner than hnswlib, but was disturbed; symqg does not reach .99.
        self.assertIn("| kith HNSW16 | 1.2 | 2.1 | 1.75, goal 1.9 **not reached** | hnswlib, 4.0 | 3.33, goal 1 | 10 | 1.00 |", table)
        self.assertIn("| glass-sq8 | (3.0) | 10 |", table)
        self.assertIn("not to be quoted", table)

    def test_graph_without_peers(self):
        table = self.graph_table(peers="none")
        self.assertNotIn("best of kith", table)
        self.assertIn("| kith HNSW16 | 1.2 | 2.1 | 1.75, goal 1.9 **not reached** | - | - | 10 | - |", table)

    def test_a_tail_is_said(self):
        self.assertNotIn("over 3", self.graph_table(peers="none"))
        content, _ = self.run_all(command="graph", kith="HNSW", peers="none")
        for point in content["sets"][0]["engines"]["kith=HNSW"]["points"]:
            for one in point["rounds"]:
                one.update({"p99": 4 * one["p50"]} if "p50" in one else {})
        self.assertIn("| kith HNSW16 | 10.0 / 40.0 | 4.0 **over 3** |", compare_study_report.table(content))

    def test_build_only(self):
        """Indexes that are not kept yet are built, kith's never; --rebuild drops a kept one; nothing is measured."""
        work, made = os.path.join(self.folder, "work"), []

        def make(name, folder, args, cache):
            self.assertEqual(cache, os.path.join(work, f"{os.path.basename(self.folder)}-{name}.index"))
            made.append(name)
            with open(cache + ".json", "w", encoding="utf-8") as file:
                file.write("{}")
            return MadeUp(name, 1.0, self.calls)

        def fill(**changes):
            made.clear()
            settings = self.settings(command="graph", kith="HNSW", work=work, build_only=True, **changes)
            with contextlib.redirect_stderr(io.StringIO()):
                _, done = compare_study.run(settings, None, {}, make)
            self.assertTrue(done)
            return list(made)

        self.assertEqual(fill(peers="symqg,hnswlib"), ["symqg", "hnswlib"])
        self.assertEqual(fill(peers="symqg,hnswlib,glass-sq8"), ["glass-sq8"])
        self.assertEqual(fill(peers="symqg,hnswlib,glass-sq8", rebuild="hnswlib"), ["hnswlib"])
        self.assertEqual(self.calls, [])
        with self.assertRaises(SystemExit):
            compare_study.run(self.settings(command="graph", build_only=True), None, {}, make)


if __name__ == "__main__":
    ROOT = sys.argv.pop(1)
    sys.path.insert(0, os.path.join(ROOT, "bench", "compare"))
    import compare_builds
    import compare_study
    import compare_study_report

    unittest.main()
