/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "faults.h"
#include "ivf_model.h"

enum { DIM = 24 };

static void put_all(fixture_model *model, const fixture_vectors *vectors, size_t first, size_t count,
                    int64_t first_id) {
    for (size_t i = 0; i < count; i++)
        fixture_model_put(model, first_id + (int64_t)i, vectors->values + (first + i) * vectors->dim);
}

static uint64_t part_bytes(const kith_index *index, const char *name) {
    kith_memory_part parts[16];
    size_t count;
    cr_assert_eq(kith_index_memory(index, parts, 16, &count), KITH_OK);
    for (size_t i = 0; i < count; i++)
        if (strcmp(parts[i].name, name) == 0) return parts[i].bytes;
    cr_assert_fail("no part %s", name);
    return 0;
}

/* ---- What a search finds -------------------------------------------------------------------------------------- */

static void check_spec(const char *spec, kith_metric metric) {
    enum { COUNT = 430 };
    fixture_vectors vectors = ivf_clustered(COUNT, DIM, 9, 1), queries = ivf_clustered(21, DIM, 9, 2);
    fixture_model model;
    fixture_model_init(&model, DIM);
    kith_index *index = ivf_trained(spec, metric, &vectors), *clone;
    ivf_add(index, &vectors, 0, 200,
            NULL); /* in pieces, so that lists have several segments and filled-up blocks */
    ivf_add(index, &vectors, 200, 1, NULL);
    ivf_add(index, &vectors, 201, COUNT - 201, NULL);
    put_all(&model, &vectors, 0, COUNT, 0);
    cr_assert_str_eq(kith_index_spec(index), spec);
    ivf_check_content(index, &model);
    ivf_check_search(index, &model, &queries, 1);
    ivf_check_search(index, &model, &queries, 37);
    cr_assert_eq(kith_index_clone(index, &clone), KITH_OK, "%s", kith_error_message());
    kith_index_free(index);
    ivf_check_content(clone, &model);
    ivf_check_search(clone, &model, &queries, 10);
    kith_index_free(clone);
    fixture_model_free(&model);
    fixture_vectors_free(&queries);
    fixture_vectors_free(&vectors);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(ivf, every_code_finds_what_its_estimates_say) {
    for (size_t c = 0; ivf_codes[c] != NULL; c++)
        for (size_t m = 0; m < 3; m++) {
            char spilled[64];
            (void)snprintf(spilled, sizeof spilled, "IVF7s,%s", ivf_codes[c]);
            if (strcmp(ivf_codes[c], "Flat") != 0) check_spec(ivf_codes[c], fixture_metrics[m]);
            check_spec(ivf_spec(7, ivf_codes[c]), fixture_metrics[m]);
            check_spec(spilled, fixture_metrics[m]);
        }
}

/* With vectors as they are and all lists read, an inverted file is an exact search. */
static void check_exact(const char *code, kith_dtype dtype, kith_metric metric, size_t count, size_t dim,
                        size_t lists, bool spills) {
    char spec[64];
    (void)snprintf(spec, sizeof spec, "IVF%zu%s,%s", lists, spills ? "s" : "", code);
    fixture_vectors vectors = fixture_vectors_make(dtype, count, dim, 3);
    fixture_vectors queries = fixture_vectors_make(dtype, 12, dim, 4);
    fixture_model model;
    fixture_model_init(&model, dim);
    put_all(&model, &vectors, 0, count, 0);
    kith_index *index = ivf_trained(spec, metric, &vectors);
    ivf_add(index, &vectors, 0, count, NULL);
    kith_search_params params;
    kith_search_params_init(&params);
    params.nprobe = lists;
    for (params.threads = 1; params.threads <= 4; params.threads += 3) {
        size_t ks[] = {1, count / 3 + 1, count};
        for (size_t i = 0; i < 3; i++) fixture_check_search(index, &model, &queries, ks[i], &params, NULL);
        fixture_check_range(index, &model, &queries, metric == KITH_L2 ? 1.5f * (float)dim : 0.25f, &params, NULL);
    }
    if (metric != KITH_COSINE) fixture_check_content(index, &model);
    kith_index_free(index);
    fixture_model_free(&model);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
}

Test(ivf, all_lists_of_raw_vectors_are_an_exact_search) {
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++) check_exact("Flat", fixture_types[t], fixture_metrics[m], 150, 19, 6, false);
    check_exact("u8", KITH_U8, KITH_L2, 150, 19, 3, false); /* rows whose blocks of 32 do not fill lines */
    check_exact("Flat", KITH_F32, KITH_L2, 1, 1, 1, false);
    check_exact("Flat", KITH_F32, KITH_L2, 65, 33, 65, false);
    check_exact("Flat", KITH_F32, KITH_COSINE, 3000, 40, 200, false); /* enough lists for codes of the centroids */
    check_exact("Flat", KITH_F32, KITH_L2, 2000, 330, 200, false);
    for (size_t m = 0; m < 3; m++) check_exact("Flat", KITH_F32, fixture_metrics[m], 150, 19, 6, true);
    check_exact("Flat", KITH_F32, KITH_L2, 2000, 20, 200, true); /* ties: none is lost to a second copy */
    check_exact("u8", KITH_U8, KITH_L2, 300, 3, 5, true);
}

/* ---- Specs and training --------------------------------------------------------------------------------------- */

