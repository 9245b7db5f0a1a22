/* SPDX-License-Identifier: Apache-2.0
 *
 * flat_rescore.c: the k nearest among candidates that another index has found: the exact half of a refinement.
 */
#include "base/error.h"
#include "flat/flat_inside.h"

/* Scratch memory of one worker: a row of candidates. */
typedef struct scratch {
    const void **rows;
    int64_t *ids;
    float *inverse_norms;
    int32_t *keys;
    kith_hit *hits;
} scratch;

typedef struct rescore_loop {
    const kith_flat *flat;
    const kith_candidates *candidates;
    const kith_search_results *results;
    kith_exact *exact;
    const uint64_t *found; /* queries x per_query rows, where ids cannot be looked up one by one; else NULL */
    scratch *workers;
} rescore_loop;

/* The candidates of a query that are held: how many. */
static size_t take_rows(const rescore_loop *loop, size_t query, scratch *own) {
    const kith_flat *flat = loop->flat;
    const kith_candidates *candidates = loop->candidates;
    const int64_t *ids = candidates->ids + query * candidates->per_query;
    bool cosine = kith_flat_has_norms(flat);
    size_t count = 0;
    for (size_t i = 0; i < candidates->counts[query]; i++) {
        uint64_t row = KITH_NO_ROW;
        if (loop->found != NULL)
            row = loop->found[query * candidates->per_query + i];
        else if (!kith_idrows_find_one(&flat->ids, ids[i], &row))
            continue;
        if (row == KITH_NO_ROW) continue;
        own->rows[count] = kith_chunks_at(&flat->vectors, (size_t)row);
        own->ids[count] = ids[i];
        if (cosine) own->inverse_norms[count] = *(const float *)kith_chunks_at(&flat->inverse_norms, (size_t)row);
        count++;
    }
    return count;
}

static float value_of(const void *context, int32_t key) { return kith_exact_value(context, key); }

static kith_status rescore_query(void *context, size_t query, size_t worker) {
    const rescore_loop *loop = context;
    scratch *own = &loop->workers[worker];
    size_t count = take_rows(loop, query, own);
    size_t fetched = kith_exact_fetch(loop->exact, own->rows, count);
    kith_exact_gathered(loop->exact, query, own->rows, own->inverse_norms, count, fetched, own->keys);
    kith_topk top;
    kith_topk_init(&top, own->hits, loop->results->k);
    for (size_t i = 0; i < count; i++) kith_topk_push(&top, own->keys[i], own->ids[i], 0);
    kith_search_emit_query(&loop->flat->base, loop->results, query, &top, value_of, loop->exact);
    return KITH_OK;
}

static kith_status take_scratch(kith_arena *arena, size_t workers, size_t per_query, size_t k, scratch **out) {
    KITH_TRY(kith_arena_take(arena, workers, sizeof **out, out));
    for (size_t w = 0; w < workers; w++) {
        scratch *own = &(*out)[w];
        KITH_TRY(kith_arena_take(arena, per_query, sizeof *own->rows, &own->rows));
        KITH_TRY(kith_arena_take(arena, per_query, sizeof *own->ids, &own->ids));
        KITH_TRY(kith_arena_take(arena, per_query, sizeof *own->inverse_norms, &own->inverse_norms));
        KITH_TRY(kith_arena_take(arena, per_query, sizeof *own->keys, &own->keys));
        KITH_TRY(kith_arena_take(arena, kith_topk_capacity(k), sizeof *own->hits, &own->hits));
    }
    return KITH_OK;
}

kith_status kith_flat_rescore(const kith_index *index, const kith_search_request *request,
                              const kith_candidates *candidates, const kith_search_results *results) {
    rescore_loop loop = {.flat = kith_flat_of_const(index), .candidates = candidates, .results = results};
    const kith_exact_request exact = {
        .queries = request->queries,
        .metric = index->metric,
        .row_dtype = index->dtype,
        .threads = request->threads,
        .gathers = true,
        .arena = request->arena,
    };
    KITH_TRY(kith_exact_open(&exact, &loop.exact));
    size_t query_count = request->queries.count, workers = kith_min_size(request->threads, query_count), all;
    if (kith_mul_overflows(query_count, candidates->per_query, &all))
        return kith_error(KITH_ERR_OVERFLOW, "search: %zu queries with %zu candidates", query_count,
                          candidates->per_query);
    uint64_t *found = NULL;
    if (!kith_idrows_can_find(&loop.flat->ids)) {
        KITH_TRY(kith_arena_take(request->arena, all, sizeof *found, &found));
        KITH_TRY(kith_idrows_find(&loop.flat->ids, candidates->ids, all, found));
    }
    loop.found = found;
    KITH_TRY(take_scratch(request->arena, workers, candidates->per_query, results->k, &loop.workers));
    return kith_parallel_for(workers, query_count, rescore_query, &loop);
}
