/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_add.c: new vectors, linked in batches; or at once, where there are many (hnsw_bulk.c).
 *
 * New nodes are taken in a random order, in batches that grow with the graph. For a batch, first each new node looks
 * for its links in the graph as it stands, which nobody changes meanwhile, and writes its own row, which nobody reads
 * yet. Then the reverse links are sorted by the node that they start from, and each such node takes all of its own at
 * once. So no row is ever written by two, nothing waits, and the graph depends on the vectors, their order and the
 * seed alone: the same bytes at every thread count. (Manohar et al., "ParlayANN", PPoPP 2024, section 3.)
 */
#include <string.h>

#include "base/bitset.h"
#include "base/error.h"
#include "base/random.h"
#include "base/sort.h"
#include "hnsw/hnsw_inside.h"
#include "index/idrows.h"
#include "index/live.h"

enum {
    SKETCH_MIN = 256,       /* so many new vectors are worth a sketch of all */
    SKETCH_SHARE = 4,       /* if they are at least one for so many old ones */
    BATCH_MIN = 64,         /* small graphs grow by at least so many nodes at a time, once they have them */
    BATCH_SHARE = 50,       /* and large ones by one node in so many */
    PARALLEL_NODES_MIN = 8, /* fewer new nodes are linked on the caller's thread */
    COPY_SHARE = 16,        /* one new node for so many: rows that searches read stay, and a copy is changed */
    MANY_SHARE = 8,         /* one new node for so many old ones: many. Then all are checked at the end */
    ORDER_STREAM = 0x6f72,  /* of random numbers: the order of new nodes */
    ENTRIES_STREAM = 0x656e /* and entries */
};

typedef struct worker {
    kith_walker walker;
    kith_pruner pruner;
    kith_candidate *candidates; /* as many as the pool holds, or two rows of links */
    uint32_t *row;              /* of links: before they are written */
    kith_restorer restorer;     /* of codes that have no sketch */
} worker;

typedef struct linking {
    kith_hnsw *graph;
    const kith_addition *addition;
    kith_hnsw_sketch sketch; /* of all nodes, or empty */
    size_t first, count;     /* the new nodes */
    size_t threads, batch_max;
    uint32_t *order;    /* count: the new nodes in the order in which they are linked */
    uint64_t *unpruned; /* unpruned_words for each node: see unpruned_of */
    size_t unpruned_words;
    worker *workers;
    size_t batch_first, batch_count; /* in `order` */
    int64_t *edges, *edge_scratch;   /* batch_max x degree: target << 32 | place */
    float *edge_distances;           /* by place */
    size_t edge_count;
    uint32_t *groups; /* where each target's edges begin */
    size_t group_count;
    bool keeps_parents;       /* few new nodes: the graph's tree of parents goes on */
    uint32_t *parent, *queue; /* for kith_hnsw_connect, or kith_hnsw_plant */
    kith_chunks links_before; /* where a copy of the rows of links is changed: what they are in, and stay */
    bool changes_copy;
    kith_meter meter;
} linking;

/* ---- Entries ---------------------------------------------------------------------------------------------- */

/* A node that is linked already, by its place among the old nodes and the new ones in their order; or, where all are
 * linked at once, by its number. */
static uint32_t linked_node(const linking *work, size_t place) {
    return place < work->first || work->order == NULL ? (uint32_t)place : work->order[place - work->first];
}

/* Picks entries anew, at random, once the graph has doubled. */
static void pick_entries(const linking *work) {
    kith_hnsw *graph = work->graph;
    size_t linked = work->first + work->batch_first;
    if (linked == 0 || (graph->entry_count > 0 && linked < 2 * graph->entries_picked_at)) return;
    size_t wanted = kith_min_size(linked, KITH_HNSW_ENTRIES_MAX), taken = 0;
    /* One from each of `wanted` equal parts: distinct, and the same whatever came before. */
    for (size_t i = 0; i < wanted; i++) {
        size_t from = linked * i / wanted, to = linked * (i + 1) / wanted;
        size_t place =
            from + (size_t)kith_random_below(work->addition->job->seed, ENTRIES_STREAM + linked, i, to - from);
        graph->entries[taken++] = linked_node(work, place);
    }
    graph->entry_count = taken;
    graph->entries_picked_at = linked;
}

/* ---- Forward links ---------------------------------------------------------------------------------------- */

