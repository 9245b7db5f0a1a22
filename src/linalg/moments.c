/* SPDX-License-Identifier: Apache-2.0
 *
 * moments.c: means and products X^T Y of many vectors.
 *
 * Rows are taken 1,024 at a time. Each side is packed for the tile kernel with the data's rows as the words: word w
 * of vector j is element j of row w, so packing copies pieces of rows and transposes nothing. Then tasks, each of
 * which owns a rectangle of the result, run the tile over 512 words and add what it gives to f64.
 */
#include "linalg/moments.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/random.h"
#include "exact/check.h"
#include "exact/exact.h"
#include "simd/simd.h"

enum { STREAM_STRATA = 0x73747261, BLOCK_ROWS = 1024, WORDS = 512, PACK_ROWS = 32, PRODUCT_COLUMNS = 128 };
enum { BLOCKS_AT_ONCE = 64 };

/* ---- The sample ---------------------------------------------------------------------------------------------- */

kith_sample kith_sample_of(const kith_view *view, size_t count_max, uint64_t seed) {
    size_t count = count_max == 0 ? view->count : kith_min_size(view->count, count_max);
    return (kith_sample){.view = *view, .stride = kith_view_stride(view), .count = count, .seed = seed};
}

size_t kith_sample_row(const kith_sample *sample, size_t i) {
    if (sample->count == sample->view.count) return i;
    /* The first n mod m stretches have one row more than the others. */
    size_t rows = sample->view.count / sample->count, longer = sample->view.count % sample->count;
    size_t first = i * rows + kith_min_size(i, longer), length = rows + (i < longer);
    return first + (size_t)kith_random_below(sample->seed, STREAM_STRATA, i, length);
}

void kith_sample_read(const kith_sample *sample, size_t first, size_t count, float *out) {
    const char *data = sample->view.data;
    size_t dim = sample->view.dim;
    for (size_t i = 0; i < count; i++)
        kith_exact_to_f32(data + kith_sample_row(sample, first + i) * sample->stride, sample->view.dtype, dim,
                          out + i * dim);
}

typedef struct read_loop {
    const kith_sample *sample;
    size_t first, count;
    float *out;
} read_loop;

static kith_status read_block(void *context, size_t item, size_t worker) {
    const read_loop *loop = context;
    (void)worker;
    size_t at = item * BLOCK_ROWS, count = kith_min_size(BLOCK_ROWS, loop->count - at);
    kith_sample_read(loop->sample, loop->first + at, count, loop->out + at * loop->sample->view.dim);
    return KITH_OK;
}

kith_status kith_sample_read_all(const kith_sample *sample, size_t first, size_t count, size_t threads,
                                 float *out) {
    read_loop loop = {sample, first, count, out};
    return kith_parallel_for(threads, (count + BLOCK_ROWS - 1) / BLOCK_ROWS, read_block, &loop);
}

/* ---- The mean ------------------------------------------------------------------------------------------------ */

typedef struct mean_loop {
    const kith_sample *sample;
    size_t first_block;
    float *rows;     /* dim, for each worker */
    double *sums;    /* BLOCKS_AT_ONCE x dim */
    double *largest; /* BLOCKS_AT_ONCE */
} mean_loop;

static kith_status sum_block(void *context, size_t item, size_t worker) {
    const mean_loop *loop = context;
    const kith_sample *sample = loop->sample;
    size_t dim = sample->view.dim, first = (loop->first_block + item) * BLOCK_ROWS;
    size_t count = kith_min_size(BLOCK_ROWS, sample->count - first);
    float *row = loop->rows + worker * dim, largest = 0;
    double *sums = loop->sums + item * dim;
    memset(sums, 0, dim * sizeof *sums);
    for (size_t i = 0; i < count; i++) {
        kith_sample_read(sample, first + i, 1, row);
        kith_simd()->matrix.accumulate(sums, row, dim);
        for (size_t j = 0; j < dim; j++) {
            float magnitude = fabsf(row[j]);
            largest = magnitude > largest ? magnitude : largest;
        }
    }
    loop->largest[item] = (double)largest;
    return KITH_OK;
}

