/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_search.c: searches of inverted lists.
 *
 * Queries are worked on in groups, each by one worker, so that nothing is shared and the number of threads changes no
 * result. A group goes list by list: its pairs of query and list are sorted by list, each list is read once for all its
 * queries, up to 16 of them against the same blocks, and a SIMD compare drops what is not among a query's k best so
 * far. The nearest lists of all queries come before all others: they lower the thresholds. A group of a few queries
 * goes query by query.
 *
 * Under a filter lists that hold nothing allowed are passed over, and more are read where few of the vectors in them are
 * allowed: ivf_filtered.c.
 *
 * The coarse step holds the query against 8-bit codes of the centroids, takes some more lists than asked for, and
 * orders these by their exact distance. Where there is an index of the centroids, that finds the lists of all queries
 * beforehand.
 *
 * Where a vector stands in two lists, twice as many hits are kept, and of those with one id the better one stays.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "index/convert.h"
#include "index/filter.h"
#include "ivf/ivf_inside.h"
#include "simd/simd.h"
#include "sq/sq.h"

enum {
    STRIP_BLOCKS = 16, /* blocks of a list whose estimates, for 16 queries, stay in the first-level cache */
    STRIP = STRIP_BLOCKS * KITH_BLOCK_ROWS,
    GROUP_MAX = 1024,
    GROUP_SMALL = 4, /* so few queries hardly share a list */
    PROBE_MARGIN = 8,
    GATHER = 256,    /* raw vectors that are copied together */
    GATHER_SHARE = 4 /* where fewer than one in so many are allowed */
};
static const size_t group_bytes_max = (size_t)4 << 20; /* prepared queries and probes of a group */

#define NO_LIST UINT32_MAX /* as the `before` of a probe that stands for no list */
/* A list to be read for a query: the query's base there, and how many of its codes may be looked at. The codes that a
 * query looks at are counted from its nearest list on, so that a number says where a hit lies. */
typedef struct probe {
    uint32_t list;
    float base;
    size_t limit;
    uint32_t before; /* codes of nearer lists */
} probe;

/* The same, sorted by list. */
typedef struct visit {
    uint32_t query; /* in the group */
    float base;
    size_t limit;
    uint32_t before;
} visit;

typedef struct worker_scratch {
    unsigned char *prepared;        /* group_size x code->query_bytes */
    unsigned char *coarse_prepared; /* KITH_CODE_QUERIES_MAX x coarse_code->query_bytes */
    float *estimates;               /* KITH_CODE_QUERIES_MAX x STRIP */
    uint32_t *positions;            /* STRIP */
    kith_hit *coarse_hits;          /* KITH_CODE_QUERIES_MAX x kith_topk_capacity(coarse_k) */
    probe *probes;                  /* group_size x nprobe */
    visit *visits;                  /* group_size x nprobe */
    size_t *list_first;             /* list_count + 1 */
    unsigned char *rows;            /* filter: GATHER raw vectors, and their ids */
    int64_t *row_ids;
    uint32_t *members; /* group_size: the queries of a list, for exact codes */
    uint32_t *lists;   /* group_size x nprobe: the lists that have visits, in order */
    uint32_t *table;   /* table_size of the call, where vectors have two copies */
    float *spreads;    /* nprobe: of one query, for errors */
} worker_scratch;

typedef struct ivf_call {
    const kith_ivf *ivf;
    const kith_search_request *request;
    size_t query_count, nprobe, coarse_k, group_size, group_count;
    float *queries;         /* query_count x dim, f32, of unit length under cosine */
    const float *projected; /* query_count x projected_dim */
    kith_topk *tops;        /* query_count, or NULL */
    kith_hit_list *lists;   /* query_count, or NULL */
    float radius;           /* of range search, as an estimate */
    kith_exact *exact;      /* the queries as exact search takes them, for raw codes; NULL else */
    float *errors;          /* query_count x k, or NULL */
    int64_t *near; /* query_count x coarse_k: the lists that the index of centroids finds; NULL: there is none */
    size_t *near_counts;      /* query_count */
    size_t top_k, table_size; /* hits that are kept: k of each copy; a power of two above twice as many */
    worker_scratch *workers;
    kith_ivf_filtered filtered; /* where there is a filter */
    size_t probes_wanted;       /* lists that a query reads at least; nprobe is how many at most */
} ivf_call;

/* ---- Queries -------------------------------------------------------------------------------------------------- */

typedef struct convert_loop {
    const ivf_call *call;
    float *out;
} convert_loop;

enum { CONVERT_ROWS = 64 };

static kith_status convert_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const convert_loop *loop = context;
    const kith_view *view = &loop->call->request->queries;
    size_t dim = view->dim, first = item * CONVERT_ROWS;
    size_t last = kith_min_size(view->count, first + CONVERT_ROWS);
    for (size_t q = first; q < last; q++) kith_ivf_row(loop->call->ivf->base.metric, view, q, loop->out + q * dim);
    return KITH_OK;
}

static kith_status take_queries(ivf_call *call) {
    const kith_search_request *request = call->request;
    const kith_code *code = call->ivf->code;
    size_t count = call->query_count;
    KITH_TRY(kith_arena_take(request->arena, count * code->dim, sizeof(float), &call->queries));
    convert_loop loop = {call, call->queries};
    KITH_TRY(kith_parallel_for(request->threads, (count - 1) / CONVERT_ROWS + 1, convert_item, &loop));
    call->projected = call->queries;
    if (code->vtable->project == NULL) return KITH_OK;
    float *projected;
    KITH_TRY(kith_arena_take(request->arena, count * code->projected_dim, sizeof(float), &projected));
    call->projected = projected;
    return kith_code_project_queries(code, call->queries, count, request->threads, request->arena, projected);
}

