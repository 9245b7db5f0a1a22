/* SPDX-License-Identifier: Apache-2.0
 *
 * exact_tiles.c: many queries over many rows, as a matrix product whose results never leave the first-level cache.
 *
 * A block of rows is packed once and stays in the second-level cache while all queries of the task pass over it.
 * The product scores a pair by s = <q, x> - |x|^2 / 2 for l2, <q, x> for ip, <q, x / |x|> for cosine: larger is
 * nearer, and whatever depends on the query alone goes into the threshold.
 *
 * Float scores carry rounding errors, so the threshold is lowered by a bound E on them, and survivors get their
 * exact key. With u = 2^-24, n = dim: a chain of n fused multiply-adds errs by at most n u |q| |x| (1 + n u)
 * (Higham, Accuracy and Stability of Numerical Algorithms, 3.1, and Cauchy-Schwarz), the bias and its norm by
 * (n / 32 + 8) u |x|^2 / 2 and again n u |x|^2 / 2 as the chain carries it along; the exact key of either side
 * errs by (n / 32 + 8) u relative to a sum of the same size. E = (1.2 n + 64) u (|q| |x| + |x|^2) covers them all.
 */
#include "exact/exact_inside.h"

#include <math.h>

#include "base/error.h"

static bool is_int(const kith_exact *exact) { return exact->int_pair != NULL; }

/* ---- Queries ------------------------------------------------------------------------------------------- */

kith_status kith_exact_pack_queries(kith_exact *exact) {
    kith_arena *arena = exact->request.arena;
    size_t lanes = exact->query_lanes, words = exact->words;
    size_t groups = (exact->query_count + lanes - 1) / lanes;
    uint32_t *packed, *scratch;
    const uint32_t *vectors[KITH_EXACT_LANES_MAX];
    KITH_TRY(kith_arena_take(arena, groups, lanes * words * sizeof *packed, &packed));
    KITH_TRY(kith_arena_take(arena, lanes, words * sizeof *scratch, &scratch));
    if (is_int(exact))
        KITH_TRY(kith_arena_take(arena, exact->query_count, sizeof *exact->query_terms, &exact->query_terms));
    for (size_t g = 0; g < groups; g++) {
        size_t first = g * lanes, count = kith_min_size(lanes, exact->query_count - first);
        for (size_t i = 0; i < count; i++) {
            const unsigned char *row = exact->query_rows + (first + i) * exact->query_stride;
            vectors[i] = (const uint32_t *)(const void *)row;
            if (!is_int(exact)) continue;
            vectors[i] = scratch + i * words;
            exact->query_terms[first + i] =
                exact->simd->tile_i8.prepare_query(row, exact->request.row_dtype, exact->dim, scratch + i * words);
        }
        exact->simd->pack(vectors, count, lanes, words, packed + g * lanes * words);
    }
    exact->packed_queries = packed;
    return KITH_OK;
}

/* ---- Rows ---------------------------------------------------------------------------------------------- */

/* Notes up to block_rows rows that the filter allows, from *row on, and moves *row past what it looked at. */
static size_t gather_rows(const kith_exact *exact, const kith_rows *rows, kith_exact_worker *worker, size_t *row,
                          size_t row_last) {
    size_t stride = rows->chunks != NULL ? rows->chunks->item_bytes : rows->stride, count = 0, run;
    while (*row < row_last && count < exact->block_rows) {
        const unsigned char *at = kith_exact_run(rows, *row, &run);
        run = kith_min_size(run, row_last - *row);
        size_t i = 0;
        for (; i < run && count < exact->block_rows; i++) {
            if (rows->dead != NULL && kith_deadset_has(rows->dead, *row + i)) continue;
            int64_t id = kith_exact_row_id(rows, *row + i);
            if (exact->request.allow != NULL && !exact->request.allow(exact->request.allow_context, id)) continue;
            worker->row_at[count] = at + i * stride;
            worker->ids[count] = id;
            if (exact->request.metric == KITH_COSINE)
                worker->inverse_norms[count] = kith_exact_row_inverse_norm(rows, *row + i, at + i * stride);
            count++;
        }
        *row += i;
    }
    return count;
}

/* One row as f32 words, normalised for cosine; f32 rows of the other metrics are used where they lie. */
static const uint32_t *float_words(const kith_exact *exact, const kith_exact_worker *worker, size_t row,
                                   uint32_t *scratch) {
    const unsigned char *at = worker->row_at[row];
    bool cosine = exact->request.metric == KITH_COSINE;
    if (exact->request.row_dtype == KITH_F32 && !cosine) return (const uint32_t *)(const void *)at;
    float *values = (float *)(void *)scratch;
    kith_exact_to_f32(at, exact->request.row_dtype, exact->dim, values);
    if (cosine)
        for (size_t i = 0; i < exact->dim; i++) values[i] *= worker->inverse_norms[row];
    return scratch;
}

