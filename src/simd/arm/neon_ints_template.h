/* SPDX-License-Identifier: Apache-2.0
 *
 * neon_ints_template.h: the integer distances (i8, u8, Hamming) in their three shapes, for a file that has defined
 *
 *   static inline uint32x4_t step(enum int_op op, uint32x4_t sums, uint8x16_t query, uint8x16_t row)
 *
 * which adds the distance of 16 bytes to four partial sums. Sums are exact, so their order is free.
 */
#ifndef KITH_SIMD_ARM_NEON_INTS_TEMPLATE_H
#define KITH_SIMD_ARM_NEON_INTS_TEMPLATE_H

enum { STEP_BYTES = 16, ROWS_AT_ONCE = 4 };

/* Distances of one query to `row_count` rows, 1 or 4. One row alone is spread over four sums, so that an addition
 * need not wait for the one before it. */
ALWAYS_INLINE void int_rows(enum int_op op, const uint8_t *query, const void *const *rows, size_t row_count,
                            size_t dim, int32_t *out) {
    size_t sum_count = row_count == 1 ? 4 : 1, i = 0;
    uint32x4_t sums[ROWS_AT_ONCE] = {vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0)};
    for (; dim - i >= sum_count * STEP_BYTES; i += sum_count * STEP_BYTES)
#pragma GCC unroll 4
        for (size_t s = 0; s < ROWS_AT_ONCE; s++) { /* over the sums of one row, or over the rows */
            size_t at = row_count == 1 ? i + s * STEP_BYTES : i, r = row_count == 1 ? 0 : s;
            sums[s] = step(op, sums[s], vld1q_u8(query + at), vld1q_u8((const uint8_t *)rows[r] + at));
        }
    for (; dim - i >= STEP_BYTES; i += STEP_BYTES) /* one row only: the rest of a round */
        sums[0] = step(op, sums[0], vld1q_u8(query + i), vld1q_u8((const uint8_t *)rows[0] + i));
    if (i < dim) { /* both sides padded with zeros add nothing */
        uint8_t query_tail[STEP_BYTES] = {0}, row_tail[STEP_BYTES] = {0};
        memcpy(query_tail, query + i, dim - i);
        for (size_t r = 0; r < row_count; r++) {
            memcpy(row_tail, (const uint8_t *)rows[r] + i, dim - i);
            sums[r] = step(op, sums[r], vld1q_u8(query_tail), vld1q_u8(row_tail));
        }
    }
    if (row_count == 1) {
        uint32x4_t all = vaddq_u32(vaddq_u32(sums[0], sums[1]), vaddq_u32(sums[2], sums[3]));
        out[0] = (int32_t)vaddvq_u32(all);
    } else {
        for (size_t r = 0; r < ROWS_AT_ONCE; r++) out[r] = (int32_t)vaddvq_u32(sums[r]);
    }
}

#define INT_KERNELS(NAME, OP)                                                                                      \
    static int32_t NAME(const void *query, const void *row, size_t dim) {                                          \
        int32_t out;                                                                                               \
        int_rows(OP, query, &row, 1, dim, &out);                                                                   \
        return out;                                                                                                \
    }                                                                                                              \
    static void NAME##_four(const void *query, const void *const rows[4], size_t dim, int32_t out[4]) {            \
        int_rows(OP, query, rows, 4, dim, out);                                                                    \
    }                                                                                                              \
    static void NAME##_block(const void *query, const void *rows, size_t stride, size_t count, size_t dim,         \
                             int32_t *out) {                                                                       \
        const char *row = rows;                                                                                    \
        for (; count >= 4; count -= 4, row += 4 * stride, out += 4) {                                              \
            const void *const four[4] = {row, row + stride, row + 2 * stride, row + 3 * stride};                   \
            int_rows(OP, query, four, 4, dim, out);                                                                \
        }                                                                                                          \
        for (; count > 0; count--, row += stride, out++) *out = NAME(query, row, dim);                             \
    }

INT_KERNELS(l2sq_i8_i8, L2SQ_I8)
INT_KERNELS(l2sq_u8_u8, L2SQ_U8)
INT_KERNELS(ip_i8_i8, IP_I8)
INT_KERNELS(ip_u8_u8, IP_U8)
INT_KERNELS(hamming, HAMMING)

static int32_t norm2_i8(const int8_t *vector, size_t dim) { return ip_i8_i8(vector, vector, dim); }
static int32_t norm2_u8(const uint8_t *vector, size_t dim) { return ip_u8_u8(vector, vector, dim); }

#define INT_KERNELS_OF(NAME) ((kith_int_kernels){NAME, NAME##_four, NAME##_block})

static void fill_ints(kith_simd_table *table) {
    table->ints[KITH_OP_L2SQ][KITH_PAIR_I8_I8] = INT_KERNELS_OF(l2sq_i8_i8);
    table->ints[KITH_OP_L2SQ][KITH_PAIR_U8_U8] = INT_KERNELS_OF(l2sq_u8_u8);
    table->ints[KITH_OP_IP][KITH_PAIR_I8_I8] = INT_KERNELS_OF(ip_i8_i8);
    table->ints[KITH_OP_IP][KITH_PAIR_U8_U8] = INT_KERNELS_OF(ip_u8_u8);
    table->hamming = INT_KERNELS_OF(hamming);
    table->norm2_i8 = norm2_i8;
    table->norm2_u8 = norm2_u8;
}

#endif
