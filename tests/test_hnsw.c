/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "base/random.h"
#include "faults.h"
#include "hnsw_fixture.h"
#include "index_fixture.h"
#include "memory_faults.h"

/* ---- Specs ------------------------------------------------------------------------------------------------ */

Test(hnsw, specs) {
    static const char *const good[][2] = {
        {"HNSW", "HNSW32"},
        {"HNSW32", "HNSW32"},
        {"HNSW32,Flat", "HNSW32"},
        {"HNSW16,f16", "HNSW16,f16"},
        {"HNSW2,u8", "HNSW2,u8"},
        {"HNSW512,bf16", "HNSW512,bf16"},
        {"HNSW32,f32", "HNSW32"},
        {"HNSW8,efc400,alpha130,i8", "HNSW8,efc400,alpha130,i8"},
        {"HNSW8,i8,efc400", "HNSW8,efc400,i8"},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        kith_index *index = created(good[i][0], 4, KITH_L2);
        cr_assert_str_eq(kith_index_spec(index), good[i][1]);
        kith_index_free(index);
    }
    static const char *const bad[] = {"HNSW1",      "HNSW513",         "HNSW99999999999999999999",
                                      "HNSWx",      "hnsw32",          "HNSW32,efc0",
                                      "HNSW32,efc", "HNSW32,alpha99",  "HNSW32,",
                                      "HNSW32,f64", "HNSW32,alpha301", "HNSW32,efc10001"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kith_index *index;
        cr_assert_eq(kith_index_create(bad[i], 4, KITH_L2, &index), KITH_ERR_ARGUMENT, "%s", bad[i]);
        cr_assert_null(index);
    }
}

/* Without a number kith chooses, by what a row takes. */
Test(hnsw, the_choice) {
    static const struct {
        const char *spec, *chosen;
        size_t dim;
    } cases[] = {
        {"HNSW", "HNSW32", 16},         {"HNSW", "HNSW32,Line64,RFlat", 17},
        {"HNSW,f16", "HNSW32,f16", 32}, {"HNSW,f16", "HNSW32,Line64,Rf16", 33},
        {"HNSW,u8", "HNSW32,u8", 64},   {"HNSW,u8", "HNSW32,Line64,Ru8", 784},
        {"HNSW32", "HNSW32", 784},      {"HNSW,efc64", "HNSW32,efc64", 784},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kith_index *index = created(cases[i].spec, cases[i].dim, KITH_L2);
        cr_assert_str_eq(kith_index_spec(index), cases[i].chosen);
        kith_index_free(index);
    }
    kith_index *index;
    cr_assert_eq(kith_index_create("HNSW,f64", 100, KITH_L2, &index), KITH_ERR_ARGUMENT);
    cr_assert_null(index);
}

/* ---- Against exact search --------------------------------------------------------------------------------- */

/* So small a graph that a walk sees all of it: results as exact as Flat's, for every type and metric. */
static void check_small(kith_dtype dtype, kith_metric metric, size_t count) {
    enum { DIM = 6 };
    char spec[32];
    snprintf(spec, sizeof spec, "HNSW4,%s", kith_dtype_name(dtype));
    kith_index *index = created(spec, DIM, metric);
    fixture_vectors vectors = fixture_vectors_make(dtype, count, DIM, 11);
    fixture_vectors queries = fixture_vectors_make(dtype, 9, DIM, 12);
    fixture_model model;
    fixture_model_init(&model, DIM);
    for (size_t i = 0; i < count; i++) fixture_model_put(&model, (int64_t)i, vectors.values + i * DIM);
    kith_view view = fixture_view(&vectors, 0, count);
    OK(kith_index_add(index, &view, NULL, NULL));
    cr_assert_eq(reachable(index), count);
    kith_search_params params;
    kith_search_params_init(&params);
    params.ef = count + 10;
    size_t ks[] = {1, 3, count};
    for (size_t i = 0; i < 3; i++)
        if (ks[i] <= count) fixture_check_search(index, &model, &queries, ks[i], &params, NULL);
    fixture_check_content(index, &model);
    fixture_check_range(index, &model, &queries, metric == KITH_L2 ? 4.0f : 0.5f, &params, NULL);
    fixture_model_free(&model);
    fixture_vectors_free(&queries);
    fixture_vectors_free(&vectors);
    kith_index_free(index);
}

