/* SPDX-License-Identifier: Apache-2.0
 *
 * rotation.c: random rotations, by a dense matrix and by Hadamard transforms.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/random.h"
#include "linalg/decompose.h"
#include "linalg/transform_inside.h"
#include "simd/simd.h"

enum { STREAM_DENSE = 0x726f7464, STREAM_SIGNS = 0x7369676e };

/* ---- Dense --------------------------------------------------------------------------------------------------- */

static kith_status dense_check(const kith_transform *t) {
    (void)t;
    return KITH_OK;
}

static void dense_describe(const kith_transform *t, char *text, size_t bytes) {
    (void)snprintf(text, bytes, "RR%zu", t->dim_out);
}

static unsigned dense_keeps(const kith_transform *t) {
    return t->dim_out >= t->dim_in ? KITH_KEEPS_L2 | KITH_KEEPS_IP : 0;
}

static kith_status dense_train(const kith_transform *t, const kith_view *rows, const kith_job *job,
                               kith_transform_arrays *arrays) {
    size_t longer = kith_max_size(t->dim_in, t->dim_out), shorter = kith_min_size(t->dim_in, t->dim_out), bytes;
    (void)rows;
    if (kith_mul_overflows(longer * 2 * sizeof(double), kith_matrix_stride(shorter), &bytes)) bytes = SIZE_MAX;
    KITH_TRY(kith_budget_check("rotation", bytes, job));
    KITH_TRY(kith_alloc(t->dim_out, t->dim_in * sizeof *arrays->matrix, &arrays->matrix));
    /* Orthonormal columns of the longer side; as rows when the output is the shorter one. */
    return kith_random_orthogonal(longer, shorter, job->seed, STREAM_DENSE, job->threads, t->dim_out < t->dim_in,
                                  arrays->matrix);
}

const kith_transform_vtable kith_transform_rotation = {
    .kind = KITH_TRANSFORM_ROTATION,
    .name = "rotation",
    .arrays = 1 << KITH_ARRAY_MATRIX,
    .check = dense_check,
    .describe = dense_describe,
    .keeps = dense_keeps,
    .train = dense_train,
    .scratch = kith_affine_scratch,
    .apply = kith_affine_apply,
    .invert = kith_affine_invert,
};

kith_status kith_rotation_create(size_t dim_in, size_t dim_out, kith_transform **out) {
    kith_transform filled = {.vtable = &kith_transform_rotation, .dim_in = dim_in, .dim_out = dim_out};
    return kith_transform_create(&filled, out);
}

/* ---- Fast ---------------------------------------------------------------------------------------------------- */

static kith_status fast_check(const kith_transform *t) {
    if (t->dim_out == kith_round_up(t->dim_in, KITH_FAST_UNIT)) return KITH_OK;
    return kith_error(KITH_ERR_ARGUMENT, "fast rotation: from %zu to %zu dimensions, must be to %zu", t->dim_in,
                      t->dim_out, kith_round_up(t->dim_in, KITH_FAST_UNIT));
}

static void fast_describe(const kith_transform *t, char *text, size_t bytes) {
    (void)snprintf(text, bytes, "HR%zu", t->dim_out);
}

static unsigned fast_keeps(const kith_transform *t) {
    (void)t;
    return KITH_KEEPS_L2 | KITH_KEEPS_IP;
}

static kith_status fast_train(const kith_transform *t, const kith_view *rows, const kith_job *job,
                              kith_transform_arrays *arrays) {
    (void)rows;
    size_t words = KITH_FAST_ROUNDS * t->dim_out / 32;
    KITH_TRY(kith_alloc(words, sizeof *arrays->signs, &arrays->signs));
    for (size_t w = 0; w < words; w++) arrays->signs[w] = (uint32_t)kith_random_u64(job->seed, STREAM_SIGNS, w);
    return KITH_OK;
}

/* A round of the rotation: where its Hadamard transform stands, and its signs. */
typedef struct fast_round {
    size_t dim, length, first;
    const uint32_t *signs;
    float scale; /* 1 / sqrt(length) */
} fast_round;

static fast_round round_of(const kith_transform *t, size_t number) {
    fast_round one = {.dim = t->dim_out, .length = KITH_FAST_UNIT};
    while (2 * one.length <= one.dim) one.length *= 2;
    one.first = number % 2 == 0 ? 0 : one.dim - one.length;
    one.signs = t->arrays.signs + number * one.dim / 32;
    one.scale = 1 / sqrtf((float)one.length);
    return one;
}

/* The factor of the Hadamard transform goes along with the signs. */
static void flip_round(const kith_matrix_kernels *kernels, const fast_round *one, float *row) {
    size_t rest = one->first == 0 ? one->length : 0;
    kernels->flip(row + one->first, one->signs + one->first / 32, one->scale, one->length);
    kernels->flip(row + rest, one->signs + rest / 32, 1, one->dim - one->length);
}

/* 1 / sqrt(2), of Kac's butterfly. */
static const float half_root = 0.70710678f;

static void fast_apply(const kith_transform *t, const float *in, size_t count, float *out, float *scratch) {
    const kith_matrix_kernels *kernels = &kith_simd()->matrix;
    size_t dim_in = t->dim_in, dim = t->dim_out;
    (void)scratch;
    for (size_t i = 0; i < count; i++) {
        float *row = out + i * dim;
        memcpy(row, in + i * dim_in, dim_in * sizeof *row);
        memset(row + dim_in, 0, (dim - dim_in) * sizeof *row);
        for (size_t number = 0; number < KITH_FAST_ROUNDS; number++) {
            fast_round one = round_of(t, number);
            flip_round(kernels, &one, row);
            kernels->hadamard(row + one.first, one.length);
            if (one.length < dim) kernels->butterfly(row, dim / 2, half_root);
        }
    }
}

/* Each of the steps is its own inverse. */
static void fast_invert(const kith_transform *t, const float *in, size_t count, float *out, float *scratch) {
    const kith_matrix_kernels *kernels = &kith_simd()->matrix;
    size_t dim = t->dim_out;
    for (size_t i = 0; i < count; i++) {
        memcpy(scratch, in + i * dim, dim * sizeof *scratch);
        for (size_t number = KITH_FAST_ROUNDS; number-- > 0;) {
            fast_round one = round_of(t, number);
            if (one.length < dim) kernels->butterfly(scratch, dim / 2, half_root);
            kernels->hadamard(scratch + one.first, one.length);
            flip_round(kernels, &one, scratch);
        }
        memcpy(out + i * t->dim_in, scratch, t->dim_in * sizeof *out);
    }
}

static size_t fast_scratch(const kith_transform *t, size_t count) {
    (void)count;
    return t->dim_out;
}

const kith_transform_vtable kith_transform_fast_rotation = {
    .kind = KITH_TRANSFORM_FAST_ROTATION,
    .name = "fast rotation",
    .arrays = 1 << KITH_ARRAY_SIGNS,
    .check = fast_check,
    .describe = fast_describe,
    .keeps = fast_keeps,
    .train = fast_train,
    .scratch = fast_scratch,
    .apply = fast_apply,
    .invert = fast_invert,
};

kith_status kith_fast_rotation_create(size_t dim_in, kith_transform **out) {
    size_t dim_out = dim_in <= KITH_DIM_MAX ? kith_round_up(dim_in, KITH_FAST_UNIT) : dim_in;
    kith_transform filled = {.vtable = &kith_transform_fast_rotation, .dim_in = dim_in, .dim_out = dim_out};
    return kith_transform_create(&filled, out);
}
