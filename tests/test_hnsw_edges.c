/* SPDX-License-Identifier: Apache-2.0
 *
 * test_hnsw_edges.c: graphs at the edges: what hnswlib holds itself to, the least and the largest dimensions, every
 * instruction set, far more threads than processors, forked processes, bad values.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/parallel.h"
#include "faults.h"
#include "hnsw_fixture.h"
#include "simd/simd.h"

/* ---- hnswlib's own test ----------------------------------------------------------------------------------------- */

/* How many of the vectors find themselves, in thousandths. */
static size_t selves(const kith_index *index, const float *base, size_t count, size_t dim) {
    int64_t *ids = malloc(count * sizeof *ids);
    kith_search_params params;
    kith_search_params_init(&params);
    params.ef = 10;
    params.threads = 4;
    kith_view view = view_of(base, count, dim);
    OK(kith_index_search(index, &view, 1, &params, ids, NULL, NULL));
    size_t found = 0;
    for (size_t i = 0; i < count; i++) found += ids[i] == (int64_t)i;
    free(ids);
    return (2 * 1000 * found + count) / (2 * count);
}

/* The test of its Python binding: 10,000 vectors of 16 uniform numbers, M = 16, ef construction 100, ef 10. All find
 * themselves, to three places, after one half, and after the other half was added to the graph from its file. */
Test(hnsw_edges, vectors_find_themselves) {
    enum { NB = 10000, DIM = 16 };
    float *base = malloc(NB * DIM * sizeof *base);
    for (size_t i = 0; i < NB * DIM; i++) base[i] = kith_random_f32(17, 1, i);
    kith_index *index = created("HNSW16,efc100", DIM, KITH_L2), *loaded;
    add_on(index, base, NB / 2, 4);
    cr_assert_eq(selves(index, base, NB / 2, DIM), 1000);
    const char *folder = faults_folder(), *path = faults_path(folder, "first_half");
    OK(kith_index_save(index, path));
    kith_index_free(index);
    OK(kith_index_load(path, &loaded));
    add_on(loaded, base + NB / 2 * DIM, NB / 2, 4);
    cr_assert_eq(selves(loaded, base, NB, DIM), 1000);
    cr_assert_eq(reachable(loaded), NB);
    kith_index_free(loaded);
    faults_folder_remove(folder);
    free(base);
}

/* Half of the vectors at once, from carved balls, and the others one by one find what all of them at once find. */
Test(hnsw_edges, half_at_once_and_half_one_by_one) {
    enum { NB = 16400, NQ = 300, DIM = 12, K = 10 };
    float *base = surface(NB, DIM, 26), *queries = surface(NQ, DIM, 27);
    int64_t *truth = malloc(NQ * K * sizeof *truth);
    truth_of(KITH_L2, base, NB, queries, NQ, DIM, K, truth);
    size_t at_once[] = {NB, NB / 2}, found[2];
    for (size_t i = 0; i < 2; i++) {
        kith_index *index = created("HNSW16", DIM, KITH_L2);
        cr_assert(kith_hnsw_of(index)->options.m == 16 && at_once[i] >= KITH_HNSW_BULK_MIN);
        add_on(index, base, at_once[i], 2);
        for (size_t r = at_once[i]; r < NB; r++) add_on(index, base + r * DIM, 1, 1);
        found[i] = found_of(index, 16, queries, NQ, K, truth);
        kith_index_free(index);
    }
    cr_assert_geq(found[1] + NQ * K / 100, found[0], "%zu and %zu of %d", found[0], found[1], NQ * K);
    cr_assert_geq(found[0], NQ * K * 95 / 100);
    free(truth);
    free(base);
    free(queries);
}

/* ---- Dimensions ------------------------------------------------------------------------------------------------- */

