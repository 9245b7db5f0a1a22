/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index_fixture.h"
#include "ivf/ivf_inside.h"
#include "simd/simd.h"

enum { DIM = 40, ROWS = 900, QUERIES = 17, K = 60 };

static kith_index *make(const char *spec, kith_metric metric, const kith_view *rows) {
    kith_index *index;
    cr_assert_eq(kith_index_create(spec, rows->dim, metric, &index), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_train(index, rows, NULL), KITH_OK, "%s", kith_error_message());
    for (size_t first = 0, count; first < rows->count; first += count) { /* lists of several segments */
        count = kith_min_size(first < 500 ? 500 : 130, rows->count - first);
        const kith_view part = {(const char *)rows->data + first * rows->stride, rows->dtype, count, rows->dim,
                                rows->stride};
        cr_assert_eq(kith_index_add(index, &part, NULL, NULL), KITH_OK, "%s", kith_error_message());
    }
    return index;
}

/* A view with its stride, as the vtable has it. */
static kith_view strided(const fixture_vectors *vectors, size_t first, size_t count) {
    kith_view view = fixture_view(vectors, first, count);
    view.stride = kith_dtype_row_bytes(view.dtype, view.dim);
    return view;
}

typedef struct found {
    int64_t ids[QUERIES * K];
    float distances[QUERIES * K], errors[QUERIES * K];
    size_t counts[QUERIES];
} found;

static void search(const kith_index *index, const kith_view *queries, const kith_search_params *params,
                   found *out) {
    kith_arena arena = {0};
    kith_meter meter;
    kith_meter_init(&meter, NULL, NULL, "search", 0);
    cr_assert_eq(kith_arena_begin(&arena), KITH_OK);
    const kith_search_request request = {.queries = *queries,
                                         .k = K,
                                         .threads = 2,
                                         .params = params,
                                         .filter = params->filter,
                                         .meter = &meter,
                                         .arena = &arena};
    const kith_search_results results = {
        .k = K, .ids = out->ids, .distances = out->distances, .counts = out->counts, .errors = out->errors};
    cr_assert_eq(index->vtable->search(index, &request, &results), KITH_OK, "%s", kith_error_message());
    kith_arena_free(&arena);
}

/* The error that the code states for a row, found by its id. */
static float expected_error(const kith_index *index, const float *query, int64_t id) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    const kith_code *code = ivf->code;
    kith_arena arena = {0};
    float vector[DIM], *projected;
    void *prepared;
    unsigned char *row;
    uint64_t place;
    const kith_view view = {query, KITH_F32, 1, DIM, DIM * sizeof *query};
    kith_ivf_row(index->metric, &view, 0, vector);
    cr_assert_eq(kith_arena_begin(&arena), KITH_OK);
    cr_assert_eq(kith_arena_take(&arena, code->projected_dim, sizeof *projected, &projected), KITH_OK);
    cr_assert_eq(kith_arena_take(&arena, 1, code->query_bytes, &prepared), KITH_OK);
    cr_assert_eq(kith_arena_take(&arena, 1, code->code_bytes, &row), KITH_OK);
    cr_assert_eq(kith_code_project(code, vector, 1, 1, &arena, projected), KITH_OK);
    code->vtable->prepare(code, projected, prepared);
    cr_assert_eq(kith_ivf_find(ivf, &id, 1, &place), KITH_OK);
    cr_assert_neq(place, KITH_IVF_NO_PLACE);
    size_t l = kith_place_list(ivf, place), lane;
    const unsigned char *block =
        kith_list_block(code, kith_ivf_list(ivf, l), kith_place_position(ivf, place), &lane);
    code->vtable->unpack(code, block, lane, row);
    double norm2 = 0;
    for (size_t d = 0; d < code->projected_dim; d++) {
        double c = ivf->by_residual ? (double)ivf->projected[l * code->projected_dim + d] : 0;
        norm2 += ((double)projected[d] - c) * ((double)projected[d] - c);
    }
    float error = code->vtable->error(code, prepared, (float)sqrt(norm2), row);
    kith_arena_free(&arena);
    return error;
}

