/* SPDX-License-Identifier: Apache-2.0
 *
 * kith/kernels.h: the distance kernels by themselves, for programs that embed or measure them.
 *
 * An instruction set (ISA) goes by its name: "ref" (portable C), "avx2", "avx512", "neon". Sub-levels may be taken
 * away with a minus: "avx512-vnni" is AVX-512 without VNNI. A NULL name stands for the ISA in use: the best that
 * this machine runs, or what the environment variable KITH_ISA names.
 *
 * All functions here are thread-safe, and so are the kernels. Kernels check nothing: operands have to be of the
 * stated type and length. They read no byte outside their operands and need the alignment of the element type only.
 *
 * The structs below are outputs whose size the caller sets first (`kith_distance_kernels k = {.size = sizeof k};`), so that
 * a program built against an older header goes on working: fields past that size are not written.
 */
#ifndef KITH_KERNELS_H
#define KITH_KERNELS_H

#include "kith/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Instruction sets ---------------------------------------------------------------------------------- */

/* How many ISAs this build has and this machine runs: at least 1, as "ref" always is there. */
KITH_API size_t kith_isa_count(void);
/* Name of ISA i, the slowest first; NULL when i >= kith_isa_count(). Static. */
KITH_API const char *kith_isa_name(size_t i);
/* The name with the sub-levels in use, as "avx512+vnni+vbmi+vpopcntdq+bf16+fp16", into *out, static. `isa` NULL: the
 * one in use. KITH_ERR_NOT_FOUND: no such name, or one that this build or this machine lacks; the message says
 * which names there are. */
KITH_API kith_status kith_isa_full_name(const char *isa, const char **out) KITH_CHECK_RESULT;
/* KITH_OK, or why the environment variable KITH_ISA was not followed (the best ISA is in use then). */
KITH_API kith_status kith_isa_check(void) KITH_CHECK_RESULT;

/* ---- Distances ----------------------------------------------------------------------------------------- */

/* What is computed. Squared L2 and inner product are raw: no square root, no sign change, no normalisation. */
typedef enum kith_kernel_op {
    KITH_KERNEL_L2SQ = 1,   /* sum of (query[i] - row[i])^2 */
    KITH_KERNEL_IP = 2,     /* sum of query[i] * row[i] */
    KITH_KERNEL_HAMMING = 3 /* number of differing bits; both operands KITH_B1 */
} kith_kernel_op;

/* "l2sq", "ip", "hamming"; "?" for another number. Static. */
KITH_API const char *kith_kernel_op_name(kith_kernel_op op);

/* One query against rows, in three shapes:
 *   one    one row
 *   four   four rows anywhere, by pointers: gathered candidates
 *   block  `count` rows, `stride` bytes apart: a stream over memory
 * `dim` counts elements; for Hamming it counts bytes. The three shapes of one struct give the same bits for the
 * same pair of vectors, and so does every ISA: sums run in one fixed order (docs/kernels.md).
 * Either the _f32 functions are set or the _i32 functions; integer sums are exact up to dim KITH_DIM_MAX. */
typedef struct kith_distance_kernels {
    size_t size; /* set by the caller */
    kith_kernel_op op;
    kith_dtype query_dtype, row_dtype;
    int is_integer;  /* 1: the _i32 functions are set, 0: the _f32 functions are */
    const char *isa; /* full name; static */
    float (*one_f32)(const void *query, const void *row, size_t dim);
    void (*four_f32)(const void *query, const void *const rows[4], size_t dim, float out[4]);
    void (*block_f32)(const void *query, const void *rows, size_t stride, size_t count, size_t dim, float *out);
    int32_t (*one_i32)(const void *query, const void *row, size_t dim);
    void (*four_i32)(const void *query, const void *const rows[4], size_t dim, int32_t out[4]);
    void (*block_i32)(const void *query, const void *rows, size_t stride, size_t count, size_t dim, int32_t *out);
} kith_distance_kernels;

/* The kernels of an operation for these element types, query x row. There are f32 x f32, f16, bf16, i8, u8 and
 * f16 x f16, bf16 x bf16 (f32 results), i8 x i8 and u8 x u8 (int32 results), and for Hamming b1 x b1 (int32).
 * Errors: KITH_ERR_ARGUMENT (op, or out->size too small), KITH_ERR_TYPE (no kernel for these types),
 * KITH_ERR_NOT_FOUND (isa). On failure all functions are NULL. */
