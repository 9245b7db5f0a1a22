/* SPDX-License-Identifier: Apache-2.0 */
#include "index_fixture.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "exact/exact.h"
#include "simd/simd.h"

const kith_dtype fixture_types[5] = {KITH_F32, KITH_F16, KITH_BF16, KITH_I8, KITH_U8};
const kith_metric fixture_metrics[3] = {KITH_L2, KITH_IP, KITH_COSINE};

const char *fixture_spec(kith_dtype dtype) {
    static const char *const specs[] = {[KITH_F32] = "Flat",
                                        [KITH_F16] = "Flat,f16",
                                        [KITH_BF16] = "Flat,bf16",
                                        [KITH_I8] = "Flat,i8",
                                        [KITH_U8] = "Flat,u8"};
    return specs[dtype];
}

static float draw(kith_dtype dtype, uint64_t stream, uint64_t i) {
    if (dtype == KITH_U8) return (float)kith_random_below(5, stream, i, 41);
    if (dtype == KITH_I8) return (float)kith_random_below(5, stream, i, 41) - 20;
    return kith_random_normal(5, stream, i);
}

fixture_vectors fixture_vectors_make(kith_dtype dtype, size_t count, size_t dim, uint64_t stream) {
    size_t n = count * dim;
    fixture_vectors vectors = {dtype, count, dim, malloc(n * sizeof(float) + 1), malloc(n * sizeof(float) + 1)};
    for (size_t i = 0; i < n; i++) vectors.values[i] = draw(dtype, stream, i);
    for (size_t r = 0; r < count; r++) /* no zero vectors: cosine refuses them */
        if (vectors.values[r * dim] == 0) vectors.values[r * dim] = 1;
    for (size_t i = 0; i < n; i++) {
        if (dtype == KITH_U8) vectors.stored[i] = (unsigned char)vectors.values[i];
        if (dtype == KITH_I8) ((signed char *)vectors.stored)[i] = (signed char)vectors.values[i];
    }
    void *stored = vectors.stored;
    if (dtype == KITH_F32) memcpy(stored, vectors.values, n * sizeof(float));
    if (dtype == KITH_F16) kith_simd()->f16_from_f32(vectors.values, n, stored);
    if (dtype == KITH_BF16) kith_simd()->bf16_from_f32(vectors.values, n, stored);
    kith_exact_to_f32(stored, dtype, n, vectors.values);
    return vectors;
}

void fixture_vectors_free(fixture_vectors *vectors) {
    free(vectors->values);
    free(vectors->stored);
    *vectors = (fixture_vectors){0};
}

kith_view fixture_view(const fixture_vectors *vectors, size_t first, size_t count) {
    return (kith_view){vectors->stored + first * kith_dtype_row_bytes(vectors->dtype, vectors->dim), vectors->dtype,
                       count, vectors->dim, 0};
}

/* ---- The model ------------------------------------------------------------------------------------------ */

void fixture_model_init(fixture_model *model, size_t dim) { *model = (fixture_model){.dim = dim}; }

void fixture_model_free(fixture_model *model) {
    free(model->ids);
    free(model->values);
}

static size_t position(const fixture_model *model, int64_t id) {
    if (id >= 0 && (size_t)id < model->count && model->ids[id] == id) return (size_t)id; /* as ids mostly are */
    for (size_t i = 0; i < model->count; i++)
        if (model->ids[i] == id) return i;
    return model->count;
}

void fixture_model_put(fixture_model *model, int64_t id, const float *values) {
    size_t at = position(model, id);
    if (at == model->count && model->count == model->capacity) {
        model->capacity = 2 * model->capacity + 16;
        model->ids = realloc(model->ids, model->capacity * sizeof *model->ids);
        model->values = realloc(model->values, model->capacity * model->dim * sizeof *model->values);
    }
    model->count += at == model->count;
    model->ids[at] = id;
    memcpy(model->values + at * model->dim, values, model->dim * sizeof *values);
}

