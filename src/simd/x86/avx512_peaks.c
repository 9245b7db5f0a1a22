/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_peaks.c: loops at the limits of AVX-512: see kith_peak_kernels. Sums
 * of no use stay in registers; OPAQUE keeps the compiler from computing them in
 * another way.
 */
#include <immintrin.h>

#include "simd/isa.h"

#define OPAQUE(value) __asm__ volatile("" : "+v"(value))

/* More chains than latency times units needs, fewer than there are registers.
 * They have names, as an array whose elements an assembly statement touches
 * would lie in memory. */
enum { CHAINS = 20 };
#define FIRST_TEN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9)
#define EACH(DO)      FIRST_TEN(DO) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15) DO(16) DO(17) DO(18) DO(19)

#define FMA_SUM(N) __m512 sum##N = _mm512_set1_ps(N);
#define FMA_STEP(N)                                                                                                \
    sum##N = _mm512_fmadd_ps(sum##N, factor, factor);                                                              \
    OPAQUE(sum##N);
static uint64_t peak_fma_f32(size_t rounds) {
    const __m512 factor = _mm512_set1_ps(0.5f);
    EACH(FMA_SUM)
    for (size_t i = 0; i < rounds; i++) {
        EACH(FMA_STEP)
    }
    return (uint64_t)rounds * CHAINS * 16;
}

/* Pairs of u8 x s8 products into 16 bits, pairs of those into 32, and an
 * addition: three instructions for 64 products. It saturates where both pairs
 * are extreme; the kernels that have to be exact pay more. */
#define DOT_SUM(N) __m512i sum##N = _mm512_set1_epi32(N);
#define DOT_STEP(N)                                                                                                \
    OPAQUE(factor);                                                                                                \
    sum##N = _mm512_add_epi32(sum##N, _mm512_madd_epi16(_mm512_maddubs_epi16(factor, factor), ones));              \
    OPAQUE(sum##N);
static uint64_t peak_dot_i8(size_t rounds) {
    __m512i factor = _mm512_set1_epi8(3), ones = _mm512_set1_epi16(1);
    EACH(DOT_SUM)
    for (size_t i = 0; i < rounds; i++) {
        EACH(DOT_STEP)
    }
    return (uint64_t)rounds * CHAINS * 64;
}

static uint64_t peak_read(const void *memory, size_t bytes) {
    enum { REGISTERS = 8, STEP = REGISTERS * sizeof(__m512i) };
    const uint8_t *from = memory;
    __m512i sums[REGISTERS];
    for (size_t s = 0; s < REGISTERS; s++) sums[s] = _mm512_setzero_si512();
    size_t i = 0;
    for (; bytes - i >= STEP; i += STEP) {
#pragma GCC unroll 8
        for (size_t s = 0; s < REGISTERS; s++)
            sums[s] = _mm512_xor_si512(sums[s], _mm512_loadu_si512((const __m512i *)(from + i) + s));
    }
    for (size_t s = 1; s < REGISTERS; s++) sums[0] = _mm512_xor_si512(sums[0], sums[s]);
    uint64_t words[8], sum = 0;
    _mm512_storeu_si512((__m512i *)words, sums[0]);
    for (size_t w = 0; w < 8; w++) sum += words[w];
    for (; i < bytes; i++) sum += from[i];
    return sum;
}

void kith_fill_avx512_peaks(kith_simd_table *table) {
    table->peaks = (kith_peaks){peak_fma_f32, peak_dot_i8, peak_read};
}
