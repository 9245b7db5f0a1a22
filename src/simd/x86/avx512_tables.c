/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_tables.c: the kernels of tables.h that gain by registers of 512 bits alone; more: avx512_vbmi.c.
 */
#include <immintrin.h>

#include "simd/isa.h"

#define VECTOR_BYTES       64
#define FUSED_MULTIPLY_ADD _mm512_fmadd_ps
#define FLOATS_ONLY
#include "simd/tables_template.h"

enum { ROWS = KITH_BLOCK_ROWS };

static void gather(const uint16_t *tables, size_t entries, const uint16_t *numbers, size_t part_count,
                   int32_t *sums) {
    for (size_t i = 0; i < ROWS; i += 16) {
        const uint16_t *table = tables;
        __m512i sum = _mm512_setzero_si512();
        for (size_t p = 0; p < part_count; p++, table += entries) {
            __m256i sixteen = _mm256_loadu_si256((const __m256i *)(const void *)(numbers + p * ROWS + i));
            __m512i pairs = _mm512_i32gather_epi32(_mm512_cvtepu16_epi32(sixteen), table, 2);
            sum = _mm512_add_epi32(sum, _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff)));
        }
        _mm512_storeu_si512(sums + i, sum);
    }
}

void kith_fill_avx512_tables(kith_simd_table *table) {
    table->tables.gather = gather;
    table->tables.affine = affine;
    table->tables.extent = extent;
    table->tables.to_u8 = to_u8;
    table->tables.to_u16 = to_u16;
    table->tables.nearest = nearest;
}
