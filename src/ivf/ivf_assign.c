/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_assign.c: the lists that vectors go to. Rows come in blocks, so that scratch memory is bounded; each block goes
 * through the assigner of k-means, whose 8-bit product and bound leave few exact distances to compute. A few rows are
 * not worth its preparation and are compared exactly: the result is the same.
 */
#include <string.h>

#include "base/error.h"
#include "index/convert.h"
#include "ivf/ivf_inside.h"
#include "kmeans/kmeans_inside.h"
#include "simd/simd.h"

enum {
    ROWS_FEW = 64,
    ROWS_MAX = 1 << 16,
    CONVERT_ROWS = 256,
    ASKED = 8 /* centroids that an index of them finds for a row, of which the nearest is taken */
};
static const size_t block_bytes_max = (size_t)64 << 20;

void kith_ivf_row(kith_metric metric, const kith_view *view, size_t row, float *out) {
    const void *from = kith_view_row(view, row);
    kith_exact_to_f32(from, view->dtype, view->dim, out);
    if (metric != KITH_COSINE) return;
    float inverse = kith_exact_inverse_norm(from, view->dtype, view->dim);
    for (size_t d = 0; d < view->dim; d++) out[d] *= inverse;
}

typedef struct convert_loop {
    const kith_view *view;
    kith_metric metric;
    size_t first, count;
    float *out;
} convert_loop;

static kith_status convert_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const convert_loop *loop = context;
    size_t first = item * CONVERT_ROWS, last = kith_min_size(first + CONVERT_ROWS, loop->count);
    for (size_t i = first; i < last; i++)
        kith_ivf_row(loop->metric, loop->view, loop->first + i, loop->out + i * loop->view->dim);
    return KITH_OK;
}

/* ---- Through an index of the centroids ------------------------------------------------------------------------- */

typedef struct choose_loop {
    const float *rows;
    const kith_centroids *centroids;
    size_t count, dim;
    bool by_product;
    const int64_t *ids; /* count x ASKED */
    const size_t *found;
    size_t asked;
    uint32_t *assigned;
} choose_loop;

/* The nearest of the centroids that the index has found for each row, by their exact distances. */
static kith_status choose_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const choose_loop *loop = context;
    const kith_float_kernels *pair =
        &kith_simd()->floats[loop->by_product ? KITH_OP_IP : KITH_OP_L2SQ][KITH_PAIR_F32_F32];
    size_t first = item * CONVERT_ROWS, last = kith_min_size(first + CONVERT_ROWS, loop->count);
    for (size_t i = first; i < last; i++) {
        const int64_t *ids = loop->ids + i * loop->asked;
        kith_hit best = {.id = INT64_MAX, .key = INT32_MAX};
        if (loop->found[i] == 0) return kith_error(KITH_ERR_INTERNAL, "the index of centroids has found none");
        for (size_t c = 0; c < loop->found[i]; c += 4) {
            const void *four[4];
            float distances[4];
            for (size_t r = 0; r < 4; r++)
                four[r] = loop->centroids->rows + (size_t)ids[kith_min_size(c + r, loop->found[i] - 1)] * loop->dim;
            pair->four(loop->rows + i * loop->dim, four, loop->dim, distances);
            for (size_t r = 0; r < 4 && c + r < loop->found[i]; r++) {
                kith_hit hit = {.id = ids[c + r],
                                .key = kith_key_f32(loop->by_product ? -distances[r] : distances[r])};
                if (kith_hit_before(&hit, &best)) best = hit;
            }
        }
        loop->assigned[i] = (uint32_t)best.id;
    }
    return KITH_OK;
}

