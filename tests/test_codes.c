/* SPDX-License-Identifier: Apache-2.0
 *
 * test_codes.c: what every code has to do, held against every code by its name in a spec.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "faults.h"
#include "index/codes.h"
#include "memory_faults.h"
#include "simd/simd.h"

/* A new code is a line here.
 *   dim         of the vectors
 *   mse_max     bound of the decoded rows' squared error, as a share of the variance of the rows
 *   bias_max    bound of |estimate - distance to the decoded row|, as a share of (|q| + |x|)^2: what rounding the
 *               query may do; INFINITY: estimates are not those of decoded rows */
typedef struct code_case {
    const char *name;
    size_t dim;
    double mse_max, bias_max;
    kith_dtype whole; /* KITH_I8, KITH_U8: the code holds whole numbers of this range only */
} code_case;

static const code_case cases[] = {
    {"Flat", 37, 0, 1e-6, 0},
    {"f16", 37, 1e-6, 1e-6, 0},
    {"bf16", 37, 1e-4, 1e-6, 0},
    {"i8", 37, 0, 1e-6, KITH_I8},
    {"u8", 37, 0, 1e-6, KITH_U8},
    {"SQ8", 37, 3e-4, 5e-5, 0},
    {"SQ7", 32, 6e-4, 5e-5, 0},
    {"SQ6", 37, 1.2e-3, 5e-5, 0},
    {"SQ5", 37, 6e-3, 6e-3, 0},
    {"SQ4", 37, 2e-2, 6e-3, 0},
    {"SQ3", 41, 1e-1, 6e-3, 0},
    {"SQ2_trained", 37, 2e-1, 6e-3, 0},
    {"SQ1_trained", 70, 5e-1, 6e-3, 0},
    {"SQ8u", 37, 6e-4, 5e-5, 0},
    {"SQ4u", 37, 1e-1, 6e-3, 0},
    {"SQ8_trained", 37, 4e-4, 5e-5, 0},
    {"SQ4_trained", 37, 1.5e-2, 6e-3, 0},
    {"SQ4u_trained", 37, 5e-2, 6e-3, 0},
    {"SQ6_quantile5", 37, 5e-3, 5e-5, 0},
    {"SQ6u_quantile", 37, 5e-2, 5e-5, 0},
    {"RaBitQ", 70, 0.8, INFINITY, 0},
    {"RaBitQ4", 70, 3e-2, INFINITY, 0},
    {"RaBitQ8", 100, 1e-3, INFINITY, 0},
    {"Line32", 60, 0.9, INFINITY, 0},
    {"Line64", 100, 0.9, INFINITY, 0},
    {"Line64x4", 128, 0.9, INFINITY, 0},
    {"PQ16", 64, 2e-1, 1e-4, 0},
    {"PQ9", 36, 2e-1, 1e-4, 0},
    {"PQ12x4", 36, 4e-1, 1e-4, 0},
    {"PQ7x5", 35, 5e-1, 1e-4, 0},
    {"PQ19x6", 38, 2e-1, 1e-4, 0},
    {"PQ5x9", 20, 2e-1, 1e-4, 0},
    {"PQ33x4fs", 66, 2e-1, 1e-2, 0},
    {"PQ7x4fs", 28, 5e-1, 1e-2, 0},
    {"PQ9x4fsa", 36, 8e-1, 1e-2, 0},
};
enum { CASE_COUNT = sizeof cases / sizeof *cases };

enum { TRAIN = 1000, COUNT = 77, QUERIES = 16, POINTS = 5, BLOCKS = (COUNT + 31) / 32, DIM_MAX = 128 };

/* ---- Helpers -------------------------------------------------------------------------------------------------- */

/* Normal numbers whose mean and spread depend on the dimension. */
static float *make_rows(const code_case *c, uint64_t stream, size_t count) {
    float *rows = malloc(count * c->dim * sizeof *rows);
    for (size_t i = 0; i < count; i++)
        for (size_t d = 0; d < c->dim; d++) {
            float value =
                (float)(d % 5) - 2 + (0.5f + (float)(d % 3)) * kith_random_normal(7, stream, i * c->dim + d);
            if (c->whole == KITH_I8) value = rintf(fmaxf(-128, fminf(127, 20 * value)));
            if (c->whole == KITH_U8) value = rintf(fmaxf(0, fminf(255, 128 + 20 * value)));
            rows[i * c->dim + d] = value;
        }
    return rows;
}

static kith_spec spec_of(const char *text) {
    return (kith_spec){.text = text, .parts = {{text, strlen(text), 0}}, .part_count = 1};
}

static kith_code *create(const code_case *c, kith_metric metric) {
    kith_spec spec = spec_of(c->name);
    kith_code *code;
    cr_assert_eq(kith_code_create(&spec, 0, c->dim, metric, &code), KITH_OK, "%s", kith_error_message());
    return code;
}

