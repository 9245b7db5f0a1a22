/* SPDX-License-Identifier: Apache-2.0
 *
 * orthogonal.c: orthonormal columns by Householder reflections, and what is made with them.
 *
 * Columns are worked on strip by strip: a strip is reduced by reflections of its own, which are then applied to all
 * strips after it, in parallel. Q is the product of all reflections applied to the identity, again strip by strip.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/parallel.h"
#include "base/random.h"
#include "linalg/decompose.h"
#include "simd/simd.h"

void kith_to_strips(const double *matrix, size_t stride, size_t rows, size_t columns, double *strips) {
    size_t count = kith_matrix_stride(columns) / KITH_STRIP;
    for (size_t s = 0; s < count; s++)
        for (size_t r = 0; r < rows; r++) {
            double *to = strips + (s * rows + r) * KITH_STRIP;
            size_t present = kith_min_size(KITH_STRIP, columns - s * KITH_STRIP);
            memcpy(to, matrix + r * stride + s * KITH_STRIP, present * sizeof *to);
            memset(to + present, 0, (KITH_STRIP - present) * sizeof *to);
        }
}

void kith_from_strips(const double *strips, size_t rows, size_t columns, double *matrix, size_t stride) {
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < stride; c++)
            matrix[r * stride + c] =
                c < columns ? strips[(c / KITH_STRIP * rows + r) * KITH_STRIP + c % KITH_STRIP] : 0;
}

/* ---- QR ------------------------------------------------------------------------------------------------------ */

typedef struct qr {
    double *strips;
    size_t rows, columns;
    double *v;    /* columns x rows: reflection k, zero before element k */
    double *taus; /* columns */
    bool *flips;  /* columns: is R's diagonal negative before the sign is moved to Q? */
    const kith_matrix_kernels *kernels;
    size_t reduced; /* the strip just reduced */
} qr;

static void reflect(const qr *q, double *strip, size_t k) {
    if (q->taus[k] != 0)
        q->kernels->strip_reflect(strip + k * KITH_STRIP, q->rows - k, q->v + k * q->rows + k, q->taus[k]);
}

/* Makes reflection k from column k, which has been through all reflections before. The column is scaled by its
 * largest element, so that squares neither underflow nor overflow. */
static void make_reflection(qr *q, const double *strip, size_t k) {
    double *v = q->v + k * q->rows, largest = 0, tail = 0;
    for (size_t r = k; r < q->rows; r++) {
        v[r] = strip[r * KITH_STRIP + k % KITH_STRIP];
        if (fabs(v[r]) > largest) largest = fabs(v[r]);
    }
    q->taus[k] = 0;
    q->flips[k] = v[k] < 0;
    if (largest == 0) return;
    for (size_t r = k; r < q->rows; r++) v[r] /= largest;
    for (size_t r = k + 1; r < q->rows; r++) tail += v[r] * v[r];
    if (tail < DBL_MIN) return;
    double norm = sqrt(v[k] * v[k] + tail), beta = v[k] > 0 ? -norm : norm;
    q->taus[k] = (beta - v[k]) / beta;
    for (size_t r = k + 1; r < q->rows; r++) v[r] /= v[k] - beta;
    v[k] = 1;
    q->flips[k] = beta < 0;
}

static kith_status follow(void *context, size_t item, size_t worker) {
    const qr *q = context;
    (void)worker;
    size_t first = q->reduced * KITH_STRIP, last = kith_min_size(first + KITH_STRIP, q->columns);
    double *strip = q->strips + (q->reduced + 1 + item) * q->rows * KITH_STRIP;
    for (size_t k = first; k < last; k++) reflect(q, strip, k);
    return KITH_OK;
}

/* Columns c of Q: the reflections, last first, applied to unit vector c; those after c leave it as it is. */
static kith_status form(void *context, size_t item, size_t worker) {
    const qr *q = context;
    (void)worker;
    double *strip = q->strips + item * q->rows * KITH_STRIP;
    size_t first = item * KITH_STRIP, last = kith_min_size(first + KITH_STRIP, q->columns);
    memset(strip, 0, q->rows * KITH_STRIP * sizeof *strip);
    for (size_t c = first; c < last; c++) strip[c * KITH_STRIP + c % KITH_STRIP] = q->flips[c] ? -1 : 1;
    for (size_t k = last; k-- > 0;) reflect(q, strip, k);
    return KITH_OK;
}

kith_status kith_orthonormalise(double *strips, size_t rows, size_t columns, size_t threads) {
    qr q = {.strips = strips, .rows = rows, .columns = columns, .kernels = &kith_simd()->matrix};
    size_t count = kith_matrix_stride(columns) / KITH_STRIP;
    kith_status status;
    KITH_GO(kith_alloc(columns, rows * sizeof *q.v, &q.v));
    KITH_GO(kith_alloc(columns, sizeof *q.taus, &q.taus));
    KITH_GO(kith_alloc(columns, sizeof *q.flips, &q.flips));
    for (size_t s = 0; s < count; s++) {
        double *strip = strips + s * rows * KITH_STRIP;
        for (size_t k = s * KITH_STRIP; k < kith_min_size((s + 1) * KITH_STRIP, columns); k++) {
            make_reflection(&q, strip, k);
            reflect(&q, strip, k);
        }
        q.reduced = s;
        KITH_GO(kith_parallel_for(threads, count - s - 1, follow, &q));
    }
    KITH_GO(kith_parallel_for(threads, count, form, &q));
done:
    kith_free(q.v);
    kith_free(q.taus);
    kith_free(q.flips);
    return status;
}

