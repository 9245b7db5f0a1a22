/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_graph.c: the kernels of graph.h: bits gathered for sixteen nodes at once, pools eight entries at a time.
 */
#include <immintrin.h>

#include "simd/graph_offer.h"
#include "simd/isa.h"
#include "simd/unroll.h"

#define INLINE static inline __attribute__((always_inline))
enum { NODES = 16, LANES = 8, SHORT_BLOCKS = 8 };

/* Up to sixteen nodes, and which of them are there and below the bound. */
INLINE __m512i load_nodes(const uint32_t *nodes, size_t count, __m512i bound, __mmask16 *here) {
    __mmask16 first = count < NODES ? (__mmask16)_bzhi_u32(0xffff, (unsigned)count) : 0xffff;
    __m512i numbers = _mm512_maskz_loadu_epi32(first, nodes);
    *here = _mm512_mask_cmplt_epu32_mask(first, numbers, bound);
    return numbers;
}

static size_t unseen(const uint32_t *seen, const uint32_t *nodes, size_t count, uint32_t node_count,
                     uint32_t *fresh) {
    const __m512i bound = _mm512_set1_epi32((int)node_count), one = _mm512_set1_epi32(1);
    size_t found = 0;
    for (size_t i = 0; i < count; i += NODES) {
        __mmask16 here;
        __m512i numbers = load_nodes(nodes + i, count - i, bound, &here);
        __m512i words = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), here, _mm512_srli_epi32(numbers, 5),
                                                    seen, sizeof *seen);
        __m512i bits = _mm512_sllv_epi32(one, _mm512_and_si512(numbers, _mm512_set1_epi32(31)));
        here = _mm512_mask_testn_epi32_mask(here, words, bits);
        /* Compressed in a register first: compressing stores are slow on some processors. */
        _mm512_storeu_si512(fresh + found, _mm512_maskz_compress_epi32(here, numbers));
        found += (size_t)__builtin_popcount(here);
    }
    return found;
}

static size_t forgotten(const uint32_t *table, unsigned bits, const uint32_t *nodes, size_t count,
                        uint32_t node_count, uint32_t *fresh) {
    const __m512i bound = _mm512_set1_epi32((int)node_count), all = _mm512_set1_epi32(-1);
    const __m512i places_mask = _mm512_set1_epi32((int)((1u << bits) - 1));
    const __m128i shift = _mm_cvtsi32_si128((int)bits);
    size_t found = 0;
    for (size_t i = 0; i < count; i += NODES) {
        __mmask16 here;
        __m512i numbers = load_nodes(nodes + i, count - i, bound, &here);
        __m512i places = _mm512_and_si512(_mm512_xor_si512(numbers, _mm512_srl_epi32(numbers, shift)), places_mask);
        __m512i held = _mm512_mask_i32gather_epi32(all, here, places, table, sizeof *table);
        here = _mm512_mask_cmpneq_epu32_mask(here, _mm512_xor_si512(held, all), numbers);
        _mm512_storeu_si512(fresh + found, _mm512_maskz_compress_epi32(here, numbers));
        found += (size_t)__builtin_popcount(here);
    }
    return found;
}

/* Puts an entry into its place. Each entry becomes the smaller of itself and of the larger of the one before it and the
 * new one: no search, no branch, and eight entries always at their own place. */
INLINE __m512i insert_at(__m512i here, __m512i below, __m512i wanted) {
    __m512i moved = _mm512_max_epi64(_mm512_alignr_epi64(here, below, LANES - 1), wanted);
    return _mm512_min_epi64(here, moved);
}

/* A long pool is left at the block of the new entry. What one insertion has stored the next one loads whole, straight
 * from the store buffer. */