Test(ivf, specs_are_read_and_written) {
    static const struct {
        const char *spec, *canonical;
        size_t lists;
        bool by_residual;
    } cases[] = {
        {"IVF12,SQ8", "IVF12,SQ8", 12, true},     {"IVF0012,SQ8", "IVF12,SQ8", 12, true},
        {"IVF12d,SQ8", "IVF12d,SQ8", 12, false},  {"IVF12,Flat", "IVF12,Flat", 12, false},
        {"IVF12d,Flat", "IVF12,Flat", 12, false}, {"IVF,SQ4", "IVF,SQ4", 0, true},
        {"IVF12s,SQ8", "IVF12s,SQ8", 12, true},   {"IVFds,SQ8", "IVFds,SQ8", 0, false},
        {"IVFd,SQ4", "IVFd,SQ4", 0, false},       {"SQ6", "SQ6", 1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kith_index *index, *again;
        cr_assert_eq(kith_index_create(cases[i].spec, DIM, KITH_L2, &index), KITH_OK, "%s", kith_error_message());
        cr_assert_str_eq(kith_index_spec(index), cases[i].canonical);
        cr_assert_eq(kith_ivf_of(index)->list_count, cases[i].lists);
        cr_assert_eq(kith_ivf_of(index)->by_residual, cases[i].by_residual);
        cr_assert(!kith_index_is_trained(index));
        cr_assert_eq(kith_index_create(kith_index_spec(index), DIM, KITH_L2, &again), KITH_OK);
        cr_assert_str_eq(kith_index_spec(again), cases[i].canonical);
        kith_index_free(index);
        kith_index_free(again);
    }
    static const struct {
        const char *spec, *named;
    } wrong[] = {
        {"IVF12", "character 5: expected a comma and a code"},
        {"IVF12,", "character 6"},
        {"IVF0,SQ8", "character 3: the number of lists is outside 1.."},
        {"IVF99999999999999999999999,SQ8", "character 3"},
        {"IVF12x,SQ8", "character 5: expected a number"},
        {"IVF12dd,SQ8", "character 6"},
        {"IVF12sd,SQ8", "character 6"},
        {"IVF12,SQ9", "character 8"},
        {"IVF12,Nothing", "character 6"},
        {"IVF12,SQ8,SQ8", "character 10: nothing can follow"},
        {"SQ8,SQ8", "character 4: nothing can follow"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        kith_index *index;
        cr_assert_eq(kith_index_create(wrong[i].spec, DIM, KITH_L2, &index), KITH_ERR_ARGUMENT, "%s",
                     wrong[i].spec);
        cr_assert_null(index);
        cr_assert_not_null(strstr(kith_error_message(), wrong[i].named), "'%s'", kith_error_message());
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(ivf, the_number_of_lists_follows_the_sample) {
    static const struct {
        size_t count;
        const char *spec;
    } cases[] = {{39, "IVF1,SQ8"}, {100, "IVF2,SQ8"}, {3000, "IVF64,SQ8"}, {20000, "IVF512,SQ8"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture_vectors vectors = fixture_vectors_make(KITH_F32, cases[i].count, 3, 5);
        kith_index *index = ivf_trained("IVF,SQ8", KITH_L2, &vectors);
        size_t count;
        cr_assert_str_eq(kith_index_spec(index), cases[i].spec);
        cr_assert_eq(kith_index_list_sizes(index, NULL, 0, &count), KITH_OK);
        cr_assert_eq(count, kith_ivf_of(index)->list_count);
        ivf_add(index, &vectors, 0, cases[i].count, NULL);
        uint64_t sizes[512], sum = 0;
        cr_assert_eq(kith_index_list_sizes(index, sizes, 512, &count), KITH_OK);
        for (size_t l = 0; l < count; l++) sum += sizes[l];
        cr_assert_eq(sum, cases[i].count);
        kith_index_free(index);
        fixture_vectors_free(&vectors);
    }
}

Test(ivf, nothing_goes_before_training) {
    float row[DIM] = {1}, distance;
    int64_t id;
    const kith_view view = {row, KITH_F32, 1, DIM, 0};
    static const char *const specs[] = {"IVF4,SQ8", "IVF4,Flat", "SQ8"};
    for (size_t i = 0; i < 3; i++) {
        kith_index *index;
        cr_assert_eq(kith_index_create(specs[i], DIM, KITH_L2, &index), KITH_OK);
        cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_ERR_NOT_TRAINED);
        cr_assert_eq(kith_index_search(index, &view, 1, NULL, &id, &distance, NULL), KITH_ERR_NOT_TRAINED);
        cr_assert_eq(kith_index_remove(index, &id, 1, NULL), KITH_OK);
        cr_assert_eq(kith_index_update(index, &view, (int64_t[]){0}), KITH_ERR_NOT_FOUND);
        cr_assert_eq(kith_index_reconstruct(index, (int64_t[]){0}, 1, row), KITH_ERR_NOT_FOUND);
        cr_assert_eq(kith_index_reset(index), KITH_OK);
        kith_index *clone;
        cr_assert_eq(kith_index_clone(index, &clone), KITH_OK);
        cr_assert(!kith_index_is_trained(clone));
        kith_index_free(clone);
        kith_index_free(index);
    }
}

Test(ivf, samples_that_do_not_do_are_refused) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 50, DIM, 6);
    kith_index *index;
    kith_view view = fixture_view(&vectors, 0, 15);
    cr_assert_eq(kith_index_create("IVF16,SQ8", DIM, KITH_L2, &index), KITH_OK);
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "15 vectors for 16 lists"), "'%s'", kith_error_message());
    view.count = 0;
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_ERR_EMPTY);
    view = fixture_view(&vectors, 0, 50);
    float *rows = (float *)(void *)vectors.stored;
    rows[7 * DIM + 3] = NAN;
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_ERR_NOT_FINITE);
    cr_assert_not_null(strstr(kith_error_message(), "row 7"));
    rows[7 * DIM + 3] = 1e30f;
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_ERR_RANGE);
    rows[7 * DIM + 3] = 1;
    cr_assert(!kith_index_is_trained(index));
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_OK);
    ivf_add(index, &vectors, 0, 50, NULL);
    rows[7 * DIM + 3] = NAN;
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_ERR_NOT_FINITE);
    rows[7 * DIM + 3] = 1;
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_ERR_ARGUMENT); /* it holds vectors */
    cr_assert_eq(kith_index_count(index), 50);
    cr_assert_eq(kith_index_reset(index), KITH_OK);
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_OK);
    kith_job job;
    kith_job_init(&job);
    job.memory_bytes_max = 1000;
    cr_assert_eq(kith_index_train(index, &view, &job), KITH_ERR_BUDGET);
    cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_ERR_BUDGET);
    job.memory_bytes_max = 1000000;
    cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_OK, "%s", kith_error_message());
    kith_index_free(index);
    fixture_vectors_free(&vectors);
}

static void hear(void *user, kith_log_level level, const char *message) {
    (void)level;
    (void)snprintf((char *)user, 256, "%s", message);
}

Test(ivf, few_vectors_train_with_a_warning) {
    char heard[256] = "";
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 400, DIM, 6);
    kith_log_set(hear, heard);
    kith_index_free(ivf_trained("IVF10,Flat", KITH_L2, &vectors));
    cr_assert_str_eq(heard, "");
    kith_index_free(ivf_trained("IVF16,SQ8", KITH_L2, &vectors));
    cr_assert_not_null(strstr(heard, "400 vectors for 16 "), "'%s'", heard);
    cr_assert_not_null(strstr(heard, "at least 624 are recommended"), "'%s'", heard);
    kith_log_set(NULL, NULL);
    fixture_vectors_free(&vectors);
}

Test(ivf, another_dimension_is_refused_and_changes_nothing) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 300, DIM, 6);
    fixture_model model;
    for (size_t c = 0; ivf_codes[c] != NULL; c++) {
        fixture_model_init(&model, DIM);
        kith_index *index = ivf_trained(ivf_spec(4, ivf_codes[c]), KITH_L2, &vectors);
        ivf_add(index, &vectors, 0, 50, NULL);
        put_all(&model, &vectors, 0, 50, 0);
        const kith_view wide = {vectors.stored, KITH_F32, 10, DIM + 1, 0};
        int64_t ids[10] = {0};
        kith_range_result *range;
        cr_assert_eq(kith_index_train(index, &wide, NULL), KITH_ERR_DIMENSION);
        cr_assert_eq(kith_index_add(index, &wide, NULL, NULL), KITH_ERR_DIMENSION);
        cr_assert_eq(kith_index_update(index, &wide, ids), KITH_ERR_DIMENSION);
        cr_assert_eq(kith_index_search(index, &wide, 1, NULL, ids, NULL, NULL), KITH_ERR_DIMENSION);
        cr_assert_not_null(strstr(kith_error_message(), "25"), "'%s'", kith_error_message());
        cr_assert_eq(kith_index_range_search(index, &wide, 1, NULL, &range), KITH_ERR_DIMENSION);
        cr_assert_null(range);
        ivf_check_content(index, &model);
        kith_index_free(index);
        fixture_model_free(&model);
    }
    fixture_vectors_free(&vectors);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* Vectors that say little: few different ones, constant ones, very large and very small ones, none with a direction. */
