/* SPDX-License-Identifier: Apache-2.0
 *
 * test_search_report.c: what a search says about itself, deadlines, and searches for groups.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "index_fixture.h"
#include "kith/kith.h"
#include "memory_faults.h"

#define OK(call) cr_assert_eq((call), KITH_OK, "%s: %s", #call, kith_error_message())

enum { NB = 3000, NQ = 40, DIM = 12, K = 5 };

static const char *const specs[] = {"Flat",       "HNSW8",           "IVF30,SQ8",
                                    "IVF30,Flat", "HNSW8,SQ8,RFlat", "PCA8,IVF30,SQ8,RFlat"};
enum { SPECS = sizeof specs / sizeof *specs };

static kith_index *built(const char *spec, kith_metric metric) { return fixture_index(spec, NB, DIM, metric); }

typedef struct results {
    int64_t ids[NQ * K];
    float distances[NQ * K];
    size_t counts[NQ];
} results;

/* ---- Reports ------------------------------------------------------------------------------------------------ */

Test(search_report, says_what_was_done_and_changes_nothing) {
    static results plain, reported;
    fixture_vectors queries = fixture_vectors_make(KITH_F32, NQ, DIM, 4);
    kith_view view = fixture_view(&queries, 0, NQ);
    kith_filter *few, *half;
    OK(kith_filter_range(100, 140, &few));
    OK(kith_filter_range(0, NB / 2, &half));
    const kith_filter *filters[] = {NULL, few, half};
    for (size_t s = 0; s < SPECS; s++) {
        kith_index *index = built(specs[s], KITH_L2);
        bool is_graph = strstr(specs[s], "HNSW") != NULL, has_lists = strstr(specs[s], "IVF") != NULL;
        for (size_t f = 0; f < 3; f++) {
            bool is_listed = f == 1 && (strcmp(specs[s], "IVF30,Flat") == 0 || !has_lists);
            kith_search_params params;
            kith_search_report reports[NQ];
            kith_search_params_init(&params);
            params.filter = filters[f];
            params.ef = 10;
            params.threads = 2;
            OK(kith_index_search(index, &view, K, &params, plain.ids, plain.distances, plain.counts));
            memset(reports, 0xee, sizeof reports);
            params.reports = reports;
            OK(kith_index_search(index, &view, K, &params, reported.ids, reported.distances, reported.counts));
            cr_assert_eq(memcmp(&plain, &reported, sizeof plain), 0);
            for (size_t q = 0; q < NQ; q++) {
                const kith_search_report *one = &reports[q];
                cr_assert_eq(one->limits, 0);
                cr_assert(one->distances >= K && one->distances <= 2 * NB && one->visited >= one->distances);
                cr_assert_eq(one->lists > 0, has_lists && !is_listed, "%s", specs[s]);
                cr_assert_eq(one->hops > 0, is_graph && f != 1, "%s", specs[s]);
                cr_assert_eq(one->refined > 0, strstr(specs[s], "RFlat") != NULL, "%s", specs[s]);
                if (strcmp(specs[s], "HNSW8,SQ8,RFlat") == 0) /* more under a filter, unless told how many */
                    cr_assert_eq(one->refined, f == 0 ? 2 * K : 4 * K);
                uint32_t expected = f == 0      ? KITH_STRATEGY_ALL
                                    : is_listed ? KITH_STRATEGY_LISTED
                                    : has_lists ? KITH_STRATEGY_LISTS
                                    : is_graph  ? KITH_STRATEGY_BRIDGED
                                                : KITH_STRATEGY_TESTED;
                cr_assert_eq(one->strategy, expected, "%s: %s", specs[s],
                             kith_search_strategy_name((kith_search_strategy)one->strategy));
                if (f == 1) cr_assert_leq(one->distances, 40);
            }
            params.max_distances = 7;
            OK(kith_index_search(index, &view, K, &params, reported.ids, NULL, reported.counts));
            for (size_t q = 0; q < NQ; q++) {
                cr_assert_leq(reports[q].distances, f == 1 && !is_graph && has_lists && !is_listed ? 40 : 7, "%s",
                              specs[s]);
                if (f != 1 || is_graph || is_listed)
                    cr_assert_eq(reports[q].limits, KITH_LIMIT_DISTANCES, "%s", specs[s]);
            }
        }
        kith_index_free(index);
    }
    cr_assert_str_eq(kith_search_strategy_name((kith_search_strategy)99), "?");
    kith_filter_free(few);
    kith_filter_free(half);
    fixture_vectors_free(&queries);
}

