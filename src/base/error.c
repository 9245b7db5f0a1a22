/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 512, VECTORS_PER_CENTRE = 39 };
static _Thread_local char message[MESSAGE_BYTES];

static void replace_control_bytes(char *text) {
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = '?';
}

/* The new text is made beside the old one, which may be among its arguments. */
kith_status kith_error(kith_status status, const char *format, ...) {
    char text[MESSAGE_BYTES] = "";
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    replace_control_bytes(text);
    memcpy(message, text, sizeof message);
    return status;
}

kith_status kith_error_prefix(kith_status status, const char *format, ...) {
    char prefix[MESSAGE_BYTES] = "";
    va_list args;
    va_start(args, format);
    (void)vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    char old[MESSAGE_BYTES];
    memcpy(old, message, sizeof old);
    if (snprintf(message, sizeof message, "%s: %s", prefix, old) < 0) message[0] = '\0'; /* cut where room ends */
    replace_control_bytes(message);
    return status;
}

static kith_log_fn log_fn;
static void *log_user;

void kith_log_set(kith_log_fn fn, void *user) {
    log_fn = fn;
    log_user = user;
}

void kith_warn(const char *format, ...) {
    if (log_fn == NULL) return;
    char text[MESSAGE_BYTES] = "";
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    replace_control_bytes(text);
    log_fn(log_user, KITH_LOG_WARNING, text);
}

void kith_warn_few(const char *what, size_t count, size_t centre_count, const char *centres) {
    if (count / VECTORS_PER_CENTRE >= centre_count) return;
    kith_warn("%s: %zu vectors for %zu %s; at least %zu are recommended", what, count, centre_count, centres,
              centre_count * VECTORS_PER_CENTRE);
}

const char *kith_error_message(void) { return message; }

const char *kith_status_name(kith_status status) {
    static const char *const names[] = {
        [KITH_OK] = "KITH_OK",
        [KITH_ERR_ARGUMENT] = "KITH_ERR_ARGUMENT",
        [KITH_ERR_DIMENSION] = "KITH_ERR_DIMENSION",
        [KITH_ERR_TYPE] = "KITH_ERR_TYPE",
        [KITH_ERR_NOT_FINITE] = "KITH_ERR_NOT_FINITE",
        [KITH_ERR_RANGE] = "KITH_ERR_RANGE",
        [KITH_ERR_ZERO_VECTOR] = "KITH_ERR_ZERO_VECTOR",
        [KITH_ERR_EMPTY] = "KITH_ERR_EMPTY",
        [KITH_ERR_NOT_FOUND] = "KITH_ERR_NOT_FOUND",
        [KITH_ERR_EXISTS] = "KITH_ERR_EXISTS",
        [KITH_ERR_INCOMPLETE] = "KITH_ERR_INCOMPLETE",
        [KITH_ERR_NO_MEMORY] = "KITH_ERR_NO_MEMORY",
        [KITH_ERR_OVERFLOW] = "KITH_ERR_OVERFLOW",
        [KITH_ERR_BUDGET] = "KITH_ERR_BUDGET",
        [KITH_ERR_IO] = "KITH_ERR_IO",
        [KITH_ERR_FORMAT] = "KITH_ERR_FORMAT",
        [KITH_ERR_CHECKSUM] = "KITH_ERR_CHECKSUM",
        [KITH_ERR_VERSION] = "KITH_ERR_VERSION",
        [KITH_ERR_UNSUPPORTED] = "KITH_ERR_UNSUPPORTED",
        [KITH_ERR_READ_ONLY] = "KITH_ERR_READ_ONLY",
        [KITH_ERR_CANCELLED] = "KITH_ERR_CANCELLED",
        [KITH_ERR_NOT_TRAINED] = "KITH_ERR_NOT_TRAINED",
        [KITH_ERR_INTERNAL] = "KITH_ERR_INTERNAL",
    };
    unsigned number = (unsigned)status;
    return number < sizeof names / sizeof *names ? names[number] : "KITH_ERR_UNKNOWN";
}

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)
const char *kith_version(void) {
    return TEXT(KITH_VERSION_MAJOR) "." TEXT(KITH_VERSION_MINOR) "." TEXT(KITH_VERSION_PATCH);
}
