/* SPDX-License-Identifier: Apache-2.0 */
#include "exact/exact.h"

#include <float.h>
#include <math.h>

#include "base/error.h"
#include "exact/check.h"
#include "exact/exact_inside.h"

/* From how many queries on the tiles win over a stream (measured by bench/bench_exact): packing a row costs about
 * as much as a few distances to it. */
enum { FLOAT_TILE_QUERIES_MIN = 12, INT_TILE_QUERIES_MIN = 8 };
/* Queries that one task takes through all rows: packing the rows again for the next task costs about 1%. */
enum { GROUP_QUERIES_MAX = 1024 };
/* Packed rows of a block stay in the second-level cache. */
static const size_t panel_bytes_max = (size_t)256 << 10;
/* Selections that threads keep apart and merge at the end may take so much memory. */
static const size_t local_bytes_max = (size_t)256 << 20;

void kith_exact_to_f32(const void *in, kith_dtype dtype, size_t count, float *out) {
    const kith_simd_table *simd = kith_simd();
    switch (dtype) {
        case KITH_F16: simd->f32_from_f16(in, count, out); return;
        case KITH_BF16: simd->f32_from_bf16(in, count, out); return;
        case KITH_I8: simd->f32_from_i8(in, count, out); return;
        case KITH_U8: simd->f32_from_u8(in, count, out); return;
        default: memcpy(out, in, count * sizeof *out); return;
    }
}

float kith_exact_norm2(const void *row, kith_dtype dtype, size_t dim) {
    const kith_simd_table *simd = kith_simd();
    switch (dtype) {
        case KITH_F16: return simd->norm2_f16(row, dim);
        case KITH_BF16: return simd->norm2_bf16(row, dim);
        case KITH_I8: return (float)simd->norm2_i8(row, dim);
        case KITH_U8: return (float)simd->norm2_u8(row, dim);
        default: return simd->norm2_f32(row, dim);
    }
}

float kith_exact_inverse_norm(const void *row, kith_dtype dtype, size_t dim) {
    float norm2 = kith_exact_norm2(row, dtype, dim);
    return norm2 < FLT_MIN ? 0.0f : 1.0f / sqrtf(norm2);
}

float kith_exact_row_inverse_norm(const kith_rows *rows, size_t row, const void *at) {
    if (rows->inverse_norms != NULL) return *(const float *)kith_chunks_at(rows->inverse_norms, row);
    return kith_exact_inverse_norm(at, rows->dtype, rows->dim);
}

const unsigned char *kith_exact_run(const kith_rows *rows, size_t row, size_t *run) {
    if (rows->chunks != NULL) return kith_chunks_run(rows->chunks, row, run);
    *run = rows->count - row;
    return (const unsigned char *)rows->base + row * rows->stride;
}

int32_t kith_exact_float_key(const kith_exact *exact, size_t query, const void *row, float inverse_norm) {
    const void *query_row = exact->query_rows + query * exact->query_stride;
    float value = exact->float_pair->one(query_row, row, exact->dim);
    if (exact->op == KITH_OP_L2SQ) return kith_key_f32(value);
    if (exact->request.metric == KITH_COSINE) value = value * inverse_norm * exact->query_inverse_norm[query];
    return kith_key_f32(-value);
}

float kith_exact_value(const kith_exact *exact, int32_t key) {
    float value = exact->int_pair != NULL ? (float)key : kith_key_to_f32(key);
    return exact->op == KITH_OP_L2SQ ? value : 0.0f - value;
}

/* ---- Opening ------------------------------------------------------------------------------------------- */

static bool is_integer_request(const kith_exact_request *request) {
    kith_dtype type = request->row_dtype;
    return request->metric != KITH_COSINE && request->queries.dtype == type && (type == KITH_I8 || type == KITH_U8);
}

