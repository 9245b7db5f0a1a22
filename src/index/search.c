/* SPDX-License-Identifier: Apache-2.0
 *
 * search.c: the two searches: their checks, their scratch memory, and what becomes of a structure's selections.
 */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "index/convert.h"
#include "index/live.h"
#include "index/vtable.h"

/* ---- Contexts ------------------------------------------------------------------------------------------- */

/* Scratch memory of each thread of a call. */
typedef struct scratch {
    kith_arena *arenas;
    size_t count;
} scratch;

static kith_status grow_scratch(scratch *own, size_t count) {
    if (count <= own->count) return KITH_OK;
    KITH_TRY(kith_realloc(&own->arenas, own->count, count, sizeof *own->arenas));
    while (own->count < count) own->arenas[own->count++] = (kith_arena){0};
    return KITH_OK;
}

static void free_scratch(scratch *own) {
    for (size_t a = 0; a < own->count; a++) kith_arena_free(&own->arenas[a]);
    kith_free(own->arenas);
}

struct kith_search_context {
    scratch scratch;
    _Atomic int busy;
};

kith_status kith_search_context_create(kith_search_context **out) {
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "search context: out must not be NULL");
    return kith_alloc_zeroed(1, sizeof **out, out);
}

void kith_search_context_free(kith_search_context *context) {
    if (context == NULL) return;
    free_scratch(&context->scratch);
    kith_free(context);
}

/* ---- One call ------------------------------------------------------------------------------------------- */

/* What both searches share. */
typedef struct search_call {
    const kith_index *index;
    kith_view queries;
    kith_search_params params;
    size_t threads;
    scratch own_scratch;                       /* used without a context */
    kith_search_report *reports, *own_reports; /* the latter: nobody asks for them, but there is a deadline */
    kith_meter meter;
} search_call;

static uint64_t deadline_of(uint64_t us) {
    uint64_t ns;
    if (__builtin_mul_overflow(us, 1000, &ns) || __builtin_add_overflow(ns, kith_now_ns(), &ns)) ns = UINT64_MAX;
    return ns;
}

/* Everything but the values of the queries. */
static kith_status check_call(search_call *call, const kith_index *index, const kith_view *queries,
                              const kith_search_params *params) {
    *call = (search_call){.index = index};
    kith_search_params_init(&call->params);
    KITH_TRY(kith_options_read("search parameters", &call->params, sizeof call->params, params));
    KITH_TRY(kith_threads_read(call->params.threads, &call->threads));
    if (queries == NULL) return kith_error(KITH_ERR_ARGUMENT, "search: the view of queries must not be NULL");
    KITH_TRY(kith_check_view_dim("queries", queries, index->dim));
    call->queries = *queries;
    call->queries.stride = kith_view_stride(queries);
    if (!index->is_trained)
        return kith_error(KITH_ERR_NOT_TRAINED, "search: an index %s needs kith_index_train first", index->spec);
    if (index->count == 0) return kith_error(KITH_ERR_EMPTY, "search: the index holds no vectors");
    uint64_t work;
    if (__builtin_mul_overflow((uint64_t)queries->count, (uint64_t)index->count, &work)) work = UINT64_MAX;
    kith_meter_init(&call->meter, call->params.progress, call->params.progress_user, "search", work);
    if (call->params.deadline_us != 0) call->meter.deadline_ns = deadline_of(call->params.deadline_us);
    return KITH_OK;
}

static kith_status check_values(const search_call *call) {
    return kith_check_vectors("queries", &call->queries, 0, call->index->metric, call->threads);
}

static kith_status take_context(search_call *call) {
    kith_search_context *context = call->params.context;
    if (context != NULL && atomic_exchange(&context->busy, 1))
        return kith_error(KITH_ERR_ARGUMENT, "search: the context serves another search at this moment");
    return KITH_OK;
}

static void release_context(search_call *call) {
    if (call->params.context != NULL) atomic_store(&call->params.context->busy, 0);
    free_scratch(&call->own_scratch);
}

static scratch *scratch_of(search_call *call) {
    return call->params.context != NULL ? &call->params.context->scratch : &call->own_scratch;
}

