/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_build.c: `kith build`: an index file from a vector file.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "commands.h"
#include "tool_index.h"

typedef struct build_settings {
    kith_tool_common common;
    const char *spec, *metric, *base, *out, *ids, *store;
    size_t threads, seed, train, batch;
    uint64_t budget_bytes;
} build_settings;

static const build_settings defaults = {.spec = "Flat", .metric = "l2", .store = "auto", .seed = 1};

static const kith_tool_option options[] = {
    {"spec", "SPEC", "what to build: Flat, Flat,f16, IVF1024,SQ8, ... (default Flat)",
     offsetof(build_settings, spec), KITH_TOOL_TEXT, false, 0, 0},
    {"metric", "l2|ip|cosine", "how near two vectors are (default l2)", offsetof(build_settings, metric),
     KITH_TOOL_CHOICE, false, 0, 0},
    {"base", "FILE", "the vectors", offsetof(build_settings, base), KITH_TOOL_FILE, true, 0, 0},
    {"out", "FILE", "the index file to write", offsetof(build_settings, out), KITH_TOOL_FILE, true, 0, 0},
    {"ids", "FILE", "ids of the vectors, .txt or integers (default 0, 1, ...)", offsetof(build_settings, ids),
     KITH_TOOL_FILE, false, 0, 0},
    {"store", "auto|f32|f16|bf16|i8|u8", "element type when SPEC is Flat or HNSW alone (default auto: the file's)",
     offsetof(build_settings, store), KITH_TOOL_CHOICE, false, 0, 0},
    {"budget-bytes", "SIZE",
     "refuse an index that takes more memory: 512M, 2G; HNSW alone becomes one that does not",
     offsetof(build_settings, budget_bytes), KITH_TOOL_BYTES, false, 0, 0},
    {"train", "N", "train on so many random rows (default: what the index recommends)",
     offsetof(build_settings, train), KITH_TOOL_COUNT, false, 1, SIZE_MAX},
    {"batch", "N", "add so many rows at a time (default: a GiB of f32)", offsetof(build_settings, batch),
     KITH_TOOL_COUNT, false, 1, SIZE_MAX},
    {"seed", "N", "seed of what is random in the build (default 1)", offsetof(build_settings, seed),
     KITH_TOOL_COUNT, false, 0, SIZE_MAX},
    KITH_TOOL_THREADS(build_settings),
    KITH_TOOL_JSON,
    KITH_TOOL_QUIET,
};

/* What "HNSW" has become, in a line. */
static void put_choice(json_t *object, const build_settings *settings, const kith_index *index,
                       const kith_tool_build_times *times) {
    char text[512];
    if (settings->budget_bytes == 0) return;
    kith_tool_put_count(object, "budget_bytes", settings->budget_bytes);
    kith_tool_put_count(object, "estimated_bytes", times->estimated_bytes);
    if (!kith_tool_is_choice(settings->spec)) return;
    (void)snprintf(text, sizeof text, "%s, the first that %llu bytes hold: %zu vectors take about %llu",
                   kith_index_spec(index), (unsigned long long)settings->budget_bytes, kith_index_count(index),
                   (unsigned long long)times->estimated_bytes);
    kith_tool_put_text(object, "choice", text);
}

/* Why there is no index. */
static int refuse(const build_settings *settings, const kith_tool_build_times *times) {
    if (times->estimated_bytes == 0) return kith_tool_error(KITH_EXIT_MEMORY, "%s", kith_error_message());
    return kith_tool_error(KITH_EXIT_MEMORY, "--spec %s: would take about %llu bytes, --budget-bytes is %llu",
                           settings->spec, (unsigned long long)times->estimated_bytes,
                           (unsigned long long)settings->budget_bytes);
}

