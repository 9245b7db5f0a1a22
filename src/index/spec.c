/* SPDX-License-Identifier: Apache-2.0 */
#include "index/spec.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"

kith_status kith_spec_error(const char *text, size_t position, const char *format, ...) {
    char what[256];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return kith_error(KITH_ERR_ARGUMENT, "spec '%s': character %zu: %s", text, position, what);
}

kith_status kith_spec_join(const char *first, const char *between, const char *last, size_t bytes_max, char *out) {
    size_t a = strlen(first), b = strlen(between), c = strlen(last);
    if (a + b + c >= bytes_max)
        return kith_error(KITH_ERR_ARGUMENT, "spec: longer than %zu characters when written out", bytes_max - 1);
    memmove(out, first, a);
    memcpy(out + a, between, b);
    memcpy(out + a + b, last, c + 1);
    return KITH_OK;
}

bool kith_spec_number(const kith_spec_part *part, size_t *at, size_t *value) {
    size_t first = *at;
    *value = 0;
    for (; *at < part->length && part->text[*at] >= '0' && part->text[*at] <= '9'; (*at)++) {
        size_t digit = (size_t)(part->text[*at] - '0');
        *value = *value > KITH_SPEC_NUMBER_MAX ? *value : *value * 10 + digit;
    }
    return *at > first && *value <= KITH_SPEC_NUMBER_MAX;
}
