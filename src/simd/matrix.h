/* SPDX-License-Identifier: Apache-2.0
 *
 * matrix.h: the kernels that linear transforms stand on, a part of the kernel table.
 *
 * All but panels_one are element-wise additions and multiplications without fused steps, or sums in the order
 * that is given; so they are the same bits on every ISA.
 *
 * A strip is 32 columns of a matrix in f64, row after row: element (r, c) at strip[r * 32 + c]. What happens to a
 * strip depends on that strip alone, so a matrix in strips is worked on by any number of threads.
 */
#ifndef KITH_SIMD_MATRIX_H
#define KITH_SIMD_MATRIX_H

#include <stddef.h>
#include <stdint.h>

enum { KITH_STRIP = 32, KITH_GRID_STEPS = 4, KITH_GRID_LANES = 16 };

typedef struct kith_matrix_kernels {
    /* The Walsh-Hadamard transform in place, without its factor 1 / sqrt(count): stages of distance 1, 2, 4, ...,
     * each (a, b) -> (a + b, a - b). count is a power of two, at least 64. */
    void (*hadamard)(float *vector, size_t count);
    /* vector[i] *= scale, negated where bit i of signs is set. count is a multiple of 32. */
    void (*flip)(float *vector, const uint32_t *signs, float scale, size_t count);
    /* (vector[i], vector[half + i]) -> ((a + b) * scale, (a - b) * scale). half is a multiple of 32. */
    void (*butterfly)(float *vector, size_t half, float scale);
    /* One vector times packed rows, as tile_f32 packs them: out[r] = <vector, row r>, the same bits as the tile's
     * with a bias of 0. `lanes` is the tile's row_lanes, a multiple of 8
     * (AVX-512: of 16); out has row_panels * lanes entries. */
    void (*panels_one)(const float *vector, const float *rows, size_t words, size_t lanes, size_t row_panels,
                       float *out);

    /* The position of the largest of `count` values, the first of equals; 0 for none. No value is NaN. */
    size_t (*largest)(const float *values, size_t count);
    /* A value that at least k of `count` values do not pass, and often not many more: found by halving the range of
     * 256 columns' least values. Infinity where k is 0, above count or above 256. No value is NaN. */
    float (*bound)(const float *values, size_t count, size_t k);
    /* A value that at least k of `count` whole numbers reach, and often not many more: found by halving the range of 64
     * columns' greatest values. INT32_MIN where k is 0, above count or above 64. */
    int32_t (*bound_i32)(const int32_t *values, size_t count, size_t k);

    /* A vector on a grid of numbers 0..levels: number i is u = floor(vector[i] * inverse + (levels + 1) / 2), cut to
     * 0..levels, and stands for x = u - levels / 2. For each of four values of `inverse`: the sums of x * vector[i] and
     * of x * x. Element i goes to partial sum i mod 16, these are added in halves. count is a multiple of 16; every
     * product vector[i] * inverse is below 2^30. */
    void (*grid_sums)(const float *vector, size_t count, const float inverses[KITH_GRID_STEPS], float levels,
                      float products[KITH_GRID_STEPS], float norms[KITH_GRID_STEPS]);
    /* The numbers themselves; levels <= 255. */
    void (*grid_numbers)(const float *vector, size_t count, float inverse, float levels, uint8_t *numbers);

    /* sums[i] += values[i]. */
    void (*accumulate)(double *sums, const float *values, size_t count);
    /* row[j] -= a * x[j] + b * y[j]; returns the sum of row[j] * v[j] afterwards: element j goes to partial sum
     * j mod 32, these are added in halves. count is a multiple of 32. */
    double (*update_dot)(double *row, double a, const double *x, double b, const double *y, const double *v,
                         size_t count);
    /* Applies the reflection I - tau * v * v^T from the left to a strip of `rows` rows. */
    void (*strip_reflect)(double *strip, size_t rows, const double *v, double tau);
    /* For i = count - 1 down to 0: (row i, row i + 1) -> (c[i] * row i - s[i] * row i + 1,
     * s[i] * row i + c[i] * row i + 1). */
    void (*strip_rotate)(double *strip, const double *c, const double *s, size_t count);
    /* out = a * strip, a of `rows` x `depth` with rows `stride` elements apart; terms are added in order of depth. */
    void (*strip_multiply)(const double *a, size_t stride, size_t rows, size_t depth, const double *strip,
                           double *out);
} kith_matrix_kernels;

#endif
