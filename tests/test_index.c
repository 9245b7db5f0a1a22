/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "index/vtable.h"
#include "index_fixture.h"
#include "memory_faults.h"

enum { DIM = 4 };

static kith_index *create(const char *spec, size_t dim, kith_metric metric) {
    kith_index *index;
    cr_assert_eq(kith_index_create(spec, dim, metric, &index), KITH_OK, "%s", kith_error_message());
    return index;
}

/* An index with `count` random f32 vectors under ids 0, 1, ..., and its model. */
static kith_index *filled(const char *spec, kith_metric metric, size_t count, fixture_model *model) {
    fixture_vectors vectors = fixture_vectors_make(KITH_U8, count, DIM, 50);
    kith_index *index = create(spec, DIM, metric);
    kith_view view = fixture_view(&vectors, 0, count);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK, "%s", kith_error_message());
    if (model != NULL) {
        fixture_model_init(model, DIM);
        for (size_t i = 0; i < count; i++) fixture_model_put(model, (int64_t)i, vectors.values + i * DIM);
    }
    fixture_vectors_free(&vectors);
    return index;
}

/* ---- Creation and properties ---------------------------------------------------------------------------- */

Test(index, says_what_it_is) {
    kith_index *index = create("Flat,bf16", 17, KITH_IP);
    cr_assert_eq(kith_index_dim(index), 17);
    cr_assert_eq(kith_index_count(index), 0);
    cr_assert_eq(kith_index_metric(index), KITH_IP);
    cr_assert_eq(kith_index_dtype(index), KITH_BF16);
    cr_assert_eq(kith_index_is_trained(index), 1);
    cr_assert_eq(kith_index_is_mapped(index), 0);
    cr_assert_str_eq(kith_index_spec(index), "Flat,bf16");
    kith_index_free(index);
    kith_index_free(NULL);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(index, creation_refuses_what_is_out_of_range) {
    static const struct {
        const char *spec;
        size_t dim;
        int metric;
        kith_status status;
    } cases[] = {
        {NULL, 4, KITH_L2, KITH_ERR_ARGUMENT},
        {"Flat", 0, KITH_L2, KITH_ERR_ARGUMENT},
        {"Flat", KITH_DIM_MAX + 1, KITH_L2, KITH_ERR_ARGUMENT},
        {"Flat", SIZE_MAX, KITH_L2, KITH_ERR_ARGUMENT},
        {"Flat", 4, 0, KITH_ERR_ARGUMENT},
        {"Flat", 4, 5, KITH_ERR_ARGUMENT},
        {"Flat", 4, -1, KITH_ERR_ARGUMENT},
        {"Flat", 4, KITH_HAMMING, KITH_ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kith_index *index = (kith_index *)&index;
        cr_assert_eq(kith_index_create(cases[i].spec, cases[i].dim, (kith_metric)cases[i].metric, &index),
                     cases[i].status, "case %zu", i);
        cr_assert_null(index);
        cr_assert_gt(strlen(kith_error_message()), 10);
    }
    cr_assert_eq(kith_index_create("Flat", 4, KITH_L2, NULL), KITH_ERR_ARGUMENT);
    kith_index *largest = create("Flat,u8", KITH_DIM_MAX, KITH_COSINE);
    kith_index_free(largest);
}

Test(index, memory_is_told_by_part) {
    fixture_model model;
    kith_index *index = filled("Flat", KITH_COSINE, 1000, &model);
    kith_memory_part parts[16];
    size_t count, small;
    cr_assert_eq(kith_index_memory(index, parts, 16, &count), KITH_OK);
    uint64_t vectors = 0, norms = 0, ids = 1, map = 1;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(parts[i].name, "vectors") == 0) vectors = parts[i].bytes;
        if (strcmp(parts[i].name, "norms") == 0) norms = parts[i].bytes;
        if (strcmp(parts[i].name, "ids") == 0) ids = parts[i].bytes;
        if (strcmp(parts[i].name, "id map") == 0) map = parts[i].bytes;
    }
    const uint64_t granule = 66 << 10; /* the least that an array has room for, and its table: chunks.h */
    cr_assert(vectors >= 1000 * DIM * 4 && vectors < 2 * 1000 * DIM * 4 + granule);
    cr_assert(norms >= 1000 * 4 && norms < 2 * 1000 * 4 + granule);
    cr_assert_eq(ids, 0);
    cr_assert_eq(map, 0);
    kith_memory_part two[2];
    cr_assert_eq(kith_index_memory(index, two, 2, &small), KITH_OK);
    cr_assert_eq(small, count);
    cr_assert_eq(kith_index_memory(index, NULL, 0, &small), KITH_OK);
    cr_assert_eq(small, count);
    cr_assert_eq(kith_index_memory(index, NULL, 1, &small), KITH_ERR_ARGUMENT);
    float again[DIM] = {1};
    const kith_view one = {again, KITH_F32, 1, DIM, 0};
    cr_assert_eq(kith_index_update(index, &one, (int64_t[]){5}), KITH_OK);
    cr_assert_eq(kith_index_memory(index, parts, 16, &count), KITH_OK);
    for (size_t i = 0; i < count; i++) cr_assert_gt(parts[i].bytes, 0, "%s", parts[i].name);
    kith_index_free(index);
    fixture_model_free(&model);
}