kith_status kith_sample_mean(const kith_sample *sample, size_t threads, double *mean, double *spread) {
    size_t dim = sample->view.dim, blocks = (sample->count + BLOCK_ROWS - 1) / BLOCK_ROWS;
    mean_loop loop = {.sample = sample};
    double largest = 0;
    kith_status status;
    KITH_GO(kith_alloc(threads, dim * sizeof *loop.rows, &loop.rows));
    KITH_GO(kith_alloc(BLOCKS_AT_ONCE, dim * sizeof *loop.sums, &loop.sums));
    KITH_GO(kith_alloc(BLOCKS_AT_ONCE, sizeof *loop.largest, &loop.largest));
    memset(mean, 0, dim * sizeof *mean);
    for (; loop.first_block < blocks; loop.first_block += BLOCKS_AT_ONCE) {
        size_t count = kith_min_size(BLOCKS_AT_ONCE, blocks - loop.first_block);
        KITH_GO(kith_parallel_for(threads, count, sum_block, &loop));
        for (size_t b = 0; b < count; b++) {
            for (size_t j = 0; j < dim; j++) mean[j] += loop.sums[b * dim + j];
            largest = fmax(largest, loop.largest[b]);
        }
    }
    for (size_t j = 0; j < dim; j++) mean[j] /= (double)sample->count;
    *spread = 2 * largest; /* a mean is no larger than the largest element */
done:
    kith_free(loop.rows);
    kith_free(loop.sums);
    kith_free(loop.largest);
    return status;
}

float kith_scale_of(double spread) {
    int exponent = 0;
    if (!(spread > 0)) return 1;
    (void)frexp(spread, &exponent);
    exponent = exponent > 126 ? 126 : exponent < -126 ? -126 : exponent;
    return (float)ldexp(1, -exponent);
}

/* ---- Products ------------------------------------------------------------------------------------------------ */

/* One side's operand: panels of `lanes` columns, BLOCK_ROWS words each. */
typedef struct operand {
    const kith_moment_side *side;
    size_t dim, lanes, panels;
    float *packed;
} operand;

typedef struct moment_loop {
    operand left, right;
    bool is_symmetric;
    size_t first, count; /* rows of the block */
    float *rows;         /* PACK_ROWS x larger dim, for each worker */
    float *scores;       /* left lanes x PRODUCT_COLUMNS, for each worker */
    float *zeros;        /* the bias: PRODUCT_COLUMNS */
    double *out;
    size_t out_stride;
    size_t left_per_task, right_per_task, right_tasks; /* panels; tasks */
} moment_loop;

static void pack_side(const operand *o, size_t first, size_t word, size_t count, float *rows) {
    const kith_moment_side *side = o->side;
    kith_sample_read(&side->sample, first + word, count, rows);
    for (size_t i = 0; i < count; i++) {
        float *row = rows + i * o->dim;
        if (side->shift != NULL)
            for (size_t j = 0; j < o->dim; j++) row[j] -= side->shift[j];
        for (size_t j = 0; j < o->dim; j++) row[j] *= side->scale;
        for (size_t p = 0; p < o->panels; p++) {
            float *to = o->packed + (p * BLOCK_ROWS + word + i) * o->lanes;
            size_t present = kith_min_size(o->lanes, o->dim - p * o->lanes);
            memcpy(to, row + p * o->lanes, present * sizeof *to);
            memset(to + present, 0, (o->lanes - present) * sizeof *to);
        }
    }
}

static kith_status pack_rows(void *context, size_t item, size_t worker) {
    const moment_loop *loop = context;
    size_t word = item * PACK_ROWS, count = kith_min_size(PACK_ROWS, loop->count - word);
    float *rows = loop->rows + worker * PACK_ROWS * kith_max_size(loop->left.dim, loop->right.dim);
    pack_side(&loop->left, loop->first, word, count, rows);
    pack_side(&loop->right, loop->first, word, count, rows);
    return KITH_OK;
}

/* The tile over `words` words from `word` on: left panel p, right panels q .. q + count - 1. A run of words inside
 * a panel starts at its word; panels of the right side are taken one by one, as they are BLOCK_ROWS words apart. */
static void add_products(const moment_loop *loop, size_t p, size_t q, size_t count, size_t word, size_t words,
                         float *scores) {
    const kith_simd_table *simd = kith_simd();
    const operand *l = &loop->left, *r = &loop->right;
    for (size_t i = 0; i < count; i++)
        simd->tile_f32.run(l->packed + (p * BLOCK_ROWS + word) * l->lanes,
                           r->packed + ((q + i) * BLOCK_ROWS + word) * r->lanes, words, 1, loop->zeros,
                           scores + i * r->lanes, PRODUCT_COLUMNS);
    size_t column = q * r->lanes, columns = kith_min_size(count * r->lanes, r->dim - column);
    for (size_t i = 0; i < l->lanes && p * l->lanes + i < l->dim; i++)
        simd->matrix.accumulate(loop->out + (p * l->lanes + i) * loop->out_stride + column,
                                scores + i * PRODUCT_COLUMNS, columns);
}

