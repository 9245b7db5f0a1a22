/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_batch.c: conversions, filters, packing and tiles for AVX-512 F, BW, VL, DQ.
 */
#include <immintrin.h>

#include "simd/isa.h"

enum { LANES = 16, QUERY_LANES = 12, ROW_LANES = 32, GROUP = 2 };
#define INLINE static inline __attribute__((always_inline))

/* The first `count` of sixteen lanes. */
INLINE __mmask16 lanes_below(size_t count) {
    return count < LANES ? (__mmask16)_bzhi_u32(0xffff, (unsigned)count) : 0xffff;
}

/* ---- conversions of the lanes in `here` ---- */

INLINE void convert_f32_from_f16(const uint16_t *in, __mmask16 here, float *out) {
    _mm512_mask_storeu_ps(out, here, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(here, in)));
}
INLINE void convert_f32_from_bf16(const uint16_t *in, __mmask16 here, float *out) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(here, in));
    _mm512_mask_storeu_epi32(out, here, _mm512_slli_epi32(wide, 16));
}
INLINE void convert_f32_from_i8(const int8_t *in, __mmask16 here, float *out) {
    __m512i wide = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(here, in));
    _mm512_mask_storeu_ps(out, here, _mm512_cvtepi32_ps(wide));
}
INLINE void convert_f32_from_u8(const uint8_t *in, __mmask16 here, float *out) {
    __m512i wide = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(here, in));
    _mm512_mask_storeu_ps(out, here, _mm512_cvtepi32_ps(wide));
}
INLINE void convert_f16_from_f32(const float *in, __mmask16 here, uint16_t *out) {
    __m512 value = _mm512_maskz_loadu_ps(here, in);
    _mm256_mask_storeu_epi16(out, here, _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/* Round to nearest even by adding just below half a unit of the upper half, and one more when that is odd. (The
 * instruction of AVX512-BF16 would flush denormals.) */
INLINE void convert_bf16_from_f32(const float *in, __mmask16 here, uint16_t *out) {
    __m512 value = _mm512_maskz_loadu_ps(here, in);
    __m512i bits = _mm512_castps_si512(value), upper = _mm512_srli_epi32(bits, 16);
    __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    rounded = _mm512_srli_epi32(rounded, 16);
    __mmask16 is_nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, is_nan, upper, _mm512_set1_epi32(0x40));
    _mm256_mask_storeu_epi16(out, here, _mm512_cvtepi32_epi16(rounded));
}

#define CONVERT(NAME, IN, OUT)                                                                                     \
    static void NAME(const IN *in, size_t count, OUT *out) {                                                       \
        size_t i = 0;                                                                                              \
        for (; i + LANES <= count; i += LANES) convert_##NAME(in + i, 0xffff, out + i);                            \
        if (i < count) convert_##NAME(in + i, lanes_below(count - i), out + i);                                    \
    }
CONVERT(f32_from_f16, uint16_t, float)
CONVERT(f32_from_bf16, uint16_t, float)
CONVERT(f32_from_i8, int8_t, float)
CONVERT(f32_from_u8, uint8_t, float)
CONVERT(f16_from_f32, float, uint16_t)
CONVERT(bf16_from_f32, float, uint16_t)

/* ---- filters ---- */

INLINE __mmask16 kept_f32(__mmask16 here, const float *values, float threshold) {
    return _mm512_mask_cmp_ps_mask(here, _mm512_maskz_loadu_ps(here, values), _mm512_set1_ps(threshold),
                                   _CMP_NLT_UQ);
}
INLINE __mmask16 kept_below_f32(__mmask16 here, const float *values, float threshold) {
    return _mm512_mask_cmp_ps_mask(here, _mm512_maskz_loadu_ps(here, values), _mm512_set1_ps(threshold),
                                   _CMP_NGT_UQ);
}
INLINE __mmask16 kept_i32(__mmask16 here, const int32_t *values, int32_t threshold) {
    return _mm512_mask_cmpge_epi32_mask(here, _mm512_maskz_loadu_epi32(here, values), _mm512_set1_epi32(threshold));
}
INLINE __mmask16 kept_below_i32(__mmask16 here, const int32_t *values, int32_t threshold) {
    return _mm512_mask_cmple_epi32_mask(here, _mm512_maskz_loadu_epi32(here, values), _mm512_set1_epi32(threshold));
}

/* Writes the positions of the lanes that are kept; returns how many. Compressed in a register first: compressing
 * stores are slow on some processors. */
INLINE size_t write_kept(__mmask16 kept, size_t first, uint32_t *out) {
    if (kept == 0) return 0;
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    size_t found = (size_t)__builtin_popcount(kept);
    __m512i positions = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)first));
    _mm512_mask_storeu_epi32(out, lanes_below(found), _mm512_maskz_compress_epi32(kept, positions));
    return found;
}

