/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_vnni.c: exact distances and norms of bytes, and the integer tile, on AVX-512's dot products. vpdpbusd
 * multiplies unsigned with signed bytes: the side of the other type is shifted by 128 (its top bit flipped), and what
 * that adds to the sum is taken off again. Sums wrap at 32 bits, so only the final value has to fit.
 */
#include <immintrin.h>
#include <string.h>

#include "simd/isa.h"

enum { LANES = 64, QUERY_LANES = 12, ROW_LANES = 32, GROUP = 4, AHEAD_BYTES = 4096 };
/* The sums of squared L2 consist of two or three parts: chains enough but for one long row. */
#define ONE_CHAINS  2
#define FOUR_CHAINS 1
#define CHAINS_FROM 512
#define ELEMENT     uint8_t
#define RESULT      int32_t
#define VEC         __m512i
#define INLINE      static inline __attribute__((always_inline))

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

INLINE __m512i flip(__m512i bytes) { return _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)); }

/* Squared L2 of one row: |q - r| fits a byte without its sign; it is squared in 16 bits, the two halves apart. */
INLINE __m512i finish_squares(const __m512i parts[2]) { return add(parts[0], parts[1]); }
INLINE void add_squares(__m512i parts[2], __m512i bytes) {
    __m512i low = _mm512_unpacklo_epi8(bytes, zero()), high = _mm512_unpackhi_epi8(bytes, zero());
    parts[0] = _mm512_dpwssd_epi32(parts[0], low, low);
    parts[1] = _mm512_dpwssd_epi32(parts[1], high, high);
}
INLINE void squares_u8(__m512i parts[2], __m512i q, __m512i r) {
    add_squares(parts, _mm512_sub_epi8(_mm512_max_epu8(q, r), _mm512_min_epu8(q, r)));
}
INLINE void squares_i8(__m512i parts[2], __m512i q, __m512i r) {
    add_squares(parts, _mm512_sub_epi8(_mm512_max_epi8(q, r), _mm512_min_epi8(q, r)));
}

/* Squared L2 of four rows: r^2 - 2 q r, and q^2 on the side, takes a third less for each row. With unsigned q, r and
 * the signed t = r - 128: r^2 - 2 q r = r t - 2 q t + 128 r - 256 q. For signed elements q and r here are the
 * shifted ones, which are as far from each other. */
INLINE void add_products(__m512i parts[3], __m512i q, __m512i r, __m512i t) {
    parts[0] = _mm512_dpbusd_epi32(parts[0], r, t);
    parts[1] = _mm512_dpbusd_epi32(parts[1], q, t);
    parts[2] = _mm512_dpbusd_epi32(parts[2], r, _mm512_set1_epi8(1));
}
INLINE __m512i finish_products(const __m512i parts[3]) {
    __m512i half = _mm512_sub_epi32(_mm512_slli_epi32(parts[2], 6), parts[1]);
    return add(parts[0], add(half, half));
}
INLINE void products_u8(__m512i parts[3], __m512i q, __m512i r) { add_products(parts, q, r, flip(r)); }
INLINE void products_i8(__m512i parts[3], __m512i q, __m512i r) { add_products(parts, flip(q), flip(r), r); }
/* q^2 - 256 q = q (q - 128) - 128 q */
INLINE __m512i side_products(__m512i sum, __m512i q, __m512i shifted) {
    return add(sum, _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero(), q, shifted), q, _mm512_set1_epi8(-128)));
}
INLINE __m512i side_products_u8(__m512i sum, __m512i q) { return side_products(sum, q, flip(q)); }
INLINE __m512i side_products_i8(__m512i sum, __m512i q) { return side_products(sum, flip(q), q); }

/* q * (r - 128), and 128 * q on the side. */
INLINE __m512i step_ip_u8(__m512i sum, __m512i q, __m512i r) { return _mm512_dpbusd_epi32(sum, q, flip(r)); }
INLINE __m512i side_ip_u8(__m512i sum, __m512i q) {
    return _mm512_sub_epi32(sum, _mm512_dpbusd_epi32(zero(), q, _mm512_set1_epi8(-128)));
}
/* (r + 128) * q, and -128 * q on the side. */
INLINE __m512i step_ip_i8(__m512i sum, __m512i q, __m512i r) { return _mm512_dpbusd_epi32(sum, flip(r), q); }
INLINE __m512i side_ip_i8(__m512i sum, __m512i q) {
    return _mm512_sub_epi32(sum, _mm512_dpbusd_epi32(zero(), _mm512_set1_epi8(-128), q));
}

/* ---- the shapes ---- */

#define KERNEL     l2sq_u8_u8
#define PARTS      2
#define ACCUMULATE squares_u8
#define FINISH     finish_squares
#include "simd/free_shapes.h"

#define KERNEL     l2sq_gathered_u8
#define PARTS      3
#define ACCUMULATE products_u8
#define FINISH     finish_products
#define SIDE       side_products_u8
#include "simd/free_shapes.h"

