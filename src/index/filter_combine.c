/* SPDX-License-Identifier: Apache-2.0
 *
 * filter_combine.c: filters made of filters, and any filter as bits.
 *
 * A combination keeps its parts and asks them. What it allows can be listed where a part of an AND can, or all parts of
 * an OR; a negation allows all ids but a few, and nobody lists these.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/bitset.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/sort.h"
#include "index/filter_inside.h"

/* ---- One id ----------------------------------------------------------------------------------------------- */

static bool allow_and(const void *context, int64_t id) {
    const kith_filter *filter = context;
    for (size_t i = 0; i < filter->part_count; i++)
        if (!filter->parts[i]->allow(filter->parts[i], id)) return false;
    return true;
}

static bool allow_or(const void *context, int64_t id) {
    const kith_filter *filter = context;
    for (size_t i = 0; i < filter->part_count; i++)
        if (filter->parts[i]->allow(filter->parts[i], id)) return true;
    return false;
}

static bool allow_not(const void *context, int64_t id) {
    const kith_filter *filter = context;
    return id >= 0 && id <= KITH_ID_MAX && !filter->parts[0]->allow(filter->parts[0], id);
}

/* ---- The next id ------------------------------------------------------------------------------------------ */

static int64_t next_bit(const kith_filter *filter, int64_t id) {
    if (id < filter->first) id = filter->first;
    if (id >= filter->last) return INT64_MAX;
    size_t bit = (size_t)(id - filter->first), words = kith_bitset_words((size_t)(filter->last - filter->first));
    uint64_t rest = filter->words[bit / 64] & ~(uint64_t)0 << (bit % 64);
    size_t w = bit / 64;
    while (rest == 0 && ++w < words) rest = filter->words[w];
    return rest != 0 ? filter->first + (int64_t)(w * 64 + (size_t)__builtin_ctzll(rest)) : INT64_MAX;
}

static int64_t next_listed(const kith_filter *filter, int64_t id) {
    size_t at = kith_lower_bound_i64(filter->ids, filter->id_count, id);
    return at < filter->id_count ? filter->ids[at] : INT64_MAX;
}

static int64_t next_in_range(const kith_filter *filter, int64_t id) {
    if (id < filter->first) id = filter->first;
    return id < filter->last ? id : INT64_MAX;
}

/* The part that allows fewest proposes, the others judge. */
static int64_t next_of_all(const kith_filter *filter, int64_t id) {
    const kith_filter *fewest = filter->parts[0];
    for (size_t i = 1; i < filter->part_count; i++)
        if (filter->parts[i]->allowed_max < fewest->allowed_max) fewest = filter->parts[i];
    for (id = kith_filter_next(fewest, id); id != INT64_MAX; id = kith_filter_next(fewest, id + 1)) {
        bool is_allowed = true;
        for (size_t i = 0; i < filter->part_count && is_allowed; i++)
            is_allowed = filter->parts[i] == fewest || filter->parts[i]->allow(filter->parts[i], id);
        if (is_allowed) return id;
    }
    return INT64_MAX;
}

static int64_t next_of_any(const kith_filter *filter, int64_t id) {
    int64_t nearest = INT64_MAX;
    for (size_t i = 0; i < filter->part_count && nearest > id; i++) {
        int64_t next = kith_filter_next(filter->parts[i], id);
        nearest = next < nearest ? next : nearest;
    }
    return nearest;
}

int64_t kith_filter_next(const kith_filter *filter, int64_t id) {
    switch (filter->kind) {
        case KITH_FILTER_BITSET: return next_bit(filter, id);
        case KITH_FILTER_IDS: return next_listed(filter, id);
        case KITH_FILTER_RANGE: return next_in_range(filter, id);
        case KITH_FILTER_AND: return next_of_all(filter, id);
        case KITH_FILTER_OR: return next_of_any(filter, id);
        case KITH_FILTER_CALLBACK:
        case KITH_FILTER_NOT: break; /* cannot be listed */
    }
    return INT64_MAX;
}

/* ---- Bits ------------------------------------------------------------------------------------------------- */

enum { FILL_WORDS = 16, FILL_BITS = FILL_WORDS * 64 };

