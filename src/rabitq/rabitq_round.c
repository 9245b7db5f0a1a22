/* SPDX-License-Identifier: Apache-2.0
 *
 * rabitq_round.c: from vectors to numbers and factors, and back.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "rabitq/rabitq_inside.h"
#include "simd/simd.h"

enum { STEPS = 2 * KITH_GRID_STEPS };

/* The step of a uniform grid of 2^bits points that loses least of a normal variable, in its standard deviations
 * (Max, "Quantizing for Minimum Distortion", 1960); a rotated vector looks like one. */
static const float best_steps[KITH_RABITQ_BITS_MAX + 1] = {0,       1.5958f, 0.9957f, 0.5860f, 0.3352f,
                                                           0.1881f, 0.1041f, 0.0569f, 0.0308f};
/* Around it these are tried: the best of them comes within 2% of the least error of all steps. */
static const float step_factors[STEPS] = {0.70f, 0.78f, 0.87f, 0.97f, 1.08f, 1.20f, 1.34f, 1.50f};

/* ---- Rounding ------------------------------------------------------------------------------------------------- */

kith_status kith_rounder_begin(kith_rounder *rounder, const kith_rabitq *code) {
    size_t padded = kith_round_up(kith_max_size(code->grid.dim, code->code.projected_dim), KITH_ALIGNMENT);
    *rounder = (kith_rounder){.code = code};
    kith_status status;
    KITH_GO(kith_alloc_zeroed(padded, sizeof *rounder->residual, &rounder->residual));
    KITH_GO(kith_alloc(padded, sizeof *rounder->reference, &rounder->reference));
    KITH_GO(kith_alloc(padded, 1, &rounder->numbers));
    KITH_GO(kith_alloc(padded, 1, &rounder->ones));
    memset(rounder->ones, 1, padded);
    return KITH_OK;
done:
    kith_rounder_end(rounder);
    return status;
}

void kith_rounder_end(kith_rounder *rounder) {
    kith_free(rounder->residual);
    kith_free(rounder->reference);
    kith_free(rounder->numbers);
    kith_free(rounder->ones);
    *rounder = (kith_rounder){0};
}

/* The reference point of a row: its centroid and the centre, NULL when there is neither. */
static const float *find_reference(kith_rounder *rounder, const float *centroid) {
    const float *centre = rounder->code->centre;
    const float *reference = centroid != NULL ? centroid : centre;
    size_t dim = rounder->code->code.projected_dim;
    if (reference == NULL) return NULL;
    bool both = centroid != NULL && centre != NULL;
    if (rounder->reference_of != reference) {
        if (both)
            for (size_t d = 0; d < dim; d++) rounder->reference[d] = centroid[d] + centre[d];
        rounder->reference_of = reference;
        rounder->reference_sum = kith_simd()->floats[KITH_OP_IP][KITH_PAIR_F32_U8].one(
            both ? rounder->reference : reference, rounder->ones, dim);
    }
    return both ? rounder->reference : reference;
}

/* Writes the numbers of the residual at the best step that is tried; returns <x, r> there and |x|^2. */
static float round_residual(kith_rounder *rounder, float norm2, float *x_norm2) {
    const kith_matrix_kernels *kernels = &kith_simd()->matrix;
    const kith_rabitq *code = rounder->code;
    size_t dim = code->code.projected_dim, padded = kith_round_up(dim, KITH_GRID_LANES);
    float levels = (float)((1u << code->grid.bits) - 1);
    float widest = 1 / (sqrtf(norm2 / (float)dim) * best_steps[code->grid.bits]);
    float inverses[STEPS], products[STEPS], norms[STEPS];
    for (size_t s = 0; s < STEPS; s++) inverses[s] = widest / step_factors[s];
    for (size_t s = 0; s < STEPS; s += KITH_GRID_STEPS)
        kernels->grid_sums(rounder->residual, padded, inverses + s, levels, products + s, norms + s);
    size_t best = 0;
    float most = 0;
    for (size_t s = 0; s < STEPS; s++) {
        norms[s] -= 0.25f * (float)(padded - dim); /* elements of 0 past the last stand for 1/2 */
        float cosine = products[s] / sqrtf(norms[s]);
        if (cosine > most) most = cosine, best = s;
    }
    kernels->grid_numbers(rounder->residual, padded, inverses[best], levels, rounder->numbers);
    *x_norm2 = norms[best];
    return products[best];
}

