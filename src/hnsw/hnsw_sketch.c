/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_sketch.c: the vectors in 8 bits, for as long as an addition takes. Links are chosen by distances between
 * nodes, thousands for each new node, and in 8 bits these touch a quarter of the memory of f32, take a sixth of the
 * time, and are whole numbers. It is also what a graph of codes is built on, as codes are not held against each other.
 *
 * One step for all dimensions, so that distances keep their proportions; a centre for each. Under ip values are
 * signed and the centre is 0.
 */
#include <math.h>

#include "base/error.h"
#include "hnsw/hnsw_inside.h"

enum { HALF_RANGE = 127, DEVIATIONS = 4 };

void kith_hnsw_sketch_free(kith_hnsw_sketch *sketch) {
    kith_free(sketch->rows);
    kith_free(sketch->centres);
    *sketch = (kith_hnsw_sketch){0};
}

/* Vectors of bytes are taken as they are. */
static bool is_bytes(const kith_hnsw *graph, kith_dtype dtype) {
    return graph->base.metric == KITH_L2 && (dtype == KITH_U8 || dtype == KITH_I8);
}

/* The step that lets four deviations of the widest dimension fit, but not more than four times what fits those of
 * the mean dimension: a few wide dimensions are rather cut off than that all others lose their bits. */
static void fit(kith_hnsw_sketch *sketch, const float *sample, size_t count) {
    double mean_variance = 0, widest = 0;
    for (size_t d = 0; d < sketch->dim; d++) {
        double sum = 0, squares = 0, most = 0;
        for (size_t i = 0; i < count; i++) sum += (double)sample[i * sketch->dim + d];
        double centre = sketch->is_signed ? 0 : sum / (double)count;
        for (size_t i = 0; i < count; i++) {
            double apart = fabs((double)sample[i * sketch->dim + d] - centre);
            squares += apart * apart;
            most = apart > most ? apart : most;
        }
        double variance = squares / (double)count, range = DEVIATIONS * sqrt(variance);
        mean_variance += variance / (double)sketch->dim;
        if (range > most) range = most;
        if (range > widest) widest = range;
        sketch->centres[d] = (float)centre;
    }
    double bound = 4 * DEVIATIONS * sqrt(mean_variance), range = widest < bound ? widest : bound;
    sketch->inverse_step = range > 0 ? (float)(HALF_RANGE / range) : 0;
}

kith_status kith_hnsw_sketch_make(const kith_hnsw *graph, kith_dtype dtype, const float *sample,
                                  size_t sample_count, size_t node_count, kith_hnsw_sketch *out) {
    kith_status status;
    *out = (kith_hnsw_sketch){.dim = graph->base.dim,
                              .stride = kith_round_up(graph->base.dim, KITH_ALIGNMENT),
                              .is_signed = graph->base.metric == KITH_IP};
    KITH_GO(kith_alloc(node_count, out->stride, &out->rows));
    KITH_GO(kith_alloc(out->dim, sizeof *out->centres, &out->centres));
    if (is_bytes(graph, dtype)) {
        for (size_t d = 0; d < out->dim; d++) out->centres[d] = dtype == KITH_U8 ? HALF_RANGE + 1 : 0;
        out->inverse_step = 1;
    } else {
        fit(out, sample, sample_count);
    }
done:
    if (status != KITH_OK) kith_hnsw_sketch_free(out);
    return status;
}

void kith_hnsw_sketch_put(kith_hnsw_sketch *sketch, uint32_t node, const float *vector) {
    unsigned char *row = sketch->rows + (size_t)node * sketch->stride;
    float centre = sketch->is_signed ? 0 : HALF_RANGE + 1;
    for (size_t d = 0; d < sketch->dim; d++) {
        float value = (vector[d] - sketch->centres[d]) * sketch->inverse_step;
        value = fminf(fmaxf(value, -(HALF_RANGE + 1)), HALF_RANGE) + centre;
        int32_t whole = (int32_t)(value + (value < 0 ? -0.5f : 0.5f));
        row[d] = (unsigned char)(whole & 0xff);
    }
}
