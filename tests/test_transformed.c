/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "faults.h"
#include "index_fixture.h"

enum { DIM = 40, ROWS = 400 };

static kith_index *filled(const char *spec, kith_metric metric, const fixture_vectors *vectors) {
    kith_index *index;
    cr_assert_eq(kith_index_create(spec, vectors->dim, metric, &index), KITH_OK, "%s", kith_error_message());
    const kith_view view = fixture_view(vectors, 0, vectors->count);
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK, "%s", kith_error_message());
    return index;
}

static double l2(const float *a, const float *b, size_t dim) { return fixture_value(KITH_L2, a, b, dim); }

/* Transforms that keep distances leave the search as it is, up to rounding. */
Test(transformed, what_keeps_distances_finds_what_flat_finds) {
    static const char *const specs[] = {"RR40,Flat",  "RR,Flat",      "HR,Flat",       "Pad64,Flat",
                                        "PCA40,Flat", "OPQ4_40,Flat", "Pad48,HR,Flat", "IDMap,RR64,Flat"};
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, ROWS, DIM, 1);
    fixture_vectors queries = fixture_vectors_make(KITH_F32, 9, DIM, 2);
    fixture_model model;
    fixture_model_init(&model, DIM);
    for (size_t i = 0; i < ROWS; i++) fixture_model_put(&model, (int64_t)i, vectors.values + i * DIM);
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++)
        for (size_t m = 0; m < 3; m++) {
            kith_index *index = filled(specs[s], fixture_metrics[m], &vectors);
            /* A rotation rounds each element: ten times the fixture's own tolerance would hold; ids may swap. */
            int64_t ids[90];
            float distances[90];
            const kith_view view = fixture_view(&queries, 0, 9);
            cr_assert_eq(kith_index_search(index, &view, 10, NULL, ids, distances, NULL), KITH_OK);
            for (size_t i = 0; i < 90; i++) {
                const float *row = fixture_model_find(&model, ids[i]);
                double value = fixture_value(fixture_metrics[m], queries.values + i / 10 * DIM, row, DIM);
                cr_assert_float_eq((double)distances[i], value, 2e-4, "%s: %g is not %g", specs[s],
                                   (double)distances[i], value);
            }
            kith_index_free(index);
        }
    fixture_model_free(&model);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
}

Test(transformed, vectors_come_back_where_nothing_was_lost) {
    static const struct {
        const char *spec;
        kith_status status;
        double error_max; /* of a squared distance */
    } cases[] = {
        {"RR40,Flat", KITH_OK, 1e-8},
        {"HR,Flat", KITH_OK, 1e-8},
        {"Centre,Flat", KITH_OK, 1e-8},
        {"Pad100,Flat", KITH_OK, 0},
        {"PCA40,Flat", KITH_OK, 1e-8},
        {"PCA20,Flat", KITH_OK, 40},
        {"L2norm,Flat", KITH_ERR_UNSUPPORTED, 0},
        {"RR40,L2norm,Flat", KITH_ERR_UNSUPPORTED, 0},
        {"L2norm,Flat,RFlat", KITH_OK, 0}, /* the store has the vectors themselves */
    };
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, ROWS, DIM, 3);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        kith_index *index = filled(cases[c].spec, KITH_L2, &vectors);
        static const int64_t ids[] = {399, 0, 17, 17};
        float out[4 * DIM];
        kith_status status = kith_index_reconstruct(index, ids, 4, out);
        cr_assert_eq(status, cases[c].status, "%s: %s", cases[c].spec, kith_error_message());
        for (size_t i = 0; i < 4 && status == KITH_OK; i++)
            cr_assert_leq(l2(out + i * DIM, vectors.values + (size_t)ids[i] * DIM, DIM), cases[c].error_max, "%s",
                          cases[c].spec);
        kith_index_free(index);
    }
    fixture_vectors_free(&vectors);
}

