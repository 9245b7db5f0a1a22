/* SPDX-License-Identifier: Apache-2.0
 *
 * groups.c: the nearest vector of each of the k nearest groups: chunks of documents.
 *
 * A search for some more than k vectors mostly holds k groups. A query for which it does not is searched again, for
 * vectors of other groups than those found: each round finds a new group or the last one, and no vector is missed
 * because many of its neighbours belong together. Works on any index, since all that it needs is a filter.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "base/parallel.h"
#include "index/convert.h"
#include "index/live.h"
#include "index/vtable.h"

enum { SHARE = 4, GROWTH = 4, BLOCK = 256 };

/* The groups that one query has found: open addressing, at most half full; KITH_NO_GROUP is an empty slot. */
typedef struct group_set {
    int64_t *slots;
    size_t slot_count; /* a power of two */
} group_set;

static bool set_has(const group_set *set, int64_t group, size_t *slot) {
    size_t at = (size_t)((uint64_t)group * 0x9e3779b97f4a7c15u >> 20) & (set->slot_count - 1);
    while (set->slots[at] != KITH_NO_GROUP && set->slots[at] != group) at = (at + 1) & (set->slot_count - 1);
    *slot = at;
    return set->slots[at] == group;
}

typedef struct group_call {
    const kith_index *index;
    const kith_search_params *params; /* the caller's, completed */
    kith_group_fn group_of;
    void *user;
    size_t k, first_k; /* groups; vectors of the first round */
    uint64_t end_ns;   /* of the deadline; 0: none */
    group_set found;
    kith_hit *hits; /* k: those of one query; row is the number of its group in `groups` */
    int64_t *groups;
    size_t hit_count;
    int64_t *ids; /* of a round: room for the largest so far */
    float *distances;
    size_t room;
    kith_search_context *context;
} group_call;

/* Lets vectors through that would add a group. */
static int is_new_group(void *user, int64_t id) {
    const group_call *call = user;
    int64_t group = call->group_of(call->user, id);
    size_t slot;
    return group >= 0 && !set_has(&call->found, group, &slot);
}

static int32_t key_of(const group_call *call, float distance) {
    return kith_key_f32(kith_metric_is_similarity(call->index->metric) ? 0.0f - distance : distance);
}

/* Takes what a round found, nearest first: the first vector of each new group. */
static void take_hits(group_call *call, const int64_t *ids, const float *distances, size_t count) {
    for (size_t i = 0; i < count && call->hit_count < call->k; i++) {
        int64_t group = call->group_of(call->user, ids[i]);
        size_t slot;
        if (group < 0 || set_has(&call->found, group, &slot)) continue;
        call->found.slots[slot] = group;
        call->groups[call->hit_count] = group;
        call->hits[call->hit_count] = (kith_hit){ids[i], key_of(call, distances[i]), (uint32_t)call->hit_count};
        call->hit_count++;
    }
}

static void forget(group_call *call) {
    for (size_t i = 0; i < call->found.slot_count; i++) call->found.slots[i] = KITH_NO_GROUP;
    call->hit_count = 0;
}

static kith_status reserve(group_call *call, size_t count) {
    if (count <= call->room) return KITH_OK;
    KITH_TRY(kith_realloc(&call->ids, call->room, count, sizeof *call->ids));
    KITH_TRY(kith_realloc(&call->distances, call->room, count, sizeof *call->distances));
    call->room = count;
    return KITH_OK;
}

static void add_report(kith_search_report *to, const kith_search_report *more) {
    to->visited += more->visited;
    to->distances += more->distances;
    to->hops += more->hops;
    to->lists += more->lists;
    to->refined += more->refined;
    to->limits |= more->limits;
}

/* In microseconds; 0: no deadline. */
static uint64_t time_left(const group_call *call) {
    if (call->end_ns == 0) return 0;
    uint64_t now = kith_now_ns();
    return now < call->end_ns ? (call->end_ns - now) / 1000 + 1 : 1;
}

/* ---- One query, after the first round ----------------------------------------------------------------------- */

/* A search for vectors of groups that have not been found. *count: how many there are. */
static kith_status search_others(group_call *call, const kith_view *query, const kith_filter *filter,
                                 kith_search_report *report, size_t *count) {
    kith_search_params params = *call->params;
    kith_search_report own;
    params.filter = filter;
    params.context = call->context;
    params.progress = NULL;
    params.reports = &own;
    params.deadline_us = time_left(call);
    KITH_TRY(kith_index_search_view(call->index, query, call->room, &params, call->ids, call->distances, count));
    add_report(report, &own);
    return KITH_OK;
}

