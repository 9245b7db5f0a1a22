/* SPDX-License-Identifier: Apache-2.0
 *
 * avx2_batch.c: conversions, filters, packing and tiles for AVX2 with FMA and F16C.
 */
#include <immintrin.h>
#include <string.h>

#include "simd/isa.h"

enum { LANES = 8, QUERY_LANES = 6, ROW_LANES = 16, GROUP = 2 };
#define INLINE static inline __attribute__((always_inline))

INLINE __m256i load_words(const void *p) { return _mm256_loadu_si256(p); }
INLINE void store_words(void *p, __m256i words) { _mm256_storeu_si256(p, words); }

/* The first `count` of eight 32-bit lanes, as a mask. */
INLINE __m256i lanes_below(size_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* ---- conversions ---- */

INLINE void convert_f32_from_f16(const uint16_t *in, float *out) {
    _mm256_storeu_ps(out, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)in)));
}
INLINE void convert_f32_from_bf16(const uint16_t *in, float *out) {
    store_words(out, _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)in)), 16));
}
INLINE void convert_f32_from_i8(const int8_t *in, float *out) {
    _mm256_storeu_ps(out, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)in))));
}
INLINE void convert_f32_from_u8(const uint8_t *in, float *out) {
    _mm256_storeu_ps(out, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)in))));
}
INLINE void convert_f16_from_f32(const float *in, uint16_t *out) {
    _mm_storeu_si128((__m128i *)out, _mm256_cvtps_ph(_mm256_loadu_ps(in), _MM_FROUND_TO_NEAREST_INT));
}
/* Round to nearest even by adding just below half a unit of the upper half, and one more when that is odd. */
INLINE void convert_bf16_from_f32(const float *in, uint16_t *out) {
    __m256 value = _mm256_loadu_ps(in);
    __m256i bits = _mm256_castps_si256(value), upper = _mm256_srli_epi32(bits, 16);
    __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    rounded = _mm256_srli_epi32(rounded, 16);
    __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, quiet, is_nan);
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
    _mm_storeu_si128((__m128i *)out, _mm256_castsi256_si128(packed));
}

#define CONVERT(NAME, IN, OUT)                                                                                     \
    static void NAME(const IN *in, size_t count, OUT *out) {                                                       \
        size_t i = 0;                                                                                              \
        for (; i + LANES <= count; i += LANES) convert_##NAME(in + i, out + i);                                    \
        if (i == count) return;                                                                                    \
        IN last_in[LANES] = {0};                                                                                   \
        OUT last_out[LANES];                                                                                       \
        memcpy(last_in, in + i, (count - i) * sizeof *in);                                                         \
        convert_##NAME(last_in, last_out);                                                                         \
        memcpy(out + i, last_out, (count - i) * sizeof *out);                                                      \
    }
CONVERT(f32_from_f16, uint16_t, float)
CONVERT(f32_from_bf16, uint16_t, float)
CONVERT(f32_from_i8, int8_t, float)
CONVERT(f32_from_u8, uint8_t, float)
CONVERT(f16_from_f32, float, uint16_t)
CONVERT(bf16_from_f32, float, uint16_t)

/* ---- filters: `rejects` gives a mask of the lanes that stay out ---- */

INLINE __m256i rejects_f32(const float *values, float threshold) {
    return _mm256_castps_si256(_mm256_cmp_ps(_mm256_loadu_ps(values), _mm256_set1_ps(threshold), _CMP_LT_OQ));
}
INLINE __m256i rejects_below_f32(const float *values, float threshold) {
    return _mm256_castps_si256(_mm256_cmp_ps(_mm256_loadu_ps(values), _mm256_set1_ps(threshold), _CMP_GT_OQ));
}
INLINE __m256i rejects_i32(const int32_t *values, int32_t threshold) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(threshold), load_words(values));
}
INLINE __m256i rejects_below_i32(const int32_t *values, int32_t threshold) {
    return _mm256_cmpgt_epi32(load_words(values), _mm256_set1_epi32(threshold));
}