Test(hnsw, small_graphs_are_exact) {
    static const size_t counts[] = {1, 2, 7, 8, 9, 60};
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++)
            for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
                check_small(fixture_types[t], fixture_metrics[m], counts[c]);
}

Test(hnsw, empty) {
    kith_index *index = created("HNSW32", 3, KITH_L2);
    float query[3] = {0};
    int64_t id;
    kith_view view = view_of(query, 1, 3);
    cr_assert_eq(kith_index_search(index, &view, 1, NULL, &id, NULL, NULL), KITH_ERR_EMPTY);
    add_on(index, query, 1, 1);
    OK(kith_index_search(index, &view, 1, NULL, &id, NULL, NULL));
    cr_assert_eq(id, 0);
    OK(kith_index_reset(index));
    cr_assert_eq(kith_index_search(index, &view, 1, NULL, &id, NULL, NULL), KITH_ERR_EMPTY);
    add_on(index, query, 1, 1);
    OK(kith_index_search(index, &view, 1, NULL, &id, NULL, NULL));
    cr_assert_eq(id, 0);
    kith_index_free(index);
}

/* The floors that FAISS holds its graphs to: 16 dimensions, 1,500 vectors, 500 queries, M = 16, ef 16. */
static void check_floor(kith_metric metric, size_t floor) {
    enum { NB = 1500, NQ = 500, DIM = 16 };
    float *base = surface(NB, DIM, 1), *queries = surface(NQ, DIM, 2);
    int64_t *truth = malloc(NQ * sizeof *truth);
    truth_of(metric, base, NB, queries, NQ, DIM, 1, truth);
    kith_index *index = created("HNSW16", DIM, metric);
    add_on(index, base, NB, 2);
    cr_assert_eq(reachable(index), NB);
    size_t found = found_of(index, 16, queries, NQ, 1, truth);
    cr_assert_geq(found, floor, "%zu of %d under %s", found, NQ, kith_metric_name(metric));
    kith_index_free(index);
    free(truth);
    free(base);
    free(queries);
}

Test(hnsw, recall_l2) { check_floor(KITH_L2, 460); }
Test(hnsw, recall_ip) { check_floor(KITH_IP, 470); }
Test(hnsw, recall_cosine) { check_floor(KITH_COSINE, 460); }

/* Vectors whose lengths differ a hundredfold: by inner product few long ones are everybody's nearest. */
Test(hnsw, inner_products_of_unequal_lengths) {
    enum { NB = 3000, NQ = 200, DIM = 24, K = 10 };
    float *base = surface(NB, DIM, 3), *queries = surface(NQ, DIM, 4);
    for (size_t i = 0; i < NB; i++) {
        float length = expf(1.5f * kith_random_normal(9, 1, i));
        for (size_t d = 0; d < DIM; d++) base[i * DIM + d] *= length;
    }
    int64_t *truth = malloc(NQ * K * sizeof *truth);
    truth_of(KITH_IP, base, NB, queries, NQ, DIM, K, truth);
    kith_index *index = created("HNSW16", DIM, KITH_IP);
    add_on(index, base, NB, 2);
    size_t found = found_of(index, 64, queries, NQ, K, truth);
    cr_assert_geq(found, NQ * K * 95 / 100, "%zu of %d", found, NQ * K);
    kith_index_free(index);
    free(truth);
    free(base);
    free(queries);
}

/* ---- How it grows ----------------------------------------------------------------------------------------- */

Test(hnsw, same_bytes_at_any_thread_count) {
    enum { NB = 4000, DIM = 12 };
    float *base = surface(NB, DIM, 5);
    for (size_t m = 0; m < 3; m++) {
        kith_index *one = created("HNSW8", DIM, fixture_metrics[m]);
        add_on(one, base, NB - 500, 1);
        add_on(one, base + (NB - 500) * DIM, 500, 1);
        for (size_t threads = 2; threads <= 16; threads *= 2) {
            kith_index *many = created("HNSW8", DIM, fixture_metrics[m]);
            add_on(many, base, NB - 500, threads);
            add_on(many, base + (NB - 500) * DIM, 500, threads);
            cr_assert(same_graph(one, many), "%zu threads", threads);
            kith_index_free(many);
        }
        kith_index_free(one);
    }
    free(base);
}