Test(ivf, odd_vectors_are_indexed) {
    enum { COUNT = 270 };
    for (int kind = 0; kind < 6; kind++)
        for (size_t c = 0; ivf_codes[c] != NULL; c++)
            for (size_t m = (c + (size_t)kind) % 3, once = 0; once < 1; once++) {
                bool is_large = kind == 3, is_tiny = kind == 4;
                bool has_factors = ivf_codes[c][0] == 'R' || ivf_codes[c][0] == 'L'; /* RaBitQ, line codes */
                fixture_vectors vectors = fixture_vectors_make(KITH_F32, COUNT, DIM, 8);
                float *rows = (float *)(void *)vectors.stored;
                for (size_t i = 0; i < COUNT; i++)
                    for (size_t d = 0; d < DIM; d++) {
                        float *value = &rows[i * DIM + d];
                        if (kind == 0) *value = rows[(i % 5) * DIM + d]; /* 5 different rows for 16 lists */
                        if (kind == 1) *value = 3;                       /* one row */
                        if (kind == 2 && d > 0) *value = 7;              /* one dimension that says something */
                        if (is_large) *value *= has_factors ? 1e8f : 1e17f;
                        if (is_tiny) *value *= 1e-17f;
                        if (kind == 5) *value += 1e4f; /* far from the origin */
                    }
                if (is_large && strcmp(ivf_codes[c], "f16") == 0) { /* cannot hold them; see below */
                    fixture_vectors_free(&vectors);
                    continue;
                }
                kith_index *index = ivf_trained(ivf_spec(16, ivf_codes[c]), fixture_metrics[m], &vectors);
                kith_search_params params;
                kith_search_params_init(&params);
                params.nprobe = 1000; /* more than there are: all */
                kith_view view = fixture_view(&vectors, 0, COUNT);
                kith_status status = kith_index_add(index, &view, NULL, NULL);
                cr_assert_eq(status, KITH_OK, "%d %s: %s", kind, ivf_codes[c], kith_error_message());
                int64_t ids[COUNT];
                float distances[COUNT];
                view.count = 1;
                status = kith_index_search(index, &view, COUNT, &params, ids, distances, NULL);
                cr_assert_eq(status, KITH_OK, "%d %s: %s", kind, ivf_codes[c], kith_error_message());
                for (size_t i = 0; i < COUNT; i++)
                    cr_assert(isfinite(distances[i]) && ids[i] >= 0, "%d %s %d: %g", kind, ivf_codes[c], (int)m,
                              (double)distances[i]);
                kith_index_free(index);
                fixture_vectors_free(&vectors);
            }
}

Test(ivf, a_vector_that_the_code_cannot_hold_is_named) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 300, DIM, 9),
                    queries = fixture_vectors_make(KITH_F32, 5, DIM, 10);
    fixture_model model;
    fixture_model_init(&model, DIM);
    kith_index *index = ivf_trained("IVF8,f16", KITH_L2, &vectors);
    ivf_add(index, &vectors, 0, 100, NULL);
    put_all(&model, &vectors, 0, 100, 0);
    ((float *)(void *)vectors.stored)[217 * DIM + 5] = 1e6f;
    kith_view view = fixture_view(&vectors, 100, 200);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_ERR_RANGE);
    cr_assert_not_null(strstr(kith_error_message(), "row 117"), "'%s'", kith_error_message());
    ivf_check_content(index, &model);
    view = fixture_view(&vectors, 217, 1);
    cr_assert_eq(kith_index_update(index, &view, (int64_t[]){5}), KITH_ERR_RANGE);
    ivf_check_content(index, &model);
    ivf_check_search(index, &model, &queries, 20);
    kith_index_free(index);
    fixture_model_free(&model);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(ivf, zero_vectors_are_left_out_of_the_sample) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 100, DIM, 11);
    memset(vectors.stored, 0, 30 * DIM * sizeof(float));
    kith_index *index = ivf_trained("IVF8,SQ8", KITH_IP, &vectors);
    ivf_add(index, &vectors, 0, 100, NULL);
    kith_view view = fixture_view(&vectors, 0, 35);
    kith_index *small;
    cr_assert_eq(kith_index_create("IVF8,SQ8", DIM, KITH_IP, &small), KITH_OK);
    cr_assert_eq(kith_index_train(small, &view, NULL), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "5 vectors with a direction for 8 lists"));
    kith_index_free(small);
    kith_index_free(index);
    fixture_vectors_free(&vectors);
}

/* ---- Search parameters ---------------------------------------------------------------------------------------- */

Test(ivf, nprobe_is_a_parameter_of_lists_only) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 1200, DIM, 12);
    kith_index *lists = ivf_trained("IVF1024,SQ8", KITH_L2, &vectors),
               *whole = ivf_trained("SQ8", KITH_L2, &vectors);
    kith_search_params params;
    kith_search_params_init(&params);
    cr_assert_eq(kith_search_params_set(&params, lists, "nprobe", "0"), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_search_params_set(&params, lists, "nprobe", "100000"), KITH_OK);
    cr_assert_eq(params.nprobe, 100000);
    cr_assert_eq(kith_search_params_set(&params, whole, "nprobe", "5"), KITH_ERR_NOT_FOUND);
    cr_assert_eq(kith_index_param_count(lists), 4);
    cr_assert_str_eq(kith_index_param(lists, 2)->name, "nprobe");
    cr_assert_eq(kith_index_param(lists, 2)->default_value, 16);
    cr_assert_eq(kith_index_param_count(whole), 2);
    kith_index *clone;
    cr_assert_eq(kith_index_clone(lists, &clone), KITH_OK);
    kith_index_free(lists);
    cr_assert_eq(kith_index_param(clone, 2)->default_value, 16); /* not those of the one that is gone */
    kith_index_free(clone);
    kith_index_free(whole);
    fixture_vectors_free(&vectors);
}

/* ---- Lists found by another index ----------------------------------------------------------------------------- */

enum { FOUND_COUNT = 2500, FOUND_LISTS = 120 };

