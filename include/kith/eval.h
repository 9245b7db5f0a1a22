/* SPDX-License-Identifier: Apache-2.0
 *
 * kith/eval.h: how good and how fast a search is: ground truth, measures of results, sweeps over search parameters.
 *
 * Every measure is defined, with the name that other tools give it, in docs/measures.md.
 * Distances are in kith's own terms throughout (l2: squared; ip, cosine: similarity), unless a comment says else.
 * Structs that the library hands out are read-only for the caller and freed by one call, which takes NULL.
 */
#ifndef KITH_EVAL_H
#define KITH_EVAL_H

#include "kith/index.h"
#include "kith/types.h"
#include "kith/vectors.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Lists of neighbours ------------------------------------------------------------------------------- */

/* The neighbours of each query, nearest first: a result or a ground truth. A caller may fill one with arrays of
 * its own to hand it to the calls below (size = sizeof(kith_neighbors)); those that the library made are freed with
 * kith_neighbors_free. */
typedef struct kith_neighbors {
    size_t size;
    size_t query_count;
    size_t k;
    int64_t *ids;     /* query_count x k; KITH_NO_ID pads */
    float *distances; /* query_count x k, or NULL when they are not known */
} kith_neighbors;

/* query_count x k ids, all KITH_NO_ID, and, when asked for, as many distances, all 0. Both counts at least 1. */
KITH_API kith_status kith_neighbors_create(size_t query_count, size_t k, int with_distances,
                                           kith_neighbors **out) KITH_CHECK_RESULT;
KITH_API void kith_neighbors_free(kith_neighbors *neighbors);

/* How to read a list of neighbours. NULL stands for the defaults. */
typedef struct kith_neighbors_options {
    size_t size;                /* set by kith_neighbors_options_init */
    const char *distances_path; /* default NULL; a file of distances of the same shape: fvecs, fbin, npy, hdf5 */
    const char *dataset;        /* default NULL: "neighbors", and "distances" where an hdf5 or ibin file has it */
    size_t max_queries;         /* default 0: all; else only the first so many rows */
    size_t max_k;               /* default 0: all; else only the first so many of each row */
    int ann_benchmarks;         /* default 0: distances are in kith's terms; 1: in those of ann-benchmarks (l2: not
                                   squared, cosine: 1 - cosine, ip: negated), and are turned into kith's */
    kith_metric metric;         /* needed with ann_benchmarks; else ignored */
} kith_neighbors_options;
KITH_API void kith_neighbors_options_init(kith_neighbors_options *options);

/* Reads ids from an ivecs, ibin, npy (i4, u4, i8) or HDF5 file, whatever engine wrote it. Free *out with
 * kith_neighbors_free.
 * Errors: KITH_ERR_TYPE when the file holds no 32- or 64-bit integers; KITH_ERR_RANGE for an id under -1 (row and
 * column in the message); KITH_ERR_DIMENSION when the distances have another shape; those of kith_vectors_open. */
KITH_API kith_status kith_neighbors_load(const char *path, const kith_neighbors_options *options,
                                         kith_neighbors **out) KITH_CHECK_RESULT;
/* Writes the ids to `path` (.ivecs, .ibin: 32 bits, KITH_ERR_RANGE for a larger id; .npy: 64 bits) and, unless it
 * is NULL, the distances to `distances_path` (.fvecs, .fbin, .npy). Each file is written all or nothing. */
KITH_API kith_status kith_neighbors_save(const kith_neighbors *neighbors, const char *path,
                                         const char *distances_path) KITH_CHECK_RESULT;
/* Computes the distance of every listed id to its query, for lists that came without (padding gets +infinity under
 * l2, -infinity else). Row i of `base` has id i. The same bits as kith's exact search gives.
 * Errors: KITH_ERR_NOT_FOUND for an id that is not a row of base. Returns a copy; free it with
 * kith_neighbors_free. */
