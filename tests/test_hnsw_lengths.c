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
