/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_fields.c: the kernels of fields.h with AVX-512 F, BW, VL and DQ.
 */
#include <immintrin.h>

#include "simd/isa.h"
#include "simd/x86/fields_line.h"

#define INLINE static inline __attribute__((always_inline))
#define VEC    __m512i
#define FVEC   __m512
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
INLINE void store_part(void *p, __m512i words, size_t count) {
    _mm512_mask_storeu_epi32(p, lanes_below(count), words);
}
INLINE __m512i set_words(uint32_t word) { return _mm512_set1_epi32((int)word); }
INLINE __m512i and_words(__m512i a, __m512i b) { return _mm512_and_si512(a, b); }
INLINE __m512i or_words(__m512i a, __m512i b) { return _mm512_or_si512(a, b); }
INLINE __m512i xor_words(__m512i a, __m512i b) { return _mm512_xor_si512(a, b); }
INLINE __m512i shift_right(__m512i words, unsigned bits) { return _mm512_srli_epi32(words, bits); }
INLINE __m512i shift_right_8_u16(__m512i v) { return _mm512_srli_epi16(v, 8); }
INLINE __m512i shift_right_8_i16(__m512i v) { return _mm512_srai_epi16(v, 8); }
INLINE __m512i shift_left_8_16(__m512i v) { return _mm512_slli_epi16(v, 8); }
INLINE __m512i maddubs(__m512i fields, __m512i bytes) { return _mm512_maddubs_epi16(fields, bytes); }
INLINE __m512i madd(__m512i a, __m512i b) { return _mm512_madd_epi16(a, b); }
INLINE __m512i add_16(__m512i a, __m512i b) { return _mm512_add_epi16(a, b); }
INLINE __m512i add_32(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
INLINE __m512i sub_8(__m512i a, __m512i b) { return _mm512_sub_epi8(a, b); }
INLINE __m512i sub_16(__m512i a, __m512i b) { return _mm512_sub_epi16(a, b); }
INLINE __m512i abs_16(__m512i v) { return _mm512_abs_epi16(v); }
INLINE uint32_t sign_bits(__m512i words) { return _mm512_movepi32_mask(words); }

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

/* ---- what fields_estimates.h needs ---- */

INLINE __m512i sub_32(__m512i a, __m512i b) { return _mm512_sub_epi32(a, b); }
INLINE __m512i shift_left_by(__m512i v, unsigned bits) { return _mm512_sll_epi32(v, _mm_cvtsi32_si128((int)bits)); }
INLINE __m512i shift_right_signed(__m512i v, unsigned bits) { return _mm512_srai_epi32(v, bits); }
INLINE __m512 set_f32(float value) { return _mm512_set1_ps(value); }
INLINE __m512 load_f32(const float *p) { return _mm512_loadu_ps(p); }
INLINE __m512 load_f32_part(const float *p, size_t count) { return _mm512_maskz_loadu_ps(lanes_below(count), p); }
INLINE void store_f32(float *p, __m512 v) { _mm512_storeu_ps(p, v); }
INLINE __m512 f32_of_words(__m512i words) { return _mm512_cvtepi32_ps(words); }
INLINE __m512i words_of_f32(__m512 v) { return _mm512_cvtps_epi32(v); }
INLINE __m512 f32_of_f16(const uint16_t *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)from));
}
INLINE __m512 multiply_f32(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }
INLINE __m512 multiply_add(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
INLINE __m512 min_f32(__m512 a, __m512 b) { return _mm512_min_ps(a, b); }
INLINE __m512 max_f32(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
INLINE __m512 magnitude(__m512 v) { return _mm512_abs_ps(v); }
INLINE __m512i bits_of_f32(__m512 v) { return _mm512_castps_si512(v); }
INLINE bool has_bits(__m512i words) { return _mm512_test_epi32_mask(words, words) != 0; }
INLINE float largest_lane(__m512 v) { return _mm512_reduce_max_ps(v); }
INLINE int32_t sum_of_lanes(__m512i words) { return _mm512_reduce_add_epi32(words); }
/* The lowest bytes of the first `count` of sixteen words. */
INLINE void store_bytes(int8_t *out, __m512i words, size_t count) {
    if (count >= LANES)
        _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtepi32_epi8(words));
    else
        _mm512_mask_cvtepi32_storeu_epi8(out, lanes_below(count), words);
}

#include "simd/x86/fields_estimates.h"
#include "simd/x86/fields_pairs.h"

void kith_fill_avx512_fields(kith_simd_table *table) {
    fill_fields(table);
    table->rounding = (kith_rounding_kernels){largest, to_s8, to_s15, as_bytes};
}
