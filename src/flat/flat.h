/* SPDX-License-Identifier: Apache-2.0
 *
 * flat.h: the structure Flat: all vectors, row after row, looked at one by one. Exact.
 */
#ifndef KITH_FLAT_FLAT_H
#define KITH_FLAT_FLAT_H

#include "index/indexfile.h"
#include "index/spec.h"
#include "index/vtable.h"

#define KITH_FLAT_NAME "Flat"

/* "Flat" or "Flat,TYPE". KITH_ERR_ARGUMENT names the character that was not understood. */
kith_status kith_flat_create(const kith_spec *spec, size_t dim, kith_metric metric, kith_index **out);
/* An index in place in a file that stays open: part *part, which is raised; the common part is `meta`. Touches no section larger than 1 MiB. */
kith_status kith_flat_open(kith_container *file, uint32_t *part, const kith_index_meta *meta, const kith_spec *spec,
                           kith_index **out);

#endif
