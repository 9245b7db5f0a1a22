/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "linalg/decompose.h"
#include "linalg/moments.h"
#include "memory_faults.h"

static double *new_matrix(size_t n) { return calloc(n * kith_matrix_stride(n), sizeof(double)); }

/* Symmetric, of the given rank, of elements of about `size`. */
static double *random_symmetric(size_t n, size_t rank, double size) {
    double *matrix = new_matrix(n);
    for (size_t k = 0; k < rank; k++)
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++)
                matrix[i * kith_matrix_stride(n) + j] +=
                    size * (double)kith_random_normal(1, k, i) * (double)kith_random_normal(1, k, j);
    return matrix;
}

static double dot(const double *a, const double *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void check_orthonormal_rows(const double *rows, size_t count, size_t n, size_t stride) {
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j <= i; j++)
            cr_assert_lt(fabs(dot(rows + i * stride, rows + j * stride, n) - (i == j)), 1e-12, "%zu, %zu of %zu", i,
                         j, n);
}

/* The definition: A v = lambda v, orthonormal v, descending lambda; and the trace. */
static void check_eigen(const double *matrix, size_t n, size_t threads) {
    size_t stride = kith_matrix_stride(n);
    double *work = new_matrix(n), *vectors = new_matrix(n), *values = calloc(n, sizeof *values);
    memcpy(work, matrix, n * stride * sizeof *work);
    cr_assert_eq(kith_symmetric_eigen(work, n, threads, values, vectors), KITH_OK, "%s", kith_error_message());
    double size = fmax(fabs(values[0]), fabs(values[n - 1])), trace = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t r = 0; r < n; r++)
            cr_assert_leq(
                fabs(dot(matrix + r * stride, vectors + i * stride, n) - values[i] * vectors[i * stride + r]),
                1e-12 * size, "value %zu of %zu", i, n);
        if (i > 0) cr_assert_leq(values[i], values[i - 1]);
        trace += matrix[i * stride + i];
        sum += values[i];
    }
    cr_assert_leq(fabs(trace - sum), 1e-12 * size * (double)n);
    check_orthonormal_rows(vectors, n, n, stride);
    free(work);
    free(vectors);
    free(values);
}

Test(decompose, eigenvectors_of_any_size_rank_and_magnitude) {
    static const size_t sizes[] = {1, 2, 3, 5, 31, 32, 33, 64, 100};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int kind = 0; kind < 5; kind++) {
            size_t n = sizes[s], rank = kind == 1 ? 1 : kind == 2 ? (n + 1) / 2 : n;
            double *matrix = random_symmetric(n, rank, kind == 3 ? 1e-280 : kind == 4 ? 1e280 : 1);
            check_eigen(matrix, n, 1);
            free(matrix);
        }
}

Test(decompose, special_matrices) {
    enum { N = 40 };
    size_t stride = kith_matrix_stride(N);
    double *matrix = new_matrix(N);
    check_eigen(matrix, N, 1); /* zero */
    for (size_t i = 0; i < N; i++) matrix[i * stride + i] = 3;
    check_eigen(matrix, N, 1); /* all eigenvalues equal */
    for (size_t i = 0; i < N; i++) matrix[i * stride + i] = pow(10, -(double)i);
    check_eigen(matrix, N, 1); /* diagonal, over 40 orders of magnitude */
    for (size_t i = 0; i + 1 < N; i++) matrix[i * stride + i + 1] = matrix[(i + 1) * stride + i] = 1e-9;
    check_eigen(matrix, N, 1);
    matrix[5 * stride + 7] = NAN;
    double values[N], *vectors = new_matrix(N);
    cr_assert_eq(kith_symmetric_eigen(matrix, N, 1, values, vectors), KITH_ERR_NOT_FINITE);
    free(matrix);
    free(vectors);
}

