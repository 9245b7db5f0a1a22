/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "index_fixture.h"

static kith_index *create(kith_dtype dtype, size_t dim, kith_metric metric) {
    kith_index *index;
    cr_assert_eq(kith_index_create(fixture_spec(dtype), dim, metric, &index), KITH_OK, "%s", kith_error_message());
    return index;
}

static void add(kith_index *index, const fixture_vectors *vectors, size_t first, size_t count, const int64_t *ids) {
    kith_view view = fixture_view(vectors, first, count);
    cr_assert_eq(kith_index_add(index, &view, ids, NULL), KITH_OK, "%s", kith_error_message());
}

static void put_all(fixture_model *model, const fixture_vectors *vectors, size_t first, size_t count,
                    int64_t first_id) {
    for (size_t i = 0; i < count; i++)
        fixture_model_put(model, first_id + (int64_t)i, vectors->values + (first + i) * vectors->dim);
}

/* ---- Searches ------------------------------------------------------------------------------------------- */

static void check_pair(kith_dtype stored, kith_dtype asked, kith_metric metric, size_t count, size_t dim) {
    fixture_vectors vectors = fixture_vectors_make(stored, count, dim, 1);
    fixture_vectors queries = fixture_vectors_make(asked, 11, dim, 2);
    fixture_model model;
    fixture_model_init(&model, dim);
    put_all(&model, &vectors, 0, count, 0);
    kith_index *index = create(stored, dim, metric);
    add(index, &vectors, 0, count, NULL);
    kith_search_params params;
    kith_search_params_init(&params);
    for (params.threads = 1; params.threads <= 4; params.threads += 3) {
        size_t ks[] = {1, count / 3 + 1, count};
        for (size_t i = 0; i < 3; i++) fixture_check_search(index, &model, &queries, ks[i], &params, NULL);
        fixture_check_range(index, &model, &queries, metric == KITH_L2 ? 1.5f * (float)dim : 0.25f, &params, NULL);
        fixture_check_range(index, &model, &queries, metric == KITH_L2 ? INFINITY : -INFINITY, &params, NULL);
    }
    fixture_check_content(index, &model);
    kith_index_free(index);
    fixture_model_free(&model);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
}

Test(flat, equals_brute_force_for_all_types_and_metrics) {
    for (size_t s = 0; s < 5; s++)
        for (size_t q = 0; q < 5; q++)
            for (size_t m = 0; m < 3; m++)
                check_pair(fixture_types[s], fixture_types[q], fixture_metrics[m], 90, 19);
}

Test(flat, equals_brute_force_at_the_boundaries) {
    static const size_t counts[] = {1, 2, 64, 65, 700}, dims[] = {1, 2, 32, 33};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
            for (size_t m = 0; m < 3; m++) {
                check_pair(KITH_F32, KITH_F32, fixture_metrics[m], counts[c], dims[d]);
                check_pair(KITH_U8, KITH_U8, fixture_metrics[m], counts[c], dims[d]);
            }
}

Test(flat, a_result_does_not_depend_on_the_batch_the_threads_or_the_context) {
    enum { COUNT = 1500, DIM = 40, QUERIES = 70, K = 12 };
    static int64_t ids[QUERIES][K], other_ids[QUERIES][K];
    static float distances[QUERIES][K], other_distances[QUERIES][K];
    kith_search_context *context;
    cr_assert_eq(kith_search_context_create(&context), KITH_OK);
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++) {
            fixture_vectors vectors = fixture_vectors_make(fixture_types[t], COUNT, DIM, 3);
            fixture_vectors queries = fixture_vectors_make(fixture_types[t], QUERIES, DIM, 4);
            kith_index *index = create(fixture_types[t], DIM, fixture_metrics[m]);
            add(index, &vectors, 0, COUNT, NULL);
            kith_search_params params;
            kith_search_params_init(&params);
            kith_view view = fixture_view(&queries, 0, QUERIES);
            cr_assert_eq(kith_index_search(index, &view, K, &params, ids[0], distances[0], NULL), KITH_OK);
            for (size_t threads = 1; threads <= 16; threads *= 2) {
                params.threads = threads;
                cr_assert_eq(kith_index_search(index, &view, K, &params, other_ids[0], other_distances[0], NULL),
                             KITH_OK);
                cr_assert_eq(memcmp(ids, other_ids, sizeof ids), 0, "%zu threads", threads);
                cr_assert_eq(memcmp(distances, other_distances, sizeof distances), 0, "%zu threads", threads);
                params.context = context;
                for (size_t q = 0; q < QUERIES; q++) {
                    kith_view one = fixture_view(&queries, q, 1);
                    cr_assert_eq(kith_index_search(index, &one, K, &params, other_ids[q], other_distances[q], NULL),
                                 KITH_OK);
                }
                params.context = NULL;
                cr_assert_eq(memcmp(ids, other_ids, sizeof ids), 0, "one by one, %zu threads", threads);
                cr_assert_eq(memcmp(distances, other_distances, sizeof distances), 0, "one by one");
            }
            kith_index_free(index);
            fixture_vectors_free(&vectors);
            fixture_vectors_free(&queries);
        }
    kith_search_context_free(context);
}