/* Does each parent link to its child, and lead to an entry? */
static void check_parents(const kith_index *index) {
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    for (uint32_t v = 0; v < graph->node_count; v++) {
        uint32_t parent = graph->parents[v];
        if (parent == v) continue; /* an entry */
        bool is_linked = false;
        for (size_t i = 0; i < graph->degree; i++) is_linked |= kith_hnsw_links(graph, parent)[i] == v;
        cr_assert(is_linked, "node %u", v);
    }
}

/* However few come at a time, and whatever is pruned for them: after each call all nodes are reached. */
Test(hnsw, every_addition_leaves_all_reached) {
    enum { NB = 1200, FIRST = 300, DIM = 6 };
    float *sets[3] = {surface(NB, DIM, 31), clusters(NB, 40, DIM), surface(NB, DIM, 32)};
    for (size_t i = 0; i < NB; i++) /* and equal ones between others */
        for (size_t d = 0; d < DIM && i % 4 != 0; d++) sets[2][i * DIM + d] = sets[2][d];
    for (size_t s = 0; s < 3; s++)
        for (size_t m = 0; m < 3; m++) {
            kith_index *index = created("HNSW3", DIM, fixture_metrics[m]), *copy;
            add_on(index, sets[s], FIRST, 1);
            for (size_t at = FIRST, step = 1; at + step <= NB; at += step, step = 1 + at % 11) {
                add_on(index, sets[s] + at * DIM, step, 1 + at % 3);
                cr_assert_eq(reachable(index), at + step, "set %zu, %zu nodes", s, at + step);
                if (kith_hnsw_of(index)->parents != NULL) check_parents(index);
                if (at % 7 != 0) continue;
                OK(kith_index_clone(index, &copy)); /* as a file does, it knows no parents */
                kith_index_free(index);
                index = copy;
            }
            kith_index_free(index);
        }
    for (size_t s = 0; s < 3; s++) free(sets[s]);
}

/* Bulk, one at a time, and half and half find about as much. */
Test(hnsw, adding_later_is_as_good) {
    enum { NB = 4000, NQ = 200, DIM = 16, K = 10 };
    float *base = surface(NB, DIM, 6), *queries = surface(NQ, DIM, 7);
    int64_t *truth = malloc(NQ * K * sizeof *truth);
    truth_of(KITH_L2, base, NB, queries, NQ, DIM, K, truth);
    size_t bulk_counts[] = {NB, NB / 2, 0}, found[3];
    for (size_t i = 0; i < 3; i++) {
        kith_index *index = created("HNSW16", DIM, KITH_L2);
        if (bulk_counts[i] > 0) add_on(index, base, bulk_counts[i], 2);
        for (size_t r = bulk_counts[i]; r < NB; r++) add_on(index, base + r * DIM, 1, 1);
        cr_assert_eq(reachable(index), NB);
        found[i] = found_of(index, 24, queries, NQ, K, truth);
        kith_index_free(index);
    }
    for (size_t i = 0; i < 3; i++)
        cr_assert_geq(found[i] + NQ * K / 100, found[0], "%zu, %zu and %zu of %d", found[0], found[1], found[2],
                      NQ * K);
    cr_assert_geq(found[0], NQ * K * 95 / 100);
    free(truth);
    free(base);
    free(queries);
}

/* A graph of codes takes single vectors by holding codes against codes. */
static void check_codes_added_later(const char *spec, kith_metric metric, size_t ef) {
    enum { NB = 2400, NQ = 200, DIM = 24, K = 10 };
    float *base = surface(NB, DIM, 16), *queries = surface(NQ, DIM, 17);
    int64_t *truth = malloc(NQ * K * sizeof *truth);
    truth_of(metric, base, NB, queries, NQ, DIM, K, truth);
    size_t bulk_counts[] = {NB, NB / 2, 1}, found[3];
    for (size_t i = 0; i < 3; i++) {
        kith_index *index = created(spec, DIM, metric);
        const kith_view sample = view_of(base, NB, DIM);
        OK(kith_index_train(index, &sample, NULL));
        add_on(index, base, bulk_counts[i], 2);
        for (size_t r = bulk_counts[i]; r < NB; r++) add_on(index, base + r * DIM, 1, 1);
        cr_assert_eq(reachable(index), NB);
        found[i] = found_of(index, ef, queries, NQ, K, truth);
        kith_index_free(index);
    }
    for (size_t i = 0; i < 3; i++)
        cr_assert_geq(found[i] + NQ * K / 100, found[0], "%s: %zu, %zu and %zu of %d", spec, found[0], found[1],
                      found[2], NQ * K);
    free(truth);
    free(base);
    free(queries);
}
Test(hnsw, adding_codes_later_is_as_good) {
    check_codes_added_later("HNSW16,SQ8", KITH_L2, 40);
    check_codes_added_later("HNSW16,SQ6", KITH_IP, 40);
    check_codes_added_later("HNSW16,Line64", KITH_COSINE, 40);
    check_codes_added_later("HNSW16,Line32x4", KITH_L2, 40);
    check_codes_added_later("HNSW16,RaBitQ3", KITH_L2, 40);
    check_codes_added_later("HNSW16,PQ8", KITH_COSINE, 40);
}

