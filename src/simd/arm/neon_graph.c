/* SPDX-License-Identifier: Apache-2.0
 *
 * neon_graph.c: insertion into a pool. Instead of a search with its branches all entries are compared.
 *
 * unseen and forgotten are the reference's: without a gather and a compression every node is a load, a shift and a test of its own,
 * and that is what the reference does, without a branch on what it finds.
 */
#include "simd/arm/neon.h"
#include "simd/graph_offer.h"

enum { LANES = 2, GROUP = 2 * LANES };

/* How many of two entries are smaller: minus that many, in the sum of both lanes. */
ALWAYS_INLINE int64x2_t smaller_of(const int64_t *pool, int64x2_t wanted) {
    return vreinterpretq_s64_u64(vcltq_s64(vld1q_s64(pool), wanted));
}

/* Two entries at their own place, never across two: what one insertion has stored the next one loads whole. */
static size_t insert(int64_t *pool, size_t count, int64_t entry) {
    const int64x2_t wanted = vdupq_n_s64(entry);
    size_t first = 0, i = 0;
    for (; i + GROUP <= count; i += GROUP) {
        int64x2_t smaller = vaddq_s64(smaller_of(pool + i, wanted), smaller_of(pool + i + LANES, wanted));
        int64_t found = -vaddvq_s64(smaller);
        first += (size_t)found;
        if (found != GROUP) break;
    }
    if (first == i)
        while (first < count && pool[first] < entry) first++;
    size_t pair = count / LANES * LANES, changed = first / LANES * LANES;
    int64x2_t held = vld1q_s64(pool + pair);
    for (; pair > changed; pair -= LANES) {
        int64x2_t below = vld1q_s64(pool + pair - LANES);
        vst1q_s64(pool + pair, vextq_s64(below, held, 1));
        held = below;
    }
    vst1q_s64(pool + pair,
              first == pair ? vextq_s64(wanted, held, 1) : vextq_s64(vextq_s64(held, held, 1), wanted, 1));
    return first;
}

static size_t offer(int64_t *pool, size_t count, size_t capacity, const float *distances, const uint32_t *nodes,
                    size_t offered, bool may_repeat, size_t *first) {
    count = kith_offer_by(insert, pool, count, capacity, distances, nodes, offered, may_repeat, first);
    /* Groups are moved whole, also the last one. */
    for (size_t p = count; p % KITH_POOL_UNIT != 0 || p < capacity; p++) pool[p] = KITH_POOL_NOTHING;
    return count;
}

void kith_fill_neon_graph(kith_simd_table *table) { table->graph.offer = offer; }