/* ---- Scratch memory ------------------------------------------------------------------------------------------- */

static kith_status take_worker(const ivf_call *call, worker_scratch *scratch) {
    kith_arena *arena = call->request->arena;
    const kith_ivf *ivf = call->ivf;
    size_t probes = call->group_size * call->nprobe;
    KITH_TRY(kith_arena_take(arena, call->group_size, ivf->code->query_bytes, &scratch->prepared));
    if (ivf->coarse_code != NULL)
        KITH_TRY(kith_arena_take(arena, KITH_CODE_QUERIES_MAX, ivf->coarse_code->query_bytes,
                                 &scratch->coarse_prepared));
    KITH_TRY(kith_arena_take(arena, KITH_CODE_QUERIES_MAX * STRIP, sizeof(float), &scratch->estimates));
    KITH_TRY(kith_arena_take(arena, STRIP, sizeof(uint32_t), &scratch->positions));
    KITH_TRY(kith_arena_take(arena, KITH_CODE_QUERIES_MAX * kith_topk_capacity(call->coarse_k), sizeof(kith_hit),
                             &scratch->coarse_hits));
    KITH_TRY(kith_arena_take(arena, probes, sizeof(probe), &scratch->probes));
    KITH_TRY(kith_arena_take(arena, probes, sizeof(visit), &scratch->visits));
    KITH_TRY(kith_arena_take(arena, probes, sizeof(uint32_t), &scratch->lists));
    KITH_TRY(kith_arena_take(arena, call->group_size, sizeof(uint32_t), &scratch->members));
    if (call->table_size > 0)
        KITH_TRY(kith_arena_take(arena, call->table_size, sizeof *scratch->table, &scratch->table));
    if (call->errors != NULL) KITH_TRY(kith_arena_take(arena, call->nprobe, sizeof(float), &scratch->spreads));
    if (call->request->filter != NULL && ivf->code->is_exact) {
        KITH_TRY(kith_arena_take(arena, GATHER, ivf->code->code_bytes, &scratch->rows));
        KITH_TRY(kith_arena_take(arena, GATHER, sizeof *scratch->row_ids, &scratch->row_ids));
    }
    return kith_arena_take(arena, ivf->list_count + 1, sizeof(size_t), &scratch->list_first);
}

static void plan_groups(ivf_call *call) {
    size_t each = call->ivf->code->query_bytes + call->nprobe * (sizeof(probe) + sizeof(visit) + sizeof(uint32_t));
    size_t most = kith_min_size(GROUP_MAX, kith_max_size(1, group_bytes_max / each));
    size_t share = (call->query_count - 1) / call->request->threads + 1;
    call->group_size = kith_min_size(most, share);
    call->group_count = (call->query_count - 1) / call->group_size + 1;
}

static kith_status take_scratch(ivf_call *call) {
    plan_groups(call);
    size_t workers = kith_min_size(call->request->threads, call->group_count);
    KITH_TRY(kith_arena_take(call->request->arena, workers, sizeof *call->workers, &call->workers));
    for (size_t w = 0; w < workers; w++) KITH_TRY(take_worker(call, &call->workers[w]));
    return KITH_OK;
}

/* ---- The coarse step ------------------------------------------------------------------------------------------ */

/* The positions of the estimates that a selection may still take. Where it would take many, its threshold is lowered
 * beforehand by a bound on the k-th of them: that is sound as long as all of them are offered (`all_allowed`). */
static size_t candidates(kith_topk *top, const float *estimates, size_t count, bool all_allowed,
                         uint32_t *positions) {
    const kith_simd_table *simd = kith_simd();
    size_t kept = count;
    if (top->key_max != INT32_MAX)
        kept = simd->filter_below_f32(estimates, count, kith_exact_value_max(top->key_max), positions);
    if (all_allowed && kept >= top->k + top->k / 2) {
        int32_t key = kith_key_f32(simd->matrix.bound(estimates, count, top->k));
        if (key < top->key_max) {
            top->key_max = key;
            return simd->filter_below_f32(estimates, count, kith_exact_value_max(key), positions);
        }
    }
    return top->key_max != INT32_MAX ? kept : simd->filter_below_f32(estimates, count, INFINITY, positions);
}

/* Offers a run of estimates, whose numbers go on from `first`, to a selection. */
static void offer_lists(kith_topk *top, const float *estimates, size_t first, size_t count, uint32_t *positions) {
    size_t kept = candidates(top, estimates, count, true, positions);
    for (size_t i = 0; i < kept; i++)
        kith_topk_push(top, kith_key_f32(estimates[positions[i]]), (int64_t)(first + positions[i]), 0);
}

/* Squared distances or negated inner products of a query to `count` centroids from `list` on. */
static void centroid_distances(const kith_ivf *ivf, const float *query, size_t list, size_t count, float *out) {
    size_t dim = ivf->code->projected_dim;
    bool is_l2 = ivf->code->metric == KITH_L2;
    kith_simd()->floats[is_l2 ? KITH_OP_L2SQ : KITH_OP_IP][KITH_PAIR_F32_F32].block(
        query, ivf->projected + list * dim, dim * sizeof(float), count, dim, out);
    for (size_t i = 0; !is_l2 && i < count; i++) out[i] = -out[i];
}

