/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "exact/exact.h"
#include "faults.h"
#include "memory_faults.h"
#include "rabitq/rabitq.h"

/* ---- Helpers -------------------------------------------------------------------------------------------------- */

static kith_job job_of(size_t threads) {
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    return job;
}

static float *normal_rows(uint64_t stream, size_t count, size_t dim, float scale) {
    float *rows = malloc(count * dim * sizeof *rows);
    for (size_t i = 0; i < count * dim; i++) rows[i] = scale * kith_random_normal(7, stream, i);
    return rows;
}

/* Rows of a few hidden numbers of falling variance, around `groups` points: what embeddings look like. */
static float *hidden_rows(uint64_t stream, size_t count, size_t dim, size_t groups, float offset) {
    enum { HIDDEN = 48 };
    float *rows = malloc(count * dim * sizeof *rows), *mix = normal_rows(99, HIDDEN, dim, 1);
    for (size_t i = 0; i < count; i++) {
        uint64_t group = kith_random_below(7, stream + 1000, i, groups);
        for (size_t j = 0; j < dim; j++)
            rows[i * dim + j] = offset + 0.02f * kith_random_normal(7, stream, i * dim + j);
        for (size_t h = 0; h < HIDDEN; h++) {
            float value = (kith_random_normal(8, stream, i * HIDDEN + h) + 2 * kith_random_normal(9, group, h)) /
                          sqrtf((float)(h + 1));
            for (size_t j = 0; j < dim; j++) rows[i * dim + j] += value * mix[h * dim + j];
        }
    }
    free(mix);
    return rows;
}

static kith_code *make(const char *name, size_t dim, kith_metric metric) {
    kith_code *code;
    size_t position;
    cr_assert_eq(kith_rabitq_make(name, dim, metric, &code, &position), KITH_OK, "%s", kith_error_message());
    cr_assert_not_null(code, "%s", name);
    return code;
}

static kith_code *make_trained(const char *name, size_t dim, kith_metric metric, const kith_code_rows *sample,
                               size_t threads) {
    kith_code *code = make(name, dim, metric);
    kith_job job = job_of(threads);
    cr_assert_eq(kith_code_train(code, sample, &job), KITH_OK, "%s", kith_error_message());
    cr_assert(code->is_trained);
    return code;
}

static float *project(const kith_code *code, const float *vectors, size_t count) {
    kith_arena arena = {0};
    float *out = malloc((count * code->projected_dim + 1) * sizeof *out);
    cr_assert_eq(kith_code_project(code, vectors, count, 2, &arena, out), KITH_OK, "%s", kith_error_message());
    kith_arena_free(&arena);
    return out;
}

/* Rows in original dimensions to codes; centroids (NULL: none) and assigned as in code.h. */
static unsigned char *encode(const kith_code *code, const float *vectors, size_t count, const float *centroids,
                             size_t centroid_count, const uint32_t *assigned, size_t threads) {
    float *rows = project(code, vectors, count), *points = project(code, centroids, centroid_count);
    unsigned char *codes = calloc(count + 1, code->code_bytes);
    kith_code_rows all = {rows, count, centroids != NULL ? points : NULL, assigned, 0};
    cr_assert_eq(kith_code_encode(code, &all, threads, codes), KITH_OK, "%s", kith_error_message());
    free(rows);
    free(points);
    return codes;
}

static float *project_queries(const kith_code *code, const float *queries, size_t count, size_t threads) {
    kith_arena arena = {0};
    float *out = malloc((count * code->projected_dim + 1) * sizeof *out);
    cr_assert_eq(kith_arena_begin(&arena), KITH_OK);
    cr_assert_eq(kith_code_project_queries(code, queries, count, threads, &arena, out), KITH_OK, "%s",
                 kith_error_message());
    kith_arena_free(&arena);
    return out;
}

/* Queries that are normalised on the way are projected to the bit as those that come so. */
Test(rabitq, queries_are_normalised_as_they_are_projected) {
    enum { COUNT = 700, D = 203, ASKED = 37 };
    static const char *const names[] = {"RaBitQ", "Line64x2", "Line64"};
    float *rows = hidden_rows(1, COUNT, D, 4, 3), *queries = hidden_rows(2, ASKED, D, 4, 3);
    memset(queries + 5 * D, 0, D * sizeof *queries);
    const kith_view view = {.data = queries, .dtype = KITH_F32, .count = ASKED, .dim = D};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        kith_code_rows sample = {rows, COUNT, NULL, NULL, 0};
        kith_code *code = make_trained(names[n], D, KITH_IP, &sample, 2);
        kith_arena arena = {0};
        const float *unit;
        float *out = malloc(ASKED * code->projected_dim * sizeof *out);
        cr_assert_eq(kith_arena_begin(&arena), KITH_OK);
        cr_assert_eq(kith_exact_queries(&view, true, 1, &arena, &unit), KITH_OK);
        float *expected = project_queries(code, unit, ASKED, 1);
        for (size_t threads = 1; threads <= 3; threads++) {
            cr_assert_eq(kith_code_project_to_unit(code, queries, ASKED, threads, &arena, out), KITH_OK);
            cr_assert_arr_eq(out, expected, ASKED * code->projected_dim * sizeof *out, "%s", names[n]);
        }
        kith_arena_free(&arena);
        kith_code_free(code);
        free(expected);
        free(out);
    }
    free(rows);
    free(queries);
}

static void *prepare(const kith_code *code, const float *projected) {
    void *query = aligned_alloc(64, code->query_bytes);
    code->vtable->prepare(code, projected, query);
    return query;
}

