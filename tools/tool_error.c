/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_error.c: one line per error on stderr, and the exit code that belongs to it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

static const char *command_name = "kith";

static const unsigned char exit_codes[] = {
    [KITH_OK] = KITH_EXIT_OK,
    [KITH_ERR_ARGUMENT] = KITH_EXIT_USAGE,
    [KITH_ERR_DIMENSION] = KITH_EXIT_DATA,
    [KITH_ERR_TYPE] = KITH_EXIT_DATA,
    [KITH_ERR_NOT_FINITE] = KITH_EXIT_DATA,
    [KITH_ERR_RANGE] = KITH_EXIT_DATA,
    [KITH_ERR_ZERO_VECTOR] = KITH_EXIT_DATA,
    [KITH_ERR_EMPTY] = KITH_EXIT_DATA,
    [KITH_ERR_NOT_FOUND] = KITH_EXIT_USAGE,
    [KITH_ERR_EXISTS] = KITH_EXIT_DATA,
    [KITH_ERR_INCOMPLETE] = KITH_EXIT_DATA,
    [KITH_ERR_NO_MEMORY] = KITH_EXIT_MEMORY,
    [KITH_ERR_OVERFLOW] = KITH_EXIT_DATA,
    [KITH_ERR_BUDGET] = KITH_EXIT_MEMORY,
    [KITH_ERR_IO] = KITH_EXIT_IO,
    [KITH_ERR_FORMAT] = KITH_EXIT_DATA,
    [KITH_ERR_CHECKSUM] = KITH_EXIT_DATA,
    [KITH_ERR_VERSION] = KITH_EXIT_DATA,
    [KITH_ERR_UNSUPPORTED] = KITH_EXIT_DATA,
    [KITH_ERR_READ_ONLY] = KITH_EXIT_DATA,
    [KITH_ERR_CANCELLED] = KITH_EXIT_SIGINT,
    [KITH_ERR_NOT_TRAINED] = KITH_EXIT_DATA,
    [KITH_ERR_INTERNAL] = KITH_EXIT_BUG,
};

void kith_tool_name_set(const char *command) { command_name = command; }

/* A file name may hold anything; the message stays one line all the same. */
static void print_line(const char *kind, char *line) {
    for (char *c = line; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    kith_tool_progress_clear();
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s: %s%s\n", command_name, kind, line);
}

int kith_tool_error(int code, const char *format, ...) {
    char line[2048];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    print_line("", line);
    return code;
}

/* A command that trains again and again says a thing once. */
void kith_tool_warn(void *user, kith_log_level level, const char *message) {
    static char last[512];
    (void)user;
    (void)level;
    if (strncmp(last, message, sizeof last - 1) == 0) return;
    (void)snprintf(last, sizeof last, "%s", message);
    char line[sizeof last];
    memcpy(line, last, sizeof line);
    print_line("warning: ", line);
}

static bool names_file(const char *message, const char *file) {
    size_t bytes = strlen(file);
    return strncmp(message, file, bytes) == 0 && (message[bytes] == ':' || message[bytes] == ' ');
}

int kith_tool_check(kith_status status, const char *file) {
    if (status == KITH_OK) return KITH_EXIT_OK;
    if (status == KITH_ERR_CANCELLED) {
        int code = kith_tool_interrupted();
        return kith_tool_error(code != 0 ? code : KITH_EXIT_SIGINT, "interrupted");
    }
    unsigned number = (unsigned)status;
    int code = number < sizeof exit_codes ? exit_codes[number] : KITH_EXIT_BUG;
    const char *message = kith_error_message();
    if (file == NULL || names_file(message, file)) return kith_tool_error(code, "%s", message);
    return kith_tool_error(code, "%s: %s", file, message);
}

int kith_tool_no_memory(size_t count, size_t each) {
    return kith_tool_error(KITH_EXIT_MEMORY, "out of memory: %zu items of %zu bytes", count, each);
}

int kith_tool_flush(void) {
    static bool is_reported;
    kith_tool_progress_clear();
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return KITH_EXIT_OK;
    const char *reason = errno != 0 ? strerror(errno) : "write failed";
    if (!is_reported) (void)kith_tool_error(KITH_EXIT_IO, "standard output: %s", reason);
    is_reported = true;
    return KITH_EXIT_IO;
}
