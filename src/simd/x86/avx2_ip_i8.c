/* SPDX-License-Identifier: Apache-2.0
 *
 * avx2_ip_i8.c: the inner product of signed bytes for AVX2. Signed bytes are widened while they are loaded, sixteen at
 * a time; that is the difference to the kernels of avx2_int.c.
 */
#include <immintrin.h>
#include <string.h>

#include "simd/isa.h"

enum { LANES = 16, ONE_CHAINS = 2, FOUR_CHAINS = 1, AHEAD_BYTES = 4096 };
#define ELEMENT int8_t
#define RESULT  int32_t
#define VEC     __m256i
#define INLINE  static inline __attribute__((always_inline))

INLINE __m256i zero(void) { return _mm256_setzero_si256(); }
INLINE __m256i load(const int8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)); }
INLINE __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }

/* `count` < 16 bytes and zeros above them. */
INLINE __m128i load_under_16(const int8_t *p, size_t count) {
    uint64_t low = 0, high = 0;
    if (count > 8) {
        memcpy(&low, p, 8);
        memcpy(&high, p + count - 8, 8);
        high >>= 8 * (16 - count);
    } else if (count >= 4) {
        uint32_t first, last;
        memcpy(&first, p, 4);
        memcpy(&last, p + count - 4, 4);
        low = (uint64_t)last << 8 * (count - 4) | first;
    } else {
        for (size_t i = count; i > 0; i--) low = low << 8 | (uint8_t)p[i - 1];
    }
    return _mm_set_epi64x((long long)high, (long long)low);
}

/* A vector of at least one register ends with a load that overlaps what has been summed, which is masked off. */
INLINE __m256i load_tail(const int8_t *p, size_t i, size_t dim) {
    static const uint8_t masks[32] = {0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,
                                      0,   0,   0,   0,   0,   255, 255, 255, 255, 255, 255,
                                      255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    if (dim < LANES) return _mm256_cvtepi8_epi16(load_under_16(p, dim));
    __m128i mask = _mm_loadu_si128((const __m128i *)(masks + (dim - i)));
    return _mm256_cvtepi8_epi16(_mm_and_si128(_mm_loadu_si128((const __m128i *)(p + dim - LANES)), mask));
}

INLINE int32_t fold_one(__m256i v) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

INLINE void fold_four(const __m256i v[4], int32_t out[4]) {
    __m256i abcd = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(abcd), _mm256_extracti128_si256(abcd, 1));
    _mm_storeu_si128((__m128i *)out, sums);
}

INLINE __m256i step(__m256i sum, __m256i q, __m256i r) { return add(sum, _mm256_madd_epi16(q, r)); }

#define KERNEL ip_i8_i8
#define STEP   step
#include "simd/free_shapes.h"

static int32_t norm2_i8(const int8_t *vector, size_t dim) { return ip_i8_i8(vector, vector, dim); }

void kith_fill_avx2_ip_i8(kith_simd_table *table) {
    table->ints[KITH_OP_IP][KITH_PAIR_I8_I8] = (kith_int_kernels)KITH_SHAPES(ip_i8_i8);
    table->norm2_i8 = norm2_i8;
}
