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
INLINE void store_part(void *p, __m256i words, size_t count) {
    _mm256_maskstore_epi32(p, lanes_below(count), words);
}
INLINE __m256i set_words(uint32_t word) { return _mm256_set1_epi32((int)word); }
INLINE __m256i and_words(__m256i a, __m256i b) { return _mm256_and_si256(a, b); }
INLINE __m256i or_words(__m256i a, __m256i b) { return _mm256_or_si256(a, b); }
INLINE __m256i xor_words(__m256i a, __m256i b) { return _mm256_xor_si256(a, b); }
INLINE __m256i shift_right(__m256i words, unsigned bits) { return _mm256_srli_epi32(words, (int)bits); }
INLINE __m256i shift_right_8_u16(__m256i v) { return _mm256_srli_epi16(v, 8); }
INLINE __m256i shift_right_8_i16(__m256i v) { return _mm256_srai_epi16(v, 8); }
INLINE __m256i shift_left_8_16(__m256i v) { return _mm256_slli_epi16(v, 8); }
INLINE __m256i maddubs(__m256i fields, __m256i bytes) { return _mm256_maddubs_epi16(fields, bytes); }
INLINE __m256i madd(__m256i a, __m256i b) { return _mm256_madd_epi16(a, b); }
INLINE __m256i add_16(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }
INLINE __m256i add_32(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
INLINE __m256i sub_8(__m256i a, __m256i b) { return _mm256_sub_epi8(a, b); }
INLINE __m256i sub_16(__m256i a, __m256i b) { return _mm256_sub_epi16(a, b); }
INLINE __m256i abs_16(__m256i v) { return _mm256_abs_epi16(v); }
INLINE uint32_t sign_bits(__m256i words) { return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(words)); }

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

INLINE __m256i bits_of_f32(__m256 v) { return _mm256_castps_si256(v); }
INLINE bool has_bits(__m256i words) { return !_mm256_testz_si256(words, words); }

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

/* The lowest bytes of the first `count` of eight words. */
INLINE void store_bytes(int8_t *out, __m256i words, size_t count) {
    const __m256i lowest = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8,
                                            12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    __m256i fours = _mm256_shuffle_epi8(words, lowest);
    int64_t bytes =
        _mm_cvtsi128_si64(_mm_unpacklo_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1)));
    if (count >= LANES)
        memcpy(out, &bytes, sizeof bytes);
    else
        for (size_t i = 0; i < count; i++) out[i] = (int8_t)(bytes >> (8 * i));
}

#include "simd/x86/fields_estimates.h"
#include "simd/x86/fields_pairs.h"

/* ---- lines ---- */

/* Lines of 32, 64 and 128 bytes, one, two and four groups, are estimated eight at a time: their sums fit 16 bits. */
enum { EIGHT = 8, GROUP_BYTES = 32 };

/* The sums of a row's fields with the query, for width 8 in 32 bits, else in 16. Fields of 1 and 2 bits are multiplied
 * where they lie in every other place of their bytes too, and the sums of these are shifted: half of the shifts. */
INLINE __m256i line_sums(unsigned width, const int8_t *query, const unsigned char *row, size_t groups) {
    const size_t step_bytes = (groups + 1) / 2 * 2 * GROUP_BYTES;
    const unsigned places = width < 4 ? 2 : 1;
    __m256i sums[2] = {set_words(0), set_words(0)};
    KITH_UNROLL(4)
    for (size_t g = 0; g < groups; g++) {
        const __m256i words = load_words(row + g * GROUP_BYTES);
        const int8_t *bytes = query + g * GROUP_BYTES;
        if (width == 8) {
            sums[0] = add_32(sums[0], madd(even_fields(words), even_bytes(load_words(bytes))));
            sums[1] = add_32(sums[1], madd(odd_fields(words), odd_bytes(load_words(bytes))));
            continue;
        }
        KITH_UNROLL(8)
        for (unsigned step = 0; step < 8 / width; step++, bytes += step_bytes) {
            const unsigned place = step % places, mask = ((1u << width) - 1) << place * width;
            __m256i fields = step - place == 0 ? words : shift_right(words, (step - place) * width);
            __m256i pairs = maddubs(and_words(fields, set_words(0x01010101u * mask)), load_words(bytes));
            sums[place] = g == 0 && step == place ? pairs : add_16(sums[place], pairs);
        }
    }
    if (width == 8) return add_32(sums[0], sums[1]);
    return places == 1 ? sums[0] : add_16(sums[0], _mm256_srai_epi16(sums[1], (int)width));
}