Test(refine_errors, each_distance_has_the_error_of_its_own_code) {
    static const char *const specs[] = {"IVF7,RaBitQ4", "IVF7d,RaBitQ2", "RaBitQ1", "IVF30,RaBitQ8"};
    fixture_vectors base = fixture_vectors_make(KITH_F32, ROWS, DIM, 1);
    fixture_vectors queries = fixture_vectors_make(KITH_F32, QUERIES, DIM, 2);
    const kith_view rows = strided(&base, 0, ROWS), view = strided(&queries, 0, QUERIES);
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++)
        for (size_t m = 0; m < 3; m++)
            for (uint64_t bound = 0; bound <= 211; bound += 211) {
                kith_index *index = make(specs[s], fixture_metrics[m], &rows);
                kith_search_params params;
                kith_search_params_init(&params);
                params.nprobe = 5;
                params.max_distances = bound;
                found *all = malloc(sizeof *all), *one = malloc(sizeof *one);
                cr_assert(index->vtable->bounds_errors(index));
                search(index, &view, &params, all);
                for (size_t q = 0; q < QUERIES; q++) {
                    cr_assert_eq(all->counts[q], K);
                    for (size_t i = 0; i < K; i++) {
                        size_t at = q * K + i;
                        float expected = expected_error(index, queries.values + q * DIM, all->ids[at]);
                        cr_assert_float_eq(all->errors[at], expected, 1e-4f * expected + 1e-6f,
                                           "%s, %s: %g is not %g", specs[s], kith_metric_name(fixture_metrics[m]),
                                           (double)all->errors[at], (double)expected);
                    }
                    const kith_view alone = strided(&queries, q, 1);
                    search(index, &alone, &params, one);
                    cr_assert_eq(memcmp(one->ids, all->ids + q * K, K * sizeof *one->ids), 0);
                    cr_assert_eq(memcmp(one->errors, all->errors + q * K, K * sizeof *one->errors), 0);
                }
                free(all);
                free(one);
                kith_index_free(index);
            }
    fixture_vectors_free(&base);
    fixture_vectors_free(&queries);
}

static size_t recalled(const int64_t *ids, const int64_t *truth, size_t k) {
    size_t found_count = 0;
    for (size_t q = 0; q < QUERIES; q++)
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < k; j++) found_count += ids[q * k + i] == truth[q * k + j];
    return found_count;
}

/* The whole error loses next to nothing, a hundred times as much nothing at all, and none of it what lies behind the
 * first: recall falls to what the base alone has. */
Test(refine_errors, the_error_decides_what_is_compared) {
    static const char *const specs[] = {"IVF7,RaBitQ2,RFlat", "RR40,RaBitQ1,RFlat", "IVF7,RaBitQ4,RSQ8"};
    enum { FEW = 10 };
    fixture_vectors base = fixture_vectors_make(KITH_F32, ROWS, DIM, 3);
    fixture_vectors queries = fixture_vectors_make(KITH_F32, QUERIES, DIM, 4);
    const kith_view rows = strided(&base, 0, ROWS), view = strided(&queries, 0, QUERIES);
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++)
        for (size_t m = 0; m < 3; m++) {
            kith_index *index = make(specs[s], fixture_metrics[m], &rows);
            int64_t all[QUERIES * FEW], wide[QUERIES * FEW], stated[QUERIES * FEW], little[QUERIES * FEW];
            kith_search_params params;
            kith_search_params_init(&params);
            params.nprobe = 7;
            params.k_factor = 30;
            cr_assert_eq(kith_index_search(index, &view, FEW, &params, all, NULL, NULL), KITH_OK);
            cr_assert_eq(kith_search_params_set(&params, index, "error_percent", "10000"), KITH_OK);
            cr_assert_eq(kith_index_search(index, &view, FEW, &params, wide, NULL, NULL), KITH_OK);
            cr_assert_eq(memcmp(all, wide, sizeof all), 0, "%s", specs[s]);
            params.error_percent = 100;
            cr_assert_eq(kith_index_search(index, &view, FEW, &params, stated, NULL, NULL), KITH_OK);
            size_t kept = recalled(stated, all, FEW);
            cr_assert_geq(kept, QUERIES * FEW * 97 / 100, "%s, %s: %zu", specs[s],
                          kith_metric_name(fixture_metrics[m]), kept);
            params.error_percent = 1;
            cr_assert_eq(kith_index_search(index, &view, FEW, &params, little, NULL, NULL), KITH_OK);
            if (s < 2) cr_assert_lt(recalled(little, all, FEW), kept, "%s", specs[s]);
            kith_index_free(index);
        }
    fixture_vectors_free(&base);
    fixture_vectors_free(&queries);
}

/* The parameter is there where it does something. */
Test(refine_errors, only_bases_that_know_their_error_have_the_parameter) {
    static const struct {
        const char *spec;
        bool has;
    } cases[] = {{"IVF7,RaBitQ4,RFlat", true},      {"RaBitQ,Rf16", true},
                 {"HR64,IVF7,RaBitQ2,RFlat", true}, {"PCA8,IVF7,RaBitQ4,RFlat", false},
                 {"IVF7,SQ8,RFlat", false},         {"Flat,RFlat", false},
                 {"IVF7,RaBitQ4", false},           {"Line64,RFlat", false}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        kith_index *index;
        kith_search_params params;
        kith_search_params_init(&params);
        cr_assert_eq(kith_index_create(cases[c].spec, DIM, KITH_L2, &index), KITH_OK, "%s", kith_error_message());
        cr_assert_eq(kith_search_params_set(&params, index, "error_percent", "50"),
                     cases[c].has ? KITH_OK : KITH_ERR_NOT_FOUND, "%s", cases[c].spec);
        kith_index_free(index);
    }
}