KITH_API kith_status kith_distance_kernels_find(kith_kernel_op op, kith_dtype query_dtype, kith_dtype row_dtype,
                                                const char *isa, kith_distance_kernels *out) KITH_CHECK_RESULT;

/* The same on the machine's own 16-bit arithmetic (AVX-512 FP16 and BF16): faster, but neither the same bits as
 * the others nor the same on every machine. KITH_ERR_UNSUPPORTED where the ISA has none for this pair. */
KITH_API kith_status kith_distance_kernels_find_native(kith_kernel_op op, kith_dtype query_dtype,
                                                       kith_dtype row_dtype, const char *isa,
                                                       kith_distance_kernels *out) KITH_CHECK_RESULT;

/* ---- One vector: norms, conversions; one array of distances: filters ------------------------------------ */

typedef struct kith_vector_kernels {
    size_t size;     /* set by the caller */
    const char *isa; /* full name; static */
    /* Sum of squares of `dim` elements: floats in the fixed order, integers exactly. */
    float (*norm2_f32)(const float *vector, size_t dim);
    float (*norm2_f16)(const uint16_t *vector, size_t dim);
    float (*norm2_bf16)(const uint16_t *vector, size_t dim);
    int32_t (*norm2_i8)(const int8_t *vector, size_t dim);
    int32_t (*norm2_u8)(const uint8_t *vector, size_t dim);
    /* Conversions of `count` elements: exact to f32; from f32 rounded to nearest even, NaN stays NaN. */
    void (*f32_from_f16)(const uint16_t *in, size_t count, float *out);
    void (*f32_from_bf16)(const uint16_t *in, size_t count, float *out);
    void (*f32_from_i8)(const int8_t *in, size_t count, float *out);
    void (*f32_from_u8)(const uint8_t *in, size_t count, float *out);
    void (*f16_from_f32)(const float *in, size_t count, uint16_t *out);
    void (*bf16_from_f32)(const float *in, size_t count, uint16_t *out);
    /* Writes the positions i with values[i] >= threshold, or for `below` values[i] <= threshold (f32: or
     * unordered), ascending, and returns how many. `out` has room for count. */
    size_t (*filter_f32)(const float *values, size_t count, float threshold, uint32_t *out);
    size_t (*filter_i32)(const int32_t *values, size_t count, int32_t threshold, uint32_t *out);
    size_t (*filter_below_f32)(const float *values, size_t count, float threshold, uint32_t *out);
    size_t (*filter_below_i32)(const int32_t *values, size_t count, int32_t threshold, uint32_t *out);
} kith_vector_kernels;

/* KITH_ERR_ARGUMENT (out->size too small), KITH_ERR_NOT_FOUND (isa); on failure all functions are NULL. */
KITH_API kith_status kith_vector_kernels_find(const char *isa, kith_vector_kernels *out) KITH_CHECK_RESULT;

/* ---- Tiles: many queries x many rows -------------------------------------------------------------------- */

/* A matrix product on packed operands of 32-bit words. A packed operand holds `lanes` vectors word by word: word w
 * of vector v is at packed[w * lanes + v]. Queries are packed query_lanes at a time, rows row_lanes at a time;
 * lanes without a vector hold zeros; `pack` does both. For the f32 tile a word is one float; for the 8-bit tile
 * it is `i8_group` elements in a form of the ISA's own, which i8_prepare_* write.
 *
 * run: out[q * out_stride + r] = bias[r] + <query q, row r> for query_lanes queries x (row_panels * row_lanes)
 * rows; panel p of the rows starts at rows + p * words * row_lanes; bias has row_panels * row_lanes entries.
 * Floats: one chain of fused multiply-adds per result, in order of the words, from the bias.
 * Integers: the true inner product is out - bias + the query's term + the row's term. */
