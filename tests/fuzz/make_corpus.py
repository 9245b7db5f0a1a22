#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes small index files as inputs of fuzz_index: their sections without header and checksums, which the fuzzer makes anew.

  make_corpus.py KITH FOLDER     builds an index of each kind with the command kith, from a few vectors made up here
"""
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS, DIM, ENTRY = 20, 4, struct.Struct("<8sIIIIQQQ")
KINDS = [(spec, metric) for spec in ("HNSW2", "HNSW3,f16", "HNSW2,SQ8", "HNSW2,Line64x4,RFlat", "HNSW2,RaBitQ4,Rf16") for metric in ("l2", "cosine")]
KINDS += [("HNSW2,u8", "l2"), ("HNSW2,RaBitQ", "l2"), ("HNSW2", "ip"), ("PCA3,HNSW2,SQ4", "l2"), ("IVF2,Flat", "l2"), ("IVF2,SQ8", "cosine"), ("IVF3,PQ2x4", "l2"),
          ("IVF2,PQ2x4fs,RFlat", "l2"), ("IVF2,Line64x4,RSQ8", "cosine"), ("SQ6", "ip"), ("RaBitQ", "l2"), ("OPQ2_4,PQ2x4", "l2"),
          ("HR,Flat", "l2"), ("PCAW3,L2norm,SQ8", "ip"), ("SQ4,RFile", "l2"), ("IVF2,RaBitQ2,RFlat", "l2"), ("RaBitQ1,RSQ8", "cosine"),
          ("OPQ2_4,IVF2,PQ2x4fs,RFile", "cosine"), ("Centre,RR,Flat,Ru8", "l2"), ("L2norm,HR,SQ8,Rbf16", "ip")]


def tags():
    with open(os.path.join(HERE, "fuzz_index.c"), encoding="utf-8") as file:
        found = re.search(r"tags\[\] = \{(.*?)\};", file.read(), re.DOTALL)
    return re.findall(r'"(\w{8})"', found.group(1))


def sections(content):
    table, count = struct.unpack_from("<QQ", content, 24)
    for at in range(table, table + count * ENTRY.size, ENTRY.size):
        tag, instance, _, _, _, offset, length, _ = ENTRY.unpack_from(content, at)
        yield tag.decode(), instance, content[offset : offset + length]


def input_of(content):
    known, parts = tags(), [b"\x01"]
    for tag, instance, data in sections(content):
        if tag not in known or instance > 255 or len(data) > 65535:
            raise SystemExit(f"section {tag}.{instance} of {len(data)} bytes: fuzz_index has no such")
        parts += [struct.pack("<BBH", known.index(tag), instance, len(data)), data]
    return b"".join(parts)


def main():
    kith, folder = sys.argv[1:]
    numbers = random.Random(1)
    with tempfile.TemporaryDirectory() as scratch:
        base, index = os.path.join(scratch, "base.fvecs"), os.path.join(scratch, "index.kith")
        with open(base, "wb") as file:
            for _ in range(ROWS):
                file.write(struct.pack("<i%df" % DIM, DIM, *(float(numbers.randrange(0, 9)) for _ in range(DIM))))
        for spec, metric in KINDS:
            subprocess.run([kith, "build", "--spec", spec, "--metric", metric, "--base", base, "--out", index, "--quiet"], check=True,
                           stdout=subprocess.DEVNULL)
            with open(index, "rb") as file:
                content = input_of(file.read())
            name = re.sub(r"\W", "_", spec).lower()
            with open(os.path.join(folder, f"{name}_{metric}"), "wb") as file:
                file.write(content)


if __name__ == "__main__":
    main()
