/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_vnni_fields.c: the integer kernels of fields.h on vpdpbusd: four products of an unsigned field with a signed
 * byte of the query are added to a sum of 32 bits, exactly.
 */
#include <immintrin.h>
#include <string.h>

#include "simd/isa.h"
#include "simd/unroll.h"

#define INLINE static inline __attribute__((always_inline))
/* In a register, and made here: without it gcc takes the fields of later steps first and has no registers left. */
#define STAYS(sum) __asm__("" : "+v"(sum))
enum { LANES = 16, HALVES = KITH_BLOCK_ROWS / LANES, TILE_QUERIES = 8, SUMS = 8 };

INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* The fields of `width` bits whose lowest bit is bit `place` of its byte, left where they are. */
INLINE __m512i keep(__m512i words, unsigned width, unsigned place) {
    if (width == 8) return words;
    return _mm512_and_si512(words, _mm512_set1_epi8((char)(((1u << width) - 1) << place)));
}

INLINE __m512i shift_down(__m512i words, unsigned bits) {
    return bits == 0 ? words : _mm512_srli_epi32(words, bits);
}

/* ---- block ---- */

/* A tile of few queries has registers to spare for sums of its own for fields at several places of their bytes: these
 * are multiplied where they are, and only the sums are shifted, once. Where even that leaves few sums, words take turns
 * with two sets of them. */
INLINE size_t places_of(unsigned width, size_t count) {
    size_t spare = SUMS / count;
    return least(8 / width, spare >= 8 ? 8 : spare >= 4 ? 4 : spare >= 2 ? 2 : 1);
}
INLINE size_t chains_of(unsigned width, size_t count) { return count * places_of(width, count) < 4 ? 2 : 1; }

typedef __m512i tile_sums[SUMS][HALVES]; /* of query, place and chain */

/* `next`: the word of a block to come that is fetched meanwhile. */
INLINE void add_word(unsigned width, size_t count, size_t chain, const int8_t *const *queries, size_t at,
                     const uint32_t *words, const uint32_t *next, tile_sums sums) {
    const size_t places = places_of(width, count), chains = chains_of(width, count);
    __m512i low = _mm512_loadu_si512(words), high = _mm512_loadu_si512(words + LANES);
    _mm_prefetch((const char *)next, _MM_HINT_T0);
    _mm_prefetch((const char *)(next + LANES), _MM_HINT_T0);
    KITH_UNROLL(8)
    for (size_t step = 0; step < 8 / width; step++) {
        const unsigned place = (unsigned)(step % places) * width, shift = (unsigned)(step * width) - place;
        __m512i low_fields = keep(shift_down(low, shift), width, place);
        __m512i high_fields = keep(shift_down(high, shift), width, place);
        KITH_UNROLL(8)
        for (size_t q = 0; q < count; q++) {
            int32_t four;
            memcpy(&four, queries[q] + at + step * 4, sizeof four);
            __m512i bytes = _mm512_set1_epi32(four), *to = sums[(q * places + step % places) * chains + chain];
            to[0] = _mm512_dpbusd_epi32(to[0], low_fields, bytes);
            to[1] = _mm512_dpbusd_epi32(to[1], high_fields, bytes);
            STAYS(to[0]);
            STAYS(to[1]);
        }
    }
}

INLINE void block_tile(unsigned width, size_t count, const int8_t *const *all_queries, const uint32_t *words,
                       size_t word_count, const uint32_t *next, int32_t *out) {
    const size_t places = places_of(width, count), chains = chains_of(width, count), word_bytes = 32 / width;
    const int8_t *queries[TILE_QUERIES];
    tile_sums sums;
    KITH_UNROLL(8)
    for (size_t q = 0; q < count; q++) queries[q] = all_queries[q];
    KITH_UNROLL(8)
    for (size_t s = 0; s < count * places * chains; s++) sums[s][0] = sums[s][1] = _mm512_setzero_si512();
    size_t w = 0;
    for (; word_count - w >= chains; w += chains) {
        add_word(width, count, 0, queries, w * word_bytes, words + w * KITH_BLOCK_ROWS, next + w * KITH_BLOCK_ROWS,
                 sums);
        if (chains == 2)
            add_word(width, count, 1, queries, (w + 1) * word_bytes, words + (w + 1) * KITH_BLOCK_ROWS,
                     next + (w + 1) * KITH_BLOCK_ROWS, sums);
    }
    if (w < word_count)
        add_word(width, count, 0, queries, w * word_bytes, words + w * KITH_BLOCK_ROWS, next + w * KITH_BLOCK_ROWS,
                 sums);
    KITH_UNROLL(8)
    for (size_t q = 0; q < count; q++) {
        KITH_UNROLL(2)
        for (size_t h = 0; h < HALVES; h++) {
            __m512i total = _mm512_setzero_si512();
            KITH_UNROLL(8)
            for (size_t p = 0; p < places; p++) {
                __m512i sum = sums[(q * places + p) * chains][h];
                if (chains == 2) sum = _mm512_add_epi32(sum, sums[(q * places + p) * chains + 1][h]);
                total = p == 0 ? sum : _mm512_add_epi32(total, _mm512_srai_epi32(sum, (unsigned)p * width));
            }
            _mm512_storeu_si512(out + q * KITH_BLOCK_ROWS + h * LANES, total);
        }
    }
}

