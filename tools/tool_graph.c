/* SPDX-License-Identifier: Apache-2.0 */
#include "tool_graph.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tool_eval.h"

enum {
    BARS = 16, /* lines of the histogram in a table */
    WALK_QUERIES = 500,
    WALK_EF = 4096,
    DISTANCES_MIN = 100,
    DISTANCES_MAX = 51200,
    DEGREES_ROOM = 4096 /* HNSW512, the largest M, has nodes with up to 1,024 links */
};

static const kith_tool_column columns[] = {
    {"node_count", "nodes of the graph", KITH_TOOL_CELL_COUNT},
    {"reachable_count", "reachable nodes", KITH_TOOL_CELL_COUNT},
    {"unlinked_count", "nodes without a link to them", KITH_TOOL_CELL_COUNT},
    {"entry_count", "entries", KITH_TOOL_CELL_COUNT},
    {"hops_mean", "mean hops from an entry", KITH_TOOL_CELL_REAL},
    {"hops_max", "most hops", KITH_TOOL_CELL_COUNT},
    {"link_count", "links", KITH_TOOL_CELL_COUNT},
    {"mutual_share", "share that is returned", KITH_TOOL_CELL_RECALL},
    {"degree_mean", "mean links of a node", KITH_TOOL_CELL_REAL},
    {"degree_median", "median", KITH_TOOL_CELL_COUNT},
    {"degree_max", "most that it may have", KITH_TOOL_CELL_COUNT},
    {"in_degree_max", "most links to a node", KITH_TOOL_CELL_COUNT},
};
static const kith_tool_column bar_columns[] = {
    {"links", "links of a node", KITH_TOOL_CELL_TEXT},
    {"nodes", "nodes", KITH_TOOL_CELL_COUNT},
    {"share", "share", KITH_TOOL_CELL_RECALL},
};
static const kith_tool_column walk_columns[] = {
    {"max_distances", "distances of a query", KITH_TOOL_CELL_COUNT},
    {"recall", "recall", KITH_TOOL_CELL_RECALL},
};

static json_t *numbers(const uint64_t *degrees, size_t count) {
    json_t *list = kith_tool_array();
    for (size_t d = 0; d < count; d++) kith_tool_append(list, json_integer((json_int_t)degrees[d]));
    return list;
}

static json_t *describe(const kith_graph_stats *stats, const uint64_t *degrees, size_t count) {
    json_t *object = kith_tool_object();
    uint64_t below = 0;
    size_t median = 0;
    while (median + 1 < count && (below += degrees[median]) * 2 < stats->node_count) median++;
    kith_tool_put_count(object, "node_count", stats->node_count);
    kith_tool_put_count(object, "reachable_count", stats->reachable_count);
    kith_tool_put_count(object, "unlinked_count", stats->unlinked_count);
    kith_tool_put_count(object, "entry_count", stats->entry_count);
    kith_tool_put_real(object, "hops_mean", stats->hops_mean);
    kith_tool_put_count(object, "hops_max", stats->hops_max);
    kith_tool_put_count(object, "link_count", stats->link_count);
    if (stats->link_count > 0)
        kith_tool_put_real(object, "mutual_share", (double)stats->mutual_count / (double)stats->link_count);
    if (stats->node_count > 0)
        kith_tool_put_real(object, "degree_mean", (double)stats->link_count / (double)stats->node_count);
    kith_tool_put_count(object, "degree_median", median);
    kith_tool_put_count(object, "degree_max", stats->degree_max);
    kith_tool_put_count(object, "in_degree_max", stats->in_degree_max);
    kith_tool_put(object, "degrees", numbers(degrees, count));
    return object;
}

int kith_tool_graph_put(json_t *object, const kith_index *index, const char *path) {
    kith_graph_stats stats = {.size = sizeof stats};
    size_t count = 0;
    uint64_t *degrees = calloc(DEGREES_ROOM, sizeof *degrees);
    if (degrees == NULL) return kith_tool_no_memory(DEGREES_ROOM, sizeof *degrees);
    int code = kith_tool_check(kith_index_graph_stats(index, &stats, degrees, DEGREES_ROOM, &count), path);
    if (code == KITH_EXIT_OK)
        kith_tool_put(object, "graph", describe(&stats, degrees, count < DEGREES_ROOM ? count : DEGREES_ROOM));
    free(degrees);
    return code;
}

