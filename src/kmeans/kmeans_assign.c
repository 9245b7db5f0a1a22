/* SPDX-License-Identifier: Apache-2.0
 *
 * kmeans_assign.c: the nearest of k centroids for many points, exactly, at the price of an 8-bit product.
 *
 * Points and centroids are sketched in 8 bits: x = s x8 + e, c = t c8 + f. Then <x, c> <= s t <x8, c8> + |e| |c| +
 * (|x| + |e|) |f|, so a centroid can be nearer than the best one so far, at squared distance U, only if
 *     s t <x8, c8> - |c|^2 / 2  >=  (|x|^2 - U) / 2 - |e| |c| - (|x| + |e|) |f|.
 * With |e| = e* + (|e| - e*) and |x| + |e| = y* + (|x| + |e| - y*), where e* and y* are means over the points, the
 * part e* |c| + y* |f| joins the left side, which is one integer of the tile then; the small rest, bounded over a block
 * of centroids, stays in the threshold of the SIMD filter. The few that pass get their distance from the `one` kernel, and the point's own
 * centroid of the round before is the first U. So the assignment is what comparing those distances one by one would
 * give, on every instruction set and at any thread count.
 * (The idea of a cheap product first and a bound after it: Kuffo, Hepkema, Boncz, "SuperKMeans", arXiv 2603.20009,
 * who take a prefix of rotated dimensions where this takes all of them in fewer bits.)
 */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "kmeans/kmeans_inside.h"
#include "simd/simd.h"

enum { COLUMNS = 256, GROUPS = 32 };
static const size_t stretch_bytes = (size_t)256 << 10;
/* Keeps all sums of the tile within 32 bits. */
static const double bias_max = 1073741824.0;

static size_t padded_k(const kith_assigner *assigner) {
    size_t lanes = assigner->centroid_sketch.lanes;
    return (assigner->k + lanes - 1) / lanes * lanes;
}

static double mean_of(const float *values, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)values[i];
    return sum / (double)count;
}

kith_status kith_assigner_create(kith_assigner *assigner, const kith_points *points, size_t k, bool spherical,
                                 size_t threads) {
    *assigner =
        (kith_assigner){.k = k, .dim = points->dim, .threads = threads, .spherical = spherical, .points = points};
    kith_status status;
    KITH_GO(kith_sketch_create(&assigner->point_sketch, points->count, points->dim, true));
    KITH_GO(kith_sketch_create(&assigner->centroid_sketch, k, points->dim, false));
    KITH_GO(kith_sketch_load(&assigner->point_sketch, points->rows, true, threads));
    KITH_GO(kith_alloc(padded_k(assigner), sizeof *assigner->bias, &assigner->bias));
    size_t lanes = assigner->point_sketch.lanes;
    assigner->scratch_bytes = kith_round_up(lanes * COLUMNS * sizeof(int32_t) + COLUMNS * sizeof(uint32_t) +
                                                GROUPS * lanes * (sizeof(float) + sizeof(uint32_t)),
                                            KITH_ALIGNMENT);
    KITH_GO(kith_alloc(threads, assigner->scratch_bytes, &assigner->scratch));
done:
    if (status != KITH_OK) kith_assigner_free(assigner);
    return status;
}

kith_status kith_assigner_reload(kith_assigner *assigner) {
    assigner->point_sketch.count = assigner->points->count;
    return kith_sketch_load(&assigner->point_sketch, assigner->points->rows, true, assigner->threads);
}

void kith_assigner_free(kith_assigner *assigner) {
    kith_sketch_free(&assigner->point_sketch);
    kith_sketch_free(&assigner->centroid_sketch);
    kith_free(assigner->bias);
    kith_free(assigner->scratch);
    *assigner = (kith_assigner){0};
}

/* What a centroid's score starts from: -|c|^2 / 2 and its part of the error bound, rounded up. */
static double score_start(const kith_assigner *assigner, size_t c) {
    const kith_sketch *sketch = &assigner->centroid_sketch;
    double norm = (double)sketch->norms[c], error = (double)sketch->errors[c];
    double start = assigner->error_base * norm + assigner->reach_base * error;
    if (!assigner->spherical) start -= norm * norm * 0.4999;
    return ceil(start * assigner->inverse_unit);
}

