/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/sort.h"

static int compare(const void *x, const void *y) {
    int64_t a, b;
    memcpy(&a, x, sizeof a);
    memcpy(&b, y, sizeof b);
    return a < b ? -1 : a > b;
}

Test(sort, equals_qsort) {
    static const size_t counts[] = {0, 1, 2, 3, 100, 5000};
    static const uint64_t ranges[] = {1, 2, 256, 70000, (uint64_t)1 << 40, (uint64_t)1 << 63};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
            size_t count = counts[c];
            int64_t *values = malloc((count + 1) * sizeof *values),
                    *expected = malloc((count + 1) * sizeof *values);
            int64_t *scratch = malloc((count + 1) * sizeof *values);
            for (size_t i = 0; i < count; i++) values[i] = (int64_t)kith_random_below(9, c * 10 + r, i, ranges[r]);
            memcpy(expected, values, count * sizeof *values);
            qsort(expected, count, sizeof *expected, compare);
            kith_sort_i64(values, count, scratch);
            cr_assert_eq(memcmp(values, expected, count * sizeof *values), 0, "%zu values below %llu", count,
                         (unsigned long long)ranges[r]);
            free(values);
            free(expected);
            free(scratch);
        }
}

Test(sort, a_few_of_either_sign) {
    enum { MOST = 400 };
    int64_t values[MOST], expected[MOST], scratch[MOST];
    for (size_t count = 0; count <= MOST; count = count < 40 ? count + 1 : count + 45)
        for (uint64_t range = 1; range != 0; range <<= 9) {
            for (size_t i = 0; i < count; i++)
                values[i] = (int64_t)(kith_random_below(11, count, i, range) - range / 2);
            memcpy(expected, values, count * sizeof *values);
            qsort(expected, count, sizeof *expected, compare);
            kith_sort_few_i64(values, count, scratch);
            cr_assert_eq(memcmp(values, expected, count * sizeof *values), 0, "%zu values", count);
        }
}

Test(sort, rising_means_each_larger_than_the_one_before) {
    cr_assert(kith_rises_i64(NULL, 0));
    cr_assert(kith_rises_i64((int64_t[]){5}, 1));
    cr_assert(kith_rises_i64((int64_t[]){-5, 0, 1, INT64_MAX}, 4));
    cr_assert_not(kith_rises_i64((int64_t[]){1, 1}, 2));
    cr_assert_not(kith_rises_i64((int64_t[]){1, 2, 0}, 3));
}

Test(sort, the_lower_bound_is_where_a_value_stands_or_would) {
    int64_t values[50];
    for (int64_t i = 0; i < 50; i++) values[i] = 2 * i;
    for (size_t count = 0; count <= 50; count++)
        for (int64_t value = -1; value <= 101; value++) {
            size_t expected = 0;
            while (expected < count && values[expected] < value) expected++;
            cr_assert_eq(kith_lower_bound_i64(values, count, value), expected);
        }
}
