/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "faults.h"
#include "index_fixture.h"
#include "io/container.h"

enum { DIM = 24 };

static kith_index *make(const char *spec, size_t dim, kith_metric metric) {
    kith_index *index;
    cr_assert_eq(kith_index_create(spec, dim, metric, &index), KITH_OK, "%s", kith_error_message());
    return index;
}

static void add(kith_index *index, const kith_view *view, const int64_t *ids) {
    if (!kith_index_is_trained(index))
        cr_assert_eq(kith_index_train(index, view, NULL), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_add(index, view, ids, NULL), KITH_OK, "%s", kith_error_message());
}

/* The results of a search, all in one block for comparison. */
typedef struct answer {
    size_t rows, k;
    int64_t *ids;
    float *distances;
    size_t *counts;
} answer;

static answer ask(const kith_index *index, const kith_view *queries, size_t k, const kith_search_params *params) {
    answer a = {.rows = queries->count, .k = k};
    a.ids = malloc(a.rows * k * sizeof *a.ids);
    a.distances = malloc(a.rows * k * sizeof *a.distances);
    a.counts = malloc(a.rows * sizeof *a.counts);
    kith_status status = kith_index_search(index, queries, k, params, a.ids, a.distances, a.counts);
    cr_assert_eq(status, KITH_OK, "%s", kith_error_message());
    return a;
}

static void drop(answer *a) {
    free(a->ids);
    free(a->distances);
    free(a->counts);
}

static bool same(const answer *a, const answer *b) {
    return memcmp(a->ids, b->ids, a->rows * a->k * sizeof *a->ids) == 0 &&
           memcmp(a->distances, b->distances, a->rows * a->k * sizeof *a->distances) == 0 &&
           memcmp(a->counts, b->counts, a->rows * sizeof *a->counts) == 0;
}

static const char *refine_spec(kith_dtype dtype) {
    static const char *const specs[] = {[KITH_F32] = "PCA4,Flat,RFlat",
                                        [KITH_F16] = "PCA4,Flat,Rf16",
                                        [KITH_BF16] = "PCA4,Flat,Rbf16",
                                        [KITH_I8] = "PCA4,Flat,Ri8",
                                        [KITH_U8] = "PCA4,Flat,Ru8"};
    return specs[dtype];
}

/* ---- Results ------------------------------------------------------------------------------------------------- */

Test(refine, all_candidates_give_what_flat_gives_bit_for_bit) {
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++)
            for (size_t q = 0; q < 2; q++) { /* queries of the stored type, and of f32 */
                kith_dtype dtype = fixture_types[t];
                fixture_vectors base = fixture_vectors_make(dtype, 300, DIM, 1);
                fixture_vectors queries = fixture_vectors_make(q == 0 ? dtype : KITH_F32, 21, DIM, 2);
                kith_index *flat = make(fixture_spec(dtype), DIM, fixture_metrics[m]);
                kith_index *refined = make(refine_spec(dtype), DIM, fixture_metrics[m]);
                cr_assert_eq(kith_index_dtype(refined), dtype);
                kith_view rows = fixture_view(&base, 0, base.count), view = fixture_view(&queries, 0, 21);
                add(flat, &rows, NULL);
                add(refined, &rows, NULL);
                kith_search_params params;
                kith_search_params_init(&params);
                params.k_factor = 1000;
                answer expected = ask(flat, &view, 7, NULL), got = ask(refined, &view, 7, &params);
                cr_assert(same(&expected, &got), "%s, %s, queries %zu", fixture_spec(dtype),
                          kith_metric_name(fixture_metrics[m]), q);
                drop(&got);
                for (size_t i = 0; i < view.count; i++) { /* one at a time: the same bits */
                    const kith_view one = fixture_view(&queries, i, 1);
                    answer alone = ask(refined, &one, 7, &params);
                    cr_assert_eq(memcmp(alone.ids, expected.ids + i * 7, 7 * sizeof *alone.ids), 0);
                    cr_assert_eq(memcmp(alone.distances, expected.distances + i * 7, 7 * sizeof(float)), 0);
                    drop(&alone);
                }
                drop(&expected);
                kith_index_free(flat);
                kith_index_free(refined);
                fixture_vectors_free(&base);
                fixture_vectors_free(&queries);
            }
}

