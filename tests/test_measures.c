/* SPDX-License-Identifier: Apache-2.0
 *
 * Measures against FAISS's own evaluation code: golden/make_recall_golden.py made the values.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "faults.h"
#include "kith/eval.h"

enum { QUERIES = 1000, DEPTH = 100, PRIME = 10007 };

/* ---- The lists that make_recall_golden.py describes ---------------------------------------------------- */

static uint64_t mix_in(uint64_t x, uint64_t number) {
    x = (x ^ number) + 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}
static uint64_t mix2(uint64_t a, uint64_t b) { return mix_in(mix_in(0, a), b); }
static uint64_t mix3(uint64_t a, uint64_t b, uint64_t c) { return mix_in(mix2(a, b), c); }

static int64_t list_id(uint64_t query, uint64_t place) {
    uint64_t step = 1 + mix2(2, query) % (PRIME - 1);
    return (int64_t)((mix2(1, query) % PRIME + place * step) % PRIME);
}

static float truth_distance(uint64_t query, uint64_t place) {
    return (float)(place * (1 + mix2(3, query) % 3) / 3) * 0.25f;
}

static uint64_t result_place(uint64_t query, uint64_t place) {
    return mix3(4, query, place) % 4 == 0 ? place + 1000 : place ^ mix2(5, query) % 8;
}

static float result_distance(uint64_t query, uint64_t place) {
    uint64_t there = result_place(query, place);
    return there < DEPTH ? truth_distance(query, there) : truth_distance(query, place) + 0.125f;
}

static kith_neighbors *make_lists(bool is_result) {
    kith_neighbors *lists;
    cr_assert_eq(kith_neighbors_create(QUERIES, DEPTH, 1, &lists), KITH_OK);
    for (uint64_t query = 0; query < QUERIES; query++)
        for (uint64_t place = 0; place < DEPTH; place++) {
            size_t at = query * DEPTH + place;
            lists->ids[at] = list_id(query, is_result ? result_place(query, place) : place);
            lists->distances[at] = is_result ? result_distance(query, place) : truth_distance(query, place);
        }
    return lists;
}

static kith_range_result make_range(uint64_t stream, uint64_t length) {
    kith_range_result range = {.query_count = QUERIES, .limits = calloc(QUERIES + 1, sizeof(size_t))};
    range.ids = calloc(QUERIES * length, sizeof *range.ids);
    for (uint64_t query = 0; query < QUERIES; query++) {
        uint64_t count = mix3(stream, query, 1) % 5 != 0 ? mix2(stream, query) % length : 0;
        for (uint64_t place = 0; place < count; place++)
            range.ids[range.limits[query] + place] = list_id(query, place + 1000 * (place % 2) * (stream - 10));
        range.limits[query + 1] = range.limits[query] + count;
    }
    return range;
}

/* ---- FAISS's numbers, to the last bit ------------------------------------------------------------------ */

typedef struct golden_rank {
    size_t rank;
    double recall_1, intersection, ties, big_ann, distance;
} golden_rank;

static const golden_rank golden_ranks[] = {
#define GOLDEN_RANK(rank, recall_1, intersection, ties, big_ann, distance)                                         \
    {rank, recall_1, intersection, ties, big_ann, distance},
#define GOLDEN_RANGE(mode, precision, recall)
#include "golden/recall_golden.inc"
#undef GOLDEN_RANK
#undef GOLDEN_RANGE
};
enum { GOLDEN_RANKS = sizeof golden_ranks / sizeof *golden_ranks };

