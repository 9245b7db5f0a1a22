/* SPDX-License-Identifier: Apache-2.0
 *
 * pq.h: product quantisers (Jegou, Douze, Schmid, "Product quantization for nearest neighbor search", PAMI 2011).
 *
 * The dimensions are cut into M parts of dim / M each; a vector is coded by the number of the nearest of 2^bits
 * codewords in every part. In a spec:
 *
 *     PQ16        16 parts of 8 bits
 *     PQ16x6      16 parts of 6 bits; 4 to 16
 *     PQ32x4fs    32 parts of 4 bits, estimated by tables of bytes in registers (Andre, Kermarrec, Le Scouarnec,
 *                 "Cache locality is not enough", VLDB 2015)
 *     PQ32x4fsa   the same, with codewords and codes chosen so that products with large inner products lose least (Guo
 *                 and others, "Accelerating large-scale inference with anisotropic vector quantization", ICML 2020)
 *     PQ, PQx6, PQx4fs, PQx4fsa   M from the dimension: see kith_pq_parts_default
 *
 * An "a" may follow any of them. M has to divide the dimension.
 */
#ifndef KITH_PQ_PQ_H
#define KITH_PQ_PQ_H

#include "code/code.h"

enum { KITH_PQ_BITS_MIN = 4, KITH_PQ_BITS_MAX = 16 };

/* A kith_code_make_fn. */
kith_status kith_pq_make(const char *name, size_t dim, kith_metric metric, kith_code **out, size_t *position);

/* M when it is left out: the largest number that divides dim and leaves at least 8 dimensions a part, 2 with
 * fast-scan (as few as 1 where nothing else divides). */
size_t kith_pq_parts_default(size_t dim, bool is_fast);

#endif
