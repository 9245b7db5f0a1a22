/* SPDX-License-Identifier: Apache-2.0
 *
 * sq.h: vectors kept as they are in some element type, and the scalar quantiser.
 *
 * Raw codes (KITH_CODE_RAW) are exact but for the rounding of their type: estimates are the distances that the
 * structure Flat gives, bit for bit. "Flat" (f32), "f16", "bf16", "i8", "u8"; FAISS's names "SQfp16", "SQbf16",
 * "SQ8_direct" (u8) and "SQ8_direct_signed" (i8) are taken for the last four. Blocks are 32 rows one after the other.
 * Reference points are passed over: what is coded is the vector. i8 and u8 hold whole numbers in their range only.
 *
 * The scalar quantiser (KITH_CODE_SQ): SQ<bits>[u][_quantile[<permille>] | _trained], bits 1..8.
 *
 *     "SQ8", "SQ6", "SQ4"   one range for each dimension, from the smallest value of the sample to the largest
 *                           (FAISS: QT_8bit, QT_6bit, QT_4bit with RS_minmax)
 *     "SQ8u", "SQ4u"        one range for all dimensions (QT_8bit_uniform, QT_4bit_uniform)
 *     "SQ4_quantile10"      10 in a thousand of the sample, also the default, lie below the range, as many above it
 *                           (RS_quantiles)
 *     "SQ4_trained"         the range with the least squared error on the sample
 *
 * With L = 2^bits - 1, x becomes the number floor(L (x - minimum) / extent), cut to 0..L, and the number u is decoded
 * as minimum + (u + 1/2) / L * extent: as FAISS does both, to the last bit. A row takes bits * dim / 8 bytes, and 4
 * more under l2. Queries are held in 15 bits for 6 bits and more, in 8 bits for fewer.
 */
#ifndef KITH_SQ_SQ_H
#define KITH_SQ_SQ_H

#include "code/code.h"

/* kith_code_make_fn of both. */
kith_status kith_sq_make(const char *name, size_t dim, kith_metric metric, kith_code **out, size_t *position);

/* raw.c: the same for raw codes alone. */
kith_status kith_raw_make(const char *name, size_t dim, kith_metric metric, kith_code **out);
/* The element type of a raw code. Its rows are `dim` of them, packed, code_bytes apart in a block as well: what
 * exact search (src/exact) reads. */
kith_dtype kith_raw_dtype(const kith_code *code);

/* From now on a trained scalar quantiser (KITH_CODE_SQ) of 6 bits or more holds queries in 8 bits, not in 15: estimates
 * take half the time and err about twice as much, enough to choose what is then compared exactly. Not where some
 * dimensions outweigh all others, whose part of the query 8 bits would round away. query_bytes changes; stored codes do
 * not. */
void kith_sq_quicken(kith_code *code);

#endif
