/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_convert.c: `kith convert`: one vector file format to another.
 */
#include <string.h>

#include "commands.h"
#include "tool_report.h"

#define FORMATS "fvecs|bvecs|ivecs|fbin|u8bin|i8bin|ibin|npy|idx|raw|hdf5"
#define DTYPES  "f32|f16|bf16|i8|u8|b1|f64|i32|u32|i64"

typedef struct convert_settings {
    kith_tool_common common;
    const char *from, *to, *dtype, *from_dtype, *rows, *dataset;
    size_t dim;
    bool stream;
} convert_settings;

static const convert_settings defaults;

static const kith_tool_option options[] = {
    {"from", FORMATS, "format of IN (default: by its name)", offsetof(convert_settings, from), KITH_TOOL_CHOICE,
     false, 0, 0},
    {"to", FORMATS, "format of OUT (default: by its name)", offsetof(convert_settings, to), KITH_TOOL_CHOICE, false,
     0, 0},
    {"dtype", DTYPES, "element type of OUT (default: the format's own, else that of IN)",
     offsetof(convert_settings, dtype), KITH_TOOL_CHOICE, false, 0, 0},
    {"from-dtype", DTYPES, "element type of a raw IN", offsetof(convert_settings, from_dtype), KITH_TOOL_CHOICE,
     false, 0, 0},
    {"dim", "N", "dimension of a raw IN", offsetof(convert_settings, dim), KITH_TOOL_COUNT, false, 1, KITH_DIM_MAX},
    {"rows", "A:B", "only rows A to B - 1; either may be left out", offsetof(convert_settings, rows),
     KITH_TOOL_TEXT, false, 0, 0},
    {"dataset", "NAME", "data set of an HDF5 IN (default train)", offsetof(convert_settings, dataset),
     KITH_TOOL_TEXT, false, 0, 0},
    {"stream", NULL, "read IN block by block instead of mapping it", offsetof(convert_settings, stream),
     KITH_TOOL_FLAG, false, 0, 0},
    KITH_TOOL_JSON,
    KITH_TOOL_QUIET,
};

static int input_options(const convert_settings *settings, kith_vectors_options *out) {
    kith_dtype named = 0;
    kith_vectors_options_init(out);
    int code = KITH_EXIT_OK;
    if (settings->from != NULL)
        code = kith_tool_check(kith_format_parse(settings->from, &out->format, &named), "--from");
    if (code != KITH_EXIT_OK) return code;
    bool is_raw = out->format == KITH_FORMAT_RAW;
    if (is_raw && (settings->from_dtype == NULL || settings->dim == 0))
        return kith_tool_error(KITH_EXIT_USAGE, "--from raw needs --from-dtype and --dim");
    if (!is_raw && (settings->from_dtype != NULL || settings->dim != 0))
        return kith_tool_error(KITH_EXIT_USAGE, "--from-dtype and --dim go with --from raw");
    out->dtype = named;
    if (is_raw) code = kith_tool_check(kith_dtype_parse(settings->from_dtype, &out->dtype), "--from-dtype");
    out->dim = settings->dim;
    out->dataset = settings->dataset;
    out->stream = settings->stream;
    size_t last = SIZE_MAX;
    if (settings->rows != NULL && !kith_tool_rows_parse(settings->rows, &out->first_row, &last))
        return kith_tool_error(KITH_EXIT_USAGE, "--rows %s: A:B with A < B is needed", settings->rows);
    out->max_rows = last != SIZE_MAX ? last - out->first_row : 0;
    return code;
}

/* --dtype, else what the format or the name of OUT says, else the type of IN. */
static int output_type(const convert_settings *settings, const char *path, kith_dtype input, kith_format *format,
                       kith_dtype *dtype) {
    *format = KITH_FORMAT_AUTO;
    *dtype = 0;
    int code = KITH_EXIT_OK;
    if (settings->to != NULL) code = kith_tool_check(kith_format_parse(settings->to, format, dtype), "--to");
    if (code == KITH_EXIT_OK && settings->dtype != NULL) {
        kith_dtype asked = 0;
        code = kith_tool_check(kith_dtype_parse(settings->dtype, &asked), "--dtype");
        if (code == KITH_EXIT_OK && *dtype != 0 && asked != *dtype)
            return kith_tool_error(KITH_EXIT_USAGE, "--dtype %s: %s files hold %s", settings->dtype, settings->to,
                                   kith_dtype_name(*dtype));
        *dtype = asked;
    }
    if (code == KITH_EXIT_OK && *dtype == 0 && settings->to == NULL)
        return kith_tool_dtype_of_name(path, input, dtype);
    if (*dtype == 0) *dtype = input;
    return code;
}

