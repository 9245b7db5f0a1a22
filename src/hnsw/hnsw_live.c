/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_live.c: walks past removed nodes, and to the end. Removed nodes lead on as all others do, so that a walk takes
 * the way it always took; it only has to follow more nodes, until as many live ones have been followed as it would
 * have without them. Where a whole neighbourhood was removed that may be all of its nodes, once.
 */
#include "base/error.h"
#include "hnsw/hnsw_inside.h"

enum { FOLLOWED = 1, MORE_MIN = 4, MORE_SHARE = 4, PIECE = KITH_CODE_ROWS_UNIT };

static size_t live_among(const kith_walker *walker, size_t count) {
    size_t live = 0;
    for (size_t i = 0; i < kith_min_size(count, walker->pool_count); i++)
        live += !kith_hnsw_is_dead(walker->graph, kith_pool_node(walker->pool[i]));
    return live;
}

kith_status kith_hnsw_walk_live(kith_walker *walker, const kith_probe *probe, size_t ef, size_t k) {
    const kith_hnsw *graph = walker->graph;
    size_t kept = kith_max_size(ef, k), full = kith_hnsw_pool_capacity(graph, kept);
    size_t more = kith_max_size(MORE_MIN, ef / MORE_SHARE);
    for (;; more *= 4) {
        more = kith_min_size(more, graph->dead.count);
        walker->pool_capacity = kith_min_size(full, kept + more);
        KITH_TRY(kith_hnsw_walk(walker, probe, kith_min_size(ef + more, walker->pool_capacity)));
        if (more == graph->dead.count || kith_walker_is_spent(walker)) break;
        bool is_whole = kith_walker_ended_by_reach(walker) || live_among(walker, ef + more) >= ef;
        if (is_whole && live_among(walker, SIZE_MAX) >= k) break;
        uint64_t distances = walker->distance_count, hops = walker->hop_count;
        if (!kith_walker_has_left(walker, 2 * distances)) break; /* a wider walk that is cut short finds less */
        kith_walker_clear(walker);
        walker->distance_count = distances;
        walker->hop_count = hops;
    }
    return live_among(walker, SIZE_MAX) < k ? kith_hnsw_walk_on(walker, probe, k) : KITH_OK;
}

/* The nearest node of the pool that has not been followed; false: all have been. */
static bool next_node(kith_walker *walker, uint32_t *node) {
    for (size_t i = 0; i < walker->pool_count; i++)
        if ((walker->pool[i] & FOLLOWED) == 0) {
            *node = kith_pool_node(walker->pool[i]);
            walker->pool[i] |= FOLLOWED;
            return true;
        }
    return false;
}

/* Offers every node that no walk has met: after additions to a large graph there may be some that nothing links to. Where
 * marks may be forgotten it is the pool that tells, which has room for all that was met. */
static kith_status offer_unseen(kith_walker *walker, const kith_probe *probe) {
    for (size_t node = 0; node < walker->graph->node_count && !kith_walker_is_spent(walker); node++) {
        bool is_seen = walker->table_bits == 0 && (walker->seen[node / 32] >> (node % 32) & 1) != 0;
        if (is_seen || kith_hnsw_is_dead(walker->graph, node)) continue;
        size_t changed;
        uint32_t nodes[PIECE] = {(uint32_t)node};
        float distances[PIECE];
        kith_probe_many(probe, nodes, 1, distances);
        walker->distance_count++;
        walker->pool_count = walker->kernels->offer(walker->pool, walker->pool_count, walker->pool_capacity,
                                                    distances, nodes, 1, walker->table_bits != 0, &changed);
    }
    return KITH_OK;
}

kith_status kith_hnsw_walk_on(kith_walker *walker, const kith_probe *probe, size_t k) {
    uint32_t node;
    while (live_among(walker, SIZE_MAX) < k && !kith_walker_is_spent(walker)) {
        if (!next_node(walker, &node)) return offer_unseen(walker, probe);
        KITH_TRY(kith_hnsw_follow(walker, probe, node));
    }
    return KITH_OK;
}
