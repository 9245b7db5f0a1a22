/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "faults.h"
#include "kith/kmeans.h"
#include "linalg/transform.h"
#include "memory_faults.h"

/* ---- Helpers ------------------------------------------------------------------------------------------------- */

/* Correlated rows: `rank` hidden normal numbers of falling variance, mixed, and a little noise. */
static float *make_rows(size_t count, size_t dim, size_t rank, float offset) {
    float *rows = malloc(count * dim * sizeof *rows);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < dim; j++) {
            float value = offset + 0.05f * kith_random_normal(1, i, j);
            for (size_t k = 0; k < rank; k++)
                value += kith_random_normal(2, i, k) * kith_random_normal(3, k, j) / (float)(k + 1);
            rows[i * dim + j] = value;
        }
    return rows;
}

static kith_view view_of(const float *rows, size_t count, size_t dim) {
    return (kith_view){.data = rows, .dtype = KITH_F32, .count = count, .dim = dim};
}

static kith_job job_of(size_t threads) {
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    return job;
}

static void train(kith_transform *transform, const kith_view *rows, size_t threads) {
    kith_job job = job_of(threads);
    cr_assert_eq(kith_transform_train(transform, rows, &job), KITH_OK, "%s", kith_error_message());
}

static float *apply(const kith_transform *transform, const kith_view *rows, size_t threads) {
    float *out = malloc(rows->count * kith_transform_dim_out(transform) * sizeof *out);
    kith_arena arena = {0};
    cr_assert_eq(kith_transform_apply(transform, rows, threads, &arena, out), KITH_OK, "%s", kith_error_message());
    kith_arena_free(&arena);
    return out;
}

static float *invert(const kith_transform *transform, const float *in, size_t count) {
    kith_view rows = view_of(in, count, kith_transform_dim_out(transform));
    float *out = malloc(count * kith_transform_dim_in(transform) * sizeof *out);
    kith_arena arena = {0};
    cr_assert_eq(kith_transform_invert(transform, &rows, 2, &arena, out), KITH_OK, "%s", kith_error_message());
    kith_arena_free(&arena);
    return out;
}

static double inner(const float *a, const float *b, size_t dim) {
    double sum = 0;
    for (size_t j = 0; j < dim; j++) sum += (double)a[j] * (double)b[j];
    return sum;
}

/* One of every kind, from `dim` dimensions. */
enum { KINDS = 13, DIM = 70, ROWS = 700 };
static kith_transform *make(size_t kind, size_t dim) {
    kith_transform *t = NULL;
    kith_pca_options pca;
    kith_pca_options_init(&pca);
    kith_opq_options opq;
    kith_opq_options_init(&opq);
    opq.bits = 4;
    opq.rounds = 3;
    kith_status status = KITH_OK;
    switch (kind) {
        case 0: status = kith_pca_create(dim, dim / 2, NULL, &t); break;
        case 1:
            pca.eigen_power = -0.5f;
            status = kith_pca_create(dim, dim, &pca, &t);
            break;
        case 2:
            pca.is_rotated = true;
            pca.is_centred = false;
            status = kith_pca_create(dim, dim, &pca, &t);
            break;
        case 3:
            pca.eigen_power = -0.5f;
            pca.is_rotated = true;
            status = kith_pca_create(dim, dim / 3, &pca, &t);
            break;
        case 4: status = kith_rotation_create(dim, dim, &t); break;
        case 5: status = kith_rotation_create(dim, dim / 2, &t); break;
        case 6: status = kith_rotation_create(dim, dim + 9, &t); break;
        case 7: status = kith_fast_rotation_create(dim, &t); break;
        case 8: status = kith_opq_create(dim, 24, 6, &opq, &t); break;
        case 9: status = kith_centre_create(dim, &t); break;
        case 10: status = kith_normalise_create(dim, &t); break;
        case 11: status = kith_pad_create(dim, dim + 5, &t); break;
        default: {
            kith_transform *members[3];
            cr_assert_eq(kith_centre_create(dim, &members[0]), KITH_OK);
            cr_assert_eq(kith_pca_create(dim, dim / 2, NULL, &members[1]), KITH_OK);
            cr_assert_eq(kith_rotation_create(dim / 2, dim / 2, &members[2]), KITH_OK);
            status = kith_chain_create(members, 3, &t);
        }
    }
    cr_assert_eq(status, KITH_OK, "%s", kith_error_message());
    return t;
}

/* ---- All kinds ----------------------------------------------------------------------------------------------- */

