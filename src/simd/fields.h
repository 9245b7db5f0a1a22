/* SPDX-License-Identifier: Apache-2.0
 *
 * fields.h: products of 8-bit queries with rows of narrow unsigned fields, a part of the kernel table. Scalar
 * quantisers, RaBitQ and line codes all stand on these.
 *
 * A plane is a row of unsigned fields of `width` 1, 2, 4 or 8 bits, one for each dimension, in 32-bit words. Word w
 * holds 32 / width dimensions from w * 32 / width on; among these, dimension 4 * j + i is the field of bits width * j
 * and on of byte i. So a shift by width * j and a mask leave the four dimensions of step j, one a byte, and they meet
 * four bytes of the query that lie side by side. Fields past the last dimension hold 0.
 *
 * All sums are exact int32: 32,768 dimensions of 255 x 127 stay below 2^31, and so the bits are the same everywhere.
 *
 *   block  `query_count` queries x 32 rows, interleaved: word w of row r at words[w * 32 + r].
 *          queries[q] is in natural order: the byte of dimension d at queries[q][d], word_count * 32 / width bytes,
 *          0 past the last dimension. out[q * 32 + r].
 *   four   one query x four rows anywhere, word w of row r at rows[r][w].
 *          The query is in step order: the four bytes of step j of word w from query[(j * words_padded + w) * 4] on;
 *          words_padded is word_count rounded up to a multiple of 16 (for line_four: word_count + 1), and words past
 *          word_count hold 0.
 *
 * Query bytes are -127..127. Pointers to words need an alignment of 4; no byte outside the operands is read.
 */
#ifndef KITH_SIMD_FIELDS_H
#define KITH_SIMD_FIELDS_H

#include <stddef.h>
#include <stdint.h>

enum { KITH_BLOCK_ROWS = 32, KITH_FIELD_WIDTHS = 4 }; /* width 1 << i at place i of a table */

typedef struct kith_field_kernels {
    void (*block)(const int8_t *const *queries, size_t query_count, const uint32_t *words, size_t word_count,
                  int32_t *out);
    void (*four)(const int8_t *query, const uint32_t *const rows[4], size_t word_count, int32_t out[4]);
} kith_field_kernels;

typedef struct kith_estimate_kernels {
    /* out[i] = base + fma(scale[i], fma(dots[i], unit, offset), add[i]) for i < count, a multiple of 4; each step is
     * rounded once to f32, dots[i] converted first (to nearest even). */
    void (*affine)(const int32_t *dots, const float *add, const float *scale, size_t count, float unit,
                   float offset, float base, float *out);
    /* The same with the factors in f16, whose range is small: they are held in units of `step`, a power of two, and
     * out[i] = fma(step, fma(scale[i], fma(dots[i], unit, offset), add[i]), base). */
    void (*affine_f16)(const int32_t *dots, const uint16_t *add, const uint16_t *scale, size_t count, float unit,
                       float offset, float step, float base, float *out);
    /* The same for a query in two parts: fma(high[i], 128 * unit, fma(low[i], unit, offset)) is the inner term. */
    void (*affine_parts)(const int32_t *high, const int32_t *low, const float *add, const float *scale,
                         size_t count, float unit, float offset, float base, float *out);
    /* fields[log2 width].four and the estimates of affine_f16 at once, for rows whose last word, the one at word_count, holds two
     * f16: add in its lower half, scale in its upper one. word_count does not count it, and the query is padded for
     * word_count + 1 words. */
    void (*line_four[KITH_FIELD_WIDTHS])(const int8_t *query, const uint32_t *const rows[4], size_t word_count,
                                         float unit, float offset, float step, float base, float out[4]);
} kith_estimate_kernels;

/* A query in whole numbers. Values and their products with the factor are finite. */
typedef struct kith_rounding_kernels {
    /* The largest magnitude of `count` values; 0 for none. */
    float (*largest)(const float *values, size_t count);
    /* out[i] = values[i] * factor, rounded to f32, then to the nearest whole number (the even one of two) and held to
     * -127..127. Returns their sum. */
    int32_t (*to_s8)(const float *values, size_t count, float factor, int8_t *out);
    /* The same held to -16,256..16,256, in two parts: 128 * high[i] + low[i] with -64 <= low[i] < 64. */
    int32_t (*to_s15)(const float *values, size_t count, float factor, int8_t *high, int8_t *low);
} kith_rounding_kernels;

#endif
