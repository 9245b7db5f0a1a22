/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_filter.c: what --filter takes: files of ids, files of bits, ranges, and expressions of these.
 *
 *     any  = all { "|" all }        all  = one { "&" one }        one  = "!" one | "(" any ")" | term
 *     term = [ "ids:" ] FILE | "bits:" FILE | "range:" [ FIRST ] "-" [ LAST ]
 *
 * A text that is the name of a file is that file, whatever characters it has.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool_index.h"

enum { TERM_BYTES_MAX = 4096, DEPTH_MAX = 32, PARTS_MAX = 64 };

typedef struct filter_parser {
    const char *text, *at;
    size_t count; /* vectors of the index */
    size_t depth;
} filter_parser;

static int syntax_error(const filter_parser *parser, const char *expected) {
    return kith_tool_error(KITH_EXIT_USAGE, "--filter '%s': character %zu: %s", parser->text,
                           (size_t)(parser->at - parser->text) + 1, expected);
}

static void skip_spaces(filter_parser *parser) {
    while (*parser->at == ' ' || *parser->at == '\t') parser->at++;
}

static bool take(filter_parser *parser, char c) {
    skip_spaces(parser);
    if (*parser->at != c) return false;
    parser->at++;
    return true;
}

/* ---- Terms ------------------------------------------------------------------------------------------------ */

static int ids_filter(const char *path, kith_filter **out) {
    int64_t *ids = NULL;
    size_t count = 0;
    int code = kith_tool_ids_read(path, &ids, &count);
    if (code == KITH_EXIT_OK) code = kith_tool_check(kith_filter_ids(ids, count, out), path);
    free(ids);
    return code;
}

static int file_bytes(FILE *file, const char *path, size_t *bytes) {
    long end = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    if (end < 0 || fseek(file, 0, SEEK_SET) != 0)
        return kith_tool_error(KITH_EXIT_IO, "%s: %s", path, strerror(errno));
    *bytes = (size_t)end;
    return KITH_EXIT_OK;
}

/* Ids are distinct and not negative: an index of n vectors has some id of at least n - 1. */
static int bits_filter(const char *path, size_t vector_count, kith_filter **out) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return kith_tool_error(KITH_EXIT_IO, "%s: %s", path, strerror(errno));
    uint64_t *words = NULL;
    unsigned char *bytes = NULL;
    size_t count = 0;
    int code;
    KITH_TOOL_GO(file_bytes(file, path, &count));
    if (count > SIZE_MAX / 8 || count < (vector_count + 7) / 8) {
        code = kith_tool_error(KITH_EXIT_DATA, "%s: %zu bytes of bits, an index of %zu vectors needs at least %zu",
                               path, count, vector_count, (vector_count + 7) / 8);
        goto done;
    }
    bytes = malloc(count + 1);
    words = calloc(count / 8 + 1, sizeof *words);
    if (bytes == NULL || words == NULL) {
        code = kith_tool_no_memory(count, 2);
        goto done;
    }
    if (fread(bytes, 1, count, file) != count) {
        code = kith_tool_error(KITH_EXIT_IO, "%s: %s", path, ferror(file) ? strerror(errno) : "cut short");
        goto done;
    }
    for (size_t i = 0; i < count; i++) words[i / 8] |= (uint64_t)bytes[i] << (i % 8 * 8);
    KITH_TOOL_GO(kith_tool_check(kith_filter_bitset(words, count * 8, out), path));
done:
    (void)fclose(file);
    free(bytes);
    free(words);
    return code;
}

static bool read_end(const char **at, int64_t open, int64_t *out) {
    char *end;
    *out = open;
    if (**at < '0' || **at > '9') return true;
    errno = 0;
    long long value = strtoll(*at, &end, 10);
    if (errno != 0 || value > KITH_ID_MAX) return false;
    *out = value;
    *at = end;
    return true;
}

