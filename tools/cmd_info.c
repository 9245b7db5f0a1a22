/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_info.c: `kith info`: what is in a vector file or an index file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "commands.h"
#include "tool_graph.h"
#include "tool_index.h"
#include "tool_prefetch.h"

typedef struct info_settings {
    kith_tool_common common;
    const char *dataset, *query, *gt;
    size_t threads, k;
    bool fast, graph;
} info_settings;

static const info_settings defaults = {.k = 10};

static const kith_tool_option options[] = {
    {"fast", NULL, "vector files: the shape alone, without reading the rows", offsetof(info_settings, fast),
     KITH_TOOL_FLAG, false, 0, 0},
    {"graph", NULL, "index files: how the nodes of a graph are linked, and whether all can be reached",
     offsetof(info_settings, graph), KITH_TOOL_FLAG, false, 0, 0},
    {"query", "FILE", "with --graph: queries, to find how many distances give which recall",
     offsetof(info_settings, query), KITH_TOOL_FILE, false, 0, 0},
    {"gt", "FILE", "their ground truth: ids", offsetof(info_settings, gt), KITH_TOOL_FILE, false, 0, 0},
    {"k", "N", "neighbours of each query (default 10)", offsetof(info_settings, k), KITH_TOOL_COUNT, false, 1,
     SIZE_MAX},
    {"dataset", "NAME", "data set of an HDF5 file (default train)", offsetof(info_settings, dataset),
     KITH_TOOL_TEXT, false, 0, 0},
    KITH_TOOL_THREADS(info_settings),
    KITH_TOOL_JSON,
    KITH_TOOL_QUIET,
};

static const kith_tool_column columns[] = {
    {"file", "file", KITH_TOOL_CELL_TEXT},
    {"kind", "kind", KITH_TOOL_CELL_TEXT},
    {"format", "format", KITH_TOOL_CELL_TEXT},
    {"spec", "index", KITH_TOOL_CELL_TEXT},
    {"metric", "metric", KITH_TOOL_CELL_TEXT},
    {"count", "vectors", KITH_TOOL_CELL_COUNT},
    {"dim", "dimension", KITH_TOOL_CELL_COUNT},
    {"dtype", "type", KITH_TOOL_CELL_TEXT},
    {"file_bytes", "file size", KITH_TOOL_CELL_BYTES},
    {"min", "least element", KITH_TOOL_CELL_REAL},
    {"max", "largest element", KITH_TOOL_CELL_REAL},
    {"norm_min", "least norm", KITH_TOOL_CELL_REAL},
    {"norm_mean", "mean norm", KITH_TOOL_CELL_REAL},
    {"norm_max", "largest norm", KITH_TOOL_CELL_REAL},
    {"nan_count", "NaN elements", KITH_TOOL_CELL_COUNT},
    {"inf_count", "infinite elements", KITH_TOOL_CELL_COUNT},
    {"zero_row_count", "zero vectors", KITH_TOOL_CELL_COUNT},
    {"duplicate_count", "duplicates", KITH_TOOL_CELL_COUNT},
    {"memory_bytes", "memory", KITH_TOOL_CELL_BYTES},
    {"bytes_per_vector", "bytes a vector", KITH_TOOL_CELL_REAL},
    {"prefetch", "asked for ahead", KITH_TOOL_CELL_TEXT},
};
enum { COLUMN_COUNT = sizeof columns / sizeof *columns };

/* `file` is `path` without the name of a data set. */
static void put_file(json_t *object, const char *path, const char *file) {
    struct stat status;
    kith_tool_put_text(object, "file", path);
    if (stat(file, &status) == 0) kith_tool_put_count(object, "file_bytes", (uint64_t)status.st_size);
}

