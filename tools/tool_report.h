/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_report.h: what a command prints. A result is a JSON object, or a list of flat ones, in every case; --json
 * prints it as it is, --csv as comma-separated values, and the default is an aligned table.
 */
#ifndef KITH_TOOLS_TOOL_REPORT_H
#define KITH_TOOLS_TOOL_REPORT_H

#include <jansson.h>

#include "tool.h"

/* How a value looks in a table. JSON and CSV get the bare number, in the unit that its key names. */
typedef enum kith_tool_cell {
    KITH_TOOL_CELL_TEXT,
    KITH_TOOL_CELL_COUNT,   /* 60,000 */
    KITH_TOOL_CELL_BYTES,   /* 44.9 MiB */
    KITH_TOOL_CELL_SECONDS, /* 12 us, 3.4 ms, 5.60 s */
    KITH_TOOL_CELL_RECALL,  /* 0.9876 */
    KITH_TOOL_CELL_REAL,    /* six significant digits */
    KITH_TOOL_CELL_YES      /* a star when true */
} kith_tool_cell;

typedef struct kith_tool_column {
    const char *key;   /* in the object */
    const char *title; /* in the table */
    kith_tool_cell cell;
} kith_tool_column;

/* A new object or array. Memory that runs out anywhere below is reported by the print calls. */
json_t *kith_tool_object(void);
json_t *kith_tool_array(void);
void kith_tool_put_text(json_t *object, const char *key, const char *text); /* NULL text: null */
void kith_tool_put_count(json_t *object, const char *key, uint64_t count);
void kith_tool_put_real(json_t *object, const char *key, double value); /* null when not finite */
void kith_tool_put_bool(json_t *object, const char *key, bool value);
/* These take over the reference. */
void kith_tool_put(json_t *object, const char *key, json_t *value);
void kith_tool_append(json_t *array, json_t *value);

/* Prints a list of flat objects, one a line under a heading; the JSON form is `document`, which may be the list
 * itself or an object that holds it. Columns that no row has are left out of the table. */
int kith_tool_print_rows(const kith_tool_common *common, const json_t *document, const json_t *rows,
                         const kith_tool_column *columns, size_t column_count);
/* Prints one object, a line for each column: title and value. */
int kith_tool_print_object(const kith_tool_common *common, const json_t *object, const kith_tool_column *columns,
                           size_t column_count);

#endif