static kith_job job_of(size_t threads) {
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    return job;
}

/* A trained code, `count` encoded rows in both forms, and prepared queries. Rows and queries are projected. */
typedef struct setting {
    const code_case *of;
    kith_code *code;
    size_t dim; /* projected */
    float *sample, *rows, *queries, *points, *projected_points;
    uint32_t assigned[COUNT], sample_assigned[TRAIN];
    bool has_points;
    kith_code_rows input;
    unsigned char *codes, *blocks, *prepared;
    const void *prepared_at[QUERIES];
    float bases[POINTS][QUERIES];
} setting;

static float *project(const kith_code *code, const float *rows, size_t count) {
    float *out = malloc(count * code->projected_dim * sizeof *out);
    kith_arena arena = {0};
    cr_assert_eq(kith_arena_begin(&arena), KITH_OK);
    cr_assert_eq(kith_code_project(code, rows, count, 1, &arena, out), KITH_OK, "%s", kith_error_message());
    kith_arena_free(&arena);
    return out;
}

static void encode_rows(setting *s, size_t threads) {
    cr_assert_eq(kith_code_encode(s->code, &s->input, threads, s->codes), KITH_OK, "%s", kith_error_message());
}

static void make_blocks(setting *s) {
    const kith_code *code = s->code;
    memset(s->blocks, 0, BLOCKS * code->block_bytes);
    for (size_t i = 0; i < COUNT; i += 32)
        code->vtable->pack(code, s->codes + i * code->code_bytes, 0, i + 32 < COUNT ? 32 : COUNT - i,
                           s->blocks + i / 32 * code->block_bytes);
}

static void prepare_queries(setting *s) {
    for (size_t q = 0; q < QUERIES; q++) {
        void *query = s->prepared + q * s->code->query_bytes;
        s->code->vtable->prepare(s->code, s->queries + q * s->dim, query);
        s->prepared_at[q] = query;
        for (size_t p = 0; p < POINTS; p++)
            s->bases[p][q] = kith_code_base(s->code, s->queries + q * s->dim,
                                            s->has_points ? s->projected_points + p * s->dim : NULL);
    }
}

static void open_setting(setting *s, const code_case *c, kith_metric metric, bool has_points, size_t threads) {
    *s = (setting){.of = c, .code = create(c, metric), .has_points = has_points};
    s->sample = make_rows(c, 1, TRAIN);
    s->points = make_rows(c, 4, POINTS);
    for (size_t i = 0; i < TRAIN; i++) s->sample_assigned[i] = (uint32_t)(i % POINTS);
    for (size_t i = 0; i < COUNT; i++) s->assigned[i] = (uint32_t)(i / 32 % POINTS);
    kith_code_rows sample = {.rows = s->sample, .count = TRAIN};
    if (has_points) {
        sample.centroids = s->points;
        sample.assigned = s->sample_assigned;
    }
    kith_job job = job_of(threads);
    cr_assert_eq(kith_code_train(s->code, &sample, &job), KITH_OK, "%s: %s", c->name, kith_error_message());
    cr_assert(s->code->is_trained);
    s->dim = s->code->projected_dim;
    float *rows = make_rows(c, 2, COUNT), *queries = make_rows(c, 3, QUERIES);
    s->rows = project(s->code, rows, COUNT);
    s->queries = project(s->code, queries, QUERIES);
    s->projected_points = project(s->code, s->points, POINTS);
    free(rows);
    free(queries);
    s->input = (kith_code_rows){.rows = s->rows, .count = COUNT};
    if (has_points) {
        s->input.centroids = s->projected_points;
        s->input.assigned = s->assigned;
    }
    s->codes = aligned_alloc(64, kith_round_up(COUNT * s->code->code_bytes, 64));
    s->blocks = aligned_alloc(64, BLOCKS * s->code->block_bytes);
    s->prepared = aligned_alloc(64, QUERIES * s->code->query_bytes);
    encode_rows(s, threads);
    make_blocks(s);
    prepare_queries(s);
}

static void close_setting(setting *s) {
    kith_code_free(s->code);
    free(s->sample);
    free(s->rows);
    free(s->queries);
    free(s->points);
    free(s->projected_points);
    free(s->codes);
    free(s->blocks);
    free(s->prepared);
}

static const unsigned char *code_at(const setting *s, size_t i) { return s->codes + i * s->code->code_bytes; }

static float base_of(const setting *s, size_t q, size_t row) {
    return s->bases[s->has_points ? s->assigned[row] : 0][q];
}

static double distance(const setting *s, const float *a, const float *b) {
    double sum = 0;
    for (size_t d = 0; d < s->dim; d++) {
        double x = (double)a[d], y = (double)b[d];
        sum += s->code->metric == KITH_L2 ? (x - y) * (x - y) : -x * y;
    }
    return sum;
}