static const size_t scratch_bytes_max = (size_t)128 << 20;

/* How many queries go to the structure at once, so that selections and prepared queries stay in bounds. */
static size_t queries_per_block(const search_call *call, size_t k) {
    size_t each = kith_topk_capacity(k) * sizeof(kith_hit) + call->index->dim * 2 * sizeof(float);
    return kith_max_size(1, scratch_bytes_max / each);
}

/* The request for queries first .. first + count - 1, to be answered by so many threads in an arena that is begun
 * anew. */
static kith_status begin_block(search_call *call, size_t first, size_t count, size_t threads, kith_arena *arena,
                               kith_search_request *request) {
    *request = (kith_search_request){
        .queries = call->queries,
        .threads = threads,
        .params = &call->params,
        .filter = call->params.filter,
        .meter = &call->meter,
        .reports = call->reports != NULL ? call->reports + first : NULL,
        .arena = arena,
    };
    request->queries.data = kith_view_row(&call->queries, first);
    request->queries.count = count;
    return kith_arena_begin(request->arena);
}

/* ---- The k nearest -------------------------------------------------------------------------------------- */

static float padding_of(const kith_index *index) {
    return kith_metric_is_similarity(index->metric) ? -INFINITY : INFINITY;
}

void kith_search_emit_hits(const kith_index *index, const kith_search_results *results, size_t query,
                           const kith_hit *hits, size_t count, kith_key_value_fn value, const void *context) {
    size_t k = results->k;
    int64_t *ids = results->ids + query * k;
    for (size_t i = 0; i < k; i++) ids[i] = i < count ? hits[i].id : KITH_NO_ID;
    if (results->counts != NULL) results->counts[query] = count;
    if (results->distances == NULL) return;
    float *distances = results->distances + query * k, padding = padding_of(index);
    for (size_t i = 0; i < k; i++) distances[i] = i < count ? value(context, hits[i].key) : padding;
}

void kith_search_emit_query(const kith_index *index, const kith_search_results *results, size_t query,
                            kith_topk *top, kith_key_value_fn value, const void *context) {
    kith_topk_finish(top);
    kith_search_emit_hits(index, results, query, top->hits, top->count, value, context);
}

typedef struct emit_loop {
    const kith_index *index;
    const kith_search_results *results;
    kith_topk *tops;
    kith_key_value_fn value;
    const void *context;
} emit_loop;

static kith_status emit_query(void *context, size_t query, size_t worker) {
    (void)worker;
    const emit_loop *loop = context;
    kith_search_emit_query(loop->index, loop->results, query, &loop->tops[query], loop->value, loop->context);
    return KITH_OK;
}

kith_status kith_search_emit(const kith_index *index, const kith_search_request *request,
                             const kith_search_results *results, kith_topk *tops, kith_key_value_fn value,
                             const void *context) {
    emit_loop loop = {index, results, tops, value, context};
    return kith_parallel_for(request->threads, request->queries.count, emit_query, &loop);
}

/* Rows of queries first .. last - 1. */
static void fill_with_padding(const search_call *call, const kith_search_results *results, size_t first,
                              size_t last) {
    float padding = padding_of(call->index);
    for (size_t i = first * results->k; i < last * results->k; i++) {
        results->ids[i] = KITH_NO_ID;
        if (results->distances != NULL) results->distances[i] = padding;
    }
    for (size_t q = first; q < last && results->counts != NULL; q++) results->counts[q] = 0;
}

/* Queries first .. first + count - 1, which have been checked. */
static kith_status search_block(const search_call *call, const kith_search_results *results,
                                const kith_search_request *request, size_t first) {
    size_t k = results->k;
    const kith_search_results part = {
        .k = k,
        .ids = results->ids + first * k,
        .distances = results->distances != NULL ? results->distances + first * k : NULL,
        .counts = results->counts != NULL ? results->counts + first : NULL,
    };
    return call->index->vtable->search(call->index, request, &part);
}

