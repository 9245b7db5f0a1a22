/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_eval.c: `kith eval`: judges results, of kith or of any other engine, by a ground truth.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "tool_eval.h"

#define MEASURES "intersection|recall_1|recall_ties|recall_big_ann|recall_distance"

typedef struct eval_settings {
    kith_tool_common common;
    const char *result, *gt, *result_distances, *gt_distances, *result_counts, *gt_counts;
    const char *metric, *ranks, *per_query, *measure, *base, *query;
    kith_tool_real at_least;
    size_t threads;
} eval_settings;

static const eval_settings defaults = {.measure = "intersection"};

static const kith_tool_option options[] = {
    {"result", "FILE", "ids that a search returned", offsetof(eval_settings, result), KITH_TOOL_FILE, true, 0, 0},
    {"gt", "FILE", "ids of the ground truth", offsetof(eval_settings, gt), KITH_TOOL_FILE, true, 0, 0},
    {"result-distances", "FILE", "distances of the results", offsetof(eval_settings, result_distances),
     KITH_TOOL_FILE, false, 0, 0},
    {"gt-distances", "FILE", "distances of the ground truth", offsetof(eval_settings, gt_distances), KITH_TOOL_FILE,
     false, 0, 0},
    {"base", "FILE", "compute missing distances from these vectors and --query", offsetof(eval_settings, base),
     KITH_TOOL_FILE, false, 0, 0},
    {"query", "FILE", "the queries, with --base", offsetof(eval_settings, query), KITH_TOOL_FILE, false, 0, 0},
    {"metric", "l2|ip|cosine", "what the distances are, for recall_distance", offsetof(eval_settings, metric),
     KITH_TOOL_CHOICE, false, 0, 0},
    {"ranks", "N,N,...", "ranks of the measures (default those of 1,10,100 that both reach)",
     offsetof(eval_settings, ranks), KITH_TOOL_TEXT, false, 0, 0},
    {"per-query", "FILE", "write the terms of the means, a line per query, as CSV",
     offsetof(eval_settings, per_query), KITH_TOOL_FILE, false, 0, 0},
    {"result-counts", "FILE", "range search: results of each query", offsetof(eval_settings, result_counts),
     KITH_TOOL_FILE, false, 0, 0},
    {"gt-counts", "FILE", "range search: true neighbours of each query", offsetof(eval_settings, gt_counts),
     KITH_TOOL_FILE, false, 0, 0},
    {"at-least", "R", "exit with 1 when --measure at the largest rank is below R",
     offsetof(eval_settings, at_least), KITH_TOOL_REAL, false, 0, 0},
    {"measure", MEASURES, "what --at-least looks at (default intersection)", offsetof(eval_settings, measure),
     KITH_TOOL_CHOICE, false, 0, 0},
    KITH_TOOL_THREADS(eval_settings),
    KITH_TOOL_JSON,
    KITH_TOOL_CSV,
    KITH_TOOL_QUIET,
};

/* One line of the file of terms: the rank of the true nearest, then the counts at every rank. */
static void per_query_line(FILE *out, const kith_measures *measures, size_t query) {
    (void)fprintf(out, "%zu,%u", query, measures->nearest_ranks[query]);
    for (size_t i = 0; i < measures->rank_count; i++) {
        const kith_measures_at *at = measures->at[i];
        const uint32_t *const lists[] = {at->intersection_counts, at->ties_counts, at->big_ann_counts,
                                         at->distance_counts};
        for (size_t c = 0; c < sizeof lists / sizeof *lists; c++) {
            if (lists[c] != NULL)
                (void)fprintf(out, ",%u", lists[c][query]);
            else
                (void)fputc(',', out);
        }
    }
    (void)fputc('\n', out);
}

static int per_query_write(const kith_measures *measures, const char *path) {
    static const char *const names[] = {"intersection", "ties", "big_ann", "distance"};
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) return kith_tool_no_memory(measures->query_count, 1);
    (void)fprintf(out, "query,nearest_rank");
    for (size_t i = 0; i < measures->rank_count; i++)
        for (size_t n = 0; n < sizeof names / sizeof *names; n++)
            (void)fprintf(out, ",%s_%zu", names[n], measures->at[i]->rank);
    (void)fputc('\n', out);
    for (size_t q = 0; q < measures->query_count; q++) per_query_line(out, measures, q);
    bool is_whole = fclose(out) == 0;
    int code = is_whole ? kith_tool_text_write(path, text, bytes) : kith_tool_no_memory(measures->query_count, 1);
    free(text);
    return code;
}

static int at_least_check(const eval_settings *settings, const char *name, size_t rank, double value) {
    if (!settings->at_least.given) return KITH_EXIT_OK;
    if (isnan(value))
        return kith_tool_error(KITH_EXIT_USAGE, "--at-least: %s needs distances of the truth%s", name,
                               strcmp(name, "recall_distance") == 0 ? ", of the results, and --metric" : "");
    if (value >= settings->at_least.value) return KITH_EXIT_OK;
    return kith_tool_error(KITH_EXIT_CHECK, "%s at %zu is %.6f, below %g", name, rank, value,
                           settings->at_least.value);
}

