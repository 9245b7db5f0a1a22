/* SPDX-License-Identifier: Apache-2.0
 *
 * pq_codes.c: vectors to codes and back, rows to blocks and back.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "pq/pq_inside.h"

enum { GROUP = KITH_BLOCK_ROWS };

/* What encoding a group of 32 rows works on: one piece of memory. */
typedef struct workspace {
    float *rows;       /* 32 x dim: what is coded, less the centres */
    float *columns;    /* dim x 32: the same */
    float *decoded;    /* dim: one row */
    uint32_t *numbers; /* parts x 32 */
    float *shaping;    /* of kith_pq_shape */
} workspace;

static kith_status workspace_make(const kith_pq *pq, workspace *w) {
    size_t dim = pq->base.dim;
    size_t floats = 2 * dim * GROUP + kith_round_up(dim, 16) + pq->parts * GROUP;
    KITH_TRY(kith_alloc(floats + kith_pq_shape_floats(pq), sizeof(float), &w->rows));
    w->columns = w->rows + dim * GROUP;
    w->decoded = w->columns + dim * GROUP;
    w->numbers = (uint32_t *)(void *)(w->decoded + kith_round_up(dim, 16));
    w->shaping = w->rows + floats;
    return KITH_OK;
}

/* Rows first..first + count - 1 as columns; lanes past them repeat the last one. */
static kith_status load_group(const kith_pq *pq, const kith_code_rows *rows, size_t first, size_t count,
                              workspace *w) {
    size_t dim = pq->base.dim;
    for (size_t lane = 0; lane < GROUP; lane++) {
        size_t i = first + kith_min_size(lane, count - 1);
        const float *row = rows->rows + i * dim, *reference = kith_code_centroid(rows, i, dim);
        float *own = w->rows + lane * dim;
        if (reference != NULL)
            for (size_t j = 0; j < dim; j++) own[j] = row[j] - reference[j] - pq->centres[j];
        else
            for (size_t j = 0; j < dim; j++) own[j] = row[j] - pq->centres[j];
        /* Products with codewords then stay finite: no codeword's squared norm is above KITH_NORM2_MAX. */
        float norm2 = kith_simd()->norm2_f32(own, dim);
        if (!(norm2 <= KITH_NORM2_MAX))
            return kith_error(KITH_ERR_RANGE, "%s: row %zu is too large: squared norm %g to be coded",
                              pq->base.name, rows->first_row + i, (double)norm2);
    }
    for (size_t j = 0; j < dim; j++)
        for (size_t lane = 0; lane < GROUP; lane++) w->columns[j * GROUP + lane] = w->rows[lane * dim + j];
    return KITH_OK;
}

static void put_number(uint32_t *words, size_t bits, size_t part, uint32_t number) {
    size_t bit = part * bits, word = bit / 32, shift = bit % 32;
    words[word] |= number << shift;
    if (shift + bits > 32) words[word + 1] |= number >> (32 - shift);
}

/* |r|^2 + 2 <c, r> of the decoded r. */
static float addend_of(const kith_pq *pq, const workspace *w, size_t lane, const float *reference) {
    double sum = 0;
    for (size_t p = 0; p < pq->parts; p++) {
        uint32_t number = w->numbers[p * GROUP + lane];
        sum += (double)pq->norms[p * pq->codewords + number];
        if (reference != NULL)
            memcpy(w->decoded + p * pq->width, kith_pq_codeword(pq, p, number), pq->width * sizeof(float));
    }
    if (reference != NULL)
        sum +=
            2 * (double)kith_simd()->floats[KITH_OP_IP][KITH_PAIR_F32_F32].one(reference, w->decoded, pq->base.dim);
    return (float)sum;
}

static kith_status store_group(const kith_pq *pq, const kith_code_rows *rows, size_t first, size_t count,
                               const workspace *w, unsigned char *codes) {
    for (size_t lane = 0; lane < count; lane++) {
        uint32_t *words = (uint32_t *)(void *)(codes + (first + lane) * pq->base.code_bytes);
        memset(words, 0, pq->word_count * sizeof *words);
        for (size_t p = 0; p < pq->parts; p++) put_number(words, pq->bits, p, w->numbers[p * GROUP + lane]);
        if (!kith_pq_has_addend(pq)) continue;
        float addend = addend_of(pq, w, lane, kith_code_centroid(rows, first + lane, pq->base.dim));
        if (!isfinite(addend))
            return kith_error(KITH_ERR_RANGE, "%s: row %zu is too large", pq->base.name,
                              rows->first_row + first + lane);
        memcpy(words + pq->word_count, &addend, sizeof addend);
    }
    return KITH_OK;
}

