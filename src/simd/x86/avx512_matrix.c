/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_matrix.c: the kernels of matrix.h with AVX-512.
 */
#include <immintrin.h>

#include "simd/isa.h"

#define VECTOR_BYTES       64
#define FUSED_MULTIPLY_ADD _mm512_fmadd_ps
#define MAXIMUM            _mm512_max_ps
#define MINIMUM            _mm512_min_ps
#define MAXIMUM_I32(a, b)  ((i32_vector)_mm512_max_epi32((__m512i)(a), (__m512i)(b)))
#include "simd/matrix_template.h"

void kith_fill_avx512_matrix(kith_simd_table *table) { table->matrix = matrix_kernels; }
