/* SPDX-License-Identifier: Apache-2.0
 *
 * transform.h: what is done to vectors before a structure or a code sees them.
 *
 * A transform takes vectors of dim_in elements of any type of an index and gives dim_out elements of f32. It is made
 * by one of the constructors below, trained once (also where training needs no rows), and then applied from any
 * number of threads at once; nothing but training changes it. A row's result depends on that row alone: it is the
 * same bits applied alone or in a batch, at any thread count, on every instruction set.
 *
 * Rows are checked by the caller (kith_check_vectors): an element that is not finite is refused by training, and not
 * noticed when a transform is applied.
 */
#ifndef KITH_LINALG_TRANSFORM_H
#define KITH_LINALG_TRANSFORM_H

#include <stdbool.h>

#include "base/arena.h"
#include "io/container.h"
#include "kith/types.h"

/* Numbers stand in files: never reused. */
typedef enum kith_transform_kind {
    KITH_TRANSFORM_PCA = 1,
    KITH_TRANSFORM_ROTATION = 2,
    KITH_TRANSFORM_FAST_ROTATION = 3,
    KITH_TRANSFORM_OPQ = 4,
    KITH_TRANSFORM_CENTRE = 5,
    KITH_TRANSFORM_NORMALISE = 6,
    KITH_TRANSFORM_PAD = 7,
    KITH_TRANSFORM_CHAIN = 8
} kith_transform_kind;

typedef struct kith_transform kith_transform;

/* ---- Constructors: each checks its arguments (KITH_ERR_ARGUMENT) and hands out an untrained transform ---------- */

typedef struct kith_pca_options {
    float eigen_power; /* default 0; -0.5 whitens: component i is multiplied by eigenvalue i to this power. -1..1 */
    bool is_rotated;   /* default false; true: a random rotation afterwards, which spreads the variance */
    bool is_centred;   /* default true: the mean is subtracted. false keeps inner products in order */
    size_t rows_max;   /* default 0: 256 for each dimension, at least 65,536; so many rows are trained on */
} kith_pca_options;
void kith_pca_options_init(kith_pca_options *options);

/* Principal components: the dim_out <= dim_in directions of the largest variance (Jolliffe, "Principal Component
 * Analysis", 2nd edition, chapter 2). "PCA64", "PCAR64", with eigen_power -0.5 "PCAW64", "PCAWR64". A direction
 * without variance (below 1e-7 of the largest) gives 0 when eigen_power < 0. */
kith_status kith_pca_create(size_t dim_in, size_t dim_out, const kith_pca_options *options, kith_transform **out);

/* The first dim_out components of a trained PCA that is not rotated and does not whiten, and a random rotation
 * afterwards: what training with is_rotated gives, without training again. job: threads, seed. */
kith_status kith_pca_narrow(const kith_transform *pca, size_t dim_out, const kith_job *job, kith_transform **out);

/* A dense random rotation, orthonormal rows (dim_out <= dim_in) or columns: "RR64". Training takes job.seed. */
kith_status kith_rotation_create(size_t dim_in, size_t dim_out, kith_transform **out);

/* A random rotation in O(d log d): dim_in is padded to a multiple of 64, which is dim_out; then four rounds of random
 * sign flips, a fast Hadamard transform of the longest power of two at the beginning (odd rounds: at the end), and,
 * unless that was all of it, Kac's butterfly between the halves (Ailon and Chazelle 2009; Gao and others, "Practical
 * and Asymptotically Optimal Quantization ...", SIGMOD 2025, use it for RaBitQ). "HR128". */
kith_status kith_fast_rotation_create(size_t dim_in, kith_transform **out);

typedef struct kith_opq_options {
    size_t bits;              /* default 8: of a code; 4..12 */
    size_t rounds;            /* default 20; 0: the parametric start alone */
    size_t rows_max;          /* default 0: 256 for each codeword, 65,536 for 8 bits */
    size_t kmeans_iterations; /* default 10: of the start; each round then moves every codeword once */
} kith_opq_options;
void kith_opq_options_init(kith_opq_options *options);

/* The rotation (with a projection before, dim_out < dim_in; with zeros, dim_out > dim_in) under which a product
 * quantiser of `parts` parts loses least: Ge, He, Ke and Sun, "Optimized Product Quantization", TPAMI 2014: the
 * parametric solution (section 4: eigenvalues dealt out to the parts) starts the alternation of section 3.
 * parts divides dim_out. "OPQ16_64". */
kith_status kith_opq_create(size_t dim_in, size_t dim_out, size_t parts, const kith_opq_options *options,
                            kith_transform **out);

