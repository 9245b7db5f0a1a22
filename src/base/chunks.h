/* SPDX-License-Identifier: Apache-2.0
 *
 * chunks.h: an array of fixed-size items that grows without ever moving one.
 *
 * Items lie in chunks: the first few double in size (64 items, 64, 128, 256, ...) up to a chunk of 2^shift items,
 * which all later ones have. So a small array is small, a large one wastes at most one chunk, and an address once
 * handed out stays good while others append. A file that is mapped looks the same: its chunks point into it.
 */
#ifndef KITH_BASE_CHUNKS_H
#define KITH_BASE_CHUNKS_H

#include <stdbool.h>

#include "base/memory.h"

enum { KITH_CHUNK_FIRST_SHIFT = 6 };

typedef struct kith_chunks {
    unsigned char **chunk;
    size_t chunk_count, chunk_capacity;
    size_t item_bytes;
    unsigned shift; /* log2 of the items in a full chunk; at least KITH_CHUNK_FIRST_SHIFT */
    bool borrowed;  /* the memory belongs to a mapped file: never freed, never grown */
} kith_chunks;

/* An empty array whose full chunks hold about 16 MiB. item_bytes > 0. */
void kith_chunks_init(kith_chunks *chunks, size_t item_bytes);
/* An array of `count` items that lie one after the other at `items`, read-only. */
kith_status kith_chunks_borrow(kith_chunks *chunks, size_t item_bytes, const void *items, size_t count);
/* The same without an allocation, for a moment: the addresses of the chunks go to `pointers`. Not to be freed. */
enum { KITH_CHUNKS_VIEW_POINTERS = 64 - KITH_CHUNK_FIRST_SHIFT };
void kith_chunks_view(kith_chunks *chunks, size_t item_bytes, const void *items, size_t count,
                      unsigned char *pointers[KITH_CHUNKS_VIEW_POINTERS]);
void kith_chunks_free(kith_chunks *chunks);
/* Makes room for items 0..count-1. What is there stays there; on failure nothing changes that can be seen. */
kith_status kith_chunks_reserve(kith_chunks *chunks, size_t count);
/* Gives back the chunks that hold none of the items 0..count-1, but for `spare` of them. What is left can grow
 * again. */
void kith_chunks_trim(kith_chunks *chunks, size_t count, size_t spare);
uint64_t kith_chunks_bytes(const kith_chunks *chunks);

/* Where item i stands: its chunk and the first item of that chunk. */
static inline size_t kith_chunks_locate(const kith_chunks *chunks, size_t i, size_t *first) {
    size_t full = i >> chunks->shift;
    if (full != 0) {
        *first = full << chunks->shift;
        return chunks->shift - KITH_CHUNK_FIRST_SHIFT + full;
    }
    size_t unit = i >> KITH_CHUNK_FIRST_SHIFT;
    if (unit == 0) {
        *first = 0;
        return 0;
    }
    unsigned log = 63u - (unsigned)__builtin_clzll(unit);
    *first = (size_t)1 << (log + KITH_CHUNK_FIRST_SHIFT);
    return log + 1;
}

static inline void *kith_chunks_at(const kith_chunks *chunks, size_t i) {
    size_t first, c = kith_chunks_locate(chunks, i, &first);
    return chunks->chunk[c] + (i - first) * chunks->item_bytes;
}

/* The address of item i and, in *run, how many items from i on lie one after the other there. */
void *kith_chunks_run(const kith_chunks *chunks, size_t i, size_t *run);

#endif
