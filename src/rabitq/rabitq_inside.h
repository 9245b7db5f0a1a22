/* SPDX-License-Identifier: Apache-2.0
 *
 * rabitq_inside.h: what RaBitQ and line codes are made of. Inside src/rabitq only.
 *
 * Both round a rotated vector to a grid of b-bit numbers whose step is chosen for that vector alone, and both estimate
 * products without bias (Gao and Long, "RaBitQ", SIGMOD 2024; Gao and others, "Practical and Asymptotically Optimal
 * Quantization of High-Dimensional Vectors in Euclidean Space ...", SIGMOD 2025). With r the rotated vector less its
 * reference point, u its numbers and x = u - (2^b - 1) / 2 the point of the grid that they stand for,
 *
 *     <r, y>  is estimated by  k <x, y>,  k = |r|^2 / <x, r>.
 *
 * RaBitQ keeps all dimensions. A line code fills a line of so many bytes to the last: it keeps as many principal
 * components as fit with b bits each, and training tries which b does best.
 */
#ifndef KITH_RABITQ_RABITQ_INSIDE_H
#define KITH_RABITQ_RABITQ_INSIDE_H

#include "code/grid.h"
#include "linalg/transform.h"

enum { KITH_RABITQ_BITS_MAX = 8 };

typedef struct kith_rabitq {
    kith_code code;
    size_t line_bytes;         /* 0: RaBitQ */
    size_t bits_wanted;        /* 0: training chooses */
    kith_grid grid;            /* of at least projected_dim numbers */
    kith_transform *transform; /* NULL until trained */
    /* projected_dim, or NULL for 0: added to every reference point, so that ip is estimated around the mean as well; under
     * l2 the transform subtracts it */
    float *centre;
    float centre_norm;
    /* Blocks of the transform's matrix in 8 bits a number, for queries; NULL: these take the transform. And how queries
     * in 8 bits and in 15 meet them. */
    unsigned char *narrow;
    kith_grid narrow_grids[2];
    /* Of the squared cosine between r and x: the mean, and what all but one in a hundred reach. */
    float cosine2_mean, cosine2_low;
} kith_rabitq;

static inline const kith_rabitq *kith_rabitq_of(const kith_code *code) { return (const kith_rabitq *)code; }

/* ---- rabitq_round.c ------------------------------------------------------------------------------------------- */

typedef struct kith_rounded {
    float add, scale; /* factors of grid.h */
    float cosine2;
} kith_rounded;

/* Scratch memory of one thread that encodes. */
typedef struct kith_rounder {
    const kith_rabitq *code;
    float *residual, *reference;
    uint8_t *numbers; /* of the row rounded last, grid.dim */
    uint8_t *ones;
    const float *reference_of; /* whose reference point is there */
    float reference_sum;
} kith_rounder;

kith_status kith_rounder_begin(kith_rounder *rounder, const kith_rabitq *code);
void kith_rounder_end(kith_rounder *rounder);
/* Rounds one projected row; centroid may be NULL. False: the factors are not finite. */
bool kith_rounder_row(kith_rounder *rounder, const float *row, const float *centroid, kith_rounded *out);

kith_status kith_rabitq_encode(const kith_code *code, const kith_code_rows *rows, unsigned char *codes);
kith_status kith_rabitq_decode(const kith_code *code, const kith_code_rows *rows, const unsigned char *codes,
                               float *out);
void kith_rabitq_restore(const kith_code *code, const unsigned char *row, unsigned char *scratch, float *out);

/* ---- rabitq.c ------------------------------------------------------------------------------------------------- */

/* The grid of these bits, and all sizes that follow. A line's bits have passed kith_line_dim. */
void kith_rabitq_set_bits(kith_rabitq *code, size_t bits);
/* Copies a code with what it has learnt. */
kith_status kith_rabitq_copy(const kith_rabitq *code, kith_rabitq **out);
/* Frees what training made, and forgets it. */
void kith_rabitq_forget(kith_rabitq *code);
kith_status kith_rabitq_project(const kith_code *code, const float *vectors, size_t count, size_t threads,
                                kith_arena *arena, float *out);

/* How many numbers of `bits` bits fill a line: as many as there is place for; 0 when they leave a word of it empty. */
size_t kith_line_dim(size_t line_bytes, size_t bits);

/* ---- line_project.c: how queries are projected ------------------------------------------------------------------ */

/* Makes `narrow` of a trained code from its transform, where it is worth it. */
kith_status kith_line_narrow(kith_rabitq *code);
/* Bytes of `narrow`, were it there. */
size_t kith_line_narrow_bytes(const kith_rabitq *code);
kith_status kith_line_project_queries(const kith_code *code, const float *queries, size_t count, bool to_unit,
                                      size_t threads, kith_arena *arena, float *out);

/* ---- rabitq_train.c, line_choice.c ---------------------------------------------------------------------------- */

kith_status kith_rabitq_train(kith_code *code, const kith_code_rows *sample, const kith_job *job);
kith_status kith_line_train(kith_code *code, const kith_code_rows *sample, const kith_job *job);

/* Row i of the sample's reference points, or NULL. */
static inline const float *kith_reference_of(const kith_code_rows *rows, size_t dim, size_t i) {
    if (rows->centroids == NULL) return NULL;
    return rows->centroids + (rows->assigned != NULL ? rows->assigned[i] : 0) * dim;
}

/* The rank test: how many of the best-ranked rows hold 95% and 99% of the held-out rows' true neighbours. */
typedef struct kith_rank_test kith_rank_test;
typedef struct kith_rank_result {
    size_t at_95, at_99;
} kith_rank_result;
/* *out stays NULL when the sample is too small for a test. The sample stays the caller's, unchanged until free. */
kith_status kith_rank_test_create(const kith_code_rows *sample, size_t dim, kith_metric metric, size_t threads,
                                  kith_rank_test **out);
void kith_rank_test_free(kith_rank_test *test);
kith_status kith_rank_test_run(const kith_rank_test *test, const kith_rabitq *code, size_t threads,
                               kith_rank_result *out);

/* ---- rabitq_file.c -------------------------------------------------------------------------------------------- */

kith_status kith_rabitq_save(const kith_code *code, kith_container_writer *writer, uint32_t *part);
kith_status kith_rabitq_load(kith_code *code, kith_container *file, uint32_t *part);

#endif