/* Asks the index of centroids for the lists of all queries at once. */
static kith_status ask_index(ivf_call *call) {
    const kith_search_request *request = call->request;
    const kith_index *coarse = call->ivf->coarse;
    size_t dim = call->ivf->base.dim, count = call->query_count;
    if (coarse == NULL) return KITH_OK;
    KITH_TRY(kith_arena_take(request->arena, count * call->coarse_k, sizeof *call->near, &call->near));
    KITH_TRY(kith_arena_take(request->arena, count, sizeof *call->near_counts, &call->near_counts));
    kith_search_params params;
    kith_search_params_init(&params);
    params.ef = request->params->ef;
    kith_meter meter;
    kith_meter_init(&meter, NULL, NULL, "lists", 0);
    const kith_search_request own = {
        .queries =
            {.data = call->queries, .dtype = KITH_F32, .count = count, .dim = dim, .stride = dim * sizeof(float)},
        .k = call->coarse_k,
        .threads = request->threads,
        .params = &params,
        .meter = &meter,
        .arena = request->arena,
    };
    const kith_search_results results = {.k = call->coarse_k, .ids = call->near, .counts = call->near_counts};
    return coarse->vtable->search(coarse, &own, &results);
}

/* The lists that it has found for a query. A mapped index that nobody has verified may give any number. */
static void take_near(const ivf_call *call, size_t query, kith_topk *top) {
    const int64_t *lists = call->near + query * call->coarse_k;
    for (size_t i = 0; i < call->near_counts[query]; i++)
        if ((uint64_t)lists[i] < call->ivf->list_count) top->hits[top->count++] = (kith_hit){.id = lists[i]};
}

/* Lists that hold nothing allowed come last. */
static void put_empty_last(const ivf_call *call, size_t list, size_t count, float *estimates) {
    for (size_t i = 0; i < count; i++)
        if (kith_ivf_filtered_count(&call->filtered, list + i) == 0) estimates[i] = INFINITY;
}

/* The coarse_k lists nearest to up to 16 queries by the centroids' codes, or by their distances where there is no
 * such code; with `is_picky` only those that hold an allowed vector. */
static void find_lists(const ivf_call *call, worker_scratch *scratch, size_t first, size_t count, bool is_picky,
                       kith_topk *tops) {
    const kith_ivf *ivf = call->ivf;
    const kith_code *coarse = ivf->coarse_code;
    size_t dim = ivf->code->projected_dim;
    const void *prepared[KITH_CODE_QUERIES_MAX];
    const float bases[KITH_CODE_QUERIES_MAX] = {0};
    bool asks = call->near != NULL && !is_picky; /* that index knows no filter */
    for (size_t q = 0; q < count; q++) {
        kith_topk_init(&tops[q], scratch->coarse_hits + q * kith_topk_capacity(call->coarse_k), call->coarse_k);
        if (asks) take_near(call, first + q, &tops[q]);
        if (coarse == NULL) continue;
        void *query = scratch->coarse_prepared + q * coarse->query_bytes;
        coarse->vtable->prepare(coarse, call->projected + (first + q) * dim, query);
        prepared[q] = query;
    }
    for (size_t list = 0; list < ivf->list_count && !asks; list += STRIP) {
        size_t lists = kith_min_size(STRIP, ivf->list_count - list);
        if (coarse != NULL)
            coarse->vtable->scan(coarse, prepared, bases, count,
                                 ivf->coarse_blocks + list / KITH_BLOCK_ROWS * coarse->block_bytes,
                                 kith_code_blocks(lists), scratch->estimates, STRIP);
        for (size_t q = 0; q < count; q++) {
            float *estimates = scratch->estimates + q * STRIP;
            if (coarse == NULL)
                centroid_distances(ivf, call->projected + (first + q) * dim, list, lists, estimates);
            if (is_picky) put_empty_last(call, list, lists, estimates);
            offer_lists(&tops[q], estimates, list, lists, scratch->positions);
        }
    }
}

/* Replaces estimates by distances. */
static void measure_lists(const kith_ivf *ivf, const float *query, kith_hit *hits, size_t count) {
    size_t dim = ivf->code->projected_dim;
    bool is_l2 = ivf->code->metric == KITH_L2;
    const kith_float_kernels *pair = &kith_simd()->floats[is_l2 ? KITH_OP_L2SQ : KITH_OP_IP][KITH_PAIR_F32_F32];
    for (size_t i = 0; i < count; i += 4) {
        const void *rows[4];
        float distances[4];
        for (size_t r = 0; r < 4; r++)
            rows[r] = ivf->projected + (size_t)hits[kith_min_size(i + r, count - 1)].id * dim;
        pair->four(query, rows, dim, distances);
        for (size_t r = 0; r < 4 && i + r < count; r++)
            hits[i + r].key = kith_key_f32(is_l2 ? distances[r] : -distances[r]);
    }
}

/* The vectors in all lists of a centroid. */
static size_t centroid_count(const kith_ivf *ivf, size_t list) {
    size_t count = 0;
    for (size_t c = 0; c < ivf->copies; c++) count += ivf->lists[list * ivf->copies + c].count;
    return count;
}

/* Cuts the first `count` probes where the bound on distances is reached. */
static void set_limits(const ivf_call *call, probe *probes, size_t count) {
    uint64_t left = call->request->params->max_distances;
    if (left == 0) left = UINT64_MAX;
    size_t before = 0;
    for (size_t p = 0; p < count; p++) {
        size_t size = centroid_count(call->ivf, probes[p].list);
        probes[p].limit = size <= left ? size : (size_t)left;
        probes[p].before = (uint32_t)before; /* read only where there are fewer than 2^32 */
        left -= probes[p].limit;
        before += probes[p].limit;
    }
}

static probe probe_of(const ivf_call *call, const kith_hit *hit, float base) {
    const kith_ivf *ivf = call->ivf;
    bool is_distance = ivf->by_residual && !ivf->code->is_exact;
    return (probe){.list = (uint32_t)hit->id, .base = is_distance ? kith_key_to_f32(hit->key) : base};
}