/* Packs `count` rows of the float kind; returns the largest norm among what was packed. */
static double pack_float_rows(const kith_exact *exact, kith_exact_worker *worker, size_t count) {
    size_t lanes = exact->row_lanes, words = exact->words;
    const uint32_t *vectors[KITH_EXACT_BLOCK_ROWS];
    float *bias = worker->bias;
    double norm2_max = exact->request.metric == KITH_COSINE ? 1.0001 : 0;
    for (size_t first = 0; first < count; first += lanes) {
        size_t panel_rows = kith_min_size(lanes, count - first);
        for (size_t i = 0; i < panel_rows; i++) {
            size_t row = first + i;
            vectors[i] = float_words(exact, worker, row, worker->words + i * words);
            bias[row] = 0;
            if (exact->request.metric == KITH_COSINE) continue;
            float norm2 = kith_exact_norm2(worker->row_at[row], exact->request.row_dtype, exact->dim);
            if (exact->op == KITH_OP_L2SQ) bias[row] = -0.5f * norm2;
            if (norm2 > norm2_max) norm2_max = norm2;
        }
        exact->simd->pack(vectors, panel_rows, lanes, words, worker->panel + first * words);
    }
    return sqrt(norm2_max);
}

static void pack_int_rows(const kith_exact *exact, kith_exact_worker *worker, size_t count) {
    const kith_simd_table *simd = exact->simd;
    kith_dtype dtype = exact->request.row_dtype;
    size_t lanes = exact->row_lanes, words = exact->words;
    const uint32_t *vectors[KITH_EXACT_BLOCK_ROWS];
    int32_t *bias = worker->bias;
    for (size_t first = 0; first < count; first += lanes) {
        size_t panel_rows = kith_min_size(lanes, count - first);
        for (size_t i = 0; i < panel_rows; i++) {
            size_t row = first + i;
            const void *at = worker->row_at[row];
            vectors[i] = worker->words + i * words;
            bias[row] = simd->tile_i8.prepare_row(at, dtype, exact->dim, worker->words + i * words);
            if (exact->op != KITH_OP_L2SQ) continue;
            worker->norm2[row] = dtype == KITH_U8 ? simd->norm2_u8(at, exact->dim) : simd->norm2_i8(at, exact->dim);
            bias[row] -= worker->norm2[row] >> 1;
        }
        simd->pack(vectors, panel_rows, lanes, words, worker->panel + first * words);
    }
}

/* ---- Survivors of one query ------------------------------------------------------------------------------ */

/* The score below which no pair of the block can reach key_max; see the top of this file. The last terms of the
 * error stand for underflow and for rounding the threshold itself to f32. */
static float float_threshold(const kith_exact *exact, size_t query, int32_t key_max, double norm_max) {
    double value_max = (double)kith_exact_value_max(key_max);
    double u = 0x1p-24, n = (double)exact->dim, query_norm = exact->query_norm[query];
    bool l2 = exact->op == KITH_OP_L2SQ;
    double error = (1.2 * n + 64) * u * norm_max * (query_norm + (l2 ? norm_max : 0)) + 1e-37;
    double score = -value_max;
    if (l2)
        score = 0.5 * (query_norm * query_norm - value_max * (1 + (n / 16 + 24) * u));
    else if (exact->request.metric == KITH_COSINE)
        score *= query_norm;
    return (float)(score - error - 2 * u * fabs(score));
}

static kith_status offer_floats(const kith_exact *exact, kith_exact_worker *worker, size_t query, size_t lane,
                                size_t count, double norm_max, const kith_exact_sinks *sinks) {
    const float *scores = (const float *)worker->values + lane * KITH_EXACT_BLOCK_ROWS;
    int32_t key_max = kith_exact_key_max(sinks, query);
    float threshold = float_threshold(exact, query, key_max, norm_max);
    size_t survivors = exact->simd->filter_f32(scores, count, threshold, worker->positions);
    for (size_t s = 0; s < survivors; s++) {
        size_t row = worker->positions[s];
        if (kith_exact_key_max(sinks, query) != key_max) { /* the selection has shrunk: fewer are left to check */
            key_max = kith_exact_key_max(sinks, query);
            threshold = float_threshold(exact, query, key_max, norm_max);
        }
        if (scores[row] < threshold) continue;
        int32_t key = kith_exact_float_key(exact, query, worker->row_at[row], worker->inverse_norms[row]);
        if (key <= key_max) KITH_TRY(kith_exact_keep(sinks, query, key, worker->ids[row]));
    }
    return KITH_OK;
}

static int32_t clamp_to_i32(int64_t value) {
    return value < INT32_MIN ? INT32_MIN : value > INT32_MAX ? INT32_MAX : (int32_t)value;
}

/* Integer scores hold <q, x> - term(q), for l2 less floor(|x|^2 / 2); so |q - x|^2 = |q|^2 - 2 (score + term) +
 * (|x|^2 mod 2), and the threshold may leave the last term out: it lets at most a tie more through. */
