/* SPDX-License-Identifier: Apache-2.0
 *
 * neon_fields.c: the kernels of fields.h for AArch64's base.
 */
#include "simd/arm/neon.h"

/* ---- products ---- */

enum { TILE_VECTORS = 2 };

/* Products of bytes are added up in 16 bits, those of the lower eight apart from those of the upper eight. */
typedef struct sums {
    int16x8_t low, high;
} sums;
ALWAYS_INLINE sums clear(void) { return (sums){vdupq_n_s16(0), vdupq_n_s16(0)}; }
ALWAYS_INLINE sums multiply_add(sums sum, int8x16_t fields, int8x16_t query) {
    return (sums){vmlal_s8(sum.low, vget_low_s8(fields), vget_low_s8(query)),
                  vmlal_high_s8(sum.high, fields, query)};
}
/* Of four rows, or of a quarter of one. */
ALWAYS_INLINE int32x4_t total(sums sum) { return vpaddq_s32(vpaddlq_s16(sum.low), vpaddlq_s16(sum.high)); }

/* Words whose sums fit 16 bits: each adds 8 / width products, of 127 and at most 2^width - 1, or 128 for width 8. */
ALWAYS_INLINE size_t chunk_words(unsigned width) {
    return (size_t)INT16_MAX / (127 * (width == 8 ? 128 : (1u << width) - 1)) * width / 8;
}

#include "simd/arm/neon_fields.h"

/* ---- estimates ---- */

/* Four rows of one query; the products of its parts are `stride` apart. */
ALWAYS_INLINE void estimate(const kith_affine *query, size_t parts, const int32_t *dots, size_t stride,
                            float32x4_t add, float32x4_t scale, float *out) {
    float32x4_t last = vcvtq_f32_s32(vld1q_s32(dots + (parts - 1) * stride));
    float32x4_t inner = vfmaq_f32(vdupq_n_f32(query->offset), last, vdupq_n_f32(query->unit));
    if (parts == 2) inner = vfmaq_f32(inner, vcvtq_f32_s32(vld1q_s32(dots)), vdupq_n_f32(128 * query->unit));
    vst1q_f32(out, finish(query, inner, add, scale));
}

ALWAYS_INLINE void estimate_all(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                                float32x4_t add, float32x4_t scale, float *out, size_t out_stride) {
    for (size_t q = 0; q < query_count; q++)
        estimate(&queries[q], parts, dots + q * parts * KITH_BLOCK_ROWS, KITH_BLOCK_ROWS, add, scale,
                 out + q * out_stride);
}

static void estimate_block(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                           const float *add, const float *scale, float *out, size_t out_stride) {
    for (size_t r = 0; r < KITH_BLOCK_ROWS; r += LANES)
        estimate_all(queries, query_count, parts, dots + r, vld1q_f32(add + r), vld1q_f32(scale + r), out + r,
                     out_stride);
}

ALWAYS_INLINE float32x4_t f32_of_f16(const uint16_t *from) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
}

static void estimate_block_f16(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                               const uint16_t *add, const uint16_t *scale, float *out, size_t out_stride) {
    for (size_t r = 0; r < KITH_BLOCK_ROWS; r += LANES)
        estimate_all(queries, query_count, parts, dots + r, f32_of_f16(add + r), f32_of_f16(scale + r), out + r,
                     out_stride);
}

static void estimate_four(const kith_affine *query, size_t parts, const int32_t *dots, const float add[4],
                          const float scale[4], float out[4]) {
    estimate(query, parts, dots, 4, vld1q_f32(add), vld1q_f32(scale), out);
}

static void next_plane(int32_t *sums_out, const int32_t *dots, unsigned bits, size_t count) {
    const int32x4_t shift = vdupq_n_s32((int32_t)bits);
    size_t i = 0;
    for (; count - i >= LANES; i += LANES)
        vst1q_s32(sums_out + i, vaddq_s32(vshlq_s32(vld1q_s32(sums_out + i), shift), vld1q_s32(dots + i)));
    for (; i < count; i++) sums_out[i] = (int32_t)((uint32_t)sums_out[i] << bits) + dots[i];
}