Test(transform, names_shapes_and_what_they_keep) {
    static const char *const names[KINDS] = {
        "PCA35",  "PCAW70", "PCAR70", "PCAWR23",          "RR70", "RR35", "RR79", "HR128", "OPQ6_24",
        "Centre", "L2norm", "Pad75",  "Centre,PCA35,RR35"};
    enum { L2 = KITH_KEEPS_L2, BOTH = KITH_KEEPS_L2 | KITH_KEEPS_IP };
    static const unsigned keeps[KINDS] = {0, 0, BOTH, 0, BOTH, 0, BOTH, BOTH, 0, L2, 0, BOTH, 0};
    for (size_t kind = 0; kind < KINDS; kind++) {
        kith_transform *t = make(kind, DIM);
        char text[64];
        kith_transform_describe(t, text, sizeof text);
        cr_assert_str_eq(text, names[kind]);
        kith_transform_describe(t, text, 4);
        cr_assert_eq(strlen(text), 3);
        cr_assert_eq(strncmp(text, names[kind], 3), 0);
        cr_assert_eq(kith_transform_keeps(t), keeps[kind], "%s", names[kind]);
        cr_assert_not(kith_transform_is_trained(t));
        kith_transform_free(t);
    }
}

/* Rows alone, in batches of any size, from any type, at any thread count: the same bits. Training as well. */
Test(transform, same_bits_however_it_is_run) {
    float *rows = make_rows(ROWS, DIM, 12, 1);
    kith_view view = view_of(rows, ROWS, DIM);
    for (size_t kind = 0; kind < KINDS; kind++) {
        kith_transform *t = make(kind, DIM);
        size_t dim = kith_transform_dim_out(t);
        train(t, &view, 1);
        float *want = apply(t, &view, 1), *one = malloc(dim * sizeof *one);
        float *scratch = aligned_alloc(64, (kith_transform_scratch(t) + 15) / 16 * 64);
        for (size_t threads = 2; threads <= 8; threads *= 2) {
            kith_transform *other = make(kind, DIM);
            train(other, &view, threads);
            float *got = apply(other, &view, threads);
            cr_assert_arr_eq(got, want, ROWS * dim * sizeof *got, "kind %zu, %zu threads", kind, threads);
            free(got);
            kith_transform_free(other);
        }
        for (size_t i = 0; i < ROWS; i += 13) {
            kith_transform_apply_one(t, rows + i * DIM, KITH_F32, one, scratch);
            cr_assert_arr_eq(one, want + i * dim, dim * sizeof *one, "kind %zu, row %zu", kind, i);
        }
        for (size_t count = 1; count < 40; count += 3) {
            kith_view some = {.data = rows + 5 * DIM, .dtype = KITH_F32, .count = count, .dim = DIM};
            float *got = apply(t, &some, 2);
            cr_assert_arr_eq(got, want + 5 * dim, count * dim * sizeof *got, "kind %zu, %zu rows", kind, count);
            free(got);
        }
        free(want);
        free(one);
        free(scratch);
        kith_transform_free(t);
    }
    free(rows);
}

/* Other element types and strides are the same as their values in f32. */
Test(transform, element_types) {
    enum { STRIDE = DIM + 3 };
    int8_t bytes[50 * STRIDE];
    float values[50 * DIM];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (int8_t)(kith_random_u64(5, 5, i) & 0xff);
    for (size_t i = 0; i < 50; i++)
        for (size_t j = 0; j < DIM; j++) values[i * DIM + j] = bytes[i * STRIDE + j];
    kith_view narrow = {.data = bytes, .dtype = KITH_I8, .count = 50, .dim = DIM, .stride = STRIDE};
    kith_view wide = view_of(values, 50, DIM);
    for (size_t kind = 0; kind < KINDS; kind++) {
        kith_transform *a = make(kind, DIM), *b = make(kind, DIM);
        train(a, &narrow, 1);
        train(b, &wide, 2);
        float *from_narrow = apply(a, &narrow, 1), *from_wide = apply(b, &wide, 1);
        cr_assert_arr_eq(from_narrow, from_wide, 50 * kith_transform_dim_out(a) * sizeof *from_wide, "kind %zu",
                         kind);
        free(from_narrow);
        free(from_wide);
        kith_transform_free(a);
        kith_transform_free(b);
    }
}