typedef struct kith_tile_kernels {
    size_t size;     /* set by the caller */
    const char *isa; /* full name; static */
    /* Interleaves `count` <= `lanes` vectors of `words` words each into a packed operand. */
    void (*pack)(const uint32_t *const *vectors, size_t count, size_t lanes, size_t words, uint32_t *packed);

    size_t f32_query_lanes, f32_row_lanes;
    void (*f32_run)(const float *queries, const float *rows, size_t words, size_t row_panels, const float *bias,
                    float *out, size_t out_stride);

    size_t i8_query_lanes, i8_row_lanes;
    size_t i8_group; /* elements in a word: 4 or 2 */
    /* Writes ceil(dim / i8_group) words of one vector of KITH_I8 or KITH_U8 elements; returns its term. */
    int32_t (*i8_prepare_query)(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words);
    int32_t (*i8_prepare_row)(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words);
    void (*i8_run)(const uint32_t *queries, const uint32_t *rows, size_t words, size_t row_panels,
                   const int32_t *bias, int32_t *out, size_t out_stride);
} kith_tile_kernels;

/* KITH_ERR_ARGUMENT (out->size too small), KITH_ERR_NOT_FOUND (isa); on failure all functions are NULL. */
KITH_API kith_status kith_tile_kernels_find(const char *isa, kith_tile_kernels *out) KITH_CHECK_RESULT;

/* ---- Planes: narrow unsigned fields x bytes ---------------------------------------------------------------- */

/* What compressed codes are made of: inner products of a query of signed bytes (-127..127) with rows of unsigned
 * fields, exact in 32 bits up to KITH_DIM_MAX dimensions. Place i of the arrays is for fields of 1 << i bits: 1, 2,
 * 4, 8.
 *
 * A row is made of 32-bit words, each with the fields of 32 / width dimensions; dimension 4 * j + k among these is the
 * field of bits width * j and on of byte k. Fields past the last dimension are 0.
 *
 *   block  query_count queries x 32 rows: word w of row r at words[w * 32 + r]; the byte of dimension d at
 *          queries[q][d], word_count * 32 / width bytes; out[q * 32 + r]. `ahead`: where as many words of a block to
 *          come begin, which are fetched from memory meanwhile; or NULL.
 *   four   one query x four rows anywhere. The query is in another order: the four bytes of step j of word w are at
 *          query[(j * padded + w) * 4], where padded is word_count rounded up to a multiple of 16; words past
 *          word_count are 0. */
typedef struct kith_plane_kernels {
    size_t size;     /* set by the caller */
    const char *isa; /* full name; static */
    void (*block[4])(const int8_t *const *queries, size_t query_count, const uint32_t *words, size_t word_count,
                     const uint32_t *ahead, int32_t *out);
    void (*four[4])(const int8_t *query, const uint32_t *const rows[4], size_t word_count, int32_t out[4]);
} kith_plane_kernels;

/* KITH_ERR_ARGUMENT (out->size too small), KITH_ERR_NOT_FOUND (isa); on failure all functions are NULL. */
KITH_API kith_status kith_plane_kernels_find(const char *isa, kith_plane_kernels *out) KITH_CHECK_RESULT;

/* ---- Peaks: loops that reach a limit of the machine ------------------------------------------------------- */

/* What a benchmark holds the kernels against. Each is the fastest loop of its kind that the ISA has and does nothing
 * useful; the caller times it. */
typedef struct kith_peak_kernels {
    size_t size;     /* set by the caller */
    const char *isa; /* full name; static */
    /* Independent f32 multiply-adds on registers, `rounds` times over; returns how many were done. */
    uint64_t (*fma_f32)(size_t rounds);
    /* Multiply-adds of 8-bit integers into 32-bit sums, by the ISA's best instruction for it; the same. */
    uint64_t (*dot_i8)(size_t rounds);
    /* Loads `bytes` bytes once, in order, and returns a sum over them, so that no load can be left out. */
    uint64_t (*read)(const void *memory, size_t bytes);
} kith_peak_kernels;

/* KITH_ERR_ARGUMENT (out->size too small), KITH_ERR_NOT_FOUND (isa); on failure all functions are NULL. */
KITH_API kith_status kith_peak_kernels_find(const char *isa, kith_peak_kernels *out) KITH_CHECK_RESULT;

#ifdef __cplusplus
}
#endif
#endif
