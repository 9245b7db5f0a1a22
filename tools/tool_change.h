/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_change.h: what the commands that change an index file share. The file is loaded, changed in memory and written
 * anew, all or nothing: where it was, or to --out.
 */
#ifndef KITH_TOOLS_TOOL_CHANGE_H
#define KITH_TOOLS_TOOL_CHANGE_H

#include "tool_index.h"

#define KITH_TOOL_INDEX(type)                                                                                      \
    { "index", "FILE", "the index file to change", offsetof(type, index), KITH_TOOL_FILE, true, 0, 0 }
#define KITH_TOOL_OUT(type)                                                                                        \
    {                                                                                                              \
        "out", "FILE", "write the changed index here (default: back to --index)", offsetof(type, out),             \
            KITH_TOOL_FILE, false, 0, 0                                                                            \
    }

/* Saves an index, unless a signal came. */
int kith_tool_change_save(const kith_index *index, const char *path);
/* What is told of an index file that was written. The caller adds to it and hands it to the next. */
json_t *kith_tool_change_row(const kith_index *index, const char *path, double seconds);
/* Prints the rows, one or more, with the columns that some of them have. Takes `rows` over. */
int kith_tool_change_print(const kith_tool_common *common, json_t *rows);

#endif
