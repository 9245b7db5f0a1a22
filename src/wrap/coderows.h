/* SPDX-License-Identifier: Apache-2.0
 *
 * coderows.h: rows of codes, found by their ids alone: the half of a refinement that is more exact than its base and
 * smaller than the vectors. "IVF1024,PQ16x4fs,RSQ8".
 */
#ifndef KITH_WRAP_CODEROWS_H
#define KITH_WRAP_CODEROWS_H

#include "index/indexfile.h"
#include "index/spec.h"

/* Both have the form of a structure (api/structures.h); the spec is one part, the name of a code. The index has no
 * searches of its own. */
kith_status kith_coderows_create(const kith_spec *spec, size_t dim, kith_metric metric, kith_index **out);
kith_status kith_coderows_open(kith_container *file, uint32_t *part, const kith_index_meta *meta,
                               const kith_spec *spec, kith_index **out);

#endif