static kith_status assign_by_index(const float *rows, size_t count, size_t dim, bool by_product,
                                   const kith_centroids *centroids, size_t threads, uint32_t *assigned) {
    size_t asked = kith_min_size(ASKED, centroids->count), *found = NULL;
    int64_t *ids = NULL;
    const kith_view view = {.data = rows, .dtype = KITH_F32, .count = count, .dim = dim};
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = threads;
    kith_status status;
    KITH_GO(kith_alloc(count, asked * sizeof *ids, &ids));
    KITH_GO(kith_alloc(count, sizeof *found, &found));
    KITH_GO(kith_index_search(centroids->index, &view, asked, &params, ids, NULL, found));
    choose_loop loop = {rows, centroids, count, dim, by_product, ids, found, asked, assigned};
    KITH_GO(kith_parallel_for(threads, (count - 1) / CONVERT_ROWS + 1, choose_item, &loop));
done:
    kith_free(found);
    kith_free(ids);
    return status;
}

/* ---- All rows --------------------------------------------------------------------------------------------------- */

/* Rows that go through at once, and what a row costs: its f32, its sketch, and what goes with it. */
static kith_status plan_block(const kith_view *view, size_t list_count, uint64_t bytes_max, size_t *rows) {
    size_t each = view->dim * (sizeof(float) + 2) + 64 + (ASKED + 1) * sizeof(int64_t),
           fixed = list_count * (view->dim * 2 + 64);
    *rows = kith_min_size(ROWS_MAX, kith_max_size(CONVERT_ROWS, block_bytes_max / each));
    *rows = kith_min_size(*rows, view->count);
    if (bytes_max == 0) return KITH_OK;
    size_t least = kith_min_size(*rows, CONVERT_ROWS) * each + fixed;
    if (least > bytes_max)
        return kith_error(KITH_ERR_BUDGET, "assigning to %zu lists needs %zu bytes, the budget leaves %llu",
                          list_count, least, (unsigned long long)bytes_max);
    *rows = kith_min_size(*rows, (size_t)((bytes_max - fixed) / each));
    return KITH_OK;
}

/* Assigns packed rows of f32. */
static kith_status assign_rows(const float *rows, size_t count, size_t dim, bool spherical,
                               const kith_centroids *centroids, size_t threads, uint32_t *assigned) {
    if (centroids->index != NULL) return assign_by_index(rows, count, dim, spherical, centroids, threads, assigned);
    if (count < ROWS_FEW) {
        kith_job job;
        kith_job_init(&job);
        job.threads = threads;
        kith_view view = {.data = rows, .dtype = KITH_F32, .count = count, .dim = dim};
        return kith_kmeans_assign(&view, centroids->rows, centroids->count, spherical, &job, assigned, NULL);
    }
    kith_points points = {.rows = rows, .count = count, .dim = dim};
    kith_assigner assigner;
    KITH_TRY(kith_assigner_create(&assigner, &points, centroids->count, spherical, threads));
    memset(assigned, 0xff, count * sizeof *assigned);
    kith_status status = kith_assigner_run(&assigner, centroids->rows, assigned, NULL);
    kith_assigner_free(&assigner);
    return status;
}

kith_status kith_ivf_assign(const kith_view *view, kith_metric metric, const kith_centroids *centroids,
                            size_t threads, uint64_t bytes_max, kith_meter *meter, uint32_t *assigned) {
    if (centroids->count == 1) {
        memset(assigned, 0, view->count * sizeof *assigned);
        return meter != NULL ? kith_meter_add(meter, view->count) : KITH_OK;
    }
    size_t dim = view->dim, block;
    KITH_TRY(plan_block(view, centroids->count, bytes_max, &block));
    bool in_place = view->dtype == KITH_F32 && view->stride == dim * sizeof(float) && metric != KITH_COSINE;
    float *converted = NULL;
    if (!in_place) KITH_TRY(kith_alloc(block, dim * sizeof *converted, &converted));
    kith_status status = KITH_OK;
    for (size_t first = 0; first < view->count; first += block) {
        size_t count = kith_min_size(block, view->count - first);
        const float *rows = in_place ? (const float *)view->data + first * dim : converted;
        convert_loop loop = {view, metric, first, count, converted};
        if (!in_place) KITH_GO(kith_parallel_for(threads, (count - 1) / CONVERT_ROWS + 1, convert_item, &loop));
        KITH_GO(assign_rows(rows, count, dim, metric != KITH_L2, centroids, threads, assigned + first));
        if (meter != NULL) KITH_GO(kith_meter_add(meter, count));
    }
done:
    kith_free(converted);
    return status;
}