/* Codes of a group that lose little along the vectors. */
static void shape_group(const kith_pq *pq, const kith_code_rows *rows, size_t first, size_t count, workspace *w) {
    size_t dim = pq->base.dim;
    for (size_t lane = 0; lane < count; lane++) {
        const float *row = rows->rows + (first + lane) * dim;
        const float *reference = kith_code_centroid(rows, first + lane, dim);
        for (size_t j = 0; j < dim; j++) w->decoded[j] = reference != NULL ? row[j] - reference[j] : row[j];
        kith_pq_shape(pq, row, w->decoded, w->shaping, w->numbers + lane, GROUP);
    }
}

kith_status kith_pq_encode(const kith_code *code, const kith_code_rows *rows, unsigned char *codes) {
    const kith_pq *pq = kith_pq_of_const(code);
    const kith_table_kernels *kernels = &kith_simd()->tables;
    workspace w = {0};
    kith_status status;
    KITH_GO(workspace_make(pq, &w));
    for (size_t first = 0; first < rows->count; first += GROUP) {
        size_t count = kith_min_size(GROUP, rows->count - first);
        KITH_GO(load_group(pq, rows, first, count, &w));
        for (size_t p = 0; p < pq->parts; p++)
            kernels->nearest(w.columns + p * pq->width * GROUP, pq->width,
                             pq->centred + p * pq->codewords * pq->width, pq->bias + p * pq->codewords,
                             pq->codewords, w.numbers + p * GROUP);
        if (pq->is_anisotropic) shape_group(pq, rows, first, count, &w);
        KITH_GO(store_group(pq, rows, first, count, &w, codes));
    }
done:
    kith_free(w.rows);
    return status;
}

void kith_pq_restore(const kith_code *code, const unsigned char *row, unsigned char *scratch, float *out) {
    const kith_pq *pq = kith_pq_of_const(code);
    const uint32_t *words = (const uint32_t *)(const void *)row;
    (void)scratch;
    for (size_t p = 0; p < pq->parts; p++)
        memcpy(out + p * pq->width, kith_pq_codeword(pq, p, kith_pq_number(words, 1, pq->bits, p)),
               pq->width * sizeof *out);
}

kith_status kith_pq_decode(const kith_code *code, const kith_code_rows *rows, const unsigned char *codes,
                           float *out) {
    size_t dim = code->dim;
    for (size_t i = 0; i < rows->count; i++, out += dim) {
        const float *reference = kith_code_centroid(rows, i, dim);
        kith_pq_restore(code, codes + i * code->code_bytes, NULL, out);
        for (size_t j = 0; reference != NULL && j < dim; j++) out[j] += reference[j];
    }
    return KITH_OK;
}

/* ---- Blocks ------------------------------------------------------------------------------------------------------ */

void kith_pq_pack(const kith_code *code, const unsigned char *rows, size_t first, size_t count,
                  unsigned char *block) {
    const kith_pq *pq = kith_pq_of_const(code);
    size_t words = pq->word_count, all = code->code_bytes / sizeof(uint32_t);
    bool by_bytes = pq->bits == 8;
    for (size_t i = 0; i < count; i++) {
        const unsigned char *row = rows + i * code->code_bytes;
        for (size_t at = 0; by_bytes && at < words * 4; at++) block[at * KITH_BLOCK_ROWS + first + i] = row[at];
        for (size_t w = by_bytes ? words : 0; w < all; w++)
            memcpy(block + (w * KITH_BLOCK_ROWS + first + i) * 4, row + w * 4, 4);
    }
}

void kith_pq_unpack(const kith_code *code, const unsigned char *block, size_t lane, unsigned char *row) {
    const kith_pq *pq = kith_pq_of_const(code);
    size_t words = pq->word_count, all = code->code_bytes / sizeof(uint32_t);
    bool by_bytes = pq->bits == 8;
    for (size_t at = 0; by_bytes && at < words * 4; at++) row[at] = block[at * KITH_BLOCK_ROWS + lane];
    for (size_t w = by_bytes ? words : 0; w < all; w++)
        memcpy(row + w * 4, block + (w * KITH_BLOCK_ROWS + lane) * 4, 4);
}
