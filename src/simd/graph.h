/* SPDX-License-Identifier: Apache-2.0
 *
 * graph.h: what a walk along the links of a graph does beside distances, a part of the kernel table.
 *
 * A pool is a sorted array of int64_t, smallest first: a key in the upper half, anything in the lower one.
 */
#ifndef KITH_SIMD_GRAPH_H
#define KITH_SIMD_GRAPH_H

#include <stddef.h>
#include <stdint.h>

enum {
    KITH_UNSEEN_ROOM = 16, /* past the end of what unseen writes */
    KITH_POOL_UNIT = 8
};

typedef struct kith_graph_kernels {
    /* Writes those of `count` node numbers that are below node_count and whose bit in `seen` (bit v % 32 of word
     * v / 32) is not set, in their order, and returns how many. `fresh` has room for count + KITH_UNSEEN_ROOM. */
    size_t (*unseen)(const uint32_t *seen, const uint32_t *nodes, size_t count, uint32_t node_count,
                     uint32_t *fresh);
    /* Puts an entry before the first of `count` entries that is not smaller, moves these up by one, and returns its
     * place. The pool is at a multiple of 64 bytes and has room for count + 1 entries rounded up to a multiple of
     * KITH_POOL_UNIT; what stands past the entries means nothing. */
    size_t (*insert)(int64_t *pool, size_t count, int64_t entry);
} kith_graph_kernels;

#endif
