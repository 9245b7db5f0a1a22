/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_quant.c: `kith quant`: what a code saves and what it loses, on the vectors of a file.
 */
#include <math.h>
#include <stdlib.h>

#include "commands.h"
#include "kith/quantizer.h"
#include "tool_eval.h"
#include "tool_index.h"

typedef struct quant_settings {
    kith_tool_common common;
    const char *base, *spec, *metric, *query, *gt;
    size_t train, k, seed, threads;
    bool is_symmetric;
} quant_settings;

static const quant_settings defaults = {.metric = "l2", .train = 65536, .k = 10, .seed = 1};

static const kith_tool_option options[] = {
    {"base", "FILE", "the vectors", offsetof(quant_settings, base), KITH_TOOL_FILE, true, 0, 0},
    {"spec", "CODE", "the code: SQ8, SQ4_trained, PQ16, RaBitQ4, Line64, f16", offsetof(quant_settings, spec),
     KITH_TOOL_TEXT, true, 0, 0},
    {"metric", "l2|ip|cosine", "the metric (default l2)", offsetof(quant_settings, metric), KITH_TOOL_CHOICE, false,
     0, 0},
    {"train", "N", "vectors to learn from, 0 for all (default 65536)", offsetof(quant_settings, train),
     KITH_TOOL_COUNT, false, 0, SIZE_MAX},
    {"query", "FILE", "queries: searches the codes exhaustively; with --gt", offsetof(quant_settings, query),
     KITH_TOOL_FILE, false, 0, 0},
    {"gt", "FILE", "their ground truth: ids", offsetof(quant_settings, gt), KITH_TOOL_FILE, false, 0, 0},
    {"symmetric", NULL, "round the queries too: what codes find among themselves",
     offsetof(quant_settings, is_symmetric), KITH_TOOL_FLAG, false, 0, 0},
    {"k", "N", "recall of so many neighbours (default 10)", offsetof(quant_settings, k), KITH_TOOL_COUNT, false, 1,
     SIZE_MAX},
    {"seed", "N", "another seed, other random choices (default 1)", offsetof(quant_settings, seed), KITH_TOOL_COUNT,
     false, 0, SIZE_MAX},
    KITH_TOOL_THREADS(quant_settings),
    KITH_TOOL_JSON,
    KITH_TOOL_QUIET,
};

/* Codes of a file: what was found out about them. */
typedef struct quant_result {
    size_t train_count;
    double train_seconds, measure_seconds, recall;
    kith_quantizer_error error;
} quant_result;

static int train(const quant_settings *settings, kith_vectors *base, const kith_view *all, const kith_job *job,
                 kith_quantizer *quantizer, quant_result *result) {
    size_t count = settings->train == 0 || settings->train > all->count ? all->count : settings->train;
    kith_view sample = *all;
    void *owned = NULL;
    int code = KITH_EXIT_OK;
    if (kith_quantizer_is_trained(quantizer)) return code;
    if (count < all->count) {
        size_t row_bytes = kith_dtype_row_bytes(all->dtype, all->dim);
        owned = calloc(count, row_bytes);
        if (owned == NULL) return kith_tool_no_memory(count, row_bytes);
        sample = (kith_view){owned, all->dtype, count, all->dim, 0};
        KITH_TOOL_GO(
            kith_tool_check(kith_vectors_sample(base, count, settings->seed, all->dtype, owned), settings->base));
    }
    double start = kith_tool_seconds();
    KITH_TOOL_GO(kith_tool_check(kith_quantizer_train(quantizer, &sample, job), settings->base));
    result->train_seconds = kith_tool_seconds() - start;
    result->train_count = count;
done:
    free(owned);
    return code;
}