static int put_sections(json_t *object, const char *path) {
    size_t count = 0, got = 0;
    int code = kith_tool_check(kith_file_sections(path, NULL, 0, &count), path);
    if (code != KITH_EXIT_OK) return code;
    kith_file_section *sections = calloc(count > 0 ? count : 1, sizeof *sections);
    if (sections == NULL) return kith_tool_no_memory(count, sizeof *sections);
    code = kith_tool_check(kith_file_sections(path, sections, count, &got), path);
    json_t *list = kith_tool_array();
    for (size_t i = 0; i < got && i < count && code == KITH_EXIT_OK; i++) {
        json_t *row = kith_tool_object();
        kith_tool_put_text(row, "tag", sections[i].tag);
        kith_tool_put_count(row, "instance", sections[i].instance);
        kith_tool_put_count(row, "version", sections[i].version);
        kith_tool_put_count(row, "offset", sections[i].offset);
        kith_tool_put_count(row, "bytes", sections[i].bytes);
        kith_tool_append(list, row);
    }
    kith_tool_put(object, "sections", list);
    free(sections);
    return code;
}

/* What --set takes. */
static void put_params(json_t *object, const kith_index *index) {
    json_t *list = kith_tool_array();
    for (size_t i = 0; i < kith_index_param_count(index); i++) {
        const kith_search_param *param = kith_index_param(index, i);
        json_t *row = kith_tool_object();
        kith_tool_put_text(row, "name", param->name);
        kith_tool_put_count(row, "min", param->min);
        if (param->max <= INT64_MAX) kith_tool_put_count(row, "max", param->max); /* else there is no bound */
        kith_tool_put_count(row, "default", param->default_value);
        kith_tool_put_text(row, "help", param->help);
        kith_tool_append(list, row);
    }
    kith_tool_put(object, "parameters", list);
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* What the sizes of inverted lists say: a search that reads m lists reads `imbalance` times as many vectors as with
 * lists of one size (k sum n_i^2 / (sum n_i)^2, FAISS's imbalance factor). */
static json_t *list_statistics(uint64_t *sizes, size_t count) {
    double sum = 0, squares = 0;
    size_t empty = 0;
    qsort(sizes, count, sizeof *sizes, by_size);
    for (size_t i = 0; i < count; i++) {
        sum += (double)sizes[i];
        squares += (double)sizes[i] * (double)sizes[i];
        empty += sizes[i] == 0;
    }
    json_t *object = kith_tool_object();
    kith_tool_put_count(object, "count", count);
    kith_tool_put_count(object, "empty", empty);
    kith_tool_put_count(object, "min", sizes[0]);
    kith_tool_put_count(object, "median", sizes[count / 2]);
    kith_tool_put_real(object, "mean", sum / (double)count);
    kith_tool_put_count(object, "p99", sizes[(count * 99 + 99) / 100 - 1]);
    kith_tool_put_count(object, "max", sizes[count - 1]);
    kith_tool_put_real(object, "imbalance", sum > 0 ? squares * (double)count / (sum * sum) : 1.0);
    return object;
}

/* Nothing for an index without lists. */
static int put_lists(json_t *object, const kith_index *index) {
    size_t count = 0;
    int code = kith_tool_check(kith_index_list_sizes(index, NULL, 0, &count), NULL);
    if (code != KITH_EXIT_OK || count == 0) return code;
    uint64_t *sizes = calloc(count, sizeof *sizes);
    if (sizes == NULL) return kith_tool_no_memory(count, sizeof *sizes);
    code = kith_tool_check(kith_index_list_sizes(index, sizes, count, &count), NULL);
    if (code == KITH_EXIT_OK) kith_tool_put(object, "lists", list_statistics(sizes, count));
    free(sizes);
    return code;
}

static int describe_index(const info_settings *settings, const char *path, json_t *object) {
    kith_index *index = NULL;
    uint64_t memory_bytes;
    json_t *parts = NULL;
    int code;
    KITH_TOOL_GO(kith_tool_index_open(path, true, NULL, &index));
    KITH_TOOL_GO(kith_tool_index_memory(index, &memory_bytes));
    KITH_TOOL_GO(kith_tool_memory_parts(index, &parts));
    put_file(object, path, path);
    kith_tool_put_text(object, "kind", "index");
    kith_tool_put_text(object, "spec", kith_index_spec(index));
    kith_tool_put_text(object, "metric", kith_metric_name(kith_index_metric(index)));
    kith_tool_put_text(object, "dtype", kith_dtype_name(kith_index_dtype(index)));
    kith_tool_put_count(object, "count", kith_index_count(index));
    kith_tool_put_count(object, "dim", kith_index_dim(index));
    kith_tool_put_count(object, "memory_bytes", memory_bytes);
    if (kith_index_count(index) > 0)
        kith_tool_put_real(object, "bytes_per_vector", (double)memory_bytes / (double)kith_index_count(index));
    kith_tool_prefetch_put(object, index);
    kith_tool_put(object, "memory_parts", parts);
    KITH_TOOL_GO(put_lists(object, index));
    if (settings->graph) KITH_TOOL_GO(kith_tool_graph_put(object, index, path));
    if (settings->query != NULL)
        KITH_TOOL_GO(kith_tool_graph_put_walks(object, index, settings->query, settings->gt, settings->k));
    put_params(object, index);
    KITH_TOOL_GO(put_sections(object, path));
done:
    kith_index_free(index);
    return code;
}

static void put_stats(json_t *object, const kith_vectors_stats *stats) {
    kith_tool_put_real(object, "min", stats->min);
    kith_tool_put_real(object, "max", stats->max);
    kith_tool_put_real(object, "norm_min", stats->norm_min);
    kith_tool_put_real(object, "norm_mean", stats->norm_mean);
    kith_tool_put_real(object, "norm_max", stats->norm_max);
    kith_tool_put_count(object, "nan_count", stats->nan_count);
    kith_tool_put_count(object, "inf_count", stats->inf_count);
    kith_tool_put_count(object, "zero_row_count", stats->zero_row_count);
    kith_tool_put_count(object, "duplicate_count", stats->duplicate_count);
}

static int describe_vectors(const info_settings *settings, const char *path, const char *file, json_t *object) {
    kith_vectors *vectors = NULL;
    kith_vectors_options open_options;
    kith_vectors_stats stats = {.size = sizeof stats};
    kith_job job = kith_tool_job(settings->threads);
    int code;
    kith_vectors_options_init(&open_options);
    open_options.dataset = settings->dataset;
    KITH_TOOL_GO(kith_tool_vectors_open(path, &open_options, &vectors));
    if (!settings->fast) KITH_TOOL_GO(kith_tool_check(kith_vectors_stats_compute(vectors, &job, &stats), path));
    put_file(object, path, file);
    kith_tool_put_text(object, "kind", "vectors");
    kith_tool_put_text(object, "format", kith_vectors_format_name(vectors));
    kith_tool_put_text(object, "dtype", kith_dtype_name(kith_vectors_dtype(vectors)));
    kith_tool_put_count(object, "count", kith_vectors_count(vectors));
    kith_tool_put_count(object, "dim", kith_vectors_dim(vectors));
    if (!settings->fast) put_stats(object, &stats);
done:
    kith_vectors_close(vectors);
    return code;
}

static const kith_tool_column part_columns[] = {
    {"part", "memory by part", KITH_TOOL_CELL_TEXT},
    {"bytes", "size", KITH_TOOL_CELL_BYTES},
    {"bytes_per_vector", "bytes a vector", KITH_TOOL_CELL_REAL},
};
static const kith_tool_column list_columns[] = {
    {"count", "inverted lists", KITH_TOOL_CELL_COUNT},
    {"empty", "empty lists", KITH_TOOL_CELL_COUNT},
    {"min", "least vectors", KITH_TOOL_CELL_COUNT},
    {"median", "median", KITH_TOOL_CELL_COUNT},
    {"mean", "mean", KITH_TOOL_CELL_REAL},
    {"p99", "99% of the lists", KITH_TOOL_CELL_COUNT},
    {"max", "most vectors", KITH_TOOL_CELL_COUNT},
    {"imbalance", "imbalance", KITH_TOOL_CELL_REAL},
};
static const kith_tool_column section_columns[] = {
    {"tag", "section of the file", KITH_TOOL_CELL_TEXT},
    {"instance", "instance", KITH_TOOL_CELL_COUNT},
    {"version", "version", KITH_TOOL_CELL_COUNT},
    {"offset", "offset", KITH_TOOL_CELL_COUNT},
    {"bytes", "size", KITH_TOOL_CELL_BYTES},
};
static const kith_tool_column param_columns[] = {
    {"name", "search parameter", KITH_TOOL_CELL_TEXT},
    {"default", "default", KITH_TOOL_CELL_REAL},
    {"min", "least", KITH_TOOL_CELL_REAL},
    {"max", "most", KITH_TOOL_CELL_REAL},
    {"help", "meaning", KITH_TOOL_CELL_TEXT},
};

/* The lists of an index, below its lines. */
static int print_lists(const info_settings *settings, const json_t *object) {
    static const struct {
        const char *key;
        const kith_tool_column *columns;
        size_t column_count;
    } lists[] = {
        {"memory_parts", part_columns, sizeof part_columns / sizeof *part_columns},
        {"sections", section_columns, sizeof section_columns / sizeof *section_columns},
        {"parameters", param_columns, sizeof param_columns / sizeof *param_columns},
    };
    int code = KITH_EXIT_OK;
    const json_t *statistics = json_object_get(object, "lists");
    if (statistics != NULL) {
        (void)putchar('\n');
        code = kith_tool_print_object(&settings->common, statistics, list_columns,
                                      sizeof list_columns / sizeof *list_columns);
    }
    if (code == KITH_EXIT_OK) code = kith_tool_graph_print(&settings->common, object);
    for (size_t i = 0; i < sizeof lists / sizeof *lists && code == KITH_EXIT_OK; i++) {
        const json_t *rows = json_object_get(object, lists[i].key);
        if (json_array_size(rows) == 0) continue;
        (void)putchar('\n');
        code = kith_tool_print_rows(&settings->common, rows, rows, lists[i].columns, lists[i].column_count);
    }
    return code;
}

static int print_all(const info_settings *settings, const json_t *list) {
    if (settings->common.json) return kith_tool_print_rows(&settings->common, list, list, columns, COLUMN_COUNT);
    size_t i;
    const json_t *object;
    json_array_foreach(list, i, object) {
        if (i > 0) (void)putchar('\n');
        int code = kith_tool_print_object(&settings->common, object, columns, COLUMN_COUNT);
        if (code == KITH_EXIT_OK) code = print_lists(settings, object);
        if (code != KITH_EXIT_OK) return code;
    }
    return kith_tool_flush();
}

static int describe(const info_settings *settings, const char *path, json_t *list) {
    char *file;
    const char *dataset;
    int code = kith_tool_path_split(path, &file, &dataset);
    if (code != KITH_EXIT_OK) return code;
    json_t *object = kith_tool_object();
    bool is_index = kith_tool_is_index(file, &code) != 0;
    if (code == KITH_EXIT_OK)
        code = is_index ? describe_index(settings, path, object) : describe_vectors(settings, path, file, object);
    if (code == KITH_EXIT_OK) kith_tool_append(list, json_incref(object));
    json_decref(object);
    free(file);
    return code;
}

/* Each file is looked at; the first failure's code is returned. */
static int run(const void *given, const kith_tool_operands *operands) {
    const info_settings *settings = given;
    if ((settings->query != NULL) != (settings->gt != NULL) || (settings->query != NULL && !settings->graph))
        return kith_tool_error(KITH_EXIT_USAGE, "--query and --gt go together, and with --graph");
    json_t *list = kith_tool_array();
    int first_code = KITH_EXIT_OK;
    for (size_t i = 0; i < operands->count && kith_tool_interrupted() == 0; i++) {
        int code = describe(settings, operands->items[i], list);
        if (first_code == KITH_EXIT_OK) first_code = code;
    }
    int printed = json_array_size(list) > 0 ? print_all(settings, list) : KITH_EXIT_OK;
    json_decref(list);
    return first_code != KITH_EXIT_OK ? first_code : printed;
}

const kith_tool_command kith_tool_cmd_info = {
    .name = "info",
    .summary = "Describes vector files (shape, range, norms, NaN, duplicates) and index files.",
    .operands = "FILE...",
    .operand_min = 1,
    .operand_max = SIZE_MAX,
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .run = run,
};