/* ---- Deadlines ---------------------------------------------------------------------------------------------- */

static int slow(void *user, int64_t id) {
    (void)id;
    uint64_t start = kith_now_ns();
    while (kith_now_ns() - start < *(const uint64_t *)user)
        ;
    return 1;
}

/* A callback makes searches so slow that the deadline passes in the middle of them. */
Test(search_report, a_deadline_is_never_silent) {
    static results whole, cut;
    fixture_vectors queries = fixture_vectors_make(KITH_F32, NQ, DIM, 4);
    kith_view view = fixture_view(&queries, 0, NQ);
    uint64_t delay_ns = 2000;
    kith_filter *filter;
    OK(kith_filter_callback(slow, &delay_ns, &filter));
    for (size_t s = 0; s < SPECS; s++) {
        kith_index *index = built(specs[s], KITH_IP);
        kith_search_params params;
        kith_search_report reports[NQ];
        kith_search_params_init(&params);
        params.ef = 20;
        OK(kith_index_search(index, &view, K, &params, whole.ids, whole.distances, whole.counts));
        params.deadline_us = (uint64_t)1 << 40; /* one that does not pass */
        OK(kith_index_search(index, &view, K, &params, cut.ids, cut.distances, cut.counts));
        cr_assert_eq(memcmp(&whole, &cut, sizeof cut), 0);
        params.deadline_us = UINT64_MAX;
        OK(kith_index_search(index, &view, K, &params, cut.ids, cut.distances, cut.counts));
        params.deadline_us = 1;
        params.filter = filter;
        memset(&cut, 0xee, sizeof cut);
        cr_assert_eq(kith_index_search(index, &view, K, &params, cut.ids, cut.distances, cut.counts),
                     KITH_ERR_INCOMPLETE, "%s", specs[s]);
        cr_assert_not_null(strstr(kith_error_message(), "the deadline of 1 us cut"));
        size_t missing = 0;
        for (size_t q = 0; q < NQ; q++) {
            cr_assert_leq(cut.counts[q], K);
            for (size_t i = cut.counts[q]; i < K; i++, missing++)
                cr_assert(cut.ids[q * K + i] == KITH_NO_ID && cut.distances[q * K + i] == -INFINITY);
        }
        if (s > 0) cr_assert_gt(missing, 0, "%s", specs[s]); /* Flat has some rows for every query */
        params.reports = reports;
        OK(kith_index_search(index, &view, K, &params, cut.ids, cut.distances, cut.counts));
        size_t late = 0;
        for (size_t q = 0; q < NQ; q++) {
            bool is_late = (reports[q].limits & KITH_LIMIT_DEADLINE) != 0;
            late += is_late;
            cr_assert(is_late || cut.counts[q] == K, "%s: query %zu", specs[s], q);
        }
        cr_assert_gt(late, NQ / 2, "%s: %zu late", specs[s], late);
        kith_range_result *range;
        cr_assert_eq(kith_index_range_search(index, &view, 1, &params, &range), KITH_ERR_INCOMPLETE, "%s",
                     specs[s]);
        cr_assert_not_null(range);
        kith_range_result_free(range);
        kith_index_free(index);
    }
    kith_filter_free(filter);
    fixture_vectors_free(&queries);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* A filter that is quick until it has been asked `stop_at` times, and then waits until the deadline has passed. */
typedef struct stall {
    uint64_t calls, stop_at, wait_ns;
} stall;

static int stalls(void *user, int64_t id) {
    stall *own = user;
    if (++own->calls == own->stop_at) (void)slow(&own->wait_ns, id);
    return 1;
}

/* A graph's search of one query looks at the clock while it walks, and answers with what it has met. */
Test(search_report, a_deadline_ends_a_walk) {
    enum { SAMPLED = 1024, ENTRIES = 64, HOPS_LEFT = 16, DEGREE = 16, EF = 29 };
    fixture_vectors queries = fixture_vectors_make(KITH_F32, NQ, DIM, 4);
    kith_view one = fixture_view(&queries, 0, 1), all = fixture_view(&queries, 0, NQ);
    kith_index *index = built("HNSW8", KITH_L2);
    stall state = {.stop_at = SAMPLED + ENTRIES + 1};
    kith_filter *filter;
    OK(kith_filter_callback(stalls, &state, &filter));
    static results got;
    kith_search_params params;
    kith_search_report reports[NQ], whole;
    kith_search_params_init(&params);
    params.ef = NB;
    params.reports = &whole;
    OK(kith_index_search(index, &one, K, &params, got.ids, got.distances, got.counts));
    cr_assert(whole.limits == 0 && whole.hops > NB / 2);

    params.filter = filter;
    params.ef = EF;
    params.reports = reports;
    do { /* a machine that is so busy that the deadline passes before the stall is given more time */
        params.deadline_us = params.deadline_us == 0 ? 50000 : 2 * params.deadline_us;
        state.calls = 0;
        state.wait_ns = params.deadline_us * 1000;
        OK(kith_index_search(index, &one, K, &params, got.ids, got.distances, got.counts));
    } while (state.calls < state.stop_at && params.deadline_us < 100000000);
    cr_assert_geq(state.calls, state.stop_at);
    cr_assert_eq(reports[0].limits, KITH_LIMIT_DEADLINE);
    cr_assert_eq(reports[0].strategy, KITH_STRATEGY_ASKED);
    cr_assert_leq(state.calls, state.stop_at + (1 + HOPS_LEFT) * DEGREE, "asked %llu times",
                  (unsigned long long)state.calls);
    cr_assert_leq(reports[0].hops, 1 + HOPS_LEFT);
    cr_assert_eq(got.counts[0], K);

    /* A thread takes two walks in turns: both have something to tell. */
    params.filter = NULL;
    params.ef = NB;
    params.deadline_us = 1;
    OK(kith_index_search(index, &all, K, &params, got.ids, got.distances, got.counts));
    for (size_t q = 0; q < NQ; q++) {
        cr_assert_eq(reports[q].limits, KITH_LIMIT_DEADLINE);
        cr_assert_eq(got.counts[q], q < 2 ? K : 0);
        cr_assert_leq(reports[q].hops, 32);
    }
    int64_t gone[NB / 20];
    for (size_t i = 0; i < NB / 20; i++) gone[i] = (int64_t)i; /* marked, not repaired */
    OK(kith_index_remove(index, gone, NB / 20, NULL));
    OK(kith_index_search(index, &one, K, &params, got.ids, got.distances, got.counts));
    cr_assert(reports[0].limits == KITH_LIMIT_DEADLINE && reports[0].hops <= 32 && got.counts[0] == K);
    params.reports = NULL;
    cr_assert_eq(kith_index_search(index, &one, K, &params, got.ids, got.distances, got.counts),
                 KITH_ERR_INCOMPLETE);
    kith_filter_free(filter);
    kith_index_free(index);
    fixture_vectors_free(&queries);
}

/* What the bound leaves of a walk over allowed nodes is an answer. */
Test(search_report, a_bound_keeps_what_was_found) {
    fixture_vectors queries = fixture_vectors_make(KITH_F32, NQ, DIM, 4);
    kith_view view = fixture_view(&queries, 0, NQ);
    kith_index *index = built("HNSW8", KITH_L2);
    static results got;
    kith_filter *most;
    OK(kith_filter_range(0, NB / 8 * 7, &most));
    kith_search_params params;
    kith_search_report reports[NQ];
    kith_search_params_init(&params);
    params.filter = most;
    params.ef = 25;
    params.max_distances = 100;
    params.reports = reports;
    OK(kith_index_search(index, &view, K, &params, got.ids, got.distances, got.counts));
    for (size_t q = 0; q < NQ; q++) {
        cr_assert_eq(reports[q].strategy, KITH_STRATEGY_BRIDGED);
        cr_assert_leq(reports[q].distances, 100);
        cr_assert_eq(got.counts[q], K, "query %zu has %zu results", q, got.counts[q]);
    }
    kith_filter_free(most);
    kith_index_free(index);
    fixture_vectors_free(&queries);
}

/* ---- Groups --------------------------------------------------------------------------------------------------- */

/* Groups of very different sizes: a third of the vectors is one, some belong to none. */
static int64_t group_of(void *user, int64_t id) {
    (void)user;
    if (id % 3 == 0) return 7;
    return id % 50 == 1 ? KITH_NO_GROUP : 1000 + id / 40 * 3;
}

static bool is_allowed(int64_t id) { return id >= NB / 4; }

/* By all distances, from Flat. */
static void check_groups(const kith_index *exact, const kith_view *query, const kith_filter *filter,
                         const int64_t *ids, const int64_t *groups, const float *distances, size_t count) {
    static int64_t all[NB];
    static float values[NB];
    size_t held, found = 0;
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = filter;
    OK(kith_index_search(exact, query, NB, &params, all, values, &held));
    for (size_t i = 0; i < held && found < K; i++) {
        int64_t group = group_of(NULL, all[i]);
        bool is_new = group >= 0;
        for (size_t j = 0; j < found; j++) is_new &= groups[j] != group;
        if (!is_new) continue;
        cr_assert(ids[found] == all[i] && groups[found] == group && distances[found] == values[i], "rank %zu",
                  found);
        found++;
    }
    cr_assert_eq(count, found);
    for (size_t i = found; i < K; i++) cr_assert(ids[i] == KITH_NO_ID && groups[i] == KITH_NO_GROUP);
}

Test(search_groups, finds_the_nearest_of_each_group) {
    static results got;
    static int64_t groups[NQ * K];
    fixture_vectors queries = fixture_vectors_make(KITH_F32, NQ, DIM, 4);
    kith_view view = fixture_view(&queries, 0, NQ);
    kith_filter *most, *few;
    OK(kith_filter_range(NB / 4, NB, &most));
    OK(kith_filter_ids((int64_t[]){0, 3, 6, 41, 42, 51}, 6, &few)); /* groups 7 and 1003; one of none */
    const kith_filter *filters[] = {NULL, most, few};
    for (size_t m = 0; m < 3; m++) {
        kith_index *exact = built("Flat", fixture_metrics[m]), *graph = built("HNSW16", fixture_metrics[m]);
        for (size_t f = 0; f < 3; f++)
            for (size_t g = 0; g < 2; g++) {
                kith_search_params params;
                kith_search_params_init(&params);
                params.filter = filters[f];
                params.ef = NB;
                params.threads = 1 + f;
                OK(kith_index_search_groups(g == 0 ? exact : graph, &view, K, group_of, NULL, &params, got.ids,
                                            groups, got.distances, got.counts));
                for (size_t q = 0; q < NQ; q++) {
                    kith_view one = fixture_view(&queries, q, 1);
                    check_groups(exact, &one, filters[f], got.ids + q * K, groups + q * K, got.distances + q * K,
                                 got.counts[q]);
                    for (size_t i = 0; f == 1 && i < got.counts[q]; i++) cr_assert(is_allowed(got.ids[q * K + i]));
                }
            }
        kith_index_free(exact);
        kith_index_free(graph);
    }
    kith_filter_free(most);
    kith_filter_free(few);
    fixture_vectors_free(&queries);
}

Test(search_groups, bad_input_and_failing_memory) {
    memory_faults_install();
    fixture_vectors queries = fixture_vectors_make(KITH_F32, 2, DIM, 4);
    kith_view view = fixture_view(&queries, 0, 2), none = {NULL, KITH_F32, 0, DIM, 0};
    kith_index *index = built("Flat", KITH_L2);
    int64_t ids[2 * K];
    cr_assert_eq(kith_index_search_groups(NULL, &view, K, group_of, NULL, NULL, ids, NULL, NULL, NULL),
                 KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_search_groups(index, &view, K, NULL, NULL, NULL, ids, NULL, NULL, NULL),
                 KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_search_groups(index, &view, 0, group_of, NULL, NULL, ids, NULL, NULL, NULL),
                 KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_search_groups(index, &view, NB + 1, group_of, NULL, NULL, ids, NULL, NULL, NULL),
                 KITH_ERR_ARGUMENT);
    cr_assert_neq(kith_index_search_groups(index, &none, K, group_of, NULL, NULL, ids, NULL, NULL, NULL), KITH_OK);
    kith_filter *few;
    OK(kith_filter_range(0, 2, &few));
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = few;
    cr_assert_eq(kith_index_search_groups(index, &view, K, group_of, NULL, &params, ids, NULL, NULL, NULL),
                 KITH_ERR_INCOMPLETE);
    cr_assert_not_null(strstr(kith_error_message(), "2 of 2 queries have fewer than 5 groups"));
    kith_status status;
    size_t counts[2];
    MEMORY_FAULTS_EACH(status,
                       kith_index_search_groups(index, &view, K, group_of, NULL, NULL, ids, NULL, NULL, counts)) {
        cr_assert_eq(status, KITH_ERR_NO_MEMORY);
        cr_assert(counts[0] == 0 && ids[0] == KITH_NO_ID);
    }
    cr_assert(status == KITH_OK && counts[0] == K);
    kith_filter_free(few);
    kith_index_free(index);
    fixture_vectors_free(&queries);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
