/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "faults.h"
#include "index_fixture.h"

enum { DIM = 24, ROWS = 400, QUERIES = 11, K = 7 };

static void write_vectors(const char *path, const kith_view *rows) {
    kith_vectors_writer *writer;
    cr_assert_eq(kith_vectors_writer_create(path, KITH_FORMAT_AUTO, rows->dtype, rows->dim, &writer), KITH_OK, "%s",
                 kith_error_message());
    cr_assert_eq(kith_vectors_writer_append(writer, rows), KITH_OK);
    cr_assert_eq(kith_vectors_writer_commit(writer), KITH_OK, "%s", kith_error_message());
}

static kith_index *make(const char *spec, kith_metric metric, const kith_view *sample) {
    kith_index *index;
    cr_assert_eq(kith_index_create(spec, DIM, metric, &index), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_train(index, sample, NULL), KITH_OK, "%s", kith_error_message());
    return index;
}

typedef struct answer {
    int64_t ids[QUERIES * K];
    float distances[QUERIES * K];
    size_t counts[QUERIES];
} answer;

static answer ask(const kith_index *index, const kith_view *queries) {
    answer a;
    kith_search_params params;
    kith_search_params_init(&params);
    params.k_factor = 6;
    params.threads = 3;
    cr_assert_eq(kith_index_search(index, queries, K, &params, a.ids, a.distances, a.counts), KITH_OK, "%s",
                 kith_error_message());
    return a;
}

static void check_same(const kith_index *a, const kith_index *b, const kith_view *queries, const char *what) {
    answer x = ask(a, queries), y = ask(b, queries);
    bool same = memcmp(x.ids, y.ids, sizeof x.ids) == 0 && memcmp(x.counts, y.counts, sizeof x.counts) == 0 &&
                memcmp(x.distances, y.distances, sizeof x.distances) == 0;
    cr_assert(same, "%s: %s, %s", what, kith_index_spec(a), kith_metric_name(kith_index_metric(a)));
}

