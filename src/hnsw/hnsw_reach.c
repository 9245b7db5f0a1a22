/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_reach.c: that every node can be reached from the entries.
 *
 * A node's last link from others may have been pruned away. All nodes are visited from the entries, breadth first,
 * and each one remembers from where: these links make a tree and are never given up. A node that was not visited gets
 * a link from the nearest visited node that has room for one, or one that is not of the tree to spare, and is visited
 * in its turn. Linear in the number of links, however many nodes are lost: the search for a neighbour with room looks
 * at a bounded number of them before it takes just any.
 */
#include "hnsw/hnsw_inside.h"

enum { NEIGHBOURHOOD = 64 }; /* nodes near a lost one that are asked for room */

typedef struct visit {
    kith_hnsw *graph;
    uint32_t *parent; /* of each node in the tree; KITH_NO_NODE: not visited; its own number: a root */
    uint32_t *queue;  /* nodes in the order of their visits */
    size_t visited, followed;
    size_t with_room; /* the nodes of the queue before this place have no room */
} visit;

static void visit_node(visit *all, uint32_t node, uint32_t parent) {
    all->parent[node] = parent;
    all->queue[all->visited++] = node;
}

static void visit_from_queue(visit *all) {
    const kith_hnsw *graph = all->graph;
    for (; all->followed < all->visited; all->followed++) {
        uint32_t node = all->queue[all->followed];
        const uint32_t *links = kith_hnsw_links(graph, node);
        for (size_t i = 0; i < graph->degree && links[i] != KITH_NO_NODE; i++)
            if (all->parent[links[i]] == KITH_NO_NODE) visit_node(all, links[i], node);
    }
}

/* The place in a node's row where a link may be put: the first free one, or the last that is not of the tree; the
 * degree when there is none. */
static size_t room_of(const visit *all, uint32_t node) {
    const kith_hnsw *graph = all->graph;
    const uint32_t *links = kith_hnsw_links(graph, node);
    size_t count = kith_hnsw_link_count(graph, links);
    if (count < graph->degree) return count;
    for (size_t i = count; i-- > 0;)
        if (all->parent[links[i]] != node) return i;
    return graph->degree;
}

/* Looks for room among the visited nodes near a lost one: its own links, theirs, and so on. `near` has room for
 * NEIGHBOURHOOD nodes. */
static bool find_near(const visit *all, uint32_t lost, uint32_t *near, uint32_t *found) {
    const kith_hnsw *graph = all->graph;
    size_t count = 1, degree = graph->degree;
    near[0] = lost;
    for (size_t at = 0; at < count && count < NEIGHBOURHOOD; at++) {
        const uint32_t *links = kith_hnsw_links(graph, near[at]);
        for (size_t i = 0; i < degree && links[i] != KITH_NO_NODE; i++) {
            uint32_t node = links[i];
            if (all->parent[node] == KITH_NO_NODE) continue;
            if (room_of(all, node) < degree) {
                *found = node;
                return true;
            }
            if (count < NEIGHBOURHOOD) near[count++] = node;
        }
    }
    return false;
}

/* Any visited node with room. A node that has none gets none later, and each new one of the tree brings a row: there
 * is always one. */
static uint32_t find_any(visit *all) {
    while (room_of(all, all->queue[all->with_room]) == all->graph->degree) all->with_room++;
    return all->queue[all->with_room];
}

static void attach(visit *all, uint32_t lost, uint32_t *near) {
    uint32_t from;
    if (!find_near(all, lost, near, &from)) from = find_any(all);
    kith_hnsw_links(all->graph, from)[room_of(all, from)] = lost;
    visit_node(all, lost, from);
}

void kith_hnsw_connect(kith_hnsw *graph, uint32_t *scratch, uint32_t *more_scratch) {
    visit all = {.graph = graph, .parent = scratch, .queue = more_scratch};
    size_t count = graph->node_count;
    uint32_t near[NEIGHBOURHOOD];
    for (size_t i = 0; i < count; i++) all.parent[i] = KITH_NO_NODE;
    for (size_t i = 0; i < graph->entry_count; i++)
        if (all.parent[graph->entries[i]] == KITH_NO_NODE) visit_node(&all, graph->entries[i], graph->entries[i]);
    visit_from_queue(&all);
    for (size_t i = 0; i < count; i++)
        if (all.parent[i] == KITH_NO_NODE) {
            attach(&all, (uint32_t)i, near);
            visit_from_queue(&all);
        }
}
