/* SPDX-License-Identifier: Apache-2.0
 *
 * error.h: how a failing function leaves its message, and how warnings are given.
 */
#ifndef KITH_BASE_ERROR_H
#define KITH_BASE_ERROR_H

#include <stddef.h>

#include "kith/status.h"

/* Stores the formatted message for this thread (cut at 511 bytes, newlines and control bytes replaced by '?')
 * and returns `status`, so that callers write `return kith_error(KITH_ERR_DIMENSION, "...", ...)`. */
kith_status kith_error(kith_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " before this thread's present message: callers higher up add the file or the row. */
kith_status kith_error_prefix(kith_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Hands a line, made as a message is, to the hook of kith_log_set. Outside parallel loops. */
void kith_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Warns "WHAT: 100 vectors for 16 CENTRES; at least 624 are recommended" when there are fewer than 39 for each (as
 * FAISS recommends): the centres would follow the sample, not the data. */
void kith_warn_few(const char *what, size_t count, size_t centre_count, const char *centres);

/* Returns from the calling function when `call` fails. Only where nothing is held that has to be released. */
#define KITH_TRY(call)                                                                                             \
    do {                                                                                                           \
        kith_status kith_try_status_ = (call);                                                                     \
        if (kith_try_status_ != KITH_OK) return kith_try_status_;                                                  \
    } while (0)

/* Jumps to the label `done` when `call` fails; the function has a variable `kith_status status`. */
#define KITH_GO(call)                                                                                              \
    do {                                                                                                           \
        status = (call);                                                                                           \
        if (status != KITH_OK) goto done;                                                                          \
    } while (0)

#endif