static double true_distance(kith_metric metric, const float *a, const float *b, size_t dim) {
    double sum = 0;
    for (size_t j = 0; j < dim; j++) {
        double x = (double)a[j], y = (double)b[j];
        sum += metric == KITH_L2 ? (x - y) * (x - y) : -x * y;
    }
    return sum;
}

static double norm_between(const float *a, const float *b, size_t dim) {
    double sum = 0;
    for (size_t j = 0; j < dim; j++) {
        double x = (double)a[j] - (b != NULL ? (double)b[j] : 0);
        sum += x * x;
    }
    return sqrt(sum);
}

/* ---- Names ---------------------------------------------------------------------------------------------------- */

Test(rabitq, names) {
    static const struct {
        const char *name;
        size_t dim, bytes;
        kith_code_kind kind;
    } good[] = {
        {"RaBitQ", 128, 24, KITH_CODE_RABITQ},  {"RaBitQ1", 100, 24, KITH_CODE_RABITQ},
        {"RaBitQ4", 128, 72, KITH_CODE_RABITQ}, {"RaBitQ7", 64, 64, KITH_CODE_RABITQ},
        {"RaBitQ8", 64, 72, KITH_CODE_RABITQ},  {"Line64", 784, 64, KITH_CODE_LINE},
        {"Line64x2", 10, 64, KITH_CODE_LINE},   {"Line64x3", 784, 64, KITH_CODE_LINE},
        {"Line32x4", 784, 32, KITH_CODE_LINE},  {"Line128x1", 3000, 128, KITH_CODE_LINE},
    };
    static const struct {
        const char *name;
        size_t position;
    } bad[] = {{"RaBitQ0", 6},   {"RaBitQ9", 6},  {"RaBitQ12", 6}, {"RaBitQfs", 6},
               {"RaBitQ4x", 7},  {"Line", 4},     {"Line65", 4},   {"Line064", 4},
               {"Line64x", 7},   {"Line64x0", 7}, {"Line64x9", 7}, {"Line64y2", 6},
               {"Line64x2 ", 8}, {"Line32x3", 7}, {"Line64x7", 7}, {"RaBitQ4 ", 7}};
    kith_code *code;
    size_t position;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        code = make(good[i].name, good[i].dim, KITH_L2);
        cr_assert_eq(code->code_bytes, good[i].bytes, "%s: %zu", good[i].name, code->code_bytes);
        cr_assert_eq(code->vtable->kind, good[i].kind);
        cr_assert_eq(code->block_bytes % 64 + code->query_bytes % 64, 0);
        cr_assert_str_eq(code->name, good[i].name);
        cr_assert_not(code->is_trained);
        kith_code_free(code);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(kith_rabitq_make(bad[i].name, 64, KITH_L2, &code, &position), KITH_ERR_ARGUMENT, "%s",
                     bad[i].name);
        cr_assert_eq(position, bad[i].position, "%s: %zu", bad[i].name, position);
        cr_assert_null(code);
    }
    static const char *const others[] = {"SQ8", "PQ16", "", "Rabitq", "line64", "RaBit"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        cr_assert_eq(kith_rabitq_make(others[i], 64, KITH_L2, &code, &position), KITH_OK);
        cr_assert_null(code);
    }
    cr_assert_eq(kith_rabitq_make("RaBitQ", 64, KITH_COSINE, &code, &position), KITH_ERR_ARGUMENT);
}

/* ---- Estimates ------------------------------------------------------------------------------------------------ */

/* 1 - cos^2 between a normal vector and the nearest point of the best uniform grid of 2^bits points: the mean squared
 * error of Max's quantizers (1960, table II). */
static const double max_error[9] = {0, 0.3634, 0.1188, 0.03744, 0.01154, 0.003495, 0.001041, 0.0003035, 0.0000869};

enum { DIM = 192, ROWS = 1000, QUERIES = 30, CENTROIDS = 5 };

typedef struct measured {
    double mean, deviation; /* of errors in units of their closed-form deviation */
    double outside;         /* share of errors beyond the code's bound */
} measured;