static int at_least(const eval_settings *settings, const kith_measures *measures) {
    const kith_measures_at *at = measures->at[measures->rank_count - 1];
    const char *name = settings->measure;
    double value = strcmp(name, "recall_1") == 0         ? at->recall_1
                   : strcmp(name, "recall_ties") == 0    ? at->recall_ties
                   : strcmp(name, "recall_big_ann") == 0 ? at->recall_big_ann
                   : strcmp(name, "intersection") == 0   ? at->intersection
                                                         : at->recall_distance;
    return at_least_check(settings, name, at->rank, value);
}

static int print_measures(const eval_settings *settings, const kith_measures *measures) {
    static const kith_tool_column columns[] = {
        {"rank", "k", KITH_TOOL_CELL_COUNT},
        {"recall_1", "1-recall@k", KITH_TOOL_CELL_RECALL},
        {"intersection", "k-recall@k", KITH_TOOL_CELL_RECALL},
        {"recall_ties", "with ties", KITH_TOOL_CELL_RECALL},
        {"recall_big_ann", "big-ann", KITH_TOOL_CELL_RECALL},
        {"recall_distance", "by distance", KITH_TOOL_CELL_RECALL},
    };
    static const kith_tool_column summary[] = {
        {"query_count", "queries", KITH_TOOL_CELL_COUNT},
        {"nearest_found", "true nearest found", KITH_TOOL_CELL_RECALL},
        {"nearest_rank_mean", "its mean rank", KITH_TOOL_CELL_REAL},
        {"nearest_rank_median", "its median rank", KITH_TOOL_CELL_REAL},
        {"short_query_count", "queries with padding", KITH_TOOL_CELL_COUNT},
        {"duplicate_query_count", "queries with repeats", KITH_TOOL_CELL_COUNT},
    };
    json_t *document = kith_tool_object(), *rows = kith_tool_measures_rows(measures);
    kith_tool_put_text(document, "result", settings->result);
    kith_tool_put_text(document, "gt", settings->gt);
    kith_tool_put_count(document, "query_count", measures->query_count);
    kith_tool_put_real(document, "nearest_found", measures->nearest_found);
    kith_tool_put_real(document, "nearest_rank_mean", measures->nearest_rank_mean);
    kith_tool_put_real(document, "nearest_rank_median", measures->nearest_rank_median);
    kith_tool_put_count(document, "short_query_count", measures->short_query_count);
    kith_tool_put_count(document, "duplicate_query_count", measures->duplicate_query_count);
    kith_tool_put(document, "measures", json_incref(rows));
    int code = kith_tool_print_rows(&settings->common, document, rows, columns, sizeof columns / sizeof *columns);
    if (code == KITH_EXIT_OK && !settings->common.json && !settings->common.csv) {
        (void)putchar('\n');
        code = kith_tool_print_object(&settings->common, document, summary, sizeof summary / sizeof *summary);
    }
    json_decref(rows);
    json_decref(document);
    return code;
}

/* Replaces a list without distances by one whose distances were computed from --base and --query. */
static int distances_complete(const eval_settings *settings, kith_metric metric, kith_neighbors **list) {
    kith_vectors *base = NULL, *query_file = NULL;
    kith_neighbors *measured = NULL;
    kith_view queries;
    void *owned = NULL;
    kith_job job = kith_tool_job(settings->threads);
    int code;
    if ((*list)->distances != NULL) return KITH_EXIT_OK;
    KITH_TOOL_GO(kith_tool_vectors_open(settings->base, NULL, &base));
    KITH_TOOL_GO(kith_tool_vectors_open(settings->query, NULL, &query_file));
    KITH_TOOL_GO(kith_tool_vectors_view(query_file, settings->query, &queries, &owned));
    KITH_TOOL_GO(kith_tool_dim_check(base, settings->base, queries.dim, settings->query));
    KITH_TOOL_GO(kith_tool_check(kith_neighbors_measure(*list, base, &queries, metric, &job, &measured), NULL));
    kith_neighbors_free(*list);
    *list = measured;
done:
    free(owned);
    kith_vectors_close(query_file);
    kith_vectors_close(base);
    return code;
}

