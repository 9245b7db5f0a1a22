/* SPDX-License-Identifier: Apache-2.0
 *
 * test_shared_search.c: searches whose queries are shared out among threads: results, errors, deadlines and lack of memory
 * are those of a search on one thread.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index_fixture.h"
#include "kith/kith.h"
#include "memory_faults.h"

#define OK(call) cr_assert_eq((call), KITH_OK, "%s: %s", #call, kith_error_message())

enum { NB = 1200, NQ = 401, DIM = 12, K = 5 };

static const char *const specs[] = {"HNSW8", "HNSW8,SQ8,RFlat", "HNSW8,Line64x4,RSQ8", "HNSW8,u8"};
static const kith_metric metrics[] = {KITH_IP, KITH_L2, KITH_COSINE, KITH_L2};
static const size_t counts_of_queries[] = {1, 2, 3, 15, 16, 17, 64, 65, 130, 257, NQ};
enum { SPECS = sizeof specs / sizeof *specs, COUNTS = sizeof counts_of_queries / sizeof *counts_of_queries };

typedef struct results {
    int64_t ids[NQ * K];
    float distances[NQ * K];
    size_t counts[NQ];
} results;

/* Bytes, which every index takes. */
static kith_index *built(size_t s) {
    fixture_vectors vectors = fixture_vectors_make(KITH_U8, NB, DIM, 3);
    kith_view view = fixture_view(&vectors, 0, NB);
    kith_index *index;
    OK(kith_index_create(specs[s], DIM, metrics[s], &index));
    OK(kith_index_train(index, &view, NULL));
    OK(kith_index_add(index, &view, NULL, NULL));
    fixture_vectors_free(&vectors);
    return index;
}

static kith_search_params params_on(size_t threads) {
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = threads;
    params.ef = 10;
    return params;
}

Test(shared_search, is_the_same_on_any_number_of_threads) {
    static results one, many;
    static kith_search_report of_one[NQ], of_many[NQ];
    fixture_vectors queries = fixture_vectors_make(KITH_U8, NQ, DIM, 4);
    for (size_t s = 0; s < SPECS; s++) {
        kith_index *index = built(s);
        kith_search_context *context;
        OK(kith_search_context_create(&context));
        for (size_t c = 0; c < COUNTS; c++) {
            kith_view view = fixture_view(&queries, NQ - counts_of_queries[c], counts_of_queries[c]);
            kith_search_params params = params_on(1);
            params.reports = of_one;
            memset(&one, 0xee, sizeof one);
            OK(kith_index_search(index, &view, K, &params, one.ids, one.distances, one.counts));
            for (size_t threads = 2; threads <= 16; threads += threads < 3 ? 1 : 13) {
                params = params_on(threads);
                params.context = context;
                params.reports = of_many;
                memset(&many, 0xee, sizeof many);
                OK(kith_index_search(index, &view, K, &params, many.ids, many.distances, many.counts));
                cr_assert_eq(memcmp(&one, &many, sizeof one), 0, "%s: %zu queries on %zu threads", specs[s],
                             view.count, threads);
                cr_assert_eq(memcmp(of_one, of_many, view.count * sizeof *of_one), 0);
            }
        }
        kith_search_context_free(context);
        kith_index_free(index);
    }
    fixture_vectors_free(&queries);
}

/* So many candidates a query, and threads, that parts are smaller, to keep the scratch memory of a call in bounds. */
Test(shared_search, is_the_same_in_small_parts) {
    enum { ALL = 1100, QUERIES = 100, THREADS = 96 };
    fixture_vectors queries = fixture_vectors_make(KITH_U8, QUERIES, DIM, 4);
    kith_view view = fixture_view(&queries, 0, QUERIES);
    kith_index *index = built(1);
    int64_t *ids[2];
    for (size_t t = 0; t < 2; t++) {
        kith_search_params params = params_on(t == 0 ? 1 : THREADS);
        params.k_factor = 1000;
        cr_assert_not_null(ids[t] = malloc((size_t)QUERIES * ALL * sizeof **ids));
        OK(kith_index_search(index, &view, ALL, &params, ids[t], NULL, NULL));
    }
    cr_assert_eq(memcmp(ids[0], ids[1], (size_t)QUERIES * ALL * sizeof **ids), 0);
    for (size_t t = 0; t < 2; t++) free(ids[t]);
    kith_index_free(index);
    fixture_vectors_free(&queries);
}

