/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "base/random.h"
#include "exact/exact_inside.h"
#include "simd/simd.h"

enum { ROWS = 1100 };

static const kith_dtype row_types[] = {KITH_F32, KITH_F16, KITH_BF16, KITH_I8, KITH_U8};
static const kith_metric metrics[] = {KITH_L2, KITH_IP, KITH_COSINE};

/* Rows of an element type, with their values as f32. */
typedef struct rows_of {
    kith_dtype dtype;
    size_t count, dim;
    float *values;
    unsigned char *stored;
} rows_of;

static float draw(kith_dtype dtype, uint64_t stream, uint64_t i, float offset) {
    if (dtype == KITH_U8) return (float)kith_random_below(3, stream, i, 256);
    if (dtype == KITH_I8) return (float)kith_random_below(3, stream, i, 256) - 128;
    return kith_random_normal(3, stream, i) + offset;
}

static rows_of make_rows(kith_dtype dtype, size_t count, size_t dim, uint64_t stream, float offset) {
    const kith_simd_table *simd = kith_simd();
    rows_of rows = {.dtype = dtype, .count = count, .dim = dim};
    size_t n = count * dim;
    rows.values = malloc(n * sizeof *rows.values);
    rows.stored = malloc(n * sizeof *rows.values);
    for (size_t i = 0; i < n; i++) rows.values[i] = draw(dtype, stream, i, offset);
    for (size_t i = 0; i < n; i++) {
        if (dtype == KITH_U8) rows.stored[i] = (unsigned char)rows.values[i];
        if (dtype == KITH_I8) ((signed char *)rows.stored)[i] = (signed char)rows.values[i];
    }
    if (dtype == KITH_F32) memcpy(rows.stored, rows.values, n * sizeof *rows.values);
    if (dtype == KITH_F16) simd->f16_from_f32(rows.values, n, (uint16_t *)(void *)rows.stored);
    if (dtype == KITH_BF16) simd->bf16_from_f32(rows.values, n, (uint16_t *)(void *)rows.stored);
    kith_exact_to_f32(rows.stored, dtype, n, rows.values);
    return rows;
}

static void free_rows(rows_of *rows) {
    free(rows->values);
    free(rows->stored);
}

static kith_view view_of(const rows_of *rows, size_t first, size_t count) {
    return (kith_view){.data = rows->stored + first * kith_dtype_row_bytes(rows->dtype, rows->dim),
                       .dtype = rows->dtype,
                       .count = count,
                       .dim = rows->dim};
}

static kith_rows searchable(const rows_of *rows) {
    return (kith_rows){.dtype = rows->dtype,
                       .dim = rows->dim,
                       .count = rows->count,
                       .base = rows->stored,
                       .stride = kith_dtype_row_bytes(rows->dtype, rows->dim)};
}

static double true_value(kith_metric metric, const float *a, const float *b, size_t dim) {
    double l2 = 0, ip = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < dim; i++) {
        double x = a[i], y = b[i];
        l2 += (x - y) * (x - y), ip += x * y, aa += x * x, bb += y * y;
    }
    return metric == KITH_L2 ? l2 : metric == KITH_IP ? ip : ip / sqrt(aa * bb);
}

/* Searches queries first .. first + count - 1 and leaves k hits of each in out. */
static void search(const rows_of *rows, const rows_of *queries, kith_metric metric, size_t first, size_t count,
                   size_t k, size_t threads, kith_allow_fn allow, kith_hit *out, size_t *counts, float *values) {
    kith_arena arena = {0};
    kith_exact_request request = {.queries = view_of(queries, first, count),
                                  .metric = metric,
                                  .row_dtype = rows->dtype,
                                  .threads = threads,
                                  .allow = allow,
                                  .arena = &arena};
    kith_exact *exact;
    cr_assert_eq(kith_exact_open(&request, &exact), KITH_OK, "%s", kith_error_message());
    kith_topk *tops = malloc(count * sizeof *tops);
    kith_hit *hits = malloc(count * kith_topk_capacity(k) * sizeof *hits);
    for (size_t q = 0; q < count; q++) kith_topk_init(&tops[q], hits + q * kith_topk_capacity(k), k);
    kith_rows set = searchable(rows);
    cr_assert_eq(kith_exact_topk(exact, &set, tops), KITH_OK);
    for (size_t q = 0; q < count; q++) {
        kith_topk_finish(&tops[q]);
        counts[q] = tops[q].count;
        for (size_t i = 0; i < tops[q].count; i++) {
            out[q * k + i] = tops[q].hits[i];
            values[q * k + i] = kith_exact_value(exact, tops[q].hits[i].key);
        }
    }
    free(hits);
    free(tops);
    kith_arena_free(&arena);
}

