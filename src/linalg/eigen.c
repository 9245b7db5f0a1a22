/* SPDX-License-Identifier: Apache-2.0
 *
 * eigen.c: eigenvalues and eigenvectors of a symmetric matrix.
 *
 *   A = Q T Q^T    by Householder reflections; T is tridiagonal
 *   T = S D S^T    by implicit QL sweeps of plane rotations; D is diagonal
 *
 * The rows of X = S^T Q^T are the eigenvectors. X is kept in strips: Q^T is made by applying the reflections to the
 * identity, strip by strip; the rotations are gathered for some sweeps and then applied strip by strip.
 */
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/error.h"
#include "base/parallel.h"
#include "linalg/decompose.h"
#include "simd/simd.h"

/* Rows that a task of the reduction takes; with fewer rows than that a step is too short for a second thread. */
enum { ROWS_PER_TASK = 32, ROWS_WORTH_THREADS = 1024 };
/* Rotations that are gathered before they are applied: c and s of all lie in the second-level cache with a strip. */
enum { ROTATIONS_MAX = 16384, SWEEPS_MAX = 512, SWEEPS_PER_VALUE_MAX = 60 };

typedef struct sweep {
    size_t first, count; /* rows first .. first + count are rotated */
    size_t at;           /* its rotations in c and s */
} sweep;

typedef struct eigen {
    size_t n, stride, threads;
    const kith_matrix_kernels *kernels;
    double *matrix;    /* the symmetric matrix; row k becomes reflection k */
    double *taus;      /* n */
    double *d, *e;     /* n: diagonal; e[k] couples k and k + 1 */
    double *v, *w, *p; /* stride each, of the reduction */
    double *x;         /* the strips of X */
    double *c, *s;     /* rotations gathered: room for ROTATIONS_MAX + n */
    sweep sweeps[SWEEPS_MAX];
    size_t sweep_count, rotation_count;
} eigen;

static size_t strip_count(const eigen *g) { return g->stride / KITH_STRIP; }

static kith_status allocate(eigen *g) {
    size_t n = g->n, stride = g->stride;
    KITH_TRY(kith_alloc(n, sizeof *g->taus, &g->taus));
    KITH_TRY(kith_alloc(n, sizeof *g->d, &g->d));
    KITH_TRY(kith_alloc_zeroed(n, sizeof *g->e, &g->e));
    KITH_TRY(kith_alloc_zeroed(stride, sizeof *g->v, &g->v));
    KITH_TRY(kith_alloc_zeroed(stride, sizeof *g->w, &g->w));
    KITH_TRY(kith_alloc_zeroed(stride, sizeof *g->p, &g->p));
    KITH_TRY(kith_alloc(n, stride * sizeof *g->x, &g->x));
    KITH_TRY(kith_alloc(ROTATIONS_MAX + n, sizeof *g->c, &g->c));
    return kith_alloc(ROTATIONS_MAX + n, sizeof *g->s, &g->s);
}

static void release(eigen *g) {
    kith_free(g->taus);
    kith_free(g->d);
    kith_free(g->e);
    kith_free(g->v);
    kith_free(g->w);
    kith_free(g->p);
    kith_free(g->x);
    kith_free(g->c);
    kith_free(g->s);
}

/* Divides by the largest magnitude, so that no square underflows or overflows; returns it in *scale. */
static kith_status normalise(eigen *g, double *scale) {
    double largest = 0;
    for (size_t i = 0; i < g->n; i++)
        for (size_t j = 0; j < g->n; j++) {
            double value = fabs(g->matrix[i * g->stride + j]);
            if (!(value <= DBL_MAX)) return kith_error(KITH_ERR_NOT_FINITE, "eigenvalues: element %zu, %zu", i, j);
            if (value > largest) largest = value;
        }
    *scale = largest;
    if (largest > 0)
        for (size_t i = 0; i < g->n; i++)
            for (size_t j = 0; j < g->n; j++) g->matrix[i * g->stride + j] /= largest;
    return KITH_OK;
}

/* ---- Reduction to tridiagonal form --------------------------------------------------------------------------- */

/* Makes v, the reflection that takes x = row[first..n-1] to a multiple of its first unit vector: v[first] = 1, zero
 * before. Returns that multiple. */
