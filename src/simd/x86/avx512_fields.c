/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_fields.c: the kernels of fields.h with AVX-512 F, BW, VL and DQ.
 */
#include <immintrin.h>

#include "simd/isa.h"

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

INLINE __m512 inner(const int32_t *dots, __mmask16 lanes, __m512 unit, __m512 offset) {
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(lanes, dots)), unit, offset);
}
INLINE void put(float *out, __mmask16 lanes, __m512 base, __m512 add, __m512 scale, __m512 product) {
    _mm512_mask_storeu_ps(out, lanes, _mm512_add_ps(base, _mm512_fmadd_ps(scale, product, add)));
}
INLINE __m512 f32_of_f16(const uint16_t *from, __mmask16 lanes) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, from));
}

static void affine(const int32_t *dots, const float *add, const float *scale, size_t count, float unit,
                   float offset, float base, float *out) {
    const __m512 units = _mm512_set1_ps(unit), offsets = _mm512_set1_ps(offset), bases = _mm512_set1_ps(base);
    for (size_t i = 0; i < count; i += LANES) {
        __mmask16 lanes = lanes_below(count - i);
        put(out + i, lanes, bases, _mm512_maskz_loadu_ps(lanes, add + i), _mm512_maskz_loadu_ps(lanes, scale + i),
            inner(dots + i, lanes, units, offsets));
    }
}

static void affine_f16(const int32_t *dots, const uint16_t *add, const uint16_t *scale, size_t count, float unit,
                       float offset, float step, float base, float *out) {
    const __m512 units = _mm512_set1_ps(unit), offsets = _mm512_set1_ps(offset), bases = _mm512_set1_ps(base),
                 steps = _mm512_set1_ps(step);
    for (size_t i = 0; i < count; i += LANES) {
        __mmask16 lanes = lanes_below(count - i);
        __m512 in_steps = _mm512_fmadd_ps(f32_of_f16(scale + i, lanes), inner(dots + i, lanes, units, offsets),
                                          f32_of_f16(add + i, lanes));
        _mm512_mask_storeu_ps(out + i, lanes, _mm512_fmadd_ps(steps, in_steps, bases));
    }
}

static void affine_parts(const int32_t *high, const int32_t *low, const float *add, const float *scale,
                         size_t count, float unit, float offset, float base, float *out) {
    const __m512 units = _mm512_set1_ps(unit), offsets = _mm512_set1_ps(offset), bases = _mm512_set1_ps(base),
                 high_units = _mm512_set1_ps(128 * unit);
    for (size_t i = 0; i < count; i += LANES) {
        __mmask16 lanes = lanes_below(count - i);
        put(out + i, lanes, bases, _mm512_maskz_loadu_ps(lanes, add + i), _mm512_maskz_loadu_ps(lanes, scale + i),
            inner(high + i, lanes, high_units, inner(low + i, lanes, units, offsets)));
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
