/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_tune.c: `kith tune`: the fastest search parameters that find enough, of one index or of several specs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "kith/tune.h"
#include "tool_eval.h"
#include "tool_index.h"
#include "tool_prefetch.h"

typedef struct tune_settings {
    kith_tool_common common;
    const char *index, *query, *gt, *base, *metric, *out;
    kith_tool_list spec, set;
    kith_tool_real recall, sure;
    size_t k, threads, build_threads, repeats, latency_queries, seed, train;
    uint64_t budget_bytes;
    const char *vectors;
    bool map, prefetch;
} tune_settings;

static const tune_settings defaults = {
    .metric = "l2", .k = 10, .threads = 1, .repeats = 3, .latency_queries = 1000, .seed = 1};

/* What is tried when no spec is given: kith's own choice of a graph, for the file's type and within the budget; then from
 * the most memory a vector to the least, graphs and lists. */
static const char *const usual_specs[] = {"HNSW",       "HNSW32,Flat", "IVF,Flat", "IVF,Line64,RFlat",
                                          "HNSW32,SQ8", "IVF,SQ8"};

static const kith_tool_option options[] = {
    {"index", "FILE", "the index to tune", offsetof(tune_settings, index), KITH_TOOL_FILE, false, 0, 0},
    {"base", "FILE", "or the vectors to build the indexes of --spec from", offsetof(tune_settings, base),
     KITH_TOOL_FILE, false, 0, 0},
    {"spec", "SPEC", "with --base: an index to try; may be repeated (default: graphs and lists)",
     offsetof(tune_settings, spec), KITH_TOOL_LIST, false, 0, 0},
    {"query", "FILE", "the queries: half of them choose, the others check", offsetof(tune_settings, query),
     KITH_TOOL_FILE, false, 0, 0},
    {"gt", "FILE", "the ground truth: ids (default with --base: computed)", offsetof(tune_settings, gt),
     KITH_TOOL_FILE, false, 0, 0},
    {"recall", "R", "the recall that is wanted, intersection@k (default 0.95)", offsetof(tune_settings, recall),
     KITH_TOOL_REAL, false, 0, 0},
    {"sure", "P", "how sure the choice has to be of it, 0.5 to 0.999 (default 0.9)", offsetof(tune_settings, sure),
     KITH_TOOL_REAL, false, 0, 0},
    {"budget-bytes", "SIZE", "leave out indexes that take more memory: 512M, 2G",
     offsetof(tune_settings, budget_bytes), KITH_TOOL_BYTES, false, 0, 0},
    {"k", "N", "neighbours of each query (default 10)", offsetof(tune_settings, k), KITH_TOOL_COUNT, false, 1,
     SIZE_MAX},
    {"set", "NAME=V,V,...", "try these values of a parameter alone, by rising effort", offsetof(tune_settings, set),
     KITH_TOOL_LIST, false, 0, 0},
    {"threads", "N", "threads of the searches, 0 for all processors (default 1)", offsetof(tune_settings, threads),
     KITH_TOOL_COUNT, false, 0, 1024},
    {"repeats", "N", "timed runs, medians count (default 3)", offsetof(tune_settings, repeats), KITH_TOOL_COUNT,
     false, 1, 1000},
    {"latency-queries", "N", "queries timed one by one, 0 for none (default 1000)",
     offsetof(tune_settings, latency_queries), KITH_TOOL_COUNT, false, 0, SIZE_MAX},
    {"metric", "l2|ip|cosine", "with --base: how near two vectors are (default l2)",
     offsetof(tune_settings, metric), KITH_TOOL_CHOICE, false, 0, 0},
    {"train", "N", "with --base: train on so many random rows (default: what the index recommends)",
     offsetof(tune_settings, train), KITH_TOOL_COUNT, false, 1, SIZE_MAX},
    {"build-threads", "N", "with --base: threads of builds, 0 for all processors (default 0)",
     offsetof(tune_settings, build_threads), KITH_TOOL_COUNT, false, 0, 1024},
    {"prefetch", NULL, "of a graph: choose how far ahead its searches ask for memory, and keep that in the file",
     offsetof(tune_settings, prefetch), KITH_TOOL_FLAG, false, 0, 0},
    {"out", "FILE", "write the chosen index; with --prefetch the tuned one (default: back to --index)",
     offsetof(tune_settings, out), KITH_TOOL_FILE, false, 0, 0},
    {"seed", "N", "which queries choose, and what is random in the build (default 1)",
     offsetof(tune_settings, seed), KITH_TOOL_COUNT, false, 0, SIZE_MAX},
    {"vectors", "FILE", "the vectors of an index that refines by a file (RFile)", offsetof(tune_settings, vectors),
     KITH_TOOL_FILE, false, 0, 0},
    {"map", NULL, "use the index file in place", offsetof(tune_settings, map), KITH_TOOL_FLAG, false, 0, 0},
    KITH_TOOL_JSON,
    KITH_TOOL_QUIET,
};

