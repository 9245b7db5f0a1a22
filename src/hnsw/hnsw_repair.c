/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_repair.c: removed nodes are taken out, many at a time, in one pass over all rows of links.
 *
 * A node that links to removed ones gets candidates in their place: the live nodes that these link to, directly or over
 * more removed ones. The nearest of them, a few for each link that is lost, are pruned together with the links that
 * are left, which are not held against each other again (after Subramanya et al., "FreshDiskANN", arXiv 2105.09613,
 * section 4.2, and Xu et al., "In-Place Updates of a Graph Index for Streaming Approximate Nearest Neighbor Search",
 * arXiv 2502.13826, which take few candidates as well). Each node writes its own row, and the rows that are read do not
 * change: the same bytes at every thread count.
 *
 * The live nodes close up, in their order, so that rising ids still rise: all of them go to new memory, which takes the
 * place of the old in one step. Searches walk over the old one until then, so that it is freed once they have ended; a
 * failure leaves it as it is.
 *
 * Where no more nodes live than were removed, ways through these say little, and rows would get short: the live nodes
 * are linked as if they had just been added, which costs no more than the others once did.
 */
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "hnsw/hnsw_inside.h"

enum {
    BEHIND_EACH = 8,    /* nodes that are looked at behind a removed one: the nearest to it */
    FOUND_SHARE = 4,    /* in all at most so many rows of links */
    FOR_EACH_LOST = 3,  /* of these, the nearest are candidates: so many for each lost link */
    CANDIDATES_MIN = 8, /* and at least so many */
    ROWS_MAX = 64,      /* removed nodes whose links one node looks at, beyond those that it links to */
    PIECE = 256,        /* nodes that a task repairs */
};
/* From one node to the next when entries are drawn: a prime larger than any graph, so that all are met. */
static const size_t entry_stride = 2654435761;

typedef struct worker {
    uint32_t *queue;      /* removed nodes to look behind: degree + ROWS_MAX */
    uint32_t *seen;       /* a bit per node */
    uint32_t *left;       /* links that are left: a row and room for a probe */
    uint32_t *found;      /* live nodes behind them, found_max and room for a probe */
    float *distances;     /* of those, or of a row of links */
    kith_candidate *kept; /* the nearest of them and the links that are left: 2 rows and more */
    kith_pruner pruner;
} worker;

typedef struct repair {
    kith_hnsw *graph;
    kith_hnsw
        next; /* the graph without its removed nodes: its rows and ids, and while links are chosen its entries by
                       the numbers that they have in `graph` */
    kith_hnsw_sketch sketch;
    size_t threads, found_max, nearest_max, live_count;
    worker *workers;
    uint32_t *numbers;        /* of each live node in `next`; KITH_NO_NODE: removed */
    uint32_t *parent, *queue; /* for kith_hnsw_connect */
} repair;

/* ---- Memory ----------------------------------------------------------------------------------------------- */

static kith_status take_worker(const repair *work, worker *mine) {
    const kith_hnsw *graph = work->graph;
    size_t row = graph->degree + KITH_WALK_ROOM, found = work->found_max + KITH_WALK_ROOM;
    KITH_TRY(kith_alloc(graph->degree + ROWS_MAX, sizeof *mine->queue, &mine->queue));
    KITH_TRY(kith_alloc_zeroed(kith_walk_seen_words(graph->node_count), sizeof *mine->seen, &mine->seen));
    KITH_TRY(kith_alloc(row, sizeof *mine->left, &mine->left));
    KITH_TRY(kith_alloc(found, sizeof *mine->found, &mine->found));
    KITH_TRY(kith_alloc(found, sizeof *mine->distances, &mine->distances));
    KITH_TRY(kith_alloc(graph->degree + work->nearest_max + 1, sizeof *mine->kept, &mine->kept));
    KITH_TRY(kith_alloc(row, sizeof(uint32_t), &mine->pruner.kept_old));
    return kith_alloc(row, sizeof(uint32_t), &mine->pruner.kept_new);
}

