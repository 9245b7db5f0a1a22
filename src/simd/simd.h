/* SPDX-License-Identifier: Apache-2.0
 *
 * simd.h: the kernel table. One table per instruction set, chosen once at the first call of kith_simd().
 *
 * Distances are raw: squared L2 or inner product, in float for the float pairs, in exact int32 for u8 x u8 and
 * i8 x i8 (dim <= KITH_DIM_MAX keeps every sum in range) and for Hamming.
 *
 * The order of float sums is fixed and the same on every ISA, so that results are the same bits everywhere:
 *   - one, four, block and norm2: 32 partial sums, element i goes to partial sum i mod 32 by one fused
 *     multiply-add in order of i; then s[j] += s[j + 16] for j < 16, s[j] += s[j + 8], + 4, + 2, + 1.
 *     A tail shorter than 32 is padded with zeros. Squared L2 rounds the difference to f32 first. Elements of
 *     other types are converted to f32, exactly, before anything else.
 *   - tile: one chain of fused multiply-adds per result, in order of i, starting from the bias.
 * Kernels outside this rule say so where they stand in the table (`native` below), with their bound.
 * A NaN among the elements makes the sum NaN; which NaN is not fixed. The caller's floating-point environment is
 * the default one: round to nearest, denormals kept.
 *
 * Pointers need the alignment of their element type only; no kernel reads a byte outside its operands.
 */
#ifndef KITH_SIMD_SIMD_H
#define KITH_SIMD_SIMD_H

#include <stdbool.h>

#include "kith/types.h"
#include "simd/fields.h"
#include "simd/graph.h"
#include "simd/matrix.h"
#include "simd/tables.h"

typedef enum kith_op { KITH_OP_L2SQ, KITH_OP_IP, KITH_OP_COUNT } kith_op;

/* Pairs of element types, query x row. */
typedef enum kith_float_pair {
    KITH_PAIR_F32_F32,
    KITH_PAIR_F32_F16,
    KITH_PAIR_F32_BF16,
    KITH_PAIR_F32_I8,
    KITH_PAIR_F32_U8,
    KITH_PAIR_F16_F16,
    KITH_PAIR_BF16_BF16,
    KITH_FLOAT_PAIR_COUNT
} kith_float_pair;

typedef enum kith_int_pair { KITH_PAIR_I8_I8, KITH_PAIR_U8_U8, KITH_INT_PAIR_COUNT } kith_int_pair;

/* The shapes in which a distance is asked for. `dim` counts elements, for Hamming bytes.
 *   one    query x row
 *   four   query x four rows anywhere: gathered candidates
 *   block  query x `count` rows, `stride` bytes apart: a stream over memory */
typedef struct kith_float_kernels {
    float (*one)(const void *query, const void *row, size_t dim);
    void (*four)(const void *query, const void *const rows[4], size_t dim, float out[4]);
    void (*block)(const void *query, const void *rows, size_t stride, size_t count, size_t dim, float *out);
} kith_float_kernels;

typedef struct kith_int_kernels {
    int32_t (*one)(const void *query, const void *row, size_t dim);
    void (*four)(const void *query, const void *const rows[4], size_t dim, int32_t out[4]);
    void (*block)(const void *query, const void *rows, size_t stride, size_t count, size_t dim, int32_t *out);
} kith_int_kernels;

/* The tile: many queries x many rows, as a matrix product on packed operands of 32-bit words.
 *
 * A packed operand holds `lanes` vectors word by word: word w of vector v is at packed[w * lanes + v]. Queries
 * are packed `query_lanes` at a time, rows `row_lanes` at a time; lanes without a vector hold zeros.
 * For floats a word is one f32. For the integer tile a word is four bytes (group = 4: row bytes u8, query bytes
 * s8) or two i16 (group = 2), as the ISA likes it; `row_word`, `query_word` make them.
 *
 * run: out[q * out_stride + r] = bias[r] + <query q, row r> for query_lanes queries x row_panels * row_lanes rows
 * (panel p of the rows starts at rows + p * words * row_lanes). bias has row_panels * row_lanes entries. */
typedef struct kith_tile_f32 {
    size_t query_lanes, row_lanes;
    void (*run)(const float *queries, const float *rows, size_t words, size_t row_panels, const float *bias,
                float *out, size_t out_stride);
} kith_tile_f32;

/* Integer tile, for u8 x u8 and i8 x i8. The sum over the prepared words differs from the true inner product by
 * terms that depend on one side each: true = sum + row_term[r] + query_term[q], where the terms are what prepare
 * returns. All sums wrap at 32 bits, so a bias and the terms may be added in any order. */
typedef struct kith_tile_i8 {
    size_t query_lanes, row_lanes;
    size_t group; /* elements in a word: 4 or 2 */
    /* Writes ceil(dim / group) words of one vector of u8 or i8 elements and returns its term. Query and row must
     * be of the same type. */
    int32_t (*prepare_query)(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words);
    int32_t (*prepare_row)(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words);
    void (*run)(const uint32_t *queries, const uint32_t *rows, size_t words, size_t row_panels, const int32_t *bias,
                int32_t *out, size_t out_stride);
} kith_tile_i8;

