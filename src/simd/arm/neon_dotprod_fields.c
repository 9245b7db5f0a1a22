/* SPDX-License-Identifier: Apache-2.0
 *
 * neon_dotprod_fields.c: the integer kernels of fields.h on SDOT.
 */
#include "simd/arm/neon.h"

enum { TILE_VECTORS = 4 };

typedef int32x4_t sums;
ALWAYS_INLINE sums clear(void) { return vdupq_n_s32(0); }
ALWAYS_INLINE sums multiply_add(sums sum, int8x16_t fields, int8x16_t query) {
    return vdotq_s32(sum, fields, query);
}
ALWAYS_INLINE int32x4_t total(sums sum) { return sum; }
ALWAYS_INLINE size_t chunk_words(unsigned width) { return (void)width, SIZE_MAX; }

#include "simd/arm/neon_fields.h"

void kith_fill_neon_dotprod_fields(kith_simd_table *table) { fill_fields(table); }
