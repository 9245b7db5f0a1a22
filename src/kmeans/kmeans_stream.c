/* SPDX-License-Identifier: Apache-2.0
 *
 * kmeans_stream.c: k-means on points that do not fit memory: by batches (Sculley, "Web-scale k-means clustering",
 * WWW 2010).
 *
 * Each pass takes all points once, in batches of chunks that lie anywhere, in another order each time, so that a file
 * sorted by anything gives batches that look alike. After each batch every centroid moves to the running mean of the
 * points that it was given in this pass: the first batches move it far, the later ones settle it. A pass forgets what
 * the ones before had counted, so one batch of all points is a round of Lloyd's algorithm.
 *
 * Batches are worked on one after the other, a centroid is one task, and its points are added up in their order: the
 * result does not depend on the thread count.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/random.h"
#include "exact/check.h"
#include "kmeans/kmeans_inside.h"

enum { CHUNK = 256, STREAM_CHUNKS = 0x63686e6b, BATCH_PER_CENTROID = 32, BATCH_MIN = 16384 };
/* A pass that lowers the objective by less than this part of it is the last. */
static const double gain_min = 1e-4;

typedef struct stream_run {
    const kith_kmeans_stream *stream;
    const kith_kmeans_options *options;
    const kith_job *job;
    kith_meter meter;
    size_t k, batch_points, batch_count, chunk_count;
    uint32_t *order; /* of the chunks, in this pass */
    float *rows;
    kith_points points; /* the batch: rows less the mean */
    uint32_t *assigned;
    kith_assigner assigner;
    kith_clusters clusters;
    float *mean, *centroids;
    float *means;  /* of the points given to each centroid in this pass; spherical: before they get unit length */
    size_t *given; /* k: how many these are */
} stream_run;

/* ---- Batches -------------------------------------------------------------------------------------------------- */

static kith_status read_chunk(const stream_run *run, size_t chunk, float *out, size_t *count) {
    const kith_kmeans_stream *stream = run->stream;
    size_t first = chunk * CHUNK;
    *count = kith_min_size(CHUNK, stream->count - first);
    KITH_TRY(stream->read(stream->user, first, *count, out));
    const kith_view view = {.data = out, .dtype = KITH_F32, .count = *count, .dim = stream->dim};
    return kith_check_vectors("k-means", &view, first, run->options->spherical ? KITH_COSINE : KITH_L2, 1);
}

static kith_status centre_point(void *context, size_t i, size_t worker) {
    const stream_run *run = context;
    (void)worker;
    float *row = run->rows + i * run->stream->dim;
    for (size_t j = 0; j < run->stream->dim; j++) row[j] -= run->mean[j];
    return KITH_OK;
}

/* Reads batch number `batch` of a pass, and takes the mean from it. */
static kith_status read_batch(stream_run *run, size_t batch) {
    size_t chunks_each = run->batch_points / CHUNK, first = batch * chunks_each;
    run->points.count = 0;
    for (size_t c = first; c < kith_min_size(first + chunks_each, run->chunk_count); c++) {
        size_t count;
        KITH_TRY(read_chunk(run, run->order[c], run->rows + run->points.count * run->stream->dim, &count));
        run->points.count += count;
    }
    return kith_parallel_for(run->job->threads, run->points.count, centre_point, run);
}

/* The nearest centroid of each point of the batch, and by how much they miss them in all. */
static kith_status assign_batch(stream_run *run, double *objective) {
    memset(run->assigned, 0xff, run->points.count * sizeof *run->assigned);
    KITH_TRY(kith_assigner_reload(&run->assigner));
    KITH_TRY(kith_assigner_run(&run->assigner, run->centroids, run->assigned, NULL));
    kith_clusters_sort(&run->clusters, run->assigned, run->points.count, run->k);
    return kith_clusters_measure(&run->clusters, &run->points, run->centroids, run->k, run->job->threads,
                                 objective);
}