/* The nearest lists that hold allowed vectors, until they are enough; false: the ranked lists are not. */
static bool pick_probes(const ivf_call *call, const kith_topk *top, float base, probe *probes, size_t *count) {
    const kith_ivf_filtered *filtered = &call->filtered;
    size_t wanted = kith_max_size(call->top_k, kith_ivf_filtered_wanted(filtered, call->probes_wanted));
    size_t taken = 0, allowed = 0;
    for (size_t i = 0; i < top->count && taken < call->nprobe; i++) {
        size_t here = kith_ivf_filtered_count(filtered, (size_t)top->hits[i].id);
        if (here == 0) continue;
        if (taken >= call->probes_wanted && allowed >= wanted) break;
        allowed += here;
        probes[taken++] = probe_of(call, &top->hits[i], base);
    }
    *count = taken;
    return taken == call->nprobe || (taken >= call->probes_wanted && allowed >= wanted);
}

/* The probes of query number `query` of the call, nearest list first; false: other lists have to be found. */
static bool settle_probes(const ivf_call *call, size_t query, kith_topk *top, probe *probes) {
    const kith_ivf *ivf = call->ivf;
    const kith_code *code = ivf->code;
    const float *vector = call->projected + query * code->projected_dim;
    bool is_enough = true;
    if (ivf->coarse_code != NULL || ivf->coarse != NULL) {
        kith_topk_shrink(top);
        measure_lists(ivf, vector, top->hits, top->count);
    }
    kith_topk_finish(top);
    float base = ivf->by_residual ? 0 : kith_code_base(code, vector, NULL);
    for (size_t p = 0; p < call->nprobe; p++) /* an index may find fewer, and so may a filter */
        probes[p] = (probe){.before = NO_LIST};
    size_t count = kith_min_size(call->nprobe, top->count);
    if (call->request->filter != NULL)
        is_enough = pick_probes(call, top, base, probes, &count);
    else
        for (size_t p = 0; p < count; p++) probes[p] = probe_of(call, &top->hits[p], base);
    set_limits(call, probes, count);
    return is_enough;
}

static void find_probes(const ivf_call *call, worker_scratch *scratch, size_t first, size_t count) {
    const kith_ivf *ivf = call->ivf;
    kith_topk tops[KITH_CODE_QUERIES_MAX];
    for (size_t q = 0; q < count; q += KITH_CODE_QUERIES_MAX) {
        size_t tile = kith_min_size(KITH_CODE_QUERIES_MAX, count - q);
        if (!ivf->has_coarse) {
            for (size_t i = 0; i < tile; i++) {
                const float *vector = call->projected + (first + q + i) * ivf->code->projected_dim;
                scratch->probes[q + i] = (probe){.base = kith_code_base(ivf->code, vector, NULL)};
                if (call->request->filter != NULL) (void)kith_ivf_filtered_count(&call->filtered, 0);
                set_limits(call, &scratch->probes[q + i], 1);
            }
            continue;
        }
        find_lists(call, scratch, first + q, tile, false, tops);
        bool is_enough[KITH_CODE_QUERIES_MAX];
        for (size_t i = 0; i < tile; i++)
            is_enough[i] = settle_probes(call, first + q + i, &tops[i], scratch->probes + (q + i) * call->nprobe);
        for (size_t i = 0; i < tile; i++) {
            if (is_enough[i]) continue;
            find_lists(call, scratch, first + q + i, 1, true, tops);
            (void)settle_probes(call, first + q + i, tops, scratch->probes + (q + i) * call->nprobe);
        }
    }
}

/* ---- Reading lists -------------------------------------------------------------------------------------------- */

/* A query of the tile that reads a list. */
typedef struct reader {
    size_t query; /* of the call */
    size_t limit; /* codes of the list that it may look at */
    uint32_t before;
} reader;

static void keep_in_top(const ivf_call *call, kith_topk *top, const float *estimates, size_t count,
                        const kith_list_segment *segment, size_t first, uint32_t number, uint32_t *positions) {
    kith_allow_fn allow = kith_filter_allow_fn(call->request->filter);
    size_t kept = candidates(top, estimates, count, allow == NULL, positions);
    for (size_t i = 0; i < kept; i++) {
        int32_t key = kith_key_f32(estimates[positions[i]]);
        if (key > top->key_max) continue;
        int64_t id = kith_segment_id(call->ivf, segment, first + positions[i]);
        if (allow == NULL || allow(call->request->filter, id)) kith_topk_push(top, key, id, number + positions[i]);
    }
}

static kith_status keep_in_list(const ivf_call *call, kith_hit_list *list, const float *estimates, size_t count,
                                const kith_list_segment *segment, size_t first, uint32_t *positions) {
    kith_allow_fn allow = kith_filter_allow_fn(call->request->filter);
    size_t kept = kith_simd()->filter_below_f32(estimates, count, call->radius, positions);
    for (size_t i = 0; i < kept; i++) {
        int64_t id = kith_segment_id(call->ivf, segment, first + positions[i]);
        if (allow != NULL && !allow(call->request->filter, id)) continue;
        kith_hit hit = {.id = id, .key = kith_key_f32(estimates[positions[i]])};
        KITH_TRY(kith_hit_list_append(list, &hit));
    }
    return KITH_OK;
}

/* Keeps what a strip of estimates holds for one query. The strip begins at code `first` of its segment, which is code
 * `number` that the query looks at. */
static kith_status keep(const ivf_call *call, size_t query, const float *estimates, size_t count,
                        const kith_list_segment *segment, size_t first, uint32_t number, uint32_t *positions) {
    if (call->tops == NULL)
        return keep_in_list(call, &call->lists[query], estimates, count, segment, first, positions);
    keep_in_top(call, &call->tops[query], estimates, count, segment, first, number, positions);
    return KITH_OK;
}

