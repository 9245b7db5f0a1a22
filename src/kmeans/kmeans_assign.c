/* SPDX-License-Identifier: Apache-2.0
 *
 * kmeans_assign.c: the nearest of k centroids for many points, exactly, at the price of an 8-bit product.
 *
 * Blocks of points go through the integer tile with all centroids, on a screen (kmeans_screen.c) that sees all
 * dimensions or a few directions (kmeans_prefix.c). What passes the threshold there is compared by the bytes of all
 * dimensions, if the tile had only a few, and the few centroids that are left get their distance from the `one` kernel.
 * The point's own centroid of the round before is the first bound. So the assignment is what comparing those distances
 * one by one would give, on every instruction set and at any thread count.
 */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "kmeans/kmeans_inside.h"
#include "simd/simd.h"

enum { GROUPS = 32, PRUNE_FROM_K = 256, DIRECTIONS_MAX = 192 };
/* Finding directions must cost less than this share of the assignments that they are for. */
static const double search_share_max = 0.05;
/* Directions further from orthonormal than this serve nobody. */
static const double slack_max = 0.02;

size_t kith_directions_max(size_t k, size_t dim) {
    size_t count = kith_min_size(dim * 7 / 10, DIRECTIONS_MAX);
    return k >= PRUNE_FROM_K && count >= KITH_DIRECTIONS_MIN ? count : 0;
}

static const kith_screen *tile_screen(const kith_assigner *assigner) {
    return assigner->directions.count > 0 ? &assigner->prefix : &assigner->full;
}

kith_status kith_assigner_create(kith_assigner *assigner, const kith_points *points, size_t k, bool spherical,
                                 size_t threads) {
    *assigner =
        (kith_assigner){.k = k, .dim = points->dim, .threads = threads, .spherical = spherical, .points = points};
    kith_status status;
    KITH_GO(kith_screen_create(&assigner->full, points->count, k, points->dim));
    KITH_GO(kith_sketch_load(&assigner->full.points, points->rows, threads));
    size_t lanes = assigner->full.points.lanes;
    assigner->scratch_bytes =
        kith_round_up(lanes * KITH_SCREEN_COLUMNS * sizeof(int32_t) + KITH_SCREEN_COLUMNS * sizeof(uint32_t) +
                          GROUPS * lanes * (sizeof(kith_screen_row) + sizeof(float) + sizeof(uint32_t)),
                      KITH_ALIGNMENT);
    KITH_GO(kith_alloc(threads, assigner->scratch_bytes, &assigner->scratch));
done:
    if (status != KITH_OK) kith_assigner_free(assigner);
    return status;
}

kith_status kith_assigner_reload(kith_assigner *assigner) {
    assigner->full.points.count = assigner->points->count;
    return kith_sketch_load(&assigner->full.points, assigner->points->rows, assigner->threads);
}

static void drop_prefix(kith_assigner *assigner) {
    kith_screen_free(&assigner->prefix);
    kith_directions_free(&assigner->directions);
    kith_free(assigner->projected);
    assigner->projected = NULL;
}

void kith_assigner_free(kith_assigner *assigner) {
    drop_prefix(assigner);
    kith_screen_free(&assigner->full);
    kith_free(assigner->scratch);
    *assigner = (kith_assigner){0};
}

static kith_status load_centroids(kith_assigner *assigner, const float *centroids) {
    kith_screen *full = &assigner->full, *prefix = &assigner->prefix;
    assigner->centroids = centroids;
    KITH_TRY(kith_sketch_load(&full->centroids, centroids, assigner->threads));
    if (assigner->directions.count == 0) {
        kith_screen_prepare(full, assigner->spherical);
        return KITH_OK;
    }
    KITH_TRY(kith_project(centroids, assigner->k, assigner->dim, &assigner->directions, assigner->threads,
                          assigner->projected));
    KITH_TRY(kith_sketch_load(&prefix->centroids, assigner->projected, assigner->threads));
    kith_tails_of(full->centroids.norms, prefix->centroids.norms, assigner->k, prefix->slack,
                  prefix->centroid_tails);
    kith_screen_prepare(prefix, assigner->spherical);
    return KITH_OK;
}

/* ---- A few directions ---------------------------------------------------------------------------------------- */

