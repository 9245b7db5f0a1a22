/* SPDX-License-Identifier: Apache-2.0
 *
 * avx2_graph.c: insertion into a pool. Instead of a search with its branches all entries are compared.
 */
#include <immintrin.h>

#include "simd/graph_offer.h"
#include "simd/isa.h"

enum { LANES = 4 };

static size_t insert(int64_t *pool, size_t count, int64_t entry) {
    const __m256i wanted = _mm256_set1_epi64x(entry);
    size_t first = 0, i = 0;
    for (; i + LANES <= count; i += LANES) {
        __m256i smaller = _mm256_cmpgt_epi64(wanted, _mm256_loadu_si256((const __m256i *)(const void *)(pool + i)));
        unsigned mask = (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(smaller));
        first += (size_t)_mm_popcnt_u32(mask);
        if (mask != 0xf) break;
    }
    if (first == i)
        while (first < count && pool[first] < entry) first++;
    size_t end = count;
    for (; end >= first + LANES; end -= LANES) {
        __m256i moved = _mm256_loadu_si256((const __m256i *)(const void *)(pool + end - LANES));
        _mm256_storeu_si256((__m256i *)(void *)(pool + end - LANES + 1), moved);
    }
    for (; end > first; end--) pool[end] = pool[end - 1];
    pool[first] = entry;
    return first;
}

static size_t offer(int64_t *pool, size_t count, size_t capacity, const float *distances, const uint32_t *nodes,
                    size_t offered, size_t *first) {
    return kith_offer_by(insert, pool, count, capacity, distances, nodes, offered, first);
}

void kith_fill_avx2_graph(kith_simd_table *table) { table->graph.offer = offer; }
