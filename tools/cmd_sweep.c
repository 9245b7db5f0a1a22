/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_sweep.c: `kith sweep`: quality and speed of an index over values of its search parameters.
 */
#include <math.h>
#include <stdlib.h>

#include "commands.h"
#include "tool_eval.h"
#include "tool_index.h"

typedef struct sweep_settings {
    kith_tool_common common;
    const char *index, *query, *gt, *gt_distances, *ranks;
    size_t k, threads, repeats, warmup, latency_queries;
    kith_tool_list set;
    const char *vectors;
    bool map;
} sweep_settings;

static const sweep_settings defaults = {.k = 10, .repeats = 3, .warmup = 1, .latency_queries = 1000};

static const kith_tool_option options[] = {
    {"index", "FILE", "the index", offsetof(sweep_settings, index), KITH_TOOL_FILE, true, 0, 0},
    {"query", "FILE", "the queries", offsetof(sweep_settings, query), KITH_TOOL_FILE, true, 0, 0},
    {"gt", "FILE", "the ground truth: ids", offsetof(sweep_settings, gt), KITH_TOOL_FILE, true, 0, 0},
    {"gt-distances", "FILE", "its distances, for recall that counts ties", offsetof(sweep_settings, gt_distances),
     KITH_TOOL_FILE, false, 0, 0},
    {"k", "N", "neighbours of each query (default 10)", offsetof(sweep_settings, k), KITH_TOOL_COUNT, false, 1,
     SIZE_MAX},
    {"ranks", "N,N,...", "ranks of the measures (default those of 1,10,100 up to k, and k)",
     offsetof(sweep_settings, ranks), KITH_TOOL_TEXT, false, 0, 0},
    {"set", "NAME=V,V,...", "values of a search parameter; repeated: all combinations",
     offsetof(sweep_settings, set), KITH_TOOL_LIST, false, 0, 0},
    {"repeats", "N", "timed runs of each point, medians count (default 3)", offsetof(sweep_settings, repeats),
     KITH_TOOL_COUNT, false, 1, 1000},
    {"warmup", "N", "runs before them that do not count (default 1)", offsetof(sweep_settings, warmup),
     KITH_TOOL_COUNT, false, 0, 1000},
    {"latency-queries", "N", "queries timed one by one, 0 for none (default 1000)",
     offsetof(sweep_settings, latency_queries), KITH_TOOL_COUNT, false, 0, SIZE_MAX},
    {"vectors", "FILE", "the vectors of an index that refines by a file (RFile)", offsetof(sweep_settings, vectors),
     KITH_TOOL_FILE, false, 0, 0},
    {"map", NULL, "use the index file in place", offsetof(sweep_settings, map), KITH_TOOL_FLAG, false, 0, 0},
    {"threads", "N", "second thread count beside 1, 0 for all processors (default 0)",
     offsetof(sweep_settings, threads), KITH_TOOL_COUNT, false, 0, 1024},
    KITH_TOOL_JSON,
    KITH_TOOL_CSV,
    KITH_TOOL_QUIET,
};

static int print_sweep(const sweep_settings *settings, const kith_sweep *sweep) {
    size_t ranks[KITH_TOOL_RANKS_MAX], rank_count = 0;
    const kith_measures *first = sweep->points[0]->measures;
    for (; rank_count < first->rank_count && rank_count < KITH_TOOL_RANKS_MAX; rank_count++)
        ranks[rank_count] = first->at[rank_count]->rank;
    json_t *document = kith_tool_object(), *rows = kith_tool_array(), *rates = kith_tool_array();
    kith_tool_sweep_append(rows, sweep, (double)NAN);
    kith_tool_rates_append(rates, sweep);
    kith_tool_put_text(document, "index", settings->index);
    kith_tool_put_text(document, "spec", sweep->spec);
    kith_tool_put_count(document, "count", sweep->index_count);
    kith_tool_put_count(document, "dim", sweep->dim);
    kith_tool_put_count(document, "query_count", sweep->query_count);
    kith_tool_put_count(document, "k", sweep->k);
    kith_tool_put_count(document, "memory_bytes", sweep->index_memory_bytes);
    kith_tool_put(document, "points", json_incref(rows));
    kith_tool_put(document, "at_recall", json_incref(rates));
    int code = kith_tool_sweep_print(&settings->common, document, rows, ranks, rank_count);
    if (code == KITH_EXIT_OK && sweep->point_count > 1) code = kith_tool_rates_print(&settings->common, rates);
    json_decref(rates);
    json_decref(rows);
    json_decref(document);
    return code;
}

static int run(const void *given, const kith_tool_operands *operands) {
    const sweep_settings *settings = given;
    (void)operands;
    kith_index *index = NULL;
    kith_vectors *vectors = NULL;
    kith_neighbors *truth = NULL;
    kith_sweep *sweep = NULL;
    void *owned = NULL;
    kith_view queries;
    size_t ranks[KITH_TOOL_RANKS_MAX];
    kith_sweep_options sweep_options;
    kith_sweep_options_init(&sweep_options);
    sweep_options.k = settings->k;
    sweep_options.grid = settings->set.count > 0 ? settings->set.items : NULL;
    sweep_options.grid_count = settings->set.count;
    sweep_options.threads = settings->threads;
    sweep_options.repeats = settings->repeats;
    sweep_options.warmup = settings->warmup;
    sweep_options.latency_queries = settings->latency_queries;
    sweep_options.progress = kith_tool_progress;
    int code;
    if (settings->ranks != NULL) {
        KITH_TOOL_GO(kith_tool_ranks_parse(settings->ranks, ranks, &sweep_options.rank_count));
        sweep_options.ranks = ranks;
    }
    KITH_TOOL_GO(kith_tool_index_open(settings->index, settings->map, settings->vectors, &index));
    KITH_TOOL_GO(kith_tool_vectors_open(settings->query, NULL, &vectors));
    KITH_TOOL_GO(kith_tool_vectors_view(vectors, settings->query, &queries, &owned));
    KITH_TOOL_GO(kith_tool_neighbors_load(settings->gt, settings->gt_distances, kith_index_metric(index), &truth));
    KITH_TOOL_GO(kith_tool_check(kith_sweep_run(index, &queries, truth, &sweep_options, &sweep), NULL));
    KITH_TOOL_GO(print_sweep(settings, sweep));
done:
    kith_sweep_free(sweep);
    kith_neighbors_free(truth);
    free(owned);
    kith_vectors_close(vectors);
    kith_index_free(index);
    return code;
}

const kith_tool_command kith_tool_cmd_sweep = {
    .name = "sweep",
    .summary = "Measures recall and speed of an index over values of its search parameters.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .notes =
        "recall@k is the share of the k true neighbours among the first k results; a star marks the Pareto\n"
        "front of recall and queries a second on one thread. The lines below the table are rates on the front\n"
        "at a recall, between two points log-linear. --set takes several at once: nprobe=8,16,k_factor=2,4.\n",
    .run = run,
};