/* Projects the points on the directions. */
static kith_status load_prefix(kith_assigner *assigner) {
    kith_screen *full = &assigner->full, *prefix = &assigner->prefix;
    size_t count = assigner->directions.count, n = assigner->points->count;
    size_t at_once = kith_min_size(n, GROUPS * GROUPS * full->points.lanes);
    double slack = prefix->slack;
    float *projected = NULL;
    kith_status status;
    KITH_GO(kith_screen_create(prefix, n, assigner->k, count));
    prefix->slack = slack;
    prefix->point_lengths = full->points.norms;
    prefix->centroid_lengths = full->centroids.norms;
    KITH_GO(kith_alloc(assigner->k, count * sizeof *assigner->projected, &assigner->projected));
    KITH_GO(kith_alloc(at_once, count * sizeof *projected, &projected));
    KITH_GO(kith_project(assigner->points->rows, at_once, n / at_once * assigner->dim, &assigner->directions,
                         assigner->threads, projected));
    kith_sketch_scale(&prefix->points, projected, at_once);
    for (size_t first = 0; first < n; first += at_once) {
        size_t here = kith_min_size(at_once, n - first);
        KITH_GO(kith_project(assigner->points->rows + first * assigner->dim, here, assigner->dim,
                             &assigner->directions, assigner->threads, projected));
        KITH_GO(kith_sketch_load_part(&prefix->points, projected, first, here, assigner->threads));
    }
    kith_tails_of(full->points.norms, prefix->points.norms, n, slack, prefix->point_tails);
done:
    kith_free(projected);
    return status;
}

/* The bytes of all dimensions, in the order that the tile wants or row by row. */
static kith_status lay_bytes(kith_assigner *assigner, bool by_rows) {
    kith_screen *full = &assigner->full;
    full->points.side = by_rows ? KITH_SKETCH_BYTES : KITH_SKETCH_QUERIES;
    full->centroids.side = by_rows ? KITH_SKETCH_BYTES : KITH_SKETCH_ROWS;
    return kith_sketch_load(&full->points, assigner->points->rows, assigner->threads);
}

/* Takes the directions over. */
static kith_status use_directions(kith_assigner *assigner, size_t count) {
    KITH_TRY(kith_directions_turn(&assigner->directions, count, assigner->threads, &assigner->prefix.slack));
    if (assigner->prefix.slack > slack_max) {
        drop_prefix(assigner);
        return KITH_OK;
    }
    KITH_TRY(lay_bytes(assigner, true));
    return load_prefix(assigner);
}

kith_status kith_assigner_project(kith_assigner *assigner, const float *centroids, size_t count) {
    KITH_TRY(kith_assigner_widen(assigner));
    KITH_TRY(kith_directions_find(&assigner->directions, centroids, assigner->k, assigner->dim, count,
                                  assigner->threads));
    return assigner->directions.count > 0 ? use_directions(assigner, assigner->directions.count) : KITH_OK;
}

kith_status kith_assigner_prune(kith_assigner *assigner, const float *centroids, const uint32_t *assigned,
                                size_t rounds) {
    double dim = (double)assigner->dim, k = (double)assigner->k, n = (double)assigner->points->count;
    size_t count = kith_directions_max(assigner->k, assigner->dim);
    double search = kith_directions_cost(assigner->k, assigner->dim, count);
    KITH_TRY(kith_assigner_widen(assigner));
    if (count == 0 || search > search_share_max * n * k * dim * (double)rounds) return KITH_OK;
    KITH_TRY(kith_directions_find(&assigner->directions, centroids, assigner->k, assigner->dim, count,
                                  assigner->threads));
    count = 0;
    if (assigner->directions.count >= KITH_DIRECTIONS_MIN) /* fewer where the centroids are all the same */
        KITH_TRY(kith_directions_choose(&assigner->directions, assigner->points, centroids, assigner->k, assigned,
                                        assigner->spherical, rounds, assigner->threads, &count));
    if (count > 0) return use_directions(assigner, count);
    drop_prefix(assigner);
    return KITH_OK;
}

kith_status kith_assigner_widen(kith_assigner *assigner) {
    if (assigner->directions.count == 0) return KITH_OK;
    drop_prefix(assigner);
    return lay_bytes(assigner, false);
}

/* ---- One point ---------------------------------------------------------------------------------------------- */

typedef struct search {
    const kith_assigner *assigner;
    const kith_screen *screen; /* of the tile */
    const kith_simd_table *simd;
    uint32_t *assigned;
    _Atomic size_t changed;
} search;

/* What a task works on; in its worker's scratch. */
typedef struct point_block {
    kith_screen_row *rows;
    int32_t *scores; /* query_lanes x KITH_SCREEN_COLUMNS */
    uint32_t *positions;
    float *best; /* of each point: least squared distance, or least negated inner product */
    uint32_t *best_at;
} point_block;

