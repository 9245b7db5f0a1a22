/* SPDX-License-Identifier: Apache-2.0
 *
 * pca.c: principal components: the eigenvectors of the covariance matrix, with the largest eigenvalues.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "linalg/moments.h"
#include "linalg/transform_inside.h"
#include "simd/simd.h"

enum { ROWS_PER_DIMENSION = 256, ROWS_MIN = 65536, STREAM_ROTATION = 0x70636172 };
/* A variance below this part of the largest one is rounding error of the products in f32. */
static const double nothing = 1e-7;

void kith_pca_options_init(kith_pca_options *options) { *options = (kith_pca_options){.is_centred = true}; }

/* ---- Components ---------------------------------------------------------------------------------------------- */

void kith_components_free(kith_components *components) {
    kith_free(components->mean);
    kith_free(components->values);
    kith_free(components->vectors);
    *components = (kith_components){0};
}

size_t kith_components_bytes(size_t dim) {
    size_t matrices;
    if (kith_mul_overflows(dim * 3 * sizeof(double), kith_matrix_stride(dim), &matrices)) return SIZE_MAX;
    return matrices + kith_moments_bytes(dim, dim);
}

/* The covariance of the sample around `shift` (NULL: around 0). */
static kith_status find_covariance(const kith_sample *sample, const float *shift, double spread, size_t threads,
                                   kith_meter *meter, double *covariance) {
    kith_moment_side side = {.sample = *sample, .shift = shift, .scale = kith_scale_of(spread)};
    KITH_TRY(kith_moments(&side, NULL, threads, meter, covariance));
    size_t dim = sample->view.dim, stride = kith_matrix_stride(dim);
    for (size_t i = 0; i < dim * stride; i++) covariance[i] /= (double)sample->count;
    return KITH_OK;
}

kith_status kith_components_find(const kith_view *rows, size_t rows_max, bool is_centred, const kith_job *job,
                                 kith_meter *meter, kith_components *out) {
    size_t dim = rows->dim, stride = kith_matrix_stride(dim);
    kith_sample sample = kith_sample_of(rows, rows_max, job->seed);
    double *covariance = NULL, spread = 0;
    float *shift = NULL;
    *out = (kith_components){0};
    kith_status status;
    KITH_GO(kith_alloc(dim, sizeof *out->mean, &out->mean));
    KITH_GO(kith_alloc(dim, sizeof *out->values, &out->values));
    KITH_GO(kith_alloc(dim, stride * sizeof *out->vectors, &out->vectors));
    KITH_GO(kith_alloc(dim, stride * sizeof *covariance, &covariance));
    KITH_GO(kith_alloc(dim, sizeof *shift, &shift));
    KITH_GO(kith_sample_mean(&sample, job->threads, out->mean, &spread));
    if (!is_centred) memset(out->mean, 0, dim * sizeof *out->mean);
    for (size_t j = 0; j < dim; j++) shift[j] = (float)out->mean[j];
    KITH_GO(find_covariance(&sample, is_centred ? shift : NULL, spread, job->threads, meter, covariance));
    KITH_GO(kith_symmetric_eigen(covariance, dim, job->threads, out->values, out->vectors));
    for (size_t i = 0; i < dim; i++) out->values[i] = fmax(out->values[i], 0); /* rounding may leave -1e-17 */
done:
    kith_free(covariance);
    kith_free(shift);
    if (status != KITH_OK) kith_components_free(out);
    return status;
}

/* ---- The transform ------------------------------------------------------------------------------------------- */

static kith_status check(const kith_transform *t) {
    if (t->dim_out > t->dim_in)
        return kith_error(KITH_ERR_ARGUMENT, "pca: %zu components of %zu dimensions", t->dim_out, t->dim_in);
    if (!(t->pca.eigen_power >= -1 && t->pca.eigen_power <= 1))
        return kith_error(KITH_ERR_ARGUMENT, "pca: eigen_power = %g is outside -1..1", (double)t->pca.eigen_power);
    return KITH_OK;
}

static void describe(const kith_transform *t, char *text, size_t bytes) {
    (void)snprintf(text, bytes, "PCA%s%s%zu", t->pca.eigen_power != 0 ? "W" : "", t->pca.is_rotated ? "R" : "",
                   t->dim_out);
}

