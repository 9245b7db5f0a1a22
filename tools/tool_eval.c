/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_eval.c: lists of neighbours and sweeps, as more than one command uses them.
 */
#include "tool_eval.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int kith_tool_ranks_parse(const char *text, size_t ranks[KITH_TOOL_RANKS_MAX], size_t *count) {
    *count = 0;
    for (const char *at = text;;) {
        char digits[24];
        size_t bytes = strcspn(at, ","), rank = 0;
        if (bytes < sizeof digits) (void)snprintf(digits, sizeof digits, "%.*s", (int)bytes, at);
        if (bytes >= sizeof digits || !kith_tool_count_parse(digits, &rank) || rank == 0 ||
            (*count > 0 && rank <= ranks[*count - 1]))
            return kith_tool_error(KITH_EXIT_USAGE, "--ranks %s: rising whole numbers, as 1,10,100, are needed",
                                   text);
        if (*count == KITH_TOOL_RANKS_MAX)
            return kith_tool_error(KITH_EXIT_USAGE, "--ranks: more than %d", KITH_TOOL_RANKS_MAX);
        ranks[(*count)++] = rank;
        if (at[bytes] == '\0') return KITH_EXIT_OK;
        at += bytes + 1;
    }
}

int kith_tool_neighbors_load(const char *path, const char *distances_path, kith_metric metric,
                             kith_neighbors **out) {
    kith_neighbors_options options;
    char *file;
    kith_neighbors_options_init(&options);
    options.distances_path = distances_path;
    options.ann_benchmarks = metric != 0 && kith_tool_is_hdf5(distances_path != NULL ? distances_path : path);
    options.metric = metric;
    int code = kith_tool_path_split(path, &file, &options.dataset);
    if (code != KITH_EXIT_OK) return code;
    code = kith_tool_check(kith_neighbors_load(file, &options, out), file);
    free(file);
    return code;
}

json_t *kith_tool_measures_rows(const kith_measures *measures) {
    json_t *rows = kith_tool_array();
    for (size_t i = 0; i < measures->rank_count; i++) {
        const kith_measures_at *at = measures->at[i];
        json_t *row = kith_tool_object();
        kith_tool_put_count(row, "rank", at->rank);
        kith_tool_put_real(row, "recall_1", at->recall_1);
        kith_tool_put_real(row, "intersection", at->intersection);
        kith_tool_put_real(row, "recall_ties", at->recall_ties);
        kith_tool_put_real(row, "recall_big_ann", at->recall_big_ann);
        kith_tool_put_real(row, "recall_distance", at->recall_distance);
        kith_tool_append(rows, row);
    }
    return rows;
}

static void put_rate(json_t *row, const char *prefix, const kith_sweep_rate *rate) {
    char key[32];
    kith_tool_put_real(row, prefix, rate->median);
    (void)snprintf(key, sizeof key, "%s_min", prefix);
    kith_tool_put_real(row, key, rate->min);
    (void)snprintf(key, sizeof key, "%s_max", prefix);
    kith_tool_put_real(row, key, rate->max);
}

static void append_point(json_t *rows, const kith_sweep *sweep, const kith_sweep_point *point,
                         double build_seconds) {
    json_t *row = kith_tool_object(), *set = kith_tool_object();
    kith_tool_put_text(row, "spec", sweep->spec);
    kith_tool_put_text(row, "parameters", point->parameters[0] != '\0' ? point->parameters : NULL);
    for (size_t i = 0; i < sweep->value_count; i++)
        kith_tool_put_text(set, point->values[i].name, point->values[i].value);
    kith_tool_put(row, "set", set);
    kith_tool_put_real(row, "recall", point->recall);
    for (size_t i = 0; i < point->measures->rank_count; i++) {
        char key[40];
        (void)snprintf(key, sizeof key, "recall_at_%zu", point->measures->at[i]->rank);
        kith_tool_put_real(row, key, point->measures->at[i]->intersection);
    }
    kith_tool_put(row, "measures", kith_tool_measures_rows(point->measures));
    put_rate(row, "qps_1", &point->qps_1);
    put_rate(row, "qps_n", &point->qps_n);
    kith_tool_put_count(row, "threads_n", point->qps_n.threads);
    kith_tool_put_real(row, "latency_mean_seconds", point->latency.mean);
    kith_tool_put_real(row, "latency_p50_seconds", point->latency.p50);
    kith_tool_put_real(row, "latency_p99_seconds", point->latency.p99);
    kith_tool_put_real(row, "latency_p999_seconds", point->latency.p999);
    kith_tool_put_real(row, "distances_per_query", point->distances_per_query);
    kith_tool_put_bool(row, "is_pareto_1", point->is_pareto_1 != 0);
    kith_tool_put_bool(row, "is_pareto_n", point->is_pareto_n != 0);
    kith_tool_put_count(row, "memory_bytes", sweep->index_memory_bytes);
    kith_tool_put_real(row, "build_seconds", build_seconds);
    kith_tool_append(rows, row);
}

