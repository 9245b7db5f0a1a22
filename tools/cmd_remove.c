/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_remove.c: `kith remove`: vectors out of an index file, by their ids or by a filter.
 */
#include <stdlib.h>

#include "commands.h"
#include "tool_change.h"

typedef struct remove_settings {
    kith_tool_common common;
    const char *index, *out, *ids, *filter;
} remove_settings;

static const remove_settings defaults;

static const kith_tool_option options[] = {
    KITH_TOOL_INDEX(remove_settings),
    {"ids", "FILE", "the ids to remove, .txt or integers; unknown ones are counted", offsetof(remove_settings, ids),
     KITH_TOOL_FILE, false, 0, 0},
    {"filter", "FILTER", "remove what this allows: FILE, bits:FILE, range:FIRST-LAST, joined by & | ! ( )",
     offsetof(remove_settings, filter), KITH_TOOL_FILE, false, 0, 0},
    KITH_TOOL_OUT(remove_settings),
    KITH_TOOL_JSON,
    KITH_TOOL_QUIET,
};

static int remove_ids(kith_index *index, const char *path, size_t *removed, size_t *given) {
    int64_t *ids = NULL;
    int code = kith_tool_ids_read(path, &ids, given);
    if (code == KITH_EXIT_OK) code = kith_tool_check(kith_index_remove(index, ids, *given, removed), path);
    free(ids);
    return code;
}

static int remove_filter(kith_index *index, const char *text, size_t *removed) {
    kith_filter *filter = NULL;
    int code = kith_tool_filter_open(text, kith_index_count(index), &filter);
    if (code == KITH_EXIT_OK) code = kith_tool_check(kith_index_remove_filter(index, filter, removed), NULL);
    kith_filter_free(filter);
    return code;
}

static int run(const void *given_settings, const kith_tool_operands *operands) {
    const remove_settings *settings = given_settings;
    (void)operands;
    const char *out = settings->out != NULL ? settings->out : settings->index;
    kith_index *index = NULL;
    size_t removed = 0, given = 0;
    int code;
    if ((settings->ids == NULL) == (settings->filter == NULL))
        return kith_tool_error(KITH_EXIT_USAGE, "one of --ids and --filter is needed");
    KITH_TOOL_GO(kith_tool_index_open(settings->index, false, NULL, &index));
    double start = kith_tool_seconds();
    KITH_TOOL_GO(settings->ids != NULL ? remove_ids(index, settings->ids, &removed, &given)
                                       : remove_filter(index, settings->filter, &removed));
    double seconds = kith_tool_seconds() - start;
    KITH_TOOL_GO(kith_tool_change_save(index, out));
    json_t *row = kith_tool_change_row(index, out, seconds), *rows = kith_tool_array();
    kith_tool_put_count(row, "removed", removed);
    if (settings->ids != NULL) kith_tool_put_count(row, "unknown", given - removed);
    kith_tool_append(rows, row);
    code = kith_tool_change_print(&settings->common, rows);
done:
    kith_index_free(index);
    return code;
}

const kith_tool_command kith_tool_cmd_remove = {
    .name = "remove",
    .summary = "Removes vectors from an index file.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .notes = "An id that stands twice in --ids counts as not there the second time. A FILTER is what kith search\n"
             "takes.\n",
    .run = run,
};
