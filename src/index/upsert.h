/* SPDX-License-Identifier: Apache-2.0
 *
 * upsert.h: an upsert as two changes, of the vectors whose ids are held and of the others, for structures that have
 * stage and settle.
 */
#ifndef KITH_INDEX_UPSERT_H
#define KITH_INDEX_UPSERT_H

#include "index/vtable.h"

typedef struct kith_upsert {
    kith_addition fresh; /* those to add; a view of no rows: none */
    kith_view old;       /* those to replace, under old_ids */
    const int64_t *old_ids;
    void *rows;                     /* where vectors of both kinds came together: copies of both */
    int64_t *ids;                   /* and of their ids */
    kith_staged *addition, *update; /* NULL: nothing of this kind */
} kith_upsert;

/* Stages both changes. What it points to, and the addition, stay until they are settled. */
kith_status kith_upsert_stage(kith_index *index, const kith_addition *addition, kith_upsert *out);
/* Both happen, or neither did. Returns how many vectors were replaced. */
size_t kith_upsert_settle(kith_index *index, kith_upsert *upsert, bool keep);

/* The vtable's upsert of a structure that has stage, settle and holds. */
kith_status kith_upsert_staged(kith_index *index, const kith_addition *addition, size_t *replaced);

#endif
