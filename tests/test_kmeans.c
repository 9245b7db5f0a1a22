/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "faults.h"
#include "kith/kmeans.h"
#include "kmeans/kmeans_inside.h"
#include "simd/simd.h"

enum { DIM = 13 };

/* Points around `centres` well separated centres. */
static float *make_points(size_t count, size_t centres, float offset) {
    float *points = malloc(count * DIM * sizeof *points);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < DIM; j++)
            points[i * DIM + j] = offset + 20 * kith_random_normal(7, i % centres, j) + kith_random_normal(8, i, j);
    return points;
}

static kith_view view_of(const float *points, size_t count) {
    return (kith_view){.data = points, .dtype = KITH_F32, .count = count, .dim = DIM};
}

static double distance2(const float *a, const float *b) {
    double sum = 0;
    for (size_t j = 0; j < DIM; j++) sum += ((double)a[j] - (double)b[j]) * ((double)a[j] - (double)b[j]);
    return sum;
}

static double objective_of(const float *points, size_t count, const float *centroids, size_t k) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        double best = INFINITY;
        for (size_t c = 0; c < k; c++) best = fmin(best, distance2(points + i * DIM, centroids + c * DIM));
        sum += best;
    }
    return sum;
}

static kith_kmeans_report run(const float *points, size_t count, size_t k, const kith_kmeans_options *options,
                              size_t threads, float *centroids) {
    kith_kmeans_report report = {.size = sizeof report};
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    kith_view view = view_of(points, count);
    cr_assert_eq(kith_kmeans_train(&view, k, options, &job, centroids, &report), KITH_OK, "%s",
                 kith_error_message());
    return report;
}

/* With k-means++ every separated group gets a centroid of its own, at its mean. */
Test(kmeans, finds_separated_groups) {
    enum { COUNT = 2000, K = 20 };
    for (int shifted = 0; shifted < 2; shifted++) {
        float *points = make_points(COUNT, K, shifted ? 5000 : 0), centroids[K * DIM];
        kith_kmeans_options options;
        kith_kmeans_options_init(&options);
        options.seeding = KITH_SEEDING_PLUS_PLUS;
        options.runs = 3;
        kith_kmeans_report report = run(points, COUNT, K, &options, 2, centroids);
        double objective = objective_of(points, COUNT, centroids, K);
        cr_assert_lt(fabs(report.objective - objective), 1e-4 * objective, "%g %g", report.objective, objective);
        cr_assert_lt(objective, 1.05 * COUNT * DIM, "%g: a group was missed", objective);
        cr_assert_lt(report.imbalance, 1.01);
        free(points);
    }
}

/* The reported objective never rises from one iteration to the next. */
Test(kmeans, more_iterations_are_never_worse) {
    enum { COUNT = 3000, K = 40 };
    float *points = make_points(COUNT, 300, 0), centroids[K * DIM];
    double before = INFINITY;
    for (size_t iterations = 1; iterations <= 12; iterations++) {
        kith_kmeans_options options;
        kith_kmeans_options_init(&options);
        options.iterations = iterations;
        double now = run(points, COUNT, K, &options, 2, centroids).objective;
        cr_assert_leq(now, before * (1 + 1e-6), "iteration %zu: %g after %g", iterations, now, before);
        before = now;
    }
    free(points);
}

Test(kmeans, same_bytes_at_any_thread_count) {
    enum { COUNT = 5000, K = 70 };
    float *points = make_points(COUNT, 500, 0), *first = malloc(K * DIM * 4), *other = malloc(K * DIM * 4);
    for (int variant = 0; variant < 5; variant++) {
        kith_kmeans_options options;
        kith_kmeans_options_init(&options);
        options.iterations = 6;
        if (variant == 1) options.seeding = KITH_SEEDING_PLUS_PLUS;
        if (variant == 2) options.spherical = 1;
        if (variant == 3) options.levels = 2;
        if (variant == 4) options.balance_max = 1.5;
        run(points, COUNT, K, &options, 1, first);
        for (size_t threads = 2; threads <= 8; threads *= 2) {
            run(points, COUNT, K, &options, threads, other);
            cr_assert_arr_eq(first, other, K * DIM * 4, "variant %d, %zu threads", variant, threads);
        }
    }
    free(points);
    free(first);
    free(other);
}

