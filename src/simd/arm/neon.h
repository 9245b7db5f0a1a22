/* SPDX-License-Identifier: Apache-2.0
 *
 * neon.h: what the NEON files have in common. No functions: each file is compiled for another processor.
 */
#ifndef KITH_SIMD_ARM_NEON_H
#define KITH_SIMD_ARM_NEON_H

#include <arm_neon.h>
#include <string.h>

#include "simd/isa.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Keeps the compiler from computing a peak loop's result in another way: `value`, in a register, may have changed. */
#define OPAQUE(value) __asm__ volatile("" : "+w"(value))

enum int_op { L2SQ_I8, L2SQ_U8, IP_I8, IP_U8, HAMMING };

/* Both tiles take eight queries and eight rows: 16 of the 32 registers hold sums. */
enum { QUERY_LANES = 8, ROW_LANES = 8 };

#endif
