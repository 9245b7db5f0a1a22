/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "base/random.h"
#include "faults.h"
#include "index/vtable.h"
#include "kith/kith.h"

/* ---- An index whose recall is known ----------------------------------------------------------------------------- */

enum { DIM = 3, ROWS = 5000, QUERIES = 600, DEPTH = 10, LISTS = 64, FACTORS = 4, JUNK = ROWS };

/* Query i is (i, 0, 0); its r-th neighbour is found when nprobe and k_factor are as large as two numbers drawn for (i, r),
 * out of 1..LISTS and 1..FACTORS: the mean recall is nprobe / LISTS x min(k_factor, FACTORS) / FACTORS. Time goes with
 * both. */
static kith_status model_search(const kith_index *index, const kith_search_request *request,
                                const kith_search_results *results) {
    (void)index;
    const kith_search_params *params = request->params;
    uint64_t end = kith_now_ns() + 4000 * params->nprobe + 40000 * params->k_factor;
    for (size_t q = 0; q < request->queries.count; q++) {
        float number;
        memcpy(&number, (const char *)request->queries.data + q * request->queries.stride, sizeof number);
        for (size_t r = 0; r < results->k; r++) {
            uint64_t counter = (uint64_t)number * DEPTH + r;
            bool found = kith_random_below(1, 1, counter, LISTS) < params->nprobe &&
                         kith_random_below(1, 2, counter, FACTORS) < params->k_factor;
            results->ids[q * results->k + r] = found ? (int64_t)r : (int64_t)(JUNK + r);
            if (results->distances != NULL) results->distances[q * results->k + r] = (float)r;
        }
        if (results->counts != NULL) results->counts[q] = results->k;
    }
    while (kith_now_ns() < end) continue;
    return KITH_OK;
}

static size_t model_memory(const kith_index *index, kith_memory_part *parts, size_t capacity) {
    (void)index;
    if (capacity > 0) parts[0] = (kith_memory_part){"model", 12345};
    return 1;
}

static const kith_param model_params[] = {KITH_PARAM_THREADS, KITH_PARAM_MAX_DISTANCES,
                                          KITH_PARAM(k_factor, "candidates", 1, 1000, 1),
                                          KITH_PARAM(nprobe, "lists", 1, LISTS, 1)};
static const kith_index_vtable model_vtable = {
    .name = "Model", .params = model_params, .param_count = 4, .search = model_search, .memory = model_memory};

static kith_index model;
static float queries[QUERIES * DIM];
static const kith_view query_view = {queries, KITH_F32, QUERIES, DIM, 0};
static kith_neighbors *truth;

static void open_all(void) {
    kith_index_init(&model, &model_vtable, DIM, KITH_L2, KITH_F32, "Model");
    model.count = ROWS;
    cr_assert_eq(kith_neighbors_create(QUERIES, DEPTH, 0, &truth), KITH_OK);
    for (size_t i = 0; i < QUERIES; i++) {
        queries[i * DIM] = (float)i;
        for (size_t r = 0; r < DEPTH; r++) truth->ids[i * DEPTH + r] = (int64_t)r;
    }
}

