/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_vnni_peaks.c: the peak of 8-bit products with VNNI: one instruction
 * for 64 of them.
 */
#include <immintrin.h>

#include "simd/isa.h"

/* More chains than latency times units needs, fewer than there are registers.
 * They have names, as an array whose elements an assembly statement touches
 * would lie in memory. */
enum { CHAINS = 20 };
#define FIRST_TEN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9)
#define EACH(DO)      FIRST_TEN(DO) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15) DO(16) DO(17) DO(18) DO(19)
#define SUM(N)        __m512i sum##N = _mm512_set1_epi32(N);
#define STEP(N)                                                                                                    \
    sum##N = _mm512_dpbusd_epi32(sum##N, factor, factor);                                                          \
    __asm__ volatile("" : "+v"(sum##N));

static uint64_t peak_dot_i8(size_t rounds) {
    const __m512i factor = _mm512_set1_epi8(3);
    EACH(SUM)
    for (size_t i = 0; i < rounds; i++) {
        EACH(STEP)
    }
    return (uint64_t)rounds * CHAINS * 64;
}

void kith_fill_avx512_vnni_peaks(kith_simd_table *table) { table->peaks.dot_i8 = peak_dot_i8; }