void kith_tool_sweep_append(json_t *rows, const kith_sweep *sweep, double build_seconds) {
    for (size_t i = 0; i < sweep->point_count; i++) append_point(rows, sweep, sweep->points[i], build_seconds);
}

void kith_tool_rates_append(json_t *rows, const kith_sweep *sweep) {
    static const double recalls[] = {0.90, 0.95, 0.99};
    for (size_t i = 0; i < sizeof recalls / sizeof *recalls; i++) {
        json_t *row = kith_tool_object();
        kith_tool_put_text(row, "spec", sweep->spec);
        kith_tool_put_real(row, "recall", recalls[i]);
        kith_tool_put_real(row, "qps_1", kith_sweep_qps_at(sweep, recalls[i], 0));
        kith_tool_put_real(row, "qps_n", kith_sweep_qps_at(sweep, recalls[i], 1));
        kith_tool_put_count(row, "threads_n", sweep->points[0]->qps_n.threads);
        kith_tool_append(rows, row);
    }
}

int kith_tool_rates_print(const kith_tool_common *common, const json_t *rows) {
    static const kith_tool_column columns[] = {
        {"spec", "the front of", KITH_TOOL_CELL_TEXT},    {"recall", "recall", KITH_TOOL_CELL_REAL},
        {"qps_1", "QPS, 1 thread", KITH_TOOL_CELL_COUNT}, {"qps_n", "QPS", KITH_TOOL_CELL_COUNT},
        {"threads_n", "threads", KITH_TOOL_CELL_COUNT},
    };
    if (common->json || common->csv) return KITH_EXIT_OK;
    (void)putchar('\n');
    return kith_tool_print_rows(common, rows, rows, columns, sizeof columns / sizeof *columns);
}

/* Does row `a` make row `b` pointless: at least as good in both, better in one? */
static bool row_beats(const json_t *a, const json_t *b, const char *rate) {
    double a_recall = json_number_value(json_object_get(a, "recall"));
    double b_recall = json_number_value(json_object_get(b, "recall"));
    double a_rate = json_number_value(json_object_get(a, rate)),
           b_rate = json_number_value(json_object_get(b, rate));
    return a_recall >= b_recall && a_rate >= b_rate && (a_recall > b_recall || a_rate > b_rate);
}

void kith_tool_sweep_fronts(json_t *rows) {
    static const char *const keys[][2] = {{"qps_1", "is_pareto_1"}, {"qps_n", "is_pareto_n"}};
    size_t count = json_array_size(rows);
    for (size_t key = 0; key < 2; key++)
        for (size_t b = 0; b < count; b++) {
            bool is_beaten = false;
            for (size_t a = 0; a < count && !is_beaten; a++)
                is_beaten = row_beats(json_array_get(rows, a), json_array_get(rows, b), keys[key][0]);
            kith_tool_put_bool(json_array_get(rows, b), keys[key][1], !is_beaten);
        }
}

int kith_tool_sweep_print(const kith_tool_common *common, const json_t *document, const json_t *rows,
                          const size_t *ranks, size_t rank_count) {
    static const kith_tool_column before[] = {
        {"spec", "index", KITH_TOOL_CELL_TEXT},
        {"parameters", "parameters", KITH_TOOL_CELL_TEXT},
    };
    static const kith_tool_column after[] = {
        {"qps_1", "QPS, 1 thread", KITH_TOOL_CELL_COUNT},
        {"qps_n", "QPS", KITH_TOOL_CELL_COUNT},
        {"threads_n", "threads", KITH_TOOL_CELL_COUNT},
        {"latency_p50_seconds", "p50", KITH_TOOL_CELL_SECONDS},
        {"latency_p99_seconds", "p99", KITH_TOOL_CELL_SECONDS},
        {"latency_p999_seconds", "p99.9", KITH_TOOL_CELL_SECONDS},
        {"distances_per_query", "distances", KITH_TOOL_CELL_COUNT},
        {"memory_bytes", "memory", KITH_TOOL_CELL_BYTES},
        {"build_seconds", "build time", KITH_TOOL_CELL_SECONDS},
        {"is_pareto_1", "front", KITH_TOOL_CELL_YES},
    };
    kith_tool_column columns[2 + KITH_TOOL_RANKS_MAX + sizeof after / sizeof *after];
    char keys[KITH_TOOL_RANKS_MAX][40], titles[KITH_TOOL_RANKS_MAX][40];
    size_t count = 0, front = json_array_size(rows) > 1 ? 0 : 1; /* a front of one point says nothing */
    for (size_t i = 0; i < 2; i++) columns[count++] = before[i];
    for (size_t i = 0; i < rank_count; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "recall_at_%zu", ranks[i]);
        (void)snprintf(titles[i], sizeof titles[i], "recall@%zu", ranks[i]);
        columns[count++] = (kith_tool_column){keys[i], titles[i], KITH_TOOL_CELL_RECALL};
    }
    for (size_t i = 0; i < sizeof after / sizeof *after - front; i++) columns[count++] = after[i];
    return kith_tool_print_rows(common, document, rows, columns, count);
}