/* Loops at a limit of the machine, which the microbenchmark times: see kith_peak_kernels in kith/kernels.h. */
typedef struct kith_peaks {
    uint64_t (*fma_f32)(size_t rounds);
    uint64_t (*dot_i8)(size_t rounds);
    uint64_t (*read)(const void *memory, size_t bytes);
} kith_peaks;

typedef struct kith_simd_table {
    const char *name; /* "ref", "avx2", "avx512", "neon" */
    /* "avx512+vnni+vbmi+vpopcntdq+bf16+fp16": the name with the sub-levels in use. */
    const char *full_name;
    kith_float_kernels floats[KITH_OP_COUNT][KITH_FLOAT_PAIR_COUNT];
    kith_int_kernels ints[KITH_OP_COUNT][KITH_INT_PAIR_COUNT];
    kith_int_kernels hamming; /* on packed bits; dim in bytes */

    /* Kernels on the machine's own 16-bit arithmetic, outside the fixed order; NULL where the ISA has none. Never
     * used where results must be the same everywhere. Bound of each: docs/kernels.md. */
    kith_float_kernels native[KITH_OP_COUNT][KITH_FLOAT_PAIR_COUNT];

    /* Sum of squares: f32 by the fixed order, for the five element types; i8, u8 exactly as well. */
    float (*norm2_f32)(const float *vector, size_t dim);
    float (*norm2_f16)(const uint16_t *vector, size_t dim);
    float (*norm2_bf16)(const uint16_t *vector, size_t dim);
    int32_t (*norm2_i8)(const int8_t *vector, size_t dim);
    int32_t (*norm2_u8)(const uint8_t *vector, size_t dim);

    /* Conversions of `count` elements, the same bits on every ISA: exact to f32; from f32 rounded to nearest even,
     * too large becomes infinity, a NaN stays a NaN and keeps its upper bits (f16 both ways, bf16 from f32: made
     * quiet). `in` and `out` do not overlap. */
    void (*f32_from_f16)(const uint16_t *in, size_t count, float *out);
    void (*f32_from_bf16)(const uint16_t *in, size_t count, float *out);
    void (*f32_from_i8)(const int8_t *in, size_t count, float *out);
    void (*f32_from_u8)(const uint8_t *in, size_t count, float *out);
    void (*f16_from_f32)(const float *in, size_t count, uint16_t *out);
    void (*bf16_from_f32)(const float *in, size_t count, uint16_t *out);

    /* The top-k filter: writes the positions i with values[i] >= threshold (f32: or unordered), ascending, and
     * returns how many. `out` has room for count. */
    size_t (*filter_f32)(const float *values, size_t count, float threshold, uint32_t *out);
    size_t (*filter_i32)(const int32_t *values, size_t count, int32_t threshold, uint32_t *out);
    /* The same for values[i] <= threshold: distances of one query over a block. */
    size_t (*filter_below_f32)(const float *values, size_t count, float threshold, uint32_t *out);
    size_t (*filter_below_i32)(const int32_t *values, size_t count, int32_t threshold, uint32_t *out);

    /* Interleaves up to `lanes` vectors of `words` 32-bit words into a packed operand; vectors past `count` become
     * zeros. lanes is the query_lanes or the row_lanes of a tile; packed has room for words * lanes. */
    void (*pack)(const uint32_t *const *vectors, size_t count, size_t lanes, size_t words, uint32_t *packed);

    kith_tile_f32 tile_f32;
    kith_tile_i8 tile_i8;

    kith_field_kernels fields[KITH_FIELD_WIDTHS]; /* of scalar quantisers and their kin: fields.h */
    kith_estimate_kernels estimates;
    kith_split_kernels splits;
    kith_rounding_kernels rounding;

    kith_graph_kernels graph; /* of walks along links: graph.h */

    kith_table_kernels tables; /* of product quantisers: tables.h */

    kith_matrix_kernels matrix; /* of linear transforms: matrix.h */

    kith_peaks peaks;
} kith_simd_table;

/* The table in use: the best that this machine runs, or what KITH_ISA names (ref, avx2, avx512, neon; "avx512"
 * may be cut down by sub-levels: "avx512-vnni" is AVX-512 without VNNI). An unknown or unavailable name is said
 * by kith_simd_status and leaves the best one. Thread-safe. */
const kith_simd_table *kith_simd(void);

/* The table of an ISA by its name, whatever KITH_ISA says; NULL when this build or machine lacks it. With
 * sub-levels taken away as in KITH_ISA. For checks and benchmarks. */
const kith_simd_table *kith_simd_find(const char *name);

/* KITH_OK, or why KITH_ISA was not followed. */
kith_status kith_simd_status(void);

/* The pair kernels for an element type of query and row; NULL when there is none. */
const kith_float_kernels *kith_simd_floats(const kith_simd_table *table, kith_op op, kith_dtype query,
                                           kith_dtype row);
const kith_int_kernels *kith_simd_ints(const kith_simd_table *table, kith_op op, kith_dtype query, kith_dtype row);

#endif