/* Integer queries are used where they lie; others are, or become, f32. */
static kith_status take_queries(kith_exact *exact) {
    const kith_view *view = &exact->request.queries;
    size_t stride = kith_view_stride(view);
    exact->query_rows = view->data;
    exact->query_stride = stride;
    if (exact->int_pair != NULL || view->dtype == KITH_F32) return KITH_OK;
    const float *converted;
    KITH_TRY(kith_exact_queries(view, false, exact->request.threads, exact->request.arena, &converted));
    exact->query_rows = (const unsigned char *)converted;
    exact->query_stride = exact->dim * sizeof *converted;
    return KITH_OK;
}

/* The norm, far more exact than f32: the tile's bounds rest on it. Eight sums, so that none waits for the one before. */
static double exact_norm(const float *vector, size_t dim) {
    double sums[8] = {0}, sum = 0;
    size_t i = 0;
    for (; i + 8 <= dim; i += 8)
        for (size_t s = 0; s < 8; s++) sums[s] += (double)vector[i + s] * (double)vector[i + s];
    for (; i < dim; i++) sum += (double)vector[i] * (double)vector[i];
    for (size_t s = 0; s < 8; s++) sum += sums[s];
    return sqrt(sum);
}

static kith_status take_query_norms(kith_exact *exact) {
    kith_arena *arena = exact->request.arena;
    size_t n = exact->query_count;
    if (exact->int_pair != NULL) {
        KITH_TRY(kith_arena_take(arena, n, sizeof *exact->query_norm2_int, &exact->query_norm2_int));
        for (size_t q = 0; q < n; q++) {
            const void *row = exact->query_rows + q * exact->query_stride;
            exact->query_norm2_int[q] = exact->request.row_dtype == KITH_U8
                                            ? exact->simd->norm2_u8(row, exact->dim)
                                            : exact->simd->norm2_i8(row, exact->dim);
        }
        return KITH_OK;
    }
    KITH_TRY(kith_arena_take(arena, n, sizeof *exact->query_norm, &exact->query_norm));
    KITH_TRY(kith_arena_take(arena, n, sizeof *exact->query_inverse_norm, &exact->query_inverse_norm));
    for (size_t q = 0; q < n; q++) {
        const float *row = (const float *)(const void *)(exact->query_rows + q * exact->query_stride);
        if (!exact->request.gathers) exact->query_norm[q] = exact_norm(row, exact->dim);
        if (exact->request.metric == KITH_COSINE)
            exact->query_inverse_norm[q] = kith_exact_inverse_norm(row, KITH_F32, exact->dim);
    }
    return KITH_OK;
}

static void plan_tiles(kith_exact *exact) {
    const kith_simd_table *simd = exact->simd;
    bool integer = exact->int_pair != NULL;
    exact->query_lanes = integer ? simd->tile_i8.query_lanes : simd->tile_f32.query_lanes;
    exact->row_lanes = integer ? simd->tile_i8.row_lanes : simd->tile_f32.row_lanes;
    size_t group = integer ? simd->tile_i8.group : 1;
    exact->words = exact->dim / group + (exact->dim % group != 0);
    size_t panels = panel_bytes_max / (exact->words * sizeof(uint32_t) * exact->row_lanes);
    size_t panels_max = KITH_EXACT_BLOCK_ROWS / exact->row_lanes;
    exact->block_rows = exact->row_lanes * (panels < 1 ? 1 : kith_min_size(panels, panels_max));
}

static kith_status take_worker(const kith_exact *exact, kith_exact_worker *worker) {
    kith_arena *arena = exact->request.arena;
    bool tiles = exact->packed_queries != NULL || exact->request.by_members;
    size_t lanes = tiles ? exact->query_lanes : 1, rows = KITH_EXACT_BLOCK_ROWS;
    *worker = (kith_exact_worker){0};
    KITH_TRY(kith_arena_take(arena, lanes * rows, sizeof(uint32_t), &worker->values));
    KITH_TRY(kith_arena_take(arena, rows, sizeof *worker->positions, &worker->positions));
    KITH_TRY(kith_arena_take(arena, rows, sizeof *worker->inverse_norms, &worker->inverse_norms));
    if (!tiles) return KITH_OK;
    KITH_TRY(kith_arena_take(arena, rows, sizeof(uint32_t), &worker->bias));
    KITH_TRY(kith_arena_take(arena, exact->block_rows, exact->words * sizeof(uint32_t), &worker->panel));
    KITH_TRY(kith_arena_take(arena, exact->row_lanes, exact->words * sizeof(uint32_t), &worker->words));
    KITH_TRY(kith_arena_take(arena, rows, sizeof *worker->row_at, &worker->row_at));
    KITH_TRY(kith_arena_take(arena, rows, sizeof *worker->ids, &worker->ids));
    if (exact->request.by_members)
        KITH_TRY(kith_arena_take(arena, exact->query_lanes, exact->words * sizeof(uint32_t), &worker->members));
    return kith_arena_take(arena, rows, sizeof *worker->norm2, &worker->norm2);
}

