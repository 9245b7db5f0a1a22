/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_stats.c: what the links look like: how many there are, what they lead to, and how far it is from the entries.
 * Links of a damaged mapped file that name no node count for nothing.
 */
#include "base/error.h"
#include "hnsw/hnsw_inside.h"

#define FAR_AWAY UINT32_MAX

typedef struct survey {
    const kith_hnsw *graph;
    kith_graph_stats *stats;
    uint32_t *in_degree, *hops, *queue; /* one for each node */
} survey;

/* The links of a node that lead somewhere: they stand before the first that does not. */
static size_t links_of(const survey *all, uint32_t node, const uint32_t **links) {
    *links = kith_hnsw_links(all->graph, node);
    size_t count = 0;
    while (count < all->graph->degree && (*links)[count] < all->graph->node_count) count++;
    return count;
}

static bool has_link(const survey *all, uint32_t from, uint32_t to) {
    const uint32_t *links;
    size_t count = links_of(all, from, &links);
    for (size_t i = 0; i < count; i++)
        if (links[i] == to) return true;
    return false;
}

static void count_links(survey *all, uint64_t *degrees, size_t capacity) {
    kith_graph_stats *stats = all->stats;
    size_t node_count = all->graph->node_count;
    for (size_t node = 0; node < node_count; node++) all->in_degree[node] = 0;
    for (size_t node = 0; node < node_count; node++) {
        const uint32_t *links;
        size_t count = links_of(all, (uint32_t)node, &links);
        stats->link_count += count;
        if (count < capacity) degrees[count]++;
        for (size_t i = 0; i < count; i++) {
            all->in_degree[links[i]]++;
            stats->mutual_count += has_link(all, links[i], (uint32_t)node);
        }
    }
}

/* Breadth first from the entries, which are no hop away. */
static void count_hops(survey *all) {
    const kith_hnsw *graph = all->graph;
    kith_graph_stats *stats = all->stats;
    size_t visited = 0;
    uint64_t hops_sum = 0;
    for (size_t node = 0; node < graph->node_count; node++) all->hops[node] = FAR_AWAY;
    for (size_t i = 0; i < graph->entry_count; i++) {
        uint32_t node = graph->entries[i];
        if (node >= graph->node_count || all->hops[node] == 0) continue;
        all->hops[node] = 0;
        all->queue[visited++] = node;
    }
    stats->entry_count = visited;
    for (size_t followed = 0; followed < visited; followed++) {
        const uint32_t *links;
        uint32_t node = all->queue[followed];
        size_t count = links_of(all, node, &links);
        hops_sum += all->hops[node];
        stats->hops_max = all->hops[node]; /* they do not fall */
        for (size_t i = 0; i < count; i++) {
            if (all->hops[links[i]] != FAR_AWAY) continue;
            all->hops[links[i]] = all->hops[node] + 1;
            all->queue[visited++] = links[i];
        }
    }
    stats->reachable_count = visited;
    stats->hops_mean = visited > 0 ? (double)hops_sum / (double)visited : 0.0;
}

kith_status kith_hnsw_graph_stats(const kith_index *index, kith_graph_stats *stats, uint64_t *degrees,
                                  size_t capacity) {
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    survey all = {.graph = graph, .stats = stats};
    size_t node_count = graph->node_count;
    kith_status status;
    stats->node_count = node_count;
    stats->degree_max = graph->degree;
    if (node_count == 0) return KITH_OK;
    KITH_GO(kith_alloc(node_count, sizeof *all.in_degree, &all.in_degree));
    KITH_GO(kith_alloc(node_count, sizeof *all.hops, &all.hops));
    KITH_GO(kith_alloc(node_count, sizeof *all.queue, &all.queue));
    count_links(&all, degrees, capacity);
    count_hops(&all);
    for (size_t node = 0; node < node_count; node++) {
        if (all.in_degree[node] > stats->in_degree_max) stats->in_degree_max = all.in_degree[node];
        stats->unlinked_count += all.in_degree[node] == 0 && all.hops[node] != 0;
    }
done:
    kith_free(all.queue);
    kith_free(all.hops);
    kith_free(all.in_degree);
    return status;
}