static kith_status more_rounds(group_call *call, const kith_view *query, kith_search_report *report) {
    kith_filter *others = NULL, *both = NULL;
    kith_status status;
    KITH_GO(kith_filter_callback(is_new_group, call, &others));
    if (call->params->filter != NULL) {
        const kith_filter *parts[] = {call->params->filter, others};
        KITH_GO(kith_filter_and(parts, 2, &both));
    }
    while (call->hit_count < call->k && (report->limits & KITH_LIMIT_DEADLINE) == 0) {
        size_t count, before = call->room, most = kith_min_size(call->index->count, KITH_TOPK_MAX);
        KITH_GO(search_others(call, query, both != NULL ? both : others, report, &count));
        take_hits(call, call->ids, call->distances, count);
        if (count < before) break; /* there are no more */
        KITH_GO(reserve(call, kith_min_size(before < most / GROWTH ? before * GROWTH : most, most)));
    }
done:
    kith_filter_free(both);
    kith_filter_free(others);
    return status;
}

/* ---- All queries ---------------------------------------------------------------------------------------------- */

static int compare_hits(const kith_hit *a, const kith_hit *b) {
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* Later rounds of an approximate search may find what is nearer than what is there: insertion, since few do. */
static void sort_hits(kith_hit *hits, size_t count) {
    for (size_t i = 1; i < count; i++) {
        kith_hit one = hits[i];
        size_t at = i;
        for (; at > 0 && compare_hits(&one, &hits[at - 1]) < 0; at--) hits[at] = hits[at - 1];
        hits[at] = one;
    }
}

typedef struct group_results {
    int64_t *ids, *groups;
    float *distances;
    size_t *counts;
} group_results;

static void emit(group_call *call, size_t query, const group_results *out) {
    bool is_similarity = kith_metric_is_similarity(call->index->metric) != 0;
    size_t k = call->k;
    sort_hits(call->hits, call->hit_count);
    for (size_t i = 0; i < k; i++) {
        bool is_there = i < call->hit_count;
        float value = is_there ? kith_key_to_f32(call->hits[i].key) : INFINITY;
        out->ids[query * k + i] = is_there ? call->hits[i].id : KITH_NO_ID;
        if (out->groups != NULL)
            out->groups[query * k + i] = is_there ? call->groups[call->hits[i].row] : KITH_NO_GROUP;
        if (out->distances != NULL) out->distances[query * k + i] = is_similarity ? 0.0f - value : value;
    }
    if (out->counts != NULL) out->counts[query] = call->hit_count;
}

/* The first round of up to BLOCK queries, then what is left of each. */
static kith_status search_block(group_call *call, const kith_view *queries, size_t first,
                                kith_search_report *reports, const group_results *out, size_t *short_count) {
    size_t count = queries->count, kept = call->first_k, counts[BLOCK];
    int64_t *ids = NULL;
    float *distances = NULL;
    kith_search_params params = *call->params;
    params.reports = reports;
    params.deadline_us = time_left(call);
    kith_status status;
    KITH_GO(kith_alloc(count * kept, sizeof *ids, &ids));
    KITH_GO(kith_alloc(count * kept, sizeof *distances, &distances));
    KITH_GO(kith_index_search_view(call->index, queries, kept, &params, ids, distances, counts));
    for (size_t q = 0; q < count; q++) {
        kith_view one = *queries;
        one.data = kith_view_row(queries, q);
        one.count = 1;
        forget(call);
        take_hits(call, ids + q * kept, distances + q * kept, counts[q]);
        if (call->hit_count < call->k && counts[q] == kept) KITH_GO(more_rounds(call, &one, &reports[q]));
        *short_count += call->hit_count < call->k;
        emit(call, first + q, out);
    }
done:
    kith_free(ids);
    kith_free(distances);
    return status;
}

static kith_status open_call(group_call *call) {
    size_t slots = 16;
    while (slots < 2 * call->k) slots *= 2;
    call->found.slot_count = slots;
    KITH_TRY(kith_alloc(slots, sizeof *call->found.slots, &call->found.slots));
    KITH_TRY(kith_alloc(call->k, sizeof *call->hits, &call->hits));
    KITH_TRY(kith_alloc(call->k, sizeof *call->groups, &call->groups));
    KITH_TRY(kith_search_context_create(&call->context));
    return reserve(call, call->first_k);
}

static kith_status search_all(group_call *call, const kith_view *queries, const group_results *out,
                              size_t *short_count, size_t *late_count) {
    kith_search_report reports[BLOCK];
    *short_count = *late_count = 0;
    for (size_t first = 0; first < queries->count; first += BLOCK) {
        kith_view block = *queries;
        block.data = kith_view_row(queries, first);
        block.count = kith_min_size(BLOCK, queries->count - first);
        KITH_TRY(search_block(call, &block, first, reports, out, short_count));
        for (size_t q = 0; q < block.count; q++) *late_count += (reports[q].limits & KITH_LIMIT_DEADLINE) != 0;
        if (call->params->reports != NULL)
            memcpy(call->params->reports + first, reports, block.count * sizeof *reports);
    }
    return KITH_OK;
}

static kith_status check(const kith_index *index, const kith_view *queries, size_t k, kith_group_fn group,
                         const int64_t *ids) {
    if (queries == NULL) return kith_error(KITH_ERR_ARGUMENT, "group search: the view of queries must not be NULL");
    if (group == NULL) return kith_error(KITH_ERR_ARGUMENT, "group search: group must not be NULL");
    if (ids == NULL) return kith_error(KITH_ERR_ARGUMENT, "group search: ids must not be NULL");
    if (index->count == 0) return kith_error(KITH_ERR_EMPTY, "group search: the index holds no vectors");
    size_t most = kith_min_size(index->count, KITH_TOPK_MAX), all, bytes;
    if (k == 0 || k > most)
        return kith_error(KITH_ERR_ARGUMENT, "group search: k = %zu is outside 1..%zu", k, most);
    if (kith_mul_overflows(queries->count, k, &all) || kith_mul_overflows(all, sizeof *ids, &bytes))
        return kith_error(KITH_ERR_OVERFLOW, "group search: %zu queries with k = %zu do not fit the address space",
                          queries->count, k);
    return KITH_OK;
}

static kith_status search_groups(const kith_index *index, const kith_view *queries, size_t k, kith_group_fn group,
                                 void *user, const kith_search_params *params, const group_results *out) {
    KITH_TRY(check(index, queries, k, group, out->ids));
    KITH_TRY(kith_check_view_dim("queries", queries, index->dim));
    kith_view view = *queries;
    view.stride = kith_view_stride(queries);
    kith_search_params own;
    kith_search_params_init(&own);
    KITH_TRY(kith_options_read("search parameters", &own, sizeof own, params));
    size_t most = kith_min_size(index->count, KITH_TOPK_MAX), short_count, late_count;
    group_call call = {.index = index, .params = &own, .group_of = group, .user = user, .k = k};
    call.first_k = k < most / SHARE ? k * SHARE : most;
    if (own.deadline_us != 0)
        call.end_ns = kith_now_ns() + (own.deadline_us < UINT32_MAX ? own.deadline_us : UINT32_MAX) * 1000;
    kith_status status;
    KITH_GO(open_call(&call));
    KITH_GO(search_all(&call, &view, out, &short_count, &late_count));
    if (late_count > 0 && own.reports == NULL)
        status =
            kith_error(KITH_ERR_INCOMPLETE, "group search: the deadline of %llu us cut %zu of %zu queries short",
                       (unsigned long long)own.deadline_us, late_count, queries->count);
    else if (short_count > 0 && out->counts == NULL)
        status = kith_error(KITH_ERR_INCOMPLETE, "group search: %zu of %zu queries have fewer than %zu groups",
                            short_count, queries->count, k);
done:
    if (status != KITH_OK && status != KITH_ERR_INCOMPLETE) {
        call.hit_count = 0;
        for (size_t q = 0; q < queries->count; q++) emit(&call, q, out);
    }
    kith_search_context_free(call.context);
    kith_free(call.found.slots);
    kith_free(call.hits);
    kith_free(call.groups);
    kith_free(call.ids);
    kith_free(call.distances);
    return status;
}

kith_status kith_index_search_groups(const kith_index *index, const kith_view *queries, size_t k,
                                     kith_group_fn group, void *user, const kith_search_params *params,
                                     int64_t *ids, int64_t *groups, float *distances, size_t *counts) {
    if (index == NULL) return kith_error(KITH_ERR_ARGUMENT, "group search: index must not be NULL");
    const group_results out = {ids, groups, distances, counts};
    kith_reading reading;
    KITH_TRY(kith_read_begin(index, &reading));
    kith_status status = search_groups(reading.view, queries, k, group, user, params, &out);
    kith_read_end(&reading);
    return status;
}
