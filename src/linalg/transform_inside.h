/* SPDX-License-Identifier: Apache-2.0
 *
 * transform_inside.h: what transforms are made of. Inside src/linalg only.
 *
 * All kinds share one struct: their parameters and the arrays that training makes. So copying, saving, loading and
 * counting bytes are written once, over the list of arrays; a kind adds how it trains and how it is applied.
 */
#ifndef KITH_LINALG_TRANSFORM_INSIDE_H
#define KITH_LINALG_TRANSFORM_INSIDE_H

#include "base/parallel.h"
#include "linalg/moments.h"
#include "linalg/transform.h"

enum { KITH_CHAIN_MAX = 16, KITH_FAST_ROUNDS = 4, KITH_FAST_UNIT = 64 };
/* Rows of a block: what one task transforms, and the most that apply is given. */
enum { KITH_TRANSFORM_BLOCK = 192 };

/* What training makes. A NULL array is not there. */
typedef struct kith_transform_arrays {
    float *mean;   /* dim_in */
    float *matrix; /* dim_out x dim_in: out = matrix (in - mean) */
    float *back;   /* dim_out x dim_in: in = back^T out + mean; NULL: the matrix serves, its rows are orthonormal */
    float *eigenvalues; /* dim_in */
    uint32_t *signs;    /* KITH_FAST_ROUNDS x dim_out / 32 */
    float *panels;      /* the matrix, packed for the tile kernel; never saved */
} kith_transform_arrays;

typedef struct kith_transform_vtable kith_transform_vtable;

struct kith_transform {
    const kith_transform_vtable *vtable;
    size_t dim_in, dim_out;
    bool is_trained;
    kith_pca_options pca; /* of a PCA */
    size_t parts;         /* of an OPQ */
    kith_opq_options opq;
    kith_transform_arrays arrays;
    kith_transform *members[KITH_CHAIN_MAX]; /* of a chain */
    size_t member_count;
};

struct kith_transform_vtable {
    kith_transform_kind kind;
    const char *name; /* for messages */
    bool needs_rows;
    unsigned arrays; /* those that a trained one has to have, bits 1 << KITH_ARRAY_... */
    unsigned arrays_optional;
    kith_status (*check)(const kith_transform *transform); /* of dimensions and parameters, as made and as loaded */
    void (*describe)(const kith_transform *transform, char *text, size_t bytes);
    unsigned (*keeps)(const kith_transform *transform);
    /* Makes new arrays; rows are checked, NULL when not needed. What is in `arrays` on failure the caller frees. */
    kith_status (*train)(const kith_transform *transform, const kith_view *rows, const kith_job *job,
                         kith_transform_arrays *arrays);
    /* Floats of scratch that apply and invert need for `count` rows. */
    size_t (*scratch)(const kith_transform *transform, size_t count);
    /* count <= KITH_TRANSFORM_BLOCK packed rows; in, out and scratch do not overlap. */
    void (*apply)(const kith_transform *transform, const float *in, size_t count, float *out, float *scratch);
    void (*invert)(const kith_transform *transform, const float *in, size_t count, float *out, float *scratch);
};

extern const kith_transform_vtable kith_transform_pca, kith_transform_rotation, kith_transform_fast_rotation,
    kith_transform_opq, kith_transform_centre, kith_transform_normalise, kith_transform_pad, kith_transform_chain;

/* The arrays, in the order of their bits. Numbers stand in files. */
enum {
    KITH_ARRAY_MEAN,
    KITH_ARRAY_MATRIX,
    KITH_ARRAY_BACK,
    KITH_ARRAY_EIGENVALUES,
    KITH_ARRAY_SIGNS,
    KITH_ARRAY_SAVED, /* so many are in files */
    KITH_ARRAY_PANELS = KITH_ARRAY_SAVED,
    KITH_ARRAY_COUNT
};
/* Array `which` by its number; all have elements of 4 bytes. */
void *kith_transform_array(const kith_transform_arrays *arrays, int which);
void kith_transform_array_set(kith_transform_arrays *arrays, int which, void *array);
size_t kith_transform_array_count(const kith_transform *transform, int which);
void kith_transform_arrays_free(kith_transform_arrays *arrays);

/* Makes an untrained transform out of a filled-in one, after its check. */
kith_status kith_transform_create(const kith_transform *filled, kith_transform **out);

/* affine.c: out = matrix (in - mean), for all kinds with a matrix. */
kith_status kith_affine_pack(size_t dim_in, size_t dim_out, const float *matrix, float **panels);
size_t kith_affine_scratch(const kith_transform *transform, size_t count);
void kith_affine_apply(const kith_transform *transform, const float *in, size_t count, float *out, float *scratch);
void kith_affine_invert(const kith_transform *transform, const float *in, size_t count, float *out, float *scratch);

/* pca.c: mean (or zeros), eigenvalues and eigenvectors (rows, f64) of the rows' covariance, for OPQ too. `meter` or
 * NULL counts rows. */
typedef struct kith_components {
    double *mean;    /* dim */
    double *values;  /* dim */
    double *vectors; /* dim rows of kith_matrix_stride(dim) */
} kith_components;
kith_status kith_components_find(const kith_view *rows, size_t rows_max, bool is_centred, const kith_job *job,
                                 kith_meter *meter, kith_components *out);
void kith_components_free(kith_components *components);
/* Bytes needed for it; SIZE_MAX when that does not fit. */
size_t kith_components_bytes(size_t dim);

/* chain.c: trains the members of a chain, all or none of them. */
kith_status kith_chain_train(kith_transform *transform, const kith_view *rows, const kith_job *job);
/* Transforms a sample, some thousand rows at a time. */
kith_status kith_sample_transform(const kith_sample *sample, const kith_transform *transform, size_t threads,
                                  float *out);

/* KITH_ERR_BUDGET when `bytes` pass job->memory_bytes_max. */
kith_status kith_budget_check(const char *what, size_t bytes, const kith_job *job);

#endif
