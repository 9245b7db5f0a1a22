/* SPDX-License-Identifier: Apache-2.0 */
#include "index/convert.h"

#include <math.h>
#include <string.h>

#include "base/elements.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "exact/exact.h"
#include "simd/simd.h"

enum { PIECE = 256 }; /* elements that pass through a buffer on the stack at a time */

/* The address of element `first` of a row. */
static const void *element(const void *row, kith_dtype dtype, size_t first) {
    return (const char *)row + kith_dtype_row_bytes(dtype, first);
}

/* f16 or bf16: returns the first element that becomes infinite, or count. */
static size_t to_half(const float *values, size_t count, kith_dtype dtype, uint16_t *out) {
    const kith_simd_table *simd = kith_simd();
    uint16_t infinity = dtype == KITH_F16 ? 0x7c00 : 0x7f80;
    (dtype == KITH_F16 ? simd->f16_from_f32 : simd->bf16_from_f32)(values, count, out);
    for (size_t i = 0; i < count; i++)
        if ((out[i] & 0x7fff) == infinity && isfinite(values[i])) return i;
    return count;
}

/* Elements first .. first + count - 1 of a row of `dtype`. Returns the first that does not fit, or count. */
static size_t store_piece(const float *values, size_t first, size_t count, kith_dtype dtype, void *row) {
    void *out = (char *)row + kith_dtype_row_bytes(dtype, first);
    if (dtype == KITH_F16 || dtype == KITH_BF16) return to_half(values, count, dtype, out);
    return kith_convert(KITH_F32, values, count, dtype, out);
}

kith_status kith_row_convert(const char *what, size_t number, const void *row, kith_dtype from, kith_dtype to,
                             size_t dim, void *out) {
    if (from == to) {
        memcpy(out, row, kith_dtype_row_bytes(from, dim));
        return KITH_OK;
    }
    float piece[PIECE];
    for (size_t first = 0; first < dim; first += PIECE) {
        size_t count = kith_min_size(PIECE, dim - first);
        kith_exact_to_f32(element(row, from, first), from, count, piece);
        size_t good = store_piece(piece, first, count, to, out);
        if (good < count)
            return kith_error(isfinite(piece[good]) ? KITH_ERR_RANGE : KITH_ERR_NOT_FINITE,
                              "%s: row %zu, column %zu: %.9g cannot be stored as %s", what, number, first + good,
                              (double)piece[good], kith_dtype_name(to));
    }
    return KITH_OK;
}

static const size_t item_bytes = (size_t)256 << 10;

size_t kith_rows_per_item(size_t row_bytes) { return kith_max_size(1, item_bytes / kith_max_size(1, row_bytes)); }

typedef struct check_loop {
    const char *what;
    const kith_view *view;
    kith_dtype dtype;
    kith_metric metric;
    size_t rows_per_item, row_bytes;
    unsigned char *scratch; /* row_bytes per worker */
} check_loop;

static kith_status check_item(void *context, size_t item, size_t worker) {
    const check_loop *loop = context;
    unsigned char *converted = loop->scratch + worker * loop->row_bytes;
    const kith_view stored = {converted, loop->dtype, 1, loop->view->dim, 0};
    size_t first = item * loop->rows_per_item;
    size_t last = kith_min_size(loop->view->count, first + loop->rows_per_item);
    for (size_t r = first; r < last; r++) {
        KITH_TRY(kith_row_convert(loop->what, r, kith_view_row(loop->view, r), loop->view->dtype, loop->dtype,
                                  loop->view->dim, converted));
        KITH_TRY(kith_check_vectors(loop->what, &stored, r, loop->metric, 1));
    }
    return KITH_OK;
}

kith_status kith_check_storable(const char *what, const kith_view *view, kith_dtype dtype, kith_metric metric,
                                size_t threads, uint64_t memory_bytes_max) {
    if (view->dtype == dtype) return kith_check_vectors(what, view, 0, metric, threads);
    size_t row_bytes = kith_dtype_row_bytes(dtype, view->dim);
    check_loop loop = {
        .what = what,
        .view = view,
        .dtype = dtype,
        .metric = metric,
        .rows_per_item = kith_rows_per_item(row_bytes),
        .row_bytes = kith_round_up(row_bytes, KITH_ALIGNMENT),
    };
    size_t items = (view->count - 1) / loop.rows_per_item + 1;
    size_t workers = kith_min_size(threads, items);
    if (memory_bytes_max != 0 && workers * loop.row_bytes > memory_bytes_max)
        return kith_error(KITH_ERR_BUDGET, "%s: converting on %zu threads needs %zu bytes, the budget is %llu",
                          what, workers, workers * loop.row_bytes, (unsigned long long)memory_bytes_max);
    KITH_TRY(kith_alloc(workers, loop.row_bytes, &loop.scratch));
    kith_status status = kith_parallel_for(workers, items, check_item, &loop);
    kith_free(loop.scratch);
    return status;
}
