/* SPDX-License-Identifier: Apache-2.0
 *
 * refine_search.c: the searches of a refinement.
 *
 * The base's distances say which vectors are near, not how near they are: a code shifts them, a transform may put them
 * on another scale. So a range search does not ask the base for a radius. It asks for the nearest, more of them from
 * round to round, and the store says which lie within the radius: until there are k_factor candidates for each hit, as
 * many as a search for so many nearest looks at. A query's rounds depend on that query alone.
 */
#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "index/convert.h"
#include "wrap/refine_inside.h"

/* Turns distances into the nearest that they can stand for. */
static void set_bounds(const kith_refine *both, const kith_search_results *found, size_t query_count, float share) {
    float sign = both->common.metric == KITH_L2 ? -share : share;
    for (size_t q = 0; q < query_count; q++)
        for (size_t i = q * found->k; i < q * found->k + found->counts[q]; i++)
            found->distances[i] += sign * found->errors[i];
}

/* The k nearest by the store among `per_query` candidates of the base. */
static kith_status refine(const kith_refine *both, const kith_search_request *request, size_t per_query,
                          const kith_search_results *results) {
    size_t query_count = request->queries.count;
    int64_t *ids;
    size_t *counts, row_bytes;
    if (kith_mul_overflows(per_query, sizeof *ids, &row_bytes)) row_bytes = SIZE_MAX;
    KITH_TRY(kith_arena_take(request->arena, query_count, row_bytes, &ids));
    KITH_TRY(kith_arena_take(request->arena, query_count, sizeof *counts, &counts));
    kith_search_request first = *request;
    first.k = per_query;
    kith_search_results found = {.k = per_query, .ids = ids, .counts = counts};
    size_t percent = per_query > results->k && kith_refine_has_errors(both) ? request->params->error_percent : 0;
    if (percent != 0) {
        KITH_TRY(kith_arena_take(request->arena, query_count, row_bytes / 2, &found.distances));
        KITH_TRY(kith_arena_take(request->arena, query_count, row_bytes / 2, &found.errors));
    }
    KITH_TRY(both->base->vtable->search(both->base, &first, &found));
    for (size_t q = 0; q < query_count && request->reports != NULL; q++) request->reports[q].refined = counts[q];
    if (percent != 0) set_bounds(both, &found, query_count, (float)percent / 100);
    const kith_candidates candidates = {
        .ids = ids, .per_query = per_query, .counts = counts, .bounds = found.distances};
    return both->store->vtable->rescore(both->store, request, &candidates, results);
}

kith_status kith_refine_search(const kith_index *index, const kith_search_request *request,
                               const kith_search_results *results) {
    return refine(kith_refine_of_const(index), request, kith_search_candidates(index, request->params, request->k),
                  results);
}

/* ---- Range search -------------------------------------------------------------------------------------------- */

/* Candidates of the first round, and how many times more each later one asks for. */
enum { FIRST_CANDIDATES = 64, GROWTH = 4 };
/* Queries are looked at so many at a time that their candidates, at about so many bytes each, take up to so much. */
enum { CANDIDATE_BYTES = 64 };
static const size_t block_bytes_max = (size_t)64 << 20;

typedef struct range_call {
    const kith_refine *both;
    const kith_search_request *request;
    kith_range_lists *lists;
    uint32_t *open;                /* queries of the request that are not finished yet */
    size_t open_count, candidates; /* of this round */
    size_t k_factor;
    kith_arena arena; /* of one block */
    kith_meter quiet; /* what is searched twice counts once */
} range_call;

static float value_of(const void *context, int32_t key) {
    float value = kith_key_to_f32(key);
    return *(const kith_metric *)context == KITH_L2 ? value : 0.0f - value;
}

/* Queries open[first .. first + count - 1], one after the other. */
static kith_status gather_queries(range_call *call, size_t first, size_t count, kith_view *out) {
    const kith_view *queries = &call->request->queries;
    size_t bytes = kith_dtype_row_bytes(queries->dtype, queries->dim);
    unsigned char *rows;
    KITH_TRY(kith_arena_take(&call->arena, count, bytes, &rows));
    for (size_t i = 0; i < count; i++)
        memcpy(rows + i * bytes, kith_view_row(queries, call->open[first + i]), bytes);
    *out = (kith_view){rows, queries->dtype, count, queries->dim, bytes};
    return KITH_OK;
}