/* ---- rounding ---- */

static float largest(const float *values, size_t count) {
    float32x4_t most = vdupq_n_f32(0);
    size_t i = 0;
    for (; count - i >= LANES; i += LANES) most = vmaxq_f32(most, vabsq_f32(vld1q_f32(values + i)));
    for (; i < count; i++) most = vmaxq_f32(most, vabsq_f32(vld1q_dup_f32(values + i)));
    return vmaxvq_f32(most);
}

ALWAYS_INLINE int32x4_t whole(const float *values, size_t count, float factor, float limit) {
    float some[LANES] = {0};
    if (count < LANES) values = memcpy(some, values, count * sizeof *values);
    float32x4_t product = vmulq_f32(vld1q_f32(values), vdupq_n_f32(factor));
    return vcvtnq_s32_f32(vmaxq_f32(vminq_f32(product, vdupq_n_f32(limit)), vdupq_n_f32(-limit)));
}

/* The lowest bytes of the first `count` of four words. */
ALWAYS_INLINE void store_bytes(int8_t *out, int32x4_t words, size_t count) {
    int16x4_t halves = vmovn_s32(words);
    int8x8_t bytes = vmovn_s16(vcombine_s16(halves, halves));
    uint32_t four = vget_lane_u32(vreinterpret_u32_s8(bytes), 0);
    memcpy(out, &four, count < LANES ? count : LANES);
}

static int32_t to_s8(const float *values, size_t count, float factor, int8_t *out) {
    int32x4_t sum = vdupq_n_s32(0);
    for (size_t i = 0; i < count; i += LANES) {
        int32x4_t value = whole(values + i, count - i, factor, 127);
        sum = vaddq_s32(sum, value);
        store_bytes(out + i, value, count - i);
    }
    return vaddvq_s32(sum);
}

static int32_t to_s15(const float *values, size_t count, float factor, int8_t *high, int8_t *low) {
    int32x4_t sum = vdupq_n_s32(0);
    for (size_t i = 0; i < count; i += LANES) {
        int32x4_t value = whole(values + i, count - i, factor, 127 * 128);
        int32x4_t top = vshrq_n_s32(vaddq_s32(value, vdupq_n_s32(64)), 7);
        sum = vaddq_s32(sum, value);
        store_bytes(high + i, top, count - i);
        store_bytes(low + i, vsubq_s32(value, vshlq_n_s32(top, 7)), count - i);
    }
    return vaddvq_s32(sum);
}

static bool as_bytes(const float *values, size_t count, int32_t lowest, uint8_t *out) {
    for (size_t i = 0; i < count; i += LANES) {
        float some[LANES] = {0};
        const float *from = values + i;
        if (count - i < LANES) from = memcpy(some, from, (count - i) * sizeof *values);
        float32x4_t value = vld1q_f32(from);
        int32x4_t word = vcvtnq_s32_f32(value);
        uint32x4_t above = vreinterpretq_u32_s32(vsubq_s32(word, vdupq_n_s32(lowest)));
        uint32x4_t same =
            vandq_u32(vceqq_u32(vreinterpretq_u32_f32(vcvtq_f32_s32(word)), vreinterpretq_u32_f32(value)),
                      vcleq_u32(above, vdupq_n_u32(255)));
        if (vminvq_u32(same) == 0) return false;
        store_bytes((int8_t *)out + i, word, count - i);
    }
    return true;
}

void kith_fill_neon_fields(kith_simd_table *table) {
    fill_fields(table);
    table->estimates.block = estimate_block;
    table->estimates.block_f16 = estimate_block_f16;
    table->estimates.four = estimate_four;
    table->estimates.next_plane = next_plane;
    table->rounding = (kith_rounding_kernels){largest, to_s8, to_s15, as_bytes};
}
