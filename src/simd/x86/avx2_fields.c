/* SPDX-License-Identifier: Apache-2.0
 *
 * avx2_fields.c: the kernels of fields.h with AVX2, FMA and F16C.
 */
#include <immintrin.h>
#include <string.h>

#include "simd/isa.h"
#include "simd/x86/fields_line.h"

#define INLINE static inline __attribute__((always_inline))
#define VEC    __m256i
#define FVEC   __m256
enum { LANES = 8, TILE_QUERIES = 4 };

INLINE __m256i load_words(const void *p) { return _mm256_loadu_si256(p); }
INLINE void store_words(void *p, __m256i words) { _mm256_storeu_si256(p, words); }
INLINE __m256i lanes_below(size_t count) { /* the first `count` of eight; count may be larger */
    __m256i counts = _mm256_set1_epi32(count < LANES ? (int)count : LANES);
    return _mm256_cmpgt_epi32(counts, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE __m256i load_part(const uint32_t *p, size_t count) {
    return _mm256_maskload_epi32((const int *)p, lanes_below(count));
}
INLINE __m256i set_words(uint32_t word) { return _mm256_set1_epi32((int)word); }
INLINE __m256i and_words(__m256i a, __m256i b) { return _mm256_and_si256(a, b); }
INLINE __m256i shift_right(__m256i words, unsigned bits) { return _mm256_srli_epi32(words, (int)bits); }
INLINE __m256i shift_right_8_u16(__m256i v) { return _mm256_srli_epi16(v, 8); }
INLINE __m256i shift_right_8_i16(__m256i v) { return _mm256_srai_epi16(v, 8); }
INLINE __m256i shift_left_8_16(__m256i v) { return _mm256_slli_epi16(v, 8); }
INLINE __m256i maddubs(__m256i fields, __m256i bytes) { return _mm256_maddubs_epi16(fields, bytes); }
INLINE __m256i madd(__m256i a, __m256i b) { return _mm256_madd_epi16(a, b); }
INLINE __m256i add_16(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }
INLINE __m256i add_32(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }

/* The sums of four registers, in order. */
INLINE __m128i fold_four(const __m256i v[4]) {
    __m256i abcd = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(abcd), _mm256_extracti128_si256(abcd, 1));
}

/* ---- what fields_estimates.h needs ---- */

INLINE __m256i sub_32(__m256i a, __m256i b) { return _mm256_sub_epi32(a, b); }
INLINE __m256i shift_left_by(__m256i v, unsigned bits) { return _mm256_sll_epi32(v, _mm_cvtsi32_si128((int)bits)); }
INLINE __m256i shift_right_signed(__m256i v, unsigned bits) { return _mm256_srai_epi32(v, (int)bits); }
INLINE __m256 set_f32(float value) { return _mm256_set1_ps(value); }
INLINE __m256 load_f32(const float *p) { return _mm256_loadu_ps(p); }
INLINE __m256 load_f32_part(const float *p, size_t count) { return _mm256_maskload_ps(p, lanes_below(count)); }
INLINE void store_f32(float *p, __m256 v) { _mm256_storeu_ps(p, v); }
INLINE __m256 f32_of_words(__m256i words) { return _mm256_cvtepi32_ps(words); }
INLINE __m256i words_of_f32(__m256 v) { return _mm256_cvtps_epi32(v); }
INLINE __m256 f32_of_f16(const uint16_t *from) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)from));
}
INLINE __m256 multiply_f32(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }
INLINE __m256 multiply_add(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
INLINE __m256 min_f32(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
INLINE __m256 max_f32(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
INLINE __m256 magnitude(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

INLINE float largest_lane(__m256 v) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

INLINE int32_t sum_of_lanes(__m256i words) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

/* The first `count` of eight words that fit a byte. */
INLINE void store_bytes(int8_t *out, __m256i words, size_t count) {
    __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    int64_t bytes = _mm_cvtsi128_si64(_mm_packs_epi16(halves, halves));
    if (count >= LANES)
        memcpy(out, &bytes, sizeof bytes);
    else
        for (size_t i = 0; i < count; i++) out[i] = (int8_t)(bytes >> (8 * i));
}

#include "simd/x86/fields_estimates.h"
#include "simd/x86/fields_pairs.h"

void kith_fill_avx2_fields(kith_simd_table *table) {
    fill_fields(table);
    table->rounding = (kith_rounding_kernels){largest, to_s8, to_s15};
}