/* How many of the k nearest of each query two indexes agree on. */
static double agreement(const kith_index *a, const kith_index *b, const fixture_vectors *queries, size_t nprobe) {
    enum { K = 10 };
    kith_search_params params;
    kith_search_params_init(&params);
    params.nprobe = nprobe;
    int64_t *ids = malloc(2 * queries->count * K * sizeof *ids), *other = ids + queries->count * K;
    const kith_view view = fixture_view(queries, 0, queries->count);
    cr_assert_eq(kith_index_search(a, &view, K, &params, ids, NULL, NULL), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_search(b, &view, K, &params, other, NULL, NULL), KITH_OK, "%s", kith_error_message());
    size_t same = 0;
    for (size_t i = 0; i < queries->count * K; i++)
        for (size_t j = i / K * K; j < (i / K + 1) * K; j++) same += ids[i] == other[j];
    free(ids);
    return (double)same / (double)(queries->count * K);
}

/* Together, one by one and on several threads: the same bits. */
static void check_alone(const kith_index *index, const fixture_vectors *queries, size_t nprobe) {
    enum { K = 12 };
    kith_search_params params;
    kith_search_params_init(&params);
    params.nprobe = nprobe;
    int64_t ids[2][K * 40];
    float distances[2][K * 40];
    kith_view view = fixture_view(queries, 0, queries->count);
    for (size_t t = 0; t < 2; t++, params.threads = 4)
        cr_assert_eq(kith_index_search(index, &view, K, &params, ids[t], distances[t], NULL), KITH_OK);
    cr_assert_eq(memcmp(ids[0], ids[1], queries->count * K * sizeof ids[0][0]), 0);
    cr_assert_eq(memcmp(distances[0], distances[1], queries->count * K * sizeof distances[0][0]), 0);
    params.threads = 1;
    for (size_t q = 0; q < queries->count; q++) {
        view = fixture_view(queries, q, 1);
        cr_assert_eq(kith_index_search(index, &view, K, &params, ids[1], distances[1], NULL), KITH_OK);
        cr_assert_eq(memcmp(ids[0] + q * K, ids[1], K * sizeof ids[0][0]), 0, "query %zu", q);
        cr_assert_eq(memcmp(distances[0] + q * K, distances[1], K * sizeof distances[0][0]), 0, "query %zu", q);
    }
}

static void check_found(const char *coarse, const char *code, kith_metric metric, double least) {
    char spec[64], plain_spec[64];
    fixture_vectors vectors = ivf_clustered(FOUND_COUNT, DIM, 60, 70), queries = ivf_clustered(30, DIM, 60, 71);
    (void)snprintf(spec, sizeof spec, "IVF%d%s,%s", FOUND_LISTS, coarse, code);
    (void)snprintf(plain_spec, sizeof plain_spec, "IVF%d,%s", FOUND_LISTS, code);
    kith_index *index = ivf_trained(spec, metric, &vectors), *plain = ivf_trained(plain_spec, metric, &vectors);
    cr_assert_str_eq(kith_index_spec(index), spec);
    const kith_ivf *ivf = kith_ivf_of(index);
    cr_assert_eq(memcmp(ivf->centroids, kith_ivf_of(plain)->centroids, FOUND_LISTS * DIM * sizeof(float)), 0);
    cr_assert_eq(kith_index_count(ivf->coarse), FOUND_LISTS);
    for (size_t i = 0; i < FOUND_COUNT; i += 500) ivf_add(index, &vectors, i, 500, NULL);
    ivf_add(plain, &vectors, 0, FOUND_COUNT, NULL);
    cr_assert_gt(part_bytes(index, "index of centroids"), FOUND_LISTS * DIM);
    check_alone(index, &queries, 9);
    double same = agreement(index, plain, &queries, 9);
    cr_assert_geq(same, least, "%s: %.3f", spec, same);
    kith_index *clone;
    cr_assert_eq(kith_index_clone(index, &clone), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_param_count(clone), kith_index_param_count(index));
    kith_index_free(index);
    check_alone(clone, &queries, FOUND_LISTS);
    cr_assert_eq(kith_index_reset(clone), KITH_OK);
    ivf_add(clone, &vectors, 0, FOUND_COUNT, NULL);
    cr_assert_geq(agreement(clone, plain, &queries, 9), least);
    cr_assert_eq(kith_index_reset(clone), KITH_OK); /* trained again, with other vectors */
    const kith_view again = fixture_view(&vectors, 500, 2000);
    cr_assert_eq(kith_index_train(clone, &again, NULL), KITH_OK, "%s", kith_error_message());
    ivf_add(clone, &vectors, 0, FOUND_COUNT, NULL);
    check_alone(clone, &queries, 20);
    kith_index_free(clone);
    kith_index_free(plain);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* What a call with `early` finds, alone and in a batch, and how many codes it looks at. */
static uint64_t search_early(const kith_index *index, const kith_view *queries, size_t early, size_t at_once,
                             int64_t *ids) {
    enum { K = 10 };
    uint64_t visited = 0;
    kith_search_params params;
    kith_search_report reports[100];
    kith_search_params_init(&params);
    params.nprobe = 64;
    params.early = early;
    params.reports = reports;
    for (size_t q = 0; q < queries->count; q += at_once) {
        kith_view part = *queries;
        part.data = (const float *)queries->data + q * queries->dim;
        part.count = at_once;
        cr_assert_eq(kith_index_search(index, &part, K, &params, ids + q * K, NULL, NULL), KITH_OK);
        for (size_t i = 0; i < at_once; i++) {
            cr_assert(reports[i].lists >= 3 && reports[i].lists <= 64); /* 1 + 64 / 32 are always read */
            visited += reports[i].visited;
        }
    }
    return visited;
}

Test(ivf, a_query_stops_early_where_lists_are_far) {
    enum { QUERIES = 100, K = 10 };
    static const char *const specs[] = {"IVF64,Flat", "IVF64,SQ8", "IVF64d,SQ8", "IVF64s,SQ8"};
    static const size_t bounds[] = {1, 5, 20, 100, UINT32_MAX};
    fixture_vectors vectors = ivf_clustered(3000, DIM, 40, 1), queries = ivf_clustered(QUERIES, DIM, 40, 2);
    kith_view view = fixture_view(&queries, 0, QUERIES);
    int64_t alone[QUERIES * K], batch[QUERIES * K], all[QUERIES * K];
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++)
        for (int cosine = 0; cosine < 2; cosine++) {
            kith_index *index = ivf_trained(specs[s], cosine ? KITH_COSINE : KITH_L2, &vectors);
            ivf_add(index, &vectors, 0, 3000, NULL);
            uint64_t whole = search_early(index, &view, 0, QUERIES, all), before = 0;
            for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++) {
                uint64_t visited = search_early(index, &view, bounds[b], QUERIES, batch);
                cr_assert_eq(search_early(index, &view, bounds[b], 1, alone), visited);
                cr_assert_arr_eq(alone, batch, sizeof alone);
                cr_assert_geq(visited, before, "%s at %zu", specs[s], bounds[b]);
                before = visited;
            }
            cr_assert_eq(before, whole); /* the largest bound stops none */
            cr_assert_arr_eq(batch, all, sizeof all);
            cr_assert_lt(search_early(index, &view, 1, QUERIES, batch), whole / 2);
            kith_index_free(index);
        }
    kith_index *index = ivf_trained("IVF64,SQ8", KITH_IP, &vectors);
    kith_search_params params;
    kith_search_params_init(&params);
    cr_assert_eq(kith_search_params_set(&params, index, "early", "5"), KITH_ERR_NOT_FOUND);
    kith_index_free(index);
    fixture_vectors_free(&queries);
    fixture_vectors_free(&vectors);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(ivf, any_index_can_find_the_lists) {
    for (size_t m = 0; m < 3; m++) {
        check_found("_HNSW16", "SQ8", fixture_metrics[m], 0.97);
        check_found("_Flat", "PQ6", fixture_metrics[m], 0.999);
    }
    check_found("(HNSW16,f16)", "Flat", KITH_COSINE, 0.97);
    check_found("d_HNSW16", "SQ8", KITH_L2, 0.9); /* plain has residuals */
    check_found("(IVF8,SQ8)", "RaBitQ4", KITH_L2, 0.5);
    check_found("_SQ8", "Line32", KITH_L2, 0.9);
}

