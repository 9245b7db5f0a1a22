/* SPDX-License-Identifier: Apache-2.0
 *
 * avx2_graph.c: the kernels of graph.h in the way of avx512_graph.c: bits gathered for eight nodes at once, pools four
 * entries at a time. For what AVX2 cannot compress there is a table of orders.
 */
#include <immintrin.h>

#include "simd/graph_offer.h"
#include "simd/isa.h"
#include "simd/unroll.h"

#define INLINE static inline __attribute__((always_inline))
enum { LANES = 4, NODES = 8, SHORT_BLOCKS = 10 };

INLINE __m256i load(const int64_t *pool) { return _mm256_load_si256((const __m256i *)(const void *)pool); }
INLINE void store(int64_t *pool, __m256i entries) { _mm256_store_si256((__m256i *)(void *)pool, entries); }

/* The last entry before the others: next to those of the block below it shows what is moved up from there. */
INLINE __m256i turned(__m256i block) { return _mm256_permute4x64_epi64(block, 0x93); }

/* Puts an entry into its place. Each entry that is larger becomes the larger of the one before it and of the new one: no
 * search, no branch. */
INLINE __m256i insert_at(__m256i here, __m256i here_turned, __m256i below_turned, __m256i wanted) {
    __m256i before = _mm256_blend_epi32(here_turned, below_turned, 0x03);
    __m256i moved = _mm256_blendv_epi8(wanted, before, _mm256_cmpgt_epi64(before, wanted));
    return _mm256_blendv_epi8(here, moved, _mm256_cmpgt_epi64(here, wanted));
}

/* A long pool is left at the block of the new entry. What one insertion has stored the next one loads whole, straight
 * from the store buffer. */
static inline void insert(int64_t *pool, size_t blocks, __m256i wanted) {
    const __m256i least = _mm256_set1_epi64x(INT64_MIN);
    __m256i here = load(pool + (blocks - 1) * LANES), here_turned = turned(here);
    for (size_t b = blocks - 1; b > 0; b--) {
        __m256i below = load(pool + (b - 1) * LANES), below_turned = turned(below);
        store(pool + b * LANES, insert_at(here, here_turned, below_turned, wanted));
        if (_mm256_testz_si256(_mm256_cmpgt_epi64(below, wanted), _mm256_set1_epi64x(-1))) return;
        here = below;
        here_turned = below_turned;
    }
    store(pool, insert_at(here, here_turned, least, wanted));
}

/* How many entries are smaller. */
static inline size_t rank_of(const int64_t *pool, size_t blocks, int64_t entry) {
    const __m256i wanted = _mm256_set1_epi64x(entry);
    size_t b = 0;
    unsigned smaller = 0xf;
    for (; b < blocks && smaller == 0xf; b++)
        smaller =
            (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(wanted, load(pool + b * LANES))));
    return (b - 1) * LANES + (size_t)__builtin_popcount(smaller);
}

INLINE __m256i lanes_below(size_t count) { /* the first `count` of eight; count may be larger */
    __m256i counts = _mm256_set1_epi32(count < NODES ? (int)count : NODES);
    return _mm256_cmpgt_epi32(counts, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE __m256i keys_of(__m256 distances) {
    __m256i bits = _mm256_castps_si256(_mm256_add_ps(distances, _mm256_setzero_ps()));
    return _mm256_xor_si256(bits, _mm256_srli_epi32(_mm256_srai_epi32(bits, 31), 1));
}

/* The keys of `count` of eight distances, and which of them are at most `worst`. */
INLINE unsigned near_of(const float *distances, size_t count, __m256i worst, int32_t *keys) {
    __m256i here = count < NODES ? lanes_below(count) : _mm256_set1_epi32(-1);
    __m256i found = keys_of(count < NODES ? _mm256_maskload_ps(distances, here) : _mm256_loadu_ps(distances));
    _mm256_storeu_si256((__m256i *)(void *)keys, found);
    return (unsigned)_mm256_movemask_ps(
        _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpgt_epi32(found, worst), here)));
}

/* The entries of those of 16 nodes that are no further than `worst`; returns how many. */
static inline size_t take_near(const float *distances, const uint32_t *nodes, size_t count, int64_t worst,
                               int64_t *entries) {
    const __m256i worst_key = _mm256_set1_epi32((int)(worst >> 32));
    int32_t keys[2 * NODES];
    unsigned near = near_of(distances, count, worst_key, keys);
    size_t taken = 0;
    if (count > NODES) near |= near_of(distances + NODES, count - NODES, worst_key, keys + NODES) << NODES;
    for (; near != 0; near &= near - 1) {
        unsigned i = (unsigned)__builtin_ctz(near);
        entries[taken++] = (int64_t)((uint64_t)(uint32_t)keys[i] << 32 | (uint64_t)nodes[i] << 1);
    }
    return taken;
}

