/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_sketch.c: the vectors in 8 bits, for as long as an addition takes. Links are chosen by distances between
 * nodes, thousands for each new node, and in 8 bits these touch a quarter of the memory of f32, take a sixth of the
 * time, and are whole numbers. It is also what a graph of codes is built on; only a few new ones are held against codes.
 *
 * One step for all dimensions, so that distances keep their proportions; a centre for each. Under ip values are
 * signed and the centre is 0; but where many vectors are linked at once it is of their directions, and their lengths stand
 * beside it. Where vectors lie so much nearer to each other than they spread that 8 bits cannot tell
 * them apart (far clusters), there is no sketch in 8 bits: a graph of codes then takes one in f32.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "hnsw/hnsw_inside.h"
#include "index/convert.h"

#define LEVEL 1.02f      /* how much longer the longest of equally long vectors may be */
#define EVEN  1.2        /* mean square of lengths that do not vary too much, over the square of the mean */
enum { LENGTHS = 4096 }; /* vectors whose lengths are looked at for that */
enum { HALF_RANGE = 127, DEVIATIONS = 4, PROBED = 128, RESOLUTION = 16 };

void kith_hnsw_sketch_free(kith_hnsw_sketch *sketch) {
    kith_free(sketch->rows);
    kith_free(sketch->centres);
    kith_free(sketch->lengths);
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
        double centre = sketch->dtype == KITH_I8 ? 0 : sum / (double)count;
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

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* How far a vector of the sample is from the nearest other one, squared; equal ones do not count. */
static float nearest(const float *sample, size_t count, size_t dim, size_t i) {
    const kith_float_kernels *kernels = &kith_simd()->floats[KITH_OP_L2SQ][KITH_PAIR_F32_F32];
    float least = INFINITY;
    for (size_t j = 0; j < count; j++) {
        float between = kernels->one(sample + i * dim, sample + j * dim, dim);
        if (between > 0 && between < least) least = between;
    }
    return least;
}

/* Are nearly all vectors farther from their nearest than rounding moves them? The sample's nearest is farther away than
 * that among all vectors, hence the wide margin. */
static bool resolves(const kith_hnsw_sketch *sketch, const float *sample, size_t count) {
    double near[PROBED], step = sketch->inverse_step > 0 ? 1 / (double)sketch->inverse_step : 0;
    double moved =
        (double)sketch->dim * step * step / 6; /* mean of what rounding both adds to a squared distance */
    size_t probed = count < PROBED ? count : PROBED;
    for (size_t i = 0; i < probed; i++) near[i] = (double)nearest(sample, count, sketch->dim, count / probed * i);
    qsort(near, probed, sizeof *near, compare_doubles);
    return near[probed / 10] >= RESOLUTION * moved;
}

kith_status kith_hnsw_sketch_make(const kith_hnsw *graph, kith_dtype dtype, const float *sample,
                                  size_t sample_count, size_t node_count, kith_hnsw_sketch *out) {
    size_t dim = graph->base.dim;
    kith_status status;
    *out = (kith_hnsw_sketch){
        .dim = dim,
        .dtype = graph->base.metric == KITH_IP && !graph->is_level && !graph->has_lengths ? KITH_I8 : KITH_U8};
    KITH_GO(kith_alloc(dim, sizeof *out->centres, &out->centres));
    if (is_bytes(graph, dtype)) {
        for (size_t d = 0; d < dim; d++) out->centres[d] = dtype == KITH_U8 ? HALF_RANGE + 1 : 0;
        out->inverse_step = 1;
    } else {
        fit(out, sample, sample_count);
        bool is_one = graph->has_lengths && out->inverse_step == 0; /* direction: there is nothing to carve by */
        if (is_one || !resolves(out, sample, sample_count)) {
            if (graph->code == NULL) goto done;
            out->dtype = KITH_F32;
        }
    }
    out->stride = kith_round_up(kith_dtype_row_bytes(out->dtype, dim), KITH_ALIGNMENT);
    KITH_GO(kith_alloc(node_count, out->stride, &out->rows));
    if (graph->has_lengths) KITH_GO(kith_alloc(node_count, sizeof *out->lengths, &out->lengths));
done:
    if (status != KITH_OK) kith_hnsw_sketch_free(out);
    return status;
}

bool kith_hnsw_is_level(const kith_hnsw *graph, size_t first, const kith_view *view) {
    const kith_index *base = &graph->base;
    float shortest = INFINITY, longest = 0;
    if (base->metric != KITH_IP || (view->data == NULL && view->count > 0) || (graph->code != NULL && first > 0))
        return false;
    for (size_t i = 0; i < first + view->count; i++) {
        float inverse = i < first
                            ? kith_exact_inverse_norm(kith_hnsw_row(graph, (uint32_t)i), base->dtype, base->dim)
                            : kith_exact_inverse_norm(kith_view_row(view, i - first), view->dtype, base->dim);
        shortest = fminf(shortest, inverse);
        longest = fmaxf(longest, inverse);
        if (longest > shortest * LEVEL) return false;
    }
    return longest > 0;
}

bool kith_hnsw_is_even(const kith_hnsw *graph, size_t first, const kith_view *view) {
    const kith_index *base = &graph->base;
    bool has_view = view->data != NULL;
    size_t all = has_view ? view->count : first, count = kith_min_size(all, LENGTHS);
    double sum = 0, squares = 0;
    if (base->metric != KITH_IP || all == 0 || (!has_view && (view->count > 0 || graph->code != NULL)))
        return false;
    for (size_t i = 0; i < count; i++) {
        size_t at = all / count * i;
        double norm2 =
            (double)(has_view ? kith_exact_norm2(kith_view_row(view, at), view->dtype, base->dim)
                              : kith_exact_norm2(kith_hnsw_row(graph, (uint32_t)at), base->dtype, base->dim));
        sum += sqrt(norm2);
        squares += norm2;
    }
    return squares * (double)count <= EVEN * sum * sum;
}

void kith_hnsw_sketch_put(kith_hnsw_sketch *sketch, uint32_t node, const float *vector) {
    unsigned char *row = sketch->rows + (size_t)node * sketch->stride;
    if (sketch->dtype == KITH_F32) {
        memcpy(row, vector, sketch->dim * sizeof *vector);
        return;
    }
    float centre = sketch->dtype == KITH_I8 ? 0 : HALF_RANGE + 1;
    for (size_t d = 0; d < sketch->dim; d++) {
        float value = (vector[d] - sketch->centres[d]) * sketch->inverse_step;
        value = fminf(fmaxf(value, -(HALF_RANGE + 1)), HALF_RANGE) + centre;
        int32_t whole = (int32_t)(value + (value < 0 ? -0.5f : 0.5f));
        row[d] = (unsigned char)(whole & 0xff);
    }
}