static double norm(const float *a, size_t dim) {
    double sum = 0;
    for (size_t d = 0; d < dim; d++) sum += (double)a[d] * (double)a[d];
    return sqrt(sum);
}

/* Calls `check` for every code, metric, with and without reference points. */
/* Every code with both metrics, plain and residual; with a step of 3 under L2 plain and under IP residual alone. */
static void for_steps(void (*check)(setting *s), int step) {
    for (size_t c = 0; c < CASE_COUNT; c++)
        for (int i = 0; i < 4; i += step) {
            setting s;
            open_setting(&s, &cases[c], i % 2 == 0 ? KITH_L2 : KITH_IP, i >= 2, 2);
            check(&s);
            close_setting(&s);
        }
}

static void for_each(void (*check)(setting *s)) { for_steps(check, 1); }

#define ABOUT(s) (s)->of->name, kith_metric_name((s)->code->metric), (s)->has_points ? "residual" : "plain"

/* ---- Names ---------------------------------------------------------------------------------------------------- */

static void check_shape(setting *s) {
    const kith_code *code = s->code;
    cr_assert_str_eq(code->name, s->of->name);
    cr_assert_eq(code->dim, s->of->dim);
    cr_assert(code->block_bytes % 64 == 0 && code->query_bytes % 64 == 0, "%s", code->name);
    cr_assert(code->code_bytes % 4 == 0 || code->vtable->kind == KITH_CODE_RAW, "%s", code->name);
    cr_assert_geq(code->block_bytes, 32 * code->code_bytes);
    cr_assert_lt(code->block_bytes, 32 * code->code_bytes + 64);
    cr_assert_geq(code->vtable->memory(code), sizeof *code);
    kith_spec spec = spec_of(s->of->name);
    cr_assert(kith_code_is_named(&spec.parts[0]));
}

Test(codes, names_and_shapes) { for_each(check_shape); }

