/* SPDX-License-Identifier: Apache-2.0
 *
 * decompose.h: dense decompositions in f64: what PCA, rotations and OPQ are computed with.
 *
 * They are our own and not LAPACK's, because the bits of LAPACK's results follow its number of threads and the
 * processor that it finds; these are the same at any thread count and on every instruction set. Where the time goes
 * they work on strips (simd/matrix.h), each of which one thread carries through a whole run of reflections or
 * rotations while it is in the cache.
 *
 * A square matrix of size n has rows of kith_matrix_stride(n) elements, zero past n.
 */
#ifndef KITH_LINALG_DECOMPOSE_H
#define KITH_LINALG_DECOMPOSE_H

#include "base/memory.h"
#include "simd/matrix.h"

static inline size_t kith_matrix_stride(size_t columns) { return kith_round_up(columns, KITH_STRIP); }

/* Eigenvalues, largest first, and eigenvectors of a symmetric matrix, both halves of which are given; it is
 * destroyed. Row i of `vectors` (n rows of the same stride) becomes the unit eigenvector of values[i], its component
 * of the largest magnitude (the first of several) positive.
 * Householder's reduction to tridiagonal form and the implicit QL iteration (Golub and Van Loan, "Matrix
 * Computations", 4th edition, 8.3). KITH_ERR_NO_MEMORY; KITH_ERR_NOT_FINITE when the matrix is not. */
kith_status kith_symmetric_eigen(double *matrix, size_t n, size_t threads, double *values, double *vectors);

/* Replaces the columns of a matrix in strips by orthonormal ones that span the same, as Gram and Schmidt's process
 * would, by Householder reflections: Q of the QR decomposition whose R has a diagonal >= 0. Columns that depend on
 * those before them become some completing vectors. rows >= columns; strip s holds columns 32 s and on and starts at
 * strips + s * rows * 32; columns past `columns` are zero and stay so. */
kith_status kith_orthonormalise(double *strips, size_t rows, size_t columns, size_t threads);

/* A matrix of independent normal numbers, orthonormalised, so that it is uniform over all of its kind (Stewart 1980):
 * rows >= columns, orthonormal columns, row-major f32, into out[r * columns + c] or, when transposed, into
 * out[c * rows + r]. */
kith_status kith_random_orthogonal(size_t rows, size_t columns, uint64_t seed, uint64_t stream, size_t threads,
                                   int is_transposed, float *out);

/* The orthogonal matrix R that makes trace(R^T C) largest, that is, |X R - Y| least for C = X^T Y: Schönemann's
 * solution of the orthogonal Procrustes problem (1966). C and R are n x n of the same stride and may not overlap. */
kith_status kith_procrustes(const double *c, size_t n, size_t threads, double *r);

/* Row-major with the given stride to strips of `rows` rows, and back. */
void kith_to_strips(const double *matrix, size_t stride, size_t rows, size_t columns, double *strips);
void kith_from_strips(const double *strips, size_t rows, size_t columns, double *matrix, size_t stride);

#endif