Test(flat, equal_vectors_come_by_lower_id) {
    enum { COUNT = 200 };
    float same[COUNT][3];
    int64_t given[COUNT], ids[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        same[i][0] = 1, same[i][1] = 2, same[i][2] = 3;
        given[i] = (int64_t)((i * 77 + 5) % COUNT) * 10;
    }
    kith_view view = {same, KITH_F32, COUNT, 3, 0}, query = {same, KITH_F32, 1, 3, 0};
    for (size_t m = 0; m < 3; m++) {
        kith_index *index = create(KITH_F32, 3, fixture_metrics[m]);
        cr_assert_eq(kith_index_add(index, &view, given, NULL), KITH_OK);
        for (size_t k = 1; k <= COUNT; k += 33) {
            cr_assert_eq(kith_index_search(index, &query, k, NULL, ids, NULL, NULL), KITH_OK);
            for (size_t i = 0; i < k; i++) cr_assert_eq(ids[i], (int64_t)i * 10);
        }
        kith_index_free(index);
    }
}

Test(flat, values_are_in_the_metrics_own_terms) {
    float stored[2][2] = {{3, 4}, {0, 2}}, query[2] = {1, 0}, distances[2];
    int64_t ids[2];
    kith_view view = {stored, KITH_F32, 2, 2, 0}, one = {query, KITH_F32, 1, 2, 0};
    static const float expected[3][2] = {{5, 20}, {3, 0}, {0.6f, 0}};
    static const int64_t expected_ids[3][2] = {{1, 0}, {0, 1}, {0, 1}};
    for (size_t m = 0; m < 3; m++) {
        kith_index *index = create(KITH_F32, 2, fixture_metrics[m]);
        cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK);
        cr_assert_eq(kith_index_search(index, &one, 2, NULL, ids, distances, NULL), KITH_OK);
        for (size_t i = 0; i < 2; i++) {
            cr_assert_eq(ids[i], expected_ids[m][i]);
            cr_assert_float_eq(distances[i], expected[m][i], 1e-6);
        }
        kith_index_free(index);
    }
}

Test(flat, strided_views_are_read_as_packed_ones) {
    enum { COUNT = 50, DIM = 7, STRIDE = 11 };
    float wide[COUNT][STRIDE], out[DIM];
    for (size_t i = 0; i < COUNT; i++)
        for (size_t j = 0; j < STRIDE; j++) wide[i][j] = j < DIM ? (float)((i * 13 + j * j) % 97) : NAN;
    kith_view view = {wide, KITH_F32, COUNT, DIM, sizeof wide[0]};
    kith_index *index = create(KITH_U8, DIM, KITH_L2);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK, "%s", kith_error_message());
    for (int64_t id = 0; id < COUNT; id++) {
        int64_t found[1];
        float distance[1];
        cr_assert_eq(kith_index_reconstruct(index, &id, 1, out), KITH_OK);
        cr_assert_eq(memcmp(out, wide[id], sizeof out), 0);
        kith_view one = {wide[id], KITH_F32, 1, DIM, sizeof wide[0]};
        cr_assert_eq(kith_index_search(index, &one, 1, NULL, found, distance, NULL), KITH_OK);
        cr_assert_eq(distance[0], 0);
    }
    kith_index_free(index);
}

