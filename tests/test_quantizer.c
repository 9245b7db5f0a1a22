/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quantizer.c: kith/quantizer.h. What every code has to do: test_codes.c.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "kith/quantizer.h"
#include "memory_faults.h"

enum { COUNT = 1000, DIM = 24 };

static float *make_rows(uint64_t stream, float offset) {
    float *rows = malloc(COUNT * DIM * sizeof *rows);
    for (size_t i = 0; i < COUNT * DIM; i++) rows[i] = offset + kith_random_normal(1, stream, i);
    return rows;
}

static kith_view view_of(const float *rows, size_t count) {
    return (kith_view){.data = rows, .dtype = KITH_F32, .count = count, .dim = DIM};
}

static kith_quantizer *make(const char *spec, kith_metric metric) {
    kith_quantizer *quantizer;
    cr_assert_eq(kith_quantizer_create(spec, DIM, metric, &quantizer), KITH_OK, "%s", kith_error_message());
    return quantizer;
}

static kith_job job_of(size_t threads) {
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    return job;
}

static const char *const specs[] = {"SQ8", "SQ4_trained", "f16", "RaBitQ4", "Line32"};
enum { SPECS = sizeof specs / sizeof *specs };

Test(quantizer, says_what_it_is) {
    kith_quantizer *quantizer = make("SQ8", KITH_COSINE);
    cr_assert_str_eq(kith_quantizer_spec(quantizer), "SQ8");
    cr_assert_eq(kith_quantizer_dim(quantizer), DIM);
    cr_assert_eq(kith_quantizer_metric(quantizer), KITH_COSINE);
    cr_assert_eq(kith_quantizer_code_bytes(quantizer), DIM);
    cr_assert_not(kith_quantizer_is_trained(quantizer));
    uint64_t before = kith_quantizer_memory(quantizer);
    float *rows = make_rows(1, 0);
    kith_view view = view_of(rows, COUNT);
    cr_assert_eq(kith_quantizer_train(quantizer, &view, NULL), KITH_OK);
    cr_assert(kith_quantizer_is_trained(quantizer));
    cr_assert_geq(kith_quantizer_memory(quantizer), before + 2 * DIM * sizeof(float));
    kith_quantizer_free(quantizer);
    kith_quantizer_free(NULL);
    quantizer = make("SQ8", KITH_L2);
    cr_assert_eq(kith_quantizer_code_bytes(quantizer), DIM + 4);
    kith_quantizer_free(quantizer);
    quantizer = make("SQ8_direct", KITH_L2);
    cr_assert_str_eq(kith_quantizer_spec(quantizer), "u8");
    cr_assert(kith_quantizer_is_trained(quantizer));
    kith_quantizer_free(quantizer);
    free(rows);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(quantizer, measures_what_coding_loses) {
    float *rows = make_rows(2, 3);
    kith_view view = view_of(rows, COUNT);
    for (size_t s = 0; s < SPECS; s++)
        for (int metric = KITH_L2; metric <= KITH_COSINE; metric++) {
            kith_quantizer *quantizer = make(specs[s], (kith_metric)metric);
            if (!kith_quantizer_is_trained(quantizer))
                cr_assert_eq(kith_quantizer_train(quantizer, &view, NULL), KITH_OK, "%s", kith_error_message());
            size_t bytes = kith_quantizer_code_bytes(quantizer);
            unsigned char *codes = malloc(COUNT * bytes), *again = malloc(COUNT * bytes);
            float *decoded = malloc(COUNT * DIM * sizeof *decoded);
            kith_job one = job_of(1), many = job_of(3);
            cr_assert_eq(kith_quantizer_encode(quantizer, &view, &one, codes), KITH_OK);
            cr_assert_eq(kith_quantizer_encode(quantizer, &view, &many, again), KITH_OK);
            cr_assert_arr_eq(codes, again, COUNT * bytes);
            cr_assert_eq(kith_quantizer_decode(quantizer, codes, COUNT, &many, decoded), KITH_OK);
            double error = 0, variance = 0, mean[DIM] = {0};
            float *scaled = malloc(COUNT * DIM * sizeof *scaled);
            for (size_t i = 0; i < COUNT; i++) {
                double norm2 = 0;
                for (size_t d = 0; d < DIM; d++) norm2 += pow((double)rows[i * DIM + d], 2);
                for (size_t d = 0; d < DIM; d++) {
                    double value = (double)rows[i * DIM + d] / (metric == KITH_COSINE ? sqrt(norm2) : 1);
                    scaled[i * DIM + d] = (float)value;
                    error += pow(value - (double)decoded[i * DIM + d], 2) / COUNT;
                    mean[d] += value / COUNT;
                }
            }
            for (size_t i = 0; i < COUNT * DIM; i++) variance += pow((double)scaled[i] - mean[i % DIM], 2) / COUNT;
            for (size_t threads = 1; threads <= 3; threads += 2) {
                kith_quantizer_error found = {.size = sizeof found};
                kith_job job = job_of(threads);
                cr_assert_eq(kith_quantizer_measure(quantizer, &view, &job, &found), KITH_OK);
                cr_assert_eq(found.count, COUNT);
                cr_assert_lt(fabs(found.squared_error - error), 1e-4 * error + 1e-9, "%s: %g, not %g", specs[s],
                             found.squared_error, error);
                cr_assert_lt(fabs(found.relative_error - error / variance), 1e-3 * error / variance, "%s",
                             specs[s]);
            }
            kith_quantizer_error small = {.size = offsetof(kith_quantizer_error, relative_error),
                                          .relative_error = 7};
            cr_assert_eq(kith_quantizer_measure(quantizer, &view, NULL, &small), KITH_OK);
            cr_assert_eq(small.relative_error, 7.0);
            kith_quantizer_free(quantizer);
            free(codes);
            free(again);
            free(decoded);
            free(scaled);
        }
    free(rows);
}

Test(quantizer, other_types_and_strides) {
    enum { STRIDE = DIM + 5 };
    uint8_t bytes[300 * STRIDE];
    float values[300 * DIM];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)kith_random_u64(4, 4, i);
    for (size_t i = 0; i < 300 * DIM; i++) values[i] = bytes[i / DIM * STRIDE + i % DIM];
    kith_view narrow = {bytes, KITH_U8, 300, DIM, STRIDE}, wide = view_of(values, 300);
    kith_quantizer *a = make("SQ6", KITH_L2), *b = make("SQ6", KITH_L2);
    unsigned char *from_narrow = malloc(300 * kith_quantizer_code_bytes(a)),
                  *from_wide = malloc(300 * kith_quantizer_code_bytes(a));
    cr_assert_eq(kith_quantizer_train(a, &narrow, NULL), KITH_OK);
    cr_assert_eq(kith_quantizer_train(b, &wide, NULL), KITH_OK);
    cr_assert_eq(kith_quantizer_encode(a, &narrow, NULL, from_narrow), KITH_OK);
    cr_assert_eq(kith_quantizer_encode(b, &wide, NULL, from_wide), KITH_OK);
    cr_assert_arr_eq(from_narrow, from_wide, 300 * kith_quantizer_code_bytes(a));
    kith_quantizer_free(a);
    kith_quantizer_free(b);
    free(from_narrow);
    free(from_wide);
}

