/* SPDX-License-Identifier: Apache-2.0
 *
 * arena.h: scratch memory that keeps its size between uses, so that a repeated call allocates nothing.
 *
 * Use: begin, then take as often as needed; pointers stay good until the next begin. A take that does not fit
 * gets a block of its own; the next begin joins all blocks into one of their total size.
 */
#ifndef KITH_BASE_ARENA_H
#define KITH_BASE_ARENA_H

#include "base/memory.h"

typedef struct kith_arena_block kith_arena_block;

/* All zero is an empty arena. */
typedef struct kith_arena {
    kith_arena_block *blocks; /* the newest first */
    size_t total_bytes;
    unsigned char *zeros; /* see kith_arena_zeros */
    size_t zeros_bytes;
} kith_arena;

kith_status kith_arena_begin(kith_arena *arena);
/* `count` items of `each` bytes at a multiple of 64, uninitialised; NULL and KITH_OK when that is nothing. */
kith_status kith_arena_take(kith_arena *arena, size_t count, size_t each, void *out);
/* `count` items of `each` bytes, all zero, at a multiple of 64: one piece for each begin. Whoever takes it leaves it all
 * zero, or drops it, so that bits for every vector cost a call nothing but those that it sets. */
kith_status kith_arena_zeros(kith_arena *arena, size_t count, size_t each, void *out);
void kith_arena_drop_zeros(kith_arena *arena);
void kith_arena_free(kith_arena *arena);

#endif