Test(shared_search, refuses_the_first_bad_row) {
    static results found;
    fixture_vectors queries = fixture_vectors_make(KITH_F32, NQ, DIM, 4);
    float *values = (float *)(void *)queries.stored;
    kith_index *index = built(1);
    values[150 * DIM + 7] = NAN;
    values[390 * DIM] = NAN;
    for (size_t t = 0; t < 8; t++) { /* on 1, 2, 4 and 8 threads, and again with a deadline that has passed */
        kith_search_params params = params_on((size_t)1 << t % 4);
        kith_view view = fixture_view(&queries, 0, NQ);
        params.deadline_us = t / 4;
        memset(&found, 0xee, sizeof found);
        cr_assert_eq(kith_index_search(index, &view, K, &params, found.ids, found.distances, found.counts),
                     KITH_ERR_NOT_FINITE);
        cr_assert_str_eq(kith_error_message(), "queries: row 150, column 7 is nan");
        for (size_t q = 0; q < NQ; q++) {
            cr_assert_eq(found.counts[q], 0);
            for (size_t i = q * K; i < (q + 1) * K; i++)
                cr_assert(found.ids[i] == KITH_NO_ID && found.distances[i] == INFINITY);
        }
    }
    kith_index_free(index);
    fixture_vectors_free(&queries);
}

/* Queries after the deadline have no results, and are said to have none; those before it have all. */
Test(shared_search, ends_at_the_deadline) {
    static results found;
    static kith_search_report reports[NQ];
    fixture_vectors queries = fixture_vectors_make(KITH_U8, NQ, DIM, 4);
    kith_view view = fixture_view(&queries, 0, NQ);
    for (size_t s = 0; s < SPECS; s++) {
        kith_index *index = built(s);
        for (size_t threads = 1; threads <= 4; threads += 3) {
            kith_search_params params = params_on(threads);
            params.deadline_us = 1;
            memset(&found, 0xee, sizeof found);
            cr_assert_eq(kith_index_search(index, &view, K, &params, found.ids, found.distances, found.counts),
                         KITH_ERR_INCOMPLETE);
            params.reports = reports;
            OK(kith_index_search(index, &view, K, &params, found.ids, found.distances, found.counts));
            size_t late = 0;
            for (size_t q = 0; q < NQ; q++) {
                bool is_late = (reports[q].limits & KITH_LIMIT_DEADLINE) != 0;
                late += is_late;
                cr_assert(is_late || found.counts[q] == K, "%s: query %zu", specs[s], q);
                cr_assert_leq(found.counts[q], K);
                for (size_t i = found.counts[q]; i < K; i++)
                    cr_assert(found.ids[q * K + i] == KITH_NO_ID && isinf(found.distances[q * K + i]));
            }
            cr_assert_gt(late, NQ / 2);
        }
        kith_index_free(index);
    }
    fixture_vectors_free(&queries);
}

static int cancel(void *user, const char *phase, uint64_t done, uint64_t total) {
    (void)user, (void)phase;
    return done < total && done > 0;
}

Test(shared_search, can_be_cancelled) {
    static results found;
    fixture_vectors queries = fixture_vectors_make(KITH_U8, NQ, DIM, 4);
    kith_view view = fixture_view(&queries, 0, NQ);
    kith_index *index = built(1);
    for (size_t threads = 1; threads <= 4; threads += 3) {
        kith_search_params params = params_on(threads);
        params.progress = cancel;
        cr_assert_eq(kith_index_search(index, &view, K, &params, found.ids, found.distances, found.counts),
                     KITH_ERR_CANCELLED);
        for (size_t q = 0; q < NQ; q++) cr_assert_eq(found.counts[q], 0);
    }
    kith_index_free(index);
    fixture_vectors_free(&queries);
}

Test(shared_search, survives_each_failing_allocation) {
    static results found, expected;
    memory_faults_install();
    fixture_vectors queries = fixture_vectors_make(KITH_U8, NQ, DIM, 4);
    kith_view view = fixture_view(&queries, 0, NQ);
    for (size_t s = 0; s < SPECS; s++) {
        kith_index *index = built(s);
        kith_status status;
        kith_search_params params = params_on(1);
        OK(kith_index_search(index, &view, K, &params, expected.ids, expected.distances, expected.counts));
        params.threads = 3;
        MEMORY_FAULTS_EACH(status,
                           kith_index_search(index, &view, K, &params, found.ids, found.distances, found.counts))
        for (size_t q = 0; q < NQ; q++) cr_assert_eq(found.counts[q], 0);
        cr_assert_eq(memcmp(&found, &expected, sizeof found), 0);
        OK(kith_search_context_create(&params.context)); /* one that a failure has been in serves the next search */
        for (size_t n = 1; n < 30; n += 3) {
            faults_fail_allocation(n);
            status = kith_index_search(index, &view, K, &params, found.ids, found.distances, found.counts);
            cr_assert(status == KITH_OK || status == KITH_ERR_NO_MEMORY);
            faults_fail_allocation(0);
            OK(kith_index_search(index, &view, K, &params, found.ids, found.distances, found.counts));
            cr_assert_eq(memcmp(&found, &expected, sizeof found), 0);
        }
        kith_search_context_free(params.context);
        kith_index_free(index);
    }
    fixture_vectors_free(&queries);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
