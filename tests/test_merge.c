/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "faults.h"
#include "index_fixture.h"

enum { DIM = 24, ROWS = 700, HALF = 300, K = 9, QUERIES = 15, SHIFT = 5000 };

/* Every kind of store and base, and wrappers around them. */
static const char *const specs[] = {"Flat",       "Flat,u8",          "SQ8",
                                    "Flat,RFlat", "IVF6,SQ4,Ru8",     "PQ6,RSQ8",
                                    "RR24,Flat",  "PCA12,IVF6,SQ8",   "Centre,PCA12,IVF6,RaBitQ4,Rf16",
                                    "L2norm,SQ6", "OPQ4_16,PQ4,RFlat"};
enum { SPECS = sizeof specs / sizeof *specs };

static kith_index *make(const char *spec, kith_metric metric, const kith_view *sample) {
    kith_index *index;
    cr_assert_eq(kith_index_create(spec, DIM, metric, &index), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_train(index, sample, NULL), KITH_OK, "%s", kith_error_message());
    return index;
}

static kith_index *copy_of(const kith_index *index) {
    kith_index *copy;
    cr_assert_eq(kith_index_clone(index, &copy), KITH_OK, "%s", kith_error_message());
    return copy;
}

static void add(kith_index *index, const fixture_vectors *vectors, size_t first, size_t count, const int64_t *ids) {
    const kith_view view = fixture_view(vectors, first, count);
    cr_assert_eq(kith_index_add(index, &view, ids, NULL), KITH_OK, "%s: %s", kith_index_spec(index),
                 kith_error_message());
}

/* Both hold the same ids and vectors, and find the same. */
static void check_same(const kith_index *a, const kith_index *b, const int64_t *ids, size_t count,
                       const kith_view *queries) {
    float *rows[2];
    int64_t found[2][QUERIES * K];
    float distances[2][QUERIES * K];
    const kith_index *both[] = {a, b};
    kith_search_params params;
    kith_search_params_init(&params);
    params.nprobe = 6;
    params.k_factor = 20;
    cr_assert_eq(kith_index_count(a), kith_index_count(b));
    for (size_t i = 0; i < 2; i++) {
        rows[i] = malloc(count * DIM * sizeof(float));
        kith_status status = kith_index_reconstruct(both[i], ids, count, rows[i]);
        if (strncmp(kith_index_spec(a), "L2norm", 6) == 0)
            memset(rows[i], 0, count * DIM * sizeof(float)); /* no way back */
        else
            cr_assert_eq(status, KITH_OK, "%s: %s", kith_index_spec(a), kith_error_message());
        cr_assert_eq(kith_index_search(both[i], queries, K, &params, found[i], distances[i], NULL), KITH_OK);
    }
    cr_assert_eq(memcmp(rows[0], rows[1], count * DIM * sizeof(float)), 0, "%s", kith_index_spec(a));
    cr_assert_eq(memcmp(found[0], found[1], sizeof found[0]), 0, "%s", kith_index_spec(a));
    cr_assert_eq(memcmp(distances[0], distances[1], sizeof distances[0]), 0, "%s", kith_index_spec(a));
    free(rows[0]);
    free(rows[1]);
}

/* Ids of the second half: numbered on, or in no order. */
static void fill_ids(int64_t *ids, bool is_mixed) {
    for (int64_t i = 0; i < ROWS; i++) ids[i] = i < HALF ? i : is_mixed ? 7 * ((i * 191) % ROWS) + 3 : i - HALF;
}

Test(merge, gives_the_index_that_was_filled_at_once) {
    const char *folder = faults_folder(), *path = faults_path(folder, "x.kith");
    fixture_vectors vectors = fixture_vectors_make(KITH_U8, ROWS, DIM, 1),
                    queries = fixture_vectors_make(KITH_U8, QUERIES, DIM, 2);
    const kith_view all = fixture_view(&vectors, 0, ROWS), view = fixture_view(&queries, 0, QUERIES);
    for (size_t s = 0; s < SPECS; s++)
        for (size_t m = 0; m < 3; m++)
            for (int mixed = 0; mixed < 2; mixed++) {
                int64_t ids[ROWS];
                fill_ids(ids, mixed);
                kith_index *into = make(specs[s], fixture_metrics[m], &all), *from = copy_of(into);
                kith_index *whole = copy_of(into), *mapped;
                cr_assert_eq(kith_index_merge(into, from, 0), KITH_OK); /* nothing to nothing */
                add(into, &vectors, 0, HALF, NULL);
                add(from, &vectors, HALF, ROWS - HALF, mixed ? ids + HALF : NULL);
                cr_assert_eq(kith_index_save(from, path), KITH_OK);
                if (!mixed) cr_assert_eq(kith_index_merge(into, from, 0), KITH_ERR_EXISTS);
                cr_assert_eq(kith_index_count(into), HALF);
                cr_assert_eq(kith_index_merge(into, from, SHIFT), KITH_OK, "%s: %s", specs[s],
                             kith_error_message());
                for (size_t i = HALF; i < ROWS; i++) ids[i] += SHIFT;
                add(whole, &vectors, 0, ROWS, ids);
                check_same(into, whole, ids, ROWS, &view);
                kith_index_free(from); /* nothing of it is needed any more */
                check_same(into, whole, ids, ROWS, &view);
                /* A second time from a file, and what follows: ids numbered on, removal. */
                cr_assert_eq(kith_index_map(path, &mapped), KITH_OK, "%s", kith_error_message());
                cr_assert_eq(kith_index_merge(into, mapped, 4 * SHIFT), KITH_OK, "%s: %s", specs[s],
                             kith_error_message());
                for (size_t i = HALF; i < ROWS; i++) ids[i] += 3 * SHIFT;
                add(whole, &vectors, HALF, ROWS - HALF, ids + HALF);
                add(into, &vectors, 0, 3, NULL);
                add(whole, &vectors, 0, 3, NULL);
                size_t gone[2];
                cr_assert_eq(kith_index_remove(into, ids + 100, 350, &gone[0]), KITH_OK);
                cr_assert_eq(kith_index_remove(whole, ids + 100, 350, &gone[1]), KITH_OK);
                cr_assert(gone[0] == 350 && gone[1] == 350);
                check_same(into, whole, ids, 100, &view);
                cr_assert_eq(kith_index_merge(mapped, into, 0), KITH_ERR_READ_ONLY);
                kith_index_free(mapped);
                kith_index_free(into);
                kith_index_free(whole);
            }
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
    faults_folder_remove(folder);
}

