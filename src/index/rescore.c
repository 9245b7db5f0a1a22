/* SPDX-License-Identifier: Apache-2.0 */
#include "index/rescore.h"

#include <math.h>

#include "base/error.h"

/* Queries that one task takes one after the other, so that the next one's rows come while one is computed. */
enum { QUERIES_PER_TASK = 16 };
/* So many cache lines are fetched ahead: about what a core has under way at once, twice over. */
enum { AHEAD_LINES = 64, LINE_BYTES = 64, AHEAD_ROWS_MIN = 4 };

/* The candidates of one query that are held. */
typedef struct query_rows {
    const void **rows;
    int64_t *ids;
    const float **norm_at;
    float *bounds;
    size_t count, fetched;
    float limit; /* in the metric's terms: candidates whose bound passes it do not matter any more */
} query_rows;

typedef struct scratch {
    _Alignas(KITH_ALIGNMENT) query_rows turns[2]; /* this query's and the next one's */
    kith_hit *hits;
} scratch;

typedef struct rescore_loop {
    const kith_rescoring *table;
    const kith_candidates *candidates;
    const kith_search_results *results;
    const uint64_t *found; /* queries x per_query rows, where ids cannot be looked up one by one; else NULL */
    scratch *workers;
    size_t query_count, queries_per_task, row_bytes, ahead;
    bool is_similarity;
} rescore_loop;

static void fetch(const void *row, size_t bytes) {
    const char *at = row;
    for (size_t i = 0; i < bytes; i += LINE_BYTES) __builtin_prefetch(at + i);
    __builtin_prefetch(at + bytes - 1); /* a row need not begin with a line */
}

static bool matters(const rescore_loop *loop, const query_rows *own, size_t i) {
    if (loop->candidates->bounds == NULL) return true;
    return loop->is_similarity ? own->bounds[i] >= own->limit : own->bounds[i] <= own->limit;
}

/* Has rows fetched until `count` more are on their way, or there are none left. */
static void fetch_next(const rescore_loop *loop, query_rows *own, size_t count) {
    for (; count > 0 && own->fetched < own->count; own->fetched++) {
        if (!matters(loop, own, own->fetched)) continue;
        fetch(own->rows[own->fetched], loop->row_bytes);
        if (loop->table->norms != NULL) __builtin_prefetch(own->norm_at[own->fetched]);
        count--;
    }
}

/* Finds the rows of a query's candidates and has the first of them fetched. */
static void take_rows(const rescore_loop *loop, size_t query, query_rows *own) {
    const kith_rescoring *table = loop->table;
    size_t per_query = loop->candidates->per_query, count = 0;
    const int64_t *ids = loop->candidates->ids + query * per_query;
    for (size_t i = 0; i < loop->candidates->counts[query]; i++) {
        uint64_t row;
        if (loop->found != NULL)
            row = loop->found[query * per_query + i];
        else if (!kith_idrows_find_one(table->ids, ids[i], &row))
            row = KITH_NO_ROW;
        if (row == KITH_NO_ROW) continue;
        own->rows[count] = kith_chunks_at(table->rows, (size_t)row);
        if (table->norms != NULL) own->norm_at[count] = kith_chunks_at(table->norms, (size_t)row);
        if (loop->candidates->bounds != NULL) own->bounds[count] = loop->candidates->bounds[query * per_query + i];
        own->ids[count++] = ids[i];
    }
    own->count = count;
    own->fetched = 0;
    own->limit = loop->is_similarity ? -INFINITY : INFINITY;
    /* What lies behind the first k may turn out not to matter. */
    fetch_next(loop, own,
               loop->candidates->bounds != NULL ? kith_min_size(loop->results->k, loop->ahead) : loop->ahead);
}

/* The next candidates that matter, at most four, from *at on. */
static size_t pick(const rescore_loop *loop, const query_rows *own, size_t *at, size_t picked[4]) {
    size_t count = 0;
    for (; count < 4 && *at < own->count; ++*at)
        if (matters(loop, own, *at)) picked[count++] = *at;
    return count;
}

