/* SPDX-License-Identifier: Apache-2.0
 *
 * isa.h: what the dispatcher knows of the instruction sets. Inside src/simd only.
 *
 * A fill function lays its kernels over a table that the levels below it have filled. It is compiled for its
 * instruction set as a whole, so it may be called only after detection has found that set.
 */
#ifndef KITH_SIMD_ISA_H
#define KITH_SIMD_ISA_H

#include "simd/simd.h"

/* What a processor and its operating system offer, as kith groups it. */
enum {
    KITH_CPU_AVX2 = 1 << 0,           /* AVX2, FMA, F16C, POPCNT */
    KITH_CPU_AVX512 = 1 << 1,         /* AVX-512 F, BW, VL, DQ on top of AVX2 */
    KITH_CPU_AVX512_VNNI = 1 << 2,    /* 8- and 16-bit dot products */
    KITH_CPU_AVX512_VPOPCNT = 1 << 3, /* VPOPCNTDQ */
    KITH_CPU_AVX512_BF16 = 1 << 4,
    KITH_CPU_AVX512_FP16 = 1 << 5,
    KITH_CPU_NEON = 1 << 6,         /* AArch64's base: Advanced SIMD */
    KITH_CPU_NEON_DOTPROD = 1 << 7, /* SDOT, UDOT */
    KITH_CPU_NEON_FP16 = 1 << 8     /* half-precision arithmetic */
};

/* All of them that this machine runs: the processor has it and the system saves its registers. */
unsigned kith_cpu_features(void);

void kith_fill_ref(kith_simd_table *table);
void kith_fill_avx2(kith_simd_table *table);
void kith_fill_avx512(kith_simd_table *table);
void kith_fill_avx512_vnni(kith_simd_table *table);
void kith_fill_avx512_vpopcnt(kith_simd_table *table);
void kith_fill_avx512_bf16(kith_simd_table *table);
void kith_fill_avx512_fp16(kith_simd_table *table);
void kith_fill_neon(kith_simd_table *table);
void kith_fill_neon_dotprod(kith_simd_table *table);
void kith_fill_neon_fp16(kith_simd_table *table);

#endif
