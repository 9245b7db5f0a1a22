#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the command kith as a user does: every subcommand's normal use, every documented error with its exit code
and its one line, outputs that cannot be written, and cancelling by signal.

Usage: test_cli.py KITH [unittest arguments]
"""
import array
import contextlib
import csv
import gzip
import io
import json
import math
import os
import pty
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

KITH = ""
DIM = 16
BASE_COUNT = 500
QUERY_COUNT = 20
USAGE, DATA, IO, MEMORY, CHECK = 2, 3, 4, 5, 1


def write_vecs(path, rows, code):
    """fvecs, bvecs, ivecs: code is that of struct."""
    with open(path, "wb") as file:
        for row in rows:
            file.write(struct.pack("<i%d%s" % (len(row), code), len(row), *row))


def read_vecs(path, code):
    with open(path, "rb") as file:
        data = file.read()
    rows, at = [], 0
    while at < len(data):
        (dim,) = struct.unpack_from("<i", data, at)
        rows.append(list(struct.unpack_from("<%d%s" % (dim, code), data, at + 4)))
        at += 4 + struct.calcsize("<%d%s" % (dim, code))
    return rows


def write_npy(path, count, dim, descr, data):
    shape = "(%d, %d)" % (count, dim)
    header = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (descr, shape)
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)


def l2(a, b):
    return math.fsum((x - y) * (x - y) for x, y in zip(a, b))


def read_text(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def small_integers(count, dim, seed):
    """Vectors of whole numbers: every distance is exact in any type, and ties occur."""
    numbers = random.Random(seed)
    return [[float(numbers.randrange(0, 8)) for _ in range(dim)] for _ in range(count)]


class CliTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="kith-cli-")
        cls.base = small_integers(BASE_COUNT, DIM, 1)
        cls.query = small_integers(QUERY_COUNT, DIM, 2)
        write_vecs(cls.at("base.fvecs"), cls.base, "f")
        write_vecs(cls.at("query.fvecs"), cls.query, "f")
        write_vecs(cls.at("base.bvecs"), [[int(x) for x in row] for row in cls.base], "B")
        cls.truth = [
            [i for _, i in sorted((l2(query, row), i) for i, row in enumerate(cls.base))] for query in cls.query
        ]
        cls.kith_ok("build", "--base", cls.at("base.fvecs"), "--out", cls.at("base.kith"))
        cls.kith_ok(
            "gt", "--base", cls.at("base.fvecs"), "--query", cls.at("query.fvecs"), "--k", "100",
            "--out", cls.at("gt.ivecs"), "--distances", cls.at("gt.fvecs"),
        )

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def at(cls, name):
        return os.path.join(cls.folder, name)

    @classmethod
    def kith(cls, *arguments, **options):
        return subprocess.run([KITH, *arguments], capture_output=True, text=True, timeout=240, check=False, **options)

    @classmethod
    def kith_ok(cls, *arguments, **options):
        done = cls.kith(*arguments, **options)
        assert done.returncode == 0, "%s: exit %d: %s" % (arguments, done.returncode, done.stderr)
        lines = [line for line in done.stderr.splitlines() if ": warning: " not in line]
        assert lines == [], "%s: on stderr: %r" % (arguments, done.stderr)
        return done.stdout

    @classmethod
    def kith_json(cls, *arguments):
        return json.loads(cls.kith_ok(*arguments, "--json"))

    def refused(self, code, parts, *arguments, **options):
        """Ends with `code` and one line on stderr that holds all the parts; stdout stays empty."""
        done = self.kith(*arguments, **options)
        self.assertEqual(done.returncode, code, (arguments, done.stderr))
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("kith"), done.stderr)
        for part in parts:
            self.assertIn(part, done.stderr)
        return done

    def names(self):
        return sorted(os.listdir(self.folder))


class Dispatch(CliTest):
    def test_version_and_help(self):
        self.assertRegex(self.kith_ok("--version"), r"^kith \d+\.\d+\.\d+\n$")
        overview = self.kith_ok("--help")
        self.assertEqual(overview, self.kith_ok("help"))
        for line in self.kith_ok("--complete").splitlines():
            name = line.split("\t")[0]
            self.assertIn("  %s " % name, overview)
            page = self.kith_ok(*name.split(), "--help")
            self.assertTrue(page.startswith("usage: kith %s " % name), page)
            self.assertEqual(page, self.kith_ok("help", *name.split()))

    def test_usage_errors(self):
        self.assertEqual(self.kith().returncode, USAGE)
        self.refused(USAGE, ["unknown command 'serch'", "did you mean search?"], "serch")
        self.refused(USAGE, ["'bench' needs a second word", "bench index"], "bench")
        self.refused(USAGE, ["unknown option --nothing"], "--nothing")
        self.refused(USAGE, ["unknown option --ot", "did you mean --out?"], "build", "--ot", "x")
        self.refused(USAGE, ["--base FILE is missing"], "build", "--out", "x")
        self.refused(USAGE, ["--out needs a value"], "build", "--base", "x", "--out")
        self.refused(USAGE, ["--out is given twice"], "build", "--out", "x", "--out", "y")
        self.refused(USAGE, ["--json takes no value"], "build", "--json=yes")
        self.refused(USAGE, ["unexpected argument 'z'"], "build", "--base", "x", "--out", "y", "z")
        self.refused(USAGE, ["--out: empty value"], "build", "--base", "x", "--out", "")
        self.refused(USAGE, ["missing argument: IN OUT"], "convert", "x")
        self.refused(USAGE, ["exclude each other"], "sweep", "--json", "--csv", "--index", "x", "--query", "y",
                     "--gt", "z")

    def test_numbers_are_strict(self):
        common = ("gt", "--base", "x", "--query", "y", "--out", "z")
        for text in ["0", "-1", "+1", "1.5", "ten", " 1", "1 ", "1e3", "0x10", "18446744073709551616"]:
            self.refused(USAGE, ["--k %s" % text, "at least 1"], *common, "--k", text)
        for text in ["1025", "-1", "two"]:
            self.refused(USAGE, ["--threads %s" % text, "0..1024"], *common, "--threads", text)
        for text in ["2X", "G", "-1G", "1.5G", "1 G", "20000000T"]:
            self.refused(USAGE, ["--memory %s" % text, "512M"], *common, "--memory", text)
        for text in ["nan", "inf", "1e999", "1,5", "x"]:
            self.refused(USAGE, ["--radius %s" % text], *common, "--radius", text)
        self.refused(USAGE, ["--metric l3", "l2|ip|cosine"], *common, "--metric", "l3")

    def test_full_output(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            for arguments in [["--version"], ["--help"], ["info", self.at("base.fvecs")],
                              ["info", "--json", self.at("base.fvecs")]]:
                done = subprocess.run([KITH, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
                self.assertEqual(done.returncode, IO, arguments)
                self.assertIn("standard output", done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1)


class Build(CliTest):
    def test_report_and_files(self):
        out = self.at("report.kith")
        report = self.kith_json("build", "--base", self.at("base.fvecs"), "--out", out, "--threads", "2")
        self.assertEqual((report["spec"], report["count"], report["dim"]), ("Flat", BASE_COUNT, DIM))
        self.assertEqual(report["file_bytes"], os.path.getsize(out))
        self.assertGreaterEqual(report["memory_bytes"], BASE_COUNT * DIM * 4)
        self.assertIn("build time", self.kith_ok("build", "--base", self.at("base.fvecs"), "--out", out))

    def test_stored_type(self):
        for arguments, spec in [
            (["--base", self.at("base.bvecs")], "Flat,u8"),
            (["--base", self.at("base.bvecs"), "--store", "f16"], "Flat,f16"),
            (["--base", self.at("base.fvecs"), "--store", "bf16"], "Flat,bf16"),
            (["--base", self.at("base.bvecs"), "--spec", "Flat,i8"], "Flat,i8"),
        ]:
            report = self.kith_json("build", *arguments, "--out", self.at("typed.kith"))
            self.assertEqual(report["spec"], spec)
        self.refused(USAGE, ["--store f16", "names what is stored"], "build", "--base", self.at("base.fvecs"),
                     "--spec", "Flat,u8", "--store", "f16", "--out", self.at("no.kith"))

    def test_choice_within_a_budget(self):
        """A little less than what a graph takes makes it the next one; below the smallest there is a number."""
        base = ["build", "--spec", "HNSW", "--base", self.at("graph.fvecs"), "--out", self.at("graph.kith")]
        write_vecs(self.at("graph.fvecs"), small_integers(2000, 40, 3), "f")
        report, specs = self.kith_json(*base), []
        self.assertEqual(report["spec"], "HNSW32,Line64,RFlat")
        self.assertNotIn("choice", report)
        budget = 10**9
        for _ in range(5):
            report = self.kith_json(*base, "--budget-bytes", str(budget))
            specs.append(report["spec"])
            self.assertEqual(report["budget_bytes"], budget)
            self.assertLessEqual(abs(report["memory_bytes"] - report["estimated_bytes"]), 100)
            self.assertLessEqual(report["memory_bytes"], budget)
            self.assertTrue(report["choice"].startswith(report["spec"] + ", the first that %d bytes hold" % budget), report["choice"])
            budget = report["estimated_bytes"] - 1
        self.assertEqual(specs, ["HNSW32,Line64,RFlat", "HNSW32,Line64,Rf16", "HNSW16,Line64,Rf16", "HNSW16,Line64,RSQ8", "HNSW16,SQ8"])
        self.assertIn("chosen ", self.kith_ok(*base, "--budget-bytes", "1G"))
        self.assertEqual(self.kith_json("info", self.at("graph.kith"))[0]["spec"], specs[0])
        self.refused(MEMORY, ["create HNSW", "2000 vectors of 40 dimensions need ", "the budget is %d" % budget],
                     *base[:-1], self.at("no.kith"), "--budget-bytes", str(budget))
        bytes_of = ["build", "--spec", "HNSW", "--store", "u8", "--base", self.at("base.bvecs"), "--out", self.at("typed.kith")]
        self.assertEqual(self.kith_json(*bytes_of, "--budget-bytes", "1G")["spec"], "HNSW32,u8")
        flat = ["build", "--spec", "Flat", "--base", self.at("graph.fvecs")]
        self.kith_ok(*flat, "--out", self.at("flat.kith"), "--budget-bytes", "1M")
        self.refused(MEMORY, ["--spec Flat", "would take about", "--budget-bytes is 204800"], *flat, "--out", self.at("no.kith"),
                     "--budget-bytes", "200K")
        self.refused(MEMORY, ["--spec IVF4,Flat", "would take about"], "build", "--spec", "IVF4,Flat", "--base", self.at("graph.fvecs"),
                     "--out", self.at("no.kith"), "--budget-bytes", "200K")
        for spec in ["HNSW,SQ8", "HNSW,Flat"]:  # named as they are: a budget chooses nothing
            named = ["build", "--spec", spec, "--base", self.at("graph.fvecs")]
            report = self.kith_json(*named, "--out", self.at("named.kith"), "--budget-bytes", "1G")
            self.assertNotIn("choice", report)
            self.refused(MEMORY, ["--spec %s: would take about" % spec], *named, "--out", self.at("no.kith"),
                         "--budget-bytes", str(report["estimated_bytes"] - 1))
            exact = self.kith_json(*named, "--out", self.at("named.kith"), "--budget-bytes", str(report["estimated_bytes"]))
            self.assertLessEqual(exact["memory_bytes"], report["estimated_bytes"])
        self.refused(MEMORY, ["--spec HNSW8,Line64,RFlat: would take about"], "build", "--spec", "HNSW8,Line64,RFlat", "--base",
                     self.at("graph.fvecs"), "--out", self.at("no.kith"), "--budget-bytes", "200K")
        self.assertNotIn("no.kith", self.names())

    def test_budget_of_an_index_that_refines_by_the_file(self):
        """A twentieth of the rows, but at least 10,000, shows what it takes: each under its own number."""
        write_vecs(self.at("rows.fvecs"), small_integers(10500, 4, 5), "f")
        base = ["build", "--base", self.at("rows.fvecs"), "--out", self.at("rows.kith"), "--spec"]
        for spec in ["IVF4,SQ8,RFile", "HNSW4,RFile"]:
            report = self.kith_json(*base, spec, "--budget-bytes", "1G")
            self.assertLess(abs(report["memory_bytes"] / report["estimated_bytes"] - 1), 0.2)
            self.refused(MEMORY, ["--spec %s: would take about" % spec], *base, spec, "--budget-bytes", "20K")

    def test_type_that_no_index_stores(self):
        numbers = array.array("d", [x for row in self.base for x in row])
        write_npy(self.at("base64.npy"), BASE_COUNT, DIM, "<f8", numbers.tobytes())
        report = self.kith_json("build", "--base", self.at("base64.npy"), "--out", self.at("f64.kith"))
        self.assertEqual(report["spec"], "Flat")
        found = self.kith_json("search", "--index", self.at("f64.kith"), "--query", self.at("query.fvecs"), "--k", "3")
        self.assertEqual([row["id"] for row in found["results"]], [i for row in self.truth for i in row[:3]])

    def test_batches(self):
        """Batches of any size give the same index, ids and converted vectors among them."""
        numbers = array.array("d", [x for row in self.base for x in row])
        write_npy(self.at("rows64.npy"), BASE_COUNT, DIM, "<f8", numbers.tobytes())
        write_vecs(self.at("batch.ivecs"), [[3 * i] for i in range(BASE_COUNT)], "i")
        for base, ids in [("base.fvecs", []), ("rows64.npy", []), ("base.bvecs", ["--ids", self.at("batch.ivecs")])]:
            files = []
            for rows, batches in [(1, BASE_COUNT), (7, 72), (BASE_COUNT, 1), (10**15, 1)]:
                out = self.at("batch%d.kith" % len(files))
                report = self.kith_json("build", "--base", self.at(base), "--out", out, "--batch", str(rows), *ids)
                self.assertEqual((report["batch_count"], report["count"]), (batches, BASE_COUNT))
                self.assertEqual(report["train_count"], 0)
                with open(out, "rb") as file:
                    files.append(file.read())
            self.assertEqual(files[1:], files[:1] * 3)
        self.refused(USAGE, ["--batch"], "build", "--base", self.at("base.fvecs"), "--out", self.at("no.kith"),
                     "--batch", "0")
        self.refused(USAGE, ["--train"], "build", "--base", self.at("base.fvecs"), "--out", self.at("no.kith"),
                     "--train", "0")

    def test_ids(self):
        with open(self.at("ids.txt"), "w", encoding="utf-8") as file:
            file.writelines("%d\n" % (1000 + 2 * i) for i in range(BASE_COUNT))
        self.kith_ok("build", "--base", self.at("base.fvecs"), "--ids", self.at("ids.txt"), "--out",
                     self.at("ids.kith"))
        found = self.kith_json("search", "--index", self.at("ids.kith"), "--query", self.at("query.fvecs"), "--k", "1")
        self.assertEqual([row["id"] for row in found["results"]], [1000 + 2 * row[0] for row in self.truth])
        write_vecs(self.at("few.ivecs"), [[1], [2]], "i")
        self.refused(DATA, ["few.ivecs", "2 ids", "500 vectors"], "build", "--base", self.at("base.fvecs"), "--ids",
                     self.at("few.ivecs"), "--out", self.at("no.kith"))
        with open(self.at("bad.txt"), "w", encoding="utf-8") as file:
            file.write("1\n2\nthree\n")
        self.refused(DATA, ["bad.txt", "line 3", "three"], "build", "--base", self.at("base.fvecs"), "--ids",
                     self.at("bad.txt"), "--out", self.at("no.kith"))
        write_vecs(self.at("twice.ivecs"), [[7]] * BASE_COUNT, "i")
        self.refused(DATA, ["7"], "build", "--base", self.at("base.fvecs"), "--ids", self.at("twice.ivecs"), "--out",
                     self.at("no.kith"))
        self.refused(DATA, ["ids are integers"], "build", "--base", self.at("base.fvecs"), "--ids",
                     self.at("base.fvecs"), "--out", self.at("no.kith"))
        self.assertNotIn("no.kith", self.names())

    def test_bad_input(self):
        out = ["--out", self.at("no.kith")]
        self.refused(IO, ["absent.fvecs", "No such file"], "build", "--base", self.at("absent.fvecs"), *out)
        self.refused(USAGE, ["Flatt"], "build", "--spec", "Flatt", "--base", self.at("base.fvecs"), *out)
        rows = [list(row) for row in self.base]
        rows[17][3] = math.nan
        write_vecs(self.at("nan.fvecs"), rows, "f")
        self.refused(DATA, ["nan.fvecs", "17"], "build", "--base", self.at("nan.fvecs"), *out)
        rows[17] = [0.0] * DIM
        write_vecs(self.at("zero.fvecs"), rows, "f")
        self.refused(DATA, ["zero.fvecs", "17"], "build", "--metric", "cosine", "--base", self.at("zero.fvecs"), *out)
        with open(self.at("base.fvecs"), "rb") as file:
            whole = file.read()
        with open(self.at("cut.fvecs"), "wb") as file:
            file.write(whole[:-5])
        self.refused(DATA, ["cut.fvecs"], "build", "--base", self.at("cut.fvecs"), *out)
        with open(self.at("empty.fvecs"), "wb"):
            pass
        self.refused(DATA, ["empty.fvecs"], "build", "--base", self.at("empty.fvecs"), *out)
        self.assertNotIn("no.kith", self.names())


class Search(CliTest):
    def search(self, *arguments):
        return ("search", "--index", self.at("base.kith"), "--query", self.at("query.fvecs"), *arguments)

    def test_equals_brute_force(self):
        for extra in [[], ["--map"], ["--threads", "1"], ["--threads", "3"]]:
            report = self.kith_json(*self.search("--k", "10", "--out", self.at("r.ivecs"), "--distances",
                                                 self.at("r.fvecs"), *extra))
            self.assertEqual(read_vecs(self.at("r.ivecs"), "i"), [row[:10] for row in self.truth])
            for query, ids, values in zip(self.query, self.truth, read_vecs(self.at("r.fvecs"), "f")):
                self.assertEqual(values, [l2(query, self.base[i]) for i in ids[:10]])
            self.assertEqual((report["query_count"], report["k"], report["result_count"]), (QUERY_COUNT, 10, 200))

    def test_printed(self):
        table = self.kith_ok(*self.search("-k", "2"))
        self.assertEqual(len(table.splitlines()), 1 + 2 * QUERY_COUNT)
        rows = list(csv.DictReader(io.StringIO(self.kith_ok(*self.search("--k=2", "--csv")))))
        self.assertEqual([int(row["id"]) for row in rows], [i for row in self.truth for i in row[:2]])
        found = self.kith_json(*self.search("--k", "2"))["results"]
        self.assertEqual([row["id"] for row in found], [i for row in self.truth for i in row[:2]])
        self.assertEqual(found[0]["distance"], l2(self.query[0], self.base[found[0]["id"]]))

    def test_formats_agree(self):
        for name in ["r.ibin", "r.npy", "r2.ivecs"]:
            self.kith_ok(*self.search("--k", "5", "--out", self.at(name)))
            report = self.kith_json("eval", "--result", self.at(name), "--gt", self.at("gt.ivecs"), "--ranks", "1,5")
            self.assertEqual([at["intersection"] for at in report["measures"]], [1.0, 1.0])

    def test_filter_and_counts(self):
        allowed = sorted(random.Random(3).sample(range(BASE_COUNT), 7))
        write_vecs(self.at("allowed.ivecs"), [[i] for i in allowed], "i")
        self.kith_ok(*self.search("--k", "10", "--filter", self.at("allowed.ivecs"), "--out", self.at("f.ivecs"),
                                  "--counts", self.at("c.ivecs")))
        self.assertEqual(read_vecs(self.at("c.ivecs"), "i"), [[7]] * QUERY_COUNT)
        expected = [[i for i in row if i in allowed] + [-1] * 3 for row in self.truth]
        self.assertEqual(read_vecs(self.at("f.ivecs"), "i"), expected)

    def found(self, *filters):
        """The allowed ids of each query, nearest first."""
        self.kith_ok(*self.search("--k", str(BASE_COUNT), "--filter", *filters, "--out", self.at("f.ivecs")))
        return [[i for i in row if i >= 0] for row in read_vecs(self.at("f.ivecs"), "i")]

    def test_filter_expressions(self):
        numbers = random.Random(4)
        listed, bits = (set(numbers.sample(range(BASE_COUNT), count)) for count in (300, 200))
        with open(self.at("listed.txt"), "w", encoding="utf-8") as file:
            file.writelines("%d\n" % i for i in listed)
        data = bytearray((BASE_COUNT + 7) // 8)
        for i in bits:
            data[i // 8] |= 1 << i % 8
        with open(self.at("mask"), "wb") as file:
            file.write(data)
        names = {"L": self.at("listed.txt"), "I": "ids:" + self.at("listed.txt"), "B": "bits:" + self.at("mask")}
        everything = set(range(BASE_COUNT))
        for text, allowed in [
            ("{L}", listed), ("{B}", bits), ("range:7-30", set(range(7, 31))), ("range:490-", set(range(490, 500))),
            ("range:-5", set(range(6))), ("{I}&{B}", listed & bits), ("{L} | {B}", listed | bits),
            ("!{L}", everything - listed), ("!!{L}", listed), ("range:0-99 | {L} & {B}", set(range(100)) | listed & bits),
            ("(range:0-99 | {L}) & !{B}", (set(range(100)) | listed) - bits), ("!( {L}|{B} )", everything - listed - bits),
        ]:
            expected = [[i for i in row if i in allowed] for row in self.truth]
            self.assertEqual(self.found(text.format(**names)), expected, text)
        with open(self.at("short"), "wb") as file:
            file.write(data[:-1])
        self.refused(DATA, ["short", "62 bytes", "500 vectors", "63"], *self.search("--filter", "bits:" + self.at("short")))
        self.refused(IO, ["absent"], *self.search("--filter", "bits:" + self.at("absent")))
        for text, expected in [
            (" ", "character 2"), ("range:1-3 &", "character 12"), ("range:1-3 range:4-5", "character 11: & or |"),
            ("(range:1-3", "')'"), ("range:x-3", "range:x-3"), ("range:5", "range:5"), ("range:9-3", "above"),
            ("range:1-9223372036854775807", "2^63"), ("!" * 40 + "range:1-2", "32 deep"),
            ("|".join(["range:1-2"] * 70), "64 parts"),
        ]:
            self.refused(USAGE, ["--filter", expected], *self.search("--filter", text))

    def test_groups(self):
        groups = [i // 7 if i % 5 else -1 for i in range(BASE_COUNT - 20)]
        with open(self.at("groups.txt"), "w", encoding="utf-8") as file:
            file.writelines("%d\n" % group for group in groups)
        self.kith_ok(*self.search("--k", "6", "--groups", self.at("groups.txt"), "--out", self.at("g.ivecs"),
                                  "--group-out", self.at("gg.ivecs")))
        found = zip(read_vecs(self.at("g.ivecs"), "i"), read_vecs(self.at("gg.ivecs"), "i"))
        for row, (ids, numbers) in zip(self.truth, found):
            first = {}
            for i in row:
                if i < len(groups) and groups[i] >= 0:
                    first.setdefault(groups[i], i)
            self.assertEqual((numbers, ids), (list(first)[:6], list(first.values())[:6]))
        printed = self.kith_json(*self.search("--k", "6", "--groups", self.at("groups.txt")))["results"]
        self.assertEqual([row["group"] for row in printed[:6]], read_vecs(self.at("gg.ivecs"), "i")[0])
        self.refused(USAGE, ["--group-out"], *self.search("--group-out", self.at("x.ivecs")))
        self.refused(USAGE, ["--groups", "--radius"], *self.search("--groups", self.at("groups.txt"), "--radius", "1"))

    def test_report_and_deadline(self):
        summary = self.kith_json(*self.search("--k", "3", "--report", self.at("r.csv"), "--filter", "range:0-99",
                                              "--set", "max_distances=40"))
        with open(self.at("r.csv"), encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([int(row["query"]) for row in rows], list(range(QUERY_COUNT)))
        for row in rows:
            self.assertEqual((row["strategy"], row["distances"], row["limits"]), ("tested", "40", "distances"))
        self.assertEqual((summary["distances"], summary["cut_short"]), (40, 0))
        summary = self.kith_json(*self.search("--k", "3", "--deadline-us", "3600000000", "--out", self.at("r.ivecs")))
        self.assertEqual(summary["cut_short"], 0)
        self.refused(USAGE, ["--report", "--radius"], *self.search("--report", self.at("r.csv"), "--radius", "1"))
        self.refused(USAGE, ["deadline-us"], *self.search("--deadline-us", "0"))

    def test_range(self):
        radius = sorted(l2(self.query[0], row) for row in self.base)[25]
        self.kith_ok(*self.search("--radius", "%g" % radius, "--out", self.at("rr.ivecs"), "--counts",
                                  self.at("rc.ivecs"), "--distances", self.at("rd.fvecs")))
        inside = [[i for i in ids if l2(query, self.base[i]) <= radius] for query, ids in zip(self.query, self.truth)]
        self.assertEqual(read_vecs(self.at("rc.ivecs"), "i"), [[len(row)] for row in inside])
        self.assertEqual(read_vecs(self.at("rr.ivecs"), "i"), [[i] for row in inside for i in row])
        self.kith_ok("gt", "--base", self.at("base.fvecs"), "--query", self.at("query.fvecs"), "--radius",
                     "%g" % radius, "--out", self.at("tr.ivecs"), "--counts", self.at("tc.ivecs"))
        report = self.kith_json("eval", "--result", self.at("rr.ivecs"), "--result-counts", self.at("rc.ivecs"),
                                "--gt", self.at("tr.ivecs"), "--gt-counts", self.at("tc.ivecs"), "--per-query",
                                self.at("range.csv"))
        self.assertEqual((report["precision_overall"], report["recall_overall"]), (1.0, 1.0))
        lines = read_text(self.at("range.csv")).splitlines()
        self.assertEqual(lines[1], "0,%d,%d,%d" % ((len(inside[0]),) * 3))
        write_vecs(self.at("wrong.ivecs"), [[1]] * QUERY_COUNT, "i")
        self.refused(DATA, ["wrong.ivecs", "add up to 20"], "eval", "--result", self.at("rr.ivecs"),
                     "--result-counts", self.at("wrong.ivecs"), "--gt", self.at("tr.ivecs"), "--gt-counts",
                     self.at("tc.ivecs"))

    def test_set(self):
        self.kith_ok(*self.search("--set", "max_distances=50,threads=1", "--k", "3"))
        self.refused(USAGE, ["nprobes"], *self.search("--set", "nprobes=3"))
        self.refused(USAGE, ["name=value"], *self.search("--set", "fast"))
        self.refused(USAGE, ["threads"], *self.search("--set", "threads=-1"))

    def test_errors(self):
        self.refused(USAGE, ["--k 501", "500 vectors"], *self.search("--k", "501"))
        write_vecs(self.at("wide.fvecs"), [[1.0] * 17], "f")
        self.refused(DATA, ["wide.fvecs", "17", "16"], "search", "--index", self.at("base.kith"), "--query",
                     self.at("wide.fvecs"))
        self.refused(DATA, ["base.fvecs"], "search", "--index", self.at("base.fvecs"), "--query",
                     self.at("query.fvecs"))
        self.refused(IO, ["absent.kith"], "search", "--index", self.at("absent.kith"), "--query", "x")
        self.refused(IO, ["absent.txt"], *self.search("--filter", self.at("absent.txt")))
        write_vecs(self.at("inf.fvecs"), [self.query[0], [math.inf] * DIM], "f")
        self.refused(DATA, ["inf.fvecs", "1"], "search", "--index", self.at("base.kith"), "--query",
                     self.at("inf.fvecs"))


class Kmeans(CliTest):
    def test_each_vector_is_assigned_to_its_nearest(self):
        report = self.kith_json("kmeans", "--base", self.at("base.bvecs"), "--k", "9", "--out", self.at("c.fvecs"),
                                "--assign", self.at("a.ivecs"), "--seeding", "k-means++", "--runs", "2")
        centroids, assigned = read_vecs(self.at("c.fvecs"), "f"), read_vecs(self.at("a.ivecs"), "i")
        self.assertEqual((len(centroids), len(assigned)), (9, BASE_COUNT))
        objective = 0.0
        for row, (own,) in zip(self.base, assigned):
            distances = [l2(row, centroid) for centroid in centroids]
            self.assertLessEqual(distances[own], min(distances) * 1.0001)
            objective += min(distances)
        self.assertLessEqual(abs(report["objective"] - objective), 1e-4 * objective)

    def test_continues_from_given_centroids_at_any_thread_count(self):
        self.kith_ok("kmeans", "--base", self.at("base.fvecs"), "--k", "5", "--iterations", "2", "--out",
                     self.at("first.npy"))
        for threads in "1", "2":
            self.kith_ok("kmeans", "--base", self.at("base.fvecs"), "--k", "5", "--initial", self.at("first.npy"),
                         "--threads", threads, "--out", self.at("next%s.npy" % threads))
        with open(self.at("next1.npy"), "rb") as one, open(self.at("next2.npy"), "rb") as two:
            self.assertEqual(one.read(), two.read())

    def test_warns_of_few_vectors_once(self):
        done = self.kith("kmeans", "--base", self.at("base.fvecs"), "--k", "13", "--iterations", "1", "--quiet")
        self.assertEqual((done.returncode, done.stderr), (0, "kith kmeans: warning: k-means: 500 vectors for 13 centroids; "
                                                             "at least 507 are recommended\n"))
        done = self.kith("kmeans", "--base", self.at("base.fvecs"), "--k", "12", "--iterations", "1")
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_batches_need_no_more_memory_than_they_say(self):
        report = self.kith_json("kmeans", "--base", self.at("base.bvecs"), "--k", "9", "--mini-batch", "100", "--memory",
                                "1M", "--iterations", "4", "--out", self.at("c.fvecs"), "--assign", self.at("a.ivecs"))
        centroids, assigned = read_vecs(self.at("c.fvecs"), "f"), read_vecs(self.at("a.ivecs"), "i")
        self.assertEqual((len(centroids), len(assigned), report["point_count"]), (9, BASE_COUNT, BASE_COUNT))
        objective = sum(min(l2(row, centroid) for centroid in centroids) for row in self.base)
        self.assertLessEqual(abs(report["objective"] - objective), 1e-4 * objective)

    def test_errors(self):
        common = ["kmeans", "--base", self.at("base.fvecs"), "--out", self.at("no.npy")]
        self.refused(USAGE, ["batches", "4"], *common, "--k", "5", "--mini-batch", "4")
        self.refused(MEMORY, ["budget"], *common, "--k", "5", "--mini-batch", "50", "--memory", "1K")
        self.refused(USAGE, ["--k"], *common)
        self.refused(USAGE, ["501", "500"], *common, "--k", "501")
        self.refused(USAGE, ["seeding"], *common, "--k", "5", "--seeding", "best")
        self.refused(USAGE, ["balance"], *common, "--k", "5", "--balance", "0.5")
        self.refused(DATA, ["first", "4"], *common, "--k", "4", "--initial", self.at_first(3))
        self.refused(IO, ["absent.fvecs"], "kmeans", "--base", self.at("absent.fvecs"), "--k", "5")
        self.refused(MEMORY, ["budget"], *common, "--k", "5", "--memory", "1K")
        self.assertFalse(os.path.exists(self.at("no.npy")))

    def at_first(self, count):
        write_vecs(self.at("first.fvecs"), self.base[:count], "f")
        return self.at("first.fvecs")


class Quant(CliTest):
    def test_what_a_code_loses(self):
        common = ["quant", "--base", self.at("base.fvecs")]
        exact = self.kith_json(*common, "--spec", "Flat", "--query", self.at("query.fvecs"), "--gt", self.at("gt.ivecs"))
        self.assertEqual((exact["code_bytes"], exact["f32_ratio"], exact["squared_error"]), (4 * DIM, 1, 0))
        self.assertEqual((exact["recall"], exact["k"], exact["train_count"]), (1, 10, 0))
        reports = [self.kith_json(*common, "--spec", spec, "--train", "0", "--query", self.at("query.fvecs"), "--gt",
                                  self.at("gt.ivecs"), "--threads", "2") for spec in ("SQ8", "SQ4", "SQ2")]
        for fine, coarse in zip(reports, reports[1:]):
            self.assertLess(fine["squared_error"], coarse["squared_error"])
            self.assertLess(fine["f32_ratio"], coarse["f32_ratio"])
            self.assertGreaterEqual(fine["recall"], coarse["recall"])
        mean = [sum(row[d] for row in self.base) / BASE_COUNT for d in range(DIM)]
        variance = sum(l2(row, mean) for row in self.base) / BASE_COUNT
        for report in reports:
            self.assertEqual((report["count"], report["dim"], report["train_count"]), (BASE_COUNT, DIM, BASE_COUNT))
            self.assertAlmostEqual(report["relative_error"], report["squared_error"] / variance, delta=1e-5)
        self.assertGreater(reports[0]["recall"], 0.9)
        rounded = [self.kith_json(*common, "--spec", spec, "--train", "0", "--query", self.at("query.fvecs"), "--gt",
                                  self.at("gt.ivecs"), "--symmetric")["recall"] for spec in ("SQ8", "SQ2")]
        self.assertGreater(rounded[0], 0.9)
        self.assertLess(rounded[1], reports[2]["recall"])
        sampled = self.kith_json(*common, "--spec", "SQ8", "--train", "100", "--metric", "cosine")
        self.assertEqual(sampled["train_count"], 100)
        self.assertNotIn("recall", sampled)

    def test_errors(self):
        common = ["quant", "--base", self.at("base.fvecs")]
        self.refused(USAGE, ["--spec"], *common)
        self.refused(USAGE, ["character 2"], *common, "--spec", "SQ9")
        self.refused(USAGE, ["no code"], *common, "--spec", "IVF16,SQ8")
        self.refused(USAGE, ["--gt"], *common, "--spec", "SQ8", "--query", self.at("query.fvecs"))
        self.refused(USAGE, ["--symmetric"], *common, "--spec", "SQ8", "--symmetric")
        write_vecs(self.at("half.fvecs"), [[0.5] * DIM], "f")
        self.refused(DATA, ["half.fvecs", "cannot hold"], "quant", "--base", self.at("half.fvecs"), "--spec", "u8")
        self.refused(IO, ["absent.fvecs"], "quant", "--base", self.at("absent.fvecs"), "--spec", "SQ8")


class GroundTruth(CliTest):
    def test_equals_brute_force(self):
        self.assertEqual(read_vecs(self.at("gt.ivecs"), "i"), [row[:100] for row in self.truth])
        values = read_vecs(self.at("gt.fvecs"), "f")
        self.assertEqual(values[3], [l2(self.query[3], self.base[i]) for i in self.truth[3][:100]])

    def test_memory_and_stream_change_nothing(self):
        with open(self.at("gt.ivecs"), "rb") as file:
            whole = file.read()
        for extra in [["--stream"], ["--memory", "8M"], ["--memory", "8M", "--stream", "--threads", "1"]]:
            report = self.kith_json("gt", "--base", self.at("base.fvecs"), "--query", self.at("query.fvecs"), "--k",
                                    "100", "--out", self.at("gt2.ivecs"), *extra)
            with open(self.at("gt2.ivecs"), "rb") as file:
                self.assertEqual(file.read(), whole)
            self.assertGreater(report["process_bytes_peak"], 0)
            if "--memory" in extra:
                self.assertLessEqual(report["scratch_bytes_peak"], 8 << 20)

    def test_errors(self):
        common = ["gt", "--base", self.at("base.fvecs"), "--out", self.at("no.ivecs"), "--query"]
        query = self.at("query.fvecs")
        self.refused(USAGE, ["--k 501", "500 vectors"], *common, query, "--k", "501")
        self.refused(MEMORY, ["memory"], *common, query, "--memory", "1K")
        self.refused(USAGE, ["--counts goes with --radius"], *common, query, "--counts", "x.ivecs")
        write_vecs(self.at("narrow.fvecs"), [[1.0] * 15], "f")
        self.refused(DATA, ["narrow.fvecs", "15", "16"], *common, self.at("narrow.fvecs"))
        self.assertNotIn("no.ivecs", self.names())


class Evaluate(CliTest):
    def test_measures(self):
        worse = [[-1] + row[:9] for row in self.truth]
        write_vecs(self.at("worse.ivecs"), worse, "i")
        report = self.kith_json("eval", "--result", self.at("worse.ivecs"), "--gt", self.at("gt.ivecs"),
                                "--per-query", self.at("terms.csv"))
        self.assertEqual([at["rank"] for at in report["measures"]], [1, 10])
        self.assertEqual([at["intersection"] for at in report["measures"]], [0.0, 0.9])
        self.assertEqual([at["recall_1"] for at in report["measures"]], [0.0, 1.0])
        self.assertEqual(report["short_query_count"], QUERY_COUNT)
        rows = list(csv.DictReader(io.StringIO(read_text(self.at("terms.csv")))))
        self.assertEqual([(row["nearest_rank"], row["intersection_10"]) for row in rows], [("2", "9")] * QUERY_COUNT)

    def test_at_least(self):
        write_vecs(self.at("worse.ivecs"), [[-1] + row[:9] for row in self.truth], "i")
        common = ["eval", "--result", self.at("worse.ivecs"), "--gt", self.at("gt.ivecs")]
        self.kith_ok(*common, "--at-least", "0.9")
        done = self.kith(*common, "--at-least", "0.95")
        self.assertEqual(done.returncode, CHECK)
        self.assertIn("intersection at 10 is 0.900000, below 0.95", done.stderr)
        self.kith_ok(*common, "--at-least", "1", "--measure", "recall_1")

    def test_distances(self):
        common = ["eval", "--result", self.at("gt.ivecs"), "--gt", self.at("gt.ivecs"), "--metric", "l2"]
        plain = self.kith_json(*common)["measures"]
        self.assertIsNone(plain[0]["recall_distance"])
        given = self.kith_json(*common, "--gt-distances", self.at("gt.fvecs"), "--result-distances",
                               self.at("gt.fvecs"))["measures"]
        computed = self.kith_json(*common, "--base", self.at("base.fvecs"), "--query", self.at("query.fvecs"))
        self.assertEqual(given, computed["measures"])
        self.assertEqual([at["recall_distance"] for at in given], [1.0] * len(given))

    def test_errors(self):
        write_vecs(self.at("short.ivecs"), [row[:10] for row in self.truth[:-1]], "i")
        gt = ["--gt", self.at("gt.ivecs")]
        self.refused(DATA, ["19", "20"], "eval", "--result", self.at("short.ivecs"), *gt)
        self.refused(DATA, ["query.fvecs"], "eval", "--result", self.at("query.fvecs"), *gt)
        self.refused(USAGE, ["--ranks 10,1"], "eval", "--result", self.at("gt.ivecs"), *gt, "--ranks", "10,1")
        self.refused(USAGE, ["1000"], "eval", "--result", self.at("gt.ivecs"), *gt, "--ranks", "1000")
        self.refused(USAGE, ["--base and --query"], "eval", "--result", "x", *gt, "--base", "y")
        self.refused(USAGE, ["go together"], "eval", "--result", "x", *gt, "--gt-counts", "y")


class Sweep(CliTest):
    def test_points(self):
        common = ["sweep", "--index", self.at("base.kith"), "--query", self.at("query.fvecs"), "--gt",
                  self.at("gt.ivecs"), "--set", "max_distances=100,250,0", "--repeats", "1", "--threads", "2"]
        report = self.kith_json(*common)
        points = report["points"]
        self.assertEqual([point["set"]["max_distances"] for point in points], ["100", "250", "0"])
        for limit, point in zip([100, 250, BASE_COUNT], points):
            kept = [sum(1 for i in row[:10] if i < limit) for row in self.truth]
            self.assertAlmostEqual(point["recall"], sum(kept) / (10 * QUERY_COUNT), places=12)
            self.assertGreater(point["qps_1"], 0)
            self.assertGreater(point["latency_p99_seconds"], 0)
        self.assertEqual(points[2]["recall"], 1.0)
        rows = list(csv.DictReader(io.StringIO(self.kith_ok(*common, "--csv"))))
        self.assertEqual([float(row["recall_at_10"]) for row in rows], [point["recall"] for point in points])
        table = self.kith_ok(*common)
        self.assertIn("recall@10", table)
        self.assertRegex(table, r"\nthe front of +recall +QPS, 1 thread +QPS +threads\nFlat +0\.9 ")
        front = [(point["recall"], point["qps_1"]) for point in points if point["is_pareto_1"]]
        for rate, wanted in zip(report["at_recall"], [0.9, 0.95, 0.99]):
            self.assertEqual(rate["recall"], wanted)
            rates = [qps for recall, qps in front]
            self.assertTrue(min(rates) * 0.999 <= rate["qps_1"] <= max(rates) * 1.001, report)

    def test_bench_index(self):
        common = ["bench", "index", "--base", self.at("base.fvecs"), "--query", self.at("query.fvecs"), "--k", "100",
                  "--repeats", "1"]
        report = self.kith_json(*common, "--spec", "Flat", "--spec", "Flat,f16")
        self.assertEqual([point["spec"] for point in report["points"]], ["Flat", "Flat,f16"])
        for point in report["points"]:
            self.assertEqual([point["recall_at_%d" % k] for k in (1, 10, 100)], [1.0, 1.0, 1.0])
            self.assertGreater(point["build_seconds"], 0)
        fastest = max(report["points"], key=lambda point: point["qps_1"])
        self.assertEqual([point["is_pareto_1"] for point in report["points"]],
                         [point["qps_1"] == fastest["qps_1"] for point in report["points"]])
        table = self.kith_ok(*common, "--gt", self.at("gt.ivecs"))
        self.assertEqual(len(report["at_recall"]), 6)
        self.assertNotIn("the front of", table)
        self.assertIn("the front of", self.kith_ok(*common, "--set", "max_distances=100,0"))
        for title in ["index", "recall@1 ", "recall@10 ", "recall@100", "QPS", "p50", "p99", "memory", "build time"]:
            self.assertIn(title, table)

    def test_errors(self):
        common = ["sweep", "--index", self.at("base.kith"), "--query", self.at("query.fvecs"), "--gt",
                  self.at("gt.ivecs")]
        self.refused(USAGE, ["nprobe"], *common, "--set", "nprobe=1")
        self.refused(USAGE, [], *common, "--set", "max_distances")
        self.refused(USAGE, ["101"], *common, "--k", "101")


class Tune(CliTest):
    def common(self):
        return ["tune", "--index", self.at("base.kith"), "--query", self.at("query.fvecs"), "--gt", self.at("gt.ivecs")]

    def test_index(self):
        """The bound on distances is chosen on half of the queries: the other half's recall is that of a search with it."""
        report = self.kith_json(*self.common(), "--recall", "0.5", "--sure", "0.5")
        best = report["best"]
        self.assertEqual(report["indexes"], [best])
        self.assertTrue(best["is_reached"])
        bound = int(best["set"]["max_distances"])
        self.assertEqual(best["parameters"], "max_distances=%d" % bound)
        self.assertTrue(100 < bound < 400, bound)
        kept = sum(1 for row in self.truth for i in row[:10] if i < bound)
        halves = best["recall"] * best["check_count"] + best["recall_chosen"] * best["choose_count"]
        self.assertAlmostEqual(halves * 10, kept, places=6)
        self.assertGreaterEqual(best["recall_chosen"], 0.5)
        self.assertTrue(best["recall_low"] <= best["recall"] <= best["recall_high"])
        table = self.kith_ok(*self.common(), "--recall", "0.5", "--threads", "2", "--map")
        self.assertRegex(table, r"\n  --set max_distances=\d+\n$")
        self.assertIn("95% interval", table)

    def test_prefetch(self):
        """What a graph asks for ahead is measured, kept in the file, and told; nothing that is found changes."""
        graph, tuned = self.at("ahead.kith"), self.at("tuned.kith")
        self.kith_ok("build", "--spec", "HNSW4", "--base", self.at("base.fvecs"), "--out", graph)
        report = self.kith_json("tune", "--index", graph, "--prefetch", "--out", tuned)
        self.assertEqual(report["before"], "links 2, row_lines 8, walks 2")
        self.assertEqual(len(report["trials"]), 10)
        for trial in report["trials"]:
            if trial["is_taken"]:
                self.assertTrue(trial["time_share"] <= 0.98 and trial["faster_count"] >= 10, trial)
        self.assertEqual(self.kith_json("info", tuned)[0]["prefetch"], report["chosen"])
        self.assertIn("asked for ahead", self.kith_ok("info", graph))
        self.assertIn("queries/s, in " + graph, self.kith_ok("tune", "--index", graph, "--prefetch"))
        self.refused(USAGE, ["--prefetch goes with --index"], "tune", *self.common()[1:], "--prefetch")
        self.refused(DATA, ["has no graph"], "tune", "--index", self.at("base.kith"), "--prefetch")
        self.refused(USAGE, ["--query is needed"], "tune", "--index", graph)

    def test_specs(self):
        """Of two indexes one is over the budget; the other is chosen, and is what is written."""
        out = self.at("best.kith")
        base = self.at("many.fvecs") # more than the least memory that an index takes
        write_vecs(base, small_integers(8000, DIM, 4), "f")
        budget = "%dK" % (8 * DIM * 2)
        common = ["tune", "--base", base, "--query", self.at("query.fvecs"), "--repeats", "1"]
        report = self.kith_json(*common, "--spec", "Flat,f32", "--spec", "Flat,u8", "--budget-bytes", budget, "--out", out)
        self.assertEqual([one["is_within_budget"] for one in report["indexes"]], [False, True])
        self.assertNotIn("recall", report["indexes"][0])
        self.assertEqual(report["best"]["spec"], "Flat,u8")
        self.assertGreaterEqual(report["best"]["recall"], 0.9)
        self.assertEqual(self.kith_json("info", out)[0]["spec"], "Flat,u8")
        again = self.kith_json(*common, "--spec", "Flat,f32", "--spec", "Flat,u8")
        self.assertEqual(len([one for one in again["indexes"] if one["is_reached"]]), 2)
        done = self.kith(*common, "--spec", "Flat,f32", "--budget-bytes", budget)
        self.assertEqual((done.returncode, done.stderr), (CHECK, ""))
        self.assertIn("No index reaches a recall of 0.95 within the budget.", done.stdout)

    def test_out_of_reach(self):
        done = self.kith(*self.common(), "--set", "max_distances=100,200", "--json")
        self.assertEqual((done.returncode, done.stderr), (CHECK, ""))
        report = json.loads(done.stdout)
        self.assertIsNone(report["best"])
        self.assertEqual(report["indexes"][0]["parameters"], "max_distances=200")

    def test_errors(self):
        query = ["--query", self.at("query.fvecs")]
        base = ["--base", self.at("base.fvecs")]
        index = ["--index", self.at("base.kith")]
        self.refused(USAGE, ["--index or --base"], "tune", *query)
        self.refused(USAGE, ["--index or --base"], "tune", *query, *base, *index)
        self.refused(USAGE, ["go with --base"], *self.common(), "--spec", "Flat")
        self.refused(USAGE, ["--gt is needed"], "tune", *query, *index)
        self.refused(USAGE, ["recall = 1.5"], *self.common(), "--recall", "1.5")
        self.refused(USAGE, ["sure = 0.2"], *self.common(), "--sure", "0.2")
        self.refused(USAGE, ["nprobe"], *self.common(), "--set", "nprobe=1")
        write_vecs(self.at("few.fvecs"), self.query[:19], "f")
        write_vecs(self.at("few-gt.ivecs"), [row[:10] for row in self.truth[:19]], "i")
        self.refused(USAGE, ["19 queries"], "tune", *index, "--query", self.at("few.fvecs"), "--gt", self.at("few-gt.ivecs"))
        self.refused(USAGE, ["Nope"], "tune", *query, *base, "--spec", "Nope")