static kith_status link_forward(void *context, size_t item, size_t worker_number) {
    const linking *work = context;
    kith_hnsw *graph = work->graph;
    worker *mine = &work->workers[worker_number];
    uint32_t node = work->order[work->batch_first + item];
    kith_probe probe = kith_probe_node(graph, node, mine->pruner.restorer);
    KITH_TRY(kith_hnsw_walk(&mine->walker, &probe, graph->options.ef_build));
    size_t count = mine->walker.pool_count;
    for (size_t i = 0; i < count; i++) {
        int64_t entry = mine->walker.pool[i];
        mine->candidates[i] = (kith_candidate){kith_pool_distance(entry), kith_pool_node(entry), true};
    }
    kith_walker_clear(&mine->walker);
    uint32_t *links = kith_hnsw_links(graph, node);
    size_t kept = kith_hnsw_prune(graph, &mine->pruner, mine->candidates, count, links);
    size_t place = item * graph->degree;
    for (size_t i = 0, c = 0; i < kept; i++) {
        while (mine->candidates[c].node != links[i]) c++;
        work->edges[place + i] = (int64_t)((uint64_t)links[i] << 32 | (place + i));
        work->edge_distances[place + i] = mine->candidates[c].distance;
    }
    for (size_t i = kept; i < graph->degree; i++) work->edges[place + i] = -1;
    return KITH_OK;
}

/* ---- Reverse links ---------------------------------------------------------------------------------------- */

/* Sorts the edges by target and finds where each target's begin. Within a target they stand in the batch's order. */
static void group_edges(linking *work) {
    size_t all = work->batch_count * work->graph->degree, count = 0;
    for (size_t i = 0; i < all; i++)
        if (work->edges[i] >= 0) work->edges[count++] = work->edges[i];
    kith_sort_i64(work->edges, count, work->edge_scratch);
    work->edge_count = count;
    work->group_count = 0;
    for (size_t i = 0; i < count; i++)
        if (i == 0 || work->edges[i] >> 32 != work->edges[i - 1] >> 32)
            work->groups[work->group_count++] = (uint32_t)i;
}

static void sort_candidates(kith_candidate *candidates, size_t count) {
    for (size_t i = 1; i < count; i++) { /* few, and the first part is in order already */
        kith_candidate moving = candidates[i];
        size_t at = i;
        for (; at > 0 && kith_candidate_before(&moving, &candidates[at - 1]); at--)
            candidates[at] = candidates[at - 1];
        candidates[at] = moving;
    }
}

/* Which of a node's links have not been held against the others. */
static uint64_t *unpruned_of(const linking *work, uint32_t node) {
    return work->unpruned + (size_t)node * work->unpruned_words;
}

static bool is_unpruned(const linking *work, uint32_t node, size_t i) {
    return work->unpruned != NULL && kith_bitset_get(unpruned_of(work, node), i);
}

/* What edge `at` leads from, and how far. */
static uint32_t source_of(const linking *work, size_t at) {
    return work->order[work->batch_first + (uint32_t)work->edges[at] / work->graph->degree];
}
static float distance_of(const linking *work, size_t at) { return work->edge_distances[(uint32_t)work->edges[at]]; }

/* The links that a node has, with their distances. */
static size_t gather_links(const linking *work, worker *mine, uint32_t node) {
    const kith_hnsw *graph = work->graph;
    const uint32_t *links = kith_hnsw_links(graph, node);
    size_t count = kith_hnsw_link_count(graph, links);
    if (count == 0) return 0;
    uint32_t *nodes = mine->walker.fresh;
    memcpy(nodes, links, count * sizeof *links);
    kith_probe probe = kith_probe_node(graph, node, mine->pruner.restorer);
    kith_probe_many(&probe, nodes, count, mine->walker.distances);
    for (size_t i = 0; i < count; i++)
        mine->candidates[i] = (kith_candidate){mine->walker.distances[i], links[i], is_unpruned(work, node, i)};
    return count;
}

/* Writes down links that all fit, and those among them that are to be pruned one day. */
static void list_links(const linking *work, uint32_t node, const kith_candidate *candidates, size_t count,
                       uint32_t *links) {
    memset(links, 0xff, work->graph->links.item_bytes);
    for (size_t i = 0; i < count; i++) {
        links[i] = candidates[i].node;
        if (work->unpruned == NULL) continue;
        if (candidates[i].is_new)
            kith_bitset_set(unpruned_of(work, node), i);
        else
            kith_bitset_clear(unpruned_of(work, node), i);
    }
}

/* How many of a node's links are no farther from it than this. Distances are taken four at a time: each time a fifth of
 * the row is left. */
