/* SPDX-License-Identifier: Apache-2.0
 *
 * kmeans_inside.h: the parts of k-means.
 */
#ifndef KITH_KMEANS_KMEANS_INSIDE_H
#define KITH_KMEANS_KMEANS_INSIDE_H

#include <stdbool.h>

#include "base/parallel.h"
#include "kith/kmeans.h"

/* The points of a run: packed rows of f32, less their mean (unless spherical), so that products do not cancel far
 * from the origin. */
typedef struct kith_points {
    const float *rows;    /* count x dim */
    const float *weights; /* NULL: all 1 */
    size_t count, dim;
} kith_points;

/* ---- kmeans_sketch.c: vectors in 8 bits, with a bound on what that loses ------------------------------------ */

/* Vector v is scale * (its bytes) + a rest of norm errors[v]. The bytes are packed for one side of the integer tile. */
typedef struct kith_sketch {
    size_t count, dim, words, lanes;
    float scale;
    uint32_t *packed;
    int32_t *terms; /* of the integer tile: see simd.h */
    float *norms;   /* of the vectors, rounded up */
    float *errors;  /* rounded up */
} kith_sketch;

/* Room for `count` vectors; `as_queries`: the side of the tile that they will be on. */
kith_status kith_sketch_create(kith_sketch *sketch, size_t count, size_t dim, bool as_queries);
void kith_sketch_free(kith_sketch *sketch);
/* Takes the vectors, count x dim. */
kith_status kith_sketch_load(kith_sketch *sketch, const float *vectors, bool as_queries, size_t threads);

/* ---- kmeans_assign.c: the nearest of k centroids for many points --------------------------------------------- */

typedef struct kith_assigner {
    size_t k, dim, threads;
    bool spherical;
    const kith_points *points;
    kith_sketch point_sketch, centroid_sketch;
    const float *centroids;        /* the caller's, of the last load */
    double error_base, reach_base; /* e* and y* of kmeans_assign.c */
    double inverse_unit;           /* 1 / (product of the sketches' scales): what one step of a score stands for */
    int32_t *bias;
    unsigned char *scratch; /* of each thread */
    size_t scratch_bytes;
} kith_assigner;

/* Borrows the points until it is freed. */
kith_status kith_assigner_create(kith_assigner *assigner, const kith_points *points, size_t k, bool spherical,
                                 size_t threads);
/* Takes other points that the caller has put where those of create were, no more of them. */
kith_status kith_assigner_reload(kith_assigner *assigner);
void kith_assigner_free(kith_assigner *assigner);
/* assigned[i] becomes the number of the centroid at the least squared distance of point i (largest inner product when
 * spherical), as the `one` kernel computes it, the lower number on a tie. What it held before, UINT32_MAX for
 * nothing, is where the search starts. *changed, unless NULL: how many are others than before. */
kith_status kith_assigner_run(kith_assigner *assigner, const float *centroids, uint32_t *assigned, size_t *changed);

/* ---- kmeans_update.c: new centroids from the assignment ---------------------------------------------------- */

typedef struct kith_clusters {
    uint32_t *members; /* points, cluster by cluster, in order of their numbers */
    size_t *first;     /* k + 1: cluster c has members first[c] .. first[c + 1] - 1 */
    double *errors;    /* k: sum of weight x squared distance to the own centroid */
    double *weights;   /* k: sum of the members' weights */
} kith_clusters;

kith_status kith_clusters_create(kith_clusters *clusters, size_t point_count, size_t k);
void kith_clusters_free(kith_clusters *clusters);
/* Sorts the points into their clusters. */
void kith_clusters_sort(kith_clusters *clusters, const uint32_t *assigned, size_t point_count, size_t k);
/* Fills errors and weights for the given centroids and returns the objective. */
kith_status kith_clusters_measure(kith_clusters *clusters, const kith_points *points, const float *centroids,
                                  size_t k, size_t threads, double *objective);
/* The weighted mean of cluster c, which has members of weight > 0. */
void kith_clusters_mean(const kith_clusters *clusters, const kith_points *points, size_t c, float *mean);
/* Moves each centroid that has members to their weighted mean (and to unit length when spherical). */
kith_status kith_clusters_update(const kith_clusters *clusters, const kith_points *points, size_t k, bool spherical,
                                 size_t threads, float *centroids);
/* Gives each empty cluster half of the cluster that is largest then: both centroids are the old one, pushed apart
 * by 1/1024 of each coordinate's magnitude (as FAISS does). Returns how many. */
size_t kith_clusters_fill_empty(const kith_clusters *clusters, size_t k, size_t dim, bool spherical,
                                float *centroids);
/* Moves the smallest clusters' centroids to random members of clusters larger than ratio_max times the mean, at most
 * a tenth of all; returns how many. */
size_t kith_clusters_rebalance(const kith_clusters *clusters, const kith_points *points, size_t k, double ratio_max,
                               uint64_t seed, uint64_t round, float *centroids);
double kith_clusters_largest_ratio(const kith_clusters *clusters, size_t k);
double kith_clusters_imbalance(const kith_clusters *clusters, size_t k);

/* ---- kmeans_seed.c ------------------------------------------------------------------------------------------ */

kith_status kith_seed_random(const kith_points *points, size_t k, uint64_t seed, float *centroids);
kith_status kith_seed_plus_plus(const kith_points *points, size_t k, uint64_t seed, size_t threads,
                                float *centroids);

/* ---- kmeans_run.c: one level -------------------------------------------------------------------------------- */

typedef struct kith_run_options {
    size_t k, iterations, runs, threads;
    kith_kmeans_seeding seeding;
    const float *initial;
    bool spherical;
    double balance_max;
    uint64_t seed;
    kith_meter *meter; /* counts iterations; NULL: none */
} kith_run_options;

typedef struct kith_run_report {
    size_t iterations, empty_split_count;
    double objective, imbalance, largest_ratio;
} kith_run_report;

/* Runs Lloyd's algorithm; writes the best run's centroids. `assigned` (one for each point) gets its assignment. */
kith_status kith_kmeans_run(const kith_points *points, const kith_run_options *options, float *centroids,
                            uint32_t *assigned, kith_run_report *report);
/* The two-level way. The same outputs, but no rounds over all k centroids. */
kith_status kith_kmeans_run_two_levels(const kith_points *points, const kith_run_options *options, float *centroids,
                                       uint32_t *assigned, kith_run_report *report);

/* ---- kmeans.c: what both ways of training share ------------------------------------------------------------- */

kith_status kith_kmeans_check_options(const kith_kmeans_options *options, size_t point_count, size_t k);
/* `initial` may be NULL. */
kith_status kith_kmeans_check_initial(const float *initial, size_t k, size_t dim);
void kith_kmeans_fill_report(kith_kmeans_report *report, const kith_run_report *run, size_t point_count,
                             double seconds);

#endif