Test(measures, equal_faiss_to_the_last_bit) {
    kith_neighbors *truth = make_lists(false), *result = make_lists(true);
    size_t ranks[GOLDEN_RANKS];
    for (size_t i = 0; i < GOLDEN_RANKS; i++) ranks[i] = golden_ranks[GOLDEN_RANKS - 1 - i].rank; /* any order */
    kith_measures_options options;
    kith_measures_options_init(&options);
    options.ranks = ranks, options.rank_count = GOLDEN_RANKS, options.metric = KITH_L2;
    kith_measures *measures;
    cr_assert_eq(kith_measures_compute(result, truth, &options, &measures), KITH_OK);
    cr_assert_eq(measures->rank_count, GOLDEN_RANKS);
    for (size_t i = 0; i < GOLDEN_RANKS; i++) {
        const kith_measures_at *at = measures->at[i];
        const golden_rank *golden = &golden_ranks[i];
        cr_assert_eq(at->rank, golden->rank);
        cr_assert_eq(at->recall_1, golden->recall_1, "rank %zu: %a", at->rank, at->recall_1);
        cr_assert_eq(at->intersection, golden->intersection, "rank %zu: %a", at->rank, at->intersection);
        cr_assert_eq(at->recall_ties, golden->ties, "rank %zu: %a", at->rank, at->recall_ties);
        cr_assert_eq(at->recall_big_ann, golden->big_ann, "rank %zu: %a", at->rank, at->recall_big_ann);
        cr_assert_eq(at->recall_distance, golden->distance, "rank %zu: %a", at->rank, at->recall_distance);
    }
    cr_assert_eq(measures->short_query_count, 0);
    cr_assert_eq(measures->duplicate_query_count, 0);
    kith_measures_free(measures);
    kith_neighbors_free(truth);
    kith_neighbors_free(result);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(measures, range_equals_faiss_to_the_last_bit) {
    kith_range_result truth = make_range(10, 40), result = make_range(11, 50);
    kith_range_measures *measures;
    cr_assert_eq(kith_range_measures_compute(&result, &truth, &measures), KITH_OK);
#define GOLDEN_RANK(rank, recall_1, intersection, ties, big_ann, distance)
#define GOLDEN_RANGE(mode, precision, recall)                                                                      \
    cr_assert_eq(measures->precision_##mode, precision, "%a", measures->precision_##mode);                         \
    cr_assert_eq(measures->recall_##mode, recall, "%a", measures->recall_##mode);
#include "golden/recall_golden.inc"
#undef GOLDEN_RANK
#undef GOLDEN_RANGE
    for (size_t query = 0; query < QUERIES; query++) {
        cr_assert_eq(measures->truth_counts[query], truth.limits[query + 1] - truth.limits[query]);
        cr_assert_leq(measures->common_counts[query], measures->truth_counts[query]);
    }
    kith_range_measures_free(measures);
    free(truth.limits), free(truth.ids), free(result.limits), free(result.ids);
}

/* ---- Small cases, by hand ------------------------------------------------------------------------------ */

static kith_neighbors lists_of(int64_t *ids, float *distances, size_t query_count, size_t k) {
    return (kith_neighbors){sizeof(kith_neighbors), query_count, k, ids, distances};
}

static void expect_error(const kith_neighbors *result, const kith_neighbors *truth, const size_t *rank,
                         kith_status status, const char *message) {
    kith_measures_options options;
    kith_measures_options_init(&options);
    options.ranks = rank, options.rank_count = rank != NULL, options.truth_name = "g.ivecs";
    kith_measures *measures = (kith_measures *)&options;
    cr_assert_eq(kith_measures_compute(result, truth, &options, &measures), status);
    cr_assert_null(measures);
    cr_assert_str_eq(kith_error_message(), message);
}

Test(measures, padding_duplicates_and_lengths) {
    int64_t truth_ids[2][4] = {{1, 2, 3, 4}, {5, 6, 7, 8}};
    int64_t result_ids[2][5] = {{9, 2, 2, 1, 1}, {8, -1, 6, -1, -1}};
    kith_neighbors truth = lists_of(truth_ids[0], NULL, 2, 4), result = lists_of(result_ids[0], NULL, 2, 5);
    size_t ranks[] = {4, 2};
    kith_measures_options options;
    kith_measures_options_init(&options);
    options.ranks = ranks, options.rank_count = 2;
    kith_measures *measures;
    cr_assert_eq(kith_measures_compute(&result, &truth, &options, &measures), KITH_OK);
    const kith_measures_at *two = measures->at[0], *four = measures->at[1];
    cr_assert_eq(two->rank, 2);
    cr_assert_eq(two->intersection, 0.25); /* 2 of {1, 2}; nothing of {5, 6} in {8} */
    cr_assert_eq(two->intersection_counts[0], 1);
    cr_assert_eq(two->intersection_counts[1], 0);
    cr_assert_eq(two->recall_1, 0.0);
    cr_assert_eq(four->intersection, 4.0 / 8.0); /* 2 and 1; 8 and 6 */
    cr_assert_eq(four->recall_1, 0.5);
    cr_assert(isnan(four->recall_ties) && isnan(four->recall_big_ann) && isnan(four->recall_distance));
    cr_assert_null(four->ties_counts);
    cr_assert_eq(measures->nearest_ranks[0], 4);
    cr_assert_eq(measures->nearest_ranks[1], 0);
    cr_assert_eq(measures->nearest_found, 0.5);
    cr_assert_eq(measures->nearest_rank_mean, 4.0);
    cr_assert_eq(measures->nearest_rank_median, 4.0);
    cr_assert_eq(measures->short_query_count, 1);
    cr_assert_eq(measures->duplicate_query_count, 1);
    kith_measures_free(measures);
    cr_assert_eq(kith_measures_compute(&result, &truth, NULL, &measures), KITH_OK); /* 10 and 100 are too deep */
    cr_assert_eq(measures->rank_count, 1);
    cr_assert_eq(measures->at[0]->rank, 1);
    kith_measures_free(measures);
    kith_measures_free(NULL);
}

Test(measures, truth_that_repeats_an_id) {
    int64_t truth_ids[] = {1, 1, 2, 3}, result_ids[] = {1, 2, 3, 4};
    kith_neighbors truth = lists_of(truth_ids, NULL, 1, 4), result = lists_of(result_ids, NULL, 1, 4);
    size_t rank = 4;
    kith_measures_options options;
    kith_measures_options_init(&options);
    options.ranks = &rank, options.rank_count = 1;
    kith_measures *measures;
    cr_assert_eq(kith_measures_compute(&result, &truth, &options, &measures), KITH_OK);
    cr_assert_eq(measures->at[0]->intersection, 0.75);
    kith_measures_free(measures);
}

/* Three ways to see the same tie: ids 3 and 4 are equally far, and so are 1 and 2. */
Test(measures, ties) {
    int64_t truth_ids[] = {1, 2, 3, 4, 5, 6}, result_ids[] = {1, 2, 4, 5, 3, 6};
    float truth_distances[] = {1, 1, 4, 4, 9, 16}, result_distances[] = {1, 1, 4, 9, 4, 16};
    kith_neighbors truth = lists_of(truth_ids, truth_distances, 1, 6);
    kith_neighbors result = lists_of(result_ids, result_distances, 1, 6);
    size_t rank = 3;
    kith_measures_options options;
    kith_measures_options_init(&options);
    options.ranks = &rank, options.rank_count = 1, options.metric = KITH_L2;
    kith_measures *measures;
    cr_assert_eq(kith_measures_compute(&result, &truth, &options, &measures), KITH_OK);
    cr_assert_eq(measures->at[0]->intersection, 2.0 / 3);
    cr_assert_eq(measures->at[0]->recall_ties, 1.0);
    cr_assert_eq(measures->at[0]->recall_distance, 1.0);
    kith_measures_free(measures);
    result_ids[2] = 5, result_distances[2] = 9; /* true neighbour 5 is at the third distinct distance */
    cr_assert_eq(kith_measures_compute(&result, &truth, &options, &measures), KITH_OK);
    cr_assert_eq(measures->at[0]->recall_ties, 2.0 / 3);
    cr_assert_eq(measures->at[0]->recall_big_ann, 1.0);
    cr_assert_eq(measures->at[0]->recall_distance, 2.0 / 3);
    kith_measures_free(measures);
    options.epsilon = 1.0; /* sqrt(9) <= sqrt(4) + 1 */
    cr_assert_eq(kith_measures_compute(&result, &truth, &options, &measures), KITH_OK);
    cr_assert_eq(measures->at[0]->recall_distance, 1.0);
    kith_measures_free(measures);
}

Test(measures, similarities_are_turned_round) {
    int64_t truth_ids[] = {1, 2, 3}, result_ids[] = {1, 9, 8};
    float truth_distances[] = {0.9f, 0.8f, 0.5f}, result_distances[] = {0.9f, 0.7995f, 0.7f};
    kith_neighbors truth = lists_of(truth_ids, truth_distances, 1, 3);
    kith_neighbors result = lists_of(result_ids, result_distances, 1, 3);
    size_t rank = 2;
    kith_measures_options options;
    kith_measures_options_init(&options);
    options.ranks = &rank, options.rank_count = 1;
    for (int metric = KITH_IP; metric <= KITH_COSINE; metric++) {
        kith_measures *measures;
        options.metric = (kith_metric)metric, options.epsilon = 1e-3;
        cr_assert_eq(kith_measures_compute(&result, &truth, &options, &measures), KITH_OK);
        cr_assert_eq(measures->at[0]->recall_distance, 1.0);
        kith_measures_free(measures);
        options.epsilon = 1e-4;
        cr_assert_eq(kith_measures_compute(&result, &truth, &options, &measures), KITH_OK);
        cr_assert_eq(measures->at[0]->recall_distance, 0.5);
        kith_measures_free(measures);
    }
}

Test(measures, median_of_the_nearest) {
    int64_t truth_ids[] = {7, 7, 7, 7, 7}, result_ids[5][4] = {{7, 1, 2, 3}, {1, 7, 2, 3}, {1, 2, 3, 7}};
    kith_neighbors truth = lists_of(truth_ids, NULL, 3, 1), result = lists_of(result_ids[0], NULL, 3, 4);
    kith_measures *measures;
    cr_assert_eq(kith_measures_compute(&result, &truth, NULL, &measures), KITH_OK);
    cr_assert_eq(measures->nearest_rank_median, 2.0);
    cr_assert_eq(measures->nearest_rank_mean, 7.0 / 3);
    kith_measures_free(measures);
    memcpy(result_ids[3], (int64_t[]){1, 2, 3, 7}, sizeof result_ids[3]);
    truth.query_count = result.query_count = 4;
    cr_assert_eq(kith_measures_compute(&result, &truth, NULL, &measures), KITH_OK);
    cr_assert_eq(measures->nearest_rank_median, 3.0); /* 1, 2, 4, 4 */
    kith_measures_free(measures);
    memcpy(result_ids[4], (int64_t[]){1, 2, 3, 4}, sizeof result_ids[4]);
    truth.query_count = result.query_count = 1, result.ids = result_ids[4];
    cr_assert_eq(kith_measures_compute(&result, &truth, NULL, &measures), KITH_OK);
    cr_assert_eq(measures->nearest_found, 0.0);
    cr_assert(isnan(measures->nearest_rank_median) && isnan(measures->nearest_rank_mean));
    kith_measures_free(measures);
}

Test(measures, bad_input) {
    int64_t ids[] = {1, 2, 3, -1, 5, 6};
    kith_neighbors truth = lists_of(ids, NULL, 2, 3), result = lists_of(ids, NULL, 2, 2);
    size_t rank = 3;
    expect_error(&result, &truth, &rank, KITH_ERR_ARGUMENT, "result: rank 3, but it has 2 results a query");
    result.k = 3, truth.k = 2;
    expect_error(&result, &truth, &rank, KITH_ERR_ARGUMENT,
                 "g.ivecs: rank 3, but it has 2 true neighbours a query");
    rank = 2;
    expect_error(&result, &truth, &rank, KITH_ERR_ARGUMENT,
                 "g.ivecs: query 1 has 1 true neighbours, rank 2 asks for more");
    rank = 0;
    expect_error(&result, &truth, &rank, KITH_ERR_ARGUMENT, "rank 0: ranks count from 1");
    ids[3] = -7;
    expect_error(&truth, &truth, NULL, KITH_ERR_RANGE, "g.ivecs: query 1, column 1 has the id -7");
    ids[3] = 4, ids[5] = -2;
    expect_error(&result, &truth, NULL, KITH_ERR_RANGE, "result: query 1, column 2 has the id -2");
    truth.query_count = 1;
    expect_error(&result, &truth, NULL, KITH_ERR_DIMENSION, "result has 2 queries, g.ivecs has 1");
    truth.query_count = 0;
    expect_error(&result, &truth, NULL, KITH_ERR_EMPTY, "g.ivecs: no queries");
    truth.query_count = SIZE_MAX / 4;
    cr_assert_neq(kith_measures_compute(&result, &truth, NULL, &(kith_measures *){NULL}), KITH_OK);
    truth.query_count = 2, truth.ids = NULL;
    expect_error(&result, &truth, NULL, KITH_ERR_ARGUMENT, "g.ivecs: ids is NULL");
    expect_error(NULL, &truth, NULL, KITH_ERR_ARGUMENT, "result: NULL");
    kith_measures_options options;
    kith_measures_options_init(&options);
    options.epsilon = (double)NAN;
    kith_measures *measures;
    cr_assert_eq(kith_measures_compute(&result, &result, &options, &measures), KITH_ERR_ARGUMENT);
    options.epsilon = 0, options.metric = (kith_metric)9;
    cr_assert_eq(kith_measures_compute(&result, &result, &options, &measures), KITH_ERR_ARGUMENT);
}

Test(measures, bad_ranges) {
    size_t limits[] = {0, 2, 1}, good[] = {0, 1, 2};
    int64_t ids[] = {1, 2};
    kith_range_result bad = {2, limits, ids, NULL}, range = {2, good, ids, NULL};
    kith_range_measures *measures;
    cr_assert_eq(kith_range_measures_compute(&range, &bad, &measures), KITH_ERR_ARGUMENT);
    cr_assert_str_eq(kith_error_message(), "truth: limits fall from 2 to 1 at query 1");
    bad = range, bad.ids = NULL;
    cr_assert_eq(kith_range_measures_compute(&bad, &range, &measures), KITH_ERR_ARGUMENT);
    bad = range, bad.query_count = 1;
    cr_assert_eq(kith_range_measures_compute(&bad, &range, &measures), KITH_ERR_DIMENSION);
    ids[1] = -1;
    cr_assert_eq(kith_range_measures_compute(&range, &range, &measures), KITH_ERR_RANGE);
    cr_assert_null(measures);
}

/* ---- Failing allocations ------------------------------------------------------------------------------- */

Test(measures, every_allocation_may_fail) {
    int64_t ids[] = {1, 2, 3, 4};
    float distances[] = {1, 2, 3, 4};
    size_t limits[] = {0, 1, 4};
    kith_neighbors lists = lists_of(ids, distances, 2, 2);
    kith_range_result range = {2, limits, ids, NULL};
    kith_measures_options options;
    kith_measures_options_init(&options);
    options.metric = KITH_L2;
    kith_status last[3] = {KITH_ERR_NO_MEMORY, KITH_ERR_NO_MEMORY, KITH_ERR_NO_MEMORY};
    for (size_t n = 1; last[0] != KITH_OK || last[1] != KITH_OK || last[2] != KITH_OK; n++) {
        kith_measures *measures;
        kith_range_measures *range_measures;
        kith_neighbors *made;
        faults_fail_allocation(n);
        last[0] = kith_measures_compute(&lists, &lists, &options, &measures);
        cr_assert(last[0] == KITH_OK ? measures->at[0]->recall_distance == 1.0 : measures == NULL);
        kith_measures_free(measures);
        faults_fail_allocation(n);
        last[1] = kith_range_measures_compute(&range, &range, &range_measures);
        cr_assert(last[1] == KITH_OK ? range_measures->recall_average == 1.0 : range_measures == NULL);
        kith_range_measures_free(range_measures);
        faults_fail_allocation(n);
        last[2] = kith_neighbors_create(3, 3, 1, &made);
        cr_assert(last[2] == KITH_OK ? made->ids[8] == KITH_NO_ID : made == NULL);
        kith_neighbors_free(made);
        for (size_t i = 0; i < 3; i++) cr_assert(last[i] == KITH_OK || last[i] == KITH_ERR_NO_MEMORY);
        cr_assert_eq(kith_memory_live_blocks(), 0);
        cr_assert_lt(n, 100);
    }
}