Test(transformed, l2norm_makes_l2_the_cosine) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, ROWS, DIM, 4);
    kith_index *index = filled("L2norm,Flat", KITH_L2, &vectors), *cosine = filled("Flat", KITH_COSINE, &vectors);
    const kith_view view = fixture_view(&vectors, 0, 20);
    int64_t ids[20 * 5], expected[20 * 5];
    float distances[20 * 5], similarities[20 * 5];
    cr_assert_eq(kith_index_search(index, &view, 5, NULL, ids, distances, NULL), KITH_OK);
    cr_assert_eq(kith_index_search(cosine, &view, 5, NULL, expected, similarities, NULL), KITH_OK);
    cr_assert_eq(memcmp(ids, expected, sizeof ids), 0);
    for (size_t i = 0; i < 100; i++) cr_assert_float_eq(distances[i], 2 - 2 * similarities[i], 1e-5);
    kith_index_free(index);
    kith_index_free(cosine);
    fixture_vectors_free(&vectors);
}

/* What needs no rows is trained from the start; the rest says so. */
Test(transformed, training_is_asked_for_where_it_is_needed) {
    kith_index *index;
    fixture_vectors vectors = fixture_vectors_make(KITH_U8, 64, 8, 5);
    const kith_view view = fixture_view(&vectors, 0, 64);
    cr_assert_eq(kith_index_create("RR8,L2norm,Flat", 8, KITH_L2, &index), KITH_OK);
    cr_assert(kith_index_is_trained(index));
    cr_assert_eq(kith_index_train_count(index), 0);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK);
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "holds 64 vectors"));
    kith_index_free(index);
    cr_assert_eq(kith_index_create("PCA4,Flat", 8, KITH_L2, &index), KITH_OK);
    cr_assert(!kith_index_is_trained(index));
    cr_assert_gt(kith_index_train_count(index), 0);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_ERR_NOT_TRAINED);
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_OK);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK);
    kith_index_free(index);
    fixture_vectors_free(&vectors);
}

Test(transformed, a_vector_that_becomes_zero_is_named) {
    kith_index *index;
    const float rows[] = {1, 0, 0, 1, 0, 3};
    const kith_view view = {rows, KITH_F32, 2, 3, 0};
    cr_assert_eq(kith_index_create("Pad2,Flat", 3, KITH_COSINE, &index), KITH_OK);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK);
    const float lost[] = {0, 1, 0, 0, 0, 3};
    const kith_view bad = {lost, KITH_F32, 2, 3, 0};
    int64_t ids[2];
    cr_assert_eq(kith_index_add(index, &bad, NULL, NULL), KITH_ERR_ZERO_VECTOR);
    cr_assert_not_null(strstr(kith_error_message(), "row 1"), "%s", kith_error_message());
    cr_assert_eq(kith_index_search(index, &bad, 1, NULL, ids, NULL, NULL), KITH_ERR_ZERO_VECTOR);
    cr_assert_not_null(strstr(kith_error_message(), "row 1"), "%s", kith_error_message());
    cr_assert_eq(kith_index_count(index), 2);
    kith_index_free(index);
}