class InvertedLists(CliTest):
    """The commands on an index that is trained and has lists and parameters."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.wide = small_integers(3000, DIM, 3)
        write_vecs(cls.at("wide.fvecs"), cls.wide, "f")
        write_vecs(cls.at("many.fvecs"), small_integers(200, DIM, 4), "f")
        cls.kith_ok("gt", "--base", cls.at("wide.fvecs"), "--query", cls.at("many.fvecs"), "--k", "10", "--out",
                    cls.at("many.ivecs"))
        cls.report = cls.kith_json("build", "--spec", "IVF16,SQ8", "--base", cls.at("wide.fvecs"), "--out",
                                   cls.at("ivf.kith"))
        cls.measured = ["--index", cls.at("ivf.kith"), "--query", cls.at("many.fvecs"), "--gt", cls.at("many.ivecs"),
                        "--repeats", "1"]

    def build(self, *arguments):
        out = self.at("sampled.kith")
        report = self.kith_json("build", "--spec", "IVF16,SQ8", "--base", self.at("wide.fvecs"), "--out", out, *arguments)
        with open(out, "rb") as file:
            return report, file.read()

    def test_training_sample(self):
        self.assertEqual(self.report["train_count"], 3000)  # what is recommended is more than there is
        first, bytes_1 = self.build("--train", "1000", "--threads", "1")
        again, bytes_2 = self.build("--train", "1000", "--threads", "2")
        other, bytes_3 = self.build("--train", "1000", "--seed", "2")
        self.assertEqual([one["train_count"] for one in (first, again, other)], [1000] * 3)
        self.assertEqual(bytes_1, bytes_2)
        self.assertNotEqual(bytes_1, bytes_3)

    def test_batches_find_the_same(self):
        self.build("--batch", "700", "--train", "3000")
        rows = []
        for name in ["ivf.kith", "sampled.kith"]:
            found = self.kith_json("search", "--index", self.at(name), "--query", self.at("many.fvecs"), "--set",
                                   "nprobe=4")
            rows.append([(row["query"], row["id"], row["distance"]) for row in found["results"]])
        self.assertEqual(*rows)

    def test_vectors_stay_in_their_file(self):
        wide, many = self.at("wide.fvecs"), self.at("many.fvecs")
        rows = []
        for spec, more in [("IVF16,SQ4,RFlat", []), ("IVF16,SQ4,RFile", ["--vectors", wide])]:
            self.kith_ok("build", "--spec", spec, "--base", wide, "--out", self.at("v.kith"), "--batch", "700")
            found = self.kith_json("search", "--index", self.at("v.kith"), "--query", many, "--map", *more)
            rows.append([(row["query"], row["id"], row["distance"]) for row in found["results"]])
        self.assertEqual(*rows)
        self.kith_ok("verify", self.at("v.kith"))
        self.kith_json("sweep", "--index", self.at("v.kith"), *self.measured[2:], "--vectors", wide)
        self.kith_json("tune", "--index", self.at("v.kith"), "--query", many, "--gt", self.at("many.ivecs"), "--vectors",
                       wide)
        self.refused(USAGE, ["needs the file of its vectors"], "search", "--index", self.at("v.kith"), "--query", many)
        self.refused(DATA, ["200 rows", "3000"], "search", "--index", self.at("v.kith"), "--query", many, "--vectors",
                     many)
        self.refused(DATA, ["has no use"], "search", "--index", self.at("ivf.kith"), "--query", many, "--vectors", wide)

    def test_range_of_a_refinement(self):
        self.kith_ok("build", "--spec", "IVF16,SQ4,RFlat", "--base", self.at("wide.fvecs"), "--out", self.at("r.kith"))
        self.kith_ok("search", "--index", self.at("r.kith"), "--query", self.at("many.fvecs"), "--radius", "40",
                     "--set", "nprobe=16,k_factor=64", "--out", self.at("r.ivecs"), "--counts", self.at("rc.ivecs"))
        self.kith_ok("gt", "--base", self.at("wide.fvecs"), "--query", self.at("many.fvecs"), "--radius", "40",
                     "--out", self.at("t.ivecs"), "--counts", self.at("tc.ivecs"))
        self.assertEqual(read_vecs(self.at("rc.ivecs"), "i"), read_vecs(self.at("tc.ivecs"), "i"))
        self.assertEqual(read_vecs(self.at("r.ivecs"), "i"), read_vecs(self.at("t.ivecs"), "i"))

    def test_info(self):
        (report,) = self.kith_json("info", self.at("ivf.kith"))
        lists = report["lists"]
        self.assertEqual((report["spec"], lists["count"]), ("IVF16,SQ8", 16))
        self.assertAlmostEqual(lists["mean"], 3000 / 16)
        self.assertTrue(lists["min"] <= lists["median"] <= lists["p99"] <= lists["max"])
        self.assertGreaterEqual(lists["imbalance"], 1.0)
        self.assertIn("nprobe", [row["name"] for row in report["parameters"]])
        self.assertIn("inverted lists", self.kith_ok("info", self.at("ivf.kith")))

    def test_sweep_and_tune(self):
        points = self.kith_json("sweep", *self.measured, "--set", "nprobe=1,2,4,8,16")["points"]
        recalls = [point["recall"] for point in points]
        self.assertEqual(recalls, sorted(recalls))
        self.assertGreater(recalls[-1], 0.85)
        self.assertLess(recalls[0], recalls[-1])
        wanted = 0.8 * recalls[-1]
        best = self.kith_json("tune", *self.measured, "--recall", str(wanted), "--sure", "0.5")["best"]
        probes = int(best["set"]["nprobe"])
        found = self.kith_json("sweep", *self.measured, "--set", "nprobe=%d" % probes)["points"][0]["recall"]
        halves = (best["recall"] * best["check_count"] + best["recall_chosen"] * best["choose_count"]) / 200
        self.assertAlmostEqual(found, halves, places=9)
        self.assertGreaterEqual(best["recall_chosen"], wanted)
        self.assertLess(probes, 16)
        done = self.kith("tune", *self.measured, "--recall", "1")
        self.assertEqual(done.returncode, CHECK)

    def test_tune_chooses_an_index(self):
        common = ["tune", "--base", self.at("wide.fvecs"), "--query", self.at("many.fvecs"), "--gt",
                  self.at("many.ivecs"), "--repeats", "1", "--latency-queries", "50", "--out", self.at("chosen.kith")]
        report = self.kith_json(*common)
        tried = report["indexes"]
        self.assertGreaterEqual(len(tried), 4)
        specs = [one["spec"] for one in tried]
        self.assertEqual(specs[0], "HNSW32")  # which is what "HNSW32,Flat" is as well: built once
        self.assertEqual(len(set(specs)), len(specs))
        reached = [one for one in tried if one["is_reached"]]
        self.assertEqual(report["best"], max(reached, key=lambda one: one["qps_1"]))
        self.assertEqual(self.kith_json("info", self.at("chosen.kith"))[0]["spec"], report["best"]["spec"])
        least = min(one["memory_bytes"] for one in tried)
        fitting = self.kith(*common, "--budget-bytes", str(least + least // 20), "--json")
        within = [one["is_within_budget"] for one in json.loads(fitting.stdout)["indexes"]]
        self.assertEqual(within.count(True), 1, fitting.stdout)

    def test_tune_leaves_vectors_in_their_file(self):
        """What stays in the file of --base is no memory of the index: under a budget RFile remains where RFlat does not fit."""
        common = ["tune", "--base", self.at("wide.fvecs"), "--query", self.at("many.fvecs"), "--gt", self.at("many.ivecs"), "--recall", "0.5",
                  "--repeats", "1", "--latency-queries", "0", "--spec", "IVF16,SQ4,RFlat", "--spec", "IVF16,SQ4,RFile",
                  "--set", "nprobe=8,k_factor=8"]  # of several settings the clock would choose, for each index its own
        in_memory, in_file = self.kith_json(*common)["indexes"]
        self.assertEqual(in_memory["set"], {"nprobe": "8", "k_factor": "8"})
        for name in ["set", "is_reached", "recall", "recall_chosen", "trial_count"]:
            self.assertEqual(in_memory[name], in_file[name], name)
        self.assertLess(in_file["memory_bytes"], in_memory["memory_bytes"])
        budget = (in_memory["memory_bytes"] + in_file["memory_bytes"]) // 2
        report = self.kith_json(*common, "--budget-bytes", str(budget), "--out", self.at("filed.kith"))
        self.assertEqual([one["is_within_budget"] for one in report["indexes"]], [False, True])
        self.assertEqual(report["best"]["spec"], "IVF16,SQ4,RFile")
        search = ["search", "--index", self.at("filed.kith"), "--query", self.at("many.fvecs")]
        self.kith_json(*search, "--vectors", self.at("wide.fvecs"))
        self.refused(USAGE, ["needs the file of its vectors"], *search)
        done = self.kith(*common, "--budget-bytes", "10K")
        self.assertEqual((done.returncode, done.stderr), (CHECK, ""))
        self.assertIn("within the budget", done.stdout)

    def test_nprobe_out_of_range(self):
        search = ["search", "--index", self.at("ivf.kith"), "--query", self.at("many.fvecs")]
        self.refused(USAGE, ["nprobe", "0"], *search, "--set", "nprobe=0")
        self.refused(USAGE, ["nprobe"], *search, "--set", "nprobe=-1")
        found = [self.kith_json(*search, "--set", "nprobe=" + count)["results"] for count in ("16", "100000")]
        self.assertEqual(*found)  # more than there are: all


class Convert(CliTest):
    def test_there_and_back(self):
        for name in ["x.fbin", "x.npy", "x.idx"]:
            self.kith_ok("convert", self.at("base.fvecs"), self.at(name))
            self.kith_ok("convert", self.at(name), self.at("back.fvecs"))
            self.assertEqual(read_vecs(self.at("back.fvecs"), "f"), self.base, name)
        for name in ["x.u8bin", "x.bvecs"]:
            self.kith_ok("convert", self.at("base.fvecs"), self.at(name))
            self.kith_ok("convert", self.at(name), self.at("back.bvecs"))
            self.assertEqual(read_vecs(self.at("back.bvecs"), "B"), read_vecs(self.at("base.bvecs"), "B"))

    def test_raw_rows_and_types(self):
        data = bytes(range(240))
        with open(self.at("x.raw"), "wb") as file:
            file.write(data)
        report = self.kith_json("convert", "--from", "raw", "--from-dtype", "u8", "--dim", "24", "--rows", "2:5",
                                self.at("x.raw"), self.at("raw.fvecs"))
        self.assertEqual((report["count"], report["dim"], report["dtype"]), (3, 24, "f32"))
        self.assertEqual(read_vecs(self.at("raw.fvecs"), "f"), [[float(x) for x in range(24 * i, 24 * i + 24)]
                                                                 for i in range(2, 5)])
        self.kith_ok("convert", "--to", "raw", "--dtype", "u8", self.at("raw.fvecs"), self.at("y.raw"))
        with open(self.at("y.raw"), "rb") as file:
            self.assertEqual(file.read(), data[48:120])
        with gzip.open(self.at("t-idx3-ubyte.gz"), "wb") as file:
            file.write(struct.pack(">IIII", 0x803, 2, 3, 4) + bytes(range(24)))
        self.kith_ok("convert", self.at("t-idx3-ubyte.gz"), self.at("t.bvecs"))
        self.assertEqual(read_vecs(self.at("t.bvecs"), "B"), [list(range(12)), list(range(12, 24))])

    def test_errors(self):
        base = self.at("base.fvecs")
        self.refused(USAGE, ["--from-dtype and --dim"], "convert", "--from", "raw", base, self.at("no.fvecs"))
        self.refused(USAGE, ["--rows 5:2"], "convert", "--rows", "5:2", base, self.at("no.fvecs"))
        self.refused(USAGE, ["--dtype u8", "fvecs"], "convert", "--to", "fvecs", "--dtype", "u8", base, self.at("no"))
        write_vecs(self.at("half.fvecs"), [[0.5] * DIM], "f")
        self.refused(DATA, ["0.5"], "convert", self.at("half.fvecs"), self.at("no.bvecs"))
        done = self.kith("convert", base, self.at("no.unknown"))
        self.assertIn(done.returncode, (USAGE, DATA))
        self.assertIn("no.unknown", done.stderr)
        self.assertFalse([name for name in self.names() if name.startswith("no")])


class Info(CliTest):
    def test_vectors(self):
        rows = [list(row) for row in self.base] + [list(self.base[0]), [0.0] * DIM]
        rows[5][2], rows[6][1] = math.nan, -math.inf
        write_vecs(self.at("odd.fvecs"), rows, "f")
        (report,) = self.kith_json("info", self.at("odd.fvecs"))
        self.assertEqual((report["count"], report["dim"], report["dtype"]), (BASE_COUNT + 2, DIM, "f32"))
        self.assertEqual((report["nan_count"], report["inf_count"], report["zero_row_count"]), (1, 1, 1))
        self.assertEqual(report["duplicate_count"], 1)
        self.assertEqual((report["min"], report["max"], report["norm_min"]), (0.0, 7.0, 0.0))
        self.assertIn("duplicates", self.kith_ok("info", self.at("odd.fvecs")))
        (fast,) = self.kith_json("info", "--fast", self.at("odd.fvecs"))
        self.assertNotIn("min", fast)

    def test_every_format(self):
        """The files of tests/golden, one for each format and each thing that is refused."""
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "vectors")
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            done = self.kith("info", "--json", path)
            if name.startswith("refused") or (done.returncode != 0 and name.endswith((".hdf5", ".gz"))):
                self.assertEqual(done.returncode, DATA, done.stderr)
                self.assertTrue(done.stderr.startswith("kith info: %s: " % path), done.stderr)
            else:
                self.assertEqual((done.returncode, done.stderr), (0, ""), name)
                self.assertGreater(json.loads(done.stdout)[0]["dim"], 0)
        path = os.path.join(folder, "a.hdf5")
        if self.kith("info", path).returncode == 0:
            self.assertEqual(self.kith_json("info", path + ":test")[0]["kind"], "vectors")
            self.refused(USAGE, ["a.hdf5", "nothing"], "info", path + ":nothing")

    def test_index(self):
        first, second = self.kith_json("info", self.at("base.kith"), self.at("base.fvecs"))
        self.assertEqual((first["kind"], first["spec"], first["count"]), ("index", "Flat", BASE_COUNT))
        self.assertEqual(sum(row["bytes"] for row in first["memory_parts"]), first["memory_bytes"])
        self.assertAlmostEqual(first["bytes_per_vector"], first["memory_bytes"] / BASE_COUNT, places=9)
        self.assertAlmostEqual(sum(row["bytes_per_vector"] for row in first["memory_parts"]), first["bytes_per_vector"])
        self.assertNotIn("lists", first)
        self.assertEqual([row["bytes"] for row in first["sections"] if row["tag"] == "FLATVECS"],
                         [BASE_COUNT * DIM * 4])
        self.assertIn("max_distances", [row["name"] for row in first["parameters"]])
        table = self.kith_ok("info", self.at("base.kith"))
        for part in ["FLATVECS", "memory by part", "max_distances"]:
            self.assertIn(part, table)
        self.assertEqual(second["kind"], "vectors")

    def test_graph(self):
        path = self.at("graph.kith")
        self.kith_ok("build", "--spec", "HNSW4,SQ8,RFlat", "--base", self.at("base.fvecs"), "--out", path)
        graph = self.kith_json("info", "--graph", path)[0]["graph"]
        self.assertEqual((graph["node_count"], graph["reachable_count"], graph["degree_max"]), (BASE_COUNT, BASE_COUNT, 8))
        self.assertEqual((len(graph["degrees"]), sum(graph["degrees"])), (9, BASE_COUNT))
        self.assertEqual(sum(links * nodes for links, nodes in enumerate(graph["degrees"])), graph["link_count"])
        each = [links for links, nodes in enumerate(graph["degrees"]) for _ in range(nodes)]
        self.assertEqual(graph["degree_median"], each[(BASE_COUNT - 1) // 2])
        self.assertAlmostEqual(graph["degree_mean"], sum(each) / BASE_COUNT)
        self.assertTrue(0 < graph["mutual_share"] <= 1 and 0 < graph["hops_mean"] <= graph["hops_max"])
        table = self.kith_ok("info", "--graph", path)
        for part in ["reachable nodes", "mean hops", "links of a node"]:
            self.assertIn(part, table)
        self.assertNotIn("graph", self.kith_json("info", path)[0])
        self.refused(DATA, ["base.kith", "Flat", "no graph"], "info", "--graph", self.at("base.kith"))
        measured = ["info", "--graph", "--query", self.at("query.fvecs"), "--gt", self.at("gt.ivecs"), "--k", "5"]
        walks = self.kith_json(*measured, path)[0]["graph"]["walks"]
        self.assertEqual([row["max_distances"] for row in walks], [100 * 2**i for i in range(len(walks))])
        self.assertGreater(walks[-1]["recall"], 0.9)
        self.assertTrue(walks[-1]["recall"] == 1.0 or walks[-1]["max_distances"] >= BASE_COUNT)
        self.assertLess(walks[0]["recall"], walks[-1]["recall"])
        self.assertIn("distances of a query", self.kith_ok(*measured, path))
        self.refused(USAGE, ["--gt"], *measured[:4], path)
        self.refused(USAGE, ["--graph"], "info", *measured[2:], path)
        self.refused(DATA, ["500", "20"], "info", "--graph", "--query", self.at("base.fvecs"), "--gt", self.at("gt.ivecs"), path)

    def test_errors(self):
        self.refused(IO, ["absent"], "info", self.at("absent"))
        done = self.kith("info", self.at("absent"), self.at("base.fvecs"))
        self.assertEqual(done.returncode, IO)
        self.assertIn("base.fvecs", done.stdout)


class Verify(CliTest):
    def test_sound_and_damaged(self):
        self.assertEqual([row["is_sound"] for row in self.kith_json("verify", self.at("base.kith"))], [True])
        with open(self.at("base.kith"), "rb") as file:
            whole = bytearray(file.read())
        for at in [20, 50, len(whole) // 2, len(whole) - 1]:
            damaged = bytearray(whole)
            damaged[at] ^= 1
            with open(self.at("damaged.kith"), "wb") as file:
                file.write(damaged)
            done = self.kith("verify", self.at("damaged.kith"))
            self.assertEqual(done.returncode, CHECK, done.stderr)
            self.assertIn("damaged.kith", done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)
        self.refused_file(bytes(whole[:-1]))
        self.refused_file(b"")
        self.refused_file(b"text\n")
        done = self.kith("verify", self.at("absent.kith"))
        self.assertEqual(done.returncode, IO)

    def refused_file(self, content):
        with open(self.at("other.kith"), "wb") as file:
            file.write(content)
        self.assertEqual(self.kith("verify", self.at("other.kith")).returncode, CHECK)


class Change(CliTest):
    def start(self, spec, name="change.kith"):
        path = self.at(name)
        self.kith_ok("build", "--spec", spec, "--base", self.at("base.fvecs"), "--out", path)
        return path

    def nearest(self, path, k=5):
        """The ids of each query's nearest."""
        self.kith_ok("search", "--index", path, "--query", self.at("query.fvecs"), "--k", str(k),
                     "--out", self.at("nearest.ivecs"))
        return read_vecs(self.at("nearest.ivecs"), "i")

    def ids_file(self, ids, name="ids.txt"):
        with open(self.at(name), "w", encoding="utf-8") as file:
            file.writelines("%d\n" % i for i in ids)
        return self.at(name)

    def test_remove_add_and_compact(self):
        for spec in ["Flat", "HNSW8", "IVF4,Flat"]:
            path = self.start(spec)
            expected = self.nearest(path)
            gone = sorted({i for row in expected for i in row})
            ids = self.ids_file(gone + [gone[0], 10 ** 9])
            report = self.kith_json("remove", "--index", path, "--ids", ids)
            self.assertEqual((report["removed"], report["unknown"]), (len(gone), 2), spec)
            self.assertEqual(report["count"], BASE_COUNT - len(gone))
            for row in self.nearest(path):
                self.assertFalse(set(row) & set(gone))
            self.assertGreaterEqual(self.kith_json("compact", "--index", path)["freed_bytes"], 0)
            write_vecs(self.at("gone.fvecs"), [self.base[i] for i in gone], "f")
            again = ("add", "--index", path, "--base", self.at("gone.fvecs"), "--ids", self.ids_file(gone))
            report = self.kith_json(*again, "--out", self.at("other.kith"))
            self.assertEqual((report["added"], report["count"]), (len(gone), BASE_COUNT))
            if spec == "Flat":
                self.assertEqual(self.nearest(self.at("other.kith")), expected)
            self.kith_ok(*again)
            before = self.names()
            self.refused(DATA, ["is in the index already"], *again)
            self.assertEqual(self.names(), before)
            report = self.kith_json(*again, "--upsert")
            self.assertEqual((report["added"], report["replaced"]), (0, len(gone)))
            report = self.kith_json("add", "--index", path, "--base", self.at("gone.fvecs"))
            self.assertEqual(report["count"], BASE_COUNT + len(gone))

    def test_remove_by_filter(self):
        path = self.start("HNSW8,u8")
        report = self.kith_json("remove", "--index", path, "--filter", "range:0-399 & !" + self.ids_file([7]))
        self.assertEqual(report["removed"], 399)
        self.assertEqual({i < 400 and i != 7 for row in self.nearest(path, 50) for i in row}, {False})

    def test_split_and_merge(self):
        path = self.start("Flat")
        expected = self.nearest(path)
        part, rest, whole = self.at("part.kith"), self.at("rest.kith"), self.at("whole.kith")
        rows = self.kith_json("split", "--index", path, "--filter", "range:100-199", "--out", part, "--rest", rest)
        self.assertEqual([row["count"] for row in rows], [100, BASE_COUNT - 100])
        self.assertEqual(self.kith_json("merge", "--out", whole, rest, part)["count"], BASE_COUNT)
        self.assertEqual(self.nearest(whole), expected)
        self.assertEqual(self.kith_json("merge", "--out", whole, path, path, "--id-shift", "500")["count"],
                         2 * BASE_COUNT)
        self.refused(DATA, ["is in the index already"], "merge", "--out", whole, path, path)

    def test_errors(self):
        path = self.start("Flat")
        self.refused(USAGE, ["--upsert needs --ids"], "add", "--index", path, "--base", self.at("base.fvecs"),
                     "--upsert")
        self.refused(USAGE, ["one of --ids and --filter"], "remove", "--index", path)
        self.refused(USAGE, ["one of --ids and --filter"], "remove", "--index", path, "--ids", "x", "--filter", "y")
        self.refused(DATA, ["3 ids for the 500 vectors"], "add", "--index", path, "--base", self.at("base.fvecs"),
                     "--ids", self.ids_file([1, 2, 3]))
        self.refused(IO, ["absent"], "compact", "--index", self.at("absent"))
        self.refused(USAGE, ["missing argument"], "merge", "--out", path, path)
        other = self.start("HNSW8", "graph.kith")
        self.refused(USAGE, ["merge: HNSW8"], "merge", "--out", self.at("no.kith"), path, other)
        self.assertFalse(os.path.exists(self.at("no.kith")))


