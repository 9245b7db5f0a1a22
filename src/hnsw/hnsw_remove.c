/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_remove.c: nodes that go: removed, or replaced by new vectors. A node is marked, which is all that can be seen of
 * it; once one in so many is, the graph is repaired in the same call. What may fail happens before the first mark. The
 * repair may fail too: then the marks stay, nothing is lost, and the next change tries again.
 */
#include "base/error.h"
#include "base/sort.h"
#include "hnsw/hnsw_inside.h"
#include "index/partition.h"

/* One node in so many may be a removed one. */
enum { REPAIR_SHARE = 16 };

/* ---- Finding ---------------------------------------------------------------------------------------------- */

bool kith_hnsw_find_one(const kith_hnsw *graph, int64_t id, uint64_t *node) {
    for (size_t step = 0; kith_idlist_next(&graph->ids, id, &step, node);)
        if (*node < graph->node_count && !kith_hnsw_is_dead(graph, (size_t)*node)) return true;
    return false;
}

kith_status kith_hnsw_find(const kith_hnsw *graph, const int64_t *ids, size_t count, uint64_t *nodes) {
    if (!kith_idlist_can_find(&graph->ids)) {
        KITH_TRY(kith_idlist_scan(&graph->ids, ids, count, nodes));
        for (size_t i = 0; i < count; i++)
            if (nodes[i] != KITH_IDLIST_NO_ROW && kith_hnsw_is_dead(graph, (size_t)nodes[i]))
                nodes[i] = KITH_IDLIST_NO_ROW;
        return KITH_OK;
    }
    for (size_t i = 0; i < count; i++)
        if (!kith_hnsw_find_one(graph, ids[i], &nodes[i])) nodes[i] = KITH_IDLIST_NO_ROW;
    return KITH_OK;
}

/* ---- Marking ---------------------------------------------------------------------------------------------- */

kith_status kith_hnsw_mark_dead(kith_hnsw *graph, const uint64_t *nodes, size_t count) {
    kith_deadset dead;
    KITH_TRY(kith_deadset_plan(&graph->dead, nodes, count, graph->rows.epoch, &dead));
    kith_deadset_keep(&graph->dead, &dead, graph->rows.epoch);
    return KITH_OK;
}

typedef struct removal {
    uint64_t *nodes;   /* of each id, or KITH_IDLIST_NO_ROW */
    uint64_t *leaving; /* those that are there, rising, each once */
    size_t leaving_count;
    kith_deadset dead; /* with these */
} removal;

static void free_removal(removal *plan) {
    kith_free(plan->nodes);
    kith_free(plan->leaving);
}

/* What has not been carried out. */
static void drop_removal(const kith_hnsw *graph, removal *plan) {
    kith_deadset_drop(&graph->dead, &plan->dead);
    free_removal(plan);
}

static kith_status list_leaving(size_t count, removal *plan) {
    KITH_TRY(kith_alloc(count, 2 * sizeof *plan->leaving, &plan->leaving));
    int64_t *sorted = (int64_t *)(void *)plan->leaving; /* node numbers are far below 2^63 */
    size_t found = 0, kept = 0;
    for (size_t i = 0; i < count; i++)
        if (plan->nodes[i] != KITH_IDLIST_NO_ROW) sorted[found++] = (int64_t)plan->nodes[i];
    kith_sort_i64(sorted, found, sorted + found);
    for (size_t i = 0; i < found; i++)
        if (i == 0 || sorted[i] != sorted[i - 1]) sorted[kept++] = sorted[i];
    plan->leaving_count = kept;
    return KITH_OK;
}

/* All that may fail. */
static kith_status plan_removal(const kith_hnsw *graph, const int64_t *ids, size_t count, removal *plan) {
    kith_status status;
    *plan = (removal){0};
    KITH_GO(kith_alloc(count, sizeof *plan->nodes, &plan->nodes));
    KITH_GO(kith_hnsw_find(graph, ids, count, plan->nodes));
    KITH_GO(list_leaving(count, plan));
    KITH_GO(kith_deadset_plan(&graph->dead, plan->leaving, plan->leaving_count, graph->rows.epoch, &plan->dead));
    return KITH_OK;
done:
    free_removal(plan);
    return status;
}

/* Makes the marks. Returns how many nodes went. */
static size_t carry_out(kith_hnsw *graph, removal *plan) {
    kith_deadset_keep(&graph->dead, &plan->dead, graph->rows.epoch);
    graph->base.count -= plan->leaving_count;
    free_removal(plan);
    return plan->leaving_count;
}

/* A repair that has no memory is put off. */
static void repair_when_due(kith_hnsw *graph) {
    if (graph->base.count == 0)
        kith_hnsw_let_go(graph);
    else if (graph->dead.count > graph->node_count / REPAIR_SHARE)
        (void)kith_hnsw_repair(graph);
}

/* ---- The calls -------------------------------------------------------------------------------------------- */

kith_status kith_hnsw_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed) {
    kith_hnsw *graph = kith_hnsw_of(index);
    removal plan;
    *removed = 0;
    if (index->count == 0) return KITH_OK;
    KITH_TRY(plan_removal(graph, ids, count, &plan));
    if (plan.leaving_count == 0) {
        drop_removal(graph, &plan);
        return KITH_OK;
    }
    *removed = carry_out(graph, &plan);
    repair_when_due(graph);
    return KITH_OK;
}

/* The new vectors come in first, beside the old ones: searches have a view with both changes, or with none. */
static kith_status replace(kith_hnsw *graph, const kith_addition *addition, const char *what, bool all_there,
                           size_t *replaced) {
    removal plan;
    size_t count = addition->view.count;
    KITH_TRY(plan_removal(graph, addition->ids, count, &plan));
    kith_status status = KITH_OK;
    for (size_t i = 0; i < count && all_there && status == KITH_OK; i++)
        if (plan.nodes[i] == KITH_IDLIST_NO_ROW)
            status = kith_error(KITH_ERR_NOT_FOUND, "%s: id %lld is not in the index", what,
                                (long long)addition->ids[i]);
    if (status == KITH_OK) status = kith_hnsw_append(graph, addition);
    if (status != KITH_OK) {
        drop_removal(graph, &plan);
        return status;
    }
    *replaced = carry_out(graph, &plan);
    if (*replaced > 0) repair_when_due(graph);
    return KITH_OK;
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
    size_t replaced;
    kith_job job;
    const kith_addition addition = kith_addition_of(vectors, ids, SIZE_MAX, &job);
    return replace(kith_hnsw_of(index), &addition, "update", true, &replaced);
}

kith_status kith_hnsw_compact(kith_index *index) {
    kith_hnsw *graph = kith_hnsw_of(index);
    KITH_TRY(kith_hnsw_repair(graph));
    graph->is_live = false;
    kith_chunks_trim(&graph->rows, graph->node_count, 0);
    kith_chunks_trim(&graph->side, graph->node_count, 0);
    kith_chunks_trim(&graph->links, graph->node_count, 0);
    (void)kith_hnsw_pack(graph, kith_threads_default()); /* without memory for packed rows there are none */
    return KITH_OK;
}
