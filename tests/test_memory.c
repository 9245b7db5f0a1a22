/* SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"

#include "memory_faults.h"

static void *no_alloc(void *user, size_t alignment, size_t bytes) {
    (void)user, (void)alignment, (void)bytes;
    return NULL;
}

static void no_release(void *user, void *block) { (void)user, (void)block; }

Test(memory, hooks_are_used_and_counted) {
    memory_faults_install();
    cr_assert_eq(kith_memory_live_blocks(), 0);
    unsigned char *block;
    cr_assert_eq(kith_alloc(3, 100, &block), KITH_OK);
    cr_assert_eq(kith_memory_live_blocks(), 1);
    for (size_t i = 0; i < 300; i++) cr_assert_eq(block[i], FAULTS_BYTE);
    memset(block, 1, 300);
    kith_free(block);
    kith_free(NULL);
    cr_assert_eq(kith_memory_live_blocks(), 0);
    cr_assert_eq(faults_allocation_count(), 1);
    cr_assert_eq(kith_allocator_set(NULL), KITH_OK);
    cr_assert_eq(kith_alloc(1, 1, &block), KITH_OK);
    kith_free(block);
    cr_assert_eq(faults_allocation_count(), 1, "the default allocator is back");
}

Test(memory, hooks_are_checked) {
    cr_assert_eq(kith_allocator_set(&(kith_allocator){no_alloc, NULL, NULL}), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_allocator_set(&(kith_allocator){NULL, no_release, NULL}), KITH_ERR_ARGUMENT);
    void *block;
    cr_assert_eq(kith_alloc(1, 8, &block), KITH_OK);
    cr_assert_eq(kith_allocator_set(&(kith_allocator){no_alloc, no_release, NULL}), KITH_ERR_ARGUMENT);
    cr_assert(strstr(kith_error_message(), "1 block") != NULL, "%s", kith_error_message());
    kith_free(block);
    cr_assert_eq(kith_allocator_set(&(kith_allocator){no_alloc, no_release, NULL}), KITH_OK);
    cr_assert_eq(kith_alloc(7, 11, &block), KITH_ERR_NO_MEMORY);
    cr_assert_null(block);
    cr_assert(strstr(kith_error_message(), "77 bytes") != NULL, "%s", kith_error_message());
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(memory, blocks_are_aligned_and_writable) {
    static const size_t sizes[] = {
        1, 63, 64, 65, 4095, ((size_t)4 << 20) - 1, (size_t)4 << 20, ((size_t)6 << 20) + 1};
    for (int hooked = 0; hooked < 2; hooked++) {
        if (hooked) memory_faults_install();
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            unsigned char *block;
            cr_assert_eq(kith_alloc(sizes[i], 1, &block), KITH_OK);
            size_t alignment = sizes[i] < (size_t)4 << 20 ? KITH_ALIGNMENT : (size_t)2 << 20;
            cr_assert_eq((uintptr_t)block % alignment, 0, "%zu bytes", sizes[i]);
            memset(block, 7, sizes[i]);
            kith_free(block);
        }
    }
}

Test(memory, zero_items_are_no_block) {
    void *block = &block;
    cr_assert_eq(kith_alloc(0, 8, &block), KITH_OK);
    cr_assert_null(block);
    cr_assert_eq(kith_alloc_zeroed(8, 0, &block), KITH_OK);
    cr_assert_null(block);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(memory, zeroed_is_zero) {
    memory_faults_install();
    unsigned char *block;
    cr_assert_eq(kith_alloc_zeroed(1000, 3, &block), KITH_OK);
    for (size_t i = 0; i < 3000; i++) cr_assert_eq(block[i], 0);
    kith_free(block);
}

Test(memory, sizes_that_wrap_are_refused) {
    static const size_t pairs[][2] = {
        {SIZE_MAX, 2},
        {SIZE_MAX / 2 + 1, 2},
        {(size_t)1 << (sizeof(size_t) * 4), (size_t)1 << (sizeof(size_t) * 4)},
        {SIZE_MAX, 1},
        {SIZE_MAX - 4096, 1},
        {SIZE_MAX, SIZE_MAX},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        void *block = &block;
        cr_assert_eq(kith_alloc(pairs[i][0], pairs[i][1], &block), KITH_ERR_OVERFLOW, "pair %zu", i);
        cr_assert_null(block);
        block = &block;
        cr_assert_eq(kith_alloc_zeroed(pairs[i][0], pairs[i][1], &block), KITH_ERR_OVERFLOW, "pair %zu", i);
        cr_assert_null(block);
    }
    void *block = &block;
    cr_assert_eq(kith_alloc(SIZE_MAX - ((size_t)8 << 20), 1, &block), KITH_ERR_NO_MEMORY,
                 "a size that fits, but that nobody has");
    cr_assert_null(block);
}

Test(memory, realloc_keeps_what_fits) {
    memory_faults_install();
    uint32_t *items = NULL;
    static const size_t counts[] = {1, 5, 5, 1000, 3, 0, 10};
    size_t had = 0;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        cr_assert_eq(kith_realloc(&items, had, counts[i], sizeof *items), KITH_OK);
        for (size_t k = 0; k < kith_min_size(had, counts[i]); k++) cr_assert_eq(items[k], k * 3);
        had = counts[i];
        for (size_t k = 0; k < had; k++) items[k] = (uint32_t)(k * 3);
        cr_assert_eq(kith_memory_live_blocks(), had != 0);
    }
    uint32_t *before = items;
    kith_status status;
    MEMORY_FAULTS_EACH(status, kith_realloc(&items, had, 20, sizeof *items)) {
        cr_assert_eq(items, before, "the old block stays");
        for (size_t k = 0; k < had; k++) cr_assert_eq(items[k], k * 3);
    }
    cr_assert_eq(status, KITH_OK);
    cr_assert_eq(kith_realloc(&items, 20, SIZE_MAX, sizeof *items), KITH_ERR_OVERFLOW);
    cr_assert_eq(items[9], 27);
    kith_free(items);
}

Test(memory, checked_arithmetic) {
    size_t out;
    cr_assert_not(kith_mul_overflows(SIZE_MAX / 3, 3, &out));
    cr_assert_eq(out, SIZE_MAX / 3 * 3);
    cr_assert(kith_mul_overflows(SIZE_MAX / 3 + 1, 3, &out));
    cr_assert_not(kith_add_overflows(SIZE_MAX - 1, 1, &out));
    cr_assert_eq(out, SIZE_MAX);
    cr_assert(kith_add_overflows(SIZE_MAX, 1, &out));
    cr_assert_eq(kith_round_up(0, 64), 0);
    cr_assert_eq(kith_round_up(1, 64), 64);
    cr_assert_eq(kith_round_up(64, 64), 64);
    cr_assert_eq(kith_round_up(65, 64), 128);
}