class Outputs(CliTest):
    """Outputs that cannot be written: exit 4, one line, nothing left behind."""

    def commands(self, name):
        base, query = self.at("base.fvecs"), self.at("query.fvecs")
        return [
            ["build", "--base", base, "--out", name + ".kith"],
            ["gt", "--base", base, "--query", query, "--k", "400", "--out", name + ".ivecs"],
            ["search", "--index", self.at("base.kith"), "--query", query, "--k", "400", "--out", name + ".ivecs"],
            ["convert", base, name + ".fvecs"],
        ]

    def test_no_such_folder(self):
        for command in self.commands(self.at("absent/out")):
            self.refused(IO, ["absent/out"], *command)
        for command in self.commands("/dev/full/out"):
            self.refused(IO, ["/dev/full/out"], *command)

    @unittest.skipIf(os.geteuid() == 0, "root writes anywhere")
    def test_read_only_folder(self):
        folder = self.at("sealed")
        os.mkdir(folder, 0o555)
        for command in self.commands(os.path.join(folder, "out")):
            self.refused(IO, [folder], *command)

    def test_no_room(self):
        """A limit on the size of files stands for a full disk."""

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

        before = self.names()
        for command in self.commands(self.at("full")):
            self.refused(IO, ["full"], *command, preexec_fn=limit)
        self.refused(IO, ["full.csv"], "eval", "--result", self.at("gt.ivecs"), "--gt", self.at("gt.ivecs"),
                     "--per-query", self.at("absent/full.csv"))
        self.assertEqual(self.names(), before)

    def test_old_file_stays(self):
        with open(self.at("old.ivecs"), "wb") as file:
            file.write(b"old")
        write_vecs(self.at("wide.fvecs"), [[1.0] * 17], "f")
        self.refused(DATA, [], "search", "--index", self.at("base.kith"), "--query", self.at("wide.fvecs"), "--out",
                     self.at("old.ivecs"))
        with open(self.at("old.ivecs"), "rb") as file:
            self.assertEqual(file.read(), b"old")


