/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/random.h"
#include "base/topk.h"

static int compare(const void *a, const void *b) {
    return kith_hit_before(a, b) ? -1 : kith_hit_before(b, a) ? 1 : 0;
}

/* Keys from a small range, so that ties are common and ids have to break them. */
static void check(size_t count, size_t k, uint64_t key_range) {
    kith_hit *all = malloc((count + 1) * sizeof *all), *buffer = malloc(kith_topk_capacity(k) * sizeof *buffer);
    kith_topk topk;
    kith_topk_init(&topk, buffer, k);
    for (size_t i = 0; i < count; i++) {
        int32_t key = (int32_t)kith_random_below(1, count * 31 + k, i, key_range) - 5;
        int64_t id = (int64_t)((i * 7919) % 100003);
        all[i] = (kith_hit){id, key, 0};
        kith_topk_push(&topk, key, id, 0);
    }
    qsort(all, count, sizeof *all, compare);
    kith_topk_finish(&topk);
    cr_assert_eq(topk.count, count < k ? count : k);
    for (size_t i = 0; i < topk.count; i++) {
        cr_assert_eq(topk.hits[i].key, all[i].key, "n %zu k %zu at %zu", count, k, i);
        cr_assert_eq(topk.hits[i].id, all[i].id, "n %zu k %zu at %zu", count, k, i);
    }
    free(all);
    free(buffer);
}

Test(topk, equals_sorting) {
    static const size_t counts[] = {0, 1, 2, 9, 10, 11, 31, 32, 33, 100, 1000, 20000};
    static const size_t ks[] = {1, 2, 10, 33, 100, 1000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
            check(counts[c], ks[i], 7);
            check(counts[c], ks[i], 1u << 30);
        }
}

Test(topk, float_keys_keep_the_order_of_floats) {
    static const float rising[] = {-3e38f, -2.5f, -1e-42f, 0.0f, 1e-42f, 1.0f, 1.0000001f, 3e38f};
    for (size_t i = 0; i < sizeof rising / sizeof *rising; i++) {
        cr_assert_eq(kith_key_to_f32(kith_key_f32(rising[i])), rising[i]);
        if (i > 0) cr_assert_lt(kith_key_f32(rising[i - 1]), kith_key_f32(rising[i]));
    }
    cr_assert_eq(kith_key_f32(-0.0f), kith_key_f32(0.0f));
}

/* Orders that a quicksort dislikes: sorted, reversed, one key, organ pipes. */
Test(topk, sorts_any_order) {
    enum { MOST = 3000 };
    static kith_hit hits[MOST];
    static const size_t counts[] = {0, 1, 2, 15, 16, 17, 18, 64, 1000, MOST};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (int order = 0; order < 5; order++) {
            size_t count = counts[c];
            for (size_t i = 0; i < count; i++) {
                int32_t up = (int32_t)i, down = (int32_t)(count - i);
                int32_t key = order == 0   ? up
                              : order == 1 ? down
                              : order == 2 ? 7
                              : order == 3 ? (up < down ? up : down)
                                           : (int32_t)kith_random_below(5, count, i, 50);
                hits[i] = (kith_hit){(int64_t)((i * 7919) % 100003), key, 0};
            }
            kith_hits_sort(hits, count);
            for (size_t i = 1; i < count; i++)
                cr_assert(kith_hit_before(&hits[i - 1], &hits[i]), "%zu %d", count, order);
        }
}
