/* SPDX-License-Identifier: Apache-2.0
 *
 * error.h: how a failing function leaves its message.
 */
#ifndef KITH_BASE_ERROR_H
#define KITH_BASE_ERROR_H

#include "kith/status.h"

/* Stores the formatted message for this thread (cut at 511 bytes, newlines and control bytes replaced by '?')
 * and returns `status`, so that callers write `return kith_error(KITH_ERR_DIMENSION, "...", ...)`. */
kith_status kith_error(kith_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " before this thread's present message: callers higher up add the file or the row. */
kith_status kith_error_prefix(kith_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

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