static void rescore_query(const rescore_loop *loop, size_t query, size_t worker, query_rows *own, kith_hit *hits) {
    const kith_rescoring *table = loop->table;
    kith_topk top;
    kith_topk_init(&top, hits, loop->results->k);
    if (table->prepare != NULL && own->count > 0) table->prepare(table->context, query, worker);
    size_t k = loop->results->k, at = 0, picked[4], used;
    while ((used = pick(loop, own, &at, picked)) > 0) {
        const void *four[4];
        float norms[4] = {0};
        int32_t keys[4];
        for (size_t r = 0; r < 4; r++) four[r] = own->rows[picked[r < used ? r : 0]];
        for (size_t r = 0; r < used && table->norms != NULL; r++) norms[r] = *own->norm_at[picked[r]];
        fetch_next(loop, own, 4);
        table->keys(table->context, query, worker, four, norms, keys);
        for (size_t r = 0; r < used; r++) kith_topk_push(&top, keys[r], own->ids[picked[r]], 0);
        if (loop->candidates->bounds == NULL || top.count < k + (top.key_max != INT32_MAX ? k / 4 : 0)) continue;
        kith_topk_shrink(&top);
        own->limit = table->value(table->context, top.key_max);
    }
    kith_search_emit_query(table->index, loop->results, query, &top, table->value, table->context);
}

static kith_status rescore_task(void *context, size_t task, size_t worker) {
    const rescore_loop *loop = context;
    scratch *own = &loop->workers[worker];
    size_t first = task * loop->queries_per_task;
    size_t last = kith_min_size(loop->query_count, first + loop->queries_per_task);
    take_rows(loop, first, &own->turns[first % 2]);
    for (size_t q = first; q < last; q++) {
        if (q + 1 < last) take_rows(loop, q + 1, &own->turns[(q + 1) % 2]);
        rescore_query(loop, q, worker, &own->turns[q % 2], own->hits);
    }
    return KITH_OK;
}

static kith_status take_scratch(kith_arena *arena, size_t workers, size_t per_query, size_t k, scratch **out) {
    KITH_TRY(kith_arena_take(arena, workers, sizeof **out, out));
    for (size_t w = 0; w < workers; w++) {
        scratch *own = &(*out)[w];
        for (size_t t = 0; t < 2; t++) {
            KITH_TRY(kith_arena_take(arena, per_query, sizeof *own->turns[t].rows, &own->turns[t].rows));
            KITH_TRY(kith_arena_take(arena, per_query, sizeof *own->turns[t].ids, &own->turns[t].ids));
            KITH_TRY(kith_arena_take(arena, per_query, sizeof *own->turns[t].norm_at, &own->turns[t].norm_at));
            KITH_TRY(kith_arena_take(arena, per_query, sizeof *own->turns[t].bounds, &own->turns[t].bounds));
        }
        KITH_TRY(kith_arena_take(arena, kith_topk_capacity(k), sizeof *own->hits, &own->hits));
    }
    return KITH_OK;
}

kith_status kith_rescore(const kith_rescoring *rescoring, const kith_search_request *request,
                         const kith_candidates *candidates, const kith_search_results *results) {
    size_t query_count = request->queries.count, row_bytes = rescoring->rows->item_bytes, all;
    size_t each = (query_count - 1) / request->threads + 1;
    rescore_loop loop = {
        .table = rescoring,
        .candidates = candidates,
        .results = results,
        .query_count = query_count,
        .queries_per_task = request->threads > 1 ? kith_min_size(QUERIES_PER_TASK, each) : each,
        .row_bytes = row_bytes,
        .is_similarity = kith_metric_is_similarity(rescoring->index->metric),
        .ahead = kith_max_size(AHEAD_ROWS_MIN, AHEAD_LINES / (row_bytes / LINE_BYTES + 1)),
    };
    if (kith_mul_overflows(query_count, candidates->per_query, &all))
        return kith_error(KITH_ERR_OVERFLOW, "search: %zu queries with %zu candidates", query_count,
                          candidates->per_query);
    if (!kith_idrows_can_find(rescoring->ids)) {
        uint64_t *found;
        KITH_TRY(kith_arena_take(request->arena, all, sizeof *found, &found));
        KITH_TRY(kith_idrows_find(rescoring->ids, candidates->ids, all, found));
        loop.found = found;
    }
    size_t tasks = (query_count - 1) / loop.queries_per_task + 1, workers = kith_min_size(request->threads, tasks);
    KITH_TRY(take_scratch(request->arena, workers, candidates->per_query, results->k, &loop.workers));
    return kith_parallel_for(workers, tasks, rescore_task, &loop);
}
