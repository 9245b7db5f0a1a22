/* SPDX-License-Identifier: Apache-2.0 */
#include "exact/check.h"

#include <float.h>
#include <math.h>
#include <stdint.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "exact/exact.h"

enum { BLOCK_ROWS = 1024 };

static size_t element_bytes(kith_dtype dtype) {
    switch (dtype) {
        case KITH_F32: return 4;
        case KITH_F16:
        case KITH_BF16: return 2;
        case KITH_I8:
        case KITH_U8: return 1;
        default: return 0;
    }
}

kith_status kith_check_view(const char *what, const kith_view *view) {
    size_t each = element_bytes(view->dtype), bytes;
    if (each == 0)
        return kith_error(KITH_ERR_TYPE, "%s: element type %s; an index takes f32, f16, bf16, i8, u8", what,
                          kith_dtype_name(view->dtype));
    if (view->dim < 1 || view->dim > KITH_DIM_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "%s: dimension %zu is outside 1..%d", what, view->dim, KITH_DIM_MAX);
    if (view->count == 0) return kith_error(KITH_ERR_EMPTY, "%s: no vectors", what);
    size_t stride = kith_view_stride(view);
    if (stride < view->dim * each || stride % each != 0)
        return kith_error(KITH_ERR_ARGUMENT, "%s: stride %zu does not suit rows of %zu bytes", what, stride,
                          view->dim * each);
    if (view->data == NULL) return kith_error(KITH_ERR_ARGUMENT, "%s: data is NULL", what);
    if ((uintptr_t)view->data % each != 0)
        return kith_error(KITH_ERR_ARGUMENT, "%s: data is not aligned to its %zu-byte elements", what, each);
    if (kith_mul_overflows(view->count, stride, &bytes) || bytes > PTRDIFF_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "%s: %zu rows of %zu bytes", what, view->count, stride);
    return KITH_OK;
}

kith_status kith_check_view_dim(const char *what, const kith_view *view, size_t dim) {
    KITH_TRY(kith_check_view(what, view));
    if (view->dim != dim)
        return kith_error(KITH_ERR_DIMENSION, "%s: dimension %zu, expected %zu", what, view->dim, dim);
    return KITH_OK;
}

typedef struct check_loop {
    const char *what;
    const kith_view *view;
    size_t first_row, stride;
    kith_metric metric;
} check_loop;

/* Says what is wrong with a row whose squared norm is not a number up to KITH_NORM2_MAX. */
static kith_status refuse_row(const check_loop *loop, const void *row, size_t number, float row_norm2) {
    size_t each = element_bytes(loop->view->dtype);
    for (size_t column = 0; column < loop->view->dim; column++) {
        float value;
        kith_exact_to_f32((const char *)row + column * each, loop->view->dtype, 1, &value);
        if (!isfinite(value))
            return kith_error(KITH_ERR_NOT_FINITE, "%s: row %zu, column %zu is %g", loop->what, number, column,
                              (double)value);
    }
    return kith_error(KITH_ERR_RANGE, "%s: row %zu has the squared norm %g, more than %g", loop->what, number,
                      (double)row_norm2, (double)KITH_NORM2_MAX);
}

static kith_status check_block(void *context, size_t item, size_t worker) {
    const check_loop *loop = context;
    (void)worker;
    size_t first = item * BLOCK_ROWS, last = kith_min_size(first + BLOCK_ROWS, loop->view->count);
    for (size_t i = first; i < last; i++) {
        const void *row = (const char *)loop->view->data + i * loop->stride;
        float row_norm2 = kith_exact_norm2(row, loop->view->dtype, loop->view->dim);
        if (!(row_norm2 <= KITH_NORM2_MAX)) return refuse_row(loop, row, loop->first_row + i, row_norm2);
        if (row_norm2 < FLT_MIN && loop->metric == KITH_COSINE)
            return kith_error(KITH_ERR_ZERO_VECTOR, "%s: row %zu has the squared norm %g, cosine needs a direction",
                              loop->what, loop->first_row + i, (double)row_norm2);
    }
    return KITH_OK;
}

kith_status kith_check_vectors(const char *what, const kith_view *view, size_t first_row, kith_metric metric,
                               size_t threads) {
    bool is_integer = view->dtype == KITH_I8 || view->dtype == KITH_U8;
    if (is_integer && metric != KITH_COSINE) return KITH_OK;
    check_loop loop = {what, view, first_row, kith_view_stride(view), metric};
    size_t block_count = view->count / BLOCK_ROWS + (view->count % BLOCK_ROWS != 0);
    return kith_parallel_for(threads, block_count, check_block, &loop);
}
