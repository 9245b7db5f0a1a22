/* SPDX-License-Identifier: Apache-2.0
 *
 * transform.c: what all transforms share: making, training, applying, copying.
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "exact/check.h"
#include "exact/exact.h"
#include "linalg/transform_inside.h"

/* ---- Making and freeing -------------------------------------------------------------------------------------- */

void *kith_transform_array(const kith_transform_arrays *arrays, int which) {
    switch (which) {
        case KITH_ARRAY_MEAN: return arrays->mean;
        case KITH_ARRAY_MATRIX: return arrays->matrix;
        case KITH_ARRAY_BACK: return arrays->back;
        case KITH_ARRAY_EIGENVALUES: return arrays->eigenvalues;
        case KITH_ARRAY_SIGNS: return arrays->signs;
        default: return arrays->panels;
    }
}

void kith_transform_array_set(kith_transform_arrays *arrays, int which, void *array) {
    switch (which) {
        case KITH_ARRAY_MEAN: arrays->mean = array; break;
        case KITH_ARRAY_MATRIX: arrays->matrix = array; break;
        case KITH_ARRAY_BACK: arrays->back = array; break;
        case KITH_ARRAY_EIGENVALUES: arrays->eigenvalues = array; break;
        case KITH_ARRAY_SIGNS: arrays->signs = array; break;
        default: arrays->panels = array; break;
    }
}

size_t kith_transform_array_count(const kith_transform *t, int which) {
    switch (which) {
        case KITH_ARRAY_MEAN:
        case KITH_ARRAY_EIGENVALUES: return t->dim_in;
        case KITH_ARRAY_SIGNS: return KITH_FAST_ROUNDS * t->dim_out / 32;
        default: return t->dim_in * t->dim_out; /* dimensions are at most KITH_DIM_MAX */
    }
}

void kith_transform_arrays_free(kith_transform_arrays *arrays) {
    kith_free(arrays->mean);
    kith_free(arrays->matrix);
    kith_free(arrays->back);
    kith_free(arrays->eigenvalues);
    kith_free(arrays->signs);
    kith_free(arrays->panels);
    *arrays = (kith_transform_arrays){0};
}

kith_status kith_transform_create(const kith_transform *filled, kith_transform **out) {
    const char *name = filled->vtable->name;
    *out = NULL;
    if (filled->dim_in < 1 || filled->dim_in > KITH_DIM_MAX || filled->dim_out < 1 ||
        filled->dim_out > KITH_DIM_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "%s: from %zu to %zu dimensions, must be 1..%d", name, filled->dim_in,
                          filled->dim_out, KITH_DIM_MAX);
    KITH_TRY(filled->vtable->check(filled));
    kith_transform *made;
    KITH_TRY(kith_alloc(1, sizeof *made, &made));
    *made = *filled;
    *out = made;
    return KITH_OK;
}

void kith_transform_free(kith_transform *transform) {
    if (transform == NULL) return;
    for (size_t m = 0; m < transform->member_count; m++) kith_transform_free(transform->members[m]);
    kith_transform_arrays_free(&transform->arrays);
    kith_free(transform);
}

static kith_status copy_arrays(const kith_transform *from, kith_transform *to) {
    for (int which = 0; which < KITH_ARRAY_SAVED; which++) {
        const void *source = kith_transform_array(&from->arrays, which);
        if (source == NULL) continue;
        size_t count = kith_transform_array_count(from, which);
        void *target;
        KITH_TRY(kith_alloc(count, sizeof(float), &target));
        memcpy(target, source, count * sizeof(float));
        kith_transform_array_set(&to->arrays, which, target);
    }
    if (to->arrays.matrix == NULL) return KITH_OK;
    return kith_affine_pack(to->dim_in, to->dim_out, to->arrays.matrix, &to->arrays.panels);
}

kith_status kith_transform_clone(const kith_transform *transform, kith_transform **out) {
    kith_transform filled = *transform, *copy;
    *out = NULL;
    filled.arrays = (kith_transform_arrays){0};
    filled.member_count = 0;
    KITH_TRY(kith_transform_create(&filled, &copy));
    kith_status status;
    KITH_GO(copy_arrays(transform, copy));
    for (size_t m = 0; m < transform->member_count; m++) {
        KITH_GO(kith_transform_clone(transform->members[m], &copy->members[m]));
        copy->member_count++;
    }
done:
    if (status == KITH_OK)
        *out = copy;
    else
        kith_transform_free(copy);
    return status;
}

/* ---- What it is ---------------------------------------------------------------------------------------------- */

