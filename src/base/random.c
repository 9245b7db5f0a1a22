/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random.h"

#include <math.h>

void kith_random_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]) {
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0, c1 = (uint32_t)p1, c2 = n2, c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

uint64_t kith_random_u64(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint32_t block[4];
    kith_random_block(seed, stream, counter >> 1, block);
    unsigned half = (unsigned)(counter & 1) * 2;
    return (uint64_t)block[half + 1] << 32 | block[half];
}

/* The upper 64 bits of a * b. */
static uint64_t multiply_high(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
    __extension__ typedef unsigned __int128 u128;
    return (uint64_t)(((u128)a * b) >> 64);
#else
    uint64_t a1 = a >> 32, a0 = (uint32_t)a, b1 = b >> 32, b0 = (uint32_t)b;
    uint64_t middle = a1 * b0 + (a0 * b0 >> 32); /* at most (2^32-1)^2 + 2^32-1: no overflow */
    uint64_t other = a0 * b1 + (uint32_t)middle;
    return a1 * b1 + (middle >> 32) + (other >> 32);
#endif
}

uint64_t kith_random_below(uint64_t seed, uint64_t stream, uint64_t counter, uint64_t bound) {
    return multiply_high(kith_random_u64(seed, stream, counter), bound);
}

float kith_random_f32(uint64_t seed, uint64_t stream, uint64_t counter) {
    return (float)(kith_random_u64(seed, stream, counter) >> 40) * 0x1p-24f;
}

float kith_random_normal(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint64_t bits = kith_random_u64(seed, stream, counter);
    float radius_u = ((float)(bits >> 40) + 0.5f) * 0x1p-24f; /* in (0, 1]: its logarithm is finite */
    float angle_u = (float)(bits & 0xffffff) * 0x1p-24f;
    return sqrtf(-2.0f * logf(radius_u)) * cosf(6.28318530718f * angle_u);
}

void kith_random_permutation(uint64_t seed, uint64_t stream, size_t count, uint32_t *out) {
    for (size_t i = 0; i < count; i++) {
        size_t j = (size_t)kith_random_below(seed, stream, i, i + 1);
        if (j != i) out[i] = out[j]; /* out[i] itself is not initialised yet */
        out[j] = (uint32_t)i;
    }
}