/* Estimates of every pair against the closed form |r| |q - c| tan(angle) / sqrt(dim - 1), twice that under l2. */
static measured measure(size_t bits, kith_metric metric, bool has_centroids, float offset) {
    char name[16];
    (void)snprintf(name, sizeof name, "RaBitQ%zu", bits);
    float *rows = normal_rows(1, ROWS, DIM, 1), *queries = normal_rows(2, QUERIES, DIM, 1.5f);
    float *centroids = has_centroids ? normal_rows(3, CENTROIDS, DIM, 2) : NULL;
    uint32_t assigned[ROWS];
    for (size_t i = 0; i < ROWS; i++) assigned[i] = (uint32_t)(i % CENTROIDS);
    for (size_t i = 0; i < ROWS * DIM; i++)
        rows[i] += offset + (has_centroids ? centroids[assigned[i / DIM] * DIM + i % DIM] : 0);
    for (size_t i = 0; i < QUERIES * DIM; i++) queries[i] += offset;
    kith_code_rows sample = {rows, ROWS, centroids, has_centroids ? assigned : NULL, 0};
    kith_code *code = make_trained(name, DIM, metric, &sample, 2);
    unsigned char *codes =
        encode(code, rows, ROWS, centroids, has_centroids ? CENTROIDS : 0, has_centroids ? assigned : NULL, 2);
    float *points = project(code, centroids, has_centroids ? CENTROIDS : 0),
          *turned = project(code, queries, QUERIES);
    double sum = 0, squares = 0, outside = 0;
    enum { BLOCK = 32 };
    unsigned char *block = aligned_alloc(64, code->block_bytes);
    for (size_t q = 0; q < QUERIES; q++) {
        void *query = prepare(code, turned + q * code->projected_dim);
        for (size_t i = 0; i < ROWS; i++) {
            const float *point = has_centroids ? points + assigned[i] * code->projected_dim : NULL;
            const float *origin = has_centroids ? centroids + assigned[i] * DIM : NULL;
            float mean[DIM];
            for (size_t j = 0; j < DIM; j++) mean[j] = offset;
            if (!has_centroids) origin = mean;
            float base = kith_code_base(code, turned + q * code->projected_dim, point);
            float estimate = kith_code_one(code, query, base, codes + i * code->code_bytes);
            double error = (double)estimate - true_distance(metric, queries + q * DIM, rows + i * DIM, DIM);
            double spread = norm_between(queries + q * DIM, origin, DIM);
            double expected = norm_between(rows + i * DIM, origin, DIM) * spread *
                              sqrt(max_error[bits] / (1 - max_error[bits]) / (DIM - 1)) *
                              (metric == KITH_L2 ? 2 : 1);
            sum += error / expected;
            squares += error * error / (expected * expected);
            float bound = code->vtable->error(code, query, (float)spread, codes + i * code->code_bytes);
            outside += fabs(error) > (double)bound;
            if (i % BLOCK == 0)
                code->vtable->pack(code, codes + i * code->code_bytes, 0, ROWS - i < BLOCK ? ROWS - i : BLOCK,
                                   block);
            cr_assert_eq(bound, code->vtable->error_in_block(code, query, (float)spread, block, i % BLOCK));
        }
        free(query);
    }
    kith_code_free(code);
    free(rows);
    free(queries);
    free(centroids);
    free(codes);
    free(block);
    free(points);
    free(turned);
    double pairs = ROWS * QUERIES;
    return (measured){sum / pairs, sqrt(squares / pairs), outside / pairs};
}

/* Pairs of one row are not independent, as all queries lie to the same side of a centroid: the mean of 1,000 rows lies
 * within 4 / sqrt(1,000). Of so few dimensions the best step of each vector gains more than theory's common one, the
 * more the finer the grid. The bound takes a cosine that all but one vector in a hundred reach, and so holds more often
 * than 1.9 standard deviations would, 94.3%. */
Test(rabitq, estimates_have_no_bias_and_the_error_that_theory_gives) {
    for (size_t bits = 1; bits <= 8; bits++)
        for (int mode = 0; mode < 4; mode++) {
            measured got = measure(bits, mode % 2 == 0 ? KITH_L2 : KITH_IP, mode >= 2, 0);
            cr_assert_lt(fabs(got.mean), 0.127, "%zu bits, mode %d: mean %g", bits, mode, got.mean);
            cr_assert(got.deviation > (bits <= 5 ? 0.88 : 0.7) && got.deviation < 1.08,
                      "%zu bits, mode %d: deviation %g", bits, mode, got.deviation);
            cr_assert(got.outside > 0.004 && got.outside < 0.057, "%zu bits, mode %d: %g outside", bits, mode,
                      got.outside);
        }
}

/* A large common offset is taken out under either metric. */
Test(rabitq, the_mean_does_no_harm) {
    for (int ip = 0; ip < 2; ip++) {
        measured got = measure(4, ip ? KITH_IP : KITH_L2, false, 3);
        cr_assert_lt(fabs(got.mean), 0.15, "%g", got.mean);
        cr_assert_lt(got.deviation, 1.4, "%g", got.deviation);
    }
}

Test(rabitq, rows_and_blocks_give_the_same_bits) {
    static const char *const names[] = {"RaBitQ",   "RaBitQ3", "RaBitQ8",  "Line64x4",
                                        "Line64x3", "Line32",  "Line128x2"};
    enum { COUNT = 75, BLOCKS = 3, MANY = 5 };
    float *rows = hidden_rows(1, 700, 70, 5, 1);
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        for (int ip = 0; ip < 2; ip++) {
            kith_code_rows sample = {rows, 700, NULL, NULL, 0};
            kith_code *code = make_trained(names[n], 70, ip ? KITH_IP : KITH_L2, &sample, 2);
            unsigned char *codes = encode(code, rows, COUNT, NULL, 0, NULL, 1), *row = malloc(code->code_bytes);
            unsigned char *blocks = aligned_alloc(64, BLOCKS * code->block_bytes);
            memset(blocks, 0, BLOCKS * code->block_bytes);
            for (size_t i = 0; i < COUNT; i++)
                code->vtable->pack(code, codes + i * code->code_bytes, i % 32, 1,
                                   blocks + i / 32 * code->block_bytes);
            float *turned = project(code, rows + 300 * 70, MANY), bases[MANY], out[MANY * BLOCKS * 32];
            void *queries[MANY];
            for (size_t q = 0; q < MANY; q++) {
                queries[q] = prepare(code, turned + q * code->projected_dim);
                bases[q] = kith_code_base(code, turned + q * code->projected_dim, NULL);
            }
            code->vtable->scan(code, (const void *const *)queries, bases, MANY, blocks, BLOCKS, out, BLOCKS * 32);
            for (size_t q = 0; q < MANY; q++) {
                for (size_t i = 0; i < COUNT; i++) {
                    float one = kith_code_one(code, queries[q], bases[q], codes + i * code->code_bytes);
                    cr_assert_arr_eq(&one, &out[q * BLOCKS * 32 + i], sizeof one, "%s: %zu, %zu", names[n], q, i);
                }
                free(queries[q]);
            }
            for (size_t i = 0; i < COUNT; i++) {
                code->vtable->unpack(code, blocks + i / 32 * code->block_bytes, i % 32, row);
                cr_assert_arr_eq(row, codes + i * code->code_bytes, code->code_bytes);
            }
            kith_code_free(code);
            free(codes);
            free(row);
            free(blocks);
            free(turned);
        }
    free(rows);
}