size_t kith_transform_dim_in(const kith_transform *transform) { return transform->dim_in; }
size_t kith_transform_dim_out(const kith_transform *transform) { return transform->dim_out; }
bool kith_transform_is_trained(const kith_transform *transform) { return transform->is_trained; }
unsigned kith_transform_keeps(const kith_transform *transform) { return transform->vtable->keeps(transform); }
const float *kith_transform_eigenvalues(const kith_transform *transform) { return transform->arrays.eigenvalues; }

bool kith_transform_needs_rows(const kith_transform *transform) {
    bool needs = transform->vtable->needs_rows;
    for (size_t m = 0; m < transform->member_count; m++)
        needs = needs || kith_transform_needs_rows(transform->members[m]);
    return needs;
}

void kith_transform_describe(const kith_transform *transform, char *text, size_t bytes) {
    if (bytes == 0) return;
    *text = '\0';
    transform->vtable->describe(transform, text, bytes);
}

bool kith_transform_matrix(const kith_transform *transform, const float **matrix, const float **mean) {
    const kith_transform *linear = transform;
    *matrix = *mean = NULL;
    if (!transform->is_trained) return false;
    if (transform->member_count == 2 && transform->members[0]->vtable == &kith_transform_centre) {
        *mean = transform->members[0]->arrays.mean;
        linear = transform->members[1];
        if (linear->arrays.mean != NULL) return false;
    } else {
        *mean = transform->arrays.mean;
    }
    *matrix = linear->arrays.matrix;
    return *matrix != NULL;
}

uint64_t kith_transform_bytes(const kith_transform *transform) {
    uint64_t bytes = sizeof *transform;
    for (int which = 0; which < KITH_ARRAY_COUNT; which++)
        if (kith_transform_array(&transform->arrays, which) != NULL)
            bytes += kith_transform_array_count(transform, which) * sizeof(float);
    for (size_t m = 0; m < transform->member_count; m++) bytes += kith_transform_bytes(transform->members[m]);
    return bytes;
}

bool kith_transform_is_same(const kith_transform *a, const kith_transform *b) {
    if (a->vtable != b->vtable || a->dim_in != b->dim_in || a->dim_out != b->dim_out ||
        a->is_trained != b->is_trained || a->member_count != b->member_count)
        return false;
    for (int which = 0; which < KITH_ARRAY_SAVED; which++) {
        const void *x = kith_transform_array(&a->arrays, which), *y = kith_transform_array(&b->arrays, which);
        if ((x == NULL) != (y == NULL)) return false;
        if (x != NULL && memcmp(x, y, kith_transform_array_count(a, which) * sizeof(float)) != 0) return false;
    }
    for (size_t m = 0; m < a->member_count; m++)
        if (!kith_transform_is_same(a->members[m], b->members[m])) return false;
    return true;
}

/* ---- Training ------------------------------------------------------------------------------------------------ */

kith_status kith_budget_check(const char *what, size_t bytes, const kith_job *job) {
    if (bytes == SIZE_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "%s: the memory needed does not fit into 64 bits", what);
    if (job->memory_bytes_max == 0 || bytes <= job->memory_bytes_max) return KITH_OK;
    return kith_error(KITH_ERR_BUDGET, "%s: training needs %zu bytes, the budget is %llu", what, bytes,
                      (unsigned long long)job->memory_bytes_max);
}

static kith_status check_rows(const kith_transform *transform, const kith_view *rows, size_t threads) {
    const char *name = transform->vtable->name;
    if (rows == NULL || rows->count == 0)
        return kith_error(KITH_ERR_EMPTY, "%s: there are no rows to train on", name);
    KITH_TRY(kith_check_view_dim(name, rows, transform->dim_in));
    return kith_check_vectors(name, rows, 0, KITH_L2, threads);
}

kith_status kith_transform_train(kith_transform *transform, const kith_view *rows, const kith_job *job) {
    kith_job own;
    KITH_TRY(kith_job_read(&own, job));
    if (kith_transform_needs_rows(transform)) KITH_TRY(check_rows(transform, rows, own.threads));
    if (transform->vtable->kind == KITH_TRANSFORM_CHAIN) return kith_chain_train(transform, rows, &own);
    kith_transform_arrays arrays = {0};
    kith_status status;
    KITH_GO(transform->vtable->train(transform, rows, &own, &arrays));
    if (arrays.matrix != NULL)
        KITH_GO(kith_affine_pack(transform->dim_in, transform->dim_out, arrays.matrix, &arrays.panels));
    kith_transform_arrays_free(&transform->arrays);
    transform->arrays = arrays;
    transform->is_trained = true;
    return KITH_OK;
done:
    kith_transform_arrays_free(&arrays);
    return status;
}

/* ---- Applying ------------------------------------------------------------------------------------------------ */

typedef void (*block_fn)(const kith_transform *, const float *, size_t, float *, float *);