KITH_API kith_status kith_neighbors_measure(const kith_neighbors *neighbors, kith_vectors *base,
                                            const kith_view *queries, kith_metric metric, const kith_job *job,
                                            kith_neighbors **out) KITH_CHECK_RESULT;

/* ---- Ground truth: the exact nearest ------------------------------------------------------------------- */

/* Gathers the k nearest of each query from base vectors that come block by block. */
typedef struct kith_ground_truth kith_ground_truth;

/* `queries` is borrowed until kith_ground_truth_free. `metric` is l2, ip or cosine. `base_count` is the number of
 * vectors that will be fed, for the progress report (phase "ground truth", in pairs); 0 when it is not known: no
 * progress then. Checks the queries: KITH_ERR_NOT_FINITE, KITH_ERR_RANGE, KITH_ERR_ZERO_VECTOR name the row.
 * job->memory_bytes_max: KITH_ERR_BUDGET when the queries' part alone does not fit. */
KITH_API kith_status kith_ground_truth_create(const kith_view *queries, kith_metric metric, size_t k,
                                              uint64_t base_count, const kith_job *job,
                                              kith_ground_truth **out) KITH_CHECK_RESULT;
/* Takes a block of base vectors, whose ids are first_id, first_id + 1, ...; the view is not kept. All blocks are of
 * one element type, which may be another than the queries'. The block is checked as the queries are, and refused as
 * a whole. After any other failure, or a cancellation, the object can only be freed.
 * Results do not depend on how the base is cut into blocks, nor on the number of threads. */
KITH_API kith_status kith_ground_truth_feed(kith_ground_truth *truth, const kith_view *block,
                                            int64_t first_id) KITH_CHECK_RESULT;
/* The result of what has been fed: ids and distances, nearest first, ties by lower id. Free *out with
 * kith_neighbors_free. KITH_ERR_ARGUMENT when fewer than k vectors were fed. May be called once. */
KITH_API kith_status kith_ground_truth_finish(kith_ground_truth *truth, kith_neighbors **out) KITH_CHECK_RESULT;
/* Scratch memory held at most so far, in bytes: without the queries, the blocks and the result. */
KITH_API uint64_t kith_ground_truth_memory_peak(const kith_ground_truth *truth);
KITH_API void kith_ground_truth_free(kith_ground_truth *truth);

/* What a computation of ground truth took. */
typedef struct kith_ground_truth_report {
    size_t size;                /* set by the caller: sizeof(kith_ground_truth_report) */
    uint64_t memory_bytes_peak; /* scratch: the most at any time, without the queries and the result */
    uint64_t result_bytes;      /* ids and distances */
    size_t query_block;         /* queries handled in one pass over the base */
    size_t base_block;          /* rows fed at a time */
    size_t passes;              /* passes over the base: 1 unless the budget cuts the queries */
    double seconds;
} kith_ground_truth_report;

/* The exact k nearest rows of a vector file for each query; row i has id i. The file may be mapped or streamed and
 * is read in blocks; under job->memory_bytes_max the blocks, and if need be the number of queries per pass, are
 * chosen so that scratch memory stays below it, KITH_ERR_BUDGET before any work when that cannot be.
 * `report` may be NULL. Free *out with kith_neighbors_free. Errors: as of the calls above; k is 1..rows. */
KITH_API kith_status kith_ground_truth_compute(kith_vectors *base, const kith_view *queries, kith_metric metric,
                                               size_t k, const kith_job *job, kith_ground_truth_report *report,
                                               kith_neighbors **out) KITH_CHECK_RESULT;
/* All rows within `radius` of each query (value <= radius for l2, >= radius else), nearest first, ties by lower id.
 * Hits count as scratch until they are all known: KITH_ERR_BUDGET when they outgrow job->memory_bytes_max. Free
 * *out with kith_range_result_free. */
KITH_API kith_status kith_ground_truth_range(kith_vectors *base, const kith_view *queries, kith_metric metric,
                                             float radius, const kith_job *job, kith_ground_truth_report *report,
                                             kith_range_result **out) KITH_CHECK_RESULT;

