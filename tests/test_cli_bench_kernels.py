#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs `kith bench kernels` on a few cases: names, the three forms of output, and what it refuses.

Usage: test_cli_bench_kernels.py KITH [unittest arguments]
"""
import csv
import io
import json
import subprocess
import sys
import unittest

KITH = ""
QUICK = ["--isa", "ref", "--sets", "l1", "--dims", "16", "--repeat", "3", "--min-time", "0.0001"]


def kith(*arguments):
    return subprocess.run([KITH, "bench", "kernels", *arguments], capture_output=True, text=True, timeout=240, check=False)


class BenchKernels(unittest.TestCase):
    def run_ok(self, *arguments):
        done = kith(*arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_names_are_what_is_timed(self):
        choice = ["--filter", "^(l2sq|hamming)/", *QUICK]
        names = self.run_ok("--list", *choice).split()
        self.assertIn("l2sq/f32-f16/four/16/ref/l1", names)
        self.assertIn("hamming/b1-b1/block/16/ref/l1", names)
        self.assertEqual(len(names), 3 * (9 + 1))
        self.assertEqual([row["name"] for row in json.loads(self.run_ok("--json", *choice))["results"]], names)

    def test_all_families_are_there(self):
        names = self.run_ok("--list", "--isa", "ref", "--dims", "16").split()
        self.assertEqual({name.split("/")[0] for name in names},
                         {"l2sq", "ip", "hamming", "norm2", "convert", "filter", "plane", "tile"})
        self.assertEqual({name.split("/")[5] for name in names}, {"l1", "l2", "memory"})

    def test_figures_fit_together(self):
        report = json.loads(self.run_ok("--json", "--filter", "ip/f32-f32|norm2/f16", *QUICK))
        self.assertEqual(report["isas"], ["ref"])
        peaks = report["peaks"]
        for row in report["results"]:
            row_bytes = 64 if row["types"] == "f32-f32" else 32
            self.assertGreater(row["ns"], 0)
            self.assertAlmostEqual(row["gigabytes_per_second"], row_bytes / row["ns"], places=6)
            self.assertAlmostEqual(row["gigaproducts_per_second"], 16 / row["ns"], places=6)
            self.assertAlmostEqual(row["arithmetic_share"],
                                   row["gigaproducts_per_second"] * 1e9 / peaks["fma_f32_per_second"], places=6)
            self.assertAlmostEqual(row["read_share"],
                                   row["gigabytes_per_second"] * 1e9 / peaks["l1"]["read_bytes_per_second"], places=6)

    def test_planes(self):
        report = json.loads(self.run_ok("--json", "--filter", "^plane/", *QUICK))
        rows = {row["name"]: row for row in report["results"]}
        self.assertEqual(len(rows), 4 * 4)
        for bits in (1, 2, 4, 8):
            row_bytes = (16 * bits + 31) // 32 * 4
            four, block = rows[f"plane/i8-u{bits}/four/16/ref/l1"], rows[f"plane/i8-u{bits}/block16/16/ref/l1"]
            self.assertAlmostEqual(four["gigabytes_per_second"], row_bytes / four["ns"], places=6)
            self.assertAlmostEqual(block["gigabytes_per_second"], row_bytes / 16 / block["ns"], places=6)
            self.assertAlmostEqual(block["gigaproducts_per_second"], 16 / block["ns"], places=6)

    def test_table_and_csv(self):
        rows = list(csv.DictReader(io.StringIO(self.run_ok("--csv", "--filter", "tile|filter", "--isa", "ref", "--dims",
                                                           "16", "--sets", "l2", "--repeat", "1"))))
        self.assertEqual([row["name"] for row in rows],
                         ["filter/f32-f32/one/16/ref/l2", "filter/i32-i32/one/16/ref/l2", "tile/f32-f32/tile/16/ref/l2",
                          "tile/i8-i8/tile/16/ref/l2"])
        table = self.run_ok("--filter", "norm2/u8", *QUICK)
        self.assertIn("norm2/u8-u8/one/16/ref/l1", table)
        self.assertIn("multiply-adds/s", table)

    def test_refusals_name_the_value(self):
        for arguments, said in [
            (["--isa", "sse9"], "sse9"), (["--dims", "0"], "--dims 0"), (["--dims", "12,x"], "--dims x"),
            (["--dims", "32769"], "32769"), (["--sets", "l9"], "l9"), (["--filter", "("], "--filter ("),
            (["--filter", "^nothing$"], "no case"), (["--repeat", "0"], "--repeat 0"),
            (["--min-time", "0"], "--min-time 0"), (["--min-time", "99"], "--min-time 99"), (["--dims", ","], "--dims"),
            (["extra"], "extra"),
        ]:
            done = kith(*arguments)
            self.assertEqual((done.returncode, done.stdout), (2, ""), arguments)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn(said, done.stderr)


if __name__ == "__main__":
    KITH = sys.argv.pop(1)
    unittest.main()
