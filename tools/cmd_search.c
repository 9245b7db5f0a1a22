/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_search.c: `kith search`: the nearest vectors of an index for each query of a file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "tool_index.h"

typedef struct search_settings {
    kith_tool_common common;
    const char *index, *query, *out, *distances, *counts, *filter, *groups, *group_out, *report;
    size_t k, threads, deadline_us;
    kith_tool_real radius;
    kith_tool_list set;
    const char *vectors;
    bool map;
} search_settings;

static const search_settings defaults = {.k = 10};

static const kith_tool_option options[] = {
    {"index", "FILE", "the index", offsetof(search_settings, index), KITH_TOOL_FILE, true, 0, 0},
    {"query", "FILE", "the queries", offsetof(search_settings, query), KITH_TOOL_FILE, true, 0, 0},
    {"k", "N", "neighbours of each query (default 10)", offsetof(search_settings, k), KITH_TOOL_COUNT, false, 1,
     SIZE_MAX},
    {"radius", "R", "all vectors within R instead of the k nearest", offsetof(search_settings, radius),
     KITH_TOOL_REAL, false, 0, 0},
    {"set", "NAME=VALUE", "a search parameter; may be repeated, or parted by commas",
     offsetof(search_settings, set), KITH_TOOL_LIST, false, 0, 0},
    {"filter", "FILTER", "return only these ids: FILE, bits:FILE, range:FIRST-LAST, joined by & | ! ( )",
     offsetof(search_settings, filter), KITH_TOOL_FILE, false, 0, 0},
    {"out", "FILE", "write the ids: .ivecs, .ibin, .npy (default: print them)", offsetof(search_settings, out),
     KITH_TOOL_FILE, false, 0, 0},
    {"distances", "FILE", "write the distances: .fvecs, .fbin, .npy", offsetof(search_settings, distances),
     KITH_TOOL_FILE, false, 0, 0},
    {"counts", "FILE", "write how many results each query has", offsetof(search_settings, counts), KITH_TOOL_FILE,
     false, 0, 0},
    {"vectors", "FILE", "the vectors of an index that refines by a file (RFile)",
     offsetof(search_settings, vectors), KITH_TOOL_FILE, false, 0, 0},
    {"groups", "FILE", "the k nearest groups: integer i of FILE is the group of id i, -1 for none",
     offsetof(search_settings, groups), KITH_TOOL_FILE, false, 0, 0},
    {"group-out", "FILE", "write the groups: .ivecs, .ibin, .npy", offsetof(search_settings, group_out),
     KITH_TOOL_FILE, false, 0, 0},
    {"deadline-us", "N", "cut short what is not answered after N microseconds",
     offsetof(search_settings, deadline_us), KITH_TOOL_COUNT, false, 1, SIZE_MAX},
    {"report", "FILE", "write what each query took, as CSV", offsetof(search_settings, report), KITH_TOOL_FILE,
     false, 0, 0},
    {"map", NULL, "use the index file in place", offsetof(search_settings, map), KITH_TOOL_FLAG, false, 0, 0},
    KITH_TOOL_THREADS(search_settings),
    KITH_TOOL_JSON,
    KITH_TOOL_CSV,
    KITH_TOOL_QUIET,
};

/* Results of either kind of search, in one form: query i has results limits[i] .. limits[i + 1] - 1 of a packed
 * list, or, for k nearest, row i of query_count x k, of which counts[i] are there. */
typedef struct search_hits {
    size_t query_count, k; /* k is 0 after a range search */
    int64_t *ids;
    float *distances;
    size_t *counts;
    kith_range_result *range;
    int64_t *groups;             /* with --groups: as ids */
    kith_search_report *reports; /* with --report or --deadline-us: query_count of them */
} search_hits;

/* --groups: the group of each id from 0 on. */
typedef struct group_table {
    int64_t *groups;
    size_t count;
} group_table;

static int64_t group_of(void *user, int64_t id) {
    const group_table *table = user;
    return (uint64_t)id < table->count ? table->groups[id] : KITH_NO_GROUP;
}

static void hits_free(search_hits *hits) {
    if (hits->range == NULL) {
        free(hits->ids);
        free(hits->distances);
    }
    free(hits->counts);
    free(hits->groups);
    free(hits->reports);
    kith_range_result_free(hits->range);
}

