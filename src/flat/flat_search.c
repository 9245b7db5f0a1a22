/* SPDX-License-Identifier: Apache-2.0
 *
 * flat_search.c: Flat's searches: all rows in place, or, under a filter that leaves few, copies of those rows
 * alone. Exact search gives a pair the same bits either way.
 */
#include <string.h>

#include "base/error.h"
#include "flat/flat_inside.h"

/* A filter that allows at most one row in so many is searched through copies: that costs the read and the write of
 * these rows, and saves the distances of all others. */
enum { GATHER_SHARE = 8 };
static const size_t gather_bytes = (size_t)4 << 20;

/* A search that has been opened: where its hits go is one of the two. */
typedef struct flat_call {
    const kith_flat *flat;
    const kith_search_request *request;
    kith_exact *exact;
    kith_topk *tops;
    kith_hit_list *lists;
} flat_call;

static kith_status offer(const flat_call *call, const kith_rows *rows) {
    if (rows->count == 0) return KITH_OK;
    if (call->tops != NULL) return kith_exact_topk(call->exact, rows, call->tops);
    return kith_exact_range(call->exact, rows, call->request->radius, call->lists);
}

/* How many rows the call looks at, dead ones among them. */
static size_t row_count_of(const flat_call *call) {
    uint64_t bound = call->request->params->max_distances;
    size_t count = call->flat->ids.count;
    return bound != 0 && bound < count ? (size_t)bound : count;
}

static bool is_selective(const flat_call *call) {
    const kith_filter *filter = call->request->filter;
    return filter != NULL && kith_idrows_can_find(&call->flat->ids) &&
           row_count_of(call) == call->flat->ids.count &&
           kith_filter_allowed_max(filter) <= call->flat->base.count / GATHER_SHARE;
}

static kith_status open_exact(flat_call *call) {
    const kith_search_request *request = call->request;
    const kith_index *base = &call->flat->base;
    bool selective = is_selective(call);
    kith_exact_request exact = {
        .queries = request->queries,
        .metric = base->metric,
        .row_dtype = base->dtype,
        .threads = request->threads,
        .allow = selective ? NULL : kith_filter_allow_fn(request->filter),
        .allow_context = request->filter,
        .meter = request->meter,
        .arena = request->arena,
    };
    return kith_exact_open(&exact, &call->exact);
}

static kith_status search_all(const flat_call *call) {
    const kith_flat *flat = call->flat;
    return offer(call, &(kith_rows){
                           .dtype = flat->base.dtype,
                           .dim = flat->base.dim,
                           .count = row_count_of(call),
                           .chunks = &flat->vectors,
                           .ids = flat->ids.has_ids ? &flat->ids.ids : NULL,
                           .first_id = flat->ids.first_id,
                           .inverse_norms = kith_flat_has_norms(flat) ? &flat->inverse_norms : NULL,
                           .dead = kith_idrows_dead(&flat->ids),
                       });
}

/* ---- A selective filter --------------------------------------------------------------------------------- */

typedef struct gather {
    const flat_call *call;
    unsigned char *vectors;
    int64_t *ids;
    float *inverse_norms;
    size_t count, capacity;
    kith_status status;
} gather;

static void flush(gather *rows) {
    const kith_flat *flat = rows->call->flat;
    unsigned char *id_table, *norm_table;
    kith_chunks ids, norms;
    kith_chunks_view(&ids, sizeof *rows->ids, rows->ids, rows->count, &id_table);
    kith_chunks_view(&norms, sizeof *rows->inverse_norms, rows->inverse_norms, rows->count, &norm_table);
    rows->status = offer(rows->call, &(kith_rows){
                                         .dtype = flat->base.dtype,
                                         .dim = flat->base.dim,
                                         .count = rows->count,
                                         .base = rows->vectors,
                                         .stride = flat->row_bytes,
                                         .ids = &ids,
                                         .inverse_norms = kith_flat_has_norms(flat) ? &norms : NULL,
                                     });
    rows->count = 0;
}

