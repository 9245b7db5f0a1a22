#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data from Fashion-MNIST: its first 1,000 training images and first 200 test images, and their exact 100
nearest neighbours by squared distance, ties by lower id: a check on kith by other means than its own.

Usage: make_test_data.py [FOLDER of the MNIST files] [OUTPUT FOLDER]
Needs nothing but Python; takes about half a minute. The output is the same bytes each time.
"""
import gzip
import os
import struct
import sys

BASE_COUNT, QUERY_COUNT, NEIGHBOURS = 1000, 200, 100


def read_images(path, count):
    """The first images of an idx file, each as bytes; and their height and width."""
    with gzip.open(path, "rb") as file:
        magic, total, height, width = struct.unpack(">IIII", file.read(16))
        if magic != 0x803 or total < count:
            sys.exit("%s: not %d images of u8" % (path, count))
        return [file.read(height * width) for _ in range(count)], height, width


def write_idx(path, images, height, width):
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(struct.pack(">IIII", 0x803, len(images), height, width) + b"".join(images))


SQUARES = [[(a - b) ** 2 for b in range(256)] for a in range(256)]


def nearest(query, base):
    """The ids of the nearest rows."""
    rows = [SQUARES[value] for value in query]
    distances = [(sum(map(list.__getitem__, rows, image)), number) for number, image in enumerate(base)]
    return [number for _, number in sorted(distances)[:NEIGHBOURS]]


def main():
    source = sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist"
    here = os.path.dirname(os.path.abspath(__file__))
    out = sys.argv[2] if len(sys.argv) > 2 else os.path.join(here, "..", "tests", "data")
    base, height, width = read_images(os.path.join(source, "train-images-idx3-ubyte.gz"), BASE_COUNT)
    queries, _, _ = read_images(os.path.join(source, "t10k-images-idx3-ubyte.gz"), QUERY_COUNT)
    write_idx(os.path.join(out, "fashion-base-idx3-ubyte.gz"), base, height, width)
    write_idx(os.path.join(out, "fashion-query-idx3-ubyte.gz"), queries, height, width)
    with open(os.path.join(out, "fashion-gt.ivecs"), "wb") as file:
        for query in queries:
            file.write(struct.pack("<%di" % (1 + NEIGHBOURS), NEIGHBOURS, *nearest(query, base)))


if __name__ == "__main__":
    main()
