/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "simd/simd.h"

static const char *const names[] = {"ref", "avx2", "avx512", "neon"};
enum { NAME_COUNT = sizeof names / sizeof *names };

/* Nodes in order, without those that are marked or past the end, for every length of a row. */
Test(graph_kernels, unseen) {
    enum { NODES = 1000, ROW_MAX = 200 };
    uint32_t seen[NODES / 32 + 1], nodes[ROW_MAX], expected[ROW_MAX];
    for (size_t i = 0; i <= NODES / 32; i++) seen[i] = (uint32_t)kith_random_u64(1, 1, i);
    for (size_t t = 0; t < NAME_COUNT; t++) {
        const kith_simd_table *table = kith_simd_find(names[t]);
        if (table == NULL) continue;
        for (size_t count = 0; count <= ROW_MAX; count++) {
            size_t wanted = 0;
            for (size_t i = 0; i < count; i++) {
                nodes[i] = (uint32_t)kith_random_below(1, 2 + count, i, NODES + 100);
                if (i % 37 == 36) nodes[i] = UINT32_MAX - (uint32_t)i % 2;
                if (nodes[i] < NODES && (seen[nodes[i] / 32] >> nodes[i] % 32 & 1) == 0)
                    expected[wanted++] = nodes[i];
            }
            uint32_t *row = malloc((count + 1) * sizeof *row),
                     *fresh = malloc((count + KITH_UNSEEN_ROOM) * sizeof *fresh);
            memcpy(row, nodes, count * sizeof *row);
            cr_assert_eq(table->graph.unseen(seen, row, count, NODES, fresh), wanted, "%s, %zu nodes", names[t],
                         count);
            cr_assert_eq(memcmp(fresh, expected, wanted * sizeof *fresh), 0, "%s, %zu nodes", names[t], count);
            free(fresh);
            free(row);
        }
    }
}

/* A pool that is filled from nothing, with equal entries and the ends of the range among them, stays sorted. */
Test(graph_kernels, insert) {
    enum { COUNT = 150 };
    for (size_t t = 0; t < NAME_COUNT; t++) {
        const kith_simd_table *table = kith_simd_find(names[t]);
        if (table == NULL) continue;
        for (uint64_t round = 0; round < 40; round++) {
            int64_t expected[COUNT];
            for (size_t count = 0; count < COUNT; count++) {
                int64_t *pool = aligned_alloc(64, (count + KITH_POOL_UNIT) / KITH_POOL_UNIT * 64);
                int64_t entry = (int64_t)kith_random_u64(2, round, count);
                if (count % 5 == 4) entry = expected[count / 2];
                if (count % 29 == 28) entry = count % 2 == 0 ? INT64_MIN : INT64_MAX;
                size_t place = 0;
                while (place < count && expected[place] < entry) place++;
                if (count > 0) memcpy(pool, expected, count * sizeof *pool);
                memmove(expected + place + 1, expected + place, (count - place) * sizeof *expected);
                expected[place] = entry;
                cr_assert_eq(table->graph.insert(pool, count, entry), place, "%s, %zu entries", names[t], count);
                cr_assert_eq(memcmp(pool, expected, (count + 1) * sizeof *pool), 0, "%s, %zu entries", names[t],
                             count);
                free(pool);
            }
        }
    }
}