Test(codes, names_that_are_refused) {
    static const struct {
        const char *spec, *message;
        bool is_named;
    } wrong[] = {
        {"SQ", "character 6: expected a number of bits", true},
        {"SQ9", "character 6: expected a number of bits", true},
        {"SQ08", "character 6: expected a number of bits", true},
        {"SQ123456", "character 6: expected a number of bits", true},
        {"SQ8x", "character 7: nothing can follow", true},
        {"SQ8uu", "character 8: nothing can follow", true},
        {"SQ4_quantile0", "character 16: expected so many in a thousand", true},
        {"SQ4_quantile500", "character 16: expected so many in a thousand", true},
        {"SQ4_quantile5x", "character 17: nothing can follow", true},
        {"f64", "character 4: 'f64' is no code", false},
        {"flat", "character 4: 'flat' is no code", false},
        {"SQ8_quantile1234567890123456789012345", "is no code", false},
        {"PQ0", "character 6: PQ: 0 parts of 16 dimensions", true},
        {"PQ17", "character 6: PQ: 17 parts of 16 dimensions", true},
        {"PQ99999999999999999999", "character 6: PQ: ", true},
        {"PQ6", "character 6: PQ: 6 parts do not divide 16 dimensions; 4 and 8 do", true},
        {"PQ8x3", "character 8: PQ: 3 bits are outside 4..16", true},
        {"PQ8x17", "character 8: PQ: 17 bits are outside 4..16", true},
        {"PQ8x", "character 8: PQ: a number of bits is missing", true},
        {"PQ8fs", "character 8: PQ: fast-scan takes 4 bits, not 8", true},
        {"PQ8x5fs", "character 8: PQ: fast-scan takes 4 bits, not 5", true},
        {"PQ8x4fsaa", "character 12: PQ: expected PQ", true},
        {"PQ8 ", "character 7: PQ: expected PQ", true},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "IVF,%s", wrong[i].spec);
        kith_spec spec = {.text = text, .parts = {{text, 3, 0}, {text + 4, strlen(text) - 4, 4}}, .part_count = 2};
        kith_code *code = (kith_code *)(void *)text;
        cr_assert_eq(kith_code_create(&spec, 1, 16, KITH_L2, &code), KITH_ERR_ARGUMENT, "%s", text);
        cr_assert_null(code);
        cr_assert_not_null(strstr(kith_error_message(), wrong[i].message), "%s: %s", text, kith_error_message());
        cr_assert_not_null(strstr(kith_error_message(), text));
        cr_assert_eq(kith_code_is_named(&spec.parts[1]), wrong[i].is_named, "%s", text);
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(codes, other_names_of_the_same) {
    static const char *const pairs[][2] = {
        {"SQfp16", "f16"}, {"SQbf16", "bf16"}, {"SQ8_direct", "u8"}, {"SQ8_direct_signed", "i8"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        kith_spec spec = spec_of(pairs[i][0]);
        kith_code *code;
        cr_assert_eq(kith_code_create(&spec, 0, 8, KITH_L2, &code), KITH_OK);
        cr_assert_str_eq(code->name, pairs[i][1]);
        kith_code_free(code);
    }
}

/* ---- Rows ----------------------------------------------------------------------------------------------------- */

static float *decode_rows(const setting *s, const kith_code *code) {
    float *out = malloc(COUNT * code->dim * sizeof *out);
    cr_assert_eq(code->vtable->decode(code, &s->input, s->codes, out), KITH_OK, "%s", kith_error_message());
    return out;
}

static void check_decode(setting *s) {
    double error = 0, variance = 0;
    size_t dim = s->of->dim;
    float *rows = make_rows(s->of, 2, COUNT), *decoded = decode_rows(s, s->code);
    for (size_t d = 0; d < dim; d++) {
        double mean = 0;
        for (size_t i = 0; i < COUNT; i++) mean += (double)rows[i * dim + d] / COUNT;
        for (size_t i = 0; i < COUNT; i++) {
            double x = (double)rows[i * dim + d];
            error += pow(x - (double)decoded[i * dim + d], 2);
            variance += pow(x - mean, 2);
        }
    }
    /* Residuals of unrelated points are twice as wide. */
    double bound = s->of->mse_max * (s->has_points ? 3 : 1);
    cr_assert_leq(error, bound * variance, "%s %s %s: %g of the variance", ABOUT(s), error / variance);
    free(rows);
    free(decoded);
}

Test(codes, decoded_rows_are_near) { for_each(check_decode); }

/* What a row stands for as a query is what its decoded vector is once projected, which is the whole of it but where
 * projection adds dimensions: then it is the part of it that lies among the vectors. */
static void check_restore(setting *s) {
    size_t dim = s->code->projected_dim;
    float *decoded = malloc(COUNT * s->of->dim * sizeof *decoded);
    const kith_code_rows plain = {.count = COUNT};
    cr_assert_eq(s->code->vtable->decode(s->code, &plain, s->codes, decoded), KITH_OK);
    float *projected = project(s->code, decoded, COUNT), *restored = malloc(dim * sizeof *restored);
    unsigned char *scratch = malloc(kith_code_restore_bytes(s->code));
    for (size_t i = 0; i < COUNT; i++) {
        double apart = 0, norm2 = 0, product = 0;
        s->code->vtable->restore(s->code, s->codes + i * s->code->code_bytes, scratch, restored);
        for (size_t d = 0; d < dim; d++) {
            norm2 += pow((double)projected[i * dim + d], 2);
            product += (double)projected[i * dim + d] * (double)restored[d];
            apart += pow((double)projected[i * dim + d] - (double)restored[d], 2);
        }
        cr_assert_leq(fabs(product - norm2), 1e-5 * norm2, "%s: row %zu", s->code->name, i);
        if (dim <= s->of->dim) cr_assert_leq(apart, 1e-8 * norm2, "%s: row %zu", s->code->name, i);
    }
    free(scratch);
    free(restored);
    free(projected);
    free(decoded);
}
Test(codes, restored_rows_are_decoded_rows) { for_each(check_restore); }

static void check_pack(setting *s) {
    const kith_code *code = s->code;
    unsigned char *block = aligned_alloc(64, code->block_bytes), *row = malloc(code->code_bytes);
    static const size_t ends[] = {0, 1, 3, 8, 17, 31, 32};
    memset(block, 0x5c, code->block_bytes);
    for (size_t e = 6; e-- > 0;) /* the last lanes first: the others are left alone */
        code->vtable->pack(code, code_at(s, ends[e]), ends[e], ends[e + 1] - ends[e], block);
    for (size_t i = 0; i < 32; i++) {
        code->vtable->unpack(code, block, i, row);
        cr_assert_arr_eq(row, code_at(s, i), code->code_bytes, "%s %s %s: lane %zu", ABOUT(s), i);
    }
    size_t used = 32 * code->code_bytes;
    cr_assert_arr_eq(block, s->blocks, used, "%s: packed in pieces", s->of->name);
    code->vtable->pack(code, code_at(s, 40), 5, 1, block);
    for (size_t i = 0; i < 32; i++) {
        code->vtable->unpack(code, block, i, row);
        cr_assert_arr_eq(row, code_at(s, i == 5 ? 40 : i), code->code_bytes, "%s %s %s: lane %zu", ABOUT(s), i);
    }
    free(block);
    free(row);
}

Test(codes, blocks_hold_their_rows) { for_each(check_pack); }

static void check_threads(setting *s) {
    enum { MANY = 700 };
    setting other;
    open_setting(&other, s->of, s->code->metric, s->has_points, 5);
    cr_assert_arr_eq(other.codes, s->codes, COUNT * s->code->code_bytes, "%s %s %s", ABOUT(s));
    close_setting(&other);
    /* More rows than one thread takes at once. */
    float *rows = make_rows(s->of, 5, MANY), *projected = project(s->code, rows, MANY);
    size_t bytes = s->code->code_bytes;
    unsigned char *codes = malloc(MANY * bytes), *one = malloc(bytes);
    uint32_t assigned[MANY];
    for (size_t i = 0; i < MANY; i++) assigned[i] = (uint32_t)(i % POINTS);
    kith_code_rows input = s->input;
    input.rows = projected;
    input.count = MANY;
    input.assigned = s->has_points ? assigned : NULL;
    cr_assert_eq(kith_code_encode(s->code, &input, 3, codes), KITH_OK);
    for (size_t i = 0; i < MANY; i += 37) {
        kith_code_rows alone = input;
        alone.rows = projected + i * s->dim;
        alone.count = 1;
        alone.assigned = s->has_points ? assigned + i : NULL;
        cr_assert_eq(s->code->vtable->encode(s->code, &alone, one), KITH_OK);
        cr_assert_arr_eq(one, codes + i * bytes, bytes, "%s %s %s: row %zu", ABOUT(s), i);
    }
    free(rows);
    free(projected);
    free(codes);
    free(one);
}

Test(codes, threads_and_batches_change_nothing) { for_each(check_threads); }

/* ---- Estimates ------------------------------------------------------------------------------------------------ */

static void scan(const setting *s, const kith_code *code, size_t first_query, size_t query_count, float *out,
                 size_t stride) {
    for (size_t b = 0; b < BLOCKS; b++) { /* all rows of a block have one reference point */
        const float *bases = s->bases[s->has_points ? s->assigned[b * 32] : 0];
        code->vtable->scan(code, s->prepared_at + first_query, bases + first_query, query_count,
                           s->blocks + b * code->block_bytes, 1, out + b * 32, stride);
    }
}

static void check_forms(setting *s) {
    enum { STRIDE = BLOCKS * 32 + 5 };
    float alone[QUERIES * STRIDE], out[QUERIES * STRIDE], four[4];
    scan(s, s->code, 0, QUERIES, alone, STRIDE);
    for (size_t count = 1; count <= QUERIES; count++) {
        for (size_t i = 0; i < QUERIES * STRIDE; i++) out[i] = -12345;
        scan(s, s->code, QUERIES - count, count, out, STRIDE);
        for (size_t q = 0; q < QUERIES; q++)
            for (size_t i = 0; i < STRIDE; i++)
                if (q >= count || i >= BLOCKS * 32)
                    cr_assert_eq(out[q * STRIDE + i], -12345, "%s %s %s wrote too far", ABOUT(s));
                else if (i < COUNT)
                    cr_assert_eq(out[q * STRIDE + i], alone[(QUERIES - count + q) * STRIDE + i],
                                 "%s %s %s: %zu queries", ABOUT(s), count);
                else
                    cr_assert(isfinite(out[q * STRIDE + i]), "%s %s %s: an empty lane", ABOUT(s));
    }
    for (size_t q = 0; q < QUERIES; q++)
        for (size_t i = 0; i < COUNT; i++) {
            size_t at[4] = {i, (i + 1) % 32 + i / 32 * 32, i, i / 32 * 32};
            const unsigned char *rows[4];
            for (size_t r = 0; r < 4; r++) rows[r] = code_at(s, at[r] < COUNT ? at[r] : i);
            s->code->vtable->rows(s->code, s->prepared_at[q], base_of(s, q, i), rows, 4, four);
            for (size_t r = 0; r < 4; r++)
                cr_assert_eq(four[r], alone[q * STRIDE + (at[r] < COUNT ? at[r] : i)],
                             "%s %s %s: query %zu, row %zu", ABOUT(s), q, i);
        }
    if (s->has_points) return; /* any number of rows, and several blocks, in one call */
    for (size_t count = 1; count <= COUNT; count += 1 + count / 7) {
        const unsigned char *rows[COUNT + KITH_CODE_ROWS_UNIT];
        float many[COUNT + KITH_CODE_ROWS_UNIT];
        size_t q = count % QUERIES;
        for (size_t i = 0; i < count; i++) rows[i] = code_at(s, (i * 7 + count) % COUNT);
        kith_code_rows_estimate(s->code, s->prepared_at[q], base_of(s, q, 0), rows, count, many);
        for (size_t i = 0; i < count; i++)
            cr_assert_eq(many[i], alone[q * STRIDE + (i * 7 + count) % COUNT], "%s %s %s: row %zu of %zu", ABOUT(s),
                         i, count);
    }
    s->code->vtable->scan(s->code, s->prepared_at, s->bases[0], QUERIES, s->blocks, BLOCKS, out, STRIDE);
    for (size_t q = 0; q < QUERIES; q++)
        cr_assert_arr_eq(out + q * STRIDE, alone + q * STRIDE, COUNT * sizeof *out, "%s", s->of->name);
}

Test(codes, rows_and_blocks_give_the_same_bits) { for_each(check_forms); }

static void check_estimates(setting *s) {
    if (!isfinite(s->of->bias_max)) return;
    float *decoded = decode_rows(s, s->code), *back = project(s->code, decoded, COUNT);
    for (size_t q = 0; q < QUERIES; q++)
        for (size_t i = 0; i < COUNT; i++) {
            const float *query = s->queries + q * s->dim, *row = back + i * s->dim;
            double got = (double)kith_code_one(s->code, s->prepared_at[q], base_of(s, q, i), code_at(s, i));
            double want = distance(s, query, row), scale = norm(query, s->dim) + norm(row, s->dim);
            cr_assert_lt(fabs(got - want), s->of->bias_max * scale * scale, "%s %s %s: %g, not %g; %g", ABOUT(s),
                         got, want, fabs(got - want) / (scale * scale));
        }
    free(decoded);
    free(back);
}

Test(codes, estimates_are_distances_to_decoded_rows) { for_each(check_estimates); }

/* ---- Instruction sets ----------------------------------------------------------------------------------------- */

static void add_to_hash(uint64_t *hash, const void *bytes, size_t count) {
    for (size_t i = 0; i < count; i++)
        *hash = (*hash ^ ((const unsigned char *)bytes)[i]) * UINT64_C(0x100000001b3);
}

static uint64_t running_hash;

static void hash_all(setting *s) {
    float out[QUERIES * BLOCKS * 32];
    memset(out, 0, sizeof out);
    float *decoded = decode_rows(s, s->code);
    scan(s, s->code, 0, QUERIES, out, BLOCKS * 32);
    for (size_t q = 0; q < QUERIES; q++) add_to_hash(&running_hash, out + q * BLOCKS * 32, COUNT * sizeof *out);
    add_to_hash(&running_hash, decoded, COUNT * s->of->dim * sizeof *decoded);
    add_to_hash(&running_hash, s->codes, COUNT * s->code->code_bytes);
    free(decoded);
    check_forms(s);
}

Test(codes, the_same_on_every_instruction_set) {
    static const char *const isas[] = {"ref", "avx2", "avx512-vnni", "avx512", "neon"};
    uint64_t want = 0;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        if (kith_simd_find(isas[i]) == NULL) continue;
        int ends[2], how = -1;
        cr_assert_eq(pipe(ends), 0);
        pid_t child = fork();
        cr_assert_geq(child, 0);
        if (child == 0) {
            (void)setenv("KITH_ISA", isas[i], 1);
            if (kith_simd_status() != KITH_OK) _exit(2);
            for_each(hash_all);
            _exit(write(ends[1], &running_hash, sizeof running_hash) == sizeof running_hash ? 0 : 3);
        }
        cr_assert_eq(waitpid(child, &how, 0), child);
        cr_assert(WIFEXITED(how) && WEXITSTATUS(how) == 0, "%s ended with %d", isas[i], how);
        uint64_t got = 0;
        cr_assert_eq(read(ends[0], &got, sizeof got), sizeof got);
        if (i == 0) want = got;
        cr_assert_eq(got, want, "%s differs from ref", isas[i]);
        (void)close(ends[0]);
        (void)close(ends[1]);
    }
}

/* ---- Files and copies ----------------------------------------------------------------------------------------- */

static void save(const kith_code *code, const char *path) {
    kith_container_writer *writer;
    uint32_t part = 3;
    cr_assert_eq(kith_container_writer_create(path, &writer), KITH_OK);
    cr_assert_eq(kith_code_save(code, writer, &part), KITH_OK, "%s", kith_error_message());
    cr_assert_gt(part, 3);
    cr_assert_eq(kith_container_writer_commit(writer), KITH_OK);
}

static kith_status load(const char *path, size_t dim, kith_metric metric, kith_code **out) {
    kith_container *file;
    uint32_t part = 3;
    *out = NULL;
    kith_status status = kith_container_open(path, &file);
    if (status != KITH_OK) return status;
    status = kith_code_load(file, &part, dim, metric, out);
    if (status == KITH_OK) {
        status = kith_container_finish(file);
        if (status != KITH_OK) kith_code_free(*out);
    }
    kith_container_close(file);
    return status;
}

static void check_same(const setting *s, const kith_code *other, const char *what) {
    setting copy = *s;
    unsigned char *codes = malloc(COUNT * s->code->code_bytes);
    cr_assert_eq(other->code_bytes, s->code->code_bytes);
    cr_assert_eq(other->query_bytes, s->code->query_bytes);
    cr_assert_eq(kith_code_encode(other, &s->input, 1, codes), KITH_OK);
    cr_assert_arr_eq(codes, s->codes, COUNT * s->code->code_bytes, "%s %s %s: %s", ABOUT(s), what);
    float want[QUERIES * BLOCKS * 32], got[QUERIES * BLOCKS * 32];
    scan(s, s->code, 0, QUERIES, want, BLOCKS * 32);
    copy.code = create(s->of, s->code->metric);
    kith_code_free(copy.code);
    copy.code = (kith_code *)(uintptr_t)other;
    prepare_queries(&copy);
    scan(&copy, other, 0, QUERIES, got, BLOCKS * 32);
    for (size_t q = 0; q < QUERIES; q++)
        cr_assert_arr_eq(got + q * BLOCKS * 32, want + q * BLOCKS * 32, COUNT * sizeof *got, "%s: %s", s->of->name,
                         what);
    free(codes);
}

static void check_copies(setting *s) {
    const char *folder = faults_folder(), *path = faults_path(folder, "code.kith");
    kith_code *other;
    save(s->code, path);
    cr_assert_eq(load(path, s->of->dim, s->code->metric, &other), KITH_OK, "%s", kith_error_message());
    cr_assert_str_eq(other->name, s->code->name);
    check_same(s, other, "loaded");
    kith_code_free(other);
    cr_assert_eq(load(path, s->of->dim + 1, s->code->metric, &other), KITH_ERR_FORMAT);
    cr_assert_eq(load(path, s->of->dim, s->code->metric == KITH_L2 ? KITH_IP : KITH_L2, &other), KITH_ERR_FORMAT);
    cr_assert_eq(s->code->vtable->clone(s->code, &other), KITH_OK);
    check_same(s, other, "cloned");
    kith_code_free(other);
    kith_code *untrained = create(s->of, s->code->metric);
    bool is_trained = untrained->is_trained;
    save(untrained, path);
    kith_code_free(untrained);
    cr_assert_eq(load(path, s->of->dim, s->code->metric, &other), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(other->is_trained, is_trained);
    cr_assert_eq(other->vtable->clone(other, &untrained), KITH_OK);
    kith_code_free(other);
    kith_code_free(untrained);
    faults_folder_remove(folder);
}

Test(codes, saved_and_cloned_ones_are_the_same) { for_each(check_copies); }

/* Any changed byte: an error, or zeros between sections, which verify alone looks at. */
static void check_damage(setting *s) {
    if (s->has_points) return;
    const char *folder = faults_folder(), *path = faults_path(folder, "code.kith");
    save(s->code, path);
    size_t bytes, refused = 0;
    unsigned char *content = faults_read_file(path, &bytes);
    for (size_t i = 0; i < bytes; i += i < 8192 ? 331 : 1997) {
        content[i] ^= 4;
        faults_write_file(path, content, bytes);
        content[i] ^= 4;
        kith_code *code;
        kith_status status = load(path, s->of->dim, s->code->metric, &code);
        refused += status != KITH_OK;
        if (status == KITH_OK) {
            check_same(s, code, "after a change of padding");
            kith_code_free(code);
        }
    }
    cr_assert_gt(refused, 0);
    for (size_t cut = 0; cut < bytes; cut += bytes / 7) {
        faults_write_file(path, content, cut);
        kith_code *code;
        cr_assert_neq(load(path, s->of->dim, s->code->metric, &code), KITH_OK);
    }
    free(content);
    faults_folder_remove(folder);
}

Test(codes, damaged_files_are_errors) { for_each(check_damage); }

/* A CODEMETA whose checksum is good and whose content is not. */
static void check_meta(const char *what, size_t offset, const void *bytes, size_t count, size_t length,
                       const char *message) {
    const char *folder = faults_folder(), *path = faults_path(folder, "meta.kith");
    unsigned char meta[64] = {2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 'S', 'Q', '8'};
    memcpy(meta + offset, bytes, count);
    kith_container_writer *writer;
    cr_assert_eq(kith_container_writer_create(path, &writer), KITH_OK);
    cr_assert_eq(kith_container_writer_add(writer, "CODEMETA", 3, meta, length), KITH_OK);
    cr_assert_eq(kith_container_writer_commit(writer), KITH_OK);
    kith_code *code;
    kith_status status = load(path, 8, KITH_L2, &code);
    cr_assert_null(code);
    if (message == NULL) cr_assert_eq(status, KITH_OK);
    cr_assert_eq(status, KITH_ERR_FORMAT, "%s", what);
    cr_assert_not_null(strstr(kith_error_message(), message), "%s: %s", what, kith_error_message());
    cr_assert_not_null(strstr(kith_error_message(), "meta.kith: section CODEMETA.3"), "%s", kith_error_message());
    faults_folder_remove(folder);
}

Test(codes, wrong_content_is_named) {
    char all[32];
    memset(all, 'x', sizeof all);
    check_meta("length", 0, "", 0, 47, "has 47 bytes, not 48");
    check_meta("kind", 0, "\1", 1, 48, "'SQ8' is not of kind 1");
    check_meta("metric", 4, "\2", 1, 48, "metric 2, not 1");
    check_meta("dimension", 8, "\7", 1, 48, "dimension 7, not 8");
    check_meta("trained", 12, "\2", 1, 48, "trained is 2");
    check_meta("name", 16, "SQ9", 3, 48, "'SQ9' is no code");
    check_meta("alias", 0, "\1\0\0\0\1\0\0\0\10\0\0\0\1\0\0\0SQfp16", 22, 48,
               "'SQfp16' is not how 'f16' is written");
    check_meta("untrained", 0, "\1\0\0\0\1\0\0\0\10\0\0\0\0\0\0\0f16", 19, 48, "'f16' untrained");
    check_meta("no end", 16, all, 32, 48, "the name has no end");
    check_meta("text after the end", 40, "y", 1, 48, "byte 24 of the name is 121");
    check_meta("blank", 17, " ", 1, 48, "byte 1 of the name is 32");
}

/* ---- Failing memory ------------------------------------------------------------------------------------------- */

static void check_faults(setting *s) {
    kith_status status;
    kith_spec spec = spec_of(s->of->name);
    kith_code *code = NULL, *copy = NULL;
    MEMORY_FAULTS_EACH(status, kith_code_create(&spec, 0, s->of->dim, s->code->metric, &code)) cr_assert_null(code);
    kith_code_rows sample = {.rows = s->sample, .count = 520};
    if (s->has_points) {
        sample.centroids = s->points;
        sample.assigned = s->sample_assigned;
    }
    kith_job job = job_of(1);
    MEMORY_FAULTS_EACH(status, kith_code_train(code, &sample, &job))
    cr_assert(!code->is_trained || code->vtable->train == NULL);
    float *rows = make_rows(s->of, 2, COUNT), *projected = project(code, rows, COUNT);
    float *points = project(code, s->points, POINTS), *decoded = malloc(COUNT * s->of->dim * sizeof *decoded);
    unsigned char *codes = malloc(COUNT * code->code_bytes);
    kith_code_rows input = s->input;
    input.rows = projected;
    if (s->has_points) input.centroids = points;
    MEMORY_FAULTS_EACH(status, kith_code_encode(code, &input, 1, codes)) continue;
    MEMORY_FAULTS_EACH(status, code->vtable->decode(code, &input, codes, decoded)) continue;
    MEMORY_FAULTS_EACH(status, code->vtable->clone(code, &copy)) cr_assert_null(copy);
    kith_code_free(copy);
    /* Trained again: the old training stays when that fails. */
    unsigned char *before = malloc(COUNT * code->code_bytes), *after = malloc(COUNT * code->code_bytes);
    memcpy(before, codes, COUNT * code->code_bytes);
    sample.count = 540;
    MEMORY_FAULTS_EACH(status, kith_code_train(code, &sample, &job)) {
        cr_assert_eq(kith_code_encode(code, &input, 1, after), KITH_OK);
        cr_assert_arr_eq(after, before, COUNT * code->code_bytes, "%s: changed by a failed training", s->of->name);
    }
    const char *folder = faults_folder(), *path = faults_path(folder, "code.kith");
    save(code, path);
    kith_code *loaded = NULL;
    MEMORY_FAULTS_EACH(status, load(path, s->of->dim, s->code->metric, &loaded)) cr_assert_null(loaded);
    kith_code_free(loaded);
    kith_code_free(code);
    free(codes);
    free(rows);
    free(projected);
    free(points);
    free(decoded);
    free(before);
    free(after);
    faults_folder_remove(folder);
}

Test(codes, every_allocation_may_fail) {
    memory_faults_install();
    for_steps(check_faults, 3);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- Bad rows ------------------------------------------------------------------------------------------------- */

Test(codes, training_refuses_bad_rows) {
    for (size_t c = 0; c < CASE_COUNT; c++) {
        kith_code *code = create(&cases[c], KITH_L2);
        float *rows = make_rows(&cases[c], 1, TRAIN);
        kith_code_rows sample = {.rows = rows, .count = 0};
        if (code->vtable->train != NULL) {
            cr_assert_eq(kith_code_train(code, &sample, NULL), KITH_ERR_EMPTY);
            sample.count = TRAIN;
            rows[17 * cases[c].dim + 3] = NAN;
            cr_assert_eq(kith_code_train(code, &sample, NULL), KITH_ERR_NOT_FINITE);
            cr_assert_not_null(strstr(kith_error_message(), "row 17"), "%s", kith_error_message());
            rows[17 * cases[c].dim + 3] = 1e30f;
            cr_assert_eq(kith_code_train(code, &sample, NULL), KITH_ERR_RANGE);
            cr_assert_not(code->is_trained);
        }
        free(rows);
        kith_code_free(code);
    }
}