/* ---- Bad input ------------------------------------------------------------------------------------------ */

static kith_status fake_train(kith_index *index, const kith_view *sample, const kith_job *job) {
    (void)index, (void)sample, (void)job;
    return KITH_OK;
}
static size_t fake_train_count(const kith_index *index) { return 7 * index->dim; }
static size_t fake_list_sizes(const kith_index *index, uint64_t *sizes, size_t capacity) {
    for (size_t i = 0; i < 3 && i < capacity; i++) sizes[i] = index->count + i;
    return 3;
}

/* Of structures that train or have lists, and of those that do not say so. */
Test(index, training_and_lists_are_told) {
    static const kith_index_vtable silent = {.name = "Silent", .train = fake_train},
                                   open = {.train = fake_train,
                                           .train_count = fake_train_count,
                                           .list_sizes = fake_list_sizes};
    kith_index index;
    uint64_t sizes[4] = {0};
    size_t count;
    kith_index *flat = create("Flat", DIM, KITH_L2);
    cr_assert_eq(kith_index_train_count(flat), 0);
    cr_assert_eq(kith_index_list_sizes(flat, sizes, 4, &count), KITH_OK);
    cr_assert_eq(count, 0);
    kith_index_free(flat);
    kith_index_init(&index, &silent, DIM, KITH_L2, KITH_F32, "Silent");
    cr_assert_eq(kith_index_train_count(&index), KITH_TRAIN_COUNT);
    kith_index_init(&index, &open, DIM, KITH_L2, KITH_F32, "Open");
    index.count = 5;
    cr_assert_eq(kith_index_train_count(&index), 7 * DIM);
    cr_assert_eq(kith_index_list_sizes(&index, NULL, 0, &count), KITH_OK);
    cr_assert_eq(count, 3);
    cr_assert_eq(kith_index_list_sizes(&index, sizes, 2, &count), KITH_OK);
    cr_assert(count == 3 && sizes[0] == 5 && sizes[1] == 6 && sizes[2] == 0);
}