static void close_all(void) {
    kith_neighbors_free(truth);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

static kith_tuning *tune(const kith_index *index, const kith_tune_options *options) {
    kith_tuning *tuning;
    cr_assert_eq(kith_tune(index, &query_view, truth, options, &tuning), KITH_OK, "%s", kith_error_message());
    return tuning;
}

static size_t value_of(const kith_tuning *tuning, const char *name) {
    for (size_t i = 0; i < tuning->value_count; i++)
        if (strcmp(tuning->values[i].name, name) == 0) return (size_t)strtoull(tuning->values[i].value, NULL, 10);
    return 0;
}

static double expected_recall(size_t nprobe, size_t factor) {
    return (double)nprobe / LISTS * (double)(factor < FACTORS ? factor : FACTORS) / FACTORS;
}

/* ---- Tests ------------------------------------------------------------------------------------------------------ */

/* At a half, factors of 3 and 4 are within a few per cent of each other; 2 needs nearly all lists, 8 costs more than it
 * spares, and 1 never gets there. */
Test(tune, chooses_the_cheapest_that_finds_enough, .init = open_all, .fini = close_all) {
    kith_tune_options options;
    kith_tune_options_init(&options);
    options.recall = 0.5;
    kith_tuning *tuning = tune(&model, &options);
    size_t nprobe = value_of(tuning, "nprobe"), factor = value_of(tuning, "k_factor");
    char text[64];
    (void)snprintf(text, sizeof text, "k_factor=%zu,nprobe=%zu", factor, nprobe);
    cr_assert_str_eq(tuning->parameters, text);
    cr_assert_eq(tuning->value_count, 2);
    cr_assert_eq(tuning->is_reached, 1);
    cr_assert(factor >= 2 && factor <= 8, "%s", text);
    /* Enough, with a probability of nine in ten, but not much more: 3,000 hits of 0.5 have a standard deviation of .009,
     * and one list more is .016 at most. */
    cr_assert(fabs(expected_recall(nprobe, factor) - 0.5) < 0.06, "%s", text);
    cr_assert(tuning->recall_chosen >= 0.5 && tuning->recall_chosen < 0.56);
    cr_assert(tuning->choose_count == QUERIES / 2 && tuning->check_count == QUERIES - QUERIES / 2);
    cr_assert(tuning->recall_low < tuning->recall && tuning->recall < tuning->recall_high);
    double width = tuning->recall_high - tuning->recall_low; /* 4 x .009 */
    cr_assert(width > 0.025 && width < 0.05, "%g", width);
    cr_assert(tuning->sure > 0 && tuning->sure <= 1);
    cr_assert(tuning->trial_count > 10 && tuning->trial_count < 150);
    cr_assert_eq(tuning->index_memory_bytes, 12345);
    cr_assert_geq(tuning->candidate_count, 1); /* the clock may leave no more */
    cr_assert_str_eq(tuning->candidates[0].parameters, text);
    for (size_t i = 0; i < tuning->candidate_count; i++) {
        cr_assert_leq(tuning->candidates[i].qps, tuning->candidates[0].qps);
        cr_assert_geq(tuning->candidates[i].recall, 0.5);
    }
    cr_assert(tuning->qps_1.median > 0 && tuning->latency.p50 > 0 && tuning->latency.p50 <= tuning->latency.p99);
    kith_tuning_free(tuning);
    kith_tuning_free(NULL);
}

/* The more sure, the more lists; and the queries that check are as sure as was asked for, more or less. */
Test(tune, certainty_costs_effort, .init = open_all, .fini = close_all) {
    static const char *const grid[] = {"k_factor=4"};
    static const double wanted[] = {0.5, 0.9, 0.999};
    size_t probes[3];
    for (size_t i = 0; i < 3; i++) {
        kith_tune_options options;
        kith_tune_options_init(&options);
        options.recall = 0.8, options.sure = wanted[i], options.repeats = 1, options.latency_queries = 0;
        options.grid = grid, options.grid_count = 1;
        kith_tuning *tuning = tune(&model, &options);
        probes[i] = value_of(tuning, "nprobe");
        cr_assert_eq(value_of(tuning, "k_factor"), 4);
        cr_assert(isnan(tuning->latency.p50));
        kith_tuning_free(tuning);
    }
    cr_assert(probes[0] < probes[2] && probes[0] <= probes[1] && probes[1] <= probes[2]);
    cr_assert(probes[0] >= 50 && probes[2] <= 57, "%zu..%zu", probes[0], probes[2]); /* 51.2 for the mean */
}

/* The seed decides which queries choose; the rest follows. */
Test(tune, is_the_same_again, .init = open_all, .fini = close_all) {
    static const char *const grid[] = {"k_factor=4"};
    kith_tune_options options;
    kith_tune_options_init(&options);
    options.grid = grid, options.grid_count = 1, options.repeats = 1, options.seed = 7;
    kith_tuning *first = tune(&model, &options), *again = tune(&model, &options);
    cr_assert_str_eq(first->parameters, again->parameters);
    cr_assert(first->recall == again->recall && first->recall_low == again->recall_low &&
              first->sure == again->sure && first->trial_count == again->trial_count);
    options.seed = 8;
    kith_tuning *other = tune(&model, &options);
    cr_assert(other->recall != first->recall || other->recall_chosen != first->recall_chosen);
    kith_tuning_free(first);
    kith_tuning_free(again);
    kith_tuning_free(other);
}

Test(tune, of_listed_values_takes_the_first_that_does, .init = open_all, .fini = close_all) {
    static const char *const grid[] = {"nprobe=8,16,40,64,k_factor=4"};
    kith_tune_options options;
    kith_tune_options_init(&options);
    options.grid = grid, options.grid_count = 1, options.recall = 0.5, options.repeats = 1;
    kith_tuning *tuning = tune(&model, &options);
    cr_assert_str_eq(tuning->parameters, "nprobe=40,k_factor=4");
    cr_assert_eq(tuning->trial_count, 3);
    kith_tuning_free(tuning);
}

/* Nothing finds enough: what finds the most is told, and that it is not enough. */
Test(tune, says_what_is_out_of_reach, .init = open_all, .fini = close_all) {
    static const char *const grid[] = {"k_factor=1,2"};
    kith_tune_options options;
    kith_tune_options_init(&options);
    options.grid = grid, options.grid_count = 1, options.repeats = 1;
    kith_tuning *tuning = tune(&model, &options);
    cr_assert_eq(tuning->is_reached, 0);
    cr_assert_str_eq(tuning->parameters, "k_factor=2,nprobe=64");
    cr_assert_eq(tuning->sure, 0);
    cr_assert(fabs(tuning->recall - 0.5) < 0.05);
    kith_tuning_free(tuning);
}

/* Of a real index: the first rows of a flat one hold as large a share of the neighbours. */
Test(tune, bounds_a_flat_index) {
    enum { FLAT_ROWS = 3000, FLAT_DIM = 8 };
    kith_view base = {NULL, KITH_F32, FLAT_ROWS, FLAT_DIM, 0}, some = {NULL, KITH_F32, QUERIES, FLAT_DIM, 0};
    float *rows = malloc(sizeof *rows * FLAT_ROWS * FLAT_DIM), *asked = malloc(sizeof *asked * QUERIES * FLAT_DIM);
    for (size_t i = 0; i < FLAT_ROWS * FLAT_DIM; i++) rows[i] = kith_random_normal(5, 1, i);
    for (size_t i = 0; i < QUERIES * FLAT_DIM; i++) asked[i] = kith_random_normal(5, 2, i);
    base.data = rows, some.data = asked;
    kith_ground_truth *gather;
    kith_neighbors *nearest;
    kith_index *flat;
    kith_tuning *tuning;
    cr_assert_eq(kith_ground_truth_create(&some, KITH_L2, DEPTH, 0, NULL, &gather), KITH_OK);
    cr_assert_eq(kith_ground_truth_feed(gather, &base, 0), KITH_OK);
    cr_assert_eq(kith_ground_truth_finish(gather, &nearest), KITH_OK);
    cr_assert_eq(kith_index_create("Flat", FLAT_DIM, KITH_L2, &flat), KITH_OK);
    cr_assert_eq(kith_index_add(flat, &base, NULL, NULL), KITH_OK);
    kith_tune_options options;
    kith_tune_options_init(&options);
    options.recall = 0.7, options.sure = 0.5, options.threads = 2;
    cr_assert_eq(kith_tune(flat, &some, nearest, &options, &tuning), KITH_OK, "%s", kith_error_message());
    size_t bound = value_of(tuning, "max_distances");
    cr_assert(bound > FLAT_ROWS * 65 / 100 && bound < FLAT_ROWS * 78 / 100, "%zu", bound);
    cr_assert_eq(tuning->qps_n.threads, 2);
    kith_tuning_free(tuning);
    options.recall = 1;
    cr_assert_eq(kith_tune(flat, &some, nearest, &options, &tuning), KITH_OK);
    cr_assert(tuning->is_reached && value_of(tuning, "max_distances") > FLAT_ROWS * 9 / 10);
    kith_tuning_free(tuning);
    kith_index_free(flat);
    kith_neighbors_free(nearest);
    kith_ground_truth_free(gather);
    free(rows);
    free(asked);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

static void refused(const kith_tune_options *options, const kith_view *asked, const kith_neighbors *known,
                    kith_status want, const char *part) {
    kith_tuning *tuning = (kith_tuning *)&want;
    cr_assert_eq(kith_tune(&model, asked, known, options, &tuning), want, "%s", kith_error_message());
    cr_assert_null(tuning);
    cr_assert(strstr(kith_error_message(), part) != NULL, "%s", kith_error_message());
}

#define REFUSED_OPTION(field, value, part)                                                                         \
    do {                                                                                                           \
        kith_tune_options options;                                                                                 \
        kith_tune_options_init(&options);                                                                          \
        options.field = value;                                                                                     \
        refused(&options, &query_view, truth, KITH_ERR_ARGUMENT, part);                                            \
    } while (0)

Test(tune, refuses, .init = open_all, .fini = close_all) {
    REFUSED_OPTION(recall, 0, "tune: recall = 0 is not above 0");
    REFUSED_OPTION(recall, 1.01, "tune: recall = 1.01");
    REFUSED_OPTION(recall, (double)NAN, "tune: recall = ");
    REFUSED_OPTION(sure, 0.49, "tune: sure = 0.49 is outside 0.5..0.999");
    REFUSED_OPTION(sure, 1, "tune: sure = 1");
    REFUSED_OPTION(repeats, 0, "tune: repeats = 0");
    REFUSED_OPTION(k, 0, "tune: k = 0 is outside 1..10");
    REFUSED_OPTION(k, 11, "tune: k = 11 is outside 1..10");
    REFUSED_OPTION(threads, 1025, "1025");
    static const char *const unknown[] = {"no_such=1"}, *const bad[] = {"nprobe=0"},
                             *const threads[] = {"threads=2"};
    kith_tune_options options;
    kith_tune_options_init(&options);
    options.grid_count = 1;
    options.grid = unknown;
    refused(&options, &query_view, truth, KITH_ERR_NOT_FOUND, "no_such");
    options.grid = bad;
    refused(&options, &query_view, truth, KITH_ERR_ARGUMENT, "nprobe = '0'");
    options.grid = threads;
    refused(&options, &query_view, truth, KITH_ERR_ARGUMENT, "threads");
    kith_view few = query_view, narrow = query_view;
    kith_neighbors short_truth = *truth;
    few.count = 19, short_truth.query_count = 19, narrow.dim = 2;
    refused(NULL, &few, &short_truth, KITH_ERR_ARGUMENT, "tune: 19 queries, at least 20 are needed");
    refused(NULL, &few, truth, KITH_ERR_DIMENSION, "truth: of 600 queries, but 19 are given");
    refused(NULL, &narrow, truth, KITH_ERR_DIMENSION, "dimension");
    refused(NULL, NULL, truth, KITH_ERR_ARGUMENT, "NULL");
    refused(NULL, &query_view, NULL, KITH_ERR_ARGUMENT, "truth");
    cr_assert_eq(kith_tune(&model, &query_view, truth, NULL, NULL), KITH_ERR_ARGUMENT);
}

static int cancel(void *user, const char *phase, uint64_t done, uint64_t total) {
    (void)user;
    cr_assert_str_eq(phase, "tune");
    cr_assert_leq(done, total);
    return 1;
}

Test(tune, can_be_cancelled, .init = open_all, .fini = close_all) {
    kith_tune_options options;
    kith_tune_options_init(&options);
    options.progress = cancel;
    refused(&options, &query_view, truth, KITH_ERR_CANCELLED, "");
}

Test(tune, survives_every_failing_allocation, .init = open_all, .fini = close_all) {
    static const char *const grid[] = {"nprobe=40,64,k_factor=4"};
    kith_tune_options options;
    kith_tune_options_init(&options);
    options.grid = grid, options.grid_count = 1, options.repeats = 1, options.recall = 0.5;
    options.latency_queries = 0;
    close_all(); /* the counting allocator comes when no block is live */
    faults_fail_allocation(0);
    open_all();
    for (size_t n = 1;; n++) {
        kith_tuning *tuning;
        uint64_t live = kith_memory_live_blocks();
        faults_fail_allocation(n);
        kith_status status = kith_tune(&model, &query_view, truth, &options, &tuning);
        faults_fail_allocation(0);
        if (status == KITH_OK) {
            kith_tuning_free(tuning);
            cr_assert_gt(n, 8);
            break;
        }
        cr_assert_eq(status, KITH_ERR_NO_MEMORY, "%s", kith_error_message());
        cr_assert_null(tuning);
        cr_assert_eq(kith_memory_live_blocks(), live);
    }
}
