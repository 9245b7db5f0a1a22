/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_vbmi.c: look-ups of tables.h by VPERMB, which takes any byte of a register for any other.
 *
 * A table of 64 bytes is one register. The tables of four 4-bit parts fill it: with the part's place in bits 4 and
 * 5 of the index, one VPERMB looks up the four bytes of a word for 16 rows, and VPDPBUSD with ones adds them. A
 * table of 256 bytes is four registers, which of them being chosen by the number's two upper bits as masks; 16-bit
 * entries are two such tables. This takes 9 steps for 64 rows where a gather takes some 45.
 */
#include <immintrin.h>

#include "simd/isa.h"
#include "simd/unroll.h"

#define VECTOR_BYTES 64
#define FOUR_ROWS_ONLY
#define OWN_NIBBLES_FOUR
#define BYTE_PLANES
#include "simd/tables_template.h"

#define INLINE static inline __attribute__((always_inline))
enum { ROWS = KITH_BLOCK_ROWS, BLOCKS_TOGETHER = 16, PARTS_FLUSH = 256 };

/* out[r] = base + (addend[r] + fma(sum[r], unit, offset)) for the 16 rows of half `half`. */
INLINE void finish(const kith_lookup *query, const kith_lookup_shape *shape, const unsigned char *block,
                   size_t half, __m512i sums, float *out) {
    const float *addends = (const float *)(const void *)(block + shape->block_addend) + 16 * half;
    __m512 term =
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(query->unit), _mm512_set1_ps(query->offset));
    if (shape->block_addend != KITH_NO_ADDEND) term = _mm512_add_ps(_mm512_loadu_ps(addends), term);
    _mm512_storeu_ps(out + 16 * half, _mm512_add_ps(_mm512_set1_ps(query->base), term));
}

/* ---- Nibbles ------------------------------------------------------------------------------------------------- */

/* Numbers of the even parts of a word as indices into their tables: (word & 0x0f..) | place; the odd ones alike. */
INLINE __m512i even_indices(__m512i words) {
    const __m512i nibbles = _mm512_set1_epi8(15), places = _mm512_set1_epi32(0x30201000);
    return _mm512_ternarylogic_epi32(words, nibbles, places, 0xea);
}

INLINE __m512i odd_indices(__m512i words) { return even_indices(_mm512_srli_epi32(words, 4)); }

INLINE __m512i add_entries(__m512i sums, __m512i table, __m512i indices) {
    return _mm512_dpbusd_epi32(sums, _mm512_permutexvar_epi8(indices, table), _mm512_set1_epi8(1));
}

/* `query_count` queries x `block_count` blocks, constants where this is inlined: all sums stay in registers. */
INLINE void nibbles_tile(const kith_lookup *queries, size_t query_count, const kith_lookup_shape *shape,
                         const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    size_t word_count = (shape->part_count + 7) / 8;
    __m512i sums[8][2][2];
    KITH_UNROLL(8)
    for (size_t q = 0; q < query_count; q++) KITH_UNROLL(2)
    for (size_t b = 0; b < block_count; b++) sums[q][b][0] = sums[q][b][1] = _mm512_setzero_si512();
    for (size_t w = 0; w < word_count; w++) {
        __m512i even[2][2], odd[2][2];
        KITH_UNROLL(2)
        for (size_t b = 0; b < block_count; b++) KITH_UNROLL(2)
        for (size_t h = 0; h < 2; h++) {
            __m512i words = _mm512_loadu_si512(blocks + b * shape->block_bytes + (w * ROWS + 16 * h) * 4);
            even[b][h] = even_indices(words);
            odd[b][h] = odd_indices(words);
        }
        KITH_UNROLL(8)
        for (size_t q = 0; q < query_count; q++) {
            const unsigned char *tables = (const unsigned char *)queries[q].tables + w * KITH_NIBBLE_WORD_BYTES;
            __m512i even_table = _mm512_loadu_si512(tables), odd_table = _mm512_loadu_si512(tables + 64);
            KITH_UNROLL(2)
            for (size_t b = 0; b < block_count; b++) KITH_UNROLL(2)
            for (size_t h = 0; h < 2; h++) {
                sums[q][b][h] = add_entries(sums[q][b][h], even_table, even[b][h]);
                sums[q][b][h] = add_entries(sums[q][b][h], odd_table, odd[b][h]);
            }
        }
    }
    KITH_UNROLL(8)
    for (size_t q = 0; q < query_count; q++) KITH_UNROLL(2)
    for (size_t b = 0; b < block_count; b++) KITH_UNROLL(2)
    for (size_t h = 0; h < 2; h++)
        finish(queries + q, shape, blocks + b * shape->block_bytes, h, sums[q][b][h],
               out + q * out_stride + b * ROWS);
}