/* ---- Ranks ---------------------------------------------------------------------------------------------------- */

enum { RANK_ROWS = 3000, RANK_QUERIES = 40, RANK_DIM = 200, RANK_CENTROIDS = 8, RANK_TRUE = 10 };

static int compare_sizes(const void *a, const void *b) {
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static size_t count_below(const double *values, size_t count, double limit) {
    size_t below = 0;
    for (size_t i = 0; i < count; i++) below += values[i] < limit;
    return below;
}

/* How many of the best-ranked rows hold 95% of the ten nearest of fresh queries. */
static size_t rank_at_95(const char *name, kith_metric metric, bool is_residual) {
    float *rows = hidden_rows(1, RANK_ROWS, RANK_DIM, RANK_CENTROIDS, 1);
    float *queries = hidden_rows(2, RANK_QUERIES, RANK_DIM, RANK_CENTROIDS, 1);
    uint32_t *assigned = malloc(RANK_ROWS * sizeof *assigned);
    float *centroids = calloc(RANK_CENTROIDS * RANK_DIM, sizeof *centroids);
    size_t sizes[RANK_CENTROIDS] = {0}, ranks[RANK_QUERIES * RANK_TRUE], found = 0;
    for (size_t i = 0; i < RANK_ROWS; i++) { /* the groups that hidden_rows made */
        assigned[i] = (uint32_t)kith_random_below(7, 1001, i, RANK_CENTROIDS);
        sizes[assigned[i]]++;
        for (size_t j = 0; j < RANK_DIM; j++) centroids[assigned[i] * RANK_DIM + j] += rows[i * RANK_DIM + j];
    }
    for (size_t c = 0; c < RANK_CENTROIDS; c++)
        for (size_t j = 0; j < RANK_DIM; j++) centroids[c * RANK_DIM + j] /= (float)sizes[c];
    const float *points = is_residual ? centroids : NULL;
    size_t point_count = is_residual ? RANK_CENTROIDS : 0;
    kith_code_rows sample = {rows, RANK_ROWS, points, is_residual ? assigned : NULL, 0};
    kith_code *code = make_trained(name, RANK_DIM, metric, &sample, 2);
    unsigned char *codes = encode(code, rows, RANK_ROWS, points, point_count, is_residual ? assigned : NULL, 2);
    float *turned = project(code, queries, RANK_QUERIES), *turned_points = project(code, points, point_count);
    double *sorted = malloc(RANK_ROWS * sizeof *sorted);
    double *truth = malloc(RANK_ROWS * sizeof *truth), *estimates = malloc(RANK_ROWS * sizeof *estimates);
    for (size_t q = 0; q < RANK_QUERIES; q++) {
        const float *vector = turned + q * code->projected_dim;
        void *query = prepare(code, vector);
        for (size_t i = 0; i < RANK_ROWS; i++) {
            truth[i] = true_distance(metric, queries + q * RANK_DIM, rows + i * RANK_DIM, RANK_DIM);
            const float *point = is_residual ? turned_points + assigned[i] * code->projected_dim : NULL;
            estimates[i] = (double)kith_code_one(code, query, kith_code_base(code, vector, point),
                                                 codes + i * code->code_bytes);
            cr_assert(isfinite(estimates[i]));
        }
        memcpy(sorted, truth, RANK_ROWS * sizeof *sorted);
        qsort(sorted, RANK_ROWS, sizeof *sorted, compare_doubles);
        for (size_t i = 0; i < RANK_ROWS; i++)
            if (truth[i] <= sorted[RANK_TRUE - 1] && found < (q + 1) * RANK_TRUE)
                ranks[found++] = count_below(estimates, RANK_ROWS, estimates[i]) + 1;
        free(query);
    }
    qsort(ranks, found, sizeof *ranks, compare_sizes);
    size_t at_95 = ranks[found * 95 / 100];
    kith_code_free(code);
    free(rows);
    free(queries);
    free(assigned);
    free(centroids);
    free(codes);
    free(turned);
    free(turned_points);
    free(sorted);
    free(truth);
    free(estimates);
    return at_95;
}

Test(rabitq, neighbours_stand_near_the_top) {
    static const struct {
        const char *name;
        size_t plain, residual; /* the most rows that hold 95% of the neighbours */
    } cases[] = {{"RaBitQ", 60, 45}, {"RaBitQ2", 24, 20}, {"RaBitQ4", 13, 12}, {"RaBitQ8", 11, 11},
                 {"Line64", 13, 12}, {"Line32", 18, 16},  {"Line128", 12, 12}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int mode = 0; mode < 4; mode += 3) { /* l2 of vectors, ip of residuals */
            bool is_residual = mode >= 2;
            size_t most = is_residual ? cases[i].residual : cases[i].plain;
            size_t got = rank_at_95(cases[i].name, mode % 2 == 0 ? KITH_L2 : KITH_IP, is_residual);
            cr_assert_leq(got, most, "%s, mode %d: %zu", cases[i].name, mode, got);
        }
}

/* What training chooses is about as good as the best that could have been said. */
Test(rabitq, training_chooses_good_bits) {
    static const char *const said[] = {"Line64x1", "Line64x2", "Line64x4", "Line64x8"};
    size_t best = SIZE_MAX, worst = 0, chosen = rank_at_95("Line64", KITH_L2, false);
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        size_t got = rank_at_95(said[i], KITH_L2, false);
        best = got < best ? got : best;
        worst = got > worst ? got : worst;
    }
    cr_assert_leq(chosen, best + 2, "%zu, best %zu", chosen, best);
    cr_assert_gt(worst, 2 * chosen, "%zu, worst %zu: the set does not tell them apart", chosen, worst);
}

