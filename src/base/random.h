/* SPDX-License-Identifier: Apache-2.0
 *
 * random.h: counter-based random numbers. Number i of a stream depends on (seed, stream, i) alone, so that any
 * thread may draw any number and the result is the same at every thread count.
 *
 * Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11, section 3.3.
 */
#ifndef KITH_BASE_RANDOM_H
#define KITH_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* The four words of block `counter` of `stream` under `seed`. */
void kith_random_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]);

/* Number `counter`: 64 uniform bits. */
uint64_t kith_random_u64(uint64_t seed, uint64_t stream, uint64_t counter);
/* Uniform in 0..bound-1, without bias beyond 2^-64 * bound (Lemire's multiplication). bound > 0. */
uint64_t kith_random_below(uint64_t seed, uint64_t stream, uint64_t counter, uint64_t bound);
/* Uniform in [0, 1), 24 bits. */
float kith_random_f32(uint64_t seed, uint64_t stream, uint64_t counter);
/* Standard normal (Box and Muller), the same bits wherever libm's logf, sqrtf and cosf agree. */
float kith_random_normal(uint64_t seed, uint64_t stream, uint64_t counter);
/* A permutation of 0..count-1 (Fisher and Yates); count <= 2^32. */
void kith_random_permutation(uint64_t seed, uint64_t stream, size_t count, uint32_t *out);

#endif
