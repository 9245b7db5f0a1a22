/* SPDX-License-Identifier: Apache-2.0
 *
 * chunks.h: an array of fixed-size items that grows without ever moving one.
 *
 * Items lie in chunks that double in size, from one granule (about 64 KiB) up to about 16 MiB: so a small array is
 * small, a large one wastes at most one chunk, and an address once handed out stays good while others append. A table
 * holds the address of each granule, so that an item is found without a branch: walks of a graph do little else. A file
 * that is mapped looks the same: one granule that points into it.
 *
 * A copy of the struct stays good for the items that were there when it was made, beside any growth, as long as what is
 * replaced is retired through `epoch`: that is what readers beside a writer hold.
 */
#ifndef KITH_BASE_CHUNKS_H
#define KITH_BASE_CHUNKS_H

#include <stdbool.h>

#include "base/epoch.h"

typedef struct kith_chunks {
    unsigned char **granule; /* where item g << shift stands */
    size_t granule_capacity; /* of the table */
    size_t chunk_count;      /* 0 of borrowed memory */
    size_t room;             /* items */
    size_t item_bytes;
    unsigned shift;      /* log2 of the items in a granule */
    unsigned full_shift; /* log2 of the granules in a full chunk */
    bool borrowed;       /* the memory belongs to a mapped file: never freed, never grown */
    kith_epoch *epoch;   /* of the readers of copies; NULL: there are none */
} kith_chunks;

/* An empty array. item_bytes > 0. */
void kith_chunks_init(kith_chunks *chunks, size_t item_bytes);
/* An array of `count` items that lie one after the other at `items`, read-only. */
kith_status kith_chunks_borrow(kith_chunks *chunks, size_t item_bytes, const void *items, size_t count);
/* The same without an allocation, for a moment: *table gets `items`. Not to be freed. */
void kith_chunks_view(kith_chunks *chunks, size_t item_bytes, const void *items, size_t count,
                      unsigned char **table);
void kith_chunks_free(kith_chunks *chunks);
/* Makes room for items 0..count-1. What is there stays there; on failure nothing changes that can be seen. */
kith_status kith_chunks_reserve(kith_chunks *chunks, size_t count);
/* Gives back the chunks that hold none of the items 0..count-1, but for `spare` of them. What is left can grow
 * again. No reader looks at what is given back. */
void kith_chunks_trim(kith_chunks *chunks, size_t count, size_t spare);
/* Gives everything back once no reader looks at it any more: an empty array again. Room to retire kith_chunks_blocks has
 * been reserved. */
void kith_chunks_retire(kith_chunks *chunks);
static inline size_t kith_chunks_blocks(const kith_chunks *chunks) { return chunks->chunk_count + 1; }
/* Of the items there is room for and of the table. */
uint64_t kith_chunks_bytes(const kith_chunks *chunks);
/* Adds to *bytes what that is once an empty array has been given room for `count` items. KITH_ERR_OVERFLOW. */
kith_status kith_chunks_bytes_for(size_t item_bytes, size_t count, uint64_t *bytes);

static inline void *kith_chunks_at(const kith_chunks *chunks, size_t i) {
    size_t first = i >> chunks->shift << chunks->shift;
    return chunks->granule[i >> chunks->shift] + (i - first) * chunks->item_bytes;
}

/* The address of item i and, in *run, how many items from i on lie one after the other there. */
void *kith_chunks_run(const kith_chunks *chunks, size_t i, size_t *run);

#endif