bool kith_rounder_row(kith_rounder *rounder, const float *row, const float *centroid, kith_rounded *out) {
    const kith_simd_table *simd = kith_simd();
    const kith_rabitq *code = rounder->code;
    size_t dim = code->code.projected_dim;
    const float *reference = find_reference(rounder, centroid);
    float *r = rounder->residual;
    if (reference != NULL)
        for (size_t d = 0; d < dim; d++) r[d] = row[d] - reference[d];
    else
        memcpy(r, row, dim * sizeof *r);
    float norm2 = simd->norm2_f32(r, dim);
    *out = (kith_rounded){.cosine2 = 1};
    if (norm2 < FLT_MIN) { /* the vector is its reference point */
        memset(rounder->numbers, 0, code->grid.dim);
        return true;
    }
    if (!isfinite(norm2)) return false;
    float x_norm2, product = round_residual(rounder, norm2, &x_norm2);
    memset(rounder->numbers + dim, 0, kith_max_size(code->grid.dim, dim) - dim);
    float k = norm2 / product, along = 0, inner = 0;
    out->cosine2 = product / x_norm2 * (product / norm2);
    if (reference != NULL) {
        const kith_float_kernels *kernels = simd->floats[KITH_OP_IP];
        float half = (float)((1u << code->grid.bits) - 1) / 2;
        along =
            k * (kernels[KITH_PAIR_F32_U8].one(reference, rounder->numbers, dim) - half * rounder->reference_sum);
        if (code->code.metric != KITH_L2) inner = kernels[KITH_PAIR_F32_F32].one(r, reference, dim);
    }
    bool is_l2 = code->code.metric == KITH_L2;
    out->scale = is_l2 ? -2 * k : -k;
    out->add = is_l2 ? norm2 + 2 * along : along - inner;
    return isfinite(out->scale) && isfinite(out->add);
}

kith_status kith_rabitq_encode(const kith_code *code, const kith_code_rows *rows, unsigned char *codes) {
    const kith_rabitq *own = kith_rabitq_of(code);
    size_t dim = code->projected_dim;
    kith_rounder rounder;
    KITH_TRY(kith_rounder_begin(&rounder, own));
    kith_status status = KITH_OK;
    for (size_t i = 0; i < rows->count; i++) {
        kith_rounded rounded;
        if (!kith_rounder_row(&rounder, rows->rows + i * dim, kith_reference_of(rows, dim, i), &rounded)) {
            status = kith_error(KITH_ERR_RANGE, "%s: vector %zu is too large", code->name, rows->first_row + i);
            break;
        }
        kith_grid_put(&own->grid, rounder.numbers, rounded.add, rounded.scale, codes + i * code->code_bytes);
    }
    kith_rounder_end(&rounder);
    return status;
}

/* ---- Back ----------------------------------------------------------------------------------------------------- */

/* k x is the estimate without bias, but longer than r by 1 / cosine^2; the nearest point to r has the mean factor. */
static void decode_row(const kith_rabitq *code, const unsigned char *row, const float *centroid, uint8_t *numbers,
                       float *out) {
    float add, scale, half = (float)((1u << code->grid.bits) - 1) / 2;
    kith_grid_get(&code->grid, row, numbers, &add, &scale);
    float step = (code->code.metric == KITH_L2 ? -scale / 2 : -scale) * code->cosine2_mean;
    for (size_t d = 0; d < code->code.projected_dim; d++) {
        out[d] = step * ((float)numbers[d] - half);
        if (centroid != NULL) out[d] += centroid[d];
        if (code->centre != NULL) out[d] += code->centre[d];
    }
}

void kith_rabitq_restore(const kith_code *code, const unsigned char *row, unsigned char *scratch, float *out) {
    decode_row(kith_rabitq_of(code), row, NULL, scratch, out);
}

kith_status kith_rabitq_decode(const kith_code *code, const kith_code_rows *rows, const unsigned char *codes,
                               float *out) {
    enum { BATCH = 256 };
    const kith_rabitq *own = kith_rabitq_of(code);
    size_t dim = code->projected_dim;
    kith_arena arena = {0};
    uint8_t *numbers = NULL;
    float *batch = NULL;
    kith_status status;
    KITH_GO(kith_alloc(kith_max_size(own->grid.dim, dim), 1, &numbers));
    KITH_GO(kith_alloc(kith_min_size(BATCH, rows->count), dim * sizeof *batch, &batch));
    for (size_t first = 0; first < rows->count; first += BATCH) {
        size_t count = kith_min_size(BATCH, rows->count - first);
        for (size_t i = 0; i < count; i++)
            decode_row(own, codes + (first + i) * code->code_bytes, kith_reference_of(rows, dim, first + i),
                       numbers, batch + i * dim);
        kith_view view = {.data = batch, .dtype = KITH_F32, .count = count, .dim = dim};
        KITH_GO(kith_arena_begin(&arena));
        KITH_GO(kith_transform_invert(own->transform, &view, 1, &arena, out + first * code->dim));
    }
done:
    kith_free(numbers);
    kith_free(batch);
    kith_arena_free(&arena);
    return status;
}
