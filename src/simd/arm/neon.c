/* SPDX-License-Identifier: Apache-2.0
 *
 * neon.c: kernels for AArch64's base, Advanced SIMD. Eight registers of four lanes hold the 32 partial sums that
 * simd.h asks for: element i of a block of 32 goes to lane i % 4 of register i / 4.
 */
#include "simd/arm/neon.h"

/* ---- distances in float ---- */

enum type { F32, F16, BF16, I8, U8 };
enum { BLOCK = 32, REGISTERS = 8 };

ALWAYS_INLINE size_t type_bytes(enum type type) { return type == F32 ? 4 : type == F16 || type == BF16 ? 2 : 1; }

/* Elements i .. i + 7 as f32. `type` is a constant wherever this is inlined. */
ALWAYS_INLINE float32x4x2_t load8(enum type type, const void *vector, size_t i) {
    float32x4x2_t out;
    if (type == F32) {
        const float *from = (const float *)vector + i;
        out.val[0] = vld1q_f32(from);
        out.val[1] = vld1q_f32(from + 4);
    } else if (type == F16) {
        float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16((const uint16_t *)vector + i));
        out.val[0] = vcvt_f32_f16(vget_low_f16(halves));
        out.val[1] = vcvt_high_f32_f16(halves);
    } else if (type == BF16) {
        uint16x8_t upper = vld1q_u16((const uint16_t *)vector + i);
        out.val[0] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(upper), 16));
        out.val[1] = vreinterpretq_f32_u32(vshll_high_n_u16(upper, 16));
    } else if (type == I8) {
        int16x8_t wide = vmovl_s8(vld1_s8((const int8_t *)vector + i));
        out.val[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
        out.val[1] = vcvtq_f32_s32(vmovl_high_s16(wide));
    } else {
        uint16x8_t wide = vmovl_u8(vld1_u8((const uint8_t *)vector + i));
        out.val[0] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
        out.val[1] = vcvtq_f32_u32(vmovl_high_u16(wide));
    }
    return out;
}

/* Adds a block of 32 elements of one or two rows to their partial sums. */
ALWAYS_INLINE void add_block(kith_op op, enum type query_type, enum type row_type, const void *query,
                             const void *const *rows, size_t row_count, size_t i, float32x4_t sums[2][REGISTERS]) {
#pragma GCC unroll 4
    for (size_t k = 0; k < BLOCK / 8; k++) {
        float32x4x2_t q = load8(query_type, query, i + 8 * k);
#pragma GCC unroll 2
        for (size_t r = 0; r < row_count; r++) {
            float32x4x2_t x = load8(row_type, rows[r], i + 8 * k), y = q;
            if (op == KITH_OP_L2SQ) {
                x.val[0] = y.val[0] = vsubq_f32(q.val[0], x.val[0]);
                x.val[1] = y.val[1] = vsubq_f32(q.val[1], x.val[1]);
            }
            sums[r][2 * k] = vfmaq_f32(sums[r][2 * k], x.val[0], y.val[0]);
            sums[r][2 * k + 1] = vfmaq_f32(sums[r][2 * k + 1], x.val[1], y.val[1]);
        }
    }
}

