/* SPDX-License-Identifier: Apache-2.0
 *
 * avx2_tables.c: the kernels of tables.h with AVX2 and FMA.
 *
 * PSHUFB looks up in a table of 16 bytes, one for all bytes of a 128-bit lane; so the bytes of a block's words are
 * first sorted by their place in the word, once for all queries.
 */
#include <immintrin.h>

#include "simd/isa.h"
#include "simd/unroll.h"

#define VECTOR_BYTES       32
#define FUSED_MULTIPLY_ADD _mm256_fmadd_ps
#include "simd/tables_template.h"

#define INLINE static inline __attribute__((always_inline))
/* 32 words are 256 parts: their sum stays below 2^16. */
enum { CHUNK_WORDS = 32, QUERIES_MAX = 16, ROWS = KITH_BLOCK_ROWS };

/* out[r] = base + (addend[r] + fma(sum[r], unit, offset)). */
INLINE void finish(const kith_lookup *query, const kith_lookup_shape *shape, const unsigned char *block,
                   const uint32_t *sums, float *out) {
    const __m256 unit = _mm256_set1_ps(query->unit), offset = _mm256_set1_ps(query->offset);
    const __m256 base = _mm256_set1_ps(query->base);
    const float *addends = (const float *)(const void *)(block + shape->block_addend);
    KITH_UNROLL(4)
    for (size_t i = 0; i < ROWS; i += 8) {
        __m256 sum = _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(const void *)(sums + i)));
        __m256 term = _mm256_fmadd_ps(sum, unit, offset);
        if (shape->block_addend != KITH_NO_ADDEND) term = _mm256_add_ps(_mm256_loadu_ps(addends + i), term);
        _mm256_storeu_ps(out + i, _mm256_add_ps(base, term));
    }
}

/* ---- Nibbles ------------------------------------------------------------------------------------------------- */

/* The numbers of a word for 32 rows: even[i] those of its part 2 * i, odd[i] those of 2 * i + 1. Byte k of half h is
 * row 8 * (k / 4) + 4 * h + k % 4. */
typedef struct sorted_word {
    __m256i even[4], odd[4];
} sorted_word;

INLINE sorted_word sort_word(const unsigned char *words) {
    const __m256i by_place = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1,
                                              5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i rows[4], pairs[4], bytes[4];
    for (size_t i = 0; i < 4; i++)
        rows[i] =
            _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(const void *)(words + 32 * i)), by_place);
    pairs[0] = _mm256_unpacklo_epi32(rows[0], rows[1]);
    pairs[1] = _mm256_unpackhi_epi32(rows[0], rows[1]);
    pairs[2] = _mm256_unpacklo_epi32(rows[2], rows[3]);
    pairs[3] = _mm256_unpackhi_epi32(rows[2], rows[3]);
    for (size_t i = 0; i < 2; i++) {
        bytes[2 * i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
        bytes[2 * i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
    }
    sorted_word out;
    for (size_t i = 0; i < 4; i++) {
        out.even[i] = _mm256_and_si256(bytes[i], nibble);
        out.odd[i] = _mm256_and_si256(_mm256_srli_epi16(bytes[i], 4), nibble);
    }
    return out;
}

/* 16-bit sums of bytes: `all` adds pairs of bytes as one number, `high` the upper bytes alone. */
typedef struct byte_sums {
    __m256i all, high;
} byte_sums;

INLINE byte_sums add_bytes(byte_sums sums, __m256i bytes) {
    sums.all = _mm256_add_epi16(sums.all, bytes);
    sums.high = _mm256_add_epi16(sums.high, _mm256_srli_epi16(bytes, 8));
    return sums;
}

INLINE __m256i look_up(const uint8_t *table, __m256i numbers) {
    __m128i entries = _mm_load_si128((const __m128i *)(const void *)table);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), numbers);
}

INLINE void add_u32(uint32_t *to, __m256i sums) {
    __m256i *at = (__m256i *)(void *)to;
    _mm256_storeu_si256(at, _mm256_add_epi32(_mm256_loadu_si256(at), sums));
}

/* Adds the sums to those of the rows, in order. */
INLINE void flush(byte_sums sums, uint32_t *rows) {
    __m256i even = _mm256_sub_epi16(sums.all, _mm256_slli_epi16(sums.high, 8)), odd = sums.high;
    __m256i both[2] = {_mm256_unpacklo_epi16(even, odd), _mm256_unpackhi_epi16(even, odd)};
    for (size_t i = 0; i < 2; i++) {
        __m256i a = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(both[i]));
        __m256i b = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(both[i], 1));
        add_u32(rows + 16 * i, _mm256_permute2x128_si256(a, b, 0x20));
        add_u32(rows + 16 * i + 8, _mm256_permute2x128_si256(a, b, 0x31));
    }
}

