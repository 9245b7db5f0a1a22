/* SPDX-License-Identifier: Apache-2.0
 *
 * tables.h: estimates of product-quantised codes by tables of their parts' products with a query; a part of the
 * kernel table.
 *
 * A code has a number for each of its parts; a query has a table for each part, of whole numbers that stand for the
 * products of its part with that part's codewords:
 *
 *     S = add + fma((float)sum, unit, offset),    out = base + S,    sum over parts of table[part][number],
 *
 * each step rounded once to f32; without addends S is the second term. Sums are exact, and so the bits are the same
 * everywhere, whatever the order. Every kernel takes any number of parts up to KITH_DIM_MAX.
 *
 * nibbles: numbers of 4 bits, tables of 8. Word w of a row holds parts 8 * w .. 8 * w + 7 from its lowest bit on, and
 *   word w of row r of a block stands at words[w * 32 + r]; numbers of missing parts are 0. Tables are grouped by word, 128 bytes each: first those of
 *   the even parts, 16 bytes each, then those of the odd ones; the tables of missing parts hold 0. Four even parts
 *   of one row are so four bytes of one word, and their tables fill one register of AVX-512: one VPERMB looks
 *   them up for 16 rows, and one VPDPBUSD adds them.
 * bytes: numbers of 8 bits, tables of 16. Part p of a row is its byte p; of row r of a block, byte p * 32 + r. A table
 *   is 256 entries as arrange_bytes leaves them: each instruction set has them as it likes.
 *
 * Rows and blocks need an alignment of 4, tables of 64. Kernels read no byte outside the operands.
 */
#ifndef KITH_SIMD_TABLES_H
#define KITH_SIMD_TABLES_H

#include <stddef.h>
#include <stdint.h>

enum { KITH_NIBBLE_WORD_BYTES = 128, KITH_BYTE_TABLE_BYTES = 512, KITH_NO_ADDEND = 0 };

/* A query. */
typedef struct kith_lookup {
    const void *tables;
    float unit, offset, base;
} kith_lookup;

/* How codes lie. An addend is an f32; KITH_NO_ADDEND: there is none. */
typedef struct kith_lookup_shape {
    size_t part_count;   /* at least 1 */
    size_t row_addend;   /* byte of a row */
    size_t block_addend; /* byte of a block, where those of its 32 rows begin */
    size_t block_bytes;  /* from one block to the next */
} kith_lookup_shape;

typedef struct kith_lookup_kernels {
    /* out[q * out_stride + 32 * b + r] for `query_count` queries and `block_count` blocks. */
    void (*scan)(const kith_lookup *queries, size_t query_count, const kith_lookup_shape *shape,
                 const unsigned char *blocks, size_t block_count, float *out, size_t out_stride);
    /* One query, four rows anywhere. */
    void (*four)(const kith_lookup *query, const kith_lookup_shape *shape, const unsigned char *const rows[4],
                 float out[4]);
} kith_lookup_kernels;

typedef struct kith_table_kernels {
    kith_lookup_kernels nibbles, bytes;
    /* Brings `part_count` tables of 256 entries into the order that `bytes` wants, in place; NULL: they are. */
    void (*arrange_bytes)(uint16_t *tables, size_t part_count);
    /* sums[r] = sum over parts of tables[part * entries + numbers[part * 32 + r]] for 32 rows. The tables are followed
     * by two bytes that may be read. */
    void (*gather)(const uint16_t *tables, size_t entries, const uint16_t *numbers, size_t part_count,
                   int32_t *sums);

    /* out[i] = base + (addends[i] + fma((float)sums[i], unit, offset)), as above; addends: NULL for none. */
    void (*affine)(const int32_t *sums, const float *addends, size_t count, float unit, float offset, float base,
                   float *out);

    /* The least and the largest of `count` values, a multiple of 16; those beyond +-limit count as +-limit,
     * a NaN as -limit, and are changed to that. */
    void (*extent)(float *values, size_t count, float limit, float *least, float *largest);
    /* out[i] = (values[i] - least) * inverse, to nearest even; `count` as above. The results fit. */
    void (*to_u8)(const float *values, size_t count, float least, float inverse, uint8_t *out);
    void (*to_u16)(const float *values, size_t count, float least, float inverse, uint16_t *out);
    /* The nearest codeword for each of 32 rows: the first position c < count of the largest bias[c] + sum over d <
     * dim of codewords[c * dim + d] * columns[d * 32 + r], by one chain of fused multiply-adds from the bias on. `count`
     * is a multiple of 4. No result is NaN. columns: aligned to 64. */
    void (*nearest)(const float *columns, size_t dim, const float *codewords, const float *bias, size_t count,
                    uint32_t *out);
    /* The first position c < count of the least fixed[c] + weight * (error - along[c])^2, each step rounded to f32;
     * `count` is a multiple of 16. No value is NaN. */
    size_t (*cheapest)(const float *fixed, const float *along, size_t count, float error, float weight);
} kith_table_kernels;

#endif