Test(kmeans, two_levels_come_close_to_one) {
    enum { COUNT = 20000, K = 400 };
    float *points = make_points(COUNT, 1000, 0), *centroids = malloc(K * DIM * 4);
    kith_kmeans_options options;
    kith_kmeans_options_init(&options);
    double one = run(points, COUNT, K, &options, 2, centroids).objective;
    options.levels = 2;
    kith_kmeans_report two = run(points, COUNT, K, &options, 2, centroids);
    double true_two = objective_of(points, COUNT, centroids, K);
    cr_assert_leq(true_two, two.objective * 1.0001);
    cr_assert_lt(true_two, 1.35 * one, "%g for %g", true_two, one);
    free(points);
    free(centroids);
}

Test(kmeans, balance_is_kept) {
    enum { COUNT = 6000, K = 30 };
    float *points = make_points(COUNT, 3, 0), centroids[K * DIM];                    /* a few dense groups */
    for (size_t i = 0; i < COUNT; i += 4) memcpy(points + i * DIM, points, DIM * 3); /* and a crowd in one place */
    kith_kmeans_options options;
    kith_kmeans_options_init(&options);
    options.iterations = 60;
    double free_ratio = run(points, COUNT, K, &options, 2, centroids).largest_ratio;
    options.balance_max = 1.8;
    kith_kmeans_report report = run(points, COUNT, K, &options, 2, centroids);
    cr_assert_lt(report.largest_ratio, free_ratio, "%g, without: %g", report.largest_ratio, free_ratio);
    cr_assert_lt(report.largest_ratio, 2.2);
    free(points);
}

Test(kmeans, edges) {
    float *points = make_points(64, 8, 0), centroids[64 * DIM];
    kith_kmeans_options options;
    kith_kmeans_options_init(&options);
    for (size_t k = 1; k <= 64; k += k < 4 ? 1 : 15) {
        kith_kmeans_report report = run(points, 64, k, &options, 2, centroids);
        cr_assert(isfinite(report.objective));
    }
    cr_assert_lt(run(points, 64, 64, &options, 1, centroids).objective, 1e-6 * 64 * DIM * 400);
    for (size_t i = 1; i < 64; i++) memcpy(points + i * DIM, points, DIM * 4); /* all the same point */
    cr_assert_lt(run(points, 64, 10, &options, 1, centroids).objective, 64 * DIM);
    options.seeding = KITH_SEEDING_PLUS_PLUS;
    cr_assert_lt(run(points, 64, 10, &options, 1, centroids).objective, 64 * DIM);
    free(points);
}

Test(kmeans, weights_pull) {
    float points[4] = {0, 1, 10, 11}, weights[4] = {1, 3, 1, 0}, initial[2] = {0, 10}, centroids[2];
    kith_view view = {.data = points, .dtype = KITH_F32, .count = 4, .dim = 1};
    kith_kmeans_options options;
    kith_kmeans_options_init(&options);
    options.seeding = KITH_SEEDING_GIVEN;
    options.initial = initial;
    options.weights = weights;
    cr_assert_eq(kith_kmeans_train(&view, 2, &options, NULL, centroids, NULL), KITH_OK);
    cr_assert_float_eq(centroids[0], 0.75f, 1e-6);
    cr_assert_float_eq(centroids[1], 10.0f, 1e-6);
}

Test(kmeans, large_magnitudes_end) {
    float points[200], centroids[10];
    for (size_t i = 0; i < 200; i++) points[i] = 1e18f * (1 + kith_random_f32(1, 1, i));
    kith_view view = {.data = points, .dtype = KITH_F32, .count = 200, .dim = 1};
    cr_assert_eq(kith_kmeans_train(&view, 10, NULL, NULL, centroids, NULL), KITH_OK);
    for (size_t c = 0; c < 10; c++) cr_assert(isfinite(centroids[c]));
}