typedef struct apply_loop {
    const kith_transform *transform;
    block_fn fn;
    const kith_view *rows;
    size_t stride, out_dim;
    size_t block;   /* rows of a block */
    float *scratch; /* for each worker: the block's rows as f32, then what fn wants */
    size_t scratch_floats;
    float *out;
} apply_loop;

/* The rows as packed f32: in place when they are that already. */
static const float *take_rows(const apply_loop *loop, size_t first, size_t count, float *scratch) {
    const kith_view *rows = loop->rows;
    const char *data = (const char *)rows->data + first * loop->stride;
    if (rows->dtype == KITH_F32 && loop->stride == rows->dim * sizeof(float))
        return (const float *)(const void *)data;
    for (size_t i = 0; i < count; i++)
        kith_exact_to_f32(data + i * loop->stride, rows->dtype, rows->dim, scratch + i * rows->dim);
    return scratch;
}

static kith_status apply_block(void *context, size_t item, size_t worker) {
    const apply_loop *loop = context;
    size_t first = item * loop->block, count = kith_min_size(loop->block, loop->rows->count - first);
    float *scratch = loop->scratch + worker * loop->scratch_floats;
    const float *in = take_rows(loop, first, count, scratch);
    loop->fn(loop->transform, in, count, loop->out + first * loop->out_dim,
             scratch + kith_round_up(loop->block * loop->rows->dim, KITH_ALIGNMENT / sizeof *scratch));
    return KITH_OK;
}

static kith_status run(const kith_transform *transform, block_fn fn, const kith_view *rows, size_t out_dim,
                       size_t threads, kith_arena *arena, float *out) {
    size_t block = kith_min_size(rows->count, KITH_TRANSFORM_BLOCK);
    size_t floats = kith_round_up(block * rows->dim, KITH_ALIGNMENT / sizeof(float)) +
                    transform->vtable->scratch(transform, block);
    apply_loop loop = {.transform = transform,
                       .fn = fn,
                       .rows = rows,
                       .stride = kith_view_stride(rows),
                       .out_dim = out_dim,
                       .block = block,
                       .scratch_floats = kith_round_up(floats, KITH_ALIGNMENT / sizeof(float)),
                       .out = out};
    size_t blocks = (rows->count + block - 1) / block;
    threads = kith_min_size(threads, blocks);
    KITH_TRY(kith_arena_take(arena, threads, loop.scratch_floats * sizeof(float), &loop.scratch));
    return kith_parallel_for(threads, blocks, apply_block, &loop);
}

kith_status kith_transform_apply(const kith_transform *transform, const kith_view *rows, size_t threads,
                                 kith_arena *arena, float *out) {
    if (!transform->is_trained) return kith_error(KITH_ERR_NOT_TRAINED, "%s: not trained", transform->vtable->name);
    KITH_TRY(kith_check_view_dim(transform->vtable->name, rows, transform->dim_in));
    return run(transform, transform->vtable->apply, rows, transform->dim_out, threads, arena, out);
}

static const char *not_invertible(const kith_transform *transform) {
    for (size_t m = 0; m < transform->member_count; m++) {
        const char *name = not_invertible(transform->members[m]);
        if (name != NULL) return name;
    }
    return transform->vtable->invert == NULL ? transform->vtable->name : NULL;
}

kith_status kith_transform_invert(const kith_transform *transform, const kith_view *rows, size_t threads,
                                  kith_arena *arena, float *out) {
    const char *name = transform->vtable->name;
    if (!transform->is_trained) return kith_error(KITH_ERR_NOT_TRAINED, "%s: not trained", name);
    if (not_invertible(transform) != NULL)
        return kith_error(KITH_ERR_UNSUPPORTED, "%s: %s has no way back", name, not_invertible(transform));
    KITH_TRY(kith_check_view_dim(name, rows, transform->dim_out));
    if (rows->dtype != KITH_F32)
        return kith_error(KITH_ERR_TYPE, "%s: the way back takes f32, not %s", name, kith_dtype_name(rows->dtype));
    return run(transform, transform->vtable->invert, rows, transform->dim_in, threads, arena, out);
}

size_t kith_transform_scratch(const kith_transform *transform) {
    return kith_round_up(transform->dim_in, KITH_ALIGNMENT / sizeof(float)) +
           transform->vtable->scratch(transform, 1);
}

void kith_transform_apply_one(const kith_transform *transform, const void *vector, kith_dtype dtype, float *out,
                              float *scratch) {
    kith_exact_to_f32(vector, dtype, transform->dim_in, scratch);
    transform->vtable->apply(transform, scratch, 1, out,
                             scratch + kith_round_up(transform->dim_in, KITH_ALIGNMENT / sizeof(float)));
}
