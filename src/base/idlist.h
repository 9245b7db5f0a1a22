/* SPDX-License-Identifier: Apache-2.0
 *
 * idlist.h: the ids of rows that are only ever appended, or replaced all at once, and the way back from an id to its row.
 *
 *   - Row r has the id first_id + r as long as ids follow each other: none are stored.
 *   - As long as the stored ids rise with the rows, an id is found by binary search.
 *   - Once they do not, an id map is kept. Ids borrowed from a mapped file have none: there they are scanned.
 *
 * Several rows may have one id: the owner knows which of them it stands for. A copy of the struct stays good for the rows
 * that were there when it was made, while others are appended: see chunks.h and idmap.h.
 */
#ifndef KITH_BASE_IDLIST_H
#define KITH_BASE_IDLIST_H

#include "base/chunks.h"
#include "base/idmap.h"

typedef struct kith_idlist {
    kith_chunks ids; /* int64_t each, where is_stored */
    kith_idmap map;  /* of all rows, exactly when the ids do not rise and are not borrowed; entries are appended */
    int64_t first_id;
    size_t count;
    bool is_stored, rises;
} kith_idlist;

/* Ids to be appended: distinct. */
typedef struct kith_new_ids {
    const int64_t *ids; /* NULL: first_id, first_id + 1, ... */
    int64_t first_id;
    size_t count; /* at least 1 */
    bool rise;    /* each is larger than the one before */
} kith_new_ids;

void kith_idlist_init(kith_idlist *list);
/* The list becomes empty and may be used again. */
void kith_idlist_free(kith_idlist *list);
/* The same beside readers of copies. Room to retire kith_idlist_blocks has been reserved. */
void kith_idlist_retire(kith_idlist *list);
static inline size_t kith_idlist_blocks(const kith_idlist *list) { return kith_chunks_blocks(&list->ids) + 1; }
void kith_idlist_set_epoch(kith_idlist *list, kith_epoch *epoch);
/* Ids that lie in a mapped file, or, with ids == NULL, count of them from first_id on. */
kith_status kith_idlist_borrow(kith_idlist *list, const int64_t *ids, int64_t first_id, size_t count, bool rises);

static inline int64_t kith_new_id(const kith_new_ids *more, size_t i) {
    return more->ids != NULL ? more->ids[i] : more->first_id + (int64_t)i;
}
static inline int64_t kith_idlist_get(const kith_idlist *list, size_t row) {
    return list->is_stored ? *(const int64_t *)kith_chunks_at(&list->ids, row) : list->first_id + (int64_t)row;
}

#define KITH_IDLIST_NO_ROW UINT64_MAX
/* Whether kith_idlist_next works: not for borrowed ids that do not rise. */
bool kith_idlist_can_find(const kith_idlist *list);
/* The rows that have an id, one after the other: *step begins at 0. False: there are no more. */
bool kith_idlist_next(const kith_idlist *list, int64_t id, size_t *step, uint64_t *row);
/* The last row of each id, KITH_IDLIST_NO_ROW for those that are not there, by one pass over all ids. Works always. */
kith_status kith_idlist_scan(const kith_idlist *list, const int64_t *ids, size_t count, uint64_t *rows);

/* Sets memory aside so that appending these cannot fail. On failure the list is as before. */
kith_status kith_idlist_reserve(kith_idlist *list, const kith_new_ids *more);
/* Gives back what was set aside. */
void kith_idlist_unreserve(kith_idlist *list);
/* The room has been reserved: cannot fail. */
void kith_idlist_append(kith_idlist *list, const kith_new_ids *more);

uint64_t kith_idlist_bytes(const kith_idlist *list);
/* Adds to *bytes what an empty list takes once it holds `count` ids that do not rise. KITH_ERR_OVERFLOW. */
kith_status kith_idlist_bytes_for(size_t count, uint64_t *bytes);

#endif