/* "max_distances=100,200,...,ef=...": up to what all nodes are, or a bound. ef stops no walk before its distances are used up. */
static void write_grid(uint64_t node_count, char *text, size_t bytes) {
    int at = snprintf(text, bytes, "ef=%d,max_distances=", WALK_EF);
    for (uint64_t distances = DISTANCES_MIN; distances <= DISTANCES_MAX; distances *= 2) {
        at +=
            snprintf(text + at, bytes - (size_t)at, "%s%" PRIu64, distances == DISTANCES_MIN ? "" : ",", distances);
        if (distances >= node_count) break;
    }
}

static json_t *walks_of(const kith_sweep *sweep) {
    json_t *rows = kith_tool_array();
    for (size_t i = 0; i < sweep->point_count; i++) {
        const kith_sweep_point *point = sweep->points[i];
        json_t *row = kith_tool_object();
        kith_tool_put_count(row, "max_distances", strtoull(point->values[1].value, NULL, 10));
        kith_tool_put_real(row, "recall", point->recall);
        kith_tool_append(rows, row);
        if (point->recall == 1.0) break;
    }
    return rows;
}

int kith_tool_graph_put_walks(json_t *object, const kith_index *index, const char *query_path, const char *gt_path,
                              size_t k) {
    kith_vectors *vectors = NULL;
    kith_neighbors *truth = NULL;
    kith_sweep *sweep = NULL;
    void *owned = NULL;
    kith_view queries;
    char grid[256];
    const char *const axes[] = {grid};
    kith_sweep_options options;
    int code;
    kith_sweep_options_init(&options);
    options.k = k;
    options.grid = axes;
    options.grid_count = 1;
    options.threads = options.repeats = 1;
    options.warmup = options.latency_queries = 0;
    options.progress = kith_tool_progress;
    write_grid(kith_index_count(index), grid, sizeof grid);
    KITH_TOOL_GO(kith_tool_vectors_open(query_path, NULL, &vectors));
    KITH_TOOL_GO(kith_tool_vectors_view(vectors, query_path, &queries, &owned));
    KITH_TOOL_GO(kith_tool_neighbors_load(gt_path, NULL, kith_index_metric(index), &truth));
    kith_neighbors first = *truth;
    if (queries.count == first.query_count && queries.count > WALK_QUERIES)
        queries.count = first.query_count = WALK_QUERIES;
    KITH_TOOL_GO(kith_tool_check(kith_sweep_run(index, &queries, &first, &options, &sweep), NULL));
    kith_tool_put(json_object_get(object, "graph"), "walks", walks_of(sweep));
done:
    kith_sweep_free(sweep);
    kith_neighbors_free(truth);
    free(owned);
    kith_vectors_close(vectors);
    return code;
}

/* The histogram in at most BARS lines, empty ones left out. */
static json_t *bars_of(const json_t *degrees, json_int_t node_count) {
    json_t *rows = kith_tool_array();
    size_t count = json_array_size(degrees), width = (count + BARS - 1) / BARS;
    for (size_t first = 0; first < count; first += width) {
        size_t end = first + width < count ? first + width : count;
        json_int_t nodes = 0;
        char links[48];
        for (size_t d = first; d < end; d++) nodes += json_integer_value(json_array_get(degrees, d));
        if (nodes == 0) continue;
        if (end - first == 1)
            (void)snprintf(links, sizeof links, "%zu", first);
        else
            (void)snprintf(links, sizeof links, "%zu..%zu", first, end - 1);
        json_t *row = kith_tool_object();
        kith_tool_put_text(row, "links", links);
        kith_tool_put_count(row, "nodes", (uint64_t)nodes);
        kith_tool_put_real(row, "share", (double)nodes / (double)node_count);
        kith_tool_append(rows, row);
    }
    return rows;
}

int kith_tool_graph_print(const kith_tool_common *common, const json_t *object) {
    const json_t *graph = json_object_get(object, "graph");
    if (graph == NULL) return KITH_EXIT_OK;
    (void)putchar('\n');
    int code = kith_tool_print_object(common, graph, columns, sizeof columns / sizeof *columns);
    json_t *bars =
        bars_of(json_object_get(graph, "degrees"), json_integer_value(json_object_get(graph, "node_count")));
    if (code == KITH_EXIT_OK && json_array_size(bars) > 0) {
        (void)putchar('\n');
        code = kith_tool_print_rows(common, bars, bars, bar_columns, sizeof bar_columns / sizeof *bar_columns);
    }
    json_decref(bars);
    const json_t *walks = json_object_get(graph, "walks");
    if (code != KITH_EXIT_OK || json_array_size(walks) == 0) return code;
    (void)putchar('\n');
    return kith_tool_print_rows(common, walks, walks, walk_columns, sizeof walk_columns / sizeof *walk_columns);
}
