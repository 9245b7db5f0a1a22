/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_fields.c: the kernels of fields.h with AVX-512 F, BW, VL and DQ.
 */
#include <immintrin.h>

#include "simd/isa.h"
#include "simd/x86/fields_line.h"

#define INLINE static inline __attribute__((always_inline))
#define VEC    __m512i
enum { LANES = 16, TILE_QUERIES = 8 };

/* The first `count` lanes of 16; count may be larger. */
INLINE __mmask16 lanes_below(size_t count) {
    return (__mmask16)_bzhi_u32(0xffff, (unsigned)(count < LANES ? count : LANES));
}

INLINE __m512i load_words(const void *p) { return _mm512_loadu_si512(p); }
INLINE void store_words(void *p, __m512i words) { _mm512_storeu_si512(p, words); }
INLINE __m512i load_part(const uint32_t *p, size_t count) {
    return _mm512_maskz_loadu_epi32(lanes_below(count), p);
}
INLINE __m512i set_words(uint32_t word) { return _mm512_set1_epi32((int)word); }
INLINE __m512i and_words(__m512i a, __m512i b) { return _mm512_and_si512(a, b); }
INLINE __m512i shift_right(__m512i words, unsigned bits) { return _mm512_srli_epi32(words, bits); }
INLINE __m512i shift_right_8_u16(__m512i v) { return _mm512_srli_epi16(v, 8); }
INLINE __m512i shift_right_8_i16(__m512i v) { return _mm512_srai_epi16(v, 8); }
INLINE __m512i shift_left_8_16(__m512i v) { return _mm512_slli_epi16(v, 8); }
INLINE __m512i maddubs(__m512i fields, __m512i bytes) { return _mm512_maddubs_epi16(fields, bytes); }
INLINE __m512i madd(__m512i a, __m512i b) { return _mm512_madd_epi16(a, b); }
INLINE __m512i add_16(__m512i a, __m512i b) { return _mm512_add_epi16(a, b); }
INLINE __m512i add_32(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }

INLINE __m512i pair_up(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

/* The sums of four registers, in order. */
INLINE __m128i fold_four(const __m512i v[4]) {
    __m512i ab = pair_up(v[0], v[1]), cd = pair_up(v[2], v[3]);
    __m512i four = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    __m256i two = _mm256_add_epi32(_mm512_castsi512_si256(four), _mm512_extracti64x4_epi64(four, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1));
}

/* ---- estimates ---- */

INLINE __m512 f32_of_dots(const int32_t *dots) { return _mm512_cvtepi32_ps(load_words(dots)); }

/* Sixteen rows of one query. */
INLINE void estimate_sixteen(const kith_affine *query, size_t parts, const int32_t *dots, __m512 add, __m512 scale,
                             float *out) {
    __m512 unit = _mm512_set1_ps(query->unit), offset = _mm512_set1_ps(query->offset);
    __m512 inner = _mm512_fmadd_ps(f32_of_dots(dots + (parts - 1) * KITH_BLOCK_ROWS), unit, offset);
    if (parts == 2) inner = _mm512_fmadd_ps(f32_of_dots(dots), _mm512_set1_ps(128 * query->unit), inner);
    __m512 in_steps = _mm512_fmadd_ps(scale, inner, add);
    _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_set1_ps(query->step), in_steps, _mm512_set1_ps(query->base)));
}

INLINE void estimate(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                     const __m512 add[2], const __m512 scale[2], float *out, size_t out_stride) {
    for (size_t q = 0; q < query_count; q++, dots += parts * KITH_BLOCK_ROWS, out += out_stride) {
        estimate_sixteen(&queries[q], parts, dots, add[0], scale[0], out);
        estimate_sixteen(&queries[q], parts, dots + LANES, add[1], scale[1], out + LANES);
    }
}

static void estimate_block(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                           const float *add, const float *scale, float *out, size_t out_stride) {
    const __m512 adds[2] = {_mm512_loadu_ps(add), _mm512_loadu_ps(add + LANES)};
    const __m512 scales[2] = {_mm512_loadu_ps(scale), _mm512_loadu_ps(scale + LANES)};
    if (parts == 1)
        estimate(queries, query_count, 1, dots, adds, scales, out, out_stride);
    else
        estimate(queries, query_count, 2, dots, adds, scales, out, out_stride);
}

