/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_kmeans.c: `kith kmeans`: clusters the vectors of a file.
 */
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "kith/kmeans.h"
#include "tool_report.h"

typedef struct kmeans_settings {
    kith_tool_common common;
    const char *base, *out, *initial, *assign, *seeding;
    size_t k, iterations, runs, points_per_centroid, mini_batch, levels, seed, threads;
    kith_tool_real balance;
    uint64_t memory;
    bool spherical;
} kmeans_settings;

static const kmeans_settings defaults = {
    .seeding = "random", .iterations = 25, .runs = 1, .points_per_centroid = 256, .seed = 1};

static const kith_tool_option options[] = {
    {"base", "FILE", "the vectors", offsetof(kmeans_settings, base), KITH_TOOL_FILE, true, 0, 0},
    {"k", "N", "how many centroids", offsetof(kmeans_settings, k), KITH_TOOL_COUNT, true, 1, SIZE_MAX},
    {"out", "FILE", "write the centroids: .npy, .fvecs, .fbin", offsetof(kmeans_settings, out), KITH_TOOL_FILE,
     false, 0, 0},
    {"assign", "FILE", "write each vector's centroid: .ivecs, .ibin, .npy", offsetof(kmeans_settings, assign),
     KITH_TOOL_FILE, false, 0, 0},
    {"iterations", "N", "at most so many rounds (default 25)", offsetof(kmeans_settings, iterations),
     KITH_TOOL_COUNT, false, 1, 10000},
    {"runs", "N", "whole runs, of which the best is kept (default 1)", offsetof(kmeans_settings, runs),
     KITH_TOOL_COUNT, false, 1, 100},
    {"seeding", "random|k-means++", "how the first centroids are chosen (default random)",
     offsetof(kmeans_settings, seeding), KITH_TOOL_CHOICE, false, 0, 0},
    {"initial", "FILE", "the first centroids", offsetof(kmeans_settings, initial), KITH_TOOL_FILE, false, 0, 0},
    {"spherical", NULL, "centroids of unit length, by inner product", offsetof(kmeans_settings, spherical),
     KITH_TOOL_FLAG, false, 0, 0},
    {"points-per-centroid", "N", "train on a sample of so many times k; 0: on all (default 256)",
     offsetof(kmeans_settings, points_per_centroid), KITH_TOOL_COUNT, false, 0, SIZE_MAX},
    {"mini-batch", "N", "hold N vectors at a time and read the file again in each round, instead of a sample",
     offsetof(kmeans_settings, mini_batch), KITH_TOOL_COUNT, false, 1, SIZE_MAX},
    {"balance", "R", "no cluster above R times the mean, where that can be had (R > 1)",
     offsetof(kmeans_settings, balance), KITH_TOOL_REAL, false, 0, 0},
    {"levels", "N", "1, or 2: cut sqrt(k) coarse clusters into the k (default 0: 2 from k = 65536 on)",
     offsetof(kmeans_settings, levels), KITH_TOOL_COUNT, false, 0, 2},
    {"seed", "N", "another seed, other random choices (default 1)", offsetof(kmeans_settings, seed),
     KITH_TOOL_COUNT, false, 0, SIZE_MAX},
    {"memory", "SIZE", "scratch memory stays below: 512M, 2G (default: no limit)",
     offsetof(kmeans_settings, memory), KITH_TOOL_BYTES, false, 0, 0},
    KITH_TOOL_THREADS(kmeans_settings),
    KITH_TOOL_JSON,
    KITH_TOOL_QUIET,
};

