/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu.c: which instruction sets this machine runs. Compiled for the lowest processor of its architecture.
 */
#include "simd/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Bits of CPUID leaf 1 ecx, leaf 7.0 ebx / ecx / edx, leaf 7.1 eax (Intel SDM vol. 2A, CPUID). */
enum {
    L1_FMA = 1 << 12,
    L1_POPCNT = 1 << 23,
    L1_OSXSAVE = 1 << 27,
    L1_AVX = 1 << 28,
    L1_F16C = 1 << 29,
    L7_AVX2 = 1 << 5,
    L7_AVX512F = 1 << 16,
    L7_AVX512DQ = 1 << 17,
    L7_AVX512BW = 1 << 30,
    L7C_VBMI = 1 << 1,
    L7C_GFNI = 1 << 8,
    L7C_VNNI = 1 << 11,
    L7C_VPOPCNTDQ = 1 << 14,
    L7D_FP16 = 1 << 23,
    L71_BF16 = 1 << 5
};
static const unsigned l7_avx512vl = 1u << 31;

/* Bits of XCR0: which registers the system saves at a task switch (SDM vol. 1, 13.3). */
enum { XCR0_SSE_AVX = 0x06, XCR0_AVX512 = 0xe6 };

static unsigned saved_registers(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool has_all(unsigned bits, unsigned wanted) { return (bits & wanted) == wanted; }

unsigned kith_cpu_features(void) {
    unsigned a, b, c, d, features = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, L1_OSXSAVE | L1_AVX | L1_FMA | L1_F16C | L1_POPCNT))
        return 0;
    unsigned saved = saved_registers();
    if (!has_all(saved, XCR0_SSE_AVX)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has_all(b, L7_AVX2)) return 0;
    features |= KITH_CPU_AVX2;
    if (!has_all(saved, XCR0_AVX512)) return features;
    if (!has_all(b, L7_AVX512F | L7_AVX512DQ | L7_AVX512BW | l7_avx512vl)) return features;
    features |= KITH_CPU_AVX512;
    if (has_all(c, L7C_VNNI)) features |= KITH_CPU_AVX512_VNNI;
    if (has_all(c, L7C_VBMI | L7C_GFNI | L7C_VNNI)) features |= KITH_CPU_AVX512_VBMI;
    if (has_all(c, L7C_VPOPCNTDQ)) features |= KITH_CPU_AVX512_VPOPCNTDQ;
    if (has_all(d, L7D_FP16)) features |= KITH_CPU_AVX512_FP16;
    unsigned subleaf_max = a;
    if (subleaf_max >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && has_all(a, L71_BF16))
        features |= KITH_CPU_AVX512_BF16;
    return features;
}

#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

/* Linux, arch/arm64/include/uapi/asm/hwcap.h: the numbers are ABI. */
enum { HWCAP_HALF_ARITHMETIC = 1 << 10, HWCAP_DOT_PRODUCT = 1 << 20 };

unsigned kith_cpu_features(void) {
    unsigned long hwcap = getauxval(AT_HWCAP);
    unsigned features = KITH_CPU_NEON;
    if (hwcap & HWCAP_DOT_PRODUCT) features |= KITH_CPU_NEON_DOTPROD;
    if (hwcap & HWCAP_HALF_ARITHMETIC) features |= KITH_CPU_NEON_FP16;
    return features;
}

#else

unsigned kith_cpu_features(void) { return 0; }

#endif
