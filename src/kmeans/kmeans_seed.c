/* SPDX-License-Identifier: Apache-2.0
 *
 * kmeans_seed.c: the first centroids.
 */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "kmeans/kmeans_inside.h"
#include "simd/simd.h"

enum { STREAM_SHUFFLE = 0x73656564, STREAM_DRAW = 0x64726177, BLOCK = 2048 };

kith_status kith_seed_random(const kith_points *points, size_t k, uint64_t seed, float *centroids) {
    uint32_t *order;
    KITH_TRY(kith_alloc(points->count, sizeof *order, &order));
    kith_random_permutation(seed, STREAM_SHUFFLE, points->count, order);
    for (size_t c = 0; c < k; c++)
        memcpy(centroids + c * points->dim, points->rows + order[c] * points->dim, points->dim * sizeof(float));
    kith_free(order);
    return KITH_OK;
}

/* Squared distance, times weight, of each point from the nearest centroid chosen so far; summed block by block, so
 * that the sums are the same at any thread count. */
typedef struct nearest_loop {
    const kith_points *points;
    const float *centroid;
    float *nearest;
    double *block_sums;
} nearest_loop;

static double mass(const kith_points *points, const float *nearest, size_t i) {
    return (points->weights != NULL ? (double)points->weights[i] : 1.0) * (double)nearest[i];
}

static kith_status lower_block(void *context, size_t block, size_t worker) {
    const nearest_loop *loop = context;
    (void)worker;
    size_t dim = loop->points->dim, first = block * BLOCK;
    size_t count = kith_min_size(BLOCK, loop->points->count - first);
    float distances[BLOCK];
    kith_simd()->floats[KITH_OP_L2SQ][KITH_PAIR_F32_F32].block(loop->centroid, loop->points->rows + first * dim,
                                                               dim * sizeof(float), count, dim, distances);
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        if (distances[i] < loop->nearest[first + i]) loop->nearest[first + i] = distances[i];
        sum += mass(loop->points, loop->nearest, first + i);
    }
    loop->block_sums[block] = sum;
    return KITH_OK;
}

/* The point at which the running sum of masses passes `target`; a point that is chosen already has mass 0. */
static size_t find_mass(const nearest_loop *loop, size_t block_count, double target) {
    size_t block = 0;
    while (block + 1 < block_count && target >= loop->block_sums[block]) target -= loop->block_sums[block++];
    size_t last = kith_min_size((block + 1) * BLOCK, loop->points->count), found = last - 1;
    for (size_t i = block * BLOCK; i < last; i++) {
        double here = mass(loop->points, loop->nearest, i);
        if (here > 0) found = i;
        if (target < here) break;
        target -= here;
    }
    return found;
}

kith_status kith_seed_plus_plus(const kith_points *points, size_t k, uint64_t seed, size_t threads,
                                float *centroids) {
    size_t dim = points->dim, block_count = (points->count + BLOCK - 1) / BLOCK;
    nearest_loop loop = {.points = points};
    kith_status status;
    KITH_GO(kith_alloc(points->count, sizeof *loop.nearest, &loop.nearest));
    KITH_GO(kith_alloc(block_count, sizeof *loop.block_sums, &loop.block_sums));
    for (size_t i = 0; i < points->count; i++) loop.nearest[i] = __builtin_inff();
    size_t chosen = (size_t)kith_random_below(seed, STREAM_DRAW, 0, points->count);
    for (size_t c = 0; c < k; c++) {
        memcpy(centroids + c * dim, points->rows + chosen * dim, dim * sizeof(float));
        loop.centroid = centroids + c * dim;
        KITH_GO(kith_parallel_for(threads, block_count, lower_block, &loop));
        double total = 0;
        for (size_t b = 0; b < block_count; b++) total += loop.block_sums[b];
        double share = (double)kith_random_f32(seed, STREAM_DRAW, c + 1);
        chosen = total > 0 ? find_mass(&loop, block_count, share * total)
                           : (size_t)kith_random_below(seed, STREAM_DRAW, k + c + 1, points->count);
    }
done:
    kith_free(loop.nearest);
    kith_free(loop.block_sums);
    return status;
}