static int eval_nearest(const eval_settings *settings, kith_metric metric) {
    kith_neighbors *result = NULL, *truth = NULL;
    kith_measures *measures = NULL;
    size_t ranks[KITH_TOOL_RANKS_MAX];
    kith_measures_options measures_options;
    kith_measures_options_init(&measures_options);
    measures_options.metric = metric;
    measures_options.truth_name = settings->gt;
    measures_options.result_name = settings->result;
    int code;
    if (settings->ranks != NULL) {
        KITH_TOOL_GO(kith_tool_ranks_parse(settings->ranks, ranks, &measures_options.rank_count));
        measures_options.ranks = ranks;
    }
    KITH_TOOL_GO(kith_tool_neighbors_load(settings->result, settings->result_distances, metric, &result));
    KITH_TOOL_GO(kith_tool_neighbors_load(settings->gt, settings->gt_distances, metric, &truth));
    if (settings->base != NULL) {
        KITH_TOOL_GO(distances_complete(settings, metric, &result));
        KITH_TOOL_GO(distances_complete(settings, metric, &truth));
    }
    KITH_TOOL_GO(kith_tool_check(kith_measures_compute(result, truth, &measures_options, &measures), NULL));
    if (settings->per_query != NULL) KITH_TOOL_GO(per_query_write(measures, settings->per_query));
    KITH_TOOL_GO(print_measures(settings, measures));
    KITH_TOOL_GO(at_least(settings, measures));
done:
    kith_measures_free(measures);
    kith_neighbors_free(truth);
    kith_neighbors_free(result);
    return code;
}

static int range_per_query_write(const kith_range_measures *measures, const char *path) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) return kith_tool_no_memory(measures->query_count, 1);
    (void)fprintf(out, "query,truth,result,common\n");
    for (size_t q = 0; q < measures->query_count; q++)
        (void)fprintf(out, "%zu,%zu,%zu,%zu\n", q, measures->truth_counts[q], measures->result_counts[q],
                      measures->common_counts[q]);
    bool is_whole = fclose(out) == 0;
    int code = is_whole ? kith_tool_text_write(path, text, bytes) : kith_tool_no_memory(measures->query_count, 1);
    free(text);
    return code;
}

static int print_range(const eval_settings *settings, const kith_range_measures *measures) {
    static const kith_tool_column columns[] = {
        {"query_count", "queries", KITH_TOOL_CELL_COUNT},
        {"precision_overall", "precision overall", KITH_TOOL_CELL_RECALL},
        {"recall_overall", "recall overall", KITH_TOOL_CELL_RECALL},
        {"precision_average", "precision average", KITH_TOOL_CELL_RECALL},
        {"recall_average", "recall average", KITH_TOOL_CELL_RECALL},
    };
    json_t *object = kith_tool_object();
    kith_tool_put_text(object, "result", settings->result);
    kith_tool_put_text(object, "gt", settings->gt);
    kith_tool_put_count(object, "query_count", measures->query_count);
    kith_tool_put_real(object, "precision_overall", measures->precision_overall);
    kith_tool_put_real(object, "recall_overall", measures->recall_overall);
    kith_tool_put_real(object, "precision_average", measures->precision_average);
    kith_tool_put_real(object, "recall_average", measures->recall_average);
    int code = kith_tool_print_object(&settings->common, object, columns, sizeof columns / sizeof *columns);
    json_decref(object);
    return code;
}

static int eval_range(const eval_settings *settings) {
    kith_range_result result = {0}, truth = {0};
    kith_range_measures *measures = NULL;
    int code;
    KITH_TOOL_GO(kith_tool_range_read(settings->result, settings->result_counts, &result));
    KITH_TOOL_GO(kith_tool_range_read(settings->gt, settings->gt_counts, &truth));
    KITH_TOOL_GO(kith_tool_check(kith_range_measures_compute(&result, &truth, &measures), settings->result));
    if (settings->per_query != NULL) KITH_TOOL_GO(range_per_query_write(measures, settings->per_query));
    KITH_TOOL_GO(print_range(settings, measures));
    KITH_TOOL_GO(at_least_check(settings, "recall overall", 0, measures->recall_overall));
done:
    kith_range_measures_free(measures);
    kith_tool_range_free(&result);
    kith_tool_range_free(&truth);
    return code;
}

static int run(const void *given, const kith_tool_operands *operands) {
    const eval_settings *settings = given;
    (void)operands;
    kith_metric metric = 0;
    if ((settings->base != NULL) != (settings->query != NULL))
        return kith_tool_error(KITH_EXIT_USAGE, "--base and --query go together");
    if (settings->base != NULL && settings->metric == NULL)
        return kith_tool_error(KITH_EXIT_USAGE, "--base needs --metric");
    if ((settings->result_counts != NULL) != (settings->gt_counts != NULL))
        return kith_tool_error(KITH_EXIT_USAGE, "--result-counts and --gt-counts go together");
    if (settings->metric != NULL) {
        int code = kith_tool_check(kith_metric_parse(settings->metric, &metric), "--metric");
        if (code != KITH_EXIT_OK) return code;
    }
    return settings->result_counts != NULL ? eval_range(settings) : eval_nearest(settings, metric);
}

const kith_tool_command kith_tool_cmd_eval = {
    .name = "eval",
    .summary = "Judges results by a ground truth: recall in the terms of FAISS, ann-benchmarks and big-ann.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .run = run,
};
