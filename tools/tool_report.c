/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_report.c: results as tables, CSV and JSON.
 */
#include "tool_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CELL_BYTES_MAX = 256, COLUMNS_MAX = 32 };

/* Set when jansson ran out of memory while a result was put together. */
static bool incomplete;

json_t *kith_tool_object(void) {
    json_t *object = json_object();
    incomplete |= object == NULL;
    return object;
}

json_t *kith_tool_array(void) {
    json_t *array = json_array();
    incomplete |= array == NULL;
    return array;
}

void kith_tool_put(json_t *object, const char *key, json_t *value) {
    if (json_object_set_new(object, key, value) != 0) incomplete = true;
}

void kith_tool_append(json_t *array, json_t *value) {
    if (json_array_append_new(array, value) != 0) incomplete = true;
}

/* JSON is UTF-8; a file name may be anything. */
static json_t *text_ascii(const char *text) {
    size_t bytes = strlen(text);
    char *copy = malloc(bytes + 1);
    if (copy == NULL) return NULL;
    for (size_t i = 0; i <= bytes; i++) copy[i] = '?';
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)text[i] < 0x80) copy[i] = text[i];
    copy[bytes] = '\0';
    json_t *value = json_string(copy);
    free(copy);
    return value;
}

void kith_tool_put_text(json_t *object, const char *key, const char *text) {
    json_t *value = text != NULL ? json_string(text) : json_null();
    kith_tool_put(object, key, value != NULL ? value : text_ascii(text));
}

void kith_tool_put_count(json_t *object, const char *key, uint64_t count) {
    kith_tool_put(object, key, json_integer(count <= INT64_MAX ? (json_int_t)count : INT64_MAX));
}

void kith_tool_put_real(json_t *object, const char *key, double value) {
    kith_tool_put(object, key, isfinite(value) ? json_real(value) : json_null());
}

void kith_tool_put_bool(json_t *object, const char *key, bool value) {
    kith_tool_put(object, key, json_boolean(value));
}

/* 1234567 -> 1,234,567 */
static void format_count(long long count, char *out, size_t bytes) {
    char digits[32];
    int digit_count = snprintf(digits, sizeof digits, "%lld", count);
    size_t at = 0;
    for (int i = 0; i < digit_count && at + 2 < bytes; i++) {
        out[at++] = digits[i];
        int left = digit_count - 1 - i;
        if (left > 0 && left % 3 == 0 && digits[i] != '-') out[at++] = ',';
    }
    out[at] = '\0';
}

