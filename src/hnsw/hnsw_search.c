/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_search.c: the searches: a walk for each query, queries shared out among threads.
 */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bitset.h"
#include "base/error.h"
#include "hnsw/hnsw_inside.h"

enum {
    GROUP = KITH_CODE_ROWS_UNIT,
    AHEAD = 2 * GROUP,
    TURNS_MAX = 8, /* walks that a thread takes in turns: while one waits for memory the other computes */
    QUERIES_PER_TASK = 32
};

/* A query under a filter that was not answered, and how many distances all passes over it have taken. */
typedef struct left_query {
    size_t query;
    uint64_t distances;
} left_query;

/* A search that has been opened; in the request's arena. */
typedef struct hnsw_call {
    const kith_hnsw *graph;
    const kith_search_request *request;
    kith_probe probe;             /* all but the vector and its side */
    const unsigned char *queries; /* in the type that the probe takes */
    size_t query_stride, ef;
    unsigned table_bits;     /* of the walkers' marks */
    size_t turns;            /* walkers per worker: more than one where walks take turns */
    bool is_packed;          /* walks go over packed rows */
    unsigned char *prepared; /* of a code: a query per walker */
    kith_walker *walkers;
    size_t queries_per_task;
    kith_hit *hits; /* k per walker, or room for a selection of k per worker */
    const kith_search_results *results;
    kith_hit_list *lists;        /* range search: one per query */
    kith_hnsw_filtered filtered; /* where there is a filter */
    kith_crosser *crossers;      /* bridged: one per walker */
    const unsigned char
        *copies;             /* listed: the rows of the allowed nodes, one after the other; NULL: where they are */
    size_t copy_bytes;       /* of one */
    const left_query *items; /* the queries of this pass; NULL: all, for the first time */
    size_t item_count;
    left_query *left; /* those that it has left for the next pass, which goes about it otherwise */
    _Atomic size_t left_count;
} hnsw_call;

/* What becomes of the nodes that one query meets. */
typedef struct meeting {
    const hnsw_call *call;
    kith_topk *top;
    kith_hit_list *list;
    size_t met_count, allowed_count; /* asked */
    bool is_left;                    /* asked: for later, */
    bool is_cut;                     /* or it would be if the bound on distances left room for that */
} meeting;

/* ---- Opening ---------------------------------------------------------------------------------------------- */

/* Queries as f32, one after the other. */
static kith_status convert_queries(hnsw_call *call, bool to_unit) {
    const kith_search_request *request = call->request;
    const float *converted;
    KITH_TRY(kith_exact_queries(&request->queries, to_unit, request->threads, request->arena, &converted));
    call->queries = (const unsigned char *)converted;
    call->query_stride = request->queries.dim * sizeof *converted;
    return KITH_OK;
}

/* For codes: normalised under cosine, and projected. */
static kith_status project_queries(hnsw_call *call) {
    const kith_code *code = call->graph->code;
    size_t count = call->request->queries.count;
    kith_arena *arena = call->request->arena;
    float *projected;
    bool to_unit = call->graph->base.metric == KITH_COSINE;
    if (code->vtable->project == NULL) return convert_queries(call, to_unit);
    KITH_TRY(convert_queries(call, false));
    KITH_TRY(kith_arena_take(arena, count, code->projected_dim * sizeof *projected, &projected));
    const float *from = (const float *)(const void *)call->queries;
    KITH_TRY((to_unit ? kith_code_project_to_unit
                      : kith_code_project_queries)(code, from, count, call->request->threads, arena, projected));
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
    return convert_queries(call, false);
}

/* Of the marks of one walker. */
static size_t seen_words(const hnsw_call *call) {
    return kith_walk_mark_words(call->table_bits, call->graph->node_count);
}