static kith_status offer_ints(const kith_exact *exact, kith_exact_worker *worker, size_t query, size_t lane,
                              size_t count, const kith_exact_sinks *sinks) {
    const int32_t *scores = (const int32_t *)worker->values + lane * KITH_EXACT_BLOCK_ROWS;
    bool l2 = exact->op == KITH_OP_L2SQ;
    int64_t norm2 = exact->query_norm2_int[query], term = exact->query_terms[query];
    int64_t key_max = kith_exact_key_max(sinks, query), gap = norm2 - key_max;
    int64_t score_min = l2 ? (gap >> 1) + (gap & 1) - term : -key_max - term;
    size_t survivors = exact->simd->filter_i32(scores, count, clamp_to_i32(score_min), worker->positions);
    for (size_t s = 0; s < survivors; s++) {
        size_t row = worker->positions[s];
        int64_t dot = scores[row] + term;
        int64_t key = l2 ? norm2 - 2 * dot + (worker->norm2[row] & 1) : -dot;
        if (key <= kith_exact_key_max(sinks, query))
            KITH_TRY(kith_exact_keep(sinks, query, (int32_t)key, worker->ids[row]));
    }
    return KITH_OK;
}

/* ---- The task -------------------------------------------------------------------------------------------- */

/* Packs up to query_lanes float queries that are named one by one. */
static const uint32_t *pack_members(const kith_exact *exact, kith_exact_worker *worker, const uint32_t *members,
                                    size_t count) {
    const uint32_t *vectors[KITH_EXACT_LANES_MAX];
    for (size_t i = 0; i < count; i++)
        vectors[i] = (const uint32_t *)(const void *)(exact->query_rows + members[i] * exact->query_stride);
    exact->simd->pack(vectors, count, exact->query_lanes, exact->words, worker->members);
    return worker->members;
}

static void run_tile(const kith_exact *exact, kith_exact_worker *worker, const uint32_t *queries, size_t panels) {
    const kith_simd_table *simd = exact->simd;
    if (is_int(exact))
        simd->tile_i8.run(queries, worker->panel, exact->words, panels, worker->bias, worker->values,
                          KITH_EXACT_BLOCK_ROWS);
    else
        simd->tile_f32.run((const float *)(const void *)queries, (const float *)(const void *)worker->panel,
                           exact->words, panels, worker->bias, worker->values, KITH_EXACT_BLOCK_ROWS);
}

static kith_status scan_block(const kith_exact *exact, kith_exact_worker *worker, const uint32_t *members,
                              size_t query_first, size_t query_last, size_t count, const kith_exact_sinks *sinks) {
    size_t lanes = exact->query_lanes, panels = (count + exact->row_lanes - 1) / exact->row_lanes;
    double norm_max = 0;
    if (is_int(exact))
        pack_int_rows(exact, worker, count);
    else
        norm_max = pack_float_rows(exact, worker, count);
    for (size_t pad = count; pad < panels * exact->row_lanes; pad++) ((uint32_t *)worker->bias)[pad] = 0;
    for (size_t first = query_first; first < query_last; first += lanes) {
        size_t present = kith_min_size(lanes, query_last - first);
        run_tile(exact, worker,
                 members != NULL ? pack_members(exact, worker, members + first, present)
                                 : exact->packed_queries + first * exact->words,
                 panels);
        for (size_t lane = 0; lane < present; lane++) {
            size_t query = members != NULL ? members[first + lane] : first + lane;
            KITH_TRY(is_int(exact) ? offer_ints(exact, worker, query, lane, count, sinks)
                                   : offer_floats(exact, worker, query, lane, count, norm_max, sinks));
        }
    }
    return KITH_OK;
}

kith_status kith_exact_tiles(const kith_exact *exact, const kith_rows *rows, kith_exact_worker *worker,
                             const uint32_t *members, size_t query_first, size_t query_last, size_t row_first,
                             size_t row_last, const kith_exact_sinks *sinks) {
    for (size_t row = row_first; row < row_last;) {
        size_t before = row;
        size_t count = gather_rows(exact, rows, worker, &row, row_last);
        if (count != 0) KITH_TRY(scan_block(exact, worker, members, query_first, query_last, count, sinks));
        if (exact->request.meter != NULL && members == NULL)
            KITH_TRY(kith_meter_add(exact->request.meter, (uint64_t)(row - before) * (query_last - query_first)));
    }
    return KITH_OK;
}

kith_status kith_exact_tiles_gathered(const kith_exact *exact, const void *const *rows, const int64_t *ids,
                                      size_t count, kith_exact_worker *worker, const uint32_t *members,
                                      size_t member_count, const kith_exact_sinks *sinks) {
    kith_dtype dtype = exact->request.row_dtype;
    for (size_t first = 0; first < count; first += exact->block_rows) {
        size_t here = kith_min_size(exact->block_rows, count - first);
        for (size_t i = 0; i < here; i++) {
            worker->row_at[i] = rows[first + i];
            worker->ids[i] = ids[first + i];
            if (exact->request.metric == KITH_COSINE)
                worker->inverse_norms[i] = kith_exact_inverse_norm(rows[first + i], dtype, exact->dim);
        }
        KITH_TRY(scan_block(exact, worker, members, 0, member_count, here, sinks));
    }
    return KITH_OK;
}