static int search_nearest(const kith_index *index, const kith_view *queries, size_t k, group_table *table,
                          kith_search_params *params, bool reports, const char *path, search_hits *out) {
    size_t count = kith_index_count(index);
    if (k > count) return kith_tool_error(KITH_EXIT_USAGE, "--k %zu: the index holds %zu vectors", k, count);
    if (queries->count > SIZE_MAX / sizeof(int64_t) / k) return kith_tool_no_memory(queries->count, k);
    out->query_count = queries->count;
    out->k = k;
    out->ids = calloc(queries->count * k, sizeof *out->ids);
    out->distances = calloc(queries->count * k, sizeof *out->distances);
    out->counts = calloc(queries->count, sizeof *out->counts);
    if (out->ids == NULL || out->distances == NULL || out->counts == NULL)
        return kith_tool_no_memory(queries->count * k, sizeof *out->ids + sizeof *out->distances);
    if (reports) {
        out->reports = calloc(queries->count, sizeof *out->reports);
        if (out->reports == NULL) return kith_tool_no_memory(queries->count, sizeof *out->reports);
        params->reports = out->reports;
    }
    if (table->groups == NULL)
        return kith_tool_check(kith_index_search(index, queries, k, params, out->ids, out->distances, out->counts),
                               path);
    out->groups = calloc(queries->count * k, sizeof *out->groups);
    if (out->groups == NULL) return kith_tool_no_memory(queries->count * k, sizeof *out->groups);
    return kith_tool_check(kith_index_search_groups(index, queries, k, group_of, table, params, out->ids,
                                                    out->groups, out->distances, out->counts),
                           path);
}

static int search_range(const kith_index *index, const kith_view *queries, float radius,
                        const kith_search_params *params, const char *path, search_hits *out) {
    int code = kith_tool_check(kith_index_range_search(index, queries, radius, params, &out->range), path);
    if (code != KITH_EXIT_OK) return code;
    out->query_count = queries->count;
    out->ids = out->range->ids;
    out->distances = out->range->distances;
    out->counts = calloc(queries->count, sizeof *out->counts);
    if (out->counts == NULL) return kith_tool_no_memory(queries->count, sizeof *out->counts);
    for (size_t i = 0; i < queries->count; i++) out->counts[i] = out->range->limits[i + 1] - out->range->limits[i];
    return KITH_EXIT_OK;
}

static size_t hits_first(const search_hits *hits, size_t query) {
    return hits->range != NULL ? hits->range->limits[query] : query * hits->k;
}

static size_t hits_total(const search_hits *hits) {
    size_t total = 0;
    for (size_t i = 0; i < hits->query_count; i++) total += hits->counts[i];
    return total;
}

static int report_write(const char *path, const kith_search_report *reports, size_t count) {
    FILE *out = fopen(path, "w");
    if (out == NULL) return kith_tool_error(KITH_EXIT_IO, "%s: %s", path, strerror(errno));
    (void)fputs("query,strategy,visited,distances,hops,lists,refined,limits\n", out);
    for (size_t q = 0; q < count; q++) {
        const kith_search_report *one = &reports[q];
        bool distances = (one->limits & KITH_LIMIT_DISTANCES) != 0,
             deadline = (one->limits & KITH_LIMIT_DEADLINE) != 0;
        (void)fprintf(out, "%zu,%s,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%s%s%s\n", q,
                      kith_search_strategy_name((kith_search_strategy)one->strategy), one->visited, one->distances,
                      one->hops, one->lists, one->refined, distances ? "distances" : "",
                      distances && deadline ? "+" : "", deadline ? "deadline" : "");
    }
    bool failed = ferror(out) != 0;
    failed = fclose(out) != 0 || failed;
    return failed ? kith_tool_error(KITH_EXIT_IO, "%s: could not be written", path) : KITH_EXIT_OK;
}

static size_t late_count(const search_hits *hits) {
    size_t late = 0;
    for (size_t q = 0; hits->reports != NULL && q < hits->query_count; q++)
        late += (hits->reports[q].limits & KITH_LIMIT_DEADLINE) != 0;
    return late;
}