/* Among the base's own candidates refinement loses none: recall@10 of k_factor 10 is the base's recall of the true ten
 * within its first hundred. */
Test(refine, finds_what_the_base_has_among_its_candidates) {
    fixture_vectors base = fixture_vectors_make(KITH_F32, 2000, DIM, 3);
    fixture_vectors queries = fixture_vectors_make(KITH_F32, 50, DIM, 4);
    kith_view rows = fixture_view(&base, 0, base.count), view = fixture_view(&queries, 0, queries.count);
    kith_index *flat = make("Flat", DIM, KITH_L2), *coarse = make("PCA8,Flat", DIM, KITH_L2);
    kith_index *refined = make("PCA8,Flat,RFlat", DIM, KITH_L2);
    add(flat, &rows, NULL);
    add(coarse, &rows, NULL);
    add(refined, &rows, NULL);
    kith_search_params params;
    kith_search_params_init(&params);
    params.k_factor = 10;
    answer truth = ask(flat, &view, 10, NULL), hundred = ask(coarse, &view, 100, NULL);
    answer got = ask(refined, &view, 10, &params);
    size_t in_hundred = 0, in_got = 0;
    for (size_t q = 0; q < view.count; q++)
        for (size_t i = 0; i < 10; i++) {
            int64_t id = truth.ids[q * 10 + i];
            for (size_t j = 0; j < 100; j++) in_hundred += hundred.ids[q * 100 + j] == id;
            for (size_t j = 0; j < 10; j++) in_got += got.ids[q * 10 + j] == id;
        }
    cr_assert_eq(in_got, in_hundred);
    cr_assert_gt(in_got, 250);
    cr_assert_lt(in_got, 500);
    drop(&truth);
    drop(&hundred);
    drop(&got);
    kith_index_free(flat);
    kith_index_free(coarse);
    kith_index_free(refined);
    fixture_vectors_free(&base);
    fixture_vectors_free(&queries);
}

static bool is_odd(int64_t id) { return id % 2 != 0; }
static int allow_odd(void *user, int64_t id) {
    (void)user;
    return is_odd(id);
}

Test(refine, filters_bounds_and_threads_are_those_of_any_index) {
    fixture_vectors base = fixture_vectors_make(KITH_U8, 500, DIM, 5);
    fixture_vectors queries = fixture_vectors_make(KITH_U8, 40, DIM, 6);
    kith_view rows = fixture_view(&base, 0, base.count), view = fixture_view(&queries, 0, queries.count);
    kith_index *refined = make("Flat,RFlat", DIM, KITH_L2);
    add(refined, &rows, NULL);
    fixture_model model;
    fixture_model_init(&model, DIM);
    for (size_t i = 0; i < base.count; i++) fixture_model_put(&model, (int64_t)i, base.values + i * DIM);
    kith_search_params params;
    kith_search_params_init(&params);
    fixture_check_search(refined, &model, &queries, 9, &params, NULL);
    cr_assert_eq(kith_filter_callback(allow_odd, NULL, (kith_filter **)&params.filter), KITH_OK);
    fixture_check_search(refined, &model, &queries, 9, &params, is_odd);
    fixture_check_search(refined, &model, &queries, 400, &params, is_odd); /* fewer than k are allowed */
    answer one = ask(refined, &view, 9, &params);
    params.threads = 4;
    cr_assert_eq(kith_search_context_create(&params.context), KITH_OK);
    for (int repeat = 0; repeat < 3; repeat++) {
        answer four = ask(refined, &view, 9, &params);
        cr_assert(same(&one, &four));
        drop(&four);
    }
    drop(&one);
    kith_search_context_free(params.context);
    kith_filter_free((kith_filter *)(uintptr_t)params.filter);
    kith_index_free(refined);
    fixture_model_free(&model);
    fixture_vectors_free(&base);
    fixture_vectors_free(&queries);
}

