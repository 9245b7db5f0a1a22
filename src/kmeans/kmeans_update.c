/* SPDX-License-Identifier: Apache-2.0
 *
 * kmeans_update.c: new centroids from an assignment.
 *
 * The points are sorted by cluster first (a counting sort, so members keep their order); then each cluster is one
 * task that adds its members up in that order, in double precision. No sum depends on the thread count. From round to
 * round few points change their cluster, so sums are kept and only those are added and taken off.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "kmeans/kmeans_inside.h"
#include "simd/simd.h"

/* Columns that are summed at a time: their sums stay in the first-level cache. Members lie anywhere, so they are fetched
 * some ahead. */
enum { DIM_BLOCK = 1024, MEMBERS_AHEAD = 4, LINE_FLOATS = 16 };

kith_status kith_clusters_create(kith_clusters *clusters, size_t point_count, size_t k) {
    *clusters = (kith_clusters){0};
    kith_status status;
    KITH_GO(kith_alloc(point_count, sizeof *clusters->members, &clusters->members));
    KITH_GO(kith_alloc(k + 1, sizeof *clusters->first, &clusters->first));
    KITH_GO(kith_alloc(k, sizeof *clusters->errors, &clusters->errors));
    KITH_GO(kith_alloc(k, sizeof *clusters->weights, &clusters->weights));
done:
    if (status != KITH_OK) kith_clusters_free(clusters);
    return status;
}

void kith_clusters_free(kith_clusters *clusters) {
    kith_free(clusters->members);
    kith_free(clusters->first);
    kith_free(clusters->errors);
    kith_free(clusters->weights);
    *clusters = (kith_clusters){0};
}

void kith_clusters_sort(kith_clusters *clusters, const uint32_t *assigned, size_t point_count, size_t k) {
    size_t *first = clusters->first;
    memset(first, 0, (k + 1) * sizeof *first);
    for (size_t i = 0; i < point_count; i++) first[assigned[i] + 1]++;
    for (size_t c = 0; c < k; c++) first[c + 1] += first[c];
    for (size_t i = 0; i < point_count; i++) clusters->members[first[assigned[i]]++] = (uint32_t)i;
    for (size_t c = k; c > 0; c--) first[c] = first[c - 1]; /* each had moved to the next one's start */
    first[0] = 0;
}

static double weight_of(const kith_points *points, size_t i) {
    return points->weights != NULL ? (double)points->weights[i] : 1.0;
}

typedef struct cluster_loop {
    kith_clusters *clusters;
    const kith_points *points;
    const float *centroids;
} cluster_loop;

static kith_status measure_cluster(void *context, size_t c, size_t worker) {
    const cluster_loop *loop = context;
    (void)worker;
    const kith_simd_table *simd = kith_simd();
    size_t dim = loop->points->dim;
    double error = 0, weight = 0;
    for (size_t m = loop->clusters->first[c]; m < loop->clusters->first[c + 1]; m++) {
        size_t i = loop->clusters->members[m];
        float distance = simd->floats[KITH_OP_L2SQ][KITH_PAIR_F32_F32].one(loop->points->rows + i * dim,
                                                                           loop->centroids + c * dim, dim);
        error += weight_of(loop->points, i) * (double)distance;
        weight += weight_of(loop->points, i);
    }
    loop->clusters->errors[c] = error;
    loop->clusters->weights[c] = weight;
    return KITH_OK;
}

kith_status kith_clusters_measure(kith_clusters *clusters, const kith_points *points, const float *centroids,
                                  size_t k, size_t threads, double *objective) {
    cluster_loop loop = {clusters, points, centroids};
    KITH_TRY(kith_parallel_for(threads, k, measure_cluster, &loop));
    *objective = 0;
    for (size_t c = 0; c < k; c++) *objective += clusters->errors[c];
    return KITH_OK;
}

