/* SPDX-License-Identifier: Apache-2.0
 *
 * refine.h: refinement: a search asks one index, the base, for k x k_factor candidates by its own estimates and keeps
 * the k that a second, more exact one, the store, finds nearest. "IVF1024,PQ16x4fs,RFlat".
 */
#ifndef KITH_WRAP_REFINE_H
#define KITH_WRAP_REFINE_H

#include "index/vtable.h"

/* Joins two indexes of one dimension and metric that hold the same vectors under the same ids: both empty, or both
 * opened from one file. The store has stage, settle and rescore;
 * one without list_ids leaves counting and ids to the base. They belong to the new index on success alone.
 * KITH_ERR_ARGUMENT when the store cannot be one; KITH_ERR_FORMAT when their counts differ. */
kith_status kith_refine_create(kith_index *base, kith_index *store, kith_index **out);

#endif