static void nibbles_scan(const kith_lookup *queries, size_t query_count, const kith_lookup_shape *shape,
                         const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    if (query_count == 1)
        for (; block_count >= 2; block_count -= 2, blocks += 2 * shape->block_bytes, out += 2 * ROWS)
            nibbles_tile(queries, 1, shape, blocks, 2, out, out_stride);
    for (; block_count > 0; block_count--, blocks += shape->block_bytes, out += ROWS) {
        size_t q = 0;
        for (; query_count - q >= 8; q += 8)
            nibbles_tile(queries + q, 8, shape, blocks, 1, out + q * out_stride, out_stride);
        for (; query_count - q >= 4; q += 4)
            nibbles_tile(queries + q, 4, shape, blocks, 1, out + q * out_stride, out_stride);
        for (; query_count - q >= 2; q += 2)
            nibbles_tile(queries + q, 2, shape, blocks, 1, out + q * out_stride, out_stride);
        if (q < query_count) nibbles_tile(queries + q, 1, shape, blocks, 1, out + q * out_stride, out_stride);
    }
}

INLINE int32_t word_at(const unsigned char *at) {
    int32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static void nibbles_four(const kith_lookup *query, const kith_lookup_shape *shape,
                         const unsigned char *const rows[4], float out[4]) {
    size_t word_count = (shape->part_count + 7) / 8;
    const unsigned char *tables = query->tables;
    __m512i sums = _mm512_setzero_si512();
    for (size_t w = 0; w < word_count; w++, tables += KITH_NIBBLE_WORD_BYTES) {
        int32_t words[4];
        for (size_t r = 0; r < 4; r++) words[r] = word_at(rows[r] + 4 * w);
        __m512i four = _mm512_castsi128_si512(_mm_setr_epi32(words[0], words[1], words[2], words[3]));
        sums = add_entries(sums, _mm512_loadu_si512(tables), even_indices(four));
        sums = add_entries(sums, _mm512_loadu_si512(tables + 64), odd_indices(four));
    }
    uint32_t totals[4];
    _mm_storeu_si128((__m128i *)(void *)totals, _mm512_castsi512_si128(sums));
    for (size_t r = 0; r < 4; r++) out[r] = row_estimate(query, shape, rows[r], totals[r]);
}

/* ---- Bytes --------------------------------------------------------------------------------------------------- */

/* 16-bit sums of bytes: `all` adds pairs of bytes as one number, `high` the upper bytes alone. */
typedef struct byte_sums {
    __m512i all, high;
} byte_sums;

INLINE byte_sums add_bytes(byte_sums sums, __m512i bytes) {
    sums.all = _mm512_add_epi16(sums.all, bytes);
    sums.high = _mm512_add_epi16(sums.high, _mm512_srli_epi16(bytes, 8));
    return sums;
}

/* The quarters of a table that the numbers' two upper bits choose. */
typedef struct quarters {
    __mmask64 second, third, fourth;
} quarters;

INLINE quarters quarters_of(__m512i numbers) {
    __mmask64 upper = _mm512_movepi8_mask(numbers), odd = _mm512_test_epi8_mask(numbers, _mm512_set1_epi8(64));
    return (quarters){_kandn_mask64(upper, odd), _kandn_mask64(odd, upper), _kand_mask64(upper, odd)};
}

INLINE __m512i look_up(const __m512i table[4], __m512i numbers, quarters in) {
    __m512i entries = _mm512_permutexvar_epi8(numbers, table[0]);
    entries = _mm512_mask_permutexvar_epi8(entries, in.second, numbers, table[1]);
    entries = _mm512_mask_permutexvar_epi8(entries, in.third, numbers, table[2]);
    return _mm512_mask_permutexvar_epi8(entries, in.fourth, numbers, table[3]);
}

/* Sums of the 16 rows from 16 * i on, of 64, from sums of even and of odd bytes. */
INLINE void in_order(byte_sums sums, __m512i rows[4]) {
    __m512i even = _mm512_sub_epi16(sums.all, _mm512_slli_epi16(sums.high, 8));
    const __m512i order = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38,
                                           6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    KITH_UNROLL(2)
    for (int half = 0; half < 2; half++) {
        __m512i from = _mm512_add_epi16(order, _mm512_set1_epi16((short)(16 * half)));
        __m512i halves = _mm512_permutex2var_epi16(even, from, sums.high);
        rows[2 * half] = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(halves));
        rows[2 * half + 1] = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(halves, 1));
    }
}