/* ---- Projected queries ---------------------------------------------------------------------------------------- */

static const char *const all_names[] = {"RaBitQ",   "RaBitQ4", "RaBitQ8",  "Line64",
                                        "Line64x2", "Line32",  "Line128x4"};
enum { NAME_COUNT = sizeof all_names / sizeof *all_names };

/* Of lines that round numbers coarsely, queries are projected by 8-bit products: close to what rows get, the same bits
 * alone, in any batch and on any number of threads. An element far above the others makes no difference. */
Test(rabitq, queries_are_projected_well_and_alone_as_in_a_batch) {
    enum { COUNT = 700, D = 203, ASKED = 37 };
    float *rows = hidden_rows(1, COUNT, D, 4, 3), *queries = hidden_rows(2, ASKED, D, 4, 3);
    for (size_t q = 0; q < ASKED; q++) {
        if (q % 3 == 1) queries[q * D + q] = 4000;
        if (q == 5) memset(queries + q * D, 0, D * sizeof *queries);
        if (q == 6) memcpy(queries + q * D, rows, D * sizeof *queries);
    }
    for (size_t n = 0; n < NAME_COUNT; n++)
        for (int ip = 0; ip < 2; ip++) {
            kith_code_rows sample = {rows, COUNT, NULL, NULL, 0};
            kith_code *code = make_trained(all_names[n], D, ip ? KITH_IP : KITH_L2, &sample, 2);
            const size_t dim = code->projected_dim;
            float *whole = project(code, queries, ASKED), *batch = project_queries(code, queries, ASKED, 1);
            float *shared = project_queries(code, queries, ASKED, 3);
            cr_assert_arr_eq(shared, batch, ASKED * dim * sizeof *batch, "%s", all_names[n]);
            for (size_t q = 0; q < ASKED; q++) {
                float *alone = project_queries(code, queries + q * D, 1, 2);
                cr_assert_arr_eq(alone, batch + q * dim, dim * sizeof *alone, "%s, query %zu", all_names[n], q);
                free(alone);
                double size = norm_between(whole + q * dim, NULL, dim);
                double off = norm_between(batch + q * dim, whole + q * dim, dim);
                cr_assert_leq(off, 0.02 * size, "%s, query %zu: %g of %g", all_names[n], q, off, size);
                /* 8 bits of such a query would lose all elements but that one. */
                if (q % 3 == 1) cr_assert_lt(off, 40, "%s, query %zu: %g", all_names[n], q, off);
            }
            bool is_same = memcmp(whole, batch, ASKED * dim * sizeof *whole) == 0;
            if (code->vtable->kind == KITH_CODE_RABITQ) cr_assert(is_same, "%s", all_names[n]);
            if (strchr(all_names[n], 'x') != NULL) cr_assert_not(is_same, "%s", all_names[n]);
            kith_code_free(code);
            free(whole);
            free(batch);
            free(shared);
        }
    free(rows);
    free(queries);
}

/* ---- Strange data --------------------------------------------------------------------------------------------- */

/* A vector that is its reference point is estimated exactly; all rows alike; dimensions that never change. */
Test(rabitq, zero_residuals_and_constant_dimensions) {
    enum { COUNT = 600, D = 40 };
    float *rows = normal_rows(1, COUNT, D, 1), *queries = normal_rows(2, 4, D, 1);
    for (size_t i = 0; i < COUNT; i++)
        for (size_t j = 0; j < D; j++) {
            if (j % 3 == 0) rows[i * D + j] = 5;
            if (i % 2 == 1) rows[i * D + j] = rows[j];
        }
    for (size_t n = 0; n < NAME_COUNT; n++)
        for (int mode = 0; mode < 4; mode++) {
            kith_metric metric = mode % 2 == 0 ? KITH_L2 : KITH_IP;
            size_t train_count = mode >= 2 ? COUNT : 1; /* one row: nothing varies at all */
            kith_code_rows sample = {rows, train_count, rows, NULL, 0};
            kith_code *code = make_trained(all_names[n], D, metric, &sample, 2);
            unsigned char *codes = encode(code, rows, COUNT, rows, 1, NULL, 2);
            float *turned = project(code, queries, 4), *point = project(code, rows, 1);
            for (size_t q = 0; q < 4; q++) {
                const float *vector = turned + q * code->projected_dim;
                void *query = prepare(code, vector);
                float base = kith_code_base(code, vector, point);
                for (size_t i = 0; i < COUNT; i++) {
                    float got = kith_code_one(code, query, base, codes + i * code->code_bytes);
                    cr_assert(isfinite(got), "%s", all_names[n]);
                    if (i % 2 == 1)
                        cr_assert_eq(got, base, "%s: %g, not %g", all_names[n], (double)got, (double)base);
                }
                free(query);
            }
            kith_code_free(code);
            free(codes);
            free(turned);
            free(point);
        }
    free(rows);
    free(queries);
}