static bool multiple_of_three(const void *context, int64_t id) {
    (void)context;
    return id % 3 == 0;
}

/* The batch's results: correct against double precision, and the same hits as one query at a time, at any number of
 * threads. */
static void check(kith_dtype row_type, kith_dtype query_type, kith_metric metric, size_t dim, float offset,
                  kith_allow_fn allow) {
    enum { QUERIES = 45, K = 10 };
    rows_of rows = make_rows(row_type, ROWS, dim, 1, offset),
            queries = make_rows(query_type, QUERIES, dim, 2, offset);
    static kith_hit batch[QUERIES * K], other[QUERIES * K];
    static size_t counts[QUERIES], other_counts[QUERIES];
    static float values[QUERIES * K], other_values[QUERIES * K];
    search(&rows, &queries, metric, 0, QUERIES, K, 1, allow, batch, counts, values);
    for (size_t q = 0; q < QUERIES; q++) {
        cr_assert_eq(counts[q], K);
        size_t worst_rank = 0;
        double kth = 0;
        const float *query = queries.values + q * dim;
        for (size_t i = 0; i < K; i++) {
            double want = true_value(metric, query, rows.values + (size_t)batch[q * K + i].id * dim, dim);
            const float *row = rows.values + (size_t)batch[q * K + i].id * dim;
            double norms = true_value(KITH_IP, query, query, dim) + true_value(KITH_IP, row, row, dim);
            double scale = metric == KITH_COSINE ? 1 : norms;
            cr_assert_lt(fabs(values[q * K + i] - want), 1e-5 * scale + 1e-5, "%s x %s %s dim %zu: %g for %g",
                         kith_dtype_name(query_type), kith_dtype_name(row_type), kith_metric_name(metric), dim,
                         (double)values[q * K + i], want);
            kth = values[q * K + i];
        }
        for (size_t r = 0; r < ROWS; r++) { /* how many rows are truly nearer than the last one found */
            if (allow != NULL && !allow(NULL, (int64_t)r)) continue;
            double value = true_value(metric, query, rows.values + r * dim, dim);
            double slack = 1e-5 * fabs(kth);
            worst_rank += kith_metric_is_similarity(metric) ? value > kth + slack : value < kth - slack;
        }
        cr_assert_lt(worst_rank, K, "%s %s dim %zu: %zu rows are nearer than hit 10", kith_dtype_name(row_type),
                     kith_metric_name(metric), dim, worst_rank);
    }
    for (size_t threads = 1; threads <= 5; threads += 2) {
        search(&rows, &queries, metric, 0, QUERIES, K, threads, allow, other, other_counts, other_values);
        cr_assert_arr_eq(batch, other, sizeof batch);
        for (size_t q = 0; q < QUERIES; q++)
            search(&rows, &queries, metric, q, 1, K, threads, allow, other + q * K, other_counts + q,
                   other_values + q * K);
        cr_assert_arr_eq(batch, other, sizeof batch, "%s x %s %s dim %zu: batch and single differ",
                         kith_dtype_name(query_type), kith_dtype_name(row_type), kith_metric_name(metric), dim);
    }
    free_rows(&rows);
    free_rows(&queries);
}