/* Puts in place of the queries what their codes stand for. *out is to be freed, after a failure too. */
static int round_queries(const quant_settings *settings, const kith_quantizer *quantizer, kith_view *queries,
                         float **out) {
    size_t count = queries->count, dim = queries->dim, code_bytes = kith_quantizer_code_bytes(quantizer);
    const kith_job job = kith_tool_job(settings->threads);
    void *codes = calloc(count, code_bytes);
    int code = KITH_EXIT_OK;
    *out = calloc(count, dim * sizeof **out);
    if (codes == NULL || *out == NULL) {
        code = kith_tool_no_memory(count, code_bytes + dim * sizeof **out);
        goto done;
    }
    KITH_TOOL_GO(kith_tool_check(kith_quantizer_encode(quantizer, queries, &job, codes), settings->query));
    KITH_TOOL_GO(kith_tool_check(kith_quantizer_decode(quantizer, codes, count, &job, *out), NULL));
    *queries = (kith_view){*out, KITH_F32, count, dim, 0};
done:
    free(codes);
    return code;
}

/* Recall of an index that holds the codes and nothing else, all of which are searched. */
static int measure_recall(const quant_settings *settings, kith_vectors *base, const kith_quantizer *quantizer,
                          quant_result *result) {
    kith_index *index = NULL;
    kith_vectors *vectors = NULL;
    kith_neighbors *truth = NULL, *found = NULL;
    kith_measures *measures = NULL;
    kith_view queries;
    void *owned = NULL;
    float *rounded = NULL;
    int code;
    kith_tool_build build = {.spec = kith_quantizer_spec(quantizer),
                             .metric = settings->metric,
                             .store = "auto",
                             .base_path = settings->base,
                             .threads = settings->threads,
                             .seed = settings->seed,
                             .train_count = settings->train == 0 ? SIZE_MAX : settings->train};
    kith_tool_build_times times = {0};
    kith_search_params params;
    kith_measures_options measured;
    KITH_TOOL_GO(kith_tool_vectors_open(settings->query, NULL, &vectors));
    KITH_TOOL_GO(kith_tool_dim_check(base, settings->base, kith_vectors_dim(vectors), settings->query));
    KITH_TOOL_GO(kith_tool_vectors_view(vectors, settings->query, &queries, &owned));
    if (settings->is_symmetric) KITH_TOOL_GO(round_queries(settings, quantizer, &queries, &rounded));
    KITH_TOOL_GO(kith_tool_neighbors_load(settings->gt, NULL, 0, &truth));
    KITH_TOOL_GO(kith_tool_index_build(&build, base, &index, &times));
    KITH_TOOL_GO(kith_tool_check(kith_neighbors_create(queries.count, settings->k, 0, &found), NULL));
    kith_search_params_init(&params);
    params.threads = settings->threads;
    params.progress = kith_tool_progress;
    KITH_TOOL_GO(kith_tool_check(kith_index_search(index, &queries, settings->k, &params, found->ids, NULL, NULL),
                                 settings->query));
    kith_measures_options_init(&measured);
    measured.ranks = &settings->k;
    measured.rank_count = 1;
    measured.truth_name = settings->gt;
    measured.result_name = settings->spec;
    KITH_TOOL_GO(kith_tool_check(kith_measures_compute(found, truth, &measured, &measures), NULL));
    result->recall = measures->at[0]->intersection;
done:
    kith_measures_free(measures);
    kith_neighbors_free(found);
    kith_neighbors_free(truth);
    free(rounded);
    free(owned);
    kith_vectors_close(vectors);
    kith_index_free(index);
    return code;
}