static void normalise(float *vector, size_t dim) {
    double norm2 = 0;
    for (size_t j = 0; j < dim; j++) norm2 += (double)vector[j] * (double)vector[j];
    if (norm2 <= 0) return;
    double scale = 1 / sqrt(norm2);
    for (size_t j = 0; j < dim; j++) vector[j] = (float)((double)vector[j] * scale);
}

static double weight_of_cluster(const kith_clusters *clusters, const kith_points *points, size_t c) {
    double weight = 0;
    for (size_t m = clusters->first[c]; m < clusters->first[c + 1]; m++)
        weight += weight_of(points, clusters->members[m]);
    return weight;
}

/* Adds columns [start, start + width) of point i, weighted. */
static void add_row(const kith_points *points, size_t i, size_t start, size_t width, double *sums) {
    const float *row = points->rows + i * points->dim + start;
    if (points->weights == NULL) {
        kith_simd()->matrix.accumulate(sums, row, width);
        return;
    }
    double weight = weight_of(points, i);
    for (size_t j = 0; j < width; j++) sums[j] += weight * (double)row[j];
}

/* The same of the members of cluster c. */
static void add_members(const kith_clusters *clusters, const kith_points *points, size_t c, size_t start,
                        size_t width, double *sums) {
    size_t last = clusters->first[c + 1];
    for (size_t m = clusters->first[c]; m < last; m++) {
        if (m + MEMBERS_AHEAD < last) {
            const float *later = points->rows + clusters->members[m + MEMBERS_AHEAD] * points->dim + start;
            for (size_t j = 0; j < width; j += LINE_FLOATS) __builtin_prefetch(later + j);
        }
        add_row(points, clusters->members[m], start, width, sums);
    }
}

void kith_clusters_mean(const kith_clusters *clusters, const kith_points *points, size_t c, float *mean) {
    size_t dim = points->dim;
    double weight = weight_of_cluster(clusters, points, c);
    for (size_t start = 0; start < dim; start += DIM_BLOCK) {
        size_t width = kith_min_size(DIM_BLOCK, dim - start);
        double sums[DIM_BLOCK];
        memset(sums, 0, width * sizeof *sums);
        add_members(clusters, points, c, start, width, sums);
        for (size_t j = 0; j < width; j++) mean[start + j] = (float)(sums[j] / weight);
    }
}

/* ---- Sums kept from round to round ---------------------------------------------------------------------------- */

kith_status kith_sums_create(kith_sums *sums, size_t point_count, size_t k, size_t dim) {
    *sums = (kith_sums){.moves_max = point_count / 4};
    kith_status status;
    KITH_GO(kith_alloc(k, dim * sizeof *sums->sums, &sums->sums));
    KITH_GO(kith_alloc(k, sizeof *sums->present, &sums->present));
    KITH_GO(kith_alloc(k, sizeof *sums->passed, &sums->passed));
    KITH_GO(kith_alloc(k + 1, sizeof *sums->first, &sums->first));
    KITH_GO(kith_alloc(point_count, sizeof *sums->held, &sums->held));
    KITH_GO(kith_alloc(kith_max_size(sums->moves_max, 1), 2 * sizeof *sums->moves, &sums->moves));
done:
    if (status != KITH_OK) kith_sums_free(sums);
    return status;
}

void kith_sums_free(kith_sums *sums) {
    kith_free(sums->sums);
    kith_free(sums->present);
    kith_free(sums->passed);
    kith_free(sums->first);
    kith_free(sums->held);
    kith_free(sums->moves);
    *sums = (kith_sums){0};
}

/* Sorts the points that have moved since the last round by cluster, each both where it was and where it is. False when
 * they are too many, or nothing is known of the round before. */
