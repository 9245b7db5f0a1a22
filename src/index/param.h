/* SPDX-License-Identifier: Apache-2.0
 *
 * param.h: the table behind kith_search_params_set: which fields of kith_search_params a structure reads.
 */
#ifndef KITH_INDEX_PARAM_H
#define KITH_INDEX_PARAM_H

#include "kith/index.h"

/* A whole number in a size_t or uint64_t field of kith_search_params. */
typedef struct kith_param {
    kith_search_param shown; /* name, help, range and default; the field holds the whole range */
    size_t offset, bytes;    /* of the field */
} kith_param;

#define KITH_PARAM(field, help, min, max, fallback)                                                                \
    {                                                                                                              \
        {#field, help, min, max, fallback}, offsetof(kith_search_params, field),                                   \
            sizeof(((kith_search_params *)0)->field)                                                               \
    }

/* The parameters that every structure has. */
#define KITH_PARAM_THREADS KITH_PARAM(threads, "threads of one call; 0: all processors", 0, 1024, 1)
#define KITH_PARAM_MAX_DISTANCES                                                                                   \
    KITH_PARAM(max_distances, "bound on the distances computed for a query; 0: none", 0, UINT64_MAX, 0)

#endif