#define KERNEL     l2sq_i8_i8
#define PARTS      2
#define ACCUMULATE squares_i8
#define FINISH     finish_squares
#include "simd/free_shapes.h"

#define KERNEL     l2sq_gathered_i8
#define PARTS      3
#define ACCUMULATE products_i8
#define FINISH     finish_products
#define SIDE       side_products_i8
#include "simd/free_shapes.h"

#undef FOUR_CHAINS
#undef CHAINS_FROM
#define FOUR_CHAINS 2
#define KERNEL      ip_u8_u8
#define STEP        step_ip_u8
#define SIDE        side_ip_u8
#include "simd/free_shapes.h"

#define KERNEL ip_i8_i8
#define STEP   step_ip_i8
#define SIDE   side_ip_i8
#include "simd/free_shapes.h"

static int32_t norm2_i8(const int8_t *vector, size_t dim) { return ip_i8_i8(vector, vector, dim); }
static int32_t norm2_u8(const uint8_t *vector, size_t dim) { return ip_u8_u8(vector, vector, dim); }

/* ---- the tile: 12 queries x 32 rows in 24 registers, four bytes a word ---- */

/* Copies the bytes with their top bit flipped or not; returns 128 times their sum, of type dtype. */
INLINE int32_t prepare(const void *vector, kith_dtype dtype, size_t dim, bool flipped, uint32_t *words) {
    const uint8_t *p = vector;
    uint8_t *out = (uint8_t *)words;
    __m512i sum = zero(), change = _mm512_set1_epi8(flipped ? -128 : 0);
    for (size_t i = 0; i < dim; i += LANES) {
        __mmask64 here = dim - i < LANES ? _bzhi_u64(~0ull, (unsigned)(dim - i)) : ~0ull;
        __mmask64 padded = dim - i < LANES ? _bzhi_u64(~0ull, (unsigned)(dim - i + GROUP - 1) & ~3u) : ~0ull;
        __m512i bytes = _mm512_maskz_loadu_epi8(here, p + i);
        sum = dtype == KITH_U8 ? _mm512_dpbusd_epi32(sum, bytes, _mm512_set1_epi8(1))
                               : _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), bytes);
        _mm512_mask_storeu_epi8(out + i, padded, _mm512_maskz_mov_epi8(here, _mm512_xor_si512(bytes, change)));
    }
    return 128 * fold_one(sum);
}

static int32_t tile_prepare_query(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words) {
    int32_t term = prepare(vector, dtype, dim, dtype == KITH_U8, words);
    return dtype == KITH_U8 ? 0 : -term;
}
static int32_t tile_prepare_row(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words) {
    int32_t term = prepare(vector, dtype, dim, dtype == KITH_I8, words);
    return dtype == KITH_I8 ? 0 : term;
}

static void tile_i8(const uint32_t *queries, const uint32_t *rows, size_t words, size_t row_panels,
                    const int32_t *bias, int32_t *out, size_t out_stride) {
    for (size_t p = 0; p < row_panels; p++, rows += words * ROW_LANES, bias += ROW_LANES, out += ROW_LANES) {
        __m512i sums[QUERY_LANES][2];
        for (size_t q = 0; q < QUERY_LANES; q++) {
            sums[q][0] = _mm512_loadu_si512(bias);
            sums[q][1] = _mm512_loadu_si512(bias + ROW_LANES / 2);
        }
        for (size_t w = 0; w < words; w++) {
            __m512i low = _mm512_loadu_si512(rows + w * ROW_LANES);
            __m512i high = _mm512_loadu_si512(rows + w * ROW_LANES + ROW_LANES / 2);
#pragma GCC unroll 12
            for (size_t q = 0; q < QUERY_LANES; q++) {
                __m512i query = _mm512_set1_epi32((int)queries[w * QUERY_LANES + q]);
                sums[q][0] = _mm512_dpbusd_epi32(sums[q][0], low, query);
                sums[q][1] = _mm512_dpbusd_epi32(sums[q][1], high, query);
            }
        }
        for (size_t q = 0; q < QUERY_LANES; q++) {
            _mm512_storeu_si512(out + q * out_stride, sums[q][0]);
            _mm512_storeu_si512(out + q * out_stride + ROW_LANES / 2, sums[q][1]);
        }
    }
}

void kith_fill_avx512_vnni(kith_simd_table *table) {
    KITH_FILL_INTS(table);
    kith_int_kernels *l2sq = table->ints[KITH_OP_L2SQ];
    l2sq[KITH_PAIR_U8_U8] = (kith_int_kernels){l2sq_u8_u8, l2sq_gathered_u8_four, l2sq_gathered_u8_block};
    l2sq[KITH_PAIR_I8_I8] = (kith_int_kernels){l2sq_i8_i8, l2sq_gathered_i8_four, l2sq_gathered_i8_block};
    table->norm2_i8 = norm2_i8;
    table->norm2_u8 = norm2_u8;
    table->tile_i8 = (kith_tile_i8){QUERY_LANES, ROW_LANES, GROUP, tile_prepare_query, tile_prepare_row, tile_i8};
}