static bool sort_moves(kith_sums *sums, const uint32_t *assigned, size_t point_count, size_t k) {
    size_t *first = sums->first, count = 0;
    memset(first, 0, (k + 1) * sizeof *first);
    if (!sums->is_filled) return false;
    for (size_t i = 0; i < point_count; i++) {
        if (sums->held[i] == assigned[i]) continue;
        first[sums->held[i] + 1]++;
        first[assigned[i] + 1]++;
        count++;
    }
    if (count > sums->moves_max) return false;
    for (size_t c = 0; c < k; c++) first[c + 1] += first[c];
    for (size_t i = 0; i < point_count; i++) {
        if (sums->held[i] == assigned[i]) continue;
        sums->moves[first[sums->held[i]]++] = (uint32_t)i;
        sums->moves[first[assigned[i]]++] = (uint32_t)i;
    }
    for (size_t c = k; c > 0; c--) first[c] = first[c - 1];
    first[0] = 0;
    return true;
}

typedef struct sums_loop {
    kith_sums *sums;
    const kith_clusters *clusters;
    const kith_points *points;
    const uint32_t *assigned;
    const float *lengths;
    float *centroids;
    bool spherical, by_moves;
} sums_loop;

static void sum_anew(const sums_loop *loop, size_t c) {
    size_t dim = loop->points->dim;
    double *sum = loop->sums->sums + c * dim, length = 0;
    memset(sum, 0, dim * sizeof *sum);
    for (size_t start = 0; start < dim; start += DIM_BLOCK)
        add_members(loop->clusters, loop->points, c, start, kith_min_size(DIM_BLOCK, dim - start), sum + start);
    for (size_t m = loop->clusters->first[c]; m < loop->clusters->first[c + 1]; m++) {
        size_t i = loop->clusters->members[m];
        length += weight_of(loop->points, i) * (double)loop->lengths[i];
    }
    loop->sums->present[c] = loop->sums->passed[c] = length;
}

/* Adds those who came and takes off those who left. False, and nothing is done, when so much has passed through the sum
 * that rounding might show in what is left. */
static bool sum_moves(const sums_loop *loop, size_t c) {
    const double passed_max = 1000; /* of 2^53, against the 2^24 of the result */
    kith_sums *sums = loop->sums;
    size_t dim = loop->points->dim;
    double present = sums->present[c], passed = sums->passed[c];
    for (size_t m = sums->first[c]; m < sums->first[c + 1]; m++) {
        size_t i = sums->moves[m];
        double length = weight_of(loop->points, i) * (double)loop->lengths[i];
        passed += length;
        present += loop->assigned[i] == c ? length : -length;
    }
    if (!(passed <= passed_max * present)) return false;
    sums->present[c] = present;
    sums->passed[c] = passed;
    for (size_t start = 0; start < dim; start += DIM_BLOCK) {
        size_t width = kith_min_size(DIM_BLOCK, dim - start);
        double left[DIM_BLOCK], *sum = sums->sums + c * dim + start;
        memset(left, 0, width * sizeof *left);
        for (size_t m = sums->first[c]; m < sums->first[c + 1]; m++)
            add_row(loop->points, sums->moves[m], start, width, loop->assigned[sums->moves[m]] == c ? sum : left);
        for (size_t j = 0; j < width; j++) sum[j] -= left[j];
    }
    return true;
}

static kith_status update_sum(void *context, size_t c, size_t worker) {
    const sums_loop *loop = context;
    (void)worker;
    size_t dim = loop->points->dim;
    float *centroid = loop->centroids + c * dim;
    double weight = weight_of_cluster(loop->clusters, loop->points, c);
    if (!loop->by_moves || !sum_moves(loop, c)) sum_anew(loop, c);
    if (weight <= 0) return KITH_OK; /* empty: filled later */
    for (size_t j = 0; j < dim; j++) centroid[j] = (float)(loop->sums->sums[c * dim + j] / weight);
    if (loop->spherical) normalise(centroid, dim);
    return KITH_OK;
}

