#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What compare.py ivf makes of measurements, on engines made up here: scan, choice of settings, rounds, going on after a
stop, ratios and tables. Needs no other engine, no NumPy and no kith.

Usage: test_compare_ivf.py ROOT [unittest arguments]
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

    def ask(self, point, threads, single=0):
        self.calls.append((self.name, point, threads, single))
        effort = self.LADDER[point]
        each = effort / (100000.0 * self.speed * threads)
        if single:
            return {"seconds": single * each, "p50": each, "p99": 3 * each}
        return {"seconds": QUERIES * each, "recall": min(self.cap, 1 - 0.5 / effort)}

    def close(self):
        self.is_open = False


class CompareIvf(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="kith-compare-")
        self.out = os.path.join(self.folder, "ivf.json")
        self.calls, self.engines = [], []

    def settings(self, **changes):
        values = {"folders": [self.folder], "out": self.out, "k": 10, "queries": QUERIES, "threads": [1, 2], "rounds": 3, "singles": 10,
                  "kith": "IVF{lists},Flat;none", "peers": "faiss-ivf,scann", "work": "", "subset": 0, "max_seconds": 0, "point_seconds": 10,
                  "forget": ""}
        return argparse.Namespace(**{**values, **changes})

    def run_all(self, **changes):
        speeds = {"kith=IVF{lists},Flat": 3.0, "faiss-ivf": 1.0, "scann": 2.0}

        def make(name, folder, args, cache):
            self.assertEqual((folder, cache), (self.folder, ""))
            engine = MadeUp(name, speeds[name], self.calls, cap=0.97 if name == "scann" else 1.0)
            self.engines.append(engine)
            return engine

        with contextlib.redirect_stderr(io.StringIO()):
            content, done = compare_ivf.run(self.settings(**changes), None, {"cpu": "made up", "processors": 2, "date": "today"}, make)
        self.assertFalse(any(engine.is_open for engine in self.engines))
        return json.loads(json.dumps(content)), done

    def test_front(self):
        points = [{"recall": recall, "scan_qps": qps} for recall, qps in [(0.5, 9), (0.6, 10), (0.9, 5), (0.9, 4), (0.95, 5), (0.8, 5)]]
        self.assertEqual([(point["recall"], point["scan_qps"]) for point in compare_ivf.front(points)], [(0.6, 10), (0.95, 5)])

    def test_scan_and_choice(self):
        content, done = self.run_all()
        self.assertTrue(done)
        record = content["sets"][0]["engines"]["faiss-ivf"]
        self.assertEqual([point["recall"] for point in record["points"]][:3], [0.5, 0.75, 0.875])
        self.assertEqual(record["points"][-1]["parameters"], "nprobe=500")  # .9985 is enough, and only there
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
            self.assertAlmostEqual(compare_ivf_report.rate_median(peer, 2, wanted), 2 * 100000 / effort)
            self.assertAlmostEqual(compare_ivf_report.ratio([own], peer, 1, wanted)[1], 3.0)
            self.assertAlmostEqual(compare_ivf_report.single(peer, wanted, "p99"), 3e6 * effort / 100000)
        self.assertIsNone(compare_ivf_report.ratio([own], results["engines"]["scann"], 1, 0.99))
        table = compare_ivf_report.table(content)
        self.assertIn("| IVF-Flat by faiss IVF,Flat | 1 thr | 3.00 (3.00..3.00), goal 2.5 | 3.00", table)
        self.assertIn("| IVF-Flat by faiss IVF,Flat | one query, p50 | 3.00 (3.00..3.00), goal 1.3 |", table)
        self.assertIn("| kith=IVF{lists},Flat | faiss-ivf | 2.0 | 6.0 | 3.00, goal 3 |", table)
        self.assertIn("**%s**, 5000 x 7, l2, 1000 queries, k = 10; made up, 2 processors, today; 3 rounds" % results["data"], table)
        self.assertRegex(table, r"\n\| scann \| 3\.0 \| 10 \| [\d,]+ \| [\d,]+ \| - \|")


if __name__ == "__main__":
    ROOT = sys.argv.pop(1)
    sys.path.insert(0, os.path.join(ROOT, "bench", "compare"))
    import compare_ivf
    import compare_ivf_report

    unittest.main()
