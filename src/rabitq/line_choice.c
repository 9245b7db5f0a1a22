/* SPDX-License-Identifier: Apache-2.0
 *
 * line_choice.c: the rank test by which a line's bits are chosen. Rows of the sample are held out as queries; all
 * other rows are ranked for each by their estimates; what counts is how far down the true neighbours stand, because
 * so many rows would have to be looked at again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "exact/exact.h"
#include "rabitq/rabitq_inside.h"

enum { QUERIES = 128, ROWS = 16384, NEIGHBOURS = 10, ROWS_MIN = 512 };

struct kith_rank_test {
    size_t dim, row_count, query_count;
    float *rows, *queries;
    const float *centroids; /* the sample's */
    size_t centroid_count;
    uint32_t *row_centroids; /* row_count, or NULL */
    uint32_t *truth;         /* query_count x NEIGHBOURS */
};

/* ---- Making ---------------------------------------------------------------------------------------------------- */

void kith_rank_test_free(kith_rank_test *test) {
    if (test == NULL) return;
    kith_free(test->rows);
    kith_free(test->queries);
    kith_free(test->row_centroids);
    kith_free(test->truth);
    kith_free(test);
}

/* Deals rows at equal distances out to queries and rows. */
static void deal_out(kith_rank_test *test, const kith_code_rows *sample) {
    size_t dim = test->dim, total = test->row_count + test->query_count, stride = total / test->query_count;
    size_t row = 0, query = 0;
    for (size_t i = 0; i < total; i++) {
        size_t from = i * sample->count / total;
        if (i % stride == 0 && query < test->query_count) {
            memcpy(test->queries + query++ * dim, sample->rows + from * dim, dim * sizeof *test->queries);
            continue;
        }
        memcpy(test->rows + row * dim, sample->rows + from * dim, dim * sizeof *test->rows);
        if (test->row_centroids != NULL)
            test->row_centroids[row] = sample->assigned != NULL ? sample->assigned[from] : 0;
        row++;
    }
}

static kith_status find_truth(kith_rank_test *test, kith_metric metric, size_t threads) {
    kith_arena arena = {0};
    kith_exact *exact;
    kith_topk *tops;
    kith_hit *hits;
    size_t capacity = kith_topk_capacity(NEIGHBOURS);
    kith_exact_request request = {
        .queries = {.data = test->queries, .dtype = KITH_F32, .count = test->query_count, .dim = test->dim},
        .metric = metric,
        .row_dtype = KITH_F32,
        .threads = threads,
        .arena = &arena,
    };
    kith_rows rows = {.dtype = KITH_F32,
                      .dim = test->dim,
                      .count = test->row_count,
                      .base = test->rows,
                      .stride = test->dim * sizeof(float)};
    kith_status status;
    KITH_GO(kith_arena_begin(&arena));
    KITH_GO(kith_arena_take(&arena, test->query_count, sizeof *tops, &tops));
    KITH_GO(kith_arena_take(&arena, test->query_count, capacity * sizeof *hits, &hits));
    for (size_t q = 0; q < test->query_count; q++) kith_topk_init(&tops[q], hits + q * capacity, NEIGHBOURS);
    KITH_GO(kith_exact_open(&request, &exact));
    KITH_GO(kith_exact_topk(exact, &rows, tops));
    for (size_t q = 0; q < test->query_count; q++) {
        kith_topk_finish(&tops[q]);
        for (size_t i = 0; i < NEIGHBOURS; i++) test->truth[q * NEIGHBOURS + i] = (uint32_t)tops[q].hits[i].id;
    }
done:
    kith_arena_free(&arena);
    return status;
}

kith_status kith_rank_test_create(const kith_code_rows *sample, size_t dim, kith_metric metric, size_t threads,
                                  kith_rank_test **out) {
    kith_rank_test *test;
    kith_status status;
    *out = NULL;
    if (sample->count < ROWS_MIN) return KITH_OK;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *test, &test));
    size_t total = kith_min_size(sample->count, ROWS + QUERIES);
    test->dim = dim;
    test->query_count = kith_min_size(QUERIES, total / 8);
    test->row_count = total - test->query_count;
    test->centroids = sample->centroids;
    KITH_GO(kith_alloc(test->row_count, dim * sizeof *test->rows, &test->rows));
    KITH_GO(kith_alloc(test->query_count, dim * sizeof *test->queries, &test->queries));
    KITH_GO(kith_alloc(test->query_count, NEIGHBOURS * sizeof *test->truth, &test->truth));
    if (sample->centroids != NULL)
        KITH_GO(kith_alloc(test->row_count, sizeof *test->row_centroids, &test->row_centroids));
    deal_out(test, sample);
    for (size_t i = 0; test->row_centroids != NULL && i < test->row_count; i++)
        test->centroid_count = kith_max_size(test->centroid_count, (size_t)test->row_centroids[i] + 1);
    KITH_GO(find_truth(test, metric, threads));
    *out = test;
    return KITH_OK;
done:
    kith_rank_test_free(test);
    return status;
}

/* ---- Running --------------------------------------------------------------------------------------------------- */

