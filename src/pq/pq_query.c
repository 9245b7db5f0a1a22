/* SPDX-License-Identifier: Apache-2.0
 *
 * pq_query.c: a query's tables, and estimates by them.
 */
#include <float.h>
#include <string.h>

#include "base/memory.h"
#include "pq/pq_inside.h"

enum { HEAD_BYTES = 64, STACK_PRODUCTS = 8192, STACK_PARTS = STACK_PRODUCTS / 16, CHUNK_PARTS = 64 };
/* Products are cut off here, so that no range and no sum of them overflows. */
static const float product_max = 0x1p100f;

/* What a prepared query begins with; its tables follow at HEAD_BYTES. */
typedef struct query_head {
    float unit, offset; /* S = addend + unit * sum + offset */
} query_head;

/* ---- Tables ------------------------------------------------------------------------------------------------------ */

/* <part of the vector, codeword> for all codewords of all parts, each part's least product, and the largest range. */
static float find_products(const kith_pq *pq, const float *vector, float *products, float *least) {
    const kith_simd_table *simd = kith_simd();
    float range = 0;
    for (size_t p = 0; p < pq->parts; p++) {
        float *own = products + p * pq->codewords, largest;
        simd->matrix.panels_one(vector + p * pq->width, pq->panels + p * pq->codewords * pq->width, pq->width,
                                KITH_PQ_LANES, pq->codewords / KITH_PQ_LANES, own);
        simd->tables.extent(own, pq->codewords, product_max, &least[p], &largest);
        if (largest - least[p] > range) range = largest - least[p];
    }
    return range;
}

static void fill_tables(const kith_pq *pq, const float *products, const float *least, float inverse,
                        unsigned char *tables) {
    const kith_table_kernels *kernels = &kith_simd()->tables;
    if (pq->is_fast) memset(tables, 0, pq->table_bytes);
    for (size_t p = 0; p < pq->parts; p++) {
        const float *own = products + p * pq->codewords;
        if (pq->is_fast) {
            unsigned char *at = tables + p / 8 * KITH_NIBBLE_WORD_BYTES + p % 2 * 64 + p % 8 / 2 * 16;
            kernels->to_u8(own, pq->codewords, least[p], inverse, at);
        } else {
            uint16_t *at = (uint16_t *)(void *)tables + p * pq->codewords;
            kernels->to_u16(own, pq->codewords, least[p], inverse, at);
        }
    }
    if (!pq->is_fast && pq->bits == 8 && kernels->arrange_bytes != NULL)
        kernels->arrange_bytes((uint16_t *)(void *)tables, pq->parts);
}

void kith_pq_prepare(const kith_code *code, const float *vector, void *query) {
    const kith_pq *pq = kith_pq_of_const(code);
    float stack_products[STACK_PRODUCTS], stack_least[STACK_PARTS];
    float *products = stack_products, *least = stack_least;
    unsigned char *tables = (unsigned char *)query + HEAD_BYTES;
    if (pq->product_count > 0) {
        products = (float *)(void *)(tables + pq->table_bytes);
        least = products + pq->parts * pq->codewords;
    }
    float range = find_products(pq, vector, products, least), steps = pq->is_fast ? UINT8_MAX : UINT16_MAX;
    float inverse = range > FLT_MIN * steps ? steps / range : 0;
    double least_sum = 0;
    for (size_t p = 0; p < pq->parts; p++) least_sum += (double)least[p];
    float multiplier = code->metric == KITH_L2 ? -2 : -1;
    *(query_head *)query = (query_head){multiplier * (range / steps), multiplier * (float)least_sum};
    fill_tables(pq, products, least, inverse, tables);
}

/* ---- Estimates --------------------------------------------------------------------------------------------------- */

static kith_lookup lookup_of(const void *query, float base) {
    const query_head *head = query;
    return (kith_lookup){(const unsigned char *)query + HEAD_BYTES, head->unit, head->offset, base};
}

static kith_lookup_shape shape_of(const kith_pq *pq) {
    size_t numbers = pq->word_count * sizeof(uint32_t);
    bool has = kith_pq_has_addend(pq);
    return (kith_lookup_shape){.part_count = pq->parts,
                               .row_addend = has ? numbers : KITH_NO_ADDEND,
                               .block_addend = has ? numbers * KITH_BLOCK_ROWS : KITH_NO_ADDEND,
                               .block_bytes = pq->base.block_bytes};
}

