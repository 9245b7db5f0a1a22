/* SPDX-License-Identifier: Apache-2.0 */
#include "code/code.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/parallel.h"
#include "exact/check.h"
#include "exact/exact.h"
#include "simd/simd.h"

void kith_code_free(kith_code *code) {
    if (code != NULL) code->vtable->release(code);
}

float kith_code_base(const kith_code *code, const float *query, const float *centroid) {
    if (code->is_exact) return 0;
    const kith_simd_table *simd = kith_simd();
    if (code->metric == KITH_L2)
        return centroid == NULL
                   ? simd->norm2_f32(query, code->projected_dim)
                   : simd->floats[KITH_OP_L2SQ][KITH_PAIR_F32_F32].one(query, centroid, code->projected_dim);
    return centroid == NULL
               ? 0
               : -simd->floats[KITH_OP_IP][KITH_PAIR_F32_F32].one(query, centroid, code->projected_dim);
}

kith_status kith_code_train(kith_code *code, const kith_code_rows *sample, const kith_job *job) {
    if (code->vtable->train == NULL) return KITH_OK;
    if (sample->count == 0) return kith_error(KITH_ERR_EMPTY, "train %s: no vectors", code->name);
    kith_job own;
    KITH_TRY(kith_job_read(&own, job));
    const kith_view view = {.data = sample->rows, .dtype = KITH_F32, .count = sample->count, .dim = code->dim};
    KITH_TRY(kith_check_vectors("train", &view, sample->first_row, KITH_L2, own.threads));
    return code->vtable->train(code, sample, &own);
}

kith_status kith_code_project(const kith_code *code, const float *vectors, size_t count, size_t threads,
                              kith_arena *arena, float *out) {
    if (code->vtable->project != NULL) return code->vtable->project(code, vectors, count, threads, arena, out);
    if (count > 0) memcpy(out, vectors, count * code->dim * sizeof *out);
    return KITH_OK;
}

kith_status kith_code_project_plainly(const kith_code *code, const float *queries, size_t count, bool to_unit,
                                      size_t threads, kith_arena *arena, float *out) {
    const kith_view view = {.data = queries, .dtype = KITH_F32, .count = count, .dim = code->dim};
    if (to_unit && count > 0) KITH_TRY(kith_exact_queries(&view, true, threads, arena, &queries));
    return kith_code_project(code, queries, count, threads, arena, out);
}

static kith_status project_queries(const kith_code *code, const float *queries, size_t count, bool to_unit,
                                   size_t threads, kith_arena *arena, float *out) {
    if (code->vtable->project_queries != NULL)
        return code->vtable->project_queries(code, queries, count, to_unit, threads, arena, out);
    return kith_code_project_plainly(code, queries, count, to_unit, threads, arena, out);
}

kith_status kith_code_project_queries(const kith_code *code, const float *queries, size_t count, size_t threads,
                                      kith_arena *arena, float *out) {
    return project_queries(code, queries, count, false, threads, arena, out);
}

kith_status kith_code_project_to_unit(const kith_code *code, const float *queries, size_t count, size_t threads,
                                      kith_arena *arena, float *out) {
    return project_queries(code, queries, count, true, threads, arena, out);
}

kith_status kith_code_zero_query(const kith_code *code, void *out) {
    float *zeros = NULL;
    void *query = NULL;
    kith_status status;
    KITH_GO(kith_alloc_zeroed(code->projected_dim, sizeof *zeros, &zeros));
    KITH_GO(kith_alloc(1, code->query_bytes, &query));
    code->vtable->prepare(code, zeros, query);
done:
    kith_free(zeros);
    memcpy(out, &query, sizeof query);
    return status;
}

bool kith_code_is_finite(const kith_code *code, const void *zero_query, const unsigned char *row) {
    return isfinite(kith_code_one(code, zero_query, 0, row));
}

void kith_code_rows_estimate(const kith_code *code, const void *query, float base, const unsigned char **rows,
                             size_t count, float *out) {
    for (; count % 4 != 0; count++) rows[count] = rows[0];
    code->vtable->rows(code, query, base, rows, count, out);
}

enum { ROWS_PER_ITEM = 256 };

typedef struct encode_loop {
    const kith_code *code;
    const kith_code_rows *rows;
    unsigned char *codes;
} encode_loop;

static kith_status encode_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const encode_loop *loop = context;
    const kith_code_rows *all = loop->rows;
    size_t first = item * ROWS_PER_ITEM;
    kith_code_rows part = {
        .rows = all->rows + first * loop->code->projected_dim,
        .count = kith_min_size(ROWS_PER_ITEM, all->count - first),
        .centroids = all->centroids,
        .assigned = all->assigned != NULL ? all->assigned + first : NULL,
        .first_row = all->first_row + first,
    };
    return loop->code->vtable->encode(loop->code, &part, loop->codes + first * loop->code->code_bytes);
}

kith_status kith_code_encode(const kith_code *code, const kith_code_rows *rows, size_t threads,
                             unsigned char *codes) {
    if (rows->count == 0) return KITH_OK;
    encode_loop loop = {code, rows, codes};
    return kith_parallel_for(threads, (rows->count - 1) / ROWS_PER_ITEM + 1, encode_item, &loop);
}
