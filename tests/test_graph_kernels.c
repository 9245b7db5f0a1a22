/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
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

/* Against a table in which each place holds one of the nodes that share it, or none. */
Test(graph_kernels, forgotten) {
    enum { NODES = 1000, ROW_MAX = 200, BITS_MAX = 11 };
    for (size_t t = 0; t < NAME_COUNT; t++) {
        const kith_simd_table *table = kith_simd_find(names[t]);
        if (table == NULL) continue;
        for (unsigned bits = 1; bits <= BITS_MAX; bits += 5) {
            uint32_t seen[1 << BITS_MAX] = {0}, nodes[ROW_MAX], expected[ROW_MAX];
            for (uint32_t node = 0; node < NODES; node += 3) seen[kith_seen_place(node, bits)] = ~node;
            for (size_t count = 0; count <= ROW_MAX; count++) {
                size_t wanted = 0;
                for (size_t i = 0; i < count; i++) {
                    nodes[i] = (uint32_t)kith_random_below(3, 2 + count, i, NODES + 100);
                    if (i % 37 == 36) nodes[i] = UINT32_MAX - (uint32_t)i % 2;
                    if (nodes[i] < NODES && seen[kith_seen_place(nodes[i], bits)] != ~nodes[i])
                        expected[wanted++] = nodes[i];
                }
                uint32_t *row = malloc((count + 1) * sizeof *row),
                         *fresh = malloc((count + KITH_UNSEEN_ROOM) * sizeof *fresh);
                memcpy(row, nodes, count * sizeof *row);
                cr_assert_eq(table->graph.forgotten(seen, bits, row, count, NODES, fresh), wanted, "%s, %zu nodes",
                             names[t], count);
                cr_assert_eq(memcmp(fresh, expected, wanted * sizeof *fresh), 0, "%s, %zu nodes", names[t], count);
                free(fresh);
                free(row);
            }
        }
    }
}

static int compare(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Pools of every capacity are filled from nothing, some nodes at the same distance and at the ends of the range, others
 * followed meanwhile. */
Test(graph_kernels, offer) {
    enum { CAPACITY_MAX = 150, ROUNDS = 12, OFFERED_MAX = 70 };
    for (size_t t = 0; t < NAME_COUNT; t++) {
        const kith_simd_table *table = kith_simd_find(names[t]);
        if (table == NULL) continue;
        for (size_t capacity = 1; capacity <= CAPACITY_MAX; capacity++) {
            size_t places = (capacity + KITH_POOL_UNIT - 1) / KITH_POOL_UNIT * KITH_POOL_UNIT, count = 0;
            int64_t *pool = aligned_alloc(64, places * sizeof *pool), expected[CAPACITY_MAX + OFFERED_MAX];
            for (size_t p = 0; p < places; p++) pool[p] = KITH_POOL_NOTHING;
            for (size_t round = 0; round < ROUNDS; round++) {
                size_t offered = (size_t)kith_random_below(capacity, round, 0, OFFERED_MAX + 1), first;
                float *distances = malloc((offered + 1) * sizeof *distances);
                uint32_t *nodes = malloc((offered + 1) * sizeof *nodes);
                for (size_t i = 0; i < offered; i++) {
                    distances[i] = (float)kith_random_below(capacity, round, 1 + i, 200) - 100;
                    if (i % 31 == 30) distances[i] = i % 2 == 0 ? INFINITY : -INFINITY;
                    nodes[i] = (uint32_t)((round * OFFERED_MAX + i) * 7919 % 100000);
                    expected[count + i] = kith_pool_entry(distances[i], nodes[i]);
                }
                int64_t before[CAPACITY_MAX];
                memcpy(before, pool, capacity * sizeof *pool);
                size_t wanted = count + offered < capacity ? count + offered : capacity;
                qsort(expected, count + offered, sizeof *expected, compare);
                count = table->graph.offer(pool, count, capacity, distances, nodes, offered, false, &first);
                cr_assert_eq(count, wanted, "%s, capacity %zu", names[t], capacity);
                cr_assert_eq(memcmp(pool, expected, count * sizeof *pool), 0, "%s, capacity %zu", names[t],
                             capacity);
                for (size_t p = count; p < places; p++) cr_assert_eq(pool[p], KITH_POOL_NOTHING);
                size_t same = 0;
                while (same < capacity && pool[same] == before[same]) same++;
                cr_assert_eq(first, same, "%s, capacity %zu", names[t], capacity);
                for (size_t p = 0; p < count; p += 3) expected[p] = pool[p] |= 1;
                free(nodes);
                free(distances);
            }
            free(pool);
        }
    }
}

/* What is offered again, alone, twice in a call, or after it was followed, changes nothing, and the new beside it comes in. */
Test(graph_kernels, offer_again) {
    enum { CAPACITY_MAX = 100, ROUNDS = 10, OFFERED = 40, NODES = 60 };
    for (size_t t = 0; t < NAME_COUNT; t++) {
        const kith_simd_table *table = kith_simd_find(names[t]);
        if (table == NULL) continue;
        for (size_t capacity = 1; capacity <= CAPACITY_MAX; capacity++) {
            size_t places = (capacity + KITH_POOL_UNIT - 1) / KITH_POOL_UNIT * KITH_POOL_UNIT, count = 0;
            int64_t *pool = aligned_alloc(64, places * sizeof *pool), expected[NODES];
            bool is_offered[NODES] = {false};
            for (size_t p = 0; p < places; p++) pool[p] = KITH_POOL_NOTHING;
            for (size_t round = 0; round < ROUNDS; round++) {
                float distances[OFFERED];
                uint32_t nodes[OFFERED];
                size_t first, known = 0;
                for (size_t i = 0; i < OFFERED; i++) {
                    nodes[i] = (uint32_t)kith_random_below(capacity, round, i, 20 + 4 * round);
                    distances[i] = (float)(nodes[i] * 37 % 50) - 25;
                    is_offered[nodes[i]] = true;
                }
                int64_t before[CAPACITY_MAX];
                memcpy(before, pool, capacity * sizeof *pool);
                count = table->graph.offer(pool, count, capacity, distances, nodes, OFFERED, true, &first);
                for (uint32_t node = 0; node < NODES; node++)
                    if (is_offered[node]) expected[known++] = kith_pool_entry((float)(node * 37 % 50) - 25, node);
                qsort(expected, known, sizeof *expected, compare);
                cr_assert_eq(count, known < capacity ? known : capacity, "%s, capacity %zu", names[t], capacity);
                for (size_t p = 0; p < places; p++)
                    cr_assert_eq(p < count ? pool[p] & ~(int64_t)1 : pool[p],
                                 p < count ? expected[p] : KITH_POOL_NOTHING, "%s, capacity %zu", names[t],
                                 capacity);
                size_t same = 0;
                while (same < capacity && pool[same] == before[same]) same++;
                cr_assert_eq(first, same, "%s, capacity %zu", names[t], capacity);
                for (size_t p = 0; p < count; p += 3) pool[p] |= 1;
            }
            free(pool);
        }
    }
}