static void free_worker(worker *mine) {
    kith_free(mine->queue);
    kith_free(mine->seen);
    kith_free(mine->left);
    kith_free(mine->found);
    kith_free(mine->distances);
    kith_free(mine->kept);
    kith_free(mine->pruner.kept_old);
    kith_free(mine->pruner.kept_new);
}

static kith_status take_ids(repair *work) {
    const kith_hnsw *graph = work->graph;
    int64_t *ids;
    KITH_TRY(kith_alloc(work->live_count, sizeof *ids, &ids));
    kith_hnsw_list_ids(&graph->base, ids);
    const kith_new_ids all = {.ids = ids, .count = work->live_count, .rise = kith_rises_i64(ids, work->live_count)};
    kith_status status = kith_idlist_reserve(&work->next.ids, &all);
    if (status == KITH_OK) kith_idlist_append(&work->next.ids, &all);
    kith_free(ids);
    return status;
}

static void begin_next(repair *work) {
    kith_hnsw *graph = work->graph, *next = &work->next;
    *next = *graph;
    kith_chunks_init(&next->rows, graph->rows.item_bytes);
    kith_chunks_init(&next->side, graph->side.item_bytes);
    kith_chunks_init(&next->links, graph->links.item_bytes);
    kith_chunks_init(&next->packed, graph->packed.item_bytes);
    kith_idlist_init(&next->ids);
    next->node_count = work->live_count;
    next->dead = (kith_deadset){0};
    next->parents = NULL;
    next->parent_count = next->parent_room = next->parent_cursor = 0;
}

static kith_status take_next(repair *work) {
    kith_hnsw *next = &work->next;
    KITH_TRY(kith_chunks_reserve(&next->rows, work->live_count));
    if (kith_hnsw_has_side(next)) KITH_TRY(kith_chunks_reserve(&next->side, work->live_count));
    KITH_TRY(kith_chunks_reserve(&next->links, work->live_count));
    KITH_TRY(kith_alloc(work->graph->node_count, sizeof *work->numbers, &work->numbers));
    return take_ids(work);
}

static kith_status take_repair(repair *work) {
    KITH_TRY(kith_alloc_zeroed(work->threads, sizeof *work->workers, &work->workers));
    for (size_t w = 0; w < work->threads; w++) KITH_TRY(take_worker(work, &work->workers[w]));
    KITH_TRY(kith_alloc(work->live_count, sizeof *work->parent, &work->parent));
    return kith_alloc(work->live_count, sizeof *work->queue, &work->queue);
}

static void free_repair(repair *work) {
    for (size_t w = 0; work->workers != NULL && w < work->threads; w++) free_worker(&work->workers[w]);
    kith_free(work->workers);
    kith_free(work->numbers);
    kith_free(work->parent);
    kith_free(work->queue);
    kith_chunks_free(&work->next.rows);
    kith_chunks_free(&work->next.side);
    kith_chunks_free(&work->next.links);
    kith_chunks_free(&work->next.packed);
    kith_idlist_free(&work->next.ids);
    kith_hnsw_sketch_free(&work->sketch);
}

/* ---- Links ------------------------------------------------------------------------------------------------ */

static bool mark(worker *mine, uint32_t node) {
    uint32_t bit = (uint32_t)1 << (node % 32), *word = &mine->seen[node / 32];
    bool is_new = (*word & bit) == 0;
    *word |= bit;
    return is_new;
}

/* The live nodes behind the removed ones in the queue that have not been marked; marks them, and the removed ones that
 * are passed. Returns how many there are. */