static size_t count_nearer(const kith_hnsw *graph, const worker *mine, uint32_t node, size_t count,
                           float distance) {
    const uint32_t *links = kith_hnsw_links(graph, node);
    kith_probe probe = kith_probe_node(graph, node, mine->pruner.restorer);
    size_t from = 0, to = count;
    while (from < to) {
        size_t places[4];
        uint32_t nodes[4];
        float distances[4];
        for (size_t i = 0; i < 4; i++) {
            places[i] = from + (to - from) * (i + 1) / 5;
            nodes[i] = links[places[i]];
        }
        kith_probe_four(&probe, nodes, distances);
        for (size_t i = 4; i-- > 0;)
            if (distances[i] > distance) to = places[i];
        for (size_t i = 0; i < 4 && places[i] < to; i++) from = places[i] + 1;
    }
    return from;
}

/* A row of links that is full takes a new one at place `at`: what the new one covers from there on has to go, or where it
 * covers nothing the farthest. A parent keeps its children, though. Where nothing goes the row stays as it is. */
static void push_in(const linking *work, worker *mine, uint32_t node, size_t at, uint32_t source) {
    const kith_hnsw *graph = work->graph;
    const uint32_t *links = kith_hnsw_links(graph, node);
    size_t count = graph->degree - at, kept = at, farthest = 0;
    uint32_t *farther = mine->walker.fresh;
    memcpy(farther, links + at, count * sizeof *links);
    kith_probe probe = kith_probe_node(graph, node, mine->pruner.restorer);
    kith_probe_many(&probe, farther, count, mine->walker.distances);
    for (size_t i = 0; i < count; i++)
        mine->candidates[i].distance = kith_hnsw_cover_limit(graph, mine->walker.distances[i]);
    probe = kith_probe_node(graph, source, mine->pruner.restorer);
    kith_probe_many(&probe, farther, count, mine->walker.distances);
    memset(mine->row, 0xff, graph->links.item_bytes);
    memcpy(mine->row, links, at * sizeof *links);
    mine->row[kept++] = source;
    for (size_t i = 0; i < count; i++) {
        bool is_child = kith_hnsw_is_child(graph, farther[i], node);
        if (!is_child && mine->walker.distances[i] <= mine->candidates[i].distance) continue;
        if (!is_child) farthest = kept;
        if (kept < graph->degree) mine->row[kept] = farther[i];
        kept++;
    }
    if (kept > graph->degree) {
        if (farthest == 0) return;
        if (farthest < graph->degree) {
            memmove(mine->row + farthest, mine->row + farthest + 1,
                    (graph->degree - farthest - 1) * sizeof *mine->row);
            mine->row[graph->degree - 1] = farther[count - 1];
        }
    }
    kith_hnsw_put_links(graph, node, mine->row);
}

/* Where few nodes are new: puts one reverse link into its place, unless the row is full and a link before it covers it.
 * That takes a few distances, where pruning the row takes them all. */
static void settle(const linking *work, worker *mine, uint32_t node, uint32_t source, float distance) {
    const kith_hnsw *graph = work->graph;
    const uint32_t *links = kith_hnsw_links(graph, node);
    size_t count = kith_hnsw_link_count(graph, links), at = count_nearer(graph, mine, node, count, distance);
    if (count < graph->degree) {
        memcpy(mine->row, links, at * sizeof *links);
        mine->row[at] = source;
        memcpy(mine->row + at + 1, links + at, (graph->degree - at - 1) * sizeof *links);
        kith_hnsw_put_links(graph, node, mine->row);
        return;
    }
    memcpy(mine->walker.fresh, links, at * sizeof *links);
    if (at < count && !kith_hnsw_covers(graph, &mine->pruner, mine->walker.fresh, at, source, distance))
        push_in(work, mine, node, at, source);
}

/* Gives one node its reverse links, a row of them at a time. Links are pruned only when they do not fit any more, and
 * then those that were pruned together before are not held against each other again. */
static kith_status link_reverse(void *context, size_t group, size_t worker_number) {
    const linking *work = context;
    kith_hnsw *graph = work->graph;
    worker *mine = &work->workers[worker_number];
    size_t at = work->groups[group];
    size_t end = group + 1 < work->group_count ? work->groups[group + 1] : work->edge_count;
    uint32_t node = (uint32_t)(work->edges[at] >> 32);
    for (; work->keeps_parents && at < end; at++)
        settle(work, mine, node, source_of(work, at), distance_of(work, at));
    while (at < end) {
        size_t count = gather_links(work, mine, node);
        for (size_t i = 0; i < graph->degree && at < end; i++, at++)
            mine->candidates[count++] = (kith_candidate){distance_of(work, at), source_of(work, at), true};
        sort_candidates(mine->candidates, count);
        if (count <= graph->degree) {
            list_links(work, node, mine->candidates, count, mine->row);
        } else {
            kith_hnsw_prune(graph, &mine->pruner, mine->candidates, count, mine->row);
            if (work->unpruned != NULL)
                memset(unpruned_of(work, node), 0, work->unpruned_words * sizeof *work->unpruned);
        }
        kith_hnsw_put_links(graph, node, mine->row);
    }
    return KITH_OK;
}