Test(refine, a_warm_search_allocates_nothing) {
    faults_fail_allocation(0);
    fixture_vectors base = fixture_vectors_make(KITH_F32, 300, DIM, 7);
    kith_view rows = fixture_view(&base, 0, base.count), query = fixture_view(&base, 5, 1);
    kith_index *refined = make("PCA8,Flat,Rf16", DIM, KITH_COSINE);
    add(refined, &rows, NULL);
    kith_search_params params;
    kith_search_params_init(&params);
    cr_assert_eq(kith_search_context_create(&params.context), KITH_OK);
    for (int warm = 0; warm < 4; warm++) {
        faults_fail_allocation(0);
        answer a = ask(refined, &query, 5, &params);
        cr_assert_eq(a.ids[0], 5);
        drop(&a);
    }
    cr_assert_eq(faults_allocation_count(), 0);
    kith_search_context_free(params.context);
    kith_index_free(refined);
    fixture_vectors_free(&base);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- Parameters ---------------------------------------------------------------------------------------------- */

Test(refine, k_factor_is_a_parameter_with_a_default_of_its_own) {
    kith_index *refined = make("Flat,RFlat", 8, KITH_L2), *flat = make("Flat", 8, KITH_L2);
    size_t count = kith_index_param_count(refined);
    cr_assert_eq(count, kith_index_param_count(flat) + 1);
    const kith_search_param *param = kith_index_param(refined, count - 1);
    cr_assert_str_eq(param->name, "k_factor");
    cr_assert_gt(param->default_value, 0);
    kith_search_params params;
    kith_search_params_init(&params);
    cr_assert_eq(kith_search_params_set(&params, refined, "k_factor", "12"), KITH_OK);
    cr_assert_eq(params.k_factor, 12);
    cr_assert_eq(kith_search_params_set(&params, refined, "k_factor", "65537"), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_search_params_set(&params, flat, "k_factor", "12"), KITH_ERR_NOT_FOUND);
    kith_index *copy;
    cr_assert_eq(kith_index_clone(refined, &copy), KITH_OK);
    kith_index *cut = make("PCA4,Flat,RFlat", 8, KITH_L2), *turned = make("RR8,Flat,RFlat", 8, KITH_L2);
    cr_assert_gt(kith_index_param(cut, count - 1)->default_value, param->default_value);
    cr_assert_eq(kith_index_param(turned, count - 1)->default_value, param->default_value);
    kith_index_free(cut);
    kith_index_free(turned);
    kith_index_free(refined); /* the copy's parameters are its own */
    cr_assert_str_eq(kith_index_param(copy, count - 1)->name, "k_factor");
    kith_index_free(copy);
    kith_index_free(flat);
}

/* ---- Changes ------------------------------------------------------------------------------------------------- */

/* A mixed sequence of changes on an index and on a model of it. */
static void change(kith_index *index, fixture_model *model, const fixture_vectors *vectors, size_t step) {
    size_t first = step * 37 % 200, count = 4 + step * 13 % 50;
    kith_view view = fixture_view(vectors, first, count);
    int64_t ids[64];
    size_t removed;
    for (size_t i = 0; i < count; i++)
        ids[i] = (int64_t)((step % 3 == 0 ? step * 100 : 5000 - step * 60) + (step % 2 == 0 ? i : 2 * i));
    if (step % 5 == 3) { /* what the last two steps put there, in part */
        for (size_t i = 0; i < count; i++) ids[i] = model->ids[(i * 7 + step) % model->count];
        cr_assert_eq(kith_index_remove(index, ids, count, &removed), KITH_OK, "%s", kith_error_message());
        size_t gone = 0;
        for (size_t i = 0; i < count; i++) gone += fixture_model_remove(model, ids[i]);
        cr_assert_eq(removed, gone);
    } else if (step % 5 == 4 && model->count >= count) {
        for (size_t i = 0; i < count; i++) ids[i] = model->ids[i];
        cr_assert_eq(kith_index_update(index, &view, ids), KITH_OK, "%s", kith_error_message());
        for (size_t i = 0; i < count; i++)
            fixture_model_put(model, ids[i], vectors->values + (first + i) * vectors->dim);
    } else {
        bool held = false;
        for (size_t i = 0; i < count; i++) held = held || fixture_model_find(model, ids[i]) != NULL;
        kith_status status = kith_index_add(index, &view, ids, NULL);
        cr_assert_eq(status, held ? KITH_ERR_EXISTS : KITH_OK, "%s", kith_error_message());
        for (size_t i = 0; i < count && !held; i++)
            fixture_model_put(model, ids[i], vectors->values + (first + i) * vectors->dim);
    }
}

Test(refine, holds_what_a_model_holds_through_changes_files_and_copies) {
    const char *folder = faults_folder(), *path = faults_path(folder, "x.kith");
    static const char *const specs[] = {"Flat,RFlat", "Flat,u8,Ru8", "Flat,RFlat", "RR24,Flat,RFlat"};
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++) {
        fixture_vectors vectors = fixture_vectors_make(KITH_U8, 260, DIM, 8);
        fixture_vectors queries = fixture_vectors_make(KITH_U8, 5, DIM, 9);
        kith_index *index = make(specs[s], DIM, s == 2 ? KITH_COSINE : KITH_L2), *mapped, *copy;
        fixture_model model;
        fixture_model_init(&model, DIM);
        kith_search_params params;
        kith_search_params_init(&params);
        params.k_factor = 1000;
        for (size_t step = 0; step < 25; step++) {
            change(index, &model, &vectors, step);
            fixture_check_content(index, &model);
            fixture_check_search(index, &model, &queries, 3, &params, NULL);
            if (step % 6 != 0) continue;
            cr_assert_eq(kith_index_save(index, path), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_file_verify(path), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_index_map(path, &mapped), KITH_OK, "%s", kith_error_message());
            cr_assert_str_eq(kith_index_spec(mapped), kith_index_spec(index));
            fixture_check_search(mapped, &model, &queries, 3, &params, NULL);
            fixture_check_content(mapped, &model);
            cr_assert_eq(kith_index_remove(mapped, model.ids, 1, NULL), KITH_ERR_READ_ONLY);
            cr_assert_eq(kith_index_clone(mapped, &copy), KITH_OK, "%s", kith_error_message());
            kith_index_free(mapped);
            kith_index_free(index);
            index = copy;
        }
        cr_assert_eq(kith_index_reset(index), KITH_OK);
        cr_assert_eq(kith_index_count(index), 0);
        kith_view view = fixture_view(&vectors, 0, 3);
        add(index, &view, NULL);
        int64_t ids[3];
        cr_assert_eq(kith_index_search(index, &view, 1, NULL, ids, NULL, NULL), KITH_OK);
        for (int64_t i = 0; i < 3; i++) cr_assert_eq(ids[i], i);
        kith_index_free(index);
        fixture_model_free(&model);
        fixture_vectors_free(&vectors);
        fixture_vectors_free(&queries);
    }
    faults_folder_remove(folder);
}