/* ---- Bounds and padding --------------------------------------------------------------------------------- */

Test(flat, max_distances_looks_at_the_first_rows) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 100, 5, 7);
    kith_index *index = create(KITH_F32, 5, KITH_L2);
    add(index, &vectors, 0, 100, NULL);
    kith_search_params params;
    kith_search_params_init(&params);
    params.max_distances = 30;
    fixture_model model;
    fixture_model_init(&model, 5);
    put_all(&model, &vectors, 0, 30, 0);
    fixture_check_search(index, &model, &vectors, 10, &params, NULL);
    fixture_check_search(index, &model, &vectors, 40, &params, NULL);
    int64_t ids[2 * 40];
    kith_view view = fixture_view(&vectors, 0, 2);
    cr_assert_eq(kith_index_search(index, &view, 40, &params, ids, NULL, NULL), KITH_ERR_INCOMPLETE);
    cr_assert_neq(ids[29], KITH_NO_ID);
    cr_assert_eq(ids[30], KITH_NO_ID);
    params.max_distances = 1000;
    put_all(&model, &vectors, 0, 100, 0);
    fixture_check_search(index, &model, &vectors, 100, &params, NULL);
    fixture_model_free(&model);
    kith_index_free(index);
    fixture_vectors_free(&vectors);
}

/* ---- Ids ------------------------------------------------------------------------------------------------ */

Test(flat, ids_are_numbered_on_from_the_largest_ever_held) {
    fixture_vectors vectors = fixture_vectors_make(KITH_I8, 20, 4, 8);
    kith_index *index = create(KITH_I8, 4, KITH_L2);
    fixture_model model;
    fixture_model_init(&model, 4);
    add(index, &vectors, 0, 3, NULL);
    put_all(&model, &vectors, 0, 3, 0);
    add(index, &vectors, 3, 1, (int64_t[]){100});
    put_all(&model, &vectors, 3, 1, 100);
    add(index, &vectors, 4, 2, NULL);
    put_all(&model, &vectors, 4, 2, 101);
    add(index, &vectors, 6, 1, (int64_t[]){50});
    put_all(&model, &vectors, 6, 1, 50);
    cr_assert_eq(kith_index_remove(index, (int64_t[]){101, 102}, 2, NULL), KITH_OK);
    fixture_model_remove(&model, 101);
    fixture_model_remove(&model, 102);
    add(index, &vectors, 7, 1, NULL);
    put_all(&model, &vectors, 7, 1, 103);
    fixture_check_content(index, &model);
    cr_assert_eq(kith_index_reset(index), KITH_OK);
    model.count = 0;
    fixture_check_content(index, &model);
    add(index, &vectors, 8, 2, NULL);
    put_all(&model, &vectors, 8, 2, 0);
    fixture_check_content(index, &model);
    fixture_model_free(&model);
    kith_index_free(index);
    fixture_vectors_free(&vectors);
}

Test(flat, the_largest_id_ends_the_numbering) {
    float one[1] = {1};
    kith_view view = {one, KITH_F32, 1, 1, 0};
    kith_index *index = create(KITH_F32, 1, KITH_IP);
    cr_assert_eq(kith_index_add(index, &view, (int64_t[]){KITH_ID_MAX}, NULL), KITH_OK);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_ERR_OVERFLOW);
    cr_assert_eq(kith_index_add(index, &view, (int64_t[]){INT64_MAX}, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_add(index, &view, (int64_t[]){0}, NULL), KITH_OK);
    cr_assert_eq(kith_index_count(index), 2);
    kith_index_free(index);
}

