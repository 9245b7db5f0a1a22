/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "faults.h"
#include "index/filter.h"
#include "index_fixture.h"

enum { DIM = 5, COUNT = 400 };

/* ---- What each kind allows ------------------------------------------------------------------------------ */

typedef struct visits {
    int64_t ids[64];
    size_t count, limit;
} visits;

static bool visit(void *context, int64_t id) {
    visits *seen = context;
    seen->ids[seen->count++] = id;
    return seen->count < seen->limit;
}

static void check_allowed(const kith_filter *filter, const int64_t *allowed, size_t count, uint64_t allowed_max) {
    kith_allow_fn allow = kith_filter_allow_fn(filter);
    for (int64_t id = -3; id < 300; id++) {
        bool expected = false;
        for (size_t i = 0; i < count; i++) expected |= allowed[i] == id;
        cr_assert_eq(allow(filter, id), expected, "id %lld", (long long)id);
    }
    cr_assert_not(allow(filter, INT64_MIN));
    cr_assert_not(allow(filter, INT64_MAX));
    cr_assert_eq(kith_filter_allowed_max(filter), allowed_max);
    visits seen = {.limit = 64};
    kith_filter_visit(filter, visit, &seen);
    cr_assert_eq(seen.count, count);
    for (size_t i = 0; i < count; i++) cr_assert_eq(seen.ids[i], allowed[i]);
    if (count < 2) return;
    seen = (visits){.limit = 2};
    kith_filter_visit(filter, visit, &seen);
    cr_assert_eq(seen.count, 2);
}

Test(filter, allows_what_it_says) {
    kith_filter *filter;
    uint64_t words[2] = {1ull << 63 | 1, 0xff};
    cr_assert_eq(kith_filter_bitset(words, 66, &filter), KITH_OK);
    words[0] = ~0ull; /* it was copied */
    check_allowed(filter, (int64_t[]){0, 63, 64, 65}, 4, 4);
    kith_filter_free(filter);
    cr_assert_eq(kith_filter_bitset(NULL, 0, &filter), KITH_OK);
    check_allowed(filter, NULL, 0, 0);
    kith_filter_free(filter);
    cr_assert_eq(kith_filter_ids((int64_t[]){40, 7, 40, 9, 7}, 5, &filter), KITH_OK);
    check_allowed(filter, (int64_t[]){7, 9, 40}, 3, 3);
    kith_filter_free(filter);
    cr_assert_eq(kith_filter_ids(NULL, 0, &filter), KITH_OK);
    check_allowed(filter, NULL, 0, 0);
    kith_filter_free(filter);
    cr_assert_eq(kith_filter_range(-5, 2, &filter), KITH_OK);
    check_allowed(filter, (int64_t[]){0, 1}, 2, 2);
    kith_filter_free(filter);
    cr_assert_eq(kith_filter_range(7, 7, &filter), KITH_OK);
    check_allowed(filter, NULL, 0, 0);
    kith_filter_free(filter);
    cr_assert_eq(kith_filter_range(9, 3, &filter), KITH_OK);
    check_allowed(filter, NULL, 0, 0);
    kith_filter_free(filter);
    cr_assert_null(kith_filter_allow_fn(NULL));
}

Test(filter, scattered_ids_are_found_as_well) {
    static const int64_t ids[] = {KITH_ID_MAX, 5, (int64_t)1 << 40, 70000, 5};
    kith_filter *filter;
    cr_assert_eq(kith_filter_ids(ids, 5, &filter), KITH_OK);
    kith_allow_fn allow = kith_filter_allow_fn(filter);
    for (size_t i = 0; i < 5; i++) {
        cr_assert(allow(filter, ids[i]));
        cr_assert_not(allow(filter, ids[i] - 1));
    }
    cr_assert_eq(kith_filter_allowed_max(filter), 4);
    kith_filter_free(filter);
    cr_assert_eq(kith_filter_ids((int64_t[]){KITH_ID_MAX, KITH_ID_MAX - 1}, 2, &filter), KITH_OK);
    cr_assert(kith_filter_allow_fn(filter)(filter, KITH_ID_MAX));
    cr_assert_not(kith_filter_allow_fn(filter)(filter, KITH_ID_MAX - 2));
    kith_filter_free(filter);
}