static size_t look_behind(const repair *work, worker *mine, size_t *queued) {
    const kith_hnsw *graph = work->graph;
    size_t count = 0, room = *queued + ROWS_MAX;
    for (size_t at = 0; at < *queued && count < work->found_max; at++) {
        const uint32_t *links = kith_hnsw_links(graph, mine->queue[at]);
        size_t most = kith_min_size(work->found_max, count + BEHIND_EACH);
        for (size_t i = 0; i < graph->degree && links[i] != KITH_NO_NODE && count < most; i++) {
            bool is_dead = kith_hnsw_is_dead(graph, links[i]);
            if ((is_dead && *queued == room) || !mark(mine, links[i])) continue;
            if (is_dead)
                mine->queue[(*queued)++] = links[i];
            else
                mine->found[count++] = links[i];
        }
    }
    return count;
}

/* Keeps a candidate if it is among the `most` nearest; they stand in order. */
static size_t keep_nearest(kith_candidate *kept, size_t count, size_t most, kith_candidate candidate) {
    size_t at = count;
    if (count == most) {
        if (!kith_candidate_before(&candidate, &kept[count - 1])) return count;
        at--;
    } else {
        count++;
    }
    for (; at > 0 && kith_candidate_before(&candidate, &kept[at - 1]); at--) kept[at] = kept[at - 1];
    kept[at] = candidate;
    return count;
}

/* The links of a node that are left go to `left`, the others into the queue; all are marked. */
static size_t split_links(const repair *work, worker *mine, uint32_t node, size_t *queued) {
    const kith_hnsw *graph = work->graph;
    const uint32_t *links = kith_hnsw_links(graph, node);
    size_t left = 0;
    *queued = 0;
    for (size_t i = 0; i < graph->degree && links[i] != KITH_NO_NODE; i++) {
        (void)mark(mine, links[i]);
        if (kith_hnsw_is_dead(graph, links[i]))
            mine->queue[(*queued)++] = links[i];
        else
            mine->left[left++] = links[i];
    }
    return left;
}

static void unmark_all(worker *mine, const uint32_t *nodes, size_t count) {
    for (size_t i = 0; i < count; i++) mine->seen[nodes[i] / 32] &= ~((uint32_t)1 << (nodes[i] % 32));
}

/* The candidates for a node's links, in order. */
static size_t gather(const repair *work, worker *mine, uint32_t node, size_t lost, size_t left, size_t found) {
    size_t count = 0, most = kith_min_size(work->nearest_max, kith_max_size(CANDIDATES_MIN, FOR_EACH_LOST * lost));
    kith_probe probe = kith_probe_node(work->graph, node, NULL);
    if (found > 0) kith_probe_many(&probe, mine->found, found, mine->distances);
    for (size_t i = 0; i < found; i++)
        count = keep_nearest(mine->kept, count, most, (kith_candidate){mine->distances[i], mine->found[i], true});
    if (left > 0) kith_probe_many(&probe, mine->left, left, mine->distances);
    for (size_t i = 0; i < left; i++)
        count =
            keep_nearest(mine->kept, count, SIZE_MAX, (kith_candidate){mine->distances[i], mine->left[i], false});
    return count;
}

static bool has_lost(const kith_hnsw *graph, const uint32_t *links) {
    for (size_t i = 0; i < graph->degree && links[i] != KITH_NO_NODE; i++)
        if (kith_hnsw_is_dead(graph, links[i])) return true;
    return false;
}

/* Chooses the links of a node that has lost some. */
static void relink(repair *work, worker *mine, uint32_t node, uint32_t *links) {
    const kith_hnsw *graph = work->graph;
    size_t queued, lost;
    (void)mark(mine, node);
    size_t left = split_links(work, mine, node, &queued);
    lost = queued;
    size_t found = look_behind(work, mine, &queued);
    unmark_all(mine, &node, 1);
    unmark_all(mine, mine->left, left);
    unmark_all(mine, mine->queue, queued);
    unmark_all(mine, mine->found, found);
    /* Nothing is left around it: it leads back to where walks begin. */
    for (size_t i = 0; left + found == 0 && i < work->next.entry_count; i++)
        if (work->next.entries[i] != node) mine->found[found++] = work->next.entries[i];
    size_t count = gather(work, mine, node, lost, left, found);
    (void)kith_hnsw_prune(graph, &mine->pruner, mine->kept, count, links);
}

