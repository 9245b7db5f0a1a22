/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512_graph.c: the kernels of graph.h: bits gathered for sixteen nodes at once, pools eight entries at a time.
 */
#include <immintrin.h>

#include "simd/isa.h"

enum { NODES = 16, LANES = 8 };

static size_t unseen(const uint32_t *seen, const uint32_t *nodes, size_t count, uint32_t node_count,
                     uint32_t *fresh) {
    const __m512i bound = _mm512_set1_epi32((int)node_count), one = _mm512_set1_epi32(1);
    size_t found = 0;
    for (size_t i = 0; i < count; i += NODES) {
        size_t left = count - i;
        __mmask16 here = left < NODES ? (__mmask16)_bzhi_u32(0xffff, (unsigned)left) : 0xffff;
        __m512i numbers = _mm512_maskz_loadu_epi32(here, nodes + i);
        here = _mm512_mask_cmplt_epu32_mask(here, numbers, bound);
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

/* Eight entries at their own place, never across two: what one insertion has stored the next one loads whole, straight
 * from the store buffer. */
static size_t insert(int64_t *pool, size_t count, int64_t entry) {
    const __m512i wanted = _mm512_set1_epi64(entry);
    size_t first = 0;
    for (size_t i = 0; i < count; i += LANES) {
        size_t left = count - i;
        __mmask8 here = left < LANES ? (__mmask8)_bzhi_u32(0xff, (unsigned)left) : 0xff;
        __mmask8 smaller = _mm512_mask_cmplt_epi64_mask(here, _mm512_load_si512(pool + i), wanted);
        first += (size_t)__builtin_popcount(smaller);
        if (smaller != 0xff) break;
    }
    size_t block = count / LANES * LANES, changed = first / LANES * LANES;
    __m512i held = _mm512_load_si512(pool + block);
    for (; block > changed; block -= LANES) {
        __m512i below = _mm512_load_si512(pool + block - LANES);
        _mm512_store_si512(pool + block, _mm512_alignr_epi64(held, below, LANES - 1));
        held = below;
    }
    unsigned lane = (unsigned)(first % LANES);
    __m512i shifted = _mm512_alignr_epi64(held, wanted, LANES - 1);
    __mmask8 kept = (__mmask8)_bzhi_u32(0xff, lane);
    shifted = _mm512_mask_mov_epi64(shifted, (__mmask8)(1u << lane), wanted);
    _mm512_store_si512(pool + block, _mm512_mask_mov_epi64(shifted, kept, held));
    return first;
}

void kith_fill_avx512_graph(kith_simd_table *table) { table->graph = (kith_graph_kernels){unseen, insert}; }
