/* SPDX-License-Identifier: Apache-2.0
 *
 * exact_gather.c: rows that lie anywhere, four at a time: re-ranking, and what a filter leaves of a list.
 */
#include "base/error.h"
#include "exact/exact_inside.h"

static void keys_of_ints(const kith_exact *exact, const void *query, const void *const rows[4], int32_t keys[4]) {
    exact->int_pair->four(query, rows, exact->dim, keys);
    for (size_t i = 0; i < 4 && exact->op != KITH_OP_L2SQ; i++) keys[i] = -keys[i];
}

void kith_exact_four(const kith_exact *exact, size_t query, const void *const rows[4], const float inverse_norms[4],
                     int32_t keys[4]) {
    const void *query_row = exact->query_rows + query * exact->query_stride;
    if (exact->int_pair != NULL) {
        keys_of_ints(exact, query_row, rows, keys);
        return;
    }
    float values[4];
    exact->float_pair->four(query_row, rows, exact->dim, values);
    for (size_t i = 0; i < 4; i++) {
        float value = values[i];
        if (exact->request.metric == KITH_COSINE)
            value = value * inverse_norms[i] * exact->query_inverse_norm[query];
        keys[i] = kith_key_f32(exact->op == KITH_OP_L2SQ ? value : -value);
    }
}

/* Four rows at a time go past all queries, so that they are read from memory once. */
kith_status kith_exact_stream_gathered(const kith_exact *exact, const void *const *rows, const int64_t *ids,
                                       size_t count, const uint32_t *members, size_t member_count,
                                       const kith_exact_sinks *sinks) {
    for (size_t first = 0; first < count; first += 4) {
        size_t here = kith_min_size(4, count - first);
        const void *four[4];
        float inverse_norms[4] = {0};
        for (size_t i = 0; i < 4; i++) {
            four[i] = rows[first + kith_min_size(i, here - 1)];
            if (exact->request.metric == KITH_COSINE)
                inverse_norms[i] = kith_exact_inverse_norm(four[i], exact->request.row_dtype, exact->dim);
        }
        for (size_t m = 0; m < member_count; m++) {
            int32_t keys[4];
            kith_exact_four(exact, members[m], four, inverse_norms, keys);
            for (size_t i = 0; i < here; i++)
                if (keys[i] <= kith_exact_key_max(sinks, members[m]))
                    KITH_TRY(kith_exact_keep(sinks, members[m], keys[i], ids[first + i]));
        }
    }
    return KITH_OK;
}