static kith_status load_centroids(kith_assigner *assigner, const float *centroids) {
    kith_sketch *sketch = &assigner->centroid_sketch;
    assigner->centroids = centroids;
    KITH_TRY(kith_sketch_load(sketch, centroids, false, assigner->threads));
    assigner->inverse_unit = 1 / ((double)sketch->scale * (double)assigner->point_sketch.scale);
    assigner->error_base = mean_of(assigner->point_sketch.errors, assigner->points->count);
    assigner->reach_base = mean_of(assigner->point_sketch.norms, assigner->points->count) + assigner->error_base;
    for (size_t c = 0; c < assigner->k; c++)
        if (score_start(assigner, c) > bias_max) /* wild outliers: then the threshold carries the whole bound */
            assigner->error_base = assigner->reach_base = 0;
    for (size_t c = 0; c < padded_k(assigner); c++) {
        double start = c < assigner->k ? fmax(score_start(assigner, c), -bias_max) : -bias_max;
        assigner->bias[c] = sketch->terms[c] + (int32_t)start;
    }
    return KITH_OK;
}

/* ---- One point ---------------------------------------------------------------------------------------------- */

typedef struct search {
    const kith_assigner *assigner;
    const kith_simd_table *simd;
    uint32_t *assigned;
    _Atomic size_t changed;
} search;

/* What a task works on; in its worker's scratch. */
typedef struct point_block {
    int32_t *scores; /* query_lanes x COLUMNS */
    uint32_t *positions;
    float *best; /* of each point: least squared distance, or least negated inner product */
    uint32_t *best_at;
} point_block;

static const kith_float_kernels *pair_of(const search *work) {
    return &work->simd->floats[work->assigner->spherical ? KITH_OP_IP : KITH_OP_L2SQ][KITH_PAIR_F32_F32];
}

static float cost(const search *work, size_t point, size_t centroid) {
    const kith_assigner *assigner = work->assigner;
    size_t dim = assigner->dim;
    float value =
        pair_of(work)->one(assigner->points->rows + point * dim, assigner->centroids + centroid * dim, dim);
    return assigner->spherical ? -value : value;
}

/* Least and largest norm and error among the centroids of a block. */
typedef struct block_bounds {
    double norm_min, norm_max, error_min, error_max;
} block_bounds;

static block_bounds bounds_of(const kith_sketch *sketch, size_t first, size_t count) {
    block_bounds bounds = {INFINITY, 0, INFINITY, 0};
    for (size_t c = first; c < kith_min_size(first + count, sketch->count); c++) {
        /* No fmin and fmax: gcc 12 for AArch64 dies on their reduction. All values are finite. */
        double norm = (double)sketch->norms[c], error = (double)sketch->errors[c];
        if (norm < bounds.norm_min) bounds.norm_min = norm;
        if (norm > bounds.norm_max) bounds.norm_max = norm;
        if (error < bounds.error_min) bounds.error_min = error;
        if (error > bounds.error_max) bounds.error_max = error;
    }
    return bounds;
}

/* The least score of the tile with which a centroid of the block may cost no more than `best`. The slack stands for
 * the rounding of costs and norms in f32 (n = dim, u = 2^-24), the last -2 for that of the integer bias and of the
 * score itself. */
static int32_t threshold(const kith_assigner *assigner, size_t point, float best, const block_bounds *bounds) {
    const kith_sketch *points = &assigner->point_sketch;
    double norm = (double)points->norms[point], cost_max = (double)best;
    double error_rest = (double)points->errors[point] - assigner->error_base;
    double reach_rest = norm + (double)points->errors[point] - assigner->reach_base;
    double slack = ((double)assigner->dim / 8 + 512) * 0x1p-24;
    double need = -cost_max - slack * norm * bounds->norm_max;
    if (!assigner->spherical) need = (norm * norm * (1 - 4e-5) - cost_max * (1 + slack)) / 2 - slack * norm * norm;
    need -= error_rest * (error_rest > 0 ? bounds->norm_max : bounds->norm_min);
    need -= reach_rest * (reach_rest > 0 ? bounds->error_max : bounds->error_min);
    double score = need * assigner->inverse_unit - 2 - points->terms[point];
    return score >= INT32_MAX ? INT32_MAX : score <= INT32_MIN ? INT32_MIN : (int32_t)score;
}

static void offer(point_block *block, size_t i, size_t centroid, float own) {
    if (own > block->best[i] || (own == block->best[i] && centroid >= block->best_at[i])) return;
    block->best[i] = own;
    block->best_at[i] = (uint32_t)centroid;
}

/* Up to four centroids at a time: the point is read once for them. */
static void try_centroids(const search *work, point_block *block, size_t i, size_t point, const uint32_t *centroids,
                          size_t count) {
    const kith_assigner *assigner = work->assigner;
    const void *rows[4];
    float own[4];
    if (count == 0) return;
    for (size_t r = 0; r < 4; r++) rows[r] = assigner->centroids + centroids[r < count ? r : 0] * assigner->dim;
    pair_of(work)->four(assigner->points->rows + point * assigner->dim, rows, assigner->dim, own);
    for (size_t r = 0; r < count; r++) offer(block, i, centroids[r], assigner->spherical ? -own[r] : own[r]);
}