/* ---- Memory of a call ------------------------------------------------------------------------------------- */

/* Vectors that can be held against each other as they are stored, and cheaply, need no sketch; nor do a few that come
 * to many, as a sketch is of all of them. A few codes are made queries, which are held against others. */
static bool needs_sketch(const linking *work) {
    const kith_hnsw *graph = work->graph;
    bool is_worth = work->count >= SKETCH_MIN && work->count >= work->first / SKETCH_SHARE;
    if (graph->code != NULL) return is_worth || work->first == 0;
    bool is_bytes = graph->base.dtype == KITH_U8 || graph->base.dtype == KITH_I8;
    if (graph->has_lengths) return true;
    if ((graph->base.metric == KITH_IP && !graph->is_level) || (is_bytes && graph->base.metric == KITH_L2))
        return false;
    return is_worth;
}

static bool needs_restorer(const linking *work) { return work->graph->code != NULL && !needs_sketch(work); }

/* Marks of a walk: 32 bits each, and as many again where they are listed. */
static size_t mark_words(const linking *work, unsigned *table_bits) {
    size_t total = work->first + work->count;
    *table_bits = kith_walk_table_bits(work->graph, total, work->graph->options.ef_build, 0);
    return kith_walk_mark_words(*table_bits, total);
}

static kith_status take_worker(const linking *work, worker *mine) {
    const kith_hnsw *graph = work->graph;
    unsigned bits;
    size_t words = mark_words(work, &bits), ef = graph->options.ef_build;
    size_t row = graph->degree + KITH_WALK_ROOM;
    mine->walker.graph = graph;
    mine->walker.kernels = &kith_simd()->graph;
    mine->walker.pool_capacity = ef;
    mine->walker.table_bits = bits;
    mine->walker.seen_words = bits != 0 ? words : kith_walk_few_words(words);
    KITH_TRY(kith_alloc_zeroed(words, sizeof *mine->walker.seen, &mine->walker.seen));
    if (bits == 0) KITH_TRY(kith_alloc(words + 1, sizeof *mine->walker.touched, &mine->walker.touched));
    KITH_TRY(kith_alloc(kith_walk_pool_count(ef), sizeof *mine->walker.pool, &mine->walker.pool));
    KITH_TRY(kith_alloc(kith_walk_fresh_count(graph), sizeof *mine->walker.fresh, &mine->walker.fresh));
    KITH_TRY(kith_alloc(kith_walk_fresh_count(graph), sizeof *mine->walker.rows, &mine->walker.rows));
    KITH_TRY(kith_alloc(kith_walk_fresh_count(graph), sizeof(float), &mine->walker.distances));
    KITH_TRY(kith_alloc(kith_max_size(ef, 2 * graph->degree), sizeof *mine->candidates, &mine->candidates));
    KITH_TRY(kith_alloc(row, sizeof *mine->row, &mine->row));
    KITH_TRY(kith_alloc(row, sizeof(uint32_t), &mine->pruner.kept_old));
    if (needs_restorer(work)) {
        KITH_TRY(kith_restorer_take(graph->code, &mine->restorer));
        mine->pruner.restorer = &mine->restorer;
        size_t most = kith_max_size(ef, 2 * graph->degree) + KITH_WALK_ROOM;
        KITH_TRY(kith_alloc(most, sizeof(uint32_t), &mine->pruner.left));
        KITH_TRY(kith_alloc(most, sizeof(uint32_t), &mine->pruner.places));
        KITH_TRY(kith_alloc(most, sizeof(float), &mine->pruner.distances));
    }
    return kith_alloc(row, sizeof(uint32_t), &mine->pruner.kept_new);
}

