/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sq.c: the scalar quantiser beside FAISS's, and at its limits. What every code has to do: test_codes.c.
 */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "faults.h"
#include "flat/flat.h"
#include "simd/simd.h"
#include "sq/sq.h"
#include "sq/sq_inside.h"

/* ---- Helpers -------------------------------------------------------------------------------------------------- */

static kith_code *make(const char *name, size_t dim, kith_metric metric) {
    kith_code *code;
    size_t position;
    cr_assert_eq(kith_sq_make(name, dim, metric, &code, &position), KITH_OK, "%s", kith_error_message());
    cr_assert_not_null(code, "%s", name);
    return code;
}

static kith_code *trained(const char *name, const float *rows, size_t count, size_t dim, kith_metric metric) {
    kith_code *code = make(name, dim, metric);
    kith_code_rows sample = {.rows = rows, .count = count};
    cr_assert_eq(kith_code_train(code, &sample, NULL), KITH_OK, "%s: %s", name, kith_error_message());
    return code;
}

static float *normal_rows(uint64_t stream, size_t count, size_t dim) {
    float *rows = malloc(count * dim * sizeof *rows);
    for (size_t i = 0; i < count * dim; i++) rows[i] = kith_random_normal(3, stream, i);
    return rows;
}

/* There and back; malloc. */
static float *through(const kith_code *code, const float *rows, size_t count) {
    unsigned char *codes = aligned_alloc(64, kith_round_up(count * code->code_bytes, 64));
    float *out = malloc(count * code->dim * sizeof *out);
    kith_code_rows input = {.rows = rows, .count = count};
    cr_assert_eq(kith_code_encode(code, &input, 1, codes), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(code->vtable->decode(code, &input, codes, out), KITH_OK);
    free(codes);
    return out;
}

/* Mean squared error of an element. */
static double error_of(const char *name, const float *sample, size_t sample_count, const float *rows, size_t count,
                       size_t dim) {
    kith_code *code = trained(name, sample, sample_count, dim, KITH_IP);
    float *decoded = through(code, rows, count);
    double sum = 0;
    for (size_t i = 0; i < count * dim; i++) sum += pow((double)rows[i] - (double)decoded[i], 2);
    free(decoded);
    kith_code_free(code);
    return sum / (double)(count * dim);
}

/* ---- Beside FAISS --------------------------------------------------------------------------------------------- */

enum { GOLDEN_TRAIN = 200, GOLDEN_ROWS = 8, GOLDEN_DIM = 21 };

/* The rows of golden/make_sq_golden.py. */
static float golden_value(uint64_t row, uint64_t d) {
    if (d == 5) return 0.75f;
    uint64_t x = 0, numbers[] = {row, d};
    for (size_t i = 0; i < 2; i++) {
        x = (x ^ numbers[i]) + UINT64_C(0x9E3779B97F4A7C15);
        x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
        x ^= x >> 31;
    }
    return ((float)(x % 20001) - 7000) / 1024 * (float)(1 + d % 4);
}

static void check_golden(const char *name, const float *want) {
    float sample[GOLDEN_TRAIN * GOLDEN_DIM], rows[GOLDEN_ROWS * GOLDEN_DIM];
    for (size_t i = 0; i < GOLDEN_TRAIN; i++)
        for (size_t d = 0; d < GOLDEN_DIM; d++) sample[i * GOLDEN_DIM + d] = golden_value(i, d);
    for (size_t i = 0; i < GOLDEN_ROWS; i++)
        for (size_t d = 0; d < GOLDEN_DIM; d++)
            rows[i * GOLDEN_DIM + d] = golden_value(GOLDEN_TRAIN + i, d) * (i >= GOLDEN_ROWS - 2 ? 3 : 1);
    for (int metric = KITH_L2; metric <= KITH_IP; metric++) {
        kith_code *code = trained(name, sample, GOLDEN_TRAIN, GOLDEN_DIM, (kith_metric)metric);
        float *got = through(code, rows, GOLDEN_ROWS);
        for (size_t i = 0; i < GOLDEN_ROWS * GOLDEN_DIM; i++)
            cr_assert_eq(got[i], want[i], "%s: row %zu, dimension %zu is %.9g, FAISS has %.9g", name,
                         i / GOLDEN_DIM, i % GOLDEN_DIM, (double)got[i], (double)want[i]);
        free(got);
        kith_code_free(code);
    }
}

Test(sq, decodes_as_faiss_does) {
#define GOLDEN_SQ(NAME, ...) check_golden(#NAME, (const float[]){__VA_ARGS__});
#include "golden/sq_golden.inc"
}

/* ---- Ranges --------------------------------------------------------------------------------------------------- */

/* Uniform numbers between the ends of their ranges: cells of the same size, an error of size^2 / 12. */
Test(sq, error_of_uniform_numbers) {
    enum { COUNT = 4000, DIM = 5 };
    float rows[COUNT * DIM];
    for (size_t i = 0; i < COUNT * DIM; i++) rows[i] = 8 * kith_random_f32(1, 2, i);
    for (unsigned bits = 3; bits <= 8; bits++) {
        char name[] = {'S', 'Q', (char)('0' + bits), '\0'};
        double cell = 8.0 / ((1 << bits) - 1), want = cell * cell / 12;
        double got = error_of(name, rows, COUNT, rows, COUNT, DIM);
        cr_assert_lt(fabs(got / want - 1), 0.05, "%s: %g, not %g", name, got, want);
    }
}

/* The least error of 2^bits equal cells on normal numbers: Max, "Quantizing for Minimum Distortion", IRE Transactions
 * on Information Theory 6 (1960), table II. */
Test(sq, trained_ranges_are_the_best_for_normal_numbers) {
    enum { COUNT = 20000, DIM = 4 };
    static const double best[] = {0.3634, 0.1188, 0.03744, 0.01154, 0.003495};
    float *rows = normal_rows(1, COUNT, DIM), *others = normal_rows(2, COUNT, DIM);
    for (unsigned bits = 1; bits <= 5; bits++) {
        char name[] = "SQ1u_trained";
        name[2] = (char)('0' + bits);
        double uniform = error_of(name, rows, COUNT, others, COUNT, DIM);
        cr_assert_lt(fabs(uniform / best[bits - 1] - 1), 0.02, "%s: %g, not %g", name, uniform, best[bits - 1]);
        memmove(name + 3, name + 4, 9);
        double own = error_of(name, rows, COUNT, others, COUNT, DIM);
        cr_assert_lt(fabs(own / best[bits - 1] - 1), 0.03, "%s: %g, not %g", name, own, best[bits - 1]);
    }
    /* Outliers take all cells from the ends' range, few from that of the least error. */
    rows[4] = 1000;
    rows[9] = -500;
    double ends = error_of("SQ4", rows, COUNT, others, COUNT, DIM);
    double least = error_of("SQ4_trained", rows, COUNT, others, COUNT, DIM);
    double cut = error_of("SQ4_quantile1", rows, COUNT, others, COUNT, DIM);
    cr_assert_lt(cut, 0.02);
    cr_assert_gt(ends, 10 * cut);
    cr_assert_lt(error_of("SQ4_trained", rows, COUNT, rows, COUNT, DIM),
                 error_of("SQ4", rows, COUNT, rows, COUNT, DIM));
    cr_assert_lt(least, ends);
    free(rows);
    free(others);
}

static double training_error(const char *name, const float *rows, size_t count, size_t dim) {
    return error_of(name, rows, count, rows, count, dim);
}

/* Whatever the rows are, the least squared error is no more than that of the other ranges. */
Test(sq, trained_ranges_are_no_worse) {
    enum { COUNT = 700, DIM = 6 };
    float rows[COUNT * DIM];
    for (size_t i = 0; i < COUNT; i++)
        for (size_t d = 0; d < DIM; d++) {
            float normal = kith_random_normal(5, 5, i * DIM + d);
            rows[i * DIM + d] = d == 0   ? normal * normal * normal
                                : d == 1 ? expf(normal)
                                : d == 2 ? (float)(i % 3)
                                : d == 3 ? (i < 5 ? 100 : normal)
                                : d == 4 ? rintf(normal)
                                         : normal - 1e4f;
        }
    static const char *const names[][3] = {{"SQ8_trained", "SQ8", "SQ8_quantile"},
                                           {"SQ4_trained", "SQ4", "SQ4_quantile"},
                                           {"SQ2_trained", "SQ2", "SQ2_quantile50"},
                                           {"SQ4u_trained", "SQ4u", "SQ4u_quantile"}};
    for (size_t n = 0; n < 4; n++) {
        double least = training_error(names[n][0], rows, COUNT, DIM);
        for (size_t other = 1; other < 3; other++) {
            double error = training_error(names[n][other], rows, COUNT, DIM);
            cr_assert_leq(least, error * 1.0001, "%s: %g, %s: %g", names[n][0], least, names[n][other], error);
        }
    }
}

/* Estimates of 32 rows, packed into a block; malloc. */
static float *estimates_of(const kith_code *code, const unsigned char *codes, const float *query) {
    float *out = malloc(KITH_BLOCK_ROWS * sizeof *out), four[4];
    void *prepared = aligned_alloc(64, code->query_bytes);
    unsigned char *block = aligned_alloc(64, code->block_bytes);
    const float base = 0;
    code->vtable->prepare(code, query, prepared);
    code->vtable->pack(code, codes, 0, KITH_BLOCK_ROWS, block);
    const void *const queries[1] = {prepared};
    code->vtable->scan(code, queries, &base, 1, block, 1, out, KITH_BLOCK_ROWS);
    for (size_t i = 0; i < KITH_BLOCK_ROWS; i += 4) {
        const unsigned char *rows[4];
        for (size_t r = 0; r < 4; r++) rows[r] = codes + (i + r) * code->code_bytes;
        code->vtable->rows(code, prepared, base, rows, 4, four);
        cr_assert_arr_eq(four, out + i, sizeof four);
    }
    free(prepared);
    free(block);
    return out;
}

/* Queries in 8 bits change estimates by about a hundredth. Where one dimension outweighs the others, they stay in 15. */
Test(sq, quick_queries_err_a_little_more) {
    enum { COUNT = 320, DIM = 96 };
    static const kith_metric metrics[] = {KITH_L2, KITH_IP};
    float *rows = normal_rows(11, COUNT, DIM);
    for (size_t m = 0; m < 2; m++) {
        kith_code *code = trained("SQ8", rows, COUNT, DIM, metrics[m]);
        unsigned char *codes = aligned_alloc(64, kith_round_up(COUNT * code->code_bytes, 64));
        kith_code_rows input = {.rows = rows, .count = COUNT};
        cr_assert_eq(kith_code_encode(code, &input, 1, codes), KITH_OK);
        size_t bytes = code->query_bytes;
        float *fine = estimates_of(code, codes, rows), largest = 0;
        kith_sq_quicken(code);
        cr_assert_lt(code->query_bytes, bytes);
        float *quick = estimates_of(code, codes, rows);
        for (size_t i = 0; i < KITH_BLOCK_ROWS; i++) largest = fmaxf(largest, fabsf(fine[i] - quick[i]));
        cr_assert(largest > 0 && largest < 2, "%g", (double)largest); /* of distances around 192 */
        free(fine);
        free(quick);
        free(codes);
        kith_code_free(code);
    }
    for (size_t i = 0; i < COUNT; i++) rows[i * DIM] *= 20;
    kith_code *code = trained("SQ8", rows, COUNT, DIM, KITH_L2);
    size_t bytes = code->query_bytes;
    kith_sq_quicken(code);
    cr_assert_eq(code->query_bytes, bytes);
    kith_code_free(code);
    free(rows);
}

/* ---- Limits --------------------------------------------------------------------------------------------------- */

static const char *const limit_names[] = {"SQ8",  "SQ6",         "SQ4",          "SQ1",
                                          "SQ8u", "SQ4_trained", "SQ8_quantile", "SQ4u_trained"};
enum { LIMIT_NAMES = sizeof limit_names / sizeof *limit_names };

Test(sq, constant_rows_come_back) {
    enum { COUNT = 50, DIM = 7 };
    float rows[COUNT * DIM];
    for (size_t i = 0; i < COUNT * DIM; i++) rows[i] = 3.25f;
    for (size_t n = 0; n < LIMIT_NAMES; n++) {
        kith_code *code = trained(limit_names[n], rows, COUNT, DIM, KITH_L2);
        float *decoded = through(code, rows, COUNT);
        for (size_t i = 0; i < COUNT * DIM; i++) cr_assert_eq(decoded[i], 3.25f, "%s", limit_names[n]);
        free(decoded);
        decoded = through(code, rows, 1);
        cr_assert_eq(decoded[0], 3.25f);
        free(decoded);
        kith_code_free(code);
    }
}

Test(sq, one_row_is_enough) {
    static const float row[] = {1, -2, 3};
    for (size_t n = 0; n < LIMIT_NAMES; n++) {
        kith_code *code = trained(limit_names[n], row, 1, 3, KITH_L2);
        float *decoded = through(code, row, 1);
        for (size_t d = 0; d < 3; d++)
            cr_assert(fabsf(decoded[d] - row[d]) <= (strchr(limit_names[n], 'u') != NULL ? 5 : 0), "%s",
                      limit_names[n]);
        free(decoded);
        kith_code_free(code);
    }
}

Test(sq, rows_outside_are_cut_to_the_range) {
    enum { COUNT = 256, DIM = 2 };
    float rows[COUNT * DIM];
    for (size_t i = 0; i < COUNT; i++) {
        rows[2 * i] = (float)i;
        rows[2 * i + 1] = -(float)i;
    }
    kith_code *code = trained("SQ8", rows, COUNT, DIM, KITH_L2);
    static const float far[] = {1e30f, -1e30f, -5, 5, FLT_MAX, -FLT_MAX};
    float *decoded = through(code, far, 3);
    static const float want[] = {255.5f, -254.5f, 0.5f, 0.5f, 255.5f, -254.5f};
    for (size_t i = 0; i < 6; i++) cr_assert_float_eq(decoded[i], want[i], 1e-4f, "%zu: %g", i, (double)decoded[i]);
    free(decoded);
    kith_code_free(code);
}

/* The same rows at any power of two are the same codes, and their estimates keep their order: nothing overflows, nothing
 * vanishes that a distance in f32 does not lose as well. */
Test(sq, huge_and_tiny_magnitudes) {
    enum { COUNT = 64, DIM = 24, QUERY_BYTES = 4096 };
    static const int exponents[] = {0, 57, -40, -50};
    static const char *const names[] = {"SQ8", "SQ4", "SQ6u", "SQ8_trained"};
    float *unit = normal_rows(9, COUNT, DIM), rows[COUNT * DIM];
    unsigned char *codes = aligned_alloc(64, 64 * 64 * COUNT), *query = aligned_alloc(64, QUERY_BYTES);
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        for (int metric = KITH_L2; metric <= KITH_IP; metric++) {
            float first[COUNT], got;
            for (size_t e = 0; e < sizeof exponents / sizeof *exponents; e++) {
                for (size_t i = 0; i < COUNT * DIM; i++) rows[i] = ldexpf(unit[i], exponents[e]);
                kith_code *code = trained(names[n], rows, COUNT, DIM, (kith_metric)metric);
                kith_code_rows input = {.rows = rows, .count = COUNT};
                cr_assert_leq(code->query_bytes, QUERY_BYTES);
                cr_assert_eq(kith_code_encode(code, &input, 1, codes), KITH_OK);
                code->vtable->prepare(code, rows, query);
                float base = kith_code_base(code, rows, NULL), scale = ldexpf(1, -exponents[e]);
                for (size_t i = 0; i < COUNT; i++) {
                    got = kith_code_one(code, query, base, codes + i * code->code_bytes) * scale * scale;
                    if (e == 0) first[i] = got;
                    cr_assert_float_eq(got, first[i], 1e-4f, "%s at 2^%d: %g, not %g", names[n], exponents[e],
                                       (double)got, (double)first[i]);
                }
                kith_code_free(code);
            }
        }
    free(unit);
    free(codes);
    free(query);
}

Test(sq, budget_cancelling_and_progress) {
    enum { COUNT = 4000, DIM = 8 };
    float *rows = normal_rows(1, COUNT, DIM);
    kith_code *code = make("SQ4_trained", DIM, KITH_L2);
    kith_code_rows sample = {.rows = rows, .count = COUNT};
    kith_job job;
    kith_job_init(&job);
    job.memory_bytes_max = 10000;
    cr_assert_eq(kith_code_train(code, &sample, &job), KITH_ERR_BUDGET);
    cr_assert_not(code->is_trained);
    job.memory_bytes_max = 10000000;
    cr_assert_eq(kith_code_train(code, &sample, &job), KITH_OK);
    kith_code_free(code);
    free(rows);
}

/* ---- Raw codes ------------------------------------------------------------------------------------------------ */

Test(sq, raw_codes_refuse_what_they_cannot_hold) {
    static const struct {
        const char *name;
        float value;
    } wrong[] = {{"u8", 0.5f},  {"u8", -1},     {"u8", 256},     {"i8", 128},      {"i8", -129},
                 {"i8", 1e30f}, {"f16", 65520}, {"f16", -1e30f}, {"bf16", FLT_MAX}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        kith_code *code = make(wrong[i].name, 3, KITH_L2);
        float *rows = calloc(600 * 3, sizeof *rows);
        unsigned char *codes = malloc(600 * code->code_bytes);
        kith_code_rows input = {.rows = rows, .count = 600};
        cr_assert_eq(kith_code_encode(code, &input, 2, codes), KITH_OK);
        rows[417 * 3 + 2] = wrong[i].value;
        cr_assert_eq(kith_code_encode(code, &input, 2, codes), KITH_ERR_RANGE, "%s", wrong[i].name);
        cr_assert_not_null(strstr(kith_error_message(), "row 417: element 2"), "%s", kith_error_message());
        free(rows);
        free(codes);
        kith_code_free(code);
    }
}

/* What Flat says of the same rows, bit for bit. */
Test(sq, raw_codes_give_the_distances_of_flat) {
    static const char *const names[] = {"Flat", "f16", "bf16", "i8", "u8"};
    enum { COUNT = 50, DIM = 45 };
    float rows[COUNT * DIM], query[DIM], distances[COUNT];
    int64_t ids[COUNT];
    for (size_t i = 0; i < COUNT * DIM; i++) rows[i] = (float)(kith_random_u64(1, 1, i) % 128);
    for (size_t d = 0; d < DIM; d++) query[d] = 20 * kith_random_normal(1, 2, d);
    for (size_t n = 0; n < 5; n++)
        for (int metric = KITH_L2; metric <= KITH_IP; metric++) {
            kith_code *code = make(names[n], DIM, (kith_metric)metric);
            cr_assert(code->is_exact && code->is_trained);
            cr_assert_eq(kith_raw_dtype(code), (kith_dtype)(KITH_F32 + n));
            unsigned char *codes = aligned_alloc(64, kith_round_up(COUNT * code->code_bytes, 64));
            unsigned char *prepared = aligned_alloc(64, code->query_bytes);
            kith_code_rows input = {.rows = rows, .count = COUNT};
            cr_assert_eq(kith_code_encode(code, &input, 1, codes), KITH_OK);
            code->vtable->prepare(code, query, prepared);
            char spec[16] = "Flat";
            if (n > 0) (void)snprintf(spec, sizeof spec, "Flat,%s", names[n]);
            kith_index *index;
            cr_assert_eq(kith_index_create(spec, DIM, (kith_metric)metric, &index), KITH_OK);
            kith_view stored = {rows, KITH_F32, COUNT, DIM, 0}, asked = {query, KITH_F32, 1, DIM, 0};
            cr_assert_eq(kith_index_add(index, &stored, NULL, NULL), KITH_OK);
            cr_assert_eq(kith_index_search(index, &asked, COUNT, NULL, ids, distances, NULL), KITH_OK);
            for (size_t i = 0; i < COUNT; i++) {
                float got = kith_code_one(code, prepared, 7, codes + (size_t)ids[i] * code->code_bytes);
                cr_assert_eq(metric == KITH_L2 ? got : -got, distances[i], "%s: row %lld", names[n],
                             (long long)ids[i]);
            }
            kith_index_free(index);
            kith_code_free(code);
            free(codes);
            free(prepared);
        }
}

/* ---- Files ---------------------------------------------------------------------------------------------------- */

static void check_ranges(const float *content, size_t bytes, const char *message) {
    const char *folder = faults_folder(), *path = faults_path(folder, "sq.kith");
    kith_container_writer *writer;
    kith_container *file;
    cr_assert_eq(kith_container_writer_create(path, &writer), KITH_OK);
    cr_assert_eq(kith_container_writer_add(writer, "SQRANGES", 0, content, bytes), KITH_OK);
    cr_assert_eq(kith_container_writer_commit(writer), KITH_OK);
    cr_assert_eq(kith_container_open(path, &file), KITH_OK);
    kith_code *code = make("SQ8", 2, KITH_L2);
    uint32_t part = 0;
    kith_status status = code->vtable->load(code, file, &part);
    cr_assert_eq(status, message == NULL ? KITH_OK : KITH_ERR_FORMAT);
    cr_assert_eq(code->is_trained, message == NULL);
    if (message != NULL) cr_assert_not_null(strstr(kith_error_message(), message), "%s", kith_error_message());
    kith_code_free(code);
    kith_container_close(file);
    faults_folder_remove(folder);
}

Test(sq, wrong_ranges_are_named) {
    check_ranges((float[]){0, 0, 1, 1, 0, 0}, 24, NULL);
    check_ranges((float[]){0, 0, 1, 1, 0}, 20, "SQRANGES");
    check_ranges((float[]){0, NAN, 1, 1, 0, 0}, 24, "section SQRANGES.0: element 1 is nan");
    check_ranges((float[]){0, 0, 1, -1, 0, 0}, 24, "element 3 is -1");
    check_ranges((float[]){0, 0, 1, 1, 0, INFINITY}, 24, "element 5 is inf");
    check_ranges((float[]){1e21f, 0, 1, 1, 0, 0}, 24, "element 0 is 1e+21");
}
