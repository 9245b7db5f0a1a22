/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_gt.c: `kith gt`: ground truth, the exact nearest vectors of a file for each query.
 */
#include <stdlib.h>

#include "commands.h"
#include "kith/eval.h"
#include "tool_report.h"

typedef struct gt_settings {
    kith_tool_common common;
    const char *base, *query, *metric, *out, *distances, *counts;
    size_t k, threads;
    kith_tool_real radius;
    uint64_t memory;
    bool stream;
} gt_settings;

static const gt_settings defaults = {.metric = "l2", .k = 100};

static const kith_tool_option options[] = {
    {"base", "FILE", "the vectors; row i has id i", offsetof(gt_settings, base), KITH_TOOL_FILE, true, 0, 0},
    {"query", "FILE", "the queries", offsetof(gt_settings, query), KITH_TOOL_FILE, true, 0, 0},
    {"out", "FILE", "write the ids: .ivecs, .ibin, .npy", offsetof(gt_settings, out), KITH_TOOL_FILE, true, 0, 0},
    {"distances", "FILE", "write the distances: .fvecs, .fbin, .npy", offsetof(gt_settings, distances),
     KITH_TOOL_FILE, false, 0, 0},
    {"metric", "l2|ip|cosine", "how near two vectors are (default l2)", offsetof(gt_settings, metric),
     KITH_TOOL_CHOICE, false, 0, 0},
    {"k", "N", "neighbours of each query (default 100)", offsetof(gt_settings, k), KITH_TOOL_COUNT, false, 1,
     SIZE_MAX},
    {"radius", "R", "all vectors within R instead of the k nearest", offsetof(gt_settings, radius), KITH_TOOL_REAL,
     false, 0, 0},
    {"counts", "FILE", "write how many results each query has", offsetof(gt_settings, counts), KITH_TOOL_FILE,
     false, 0, 0},
    {"memory", "SIZE", "scratch memory stays below: 512M, 2G (default: no limit)", offsetof(gt_settings, memory),
     KITH_TOOL_BYTES, false, 0, 0},
    {"stream", NULL, "read the base block by block instead of mapping it", offsetof(gt_settings, stream),
     KITH_TOOL_FLAG, false, 0, 0},
    KITH_TOOL_THREADS(gt_settings),
    KITH_TOOL_JSON,
    KITH_TOOL_QUIET,
};

static int print_report(const gt_settings *settings, kith_vectors *base, const kith_view *queries,
                        const kith_ground_truth_report *report) {
    static const kith_tool_column columns[] = {
        {"file", "file", KITH_TOOL_CELL_TEXT},
        {"metric", "metric", KITH_TOOL_CELL_TEXT},
        {"base_count", "base", KITH_TOOL_CELL_COUNT},
        {"query_count", "queries", KITH_TOOL_CELL_COUNT},
        {"dim", "dimension", KITH_TOOL_CELL_COUNT},
        {"k", "k", KITH_TOOL_CELL_COUNT},
        {"radius", "radius", KITH_TOOL_CELL_REAL},
        {"seconds", "time", KITH_TOOL_CELL_SECONDS},
        {"passes", "passes over the base", KITH_TOOL_CELL_COUNT},
        {"scratch_bytes_peak", "peak scratch memory", KITH_TOOL_CELL_BYTES},
        {"result_bytes", "result", KITH_TOOL_CELL_BYTES},
        {"process_bytes_peak", "peak of the process", KITH_TOOL_CELL_BYTES},
    };
    json_t *object = kith_tool_object();
    kith_tool_put_text(object, "file", settings->out);
    kith_tool_put_text(object, "metric", settings->metric);
    kith_tool_put_count(object, "base_count", kith_vectors_count(base));
    kith_tool_put_count(object, "query_count", queries->count);
    kith_tool_put_count(object, "dim", queries->dim);
    if (settings->radius.given)
        kith_tool_put_real(object, "radius", settings->radius.value);
    else
        kith_tool_put_count(object, "k", settings->k);
    kith_tool_put_real(object, "seconds", report->seconds);
    kith_tool_put_count(object, "passes", report->passes);
    kith_tool_put_count(object, "query_block", report->query_block);
    kith_tool_put_count(object, "base_block", report->base_block);
    kith_tool_put_count(object, "scratch_bytes_peak", report->memory_bytes_peak);
    kith_tool_put_count(object, "result_bytes", report->result_bytes);
    kith_tool_put_count(object, "process_bytes_peak", kith_tool_memory_peak());
    int code = kith_tool_print_object(&settings->common, object, columns, sizeof columns / sizeof *columns);
    json_decref(object);
    return code;
}