static void free_worker(worker *mine) {
    kith_free(mine->walker.seen);
    kith_free(mine->walker.touched);
    kith_free(mine->walker.pool);
    kith_free(mine->walker.fresh);
    kith_free(mine->walker.rows);
    kith_free(mine->walker.distances);
    kith_free(mine->candidates);
    kith_free(mine->row);
    kith_free(mine->pruner.kept_old);
    kith_free(mine->pruner.kept_new);
    kith_free(mine->pruner.left);
    kith_free(mine->pruner.places);
    kith_free(mine->pruner.distances);
    kith_restorer_free(&mine->restorer);
}

static void free_linking(linking *work) {
    for (size_t w = 0; work->workers != NULL && w < work->threads; w++) free_worker(&work->workers[w]);
    kith_free(work->workers);
    kith_hnsw_sketch_free(&work->sketch);
    kith_free(work->order);
    kith_free(work->unpruned);
    kith_free(work->edges);
    kith_free(work->edge_scratch);
    kith_free(work->edge_distances);
    kith_free(work->groups);
    kith_free(work->parent);
    kith_free(work->queue);
}

/* Few nodes that come to many leave nothing behind that costs as much as the graph is large: what is appended to a row
 * then counts as pruned. */
static bool is_many(const linking *work) { return work->count >= work->first / MANY_SHARE; }

/* What the call takes beside the index and what links are chosen in, in bytes: all that grows with the graph. */
static double fixed_bytes(const linking *work) {
    const kith_hnsw *graph = work->graph;
    double total = (double)(work->first + work->count);
    double row = (double)kith_round_up(graph->base.dim, KITH_ALIGNMENT) + (graph->has_lengths ? sizeof(float) : 0);
    double sketch = needs_sketch(work) ? total * row : 0;
    double before = work->changes_copy ? (double)work->first * (double)graph->links.item_bytes : 0;
    return sketch + before + total * 8;
}

/* What a budget leaves for linking many at once; 0: there is no budget. */
static double bulk_budget(const linking *work) {
    double budget = (double)work->addition->job->memory_bytes_max, fixed = fixed_bytes(work);
    return budget == 0 ? 0 : budget > fixed + 1 ? budget - fixed : 1;
}

static double scratch_bytes(const linking *work) {
    const kith_hnsw *graph = work->graph;
    double total = (double)(work->first + work->count), edges = (double)work->batch_max * (double)graph->degree;
    unsigned bits;
    double seen = (double)work->threads * (double)mark_words(work, &bits) * 8;
    double walks = seen + total * 8 * (double)work->unpruned_words + (double)work->count * 4 + edges * 24;
    if (needs_restorer(work)) walks += (double)work->threads * kith_restorer_bytes(graph->code);
    double bulk = kith_hnsw_bulk_bytes(graph, work->first, work->count, bulk_budget(work));
    return fixed_bytes(work) + (walks > bulk ? walks : bulk);
}

static kith_status check_budget(const linking *work) {
    uint64_t budget = work->addition->job->memory_bytes_max;
    double needed = scratch_bytes(work);
    if (budget == 0 || needed <= (double)budget) return KITH_OK;
    return kith_error(KITH_ERR_BUDGET, "add: linking %zu vectors needs %.0f bytes, the budget is %llu", work->count,
                      needed, (unsigned long long)budget);
}

/* Under ip vectors of unequal lengths are linked in walks where a budget does not allow to link them at once. */
static void keep_budget(const linking *work) {
    uint64_t budget = work->addition->job->memory_bytes_max;
    if (work->graph->has_lengths && budget > 0 && scratch_bytes(work) > (double)budget)
        work->graph->has_lengths = false;
}

static kith_status take_linking(linking *work) {
    kith_hnsw *graph = work->graph;
    size_t total = work->first + work->count, edges;
    if (kith_mul_overflows(work->batch_max, graph->degree, &edges)) edges = SIZE_MAX;
    KITH_TRY(kith_alloc(work->count, sizeof *work->order, &work->order));
    if (is_many(work))
        KITH_TRY(kith_alloc_zeroed(total, work->unpruned_words * sizeof *work->unpruned, &work->unpruned));
    KITH_TRY(kith_alloc(edges, sizeof *work->edges, &work->edges));
    KITH_TRY(kith_alloc(edges, sizeof *work->edges, &work->edge_scratch));
    KITH_TRY(kith_alloc(edges, sizeof *work->edge_distances, &work->edge_distances));
    KITH_TRY(kith_alloc(edges, sizeof *work->groups, &work->groups));
    KITH_TRY(kith_alloc_zeroed(work->threads, sizeof *work->workers, &work->workers));
    for (size_t w = 0; w < work->threads; w++) KITH_TRY(take_worker(work, &work->workers[w]));
    return KITH_OK;
}