static kith_status multiply_rectangle(void *context, size_t item, size_t worker) {
    const moment_loop *loop = context;
    const operand *l = &loop->left, *r = &loop->right;
    size_t p_first = item / loop->right_tasks * loop->left_per_task;
    size_t q = item % loop->right_tasks * loop->right_per_task;
    size_t p_last = kith_min_size(p_first + loop->left_per_task, l->panels);
    size_t count = kith_min_size(loop->right_per_task, r->panels - q);
    float *scores = loop->scores + worker * l->lanes * PRODUCT_COLUMNS;
    for (size_t word = 0; word < loop->count; word += WORDS)
        for (size_t p = p_first; p < p_last; p++) {
            if (loop->is_symmetric && (q + count) * r->lanes <= p * l->lanes) continue; /* below the diagonal */
            add_products(loop, p, q, count, word, kith_min_size(WORDS, loop->count - word), scores);
        }
    return KITH_OK;
}

static kith_status make_operand(operand *o, const kith_moment_side *side, size_t lanes) {
    o->side = side;
    o->dim = side->sample.view.dim;
    o->lanes = lanes;
    o->panels = (o->dim + lanes - 1) / lanes;
    return kith_alloc(o->panels * lanes, BLOCK_ROWS * sizeof *o->packed, &o->packed);
}

static kith_status make_loop(moment_loop *loop, const kith_moment_side *x, const kith_moment_side *y,
                             size_t threads) {
    const kith_tile_f32 *tile = &kith_simd()->tile_f32;
    KITH_TRY(make_operand(&loop->left, x, tile->query_lanes));
    KITH_TRY(make_operand(&loop->right, y, tile->row_lanes));
    size_t dim_max = kith_max_size(loop->left.dim, loop->right.dim);
    KITH_TRY(kith_alloc(threads * PACK_ROWS, dim_max * sizeof *loop->rows, &loop->rows));
    KITH_TRY(kith_alloc(threads * tile->query_lanes, PRODUCT_COLUMNS * sizeof *loop->scores, &loop->scores));
    KITH_TRY(kith_alloc_zeroed(PRODUCT_COLUMNS, sizeof *loop->zeros, &loop->zeros));
    loop->left_per_task = kith_max_size(PRODUCT_COLUMNS / tile->query_lanes, 1);
    loop->right_per_task = PRODUCT_COLUMNS / tile->row_lanes;
    loop->right_tasks = (loop->right.panels + loop->right_per_task - 1) / loop->right_per_task;
    return KITH_OK;
}

static void finish(const moment_loop *loop) {
    size_t rows = loop->left.dim, columns = loop->right.dim, stride = loop->out_stride;
    double unscale = 1 / ((double)loop->left.side->scale * (double)loop->right.side->scale);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            loop->out[i * stride + j] =
                loop->is_symmetric && j < i ? loop->out[j * stride + i] : loop->out[i * stride + j] * unscale;
}

kith_status kith_moments(const kith_moment_side *x, const kith_moment_side *y, size_t threads, kith_meter *meter,
                         double *out) {
    moment_loop loop = {.is_symmetric = y == NULL, .out = out};
    const kith_moment_side *right = y != NULL ? y : x;
    kith_status status;
    KITH_GO(make_loop(&loop, x, right, threads));
    loop.out_stride = kith_matrix_stride(loop.right.dim);
    memset(out, 0, loop.left.dim * loop.out_stride * sizeof *out);
    size_t left_tasks = (loop.left.panels + loop.left_per_task - 1) / loop.left_per_task;
    for (; loop.first < x->sample.count; loop.first += BLOCK_ROWS) {
        loop.count = kith_min_size(BLOCK_ROWS, x->sample.count - loop.first);
        KITH_GO(kith_parallel_for(threads, (loop.count + PACK_ROWS - 1) / PACK_ROWS, pack_rows, &loop));
        KITH_GO(kith_parallel_for(threads, left_tasks * loop.right_tasks, multiply_rectangle, &loop));
        if (meter != NULL) KITH_GO(kith_meter_add(meter, loop.count));
    }
    finish(&loop);
done:
    kith_free(loop.left.packed);
    kith_free(loop.right.packed);
    kith_free(loop.rows);
    kith_free(loop.scores);
    kith_free(loop.zeros);
    return status;
}

size_t kith_moments_bytes(size_t dim_x, size_t dim_y) {
    return (dim_x + dim_y + 2 * PRODUCT_COLUMNS) * (BLOCK_ROWS + PACK_ROWS) * sizeof(float);
}