/* A walk that sees all of a graph is exact up to its code, which a refinement sets right. */
static void check_dim(const char *stored, kith_metric metric, size_t dim) {
    enum { NB = 150, NQ = 6, K = 5 };
    char spec[64];
    (void)snprintf(spec, sizeof spec, "HNSW4,%s", stored);
    float *base = surface(NB, dim, 41), *queries = surface(NQ, dim, 42);
    int64_t truth[NQ * K], ids[NQ * K];
    kith_index *flat = created("Flat", dim, metric), *index = created(spec, dim, metric);
    kith_view all = view_of(base, NB, dim), query = view_of(queries, NQ, dim);
    kith_search_params params;
    kith_search_params_init(&params);
    params.ef = NB;
    params.k_factor = NB / K;
    OK(kith_index_add(flat, &all, NULL, NULL));
    OK(kith_index_train(index, &all, NULL));
    OK(kith_index_add(index, &all, NULL, NULL));
    OK(kith_index_search(flat, &query, K, NULL, truth, NULL, NULL));
    OK(kith_index_search(index, &query, K, &params, ids, NULL, NULL));
    cr_assert_eq(memcmp(ids, truth, sizeof ids), 0, "%s, %zu dimensions, %s", spec, dim, kith_metric_name(metric));
    kith_index_free(index);
    kith_index_free(flat);
    free(base);
    free(queries);
}

Test(hnsw_edges, two_to_4096_dimensions) {
    static const char *const stored[] = {"f32", "f16,RFlat", "SQ8,RFlat", "SQ4,RFlat"};
    static const size_t dims[] = {1, 2, 3, 31, 32, 33, 64, 65, 257, 1000, 4096};
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
        for (size_t s = 0; s < sizeof stored / sizeof *stored; s++)
            for (int metric = KITH_L2; metric <= KITH_COSINE; metric++) {
                if (dims[d] == 1 && metric == KITH_COSINE) continue; /* all are equally far */
                check_dim(stored[s], (kith_metric)metric, dims[d]);
            }
    static const size_t line_dims[] = {2, 24, 100, 700};
    for (size_t d = 0; d < sizeof line_dims / sizeof *line_dims; d++)
        check_dim("Line64,RFlat", KITH_L2, line_dims[d]);
}

/* ---- Instruction sets ------------------------------------------------------------------------------------------- */

enum { ISA_NB = 1200, ISA_NQ = 60, ISA_K = 10, ISA_DIM = 37, ISA_CASES = 7 };

typedef struct isa_results {
    int64_t ids[ISA_CASES][ISA_NQ * ISA_K];
    float distances[ISA_CASES][ISA_NQ * ISA_K];
} isa_results;

static const struct {
    const char *spec;
    kith_metric metric;
} isa_cases[ISA_CASES] = {
    {"HNSW8,u8", KITH_L2},      {"HNSW8,i8", KITH_IP},           {"HNSW8,u8", KITH_COSINE},
    {"HNSW8,SQ8,Ru8", KITH_L2}, {"HNSW8,Line64x4,Ru8", KITH_L2}, {"HNSW8,Line64x2,Rf16", KITH_COSINE},
    {"HNSW8,RaBitQ4", KITH_L2},
};

/* Whole numbers 0..127: bytes of either kind hold them. */
static void whole_numbers(size_t count, uint64_t stream, float *out) {
    for (size_t i = 0; i < count * ISA_DIM; i++)
        out[i] = floorf(
            fminf(127, fmaxf(0, 64 + 20 * kith_random_normal(61, stream, i / ISA_DIM % 40 * ISA_DIM + i % ISA_DIM) +
                                    12 * kith_random_normal(62, stream, i))));
}

static int search_all(isa_results *out) {
    static float base[ISA_NB * ISA_DIM], queries[ISA_NQ * ISA_DIM];
    whole_numbers(ISA_NB, 1, base);
    whole_numbers(ISA_NQ, 2, queries);
    kith_view all = view_of(base, ISA_NB, ISA_DIM), query = view_of(queries, ISA_NQ, ISA_DIM);
    for (size_t c = 0; c < ISA_CASES; c++) {
        kith_index *index;
        kith_search_params params;
        kith_search_params_init(&params);
        params.ef = c % 2 == 0 ? 20 : 100;
        params.stop_percent = c % 2 == 0 ? 0 : 115;
        if (kith_index_create(isa_cases[c].spec, ISA_DIM, isa_cases[c].metric, &index) != KITH_OK ||
            kith_index_train(index, &all, NULL) != KITH_OK || kith_index_add(index, &all, NULL, NULL) != KITH_OK ||
            kith_index_search(index, &query, ISA_K, &params, out->ids[c], out->distances[c], NULL) != KITH_OK)
            return 2;
        kith_index_free(index);
    }
    return 0;
}

