/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_remove.c: nodes that go: removed, or replaced by new vectors. A node is marked, which is all that can be seen of
 * it; once one in so many is, the graph is repaired in the same call. What may fail happens before the first mark. The
 * repair may fail too: then the marks stay, nothing is lost, and the next change tries again.
 */
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "hnsw/hnsw_inside.h"

/* One node in so many may be a removed one. */
enum { REPAIR_SHARE = 16, ROOM_SHARE = 8 };

/* ---- Finding ---------------------------------------------------------------------------------------------- */

bool kith_hnsw_find_one(const kith_hnsw *graph, int64_t id, uint64_t *node) {
    return kith_idlist_find_one(&graph->ids, id, node) && !kith_hnsw_is_dead(graph, (size_t)*node);
}

kith_status kith_hnsw_find(const kith_hnsw *graph, const int64_t *ids, size_t count, uint64_t *nodes) {
    KITH_TRY(kith_idlist_find(&graph->ids, ids, count, nodes));
    for (size_t i = 0; i < count && graph->dead_count > 0; i++)
        if (nodes[i] != KITH_IDLIST_NO_ROW && kith_hnsw_is_dead(graph, (size_t)nodes[i]))
            nodes[i] = KITH_IDLIST_NO_ROW;
    return KITH_OK;
}

/* ---- Marking ---------------------------------------------------------------------------------------------- */

typedef struct removal {
    uint64_t *nodes; /* of each id, or KITH_IDLIST_NO_ROW */
    size_t count;
    uint64_t *dead; /* the graph's bits with more room; NULL: they have enough */
    size_t room;
} removal;

static void drop_removal(removal *plan) {
    kith_free(plan->nodes);
    kith_free(plan->dead);
}

/* All that may fail. `added`: nodes that come before the marks are made. */
static kith_status plan_removal(const kith_hnsw *graph, const int64_t *ids, size_t count, size_t added,
                                removal *plan) {
    *plan = (removal){.count = count, .room = graph->node_count};
    if (kith_add_overflows(plan->room, added, &plan->room))
        return kith_error(KITH_ERR_OVERFLOW, "update: %zu vectors of %zu", added, graph->node_count);
    kith_status status;
    KITH_GO(kith_alloc(count, sizeof *plan->nodes, &plan->nodes));
    KITH_GO(kith_hnsw_find(graph, ids, count, plan->nodes));
    if (plan->room <= graph->dead_room) return KITH_OK;
    plan->room += plan->room / ROOM_SHARE;
    KITH_GO(kith_alloc_zeroed(kith_bitset_words(plan->room), sizeof *plan->dead, &plan->dead));
    if (graph->dead != NULL)
        memcpy(plan->dead, graph->dead, kith_bitset_words(graph->dead_room) * sizeof *plan->dead);
done:
    if (status != KITH_OK) drop_removal(plan);
    return status;
}

/* Makes the marks. Returns how many nodes went. */
static size_t carry_out(kith_hnsw *graph, removal *plan) {
    size_t before = graph->dead_count;
    if (plan->dead != NULL) {
        uint64_t *old = graph->dead;
        graph->dead = plan->dead;
        graph->dead_room = plan->room;
        plan->dead = old;
    }
    for (size_t i = 0; i < plan->count; i++) {
        size_t node = (size_t)plan->nodes[i];
        if (plan->nodes[i] == KITH_IDLIST_NO_ROW || kith_hnsw_is_dead(graph, node)) continue;
        kith_bitset_set(graph->dead, node);
        graph->dead_count++;
    }
    graph->base.count -= graph->dead_count - before;
    return graph->dead_count - before;
}

static void repair_when_due(kith_hnsw *graph) {
    if (graph->base.count == 0)
        kith_hnsw_reset(&graph->base);
    else if (graph->dead_count > graph->node_count / REPAIR_SHARE)
        (void)kith_hnsw_repair(graph);
}

/* ---- The calls -------------------------------------------------------------------------------------------- */

kith_status kith_hnsw_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed) {
    kith_hnsw *graph = kith_hnsw_of(index);
    removal plan;
    *removed = 0;
    if (index->count == 0) return KITH_OK;
    KITH_TRY(plan_removal(graph, ids, count, 0, &plan));
    *removed = carry_out(graph, &plan);
    for (size_t i = 0; i < count; i++)
        if (plan.nodes[i] != KITH_IDLIST_NO_ROW) kith_idlist_forget(&graph->ids, ids[i]);
    drop_removal(&plan);
    if (*removed > 0) repair_when_due(graph);
    return KITH_OK;
}

/* The new vectors come in first, beside the old ones. */
static kith_status replace(kith_hnsw *graph, const kith_addition *addition, const char *what, bool all_there,
                           size_t *replaced) {
    removal plan;
    size_t count = addition->view.count;
    KITH_TRY(plan_removal(graph, addition->ids, count, count, &plan));
    kith_status status = KITH_OK;
    for (size_t i = 0; i < count && all_there && status == KITH_OK; i++)
        if (plan.nodes[i] == KITH_IDLIST_NO_ROW)
            status = kith_error(KITH_ERR_NOT_FOUND, "%s: id %lld is not in the index", what,
                                (long long)addition->ids[i]);
    if (status == KITH_OK) status = kith_hnsw_append(graph, addition);
    if (status == KITH_OK) *replaced = carry_out(graph, &plan);
    drop_removal(&plan);
    if (status == KITH_OK && *replaced > 0) repair_when_due(graph);
    return status;
}

kith_status kith_hnsw_holds(const kith_index *index, const int64_t *ids, size_t count, bool *held) {
    uint64_t *nodes;
    KITH_TRY(kith_alloc(count, sizeof *nodes, &nodes));
    kith_status status = kith_hnsw_find(kith_hnsw_of_const(index), ids, count, nodes);
    for (size_t i = 0; i < count && status == KITH_OK; i++) held[i] = nodes[i] != KITH_IDLIST_NO_ROW;
    kith_free(nodes);
    return status;
}

kith_status kith_hnsw_upsert(kith_index *index, const kith_addition *addition, size_t *replaced) {
    return replace(kith_hnsw_of(index), addition, "upsert", false, replaced);
}

kith_status kith_hnsw_update(kith_index *index, const kith_view *vectors, const int64_t *ids) {
    size_t count = vectors->count, replaced;
    kith_job job;
    kith_job_init(&job);
    job.threads = kith_threads_default();
    const kith_addition addition = {
        .view = *vectors, .ids = ids, .ids_rise = kith_rises_i64(ids, count), .job = &job};
    return replace(kith_hnsw_of(index), &addition, "update", true, &replaced);
}

kith_status kith_hnsw_compact(kith_index *index) {
    kith_hnsw *graph = kith_hnsw_of(index);
    KITH_TRY(kith_hnsw_repair(graph));
    kith_chunks_trim(&graph->rows, graph->node_count, 0);
    kith_chunks_trim(&graph->side, graph->node_count, 0);
    kith_chunks_trim(&graph->links, graph->node_count, 0);
    return KITH_OK;
}