static inline void insert(int64_t *pool, size_t blocks, __m512i wanted) {
    __m512i here = _mm512_load_si512(pool + (blocks - 1) * LANES);
    for (size_t b = blocks - 1; b > 0; b--) {
        __m512i below = _mm512_load_si512(pool + (b - 1) * LANES);
        _mm512_store_si512(pool + b * LANES, insert_at(here, below, wanted));
        if (_mm512_cmplt_epi64_mask(below, wanted) == 0xff) return;
        here = below;
    }
    _mm512_store_si512(pool, insert_at(here, _mm512_set1_epi64(INT64_MIN), wanted));
}

/* How many entries are smaller. */
static inline size_t rank_of(const int64_t *pool, size_t blocks, int64_t entry) {
    size_t rank = 0;
    for (size_t b = 0; b < blocks; b++) {
        __mmask8 smaller = _mm512_cmplt_epi64_mask(_mm512_load_si512(pool + b * LANES), _mm512_set1_epi64(entry));
        rank += (size_t)__builtin_popcount(smaller);
        if (blocks > SHORT_BLOCKS && smaller != 0xff) break;
    }
    return rank;
}

static inline __m512i keys_of(__m512 distances) {
    __m512i bits = _mm512_castps_si512(_mm512_add_ps(distances, _mm512_setzero_ps()));
    return _mm512_xor_si512(bits, _mm512_srli_epi32(_mm512_srai_epi32(bits, 31), 1));
}

static inline __m512i entries_of(__m256i keys, __m256i nodes) {
    __m512i upper = _mm512_slli_epi64(_mm512_cvtepu32_epi64(keys), 32);
    return _mm512_or_si512(upper, _mm512_slli_epi64(_mm512_cvtepu32_epi64(nodes), 1));
}

/* The entries of those of 16 nodes that are no further than `worst`; returns how many. */
static inline size_t take_near(const float *distances, const uint32_t *nodes, size_t count, int64_t worst,
                               int64_t *entries) {
    __mmask16 here = count < NODES ? (__mmask16)_bzhi_u32(0xffff, (unsigned)count) : 0xffff;
    __m512i keys = keys_of(_mm512_maskz_loadu_ps(here, distances));
    __mmask16 near = _mm512_mask_cmple_epi32_mask(here, keys, _mm512_set1_epi32((int)(worst >> 32)));
    keys = _mm512_maskz_compress_epi32(near, keys);
    __m512i numbers = _mm512_maskz_compress_epi32(near, _mm512_maskz_loadu_epi32(here, nodes));
    _mm512_store_si512(entries, entries_of(_mm512_castsi512_si256(keys), _mm512_castsi512_si256(numbers)));
    _mm512_store_si512(entries + LANES,
                       entries_of(_mm512_extracti64x4_epi64(keys, 1), _mm512_extracti64x4_epi64(numbers, 1)));
    return (size_t)__builtin_popcount(near);
}

/* Does a block hold an entry, followed or not? */
INLINE __mmask8 has(__m512i block, __m512i wanted) {
    const __m512i followed = _mm512_set1_epi64(1);
    return _mm512_cmpeq_epi64_mask(_mm512_or_si512(block, followed), _mm512_or_si512(wanted, followed));
}

/* Short pools stay in registers while entries are put in. */
INLINE void insert_all(int64_t *pool, size_t blocks, __mmask8 last, const int64_t *entries, size_t taken,
                       bool may_repeat, kith_pool_change *all) {
    kith_pool_change change = *all;
    __m512i held[SHORT_BLOCKS];
    KITH_UNROLL(8)
    for (size_t b = 0; b < blocks; b++) held[b] = _mm512_load_si512(pool + b * LANES);
    for (size_t e = 0; e < taken; e++) {
        __m512i wanted = _mm512_set1_epi64(entries[e]);
        if (may_repeat) {
            __mmask8 found = 0;
            KITH_UNROLL(8)
            for (size_t b = 0; b < blocks; b++) found |= has(held[b], wanted);
            if (found != 0) continue;
        }
        KITH_UNROLL(8)
        for (size_t b = blocks; --b > 0;) held[b] = insert_at(held[b], held[b - 1], wanted);
        held[0] = insert_at(held[0], _mm512_set1_epi64(INT64_MIN), wanted);
        kith_pool_note(&change, entries[e]);
    }
    held[blocks - 1] = _mm512_mask_mov_epi64(_mm512_set1_epi64(KITH_POOL_NOTHING), last, held[blocks - 1]);
    KITH_UNROLL(8)
    for (size_t b = 0; b < blocks; b++) _mm512_store_si512(pool + b * LANES, held[b]);
    *all = change;
}