Test(ivf, the_walk_to_the_lists_has_its_parameter) {
    kith_index *index;
    kith_search_params params;
    kith_search_params_init(&params);
    cr_assert_eq(kith_index_create("IVF_HNSW16,SQ8", DIM, KITH_L2, &index), KITH_OK);
    cr_assert_str_eq(kith_index_spec(index), "IVF_HNSW16,SQ8");
    cr_assert_eq(kith_index_param_count(index), 5);
    cr_assert_str_eq(kith_index_param(index, 4)->name, "ef");
    cr_assert_eq(kith_search_params_set(&params, index, "ef", "33"), KITH_OK);
    kith_index_free(index);
    cr_assert_eq(kith_index_create("IVF16_Flat,SQ8", DIM, KITH_L2, &index), KITH_OK);
    cr_assert_eq(kith_search_params_set(&params, index, "ef", "33"), KITH_ERR_NOT_FOUND);
    kith_index_free(index);
}

/* ---- Threads that share lists out ------------------------------------------------------------------------------- */

static int is_even(void *user, int64_t id) {
    (void)user;
    return id % 2 == 0;
}

enum { SHARED_QUERIES = 200, SHARED_K = 10 };

typedef struct shared_found {
    int64_t ids[SHARED_QUERIES * SHARED_K];
    float distances[SHARED_QUERIES * SHARED_K];
    size_t counts[SHARED_QUERIES];
    kith_search_report reports[SHARED_QUERIES];
} shared_found;

static void search_shared(const kith_index *index, const fixture_vectors *queries, kith_search_params *params,
                          size_t threads, size_t at_once, shared_found *out) {
    memset(out, 0, sizeof *out);
    params->threads = threads;
    for (size_t q = 0; q < SHARED_QUERIES; q += at_once) {
        kith_view view = fixture_view(queries, q, at_once);
        params->reports = out->reports + q;
        cr_assert_eq(kith_index_search(index, &view, SHARED_K, params, out->ids + q * SHARED_K,
                                       out->distances + q * SHARED_K, out->counts + q),
                     KITH_OK, "%s", kith_error_message());
    }
}

/* A batch of raw vectors on 2 and 3 threads shares the lists out; on 8 each thread would have too few queries. All find
 * what one thread does, and what each query does alone. */
Test(ivf, threads_that_share_lists_out_find_the_same) {
    enum { COUNT = 3000 };
    static shared_found alone, found;
    static const size_t threads[] = {1, 2, 3, 8};
    fixture_vectors vectors = ivf_clustered(COUNT, DIM, 40, 1), queries = ivf_clustered(SHARED_QUERIES, DIM, 40, 2);
    kith_filter *even;
    cr_assert_eq(kith_filter_callback(is_even, NULL, &even), KITH_OK);
    for (size_t m = 0; m < 3; m++) {
        kith_index *index = ivf_trained("IVF64,Flat", fixture_metrics[m], &vectors);
        ivf_add(index, &vectors, 0, COUNT, NULL);
        for (int change = 0; change < 2; change++) {
            for (size_t p = 0; p < 3; p++) {
                kith_search_params params;
                kith_search_params_init(&params);
                params.nprobe = 5;
                if (p == 1) params.filter = even;
                if (p == 2) params.max_distances = 130;
                search_shared(index, &queries, &params, 1, 1, &alone);
                for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
                    search_shared(index, &queries, &params, threads[t], SHARED_QUERIES, &found);
                    cr_assert_eq(memcmp(&found, &alone, sizeof alone), 0, "%zu threads", threads[t]);
                }
            }
            int64_t gone[COUNT / 3];
            for (size_t i = 0; i < COUNT / 3; i++) gone[i] = (int64_t)(3 * i);
            if (change == 0) cr_assert_eq(kith_index_remove(index, gone, COUNT / 3, NULL), KITH_OK);
        }
        kith_index_free(index);
    }
    kith_filter_free(even);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- Vectors in two lists --------------------------------------------------------------------------------------- */

/* Of the 10 nearest, by exact search, how many are found on average; and how many codes a search looks at. */
static double recall_of(const char *spec, const fixture_vectors *vectors, const fixture_vectors *queries,
                        size_t nprobe, double *codes) {
    kith_index *index = ivf_trained(spec, KITH_COSINE, vectors), *flat = ivf_trained("Flat", KITH_COSINE, vectors);
    ivf_add(index, vectors, 0, vectors->count, NULL);
    ivf_add(flat, vectors, 0, vectors->count, NULL);
    double found = agreement(index, flat, queries, nprobe);
    uint64_t sizes[64], all = 0;
    size_t lists;
    cr_assert_eq(kith_index_list_sizes(index, sizes, 64, &lists), KITH_OK);
    for (size_t l = 0; l < lists; l++) all += sizes[l];
    *codes = (double)all / (double)lists * (double)nprobe;
    kith_index_free(index);
    kith_index_free(flat);
    return found;
}

Test(ivf, a_second_list_finds_more) {
    enum { COUNT = 6000, QUERIES = 200 };
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, COUNT, 16, 90);
    fixture_vectors queries = fixture_vectors_make(KITH_F32, QUERIES, 16, 91);
    double once_codes, twice_codes;
    double once = recall_of("IVF64,Flat", &vectors, &queries, 16, &once_codes);
    double twice = recall_of("IVF64s,Flat", &vectors, &queries, 8, &twice_codes);
    cr_assert_float_eq(once_codes, twice_codes, 1e-9 * once_codes); /* as many codes are looked at */
    cr_assert_gt(twice, once, "%.3f, with one list %.3f", twice, once);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
}