/* Every step-th query has found its k hits, the others nothing. */
static void expect_hits(kith_topk *tops, size_t query_count, size_t step, size_t k, const kith_hit *all) {
    for (size_t q = 0; q < query_count; q++) {
        kith_topk_finish(&tops[q]);
        cr_assert_eq(tops[q].count, q % step == 0 ? k : 0);
        cr_assert_arr_eq(tops[q].hits, all + q * k, tops[q].count * sizeof *all);
    }
}

/* Offers all rows one batch after the other, from the last one on: few, too few to fill tiles, and as many as go. */
static void offer_by_address(kith_exact *exact, const kith_rows *set, const uint32_t *members, size_t member_count,
                             kith_topk *tops) {
    static const size_t sizes[] = {3, 9, KITH_EXACT_GATHERED_MAX};
    const void *rows[KITH_EXACT_GATHERED_MAX];
    int64_t ids[KITH_EXACT_GATHERED_MAX];
    for (size_t left = set->count, batch = 0; left > 0; batch++) {
        size_t count = kith_min_size(left, sizes[batch % 3]), run;
        for (size_t i = 0; i < count; i++) {
            ids[i] = (int64_t)--left;
            rows[i] = kith_exact_run(set, left, &run);
        }
        cr_assert_eq(kith_exact_offer_gathered(exact, rows, ids, count, members, member_count, 1, tops, NULL, 0),
                     KITH_OK);
    }
}

/* Some queries of a batch, through the tile and through the stream, find what all of them find together; the others
 * find nothing. Ids of 32 bits and row numbers are two ways to name the rows. */
Test(exact, members_of_a_batch) {
    enum { QUERIES = 60, K = 10 };
    static kith_hit all[QUERIES * K];
    static size_t counts[QUERIES];
    static float values[QUERIES * K];
    static uint32_t ids[ROWS];
    for (uint32_t i = 0; i < ROWS; i++) ids[i] = i;
    for (size_t t = 0; t < 2; t++)
        for (size_t m = 0; m < 3; m++) {
            rows_of rows = make_rows(t == 0 ? KITH_F32 : KITH_U8, ROWS, 33, 1, 0),
                    queries = make_rows(KITH_F32, QUERIES, 33, 2, 0);
            search(&rows, &queries, metrics[m], 0, QUERIES, K, 1, NULL, all, counts, values);
            for (size_t step = 1; step <= 9; step += 4) { /* 60, 12 and 7 members */
                kith_arena arena = {0};
                kith_exact_request request = {.queries = view_of(&queries, 0, QUERIES),
                                              .metric = metrics[m],
                                              .row_dtype = rows.dtype,
                                              .threads = 2,
                                              .by_members = true,
                                              .arena = &arena};
                kith_exact *exact;
                cr_assert_eq(kith_exact_open(&request, &exact), KITH_OK, "%s", kith_error_message());
                static kith_hit hits[QUERIES][2 * K + 32];
                kith_topk tops[QUERIES];
                uint32_t members[QUERIES];
                size_t member_count = 0;
                for (size_t q = 0; q < QUERIES; q++) kith_topk_init(&tops[q], hits[q], K);
                for (uint32_t q = QUERIES; q-- > 0;)
                    if (q % step == 0) members[member_count++] = q;
                kith_rows set = searchable(&rows);
                if (step > 1) set.ids_u32 = ids;
                cr_assert_eq(kith_exact_offer(exact, &set, members, member_count, 1, tops, NULL, 0), KITH_OK);
                expect_hits(tops, QUERIES, step, K, all);
                for (size_t q = 0; q < QUERIES; q++) kith_topk_init(&tops[q], hits[q], K);
                offer_by_address(exact, &set, members, member_count, tops);
                expect_hits(tops, QUERIES, step, K, all);
                kith_arena_free(&arena);
            }
            free_rows(&rows);
            free_rows(&queries);
        }
}

Test(exact, every_type_and_metric_agrees_with_double_precision) {
    static const size_t dims[] = {1, 2, 5, 33, 100};
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++)
            for (size_t d = 0; d < 5; d++) check(row_types[t], row_types[t], metrics[m], dims[d], 0, NULL);
}

