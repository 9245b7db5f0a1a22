/* SPDX-License-Identifier: Apache-2.0
 *
 * kith/quantizer.h: codes of vectors by themselves, without an index: how small they are and what they lose.
 *
 * An index that stores codes makes and uses them by itself; this is for those who want the codes, or want to choose
 * among them.
 */
#ifndef KITH_QUANTIZER_H
#define KITH_QUANTIZER_H

#include "kith/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A code with what it has learnt. Once trained it does not change until it is trained again: any number of threads may
 * encode, decode and measure at once. */
typedef struct kith_quantizer kith_quantizer;

/* Makes an untrained quantizer. `spec` names a code as the last part of an index's spec does: "SQ8", "SQ4_trained",
 * "PQ16", "RaBitQ4", "Line64", "f16". Under KITH_COSINE vectors are normalised before anything else; the code's choices
 * follow the metric (some codes need 4 bytes less under ip and cosine than under l2).
 * Errors: KITH_ERR_ARGUMENT names the character of the spec that is wrong, or a dimension outside 1..KITH_DIM_MAX;
 * KITH_ERR_UNSUPPORTED for KITH_HAMMING. Free *out with kith_quantizer_free. */
KITH_API kith_status kith_quantizer_create(const char *spec, size_t dim, kith_metric metric,
                                           kith_quantizer **out) KITH_CHECK_RESULT;
/* Takes NULL. */
KITH_API void kith_quantizer_free(kith_quantizer *quantizer);

/* The code's name as kith writes it; owned by the quantizer. */
KITH_API const char *kith_quantizer_spec(const kith_quantizer *quantizer);
KITH_API size_t kith_quantizer_dim(const kith_quantizer *quantizer);
KITH_API kith_metric kith_quantizer_metric(const kith_quantizer *quantizer);
/* Bytes of a vector's code, all that an index keeps for it but its id. Known before training. */
KITH_API size_t kith_quantizer_code_bytes(const kith_quantizer *quantizer);
/* Bytes of what was learnt: codebooks, ranges, rotations. */
KITH_API uint64_t kith_quantizer_memory(const kith_quantizer *quantizer);
/* 1 when it can encode: after kith_quantizer_train, or from the start where there is nothing to learn. */
KITH_API int kith_quantizer_is_trained(const kith_quantizer *quantizer);

/* Learns from a sample (f32, f16, bf16, i8, u8). All or nothing: after a failure what was learnt before stays. The same
 * bytes at any thread count. job: threads, seed, progress; memory_bytes_max: KITH_ERR_BUDGET when the sample as f32, or
 * what the code needs for training, does not fit. Not while another thread uses the quantizer.
 * Errors: KITH_ERR_DIMENSION, KITH_ERR_TYPE; KITH_ERR_NOT_FINITE, KITH_ERR_RANGE and KITH_ERR_ZERO_VECTOR name the row;
 * KITH_ERR_EMPTY; KITH_ERR_ARGUMENT for fewer vectors than the code needs. */
KITH_API kith_status kith_quantizer_train(kith_quantizer *quantizer, const kith_view *sample,
                                          const kith_job *job) KITH_CHECK_RESULT;
/* Writes vectors->count codes of code_bytes each, one after the other. After a failure `codes` is unspecified.
 * Errors as of train; KITH_ERR_NOT_TRAINED; KITH_ERR_RANGE for a row that the code cannot hold (i8, u8: whole numbers in
 * range only). job: threads. */
KITH_API kith_status kith_quantizer_encode(const kith_quantizer *quantizer, const kith_view *vectors,
                                           const kith_job *job, void *codes) KITH_CHECK_RESULT;
/* Writes count x dim: the vectors that the codes stand for, of unit length or nearly under cosine. `codes` has to come
 * from encode of this quantizer, and to be aligned to 4 bytes; any other bytes give some vectors, or none that are
 * finite, but do no harm. job: threads. */
KITH_API kith_status kith_quantizer_decode(const kith_quantizer *quantizer, const void *codes, size_t count,
                                           const kith_job *job, float *out) KITH_CHECK_RESULT;

/* What coding loses. */
typedef struct kith_quantizer_error {
    size_t size;          /* set by the caller: sizeof(kith_quantizer_error) */
    size_t count;         /* vectors */
    double squared_error; /* |x - decoded|^2, mean over the vectors (under cosine of normalised ones) */
    double
        relative_error; /* the same by the mean of |x - mean vector|^2: the share of the variance that is lost; NaN
                              when all vectors are alike */
} kith_quantizer_error;
/* Encodes and decodes all vectors and compares. job: threads. Errors as of encode. */
KITH_API kith_status kith_quantizer_measure(const kith_quantizer *quantizer, const kith_view *vectors,
                                            const kith_job *job, kith_quantizer_error *out) KITH_CHECK_RESULT;

/* Distances of vectors to codes, asymmetric: only one side is rounded. Those that a search of an index of these codes
 * has, in the metric's own terms. out: vectors->count x code_count. `codes` as in decode. job: threads. Errors as of
 * encode; KITH_ERR_OVERFLOW. */
KITH_API kith_status kith_quantizer_distances(const kith_quantizer *quantizer, const kith_view *vectors,
                                              const void *codes, size_t code_count, const kith_job *job,
                                              float *out) KITH_CHECK_RESULT;
/* Distances among codes, symmetric: both sides are rounded (Jegou, Douze and Schmid, TPAMI 2011, section III-A). Each of
 * the `count` codes is decoded once and then held against the `other_count` as a query, under cosine as it comes out,
 * with no new length. The two arrays may be one. out: count x other_count. job: threads. Errors:
 * KITH_ERR_NOT_TRAINED, KITH_ERR_ARGUMENT, KITH_ERR_OVERFLOW. */
KITH_API kith_status kith_quantizer_code_distances(const kith_quantizer *quantizer, const void *codes, size_t count,
                                                   const void *others, size_t other_count, const kith_job *job,
                                                   float *out) KITH_CHECK_RESULT;

#ifdef __cplusplus
}
#endif
#endif