Test(ivf, a_vector_in_two_lists_is_found_once) {
    enum { COUNT = 900, K = 40, PROBED = 5 };
    static const char *const specs[] = {"IVF12s,SQ8", "IVF12s,Flat", "IVF12ds,PQ6", "IVF12s_HNSW8,RaBitQ4"};
    fixture_vectors vectors = ivf_clustered(COUNT, DIM, 20, 92), queries = ivf_clustered(25, DIM, 20, 93);
    kith_filter *even;
    cr_assert_eq(kith_filter_callback(is_even, NULL, &even), KITH_OK);
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++) {
        kith_index *index = ivf_trained(specs[s], KITH_L2, &vectors);
        ivf_add(index, &vectors, 0, COUNT, NULL);
        cr_assert_eq(kith_index_count(index), COUNT);
        check_alone(index, &queries, PROBED);
        kith_search_params params;
        kith_search_params_init(&params);
        params.nprobe = PROBED;
        params.filter = even;
        int64_t ids[25 * K];
        size_t counts[25];
        const kith_view view = fixture_view(&queries, 0, 25);
        for (params.max_distances = 0; params.max_distances < 2000; params.max_distances += 150) {
            cr_assert_eq(kith_index_search(index, &view, K, &params, ids, NULL, counts), KITH_OK);
            for (size_t q = 0; q < 25; q++)
                for (size_t i = 0; i < counts[q]; i++) {
                    cr_assert_eq(ids[q * K + i] % 2, 0);
                    for (size_t j = 0; j < i; j++) cr_assert_neq(ids[q * K + i], ids[q * K + j], "%s", specs[s]);
                }
        }
        kith_index_free(index);
    }
    kith_filter_free(even);
    kith_index *index;
    const kith_view view = fixture_view(&vectors, 0, COUNT);
    cr_assert_eq(kith_index_create("IVF1s,SQ8", DIM, KITH_L2, &index), KITH_OK);
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "cannot stand in 2 lists of 1"), "'%s'", kith_error_message());
    kith_index_free(index);
    kith_job job;
    kith_job_init(&job);
    job.threads = 1;
    index = ivf_trained("IVF12s,SQ8", KITH_L2, &vectors);
    job.memory_bytes_max = 400000; /* assignment fits, and so do second lists, in more blocks */
    cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_OK, "%s", kith_error_message());
    job.memory_bytes_max = 250000;
    cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_ERR_BUDGET);
    cr_assert_eq(kith_index_count(index), COUNT);
    kith_index_free(index);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- Changes -------------------------------------------------------------------------------------------------- */

