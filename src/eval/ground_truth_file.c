/* SPDX-License-Identifier: Apache-2.0
 *
 * ground_truth_file.c: the exact nearest rows of a vector file, under a bound on memory.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "eval/neighbors.h"
#include "eval/truth.h"
#include "exact/check.h"

/* Rows are read so many bytes at a time: long enough to hide what a block costs, and little beside the rest. */
static const uint64_t block_bytes_default = (uint64_t)32 << 20;
enum { BLOCK_ROWS_MIN = 256 };

/* One computation: what is asked, how it is cut, what has come out. */
typedef struct truth_job {
    kith_vectors *base;
    kith_truth_request request; /* all queries */
    kith_meter meter;
    size_t row_count, base_block, query_block, pass_count;
    uint64_t block_bytes, memory_peak, started_ns;
    kith_range_result *range; /* of a range search: grows from pass to pass */
} truth_job;

/* Takes one pass's results, of queries from `query_first` on. */
typedef kith_status (*take_pass_fn)(truth_job *work, kith_ground_truth *truth, size_t query_first, void *out);

/* ---- Cutting ------------------------------------------------------------------------------------------- */

static kith_status refuse_budget(const truth_job *work, uint64_t bytes) {
    return kith_error(
        KITH_ERR_BUDGET,
        "ground truth: even one query at a time needs %llu bytes of scratch memory on %zu threads, the "
        "budget is %llu",
        (unsigned long long)bytes, work->request.threads, (unsigned long long)work->request.memory_bytes_max);
}

/* The blocks of rows take an eighth of the budget at most, the queries of a pass what is left. */
static kith_status cut(truth_job *work, const kith_view *row) {
    uint64_t budget = work->request.memory_bytes_max, target = block_bytes_default, bytes;
    size_t row_bytes = kith_view_stride(row);
    if (budget != 0 && target > budget / 8) target = budget / 8;
    work->base_block = kith_max_size((size_t)(target / row_bytes), BLOCK_ROWS_MIN);
    work->base_block = kith_min_size(work->base_block, work->row_count);
    work->block_bytes = (uint64_t)work->base_block * row_bytes;
    size_t n = work->request.queries.count, q = n;
    for (;; q = q > 4 ? q - q / 4 : q - 1) {
        KITH_TRY(kith_truth_bytes(&work->request, row->dtype, q, &bytes));
        work->memory_peak = bytes + work->block_bytes;
        if (budget == 0 || work->memory_peak <= budget) break;
        if (q == 1) return refuse_budget(work, work->memory_peak);
    }
    work->query_block = q;
    work->pass_count = n / q + (n % q != 0);
    return KITH_OK;
}

/* ---- Passes -------------------------------------------------------------------------------------------- */

static kith_status feed_all(truth_job *work, kith_ground_truth *truth, bool is_first_pass) {
    for (size_t first = 0; first < work->row_count; first += work->base_block) {
        kith_view block;
        size_t count = kith_min_size(work->base_block, work->row_count - first);
        KITH_TRY(kith_vectors_rows(work->base, first, count, &block));
        if (is_first_pass)
            KITH_TRY(kith_check_vectors("base", &block, first, work->request.metric, work->request.threads));
        KITH_TRY(kith_truth_add(truth, &block, (int64_t)first));
    }
    return KITH_OK;
}

static kith_status run_pass(truth_job *work, size_t query_first, take_pass_fn take, void *out) {
    kith_status status;
    kith_ground_truth *truth = NULL;
    kith_truth_request request = work->request;
    request.queries.data = (const char *)request.queries.data + query_first * request.queries.stride;
    request.queries.count = kith_min_size(work->query_block, request.queries.count - query_first);
    request.meter = &work->meter;
    if (request.memory_bytes_max != 0) request.memory_bytes_max -= work->block_bytes;
    KITH_GO(kith_truth_open(&request, &truth));
    KITH_GO(feed_all(work, truth, query_first == 0));
    if (truth->memory_bytes + work->block_bytes > work->memory_peak)
        work->memory_peak = truth->memory_bytes + work->block_bytes;
    KITH_GO(take(work, truth, query_first, out));
done:
    kith_ground_truth_free(truth);
    return status;
}

static kith_status run_passes(truth_job *work, take_pass_fn take, void *out) {
    size_t n = work->request.queries.count;
    for (size_t first = 0; first < n; first += work->query_block) KITH_TRY(run_pass(work, first, take, out));
    return kith_meter_finish(&work->meter);
}

/* ---- Opening and reporting ----------------------------------------------------------------------------- */