/* One live node without its links to the place that it gets. */
static void copy_node(const repair *work, uint32_t node) {
    const kith_hnsw *graph = work->graph, *next = &work->next;
    uint32_t to = work->numbers[node];
    memcpy(kith_chunks_at(&next->rows, to), kith_hnsw_row(graph, node), graph->rows.item_bytes);
    if (kith_hnsw_has_side(graph)) *(float *)kith_chunks_at(&next->side, to) = kith_hnsw_side(graph, node);
}

/* The same with its links. */
static void move_node(repair *work, worker *mine, uint32_t node) {
    const kith_hnsw *graph = work->graph, *next = &work->next;
    uint32_t *links = kith_hnsw_links(next, work->numbers[node]);
    copy_node(work, node);
    if (has_lost(graph, kith_hnsw_links(graph, node)))
        relink(work, mine, node, links);
    else
        memcpy(links, kith_hnsw_links(graph, node), graph->links.item_bytes);
    for (size_t i = 0; i < graph->degree && links[i] != KITH_NO_NODE; i++) links[i] = work->numbers[links[i]];
}

static kith_status move_piece(void *context, size_t item, size_t worker_number) {
    repair *work = context;
    size_t first = item * PIECE, last = kith_min_size(work->graph->node_count, first + PIECE);
    for (size_t node = first; node < last; node++)
        if (work->numbers[node] != KITH_NO_NODE) move_node(work, &work->workers[worker_number], (uint32_t)node);
    return KITH_OK;
}

/* ---- Entries ---------------------------------------------------------------------------------------------- */

static bool is_entry(const kith_hnsw *graph, size_t count, uint32_t node) {
    for (size_t i = 0; i < count; i++)
        if (graph->entries[i] == node) return true;
    return false;
}

/* A live node in the place of an entry: itself, or one behind it. */
static uint32_t live_entry(repair *work, worker *mine, size_t kept, uint32_t entry) {
    if (!kith_hnsw_is_dead(work->graph, entry)) return entry;
    size_t queued = 1;
    mine->queue[0] = entry;
    (void)mark(mine, entry);
    size_t found = look_behind(work, mine, &queued);
    unmark_all(mine, mine->queue, queued);
    unmark_all(mine, mine->found, found);
    for (size_t i = 0; i < found; i++)
        if (!is_entry(&work->next, kept, mine->found[i])) return mine->found[i];
    return KITH_NO_NODE;
}

/* Live entries, as many as there were if there are as many nodes; what removed ones lead to no more is drawn. */
static void replace_entries(repair *work) {
    const kith_hnsw *graph = work->graph;
    kith_hnsw *next = &work->next;
    size_t wanted = kith_min_size(graph->entry_count, work->live_count), kept = 0;
    for (size_t i = 0; i < graph->entry_count; i++) {
        uint32_t entry = live_entry(work, &work->workers[0], kept, graph->entries[i]);
        if (entry != KITH_NO_NODE && !is_entry(next, kept, entry)) next->entries[kept++] = entry;
    }
    for (size_t step = 1; kept < wanted && step <= graph->node_count; step++) {
        uint32_t node = (uint32_t)(step * entry_stride % graph->node_count);
        if (!kith_hnsw_is_dead(graph, node) && !is_entry(next, kept, node)) next->entries[kept++] = node;
    }
    next->entry_count = kept;
    next->entries_picked_at = kith_min_size(graph->entries_picked_at, work->live_count);
}

/* ---- The call --------------------------------------------------------------------------------------------- */

