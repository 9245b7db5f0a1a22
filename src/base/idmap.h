/* SPDX-License-Identifier: Apache-2.0
 *
 * idmap.h: from a 64-bit id to the row that holds it: open addressing, linear probing, at most 7/8 full.
 *
 * A map is used in one of two ways. With put, get and remove an id has one row. With append and next entries are only
 * ever added, an id may have several, and the owner tells which of them counts: such a map may be read, through copies of
 * the struct, while its one writer appends.
 */
#ifndef KITH_BASE_IDMAP_H
#define KITH_BASE_IDMAP_H

#include <stdbool.h>

#include "base/epoch.h"

typedef struct kith_idmap_slot {
    int64_t id; /* KITH_NO_ID: free */
    uint64_t row;
} kith_idmap_slot;

/* All zero is an empty map. */
typedef struct kith_idmap {
    kith_idmap_slot *slots;
    size_t slot_count; /* 0 or a power of two */
    size_t count;      /* entries */
    kith_epoch *epoch; /* of the readers of copies; NULL: there are none */
} kith_idmap;

void kith_idmap_free(kith_idmap *map);
/* Takes all ids out and keeps the room. */
void kith_idmap_clear(kith_idmap *map);
/* Makes room for `count` ids in all, so that the puts up to there cannot fail. */
kith_status kith_idmap_reserve(kith_idmap *map, size_t count);
/* Adds to *bytes what the table takes then, of an empty map. KITH_ERR_OVERFLOW. */
kith_status kith_idmap_bytes_for(size_t count, uint64_t *bytes);
/* Adds or replaces. The room has been reserved; id >= 0. */
void kith_idmap_put(kith_idmap *map, int64_t id, uint64_t row);
bool kith_idmap_get(const kith_idmap *map, int64_t id, uint64_t *row);
/* Does nothing when the id is not there. */
void kith_idmap_remove(kith_idmap *map, int64_t id);

/* Adds an entry beside those that the id has. The room has been reserved; id >= 0. */
void kith_idmap_append(kith_idmap *map, int64_t id, uint64_t row);
/* The entries of an id, one after the other, oldest first as long as no table took the place of another: *step begins at
 * 0. False: there are no more. Entries that are appended meanwhile may be among them. */
bool kith_idmap_next(const kith_idmap *map, int64_t id, size_t *step, uint64_t *row);
/* Takes all entries out; the table goes once no reader looks at it any more. Room to retire one block has been
 * reserved. */
void kith_idmap_retire(kith_idmap *map);

#endif
