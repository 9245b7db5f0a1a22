/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/truth.h"

#include "base/error.h"
#include "exact/check.h"

/* So many queries show what each takes: with fewer, exact search may choose its other path. */
enum { PROBE_QUERIES = 256 };
/* With fewer queries a thread, exact search may give every thread selections of its own; they take at most so much
 * (src/exact/exact.c). */
enum { FEW_QUERIES_PER_THREAD = 64 };
static const uint64_t local_bytes_max = (uint64_t)256 << 20;

kith_status kith_truth_request_read(const kith_view *queries, kith_metric metric, const kith_job *job,
                                    kith_truth_request *out) {
    if (metric != KITH_L2 && metric != KITH_IP && metric != KITH_COSINE)
        return kith_error(KITH_ERR_ARGUMENT, "ground truth: metric %s; l2, ip and cosine are known here",
                          kith_metric_name(metric));
    if (queries == NULL) return kith_error(KITH_ERR_ARGUMENT, "queries: NULL");
    KITH_TRY(kith_check_view("queries", queries));
    KITH_TRY(kith_check_vectors("queries", queries, 0, metric, job->threads));
    *out = (kith_truth_request){
        .queries = *queries, .metric = metric, .threads = job->threads, .memory_bytes_max = job->memory_bytes_max};
    out->queries.stride = kith_view_stride(queries);
    return KITH_OK;
}

/* What `query_count` selections take. With room to spare in 64 bits, so that sums with it cannot wrap. */
static kith_status selection_bytes(size_t k, size_t query_count, uint64_t *out) {
    uint64_t each = k == 0 ? sizeof(kith_hit_list) : sizeof(kith_topk) + kith_topk_capacity(k) * sizeof(kith_hit);
    if (__builtin_mul_overflow(each, query_count, out) || *out > UINT64_MAX / 4096)
        return kith_error(KITH_ERR_OVERFLOW, "ground truth: %zu queries with k = %zu do not fit the address space",
                          query_count, k);
    return KITH_OK;
}

static kith_exact_request exact_request(const kith_truth_request *request, kith_dtype row_dtype, size_t query_count,
                                        kith_arena *arena) {
    kith_exact_request made = {.queries = request->queries,
                               .metric = request->metric,
                               .row_dtype = row_dtype,
                               .threads = request->threads,
                               .meter = request->meter,
                               .arena = arena};
    made.queries.count = query_count;
    return made;
}

static kith_status probe(const kith_truth_request *request, kith_dtype row_dtype, size_t query_count,
                         uint64_t *out) {
    kith_arena arena = {0};
    kith_exact *exact;
    kith_exact_request opened = exact_request(request, row_dtype, query_count, &arena);
    kith_status status = kith_exact_open(&opened, &exact);
    *out = arena.total_bytes;
    kith_arena_free(&arena);
    return status;
}

kith_status kith_truth_bytes(const kith_truth_request *request, kith_dtype row_dtype, size_t query_count,
                             uint64_t *out) {
    uint64_t prepared;
    if (query_count <= PROBE_QUERIES) {
        KITH_TRY(probe(request, row_dtype, query_count, &prepared));
    } else {
        uint64_t half;
        KITH_TRY(probe(request, row_dtype, PROBE_QUERIES / 2, &half));
        KITH_TRY(probe(request, row_dtype, PROBE_QUERIES, &prepared));
        uint64_t each = (prepared - half) / (PROBE_QUERIES / 2) + 1;
        prepared += each * (query_count - PROBE_QUERIES + 64); /* the last tile may be padded */
    }
    uint64_t selections, local = 0;
    KITH_TRY(selection_bytes(request->k, query_count, &selections));
    if (query_count < request->threads * FEW_QUERIES_PER_THREAD) {
        local = selections * (request->threads - 1);
        if (local > local_bytes_max) local = local_bytes_max;
    }
    *out = prepared + selections + local;
    return KITH_OK;
}

static kith_status take_selections(kith_ground_truth *truth) {
    size_t n = truth->request.queries.count, k = truth->request.k;
    if (k == 0) return kith_alloc_zeroed(n, sizeof *truth->lists, &truth->lists);
    KITH_TRY(kith_alloc(n, sizeof *truth->tops, &truth->tops));
    KITH_TRY(kith_alloc(n, kith_topk_capacity(k) * sizeof *truth->hits, &truth->hits));
    for (size_t i = 0; i < n; i++) kith_topk_init(&truth->tops[i], truth->hits + i * kith_topk_capacity(k), k);
    return KITH_OK;
}

static kith_status refuse_budget(const kith_truth_request *request, uint64_t bytes) {
    return kith_error(
        KITH_ERR_BUDGET,
        "ground truth: %zu queries with k = %zu on %zu threads need %llu bytes of scratch memory, the "
        "budget is %llu",
        request->queries.count, request->k, request->threads, (unsigned long long)bytes,
        (unsigned long long)request->memory_bytes_max);
}

