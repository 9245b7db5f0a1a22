/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_links.h: a look at the links of a graph and at the time it took to build, for tests.
 */
#ifndef KITH_TESTS_HNSW_LINKS_H
#define KITH_TESTS_HNSW_LINKS_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <time.h>

#include "hnsw/hnsw_inside.h"

/* Building on four times the vectors must not take sixteen times as long. Time is the processor's, which a busy machine changes
 * little; where it does, it is taken again. */
static inline void check_is_no_quadratic(void (*build)(const void *base, size_t count), const void *base,
                                         size_t count) {
    double times = 16;
    for (int tries = 0; tries < 5 && times >= 12; tries++) {
        clock_t start = clock();
        build(base, count / 4);
        clock_t middle = clock();
        build(base, count);
        times = (double)(clock() - middle) / (double)(middle - start);
    }
    cr_assert_lt(times, 12, "%g times as long", times);
}

/* Nodes that can be reached from the entries, and that every row is as it should be. */
static inline size_t reachable(const kith_index *index) {
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    size_t count = graph->node_count, visited = 0;
    uint32_t *queue = malloc((count + 1) * sizeof *queue);
    bool *seen = calloc(count + 1, 1);
    for (size_t i = 0; i < graph->entry_count; i++)
        if (!seen[graph->entries[i]]) seen[graph->entries[i]] = true, queue[visited++] = graph->entries[i];
    for (size_t at = 0; at < visited; at++) {
        const uint32_t *links = kith_hnsw_links(graph, queue[at]);
        size_t links_count = kith_hnsw_link_count(graph, links);
        for (size_t i = 0; i < graph->degree; i++) {
            if (i >= links_count) {
                cr_assert_eq(links[i], KITH_NO_NODE);
                continue;
            }
            cr_assert(links[i] < count && links[i] != queue[at]);
            for (size_t j = 0; j < i; j++) cr_assert_neq(links[i], links[j], "node %u links twice", queue[at]);
            if (!seen[links[i]]) seen[links[i]] = true, queue[visited++] = links[i];
        }
    }
    free(seen);
    free(queue);
    return visited;
}

#endif
