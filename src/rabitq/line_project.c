/* SPDX-License-Identifier: Apache-2.0
 *
 * line_project.c: how queries reach the space of a line code: by 8-bit products, since a matrix in f32, which a query
 * that comes alone reads whole, takes longer than many a search.
 *
 * The rows of the transform's matrix are themselves held as codes of a grid (grid.h): numbers of 8 bits around 128, and
 * a scale for each row. A query less the mean is prepared for that grid, and an estimate against row i is element i of
 * the result. Rows of such a matrix are spread evenly by its random rotation, so 8 bits are off by a hundredth of an
 * element's usual size; numbers of up to 4 bits in the lines are off by ten times that. So is a query in 8 bits, unless
 * a few elements tower above the others: then it takes 15. Products are whole numbers, so a query gives the same bits
 * alone and in a batch, on every instruction set.
 *
 * Lines of more bits are for few dimensions: there the transform is cheap and their own error small.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/parallel.h"
#include "exact/exact.h"
#include "rabitq/rabitq_inside.h"
#include "simd/simd.h"

enum { BITS_MAX = 4, NUMBER_BITS = 8, NUMBER_ZERO = 128, NUMBER_MAX = 127, GROUP = KITH_CODE_QUERIES_MAX };
/* A query whose largest element is more than so many times its root mean square takes 15 bits. */
static const float crest_max = 8;

size_t kith_line_narrow_bytes(const kith_rabitq *own) {
    return kith_code_blocks(own->code.projected_dim) * own->narrow_grids[0].block_bytes;
}

/* A row of the matrix as a code. */
static void put_row(const kith_grid *grid, const float *row, uint8_t *numbers, unsigned char *code) {
    float largest = kith_simd()->rounding.largest(row, grid->dim);
    double inverse = largest > 0 ? NUMBER_MAX / (double)largest : 0;
    for (size_t d = 0; d < grid->dim; d++)
        numbers[d] = (uint8_t)(NUMBER_ZERO + (int)rint((double)row[d] * inverse));
    kith_grid_put(grid, numbers, 0, largest / NUMBER_MAX, code);
}

kith_status kith_line_narrow(kith_rabitq *own) {
    const float *matrix, *mean;
    if (own->grid.bits > BITS_MAX || !kith_transform_matrix(own->transform, &matrix, &mean)) return KITH_OK;
    size_t dim = own->code.dim;
    for (size_t p = 0; p < 2; p++) kith_grid_init(&own->narrow_grids[p], dim, NUMBER_BITS, KITH_FACTORS_F32, p + 1);
    const kith_grid grid = own->narrow_grids[0];
    uint8_t *numbers = NULL;
    unsigned char *code = NULL;
    kith_status status;
    KITH_GO(kith_alloc(dim, sizeof *numbers, &numbers));
    KITH_GO(kith_alloc(1, grid.row_bytes, &code));
    KITH_GO(kith_alloc_zeroed(kith_code_blocks(own->code.projected_dim), grid.block_bytes, &own->narrow));
    for (size_t i = 0; i < own->code.projected_dim; i++) {
        put_row(&grid, matrix + i * dim, numbers, code);
        kith_grid_pack(&grid, code, i % KITH_BLOCK_ROWS, 1, own->narrow + i / KITH_BLOCK_ROWS * grid.block_bytes);
    }
done:
    kith_free(numbers);
    kith_free(code);
    return status;
}

/* ---- Queries -------------------------------------------------------------------------------------------------- */

typedef struct project_loop {
    const kith_rabitq *own;
    const float *mean, *queries;
    size_t count;
    bool to_unit;
    float *out;
    /* Of each worker: a query less the mean, queries prepared for either grid, results. */
    float *centred, *results;
    unsigned char *prepared;
    size_t stride; /* of results */
} project_loop;

/* A query as its products are made of it: of unit length where that is wanted, less the mean where there is one. Here
 * rather than in a pass of its own: that would write and read all queries of a call once more. */
