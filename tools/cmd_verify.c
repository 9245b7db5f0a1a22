/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_verify.c: `kith verify`: reads whole index files and checks every checksum and every cross-check of loading.
 */
#include "commands.h"
#include "tool_report.h"

typedef struct verify_settings {
    kith_tool_common common;
} verify_settings;

static const verify_settings defaults;

static const kith_tool_option options[] = {
    KITH_TOOL_JSON,
    KITH_TOOL_CSV,
    KITH_TOOL_QUIET,
};

/* Damage is the answer to the question that was asked, so it gets the code of a failed check. */
static int verify(const char *path, json_t *rows) {
    kith_status status = kith_file_verify(path);
    json_t *row = kith_tool_object();
    kith_tool_put_text(row, "file", path);
    kith_tool_put_bool(row, "is_sound", status == KITH_OK);
    kith_tool_put_text(row, "status", kith_status_name(status));
    kith_tool_put_text(row, "message", status != KITH_OK ? kith_error_message() : NULL);
    kith_tool_append(rows, row);
    int code = kith_tool_check(status, path);
    bool is_damage = status == KITH_ERR_FORMAT || status == KITH_ERR_CHECKSUM;
    return is_damage ? KITH_EXIT_CHECK : code;
}

/* All files are looked at; the first failure's code is returned. */
static int run(const void *given, const kith_tool_operands *operands) {
    static const kith_tool_column columns[] = {
        {"file", "file", KITH_TOOL_CELL_TEXT},
        {"is_sound", "sound", KITH_TOOL_CELL_TEXT},
    };
    const verify_settings *settings = given;
    json_t *rows = kith_tool_array();
    int code = KITH_EXIT_OK;
    for (size_t i = 0; i < operands->count && kith_tool_interrupted() == 0; i++) {
        int one = verify(operands->items[i], rows);
        if (code == KITH_EXIT_OK) code = one;
    }
    int stopped = kith_tool_stop_if_interrupted();
    int printed = kith_tool_print_rows(&settings->common, rows, rows, columns, sizeof columns / sizeof *columns);
    json_decref(rows);
    return stopped != KITH_EXIT_OK ? stopped : code != KITH_EXIT_OK ? code : printed;
}

const kith_tool_command kith_tool_cmd_verify = {
    .name = "verify",
    .summary = "Checks index files: every checksum and every bound.",
    .operands = "FILE...",
    .operand_min = 1,
    .operand_max = SIZE_MAX,
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .run = run,
};