Test(refine, what_the_base_cannot_store_changes_nothing) {
    kith_index *index = make("Flat,u8,RFlat", 2, KITH_L2);
    const float rows[] = {1, 2, 3, 4, 5, 0.5f};
    const kith_view good = {rows, KITH_F32, 2, 2, 0}, bad = {rows, KITH_F32, 3, 2, 0};
    cr_assert_eq(kith_index_add(index, &good, NULL, NULL), KITH_OK);
    cr_assert_eq(kith_index_add(index, &bad, NULL, NULL), KITH_ERR_RANGE);
    cr_assert_eq(kith_index_count(index), 2);
    const int64_t ids[] = {1}, none[] = {7};
    const kith_view fraction = {rows + 4, KITH_F32, 1, 2, 0};
    cr_assert_eq(kith_index_update(index, &fraction, ids), KITH_ERR_RANGE);
    cr_assert_eq(kith_index_update(index, &good, (int64_t[]){0, 7}), KITH_ERR_NOT_FOUND);
    float out[2];
    cr_assert_eq(kith_index_reconstruct(index, none, 1, out), KITH_ERR_NOT_FOUND);
    cr_assert_eq(kith_index_reconstruct(index, ids, 1, out), KITH_OK);
    cr_assert_eq(memcmp(out, rows + 2, sizeof out), 0);
    kith_index_free(index);
}