/* The sums of eight registers, in order. */
INLINE __m256i fold_eight(const __m256i v[EIGHT]) {
    __m256i first = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    __m256i last = _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));
    return add_32(_mm256_blend_epi32(first, last, 0xf0), _mm256_permute2x128_si256(first, last, 0x21));
}

/* Their words at `word`. */
INLINE __m256i words_of_eight(const unsigned char *const rows[EIGHT], size_t word) {
    __m256i words = _mm256_set1_epi32((int)words_at(rows[0])[word]);
#define TAKE(r) words = _mm256_blend_epi32(words, _mm256_set1_epi32((int)words_at(rows[r])[word]), 1 << (r))
    TAKE(1);
    TAKE(2);
    TAKE(3);
    TAKE(4);
    TAKE(5);
    TAKE(6);
    TAKE(7);
#undef TAKE
    return words;
}

INLINE void finish_eight(__m256i dots, __m256i factors, const kith_affine *affine, float out[EIGHT]) {
    const __m256i halves_apart = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5,
                                                  8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m256i halves = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(factors, halves_apart), 0xd8);
    __m256 add = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
    __m256 scale = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
    __m256 inner = multiply_add(f32_of_words(dots), set_f32(affine->unit), set_f32(affine->offset));
    __m256 in_steps = multiply_add(scale, inner, add);
    store_f32(out, multiply_add(set_f32(affine->step), in_steps, set_f32(affine->base)));
}

/* Flushed. */
INLINE void sums_of_lines(unsigned width, const int8_t *query, const unsigned char *const *rows, size_t count,
                          size_t groups, __m256i *sums) {
    KITH_UNROLL(8)
    for (size_t r = 0; r < count; r++) {
        sums[r] = flush(line_sums(width, query, rows[r], groups), width);
        STAYS(sums[r]);
    }
}

/* The word of the factors meets zeros of the query, here and where rows have any length. */
INLINE void lines_of(unsigned width, const int8_t *query, const unsigned char *const *rows, size_t count,
                     size_t groups, const kith_affine *affine, float *out) {
    const size_t word = groups * LANES - 1;
    __m256i sums[EIGHT];
    for (; count >= EIGHT; count -= EIGHT, rows += EIGHT, out += EIGHT) {
        sums_of_lines(width, query, rows, EIGHT, groups, sums);
        finish_eight(fold_eight(sums), words_of_eight(rows, word), affine, out);
    }
    if (count == 0) return;
    sums_of_lines(width, query, rows, 4, groups, sums);
    const uint32_t *const four[4] = {words_at(rows[0]), words_at(rows[1]), words_at(rows[2]), words_at(rows[3])};
    finish_line(fold_four(sums), four, word, affine, out);
}

INLINE void lines(unsigned width, const int8_t *query, const unsigned char *const *rows, size_t count,
                  size_t word_count, const kith_affine *affine, float *out) {
    switch (word_count) {
        case LANES - 1: lines_of(width, query, rows, count, 1, affine, out); return;
        case 2 * LANES - 1: lines_of(width, query, rows, count, 2, affine, out); return;
        case 4 * LANES - 1: lines_of(width, query, rows, count, 4, affine, out); return;
        default: break;
    }
    for (size_t i = 0; i < count; i += 4) {
        const uint32_t *const four[4] = {words_at(rows[i]), words_at(rows[i + 1]), words_at(rows[i + 2]),
                                         words_at(rows[i + 3])};
        finish_line(dots_of_four(width, query, four, word_count + 1), four, word_count, affine, out + i);
    }
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

void kith_fill_avx2_fields(kith_simd_table *table) {
    fill_fields(table);
    table->estimates.lines[0] = lines_1;
    table->estimates.lines[1] = lines_2;
    table->estimates.lines[2] = lines_4;
    table->estimates.lines[3] = lines_8;
    table->rounding = (kith_rounding_kernels){largest, to_s8, to_s15, as_bytes};
}
