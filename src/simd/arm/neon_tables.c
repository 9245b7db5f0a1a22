/* SPDX-License-Identifier: Apache-2.0
 *
 * neon_tables.c: the kernels of tables.h for AArch64's base. TBL looks up in 16 bytes, or in 64 when four registers
 * hold them; a load of four interleaved streams (LD4) sorts the bytes of words on the way.
 */
#include "simd/arm/neon.h"

#define VECTOR_BYTES 16
#define BYTE_PLANES
#include "simd/tables_template.h"

/* 32 words, or 256 parts: sums of their bytes stay below 2^16. */
enum { CHUNK_WORDS = 32, CHUNK_PARTS = 256, ROWS = KITH_BLOCK_ROWS };

/* Sums of 16 rows. */
typedef struct row_sums {
    uint32x4_t rows[4];
} row_sums;

ALWAYS_INLINE row_sums no_sums(void) {
    row_sums sums;
    for (size_t i = 0; i < 4; i++) sums.rows[i] = vdupq_n_u32(0);
    return sums;
}

/* 16-bit sums of bytes: those of the first eight rows, and those of the other eight. */
typedef struct byte_sums {
    uint16x8_t low, high;
} byte_sums;

ALWAYS_INLINE byte_sums add_bytes(byte_sums sums, uint8x16_t bytes) {
    sums.low = vaddw_u8(sums.low, vget_low_u8(bytes));
    sums.high = vaddw_high_u8(sums.high, bytes);
    return sums;
}

/* Adds `shift`ed sums to those of the rows. */
ALWAYS_INLINE row_sums flush(row_sums to, byte_sums sums, int shift) {
    const int32x4_t by = vdupq_n_s32(shift);
    to.rows[0] = vaddq_u32(to.rows[0], vshlq_u32(vmovl_u16(vget_low_u16(sums.low)), by));
    to.rows[1] = vaddq_u32(to.rows[1], vshlq_u32(vmovl_high_u16(sums.low), by));
    to.rows[2] = vaddq_u32(to.rows[2], vshlq_u32(vmovl_u16(vget_low_u16(sums.high)), by));
    to.rows[3] = vaddq_u32(to.rows[3], vshlq_u32(vmovl_high_u16(sums.high), by));
    return to;
}

/* out[r] = base + (addend[r] + fma(sum[r], unit, offset)) for 16 rows; addends: NULL for none. */
ALWAYS_INLINE void finish(const kith_lookup *query, row_sums sums, const float *addends, float *out) {
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        float32x4_t term = vfmaq_n_f32(vdupq_n_f32(query->offset), vcvtq_f32_u32(sums.rows[i]), query->unit);
        if (addends != NULL) term = vaddq_f32(vld1q_f32(addends + 4 * i), term);
        vst1q_f32(out + 4 * i, vaddq_f32(vdupq_n_f32(query->base), term));
    }
}

ALWAYS_INLINE const float *addends_of(const kith_lookup_shape *shape, const unsigned char *block, size_t first) {
    if (shape->block_addend == KITH_NO_ADDEND) return NULL;
    return (const float *)(const void *)(block + shape->block_addend) + first;
}

ALWAYS_INLINE row_sums sum_nibbles(const uint8_t *tables, const unsigned char *words, size_t word_count) {
    const uint8x16_t nibble = vdupq_n_u8(15);
    row_sums sums = no_sums();
    for (size_t first = 0; first < word_count; first += CHUNK_WORDS) {
        size_t last = word_count - first < CHUNK_WORDS ? word_count : first + CHUNK_WORDS;
        byte_sums even = {vdupq_n_u16(0), vdupq_n_u16(0)}, odd = even;
        for (size_t w = first; w < last; w++) {
            uint8x16x4_t bytes = vld4q_u8(words + w * ROWS * 4);
            const uint8_t *table = tables + w * KITH_NIBBLE_WORD_BYTES;
#pragma GCC unroll 4
            for (size_t i = 0; i < 4; i++) {
                even = add_bytes(even, vqtbl1q_u8(vld1q_u8(table + 16 * i), vandq_u8(bytes.val[i], nibble)));
                odd = add_bytes(odd, vqtbl1q_u8(vld1q_u8(table + 64 + 16 * i), vshrq_n_u8(bytes.val[i], 4)));
            }
        }
        /* Each is below 2^15: they fit together. */
        even.low = vaddq_u16(even.low, odd.low);
        even.high = vaddq_u16(even.high, odd.high);
        sums = flush(sums, even, 0);
    }
    return sums;
}

static void nibbles_scan(const kith_lookup *queries, size_t query_count, const kith_lookup_shape *shape,
                         const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    size_t word_count = (shape->part_count + 7) / 8;
    for (size_t b = 0; b < block_count; b++, blocks += shape->block_bytes, out += ROWS)
        for (size_t q = 0; q < query_count; q++)
            for (size_t first = 0; first < ROWS; first += 16)
                finish(queries + q, sum_nibbles(queries[q].tables, blocks + first * 4, word_count),
                       addends_of(shape, blocks, first), out + q * out_stride + first);
}

/* A table of 256 bytes at 16 numbers: an index past a quarter leaves what is there (TBX). */
ALWAYS_INLINE uint8x16_t look_up(const uint8_t *table, uint8x16_t numbers) {
    uint8x16_t entries = vqtbl4q_u8(vld1q_u8_x4(table), numbers);
#pragma GCC unroll 3
    for (size_t quarter = 1; quarter < 4; quarter++)
        entries = vqtbx4q_u8(entries, vld1q_u8_x4(table + 64 * quarter),
                             vsubq_u8(numbers, vdupq_n_u8((uint8_t)(64 * quarter))));
    return entries;
}

ALWAYS_INLINE row_sums sum_bytes(const uint8_t *tables, const unsigned char *numbers, size_t part_count) {
    row_sums sums = no_sums();
    for (size_t first = 0; first < part_count; first += CHUNK_PARTS) {
        size_t last = part_count - first < CHUNK_PARTS ? part_count : first + CHUNK_PARTS;
        byte_sums low = {vdupq_n_u16(0), vdupq_n_u16(0)}, high = low;
        for (size_t p = first; p < last; p++) {
            const uint8_t *table = tables + p * KITH_BYTE_TABLE_BYTES;
            uint8x16_t sixteen = vld1q_u8(numbers + p * ROWS);
            low = add_bytes(low, look_up(table, sixteen));
            high = add_bytes(high, look_up(table + 256, sixteen));
        }
        sums = flush(flush(sums, low, 0), high, 8);
    }
    return sums;
}

static void bytes_scan(const kith_lookup *queries, size_t query_count, const kith_lookup_shape *shape,
                       const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    for (size_t b = 0; b < block_count; b++, blocks += shape->block_bytes, out += ROWS)
        for (size_t q = 0; q < query_count; q++)
            for (size_t first = 0; first < ROWS; first += 16)
                finish(queries + q, sum_bytes(queries[q].tables, blocks + first, shape->part_count),
                       addends_of(shape, blocks, first), out + q * out_stride + first);
}

void kith_fill_neon_tables(kith_simd_table *table) {
    kith_table_kernels *to = &table->tables; /* gather: the reference's */
    to->nibbles = (kith_lookup_kernels){nibbles_scan, nibbles_four};
    to->bytes = (kith_lookup_kernels){bytes_scan, bytes_four};
    to->arrange_bytes = arrange_bytes;
    to->affine = affine;
    to->extent = extent;
    to->to_u8 = to_u8;
    to->to_u16 = to_u16;
    to->nearest = nearest;
    to->cheapest = cheapest;
}
