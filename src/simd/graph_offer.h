/* SPDX-License-Identifier: Apache-2.0
 *
 * graph_offer.h: what the kernels of graph.h share. Each file that includes this has its own copy.
 */
#ifndef KITH_SIMD_GRAPH_OFFER_H
#define KITH_SIMD_GRAPH_OFFER_H

#include "simd/graph.h"

/* Is an entry among `count` places of the pool, followed or not? */
static inline bool kith_pool_has(const int64_t *pool, size_t count, int64_t entry) {
    size_t from = 0, left = count;
    while (left > 0) {
        size_t half = left / 2;
        bool is_after = pool[from + half] < entry;
        from += is_after ? half + 1 : 0;
        left = is_after ? left - half - 1 : half;
    }
    return from < count && (pool[from] | 1) == (entry | 1);
}

/* What is put into a pool by one call. */
typedef struct kith_pool_change {
    int64_t nearest; /* of the new entries */
    size_t count;    /* of all entries, if there were room */
} kith_pool_change;

static inline void kith_pool_note(kith_pool_change *change, int64_t entry) {
    change->nearest = entry < change->nearest ? entry : change->nearest;
    change->count++;
}

/* offer by one insertion after the other. `insert` puts an entry before the first of `count` that is not smaller, moves
 * these up by one, and returns its place. */
static inline __attribute__((always_inline)) size_t
kith_offer_by(size_t (*insert)(int64_t *pool, size_t count, int64_t entry), int64_t *pool, size_t count,
              size_t capacity, const float *distances, const uint32_t *nodes, size_t offered, bool may_repeat,
              size_t *first) {
    *first = capacity;
    for (size_t i = 0; i < offered; i++) {
        int64_t entry = kith_pool_entry(distances[i], nodes[i]);
        if (count == capacity && entry >= pool[capacity - 1]) continue;
        if (may_repeat && kith_pool_has(pool, count, entry)) continue;
        if (count == capacity) count--;
        size_t place = insert(pool, count++, entry);
        *first = place < *first ? place : *first;
    }
    return count;
}

#endif
