/* SPDX-License-Identifier: Apache-2.0
 *
 * kith/tune.h: choosing an index's search parameters: the fastest that find enough.
 */
#ifndef KITH_TUNE_H
#define KITH_TUNE_H

#include "kith/eval.h"

#ifdef __cplusplus
extern "C" {
#endif

/* NULL stands for the defaults. */
typedef struct kith_tune_options {
    size_t size;   /* set by kith_tune_options_init */
    size_t k;      /* default 10: neighbours asked for, 1..k of the truth */
    double recall; /* default 0.95: the intersection@k that is wanted; above 0, up to 1 */
    double sure;   /* default 0.9, of 0.5..0.999: a setting is taken when a normal approximation gives this
                      probability, by the queries it is chosen on, that queries like them reach `recall` on average;
                      at 0.5 their own mean decides */
    const char *const *
        grid; /* default NULL: every parameter of the index but threads, error_percent and max_distances is free over
                                its range; max_distances for an index that has no other. Else axes as of a sweep:
                                their parameters take these values alone, by rising effort */
    size_t grid_count;
    size_t threads;            /* default 1: how many the speed counts on; 0: all processors */
    size_t repeats;            /* default 3: timed runs, medians count. 1..1000 */
    size_t latency_queries;    /* default 1000: timed one at a time at the chosen setting; 0: none */
    uint64_t seed;             /* default 1: which queries choose, and the bootstrap's draws */
    kith_progress_fn progress; /* default NULL; phase "tune", in searches; the total is an upper bound */
    void *progress_user;
} kith_tune_options;
KITH_API void kith_tune_options_init(kith_tune_options *options);

/* A setting that was timed. */
typedef struct kith_tune_candidate {
    const char *parameters; /* "nprobe=12,k_factor=4" */
    double recall;          /* on the queries that choose */
    double qps;             /* a batch of these on options.threads: median of the repeats */
} kith_tune_candidate;

typedef struct kith_tuning {
    size_t size;
    const char *parameters;         /* the chosen setting; "" when there is nothing to set */
    const kith_sweep_value *values; /* value_count of them */
    size_t value_count;
    int is_reached; /* 0: no setting finds enough; the chosen one is that which finds the most */
    size_t choose_count, check_count, trial_count; /* queries that choose, that check; settings tried */
    double recall_chosen;                          /* on the queries that chose, which flatters it */
    double recall;                                 /* on the others: the honest figure */
    double recall_low, recall_high;                /* 95% interval of it: bootstrap over the queries */
    double sure;           /* share of the bootstrap's draws in which it is as wanted: how sure it is */
    kith_sweep_rate qps_1; /* on one thread, the queries that check */
    kith_sweep_rate qps_n; /* on options.threads */
    kith_sweep_latency latency;
    uint64_t index_memory_bytes;
    size_t candidate_count;
    const kith_tune_candidate *candidates; /* the fastest that finds enough is the chosen one */
} kith_tuning;

/* Chooses on a random half of the queries the fastest setting that finds enough, and measures it on the other half, which
 * had no say. What a parameter finds is taken to grow with it: for each combination of the others, the least value of the
 * first of nprobe and ef that finds enough is searched by doubling and bisection; these are then timed in turns.
 * The same parameters in every run but for what the clock decides between candidates.
 * Errors: KITH_ERR_ARGUMENT for fewer than 20 queries and for options out of range; those of kith_sweep_run. Free *out
 * with kith_tuning_free. */
KITH_API kith_status kith_tune(const kith_index *index, const kith_view *queries, const kith_neighbors *truth,
                               const kith_tune_options *options, kith_tuning **out) KITH_CHECK_RESULT;
KITH_API void kith_tuning_free(kith_tuning *tuning); /* takes NULL */

#ifdef __cplusplus
}
#endif
#endif