/* The common case is that nothing of 64 values is kept. */
#define FILTER(SUFFIX, TYPE)                                                                                       \
    static size_t filter_##SUFFIX(const TYPE *values, size_t count, TYPE threshold, uint32_t *out) {               \
        size_t found = 0, i = 0;                                                                                   \
        for (; i + 4 * LANES <= count; i += 4 * LANES) {                                                           \
            __mmask16 kept[4];                                                                                     \
            for (size_t g = 0; g < 4; g++) kept[g] = kept_##SUFFIX(0xffff, values + i + g * LANES, threshold);     \
            if ((kept[0] | kept[1] | kept[2] | kept[3]) == 0) continue;                                            \
            for (size_t g = 0; g < 4; g++) found += write_kept(kept[g], i + g * LANES, out + found);               \
        }                                                                                                          \
        for (; i < count; i += LANES)                                                                              \
            found += write_kept(kept_##SUFFIX(lanes_below(count - i), values + i, threshold), i, out + found);     \
        return found;                                                                                              \
    }
FILTER(f32, float)
FILTER(i32, int32_t)
FILTER(below_f32, float)
FILTER(below_i32, int32_t)

/* ---- packing: blocks of 16 vectors x 16 words are transposed in registers ---- */

INLINE void transpose_16x16(__m512i v[16]) {
    __m512i a[16], b[16];
    for (size_t i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (size_t i = 0; i < 16; i += 4)
        for (size_t j = 0; j < 2; j++) {
            b[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + 2 + j]);
            b[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + 2 + j]);
        }
    /* b[4k + j] holds words j, j + 4, j + 8, j + 12 of vectors 4k..4k+3, a quarter each: transpose the quarters. */
    for (size_t j = 0; j < 4; j++) {
        __m512i even01 = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88),
                odd01 = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xdd);
        __m512i even23 = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
        __m512i odd23 = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xdd);
        v[j] = _mm512_shuffle_i32x4(even01, even23, 0x88);
        v[j + 4] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
        v[j + 8] = _mm512_shuffle_i32x4(even01, even23, 0xdd);
        v[j + 12] = _mm512_shuffle_i32x4(odd01, odd23, 0xdd);
    }
}

/* Words w.. of up to sixteen vectors from `first` on. */
INLINE void pack_block(const uint32_t *const *vectors, size_t count, size_t lanes, size_t words, size_t first,
                       size_t w, uint32_t *packed) {
    __mmask16 word_mask = lanes_below(words - w), lane_mask = lanes_below(lanes - first);
    __m512i v[16];
    for (size_t i = 0; i < 16; i++) {
        v[i] = _mm512_setzero_si512();
        if (first + i < count) v[i] = _mm512_maskz_loadu_epi32(word_mask, vectors[first + i] + w);
    }
    transpose_16x16(v);
    size_t words_here = words - w < 16 ? words - w : 16;
    for (size_t i = 0; i < words_here; i++)
        _mm512_mask_storeu_epi32(packed + (w + i) * lanes + first, lane_mask, v[i]);
}