Test(transformed, files_copies_and_changes_keep_the_results) {
    const char *folder = faults_folder(), *path = faults_path(folder, "x.kith");
    static const char *const specs[] = {"PCA16,Flat", "OPQ4_16,L2norm,Flat,f16", "HR,PCA8,Flat,RFlat",
                                        "PCAWR8,Flat,Rbf16", "Centre,RR20,Flat,bf16"};
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, ROWS, DIM, 6);
    const kith_view queries = fixture_view(&vectors, 0, 30);
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++) {
        kith_index *index = filled(specs[s], KITH_L2, &vectors), *others[3], *untrained;
        cr_assert_str_eq(kith_index_spec(index), specs[s][0] == 'H' ? "HR64,PCA8,Flat,RFlat" : specs[s]);
        static const int64_t gone[] = {3, 77, 200};
        cr_assert_eq(kith_index_remove(index, gone, 3, NULL), KITH_OK);
        int64_t ids[150], expected[150];
        cr_assert_eq(kith_index_search(index, &queries, 5, NULL, expected, NULL, NULL), KITH_OK);
        cr_assert_eq(kith_index_save(index, path), KITH_OK, "%s", kith_error_message());
        cr_assert_eq(kith_file_verify(path), KITH_OK, "%s", kith_error_message());
        cr_assert_eq(kith_index_map(path, &others[0]), KITH_OK, "%s", kith_error_message());
        cr_assert_eq(kith_index_load(path, &others[1]), KITH_OK, "%s", kith_error_message());
        cr_assert_eq(kith_index_clone(index, &others[2]), KITH_OK, "%s", kith_error_message());
        for (size_t i = 0; i < 3; i++) {
            cr_assert_eq(kith_index_search(others[i], &queries, 5, NULL, ids, NULL, NULL), KITH_OK);
            cr_assert_eq(memcmp(ids, expected, sizeof ids), 0, "%s, copy %zu", specs[s], i);
            cr_assert_eq(kith_index_count(others[i]), ROWS - 3);
            kith_index_free(others[i]);
        }
        cr_assert_eq(kith_index_create(specs[s], DIM, KITH_L2, &untrained), KITH_OK);
        cr_assert_eq(kith_index_save(untrained, path), KITH_OK, "%s", kith_error_message());
        cr_assert_eq(kith_index_load(path, &others[0]), KITH_OK, "%s", kith_error_message());
        cr_assert_eq(kith_index_is_trained(others[0]), kith_index_is_trained(untrained));
        kith_index_free(others[0]);
        kith_index_free(untrained);
        kith_index_free(index);
    }
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}

Test(transformed, range_search_is_that_of_the_index_inside) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, ROWS, DIM, 7);
    kith_index *index = filled("Pad48,Flat", KITH_L2, &vectors), *flat = filled("Flat", KITH_L2, &vectors);
    const kith_view view = fixture_view(&vectors, 0, 25);
    kith_range_result *a, *b;
    cr_assert_eq(kith_index_range_search(index, &view, 60, NULL, &a), KITH_OK);
    cr_assert_eq(kith_index_range_search(flat, &view, 60, NULL, &b), KITH_OK);
    cr_assert_eq(memcmp(a->limits, b->limits, 26 * sizeof *a->limits), 0);
    cr_assert_gt(a->limits[25], 25);
    cr_assert_eq(memcmp(a->ids, b->ids, a->limits[25] * sizeof *a->ids), 0);
    kith_range_result_free(a);
    kith_range_result_free(b);
    kith_index_free(index);
    kith_index_free(flat);
    fixture_vectors_free(&vectors);
}

/* Queries that are transformed in several goes, and alone, give the same. */
Test(transformed, a_result_does_not_depend_on_the_batch_or_the_threads) {
    enum { COUNT = 3000, WIDE = 8192 };
    fixture_vectors vectors = fixture_vectors_make(KITH_U8, 60, 4, 8),
                    queries = fixture_vectors_make(KITH_U8, COUNT, 4, 9);
    kith_index *index = filled("Pad8192,Flat", KITH_IP, &vectors);
    const kith_view view = fixture_view(&queries, 0, COUNT);
    int64_t *ids = malloc(COUNT * 3 * sizeof *ids), one[3];
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = 3;
    cr_assert_eq(kith_index_search(index, &view, 3, &params, ids, NULL, NULL), KITH_OK, "%s", kith_error_message());
    for (size_t q = 0; q < COUNT; q += 97) {
        const kith_view alone = fixture_view(&queries, q, 1);
        cr_assert_eq(kith_index_search(index, &alone, 3, NULL, one, NULL, NULL), KITH_OK);
        cr_assert_eq(memcmp(one, ids + q * 3, sizeof one), 0, "query %zu", q);
    }
    free(ids);
    kith_index_free(index);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
}

