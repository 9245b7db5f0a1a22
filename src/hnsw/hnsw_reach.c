/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_reach.c: that every node can be reached from the entries.
 *
 * A node's last link from others may have been pruned away. All nodes are visited from the entries, breadth first,
 * and each one remembers from where: these links make a tree and are never given up. A node that was not visited gets
 * a link from the nearest visited node that has room for one, or one that is not of the tree to spare, and is visited
 * in its turn. Linear in the number of links, however many nodes are lost: the search for a neighbour with room looks
 * at a bounded number of them before it takes just any.
 *
 * So much for many new nodes. For a few, such a tree is kept from one addition to the next: pruning gives no link of it
 * up, and each new node gets its place in it. Its links should be those that pruning keeps anyway: the parent of a node
 * is the nearest of those that may be.
 */
#include "hnsw/hnsw_inside.h"

enum { NEIGHBOURHOOD = 64 }; /* nodes near a lost one that are asked for room */

/* The tree so far. */
typedef struct tree {
    kith_hnsw *graph;
    uint32_t *parent; /* of each node in the tree; KITH_NO_NODE: not in it; its own number: a root */
} tree;

/* The place in a node's row where a link may be put: the first free one, or the last that is not of the tree; the
 * degree when there is none. */
static size_t room_of(const tree *all, uint32_t node) {
    const kith_hnsw *graph = all->graph;
    const uint32_t *links = kith_hnsw_links(graph, node);
    size_t count = kith_hnsw_link_count(graph, links);
    if (count < graph->degree) return count;
    for (size_t i = count; i-- > 0;)
        if (all->parent[links[i]] != node) return i;
    return graph->degree;
}

/* Looks for room among the nodes of the tree near a lost one: its own links, theirs, and so on. */
static bool find_near(const tree *all, uint32_t lost, uint32_t *found) {
    const kith_hnsw *graph = all->graph;
    size_t count = 1, degree = graph->degree;
    uint32_t near[NEIGHBOURHOOD];
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

static void put_link(const tree *all, uint32_t from, uint32_t to) {
    kith_hnsw_put_link(all->graph, from, room_of(all, from), to);
    all->parent[to] = from;
}

/* ---- All nodes -------------------------------------------------------------------------------------------- */

typedef struct visit {
    tree tree;
    uint32_t *queue; /* nodes in the order of their visits */
    size_t visited, followed;
    size_t with_room; /* the nodes of the queue before this place have no room */
} visit;

static void visit_from_queue(visit *all) {
    const kith_hnsw *graph = all->tree.graph;
    uint32_t *parent = all->tree.parent;
    for (; all->followed < all->visited; all->followed++) {
        uint32_t node = all->queue[all->followed];
        const uint32_t *links = kith_hnsw_links(graph, node);
        for (size_t i = 0; i < graph->degree && links[i] != KITH_NO_NODE; i++) {
            if (parent[links[i]] != KITH_NO_NODE) continue;
            parent[links[i]] = node;
            all->queue[all->visited++] = links[i];
        }
    }
}

/* Any visited node with room. A node that has none gets none later, and each new one of the tree brings a row: there
 * is always one. */
static uint32_t find_any(visit *all) {
    while (room_of(&all->tree, all->queue[all->with_room]) == all->tree.graph->degree) all->with_room++;
    return all->queue[all->with_room];
}

static void attach(visit *all, uint32_t lost) {
    uint32_t from;
    if (!find_near(&all->tree, lost, &from)) from = find_any(all);
    put_link(&all->tree, from, lost);
    all->queue[all->visited++] = lost;
}

void kith_hnsw_connect(kith_hnsw *graph, uint32_t *scratch, uint32_t *more_scratch) {
    visit all = {.tree = {graph, scratch}, .queue = more_scratch};
    uint32_t *parent = scratch;
    size_t count = graph->node_count;
    for (size_t i = 0; i < count; i++) parent[i] = KITH_NO_NODE;
    for (size_t i = 0; i < graph->entry_count; i++) {
        uint32_t entry = graph->entries[i];
        if (parent[entry] != KITH_NO_NODE) continue;
        parent[entry] = entry;
        all.queue[all.visited++] = entry;
    }
    visit_from_queue(&all);
    for (size_t i = 0; i < count; i++)
        if (parent[i] == KITH_NO_NODE) {
            attach(&all, (uint32_t)i);
            visit_from_queue(&all);
        }
}

/* ---- A few ------------------------------------------------------------------------------------------------ */

/* Node numbers have 31 bits. */
#define SETTLED ((uint32_t)1 << 31)

static bool has_link(const kith_hnsw *graph, uint32_t from, uint32_t to) {
    const uint32_t *links = kith_hnsw_links(graph, from);
    for (size_t i = 0; i < graph->degree; i++)
        if (links[i] == to) return true;
    return false;
}

/* In the order of the visits each node takes the nearest of those before it that link to it: such links are short, and
 * no node has many of them. A tree of the visits' own links would fill the rows of the first nodes with them. */
void kith_hnsw_plant(kith_hnsw *graph, uint32_t *parents, uint32_t *scratch) {
    size_t count = graph->node_count;
    kith_hnsw_connect(graph, parents, scratch);
    for (size_t at = 0; at < count; at++) {
        uint32_t node = scratch[at];
        const uint32_t *links = kith_hnsw_links(graph, node);
        for (size_t i = 0; i < graph->degree && links[i] != KITH_NO_NODE && parents[node] != node; i++)
            if ((parents[links[i]] & SETTLED) != 0 && has_link(graph, links[i], node)) {
                parents[node] = links[i];
                break;
            }
        parents[node] |= SETTLED;
    }
    for (size_t i = 0; i < count; i++) parents[i] &= ~SETTLED;
}

void kith_hnsw_adopt(kith_hnsw *graph, uint32_t node) {
    const tree all = {graph, graph->parents};
    const uint32_t *links = kith_hnsw_links(graph, node);
    for (size_t i = 0; i < graph->degree && links[i] != KITH_NO_NODE; i++)
        if (has_link(graph, links[i], node)) {
            all.parent[node] = links[i];
            return;
        }
    uint32_t from;
    if (!find_near(&all, node, &from)) {
        /* Links of the tree are never given up: who has no room now gets none later. */
        while (all.parent[graph->parent_cursor] == KITH_NO_NODE ||
               room_of(&all, (uint32_t)graph->parent_cursor) == graph->degree)
            graph->parent_cursor++;
        from = (uint32_t)graph->parent_cursor;
    }
    put_link(&all, from, node);
}