/* 64 bits of a bitset from an id on, which may lie before its first. */
static uint64_t word_of_bitset(const kith_filter *filter, int64_t id) {
    if (id >= filter->last) return 0;
    if (id < filter->first) {
        uint64_t gap = (uint64_t)(filter->first - id);
        return gap < 64 ? filter->words[0] << gap : 0;
    }
    size_t bit = (size_t)(id - filter->first), w = bit / 64, shift = bit % 64;
    uint64_t word = filter->words[w] >> shift;
    if (shift > 0 && w + 1 < kith_bitset_words((size_t)(filter->last - filter->first)))
        word |= filter->words[w + 1] << (64 - shift);
    return word;
}

static uint64_t word_of_range(const kith_filter *filter, int64_t id) {
    if (id >= filter->last) return 0;
    uint64_t below = id < filter->first ? (uint64_t)(filter->first - id) : 0, end = (uint64_t)(filter->last - id);
    if (below >= 64) return 0;
    uint64_t word = ~(uint64_t)0 << below;
    return end < 64 ? word & (((uint64_t)1 << end) - 1) : word;
}

static void fill_listed(const kith_filter *filter, int64_t first, uint64_t *out) {
    memset(out, 0, FILL_WORDS * sizeof *out);
    for (size_t at = kith_lower_bound_i64(filter->ids, filter->id_count, first); at < filter->id_count; at++) {
        uint64_t bit = (uint64_t)(filter->ids[at] - first);
        if (bit >= FILL_BITS) return;
        kith_bitset_set(out, (size_t)bit);
    }
}

static void ask(const kith_filter *filter, int64_t first, const uint64_t *care, uint64_t *out) {
    for (size_t w = 0; w < FILL_WORDS; w++) {
        out[w] = 0;
        for (uint64_t rest = care[w]; rest != 0; rest &= rest - 1) {
            size_t bit = (size_t)__builtin_ctzll(rest);
            if (filter->fn(filter->user, first + (int64_t)(w * 64 + bit)) != 0) out[w] |= (uint64_t)1 << bit;
        }
    }
}

/* FILL_WORDS words from an id on. Only the bits set in `care` matter: of others callbacks are not asked, and they come
 * out as 0. Not in place. */
static void fill(const kith_filter *filter, int64_t first, const uint64_t *care, uint64_t *out) {
    uint64_t left[FILL_WORDS], got[FILL_WORDS];
    switch (filter->kind) {
        case KITH_FILTER_BITSET:
            for (size_t w = 0; w < FILL_WORDS; w++)
                out[w] = care[w] != 0 ? word_of_bitset(filter, first + (int64_t)(w * 64)) & care[w] : 0;
            return;
        case KITH_FILTER_RANGE:
            for (size_t w = 0; w < FILL_WORDS; w++)
                out[w] = care[w] != 0 ? word_of_range(filter, first + (int64_t)(w * 64)) & care[w] : 0;
            return;
        case KITH_FILTER_IDS:
            fill_listed(filter, first, out);
            for (size_t w = 0; w < FILL_WORDS; w++) out[w] &= care[w];
            return;
        case KITH_FILTER_CALLBACK: ask(filter, first, care, out); return;
        case KITH_FILTER_AND:
            memcpy(out, care, sizeof left);
            for (size_t i = 0; i < filter->part_count; i++) {
                memcpy(left, out, sizeof left);
                fill(filter->parts[i], first, left, out);
            }
            return;
        case KITH_FILTER_OR:
            memcpy(left, care, sizeof left);
            memset(out, 0, sizeof left);
            for (size_t i = 0; i < filter->part_count; i++) {
                fill(filter->parts[i], first, left, got);
                for (size_t w = 0; w < FILL_WORDS; w++) {
                    out[w] |= got[w];
                    left[w] &= ~got[w];
                }
            }
            return;
        case KITH_FILTER_NOT:
            fill(filter->parts[0], first, care, got);
            for (size_t w = 0; w < FILL_WORDS; w++) out[w] = care[w] & ~got[w];
            return;
    }
}

