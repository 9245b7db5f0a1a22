/* SPDX-License-Identifier: Apache-2.0
 *
 * ground_truth.c: the exact nearest of vectors that come block by block.
 */
#include "base/error.h"
#include "base/options.h"
#include "eval/neighbors.h"
#include "eval/truth.h"
#include "exact/check.h"

kith_status kith_ground_truth_create(const kith_view *queries, kith_metric metric, size_t k, uint64_t base_count,
                                     const kith_job *job, kith_ground_truth **out) {
    *out = NULL;
    kith_job own;
    KITH_TRY(kith_job_read(&own, job));
    kith_truth_request request;
    KITH_TRY(kith_truth_request_read(queries, metric, &own, &request));
    if (k == 0 || k > KITH_NEIGHBORS_K_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "ground truth: k = %zu is outside 1..%zu", k, KITH_NEIGHBORS_K_MAX);
    request.k = k;
    KITH_TRY(kith_truth_open(&request, out));
    uint64_t pairs;
    if (own.progress == NULL || __builtin_mul_overflow(base_count, queries->count, &pairs) || pairs == 0)
        return KITH_OK;
    kith_meter_init(&(*out)->own_meter, own.progress, own.progress_user, "ground truth", pairs);
    (*out)->request.meter = &(*out)->own_meter;
    return KITH_OK;
}

static kith_status check_block(const kith_ground_truth *truth, const kith_view *block, int64_t first_id) {
    if (truth->is_broken || truth->is_finished)
        return kith_error(KITH_ERR_ARGUMENT, "ground truth: fed after %s",
                          truth->is_finished ? "it was finished" : "a failure");
    KITH_TRY(kith_check_view_dim("base", block, truth->request.queries.dim));
    if (truth->exact != NULL && block->dtype != truth->row_dtype)
        return kith_error(KITH_ERR_TYPE, "base: a block of %s after blocks of %s", kith_dtype_name(block->dtype),
                          kith_dtype_name(truth->row_dtype));
    if (first_id < 0 || block->count > (uint64_t)(INT64_MAX - first_id))
        return kith_error(KITH_ERR_ARGUMENT, "base: %zu rows from id %lld on are outside 0..2^63 - 2", block->count,
                          (long long)first_id);
    return kith_check_vectors("base", block, (size_t)first_id, truth->request.metric, truth->request.threads);
}

kith_status kith_ground_truth_feed(kith_ground_truth *truth, const kith_view *block, int64_t first_id) {
    KITH_TRY(check_block(truth, block, first_id));
    return kith_truth_add(truth, block, first_id);
}

kith_status kith_ground_truth_finish(kith_ground_truth *truth, kith_neighbors **out) {
    *out = NULL;
    if (truth->is_broken || truth->is_finished)
        return kith_error(KITH_ERR_ARGUMENT, "ground truth: finished after %s",
                          truth->is_finished ? "it was finished" : "a failure");
    if (truth->row_count < truth->request.k)
        return kith_error(KITH_ERR_ARGUMENT, "ground truth: k = %zu, but only %llu vectors were fed",
                          truth->request.k, (unsigned long long)truth->row_count);
    if (truth->request.meter != NULL) KITH_TRY(kith_meter_finish(truth->request.meter));
    KITH_TRY(kith_neighbors_create(truth->request.queries.count, truth->request.k, 1, out));
    kith_truth_write(truth, (*out)->ids, (*out)->distances);
    truth->is_finished = true;
    return KITH_OK;
}

uint64_t kith_ground_truth_memory_peak(const kith_ground_truth *truth) { return truth->memory_bytes; }
