/* SPDX-License-Identifier: Apache-2.0
 *
 * partition.h: what partition.c has for structures.
 */
#ifndef KITH_INDEX_PARTITION_H
#define KITH_INDEX_PARTITION_H

#include "index/vtable.h"

/* The vtable's merge of a structure whose reconstruct gives back exactly what was added, in the stored type: the
 * vectors are added as new ones are. */
kith_status kith_merge_by_adding(kith_index *into, const kith_index *from, int64_t id_shift);
/* Vectors with ids that the library itself adds, or puts in the place of others, on all processors but at most `threads`;
 * *job is theirs, and has to live as long. */
kith_addition kith_addition_of(const kith_view *vectors, const int64_t *ids, size_t threads, kith_job *job);

#endif