/* One vector more costs a graph of codes nothing that grows with the vectors' bytes; whatever fails, nothing changes. */
Test(hnsw, one_more_to_many_codes) {
    enum { NB = 3000, DIM = 64, MORE = 40 };
    memory_faults_install();
    float *base = surface(NB + MORE, DIM, 18);
    kith_index *index = created("HNSW8,Line32x4", DIM, KITH_L2), *others[2], *before;
    const kith_view sample = view_of(base, NB, DIM), view = view_of(base + NB * DIM, 1, DIM);
    OK(kith_index_train(index, &sample, NULL));
    add_on(index, base, NB, 2);
    for (size_t i = 0; i < 2; i++) OK(kith_index_clone(index, &others[i]));
    kith_job job;
    kith_job_init(&job);
    job.memory_bytes_max = NB * 24; /* not enough for the codes that are made queries */
    cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_ERR_BUDGET);
    job.memory_bytes_max = NB * 40; /* 8 bits of all vectors would be 64 bytes each */
    OK(kith_index_add(index, &view, NULL, &job));
    add_on(index, base + (NB + 1) * DIM, MORE - 1, 1);
    for (size_t i = 0; i < 2; i++) { /* 40 at once are linked by several threads */
        add_on(others[i], base + NB * DIM, 1, 8);
        add_on(others[i], base + (NB + 1) * DIM, MORE - 1, i == 0 ? 2 : 8);
        cr_assert(same_graph(index, others[i]), "%zu", i);
        kith_index_free(others[i]);
    }
    OK(kith_index_clone(index, &before));
    job.memory_bytes_max = 0;
    uint64_t live = kith_memory_live_blocks();
    kith_status status = KITH_ERR_NO_MEMORY;
    for (uint64_t n = 1; status != KITH_OK; n++) { /* what is known about the tree of parents may be given up */
        faults_fail_allocation(n);
        status = kith_index_add(index, &view, NULL, &job);
        cr_assert(status == KITH_OK || status == KITH_ERR_NO_MEMORY);
        cr_assert(status == KITH_OK || kith_memory_live_blocks() <= live, "leaks when allocation %zu fails", n);
        cr_assert_eq(index->count, (size_t)(NB + MORE + (status == KITH_OK)));
    }
    faults_fail_allocation(0);
    OK(kith_index_add(before, &view, NULL, &job));
    cr_assert(same_graph(index, before), "failures left something behind");
    kith_index_free(before);
    kith_index_free(index);
    cr_assert_eq(kith_memory_live_blocks(), 0);
    free(base);
}

/* Codes of equal vectors, one at a time: rows stay short, as pruning keeps one of them. */
Test(hnsw, equal_codes_one_at_a_time) {
    enum { NB = 1500, DIM = 12 };
    const char *specs[] = {"HNSW8,SQ8", "HNSW8,Line32", "HNSW8,RaBitQ2", "HNSW8,PQ4x4"};
    float *base = surface(NB, DIM, 19);
    for (size_t i = 100; i < NB; i++) memcpy(base + i * DIM, base, DIM * sizeof *base);
    for (size_t s = 0; s < 4; s++) {
        kith_index *index = created(specs[s], DIM, s % 2 == 0 ? KITH_L2 : KITH_COSINE);
        const kith_view sample = view_of(base, 100, DIM);
        OK(kith_index_train(index, &sample, NULL));
        for (size_t i = 0; i < NB; i++) add_on(index, base + i * DIM, 1, 1);
        cr_assert_eq(reachable(index), NB, "%s", specs[s]);
        int64_t ids[20];
        const kith_view query = view_of(base, 1, DIM);
        OK(kith_index_search(index, &query, 20, NULL, ids, NULL, NULL));
        for (size_t i = 0; i < 20; i++)
            cr_assert_eq(memcmp(base + ids[i] * DIM, base, DIM * sizeof *base), 0, "%s: id %lld", specs[s],
                         (long long)ids[i]);
        kith_index_free(index);
    }
    free(base);
}

