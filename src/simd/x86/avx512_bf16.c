/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_bf16.c: the native inner product of bfloat16 on AVX-512's vdpbf16ps, which adds two products at a time to
 * an f32, rounds after each and takes denormals for zeros. Bound: docs/kernels.md. There is no squared L2: it would
 * need the difference in bfloat16, or norms, and either loses digits.
 */
#include <immintrin.h>

#include "simd/isa.h"

enum { LANES = 32, ONE_CHAINS = 2, FOUR_CHAINS = 2, AHEAD_BYTES = 4096 };
#define ELEMENT uint16_t
#define RESULT  float
#define VEC     __m512i
#define INLINE  static inline __attribute__((always_inline))

INLINE __m512i zero(void) { return _mm512_setzero_si512(); }
INLINE __m512i load(const uint16_t *p) { return _mm512_loadu_si512(p); }
INLINE __m512i load_tail(const uint16_t *p, size_t i, size_t dim) {
    return _mm512_maskz_loadu_epi16(_bzhi_u32(~0u, (unsigned)(dim - i)), p + i);
}
INLINE __m512i add(__m512i a, __m512i b) {
    return _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
}

INLINE float fold_one(__m512i v) { return _mm512_reduce_add_ps(_mm512_castsi512_ps(v)); }
INLINE void fold_four(const __m512i v[4], float out[4]) {
    for (size_t r = 0; r < 4; r++) out[r] = fold_one(v[r]);
}

INLINE __m512i step_ip(__m512i sum, __m512i q, __m512i r) {
    return _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), (__m512bh)q, (__m512bh)r));
}

#define KERNEL ip_bf16_bf16
#define STEP   step_ip
#include "simd/free_shapes.h"

void kith_fill_avx512_bf16(kith_simd_table *table) {
    table->native[KITH_OP_IP][KITH_PAIR_BF16_BF16] = (kith_float_kernels)KITH_SHAPES(ip_bf16_bf16);
}
