/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_probes.c: the coarse step of a search, which lists a query reads.
 *
 * It holds the query against 8-bit codes of the centroids, takes some more lists than asked for, and orders these by
 * their exact distance. Where there is an index of the centroids, that finds the lists of all queries beforehand.
 */
#include <math.h>

#include "base/error.h"
#include "index/filter.h"
#include "ivf/ivf_call.h"
#include "simd/simd.h"

enum {
    PROBE_MARGIN = 8,
    EARLY_NEAR = 32 /* one in so many lists is read before the results say how far to go */
};

/* Some more lists than wanted, of which the distances say which are the nearest. */
static size_t with_margin(size_t count) { return count + count / 8 + PROBE_MARGIN; }

kith_status kith_ivf_plan_probes(kith_ivf_call *call) {
    const kith_ivf *ivf = call->ivf;
    const kith_search_request *request = call->request;
    size_t nprobe = request->params->nprobe != 0 ? request->params->nprobe : kith_ivf_nprobe_default(ivf);
    call->probes_wanted = call->nprobe = kith_min_size(nprobe, ivf->list_count);
    if (request->filter != NULL) {
        KITH_TRY(kith_ivf_filtered_open(ivf, request->filter, request->arena, &call->filtered));
        call->is_listed = kith_ivf_filtered_is_few(&call->filtered, call->nprobe);
        call->nprobe = kith_ivf_filtered_probes_max(&call->filtered, call->nprobe, request->k * ivf->copies);
        if (call->is_listed) call->nprobe = 1; /* of none */
    }
    call->coarse_k = call->nprobe;
    if (ivf->coarse_code != NULL || request->filter != NULL)
        call->coarse_k = kith_min_size(ivf->list_count, with_margin(call->nprobe));
    return KITH_OK;
}