Test(flat, ids_that_are_there_are_refused_and_nothing_changes) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 10, 3, 9);
    fixture_model model;
    fixture_model_init(&model, 3);
    kith_index *index = create(KITH_F32, 3, KITH_COSINE);
    add(index, &vectors, 0, 5, NULL);
    put_all(&model, &vectors, 0, 5, 0);
    kith_view view = fixture_view(&vectors, 5, 3);
    static const int64_t lists[][3] = {{7, 8, 4}, {0, 7, 8}, {9, 9, 8}, {5, 6, 5}, {4, 5, 6}};
    for (size_t i = 0; i < 5; i++) {
        cr_assert_eq(kith_index_add(index, &view, lists[i], NULL), KITH_ERR_EXISTS, "list %zu", i);
        fixture_check_content(index, &model);
    }
    cr_assert_not_null(strstr(kith_error_message(), "id 4"));
    add(index, &vectors, 5, 3, (int64_t[]){9, 7, 8});
    put_all(&model, &vectors, 5, 1, 9);
    put_all(&model, &vectors, 6, 2, 7);
    fixture_check_content(index, &model);
    cr_assert_eq(kith_index_add(index, &view, (int64_t[]){10, 7, 11}, NULL), KITH_ERR_EXISTS);
    fixture_check_content(index, &model);
    fixture_model_free(&model);
    kith_index_free(index);
    fixture_vectors_free(&vectors);
}

/* A few hundred changes of all kinds, drawn at random, against the model. */
static void change_at_random(kith_dtype dtype, kith_metric metric, uint64_t stream) {
    enum { DIM = 6, POOL = 500, IDS = 150 };
    fixture_vectors pool = fixture_vectors_make(dtype, POOL, DIM, stream);
    fixture_vectors queries = fixture_vectors_make(dtype, 3, DIM, stream + 1);
    fixture_model model;
    fixture_model_init(&model, DIM);
    kith_index *index = create(dtype, DIM, metric);
    for (uint64_t step = 0; step < 300; step++) {
        uint64_t kind = kith_random_below(stream, 0, step, 8);
        size_t count = (size_t)kith_random_below(stream, 1, step, 12) + 1;
        size_t first = (size_t)kith_random_below(stream, 2, step, POOL - count);
        int64_t ids[12];
        bool held = false, all_held = true;
        for (size_t i = 0; i < count; i++) {
            ids[i] = (int64_t)(kith_random_below(stream, 3, step, IDS) + i * 7) % IDS;
            held |= fixture_model_find(&model, ids[i]) != NULL;
            all_held &= fixture_model_find(&model, ids[i]) != NULL;
        }
        kith_view view = fixture_view(&pool, first, count);
        if (kind < 3) {
            kith_status status = kith_index_add(index, &view, ids, NULL);
            cr_assert_eq(status, held ? KITH_ERR_EXISTS : KITH_OK);
            for (size_t i = 0; i < count && !held; i++)
                fixture_model_put(&model, ids[i], pool.values + (first + i) * DIM);
        } else if (kind < 6) {
            size_t removed, expected = 0;
            for (size_t i = 0; i < count; i++) expected += fixture_model_remove(&model, ids[i]);
            cr_assert_eq(kith_index_remove(index, ids, count, &removed), KITH_OK);
            cr_assert_eq(removed, expected);
        } else {
            cr_assert_eq(kith_index_update(index, &view, ids), all_held ? KITH_OK : KITH_ERR_NOT_FOUND);
            for (size_t i = 0; i < count && all_held; i++)
                fixture_model_put(&model, ids[i], pool.values + (first + i) * DIM);
        }
        fixture_check_content(index, &model);
        if (model.count > 0) fixture_check_search(index, &model, &queries, (model.count + 1) / 2, NULL, NULL);
    }
    fixture_model_free(&model);
    kith_index_free(index);
    fixture_vectors_free(&pool);
    fixture_vectors_free(&queries);
}

Test(flat, holds_what_a_model_holds_through_changes) {
    for (size_t m = 0; m < 3; m++) {
        change_at_random(KITH_F32, fixture_metrics[m], 20 + m);
        change_at_random(KITH_U8, fixture_metrics[m], 30 + m);
        change_at_random(KITH_BF16, fixture_metrics[m], 40 + m);
    }
}