/* Where walks end before ef nodes have been followed. Codes of normalised vectors estimate inner products. */
static kith_walk_stop stop_of(const hnsw_call *call) {
    const kith_search_request *request = call->request;
    size_t percent = request->params->stop_percent;
    if (percent == 0 || request->wanted == 0) return (kith_walk_stop){0};
    return (kith_walk_stop){.rank = request->wanted,
                            .kept = request->k,
                            .share = ((float)percent - 100) / 100,
                            .zero = call->graph->base.metric == KITH_COSINE ? -1 : 0};
}

/* `seen`: marks that are all zero; NULL: some are to be made. */
static kith_status take_walker(const hnsw_call *call, size_t pool_capacity, uint32_t *seen, kith_walker *walker) {
    const kith_hnsw *graph = call->graph;
    kith_arena *arena = call->request->arena;
    size_t words = seen_words(call), fresh = kith_walk_fresh_count(graph);
    *walker = (kith_walker){.graph = graph,
                            .kernels = &kith_simd()->graph,
                            .table_bits = call->table_bits,
                            .seen_words = call->table_bits != 0 ? words : kith_walk_few_words(words),
                            .pool_capacity = pool_capacity,
                            .distances_max = call->request->params->max_distances,
                            .stop = stop_of(call),
                            .reach = INFINITY,
                            .limit = INFINITY,
                            .deadline_ns = call->request->meter->deadline_ns};
    walker->seen = seen;
    if (seen == NULL) {
        KITH_TRY(kith_arena_take(arena, words, sizeof *walker->seen, &walker->seen));
        memset(walker->seen, 0, words * sizeof *walker->seen);
    }
    if (call->table_bits == 0)
        KITH_TRY(kith_arena_take(arena, words + 1, sizeof *walker->touched, &walker->touched));
    KITH_TRY(kith_arena_take(arena, kith_walk_pool_count(pool_capacity), sizeof *walker->pool, &walker->pool));
    KITH_TRY(kith_arena_take(arena, fresh, sizeof *walker->fresh, &walker->fresh));
    KITH_TRY(kith_arena_take(arena, fresh, sizeof *walker->rows, &walker->rows));
    KITH_TRY(kith_arena_take(arena, fresh, sizeof *walker->distances, &walker->distances));
    if (graph->is_live) KITH_TRY(kith_arena_take(arena, graph->degree, sizeof *walker->copy, &walker->copy));
    if (!call->is_packed) return KITH_OK;
    KITH_TRY(kith_arena_take(arena, graph->degree, sizeof *walker->places, &walker->places));
    return kith_arena_take(arena, kith_hnsw_estimates_count(graph), sizeof *walker->estimates, &walker->estimates);
}

/* `zeros`: a bit per node and walker, all zero; NULL: they are made. */
static kith_status take_crossers(hnsw_call *call, size_t walkers, uint32_t *zeros) {
    kith_arena *arena = call->request->arena;
    size_t words = kith_walk_seen_words(call->graph->node_count);
    KITH_TRY(kith_arena_take(arena, walkers, sizeof *call->crossers, &call->crossers));
    for (size_t w = 0; w < walkers; w++)
        KITH_TRY(kith_hnsw_crosser_take(&call->filtered, arena, zeros != NULL ? zeros + w * words : NULL,
                                        &call->walkers[w], &call->crossers[w]));
    return KITH_OK;
}

/* Where only some nodes are allowed, as many more are followed. */
static size_t asked_ef(const hnsw_call *call) {
    if (call->request->filter == NULL || call->filtered.strategy != KITH_FILTERED_ASKED) return call->ef;
    return kith_min_size((size_t)((float)call->ef / call->filtered.share) + 1, call->graph->node_count);
}

static void set_turns(hnsw_call *call) {
    const kith_search_request *request = call->request;
    size_t each = (request->queries.count - 1) / request->threads + 1;
    call->queries_per_task = request->threads > 1 ? kith_min_size(QUERIES_PER_TASK, each) : each;
    call->turns = kith_min_size(call->graph->prefetch.walks, call->queries_per_task);
}

