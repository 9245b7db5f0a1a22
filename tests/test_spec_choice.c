/* SPDX-License-Identifier: Apache-2.0
 *
 * What an index takes before it is filled, and which graph "HNSW" stands for within a budget.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "faults.h"
#include "index_fixture.h"

#define OK(call) cr_assert_eq((call), KITH_OK, "%s: %s", #call, kith_error_message())

static kith_index *created(const char *spec, size_t dim, kith_metric metric) {
    kith_index *index;
    OK(kith_index_create(spec, dim, metric, &index));
    return index;
}

static uint64_t bytes_of(const kith_index *index) {
    enum { PARTS = 16 };
    kith_memory_part parts[PARTS];
    size_t count;
    uint64_t bytes = 0;
    OK(kith_index_memory(index, parts, PARTS, &count));
    cr_assert_leq(count, PARTS);
    for (size_t i = 0; i < count; i++) bytes += parts[i].bytes;
    return bytes;
}

static uint64_t bytes_for(const kith_index *index, size_t count, int has_ids) {
    uint64_t bytes;
    OK(kith_index_memory_for(index, count, has_ids, &bytes));
    return bytes;
}

/* ---- Before and after ------------------------------------------------------------------------------------------ */

static void check_filled(const char *spec, kith_dtype dtype, size_t dim, kith_metric metric, size_t count,
                         bool has_ids) {
    kith_index *index = created(spec, dim, metric);
    fixture_vectors vectors = fixture_vectors_make(dtype, count, dim, 5);
    kith_view view = fixture_view(&vectors, 0, count);
    int64_t *ids = malloc(count * sizeof *ids);
    for (size_t i = 0; i < count; i++) ids[i] = (int64_t)(2 * (count - i));
    uint64_t before = bytes_for(index, count, has_ids);
    if (!kith_index_is_trained(index)) OK(kith_index_train(index, &view, NULL));
    uint64_t trained = bytes_for(index, count, has_ids);
    OK(kith_index_add(index, &view, has_ids ? ids : NULL, NULL));
    uint64_t filled = bytes_of(index);
    cr_assert_eq(trained, filled, "%s, %zu: %llu, told %llu", spec, count, (unsigned long long)filled,
                 (unsigned long long)trained);
    cr_assert_leq(before, filled, "%s", spec);
    cr_assert_leq(filled - before, 10 * dim * dim + 4096, "%s, %zu: %llu, told %llu", spec, count,
                  (unsigned long long)filled, (unsigned long long)before);
    free(ids);
    fixture_vectors_free(&vectors);
    kith_index_free(index);
}

/* To the byte once it is trained, whatever the last chunk leaves free. Before that without what is to be learnt: a matrix
 * of 100 x 100 numbers, twice, and in 8 bits. */
Test(spec_choice, memory_is_told_beforehand) {
    static const struct {
        const char *spec;
        kith_dtype dtype;
        size_t dim;
    } cases[] = {
        {"HNSW32,Line64,RFlat", KITH_F32, 100},
        {"HNSW32,Line64,Rf16", KITH_F32, 100},
        {"HNSW16,Line64,Rf16", KITH_F32, 100},
        {"HNSW16,Line64,RSQ8", KITH_F32, 100},
        {"HNSW16,SQ8", KITH_F32, 100},
        {"HNSW32,Line64,Rbf16", KITH_BF16, 40},
        {"HNSW16,Line64,Ru8", KITH_U8, 90},
        {"HNSW16,i8", KITH_I8, 90},
        {"HNSW32", KITH_F32, 16},
        {"HNSW16,f16", KITH_F16, 9},
        {"HNSW16,RaBitQ", KITH_F32, 33},
        {"Flat", KITH_F32, 7},
        {"Flat,u8,RSQ4", KITH_U8, 7},
    };
    static const size_t counts[] = {1, 33, 400, 2500}; /* the last of every fifth alone: linking takes its time */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            if (counts[c] > 1000 && i % 5 != 0) continue;
            kith_metric metric = fixture_metrics[(i + c) % 3];
            check_filled(cases[i].spec, cases[i].dtype, cases[i].dim, metric, counts[c], false);
            if (counts[c] > 1) check_filled(cases[i].spec, cases[i].dtype, cases[i].dim, metric, counts[c], true);
        }
}

Test(spec_choice, what_is_not_told) {
    static const char *const specs[] = {"IVF4,SQ8", "SQ8", "PCA4,Flat", "HNSW8,RFile"};
    uint64_t bytes;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        kith_index *index = created(specs[i], 8, KITH_L2);
        bytes = 1;
        cr_assert_eq(kith_index_memory_for(index, 10, 0, &bytes), KITH_ERR_UNSUPPORTED, "%s", specs[i]);
        cr_assert_eq(bytes, 0);
        kith_index_free(index);
    }
    kith_index *graph = created("HNSW32,Line64,RFlat", 784, KITH_L2), *flat = created("Flat", 784, KITH_L2);
    cr_assert_eq(kith_index_memory_for(graph, (size_t)INT32_MAX + 1, 0, &bytes), KITH_ERR_OVERFLOW);
    cr_assert_not_null(strstr(kith_error_message(), "2147483648"), "%s", kith_error_message());
    cr_assert_eq(kith_index_memory_for(graph, SIZE_MAX, 1, &bytes), KITH_ERR_OVERFLOW);
    cr_assert_eq(kith_index_memory_for(flat, SIZE_MAX, 0, &bytes), KITH_ERR_OVERFLOW);
    cr_assert_eq(kith_index_memory_for(flat, SIZE_MAX / 784 / 4, 0, &bytes), KITH_ERR_OVERFLOW);
    cr_assert_eq(kith_index_memory_for(NULL, 1, 0, &bytes), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_memory_for(flat, 1, 0, NULL), KITH_ERR_ARGUMENT);
