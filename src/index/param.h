/* SPDX-License-Identifier: Apache-2.0
 *
 * param.h: the table behind kith_search_params_set: which fields of kith_search_params a structure reads.
 */
#ifndef KITH_INDEX_PARAM_H
#define KITH_INDEX_PARAM_H

#include "kith/index.h"

/* A whole number in a size_t or uint64_t field. */
typedef struct kith_param {
    kith_search_param shown; /* name, help, range and default */
    size_t offset;           /* of the field in kith_search_params */
} kith_param;

_Static_assert(sizeof(size_t) == sizeof(uint64_t), "a parameter's field is 64 bits wide");

/* The parameters that every structure has. */
#define KITH_PARAM_THREADS                                                                                         \
    { {"threads", "threads of one call; 0: all processors", 0, 1024, 1}, offsetof(kith_search_params, threads) }
#define KITH_PARAM_MAX_DISTANCES                                                                                   \
    {                                                                                                              \
        {"max_distances", "bound on the distances computed for a query; 0: none", 0, UINT64_MAX, 0},               \
            offsetof(kith_search_params, max_distances)                                                            \
    }

#endif