/* Walks that take turns have bits that are zero before and afterwards. */
static kith_status take_walkers(hnsw_call *call, size_t capacity, bool take_turns) {
    const kith_search_request *request = call->request;
    bool is_bridged = request->filter != NULL && call->filtered.strategy == KITH_FILTERED_BRIDGED;
    size_t walkers = kith_min_size(request->threads, request->queries.count) * call->turns;
    size_t words = seen_words(call), sets = is_bridged ? 2 : 1;
    uint32_t *zeros = NULL;
    if (take_turns) KITH_TRY(kith_arena_zeros(request->arena, sets * walkers, words * sizeof *zeros, &zeros));
    KITH_TRY(kith_arena_take(request->arena, walkers, sizeof *call->walkers, &call->walkers));
    if (call->graph->code != NULL)
        KITH_TRY(kith_arena_take(request->arena, walkers, call->graph->code->query_bytes, &call->prepared));
    for (size_t w = 0; w < walkers; w++)
        KITH_TRY(take_walker(call, capacity, zeros != NULL ? zeros + w * words : NULL, &call->walkers[w]));
    return is_bridged ? take_crossers(call, walkers, zeros != NULL ? zeros + walkers * words : NULL) : KITH_OK;
}

static kith_status open_call(hnsw_call *call, const kith_index *index, const kith_search_request *request,
                             bool is_plain) {
    *call = (hnsw_call){.graph = kith_hnsw_of_const(index), .request = request, .turns = 1};
    call->is_packed = is_plain && call->graph->packed.room > 0 && request->params->max_distances == 0;
    call->item_count = request->queries.count;
    bool take_turns = is_plain;
    KITH_TRY(take_queries(call));
    size_t ef = request->params->ef != 0 ? request->params->ef : KITH_HNSW_EF_DEFAULT;
    call->ef = kith_min_size(ef, index->count);
    if (request->filter != NULL) {
        KITH_TRY(kith_hnsw_filtered_open(call->graph, request->filter, request->params->ef, request->arena,
                                         &call->filtered));
        call->ef = call->filtered.ef;
        take_turns = request->k > 0 && call->filtered.strategy == KITH_FILTERED_BRIDGED;
    }
    if (take_turns) set_turns(call);
    if (is_plain && !call->is_packed)
        call->table_bits = kith_walk_table_bits(call->graph, call->graph->node_count, call->ef, request->k);
    size_t capacity = kith_max_size(call->ef, request->k);
    if (request->filter != NULL)
        capacity = kith_max_size(capacity, kith_max_size(asked_ef(call), KITH_FILTERED_FAR * call->ef));
    else
        capacity = kith_hnsw_pool_capacity(call->graph, capacity);
    return take_walkers(call, capacity, take_turns);
}

