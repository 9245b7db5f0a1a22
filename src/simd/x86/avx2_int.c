/* SPDX-License-Identifier: Apache-2.0
 *
 * avx2_int.c: exact distances and norms of bytes and Hamming distance for AVX2. Products are made in 16 bits and
 * added in pairs to 32 bits (vpmaddwd): vpmaddubsw would be faster but saturates.
 */
#include <immintrin.h>
#include <string.h>

#include "simd/isa.h"

enum { LANES = 32, ONE_CHAINS = 2, FOUR_CHAINS = 1, AHEAD_BYTES = 4096 };
#define ELEMENT uint8_t
#define RESULT  int32_t
#define VEC     __m256i
#define INLINE  static inline __attribute__((always_inline))

INLINE __m256i zero(void) { return _mm256_setzero_si256(); }
INLINE __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }

/* `count` < 16 bytes and zeros above them. */
INLINE __m128i load_under_16(const uint8_t *p, size_t count) {
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
        for (size_t i = count; i > 0; i--) low = low << 8 | p[i - 1];
    }
    return _mm_set_epi64x((long long)high, (long long)low);
}

/* A vector of at least one register ends with a load that overlaps what has been summed, which is masked off. */
INLINE __m256i load_tail(const uint8_t *p, size_t i, size_t dim) {
    static const uint8_t masks[64] = {0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,
                                      0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,
                                      0,   0,   0,   0,   0,   0,   255, 255, 255, 255, 255, 255, 255,
                                      255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
                                      255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    size_t count = dim - i;
    if (dim >= 32) return _mm256_and_si256(load(p + dim - 32), load(masks + count));
    if (dim < 16) return _mm256_zextsi128_si256(load_under_16(p, dim));
    __m128i low = _mm_loadu_si128((const __m128i *)p), high = _mm_loadu_si128((const __m128i *)(p + dim - 16));
    high = _mm_and_si128(high, _mm_loadu_si128((const __m128i *)(masks + dim)));
    return _mm256_set_m128i(high, low);
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

/* ---- steps ---- */

/* Adds the squares of 32 unsigned bytes. */
INLINE __m256i add_squares(__m256i sum, __m256i bytes) {
    __m256i low = _mm256_unpacklo_epi8(bytes, zero()), high = _mm256_unpackhi_epi8(bytes, zero());
    return add(sum, add(_mm256_madd_epi16(low, low), _mm256_madd_epi16(high, high)));
}

/* Differences of 16 bits: where four rows share a query, it is widened once. */
INLINE __m256i step_l2sq_u8(__m256i sum, __m256i q, __m256i r) {
    __m256i low = _mm256_sub_epi16(_mm256_unpacklo_epi8(q, zero()), _mm256_unpacklo_epi8(r, zero()));
    __m256i high = _mm256_sub_epi16(_mm256_unpackhi_epi8(q, zero()), _mm256_unpackhi_epi8(r, zero()));
    return add(sum, add(_mm256_madd_epi16(low, low), _mm256_madd_epi16(high, high)));
}
/* The difference of two bytes is at most 255 in size, so it fits a byte without its sign. */
INLINE __m256i step_l2sq_i8(__m256i sum, __m256i q, __m256i r) {
    return add_squares(sum, _mm256_sub_epi8(_mm256_max_epi8(q, r), _mm256_min_epi8(q, r)));
}

INLINE __m256i step_ip_u8(__m256i sum, __m256i q, __m256i r) {
    __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi8(q, zero()), _mm256_unpacklo_epi8(r, zero()));
    __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi8(q, zero()), _mm256_unpackhi_epi8(r, zero()));
    return add(sum, add(low, high));
}

/* Bits are counted by a look-up of each half byte (Mula, Kurz, Lemire 2018, "Faster population counts using AVX2
 * instructions", section 3). */
INLINE __m256i step_hamming(__m256i sum, __m256i q, __m256i r) {
    const __m256i counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3,
                                            1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i half_byte = _mm256_set1_epi8(15);
    __m256i bits = _mm256_xor_si256(q, r);
    __m256i low = _mm256_shuffle_epi8(counts, _mm256_and_si256(bits, half_byte));
    __m256i high = _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16(bits, 4), half_byte));
    return add(sum, _mm256_sad_epu8(_mm256_add_epi8(low, high), zero()));
}

/* ---- the shapes ---- */

#define KERNEL l2sq_u8_u8
#define STEP   step_l2sq_u8
#include "simd/free_shapes.h"

#define KERNEL l2sq_i8_i8
#define STEP   step_l2sq_i8
#include "simd/free_shapes.h"

#define KERNEL ip_u8_u8
#define STEP   step_ip_u8
#include "simd/free_shapes.h"

#define KERNEL hamming
#define STEP   step_hamming
#include "simd/free_shapes.h"

static int32_t norm2_u8(const uint8_t *vector, size_t dim) { return ip_u8_u8(vector, vector, dim); }

void kith_fill_avx2_int(kith_simd_table *table) {
    table->ints[KITH_OP_L2SQ][KITH_PAIR_I8_I8] = (kith_int_kernels)KITH_SHAPES(l2sq_i8_i8);
    table->ints[KITH_OP_L2SQ][KITH_PAIR_U8_U8] = (kith_int_kernels)KITH_SHAPES(l2sq_u8_u8);
    table->ints[KITH_OP_IP][KITH_PAIR_U8_U8] = (kith_int_kernels)KITH_SHAPES(ip_u8_u8);
    table->hamming = (kith_int_kernels)KITH_SHAPES(hamming);
    table->norm2_u8 = norm2_u8;
}