/* ---- Passes --------------------------------------------------------------------------------------------------- */

/* Takes the points of a batch into the mean of their centroid. */
static kith_status move_centroid(void *context, size_t c, size_t worker) {
    stream_run *run = context;
    (void)worker;
    size_t dim = run->stream->dim, before = run->given[c];
    size_t count = run->clusters.first[c + 1] - run->clusters.first[c];
    if (count == 0) return KITH_OK;
    float *mean = run->means + c * dim, *centroid = run->centroids + c * dim;
    if (before > 0) memcpy(centroid, mean, dim * sizeof *mean);
    kith_clusters_mean(&run->clusters, &run->points, c, mean);
    double share = (double)count / (double)(before + count), norm2 = 0;
    for (size_t j = 0; j < dim; j++) {
        double old = before > 0 ? (double)centroid[j] : 0;
        mean[j] = (float)(old + ((double)mean[j] - old) * share);
        norm2 += (double)mean[j] * (double)mean[j];
    }
    double scale = run->options->spherical && norm2 > 0 ? 1 / sqrt(norm2) : 1;
    for (size_t j = 0; j < dim; j++) centroid[j] = (float)((double)mean[j] * scale);
    run->given[c] += count;
    return KITH_OK;
}

/* One pass over all points; with `report` it measures and moves nothing. */
static kith_status run_pass(stream_run *run, uint64_t seed, size_t number, kith_run_report *report,
                            double *objective) {
    kith_random_permutation(seed, STREAM_CHUNKS + number, run->chunk_count, run->order);
    memset(run->given, 0, run->k * sizeof *run->given);
    *objective = 0;
    for (size_t batch = 0; batch < run->batch_count; batch++) {
        double own;
        KITH_TRY(read_batch(run, batch));
        KITH_TRY(assign_batch(run, &own));
        *objective += own;
        if (report == NULL)
            KITH_TRY(kith_parallel_for(run->job->threads, run->k, move_centroid, run));
        else
            for (size_t c = 0; c < run->k; c++)
                run->given[c] += run->clusters.first[c + 1] - run->clusters.first[c];
        KITH_TRY(kith_meter_add(&run->meter, 1));
    }
    /* How many each was given in all is what the clusters' own functions go by. */
    run->clusters.first[0] = 0;
    for (size_t c = 0; c < run->k; c++) run->clusters.first[c + 1] = run->clusters.first[c] + run->given[c];
    if (report == NULL) return KITH_OK;
    report->objective = *objective;
    report->largest_ratio = kith_clusters_largest_ratio(&run->clusters, run->k);
    report->imbalance = kith_clusters_imbalance(&run->clusters, run->k);
    return KITH_OK;
}

/* ---- One run -------------------------------------------------------------------------------------------------- */

/* The mean and the first centroids, from the first batch. */
static kith_status start(stream_run *run, uint64_t seed) {
    size_t dim = run->stream->dim;
    const kith_kmeans_options *options = run->options;
    memset(run->mean, 0, dim * sizeof *run->mean);
    kith_random_permutation(seed, STREAM_CHUNKS, run->chunk_count, run->order);
    KITH_TRY(read_batch(run, 0));
    for (size_t j = 0; j < dim && !options->spherical; j++) {
        double sum = 0;
        for (size_t i = 0; i < run->points.count; i++) sum += (double)run->rows[i * dim + j];
        run->mean[j] = (float)(sum / (double)run->points.count);
    }
    KITH_TRY(kith_parallel_for(run->job->threads, run->points.count, centre_point, run));
    for (size_t i = 0; options->initial != NULL && i < run->k * dim; i++)
        run->centroids[i] = options->initial[i] - run->mean[i % dim];
    if (options->seeding == KITH_SEEDING_RANDOM)
        return kith_seed_random(&run->points, run->k, seed, run->centroids);
    if (options->seeding == KITH_SEEDING_PLUS_PLUS)
        return kith_seed_plus_plus(&run->points, run->k, seed, run->job->threads, run->centroids);
    return KITH_OK;
}