/* Writes the positions of the lanes that are kept; returns how many. */
INLINE size_t write_kept(__m256i rejected, size_t first, uint32_t *out) {
    unsigned kept = ~(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(rejected)) & 0xff;
    size_t found = 0;
    for (; kept != 0; kept &= kept - 1) out[found++] = (uint32_t)first + (uint32_t)__builtin_ctz(kept);
    return found;
}

/* The common case is that nothing of 64 values is kept. */
#define FILTER(SUFFIX, TYPE, REJECTED)                                                                             \
    static size_t filter_##SUFFIX(const TYPE *values, size_t count, TYPE threshold, uint32_t *out) {               \
        size_t found = 0, i = 0;                                                                                   \
        for (; i + 8 * LANES <= count; i += 8 * LANES) {                                                           \
            __m256i rejected[8], all = _mm256_set1_epi32(-1);                                                      \
            for (size_t g = 0; g < 8; g++) {                                                                       \
                rejected[g] = rejects_##SUFFIX(values + i + g * LANES, threshold);                                 \
                all = _mm256_and_si256(all, rejected[g]);                                                          \
            }                                                                                                      \
            if (_mm256_movemask_epi8(all) == -1) continue;                                                         \
            for (size_t g = 0; g < 8; g++) found += write_kept(rejected[g], i + g * LANES, out + found);           \
        }                                                                                                          \
        for (; i + LANES <= count; i += LANES)                                                                     \
            found += write_kept(rejects_##SUFFIX(values + i, threshold), i, out + found);                          \
        for (; i < count; i++)                                                                                     \
            if (!(values[i] REJECTED threshold)) out[found++] = (uint32_t)i;                                       \
        return found;                                                                                              \
    }
FILTER(f32, float, <)
FILTER(i32, int32_t, <)
FILTER(below_f32, float, >)
FILTER(below_i32, int32_t, >)

/* ---- packing: blocks of 8 vectors x 8 words are transposed in registers ---- */

