/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_compact.c: `kith compact`: what removals have left behind goes.
 */
#include "commands.h"
#include "tool_change.h"

typedef struct compact_settings {
    kith_tool_common common;
    const char *index, *out;
} compact_settings;

static const compact_settings defaults;

static const kith_tool_option options[] = {
    KITH_TOOL_INDEX(compact_settings),
    KITH_TOOL_OUT(compact_settings),
    KITH_TOOL_JSON,
    KITH_TOOL_QUIET,
};

static int run(const void *given, const kith_tool_operands *operands) {
    const compact_settings *settings = given;
    (void)operands;
    const char *out = settings->out != NULL ? settings->out : settings->index;
    kith_index *index = NULL;
    uint64_t before, after;
    int code;
    KITH_TOOL_GO(kith_tool_index_open(settings->index, false, NULL, &index));
    KITH_TOOL_GO(kith_tool_index_memory(index, &before));
    double start = kith_tool_seconds();
    KITH_TOOL_GO(kith_tool_check(kith_index_compact(index), settings->index));
    double seconds = kith_tool_seconds() - start;
    KITH_TOOL_GO(kith_tool_index_memory(index, &after));
    KITH_TOOL_GO(kith_tool_change_save(index, out));
    json_t *row = kith_tool_change_row(index, out, seconds), *rows = kith_tool_array();
    kith_tool_put_count(row, "freed_bytes", before > after ? before - after : 0);
    kith_tool_append(rows, row);
    code = kith_tool_change_print(&settings->common, rows);
done:
    kith_index_free(index);
    return code;
}

const kith_tool_command kith_tool_cmd_compact = {
    .name = "compact",
    .summary = "Takes out what removals have left in an index file.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .run = run,
};
