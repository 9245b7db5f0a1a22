/* SPDX-License-Identifier: Apache-2.0
 *
 * fields_line.h: estimates of four rows for the files of x86. Included after <immintrin.h>; each file has its own
 * copy.
 */
static inline __attribute__((always_inline)) __m128 finish_four(const kith_affine *affine, __m128 inner, __m128 add,
                                                                __m128 scale) {
    __m128 in_steps = _mm_fmadd_ps(scale, inner, add);
    return _mm_fmadd_ps(_mm_set1_ps(affine->step), in_steps, _mm_set1_ps(affine->base));
}

static inline __attribute__((always_inline)) const uint32_t *words_at(const unsigned char *row) {
    return (const uint32_t *)(const void *)row;
}

/* The end of four lines: the factors, in their last words, are converted together. */
static inline __attribute__((always_inline)) void
finish_line(__m128i dots, const uint32_t *const rows[4], size_t word, const kith_affine *affine, float out[4]) {
    const __m128i halves_apart = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m128i words = _mm_setr_epi32((int32_t)rows[0][word], (int32_t)rows[1][word], (int32_t)rows[2][word],
                                   (int32_t)rows[3][word]);
    __m256 factors = _mm256_cvtph_ps(_mm_shuffle_epi8(words, halves_apart));
    __m128 add = _mm256_castps256_ps128(factors), scale = _mm256_extractf128_ps(factors, 1);
    __m128 inner = _mm_fmadd_ps(_mm_cvtepi32_ps(dots), _mm_set1_ps(affine->unit), _mm_set1_ps(affine->offset));
    _mm_storeu_ps(out, finish_four(affine, inner, add, scale));
}
