/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_fp16.c: native distances of binary16 on AVX512-FP16: 32 sums in binary16, added up in f32 at the end. They
 * have 11 bits and overflow at 65504; bound: docs/kernels.md.
 */
#include <immintrin.h>

#include "simd/isa.h"

enum { LANES = 32, ONE_CHAINS = 2, FOUR_CHAINS = 2, AHEAD_BYTES = 4096 };
#define ELEMENT uint16_t
#define RESULT  float
#define VEC     __m512h
#define INLINE  static inline __attribute__((always_inline))

INLINE __m512h zero(void) { return _mm512_setzero_ph(); }
INLINE __m512h load(const uint16_t *p) { return _mm512_loadu_ph(p); }
INLINE __m512h load_tail(const uint16_t *p, size_t i, size_t dim) {
    return _mm512_castsi512_ph(_mm512_maskz_loadu_epi16(_bzhi_u32(~0u, (unsigned)(dim - i)), p + i));
}
INLINE __m512h add(__m512h a, __m512h b) { return _mm512_add_ph(a, b); }

INLINE float fold_one(__m512h v) {
    __m512i bits = _mm512_castph_si512(v);
    __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(bits));
    return _mm512_reduce_add_ps(_mm512_add_ps(low, _mm512_cvtph_ps(_mm512_extracti64x4_epi64(bits, 1))));
}
INLINE void fold_four(const __m512h v[4], float out[4]) {
    for (size_t r = 0; r < 4; r++) out[r] = fold_one(v[r]);
}

INLINE __m512h step_l2sq(__m512h sum, __m512h q, __m512h r) {
    __m512h difference = _mm512_sub_ph(q, r);
    return _mm512_fmadd_ph(difference, difference, sum);
}
INLINE __m512h step_ip(__m512h sum, __m512h q, __m512h r) { return _mm512_fmadd_ph(q, r, sum); }

#define KERNEL l2sq_f16_f16
#define STEP   step_l2sq
#include "simd/free_shapes.h"

#define KERNEL ip_f16_f16
#define STEP   step_ip
#include "simd/free_shapes.h"

void kith_fill_avx512_fp16(kith_simd_table *table) {
    table->native[KITH_OP_L2SQ][KITH_PAIR_F16_F16] = (kith_float_kernels)KITH_SHAPES(l2sq_f16_f16);
    table->native[KITH_OP_IP][KITH_PAIR_F16_F16] = (kith_float_kernels)KITH_SHAPES(ip_f16_f16);
}
