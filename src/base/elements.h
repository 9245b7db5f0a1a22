/* SPDX-License-Identifier: Apache-2.0
 *
 * elements.h: element types into each other, in plain C, for files: exact or correctly rounded, and nothing lost in
 * silence. The kernels of src/simd do the same at speed for the types that an index stores.
 */
#ifndef KITH_BASE_ELEMENTS_H
#define KITH_BASE_ELEMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kith/types.h"

/* Exact; a NaN stays a NaN. */
float kith_f32_from_f16(uint16_t half);
float kith_f32_from_bf16(uint16_t half);
/* Rounded to nearest, ties to even; past the largest value an infinity; a NaN stays a NaN. */
uint16_t kith_f16_from_f32(float value);
uint16_t kith_bf16_from_f32(float value);

/* True when kith_convert has this pair: every pair of types but KITH_B1 with another. */
bool kith_convert_exists(kith_dtype from, kith_dtype to);

/* Converts `count` elements. Float targets: rounded once to nearest, ties to even; infinities and NaN stay. Integer
 * targets: only values that they hold exactly. Returns `count`, or the position of the first element that the target
 * cannot hold: one with a fraction, out of its range, or finite and rounded to an infinity. From there on `out` is
 * unspecified. The pair exists; in and out do not overlap; KITH_B1: count is a multiple of 8. */
size_t kith_convert(kith_dtype from, const void *in, size_t count, kith_dtype to, void *out);

/* Element i as a double: exact but for KITH_I64 beyond 2^53. For messages and statistics; not KITH_B1. */
double kith_element_f64(kith_dtype dtype, const void *elements, size_t i);
/* All of them. */
void kith_convert_to_f64(kith_dtype from, const void *in, size_t count, double *out);

#endif