static int print_report(const kmeans_settings *settings, const kith_vectors *base,
                        const kith_kmeans_report *report) {
    static const kith_tool_column columns[] = {
        {"base", "file", KITH_TOOL_CELL_TEXT},
        {"count", "vectors", KITH_TOOL_CELL_COUNT},
        {"dim", "dimension", KITH_TOOL_CELL_COUNT},
        {"k", "k", KITH_TOOL_CELL_COUNT},
        {"point_count", "trained on", KITH_TOOL_CELL_COUNT},
        {"iterations", "iterations", KITH_TOOL_CELL_COUNT},
        {"objective", "objective", KITH_TOOL_CELL_REAL},
        {"imbalance", "imbalance factor", KITH_TOOL_CELL_REAL},
        {"largest_ratio", "largest cluster / mean", KITH_TOOL_CELL_REAL},
        {"empty_split_count", "empty clusters refilled", KITH_TOOL_CELL_COUNT},
        {"seconds", "time", KITH_TOOL_CELL_SECONDS},
        {"seconds_per_iteration", "time per iteration", KITH_TOOL_CELL_SECONDS},
    };
    json_t *object = kith_tool_object();
    kith_tool_put_text(object, "base", settings->base);
    kith_tool_put_count(object, "count", kith_vectors_count(base));
    kith_tool_put_count(object, "dim", kith_vectors_dim(base));
    kith_tool_put_count(object, "k", settings->k);
    kith_tool_put_count(object, "point_count", report->point_count);
    kith_tool_put_count(object, "iterations", report->iterations);
    kith_tool_put_real(object, "objective", report->objective);
    kith_tool_put_real(object, "imbalance", report->imbalance);
    kith_tool_put_real(object, "largest_ratio", report->largest_ratio);
    kith_tool_put_count(object, "empty_split_count", report->empty_split_count);
    kith_tool_put_real(object, "seconds", report->seconds);
    kith_tool_put_real(object, "seconds_per_iteration", report->seconds_per_iteration);
    kith_tool_put_count(object, "process_bytes_peak", kith_tool_memory_peak());
    int code = kith_tool_print_object(&settings->common, object, columns, sizeof columns / sizeof *columns);
    json_decref(object);
    return code;
}

/* Reads the first centroids as f32; *out is freed by the caller. */
static int initial_read(const kmeans_settings *settings, size_t dim, float **out) {
    kith_vectors *file = NULL;
    int code;
    KITH_TOOL_GO(kith_tool_vectors_open(settings->initial, NULL, &file));
    KITH_TOOL_GO(kith_tool_dim_check(file, settings->initial, dim, settings->base));
    if (kith_vectors_count(file) != settings->k) {
        code = kith_tool_error(KITH_EXIT_DATA, "%s holds %zu vectors, --k is %zu", settings->initial,
                               kith_vectors_count(file), settings->k);
        goto done;
    }
    *out = calloc(settings->k, dim * sizeof **out);
    if (*out == NULL) {
        code = kith_tool_no_memory(settings->k, dim * sizeof **out);
        goto done;
    }
    code = kith_tool_check(kith_vectors_read(file, 0, settings->k, KITH_F32, *out), settings->initial);
done:
    kith_vectors_close(file);
    return code;
}

enum { ASSIGN_ROWS = 16384 };

/* Some rows at a time: the file may be larger than memory. */
static int assignment_write(const kmeans_settings *settings, kith_vectors *base, const float *centroids,
                            const kith_job *job) {
    size_t count = kith_vectors_count(base), dim = kith_vectors_dim(base);
    uint32_t *assigned = calloc(count, sizeof *assigned);
    float *rows = calloc(ASSIGN_ROWS, dim * sizeof *rows);
    int code = KITH_EXIT_OK;
    if (assigned == NULL || rows == NULL) code = kith_tool_no_memory(count, sizeof *assigned);
    for (size_t first = 0; first < count && code == KITH_EXIT_OK; first += ASSIGN_ROWS) {
        size_t left = count - first;
        kith_view view = {
            .data = rows, .dtype = KITH_F32, .count = left < ASSIGN_ROWS ? left : ASSIGN_ROWS, .dim = dim};
        KITH_TOOL_GO(kith_tool_check(kith_vectors_read(base, first, view.count, KITH_F32, rows), settings->base));
        KITH_TOOL_GO(kith_tool_check(
            kith_kmeans_assign(&view, centroids, settings->k, settings->spherical, job, assigned + first, NULL),
            NULL));
        KITH_TOOL_GO(kith_tool_stop_if_interrupted());
    }
    if (code == KITH_EXIT_OK) code = kith_tool_vectors_write(settings->assign, KITH_U32, assigned, count, 1);
done:
    free(rows);
    free(assigned);
    return code;
}