INLINE void insert_long(int64_t *pool, size_t blocks, __mmask8 last, const int64_t *entries, size_t taken,
                        bool may_repeat, kith_pool_change *change) {
    for (size_t e = 0; e < taken; e++) {
        if (may_repeat && kith_pool_has(pool, blocks * LANES, entries[e])) continue;
        insert(pool, blocks, _mm512_set1_epi64(entries[e]));
        kith_pool_note(change, entries[e]);
    }
    int64_t *end = pool + (blocks - 1) * LANES;
    _mm512_store_si512(end,
                       _mm512_mask_mov_epi64(_mm512_set1_epi64(KITH_POOL_NOTHING), last, _mm512_load_si512(end)));
}

/* `blocks` of the pool, of which `last` says what the last one may hold. may_repeat: of graph.h, known where this is called. */
INLINE void insert_taken(int64_t *pool, size_t blocks, __mmask8 last, const int64_t *entries, size_t taken,
                         bool may_repeat, kith_pool_change *change) {
    switch (blocks) {
        case 1: insert_all(pool, 1, last, entries, taken, may_repeat, change); break;
        case 2: insert_all(pool, 2, last, entries, taken, may_repeat, change); break;
        case 3: insert_all(pool, 3, last, entries, taken, may_repeat, change); break;
        case 4: insert_all(pool, 4, last, entries, taken, may_repeat, change); break;
        case 5: insert_all(pool, 5, last, entries, taken, may_repeat, change); break;
        case 6: insert_all(pool, 6, last, entries, taken, may_repeat, change); break;
        case 7: insert_all(pool, 7, last, entries, taken, may_repeat, change); break;
        case 8: insert_all(pool, 8, last, entries, taken, may_repeat, change); break;
        default: insert_long(pool, blocks, last, entries, taken, may_repeat, change);
    }
}

static void insert_new(int64_t *pool, size_t blocks, __mmask8 last, const int64_t *entries, size_t taken,
                       kith_pool_change *change) {
    insert_taken(pool, blocks, last, entries, taken, false, change);
}

static void insert_if_new(int64_t *pool, size_t blocks, __mmask8 last, const int64_t *entries, size_t taken,
                          kith_pool_change *change) {
    insert_taken(pool, blocks, last, entries, taken, true, change);
}

static size_t offer(int64_t *pool, size_t count, size_t capacity, const float *distances, const uint32_t *nodes,
                    size_t offered, bool may_repeat, size_t *first) {
    const size_t blocks = (capacity + LANES - 1) / LANES;
    const __mmask8 last = (__mmask8)(0xff >> (blocks * LANES - capacity));
    kith_pool_change change = {KITH_POOL_NOTHING, count};
    for (size_t i = 0; i < offered; i += NODES) {
        _Alignas(64) int64_t entries[NODES];
        size_t taken = take_near(distances + i, nodes + i, offered - i, pool[capacity - 1], entries);
        if (taken > 0 && may_repeat)
            insert_if_new(pool, blocks, last, entries, taken, &change);
        else if (taken > 0)
            insert_new(pool, blocks, last, entries, taken, &change);
    }
    *first = change.nearest == KITH_POOL_NOTHING ? capacity : rank_of(pool, blocks, change.nearest);
    return change.count < capacity ? change.count : capacity;
}

void kith_fill_avx512_graph(kith_simd_table *table) {
    table->graph = (kith_graph_kernels){unseen, forgotten, offer};
}
