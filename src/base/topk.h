/* SPDX-License-Identifier: Apache-2.0
 *
 * topk.h: the k best of a stream of hits, with a threshold that a SIMD filter can test before.
 *
 * A hit is ordered by (key, id), smaller first; the key is an integer: a distance of an integer kernel as it is,
 * a float through kith_key_f32. That makes one total order for every metric and type, ties by lower id included.
 * Hits gather in a buffer of twice k; when it is full, selection keeps the k best and lowers the threshold: O(1) a
 * hit on average, and nothing is touched for values that the threshold rejects.
 */
#ifndef KITH_BASE_TOPK_H
#define KITH_BASE_TOPK_H

#include <stdbool.h>
#include <string.h>

#include "base/memory.h"

typedef struct kith_hit {
    int64_t id;
    int32_t key;
    uint32_t row; /* free for the caller: not part of the order */
} kith_hit;

/* Monotone from finite or infinite floats to int32; -0 counts as +0. NaN must not get here. */
static inline int32_t kith_key_f32(float value) {
    int32_t bits;
    value += 0.0f;
    memcpy(&bits, &value, sizeof bits);
    return bits ^ (int32_t)((uint32_t)(bits >> 31) >> 1);
}

static inline float kith_key_to_f32(int32_t key) {
    int32_t bits = key ^ (int32_t)((uint32_t)(key >> 31) >> 1);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline bool kith_hit_before(const kith_hit *a, const kith_hit *b) {
    return a->key < b->key || (a->key == b->key && a->id < b->id);
}

typedef struct kith_topk {
    kith_hit *hits; /* kith_topk_capacity(k) of them, the caller's */
    size_t k, count, capacity;
    int32_t key_max; /* hits with a larger key cannot be among the k best any more */
} kith_topk;

/* Hits that a selection of k needs room for. k is at most KITH_TOPK_MAX, so that it cannot overflow. */
#define KITH_TOPK_MAX ((size_t)1 << (sizeof(size_t) == 8 ? 40 : 24))
static inline size_t kith_topk_capacity(size_t k) { return 2 * k + 32; }

void kith_topk_init(kith_topk *topk, kith_hit *hits, size_t k);
/* Keeps the k best of the buffer and lowers key_max. */
void kith_topk_shrink(kith_topk *topk);
/* Sorts the buffer; afterwards hits[0..count-1] are the result, nearest first, count <= k. */
void kith_topk_finish(kith_topk *topk);

static inline void kith_topk_push(kith_topk *topk, int32_t key, int64_t id, uint32_t row) {
    if (key > topk->key_max) return;
    topk->hits[topk->count++] = (kith_hit){id, key, row};
    if (topk->count == topk->capacity) kith_topk_shrink(topk);
}

/* Sorts hits by (key, id): O(n log n) at worst, in place, no allocation. */
void kith_hits_sort(kith_hit *hits, size_t count);

#endif
