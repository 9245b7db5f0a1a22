/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_search.c: the searches: a walk for each query, queries shared out among threads.
 */
#include <string.h>

#include "base/error.h"
#include "hnsw/hnsw_inside.h"

/* A filter that allows at most one vector in so many is searched through those vectors alone. */
enum { LISTED_SHARE = 32, LISTED_MIN = 256, GROUP = 4 };

/* A search that has been opened; in the request's arena. */
typedef struct hnsw_call {
    const kith_hnsw *graph;
    const kith_search_request *request;
    kith_probe probe;             /* all but the vector and its side */
    const unsigned char *queries; /* in the type that the probe takes */
    size_t query_stride, ef;
    unsigned char *prepared; /* of a code: a query per worker */
    kith_walker *walkers;    /* request->threads of them */
    kith_topk *tops;         /* one per query */
    kith_hit_list *lists;    /* range search: one per query */
    uint32_t *listed;        /* the allowed nodes of a filter that allows few; NULL: walk */
    size_t listed_count;
} hnsw_call;

/* What becomes of the nodes that one query meets. */
typedef struct meeting {
    const hnsw_call *call;
    kith_topk *top;
    kith_hit_list *list;
} meeting;

/* ---- Opening ---------------------------------------------------------------------------------------------- */

/* Queries as f32, one after the other. */
static kith_status convert_queries(hnsw_call *call) {
    const kith_view *view = &call->request->queries;
    size_t dim = view->dim;
    float *converted;
    KITH_TRY(kith_arena_take(call->request->arena, view->count, dim * sizeof *converted, &converted));
    for (size_t q = 0; q < view->count; q++)
        kith_exact_to_f32((const char *)view->data + q * view->stride, view->dtype, dim, converted + q * dim);
    call->queries = (const unsigned char *)converted;
    call->query_stride = dim * sizeof *converted;
    return KITH_OK;
}

/* For codes: normalised under cosine, and projected. */
static kith_status project_queries(hnsw_call *call) {
    const kith_code *code = call->graph->code;
    size_t count = call->request->queries.count;
    kith_arena *arena = call->request->arena;
    float *projected;
    KITH_TRY(convert_queries(call));
    kith_hnsw_normalise(call->graph, (float *)(uintptr_t)call->queries, count);
    if (code->vtable->project == NULL) return KITH_OK;
    KITH_TRY(kith_arena_take(arena, count, code->projected_dim * sizeof *projected, &projected));
    KITH_TRY(kith_code_project_queries(code, (const float *)(const void *)call->queries, count,
                                       call->request->threads, arena, projected));
    call->queries = (const unsigned char *)projected;
    call->query_stride = code->projected_dim * sizeof *projected;
    return KITH_OK;
}

/* Queries of the stored integer type are used where they lie; others are, or become, f32. */
static kith_status take_queries(hnsw_call *call) {
    const kith_view *view = &call->request->queries;
    if (call->graph->code != NULL) {
        call->probe = kith_probe_query(call->graph, KITH_F32);
        return project_queries(call);
    }
    call->queries = view->data;
    call->query_stride = view->stride;
    call->probe = kith_probe_query(call->graph, view->dtype == call->graph->base.dtype ? view->dtype : KITH_F32);
    if (view->dtype == KITH_F32 || call->probe.ints != NULL) return KITH_OK;
    call->probe = kith_probe_query(call->graph, KITH_F32);
    return convert_queries(call);
}

static kith_status take_walker(const hnsw_call *call, size_t pool_capacity, kith_walker *walker) {
    const kith_hnsw *graph = call->graph;
    kith_arena *arena = call->request->arena;
    size_t words = kith_walk_seen_words(graph->node_count), fresh = kith_walk_fresh_count(graph);
    *walker = (kith_walker){.graph = graph,
                            .kernels = &kith_simd()->graph,
                            .filter = kith_simd()->filter_below_f32,
                            .pool_capacity = pool_capacity,
                            .distances_max = call->request->params->max_distances};
    KITH_TRY(kith_arena_take(arena, words, sizeof *walker->seen, &walker->seen));
    KITH_TRY(kith_arena_take(arena, words + 1, sizeof *walker->touched, &walker->touched));
    KITH_TRY(kith_arena_take(arena, kith_walk_pool_count(pool_capacity), sizeof *walker->pool, &walker->pool));
    KITH_TRY(kith_arena_take(arena, fresh, sizeof *walker->near, &walker->near));
    KITH_TRY(kith_arena_take(arena, fresh, sizeof *walker->fresh, &walker->fresh));
    KITH_TRY(kith_arena_take(arena, fresh, sizeof *walker->distances, &walker->distances));
    memset(walker->seen, 0, words * sizeof *walker->seen);
    return KITH_OK;
}

