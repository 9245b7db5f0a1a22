/* SPDX-License-Identifier: Apache-2.0
 *
 * NumPy's format, versions 1.0 to 3.0 (numpy.lib.format): magic, two bytes of version, the header's length in two
 * bytes (1.0) or four, and the header: a Python dict with the keys descr, fortran_order and shape, padded by spaces.
 *
 * An array of two axes is rows x dimension; one of one axis is so many rows of one element: ids, labels, norms.
 */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "io/vectorfile.h"

enum { HEADER_BYTES_MAX = 65536, DESCR_BYTES_MAX = 16 };

/* The text that is left. */
typedef struct cursor {
    const char *text, *end;
    const char *path;
    const char *start; /* of the header, which stands at byte start_byte */
    size_t start_byte;
} cursor;

static kith_status bad(const cursor *at, const char *what) {
    size_t byte = at->start_byte + (size_t)(at->text - at->start);
    int length = (int)kith_min_size(24, (size_t)(at->end - at->text));
    return kith_error(KITH_ERR_FORMAT, "%s: npy header, byte %zu: %s, not '%.*s'", at->path, byte, what, length,
                      at->text);
}

static void skip_spaces(cursor *at) {
    while (at->text < at->end && (*at->text == ' ' || *at->text == '\n' || *at->text == '\t')) at->text++;
}

static bool take(cursor *at, const char *word) {
    skip_spaces(at);
    size_t length = strlen(word);
    if ((size_t)(at->end - at->text) < length || memcmp(at->text, word, length) != 0) return false;
    at->text += length;
    return true;
}

static kith_status need(cursor *at, const char *word, const char *what) {
    return take(at, word) ? KITH_OK : bad(at, what);
}

/* A string in single or double quotes, without escapes. */
static kith_status take_string(cursor *at, char *out, size_t capacity) {
    skip_spaces(at);
    if (at->text == at->end || (*at->text != '\'' && *at->text != '"')) return bad(at, "a string is due");
    char quote = *at->text++;
    size_t length = 0;
    while (at->text < at->end && *at->text != quote && length + 1 < capacity) out[length++] = *at->text++;
    out[length] = '\0';
    if (at->text == at->end || *at->text != quote) return bad(at, "a short string is due");
    at->text++;
    return KITH_OK;
}

static kith_status take_number(cursor *at, uint64_t *out) {
    skip_spaces(at);
    const char *start = at->text;
    for (*out = 0; at->text < at->end && *at->text >= '0' && *at->text <= '9'; at->text++)
        if (__builtin_mul_overflow(*out, 10, out) || __builtin_add_overflow(*out, *at->text - '0', out))
            return kith_error(KITH_ERR_OVERFLOW, "%s: npy header: an axis longer than 64 bits can say", at->path);
    if (at->text == start) return bad(at, "a number is due");
    if (at->text < at->end && *at->text == 'L') at->text++; /* Python 2 wrote long numbers so */
    return KITH_OK;
}

static kith_status take_shape(cursor *at, kith_layout *out) {
    uint64_t axes[2] = {0, 1};
    size_t axis_count = 0;
    KITH_TRY(need(at, "(", "a shape in parentheses is due"));
    while (!take(at, ")")) {
        if (axis_count == 2)
            return kith_error(KITH_ERR_UNSUPPORTED,
                              "%s: an array of more than two axes; reshape it to rows x dimension", at->path);
        KITH_TRY(take_number(at, &axes[axis_count++]));
        if (!take(at, ",") && !take(at, ")")) return bad(at, "a comma or ')' is due");
        if (at->text[-1] == ')') break;
    }
    if (axis_count == 0)
        return kith_error(KITH_ERR_UNSUPPORTED, "%s: a single number (shape ()), not rows", at->path);
    if (axes[1] == 0) return kith_error(KITH_ERR_FORMAT, "%s: npy header: dimension 0", at->path);
    out->count = axes[0];
    out->dim = axes[1];
    return KITH_OK;
}

