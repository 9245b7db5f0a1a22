/* SPDX-License-Identifier: Apache-2.0
 *
 * tables_template.h: the element-wise kernels of tables.h in the compiler's own vectors, of VECTOR_BYTES bytes:
 * included once by the file of each instruction set, which defines VECTOR_BYTES (16, 32 or 64) and, where the compiler
 * does not do it by itself, FUSED_MULTIPLY_ADD; FLOATS_ONLY, FOUR_ROWS_ONLY, OWN_NIBBLES_FOUR and BYTE_PLANES say what a
 * file takes from here. The width of a vector changes no result.
 */
#include <string.h>

#include "simd/tables.h"

enum { LANES = VECTOR_BYTES / 4, ROW_VECTORS = 32 / LANES };

typedef float f32_vector __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t i32_vector __attribute__((vector_size(VECTOR_BYTES)));
typedef uint8_t u8_vector __attribute__((vector_size(VECTOR_BYTES / 4)));
typedef uint16_t u16_vector __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef float f32_memory __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

#define LOAD_F32(from)         (*(const f32_memory *)(const void *)(from))
#define CHOOSE(where, yes, no) (((where) & (i32_vector)(yes)) | (~(where) & (i32_vector)(no)))
/* A load that spreads: 0 + x would be an addition, as it is not x for -0. */
#define BROADCAST(x) ((x) - (f32_vector){0})
#ifndef FUSED_MULTIPLY_ADD
static inline f32_vector fused_multiply_add(f32_vector a, f32_vector b, f32_vector c) {
    for (size_t l = 0; l < LANES; l++) c[l] = __builtin_fmaf(a[l], b[l], c[l]);
    return c;
}
#define FUSED_MULTIPLY_ADD fused_multiply_add
#endif

#ifndef FLOATS_ONLY
/* ---- Four rows ----------------------------------------------------------------------------------------------- */

static inline float estimate(const kith_lookup *query, uint32_t sum, const unsigned char *addend) {
    float term = __builtin_fmaf((float)sum, query->unit, query->offset), add;
    if (addend == NULL) return query->base + term;
    memcpy(&add, addend, sizeof add);
    return query->base + (add + term);
}

static inline float row_estimate(const kith_lookup *query, const kith_lookup_shape *shape, const unsigned char *row,
                                 uint32_t sum) {
    return estimate(query, sum, shape->row_addend != KITH_NO_ADDEND ? row + shape->row_addend : NULL);
}

#ifndef OWN_NIBBLES_FOUR
/* The entries of the two parts whose numbers are in byte `byte` of a row. */
static inline uint32_t nibble_pair(const uint8_t *tables, size_t byte, unsigned char numbers) {
    const uint8_t *even = tables + byte / 4 * KITH_NIBBLE_WORD_BYTES + byte % 4 * 16;
    return (uint32_t)even[numbers & 15] + even[64 + (numbers >> 4)];
}

static void nibbles_four(const kith_lookup *query, const kith_lookup_shape *shape,
                         const unsigned char *const rows[4], float out[4]) {
    uint32_t sums[4] = {0};
    for (size_t byte = 0; byte < (shape->part_count + 1) / 2; byte++)
        for (size_t r = 0; r < 4; r++) sums[r] += nibble_pair(query->tables, byte, rows[r][byte]);
    for (size_t r = 0; r < 4; r++) out[r] = row_estimate(query, shape, rows[r], sums[r]);
}
#endif

/* The entry of a part: two bytes side by side, or, with BYTE_PLANES, in two tables, the lower bytes first. */
static inline uint32_t byte_entry(const void *tables, size_t part, unsigned char number) {
#ifdef BYTE_PLANES
    const uint8_t *low = (const uint8_t *)tables + part * KITH_BYTE_TABLE_BYTES;
    return low[number] + 256u * low[256 + number];
#else
    return ((const uint16_t *)tables)[part * 256 + number];
#endif
}

static void bytes_four(const kith_lookup *query, const kith_lookup_shape *shape, const unsigned char *const rows[4],
                       float out[4]) {
    uint32_t sums[4] = {0};
    for (size_t p = 0; p < shape->part_count; p++)
        for (size_t r = 0; r < 4; r++) sums[r] += byte_entry(query->tables, p, rows[r][p]);
    for (size_t r = 0; r < 4; r++) out[r] = row_estimate(query, shape, rows[r], sums[r]);
}

#ifdef BYTE_PLANES
static void arrange_bytes(uint16_t *tables, size_t part_count) {
    for (size_t p = 0; p < part_count; p++) {
        uint16_t entries[256];
        memcpy(entries, tables + p * 256, sizeof entries);
        uint8_t *low = (uint8_t *)(tables + p * 256);
        for (size_t i = 0; i < 256; i++) low[i] = (uint8_t)entries[i], low[256 + i] = (uint8_t)(entries[i] >> 8);
    }
}
#endif

#endif

/* ---- Floats -------------------------------------------------------------------------------------------------- */

#ifndef FOUR_ROWS_ONLY
static void extent(float *values, size_t count, float limit, float *least, float *largest) {
    const f32_vector high = (f32_vector){0} + limit, low = -high;
    f32_vector smallest = high, greatest = low;
    for (size_t i = 0; i < count; i += LANES) {
        f32_vector v = LOAD_F32(values + i);
        v = (f32_vector)CHOOSE(v > low, v, low); /* false for a NaN */
        v = (f32_vector)CHOOSE(v < high, v, high);
        *(f32_memory *)(void *)(values + i) = v;
        smallest = (f32_vector)CHOOSE(v < smallest, v, smallest);
        greatest = (f32_vector)CHOOSE(v > greatest, v, greatest);
    }
    *least = smallest[0];
    *largest = greatest[0];
    for (size_t l = 1; l < LANES; l++) {
        if (smallest[l] < *least) *least = smallest[l];
        if (greatest[l] > *largest) *largest = greatest[l];
    }
}

