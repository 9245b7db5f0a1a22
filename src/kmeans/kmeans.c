/* SPDX-License-Identifier: Apache-2.0
 *
 * kmeans.c: the public calls: checks, the sample, the mean, and the report.
 */
#include "kith/kmeans.h"

#include <math.h>
#include <string.h>

#include "base/bitset.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/random.h"
#include "exact/check.h"
#include "exact/exact.h"
#include "kmeans/kmeans_inside.h"
#include "simd/simd.h"

enum { STREAM_SAMPLE = 0x73616d70, TWO_LEVELS_FROM = 65536, BLOCK_ROWS = 1024 };

void kith_kmeans_options_init(kith_kmeans_options *options) {
    *options = (kith_kmeans_options){.size = sizeof *options,
                                     .iterations = 25,
                                     .runs = 1,
                                     .seeding = KITH_SEEDING_RANDOM,
                                     .points_per_centroid_max = 256};
}

kith_status kith_kmeans_check_options(const kith_kmeans_options *options, size_t point_count, size_t k) {
    if (k < 1 || k > point_count)
        return kith_error(KITH_ERR_ARGUMENT, "k-means: k = %zu is outside 1..%zu, the number of points", k,
                          point_count);
    if (options->iterations < 1 || options->iterations > 10000)
        return kith_error(KITH_ERR_ARGUMENT, "k-means: iterations = %zu is outside 1..10000", options->iterations);
    if (options->runs < 1 || options->runs > 100)
        return kith_error(KITH_ERR_ARGUMENT, "k-means: runs = %zu is outside 1..100", options->runs);
    if (options->seeding < KITH_SEEDING_RANDOM || options->seeding > KITH_SEEDING_GIVEN)
        return kith_error(KITH_ERR_ARGUMENT, "k-means: seeding %d is not known", (int)options->seeding);
    if ((options->seeding == KITH_SEEDING_GIVEN) != (options->initial != NULL))
        return kith_error(KITH_ERR_ARGUMENT, "k-means: initial centroids go with KITH_SEEDING_GIVEN");
    if (!(options->balance_max == 0 || options->balance_max > 1))
        return kith_error(KITH_ERR_ARGUMENT, "k-means: balance_max = %g, must be 0 or more than 1",
                          options->balance_max);
    if (options->levels > 2)
        return kith_error(KITH_ERR_ARGUMENT, "k-means: levels = %zu is outside 0..2", options->levels);
    if (options->levels == 2 && options->seeding == KITH_SEEDING_GIVEN)
        return kith_error(KITH_ERR_ARGUMENT, "k-means: initial centroids do not go with two levels");
    return KITH_OK;
}

static kith_status check_weights(const float *weights, size_t count) {
    if (weights == NULL) return KITH_OK;
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        if (!(weights[i] >= 0) || isinf(weights[i]))
            return kith_error(KITH_ERR_ARGUMENT, "k-means: weight %zu is %g", i, (double)weights[i]);
        sum += (double)weights[i];
    }
    return sum > 0 ? KITH_OK : kith_error(KITH_ERR_ARGUMENT, "k-means: all weights are 0");
}

kith_status kith_kmeans_check_initial(const float *initial, size_t k, size_t dim) {
    if (initial == NULL) return KITH_OK;
    kith_view view = {.data = initial, .dtype = KITH_F32, .count = k, .dim = dim};
    return kith_check_vectors("k-means: initial centroids", &view, 0, KITH_L2, 1);
}

/* ---- The sample --------------------------------------------------------------------------------------------- */

typedef struct sample {
    const kith_view *source;
    size_t stride;
    const uint32_t *chosen; /* NULL: all */
    size_t count;
    float *rows, *weights;
    double *block_sums; /* blocks x dim */
    float *mean;
    float *initial; /* less the mean */
} sample;

