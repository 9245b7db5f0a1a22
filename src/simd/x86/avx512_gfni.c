/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_gfni.c: the estimates of lines, with VNNI, where an affine map of the bits of each byte (vgf2p8affineqb) takes a
 * field out by one instruction instead of a shift and a mask.
 */
#include <immintrin.h>

#include "simd/isa.h"

#define INLINE static inline __attribute__((always_inline))
enum { LANES = 16 };

/* Row i of the matrix, byte 7 - i of its word, has the one bit that becomes bit i. The lowest field takes a mask alone,
 * for which there are more ports. */
INLINE __m512i field_of(__m512i words, unsigned width, unsigned step) {
    if (width == 8) return words;
    if (step == 0) return _mm512_and_si512(words, _mm512_set1_epi8((char)((1u << width) - 1)));
    uint64_t matrix = 0;
    for (unsigned i = 0; i < width; i++) matrix |= (uint64_t)1 << (step * width + i) << 8 * (7 - i);
    return _mm512_gf2p8affine_epi64_epi8(words, _mm512_set1_epi64((long long)matrix), 0);
}

#include "simd/x86/avx512_lines.h"

void kith_fill_avx512_gfni(kith_simd_table *table) { fill_lines(table); }
