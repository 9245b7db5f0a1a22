/* SPDX-License-Identifier: Apache-2.0 */
#include "base/options.h"

#include <string.h>

#include "base/error.h"
#include "base/parallel.h"

enum { OPTIONS_BYTES_MAX = 4096 };

kith_status kith_options_read(const char *name, void *own, size_t own_size, const void *given) {
    if (given == NULL) return KITH_OK;
    size_t given_size;
    memcpy(&given_size, given, sizeof given_size);
    if (given_size < sizeof given_size || given_size > OPTIONS_BYTES_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "%s: size %zu; was it initialised?", name, given_size);
    for (size_t i = own_size; i < given_size; i++)
        if (((const unsigned char *)given)[i] != 0)
            return kith_error(KITH_ERR_UNSUPPORTED, "%s: byte %zu is set, this library knows %zu", name, i,
                              own_size);
    memcpy(own, given, given_size < own_size ? given_size : own_size);
    memcpy(own, &own_size, sizeof own_size);
    return KITH_OK;
}

kith_status kith_threads_read(size_t given, size_t *out) {
    if (given > KITH_THREADS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "threads = %zu is outside 0..%d", given, KITH_THREADS_MAX);
    *out = given != 0 ? given : kith_threads_default();
    return KITH_OK;
}

kith_status kith_job_read(kith_job *own, const kith_job *given) {
    kith_job_init(own);
    KITH_TRY(kith_options_read("job", own, sizeof *own, given));
    return kith_threads_read(own->threads, &own->threads);
}