/* ---- Memory that fails --------------------------------------------------------------------------------------- */

typedef struct failing {
    kith_index *index;
    kith_view view;
    const char *path;
    int which;
} failing;

static kith_status run(const failing *f) {
    static const int64_t few[] = {3, 11, 40, 12};
    static int64_t odd[64];
    for (int64_t i = 0; i < 64; i++) odd[i] = 3 * (100 - i);
    const kith_view four = {f->view.data, f->view.dtype, 4, f->view.dim, 0};
    kith_index *copy;
    switch (f->which) {
        case 0: return kith_index_add(f->index, &f->view, NULL, NULL);
        case 1: return kith_index_add(f->index, &f->view, odd, NULL); /* ids that do not rise */
        case 2: return kith_index_remove(f->index, few, 4, NULL);
        case 3: return kith_index_update(f->index, &four, few);
        case 4: return kith_index_save(f->index, f->path);
        default: {
            kith_status status = kith_index_clone(f->index, &copy);
            if (status == KITH_OK) kith_index_free(copy);
            return status;
        }
    }
}

/* An index that failed in between saves the bytes of one that did not. */
static void check_failures(const char *spec) {
    const char *folder = faults_folder(), *path = faults_path(folder, "x"), *before = faults_path(folder, "before");
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 64, DIM, 10);
    for (int which = 0; which < 6; which++) {
        kith_index *index = make(spec, DIM, KITH_COSINE);
        failing f = {index, fixture_view(&vectors, 0, 64), path, which};
        cr_assert_eq(kith_index_train(index, &f.view, NULL), KITH_OK);
        const kith_view half = fixture_view(&vectors, 0, 50);
        cr_assert_eq(kith_index_add(index, &half, NULL, NULL), KITH_OK);
        cr_assert_eq(kith_index_save(index, before), KITH_OK);
        size_t bytes, again, n = 1;
        unsigned char *expected = faults_read_file(before, &bytes);
        for (;; n++) {
            faults_fail_allocation(n);
            kith_status status = run(&f);
            bool reached = faults_allocation_count() >= n;
            faults_fail_allocation(0);
            if (status == KITH_OK) {
                cr_assert(!reached);
                break;
            }
            cr_assert_eq(status, KITH_ERR_NO_MEMORY, "%s, %d: %s", spec, which, kith_error_message());
            cr_assert_eq(kith_index_count(index), 50);
            cr_assert_eq(kith_index_save(index, before), KITH_OK);
            unsigned char *now = faults_read_file(before, &again);
            cr_assert_eq(again, bytes);
            cr_assert_eq(memcmp(now, expected, bytes), 0, "%s, change %d, allocation %zu", spec, which, n);
            free(now);
        }
        cr_assert_gt(n, 1);
        free(expected);
        kith_index_free(index);
        cr_assert_eq(kith_memory_live_blocks(), 0);
    }
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}