/* What a transform says it keeps, it keeps; and the way back leads back, or to the projection. */
Test(transform, keeps_what_it_says_and_leads_back) {
    float *rows = make_rows(ROWS, DIM, 12, 0.5f);
    kith_view view = view_of(rows, ROWS, DIM);
    for (size_t kind = 0; kind < KINDS; kind++) {
        kith_transform *t = make(kind, DIM);
        size_t dim = kith_transform_dim_out(t);
        train(t, &view, 2);
        float *out = apply(t, &view, 2);
        for (size_t i = 1; i < ROWS; i++) {
            const float *a = rows + i * DIM, *b = a - DIM, *x = out + i * dim, *y = x - dim;
            double size = sqrt(inner(a, a, DIM) * inner(b, b, DIM)) + 1, before = 0, after = 0;
            for (size_t j = 0; j < DIM; j++) before += pow((double)a[j] - (double)b[j], 2);
            for (size_t j = 0; j < dim; j++) after += pow((double)x[j] - (double)y[j], 2);
            if (kith_transform_keeps(t) & KITH_KEEPS_L2)
                cr_assert_lt(fabs(before - after), 1e-5 * size, "kind %zu: %g %g", kind, before, after);
            if (kith_transform_keeps(t) & KITH_KEEPS_IP)
                cr_assert_lt(fabs(inner(a, b, DIM) - inner(x, y, dim)), 1e-5 * size, "kind %zu", kind);
        }
        if (kind == 10) { /* L2norm */
            kith_arena arena = {0};
            kith_view there = view_of(out, ROWS, dim);
            cr_assert_eq(kith_transform_invert(t, &there, 1, &arena, rows), KITH_ERR_UNSUPPORTED);
        } else {
            float *back = invert(t, out, ROWS), *again = NULL;
            bool is_lossless = dim >= DIM && kind != 8;
            if (is_lossless)
                for (size_t i = 0; i < ROWS * DIM; i++)
                    cr_assert_lt(fabs((double)back[i] - (double)rows[i]), 1e-4, "kind %zu: %g %g", kind,
                                 (double)back[i], (double)rows[i]);
            kith_view there = view_of(back, ROWS, DIM);
            again = apply(t, &there, 1);
            for (size_t i = 0; i < ROWS * dim; i++)
                cr_assert_lt(fabs((double)again[i] - (double)out[i]), 2e-4, "kind %zu", kind);
            free(back);
            free(again);
        }
        free(out);
        kith_transform_free(t);
    }
    free(rows);
}

/* ---- PCA ----------------------------------------------------------------------------------------------------- */

/* Covariance and its components in plain f64, by Jacobi's rotations. */
static void reference_eigenvalues(const float *rows, size_t count, size_t dim, double *values) {
    double *c = calloc(dim * dim, sizeof *c), *mean = calloc(dim, sizeof *mean);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < dim; j++) mean[j] += (double)rows[i * dim + j] / (double)count;
    for (size_t i = 0; i < count; i++)
        for (size_t a = 0; a < dim; a++)
            for (size_t b = 0; b < dim; b++)
                c[a * dim + b] +=
                    ((double)rows[i * dim + a] - mean[a]) * ((double)rows[i * dim + b] - mean[b]) / (double)count;
    for (int round = 0; round < 30; round++)
        for (size_t p = 0; p < dim; p++)
            for (size_t q = p + 1; q < dim; q++) {
                if (fabs(c[p * dim + q]) < 1e-300) continue;
                double angle = 0.5 * atan2(2 * c[p * dim + q], c[q * dim + q] - c[p * dim + p]);
                double cosine = cos(angle), sine = sin(angle);
                for (size_t k = 0; k < dim; k++) {
                    double x = c[k * dim + p], y = c[k * dim + q];
                    c[k * dim + p] = cosine * x - sine * y;
                    c[k * dim + q] = sine * x + cosine * y;
                }
                for (size_t k = 0; k < dim; k++) {
                    double x = c[p * dim + k], y = c[q * dim + k];
                    c[p * dim + k] = cosine * x - sine * y;
                    c[q * dim + k] = sine * x + cosine * y;
                }
            }
    for (size_t j = 0; j < dim; j++) values[j] = c[j * dim + j];
    for (size_t i = 0; i < dim; i++)
        for (size_t j = i + 1; j < dim; j++)
            if (values[j] > values[i]) {
                double swapped = values[i];
                values[i] = values[j];
                values[j] = swapped;
            }
    free(c);
    free(mean);
}

/* Eigenvalues are those of the reference; outputs have these variances and no covariance; the squared error of the
 * way back is the sum of those left out. Far from the origin too. */