INLINE void nibbles_block(const kith_lookup *queries, size_t query_count, const kith_lookup_shape *shape,
                          const unsigned char *block, uint32_t (*sums)[ROWS]) {
    size_t word_count = (shape->part_count + 7) / 8;
    sorted_word words[CHUNK_WORDS];
    for (size_t first = 0; first < word_count; first += CHUNK_WORDS) {
        size_t count = word_count - first < CHUNK_WORDS ? word_count - first : CHUNK_WORDS;
        for (size_t w = 0; w < count; w++) words[w] = sort_word(block + (first + w) * ROWS * 4);
        for (size_t q = 0; q < query_count; q++) {
            const uint8_t *tables = (const uint8_t *)queries[q].tables + first * KITH_NIBBLE_WORD_BYTES;
            byte_sums even = {_mm256_setzero_si256(), _mm256_setzero_si256()}, odd = even;
            for (size_t w = 0; w < count; w++, tables += KITH_NIBBLE_WORD_BYTES) KITH_UNROLL(4)
            for (size_t i = 0; i < 4; i++) {
                even = add_bytes(even, look_up(tables + 16 * i, words[w].even[i]));
                odd = add_bytes(odd, look_up(tables + 64 + 16 * i, words[w].odd[i]));
            }
            even.all = _mm256_add_epi16(even.all, odd.all);
            even.high = _mm256_add_epi16(even.high, odd.high);
            flush(even, sums[q]);
        }
    }
}

static void nibbles_scan(const kith_lookup *queries, size_t query_count, const kith_lookup_shape *shape,
                         const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    for (size_t b = 0; b < block_count; b++, blocks += shape->block_bytes, out += ROWS)
        for (size_t first = 0; first < query_count; first += QUERIES_MAX) {
            size_t count = query_count - first < QUERIES_MAX ? query_count - first : QUERIES_MAX;
            uint32_t sums[QUERIES_MAX][ROWS];
            memset(sums, 0, count * sizeof *sums);
            nibbles_block(queries + first, count, shape, blocks, sums);
            for (size_t q = 0; q < count; q++)
                finish(queries + first + q, shape, blocks, sums[q], out + (first + q) * out_stride);
        }
}

/* ---- Bytes and others ---------------------------------------------------------------------------------------- */

/* 16-bit entries at eight numbers; the two bytes after an entry are read with it. */
INLINE __m256i gather_8(const uint16_t *table, __m256i numbers) {
    __m256i pairs = _mm256_i32gather_epi32((const int *)(const void *)table, numbers, 2);
    return _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff));
}

/* The last entry of all is at the end of the operand: it is looked up by itself. */
INLINE __m256i gather_8_last(const uint16_t *table, __m256i numbers) {
    uint32_t at[8];
    _mm256_storeu_si256((__m256i *)(void *)at, numbers);
    return _mm256_setr_epi32(table[at[0]], table[at[1]], table[at[2]], table[at[3]], table[at[4]], table[at[5]],
                             table[at[6]], table[at[7]]);
}

static void bytes_scan(const kith_lookup *queries, size_t query_count, const kith_lookup_shape *shape,
                       const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    for (size_t b = 0; b < block_count; b++, blocks += shape->block_bytes, out += ROWS)
        for (size_t q = 0; q < query_count; q++) {
            const uint16_t *table = queries[q].tables;
            __m256i sums[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                               _mm256_setzero_si256()};
            for (size_t p = 0; p < shape->part_count; p++, table += 256) KITH_UNROLL(4)
            for (size_t i = 0; i < 4; i++) {
                __m128i eight = _mm_loadl_epi64((const __m128i *)(const void *)(blocks + p * ROWS + 8 * i));
                __m256i numbers = _mm256_cvtepu8_epi32(eight);
                sums[i] = _mm256_add_epi32(sums[i], p + 1 < shape->part_count ? gather_8(table, numbers)
                                                                              : gather_8_last(table, numbers));
            }
            uint32_t rows[ROWS];
            for (size_t i = 0; i < 4; i++) _mm256_storeu_si256((__m256i *)(void *)(rows + 8 * i), sums[i]);
            finish(queries + q, shape, blocks, rows, out + q * out_stride);
        }
}

static void gather(const uint16_t *tables, size_t entries, const uint16_t *numbers, size_t part_count,
                   int32_t *sums) {
    for (size_t i = 0; i < ROWS; i += 8) {
        const uint16_t *table = tables;
        __m256i sum = _mm256_setzero_si256();
        for (size_t p = 0; p < part_count; p++, table += entries) {
            __m128i eight = _mm_loadu_si128((const __m128i *)(const void *)(numbers + p * ROWS + i));
            sum = _mm256_add_epi32(sum, gather_8(table, _mm256_cvtepu16_epi32(eight)));
        }
        _mm256_storeu_si256((__m256i *)(void *)(sums + i), sum);
    }
}

void kith_fill_avx2_tables(kith_simd_table *table) {
    table->tables = (kith_table_kernels){
        .nibbles = {nibbles_scan, nibbles_four},
        .bytes = {bytes_scan, bytes_four},
        .gather = gather,
        .affine = affine,
        .extent = extent,
        .to_u8 = to_u8,
        .to_u16 = to_u16,
        .nearest = nearest,
        .cheapest = cheapest,
    };
}