/* Indexes trained on other rows, and those that cannot. */
Test(merge, what_does_not_belong_together_is_refused) {
    static const char *const trained[] = {"SQ4,RFlat", "Flat,RSQ8", "PCA8,Flat", "PCA8,IVF6,SQ8,RFlat",
                                          "IVF6,SQ8,RSQ4"};
    fixture_vectors one = fixture_vectors_make(KITH_F32, 300, DIM, 3),
                    two = fixture_vectors_make(KITH_F32, 300, DIM, 4);
    const kith_view first = fixture_view(&one, 0, 300), second = fixture_view(&two, 0, 300);
    for (size_t s = 0; s < sizeof trained / sizeof *trained; s++) {
        kith_index *a = make(trained[s], KITH_L2, &first), *b = make(trained[s], KITH_L2, &second);
        add(a, &one, 0, 50, NULL);
        add(b, &one, 50, 50, NULL);
        cr_assert_eq(kith_index_merge(a, b, SHIFT), KITH_ERR_ARGUMENT, "%s", trained[s]);
        cr_assert_not_null(strstr(kith_error_message(), "trained alike"), "'%s'", kith_error_message());
        cr_assert_eq(kith_index_count(a), 50);
        kith_index_free(a);
        kith_index_free(b);
    }
    static const char *const graphs[] = {"HNSW8,SQ8", "HNSW8,SQ8,RSQ4", "RR24,HNSW8,SQ4"};
    for (size_t s = 0; s < sizeof graphs / sizeof *graphs; s++) {
        kith_index *a = make(graphs[s], KITH_L2, &first), *b = copy_of(a);
        add(a, &one, 0, 50, NULL);
        add(b, &one, 50, 50, NULL);
        cr_assert_eq(kith_index_merge(a, b, SHIFT), KITH_ERR_UNSUPPORTED, "%s", graphs[s]);
        cr_assert_eq(kith_index_count(a), 50);
        kith_index_free(a);
        kith_index_free(b);
    }
    fixture_vectors_free(&one);
    fixture_vectors_free(&two);
}

/* An index that failed in between saves the bytes that it saved before. */
Test(merge, a_failed_allocation_changes_nothing) {
    faults_fail_allocation(0);
    const char *folder = faults_folder(), *path = faults_path(folder, "x.kith");
    fixture_vectors vectors = fixture_vectors_make(KITH_U8, ROWS, DIM, 5);
    const kith_view all = fixture_view(&vectors, 0, ROWS);
    for (size_t s = 0; s < SPECS; s++) {
        int64_t ids[ROWS];
        fill_ids(ids, true);
        kith_index *into = make(specs[s], KITH_COSINE, &all), *from = copy_of(into);
        add(into, &vectors, 0, HALF, NULL);
        add(from, &vectors, HALF, ROWS - HALF, ids + HALF);
        cr_assert_eq(kith_index_save(into, path), KITH_OK);
        size_t bytes, again, n = 1;
        unsigned char *before = faults_read_file(path, &bytes);
        for (;; n++) {
            faults_fail_allocation(n);
            kith_status status = kith_index_merge(into, from, SHIFT);
            faults_fail_allocation(0);
            if (status == KITH_OK) break;
            cr_assert_eq(status, KITH_ERR_NO_MEMORY, "%s: %s", specs[s], kith_error_message());
            cr_assert_eq(kith_index_save(into, path), KITH_OK);
            unsigned char *now = faults_read_file(path, &again);
            cr_assert(again == bytes && memcmp(now, before, bytes) == 0, "%s, allocation %zu", specs[s], n);
            free(now);
        }
        cr_assert_gt(n, 2);
        cr_assert_eq(kith_index_count(into), ROWS);
        free(before);
        kith_index_free(into);
        kith_index_free(from);
        cr_assert_eq(kith_memory_live_blocks(), 0);
    }
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}