static kith_status run_once(stream_run *run, uint64_t seed, bool is_measured, kith_run_report *report) {
    double before = INFINITY, objective;
    *report = (kith_run_report){0};
    KITH_TRY(start(run, seed));
    while (report->iterations < run->options->iterations) {
        KITH_TRY(run_pass(run, seed, report->iterations, NULL, &objective));
        report->iterations++;
        size_t filled = kith_clusters_fill_empty(&run->clusters, run->k, run->stream->dim,
                                                 run->options->spherical != 0, run->centroids);
        report->empty_split_count += filled;
        if (filled == 0 && before - objective <= gain_min * objective) break;
        before = objective;
    }
    return is_measured ? run_pass(run, seed, report->iterations, report, &objective) : KITH_OK;
}

static void release(stream_run *run) {
    kith_free(run->order);
    kith_free(run->rows);
    kith_free(run->assigned);
    kith_assigner_free(&run->assigner);
    kith_clusters_free(&run->clusters);
    kith_free(run->mean);
    kith_free(run->centroids);
    kith_free(run->means);
    kith_free(run->given);
}

static kith_status take_memory(stream_run *run) {
    size_t dim = run->stream->dim, batch = kith_min_size(run->batch_points, run->stream->count);
    KITH_TRY(kith_alloc(run->chunk_count, sizeof *run->order, &run->order));
    KITH_TRY(kith_alloc_zeroed(batch, dim * sizeof *run->rows, &run->rows));
    KITH_TRY(kith_alloc(batch, sizeof *run->assigned, &run->assigned));
    KITH_TRY(kith_alloc_zeroed(dim, sizeof *run->mean, &run->mean));
    KITH_TRY(kith_alloc(run->k, dim * sizeof *run->centroids, &run->centroids));
    KITH_TRY(kith_alloc(run->k, dim * sizeof *run->means, &run->means));
    KITH_TRY(kith_alloc(run->k, sizeof *run->given, &run->given));
    run->points = (kith_points){run->rows, NULL, batch, dim};
    KITH_TRY(kith_clusters_create(&run->clusters, batch, run->k));
    return kith_assigner_create(&run->assigner, &run->points, run->k, run->options->spherical != 0,
                                run->job->threads);
}

/* ---- The call ------------------------------------------------------------------------------------------------- */

static kith_status check_stream(const kith_kmeans_stream *stream, const kith_kmeans_options *options, size_t k) {
    if (stream->read == NULL) return kith_error(KITH_ERR_ARGUMENT, "k-means: the stream has nothing to read with");
    if (stream->dim < 1 || stream->dim > KITH_DIM_MAX)
        return kith_error(KITH_ERR_DIMENSION, "k-means: dimension %zu is outside 1..%d", stream->dim, KITH_DIM_MAX);
    KITH_TRY(kith_kmeans_check_options(options, stream->count, k));
    if (options->weights != NULL || options->balance_max != 0 || options->levels == 2)
        return kith_error(KITH_ERR_ARGUMENT, "k-means: weights, balance and two levels do not go with batches");
    if (options->batch_points != 0 && options->batch_points < k)
        return kith_error(KITH_ERR_ARGUMENT, "k-means: batches of %zu points, fewer than k = %zu",
                          options->batch_points, k);
    return kith_kmeans_check_initial(options->initial, k, stream->dim);
}

/* Whole chunks, and as many in each batch but the last. */
static void plan_batches(stream_run *run) {
    size_t wanted = run->options->batch_points;
    if (wanted == 0) wanted = kith_max_size(BATCH_MIN, BATCH_PER_CENTROID * run->k);
    wanted = kith_min_size(wanted, run->stream->count);
    run->chunk_count = (run->stream->count - 1) / CHUNK + 1;
    size_t chunks_each = (wanted - 1) / CHUNK + 1;
    /* The last chunk may be small: the first batch has to hold k points wherever that chunk comes. */
    if (chunks_each < run->chunk_count && (chunks_each - 1) * CHUNK < run->k) chunks_each++;
    run->batch_points = chunks_each * CHUNK;
    run->batch_count = (run->chunk_count - 1) / chunks_each + 1;
}

