/* SPDX-License-Identifier: Apache-2.0
 *
 * codes.h: the list of codes: from a name in a spec to a code, and from a file.
 */
#ifndef KITH_INDEX_CODES_H
#define KITH_INDEX_CODES_H

#include "code/code.h"
#include "index/spec.h"

/* Does a part of a spec name a code, whether its numbers are good or not? */
bool kith_code_is_named(const kith_spec_part *part);
/* The code that a part of a spec names, untrained. KITH_ERR_ARGUMENT with the character of the spec; metric is l2 or
 * ip. */
kith_status kith_code_create(const kith_spec *spec, size_t part, size_t dim, kith_metric metric, kith_code **out);

/* Writes a trained code: section CODEMETA of part *part, and the code's own from there on; raises *part. */
kith_status kith_code_save(const kith_code *code, kith_container_writer *writer, uint32_t *part);
/* The same way back. The file is not needed afterwards. KITH_ERR_FORMAT names what is wrong, also a code of another
 * dimension or metric. */
kith_status kith_code_load(kith_container *file, uint32_t *part, size_t dim, kith_metric metric, kith_code **out);

#endif
