/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "faults.h"
#include "index_fixture.h"

enum { DIM = 24 };

static kith_index *make(const char *spec, kith_metric metric, const kith_view *rows) {
    kith_index *index;
    cr_assert_eq(kith_index_create(spec, rows->dim, metric, &index), KITH_OK, "%s", kith_error_message());
    if (!kith_index_is_trained(index))
        cr_assert_eq(kith_index_train(index, rows, NULL), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_add(index, rows, NULL, NULL), KITH_OK, "%s", kith_error_message());
    return index;
}

static kith_range_result *ask(const kith_index *index, const kith_view *queries, float radius,
                              const kith_search_params *params) {
    kith_range_result *result;
    kith_status status = kith_index_range_search(index, queries, radius, params, &result);
    cr_assert_eq(status, KITH_OK, "%s: %s", kith_index_spec(index), kith_error_message());
    return result;
}

static bool same(const kith_range_result *a, const kith_range_result *b) {
    size_t total = a->limits[a->query_count];
    return a->query_count == b->query_count &&
           memcmp(a->limits, b->limits, (a->query_count + 1) * sizeof *a->limits) == 0 &&
           memcmp(a->ids, b->ids, total * sizeof *a->ids) == 0 &&
           memcmp(a->distances, b->distances, total * sizeof *a->distances) == 0;
}

/* The value of the n-th neighbour of the first query: a radius with about so many hits. */
static float radius_of(const kith_index *flat, const kith_view *queries, size_t n) {
    int64_t *ids = malloc(n * sizeof *ids);
    float *distances = malloc(n * sizeof *distances), radius;
    const kith_view one = {queries->data, queries->dtype, 1, queries->dim, 0};
    cr_assert_eq(kith_index_search(flat, &one, n, NULL, ids, distances, NULL), KITH_OK);
    radius = distances[n - 1];
    free(ids);
    free(distances);
    return radius;
}

static bool is_odd(int64_t id) { return id % 2 != 0; }
static int allow_odd(void *user, int64_t id) {
    (void)user;
    return is_odd(id);
}

/* What a base leaves out of its candidates alone is missing: nothing, where the base is exact. */
Test(refine_range, an_exact_base_gives_what_flat_gives_bit_for_bit) {
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++) {
            kith_dtype dtype = fixture_types[t];
            static const char *const stores[] = {[KITH_F32] = "Flat,RFlat",
                                                 [KITH_F16] = "Flat,f16,Rf16",
                                                 [KITH_BF16] = "Flat,bf16,Rbf16",
                                                 [KITH_I8] = "Flat,i8,Ri8",
                                                 [KITH_U8] = "Flat,u8,Ru8"};
            fixture_vectors base = fixture_vectors_make(dtype, 900, DIM, 1);
            fixture_vectors queries = fixture_vectors_make(dtype, 9, DIM, 2);
            const kith_view rows = fixture_view(&base, 0, base.count), view = fixture_view(&queries, 0, 9);
            kith_index *flat = make(fixture_spec(dtype), fixture_metrics[m], &rows);
            kith_index *refined = make(stores[dtype], fixture_metrics[m], &rows);
            static const size_t hits[] = {1, 30, 64, 300, 899};
            for (size_t h = 0; h < 5; h++) {
                kith_search_params params;
                kith_search_params_init(&params);
                params.k_factor = 1 + h % 3; /* hits up to the last candidate, and none to spare */
                float radius = radius_of(flat, &view, hits[h]);
                kith_range_result *expected = ask(flat, &view, radius, NULL);
                kith_range_result *got = ask(refined, &view, radius, &params);
                cr_assert(same(expected, got), "%s, %s, %zu hits", stores[dtype],
                          kith_metric_name(fixture_metrics[m]), hits[h]);
                kith_range_result_free(got);
                params.threads = 4;
                got = ask(refined, &view, radius, &params);
                cr_assert(same(expected, got));
                kith_range_result_free(got);
                for (size_t q = 0; q < view.count; q++) { /* a query alone */
                    const kith_view one = fixture_view(&queries, q, 1);
                    size_t first = expected->limits[q], count = expected->limits[q + 1] - first;
                    got = ask(refined, &one, radius, &params);
                    cr_assert_eq(got->limits[1], count);
                    for (size_t i = 0; i < count; i++) cr_assert_eq(got->ids[i], expected->ids[first + i]);
                    kith_range_result_free(got);
                }
                kith_range_result_free(expected);
            }
            kith_index_free(flat);
            kith_index_free(refined);
            fixture_vectors_free(&base);
            fixture_vectors_free(&queries);
        }
}

