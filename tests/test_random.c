/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Known answers of philox4x32-10: counter (4 words), key (2), output (4), as the authors of the generator publish
 * them with their reference library Random123 (kat_vectors). */
static const uint32_t known[][10] = {
    {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
    {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
     0x6d5451fd},
    {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
     0x24126ea1},
};

static uint64_t join(uint32_t low, uint32_t high) { return (uint64_t)high << 32 | low; }

Test(random, known_answers) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const uint32_t *k = known[i];
        uint32_t out[4];
        kith_random_block(join(k[4], k[5]), join(k[2], k[3]), join(k[0], k[1]), out);
        for (size_t w = 0; w < 4; w++) cr_assert_eq(out[w], k[6 + w], "vector %zu word %zu: %08x", i, w, out[w]);
    }
}

Test(random, numbers_are_halves_of_blocks) {
    for (uint64_t counter = 0; counter < 100; counter++) {
        uint32_t block[4];
        kith_random_block(3, 4, counter / 2, block);
        size_t w = counter % 2 * 2;
        cr_assert_eq(kith_random_u64(3, 4, counter), join(block[w], block[w + 1]));
    }
}

/* Lemire's product, the slow way: floor(x * bound / 2^64) with x and bound in 32-bit digits. */
static uint64_t high_product(uint64_t x, uint64_t bound) {
    uint64_t a = x >> 32, b = x & 0xffffffff, c = bound >> 32, d = bound & 0xffffffff;
    uint64_t middle = (b * d >> 32) + (a * d & 0xffffffff) + (b * c & 0xffffffff);
    return a * c + (a * d >> 32) + (b * c >> 32) + (middle >> 32);
}

Test(random, below_is_below_and_even) {
    static const uint64_t bounds[] = {1, 2, 3, 10, 1000, 0xffffffff, 0x100000001, (uint64_t)1 << 63, UINT64_MAX};
    for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++)
        for (uint64_t i = 0; i < 2000; i++) {
            uint64_t draw = kith_random_below(9, b, i, bounds[b]);
            cr_assert_lt(draw, bounds[b]);
            cr_assert_eq(draw, high_product(kith_random_u64(9, b, i), bounds[b]));
        }
    size_t seen[10] = {0};
    for (uint64_t i = 0; i < 100000; i++) seen[kith_random_below(1, 2, i, 10)]++;
    for (size_t v = 0; v < 10; v++) cr_assert(seen[v] > 9500 && seen[v] < 10500, "%zu: %zu", v, seen[v]);
}

Test(random, streams_and_seeds_differ) {
    size_t same = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        same += kith_random_u64(1, 0, i) == kith_random_u64(2, 0, i);
        same += kith_random_u64(1, 0, i) == kith_random_u64(1, 1, i);
        same += kith_random_u64(1, 0, i) == kith_random_u64(1, (uint64_t)1 << 32, i);
        same += kith_random_u64(1, 0, i) == kith_random_u64((uint64_t)1 << 32 | 1, 0, i);
    }
    cr_assert_eq(same, 0);
}

Test(random, floats_are_in_their_range_and_have_their_moments) {
    double sum = 0, normal_sum = 0, normal_sum2 = 0, normal_sum4 = 0;
    enum { DRAWS = 200000 };
    for (uint64_t i = 0; i < DRAWS; i++) {
        float u = kith_random_f32(7, 1, i), g = kith_random_normal(7, 2, i);
        cr_assert(u >= 0.0f && u < 1.0f);
        cr_assert(isfinite(g));
        sum += (double)u;
        normal_sum += (double)g;
        normal_sum2 += (double)g * (double)g;
        normal_sum4 += (double)g * (double)g * (double)g * (double)g;
    }
    /* Within five standard errors of the means 1/2, 0, 1 and 3. */
    cr_assert_lt(fabs(sum / DRAWS - 0.5), 5 * 0.2887 / sqrt(DRAWS));
    cr_assert_lt(fabs(normal_sum / DRAWS), 5 / sqrt(DRAWS));
    cr_assert_lt(fabs(normal_sum2 / DRAWS - 1), 5 * 1.415 / sqrt(DRAWS));
    cr_assert_lt(fabs(normal_sum4 / DRAWS - 3), 5 * 9.8 / sqrt(DRAWS));
}

Test(random, any_order_gives_the_same) {
    enum { COUNT = 1000 };
    uint64_t forward[COUNT];
    for (size_t i = 0; i < COUNT; i++) forward[i] = kith_random_u64(11, 12, i);
    for (size_t i = COUNT; i-- > 0;) cr_assert_eq(kith_random_u64(11, 12, i), forward[i]);
}

Test(random, permutations_are_permutations) {
    static const size_t counts[] = {0, 1, 2, 3, 64, 1000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        uint32_t out[1000], again[1000];
        bool seen[1000] = {false};
        memset(out, 0xee, sizeof out);
        kith_random_permutation(3, c, counts[c], out);
        kith_random_permutation(3, c, counts[c], again);
        for (size_t i = 0; i < counts[c]; i++) {
            cr_assert_lt(out[i], counts[c]);
            cr_assert_not(seen[out[i]], "%u twice", out[i]);
            seen[out[i]] = true;
            cr_assert_eq(out[i], again[i]);
        }
        if (counts[c] < 1000) cr_assert_eq(out[counts[c]], 0xeeeeeeee, "writes past its end");
    }
}

Test(random, all_orders_of_four_are_as_frequent) {
    size_t seen[256] = {0}, orders = 0;
    for (uint64_t stream = 0; stream < 24000; stream++) {
        uint32_t p[4];
        kith_random_permutation(1, stream, 4, p);
        seen[p[0] << 6 | p[1] << 4 | p[2] << 2 | p[3]]++;
    }
    for (size_t i = 0; i < 256; i++) {
        if (seen[i] == 0) continue;
        orders++;
        cr_assert(seen[i] > 840 && seen[i] < 1160, "order %zx: %zu times", i, seen[i]); /* 1000 +- 5 sigma */
    }
    cr_assert_eq(orders, 24);
}
