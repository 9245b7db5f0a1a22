/* SPDX-License-Identifier: Apache-2.0
 *
 * refine_inside.h: what the files of refinement share.
 */
#ifndef KITH_WRAP_REFINE_INSIDE_H
#define KITH_WRAP_REFINE_INSIDE_H

#include "wrap/refine.h"

enum { KITH_REFINE_PARAMS_MAX = 16 };

typedef struct kith_refine {
    kith_index common;
    kith_index *base, *store;
    kith_param params
        [KITH_REFINE_PARAMS_MAX]; /* the base's, k_factor and, where the base bounds its errors, error_percent */
} kith_refine;

static inline kith_refine *kith_refine_of(kith_index *index) { return (kith_refine *)index; }
static inline const kith_refine *kith_refine_of_const(const kith_index *index) {
    return (const kith_refine *)index;
}

/* Does the base say how far its distances may be off? */
bool kith_refine_has_errors(const kith_refine *both);

/* ---- refine_search.c ---- */
kith_status kith_refine_search(const kith_index *index, const kith_search_request *request,
                               const kith_search_results *results);
kith_status kith_refine_range_search(const kith_index *index, const kith_search_request *request,
                                     kith_range_lists *lists);

#endif