INLINE void transpose_8x8(__m256i v[8]) {
    __m256i pairs[8], quads[8];
    for (size_t i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (size_t i = 0; i < 8; i += 4)
        for (size_t j = 0; j < 2; j++) {
            quads[i + 2 * j] = _mm256_unpacklo_epi64(pairs[i + j], pairs[i + 2 + j]);
            quads[i + 2 * j + 1] = _mm256_unpackhi_epi64(pairs[i + j], pairs[i + 2 + j]);
        }
    for (size_t i = 0; i < 4; i++) {
        v[i] = _mm256_permute2x128_si256(quads[i], quads[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256(quads[i], quads[i + 4], 0x31);
    }
}

/* Words w.. of up to eight vectors from `first` on. */
INLINE void pack_block(const uint32_t *const *vectors, size_t count, size_t lanes, size_t words, size_t first,
                       size_t w, uint32_t *packed) {
    size_t words_here = words - w < 8 ? words - w : 8, lanes_here = lanes - first < 8 ? lanes - first : 8;
    __m256i v[8], word_mask = lanes_below(words_here), lane_mask = lanes_below(lanes_here);
    for (size_t i = 0; i < 8; i++) {
        v[i] = _mm256_setzero_si256();
        if (first + i < count) v[i] = _mm256_maskload_epi32((const int *)vectors[first + i] + w, word_mask);
    }
    transpose_8x8(v);
    for (size_t i = 0; i < words_here; i++) {
        uint32_t *out = packed + (w + i) * lanes + first;
        if (lanes_here == 8)
            store_words(out, v[i]);
        else
            _mm256_maskstore_epi32((int *)out, lane_mask, v[i]);
    }
}

static void pack(const uint32_t *const *vectors, size_t count, size_t lanes, size_t words, uint32_t *packed) {
    for (size_t w = 0; w < words; w += 8)
        for (size_t first = 0; first < lanes; first += 8)
            pack_block(vectors, count, lanes, words, first, w, packed);
}

/* ---- tiles: 6 queries x 16 rows in 12 registers ---- */

static void tile_f32(const float *queries, const float *rows, size_t words, size_t row_panels, const float *bias,
                     float *out, size_t out_stride) {
    for (size_t p = 0; p < row_panels; p++, rows += words * ROW_LANES, bias += ROW_LANES, out += ROW_LANES) {
        __m256 sums[QUERY_LANES][2];
        for (size_t q = 0; q < QUERY_LANES; q++) {
            sums[q][0] = _mm256_loadu_ps(bias);
            sums[q][1] = _mm256_loadu_ps(bias + LANES);
        }
        for (size_t w = 0; w < words; w++) {
            __m256 low = _mm256_loadu_ps(rows + w * ROW_LANES),
                   high = _mm256_loadu_ps(rows + w * ROW_LANES + LANES);
            for (size_t q = 0; q < QUERY_LANES; q++) {
                __m256 query = _mm256_broadcast_ss(queries + w * QUERY_LANES + q);
                sums[q][0] = _mm256_fmadd_ps(query, low, sums[q][0]);
                sums[q][1] = _mm256_fmadd_ps(query, high, sums[q][1]);
            }
        }
        for (size_t q = 0; q < QUERY_LANES; q++) {
            _mm256_storeu_ps(out + q * out_stride, sums[q][0]);
            _mm256_storeu_ps(out + q * out_stride + LANES, sums[q][1]);
        }
    }
}

/* A word of the integer tile is two elements widened to i16: products and sums are exact, no terms are left. */
INLINE __m256i widen(const uint8_t *p, kith_dtype dtype) {
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    return dtype == KITH_U8 ? _mm256_cvtepu8_epi16(bytes) : _mm256_cvtepi8_epi16(bytes);
}

static int32_t tile_prepare(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words) {
    const uint8_t *elements = vector;
    size_t i = 0;
    for (; i + 16 <= dim; i += 16) store_words(words + i / GROUP, widen(elements + i, dtype));
    uint8_t last[16] = {0};
    uint32_t last_words[8];
    memcpy(last, elements + i, dim - i);
    store_words(last_words, widen(last, dtype));
    memcpy(words + i / GROUP, last_words, (dim - i + 1) / GROUP * sizeof *words);
    return 0;
}

static void tile_i8(const uint32_t *queries, const uint32_t *rows, size_t words, size_t row_panels,
                    const int32_t *bias, int32_t *out, size_t out_stride) {
    for (size_t p = 0; p < row_panels; p++, rows += words * ROW_LANES, bias += ROW_LANES, out += ROW_LANES) {
        __m256i sums[QUERY_LANES][2];
        for (size_t q = 0; q < QUERY_LANES; q++) {
            sums[q][0] = load_words(bias);
            sums[q][1] = load_words(bias + LANES);
        }
        for (size_t w = 0; w < words; w++) {
            __m256i low = load_words(rows + w * ROW_LANES), high = load_words(rows + w * ROW_LANES + LANES);
            for (size_t q = 0; q < QUERY_LANES; q++) {
                __m256i query = _mm256_set1_epi32((int)queries[w * QUERY_LANES + q]);
                sums[q][0] = _mm256_add_epi32(sums[q][0], _mm256_madd_epi16(query, low));
                sums[q][1] = _mm256_add_epi32(sums[q][1], _mm256_madd_epi16(query, high));
            }
        }
        for (size_t q = 0; q < QUERY_LANES; q++) {
            store_words(out + q * out_stride, sums[q][0]);
            store_words(out + q * out_stride + LANES, sums[q][1]);
        }
    }
}

void kith_fill_avx2_batch(kith_simd_table *table) {
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
