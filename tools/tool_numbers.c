/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_numbers.c: strict parsing of numbers. The whole text has to be one; no blanks, nothing behind it.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

/* Digits from *text on; leaves *text behind them. */
static bool digits_parse(const char **text, uint64_t *out) {
    const char *at = *text;
    uint64_t value = 0;
    if (!isdigit((unsigned char)*at)) return false;
    for (; isdigit((unsigned char)*at); at++) {
        unsigned digit = (unsigned)(*at - '0');
        if (value > (UINT64_MAX - digit) / 10) return false;
        value = value * 10 + digit;
    }
    *text = at;
    *out = value;
    return true;
}

bool kith_tool_count_parse(const char *text, size_t *out) {
    uint64_t value;
    if (!digits_parse(&text, &value) || *text != '\0' || value > SIZE_MAX) return false;
    *out = (size_t)value;
    return true;
}

bool kith_tool_i64_parse(const char *text, int64_t *out) {
    uint64_t value;
    bool negative = *text == '-';
    if (negative) text++;
    if (!digits_parse(&text, &value) || *text != '\0' || value > INT64_MAX) return false;
    *out = negative ? -(int64_t)value : (int64_t)value;
    return true;
}

bool kith_tool_bytes_parse(const char *text, uint64_t *out) {
    static const char units[] = "KMGT";
    uint64_t value;
    if (!digits_parse(&text, &value)) return false;
    unsigned shift = 0;
    const char *unit = *text != '\0' ? strchr(units, toupper((unsigned char)*text)) : NULL;
    if (unit != NULL) {
        shift = 10 * (unsigned)(unit - units + 1);
        text++;
        if (strcmp(text, "iB") == 0) text += 2;
    }
    if (strcmp(text, "B") == 0) text++;
    if (*text != '\0' || value > UINT64_MAX >> shift) return false;
    *out = value << shift;
    return true;
}

bool kith_tool_real_parse(const char *text, double *out) {
    if (!isdigit((unsigned char)*text) && *text != '-' && *text != '.') return false;
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value)) return false;
    *out = value;
    return true;
}

bool kith_tool_rows_parse(const char *text, size_t *first, size_t *last) {
    uint64_t from = 0, to = SIZE_MAX;
    if (*text != ':' && !digits_parse(&text, &from)) return false;
    if (*text++ != ':') return false;
    if (*text != '\0' && !digits_parse(&text, &to)) return false;
    if (*text != '\0' || from >= to || to > SIZE_MAX) return false;
    *first = (size_t)from;
    *last = (size_t)to;
    return true;
}