static int range_filter(const char *text, kith_filter **out) {
    int64_t first, last;
    const char *at = text;
    bool is_good = read_end(&at, 0, &first) && *at++ == '-' && read_end(&at, KITH_ID_MAX, &last) && *at == '\0';
    if (!is_good)
        return kith_tool_error(KITH_EXIT_USAGE, "--filter: 'range:%s': FIRST-LAST is needed, ids 0..2^63 - 2",
                               text);
    if (first > last)
        return kith_tool_error(KITH_EXIT_USAGE, "--filter: 'range:%s': the first id is above the last", text);
    return kith_tool_check(kith_filter_range(first, last + 1, out), NULL);
}

static int term_filter(const char *text, size_t vector_count, kith_filter **out) {
    if (strncmp(text, "bits:", 5) == 0) return bits_filter(text + 5, vector_count, out);
    if (strncmp(text, "range:", 6) == 0) return range_filter(text + 6, out);
    return ids_filter(strncmp(text, "ids:", 4) == 0 ? text + 4 : text, out);
}

static int parse_term(filter_parser *parser, kith_filter **out) {
    char text[TERM_BYTES_MAX];
    skip_spaces(parser);
    size_t bytes = strcspn(parser->at, "&|!() \t");
    if (bytes == 0) return syntax_error(parser, "a file, bits:FILE, range:FIRST-LAST, ! or ( is needed here");
    if (bytes >= sizeof text) return syntax_error(parser, "a name too long");
    memcpy(text, parser->at, bytes);
    text[bytes] = '\0';
    parser->at += bytes;
    return term_filter(text, parser->count, out);
}

/* ---- Expressions ------------------------------------------------------------------------------------------ */

static int parse_any(filter_parser *parser, kith_filter **out);

static int parse_one(filter_parser *parser, kith_filter **out) {
    int code;
    if (++parser->depth > DEPTH_MAX) return syntax_error(parser, "nested more than 32 deep");
    if (take(parser, '!')) {
        kith_filter *part = NULL;
        code = parse_one(parser, &part);
        if (code == KITH_EXIT_OK) code = kith_tool_check(kith_filter_not(part, out), NULL);
        kith_filter_free(part);
    } else if (take(parser, '(')) {
        code = parse_any(parser, out);
        if (code == KITH_EXIT_OK && !take(parser, ')')) {
            kith_filter_free(*out);
            *out = NULL;
            code = syntax_error(parser, "')' is needed here");
        }
    } else {
        code = parse_term(parser, out);
    }
    parser->depth--;
    return code;
}

typedef int (*part_fn)(filter_parser *parser, kith_filter **out);
typedef kith_status (*join_fn)(const kith_filter *const *parts, size_t count, kith_filter **out);

/* Parts that `operator` joins. */
static int parse_parts(filter_parser *parser, char operator, part_fn part, join_fn join, kith_filter **out) {
    kith_filter *parts[PARTS_MAX];
    const kith_filter *joined[PARTS_MAX];
    size_t count = 0;
    int code;
    do {
        if (count == PARTS_MAX) {
            code = syntax_error(parser, "more than 64 parts");
            goto done;
        }
        parts[count] = NULL;
        KITH_TOOL_GO(part(parser, &parts[count]));
        joined[count] = parts[count];
        count++;
    } while (take(parser, operator));
    if (count == 1) {
        *out = parts[0];
        return KITH_EXIT_OK;
    }
    code = kith_tool_check(join(joined, count, out), NULL);
done:
    for (size_t i = 0; i < count; i++) kith_filter_free(parts[i]);
    return code;
}

static int parse_all(filter_parser *parser, kith_filter **out) {
    return parse_parts(parser, '&', parse_one, kith_filter_and, out);
}

static int parse_any(filter_parser *parser, kith_filter **out) {
    return parse_parts(parser, '|', parse_all, kith_filter_or, out);
}

static bool is_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file != NULL) (void)fclose(file);
    return file != NULL;
}

int kith_tool_filter_open(const char *text, size_t count, kith_filter **out) {
    *out = NULL;
    if (text == NULL) return KITH_EXIT_OK;
    if (is_file(text)) return ids_filter(text, out);
    filter_parser parser = {.text = text, .at = text, .count = count};
    int code = parse_any(&parser, out);
    skip_spaces(&parser);
    if (code == KITH_EXIT_OK && *parser.at != '\0') {
        kith_filter_free(*out);
        *out = NULL;
        code = syntax_error(&parser, "& or | is needed here");
    }
    return code;
}