Test(filter, bad_input_is_refused) {
    kith_filter *filter = (kith_filter *)&filter;
    cr_assert_eq(kith_filter_bitset(NULL, 1, &filter), KITH_ERR_ARGUMENT);
    cr_assert_null(filter);
    cr_assert_eq(kith_filter_bitset((uint64_t[]){1}, SIZE_MAX, &filter), KITH_ERR_OVERFLOW);
    cr_assert_eq(kith_filter_bitset(NULL, 0, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_filter_ids(NULL, 1, &filter), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_filter_ids((int64_t[]){1, -1}, 2, &filter), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "id -1 at position 1"));
    cr_assert_eq(kith_filter_ids((int64_t[]){INT64_MAX}, 1, &filter), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_filter_ids(NULL, 0, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_filter_range(0, 1, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_filter_callback(NULL, NULL, &filter), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- Filtered searches ---------------------------------------------------------------------------------- */

/* Every filter below allows what this allows; the step and the bound say how much. */
static int64_t allowed_step, allowed_end;
static bool is_allowed(int64_t id) { return id % allowed_step == 0 && id < allowed_end; }
static int callback(void *user, int64_t id) {
    (void)user;
    return is_allowed(id);
}

enum { KINDS = 6 };

/* NOT (NOT listed): what cannot be listed any more. */
static kith_status make_not_unlisted(const kith_filter *listed, kith_filter **out) {
    kith_filter *unlisted;
    kith_status status = kith_filter_not(listed, &unlisted);
    if (status == KITH_OK) status = kith_filter_not(unlisted, out);
    kith_filter_free(unlisted);
    return status;
}

static kith_filter *make(size_t kind) {
    kith_filter *filter = NULL;
    int64_t ids[COUNT + 1];
    uint64_t words[COUNT / 64 + 1] = {0};
    size_t count = 0;
    for (int64_t id = 0; id <= COUNT; id++)
        if (is_allowed(id)) {
            ids[count++] = id;
            words[id / 64] |= 1ull << (id % 64);
        }
    ids[count] = 12345678; /* not in the index */
    kith_filter *listed, *asked;
    cr_assert_eq(kith_filter_ids(ids, count + 1, &listed), KITH_OK);
    cr_assert_eq(kith_filter_callback(callback, NULL, &asked), KITH_OK);
    kith_status status = kind == 0   ? kith_filter_bitset(words, COUNT, &filter)
                         : kind == 1 ? kith_filter_ids(ids, count + 1, &filter)
                         : kind == 2 ? kith_filter_callback(callback, NULL, &filter)
                         : kind == 3 ? kith_filter_range(0, allowed_end, &filter)
                         : kind == 4 ? kith_filter_and((const kith_filter *[]){asked, listed}, 2, &filter)
                                     : make_not_unlisted(listed, &filter);
    kith_filter_free(listed);
    kith_filter_free(asked);
    cr_assert_eq(status, KITH_OK, "%s", kith_error_message());
    return filter;
}

static void check_filters(const kith_index *index, const fixture_model *model, const fixture_vectors *queries) {
    static const int64_t steps[] = {1, 2, 7, 50, 300}, ends[] = {0, 1, 10, 50, 200, COUNT};
    float radius = kith_index_metric(index) == KITH_L2 ? 8 : 0.1f;
    kith_search_params params;
    kith_search_params_init(&params);
    for (size_t s = 0; s < 5; s++)
        for (size_t e = 0; e < 6; e++)
            for (size_t kind = 0; kind < KINDS; kind++) {
                allowed_step = steps[s];
                allowed_end = ends[e];
                if (kind == 3 && allowed_step != 1) continue;
                kith_filter *filter = make(kind);
                params.filter = filter;
                params.threads = 1 + kind % 2 * 2;
                fixture_check_search(index, model, queries, 12, &params, is_allowed);
                fixture_check_range(index, model, queries, radius, &params, is_allowed);
                kith_filter_free(filter);
            }
}

Test(filter, searches_return_allowed_ids_and_all_that_are_near) {
    static const kith_dtype types[] = {KITH_F32, KITH_U8, KITH_F16};
    for (size_t m = 0; m < 3; m++) {
        fixture_vectors vectors = fixture_vectors_make(types[m], COUNT, DIM, 60);
        fixture_vectors queries = fixture_vectors_make(types[m], 20, DIM, 61);
        fixture_model model;
        fixture_model_init(&model, DIM);
        for (size_t i = 0; i < COUNT; i++) fixture_model_put(&model, (int64_t)i, vectors.values + i * DIM);
        kith_index *index;
        cr_assert_eq(kith_index_create(fixture_spec(types[m]), DIM, fixture_metrics[m], &index), KITH_OK);
        kith_view view = fixture_view(&vectors, 0, COUNT);
        cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK);
        check_filters(index, &model, &queries);
        for (int64_t id = 3; id < COUNT; id += 5) { /* now ids are stored and out of order */
            cr_assert_eq(kith_index_remove(index, &id, 1, NULL), KITH_OK);
            fixture_model_remove(&model, id);
        }
        check_filters(index, &model, &queries);
        const char *folder = faults_folder(), *path = faults_path(folder, "x.kith");
        kith_index *mapped; /* which has no map of its ids */
        cr_assert_eq(kith_index_save(index, path), KITH_OK);
        cr_assert_eq(kith_index_map(path, &mapped), KITH_OK);
        check_filters(mapped, &model, &queries);
        kith_index_free(mapped);
        faults_folder_remove(folder);
        kith_index_free(index);
        fixture_model_free(&model);
        fixture_vectors_free(&vectors);
        fixture_vectors_free(&queries);
    }
}

Test(filter, a_short_row_is_never_silent) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 50, DIM, 62);
    kith_view view = fixture_view(&vectors, 0, 50), queries = fixture_view(&vectors, 0, 3);
    kith_index *index;
    cr_assert_eq(kith_index_create("Flat", DIM, KITH_IP, &index), KITH_OK);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK);
    static const int64_t listed[] = {4, 8, 11};
    kith_filter *three, *nothing;
    cr_assert_eq(kith_filter_ids(listed, 3, &three), KITH_OK);
    cr_assert_eq(kith_filter_range(0, 0, &nothing), KITH_OK);
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = three;
    int64_t ids[3][5];
    float distances[3][5];
    size_t counts[3];
    cr_assert_eq(kith_index_search(index, &queries, 3, &params, ids[0], NULL, NULL), KITH_OK);
    cr_assert_eq(kith_index_search(index, &queries, 5, &params, ids[0], distances[0], NULL), KITH_ERR_INCOMPLETE);
    cr_assert_not_null(strstr(kith_error_message(), "3 of 3 queries"));
    for (size_t q = 0; q < 3; q++)
        for (size_t i = 0; i < 5; i++) {
            cr_assert_eq(ids[q][i] == KITH_NO_ID, i >= 3);
            cr_assert_eq(distances[q][i] == -INFINITY, i >= 3);
        }
    cr_assert_eq(kith_index_search(index, &queries, 5, &params, ids[0], distances[0], counts), KITH_OK);
    cr_assert(counts[0] == 3 && counts[1] == 3 && counts[2] == 3);
    params.filter = nothing;
    cr_assert_eq(kith_index_search(index, &queries, 5, &params, ids[0], distances[0], counts), KITH_OK);
    cr_assert(counts[0] == 0 && ids[0][0] == KITH_NO_ID && distances[0][0] == -INFINITY);
    kith_filter_free(three);
    kith_filter_free(nothing);
    kith_index_free(index);
    fixture_vectors_free(&vectors);
}