/* ---- A second list ---------------------------------------------------------------------------------------------- */

enum { SPILL_ROWS = 4096, SPILL_ASKED = 16 }; /* rows at once, and centroids near a row that are tried */

typedef struct spill_loop {
    const kith_view *view;
    kith_metric metric;
    const kith_centroids *centroids;
    const uint32_t *assigned;
    size_t first, count, asked;
    float *rows;      /* count x dim */
    float *residuals; /* of each worker */
    int64_t *near;    /* count x asked */
    size_t *found;    /* count */
    uint32_t *spilled;
} spill_loop;

/* What a second copy in a list costs: |x - c|^2 and the square of its part along r, the residual in the first list. */
static float spill_loss(const float *row, const float *centroid, const float *residual, float product, float square,
                        size_t dim) {
    const kith_simd_table *simd = kith_simd();
    float distance = simd->floats[KITH_OP_L2SQ][KITH_PAIR_F32_F32].one(row, centroid, dim);
    if (!(square > 0)) return distance;
    float along = product - simd->floats[KITH_OP_IP][KITH_PAIR_F32_F32].one(residual, centroid, dim);
    return distance + along * along / square;
}

static kith_status spill_item(void *context, size_t item, size_t worker) {
    const spill_loop *loop = context;
    const kith_float_kernels *ip = &kith_simd()->floats[KITH_OP_IP][KITH_PAIR_F32_F32];
    size_t dim = loop->view->dim, first = item * CONVERT_ROWS,
           last = kith_min_size(first + CONVERT_ROWS, loop->count);
    float *residual = loop->residuals + worker * dim;
    for (size_t i = first; i < last; i++) {
        const float *row = loop->rows + i * dim;
        uint32_t own = loop->assigned[loop->first + i];
        const float *centroid = loop->centroids->rows + own * dim;
        for (size_t d = 0; d < dim; d++) residual[d] = row[d] - centroid[d];
        float square = ip->one(residual, residual, dim), product = ip->one(row, residual, dim);
        kith_hit best = {.id = own == 0 ? 1 : 0, .key = INT32_MAX}; /* when an index finds no other */
        for (size_t c = 0; c < loop->found[i]; c++) {
            int64_t id = loop->near[i * loop->asked + c];
            if (id == own) continue;
            float loss = spill_loss(row, loop->centroids->rows + (size_t)id * dim, residual, product, square, dim);
            kith_hit hit = {.id = id, .key = kith_key_f32(loss)};
            if (kith_hit_before(&hit, &best)) best = hit;
        }
        loop->spilled[loop->first + i] = (uint32_t)best.id;
    }
    return KITH_OK;
}

