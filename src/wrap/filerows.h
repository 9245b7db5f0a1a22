/* SPDX-License-Identifier: Apache-2.0
 *
 * filerows.h: the rows of a vector file as the half of a refinement that is exact: for more vectors than there is memory.
 * "IVF65536,PQ32x4fs,RFile". Ids are row numbers of the file, which is mapped and only read.
 */
#ifndef KITH_WRAP_FILEROWS_H
#define KITH_WRAP_FILEROWS_H

#include "index/indexfile.h"
#include "index/spec.h"

#define KITH_FILEROWS_NAME "File"

bool kith_filerows_is_named(const kith_spec_part *first);
/* Both have the form of a structure (api/structures.h). The index has no file yet: see kith_filerows_attach. It keeps no
 * list of its ids: which ones are held its base knows, and whoever owns both keeps its count. */
kith_status kith_filerows_create(const kith_spec *spec, size_t dim, kith_metric metric, kith_index **out);
kith_status kith_filerows_open(kith_container *file, uint32_t *part, const kith_index_meta *meta,
                               const kith_spec *spec, kith_index **out);

bool kith_filerows_is(const kith_index *index);
/* Opens the vectors. KITH_ERR_DIMENSION; KITH_ERR_FORMAT when they are not those that the index was made with. On failure
 * the file from before stays. */
kith_status kith_filerows_attach(kith_index *index, const char *path);
/* Rows of the file, also of one that is not attached at the moment; 0 before there was one. Ids are below. */
size_t kith_filerows_count(const kith_index *index);

#endif