/* What one run holds. */
typedef struct tune_state {
    const tune_settings *settings;
    kith_vectors *base, *query_file;
    void *owned;
    kith_view queries;
    kith_neighbors *truth;
    json_t *rows;           /* an object for each index that was tried */
    kith_index *best_index; /* with --out */
    double best_qps;
    json_t *best; /* borrowed from rows; NULL when none reaches the recall within the budget */
} tune_state;

/* ---- One index -------------------------------------------------------------------------------------------------- */

static json_t *candidate_rows(const kith_tuning *tuning) {
    json_t *rows = kith_tool_array();
    for (size_t i = 0; i < tuning->candidate_count; i++) {
        json_t *row = kith_tool_object();
        kith_tool_put_text(row, "parameters", tuning->candidates[i].parameters);
        kith_tool_put_real(row, "recall", tuning->candidates[i].recall);
        kith_tool_put_real(row, "qps", tuning->candidates[i].qps);
        kith_tool_append(rows, row);
    }
    return rows;
}

static void put_tuning(json_t *row, const tune_settings *settings, const kith_tuning *tuning) {
    json_t *set = kith_tool_object();
    for (size_t i = 0; i < tuning->value_count; i++)
        kith_tool_put_text(set, tuning->values[i].name, tuning->values[i].value);
    kith_tool_put_text(row, "parameters", tuning->parameters);
    kith_tool_put(row, "set", set);
    kith_tool_put_bool(row, "is_reached", tuning->is_reached != 0);
    kith_tool_put_real(row, "recall", tuning->recall);
    kith_tool_put_real(row, "recall_low", tuning->recall_low);
    kith_tool_put_real(row, "recall_high", tuning->recall_high);
    kith_tool_put_real(row, "sure", tuning->sure);
    kith_tool_put_real(row, "recall_chosen", tuning->recall_chosen);
    kith_tool_put_count(row, "choose_count", tuning->choose_count);
    kith_tool_put_count(row, "check_count", tuning->check_count);
    kith_tool_put_count(row, "trial_count", tuning->trial_count);
    kith_tool_put_real(row, "qps_1", tuning->qps_1.median);
    if (tuning->qps_n.threads > 1) kith_tool_put_real(row, "qps_n", tuning->qps_n.median);
    kith_tool_put_count(row, "threads_n", tuning->qps_n.threads);
    kith_tool_put_real(row, "latency_mean_seconds", tuning->latency.mean);
    kith_tool_put_real(row, "latency_p50_seconds", tuning->latency.p50);
    kith_tool_put_real(row, "latency_p99_seconds", tuning->latency.p99);
    kith_tool_put(row, "candidates", candidate_rows(tuning));
    kith_tool_put_count(row, "k", settings->k);
}

/* Tunes an index and makes its row; *qps is 0 when the recall is not reached. */
static int tune_index(tune_state *state, const kith_index *index, json_t *row, double *qps) {
    const tune_settings *settings = state->settings;
    kith_tune_options tune_options;
    kith_tuning *tuning = NULL;
    kith_tune_options_init(&tune_options);
    tune_options.k = settings->k;
    if (settings->recall.given) tune_options.recall = settings->recall.value;
    if (settings->sure.given) tune_options.sure = settings->sure.value;
    tune_options.grid = settings->set.count > 0 ? settings->set.items : NULL;
    tune_options.grid_count = settings->set.count;
    tune_options.threads = settings->threads;
    tune_options.repeats = settings->repeats;
    tune_options.latency_queries = settings->latency_queries;
    tune_options.seed = settings->seed;
    tune_options.progress = kith_tool_progress;
    *qps = 0;
    int code = kith_tool_check(kith_tune(index, &state->queries, state->truth, &tune_options, &tuning), NULL);
    if (code != KITH_EXIT_OK) return code;
    put_tuning(row, settings, tuning);
    if (tuning->is_reached != 0) *qps = tuning->qps_n.median;
    kith_tuning_free(tuning);
    return KITH_EXIT_OK;
}

