/* SPDX-License-Identifier: Apache-2.0
 *
 * grid.h: codes made of unsigned numbers of 1..8 bits, one for each dimension, and an affine estimate: what scalar
 * quantisers, RaBitQ and line codes share.
 *
 *     S(q, x) = add(x) + scale(x) * (unit(q) * <q8, u(x)> + offset(q)),
 *
 * where u are the numbers of the code, q8 the query in signed bytes, and add and scale the code's factors. The bits
 * are cut into planes of 8, 4, 2 or 1 (fields.h), the highest first, so that 3 bits are a plane of 2 and a plane
 * of 1. A row is the words of the planes one after the other, then the factors; a block the same, each word and each
 * factor for 32 rows.
 *
 * f16 has a small range. So f16 factors are held as multiples of two powers of two, add_unit and scale_unit, which
 * the owner sets once, when it has been trained; whoever puts, gets and prepares sees factors in true units.
 *
 * The query is held in 8 bits, or in 15 (two parts, 128 * high + low) for codes whose own error is smaller than that
 * of 8 bits.
 */
#ifndef KITH_CODE_GRID_H
#define KITH_CODE_GRID_H

#include "code/code.h"

typedef enum kith_grid_factors {
    KITH_FACTORS_F16 = 1, /* one word: add in the lower half, scale in the upper one, both f16 */
    KITH_FACTORS_F32 = 2, /* two words: add, scale, both f32 */
    KITH_FACTORS_ADD = 3, /* one word: add in f32; scale is 1 */
    KITH_FACTORS_NONE = 4 /* add is 0, scale is 1 */
} kith_grid_factors;

typedef struct kith_grid_plane {
    unsigned width, width_log2, shift; /* shift: the plane's place in the number */
    size_t first_word, word_count;
} kith_grid_plane;

typedef struct kith_grid {
    size_t dim, bits;
    kith_grid_factors factors;
    size_t query_parts;         /* 1 or 2 */
    float add_unit, scale_unit; /* of f16 factors: powers of two, 1 from init; 1 for others */
    size_t plane_count;
    kith_grid_plane planes[4];
    size_t word_count;                               /* of all planes */
    size_t factor_words;                             /* 0, 1 or 2 */
    size_t row_bytes, block_bytes, query_bytes;      /* query_bytes: a multiple of 64 */
    size_t part_bytes, step_first[4], natural_bytes; /* layout of a prepared query */
    size_t split_first;                              /* where its split form begins; 0: there is none */
} kith_grid;

/* 1 <= bits <= 8, dim >= 1. */
void kith_grid_init(kith_grid *grid, size_t dim, size_t bits, kith_grid_factors factors, size_t query_parts);

/* A row from its numbers (dim of them, below 2^bits) and factors; factors that the grid does not store are ignored.
 * f16 factors are rounded to nearest even; too large ones become the largest finite f16. */
void kith_grid_put(const kith_grid *grid, const uint8_t *numbers, float add, float scale, unsigned char *row);
/* The way back; any of the three may be NULL. */
void kith_grid_get(const kith_grid *grid, const unsigned char *row, uint8_t *numbers, float *add, float *scale);
/* The factors of one lane of a block; either may be NULL. */
void kith_grid_block_factors(const kith_grid *grid, const unsigned char *block, size_t lane, float *add,
                             float *scale);
void kith_grid_pack(const kith_grid *grid, const unsigned char *rows, size_t first, size_t count,
                    unsigned char *block);
void kith_grid_unpack(const kith_grid *grid, const unsigned char *block, size_t lane, unsigned char *row);

/* Prepares a query: `vector` (dim floats, what multiplies the numbers) is rounded to a multiple of its largest
 * magnitude / 127 (two parts: / 16,256). S as above with unit = multiplier times that step, offset as given. */
void kith_grid_prepare(const kith_grid *grid, const float *vector, float multiplier, float offset, void *query);
/* The same for numbers that count from `centre`, not from 0: the offset is -centre times the sum of the query as it
 * was rounded. */
void kith_grid_prepare_centred(const kith_grid *grid, const float *vector, float multiplier, float centre,
                               void *query);
/* The step to whose multiples the query was rounded, times the multiplier. */
float kith_grid_query_step(const kith_grid *grid, const void *query);
/* The sum of squares of a query of one part, in these steps. */
int32_t kith_grid_query_norm2(const kith_grid *grid, const void *query);
/* Adds a number of this query's own to all its estimates: to be called after prepare, which sets it to 0. */
void kith_grid_shift(void *query, float shift);
/* S + base: vtable's rows and scan. */
void kith_grid_rows(const kith_grid *grid, const void *query, float base, const unsigned char *const *rows,
                    size_t count, float *out);
void kith_grid_scan(const kith_grid *grid, const void *const *queries, const float *bases, size_t query_count,
                    const unsigned char *blocks, size_t block_count, float *out, size_t out_stride);

#endif
