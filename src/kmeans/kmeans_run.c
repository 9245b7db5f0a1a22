/* SPDX-License-Identifier: Apache-2.0
 *
 * kmeans_run.c: Lloyd's algorithm on points in memory, at one level and at two.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "kmeans/kmeans_inside.h"

static kith_status seed_centroids(const kith_points *points, const kith_run_options *options, uint64_t seed,
                                  float *centroids) {
    if (options->seeding == KITH_SEEDING_GIVEN) {
        memcpy(centroids, options->initial, options->k * points->dim * sizeof *centroids);
        return KITH_OK;
    }
    if (options->seeding == KITH_SEEDING_PLUS_PLUS)
        return kith_seed_plus_plus(points, options->k, seed, options->threads, centroids);
    return kith_seed_random(points, options->k, seed, centroids);
}

/* What one run works with. */
typedef struct lloyd {
    const kith_points *points;
    const kith_run_options *options;
    kith_assigner assigner;
    kith_clusters clusters;
    kith_sums sums;
    float *centroids;
    uint32_t *assigned;
    kith_run_report report;
} lloyd;

static kith_status assign(lloyd *run, size_t *changed) {
    KITH_TRY(kith_assigner_run(&run->assigner, run->centroids, run->assigned, changed));
    kith_clusters_sort(&run->clusters, run->assigned, run->points->count, run->options->k);
    return KITH_OK;
}

/* One round: means, then repairs, then a new assignment. *done when nothing would change any more. */
static kith_status iterate(lloyd *run, uint64_t seed, size_t round, bool *done) {
    const kith_run_options *options = run->options;
    size_t k = options->k, dim = run->points->dim, changed;
    KITH_TRY(kith_sums_update(&run->sums, &run->clusters, run->points, run->assigned,
                              run->assigner.full.points.norms, k, options->spherical, options->threads,
                              run->centroids));
    size_t repaired = kith_clusters_fill_empty(&run->clusters, k, dim, options->spherical, run->centroids);
    run->report.empty_split_count += repaired;
    if (options->balance_max > 0)
        repaired += kith_clusters_rebalance(&run->clusters, run->points, k, options->balance_max, seed, round,
                                            run->centroids);
    run->report.iterations++;
    if (round + 1 < options->iterations || options->measures) {
        if (round == 0)
            KITH_TRY(kith_assigner_prune(&run->assigner, run->centroids, run->assigned,
                                         options->iterations - 1 + options->measures));
        KITH_TRY(assign(run, &changed));
        *done = changed == 0 && repaired == 0;
    }
    return options->meter != NULL ? kith_meter_add(options->meter, 1) : KITH_OK;
}

static kith_status run_once(lloyd *run, uint64_t seed) {
    const kith_run_options *options = run->options;
    run->report = (kith_run_report){0};
    run->sums.is_filled = false;
    KITH_TRY(seed_centroids(run->points, options, seed, run->centroids));
    memset(run->assigned, 0xff, run->points->count * sizeof *run->assigned);
    KITH_TRY(kith_assigner_widen(&run->assigner));
    KITH_TRY(assign(run, NULL));
    bool done = false;
    for (size_t round = 0; round < options->iterations && !done; round++)
        KITH_TRY(iterate(run, seed, round, &done));
    if (!options->measures) return KITH_OK;
    run->report.largest_ratio = kith_clusters_largest_ratio(&run->clusters, options->k);
    run->report.imbalance = kith_clusters_imbalance(&run->clusters, options->k);
    return kith_clusters_measure(&run->clusters, run->points, run->centroids, options->k, options->threads,
                                 &run->report.objective);
}

kith_status kith_kmeans_run(const kith_points *points, const kith_run_options *options, float *centroids,
                            uint32_t *assigned, kith_run_report *report) {
    size_t k = options->k, dim = points->dim;
    lloyd run = {.points = points, .options = options};
    kith_status status;
    report->objective = INFINITY;
    KITH_GO(kith_assigner_create(&run.assigner, points, k, options->spherical, options->threads));
    KITH_GO(kith_clusters_create(&run.clusters, points->count, k));
    KITH_GO(kith_sums_create(&run.sums, points->count, k, dim));
    KITH_GO(kith_alloc(k, dim * sizeof *run.centroids, &run.centroids));
    KITH_GO(kith_alloc(points->count, sizeof *run.assigned, &run.assigned));
    for (size_t r = 0; r < options->runs; r++) {
        KITH_GO(run_once(&run, options->seed + r));
        if (options->measures && !(run.report.objective < report->objective)) continue;
        *report = run.report;
        memcpy(centroids, run.centroids, k * dim * sizeof *centroids);
        memcpy(assigned, run.assigned, points->count * sizeof *assigned);
    }
done:
    kith_free(run.assigned);
    kith_free(run.centroids);
    kith_sums_free(&run.sums);
    kith_clusters_free(&run.clusters);
    kith_assigner_free(&run.assigner);
    return status;
}

/* ---- Two levels --------------------------------------------------------------------------------------------- */

/* How many of the k centroids each coarse cluster gets: in proportion to its size, at least one where there are
 * members and at most as many as there are; what rounding leaves over goes to the largest remainders. */