/* Vectors times a power of two give estimates times its square, to the bit but for sums of f32 close to the ends. */
Test(rabitq, magnitudes_do_not_matter) {
    enum { COUNT = 700, D = 70 };
    static const int exponents[] = {50, -50};
    float *rows = hidden_rows(1, COUNT, D, 4, 1), *scaled = malloc(COUNT * D * sizeof *scaled);
    for (size_t n = 0; n < NAME_COUNT; n++)
        for (int mode = 0; mode < 4; mode++) {
            kith_metric metric = mode % 2 == 0 ? KITH_L2 : KITH_IP;
            float factor = ldexpf(1, exponents[mode / 2]);
            for (size_t i = 0; i < COUNT * D; i++) scaled[i] = factor * rows[i];
            kith_code_rows sample = {rows, COUNT, NULL, NULL, 0}, large = {scaled, COUNT, NULL, NULL, 0};
            kith_code *code = make_trained(all_names[n], D, metric, &sample, 2);
            kith_code *other = make_trained(all_names[n], D, metric, &large, 2);
            unsigned char *codes = encode(code, rows, COUNT, NULL, 0, NULL, 2);
            unsigned char *others = encode(other, scaled, COUNT, NULL, 0, NULL, 2);
            float *turned = project(code, rows, 1), *turned_other = project(other, scaled, 1);
            void *query = prepare(code, turned), *query_other = prepare(other, turned_other);
            cr_assert_eq(code->projected_dim, other->projected_dim);
            float base = kith_code_base(code, turned, NULL), base_other = kith_code_base(other, turned_other, NULL);
            double size = norm_between(rows, NULL, D) * norm_between(rows, NULL, D);
            for (size_t i = 0; i < COUNT; i++) {
                double a = (double)kith_code_one(code, query, base, codes + i * code->code_bytes);
                double b = (double)kith_code_one(other, query_other, base_other, others + i * code->code_bytes);
                b = ldexp(b, -2 * exponents[mode / 2]);
                cr_assert_lt(fabs(a - b), 1e-4 * size, "%s, mode %d: %g and %g", all_names[n], mode, a, b);
            }
            kith_code_free(code);
            kith_code_free(other);
            free(codes);
            free(others);
            free(turned);
            free(turned_other);
            free(query);
            free(query_other);
        }
    free(rows);
    free(scaled);
}

Test(rabitq, bad_input) {
    enum { COUNT = 600, D = 20 };
    float *rows = normal_rows(1, COUNT, D, 1);
    unsigned char codes[256];
    kith_job job = job_of(1);
    kith_arena arena = {0};
    for (size_t n = 0; n < NAME_COUNT; n++) {
        kith_code *code = make(all_names[n], D, KITH_L2);
        kith_code_rows none = {rows, 0, NULL, NULL, 0}, all = {rows, COUNT, NULL, NULL, 0};
        float out[256];
        cr_assert_eq(kith_code_train(code, &none, &job), KITH_ERR_EMPTY);
        cr_assert_eq(kith_code_project(code, rows, 1, 1, &arena, out), KITH_ERR_NOT_TRAINED);
        rows[77 * D] = NAN;
        cr_assert_eq(kith_code_train(code, &all, &job), KITH_ERR_NOT_FINITE);
        rows[77 * D] = 3e38f;
        cr_assert_eq(kith_code_train(code, &all, &job), KITH_ERR_RANGE);
        cr_assert_not(code->is_trained);
        rows[77 * D] = 1;
        cr_assert_eq(kith_code_train(code, &all, &job), KITH_OK, "%s", kith_error_message());
        float *huge = calloc(code->projected_dim, sizeof *huge);
        huge[0] = 3e38f;
        huge[1] = 3e38f;
        kith_code_rows one = {huge, 1, NULL, NULL, 0};
        cr_assert_eq(kith_code_encode(code, &one, 1, codes), KITH_ERR_RANGE);
        /* Far out, but no error: f16 factors stop at their largest value. */
        huge[0] = huge[1] = 1e6f;
        cr_assert_eq(kith_code_encode(code, &one, 1, codes), KITH_OK);
        void *query = prepare(code, huge);
        cr_assert(isfinite(kith_code_one(code, query, 0, codes)));
        free(query);
        free(huge);
        /* A failed training leaves what was learnt. */
        rows[0] = INFINITY;
        cr_assert_eq(kith_code_train(code, &all, &job), KITH_ERR_NOT_FINITE);
        rows[0] = 1;
        cr_assert(code->is_trained);
        cr_assert_eq(kith_code_project(code, rows, 1, 1, &arena, out), KITH_OK);
        kith_code_free(code);
    }
    kith_arena_free(&arena);
    free(rows);
}

