/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "kith/eval.h"

enum { DIM = 19, ROWS = 1500, QUERIES = 70, K = 12 };

/* Small whole numbers: every sum is exact in float, and ties abound. */
static float base_f32[ROWS * DIM], query_f32[QUERIES * DIM];
static uint8_t base_u8[ROWS * DIM], query_u8[QUERIES * DIM];

static void fill(void) {
    for (size_t i = 0; i < ROWS * DIM; i++) base_f32[i] = base_u8[i] = (uint8_t)(1 + kith_random_below(1, 1, i, 4));
    for (size_t i = 0; i < QUERIES * DIM; i++)
        query_f32[i] = query_u8[i] = (uint8_t)(1 + kith_random_below(1, 2, i, 4));
}

static kith_view view_of(kith_dtype dtype, bool is_query) {
    const void *data = dtype == KITH_F32 ? (is_query ? (const void *)query_f32 : base_f32)
                                         : (is_query ? (const void *)query_u8 : base_u8);
    return (kith_view){data, dtype, is_query ? QUERIES : ROWS, DIM, 0};
}

static kith_view rows_of(const kith_view *view, size_t first, size_t count) {
    kith_view part = *view;
    part.data = (const char *)view->data + first * kith_dtype_row_bytes(view->dtype, view->dim);
    part.count = count;
    return part;
}

/* The value of a pair in doubles; larger keys are farther. */
static double value_of(kith_metric metric, size_t query, size_t row) {
    double dot = 0, l2 = 0, q2 = 0, r2 = 0;
    for (size_t i = 0; i < DIM; i++) {
        double q = (double)query_f32[query * DIM + i], r = (double)base_f32[row * DIM + i];
        dot += q * r, l2 += (q - r) * (q - r), q2 += q * q, r2 += r * r;
    }
    return metric == KITH_L2 ? l2 : metric == KITH_IP ? dot : dot / sqrt(q2 * r2);
}

static kith_neighbors *gather(const kith_view *queries, const kith_view *base, kith_metric metric, size_t block,
                              size_t threads) {
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    kith_ground_truth *truth;
    kith_neighbors *found;
    cr_assert_eq(kith_ground_truth_create(queries, metric, K, 0, &job, &truth), KITH_OK);
    for (size_t first = 0; first < base->count; first += block) {
        kith_view part = rows_of(base, first, kith_min_size(block, base->count - first));
        cr_assert_eq(kith_ground_truth_feed(truth, &part, (int64_t)first), KITH_OK, "%s", kith_error_message());
    }
    cr_assert_eq(kith_ground_truth_finish(truth, &found), KITH_OK);
    cr_assert_gt(kith_ground_truth_memory_peak(truth), 0);
    kith_ground_truth_free(truth);
    return found;
}

/* Every id is right when its place in the order of (value, id) over all rows is right. */
static void check_against_all_pairs(const kith_neighbors *found, kith_metric metric) {
    for (size_t query = 0; query < QUERIES; query++) {
        int64_t previous = -1;
        double previous_key = -1e30;
        for (size_t i = 0; i < K; i++) {
            double sign = metric == KITH_L2 ? 1 : -1, best_key = 1e30;
            int64_t best = -1;
            for (size_t row = 0; row < ROWS; row++) {
                double key = sign * value_of(metric, query, row);
                bool later = key > previous_key || (key == previous_key && (int64_t)row > previous);
                if (later && key < best_key) best_key = key, best = (int64_t)row;
            }
            cr_assert_eq(found->ids[query * K + i], best, "%s query %zu at %zu", kith_metric_name(metric), query,
                         i);
            cr_assert_eq((double)found->distances[query * K + i], sign * best_key);
            previous = best, previous_key = best_key;
        }
    }
}