static kith_status check_budget(const stream_run *run) {
    size_t dim = run->stream->dim, points, centroids, batch = kith_min_size(run->batch_points, run->stream->count);
    uint64_t most = run->job->memory_bytes_max;
    if (kith_mul_overflows(batch, dim * (sizeof(float) + 2) + 20, &points) ||
        kith_mul_overflows(run->k, dim * (2 * sizeof(float) + 2) + 64, &centroids) ||
        kith_add_overflows(points, centroids, &points) || run->chunk_count > UINT32_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "k-means: %zu points in batches of %zu", run->stream->count, batch);
    if (most == 0 || points <= most) return KITH_OK;
    return kith_error(KITH_ERR_BUDGET, "k-means: needs %zu bytes for batches of %zu points, the budget is %llu",
                      points, batch, (unsigned long long)most);
}

static kith_status train(stream_run *run, float *centroids, kith_kmeans_report *report) {
    const kith_kmeans_options *options = run->options;
    uint64_t start_ns = kith_now_ns();
    bool is_measured = report != NULL || options->runs > 1;
    size_t dim = run->stream->dim;
    kith_run_report best = {.objective = INFINITY};
    float *kept = NULL;
    kith_status status;
    kith_meter_init(&run->meter, run->job->progress, run->job->progress_user, "k-means",
                    (uint64_t)(options->iterations + is_measured) * options->runs * run->batch_count);
    KITH_GO(take_memory(run));
    KITH_GO(kith_alloc(run->k, dim * sizeof *kept, &kept));
    for (size_t r = 0; r < options->runs; r++) {
        kith_run_report own;
        KITH_GO(run_once(run, run->job->seed + r, is_measured, &own));
        if (r > 0 && !(own.objective < best.objective)) continue;
        best = own;
        for (size_t i = 0; i < run->k * dim; i++) kept[i] = run->centroids[i] + run->mean[i % dim];
    }
    KITH_GO(kith_meter_finish(&run->meter));
    memcpy(centroids, kept, run->k * dim * sizeof *kept);
    if (report != NULL)
        kith_kmeans_fill_report(report, &best, run->stream->count, (double)(kith_now_ns() - start_ns) * 1e-9);
done:
    kith_free(kept);
    release(run);
    return status;
}

kith_status kith_kmeans_train_stream(const kith_kmeans_stream *stream, size_t k, const kith_kmeans_options *options,
                                     const kith_job *job, float *centroids, kith_kmeans_report *report) {
    kith_kmeans_stream own_stream = {.size = sizeof own_stream};
    kith_kmeans_options own;
    kith_job own_job;
    if (stream == NULL || centroids == NULL) return kith_error(KITH_ERR_ARGUMENT, "k-means: an argument is NULL");
    if (report != NULL && report->size < sizeof report->size)
        return kith_error(KITH_ERR_ARGUMENT, "k-means: report size %zu; was it initialised?", report->size);
    kith_kmeans_options_init(&own);
    KITH_TRY(kith_options_read("k-means stream", &own_stream, sizeof own_stream, stream));
    KITH_TRY(kith_options_read("k-means options", &own, sizeof own, options));
    KITH_TRY(kith_job_read(&own_job, job));
    KITH_TRY(check_stream(&own_stream, &own, k));
    stream_run run = {.stream = &own_stream, .options = &own, .job = &own_job, .k = k};
    plan_batches(&run);
    KITH_TRY(check_budget(&run));
    kith_warn_few("k-means", own_stream.count, k, "centroids");
    return train(&run, centroids, report);
}