/* The means over all queries. */
static void put_report(json_t *object, const search_hits *hits) {
    double visited = 0, distances = 0, hops = 0, lists = 0, refined = 0, count = (double)hits->query_count;
    if (hits->reports == NULL) return;
    for (size_t q = 0; q < hits->query_count; q++) {
        visited += (double)hits->reports[q].visited;
        distances += (double)hits->reports[q].distances;
        hops += (double)hits->reports[q].hops;
        lists += (double)hits->reports[q].lists;
        refined += (double)hits->reports[q].refined;
    }
    kith_tool_put_real(object, "visited", visited / count);
    kith_tool_put_real(object, "distances", distances / count);
    kith_tool_put_real(object, "hops", hops / count);
    kith_tool_put_real(object, "lists", lists / count);
    kith_tool_put_real(object, "refined", refined / count);
    kith_tool_put_count(object, "cut_short", late_count(hits));
}

static int write_files(const search_settings *settings, const search_hits *hits) {
    if (hits->range != NULL)
        return kith_tool_range_write(hits->range, settings->out, settings->distances, settings->counts);
    size_t rows = hits->query_count;
    int code = KITH_EXIT_OK;
    if (settings->counts != NULL) {
        int64_t *counts = calloc(rows, sizeof *counts);
        if (counts == NULL) return kith_tool_no_memory(rows, sizeof *counts);
        for (size_t i = 0; i < rows; i++) counts[i] = (int64_t)hits->counts[i];
        code = kith_tool_vectors_write(settings->counts, KITH_I64, counts, rows, 1);
        free(counts);
    }
    if (code == KITH_EXIT_OK && settings->distances != NULL)
        code = kith_tool_vectors_write(settings->distances, KITH_F32, hits->distances, rows, hits->k);
    if (code == KITH_EXIT_OK && settings->group_out != NULL)
        code = kith_tool_vectors_write(settings->group_out, KITH_I64, hits->groups, rows, hits->k);
    if (code == KITH_EXIT_OK && settings->report != NULL)
        code = report_write(settings->report, hits->reports, hits->query_count);
    if (code == KITH_EXIT_OK && settings->out != NULL)
        code = kith_tool_vectors_write(settings->out, KITH_I64, hits->ids, rows, hits->k);
    return code;
}

static json_t *result_rows(const search_hits *hits) {
    json_t *rows = kith_tool_array();
    for (size_t i = 0; i < hits->query_count; i++) {
        size_t first = hits_first(hits, i);
        for (size_t r = 0; r < hits->counts[i]; r++) {
            json_t *row = kith_tool_object();
            kith_tool_put_count(row, "query", i);
            kith_tool_put_count(row, "rank", r + 1);
            if (hits->groups != NULL) kith_tool_put_count(row, "group", (uint64_t)hits->groups[first + r]);
            kith_tool_put_count(row, "id", (uint64_t)hits->ids[first + r]);
            kith_tool_put_real(row, "distance", (double)hits->distances[first + r]);
            kith_tool_append(rows, row);
        }
    }
    return rows;
}

static int report(const search_settings *settings, const kith_index *index, const search_hits *hits,
                  double seconds) {
    static const kith_tool_column result_columns[] = {
        {"query", "query", KITH_TOOL_CELL_COUNT},      {"rank", "rank", KITH_TOOL_CELL_COUNT},
        {"group", "group", KITH_TOOL_CELL_REAL},       {"id", "id", KITH_TOOL_CELL_REAL},
        {"distance", "distance", KITH_TOOL_CELL_REAL},
    };
    static const kith_tool_column summary_columns[] = {
        {"spec", "index", KITH_TOOL_CELL_TEXT},
        {"query_count", "queries", KITH_TOOL_CELL_COUNT},
        {"k", "k", KITH_TOOL_CELL_COUNT},
        {"radius", "radius", KITH_TOOL_CELL_REAL},
        {"result_count", "results", KITH_TOOL_CELL_COUNT},
        {"seconds", "time", KITH_TOOL_CELL_SECONDS},
        {"qps", "queries/s", KITH_TOOL_CELL_COUNT},
        {"visited", "visited a query", KITH_TOOL_CELL_REAL},
        {"distances", "distances", KITH_TOOL_CELL_REAL},
        {"hops", "hops", KITH_TOOL_CELL_REAL},
        {"lists", "lists", KITH_TOOL_CELL_REAL},
        {"refined", "refined", KITH_TOOL_CELL_REAL},
        {"cut_short", "cut short", KITH_TOOL_CELL_COUNT},
    };
    bool prints_rows = settings->out == NULL && settings->distances == NULL && settings->counts == NULL &&
                       settings->group_out == NULL && settings->report == NULL;
    json_t *object = kith_tool_object(), *rows = prints_rows ? result_rows(hits) : NULL;
    kith_tool_put_text(object, "spec", kith_index_spec(index));
    kith_tool_put_count(object, "query_count", hits->query_count);
    if (hits->range == NULL) kith_tool_put_count(object, "k", hits->k);
    if (hits->range != NULL) kith_tool_put_real(object, "radius", settings->radius.value);
    kith_tool_put_count(object, "result_count", hits_total(hits));
    kith_tool_put_real(object, "seconds", seconds);
    kith_tool_put_real(object, "qps", (double)hits->query_count / seconds);
    put_report(object, hits);
    if (prints_rows) kith_tool_put(object, "results", json_incref(rows));
    int code = prints_rows ? kith_tool_print_rows(&settings->common, object, rows, result_columns,
                                                  sizeof result_columns / sizeof *result_columns)
                           : kith_tool_print_object(&settings->common, object, summary_columns,
                                                    sizeof summary_columns / sizeof *summary_columns);
    json_decref(rows);
    json_decref(object);
    return code;
}

