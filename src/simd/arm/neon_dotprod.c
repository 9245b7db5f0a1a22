/* SPDX-License-Identifier: Apache-2.0
 *
 * neon_dotprod.c: the integer kernels on SDOT and UDOT (Armv8.2 DotProd): four products of bytes added to one sum.
 */
#include "simd/arm/neon.h"

ALWAYS_INLINE uint32x4_t step(enum int_op op, uint32x4_t sums, uint8x16_t query, uint8x16_t row) {
    int8x16_t q = vreinterpretq_s8_u8(query), r = vreinterpretq_s8_u8(row);
    switch (op) {
        case HAMMING: return vdotq_u32(sums, vcntq_u8(veorq_u8(query, row)), vdupq_n_u8(1));
        case IP_I8: return vreinterpretq_u32_s32(vdotq_s32(vreinterpretq_s32_u32(sums), q, r));
        case IP_U8: return vdotq_u32(sums, query, row);
        case L2SQ_I8: query = vreinterpretq_u8_s8(vabdq_s8(q, r)); break;
        case L2SQ_U8: query = vabdq_u8(query, row); break;
    }
    return vdotq_u32(sums, query, query);
}

#include "simd/arm/neon_ints_template.h"

/* ---- tile ---- */

/* Both sides signed. Unsigned elements are lowered by 128, q = q' + 128 and r = r' + 128, so that
 *   sum q r = sum q' r' + 128 sum r' + (128 sum q' + 128^2 dim): the row's term and the query's. */
enum { GROUP = 4 };

/* Writes the words and returns the sum of the signed elements. */
static int32_t prepare_words(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words) {
    const uint8_t *elements = vector;
    const uint8_t flip = dtype == KITH_U8 ? 0x80 : 0;
    int32_t sum = 0;
    for (size_t i = 0; i < dim; i += GROUP) {
        int8_t signs[GROUP] = {0};
        for (size_t k = 0; k < GROUP && i + k < dim; k++) {
            signs[k] = (int8_t)(elements[i + k] ^ flip);
            sum += signs[k];
        }
        memcpy(words + i / GROUP, signs, sizeof signs);
    }
    return sum;
}

static int32_t tile_prepare_query(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words) {
    int32_t sum = prepare_words(vector, dtype, dim, words);
    return dtype == KITH_U8 ? 128 * sum + 128 * 128 * (int32_t)dim : 0;
}

static int32_t tile_prepare_row(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words) {
    int32_t sum = prepare_words(vector, dtype, dim, words);
    return dtype == KITH_U8 ? 128 * sum : 0;
}

#define DOT_QUERY(Q, HALF, LANE)                                                                                   \
    sums[Q][0] = vdotq_laneq_s32(sums[Q][0], row0, query##HALF, LANE);                                             \
    sums[Q][1] = vdotq_laneq_s32(sums[Q][1], row1, query##HALF, LANE);

ALWAYS_INLINE int8x16_t load_words(const uint32_t *words) { return vreinterpretq_s8_u32(vld1q_u32(words)); }

static void tile_i8_panel(const uint32_t *queries, const uint32_t *rows, size_t words, const int32_t *bias,
                          int32_t *out, size_t out_stride) {
    int32x4_t sums[QUERY_LANES][2];
    for (size_t q = 0; q < QUERY_LANES; q++) {
        sums[q][0] = vld1q_s32(bias);
        sums[q][1] = vld1q_s32(bias + 4);
    }
    for (size_t w = 0; w < words; w++, queries += QUERY_LANES, rows += ROW_LANES) {
        int8x16_t row0 = load_words(rows), row1 = load_words(rows + 4);
        int8x16_t query0 = load_words(queries), query1 = load_words(queries + 4);
        DOT_QUERY(0, 0, 0)
        DOT_QUERY(1, 0, 1)
        DOT_QUERY(2, 0, 2)
        DOT_QUERY(3, 0, 3)
        DOT_QUERY(4, 1, 0)
        DOT_QUERY(5, 1, 1)
        DOT_QUERY(6, 1, 2)
        DOT_QUERY(7, 1, 3)
    }
    for (size_t q = 0; q < QUERY_LANES; q++) {
        vst1q_s32(out + q * out_stride, sums[q][0]);
        vst1q_s32(out + q * out_stride + 4, sums[q][1]);
    }
}

static void tile_i8(const uint32_t *queries, const uint32_t *rows, size_t words, size_t row_panels,
                    const int32_t *bias, int32_t *out, size_t out_stride) {
    for (size_t p = 0; p < row_panels; p++)
        tile_i8_panel(queries, rows + p * words * ROW_LANES, words, bias + p * ROW_LANES, out + p * ROW_LANES,
                      out_stride);
}

/* As in neon.c. */
enum { CHAINS = 16 };
#define EACH(DO)                                                                                                   \
    DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)
#define DOT_SUM(N) int32x4_t sum##N = vdupq_n_s32(N);
#define DOT_STEP(N)                                                                                                \
    sum##N = vdotq_s32(sum##N, factor, factor);                                                                    \
    OPAQUE(sum##N);

static uint64_t peak_dot_i8(size_t rounds) {
    const int8x16_t factor = vdupq_n_s8(3);
    EACH(DOT_SUM)
    for (size_t i = 0; i < rounds; i++) {
        EACH(DOT_STEP)
    }
    return (uint64_t)rounds * CHAINS * 16;
}

void kith_fill_neon_dotprod(kith_simd_table *table) {
    fill_ints(table);
    table->tile_i8 = (kith_tile_i8){QUERY_LANES, ROW_LANES, GROUP, tile_prepare_query, tile_prepare_row, tile_i8};
    table->peaks.dot_i8 = peak_dot_i8;
}