#if SIZE_MAX > UINT32_MAX
    OK(kith_index_memory_for(graph, INT32_MAX, 1, &bytes));
    cr_assert_gt(bytes, (uint64_t)INT32_MAX * (784 * 4 + 64 + 256));
#else
    cr_assert_eq(kith_index_memory_for(graph, INT32_MAX, 1, &bytes), KITH_ERR_OVERFLOW);
#endif
    kith_index_free(graph);
    kith_index_free(flat);
}

/* ---- Choosing -------------------------------------------------------------------------------------------------- */

enum { COUNT = 100000 };

static void check_chosen(const char *spec, size_t dim, uint64_t budget, const char *expected) {
    kith_index *index;
    OK(kith_index_create_within(spec, dim, KITH_COSINE, COUNT, 0, budget, &index));
    cr_assert_str_eq(kith_index_spec(index), expected, "%s of %zu in %llu: %s", spec, dim,
                     (unsigned long long)budget, kith_index_spec(index));
    cr_assert_eq(kith_index_count(index), 0);
    kith_index_free(index);
}

/* More than what an index is to learn may count. */
static uint64_t learnt_max(const kith_index *index, size_t dim) {
    return kith_index_is_trained(index) ? 0 : (uint64_t)10 * (dim + 64) * (dim < 448 ? dim + 64 : 512);
}

/* What would have done, as the message of the last one refused has it. */
static uint64_t bytes_needed(uint64_t budget) {
    unsigned long long needed = 0, refused = 0;
    const char *at = strstr(kith_error_message(), "need ");
    cr_assert(at != NULL && sscanf(at, "need %llu bytes, the budget is %llu", &needed, &refused) == 2, "%s",
              kith_error_message());
    cr_assert_eq(refused, budget);
    return needed;
}

/* Each is chosen at its own size and what it may learn, and the next one at a byte less than its own size; below the last
 * one there is none. */
static void check_steps(const char *spec, size_t dim, const char *const *steps) {
    uint64_t bytes = 0, learnt = 0;
    const char *last = NULL;
    check_chosen(spec, dim, 0, steps[0]);
    check_chosen(spec, dim, UINT64_MAX, steps[0]);
    for (size_t i = 0; steps[i] != NULL; i++) {
        kith_index *alone = created(steps[i], dim, KITH_COSINE);
        if (i > 0) cr_assert_lt(bytes_for(alone, COUNT, 0), bytes, "%s saves nothing", steps[i]);
        if (i > 0) check_chosen(spec, dim, bytes - 1, steps[i]);
        bytes = bytes_for(alone, COUNT, 0);
        learnt = learnt_max(alone, dim);
        last = steps[i];
        check_chosen(spec, dim, bytes + learnt, last);
        kith_index_free(alone);
    }
    kith_index *index = (kith_index *)&index;
    cr_assert_eq(kith_index_create_within(spec, dim, KITH_COSINE, COUNT, 0, bytes - 1, &index), KITH_ERR_BUDGET);
    cr_assert_null(index);
    uint64_t needed = bytes_needed(bytes - 1);
    cr_assert(needed >= bytes && needed <= bytes + learnt, "%s", kith_error_message());
    check_chosen(spec, dim, needed, last);
    cr_assert_eq(kith_index_create_within(spec, dim, KITH_COSINE, COUNT, 0, needed - 1, &index), KITH_ERR_BUDGET);
}