Test(decompose, eigenvectors_are_the_same_bits_at_any_thread_count) {
    enum { N = 300 };
    size_t bytes = N * kith_matrix_stride(N) * sizeof(double);
    double *matrix = random_symmetric(N, 200, 1), *work = new_matrix(N), *first = new_matrix(N),
           *other = new_matrix(N), values[N];
    memcpy(work, matrix, bytes);
    cr_assert_eq(kith_symmetric_eigen(work, N, 1, values, first), KITH_OK);
    for (size_t threads = 2; threads <= 8; threads *= 2) {
        memcpy(work, matrix, bytes);
        cr_assert_eq(kith_symmetric_eigen(work, N, threads, values, other), KITH_OK);
        cr_assert_arr_eq(first, other, bytes, "%zu threads", threads);
    }
    free(matrix);
    free(work);
    free(first);
    free(other);
}

/* Columns stay orthonormal whatever they were; those that were independent keep their span, in order. */
Test(decompose, orthonormalise) {
    static const size_t shapes[][2] = {{1, 1}, {7, 3}, {33, 33}, {70, 40}, {100, 65}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int is_dependent = 0; is_dependent < 2; is_dependent++) {
            size_t rows = shapes[s][0], columns = shapes[s][1], stride = kith_matrix_stride(columns);
            double *matrix = calloc(rows * stride, sizeof *matrix), *q = calloc(rows * stride, sizeof *q),
                   *strips = calloc(rows * stride, sizeof *strips),
                   *turned = calloc(rows * columns, sizeof *turned);
            for (size_t r = 0; r < rows; r++)
                for (size_t c = 0; c < columns; c++)
                    matrix[r * stride + c] = (double)kith_random_normal(2, is_dependent ? c / 2 : c, r);
            kith_to_strips(matrix, stride, rows, columns, strips);
            cr_assert_eq(kith_orthonormalise(strips, rows, columns, 2), KITH_OK);
            kith_from_strips(strips, rows, columns, q, stride);
            for (size_t r = 0; r < rows; r++)
                for (size_t c = 0; c < columns; c++) turned[c * rows + r] = q[r * stride + c];
            check_orthonormal_rows(turned, columns, rows, rows);
            for (size_t c = 0; c < columns && !is_dependent; c++) {
                double along = 0; /* R's diagonal */
                for (size_t r = 0; r < rows; r++) along += matrix[r * stride + c] * q[r * stride + c];
                cr_assert_gt(along, 0);
                for (size_t later = c + 1; later < columns; later++) {
                    double below = 0;
                    for (size_t r = 0; r < rows; r++) below += matrix[r * stride + c] * q[r * stride + later];
                    cr_assert_lt(fabs(below), 1e-11);
                }
            }
            free(matrix);
            free(q);
            free(strips);
            free(turned);
        }
}

/* R is orthogonal, and R^T C is symmetric and positive semi-definite: what makes the trace largest. */
Test(decompose, procrustes) {
    for (int kind = 0; kind < 3; kind++) {
        enum { N = 37 };
        size_t stride = kith_matrix_stride(N), rank = kind == 1 ? 20 : kind == 2 ? 0 : N;
        double *c = new_matrix(N), *r = new_matrix(N), *product = new_matrix(N), *vectors = new_matrix(N),
               values[N];
        for (size_t k = 0; k < rank; k++)
            for (size_t i = 0; i < N; i++)
                for (size_t j = 0; j < N; j++)
                    c[i * stride + j] += (double)kith_random_normal(3, k, i) * (double)kith_random_normal(4, k, j);
        cr_assert_eq(kith_procrustes(c, N, 2, r), KITH_OK);
        check_orthonormal_rows(r, N, N, stride);
        double size = 0;
        for (size_t i = 0; i < N; i++)
            for (size_t j = 0; j < N; j++)
                for (size_t k = 0; k < N; k++) product[i * stride + j] += r[k * stride + i] * c[k * stride + j];
        for (size_t i = 0; i < N; i++) size = fmax(size, fabs(product[i * stride + i]));
        for (size_t i = 0; i < N; i++)
            for (size_t j = 0; j < i; j++)
                cr_assert_leq(fabs(product[i * stride + j] - product[j * stride + i]), 1e-6 * size, "rank %zu",
                              rank);
        cr_assert_eq(kith_symmetric_eigen(product, N, 1, values, vectors), KITH_OK);
        cr_assert_geq(values[N - 1], -1e-6 * size);
        free(c);
        free(r);
        free(product);
        free(vectors);
    }
}

