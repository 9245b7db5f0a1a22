#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden vector files of test_vectors.c: by NumPy (and h5py), not by kith. Run it in any folder; the files
are committed, so that the tests need neither."""
import gzip
import os
import struct
import sys

import numpy as np

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "vectors")
ROWS, DIM = 5, 7
# The matrix that every file holds: whole numbers from 0 to 99, the same formula as golden() in test_vectors.c.
BASE = (np.arange(ROWS * DIM, dtype=np.int64) * 37 % 100).reshape(ROWS, DIM)


def path(name):
    return os.path.join(OUT, name)


def npy(name, array, version=(1, 0)):
    with open(path(name), "wb") as f:
        np.lib.format.write_array(f, array, version=version)


def vecs(name, array):
    with open(path(name), "wb") as f:
        for row in array:
            f.write(struct.pack("<i", len(row)) + row.tobytes())


def bin_file(name, array):
    with open(path(name), "wb") as f:
        f.write(struct.pack("<II", *array.shape) + array.tobytes())


def idx(array, code):
    head = struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def main():
    os.makedirs(OUT, exist_ok=True)
    for kind in ("f2", "f4", "f8", "i1", "u1", "i4", "u4", "i8"):
        npy(f"{kind}.npy", BASE.astype("<" + kind))
    for kind in ("f2", "f4", "f8", "i4", "i8"):
        npy(f"big_{kind}.npy", BASE.astype(">" + kind))
    npy("v2.npy", BASE.astype("<f4"), (2, 0))
    npy("v3.npy", BASE.astype("<f4"), (3, 0))
    npy("one_axis.npy", BASE.reshape(-1).astype("<i8"))
    npy("no_rows.npy", BASE[:0].astype("<f4"))
    npy("refused_fortran.npy", np.asfortranarray(BASE.astype("<f4")))
    npy("refused_three_axes.npy", BASE.astype("<f4").reshape(ROWS, DIM, 1))
    npy("refused_no_axes.npy", np.float32(1))
    npy("refused_structured.npy", np.zeros(3, dtype=[("a", "<f4"), ("b", "<i4")]))
    npy("refused_complex.npy", BASE.astype("<c8"))
    npy("refused_bool.npy", BASE > 50)
    npy("refused_text.npy", BASE.astype("U3"))
    npy("refused_no_dimension.npy", np.zeros((5, 0), "<f4"))

    vecs("a.fvecs", BASE.astype("<f4"))
    vecs("a.bvecs", BASE.astype("u1"))
    vecs("a.ivecs", BASE.astype("<i4"))
    bin_file("a.fbin", BASE.astype("<f4"))
    bin_file("a.u8bin", BASE.astype("u1"))
    bin_file("a.i8bin", BASE.astype("i1"))
    bin_file("a.ibin", BASE.astype("<i4"))
    with open(path("truth.ibin"), "wb") as f:  # big-ann's ground truth: ids, then distances
        f.write(struct.pack("<II", ROWS, DIM) + BASE.astype("<u4").tobytes() + (BASE / 2).astype("<f4").tobytes())
    for kind, code in (("u1", 8), ("i1", 9), ("i4", 12), ("f4", 13), ("f8", 14)):
        with open(path(f"{kind}.idx"), "wb") as f:
            f.write(idx(BASE.astype(kind), code))
    with open(path("labels-idx1-ubyte"), "wb") as f:
        f.write(idx(BASE.reshape(-1).astype("u1"), 8))
    images = idx(np.repeat(BASE.astype("u1"), 4, axis=1).reshape(ROWS, DIM, 4), 8)
    with open(path("images-idx3-ubyte"), "wb") as f:
        f.write(images)
    with open(path("images-idx3-ubyte.gz"), "wb") as f:
        f.write(gzip.compress(images, mtime=0))
    with open(path("two_members.idx.gz"), "wb") as f:
        f.write(gzip.compress(images[:30], mtime=0) + gzip.compress(images[30:], mtime=0))

    try:
        import h5py
    except ImportError:
        print("no h5py: a.hdf5 is left as it is", file=sys.stderr)
        return
    with h5py.File(path("a.hdf5"), "w", libver="earliest") as f:
        f.create_dataset("train", data=BASE.astype("<f4"))
        f.create_dataset("test", data=BASE[:2].astype("<f4"), chunks=(1, 7), compression="gzip")
        f.create_dataset("neighbors", data=BASE.astype("<i4"))
        f.create_dataset("distances", data=(BASE / 2).astype("<f8"))
        f.create_dataset("constant", shape=(1 << 40, 7), dtype="<f4", chunks=(1024, 7))
        f.create_dataset("words", data=np.array([b"a", b"b"]))
        f["link"] = h5py.ExternalLink("a.hdf5", "train")


main()