static int put_index(json_t *row, const kith_index *index, uint64_t *memory_bytes) {
    int code = kith_tool_index_memory(index, memory_bytes);
    kith_tool_put_text(row, "spec", kith_index_spec(index));
    kith_tool_put_count(row, "memory_bytes", *memory_bytes);
    kith_tool_put_real(row, "bytes_per_vector", (double)*memory_bytes / (double)kith_index_count(index));
    return code;
}

/* Over the budget: told, and not searched. */
static bool is_over(const tune_settings *settings, uint64_t memory_bytes) {
    return settings->budget_bytes > 0 && memory_bytes > settings->budget_bytes;
}

/* Takes the index over when it is the best so far and to be written. */
static int judge(tune_state *state, kith_index **index, json_t *row) {
    uint64_t memory_bytes;
    double qps = 0;
    int code = put_index(row, *index, &memory_bytes);
    if (code != KITH_EXIT_OK) return code;
    bool over = is_over(state->settings, memory_bytes);
    kith_tool_put_bool(row, "is_within_budget", !over);
    if (!over) code = tune_index(state, *index, row, &qps);
    if (code != KITH_EXIT_OK || qps <= state->best_qps) return code;
    state->best = row;
    state->best_qps = qps;
    if (state->settings->out != NULL) {
        kith_index_free(state->best_index);
        state->best_index = *index;
        *index = NULL;
    }
    return code;
}

/* ---- Several specs ---------------------------------------------------------------------------------------------- */

static int try_spec(tune_state *state, const char *spec) {
    const tune_settings *settings = state->settings;
    const kith_tool_build build = {
        .spec = spec,
        .metric = settings->metric,
        .store = "auto",
        .base_path = settings->base,
        .threads = settings->build_threads,
        .seed = settings->seed,
        .train_count = settings->train,
        .budget_bytes = settings->budget_bytes,
    };
    kith_index *index = NULL;
    kith_tool_build_times times = {0};
    json_t *row = kith_tool_object();
    kith_tool_append(state->rows, row); /* holds it from here on */
    int code;
    KITH_TOOL_GO(kith_tool_index_build(&build, state->base, &index, &times));
    kith_tool_put_real(row, "build_seconds", times.train_seconds + times.add_seconds);
    if (index == NULL) { /* it would not have fitted */
        kith_tool_put_text(row, "spec", spec);
        if (times.estimated_bytes > 0) kith_tool_put_count(row, "memory_bytes", times.estimated_bytes);
        kith_tool_put_bool(row, "is_within_budget", false);
    } else {
        KITH_TOOL_GO(judge(state, &index, row));
    }
done:
    kith_index_free(index);
    return code;
}

/* Has an index of this name been tried? "HNSW" may have become another of the usual ones. */
static int was_tried(const tune_state *state, const char *spec, bool *out) {
    kith_metric metric;
    kith_index *index;
    *out = false;
    int code = kith_tool_check(kith_metric_parse(state->settings->metric, &metric), "--metric");
    if (code != KITH_EXIT_OK) return code;
    code = kith_tool_check(kith_index_create(spec, kith_vectors_dim(state->base), metric, &index), NULL);
    if (code != KITH_EXIT_OK) return code;
    for (size_t i = 0; i < json_array_size(state->rows); i++) {
        const char *tried = json_string_value(json_object_get(json_array_get(state->rows, i), "spec"));
        *out = *out || (tried != NULL && strcmp(tried, kith_index_spec(index)) == 0);
    }
    kith_index_free(index);
    return KITH_EXIT_OK;
}

