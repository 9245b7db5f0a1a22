/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_fixture.h: what the tests of graphs share: data, recall, and a look at the graph inside.
 */
#ifndef KITH_TESTS_HNSW_FIXTURE_H
#define KITH_TESTS_HNSW_FIXTURE_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "hnsw_links.h"

#define OK(call) cr_assert_eq((call), KITH_OK, "%s: %s", #call, kith_error_message())

static inline kith_index *created(const char *spec, size_t dim, kith_metric metric) {
    kith_index *index;
    OK(kith_index_create(spec, dim, metric, &index));
    return index;
}

static inline kith_view view_of(const float *values, size_t count, size_t dim) {
    return (kith_view){values, KITH_F32, count, dim, 0};
}

static inline void add_on(kith_index *index, const float *values, size_t count, size_t threads) {
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    kith_view view = view_of(values, count, index->dim);
    OK(kith_index_add(index, &view, NULL, &job));
}

/* Vectors near a surface of ten dimensions: a random map of normal numbers, stretched and folded by a sine. */
static inline float *surface(size_t count, size_t dim, uint64_t stream) {
    enum { LATENT = 10 };
    float *values = malloc(count * dim * sizeof *values);
    for (size_t i = 0; i < count; i++)
        for (size_t d = 0; d < dim; d++) {
            double sum = 0;
            for (size_t l = 0; l < LATENT; l++)
                sum += (double)kith_random_normal(stream, 1, i * LATENT + l) *
                       (double)kith_random_f32(1338, 2, d * LATENT + l);
            values[i * dim + d] = (float)sin(sum * (4 * (double)kith_random_f32(1338, 3, d) + 0.1));
        }
    return values;
}

/* Points around `centres` far from each other. */
static inline float *clusters(size_t count, size_t centres, size_t dim) {
    float *values = malloc(count * dim * sizeof *values);
    for (size_t i = 0; i < count; i++)
        for (size_t d = 0; d < dim; d++)
            values[i * dim + d] = 1000 * kith_random_normal(7, 1, i * centres / count * dim + d) +
                                  kith_random_normal(7, 2, i * dim + d);
    return values;
}

static inline void truth_of(kith_metric metric, const float *base, size_t count, const float *queries,
                            size_t query_count, size_t dim, size_t k, int64_t *ids) {
    kith_index *flat = created("Flat", dim, metric);
    add_on(flat, base, count, 1);
    kith_view view = view_of(queries, query_count, dim);
    OK(kith_index_search(flat, &view, k, NULL, ids, NULL, NULL));
    kith_index_free(flat);
}

static inline size_t shared(const int64_t *a, const int64_t *b, size_t rows, size_t k) {
    size_t found = 0;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < k; j++) found += a[r * k + i] == b[r * k + j];
    return found;
}

/* How many of the k nearest of each query the index finds. */
static inline size_t found_of(const kith_index *index, size_t ef, const float *queries, size_t query_count,
                              size_t k, const int64_t *truth) {
    int64_t *ids = malloc(query_count * k * sizeof *ids);
    kith_search_params params;
    kith_search_params_init(&params);
    params.ef = ef;
    kith_view view = view_of(queries, query_count, index->dim);
    OK(kith_index_search(index, &view, k, &params, ids, NULL, NULL));
    size_t found = shared(ids, truth, query_count, k);
    free(ids);
    return found;
}

static inline bool same_graph(const kith_index *a, const kith_index *b) {
    const kith_hnsw *x = kith_hnsw_of_const(a), *y = kith_hnsw_of_const(b);
    if (a->count != b->count || x->node_count != y->node_count || x->entry_count != y->entry_count) return false;
    if (memcmp(x->entries, y->entries, x->entry_count * sizeof *x->entries) != 0) return false;
    for (uint32_t v = 0; v < x->node_count; v++)
        if (kith_hnsw_is_dead(x, v) != kith_hnsw_is_dead(y, v) ||
            memcmp(kith_hnsw_links(x, v), kith_hnsw_links(y, v), x->degree * sizeof(uint32_t)) != 0 ||
            memcmp(kith_hnsw_row(x, v), kith_hnsw_row(y, v), x->rows.item_bytes) != 0)
            return false;
    return true;
}

#endif