/* Adding 2^23 leaves a number below 2^23 in the lower bits, rounded to nearest even. */
static inline i32_vector rounded(const float *values, float least, float inverse) {
    return (i32_vector)((LOAD_F32(values) - least) * inverse + 0x1p23f) & 0x7fffff;
}

static void affine(const int32_t *sums, const float *addends, size_t count, float unit, float offset, float base,
                   float *out) {
    size_t i = 0;
    for (; count - i >= LANES; i += LANES) {
        i32_vector sum;
        memcpy(&sum, sums + i, sizeof sum);
        f32_vector term =
            FUSED_MULTIPLY_ADD(__builtin_convertvector(sum, f32_vector), BROADCAST(unit), BROADCAST(offset));
        if (addends != NULL) term = LOAD_F32(addends + i) + term;
        *(f32_memory *)(void *)(out + i) = base + term;
    }
    for (; i < count; i++) {
        float term = __builtin_fmaf((float)sums[i], unit, offset);
        out[i] = base + (addends != NULL ? addends[i] + term : term);
    }
}

static void to_u8(const float *values, size_t count, float least, float inverse, uint8_t *out) {
    for (size_t i = 0; i < count; i += LANES) {
        u8_vector bytes = __builtin_convertvector(rounded(values + i, least, inverse), u8_vector);
        memcpy(out + i, &bytes, sizeof bytes);
    }
}

static void to_u16(const float *values, size_t count, float least, float inverse, uint16_t *out) {
    for (size_t i = 0; i < count; i += LANES) {
        u16_vector halves = __builtin_convertvector(rounded(values + i, least, inverse), u16_vector);
        memcpy(out + i, &halves, sizeof halves);
    }
}

/* Several codewords side by side, so that the latency of an addition does not show; rows in parts, so that all
 * sums stay in registers. */
enum {
    TOGETHER = VECTOR_BYTES > 32 ? 4 : 2,
    PART_ROWS = VECTOR_BYTES == 16 ? 16 : 32,
    PART_VECTORS = PART_ROWS / LANES
};

/* The larger of two sums and its place; the first of equals. */
typedef struct candidate {
    f32_vector sum;
    i32_vector at;
} candidate;

static inline candidate better_of(candidate first, candidate second) {
    i32_vector is_more = second.sum > first.sum;
    return (candidate){(f32_vector)CHOOSE(is_more, second.sum, first.sum), CHOOSE(is_more, second.at, first.at)};
}

static inline void nearest_rows(const float *columns, size_t dim, const float *codewords, const float *bias,
                                size_t count, uint32_t *out) {
    candidate best[PART_VECTORS];
    for (size_t p = 0; p < PART_VECTORS; p++) best[p] = (candidate){BROADCAST(-__builtin_inff()), (i32_vector){0}};
    for (size_t c = 0; c < count; c += TOGETHER) {
        candidate found[TOGETHER][PART_VECTORS];
#pragma GCC unroll 4
        for (size_t t = 0; t < TOGETHER; t++)
#pragma GCC unroll 4
            for (size_t p = 0; p < PART_VECTORS; p++)
                found[t][p] = (candidate){BROADCAST(bias[c + t]), (i32_vector){0} + (int32_t)t};
        for (size_t d = 0; d < dim; d++)
#pragma GCC unroll 4
            for (size_t t = 0; t < TOGETHER; t++) {
                f32_vector element = BROADCAST(codewords[(c + t) * dim + d]);
#pragma GCC unroll 4
                for (size_t p = 0; p < PART_VECTORS; p++)
                    found[t][p].sum =
                        FUSED_MULTIPLY_ADD(element, LOAD_F32(columns + d * 32 + p * LANES), found[t][p].sum);
            }
#pragma GCC unroll 4
        for (size_t p = 0; p < PART_VECTORS; p++) {
            candidate winner = better_of(found[0][p], found[1][p]);
            if (TOGETHER == 4)
                winner = better_of(winner, better_of(found[TOGETHER - 2][p], found[TOGETHER - 1][p]));
            winner.at += (int32_t)c;
            best[p] = better_of(best[p], winner);
        }
    }
    for (size_t p = 0; p < PART_VECTORS; p++) memcpy(out + p * LANES, &best[p].at, sizeof best[p].at);
}

static void nearest(const float *columns, size_t dim, const float *codewords, const float *bias, size_t count,
                    uint32_t *out) {
    for (size_t first = 0; first < 32; first += PART_ROWS)
        nearest_rows(columns + first, dim, codewords, bias, count, out + first);
}

#ifndef OWN_CHEAPEST
static size_t cheapest(const float *fixed, const float *along, size_t count, float error, float weight) {
    f32_vector least = BROADCAST(__builtin_inff());
    i32_vector at = {0}, now;
    int32_t numbers[LANES];
    for (int32_t l = 0; l < (int32_t)LANES; l++) numbers[l] = l;
    memcpy(&now, numbers, sizeof now);
    for (size_t i = 0; i < count; i += LANES, now += (int32_t)LANES) {
        f32_vector off = error - LOAD_F32(along + i), cost = LOAD_F32(fixed + i) + weight * (off * off);
        i32_vector is_less = cost < least;
        least = (f32_vector)CHOOSE(is_less, cost, least);
        at = CHOOSE(is_less, now, at);
    }
    size_t best = 0;
    for (size_t l = 1; l < LANES; l++)
        if (least[l] < least[best] || (least[l] == least[best] && at[l] < at[best])) best = l;
    return (size_t)at[best];
}
#endif
#endif