ALWAYS_INLINE float fold(const float32x4_t s[REGISTERS]) {
    float32x4_t low = vaddq_f32(vaddq_f32(s[0], s[4]), vaddq_f32(s[2], s[6]));
    float32x4_t high = vaddq_f32(vaddq_f32(s[1], s[5]), vaddq_f32(s[3], s[7]));
    float32x4_t four = vaddq_f32(low, high);
    float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

/* Distances of one query to one or two rows: two rows share the query's loads and conversions, and their sums still
 * fit into the registers. */
ALWAYS_INLINE void float_rows(kith_op op, enum type query_type, enum type row_type, const void *query,
                              const void *const *rows, size_t row_count, size_t dim, float *out) {
    float32x4_t sums[2][REGISTERS];
    for (size_t r = 0; r < row_count; r++)
        for (size_t k = 0; k < REGISTERS; k++) sums[r][k] = vdupq_n_f32(0);
    size_t i = 0;
    for (; dim - i >= BLOCK; i += BLOCK) add_block(op, query_type, row_type, query, rows, row_count, i, sums);
    if (i < dim) {
        float query_tail[BLOCK] = {0}, row_tails[2][BLOCK] = {{0}};
        const void *const tails[2] = {row_tails[0], row_tails[1]};
        size_t query_size = type_bytes(query_type), row_size = type_bytes(row_type);
        memcpy(query_tail, (const char *)query + i * query_size, (dim - i) * query_size);
        for (size_t r = 0; r < row_count; r++)
            memcpy(row_tails[r], (const char *)rows[r] + i * row_size, (dim - i) * row_size);
        add_block(op, query_type, row_type, query_tail, tails, row_count, 0, sums);
    }
    for (size_t r = 0; r < row_count; r++) out[r] = fold(sums[r]);
}

#define FLOAT_KERNELS(NAME, OP, QUERY_TYPE, ROW_TYPE)                                                              \
    static float NAME(const void *query, const void *row, size_t dim) {                                            \
        float out;                                                                                                 \
        float_rows(OP, QUERY_TYPE, ROW_TYPE, query, &row, 1, dim, &out);                                           \
        return out;                                                                                                \
    }                                                                                                              \
    static void NAME##_two(const void *query, const void *const *rows, size_t dim, float *out) {                   \
        float_rows(OP, QUERY_TYPE, ROW_TYPE, query, rows, 2, dim, out);                                            \
    }                                                                                                              \
    static void NAME##_four(const void *query, const void *const rows[4], size_t dim, float out[4]) {              \
        NAME##_two(query, rows, dim, out);                                                                         \
        NAME##_two(query, rows + 2, dim, out + 2);                                                                 \
    }                                                                                                              \
    static void NAME##_block(const void *query, const void *rows, size_t stride, size_t count, size_t dim,         \
                             float *out) {                                                                         \
        const char *row = rows;                                                                                    \
        for (; count >= 2; count -= 2, row += 2 * stride, out += 2) {                                              \
            const void *const two[2] = {row, row + stride};                                                        \
            NAME##_two(query, two, dim, out);                                                                      \
        }                                                                                                          \
        if (count > 0) *out = NAME(query, row, dim);                                                               \
    }