bool fixture_model_remove(fixture_model *model, int64_t id) {
    size_t at = position(model, id);
    if (at == model->count) return false;
    size_t last = --model->count;
    model->ids[at] = model->ids[last];
    memmove(model->values + at * model->dim, model->values + last * model->dim, model->dim * sizeof(float));
    return true;
}

const float *fixture_model_find(const fixture_model *model, int64_t id) {
    size_t at = position(model, id);
    return at < model->count ? model->values + at * model->dim : NULL;
}

double fixture_value(kith_metric metric, const float *a, const float *b, size_t dim) {
    double l2 = 0, ip = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < dim; i++) {
        double x = a[i], y = b[i];
        l2 += (x - y) * (x - y), ip += x * y, aa += x * x, bb += y * y;
    }
    return metric == KITH_L2 ? l2 : metric == KITH_IP ? ip : ip / sqrt(aa * bb);
}

/* ---- Comparisons ---------------------------------------------------------------------------------------- */

typedef struct truth {
    double cost; /* smaller is nearer */
    int64_t id;
} truth;

static int compare(const void *x, const void *y) {
    const truth *a = x, *b = y;
    if (a->cost != b->cost) return a->cost < b->cost ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* Costs of all entries that are allowed, nearest first. */
static size_t brute_force(kith_metric metric, const fixture_model *model, const float *query, fixture_allow allow,
                          truth *out) {
    size_t count = 0;
    double sign = metric == KITH_L2 ? 1 : -1;
    for (size_t i = 0; i < model->count; i++)
        if (allow == NULL || allow(model->ids[i]))
            out[count++] = (truth){sign * fixture_value(metric, query, model->values + i * model->dim, model->dim),
                                   model->ids[i]};
    qsort(out, count, sizeof *out, compare);
    return count;
}

/* What rounding in f32 may change: relative to the largest products that enter. */
static double tolerance(kith_metric metric, const fixture_model *model, const float *query) {
    if (metric == KITH_COSINE) return 1e-5;
    double norm2 = 0;
    for (size_t i = 0; i < model->count; i++) {
        const float *values = model->values + i * model->dim;
        norm2 = fmax(norm2, fixture_value(KITH_IP, values, values, model->dim));
    }
    return 1e-6 * (norm2 + fixture_value(KITH_IP, query, query, model->dim));
}

static bool is_exact(const kith_index *index, const fixture_vectors *queries) {
    kith_dtype dtype = kith_index_dtype(index);
    return dtype == queries->dtype && (dtype == KITH_I8 || dtype == KITH_U8) &&
           kith_index_metric(index) != KITH_COSINE;
}

/* One row of results against the truth. */
static void check_row(const kith_index *index, const fixture_model *model, const fixture_vectors *queries,
                      const float *query, const truth *all, const int64_t *ids, const float *distances,
                      size_t count, fixture_allow allow) {
    kith_metric metric = kith_index_metric(index);
    double sign = metric == KITH_L2 ? 1 : -1, slack = tolerance(metric, model, query);
    for (size_t i = 0; i < count; i++) {
        const float *values = fixture_model_find(model, ids[i]);
        cr_assert_not_null(values, "id %lld is not in the index", (long long)ids[i]);
        cr_assert(allow == NULL || allow(ids[i]), "id %lld is not allowed", (long long)ids[i]);
        double cost = sign * (double)distances[i];
        double own = sign * fixture_value(metric, query, values, model->dim);
        cr_assert_leq(fabs(cost - own), slack, "rank %zu id %lld: %g is not %g", i, (long long)ids[i], cost, own);
        cr_assert_leq(fabs(cost - all[i].cost), slack, "rank %zu: %g is not %g", i, cost, all[i].cost);
        if (is_exact(index, queries)) cr_assert_eq(ids[i], all[i].id, "rank %zu", i);
        if (i == 0) continue;
        double before = sign * (double)distances[i - 1];
        cr_assert(before < cost || (before == cost && ids[i - 1] < ids[i]), "order at rank %zu", i);
    }
}

void fixture_check_search(const kith_index *index, const fixture_model *model, const fixture_vectors *queries,
                          size_t k, const kith_search_params *params, fixture_allow allow) {
    size_t n = queries->count, dim = model->dim;
    int64_t *ids = malloc(n * k * sizeof *ids);
    float *distances = malloc(n * k * sizeof *distances);
    size_t *counts = malloc(n * sizeof *counts);
    truth *all = malloc((model->count + 1) * sizeof *all);
    kith_view view = fixture_view(queries, 0, n);
    kith_status status = kith_index_search(index, &view, k, params, ids, distances, counts);
    cr_assert_eq(status, KITH_OK, "%s", kith_error_message());
    for (size_t q = 0; q < n; q++) {
        const float *query = queries->values + q * dim;
        size_t there = brute_force(kith_index_metric(index), model, query, allow, all);
        cr_assert_eq(counts[q], there < k ? there : k, "query %zu: %zu results", q, counts[q]);
        check_row(index, model, queries, query, all, ids + q * k, distances + q * k, counts[q], allow);
        for (size_t i = counts[q]; i < k; i++) {
            cr_assert_eq(ids[q * k + i], KITH_NO_ID);
            cr_assert(isinf(distances[q * k + i]));
            cr_assert_eq(distances[q * k + i] > 0, kith_index_metric(index) == KITH_L2);
        }
    }
    free(all);
    free(counts);
    free(distances);
    free(ids);
}

void fixture_check_range(const kith_index *index, const fixture_model *model, const fixture_vectors *queries,
                         float radius, const kith_search_params *params, fixture_allow allow) {
    kith_metric metric = kith_index_metric(index);
    double sign = metric == KITH_L2 ? 1 : -1;
    truth *all = malloc((model->count + 1) * sizeof *all);
    kith_range_result *result;
    kith_view view = fixture_view(queries, 0, queries->count);
    kith_status status = kith_index_range_search(index, &view, radius, params, &result);
    cr_assert_eq(status, KITH_OK, "%s", kith_error_message());
    cr_assert_eq(result->query_count, queries->count);
    cr_assert_eq(result->limits[0], 0);
    for (size_t q = 0; q < queries->count; q++) {
        const float *query = queries->values + q * model->dim;
        size_t there = brute_force(metric, model, query, allow, all), least = 0, most = 0;
        double slack = is_exact(index, queries) ? 0 : tolerance(metric, model, query);
        for (size_t i = 0; i < there; i++) {
            least += all[i].cost <= sign * (double)radius - slack;
            most += all[i].cost <= sign * (double)radius + slack;
        }
        size_t first = result->limits[q], count = result->limits[q + 1] - first;
        cr_assert(least <= count && count <= most, "query %zu: %zu results, not %zu to %zu", q, count, least, most);
        check_row(index, model, queries, query, all, result->ids + first, result->distances + first, count, allow);
        for (size_t i = first; i < first + count; i++)
            cr_assert_leq(sign * (double)result->distances[i], sign * (double)radius);
    }
    kith_range_result_free(result);
    free(all);
}

void fixture_check_content(const kith_index *index, const fixture_model *model) {
    size_t dim = model->dim;
    float *out = malloc((model->count * dim + 1) * sizeof *out);
    cr_assert_eq(kith_index_count(index), model->count);
    kith_status status = kith_index_reconstruct(index, model->ids, model->count, out);
    cr_assert_eq(status, KITH_OK, "%s", kith_error_message());
    cr_assert_eq(model->count == 0 ? 0 : memcmp(out, model->values, model->count * dim * sizeof *out), 0,
                 "reconstruct gives other values");
    free(out);
}

kith_index *fixture_index(const char *spec, size_t count, size_t dim, kith_metric metric) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, count, dim, 3);
    kith_view view = fixture_view(&vectors, 0, count);
    kith_index *index;
    cr_assert_eq(kith_index_create(spec, dim, metric, &index), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK, "%s", kith_error_message());
    fixture_vectors_free(&vectors);
    return index;
}
