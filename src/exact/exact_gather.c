/* SPDX-License-Identifier: Apache-2.0
 *
 * exact_gather.c: rows that lie anywhere, four at a time: re-ranking, and what a filter leaves of a list.
 *
 * A query of floats is often made of whole numbers that the rows' bytes could hold: such data came as bytes. Products of
 * bytes are three to five times as fast. Where such a sum is at most 2^24, so was every sum that the float kernel would
 * have come by, whatever their order, and all of these were exact: the bits are the same. Else the float kernel is asked.
 */
#include "base/error.h"
#include "exact/exact_inside.h"

static const int32_t exact_max = 1 << 24; /* whole numbers up to here are floats */

/* ---- Queries of whole numbers ---- */

enum { QUERIES_PER_ITEM = 16 };

static kith_status take_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const kith_exact *exact = context;
    int32_t lowest = exact->request.row_dtype == KITH_I8 ? INT8_MIN : 0;
    size_t first = item * QUERIES_PER_ITEM, last = kith_min_size(exact->query_count, first + QUERIES_PER_ITEM);
    for (size_t q = first; q < last; q++) {
        const float *query = (const float *)(const void *)(exact->query_rows + q * exact->query_stride);
        exact->is_whole[q] =
            exact->simd->rounding.as_bytes(query, exact->dim, lowest, exact->whole_rows + q * exact->dim);
    }
    return KITH_OK;
}

/* Products of i8 may cancel out: the sums on the way are small enough if none can be large. */
kith_status kith_exact_take_whole(kith_exact *exact) {
    kith_dtype type = exact->request.row_dtype;
    size_t count = exact->query_count, bytes;
    bool may_cancel = type == KITH_I8 && exact->op == KITH_OP_IP;
    if (type != KITH_U8 && type != KITH_I8) return KITH_OK;
    if (may_cancel && exact->dim > (size_t)exact_max / (INT8_MIN * INT8_MIN)) return KITH_OK;
    if (kith_mul_overflows(count, exact->dim, &bytes)) bytes = SIZE_MAX;
    KITH_TRY(kith_arena_take(exact->request.arena, bytes, 1, &exact->whole_rows));
    KITH_TRY(kith_arena_take(exact->request.arena, count, sizeof *exact->is_whole, &exact->is_whole));
    exact->whole_pair = kith_simd_ints(exact->simd, exact->op, type, type);
    return kith_parallel_for(exact->request.threads, (count - 1) / QUERIES_PER_ITEM + 1, take_item, exact);
}

/* What the float kernel would have given; false where that is not known. */
static bool values_of_whole(const kith_exact *exact, size_t query, const void *const rows[4], float values[4]) {
    int32_t sums[4];
    if (exact->whole_pair == NULL || !exact->is_whole[query]) return false;
    exact->whole_pair->four(exact->whole_rows + query * exact->dim, rows, exact->dim, sums);
    for (size_t i = 0; i < 4; i++) {
        if (sums[i] > exact_max) return false;
        values[i] = (float)sums[i];
    }
    return true;
}

/* ---- Four rows ---- */

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
    if (!values_of_whole(exact, query, rows, values)) exact->float_pair->four(query_row, rows, exact->dim, values);
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