Test(flat, remove_passes_over_unknown_and_repeated_ids) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 300, 4, 11);
    kith_index *index = create(KITH_F32, 4, KITH_L2);
    add(index, &vectors, 0, 300, NULL);
    fixture_model model;
    fixture_model_init(&model, 4);
    put_all(&model, &vectors, 0, 300, 0);
    size_t removed = 9;
    cr_assert_eq(kith_index_remove(index, (int64_t[]){300, -1, -5, INT64_MIN, INT64_MAX}, 5, &removed), KITH_OK);
    cr_assert_eq(removed, 0);
    cr_assert_eq(kith_index_remove(index, (int64_t[]){299, 298, 299, 700}, 4, &removed), KITH_OK);
    cr_assert_eq(removed, 2);
    cr_assert_eq(kith_index_remove(index, (int64_t[]){0, 297, 0, 150, 150}, 5, &removed), KITH_OK);
    cr_assert_eq(removed, 3);
    cr_assert_eq(kith_index_remove(index, NULL, 0, &removed), KITH_OK);
    cr_assert_eq(removed, 0);
    static const int64_t gone[] = {299, 298, 0, 297, 150};
    for (size_t i = 0; i < 5; i++) fixture_model_remove(&model, gone[i]);
    fixture_check_content(index, &model);
    fixture_check_search(index, &model, &vectors, 295, NULL, NULL);
    int64_t all[300];
    for (size_t i = 0; i < 300; i++) all[i] = (int64_t)(299 - i);
    cr_assert_eq(kith_index_remove(index, all, 300, &removed), KITH_OK);
    cr_assert_eq(removed, 295);
    cr_assert_eq(kith_index_count(index), 0);
    cr_assert_eq(kith_index_remove(index, all, 300, &removed), KITH_OK);
    cr_assert_eq(removed, 0);
    add(index, &vectors, 0, 1, NULL);
    float out[4];
    cr_assert_eq(kith_index_reconstruct(index, (int64_t[]){300}, 1, out), KITH_OK);
    fixture_model_free(&model);
    kith_index_free(index);
    fixture_vectors_free(&vectors);
}

Test(flat, a_clone_and_its_original_go_their_own_ways) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F16, 130, 9, 12);
    fixture_model model, other;
    for (int removed = 0; removed < 2; removed++) {
        fixture_model_init(&model, 9);
        fixture_model_init(&other, 9);
        kith_index *index = create(KITH_F16, 9, KITH_COSINE), *copy;
        add(index, &vectors, 0, 100, NULL);
        put_all(&model, &vectors, 0, 100, 0);
        put_all(&other, &vectors, 0, 100, 0);
        if (removed) {
            cr_assert_eq(kith_index_remove(index, (int64_t[]){3, 70}, 2, NULL), KITH_OK);
            fixture_model_remove(&model, 3), fixture_model_remove(&model, 70);
            fixture_model_remove(&other, 3), fixture_model_remove(&other, 70);
        }
        cr_assert_eq(kith_index_clone(index, &copy), KITH_OK);
        cr_assert_str_eq(kith_index_spec(copy), "Flat,f16");
        add(copy, &vectors, 100, 10, NULL);
        put_all(&other, &vectors, 100, 10, 100);
        cr_assert_eq(kith_index_remove(copy, (int64_t[]){0, 5}, 2, NULL), KITH_OK);
        fixture_model_remove(&other, 0), fixture_model_remove(&other, 5);
        fixture_check_content(index, &model);
        add(index, &vectors, 110, 20, NULL);
        put_all(&model, &vectors, 110, 20, 100);
        fixture_check_content(copy, &other);
        fixture_check_content(index, &model);
        kith_index_free(index);
        fixture_check_search(copy, &other, &vectors, 7, NULL, NULL);
        kith_index_free(copy);
        fixture_model_free(&model);
        fixture_model_free(&other);
    }
    fixture_vectors_free(&vectors);
}

/* ---- Conversions ---------------------------------------------------------------------------------------- */

static kith_status add_one(kith_dtype stored, kith_metric metric, float value) {
    float row[3] = {1, 1, value};
    kith_view view = {row, KITH_F32, 1, 3, 0};
    kith_index *index = create(stored, 3, metric);
    kith_status status = kith_index_add(index, &view, NULL, NULL);
    cr_assert_eq(kith_index_count(index), status == KITH_OK);
    kith_index_free(index);
    return status;
}

