# SPDX-License-Identifier: Apache-2.0
"""Data folders: base.*, query.*, gt.* (ids of the true neighbours) and, optionally, meta.json {"name", "metric"}.

Files may be npy, fvecs, bvecs, ivecs, fbin, u8bin, i8bin, ibin; or one ann-benchmarks file data.hdf5 in their place.
"""
import gzip
import json
import os
import struct

ENDINGS = ("npy", "fvecs", "bvecs", "ivecs", "fbin", "u8bin", "i8bin", "ibin")
FASHION = "/usr/share/datasets/fashion-mnist"  # Debian package dataset-fashion-mnist


def wake_openblas():
    """An OpenBLAS that is older than the processor falls back to its oldest kernels, at a fifth of the rate, and a peer with it:
    FAISS's wheel does. To be called before a library with an OpenBLAS is loaded; what the caller has set stays."""
    if "OPENBLAS_CORETYPE" in os.environ or not os.path.exists("/proc/cpuinfo"):
        return
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        flags = set(next((line for line in file if line.startswith("flags")), "").split())
    held = "avx2" in (os.environ.get("KITH_ISA", "").lower(), os.environ.get("FAISS_SIMD_LEVEL", "").lower())
    if {"avx512f", "avx512bw", "avx512vl"} <= flags and not held:
        os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"
    elif {"avx2", "fma"} <= flags:
        os.environ["OPENBLAS_CORETYPE"] = "Haswell"


def find(folder, part):
    """The path of base.*, query.* or gt.*; None when there is none."""
    for ending in ENDINGS:
        path = os.path.join(folder, part + "." + ending)
        if os.path.exists(path):
            return path
    return None


def read(path, rows=0):
    """The rows of a vector file as a NumPy array, mapped where that is possible; the first `rows` of them if not 0."""
    import numpy as np

    ending = path.rsplit(".", 1)[1]
    if ending == "npy":
        found = np.load(path, mmap_mode="r")
    elif ending in ("fbin", "u8bin", "i8bin", "ibin"):
        dtype = {"fbin": "<f4", "u8bin": "u1", "i8bin": "i1", "ibin": "<i4"}[ending]
        count, dim = np.fromfile(path, "<u4", 2)
        found = np.memmap(path, dtype, "r", 8, (int(count), int(dim)))
    else:
        width = 1 if ending == "bvecs" else 4
        dim = int(np.fromfile(path, "<i4", 1)[0])
        table = np.memmap(path, "u1", "r").reshape(-1, 4 + dim * width)
        found = table[:, 4:]
        if width == 4:
            found = np.ascontiguousarray(found).view("<f4" if ending == "fvecs" else "<i4")
    return found[:rows] if rows else found


class DataSet:
    """A data folder, read as the peers want it: float32, C order, normalised for cosine."""

    def __init__(self, folder, queries, k):
        import numpy as np

        meta = read_meta(folder)
        self.name, self.metric, self.k = meta["name"], meta["metric"], k
        hdf5 = os.path.join(folder, "data.hdf5")
        if os.path.exists(hdf5):
            import h5py

            file = h5py.File(hdf5, "r")
            base, query, truth = file["train"], file["test"][:queries], file["neighbors"][:queries]
        else:
            paths = [find(folder, part) for part in ("base", "query", "gt")]
            if None in paths:
                raise SystemExit(f"{folder}: needs base.*, query.* and gt.*; `compare.py prepare` makes gt.*")
            base, query, truth = read(paths[0]), read(paths[1], queries), read(paths[2], queries)
        self.base = np.array(base, np.float32, order="C")
        self.query = np.array(query, np.float32, order="C")
        self.truth = np.array(truth)[:, :k]
        if self.metric == "cosine":
            for rows in (self.base, self.query):
                rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)

    def recall(self, ids):
        """k-recall@k; an id counts once."""
        import numpy as np

        pairs = zip(np.asarray(ids)[:, : self.k], self.truth)
        return sum(np.intersect1d(found, true).size for found, true in pairs) / self.truth.size


def read_meta(folder):
    path = os.path.join(folder, "meta.json")
    meta = {"name": os.path.basename(os.path.abspath(folder)), "metric": "l2"}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            meta.update(json.load(file))
    return meta


def write_npy_from_idx(source, target):
    """An idx file of u8 images, gzipped, as an npy file of rows; without NumPy."""
    with gzip.open(source, "rb") as file:
        magic, count, height, width = struct.unpack(">IIII", file.read(16))
        if magic != 0x803:
            raise SystemExit(f"{source}: not an idx file of u8 images")
        rows = file.read()
    if len(rows) != count * height * width:
        raise SystemExit(f"{source}: {len(rows)} bytes of pixels, its header says {count * height * width}")
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (%d, %d), }" % (count, height * width)
    header += " " * (117 - len(header)) + "\n"
    with open(target, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + rows)


def prepare_fashion(folder, source=FASHION):
    """Fashion-MNIST from its Debian package, as base.npy and query.npy."""
    os.makedirs(folder, exist_ok=True)
    for part, name in (("base", "train"), ("query", "t10k")):
        path = os.path.join(source, name + "-images-idx3-ubyte.gz")
        if not os.path.exists(path):
            raise SystemExit(f"{path}: not there; install the Debian package dataset-fashion-mnist")
        write_npy_from_idx(path, os.path.join(folder, part + ".npy"))
    with open(os.path.join(folder, "meta.json"), "w", encoding="utf-8") as file:
        json.dump({"name": "fashion-mnist", "metric": "l2"}, file)