#define FLOAT_OPS(PAIR, QUERY_TYPE, ROW_TYPE)                                                                      \
    FLOAT_KERNELS(l2sq_##PAIR, KITH_OP_L2SQ, QUERY_TYPE, ROW_TYPE)                                                 \
    FLOAT_KERNELS(ip_##PAIR, KITH_OP_IP, QUERY_TYPE, ROW_TYPE)

FLOAT_OPS(f32_f32, F32, F32)
FLOAT_OPS(f32_f16, F32, F16)
FLOAT_OPS(f32_bf16, F32, BF16)
FLOAT_OPS(f32_i8, F32, I8)
FLOAT_OPS(f32_u8, F32, U8)
FLOAT_OPS(f16_f16, F16, F16)
FLOAT_OPS(bf16_bf16, BF16, BF16)

static float norm2_f32(const float *vector, size_t dim) { return ip_f32_f32(vector, vector, dim); }
static float norm2_f16(const uint16_t *vector, size_t dim) { return ip_f16_f16(vector, vector, dim); }
static float norm2_bf16(const uint16_t *vector, size_t dim) { return ip_bf16_bf16(vector, vector, dim); }

/* ---- distances in integers ---- */

/* Products of bytes fit into 16 bits, sums of two of them need 32: absolute differences of i8 count as unsigned. */
ALWAYS_INLINE uint32x4_t step(enum int_op op, uint32x4_t sums, uint8x16_t query, uint8x16_t row) {
    if (op == HAMMING) return vpadalq_u16(sums, vpaddlq_u8(vcntq_u8(veorq_u8(query, row))));
    if (op == IP_I8) {
        int8x16_t q = vreinterpretq_s8_u8(query), r = vreinterpretq_s8_u8(row);
        int32x4_t total = vreinterpretq_s32_u32(sums);
        total = vpadalq_s16(total, vmull_s8(vget_low_s8(q), vget_low_s8(r)));
        return vreinterpretq_u32_s32(vpadalq_s16(total, vmull_high_s8(q, r)));
    }
    uint8x16_t a = query, b = row;
    if (op == L2SQ_I8) a = vreinterpretq_u8_s8(vabdq_s8(vreinterpretq_s8_u8(query), vreinterpretq_s8_u8(row)));
    if (op == L2SQ_U8) a = vabdq_u8(query, row);
    if (op != IP_U8) b = a;
    sums = vpadalq_u16(sums, vmull_u8(vget_low_u8(a), vget_low_u8(b)));
    return vpadalq_u16(sums, vmull_high_u8(a, b));
}

#include "simd/arm/neon_ints_template.h"

/* ---- conversions ---- */

/* Runs STEP on eight elements at a time; the last few go through buffers of eight. */
#define CONVERT(NAME, IN, OUT, STEP)                                                                               \
    static void NAME(const IN *in, size_t count, OUT *out) {                                                       \
        size_t i = 0;                                                                                              \
        for (; count - i >= 8; i += 8) STEP(in + i, out + i);                                                      \
        if (i == count) return;                                                                                    \
        IN in_tail[8] = {0};                                                                                       \
        OUT out_tail[8];                                                                                           \
        memcpy(in_tail, in + i, (count - i) * sizeof *in);                                                         \
        STEP(in_tail, out_tail);                                                                                   \
        memcpy(out + i, out_tail, (count - i) * sizeof *out);                                                      \
    }

ALWAYS_INLINE void store8(float *out, float32x4x2_t values) {
    vst1q_f32(out, values.val[0]);
    vst1q_f32(out + 4, values.val[1]);
}
ALWAYS_INLINE void widen_f16(const uint16_t *in, float *out) { store8(out, load8(F16, in, 0)); }
ALWAYS_INLINE void widen_bf16(const uint16_t *in, float *out) { store8(out, load8(BF16, in, 0)); }
ALWAYS_INLINE void widen_i8(const int8_t *in, float *out) { store8(out, load8(I8, in, 0)); }
ALWAYS_INLINE void widen_u8(const uint8_t *in, float *out) { store8(out, load8(U8, in, 0)); }

ALWAYS_INLINE void narrow_f16(const float *in, uint16_t *out) {
    float16x4_t low = vcvt_f16_f32(vld1q_f32(in));
    vst1q_u16(out, vreinterpretq_u16_f16(vcvt_high_f16_f32(low, vld1q_f32(in + 4))));
}

/* Rounds to nearest even by adding just under half of the last place that stays; a NaN is made quiet instead. */
ALWAYS_INLINE uint16x4_t bf16_of_f32(float32x4_t value) {
    uint32x4_t bits = vreinterpretq_u32_f32(value);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(value, value), rounded, quiet), 16);
}
ALWAYS_INLINE void narrow_bf16(const float *in, uint16_t *out) {
    vst1_u16(out, bf16_of_f32(vld1q_f32(in)));
    vst1_u16(out + 4, bf16_of_f32(vld1q_f32(in + 4)));
}

CONVERT(f32_from_f16, uint16_t, float, widen_f16)
CONVERT(f32_from_bf16, uint16_t, float, widen_bf16)
CONVERT(f32_from_i8, int8_t, float, widen_i8)
CONVERT(f32_from_u8, uint8_t, float, widen_u8)
CONVERT(f16_from_f32, float, uint16_t, narrow_f16)
CONVERT(bf16_from_f32, float, uint16_t, narrow_bf16)

/* ---- filters ---- */

/* Sixteen values at a time: as a rule none passes. What passes is read from a mask of four bits a value. */
ALWAYS_INLINE size_t write_positions(uint64_t mask, size_t first, size_t found, uint32_t *out) {
    while (mask != 0) {
        unsigned value = (unsigned)__builtin_ctzll(mask) / 4;
        out[found++] = (uint32_t)(first + value);
        mask &= ~((uint64_t)15 << (4 * value));
    }
    return found;
}

/* From four comparisons (all ones or zero per value) to four bits a value: narrow twice, then by nibbles. */
ALWAYS_INLINE uint64_t nibble_mask(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
    uint16x8_t low = vcombine_u16(vmovn_u32(a), vmovn_u32(b)), high = vcombine_u16(vmovn_u32(c), vmovn_u32(d));
    uint8x16_t bytes = vcombine_u8(vmovn_u16(low), vmovn_u16(high));
    return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(bytes), 4)), 0);
}