Test(refine, a_failed_allocation_changes_nothing) {
    faults_fail_allocation(0);
    check_failures("PCA8,Flat,f16,RFlat");
    check_failures("Flat,RSQ8");
    check_failures("IVF4,SQ4,Rf16");
}

Test(refine, training_that_fails_leaves_both_halves_as_they_were) {
    faults_fail_allocation(0);
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 200, DIM, 11);
    const kith_view all = fixture_view(&vectors, 0, 200), half = fixture_view(&vectors, 0, 100);
    kith_job job;
    kith_job_init(&job);
    job.threads = 1;
    kith_index *index = make("IVF4,SQ4,RSQ8", DIM, KITH_IP);
    for (size_t n = 1;; n++) { /* a first training: untrained until it succeeds */
        faults_fail_allocation(n);
        kith_status status = kith_index_train(index, &half, &job);
        faults_fail_allocation(0);
        if (status == KITH_OK) break;
        cr_assert_eq(status, KITH_ERR_NO_MEMORY, "%s", kith_error_message());
        cr_assert(!kith_index_is_trained(index));
        cr_assert_eq(kith_index_add(index, &all, NULL, NULL), KITH_ERR_NOT_TRAINED);
    }
    cr_assert(kith_index_is_trained(index));
    cr_assert_eq(kith_index_add(index, &all, NULL, NULL), KITH_OK);
    cr_assert_eq(kith_index_train(index, &all, &job), KITH_ERR_ARGUMENT);
    kith_index_free(index);
    fixture_vectors_free(&vectors);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- Stores of codes, bases of lists -------------------------------------------------------------------------- */

static double value_of(kith_metric metric, const float *a, const float *b) {
    double value = fixture_value(metric == KITH_COSINE ? KITH_IP : metric, a, b, DIM), norm2 = 0;
    for (size_t i = 0; i < DIM; i++) norm2 += (double)a[i] * (double)a[i];
    return metric == KITH_COSINE ? value / sqrt(norm2) : value; /* what is stored is of unit length, about */
}

/* The distances are those to the vectors that the store's codes stand for. */
Test(refine, a_store_of_codes_gives_the_distances_of_its_codes) {
    static const char *const specs[] = {"Flat,RSQ8", "SQ4,RSQ8", "IVF6,SQ4,RSQ8", "IVF6,Flat,Refine(SQ6)",
                                        "PCA12,SQ8,RSQ8"};
    fixture_vectors base = fixture_vectors_make(KITH_F32, 700, DIM, 12),
                    queries = fixture_vectors_make(KITH_F32, 20, DIM, 13);
    const kith_view rows = fixture_view(&base, 0, base.count), view = fixture_view(&queries, 0, queries.count);
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++)
        for (size_t m = 0; m < 3; m++) {
            kith_index *index = make(specs[s], DIM, fixture_metrics[m]);
            add(index, &rows, NULL);
            answer a = ask(index, &view, 8, NULL);
            for (size_t q = 0; q < view.count; q++)
                for (size_t i = 0; i < 8; i++) {
                    float decoded[DIM];
                    cr_assert_eq(kith_index_reconstruct(index, &a.ids[q * 8 + i], 1, decoded), KITH_OK);
                    const float *query = queries.values + q * DIM;
                    double own = value_of(fixture_metrics[m], query, decoded),
                           given = (double)a.distances[q * 8 + i];
                    /* A code may read its query in fewer bits: that is the slack. */
                    cr_assert_float_eq(given, own, 0.02 * (fabs(own) + 1), "%s, %s: %g is not %g", specs[s],
                                       kith_metric_name(fixture_metrics[m]), given, own);
                    double truth = value_of(KITH_L2, base.values + (size_t)a.ids[q * 8 + i] * DIM, decoded);
                    if (m < 2) cr_assert_lt(truth, 0.5, "%s", specs[s]);
                }
            for (size_t q = 0; q < view.count; q += 7) {
                const kith_view one = fixture_view(&queries, q, 1);
                answer alone = ask(index, &one, 8, NULL);
                cr_assert_eq(memcmp(alone.ids, a.ids + q * 8, 8 * sizeof *alone.ids), 0);
                cr_assert_eq(memcmp(alone.distances, a.distances + q * 8, 8 * sizeof(float)), 0);
                drop(&alone);
            }
            drop(&a);
            kith_index_free(index);
        }
    fixture_vectors_free(&base);
    fixture_vectors_free(&queries);
}