Test(rabitq, decoded_vectors_are_near) {
    enum { COUNT = 600, D = 60 };
    static const struct {
        const char *name;
        double most; /* mean squared error in parts of |x - mean|^2 */
    } cases[] = {
        {"RaBitQ", 0.40}, {"RaBitQ4", 0.0125}, {"RaBitQ8", 0.0002}, {"Line64x4", 0.0125}, {"Line32x4", 0.09}};
    float *rows = normal_rows(1, COUNT, D, 1), *point = normal_rows(2, 1, D, 2),
          *out = malloc(COUNT * D * sizeof *out);
    for (size_t i = 0; i < COUNT * D; i++) rows[i] += point[i % D];
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++)
        for (int mode = 0; mode < 4; mode++) {
            kith_metric metric = mode % 2 == 0 ? KITH_L2 : KITH_IP;
            const float *centroids = mode >= 2 ? point : NULL;
            /* What components leave out of a reference point is lost: here all four dimensions of a large one. */
            if (mode == 3 && strcmp(cases[n].name, "Line32x4") == 0) continue;
            kith_code_rows sample = {rows, COUNT, centroids, NULL, 0};
            kith_code *code = make_trained(cases[n].name, D, metric, &sample, 2);
            unsigned char *codes = encode(code, rows, COUNT, centroids, centroids != NULL, NULL, 2);
            float *turned = project(code, centroids, centroids != NULL);
            kith_code_rows back = {NULL, COUNT, centroids != NULL ? turned : NULL, NULL, 0};
            cr_assert_eq(code->vtable->decode(code, &back, codes, out), KITH_OK, "%s", kith_error_message());
            double lost = norm_between(out, rows, COUNT * D), whole = 0;
            for (size_t i = 0; i < COUNT; i++) {
                double norm = norm_between(rows + i * D, point, D);
                whole += norm * norm;
            }
            cr_assert_lt(lost * lost / whole, cases[n].most, "%s, mode %d: %g", cases[n].name, mode,
                         lost * lost / whole);
            kith_code_free(code);
            free(codes);
            free(turned);
        }
    free(rows);
    free(point);
    free(out);
}

/* ---- Threads, files, memory ----------------------------------------------------------------------------------- */

static void save(const kith_code *code, const char *path, uint32_t first) {
    kith_container_writer *writer;
    uint32_t part = first;
    cr_assert_eq(kith_container_writer_create(path, &writer), KITH_OK);
    cr_assert_eq(code->vtable->save(code, writer, &part), KITH_OK, "%s", kith_error_message());
    cr_assert_gt(part, first);
    cr_assert_eq(kith_container_writer_commit(writer), KITH_OK, "%s", kith_error_message());
}

static kith_status load(const char *path, uint32_t part, kith_code *code) {
    kith_container *file;
    kith_status status = kith_container_open(path, &file);
    if (status != KITH_OK) return status;
    status = code->vtable->load(code, file, &part);
    if (status == KITH_OK) status = kith_container_finish(file);
    kith_container_close(file);
    return status;
}

Test(rabitq, any_number_of_threads_gives_the_same_bytes) {
    enum { COUNT = 900, D = 90 };
    static const size_t threads[] = {1, 2, 8};
    const char *folder = faults_folder();
    float *rows = hidden_rows(1, COUNT, D, 4, 1);
    uint32_t assigned[COUNT];
    for (size_t i = 0; i < COUNT; i++) assigned[i] = (uint32_t)(i % 7);
    for (size_t n = 0; n < NAME_COUNT; n++) {
        unsigned char *files[3], *codes[3];
        size_t bytes[3], code_bytes = 0;
        for (size_t t = 0; t < 3; t++) {
            kith_code_rows sample = {rows, COUNT, rows, assigned, 0};
            kith_code *code = make_trained(all_names[n], D, KITH_L2, &sample, threads[t]);
            code_bytes = code->code_bytes;
            codes[t] = encode(code, rows, COUNT, rows, 7, assigned, threads[t]);
            save(code, faults_path(folder, "code"), 3);
            files[t] = faults_read_file(faults_path(folder, "code"), &bytes[t]);
            kith_code_free(code);
        }
        for (size_t t = 1; t < 3; t++) {
            cr_assert_eq(bytes[t], bytes[0]);
            cr_assert_arr_eq(files[t], files[0], bytes[0], "%s: %zu threads", all_names[n], threads[t]);
            cr_assert_arr_eq(codes[t], codes[0], COUNT * code_bytes, "%s: %zu threads", all_names[n], threads[t]);
        }
        for (size_t t = 0; t < 3; t++) {
            free(files[t]);
            free(codes[t]);
        }
    }
    free(rows);
    faults_folder_remove(folder);
}

