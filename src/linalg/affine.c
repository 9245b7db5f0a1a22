/* SPDX-License-Identifier: Apache-2.0
 *
 * affine.c: out = matrix (in - mean), for every kind of transform that has a matrix.
 *
 * Many rows go through the tile kernel, a stretch of the matrix at a time that stays in the second-level cache; a
 * few go one by one over the same packed matrix. Both add the terms of a result in the same order with the same
 * fused steps, so they give the same bits.
 */
#include <string.h>

#include "base/error.h"
#include "linalg/transform_inside.h"
#include "simd/simd.h"

enum { COLUMNS = 128, LANES_MAX = 64, BACK_ROWS = 8 };
static const size_t stretch_bytes = (size_t)256 << 10;
static const float zeros[COLUMNS];

static size_t padded(size_t dim) { return kith_round_up(dim, kith_simd()->tile_f32.row_lanes); }
static size_t aligned(size_t floats) { return kith_round_up(floats, KITH_ALIGNMENT / sizeof(float)); }

kith_status kith_affine_pack(size_t dim_in, size_t dim_out, const float *matrix, float **panels) {
    const kith_simd_table *simd = kith_simd();
    size_t lanes = simd->tile_f32.row_lanes;
    if (lanes > LANES_MAX || lanes > COLUMNS || simd->tile_f32.query_lanes > LANES_MAX)
        return kith_error(KITH_ERR_INTERNAL, "a tile of %zu rows", lanes);
    KITH_TRY(kith_alloc(padded(dim_out), dim_in * sizeof **panels, panels));
    for (size_t first = 0; first < dim_out; first += lanes) {
        const uint32_t *vectors[LANES_MAX];
        size_t count = kith_min_size(lanes, dim_out - first);
        for (size_t i = 0; i < count; i++)
            vectors[i] = (const uint32_t *)(const void *)(matrix + (first + i) * dim_in);
        simd->pack(vectors, count, lanes, dim_in, (uint32_t *)(void *)(*panels + first * dim_in));
    }
    return KITH_OK;
}

/* Is it less work to take the rows one by one than to fill up a tile? */
static bool is_few(size_t count) { return 3 * count <= kith_simd()->tile_f32.query_lanes; }

/* The rows of a group less the mean; the packed block; a tile's results. Or one row, and its results. */
size_t kith_affine_scratch(const kith_transform *transform, size_t count) {
    size_t lanes = kith_simd()->tile_f32.query_lanes, dim_in = transform->dim_in;
    size_t few = aligned(dim_in) + aligned(padded(transform->dim_out));
    if (is_few(count)) return few;
    return few + aligned(lanes * dim_in) + aligned((count + lanes) * dim_in) + aligned(lanes * COLUMNS);
}

static const float *centre_row(const kith_transform *transform, const float *in, float *to) {
    const float *mean = transform->arrays.mean;
    if (mean == NULL) return in;
    for (size_t j = 0; j < transform->dim_in; j++) to[j] = in[j] - mean[j];
    return to;
}

static void apply_few(const kith_transform *transform, const float *in, size_t count, float *out, float *scratch) {
    const kith_simd_table *simd = kith_simd();
    size_t lanes = simd->tile_f32.row_lanes, dim_in = transform->dim_in, dim_out = transform->dim_out;
    float *results = scratch + aligned(dim_in);
    for (size_t i = 0; i < count; i++) {
        const float *row = centre_row(transform, in + i * dim_in, scratch);
        simd->matrix.panels_one(row, transform->arrays.panels, dim_in, lanes, padded(dim_out) / lanes, results);
        memcpy(out + i * dim_out, results, dim_out * sizeof *out);
    }
}

static void pack_block(const kith_transform *transform, const float *in, size_t count, float *centred,
                       float *packed) {
    const kith_simd_table *simd = kith_simd();
    size_t lanes = simd->tile_f32.query_lanes, dim = transform->dim_in;
    const uint32_t *vectors[LANES_MAX];
    for (size_t group = 0; group < count; group += lanes) {
        size_t present = kith_min_size(lanes, count - group);
        for (size_t i = 0; i < present; i++) {
            const float *row = centre_row(transform, in + (group + i) * dim, centred + i * dim);
            vectors[i] = (const uint32_t *)(const void *)row;
        }
        simd->pack(vectors, present, lanes, dim, (uint32_t *)(void *)(packed + group * dim));
    }
}

void kith_affine_apply(const kith_transform *transform, const float *in, size_t count, float *out, float *scratch) {
    const kith_tile_f32 *tile = &kith_simd()->tile_f32;
    size_t lanes = tile->query_lanes, dim_in = transform->dim_in, dim_out = transform->dim_out;
    if (is_few(count)) {
        apply_few(transform, in, count, out, scratch);
        return;
    }
    float *packed = scratch + aligned(lanes * dim_in), *results = packed + aligned((count + lanes) * dim_in);
    pack_block(transform, in, count, scratch, packed);
    size_t columns_max = COLUMNS / tile->row_lanes * tile->row_lanes, end = padded(dim_out);
    size_t stretch = kith_max_size(stretch_bytes / (dim_in * sizeof(float)) / columns_max, 1) * columns_max;
    for (size_t first = 0; first < end; first += stretch)
        for (size_t group = 0; group < count; group += lanes)
            for (size_t c = first; c < kith_min_size(first + stretch, end); c += columns_max) {
                size_t columns = kith_min_size(columns_max, end - c);
                tile->run(packed + group * dim_in, transform->arrays.panels + c * dim_in, dim_in,
                          columns / tile->row_lanes, zeros, results, COLUMNS);
                size_t wanted = kith_min_size(columns, dim_out - c);
                for (size_t i = 0; i < lanes && group + i < count; i++)
                    memcpy(out + (group + i) * dim_out + c, results + i * COLUMNS, wanted * sizeof *out);
            }
}

/* out = mean + back^T in: the rows of `back`, each times an element. A few rows at a time stay in the cache. */
void kith_affine_invert(const kith_transform *transform, const float *in, size_t count, float *out,
                        float *scratch) {
    size_t dim_in = transform->dim_in, dim_out = transform->dim_out;
    const float *mean = transform->arrays.mean;
    const float *back = transform->arrays.back != NULL ? transform->arrays.back : transform->arrays.matrix;
    (void)scratch;
    memset(out, 0, count * dim_in * sizeof *out);
    for (size_t group = 0; group < count; group += BACK_ROWS)
        for (size_t j = 0; j < dim_out; j++)
            for (size_t i = group; i < kith_min_size(group + BACK_ROWS, count); i++) {
                float factor = in[i * dim_out + j], *to = out + i * dim_in;
                const float *row = back + j * dim_in;
                for (size_t c = 0; c < dim_in; c++) to[c] += factor * row[c];
            }
    if (mean != NULL)
        for (size_t i = 0; i < count; i++)
            for (size_t c = 0; c < dim_in; c++) out[i * dim_in + c] += mean[c];
}
