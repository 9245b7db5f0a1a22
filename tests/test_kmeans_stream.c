/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "faults.h"
#include "kith/kmeans.h"

enum { DIM = 13 };

/* Points in memory, read as a stream; it counts how often each is asked for. */
typedef struct source {
    const float *points;
    size_t count;
    unsigned *asked;
    size_t fails_at; /* a point that cannot be read; SIZE_MAX: none */
} source;

static kith_status read_source(void *user, size_t first, size_t count, float *out) {
    source *from = user;
    cr_assert_leq(first + count, from->count);
    if (from->fails_at - first < count) return kith_error(KITH_ERR_IO, "the disk is gone");
    for (size_t i = first; i < first + count; i++) from->asked[i]++;
    memcpy(out, from->points + first * DIM, count * DIM * sizeof *out);
    return KITH_OK;
}

/* Points around `centres` centres, one group after the other: as a sorted file is. */
static source make_source(size_t count, size_t centres, float offset) {
    float *points = malloc(count * DIM * sizeof *points);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < DIM; j++)
            points[i * DIM + j] =
                offset + 20 * kith_random_normal(7, i * centres / count, j) + 4 * kith_random_normal(8, i, j);
    return (source){points, count, calloc(count, sizeof(unsigned)), SIZE_MAX};
}

static void free_source(source *from) {
    free((void *)(uintptr_t)from->points);
    free(from->asked);
}

static kith_kmeans_stream stream_of(source *from) {
    return (kith_kmeans_stream){
        .size = sizeof(kith_kmeans_stream), .count = from->count, .dim = DIM, .read = read_source, .user = from};
}

static kith_kmeans_options options_of(size_t iterations, size_t batch_points) {
    kith_kmeans_options options;
    kith_kmeans_options_init(&options);
    options.iterations = iterations;
    options.batch_points = batch_points;
    options.points_per_centroid_max = 0;
    return options;
}

static kith_kmeans_report run(source *from, size_t k, const kith_kmeans_options *options, size_t threads,
                              float *centroids) {
    kith_kmeans_report report = {.size = sizeof report};
    const kith_kmeans_stream stream = stream_of(from);
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    memset(from->asked, 0, from->count * sizeof *from->asked);
    cr_assert_eq(kith_kmeans_train_stream(&stream, k, options, &job, centroids, &report), KITH_OK, "%s",
                 kith_error_message());
    return report;
}

static kith_kmeans_report run_in_memory(const source *from, size_t k, const kith_kmeans_options *options,
                                        float *centroids) {
    kith_kmeans_report report = {.size = sizeof report};
    const kith_view view = {.data = from->points, .dtype = KITH_F32, .count = from->count, .dim = DIM};
    cr_assert_eq(kith_kmeans_train(&view, k, options, NULL, centroids, &report), KITH_OK, "%s",
                 kith_error_message());
    return report;
}

/* The sum of squared distances to the nearest centroid, and k x the squares of how many points each has / n^2. */
static double objective_of(const source *from, const float *centroids, size_t k, double *imbalance) {
    size_t *sizes = calloc(k, sizeof *sizes);
    double sum = 0;
    for (size_t i = 0; i < from->count; i++) {
        double best = INFINITY;
        size_t best_at = 0;
        for (size_t c = 0; c < k; c++) {
            double distance = 0;
            for (size_t j = 0; j < DIM; j++) {
                double x = (double)from->points[i * DIM + j] - (double)centroids[c * DIM + j];
                distance += x * x;
            }
            if (distance >= best) continue;
            best = distance;
            best_at = c;
        }
        sum += best;
        sizes[best_at]++;
    }
    *imbalance = 0;
    for (size_t c = 0; c < k; c++) *imbalance += (double)sizes[c] * (double)sizes[c];
    *imbalance *= (double)k / ((double)from->count * (double)from->count);
    free(sizes);
    return sum;
}