size_t kith_ivf_candidates(kith_topk *top, const float *estimates, size_t count, bool all_allowed,
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
    size_t kept = kith_ivf_candidates(top, estimates, count, true, positions);
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

kith_status kith_ivf_ask_index(kith_ivf_call *call) {
    const kith_search_request *request = call->request;
    const kith_index *coarse = call->ivf->coarse;
    size_t dim = call->ivf->base.dim, count = call->query_count;
    if (coarse == NULL || call->is_listed) return KITH_OK;
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
static void take_near(const kith_ivf_call *call, size_t query, kith_topk *top) {
    const int64_t *lists = call->near + query * call->coarse_k;
    for (size_t i = 0; i < call->near_counts[query]; i++)
        if ((uint64_t)lists[i] < call->ivf->list_count) top->hits[top->count++] = (kith_hit){.id = lists[i]};
}

/* Lists that hold nothing allowed come last. */
static void put_empty_last(const kith_ivf_call *call, size_t list, size_t count, float *estimates) {
    for (size_t i = 0; i < count; i++)
        if (kith_ivf_filtered_count(&call->filtered, list + i) == 0) estimates[i] = INFINITY;
}

/* The coarse_k lists nearest to up to 16 queries by the centroids' codes, or by their distances where there is no
 * such code; with `is_picky` only those that hold an allowed vector. */
static void find_lists(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t first, size_t count,
                       bool is_picky, kith_topk *tops) {
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
    for (size_t list = 0; list < ivf->list_count && !asks; list += KITH_IVF_STRIP) {
        size_t lists = kith_min_size(KITH_IVF_STRIP, ivf->list_count - list);
        if (coarse != NULL)
            coarse->vtable->scan(coarse, prepared, bases, count,
                                 ivf->coarse_blocks + list / KITH_BLOCK_ROWS * coarse->block_bytes,
                                 kith_code_blocks(lists), scratch->estimates, KITH_IVF_STRIP);
        for (size_t q = 0; q < count; q++) {
            float *estimates = scratch->estimates + q * KITH_IVF_STRIP;
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

size_t kith_ivf_centroid_count(const kith_ivf *ivf, size_t list) {
    size_t count = 0;
    for (size_t c = 0; c < ivf->copies; c++) count += kith_ivf_list(ivf, list * ivf->copies + c)->count;
    return count;
}

/* Cuts the first `count` probes where the bound on distances is reached. */
static void set_limits(const kith_ivf_call *call, kith_probed_list *probes, size_t count) {
    uint64_t left = call->request->params->max_distances;
    if (left == 0) left = UINT64_MAX;
    size_t before = 0;
    for (size_t p = 0; p < count; p++) {
        size_t size = kith_ivf_centroid_count(call->ivf, probes[p].list);
        probes[p].limit = size <= left ? size : (size_t)left;
        probes[p].before = (uint32_t)before; /* read only where there are fewer than 2^32 */
        left -= probes[p].limit;
        before += probes[p].limit;
    }
}

/* What a key stands for; under cosine vectors and centroids have unit length. */
static float squared_distance(const kith_ivf *ivf, int32_t key) {
    float value = kith_key_to_f32(key);
    if (ivf->base.metric == KITH_COSINE) value = 2 + 2 * value;
    return value > 0 ? value : 0;
}

static kith_probed_list probe_of(const kith_ivf_call *call, const kith_hit *hit, float base) {
    const kith_ivf *ivf = call->ivf;
    bool is_distance = ivf->by_residual && !ivf->code->is_exact;
    return (kith_probed_list){.list = (uint32_t)hit->id,
                              .base = is_distance ? kith_key_to_f32(hit->key) : base,
                              .distance = squared_distance(ivf, hit->key)};
}

size_t kith_ivf_early_near(const kith_ivf_call *call) {
    if (call->request->params->early == 0 || call->tops == NULL || call->ivf->base.metric == KITH_IP) return 0;
    return 1 + call->nprobe / EARLY_NEAR;
}

void kith_ivf_stop_early(const kith_ivf_call *call, kith_topk *top, kith_probed_list *probes, size_t near) {
    kith_topk_shrink(top);
    if (top->count < top->k) return;
    float worst = squared_distance(call->ivf, top->key_max), bound = (float)call->request->params->early;
    size_t p = near;
    for (; p < call->nprobe && probes[p].before != KITH_NO_PROBE; p++) {
        float ratio = probes[p].distance / worst, square = ratio * ratio;
        if ((float)(p + 1) * square * square > bound) break;
    }
    for (; p < call->nprobe; p++) probes[p] = (kith_probed_list){.before = KITH_NO_PROBE};
}

/* The nearest of `count` lists that hold allowed vectors, until they are enough, as probes; *seen lists have been looked
 * at for that. False: they are not. */
static bool pick_probes(const kith_ivf_call *call, const kith_hit *hits, size_t count, float base,
                        kith_probed_list *probes, size_t *taken, size_t *seen) {
    const kith_ivf_filtered *filtered = &call->filtered;
    size_t wanted = kith_max_size(call->top_k, kith_ivf_filtered_wanted(filtered, call->probes_wanted));
    size_t allowed = 0;
    *taken = 0;
    for (*seen = 0; *seen < count; (*seen)++) {
        if (*taken == call->nprobe || (*taken >= call->probes_wanted && allowed >= wanted)) return true;
        size_t here = kith_ivf_filtered_count(filtered, (size_t)hits[*seen].id);
        if (here == 0) continue;
        allowed += here;
        probes[(*taken)++] = probe_of(call, &hits[*seen], base);
    }
    return *taken == call->nprobe || (*taken >= call->probes_wanted && allowed >= wanted);
}

/* The same for lists that are ranked by estimates. Of those that are far behind the distance need not be known. */
static bool pick_estimated(const kith_ivf_call *call, const float *vector, kith_topk *top, float base,
                           kith_probed_list *probes, size_t *taken) {
    kith_hit *hits = top->hits;
    size_t all = top->count, measured = 0, seen;
    bool is_enough = pick_probes(call, hits, all, base, probes, taken, &seen);
    for (seen = is_enough ? kith_min_size(all, with_margin(seen)) : all;; seen = all) {
        measure_lists(call->ivf, vector, hits + measured, seen - measured);
        kith_hits_sort(hits, seen);
        measured = seen;
        is_enough = pick_probes(call, hits, measured, base, probes, taken, &seen);
        if (is_enough || measured == all) return is_enough;
    }
}

/* The probes of query number `query` of the call, nearest list first; false: other lists have to be found. */
static bool settle_probes(const kith_ivf_call *call, size_t query, bool is_picky, kith_topk *top,
                          kith_probed_list *probes) {
    const kith_ivf *ivf = call->ivf;
    const kith_code *code = ivf->code;
    const float *vector = call->projected + query * code->projected_dim;
    bool is_filtered = call->request->filter != NULL, is_enough = true;
    bool asked = ivf->coarse != NULL && !is_picky, is_estimated = ivf->coarse_code != NULL || asked;
    if (is_filtered && !asked) kith_topk_finish(top); /* what the index of centroids finds is ranked already */
    if (!is_filtered && is_estimated) {
        kith_topk_shrink(top);
        measure_lists(ivf, vector, top->hits, top->count);
    }
    if (!is_filtered) kith_topk_finish(top);
    float base = ivf->by_residual ? 0 : kith_code_base(code, vector, NULL);
    size_t count = kith_min_size(call->nprobe, top->count), seen;
    if (is_filtered && is_estimated)
        is_enough = pick_estimated(call, vector, top, base, probes, &count);
    else if (is_filtered)
        is_enough = pick_probes(call, top->hits, top->count, base, probes, &count, &seen);
    else
        for (size_t p = 0; p < count; p++) probes[p] = probe_of(call, &top->hits[p], base);
    for (size_t p = count; p < call->nprobe; p++) /* an index may find fewer, and so may a filter */
        probes[p] = (kith_probed_list){.before = KITH_NO_PROBE};
    set_limits(call, probes, count);
    return is_enough;
}

void kith_ivf_find_probes(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t first, size_t count) {
    const kith_ivf *ivf = call->ivf;
    kith_topk tops[KITH_CODE_QUERIES_MAX];
    for (size_t q = 0; q < count; q += KITH_CODE_QUERIES_MAX) {
        size_t tile = kith_min_size(KITH_CODE_QUERIES_MAX, count - q);
        if (!ivf->has_coarse) {
            for (size_t i = 0; i < tile; i++) {
                const float *vector = call->projected + (first + q + i) * ivf->code->projected_dim;
                scratch->probes[q + i] = (kith_probed_list){.base = kith_code_base(ivf->code, vector, NULL)};
                if (call->request->filter != NULL) (void)kith_ivf_filtered_count(&call->filtered, 0);
                set_limits(call, &scratch->probes[q + i], 1);
            }
            continue;
        }
        find_lists(call, scratch, first + q, tile, false, tops);
        bool is_enough[KITH_CODE_QUERIES_MAX];
        for (size_t i = 0; i < tile; i++)
            is_enough[i] =
                settle_probes(call, first + q + i, false, &tops[i], scratch->probes + (q + i) * call->nprobe);
        for (size_t i = 0; i < tile; i++) {
            if (is_enough[i]) continue;
            find_lists(call, scratch, first + q + i, 1, true, tops);
            (void)settle_probes(call, first + q + i, true, tops, scratch->probes + (q + i) * call->nprobe);
        }
    }
}
