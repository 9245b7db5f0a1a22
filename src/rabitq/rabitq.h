/* SPDX-License-Identifier: Apache-2.0
 *
 * rabitq.h: RaBitQ and line codes.
 */
#ifndef KITH_RABITQ_RABITQ_H
#define KITH_RABITQ_RABITQ_H

#include "code/code.h"

/* A kith_code_make_fn.
 *   "RaBitQ", "RaBitQ4"    1 bit, or 1..8 bits, for each dimension of a random rotation; dim is rounded up to a multiple
 *                          of 64. bits * dim / 8 + 8 bytes
 *   "Line64", "Line64x2"   exactly 32, 64 or 128 bytes: principal components of 1..8 bits each and 4 bytes of factors.
 *                          How many bits is said or left to training; only those that fill a line */
kith_status kith_rabitq_make(const char *name, size_t dim, kith_metric metric, kith_code **out, size_t *position);

#endif