/* What a last block has behind the capacity is nothing. */
INLINE __m256i cut(__m256i block, __m256i last) {
    return _mm256_blendv_epi8(_mm256_set1_epi64x(KITH_POOL_NOTHING), block, last);
}

/* Where a block holds an entry, followed or not. */
INLINE __m256i has(__m256i block, __m256i wanted) {
    const __m256i followed = _mm256_set1_epi64x(1);
    return _mm256_cmpeq_epi64(_mm256_or_si256(block, followed), _mm256_or_si256(wanted, followed));
}

/* Short pools stay in registers while entries are put in. */
INLINE void insert_all(int64_t *pool, size_t blocks, __m256i last, const int64_t *entries, size_t taken,
                       bool may_repeat, kith_pool_change *all) {
    kith_pool_change change = *all;
    __m256i held[SHORT_BLOCKS];
    KITH_UNROLL(10)
    for (size_t b = 0; b < blocks; b++) held[b] = load(pool + b * LANES);
    for (size_t e = 0; e < taken; e++) {
        __m256i wanted = _mm256_set1_epi64x(entries[e]);
        if (may_repeat) {
            __m256i found = _mm256_setzero_si256();
            KITH_UNROLL(10)
            for (size_t b = 0; b < blocks; b++) found = _mm256_or_si256(found, has(held[b], wanted));
            if (!_mm256_testz_si256(found, found)) continue;
        }
        __m256i here_turned = turned(held[blocks - 1]);
        KITH_UNROLL(10)
        for (size_t b = blocks; --b > 0;) {
            __m256i below_turned = turned(held[b - 1]);
            held[b] = insert_at(held[b], here_turned, below_turned, wanted);
            here_turned = below_turned;
        }
        held[0] = insert_at(held[0], here_turned, _mm256_set1_epi64x(INT64_MIN), wanted);
        kith_pool_note(&change, entries[e]);
    }
    held[blocks - 1] = cut(held[blocks - 1], last);
    KITH_UNROLL(10)
    for (size_t b = 0; b < blocks; b++) store(pool + b * LANES, held[b]);
    *all = change;
}

INLINE void insert_long(int64_t *pool, size_t blocks, __m256i last, const int64_t *entries, size_t taken,
                        bool may_repeat, kith_pool_change *change) {
    for (size_t e = 0; e < taken; e++) {
        if (may_repeat && kith_pool_has(pool, blocks * LANES, entries[e])) continue;
        insert(pool, blocks, _mm256_set1_epi64x(entries[e]));
        kith_pool_note(change, entries[e]);
    }
    int64_t *end = pool + (blocks - 1) * LANES;
    store(end, cut(load(end), last));
}

/* `blocks` of the pool, of which `last` says what the last one may hold. may_repeat: of graph.h, known where this is called. */
INLINE void insert_taken(int64_t *pool, size_t blocks, __m256i last, const int64_t *entries, size_t taken,
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
        case 9: insert_all(pool, 9, last, entries, taken, may_repeat, change); break;
        case 10: insert_all(pool, 10, last, entries, taken, may_repeat, change); break;
        default: insert_long(pool, blocks, last, entries, taken, may_repeat, change);
    }
}

static void insert_new(int64_t *pool, size_t blocks, __m256i last, const int64_t *entries, size_t taken,
                       kith_pool_change *change) {
    insert_taken(pool, blocks, last, entries, taken, false, change);
}

static void insert_if_new(int64_t *pool, size_t blocks, __m256i last, const int64_t *entries, size_t taken,
                          kith_pool_change *change) {
    insert_taken(pool, blocks, last, entries, taken, true, change);
}

/* Of eight numbers, of which the bits of `kept` say which are to come first: the lane of each, a byte for each place. */
#define BIT(kept, lane)   ((kept) >> (lane)&1)
#define BELOW_4(kept)     (BIT(kept, 0) + BIT(kept, 1) + BIT(kept, 2) + BIT(kept, 3))
#define AT(kept, lane, n) ((uint64_t)(BIT(kept, lane) * (lane)) << 8 * (n))
#define ORDER(kept)                                                                                                \
    (AT(kept, 1, BIT(kept, 0)) | AT(kept, 2, BIT(kept, 0) + BIT(kept, 1)) |                                        \
     AT(kept, 3, BELOW_4(kept) - BIT(kept, 3)) | AT(kept, 4, BELOW_4(kept)) |                                      \
     AT(kept, 5, BELOW_4(kept) + BIT(kept, 4)) | AT(kept, 6, BELOW_4(kept) + BIT(kept, 4) + BIT(kept, 5)) |        \
     AT(kept, 7, BELOW_4(kept) + BIT(kept, 4) + BIT(kept, 5) + BIT(kept, 6)))