/* ---- How often a callback is asked ---------------------------------------------------------------------- */

typedef struct asked {
    _Atomic int times[COUNT];
} asked;

static int count_asks(void *user, int64_t id) {
    asked *all = user;
    cr_assert(id >= 0 && id < COUNT);
    atomic_fetch_add(&all->times[id], 1);
    return id % 3 != 0;
}

Test(filter, a_callback_is_asked_at_most_once_per_id_and_query) {
    static asked all;
    for (size_t t = 0; t < 5; t++) {
        fixture_vectors vectors = fixture_vectors_make(fixture_types[t], COUNT, DIM, 63);
        kith_index *index;
        kith_filter *filter;
        cr_assert_eq(kith_index_create(fixture_spec(fixture_types[t]), DIM, KITH_L2, &index), KITH_OK);
        kith_view view = fixture_view(&vectors, 0, COUNT);
        cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK);
        cr_assert_eq(kith_filter_callback(count_asks, &all, &filter), KITH_OK);
        kith_search_params params;
        kith_search_params_init(&params);
        params.filter = filter;
        static int64_t ids[100 * 30];
        for (size_t n = 1; n <= 100; n += 33)
            for (params.threads = 1; params.threads <= 4; params.threads += 3)
                for (size_t k = 1; k <= 30; k += 29) {
                    memset(&all, 0, sizeof all);
                    kith_view queries = fixture_view(&vectors, 0, n);
                    cr_assert_eq(kith_index_search(index, &queries, k, &params, ids, NULL, NULL), KITH_OK);
                    for (size_t i = 0; i < COUNT; i++)
                        cr_assert_leq((size_t)all.times[i], n, "id %zu: %d times for %zu queries", i, all.times[i],
                                      n);
                }
        kith_filter_free(filter);
        kith_index_free(index);
        fixture_vectors_free(&vectors);
    }
}

