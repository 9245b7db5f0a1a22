/* SPDX-License-Identifier: Apache-2.0
 *
 * neon_fp16.c: native f16 x f16 kernels on half-precision arithmetic (Armv8.2 FP16), outside the fixed order.
 *
 * Each of eight lanes gathers the terms of four elements in f16 by fused multiply-adds, then the eight lanes are
 * widened and added to f32 sums. With t[i] = |q[i] r[i]| (for squared L2 the squared difference, itself rounded to
 * f16) the error is at most 4 * 2^-11 * sum t (squared L2: 6 * 2^-11 * sum t) + dim * 2^-25 + the rounding of the
 * f32 sums; a result is infinite or NaN when four terms of one lane pass 65504.
 */
#include "simd/arm/neon.h"

enum { BLOCK = 32, ROWS_AT_ONCE = 4 };

ALWAYS_INLINE float16x8_t load_f16(const void *vector, size_t i) {
    return vreinterpretq_f16_u16(vld1q_u16((const uint16_t *)vector + i));
}

/* Adds 32 elements to a row's f32 sums. */
ALWAYS_INLINE float32x4_t add_block(kith_op op, const void *query, const void *row, size_t i, float32x4_t sums) {
    float16x8_t gathered = vdupq_n_f16(0);
#pragma GCC unroll 4
    for (size_t k = 0; k < BLOCK; k += 8) {
        float16x8_t q = load_f16(query, i + k), r = load_f16(row, i + k);
        if (op == KITH_OP_L2SQ) q = r = vsubq_f16(q, r);
        gathered = vfmaq_f16(gathered, q, r);
    }
    sums = vaddq_f32(sums, vcvt_f32_f16(vget_low_f16(gathered)));
    return vaddq_f32(sums, vcvt_high_f32_f16(gathered));
}

ALWAYS_INLINE void native_rows(kith_op op, const void *query, const void *const *rows, size_t row_count, size_t dim,
                               float *out) {
    float32x4_t sums[ROWS_AT_ONCE];
    for (size_t r = 0; r < row_count; r++) sums[r] = vdupq_n_f32(0);
    size_t i = 0;
    for (; dim - i >= BLOCK; i += BLOCK)
        for (size_t r = 0; r < row_count; r++) sums[r] = add_block(op, query, rows[r], i, sums[r]);
    if (i < dim) {
        uint16_t query_tail[BLOCK] = {0}, row_tail[BLOCK] = {0};
        memcpy(query_tail, (const uint16_t *)query + i, (dim - i) * sizeof *query_tail);
        for (size_t r = 0; r < row_count; r++) {
            memcpy(row_tail, (const uint16_t *)rows[r] + i, (dim - i) * sizeof *row_tail);
            sums[r] = add_block(op, query_tail, row_tail, 0, sums[r]);
        }
    }
    for (size_t r = 0; r < row_count; r++) out[r] = vaddvq_f32(sums[r]);
}

#define NATIVE_KERNELS(NAME, OP)                                                                                   \
    static float NAME(const void *query, const void *row, size_t dim) {                                            \
        float out;                                                                                                 \
        native_rows(OP, query, &row, 1, dim, &out);                                                                \
        return out;                                                                                                \
    }                                                                                                              \
    static void NAME##_four(const void *query, const void *const rows[4], size_t dim, float out[4]) {              \
        native_rows(OP, query, rows, 4, dim, out);                                                                 \
    }                                                                                                              \
    static void NAME##_block(const void *query, const void *rows, size_t stride, size_t count, size_t dim,         \
                             float *out) {                                                                         \
        const char *row = rows;                                                                                    \
        for (; count >= 4; count -= 4, row += 4 * stride, out += 4) {                                              \
            const void *const four[4] = {row, row + stride, row + 2 * stride, row + 3 * stride};                   \
            native_rows(OP, query, four, 4, dim, out);                                                             \
        }                                                                                                          \
        for (; count > 0; count--, row += stride, out++) *out = NAME(query, row, dim);                             \
    }

NATIVE_KERNELS(l2sq_native, KITH_OP_L2SQ)
NATIVE_KERNELS(ip_native, KITH_OP_IP)

#define KERNELS(NAME) ((kith_float_kernels){NAME, NAME##_four, NAME##_block})

void kith_fill_neon_fp16(kith_simd_table *table) {
    table->native[KITH_OP_L2SQ][KITH_PAIR_F16_F16] = KERNELS(l2sq_native);
    table->native[KITH_OP_IP][KITH_PAIR_F16_F16] = KERNELS(ip_native);
}