/* The centroids near the loop's rows, by their index or all compared. */
static kith_status find_near(const spill_loop *loop, size_t threads, kith_arena *arena, kith_hit *hits) {
    const kith_centroids *centroids = loop->centroids;
    const kith_view rows = {loop->rows, KITH_F32, loop->count, loop->view->dim,
                            loop->view->dim * sizeof *loop->rows};
    if (centroids->index != NULL) {
        kith_search_params params;
        kith_search_params_init(&params);
        params.threads = threads;
        return kith_index_search(centroids->index, &rows, loop->asked, &params, loop->near, NULL, loop->found);
    }
    const kith_exact_request request = {
        .queries = rows, .metric = KITH_L2, .row_dtype = KITH_F32, .threads = threads, .arena = arena};
    const kith_rows all = {.dtype = KITH_F32,
                           .dim = rows.dim,
                           .count = centroids->count,
                           .base = centroids->rows,
                           .stride = rows.stride};
    kith_exact *exact;
    kith_topk *tops;
    size_t capacity = kith_topk_capacity(loop->asked);
    KITH_TRY(kith_arena_begin(arena));
    KITH_TRY(kith_arena_take(arena, loop->count, sizeof *tops, &tops));
    for (size_t i = 0; i < loop->count; i++) kith_topk_init(&tops[i], hits + i * capacity, loop->asked);
    KITH_TRY(kith_exact_open(&request, &exact));
    KITH_TRY(kith_exact_topk(exact, &all, tops));
    for (size_t i = 0; i < loop->count; i++) {
        kith_topk_finish(&tops[i]);
        loop->found[i] = tops[i].count;
        for (size_t c = 0; c < tops[i].count; c++) loop->near[i * loop->asked + c] = tops[i].hits[c].id;
    }
    return KITH_OK;
}

/* Rows at once: with their f32, which exact search packs once more, and the hits of each. */
static kith_status plan_spill(const kith_view *view, size_t asked, size_t threads, uint64_t bytes_max,
                              size_t *rows) {
    size_t each = 2 * view->dim * sizeof(float) + asked * sizeof(int64_t) +
                  kith_topk_capacity(asked) * sizeof(kith_hit) + sizeof(kith_topk) + sizeof(size_t);
    size_t fixed = threads * view->dim * sizeof(float);
    *rows = kith_min_size(SPILL_ROWS, view->count);
    if (bytes_max == 0) return KITH_OK;
    size_t least = kith_min_size(*rows, CONVERT_ROWS) * each + fixed;
    if (least > bytes_max)
        return kith_error(KITH_ERR_BUDGET, "finding second lists needs %zu bytes, the budget leaves %llu", least,
                          (unsigned long long)bytes_max);
    *rows = kith_min_size(*rows, (size_t)((bytes_max - fixed) / each));
    return KITH_OK;
}

kith_status kith_ivf_spill(const kith_view *view, kith_metric metric, const kith_centroids *centroids,
                           const uint32_t *assigned, size_t threads, uint64_t bytes_max, uint32_t *spilled) {
    size_t block, asked = kith_min_size(SPILL_ASKED, centroids->count);
    KITH_TRY(plan_spill(view, asked, threads, bytes_max, &block));
    spill_loop loop = {.view = view,
                       .metric = metric,
                       .centroids = centroids,
                       .assigned = assigned,
                       .asked = asked,
                       .spilled = spilled};
    kith_arena arena = {0};
    kith_hit *hits = NULL;
    kith_status status;
    KITH_GO(kith_alloc(block, view->dim * sizeof *loop.rows, &loop.rows));
    KITH_GO(kith_alloc(threads, view->dim * sizeof *loop.residuals, &loop.residuals));
    KITH_GO(kith_alloc(block, asked * sizeof *loop.near, &loop.near));
    KITH_GO(kith_alloc(block, sizeof *loop.found, &loop.found));
    KITH_GO(kith_alloc(block, kith_topk_capacity(asked) * sizeof *hits, &hits));
    for (loop.first = 0; loop.first < view->count; loop.first += block) {
        loop.count = kith_min_size(block, view->count - loop.first);
        size_t items = (loop.count - 1) / CONVERT_ROWS + 1;
        convert_loop convert = {view, metric, loop.first, loop.count, loop.rows};
        KITH_GO(kith_parallel_for(threads, items, convert_item, &convert));
        KITH_GO(find_near(&loop, threads, &arena, hits));
        KITH_GO(kith_parallel_for(threads, items, spill_item, &loop));
    }
done:
    kith_arena_free(&arena);
    kith_free(hits);
    kith_free(loop.found);
    kith_free(loop.near);
    kith_free(loop.residuals);
    kith_free(loop.rows);
    return status;
}