/* From the same first centroids a batch that holds all points does what training in memory does. */
Test(kmeans_stream, one_batch_is_lloyds_algorithm) {
    enum { COUNT = 3001, K = 17 };
    for (int spherical = 0; spherical < 2; spherical++) {
        source from = make_source(COUNT, 60, 3);
        float initial[K * DIM], in_memory[K * DIM], streamed[K * DIM];
        for (size_t c = 0; c < K; c++)
            memcpy(initial + c * DIM, from.points + c * (COUNT / K) * DIM, DIM * sizeof(float));
        for (size_t iterations = 1; iterations <= 2; iterations++) {
            kith_kmeans_options options = options_of(iterations, COUNT);
            options.seeding = KITH_SEEDING_GIVEN;
            options.initial = initial;
            options.spherical = spherical;
            double want = run_in_memory(&from, K, &options, in_memory).objective;
            kith_kmeans_report report = run(&from, K, &options, 2, streamed);
            cr_assert_eq(report.iterations, iterations);
            cr_assert_eq(report.point_count, COUNT);
            cr_assert_lt(fabs(report.objective - want), 1e-4 * want, "%zu: %g, not %g", iterations,
                         report.objective, want);
            for (size_t i = 0; i < K * DIM; i++)
                cr_assert_lt(fabsf(streamed[i] - in_memory[i]), 2e-3f, "%zu: %g, not %g", iterations,
                             (double)streamed[i], (double)in_memory[i]);
        }
        free_source(&from);
    }
}

/* A few passes over a sorted file, in batches of a twelfth of it, come as near as Lloyd's algorithm in memory; the
 * report says what is true; each pass reads each point once. */
Test(kmeans_stream, batches_come_close) {
    enum { COUNT = 24100, K = 40, PASSES = 4 };
    source from = make_source(COUNT, 200, 100);
    float centroids[K * DIM];
    kith_kmeans_options options = options_of(PASSES, 2048);
    options.seeding = KITH_SEEDING_PLUS_PLUS;
    double want = run_in_memory(&from, K, &options, centroids).objective, imbalance;
    kith_kmeans_report report = run(&from, K, &options, 2, centroids);
    double objective = objective_of(&from, centroids, K, &imbalance);
    cr_assert_lt(objective, 1.03 * want, "%g, in memory %g", objective, want);
    cr_assert_lt(fabs(report.objective - objective), 1e-4 * objective, "%g, not %g", report.objective, objective);
    cr_assert_lt(fabs(report.imbalance - imbalance), 1e-3, "%g, not %g", report.imbalance, imbalance);
    cr_assert_geq(report.largest_ratio, 1);
    cr_assert_leq(report.iterations, PASSES);
    unsigned least = UINT32_MAX, most = 0, seeds = 0;
    for (size_t i = 0; i < COUNT; i++) {
        least = from.asked[i] < least ? from.asked[i] : least;
        most = from.asked[i] > most ? from.asked[i] : most;
        seeds += from.asked[i] == report.iterations + 2;
    }
    cr_assert_eq(least, report.iterations + 1, "%u times", least); /* the last one measures */
    cr_assert_eq(most, least + 1);
    cr_assert_leq(seeds, 2048, "the first centroids come from one batch");
    double one = run(&from, K, &options, 2, centroids).objective;
    options.runs = 3;
    cr_assert_leq(run(&from, K, &options, 2, centroids).objective, one);
    free_source(&from);
}

Test(kmeans_stream, same_bytes_at_any_thread_count) {
    enum { COUNT = 5000, K = 70 };
    source from = make_source(COUNT, 500, 0);
    float first[K * DIM], other[K * DIM];
    for (int variant = 0; variant < 3; variant++) {
        kith_kmeans_options options = options_of(3, variant == 2 ? 0 : 1024);
        options.seeding = variant == 1 ? KITH_SEEDING_PLUS_PLUS : KITH_SEEDING_RANDOM;
        options.spherical = variant == 0;
        run(&from, K, &options, 1, first);
        for (size_t threads = 2; threads <= 8; threads *= 2) {
            run(&from, K, &options, threads, other);
            cr_assert_arr_eq(first, other, sizeof first, "variant %d, %zu threads", variant, threads);
        }
    }
    free_source(&from);
}

/* As many centroids as points, fewer kinds of points than centroids, one point, batches as small as can be. */
Test(kmeans_stream, edges) {
    static const struct {
        size_t count, k, batch;
    } cases[] = {{1, 1, 0}, {300, 300, 0}, {300, 300, 300}, {257, 257, 257}, {513, 200, 200}, {1025, 256, 256}};
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        source from = make_source(cases[n].count, 7, 0);
        float *centroids = malloc(cases[n].k * DIM * sizeof *centroids);
        kith_kmeans_options options = options_of(3, cases[n].batch);
        kith_kmeans_report report = run(&from, cases[n].k, &options, 2, centroids);
        cr_assert(isfinite(report.objective), "case %zu", n);
        for (size_t i = 0; i < cases[n].k * DIM; i++) cr_assert(isfinite(centroids[i]), "case %zu", n);
        float *same = (float *)(uintptr_t)from.points;
        for (size_t i = DIM; i < cases[n].count * DIM; i++) same[i] = same[i % DIM];
        report = run(&from, cases[n].k, &options, 2, centroids);
        cr_assert_lt(report.objective, 1.0 * (double)cases[n].count, "case %zu: %g", n, report.objective);
        free(centroids);
        free_source(&from);
    }
}