static float value_of(const void *context, int32_t key) {
    const kith_hnsw *graph = context;
    float value = kith_key_to_f32(key);
    return graph->base.metric == KITH_L2 ? value : 0.0f - value;
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

/* A node that a walk over allowed nodes, or over any in a range search without a filter, has met. */
static kith_status meet(void *context, uint32_t node, float distance) { return keep(context, node, distance); }

/* A node that a walk over all nodes has met: it is asked about. */
static kith_status meet_and_ask(void *context, uint32_t node, float distance) {
    meeting *met = context;
    const kith_hnsw_filtered *filtered = &met->call->filtered;
    met->met_count++;
    if (kith_hnsw_is_dead(filtered->graph, node)) return KITH_OK;
    if (!filtered->allow(filtered->filter, kith_idlist_get(&met->call->graph->ids, node))) return KITH_OK;
    met->allowed_count++;
    return keep(met, node, distance);
}

/* Compares nodes with the query, as far as the bound on distances goes. copies: see hnsw_call, or NULL. */
static kith_status search_nodes(kith_walker *walker, const kith_probe *probe, const meeting *met,
                                const uint32_t *all, size_t count, const unsigned char *copies) {
    count = kith_walker_room(walker, count);
    for (size_t i = 0; i < count && !kith_walker_is_spent(walker); i += GROUP) {
        size_t group = kith_min_size(GROUP, count - i);
        uint32_t nodes[GROUP];
        const void *rows[GROUP];
        float distances[GROUP];
        for (size_t j = i + AHEAD; copies == NULL && j < kith_min_size(count, i + AHEAD + GROUP); j++)
            __builtin_prefetch(kith_probe_row(probe, all[j]));
        memcpy(nodes, all + i, group * sizeof *nodes);
        for (size_t j = 0; j < group; j++)
            rows[j] = copies != NULL ? copies + (i + j) * met->call->copy_bytes : kith_probe_row(probe, nodes[j]);
        kith_probe_rows(probe, nodes, rows, group, distances);
        walker->distance_count += group;
        for (size_t j = 0; j < group; j++) KITH_TRY(keep(met, nodes[j], distances[j]));
    }
    return KITH_OK;
}

/* The same for all nodes whose bits are set: for a range search whose walk gives up. */
static kith_status search_bits(const hnsw_call *call, kith_walker *walker, const kith_probe *probe,
                               const meeting *met) {
    enum { WORD = 64, PIECE = 1024 };
    size_t words = kith_bitset_words(call->graph->node_count), count = 0;
    uint32_t nodes[PIECE];
    for (size_t w = 0; w < words && !kith_walker_is_spent(walker); w++) {
        for (uint64_t rest = call->filtered.allowed[w]; rest != 0; rest &= rest - 1)
            nodes[count++] = (uint32_t)(w * WORD + (size_t)__builtin_ctzll(rest));
        if (count <= PIECE - WORD && w + 1 < words) continue;
        KITH_TRY(search_nodes(walker, probe, met, nodes, count, NULL));
        count = 0;
    }
    return KITH_OK;
}

static kith_probe probe_of(const hnsw_call *call, size_t query, size_t walker) {
    kith_probe probe = call->probe;
    probe.vector = call->queries + query * call->query_stride;
    const kith_code *code = call->graph->code;
    if (code != NULL) {
        const float *vector = probe.vector;
        void *prepared = call->prepared + walker * code->query_bytes;
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

/* The k nearest live nodes of the pool. */
static kith_status keep_pool(const hnsw_call *call, const kith_walker *walker, const meeting *met) {
    size_t k = call->request->k, dead_count = call->graph->dead.count;
    for (size_t i = 0, kept = 0; kept < k && i < walker->pool_count; i++) {
        uint32_t node = kith_pool_node(walker->pool[i]);
        if (dead_count > 0 && kith_hnsw_is_dead(call->graph, node)) continue;
        KITH_TRY(keep(met, node, kith_pool_distance(walker->pool[i])));
        kept++;
    }
    return KITH_OK;
}

static kith_status search_listed(const hnsw_call *call, kith_walker *walker, const kith_probe *probe,
                                 const meeting *met) {
    return search_nodes(walker, probe, met, call->filtered.listed, call->filtered.allowed_count, call->copies);
}

/* A later pass begins anew: a query is left for it only where the bound on distances leaves enough for all of it
 * (kith_walker_has_left). What was found stands otherwise. */
static void leave(hnsw_call *call, size_t query, const kith_walker *walker) {
    uint64_t before = call->request->params->max_distances - walker->distances_max; /* in earlier passes */
    call->left[call->left_count++] = (left_query){query, before + walker->distance_count};
}

/* Around a query fewer than half as many may be allowed as elsewhere: then it is left for a bridged walk. */
static kith_status search_asked(hnsw_call *call, size_t query, kith_walker *walker, const kith_probe *probe,
                                meeting *met) {
    walker->pool_capacity = asked_ef(call);
    walker->stop.rank = 0; /* the nearest are those that the filter allows */
    walker->met = meet_and_ask;
    walker->met_context = met;
    KITH_TRY(kith_hnsw_walk(walker, probe, asked_ef(call)));
    bool is_poor = (float)met->allowed_count < (float)met->met_count * call->filtered.share / 2;
    bool wants_more = (is_poor || met->top->count < call->request->k) && !walker->is_late;
    met->is_left = wants_more && kith_walker_has_left(walker, call->graph->node_count);
    met->is_cut = wants_more && !met->is_left;
    if (met->is_left) leave(call, query, walker);
    return KITH_OK;
}

/* Without a filter, in a graph that has lost nodes. */
static kith_status search_holed(const hnsw_call *call, kith_walker *walker, const kith_probe *probe,
                                const meeting *met) {
    KITH_TRY(kith_hnsw_walk_live(walker, probe, call->ef, call->request->k));
    return keep_pool(call, walker, met);
}

/* What the walker has counted is added to the query's report. A query that ran into the deadline, or is left for later,
 * has not been answered. is_cut: it would be left but for the bound on distances. */
static void report(const hnsw_call *call, size_t query, const kith_walker *walker, bool is_left, bool is_cut) {
    if (call->request->reports == NULL) return;
    static const uint32_t strategies[] = {[KITH_FILTERED_LISTED] = KITH_STRATEGY_LISTED,
                                          [KITH_FILTERED_BRIDGED] = KITH_STRATEGY_BRIDGED,
                                          [KITH_FILTERED_ASKED] = KITH_STRATEGY_ASKED};
    kith_search_report *one = &call->request->reports[query];
    one->distances += walker->distance_count;
    one->visited = one->distances;
    one->hops += walker->hop_count;
    one->strategy = call->request->filter != NULL ? strategies[call->filtered.strategy] : KITH_STRATEGY_ALL;
    if (is_cut || (walker->distances_max != 0 && walker->distance_count >= walker->distances_max))
        one->limits |= KITH_LIMIT_DISTANCES;
    if (!walker->is_late && !is_left) kith_search_answered(call->request, query);
}

/* A query of this pass: its number, and what is left of the bound on its distances. */
static size_t begin_item(const hnsw_call *call, size_t item, kith_walker *walker) {
    if (call->items == NULL) return item;
    if (call->request->params->max_distances != 0)
        walker->distances_max = call->request->params->max_distances - call->items[item].distances;
    return call->items[item].query;
}

/* Each query counts once, with all vectors. */
static kith_status end_item(const hnsw_call *call) {
    return kith_meter_add(call->request->meter, call->items == NULL ? call->graph->base.count : 0);
}

static kith_status search_query(void *context, size_t item, size_t worker) {
    hnsw_call *call = context;
    kith_walker *walker = &call->walkers[worker];
    size_t query = begin_item(call, item, walker);
    kith_probe probe = probe_of(call, query, worker);
    kith_topk top;
    kith_topk_init(&top, call->hits + worker * kith_topk_capacity(call->request->k), call->request->k);
    meeting met = {.call = call, .top = &top};
    kith_walker_clear(walker);
    if (call->request->filter == NULL)
        KITH_TRY(search_holed(call, walker, &probe, &met));
    else if (call->filtered.strategy == KITH_FILTERED_LISTED)
        KITH_TRY(search_listed(call, walker, &probe, &met));
    else
        KITH_TRY(search_asked(call, query, walker, &probe, &met));
    kith_search_emit_query(&call->graph->base, call->results, query, &top, value_of, call->graph);
    report(call, query, walker, met.is_left, met.is_cut);
    return end_item(call);
}

/* Removed nodes among the hits have led on, and go. */
static void drop_dead(const kith_hnsw *graph, kith_hit_list *list) {
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++)
        if (!kith_hnsw_is_dead(graph, list->hits[i].row)) list->hits[kept++] = list->hits[i];
    list->count = kept;
}

/* A range search walks to the query, and then follows every hit until there are no new ones. */
static kith_status range_query(void *context, size_t query, size_t worker) {
    const hnsw_call *call = context;
    kith_walker *walker = &call->walkers[worker];
    kith_probe probe = probe_of(call, query, worker);
    meeting met = {.call = call, .list = &call->lists[query]};
    bool is_filtered = call->request->filter != NULL;
    if (call->crossers == NULL) kith_walker_clear(walker);
    walker->met = meet;
    walker->met_context = &met;
    if (is_filtered && call->filtered.strategy == KITH_FILTERED_LISTED) {
        KITH_TRY(search_listed(call, walker, &probe, &met));
    } else if (is_filtered) {
        KITH_TRY(kith_hnsw_bridged_walk(&call->crossers[worker], &probe, call->ef, 1));
        if (call->crossers[worker].gives_up) {
            met.list->count = 0; /* all are met again */
            KITH_TRY(search_bits(call, walker, &probe, &met));
            return kith_meter_add(call->request->meter, call->graph->base.count);
        }
        for (size_t i = 0; i < met.list->count && !kith_walker_is_spent(walker); i++)
            KITH_TRY(kith_hnsw_cross(&call->crossers[worker], &probe, met.list->hits[i].row));
    } else {
        KITH_TRY(kith_hnsw_walk(walker, &probe, call->ef));
        for (size_t i = 0; i < met.list->count && !kith_walker_is_spent(walker); i++)
            KITH_TRY(kith_hnsw_follow(walker, &probe, met.list->hits[i].row));
        if (call->graph->dead.count > 0) drop_dead(call->graph, met.list);
    }
    return kith_meter_add(call->request->meter, call->graph->base.count);
}

/* ---- Walks that take turns -------------------------------------------------------------------------------- */

/* A query and its walker. */
typedef struct turn {
    kith_probe probe;
    size_t query, walker;
} turn;

/* A pool is sorted by distance and node: nodes at the same distance are put into the order of their ids. */
static void emit_pool(const hnsw_call *call, const turn *own) {
    const kith_walker *walker = &call->walkers[own->walker];
    kith_hit *hits = call->hits + own->walker * call->request->k;
    size_t count = kith_min_size(call->request->k, walker->pool_count);
    for (size_t i = 0; i < count; i++) {
        uint32_t node = kith_pool_node(walker->pool[i]);
        kith_hit hit = {kith_idlist_get(&call->graph->ids, node), (int32_t)(walker->pool[i] >> 32), node};
        size_t at = i;
        for (; at > 0 && hits[at - 1].key == hit.key && hits[at - 1].id > hit.id; at--) hits[at] = hits[at - 1];
        hits[at] = hit;
    }
    kith_search_emit_hits(&call->graph->base, call->results, own->query, hits, count, value_of, call->graph);
}

static void begin_turn(const hnsw_call *call, bool is_bridged, size_t item, turn *own) {
    kith_walker *walker = &call->walkers[own->walker];
    own->query = begin_item(call, item, walker);
    own->probe = probe_of(call, own->query, own->walker);
    if (is_bridged)
        kith_bridged_begin(&call->crossers[own->walker], &own->probe, call->ef, call->request->k);
    else
        kith_walk_begin(walker, &own->probe, call->ef);
}

static kith_status end_plain(const hnsw_call *call, const turn *own) {
    kith_walker *walker = &call->walkers[own->walker];
    if (walker->pool_count < call->request->k) KITH_TRY(kith_hnsw_walk_on(walker, &own->probe, call->request->k));
    emit_pool(call, own);
    report(call, own->query, walker, false, false);
    kith_walker_clear(walker);
    return end_item(call);
}

/* A walk that gives up, or has met all it could reach and found too few, leaves its query for a look at all allowed
 * nodes. One that may end by distance keeps no more than it needs: fewer than k are too few then. */
static kith_status end_bridged(hnsw_call *call, const turn *own) {
    kith_crosser *crosser = &call->crossers[own->walker];
    kith_walker *walker = crosser->walker;
    size_t enough = kith_walker_has_reach(walker) ? call->request->k : walker->pool_capacity;
    enough = kith_min_size(enough, call->filtered.allowed_count);
    bool wants_more = (walker->pool_count < enough || crosser->gives_up) && !kith_walker_is_spent(walker);
    bool is_left = wants_more && kith_walker_has_left(walker, call->filtered.allowed_count);
    if (is_left) leave(call, own->query, walker);
    emit_pool(call, own);
    report(call, own->query, walker, is_left, wants_more && !is_left);
    kith_hnsw_crosser_clear(crosser);
    return end_item(call);
}

/* The queries of a task. `is_bridged` is known where it is called. */
static inline kith_status take_turns(hnsw_call *call, size_t task, size_t worker, bool is_bridged) {
    size_t next = task * call->queries_per_task, count = 0;
    size_t end = kith_min_size(call->item_count, next + call->queries_per_task);
    turn turns[TURNS_MAX], *busy[TURNS_MAX];
    kith_status status = KITH_OK;
    for (; count < call->turns && next < end; count++) {
        busy[count] = &turns[count];
        turns[count].walker = worker * call->turns + count;
        begin_turn(call, is_bridged, next++, busy[count]);
    }
    while (count > 0)
        for (size_t t = 0; t < count; t++) {
            bool more;
            size_t walker = busy[t]->walker;
            KITH_TRY(is_bridged ? kith_bridged_step(&call->crossers[walker], &more)
                                : kith_walk_step(&call->walkers[walker], &more));
            if (more) continue;
            kith_status last = is_bridged ? end_bridged(call, busy[t]) : end_plain(call, busy[t]);
            if (last != KITH_OK) { /* late, or cancelled: what is under way is the last */
                status = last;
                next = end;
            }
            if (next < end)
                begin_turn(call, is_bridged, next++, busy[t]);
            else
                busy[t] = busy[--count];
        }
    return status;
}

static kith_status plain_task(void *context, size_t task, size_t worker) {
    return take_turns(context, task, worker, false);
}
static kith_status bridged_task(void *context, size_t task, size_t worker) {
    return take_turns(context, task, worker, true);
}

/* Against a deadline: what stays of a query that is not reached in time. */
static void emit_none(const hnsw_call *call) {
    for (size_t q = 0; q < call->request->queries.count && call->request->meter->deadline_ns != 0; q++)
        kith_search_emit_hits(&call->graph->base, call->results, q, call->hits, 0, value_of, call->graph);
}

static kith_status search_plain(const kith_index *index, const kith_search_request *request,
                                const kith_search_results *results) {
    hnsw_call call;
    size_t all;
    KITH_TRY(open_call(&call, index, request, true));
    if (kith_mul_overflows(request->threads * call.turns, request->k, &all))
        return kith_error(KITH_ERR_OVERFLOW, "search: k = %zu on %zu threads", request->k, request->threads);
    KITH_TRY(kith_arena_take(request->arena, all, sizeof *call.hits, &call.hits));
    call.results = results;
    size_t tasks = (request->queries.count - 1) / call.queries_per_task + 1;
    emit_none(&call);
    kith_status status = kith_parallel_for(request->threads, tasks, plain_task, &call);
    if (status != KITH_OK) kith_arena_drop_zeros(request->arena);
    return kith_search_unless_late(request, status);
}

/* ---- All searches ----------------------------------------------------------------------------------------- */

/* Many queries that look at the same rows look at copies of them, side by side, where these are short. */
static kith_status copy_listed(hnsw_call *call) {
    enum { QUERIES_MIN = 8, ROW_BYTES_MAX = 256, ALL_BYTES_MAX = 1 << 24 };
    const kith_hnsw *graph = call->graph;
    size_t count = call->filtered.allowed_count, bytes = graph->rows.item_bytes;
    unsigned char *copies;
    if (call->item_count < QUERIES_MIN || bytes > ROW_BYTES_MAX || count > ALL_BYTES_MAX / bytes) return KITH_OK;
    KITH_TRY(kith_arena_take(call->request->arena, count, bytes, &copies));
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count) __builtin_prefetch(kith_hnsw_row(graph, call->filtered.listed[i + AHEAD]));
        memcpy(copies + i * bytes, kith_hnsw_row(graph, call->filtered.listed[i]), bytes);
    }
    call->copies = copies;
    call->copy_bytes = bytes;
    return KITH_OK;
}