#define ORDERS_4(kept)  ORDER(kept), ORDER((kept) + 1), ORDER((kept) + 2), ORDER((kept) + 3)
#define ORDERS_16(kept) ORDERS_4(kept), ORDERS_4((kept) + 4), ORDERS_4((kept) + 8), ORDERS_4((kept) + 12)
#define ORDERS_64(kept) ORDERS_16(kept), ORDERS_16((kept) + 16), ORDERS_16((kept) + 32), ORDERS_16((kept) + 48)
static const uint64_t orders[1 << NODES] = {ORDERS_64(0), ORDERS_64(64), ORDERS_64(128), ORDERS_64(192)};

INLINE __m256i in_order(__m256i numbers, unsigned kept) {
    __m128i order = _mm_cvtsi64_si128((long long)orders[kept]);
    return _mm256_permutevar8x32_epi32(numbers, _mm256_cvtepu8_epi32(order));
}

/* Up to eight nodes, and which of them are there and below node_count; the compiler keeps what does not change. */
INLINE __m256i load_nodes(const uint32_t *nodes, size_t count, uint32_t node_count, __m256i *here) {
    const __m256i top = _mm256_set1_epi32(INT32_MIN), bound = _mm256_set1_epi32((int)(node_count ^ 0x80000000u));
    __m256i first = lanes_below(count), numbers = _mm256_maskload_epi32((const int *)nodes, first);
    *here = _mm256_and_si256(first, _mm256_cmpgt_epi32(bound, _mm256_xor_si256(numbers, top)));
    return numbers;
}

/* The bit of each node is shifted to the top of its word. Places without a node have all bits set. */
static size_t unseen(const uint32_t *seen, const uint32_t *nodes, size_t count, uint32_t node_count,
                     uint32_t *fresh) {
    const __m256i last_bit = _mm256_set1_epi32(31);
    size_t found = 0;
    for (size_t i = 0; i < count; i += NODES) {
        __m256i here, numbers = load_nodes(nodes + i, count - i, node_count, &here);
        __m256i words = _mm256_mask_i32gather_epi32(_mm256_set1_epi32(-1), (const int *)seen,
                                                    _mm256_srli_epi32(numbers, 5), here, sizeof *seen);
        __m256i bits = _mm256_sllv_epi32(words, _mm256_andnot_si256(numbers, last_bit));
        unsigned kept = ~(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(bits)) & 0xff;
        _mm256_storeu_si256((__m256i *)(void *)(fresh + found), in_order(numbers, kept));
        found += (size_t)__builtin_popcount(kept);
    }
    return found;
}

static size_t forgotten(const uint32_t *table, unsigned bits, const uint32_t *nodes, size_t count,
                        uint32_t node_count, uint32_t *fresh) {
    const __m256i all = _mm256_set1_epi32(-1);
    const __m256i places_mask = _mm256_set1_epi32((int)((1u << bits) - 1));
    const __m128i shift = _mm_cvtsi32_si128((int)bits);
    size_t found = 0;
    for (size_t i = 0; i < count; i += NODES) {
        __m256i here, numbers = load_nodes(nodes + i, count - i, node_count, &here);
        __m256i places = _mm256_and_si256(_mm256_xor_si256(numbers, _mm256_srl_epi32(numbers, shift)), places_mask);
        __m256i held = _mm256_mask_i32gather_epi32(all, (const int *)table, places, here, sizeof *table);
        __m256i known = _mm256_cmpeq_epi32(_mm256_xor_si256(held, all), numbers);
        unsigned kept = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_andnot_si256(known, here)));
        _mm256_storeu_si256((__m256i *)(void *)(fresh + found), in_order(numbers, kept));
        found += (size_t)__builtin_popcount(kept);
    }
    return found;
}

static size_t offer(int64_t *pool, size_t count, size_t capacity, const float *distances, const uint32_t *nodes,
                    size_t offered, bool may_repeat, size_t *first) {
    const size_t blocks = (capacity + LANES - 1) / LANES;
    const __m256i last = _mm256_cmpgt_epi64(_mm256_set1_epi64x((int64_t)(capacity - (blocks - 1) * LANES)),
                                            _mm256_setr_epi64x(0, 1, 2, 3));
    kith_pool_change change = {KITH_POOL_NOTHING, count};
    for (size_t i = 0; i < offered; i += 2 * NODES) {
        int64_t entries[2 * NODES];
        size_t taken = take_near(distances + i, nodes + i, offered - i, pool[capacity - 1], entries);
        if (taken > 0 && may_repeat)
            insert_if_new(pool, blocks, last, entries, taken, &change);
        else if (taken > 0)
            insert_new(pool, blocks, last, entries, taken, &change);
    }
    *first = change.nearest == KITH_POOL_NOTHING ? capacity : rank_of(pool, blocks, change.nearest);
    return change.count < capacity ? change.count : capacity;
}

void kith_fill_avx2_graph(kith_simd_table *table) { table->graph = (kith_graph_kernels){unseen, forgotten, offer}; }
