/* SPDX-License-Identifier: Apache-2.0
 *
 * sort.h: sorting ids and other numbers of 64 bits.
 */
#ifndef KITH_BASE_SORT_H
#define KITH_BASE_SORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sorts `count` values that are not negative, smallest first. `scratch` has room for count. Radix sort on bytes
 * (Knuth, TAOCP 3, 5.2.5): O(count) for every input; a byte in which all values agree costs no pass. */
void kith_sort_i64(int64_t *values, size_t count, int64_t *scratch);

/* The same for a few hundred values of either sign: merge sort, without a branch that depends on them. */
void kith_sort_few_i64(int64_t *values, size_t count, int64_t *scratch);

/* Sorts a few values. The mean of the middle two for an even number of them; count >= 1. */
double kith_median(double *values, size_t count);

/* True when every value is larger than the one before. */
static inline bool kith_rises_i64(const int64_t *values, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (values[i] <= values[i - 1]) return false;
    return true;
}

/* How many of `count` rising values are smaller than `value`: where it stands, or would stand. */
static inline size_t kith_lower_bound_i64(const int64_t *values, size_t count, int64_t value) {
    size_t first = 0;
    while (count > 0) {
        size_t half = count / 2;
        bool right = values[first + half] < value;
        first = right ? first + half + 1 : first;
        count = right ? count - half - 1 : half;
    }
    return first;
}

#endif