/* ---- That all are reached --------------------------------------------------------------------------------- */

/* Many new nodes, or new entries: all nodes are visited afterwards. Else the tree of parents goes on, which has been
 * planted when it was not there. */
static kith_status take_reach(linking *work) {
    kith_hnsw *graph = work->graph;
    size_t total = work->first + work->count;
    work->keeps_parents = !is_many(work) && total < 2 * graph->entries_picked_at;
    if (!work->keeps_parents) {
        KITH_TRY(kith_alloc(total, sizeof *work->parent, &work->parent));
        return kith_alloc(total, sizeof *work->queue, &work->queue);
    }
    bool is_known = graph->parents != NULL && graph->parent_count == work->first;
    if (!is_known) {
        kith_hnsw_forget_parents(graph);
        KITH_TRY(kith_alloc(work->first, sizeof *work->queue, &work->queue));
    }
    if (total > graph->parent_room) {
        size_t room = total + total / MANY_SHARE;
        KITH_TRY(kith_realloc(&graph->parents, graph->parent_count, room, sizeof *graph->parents));
        graph->parent_room = room;
    }
    if (!is_known) kith_hnsw_plant(graph, graph->parents, work->queue);
    for (size_t i = work->first; i < total; i++) graph->parents[i] = KITH_NO_NODE;
    graph->parent_count = total;
    return KITH_OK;
}

static void adopt_batch(const linking *work) {
    for (size_t i = 0; work->keeps_parents && i < work->batch_count; i++)
        kith_hnsw_adopt(work->graph, work->order[work->batch_first + i]);
}

static void reach_all(linking *work) {
    if (work->keeps_parents) return;
    kith_hnsw_connect(work->graph, work->parent, work->queue);
    kith_hnsw_forget_parents(work->graph);
}

/* ---- Batches ---------------------------------------------------------------------------------------------- */

static size_t next_batch(const linking *work) {
    size_t linked = work->first + work->batch_first;
    size_t batch = kith_max_size(1, kith_min_size(linked, work->batch_max));
    return kith_min_size(batch, work->count - work->batch_first);
}

static kith_status link_batch(linking *work) {
    size_t threads = work->batch_count < PARALLEL_NODES_MIN ? 1 : work->threads;
    pick_entries(work);
    KITH_TRY(kith_parallel_for(threads, work->batch_count, link_forward, work));
    group_edges(work);
    KITH_TRY(kith_parallel_for(threads, work->group_count, link_reverse, work));
    adopt_batch(work);
    return KITH_OK;
}

static kith_status link_all(linking *work) {
    const kith_job *job = work->addition->job;
    kith_meter_init(&work->meter, job->progress, job->progress_user, "add", work->count);
    KITH_TRY(take_linking(work));
    kith_random_permutation(job->seed, ORDER_STREAM + work->first, work->count, work->order);
    for (size_t i = 0; i < work->count; i++) work->order[i] += (uint32_t)work->first;
    while (work->batch_first < work->count) {
        work->batch_count = next_batch(work);
        KITH_TRY(link_batch(work));
        work->batch_first += work->batch_count;
        KITH_TRY(kith_meter_add(&work->meter, work->batch_count));
    }
    return kith_meter_finish(&work->meter);
}

/* ---- The call --------------------------------------------------------------------------------------------- */

static kith_status check_absent(const kith_hnsw *graph, const kith_addition *addition) {
    const kith_new_ids ids = {addition->ids, addition->first_id, addition->view.count, addition->ids_rise};
    if (addition->ids_rise && kith_new_id(&ids, 0) >= graph->base.next_id) return KITH_OK;
    for (size_t i = 0; i < ids.count; i++) {
        uint64_t node;
        if (kith_hnsw_find_one(graph, kith_new_id(&ids, i), &node))
            return kith_error(KITH_ERR_EXISTS, "add: id %lld is in the index already",
                              (long long)kith_new_id(&ids, i));
    }
    return KITH_OK;
}

/* ---- Beside searches, and after a failure ------------------------------------------------------------------- */

/* Where many nodes come to few, rows of links that lead to them as well are of little use to a search that does not know
 * of them: it keeps those that were there. So does a call that may be cancelled, as what it has done must be undone, and one that
 * prunes without the tree of parents. */
static bool changes_copy(const linking *work) {
    if (work->first == 0) return false;
    if (work->first + work->count >= 2 * work->graph->entries_picked_at) return true;
    return work->count > work->first / COPY_SHARE || work->addition->job->progress != NULL;
}

