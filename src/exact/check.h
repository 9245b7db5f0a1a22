/* SPDX-License-Identifier: Apache-2.0
 *
 * check.h: what every set of vectors has to pass before it is searched, searched for or stored.
 */
#ifndef KITH_EXACT_CHECK_H
#define KITH_EXACT_CHECK_H

#include "kith/types.h"

/* Bytes from one row to the next: view->stride, or the packed row when that is 0. */
static inline size_t kith_view_stride(const kith_view *view) {
    return view->stride != 0 ? view->stride : kith_dtype_row_bytes(view->dtype, view->dim);
}

/* The view's fields: an element type of an index (f32, f16, bf16, i8, u8), a dimension of 1..KITH_DIM_MAX, a stride
 * of at least a row, aligned data, at least one row, a size that does not wrap. `what` names the view in messages.
 * KITH_ERR_ARGUMENT, _TYPE, _OVERFLOW, _EMPTY. */
kith_status kith_check_view(const char *what, const kith_view *view);

/* The same, and a dimension of `dim`: KITH_ERR_DIMENSION. */
kith_status kith_check_view_dim(const char *what, const kith_view *view, size_t dim);

/* The elements of a view that has passed kith_check_view: KITH_ERR_NOT_FINITE names row and column of the first NaN
 * or infinity, KITH_ERR_RANGE the row whose squared norm passes KITH_NORM2_MAX, KITH_ERR_ZERO_VECTOR under cosine
 * the row whose squared norm is below FLT_MIN. Rows are counted from `first_row` in messages. The first bad row is
 * named at any thread count. */
kith_status kith_check_vectors(const char *what, const kith_view *view, size_t first_row, kith_metric metric,
                               size_t threads);

#endif
