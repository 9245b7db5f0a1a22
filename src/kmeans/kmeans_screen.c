/* SPDX-License-Identifier: Apache-2.0
 *
 * kmeans_screen.c: points and centroids so that one integer product says whether a centroid may be the nearest.
 *
 * A screen sees vectors by a projection on `dim` orthonormal directions (or whole: then nothing is left out): x has the
 * length |x|, its projection y = s y8 + e the norm |y| and the rest |e|, and |x'| is the length of what the projection
 * leaves out. Likewise c, z = t z8 + f and |c'|. By Cauchy and Schwarz
 *     <x, c>  <=  s t <y8, z8> + |e| |z| + (|y| + |e|) |f| + |x'| |c'|,
 * so a centroid can be nearer than the best one so far, at squared distance U, only if
 *     s t <y8, z8> - |c|^2 / 2  >=  (|x|^2 - U) / 2 - |e| |z| - (|y| + |e|) |f| - |x'| |c'|.
 * With |e| = e* + (|e| - e*), |y| + |e| = y* + (|y| + |e| - y*) and |x'| = x* + (|x'| - x*), where e*, y* and x* are
 * means over the points, the part e* |z| + y* |f| + x* |c'| joins the left side, which is one integer of the tile then.
 * The small rest, bounded over a block of centroids, stays in the threshold.
 */
#include <math.h>

#include "base/error.h"
#include "base/memory.h"
#include "kmeans/kmeans_inside.h"
#include "simd/simd.h"

/* A block of centroids fills half of the second-level cache of small processors at most. */
static const size_t block_bytes_max = (size_t)256 << 10;
/* Keeps all sums of the tile within 32 bits. */
static const double bias_max = 1073741824.0;

static size_t padded_k(const kith_screen *screen) {
    size_t lanes = screen->centroids.lanes;
    return (screen->centroids.count + lanes - 1) / lanes * lanes;
}

static double mean_of(const float *values, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)values[i];
    return sum / (double)count;
}

kith_status kith_screen_create(kith_screen *screen, size_t point_count, size_t k, size_t dim) {
    *screen = (kith_screen){0};
    kith_status status;
    KITH_GO(kith_sketch_create(&screen->points, point_count, dim, KITH_SKETCH_QUERIES));
    KITH_GO(kith_sketch_create(&screen->centroids, k, dim, KITH_SKETCH_ROWS));
    size_t lanes = screen->centroids.lanes, fits = block_bytes_max / (screen->centroids.words * sizeof(uint32_t));
    screen->columns = kith_max_size(kith_min_size(fits, KITH_SCREEN_COLUMNS) / lanes, 1) * lanes;
    screen->block_count = (padded_k(screen) + screen->columns - 1) / screen->columns;
    KITH_GO(kith_alloc(padded_k(screen), sizeof *screen->bias, &screen->bias));
    KITH_GO(kith_alloc(screen->block_count, sizeof *screen->bounds, &screen->bounds));
    KITH_GO(kith_alloc_zeroed(point_count, sizeof *screen->point_tails, &screen->point_tails));
    KITH_GO(kith_alloc_zeroed(k, sizeof *screen->centroid_tails, &screen->centroid_tails));
    screen->point_lengths = screen->points.norms;
    screen->centroid_lengths = screen->centroids.norms;
done:
    if (status != KITH_OK) kith_screen_free(screen);
    return status;
}

void kith_screen_free(kith_screen *screen) {
    kith_sketch_free(&screen->points);
    kith_sketch_free(&screen->centroids);
    kith_free(screen->bias);
    kith_free(screen->bounds);
    kith_free(screen->point_tails);
    kith_free(screen->centroid_tails);
    *screen = (kith_screen){0};
}

/* What a centroid's score starts from: -|c|^2 / 2 and its part of the bound, rounded up. */
static double score_start(const kith_screen *screen, size_t c, bool spherical) {
    double norm = (double)screen->centroids.norms[c], error = (double)screen->centroids.errors[c],
           length = (double)screen->centroid_lengths[c];
    double start = screen->error_base * norm + screen->reach_base * error +
                   screen->tail_base * (double)screen->centroid_tails[c];
    if (!spherical) start -= length * length * 0.4999;
    return ceil(start * screen->inverse_unit);
}

static kith_screen_bounds bounds_of(const kith_screen *screen, size_t first, size_t count) {
    kith_screen_bounds bounds = {INFINITY, 0, INFINITY, 0, INFINITY, 0, 0};
    for (size_t c = first; c < kith_min_size(first + count, screen->centroids.count); c++) {
        /* No fmin and fmax: gcc 12 for AArch64 dies on their reduction. All values are finite. */
        double norm = (double)screen->centroids.norms[c], error = (double)screen->centroids.errors[c],
               tail = (double)screen->centroid_tails[c], length = (double)screen->centroid_lengths[c];
        if (norm < bounds.norm_min) bounds.norm_min = norm;
        if (norm > bounds.norm_max) bounds.norm_max = norm;
        if (error < bounds.error_min) bounds.error_min = error;
        if (error > bounds.error_max) bounds.error_max = error;
        if (tail < bounds.tail_min) bounds.tail_min = tail;
        if (tail > bounds.tail_max) bounds.tail_max = tail;
        if (length > bounds.length_max) bounds.length_max = length;
    }
    return bounds;
}

void kith_screen_prepare(kith_screen *screen, bool spherical) {
    const kith_sketch *points = &screen->points, *centroids = &screen->centroids;
    screen->inverse_unit = 1 / ((double)centroids->scale * (double)points->scale);
    screen->error_base = mean_of(points->errors, points->count);
    screen->reach_base = mean_of(points->norms, points->count) + screen->error_base;
    screen->tail_base = mean_of(screen->point_tails, points->count);
    for (size_t c = 0; c < centroids->count; c++)
        if (score_start(screen, c, spherical) > bias_max) /* wild outliers: the threshold carries the whole bound */
            screen->error_base = screen->reach_base = screen->tail_base = 0;
    for (size_t c = 0; c < padded_k(screen); c++) {
        double start = c < centroids->count ? fmax(score_start(screen, c, spherical), -bias_max) : -bias_max;
        screen->bias[c] = centroids->terms[c] + (int32_t)start;
    }
    for (size_t b = 0; b < screen->block_count; b++)
        screen->bounds[b] = bounds_of(screen, b * screen->columns, screen->columns);
}

kith_screen_row kith_screen_row_of(const kith_screen *screen, size_t point, size_t dim, bool spherical) {
    double norm = (double)screen->points.norms[point], error = (double)screen->points.errors[point],
           length = (double)screen->point_lengths[point];
    double slack = ((double)dim / 8 + 512) * 0x1p-24;
    return (kith_screen_row){
        .constant = spherical ? 0 : length * length * (1 - 4e-5) / 2 - slack * length * length,
        .per_cost = spherical ? 1 : (1 + slack) / 2,
        .error_rest = error - screen->error_base,
        .reach_rest = norm + error - screen->reach_base,
        .tail_rest = (double)screen->point_tails[point] - screen->tail_base,
        .per_length = (screen->slack + (spherical ? slack : 0)) * length,
        .term = screen->points.terms[point],
    };
}
