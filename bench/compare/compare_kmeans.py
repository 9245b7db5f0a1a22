# SPDX-License-Identifier: Apache-2.0
"""k-means of kith and of faiss.Kmeans on the same rows from the same initial centroids.

As a program it is the peer: compare_kmeans.py ROWS.npy INITIAL.npy ITERATIONS THREADS prints seconds and objective.
"""
import json
import os
import subprocess
import sys
import time

import compare_data


def prepare(folder, count, rows_max, scratch):
    """A sample of the base as f32, of unit length under cosine, and its first `count` rows: two .npy files."""
    import numpy as np

    meta = compare_data.read_meta(folder)
    base = compare_data.read(compare_data.find(folder, "base"))
    chosen = np.sort(np.random.default_rng(1).permutation(len(base))[:rows_max])
    rows = np.ascontiguousarray(base[chosen], dtype=np.float32)
    if meta["metric"] == "cosine":
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    rows = rows[np.random.default_rng(2).permutation(len(rows))]
    paths = [os.path.join(scratch, name) for name in ("rows.npy", "initial.npy")]
    np.save(paths[0], rows)
    np.save(paths[1], rows[:count])
    return paths


def run_kith(programs, paths, count, iterations, threads):
    report = programs.run_kith("kmeans", "--base", paths[0], "--k", count, "--initial", paths[1], "--iterations", iterations,
                               "--points-per-centroid", 0, "--threads", threads, "--json", "--quiet")
    return {"seconds": report["seconds"], "objective": report["objective"], "rows": report["point_count"], "dim": report["dim"]}


def run_faiss(paths, iterations, threads):
    words = [sys.executable, os.path.abspath(__file__), *paths, iterations, threads]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"faiss.Kmeans: {done.stderr.strip()}")
    return json.loads(done.stdout)


def main():
    import faiss
    import numpy as np

    rows, initial = np.load(sys.argv[1]), np.load(sys.argv[2])
    iterations, threads = int(sys.argv[3]), int(sys.argv[4])
    faiss.omp_set_num_threads(threads)
    clusters = faiss.Kmeans(rows.shape[1], len(initial), niter=iterations, min_points_per_centroid=1,
                            max_points_per_centroid=len(rows) // len(initial) + 1)
    start = time.perf_counter()
    clusters.train(rows, init_centroids=initial)
    seconds = time.perf_counter() - start
    # clusters.obj is that of the assignment before the last update: measure the centroids that it returns.
    distances, _ = clusters.index.search(rows, 1)
    print(json.dumps({"seconds": seconds, "objective": float(distances.sum(dtype=np.float64)), "version": faiss.__version__}))


if __name__ == "__main__":
    main()
