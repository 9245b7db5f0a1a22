/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_lines.h: the estimates of lines on vpdpbusd, sixteen at a time: included once by the files that define INLINE,
 * LANES and field_of: the fields of `width` bits from bit step * width of each byte on, one a byte.
 */
#include "simd/unroll.h"
#include "simd/x86/fields_line.h"

/* 16 words of four rows; the sums of field steps add up in one register a row. */
INLINE void add_line(unsigned width, const int8_t *query, size_t step_bytes, const __m512i words[4],
                     __m512i sums[4]) {
    KITH_UNROLL(8)
    for (unsigned step = 0; step < 8 / width; step++) {
        __m512i bytes = _mm512_loadu_si512(query + step * step_bytes);
        KITH_UNROLL(4)
        for (size_t r = 0; r < 4; r++)
            sums[r] = _mm512_dpbusd_epi32(sums[r], field_of(words[r], width, step), bytes);
    }
}

INLINE __m512i pair_up(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

INLINE __m128i sum_quarters(__m512i v) {
    __m256i two = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1));
}

/* Four times the sums of four rows, of which each quarter of a register holds a part: whole, in order. */
INLINE __m512i fold_quarters(const __m512i v[4]) {
    __m512i s[2];
    KITH_UNROLL(2)
    for (size_t i = 0; i < 2; i++)
        s[i] = _mm512_add_epi32(_mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0x88),
                                _mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0xdd));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(s[0], s[1], 0x88), _mm512_shuffle_i32x4(s[0], s[1], 0xdd));
}

/* Their last words: add in the lower half, scale in the upper one. */
INLINE __m512i factor_words(const unsigned char *const rows[16], size_t word) {
    __m256i half[2];
    KITH_UNROLL(2)
    for (size_t i = 0; i < 2; i++) {
        __m512i at = _mm512_add_epi64(_mm512_loadu_si512(rows + 8 * i), _mm512_set1_epi64((long long)(4 * word)));
        half[i] = _mm512_i64gather_epi32(at, NULL, 1);
    }
    return _mm512_inserti64x4(_mm512_castsi256_si512(half[0]), half[1], 1);
}

INLINE __m512i pack_and_halve(__m512i a, __m512i b) {
    return _mm512_madd_epi16(_mm512_packs_epi32(a, b), _mm512_set1_epi16(1));
}

/* The products of four rows, of which each quarter of a register holds a part. In one line of the cache fields of up to 4
 * bits leave sums, and sums of two such, that fit 16 bits: two rows then share a register at once. */
INLINE __m512i quarters_of_four(unsigned width, const int8_t *query, const unsigned char *const rows[4],
                                size_t word_count) {
    const size_t step_bytes = word_count / LANES * LANES * sizeof(uint32_t) + LANES * sizeof(uint32_t);
    __m512i sums[4], words[4];
    KITH_UNROLL(4)
    for (size_t r = 0; r < 4; r++) sums[r] = _mm512_setzero_si512();
    size_t w = 0;
    for (; word_count + 1 - w >= LANES; w += LANES) {
        KITH_UNROLL(4)
        for (size_t r = 0; r < 4; r++) words[r] = _mm512_loadu_si512(rows[r] + 4 * w);
        add_line(width, query + 4 * w, step_bytes, words, sums);
    }
    if (w < word_count) { /* else only the factors are left */
        __mmask16 lanes = (__mmask16)_bzhi_u32(0xffff, (unsigned)(word_count - w));
        KITH_UNROLL(4)
        for (size_t r = 0; r < 4; r++) words[r] = _mm512_maskz_loadu_epi32(lanes, rows[r] + 4 * w);
        add_line(width, query + 4 * w, step_bytes, words, sums);
    }
    if (width < 8 && word_count < LANES)
        return pack_and_halve(pack_and_halve(sums[0], sums[1]), pack_and_halve(sums[2], sums[3]));
    __m512i ab = pair_up(sums[0], sums[1]), cd = pair_up(sums[2], sums[3]);
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* The word of the factors meets zeros of the query, here and in four_lines. */
INLINE void sixteen_lines(unsigned width, const int8_t *query, const unsigned char *const rows[16],
                          size_t word_count, const kith_affine *affine, float out[16]) {
    __m512i four[4];
    KITH_UNROLL(4)
    for (size_t f = 0; f < 4; f++) four[f] = quarters_of_four(width, query, rows + 4 * f, word_count);
    __m512i words = factor_words(rows, word_count);
    __m512 add = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
    __m512 scale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)));
    __m512 inner = _mm512_fmadd_ps(_mm512_cvtepi32_ps(fold_quarters(four)), _mm512_set1_ps(affine->unit),
                                   _mm512_set1_ps(affine->offset));
    __m512 in_steps = _mm512_fmadd_ps(scale, inner, add);
    _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_set1_ps(affine->step), in_steps, _mm512_set1_ps(affine->base)));
}

INLINE void four_lines(unsigned width, const int8_t *query, const unsigned char *const rows[4], size_t word_count,
                       const kith_affine *affine, float out[4]) {
    const uint32_t *const words[4] = {words_at(rows[0]), words_at(rows[1]), words_at(rows[2]), words_at(rows[3])};
    finish_line(sum_quarters(quarters_of_four(width, query, rows, word_count)), words, word_count, affine, out);
}

INLINE void lines_of(unsigned width, const int8_t *query, const unsigned char *const *rows, size_t count,
                     size_t word_count, const kith_affine *affine, float *out) {
    size_t i = 0;
    for (; count - i >= 16; i += 16) sixteen_lines(width, query, rows + i, word_count, affine, out + i);
    for (; i < count; i += 4) four_lines(width, query, rows + i, word_count, affine, out + i);
}

INLINE void lines(unsigned width, const int8_t *query, const unsigned char *const *rows, size_t count,
                  size_t word_count, const kith_affine *affine, float *out) {
    if (word_count + 1 == LANES)
        lines_of(width, query, rows, count, LANES - 1, affine, out);
    else
        lines_of(width, query, rows, count, word_count, affine, out);
}

#define LINES(WIDTH)                                                                                               \
    static void lines_##WIDTH(const int8_t *query, const unsigned char *const *rows, size_t count,                 \
                              size_t word_count, const kith_affine *affine, float *out) {                          \
        lines(WIDTH, query, rows, count, word_count, affine, out);                                                 \
    }
LINES(1)
LINES(2)
LINES(4)
LINES(8)

static void fill_lines(kith_simd_table *table) {
    table->estimates.lines[0] = lines_1;
    table->estimates.lines[1] = lines_2;
    table->estimates.lines[2] = lines_4;
    table->estimates.lines[3] = lines_8;
}
