/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_packed.c: rows that hold the links of a node and the codes of those they lead to, side by side: what a hop needs
 * lies in one place and is read in one go, where codes of their own lie in as many places as there are links (Gou and
 * others, "SymphonyQG: Towards Symphonious Integration of Quantization and Graph for Approximate Nearest Neighbor
 * Search", SIGMOD 2025). A row is the links, up to a whole number of cache lines, then blocks of 32 codes in their order
 * (code.h).
 *
 * Packed rows say nothing that links and codes do not say. They are made when the links of a whole graph have been made,
 * and dropped when a few of them change: walks then go over links and codes, more slowly, and find the same, because a code
 * gives the same bits in a block as alone. So they need no care beside searches: what a view has is of its time.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "hnsw/hnsw_inside.h"
#include "index/convert.h"

enum { AHEAD_BYTES_MAX = 1024 }; /* the hardware follows a row that is longer by itself */

static size_t links_bytes(const kith_hnsw *graph) {
    return kith_round_up(graph->degree * sizeof(uint32_t), KITH_ALIGNMENT);
}

/* A bit for each dimension is worth being stored once for each link. */
bool kith_hnsw_packs(const kith_code *code) {
    return code != NULL && code->vtable->kind == KITH_CODE_RABITQ &&
           code->code_bytes == code->projected_dim / 8 + 2 * sizeof(float);
}

size_t kith_hnsw_packed_bytes(const kith_hnsw *graph) {
    return links_bytes(graph) + kith_code_blocks(graph->degree) * graph->code->block_bytes;
}

/* ---- Making ----------------------------------------------------------------------------------------------- */

static void pack_row(const kith_hnsw *graph, uint32_t node, unsigned char *out) {
    const kith_code *code = graph->code;
    const uint32_t *links = kith_hnsw_links(graph, node);
    size_t count = kith_hnsw_link_count(graph, links), own = graph->degree * sizeof *links;
    memset(out + own, 0, kith_hnsw_packed_bytes(graph) - own);
    memcpy(out, links, own);
    for (size_t i = 0; i < count && links[i] < graph->node_count; i++)
        __builtin_prefetch(kith_hnsw_row(graph, links[i]));
    unsigned char *blocks = out + links_bytes(graph);
    for (size_t i = 0; i < count && links[i] < graph->node_count; i++) /* else: of a damaged file */
        code->vtable->pack(code, kith_hnsw_row(graph, links[i]), i % KITH_BLOCK_ROWS, 1,
                           blocks + i / KITH_BLOCK_ROWS * code->block_bytes);
}

static kith_status pack_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const kith_hnsw *graph = context;
    size_t rows = kith_rows_per_item(graph->packed.item_bytes), first = item * rows;
    for (size_t v = first; v < kith_min_size(graph->node_count, first + rows); v++)
        pack_row(graph, (uint32_t)v, kith_chunks_at(&graph->packed, v));
    return KITH_OK;
}

static size_t item_count(const kith_hnsw *graph) {
    return (graph->node_count - 1) / kith_rows_per_item(graph->packed.item_bytes) + 1;
}

kith_status kith_hnsw_pack(kith_hnsw *graph, size_t threads) {
    if (!kith_hnsw_packs(graph->code) || graph->node_count == 0 || graph->packed.room > 0) return KITH_OK;
    KITH_TRY(kith_chunks_reserve(&graph->packed, graph->node_count));
    return kith_parallel_for(threads, item_count(graph), pack_item, graph); /* no item fails */
}

/* ---- Verifying -------------------------------------------------------------------------------------------- */

typedef struct comparison {
    const kith_hnsw *graph;
    unsigned char *rows; /* one per worker */
    size_t row_bytes;
} comparison;

static kith_status compare_item(void *context, size_t item, size_t worker) {
    const comparison *all = context;
    const kith_hnsw *graph = all->graph;
    unsigned char *row = all->rows + worker * all->row_bytes;
    size_t rows = kith_rows_per_item(all->row_bytes), first = item * rows;
    for (size_t v = first; v < kith_min_size(graph->node_count, first + rows); v++) {
        pack_row(graph, (uint32_t)v, row);
        if (memcmp(row, kith_chunks_at(&graph->packed, v), all->row_bytes) != 0)
            return kith_error(KITH_ERR_FORMAT, "the row of node %zu is not made of its links and their codes", v);
    }
    return KITH_OK;
}

kith_status kith_hnsw_verify_packed(const kith_hnsw *graph) {
    if (graph->packed.room == 0) return KITH_OK;
    size_t threads = kith_min_size(kith_threads_default(), item_count(graph));
    comparison all = {.graph = graph, .row_bytes = graph->packed.item_bytes};
    KITH_TRY(kith_alloc(threads, all.row_bytes, &all.rows));
    kith_status status = kith_parallel_for(threads, item_count(graph), compare_item, &all);
    kith_free(all.rows);
    return status;
}

/* ---- Walking ---------------------------------------------------------------------------------------------- */

void kith_hnsw_prefetch_packed(const kith_hnsw *graph, uint32_t node) {
    const char *row = kith_chunks_at(&graph->packed, node);
    size_t bytes = kith_min_size(graph->packed.item_bytes, AHEAD_BYTES_MAX);
    for (size_t at = 0; at < bytes; at += KITH_ALIGNMENT) __builtin_prefetch(row + at);
}

/* As kith_hnsw_link_count: what ends a row fills it up. */
static size_t count_links(const uint32_t *links, size_t degree) {
    size_t from = 0, to = degree;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (links[middle] == KITH_NO_NODE)
            to = middle;
        else
            from = middle + 1;
    }
    return from;
}

/* Those that are too far for the pool now are so for ever: only the others are marked, and looked up. */
static size_t take_near(kith_walker *walker, const uint32_t *links, size_t count) {
    const kith_hnsw *graph = walker->graph;
    size_t taken = 0;
    float worst = walker->limit;
    if (walker->pool_count == walker->pool_capacity)
        worst = fminf(worst, kith_pool_distance(walker->pool[walker->pool_capacity - 1]));
    size_t near = kith_simd()->filter_below_f32(walker->estimates, count, worst, walker->places);
    for (size_t i = 0; i < near; i++) {
        uint32_t node = links[walker->places[i]];
        if (node >= graph->node_count) continue; /* of a damaged file */
        if ((walker->seen[node / 32] >> (node % 32) & 1) != 0) continue;
        kith_walker_mark(walker, node);
        walker->fresh[taken] = node;
        walker->distances[taken++] = walker->estimates[walker->places[i]];
    }
    return taken;
}

kith_status kith_hnsw_follow_packed(kith_walker *walker, uint32_t node, size_t *changed) {
    const kith_hnsw *graph = walker->graph;
    const kith_code *code = graph->code;
    const unsigned char *row = kith_chunks_at(&graph->packed, node);
    const uint32_t *links = (const uint32_t *)(const void *)row;
    size_t count = count_links(links, graph->degree);
    code->vtable->scan(code, &walker->probe->vector, &walker->probe->side, 1, row + links_bytes(graph),
                       kith_code_blocks(count), walker->estimates, kith_hnsw_estimates_count(graph));
    walker->distance_count += count;
    size_t taken = take_near(walker, links, count);
    *changed = walker->pool_capacity;
    return taken == 0 ? KITH_OK : kith_walker_offer(walker, taken, changed);
}
