/* SPDX-License-Identifier: Apache-2.0
 *
 * avx2_peaks.c: loops at the limits of AVX2 with FMA: see kith_peak_kernels. Sums of no use stay in registers; OPAQUE
 * keeps the compiler from computing them in another way.
 */
#include <immintrin.h>

#include "simd/isa.h"

#define OPAQUE(value) __asm__ volatile("" : "+x"(value))

/* More chains than latency times units needs, fewer than there are registers. They have names, as an array whose
 * elements an assembly statement touches would lie in memory. */
enum { CHAINS = 12 };
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

#define FMA_SUM(N) __m256 sum##N = _mm256_set1_ps(N);
#define FMA_STEP(N)                                                                                                \
    sum##N = _mm256_fmadd_ps(sum##N, factor, factor);                                                              \
    OPAQUE(sum##N);
static uint64_t peak_fma_f32(size_t rounds) {
    const __m256 factor = _mm256_set1_ps(0.5f);
    EACH(FMA_SUM)
    for (size_t i = 0; i < rounds; i++) {
        EACH(FMA_STEP)
    }
    return (uint64_t)rounds * CHAINS * 8;
}

/* Pairs of u8 x s8 products into 16 bits, pairs of those into 32, and an addition: three instructions for 32
 * products. It saturates where both pairs are extreme; the kernels that have to be exact pay more. */
#define DOT_SUM(N) __m256i sum##N = _mm256_set1_epi32(N);
#define DOT_STEP(N)                                                                                                \
    OPAQUE(factor);                                                                                                \
    sum##N = _mm256_add_epi32(sum##N, _mm256_madd_epi16(_mm256_maddubs_epi16(factor, factor), ones));              \
    OPAQUE(sum##N);
static uint64_t peak_dot_i8(size_t rounds) {
    __m256i factor = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
    EACH(DOT_SUM)
    for (size_t i = 0; i < rounds; i++) {
        EACH(DOT_STEP)
    }
    return (uint64_t)rounds * CHAINS * 32;
}

static uint64_t peak_read(const void *memory, size_t bytes) {
    enum { REGISTERS = 8, STEP = REGISTERS * sizeof(__m256i) };
    const uint8_t *from = memory;
    __m256i sums[REGISTERS];
    for (size_t s = 0; s < REGISTERS; s++) sums[s] = _mm256_setzero_si256();
    size_t i = 0;
    for (; bytes - i >= STEP; i += STEP) {
#pragma GCC unroll 8
        for (size_t s = 0; s < REGISTERS; s++)
            sums[s] = _mm256_xor_si256(sums[s], _mm256_loadu_si256((const __m256i *)(from + i) + s));
    }
    for (size_t s = 1; s < REGISTERS; s++) sums[0] = _mm256_xor_si256(sums[0], sums[s]);
    uint64_t words[4], sum = 0;
    _mm256_storeu_si256((__m256i *)words, sums[0]);
    for (size_t w = 0; w < 4; w++) sum += words[w];
    for (; i < bytes; i++) sum += from[i];
    return sum;
}

void kith_fill_avx2_peaks(kith_simd_table *table) {
    table->peaks = (kith_peaks){peak_fma_f32, peak_dot_i8, peak_read};
}
