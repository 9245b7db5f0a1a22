/* SPDX-License-Identifier: Apache-2.0
 *
 * avx2_float.c: float distances and norms for AVX2 with FMA and F16C. Four registers hold a row's 32 partial sums.
 */
#include <immintrin.h>
#include <string.h>

#include "simd/isa.h"

enum { LANES = 8, SUMS = 4, AHEAD_BYTES = 4096 };
typedef float f32;
typedef uint16_t f16, bf16;
typedef int8_t i8;
typedef uint8_t u8;

#define INLINE static inline __attribute__((always_inline))

/* ---- loads: eight elements as floats ---- */

INLINE __m256 load_f32(const float *p) { return _mm256_loadu_ps(p); }
INLINE __m256 load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

INLINE __m256 bf16_to_f32(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
INLINE __m256 load_bf16(const uint16_t *p) { return bf16_to_f32(_mm_loadu_si128((const __m128i *)p)); }

/* Sixteen of them at once, the even elements and the odd ones: a word that holds two is either of them but for 16
 * bits. Groups 0 and 1 are the halves of the first sixteen elements, 2 and 3 of the next. */
INLINE __m256 load_split_bf16(const uint16_t *p, size_t g) {
    __m256i both = _mm256_loadu_si256((const __m256i *)(p + g / 2 * 16));
    return _mm256_castsi256_ps(g % 2 == 0 ? _mm256_slli_epi32(both, 16)
                                          : _mm256_and_si256(both, _mm256_set1_epi32((int)0xffff0000u)));
}
INLINE void unsplit(__m256 sums[SUMS]) {
    for (size_t g = 0; g < SUMS; g += 2) {
        __m256 low = _mm256_unpacklo_ps(sums[g], sums[g + 1]), high = _mm256_unpackhi_ps(sums[g], sums[g + 1]);
        sums[g] = _mm256_permute2f128_ps(low, high, 0x20);
        sums[g + 1] = _mm256_permute2f128_ps(low, high, 0x31);
    }
}

INLINE __m256 load_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
INLINE __m256 load_u8(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

/* ---- tails: elements i..dim-1 of p, at most eight, and zeros ---- */

INLINE __m256 tail_f32(const float *p, size_t i, size_t dim) {
    __m256i left = _mm256_set1_epi32((int)(dim - i));
    return _mm256_maskload_ps(p + i, _mm256_cmpgt_epi32(left, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
}

/* AVX2 has no masked loads of less than 32 bits. A tail of a long vector is loaded so that it ends where the vector
 * ends, then shifted down; that of a short vector is copied. */
INLINE __m128i tail_16(const uint16_t *p, size_t i, size_t dim) {
    static const int8_t shifts[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                      -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    if (dim >= LANES) {
        size_t missing = LANES - (dim - i);
        return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(p + dim - LANES)),
                                _mm_loadu_si128((const __m128i *)(shifts + 2 * missing)));
    }
    uint64_t low = p[0], high = 0;
    if (dim >= 4) memcpy(&low, p, sizeof low);
    if (dim > 4) {
        memcpy(&high, p + dim - 4, sizeof high);
        high >>= 16 * (LANES - dim);
    }
    if (dim == 2 || dim == 3) low |= (uint64_t)p[1] << 16 | (uint64_t)p[dim - 1] << 16 * (dim - 1);
    return _mm_set_epi64x((long long)high, (long long)low);
}

INLINE __m128i tail_8(const void *vector, size_t i, size_t dim) {
    const uint8_t *p = vector;
    uint64_t bytes = 0;
    if (dim >= LANES) {
        memcpy(&bytes, p + dim - LANES, sizeof bytes);
        return _mm_cvtsi64_si128((long long)(bytes >> 8 * (LANES - (dim - i))));
    }
    if (dim >= 4) {
        uint32_t first, last;
        memcpy(&first, p, sizeof first);
        memcpy(&last, p + dim - 4, sizeof last);
        bytes = (uint64_t)last << 8 * (dim - 4) | first;
    } else {
        bytes = (uint64_t)p[dim / 2] << 8 * (dim / 2) | (uint64_t)p[dim - 1] << 8 * (dim - 1) | p[0];
    }
    return _mm_cvtsi64_si128((long long)bytes);
}

INLINE __m256 tail_f16(const uint16_t *p, size_t i, size_t dim) { return _mm256_cvtph_ps(tail_16(p, i, dim)); }
INLINE __m256 tail_bf16(const uint16_t *p, size_t i, size_t dim) { return bf16_to_f32(tail_16(p, i, dim)); }
INLINE __m256 tail_i8(const int8_t *p, size_t i, size_t dim) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(tail_8(p, i, dim)));
}
INLINE __m256 tail_u8(const uint8_t *p, size_t i, size_t dim) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(tail_8(p, i, dim)));
}

/* ---- steps and the halving tree ---- */

INLINE __m256 step_l2sq(__m256 sum, __m256 q, __m256 r) {
    __m256 difference = _mm256_sub_ps(q, r);
    return _mm256_fmadd_ps(difference, difference, sum);
}
INLINE __m256 step_ip(__m256 sum, __m256 q, __m256 r) { return _mm256_fmadd_ps(q, r, sum); }

/* s[j] += s[j + 16], s[j] += s[j + 8]: register g holds the sums 8g..8g+7. */
INLINE __m256 fold_registers(const __m256 sums[SUMS]) {
    return _mm256_add_ps(_mm256_add_ps(sums[0], sums[2]), _mm256_add_ps(sums[1], sums[3]));
}

INLINE float fold_one(__m256 eight) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* The same tree on four rows at once: each step adds the halves of two rows in one register. */
INLINE void fold_four(const __m256 v[4], float out[4]) {
    __m256 ac = _mm256_add_ps(_mm256_permute2f128_ps(v[0], v[2], 0x20), _mm256_permute2f128_ps(v[0], v[2], 0x31));
    __m256 bd = _mm256_add_ps(_mm256_permute2f128_ps(v[1], v[3], 0x20), _mm256_permute2f128_ps(v[1], v[3], 0x31));
    /* ac: a0 a1 a2 a3 | c0 c1 c2 c3, and bd likewise */
    __m256 abcd = _mm256_add_ps(_mm256_shuffle_ps(ac, bd, 0x44), _mm256_shuffle_ps(ac, bd, 0xee));
    /* a0 a1 b0 b1 | c0 c1 d0 d1 */
    abcd = _mm256_add_ps(abcd, _mm256_movehdup_ps(abcd));
    __m128 ab = _mm256_castps256_ps128(abcd), cd = _mm256_extractf128_ps(abcd, 1);
    _mm_storeu_ps(out, _mm_shuffle_ps(ab, cd, 0x88));
}

/* ---- the shapes ---- */

#define VEC          __m256
#define ROWS_AT_ONCE 2
#define ZERO()       _mm256_setzero_ps()

#include "simd/float_pairs.h"

void kith_fill_avx2_float(kith_simd_table *table) {
    KITH_FILL_FLOATS(table);
    table->norm2_f32 = norm2_f32;
    table->norm2_f16 = norm2_f16;
    table->norm2_bf16 = norm2_bf16;
}
