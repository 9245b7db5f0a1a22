/* SPDX-License-Identifier: Apache-2.0
 *
 * fields_ref.c: the kernels of fields.h in plain C: what those of every instruction set are held against.
 */
#include <math.h>

#include "simd/isa.h"

static inline __attribute__((always_inline)) void block(unsigned width, const int8_t *const *queries,
                                                        size_t query_count, const uint32_t *words,
                                                        size_t word_count, int32_t *out) {
    const uint32_t mask = (1u << width) - 1;
    for (size_t q = 0; q < query_count; q++)
        for (size_t r = 0; r < KITH_BLOCK_ROWS; r++) {
            int32_t sum = 0;
            const int8_t *query = queries[q];
            for (size_t w = 0; w < word_count; w++)
                for (unsigned shift = 0; shift < 8; shift += width)
                    for (unsigned byte = 0; byte < 32; byte += 8)
                        sum += *query++ * (int32_t)(words[w * KITH_BLOCK_ROWS + r] >> (byte + shift) & mask);
            out[q * KITH_BLOCK_ROWS + r] = sum;
        }
}

static inline __attribute__((always_inline)) void four(unsigned width, const int8_t *query,
                                                       const uint32_t *const rows[4], size_t word_count,
                                                       size_t padded, int32_t out[4]) {
    const uint32_t mask = (1u << width) - 1;
    for (size_t r = 0; r < 4; r++) {
        out[r] = 0;
        for (unsigned step = 0; step < 8 / width; step++)
            for (size_t w = 0; w < word_count; w++)
                for (unsigned byte = 0; byte < 4; byte++)
                    out[r] += query[(step * padded + w) * 4 + byte] *
                              (int32_t)(rows[r][w] >> (8 * byte + width * step) & mask);
    }
}

static size_t pad(size_t word_count) { return (word_count + 15) / 16 * 16; }

/* dots: those of the parts, `stride` apart. */
static inline float estimate(const kith_affine *query, size_t parts, const int32_t *dots, size_t stride, float add,
                             float scale) {
    float inner = fmaf((float)dots[(parts - 1) * stride], query->unit, query->offset);
    if (parts == 2) inner = fmaf((float)dots[0], 128 * query->unit, inner);
    return fmaf(query->step, fmaf(scale, inner, add), query->base);
}

#define WIDTH(N)                                                                                                   \
    static void block_##N(const int8_t *const *queries, size_t query_count, const uint32_t *words,                 \
                          size_t word_count, const uint32_t *ahead, int32_t *out) {                                \
        (void)ahead;                                                                                               \
        block(N, queries, query_count, words, word_count, out);                                                    \
    }                                                                                                              \
    static void four_##N(const int8_t *query, const uint32_t *const rows[4], size_t word_count, int32_t out[4]) {  \
        four(N, query, rows, word_count, pad(word_count), out);                                                    \
    }                                                                                                              \
    static void lines_##N(const int8_t *query, const unsigned char *const *rows, size_t count, size_t word_count,  \
                          const kith_affine *affine, float *out) {                                                 \
        for (size_t i = 0; i < count; i += 4) {                                                                    \
            const uint32_t *four_rows[4];                                                                          \
            int32_t dots[4];                                                                                       \
            for (size_t r = 0; r < 4; r++) four_rows[r] = (const uint32_t *)(const void *)rows[i + r];             \
            four(N, query, four_rows, word_count, pad(word_count + 1), dots);                                      \
            for (size_t r = 0; r < 4; r++) {                                                                       \
                uint32_t factors = four_rows[r][word_count];                                                       \
                out[i + r] = estimate(affine, 1, dots + r, 4, kith_ref_f32_of_f16((uint16_t)factors),              \
                                      kith_ref_f32_of_f16((uint16_t)(factors >> 16)));                             \
            }                                                                                                      \
        }                                                                                                          \
    }
WIDTH(1)
WIDTH(2)
WIDTH(4)
WIDTH(8)

static void estimate_block(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                           const float *add, const float *scale, float *out, size_t out_stride) {
    for (size_t q = 0; q < query_count; q++)
        for (size_t r = 0; r < KITH_BLOCK_ROWS; r++)
            out[q * out_stride + r] = estimate(&queries[q], parts, dots + q * parts * KITH_BLOCK_ROWS + r,
                                               KITH_BLOCK_ROWS, add[r], scale[r]);
}

static void estimate_block_f16(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                               const uint16_t *add, const uint16_t *scale, float *out, size_t out_stride) {
    float adds[KITH_BLOCK_ROWS], scales[KITH_BLOCK_ROWS];
    for (size_t r = 0; r < KITH_BLOCK_ROWS; r++) {
        adds[r] = kith_ref_f32_of_f16(add[r]);
        scales[r] = kith_ref_f32_of_f16(scale[r]);
    }
    estimate_block(queries, query_count, parts, dots, adds, scales, out, out_stride);
}

static void estimate_four(const kith_affine *query, size_t parts, const int32_t *dots, const float add[4],
                          const float scale[4], float out[4]) {
    for (size_t r = 0; r < 4; r++) out[r] = estimate(query, parts, dots + r, 4, add[r], scale[r]);
}

static void next_plane(int32_t *sums, const int32_t *dots, unsigned bits, size_t count) {
    for (size_t i = 0; i < count; i++) sums[i] = (int32_t)((uint32_t)sums[i] << bits) + dots[i];
}

static float largest(const float *values, size_t count) {
    float most = 0;
    for (size_t i = 0; i < count; i++)
        if (fabsf(values[i]) > most) most = fabsf(values[i]);
    return most;
}

static int32_t whole(float value, float factor, float limit) {
    float product = value * factor;
    return (int32_t)rintf(product > limit ? limit : product < -limit ? -limit : product);
}

static int32_t to_s8(const float *values, size_t count, float factor, int8_t *out) {
    int32_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        out[i] = (int8_t)whole(values[i], factor, 127);
        sum += out[i];
    }
    return sum;
}

static int32_t to_s15(const float *values, size_t count, float factor, int8_t *high, int8_t *low) {
    int32_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t value = whole(values[i], factor, 127 * 128), top = (value + 64) >> 7;
        high[i] = (int8_t)top;
        low[i] = (int8_t)(value - top * 128);
        sum += value;
    }
    return sum;
}

static bool as_bytes(const float *values, size_t count, int32_t lowest, uint8_t *out) {
    for (size_t i = 0; i < count; i++) {
        if (!(values[i] >= (float)lowest && values[i] <= (float)(lowest + 255))) return false;
        int32_t whole_value = (int32_t)values[i];
        if ((float)whole_value != values[i] || (values[i] == 0 && signbit(values[i]))) return false;
        out[i] = (uint8_t)whole_value;
    }
    return true;
}

void kith_fill_ref_fields(kith_simd_table *table) {
    static const kith_field_kernels fields[KITH_FIELD_WIDTHS] = {
        {block_1, four_1}, {block_2, four_2}, {block_4, four_4}, {block_8, four_8}};
    for (size_t i = 0; i < KITH_FIELD_WIDTHS; i++) table->fields[i] = fields[i];
    table->estimates = (kith_estimate_kernels){.block = estimate_block,
                                               .block_f16 = estimate_block_f16,
                                               .four = estimate_four,
                                               .lines = {lines_1, lines_2, lines_4, lines_8},
                                               .next_plane = next_plane};
    table->rounding = (kith_rounding_kernels){largest, to_s8, to_s15, as_bytes};
}