Test(index, null_arguments_are_errors) {
    float row[DIM] = {1, 2, 3, 4}, out[DIM];
    int64_t id = 0;
    kith_view view = {row, KITH_F32, 1, DIM, 0};
    kith_index *index = filled("Flat", KITH_L2, 3, NULL), *copy;
    kith_range_result *range;
    size_t count;
    cr_assert_eq(kith_index_train(NULL, &view, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_train(index, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_add(NULL, &view, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_add(index, NULL, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_remove(NULL, &id, 1, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_remove(index, NULL, 1, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_update(NULL, &view, &id), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_update(index, NULL, &id), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_update(index, &view, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_reset(NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_reconstruct(NULL, &id, 1, out), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_reconstruct(index, NULL, 1, out), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_reconstruct(index, &id, 1, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_reconstruct(index, NULL, 0, NULL), KITH_OK);
    cr_assert_eq(kith_index_clone(NULL, &copy), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_clone(index, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_memory(NULL, NULL, 0, &count), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_memory(index, NULL, 0, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_list_sizes(NULL, NULL, 0, &count), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_list_sizes(index, NULL, 1, &count), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_list_sizes(index, NULL, 0, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_train_count(NULL), 0);
    cr_assert_eq(kith_index_search(NULL, &view, 1, NULL, &id, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_search(index, NULL, 1, NULL, &id, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_search(index, &view, 1, NULL, NULL, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_range_search(NULL, &view, 1, NULL, &range), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_range_search(index, &view, 1, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_range_search(index, &view, NAN, NULL, &range), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_search_context_create(NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_save(NULL, "x"), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_save(index, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_load(NULL, &copy), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_load("x", NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_map(NULL, &copy), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_map("x", NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_file_verify(NULL), KITH_ERR_ARGUMENT);
    kith_range_result_free(NULL);
    kith_search_context_free(NULL);
    kith_filter_free(NULL);
    kith_index_free(index);
}

Test(index, bad_views_are_refused_by_every_call) {
    float rows[3][DIM] = {{1, 2, 3, 4}, {5, 6, 7, 8}, {1, 1, 1, 1}};
    float nan_row[2][DIM] = {{1, 2, 3, 4}, {1, 2, NAN, 4}}, inf_row[1][DIM] = {{1, -INFINITY, 3, 4}};
    float large[2][DIM] = {{1, 2, 3, 4}, {1e19f, 0, 0, 0}}, zero[2][DIM] = {{1, 0, 0, 0}, {0, 0, 0, 0}};
    const struct {
        kith_view view;
        kith_status status;
        const char *named;
    } cases[] = {
        {{rows, KITH_F32, 3, DIM + 1, 0}, KITH_ERR_DIMENSION, "5"},
        {{rows, KITH_F32, 3, 0, 0}, KITH_ERR_ARGUMENT, "dimension 0"},
        {{rows, KITH_F32, 3, SIZE_MAX, 0}, KITH_ERR_ARGUMENT, "dimension"},
        {{rows, KITH_F32, 0, DIM, 0}, KITH_ERR_EMPTY, "no"},
        {{NULL, KITH_F32, 3, DIM, 0}, KITH_ERR_ARGUMENT, "NULL"},
        {{rows, KITH_B1, 3, DIM, 0}, KITH_ERR_TYPE, "b1"},
        {{rows, KITH_F64, 3, DIM, 0}, KITH_ERR_TYPE, "f64"},
        {{rows, (kith_dtype)0, 3, DIM, 0}, KITH_ERR_TYPE, "?"},
        {{rows, (kith_dtype)77, 3, DIM, 0}, KITH_ERR_TYPE, "?"},
        {{rows, KITH_F32, 3, DIM, 8}, KITH_ERR_ARGUMENT, "8"},
        {{rows, KITH_F32, 3, DIM, 18}, KITH_ERR_ARGUMENT, "18"},
        {{(char *)rows + 1, KITH_F32, 2, DIM, 0}, KITH_ERR_ARGUMENT, "aligned"},
        {{rows, KITH_F32, SIZE_MAX / 8, DIM, 0}, KITH_ERR_OVERFLOW, "rows"},
        {{rows, KITH_F32, 3, DIM, SIZE_MAX - 3}, KITH_ERR_OVERFLOW, "rows"},
        {{nan_row, KITH_F32, 2, DIM, 0}, KITH_ERR_NOT_FINITE, "row 1, column 2"},
        {{inf_row, KITH_F32, 1, DIM, 0}, KITH_ERR_NOT_FINITE, "row 0, column 1"},
        {{large, KITH_F32, 2, DIM, 0}, KITH_ERR_RANGE, "row 1"},
        {{zero, KITH_F32, 2, DIM, 0}, KITH_ERR_ZERO_VECTOR, "row 1"},
    };
    fixture_model model;
    kith_index *index = filled("Flat", KITH_COSINE, 5, &model);
    static const int64_t given[3] = {2, 3, 4};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const kith_view *view = &cases[i].view;
        kith_status expected = cases[i].status;
        int64_t ids[8] = {7, 7, 7, 7, 7, 7, 7, 7};
        kith_range_result *range = (kith_range_result *)&range;
        cr_assert_eq(kith_index_add(index, view, NULL, NULL), expected, "case %zu: %s", i, kith_error_message());
        cr_assert_not_null(strstr(kith_error_message(), cases[i].named), "'%s'", kith_error_message());
        cr_assert_eq(kith_index_train(index, view, NULL), expected, "case %zu", i);
        cr_assert_eq(kith_index_update(index, view, given), expected, "case %zu", i);
        cr_assert_eq(kith_index_search(index, view, 2, NULL, ids, NULL, NULL), expected, "case %zu", i);
        cr_assert_not_null(strstr(kith_error_message(), cases[i].named), "'%s'", kith_error_message());
        cr_assert(ids[0] == 7 || ids[0] == KITH_NO_ID);
        cr_assert_eq(kith_index_range_search(index, view, 0, NULL, &range), expected, "case %zu", i);
        cr_assert_null(range);
        fixture_check_content(index, &model);
    }
    kith_view good = {rows, KITH_F32, 3, DIM, 0};
    cr_assert_eq(kith_index_train(index, &good, NULL), KITH_OK);
    fixture_check_content(index, &model);
    kith_index_free(index);
    fixture_model_free(&model);
}

Test(index, bad_searches_are_refused) {
    float row[DIM] = {1, 2, 3, 4};
    kith_view view = {row, KITH_F32, 1, DIM, 0};
    int64_t ids[8];
    kith_range_result *range;
    kith_index *index = create("Flat", DIM, KITH_L2);
    cr_assert_eq(kith_index_search(index, &view, 1, NULL, ids, NULL, NULL), KITH_ERR_EMPTY);
    cr_assert_eq(kith_index_range_search(index, &view, 1, NULL, &range), KITH_ERR_EMPTY);
    kith_index_free(index);
    index = filled("Flat", KITH_L2, 8, NULL);
    cr_assert_eq(kith_index_search(index, &view, 0, NULL, ids, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_search(index, &view, 9, NULL, ids, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "k = 9 is outside 1..8"));
    cr_assert_eq(kith_index_search(index, &view, SIZE_MAX, NULL, ids, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_search(index, &view, 8, NULL, ids, NULL, NULL), KITH_OK);
    kith_index_free(index);
}

Test(index, bad_ids_are_refused) {
    float rows[3][DIM] = {{1, 2, 3, 4}, {5, 6, 7, 8}, {1, 1, 1, 1}}, out[2 * DIM] = {9, 9};
    kith_view view = {rows, KITH_F32, 3, DIM, 0};
    fixture_model model;
    kith_index *index = filled("Flat", KITH_IP, 5, &model);
    cr_assert_eq(kith_index_add(index, &view, (int64_t[]){7, -1, 8}, NULL), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "id -1 at position 1"));
    cr_assert_eq(kith_index_add(index, &view, (int64_t[]){7, 9, INT64_MIN}, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_update(index, &view, (int64_t[]){0, 5, 1}), KITH_ERR_NOT_FOUND);
    cr_assert_not_null(strstr(kith_error_message(), "id 5"));
    cr_assert_eq(kith_index_update(index, &view, (int64_t[]){0, 1, 0}), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_update(index, &view, (int64_t[]){0, -1, 1}), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_reconstruct(index, (int64_t[]){0, 5}, 2, out), KITH_ERR_NOT_FOUND);
    cr_assert_eq(kith_index_reconstruct(index, (int64_t[]){0, -1}, 2, out), KITH_ERR_NOT_FOUND);
    cr_assert_eq(kith_index_reconstruct(index, (int64_t[]){0, 1}, SIZE_MAX / 8, out), KITH_ERR_OVERFLOW);
    cr_assert_eq(out[0], 9);
    fixture_check_content(index, &model);
    kith_index_free(index);
    fixture_model_free(&model);
}

/* ---- Parameters ----------------------------------------------------------------------------------------- */

Test(index, parameters_are_set_by_name) {
    kith_index *index = create("Flat", DIM, KITH_L2);
    kith_search_params params;
    kith_search_params_init(&params);
    cr_assert_eq(params.size, sizeof params);
    cr_assert_eq(params.threads, 1);
    cr_assert_eq(kith_search_params_set(&params, index, "threads", "7"), KITH_OK);
    cr_assert_eq(params.threads, 7);
    cr_assert_eq(kith_search_params_set(&params, index, "max_distances", "18446744073709551615"), KITH_OK);
    cr_assert_eq(params.max_distances, UINT64_MAX);
    static const char *const bad[] = {"1025", "-1", "+1", "", " 1", "1 ", "1x", "0x1", "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(kith_search_params_set(&params, index, "threads", bad[i]), KITH_ERR_ARGUMENT, "'%s'", bad[i]);
        cr_assert_not_null(strstr(kith_error_message(), "0..1024"));
        cr_assert_eq(params.threads, 7);
    }
    cr_assert_eq(kith_search_params_set(&params, index, "nprobe", "3"), KITH_ERR_NOT_FOUND);
    cr_assert_not_null(strstr(kith_error_message(), "threads, max_distances"));
    cr_assert_eq(kith_search_params_set(NULL, index, "threads", "3"), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_search_params_set(&params, NULL, "threads", "3"), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_search_params_set(&params, index, NULL, "3"), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_search_params_set(&params, index, "threads", NULL), KITH_ERR_ARGUMENT);
    params.size = 8;
    cr_assert_eq(kith_search_params_set(&params, index, "threads", "3"), KITH_ERR_ARGUMENT);
    kith_index_free(index);
}

Test(index, parameters_are_listed) {
    kith_index *index = create("Flat", DIM, KITH_L2);
    size_t count = kith_index_param_count(index);
    cr_assert_eq(count, 2);
    for (size_t i = 0; i < count; i++) {
        const kith_search_param *param = kith_index_param(index, i);
        cr_assert(param->min <= param->default_value && param->default_value <= param->max);
        cr_assert_gt(strlen(param->help), 5);
        char value[32];
        kith_search_params params;
        kith_search_params_init(&params);
        (void)snprintf(value, sizeof value, "%llu", (unsigned long long)param->default_value);
        kith_search_params changed = params;
        cr_assert_eq(kith_search_params_set(&changed, index, param->name, value), KITH_OK);
        cr_assert_eq(memcmp(&changed, &params, sizeof params), 0, "the default of %s", param->name);
    }
    cr_assert_null(kith_index_param(index, count));
    cr_assert_eq(kith_index_param_count(NULL), 0);
    kith_index_free(index);
}

Test(index, older_and_newer_programs_are_understood) {
    float row[DIM] = {1, 2, 3, 4};
    kith_view view = {row, KITH_F32, 1, DIM, 0};
    int64_t ids[5];
    kith_index *index = filled("Flat", KITH_L2, 5, NULL);
    struct {
        kith_search_params params;
        size_t later;
    } newer = {.later = 0};
    kith_search_params_init(&newer.params);
    newer.params.size = sizeof newer;
    cr_assert_eq(kith_index_search(index, &view, 5, &newer.params, ids, NULL, NULL), KITH_OK);
    newer.later = 1;
    cr_assert_eq(kith_index_search(index, &view, 5, &newer.params, ids, NULL, NULL), KITH_ERR_UNSUPPORTED);
    kith_search_params older;
    memset(&older, 0xff, sizeof older);
    older.size = offsetof(kith_search_params, filter);
    older.threads = 1;
    cr_assert_eq(kith_index_search(index, &view, 5, &older, ids, NULL, NULL), KITH_OK);
    older.threads = 1025;
    cr_assert_eq(kith_index_search(index, &view, 5, &older, ids, NULL, NULL), KITH_ERR_ARGUMENT);
    kith_index_free(index);
}

/* ---- Progress, contexts, budget ------------------------------------------------------------------------- */

static int refuse(void *user, const char *phase, uint64_t done, uint64_t total) {
    cr_assert_leq(done, total);
    cr_assert_gt(strlen(phase), 0);
    ++*(int *)user;
    return 1;
}

Test(index, a_cancelled_call_changes_nothing) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 4000, DIM, 51);
    kith_view view = fixture_view(&vectors, 0, 4000), queries = fixture_view(&vectors, 0, 9);
    fixture_model model;
    kith_index *index = filled("Flat", KITH_COSINE, 40, &model);
    int calls = 0;
    kith_job job;
    kith_job_init(&job);
    job.progress = refuse;
    job.progress_user = &calls;
    for (job.threads = 1; job.threads <= 4; job.threads += 3) {
        cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_ERR_CANCELLED);
        fixture_check_content(index, &model);
    }
    cr_assert_geq(calls, 2);
    kith_search_params params;
    kith_search_params_init(&params);
    params.progress = refuse;
    params.progress_user = &calls;
    int64_t ids[9 * 5];
    float distances[9 * 5];
    size_t counts[9];
    cr_assert_eq(kith_index_search(index, &queries, 5, &params, ids, distances, counts), KITH_ERR_CANCELLED);
    for (size_t i = 0; i < 9 * 5; i++) cr_assert(ids[i] == KITH_NO_ID && distances[i] == -INFINITY);
    for (size_t i = 0; i < 9; i++) cr_assert_eq(counts[i], 0);
    kith_range_result *range;
    cr_assert_eq(kith_index_range_search(index, &queries, 0, &params, &range), KITH_ERR_CANCELLED);
    cr_assert_null(range);
    kith_index_free(index);
    fixture_model_free(&model);
    fixture_vectors_free(&vectors);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

static int count_up(void *user, const char *phase, uint64_t done, uint64_t total) {
    uint64_t *last = user;
    (void)phase;
    cr_assert_leq(done, total);
    *last = done == total ? UINT64_MAX : done;
    return 0;
}

Test(index, progress_ends_at_the_total) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 300, DIM, 51);
    kith_view view = fixture_view(&vectors, 0, 300);
    kith_index *index = create("Flat", DIM, KITH_L2);
    uint64_t last = 0;
    kith_job job;
    kith_job_init(&job);
    job.progress = count_up;
    job.progress_user = &last;
    cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_OK);
    cr_assert_eq(last, UINT64_MAX);
    kith_search_params params;
    kith_search_params_init(&params);
    params.progress = count_up;
    params.progress_user = &last;
    int64_t ids[300];
    last = 0;
    cr_assert_eq(kith_index_search(index, &view, 1, &params, ids, NULL, NULL), KITH_OK);
    cr_assert_eq(last, UINT64_MAX);
    kith_index_free(index);
    fixture_vectors_free(&vectors);
}

Test(index, a_context_spares_all_allocations_once_it_has_grown) {
    memory_faults_install();
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++) {
            fixture_vectors vectors = fixture_vectors_make(fixture_types[t], 500, DIM, 52);
            kith_index *index = create(fixture_spec(fixture_types[t]), DIM, fixture_metrics[m]);
            kith_view view = fixture_view(&vectors, 0, 500), one = fixture_view(&vectors, 3, 1);
            cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK);
            kith_filter *few, *half;
            cr_assert_eq(kith_filter_range(10, 20, &few), KITH_OK);
            cr_assert_eq(kith_filter_range(10, 300, &half), KITH_OK);
            kith_search_params params;
            kith_search_params_init(&params);
            cr_assert_eq(kith_search_context_create(&params.context), KITH_OK);
            const kith_filter *filters[] = {NULL, few, half};
            int64_t ids[10];
            float distances[10];
            size_t found;
            for (size_t f = 0; f < 3; f++) {
                params.filter = filters[f];
                for (size_t round = 0; round < 5; round++) {
                    faults_fail_allocation(0);
                    cr_assert_eq(kith_index_search(index, &one, 10, &params, ids, distances, &found), KITH_OK);
                    if (round >= 2)
                        cr_assert_eq(faults_allocation_count(), 0, "type %zu metric %zu filter %zu", t, m, f);
                }
            }
            kith_search_context_free(params.context);
            kith_filter_free(few);
            kith_filter_free(half);
            kith_index_free(index);
            fixture_vectors_free(&vectors);
        }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

typedef struct nested {
    kith_index *index;
    kith_search_params params;
    kith_status status;
} nested;

static int search_again(void *user, const char *phase, uint64_t done, uint64_t total) {
    nested *inner = user;
    float row[DIM] = {1, 2, 3, 4};
    kith_view view = {row, KITH_F32, 1, DIM, 0};
    int64_t id;
    (void)phase, (void)done, (void)total;
    inner->status = kith_index_search(inner->index, &view, 1, &inner->params, &id, NULL, NULL);
    return 0;
}

Test(index, a_context_serves_one_search_at_a_time) {
    float row[DIM] = {1, 2, 3, 4};
    kith_view view = {row, KITH_F32, 1, DIM, 0};
    nested inner = {.index = filled("Flat", KITH_L2, 5, NULL)};
    kith_search_params params;
    kith_search_params_init(&params);
    cr_assert_eq(kith_search_context_create(&params.context), KITH_OK);
    inner.params = params;
    params.progress = search_again;
    params.progress_user = &inner;
    int64_t id;
    cr_assert_eq(kith_index_search(inner.index, &view, 1, &params, &id, NULL, NULL), KITH_OK);
    cr_assert_eq(inner.status, KITH_ERR_ARGUMENT);
    cr_assert_eq(search_again(&inner, "", 0, 0), 0);
    cr_assert_eq(inner.status, KITH_OK);
    kith_search_context_free(params.context);
    kith_index_free(inner.index);
}

Test(index, a_memory_budget_is_kept) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 100, DIM, 53);
    kith_view view = fixture_view(&vectors, 0, 100);
    kith_index *index = create("Flat,f16", DIM, KITH_L2);
    int64_t ids[100];
    for (int64_t i = 0; i < 100; i++) ids[i] = 99 - i;
    kith_job job;
    kith_job_init(&job);
    job.memory_bytes_max = 16;
    cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_ERR_BUDGET);
    job.memory_bytes_max = 1000;
    cr_assert_eq(kith_index_add(index, &view, ids, &job), KITH_ERR_BUDGET);
    cr_assert_eq(kith_index_count(index), 0);
    cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_OK);
    kith_index_free(index);
    fixture_vectors_free(&vectors);
}

/* ---- Failing allocations -------------------------------------------------------------------------------- */

Test(index, every_failing_allocation_leaves_an_add_undone) {
    memory_faults_install();
    static const char *const specs[] = {"Flat", "Flat,f16"};
    for (size_t s = 0; s < 2; s++)
        for (size_t m = 0; m < 3; m++) {
            kith_status status;
            kith_index *index = NULL;
            MEMORY_FAULTS_EACH(status, kith_index_create(specs[s], DIM, fixture_metrics[m], &index)) {
                cr_assert_null(index);
            }
            kith_index_free(index);
            fixture_vectors vectors = fixture_vectors_make(KITH_U8, 200, DIM, 54);
            fixture_model model;
            index = filled(specs[s], fixture_metrics[m], 70, &model);
            static const int64_t rising[] = {80, 90, 100}, mixed[] = {75, 71, 110};
            const int64_t *ids[] = {NULL, rising, mixed, NULL};
            static const size_t counts[] = {100, 3, 3, 90};
            int64_t next = 70;
            for (size_t i = 0; i < 4; i++) {
                kith_view view = fixture_view(&vectors, 0, counts[i]);
                if (i == 1) { /* ids may start anew */
                    cr_assert_eq(kith_index_remove(index, (int64_t[]){169}, 1, NULL), KITH_OK);
                    int64_t all[200];
                    for (int64_t id = 0; id < 200; id++) all[id] = id;
                    cr_assert_eq(kith_index_remove(index, all + 70, 130, NULL), KITH_OK);
                    while (model.count > 70) fixture_model_remove(&model, model.ids[model.count - 1]);
                    next = 170;
                }
                MEMORY_FAULTS_EACH(status, kith_index_add(index, &view, ids[i], NULL)) {
                    fixture_check_content(index, &model);
                }
                for (size_t r = 0; r < counts[i]; r++)
                    fixture_model_put(&model, ids[i] != NULL ? ids[i][r] : next + (int64_t)r,
                                      vectors.values + r * DIM);
                fixture_check_content(index, &model);
            }
            kith_index_free(index);
            fixture_model_free(&model);
            fixture_vectors_free(&vectors);
        }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(index, every_failing_allocation_leaves_other_changes_undone) {
    memory_faults_install();
    fixture_model model;
    kith_index *index = filled("Flat,i8", KITH_COSINE, 150, &model), *copy;
    kith_status status;
    size_t removed;
    static const int64_t gone[] = {5, 140, 7, 149, 3}, kept[] = {100, 1, 50};
    for (size_t i = 0; i < 5; i++) {
        MEMORY_FAULTS_EACH(status, kith_index_remove(index, gone + i, 1, &removed)) {
            cr_assert_eq(removed, 0);
            fixture_check_content(index, &model);
        }
        cr_assert_eq(removed, 1);
        fixture_model_remove(&model, gone[i]);
        fixture_check_content(index, &model);
    }
    float rows[3][DIM] = {{1, 2, 3, 4}, {5, 6, 7, 8}, {1, 1, 1, 1}}, out[3][DIM];
    kith_view view = {rows, KITH_F32, 3, DIM, 0};
    MEMORY_FAULTS_EACH(status, kith_index_update(index, &view, kept)) fixture_check_content(index, &model);
    for (size_t i = 0; i < 3; i++) fixture_model_put(&model, kept[i], rows[i]);
    MEMORY_FAULTS_EACH(status, kith_index_train(index, &view, NULL)) fixture_check_content(index, &model);
    MEMORY_FAULTS_EACH(status, kith_index_reconstruct(index, kept, 3, out[0])) {}
    cr_assert_eq(memcmp(out, rows, sizeof out), 0);
    copy = NULL;
    /* The last round gets by and leaves blocks live, as it should. */
    MEMORY_FAULTS_EACH(status, kith_index_clone(index, &copy)) cr_assert_null(copy);
    fixture_check_content(copy, &model);
    kith_index_free(copy);
    kith_index_free(index);
    fixture_model_free(&model);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(index, every_failing_allocation_is_survived_by_searches) {
    memory_faults_install();
    kith_index *index = filled("Flat", KITH_COSINE, 600, NULL);
    fixture_vectors queries = fixture_vectors_make(KITH_F16, 30, DIM, 55);
    kith_filter *few = NULL, *other = NULL;
    kith_status status;
    static const int64_t allowed[] = {900, 3, 7, 8, 3, 1000000};
    static const uint64_t words[] = {~0ull, 5};
    MEMORY_FAULTS_EACH(status, kith_filter_ids(allowed, 6, &few)) cr_assert_null(few);
    MEMORY_FAULTS_EACH(status, kith_filter_bitset(words, 100, &other)) cr_assert_null(other);
    kith_filter_free(other);
    MEMORY_FAULTS_EACH(status, kith_filter_range(0, 500, &other)) cr_assert_null(other);
    const kith_filter *filters[] = {NULL, few, other};
    static int64_t ids[30 * 20];
    static size_t counts[30];
    for (size_t f = 0; f < 3; f++)
        for (size_t n = 1; n <= 30; n += 29)
            for (size_t threads = 1; threads <= 3; threads += 2) {
                kith_search_params params;
                kith_search_params_init(&params);
                params.filter = filters[f];
                params.threads = threads;
                kith_view view = fixture_view(&queries, 0, n);
                kith_range_result *range = NULL;
                MEMORY_FAULTS_EACH(status, kith_index_search(index, &view, 20, &params, ids, NULL, counts)) {
                    cr_assert(ids[0] == KITH_NO_ID && ids[n * 20 - 1] == KITH_NO_ID && counts[n - 1] == 0);
                }
                if (threads > 1) continue; /* lists grow in an order that depends on the threads */
                MEMORY_FAULTS_EACH(status, kith_index_range_search(index, &view, 0.5f, &params, &range))
                cr_assert_null(range);
                kith_range_result_free(range);
            }
    kith_filter_free(few);
    kith_filter_free(other);
    kith_index_free(index);
    fixture_vectors_free(&queries);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- Threads and processes ------------------------------------------------------------------------------ */

typedef struct crowd {
    const kith_index *index;
    kith_view queries;
    const int64_t *expected;
    size_t threads;
    _Atomic int failures;
} crowd;

enum { CROWD = 16, CROWD_QUERIES = 20, CROWD_K = 7 };

static void *search_in_crowd(void *argument) {
    crowd *all = argument;
    int64_t ids[CROWD_QUERIES * CROWD_K];
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = all->threads;
    if (kith_search_context_create(&params.context) != KITH_OK) {
        atomic_fetch_add(&all->failures, 1);
        return NULL;
    }
    for (int round = 0; round < 20; round++) {
        kith_status status = kith_index_search(all->index, &all->queries, CROWD_K, &params, ids, NULL, NULL);
        if (status != KITH_OK || memcmp(ids, all->expected, sizeof ids) != 0) atomic_fetch_add(&all->failures, 1);
    }
    kith_search_context_free(params.context);
    return NULL;
}

Test(index, searches_run_from_sixteen_threads_at_once) {
    kith_index *index = filled("Flat", KITH_L2, 2000, NULL);
    fixture_vectors queries = fixture_vectors_make(KITH_F32, CROWD_QUERIES, DIM, 56);
    int64_t expected[CROWD_QUERIES * CROWD_K];
    crowd all = {.index = index, .queries = fixture_view(&queries, 0, CROWD_QUERIES), .expected = expected};
    cr_assert_eq(kith_index_search(index, &all.queries, CROWD_K, NULL, expected, NULL, NULL), KITH_OK);
    for (all.threads = 1; all.threads <= 2; all.threads++) {
        pthread_t threads[CROWD];
        for (size_t i = 0; i < CROWD; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, search_in_crowd, &all), 0);
        for (size_t i = 0; i < CROWD; i++) cr_assert_eq(pthread_join(threads[i], NULL), 0);
        cr_assert_eq(all.failures, 0);
    }
    kith_index_free(index);
    fixture_vectors_free(&queries);
}

Test(index, more_threads_than_processors_do_no_harm) {
    kith_index *index = filled("Flat,u8", KITH_L2, 2000, NULL);
    fixture_vectors queries = fixture_vectors_make(KITH_U8, CROWD_QUERIES, DIM, 57);
    kith_view view = fixture_view(&queries, 0, CROWD_QUERIES);
    int64_t expected[CROWD_QUERIES * CROWD_K], ids[CROWD_QUERIES * CROWD_K];
    cr_assert_eq(kith_index_search(index, &view, CROWD_K, NULL, expected, NULL, NULL), KITH_OK);
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = 4 * kith_threads_default();
    for (int round = 0; round < 10; round++) {
        cr_assert_eq(kith_index_search(index, &view, CROWD_K, &params, ids, NULL, NULL), KITH_OK);
        cr_assert_eq(memcmp(ids, expected, sizeof ids), 0);
    }
    kith_index_free(index);
    fixture_vectors_free(&queries);
}

Test(index, a_forked_child_searches_and_adds) {
    kith_index *index = filled("Flat", KITH_L2, 3000, NULL);
    fixture_vectors queries = fixture_vectors_make(KITH_F32, CROWD_QUERIES, DIM, 58);
    kith_view view = fixture_view(&queries, 0, CROWD_QUERIES);
    int64_t expected[CROWD_QUERIES * CROWD_K], ids[CROWD_QUERIES * CROWD_K];
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = 4;
    cr_assert_eq(kith_index_search(index, &view, CROWD_K, &params, expected, NULL, NULL), KITH_OK);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        alarm(300);
        int wrong = kith_index_search(index, &view, CROWD_K, &params, ids, NULL, NULL) != KITH_OK ||
                    memcmp(ids, expected, sizeof ids) != 0 || kith_index_add(index, &view, NULL, NULL) != KITH_OK;
        _exit(wrong);
    }
    int how = -1;
    cr_assert_eq(waitpid(child, &how, 0), child);
    cr_assert(WIFEXITED(how) && WEXITSTATUS(how) == 0, "the child ended with %d", how);
    kith_index_free(index);
    fixture_vectors_free(&queries);
}
