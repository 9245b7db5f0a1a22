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
 *                          How many bits is said or left to training; only those that fill a line. Where there is no
 *                          room for all dimensions, estimates leave out what lies outside the components: ranks are
 *                          what a line is for, and decoded vectors are their projections. An owner that knows base(q, c)
 *                          of the vectors themselves may take it instead of that of the projected ones: values then
 *                          come nearer the truth, and under ip ranks a little as well */
kith_status kith_rabitq_make(const char *name, size_t dim, kith_metric metric, kith_code **out, size_t *position);

#endif