static bool gather_row(void *context, int64_t id) {
    gather *rows = context;
    const kith_flat *flat = rows->call->flat;
    uint64_t row;
    if (!kith_idrows_find_one(&flat->ids, id, &row)) return true;
    memcpy(rows->vectors + rows->count * flat->row_bytes, kith_chunks_at(&flat->vectors, (size_t)row),
           flat->row_bytes);
    rows->ids[rows->count] = id;
    if (kith_flat_has_norms(flat))
        rows->inverse_norms[rows->count] = *(const float *)kith_chunks_at(&flat->inverse_norms, (size_t)row);
    if (++rows->count == rows->capacity) flush(rows);
    return rows->status == KITH_OK;
}

static kith_status search_allowed(const flat_call *call) {
    const kith_filter *filter = call->request->filter;
    size_t allowed = (size_t)kith_filter_allowed_max(filter); /* a share of the rows: it fits */
    if (allowed == 0) return KITH_OK;
    gather rows = {.call = call,
                   .capacity = kith_min_size(allowed, kith_max_size(1, gather_bytes / call->flat->row_bytes))};
    kith_arena *arena = call->request->arena;
    KITH_TRY(kith_arena_take(arena, rows.capacity, call->flat->row_bytes, &rows.vectors));
    KITH_TRY(kith_arena_take(arena, rows.capacity, sizeof *rows.ids, &rows.ids));
    KITH_TRY(kith_arena_take(arena, rows.capacity, sizeof *rows.inverse_norms, &rows.inverse_norms));
    kith_filter_visit(filter, gather_row, &rows);
    if (rows.status == KITH_OK) flush(&rows);
    return rows.status;
}

/* ---- Both searches -------------------------------------------------------------------------------------- */

/* All queries look at the same rows. */
static void report(const flat_call *call) {
    const kith_search_request *request = call->request;
    bool selective = is_selective(call);
    uint64_t rows = selective ? kith_filter_allowed_max(request->filter) : row_count_of(call);
    for (size_t q = 0; q < request->queries.count && request->reports != NULL; q++) {
        kith_search_report *one = &request->reports[q];
        one->visited = one->distances = rows;
        one->strategy = selective                 ? KITH_STRATEGY_LISTED
                        : request->filter != NULL ? KITH_STRATEGY_TESTED
                                                  : KITH_STRATEGY_ALL;
        if (!selective && rows < call->flat->ids.count) one->limits |= KITH_LIMIT_DISTANCES;
    }
}

static kith_status run(const flat_call *call) {
    return is_selective(call) ? search_allowed(call) : search_all(call);
}

static float value_of(const void *context, int32_t key) { return kith_exact_value(context, key); }

kith_status kith_flat_search(const kith_index *index, const kith_search_request *request,
                             const kith_search_results *results) {
    flat_call call = {.flat = kith_flat_of_const(index), .request = request};
    KITH_TRY(open_exact(&call));
    size_t query_count = request->queries.count, capacity = kith_topk_capacity(request->k), all;
    kith_hit *hits;
    if (kith_mul_overflows(query_count, capacity, &all))
        return kith_error(KITH_ERR_OVERFLOW, "search: %zu queries with k = %zu", query_count, request->k);
    KITH_TRY(kith_arena_take(request->arena, query_count, sizeof *call.tops, &call.tops));
    KITH_TRY(kith_arena_take(request->arena, all, sizeof *hits, &hits));
    for (size_t q = 0; q < query_count; q++) kith_topk_init(&call.tops[q], hits + q * capacity, request->k);
    report(&call);
    kith_status status = run(&call);
    KITH_TRY(kith_search_unless_late(request, status));
    for (size_t q = 0; q < query_count && status == KITH_OK; q++) kith_search_answered(request, q);
    return kith_search_emit(index, request, results, call.tops, value_of, call.exact);
}

kith_status kith_flat_range_search(const kith_index *index, const kith_search_request *request,
                                   kith_range_lists *lists) {
    flat_call call = {.flat = kith_flat_of_const(index), .request = request, .lists = lists->lists};
    KITH_TRY(open_exact(&call));
    lists->value = value_of;
    lists->context = call.exact;
    return run(&call);
}