INLINE __m512 f32_of_f16(const uint16_t *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)from));
}

static void estimate_block_f16(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                               const uint16_t *add, const uint16_t *scale, float *out, size_t out_stride) {
    const __m512 adds[2] = {f32_of_f16(add), f32_of_f16(add + LANES)};
    const __m512 scales[2] = {f32_of_f16(scale), f32_of_f16(scale + LANES)};
    if (parts == 1)
        estimate(queries, query_count, 1, dots, adds, scales, out, out_stride);
    else
        estimate(queries, query_count, 2, dots, adds, scales, out, out_stride);
}

static void next_plane(int32_t *sums, const int32_t *dots, unsigned bits, size_t count) {
    const __m128i shift = _mm_cvtsi32_si128((int)bits);
    for (size_t i = 0; i < count; i += LANES) {
        __mmask16 lanes = lanes_below(count - i);
        __m512i shifted = _mm512_sll_epi32(_mm512_maskz_loadu_epi32(lanes, sums + i), shift);
        _mm512_mask_storeu_epi32(sums + i, lanes, add_32(shifted, _mm512_maskz_loadu_epi32(lanes, dots + i)));
    }
}

/* ---- rounding ---- */

static float largest(const float *values, size_t count) {
    __m512 first = _mm512_setzero_ps(), second = first;
    size_t i = 0;
    for (; count - i >= 2 * LANES; i += 2 * LANES) {
        first = _mm512_max_ps(first, _mm512_abs_ps(_mm512_loadu_ps(values + i)));
        second = _mm512_max_ps(second, _mm512_abs_ps(_mm512_loadu_ps(values + i + LANES)));
    }
    for (; i < count; i += LANES)
        first = _mm512_max_ps(first, _mm512_abs_ps(_mm512_maskz_loadu_ps(lanes_below(count - i), values + i)));
    return _mm512_reduce_max_ps(_mm512_max_ps(first, second));
}

INLINE __m512i whole(const float *values, __mmask16 lanes, __m512 factor, __m512 limit) {
    __m512 product = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, values), factor);
    return _mm512_cvtps_epi32(
        _mm512_max_ps(_mm512_min_ps(product, limit), _mm512_sub_ps(_mm512_setzero_ps(), limit)));
}

static int32_t to_s8(const float *values, size_t count, float factor, int8_t *out) {
    const __m512 factors = _mm512_set1_ps(factor), limit = _mm512_set1_ps(127);
    __m512i sums = _mm512_setzero_si512();
    for (size_t i = 0; i < count; i += LANES) {
        __mmask16 lanes = lanes_below(count - i);
        __m512i value = whole(values + i, lanes, factors, limit);
        _mm512_mask_cvtepi32_storeu_epi8(out + i, lanes, value);
        sums = _mm512_add_epi32(sums, value);
    }
    return _mm512_reduce_add_epi32(sums);
}

static int32_t to_s15(const float *values, size_t count, float factor, int8_t *high, int8_t *low) {
    const __m512 factors = _mm512_set1_ps(factor), limit = _mm512_set1_ps(127 * 128);
    __m512i sums = _mm512_setzero_si512();
    for (size_t i = 0; i < count; i += LANES) {
        __mmask16 lanes = lanes_below(count - i);
        __m512i value = whole(values + i, lanes, factors, limit);
        __m512i top = _mm512_srai_epi32(_mm512_add_epi32(value, _mm512_set1_epi32(64)), 7);
        _mm512_mask_cvtepi32_storeu_epi8(high + i, lanes, top);
        _mm512_mask_cvtepi32_storeu_epi8(low + i, lanes, _mm512_sub_epi32(value, _mm512_slli_epi32(top, 7)));
        sums = _mm512_add_epi32(sums, value);
    }
    return _mm512_reduce_add_epi32(sums);
}

#include "simd/x86/fields_pairs.h"

void kith_fill_avx512_fields(kith_simd_table *table) {
    fill_fields(table);
    table->rounding = (kith_rounding_kernels){largest, to_s8, to_s15};
}
