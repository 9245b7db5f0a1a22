/* SPDX-License-Identifier: Apache-2.0
 *
 * filter.c: filters that say by themselves which ids they allow: bits, lists, ranges, callbacks.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/bitset.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/sort.h"
#include "index/filter_inside.h"

static bool allow_bitset(const void *context, int64_t id) {
    const kith_filter *filter = context;
    return id >= filter->first && id < filter->last && kith_bitset_get(filter->words, (size_t)(id - filter->first));
}

static bool allow_ids(const void *context, int64_t id) {
    const kith_filter *filter = context;
    size_t at = kith_lower_bound_i64(filter->ids, filter->id_count, id);
    return at < filter->id_count && filter->ids[at] == id;
}

static bool allow_range(const void *context, int64_t id) {
    const kith_filter *filter = context;
    return id >= filter->first && id < filter->last;
}

static bool allow_callback(const void *context, int64_t id) {
    const kith_filter *filter = context;
    return filter->fn(filter->user, id) != 0;
}

kith_allow_fn kith_filter_allow_fn(const kith_filter *filter) { return filter != NULL ? filter->allow : NULL; }

uint64_t kith_filter_allowed_max(const kith_filter *filter) { return filter->allowed_max; }

bool kith_filter_asks(const kith_filter *filter) { return filter->asks; }

/* ---- The allowed ids, one after the other ----------------------------------------------------------------- */

static void visit_bits(const kith_filter *filter, bool (*visit)(void *context, int64_t id), void *context) {
    size_t word_count = kith_bitset_words((size_t)(filter->last - filter->first));
    for (size_t w = 0; w < word_count; w++)
        for (uint64_t rest = filter->words[w]; rest != 0; rest &= rest - 1)
            if (!visit(context, filter->first + (int64_t)(w * 64 + (size_t)__builtin_ctzll(rest)))) return;
}

void kith_filter_visit(const kith_filter *filter, bool (*visit)(void *context, int64_t id), void *context) {
    switch (filter->kind) {
        case KITH_FILTER_BITSET: visit_bits(filter, visit, context); return;
        case KITH_FILTER_IDS:
            for (size_t i = 0; i < filter->id_count; i++)
                if (!visit(context, filter->ids[i])) return;
            return;
        case KITH_FILTER_RANGE:
            for (int64_t id = filter->first; id < filter->last; id++)
                if (!visit(context, id)) return;
            return;
        default: break;
    }
    int64_t id = kith_filter_next(filter, 0);
    while (id != INT64_MAX && visit(context, id)) id = kith_filter_next(filter, id + 1);
}

/* ---- Making and freeing ----------------------------------------------------------------------------------- */

kith_status kith_filter_make(kith_filter_kind kind, kith_allow_fn allow, kith_filter **out) {
    KITH_TRY(kith_alloc_zeroed(1, sizeof **out, out));
    kith_filter *filter = *out;
    filter->kind = kind;
    filter->allow = allow;
    filter->depth = 1;
    atomic_init(&filter->holders, 1);
    return KITH_OK;
}

void kith_filter_free(kith_filter *filter) {
    if (filter == NULL || atomic_fetch_sub(&filter->holders, 1) > 1) return;
    for (size_t i = 0; i < filter->part_count; i++) kith_filter_free((kith_filter *)(uintptr_t)filter->parts[i]);
    kith_free(filter->parts);
    kith_free(filter->words);
    kith_free(filter->ids);
    kith_free(filter);
}

static kith_status no_output(void) { return kith_error(KITH_ERR_ARGUMENT, "filter: out must not be NULL"); }

kith_status kith_filter_bitset(const uint64_t *words, size_t bit_count, kith_filter **out) {
    if (out == NULL) return no_output();
    *out = NULL;
    if (words == NULL && bit_count > 0)
        return kith_error(KITH_ERR_ARGUMENT, "filter: words is NULL, bit_count is %zu", bit_count);
    if (bit_count > INT64_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "filter: %zu bits, at most 2^63 - 1 are possible", bit_count);
    kith_filter *filter;
    KITH_TRY(kith_filter_make(KITH_FILTER_BITSET, allow_bitset, &filter));
    size_t word_count = kith_bitset_words(bit_count);
    kith_status status = kith_alloc(word_count, sizeof *words, &filter->words);
    if (status != KITH_OK) {
        kith_filter_free(filter);
        return status;
    }
    if (word_count > 0) memcpy(filter->words, words, word_count * sizeof *words);
    if (bit_count % 64 != 0) filter->words[word_count - 1] &= ((uint64_t)1 << (bit_count % 64)) - 1;
    filter->last = (int64_t)bit_count;
    filter->allowed_max = kith_bitset_count(filter->words, bit_count);
    *out = filter;
    return KITH_OK;
}

