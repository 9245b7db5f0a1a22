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

enum { ROWS_FEW = 64, ROWS_MAX = 1 << 16, CONVERT_ROWS = 256 };
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

/* Rows that go through at once, and what a row costs: its f32, its sketch, and what goes with it. */
static kith_status plan_block(const kith_view *view, size_t list_count, uint64_t bytes_max, size_t *rows) {
    size_t each = view->dim * (sizeof(float) + 2) + 64, fixed = list_count * (view->dim * 2 + 64);
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
static kith_status assign_rows(const float *rows, size_t count, size_t dim, bool spherical, const float *centroids,
                               size_t list_count, size_t threads, uint32_t *assigned) {
    if (count < ROWS_FEW) {
        kith_job job;
        kith_job_init(&job);
        job.threads = threads;
        kith_view view = {.data = rows, .dtype = KITH_F32, .count = count, .dim = dim};
        return kith_kmeans_assign(&view, centroids, list_count, spherical, &job, assigned, NULL);
    }
    kith_points points = {.rows = rows, .count = count, .dim = dim};
    kith_assigner assigner;
    KITH_TRY(kith_assigner_create(&assigner, &points, list_count, spherical, threads));
    memset(assigned, 0xff, count * sizeof *assigned);
    kith_status status = kith_assigner_run(&assigner, centroids, assigned, NULL);
    kith_assigner_free(&assigner);
    return status;
}

kith_status kith_ivf_assign(const kith_view *view, kith_metric metric, const float *centroids, size_t list_count,
                            size_t threads, uint64_t bytes_max, kith_meter *meter, uint32_t *assigned) {
    if (list_count == 1) {
        memset(assigned, 0, view->count * sizeof *assigned);
        return meter != NULL ? kith_meter_add(meter, view->count) : KITH_OK;
    }
    size_t dim = view->dim, block;
    KITH_TRY(plan_block(view, list_count, bytes_max, &block));
    bool in_place = view->dtype == KITH_F32 && view->stride == dim * sizeof(float) && metric != KITH_COSINE;
    float *converted = NULL;
    if (!in_place) KITH_TRY(kith_alloc(block, dim * sizeof *converted, &converted));
    kith_status status = KITH_OK;
    for (size_t first = 0; first < view->count; first += block) {
        size_t count = kith_min_size(block, view->count - first);
        const float *rows = in_place ? (const float *)view->data + first * dim : converted;
        convert_loop loop = {view, metric, first, count, converted};
        if (!in_place) KITH_GO(kith_parallel_for(threads, (count - 1) / CONVERT_ROWS + 1, convert_item, &loop));
        KITH_GO(assign_rows(rows, count, dim, metric != KITH_L2, centroids, list_count, threads, assigned + first));
        if (meter != NULL) KITH_GO(kith_meter_add(meter, count));
    }
done:
    kith_free(converted);
    return status;
}