static int truth_get(tune_state *state) {
    const tune_settings *settings = state->settings;
    kith_metric metric;
    kith_job job = kith_tool_job(settings->build_threads);
    if (settings->gt != NULL) return kith_tool_neighbors_load(settings->gt, NULL, 0, &state->truth);
    int code = kith_tool_check(kith_metric_parse(settings->metric, &metric), "--metric");
    if (code != KITH_EXIT_OK) return code;
    return kith_tool_check(
        kith_ground_truth_compute(state->base, &state->queries, metric, settings->k, &job, NULL, &state->truth),
        NULL);
}

static int try_all(tune_state *state) {
    const tune_settings *settings = state->settings;
    if (settings->index != NULL) {
        kith_index *index = NULL;
        json_t *row = kith_tool_object();
        kith_tool_append(state->rows, row);
        int code = kith_tool_index_open(settings->index, settings->map, settings->vectors, &index);
        if (code == KITH_EXIT_OK) code = judge(state, &index, row);
        kith_index_free(index);
        return code;
    }
    int code = KITH_EXIT_OK;
    size_t usual_count = settings->spec.count > 0 ? 0 : sizeof usual_specs / sizeof *usual_specs;
    for (size_t i = 0; i < settings->spec.count && code == KITH_EXIT_OK; i++)
        code = try_spec(state, settings->spec.items[i]);
    for (size_t i = 0; i < usual_count && code == KITH_EXIT_OK; i++) {
        bool is_tried = false;
        if (i > 0) code = was_tried(state, usual_specs[i], &is_tried);
        if (code == KITH_EXIT_OK && !is_tried) code = try_spec(state, usual_specs[i]);
    }
    return code;
}

/* ---- The report ------------------------------------------------------------------------------------------------- */

static const kith_tool_column row_columns[] = {
    {"spec", "index", KITH_TOOL_CELL_TEXT},
    {"parameters", "--set", KITH_TOOL_CELL_TEXT},
    {"recall", "recall", KITH_TOOL_CELL_RECALL},
    {"recall_low", "from", KITH_TOOL_CELL_RECALL},
    {"recall_high", "to (95%)", KITH_TOOL_CELL_RECALL},
    {"sure", "sure", KITH_TOOL_CELL_REAL},
    {"qps_1", "QPS, 1 thread", KITH_TOOL_CELL_COUNT},
    {"qps_n", "QPS", KITH_TOOL_CELL_COUNT},
    {"threads_n", "threads", KITH_TOOL_CELL_COUNT},
    {"latency_p50_seconds", "p50", KITH_TOOL_CELL_SECONDS},
    {"latency_p99_seconds", "p99", KITH_TOOL_CELL_SECONDS},
    {"memory_bytes", "memory", KITH_TOOL_CELL_BYTES},
    {"bytes_per_vector", "bytes a vector", KITH_TOOL_CELL_REAL},
    {"build_seconds", "build time", KITH_TOOL_CELL_SECONDS},
    {"is_reached", "reached", KITH_TOOL_CELL_TEXT},
    {"is_within_budget", "in budget", KITH_TOOL_CELL_TEXT},
};

static void print_choice(const tune_state *state, double wanted) {
    const json_t *best = state->best;
    if (best == NULL) {
        (void)printf("\nNo index reaches a recall of %g%s.\n", wanted,
                     state->settings->budget_bytes > 0 ? " within the budget" : "");
        return;
    }
    const char *parameters = json_string_value(json_object_get(best, "parameters"));
    (void)printf("\n%s: recall %.4f, 95%% interval %.4f to %.4f, on %lld queries that had no say;\n"
                 "%.1f%% sure that it is at least %g on queries like them\n",
                 json_string_value(json_object_get(best, "spec")),
                 json_number_value(json_object_get(best, "recall")),
                 json_number_value(json_object_get(best, "recall_low")),
                 json_number_value(json_object_get(best, "recall_high")),
                 (long long)json_integer_value(json_object_get(best, "check_count")),
                 100.0 * json_number_value(json_object_get(best, "sure")), wanted);
    if (parameters != NULL && parameters[0] != '\0') (void)printf("\n  --set %s\n", parameters);
}

