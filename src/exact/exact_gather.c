/* SPDX-License-Identifier: Apache-2.0
 *
 * exact_gather.c: rows that lie anywhere, four at a time: re-ranking.
 */
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