Test(transform, pca_against_a_reference) {
    for (int far = 0; far < 2; far++) {
        enum { N = 900, D = 40, KEPT = 9 };
        float *rows = make_rows(N, D, 14, far ? 1000 : 0);
        kith_view view = view_of(rows, N, D);
        double values[D], tail = 0, error = 0;
        reference_eigenvalues(rows, N, D, values);
        kith_transform *t;
        cr_assert_eq(kith_pca_create(D, KEPT, NULL, &t), KITH_OK);
        train(t, &view, 2);
        const float *found = kith_transform_eigenvalues(t);
        for (size_t i = 0; i < D; i++)
            cr_assert_lt(fabs((double)found[i] - values[i]), 1e-5 * values[0], "%zu: %g %g", i, (double)found[i],
                         values[i]);
        float *out = apply(t, &view, 2), *back = invert(t, out, N);
        for (size_t a = 0; a < KEPT; a++)
            for (size_t b = 0; b <= a; b++) {
                double sum = 0;
                for (size_t i = 0; i < N; i++) sum += (double)out[i * KEPT + a] * (double)out[i * KEPT + b] / N;
                cr_assert_lt(fabs(sum - (a == b ? values[a] : 0)), 2e-5 * values[0]);
            }
        for (size_t i = KEPT; i < D; i++) tail += values[i];
        for (size_t i = 0; i < N * D; i++) error += pow((double)back[i] - (double)rows[i], 2) / N;
        cr_assert_lt(fabs(error - tail), 1e-3 * tail, "%g %g", error, tail);
        free(rows);
        free(out);
        free(back);
        kith_transform_free(t);
    }
}

/* Whitened outputs have variance 1; directions without variance give 0. */
Test(transform, pca_narrowed_is_a_rotated_pca) {
    float *rows = make_rows(ROWS, DIM, 8, 2);
    kith_view view = view_of(rows, ROWS, DIM);
    kith_pca_options options;
    kith_pca_options_init(&options);
    kith_transform *plain, *rotated, *narrow = NULL;
    cr_assert_eq(kith_pca_create(DIM, DIM / 2, &options, &plain), KITH_OK);
    kith_job job = job_of(2);
    cr_assert_eq(kith_pca_narrow(plain, DIM / 4, &job, &narrow), KITH_ERR_NOT_TRAINED);
    train(plain, &view, 2);
    cr_assert_eq(kith_pca_narrow(plain, DIM, &job, &narrow), KITH_ERR_ARGUMENT);
    cr_assert_null(narrow);
    options.is_rotated = true;
    cr_assert_eq(kith_pca_create(DIM, DIM / 4, &options, &rotated), KITH_OK);
    train(rotated, &view, 2);
    cr_assert_eq(kith_pca_narrow(rotated, DIM / 4, &job, &narrow), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_pca_narrow(plain, DIM / 4, &job, &narrow), KITH_OK);
    float *expected = apply(rotated, &view, 1), *got = apply(narrow, &view, 2);
    for (size_t i = 0; i < ROWS * (DIM / 4); i++)
        cr_assert_float_eq((double)got[i], (double)expected[i], 1e-4, "%zu", i);
    kith_transform_free(plain);
    kith_transform_free(rotated);
    kith_transform_free(narrow);
    free(rows);
    free(expected);
    free(got);
}

Test(transform, pca_whitens) {
    enum { N = 500, D = 20 };
    float *rows = make_rows(N, D, 8, 3);
    for (size_t i = 0; i < N; i++)
        rows[i * D + 4] = 7, rows[i * D + 5] = rows[i * D + 6]; /* constant; a duplicate */
    kith_view view = view_of(rows, N, D);
    kith_transform *t = make(1, D);
    train(t, &view, 1);
    float *out = apply(t, &view, 1);
    for (size_t a = 0; a < D; a++) {
        double sum = 0;
        for (size_t i = 0; i < N; i++) sum += (double)out[i * D + a] * (double)out[i * D + a] / N;
        cr_assert_lt(fabs(sum - (a < D - 2)), 1e-3, "%zu: %g", a, sum);
    }
    free(rows);
    free(out);
    kith_transform_free(t);
}

Test(transform, pca_of_few_or_strange_rows) {
    enum { D = 33 };
    static const float sizes[] = {1, 1e-30f, 1e17f};
    for (size_t count = 1; count <= 5; count += 2)
        for (size_t s = 0; s < 3; s++) {
            float *rows = make_rows(count, D, 5, 0);
            for (size_t i = 0; i < count * D; i++) rows[i] *= sizes[s];
            kith_view view = view_of(rows, count, D);
            kith_transform *t;
            cr_assert_eq(kith_pca_create(D, D, NULL, &t), KITH_OK);
            train(t, &view, 2);
            float *out = apply(t, &view, 1), *back = invert(t, out, count);
            for (size_t i = 0; i < count * D; i++) {
                cr_assert(isfinite(out[i]));
                cr_assert_lt(fabs((double)back[i] - (double)rows[i]), 1e-4 * (double)sizes[s]);
            }
            for (size_t i = count; i < D; i++) /* count points span count - 1 directions */
                cr_assert_leq((double)kith_transform_eigenvalues(t)[i],
                              1e-6 * (double)kith_transform_eigenvalues(t)[0]);
            free(rows);
            free(out);
            free(back);
            kith_transform_free(t);
        }
}

/* ---- Rotations ----------------------------------------------------------------------------------------------- */

