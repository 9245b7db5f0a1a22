/* SPDX-License-Identifier: Apache-2.0
 *
 * deadset.h: which rows of a table have been removed: a bit each, in pages that are never written once they are there. A
 * change makes new pages in the place of those that it touches, so that whoever holds a copy of the struct keeps what was.
 */
#ifndef KITH_BASE_DEADSET_H
#define KITH_BASE_DEADSET_H

#include "base/epoch.h"

enum { KITH_DEADSET_SHIFT = 15 }; /* log2 of the rows of a page */

/* All zero: none. */
typedef struct kith_deadset {
    uint64_t **pages; /* NULL for a page without dead rows */
    size_t page_count;
    size_t count; /* dead rows */
} kith_deadset;

static inline bool kith_deadset_has(const kith_deadset *set, size_t row) {
    size_t page = row >> KITH_DEADSET_SHIFT;
    if (page >= set->page_count || set->pages[page] == NULL) return false;
    size_t bit = row & (((size_t)1 << KITH_DEADSET_SHIFT) - 1);
    return (set->pages[page][bit / 64] >> (bit % 64) & 1) != 0;
}

/* `set` with `count` rows more, which are distinct and not dead. Ends with one of the next two. */
kith_status kith_deadset_plan(const kith_deadset *set, const uint64_t *rows, size_t count, kith_epoch *epoch,
                              kith_deadset *plan);
/* The plan takes the place of what it was made from, which is retired. */
void kith_deadset_keep(kith_deadset *set, const kith_deadset *plan, kith_epoch *epoch);
void kith_deadset_drop(const kith_deadset *set, const kith_deadset *plan);

/* No row is dead any more. Room to retire kith_deadset_blocks has been reserved. */
void kith_deadset_clear(kith_deadset *set, kith_epoch *epoch);
size_t kith_deadset_blocks(const kith_deadset *set);
uint64_t kith_deadset_bytes(const kith_deadset *set);

#endif
