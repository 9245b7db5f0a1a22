/* SPDX-License-Identifier: Apache-2.0
 *
 * rescore.h: the k nearest of each query among candidates that another index has found, over rows of any kind.
 */
#ifndef KITH_INDEX_RESCORE_H
#define KITH_INDEX_RESCORE_H

#include "index/idrows.h"

/* The keys of four rows for one query; rows may repeat. `norms` are those of the table, zeros where there are none. */
typedef void (*kith_keys_fn)(const void *context, size_t query, size_t worker, const void *const rows[4],
                             const float norms[4], int32_t keys[4]);
/* What has to happen before a query's first keys; NULL: nothing. */
typedef void (*kith_prepare_fn)(const void *context, size_t query, size_t worker);

typedef struct kith_rescoring {
    const kith_index *index;
    const kith_idrows *ids;
    const kith_chunks *rows;
    const kith_chunks *norms; /* float each, or NULL */
    kith_prepare_fn prepare;
    kith_keys_fn keys;
    kith_key_value_fn value;
    const void *context; /* of these three */
} kith_rescoring;

/* Candidates with bounds are looked at in their order, nearest estimates first, but for those whose bounds pass the
 * k-th nearest found so far. Shares the queries out to request->threads workers. Rows are fetched into the cache
 * ahead of their use, also the first ones of the next query. */
kith_status kith_rescore(const kith_rescoring *rescoring, const kith_search_request *request,
                         const kith_candidates *candidates, const kith_search_results *results);

#endif
