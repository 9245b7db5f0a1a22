/* SPDX-License-Identifier: Apache-2.0
 *
 * flat_rescore.c: Flat as the exact half of a refinement.
 */
#include "base/error.h"
#include "flat/flat_inside.h"
#include "index/rescore.h"

static void keys_of(const void *context, size_t query, size_t worker, const void *const rows[4],
                    const float norms[4], int32_t keys[4]) {
    (void)worker;
    kith_exact_four(context, query, rows, norms, keys);
}

static float value_of(const void *context, int32_t key) { return kith_exact_value(context, key); }

kith_status kith_flat_rescore(const kith_index *index, const kith_search_request *request,
                              const kith_candidates *candidates, const kith_search_results *results) {
    const kith_flat *flat = kith_flat_of_const(index);
    const kith_exact_request exact_request = {
        .queries = request->queries,
        .metric = index->metric,
        .row_dtype = index->dtype,
        .threads = request->threads,
        .gathers = true,
        .arena = request->arena,
    };
    kith_exact *exact;
    KITH_TRY(kith_exact_open(&exact_request, &exact));
    const kith_rescoring rescoring = {
        .index = index,
        .ids = &flat->ids,
        .rows = &flat->vectors,
        .norms = kith_flat_has_norms(flat) ? &flat->inverse_norms : NULL,
        .keys = keys_of,
        .value = value_of,
        .context = exact,
    };
    return kith_rescore(&rescoring, request, candidates, results);
}