static kith_view random_rows(size_t count, size_t dim, float offset, float size) {
    float *rows = malloc(count * dim * sizeof *rows);
    for (size_t i = 0; i < count * dim; i++) rows[i] = offset + size * kith_random_normal(5, i % dim, i / dim);
    return (kith_view){.data = rows, .dtype = KITH_F32, .count = count, .dim = dim};
}

Test(decompose, moments_against_plain_sums) {
    static const size_t counts[] = {1, 2, 511, 513, 2500};
    for (size_t n = 0; n < 5; n++)
        for (int huge = 0; huge < 3; huge++) {
            enum { DX = 37, DY = 141 };
            float size = huge == 1 ? 1e17f : huge == 2 ? 1e-30f : 1;
            kith_view x = random_rows(counts[n], DX, 0, size), y = random_rows(counts[n], DY, 0, size);
            kith_moment_side left = {.sample = kith_sample_of(&x, 0, 1), .scale = kith_scale_of(8 * (double)size)};
            kith_moment_side right = {.sample = kith_sample_of(&y, 0, 1), .scale = left.scale};
            double *cross = malloc(DX * kith_matrix_stride(DY) * 8), *own = malloc(DY * kith_matrix_stride(DY) * 8);
            cr_assert_eq(kith_moments(&left, &right, 2, NULL, cross), KITH_OK);
            cr_assert_eq(kith_moments(&right, NULL, 3, NULL, own), KITH_OK);
            const float *xs = x.data, *ys = y.data;
            double bound = 1e-5 * sqrt((double)counts[n]) * (double)size * (double)size * 10;
            for (size_t i = 0; i < DY; i++)
                for (size_t j = 0; j < DY; j += 7) {
                    double want = 0, want_own = 0;
                    for (size_t r = 0; r < counts[n]; r++) {
                        if (i < DX) want += (double)xs[r * DX + i] * (double)ys[r * DY + j];
                        want_own += (double)ys[r * DY + i] * (double)ys[r * DY + j];
                    }
                    if (i < DX) cr_assert_lt(fabs(cross[i * kith_matrix_stride(DY) + j] - want), bound);
                    cr_assert_lt(fabs(own[i * kith_matrix_stride(DY) + j] - want_own), bound, "%zu %zu", i, j);
                }
            free((void *)(uintptr_t)x.data);
            free((void *)(uintptr_t)y.data);
            free(cross);
            free(own);
        }
}

/* A sample has one row of each stretch, in rising order. */
Test(decompose, samples) {
    kith_view view = {.data = &view, .dtype = KITH_F32, .count = 1003, .dim = 1};
    for (size_t count = 1; count <= 1003; count += 77) {
        kith_sample sample = kith_sample_of(&view, count, 9);
        for (size_t i = 0, before = 0; i < count; i++) {
            size_t row = kith_sample_row(&sample, i);
            cr_assert(i == 0 || row > before);
            cr_assert_lt(row, 1003);
            cr_assert(row >= i * (1003 / count) && row < (i + 1) * (1003 / count + 1));
            before = row;
        }
    }
}

Test(decompose, failing_allocations) {
    enum { N = 40 };
    memory_faults_install();
    double *matrix = random_symmetric(N, N, 1), *work = new_matrix(N), *out = new_matrix(N), values[N];
    float orthogonal[N * 20];
    kith_status status;
    memcpy(work, matrix, N * kith_matrix_stride(N) * 8);
    MEMORY_FAULTS_EACH(status, kith_symmetric_eigen(work, N, 1, values, out)) {}
    MEMORY_FAULTS_EACH(status, kith_procrustes(matrix, N, 1, out)) {}
    MEMORY_FAULTS_EACH(status, kith_random_orthogonal(N, 20, 1, 1, 1, 1, orthogonal)) {}
    free(matrix);
    free(work);
    free(out);
}
