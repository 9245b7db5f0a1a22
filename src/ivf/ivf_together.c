/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_together.c: a batch over raw vectors on several threads. Where few queries share a list, reading it takes the time,
 * and threads with queries of their own would each read nearly all of the lists. So here the threads share the lists out,
 * and each list is read once for all queries. A thread keeps selections of its own, which are merged at the end: hits have
 * a total order, so that who read which list changes nothing.
 */
#include "base/error.h"
#include "index/filter.h"
#include "ivf/ivf_call.h"

enum {
    QUERIES_MIN = 32,    /* of a thread */
    SHARES_A_THREAD = 8, /* of the lists: some take longer than others */
};
static const size_t probe_bytes_max = (size_t)64 << 20;
static const size_t selection_bytes_max = (size_t)256 << 20; /* of all threads */

typedef struct together {
    const kith_ivf_call *call;
    kith_ivf_scratch all;      /* probes, visits and lists of all queries */
    kith_ivf_call *calls;      /* of each worker: the same with its own selections */
    kith_ivf_scratch *scratch; /* of each worker */
    size_t workers, named, share;
} together;

static size_t selection_bytes(const kith_ivf_call *call) {
    return sizeof(kith_topk) + kith_topk_capacity(call->top_k) * sizeof(kith_hit);
}

/* Not against a deadline: no query has an answer before the last list has been read. */
bool kith_ivf_is_together(const kith_ivf_call *call) {
    size_t threads = call->request->threads, count = call->query_count;
    if (call->exact == NULL || call->tops == NULL || call->is_listed || call->ivf->copies > 1) return false;
    if (call->request->meter->deadline_ns != 0) return false;
    if (threads == 1 || count / threads < QUERIES_MIN || kith_ivf_early_near(call) > 0) return false;
    if (count > selection_bytes_max / threads / selection_bytes(call)) return false;
    if (count > probe_bytes_max / (call->nprobe * (sizeof(kith_probed_list) + sizeof(kith_visit)))) return false;
    return kith_ivf_is_streamed(call, count / threads * call->nprobe);
}

/* Scratch memory of a worker: its own but for what is shared; the first one's selections are the call's. */
static kith_status take_worker(together *all, size_t worker) {
    const kith_ivf_call *call = all->call;
    kith_arena *arena = call->request->arena;
    kith_ivf_call *own = &all->calls[worker];
    kith_ivf_scratch *scratch = &all->scratch[worker];
    size_t capacity = kith_topk_capacity(call->top_k);
    kith_hit *hits;
    *own = *call;
    *scratch = call->workers[worker];
    scratch->visits = all->all.visits;
    scratch->lists = all->all.lists;
    scratch->list_first = all->all.list_first;
    KITH_TRY(kith_arena_take(arena, call->query_count, sizeof *scratch->members, &scratch->members));
    if (worker == 0) return KITH_OK;
    KITH_TRY(kith_arena_take(arena, call->query_count, sizeof *own->tops, &own->tops));
    KITH_TRY(kith_arena_take(arena, call->query_count * capacity, sizeof *hits, &hits));
    for (size_t q = 0; q < call->query_count; q++) kith_topk_init(&own->tops[q], hits + q * capacity, call->top_k);
    return KITH_OK;
}

static kith_status take(together *all) {
    const kith_ivf_call *call = all->call;
    kith_arena *arena = call->request->arena;
    size_t probes = call->query_count * call->nprobe;
    all->workers = kith_min_size(call->request->threads, call->group_count);
    KITH_TRY(kith_arena_take(arena, probes, sizeof *all->all.probes, &all->all.probes));
    KITH_TRY(kith_arena_take(arena, probes, sizeof *all->all.visits, &all->all.visits));
    KITH_TRY(kith_arena_take(arena, probes, sizeof *all->all.lists, &all->all.lists));
    KITH_TRY(kith_arena_take(arena, call->ivf->list_count + 1, sizeof *all->all.list_first, &all->all.list_first));
    KITH_TRY(kith_arena_take(arena, all->workers, sizeof *all->calls, &all->calls));
    KITH_TRY(kith_arena_take(arena, all->workers, sizeof *all->scratch, &all->scratch));
    for (size_t w = 0; w < all->workers; w++) KITH_TRY(take_worker(all, w));
    return KITH_OK;
}

static size_t group_queries(const kith_ivf_call *call, size_t group) {
    return kith_min_size(call->group_size, call->query_count - group * call->group_size);
}

static kith_status find_probes(void *context, size_t group, size_t worker) {
    const together *all = context;
    const kith_ivf_call *call = all->call;
    kith_ivf_scratch scratch = all->scratch[worker];
    size_t first = group * call->group_size, count = group_queries(call, group);
    scratch.probes = all->all.probes + first * call->nprobe;
    kith_ivf_find_probes(call, &scratch, first, count);
    kith_ivf_report_group(call, &scratch, first, count);
    return KITH_OK;
}

static kith_status read_share(void *context, size_t share, size_t worker) {
    const together *all = context;
    size_t first = share * all->share, last = kith_min_size(all->named, first + all->share);
    return kith_ivf_read_named(&all->calls[worker], &all->scratch[worker], worker, 0, first, last);
}

static kith_status merge_group(void *context, size_t group, size_t worker) {
    (void)worker;
    const together *all = context;
    const kith_ivf_call *call = all->call;
    size_t first = group * call->group_size, count = group_queries(call, group);
    for (size_t q = first; q < first + count; q++)
        for (size_t w = 1; w < all->workers; w++) {
            const kith_topk *own = &all->calls[w].tops[q];
            for (size_t i = 0; i < own->count; i++)
                kith_topk_push(&call->tops[q], own->hits[i].key, own->hits[i].id, own->hits[i].row);
        }
    return KITH_OK;
}

kith_status kith_ivf_search_together(const kith_ivf_call *call) {
    size_t threads = call->request->threads;
    together all = {.call = call};
    KITH_TRY(take(&all));
    KITH_TRY(kith_parallel_for(threads, call->group_count, find_probes, &all));
    all.named = kith_ivf_sort_probes(call, &all.all, call->query_count, 0, call->nprobe);
    all.share = all.named / (SHARES_A_THREAD * threads) + 1;
    KITH_TRY(kith_parallel_for(all.workers, (all.named + all.share - 1) / all.share, read_share, &all));
    KITH_TRY(kith_parallel_for(threads, call->group_count, merge_group, &all));
    return kith_meter_add(call->request->meter, (uint64_t)call->query_count * call->ivf->base.count);
}