static void format_bytes(double value, char *out, size_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    while (value >= 1024.0 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024.0;
        unit++;
    }
    (void)snprintf(out, bytes, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

static void format_seconds(double value, char *out, size_t bytes) {
    if (value < 1e-3)
        (void)snprintf(out, bytes, "%.1f us", value * 1e6);
    else if (value < 1.0)
        (void)snprintf(out, bytes, "%.2f ms", value * 1e3);
    else
        (void)snprintf(out, bytes, "%.2f s", value);
}

static void format_cell(const json_t *value, kith_tool_cell cell, char *out, size_t bytes) {
    (void)snprintf(out, bytes, "-");
    if (json_is_string(value)) (void)snprintf(out, bytes, "%s", json_string_value(value));
    if (json_is_boolean(value))
        (void)snprintf(out, bytes, "%s",
                       cell == KITH_TOOL_CELL_YES ? (json_is_true(value) ? "*" : "")
                                                  : (json_is_true(value) ? "yes" : "no"));
    if (!json_is_number(value)) return;
    double number = json_number_value(value);
    switch (cell) {
        case KITH_TOOL_CELL_COUNT:
            format_count(json_is_integer(value) ? json_integer_value(value) : llround(number), out, bytes);
            break;
        case KITH_TOOL_CELL_BYTES: format_bytes(number, out, bytes); break;
        case KITH_TOOL_CELL_SECONDS: format_seconds(number, out, bytes); break;
        case KITH_TOOL_CELL_RECALL: (void)snprintf(out, bytes, "%.4f", number); break;
        case KITH_TOOL_CELL_TEXT:
        case KITH_TOOL_CELL_REAL:
        case KITH_TOOL_CELL_YES:
            if (json_is_integer(value))
                (void)snprintf(out, bytes, "%lld", (long long)json_integer_value(value));
            else
                (void)snprintf(out, bytes, "%.6g", number);
            break;
    }
}

static bool is_left(kith_tool_cell cell) { return cell == KITH_TOOL_CELL_TEXT; }

/* `last`: no blanks behind the last cell of a line. */
static void print_padded(const char *text, size_t width, bool left, bool last) {
    size_t bytes = strlen(text), pad = width > bytes ? width - bytes : 0;
    if (!left) (void)printf("%*s", (int)pad, "");
    (void)fputs(text, stdout);
    if (left && !last) (void)printf("%*s", (int)pad, "");
    (void)fputs(last ? "\n" : "  ", stdout);
}

static void print_csv_text(const char *text) {
    if (strpbrk(text, ",\"\r\n") == NULL) {
        (void)fputs(text, stdout);
        return;
    }
    (void)putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"') (void)putchar('"');
        (void)putchar(*text);
    }
    (void)putchar('"');
}

static void print_csv_value(const json_t *value) {
    if (json_is_string(value)) print_csv_text(json_string_value(value));
    if (json_is_integer(value)) (void)printf("%lld", (long long)json_integer_value(value));
    if (json_is_real(value)) (void)printf("%.17g", json_real_value(value));
    if (json_is_boolean(value)) (void)printf("%d", json_is_true(value) ? 1 : 0);
}

static void print_csv(const json_t *rows, const kith_tool_column *columns, size_t column_count) {
    size_t i;
    const json_t *row;
    for (size_t c = 0; c < column_count; c++)
        (void)printf("%s%s", columns[c].key, c + 1 < column_count ? "," : "\n");
    json_array_foreach(rows, i, row) for (size_t c = 0; c < column_count; c++) {
        print_csv_value(json_object_get(row, columns[c].key));
        (void)putchar(c + 1 < column_count ? ',' : '\n');
    }
}

static void print_table(const json_t *rows, const kith_tool_column *columns, size_t column_count) {
    size_t widths[COLUMNS_MAX] = {0}, i;
    char text[CELL_BYTES_MAX];
    const json_t *row;
    json_array_foreach(rows, i, row) for (size_t c = 0; c < column_count; c++) {
        format_cell(json_object_get(row, columns[c].key), columns[c].cell, text, sizeof text);
        if (strlen(text) > widths[c]) widths[c] = strlen(text);
    }
    for (size_t c = 0; c < column_count; c++)
        if (strlen(columns[c].title) > widths[c]) widths[c] = strlen(columns[c].title);
    for (size_t c = 0; c < column_count; c++)
        print_padded(columns[c].title, widths[c], is_left(columns[c].cell), c + 1 == column_count);
    json_array_foreach(rows, i, row) for (size_t c = 0; c < column_count; c++) {
        format_cell(json_object_get(row, columns[c].key), columns[c].cell, text, sizeof text);
        print_padded(text, widths[c], is_left(columns[c].cell), c + 1 == column_count);
    }
}

static int print_json(const json_t *document) {
    if (json_dumpf(document, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) != 0 && !ferror(stdout))
        return kith_tool_error(KITH_EXIT_MEMORY, "out of memory");
    (void)putchar('\n');
    return kith_tool_flush();
}

static bool any_has(const json_t *rows, const char *key) {
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row) {
        const json_t *value = json_object_get(row, key);
        if (value != NULL && !json_is_null(value)) return true;
    }
    return false;
}

int kith_tool_print_rows(const kith_tool_common *common, const json_t *document, const json_t *rows,
                         const kith_tool_column *columns, size_t column_count) {
    if (incomplete) return kith_tool_error(KITH_EXIT_MEMORY, "out of memory");
    kith_tool_progress_clear();
    if (common->json) return print_json(document);
    kith_tool_column shown[COLUMNS_MAX];
    size_t shown_count = 0;
    for (size_t c = 0; c < column_count && shown_count < COLUMNS_MAX; c++)
        if (common->csv || any_has(rows, columns[c].key)) shown[shown_count++] = columns[c];
    if (common->csv)
        print_csv(rows, shown, shown_count);
    else
        print_table(rows, shown, shown_count);
    return kith_tool_flush();
}

int kith_tool_print_object(const kith_tool_common *common, const json_t *object, const kith_tool_column *columns,
                           size_t column_count) {
    if (incomplete) return kith_tool_error(KITH_EXIT_MEMORY, "out of memory");
    kith_tool_progress_clear();
    if (common->json) return print_json(object);
    size_t width = 0;
    for (size_t c = 0; c < column_count; c++)
        if (strlen(columns[c].title) > width) width = strlen(columns[c].title);
    for (size_t c = 0; c < column_count; c++) {
        char text[CELL_BYTES_MAX];
        const json_t *value = json_object_get(object, columns[c].key);
        if (value == NULL || json_is_null(value)) continue;
        if (common->csv) {
            (void)printf("%s,", columns[c].key);
            print_csv_value(value);
            (void)putchar('\n');
        } else {
            format_cell(value, columns[c].cell, text, sizeof text);
            (void)printf("%-*s  %s\n", (int)width, columns[c].title, text);
        }
    }
    return kith_tool_flush();
}
