/* SPDX-License-Identifier: Apache-2.0
 *
 * sq_inside.h: the scalar quantiser, and how its ranges are found.
 */
#ifndef KITH_SQ_SQ_INSIDE_H
#define KITH_SQ_SQ_INSIDE_H

#include "code/grid.h"
#include "sq/sq.h"

typedef enum kith_sq_range { KITH_SQ_MINMAX, KITH_SQ_QUANTILE, KITH_SQ_TRAINED } kith_sq_range;

typedef struct kith_sq {
    kith_code base;
    kith_grid grid;
    unsigned bits;
    bool is_uniform;
    kith_sq_range range;
    size_t cut_permille; /* of quantile: so much of the sample lies below the range, as much above it */
    /* dim each, in one block that begins at minimum; NULL before training. */
    float *minimum, *extent;
    float *centre; /* mean of the training rows, taken off queries under l2; 0 under ip */
    float *step;   /* extent / levels, in units of step_unit */
    float *middle; /* what levels / 2 stands for */
    float step_unit;
} kith_sq;

/* 2^bits - 1: what FAISS divides a range by. */
static inline unsigned kith_sq_levels(const kith_sq *sq) { return (1u << sq->bits) - 1; }

/* sq_train.c: the ranges of the rows, or of their residuals, and the mean of the rows themselves; dim each. */
kith_status kith_sq_find_ranges(const kith_sq *sq, const kith_code_rows *sample, const kith_job *job,
                                float *minimum, float *extent, float *mean);

#endif
