/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "base/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"

/* Below this size a block would not fill two huge pages, and rounding it up to them would waste much of it. */
static const size_t huge_bytes_min = (size_t)4 << 20;
static const size_t huge_page_bytes = (size_t)2 << 20;

static void *default_alloc(void *user, size_t alignment, size_t bytes) {
    (void)user;
    void *block = NULL;
    return posix_memalign(&block, alignment, bytes) == 0 ? block : NULL;
}

static void default_release(void *user, void *block) {
    (void)user;
    free(block);
}

static kith_allocator allocator = {default_alloc, default_release, NULL};
static _Atomic uint64_t live_blocks;

kith_status kith_allocator_set(const kith_allocator *replacement) {
    if (replacement != NULL && (replacement->alloc == NULL || replacement->release == NULL))
        return kith_error(KITH_ERR_ARGUMENT, "allocator: alloc and release must both be given");
    uint64_t live = atomic_load(&live_blocks);
    if (live != 0)
        return kith_error(KITH_ERR_ARGUMENT, "allocator: %llu blocks of the present one are still live",
                          (unsigned long long)live);
    allocator = replacement != NULL ? *replacement : (kith_allocator){default_alloc, default_release, NULL};
    return KITH_OK;
}

uint64_t kith_memory_live_blocks(void) { return atomic_load(&live_blocks); }

kith_status kith_alloc(size_t count, size_t each, void *out) {
    void *block = NULL;
    memcpy(out, &block, sizeof block);
    size_t bytes;
    if (kith_mul_overflows(count, each, &bytes) || bytes > SIZE_MAX - huge_page_bytes)
        return kith_error(KITH_ERR_OVERFLOW, "memory: %zu items of %zu bytes do not fit the address space", count,
                          each);
    if (bytes == 0) return KITH_OK;
    bool huge = bytes >= huge_bytes_min;
    block = allocator.alloc(allocator.user, huge ? huge_page_bytes : KITH_ALIGNMENT, bytes);
    if (block == NULL) return kith_error(KITH_ERR_NO_MEMORY, "memory: no room for %zu bytes", bytes);
    if (huge) (void)madvise(block, bytes & ~(huge_page_bytes - 1), MADV_HUGEPAGE); /* a hint: may be refused */
    atomic_fetch_add_explicit(&live_blocks, 1, memory_order_relaxed);
    memcpy(out, &block, sizeof block);
    return KITH_OK;
}

kith_status kith_alloc_zeroed(size_t count, size_t each, void *out) {
    KITH_TRY(kith_alloc(count, each, out));
    void *block;
    memcpy(&block, out, sizeof block);
    if (block != NULL) memset(block, 0, count * each);
    return KITH_OK;
}

kith_status kith_realloc(void *array, size_t old_count, size_t new_count, size_t each) {
    void *old_block, *new_block;
    memcpy(&old_block, array, sizeof old_block);
    KITH_TRY(kith_alloc(new_count, each, &new_block));
    size_t kept = kith_min_size(old_count, new_count);
    if (kept != 0 && each != 0) memcpy(new_block, old_block, kept * each);
    kith_free(old_block);
    memcpy(array, &new_block, sizeof new_block);
    return KITH_OK;
}

void kith_free(void *block) {
    if (block == NULL) return;
    atomic_fetch_sub_explicit(&live_blocks, 1, memory_order_relaxed);
    allocator.release(allocator.user, block);
}
