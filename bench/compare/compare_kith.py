# SPDX-License-Identifier: Apache-2.0
"""kith as a peer: built by the command, searched through libkith, as a program in another language uses it."""
import ctypes
import filecmp
import functools
import json
import os
import subprocess

import compare_data

DTYPES = {"float32": 1, "float16": 2, "int8": 4, "uint8": 5}  # enum kith_dtype
PARAMS_BYTES = 1024  # more than kith_search_params has; kith_search_params_init writes its size
PROBES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
FACTORS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64]
STOPS = [0, 103, 106, 110, 116]  # of walks of more than STOP_EF nodes
STOP_EF = 16
EF = [5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 240, 360, 540, 800]


class View(ctypes.Structure):
    """struct kith_view."""

    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int), ("count", ctypes.c_size_t), ("dim", ctypes.c_size_t), ("stride", ctypes.c_size_t)]


class ParamsHead(ctypes.Structure):
    """The first fields of struct kith_search_params; the others are set by name."""

    _fields_ = [("size", ctypes.c_size_t), ("threads", ctypes.c_size_t), ("filter", ctypes.c_void_p), ("context", ctypes.c_void_p)]


class SearchParam(ctypes.Structure):
    """struct kith_search_param."""

    _fields_ = [("name", ctypes.c_char_p), ("help", ctypes.c_char_p), ("min", ctypes.c_uint64), ("max", ctypes.c_uint64), ("default", ctypes.c_uint64)]


def library(build):
    for folder in (os.path.join(build, "src"), "/usr/local/lib", "/usr/lib"):
        path = os.path.join(folder, "libkith.so")
        if os.path.exists(path):
            return ctypes.CDLL(path)
    return ctypes.CDLL("libkith.so")


class Kith:
    """A spec, where {lists}, {half} and {pq} stand for numbers that follow the data."""

    def __init__(self, spec, settings, spec_of):
        self.spec, self.settings, self.spec_of = spec, settings, spec_of
        self.kith = library(settings["build"])
        for name, result in {"kith_error_message": ctypes.c_char_p, "kith_index_spec": ctypes.c_char_p,
                             "kith_index_param_count": ctypes.c_size_t, "kith_index_param": ctypes.POINTER(SearchParam)}.items():
            getattr(self.kith, name).restype = result
        self.index, self.context, self.filter = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self.last = None
        self.buffer = ctypes.create_string_buffer(PARAMS_BYTES)
        self.check(self.kith.kith_search_context_create(ctypes.byref(self.context)))

    def check(self, status):
        if status != 0:
            raise SystemExit(f"kith: {self.kith.kith_error_message().decode()}")

    def build(self, data, threads):
        """By `kith build`, from the folder's own file, in a process that ends before the searches; on other thread counts too
        where that is asked for."""
        path = os.path.join(self.settings["scratch"], "index.kith")
        report = self.run_build(data, threads, path)
        others = {}
        for count in self.settings["kith_threads"]:
            if count != threads:
                again = path + ".again"
                others[str(count)] = self.run_build(data, count, again)["build_seconds"]
                if not filecmp.cmp(path, again, shallow=False):
                    raise SystemExit(f"{self.spec}: {count} and {threads} threads do not make the same file")
                os.remove(again)
        self.load(path)
        os.remove(path)
        return {"version": f"kith {report['spec']}", "spec": report["spec"], "memory_bytes": report["memory_bytes"], "build_seconds_on": others,
                **{key: report[key] for key in ("train_seconds", "add_seconds", "build_seconds")}}

    def run_build(self, data, threads, path):
        command = [os.path.join(self.settings["build"], "tools/kith"), "build", "--spec", self.spec_of(data, self.spec), "--metric", data.metric,
                   "--base", compare_data.find(self.settings["folder"], "base"), "--out", path, "--threads", str(threads), "--quiet", "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr.strip())
        return json.loads(done.stdout)

    def load(self, path):
        self.check(self.kith.kith_index_load(os.fsencode(path), ctypes.byref(self.index)))
        names = {self.kith.kith_index_param(self.index, i)[0].name.decode() for i in range(self.kith.kith_index_param_count(self.index))}
        main, values = ("nprobe", PROBES) if "nprobe" in names else ("ef", EF) if "ef" in names else (None, [])
        self.ladders = []
        for stop in STOPS if "stop_percent" in names else [0]:
            if stop:
                self.ladders.append([])
            for factor in FACTORS if "k_factor" in names else [1]:
                fixed = {**({"k_factor": factor} if "k_factor" in names else {}), **({"stop_percent": stop} if stop else {})}
                rungs = [{**fixed, main: value} for value in values if not stop or value > STOP_EF] if main else [fixed]
                self.ladders.append(rungs)

    def ready(self, data):
        """Who has vectors of bytes has queries of bytes: an index that stores u8 or i8 gets them so."""
        import numpy as np

        kind = {number: name for name, number in DTYPES.items()}.get(self.kith.kith_index_dtype(self.index))
        if kind in ("uint8", "int8"):
            converted = data.query.astype(kind)
            data.query = converted if np.array_equal(converted, data.query) else data.query

    def set(self, setting, threads):
        self.kith.kith_search_params_init(self.buffer)
        for name, value in {**setting, "threads": threads}.items():
            self.check(self.kith.kith_search_params_set(self.buffer, self.index, name.encode(), str(value).encode()))
        head = ParamsHead.from_buffer(self.buffer)
        head.context, head.filter = self.context.value, self.filter.value

    def restrict(self, mask):
        """Searches after the next set() find the vectors whose ids are true in the mask."""
        import numpy as np

        bits = np.packbits(mask, bitorder="little")
        words = np.zeros(-(-len(mask) // 64), np.uint64)
        words.view(np.uint8)[: len(bits)] = bits
        self.kith.kith_filter_free(self.filter)
        self.check(self.kith.kith_filter_bitset(ctypes.c_void_p(words.ctypes.data), ctypes.c_size_t(len(mask)), ctypes.byref(self.filter)))

    def search(self, queries, k):
        """Into arrays that stay while calls are alike: to make them, and to turn the arguments of a call into C's each time, takes
        longer than a search may."""
        if self.last is None or not self.last.suits(queries, k):
            self.last = Output(self, queries, k)
        return self.last.search(queries)


class Output:
    """Queries as a view, where their results go, and the call with its arguments."""

    def __init__(self, kith, queries, k):
        import numpy as np

        count, dim = queries.shape
        self.check, self.k = kith.check, k
        self.single = queries.copy() if count == 1 else None
        self.queries = queries if count > 1 else self.single
        self.ids, self.distances, self.counts = np.empty((count, k), np.int64), np.empty((count, k), np.float32), np.empty(count, np.uint64)
        view = ctypes.byref(View(self.queries.ctypes.data, DTYPES[queries.dtype.name], count, dim, self.queries.strides[0]))
        self.call = functools.partial(kith.kith.kith_index_search, kith.index, view, ctypes.c_size_t(k), kith.buffer,
                                      *(ctypes.c_void_p(array.ctypes.data) for array in (self.ids, self.distances, self.counts)))

    def suits(self, queries, k):
        """A single query is copied; a batch has to be the same."""
        if self.single is None:
            return queries is self.queries and k == self.k
        return len(queries) == 1 and k == self.k and queries.dtype == self.single.dtype

    def search(self, queries):
        if self.single is not None:
            self.single[:] = queries
        self.check(self.call())
        return self.ids