Test(kmeans, assign_is_exact) {
    enum { COUNT = 3000, K = 77 };
    float *points = make_points(COUNT, 200, 100), *centroids = make_points(K, 200, 100);
    uint32_t *assigned = malloc(COUNT * 4);
    float *values = malloc(COUNT * 4);
    kith_view view = view_of(points, COUNT);
    cr_assert_eq(kith_kmeans_assign(&view, centroids, K, 0, NULL, assigned, values), KITH_OK);
    for (size_t i = 0; i < COUNT; i++) {
        double own = distance2(points + i * DIM, centroids + assigned[i] * DIM);
        cr_assert_float_eq(values[i], own, 1e-4 * own);
        for (size_t c = 0; c < K; c++)
            cr_assert_geq(distance2(points + i * DIM, centroids + c * DIM), own * (1 - 1e-5));
    }
    free(points);
    free(centroids);
    free(assigned);
    free(values);
}

static size_t nearest(const float *row, const float *centroids, size_t k, size_t dim, bool spherical) {
    const kith_float_kernels *pair = &kith_simd()->floats[spherical ? KITH_OP_IP : KITH_OP_L2SQ][0];
    size_t best = 0;
    float least = INFINITY;
    for (size_t c = 0; c < k; c++) {
        float cost = pair->one(row, centroids + c * dim, dim);
        if (spherical) cost = -cost;
        if (cost < least) least = cost, best = c;
    }
    return best;
}

/* The bounds never lose the nearest centroid: the same numbers as comparing all costs one by one. `directions`: how many
 * the tile sees; 0: all dimensions. */
static void check_assignment(const float *rows, size_t count, const float *centroids, size_t k, size_t dim,
                             size_t directions, bool spherical) {
    uint32_t *assigned = malloc(count * 4), *want = malloc(count * 4);
    kith_points points = {.rows = rows, .count = count, .dim = dim};
    kith_assigner assigner;
    for (size_t i = 0; i < count; i++) want[i] = (uint32_t)nearest(rows + i * dim, centroids, k, dim, spherical);
    cr_assert_eq(kith_assigner_create(&assigner, &points, k, spherical, 2), KITH_OK);
    for (int round = 0; round < 4; round++) {
        if (round == 0 && directions > 0)
            cr_assert_eq(kith_assigner_project(&assigner, centroids, directions), KITH_OK);
        if (round == 3) cr_assert_eq(kith_assigner_widen(&assigner), KITH_OK);
        for (size_t i = 0; i < count; i++)
            if (round != 1) assigned[i] = round == 0 ? UINT32_MAX : (uint32_t)kith_random_below(5, 5, i, k);
        cr_assert_eq(kith_assigner_run(&assigner, centroids, assigned, NULL), KITH_OK);
        for (size_t i = 0; i < count; i++)
            cr_assert_eq(assigned[i], want[i], "n %zu k %zu dim %zu directions %zu round %d: point %zu", count, k,
                         dim, directions, round, i);
    }
    kith_assigner_free(&assigner);
    cr_assert_eq(kith_memory_live_blocks(), 0);
    free(assigned);
    free(want);
}

static void check_assigner(size_t count, size_t k, size_t dim, size_t directions, float outlier, float offset,
                           bool spherical) {
    float *rows = malloc(count * dim * 4), *centroids = malloc(k * dim * 4);
    for (size_t i = 0; i < count * dim; i++) rows[i] = offset + kith_random_normal(11, dim, i);
    for (size_t i = 0; i < count; i += 37) rows[i * dim] *= outlier;
    for (size_t c = 0; c < k; c++)
        for (size_t j = 0; j < dim; j++)
            centroids[c * dim + j] = rows[(c * 7 % count) * dim + j] + 0.1f * kith_random_normal(12, c, j);
    check_assignment(rows, count, centroids, k, dim, directions, spherical);
    free(rows);
    free(centroids);
}

Test(kmeans, the_cheap_product_loses_nothing) {
    static const size_t dims[] = {1, 3, 4, 17, 64, 130};
    for (size_t d = 0; d < 6; d++)
        for (int spherical = 0; spherical < 2; spherical++)
            for (size_t directions = 0; directions <= dims[d]; directions += 1 + directions * 6) {
                check_assigner(directions ? 100 : 1000, 1, dims[d], directions, 1, 0, spherical);
                check_assigner(directions ? 300 : 700, 33, dims[d], directions, 1, 0, spherical);
                check_assigner(directions ? 90 : 900, directions ? 300 : 600, dims[d], directions, 1000, 0,
                               spherical);
                check_assigner(directions ? 90 : 400, 300, dims[d], directions, 1e9f, 0, spherical);
                check_assigner(directions ? 90 : 400, 300, dims[d], directions, 1, 1e4f, spherical);
            }
}