static kith_status run_pass(hnsw_call *call) {
    size_t threads = call->request->threads;
    bool is_filtered = call->request->filter != NULL;
    call->left_count = 0;
    if (is_filtered && call->filtered.strategy == KITH_FILTERED_LISTED)
        KITH_TRY(copy_listed(call));
    else if (is_filtered)
        KITH_TRY(kith_arena_take(call->request->arena, call->item_count, sizeof *call->left, &call->left));
    if (!is_filtered || call->filtered.strategy != KITH_FILTERED_BRIDGED)
        return kith_parallel_for(threads, call->item_count, search_query, call);
    size_t tasks = (call->item_count - 1) / call->queries_per_task + 1;
    kith_status status = kith_parallel_for(threads, tasks, bridged_task, call);
    if (status != KITH_OK) kith_arena_drop_zeros(call->request->arena);
    return status;
}

/* The queries that a pass has left are those of the next one. */
static kith_status turn_pass(hnsw_call *call) {
    size_t workers = kith_min_size(call->request->threads, call->request->queries.count);
    call->items = call->left;
    call->item_count = call->left_count;
    KITH_TRY(kith_hnsw_filtered_turn(&call->filtered, call->request->arena));
    if (call->filtered.strategy == KITH_FILTERED_LISTED) return KITH_OK;
    KITH_TRY(take_crossers(call, workers, NULL));
    for (size_t w = 0; w < workers; w++) {
        call->walkers[w].met = NULL;
        call->walkers[w].stop = stop_of(call);
        kith_walker_clear(&call->walkers[w]);
    }
    call->queries_per_task = 1;
    return KITH_OK;
}