typedef struct sharing {
    const kith_index *index;
    kith_search_params params;
    kith_view queries;
    _Atomic int failures;
} sharing;

static void *search_shared(void *argument) {
    sharing *all = argument;
    int64_t ids[10];
    for (int i = 0; i < 50; i++) {
        if (kith_index_search(all->index, &all->queries, 10, &all->params, ids, NULL, NULL) != KITH_OK)
            atomic_fetch_add(&all->failures, 1);
        for (size_t r = 0; r < 10; r++)
            if (ids[r] % 2 != 0) atomic_fetch_add(&all->failures, 1);
    }
    return NULL;
}

Test(filter, one_filter_serves_many_threads) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, COUNT, DIM, 64);
    kith_index *index;
    cr_assert_eq(kith_index_create("Flat", DIM, KITH_L2, &index), KITH_OK);
    kith_view view = fixture_view(&vectors, 0, COUNT);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK);
    allowed_step = 2;
    allowed_end = COUNT;
    for (size_t kind = 0; kind < 3; kind++) {
        kith_filter *filter = make(kind);
        sharing all = {.index = index, .queries = fixture_view(&vectors, 7, 1)};
        kith_search_params_init(&all.params);
        all.params.filter = filter;
        pthread_t threads[16];
        for (size_t i = 0; i < 16; i++) cr_assert_eq(pthread_create(&threads[i], NULL, search_shared, &all), 0);
        for (size_t i = 0; i < 16; i++) cr_assert_eq(pthread_join(threads[i], NULL), 0);
        cr_assert_eq(all.failures, 0);
        kith_filter_free(filter);
    }
    kith_index_free(index);
    fixture_vectors_free(&vectors);
}