static void check_changes(const char *spec, kith_metric metric, uint64_t seed) {
    enum { COUNT = 600, STEPS = 120 };
    fixture_vectors vectors = ivf_clustered(COUNT, DIM, 6, seed), queries = ivf_clustered(5, DIM, 6, seed + 1);
    fixture_model model;
    fixture_model_init(&model, DIM);
    kith_index *index = ivf_trained(spec, metric, &vectors);
    uint64_t draw = 0;
    for (size_t step = 0; step < STEPS; step++) {
        uint64_t what = kith_random_below(seed, 1, draw++, 100);
        size_t count = 1 + (size_t)kith_random_below(seed, 1, draw++, what % 3 == 0 ? 60 : 3);
        size_t first = (size_t)kith_random_below(seed, 1, draw++, COUNT - count);
        kith_view view = fixture_view(&vectors, first, count);
        int64_t ids[64];
        if (what < 40) { /* ids numbered on, or any that are free */
            bool own = what < 20;
            for (size_t i = 0; i < count && own; i++) {
                ids[i] = (int64_t)kith_random_below(seed, 1, draw++, 4000);
                for (size_t j = 0; j < i; j++)
                    while (ids[i] == ids[j] || fixture_model_find(&model, ids[i]) != NULL) ids[i]++, j = 0;
                while (fixture_model_find(&model, ids[i]) != NULL) ids[i]++;
            }
            bool twice = false;
            for (size_t i = 0; i < count && own; i++)
                for (size_t j = 0; j < i; j++) twice = twice || ids[i] == ids[j];
            if (twice) continue;
            int64_t next = index->next_id;
            ivf_add(index, &vectors, first, count, own ? ids : NULL);
            for (size_t i = 0; i < count; i++)
                fixture_model_put(&model, own ? ids[i] : next + (int64_t)i, vectors.values + (first + i) * DIM);
        } else if (what < 70) {
            size_t removed, expected = 0;
            for (size_t i = 0; i < count; i++) {
                ids[i] = model.count > 0 && i % 4 != 3 ? model.ids[kith_random_below(seed, 1, draw++, model.count)]
                                                       : 9999;
            }
            for (size_t i = 0; i < count; i++) expected += fixture_model_remove(&model, ids[i]);
            cr_assert_eq(kith_index_remove(index, ids, count, &removed), KITH_OK);
            cr_assert_eq(removed, expected);
        } else if (what < 98 && model.count > 0) {
            count = count < model.count ? count : model.count;
            size_t from = (size_t)kith_random_below(seed, 1, draw++, model.count - count + 1);
            memcpy(ids, model.ids + from, count * sizeof *ids);
            view.count = count;
            cr_assert_eq(kith_index_update(index, &view, ids), KITH_OK, "%s", kith_error_message());
            for (size_t i = 0; i < count; i++)
                fixture_model_put(&model, ids[i], vectors.values + (first + i) * DIM);
        } else if (what == 99) {
            cr_assert_eq(kith_index_reset(index), KITH_OK);
            model.count = 0;
        }
        if (model.count > 0 && step % 7 == 0) {
            int64_t taken = model.ids[model.count / 2];
            view.count = 1;
            cr_assert_eq(kith_index_add(index, &view, &taken, NULL), KITH_ERR_EXISTS);
            cr_assert_eq(kith_index_update(index, &view, (int64_t[]){9999}), KITH_ERR_NOT_FOUND);
        }
        if (step % 10 == 0 || step + 1 == STEPS) ivf_check_content(index, &model);
    }
    if (model.count > 0) ivf_check_search(index, &model, &queries, model.count < 9 ? model.count : 9);
    while (model.count > 0) { /* down to nothing */
        int64_t id = model.ids[model.count - 1];
        cr_assert_eq(kith_index_remove(index, &id, 1, NULL), KITH_OK);
        fixture_model_remove(&model, id);
    }
    ivf_check_content(index, &model);
    ivf_add(index, &vectors, 0, 50, NULL);
    cr_assert_eq(kith_index_count(index), 50);
    kith_index_free(index);
    fixture_model_free(&model);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(ivf, changes_follow_a_model) {
    for (uint64_t seed = 20; seed < 26; seed++) {
        check_changes("IVF5,SQ8", KITH_L2, seed);
        check_changes("IVF5d,SQ4", KITH_IP, seed);
        check_changes("IVF3,Flat", KITH_COSINE, seed);
        check_changes("IVF5s,SQ8", KITH_L2, seed);
        check_changes("IVF4ds,f16", KITH_COSINE, seed);
        check_changes("SQ6", KITH_COSINE, seed);
    }
}

Test(ivf, ids_beyond_32_bits_are_kept) {
    fixture_vectors vectors = ivf_clustered(300, DIM, 5, 30), queries = ivf_clustered(7, DIM, 5, 31);
    fixture_model model;
    fixture_model_init(&model, DIM);
    kith_index *index = ivf_trained("IVF6,SQ8", KITH_L2, &vectors);
    ivf_add(index, &vectors, 0, 100, NULL);
    put_all(&model, &vectors, 0, 100, 0);
    int64_t last = UINT32_MAX;
    ivf_add(index, &vectors, 100, 1, &last);
    fixture_model_put(&model, last, vectors.values + 100 * DIM);
    cr_assert_eq(kith_ivf_of(index)->id_bytes, 4);
    ivf_add(index, &vectors, 101, 99, NULL);
    put_all(&model, &vectors, 101, 99, last + 1);
    cr_assert_eq(kith_ivf_of(index)->id_bytes, 8);
    int64_t far[] = {KITH_ID_MAX, 7000};
    ivf_add(index, &vectors, 200, 2, far);
    fixture_model_put(&model, far[0], vectors.values + 200 * DIM);
    fixture_model_put(&model, far[1], vectors.values + 201 * DIM);
    ivf_check_content(index, &model);
    ivf_check_search(index, &model, &queries, 202);
    cr_assert_eq(kith_index_remove(index, far, 1, NULL), KITH_OK);
    fixture_model_remove(&model, far[0]);
    ivf_check_content(index, &model);
    cr_assert_eq(kith_index_reset(index), KITH_OK);
    cr_assert_eq(kith_ivf_of(index)->id_bytes, 4);
    kith_index_free(index);
    fixture_model_free(&model);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
}

Test(ivf, reconstructs_what_the_codes_say) {
    enum { COUNT = 300 };
    static const float bounds[] = {0, 1e-3f, 8e-3f, 3e-2f, 8e-2f, 0.4f}; /* of the first codes */
    for (size_t c = 0; ivf_codes[c] != NULL && c < sizeof bounds / sizeof *bounds; c++)
        for (int whole = c == 0; whole < 2; whole++) {
            fixture_vectors vectors = ivf_clustered(COUNT, DIM, 5, 40);
            kith_index *index = ivf_trained(ivf_spec(whole ? 6 : 0, ivf_codes[c]), KITH_L2, &vectors);
            ivf_add(index, &vectors, 0, COUNT, NULL);
            static float out[COUNT * DIM];
            int64_t ids[COUNT];
            for (int64_t i = 0; i < COUNT; i++) ids[i] = i * 7 % COUNT;
            for (int with_map = 0; with_map < 2; with_map++) {
                cr_assert_eq(kith_index_reconstruct(index, ids, COUNT, out), KITH_OK);
                for (size_t i = 0; i < COUNT * DIM; i++)
                    cr_assert_leq(fabsf(out[i] - vectors.values[(size_t)ids[i / DIM] * DIM + i % DIM]), bounds[c],
                                  "%s", ivf_codes[c]);
                cr_assert_eq(kith_index_remove(index, (int64_t[]){-5}, 1, NULL), KITH_OK); /* builds the map */
            }
            cr_assert_eq(kith_index_reconstruct(index, (int64_t[]){3, COUNT}, 2, out), KITH_ERR_NOT_FOUND);
            kith_index_free(index);
            fixture_vectors_free(&vectors);
        }
}

/* ---- Merging -------------------------------------------------------------------------------------------------- */

static void check_merge(const char *spec, kith_metric metric) {
    fixture_vectors vectors = ivf_clustered(500, DIM, 5, 60), queries = ivf_clustered(9, DIM, 5, 61);
    fixture_model model;
    fixture_model_init(&model, DIM);
    put_all(&model, &vectors, 0, 250, 0);
    put_all(&model, &vectors, 250, 250, 1000);
    kith_index *into = ivf_trained(spec, metric, &vectors), *from, *other = ivf_trained(spec, metric, &queries);
    cr_assert_eq(kith_index_clone(into, &from), KITH_OK);
    ivf_add(into, &vectors, 0, 250, NULL);
    cr_assert_eq(kith_index_merge(into, from, 0), KITH_OK); /* nothing */
    ivf_add(from, &vectors, 250, 250, NULL);
    ivf_add(other, &queries, 0, 9, NULL);
    cr_assert_eq(kith_index_merge(into, from, 0), KITH_ERR_EXISTS);
    cr_assert_eq(kith_index_merge(into, from, KITH_ID_MAX), KITH_ERR_OVERFLOW);
    cr_assert_eq(kith_index_merge(into, from, -1), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_merge(into, into, 5000), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_merge(into, other, 5000), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "trained alike"), "'%s'", kith_error_message());
    cr_assert_eq(kith_index_count(into), 250);
    cr_assert_eq(kith_index_merge(into, from, 1000), KITH_OK, "%s", kith_error_message());
    ivf_check_content(into, &model);
    ivf_check_search(into, &model, &queries, 30);
    cr_assert_eq(into->next_id, 1250);
    cr_assert_eq(kith_index_count(from), 250);
    int64_t gone = 1249;
    cr_assert_eq(kith_index_remove(into, &gone, 1, NULL), KITH_OK);
    fixture_model_remove(&model, gone);
    ivf_check_content(into, &model);
    kith_index_free(into);
    kith_index_free(from);
    kith_index_free(other);
    fixture_model_free(&model);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(ivf, parts_are_merged) {
    check_merge("IVF7,SQ8", KITH_L2);
    check_merge("IVF7,RaBitQ4", KITH_COSINE);
    check_merge("SQ4", KITH_IP);
    check_merge("IVF7s,SQ8", KITH_L2);
    kith_index *a, *b;
    cr_assert_eq(kith_index_create("Flat", DIM, KITH_L2, &a), KITH_OK);
    cr_assert_eq(kith_index_create("SQ8", DIM, KITH_L2, &b), KITH_OK);
    cr_assert_eq(kith_index_merge(a, b, 0), KITH_ERR_ARGUMENT);
    kith_index_free(a);
    kith_index_free(b);
}

/* ---- Memory --------------------------------------------------------------------------------------------------- */

/* Codes and ids of lists of some 59 vectors, as few as they get in practice, against what they need. */
static void check_overhead(const char *code) {
    enum { COUNT = 6000, LISTS = 102 };
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, COUNT, DIM, 52);
    fixture_vectors queries = fixture_vectors_make(KITH_F32, 30, DIM, 53);
    kith_index *index = ivf_trained(ivf_spec(LISTS, code), KITH_L2, &vectors), *parts, *clone;
    const kith_code *own = kith_ivf_of(index)->code;
    cr_assert_eq(kith_index_clone(index, &parts), KITH_OK);
    ivf_add(index, &vectors, 0, COUNT, NULL);
    for (size_t i = 0; i < COUNT; i += 50) ivf_add(parts, &vectors, i, 50, NULL);
    double need = COUNT * (own->is_exact ? (double)own->code_bytes : (double)own->block_bytes / KITH_BLOCK_ROWS);
    cr_assert_leq((double)part_bytes(index, "codes"), 1.03 * need + 200, "%s", code);
    cr_assert_leq(part_bytes(index, "ids"), COUNT * 4 + 200);
    double loose = (double)part_bytes(parts, "codes");
    cr_assert_eq(kith_lists_compact(kith_ivf_of(parts)), KITH_OK);
    cr_assert_leq((double)part_bytes(parts, "codes"), 1.03 * need + 200, "%s", code);
    cr_assert_geq(loose, (double)part_bytes(parts, "codes"));
    ivf_check_same(index, parts, &queries, 30, 7);
    cr_assert_eq(kith_index_clone(index, &clone), KITH_OK);
    cr_assert_leq(part_bytes(clone, "codes"), part_bytes(index, "codes"));
    ivf_check_same(index, clone, &queries, 30, LISTS);
    kith_index_free(index);
    kith_index_free(parts);
    kith_index_free(clone);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
}

