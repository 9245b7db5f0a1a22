/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_rows.c: rows of links that change while searches read them.
 *
 * A search has a view of the graph: a copy of the struct, with its own count of nodes, entries and removed nodes. All that
 * stays as it is as long as the view is used, but for the rows of links of nodes that are there already: a small addition
 * changes some of them in place. It does so by atomic stores of two links each, so that a search reads for every link the
 * old one or the new one. Either leads to a node, and those that its view does not count it passes over. What it has to
 * look out for is that a link which has moved within the row may be read at both places.
 *
 * Copying rows and looking for such links takes a walk a seventh more instructions. Therefore a graph begins as one
 * whose rows do not change, which walks read where they are; with the first small addition it becomes live. Searches that
 * do not know of that yet are waited for, once. Additions that are not small, and repairs, write rows that no search
 * knows of.
 */
#include <string.h>

#include "hnsw/hnsw_inside.h"
#include "index/live.h"

typedef uint64_t __attribute__((may_alias)) link_pair;
_Static_assert(KITH_ALIGNMENT % sizeof(link_pair) == 0, "rows begin at a whole pair");

static link_pair *pairs_of(const kith_hnsw *graph, uint32_t node) {
    return (link_pair *)(void *)kith_hnsw_links(graph, node);
}

void kith_hnsw_put_links(const kith_hnsw *graph, uint32_t node, const uint32_t *links) {
    link_pair *row = pairs_of(graph, node);
    for (size_t i = 0; i < graph->degree; i += 2) {
        uint64_t pair;
        memcpy(&pair, links + i, sizeof pair);
        __atomic_store_n(&row[i / 2], pair, __ATOMIC_RELAXED);
    }
}

void kith_hnsw_put_link(const kith_hnsw *graph, uint32_t node, size_t place, uint32_t link) {
    link_pair *row = pairs_of(graph, node);
    uint64_t pair = __atomic_load_n(&row[place / 2], __ATOMIC_RELAXED);
    uint32_t links[2];
    memcpy(links, &pair, sizeof links);
    links[place % 2] = link;
    memcpy(&pair, links, sizeof pair);
    __atomic_store_n(&row[place / 2], pair, __ATOMIC_RELAXED);
}

void kith_hnsw_copy_links(const kith_hnsw *graph, uint32_t node, uint32_t *copy) {
    const link_pair *row = pairs_of(graph, node);
    for (size_t i = 0; i < graph->degree; i += 2) {
        uint64_t pair = __atomic_load_n(&row[i / 2], __ATOMIC_RELAXED);
        memcpy(copy + i, &pair, sizeof pair);
    }
}

void kith_hnsw_go_live(kith_hnsw *graph) {
    if (graph->is_live || graph->links.epoch == NULL) return; /* NULL: there are no views */
    graph->is_live = true;
    kith_change_show(&graph->base);
}
