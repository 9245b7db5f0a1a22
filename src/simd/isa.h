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
    KITH_CPU_AVX2 = 1 << 0,             /* AVX2, FMA, F16C, POPCNT */
    KITH_CPU_AVX512 = 1 << 1,           /* AVX-512 F, BW, VL, DQ on top of AVX2 */
    KITH_CPU_AVX512_VNNI = 1 << 2,      /* 8- and 16-bit dot products */
    KITH_CPU_AVX512_VPOPCNTDQ = 1 << 3, /* VPOPCNTDQ */
    KITH_CPU_AVX512_BF16 = 1 << 4,
    KITH_CPU_AVX512_FP16 = 1 << 5,
    KITH_CPU_NEON = 1 << 6,         /* AArch64's base: Advanced SIMD */
    KITH_CPU_NEON_DOTPROD = 1 << 7, /* SDOT, UDOT */
    KITH_CPU_NEON_FP16 = 1 << 8,    /* half-precision arithmetic */
    KITH_CPU_AVX512_VBMI = 1 << 9   /* bytes permuted across a register, and their bits: GFNI; with VNNI */
};

/* All of them that this machine runs: the processor has it and the system saves its registers. */
unsigned kith_cpu_features(void);

void kith_fill_ref(kith_simd_table *table);
void kith_fill_ref_fields(kith_simd_table *table);
void kith_fill_ref_graph(kith_simd_table *table);
void kith_fill_ref_matrix(kith_simd_table *table);
void kith_fill_ref_tables(kith_simd_table *table);
void kith_fill_ref_peaks(kith_simd_table *table);
void kith_fill_avx2_float(kith_simd_table *table);
void kith_fill_avx2_int(kith_simd_table *table);
void kith_fill_avx2_ip_i8(kith_simd_table *table);
void kith_fill_avx2_batch(kith_simd_table *table);
void kith_fill_avx2_matrix(kith_simd_table *table);
void kith_fill_avx2_fields(kith_simd_table *table);
void kith_fill_avx2_graph(kith_simd_table *table);
void kith_fill_avx2_tables(kith_simd_table *table);
void kith_fill_avx2_peaks(kith_simd_table *table);
void kith_fill_avx512_float(kith_simd_table *table);
void kith_fill_avx512_int(kith_simd_table *table);
void kith_fill_avx512_fields(kith_simd_table *table);
void kith_fill_avx512_graph(kith_simd_table *table);
void kith_fill_avx512_batch(kith_simd_table *table);
void kith_fill_avx512_tables(kith_simd_table *table);
void kith_fill_avx512_peaks(kith_simd_table *table);
void kith_fill_avx512_matrix(kith_simd_table *table);
void kith_fill_avx512_vnni(kith_simd_table *table);
void kith_fill_avx512_vnni_fields(kith_simd_table *table);
void kith_fill_avx512_vnni_peaks(kith_simd_table *table);
void kith_fill_avx512_vpopcntdq(kith_simd_table *table);
void kith_fill_avx512_vbmi(kith_simd_table *table);
void kith_fill_avx512_gfni(kith_simd_table *table);
void kith_fill_avx512_bf16(kith_simd_table *table);
void kith_fill_avx512_fp16(kith_simd_table *table);
void kith_fill_neon(kith_simd_table *table);
void kith_fill_neon_tables(kith_simd_table *table);
void kith_fill_neon_fields(kith_simd_table *table);
void kith_fill_neon_graph(kith_simd_table *table);
void kith_fill_neon_dotprod(kith_simd_table *table);
void kith_fill_neon_dotprod_fields(kith_simd_table *table);
void kith_fill_neon_fp16(kith_simd_table *table);

/* One element of f16, exactly, for the reference kernels. */
float kith_ref_f32_of_f16(uint16_t f16);

/* Fills in the pair kernels of a file that names them by the rule OP_QUERY_ROW, OP_QUERY_ROW_four, .._block. */
#define KITH_SHAPES(kernel)                                                                                        \
    { kernel, kernel##_four, kernel##_block }
#define KITH_FILL_PAIR(table, number, pair)                                                                        \
    (table)->floats[KITH_OP_L2SQ][number] = (kith_float_kernels)KITH_SHAPES(l2sq_##pair);                          \
    (table)->floats[KITH_OP_IP][number] = (kith_float_kernels)KITH_SHAPES(ip_##pair)
#define KITH_FILL_FLOATS(table)                                                                                    \
    do {                                                                                                           \
        KITH_FILL_PAIR(table, KITH_PAIR_F32_F32, f32_f32);                                                         \
        KITH_FILL_PAIR(table, KITH_PAIR_F32_F16, f32_f16);                                                         \
        KITH_FILL_PAIR(table, KITH_PAIR_F32_BF16, f32_bf16);                                                       \
        KITH_FILL_PAIR(table, KITH_PAIR_F32_I8, f32_i8);                                                           \
        KITH_FILL_PAIR(table, KITH_PAIR_F32_U8, f32_u8);                                                           \
        KITH_FILL_PAIR(table, KITH_PAIR_F16_F16, f16_f16);                                                         \
        KITH_FILL_PAIR(table, KITH_PAIR_BF16_BF16, bf16_bf16);                                                     \
    } while (0)
#define KITH_FILL_INTS(table)                                                                                      \
    do {                                                                                                           \
        (table)->ints[KITH_OP_L2SQ][KITH_PAIR_I8_I8] = (kith_int_kernels)KITH_SHAPES(l2sq_i8_i8);                  \
        (table)->ints[KITH_OP_L2SQ][KITH_PAIR_U8_U8] = (kith_int_kernels)KITH_SHAPES(l2sq_u8_u8);                  \
        (table)->ints[KITH_OP_IP][KITH_PAIR_I8_I8] = (kith_int_kernels)KITH_SHAPES(ip_i8_i8);                      \
        (table)->ints[KITH_OP_IP][KITH_PAIR_U8_U8] = (kith_int_kernels)KITH_SHAPES(ip_u8_u8);                      \
    } while (0)

#endif