/* What a call that fails has to put back beside the links. */
typedef struct before {
    uint32_t entries[KITH_HNSW_ENTRIES_MAX];
    size_t entry_count, entries_picked_at;
} before;

static void save_before(const kith_hnsw *graph, before *old) {
    memcpy(old->entries, graph->entries, sizeof old->entries);
    old->entry_count = graph->entry_count;
    old->entries_picked_at = graph->entries_picked_at;
}

/* Room for `total` rows of links, in a copy where one is changed. */
static kith_status take_links(linking *work, size_t total) {
    kith_hnsw *graph = work->graph;
    if (!work->changes_copy) return kith_chunks_reserve(&graph->links, total);
    kith_chunks copy;
    kith_chunks_init(&copy, graph->links.item_bytes);
    kith_status status;
    KITH_GO(kith_epoch_reserve(graph->links.epoch, kith_chunks_blocks(&graph->links)));
    KITH_GO(kith_chunks_reserve(&copy, total));
    KITH_GO(kith_chunks_copy(&graph->links, work->first, &copy, work->threads));
    copy.epoch = graph->links.epoch;
    work->links_before = graph->links;
    graph->links = copy;
    return KITH_OK;
done:
    kith_chunks_free(&copy);
    return status;
}

static void put_back(linking *work, const before *old) {
    kith_hnsw *graph = work->graph;
    memcpy(graph->entries, old->entries, sizeof old->entries);
    graph->entry_count = old->entry_count;
    graph->entries_picked_at = old->entries_picked_at;
    graph->node_count = work->first;
    kith_hnsw_forget_parents(graph);
    if (work->links_before.granule != NULL) {
        kith_chunks_free(&graph->links);
        graph->links = work->links_before;
    }
    kith_chunks_trim(&graph->rows, work->first, 0);
    kith_chunks_trim(&graph->side, work->first, 0);
    kith_chunks_trim(&graph->links, work->first, 0);
    kith_idlist_unreserve(&graph->ids);
}

/* Links the nodes from `first` on, whose vectors and sketches are there. */
static kith_status link_nodes(linking *work) {
    kith_hnsw *graph = work->graph;
    if (work->sketch.rows != NULL) graph->sketch = &work->sketch;
    for (size_t i = 0; i < work->count; i++)
        memset(kith_hnsw_links(graph, (uint32_t)(work->first + i)), 0xff, graph->links.item_bytes);
    graph->node_count = work->first + work->count;
    if (kith_hnsw_can_bulk(graph, work->first, work->count))
        KITH_TRY(kith_hnsw_link_bulk(graph, work->first, bulk_budget(work), work->addition->job, work->threads));
    else
        KITH_TRY(link_all(work));
    work->batch_first = work->count;
    pick_entries(work);
    reach_all(work);
    return KITH_OK;
}

static kith_status link_new(linking *work) {
    kith_hnsw_sketch *sketch = needs_sketch(work) ? &work->sketch : NULL;
    /* Behind the counts, and what may refuse a vector: so before anything that a failure would not give back. */
    KITH_TRY(kith_hnsw_store(work->graph, &work->addition->view, work->first, work->threads, sketch));
    KITH_TRY(take_reach(work));
    if (work->first > 0 && !work->changes_copy) {
        kith_chunks_retire(&work->graph->packed);
        kith_hnsw_go_live(work->graph);
    }
    return link_nodes(work);
}

/* All rows of links have been made. Without memory for packed ones there are none. */
static void pack_anew(linking *work) {
    kith_hnsw *graph = work->graph;
    kith_chunks_retire(&graph->packed);
    (void)kith_hnsw_pack(graph, work->threads);
}

/* What to link follows from the graph and the addition. */
static linking make_linking(kith_hnsw *graph, size_t first, const kith_addition *addition) {
    linking work = {.graph = graph, .addition = addition, .first = first, .count = addition->view.count};
    work.threads = kith_min_size(addition->job->threads, work.count);
    work.batch_max = kith_min_size(work.count, kith_max_size(BATCH_MIN, (first + work.count) / BATCH_SHARE));
    work.batch_max = kith_min_size(work.batch_max, UINT32_MAX / graph->degree); /* places of edges are of 32 bits */
    work.unpruned_words = (graph->degree + 63) / 64;
    return work;
}

/* Of many vectors: by what links can be chosen under ip. */
static void look_at_lengths(kith_hnsw *graph, size_t first, const kith_view *view) {
    graph->is_level = kith_hnsw_is_level(graph, first, view);
    graph->has_lengths = !graph->is_level && kith_hnsw_is_even(graph, first, view);
}