/* Changes, files and copies of the combinations; what a search finds stays what it was. */
Test(refine, every_combination_survives_changes_and_files) {
    const char *folder = faults_folder(), *path = faults_path(folder, "x.kith");
    static const char *const specs[] = {"IVF5,SQ8,RFlat",     "IVF5,SQ4,RSQ8", "SQ4,Rbf16",
                                        "RR24,IVF5,SQ4,RSQ8", "SQ8,Ru8",       "OPQ4_16,IVF5,SQ8,Rf16",
                                        "L2norm,SQ6,RFlat"};
    fixture_vectors vectors = fixture_vectors_make(KITH_U8, 600, DIM, 14);
    const kith_view all = fixture_view(&vectors, 0, 500), queries = fixture_view(&vectors, 500, 30);
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++)
        for (size_t m = 0; m < 3; m++) {
            kith_index *index = make(specs[s], DIM, fixture_metrics[m]), *others[3];
            add(index, &all, NULL);
            int64_t ids[40];
            for (int64_t i = 0; i < 40; i++) ids[i] = i * i % 500;
            size_t removed;
            cr_assert_eq(kith_index_remove(index, ids, 40, &removed), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_index_count(index), 500 - removed);
            const kith_view again = fixture_view(&vectors, 100, 20), two = fixture_view(&vectors, 530, 2);
            int64_t back[20];
            for (int64_t i = 0; i < 20; i++) back[i] = 9000 - 3 * i;
            cr_assert_eq(kith_index_add(index, &again, back, NULL), KITH_OK, "%s: %s", specs[s],
                         kith_error_message());
            kith_status updated = kith_index_update(index, &two, (int64_t[]){8997, 499});
            cr_assert_eq(updated, KITH_OK, "%s: %s", specs[s], kith_error_message());
            kith_search_params params;
            kith_search_params_init(&params);
            params.k_factor = 8;
            answer before = ask(index, &queries, 6, &params);
            for (size_t i = 0; i < queries.count * 6; i++)
                for (size_t r = 0; r < 40; r++) cr_assert_neq(before.ids[i], ids[r]);
            cr_assert_eq(kith_index_save(index, path), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_file_verify(path), KITH_OK, "%s: %s", specs[s], kith_error_message());
            cr_assert_eq(kith_index_map(path, &others[0]), KITH_OK, "%s: %s", specs[s], kith_error_message());
            cr_assert_eq(kith_index_load(path, &others[1]), KITH_OK, "%s: %s", specs[s], kith_error_message());
            cr_assert_eq(kith_index_clone(index, &others[2]), KITH_OK, "%s: %s", specs[s], kith_error_message());
            for (size_t i = 0; i < 3; i++) {
                answer after = ask(others[i], &queries, 6, &params);
                cr_assert(same(&before, &after), "%s, %s, copy %zu", specs[s], kith_metric_name(fixture_metrics[m]),
                          i);
                drop(&after);
                kith_index_free(others[i]);
            }
            drop(&before);
            kith_index_free(index);
        }
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}