Test(transformed, a_failed_allocation_changes_nothing) {
    faults_fail_allocation(0);
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 80, 16, 10);
    const kith_view view = fixture_view(&vectors, 0, 80), some = fixture_view(&vectors, 0, 30);
    int64_t expected[30], ids[30];
    for (int which = 0; which < 3; which++) {
        kith_index *index, *copy = NULL;
        cr_assert_eq(kith_index_create("PCA8,L2norm,Flat", 16, KITH_L2, &index), KITH_OK);
        cr_assert_eq(kith_index_train(index, &view, NULL), KITH_OK);
        if (which > 0) cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK);
        if (which > 0) cr_assert_eq(kith_index_search(index, &some, 1, NULL, expected, NULL, NULL), KITH_OK);
        uint64_t live = kith_memory_live_blocks();
        for (size_t n = 1;; n++) {
            faults_fail_allocation(n);
            kith_status status = which == 0   ? kith_index_train(index, &some, NULL)
                                 : which == 1 ? kith_index_add(index, &some, NULL, NULL)
                                              : kith_index_clone(index, &copy);
            bool reached = faults_allocation_count() >= n;
            faults_fail_allocation(0);
            if (status == KITH_OK) {
                cr_assert(!reached);
                break;
            }
            cr_assert_eq(status, KITH_ERR_NO_MEMORY, "%s", kith_error_message());
            cr_assert(which == 1 || kith_memory_live_blocks() == live); /* room for growth may stay */
            cr_assert_eq(kith_index_count(index), which > 0 ? 80 : 0);
            if (which == 0) continue;
            cr_assert_eq(kith_index_search(index, &some, 1, NULL, ids, NULL, NULL), KITH_OK);
            cr_assert_eq(memcmp(ids, expected, sizeof ids), 0);
        }
        kith_index_free(copy);
        kith_index_free(index);
        cr_assert_eq(kith_memory_live_blocks(), 0);
    }
    fixture_vectors_free(&vectors);
}

/* ---- Additions in parts --------------------------------------------------------------------------------------- */

typedef struct watch {
    uint64_t last;
    size_t calls, stop_at; /* 0: never */
} watch;

static int look_on(void *user, const char *phase, uint64_t done, uint64_t total) {
    watch *w = user;
    (void)phase;
    cr_assert_leq(done, total);
    if (done > w->last) w->last = done;
    return w->stop_at != 0 && ++w->calls >= w->stop_at;
}

static kith_index *empty(const char *spec, const fixture_vectors *vectors) {
    kith_index *index;
    const kith_view view = fixture_view(vectors, 0, vectors->count);
    cr_assert_eq(kith_index_create(spec, vectors->dim, KITH_COSINE, &index), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_OK, "%s", kith_error_message());
    return index;
}

static unsigned char *saved(const kith_index *index, const char *path, size_t *bytes) {
    cr_assert_eq(kith_index_save(index, path), KITH_OK, "%s", kith_error_message());
    return faults_read_file(path, bytes);
}

static const char *const part_specs[] = {"RR40,Flat", "PCA12,IVF5,SQ6", "HR,Flat,f16,RFlat", "L2norm,RR,SQ8"};
enum { PART_SPECS = sizeof part_specs / sizeof *part_specs };

