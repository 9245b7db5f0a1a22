/* SPDX-License-Identifier: Apache-2.0
 *
 * graph.h: what a walk along the links of a graph does beside distances, a part of the kernel table.
 *
 * A pool is an array of entries, the nearest first: the key of a distance in the upper half, the number of a node
 * and a bit below it that is the walk's own in the lower one. Places that are not in use hold KITH_POOL_NOTHING, up to
 * the next multiple of KITH_POOL_UNIT behind its capacity.
 */
#ifndef KITH_SIMD_GRAPH_H
#define KITH_SIMD_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/topk.h"

enum {
    KITH_UNSEEN_ROOM = 16, /* past the end of what unseen writes */
    KITH_POOL_UNIT = 8
};
#define KITH_POOL_NOTHING INT64_MAX

static inline int64_t kith_pool_entry(float distance, uint32_t node) {
    return (int64_t)((uint64_t)(uint32_t)kith_key_f32(distance) << 32 | (uint64_t)node << 1);
}

/* Where a table of nodes that were seen has a place for one: 2^bits places. Of 2^bits numbers from a multiple of that on
 * no two share one. */
static inline uint32_t kith_seen_place(uint32_t node, unsigned bits) {
    return (node ^ node >> bits) & (((uint32_t)1 << bits) - 1);
}

typedef struct kith_graph_kernels {
    /* Writes those of `count` node numbers that are below node_count and whose bit in `seen` (bit v % 32 of word
     * v / 32) is not set, in their order, and returns how many. `fresh` has room for count + KITH_UNSEEN_ROOM. */
    size_t (*unseen)(const uint32_t *seen, const uint32_t *nodes, size_t count, uint32_t node_count,
                     uint32_t *fresh);
    /* The same by a table of those seen last: ~node at the place of each node, 0 where there is none. A node that was
     * seen counts as new again once another has got its place. */
    size_t (*forgotten)(const uint32_t *table, unsigned bits, const uint32_t *nodes, size_t count,
                        uint32_t node_count, uint32_t *fresh);
    /* Keeps the `capacity` nearest of the `count` entries that are there and of `offered` nodes. may_repeat: some of
     * these may be there, or be offered twice, at the same distance, and are passed over then; if not, none is. Returns how
     * many entries there are then and, in *first, a place before which nothing has changed. The pool is at a multiple of
     * 64 bytes. */
    size_t (*offer)(int64_t *pool, size_t count, size_t capacity, const float *distances, const uint32_t *nodes,
                    size_t offered, bool may_repeat, size_t *first);
} kith_graph_kernels;

#endif
