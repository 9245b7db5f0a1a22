/* SPDX-License-Identifier: Apache-2.0
 *
 * codes.h: the list of codes: from a name in a spec to a code, and from a file.
 *
 * A code in a file begins with the section CODEMETA, version 1, 48 bytes, numbers little-endian:
 *
 *   offset  size  field
 *        0     4  kind        u32, kith_code_kind
 *        4     4  metric      u32, kith_metric: 1 l2, 2 ip
 *        8     4  dim         u32, 1..32768: of the vectors before projection
 *       12     4  trained     u32, 0 or 1; an untrained code has no other section
 *       16    32  name        as in a spec, ASCII, padded with zeros (at least one)
 *
 * The code's own sections have the same part number and, where it is made of several parts, those after it.
 */
#ifndef KITH_INDEX_CODES_H
#define KITH_INDEX_CODES_H

#include "code/code.h"
#include "index/spec.h"

/* Does a part of a spec name a code, whether its numbers are good or not? */
bool kith_code_is_named(const kith_spec_part *part);
/* The code that a part of a spec names, untrained. KITH_ERR_ARGUMENT with the character of the spec; metric is l2 or
 * ip, dim 1..KITH_DIM_MAX. */
kith_status kith_code_create(const kith_spec *spec, size_t part, size_t dim, kith_metric metric, kith_code **out);

/* Were two codes of one name trained alike: do `count` codes, of either, stand for the same vectors in both? */
kith_status kith_codes_agree(const kith_code *a, const kith_code *b, const unsigned char *codes, size_t count,
                             bool *agree);

/* Writes a code, trained or not: section CODEMETA of part *part, and the code's own from there on; raises *part. */
kith_status kith_code_save(const kith_code *code, kith_container_writer *writer, uint32_t *part);
/* The same way back. The file is not needed afterwards. KITH_ERR_FORMAT names what is wrong, also a code of another
 * dimension or metric. */
kith_status kith_code_load(kith_container *file, uint32_t *part, size_t dim, kith_metric metric, kith_code **out);

#endif