Test(exact, queries_of_another_type) {
    for (size_t q = 0; q < 5; q++)
        for (size_t t = 0; t < 5; t++)
            for (size_t m = 0; m < 3; m++)
                if (q != t) check(row_types[t], row_types[q], metrics[m], 19, 0, NULL);
}

/* A large common offset is what cancels in |q|^2 + |x|^2 - 2 <q, x>: the bound has to hold it. */
Test(exact, far_from_the_origin) {
    for (size_t m = 0; m < 3; m++) {
        check(KITH_F32, KITH_F32, metrics[m], 24, 1000, NULL);
        check(KITH_F32, KITH_F32, metrics[m], 24, 1e6f, NULL);
    }
}

Test(exact, filtered) {
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++) check(row_types[t], row_types[t], metrics[m], 40, 0, multiple_of_three);
}

/* Equal rows: the lower ids win, wherever the selection is cut. */
Test(exact, ties_go_to_the_lower_id) {
    enum { DIM = 7, K = 50 };
    for (size_t t = 0; t < 5; t++)
        for (size_t queries_count = 1; queries_count <= 33; queries_count += 32) {
            rows_of rows = make_rows(row_types[t], ROWS, DIM, 1, 0),
                    queries = make_rows(row_types[t], 33, DIM, 2, 0);
            size_t row_bytes = kith_dtype_row_bytes(row_types[t], DIM);
            for (size_t r = 1; r < ROWS; r++) memcpy(rows.stored + r * row_bytes, rows.stored, row_bytes);
            static kith_hit hits[33 * K];
            static size_t counts[33];
            static float values[33 * K];
            search(&rows, &queries, KITH_L2, 0, queries_count, K, 2, NULL, hits, counts, values);
            for (size_t q = 0; q < queries_count; q++)
                for (size_t i = 0; i < K; i++) cr_assert_eq(hits[q * K + i].id, (int64_t)i);
            free_rows(&rows);
            free_rows(&queries);
        }
}

static int compare_hits(const void *a, const void *b) { return kith_hit_before(a, b) ? -1 : 1; }

/* Range search finds exactly what a full ranking finds under the radius. */
Test(exact, range_equals_the_head_of_the_full_ranking) {
    enum { DIM = 12, QUERIES = 30 };
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++)
            for (size_t threads = 1; threads <= 3; threads += 2)
                for (size_t count = 1; count <= QUERIES; count += QUERIES - 1) {
                    rows_of rows = make_rows(row_types[t], ROWS, DIM, 1, 0);
                    rows_of queries = make_rows(row_types[t], QUERIES, DIM, 2, 0);
                    kith_hit *all = malloc(count * ROWS * sizeof *all);
                    float *values = malloc(count * ROWS * sizeof *values);
                    size_t counts[QUERIES];
                    search(&rows, &queries, metrics[m], 0, count, ROWS, 1, NULL, all, counts, values);
                    float radius = values[70];
                    kith_arena arena = {0};
                    kith_exact_request request = {.queries = view_of(&queries, 0, count),
                                                  .metric = metrics[m],
                                                  .row_dtype = rows.dtype,
                                                  .threads = threads,
                                                  .arena = &arena};
                    kith_exact *exact;
                    cr_assert_eq(kith_exact_open(&request, &exact), KITH_OK);
                    kith_hit_list lists[QUERIES] = {{0}};
                    kith_rows set = searchable(&rows);
                    cr_assert_eq(kith_exact_range(exact, &set, radius, lists), KITH_OK);
                    for (size_t q = 0; q < count; q++) {
                        size_t inside = 0;
                        bool similar = kith_metric_is_similarity(metrics[m]);
                        while (inside < ROWS && (similar ? values[q * ROWS + inside] >= radius
                                                         : values[q * ROWS + inside] <= radius))
                            inside++;
                        cr_assert_eq(lists[q].count, inside);
                        if (inside > 0) qsort(lists[q].hits, inside, sizeof(kith_hit), compare_hits);
                        for (size_t i = 0; i < inside; i++) cr_assert_eq(lists[q].hits[i].id, all[q * ROWS + i].id);
                        kith_free(lists[q].hits);
                    }
                    kith_arena_free(&arena);
                    free(all);
                    free(values);
                    free_rows(&rows);
                    free_rows(&queries);
                }
}