/* Lists that training counts stand in the spec, and what follows from them in the parameters, of the outermost index too. */
Test(refine, what_training_chooses_is_said) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 900, DIM, 15);
    const kith_view all = fixture_view(&vectors, 0, 900);
    kith_index *index = make("RR24,IVF,SQ8,RFlat", DIM, KITH_L2), *plain = make("IVF,SQ8", DIM, KITH_L2), *again;
    add(index, &all, NULL);
    add(plain, &all, NULL);
    char expected[256];
    (void)snprintf(expected, sizeof expected, "RR24,%s,RFlat", kith_index_spec(plain));
    cr_assert_str_eq(kith_index_spec(index), expected);
    cr_assert_neq(strcmp(expected, "RR24,IVF,SQ8,RFlat"), 0);
    cr_assert_eq(kith_index_param_count(index), kith_index_param_count(plain) + 1);
    for (size_t i = 0; i < kith_index_param_count(plain); i++) {
        const kith_search_param *a = kith_index_param(index, i), *b = kith_index_param(plain, i);
        cr_assert_str_eq(a->name, b->name);
        cr_assert_eq(a->default_value, b->default_value, "%s", a->name);
    }
    cr_assert_eq(kith_index_clone(index, &again), KITH_OK);
    kith_index_free(index);
    cr_assert_str_eq(kith_index_spec(again), expected);
    kith_index_free(again);
    kith_index_free(plain);
    fixture_vectors_free(&vectors);
}

/* Copies the sections of a file that `keep` lets through into another. */
static void copy_sections(const char *path, bool (*keep)(const kith_section *section),
                          kith_container_writer *writer) {
    kith_container *file;
    cr_assert_eq(kith_container_open(path, &file), KITH_OK);
    for (size_t i = 0; i < kith_container_section_count(file); i++) {
        const kith_section *section = kith_container_section_at(file, i);
        if (!keep(section)) continue;
        cr_assert_eq(kith_container_writer_begin(writer, section->tag, section->instance, section->version, 0),
                     KITH_OK);
        cr_assert_eq(kith_container_writer_write(writer, section->data, section->bytes), KITH_OK);
    }
    kith_container_close(file);
}

static bool is_base(const kith_section *section) { return section->instance == 0; }
static bool is_store(const kith_section *section) { return section->instance == 1; }

/* Halves of two good files, each in order by itself. */
Test(refine, halves_with_different_ids_are_refused) {
    const char *folder = faults_folder(), *one = faults_path(folder, "one"), *two = faults_path(folder, "two");
    const char *mixed = faults_path(folder, "mixed");
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 5, 4, 16);
    const kith_view view = fixture_view(&vectors, 0, 5);
    static const int64_t ids[2][5] = {{0, 1, 2, 3, 9}, {0, 1, 2, 4, 9}};
    for (size_t i = 0; i < 2; i++) {
        kith_index *index = make("Flat,RFlat", 4, KITH_L2);
        cr_assert_eq(kith_index_add(index, &view, ids[i], NULL), KITH_OK);
        cr_assert_eq(kith_index_save(index, i == 0 ? one : two), KITH_OK);
        kith_index_free(index);
    }
    for (int same_ids = 0; same_ids < 2; same_ids++) {
        kith_container_writer *writer;
        kith_index *index;
        cr_assert_eq(kith_container_writer_create(mixed, &writer), KITH_OK);
        copy_sections(one, is_base, writer);
        copy_sections(same_ids ? one : two, is_store, writer);
        cr_assert_eq(kith_container_writer_commit(writer), KITH_OK);
        kith_status status = kith_index_load(mixed, &index);
        cr_assert_eq(status, same_ids ? KITH_OK : KITH_ERR_FORMAT, "%s", kith_error_message());
        cr_assert(same_ids || strstr(kith_error_message(), "different ids") != NULL);
        kith_index_free(index);
        cr_assert_eq(kith_index_map(mixed, &index), KITH_OK, "%s",
                     kith_error_message()); /* in place nothing is read */
        int64_t found[5];
        size_t counts[1];
        const kith_view query = fixture_view(&vectors, 3, 1);
        cr_assert_eq(kith_index_search(index, &query, 5, NULL, found, NULL, counts), KITH_OK);
        cr_assert_eq(counts[0], same_ids ? 5 : 4);
        kith_index_free(index);
    }
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}