/* Rows near `rank` directions, centroids as means of some: what a few directions are made for. */
static void make_low_rank(size_t count, size_t dim, size_t rank, float noise, float *rows) {
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < dim; j++) {
            float sum = noise * kith_random_normal(21, i, j);
            for (size_t r = 0; r < rank; r++) sum += kith_random_normal(22, i, r) * kith_random_normal(23, r, j);
            rows[i * dim + j] = sum;
        }
}

Test(kmeans, a_few_directions_lose_nothing_on_degenerate_data) {
    enum { COUNT = 300, K = 130, WIDE = 96 };
    float *rows = malloc(COUNT * WIDE * 4), *centroids = malloc(K * WIDE * 4);
    for (int kind = 0; kind < 6; kind++)
        for (int spherical = 0; spherical < 2; spherical++) {
            make_low_rank(COUNT, WIDE, 5, kind == 0 ? 0 : 0.3f, rows); /* 0: they span 5 dimensions only */
            for (size_t i = 0; i < COUNT; i++) {
                if (kind == 1) memcpy(rows + i * WIDE, rows + i % 3 * WIDE, WIDE * 4); /* three rows, many times */
                for (size_t j = 0; j < WIDE; j++) {
                    if (kind == 2 && j % 2 == 0) rows[i * WIDE + j] = 3; /* constant dimensions */
                    if (kind == 3) rows[i * WIDE + j] *= 1e17f;          /* about the largest that have a norm */
                    if (kind == 4) rows[i * WIDE + j] *= 1e-17f;
                    if (kind == 5) rows[i * WIDE + j] = 0;
                }
            }
            memcpy(centroids, rows, K * WIDE * 4);
            for (size_t directions = 1; directions <= WIDE; directions *= 8)
                check_assignment(rows, COUNT, centroids, K, WIDE, directions, spherical);
        }
    free(rows);
    free(centroids);
}

/* Sums that are kept while points come and go give the means that sums made anew give; also where a point of another
 * order of magnitude has been among the members. */
Test(kmeans, kept_sums_do_not_drift) {
    enum { COUNT = 600, K = 5, ROUNDS = 200 };
    float *rows = make_points(COUNT, 40, 0), lengths[COUNT], weights[COUNT], kept[K * DIM], anew[K * DIM];
    uint32_t assigned[COUNT];
    for (size_t j = 0; j < DIM; j++) rows[j] *= 1e15f;
    for (size_t i = 0; i < COUNT; i++) {
        lengths[i] = sqrtf(kith_simd()->norm2_f32(rows + i * DIM, DIM));
        weights[i] = kith_random_f32(3, 4, i);
        assigned[i] = (uint32_t)kith_random_below(1, 1, i, K);
    }
    for (int weighted = 0; weighted < 2; weighted++) {
        kith_points points = {.rows = rows, .weights = weighted ? weights : NULL, .count = COUNT, .dim = DIM};
        kith_clusters clusters;
        kith_sums one, other;
        cr_assert_eq(kith_clusters_create(&clusters, COUNT, K), KITH_OK);
        cr_assert_eq(kith_sums_create(&one, COUNT, K, DIM), KITH_OK);
        cr_assert_eq(kith_sums_create(&other, COUNT, K, DIM), KITH_OK);
        for (size_t round = 0; round < ROUNDS; round++) {
            /* The large point moves in each round, others now and then, all at once in some rounds. */
            for (size_t i = 0; i < COUNT; i++)
                if (i == 0 || kith_random_below(2, round, i, round % 50 == 49 ? 2 : 30) == 0)
                    assigned[i] = (uint32_t)kith_random_below(3, round, i, K);
            kith_clusters_sort(&clusters, assigned, COUNT, K);
            other.is_filled = false;
            cr_assert_eq(kith_sums_update(&one, &clusters, &points, assigned, lengths, K, false, 2, kept), KITH_OK);
            cr_assert_eq(kith_sums_update(&other, &clusters, &points, assigned, lengths, K, false, 1, anew),
                         KITH_OK);
            for (size_t x = 0; x < K * DIM; x++)
                cr_assert_float_eq(kept[x], anew[x], 1e-5 * (1 + fabs((double)anew[x])), "round %zu: %g %g", round,
                                   (double)kept[x], (double)anew[x]);
        }
        kith_sums_free(&one);
        kith_sums_free(&other);
        kith_clusters_free(&clusters);
    }
    free(rows);
}

