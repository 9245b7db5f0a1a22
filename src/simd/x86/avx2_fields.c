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

/* ---- estimates ---- */

INLINE __m256 f32_of_dots(const int32_t *dots) { return _mm256_cvtepi32_ps(load_words(dots)); }

/* Eight rows of one query. */
INLINE void estimate_eight(const kith_affine *query, size_t parts, const int32_t *dots, __m256 add, __m256 scale,
                           float *out) {
    __m256 unit = _mm256_set1_ps(query->unit), offset = _mm256_set1_ps(query->offset);
    __m256 inner = _mm256_fmadd_ps(f32_of_dots(dots + (parts - 1) * KITH_BLOCK_ROWS), unit, offset);
    if (parts == 2) inner = _mm256_fmadd_ps(f32_of_dots(dots), _mm256_set1_ps(128 * query->unit), inner);
    __m256 in_steps = _mm256_fmadd_ps(scale, inner, add);
    _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_set1_ps(query->step), in_steps, _mm256_set1_ps(query->base)));
}

INLINE void estimate_eights(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                            __m256 add, __m256 scale, float *out, size_t out_stride) {
    for (size_t q = 0; q < query_count; q++)
        estimate_eight(&queries[q], parts, dots + q * parts * KITH_BLOCK_ROWS, add, scale, out + q * out_stride);
}

static void estimate_block(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                           const float *add, const float *scale, float *out, size_t out_stride) {
    for (size_t r = 0; r < KITH_BLOCK_ROWS; r += LANES) {
        __m256 adds = _mm256_loadu_ps(add + r), scales = _mm256_loadu_ps(scale + r);
        if (parts == 1)
            estimate_eights(queries, query_count, 1, dots + r, adds, scales, out + r, out_stride);
        else
            estimate_eights(queries, query_count, 2, dots + r, adds, scales, out + r, out_stride);
    }
}

INLINE __m256 f32_of_f16(const uint16_t *from) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)from));
}

static void estimate_block_f16(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                               const uint16_t *add, const uint16_t *scale, float *out, size_t out_stride) {
    for (size_t r = 0; r < KITH_BLOCK_ROWS; r += LANES) {
        __m256 adds = f32_of_f16(add + r), scales = f32_of_f16(scale + r);
        if (parts == 1)
            estimate_eights(queries, query_count, 1, dots + r, adds, scales, out + r, out_stride);
        else
            estimate_eights(queries, query_count, 2, dots + r, adds, scales, out + r, out_stride);
    }
}

static void next_plane(int32_t *sums, const int32_t *dots, unsigned bits, size_t count) {
    size_t i = 0;
    const __m128i shift = _mm_cvtsi32_si128((int)bits);
    for (; count - i >= LANES; i += LANES)
        store_words(sums + i, add_32(_mm256_sll_epi32(load_words(sums + i), shift), load_words(dots + i)));
    for (; i < count; i++) sums[i] = (int32_t)((uint32_t)sums[i] << bits) + dots[i];
}

/* ---- rounding ---- */

static float largest(const float *values, size_t count) {
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(INT32_MAX));
    __m256 first = _mm256_setzero_ps(), second = first;
    size_t i = 0;
    for (; count - i >= 2 * LANES; i += 2 * LANES) {
        first = _mm256_max_ps(first, _mm256_and_ps(magnitude, _mm256_loadu_ps(values + i)));
        second = _mm256_max_ps(second, _mm256_and_ps(magnitude, _mm256_loadu_ps(values + i + LANES)));
    }
    for (; i < count; i += LANES)
        first =
            _mm256_max_ps(first, _mm256_and_ps(magnitude, _mm256_maskload_ps(values + i, lanes_below(count - i))));
    first = _mm256_max_ps(first, second);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(first), _mm256_extractf128_ps(first, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

INLINE __m256i whole(const float *values, size_t count, __m256 factor, __m256 limit) {
    __m256 product = _mm256_mul_ps(_mm256_maskload_ps(values, lanes_below(count)), factor);
    __m256 held = _mm256_max_ps(_mm256_min_ps(product, limit), _mm256_sub_ps(_mm256_setzero_ps(), limit));
    return _mm256_cvtps_epi32(held);
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

INLINE int32_t fold(__m256i words) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

static int32_t to_s8(const float *values, size_t count, float factor, int8_t *out) {
    const __m256 factors = _mm256_set1_ps(factor), limit = _mm256_set1_ps(127);
    __m256i sums = _mm256_setzero_si256();
    for (size_t i = 0; i < count; i += LANES) {
        __m256i value = whole(values + i, count - i, factors, limit);
        sums = _mm256_add_epi32(sums, value);
        store_bytes(out + i, value, count - i);
    }
    return fold(sums);
}

static int32_t to_s15(const float *values, size_t count, float factor, int8_t *high, int8_t *low) {
    const __m256 factors = _mm256_set1_ps(factor), limit = _mm256_set1_ps(127 * 128);
    __m256i sums = _mm256_setzero_si256();
    for (size_t i = 0; i < count; i += LANES) {
        __m256i value = whole(values + i, count - i, factors, limit);
        __m256i top = _mm256_srai_epi32(_mm256_add_epi32(value, _mm256_set1_epi32(64)), 7);
        store_bytes(high + i, top, count - i);
        store_bytes(low + i, _mm256_sub_epi32(value, _mm256_slli_epi32(top, 7)), count - i);
        sums = _mm256_add_epi32(sums, value);
    }
    return fold(sums);
}

#include "simd/x86/fields_pairs.h"

void kith_fill_avx2_fields(kith_simd_table *table) {
    fill_fields(table);
    table->rounding = (kith_rounding_kernels){largest, to_s8, to_s15};
}
