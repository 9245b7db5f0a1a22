/* SPDX-License-Identifier: Apache-2.0
 *
 * exact_queries.c: the queries of a call as f32.
 */
#include "base/error.h"
#include "base/parallel.h"
#include "exact/check.h"
#include "exact/exact.h"

enum { ROWS_PER_ITEM = 64 };

typedef struct convert_loop {
    const kith_view *view;
    bool to_unit;
    float *out;
} convert_loop;

static kith_status convert_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const convert_loop *loop = context;
    size_t dim = loop->view->dim, first = item * ROWS_PER_ITEM;
    for (size_t q = first; q < kith_min_size(loop->view->count, first + ROWS_PER_ITEM); q++) {
        float *row = loop->out + q * dim;
        const char *from = (const char *)loop->view->data + q * kith_view_stride(loop->view);
        kith_exact_to_f32(from, loop->view->dtype, dim, row);
        if (!loop->to_unit) continue;
        float inverse = kith_exact_inverse_norm(row, KITH_F32, dim);
        for (size_t d = 0; d < dim; d++) row[d] *= inverse;
    }
    return KITH_OK;
}

kith_status kith_exact_queries(const kith_view *view, bool to_unit, size_t threads, kith_arena *arena,
                               const float **out) {
    convert_loop loop = {.view = view, .to_unit = to_unit};
    size_t row_bytes;
    *out = NULL;
    if (kith_mul_overflows(view->dim, sizeof **out, &row_bytes)) row_bytes = SIZE_MAX;
    if (!to_unit && view->dtype == KITH_F32 && kith_view_stride(view) == row_bytes) {
        *out = view->data;
        return KITH_OK;
    }
    KITH_TRY(kith_arena_take(arena, view->count, row_bytes, &loop.out));
    KITH_TRY(kith_parallel_for(threads, (view->count - 1) / ROWS_PER_ITEM + 1, convert_item, &loop));
    *out = loop.out;
    return KITH_OK;
}