static int check_settings(const search_settings *settings) {
    if (settings->group_out != NULL && settings->groups == NULL)
        return kith_tool_error(KITH_EXIT_USAGE, "--group-out: there are no --groups");
    if (settings->radius.given && (settings->groups != NULL || settings->report != NULL))
        return kith_tool_error(KITH_EXIT_USAGE, "%s: not with --radius",
                               settings->groups != NULL ? "--groups" : "--report");
    return KITH_EXIT_OK;
}

static int run(const void *given, const kith_tool_operands *operands) {
    const search_settings *settings = given;
    (void)operands;
    kith_index *index = NULL;
    kith_vectors *vectors = NULL;
    kith_filter *filter = NULL;
    void *owned = NULL;
    search_hits hits = {0};
    group_table table = {0};
    kith_view queries;
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = settings->threads;
    params.progress = kith_tool_progress;
    int code;
    KITH_TOOL_GO(check_settings(settings));
    KITH_TOOL_GO(kith_tool_index_open(settings->index, settings->map, settings->vectors, &index));
    KITH_TOOL_GO(kith_tool_params_set(&params, index, &settings->set));
    KITH_TOOL_GO(kith_tool_filter_open(settings->filter, kith_index_count(index), &filter));
    params.filter = filter;
    params.deadline_us = settings->deadline_us;
    if (settings->groups != NULL) KITH_TOOL_GO(kith_tool_ids_read(settings->groups, &table.groups, &table.count));
    KITH_TOOL_GO(kith_tool_vectors_open(settings->query, NULL, &vectors));
    KITH_TOOL_GO(kith_tool_vectors_view(vectors, settings->query, &queries, &owned));
    double start = kith_tool_seconds();
    KITH_TOOL_GO(settings->radius.given
                     ? search_range(index, &queries, (float)settings->radius.value, &params, settings->query, &hits)
                     : search_nearest(index, &queries, settings->k, &table, &params,
                                      settings->report != NULL || settings->deadline_us != 0, settings->query,
                                      &hits));
    double seconds = kith_tool_seconds() - start;
    KITH_TOOL_GO(kith_tool_stop_if_interrupted());
    if (late_count(&hits) > 0)
        (void)fprintf(stderr, "kith search: the deadline of %zu us cut %zu of %zu queries short\n",
                      settings->deadline_us, late_count(&hits), hits.query_count);
    KITH_TOOL_GO(write_files(settings, &hits));
    KITH_TOOL_GO(report(settings, index, &hits, seconds));
done:
    hits_free(&hits);
    free(table.groups);
    free(owned);
    kith_vectors_close(vectors);
    kith_filter_free(filter);
    kith_index_free(index);
    return code;
}

const kith_tool_command kith_tool_cmd_search = {
    .name = "search",
    .summary = "Finds the nearest vectors of an index for each query.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .notes =
        "A range search (--radius) writes one column to --out and --distances, the results of all queries\n"
        "one after the other; --counts says how many belong to each.\n"
        "A filter is a FILE of ids (.txt, one a line, or integers), bits:FILE (bit i % 8 of byte i / 8 stands\n"
        "for id i), range:FIRST-LAST (both included; -LAST or FIRST- leave an end open), or these joined by\n"
        "& (and), | (or), ! (not) and parentheses: 'range:0-999 & !deleted.txt'.\n",
    .run = run,
};