/* The fast rotation is linear, its matrix is orthogonal, and the energy of one element spreads over all. */
Test(transform, fast_rotation_is_its_matrix) {
    static const size_t dims[] = {1, 64, 65, 100, 128, 200, 300, 448};
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
        size_t dim = dims[d];
        kith_transform *t;
        cr_assert_eq(kith_fast_rotation_create(dim, &t), KITH_OK);
        size_t out_dim = kith_transform_dim_out(t);
        cr_assert_eq(out_dim, (dim + 63) / 64 * 64);
        train(t, NULL, 1);
        float *units = calloc(dim * dim, sizeof *units);
        for (size_t i = 0; i < dim; i++) units[i * dim + i] = 1;
        kith_view view = view_of(units, dim, dim);
        float *matrix = apply(t, &view, 2); /* row i: the image of unit vector i */
        for (size_t i = 0; i < dim; i++) {
            double largest = 0;
            for (size_t j = 0; j <= i; j++)
                cr_assert_lt(fabs(inner(matrix + i * out_dim, matrix + j * out_dim, out_dim) - (i == j)), 2e-6);
            for (size_t j = 0; j < out_dim; j++) largest = fmax(largest, fabs((double)matrix[i * out_dim + j]));
            cr_assert_lt(largest, 8 / sqrt((double)out_dim), "%zu of %zu: %g", i, dim, largest);
        }
        float *row = make_rows(1, dim, 3, 0);
        view = view_of(row, 1, dim);
        float *got = apply(t, &view, 1);
        for (size_t j = 0; j < out_dim; j++) {
            double want = 0;
            for (size_t i = 0; i < dim; i++) want += (double)row[i] * (double)matrix[i * out_dim + j];
            cr_assert_lt(fabs(want - (double)got[j]), 2e-5);
        }
        free(units);
        free(matrix);
        free(row);
        free(got);
        kith_transform_free(t);
    }
}

Test(transform, seeds_give_other_rotations) {
    float row[DIM] = {1}, *out[4];
    kith_view view = view_of(row, 1, DIM);
    for (size_t i = 0; i < 4; i++) {
        kith_transform *t = make(i < 2 ? 4 : 7, DIM);
        kith_job job = job_of(1);
        job.seed = i % 2;
        cr_assert_eq(kith_transform_train(t, NULL, &job), KITH_OK);
        out[i] = apply(t, &view, 1);
        kith_transform_free(t);
    }
    cr_assert_arr_neq(out[0], out[1], DIM * sizeof(float));
    cr_assert_arr_neq(out[2], out[3], DIM * sizeof(float));
    for (size_t i = 0; i < 4; i++) free(out[i]);
}

/* ---- OPQ ----------------------------------------------------------------------------------------------------- */

/* Mean squared error of a product quantiser trained on the rows. */
static double quantiser_error(const float *rows, size_t count, size_t dim, size_t parts) {
    size_t width = dim / parts;
    double sum = 0;
    for (size_t p = 0; p < parts; p++) {
        kith_view view = {.data = rows + p * width,
                          .dtype = KITH_F32,
                          .count = count,
                          .dim = width,
                          .stride = dim * sizeof *rows};
        float *book = malloc(16 * width * sizeof *book);
        kith_kmeans_report report = {.size = sizeof report};
        kith_kmeans_options options;
        kith_kmeans_options_init(&options);
        options.points_per_centroid_max = 0;
        kith_job job = job_of(2);
        cr_assert_eq(kith_kmeans_train(&view, 16, &options, &job, book, &report), KITH_OK, "%s",
                     kith_error_message());
        sum += report.objective;
        free(book);
    }
    return sum / (double)count;
}

static double error_after(kith_transform *t, const float *rows, size_t count, size_t dim, size_t parts) {
    kith_view view = view_of(rows, count, dim);
    train(t, &view, 2);
    float *out = apply(t, &view, 2);
    double error = quantiser_error(out, count, kith_transform_dim_out(t), parts);
    free(out);
    kith_transform_free(t);
    return error;
}