static int print_result(const quant_settings *settings, const kith_quantizer *quantizer,
                        const quant_result *result) {
    static const kith_tool_column columns[] = {
        {"base", "file", KITH_TOOL_CELL_TEXT},
        {"count", "vectors", KITH_TOOL_CELL_COUNT},
        {"dim", "dimension", KITH_TOOL_CELL_COUNT},
        {"spec", "code", KITH_TOOL_CELL_TEXT},
        {"metric", "metric", KITH_TOOL_CELL_TEXT},
        {"train_count", "trained on", KITH_TOOL_CELL_COUNT},
        {"code_bytes", "bytes a vector", KITH_TOOL_CELL_COUNT},
        {"f32_ratio", "smaller than f32", KITH_TOOL_CELL_REAL},
        {"trained_bytes", "learnt", KITH_TOOL_CELL_BYTES},
        {"squared_error", "squared error", KITH_TOOL_CELL_REAL},
        {"relative_error", "share of the variance", KITH_TOOL_CELL_REAL},
        {"recall", "recall", KITH_TOOL_CELL_RECALL},
        {"train_seconds", "training", KITH_TOOL_CELL_SECONDS},
        {"measure_seconds", "encoding and decoding", KITH_TOOL_CELL_SECONDS},
    };
    size_t dim = kith_quantizer_dim(quantizer), code_bytes = kith_quantizer_code_bytes(quantizer);
    json_t *object = kith_tool_object();
    kith_tool_put_text(object, "base", settings->base);
    kith_tool_put_count(object, "count", result->error.count);
    kith_tool_put_count(object, "dim", dim);
    kith_tool_put_text(object, "spec", kith_quantizer_spec(quantizer));
    kith_tool_put_text(object, "metric", settings->metric);
    kith_tool_put_count(object, "train_count", result->train_count);
    kith_tool_put_count(object, "code_bytes", code_bytes);
    kith_tool_put_real(object, "f32_ratio", (double)(dim * sizeof(float)) / (double)code_bytes);
    kith_tool_put_count(object, "trained_bytes", kith_quantizer_memory(quantizer));
    kith_tool_put_real(object, "squared_error", result->error.squared_error);
    kith_tool_put_real(object, "relative_error", result->error.relative_error);
    if (settings->query != NULL) {
        kith_tool_put_count(object, "k", settings->k);
        kith_tool_put_real(object, "recall", result->recall);
    }
    kith_tool_put_real(object, "train_seconds", result->train_seconds);
    kith_tool_put_real(object, "measure_seconds", result->measure_seconds);
    int code = kith_tool_print_object(&settings->common, object, columns, sizeof columns / sizeof *columns);
    json_decref(object);
    return code;
}

static int run(const void *given, const kith_tool_operands *operands) {
    const quant_settings *settings = given;
    (void)operands;
    kith_vectors *base = NULL;
    kith_quantizer *quantizer = NULL;
    kith_view all;
    void *owned = NULL;
    quant_result result = {.error = {.size = sizeof result.error}};
    kith_metric metric;
    kith_job job = kith_tool_job(settings->threads);
    job.seed = settings->seed;
    int code;
    if ((settings->query == NULL) != (settings->gt == NULL))
        return kith_tool_error(KITH_EXIT_USAGE, "--query and --gt go together");
    if (settings->is_symmetric && settings->query == NULL)
        return kith_tool_error(KITH_EXIT_USAGE, "--symmetric needs --query");
    KITH_TOOL_GO(kith_tool_check(kith_metric_parse(settings->metric, &metric), NULL));
    KITH_TOOL_GO(kith_tool_vectors_open(settings->base, NULL, &base));
    KITH_TOOL_GO(
        kith_tool_check(kith_quantizer_create(settings->spec, kith_vectors_dim(base), metric, &quantizer), NULL));
    KITH_TOOL_GO(kith_tool_vectors_view(base, settings->base, &all, &owned));
    KITH_TOOL_GO(train(settings, base, &all, &job, quantizer, &result));
    KITH_TOOL_GO(kith_tool_stop_if_interrupted());
    double start = kith_tool_seconds();
    KITH_TOOL_GO(kith_tool_check(kith_quantizer_measure(quantizer, &all, &job, &result.error), settings->base));
    result.measure_seconds = kith_tool_seconds() - start;
    if (settings->query != NULL) KITH_TOOL_GO(measure_recall(settings, base, quantizer, &result));
    KITH_TOOL_GO(kith_tool_stop_if_interrupted());
    KITH_TOOL_GO(print_result(settings, quantizer, &result));
done:
    kith_quantizer_free(quantizer);
    free(owned);
    kith_vectors_close(base);
    return code;
}

const kith_tool_command kith_tool_cmd_quant = {
    .name = "quant",
    .summary = "Says what a code saves and what it loses.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .notes =
        "Errors are those of decoded vectors, under cosine of normalised ones. recall is the share of the k true\n"
        "neighbours among the first k results of a search over all codes, without refinement.\n",
    .run = run,
};