Test(flat, only_what_the_stored_type_holds_is_taken) {
    cr_assert_eq(add_one(KITH_U8, KITH_L2, 255), KITH_OK);
    cr_assert_eq(add_one(KITH_U8, KITH_L2, 256), KITH_ERR_RANGE);
    cr_assert_eq(add_one(KITH_U8, KITH_L2, -1), KITH_ERR_RANGE);
    cr_assert_eq(add_one(KITH_U8, KITH_L2, 1.5f), KITH_ERR_RANGE);
    cr_assert_not_null(strstr(kith_error_message(), "1.5"));
    cr_assert_eq(add_one(KITH_U8, KITH_L2, -0.0f), KITH_OK);
    cr_assert_eq(add_one(KITH_U8, KITH_L2, NAN), KITH_ERR_NOT_FINITE);
    cr_assert_eq(add_one(KITH_I8, KITH_L2, INFINITY), KITH_ERR_NOT_FINITE);
    cr_assert_eq(add_one(KITH_I8, KITH_L2, 3e38f), KITH_ERR_RANGE);
    cr_assert_eq(add_one(KITH_I8, KITH_L2, -128), KITH_OK);
    cr_assert_eq(add_one(KITH_I8, KITH_L2, 128), KITH_ERR_RANGE);
    cr_assert_eq(add_one(KITH_F16, KITH_L2, 65504), KITH_OK);
    cr_assert_eq(add_one(KITH_F16, KITH_L2, 65519), KITH_OK); /* rounds to 65504 */
    cr_assert_eq(add_one(KITH_F16, KITH_L2, 65520), KITH_ERR_RANGE);
    cr_assert_eq(add_one(KITH_F16, KITH_L2, NAN), KITH_ERR_NOT_FINITE);
    cr_assert_eq(add_one(KITH_BF16, KITH_L2, -INFINITY), KITH_ERR_NOT_FINITE);
    cr_assert_eq(add_one(KITH_BF16, KITH_L2, 3.4e38f), KITH_ERR_RANGE); /* would round to infinity */
    cr_assert_eq(add_one(KITH_BF16, KITH_L2, 9e18f), KITH_OK);
    cr_assert_eq(add_one(KITH_BF16, KITH_L2, 1e19f), KITH_ERR_RANGE);
    cr_assert_eq(add_one(KITH_F32, KITH_IP, 9e18f), KITH_OK);
    cr_assert_eq(add_one(KITH_F32, KITH_IP, 1e19f), KITH_ERR_RANGE);
    cr_assert_eq(add_one(KITH_F32, KITH_COSINE, NAN), KITH_ERR_NOT_FINITE);
}

Test(flat, cosine_refuses_what_becomes_zero_when_stored) {
    float row[2] = {1e-9f, 0}, zero[2] = {0, 0};
    kith_view view = {row, KITH_F32, 1, 2, 0}, none = {zero, KITH_F32, 1, 2, 0};
    kith_index *index = create(KITH_F16, 2, KITH_COSINE), *wide = create(KITH_F32, 2, KITH_COSINE);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_ERR_ZERO_VECTOR);
    cr_assert_eq(kith_index_add(wide, &view, NULL, NULL), KITH_OK);
    cr_assert_eq(kith_index_add(wide, &none, NULL, NULL), KITH_ERR_ZERO_VECTOR);
    int64_t id;
    cr_assert_eq(kith_index_search(wide, &none, 1, NULL, &id, NULL, NULL), KITH_ERR_ZERO_VECTOR);
    cr_assert_eq(id, KITH_NO_ID);
    kith_index_free(index);
    kith_index_free(wide);
}

Test(flat, stored_values_are_rounded_to_nearest_even) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 40, 33, 13);
    static const kith_dtype types[] = {KITH_F16, KITH_BF16};
    for (size_t t = 0; t < 2; t++) {
        kith_index *index = create(types[t], 33, KITH_L2);
        add(index, &vectors, 0, 40, NULL);
        for (int64_t id = 0; id < 40; id++) {
            float out[33];
            cr_assert_eq(kith_index_reconstruct(index, &id, 1, out), KITH_OK);
            for (size_t i = 0; i < 33; i++) {
                float given = vectors.values[id * 33 + (int64_t)i];
                float unit = ldexpf(1, ilogbf(given) - (types[t] == KITH_F16 ? 10 : 7));
                if (fabsf(given) > 1e-4f) cr_assert_leq(fabsf(out[i] - given), unit / 2);
            }
        }
        kith_index_free(index);
    }
    fixture_vectors_free(&vectors);
}