void kith_filter_bits(const kith_filter *filter, int64_t first, size_t count, uint64_t *words) {
    for (size_t at = 0; at < count; at += FILL_BITS) {
        uint64_t care[FILL_WORDS] = {0}, out[FILL_WORDS];
        size_t bits = kith_min_size(FILL_BITS, count - at);
        memset(care, 0xff, bits / 64 * sizeof *care);
        if (bits % 64 != 0) care[bits / 64] = ((uint64_t)1 << (bits % 64)) - 1;
        fill(filter, first + (int64_t)at, care, out);
        memcpy(words + at / 64, out, kith_bitset_words(bits) * sizeof *words);
    }
}

/* ---- Making ----------------------------------------------------------------------------------------------- */

static void hold(const kith_filter *filter) { atomic_fetch_add(&((kith_filter *)(uintptr_t)filter)->holders, 1); }

static uint64_t and_allowed_max(const kith_filter *filter) {
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < filter->part_count; i++)
        if (filter->parts[i]->allowed_max < least) least = filter->parts[i]->allowed_max;
    return least;
}

static uint64_t or_allowed_max(const kith_filter *filter) {
    uint64_t sum = 0;
    for (size_t i = 0; i < filter->part_count; i++) {
        if (filter->parts[i]->allowed_max == UINT64_MAX) return UINT64_MAX;
        if (__builtin_add_overflow(sum, filter->parts[i]->allowed_max, &sum) || sum > INT64_MAX) sum = INT64_MAX;
    }
    return sum;
}

static kith_status check_parts(const char *name, const kith_filter *const *parts, size_t count) {
    if (parts == NULL || count == 0)
        return kith_error(KITH_ERR_ARGUMENT, "filter: %s of no filters (parts is %s, count is %zu)", name,
                          parts == NULL ? "NULL" : "given", count);
    for (size_t i = 0; i < count; i++) {
        if (parts[i] == NULL) return kith_error(KITH_ERR_ARGUMENT, "filter: part %zu of %s is NULL", i, name);
        if (parts[i]->depth >= KITH_FILTER_DEPTH_MAX)
            return kith_error(KITH_ERR_ARGUMENT,
                              "filter: part %zu of %s is made of filters %d deep: that is the limit", i, name,
                              KITH_FILTER_DEPTH_MAX);
    }
    return KITH_OK;
}

static kith_status combine(kith_filter_kind kind, kith_allow_fn allow, const kith_filter *const *parts,
                           size_t count, kith_filter **out) {
    kith_filter *filter;
    KITH_TRY(kith_filter_make(kind, allow, &filter));
    kith_status status = kith_alloc(count, sizeof *filter->parts, &filter->parts);
    if (status != KITH_OK) {
        kith_filter_free(filter);
        return status;
    }
    for (size_t pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < count; i++) {
            if (parts[i]->asks != (pass == 1)) continue;
            hold(parts[i]);
            filter->parts[filter->part_count++] = parts[i];
            filter->asks = filter->asks || parts[i]->asks;
            if (parts[i]->depth >= filter->depth) filter->depth = parts[i]->depth + 1;
        }
    filter->allowed_max = kind == KITH_FILTER_AND  ? and_allowed_max(filter)
                          : kind == KITH_FILTER_OR ? or_allowed_max(filter)
                                                   : UINT64_MAX;
    *out = filter;
    return KITH_OK;
}

static kith_status no_output(void) { return kith_error(KITH_ERR_ARGUMENT, "filter: out must not be NULL"); }

kith_status kith_filter_and(const kith_filter *const *parts, size_t count, kith_filter **out) {
    if (out == NULL) return no_output();
    *out = NULL;
    KITH_TRY(check_parts("AND", parts, count));
    return combine(KITH_FILTER_AND, allow_and, parts, count, out);
}

kith_status kith_filter_or(const kith_filter *const *parts, size_t count, kith_filter **out) {
    if (out == NULL) return no_output();
    *out = NULL;
    KITH_TRY(check_parts("OR", parts, count));
    return combine(KITH_FILTER_OR, allow_or, parts, count, out);
}

kith_status kith_filter_not(const kith_filter *part, kith_filter **out) {
    if (out == NULL) return no_output();
    *out = NULL;
    KITH_TRY(check_parts("NOT", &part, 1));
    return combine(KITH_FILTER_NOT, allow_not, &part, 1, out);
}
