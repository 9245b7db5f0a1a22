/* SPDX-License-Identifier: Apache-2.0 */
#include "kith/types.h"

#include <criterion/criterion.h>
#include <string.h>

Test(types, every_type_and_metric_has_a_name_that_parses) {
    for (int number = KITH_F32; number <= KITH_I64; number++) {
        kith_dtype out;
        cr_assert_eq(kith_dtype_parse(kith_dtype_name((kith_dtype)number), &out), KITH_OK);
        cr_assert_eq((int)out, number);
    }
    for (int number = KITH_L2; number <= KITH_HAMMING; number++) {
        kith_metric out;
        cr_assert_eq(kith_metric_parse(kith_metric_name((kith_metric)number), &out), KITH_OK);
        cr_assert_eq((int)out, number);
    }
    static const int unknown[] = {0, -1, 11, 1000};
    for (size_t i = 0; i < 4; i++) {
        cr_assert_str_eq(kith_dtype_name((kith_dtype)unknown[i]), "?");
        cr_assert_str_eq(kith_metric_name((kith_metric)unknown[i]), "?");
        cr_assert_eq(kith_dtype_row_bytes((kith_dtype)unknown[i], 8), 0);
    }
}

Test(types, unknown_names_are_refused_with_the_known_ones) {
    static const char *const bad[] = {"", "?", "F32", "f32 ", "float", "hammin", "l22"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kith_dtype dtype;
        kith_metric metric;
        cr_assert_eq(kith_dtype_parse(bad[i], &dtype), KITH_ERR_NOT_FOUND);
        cr_assert(strstr(kith_error_message(), "bf16") != NULL);
        cr_assert_eq(kith_metric_parse(bad[i], &metric), KITH_ERR_NOT_FOUND);
        cr_assert(strstr(kith_error_message(), "cosine") != NULL);
    }
}

Test(types, rows_have_their_bytes) {
    cr_assert_eq(kith_dtype_row_bytes(KITH_F32, 784), 3136);
    cr_assert_eq(kith_dtype_row_bytes(KITH_F16, 3), 6);
    cr_assert_eq(kith_dtype_row_bytes(KITH_BF16, 3), 6);
    cr_assert_eq(kith_dtype_row_bytes(KITH_I8, 3), 3);
    cr_assert_eq(kith_dtype_row_bytes(KITH_U8, 0), 0);
    cr_assert_eq(kith_dtype_row_bytes(KITH_I64, KITH_DIM_MAX), (size_t)8 * KITH_DIM_MAX);
    cr_assert_eq(kith_dtype_row_bytes(KITH_B1, 8), 1);
    cr_assert_eq(kith_dtype_row_bytes(KITH_B1, 9), 2);
}

Test(types, similarities) {
    cr_assert(kith_metric_is_similarity(KITH_IP) && kith_metric_is_similarity(KITH_COSINE));
    cr_assert_not(kith_metric_is_similarity(KITH_L2) || kith_metric_is_similarity(KITH_HAMMING));
}
