/* SPDX-License-Identifier: Apache-2.0
 *
 * graph_ref.c: the reference of the kernels of graph.h.
 */
#include <string.h>

#include "simd/graph_offer.h"
#include "simd/isa.h"

static size_t unseen(const uint32_t *seen, const uint32_t *nodes, size_t count, uint32_t node_count,
                     uint32_t *fresh) {
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t node = nodes[i];
        if (node >= node_count) continue;
        fresh[found] = node;
        found += (seen[node / 32] >> (node % 32) & 1) == 0;
    }
    return found;
}

static size_t forgotten(const uint32_t *table, unsigned bits, const uint32_t *nodes, size_t count,
                        uint32_t node_count, uint32_t *fresh) {
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t node = nodes[i];
        if (node >= node_count) continue;
        fresh[found] = node;
        found += table[kith_seen_place(node, bits)] != ~node;
    }
    return found;
}

static size_t insert(int64_t *pool, size_t count, int64_t entry) {
    size_t first = 0, length = count;
    while (length > 0) {
        size_t half = length / 2;
        size_t right = pool[first + half] < entry ? half + 1 : 0;
        first += right;
        length = right != 0 ? length - right : half;
    }
    memmove(pool + first + 1, pool + first, (count - first) * sizeof *pool);
    pool[first] = entry;
    return first;
}

static size_t offer(int64_t *pool, size_t count, size_t capacity, const float *distances, const uint32_t *nodes,
                    size_t offered, bool may_repeat, size_t *first) {
    return kith_offer_by(insert, pool, count, capacity, distances, nodes, offered, may_repeat, first);
}

void kith_fill_ref_graph(kith_simd_table *table) { table->graph = (kith_graph_kernels){unseen, forgotten, offer}; }