static void build_of_equal(const void *base, size_t count) {
    enum { DIM = 4, K = 10 };
    kith_index *index = created("HNSW16", DIM, KITH_L2);
    add_on(index, base, count, 2);
    cr_assert_eq(reachable(index), count);
    int64_t ids[K];
    float distances[K];
    kith_view view = view_of(base, 1, DIM);
    OK(kith_index_search(index, &view, K, NULL, ids, distances, NULL));
    for (size_t i = 0; i < K; i++) cr_assert_eq(distances[i], 0);
    kith_index_free(index);
}

Test(hnsw, a_hundred_thousand_equal_vectors) {
    enum { NB = 100000, DIM = 4 };
    float *base = malloc(NB * DIM * sizeof *base);
    for (size_t i = 0; i < (size_t)NB * DIM; i++) base[i] = 3;
    check_is_no_quadratic(build_of_equal, base, NB);
    free(base);
}

Test(hnsw, far_clusters_and_lines_are_reached) {
    enum { NB = 6000, DIM = 8 };
    float *sets[2] = {clusters(NB, 40, DIM), calloc(NB * DIM, sizeof(float))};
    for (size_t i = 0; i < NB; i++)
        for (size_t d = 0; d < DIM; d++) sets[1][i * DIM + d] = (float)(i / 2); /* on a line, each point twice */
    for (size_t s = 0; s < 2; s++) {
        kith_index *index = created("HNSW8", DIM, KITH_L2);
        add_on(index, sets[s], NB, 2);
        cr_assert_eq(reachable(index), NB);
        kith_view view = view_of(sets[s], NB, DIM);
        int64_t *ids = malloc(NB * sizeof *ids);
        float *distances = malloc(NB * sizeof *distances);
        OK(kith_index_search(index, &view, 1, NULL, ids, distances, NULL));
        size_t found = 0;
        for (size_t i = 0; i < NB; i++) found += distances[i] == 0;
        cr_assert_geq(found, NB * 99 / 100, "set %zu: %zu of %d find themselves", s, found, NB);
        free(ids);
        free(distances);
        kith_index_free(index);
        free(sets[s]);
    }
}

Test(hnsw, a_budget_that_is_too_small_is_refused) {
    enum { NB = 1000, DIM = 8 };
    float *base = surface(NB, DIM, 9);
    kith_index *index = created("HNSW8", DIM, KITH_L2);
    kith_job job;
    kith_job_init(&job);
    job.memory_bytes_max = 1 << 14;
    kith_view view = view_of(base, NB, DIM);
    cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_ERR_BUDGET);
    cr_assert_eq(index->count, 0);
    job.memory_bytes_max = 1 << 24;
    OK(kith_index_add(index, &view, NULL, &job));
    kith_index_free(index);
    free(base);
}

static int cancel_later(void *user, const char *phase, uint64_t done, uint64_t total) {
    (void)phase, (void)done, (void)total;
    return ++*(int *)user > 1;
}

Test(hnsw, a_cancelled_addition_changes_nothing) {
    enum { NB = 3000, DIM = 8 };
    float *base = surface(2 * NB, DIM, 8);
    kith_index *index = created("HNSW8", DIM, KITH_IP), *before;
    add_on(index, base, NB, 1);
    OK(kith_index_clone(index, &before));
    int calls = 0;
    kith_job job;
    kith_job_init(&job);
    job.progress = cancel_later;
    job.progress_user = &calls;
    kith_view view = view_of(base + NB * DIM, NB, DIM);
    kith_status status = kith_index_add(index, &view, NULL, &job);
    cr_assert_eq(status, KITH_ERR_CANCELLED);
    cr_assert(same_graph(index, before));
    add_on(index, base + NB * DIM, NB, 1);
    add_on(before, base + NB * DIM, NB, 1);
    cr_assert(same_graph(index, before));
    kith_index_free(before);
    kith_index_free(index);
    free(base);
}

