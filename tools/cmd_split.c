/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_split.c: `kith split`: one index file becomes two, as a filter says.
 */
#include "commands.h"
#include "tool_change.h"

typedef struct split_settings {
    kith_tool_common common;
    const char *index, *filter, *out, *rest;
} split_settings;

static const split_settings defaults;

static const kith_tool_option options[] = {
    {"index", "FILE", "the index file to split", offsetof(split_settings, index), KITH_TOOL_FILE, true, 0, 0},
    {"filter", "FILTER", "which vectors leave: FILE, bits:FILE, range:FIRST-LAST, joined by & | ! ( )",
     offsetof(split_settings, filter), KITH_TOOL_FILE, true, 0, 0},
    {"out", "FILE", "the index file to write of those that leave", offsetof(split_settings, out), KITH_TOOL_FILE,
     true, 0, 0},
    {"rest", "FILE", "the index file to write of those that stay (default: back to --index)",
     offsetof(split_settings, rest), KITH_TOOL_FILE, false, 0, 0},
    KITH_TOOL_JSON,
    KITH_TOOL_QUIET,
};

/* What leaves is written first: should the second file fail, nothing is lost. */
static int run(const void *given, const kith_tool_operands *operands) {
    const split_settings *settings = given;
    (void)operands;
    const char *rest = settings->rest != NULL ? settings->rest : settings->index;
    kith_index *index = NULL, *part = NULL;
    kith_filter *filter = NULL;
    int code;
    KITH_TOOL_GO(kith_tool_index_open(settings->index, false, NULL, &index));
    KITH_TOOL_GO(kith_tool_filter_open(settings->filter, kith_index_count(index), &filter));
    double start = kith_tool_seconds();
    KITH_TOOL_GO(kith_tool_check(kith_index_split(index, filter, &part), settings->index));
    double seconds = kith_tool_seconds() - start;
    KITH_TOOL_GO(kith_tool_change_save(part, settings->out));
    KITH_TOOL_GO(kith_tool_change_save(index, rest));
    json_t *rows = kith_tool_array();
    kith_tool_append(rows, kith_tool_change_row(part, settings->out, seconds));
    kith_tool_append(rows, kith_tool_change_row(index, rest, seconds));
    code = kith_tool_change_print(&settings->common, rows);
done:
    kith_filter_free(filter);
    kith_index_free(part);
    kith_index_free(index);
    return code;
}

const kith_tool_command kith_tool_cmd_split = {
    .name = "split",
    .summary = "Makes two index files of one.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .notes = "A FILTER is what kith search takes.\n",
    .run = run,
};