static void pack(const uint32_t *const *vectors, size_t count, size_t lanes, size_t words, uint32_t *packed) {
    for (size_t w = 0; w < words; w += 16)
        for (size_t first = 0; first < lanes; first += 16)
            pack_block(vectors, count, lanes, words, first, w, packed);
}

/* ---- tiles: 12 queries x 32 rows in 24 registers ---- */

static void tile_f32(const float *queries, const float *rows, size_t words, size_t row_panels, const float *bias,
                     float *out, size_t out_stride) {
    for (size_t p = 0; p < row_panels; p++, rows += words * ROW_LANES, bias += ROW_LANES, out += ROW_LANES) {
        __m512 sums[QUERY_LANES][2];
        for (size_t q = 0; q < QUERY_LANES; q++) {
            sums[q][0] = _mm512_loadu_ps(bias);
            sums[q][1] = _mm512_loadu_ps(bias + LANES);
        }
        for (size_t w = 0; w < words; w++) {
            __m512 low = _mm512_loadu_ps(rows + w * ROW_LANES),
                   high = _mm512_loadu_ps(rows + w * ROW_LANES + LANES);
#pragma GCC unroll 12
            for (size_t q = 0; q < QUERY_LANES; q++) {
                __m512 query = _mm512_set1_ps(queries[w * QUERY_LANES + q]);
                sums[q][0] = _mm512_fmadd_ps(query, low, sums[q][0]);
                sums[q][1] = _mm512_fmadd_ps(query, high, sums[q][1]);
            }
        }
        for (size_t q = 0; q < QUERY_LANES; q++) {
            _mm512_storeu_ps(out + q * out_stride, sums[q][0]);
            _mm512_storeu_ps(out + q * out_stride + LANES, sums[q][1]);
        }
    }
}

/* A word of the integer tile is two elements widened to i16: products and sums are exact, no terms are left. */
static int32_t tile_prepare(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words) {
    const uint8_t *elements = vector;
    for (size_t i = 0; i < dim; i += 32) {
        __mmask32 here = dim - i < 32 ? _bzhi_u32(~0u, (unsigned)(dim - i)) : ~0u;
        __m256i bytes = _mm256_maskz_loadu_epi8(here, elements + i);
        __m512i wide = dtype == KITH_U8 ? _mm512_cvtepu8_epi16(bytes) : _mm512_cvtepi8_epi16(bytes);
        _mm512_mask_storeu_epi32(words + i / GROUP, lanes_below((dim - i + 1) / GROUP), wide);
    }
    return 0;
}

static void tile_i8(const uint32_t *queries, const uint32_t *rows, size_t words, size_t row_panels,
                    const int32_t *bias, int32_t *out, size_t out_stride) {
    for (size_t p = 0; p < row_panels; p++, rows += words * ROW_LANES, bias += ROW_LANES, out += ROW_LANES) {
        __m512i sums[QUERY_LANES][2];
        for (size_t q = 0; q < QUERY_LANES; q++) {
            sums[q][0] = _mm512_loadu_si512(bias);
            sums[q][1] = _mm512_loadu_si512(bias + LANES);
        }
        for (size_t w = 0; w < words; w++) {
            __m512i low = _mm512_loadu_si512(rows + w * ROW_LANES);
            __m512i high = _mm512_loadu_si512(rows + w * ROW_LANES + LANES);
#pragma GCC unroll 12
            for (size_t q = 0; q < QUERY_LANES; q++) {
                __m512i query = _mm512_set1_epi32((int)queries[w * QUERY_LANES + q]);
                sums[q][0] = _mm512_add_epi32(sums[q][0], _mm512_madd_epi16(query, low));
                sums[q][1] = _mm512_add_epi32(sums[q][1], _mm512_madd_epi16(query, high));
            }
        }
        for (size_t q = 0; q < QUERY_LANES; q++) {
            _mm512_storeu_si512(out + q * out_stride, sums[q][0]);
            _mm512_storeu_si512(out + q * out_stride + LANES, sums[q][1]);
        }
    }
}

void kith_fill_avx512_batch(kith_simd_table *table) {
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
}