static void search_columns(const search *work, point_block *block, size_t i, size_t point, const int32_t *scores,
                           size_t first, size_t count, const block_bounds *bounds) {
    const kith_assigner *assigner = work->assigner;
    const kith_sketch *centroids = &assigner->centroid_sketch;
    if (block->best_at[i] == UINT32_MAX) { /* no centroid from before: the block's best guess is a start */
        size_t guess = 0;
        for (size_t c = 1; c < count; c++)
            if (scores[c] > scores[guess]) guess = c;
        offer(block, i, first + guess, cost(work, point, first + guess));
    }
    int32_t score_min = threshold(assigner, point, block->best[i], bounds);
    size_t survivors = work->simd->filter_i32(scores, count, score_min, block->positions), held = 0;
    uint32_t candidates[4];
    for (size_t s = 0; s < survivors; s++) {
        size_t at = block->positions[s], c = first + at;
        block_bounds own = bounds_of(centroids, c, 1);
        if (c == block->best_at[i] || scores[at] < threshold(assigner, point, block->best[i], &own)) continue;
        candidates[held++] = (uint32_t)c;
        if (held < 4) continue;
        try_centroids(work, block, i, point, candidates, held);
        held = 0;
    }
    try_centroids(work, block, i, point, candidates, held);
}

/* ---- A block of points through all centroids ---------------------------------------------------------------- */

static point_block lay_out(const kith_assigner *assigner, size_t worker) {
    size_t lanes = assigner->point_sketch.lanes;
    point_block block = {.scores = (int32_t *)(void *)(assigner->scratch + worker * assigner->scratch_bytes)};
    block.positions = (uint32_t *)(block.scores + lanes * COLUMNS);
    block.best = (float *)(void *)(block.positions + COLUMNS);
    block.best_at = (uint32_t *)(void *)(block.best + GROUPS * lanes);
    return block;
}

static void search_stretch(const search *work, point_block *block, size_t first_point, size_t point_count,
                           size_t first, size_t count) {
    const kith_assigner *assigner = work->assigner;
    const kith_sketch *points = &assigner->point_sketch, *centroids = &assigner->centroid_sketch;
    for (size_t c = first; c < first + count; c += COLUMNS) {
        size_t columns = kith_min_size(COLUMNS, first + count - c);
        size_t real = kith_min_size(columns, assigner->k - kith_min_size(c, assigner->k));
        block_bounds bounds = bounds_of(centroids, c, columns);
        for (size_t group = 0; group < point_count; group += points->lanes) {
            size_t present = kith_min_size(points->lanes, point_count - group);
            work->simd->tile_i8.run(points->packed + (first_point + group) * points->words,
                                    centroids->packed + c * centroids->words, points->words,
                                    columns / centroids->lanes, assigner->bias + c, block->scores, COLUMNS);
            for (size_t i = 0; i < present; i++)
                search_columns(work, block, group + i, first_point + group + i, block->scores + i * COLUMNS, c,
                               real, &bounds);
        }
    }
}

static kith_status assign_block(void *context, size_t item, size_t worker) {
    search *work = context;
    const kith_assigner *assigner = work->assigner;
    const kith_sketch *centroids = &assigner->centroid_sketch;
    size_t points = GROUPS * assigner->point_sketch.lanes, first = item * points;
    size_t count = kith_min_size(points, assigner->points->count - first);
    point_block block = lay_out(assigner, worker);
    for (size_t i = 0; i < count; i++) {
        uint32_t before = work->assigned[first + i];
        block.best_at[i] = before;
        block.best[i] = before != UINT32_MAX ? cost(work, first + i, before) : INFINITY;
    }
    size_t unit = centroids->lanes, total = padded_k(assigner);
    size_t stretch = kith_max_size(stretch_bytes / (centroids->words * sizeof(uint32_t)) / unit, 1) * unit;
    for (size_t c = 0; c < total; c += stretch)
        search_stretch(work, &block, first, count, c, kith_min_size(stretch, total - c));
    size_t changed = 0;
    for (size_t i = 0; i < count; i++) changed += work->assigned[first + i] != block.best_at[i];
    memcpy(work->assigned + first, block.best_at, count * sizeof *work->assigned);
    atomic_fetch_add_explicit(&work->changed, changed, memory_order_relaxed);
    return KITH_OK;
}

kith_status kith_assigner_run(kith_assigner *assigner, const float *centroids, uint32_t *assigned,
                              size_t *changed) {
    KITH_TRY(load_centroids(assigner, centroids));
    size_t points = GROUPS * assigner->point_sketch.lanes;
    search work = {assigner, kith_simd(), assigned, 0};
    KITH_TRY(
        kith_parallel_for(assigner->threads, (assigner->points->count + points - 1) / points, assign_block, &work));
    if (changed != NULL) *changed = atomic_load(&work.changed);
    return KITH_OK;
}
