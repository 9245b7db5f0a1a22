/* SPDX-License-Identifier: Apache-2.0
 *
 * avx2_matrix.c: the kernels of matrix.h with AVX2 and FMA.
 */
#include <immintrin.h>

#include "simd/isa.h"

#define VECTOR_BYTES       32
#define FUSED_MULTIPLY_ADD _mm256_fmadd_ps
#define MAXIMUM            _mm256_max_ps
#define MINIMUM            _mm256_min_ps
#define MAXIMUM_I32(a, b)  ((i32_vector)_mm256_max_epi32((__m256i)(a), (__m256i)(b)))
#include "simd/matrix_template.h"

void kith_fill_avx2_matrix(kith_simd_table *table) { table->matrix = matrix_kernels; }