static int copy(kith_vectors *vectors, const char *in, kith_vectors_writer *writer, const char *out) {
    enum { BLOCK_BYTES = 8 << 20 };
    size_t count = kith_vectors_count(vectors);
    size_t row_bytes = kith_dtype_row_bytes(kith_vectors_dtype(vectors), kith_vectors_dim(vectors));
    size_t block = row_bytes < BLOCK_BYTES ? BLOCK_BYTES / (row_bytes > 0 ? row_bytes : 1) : 1;
    for (size_t first = 0; first < count; first += block) {
        size_t n = count - first < block ? count - first : block;
        kith_view view;
        int code = kith_tool_check(kith_vectors_rows(vectors, first, n, &view), in);
        if (code == KITH_EXIT_OK) code = kith_tool_check(kith_vectors_writer_append(writer, &view), out);
        if (code != KITH_EXIT_OK) return code;
        if (kith_tool_progress(NULL, "convert", first + n, count) != 0) return kith_tool_stop_if_interrupted();
    }
    return KITH_EXIT_OK;
}

static int report(const convert_settings *settings, const char *out, kith_vectors *vectors, kith_dtype dtype) {
    static const kith_tool_column columns[] = {
        {"file", "file", KITH_TOOL_CELL_TEXT},
        {"count", "vectors", KITH_TOOL_CELL_COUNT},
        {"dim", "dimension", KITH_TOOL_CELL_COUNT},
        {"from", "from", KITH_TOOL_CELL_TEXT},
        {"from_dtype", "type before", KITH_TOOL_CELL_TEXT},
        {"dtype", "type", KITH_TOOL_CELL_TEXT},
    };
    json_t *object = kith_tool_object();
    kith_tool_put_text(object, "file", out);
    kith_tool_put_count(object, "count", kith_vectors_count(vectors));
    kith_tool_put_count(object, "dim", kith_vectors_dim(vectors));
    kith_tool_put_text(object, "from", kith_vectors_format_name(vectors));
    kith_tool_put_text(object, "from_dtype", kith_dtype_name(kith_vectors_dtype(vectors)));
    kith_tool_put_text(object, "dtype", kith_dtype_name(dtype));
    int code = kith_tool_print_object(&settings->common, object, columns, sizeof columns / sizeof *columns);
    json_decref(object);
    return code;
}

static int run(const void *given, const kith_tool_operands *operands) {
    const convert_settings *settings = given;
    const char *in = operands->items[0], *out = operands->items[1];
    kith_vectors *vectors = NULL;
    kith_vectors_writer *writer = NULL;
    kith_vectors_options options_in;
    kith_format format;
    kith_dtype dtype;
    int code;
    KITH_TOOL_GO(input_options(settings, &options_in));
    KITH_TOOL_GO(kith_tool_vectors_open(in, &options_in, &vectors));
    KITH_TOOL_GO(output_type(settings, out, kith_vectors_dtype(vectors), &format, &dtype));
    KITH_TOOL_GO(
        kith_tool_check(kith_vectors_writer_create(out, format, dtype, kith_vectors_dim(vectors), &writer), out));
    KITH_TOOL_GO(copy(vectors, in, writer, out));
    kith_status status = kith_vectors_writer_commit(writer);
    writer = NULL;
    KITH_TOOL_GO(kith_tool_check(status, out));
    KITH_TOOL_GO(report(settings, out, vectors, dtype));
done:
    kith_vectors_writer_abort(writer);
    kith_vectors_close(vectors);
    return code;
}

const kith_tool_command kith_tool_cmd_convert = {
    .name = "convert",
    .summary = "Converts a vector file to another format, type or range of rows.",
    .operands = "IN OUT",
    .operand_min = 2,
    .operand_max = 2,
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .run = run,
};
