/* SPDX-License-Identifier: Apache-2.0 */
#include "hnsw_fixture.h"

/* Many vectors of unequal lengths under inner product, linked at once by their directions and lengths. */

enum { MANY = KITH_HNSW_BULK_MIN };

/* Clusters around random directions, each with a length of its own in 1..2. */
static float *clusters_of_lengths(size_t count, size_t cluster_count, size_t dim, uint64_t stream) {
    float *values = malloc(count * dim * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        size_t cluster = i % cluster_count;
        float *vector = values + i * dim, squares = 0;
        for (size_t d = 0; d < dim; d++) {
            vector[d] =
                kith_random_normal(61, 1, cluster * dim + d) + 0.05f * kith_random_normal(61, stream, i * dim + d);
            squares += vector[d] * vector[d];
        }
        float length = 1 + kith_random_f32(62, 1, cluster);
        for (size_t d = 0; d < dim; d++) vector[d] *= length / sqrtf(squares);
    }
    return values;
}

/* Clusters of short vectors are found from outside as well, though the longest nodes are all in others. */
Test(hnsw_lengths, clusters_that_have_one_length_each) {
    enum { NB = MANY + 1808, CLUSTERS = 200, DIM = 24, QUERIES = 400, K = 10 };
    float *base = clusters_of_lengths(NB, CLUSTERS, DIM, 2),
          *queries = clusters_of_lengths(QUERIES, CLUSTERS, DIM, 3);
    int64_t *truth = malloc(sizeof *truth * QUERIES * K);
    const kith_view view = view_of(base, NB, DIM);
    kith_index *index = created("HNSW16", DIM, KITH_IP);
    cr_assert(kith_hnsw_is_even(kith_hnsw_of(index), 0, &view));
    add_on(index, base, NB, 2);
    cr_assert_eq(reachable(index), NB);
    truth_of(KITH_IP, base, NB, queries, QUERIES, DIM, K, truth);
    size_t found = found_of(index, 128, queries, QUERIES, K, truth);
    cr_assert_geq(found, QUERIES * K * 9 / 10, "%zu of %d", found, QUERIES * K);
    kith_index_free(index);
    free(truth);
    free(queries);
    free(base);
}

/* All in one direction, or in none: `length_count` lengths in turn, from `least` on. */
static void check_one_direction(const char *spec, float least, size_t length_count) {
    enum { NB = MANY + 9, DIM = 6, K = 10 };
    float *base = calloc(NB * DIM, sizeof *base), query[DIM] = {3, 1}, distances[K];
    for (size_t i = 0; i < NB; i++) base[i * DIM] = least + (float)(i % length_count);
    const float longest = least + (float)(length_count - 1);
    const kith_view view = view_of(base, NB, DIM), one = view_of(query, 1, DIM);
    kith_index *indices[2];
    int64_t ids[K];
    for (size_t t = 0; t < 2; t++) {
        indices[t] = created(spec, DIM, KITH_IP);
        cr_assert(kith_hnsw_is_even(kith_hnsw_of(indices[t]), 0, &view));
        OK(kith_index_train(indices[t], &view, NULL));
        add_on(indices[t], base, NB, 1 + 2 * t);
        cr_assert_eq(reachable(indices[t]), NB);
        OK(kith_index_search(indices[t], &one, K, NULL, ids, distances, NULL));
        for (size_t i = 0; i < K; i++) {
            cr_assert_eq(base[(size_t)ids[i] * DIM], longest, "%s, %g: %lld is not of the longest", spec,
                         (double)least, (long long)ids[i]);
            cr_assert_float_eq(distances[i], 3 * longest, 0.01f * longest);
        }
    }
    cr_assert(same_graph(indices[0], indices[1]), "%s, %g", spec, (double)least);
    for (size_t t = 0; t < 2; t++) kith_index_free(indices[t]);
    free(base);
}

Test(hnsw_lengths, vectors_of_zeros) {
    check_one_direction("HNSW8", 0, 1);
    check_one_direction("HNSW8,SQ8", 0, 1);
}
Test(hnsw_lengths, one_direction) {
    check_one_direction("HNSW8", 1, 2);
    check_one_direction("HNSW8,SQ8", 1, 2);
}
/* 8 bits have no step for it. */
Test(hnsw_lengths, one_direction_has_no_sketch) {
    enum { COUNT = 300, DIM = 8 };
    static float sample[COUNT * DIM];
    for (size_t is_one = 0; is_one < 2; is_one++) {
        for (size_t i = 0; i < (size_t)COUNT * DIM; i++)
            sample[i] = is_one ? i % DIM == 0 : kith_random_normal(63, 1, i);
        for (size_t is_code = 0; is_code < 2; is_code++) {
            kith_hnsw_sketch sketch;
            kith_index *index = created(is_code ? "HNSW8,SQ8" : "HNSW8", DIM, KITH_IP);
            kith_hnsw_of(index)->has_lengths = true;
            OK(kith_hnsw_sketch_make(kith_hnsw_of(index), KITH_F32, sample, COUNT, COUNT, &sketch));
            cr_assert_eq(sketch.rows != NULL, is_code || !is_one);
            cr_assert_eq(sketch.dtype == KITH_F32, is_code && is_one);
            kith_hnsw_sketch_free(&sketch);
            kith_index_free(index);
        }
    }
}

/* A budget that does for walks alone gets them; less is refused. */
Test(hnsw_lengths, a_small_budget_gets_walks) {
    enum { NB = MANY, DIM = 16, QUERIES = 100, K = 10 };
    static const struct {
        size_t bytes_each;
        bool is_refused, is_at_once;
    } cases[] = {{0, false, true}, {1024, false, true}, {100, false, false}, {20, true, false}};
    float *base = clusters_of_lengths(NB, NB, DIM, 5), *queries = clusters_of_lengths(QUERIES, NB, DIM, 6);
    int64_t *truth = malloc(sizeof *truth * QUERIES * K);
    const kith_view view = view_of(base, NB, DIM);
    kith_index *index = created("HNSW16", DIM, KITH_IP), *at_once = created("HNSW16", DIM, KITH_IP);
    add_on(at_once, base, NB, 1);
    truth_of(KITH_IP, base, NB, queries, QUERIES, DIM, K, truth);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        kith_job job;
        kith_job_init(&job);
        job.threads = 2;
        job.memory_bytes_max = (uint64_t)NB * cases[c].bytes_each;
        kith_status status = kith_index_add(index, &view, NULL, &job);
        cr_assert_eq(status, cases[c].is_refused ? KITH_ERR_BUDGET : KITH_OK, "%zu bytes", cases[c].bytes_each);
        cr_assert_eq(index->count, cases[c].is_refused ? 0 : NB);
        if (cases[c].is_refused) continue;
        cr_assert_eq(same_graph(index, at_once), cases[c].is_at_once, "%zu bytes", cases[c].bytes_each);
        cr_assert_eq(reachable(index), NB);
        size_t found = found_of(index, 64, queries, QUERIES, K, truth);
        cr_assert_geq(found, QUERIES * K * 9 / 10, "%zu bytes: %zu of %d", cases[c].bytes_each, found, QUERIES * K);
        OK(kith_index_reset(index));
    }
    kith_index_free(at_once);
    kith_index_free(index);
    free(truth);
    free(queries);
    free(base);
}