/* ---- Searches --------------------------------------------------------------------------------------------- */

static bool allow_tenth(int64_t id) { return id % 10 == 3; }
static int allow_tenth_fn(void *user, int64_t id) {
    (void)user;
    return allow_tenth(id);
}

Test(hnsw, filters) {
    enum { NB = 2000, DIM = 8 };
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, NB, DIM, 21);
    fixture_vectors queries = fixture_vectors_make(KITH_F32, 20, DIM, 22);
    fixture_model model;
    fixture_model_init(&model, DIM);
    for (size_t i = 0; i < NB; i++) fixture_model_put(&model, (int64_t)i, vectors.values + i * DIM);
    kith_index *index = created("HNSW16", DIM, KITH_L2);
    kith_view view = fixture_view(&vectors, 0, NB);
    OK(kith_index_add(index, &view, NULL, NULL));
    int64_t tenth[NB / 10];
    for (size_t i = 0; i < NB / 10; i++) tenth[i] = (int64_t)(10 * i + 3);
    kith_filter *filters[2]; /* one that is listed, one that is asked */
    OK(kith_filter_ids(tenth, NB / 10, &filters[0]));
    OK(kith_filter_callback(allow_tenth_fn, NULL, &filters[1]));
    for (size_t f = 0; f < 2; f++) {
        kith_search_params params;
        kith_search_params_init(&params);
        params.filter = filters[f];
        params.ef = 1000;
        fixture_check_search(index, &model, &queries, 5, &params, allow_tenth);
        fixture_check_range(index, &model, &queries, 3, &params, allow_tenth);
        kith_filter_free(filters[f]);
    }
    kith_index_free(index);
    fixture_model_free(&model);
    fixture_vectors_free(&queries);
    fixture_vectors_free(&vectors);
}

Test(hnsw, a_query_alone_is_as_in_a_batch_and_bounds_hold) {
    enum { NB = 3000, NQ = 64, DIM = 16, K = 10 };
    float *base = surface(NB, DIM, 31), *queries = surface(NQ, DIM, 32);
    kith_index *index = created("HNSW16,f16", DIM, KITH_COSINE);
    add_on(index, base, NB, 2);
    int64_t batch[NQ * K], alone[K];
    float batch_distances[NQ * K], alone_distances[K];
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = 4;
    kith_view view = view_of(queries, NQ, DIM);
    OK(kith_index_search(index, &view, K, &params, batch, batch_distances, NULL));
    OK(kith_search_context_create(&params.context));
    params.threads = 1;
    for (size_t q = 0; q < NQ; q++) {
        kith_view one = view_of(queries + q * DIM, 1, DIM);
        OK(kith_index_search(index, &one, K, &params, alone, alone_distances, NULL));
        cr_assert_eq(memcmp(alone, batch + q * K, sizeof alone), 0);
        cr_assert_eq(memcmp(alone_distances, batch_distances + q * K, sizeof alone_distances), 0);
    }
    kith_search_context_free(params.context);
    params.context = NULL;
    size_t counts[NQ];
    params.max_distances = 5;
    OK(kith_index_search(index, &view, K, &params, batch, NULL, counts));
    for (size_t q = 0; q < NQ; q++) cr_assert_eq(counts[q], 5);
    params.max_distances = 0;
    params.ef = 2; /* fewer than k: k are kept all the same */
    OK(kith_index_search(index, &view, K, &params, batch, NULL, NULL));
    kith_index_free(index);
    free(base);
    free(queries);
}

Test(hnsw, a_warm_search_allocates_nothing) {
    enum { NB = 1000, DIM = 8 };
    faults_fail_allocation(0);
    float *base = surface(NB, DIM, 33);
    kith_index *index = created("HNSW8", DIM, KITH_L2);
    add_on(index, base, NB, 1);
    kith_search_params params;
    kith_search_params_init(&params);
    OK(kith_search_context_create(&params.context));
    int64_t ids[5];
    for (size_t i = 0; i < 20; i++) {
        if (i == 3) faults_fail_allocation(0);
        kith_view view = view_of(base + i * DIM, 1, DIM);
        OK(kith_index_search(index, &view, 5, &params, ids, NULL, NULL));
        cr_assert_eq(ids[0], (int64_t)i);
    }
    cr_assert_eq(faults_allocation_count(), 0);
    kith_search_context_free(params.context);
    kith_index_free(index);
    free(base);
}

