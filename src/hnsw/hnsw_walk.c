/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_walk.c: the walk: follow the nearest node whose links have not been followed yet, until the ef nearest all
 * have been (best-first search: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
 * Hierarchical Navigable Small World graphs", TPAMI 2020, algorithm 2, with both of its heaps in one sorted array).
 *
 * What is waited for is memory: rows of vectors are prefetched as soon as their numbers are known, and the links of
 * the nodes that are likely to be followed next while distances are being computed.
 */
#include <string.h>

#include "base/bitset.h"
#include "base/error.h"
#include "hnsw/hnsw_inside.h"

enum { LINE = 64, PREFETCH_LINES_MAX = 8, FOLLOWED = 1 };

void kith_walker_clear(kith_walker *walker) {
    for (size_t i = 0; i < walker->touched_count; i++) walker->seen[walker->touched[i]] = 0;
    walker->touched_count = 0;
    walker->pool_count = 0;
    walker->distance_count = walker->hop_count = 0;
}

/* Marks the nodes that have not been seen and gathers them in `fresh`. Numbers past the last node, which end a row of
 * links, and which a damaged file may hold, are passed over. */
static size_t take_unseen(kith_walker *walker, const uint32_t *nodes, size_t count, size_t node_count) {
    size_t fresh = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t node = nodes[i];
        if (node >= node_count) continue;
        uint64_t word = walker->seen[node / 64], bit = (uint64_t)1 << (node % 64);
        if (word == 0) walker->touched[walker->touched_count++] = node / 64;
        walker->seen[node / 64] = word | bit;
        walker->fresh[fresh] = node;
        fresh += (word & bit) == 0;
    }
    return fresh;
}

static void prefetch_rows(const kith_walker *walker, const kith_probe *probe, size_t count) {
    size_t bytes = probe->sketch != NULL ? probe->sketch->stride : walker->graph->rows.item_bytes;
    size_t lines = kith_min_size((bytes + LINE - 1) / LINE, PREFETCH_LINES_MAX);
    for (size_t i = 0; i < count; i++) {
        const char *row = kith_probe_row(probe, walker->fresh[i]);
        for (size_t l = 0; l < lines; l++) __builtin_prefetch(row + l * LINE);
    }
}

static void prefetch_links(const kith_hnsw *graph, uint32_t node) {
    const char *links = (const char *)kith_hnsw_links(graph, node);
    for (size_t at = 0; at < graph->degree * sizeof(uint32_t); at += LINE) __builtin_prefetch(links + at);
}

/* Puts an entry in its place; returns that place. The pool is full or has room; the entry belongs into it. */
static size_t insert(kith_walker *walker, uint64_t entry) {
    uint64_t *pool = walker->pool;
    size_t first = 0, count = walker->pool_count;
    while (count > 0) {
        size_t half = count / 2;
        bool right = pool[first + half] < entry;
        first = right ? first + half + 1 : first;
        count = right ? count - half - 1 : half;
    }
    if (walker->pool_count < walker->pool_capacity) walker->pool_count++;
    memmove(pool + first + 1, pool + first, (walker->pool_count - 1 - first) * sizeof *pool);
    pool[first] = entry;
    return first;
}

/* Computes the distances of the nodes in `fresh`, and puts those into the pool that are near enough. Returns the
 * first place that changed. */
static kith_status offer(kith_walker *walker, const kith_probe *probe, size_t count, size_t *changed) {
    *changed = SIZE_MAX;
    if (count == 0) return KITH_OK;
    kith_probe_many(probe, walker->fresh, count, walker->distances);
    walker->distance_count += count;
    for (size_t i = 0; i < count; i++) {
        uint64_t entry = kith_pool_entry(walker->distances[i], walker->fresh[i]);
        if (walker->pool_count == walker->pool_capacity && entry >= walker->pool[walker->pool_count - 1]) continue;
        *changed = kith_min_size(*changed, insert(walker, entry));
    }
    if (walker->met != NULL)
        for (size_t i = 0; i < count; i++)
            KITH_TRY(walker->met(walker->met_context, walker->fresh[i], walker->distances[i]));
    return KITH_OK;
}

/* Cuts the nodes in `fresh` down to what the bound on distances leaves. Those that are cut off stay marked. */
static size_t within_bound(const kith_walker *walker, size_t count) {
    if (walker->distances_max == 0) return count;
    uint64_t left = walker->distances_max - kith_min_size(walker->distance_count, walker->distances_max);
    return left < count ? (size_t)left : count;
}

static kith_status follow(kith_walker *walker, const kith_probe *probe, uint32_t node, size_t *changed) {
    const kith_hnsw *graph = walker->graph;
    size_t count = take_unseen(walker, kith_hnsw_links(graph, node), graph->degree, graph->node_count);
    count = within_bound(walker, count);
    prefetch_rows(walker, probe, count);
    walker->hop_count++;
    return offer(walker, probe, count, changed);
}

kith_status kith_hnsw_follow(kith_walker *walker, const kith_probe *probe, uint32_t node) {
    size_t changed;
    return follow(walker, probe, node, &changed);
}

kith_status kith_hnsw_walk(kith_walker *walker, const kith_probe *probe, size_t ef) {
    const kith_hnsw *graph = walker->graph;
    size_t changed, at = 0;
    size_t count = take_unseen(walker, graph->entries, graph->entry_count, graph->node_count);
    count = within_bound(walker, count);
    prefetch_rows(walker, probe, count);
    KITH_TRY(offer(walker, probe, count, &changed));
    while (at < kith_min_size(walker->pool_count, ef)) {
        uint64_t entry = walker->pool[at];
        if ((entry & FOLLOWED) != 0) {
            at++;
            continue;
        }
        walker->pool[at] = entry | FOLLOWED;
        if (at + 1 < walker->pool_count) prefetch_links(graph, kith_pool_node(walker->pool[at + 1]));
        KITH_TRY(follow(walker, probe, kith_pool_node(entry), &changed));
        at = kith_min_size(at + 1, changed);
        if (walker->distances_max != 0 && walker->distance_count >= walker->distances_max) break;
    }
    return KITH_OK;
}