Test(quantizer, vectors_all_alike_lose_no_share) {
    float rows[40 * DIM];
    for (size_t i = 0; i < 40 * DIM; i++) rows[i] = 0.1f;
    kith_view view = view_of(rows, 40);
    kith_quantizer *quantizer = make("SQ8", KITH_L2);
    kith_quantizer_error found = {.size = sizeof found};
    cr_assert_eq(kith_quantizer_train(quantizer, &view, NULL), KITH_OK);
    cr_assert_eq(kith_quantizer_measure(quantizer, &view, NULL, &found), KITH_OK);
    cr_assert_eq(found.squared_error, 0.0);
    cr_assert(isnan(found.relative_error));
    kith_quantizer_free(quantizer);
}

/* l2: squared; ip, cosine: the product. */
static double distance_of(kith_metric metric, const float *a, const float *b) {
    double sum = 0;
    for (size_t d = 0; d < DIM; d++)
        sum += metric == KITH_L2 ? pow((double)a[d] - (double)b[d], 2) : (double)a[d] * (double)b[d];
    return sum;
}

/* Distances among codes are those of what they stand for, distances to vectors those of the vectors to it, up to the
 * rounding of prepared queries. */
static void check_distances(const char *spec, kith_metric metric, double tolerance) {
    enum { FEW = 37 };
    float *rows = make_rows(3, 0.5f), *decoded = malloc(COUNT * DIM * sizeof *decoded);
    float *symmetric = malloc(FEW * COUNT * sizeof *symmetric), *again = malloc(FEW * COUNT * sizeof *again);
    kith_view all = view_of(rows, COUNT), few = view_of(rows, FEW);
    kith_quantizer *quantizer = make(spec, metric);
    if (!kith_quantizer_is_trained(quantizer))
        cr_assert_eq(kith_quantizer_train(quantizer, &all, NULL), KITH_OK, "%s", kith_error_message());
    unsigned char *codes = malloc(COUNT * kith_quantizer_code_bytes(quantizer));
    cr_assert_eq(kith_quantizer_encode(quantizer, &all, NULL, codes), KITH_OK);
    cr_assert_eq(kith_quantizer_decode(quantizer, codes, COUNT, NULL, decoded), KITH_OK);
    for (size_t threads = 1; threads <= 3; threads += 2) {
        kith_job job = job_of(threads);
        float *out = threads == 1 ? symmetric : again;
        cr_assert_eq(kith_quantizer_code_distances(quantizer, codes, FEW, codes, COUNT, &job, out), KITH_OK, "%s",
                     kith_error_message());
    }
    cr_assert_arr_eq(symmetric, again, FEW * COUNT * sizeof *again);
    cr_assert_eq(kith_quantizer_distances(quantizer, &few, codes, COUNT, NULL, again), KITH_OK);
    double worst[2] = {0};
    for (size_t i = 0; i < FEW; i++) {
        float unit[DIM];
        double norm = metric == KITH_COSINE ? sqrt(distance_of(KITH_IP, rows + i * DIM, rows + i * DIM)) : 1;
        for (size_t d = 0; d < DIM; d++) unit[d] = (float)((double)rows[i * DIM + d] / norm);
        for (size_t j = 0; j < COUNT; j++) {
            const float *other = decoded + j * DIM;
            double both = distance_of(metric, decoded + i * DIM, other), one = distance_of(metric, unit, other);
            worst[0] = fmax(worst[0], fabs((double)symmetric[i * COUNT + j] - both));
            worst[1] = fmax(worst[1], fabs((double)again[i * COUNT + j] - one));
        }
    }
    double scale = metric == KITH_COSINE ? 1 : DIM;
    cr_assert_lt(worst[0], tolerance * scale, "%s %d: symmetric off by %g", spec, (int)metric, worst[0]);
    cr_assert_lt(worst[1], tolerance * scale, "%s %d: asymmetric off by %g", spec, (int)metric, worst[1]);
    kith_quantizer_free(quantizer);
    free(codes);
    free(again);
    free(symmetric);
    free(decoded);
    free(rows);
}