static int nearest(const gt_settings *settings, kith_vectors *base, const kith_view *queries, kith_metric metric,
                   const kith_job *job, kith_ground_truth_report *report) {
    kith_neighbors *truth = NULL;
    int code;
    if (settings->k > kith_vectors_count(base))
        return kith_tool_error(KITH_EXIT_USAGE, "--k %zu: %s holds %zu vectors", settings->k, settings->base,
                               kith_vectors_count(base));
    KITH_TOOL_GO(
        kith_tool_check(kith_ground_truth_compute(base, queries, metric, settings->k, job, report, &truth), NULL));
    KITH_TOOL_GO(kith_tool_stop_if_interrupted());
    KITH_TOOL_GO(kith_tool_check(kith_neighbors_save(truth, settings->out, settings->distances), NULL));
done:
    kith_neighbors_free(truth);
    return code;
}

static int within(const gt_settings *settings, kith_vectors *base, const kith_view *queries, kith_metric metric,
                  const kith_job *job, kith_ground_truth_report *report) {
    kith_range_result *truth = NULL;
    int code;
    KITH_TOOL_GO(kith_tool_check(
        kith_ground_truth_range(base, queries, metric, (float)settings->radius.value, job, report, &truth), NULL));
    KITH_TOOL_GO(kith_tool_stop_if_interrupted());
    KITH_TOOL_GO(kith_tool_range_write(truth, settings->out, settings->distances, settings->counts));
done:
    kith_range_result_free(truth);
    return code;
}

static int run(const void *given, const kith_tool_operands *operands) {
    const gt_settings *settings = given;
    (void)operands;
    kith_vectors *base = NULL, *query_file = NULL;
    kith_view queries;
    void *owned = NULL;
    kith_metric metric;
    kith_vectors_options base_options;
    kith_ground_truth_report report = {.size = sizeof report};
    kith_job job = kith_tool_job(settings->threads);
    job.memory_bytes_max = settings->memory;
    kith_vectors_options_init(&base_options);
    base_options.stream = settings->stream;
    int code;
    if (settings->counts != NULL && !settings->radius.given)
        return kith_tool_error(KITH_EXIT_USAGE, "--counts goes with --radius");
    KITH_TOOL_GO(kith_tool_check(kith_metric_parse(settings->metric, &metric), NULL));
    KITH_TOOL_GO(kith_tool_vectors_open(settings->base, &base_options, &base));
    KITH_TOOL_GO(kith_tool_vectors_open(settings->query, NULL, &query_file));
    KITH_TOOL_GO(kith_tool_vectors_view(query_file, settings->query, &queries, &owned));
    KITH_TOOL_GO(kith_tool_dim_check(base, settings->base, queries.dim, settings->query));
    KITH_TOOL_GO(settings->radius.given ? within(settings, base, &queries, metric, &job, &report)
                                        : nearest(settings, base, &queries, metric, &job, &report));
    KITH_TOOL_GO(print_report(settings, base, &queries, &report));
done:
    free(owned);
    kith_vectors_close(query_file);
    kith_vectors_close(base);
    return code;
}

const kith_tool_command kith_tool_cmd_gt = {
    .name = "gt",
    .summary = "Computes ground truth: the exact nearest vectors of a file for each query.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .run = run,
};
