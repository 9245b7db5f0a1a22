/* SPDX-License-Identifier: Apache-2.0
 *
 * bitset.h: bits in 64-bit words.
 */
#ifndef KITH_BASE_BITSET_H
#define KITH_BASE_BITSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline size_t kith_bitset_words(size_t bits) { return bits / 64 + (bits % 64 != 0); }
static inline bool kith_bitset_get(const uint64_t *words, size_t bit) { return words[bit / 64] >> (bit % 64) & 1; }
static inline void kith_bitset_set(uint64_t *words, size_t bit) { words[bit / 64] |= (uint64_t)1 << (bit % 64); }
static inline void kith_bitset_clear(uint64_t *words, size_t bit) {
    words[bit / 64] &= ~((uint64_t)1 << (bit % 64));
}

static inline size_t kith_bitset_count(const uint64_t *words, size_t bits) {
    size_t count = 0;
    for (size_t w = 0; w < bits / 64; w++) count += (size_t)__builtin_popcountll(words[w]);
    if (bits % 64 != 0)
        count += (size_t)__builtin_popcountll(words[bits / 64] & (((uint64_t)1 << (bits % 64)) - 1));
    return count;
}

#endif