/* Under a budget an addition is transformed in parts: the index is the same, byte for byte. */
Test(transformed, parts_of_an_addition_make_the_same_index) {
    faults_fail_allocation(0);
    const char *folder = faults_folder(), *path = faults_path(folder, "x");
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, ROWS, DIM, 20);
    for (size_t s = 0; s < PART_SPECS; s++)
        for (int mixed = 0; mixed < 2; mixed++) {
            kith_index *both[2];
            int64_t ids[ROWS];
            unsigned char *files[2];
            size_t bytes[2], calls = 0;
            for (int64_t i = 0; i < ROWS; i++) ids[i] = 10 + i * 171 % ROWS;
            for (size_t b = 0; b < 2; b++) {
                watch w = {0};
                kith_job job;
                kith_job_init(&job);
                both[b] = empty(part_specs[s], &vectors);
                const kith_view first = fixture_view(&vectors, 0, 10), rest = fixture_view(&vectors, 10, ROWS - 10);
                cr_assert_eq(kith_index_add(both[b], &first, NULL, NULL), KITH_OK);
                job.threads = 1;
                job.progress = look_on;
                job.progress_user = &w;
                if (b == 1) job.memory_bytes_max = 60000; /* 23 rows of 40 floats */
                faults_fail_allocation(0);
                kith_status status = kith_index_add(both[b], &rest, mixed ? ids + 10 : NULL, &job);
                cr_assert_eq(status, KITH_OK, "%s: %s", part_specs[s], kith_error_message());
                if (b == 0) calls = faults_allocation_count();
                if (b == 1) cr_assert_gt(faults_allocation_count(), calls);
                cr_assert_gt(w.last, 0);
                cr_assert_eq(kith_index_add(both[b], &first, NULL, NULL), KITH_OK); /* numbered on alike */
                files[b] = saved(both[b], path, &bytes[b]);
            }
            cr_assert(bytes[0] == bytes[1] && memcmp(files[0], files[1], bytes[0]) == 0, "%s", part_specs[s]);
            for (size_t b = 0; b < 2; b++) {
                free(files[b]);
                kith_index_free(both[b]);
            }
        }
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}

/* Memory, ids, values and the caller stop it between parts: nothing is left of it. */
Test(transformed, a_part_that_fails_leaves_nothing_behind) {
    faults_fail_allocation(0);
    const char *folder = faults_folder(), *path = faults_path(folder, "x");
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, ROWS, DIM, 21);
    for (size_t s = 0; s < PART_SPECS; s++) {
        kith_index *index = empty(part_specs[s], &vectors);
        kith_view first = fixture_view(&vectors, 0, 30), rest = fixture_view(&vectors, 30, 360);
        cr_assert_eq(kith_index_add(index, &first, NULL, NULL), KITH_OK);
        size_t bytes, again;
        unsigned char *before = saved(index, path, &bytes), *now;
        kith_job job;
        kith_job_init(&job);
        job.memory_bytes_max = 60000;
        job.threads = 1;
        int64_t ids[360];
        for (int64_t i = 0; i < 360; i++) ids[i] = 1000 - i;
        ids[350] = 7; /* is there, and found out about at the end */
        cr_assert_eq(kith_index_add(index, &rest, ids, &job), KITH_ERR_EXISTS, "%s", kith_error_message());
        for (size_t n = 1;; n++) {
            faults_fail_allocation(n);
            kith_status status = kith_index_add(index, &rest, NULL, &job);
            faults_fail_allocation(0);
            if (status == KITH_OK) break;
            cr_assert_eq(status, KITH_ERR_NO_MEMORY, "%s: %s", part_specs[s], kith_error_message());
            cr_assert_eq(kith_index_count(index), 30);
            if (n % 5 != 0) continue;
            now = saved(index, path, &again);
            cr_assert(again == bytes && memcmp(now, before, bytes) == 0, "%s, allocation %zu", part_specs[s], n);
            free(now);
        }
        cr_assert_eq(kith_index_count(index), 390);
        free(before);
        kith_index_free(index);
        cr_assert_eq(kith_memory_live_blocks(), 0);
    }
    /* A row that the transform leaves nothing of is named by its place in the whole addition. */
    kith_index *index;
    kith_job job;
    float *rows = calloc(ROWS, 4 * sizeof *rows);
    const kith_view view = {rows, KITH_F32, ROWS, 4, 0};
    for (size_t i = 0; i < ROWS * 4; i++) rows[i] = i == 300 * 4 || i == 300 * 4 + 1 ? 0 : 1;
    kith_job_init(&job);
    job.memory_bytes_max = 3200;
    cr_assert_eq(kith_index_create("Pad2,Flat", 4, KITH_COSINE, &index), KITH_OK);
    cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_ERR_ZERO_VECTOR);
    cr_assert_not_null(strstr(kith_error_message(), "from 300 on"), "%s", kith_error_message());
    cr_assert_eq(kith_index_count(index), 0);
    kith_index_free(index);
    free(rows);
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}