/* ---- Measures of results ------------------------------------------------------------------------------- */

/* What to compute. NULL stands for the defaults. */
typedef struct kith_measures_options {
    size_t size;         /* set by kith_measures_options_init */
    const size_t *ranks; /* default NULL: those of 1, 10, 100 that result and truth both reach; else the R and
                            k of the measures, each 1..k of result and of truth, in any order */
    size_t rank_count;
    kith_metric metric; /* default 0: not known, recall_distance is then NaN */
    double epsilon;     /* default 1e-3: the slack of recall_distance, in ann-benchmarks' distances */
    const char *truth_name, *result_name; /* default "truth", "result": how messages call them (file names) */
} kith_measures_options;
KITH_API void kith_measures_options_init(kith_measures_options *options);

/* The measures at one rank; means over the queries. The arrays have one entry per query. In all of them an id that
 * stands twice in a row of results counts once, and padding counts never. */
typedef struct kith_measures_at {
    size_t rank;         /* R or k */
    double recall_1;     /* 1-recall@R, FAISS's R@R: the true nearest is among the first R results */
    double intersection; /* intersection@k, k-recall@k: share of the k true neighbours among the first k results */
    double recall_ties;  /* the same, with true neighbours as far as the k-th counting as well, as deep as the truth
                            goes; NaN when the truth has no distances */
    double recall_big_ann; /* as big-ann-benchmarks counts: true neighbours at the k smallest distinct distances (up
                               to 1e-6); NaN when the truth has no distances */
    double
        recall_distance; /* as ann-benchmarks counts: results no farther than the k-th true distance + epsilon; NaN
                               without distances on both sides and a metric */
    const uint32_t *intersection_counts; /* the terms of the means above, times k; NULL where the mean is NaN */
    const uint32_t *ties_counts;
    const uint32_t *big_ann_counts;
    const uint32_t *distance_counts;
} kith_measures_at;

typedef struct kith_measures {
    size_t size;
    size_t query_count;
    size_t rank_count;
    const kith_measures_at *const *at; /* rank_count pointers, by rising rank */
    /* Where the true nearest stands among the results, counted from 1; 0 when it is not there. */
    const uint32_t *nearest_ranks; /* query_count */
    double nearest_found;          /* share of the queries where it was found */
    double nearest_rank_mean;      /* of the found ones; NaN when there are none */
    double nearest_rank_median;    /* the same; the mean of the middle two for an even number */
    size_t short_query_count;      /* rows of results that hold padding */
    size_t duplicate_query_count;  /* rows of results in which an id stands twice */
} kith_measures;

/* Judges `result` by `truth`; both have the same number of queries.
 * Errors: KITH_ERR_DIMENSION for another number of queries; KITH_ERR_ARGUMENT for a rank that the result or the
 * truth does not reach, and for a truth that is padded within the largest rank. Thread-safe. Free *out with
 * kith_measures_free. */
KITH_API kith_status kith_measures_compute(const kith_neighbors *result, const kith_neighbors *truth,
                                           const kith_measures_options *options,
                                           kith_measures **out) KITH_CHECK_RESULT;
KITH_API void kith_measures_free(kith_measures *measures);

/* Precision and recall of a range search, as FAISS's contrib.evaluation.range_PR defines them. */
typedef struct kith_range_measures {
    size_t size;
    size_t query_count;
    double precision_overall, recall_overall; /* all queries' hits thrown together */
    double precision_average, recall_average; /* means of the queries' own */
    const size_t *truth_counts;               /* hits of each query in the truth */
    const size_t *result_counts;              /* in the result */
    const size_t *common_counts;              /* in both */
} kith_range_measures;
KITH_API kith_status kith_range_measures_compute(const kith_range_result *result, const kith_range_result *truth,
                                                 kith_range_measures **out) KITH_CHECK_RESULT;
KITH_API void kith_range_measures_free(kith_range_measures *measures);

/* ---- Sweeps: operating points -------------------------------------------------------------------------- */