/* ---- Codes ------------------------------------------------------------------------------------------------ */

/* A walk on codes: what it estimates is good enough that the true nearest are among a few times k. */
static void check_code(const char *code, kith_metric metric, size_t floor) {
    enum { NB = 4000, NQ = 100, DIM = 40, K = 10, WIDE = 40 };
    float *base = surface(NB, DIM, 71), *queries = surface(NQ, DIM, 72);
    int64_t *truth = malloc(NQ * K * sizeof *truth), *ids = malloc(NQ * WIDE * sizeof *ids);
    truth_of(metric, base, NB, queries, NQ, DIM, K, truth);
    char spec[64];
    snprintf(spec, sizeof spec, "HNSW16,%s", code);
    kith_index *index = created(spec, DIM, metric), *copy;
    kith_view all = view_of(base, NB, DIM), query = view_of(queries, NQ, DIM);
    OK(kith_index_train(index, &all, NULL));
    add_on(index, base, NB - 1000, 2);
    add_on(index, base + (NB - 1000) * DIM, 1000, 2);
    cr_assert_eq(reachable(index), NB);
    OK(kith_index_search(index, &query, WIDE, NULL, ids, NULL, NULL));
    size_t found = 0;
    for (size_t q = 0; q < NQ; q++)
        for (size_t i = 0; i < K; i++)
            for (size_t j = 0; j < WIDE; j++) found += truth[q * K + i] == ids[q * WIDE + j];
    cr_assert_geq(found, floor, "%s under %s: %zu of %d", spec, kith_metric_name(metric), found, NQ * K);
    const char *folder = faults_folder(), *path = faults_path(folder, "a");
    OK(kith_index_save(index, path));
    OK(kith_file_verify(path));
    OK(kith_index_load(path, &copy));
    cr_assert(same_graph(index, copy));
    int64_t again[WIDE];
    query.count = 1;
    OK(kith_index_search(copy, &query, WIDE, NULL, again, NULL, NULL));
    cr_assert_eq(memcmp(again, ids, sizeof again), 0);
    float back[DIM];
    OK(kith_index_reconstruct(copy, again, 1, back));
    kith_index_free(copy);
    kith_index_free(index);
    faults_folder_remove(folder);
    free(ids);
    free(truth);
    free(base);
    free(queries);
}

Test(hnsw, codes) {
    static const char *const codes[] = {"SQ8", "SQ4", "Line64"};
    for (size_t c = 0; c < 3; c++)
        for (size_t m = 0; m < 3; m++) check_code(codes[c], fixture_metrics[m], 960);
}

/* ---- Files and copies ------------------------------------------------------------------------------------- */

static void check_copies(kith_dtype dtype, kith_metric metric, bool own_ids, size_t count) {
    enum { DIM = 5 };
    char spec[32];
    snprintf(spec, sizeof spec, "HNSW4,%s", kith_dtype_name(dtype));
    const char *folder = faults_folder();
    fixture_vectors vectors = fixture_vectors_make(dtype, count + 1, DIM, 41);
    kith_index *index = created(spec, DIM, metric), *copies[3];
    int64_t *ids = malloc((count + 1) * sizeof *ids);
    for (size_t i = 0; i < count; i++) ids[i] = (int64_t)((i * 7 + 3) % count + 5);
    kith_view view = fixture_view(&vectors, 0, count);
    if (count > 0) OK(kith_index_add(index, &view, own_ids ? ids : NULL, NULL));
    const char *path = faults_path(folder, "a"), *again = faults_path(folder, "b");
    OK(kith_index_save(index, path));
    OK(kith_file_verify(path));
    OK(kith_index_map(path, &copies[0]));
    OK(kith_index_load(path, &copies[1]));
    OK(kith_index_clone(copies[0], &copies[2]));
    size_t k = count < 5 ? count : 5;
    int64_t expected[5], got[5];
    float expected_distances[5], got_distances[5];
    kith_view query = fixture_view(&vectors, count, 1);
    if (k > 0) OK(kith_index_search(index, &query, k, NULL, expected, expected_distances, NULL));
    for (size_t c = 0; c < 3; c++) {
        cr_assert(same_graph(index, copies[c]));
        cr_assert_str_eq(kith_index_spec(copies[c]), kith_index_spec(index));
        if (k > 0) OK(kith_index_search(copies[c], &query, k, NULL, got, got_distances, NULL));
        cr_assert_eq(memcmp(got, expected, k * sizeof *got), 0);
        cr_assert_eq(memcmp(got_distances, expected_distances, k * sizeof *got_distances), 0);
        OK(kith_index_save(copies[c], again));
        size_t bytes[2];
        unsigned char *files[2] = {faults_read_file(path, &bytes[0]), faults_read_file(again, &bytes[1])};
        cr_assert(bytes[0] == bytes[1] && memcmp(files[0], files[1], bytes[0]) == 0);
        free(files[0]);
        free(files[1]);
    }
    OK(kith_index_add(index, &query, NULL, NULL)); /* a copy grows as the original does */
    OK(kith_index_add(copies[1], &query, NULL, NULL));
    cr_assert(same_graph(index, copies[1]));
    cr_assert_eq(kith_index_add(copies[0], &query, NULL, NULL), KITH_ERR_READ_ONLY);
    for (size_t c = 0; c < 3; c++) kith_index_free(copies[c]);
    kith_index_free(index);
    free(ids);
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}