Test(quantizer, distances_of_codes) {
    static const struct {
        const char *spec;
        double tolerance;
    } cases[] = {{"Flat", 1e-5},  {"f16", 1e-4},     {"SQ8", 0.01},    {"SQ4_trained", 0.02}, {"PQ6", 1e-3},
                 {"PQ4x9", 1e-3}, {"PQ12x4fs", 0.1}, {"RaBitQ4", 0.1}, {"Line32", 0.1}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int metric = KITH_L2; metric <= KITH_COSINE; metric++)
            check_distances(cases[c].spec, (kith_metric)metric, cases[c].tolerance);
}

Test(quantizer, refuses) {
    kith_quantizer *quantizer = NULL;
    cr_assert_eq(kith_quantizer_create("SQ8", DIM, KITH_L2, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_create(NULL, DIM, KITH_L2, &quantizer), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_create("", DIM, KITH_L2, &quantizer), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_create("SQ8", 0, KITH_L2, &quantizer), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_create("SQ8", KITH_DIM_MAX + 1, KITH_L2, &quantizer), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_create("SQ8", DIM, KITH_HAMMING, &quantizer), KITH_ERR_UNSUPPORTED);
    cr_assert_eq(kith_quantizer_create("SQ8", DIM, (kith_metric)9, &quantizer), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_create("SQ8x", DIM, KITH_L2, &quantizer), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "spec 'SQ8x': character 3"), "%s", kith_error_message());
    cr_assert_eq(kith_quantizer_create("Nothing", DIM, KITH_L2, &quantizer), KITH_ERR_ARGUMENT);
    cr_assert_null(quantizer);
    float *rows = make_rows(1, 0), out[DIM];
    kith_view view = view_of(rows, COUNT), other = view;
    _Alignas(4) unsigned char codes[2 * (DIM + 4)];
    kith_quantizer_error found = {.size = sizeof found};
    quantizer = make("SQ8", KITH_COSINE);
    cr_assert_eq(kith_quantizer_encode(quantizer, &view, NULL, codes), KITH_ERR_NOT_TRAINED);
    cr_assert_eq(kith_quantizer_decode(quantizer, codes, 1, NULL, out), KITH_ERR_NOT_TRAINED);
    cr_assert_eq(kith_quantizer_distances(quantizer, &view, codes, 1, NULL, out), KITH_ERR_NOT_TRAINED);
    cr_assert_eq(kith_quantizer_code_distances(quantizer, codes, 1, codes, 1, NULL, out), KITH_ERR_NOT_TRAINED);
    cr_assert_eq(kith_quantizer_measure(quantizer, &view, NULL, &found), KITH_ERR_NOT_TRAINED);
    other.dim = DIM - 1;
    cr_assert_eq(kith_quantizer_train(quantizer, &other, NULL), KITH_ERR_DIMENSION);
    other = view;
    other.count = 0;
    cr_assert_eq(kith_quantizer_train(quantizer, &other, NULL), KITH_ERR_EMPTY);
    memset(rows + 7 * DIM, 0, DIM * sizeof *rows);
    cr_assert_eq(kith_quantizer_train(quantizer, &view, NULL), KITH_ERR_ZERO_VECTOR);
    rows[7 * DIM] = INFINITY;
    cr_assert_eq(kith_quantizer_train(quantizer, &view, NULL), KITH_ERR_NOT_FINITE);
    cr_assert_not_null(strstr(kith_error_message(), "row 7"), "%s", kith_error_message());
    rows[7 * DIM] = 1;
    kith_job job = job_of(1);
    job.memory_bytes_max = 1000;
    cr_assert_eq(kith_quantizer_train(quantizer, &view, &job), KITH_ERR_BUDGET);
    cr_assert_not(kith_quantizer_is_trained(quantizer));
    cr_assert_eq(kith_quantizer_train(quantizer, &view, NULL), KITH_OK);
    other = view_of(rows, 1);
    cr_assert_eq(kith_quantizer_encode(quantizer, &other, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_encode(quantizer, &other, NULL, codes + 1), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_encode(quantizer, NULL, NULL, codes), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_encode(NULL, &other, NULL, codes), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_decode(quantizer, codes, 1, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_decode(quantizer, codes, 0, NULL, out), KITH_OK);
    cr_assert_eq(kith_quantizer_distances(quantizer, &other, codes, 1, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_distances(quantizer, &other, codes + 1, 1, NULL, out), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_distances(quantizer, &other, codes, 0, NULL, out), KITH_OK);
    cr_assert_eq(kith_quantizer_distances(quantizer, NULL, codes, 1, NULL, out), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_code_distances(quantizer, NULL, 1, codes, 1, NULL, out), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_code_distances(quantizer, codes, 1, codes, 1, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_quantizer_code_distances(quantizer, codes, 0, codes, 1, NULL, out), KITH_OK);
    cr_assert_eq(kith_quantizer_code_distances(quantizer, codes, SIZE_MAX / 2, codes, 4, NULL, out),
                 KITH_ERR_OVERFLOW);
    cr_assert_eq(kith_quantizer_measure(quantizer, &other, NULL, NULL), KITH_ERR_ARGUMENT);
    found.size = 3;
    cr_assert_eq(kith_quantizer_measure(quantizer, &other, NULL, &found), KITH_ERR_ARGUMENT);
    kith_quantizer_free(quantizer);
    free(rows);
}

Test(quantizer, every_allocation_may_fail) {
    memory_faults_install();
    float *rows = make_rows(1, 0), *decoded = malloc(300 * DIM * sizeof *decoded);
    kith_view view = view_of(rows, 300);
    kith_job job = job_of(1);
    kith_status status;
    for (size_t s = 0; s < SPECS; s++) {
        kith_quantizer *quantizer = NULL;
        MEMORY_FAULTS_EACH(status, kith_quantizer_create(specs[s], DIM, KITH_L2, &quantizer))
        cr_assert_null(quantizer);
        MEMORY_FAULTS_EACH(status, kith_quantizer_train(quantizer, &view, &job)) continue;
        unsigned char *codes = malloc(300 * kith_quantizer_code_bytes(quantizer));
        MEMORY_FAULTS_EACH(status, kith_quantizer_encode(quantizer, &view, &job, codes)) continue;
        MEMORY_FAULTS_EACH(status, kith_quantizer_decode(quantizer, codes, 300, &job, decoded)) continue;
        kith_quantizer_error found = {.size = sizeof found};
        MEMORY_FAULTS_EACH(status, kith_quantizer_measure(quantizer, &view, &job, &found))
        cr_assert_eq(found.count, 0);
        free(codes);
        kith_quantizer_free(quantizer);
    }
    free(rows);
    free(decoded);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