/* Every type in every format, against the same refinement by vectors in memory: the same bits. */
Test(filerows, give_what_vectors_in_memory_give) {
    static const struct {
        kith_dtype dtype;
        const char *name, *store;
    } files[] = {{KITH_F32, "a.fvecs", "Flat"}, {KITH_F32, "a.fbin", "Flat"}, {KITH_F32, "a.npy", "Flat"},
                 {KITH_F16, "b.npy", "f16"},    {KITH_U8, "a.bvecs", "u8"},   {KITH_U8, "a.u8bin", "u8"},
                 {KITH_I8, "a.i8bin", "i8"}};
    static const char *const bases[] = {"SQ4", "PCA12,IVF5,SQ6", "IVF5,RaBitQ2", "HNSW8,SQ8"};
    const char *folder = faults_folder();
    for (size_t f = 0; f < sizeof files / sizeof *files; f++)
        for (size_t b = 0; b < sizeof bases / sizeof *bases; b++) {
            kith_metric metric = fixture_metrics[(f + b) % 3];
            fixture_vectors vectors = fixture_vectors_make(files[f].dtype, ROWS, DIM, 1);
            fixture_vectors queries = fixture_vectors_make(files[f].dtype, QUERIES, DIM, 2);
            const kith_view all = fixture_view(&vectors, 0, ROWS), view = fixture_view(&queries, 0, QUERIES);
            const kith_view first = fixture_view(&vectors, 0, 250), rest = fixture_view(&vectors, 250, 150);
            const char *path = faults_path(folder, files[f].name), *saved = faults_path(folder, "x.kith");
            char spec[64], plain[64];
            write_vectors(path, &all);
            (void)snprintf(spec, sizeof spec, "%s,RFile", bases[b]);
            (void)snprintf(plain, sizeof plain, "%s,R%s", bases[b], files[f].store);
            kith_index *by_file = make(spec, metric, &all), *in_memory = make(plain, metric, &all), *others[3];
            cr_assert_str_eq(kith_index_spec(by_file), spec);
            cr_assert(kith_index_wants_vectors(by_file) && !kith_index_wants_vectors(in_memory));
            cr_assert_eq(kith_index_add(by_file, &first, NULL, NULL), KITH_ERR_NOT_FOUND);
            cr_assert_eq(kith_index_attach_vectors(by_file, path), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_index_add(by_file, &first, NULL, NULL), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_index_add(by_file, &rest, NULL, NULL), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_index_add(in_memory, &first, NULL, NULL), KITH_OK);
            cr_assert_eq(kith_index_add(in_memory, &rest, NULL, NULL), KITH_OK);
            check_same(by_file, in_memory, &view, files[f].name);
            int64_t gone[50];
            size_t removed;
            for (int64_t i = 0; i < 50; i++) gone[i] = 5 * i + 3;
            if (b < 3) { /* a graph only grows */
                cr_assert_eq(kith_index_remove(by_file, gone, 50, &removed), KITH_OK, "%s", kith_error_message());
                cr_assert(removed == 50 && kith_index_count(by_file) == ROWS - 50);
                cr_assert_eq(kith_index_remove(in_memory, gone, 50, NULL), KITH_OK);
                check_same(by_file, in_memory, &view, "after removal");
            }
            float rows[2][2 * DIM];
            cr_assert_eq(kith_index_reconstruct(by_file, (int64_t[]){399, 0}, 2, rows[0]), KITH_OK);
            cr_assert_eq(kith_index_reconstruct(in_memory, (int64_t[]){399, 0}, 2, rows[1]), KITH_OK);
            cr_assert_eq(memcmp(rows[0], rows[1], sizeof rows[0]), 0);
            cr_assert_eq(kith_index_save(by_file, saved), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_file_verify(saved), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_index_load(saved, &others[0]), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_index_map(saved, &others[1]), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_index_clone(by_file, &others[2]), KITH_OK, "%s", kith_error_message());
            for (size_t i = 0; i < 3; i++) {
                answer a;
                if (i < 2) /* a file names no vectors */
                    cr_assert_eq(kith_index_search(others[i], &view, K, NULL, a.ids, NULL, a.counts),
                                 KITH_ERR_NOT_FOUND);
                if (i < 2)
                    cr_assert_eq(kith_index_attach_vectors(others[i], path), KITH_OK, "%s", kith_error_message());
                check_same(others[i], in_memory, &view, "a copy");
                kith_index_free(others[i]);
            }
            kith_index_free(by_file);
            kith_index_free(in_memory);
            fixture_vectors_free(&vectors);
            fixture_vectors_free(&queries);
        }
    faults_folder_remove(folder);
}