/* Centroids that wait until there are four: the point is read once for them. */
typedef struct waiting {
    uint32_t centroids[4];
    size_t count;
} waiting;

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

/* The least score of the tile with which a centroid within the bounds may cost no more than `best`. The last -2 stands
 * for the rounding of the integer bias and of the score itself. */
static int32_t threshold_of(const kith_screen *screen, const kith_screen_row *row, float best,
                            const kith_screen_bounds *bounds) {
    double need = row->constant - (double)best * row->per_cost - row->per_length * bounds->length_max;
    need -= row->error_rest * (row->error_rest > 0 ? bounds->norm_max : bounds->norm_min);
    need -= row->reach_rest * (row->reach_rest > 0 ? bounds->error_max : bounds->error_min);
    need -= row->tail_rest * (row->tail_rest > 0 ? bounds->tail_max : bounds->tail_min);
    double score = need * screen->inverse_unit - 2 - row->term;
    return score >= INT32_MAX ? INT32_MAX : score <= INT32_MIN ? INT32_MIN : (int32_t)score;
}

/* The same question for one centroid and its score. */
static bool passes(const kith_screen *screen, const kith_screen_row *row, float best, size_t c, int32_t score) {
    double need = row->constant - (double)best * row->per_cost;
    need -= row->per_length * (double)screen->centroid_lengths[c];
    need -= row->error_rest * (double)screen->centroids.norms[c];
    need -= row->reach_rest * (double)screen->centroids.errors[c];
    need -= row->tail_rest * (double)screen->centroid_tails[c];
    return (double)score >= need * screen->inverse_unit - 2 - row->term;
}

static void offer(point_block *block, size_t i, size_t centroid, float own) {
    if (own > block->best[i] || (own == block->best[i] && centroid >= block->best_at[i])) return;
    block->best[i] = own;
    block->best_at[i] = (uint32_t)centroid;
}

static void compare_exactly(const search *work, point_block *block, size_t i, size_t point, waiting *last) {
    const kith_assigner *assigner = work->assigner;
    const void *rows[4];
    float own[4];
    if (last->count == 0) return;
    for (size_t r = 0; r < 4; r++)
        rows[r] = assigner->centroids + last->centroids[r < last->count ? r : 0] * assigner->dim;
    pair_of(work)->four(assigner->points->rows + point * assigner->dim, rows, assigner->dim, own);
    for (size_t r = 0; r < last->count; r++)
        offer(block, i, last->centroids[r], assigner->spherical ? -own[r] : own[r]);
    last->count = 0;
}

/* Whether a centroid may still win that has this integer product with the point over all dimensions. */
static bool may_win(const search *work, const kith_screen_row *row, size_t point, size_t centroid, int32_t product,
                    float best) {
    const kith_screen *full = &work->assigner->full;
    double norm = (double)full->centroids.norms[centroid], error = (double)full->centroids.errors[centroid];
    double score = (double)product * (double)full->points.scale * (double)full->centroids.scale;
    if (!work->assigner->spherical) score -= norm * norm * 0.4999;
    score += (double)full->points.errors[point] * norm;
    score += ((double)full->points.norms[point] + (double)full->points.errors[point]) * error;
    return score >= row->constant - (double)best * row->per_cost - row->per_length * norm;
}

/* Those of the waiting ones that may still win go on to be compared exactly. */
static void compare_bytes(const search *work, point_block *block, size_t i, size_t point, waiting *near,
                          waiting *last) {
    const kith_assigner *assigner = work->assigner;
    const kith_sketch *points = &assigner->full.points, *centroids = &assigner->full.centroids;
    const void *rows[4];
    int32_t products[4];
    if (near->count == 0) return;
    for (size_t r = 0; r < 4; r++)
        rows[r] = (const signed char *)centroids->packed + near->centroids[r < near->count ? r : 0] * assigner->dim;
    work->simd->ints[KITH_OP_IP][KITH_PAIR_I8_I8].four((const signed char *)points->packed + point * assigner->dim,
                                                       rows, assigner->dim, products);
    for (size_t r = 0; r < near->count; r++) {
        if (!may_win(work, &block->rows[i], point, near->centroids[r], products[r], block->best[i])) continue;
        last->centroids[last->count++] = near->centroids[r];
        if (last->count == 4) compare_exactly(work, block, i, point, last);
    }
    near->count = 0;
}