static unsigned keeps(const kith_transform *t) {
    if (t->pca.eigen_power != 0 || t->dim_out < t->dim_in) return 0;
    return t->arrays.mean != NULL || (!t->is_trained && t->pca.is_centred) ? KITH_KEEPS_L2
                                                                           : KITH_KEEPS_L2 | KITH_KEEPS_IP;
}

/* rotation * matrix, in place: a random rotation of the components. */
static kith_status rotate(size_t dim_out, size_t dim_in, const float *rotation, double *matrix, size_t stride) {
    double *left = NULL, *strips = NULL, *product = NULL;
    kith_status status;
    KITH_GO(kith_alloc(dim_out, dim_out * sizeof *left, &left));
    KITH_GO(kith_alloc(dim_out, stride * sizeof *strips, &strips));
    KITH_GO(kith_alloc(dim_out, stride * sizeof *product, &product));
    for (size_t i = 0; i < dim_out * dim_out; i++) left[i] = (double)rotation[i];
    kith_to_strips(matrix, stride, dim_out, dim_in, strips);
    for (size_t s = 0; s < stride / KITH_STRIP; s++)
        kith_simd()->matrix.strip_multiply(left, dim_out, dim_out, dim_out, strips + s * dim_out * KITH_STRIP,
                                           product + s * dim_out * KITH_STRIP);
    kith_from_strips(product, dim_out, dim_in, matrix, stride);
done:
    kith_free(left);
    kith_free(strips);
    kith_free(product);
    return status;
}

/* Components times eigenvalue^power, then the rotation, as f32. */
static kith_status make_matrix(const kith_transform *t, const kith_components *found, double power,
                               const float *rotation, float **out) {
    size_t stride = kith_matrix_stride(t->dim_in);
    double *scaled = NULL;
    kith_status status;
    KITH_GO(kith_alloc(t->dim_out, t->dim_in * sizeof **out, out));
    KITH_GO(kith_alloc(t->dim_out, stride * sizeof *scaled, &scaled));
    for (size_t i = 0; i < t->dim_out; i++) {
        double value = found->values[i], factor = 1;
        if (power != 0) factor = value > nothing * found->values[0] ? pow(value, power) : 0;
        for (size_t j = 0; j < stride; j++) scaled[i * stride + j] = factor * found->vectors[i * stride + j];
    }
    if (rotation != NULL) KITH_GO(rotate(t->dim_out, t->dim_in, rotation, scaled, stride));
    for (size_t i = 0; i < t->dim_out; i++)
        for (size_t j = 0; j < t->dim_in; j++) (*out)[i * t->dim_in + j] = (float)scaled[i * stride + j];
done:
    kith_free(scaled);
    return status;
}

static kith_status fill_arrays(const kith_transform *t, const kith_components *found, const kith_job *job,
                               kith_transform_arrays *arrays) {
    size_t dim = t->dim_in;
    double power = (double)t->pca.eigen_power;
    float *rotation = NULL;
    kith_status status;
    if (t->pca.is_centred) {
        KITH_GO(kith_alloc(dim, sizeof *arrays->mean, &arrays->mean));
        for (size_t j = 0; j < dim; j++) arrays->mean[j] = (float)found->mean[j];
    }
    KITH_GO(kith_alloc(dim, sizeof *arrays->eigenvalues, &arrays->eigenvalues));
    for (size_t j = 0; j < dim; j++) arrays->eigenvalues[j] = (float)found->values[j];
    if (t->pca.is_rotated) {
        KITH_GO(kith_alloc(t->dim_out, t->dim_out * sizeof *rotation, &rotation));
        KITH_GO(
            kith_random_orthogonal(t->dim_out, t->dim_out, job->seed, STREAM_ROTATION, job->threads, 0, rotation));
    }
    KITH_GO(make_matrix(t, found, power, rotation, &arrays->matrix));
    if (power != 0) KITH_GO(make_matrix(t, found, -power, rotation, &arrays->back));
done:
    kith_free(rotation);
    return status;
}

static kith_status train(const kith_transform *t, const kith_view *rows, const kith_job *job,
                         kith_transform_arrays *arrays) {
    size_t rows_max = t->pca.rows_max;
    if (rows_max == 0) rows_max = kith_max_size(ROWS_MIN, ROWS_PER_DIMENSION * t->dim_in);
    KITH_TRY(kith_budget_check("pca", kith_components_bytes(t->dim_in), job));
    kith_meter meter;
    kith_meter_init(&meter, job->progress, job->progress_user, "pca", kith_min_size(rows->count, rows_max));
    kith_components found;
    KITH_TRY(kith_components_find(rows, rows_max, t->pca.is_centred, job, &meter, &found));
    kith_status status;
    KITH_GO(fill_arrays(t, &found, job, arrays));
    KITH_GO(kith_meter_finish(&meter));
done:
    kith_components_free(&found);
    return status;
}

