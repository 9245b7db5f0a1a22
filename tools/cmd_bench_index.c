/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_bench_index.c: `kith bench index`: ground truth, build, search and the table of results in one go.
 */
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "tool_eval.h"
#include "tool_index.h"

typedef struct bench_settings {
    kith_tool_common common;
    kith_tool_list spec, set;
    const char *metric, *base, *query, *gt, *ranks;
    size_t k, threads, repeats, latency_queries, seed, train;
    uint64_t memory;
} bench_settings;

static const bench_settings defaults = {.metric = "l2", .k = 100, .repeats = 3, .latency_queries = 1000, .seed = 1};

static const kith_tool_option options[] = {
    {"spec", "SPEC", "an index to build (default Flat, in the type of the file); may be repeated",
     offsetof(bench_settings, spec), KITH_TOOL_LIST, false, 0, 0},
    {"metric", "l2|ip|cosine", "how near two vectors are (default l2)", offsetof(bench_settings, metric),
     KITH_TOOL_CHOICE, false, 0, 0},
    {"base", "FILE", "the vectors", offsetof(bench_settings, base), KITH_TOOL_FILE, true, 0, 0},
    {"query", "FILE", "the queries", offsetof(bench_settings, query), KITH_TOOL_FILE, true, 0, 0},
    {"gt", "FILE", "the ground truth (default: computed)", offsetof(bench_settings, gt), KITH_TOOL_FILE, false, 0,
     0},
    {"k", "N", "neighbours of each query (default 100)", offsetof(bench_settings, k), KITH_TOOL_COUNT, false, 1,
     SIZE_MAX},
    {"ranks", "N,N,...", "ranks of the measures (default those of 1,10,100 up to k, and k)",
     offsetof(bench_settings, ranks), KITH_TOOL_TEXT, false, 0, 0},
    {"set", "NAME=V,V,...", "values of a search parameter; repeated: all combinations",
     offsetof(bench_settings, set), KITH_TOOL_LIST, false, 0, 0},
    {"repeats", "N", "timed runs of each point, medians count (default 3)", offsetof(bench_settings, repeats),
     KITH_TOOL_COUNT, false, 1, 1000},
    {"latency-queries", "N", "queries timed one by one, 0 for none (default 1000)",
     offsetof(bench_settings, latency_queries), KITH_TOOL_COUNT, false, 0, SIZE_MAX},
    {"memory", "SIZE", "scratch memory of the ground truth stays below: 512M, 2G", offsetof(bench_settings, memory),
     KITH_TOOL_BYTES, false, 0, 0},
    {"train", "N", "train on so many random rows (default: what the index recommends)",
     offsetof(bench_settings, train), KITH_TOOL_COUNT, false, 1, SIZE_MAX},
    {"seed", "N", "seed of what is random in the build (default 1)", offsetof(bench_settings, seed),
     KITH_TOOL_COUNT, false, 0, SIZE_MAX},
    KITH_TOOL_THREADS(bench_settings),
    KITH_TOOL_JSON,
    KITH_TOOL_CSV,
    KITH_TOOL_QUIET,
};

/* What one run holds. */
typedef struct bench_state {
    const bench_settings *settings;
    kith_vectors *base, *query_file;
    void *owned;
    kith_view queries;
    kith_neighbors *truth;
    double truth_seconds; /* 0 when it came from a file */
    size_t ranks[KITH_TOOL_RANKS_MAX], rank_count;
    json_t *rows, *rates;
} bench_state;

static int truth_get(bench_state *bench) {
    const bench_settings *settings = bench->settings;
    kith_ground_truth_report report = {.size = sizeof report};
    kith_metric metric;
    kith_job job = kith_tool_job(settings->threads);
    job.memory_bytes_max = settings->memory;
    int code = kith_tool_check(kith_metric_parse(settings->metric, &metric), "--metric");
    if (code != KITH_EXIT_OK) return code;
    if (settings->gt != NULL) return kith_tool_neighbors_load(settings->gt, NULL, metric, &bench->truth);
    code = kith_tool_check(
        kith_ground_truth_compute(bench->base, &bench->queries, metric, settings->k, &job, &report, &bench->truth),
        NULL);
    bench->truth_seconds = report.seconds;
    return code;
}