static kith_status open_call(hnsw_call *call, const kith_index *index, const kith_search_request *request) {
    *call = (hnsw_call){.graph = kith_hnsw_of_const(index), .request = request};
    KITH_TRY(take_queries(call));
    size_t ef = request->params->ef != 0 ? request->params->ef : KITH_HNSW_EF_DEFAULT;
    call->ef = kith_min_size(ef, index->count);
    size_t workers = kith_min_size(request->threads, request->queries.count);
    KITH_TRY(kith_arena_take(request->arena, request->threads, sizeof *call->walkers, &call->walkers));
    if (call->graph->code != NULL)
        KITH_TRY(kith_arena_take(request->arena, workers, call->graph->code->query_bytes, &call->prepared));
    for (size_t w = 0; w < workers; w++)
        KITH_TRY(take_walker(call, kith_max_size(call->ef, request->k), &call->walkers[w]));
    return KITH_OK;
}

/* ---- Filters that allow few ------------------------------------------------------------------------------- */

static bool list_node(void *context, int64_t id) {
    hnsw_call *call = context;
    uint64_t node;
    if (kith_idlist_find_one(&call->graph->ids, id, &node)) call->listed[call->listed_count++] = (uint32_t)node;
    return true;
}

static kith_status list_allowed(hnsw_call *call) {
    const kith_filter *filter = call->request->filter;
    size_t few = kith_max_size(LISTED_MIN, call->graph->base.count / LISTED_SHARE);
    if (filter == NULL || !kith_idlist_can_find(&call->graph->ids)) return KITH_OK;
    uint64_t allowed = kith_filter_allowed_max(filter);
    if (allowed > few) return KITH_OK;
    KITH_TRY(kith_arena_take(call->request->arena, (size_t)allowed + GROUP, sizeof *call->listed, &call->listed));
    kith_filter_visit(filter, list_node, call);
    return KITH_OK;
}

/* ---- One query -------------------------------------------------------------------------------------------- */

static kith_status keep(const meeting *met, uint32_t node, float distance) {
    const hnsw_call *call = met->call;
    int32_t key = kith_key_f32(distance);
    if (met->top != NULL) {
        if (key > met->top->key_max) return KITH_OK;
    } else {
        float radius = call->request->radius;
        if (!(distance <= (call->graph->base.metric == KITH_L2 ? radius : -radius))) return KITH_OK;
    }
    int64_t id = kith_idlist_get(&call->graph->ids, node);
    if (met->top != NULL) {
        kith_topk_push(met->top, key, id, node);
        return KITH_OK;
    }
    kith_hit_list *list = met->list;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity != 0 ? 2 * list->capacity : 16;
        KITH_TRY(kith_realloc(&list->hits, list->count, capacity, sizeof *list->hits));
        list->capacity = capacity;
    }
    list->hits[list->count++] = (kith_hit){id, key, node};
    return KITH_OK;
}

/* The seam of filters: a node that a walk has met may be kept where it is allowed. */
static kith_status meet(void *context, uint32_t node, float distance) {
    const meeting *met = context;
    const kith_filter *filter = met->call->request->filter;
    if (met->top != NULL && kith_key_f32(distance) > met->top->key_max) return KITH_OK;
    if (filter != NULL && !kith_filter_allow_fn(filter)(filter, kith_idlist_get(&met->call->graph->ids, node)))
        return KITH_OK;
    return keep(met, node, distance);
}

static kith_status search_listed(const hnsw_call *call, kith_walker *walker, const kith_probe *probe,
                                 const meeting *met) {
    size_t count = call->listed_count;
    if (walker->distances_max != 0 && walker->distances_max < count) count = (size_t)walker->distances_max;
    for (size_t i = 0; i < count; i += GROUP) {
        size_t group = kith_min_size(GROUP, count - i);
        uint32_t nodes[GROUP];
        float distances[GROUP];
        memcpy(nodes, call->listed + i, group * sizeof *nodes);
        kith_probe_many(probe, nodes, group, distances);
        for (size_t j = 0; j < group; j++) KITH_TRY(keep(met, nodes[j], distances[j]));
    }
    return KITH_OK;
}