Test(ground_truth, equals_all_pairs_for_every_mix_of_types) {
    static const kith_dtype types[] = {KITH_F32, KITH_U8};
    fill();
    for (int metric = KITH_L2; metric <= KITH_IP; metric++)
        for (size_t q = 0; q < 2; q++)
            for (size_t b = 0; b < 2; b++) {
                kith_view queries = view_of(types[q], true), base = view_of(types[b], false);
                kith_neighbors *found = gather(&queries, &base, (kith_metric)metric, ROWS, 2);
                check_against_all_pairs(found, (kith_metric)metric);
                kith_neighbors_free(found);
            }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(ground_truth, blocks_and_threads_do_not_matter) {
    static const size_t blocks[] = {1, 7, 256, 1000}, threads[] = {1, 2, 3, 8};
    fill();
    for (int metric = KITH_L2; metric <= KITH_COSINE; metric++)
        for (size_t few = 0; few < 2; few++) {
            kith_view queries = view_of(KITH_F32, true), base = view_of(KITH_F32, false);
            if (few) queries.count = 3; /* takes the other path of exact search */
            kith_neighbors *want = gather(&queries, &base, (kith_metric)metric, ROWS, 1);
            for (size_t i = 0; i < 4; i++) {
                kith_neighbors *found = gather(&queries, &base, (kith_metric)metric, blocks[i], threads[i]);
                cr_assert_arr_eq(found->ids, want->ids, queries.count * K * sizeof *found->ids);
                cr_assert_arr_eq(found->distances, want->distances, queries.count * K * sizeof *found->distances);
                kith_neighbors_free(found);
            }
            kith_neighbors_free(want);
        }
}

/* Cosine in floats: the order of near ties is kith's own, so the values are checked. */
Test(ground_truth, cosine) {
    fill();
    kith_view queries = view_of(KITH_U8, true), base = view_of(KITH_F32, false);
    kith_neighbors *found = gather(&queries, &base, KITH_COSINE, 100, 2);
    for (size_t i = 0; i < QUERIES * K; i++) {
        double want = value_of(KITH_COSINE, i / K, (size_t)found->ids[i]);
        cr_assert_float_eq((double)found->distances[i], want, 1e-6);
        if (i % K > 0) cr_assert_leq(found->distances[i], found->distances[i - 1]);
    }
    for (size_t query = 0; query < QUERIES; query++) {
        size_t better = 0;
        for (size_t row = 0; row < ROWS; row++)
            better += value_of(KITH_COSINE, query, row) > (double)found->distances[query * K + K - 1] + 1e-6;
        cr_assert_lt(better, K);
    }
    kith_neighbors_free(found);
}

/* ---- Bad input ----------------------------------------------------------------------------------------- */

static void expect(kith_status got, kith_status want, const char *message) {
    cr_assert_eq(got, want, "%s: %s", kith_status_name(got), kith_error_message());
    cr_assert_str_eq(kith_error_message(), message);
}

Test(ground_truth, bad_queries_and_k) {
    fill();
    kith_view queries = view_of(KITH_F32, true);
    kith_ground_truth *truth = (kith_ground_truth *)&queries;
    expect(kith_ground_truth_create(&queries, KITH_HAMMING, K, 0, NULL, &truth), KITH_ERR_ARGUMENT,
           "ground truth: metric hamming; l2, ip and cosine are known here");
    cr_assert_null(truth);
    expect(kith_ground_truth_create(&queries, KITH_L2, 0, 0, NULL, &truth), KITH_ERR_ARGUMENT,
           "ground truth: k = 0 is outside 1..1073741824");
    expect(kith_ground_truth_create(NULL, KITH_L2, K, 0, NULL, &truth), KITH_ERR_ARGUMENT, "queries: NULL");
    query_f32[5 * DIM + 3] = NAN;
    expect(kith_ground_truth_create(&queries, KITH_L2, K, 0, NULL, &truth), KITH_ERR_NOT_FINITE,
           "queries: row 5, column 3 is nan");
    memset(query_f32 + 4 * DIM, 0, DIM * sizeof(float));
    cr_assert_eq(kith_ground_truth_create(&queries, KITH_COSINE, K, 0, NULL, &truth), KITH_ERR_ZERO_VECTOR);
    queries.count = 0;
    expect(kith_ground_truth_create(&queries, KITH_L2, K, 0, NULL, &truth), KITH_ERR_EMPTY, "queries: no vectors");
    queries.count = QUERIES, queries.dtype = KITH_F64;
    cr_assert_eq(kith_ground_truth_create(&queries, KITH_L2, K, 0, NULL, &truth), KITH_ERR_TYPE);
}

Test(ground_truth, bad_blocks_are_refused_and_do_no_harm) {
    fill();
    kith_view queries = view_of(KITH_F32, true), base = view_of(KITH_F32, false), bad = base;
    kith_ground_truth *truth;
    kith_neighbors *found;
    cr_assert_eq(kith_ground_truth_create(&queries, KITH_L2, K, 0, NULL, &truth), KITH_OK);
    bad.dim = DIM - 1;
    expect(kith_ground_truth_feed(truth, &bad, 0), KITH_ERR_DIMENSION, "base: dimension 18, expected 19");
    float saved = base_f32[1400 * DIM];
    base_f32[1400 * DIM] = -INFINITY;
    expect(kith_ground_truth_feed(truth, &base, 100), KITH_ERR_NOT_FINITE, "base: row 1500, column 0 is -inf");
    base_f32[1400 * DIM] = saved;
    expect(kith_ground_truth_feed(truth, &base, -1), KITH_ERR_ARGUMENT,
           "base: 1500 rows from id -1 on are outside 0..2^63 - 2");
    cr_assert_eq(kith_ground_truth_feed(truth, &base, INT64_MAX - 1499), KITH_ERR_ARGUMENT);
    kith_view few = rows_of(&base, 0, K - 1), rest = rows_of(&base, K - 1, ROWS - K + 1);
    cr_assert_eq(kith_ground_truth_feed(truth, &few, 0), KITH_OK);
    kith_view bytes = view_of(KITH_U8, false);
    expect(kith_ground_truth_feed(truth, &bytes, 0), KITH_ERR_TYPE, "base: a block of u8 after blocks of f32");
    expect(kith_ground_truth_finish(truth, &found), KITH_ERR_ARGUMENT,
           "ground truth: k = 12, but only 11 vectors were fed");
    cr_assert_null(found);
    cr_assert_eq(kith_ground_truth_feed(truth, &rest, K - 1), KITH_OK);
    cr_assert_eq(kith_ground_truth_finish(truth, &found), KITH_OK);
    check_against_all_pairs(found, KITH_L2);
    kith_neighbors_free(found);
    expect(kith_ground_truth_finish(truth, &found), KITH_ERR_ARGUMENT,
           "ground truth: finished after it was finished");
    expect(kith_ground_truth_feed(truth, &base, 0), KITH_ERR_ARGUMENT, "ground truth: fed after it was finished");
    kith_ground_truth_free(truth);
    kith_ground_truth_free(NULL);
}

/* ---- Progress, memory ---------------------------------------------------------------------------------- */

static uint64_t last_done, last_total;
static int stop_now;

static int note_progress(void *user, const char *phase, uint64_t done, uint64_t total) {
    cr_assert_str_eq(user, "me");
    cr_assert_str_eq(phase, "ground truth");
    last_done = done, last_total = total;
    return stop_now;
}

Test(ground_truth, progress_and_cancelling) {
    fill();
    kith_view queries = view_of(KITH_F32, true), base = view_of(KITH_F32, false);
    kith_job job;
    kith_job_init(&job);
    job.progress = note_progress, job.progress_user = "me";
    kith_ground_truth *truth;
    kith_neighbors *found;
    cr_assert_eq(kith_ground_truth_create(&queries, KITH_L2, K, ROWS, &job, &truth), KITH_OK);
    cr_assert_eq(kith_ground_truth_feed(truth, &base, 0), KITH_OK);
    cr_assert_eq(kith_ground_truth_finish(truth, &found), KITH_OK);
    cr_assert_eq(last_total, (uint64_t)ROWS * QUERIES);
    cr_assert_eq(last_done, last_total);
    kith_neighbors_free(found);
    kith_ground_truth_free(truth);
    stop_now = 1;
    cr_assert_eq(kith_ground_truth_create(&queries, KITH_L2, K, ROWS, &job, &truth), KITH_OK);
    cr_assert_eq(kith_ground_truth_feed(truth, &base, 0), KITH_ERR_CANCELLED);
    expect(kith_ground_truth_feed(truth, &base, 0), KITH_ERR_ARGUMENT, "ground truth: fed after a failure");
    kith_ground_truth_free(truth);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* An allocator that counts what is live and fails on demand. */
static size_t allocations_left = SIZE_MAX;
static uint64_t live_bytes, peak_bytes;

static void *counting_alloc(void *user, size_t alignment, size_t bytes) {
    (void)user;
    if (allocations_left == 0) return NULL;
    allocations_left--;
    char *raw = aligned_alloc(alignment, alignment + kith_round_up(bytes, alignment)), *block = raw + alignment;
    memcpy(block - 8, &raw, sizeof raw);
    memcpy(block - 16, &bytes, sizeof bytes);
    live_bytes += bytes;
    if (live_bytes > peak_bytes) peak_bytes = live_bytes;
    return block;
}

static void counting_release(void *user, void *block) {
    char *raw;
    size_t bytes;
    (void)user;
    memcpy(&raw, (char *)block - 8, sizeof raw);
    memcpy(&bytes, (char *)block - 16, sizeof bytes);
    live_bytes -= bytes;
    free(raw);
}

Test(ground_truth, memory_is_accounted_for_and_bounded) {
    fill();
    static const size_t threads[] = {1, 4};
    kith_allocator allocator = {counting_alloc, counting_release, NULL};
    cr_assert_eq(kith_allocator_set(&allocator), KITH_OK);
    for (size_t few = 0; few < 2; few++)
        for (size_t t = 0; t < 2; t++) {
            kith_view queries = view_of(KITH_F32, true), base = view_of(KITH_U8, false);
            if (few) queries.count = 5;
            kith_job job;
            kith_job_init(&job);
            job.threads = threads[t];
            kith_ground_truth *truth;
            peak_bytes = 0;
            cr_assert_eq(kith_ground_truth_create(&queries, KITH_L2, K, 0, &job, &truth), KITH_OK);
            cr_assert_eq(kith_ground_truth_feed(truth, &base, 0), KITH_OK);
            uint64_t account = kith_ground_truth_memory_peak(truth);
            kith_ground_truth_free(truth);
            cr_assert_leq(peak_bytes, account + 4096, "%llu", (unsigned long long)peak_bytes);
            cr_assert_leq(account, 2 * peak_bytes + 65536);
            job.memory_bytes_max = account;
            cr_assert_eq(kith_ground_truth_create(&queries, KITH_L2, K, 0, &job, &truth), KITH_OK);
            cr_assert_eq(kith_ground_truth_feed(truth, &base, 0), KITH_OK);
            kith_ground_truth_free(truth);
            job.memory_bytes_max = account - 1;
            cr_assert_eq(kith_ground_truth_create(&queries, KITH_L2, K, 0, &job, &truth), KITH_OK);
            cr_assert_eq(kith_ground_truth_feed(truth, &base, 0), KITH_ERR_BUDGET);
            kith_ground_truth_free(truth);
            job.memory_bytes_max = 100;
            cr_assert_eq(kith_ground_truth_create(&queries, KITH_L2, K, 0, &job, &truth), KITH_ERR_BUDGET);
            cr_assert_null(truth);
        }
    cr_assert_eq(kith_allocator_set(NULL), KITH_OK);
}

static kith_status whole_run(void) {
    kith_view queries = view_of(KITH_F32, true), base = view_of(KITH_U8, false);
    queries.count = allocations_left % 2 == 0 ? 3 : 40;
    kith_job job;
    kith_job_init(&job);
    job.threads = 1 + allocations_left % 3 % 2;
    kith_ground_truth *truth;
    kith_neighbors *found;
    kith_status status = kith_ground_truth_create(&queries, KITH_COSINE, K, 0, &job, &truth);
    if (status == KITH_OK) status = kith_ground_truth_feed(truth, &base, 0);
    if (status == KITH_OK) status = kith_ground_truth_finish(truth, &found);
    if (status == KITH_OK) kith_neighbors_free(found);
    kith_ground_truth_free(truth);
    return status;
}

Test(ground_truth, every_allocation_may_fail) {
    fill();
    kith_allocator allocator = {counting_alloc, counting_release, NULL};
    cr_assert_eq(kith_allocator_set(&allocator), KITH_OK);
    size_t passed_in_a_row = 0;
    for (size_t n = 0; passed_in_a_row < 6; n++) {
        allocations_left = n;
        kith_status status = whole_run();
        cr_assert(status == KITH_OK || status == KITH_ERR_NO_MEMORY);
        cr_assert_eq(kith_memory_live_blocks(), 0);
        passed_in_a_row = status == KITH_OK ? passed_in_a_row + 1 : 0;
        cr_assert_lt(n, 1000);
    }
    cr_assert_eq(kith_allocator_set(NULL), KITH_OK);
}