static int sweep_spec(bench_state *bench, const char *spec) {
    const bench_settings *settings = bench->settings;
    const kith_tool_build build = {
        .spec = spec,
        .metric = settings->metric,
        .store = "auto",
        .base_path = settings->base,
        .threads = settings->threads,
        .seed = settings->seed,
        .train_count = settings->train,
    };
    kith_sweep_options sweep_options;
    kith_sweep_options_init(&sweep_options);
    sweep_options.k = settings->k;
    sweep_options.grid = settings->set.count > 0 ? settings->set.items : NULL;
    sweep_options.grid_count = settings->set.count;
    sweep_options.threads = settings->threads;
    sweep_options.repeats = settings->repeats;
    sweep_options.latency_queries = settings->latency_queries;
    sweep_options.ranks = bench->rank_count > 0 ? bench->ranks : NULL;
    sweep_options.rank_count = bench->rank_count;
    sweep_options.progress = kith_tool_progress;
    kith_index *index = NULL;
    kith_sweep *sweep = NULL;
    kith_tool_build_times times = {0};
    int code;
    KITH_TOOL_GO(kith_tool_index_build(&build, bench->base, &index, &times));
    KITH_TOOL_GO(
        kith_tool_check(kith_sweep_run(index, &bench->queries, bench->truth, &sweep_options, &sweep), NULL));
    const kith_measures *measures = sweep->points[0]->measures;
    bench->rank_count = 0;
    for (size_t i = 0; i < measures->rank_count && i < KITH_TOOL_RANKS_MAX; i++)
        bench->ranks[bench->rank_count++] = measures->at[i]->rank;
    kith_tool_rates_append(bench->rates, sweep);
    kith_tool_sweep_append(bench->rows, sweep, times.train_seconds + times.add_seconds);
done:
    kith_sweep_free(sweep);
    kith_index_free(index);
    return code;
}

static int print_bench(const bench_state *bench) {
    const kith_tool_common *common = &bench->settings->common;
    json_t *document = kith_tool_object();
    kith_tool_put_text(document, "base", bench->settings->base);
    kith_tool_put_text(document, "query", bench->settings->query);
    kith_tool_put_text(document, "metric", bench->settings->metric);
    kith_tool_put_count(document, "count", kith_vectors_count(bench->base));
    kith_tool_put_count(document, "dim", kith_vectors_dim(bench->base));
    kith_tool_put_count(document, "query_count", bench->queries.count);
    kith_tool_put_count(document, "k", bench->settings->k);
    if (bench->settings->gt == NULL) kith_tool_put_real(document, "truth_seconds", bench->truth_seconds);
    kith_tool_put_count(document, "process_bytes_peak", kith_tool_memory_peak());
    kith_tool_put(document, "points", json_incref(bench->rows));
    kith_tool_put(document, "at_recall", json_incref(bench->rates));
    if (!common->json && !common->csv) {
        kith_tool_progress_clear();
        (void)printf("%zu vectors of dimension %zu (%s), %zu queries, %s, k = %zu\n",
                     kith_vectors_count(bench->base), kith_vectors_dim(bench->base),
                     kith_dtype_name(kith_vectors_dtype(bench->base)), bench->queries.count,
                     bench->settings->metric, bench->settings->k);
        if (bench->settings->gt == NULL) (void)printf("exact ground truth in %.2f s\n", bench->truth_seconds);
        (void)putchar('\n');
    }
    int code = kith_tool_sweep_print(common, document, bench->rows, bench->ranks, bench->rank_count);
    size_t spec_count = bench->settings->spec.count > 0 ? bench->settings->spec.count : 1;
    if (code == KITH_EXIT_OK && json_array_size(bench->rows) > spec_count) /* a grid, not one point each */
        code = kith_tool_rates_print(common, bench->rates);
    json_decref(document);
    return code;
}

static int run(const void *given, const kith_tool_operands *operands) {
    const bench_settings *settings = given;
    (void)operands;
    bench_state bench = {.settings = settings, .rows = kith_tool_array(), .rates = kith_tool_array()};
    int code;
    if (settings->ranks != NULL)
        KITH_TOOL_GO(kith_tool_ranks_parse(settings->ranks, bench.ranks, &bench.rank_count));
    KITH_TOOL_GO(kith_tool_vectors_open(settings->base, NULL, &bench.base));
    KITH_TOOL_GO(kith_tool_vectors_open(settings->query, NULL, &bench.query_file));
    KITH_TOOL_GO(kith_tool_vectors_view(bench.query_file, settings->query, &bench.queries, &bench.owned));
    KITH_TOOL_GO(kith_tool_dim_check(bench.base, settings->base, bench.queries.dim, settings->query));
    if (settings->k > kith_vectors_count(bench.base)) {
        code = kith_tool_error(KITH_EXIT_USAGE, "--k %zu: %s holds %zu vectors", settings->k, settings->base,
                               kith_vectors_count(bench.base));
        goto done;
    }
    KITH_TOOL_GO(truth_get(&bench));
    if (settings->spec.count == 0) KITH_TOOL_GO(sweep_spec(&bench, "Flat"));
    for (size_t i = 0; i < settings->spec.count; i++) KITH_TOOL_GO(sweep_spec(&bench, settings->spec.items[i]));
    kith_tool_sweep_fronts(bench.rows);
    KITH_TOOL_GO(print_bench(&bench));
done:
    json_decref(bench.rates);
    json_decref(bench.rows);
    kith_neighbors_free(bench.truth);
    free(bench.owned);
    kith_vectors_close(bench.query_file);
    kith_vectors_close(bench.base);
    return code;
}

const kith_tool_command kith_tool_cmd_bench_index = {
    .name = "bench index",
    .summary = "Ground truth, build, search: the table of recall, speed and memory in one go.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .notes = "recall@k is the share of the k true neighbours among the first k results; a star marks the Pareto\n"
             "front of recall and queries a second on one thread. Flat stores vectors in the type of the file,\n"
             "Flat,f32 as f32.\n",
    .run = run,
};