static kith_status prepare(kith_exact *exact) {
    kith_arena *arena = exact->request.arena;
    bool by_members = exact->request.by_members, integer = is_integer_request(&exact->request);
    if (by_members && integer) return kith_error(KITH_ERR_INTERNAL, "members of an integer batch");
    kith_dtype row_dtype = exact->request.row_dtype;
    exact->op = exact->request.metric == KITH_L2 ? KITH_OP_L2SQ : KITH_OP_IP;
    if (integer)
        exact->int_pair = kith_simd_ints(exact->simd, exact->op, row_dtype, row_dtype);
    else
        exact->float_pair = kith_simd_floats(exact->simd, exact->op, KITH_F32, row_dtype);
    if (exact->int_pair == NULL && exact->float_pair == NULL)
        return kith_error(KITH_ERR_TYPE, "search: no kernels for rows of type %s", kith_dtype_name(row_dtype));
    KITH_TRY(take_queries(exact));
    if (exact->request.gathers && !integer) KITH_TRY(kith_exact_take_whole(exact));
    if (exact->request.gathers && exact->request.metric != KITH_COSINE) return KITH_OK;
    KITH_TRY(take_query_norms(exact));
    if (exact->request.gathers) return KITH_OK;
    plan_tiles(exact);
    if (exact->query_lanes > KITH_EXACT_LANES_MAX)
        return kith_error(KITH_ERR_INTERNAL, "a tile of %zu queries", exact->query_lanes);
    if (!by_members &&
        exact->query_count >= (integer ? (size_t)INT_TILE_QUERIES_MIN : (size_t)FLOAT_TILE_QUERIES_MIN))
        KITH_TRY(kith_exact_pack_queries(exact));
    exact->worker_count = exact->request.threads;
    KITH_TRY(kith_arena_take(arena, exact->worker_count, sizeof *exact->workers, &exact->workers));
    for (size_t w = 0; w < exact->worker_count; w++) KITH_TRY(take_worker(exact, &exact->workers[w]));
    return KITH_OK;
}

kith_status kith_exact_open(const kith_exact_request *request, kith_exact **out) {
    kith_exact *exact;
    *out = NULL;
    KITH_TRY(kith_arena_take(request->arena, 1, sizeof *exact, &exact));
    *exact = (kith_exact){.request = *request,
                          .simd = kith_simd(),
                          .dim = request->queries.dim,
                          .query_count = request->queries.count};
    KITH_TRY(prepare(exact));
    *out = exact;
    return KITH_OK;
}

/* ---- Hits ---------------------------------------------------------------------------------------------- */

kith_status kith_hit_list_append(kith_hit_list *list, const kith_hit *hit) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity != 0 ? 2 * list->capacity : 16;
        KITH_TRY(kith_realloc(&list->hits, list->count, capacity, sizeof *list->hits));
        list->capacity = capacity;
    }
    list->hits[list->count++] = *hit;
    return KITH_OK;
}

kith_status kith_exact_keep(const kith_exact_sinks *sinks, size_t query, int32_t key, int64_t id) {
    if (sinks->tops != NULL) {
        kith_topk_push(&sinks->tops[query], key, id, 0);
        return KITH_OK;
    }
    return kith_hit_list_append(&sinks->lists[query], &(kith_hit){.id = id, .key = key});
}

/* ---- Sharing the work between threads ------------------------------------------------------------------- */