Test(spec_choice, steps) {
    static const struct {
        const char *spec;
        size_t dim;
        const char *steps[6];
    } cases[] = {
        {"HNSW",
         384,
         {"HNSW32,Line64,RFlat", "HNSW32,Line64,Rf16", "HNSW16,Line64,Rf16", "HNSW16,Line64,RSQ8", "HNSW16,SQ8"}},
        {"HNSW,f32",
         17,
         {"HNSW32,Line64,RFlat", "HNSW32,Line64,Rf16", "HNSW16,Line64,Rf16", "HNSW16,Line64,RSQ8", "HNSW16,SQ8"}},
        {"HNSW,f16", 384, {"HNSW32,Line64,Rf16", "HNSW16,Line64,Rf16", "HNSW16,Line64,RSQ8", "HNSW16,SQ8"}},
        {"HNSW,bf16", 33, {"HNSW32,Line64,Rbf16", "HNSW16,Line64,Rbf16", "HNSW16,Line64,RSQ8", "HNSW16,SQ8"}},
        {"HNSW,u8", 784, {"HNSW32,Line64,Ru8", "HNSW16,Line64,Ru8", "HNSW16,u8"}},
        {"HNSW,i8", 65, {"HNSW32,Line64,Ri8", "HNSW16,Line64,Ri8", "HNSW16,i8"}},
        {"HNSW", 16, {"HNSW32", "HNSW16"}},
        {"HNSW,u8", 64, {"HNSW32,u8", "HNSW16,u8"}},
        {"HNSW24,efc64,SQ8", 100, {"HNSW24,efc64,SQ8"}},
        {"Flat,f16", 100, {"Flat,f16"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_steps(cases[i].spec, cases[i].dim, cases[i].steps);
}

/* Trained and filled it is within the budget, also where it learns as much as its few vectors take. */
static void check_within(size_t dim, size_t count, kith_metric metric) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, count, dim, 7);
    kith_view view = fixture_view(&vectors, 0, count);
    uint64_t budget = UINT64_MAX;
    kith_index *index;
    size_t chosen = 0;
    while (kith_index_create_within("HNSW", dim, metric, count, 0, budget, &index) == KITH_OK) {
        uint64_t told = bytes_for(index, count, 0);
        OK(kith_index_train(index, &view, NULL));
        OK(kith_index_add(index, &view, NULL, NULL));
        uint64_t filled = bytes_of(index);
        cr_assert_leq(filled, budget, "%s of %zu x %zu: %llu", kith_index_spec(index), count, dim,
                      (unsigned long long)filled);
        budget = told; /* and nothing for what it learns */
        chosen++;
        kith_index_free(index);
    }
    cr_assert_gt(bytes_needed(budget), budget);
    cr_assert_geq(chosen, 2);
    fixture_vectors_free(&vectors);
}

Test(spec_choice, filled_within_the_budget) {
    check_within(120, 300, KITH_L2);
    check_within(200, 1000, KITH_COSINE);
    check_within(600, 400, KITH_L2);
    check_within(40, 2000, KITH_IP);
}

/* Ids of the caller's own take their part of the budget. */
Test(spec_choice, own_ids_count) {
    kith_index *index = created("HNSW32,Line64,RFlat", 100, KITH_L2), *chosen;
    uint64_t bytes = bytes_for(index, COUNT, 0) + learnt_max(index, 100);
    OK(kith_index_create_within("HNSW", 100, KITH_L2, COUNT, 1, bytes, &chosen));
    cr_assert_str_eq(kith_index_spec(chosen), "HNSW32,Line64,Rf16");
    kith_index_free(chosen);
    bytes = bytes_for(index, COUNT, 1) + learnt_max(index, 100);
    OK(kith_index_create_within("HNSW", 100, KITH_L2, COUNT, 1, bytes, &chosen));
    cr_assert_str_eq(kith_index_spec(chosen), kith_index_spec(index));
    kith_index_free(chosen);
    kith_index_free(index);
}

Test(spec_choice, bad_arguments) {
    static const struct {
        const char *spec;
        size_t dim, count;
        kith_status status;
    } cases[] = {
        {"HNSW", 8, 0, KITH_ERR_EMPTY},
        {"HNSW", 8, (size_t)INT32_MAX + 1, KITH_ERR_OVERFLOW},
        {"HNSW", 100, SIZE_MAX, KITH_ERR_OVERFLOW},
        {"HNSW", 0, 10, KITH_ERR_ARGUMENT},
        {"HNSW,f64", 100, 10, KITH_ERR_ARGUMENT},
        {"HNSW,", 100, 10, KITH_ERR_ARGUMENT},
        {NULL, 100, 10, KITH_ERR_ARGUMENT},
        {"IVF4,SQ8", 8, 10, KITH_ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kith_index *index = (kith_index *)&index;
        cr_assert_eq(
            kith_index_create_within(cases[i].spec, cases[i].dim, KITH_L2, cases[i].count, 0, 1 << 30, &index),
            cases[i].status, "%s: %s", cases[i].spec, kith_error_message());
        cr_assert_null(index);
    }
    cr_assert_eq(kith_index_create_within("HNSW", 8, KITH_L2, 1, 0, 0, NULL), KITH_ERR_ARGUMENT);
}

Test(spec_choice, without_memory) {
    faults_install();
    size_t failed = 0;
    bool all = false;
    for (size_t n = 1; !all; n++) {
        kith_index *index = (kith_index *)&index;
        faults_fail_allocation(n);
        kith_status status = kith_index_create_within("HNSW", 100, KITH_L2, 1000, 0, 300000, &index);
        all = faults_allocation_count() < n;
        failed += status != KITH_OK;
        cr_assert(status == KITH_OK || status == KITH_ERR_NO_MEMORY, "%s", kith_error_message());
        cr_assert_eq(index == NULL, status != KITH_OK);
        if (index != NULL) cr_assert_str_eq(kith_index_spec(index), "HNSW16,SQ8");
        kith_index_free(index);
    }
    cr_assert_gt(failed, 10);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