/* How many of a query's distances, nearest first, lie within the radius. */
static size_t within(const range_call *call, const float *distances, size_t count) {
    bool is_l2 = call->both->common.metric == KITH_L2;
    float radius = call->request->radius;
    size_t hits = 0;
    while (hits < count && (is_l2 ? distances[hits] <= radius : distances[hits] >= radius)) hits++;
    return hits;
}

static kith_status keep_hits(kith_hit_list *list, kith_metric metric, const int64_t *ids, const float *distances,
                             size_t count) {
    KITH_TRY(kith_alloc(count, sizeof *list->hits, &list->hits));
    for (size_t i = 0; i < count; i++)
        list->hits[i] =
            (kith_hit){.id = ids[i], .key = kith_key_f32(metric == KITH_L2 ? distances[i] : 0.0f - distances[i])};
    list->count = list->capacity = count;
    return KITH_OK;
}

/* Queries open[first .. first + count - 1]: those that need another round are moved to open[*still] and on. */
static kith_status range_block(range_call *call, size_t first, size_t count, kith_meter *meter, size_t *still) {
    size_t k = call->candidates;
    kith_search_request request = *call->request;
    kith_search_results results = {.k = k};
    KITH_TRY(kith_arena_begin(&call->arena));
    KITH_TRY(gather_queries(call, first, count, &request.queries));
    KITH_TRY(kith_arena_take(&call->arena, count, k * sizeof *results.ids, &results.ids));
    KITH_TRY(kith_arena_take(&call->arena, count, k * sizeof *results.distances, &results.distances));
    KITH_TRY(kith_arena_take(&call->arena, count, sizeof *results.counts, &results.counts));
    request.k = k;
    request.arena = &call->arena;
    request.meter = meter;
    KITH_TRY(refine(call->both, &request, k, &results));
    for (size_t i = 0; i < count; i++) {
        uint32_t query = call->open[first + i];
        size_t held = results.counts[i], hits = within(call, results.distances + i * k, held);
        bool is_all = held < k || k == call->both->common.count;
        if (!is_all && hits >= k / call->k_factor)
            call->open[(*still)++] = query;
        else if (hits > 0)
            KITH_TRY(keep_hits(&call->lists->lists[query], call->both->common.metric, results.ids + i * k,
                               results.distances + i * k, hits));
    }
    return kith_meter_add(call->request->meter, 0); /* a search that is cancelled ends here */
}

static kith_status range_rounds(range_call *call) {
    size_t count = call->both->common.count, k = FIRST_CANDIDATES;
    if (kith_mul_overflows(k, call->k_factor, &k)) k = SIZE_MAX;
    for (bool is_first = true; call->open_count > 0; is_first = false) {
        call->candidates = k = kith_min_size(k, kith_min_size(count, KITH_TOPK_MAX));
        size_t block = kith_max_size(1, block_bytes_max / CANDIDATE_BYTES / k), still = 0;
        for (size_t first = 0; first < call->open_count; first += block)
            KITH_TRY(range_block(call, first, kith_min_size(block, call->open_count - first),
                                 is_first ? call->request->meter : &call->quiet, &still));
        call->open_count = still;
        if (kith_mul_overflows(k, GROWTH, &k)) k = SIZE_MAX;
    }
    return KITH_OK;
}

kith_status kith_refine_range_search(const kith_index *index, const kith_search_request *request,
                                     kith_range_lists *lists) {
    range_call call = {.both = kith_refine_of_const(index),
                       .request = request,
                       .lists = lists,
                       .open_count = request->queries.count,
                       .k_factor = kith_search_k_factor(index, request->params)};
    kith_meter_init(&call.quiet, NULL, NULL, "search", 0);
    call.quiet.deadline_ns = request->meter->deadline_ns;
    KITH_TRY(kith_arena_take(request->arena, call.open_count, sizeof *call.open, &call.open));
    for (size_t q = 0; q < call.open_count; q++) call.open[q] = (uint32_t)q;
    lists->value = value_of;
    lists->context = &index->metric;
    kith_status status = range_rounds(&call);
    kith_arena_free(&call.arena);
    return status;
}