static int report(const tune_state *state) {
    const tune_settings *settings = state->settings;
    double wanted = settings->recall.given ? settings->recall.value : 0.95;
    json_t *document = kith_tool_object();
    kith_tool_put_real(document, "wanted_recall", wanted);
    kith_tool_put_count(document, "query_count", state->queries.count);
    kith_tool_put_count(document, "k", settings->k);
    if (settings->budget_bytes > 0) kith_tool_put_count(document, "budget_bytes", settings->budget_bytes);
    kith_tool_put(document, "best", state->best != NULL ? json_incref(state->best) : json_null());
    kith_tool_put(document, "indexes", json_incref(state->rows));
    int code = kith_tool_print_rows(&settings->common, document, state->rows, row_columns,
                                    sizeof row_columns / sizeof *row_columns);
    if (code == KITH_EXIT_OK && !settings->common.json) print_choice(state, wanted);
    json_decref(document);
    if (code == KITH_EXIT_OK) code = kith_tool_flush();
    return code == KITH_EXIT_OK && state->best == NULL ? KITH_EXIT_CHECK : code;
}

/* Either an index, or a base and specs. */
static int check_settings(const tune_settings *settings) {
    if (settings->query == NULL) return kith_tool_error(KITH_EXIT_USAGE, "--query is needed");
    if ((settings->index != NULL) == (settings->base != NULL))
        return kith_tool_error(KITH_EXIT_USAGE, "either --index or --base is needed");
    if (settings->index != NULL && (settings->spec.count > 0 || settings->out != NULL || settings->train > 0))
        return kith_tool_error(KITH_EXIT_USAGE, "--spec, --train and --out go with --base, not with --index");
    if (settings->index != NULL && settings->gt == NULL)
        return kith_tool_error(KITH_EXIT_USAGE, "--gt is needed with --index");
    return KITH_EXIT_OK;
}

/* --prefetch: the vectors of the index itself are the queries. */
static int tune_prefetch(const tune_settings *settings) {
    kith_prefetch_options prefetch;
    if (settings->index == NULL || settings->query != NULL || settings->gt != NULL || settings->base != NULL ||
        settings->set.count > 0 || settings->map)
        return kith_tool_error(KITH_EXIT_USAGE,
                               "--prefetch goes with --index, --out, --k, --threads and --vectors alone");
    kith_prefetch_options_init(&prefetch);
    prefetch.k = settings->k;
    prefetch.threads = settings->threads;
    prefetch.progress = kith_tool_progress;
    return kith_tool_prefetch_tune(&settings->common, settings->index, settings->vectors, &prefetch,
                                   settings->out != NULL ? settings->out : settings->index);
}

static int run(const void *given, const kith_tool_operands *operands) {
    const tune_settings *settings = given;
    (void)operands;
    if (settings->prefetch) return tune_prefetch(settings);
    tune_state state = {.settings = settings, .rows = kith_tool_array()};
    int code;
    KITH_TOOL_GO(check_settings(settings));
    if (settings->base != NULL) KITH_TOOL_GO(kith_tool_vectors_open(settings->base, NULL, &state.base));
    KITH_TOOL_GO(kith_tool_vectors_open(settings->query, NULL, &state.query_file));
    KITH_TOOL_GO(kith_tool_vectors_view(state.query_file, settings->query, &state.queries, &state.owned));
    if (state.base != NULL)
        KITH_TOOL_GO(kith_tool_dim_check(state.base, settings->base, state.queries.dim, settings->query));
    KITH_TOOL_GO(truth_get(&state));
    KITH_TOOL_GO(try_all(&state));
    if (state.best_index != NULL)
        KITH_TOOL_GO(kith_tool_check(kith_index_save(state.best_index, settings->out), settings->out));
    KITH_TOOL_GO(report(&state));
done:
    kith_index_free(state.best_index);
    json_decref(state.rows);
    kith_neighbors_free(state.truth);
    free(state.owned);
    kith_vectors_close(state.query_file);
    kith_vectors_close(state.base);
    return code;
}

const kith_tool_command kith_tool_cmd_tune = {
    .name = "tune",
    .summary = "Chooses the fastest search parameters that reach a recall, and says how sure it is.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .notes =
        "A random half of the queries chooses; recall, its interval (bootstrap) and speed are those of the other\n"
        "half. Exit code 1: nothing reaches the recall, or nothing within --budget-bytes.\n",
    .run = run,
};