/* Block after block, each by all threads together. */
static kith_status search_together(search_call *call, const kith_search_results *results, size_t block) {
    size_t first = 0, count = call->queries.count;
    KITH_TRY(check_values(call));
    KITH_TRY(grow_scratch(scratch_of(call), 1));
    for (; first < count && !atomic_load(&call->meter.is_late); first += block) {
        kith_search_request request;
        KITH_TRY(begin_block(call, first, kith_min_size(block, count - first), call->threads,
                             scratch_of(call)->arenas, &request));
        request.k = request.wanted = results->k;
        KITH_TRY(search_block(call, results, &request, first));
    }
    fill_with_padding(call, results, kith_min_size(first, count), count);
    return KITH_OK;
}

/* A call whose queries are shared out: in parts of `most`, and the last ones in parts of `least`, so that the threads
 * end at about the same time. */
typedef struct shared_call {
    search_call *call;
    const kith_search_results *results;
    size_t most, least, most_count; /* so many parts are of `most` */
} shared_call;

static kith_status search_part(void *context, size_t item, size_t worker) {
    const shared_call *shared = context;
    search_call *call = shared->call;
    kith_search_request request;
    size_t large = kith_min_size(item, shared->most_count), all = call->queries.count;
    size_t first = large * shared->most + (item - large) * shared->least;
    size_t count = kith_min_size(item < shared->most_count ? shared->most : shared->least, all - first);
    KITH_TRY(begin_block(call, first, count, 1, &scratch_of(call)->arenas[worker], &request));
    KITH_TRY(kith_check_vectors("queries", &request.queries, first, call->index->metric, 1));
    if (atomic_load(&call->meter.is_late)) {
        fill_with_padding(call, shared->results, first, first + count);
        return KITH_OK;
    }
    request.k = request.wanted = shared->results->k;
    return search_block(call, shared->results, &request, first);
}

/* Each thread takes part after part, from the check of the queries to their results: so it is woken once, and what it
 * makes of a query is still in its cache when it is needed next. */
static kith_status search_shared(search_call *call, const kith_search_results *results, size_t block) {
    enum { MOST = 64, LEAST = 16 };
    size_t count = call->queries.count, threads = kith_min_size(call->threads, count);
    size_t most = kith_min_size(MOST, kith_max_size(1, block / threads));
    size_t least = kith_min_size(kith_min_size(LEAST, most), (count - 1) / threads + 1);
    size_t last = threads == 1 ? 0 : kith_min_size(count, threads * most); /* at least so many are in small parts */
    shared_call shared = {call, results, most, least, (count - last) / most};
    size_t rest = count - shared.most_count * most;
    if (threads == 1) shared.least = most;
    KITH_TRY(grow_scratch(scratch_of(call), threads));
    return kith_parallel_for(threads, shared.most_count + (rest + shared.least - 1) / shared.least, search_part,
                             &shared);
}

static kith_status search_all(search_call *call, const kith_search_results *results) {
    const kith_index *index = call->index;
    size_t block = queries_per_block(call, kith_search_candidates(index, &call->params, results->k));
    bool is_shared =
        call->params.filter == NULL && index->vtable->shares_search != NULL && index->vtable->shares_search(index);
    KITH_TRY((is_shared ? search_shared : search_together)(call, results, block));
    return atomic_load(&call->meter.is_late) ? KITH_OK : kith_meter_finish(&call->meter);
}

/* Where nothing else tells the caller of short rows, the status does. */
static kith_status check_complete(const search_call *call, const kith_search_results *results) {
    if (results->counts != NULL) return KITH_OK;
    size_t k = results->k, short_rows = 0, first = 0;
    for (size_t q = call->queries.count; q-- > 0;)
        if (results->ids[q * k + k - 1] == KITH_NO_ID) {
            short_rows++;
            first = q;
        }
    if (short_rows == 0) return KITH_OK;
    return kith_error(KITH_ERR_INCOMPLETE,
                      "search: %zu of %zu queries have fewer than %zu results (the first is %zu)", short_rows,
                      call->queries.count, k, first);
}

/* ---- Reports and deadlines ------------------------------------------------------------------------------ */

const char *kith_search_strategy_name(kith_search_strategy strategy) {
    static const char *const names[] = {"all", "tested", "listed", "bridged", "asked", "lists"};
    return (size_t)strategy < sizeof names / sizeof *names ? names[strategy] : "?";
}