static const float *centre(const project_loop *loop, const float *query, float *to) {
    size_t dim = loop->own->code.dim;
    if (loop->to_unit) {
        float inverse = kith_exact_inverse_norm(query, KITH_F32, dim);
        for (size_t d = 0; d < dim; d++) to[d] = query[d] * inverse;
        query = to;
    }
    if (loop->mean == NULL) return query;
    for (size_t d = 0; d < dim; d++) to[d] = query[d] - loop->mean[d];
    return to;
}

/* Returns the number of its grid. */
static size_t prepare(const project_loop *loop, const float *vector, void *query) {
    const kith_grid *grids = loop->own->narrow_grids;
    const float most = NUMBER_MAX / crest_max;
    kith_grid_prepare_centred(&grids[0], vector, 1, NUMBER_ZERO, query);
    float norm2 = (float)kith_grid_query_norm2(&grids[0], query);
    if (norm2 == 0 || norm2 >= most * most * (float)grids[0].dim) return 0;
    kith_grid_prepare_centred(&grids[1], vector, 1, NUMBER_ZERO, query);
    return 1;
}

/* The queries of a group that take `parts` parts: their numbers, and how they are prepared. */
typedef struct half_group {
    size_t count, queries[GROUP];
    const void *prepared[GROUP];
} half_group;

static void project_half(const project_loop *loop, const kith_grid *grid, const half_group *half, float *results) {
    static const float bases[GROUP];
    size_t dim = loop->own->code.projected_dim;
    kith_grid_scan(grid, half->prepared, bases, half->count, loop->own->narrow, kith_code_blocks(dim), results,
                   loop->stride);
    for (size_t i = 0; i < half->count; i++)
        memcpy(loop->out + half->queries[i] * dim, results + i * loop->stride, dim * sizeof *loop->out);
}

static kith_status project_group(void *context, size_t item, size_t worker) {
    const project_loop *loop = context;
    size_t dim = loop->own->code.dim, first = item * GROUP, count = kith_min_size(GROUP, loop->count - first);
    half_group halves[2] = {{0}, {0}};
    unsigned char *prepared = loop->prepared + worker * GROUP * loop->own->narrow_grids[1].query_bytes;
    for (size_t q = first; q < first + count; q++, prepared += loop->own->narrow_grids[1].query_bytes) {
        const float *vector = centre(loop, loop->queries + q * dim, loop->centred + worker * dim);
        half_group *half = &halves[prepare(loop, vector, prepared)];
        half->queries[half->count] = q;
        half->prepared[half->count++] = prepared;
    }
    float *results = loop->results + worker * GROUP * loop->stride;
    for (size_t h = 0; h < 2; h++)
        if (halves[h].count > 0) project_half(loop, &loop->own->narrow_grids[h], &halves[h], results);
    return KITH_OK;
}

kith_status kith_line_project_queries(const kith_code *code, const float *queries, size_t count, bool to_unit,
                                      size_t threads, kith_arena *arena, float *out) {
    const kith_rabitq *own = kith_rabitq_of(code);
    if (own->narrow == NULL || count == 0)
        return kith_code_project_plainly(code, queries, count, to_unit, threads, arena, out);
    project_loop loop = {.own = own, .queries = queries, .count = count, .to_unit = to_unit, .out = out};
    const float *matrix;
    size_t groups = (count + GROUP - 1) / GROUP;
    threads = kith_min_size(threads, groups);
    (void)kith_transform_matrix(own->transform, &matrix, &loop.mean);
    loop.stride = kith_code_blocks(code->projected_dim) * KITH_BLOCK_ROWS;
    KITH_TRY(kith_arena_take(arena, threads, code->dim * sizeof *loop.centred, &loop.centred));
    KITH_TRY(kith_arena_take(arena, threads, GROUP * loop.stride * sizeof *loop.results, &loop.results));
    KITH_TRY(kith_arena_take(arena, threads, GROUP * own->narrow_grids[1].query_bytes, &loop.prepared));
    return kith_parallel_for(threads, groups, project_group, &loop);
}
