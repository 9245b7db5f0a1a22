/* SPDX-License-Identifier: Apache-2.0
 *
 * kmeans_assign.c: the nearest of k centroids for many points.
 *
 * Points are the queries of the tile kernel, centroids its rows. A task takes a block of points through all
 * centroids, one second-level-cache-sized stretch of them at a time; the best score so far is the threshold of the
 * SIMD filter, so that almost no score is looked at one by one. Scores come from one chain of fused multiply-adds
 * each, so they are the same bits whatever the blocks, the threads or the instruction set.
 */
#include "kmeans/kmeans_inside.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "simd/simd.h"

enum { SCORE_COLUMNS = 256, POINT_GROUPS = 32, LANES_MAX = 64 };
static const size_t stretch_bytes = (size_t)256 << 10;

static size_t padded_k(const kith_assigner *assigner) {
    return kith_round_up(assigner->k, kith_simd()->tile_f32.row_lanes);
}

kith_status kith_assigner_create(kith_assigner *assigner, size_t k, size_t dim, bool spherical, size_t threads) {
    const kith_tile_f32 *tile = &kith_simd()->tile_f32;
    *assigner = (kith_assigner){.k = k, .dim = dim, .spherical = spherical, .threads = threads};
    size_t row_bytes = dim * sizeof(float);
    size_t queries = (size_t)POINT_GROUPS * tile->query_lanes;
    assigner->scratch_bytes =
        kith_round_up(queries * row_bytes + tile->query_lanes * SCORE_COLUMNS * sizeof(float) +
                          SCORE_COLUMNS * sizeof(uint32_t) + queries * (sizeof(float) + sizeof(uint32_t)),
                      KITH_ALIGNMENT);
    kith_status status;
    KITH_GO(kith_alloc(padded_k(assigner), row_bytes, &assigner->panels));
    KITH_GO(kith_alloc(padded_k(assigner), sizeof *assigner->bias, &assigner->bias));
    KITH_GO(kith_alloc(threads, assigner->scratch_bytes, &assigner->scratch));
done:
    if (status != KITH_OK) kith_assigner_free(assigner);
    return status;
}

void kith_assigner_free(kith_assigner *assigner) {
    kith_free(assigner->panels);
    kith_free(assigner->bias);
    kith_free(assigner->scratch);
    *assigner = (kith_assigner){0};
}

typedef struct load_loop {
    kith_assigner *assigner;
    const float *centroids;
} load_loop;

static kith_status load_panel(void *context, size_t panel, size_t worker) {
    const load_loop *loop = context;
    (void)worker;
    kith_assigner *assigner = loop->assigner;
    const kith_simd_table *simd = kith_simd();
    size_t lanes = simd->tile_f32.row_lanes, dim = assigner->dim, first = panel * lanes;
    size_t count = kith_min_size(lanes, assigner->k - first);
    const uint32_t *vectors[LANES_MAX];
    for (size_t i = 0; i < lanes; i++) {
        const float *centroid = loop->centroids + (first + i) * dim;
        if (i < count) vectors[i] = (const uint32_t *)(const void *)centroid;
        assigner->bias[first + i] = i >= count            ? -INFINITY
                                    : assigner->spherical ? 0.0f
                                                          : -0.5f * simd->norm2_f32(centroid, dim);
    }
    simd->pack(vectors, count, lanes, dim, (uint32_t *)(void *)(assigner->panels + first * dim));
    return KITH_OK;
}

kith_status kith_assigner_load(kith_assigner *assigner, const float *centroids) {
    size_t lanes = kith_simd()->tile_f32.row_lanes;
    if (lanes > LANES_MAX) return kith_error(KITH_ERR_INTERNAL, "a tile of %zu rows", lanes);
    load_loop loop = {assigner, centroids};
    return kith_parallel_for(assigner->threads, padded_k(assigner) / lanes, load_panel, &loop);
}

typedef struct run_loop {
    const kith_assigner *assigner;
    const kith_points *points;
    uint32_t *assigned;
    _Atomic size_t changed;
} run_loop;

/* What a task works on; all in the worker's scratch. */
typedef struct point_block {
    float *packed; /* the block's points, query_lanes at a time */
    float *scores; /* query_lanes x SCORE_COLUMNS */
    uint32_t *positions;
    float *best;
    uint32_t *best_at;
} point_block;

