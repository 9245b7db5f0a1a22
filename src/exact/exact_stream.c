/* SPDX-License-Identifier: Apache-2.0
 *
 * exact_stream.c: a few queries over many rows: every row is read once, in blocks, for all of them.
 */
#include "exact/exact_inside.h"

#include "base/error.h"

/* Rows of one kernel call: the block fits the second-level cache, so that further queries find it there. */
static size_t block_rows(size_t stride) {
    static const size_t block_bytes = (size_t)128 << 10;
    size_t rows = block_bytes / (stride != 0 ? stride : 1);
    return rows < 8 ? 8 : kith_min_size(rows, KITH_EXACT_BLOCK_ROWS);
}

static void scale_to_cosine(float *values, const float *inverse_norms, float query_inverse_norm, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] = values[i] * inverse_norms[i] * query_inverse_norm;
}

/* Fills worker->values with the block's distances and worker->positions with those under the bound. */
static size_t distances_under(const kith_exact *exact, kith_exact_worker *worker, size_t query, int32_t key_max,
                              const void *rows, size_t stride, size_t count, const float *inverse_norms) {
    const void *query_row = exact->query_rows + query * exact->query_stride;
    const kith_simd_table *simd = exact->simd;
    bool l2 = exact->op == KITH_OP_L2SQ;
    if (exact->int_pair != NULL) {
        int32_t *values = worker->values, floor_value = key_max == INT32_MIN ? INT32_MAX : -key_max;
        exact->int_pair->block(query_row, rows, stride, count, exact->dim, values);
        return l2 ? simd->filter_below_i32(values, count, key_max, worker->positions)
                  : simd->filter_i32(values, count, floor_value, worker->positions);
    }
    float *values = worker->values, bound = kith_exact_value_max(key_max);
    exact->float_pair->block(query_row, rows, stride, count, exact->dim, values);
    if (exact->request.metric == KITH_COSINE)
        scale_to_cosine(values, inverse_norms, exact->query_inverse_norm[query], count);
    return l2 ? simd->filter_below_f32(values, count, bound, worker->positions)
              : simd->filter_f32(values, count, -bound, worker->positions);
}

static int32_t key_of(const kith_exact *exact, const kith_exact_worker *worker, size_t position) {
    bool l2 = exact->op == KITH_OP_L2SQ;
    if (exact->int_pair != NULL) {
        int32_t value = ((const int32_t *)worker->values)[position];
        return l2 ? value : -value;
    }
    float value = ((const float *)worker->values)[position];
    return kith_key_f32(l2 ? value : -value);
}

static kith_status offer_block(const kith_exact *exact, const kith_rows *rows, kith_exact_worker *worker,
                               size_t query, size_t row_first, size_t survivors, const kith_exact_sinks *sinks) {
    for (size_t s = 0; s < survivors; s++) {
        size_t position = worker->positions[s];
        int32_t key = key_of(exact, worker, position);
        if (key > kith_exact_key_max(sinks, query)) continue;
        if (rows->dead != NULL && kith_deadset_has(rows->dead, row_first + position)) continue;
        int64_t id = kith_exact_row_id(rows, row_first + position);
        if (exact->request.allow != NULL && !exact->request.allow(exact->request.allow_context, id)) continue;
        KITH_TRY(kith_exact_keep(sinks, query, key, id));
    }
    return KITH_OK;
}

/* The norms of up to *run rows: where they are stored, *run cut to what lies in one piece there; else computed. */
static const float *take_inverse_norms(const kith_rows *rows, kith_exact_worker *worker, size_t row,
                                       const unsigned char *at, size_t stride, size_t *run) {
    if (rows->inverse_norms != NULL) {
        size_t stored;
        const float *norms = kith_chunks_run(rows->inverse_norms, row, &stored);
        *run = kith_min_size(*run, stored);
        return norms;
    }
    for (size_t i = 0; i < *run; i++)
        worker->inverse_norms[i] = kith_exact_inverse_norm(at + i * stride, rows->dtype, rows->dim);
    return worker->inverse_norms;
}

kith_status kith_exact_stream(const kith_exact *exact, const kith_rows *rows, kith_exact_worker *worker,
                              const uint32_t *members, size_t query_first, size_t query_last, size_t row_first,
                              size_t row_last, const kith_exact_sinks *sinks) {
    size_t stride = rows->chunks != NULL ? rows->chunks->item_bytes : rows->stride;
    size_t block = block_rows(stride), run;
    for (size_t row = row_first; row < row_last; row += run) {
        const unsigned char *at = kith_exact_run(rows, row, &run);
        run = kith_min_size(kith_min_size(run, row_last - row), block);
        const float *inverse_norms = NULL;
        if (exact->request.metric == KITH_COSINE)
            inverse_norms = take_inverse_norms(rows, worker, row, at, stride, &run);
        for (size_t i = query_first; i < query_last; i++) {
            size_t query = members != NULL ? members[i] : i;
            int32_t key_max = kith_exact_key_max(sinks, query);
            size_t survivors = distances_under(exact, worker, query, key_max, at, stride, run, inverse_norms);
            KITH_TRY(offer_block(exact, rows, worker, query, row, survivors, sinks));
        }
        if (exact->request.meter != NULL && members == NULL)
            KITH_TRY(kith_meter_add(exact->request.meter, (uint64_t)run * (query_last - query_first)));
    }
    return KITH_OK;
}