static void search_columns(const search *work, point_block *block, size_t i, size_t point, const int32_t *scores,
                           size_t first, size_t count, const kith_screen_bounds *bounds) {
    const kith_screen *screen = work->screen;
    if (block->best_at[i] == UINT32_MAX) { /* no centroid from before: the block's best guess is a start */
        size_t guess = 0;
        for (size_t c = 1; c < count; c++)
            if (scores[c] > scores[guess]) guess = c;
        offer(block, i, first + guess, cost(work, point, first + guess));
    }
    int32_t score_min = threshold_of(screen, &block->rows[i], block->best[i], bounds);
    size_t survivors = work->simd->filter_i32(scores, count, score_min, block->positions);
    waiting near = {.count = 0}, last = {.count = 0};
    bool has_bytes = screen == &work->assigner->prefix;
    for (size_t s = 0; s < survivors; s++) {
        size_t at = block->positions[s], c = first + at;
        if (c == block->best_at[i]) continue;
        if (!passes(screen, &block->rows[i], block->best[i], c, scores[at])) continue;
        waiting *next = has_bytes ? &near : &last;
        next->centroids[next->count++] = (uint32_t)c;
        if (near.count == 4) compare_bytes(work, block, i, point, &near, &last);
        if (last.count == 4) compare_exactly(work, block, i, point, &last);
    }
    compare_bytes(work, block, i, point, &near, &last);
    compare_exactly(work, block, i, point, &last);
}

/* ---- A block of points through all centroids ---------------------------------------------------------------- */

static point_block lay_out(const kith_assigner *assigner, size_t worker) {
    size_t points = GROUPS * assigner->full.points.lanes;
    point_block block = {.rows = (kith_screen_row *)(void *)(assigner->scratch + worker * assigner->scratch_bytes)};
    block.scores = (int32_t *)(void *)(block.rows + points);
    block.positions = (uint32_t *)(block.scores + assigner->full.points.lanes * KITH_SCREEN_COLUMNS);
    block.best = (float *)(void *)(block.positions + KITH_SCREEN_COLUMNS);
    block.best_at = (uint32_t *)(void *)(block.best + points);
    return block;
}

static void search_block(const search *work, point_block *block, size_t first_point, size_t point_count,
                         size_t number) {
    const kith_screen *screen = work->screen;
    const kith_sketch *points = &screen->points, *centroids = &screen->centroids;
    size_t first = number * screen->columns, k = centroids->count, real = kith_min_size(screen->columns, k - first);
    size_t panels = (real + centroids->lanes - 1) / centroids->lanes;
    for (size_t group = 0; group < point_count; group += points->lanes) {
        size_t present = kith_min_size(points->lanes, point_count - group);
        work->simd->tile_i8.run(points->packed + (first_point + group) * points->words,
                                centroids->packed + first * centroids->words, points->words, panels,
                                screen->bias + first, block->scores, KITH_SCREEN_COLUMNS);
        for (size_t i = 0; i < present; i++)
            search_columns(work, block, group + i, first_point + group + i, block->scores + i * KITH_SCREEN_COLUMNS,
                           first, real, &screen->bounds[number]);
    }
}

static kith_status assign_block(void *context, size_t item, size_t worker) {
    search *work = context;
    const kith_assigner *assigner = work->assigner;
    size_t points = GROUPS * assigner->full.points.lanes, first = item * points;
    size_t count = kith_min_size(points, assigner->points->count - first);
    point_block block = lay_out(assigner, worker);
    for (size_t i = 0; i < count; i++) {
        uint32_t before = work->assigned[first + i];
        block.rows[i] = kith_screen_row_of(work->screen, first + i, assigner->dim, assigner->spherical);
        block.best_at[i] = before;
        block.best[i] = before != UINT32_MAX ? cost(work, first + i, before) : INFINITY;
    }
    for (size_t b = 0; b < work->screen->block_count; b++) search_block(work, &block, first, count, b);
    size_t changed = 0;
    for (size_t i = 0; i < count; i++) changed += work->assigned[first + i] != block.best_at[i];
    memcpy(work->assigned + first, block.best_at, count * sizeof *work->assigned);
    atomic_fetch_add_explicit(&work->changed, changed, memory_order_relaxed);
    return KITH_OK;
}

kith_status kith_assigner_run(kith_assigner *assigner, const float *centroids, uint32_t *assigned,
                              size_t *changed) {
    KITH_TRY(load_centroids(assigner, centroids));
    size_t points = GROUPS * assigner->full.points.lanes;
    search work = {assigner, tile_screen(assigner), kith_simd(), assigned, 0};
    KITH_TRY(
        kith_parallel_for(assigner->threads, (assigner->points->count + points - 1) / points, assign_block, &work));
    if (changed != NULL) *changed = atomic_load(&work.changed);
    return KITH_OK;
}