static kith_status take_block(void *context, size_t block, size_t worker) {
    const sample *s = context;
    (void)worker;
    size_t dim = s->source->dim, first = block * BLOCK_ROWS, last = kith_min_size(first + BLOCK_ROWS, s->count);
    double *sums = s->block_sums + block * dim;
    memset(sums, 0, dim * sizeof *sums);
    for (size_t i = first; i < last; i++) {
        size_t from = s->chosen != NULL ? s->chosen[i] : i;
        float *row = s->rows + i * dim;
        kith_exact_to_f32((const char *)s->source->data + from * s->stride, s->source->dtype, dim, row);
        kith_simd()->matrix.accumulate(sums, row, dim);
    }
    return KITH_OK;
}

static kith_status centre_block(void *context, size_t block, size_t worker) {
    const sample *s = context;
    (void)worker;
    size_t dim = s->source->dim, first = block * BLOCK_ROWS, last = kith_min_size(first + BLOCK_ROWS, s->count);
    for (size_t i = first; i < last; i++)
        for (size_t j = 0; j < dim; j++) s->rows[i * dim + j] -= s->mean[j];
    return KITH_OK;
}

static void sample_free(sample *s) {
    kith_free((void *)(uintptr_t)s->chosen);
    kith_free(s->rows);
    kith_free(s->weights);
    kith_free(s->block_sums);
    kith_free(s->mean);
    kith_free(s->initial);
}

/* A random choice of s->count points, in rising order: the file or the memory is then read forwards. */
static kith_status choose(sample *s, uint64_t seed) {
    size_t n = s->source->count, count = 0;
    uint32_t *order = NULL;
    uint64_t *is_chosen = NULL;
    kith_status status;
    KITH_GO(kith_alloc(n, sizeof *order, &order));
    KITH_GO(kith_alloc_zeroed(kith_bitset_words(n), sizeof *is_chosen, &is_chosen));
    kith_random_permutation(seed, STREAM_SAMPLE, n, order);
    for (size_t i = 0; i < s->count; i++) kith_bitset_set(is_chosen, order[i]);
    for (size_t i = 0; i < n; i++)
        if (kith_bitset_get(is_chosen, i)) order[count++] = (uint32_t)i;
    s->chosen = order;
    order = NULL;
done:
    kith_free(order);
    kith_free(is_chosen);
    return status;
}

/* On failure too the caller frees what is there. */
static kith_status sample_take(sample *s, const kith_view *points, size_t k, const kith_kmeans_options *options,
                               const kith_job *job) {
    size_t dim = points->dim, wanted = points->count, per = options->points_per_centroid_max;
    if (per != 0 && k < points->count / per) wanted = k * per;
    *s = (sample){.source = points, .stride = kith_view_stride(points), .count = wanted};
    size_t blocks = (wanted + BLOCK_ROWS - 1) / BLOCK_ROWS;
    kith_status status;
    if (wanted < points->count) KITH_GO(choose(s, job->seed));
    KITH_GO(kith_alloc(wanted, dim * sizeof *s->rows, &s->rows));
    KITH_GO(kith_alloc(blocks, dim * sizeof *s->block_sums, &s->block_sums));
    KITH_GO(kith_alloc_zeroed(dim, sizeof *s->mean, &s->mean));
    KITH_GO(kith_parallel_for(job->threads, blocks, take_block, s));
    if (options->weights != NULL) {
        KITH_GO(kith_alloc(wanted, sizeof *s->weights, &s->weights));
        for (size_t i = 0; i < wanted; i++) s->weights[i] = options->weights[s->chosen != NULL ? s->chosen[i] : i];
        KITH_GO(check_weights(s->weights, wanted));
    }
    if (!options->spherical) {
        for (size_t j = 0; j < dim; j++) {
            double sum = 0;
            for (size_t b = 0; b < blocks; b++) sum += s->block_sums[b * dim + j];
            s->mean[j] = (float)(sum / (double)wanted);
        }
        KITH_GO(kith_parallel_for(job->threads, blocks, centre_block, s));
    }
    if (options->initial != NULL) {
        KITH_GO(kith_alloc(k, dim * sizeof *s->initial, &s->initial));
        for (size_t i = 0; i < k * dim; i++) s->initial[i] = options->initial[i] - s->mean[i % dim];
    }
done:
    return status;
}

