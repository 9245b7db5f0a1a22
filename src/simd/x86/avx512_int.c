/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_int.c: exact distances and norms of bytes and Hamming distance for AVX-512 BW, without VNNI and VPOPCNTDQ.
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

INLINE __m256i fold_half(__m512i v) {
    return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
}

INLINE int32_t fold_one(__m512i v) {
    __m256i eight = fold_half(v);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

INLINE void fold_four(const __m512i v[4], int32_t out[4]) {
    __m256i ab = _mm256_hadd_epi32(fold_half(v[0]), fold_half(v[1]));
    __m256i abcd = _mm256_hadd_epi32(ab, _mm256_hadd_epi32(fold_half(v[2]), fold_half(v[3])));
    __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(abcd), _mm256_extracti128_si256(abcd, 1));
    _mm_storeu_si128((__m128i *)out, sums);
}

/* ---- steps ---- */

/* Adds the squares of 64 unsigned bytes. */
INLINE __m512i add_squares(__m512i sum, __m512i bytes) {
    __m512i low = _mm512_unpacklo_epi8(bytes, zero()), high = _mm512_unpackhi_epi8(bytes, zero());
    return add(sum, add(_mm512_madd_epi16(low, low), _mm512_madd_epi16(high, high)));
}

/* The difference of two bytes is at most 255 in size, so it fits a byte without its sign. */
INLINE __m512i step_l2sq_u8(__m512i sum, __m512i q, __m512i r) {
    return add_squares(sum, _mm512_sub_epi8(_mm512_max_epu8(q, r), _mm512_min_epu8(q, r)));
}
INLINE __m512i step_l2sq_i8(__m512i sum, __m512i q, __m512i r) {
    return add_squares(sum, _mm512_sub_epi8(_mm512_max_epi8(q, r), _mm512_min_epi8(q, r)));
}

INLINE __m512i step_ip_u8(__m512i sum, __m512i q, __m512i r) {
    __m512i low = _mm512_madd_epi16(_mm512_unpacklo_epi8(q, zero()), _mm512_unpacklo_epi8(r, zero()));
    __m512i high = _mm512_madd_epi16(_mm512_unpackhi_epi8(q, zero()), _mm512_unpackhi_epi8(r, zero()));
    return add(sum, add(low, high));
}

/* Even and odd bytes with their signs, in 16 bits. */
INLINE __m512i even_i16(__m512i bytes) { return _mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 8); }
INLINE __m512i odd_i16(__m512i bytes) { return _mm512_srai_epi16(bytes, 8); }

INLINE __m512i step_ip_i8(__m512i sum, __m512i q, __m512i r) {
    __m512i even = _mm512_madd_epi16(even_i16(q), even_i16(r)), odd = _mm512_madd_epi16(odd_i16(q), odd_i16(r));
    return add(sum, add(even, odd));
}

/* Bits are counted by a look-up of each half byte, as in avx2_int.c. */
INLINE __m512i step_hamming(__m512i sum, __m512i q, __m512i r) {
    const __m512i counts = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i half_byte = _mm512_set1_epi8(15);
    __m512i bits = _mm512_xor_si512(q, r);
    __m512i low = _mm512_shuffle_epi8(counts, _mm512_and_si512(bits, half_byte));
    __m512i high = _mm512_shuffle_epi8(counts, _mm512_and_si512(_mm512_srli_epi16(bits, 4), half_byte));
    return add(sum, _mm512_sad_epu8(_mm512_add_epi8(low, high), zero()));
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

#define KERNEL ip_i8_i8
#define STEP   step_ip_i8
#include "simd/free_shapes.h"

#define KERNEL hamming
#define STEP   step_hamming
#include "simd/free_shapes.h"

static int32_t norm2_i8(const int8_t *vector, size_t dim) { return ip_i8_i8(vector, vector, dim); }
static int32_t norm2_u8(const uint8_t *vector, size_t dim) { return ip_u8_u8(vector, vector, dim); }

void kith_fill_avx512_int(kith_simd_table *table) {
    KITH_FILL_INTS(table);
    table->hamming = (kith_int_kernels)KITH_SHAPES(hamming);
    table->norm2_i8 = norm2_i8;
    table->norm2_u8 = norm2_u8;
}