/* In a process that runs on the named instruction set; false: the machine lacks it. */
static bool search_on(const char *isa, isa_results *out) {
    int ends[2], status;
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        setenv("KITH_ISA", isa, 1);
        if (kith_simd_status() != KITH_OK) _exit(1);
        int wrong = search_all(out);
        const char *at = (const char *)out, *end = at + sizeof *out;
        for (ssize_t some; wrong == 0 && at < end; at += some)
            if ((some = write(ends[1], at, (size_t)(end - at))) <= 0) _exit(3);
        _exit(wrong);
    }
    close(ends[1]);
    size_t got = 0;
    for (ssize_t some; (some = read(ends[0], (char *)out + got, sizeof *out - got)) > 0;) got += (size_t)some;
    close(ends[0]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) < 2, "%s ended with %d", isa, status);
    if (WEXITSTATUS(status) == 1) return false;
    cr_assert_eq(got, sizeof *out);
    return true;
}

/* Integer codes give the same results, result for result: graph, walk and refinement. */
Test(hnsw_edges, same_results_on_every_instruction_set) {
    static const char *const sets[] = {"avx2", "avx512-vnni", "avx512", "neon"};
    static isa_results want, got;
    cr_assert(search_on("ref", &want));
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!search_on(sets[i], &got)) continue;
        for (size_t c = 0; c < ISA_CASES; c++) {
            cr_assert_eq(memcmp(got.ids[c], want.ids[c], sizeof got.ids[c]), 0, "%s, %s", sets[i],
                         isa_cases[c].spec);
            cr_assert_eq(memcmp(got.distances[c], want.distances[c], sizeof got.distances[c]), 0, "%s, %s", sets[i],
                         isa_cases[c].spec);
        }
    }
}

/* ---- Threads and processes -------------------------------------------------------------------------------------- */

enum { NB = 2500, NQ = 120, DIM = 10, K = 5 };

static kith_index *filled(const char *spec, const float *base) {
    kith_index *index = created(spec, DIM, KITH_L2);
    kith_view view = view_of(base, NB, DIM);
    OK(kith_index_train(index, &view, NULL));
    OK(kith_index_add(index, &view, NULL, NULL));
    return index;
}

Test(hnsw_edges, searches_at_any_thread_count) {
    static const char *const specs[] = {"HNSW8", "HNSW8,SQ8,RFlat"};
    size_t counts[] = {1, 2, 8, 16, 4 * kith_threads_default()};
    float *base = surface(NB, DIM, 51), *queries = surface(NQ, DIM, 52);
    kith_view view = view_of(queries, NQ, DIM);
    int64_t want[NQ * K], ids[NQ * K];
    for (size_t s = 0; s < 2; s++) {
        kith_index *index = filled(specs[s], base);
        kith_search_params params;
        kith_search_params_init(&params);
        params.ef = 12;
        OK(kith_index_search(index, &view, K, &params, want, NULL, NULL));
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
            for (int round = 0; round < 5; round++) {
                params.threads = counts[c];
                OK(kith_index_search(index, &view, K, &params, ids, NULL, NULL));
                cr_assert_eq(memcmp(ids, want, sizeof ids), 0, "%s, %zu threads", specs[s], counts[c]);
            }
        kith_index_free(index);
    }
    free(base);
    free(queries);
}

/* A process that has searched and built on threads forks: the child does both, and the parent goes on. */
Test(hnsw_edges, a_forked_child_searches_and_adds) {
    float *base = surface(NB, DIM, 53), *queries = surface(NQ, DIM, 54);
    kith_view view = view_of(queries, NQ, DIM);
    kith_index *index = created("HNSW8", DIM, KITH_L2);
    int64_t want[NQ * K], ids[NQ * K];
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = 4;
    add_on(index, base, NB, 4);
    OK(kith_index_search(index, &view, K, &params, want, NULL, NULL));
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        kith_job job;
        kith_job_init(&job);
        job.threads = 4;
        alarm(300);
        int wrong = kith_index_search(index, &view, K, &params, ids, NULL, NULL) != KITH_OK ||
                    memcmp(ids, want, sizeof ids) != 0 || kith_index_add(index, &view, NULL, &job) != KITH_OK ||
                    kith_index_search(index, &view, 1, &params, ids, NULL, NULL) != KITH_OK;
        for (size_t q = 0; q < NQ && wrong == 0; q++) wrong = ids[q] != (int64_t)(NB + q);
        _exit(wrong);
    }
    int how = -1;
    cr_assert_eq(waitpid(child, &how, 0), child);
    cr_assert(WIFEXITED(how) && WEXITSTATUS(how) == 0, "the child ended with %d", how);
    OK(kith_index_search(index, &view, K, &params, ids, NULL, NULL));
    cr_assert_eq(memcmp(ids, want, sizeof ids), 0);
    kith_index_free(index);
    free(base);
    free(queries);
}

