/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include "base/error.h"

#include "memory_faults.h"

Test(arena, pieces_are_aligned_and_apart) {
    memory_faults_install();
    kith_arena arena = {0};
    cr_assert_eq(kith_arena_begin(&arena), KITH_OK);
    unsigned char *piece[100];
    for (size_t i = 0; i < 100; i++) {
        cr_assert_eq(kith_arena_take(&arena, i + 1, 7, &piece[i]), KITH_OK);
        cr_assert_eq((uintptr_t)piece[i] % KITH_ALIGNMENT, 0);
        memset(piece[i], (int)i, (i + 1) * 7);
    }
    for (size_t i = 0; i < 100; i++)
        for (size_t b = 0; b < (i + 1) * 7; b++) cr_assert_eq(piece[i][b], i);
    kith_arena_free(&arena);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(arena, the_second_round_allocates_one_block_and_the_third_none) {
    memory_faults_install();
    kith_arena arena = {0};
    uint64_t allocations[4];
    for (size_t round = 0; round < 4; round++) {
        faults_fail_allocation(0);
        cr_assert_eq(kith_arena_begin(&arena), KITH_OK);
        for (size_t i = 0; i < 20; i++) {
            void *piece;
            cr_assert_eq(kith_arena_take(&arena, 100 + i, 8, &piece), KITH_OK);
            memset(piece, 1, (100 + i) * 8);
        }
        allocations[round] = faults_allocation_count();
    }
    cr_assert_gt(allocations[0], 1);
    cr_assert_eq(allocations[1], 1);
    cr_assert_eq(allocations[2], 0);
    cr_assert_eq(allocations[3], 0);
    cr_assert_eq(kith_memory_live_blocks(), 1);
    kith_arena_free(&arena);
}

Test(arena, nothing_is_taken_for_zero_items) {
    kith_arena arena = {0};
    void *piece = &piece;
    cr_assert_eq(kith_arena_begin(&arena), KITH_OK);
    cr_assert_eq(kith_arena_take(&arena, 0, 100, &piece), KITH_OK);
    cr_assert_null(piece);
    cr_assert_eq(kith_memory_live_blocks(), 0);
    kith_arena_free(&arena);
    kith_arena_free(&arena);
}

Test(arena, sizes_that_wrap_are_refused) {
    static const size_t pairs[][2] = {{SIZE_MAX, 2}, {SIZE_MAX, 1}, {SIZE_MAX - 63, 1}, {SIZE_MAX / 2 + 1, 1}};
    kith_arena arena = {0};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        void *piece = &piece;
        cr_assert_eq(kith_arena_take(&arena, pairs[i][0], pairs[i][1], &piece), KITH_ERR_OVERFLOW, "pair %zu", i);
        cr_assert_null(piece);
    }
    kith_arena_free(&arena);
}

static kith_status two_rounds(kith_arena *arena) {
    for (size_t round = 0; round < 2; round++) {
        KITH_TRY(kith_arena_begin(arena));
        for (size_t i = 1; i < 6; i++) {
            void *piece;
            KITH_TRY(kith_arena_take(arena, i, 1000, &piece));
            memset(piece, 1, i * 1000);
        }
    }
    return KITH_OK;
}

Test(arena, survives_each_failed_allocation) {
    memory_faults_install();
    for (uint64_t n = 1;; n++) {
        kith_arena arena = {0};
        faults_fail_allocation(n);
        kith_status status = two_rounds(&arena);
        bool reached = faults_allocation_count() >= n;
        faults_fail_allocation(0);
        cr_assert_eq(status, reached ? KITH_ERR_NO_MEMORY : KITH_OK);
        cr_assert_eq(two_rounds(&arena), KITH_OK, "usable after the failure");
        kith_arena_free(&arena);
        cr_assert_eq(kith_memory_live_blocks(), 0);
        if (!reached) break;
        cr_assert_lt(n, 100);
    }
}

Test(arena, zeros_stay_zero_and_are_made_once) {
    memory_faults_install();
    kith_arena arena = {0};
    unsigned char *first, *again, *larger;
    kith_status status;
    MEMORY_FAULTS_EACH(status, kith_arena_zeros(&arena, 100, 8, &first)) { cr_assert_null(first); }
    cr_assert_eq(status, KITH_OK);
    for (size_t i = 0; i < 800; i++) cr_assert_eq(first[i], 0);
    first[700] = 1;
    first[700] = 0;
    cr_assert_eq(kith_arena_begin(&arena), KITH_OK);
    cr_assert_eq(kith_arena_zeros(&arena, 10, 8, &again), KITH_OK);
    cr_assert_eq(again, first, "what is large enough is taken again");
    again[3] = 1;
    kith_arena_drop_zeros(&arena);
    cr_assert_eq(kith_arena_zeros(&arena, 10, 8, &again), KITH_OK);
    cr_assert_eq(again[3], 0);
    cr_assert_eq(kith_arena_zeros(&arena, 1000, 8, &larger), KITH_OK);
    for (size_t i = 0; i < 8000; i++) cr_assert_eq(larger[i], 0);
    cr_assert_eq(kith_arena_zeros(&arena, SIZE_MAX / 2, 8, &larger), KITH_ERR_OVERFLOW);
    cr_assert_null(larger);
    kith_arena_free(&arena);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