/* NULL stands for the defaults. */
typedef struct kith_sweep_options {
    size_t size; /* set by kith_sweep_options_init */
    size_t k;    /* default 10: neighbours asked for, 1..k of the truth */
    const char *const
        *grid; /* default NULL: one point with the default parameters; else axes "nprobe=1,2,4", one or more
                                in a text ("nprobe=1,2,4,k_factor=2,4"), each a parameter that
                                kith_search_params_set knows; every combination is a point, the last axis running
                                fastest */
    size_t grid_count;
    const size_t *ranks; /* as in kith_measures_options; default NULL: those of 1, 10, 100 up to k, and k */
    size_t rank_count;
    size_t threads;         /* default 0: all processors; the second thread count of the batch timing */
    size_t repeats;         /* default 3: timed runs; medians are reported. 1..1000 */
    size_t warmup;          /* default 1: runs before, untimed. 0..1000 */
    size_t latency_queries; /* default 1000: the first so many queries are timed one at a time; 0: no latencies */
    kith_metric metric;     /* default 0: the index's own; for recall_distance */
    kith_progress_fn progress; /* default NULL; phase "sweep", in runs */
    void *progress_user;
} kith_sweep_options;
KITH_API void kith_sweep_options_init(kith_sweep_options *options);

/* A parameter of a point, as text. */
typedef struct kith_sweep_value {
    const char *name;
    const char *value;
} kith_sweep_value;

/* Queries per second of a batch handed over in one call: median, least and most of the repeats. */
typedef struct kith_sweep_rate {
    size_t threads;
    double median, min, max;
} kith_sweep_rate;

/* Seconds of a query handed over alone, on one thread: percentiles (nearest rank) of a run, medians of the repeats;
 * all NaN when latency_queries = 0. */
typedef struct kith_sweep_latency {
    double mean, p50, p99, p999;
} kith_sweep_latency;

typedef struct kith_sweep_point {
    const char *parameters;         /* "nprobe=1,ef=10", or "" for the defaults */
    const kith_sweep_value *values; /* grid_count of them */
    const kith_measures *measures;
    double recall;         /* intersection@k at the sweep's k: what the Pareto front is made of */
    kith_sweep_rate qps_1; /* on one thread */
    kith_sweep_rate qps_n; /* on `threads`; the same as qps_1 when that is 1 */
    kith_sweep_latency latency;
    double distances_per_query; /* distances computed, mean over the queries; NaN when the index does not say */
    int is_pareto_1; /* no other point has recall and qps_1 both at least as good, and one of them better */
    int is_pareto_n; /* the same with qps_n */
} kith_sweep_point;

typedef struct kith_sweep {
    size_t size;
    const char *spec; /* of the index */
    size_t index_count, dim, query_count, k;
    size_t value_count;          /* axes of the grid */
    uint64_t index_memory_bytes; /* sum of kith_index_memory */
    size_t point_count;
    const kith_sweep_point *const *points; /* point_count pointers, in grid order */
} kith_sweep;

/* Searches `queries` at every point of the grid and measures quality and speed. At most 10,000 points. Everything
 * but the times is the same in every run and at any thread count. Errors: KITH_ERR_ARGUMENT for a malformed axis,
 * an axis that stands twice, or k; those of kith_search_params_set and kith_index_search, with the point in front.
 * Free *out with kith_sweep_free. */
KITH_API kith_status kith_sweep_run(const kith_index *index, const kith_view *queries, const kith_neighbors *truth,
                                    const kith_sweep_options *options, kith_sweep **out) KITH_CHECK_RESULT;
KITH_API void kith_sweep_free(kith_sweep *sweep);
/* Queries per second on the Pareto front at a recall, on one thread (on_n = 0) or on the sweep's other count: between
 * two points log-linear in the recall, below the front's first point that point's. NaN when no point reaches it. */
KITH_API double kith_sweep_qps_at(const kith_sweep *sweep, double recall, int on_n);

#ifdef __cplusplus
}
#endif
#endif
