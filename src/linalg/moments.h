/* SPDX-License-Identifier: Apache-2.0
 *
 * moments.h: means and products X^T Y of many vectors, in f64, the same bits at any thread count.
 */
#ifndef KITH_LINALG_MOMENTS_H
#define KITH_LINALG_MOMENTS_H

#include "base/parallel.h"
#include "linalg/decompose.h"

/* A part of a set of vectors, one row out of each of `count` equal stretches of it, in rising order; all rows when
 * count is the view's. */
typedef struct kith_sample {
    kith_view view;
    size_t stride; /* bytes, of the view */
    size_t count;
    uint64_t seed;
} kith_sample;

/* At most `count_max` rows of a checked view (0: all). */
kith_sample kith_sample_of(const kith_view *view, size_t count_max, uint64_t seed);
/* The row of the view that is number i of the sample. */
size_t kith_sample_row(const kith_sample *sample, size_t i);
/* Rows first .. first + count - 1 of the sample as packed f32. */
void kith_sample_read(const kith_sample *sample, size_t first, size_t count, float *out);
/* The same by many threads. */
kith_status kith_sample_read_all(const kith_sample *sample, size_t first, size_t count, size_t threads, float *out);

/* The mean in f64, and the largest magnitude of any element less its mean, at most twice too large. */
kith_status kith_sample_mean(const kith_sample *sample, size_t threads, double *mean, double *spread);

/* One side of a product of moments: rows less `shift` (NULL: nothing), times `scale`, a power of two. */
typedef struct kith_moment_side {
    kith_sample sample;
    const float *shift;
    float scale;
} kith_moment_side;

/* out (x's dim rows, of the stride of y's dim) = X^T Y / (x.scale * y.scale), summed over all rows; y may be NULL for
 * Y = X. The elements times their scale should be at most about 2^20, so that no product overflows.
 * Products of 512 rows are summed in f32 by the tile kernel, these sums in f64 in order. `meter` (or NULL) counts
 * rows. */
kith_status kith_moments(const kith_moment_side *x, const kith_moment_side *y, size_t threads, kith_meter *meter,
                         double *out);
/* Bytes that kith_moments takes for itself, near enough. */
size_t kith_moments_bytes(size_t dim_x, size_t dim_y);

/* The power of two that brings elements of this magnitude to 1..2, within the range of f32; 1 for 0. */
float kith_scale_of(double spread);

#endif
