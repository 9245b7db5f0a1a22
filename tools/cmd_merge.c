/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_merge.c: `kith merge`: several index files of one spec become one.
 */
#include "commands.h"
#include "tool_change.h"

typedef struct merge_settings {
    kith_tool_common common;
    const char *out;
    size_t id_shift;
} merge_settings;

static const merge_settings defaults;

static const kith_tool_option options[] = {
    {"out", "FILE", "the index file to write", offsetof(merge_settings, out), KITH_TOOL_FILE, true, 0, 0},
    {"id-shift", "N", "add N to the ids of the second file, 2 N to those of the third, ... (default 0)",
     offsetof(merge_settings, id_shift), KITH_TOOL_COUNT, false, 0, SIZE_MAX},
    KITH_TOOL_JSON,
    KITH_TOOL_QUIET,
};

static int take_in(kith_index *into, const char *path, size_t number, size_t id_shift) {
    kith_index *from = NULL;
    int code;
    if (number != 0 && id_shift > (size_t)INT64_MAX / number)
        return kith_tool_error(KITH_EXIT_USAGE, "--id-shift %zu: ids of file %zu pass 2^63 - 2", id_shift,
                               number + 1);
    KITH_TOOL_GO(kith_tool_index_open(path, true, NULL, &from));
    KITH_TOOL_GO(kith_tool_check(kith_index_merge(into, from, (int64_t)(number * id_shift)), path));
done:
    kith_index_free(from);
    return code;
}

static int run(const void *given, const kith_tool_operands *operands) {
    const merge_settings *settings = given;
    kith_index *index = NULL;
    int code;
    KITH_TOOL_GO(kith_tool_index_open(operands->items[0], false, NULL, &index));
    double start = kith_tool_seconds();
    for (size_t i = 1; i < operands->count; i++) {
        KITH_TOOL_GO(kith_tool_stop_if_interrupted());
        KITH_TOOL_GO(take_in(index, operands->items[i], i, settings->id_shift));
    }
    double seconds = kith_tool_seconds() - start;
    KITH_TOOL_GO(kith_tool_change_save(index, settings->out));
    json_t *rows = kith_tool_array();
    kith_tool_append(rows, kith_tool_change_row(index, settings->out, seconds));
    code = kith_tool_change_print(&settings->common, rows);
done:
    kith_index_free(index);
    return code;
}

const kith_tool_command kith_tool_cmd_merge = {
    .name = "merge",
    .summary = "Makes one index file of several.",
    .operands = "FILE FILE...",
    .operand_min = 2,
    .operand_max = SIZE_MAX,
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .notes = "The files have one spec, dimension and metric, and what was trained was trained alike.\n",
    .run = run,
};