/* ---- Random -------------------------------------------------------------------------------------------------- */

typedef struct gaussian {
    double *strips;
    size_t rows, columns;
    uint64_t seed, stream;
} gaussian;

static kith_status fill_strip(void *context, size_t item, size_t worker) {
    const gaussian *g = context;
    (void)worker;
    double *strip = g->strips + item * g->rows * KITH_STRIP;
    memset(strip, 0, g->rows * KITH_STRIP * sizeof *strip);
    for (size_t c = item * KITH_STRIP; c < kith_min_size((item + 1) * KITH_STRIP, g->columns); c++)
        for (size_t r = 0; r < g->rows; r++)
            strip[r * KITH_STRIP + c % KITH_STRIP] =
                (double)kith_random_normal(g->seed, g->stream, (uint64_t)c * g->rows + r);
    return KITH_OK;
}

kith_status kith_random_orthogonal(size_t rows, size_t columns, uint64_t seed, uint64_t stream, size_t threads,
                                   int is_transposed, float *out) {
    gaussian g = {.rows = rows, .columns = columns, .seed = seed, .stream = stream};
    size_t stride = kith_matrix_stride(columns);
    kith_status status;
    KITH_GO(kith_alloc(rows, stride * sizeof *g.strips, &g.strips));
    KITH_GO(kith_parallel_for(threads, stride / KITH_STRIP, fill_strip, &g));
    KITH_GO(kith_orthonormalise(g.strips, rows, columns, threads));
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++) {
            double value = g.strips[(c / KITH_STRIP * rows + r) * KITH_STRIP + c % KITH_STRIP];
            out[is_transposed ? c * rows + r : r * columns + c] = (float)value;
        }
done:
    kith_free(g.strips);
    return status;
}

/* ---- Procrustes ---------------------------------------------------------------------------------------------- */

typedef struct product {
    const double *a, *strips;
    double *out;
    size_t stride, n;
} product;

static kith_status multiply_strip(void *context, size_t item, size_t worker) {
    const product *p = context;
    (void)worker;
    size_t at = item * p->n * KITH_STRIP;
    kith_simd()->matrix.strip_multiply(p->a, p->stride, p->n, p->n, p->strips + at, p->out + at);
    return KITH_OK;
}

/* out = a * b: a row-major, b and out in strips. */
static kith_status multiply(const double *a, const double *b_strips, size_t n, size_t threads, double *out_strips) {
    product p = {a, b_strips, out_strips, kith_matrix_stride(n), n};
    return kith_parallel_for(threads, p.stride / KITH_STRIP, multiply_strip, &p);
}

static void transpose(const double *in, size_t n, size_t stride, double *out) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < stride; j++) out[i * stride + j] = j < n ? in[j * stride + i] : 0;
}

/* With C^T C = V D V^T, the columns of B = C V are orthogonal and their lengths are the singular values, so its
 * orthonormalised columns are the left singular vectors, and R = U V^T. Because the columns come with the largest
 * first, those that are zero or lost in rounding are just completed to a basis. */
kith_status kith_procrustes(const double *c, size_t n, size_t threads, double *r) {
    size_t stride = kith_matrix_stride(n);
    double *rows = NULL, *vectors = NULL, *strips = NULL, *other = NULL, *values = NULL;
    kith_status status;
    KITH_GO(kith_alloc(n, stride * sizeof *rows, &rows));
    KITH_GO(kith_alloc(n, stride * sizeof *vectors, &vectors));
    KITH_GO(kith_alloc(n, stride * sizeof *strips, &strips));
    KITH_GO(kith_alloc(n, stride * sizeof *other, &other));
    KITH_GO(kith_alloc(n, sizeof *values, &values));

    transpose(c, n, stride, rows);
    kith_to_strips(c, stride, n, n, strips);
    KITH_GO(multiply(rows, strips, n, threads, other)); /* C^T C */
    kith_from_strips(other, n, n, rows, stride);
    KITH_GO(kith_symmetric_eigen(rows, n, threads, values, vectors)); /* V^T */

    transpose(vectors, n, stride, rows);
    kith_to_strips(rows, stride, n, n, strips);
    KITH_GO(multiply(c, strips, n, threads, other));
    KITH_GO(kith_orthonormalise(other, n, n, threads)); /* U */

    kith_from_strips(other, n, n, rows, stride);
    kith_to_strips(vectors, stride, n, n, strips);
    KITH_GO(multiply(rows, strips, n, threads, other));
    kith_from_strips(other, n, n, r, stride);
done:
    kith_free(rows);
    kith_free(vectors);
    kith_free(strips);
    kith_free(other);
    kith_free(values);
    return status;
}
