/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sort.h"

#include <string.h>

enum { RADIX_BITS = 8, RADIX = 1 << RADIX_BITS };

static size_t digit_of(int64_t value, unsigned shift) { return (size_t)((uint64_t)value >> shift) % RADIX; }

void kith_sort_i64(int64_t *values, size_t count, int64_t *scratch) {
    int64_t *from = values, *to = scratch;
    for (unsigned shift = 0; shift < 64; shift += RADIX_BITS) {
        size_t starts[RADIX] = {0};
        for (size_t i = 0; i < count; i++) starts[digit_of(from[i], shift)]++;
        if (count == 0 || starts[digit_of(from[0], shift)] == count) continue;
        size_t sum = 0;
        for (size_t d = 0; d < RADIX; d++) {
            size_t here = starts[d];
            starts[d] = sum;
            sum += here;
        }
        for (size_t i = 0; i < count; i++) to[starts[digit_of(from[i], shift)]++] = from[i];
        int64_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != values) memcpy(values, from, count * sizeof *values);
}

void kith_sort_few_i64(int64_t *values, size_t count, int64_t *scratch) {
    int64_t *from = values, *to = scratch;
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t first = 0; first < count; first += 2 * width) {
            size_t middle = first + width < count ? first + width : count;
            size_t end = first + 2 * width < count ? first + 2 * width : count;
            size_t a = first, b = middle, at = first;
            while (a < middle && b < end) {
                int64_t left = from[a], right = from[b];
                to[at++] = right < left ? right : left;
                size_t step = right < left;
                b += step;
                a += 1 - step;
            }
            memcpy(to + at, from + a, (middle - a) * sizeof *to);
            at += middle - a;
            memcpy(to + at, from + b, (end - b) * sizeof *to);
        }
        int64_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != values) memcpy(values, from, count * sizeof *values);
}

double kith_median(double *values, size_t count) {
    for (size_t i = 1; i < count; i++) {
        double moved = values[i];
        size_t at = i;
        for (; at > 0 && values[at - 1] > moved; at--) values[at] = values[at - 1];
        values[at] = moved;
    }
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}
