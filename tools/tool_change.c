/* SPDX-License-Identifier: Apache-2.0 */
#include "tool_change.h"

#include <sys/stat.h>

int kith_tool_change_save(const kith_index *index, const char *path) {
    int code = kith_tool_stop_if_interrupted();
    return code != KITH_EXIT_OK ? code : kith_tool_check(kith_index_save(index, path), path);
}

json_t *kith_tool_change_row(const kith_index *index, const char *path, double seconds) {
    uint64_t memory_bytes;
    struct stat file;
    json_t *row = kith_tool_object();
    kith_tool_put_text(row, "file", path);
    kith_tool_put_text(row, "spec", kith_index_spec(index));
    kith_tool_put_count(row, "count", kith_index_count(index));
    if (kith_tool_index_memory(index, &memory_bytes) == KITH_EXIT_OK)
        kith_tool_put_count(row, "memory_bytes", memory_bytes);
    if (stat(path, &file) == 0) kith_tool_put_count(row, "file_bytes", (uint64_t)file.st_size);
    kith_tool_put_real(row, "change_seconds", seconds);
    return row;
}

int kith_tool_change_print(const kith_tool_common *common, json_t *rows) {
    static const kith_tool_column columns[] = {
        {"file", "file", KITH_TOOL_CELL_TEXT},
        {"spec", "index", KITH_TOOL_CELL_TEXT},
        {"added", "added", KITH_TOOL_CELL_COUNT},
        {"replaced", "replaced", KITH_TOOL_CELL_COUNT},
        {"removed", "removed", KITH_TOOL_CELL_COUNT},
        {"unknown", "not there", KITH_TOOL_CELL_COUNT},
        {"count", "vectors", KITH_TOOL_CELL_COUNT},
        {"memory_bytes", "memory", KITH_TOOL_CELL_BYTES},
        {"freed_bytes", "given back", KITH_TOOL_CELL_BYTES},
        {"file_bytes", "file size", KITH_TOOL_CELL_BYTES},
        {"change_seconds", "time", KITH_TOOL_CELL_SECONDS},
    };
    enum { COLUMNS = sizeof columns / sizeof *columns };
    int code = json_array_size(rows) == 1
                   ? kith_tool_print_object(common, json_array_get(rows, 0), columns, COLUMNS)
                   : kith_tool_print_rows(common, rows, rows, columns, COLUMNS);
    json_decref(rows);
    return code;
}