static void share_out(const kith_clusters *coarse, size_t coarse_k, size_t k, size_t *shares) {
    size_t n = coarse->first[coarse_k], given = 0;
    for (size_t c = 0; c < coarse_k; c++) {
        size_t size = coarse->first[c + 1] - coarse->first[c];
        size_t share = (size_t)((double)size * (double)k / (double)n);
        shares[c] = size == 0 ? 0 : kith_min_size(kith_max_size(share, 1), size);
        given += shares[c];
    }
    while (given != k) {
        size_t best = coarse_k;
        double best_gap = -INFINITY;
        for (size_t c = 0; c < coarse_k; c++) {
            size_t size = coarse->first[c + 1] - coarse->first[c];
            double gap = (double)size * (double)k / (double)n - (double)shares[c];
            if (given > k) gap = -gap;
            bool possible = given < k ? shares[c] < size : shares[c] > 1;
            if (!possible || gap <= best_gap) continue;
            best = c;
            best_gap = gap;
        }
        if (best == coarse_k) return;
        if (given < k)
            shares[best]++, given++;
        else
            shares[best]--, given--;
    }
}

typedef struct fine_part {
    float *rows, *weights;
    uint32_t *assigned;
} fine_part;

/* Clusters the members of one coarse cluster; its centroids are number first_centroid and following. */
static kith_status run_fine(const kith_points *points, const kith_run_options *options, const kith_clusters *coarse,
                            size_t c, size_t share, size_t first_centroid, fine_part *part, float *centroids,
                            uint32_t *assigned, kith_run_report *report) {
    size_t dim = points->dim, first = coarse->first[c], count = coarse->first[c + 1] - first;
    for (size_t i = 0; i < count; i++) {
        size_t from = coarse->members[first + i];
        memcpy(part->rows + i * dim, points->rows + from * dim, dim * sizeof(float));
        if (points->weights != NULL) part->weights[i] = points->weights[from];
    }
    kith_points own = {part->rows, points->weights != NULL ? part->weights : NULL, count, dim};
    kith_run_options fine = *options;
    fine.k = share;
    fine.runs = 1;
    fine.seed = options->seed + 1 + c;
    fine.meter = NULL;
    kith_run_report own_report;
    KITH_TRY(kith_kmeans_run(&own, &fine, centroids + first_centroid * dim, part->assigned, &own_report));
    for (size_t i = 0; i < count; i++)
        assigned[coarse->members[first + i]] = (uint32_t)first_centroid + part->assigned[i];
    report->objective += own_report.objective;
    report->empty_split_count += own_report.empty_split_count;
    report->iterations = kith_max_size(report->iterations, own_report.iterations);
    return options->meter != NULL ? kith_meter_add(options->meter, 1) : KITH_OK;
}

static size_t largest_of(const kith_clusters *clusters, size_t k) {
    size_t largest = 0;
    for (size_t c = 0; c < k; c++) largest = kith_max_size(largest, clusters->first[c + 1] - clusters->first[c]);
    return largest;
}

static kith_status run_all_fine(const kith_points *points, const kith_run_options *options,
                                const kith_clusters *coarse, size_t coarse_k, const size_t *shares,
                                float *centroids, uint32_t *assigned, kith_run_report *report) {
    size_t largest = largest_of(coarse, coarse_k), done_count = 0;
    fine_part part = {0};
    kith_status status;
    KITH_GO(kith_alloc(largest, points->dim * sizeof *part.rows, &part.rows));
    KITH_GO(kith_alloc(largest, sizeof *part.weights, &part.weights));
    KITH_GO(kith_alloc(largest, sizeof *part.assigned, &part.assigned));
    for (size_t c = 0; c < coarse_k; c++) {
        if (shares[c] == 0) continue;
        KITH_GO(run_fine(points, options, coarse, c, shares[c], done_count, &part, centroids, assigned, report));
        done_count += shares[c];
    }
done:
    kith_free(part.rows);
    kith_free(part.weights);
    kith_free(part.assigned);
    return status;
}

kith_status kith_kmeans_run_two_levels(const kith_points *points, const kith_run_options *options, float *centroids,
                                       uint32_t *assigned, kith_run_report *report) {
    kith_run_options first = *options;
    first.k = (size_t)llround(sqrt((double)options->k));
    first.measures = true; /* its assignment is what the second level starts from */
    kith_clusters coarse = {0}, fine = {0};
    float *coarse_centroids = NULL;
    size_t *shares = NULL;
    kith_status status;
    KITH_GO(kith_alloc(first.k, points->dim * sizeof(float), &coarse_centroids));
    KITH_GO(kith_alloc(first.k, sizeof *shares, &shares));
    KITH_GO(kith_clusters_create(&coarse, points->count, first.k));
    KITH_GO(kith_clusters_create(&fine, points->count, options->k));
    KITH_GO(kith_kmeans_run(points, &first, coarse_centroids, assigned, report));
    kith_clusters_sort(&coarse, assigned, points->count, first.k);
    share_out(&coarse, first.k, options->k, shares);
    report->objective = 0;
    KITH_GO(run_all_fine(points, options, &coarse, first.k, shares, centroids, assigned, report));
    kith_clusters_sort(&fine, assigned, points->count, options->k);
    report->largest_ratio = kith_clusters_largest_ratio(&fine, options->k);
    report->imbalance = kith_clusters_imbalance(&fine, options->k);
done:
    kith_clusters_free(&fine);
    kith_clusters_free(&coarse);
    kith_free(shares);
    kith_free(coarse_centroids);
    return status;
}