Test(rabitq, saved_and_loaded_or_cloned_it_is_the_same) {
    enum { COUNT = 700, D = 130 };
    const char *folder = faults_folder();
    float *rows = hidden_rows(1, COUNT, D, 4, 1);
    for (size_t n = 0; n < NAME_COUNT; n++)
        for (int ip = 0; ip < 2; ip++) {
            kith_code_rows sample = {rows, COUNT, NULL, NULL, 0};
            kith_code *code = make_trained(all_names[n], D, ip ? KITH_IP : KITH_L2, &sample, 2), *copies[2];
            unsigned char *codes = encode(code, rows, COUNT, NULL, 0, NULL, 2);
            float *turned = project_queries(code, rows, 1, 1);
            void *query = prepare(code, turned);
            save(code, faults_path(folder, "code"), 2);
            copies[0] = make(all_names[n], D, ip ? KITH_IP : KITH_L2);
            cr_assert_eq(load(faults_path(folder, "code"), 2, copies[0]), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(code->vtable->clone(code, &copies[1]), KITH_OK);
            for (size_t c = 0; c < 2; c++) {
                cr_assert(copies[c]->is_trained);
                cr_assert_eq(copies[c]->query_bytes, code->query_bytes);
                unsigned char *again = encode(copies[c], rows, COUNT, NULL, 0, NULL, 2);
                cr_assert_arr_eq(again, codes, COUNT * code->code_bytes, "%s", all_names[n]);
                float *turned_again = project_queries(copies[c], rows, 1, 1);
                void *query_again = prepare(copies[c], turned_again);
                cr_assert_arr_eq(turned_again, turned, code->projected_dim * sizeof *turned);
                cr_assert_arr_eq(query_again, query, 16);
                float a = kith_code_one(code, query, 1, codes), b = kith_code_one(copies[c], query_again, 1, codes);
                cr_assert_eq(a, b);
                cr_assert_eq(code->vtable->memory(code), copies[c]->vtable->memory(copies[c]));
                free(again);
                free(turned_again);
                free(query_again);
                kith_code_free(copies[c]);
            }
            kith_code_free(code);
            free(codes);
            free(turned);
            free(query);
        }
    free(rows);
    faults_folder_remove(folder);
}

/* Heads as rabitq_file.c describes them, each with one field that is wrong. */
Test(rabitq, heads_that_are_wrong) {
    enum { D = 20, HEAD = 48 };
    static const struct {
        size_t at, bytes;
        uint64_t value;
    } wrong[] = {{0, 8, 21},          {0, 8, 0},           {8, 4, 0},           {8, 4, 9},
                 {8, 4, 3},           {12, 4, 2},          {12, 4, 1},          {16, 4, 0},
                 {16, 4, 0x40400000}, {16, 4, 0x7f800000}, {20, 4, 0xbf800000}, {24, 4, 0x7fc00000},
                 {24, 4, 0x40000000}, {28, 4, 0xbf000000}, {32, 4, 0x3f800000}, {36, 4, 1},
                 {44, 4, 1}};
    const char *folder = faults_folder(), *path = faults_path(folder, "code");
    float *rows = normal_rows(1, 100, D, 1);
    kith_code_rows sample = {rows, 100, NULL, NULL, 0};
    kith_code *code = make_trained("Line64x4", D, KITH_L2, &sample, 1);
    save(code, path, 0);
    kith_container *file;
    const kith_section *section;
    unsigned char head[HEAD];
    cr_assert_eq(kith_container_open(path, &file), KITH_OK);
    cr_assert_eq(kith_container_need(file, "LINEHEAD", 0, 1, &section), KITH_OK);
    cr_assert_eq(section->bytes, HEAD);
    memcpy(head, section->data, HEAD);
    kith_container_close(file);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        unsigned char changed[HEAD];
        kith_container_writer *writer;
        memcpy(changed, head, HEAD);
        memcpy(changed + wrong[i].at, &wrong[i].value, wrong[i].bytes);
        cr_assert_eq(kith_container_writer_create(path, &writer), KITH_OK);
        cr_assert_eq(kith_container_writer_add(writer, "LINEHEAD", 0, changed, HEAD), KITH_OK);
        cr_assert_eq(kith_container_writer_commit(writer), KITH_OK);
        kith_code *loaded = make("Line64x4", D, KITH_L2);
        cr_assert_eq(load(path, 0, loaded), KITH_ERR_FORMAT, "case %zu", i);
        cr_assert_not(loaded->is_trained);
        kith_code_free(loaded);
    }
    kith_code *loaded = make("RaBitQ", D, KITH_L2);
    save(code, path, 0);
    cr_assert_eq(load(path, 0, loaded), KITH_ERR_FORMAT);
    kith_code_free(loaded);
    loaded = make("Line64x4", D + 1, KITH_L2); /* a code of another dimension */
    cr_assert_eq(load(path, 0, loaded), KITH_ERR_FORMAT);
    kith_code_free(loaded);
    kith_code_free(code);
    free(rows);
    faults_folder_remove(folder);
}

Test(rabitq, failing_allocations) {
    enum { COUNT = 600, D = 50 };
    const char *folder = faults_folder(), *path = faults_path(folder, "code");
    float *rows = hidden_rows(1, COUNT, D, 4, 1), *out = malloc(COUNT * 64 * sizeof *out);
    unsigned char *codes = malloc(COUNT * 128);
    memory_faults_install();
    static const char *const names[] = {"RaBitQ4", "Line32", "Line64x2"};
    for (size_t n = 0; n < 3; n++)
        for (int ip = 0; ip < 2; ip++) {
            kith_metric metric = ip ? KITH_IP : KITH_L2;
            kith_code_rows sample = {rows, COUNT, NULL, NULL, 0};
            kith_job job = job_of(1);
            kith_code *code, *copy;
            size_t position;
            kith_status status;
            MEMORY_FAULTS_EACH(status, kith_rabitq_make(names[n], D, metric, &code, &position)) {
                cr_assert_null(code);
            }
            MEMORY_FAULTS_EACH(status, kith_code_train(code, &sample, &job)) { cr_assert_not(code->is_trained); }
            MEMORY_FAULTS_EACH(status, code->vtable->clone(code, &copy)) { cr_assert_null(copy); }
            kith_code_free(copy);
            float *turned = project(code, rows, COUNT);
            kith_code_rows all = {turned, COUNT, NULL, NULL, 0};
            MEMORY_FAULTS_EACH(status, kith_code_encode(code, &all, 1, codes)) {}
            MEMORY_FAULTS_EACH(status, code->vtable->decode(code, &all, codes, out)) {}
            free(turned);
            save(code, path, 0);
            copy = make(names[n], D, metric);
            MEMORY_FAULTS_EACH(status, load(path, 0, copy)) { cr_assert_not(copy->is_trained); }
            kith_code_free(copy);
            kith_code_free(code);
        }
    cr_assert_eq(kith_memory_live_blocks(), 0);
    free(rows);
    free(out);
    free(codes);
    faults_folder_remove(folder);
}
