/* SPDX-License-Identifier: Apache-2.0
 *
 * pq_shape.c: codes that keep large inner products ("score-aware": Guo, Sun, Lindgren, Geng, Simcha, Chern, Kumar,
 * "Accelerating large-scale inference with anisotropic vector quantization", ICML 2020).
 *
 * Of an error e = x - x^, the part along x is what changes the product with a query near x, and those are the products
 * that a search asks for. So the loss of a code is |e|^2 + weight * <e, u>^2 with u = x / |x|. The paper derives, for
 * queries of uniform direction and products of at least T |q| |x|, the ratio of the two parts' costs: eta = (d - 1)
 * T^2 / (1 - T^2); weight = eta - 1, and T = 0.2 as there.
 *
 * The parts are no longer independent of each other. A code is found by coordinate descent from the plain one: part
 * by part the best codeword, the others kept (4.2). Codebooks are improved likewise: part by part, the codeword that
 * is best for its rows solves a linear system of the part's dimensions.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "pq/pq_inside.h"

enum { PASSES = 4, ROUNDS = 4, GROUP = KITH_BLOCK_ROWS };
static const double threshold = 0.2;

static double weight_of(size_t dim) {
    double square = threshold * threshold, eta = ((double)dim - 1) * square / (1 - square);
    return fmax(eta - 1, 0);
}

/* ---- One row ------------------------------------------------------------------------------------------------------- */

size_t kith_pq_shape_floats(const kith_pq *pq) {
    return pq->is_anisotropic ? 2 * pq->parts * pq->codewords + kith_round_up(pq->base.dim, 16) + pq->parts : 0;
}

/* <a, b> of a part. */
static double part_product(const float *a, const float *b, size_t width) {
    double sum = 0;
    for (size_t j = 0; j < width; j++) sum += (double)a[j] * (double)b[j];
    return sum;
}

void kith_pq_shape(const kith_pq *pq, const float *vector, const float *rest, float *scratch, uint32_t *numbers,
                   size_t stride) {
    const kith_simd_table *simd = kith_simd();
    size_t entries = pq->parts * pq->codewords, dim = pq->base.dim;
    float *fixed = scratch, *with_direction = fixed + entries, *direction = with_direction + entries;
    float *along = direction + kith_round_up(dim, 16), norm = sqrtf(simd->norm2_f32(vector, dim)), sum = 0;
    if (!(norm > FLT_MIN)) return; /* without a direction the plain code is best */
    for (size_t j = 0; j < dim; j++) direction[j] = vector[j] / norm;
    for (size_t p = 0; p < pq->parts; p++) {
        size_t at = p * pq->width, first = p * pq->codewords, groups = pq->codewords / KITH_PQ_LANES;
        const float *panels = pq->panels + first * pq->width;
        simd->matrix.panels_one(rest + at, panels, pq->width, KITH_PQ_LANES, groups, fixed + first);
        simd->matrix.panels_one(direction + at, panels, pq->width, KITH_PQ_LANES, groups, with_direction + first);
        along[p] = (float)part_product(rest + at, direction + at, pq->width);
        sum += along[p] - with_direction[first + numbers[p * stride]];
    }
    /* |e|^2 of a part, but for what is the same for all codewords. */
    for (size_t i = 0; i < entries; i++) fixed[i] = pq->norms[i] - 2 * fixed[i];
    float weight = (float)weight_of(dim);
    bool changed = true;
    for (size_t pass = 0; changed && pass < PASSES; pass++) {
        changed = false;
        for (size_t p = 0; p < pq->parts; p++) {
            const float *own = with_direction + p * pq->codewords;
            uint32_t present = numbers[p * stride];
            float others = sum - (along[p] - own[present]);
            uint32_t best = (uint32_t)simd->tables.cheapest(fixed + p * pq->codewords, own, pq->codewords,
                                                            others + along[p], weight);
            if (best == present) continue;
            numbers[p * stride] = best;
            sum = others + (along[p] - own[best]);
            changed = true;
        }
    }
}

/* ---- Codebooks ----------------------------------------------------------------------------------------------------- */