/* On correlated rows: better than no rotation and than a random one; the rounds better than the start. */
Test(transform, opq_lowers_the_error_of_a_product_quantiser) {
    enum { N = 4000, D = 32, PARTS = 4 };
    float *rows = malloc(N * D * sizeof *rows);
    for (size_t i = 0; i < N; i++) /* three crowds of other shapes: no Gaussian, so that the rounds have work */
        for (size_t j = 0; j < D; j++) {
            size_t crowd = i % 3;
            float value = 2 * kith_random_normal(20, crowd, j);
            for (size_t k = 0; k < 10; k++)
                value += kith_random_normal(21, i, k) * kith_random_normal(22 + crowd, k, j) / (float)(k + 1);
            rows[i * D + j] = value;
        }
    kith_transform *t;
    double plain = quantiser_error(rows, N, D, PARTS);
    cr_assert_eq(kith_rotation_create(D, D, &t), KITH_OK);
    double random = error_after(t, rows, N, D, PARTS);
    kith_opq_options options;
    kith_opq_options_init(&options);
    options.bits = 4;
    options.rounds = 0;
    cr_assert_eq(kith_opq_create(D, D, PARTS, &options, &t), KITH_OK);
    double start = error_after(t, rows, N, D, PARTS);
    options.rounds = 20;
    cr_assert_eq(kith_opq_create(D, D, PARTS, &options, &t), KITH_OK);
    double rounds = error_after(t, rows, N, D, PARTS);
    cr_assert_lt(start, 0.9 * fmin(plain, random), "plain %g random %g start %g", plain, random, start);
    cr_assert_lt(rounds, 0.97 * start, "start %g, after the rounds %g", start, rounds);
    free(rows);
}

Test(transform, opq_shapes) {
    float *rows = make_rows(600, 24, 10, 0);
    for (size_t i = 0; i < 600; i++) rows[i * 24 + 3] = 5;              /* a constant dimension */
    for (size_t i = 300; i < 600; i++) memcpy(rows + i * 24, rows, 96); /* many equal rows */
    kith_view view = view_of(rows, 600, 24);
    kith_opq_options options;
    kith_opq_options_init(&options);
    options.bits = 4;
    options.rounds = 2;
    static const size_t shapes[][2] = {{24, 1}, {24, 24}, {8, 4}, {32, 8}};
    for (size_t s = 0; s < 4; s++) {
        kith_transform *t;
        cr_assert_eq(kith_opq_create(24, shapes[s][0], shapes[s][1], &options, &t), KITH_OK);
        train(t, &view, 2);
        float *out = apply(t, &view, 1), *back = invert(t, out, 600);
        for (size_t i = 0; i < 600 * 24 && shapes[s][0] >= 24; i++)
            cr_assert_lt(fabs((double)back[i] - (double)rows[i]), 1e-4);
        free(out);
        free(back);
        kith_transform_free(t);
    }
    free(rows);
}

/* ---- Bad input ----------------------------------------------------------------------------------------------- */

Test(transform, constructors_refuse) {
    kith_transform *t = (kith_transform *)1;
    kith_pca_options pca;
    kith_pca_options_init(&pca);
    kith_opq_options opq;
    kith_opq_options_init(&opq);
    cr_assert_eq(kith_pca_create(4, 5, NULL, &t), KITH_ERR_ARGUMENT);
    cr_assert_null(t);
    pca.eigen_power = NAN;
    cr_assert_eq(kith_pca_create(4, 4, &pca, &t), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_opq_create(16, 16, 3, NULL, &t), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_opq_create(16, 16, 0, NULL, &t), KITH_ERR_ARGUMENT);
    opq.bits = 13;
    cr_assert_eq(kith_opq_create(16, 16, 4, &opq, &t), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_rotation_create(0, 4, &t), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_fast_rotation_create(KITH_DIM_MAX + 1, &t), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_chain_create(NULL, 0, &t), KITH_ERR_ARGUMENT);
    kith_transform *members[2], *chain;
    cr_assert_eq(kith_pad_create(4, 6, &members[0]), KITH_OK);
    cr_assert_eq(kith_centre_create(5, &members[1]), KITH_OK);
    cr_assert_eq(kith_chain_create(members, 2, &t), KITH_ERR_DIMENSION);
    cr_assert_eq(kith_chain_create(members, 1, &chain), KITH_OK);
    cr_assert_eq(kith_chain_create(&chain, 1, &t), KITH_ERR_ARGUMENT);
    kith_transform_free(chain);
    kith_transform_free(members[1]);
    kith_transform_free(NULL);
}

static int cancel(void *user, const char *phase, uint64_t done, uint64_t total) {
    (void)user;
    (void)phase;
    (void)done;
    (void)total;
    return 1;
}