static double make_reflection(const double *row, size_t first, size_t n, size_t stride, double *v, double *tau) {
    memset(v, 0, stride * sizeof *v);
    *tau = 0;
    if (first >= n) return 0;
    double alpha = row[first], tail = 0;
    for (size_t j = first + 1; j < n; j++) tail += row[j] * row[j];
    if (tail < DBL_MIN) return alpha; /* the elements are below 1e-153 of the largest */
    double norm = sqrt(alpha * alpha + tail), beta = alpha > 0 ? -norm : norm;
    *tau = (beta - alpha) / beta;
    v[first] = 1;
    for (size_t j = first + 1; j < n; j++) v[j] = row[j] / (alpha - beta);
    return beta;
}

typedef struct step {
    eigen *g;
    size_t k;
    const double *v_before;
} step;

/* Brings rows below k up to date with the reflection before (A -= v w^T + w v^T) and multiplies them by the new v,
 * in one pass over them. */
static kith_status update_rows(void *context, size_t item, size_t worker) {
    const step *now = context;
    eigen *g = now->g;
    (void)worker;
    size_t first = now->k + 1 + item * ROWS_PER_TASK, last = kith_min_size(first + ROWS_PER_TASK, g->n);
    size_t from = (now->k + 1) / KITH_STRIP * KITH_STRIP;
    for (size_t r = first; r < last; r++)
        g->p[r] = g->kernels->update_dot(g->matrix + r * g->stride + from, now->v_before[r], g->w + from, g->w[r],
                                         now->v_before + from, g->v + from, g->stride - from);
    return KITH_OK;
}

/* w = tau p - (tau^2 / 2) (p^T v) v, zero up to k. */
static void make_w(eigen *g, size_t k) {
    double dot = 0, tau = g->taus[k];
    for (size_t r = k + 1; r < g->n; r++) dot += g->p[r] * g->v[r];
    g->w[k] = 0;
    for (size_t r = k + 1; r < g->n; r++) g->w[r] = tau * g->p[r] - tau * tau / 2 * dot * g->v[r];
}