static void number_nodes(repair *work) {
    uint32_t count = 0;
    for (size_t node = 0; node < work->graph->node_count; node++)
        work->numbers[node] = kith_hnsw_is_dead(work->graph, node) ? KITH_NO_NODE : count++;
}

/* Room to retire what is there. */
static kith_status take_retirement(const kith_hnsw *graph) {
    size_t blocks = kith_chunks_blocks(&graph->rows) + kith_chunks_blocks(&graph->side) +
                    kith_chunks_blocks(&graph->links) + kith_chunks_blocks(&graph->packed) +
                    kith_idlist_blocks(&graph->ids) + kith_deadset_blocks(&graph->dead);
    return kith_epoch_reserve(graph->rows.epoch, blocks);
}

/* The new memory in the place of the old. What an index is, which others may ask at any time, is not written. */
static void put_next(repair *work) {
    kith_hnsw *graph = work->graph, *next = &work->next;
    kith_epoch *epoch = graph->rows.epoch;
    kith_chunks_retire(&graph->rows);
    kith_chunks_retire(&graph->side);
    kith_chunks_retire(&graph->links);
    kith_chunks_retire(&graph->packed);
    kith_idlist_retire(&graph->ids);
    kith_deadset_clear(&graph->dead, epoch);
    kith_hnsw_forget_parents(graph);
    graph->rows = next->rows;
    graph->side = next->side;
    graph->links = next->links;
    graph->packed = next->packed;
    graph->ids = next->ids;
    kith_hnsw_set_epoch(graph, epoch);
    memcpy(graph->entries, next->entries, sizeof graph->entries);
    graph->entry_count = next->entry_count;
    graph->entries_picked_at = next->entries_picked_at;
    graph->node_count = next->node_count;
    begin_next(work); /* it owns nothing any more */
}

/* All live nodes with the links that they have left, and others for those that they have lost. */
static kith_status mend(repair *work) {
    kith_hnsw *graph = work->graph, *next = &work->next;
    size_t pieces = (graph->node_count - 1) / PIECE + 1;
    work->threads = kith_min_size(kith_threads_default(), pieces);
    work->found_max = kith_max_size(FOUND_SHARE * graph->degree, KITH_HNSW_ENTRIES_MAX);
    work->nearest_max = kith_max_size(CANDIDATES_MIN, FOR_EACH_LOST * graph->degree);
    KITH_TRY(take_repair(work));
    if (graph->code != NULL) KITH_TRY(kith_hnsw_sketch_nodes(graph, work->threads, &work->sketch));
    if (work->sketch.rows != NULL) graph->sketch = &work->sketch;
    replace_entries(work);
    KITH_TRY(kith_parallel_for(work->threads, pieces, move_piece, work)); /* no piece fails */
    for (size_t i = 0; i < next->entry_count; i++) next->entries[i] = work->numbers[next->entries[i]];
    kith_hnsw_connect(next, work->parent, work->queue);
    return KITH_OK;
}

/* All live nodes, linked as if they had just been added. */
static kith_status link_anew(repair *work) {
    for (size_t node = 0; node < work->graph->node_count; node++)
        if (work->numbers[node] != KITH_NO_NODE) copy_node(work, (uint32_t)node);
    return kith_hnsw_link_anew(&work->next, kith_threads_default());
}

kith_status kith_hnsw_repair(kith_hnsw *graph) {
    if (graph->dead.count == 0) return KITH_OK;
    repair work = {.graph = graph, .live_count = graph->base.count};
    begin_next(&work);
    kith_status status;
    KITH_GO(take_next(&work));
    KITH_GO(take_retirement(graph));
    number_nodes(&work);
    KITH_GO(graph->dead.count < work.live_count ? mend(&work) : link_anew(&work));
    (void)kith_hnsw_pack(&work.next, kith_threads_default()); /* without memory for them there are none */
    put_next(&work);
done:
    graph->sketch = NULL;
    free_repair(&work);
    return status;
}
