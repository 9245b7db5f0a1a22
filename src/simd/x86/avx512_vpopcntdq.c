/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_vpopcntdq.c: Hamming distance on AVX-512's count of bits in 64-bit lanes.
 */
#include <immintrin.h>

#include "simd/isa.h"

enum { LANES = 64, ONE_CHAINS = 2, FOUR_CHAINS = 2, AHEAD_BYTES = 4096 };
#define ELEMENT uint8_t
#define RESULT  int32_t
#define VEC     __m512i
#define INLINE  static inline __attribute__((always_inline))

INLINE __m512i zero(void) { return _mm512_setzero_si512(); }
INLINE __m512i load(const uint8_t *p) { return _mm512_loadu_si512(p); }
INLINE __m512i load_tail(const uint8_t *p, size_t i, size_t dim) {
    return _mm512_maskz_loadu_epi8(_bzhi_u64(~0ull, (unsigned)(dim - i)), p + i);
}
INLINE __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }

/* Counts lie in 64-bit lanes, which are even 32-bit lanes: the odd ones stay zero. */
INLINE __m256i fold_half(__m512i v) {
    return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
}

INLINE int32_t fold_one(__m512i v) {
    __m256i eight = fold_half(v);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e)));
}

/* ab: the counts of a in the even lanes, those of b in the odd ones. */
INLINE void fold_four(const __m512i v[4], int32_t out[4]) {
    __m512i ab = _mm512_or_si512(v[0], _mm512_slli_epi64(v[1], 32));
    __m512i cd = _mm512_or_si512(v[2], _mm512_slli_epi64(v[3], 32));
    __m256i ab4 = fold_half(ab), cd4 = fold_half(cd);
    __m256i abcd = _mm256_add_epi32(_mm256_unpacklo_epi64(ab4, cd4), _mm256_unpackhi_epi64(ab4, cd4));
    __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(abcd), _mm256_extracti128_si256(abcd, 1));
    _mm_storeu_si128((__m128i *)out, sums);
}

INLINE __m512i step_hamming(__m512i sum, __m512i q, __m512i r) {
    return add(sum, _mm512_popcnt_epi64(_mm512_xor_si512(q, r)));
}

#define KERNEL hamming
#define STEP   step_hamming
#include "simd/free_shapes.h"

void kith_fill_avx512_vpopcntdq(kith_simd_table *table) { table->hamming = (kith_int_kernels)KITH_SHAPES(hamming); }