/* ---- The calls ---------------------------------------------------------------------------------------------- */

/* Bytes that training takes beside the caller's arrays, near enough (bytes of sketches as where they take most, a search
 * for directions as where there is one); SIZE_MAX when it does not fit. */
static size_t bytes_needed(const kith_view *points, size_t k, const kith_kmeans_options *options) {
    size_t per = options->points_per_centroid_max, wanted = points->count, rows, centroids, dim = points->dim;
    size_t few = kith_directions_max(k, dim), search = few > 0 ? kith_directions_bytes(dim) : 0;
    if (per != 0 && k < wanted / per) wanted = k * per;
    if (kith_mul_overflows(wanted, dim * (sizeof(float) + 2) + 2 * few + 56, &rows) ||
        kith_mul_overflows(k, dim * (2 * sizeof(float) + 2 + sizeof(double)) + 14 * few + (few > 0 ? 1104 : 64),
                           &centroids) ||
        kith_add_overflows(rows, centroids, &rows) || kith_add_overflows(rows, search, &rows))
        return SIZE_MAX;
    return rows + (wanted < points->count ? points->count * sizeof(uint32_t) : 0);
}

void kith_kmeans_fill_report(kith_kmeans_report *report, const kith_run_report *run, size_t point_count,
                             double seconds) {
    size_t size = report->size;
    kith_kmeans_report own = {.size = size,
                              .point_count = point_count,
                              .iterations = run->iterations,
                              .objective = run->objective,
                              .imbalance = run->imbalance,
                              .largest_ratio = run->largest_ratio,
                              .empty_split_count = run->empty_split_count,
                              .seconds = seconds,
                              .seconds_per_iteration = seconds / (double)kith_max_size(run->iterations, 1)};
    memcpy(report, &own, kith_min_size(size, sizeof own));
}

static kith_status train(const kith_view *points, size_t k, const kith_kmeans_options *options, const kith_job *job,
                         float *centroids, kith_kmeans_report *report) {
    uint64_t start = kith_now_ns();
    size_t dim = points->dim;
    bool two = options->levels == 2 || (options->levels == 0 && k >= TWO_LEVELS_FROM && options->initial == NULL);
    kith_meter meter;
    kith_meter_init(&meter, job->progress, job->progress_user, "k-means",
                    two ? options->iterations + (uint64_t)llround(sqrt((double)k))
                        : (uint64_t)options->iterations * options->runs);
    kith_run_options run = {.k = k,
                            .iterations = options->iterations,
                            .runs = options->runs,
                            .threads = job->threads,
                            .seeding = options->seeding,
                            .spherical = options->spherical != 0,
                            .balance_max = options->balance_max,
                            .seed = job->seed,
                            .measures = report != NULL || options->runs > 1,
                            .meter = &meter};
    sample s = {0};
    float *result = NULL;
    uint32_t *assigned = NULL;
    kith_run_report run_report = {0};
    kith_status status;
    KITH_GO(sample_take(&s, points, k, options, job));
    KITH_GO(kith_alloc(k, dim * sizeof *result, &result));
    KITH_GO(kith_alloc(s.count, sizeof *assigned, &assigned));
    run.initial = s.initial;
    kith_points own = {s.rows, s.weights, s.count, dim};
    KITH_GO((two ? kith_kmeans_run_two_levels : kith_kmeans_run)(&own, &run, result, assigned, &run_report));
    KITH_GO(kith_meter_finish(&meter));
    for (size_t i = 0; i < k * dim; i++) centroids[i] = result[i] + s.mean[i % dim];
    if (report != NULL)
        kith_kmeans_fill_report(report, &run_report, s.count, (double)(kith_now_ns() - start) * 1e-9);
done:
    kith_free(assigned);
    kith_free(result);
    sample_free(&s);
    return status;
}

