/* SPDX-License-Identifier: Apache-2.0
 *
 * kmeans_sketch.c: vectors in 8 bits, with a bound on what that loses.
 *
 * One scale serves all vectors, so that integer products of any two can be compared as they are. It is set from the
 * root mean square of the elements (of a sample): rare large ones are cut off, and what is cut off counts as error of its vector.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "kmeans/kmeans_inside.h"
#include "simd/simd.h"

enum { SCALE_VECTORS = 8192, LANES_MAX = 64 };
/* Squares this small lose what they stand for: no norm and no rest counts as less. */
static const float least_norm = 1e-20f;
/* The largest byte stands for so many times the root mean square: of a normal distribution 1 in 15,000 is cut off. */
static const double range_in_rms = 4.0;

static size_t padded_count(const kith_sketch *sketch) {
    return (sketch->count + sketch->lanes - 1) / sketch->lanes * sketch->lanes;
}

kith_status kith_sketch_create(kith_sketch *sketch, size_t count, size_t dim, kith_sketch_side side) {
    const kith_tile_i8 *tile = &kith_simd()->tile_i8;
    *sketch = (kith_sketch){.count = count,
                            .dim = dim,
                            .side = side,
                            .words = (dim + tile->group - 1) / tile->group,
                            .lanes = side == KITH_SKETCH_QUERIES ? tile->query_lanes : tile->row_lanes};
    if (sketch->lanes > LANES_MAX) return kith_error(KITH_ERR_INTERNAL, "a tile of %zu vectors", sketch->lanes);
    kith_status status;
    KITH_GO(kith_alloc(padded_count(sketch), sketch->words * sizeof *sketch->packed, &sketch->packed));
    KITH_GO(kith_alloc_zeroed(padded_count(sketch), sizeof *sketch->terms, &sketch->terms));
    KITH_GO(kith_alloc_zeroed(padded_count(sketch), sizeof *sketch->norms, &sketch->norms));
    KITH_GO(kith_alloc_zeroed(padded_count(sketch), sizeof *sketch->errors, &sketch->errors));
done:
    if (status != KITH_OK) kith_sketch_free(sketch);
    return status;
}

void kith_sketch_free(kith_sketch *sketch) {
    kith_free(sketch->packed);
    kith_free(sketch->terms);
    kith_free(sketch->norms);
    kith_free(sketch->errors);
    *sketch = (kith_sketch){0};
}

typedef struct sketch_loop {
    kith_sketch *sketch;
    const float *vectors;
    size_t first, count; /* where they go */
    unsigned char *scratch;
    size_t scratch_bytes;
} sketch_loop;

void kith_sketch_scale(kith_sketch *sketch, const float *vectors, size_t count) {
    size_t sample = kith_min_size(count, SCALE_VECTORS);
    double sum = 0;
    for (size_t i = 0; i < sample; i++)
        sum += (double)kith_simd()->norm2_f32(vectors + i * count / sample * sketch->dim, sketch->dim);
    double rms = sqrt(sum / ((double)sample * (double)sketch->dim));
    sketch->scale = rms > 1e-30 ? (float)(rms * range_in_rms / 127) : 1;
}

/* One vector as bytes; returns the norm of the rest, rounded up: whole numbers times the scale lose 2^-24 of themselves,
 * which are no longer than the vector and its rest. `shown`: room for dim numbers. */
static float to_bytes(const float *vector, float norm, size_t dim, float scale, signed char *bytes, float *shown) {
    const kith_simd_table *simd = kith_simd();
    (void)simd->rounding.to_s8(vector, dim, 1 / scale, bytes);
    simd->f32_from_i8(bytes, dim, shown);
    for (size_t i = 0; i < dim; i++) shown[i] *= scale;
    float rest2 = simd->floats[KITH_OP_L2SQ][KITH_PAIR_F32_F32].one(vector, shown, dim);
    return sqrtf(rest2) * (1 + 1e-5f) + norm * 1e-6f + least_norm;
}

/* The lanes of one packed group. */
static kith_status load_group(void *context, size_t group, size_t worker) {
    const sketch_loop *loop = context;
    kith_sketch *sketch = loop->sketch;
    const kith_simd_table *simd = kith_simd();
    size_t first = loop->first + group * sketch->lanes,
           count = kith_min_size(sketch->lanes, loop->first + loop->count - first);
    uint32_t *words = (uint32_t *)(void *)(loop->scratch + worker * loop->scratch_bytes);
    float *shown = (float *)(void *)(words + sketch->lanes * sketch->words);
    signed char *own = (signed char *)(shown + sketch->dim);
    const uint32_t *vectors[LANES_MAX];
    bool as_bytes = sketch->side == KITH_SKETCH_BYTES, as_queries = sketch->side == KITH_SKETCH_QUERIES;
    for (size_t i = 0; i < count; i++) {
        const float *vector = loop->vectors + (group * sketch->lanes + i) * sketch->dim;
        signed char *bytes = as_bytes ? (signed char *)sketch->packed + (first + i) * sketch->dim : own;
        float norm = sketch->norms[first + i] =
            sqrtf(simd->norm2_f32(vector, sketch->dim)) * (1 + 1e-5f) + least_norm;
        sketch->errors[first + i] = to_bytes(vector, norm, sketch->dim, sketch->scale, bytes, shown);
        if (as_bytes) continue;
        vectors[i] = words + i * sketch->words;
        sketch->terms[first + i] = (as_queries ? simd->tile_i8.prepare_query : simd->tile_i8.prepare_row)(
            bytes, KITH_I8, sketch->dim, words + i * sketch->words);
    }
    if (!as_bytes) simd->pack(vectors, count, sketch->lanes, sketch->words, sketch->packed + first * sketch->words);
    return KITH_OK;
}

kith_status kith_sketch_load_part(kith_sketch *sketch, const float *vectors, size_t first, size_t count,
                                  size_t threads) {
    sketch_loop loop = {.sketch = sketch, .vectors = vectors, .first = first, .count = count};
    loop.scratch_bytes = kith_round_up(
        sketch->lanes * sketch->words * sizeof(uint32_t) + sketch->dim * (sizeof(float) + 1), KITH_ALIGNMENT);
    KITH_TRY(kith_alloc(threads, loop.scratch_bytes, &loop.scratch));
    kith_status status = kith_parallel_for(threads, (count + sketch->lanes - 1) / sketch->lanes, load_group, &loop);
    kith_free(loop.scratch);
    return status;
}

kith_status kith_sketch_load(kith_sketch *sketch, const float *vectors, size_t threads) {
    kith_sketch_scale(sketch, vectors, sketch->count);
    return kith_sketch_load_part(sketch, vectors, 0, sketch->count, threads);
}