/* Everything, nothing, and a filter. */
Test(refine_range, edges_of_the_radius_and_filters) {
    fixture_vectors base = fixture_vectors_make(KITH_U8, 500, DIM, 5),
                    queries = fixture_vectors_make(KITH_U8, 8, DIM, 6);
    const kith_view rows = fixture_view(&base, 0, base.count), view = fixture_view(&queries, 0, queries.count);
    fixture_model model;
    fixture_model_init(&model, DIM);
    for (size_t i = 0; i < base.count; i++) fixture_model_put(&model, (int64_t)i, base.values + i * DIM);
    kith_search_params params;
    kith_search_params_init(&params);
    for (size_t m = 0; m < 3; m++) {
        kith_index *refined = make("Flat,Ru8", fixture_metrics[m], &rows);
        float sign = fixture_metrics[m] == KITH_L2 ? 1 : -1;
        kith_range_result *all = ask(refined, &view, sign * INFINITY, NULL);
        cr_assert_eq(all->limits[view.count], view.count * base.count);
        kith_range_result_free(all);
        kith_range_result *none = ask(refined, &view, -sign * INFINITY, NULL);
        cr_assert_eq(none->limits[view.count], 0);
        kith_range_result_free(none);
        float radius = radius_of(refined, &view, 100);
        fixture_check_range(refined, &model, &queries, radius, NULL, NULL);
        cr_assert_eq(kith_filter_callback(allow_odd, NULL, (kith_filter **)&params.filter), KITH_OK);
        fixture_check_range(refined, &model, &queries, radius, &params, is_odd);
        fixture_check_range(refined, &model, &queries, sign * INFINITY, &params, is_odd);
        kith_filter_free((kith_filter *)(uintptr_t)params.filter);
        params.filter = NULL;
        kith_index_free(refined);
    }
    fixture_model_free(&model);
    fixture_vectors_free(&base);
    fixture_vectors_free(&queries);
}

/* The hits of a search for so many nearest with the same factor are found: on a scale of the base's own (L2norm, a
 * transform that whitens), behind codes of few bits, and where the radius is 0. */
Test(refine_range, finds_what_a_search_for_as_many_finds) {
    static const char *const specs[] = {"PQ6,RFlat",        "SQ2,RFlat",        "IVF8,RaBitQ2,RFlat",
                                        "PCAW8,Flat,RFlat", "L2norm,SQ8,RFlat", "PCA12,IVF8,SQ6,Rf16",
                                        "HNSW16,SQ8,RFlat", "IVF8,SQ8,RSQ8"};
    fixture_vectors base = fixture_vectors_make(KITH_F32, 1500, DIM, 7);
    const kith_view rows = fixture_view(&base, 0, base.count), view = fixture_view(&base, 40, 12);
    kith_search_params params;
    kith_search_params_init(&params);
    params.nprobe = 8;
    params.k_factor = 6;
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++)
        for (size_t m = 0; m < 3; m++) {
            kith_index *refined = make(specs[s], fixture_metrics[m], &rows);
            for (size_t n = 1; n <= 150; n *= 12) {
                enum { MOST = 150 };
                int64_t ids[12 * MOST];
                float distances[12 * MOST];
                cr_assert_eq(kith_index_search(refined, &view, n, &params, ids, distances, NULL), KITH_OK);
                for (size_t q = 0; q < view.count; q++) {
                    const kith_view one = fixture_view(&base, 40 + q, 1);
                    kith_range_result *got = ask(refined, &one, distances[q * n + n - 1], &params);
                    cr_assert_geq(got->limits[1], n, "%s, %s, %zu hits", specs[s],
                                  kith_metric_name(fixture_metrics[m]), n);
                    size_t found = 0;
                    for (size_t i = 0; i < n; i++)
                        for (size_t j = 0; j < got->limits[1]; j++) found += got->ids[j] == ids[q * n + i];
                    cr_assert_eq(found, n, "%s, %s: %zu of %zu", specs[s], kith_metric_name(fixture_metrics[m]),
                                 found, n);
                    kith_range_result_free(got);
                }
            }
            kith_index_free(refined);
        }
    fixture_vectors_free(&base);
}

Test(refine_range, a_failed_allocation_leaks_nothing) {
    faults_fail_allocation(0);
    fixture_vectors base = fixture_vectors_make(KITH_F32, 400, DIM, 8);
    const kith_view rows = fixture_view(&base, 0, base.count), view = fixture_view(&base, 3, 3);
    kith_index *refined = make("PCA8,SQ8,RFlat", KITH_L2, &rows);
    float radius = radius_of(refined, &view, 200); /* several rounds */
    kith_range_result *result = NULL;
    size_t n = 1;
    for (;; n++) {
        faults_fail_allocation(n);
        kith_status status = kith_index_range_search(refined, &view, radius, NULL, &result);
        faults_fail_allocation(0);
        if (status == KITH_OK) break;
        cr_assert_eq(status, KITH_ERR_NO_MEMORY, "%s", kith_error_message());
        cr_assert_null(result);
    }
    cr_assert_gt(n, 5);
    cr_assert_gt(result->limits[3], 200);
    kith_range_result_free(result);
    kith_index_free(refined);
    fixture_vectors_free(&base);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
