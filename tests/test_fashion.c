/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fashion.c: real vectors from their file through an index on disk to results, against neighbours that were not
 * computed by kith: tests/data/README.md.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kith/kith.h"

#ifdef KITH_HAVE_ZLIB
enum { BASE = 1000, QUERIES = 200, DIM = 784, K = 100 };

static kith_vectors *open_data(const char *name, size_t count, size_t dim, kith_dtype dtype) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/../data/%s", KITH_GOLDEN, name);
    kith_vectors *file;
    cr_assert_eq(kith_vectors_open(path, NULL, &file), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_vectors_count(file), count);
    cr_assert_eq(kith_vectors_dim(file), dim);
    cr_assert_eq((int)kith_vectors_dtype(file), (int)dtype);
    return file;
}

/* An index of the base rows, saved, and loaded or mapped again. */
static kith_index *index_through_a_file(const char *spec, const kith_view *base, int mapped) {
    char path[] = "/tmp/kith-fashion-XXXXXX";
    int file = mkstemp(path);
    cr_assert_geq(file, 0);
    (void)close(file);
    kith_index *made, *back;
    cr_assert_eq(kith_index_create(spec, DIM, KITH_L2, &made), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_add(made, base, NULL, NULL), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_save(made, path), KITH_OK, "%s", kith_error_message());
    kith_index_free(made);
    kith_status status = mapped ? kith_index_map(path, &back) : kith_index_load(path, &back);
    cr_assert_eq(status, KITH_OK, "%s", kith_error_message());
    (void)unlink(path);
    return back;
}

static void check_results(const char *spec, int mapped, size_t threads) {
    kith_vectors *base_file = open_data("fashion-base-idx3-ubyte.gz", BASE, DIM, KITH_U8);
    kith_vectors *query_file = open_data("fashion-query-idx3-ubyte.gz", QUERIES, DIM, KITH_U8);
    kith_vectors *truth_file = open_data("fashion-gt.ivecs", QUERIES, K, KITH_I32);
    kith_view base, queries, truth;
    cr_assert_eq(kith_vectors_rows(base_file, 0, BASE, &base), KITH_OK);
    cr_assert_eq(kith_vectors_rows(query_file, 0, QUERIES, &queries), KITH_OK);
    cr_assert_eq(kith_vectors_rows(truth_file, 0, QUERIES, &truth), KITH_OK);

    kith_index *index = index_through_a_file(spec, &base, mapped);
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = threads;
    int64_t *ids = malloc(QUERIES * K * sizeof *ids);
    float *distances = malloc(QUERIES * K * sizeof *distances);
    cr_assert_eq(kith_index_search(index, &queries, K, &params, ids, distances, NULL), KITH_OK, "%s",
                 kith_error_message());
    for (size_t q = 0; q < QUERIES; q++) {
        const unsigned char *row = (const unsigned char *)truth.data + q * truth.stride;
        for (size_t i = 0; i < K; i++) {
            int32_t expected;
            memcpy(&expected, row + i * sizeof expected, sizeof expected);
            cr_assert_eq(ids[q * K + i], expected, "%s: query %zu, rank %zu", spec, q, i);
            if (i > 0) cr_assert_leq(distances[q * K + i - 1], distances[q * K + i]);
        }
    }
    free(ids);
    free(distances);
    kith_index_free(index);
    kith_vectors_close(base_file);
    kith_vectors_close(query_file);
    kith_vectors_close(truth_file);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(fashion, bytes_loaded) { check_results("Flat,u8", 0, 1); }
Test(fashion, bytes_mapped_two_threads) { check_results("Flat,u8", 1, 2); }
Test(fashion, floats) { check_results("Flat", 0, 2); }
Test(fashion, half_floats_hold_bytes_exactly) { check_results("Flat,f16", 1, 1); }
#else
Test(fashion, compressed_files_need_zlib) {
    kith_vectors *file;
    cr_assert_eq(kith_vectors_open(KITH_GOLDEN "/../data/fashion-base-idx3-ubyte.gz", NULL, &file),
                 KITH_ERR_UNSUPPORTED, "%s", kith_error_message());
}
#endif
