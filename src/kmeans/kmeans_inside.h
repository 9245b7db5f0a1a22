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

/* Where the bytes lie: packed for one side of the integer tile, or row by row. */
typedef enum kith_sketch_side { KITH_SKETCH_QUERIES, KITH_SKETCH_ROWS, KITH_SKETCH_BYTES } kith_sketch_side;

/* Vector v is scale * (its bytes) + a rest of norm errors[v]. */
typedef struct kith_sketch {
    size_t count, dim, words, lanes;
    kith_sketch_side side;
    float scale;
    uint32_t *packed; /* on side KITH_SKETCH_BYTES: count x dim signed chars */
    int32_t *terms;   /* of the integer tile: see simd.h */
    float *norms;     /* of the vectors, rounded up */
    float *errors;    /* rounded up */
} kith_sketch;

/* Room for `count` vectors. `side` may change between a creation with one of the first two and a load. */
kith_status kith_sketch_create(kith_sketch *sketch, size_t count, size_t dim, kith_sketch_side side);
void kith_sketch_free(kith_sketch *sketch);
/* Takes all vectors, count x dim. */
kith_status kith_sketch_load(kith_sketch *sketch, const float *vectors, size_t threads);
/* The same in two steps: the scale, from vectors like those to come, then some vectors at a time, from a multiple of
 * `lanes` on. */
void kith_sketch_scale(kith_sketch *sketch, const float *vectors, size_t count);
kith_status kith_sketch_load_part(kith_sketch *sketch, const float *vectors, size_t first, size_t count,
                                  size_t threads);

/* ---- kmeans_screen.c: points and centroids as seen by a projection, and the threshold of their products ------- */

enum { KITH_SCREEN_COLUMNS = 512 };

/* Least and largest among the centroids of a block. */
typedef struct kith_screen_bounds {
    double norm_min, norm_max, error_min, error_max, tail_min, tail_max, length_max;
} kith_screen_bounds;

typedef struct kith_screen {
    kith_sketch points, centroids;                 /* of the projections */
    const float *point_lengths, *centroid_lengths; /* of the vectors themselves, rounded up */
    float *point_tails, *centroid_tails;           /* lengths of what the projection leaves out, rounded up */
    double slack;                                  /* rounding of the projection, for |x| |c| = 1 */
    size_t columns, block_count;                   /* centroids that go through the tile at once */
    double error_base, reach_base, tail_base;      /* e*, y*, x* of kmeans_screen.c */
    double inverse_unit;                           /* 1 / (product of the scales): one step of a score */
    int32_t *bias;                                 /* of the tile */
    kith_screen_bounds *bounds;                    /* of each block */
} kith_screen;

/* One that leaves nothing out, until the caller fills in lengths, tails and slack. */
kith_status kith_screen_create(kith_screen *screen, size_t point_count, size_t k, size_t dim);
void kith_screen_free(kith_screen *screen);
/* After centroids (or points) have changed: bias, bounds and what belongs to them. */
void kith_screen_prepare(kith_screen *screen, bool spherical);

/* What the thresholds of a point are made of. */
typedef struct kith_screen_row {
    double constant, per_cost, error_rest, reach_rest, tail_rest, per_length;
    int32_t term;
} kith_screen_row;

/* `dim`: of the vectors themselves; the slack for the rounding of costs and norms in f32 comes from it. */
kith_screen_row kith_screen_row_of(const kith_screen *screen, size_t point, size_t dim, bool spherical);

/* ---- kmeans_prefix.c: a few directions in which centroids lie ------------------------------------------------- */

/* Directions in the order of how much of the centroids lies in them: rows x dim, orthonormal as near as f32 goes. */
typedef struct kith_directions {
    float *rows;
    size_t count, dim;
} kith_directions;

/* At most `count_max` directions of the centroids, k x dim. May find fewer, or none. */
kith_status kith_directions_find(kith_directions *directions, const float *centroids, size_t k, size_t dim,
                                 size_t count_max, size_t threads);
