/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <string.h>

#include "base/error.h"

struct kith_arena_block {
    kith_arena_block *next;
    size_t bytes, used; /* of what follows the header */
};

enum { HEADER_BYTES = KITH_ALIGNMENT };
_Static_assert(sizeof(kith_arena_block) <= HEADER_BYTES, "the header keeps the content aligned");

static kith_status push_block(kith_arena *arena, size_t bytes) {
    kith_arena_block *block;
    KITH_TRY(kith_alloc(1, HEADER_BYTES + bytes, &block));
    *block = (kith_arena_block){.next = arena->blocks, .bytes = bytes};
    arena->blocks = block;
    arena->total_bytes += bytes;
    return KITH_OK;
}

static void free_blocks(kith_arena *arena) {
    for (kith_arena_block *block = arena->blocks; block != NULL;) {
        kith_arena_block *next = block->next;
        kith_free(block);
        block = next;
    }
    arena->blocks = NULL;
    arena->total_bytes = 0;
}

kith_status kith_arena_begin(kith_arena *arena) {
    if (arena->blocks == NULL) return KITH_OK;
    if (arena->blocks->next != NULL) {
        size_t bytes = arena->total_bytes;
        free_blocks(arena);
        KITH_TRY(push_block(arena, bytes));
    }
    arena->blocks->used = 0;
    return KITH_OK;
}

kith_status kith_arena_take(kith_arena *arena, size_t count, size_t each, void *out) {
    void *taken = NULL;
    memcpy(out, &taken, sizeof taken);
    size_t bytes;
    if (kith_mul_overflows(count, each, &bytes) || bytes > SIZE_MAX / 2)
        return kith_error(KITH_ERR_OVERFLOW, "memory: %zu items of %zu bytes do not fit the address space", count,
                          each);
    if (bytes == 0) return KITH_OK;
    bytes = kith_round_up(bytes, KITH_ALIGNMENT);
    kith_arena_block *block = arena->blocks;
    if (block == NULL || bytes > block->bytes - block->used) KITH_TRY(push_block(arena, bytes));
    block = arena->blocks;
    taken = (unsigned char *)block + HEADER_BYTES + block->used;
    block->used += bytes;
    memcpy(out, &taken, sizeof taken);
    return KITH_OK;
}

void kith_arena_drop_zeros(kith_arena *arena) {
    kith_free(arena->zeros);
    arena->zeros = NULL;
    arena->zeros_bytes = 0;
}

kith_status kith_arena_zeros(kith_arena *arena, size_t count, size_t each, void *out) {
    size_t bytes;
    void *nothing = NULL;
    memcpy(out, &nothing, sizeof nothing);
    if (kith_mul_overflows(count, each, &bytes))
        return kith_error(KITH_ERR_OVERFLOW, "memory: %zu items of %zu bytes do not fit the address space", count,
                          each);
    if (bytes > arena->zeros_bytes) {
        kith_arena_drop_zeros(arena);
        KITH_TRY(kith_alloc_zeroed(1, bytes, &arena->zeros));
        arena->zeros_bytes = bytes;
    }
    memcpy(out, &arena->zeros, sizeof arena->zeros);
    return KITH_OK;
}

void kith_arena_free(kith_arena *arena) {
    kith_arena_drop_zeros(arena);
    free_blocks(arena);
}
