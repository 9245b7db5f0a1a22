/* SPDX-License-Identifier: Apache-2.0
 *
 * elementary.c: the transforms that treat each element or each row by itself: centring, unit length, padding.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "linalg/moments.h"
#include "linalg/transform_inside.h"
#include "simd/simd.h"

static kith_status check_same(const kith_transform *t) {
    if (t->dim_in == t->dim_out) return KITH_OK;
    return kith_error(KITH_ERR_ARGUMENT, "%s: from %zu to %zu dimensions", t->vtable->name, t->dim_in, t->dim_out);
}

static size_t no_scratch(const kith_transform *t, size_t count) {
    (void)t;
    (void)count;
    return 0;
}

static kith_status train_nothing(const kith_transform *t, const kith_view *rows, const kith_job *job,
                                 kith_transform_arrays *arrays) {
    (void)t;
    (void)rows;
    (void)job;
    (void)arrays;
    return KITH_OK;
}

/* ---- Centring ------------------------------------------------------------------------------------------------ */

static void centre_describe(const kith_transform *t, char *text, size_t bytes) {
    (void)t;
    (void)snprintf(text, bytes, "Centre");
}

static unsigned centre_keeps(const kith_transform *t) {
    (void)t;
    return KITH_KEEPS_L2;
}

static kith_status centre_train(const kith_transform *t, const kith_view *rows, const kith_job *job,
                                kith_transform_arrays *arrays) {
    kith_sample sample = kith_sample_of(rows, 0, job->seed);
    double *mean = NULL, spread;
    kith_status status;
    KITH_GO(kith_alloc(t->dim_in, sizeof *mean, &mean));
    KITH_GO(kith_alloc(t->dim_in, sizeof *arrays->mean, &arrays->mean));
    KITH_GO(kith_sample_mean(&sample, job->threads, mean, &spread));
    for (size_t j = 0; j < t->dim_in; j++) arrays->mean[j] = (float)mean[j];
done:
    kith_free(mean);
    return status;
}

static void centre_apply(const kith_transform *t, const float *in, size_t count, float *out, float *scratch) {
    (void)scratch;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < t->dim_in; j++) out[i * t->dim_in + j] = in[i * t->dim_in + j] - t->arrays.mean[j];
}

static void centre_invert(const kith_transform *t, const float *in, size_t count, float *out, float *scratch) {
    (void)scratch;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < t->dim_in; j++) out[i * t->dim_in + j] = in[i * t->dim_in + j] + t->arrays.mean[j];
}

const kith_transform_vtable kith_transform_centre = {
    .kind = KITH_TRANSFORM_CENTRE,
    .name = "centre",
    .needs_rows = true,
    .arrays = 1 << KITH_ARRAY_MEAN,
    .check = check_same,
    .describe = centre_describe,
    .keeps = centre_keeps,
    .train = centre_train,
    .scratch = no_scratch,
    .apply = centre_apply,
    .invert = centre_invert,
};

kith_status kith_centre_create(size_t dim, kith_transform **out) {
    kith_transform filled = {.vtable = &kith_transform_centre, .dim_in = dim, .dim_out = dim};
    return kith_transform_create(&filled, out);
}

/* ---- Unit length --------------------------------------------------------------------------------------------- */

static void normalise_describe(const kith_transform *t, char *text, size_t bytes) {
    (void)t;
    (void)snprintf(text, bytes, "L2norm");
}

static unsigned keeps_nothing(const kith_transform *t) {
    (void)t;
    return 0;
}

static void normalise_apply(const kith_transform *t, const float *in, size_t count, float *out, float *scratch) {
    (void)scratch;
    for (size_t i = 0; i < count; i++, in += t->dim_in, out += t->dim_in) {
        float norm2 = kith_simd()->norm2_f32(in, t->dim_in), length = sqrtf(norm2);
        for (size_t j = 0; j < t->dim_in; j++) out[j] = norm2 < FLT_MIN ? 0 : in[j] / length;
    }
}

const kith_transform_vtable kith_transform_normalise = {
    .kind = KITH_TRANSFORM_NORMALISE,
    .name = "normalise",
    .check = check_same,
    .describe = normalise_describe,
    .keeps = keeps_nothing,
    .train = train_nothing,
    .scratch = no_scratch,
    .apply = normalise_apply,
};

kith_status kith_normalise_create(size_t dim, kith_transform **out) {
    kith_transform filled = {.vtable = &kith_transform_normalise, .dim_in = dim, .dim_out = dim};
    return kith_transform_create(&filled, out);
}

/* ---- Padding ------------------------------------------------------------------------------------------------- */

static kith_status pad_check(const kith_transform *t) {
    (void)t;
    return KITH_OK;
}

static void pad_describe(const kith_transform *t, char *text, size_t bytes) {
    (void)snprintf(text, bytes, "Pad%zu", t->dim_out);
}

static unsigned pad_keeps(const kith_transform *t) {
    return t->dim_out >= t->dim_in ? KITH_KEEPS_L2 | KITH_KEEPS_IP : 0;
}

static void copy_padded(const float *in, size_t dim_in, size_t count, float *out, size_t dim_out) {
    size_t common = kith_min_size(dim_in, dim_out);
    for (size_t i = 0; i < count; i++) {
        memcpy(out + i * dim_out, in + i * dim_in, common * sizeof *out);
        memset(out + i * dim_out + common, 0, (dim_out - common) * sizeof *out);
    }
}

static void pad_apply(const kith_transform *t, const float *in, size_t count, float *out, float *scratch) {
    (void)scratch;
    copy_padded(in, t->dim_in, count, out, t->dim_out);
}

static void pad_invert(const kith_transform *t, const float *in, size_t count, float *out, float *scratch) {
    (void)scratch;
    copy_padded(in, t->dim_out, count, out, t->dim_in);
}

const kith_transform_vtable kith_transform_pad = {
    .kind = KITH_TRANSFORM_PAD,
    .name = "pad",
    .check = pad_check,
    .describe = pad_describe,
    .keeps = pad_keeps,
    .train = train_nothing,
    .scratch = no_scratch,
    .apply = pad_apply,
    .invert = pad_invert,
};

kith_status kith_pad_create(size_t dim_in, size_t dim_out, kith_transform **out) {
    kith_transform filled = {.vtable = &kith_transform_pad, .dim_in = dim_in, .dim_out = dim_out};
    return kith_transform_create(&filled, out);
}
