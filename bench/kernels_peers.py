#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kith's distance kernels beside those of NumKong and SimSIMD, through their C entry points.

    pip install numkong simsimd
    bench/kernels_peers.py [--build BUILD] [--json OUT.json]

The packages' extension modules export their C functions; this script looks up the addresses and hands them to a small
C module (kernels_peers.c) that calls every contestant from the same loops on the same data, interleaved, and takes
medians. Python is not in the timed part. Every peer's result is checked against kith's before it counts.
"""
import argparse
import ctypes
import importlib.metadata
import json
import math
import platform
import re
import statistics
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPS = {"l2sq": 1, "ip": 2, "hamming": 3}  # kith_kernel_op
DTYPES = {"f32": 1, "f16": 2, "bf16": 3, "i8": 4, "u8": 5, "b1": 6}  # kith_dtype
DIMS = [3, 17, 64, 96, 100, 127, 128, 384, 768, 784, 960, 1024, 1536]
SHAPES = ["one", "four", "block"]

# Names of the entry points, and what a length counts for packed bits (elements everywhere else).
PEERS = {
    "numkong": {"l2sq": "nk_sqeuclidean_{}", "ip": "nk_dot_{}", "hamming": "nk_hamming_u1", "bits": 1},
    "simsimd": {"l2sq": "simsimd_l2sq_{}", "ip": "simsimd_dot_{}", "hamming": "simsimd_hamming_b8", "bits": 8},
}


class Request(ctypes.Structure):
    """kernels_peers_request of kernels_peers.c."""

    _fields_ = [
        ("op", ctypes.c_uint32), ("dtype", ctypes.c_uint32), ("isa", ctypes.c_char_p), ("dim", ctypes.c_uint64),
        ("peer_count", ctypes.c_uint64), ("peers", ctypes.POINTER(ctypes.c_void_p)),
        ("peer_lengths", ctypes.POINTER(ctypes.c_uint64)), ("set_bytes", ctypes.c_uint64),
        ("repeats", ctypes.c_uint64), ("min_seconds", ctypes.c_double), ("ns", ctypes.POINTER(ctypes.c_double)),
        ("kith_value", ctypes.c_double), ("native_value", ctypes.c_double),
        ("peer_values", ctypes.POINTER(ctypes.c_uint64)),
    ]


def build(folder):
    """Builds the C module in a build folder of kith's, which is set up when it is not there."""
    if not (folder / "build.ninja").exists():
        subprocess.run(["meson", "setup", str(folder), str(ROOT), "-Dtests=disabled"], check=True)
    subprocess.run(["ninja", "-C", str(folder), "bench/kernels_peers.so"], check=True, stdout=subprocess.DEVNULL)
    return ctypes.CDLL(str(folder / "bench" / "kernels_peers.so"))


def open_peers():
    """{name: (version, library)} of the packages that are installed; the import resolves what they need of Python."""
    found = {}
    for name in PEERS:
        try:
            module = __import__(name)
        except ImportError:
            print(f"{name} is not installed: pip install {name}", file=sys.stderr)
            continue
        places = [Path(module.__file__)] + sorted(Path(module.__file__).parent.glob(f"*{name}*.so"))
        library = next(p for p in places if p.suffix == ".so")
        found[name] = (importlib.metadata.version(name), ctypes.CDLL(str(library)))
    return found


def entry_point(name, library, op, dtype):
    try:
        return ctypes.cast(getattr(library, PEERS[name][op].format(dtype)), ctypes.c_void_p).value
    except AttributeError:
        return None


def agrees(raw, expected, dtype, dim):
    """Is the peer's result, of a type that its name does not tell, the distance that kith computed?"""
    data = struct.pack("<Q", raw)
    readings = [struct.unpack("<" + code, data[: struct.calcsize(code)])[0] for code in "dfiIqQ"]
    tolerance = 1e-9 if dtype in ("i8", "u8", "b1") else 0.02 if dtype in ("bf16", "f16") else 1e-4
    return any(math.isfinite(r) and abs(r - expected) <= tolerance * max(abs(expected), math.sqrt(dim)) for r in readings)