typedef void tile_fn(const int8_t *const *queries, const uint32_t *words, size_t word_count, const uint32_t *next,
                     int32_t *out);

/* 9 to 15 queries go in halves, as a tile is the better the more it has. */
INLINE void block_tiles(tile_fn *const tiles[TILE_QUERIES], const int8_t *const *queries, size_t query_count,
                        const uint32_t *words, size_t word_count, const uint32_t *next, int32_t *out) {
    while (query_count > 0) {
        size_t count = query_count <= TILE_QUERIES      ? query_count
                       : query_count < 2 * TILE_QUERIES ? query_count / 2
                                                        : TILE_QUERIES;
        tiles[count - 1](queries, words, word_count, next, out);
        next = words; /* fetched by the first tile; what is there already costs nothing */
        queries += count;
        query_count -= count;
        out += count * KITH_BLOCK_ROWS;
    }
}

INLINE __m512i field_of(__m512i words, unsigned width, unsigned step) {
    return keep(shift_down(words, step * width), width, 0);
}

#include "simd/x86/avx512_lines.h"

/* ---- four ---- */

/* The sums of four registers, in order. */
INLINE __m128i fold_four(const __m512i v[4]) {
    __m512i ab = pair_up(v[0], v[1]), cd = pair_up(v[2], v[3]);
    return sum_quarters(_mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd)));
}

/* Rows of bytes have one product a line: a second set of sums halves the wait for the one before. */
INLINE __m128i dots_of_four(unsigned width, const int8_t *query, const uint32_t *const rows[4], size_t word_count) {
    const size_t sets = width == 8 ? 2 : 1, step_bytes = (word_count + LANES - 1) / LANES * LANES * sizeof **rows;
    __m512i sums[2][4], words[4];
    KITH_UNROLL(4)
    for (size_t r = 0; r < 4; r++) sums[0][r] = sums[1][r] = _mm512_setzero_si512();
    size_t w = 0;
    for (; word_count - w >= sets * LANES; w += sets * LANES) {
        KITH_UNROLL(2)
        for (size_t s = 0; s < sets; s++) {
            KITH_UNROLL(4)
            for (size_t r = 0; r < 4; r++) words[r] = _mm512_loadu_si512(rows[r] + w + s * LANES);
            add_line(width, query + (w + s * LANES) * sizeof **rows, step_bytes, words, sums[s]);
        }
    }
    for (; w < word_count; w += LANES) {
        __mmask16 lanes = (__mmask16)_bzhi_u32(0xffff, (unsigned)least(word_count - w, LANES));
        KITH_UNROLL(4)
        for (size_t r = 0; r < 4; r++) words[r] = _mm512_maskz_loadu_epi32(lanes, rows[r] + w);
        add_line(width, query + w * sizeof **rows, step_bytes, words, sums[0]);
    }
    KITH_UNROLL(4)
    for (size_t r = 0; sets == 2 && r < 4; r++) sums[0][r] = _mm512_add_epi32(sums[0][r], sums[1][r]);
    return fold_four(sums[0]);
}

/* ---- the table ---- */

#define TILE(WIDTH, COUNT)                                                                                         \
    static void tile_##WIDTH##_##COUNT(const int8_t *const *queries, const uint32_t *words, size_t word_count,     \
                                       const uint32_t *next, int32_t *out) {                                       \
        block_tile(WIDTH, COUNT, queries, words, word_count, next, out);                                           \
    }
#define KERNELS(WIDTH)                                                                                             \
    TILE(WIDTH, 1)                                                                                                 \
    TILE(WIDTH, 2)                                                                                                 \
    TILE(WIDTH, 3)                                                                                                 \
    TILE(WIDTH, 4)                                                                                                 \
    TILE(WIDTH, 5)                                                                                                 \
    TILE(WIDTH, 6)                                                                                                 \
    TILE(WIDTH, 7)                                                                                                 \
    TILE(WIDTH, 8)                                                                                                 \
    static void block_##WIDTH(const int8_t *const *queries, size_t query_count, const uint32_t *words,             \
                              size_t word_count, const uint32_t *ahead, int32_t *out) {                            \
        static tile_fn *const tiles[TILE_QUERIES] = {tile_##WIDTH##_1, tile_##WIDTH##_2, tile_##WIDTH##_3,         \
                                                     tile_##WIDTH##_4, tile_##WIDTH##_5, tile_##WIDTH##_6,         \
                                                     tile_##WIDTH##_7, tile_##WIDTH##_8};                          \
        block_tiles(tiles, queries, query_count, words, word_count, ahead != NULL ? ahead : words, out);           \
    }                                                                                                              \
    static void four_##WIDTH(const int8_t *query, const uint32_t *const rows[4], size_t word_count,                \
                             int32_t out[4]) {                                                                     \
        _mm_storeu_si128((__m128i *)(void *)out, dots_of_four(WIDTH, query, rows, word_count));                    \
    }
KERNELS(1)
KERNELS(2)
KERNELS(4)
KERNELS(8)

void kith_fill_avx512_vnni_fields(kith_simd_table *table) {
    static const kith_field_kernels fields[KITH_FIELD_WIDTHS] = {
        {block_1, four_1}, {block_2, four_2}, {block_4, four_4}, {block_8, four_8}};
    memcpy(table->fields, fields, sizeof fields);
    table->splits = (kith_split_kernels){NULL, NULL};
    fill_lines(table);
}