static point_block lay_out(const kith_assigner *assigner, size_t worker) {
    size_t lanes = kith_simd()->tile_f32.query_lanes, queries = POINT_GROUPS * lanes;
    float *at = (float *)(void *)(assigner->scratch + worker * assigner->scratch_bytes);
    point_block block = {.packed = at, .scores = at + queries * assigner->dim};
    block.positions = (uint32_t *)(void *)(block.scores + lanes * SCORE_COLUMNS);
    block.best = (float *)(void *)(block.positions + SCORE_COLUMNS);
    block.best_at = (uint32_t *)(void *)(block.best + queries);
    return block;
}

static void keep_best(const kith_simd_table *simd, point_block *block, size_t point, const float *scores,
                      size_t count, size_t first_centroid) {
    size_t survivors = simd->filter_f32(scores, count, block->best[point], block->positions);
    for (size_t s = 0; s < survivors; s++) {
        size_t at = block->positions[s];
        if (scores[at] <= block->best[point]) continue;
        block->best[point] = scores[at];
        block->best_at[point] = (uint32_t)(first_centroid + at);
    }
}

static void score_stretch(const kith_assigner *assigner, point_block *block, size_t point_count, size_t first,
                          size_t count) {
    const kith_simd_table *simd = kith_simd();
    const kith_tile_f32 *tile = &simd->tile_f32;
    size_t dim = assigner->dim;
    for (size_t group = 0; group < point_count; group += tile->query_lanes) {
        size_t present = kith_min_size(tile->query_lanes, point_count - group);
        for (size_t c = first; c < first + count; c += SCORE_COLUMNS) {
            size_t columns = kith_min_size(SCORE_COLUMNS, first + count - c);
            tile->run(block->packed + group * dim, assigner->panels + c * dim, dim, columns / tile->row_lanes,
                      assigner->bias + c, block->scores, SCORE_COLUMNS);
            for (size_t i = 0; i < present; i++)
                keep_best(simd, block, group + i, block->scores + i * SCORE_COLUMNS, columns, c);
        }
    }
}

static kith_status assign_block(void *context, size_t item, size_t worker) {
    run_loop *loop = context;
    const kith_assigner *assigner = loop->assigner;
    const kith_simd_table *simd = kith_simd();
    size_t lanes = simd->tile_f32.query_lanes, dim = assigner->dim, queries = POINT_GROUPS * lanes;
    size_t first = item * queries, count = kith_min_size(queries, loop->points->count - first);
    point_block block = lay_out(assigner, worker);
    const uint32_t *vectors[LANES_MAX];
    for (size_t group = 0; group < count; group += lanes) {
        size_t present = kith_min_size(lanes, count - group);
        for (size_t i = 0; i < present; i++)
            vectors[i] = (const uint32_t *)(const void *)(loop->points->rows + (first + group + i) * dim);
        simd->pack(vectors, present, lanes, dim, (uint32_t *)(void *)(block.packed + group * dim));
    }
    for (size_t i = 0; i < count; i++) block.best[i] = -INFINITY, block.best_at[i] = 0;
    size_t unit = simd->tile_f32.row_lanes, total = padded_k(assigner);
    size_t stretch = kith_max_size(stretch_bytes / (dim * sizeof(float)) / unit, 1) * unit;
    for (size_t c = 0; c < total; c += stretch)
        score_stretch(assigner, &block, count, c, kith_min_size(stretch, total - c));
    size_t changed = 0;
    for (size_t i = 0; i < count; i++) changed += loop->assigned[first + i] != block.best_at[i];
    memcpy(loop->assigned + first, block.best_at, count * sizeof *loop->assigned);
    atomic_fetch_add_explicit(&loop->changed, changed, memory_order_relaxed);
    return KITH_OK;
}

kith_status kith_assigner_run(const kith_assigner *assigner, const kith_points *points, uint32_t *assigned,
                              size_t *changed) {
    size_t queries = POINT_GROUPS * kith_simd()->tile_f32.query_lanes;
    run_loop loop = {assigner, points, assigned, 0};
    KITH_TRY(kith_parallel_for(assigner->threads, (points->count + queries - 1) / queries, assign_block, &loop));
    if (changed != NULL) *changed = atomic_load(&loop.changed);
    return KITH_OK;
}