static kith_status open_job(truth_job *work, kith_vectors *base, const kith_view *queries, kith_metric metric,
                            size_t k, float radius, const kith_job *job) {
    kith_job own;
    uint64_t pairs;
    KITH_TRY(kith_job_read(&own, job));
    if (base == NULL) return kith_error(KITH_ERR_ARGUMENT, "base: NULL");
    *work = (truth_job){.base = base, .started_ns = kith_now_ns(), .row_count = kith_vectors_count(base)};
    KITH_TRY(kith_truth_request_read(queries, metric, &own, &work->request));
    if (work->row_count == 0) return kith_error(KITH_ERR_EMPTY, "base: no vectors");
    kith_view first_row;
    KITH_TRY(kith_vectors_rows(base, 0, 1, &first_row));
    KITH_TRY(kith_check_view_dim("base", &first_row, queries->dim));
    work->request.k = k;
    work->request.radius = radius;
    KITH_TRY(cut(work, &first_row));
    if (__builtin_mul_overflow(work->row_count, queries->count, &pairs)) pairs = UINT64_MAX;
    kith_meter_init(&work->meter, own.progress, own.progress_user, "ground truth", pairs);
    return KITH_OK;
}

/* Fills as much of the caller's struct as the caller knows. */
static kith_status report_job(const truth_job *work, uint64_t result_bytes, kith_ground_truth_report *report) {
    if (report == NULL) return KITH_OK;
    kith_ground_truth_report own = {
        .size = report->size,
        .memory_bytes_peak = work->memory_peak,
        .result_bytes = result_bytes,
        .query_block = work->query_block,
        .base_block = work->base_block,
        .passes = work->pass_count,
        .seconds = (double)(kith_now_ns() - work->started_ns) * 1e-9,
    };
    memcpy(report, &own, kith_min_size(report->size, sizeof own));
    return KITH_OK;
}

static kith_status check_report(const kith_ground_truth_report *report) {
    if (report == NULL || report->size >= sizeof report->size) return KITH_OK;
    return kith_error(KITH_ERR_ARGUMENT, "ground truth report: size %zu; was it set?", report->size);
}

/* ---- The k nearest ------------------------------------------------------------------------------------- */

static kith_status take_nearest(truth_job *work, kith_ground_truth *truth, size_t query_first, void *out) {
    kith_neighbors *found = out;
    (void)work;
    kith_truth_write(truth, found->ids + query_first * found->k, found->distances + query_first * found->k);
    return KITH_OK;
}

kith_status kith_ground_truth_compute(kith_vectors *base, const kith_view *queries, kith_metric metric, size_t k,
                                      const kith_job *job, kith_ground_truth_report *report, kith_neighbors **out) {
    *out = NULL;
    kith_status status;
    kith_neighbors *found = NULL;
    truth_job work;
    KITH_TRY(check_report(report));
    if (k == 0 || k > KITH_NEIGHBORS_K_MAX || (base != NULL && k > kith_vectors_count(base)))
        return kith_error(KITH_ERR_ARGUMENT, "ground truth: k = %zu is outside 1..%zu", k,
                          base != NULL ? kith_vectors_count(base) : KITH_NEIGHBORS_K_MAX);
    KITH_TRY(open_job(&work, base, queries, metric, k, 0, job));
    KITH_GO(kith_neighbors_create(queries->count, k, 1, &found));
    KITH_GO(run_passes(&work, take_nearest, found));
    KITH_GO(
        report_job(&work, (uint64_t)queries->count * k * (sizeof *found->ids + sizeof *found->distances), report));
    *out = found;
    found = NULL;
done:
    kith_neighbors_free(found);
    return status;
}

/* ---- All within a radius ------------------------------------------------------------------------------- */

static kith_status take_range(truth_job *work, kith_ground_truth *truth, size_t query_first, void *out) {
    kith_range_result *range = out;
    size_t n = truth->request.queries.count, before = range->limits[query_first], total = before;
    (void)work;
    for (size_t i = 0; i < n; i++) {
        total += truth->lists[i].count;
        range->limits[query_first + i + 1] = total;
    }
    KITH_TRY(kith_realloc(&range->ids, before, total, sizeof *range->ids));
    KITH_TRY(kith_realloc(&range->distances, before, total, sizeof *range->distances));
    for (size_t i = 0, at = before; i < n; i++) {
        kith_hit_list *list = &truth->lists[i];
        kith_hits_sort(list->hits, list->count);
        for (size_t h = 0; h < list->count; h++, at++) {
            range->ids[at] = list->hits[h].id;
            range->distances[at] = kith_exact_value(truth->exact, list->hits[h].key);
        }
    }
    return KITH_OK;
}

kith_status kith_ground_truth_range(kith_vectors *base, const kith_view *queries, kith_metric metric, float radius,
                                    const kith_job *job, kith_ground_truth_report *report,
                                    kith_range_result **out) {
    *out = NULL;
    kith_status status;
    kith_range_result *range = NULL;
    truth_job work;
    KITH_TRY(check_report(report));
    if (isnan(radius)) return kith_error(KITH_ERR_ARGUMENT, "ground truth: the radius is NaN");
    KITH_TRY(open_job(&work, base, queries, metric, 0, radius, job));
    KITH_GO(kith_alloc_zeroed(1, sizeof *range, &range));
    range->query_count = queries->count;
    KITH_GO(kith_alloc_zeroed(queries->count + 1, sizeof *range->limits, &range->limits));
    KITH_GO(run_passes(&work, take_range, range));
    KITH_GO(
        report_job(&work, range->limits[queries->count] * (sizeof *range->ids + sizeof *range->distances), report));
    *out = range;
    range = NULL;
done:
    kith_range_result_free(range);
    return status;
}