kith_status kith_hnsw_search(const kith_index *index, const kith_search_request *request,
                             const kith_search_results *results) {
    hnsw_call call;
    bool is_whole = kith_hnsw_of_const(index)->dead.count == 0;
    if (request->filter == NULL && is_whole) return search_plain(index, request, results);
    KITH_TRY(open_call(&call, index, request, false));
    size_t each = kith_topk_capacity(request->k), all;
    if (kith_mul_overflows(request->threads * call.turns, each, &all))
        return kith_error(KITH_ERR_OVERFLOW, "search: k = %zu on %zu threads", request->k, request->threads);
    KITH_TRY(kith_arena_take(request->arena, all, sizeof *call.hits, &call.hits));
    call.results = results;
    emit_none(&call);
    kith_status status = run_pass(&call);
    while (status == KITH_OK && call.left_count > 0) {
        KITH_TRY(turn_pass(&call));
        status = run_pass(&call);
    }
    return kith_search_unless_late(request, status);
}

kith_status kith_hnsw_range_search(const kith_index *index, const kith_search_request *request,
                                   kith_range_lists *lists) {
    hnsw_call call;
    KITH_TRY(open_call(&call, index, request, false));
    if (request->filter != NULL && call.filtered.strategy == KITH_FILTERED_ASKED) {
        KITH_TRY(kith_hnsw_filtered_turn(&call.filtered, request->arena));
        KITH_TRY(take_crossers(&call, kith_min_size(request->threads, request->queries.count), NULL));
    }
    call.lists = lists->lists;
    lists->value = value_of;
    lists->context = call.graph;
    return kith_parallel_for(request->threads, request->queries.count, range_query, &call);
}
