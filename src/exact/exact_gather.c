/* SPDX-License-Identifier: Apache-2.0
 *
 * exact_gather.c: rows that lie anywhere, four at a time: re-ranking.
 */
#include "exact/exact_inside.h"

/* So many cache lines are fetched ahead: about what a core has under way at once, twice over. */
enum { AHEAD_LINES = 64, LINE_BYTES = 64, AHEAD_ROWS_MIN = 4 };

static void fetch(const void *row, size_t bytes) {
    const char *at = row;
    for (size_t i = 0; i < bytes; i += LINE_BYTES) __builtin_prefetch(at + i);
    __builtin_prefetch(at + bytes - 1); /* a row need not begin with a line */
}

size_t kith_exact_fetch(const kith_exact *exact, const void *const *rows, size_t count) {
    size_t bytes = kith_dtype_row_bytes(exact->request.row_dtype, exact->dim);
    size_t ahead = kith_max_size(AHEAD_ROWS_MIN, AHEAD_LINES / (bytes / LINE_BYTES + 1));
    ahead = kith_min_size(ahead, count);
    for (size_t i = 0; i < ahead; i++) fetch(rows[i], bytes);
    return ahead;
}

static void keys_of_ints(const kith_exact *exact, const void *query, const void *const four[4], int32_t keys[4]) {
    exact->int_pair->four(query, four, exact->dim, keys);
    for (size_t i = 0; i < 4 && exact->op != KITH_OP_L2SQ; i++) keys[i] = -keys[i];
}

static void keys_of_floats(const kith_exact *exact, size_t q, const void *query, const void *const four[4],
                           const float inverse_norms[4], int32_t keys[4]) {
    float values[4];
    exact->float_pair->four(query, four, exact->dim, values);
    for (size_t i = 0; i < 4; i++) {
        float value = values[i];
        if (exact->request.metric == KITH_COSINE) value = value * inverse_norms[i] * exact->query_inverse_norm[q];
        keys[i] = kith_key_f32(exact->op == KITH_OP_L2SQ ? value : -value);
    }
}

void kith_exact_gathered(const kith_exact *exact, size_t query, const void *const *rows, const float *inverse_norms,
                         size_t count, size_t fetched, int32_t *keys) {
    const void *query_row = exact->query_rows + query * exact->query_stride;
    size_t bytes = kith_dtype_row_bytes(exact->request.row_dtype, exact->dim);
    bool cosine = exact->request.metric == KITH_COSINE;
    for (size_t i = 0; i < count; i += 4) {
        const void *four[4];
        float norms[4] = {0};
        int32_t own[4];
        size_t last = kith_min_size(count, i + 4), used = last - i;
        for (size_t r = 0; r < 4; r++) four[r] = rows[r < used ? i + r : i];
        for (size_t r = 0; r < used && cosine; r++) norms[r] = inverse_norms[i + r];
        for (size_t r = 0; r < 4 && fetched < count; r++) fetch(rows[fetched++], bytes);
        if (exact->int_pair != NULL)
            keys_of_ints(exact, query_row, four, own);
        else
            keys_of_floats(exact, query, query_row, four, norms, own);
        memcpy(keys + i, own, used * sizeof *keys);
    }
}