/* A task takes one group of queries through one part of the rows. With several parts each part has selections of
 * its own, merged at the end: hits have a total order, so the result does not depend on the split. */
typedef struct plan {
    kith_exact *exact;
    const kith_rows *rows;
    size_t group_count, part_count, group_queries;
    const kith_exact_sinks *sinks; /* part_count of them; sinks[0] is the caller's */
} plan;

static kith_status run_task(void *context, size_t item, size_t worker_index) {
    const plan *work = context;
    kith_exact *exact = work->exact;
    size_t part = item % work->part_count, group = item / work->part_count;
    size_t query_first = group * work->group_queries;
    size_t query_last = kith_min_size(query_first + work->group_queries, exact->query_count);
    size_t part_rows = work->rows->count / work->part_count + 1;
    size_t row_first = kith_min_size(part * part_rows, work->rows->count);
    size_t row_last = kith_min_size(row_first + part_rows, work->rows->count);
    kith_exact_worker *worker = &exact->workers[worker_index];
    return (exact->packed_queries != NULL ? kith_exact_tiles : kith_exact_stream)(
        exact, work->rows, worker, NULL, query_first, query_last, row_first, row_last, &work->sinks[part]);
}

static void split_queries(plan *work) {
    const kith_exact *exact = work->exact;
    size_t threads = exact->request.threads, unit = exact->packed_queries != NULL ? exact->query_lanes : 1;
    size_t units = (exact->query_count + unit - 1) / unit;
    size_t groups =
        threads * ((exact->query_count + threads * GROUP_QUERIES_MAX - 1) / (threads * GROUP_QUERIES_MAX));
    size_t group_units = (units + groups - 1) / groups;
    work->group_queries = group_units * unit;
    work->group_count = (units + group_units - 1) / group_units;
    work->part_count = 1;
}

static void split_rows(plan *work) {
    const kith_exact *exact = work->exact;
    work->group_queries = exact->query_count;
    work->group_count = 1;
    work->part_count = kith_min_size(exact->request.threads, work->rows->count / KITH_EXACT_BLOCK_ROWS + 1);
}

/* Few queries: the rows are split, unless the selections of all parts would take too much memory. */
static void make_plan(plan *work, const kith_exact_sinks *sinks) {
    const kith_exact *exact = work->exact;
    size_t threads = exact->request.threads;
    size_t unit = exact->packed_queries != NULL ? exact->query_lanes : 1;
    size_t bytes = sinks->tops != NULL ? kith_topk_capacity(sinks->tops[0].k) * sizeof(kith_hit) : 1;
    bool fits = bytes <= local_bytes_max / threads / exact->query_count;
    bool few = exact->packed_queries == NULL || exact->query_count < threads * unit;
    if (threads > 1 && few && fits)
        split_rows(work);
    else
        split_queries(work);
}

static kith_status run_parts_with_tops(plan *work, const kith_exact_sinks *own, kith_exact_sinks *sinks) {
    size_t n = work->exact->query_count, parts = work->part_count, k = own->tops[0].k;
    kith_topk *tops = NULL;
    kith_hit *hits = NULL;
    kith_status status;
    KITH_GO(kith_alloc(n * (parts - 1), sizeof *tops, &tops));
    KITH_GO(kith_alloc(n * (parts - 1), kith_topk_capacity(k) * sizeof *hits, &hits));
    for (size_t i = 0; i < n * (parts - 1); i++) kith_topk_init(&tops[i], hits + i * kith_topk_capacity(k), k);
    for (size_t p = 1; p < parts; p++) sinks[p] = (kith_exact_sinks){.tops = tops + (p - 1) * n};
    KITH_GO(kith_parallel_for(work->exact->request.threads, parts, run_task, work));
    for (size_t i = 0; i < n * (parts - 1); i++)
        for (size_t h = 0; h < tops[i].count; h++)
            kith_topk_push(&own->tops[i % n], tops[i].hits[h].key, tops[i].hits[h].id, 0);
done:
    kith_free(hits);
    kith_free(tops);
    return status;
}

