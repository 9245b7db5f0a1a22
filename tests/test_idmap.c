/* SPDX-License-Identifier: Apache-2.0 */
#include "base/idmap.h"

#include "base/random.h"
#include "memory_faults.h"

enum { IDS = 700, STEPS = 200000 };

/* Ids from 0..IDS-1, stretched in ways that real ids are: dense, far apart, at the top of the range. */
static int64_t spread(int kind, uint64_t id) {
    if (kind == 0) return (int64_t)id;
    if (kind == 1) return (int64_t)(id << 40);
    return INT64_MAX - (int64_t)id;
}

static void compare_all(const kith_idmap *map, int kind, const bool *there, const uint64_t *rows) {
    size_t count = 0;
    for (size_t i = 0; i < IDS; i++) {
        uint64_t row = UINT64_MAX;
        cr_assert_eq(kith_idmap_get(map, spread(kind, i), &row), there[i], "kind %d id %zu", kind, i);
        if (there[i]) cr_assert_eq(row, rows[i]);
        count += there[i];
    }
    cr_assert_eq(map->count, count);
}

Test(idmap, does_what_an_array_does) {
    memory_faults_install();
    for (int kind = 0; kind < 3; kind++) {
        kith_idmap map = {0};
        bool there[IDS] = {false};
        uint64_t rows[IDS] = {0};
        for (uint64_t step = 0; step < STEPS; step++) {
            uint64_t draw = kith_random_u64(5, (uint64_t)kind, step), id = draw % IDS;
            /* Phases of growth and of decay, so that it is nearly full and nearly empty by turns. */
            if ((draw >> 32) % 8 < (step / 10000 % 2 == 0 ? 6u : 2u)) {
                cr_assert_eq(kith_idmap_reserve(&map, map.count + 1), KITH_OK);
                kith_idmap_put(&map, spread(kind, id), draw);
                there[id] = true;
                rows[id] = draw;
            } else {
                kith_idmap_remove(&map, spread(kind, id));
                there[id] = false;
            }
            if (step % 997 == 0) compare_all(&map, kind, there, rows);
        }
        compare_all(&map, kind, there, rows);
        kith_idmap_free(&map);
        kith_idmap_free(&map);
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(idmap, holds_what_was_reserved_without_allocating) {
    memory_faults_install();
    static const size_t counts[] = {1, 13, 14, 15, 28, 29, 112, 113, 1000, 100000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        kith_idmap map = {0};
        cr_assert_eq(kith_idmap_reserve(&map, counts[c]), KITH_OK);
        faults_fail_allocation(1);
        for (size_t i = 0; i < counts[c]; i++) kith_idmap_put(&map, (int64_t)(i * 3), i);
        faults_fail_allocation(0);
        cr_assert_lt(map.count, map.slot_count, "a full table would search for ever");
        uint64_t row;
        for (size_t i = 0; i < counts[c]; i++) {
            cr_assert(kith_idmap_get(&map, (int64_t)(i * 3), &row));
            cr_assert_eq(row, i);
            cr_assert_not(kith_idmap_get(&map, (int64_t)(i * 3 + 1), &row));
        }
        kith_idmap_free(&map);
    }
}

Test(idmap, ids_that_cannot_be_there) {
    kith_idmap map = {0};
    uint64_t row;
    cr_assert_not(kith_idmap_get(&map, 5, &row));
    kith_idmap_remove(&map, 5);
    cr_assert_eq(kith_idmap_reserve(&map, 1), KITH_OK);
    kith_idmap_put(&map, 5, 1);
    cr_assert_not(kith_idmap_get(&map, KITH_NO_ID, &row), "the mark of a free slot is no id");
    cr_assert_not(kith_idmap_get(&map, INT64_MIN, &row));
    kith_idmap_remove(&map, KITH_NO_ID);
    kith_idmap_remove(&map, 6);
    cr_assert_eq(map.count, 1);
    kith_idmap_put(&map, 5, 2);
    cr_assert_eq(map.count, 1, "a second put replaces");
    cr_assert(kith_idmap_get(&map, 5, &row));
    cr_assert_eq(row, 2);
    kith_idmap_free(&map);
}

Test(idmap, survives_failed_and_refused_growth) {
    memory_faults_install();
    kith_idmap map = {0};
    cr_assert_eq(kith_idmap_reserve(&map, 10), KITH_OK);
    for (int64_t i = 0; i < 10; i++) kith_idmap_put(&map, i, (uint64_t)i);
    kith_status status;
    uint64_t row;
    size_t failures = 0;
    MEMORY_FAULTS_EACH(status, kith_idmap_reserve(&map, 1000)) {
        failures++;
        for (int64_t i = 0; i < 10; i++) cr_assert(kith_idmap_get(&map, i, &row) && row == (uint64_t)i);
    }
    cr_assert_eq(failures, 1);
    cr_assert_eq(kith_idmap_reserve(&map, SIZE_MAX), KITH_ERR_OVERFLOW);
    cr_assert_eq(kith_idmap_reserve(&map, SIZE_MAX / 16), KITH_ERR_OVERFLOW);
    for (int64_t i = 0; i < 10; i++) cr_assert(kith_idmap_get(&map, i, &row) && row == (uint64_t)i);
    kith_idmap_free(&map);
}
