/* SPDX-License-Identifier: Apache-2.0
 *
 * graph_offer.h: offer of graph.h by one insertion after the other. `insert` puts an entry before the first of `count`
 * that is not smaller, moves these up by one, and returns its place. Each file that includes this has its own copy.
 */
#ifndef KITH_SIMD_GRAPH_OFFER_H
#define KITH_SIMD_GRAPH_OFFER_H

#include "simd/graph.h"

static inline __attribute__((always_inline)) size_t
kith_offer_by(size_t (*insert)(int64_t *pool, size_t count, int64_t entry), int64_t *pool, size_t count,
              size_t capacity, const float *distances, const uint32_t *nodes, size_t offered, size_t *first) {
    *first = capacity;
    for (size_t i = 0; i < offered; i++) {
        int64_t entry = kith_pool_entry(distances[i], nodes[i]);
        if (count == capacity) {
            if (entry >= pool[capacity - 1]) continue;
            count--;
        }
        size_t place = insert(pool, count++, entry);
        *first = place < *first ? place : *first;
    }
    return count;
}

#endif
