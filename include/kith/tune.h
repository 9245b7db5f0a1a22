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
    const char *const
        *grid; /* default NULL: every parameter of the index but threads, error_percent, early, stop_percent and
                                max_distances is free over its range; max_distances for an index that has no other. Else
                                axes as of a sweep: their parameters take these values alone, by rising effort */
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

/* ---- How far ahead a graph's searches ask for memory ------------------------------------------------------------- */

/* NULL stands for the defaults. */
typedef struct kith_prefetch_options {
    size_t size; /* set by kith_prefetch_options_init */
    size_t k;    /* default 10; at most the index's count is asked for */
    size_t ef;   /* default 0: the index's own */
    size_t
        query_count; /* default 1000: stored vectors, taken at equal distances, that are searched for; 1 and more */
    size_t rounds;   /* default 11: each setting is timed once a round; 5..1000 */
    size_t threads;  /* default 1; 0: all processors */
    kith_progress_fn progress; /* default NULL; phase "prefetch", in rounds of all settings */
    void *progress_user;
} kith_prefetch_options;
KITH_API void kith_prefetch_options_init(kith_prefetch_options *options);

/* A setting that was held against the best one so far, in turns with it. */
typedef struct kith_prefetch_trial {
    kith_prefetch prefetch;
    double time_share;   /* of that one's time: median of the rounds */
    size_t faster_count; /* rounds in which it took less time */
    int is_taken;
} kith_prefetch_trial;

#define KITH_PREFETCH_TRIALS_MAX 16
typedef struct kith_prefetch_tuning {
    kith_prefetch before, chosen;
    double qps_before, qps; /* of batches: medians, in the first and in the last comparison */
    size_t query_count, rounds, trial_count;
    kith_prefetch_trial trials[KITH_PREFETCH_TRIALS_MAX];
} kith_prefetch_tuning;

/* Measures on vectors of the index itself and sets what is best (kith_index_set_prefetch): for each of the three numbers
 * in turn a few others, timed in turns with what the index has. One is taken only where that is no accident: it is
 * faster in all rounds but one in eleven, and by 2% in the median. What is found does not change. *out is filled in; save
 * the index to keep the choice.
 * Errors: KITH_ERR_UNSUPPORTED without a graph; KITH_ERR_READ_ONLY for a mapped index; KITH_ERR_EMPTY;
 * KITH_ERR_ARGUMENT for options out of range; KITH_ERR_NO_MEMORY; KITH_ERR_CANCELLED. The index then is as it was. */
KITH_API kith_status kith_prefetch_tune(kith_index *index, const kith_prefetch_options *options,
                                        kith_prefetch_tuning *out) KITH_CHECK_RESULT;

#ifdef __cplusplus
}
#endif
#endif