const kith_transform_vtable kith_transform_pca = {
    .kind = KITH_TRANSFORM_PCA,
    .name = "pca",
    .needs_rows = true,
    .arrays = 1 << KITH_ARRAY_MATRIX | 1 << KITH_ARRAY_EIGENVALUES,
    .arrays_optional = 1 << KITH_ARRAY_MEAN | 1 << KITH_ARRAY_BACK,
    .check = check,
    .describe = describe,
    .keeps = keeps,
    .train = train,
    .scratch = kith_affine_scratch,
    .apply = kith_affine_apply,
    .invert = kith_affine_invert,
};

kith_status kith_pca_create(size_t dim_in, size_t dim_out, const kith_pca_options *options, kith_transform **out) {
    kith_transform filled = {.vtable = &kith_transform_pca, .dim_in = dim_in, .dim_out = dim_out};
    kith_pca_options_init(&filled.pca);
    if (options != NULL) filled.pca = *options;
    return kith_transform_create(&filled, out);
}

/* ---- Narrowing ----------------------------------------------------------------------------------------------- */

static kith_status narrow_arrays(const kith_transform *pca, kith_transform *made, const kith_job *job) {
    size_t dim = pca->dim_in, dim_out = made->dim_out, stride = kith_matrix_stride(dim);
    kith_transform_arrays *arrays = &made->arrays;
    float *rotation = NULL;
    double *rows = NULL;
    kith_status status;
    KITH_GO(kith_alloc(dim, sizeof *arrays->eigenvalues, &arrays->eigenvalues));
    memcpy(arrays->eigenvalues, pca->arrays.eigenvalues, dim * sizeof *arrays->eigenvalues);
    if (pca->arrays.mean != NULL) {
        KITH_GO(kith_alloc(dim, sizeof *arrays->mean, &arrays->mean));
        memcpy(arrays->mean, pca->arrays.mean, dim * sizeof *arrays->mean);
    }
    KITH_GO(kith_alloc(dim_out, dim * sizeof *arrays->matrix, &arrays->matrix));
    KITH_GO(kith_alloc(dim_out, dim_out * sizeof *rotation, &rotation));
    KITH_GO(kith_random_orthogonal(dim_out, dim_out, job->seed, STREAM_ROTATION, job->threads, 0, rotation));
    KITH_GO(kith_alloc_zeroed(dim_out, stride * sizeof *rows, &rows));
    for (size_t i = 0; i < dim_out; i++)
        for (size_t j = 0; j < dim; j++) rows[i * stride + j] = (double)pca->arrays.matrix[i * dim + j];
    KITH_GO(rotate(dim_out, dim, rotation, rows, stride));
    for (size_t i = 0; i < dim_out; i++)
        for (size_t j = 0; j < dim; j++) arrays->matrix[i * dim + j] = (float)rows[i * stride + j];
    KITH_GO(kith_affine_pack(dim, dim_out, arrays->matrix, &arrays->panels));
    made->is_trained = true;
done:
    kith_free(rotation);
    kith_free(rows);
    return status;
}

kith_status kith_pca_narrow(const kith_transform *pca, size_t dim_out, const kith_job *job, kith_transform **out) {
    kith_transform *made;
    kith_job own;
    *out = NULL;
    KITH_TRY(kith_job_read(&own, job));
    if (pca->vtable->kind != KITH_TRANSFORM_PCA || pca->pca.is_rotated || pca->pca.eigen_power != 0 ||
        dim_out > pca->dim_out)
        return kith_error(KITH_ERR_ARGUMENT, "pca: %zu rotated components of %s", dim_out, pca->vtable->name);
    if (!pca->is_trained) return kith_error(KITH_ERR_NOT_TRAINED, "pca: not trained");
    kith_pca_options options = pca->pca;
    options.is_rotated = true;
    KITH_TRY(kith_pca_create(pca->dim_in, dim_out, &options, &made));
    kith_status status = narrow_arrays(pca, made, &own);
    if (status != KITH_OK) {
        kith_transform_free(made);
        return status;
    }
    *out = made;
    return KITH_OK;
}