/* Whole runs that go by a few directions from the second round on: what Lloyd's algorithm gives with all distances
 * compared, at any thread count. */
Test(kmeans, pruned_runs_are_lloyds) {
    enum { COUNT = 2500, K = 270, WIDE = 128, ROUNDS = 3 };
    float *rows = malloc(COUNT * WIDE * 4), *centroids = malloc(K * WIDE * 4), *other = malloc(K * WIDE * 4);
    uint32_t *assigned = malloc(COUNT * 4), *want = malloc(COUNT * 4);
    float lengths[COUNT];
    make_low_rank(COUNT, WIDE, 6, 0.2f, rows);
    for (size_t i = 0; i < COUNT; i++) lengths[i] = sqrtf(kith_simd()->norm2_f32(rows + i * WIDE, WIDE));
    kith_points points = {.rows = rows, .count = COUNT, .dim = WIDE};
    for (int spherical = 0; spherical < 2; spherical++) {
        kith_run_options options = {.k = K,
                                    .iterations = ROUNDS,
                                    .runs = 2,
                                    .threads = 1,
                                    .seeding = KITH_SEEDING_GIVEN,
                                    .initial = rows,
                                    .spherical = spherical,
                                    .measures = true};
        kith_run_report report;
        cr_assert_eq(kith_kmeans_run(&points, &options, centroids, assigned, &report), KITH_OK);
        for (options.threads = 2; options.threads <= 4; options.threads++) {
            cr_assert_eq(kith_kmeans_run(&points, &options, other, want, &report), KITH_OK);
            cr_assert_arr_eq(centroids, other, K * WIDE * 4);
            cr_assert_arr_eq(assigned, want, COUNT * 4);
        }
        options.measures = false;
        options.runs = 1;
        cr_assert_eq(kith_kmeans_run(&points, &options, other, want, &report), KITH_OK);
        cr_assert_arr_eq(centroids, other, K * WIDE * 4);
        kith_clusters clusters;
        kith_sums sums;
        cr_assert_eq(kith_clusters_create(&clusters, COUNT, K), KITH_OK);
        cr_assert_eq(kith_sums_create(&sums, COUNT, K, WIDE), KITH_OK);
        memcpy(other, rows, K * WIDE * 4);
        for (size_t round = 0; round <= ROUNDS; round++) {
            for (size_t i = 0; i < COUNT; i++)
                want[i] = (uint32_t)nearest(rows + i * WIDE, other, K, WIDE, spherical);
            if (round == ROUNDS) break;
            kith_clusters_sort(&clusters, want, COUNT, K);
            sums.is_filled = false; /* all anew, in each round */
            cr_assert_eq(kith_sums_update(&sums, &clusters, &points, want, lengths, K, spherical, 1, other),
                         KITH_OK);
            kith_clusters_fill_empty(&clusters, K, WIDE, spherical, other);
        }
        kith_clusters_free(&clusters);
        kith_sums_free(&sums);
        cr_assert_arr_eq(centroids, other, K * WIDE * 4);
        cr_assert_arr_eq(assigned, want, COUNT * 4);
    }
    /* The choice itself: few directions for these rows, none for rows without any that stand out. */
    for (int flat = 0; flat < 2; flat++) {
        kith_assigner assigner;
        if (flat) make_low_rank(COUNT, WIDE, 0, 1, rows);
        const float *now = flat ? rows : centroids;
        memset(assigned, 0xff, COUNT * 4);
        cr_assert_eq(kith_assigner_create(&assigner, &points, K, false, 1), KITH_OK);
        cr_assert_eq(kith_assigner_run(&assigner, now, assigned, NULL), KITH_OK);
        cr_assert_eq(kith_assigner_prune(&assigner, now, assigned, 100), KITH_OK);
        cr_assert_eq(assigner.directions.count, flat ? 0 : 32, "flat %d: %zu", flat, assigner.directions.count);
        kith_assigner_free(&assigner);
    }
    free(rows);
    free(centroids);
    free(other);
    free(assigned);
    free(want);
}

