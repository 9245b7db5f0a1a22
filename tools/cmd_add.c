/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_add.c: `kith add`: vectors into an index file.
 */
#include "commands.h"
#include "tool_change.h"

typedef struct add_settings {
    kith_tool_common common;
    const char *index, *out, *base, *ids;
    bool upsert;
    size_t threads, seed, batch;
} add_settings;

static const add_settings defaults = {.seed = 1};

static const kith_tool_option options[] = {
    KITH_TOOL_INDEX(add_settings),
    {"base", "FILE", "the vectors to add", offsetof(add_settings, base), KITH_TOOL_FILE, true, 0, 0},
    {"ids", "FILE", "their ids, .txt or integers (default: numbered on from the largest)",
     offsetof(add_settings, ids), KITH_TOOL_FILE, false, 0, 0},
    {"upsert", NULL, "replace the vectors whose ids are there; needs --ids", offsetof(add_settings, upsert),
     KITH_TOOL_FLAG, false, 0, 0},
    KITH_TOOL_OUT(add_settings),
    {"batch", "N", "add so many rows at a time (default: a GiB of f32)", offsetof(add_settings, batch),
     KITH_TOOL_COUNT, false, 1, SIZE_MAX},
    {"seed", "N", "seed of what is random in adding (default 1)", offsetof(add_settings, seed), KITH_TOOL_COUNT,
     false, 0, SIZE_MAX},
    KITH_TOOL_THREADS(add_settings),
    KITH_TOOL_JSON,
    KITH_TOOL_QUIET,
};

static int run(const void *given, const kith_tool_operands *operands) {
    const add_settings *settings = given;
    (void)operands;
    const char *out = settings->out != NULL ? settings->out : settings->index;
    const kith_tool_build build = {
        .base_path = settings->base,
        .ids_path = settings->ids,
        .upsert = settings->upsert,
        .threads = settings->threads,
        .seed = settings->seed,
        .batch_rows = settings->batch,
    };
    kith_vectors *base = NULL;
    kith_index *index = NULL;
    kith_tool_build_times times = {0};
    int code;
    if (settings->upsert && settings->ids == NULL)
        return kith_tool_error(KITH_EXIT_USAGE, "--upsert needs --ids: which vectors are to be replaced?");
    KITH_TOOL_GO(kith_tool_vectors_open(settings->base, NULL, &base));
    KITH_TOOL_GO(kith_tool_index_open(settings->index, false, NULL, &index));
    size_t before = kith_index_count(index);
    KITH_TOOL_GO(kith_tool_index_add(index, &build, base, &times));
    KITH_TOOL_GO(kith_tool_change_save(index, out));
    json_t *row = kith_tool_change_row(index, out, times.add_seconds), *rows = kith_tool_array();
    kith_tool_put_count(row, "added", kith_index_count(index) - before);
    if (settings->upsert) kith_tool_put_count(row, "replaced", times.replaced_count);
    kith_tool_append(rows, row);
    code = kith_tool_change_print(&settings->common, rows);
done:
    kith_index_free(index);
    kith_vectors_close(base);
    return code;
}

const kith_tool_command kith_tool_cmd_add = {
    .name = "add",
    .summary = "Adds vectors to an index file, or replaces them.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .run = run,
};