Test(hnsw, save_load_map_clone) {
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++)
            for (size_t ids = 0; ids < 2; ids++) check_copies(fixture_types[t], fixture_metrics[m], ids != 0, 150);
    check_copies(KITH_F32, KITH_L2, false, 0);
    check_copies(KITH_F32, KITH_IP, true, 1);
}

/* Every byte of the small sections, in turn: refused, or harmless. */
Test(hnsw, damaged_files) {
    enum { NB = 40, DIM = 3 };
    const char *folder = faults_folder(), *path = faults_path(folder, "a");
    float *base = surface(NB, DIM, 51);
    kith_index *index = created("HNSW4", DIM, KITH_COSINE);
    int64_t ids[NB];
    for (size_t i = 0; i < NB; i++) ids[i] = (int64_t)((i * 7 + 3) % NB);
    kith_view view = view_of(base, NB, DIM);
    OK(kith_index_add(index, &view, ids, NULL));
    OK(kith_index_save(index, path));
    kith_index_free(index);
    size_t bytes;
    unsigned char *content = faults_read_file(path, &bytes);
    for (size_t at = 0; at < bytes; at += 13) {
        content[at] ^= 0x41;
        faults_write_file(path, content, bytes);
        kith_index *damaged;
        cr_assert_neq(kith_file_verify(path), KITH_OK, "byte %zu", at);
        cr_assert_neq(kith_index_load(path, &damaged), KITH_OK, "byte %zu", at);
        content[at] ^= 0x41;
    }
    free(content);
    free(base);
    faults_folder_remove(folder);
}

/* ---- Memory ----------------------------------------------------------------------------------------------- */

Test(hnsw, every_allocation_may_fail) {
    enum { NB = 300, DIM = 4 };
    memory_faults_install();
    float *base = surface(2 * NB, DIM, 61);
    int64_t ids[NB];
    for (size_t i = 0; i < NB; i++) ids[i] = (int64_t)(2 * NB - i);
    kith_index *index = created("HNSW4", DIM, KITH_IP), *before, *copy;
    add_on(index, base, NB, 1);
    OK(kith_index_clone(index, &before));
    kith_job job;
    kith_job_init(&job);
    job.threads = 2;
    kith_status status;
    kith_view view = view_of(base + NB * DIM, NB, DIM);
    MEMORY_FAULTS_EACH(status, kith_index_add(index, &view, ids, &job)) { cr_assert_eq(index->count, NB); }
    cr_assert_eq(index->count, 2 * NB);
    OK(kith_index_add(before, &view, ids, &job));
    cr_assert(same_graph(index, before), "failures left something behind");
    MEMORY_FAULTS_EACH(status, kith_index_clone(index, &copy)) { cr_assert_null(copy); }
    kith_index_free(copy);
    int64_t found[4];
    size_t counts[2];
    kith_view queries = view_of(base, 2, DIM);
    MEMORY_FAULTS_EACH(status, kith_index_search(index, &queries, 2, NULL, found, NULL, counts)) {
        cr_assert_eq(found[0], KITH_NO_ID);
    }
    kith_index_free(before);
    kith_index_free(index);
    cr_assert_eq(kith_memory_live_blocks(), 0);
    free(base);
}
