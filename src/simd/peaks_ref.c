/* SPDX-License-Identifier: Apache-2.0
 *
 * peaks_ref.c: loops at the machine's limits as far as plain C reaches them: see kith_peak_kernels.
 */
#include <string.h>

#include "simd/isa.h"

enum { SUMS = 32, BYTES = 1024 };

/* What the loops compute goes here, so that it has to be computed. */
static volatile float float_sink;
static volatile int32_t int_sink;

static uint64_t peak_fma_f32(size_t rounds) {
    static volatile float opaque = 0.5f;
    float sums[SUMS] = {0}, factor = opaque, total = 0;
    for (size_t i = 0; i < rounds; i++)
        for (size_t s = 0; s < SUMS; s++) sums[s] = sums[s] * factor + factor;
    for (size_t s = 0; s < SUMS; s++) total += sums[s];
    float_sink = total;
    return (uint64_t)rounds * SUMS;
}

/* One operand changes by a byte a round: no round's sum can stand for another's. */
static uint64_t peak_dot_i8(size_t rounds) {
    uint8_t a[BYTES];
    int8_t b[BYTES];
    for (size_t i = 0; i < BYTES; i++) {
        a[i] = (uint8_t)i;
        b[i] = (int8_t)(i % 127);
    }
    int32_t total = 0;
    for (size_t i = 0; i < rounds; i++) {
        int32_t sum = 0;
        for (size_t k = 0; k < BYTES; k++) sum += a[k] * b[k];
        a[i % BYTES] ^= 1;
        total ^= sum;
    }
    int_sink = total;
    return (uint64_t)rounds * BYTES;
}

static uint64_t peak_read(const void *memory, size_t bytes) {
    const uint8_t *from = memory;
    uint64_t sums[8] = {0}, sum = 0, words[8];
    size_t i = 0;
    for (; bytes - i >= sizeof words; i += sizeof words) {
        memcpy(words, from + i, sizeof words);
        for (size_t s = 0; s < 8; s++) sums[s] += words[s];
    }
    for (size_t s = 0; s < 8; s++) sum += sums[s];
    for (; i < bytes; i++) sum += from[i];
    return sum;
}

void kith_fill_ref_peaks(kith_simd_table *table) {
    table->peaks = (kith_peaks){peak_fma_f32, peak_dot_i8, peak_read};
}
