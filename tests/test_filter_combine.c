/* SPDX-License-Identifier: Apache-2.0
 *
 * test_filter_combine.c: filters made of filters, held against a table of what each allows.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "index/filter.h"
#include "index_fixture.h"
#include "kith/status.h"
#include "memory_faults.h"

enum { IDS = 1500, LEAVES = 4, TREES = 400 };

/* A filter and what it is to allow. */
typedef struct model {
    kith_filter *filter;
    bool allowed[IDS];
    bool asks;
} model;

static uint64_t draws;
static size_t draw(size_t below) { return (size_t)kith_random_below(5, 0, draws++, below); }

static int ask_table(void *user, int64_t id) { return ((const model *)user)->allowed[id]; }

static void make_leaf(model *out) {
    memset(out->allowed, 0, sizeof out->allowed);
    size_t kind = draw(5), first = draw(IDS), last = first + draw(IDS - first + 1);
    int64_t ids[IDS];
    uint64_t words[IDS / 64 + 1] = {0};
    size_t count = 0, step = kind == 1 ? 150 : 1 + draw(9); /* a list that stays one, or becomes bits */
    for (size_t id = first; id < last; id++) {
        if (kind != 3 && draw(step) != 0) continue;
        out->allowed[id] = true;
        ids[count++] = (int64_t)id;
        words[id / 64] |= (uint64_t)1 << (id % 64);
    }
    kith_status status = kind == 0   ? kith_filter_bitset(words, last, &out->filter)
                         : kind < 3  ? kith_filter_ids(ids, count, &out->filter)
                         : kind == 3 ? kith_filter_range((int64_t)first, (int64_t)last, &out->filter)
                                     : kith_filter_callback(ask_table, out, &out->filter);
    cr_assert_eq(status, KITH_OK);
    out->asks = kind == 4;
}

/* Joins 1 to 3 of the models; kind 0: AND, 1: OR, 2: NOT. */
static void make_tree(model *models, size_t model_count, model *out) {
    const model *parts[3];
    const kith_filter *filters[3];
    size_t kind = draw(3), count = kind == 2 ? 1 : 1 + draw(3);
    out->asks = false;
    for (size_t i = 0; i < count; i++) {
        parts[i] = &models[draw(model_count)];
        filters[i] = parts[i]->filter;
        out->asks |= parts[i]->asks;
    }
    for (size_t id = 0; id < IDS; id++) {
        size_t yes = 0;
        for (size_t i = 0; i < count; i++) yes += parts[i]->allowed[id];
        out->allowed[id] = kind == 0 ? yes == count : kind == 1 ? yes > 0 : yes == 0;
    }
    kith_status status = kind == 0   ? kith_filter_and(filters, count, &out->filter)
                         : kind == 1 ? kith_filter_or(filters, count, &out->filter)
                                     : kith_filter_not(filters[0], &out->filter);
    cr_assert_eq(status, KITH_OK, "%s", kith_error_message());
}

typedef struct visited {
    const model *model;
    int64_t last;
    size_t count;
} visited;

static bool visit(void *context, int64_t id) {
    visited *seen = context;
    cr_assert(id > seen->last && id < IDS && seen->model->allowed[id], "id %lld", (long long)id);
    seen->last = id;
    seen->count++;
    return true;
}

static void check(const model *one) {
    kith_allow_fn allow = kith_filter_allow_fn(one->filter);
    size_t count = 0, first = draw(IDS), bits = draw(IDS - first) + 1;
    for (int64_t id = 0; id < IDS; id++) {
        cr_assert_eq(allow(one->filter, id), one->allowed[id], "id %lld", (long long)id);
        count += one->allowed[id];
    }
    cr_assert_not(!one->asks && allow(one->filter, -1));
    cr_assert_eq(kith_filter_asks(one->filter), one->asks);
    if (kith_filter_allowed_max(one->filter) != UINT64_MAX) {
        cr_assert_geq(kith_filter_allowed_max(one->filter), count);
        visited seen = {one, -1, 0};
        kith_filter_visit(one->filter, visit, &seen);
        cr_assert_eq(seen.count, count);
    }
    uint64_t words[IDS / 64 + 2];
    memset(words, 0x77, sizeof words);
    kith_filter_bits(one->filter, (int64_t)first, bits, words);
    for (size_t i = 0; i < (bits + 63) / 64 * 64; i++) {
        bool expected = i < bits && one->allowed[first + i];
        cr_assert_eq(words[i / 64] >> (i % 64) & 1, expected, "id %zu + %zu", first, i);
    }
    cr_assert_eq(words[(bits + 63) / 64], 0x7777777777777777u, "a word past the end was written");
}