typedef struct refinement {
    kith_pq *pq;
    const kith_code_rows *rows;
    const uint32_t *chosen; /* rows used; NULL: the first `count` */
    size_t count;
    unsigned char *codes;
    uint32_t *numbers; /* parts x count */
    double *along;     /* count: <error, direction> in all */
    float *norms;      /* count: |vector| */
    double *systems;   /* codewords x (width x width + width) */
    uint32_t *sizes;   /* codewords */
} refinement;

static size_t row_number(const refinement *f, size_t i) { return f->chosen != NULL ? f->chosen[i] : i; }

/* What is coded of row i, and its direction, in one part. */
static void part_of(const refinement *f, size_t part, size_t i, double *rest, double *direction) {
    size_t width = f->pq->width, dim = f->pq->base.dim, n = row_number(f, i);
    const float *row = f->rows->rows + n * dim + part * width, *centroid = kith_code_centroid(f->rows, n, dim);
    for (size_t j = 0; j < width; j++) {
        rest[j] = (double)row[j] - (centroid != NULL ? (double)centroid[part * width + j] : 0);
        direction[j] = f->norms[i] > FLT_MIN ? (double)row[j] / (double)f->norms[i] : 0;
    }
}

/* Codes of all rows by the present codebooks, taken apart. */
static kith_status encode_rows(refinement *f, float *gathered, uint32_t *assigned, size_t threads) {
    const kith_pq *pq = f->pq;
    size_t dim = pq->base.dim;
    kith_code_rows rows = {gathered, f->count, f->rows->centroids, f->rows->centroids != NULL ? assigned : NULL,
                           f->rows->first_row};
    for (size_t i = 0; i < f->count; i++) {
        size_t n = row_number(f, i);
        memcpy(gathered + i * dim, f->rows->rows + n * dim, dim * sizeof *gathered);
        assigned[i] = f->rows->assigned != NULL ? f->rows->assigned[n] : 0;
        f->norms[i] = sqrtf(kith_simd()->norm2_f32(gathered + i * dim, dim));
    }
    KITH_TRY(kith_code_encode(&pq->base, &rows, threads, f->codes));
    for (size_t i = 0; i < f->count; i++) {
        const uint32_t *words = (const uint32_t *)(const void *)(f->codes + i * pq->base.code_bytes);
        for (size_t p = 0; p < pq->parts; p++) f->numbers[p * f->count + i] = kith_pq_number(words, 1, pq->bits, p);
    }
    return KITH_OK;
}

/* Adds the errors of one part along the rows' directions, times `sign`. */
static void add_errors(refinement *f, size_t part, double sign, double *rest, double *direction) {
    size_t width = f->pq->width;
    for (size_t i = 0; i < f->count; i++) {
        const float *codeword = kith_pq_codeword(f->pq, part, f->numbers[part * f->count + i]);
        part_of(f, part, i, rest, direction);
        double sum = 0;
        for (size_t j = 0; j < width; j++) sum += (rest[j] - (double)codeword[j]) * direction[j];
        f->along[i] += sign * sum;
    }
}

/* Solves matrix x = right, symmetric and positive definite, both overwritten (Cholesky); x in right. */
static void solve(double *matrix, double *right, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = matrix[i * n + j];
            for (size_t k = 0; k < j; k++) sum -= matrix[i * n + k] * matrix[j * n + k];
            matrix[i * n + j] = i == j ? sqrt(sum) : sum / matrix[j * n + j];
        }
        for (size_t k = 0; k < i; k++) right[i] -= matrix[i * n + k] * right[k];
        right[i] /= matrix[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t k = i + 1; k < n; k++) right[i] -= matrix[k * n + i] * right[k];
        right[i] /= matrix[i * n + i];
    }
}

/* The best codewords of a part for the rows that have them. Codewords without rows stay. The matrix of a codeword is the
 * number of its rows times 1, and something that is not negative: it can be solved. */