static kith_status refused(const kith_kmeans_stream *stream, size_t k, const kith_kmeans_options *options) {
    float centroids[60 * DIM];
    kith_status status = kith_kmeans_train_stream(stream, k, options, NULL, centroids, NULL);
    cr_assert_eq(kith_memory_live_blocks(), 0);
    return status;
}

static int cancel_at_once(void *user, const char *phase, uint64_t done, uint64_t total) {
    (void)user, (void)phase, (void)done, (void)total;
    return 1;
}

Test(kmeans_stream, bad_input) {
    source from = make_source(600, 5, 0);
    kith_kmeans_stream stream = stream_of(&from);
    kith_kmeans_options options = options_of(2, 40);
    float weights[600] = {1}, centroids[5 * DIM];
    cr_assert_eq(refused(&stream, 601, &options), KITH_ERR_ARGUMENT);
    cr_assert_eq(refused(&stream, 41, &options), KITH_ERR_ARGUMENT);
    cr_assert_str_eq(kith_error_message(), "k-means: batches of 40 points, fewer than k = 41");
    options.weights = weights;
    cr_assert_eq(refused(&stream, 5, &options), KITH_ERR_ARGUMENT);
    options = options_of(2, 0);
    options.balance_max = 2;
    cr_assert_eq(refused(&stream, 5, &options), KITH_ERR_ARGUMENT);
    options = options_of(2, 0);
    options.levels = 2;
    cr_assert_eq(refused(&stream, 5, &options), KITH_ERR_ARGUMENT);
    options = options_of(2, 0);
    stream.dim = 0;
    cr_assert_eq(refused(&stream, 5, &options), KITH_ERR_DIMENSION);
    stream = stream_of(&from);
    stream.read = NULL;
    cr_assert_eq(refused(&stream, 5, &options), KITH_ERR_ARGUMENT);
    stream = stream_of(&from);
    ((float *)(uintptr_t)from.points)[599 * DIM + 4] = INFINITY;
    cr_assert_eq(refused(&stream, 5, &options), KITH_ERR_NOT_FINITE);
    cr_assert_str_eq(kith_error_message(), "k-means: row 599, column 4 is inf");
    ((float *)(uintptr_t)from.points)[599 * DIM + 4] = 0;
    from.fails_at = 300;
    cr_assert_eq(refused(&stream, 5, &options), KITH_ERR_IO);
    cr_assert_str_eq(kith_error_message(), "the disk is gone");
    from.fails_at = SIZE_MAX;
    kith_job job;
    kith_job_init(&job);
    job.memory_bytes_max = 1000;
    cr_assert_eq(kith_kmeans_train_stream(&stream, 5, &options, &job, centroids, NULL), KITH_ERR_BUDGET);
    kith_job_init(&job);
    job.progress = cancel_at_once;
    cr_assert_eq(kith_kmeans_train_stream(&stream, 5, &options, &job, centroids, NULL), KITH_ERR_CANCELLED);
    cr_assert_eq(kith_memory_live_blocks(), 0);
    free_source(&from);
}

/* Every allocation fails once: a clean error each time, nothing leaked. */
Test(kmeans_stream, nth_allocation_failure) {
    enum { K = 20 };
    source from = make_source(1700, 9, 0);
    const kith_kmeans_stream stream = stream_of(&from);
    float centroids[K * DIM], want[K * DIM];
    for (int variant = 0; variant < 2; variant++) {
        kith_kmeans_options options = options_of(2, 512);
        if (variant == 1) options.seeding = KITH_SEEDING_PLUS_PLUS;
        faults_fail_allocation(0);
        cr_assert_eq(kith_kmeans_train_stream(&stream, K, &options, NULL, want, NULL), KITH_OK);
        size_t total = faults_allocation_count();
        cr_assert_gt(total, 10);
        for (size_t n = 1; n <= total; n++) {
            faults_fail_allocation(n);
            cr_assert_eq(kith_kmeans_train_stream(&stream, K, &options, NULL, centroids, NULL), KITH_ERR_NO_MEMORY);
            cr_assert_eq(kith_memory_live_blocks(), 0, "allocation %zu leaks", n);
        }
        faults_fail_allocation(0);
        cr_assert_eq(kith_kmeans_train_stream(&stream, K, &options, NULL, centroids, NULL), KITH_OK);
        cr_assert_arr_eq(centroids, want, sizeof want);
    }
    free_source(&from);
}