#define FILTER(NAME, TYPE, SUFFIX, COMPARE, REJECTS)                                                               \
    static size_t NAME(const TYPE *values, size_t count, TYPE threshold, uint32_t *out) {                          \
        size_t found = 0, i = 0;                                                                                   \
        for (; count - i >= 16; i += 16) {                                                                         \
            uint32x4_t rejected[4];                                                                                \
            for (size_t k = 0; k < 4; k++)                                                                         \
                rejected[k] = COMPARE(vld1q_##SUFFIX(values + i + 4 * k), vdupq_n_##SUFFIX(threshold));            \
            uint64_t mask = ~nibble_mask(rejected[0], rejected[1], rejected[2], rejected[3]);                      \
            if (mask != 0) found = write_positions(mask, i, found, out);                                           \
        }                                                                                                          \
        for (; i < count; i++)                                                                                     \
            if (!(values[i] REJECTS threshold)) out[found++] = (uint32_t)i;                                        \
        return found;                                                                                              \
    }
FILTER(filter_f32, float, f32, vcltq_f32, <)
FILTER(filter_i32, int32_t, s32, vcltq_s32, <)
FILTER(filter_below_f32, float, f32, vcgtq_f32, >)
FILTER(filter_below_i32, int32_t, s32, vcgtq_s32, >)

/* ---- tiles ---- */

/* Four words of four vectors, turned over. A missing vector is zeros. */
ALWAYS_INLINE void pack_4x4(const uint32_t *const *vectors, size_t count, size_t w, size_t lanes,
                            uint32_t *packed) {
    uint32x4_t in[4];
    for (size_t v = 0; v < 4; v++) in[v] = v < count ? vld1q_u32(vectors[v] + w) : vdupq_n_u32(0);
    uint32x4x2_t ab = vtrnq_u32(in[0], in[1]), cd = vtrnq_u32(in[2], in[3]);
    vst1q_u32(packed, vcombine_u32(vget_low_u32(ab.val[0]), vget_low_u32(cd.val[0])));
    vst1q_u32(packed + lanes, vcombine_u32(vget_low_u32(ab.val[1]), vget_low_u32(cd.val[1])));
    vst1q_u32(packed + 2 * lanes, vcombine_u32(vget_high_u32(ab.val[0]), vget_high_u32(cd.val[0])));
    vst1q_u32(packed + 3 * lanes, vcombine_u32(vget_high_u32(ab.val[1]), vget_high_u32(cd.val[1])));
}

/* `lanes` is a multiple of four on this ISA. */
static void pack(const uint32_t *const *vectors, size_t count, size_t lanes, size_t words, uint32_t *packed) {
    for (size_t v = 0; v < lanes; v += 4) {
        size_t left = v < count ? count - v : 0, w = 0;
        const uint32_t *const *four = vectors + (v < count ? v : 0);
        for (; words - w >= 4; w += 4) pack_4x4(four, left, w, lanes, packed + w * lanes + v);
        for (; w < words; w++)
            for (size_t k = 0; k < 4; k++) packed[w * lanes + v + k] = k < left ? four[k][w] : 0;
    }
}

/* One word of eight queries on one word of eight rows. */
#define FMA_QUERY(Q, HALF, LANE)                                                                                   \
    sums[Q][0] = vfmaq_laneq_f32(sums[Q][0], row0, query##HALF, LANE);                                             \
    sums[Q][1] = vfmaq_laneq_f32(sums[Q][1], row1, query##HALF, LANE);

static void tile_f32_panel(const float *queries, const float *rows, size_t words, const float *bias, float *out,
                           size_t out_stride) {
    float32x4_t sums[QUERY_LANES][2];
    for (size_t q = 0; q < QUERY_LANES; q++) {
        sums[q][0] = vld1q_f32(bias);
        sums[q][1] = vld1q_f32(bias + 4);
    }
    for (size_t w = 0; w < words; w++, queries += QUERY_LANES, rows += ROW_LANES) {
        float32x4_t row0 = vld1q_f32(rows), row1 = vld1q_f32(rows + 4);
        float32x4_t query0 = vld1q_f32(queries), query1 = vld1q_f32(queries + 4);
        FMA_QUERY(0, 0, 0)
        FMA_QUERY(1, 0, 1)
        FMA_QUERY(2, 0, 2)
        FMA_QUERY(3, 0, 3)
        FMA_QUERY(4, 1, 0)
        FMA_QUERY(5, 1, 1)
        FMA_QUERY(6, 1, 2)
        FMA_QUERY(7, 1, 3)
    }
    for (size_t q = 0; q < QUERY_LANES; q++) {
        vst1q_f32(out + q * out_stride, sums[q][0]);
        vst1q_f32(out + q * out_stride + 4, sums[q][1]);
    }
}

static void tile_f32(const float *queries, const float *rows, size_t words, size_t row_panels, const float *bias,
                     float *out, size_t out_stride) {
    for (size_t p = 0; p < row_panels; p++)
        tile_f32_panel(queries, rows + p * words * ROW_LANES, words, bias + p * ROW_LANES, out + p * ROW_LANES,
                       out_stride);
}

/* Without dot products a word is two elements as i16, exact for both types: there is nothing to correct. */
enum { GROUP = 2 };

static int32_t tile_prepare(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words) {
    const uint8_t *elements = vector;
    for (size_t i = 0; i < dim; i += GROUP) {
        int16_t pair[GROUP] = {0};
        for (size_t k = 0; k < GROUP && i + k < dim; k++)
            pair[k] = dtype == KITH_I8 ? (int16_t)(int8_t)elements[i + k] : elements[i + k];
        memcpy(words + i / GROUP, pair, sizeof pair);
    }
    return 0;
}

/* The first and the second elements of eight rows' words, times those of query Q: lanes 2Q and 2Q + 1 of the
 * queries' words. */
#define MLAL_QUERY(Q, HALF, LANE)                                                                                  \
    sums[Q][0] = vmlal_laneq_s16(sums[Q][0], vget_low_s16(row.val[0]), query##HALF, 2 * (LANE));                   \
    sums[Q][1] = vmlal_high_laneq_s16(sums[Q][1], row.val[0], query##HALF, 2 * (LANE));                            \
    sums[Q][0] = vmlal_laneq_s16(sums[Q][0], vget_low_s16(row.val[1]), query##HALF, 2 * (LANE) + 1);               \
    sums[Q][1] = vmlal_high_laneq_s16(sums[Q][1], row.val[1], query##HALF, 2 * (LANE) + 1);

static void tile_i8_panel(const uint32_t *queries, const uint32_t *rows, size_t words, const int32_t *bias,
                          int32_t *out, size_t out_stride) {
    int32x4_t sums[QUERY_LANES][2];
    for (size_t q = 0; q < QUERY_LANES; q++) {
        sums[q][0] = vld1q_s32(bias);
        sums[q][1] = vld1q_s32(bias + 4);
    }
    for (size_t w = 0; w < words; w++, queries += QUERY_LANES, rows += ROW_LANES) {
        int16x8_t row_low = vreinterpretq_s16_u32(vld1q_u32(rows));
        int16x8x2_t row = vuzpq_s16(row_low, vreinterpretq_s16_u32(vld1q_u32(rows + 4)));
        int16x8_t query0 = vreinterpretq_s16_u32(vld1q_u32(queries));
        int16x8_t query1 = vreinterpretq_s16_u32(vld1q_u32(queries + 4));
        MLAL_QUERY(0, 0, 0)
        MLAL_QUERY(1, 0, 1)
        MLAL_QUERY(2, 0, 2)
        MLAL_QUERY(3, 0, 3)
        MLAL_QUERY(4, 1, 0)
        MLAL_QUERY(5, 1, 1)
        MLAL_QUERY(6, 1, 2)
        MLAL_QUERY(7, 1, 3)
    }
    for (size_t q = 0; q < QUERY_LANES; q++) {
        vst1q_s32(out + q * out_stride, sums[q][0]);
        vst1q_s32(out + q * out_stride + 4, sums[q][1]);
    }
}

static void tile_i8(const uint32_t *queries, const uint32_t *rows, size_t words, size_t row_panels,
                    const int32_t *bias, int32_t *out, size_t out_stride) {
    for (size_t p = 0; p < row_panels; p++)
        tile_i8_panel(queries, rows + p * words * ROW_LANES, words, bias + p * ROW_LANES, out + p * ROW_LANES,
                      out_stride);
}

/* ---- peaks ---- */

/* Sixteen chains: more than latency times units needs. They have names, as an array whose elements an assembly
 * statement touches would lie in memory. */
enum { CHAINS = 16 };
#define EACH(DO)                                                                                                   \
    DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)
#define FMA_SUM(N) float32x4_t sum##N = vdupq_n_f32(N);
#define FMA_STEP(N)                                                                                                \
    sum##N = vfmaq_f32(sum##N, factor, factor);                                                                    \
    OPAQUE(sum##N);
#define DOT_SUM(N) int32x4_t sum##N = vdupq_n_s32(N);
#define DOT_STEP(N)                                                                                                \
    sum##N = vmlal_s16(sum##N, factor, factor);                                                                    \
    OPAQUE(sum##N);

static uint64_t peak_fma_f32(size_t rounds) {
    const float32x4_t factor = vdupq_n_f32(0.5f);
    EACH(FMA_SUM)
    for (size_t i = 0; i < rounds; i++) {
        EACH(FMA_STEP)
    }
    return (uint64_t)rounds * CHAINS * 4;
}

static uint64_t peak_dot_i8(size_t rounds) {
    const int16x4_t factor = vdup_n_s16(3);
    EACH(DOT_SUM)
    for (size_t i = 0; i < rounds; i++) {
        EACH(DOT_STEP)
    }
    return (uint64_t)rounds * CHAINS * 4;
}

static uint64_t peak_read(const void *memory, size_t bytes) {
    const uint8_t *from = memory;
    uint8x16_t sums[8];
    for (size_t s = 0; s < 8; s++) sums[s] = vdupq_n_u8(0);
    size_t i = 0;
    for (; bytes - i >= 128; i += 128) {
#pragma GCC unroll 8
        for (size_t s = 0; s < 8; s++) sums[s] = veorq_u8(sums[s], vld1q_u8(from + i + 16 * s));
    }
    for (size_t s = 1; s < 8; s++) sums[0] = veorq_u8(sums[0], sums[s]);
    uint64_t sum = vaddvq_u64(vreinterpretq_u64_u8(sums[0]));
    for (; i < bytes; i++) sum += from[i];
    return sum;
}

/* ---- the table ---- */

#define KERNELS(NAME) ((kith_float_kernels){NAME, NAME##_four, NAME##_block})

static void fill_floats(kith_simd_table *table) {
    kith_float_kernels *l2sq = table->floats[KITH_OP_L2SQ], *ip = table->floats[KITH_OP_IP];
    l2sq[KITH_PAIR_F32_F32] = KERNELS(l2sq_f32_f32);
    l2sq[KITH_PAIR_F32_F16] = KERNELS(l2sq_f32_f16);
    l2sq[KITH_PAIR_F32_BF16] = KERNELS(l2sq_f32_bf16);
    l2sq[KITH_PAIR_F32_I8] = KERNELS(l2sq_f32_i8);
    l2sq[KITH_PAIR_F32_U8] = KERNELS(l2sq_f32_u8);
    l2sq[KITH_PAIR_F16_F16] = KERNELS(l2sq_f16_f16);
    l2sq[KITH_PAIR_BF16_BF16] = KERNELS(l2sq_bf16_bf16);
    ip[KITH_PAIR_F32_F32] = KERNELS(ip_f32_f32);
    ip[KITH_PAIR_F32_F16] = KERNELS(ip_f32_f16);
    ip[KITH_PAIR_F32_BF16] = KERNELS(ip_f32_bf16);
    ip[KITH_PAIR_F32_I8] = KERNELS(ip_f32_i8);
    ip[KITH_PAIR_F32_U8] = KERNELS(ip_f32_u8);
    ip[KITH_PAIR_F16_F16] = KERNELS(ip_f16_f16);
    ip[KITH_PAIR_BF16_BF16] = KERNELS(ip_bf16_bf16);
}

void kith_fill_neon(kith_simd_table *table) {
    fill_floats(table);
    fill_ints(table);
    table->norm2_f32 = norm2_f32;
    table->norm2_f16 = norm2_f16;
    table->norm2_bf16 = norm2_bf16;
    table->f32_from_f16 = f32_from_f16;
    table->f32_from_bf16 = f32_from_bf16;
    table->f32_from_i8 = f32_from_i8;
    table->f32_from_u8 = f32_from_u8;
    table->f16_from_f32 = f16_from_f32;
    table->bf16_from_f32 = bf16_from_f32;
    table->filter_f32 = filter_f32;
    table->filter_i32 = filter_i32;
    table->filter_below_f32 = filter_below_f32;
    table->filter_below_i32 = filter_below_i32;
    table->pack = pack;
    table->tile_f32 = (kith_tile_f32){QUERY_LANES, ROW_LANES, tile_f32};
    table->tile_i8 = (kith_tile_i8){QUERY_LANES, ROW_LANES, GROUP, tile_prepare, tile_prepare, tile_i8};
    table->peaks = (kith_peaks){peak_fma_f32, peak_dot_i8, peak_read};
}