Test(filter_combine, trees_allow_what_their_parts_say) {
    static model models[TREES];
    draws = 0;
    for (size_t i = 0; i < TREES; i++) {
        if (i % 100 < LEAVES) /* every hundred trees grow from leaves of their own */
            make_leaf(&models[i]);
        else
            make_tree(models + i / 100 * 100, i % 100 < 12 ? i % 100 : 12, &models[i]);
        check(&models[i]);
    }
    for (size_t i = 0; i < TREES; i += 2) kith_filter_free(models[i].filter); /* parts may go first */
    for (size_t i = 1; i < TREES; i += 2) {
        if (i % 100 >= LEAVES) check(&models[i]);
        kith_filter_free(models[i].filter);
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(filter_combine, ends_of_the_range_of_ids) {
    kith_filter *all, *none, *last, *edge;
    cr_assert_eq(kith_filter_range(0, INT64_MAX, &all), KITH_OK);
    cr_assert_eq(kith_filter_not(all, &none), KITH_OK);
    cr_assert_eq(kith_filter_ids((int64_t[]){KITH_ID_MAX}, 1, &last), KITH_OK);
    const kith_filter *parts[] = {all, last};
    cr_assert_eq(kith_filter_and(parts, 2, &edge), KITH_OK);
    cr_assert_eq(kith_filter_allowed_max(edge), 1);
    kith_allow_fn allow = kith_filter_allow_fn(none);
    cr_assert(!allow(none, 0) && !allow(none, KITH_ID_MAX) && !allow(none, -1) && !allow(none, INT64_MAX));
    uint64_t words[2];
    kith_filter_bits(edge, KITH_ID_MAX - 69, 70, words);
    cr_assert(words[0] == 0 && words[1] == (uint64_t)1 << 5);
    kith_filter_bits(all, KITH_ID_MAX - 69, 70, words);
    cr_assert(words[0] == ~(uint64_t)0 && words[1] == 0x3f);
    kith_filter_free(edge);
    cr_assert_eq(kith_filter_or(parts, 2, &edge), KITH_OK);
    cr_assert_eq(kith_filter_allowed_max(edge), (uint64_t)INT64_MAX);
    kith_filter_free(edge);
    kith_filter_free(all);
    kith_filter_free(none);
    kith_filter_free(last);
}

static size_t asked[IDS];
static int count_asks(void *user, int64_t id) {
    (void)user;
    asked[id]++;
    return id % 2 == 0;
}

Test(filter_combine, callbacks_are_asked_last_and_once) {
    kith_filter *ask, *range, *both;
    cr_assert_eq(kith_filter_callback(count_asks, NULL, &ask), KITH_OK);
    cr_assert_eq(kith_filter_range(100, 300, &range), KITH_OK);
    const kith_filter *parts[] = {ask, range};
    uint64_t words[IDS / 64 + 1];
    cr_assert_eq(kith_filter_and(parts, 2, &both), KITH_OK);
    cr_assert_eq(kith_filter_allowed_max(both), 200);
    kith_filter_bits(both, 0, IDS, words);
    for (size_t id = 0; id < IDS; id++) cr_assert_eq(asked[id], id >= 100 && id < 300, "id %zu", id);
    kith_filter_free(both);
    memset(asked, 0, sizeof asked);
    cr_assert_eq(kith_filter_or(parts, 2, &both), KITH_OK);
    cr_assert_eq(kith_filter_allowed_max(both), UINT64_MAX);
    kith_filter_bits(both, 0, IDS, words);
    for (size_t id = 0; id < IDS; id++) cr_assert_eq(asked[id], id < 100 || id >= 300, "id %zu", id);
    kith_filter_free(both);
    kith_filter_free(range);
    kith_filter_free(ask);
}

Test(filter_combine, bad_input_is_refused) {
    kith_filter *filter = (kith_filter *)&filter, *part;
    cr_assert_eq(kith_filter_range(0, 9, &part), KITH_OK);
    const kith_filter *parts[] = {part, NULL};
    cr_assert_eq(kith_filter_and(NULL, 2, &filter), KITH_ERR_ARGUMENT);
    cr_assert_null(filter);
    cr_assert_eq(kith_filter_or(parts, 0, &filter), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_filter_or(parts, 2, &filter), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "part 1 of OR is NULL"));
    cr_assert_eq(kith_filter_not(NULL, &filter), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_filter_and(parts, 1, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_filter_not(part, NULL), KITH_ERR_ARGUMENT);
    for (size_t depth = 2; depth <= KITH_FILTER_DEPTH_MAX; depth++) {
        cr_assert_eq(kith_filter_not(part, &filter), KITH_OK);
        kith_filter_free(part);
        part = filter;
    }
    cr_assert_eq(kith_filter_not(part, &filter), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "64 deep"));
    kith_filter_free(part);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(filter_combine, failing_memory_loses_nothing) {
    memory_faults_install();
    kith_filter *part, *filter;
    cr_assert_eq(kith_filter_range(0, 9, &part), KITH_OK);
    const kith_filter *parts[] = {part, part};
    kith_status status;
    MEMORY_FAULTS_EACH(status, kith_filter_and(parts, 2, &filter)) {
        cr_assert_eq(status, KITH_ERR_NO_MEMORY);
        cr_assert_null(filter);
        cr_assert(kith_filter_allow_fn(part)(part, 8));
    }
    kith_filter_free(part);
    cr_assert(kith_filter_allow_fn(filter)(filter, 8));
    kith_filter_free(filter);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