/* Files that are not the ones; additions that are not their rows; changes that cannot be. */
Test(filerows, what_does_not_fit_is_refused) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.fvecs"), *saved = faults_path(folder, "x");
    const char *other = faults_path(folder, "b.fvecs"), *narrow = faults_path(folder, "c.fvecs");
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, ROWS, DIM, 3),
                    thin = fixture_vectors_make(KITH_F32, 9, 5, 4);
    kith_view all = fixture_view(&vectors, 0, ROWS), some = fixture_view(&vectors, 0, 100);
    const kith_view wrong = fixture_view(&vectors, 1, 100), small = fixture_view(&thin, 0, 9);
    write_vectors(path, &all);
    write_vectors(narrow, &small);
    kith_index *index = make("SQ8,RFile", KITH_L2, &all), *plain = make("SQ8,RFlat", KITH_L2, &all), *loaded;
    cr_assert_eq(kith_index_attach_vectors(index, faults_path(folder, "none.fvecs")), KITH_ERR_IO);
    cr_assert_eq(kith_index_attach_vectors(index, narrow), KITH_ERR_DIMENSION, "%s", kith_error_message());
    cr_assert_eq(kith_index_attach_vectors(plain, path), KITH_ERR_UNSUPPORTED);
    cr_assert_eq(kith_index_attach_vectors(index, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_attach_vectors(index, path), KITH_OK);
    cr_assert_eq(kith_index_add(index, &wrong, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "is not row 0"), "%s", kith_error_message());
    int64_t ids[100];
    for (int64_t i = 0; i < 100; i++) ids[i] = ROWS - 50 + i;
    cr_assert_eq(kith_index_add(index, &some, ids, NULL), KITH_ERR_ARGUMENT); /* not those rows */
    const kith_view last = fixture_view(&vectors, ROWS - 50, 50);
    for (int64_t i = 0; i < 50; i++) ids[i] = ROWS - 50 + i;
    cr_assert_eq(kith_index_add(index, &last, ids, NULL), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_add(index, &last, NULL, NULL), KITH_ERR_RANGE, "%s", kith_error_message());
    cr_assert_eq(kith_index_add(index, &last, ids, NULL), KITH_ERR_EXISTS, "%s", kith_error_message());
    cr_assert_eq(kith_index_count(index), 50);
    const kith_view one = fixture_view(&vectors, 3, 1);
    cr_assert_eq(kith_index_update(index, &one, ids), KITH_ERR_READ_ONLY);
    float row[DIM];
    cr_assert_eq(kith_index_reconstruct(index, (int64_t[]){ROWS}, 1, row), KITH_ERR_NOT_FOUND);
    cr_assert_eq(kith_index_save(index, saved), KITH_OK);
    /* A row changed, a row more, another type: not the file that it was. The one before stays. */
    vectors.values[DIM * (ROWS - 1)] += 1; /* the last row is always looked at */
    memcpy(vectors.stored, vectors.values, ROWS * DIM * sizeof(float));
    write_vectors(other, &all);
    cr_assert_eq(kith_index_attach_vectors(index, other), KITH_ERR_FORMAT);
    cr_assert_not_null(strstr(kith_error_message(), "other rows"), "%s", kith_error_message());
    some.count = 399;
    write_vectors(other, &some);
    cr_assert_eq(kith_index_attach_vectors(index, other), KITH_ERR_FORMAT);
    int64_t found;
    size_t count;
    cr_assert_eq(kith_index_search(index, &one, 1, NULL, &found, NULL, &count), KITH_OK);
    cr_assert_eq(kith_index_load(saved, &loaded), KITH_OK);
    cr_assert_eq(kith_index_attach_vectors(loaded, other), KITH_ERR_FORMAT);
    cr_assert_eq(kith_index_attach_vectors(loaded, path), KITH_OK, "%s", kith_error_message());
    kith_index *copy;
    cr_assert_eq(kith_index_clone(loaded, &copy), KITH_OK);
    cr_assert_eq(kith_index_reset(copy), KITH_OK);
    cr_assert_eq(kith_index_merge(copy, loaded, 0), KITH_ERR_UNSUPPORTED);
    kith_index_free(copy);
    kith_index_free(loaded);
    kith_index_free(index);
    kith_index_free(plain);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&thin);
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(filerows, a_failed_allocation_changes_nothing) {
    faults_fail_allocation(0);
    const char *folder = faults_folder(), *path = faults_path(folder, "a.bvecs");
    fixture_vectors vectors = fixture_vectors_make(KITH_U8, ROWS, DIM, 5);
    const kith_view all = fixture_view(&vectors, 0, ROWS), view = fixture_view(&vectors, 7, QUERIES);
    write_vectors(path, &all);
    kith_index *index = make("IVF5,SQ4,RFile", KITH_COSINE, &all), *copy;
    answer a;
    for (int which = 0; which < 4; which++)
        for (size_t n = 1;; n++) {
            kith_status status;
            faults_fail_allocation(n);
            if (which == 0) status = kith_index_attach_vectors(index, path);
            if (which == 1) status = kith_index_add(index, &all, NULL, NULL);
            if (which == 2) status = kith_index_clone(index, &copy);
            if (which == 3) status = kith_index_search(index, &view, K, NULL, a.ids, a.distances, a.counts);
            bool reached = faults_allocation_count() >= n;
            faults_fail_allocation(0);
            if (status == KITH_OK && which == 2) kith_index_free(copy);
            if (status == KITH_OK && !reached) break;
            if (status == KITH_OK) continue; /* not needed after all */
            cr_assert_eq(status, KITH_ERR_NO_MEMORY, "%s", kith_error_message());
            cr_assert_eq(kith_index_count(index), which < 2 ? 0 : ROWS);
        }
    for (size_t q = 0; q < QUERIES; q++) cr_assert_eq(a.ids[q * K], (int64_t)(7 + q));
    kith_index_free(index);
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