/* Every refusal leaves a trained transform as it was. */
Test(transform, training_refuses_and_changes_nothing) {
    float *rows = make_rows(ROWS, DIM, 5, 0);
    kith_view view = view_of(rows, ROWS, DIM), narrow = view_of(rows, ROWS, DIM - 1), none = view_of(rows, 0, DIM);
    for (size_t kind = 0; kind < KINDS; kind++) {
        kith_transform *t = make(kind, DIM);
        kith_arena arena = {0};
        float *out = malloc(ROWS * (DIM + 64) * sizeof *out);
        cr_assert_eq(kith_transform_apply(t, &view, 1, &arena, out), KITH_ERR_NOT_TRAINED);
        train(t, &view, 1);
        float *want = apply(t, &view, 1);
        if (kith_transform_needs_rows(t)) {
            kith_job job = job_of(1);
            cr_assert_eq(kith_transform_train(t, NULL, &job), KITH_ERR_EMPTY);
            cr_assert_eq(kith_transform_train(t, &none, &job), KITH_ERR_EMPTY);
            cr_assert_eq(kith_transform_train(t, &narrow, &job), KITH_ERR_DIMENSION);
            float kept = rows[3 * DIM + 7];
            rows[3 * DIM + 7] = NAN;
            cr_assert_eq(kith_transform_train(t, &view, &job), KITH_ERR_NOT_FINITE);
            cr_assert_not_null(strstr(kith_error_message(), "3"), "%s", kith_error_message());
            rows[3 * DIM + 7] = kept;
            job.memory_bytes_max = 1000;
            if (kind != 9) cr_assert_eq(kith_transform_train(t, &view, &job), KITH_ERR_BUDGET, "kind %zu", kind);
            job = job_of(1);
            job.progress = cancel;
            if (kind != 9) cr_assert_eq(kith_transform_train(t, &view, &job), KITH_ERR_CANCELLED, "kind %zu", kind);
        }
        cr_assert_eq(kith_transform_apply(t, &narrow, 1, &arena, out), KITH_ERR_DIMENSION);
        float *got = apply(t, &view, 1);
        cr_assert_arr_eq(got, want, ROWS * kith_transform_dim_out(t) * sizeof *got);
        free(want);
        free(got);
        free(out);
        kith_arena_free(&arena);
        kith_transform_free(t);
    }
    kith_transform *t = make(8, DIM);
    kith_view few = view_of(rows, 15, DIM);
    cr_assert_eq(kith_transform_train(t, &few, NULL), KITH_ERR_ARGUMENT);
    kith_transform_free(t);
    free(rows);
}

Test(transform, normalise_takes_zero_vectors) {
    float rows[3 * 5] = {3, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1e18f, 0, 0, 0, 0};
    kith_view view = view_of(rows, 3, 5);
    kith_transform *t = make(10, 5);
    train(t, NULL, 1);
    float *out = apply(t, &view, 1);
    static const float want[15] = {0.6f, 0, 0.8f, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0};
    cr_assert_arr_eq(out, want, sizeof want);
    free(out);
    kith_transform_free(t);
}

/* ---- Allocation failures, copies, files ---------------------------------------------------------------------- */

Test(transform, failing_allocations) {
    float *rows = make_rows(100, 20, 5, 0);
    kith_view view = view_of(rows, 100, 20);
    memory_faults_install();
    for (size_t kind = 0; kind < KINDS; kind++) {
        if (kind == 8) continue; /* its own case below: 20 dimensions are fewer than its 24 */
        kith_transform *t = make(kind, 20), *copy;
        kith_job job = job_of(1);
        kith_status status;
        if (kind != 12) {
            MEMORY_FAULTS_EACH(status, kith_transform_train(t, &view, &job)) {
                cr_assert_not(kith_transform_is_trained(t));
            }
        } else { /* what training makes stays: train first, so that training again leaves as many blocks */
            train(t, &view, 1);
            MEMORY_FAULTS_EACH(status, kith_transform_train(t, &view, &job)) {}
        }
        MEMORY_FAULTS_EACH(status, kith_transform_clone(t, &copy)) { cr_assert_null(copy); }
        kith_transform_free(copy);
        if (kind == 0) {
            MEMORY_FAULTS_EACH(status, kith_pca_narrow(t, 5, &job, &copy)) { cr_assert_null(copy); }
            kith_transform_free(copy);
        }
        kith_transform_free(t);
    }
    kith_opq_options options;
    kith_opq_options_init(&options);
    options.bits = 4;
    options.rounds = 1;
    options.kmeans_iterations = 1;
    kith_transform *t;
    kith_status status;
    kith_job job = job_of(1);
    cr_assert_eq(kith_opq_create(20, 8, 4, &options, &t), KITH_OK);
    MEMORY_FAULTS_EACH(status, kith_transform_train(t, &view, &job)) {
        cr_assert_not(kith_transform_is_trained(t));
    }
    kith_transform_free(t);
    cr_assert_eq(kith_memory_live_blocks(), 0);
    free(rows);
}

static void save(const kith_transform *t, const char *path, uint32_t first_part) {
    kith_container_writer *writer;
    cr_assert_eq(kith_container_writer_create(path, &writer), KITH_OK);
    cr_assert_eq(kith_transform_save(t, writer, &first_part), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_container_writer_commit(writer), KITH_OK, "%s", kith_error_message());
}

