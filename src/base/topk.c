/* SPDX-License-Identifier: Apache-2.0 */
#include "base/topk.h"

enum { COPIED_MAX = 256 }; /* hits that are split through a copy on the stack */

static void swap_hits(kith_hit *a, kith_hit *b) {
    kith_hit t = *a;
    *a = *b;
    *b = t;
}

static void insertion_sort(kith_hit *hits, size_t count) {
    for (size_t i = 1; i < count; i++) {
        kith_hit moved = hits[i];
        size_t at = i;
        for (; at > 0 && kith_hit_before(&moved, &hits[at - 1]); at--) hits[at] = hits[at - 1];
        hits[at] = moved;
    }
}

/* Restores the heap (latest hit on top) below `root` after its value changed. */
static void sift_down(kith_hit *hits, size_t root, size_t count) {
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && kith_hit_before(&hits[child], &hits[child + 1])) child++;
        if (!kith_hit_before(&hits[root], &hits[child])) return;
        swap_hits(&hits[root], &hits[child]);
    }
}

static void heap_sort(kith_hit *hits, size_t count) {
    for (size_t root = count / 2; root-- > 0;) sift_down(hits, root, count);
    for (size_t last = count; last-- > 1;) {
        swap_hits(&hits[0], &hits[last]);
        sift_down(hits, 0, last);
    }
}

/* Splits around the first hit: what comes before it to the front, it, the others. There is no branch in the loops:
 * which way a hit goes cannot be foretold. */
static size_t split_in_place(kith_hit *hits, size_t count) {
    const kith_hit pivot = hits[0];
    size_t border = 1;
    for (size_t i = 1; i < count; i++) {
        kith_hit moved = hits[i];
        hits[i] = hits[border];
        hits[border] = moved;
        border += (size_t)((moved.key < pivot.key) | ((moved.key == pivot.key) & (moved.id < pivot.id)));
    }
    border--;
    swap_hits(&hits[0], &hits[border]);
    return border;
}

/* The same through a copy of the later part: no load waits for the store of the round before. */
static size_t split_through_copy(kith_hit *hits, size_t count) {
    kith_hit later[COPIED_MAX];
    const kith_hit pivot = hits[0];
    size_t border = 0, above = 0;
    for (size_t i = 1; i < count; i++) {
        kith_hit moved = hits[i];
        size_t before = (size_t)((moved.key < pivot.key) | ((moved.key == pivot.key) & (moved.id < pivot.id)));
        hits[border] = moved;
        later[above] = moved;
        border += before;
        above += 1 - before;
    }
    hits[border] = pivot;
    memcpy(hits + border + 1, later, above * sizeof *hits);
    return border;
}

/* Moves a median of three to the front and splits around it. */
static size_t split_around_median(kith_hit *hits, size_t count) {
    kith_hit *middle = &hits[count / 2], *last = &hits[count - 1];
    if (kith_hit_before(middle, hits)) swap_hits(middle, hits);
    if (kith_hit_before(last, hits)) swap_hits(last, hits);
    if (kith_hit_before(last, middle)) swap_hits(last, middle);
    swap_hits(hits, middle);
    return count <= COPIED_MAX ? split_through_copy(hits, count) : split_in_place(hits, count);
}

/* Quicksort on the smaller part first, so that the stack stays small, with heapsort when the splits go badly (Musser,
 * "Introspective Sorting and Selection Algorithms", 1997). */
static void sort_range(kith_hit *hits, size_t count, int splits_left) {
    while (count > 16) {
        if (splits_left-- == 0) {
            heap_sort(hits, count);
            return;
        }
        size_t border = split_around_median(hits, count), above = count - border - 1;
        if (border < above) {
            sort_range(hits, border, splits_left);
            hits += border + 1;
            count = above;
        } else {
            sort_range(hits + border + 1, above, splits_left);
            count = border;
        }
    }
    insertion_sort(hits, count);
}

void kith_hits_sort(kith_hit *hits, size_t count) { sort_range(hits, count, 64); }

/* Brings the k smallest to the front: Hoare's selection, with heapsort when the splits go badly. */
static void select_first(kith_hit *hits, size_t count, size_t k) {
    for (int splits_left = 64; count > 16; splits_left--) {
        if (splits_left == 0) {
            heap_sort(hits, count);
            return;
        }
        size_t border = split_around_median(hits, count);
        if (border == k || border + 1 == k) return;
        if (border > k) {
            count = border;
        } else {
            hits += border + 1;
            count -= border + 1;
            k -= border + 1;
        }
    }
    insertion_sort(hits, count);
}

void kith_topk_init(kith_topk *topk, kith_hit *hits, size_t k) {
    *topk = (kith_topk){.hits = hits, .k = k, .capacity = kith_topk_capacity(k), .key_max = INT32_MAX};
}

void kith_topk_shrink(kith_topk *topk) {
    if (topk->count < topk->k) return;
    if (topk->count > topk->k) select_first(topk->hits, topk->count, topk->k);
    topk->count = topk->k;
    int32_t key_max = INT32_MIN;
    for (size_t i = 0; i < topk->k; i++)
        if (topk->hits[i].key > key_max) key_max = topk->hits[i].key;
    topk->key_max = key_max;
}

void kith_topk_finish(kith_topk *topk) {
    kith_topk_shrink(topk);
    kith_hits_sort(topk->hits, topk->count);
}