kith_status kith_kmeans_train(const kith_view *points, size_t k, const kith_kmeans_options *options,
                              const kith_job *job, float *centroids, kith_kmeans_report *report) {
    kith_kmeans_options own;
    kith_job own_job;
    if (points == NULL || centroids == NULL) return kith_error(KITH_ERR_ARGUMENT, "k-means: an argument is NULL");
    if (report != NULL && report->size < sizeof report->size)
        return kith_error(KITH_ERR_ARGUMENT, "k-means: report size %zu; was it initialised?", report->size);
    kith_kmeans_options_init(&own);
    KITH_TRY(kith_options_read("k-means options", &own, sizeof own, options));
    KITH_TRY(kith_job_read(&own_job, job));
    KITH_TRY(kith_check_view("k-means", points));
    KITH_TRY(kith_kmeans_check_options(&own, points->count, k));
    if (points->count > UINT32_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "k-means: %zu points, more than %u", points->count, UINT32_MAX);
    KITH_TRY(kith_check_vectors("k-means", points, 0, own.spherical ? KITH_COSINE : KITH_L2, own_job.threads));
    KITH_TRY(check_weights(own.weights, points->count));
    KITH_TRY(kith_kmeans_check_initial(own.initial, k, points->dim));
    size_t needed = bytes_needed(points, k, &own);
    if (own_job.memory_bytes_max != 0 && needed > own_job.memory_bytes_max)
        return kith_error(KITH_ERR_BUDGET, "k-means: needs %zu bytes, the budget is %llu", needed,
                          (unsigned long long)own_job.memory_bytes_max);
    kith_warn_few("k-means", points->count, k, "centroids");
    return train(points, k, &own, &own_job, centroids, report);
}

kith_status kith_kmeans_assign(const kith_view *points, const float *centroids, size_t k, int spherical,
                               const kith_job *job, uint32_t *assigned, float *values) {
    kith_job own_job;
    if (points == NULL || centroids == NULL || assigned == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "k-means: an argument is NULL");
    KITH_TRY(kith_job_read(&own_job, job));
    KITH_TRY(kith_check_view("k-means", points));
    if (k < 1 || k > UINT32_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "k-means: k = %zu is outside 1..%u", k, UINT32_MAX);
    KITH_TRY(kith_check_vectors("k-means", points, 0, KITH_L2, own_job.threads));
    kith_arena arena = {0};
    enum { POINTS_AT_ONCE = 1 << 14 };
    kith_topk *tops = NULL;
    kith_hit *hits = NULL;
    kith_status status;
    size_t at_once = kith_min_size(points->count, POINTS_AT_ONCE);
    kith_rows rows = {.dtype = KITH_F32,
                      .dim = points->dim,
                      .count = k,
                      .base = centroids,
                      .stride = points->dim * sizeof(float)};
    KITH_GO(kith_alloc(at_once, sizeof *tops, &tops));
    KITH_GO(kith_alloc(at_once, kith_topk_capacity(1) * sizeof *hits, &hits));
    for (size_t first = 0; first < points->count; first += at_once) {
        kith_exact_request request = {.queries = *points,
                                      .metric = spherical ? KITH_IP : KITH_L2,
                                      .row_dtype = KITH_F32,
                                      .threads = own_job.threads,
                                      .arena = &arena};
        request.queries.count = kith_min_size(at_once, points->count - first);
        request.queries.data = (const char *)points->data + first * kith_view_stride(points);
        kith_exact *exact;
        KITH_GO(kith_arena_begin(&arena));
        KITH_GO(kith_exact_open(&request, &exact));
        for (size_t i = 0; i < request.queries.count; i++)
            kith_topk_init(&tops[i], hits + i * kith_topk_capacity(1), 1);
        KITH_GO(kith_exact_topk(exact, &rows, tops));
        for (size_t i = 0; i < request.queries.count; i++) {
            kith_topk_finish(&tops[i]);
            assigned[first + i] = (uint32_t)tops[i].hits[0].id;
            if (values != NULL) values[first + i] = kith_exact_value(exact, tops[i].hits[0].key);
        }
    }
done:
    kith_free(hits);
    kith_free(tops);
    kith_arena_free(&arena);
    return status;
}