/* A run of blocks of a segment. */
typedef struct block_run {
    size_t first, count; /* codes; `first` is a multiple of 32 */
} block_run;

/* The next run of blocks from code `at` of a segment to `end` that hold an allowed vector; all of them without a
 * filter. `before`: codes of the list before the segment. */
static block_run next_run(const ivf_call *call, size_t list, size_t before, size_t at, size_t end) {
    if (call->request->filter == NULL) return (block_run){at, end - at};
    while (at < end && kith_ivf_filtered_bits(&call->filtered, list, before + at) == 0) at += KITH_BLOCK_ROWS;
    size_t next = at;
    while (next < end && kith_ivf_filtered_bits(&call->filtered, list, before + next) != 0) next += KITH_BLOCK_ROWS;
    return at < end ? (block_run){at, kith_min_size(next, end) - at} : (block_run){end, 0};
}

/* Holds a list against up to 16 queries. */
static kith_status read_list(const ivf_call *call, const worker_scratch *scratch, const kith_list *list,
                             const void *const *prepared, const float *bases, const reader *readers,
                             size_t reader_count) {
    const kith_code *code = call->ivf->code;
    size_t limit = 0, before = 0; /* codes of the segments before */
    size_t number = (size_t)(list - call->ivf->lists);
    for (size_t r = 0; r < reader_count; r++) limit = kith_max_size(limit, readers[r].limit);
    for (size_t s = 0; s < list->segment_count && before < limit; s++) {
        const kith_list_segment *segment = &list->segments[s];
        size_t end = kith_min_size(segment->count, limit - before);
        for (size_t first = 0; first < end;) {
            block_run next = next_run(call, number, before, first, kith_min_size(end, first + STRIP));
            first = next.first + next.count;
            if (next.count == 0) continue;
            kith_segment_scan(code, segment, next.first, next.count, prepared, bases, reader_count,
                              scratch->estimates, STRIP);
            for (size_t r = 0; r < reader_count; r++) {
                size_t at = before + next.first;
                if (readers[r].limit <= at) continue;
                KITH_TRY(keep(call, readers[r].query, scratch->estimates + r * STRIP,
                              kith_min_size(next.count, readers[r].limit - at), segment, next.first,
                              readers[r].before + (uint32_t)at, scratch->positions));
            }
        }
        before += segment->count;
    }
    return KITH_OK;
}

/* Copies of the allowed vectors of a raw list, GATHER at a time. */
static kith_status read_gathered(const ivf_call *call, size_t worker, const kith_list *list,
                                 const uint32_t *members, size_t member_count, size_t limit) {
    const kith_ivf *ivf = call->ivf;
    worker_scratch *scratch = &call->workers[worker];
    size_t number = (size_t)(list - ivf->lists), row_bytes = ivf->code->code_bytes;
    kith_rows rows = {
        .dtype = kith_raw_dtype(ivf->code), .dim = ivf->code->dim, .base = scratch->rows, .stride = row_bytes};
    for (size_t at = 0; at < limit; at += KITH_BLOCK_ROWS) {
        for (uint32_t rest = kith_ivf_filtered_bits(&call->filtered, number, at); rest != 0; rest &= rest - 1) {
            size_t position = at + (size_t)__builtin_ctz(rest), place;
            if (position >= limit) break;
            const kith_list_segment *segment = kith_list_at(list, position, &place);
            memcpy(scratch->rows + rows.count * row_bytes, segment->blocks + place * row_bytes, row_bytes);
            scratch->row_ids[rows.count++] = kith_segment_id(ivf, segment, place);
        }
        if (rows.count == 0 || (rows.count + KITH_BLOCK_ROWS <= GATHER && at + KITH_BLOCK_ROWS < limit)) continue;
        unsigned char *id_table;
        kith_chunks ids;
        kith_chunks_view(&ids, sizeof(int64_t), scratch->row_ids, rows.count, &id_table);
        rows.ids = &ids;
        KITH_TRY(kith_exact_offer(call->exact, &rows, members, member_count, worker, call->tops, call->lists,
                                  call->request->radius));
        rows.count = 0;
    }
    return KITH_OK;
}

static bool is_sparse(const ivf_call *call, const kith_list *list) {
    if (call->request->filter == NULL) return false;
    return kith_ivf_filtered_list(&call->filtered, (size_t)(list - call->ivf->lists)) < list->count / GATHER_SHARE;
}

/* The same for raw vectors: products by tiles, for any number of queries with one limit. */
static kith_status read_raw_list(const ivf_call *call, size_t worker, const kith_list *list,
                                 const uint32_t *members, size_t member_count, size_t limit) {
    const kith_ivf *ivf = call->ivf;
    if (is_sparse(call, list)) return read_gathered(call, worker, list, members, member_count, limit);
    for (size_t s = 0; s < list->segment_count && limit > 0; s++) {
        const kith_list_segment *segment = &list->segments[s];
        size_t count = kith_min_size(segment->count, limit);
        unsigned char *id_table;
        kith_chunks ids;
        kith_rows rows = {.dtype = kith_raw_dtype(ivf->code),
                          .dim = ivf->code->dim,
                          .count = count,
                          .base = segment->blocks,
                          .stride = ivf->code->code_bytes};
        if (ivf->id_bytes == 4) {
            rows.ids_u32 = segment->ids;
        } else {
            kith_chunks_view(&ids, sizeof(int64_t), segment->ids, count, &id_table);
            rows.ids = &ids;
        }
        KITH_TRY(kith_exact_offer(call->exact, &rows, members, member_count, worker, call->tops, call->lists,
                                  call->request->radius));
        limit -= count;
    }
    return KITH_OK;
}

