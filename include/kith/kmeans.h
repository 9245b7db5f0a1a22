/* SPDX-License-Identifier: Apache-2.0
 *
 * kith/kmeans.h: k-means clustering. The same points, options and seed give the same centroids, bit for bit, at any
 * thread count and on every instruction set.
 */
#ifndef KITH_KMEANS_H
#define KITH_KMEANS_H

#include "kith/types.h"
#include "kith/vectors.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How the first centroids are chosen. */
typedef enum kith_kmeans_seeding {
    KITH_SEEDING_RANDOM = 1,    /* k different points */
    KITH_SEEDING_PLUS_PLUS = 2, /* Arthur and Vassilvitskii, "k-means++", SODA 2007: each next point is drawn with a
                                   probability proportional to its squared distance from those chosen */
    KITH_SEEDING_GIVEN = 3      /* options.initial */
} kith_kmeans_seeding;

/* NULL stands for the defaults. */
typedef struct kith_kmeans_options {
    size_t size;       /* set by kith_kmeans_options_init */
    size_t iterations; /* default 25; 1..10000. Ends earlier when no point changes its centroid */
    size_t runs;       /* default 1; 1..100: whole runs from other seeds; the one of the least objective is kept */
    kith_kmeans_seeding seeding;    /* default KITH_SEEDING_RANDOM */
    const float *initial;           /* k x dim, for KITH_SEEDING_GIVEN; NULL else */
    const float *weights;           /* one for each point, finite, >= 0, not all 0; NULL: all 1 */
    int spherical;                  /* default 0; 1: centroids have unit length and points go to the largest inner
                                    product (Dhillon and Modha 2001) */
    size_t points_per_centroid_max; /* default 256: a random sample of so many times k is used; 0: all points */
    double balance_max; /* default 0: off; else > 1: while the largest cluster has more than balance_max times the
                           mean, the smallest ones are moved into it. The report says what was reached */
    size_t levels;      /* default 0: two from k = 65,536 on, else one. Two: sqrt(k) clusters first, then each of
                           them is cut into its share of the k */
    size_t
        batch_points; /* of kith_kmeans_train_stream: points held at a time, at least k; default 0: 32 k, at least
                            16,384 */
} kith_kmeans_options;
KITH_API void kith_kmeans_options_init(kith_kmeans_options *options);

typedef struct kith_kmeans_report {
    size_t size;              /* set by the caller: sizeof(kith_kmeans_report) */
    size_t point_count;       /* points used, after sampling */
    size_t iterations;        /* done, in the run that was kept */
    double objective;         /* sum of weight x squared distance to the own centroid, after the last assignment;
                                  spherical: to the centroid of unit length as well */
    double imbalance;         /* k x sum of squared cluster sizes / n^2: 1 when all are equal (as FAISS has it) */
    double largest_ratio;     /* the largest cluster / the mean */
    size_t empty_split_count; /* clusters that had run empty and were given half of a large one */
    double seconds;           /* in all */
    double seconds_per_iteration;
} kith_kmeans_report;

/* Clusters `points` (f32, f16, bf16, i8, u8) into k centroids, k x dim, written to `centroids` on success.
 * 1 <= k <= points->count. job: threads, seed, progress (phase "k-means", in iterations), memory_bytes_max (the
 * sample as f32 and what goes with it; KITH_ERR_BUDGET up front).
 * Errors: KITH_ERR_NOT_FINITE and KITH_ERR_RANGE name the point, KITH_ERR_ARGUMENT for k and options,
 * KITH_ERR_ZERO_VECTOR for a point without direction when spherical. `report` may be NULL:
 * then the points are not assigned to the last centroids, which saves the time of a round. */
KITH_API kith_status kith_kmeans_train(const kith_view *points, size_t k, const kith_kmeans_options *options,
                                       const kith_job *job, float *centroids,
                                       kith_kmeans_report *report) KITH_CHECK_RESULT;

/* Points that need not fit memory. */
typedef struct kith_kmeans_stream {
    size_t size; /* set by the caller: sizeof(kith_kmeans_stream) */
    size_t count, dim;
    /* Writes the points first .. first + count - 1 as f32, packed: the same ones whenever they are asked for. Called on
     * the caller's thread, again in each pass; any other status than KITH_OK ends the training with it. */
    kith_status (*read)(void *user, size_t first, size_t count, float *out);
    void *user;
} kith_kmeans_stream;

/* The same by batches of options->batch_points, for points that do not fit memory (mini-batch k-means: Sculley,
 * "Web-scale k-means clustering", WWW 2010). `iterations` are passes over all points: a few do. It ends earlier when a
 * pass lowers the objective by less than 0.01%. Points are taken in chunks of 256, in random order. With a report or
 * several runs one more pass measures what was reached. All points are used, whatever points_per_centroid_max says;
 * KITH_ERR_ARGUMENT for weights, balance_max and two levels. */
KITH_API kith_status kith_kmeans_train_stream(const kith_kmeans_stream *stream, size_t k,
                                              const kith_kmeans_options *options, const kith_job *job,
                                              float *centroids, kith_kmeans_report *report) KITH_CHECK_RESULT;

/* The centroid nearest to each point: numbers into assigned[points->count] and, unless NULL, squared distances (or
 * inner products when spherical) into values. Ties by the lower number. */
KITH_API kith_status kith_kmeans_assign(const kith_view *points, const float *centroids, size_t k, int spherical,
                                        const kith_job *job, uint32_t *assigned, float *values) KITH_CHECK_RESULT;

#ifdef __cplusplus
}
#endif
#endif
