/* SPDX-License-Identifier: Apache-2.0
 *
 * matrix_ref.c: the kernels of matrix.h for the lowest processor of each architecture.
 */
#include "simd/isa.h"

#define VECTOR_BYTES 16
#include "simd/matrix_template.h"

void kith_fill_ref_matrix(kith_simd_table *table) { table->matrix = matrix_kernels; }
