/* SPDX-License-Identifier: Apache-2.0
 *
 * options.h: reading an options struct that an older or a newer program hands over.
 *
 * A struct's first field is its size as the caller was compiled. Fields that the caller does not know keep their
 * defaults; a caller newer than the library is refused when it sets a field that the library does not know.
 */
#ifndef KITH_BASE_OPTIONS_H
#define KITH_BASE_OPTIONS_H

#include "kith/types.h"

/* `own` holds the defaults and its own size on entry; `given` may be NULL. `name` is for the message. */
kith_status kith_options_read(const char *name, void *own, size_t own_size, const void *given);

/* The job with defaults filled in and checked: threads is 1..1024 on return. */
kith_status kith_job_read(kith_job *own, const kith_job *given);
/* 0 -> all processors; more than 1024 is KITH_ERR_ARGUMENT. */
kith_status kith_threads_read(size_t given, size_t *out);

#endif