static kith_status take_type(cursor *at, kith_layout *out) {
    static const struct {
        const char *name;
        kith_dtype dtype;
    } types[] = {{"f2", KITH_F16}, {"f4", KITH_F32}, {"f8", KITH_F64}, {"i1", KITH_I8},
                 {"u1", KITH_U8},  {"i4", KITH_I32}, {"u4", KITH_U32}, {"i8", KITH_I64}};
    skip_spaces(at);
    if (at->text < at->end && *at->text == '[')
        return kith_error(KITH_ERR_UNSUPPORTED, "%s: a structured array; save one field of it", at->path);
    char descr[DESCR_BYTES_MAX];
    KITH_TRY(take_string(at, descr, sizeof descr));
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (descr[0] != '\0' && strcmp(descr + 1, types[i].name) == 0) {
            bool is_byte = types[i].name[1] == '1';
            if (strchr(is_byte ? "<|=>" : "<=>", descr[0]) == NULL) break;
            out->dtype = types[i].dtype;
            out->is_big_endian = descr[0] == '>' && !is_byte;
            return KITH_OK;
        }
    return kith_error(KITH_ERR_TYPE, "%s: npy type '%s'; known are f2, f4, f8, i1, u1, i4, u4, i8", at->path,
                      descr);
}

static kith_status take_order(cursor *at) {
    if (take(at, "False")) return KITH_OK;
    if (!take(at, "True")) return bad(at, "True or False is due");
    return kith_error(KITH_ERR_UNSUPPORTED,
                      "%s: stored column by column (fortran_order); save numpy.ascontiguousarray of it", at->path);
}

static kith_status take_header(cursor *at, kith_layout *out) {
    unsigned seen = 0;
    KITH_TRY(need(at, "{", "a '{' is due"));
    while (!take(at, "}")) {
        char key[DESCR_BYTES_MAX];
        unsigned field;
        const char *key_start = at->text;
        KITH_TRY(take_string(at, key, sizeof key));
        KITH_TRY(need(at, ":", "a colon is due"));
        if (strcmp(key, "descr") == 0) {
            field = 1;
            KITH_TRY(take_type(at, out));
        } else if (strcmp(key, "fortran_order") == 0) {
            field = 2;
            KITH_TRY(take_order(at));
        } else if (strcmp(key, "shape") == 0) {
            field = 4;
            KITH_TRY(take_shape(at, out));
        } else {
            at->text = key_start;
            return bad(at, "descr, fortran_order or shape is due");
        }
        if ((seen & field) != 0) return kith_error(KITH_ERR_FORMAT, "%s: npy header: '%s' twice", at->path, key);
        seen |= field;
        (void)take(at, ",");
    }
    skip_spaces(at);
    if (at->text != at->end) return bad(at, "nothing is due any more");
    if (seen != 7)
        return kith_error(KITH_ERR_FORMAT, "%s: npy header: descr, fortran_order or shape missing", at->path);
    return KITH_OK;
}

kith_status kith_npy_layout(const kith_source *source, kith_layout *out) {
    unsigned char start[12] = {0};
    KITH_TRY(kith_source_read(source, 0, start, 10, "the npy header"));
    if (memcmp(start, "\x93NUMPY", 6) != 0)
        return kith_error(KITH_ERR_FORMAT, "%s: not an npy file: its first 6 bytes are others", source->path);
    unsigned version = start[6];
    if (version < 1 || version > 3)
        return kith_error(KITH_ERR_FORMAT, "%s: npy version %u at byte 6; known are 1 to 3", source->path, version);
    size_t length = start[8] | (size_t)start[9] << 8, text_byte = 10;
    if (version > 1) {
        KITH_TRY(kith_source_read(source, 8, start + 8, 4, "the npy header's length"));
        length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
        text_byte = 12;
    }
    if (length > HEADER_BYTES_MAX)
        return kith_error(KITH_ERR_FORMAT, "%s: npy header of %zu bytes at byte 8, more than %d", source->path,
                          length, HEADER_BYTES_MAX);
    char *text;
    KITH_TRY(kith_alloc(length + 1, 1, &text));
    *out = (kith_layout){.offset = text_byte + length};
    kith_status status = kith_source_read(source, text_byte, text, length, "the npy header");
    if (status == KITH_OK) {
        cursor at = {
            .text = text, .end = text + length, .path = source->path, .start = text, .start_byte = text_byte};
        status = take_header(&at, out);
    }
    kith_free(text);
    return status;
}
