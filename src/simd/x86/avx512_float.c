/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_float.c: float distances and norms for AVX-512 F, BW, VL, DQ. Two registers hold a row's 32 partial sums.
 */
#include <immintrin.h>

#include "simd/isa.h"

enum { LANES = 16, SUMS = 2, AHEAD_BYTES = 4096 };
#define VEC          __m512
#define ROWS_AT_ONCE 4
#define ZERO()       _mm512_setzero_ps()
#define INLINE       static inline __attribute__((always_inline))

typedef float f32;
typedef uint16_t f16, bf16;
typedef int8_t i8;
typedef uint8_t u8;

/* ---- sixteen elements as floats ---- */

INLINE __m512 widen_f16(__m256i x) { return _mm512_cvtph_ps(x); }
INLINE __m512 widen_bf16(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
INLINE __m512 widen_i8(__m128i x) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x)); }
INLINE __m512 widen_u8(__m128i x) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(x)); }

INLINE __m512 load_f32(const f32 *p) { return _mm512_loadu_ps(p); }
INLINE __m512 load_f16(const f16 *p) { return widen_f16(_mm256_loadu_si256((const __m256i *)p)); }
INLINE __m512 load_bf16(const bf16 *p) { return widen_bf16(_mm256_loadu_si256((const __m256i *)p)); }
INLINE __m512 load_i8(const i8 *p) { return widen_i8(_mm_loadu_si128((const __m128i *)p)); }
INLINE __m512 load_u8(const u8 *p) { return widen_u8(_mm_loadu_si128((const __m128i *)p)); }

/* Thirty-two bfloat16, the even elements and the odd ones: a word that holds two is either of them but for 16 bits. */
INLINE __m512 load_split_bf16(const bf16 *p, size_t g) {
    __m512i both = _mm512_loadu_si512(p);
    return _mm512_castsi512_ps(g == 0 ? _mm512_slli_epi32(both, 16)
                                      : _mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000u)));
}
INLINE void unsplit(__m512 sums[SUMS]) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    __m512 even = sums[0], odd = sums[1];
    sums[0] = _mm512_permutex2var_ps(even, low, odd);
    sums[1] = _mm512_permutex2var_ps(even, high, odd);
}

/* Lanes of the elements i..dim-1. */
INLINE __mmask16 lanes_left(size_t i, size_t dim) { return (__mmask16)_bzhi_u32(0xffff, (unsigned)(dim - i)); }
INLINE __m512 tail_f32(const f32 *p, size_t i, size_t dim) {
    return _mm512_maskz_loadu_ps(lanes_left(i, dim), p + i);
}
INLINE __m512 tail_f16(const f16 *p, size_t i, size_t dim) {
    return widen_f16(_mm256_maskz_loadu_epi16(lanes_left(i, dim), p + i));
}
INLINE __m512 tail_bf16(const bf16 *p, size_t i, size_t dim) {
    return widen_bf16(_mm256_maskz_loadu_epi16(lanes_left(i, dim), p + i));
}
INLINE __m512 tail_i8(const i8 *p, size_t i, size_t dim) {
    return widen_i8(_mm_maskz_loadu_epi8(lanes_left(i, dim), p + i));
}
INLINE __m512 tail_u8(const u8 *p, size_t i, size_t dim) {
    return widen_u8(_mm_maskz_loadu_epi8(lanes_left(i, dim), p + i));
}

/* ---- steps and the halving tree ---- */

INLINE __m512 step_l2sq(__m512 sum, __m512 q, __m512 r) {
    __m512 difference = _mm512_sub_ps(q, r);
    return _mm512_fmadd_ps(difference, difference, sum);
}
INLINE __m512 step_ip(__m512 sum, __m512 q, __m512 r) { return _mm512_fmadd_ps(q, r, sum); }

/* s[j] += s[j + 16]: register g holds the sums 16g..16g+15. */
INLINE __m512 fold_registers(const __m512 sums[SUMS]) { return _mm512_add_ps(sums[0], sums[1]); }

INLINE float fold_one(__m512 v) {
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* The same tree on four rows at once: each step adds the halves of rows that share a register. */
INLINE void fold_four(const __m512 v[4], float out[4]) {
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x44), _mm512_shuffle_f32x4(v[0], v[1], 0xee));
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(v[2], v[3], 0x44), _mm512_shuffle_f32x4(v[2], v[3], 0xee));
    /* ab: a0..a7 b0..b7; abcd: a0..a3 b0..b3 c0..c3 d0..d3 */
    __m512 abcd = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    abcd = _mm512_add_ps(abcd, _mm512_permute_ps(abcd, 0x4e));
    abcd = _mm512_add_ps(abcd, _mm512_permute_ps(abcd, 0xb1));
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, abcd)));
}

/* ---- the shapes ---- */

#include "simd/float_pairs.h"

void kith_fill_avx512_float(kith_simd_table *table) {
    KITH_FILL_FLOATS(table);
    table->norm2_f32 = norm2_f32;
    table->norm2_f16 = norm2_f16;
    table->norm2_bf16 = norm2_bf16;
}