kith_status kith_sums_update(kith_sums *sums, const kith_clusters *clusters, const kith_points *points,
                             const uint32_t *assigned, const float *lengths, size_t k, bool spherical,
                             size_t threads, float *centroids) {
    sums_loop loop = {.sums = sums,
                      .clusters = clusters,
                      .points = points,
                      .assigned = assigned,
                      .lengths = lengths,
                      .centroids = centroids,
                      .spherical = spherical,
                      .by_moves = sort_moves(sums, assigned, points->count, k)};
    KITH_TRY(kith_parallel_for(threads, k, update_sum, &loop));
    memcpy(sums->held, assigned, points->count * sizeof *assigned);
    sums->is_filled = true;
    return KITH_OK;
}

/* ---- Repairs --------------------------------------------------------------------------------------------------- */

static size_t size_of(const kith_clusters *clusters, size_t c) {
    return clusters->first[c + 1] - clusters->first[c];
}

/* Two centroids from one: a relative push of alternating sign, which rounding cannot undo. */
static void push_apart(float *from, float *to, size_t dim) {
    for (size_t j = 0; j < dim; j++) {
        float step = (j % 2 == 0 ? 1.0f : -1.0f) / 1024;
        to[j] = from[j] * (1 + step);
        from[j] *= 1 - step;
    }
}

size_t kith_clusters_fill_empty(const kith_clusters *clusters, size_t k, size_t dim, bool spherical,
                                float *centroids) {
    double *left = clusters->weights; /* free for this: measured anew after each assignment */
    size_t filled = 0;
    for (size_t c = 0; c < k; c++) left[c] = (double)size_of(clusters, c);
    for (size_t c = 0; c < k; c++) {
        if (left[c] > 0) continue;
        size_t largest = 0;
        for (size_t other = 1; other < k; other++)
            if (left[other] > left[largest]) largest = other;
        push_apart(centroids + largest * dim, centroids + c * dim, dim);
        if (spherical) {
            normalise(centroids + largest * dim, dim);
            normalise(centroids + c * dim, dim);
        }
        left[largest] /= 2;
        left[c] = left[largest];
        filled++;
    }
    return filled;
}

double kith_clusters_largest_ratio(const kith_clusters *clusters, size_t k) {
    size_t largest = 0;
    for (size_t c = 0; c < k; c++) largest = kith_max_size(largest, size_of(clusters, c));
    return (double)largest * (double)k / (double)clusters->first[k];
}

double kith_clusters_imbalance(const kith_clusters *clusters, size_t k) {
    double squares = 0, n = (double)clusters->first[k];
    for (size_t c = 0; c < k; c++) squares += (double)size_of(clusters, c) * (double)size_of(clusters, c);
    return (double)k * squares / (n * n);
}

static size_t pick(const double *sizes, size_t k, bool largest) {
    size_t found = 0;
    for (size_t c = 1; c < k; c++)
        if (largest ? sizes[c] > sizes[found] : sizes[c] < sizes[found]) found = c;
    return found;
}

size_t kith_clusters_rebalance(const kith_clusters *clusters, const kith_points *points, size_t k, double ratio_max,
                               uint64_t seed, uint64_t round, float *centroids) {
    double *sizes = clusters->weights; /* free for this, as above */
    size_t dim = points->dim, moved = 0;
    double size_max = ratio_max * (double)points->count / (double)k;
    for (size_t c = 0; c < k; c++) sizes[c] = (double)size_of(clusters, c);
    for (; moved < k / 10 + 1; moved++) {
        size_t large = pick(sizes, k, true), small = pick(sizes, k, false);
        if (sizes[large] <= size_max || large == small) break;
        size_t count = size_of(clusters, large);
        if (count == 0) break;
        size_t member =
            clusters->first[large] + (size_t)kith_random_below(seed, 0x62616c616e6365u + round, moved, count);
        memcpy(centroids + small * dim, points->rows + (size_t)clusters->members[member] * dim,
               dim * sizeof(float));
        sizes[large] /= 2; /* a guess: the next round counts again */
        sizes[small] = sizes[large];
    }
    return moved;
}