class Progress(CliTest):
    """Bars are drawn where stderr is a terminal, and nowhere else."""

    def on_terminal(self, *arguments):
        ours, theirs = pty.openpty()
        environment = dict(os.environ, TERM="xterm")
        drawn = b""
        with subprocess.Popen([KITH, *arguments], stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
            os.close(theirs)
            with contextlib.suppress(OSError):  # the end: nobody has the other side open
                while True:
                    drawn += os.read(ours, 1 << 16)
            out = process.stdout.read()
        os.close(ours)
        self.assertEqual(process.returncode, 0)
        return drawn.decode(), out.decode()

    def test_bars(self):
        command = ["convert", self.at("base.fvecs"), self.at("bar.fbin")]
        drawn, out = self.on_terminal(*command)
        self.assertIn("convert", drawn)
        self.assertIn("100%", drawn)
        self.assertTrue(drawn.endswith("\r\x1b[K"), drawn)
        self.assertEqual(self.on_terminal(*command, "--quiet"), ("", out))


class Cancel(CliTest):
    """A signal ends a long command, with its own exit code and without half-written files."""

    def catches(self, pid, number):
        (mask,) = [line.split()[1] for line in read_text("/proc/%d/status" % pid).splitlines() if line.startswith("SigCgt:")]
        return int(mask, 16) >> (number - 1) & 1 != 0

    def cancel(self, number, *arguments):
        before = self.names()
        with subprocess.Popen([KITH, *arguments, "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)) as process:  # not as it was for us
            while process.poll() is None and not self.catches(process.pid, number):
                time.sleep(0.01)
            time.sleep(0.3)
            self.assertIsNone(process.poll(), "ended before the signal: the work is too small for this machine")
            process.send_signal(number)
            _, errors = process.communicate(timeout=240)
        self.assertEqual(process.returncode, 128 + number)
        self.assertEqual(errors, "kith %s: interrupted\n" % arguments[0])
        self.assertEqual(self.names(), before)

    def test_signals(self):
        count, dim = 400000, 64
        write_npy(self.at("large.npy"), count, dim, "|u1", random.Random(5).randbytes(count * dim))
        large = self.at("large.npy")
        common = ["gt", "--base", large, "--query", large, "--k", "5", "--out", self.at("never.ivecs")]
        self.cancel(signal.SIGINT, *common)
        self.cancel(signal.SIGTERM, *common)
        self.kith_ok("build", "--base", large, "--out", self.at("large.kith"))
        self.cancel(signal.SIGINT, "search", "--index", self.at("large.kith"), "--query", large, "--k", "5", "--out",
                    self.at("never.ivecs"))


if __name__ == "__main__":
    KITH = os.path.abspath(sys.argv.pop(1))
    unittest.main()