Test(ivf, short_lists_leave_little_room_empty) {
    static const char *const codes[] = {"Flat", "f16", "SQ8", "Line32", "PQ8x4fs", "RaBitQ2"};
    for (size_t c = 0; c < sizeof codes / sizeof *codes; c++) check_overhead(codes[c]);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* What was removed gives its memory back when the lists are laid out anew, and the rest stays what it was. */
Test(ivf, compaction_gives_memory_back) {
    enum { COUNT = 3000, LEFT = 700 };
    faults_fail_allocation(0); /* installs the allocator before anything is there */
    fixture_vectors vectors = ivf_clustered(COUNT, DIM, 9, 54), queries = ivf_clustered(20, DIM, 9, 55);
    static const char *const specs[] = {"IVF20,SQ8", "IVF20,Flat", "SQ8"};
    for (size_t s = 0; s < 3; s++) {
        kith_index *index = ivf_trained(specs[s], KITH_L2, &vectors);
        fixture_model model;
        fixture_model_init(&model, DIM);
        ivf_add(index, &vectors, 0, COUNT, NULL);
        put_all(&model, &vectors, COUNT - LEFT, LEFT, COUNT - LEFT);
        int64_t ids[COUNT];
        for (int64_t i = 0; i < COUNT; i++) ids[i] = i;
        uint64_t all = part_bytes(index, "codes");
        cr_assert_eq(kith_index_remove(index, ids, COUNT - LEFT, NULL), KITH_OK);
        uint64_t before = part_bytes(index, "codes");
        cr_assert_lt(before, all / 2); /* lists that have lost so much have moved */
        faults_fail_allocation(3);
        cr_assert_eq(kith_lists_compact(kith_ivf_of(index)), KITH_ERR_NO_MEMORY);
        faults_fail_allocation(0);
        cr_assert_eq(part_bytes(index, "codes"), before);
        ivf_check_content(index, &model);
        cr_assert_eq(kith_lists_compact(kith_ivf_of(index)), KITH_OK);
        cr_assert_leq(part_bytes(index, "codes"), all * LEFT / COUNT + all / 20);
        ivf_check_content(index, &model);
        ivf_check_search(index, &model, &queries, 10);
        ivf_add(index, &vectors, 0, 40, NULL); /* new ids, behind those that are there */
        put_all(&model, &vectors, 0, 40, COUNT);
        cr_assert_eq(kith_index_remove(index, &ids[COUNT - 1], 1, NULL), KITH_OK); /* the map still holds */
        fixture_model_remove(&model, COUNT - 1);
        ivf_check_content(index, &model);
        for (int64_t i = 0; i < COUNT; i++) ids[i] = i + 100;
        cr_assert_eq(kith_index_remove(index, ids, COUNT, NULL), KITH_OK);
        cr_assert_eq(kith_index_count(index), 0);
        cr_assert_leq(part_bytes(index, "codes"), 1000); /* nothing is left, nor kept */
        kith_index_free(index);
        fixture_model_free(&model);
    }
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
}

/* Every list lies in lanes of its own, all of them in as few blocks as the sizes allow or little more. */
Test(ivf, a_layout_gives_each_code_its_lane) {
    enum { LISTS = 3000 };
    for (size_t most = 1; most <= 400; most = most * 3 + 2) {
        kith_layout layout = {0};
        size_t rows = 0, blocks_max = 2 * LISTS * (most / KITH_BLOCK_ROWS + 1);
        uint32_t *taken = calloc(blocks_max, sizeof *taken);
        for (size_t l = 0; l < LISTS; l++) {
            size_t count = (size_t)kith_random_below(56, most, l, most + 1), lanes = count % KITH_BLOCK_ROWS;
            kith_layout_place place = kith_layout_next(&layout, count, l);
            rows += count;
            cr_assert_leq(layout.block_count, blocks_max);
            for (size_t b = 0; b < count / KITH_BLOCK_ROWS; b++) {
                cr_assert_eq(taken[place.first + b], 0);
                taken[place.first + b] = UINT32_MAX;
            }
            if (lanes == 0) continue;
            cr_assert_lt(place.tail, layout.block_count);
            cr_assert_leq(place.lane + lanes, KITH_BLOCK_ROWS);
            uint32_t own = (uint32_t)(((uint64_t)1 << lanes) - 1) << place.lane;
            cr_assert_eq(taken[place.tail] & own, 0);
            cr_assert_eq(place.neighbour == KITH_LAYOUT_NO_LIST, taken[place.tail] == 0);
            cr_assert_eq(place.lane == 0, taken[place.tail] == 0);
            taken[place.tail] |= own;
        }
        cr_assert_eq(layout.row_count, rows);
        cr_assert_leq((double)layout.block_count * KITH_BLOCK_ROWS, 1.06 * (double)rows + 600, "%zu", most);
        free(taken);
    }
}

Test(ivf, memory_is_what_the_codes_need) {
    enum { COUNT = 20000 };
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, COUNT, 16, 50);
    kith_index *once = ivf_trained("IVF16,SQ8", KITH_L2, &vectors), *singly;
    const kith_ivf *ivf = kith_ivf_of(once);
    cr_assert_eq(kith_index_clone(once, &singly), KITH_OK);
    ivf_add(once, &vectors, 0, COUNT, NULL);
    for (size_t i = 0; i < COUNT; i++) ivf_add(singly, &vectors, i, 1, NULL);
    uint64_t need = COUNT * (uint64_t)ivf->code->block_bytes / KITH_BLOCK_ROWS;
    uint64_t spare = 16 * (uint64_t)ivf->code->block_bytes; /* a block of each list that is not full */
    cr_assert_leq(part_bytes(once, "codes"), need + spare + 1000);
    cr_assert_leq(part_bytes(once, "ids"), COUNT * 4 + 16 * 32 * 4 + 1000);
    cr_assert_leq(part_bytes(once, "lists"), COUNT);
    cr_assert_leq((double)part_bytes(singly, "codes"), 1.08 * (double)need + (double)spare + 1e5);
    fixture_vectors queries = fixture_vectors_make(KITH_F32, 20, 16, 51);
    ivf_check_same(once, singly, &queries, 30, 16);
    kith_index_free(once);
    kith_index_free(singly);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
}