/* The kernels for whole codes, or NULL: numbers of other widths are taken out of the words first. */
static const kith_lookup_kernels *kernels_of(const kith_pq *pq) {
    const kith_table_kernels *tables = &kith_simd()->tables;
    return pq->is_fast ? &tables->nibbles : pq->bits == 8 ? &tables->bytes : NULL;
}

/* base + addend + unit * sum + offset; addends: NULL for none. */
static void finish(const kith_lookup *query, const int32_t *sums, const float *addends, size_t count, float *out) {
    kith_simd()->tables.affine(sums, addends, count, query->unit, query->offset, query->base, out);
}

static void four_of_any_width(const kith_pq *pq, const kith_lookup *query, const unsigned char *const rows[4],
                              float out[4]) {
    const uint16_t *tables = query->tables;
    int32_t sums[4] = {0};
    float addends[4];
    for (size_t r = 0; r < 4; r++) {
        const uint32_t *words = (const uint32_t *)(const void *)rows[r];
        for (size_t p = 0; p < pq->parts; p++)
            sums[r] += tables[p * pq->codewords + kith_pq_number(words, 1, pq->bits, p)];
        if (kith_pq_has_addend(pq)) memcpy(&addends[r], words + pq->word_count, sizeof addends[r]);
    }
    finish(query, sums, kith_pq_has_addend(pq) ? addends : NULL, 4, out);
}

void kith_pq_rows(const kith_code *code, const void *query, float base, const unsigned char *const *rows,
                  size_t count, float *out) {
    const kith_pq *pq = kith_pq_of_const(code);
    const kith_lookup_kernels *kernels = kernels_of(pq);
    const kith_lookup lookup = lookup_of(query, base);
    const kith_lookup_shape shape = shape_of(pq);
    for (size_t i = 0; i < count; i += 4)
        if (kernels != NULL)
            kernels->four(&lookup, &shape, rows + i, out + i);
        else
            four_of_any_width(pq, &lookup, rows + i, out + i);
}

/* The numbers of `count` parts from `first` on, part after part. */
static void take_numbers(const kith_pq *pq, const uint32_t *block, size_t first, size_t count, uint16_t *numbers) {
    for (size_t p = first; p < first + count; p++)
        for (size_t r = 0; r < KITH_BLOCK_ROWS; r++)
            *numbers++ = (uint16_t)kith_pq_number(block + r, KITH_BLOCK_ROWS, pq->bits, p);
}

static void scan_of_any_width(const kith_pq *pq, const kith_lookup *queries, size_t query_count,
                              const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    const kith_table_kernels *kernels = &kith_simd()->tables;
    for (size_t b = 0; b < block_count; b++, blocks += pq->base.block_bytes, out += KITH_BLOCK_ROWS) {
        const uint32_t *words = (const uint32_t *)(const void *)blocks;
        int32_t sums[KITH_CODE_QUERIES_MAX][KITH_BLOCK_ROWS] = {{0}};
        for (size_t first = 0; first < pq->parts; first += CHUNK_PARTS) {
            size_t count = kith_min_size(CHUNK_PARTS, pq->parts - first);
            uint16_t numbers[CHUNK_PARTS * KITH_BLOCK_ROWS];
            take_numbers(pq, words, first, count, numbers);
            for (size_t q = 0; q < query_count; q++) {
                int32_t more[KITH_BLOCK_ROWS];
                const uint16_t *tables = queries[q].tables;
                kernels->gather(tables + first * pq->codewords, pq->codewords, numbers, count, more);
                for (size_t r = 0; r < KITH_BLOCK_ROWS; r++) sums[q][r] += more[r];
            }
        }
        const float *addends = (const float *)(const void *)(words + pq->word_count * KITH_BLOCK_ROWS);
        for (size_t q = 0; q < query_count; q++)
            finish(&queries[q], sums[q], kith_pq_has_addend(pq) ? addends : NULL, KITH_BLOCK_ROWS,
                   out + q * out_stride);
    }
}

void kith_pq_scan(const kith_code *code, const void *const *queries, const float *bases, size_t query_count,
                  const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    const kith_pq *pq = kith_pq_of_const(code);
    const kith_lookup_kernels *kernels = kernels_of(pq);
    const kith_lookup_shape shape = shape_of(pq);
    kith_lookup lookups[KITH_CODE_QUERIES_MAX];
    for (size_t q = 0; q < query_count; q++) lookups[q] = lookup_of(queries[q], bases[q]);
    if (kernels != NULL)
        kernels->scan(lookups, query_count, &shape, blocks, block_count, out, out_stride);
    else
        scan_of_any_width(pq, lookups, query_count, blocks, block_count, out, out_stride);
}