kith_status kith_search_unless_late(const kith_search_request *request, kith_status status) {
    bool is_late = status == KITH_ERR_INCOMPLETE && atomic_load(&request->meter->is_late);
    return is_late ? KITH_OK : status;
}

static void clear_reports(search_call *call, uint32_t limits) {
    for (size_t q = 0; q < call->queries.count && call->reports != NULL; q++)
        call->reports[q] = (kith_search_report){.limits = limits};
}

/* With a deadline every query counts as cut short until it has been answered. */
static kith_status open_reports(search_call *call) {
    call->reports = call->params.reports;
    bool has_deadline = call->meter.deadline_ns != 0;
    if (has_deadline && call->reports == NULL) {
        KITH_TRY(kith_alloc(call->queries.count, sizeof *call->own_reports, &call->own_reports));
        call->reports = call->own_reports;
    }
    clear_reports(call, has_deadline ? KITH_LIMIT_DEADLINE : 0);
    return KITH_OK;
}

/* Where no report tells the caller of queries that were cut short, the status does. */
static kith_status check_in_time(const search_call *call) {
    size_t late = 0;
    if (call->own_reports == NULL) return KITH_OK;
    for (size_t q = 0; q < call->queries.count; q++)
        late += (call->own_reports[q].limits & KITH_LIMIT_DEADLINE) != 0;
    if (late == 0) return KITH_OK;
    return kith_error(KITH_ERR_INCOMPLETE, "search: the deadline of %llu us cut %zu of %zu queries short",
                      (unsigned long long)call->params.deadline_us, late, call->queries.count);
}

kith_status kith_index_search_view(const kith_index *index, const kith_view *queries, size_t k,
                                   const kith_search_params *params, int64_t *ids, float *distances,
                                   size_t *counts) {
    search_call call;
    KITH_TRY(check_call(&call, index, queries, params));
    if (k == 0 || k > index->count)
        return kith_error(KITH_ERR_ARGUMENT, "search: k = %zu is outside 1..%zu", k, index->count);
    if (ids == NULL) return kith_error(KITH_ERR_ARGUMENT, "search: ids must not be NULL");
    size_t results_count, bytes;
    if (k > KITH_TOPK_MAX || kith_mul_overflows(call.queries.count, k, &results_count) ||
        kith_mul_overflows(results_count, sizeof *ids, &bytes))
        return kith_error(KITH_ERR_OVERFLOW, "search: %zu queries with k = %zu do not fit the address space",
                          call.queries.count, k);
    KITH_TRY(take_context(&call));
    kith_search_results results = {.k = k, .ids = ids, .distances = distances, .counts = counts};
    kith_status status = open_reports(&call);
    if (status == KITH_OK) status = search_all(&call, &results);
    if (status != KITH_OK) {
        fill_with_padding(&call, &results, 0, call.queries.count);
        clear_reports(&call, 0);
    } else {
        status = check_in_time(&call);
        if (status == KITH_OK) status = check_complete(&call, &results);
    }
    kith_free(call.own_reports);
    release_context(&call);
    return status;
}

kith_status kith_index_search(const kith_index *index, const kith_view *queries, size_t k,
                              const kith_search_params *params, int64_t *ids, float *distances, size_t *counts) {
    if (index == NULL) return kith_error(KITH_ERR_ARGUMENT, "search: index must not be NULL");
    kith_reading reading;
    KITH_TRY(kith_read_begin(index, &reading));
    kith_status status = kith_index_search_view(reading.view, queries, k, params, ids, distances, counts);
    kith_read_end(&reading);
    return status;
}

/* ---- Everything within a radius ------------------------------------------------------------------------- */

void kith_range_result_free(kith_range_result *result) {
    if (result == NULL) return;
    kith_free(result->limits);
    kith_free(result->ids);
    kith_free(result->distances);
    kith_free(result);
}