static kith_status refused(const kith_view *view, size_t k, const kith_kmeans_options *options) {
    float centroids[64 * DIM];
    memset(centroids, 0x55, sizeof centroids);
    kith_status status = kith_kmeans_train(view, k, options, NULL, centroids, NULL);
    for (size_t i = 0; i < sizeof centroids; i++) cr_assert_eq(((unsigned char *)centroids)[i], 0x55);
    return status;
}

Test(kmeans, bad_input) {
    float *points = make_points(50, 5, 0);
    kith_view view = view_of(points, 50);
    kith_kmeans_options options;
    kith_kmeans_options_init(&options);
    cr_assert_eq(refused(&view, 0, &options), KITH_ERR_ARGUMENT);
    cr_assert_eq(refused(&view, 51, &options), KITH_ERR_ARGUMENT);
    cr_assert_str_eq(kith_error_message(), "k-means: k = 51 is outside 1..50, the number of points");
    options.iterations = 0;
    cr_assert_eq(refused(&view, 5, &options), KITH_ERR_ARGUMENT);
    kith_kmeans_options_init(&options);
    options.seeding = KITH_SEEDING_GIVEN;
    cr_assert_eq(refused(&view, 5, &options), KITH_ERR_ARGUMENT);
    kith_kmeans_options_init(&options);
    float weights[50] = {0};
    options.weights = weights;
    cr_assert_eq(refused(&view, 5, &options), KITH_ERR_ARGUMENT);
    weights[7] = NAN;
    cr_assert_eq(refused(&view, 5, &options), KITH_ERR_ARGUMENT);
    kith_kmeans_options_init(&options);
    options.balance_max = 0.5;
    cr_assert_eq(refused(&view, 5, &options), KITH_ERR_ARGUMENT);
    kith_kmeans_options_init(&options);
    points[3 * DIM + 2] = NAN;
    cr_assert_eq(refused(&view, 5, &options), KITH_ERR_NOT_FINITE);
    cr_assert_str_eq(kith_error_message(), "k-means: row 3, column 2 is nan");
    for (size_t j = 0; j < DIM; j++) points[3 * DIM + j] = 0;
    options.spherical = 1;
    cr_assert_eq(refused(&view, 5, &options), KITH_ERR_ZERO_VECTOR);
    free(points);
}

static int cancel_at_once(void *user, const char *phase, uint64_t done, uint64_t total) {
    (void)user, (void)phase, (void)done, (void)total;
    return 1;
}

Test(kmeans, cancel_and_budget) {
    float *points = make_points(500, 5, 0), centroids[5 * DIM];
    kith_view view = view_of(points, 500);
    kith_job job;
    kith_job_init(&job);
    job.progress = cancel_at_once;
    cr_assert_eq(kith_kmeans_train(&view, 5, NULL, &job, centroids, NULL), KITH_ERR_CANCELLED);
    kith_job_init(&job);
    job.memory_bytes_max = 1000;
    cr_assert_eq(kith_kmeans_train(&view, 5, NULL, &job, centroids, NULL), KITH_ERR_BUDGET);
    cr_assert_eq(kith_memory_live_blocks(), 0);
    free(points);
}

/* Points without directions to choose from: the search does not even begin with few dimensions, and ends with nothing
 * when all points are the same. */