/* No allocation in a warm search: alone and in batches, on vectors and codes, under filters. */
Test(hnsw_edges, warm_searches_allocate_nothing) {
    static const char *const specs[] = {"HNSW8", "HNSW8,f16", "HNSW8,SQ8,RFlat", "HNSW8,Line64,Rf16"};
    faults_fail_allocation(0);
    float *base = surface(NB, DIM, 55);
    kith_filter *few, *half;
    OK(kith_filter_range(5, 200, &few));
    OK(kith_filter_range(0, NB / 2, &half));
    const kith_filter *filters[] = {NULL, few, half};
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++)
        for (size_t f = 0; f < 3; f++)
            for (size_t count = 1; count <= NQ; count *= NQ) {
                kith_index *index = filled(specs[s], base);
                kith_search_params params;
                kith_search_params_init(&params);
                params.filter = filters[f];
                OK(kith_search_context_create(&params.context));
                int64_t ids[NQ * K];
                for (size_t i = 0; i < 12; i++) {
                    if (i == 6) faults_fail_allocation(0); /* from here on all are counted */
                    kith_view view = view_of(base + i * DIM, count, DIM);
                    OK(kith_index_search(index, &view, K, &params, ids, NULL, NULL));
                }
                cr_assert_eq(faults_allocation_count(), 0, "%s, filter %zu, %zu queries: %zu", specs[s], f, count,
                             faults_allocation_count());
                kith_search_context_free(params.context);
                kith_index_free(index);
            }
    kith_filter_free(few);
    kith_filter_free(half);
    free(base);
}

/* ---- Bad values ------------------------------------------------------------------------------------------------- */

Test(hnsw_edges, bad_values_are_named_and_change_nothing) {
    static const char *const specs[] = {"HNSW8", "HNSW8,f16", "HNSW8,SQ8", "HNSW8,Line64,RFlat"};
    float *base = surface(NB, DIM, 56);
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++) {
        kith_index *index = filled(specs[s], base);
        float rows[2 * DIM], distances[2];
        int64_t ids[2];
        memcpy(rows, base, sizeof rows);
        rows[DIM + 3] = NAN;
        kith_view view = view_of(rows, 2, DIM);
        cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_ERR_NOT_FINITE);
        cr_assert_not_null(strstr(kith_error_message(), "row 1, column 3"), "%s", kith_error_message());
        cr_assert_eq(kith_index_search(index, &view, 1, NULL, ids, distances, NULL), KITH_ERR_NOT_FINITE);
        cr_assert(ids[0] == KITH_NO_ID && ids[1] == KITH_NO_ID);
        cr_assert_eq(kith_index_count(index), NB);
        kith_search_params params;
        kith_search_params_init(&params);
        cr_assert_eq(kith_search_params_set(&params, index, "ef", "-1"), KITH_ERR_ARGUMENT);
        cr_assert_eq(kith_search_params_set(&params, index, "ef", "4294967296"), KITH_ERR_ARGUMENT);
        cr_assert_not_null(strstr(kith_error_message(), "ef"));
        kith_index_free(index);
    }
    kith_index *index = created("HNSW8", DIM, KITH_L2);
    kith_job job;
    kith_job_init(&job);
    job.memory_bytes_max = 1000;
    kith_view view = view_of(base, NB, DIM);
    cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_ERR_BUDGET);
    const char *needed = strstr(kith_error_message(), "needs ");
    cr_assert(needed != NULL && strtod(needed + 6, NULL) > 1000, "%s", kith_error_message());
    job.memory_bytes_max = (uint64_t)strtod(needed + 6, NULL) + 1; /* with what it says it needs it goes */
    OK(kith_index_add(index, &view, NULL, &job));
    kith_index_free(index);
    free(base);
}
