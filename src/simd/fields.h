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
 *          0 past the last dimension. out[q * 32 + r]. `ahead`: as many words that will be read soon, of this block
 *          or another, which are fetched from memory meanwhile; or NULL.
 *   four   one query x four rows anywhere, word w of row r at rows[r][w].
 *          The query is in step order: the four bytes of step j of word w from query[(j * words_padded + w) * 4] on;
 *          words_padded is word_count rounded up to a multiple of 16 (for lines: word_count + 1), and words past
 *          word_count hold 0.
 *
 * Query bytes are -127..127. Pointers to words need an alignment of 4; no byte outside the operands is read.
 */
#ifndef KITH_SIMD_FIELDS_H
#define KITH_SIMD_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KITH_BLOCK_ROWS = 32, KITH_FIELD_WIDTHS = 4 }; /* width 1 << i at place i of a table */

typedef struct kith_field_kernels {
    void (*block)(const int8_t *const *queries, size_t query_count, const uint32_t *words, size_t word_count,
                  const uint32_t *ahead, int32_t *out);
    void (*four)(const int8_t *query, const uint32_t *const rows[4], size_t word_count, int32_t out[4]);
} kith_field_kernels;

/* Where two products of bytes are added in 16 bits, a query for fields of 8 bits can be `split` once, into numbers that
 * never overflow there, and then be asked for of many blocks: `block` is fields[3].block for split queries, and
 * faster. Both NULL: fields[3].block needs none of this. At most 65,536 words. */
typedef struct kith_split_kernels {
    void (*split)(const int8_t *query, size_t word_count, int8_t *out); /* kith_split_bytes(word_count) */
    void (*block)(const int8_t *const *queries, size_t query_count, const uint32_t *words, size_t word_count,
                  const uint32_t *ahead, int32_t *out);
} kith_split_kernels;

static inline size_t kith_split_bytes(size_t word_count) { return 8 * (word_count + 1); }

/* What turns the product of a query with a row into an estimate:
 *
 *     fma(step, fma(scale, inner, add), base), with
 *     inner = fma(dot, unit, offset)                           for a query of one part,
 *     inner = fma(high, 128 * unit, fma(low, unit, offset))    for one of two: 128 * high + low,
 *
 * where add and scale are the row's factors. Each step is rounded once to f32, products converted first (to nearest
 * even). Factors in f16 have a small range: `step` is their unit, a power of two. */
typedef struct kith_affine {
    float unit, offset, step, base;
} kith_affine;

typedef struct kith_estimate_kernels {
    /* query_count queries of `parts` parts x the 32 rows of a block: dots[(q * parts + p) * 32 + r] of part p, the
     * high one first; out[q * out_stride + r]. */
    void (*block)(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                  const float *add, const float *scale, float *out, size_t out_stride);
    void (*block_f16)(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                      const uint16_t *add, const uint16_t *scale, float *out, size_t out_stride);
    /* One query x four rows: dots[p * 4 + r]. */
    void (*four)(const kith_affine *query, size_t parts, const int32_t *dots, const float add[4],
                 const float scale[4], float out[4]);
    /* fields[log2 width].four and the estimates at once, for `count` rows anywhere, a multiple of 4, whose last word,
     * the one at word_count, holds two f16: add in its lower half, scale in its upper one. word_count does not count
     * it, and the query, of one part, is padded for word_count + 1 words. */
    void (*lines[KITH_FIELD_WIDTHS])(const int8_t *query, const unsigned char *const *rows, size_t count,
                                     size_t word_count, const kith_affine *affine, float *out);
    /* sums[i] = (sums[i] << bits) + dots[i]: takes the products with the next plane of the same numbers in. */
    void (*next_plane)(int32_t *sums, const int32_t *dots, unsigned bits, size_t count);
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
    /* Are all values whole numbers of lowest..lowest + 255, and none -0? `lowest` is 0 or -128. If so, out[i] is
     * values[i] as u8 or i8; if not, anything. Values need not be finite. */
    bool (*as_bytes)(const float *values, size_t count, int32_t lowest, uint8_t *out);
} kith_rounding_kernels;

#endif