kith_status kith_hnsw_link_anew(kith_hnsw *graph, size_t threads) {
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    const kith_addition all = {.view = {.count = graph->node_count}, .job = &job};
    linking work = make_linking(graph, 0, &all);
    const kith_view none = {0};
    if (kith_hnsw_is_many(0, graph->node_count)) look_at_lengths(graph, graph->node_count, &none);
    graph->entry_count = graph->entries_picked_at = 0;
    kith_status status;
    KITH_GO(take_reach(&work));
    if (needs_sketch(&work)) KITH_GO(kith_hnsw_sketch_nodes(graph, work.threads, &work.sketch));
    KITH_GO(link_nodes(&work));
done:
    graph->sketch = NULL;
    graph->is_level = graph->has_lengths = false;
    free_linking(&work);
    return status;
}

kith_status kith_hnsw_add(kith_index *index, const kith_addition *addition) {
    kith_hnsw *graph = kith_hnsw_of(index);
    KITH_TRY(check_absent(graph, addition));
    return kith_hnsw_append(graph, addition);
}

static kith_status append(kith_hnsw *graph, const kith_addition *addition) {
    size_t count = addition->view.count, total;
    const kith_new_ids ids = {addition->ids, addition->first_id, count, addition->ids_rise};
    if (kith_add_overflows(graph->node_count, count, &total) || total > KITH_HNSW_NODES_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "add: %zu vectors to %zu; a graph holds at most %zu", count,
                          graph->node_count, KITH_HNSW_NODES_MAX);
    linking work = make_linking(graph, graph->node_count, addition);
    work.changes_copy = changes_copy(&work);
    keep_budget(&work);
    KITH_TRY(check_budget(&work));
    before old;
    kith_status status;
    save_before(graph, &old);
    KITH_GO(kith_chunks_reserve(&graph->rows, total));
    if (kith_hnsw_has_side(graph)) KITH_GO(kith_chunks_reserve(&graph->side, total));
    KITH_GO(take_links(&work, total));
    KITH_GO(kith_epoch_reserve(graph->packed.epoch, kith_chunks_blocks(&graph->packed)));
    KITH_GO(kith_idlist_reserve(&graph->ids, &ids));
    KITH_GO(link_new(&work));
    kith_chunks_retire(&work.links_before);
    if (work.first == 0 || work.changes_copy) pack_anew(&work);
    kith_idlist_append(&graph->ids, &ids);
    graph->base.count += work.count;
done:
    graph->sketch = NULL;
    if (status != KITH_OK) put_back(&work, &old);
    free_linking(&work);
    return status;
}

kith_status kith_hnsw_append(kith_hnsw *graph, const kith_addition *addition) {
    size_t first = graph->node_count;
    if (kith_hnsw_is_many(first, addition->view.count)) look_at_lengths(graph, first, &addition->view);
    kith_status status = append(graph, addition);
    graph->is_level = graph->has_lengths = false;
    return status;
}

/* An empty graph in the place of what it holds, which `old` gets. */
static void take_content(kith_hnsw *graph, kith_hnsw *old) {
    kith_epoch *epoch = graph->rows.epoch;
    kith_hnsw_forget_parents(graph);
    *old = *graph;
    kith_hnsw_set_epoch(old, NULL); /* what it has is freed directly */
    kith_chunks_init(&graph->rows, old->rows.item_bytes);
    kith_chunks_init(&graph->side, old->side.item_bytes);
    kith_chunks_init(&graph->links, old->links.item_bytes);
    kith_chunks_init(&graph->packed, old->packed.item_bytes);
    kith_idlist_init(&graph->ids);
    kith_hnsw_set_epoch(graph, epoch);
    graph->dead = (kith_deadset){0};
    graph->is_live = false;
    graph->entry_count = graph->entries_picked_at = graph->node_count = 0;
    graph->base.count = 0;
}

static void free_content(kith_hnsw *old) {
    kith_chunks_free(&old->rows);
    kith_chunks_free(&old->side);
    kith_chunks_free(&old->links);
    kith_chunks_free(&old->packed);
    kith_idlist_free(&old->ids);
    kith_deadset_clear(&old->dead, NULL);
}

void kith_hnsw_reset(kith_index *index) {
    kith_hnsw old;
    take_content(kith_hnsw_of(index), &old);
    free_content(&old);
}

void kith_hnsw_let_go(kith_hnsw *graph) {
    kith_hnsw old;
    take_content(graph, &old);
    kith_change_show_empty(&graph->base);
    free_content(&old);
}