static int report(const build_settings *settings, const kith_index *index, const kith_tool_build_times *times,
                  double save_seconds) {
    static const kith_tool_column columns[] = {
        {"file", "file", KITH_TOOL_CELL_TEXT},
        {"spec", "index", KITH_TOOL_CELL_TEXT},
        {"choice", "chosen", KITH_TOOL_CELL_TEXT},
        {"metric", "metric", KITH_TOOL_CELL_TEXT},
        {"count", "vectors", KITH_TOOL_CELL_COUNT},
        {"dim", "dimension", KITH_TOOL_CELL_COUNT},
        {"memory_bytes", "memory", KITH_TOOL_CELL_BYTES},
        {"bytes_per_vector", "bytes a vector", KITH_TOOL_CELL_REAL},
        {"file_bytes", "file size", KITH_TOOL_CELL_BYTES},
        {"train_count", "trained on", KITH_TOOL_CELL_COUNT},
        {"train_seconds", "training", KITH_TOOL_CELL_SECONDS},
        {"add_seconds", "adding", KITH_TOOL_CELL_SECONDS},
        {"build_seconds", "build time", KITH_TOOL_CELL_SECONDS},
        {"save_seconds", "save time", KITH_TOOL_CELL_SECONDS},
    };
    uint64_t memory_bytes;
    struct stat file;
    int code = kith_tool_index_memory(index, &memory_bytes);
    if (code != KITH_EXIT_OK) return code;
    json_t *object = kith_tool_object();
    kith_tool_put_text(object, "file", settings->out);
    kith_tool_put_text(object, "spec", kith_index_spec(index));
    put_choice(object, settings, index, times);
    kith_tool_put_text(object, "metric", kith_metric_name(kith_index_metric(index)));
    kith_tool_put_text(object, "dtype", kith_dtype_name(kith_index_dtype(index)));
    kith_tool_put_count(object, "count", kith_index_count(index));
    kith_tool_put_count(object, "dim", kith_index_dim(index));
    kith_tool_put_count(object, "memory_bytes", memory_bytes);
    if (stat(settings->out, &file) == 0) kith_tool_put_count(object, "file_bytes", (uint64_t)file.st_size);
    kith_tool_put_real(object, "bytes_per_vector", (double)memory_bytes / (double)kith_index_count(index));
    kith_tool_put_count(object, "train_count", times->train_count);
    kith_tool_put_count(object, "batch_count", times->batch_count);
    kith_tool_put_real(object, "train_seconds", times->train_seconds);
    kith_tool_put_real(object, "add_seconds", times->add_seconds);
    kith_tool_put_real(object, "build_seconds", times->train_seconds + times->add_seconds);
    kith_tool_put_real(object, "save_seconds", save_seconds);
    code = kith_tool_print_object(&settings->common, object, columns, sizeof columns / sizeof *columns);
    json_decref(object);
    return code;
}

static int run(const void *given, const kith_tool_operands *operands) {
    const build_settings *settings = given;
    (void)operands;
    const kith_tool_build build = {
        .spec = settings->spec,
        .metric = settings->metric,
        .store = settings->store,
        .base_path = settings->base,
        .ids_path = settings->ids,
        .threads = settings->threads,
        .seed = settings->seed,
        .train_count = settings->train,
        .batch_rows = settings->batch,
        .budget_bytes = settings->budget_bytes,
    };
    kith_vectors *base = NULL;
    kith_index *index = NULL;
    kith_tool_build_times times = {0};
    int code;
    KITH_TOOL_GO(kith_tool_vectors_open(settings->base, NULL, &base));
    KITH_TOOL_GO(kith_tool_index_build(&build, base, &index, &times));
    if (index == NULL) KITH_TOOL_GO(refuse(settings, &times));
    double start = kith_tool_seconds();
    KITH_TOOL_GO(kith_tool_stop_if_interrupted());
    KITH_TOOL_GO(kith_tool_check(kith_index_save(index, settings->out), settings->out));
    KITH_TOOL_GO(report(settings, index, &times, kith_tool_seconds() - start));
done:
    kith_index_free(index);
    kith_vectors_close(base);
    return code;
}

const kith_tool_command kith_tool_cmd_build = {
    .name = "build",
    .summary = "Builds an index from a vector file.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .run = run,
};