Test(kmeans, no_directions_to_choose_from) {
    enum { COUNT = 1000, K = 256, WIDE = 64 };
    float *rows = calloc(COUNT * WIDE, 4), *centroids = malloc(K * WIDE * 4);
    uint32_t *assigned = calloc(COUNT, 4);
    faults_install();
    for (int same = 0; same < 2; same++) {
        size_t dim = same ? WIDE : 1;
        for (size_t i = 0; i < COUNT * dim; i++) rows[i] = same ? 3.5f : kith_random_normal(9, 1, i);
        kith_view view = {.data = rows, .dtype = KITH_F32, .count = COUNT, .dim = dim};
        kith_kmeans_report report = {.size = sizeof report};
        cr_assert_eq(kith_kmeans_train(&view, K, NULL, NULL, centroids, &report), KITH_OK);
        for (size_t i = 0; i < K * dim; i++) cr_assert(same ? centroids[i] == 3.5f : isfinite(centroids[i]));
        cr_assert(same ? report.objective == 0 : report.objective > 0);

        if (same) memset(rows, 0, COUNT * WIDE * 4); /* as they are once their mean is taken off */
        kith_points points = {.rows = rows, .count = COUNT, .dim = dim};
        kith_assigner assigner;
        cr_assert_eq(kith_assigner_create(&assigner, &points, K, false, 1), KITH_OK);
        cr_assert_eq(kith_assigner_run(&assigner, rows, assigned, NULL), KITH_OK);
        faults_fail_allocation(0);
        cr_assert_eq(kith_assigner_prune(&assigner, rows, assigned, 100), KITH_OK);
        cr_assert_leq(faults_allocation_count(), same ? 1 : 0);
        cr_assert_eq(assigner.directions.count, 0);
        kith_assigner_free(&assigner);
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
    free(rows);
    free(centroids);
    free(assigned);
}

/* Every allocation fails once: a clean error each time, nothing leaked. */
Test(kmeans, nth_allocation_failure) {
    float *points = make_points(700, 9, 0), centroids[20 * DIM], want[20 * DIM];
    kith_view view = view_of(points, 700);
    for (int variant = 0; variant < 3; variant++) {
        kith_kmeans_options options;
        kith_kmeans_options_init(&options);
        options.points_per_centroid_max = 20;
        options.iterations = 3;
        if (variant == 1) options.seeding = KITH_SEEDING_PLUS_PLUS;
        if (variant == 2) options.levels = 2;
        faults_fail_allocation(0);
        cr_assert_eq(kith_kmeans_train(&view, 20, &options, NULL, want, NULL), KITH_OK);
        size_t total = faults_allocation_count();
        cr_assert_gt(total, 5);
        for (size_t n = 1; n <= total; n++) {
            faults_fail_allocation(n);
            cr_assert_eq(kith_kmeans_train(&view, 20, &options, NULL, centroids, NULL), KITH_ERR_NO_MEMORY);
            cr_assert_eq(kith_memory_live_blocks(), 0, "allocation %zu leaks", n);
        }
        faults_fail_allocation(0);
        cr_assert_eq(kith_kmeans_train(&view, 20, &options, NULL, centroids, NULL), KITH_OK);
        cr_assert_arr_eq(centroids, want, sizeof want);
    }
    free(points);
}

/* The same where rounds go by a few directions. */
Test(kmeans, nth_allocation_failure_of_directions) {
    enum { COUNT = 300, K = 40, WIDE = 64 };
    float *rows = malloc(COUNT * WIDE * 4);
    uint32_t assigned[COUNT] = {0};
    make_low_rank(COUNT, WIDE, 4, 0.1f, rows);
    kith_points points = {.rows = rows, .count = COUNT, .dim = WIDE};
    kith_directions directions = {0};
    for (size_t n = 0, total = 1; n <= total; n++) {
        kith_assigner assigner;
        size_t count = 0;
        faults_fail_allocation(n);
        kith_status status = kith_assigner_create(&assigner, &points, K, false, 1);
        if (status == KITH_OK) status = kith_assigner_project(&assigner, rows, 32);
        if (status == KITH_OK) status = kith_assigner_run(&assigner, rows, assigned, NULL);
        if (status == KITH_OK) status = kith_directions_find(&directions, rows, K, WIDE, 40, 1);
        if (status == KITH_OK)
            status = kith_directions_choose(&directions, &points, rows, K, assigned, false, 10, 1, &count);
        if (n == 0) total = faults_allocation_count();
        cr_assert_eq(status, n == 0 ? KITH_OK : KITH_ERR_NO_MEMORY, "allocation %zu", n);
        kith_directions_free(&directions);
        kith_assigner_free(&assigner);
        cr_assert_eq(kith_memory_live_blocks(), 0, "allocation %zu leaks", n);
    }
    faults_fail_allocation(0);
    free(rows);
}