/* Subtracts the mean: "Centre". */
kith_status kith_centre_create(size_t dim, kith_transform **out);
/* Divides by the length; a vector whose squared norm is below FLT_MIN becomes zero: "L2norm". */
kith_status kith_normalise_create(size_t dim, kith_transform **out);
/* Appends zeros, or cuts off: "Pad128". */
kith_status kith_pad_create(size_t dim_in, size_t dim_out, kith_transform **out);
/* One after the other. Takes the members, untrained or trained, over on success alone; none of them a chain, each
 * dim_in the dim_out before. member_count 1..16. The names joined by commas. */
kith_status kith_chain_create(kith_transform *const *members, size_t member_count, kith_transform **out);

/* ---- What a transform is ------------------------------------------------------------------------------------- */

/* What two vectors' relations become: does every pair keep its distance, its inner product? Up to rounding, for any
 * vectors. */
enum { KITH_KEEPS_L2 = 1, KITH_KEEPS_IP = 2 };

size_t kith_transform_dim_in(const kith_transform *transform);
size_t kith_transform_dim_out(const kith_transform *transform);
bool kith_transform_is_trained(const kith_transform *transform);
/* Does training look at rows? Random rotations, L2norm and Pad do not. */
bool kith_transform_needs_rows(const kith_transform *transform);
unsigned kith_transform_keeps(const kith_transform *transform);
/* The name as a spec has it, "PCA64" or "L2norm,RR64", cut at bytes - 1. */
void kith_transform_describe(const kith_transform *transform, char *text, size_t bytes);
/* Is a trained transform out = matrix (in - mean), by itself or as centring before such a one? Then its matrix
 * (dim_out x dim_in) and its mean (dim_in; NULL: 0), which live as long as it does. */
bool kith_transform_matrix(const kith_transform *transform, const float **matrix, const float **mean);
/* Bytes of memory it holds. */
uint64_t kith_transform_bytes(const kith_transform *transform);
/* PCA: its dim_in eigenvalues (variances), largest first; NULL for any other, and before training. */
const float *kith_transform_eigenvalues(const kith_transform *transform);

/* ---- Training, applying -------------------------------------------------------------------------------------- */

/* Trains on rows (NULL where none are needed). On failure the transform is as before. job: threads, seed, progress
 * (phases "pca", "opq"), memory_bytes_max.
 * KITH_ERR_NOT_FINITE, KITH_ERR_RANGE name the row; KITH_ERR_DIMENSION; KITH_ERR_EMPTY without rows;
 * KITH_ERR_ARGUMENT when OPQ gets fewer rows than codewords; KITH_ERR_BUDGET; KITH_ERR_CANCELLED. */
kith_status kith_transform_train(kith_transform *transform, const kith_view *rows, const kith_job *job);

/* `out` gets rows->count x dim_out, packed. Scratch memory comes from the arena, begun by the caller: a call of the
 * same size allocates nothing. KITH_ERR_NOT_TRAINED, KITH_ERR_DIMENSION, KITH_ERR_TYPE, KITH_ERR_NO_MEMORY. */
kith_status kith_transform_apply(const kith_transform *transform, const kith_view *rows, size_t threads,
                                 kith_arena *arena, float *out);
/* The way back, from dim_out to dim_in: exact up to rounding where nothing was cut off, else the nearest vector.
 * `rows` are f32. KITH_ERR_UNSUPPORTED for L2norm, and for a chain that has one. */
kith_status kith_transform_invert(const kith_transform *transform, const kith_view *rows, size_t threads,
                                  kith_arena *arena, float *out);

/* One vector, of a trained transform and without any allocation: scratch has kith_transform_scratch floats, aligned
 * to 64. */
size_t kith_transform_scratch(const kith_transform *transform);
void kith_transform_apply_one(const kith_transform *transform, const void *vector, kith_dtype dtype, float *out,
                              float *scratch);

/* ---- Copies and files ---------------------------------------------------------------------------------------- */

/* Do two transforms do the same, bit for bit? */
bool kith_transform_is_same(const kith_transform *a, const kith_transform *b);
kith_status kith_transform_clone(const kith_transform *transform, kith_transform **out);
/* Takes NULL. */
void kith_transform_free(kith_transform *transform);

/* Writes sections TRNS.... of the parts *part and on (a chain takes one for itself and one for each member), and
 * raises *part by their number: see container.h. transform_file.c describes them. */
kith_status kith_transform_save(const kith_transform *transform, kith_container_writer *writer, uint32_t *part);
/* The same way back; the file is not needed afterwards. KITH_ERR_FORMAT names what is wrong. */
kith_status kith_transform_load(kith_container *container, uint32_t *part, kith_transform **out);

#endif