static kith_status load(const char *path, uint32_t part, kith_transform **out) {
    kith_container *container;
    *out = NULL;
    kith_status status = kith_container_open(path, &container);
    if (status != KITH_OK) return status;
    status = kith_container_verify(container);
    if (status == KITH_OK) status = kith_transform_load(container, &part, out);
    if (status == KITH_OK) status = kith_container_finish(container);
    kith_container_close(container);
    if (status != KITH_OK) kith_transform_free(*out);
    return status;
}

Test(transform, saved_and_loaded_or_cloned_it_gives_the_same_bits) {
    float *rows = make_rows(ROWS, DIM, 9, 1);
    kith_view view = view_of(rows, ROWS, DIM);
    const char *folder = faults_folder(), *path = faults_path(folder, "transform");
    for (size_t kind = 0; kind < KINDS; kind++)
        for (int is_trained = 0; is_trained < 2; is_trained++) {
            kith_transform *t = make(kind, DIM), *loaded, *copy;
            if (is_trained) train(t, &view, 2);
            save(t, path, 3);
            cr_assert_eq(load(path, 3, &loaded), KITH_OK, "kind %zu: %s", kind, kith_error_message());
            cr_assert_eq(kith_transform_clone(t, &copy), KITH_OK);
            cr_assert_eq(kith_transform_is_trained(loaded), is_trained != 0 && kith_transform_is_trained(t));
            cr_assert_eq(kith_transform_bytes(loaded), kith_transform_bytes(t));
            cr_assert_eq(kith_transform_bytes(copy), kith_transform_bytes(t));
            char name[64], other[64];
            kith_transform_describe(t, name, sizeof name);
            kith_transform_describe(loaded, other, sizeof other);
            cr_assert_str_eq(name, other);
            if (!is_trained) train(t, &view, 1), train(loaded, &view, 2), train(copy, &view, 1);
            float *a = apply(t, &view, 1), *b = apply(loaded, &view, 1), *c = apply(copy, &view, 1);
            cr_assert_arr_eq(a, b, ROWS * kith_transform_dim_out(t) * sizeof *a, "kind %zu", kind);
            cr_assert_arr_eq(a, c, ROWS * kith_transform_dim_out(t) * sizeof *a, "kind %zu", kind);
            free(a);
            free(b);
            free(c);
            kith_transform_free(t);
            kith_transform_free(loaded);
            kith_transform_free(copy);
        }
    faults_folder_remove(folder);
    free(rows);
}

/* A head with any byte changed behind a right checksum: an error or a sound transform, never a crash. */
Test(transform, hostile_heads) {
    float *rows = make_rows(64, 12, 4, 0);
    kith_view view = view_of(rows, 64, 12);
    const char *folder = faults_folder(), *path = faults_path(folder, "hostile");
    size_t refused = 0, accepted = 0;
    for (size_t kind = 0; kind < KINDS; kind++) {
        if (kind == 8) continue;
        kith_transform *t = make(kind, 12);
        train(t, &view, 1);
        save(t, path, 0);
        kith_transform_free(t);
        kith_container *source;
        cr_assert_eq(kith_container_open(path, &source), KITH_OK);
        const char *changed = faults_path(folder, "changed");
        for (size_t byte = 0; byte < 80; byte++)
            for (unsigned bit = 0; bit < 8; bit += 1 + (unsigned)(byte % 3)) {
                kith_container_writer *writer;
                cr_assert_eq(kith_container_writer_create(changed, &writer), KITH_OK);
                for (size_t s = 0; s < kith_container_section_count(source); s++) {
                    const kith_section *section = kith_container_section_at(source, s);
                    unsigned char *content = malloc(section->bytes);
                    memcpy(content, section->data, section->bytes);
                    if (s == 0) content[byte] ^= (unsigned char)(1u << bit);
                    cr_assert_eq(
                        kith_container_writer_add(writer, section->tag, section->instance, content, section->bytes),
                        KITH_OK);
                    free(content);
                }
                cr_assert_eq(kith_container_writer_commit(writer), KITH_OK);
                kith_transform *loaded;
                if (load(changed, 0, &loaded) == KITH_OK) {
                    accepted++;
                    kith_view own = {
                        .data = rows, .dtype = KITH_F32, .count = 2, .dim = kith_transform_dim_in(loaded)};
                    if (own.dim <= 64 * 12 / 2 && kith_transform_is_trained(loaded)) free(apply(loaded, &own, 1));
                    kith_transform_free(loaded);
                } else {
                    refused++;
                }
            }
        kith_container_close(source);
    }
    cr_assert_gt(refused, 8 * accepted, "%zu refused, %zu accepted", refused, accepted);
    faults_folder_remove(folder);
    free(rows);
}