static kith_kmeans_options options_of(const kmeans_settings *settings, const float *initial) {
    kith_kmeans_options own;
    kith_kmeans_options_init(&own);
    own.iterations = settings->iterations;
    own.runs = settings->runs;
    own.seeding = strcmp(settings->seeding, "random") == 0 ? KITH_SEEDING_RANDOM : KITH_SEEDING_PLUS_PLUS;
    if (initial != NULL) own.seeding = KITH_SEEDING_GIVEN;
    own.initial = initial;
    own.spherical = settings->spherical;
    own.points_per_centroid_max = settings->points_per_centroid;
    own.balance_max = settings->balance.given ? settings->balance.value : 0;
    own.levels = settings->levels;
    own.batch_points = settings->mini_batch;
    return own;
}

static kith_status read_points(void *user, size_t first, size_t count, float *out) {
    return kith_vectors_read(user, first, count, KITH_F32, out);
}

/* Trains on the file by batches, or on a sample of it. */
static int train(const kmeans_settings *settings, kith_vectors *file, const float *initial, const kith_job *job,
                 float *centroids, kith_kmeans_report *report) {
    const kith_kmeans_options own = options_of(settings, initial);
    kith_view base;
    void *owned = NULL;
    int code;
    if (settings->mini_batch != 0) {
        const kith_kmeans_stream stream = {.size = sizeof stream,
                                           .count = kith_vectors_count(file),
                                           .dim = kith_vectors_dim(file),
                                           .read = read_points,
                                           .user = file};
        return kith_tool_check(kith_kmeans_train_stream(&stream, settings->k, &own, job, centroids, report),
                               settings->base);
    }
    KITH_TOOL_GO(kith_tool_vectors_view(file, settings->base, &base, &owned));
    KITH_TOOL_GO(
        kith_tool_check(kith_kmeans_train(&base, settings->k, &own, job, centroids, report), settings->base));
done:
    free(owned);
    return code;
}

static int run(const void *given, const kith_tool_operands *operands) {
    const kmeans_settings *settings = given;
    (void)operands;
    kith_vectors *file = NULL;
    float *initial = NULL, *centroids = NULL;
    kith_kmeans_report report = {.size = sizeof report};
    kith_job job = kith_tool_job(settings->threads);
    job.seed = settings->seed;
    job.memory_bytes_max = settings->memory;
    int code;
    KITH_TOOL_GO(kith_tool_vectors_open(settings->base, NULL, &file));
    size_t dim = kith_vectors_dim(file);
    if (settings->k > kith_vectors_count(file)) {
        code = kith_tool_error(KITH_EXIT_USAGE, "--k %zu: %s holds %zu vectors", settings->k, settings->base,
                               kith_vectors_count(file));
        goto done;
    }
    if (settings->initial != NULL) KITH_TOOL_GO(initial_read(settings, dim, &initial));
    centroids = calloc(settings->k, dim * sizeof *centroids);
    if (centroids == NULL) {
        code = kith_tool_no_memory(settings->k, dim * sizeof *centroids);
        goto done;
    }
    KITH_TOOL_GO(train(settings, file, initial, &job, centroids, &report));
    KITH_TOOL_GO(kith_tool_stop_if_interrupted());
    if (settings->out != NULL)
        KITH_TOOL_GO(kith_tool_vectors_write(settings->out, KITH_F32, centroids, settings->k, dim));
    if (settings->assign != NULL) KITH_TOOL_GO(assignment_write(settings, file, centroids, &job));
    KITH_TOOL_GO(print_report(settings, file, &report));
done:
    free(centroids);
    free(initial);
    kith_vectors_close(file);
    return code;
}

const kith_tool_command kith_tool_cmd_kmeans = {
    .name = "kmeans",
    .summary = "Clusters the vectors of a file.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .run = run,
};