static kith_status reduce(eigen *g) {
    for (size_t k = 0; k < g->n; k++) {
        double *row = g->matrix + k * g->stride;
        /* The reflection before this one lies where the row before was. */
        const double *v_before = k > 0 ? g->matrix + (k - 1) * g->stride : g->v;
        double a = v_before[k], b = g->w[k];
        for (size_t j = k; j < g->n; j++) row[j] -= a * g->w[j] + b * v_before[j];
        g->d[k] = row[k];
        double beta = make_reflection(row, k + 1, g->n, g->stride, g->v, &g->taus[k]);
        if (k + 1 < g->n) g->e[k] = beta;
        step now = {g, k, v_before};
        size_t rows = g->n - k - 1, tasks = (rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK;
        KITH_TRY(kith_parallel_for(rows >= ROWS_WORTH_THREADS ? g->threads : 1, tasks, update_rows, &now));
        make_w(g, k);
        memcpy(row, g->v, g->stride * sizeof *row);
    }
    return KITH_OK;
}

static kith_status form_strip(void *context, size_t item, size_t worker) {
    eigen *g = context;
    (void)worker;
    double *strip = g->x + item * g->n * KITH_STRIP;
    memset(strip, 0, g->n * KITH_STRIP * sizeof *strip);
    for (size_t j = 0; j < KITH_STRIP && item * KITH_STRIP + j < g->n; j++)
        strip[(item * KITH_STRIP + j) * KITH_STRIP + j] = 1;
    for (size_t k = 0; k + 1 < g->n; k++)
        if (g->taus[k] != 0)
            g->kernels->strip_reflect(strip + (k + 1) * KITH_STRIP, g->n - k - 1, g->matrix + k * g->stride + k + 1,
                                      g->taus[k]);
    return KITH_OK;
}

/* ---- QL ------------------------------------------------------------------------------------------------------ */

static kith_status rotate_strip(void *context, size_t item, size_t worker) {
    eigen *g = context;
    (void)worker;
    double *strip = g->x + item * g->n * KITH_STRIP;
    for (size_t i = 0; i < g->sweep_count; i++) {
        const sweep *one = &g->sweeps[i];
        g->kernels->strip_rotate(strip + one->first * KITH_STRIP, g->c + one->at, g->s + one->at, one->count);
    }
    return KITH_OK;
}

static kith_status apply_sweeps(eigen *g) {
    KITH_TRY(kith_parallel_for(g->threads, strip_count(g), rotate_strip, g));
    g->sweep_count = g->rotation_count = 0;
    return KITH_OK;
}

/* Below this, in a matrix whose largest element is 1, an element is as good as zero: the error that dropping it makes
 * is smaller than rounding's. Without this bound the rounding errors of a matrix of low rank never settle. */
static const double nothing = 1e-17;

static double length_of(double a, double b) { return sqrt(a * a + b * b); }

/* One sweep over rows first..last of T, with Wilkinson's shift; its rotations are noted. */
static void ql_sweep(eigen *g, size_t first, size_t last) {
    double *d = g->d, *e = g->e, *c = g->c + g->rotation_count, *s = g->s + g->rotation_count;
    double half = (d[first + 1] - d[first]) / (2 * e[first]);
    double bulge = d[last] - d[first] + e[first] / (half + copysign(length_of(half, 1), half));
    double sine = 1, cosine = 1, moved = 0;
    bool is_apart = false;
    size_t i = last;
    while (i > first && !is_apart) {
        double f = sine * e[i - 1], b = cosine * e[i - 1], length = length_of(f, bulge);
        if (i < last) e[i] = length;
        is_apart = length == 0;
        if (is_apart) break;
        sine = f / length;
        cosine = bulge / length;
        double before = d[i] - moved, r = (d[i - 1] - before) * sine + 2 * cosine * b;
        moved = sine * r;
        d[i] = before + moved;
        bulge = cosine * r - b;
        i--;
        c[i - first] = cosine;
        s[i - first] = sine;
    }
    d[i] -= moved;
    if (!is_apart) e[i] = bulge;
    if (last + 1 < g->n) e[last] = 0;
    g->sweeps[g->sweep_count++] = (sweep){i, last - i, g->rotation_count + (i - first)};
    g->rotation_count += last - first;
}

static kith_status iterate(eigen *g) {
    for (size_t l = 0; l < g->n; l++)
        for (size_t count = 0;; count++) {
            size_t m = l;
            for (; m + 1 < g->n; m++) {
                double size = fabs(g->d[m]) + fabs(g->d[m + 1]);
                if (fabs(g->e[m]) <= DBL_EPSILON / 2 * size || fabs(g->e[m]) < nothing) break;
            }
            if (m == l) break;
            if (count == SWEEPS_PER_VALUE_MAX)
                return kith_error(KITH_ERR_INTERNAL, "eigenvalue %zu of %zu: no end after %zu sweeps", l, g->n,
                                  count);
            ql_sweep(g, l, m);
            if (g->sweep_count == SWEEPS_MAX || g->rotation_count >= ROTATIONS_MAX) KITH_TRY(apply_sweeps(g));
        }
    return apply_sweeps(g);
}

/* ---- The result ---------------------------------------------------------------------------------------------- */

/* Row `from` of X, with its sign made definite. */
static void take_vector(const eigen *g, size_t from, double *out) {
    size_t largest = 0;
    for (size_t j = 0; j < g->stride; j++) {
        out[j] = g->x[j / KITH_STRIP * g->n * KITH_STRIP + from * KITH_STRIP + j % KITH_STRIP];
        if (fabs(out[j]) > fabs(out[largest])) largest = j;
    }
    if (out[largest] < 0)
        for (size_t j = 0; j < g->n; j++) out[j] = -out[j];
}

static void take_sorted(eigen *g, double scale, double *values, double *vectors) {
    for (size_t i = 0; i < g->n; i++) {
        size_t best = 0; /* the first of the largest that are left; those taken are NaN */
        for (size_t j = 1; j < g->n; j++)
            if (g->d[j] > g->d[best] || isnan(g->d[best])) best = j;
        values[i] = g->d[best] * scale;
        take_vector(g, best, vectors + i * g->stride);
        g->d[best] = NAN;
    }
}

kith_status kith_symmetric_eigen(double *matrix, size_t n, size_t threads, double *values, double *vectors) {
    eigen g = {.n = n,
               .stride = kith_matrix_stride(n),
               .threads = threads,
               .kernels = &kith_simd()->matrix,
               .matrix = matrix};
    double scale = 0;
    kith_status status;
    KITH_GO(allocate(&g));
    KITH_GO(normalise(&g, &scale));
    KITH_GO(reduce(&g));
    KITH_GO(kith_parallel_for(threads, strip_count(&g), form_strip, &g));
    KITH_GO(iterate(&g));
    take_sorted(&g, scale, values, vectors);
done:
    release(&g);
    return status;
}