/* ---- Groups --------------------------------------------------------------------------------------------------- */

/* Sorts probes rank_first..rank_last - 1 of all queries by list, and returns how many lists they name. */
static size_t sort_probes(const ivf_call *call, worker_scratch *scratch, size_t count, size_t rank_first,
                          size_t rank_last) {
    size_t list_count = call->ivf->list_count, named = 0, at = 0;
    size_t *first = scratch->list_first;
    memset(first, 0, (list_count + 1) * sizeof *first);
    for (size_t q = 0; q < count; q++)
        for (size_t p = rank_first; p < rank_last; p++) {
            const probe *one = &scratch->probes[q * call->nprobe + p];
            if (one->limit > 0) first[one->list]++;
        }
    for (size_t list = 0; list < list_count; list++) {
        size_t visits = first[list];
        if (visits > 0) scratch->lists[named++] = (uint32_t)list;
        first[list] = at;
        at += visits;
    }
    for (size_t q = 0; q < count; q++)
        for (size_t p = rank_first; p < rank_last; p++) {
            const probe *one = &scratch->probes[q * call->nprobe + p];
            if (one->limit > 0)
                scratch->visits[first[one->list]++] = (visit){(uint32_t)q, one->base, one->limit, one->before};
        }
    return named; /* first[list] is now where the visits of the list end */
}

/* What is left of a limit behind the lists of a centroid that have been read. */
static size_t limit_behind(size_t limit, size_t read) { return limit > read ? limit - read : 0; }

/* One list for its visits at..end - 1; `read` vectors of the same centroid lie in the list before it. */
static kith_status read_visits(const ivf_call *call, worker_scratch *scratch, const kith_list *list, size_t read,
                               size_t query_first, size_t at, size_t end) {
    const kith_code *code = call->ivf->code;
    while (at < end) {
        const void *prepared[KITH_CODE_QUERIES_MAX];
        float bases[KITH_CODE_QUERIES_MAX];
        reader readers[KITH_CODE_QUERIES_MAX];
        size_t tile = 0;
        for (; tile < KITH_CODE_QUERIES_MAX && at < end; tile++, at++) {
            const visit *one = &scratch->visits[at];
            prepared[tile] = scratch->prepared + one->query * code->query_bytes;
            bases[tile] = one->base;
            readers[tile] =
                (reader){query_first + one->query, limit_behind(one->limit, read), one->before + (uint32_t)read};
        }
        KITH_TRY(read_list(call, scratch, list, prepared, bases, readers, tile));
    }
    return KITH_OK;
}

/* The same for raw vectors: those that see the whole list together, others one by one. */
static kith_status read_raw_visits(const ivf_call *call, worker_scratch *scratch, size_t worker,
                                   const kith_list *list, size_t read, size_t query_first, size_t at, size_t end) {
    size_t whole = 0;
    for (; at < end; at++) {
        const visit *one = &scratch->visits[at];
        uint32_t query = (uint32_t)(query_first + one->query);
        size_t limit = limit_behind(one->limit, read);
        if (limit >= list->count)
            scratch->members[whole++] = query;
        else
            KITH_TRY(read_raw_list(call, worker, list, &query, 1, limit));
    }
    return read_raw_list(call, worker, list, scratch->members, whole, list->count);
}

static kith_status read_by_list(const ivf_call *call, worker_scratch *scratch, size_t worker, size_t query_first,
                                size_t count, size_t rank_first, size_t rank_last) {
    size_t named = sort_probes(call, scratch, count, rank_first, rank_last), at = 0;
    for (size_t n = 0; n < named; n++) {
        size_t end = scratch->list_first[scratch->lists[n]], copies = call->ivf->copies, read = 0;
        for (size_t c = 0; c < copies; c++) {
            const kith_list *list = &call->ivf->lists[scratch->lists[n] * copies + c];
            if (call->exact != NULL)
                KITH_TRY(read_raw_visits(call, scratch, worker, list, read, query_first, at, end));
            else
                KITH_TRY(read_visits(call, scratch, list, read, query_first, at, end));
            read += list->count;
        }
        KITH_TRY(kith_meter_add(call->request->meter, 0)); /* a deadline */
        at = end;
    }
    return KITH_OK;
}

/* The lists of one probe of query number `query` of the call. */
static kith_status read_probe(const ivf_call *call, worker_scratch *scratch, size_t worker, size_t query,
                              const probe *one, const void *prepared) {
    size_t copies = call->ivf->copies, read = 0;
    for (size_t c = 0; c < copies && read < one->limit; c++) {
        const kith_list *list = &call->ivf->lists[one->list * copies + c];
        size_t limit = one->limit - read;
        reader by = {query, limit, one->before + (uint32_t)read};
        uint32_t member = (uint32_t)query;
        if (call->exact != NULL)
            KITH_TRY(read_raw_list(call, worker, list, &member, 1, limit));
        else
            KITH_TRY(read_list(call, scratch, list, &prepared, &one->base, &by, 1));
        read += list->count;
    }
    return KITH_OK;
}

static kith_status read_by_query(const ivf_call *call, worker_scratch *scratch, size_t worker, size_t query_first,
                                 size_t count) {
    for (size_t q = 0; q < count; q++)
        for (size_t p = 0; p < call->nprobe; p++) {
            KITH_TRY(read_probe(call, scratch, worker, query_first + q, &scratch->probes[q * call->nprobe + p],
                                scratch->prepared + q * call->ivf->code->query_bytes));
            KITH_TRY(kith_meter_add(call->request->meter, 0)); /* a deadline */
        }
    return KITH_OK;
}