void kith_directions_free(kith_directions *directions);
/* What that takes: bytes, and time in multiply-adds of the 8-bit tile. */
size_t kith_directions_bytes(size_t dim);
double kith_directions_cost(size_t k, size_t dim, size_t count_max);
/* Keeps the first `count` and turns them within their span, so that no coordinate is much larger than the others.
 * *slack: what products of projections may be off by for vectors of length 1, the tails left out counted in full. */
kith_status kith_directions_turn(kith_directions *directions, size_t count, size_t threads, double *slack);
/* out[i * direction_count + j] = <vector i, direction j>, vectors `stride` elements apart. */
kith_status kith_project(const float *vectors, size_t count, size_t stride, const kith_directions *directions,
                         size_t threads, float *out);
/* Upper bounds of what projections leave of vectors of those lengths. */
void kith_tails_of(const float *lengths, const float *projection_norms, size_t count, double slack, float *tails);
enum { KITH_DIRECTIONS_MIN = 32 };
/* How many of the directions (there are KITH_DIRECTIONS_MIN at least) make an assignment cheapest, over `rounds` of them;
 * 0 when none does by much. */
kith_status kith_directions_choose(const kith_directions *directions, const kith_points *points,
                                   const float *centroids, size_t k, const uint32_t *assigned, bool spherical,
                                   size_t rounds, size_t threads, size_t *count);

/* ---- kmeans_assign.c: the nearest of k centroids for many points --------------------------------------------- */

typedef struct kith_assigner {
    size_t k, dim, threads;
    bool spherical;
    const kith_points *points;
    const float *centroids;     /* the caller's, of the last load */
    kith_screen full, prefix;   /* of all dimensions, and, where directions.count > 0, of those */
    kith_directions directions; /* count = 0: the tile works on `full` */
    float *projected;           /* centroids: k x directions.count */
    unsigned char *scratch;     /* of each thread */
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
/* How many directions are looked for; 0: too few centroids or dimensions to gain by any. */
size_t kith_directions_max(size_t k, size_t dim);
/* Looks whether the next `rounds` runs take less time by projections on a few directions, when the points are assigned
 * already and the centroids are near those to come; if so they go that way. The result is the same. */
kith_status kith_assigner_prune(kith_assigner *assigner, const float *centroids, const uint32_t *assigned,
                                size_t rounds);
/* Goes that way on `count` directions of the centroids (fewer where they span less), whatever it costs: for tests. */
kith_status kith_assigner_project(kith_assigner *assigner, const float *centroids, size_t count);
/* Goes back to all dimensions. */
kith_status kith_assigner_widen(kith_assigner *assigner);

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
/* Sums of the members that are kept from one round to the next. */
typedef struct kith_sums {
    double *sums; /* k x dim, weighted */
    double *present,
        *passed;    /* of each cluster: lengths of its members; of all that were ever added or taken off */
    uint32_t *held; /* of each point: the cluster whose sum has it */
    size_t *first, moves_max;
    uint32_t *moves; /* points that have moved, as clusters->members are sorted */
    bool is_filled;
} kith_sums;

kith_status kith_sums_create(kith_sums *sums, size_t point_count, size_t k, size_t dim);
void kith_sums_free(kith_sums *sums);
/* Moves each centroid that has members to their weighted mean (and to unit length when spherical). `assigned`: what the
 * clusters are sorted by; `lengths`: of the points. Set is_filled to false to start anew. */
kith_status kith_sums_update(kith_sums *sums, const kith_clusters *clusters, const kith_points *points,
                             const uint32_t *assigned, const float *lengths, size_t k, bool spherical,
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
    bool measures;     /* whether the assignment to the last centroids, and the report, are wanted */
    kith_meter *meter; /* counts iterations; NULL: none */
} kith_run_options;

typedef struct kith_run_report {
    size_t iterations, empty_split_count;
    double objective, imbalance, largest_ratio;
} kith_run_report;

/* Runs Lloyd's algorithm; writes the best run's centroids (with several runs it must measure). `assigned` (one for each
 * point) gets its assignment; without `measures` that of the centroids before. */
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