static kith_probe probe_of(const hnsw_call *call, size_t query, size_t worker) {
    kith_probe probe = call->probe;
    probe.vector = call->queries + query * call->query_stride;
    const kith_code *code = call->graph->code;
    if (code != NULL) {
        const float *vector = probe.vector;
        void *prepared = call->prepared + worker * code->query_bytes;
        code->vtable->prepare(code, vector, prepared);
        probe.vector = prepared;
        probe.side = kith_code_base(code, vector, NULL);
        return probe;
    }
    if (call->graph->base.metric == KITH_COSINE)
        probe.side = kith_exact_inverse_norm(probe.vector, probe.ints != NULL ? call->graph->base.dtype : KITH_F32,
                                             call->graph->base.dim);
    return probe;
}

static kith_status search_query(void *context, size_t query, size_t worker) {
    const hnsw_call *call = context;
    const kith_search_request *request = call->request;
    kith_walker *walker = &call->walkers[worker];
    kith_probe probe = probe_of(call, query, worker);
    meeting met = {.call = call, .top = &call->tops[query]};
    kith_walker_clear(walker);
    if (call->listed != NULL) {
        KITH_TRY(search_listed(call, walker, &probe, &met));
    } else {
        walker->met = request->filter != NULL ? meet : NULL;
        walker->met_context = &met;
        KITH_TRY(kith_hnsw_walk(walker, &probe, call->ef));
        for (size_t i = 0; request->filter == NULL && i < kith_min_size(request->k, walker->pool_count); i++)
            KITH_TRY(keep(&met, kith_pool_node(walker->pool[i]), kith_pool_distance(walker->pool[i])));
    }
    return kith_meter_add(request->meter, call->graph->base.count);
}

/* A range search walks to the query, and then follows every hit until there are no new ones. */
static kith_status range_query(void *context, size_t query, size_t worker) {
    const hnsw_call *call = context;
    kith_walker *walker = &call->walkers[worker];
    kith_probe probe = probe_of(call, query, worker);
    meeting met = {.call = call, .list = &call->lists[query]};
    kith_walker_clear(walker);
    if (call->listed != NULL) {
        KITH_TRY(search_listed(call, walker, &probe, &met));
    } else {
        walker->met = meet;
        walker->met_context = &met;
        KITH_TRY(kith_hnsw_walk(walker, &probe, call->ef));
        for (size_t i = 0; i < met.list->count; i++)
            KITH_TRY(kith_hnsw_follow(walker, &probe, met.list->hits[i].row));
    }
    return kith_meter_add(call->request->meter, call->graph->base.count);
}

/* ---- Both searches ---------------------------------------------------------------------------------------- */

static float value_of(const void *context, int32_t key) {
    const kith_hnsw *graph = context;
    float value = kith_key_to_f32(key);
    return graph->base.metric == KITH_L2 ? value : 0.0f - value;
}

kith_status kith_hnsw_search(const kith_index *index, const kith_search_request *request,
                             const kith_search_results *results) {
    hnsw_call call;
    KITH_TRY(open_call(&call, index, request));
    KITH_TRY(list_allowed(&call));
    size_t query_count = request->queries.count, capacity = kith_topk_capacity(request->k), all;
    kith_hit *hits;
    if (kith_mul_overflows(query_count, capacity, &all))
        return kith_error(KITH_ERR_OVERFLOW, "search: %zu queries with k = %zu", query_count, request->k);
    KITH_TRY(kith_arena_take(request->arena, query_count, sizeof *call.tops, &call.tops));
    KITH_TRY(kith_arena_take(request->arena, all, sizeof *hits, &hits));
    for (size_t q = 0; q < query_count; q++) kith_topk_init(&call.tops[q], hits + q * capacity, request->k);
    KITH_TRY(kith_parallel_for(request->threads, query_count, search_query, &call));
    return kith_search_emit(index, request, results, call.tops, value_of, call.graph);
}

kith_status kith_hnsw_range_search(const kith_index *index, const kith_search_request *request,
                                   kith_range_lists *lists) {
    hnsw_call call;
    KITH_TRY(open_call(&call, index, request));
    KITH_TRY(list_allowed(&call));
    call.lists = lists->lists;
    lists->value = value_of;
    lists->context = call.graph;
    return kith_parallel_for(request->threads, request->queries.count, range_query, &call);
}