static void move_codewords(refinement *f, size_t part, float *codebook, double *rest, double *direction) {
    const kith_pq *pq = f->pq;
    size_t width = pq->width, each = width * width + width;
    double weight = weight_of(pq->base.dim);
    memset(f->systems, 0, pq->codewords * each * sizeof *f->systems);
    memset(f->sizes, 0, pq->codewords * sizeof *f->sizes);
    for (size_t i = 0; i < f->count; i++) {
        uint32_t number = f->numbers[part * f->count + i];
        double *matrix = f->systems + number * each, *right = matrix + width * width, wanted = f->along[i];
        part_of(f, part, i, rest, direction);
        for (size_t j = 0; j < width; j++) wanted += rest[j] * direction[j];
        for (size_t j = 0; j < width; j++) {
            right[j] += rest[j] + weight * wanted * direction[j];
            for (size_t k = 0; k <= j; k++) matrix[j * width + k] += weight * direction[j] * direction[k];
        }
        f->sizes[number]++;
    }
    for (size_t c = 0; c < pq->codewords; c++) {
        double *matrix = f->systems + c * each, *right = matrix + width * width;
        if (f->sizes[c] == 0) continue;
        for (size_t j = 0; j < width; j++) matrix[j * width + j] += f->sizes[c];
        solve(matrix, right, width);
        for (size_t j = 0; j < width; j++) codebook[c * width + j] = (float)right[j];
    }
}

static kith_status refine_round(refinement *f, float *gathered, uint32_t *assigned, double *part_scratch,
                                size_t threads) {
    kith_pq *pq = f->pq;
    size_t book = pq->codewords * pq->width;
    double *rest = part_scratch, *direction = rest + pq->width;
    float *codebooks;
    KITH_TRY(encode_rows(f, gathered, assigned, threads));
    memset(f->along, 0, f->count * sizeof *f->along);
    for (size_t p = 0; p < pq->parts; p++) add_errors(f, p, 1, rest, direction);
    for (size_t p = 0; p < pq->parts; p++) {
        add_errors(f, p, -1, rest, direction);
        move_codewords(f, p, pq->codebooks + p * book, rest, direction);
        add_errors(f, p, 1, rest, direction);
    }
    KITH_TRY(kith_alloc(pq->parts, book * sizeof *codebooks, &codebooks));
    memcpy(codebooks, pq->codebooks, pq->parts * book * sizeof *codebooks);
    return kith_pq_adopt(pq, codebooks);
}

kith_status kith_pq_shape_codebooks(kith_pq *pq, const kith_code_rows *rows, const uint32_t *chosen, size_t count,
                                    size_t threads) {
    refinement f = {.pq = pq, .rows = rows, .chosen = chosen, .count = count};
    float *gathered = NULL;
    uint32_t *assigned = NULL;
    double *part_scratch = NULL;
    kith_status status;
    KITH_GO(kith_alloc(count, pq->base.dim * sizeof *gathered, &gathered));
    KITH_GO(kith_alloc(count, sizeof *assigned, &assigned));
    KITH_GO(kith_alloc(count, pq->base.code_bytes, &f.codes));
    KITH_GO(kith_alloc(count, pq->parts * sizeof *f.numbers, &f.numbers));
    KITH_GO(kith_alloc(count, sizeof *f.along, &f.along));
    KITH_GO(kith_alloc(count, sizeof *f.norms, &f.norms));
    KITH_GO(kith_alloc(pq->codewords, (pq->width * pq->width + pq->width) * sizeof *f.systems, &f.systems));
    KITH_GO(kith_alloc(pq->codewords, sizeof *f.sizes, &f.sizes));
    KITH_GO(kith_alloc(2 * pq->width, sizeof *part_scratch, &part_scratch));
    for (size_t round = 0; round < ROUNDS; round++)
        KITH_GO(refine_round(&f, gathered, assigned, part_scratch, threads));
done:
    kith_free(gathered);
    kith_free(assigned);
    kith_free(f.codes);
    kith_free(f.numbers);
    kith_free(f.along);
    kith_free(f.norms);
    kith_free(f.systems);
    kith_free(f.sizes);
    kith_free(part_scratch);
    return status;
}