/* One query x 64 or 128 rows: `pairs` pairs of blocks, a constant where this is inlined. */
INLINE void bytes_tile(const kith_lookup *query, const kith_lookup_shape *shape, const unsigned char *const *blocks,
                       size_t pairs, __m512i sums[2][4]) {
    const __m512i zero = _mm512_setzero_si512();
    for (size_t g = 0; g < pairs; g++)
        for (size_t i = 0; i < 4; i++) sums[g][i] = zero;
    for (size_t first = 0; first < shape->part_count; first += PARTS_FLUSH) {
        size_t last = shape->part_count - first < PARTS_FLUSH ? shape->part_count : first + PARTS_FLUSH;
        byte_sums low[2] = {{zero, zero}, {zero, zero}}, high[2] = {{zero, zero}, {zero, zero}};
        for (size_t p = first; p < last; p++) {
            const unsigned char *table = (const unsigned char *)query->tables + p * KITH_BYTE_TABLE_BYTES;
            __m512i tables[8];
            KITH_UNROLL(8)
            for (size_t i = 0; i < 8; i++) tables[i] = _mm512_loadu_si512(table + 64 * i);
            KITH_UNROLL(2)
            for (size_t g = 0; g < pairs; g++) {
                __m256i one = _mm256_loadu_si256((const __m256i *)(const void *)(blocks[2 * g] + p * ROWS));
                __m256i two = _mm256_loadu_si256((const __m256i *)(const void *)(blocks[2 * g + 1] + p * ROWS));
                __m512i numbers = _mm512_inserti64x4(_mm512_castsi256_si512(one), two, 1);
                quarters in = quarters_of(numbers);
                low[g] = add_bytes(low[g], look_up(tables, numbers, in));
                high[g] = add_bytes(high[g], look_up(tables + 4, numbers, in));
            }
        }
        for (size_t g = 0; g < pairs; g++) {
            __m512i low_rows[4], high_rows[4];
            in_order(low[g], low_rows);
            in_order(high[g], high_rows);
            for (size_t i = 0; i < 4; i++)
                sums[g][i] =
                    _mm512_add_epi32(sums[g][i], _mm512_add_epi32(low_rows[i], _mm512_slli_epi32(high_rows[i], 8)));
        }
    }
}

INLINE void bytes_blocks(const kith_lookup *query, const kith_lookup_shape *shape, const unsigned char *blocks,
                         size_t count, size_t pairs, float *out) {
    const unsigned char *at[4];
    __m512i sums[2][4];
    for (size_t i = 0; i < 2 * pairs; i++) at[i] = blocks + (i < count ? i : 0) * shape->block_bytes;
    bytes_tile(query, shape, at, pairs, sums);
    for (size_t i = 0; i < count; i++)
        for (size_t h = 0; h < 2; h++) finish(query, shape, at[i], h, sums[i / 2][i % 2 * 2 + h], out + i * ROWS);
}

static void bytes_scan(const kith_lookup *queries, size_t query_count, const kith_lookup_shape *shape,
                       const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    for (size_t first = 0; first < block_count; first += BLOCKS_TOGETHER) {
        size_t last = block_count - first < BLOCKS_TOGETHER ? block_count : first + BLOCKS_TOGETHER;
        for (size_t q = 0; q < query_count; q++) {
            float *to = out + q * out_stride;
            size_t b = first;
            for (; last - b >= 4; b += 4)
                bytes_blocks(queries + q, shape, blocks + b * shape->block_bytes, 4, 2, to + b * ROWS);
            for (; b < last; b += 2)
                bytes_blocks(queries + q, shape, blocks + b * shape->block_bytes, last - b < 2 ? 1 : 2, 1,
                             to + b * ROWS);
        }
    }
}

void kith_fill_avx512_vbmi(kith_simd_table *table) {
    table->tables.nibbles = (kith_lookup_kernels){nibbles_scan, nibbles_four};
    table->tables.bytes = (kith_lookup_kernels){bytes_scan, bytes_four};
    table->tables.arrange_bytes = arrange_bytes;
}
