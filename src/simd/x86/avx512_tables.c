/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_tables.c: the kernels of tables.h that gain by registers of 512 bits alone; more: avx512_vbmi.c.
 */
#include <immintrin.h>

#include "simd/isa.h"

#define VECTOR_BYTES       64
#define FUSED_MULTIPLY_ADD _mm512_fmadd_ps
#define FLOATS_ONLY
#define OWN_CHEAPEST
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

static size_t cheapest(const float *fixed, const float *along, size_t count, float error, float weight) {
    const __m512 errors = _mm512_set1_ps(error), weights = _mm512_set1_ps(weight);
    __m512 least = _mm512_set1_ps(__builtin_inff());
    __m512i at = _mm512_setzero_si512();
    __m512i now = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (size_t i = 0; i < count; i += 16) {
        __m512 off = _mm512_sub_ps(errors, _mm512_loadu_ps(along + i));
        __m512 cost = _mm512_add_ps(_mm512_loadu_ps(fixed + i), _mm512_mul_ps(weights, _mm512_mul_ps(off, off)));
        __mmask16 is_less = _mm512_cmp_ps_mask(cost, least, _CMP_LT_OQ);
        least = _mm512_mask_mov_ps(least, is_less, cost);
        at = _mm512_mask_mov_epi32(at, is_less, now);
        now = _mm512_add_epi32(now, _mm512_set1_epi32(16));
    }
    __mmask16 is_best = _mm512_cmp_ps_mask(least, _mm512_set1_ps(_mm512_reduce_min_ps(least)), _CMP_EQ_OQ);
    return (size_t)_mm512_mask_reduce_min_epu32(is_best, at);
}

void kith_fill_avx512_tables(kith_simd_table *table) {
    table->tables.gather = gather;
    table->tables.affine = affine;
    table->tables.extent = extent;
    table->tables.to_u8 = to_u8;
    table->tables.to_u16 = to_u16;
    table->tables.nearest = nearest;
    table->tables.cheapest = cheapest;
}