Test(exact, short_rows_have_no_direction) {
    float zero[3] = {0, 0, 0}, tiny[3] = {1e-20f, 0, 0}, unit[3] = {0, -2, 0};
    cr_assert_eq(kith_exact_inverse_norm(zero, KITH_F32, 3), 0);
    cr_assert_eq(kith_exact_inverse_norm(tiny, KITH_F32, 3), 0);
    cr_assert_eq(kith_exact_inverse_norm(unit, KITH_F32, 3), 0.5f);
}

/* Queries of whole numbers, and others, held against gathered rows of bytes: the float kernel's bits, whatever the size of
 * sums. */
static void check_gathered(kith_dtype type, kith_metric metric, size_t dim, size_t *whole_count,
                           size_t *large_count) {
    enum { QUERIES = 37, GATHERED = 40 };
    rows_of rows = make_rows(type, GATHERED, dim, 31, 0), queries = make_rows(KITH_F32, QUERIES, dim, 32, 0);
    float *values = (float *)(void *)queries.stored;
    for (size_t i = 0; i < QUERIES * dim; i++) values[i] = draw(type, 33, i, 0);
    for (size_t q = 0; q < QUERIES; q++) { /* near some row, far from all, and such as are no bytes */
        float *query = values + q * dim;
        if (q % 3 == 0)
            for (size_t d = 0; d < dim; d++) query[d] = rows.values[q * dim + d];
        if (q % 8 == 5) query[q % dim] = type == KITH_I8 ? 128 : 256;
        if (q % 8 == 6) query[dim - 1 - q % dim] = type == KITH_I8 ? -129 : -1;
        if (q % 8 == 7) query[q % dim] += 0.5f;
    }
    kith_arena arena = {0};
    const kith_exact_request request = {.queries = view_of(&queries, 0, QUERIES),
                                        .metric = metric,
                                        .row_dtype = type,
                                        .threads = 1 + dim % 3,
                                        .gathers = true,
                                        .arena = &arena};
    kith_exact *exact;
    kith_arena_begin(&arena);
    cr_assert_eq(kith_exact_open(&request, &exact), KITH_OK, "%s", kith_error_message());
    for (size_t q = 0; q < QUERIES; q++) {
        if (exact->whole_pair != NULL) {
            cr_assert_eq(exact->is_whole[q], q % 8 < 5);
            *whole_count += exact->is_whole[q];
        }
        for (size_t r = 0; r < GATHERED; r += 4) {
            const void *four[4];
            float norms[4];
            int32_t keys[4];
            for (size_t i = 0; i < 4; i++) {
                four[i] = rows.stored + (r + i) * dim;
                norms[i] = kith_exact_inverse_norm(four[i], type, dim);
            }
            kith_exact_four(exact, q, four, norms, keys);
            for (size_t i = 0; i < 4; i++) {
                int32_t want = kith_exact_float_key(exact, q, four[i], norms[i]);
                cr_assert_eq(keys[i], want, "%s, metric %d, %zu dimensions: query %zu, row %zu",
                             kith_dtype_name(type), (int)metric, dim, q, r + i);
                *large_count += metric == KITH_L2 && kith_exact_value(exact, want) > 0x1p24f;
            }
        }
    }
    kith_arena_free(&arena);
    free_rows(&rows);
    free_rows(&queries);
}

Test(exact, gathered_bytes_and_queries_of_whole_numbers) {
    static const size_t dims[] = {1, 7, 31, 64, 130, 784, 1024, 1025, 2000};
    static const kith_dtype types[] = {KITH_U8, KITH_I8};
    size_t whole_count = 0, large_count = 0;
    for (size_t t = 0; t < 2; t++)
        for (size_t m = 0; m < 3; m++)
            for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
                check_gathered(types[t], metrics[m], dims[d], &whole_count, &large_count);
    cr_assert_gt(whole_count, 800);
    cr_assert_gt(large_count, 2000);
}
