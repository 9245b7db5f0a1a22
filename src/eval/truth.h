/* SPDX-License-Identifier: Apache-2.0
 *
 * truth.h: gathering exact neighbours from blocks of base vectors, with an account of the memory it takes.
 */
#ifndef KITH_EVAL_TRUTH_H
#define KITH_EVAL_TRUTH_H

#include "exact/exact.h"
#include "kith/eval.h"

/* What is asked for. */
typedef struct kith_truth_request {
    kith_view queries; /* checked, with a stride */
    kith_metric metric;
    size_t k;                  /* 0: a range search */
    float radius;              /* of the range search */
    size_t threads;            /* at least 1 */
    uint64_t memory_bytes_max; /* 0: no limit */
    kith_meter *meter;         /* NULL, or counts queries x rows */
} kith_truth_request;

struct kith_ground_truth {
    kith_truth_request request;
    kith_meter own_meter; /* of the public calls */
    kith_arena arena;
    kith_exact *exact; /* opened by the first block, when the rows' type is known */
    kith_dtype row_dtype;
    kith_topk *tops; /* k > 0 */
    kith_hit *hits;
    kith_hit_list *lists;  /* k = 0 */
    uint64_t row_count;    /* fed so far */
    uint64_t memory_bytes; /* the most so far */
    bool is_broken, is_finished;
};

/* Checks metric and queries, shape and elements, and fills in what they and the job give. */
kith_status kith_truth_request_read(const kith_view *queries, kith_metric metric, const kith_job *job,
                                    kith_truth_request *out);

/* Scratch bytes for the first `query_count` queries over rows of `row_dtype`, without the hits of a range search.
 * Found by opening an exact search of at most 256 queries. */
kith_status kith_truth_bytes(const kith_truth_request *request, kith_dtype row_dtype, size_t query_count,
                             uint64_t *out);

kith_status kith_truth_open(const kith_truth_request *request, kith_ground_truth **out);
/* Rows that have been checked. */
kith_status kith_truth_add(kith_ground_truth *truth, const kith_view *block, int64_t first_id);
/* Sorts and writes the results of all queries: ids and distances have query_count x k entries. */
void kith_truth_write(kith_ground_truth *truth, int64_t *ids, float *distances);

#endif