/* Sorts the lists of a block and turns their keys, which lean on the arena, into the bits of the values. */
static kith_status finish_list(void *context, size_t query, size_t worker) {
    (void)worker;
    const kith_range_lists *lists = context;
    kith_hit_list *list = &lists->lists[query];
    kith_hits_sort(list->hits, list->count);
    for (size_t i = 0; i < list->count; i++) {
        float value = lists->value(lists->context, list->hits[i].key);
        memcpy(&list->hits[i].key, &value, sizeof value);
    }
    return KITH_OK;
}

static kith_status range_blocks(search_call *call, float radius, kith_hit_list *all) {
    KITH_TRY(check_values(call));
    size_t block = queries_per_block(call, 0);
    KITH_TRY(grow_scratch(scratch_of(call), 1));
    for (size_t first = 0; first < call->queries.count; first += block) {
        kith_search_request request;
        KITH_TRY(begin_block(call, first, kith_min_size(block, call->queries.count - first), call->threads,
                             scratch_of(call)->arenas, &request));
        request.radius = radius;
        kith_range_lists lists = {.lists = all + first};
        kith_status status = call->index->vtable->range_search(call->index, &request, &lists);
        KITH_TRY(kith_search_unless_late(&request, status));
        KITH_TRY(kith_parallel_for(call->threads, request.queries.count, finish_list, &lists));
        if (atomic_load(&call->meter.is_late)) return KITH_OK;
    }
    return kith_meter_finish(&call->meter);
}

static kith_status gather(const kith_hit_list *lists, size_t query_count, kith_range_result *result) {
    result->query_count = query_count;
    KITH_TRY(kith_alloc(query_count + 1, sizeof *result->limits, &result->limits));
    size_t total = 0;
    for (size_t q = 0; q < query_count; q++) {
        result->limits[q] = total;
        if (kith_add_overflows(total, lists[q].count, &total))
            return kith_error(KITH_ERR_OVERFLOW, "range search: the results do not fit the address space");
    }
    result->limits[query_count] = total;
    KITH_TRY(kith_alloc(total, sizeof *result->ids, &result->ids));
    KITH_TRY(kith_alloc(total, sizeof *result->distances, &result->distances));
    for (size_t q = 0, at = 0; q < query_count; q++)
        for (size_t i = 0; i < lists[q].count; i++, at++) {
            result->ids[at] = lists[q].hits[i].id;
            memcpy(&result->distances[at], &lists[q].hits[i].key, sizeof *result->distances);
        }
    return KITH_OK;
}

static kith_status range_search(const kith_index *index, const kith_view *queries, float radius,
                                const kith_search_params *params, kith_range_result **out) {
    search_call call;
    KITH_TRY(check_call(&call, index, queries, params));
    if (isnan(radius)) return kith_error(KITH_ERR_ARGUMENT, "range search: radius is NaN");
    KITH_TRY(take_context(&call));
    kith_status status;
    kith_range_result *result = NULL;
    kith_hit_list *lists = NULL;
    size_t query_count = call.queries.count;
    KITH_GO(kith_alloc_zeroed(query_count, sizeof *lists, &lists));
    KITH_GO(range_blocks(&call, radius, lists));
    KITH_GO(kith_alloc_zeroed(1, sizeof *result, &result));
    KITH_GO(gather(lists, query_count, result));
    *out = result;
    result = NULL;
    if (atomic_load(&call.meter.is_late))
        status = kith_error(KITH_ERR_INCOMPLETE, "range search: the deadline of %llu us cut it short",
                            (unsigned long long)call.params.deadline_us);
done:
    kith_range_result_free(result);
    for (size_t q = 0; lists != NULL && q < query_count; q++) kith_free(lists[q].hits);
    kith_free(lists);
    release_context(&call);
    return status;
}

kith_status kith_index_range_search(const kith_index *index, const kith_view *queries, float radius,
                                    const kith_search_params *params, kith_range_result **out) {
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "range search: out must not be NULL");
    *out = NULL;
    if (index == NULL) return kith_error(KITH_ERR_ARGUMENT, "search: index must not be NULL");
    kith_reading reading;
    KITH_TRY(kith_read_begin(index, &reading));
    kith_status status = range_search(reading.view, queries, radius, params, out);
    kith_read_end(&reading);
    return status;
}