kith_status kith_truth_open(const kith_truth_request *request, kith_ground_truth **out) {
    *out = NULL;
    kith_status status;
    kith_ground_truth *truth;
    uint64_t bytes;
    KITH_TRY(selection_bytes(request->k, request->queries.count, &bytes));
    if (request->memory_bytes_max != 0 && bytes > request->memory_bytes_max) return refuse_budget(request, bytes);
    KITH_TRY(kith_alloc_zeroed(1, sizeof *truth, &truth));
    truth->request = *request;
    truth->memory_bytes = bytes;
    KITH_GO(take_selections(truth));
    *out = truth;
    truth = NULL;
done:
    kith_ground_truth_free(truth);
    return status;
}

static kith_status open_exact(kith_ground_truth *truth, kith_dtype row_dtype) {
    const kith_truth_request *request = &truth->request;
    uint64_t bytes;
    KITH_TRY(kith_truth_bytes(request, row_dtype, request->queries.count, &bytes));
    if (request->memory_bytes_max != 0 && bytes > request->memory_bytes_max) return refuse_budget(request, bytes);
    kith_exact_request opened = exact_request(request, row_dtype, request->queries.count, &truth->arena);
    KITH_TRY(kith_arena_begin(&truth->arena));
    KITH_TRY(kith_exact_open(&opened, &truth->exact));
    truth->row_dtype = row_dtype;
    truth->memory_bytes = bytes;
    return KITH_OK;
}

/* The hits of a range search are the only part that grows as rows come in. */
static kith_status account_lists(kith_ground_truth *truth) {
    uint64_t bytes;
    KITH_TRY(kith_truth_bytes(&truth->request, truth->row_dtype, truth->request.queries.count, &bytes));
    for (size_t i = 0; i < truth->request.queries.count; i++) bytes += truth->lists[i].capacity * sizeof(kith_hit);
    if (bytes > truth->memory_bytes) truth->memory_bytes = bytes;
    if (truth->request.memory_bytes_max == 0 || bytes <= truth->request.memory_bytes_max) return KITH_OK;
    return kith_error(KITH_ERR_BUDGET,
                      "ground truth: after %llu rows the hits and the rest take %llu bytes, the budget is %llu",
                      (unsigned long long)truth->row_count, (unsigned long long)bytes,
                      (unsigned long long)truth->request.memory_bytes_max);
}

static kith_status add_rows(kith_ground_truth *truth, const kith_rows *rows) {
    if (truth->exact == NULL) KITH_TRY(open_exact(truth, rows->dtype));
    if (truth->request.k > 0)
        KITH_TRY(kith_exact_topk(truth->exact, rows, truth->tops));
    else
        KITH_TRY(kith_exact_range(truth->exact, rows, truth->request.radius, truth->lists));
    truth->row_count += rows->count;
    return truth->lists != NULL ? account_lists(truth) : KITH_OK;
}

kith_status kith_truth_add(kith_ground_truth *truth, const kith_view *block, int64_t first_id) {
    kith_rows rows = {.dtype = block->dtype,
                      .dim = block->dim,
                      .count = block->count,
                      .base = block->data,
                      .stride = kith_view_stride(block),
                      .first_id = first_id};
    kith_status status = add_rows(truth, &rows);
    truth->is_broken = status != KITH_OK;
    return status;
}

typedef struct write_loop {
    kith_ground_truth *truth;
    int64_t *ids;
    float *distances;
} write_loop;

static kith_status write_query(void *context, size_t query, size_t worker) {
    const write_loop *loop = context;
    kith_topk *top = &loop->truth->tops[query];
    size_t k = top->k;
    (void)worker;
    kith_topk_finish(top);
    for (size_t i = 0; i < k; i++) {
        loop->ids[query * k + i] = top->hits[i].id;
        loop->distances[query * k + i] = kith_exact_value(loop->truth->exact, top->hits[i].key);
    }
    return KITH_OK;
}

void kith_truth_write(kith_ground_truth *truth, int64_t *ids, float *distances) {
    write_loop loop = {truth, ids, distances};
    (void)kith_parallel_for(truth->request.threads, truth->request.queries.count, write_query, &loop);
}

void kith_ground_truth_free(kith_ground_truth *truth) {
    if (truth == NULL) return;
    if (truth->lists != NULL)
        for (size_t i = 0; i < truth->request.queries.count; i++) kith_free(truth->lists[i].hits);
    kith_free(truth->lists);
    kith_free(truth->tops);
    kith_free(truth->hits);
    kith_arena_free(&truth->arena);
    kith_free(truth);
}
