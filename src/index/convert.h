/* SPDX-License-Identifier: Apache-2.0
 *
 * convert.h: vectors that are to be stored as another element type than they come in.
 */
#ifndef KITH_INDEX_CONVERT_H
#define KITH_INDEX_CONVERT_H

#include "exact/check.h"

/* The address of a row of a view whose stride is set. */
static inline const void *kith_view_row(const kith_view *view, size_t row) {
    return (const char *)view->data + row * view->stride;
}

/* Converts one row: exactly, or rounded to nearest even for f16 and bf16. A value that `to` cannot hold (an integer
 * type: exactly; f16: without becoming infinite) is KITH_ERR_RANGE; a NaN or infinity KITH_ERR_NOT_FINITE where the
 * type has none. `number` names the row in messages. */
kith_status kith_row_convert(const char *what, size_t number, const void *row, kith_dtype from, kith_dtype to,
                             size_t dim, void *out);

/* Checks that every row of a view (kith_check_view, stride set) can be stored as `dtype`, and what would be
 * stored, as kith_check_vectors does. Allocates a row per thread when the type changes: KITH_ERR_BUDGET when that
 * passes memory_bytes_max (0: no limit). The first bad row is named. */
kith_status kith_check_storable(const char *what, const kith_view *view, kith_dtype dtype, kith_metric metric,
                                size_t threads, uint64_t memory_bytes_max);

/* How many rows of `row_bytes` make one item of a parallel loop: about 256 KiB of them, at least one. */
size_t kith_rows_per_item(size_t row_bytes);

#endif
