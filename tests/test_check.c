/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "exact/check.h"

enum { ROWS = 3000, DIM = 5 };
static float values[ROWS * DIM];

static kith_view view_of_ones(void) {
    for (size_t i = 0; i < ROWS * DIM; i++) values[i] = 1.0f;
    return (kith_view){values, KITH_F32, ROWS, DIM, 0};
}

static void expect(kith_status got, kith_status want, const char *message) {
    cr_assert_eq(got, want, "%s", kith_status_name(got));
    if (want != KITH_OK) cr_assert_str_eq(kith_error_message(), message);
}

Test(check, fields_of_a_view) {
    kith_view good = view_of_ones(), bad;
    expect(kith_check_view("base", &good), KITH_OK, "");
    bad = good, bad.dtype = KITH_F64;
    expect(kith_check_view("base", &bad), KITH_ERR_TYPE,
           "base: element type f64; an index takes f32, f16, bf16, i8, u8");
    bad = good, bad.dim = 0;
    expect(kith_check_view("base", &bad), KITH_ERR_ARGUMENT, "base: dimension 0 is outside 1..32768");
    bad = good, bad.dim = 32769;
    expect(kith_check_view("base", &bad), KITH_ERR_ARGUMENT, "base: dimension 32769 is outside 1..32768");
    bad = good, bad.count = 0;
    expect(kith_check_view("base", &bad), KITH_ERR_EMPTY, "base: no vectors");
    bad = good, bad.stride = 16;
    expect(kith_check_view("base", &bad), KITH_ERR_ARGUMENT, "base: stride 16 does not suit rows of 20 bytes");
    bad = good, bad.stride = 22;
    expect(kith_check_view("base", &bad), KITH_ERR_ARGUMENT, "base: stride 22 does not suit rows of 20 bytes");
    bad = good, bad.data = NULL;
    expect(kith_check_view("base", &bad), KITH_ERR_ARGUMENT, "base: data is NULL");
    bad = good, bad.data = (const char *)values + 2;
    expect(kith_check_view("base", &bad), KITH_ERR_ARGUMENT, "base: data is not aligned to its 4-byte elements");
    bad = good, bad.count = SIZE_MAX / 19;
    cr_assert_eq(kith_check_view("base", &bad), KITH_ERR_OVERFLOW);
    expect(kith_check_view_dim("query", &good, 6), KITH_ERR_DIMENSION, "query: dimension 5, expected 6");
    expect(kith_check_view_dim("query", &good, 5), KITH_OK, "");
}

/* The message names the first bad row whatever the number of threads, counted from the caller's first row. */
Test(check, elements) {
    static const size_t threads[] = {1, 2, 5};
    for (size_t t = 0; t < 3; t++) {
        kith_view view = view_of_ones();
        expect(kith_check_vectors("base", &view, 0, KITH_COSINE, threads[t]), KITH_OK, "");
        values[2999 * DIM] = NAN;
        expect(kith_check_vectors("base", &view, 100, KITH_L2, threads[t]), KITH_ERR_NOT_FINITE,
               "base: row 3099, column 0 is nan");
        values[1024 * DIM + 4] = -INFINITY;
        expect(kith_check_vectors("base", &view, 0, KITH_L2, threads[t]), KITH_ERR_NOT_FINITE,
               "base: row 1024, column 4 is -inf");
        values[7 * DIM + 1] = 1e19f;
        cr_assert_eq(kith_check_vectors("base", &view, 0, KITH_L2, threads[t]), KITH_ERR_RANGE);
        cr_assert(strstr(kith_error_message(), "base: row 7 has the squared norm ") != NULL);
        memset(values + 3 * DIM, 0, DIM * sizeof *values);
        cr_assert_eq(kith_check_vectors("base", &view, 0, KITH_L2, threads[t]), KITH_ERR_RANGE);
        expect(kith_check_vectors("base", &view, 0, KITH_COSINE, threads[t]), KITH_ERR_ZERO_VECTOR,
               "base: row 3 has the squared norm 0, cosine needs a direction");
    }
}

Test(check, half_and_integer_types) {
    uint16_t halves[2][3] = {{0x3c00, 0, 0}, {0, 0x7c00, 0}}; /* 1; +infinity */
    kith_view view = {halves, KITH_F16, 2, 3, 0};
    expect(kith_check_vectors("base", &view, 0, KITH_IP, 1), KITH_ERR_NOT_FINITE, "base: row 1, column 1 is inf");
    halves[1][1] = 0x7bff;
    expect(kith_check_vectors("base", &view, 0, KITH_COSINE, 1), KITH_OK, "");
    uint16_t brains[2][3] = {{0x3f80, 0, 0}, {0, 0, 0x7f7f}}; /* 1; the largest, whose square is too much */
    view = (kith_view){brains, KITH_BF16, 2, 3, 0};
    cr_assert_eq(kith_check_vectors("base", &view, 0, KITH_L2, 1), KITH_ERR_RANGE);
    uint8_t bytes[2][3] = {{0, 1, 0}, {0, 0, 0}};
    view = (kith_view){bytes, KITH_U8, 2, 3, 0};
    expect(kith_check_vectors("base", &view, 0, KITH_L2, 1), KITH_OK, "");
    expect(kith_check_vectors("base", &view, 0, KITH_COSINE, 1), KITH_ERR_ZERO_VECTOR,
           "base: row 1 has the squared norm 0, cosine needs a direction");
    view.dtype = KITH_I8;
    cr_assert_eq(kith_check_vectors("base", &view, 0, KITH_COSINE, 1), KITH_ERR_ZERO_VECTOR);
}

/* Rows may lie apart; what lies between them is not looked at. */
Test(check, strided_rows) {
    kith_view view = view_of_ones();
    for (size_t i = 0; i < ROWS; i++) values[i * DIM + 3] = NAN;
    view.dim = 3, view.stride = DIM * sizeof(float);
    expect(kith_check_vectors("base", &view, 0, KITH_L2, 2), KITH_OK, "");
}