/* One code under test: everything projected, rows encoded and packed. */
typedef struct test_run {
    const kith_rank_test *test;
    const kith_code *code;
    float *rows, *queries, *centroids;
    unsigned char *codes, *blocks;
    size_t block_count;
    unsigned char *prepared; /* for each worker */
    float *estimates, *bases;
    uint32_t *ranks; /* query_count x NEIGHBOURS */
} test_run;

static kith_status take_run(test_run *run, size_t threads, kith_arena *arena) {
    const kith_rank_test *test = run->test;
    const kith_code *code = run->code;
    size_t row_bytes = code->projected_dim * sizeof(float);
    KITH_TRY(kith_arena_take(arena, test->row_count, row_bytes, &run->rows));
    KITH_TRY(kith_arena_take(arena, test->query_count, row_bytes, &run->queries));
    KITH_TRY(kith_arena_take(arena, test->centroid_count, row_bytes, &run->centroids));
    KITH_TRY(kith_arena_take(arena, test->row_count, code->code_bytes, &run->codes));
    run->block_count = kith_code_blocks(test->row_count);
    KITH_TRY(kith_arena_take(arena, run->block_count, code->block_bytes, &run->blocks));
    KITH_TRY(kith_arena_take(arena, threads, code->query_bytes, &run->prepared));
    KITH_TRY(kith_arena_take(arena, threads * run->block_count, KITH_BLOCK_ROWS * sizeof(float), &run->estimates));
    KITH_TRY(kith_arena_take(arena, threads, test->centroid_count * sizeof(float), &run->bases));
    return kith_arena_take(arena, test->query_count, NEIGHBOURS * sizeof *run->ranks, &run->ranks);
}

static kith_status encode_rows(test_run *run, size_t threads, kith_arena *arena) {
    const kith_rank_test *test = run->test;
    const kith_code *code = run->code;
    KITH_TRY(kith_code_project(code, test->rows, test->row_count, threads, arena, run->rows));
    KITH_TRY(kith_code_project_queries(code, test->queries, test->query_count, threads, arena, run->queries));
    KITH_TRY(kith_code_project(code, test->centroids, test->centroid_count, threads, arena, run->centroids));
    kith_code_rows rows = {.rows = run->rows,
                           .count = test->row_count,
                           .centroids = test->centroids != NULL ? run->centroids : NULL,
                           .assigned = test->row_centroids};
    KITH_TRY(kith_code_encode(code, &rows, threads, run->codes));
    memset(run->blocks, 0, run->block_count * code->block_bytes);
    for (size_t b = 0; b < run->block_count; b++)
        code->vtable->pack(code, run->codes + b * KITH_BLOCK_ROWS * code->code_bytes, 0,
                           kith_min_size(KITH_BLOCK_ROWS, test->row_count - b * KITH_BLOCK_ROWS),
                           run->blocks + b * code->block_bytes);
    return KITH_OK;
}

static kith_status rank_query(void *context, size_t q, size_t worker) {
    const test_run *run = context;
    const kith_rank_test *test = run->test;
    const kith_code *code = run->code;
    const float *query = run->queries + q * code->projected_dim;
    float *estimates = run->estimates + worker * run->block_count * KITH_BLOCK_ROWS;
    float *bases = run->bases + worker * test->centroid_count, zero = 0;
    void *prepared = run->prepared + worker * code->query_bytes;
    const void *queries = prepared;
    code->vtable->prepare(code, query, prepared);
    code->vtable->scan(code, &queries, &zero, 1, run->blocks, run->block_count, estimates, 0);
    for (size_t c = 0; c < test->centroid_count; c++)
        bases[c] = kith_code_base(code, query, run->centroids + c * code->projected_dim);
    for (size_t i = 0; test->row_centroids != NULL && i < test->row_count; i++)
        estimates[i] += bases[test->row_centroids[i]];
    for (size_t n = 0; n < NEIGHBOURS; n++) {
        float own = estimates[test->truth[q * NEIGHBOURS + n]];
        uint32_t before = 0;
        for (size_t i = 0; i < test->row_count; i++) before += estimates[i] < own;
        run->ranks[q * NEIGHBOURS + n] = before + 1;
    }
    return KITH_OK;
}

static int compare_ranks(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

kith_status kith_rank_test_run(const kith_rank_test *test, const kith_rabitq *code, size_t threads,
                               kith_rank_result *out) {
    test_run run = {.test = test, .code = &code->code};
    kith_arena arena = {0};
    kith_status status;
    threads = kith_min_size(threads, test->query_count);
    KITH_GO(kith_arena_begin(&arena));
    KITH_GO(take_run(&run, threads, &arena));
    KITH_GO(encode_rows(&run, threads, &arena));
    KITH_GO(kith_parallel_for(threads, test->query_count, rank_query, &run));
    size_t count = test->query_count * NEIGHBOURS;
    qsort(run.ranks, count, sizeof *run.ranks, compare_ranks);
    *out = (kith_rank_result){run.ranks[count * 95 / 100], run.ranks[count * 99 / 100]};
done:
    kith_arena_free(&arena);
    return status;
}