/* Ids that lie close together are kept as bits, which one load tests: wherever that takes no more memory. */
static kith_status list_to_bits(kith_filter *filter) {
    if (filter->id_count == 0) return KITH_OK;
    int64_t first = filter->ids[0];
    uint64_t span = (uint64_t)(filter->ids[filter->id_count - 1] - first) + 1;
    if (span / 64 >= filter->id_count) return KITH_OK;
    uint64_t *words;
    KITH_TRY(kith_alloc_zeroed(kith_bitset_words((size_t)span), sizeof *words, &words));
    for (size_t i = 0; i < filter->id_count; i++) kith_bitset_set(words, (size_t)(filter->ids[i] - first));
    kith_free(filter->ids);
    filter->ids = NULL;
    filter->words = words;
    filter->first = first;
    filter->last = first + (int64_t)span; /* ids end at INT64_MAX - 1: no overflow */
    filter->kind = KITH_FILTER_BITSET;
    filter->allow = allow_bitset;
    return KITH_OK;
}

static kith_status sort_ids(kith_filter *filter, size_t count) {
    if (!kith_rises_i64(filter->ids, count)) {
        int64_t *scratch;
        KITH_TRY(kith_alloc(count, sizeof *scratch, &scratch));
        kith_sort_i64(filter->ids, count, scratch);
        kith_free(scratch);
    }
    for (size_t i = 0; i < count; i++)
        if (i == 0 || filter->ids[i] != filter->ids[i - 1]) filter->ids[filter->id_count++] = filter->ids[i];
    filter->allowed_max = filter->id_count;
    return list_to_bits(filter);
}

kith_status kith_filter_ids(const int64_t *ids, size_t count, kith_filter **out) {
    if (out == NULL) return no_output();
    *out = NULL;
    if (ids == NULL && count > 0) return kith_error(KITH_ERR_ARGUMENT, "filter: ids is NULL, count is %zu", count);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] > KITH_ID_MAX)
            return kith_error(KITH_ERR_ARGUMENT, "filter: id %lld at position %zu is outside 0..2^63 - 2",
                              (long long)ids[i], i);
    kith_filter *filter;
    KITH_TRY(kith_filter_make(KITH_FILTER_IDS, allow_ids, &filter));
    kith_status status = kith_alloc(count, sizeof *ids, &filter->ids);
    if (status == KITH_OK && count > 0) {
        memcpy(filter->ids, ids, count * sizeof *ids);
        status = sort_ids(filter, count);
    }
    if (status != KITH_OK) {
        kith_filter_free(filter);
        return status;
    }
    *out = filter;
    return KITH_OK;
}

kith_status kith_filter_range(int64_t first, int64_t last, kith_filter **out) {
    if (out == NULL) return no_output();
    *out = NULL;
    KITH_TRY(kith_filter_make(KITH_FILTER_RANGE, allow_range, out));
    kith_filter *filter = *out;
    filter->first = first > 0 ? first : 0;
    filter->last = last > filter->first ? last : filter->first;
    filter->allowed_max = (uint64_t)(filter->last - filter->first);
    return KITH_OK;
}

kith_status kith_filter_callback(kith_filter_fn allow, void *user, kith_filter **out) {
    if (out == NULL) return no_output();
    *out = NULL;
    if (allow == NULL) return kith_error(KITH_ERR_ARGUMENT, "filter: allow must not be NULL");
    KITH_TRY(kith_filter_make(KITH_FILTER_CALLBACK, allow_callback, out));
    kith_filter *filter = *out;
    filter->fn = allow;
    filter->user = user;
    filter->allowed_max = UINT64_MAX;
    filter->asks = true;
    return KITH_OK;
}