/* ---- Vectors found twice ---------------------------------------------------------------------------------------- */

/* A power of two that is more than twice `count`. */
static size_t table_size_of(size_t count) {
    size_t size = 8;
    while (size <= 2 * count) size *= 2;
    return size;
}

/* Of hits with the same id keeps the better one, and returns how many are left. `table`: table_size_of(count). */
static size_t drop_repeats(kith_hit *hits, size_t count, uint32_t *table, size_t table_size) {
    size_t left = 0;
    memset(table, 0, table_size * sizeof *table); /* of what is left, number + 1 */
    for (size_t i = 0; i < count; i++) {
        kith_hit hit = hits[i];
        size_t at = (size_t)((uint64_t)hit.id * 0x9e3779b97f4a7c15u >> 32) & (table_size - 1);
        while (table[at] != 0 && hits[table[at] - 1].id != hit.id) at = (at + 1) & (table_size - 1);
        if (table[at] == 0) {
            hits[left++] = hit;
            table[at] = (uint32_t)left;
            continue;
        }
        kith_hit *other = &hits[table[at] - 1];
        if (hit.key < other->key || (hit.key == other->key && hit.row < other->row)) *other = hit;
    }
    return left;
}

/* Of a vector that was found in both of its lists the better estimate stays. Among the 2k best of all copies there are
 * the k best vectors. */
static kith_status merge_copies(const ivf_call *call, const worker_scratch *scratch, size_t query) {
    if (call->tops != NULL) {
        kith_topk *top = &call->tops[query];
        kith_topk_shrink(top);
        top->count = drop_repeats(top->hits, top->count, scratch->table, table_size_of(top->count));
        top->k = call->request->k;
        return KITH_OK;
    }
    kith_hit_list *list = &call->lists[query];
    uint32_t *table;
    size_t size = table_size_of(list->count);
    if (list->count > UINT32_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "search: %zu vectors within the radius", list->count);
    KITH_TRY(kith_alloc(size, sizeof *table, &table));
    list->count = drop_repeats(list->hits, list->count, table, size);
    kith_free(table);
    return KITH_OK;
}

/* ---- How far estimates may be off ---------------------------------------------------------------------------- */

/* |q - c| of a query and a list, c = 0 where codes are not of residuals. */
static float spread_of(const kith_ivf *ivf, const float *vector, size_t list) {
    const kith_float_kernels *l2 = &kith_simd()->floats[KITH_OP_L2SQ][KITH_PAIR_F32_F32];
    size_t dim = ivf->code->projected_dim;
    if (!ivf->by_residual)
        return sqrtf(kith_simd()->floats[KITH_OP_IP][KITH_PAIR_F32_F32].one(vector, vector, dim));
    return sqrtf(l2->one(vector, ivf->projected + list * dim, dim));
}

/* The errors of a query's hits, in the order of its results. `probes` are its own. */
static void find_errors(const ivf_call *call, worker_scratch *scratch, size_t query, const probe *probes,
                        const void *prepared) {
    const kith_ivf *ivf = call->ivf;
    const kith_code *code = ivf->code;
    kith_topk *top = &call->tops[query];
    float *errors = call->errors + query * call->request->k;
    for (size_t p = 0; p < call->nprobe; p++) scratch->spreads[p] = -1;
    kith_topk_finish(top);
    for (size_t i = 0; i < top->count; i++) {
        uint32_t number = top->hits[i].row;
        size_t p = 0, lane;
        for (size_t most = call->nprobe - 1; p < most;) { /* the last list that begins at the number or before */
            size_t middle = most - (most - p) / 2;
            if (probes[middle].before <= number)
                p = middle;
            else
                most = middle - 1;
        }
        if (scratch->spreads[p] < 0)
            scratch->spreads[p] = spread_of(ivf, call->projected + query * code->projected_dim, probes[p].list);
        size_t list = probes[p].list * ivf->copies, position = number - probes[p].before;
        if (position >= ivf->lists[list].count) position -= ivf->lists[list++].count; /* a second copy */
        const unsigned char *block = kith_list_block(code, &ivf->lists[list], position, &lane);
        errors[i] = code->vtable->error_in_block(code, prepared, scratch->spreads[p], block, lane);
    }
}

bool kith_ivf_bounds_errors(const kith_index *index) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    return ivf->code->vtable->error != NULL && index->count <= UINT32_MAX / ivf->copies;
}

/* ---- A group of queries ---------------------------------------------------------------------------------------- */

/* What the group's probes come to. Under a filter only blocks with something allowed are compared: here their allowed
 * vectors count. */
static void report_group(const ivf_call *call, const worker_scratch *scratch, size_t first, size_t count) {
    const kith_search_request *request = call->request;
    for (size_t q = 0; q < count && request->reports != NULL; q++) {
        kith_search_report *one = &request->reports[first + q];
        one->strategy = request->filter != NULL ? KITH_STRATEGY_LISTS : KITH_STRATEGY_ALL;
        for (size_t p = 0; p < call->nprobe; p++) {
            const probe *at = &scratch->probes[q * call->nprobe + p];
            if (at->before == NO_LIST) continue;
            size_t size = centroid_count(call->ivf, at->list), allowed = size;
            if (request->filter != NULL) allowed = kith_ivf_filtered_count(&call->filtered, at->list);
            one->visited += at->limit;
            one->distances += kith_min_size(at->limit, allowed);
            one->lists += call->ivf->has_coarse && at->limit > 0;
            if (at->limit < size) one->limits |= KITH_LIMIT_DISTANCES;
        }
    }
}