def run_case(module, peers, op, dtype, dim, args):
    names = list(peers)
    addresses = [entry_point(n, peers[n][1], op, dtype) for n in names]
    lengths = [dim // PEERS[n]["bits"] if dtype == "b1" else dim for n in names]
    ns = (ctypes.c_double * (6 + len(names)))()
    values = (ctypes.c_uint64 * len(names))()
    request = Request(
        OPS[op], DTYPES[dtype], args.isa.encode() if args.isa else None, dim, len(names),
        (ctypes.c_void_p * len(names))(*addresses), (ctypes.c_uint64 * len(names))(*lengths), args.set_bytes,
        args.repeat, args.min_time, ns, 0, 0, values)
    if module.kernels_peers_run(ctypes.byref(request)) != 0:
        sys.exit(f"{op}/{dtype}/{dim}: kith has no such kernel, or memory ran out")
    row = {}
    for i, shape in enumerate(SHAPES):
        row[f"kith_{shape}_ns"] = ns[i]
        row[f"native_{shape}_ns"] = None if math.isnan(ns[3 + i]) else ns[3 + i]
    for i, name in enumerate(names):
        row[f"{name}_ns"] = None if math.isnan(ns[6 + i]) else ns[6 + i]
        if row[f"{name}_ns"] is not None and not agrees(values[i], request.kith_value, dtype, dim):
            sys.exit(f"{op}/{dtype}/{dim}: {name} computed {values[i]:#x}, kith {request.kith_value}")
    return row


def combine(op, dtype, dim, runs, names):
    """The medians of a case's rounds, and what follows from them."""
    row = {"op": op, "type": dtype, "dim": dim}
    for key, first in runs[0].items():
        row[key] = None if first is None else statistics.median(run[key] for run in runs)
    best_peer = min((row[f"{n}_ns"] for n in names if row[f"{n}_ns"] is not None), default=None)
    native = row["native_one_ns"]
    row["ratio"] = best_peer / row["kith_one_ns"] if best_peer else None
    row["native_ratio"] = best_peer / native if best_peer and native else None
    row["four_gain"] = row["kith_one_ns"] / row["kith_four_ns"]
    row["block_gain"] = row["kith_one_ns"] / row["kith_block_ns"]
    return row


def cell(value, width, digits=2):
    return f"{value:{width}.{digits}f}" if value is not None else " " * (width - 1) + "-"


def print_row(row, names):
    print(f"{row['op']:8}{row['type']:5}{row['dim']:6}" + "".join(cell(row[f'kith_{s}_ns'], 9) for s in SHAPES) +
          cell(row["native_one_ns"], 9) + "".join(cell(row[f"{n}_ns"], 9) for n in names) + cell(row["ratio"], 8) +
          cell(row["native_ratio"], 8) + cell(row["four_gain"], 7) + cell(row["block_gain"], 7), flush=True)


def print_summary(rows):
    def best(row):
        return max(row["ratio"] or 0, row["native_ratio"] or 0)

    judged = [r for r in rows if r["ratio"] is not None]
    below = [r for r in judged if best(r) < 0.95]
    print(f"\n{len(judged)} op/type/dimension, {len(below)} below 0.95 of the fastest peer")
    for row in sorted(below, key=best):
        print(f"  {row['op']}/{row['type']}/{row['dim']}: {best(row):.2f}")
    gains = [(r[g], f"{r['op']}/{r['type']}/{r['dim']} {g[:-5]}") for r in rows if 96 <= r["dim"] <= 1024
             for g in ("four_gain", "block_gain")]
    low = sorted(g for g in gains if g[0] < 1.3)
    print(f"{len(gains)} gains of four and block over one at 96..1024, {len(low)} below 1.3")
    for gain, name in low:
        print(f"  {name}: {gain:.2f}")


def cpu_name():
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="build folder of kith (default build)")
    parser.add_argument("--isa", help="kith's instruction set (default: the one in use); the peers choose their own")
    parser.add_argument("--filter", default="", help="regular expression on op/type/dim")
    parser.add_argument("--dims", default=",".join(map(str, DIMS)), help="dimensions, bits for b1")
    parser.add_argument("--set-bytes", type=int, default=16384, help="bytes of rows (default 16384: first-level cache)")
    parser.add_argument("--repeat", type=int, default=9, help="batches, of which the median counts (default 9)")
    parser.add_argument("--rounds", type=int, default=3, help="passes over everything; medians again (default 3)")
    parser.add_argument("--min-time", type=float, default=0.001, help="seconds of a batch (default 0.001)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    args = parser.parse_args()
    if not 1 <= args.repeat <= 101 or args.rounds < 1:
        parser.error("--repeat: 1..101; --rounds: at least 1")
    peers = open_peers()
    module = build(args.build)
    pairs = [(op, t) for op in ("l2sq", "ip") for t in ("f32", "f16", "bf16", "i8", "u8")] + [("hamming", "b1")]
    dims = [int(dim) for dim in args.dims.split(",")]
    cases = [(op, t, d) for op, t in pairs for d in (sorted({(d + 7) // 8 * 8 for d in dims}) if t == "b1" else dims)]
    cases = [case for case in cases if re.search(args.filter, "/".join(map(str, case)))]
    names = list(peers)
    print("op      type    dim      one     four    block   native" + "".join(f"{n:>9}" for n in names) +
          "   ratio  native   four  block")
    runs = {case: [] for case in cases}
    rows = []
    for number in range(args.rounds):
        for case in cases:
            runs[case].append(run_case(module, peers, *case, args))
            if number == args.rounds - 1:
                rows.append(combine(*case, runs[case], names))
                print_row(rows[-1], names)
    print_summary(rows)
    if args.json:
        args.json.write_text(json.dumps({
            "cpu": cpu_name(), "isa": args.isa, "set_bytes": args.set_bytes, "repeat": args.repeat, "rounds": args.rounds,
            "min_time": args.min_time, "peers": {n: peers[n][0] for n in names}, "results": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