static kith_status run_parts_with_lists(plan *work, const kith_exact_sinks *own, kith_exact_sinks *sinks) {
    size_t n = work->exact->query_count, parts = work->part_count;
    kith_hit_list *lists = NULL;
    kith_status status;
    KITH_GO(kith_alloc_zeroed(n * (parts - 1), sizeof *lists, &lists));
    for (size_t p = 1; p < parts; p++)
        sinks[p] = (kith_exact_sinks){.lists = lists + (p - 1) * n, .range_key_max = own->range_key_max};
    KITH_GO(kith_parallel_for(work->exact->request.threads, parts, run_task, work));
    for (size_t i = 0; i < n * (parts - 1); i++)
        for (size_t h = 0; h < lists[i].count; h++)
            KITH_GO(kith_hit_list_append(&own->lists[i % n], &lists[i].hits[h]));
done:
    if (lists != NULL)
        for (size_t i = 0; i < n * (parts - 1); i++) kith_free(lists[i].hits);
    kith_free(lists);
    return status;
}

static kith_status run(kith_exact *exact, const kith_rows *rows, const kith_exact_sinks *own) {
    if (exact->query_count == 0 || rows->count == 0) return KITH_OK;
    plan work = {.exact = exact, .rows = rows, .sinks = own};
    make_plan(&work, own);
    if (work.part_count == 1) return kith_parallel_for(exact->request.threads, work.group_count, run_task, &work);
    kith_exact_sinks *sinks;
    KITH_TRY(kith_alloc(work.part_count, sizeof *sinks, &sinks));
    sinks[0] = *own;
    work.sinks = sinks;
    kith_status status =
        own->tops != NULL ? run_parts_with_tops(&work, own, sinks) : run_parts_with_lists(&work, own, sinks);
    kith_free(sinks);
    return status;
}

kith_status kith_exact_topk(kith_exact *exact, const kith_rows *rows, kith_topk *tops) {
    return run(exact, rows, &(kith_exact_sinks){.tops = tops});
}

/* The largest key within the radius. Keys of integer pairs are the integers themselves. */
static int32_t range_key_max(const kith_exact *exact, float radius) {
    float bound = exact->op == KITH_OP_L2SQ ? radius : -radius;
    if (exact->int_pair == NULL) return kith_key_f32(bound);
    double whole = floor((double)bound);
    return whole >= INT32_MAX ? INT32_MAX : whole <= -INT32_MAX ? -INT32_MAX : (int32_t)whole;
}

kith_status kith_exact_range(kith_exact *exact, const kith_rows *rows, float radius, kith_hit_list *lists) {
    return run(exact, rows, &(kith_exact_sinks){.lists = lists, .range_key_max = range_key_max(exact, radius)});
}

kith_status kith_exact_offer(kith_exact *exact, const kith_rows *rows, const uint32_t *members, size_t member_count,
                             size_t worker, kith_topk *tops, kith_hit_list *lists, float radius) {
    kith_exact_sinks sinks = {.tops = tops, .lists = lists};
    if (tops == NULL) sinks.range_key_max = range_key_max(exact, radius);
    return (member_count >= FLOAT_TILE_QUERIES_MIN ? kith_exact_tiles : kith_exact_stream)(
        exact, rows, &exact->workers[worker], members, 0, member_count, 0, rows->count, &sinks);
}

kith_status kith_exact_offer_gathered(kith_exact *exact, const void *const *rows, const int64_t *ids, size_t count,
                                      const uint32_t *members, size_t member_count, size_t worker, kith_topk *tops,
                                      kith_hit_list *lists, float radius) {
    kith_exact_sinks sinks = {.tops = tops, .lists = lists};
    if (tops == NULL) sinks.range_key_max = range_key_max(exact, radius);
    if (member_count < FLOAT_TILE_QUERIES_MIN || 2 * count < exact->row_lanes) /* they would not fill tiles */
        return kith_exact_stream_gathered(exact, rows, ids, count, members, member_count, &sinks);
    return kith_exact_tiles_gathered(exact, rows, ids, count, &exact->workers[worker], members, member_count,
                                     &sinks);
}