/* The nearest lists first: after them most of the rest is dropped by the compare alone. */
static kith_status read_group(const ivf_call *call, worker_scratch *scratch, size_t worker, size_t first,
                              size_t count) {
    if (count < GROUP_SMALL) return read_by_query(call, scratch, worker, first, count);
    size_t near = kith_min_size(call->nprobe, 1 + call->nprobe / 8);
    KITH_TRY(read_by_list(call, scratch, worker, first, count, 0, near));
    return near < call->nprobe ? read_by_list(call, scratch, worker, first, count, near, call->nprobe) : KITH_OK;
}

static kith_status search_group(void *context, size_t group, size_t worker) {
    const ivf_call *call = context;
    const kith_code *code = call->ivf->code;
    worker_scratch *scratch = &call->workers[worker];
    size_t first = group * call->group_size, count = kith_min_size(call->group_size, call->query_count - first);
    for (size_t q = 0; q < count && call->exact == NULL; q++)
        code->vtable->prepare(code, call->projected + (first + q) * code->projected_dim,
                              scratch->prepared + q * code->query_bytes);
    find_probes(call, scratch, first, count);
    report_group(call, scratch, first, count);
    kith_status status = read_group(call, scratch, worker, first, count);
    if (status != KITH_OK && status != KITH_ERR_INCOMPLETE) return status;
    for (size_t q = 0; q < count && call->ivf->copies > 1; q++) KITH_TRY(merge_copies(call, scratch, first + q));
    for (size_t q = 0; q < count && call->errors != NULL; q++)
        find_errors(call, scratch, first + q, scratch->probes + q * call->nprobe,
                    scratch->prepared + q * code->query_bytes);
    if (status != KITH_OK) return status; /* a deadline has passed */
    for (size_t q = first; q < first + count; q++) kith_search_answered(call->request, q);
    return kith_meter_add(call->request->meter, (uint64_t)count * call->ivf->base.count);
}

/* ---- Both searches -------------------------------------------------------------------------------------------- */

static float l2_value(const void *context, int32_t key) {
    (void)context;
    float value = kith_key_to_f32(key);
    return value > 0 ? value : 0; /* an estimate may fall below */
}

static float ip_value(const void *context, int32_t key) {
    (void)context;
    return -kith_key_to_f32(key);
}

static kith_key_value_fn value_fn(const kith_ivf *ivf) { return ivf->base.metric == KITH_L2 ? l2_value : ip_value; }

/* Raw vectors go through exact search, which answers batches by tiles and gives Flat's bits. */
static kith_status open_exact(ivf_call *call) {
    const kith_ivf *ivf = call->ivf;
    if (!ivf->code->is_exact) return KITH_OK;
    const kith_search_request *request = call->request;
    kith_exact_request exact = {
        .queries = {.data = call->queries, .dtype = KITH_F32, .count = call->query_count, .dim = ivf->code->dim},
        .metric = ivf->code->metric,
        .row_dtype = kith_raw_dtype(ivf->code),
        .threads = request->threads,
        .allow = kith_filter_allow_fn(request->filter),
        .allow_context = request->filter,
        .by_members = true,
        .arena = request->arena,
    };
    return kith_exact_open(&exact, &call->exact);
}

static kith_status begin(ivf_call *call, const kith_index *index, const kith_search_request *request,
                         float *errors) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    *call = (ivf_call){.ivf = ivf, .request = request, .query_count = request->queries.count, .errors = errors};
    size_t nprobe = request->params->nprobe != 0 ? request->params->nprobe : kith_ivf_nprobe_default(ivf);
    call->probes_wanted = call->nprobe = kith_min_size(nprobe, ivf->list_count);
    if (request->filter != NULL) {
        KITH_TRY(kith_ivf_filtered_open(ivf, request->filter, request->arena, &call->filtered));
        call->nprobe = kith_ivf_filtered_probes_max(&call->filtered, call->nprobe, request->k * ivf->copies);
    }
    call->coarse_k = call->nprobe;
    call->top_k = request->k * ivf->copies;
    if (ivf->copies > 1) call->table_size = table_size_of(call->top_k);
    if (ivf->coarse_code != NULL || request->filter != NULL)
        call->coarse_k = kith_min_size(ivf->list_count, call->nprobe + call->nprobe / 8 + PROBE_MARGIN);
    KITH_TRY(take_queries(call));
    KITH_TRY(ask_index(call));
    KITH_TRY(open_exact(call));
    return take_scratch(call);
}

static kith_status run(ivf_call *call) {
    return kith_parallel_for(call->request->threads, call->group_count, search_group, call);
}

kith_status kith_ivf_search(const kith_index *index, const kith_search_request *request,
                            const kith_search_results *results) {
    ivf_call call;
    KITH_TRY(begin(&call, index, request, results->errors));
    size_t capacity = kith_topk_capacity(call.top_k);
    kith_hit *hits;
    KITH_TRY(kith_arena_take(request->arena, call.query_count, sizeof *call.tops, &call.tops));
    KITH_TRY(kith_arena_take(request->arena, call.query_count * capacity, sizeof *hits, &hits));
    for (size_t q = 0; q < call.query_count; q++) kith_topk_init(&call.tops[q], hits + q * capacity, call.top_k);
    KITH_TRY(kith_search_unless_late(request, run(&call)));
    return kith_search_emit(index, request, results, call.tops, value_fn(call.ivf), NULL);
}

kith_status kith_ivf_range_search(const kith_index *index, const kith_search_request *request,
                                  kith_range_lists *lists) {
    ivf_call call;
    KITH_TRY(begin(&call, index, request, NULL));
    call.lists = lists->lists;
    call.radius = index->metric == KITH_L2 ? request->radius : -request->radius;
    lists->value = value_fn(call.ivf);
    return run(&call);
}
