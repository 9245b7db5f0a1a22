/* SPDX-License-Identifier: Apache-2.0
 *
 * tables_ref.c: the kernels of tables.h in plain C: what those of every instruction set are held against.
 */
#include "simd/isa.h"

#define VECTOR_BYTES 16
#include "simd/tables_template.h"

static uint32_t sum_nibbles(const void *tables, size_t part_count, const unsigned char *block, size_t r) {
    uint32_t sum = 0;
    for (size_t byte = 0; byte < (part_count + 1) / 2; byte++)
        sum += nibble_pair(tables, byte, block[(byte / 4 * KITH_BLOCK_ROWS + r) * 4 + byte % 4]);
    return sum;
}

static uint32_t sum_bytes(const void *tables, size_t part_count, const unsigned char *block, size_t r) {
    const uint16_t *entries = tables;
    uint32_t sum = 0;
    for (size_t p = 0; p < part_count; p++) sum += entries[p * 256 + block[p * KITH_BLOCK_ROWS + r]];
    return sum;
}

#define SCAN(NAME)                                                                                                 \
    static void NAME##_scan(const kith_lookup *queries, size_t query_count, const kith_lookup_shape *shape,        \
                            const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {      \
        for (size_t b = 0; b < block_count; b++) {                                                                 \
            const unsigned char *block = blocks + b * shape->block_bytes;                                          \
            const unsigned char *addends = block + shape->block_addend;                                            \
            for (size_t q = 0; q < query_count; q++)                                                               \
                for (size_t r = 0; r < KITH_BLOCK_ROWS; r++) {                                                     \
                    uint32_t sum = sum_##NAME(queries[q].tables, shape->part_count, block, r);                     \
                    const unsigned char *addend =                                                                  \
                        shape->block_addend != KITH_NO_ADDEND ? addends + r * sizeof(float) : NULL;                \
                    out[q * out_stride + b * KITH_BLOCK_ROWS + r] = estimate(&queries[q], sum, addend);            \
                }                                                                                                  \
        }                                                                                                          \
    }
SCAN(nibbles)
SCAN(bytes)

static void gather(const uint16_t *tables, size_t entries, const uint16_t *numbers, size_t part_count,
                   int32_t *sums) {
    for (size_t r = 0; r < KITH_BLOCK_ROWS; r++) sums[r] = 0;
    for (size_t p = 0; p < part_count; p++)
        for (size_t r = 0; r < KITH_BLOCK_ROWS; r++)
            sums[r] += tables[p * entries + numbers[p * KITH_BLOCK_ROWS + r]];
}

void kith_fill_ref_tables(kith_simd_table *table) {
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
