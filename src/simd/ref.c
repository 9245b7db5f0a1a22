/* SPDX-License-Identifier: Apache-2.0
 *
 * ref.c: the reference kernels, plain C. They say what every other table has to compute, bit by bit, and they run
 * where no other table does. Clarity comes before speed here; the order of float sums stands in simd.h.
 */
#include <math.h>
#include <string.h>

#include "simd/isa.h"

enum { PARTIAL_SUMS = 32, QUERY_LANES = 4, ROW_LANES = 8, GROUP = 4 };

/* ---- conversions of one element ---- */

static uint32_t bits_of_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float f32_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float f32_of_bf16(uint16_t bf16) { return f32_of_bits((uint32_t)bf16 << 16); }

float kith_ref_f32_of_f16(uint16_t f16) {
    uint32_t sign = (uint32_t)(f16 & 0x8000) << 16, exponent = (f16 >> 10) & 31, mantissa = f16 & 0x3ff;
    if (exponent == 31) /* infinity, or a NaN, which becomes a quiet one */
        return f32_of_bits(sign | 0x7f800000 | mantissa << 13 | (mantissa != 0 ? 0x400000u : 0));
    if (exponent == 0) return f32_of_bits(sign | bits_of_f32((float)mantissa * 0x1p-24f));
    return f32_of_bits(sign | (exponent + 127 - 15) << 23 | mantissa << 13);
}

static uint16_t bf16_of_f32(float value) {
    uint32_t bits = bits_of_f32(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static uint16_t f16_of_f32(float value) {
    uint32_t bits = bits_of_f32(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (size >> 13 & 0x3ff));
    if (size >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (size < 0x38800000)                                    /* below 2^-14: a multiple of 2^-24 */
        return (uint16_t)(sign | (bits_of_f32(f32_of_bits(size) + 0.5f) - bits_of_f32(0.5f)));
    return (uint16_t)(sign | (((size + 0xfff + (size >> 13 & 1)) >> 13) - ((127 - 15) << 10)));
}

static float from_f32(const void *vector, size_t i) { return ((const float *)vector)[i]; }
static float from_f16(const void *vector, size_t i) { return kith_ref_f32_of_f16(((const uint16_t *)vector)[i]); }
static float from_bf16(const void *vector, size_t i) { return f32_of_bf16(((const uint16_t *)vector)[i]); }
static float from_i8(const void *vector, size_t i) { return ((const int8_t *)vector)[i]; }
static float from_u8(const void *vector, size_t i) { return ((const uint8_t *)vector)[i]; }

/* ---- distances in float ---- */

static float step_l2sq(float sum, float q, float r) {
    float difference = q - r;
    return fmaf(difference, difference, sum);
}
static float step_ip(float sum, float q, float r) { return fmaf(q, r, sum); }

static float fold(float sums[PARTIAL_SUMS]) {
    for (size_t half = PARTIAL_SUMS / 2; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++) sums[j] += sums[j + half];
    return sums[0];
}

#define FLOAT_ONE(NAME, STEP, FROM_Q, FROM_R)                                                                      \
    static float NAME(const void *query, const void *row, size_t dim) {                                            \
        float sums[PARTIAL_SUMS] = {0};                                                                            \
        size_t i = 0;                                                                                              \
        for (; dim - i >= PARTIAL_SUMS; i += PARTIAL_SUMS)                                                         \
            for (size_t j = 0; j < PARTIAL_SUMS; j++)                                                              \
                sums[j] = STEP(sums[j], FROM_Q(query, i + j), FROM_R(row, i + j));                                 \
        for (size_t j = 0; i < dim && j < PARTIAL_SUMS; j++)                                                       \
            sums[j] = i + j < dim ? STEP(sums[j], FROM_Q(query, i + j), FROM_R(row, i + j)) : STEP(sums[j], 0, 0); \
        return fold(sums);                                                                                         \
    }

/* The other two shapes are the first one in a loop. */
#define FOUR_AND_BLOCK(NAME, RESULT)                                                                               \
    static void NAME##_four(const void *query, const void *const rows[4], size_t dim, RESULT out[4]) {             \
        for (size_t r = 0; r < 4; r++) out[r] = NAME(query, rows[r], dim);                                         \
    }                                                                                                              \
    static void NAME##_block(const void *query, const void *rows, size_t stride, size_t count, size_t dim,         \
                             RESULT *out) {                                                                        \
        for (size_t r = 0; r < count; r++) out[r] = NAME(query, (const char *)rows + r * stride, dim);             \
    }

#define FLOAT_KERNELS(PAIR, FROM_Q, FROM_R)                                                                        \
    FLOAT_ONE(l2sq_##PAIR, step_l2sq, FROM_Q, FROM_R)                                                              \
    FOUR_AND_BLOCK(l2sq_##PAIR, float)                                                                             \
    FLOAT_ONE(ip_##PAIR, step_ip, FROM_Q, FROM_R)                                                                  \
    FOUR_AND_BLOCK(ip_##PAIR, float)

FLOAT_KERNELS(f32_f32, from_f32, from_f32)
FLOAT_KERNELS(f32_f16, from_f32, from_f16)
FLOAT_KERNELS(f32_bf16, from_f32, from_bf16)
FLOAT_KERNELS(f32_i8, from_f32, from_i8)
FLOAT_KERNELS(f32_u8, from_f32, from_u8)
FLOAT_KERNELS(f16_f16, from_f16, from_f16)
FLOAT_KERNELS(bf16_bf16, from_bf16, from_bf16)

/* ---- distances in integers ---- */

#define INT_ONE(NAME, TYPE, TERM)                                                                                  \
    static int32_t NAME(const void *query, const void *row, size_t dim) {                                          \
        const TYPE *q = query, *r = row;                                                                           \
        int32_t sum = 0;                                                                                           \
        for (size_t i = 0; i < dim; i++) sum += TERM;                                                              \
        return sum;                                                                                                \
    }                                                                                                              \
    FOUR_AND_BLOCK(NAME, int32_t)

INT_ONE(l2sq_i8_i8, int8_t, (q[i] - r[i]) * (q[i] - r[i]))
INT_ONE(l2sq_u8_u8, uint8_t, (q[i] - r[i]) * (q[i] - r[i]))
INT_ONE(ip_i8_i8, int8_t, q[i] * r[i])
INT_ONE(ip_u8_u8, uint8_t, q[i] * r[i])
INT_ONE(hamming, uint8_t, __builtin_popcount((unsigned)(q[i] ^ r[i])))

/* ---- norms and conversions ---- */

static float norm2_f32(const float *vector, size_t dim) { return ip_f32_f32(vector, vector, dim); }
static float norm2_f16(const uint16_t *vector, size_t dim) { return ip_f16_f16(vector, vector, dim); }
static float norm2_bf16(const uint16_t *vector, size_t dim) { return ip_bf16_bf16(vector, vector, dim); }
static int32_t norm2_i8(const int8_t *vector, size_t dim) { return ip_i8_i8(vector, vector, dim); }
static int32_t norm2_u8(const uint8_t *vector, size_t dim) { return ip_u8_u8(vector, vector, dim); }

#define CONVERT(NAME, IN, OUT, VALUE)                                                                              \
    static void NAME(const IN *in, size_t count, OUT *out) {                                                       \
        for (size_t i = 0; i < count; i++) out[i] = VALUE(in[i]);                                                  \
    }
CONVERT(f32_from_f16, uint16_t, float, kith_ref_f32_of_f16)
CONVERT(f32_from_bf16, uint16_t, float, f32_of_bf16)
CONVERT(f32_from_i8, int8_t, float, )
CONVERT(f32_from_u8, uint8_t, float, )
CONVERT(f16_from_f32, float, uint16_t, f16_of_f32)
CONVERT(bf16_from_f32, float, uint16_t, bf16_of_f32)

/* ---- filters ---- */

#define FILTER(NAME, TYPE, REJECTS)                                                                                \
    static size_t NAME(const TYPE *values, size_t count, TYPE threshold, uint32_t *out) {                          \
        size_t found = 0;                                                                                          \
        for (size_t i = 0; i < count; i++)                                                                         \
            if (!(values[i] REJECTS threshold)) out[found++] = (uint32_t)i;                                        \
        return found;                                                                                              \
    }
FILTER(filter_f32, float, <)
FILTER(filter_i32, int32_t, <)
FILTER(filter_below_f32, float, >)
FILTER(filter_below_i32, int32_t, >)

/* ---- tiles ---- */

static void pack(const uint32_t *const *vectors, size_t count, size_t lanes, size_t words, uint32_t *packed) {
    for (size_t w = 0; w < words; w++)
        for (size_t v = 0; v < lanes; v++) packed[w * lanes + v] = v < count ? vectors[v][w] : 0;
}

static void tile_f32(const float *queries, const float *rows, size_t words, size_t row_panels, const float *bias,
                     float *out, size_t out_stride) {
    for (size_t p = 0; p < row_panels; p++, rows += words * ROW_LANES, bias += ROW_LANES, out += ROW_LANES)
        for (size_t q = 0; q < QUERY_LANES; q++) {
            float sums[ROW_LANES];
            memcpy(sums, bias, sizeof sums);
            for (size_t w = 0; w < words; w++)
                for (size_t r = 0; r < ROW_LANES; r++)
                    sums[r] = fmaf(queries[w * QUERY_LANES + q], rows[w * ROW_LANES + r], sums[r]);
            memcpy(out + q * out_stride, sums, sizeof sums);
        }
}

/* The integer tile multiplies signed query bytes with unsigned row bytes, as VNNI does; see simd.h. The bytes of
 * the other type are shifted by 128, and the term undoes what that adds to the sum. Sums wrap at 32 bits. */
static void prepare_words(const void *vector, size_t dim, unsigned flip, uint32_t *words) {
    uint8_t *bytes = (uint8_t *)words;
    const uint8_t *elements = vector;
    for (size_t i = 0; i < dim; i++) bytes[i] = (uint8_t)(elements[i] ^ flip);
    for (size_t i = dim; i % GROUP != 0; i++) bytes[i] = 0;
}

static int32_t tile_prepare_query(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words) {
    prepare_words(vector, dim, dtype == KITH_U8 ? 0x80 : 0, words);
    if (dtype == KITH_U8) return 0;
    const int8_t *elements = vector;
    int32_t sum = 0;
    for (size_t i = 0; i < dim; i++) sum += elements[i];
    return -128 * sum;
}

static int32_t tile_prepare_row(const void *vector, kith_dtype dtype, size_t dim, uint32_t *words) {
    prepare_words(vector, dim, dtype == KITH_I8 ? 0x80 : 0, words);
    if (dtype == KITH_I8) return 0;
    const uint8_t *elements = vector;
    int32_t sum = 0;
    for (size_t i = 0; i < dim; i++) sum += elements[i];
    return 128 * sum;
}

static uint32_t dot_word(uint32_t query, uint32_t row) {
    int8_t q[GROUP];
    uint8_t r[GROUP];
    memcpy(q, &query, sizeof q);
    memcpy(r, &row, sizeof r);
    return (uint32_t)(q[0] * r[0] + q[1] * r[1] + q[2] * r[2] + q[3] * r[3]);
}

static void tile_i8(const uint32_t *queries, const uint32_t *rows, size_t words, size_t row_panels,
                    const int32_t *bias, int32_t *out, size_t out_stride) {
    for (size_t p = 0; p < row_panels; p++, rows += words * ROW_LANES, bias += ROW_LANES, out += ROW_LANES)
        for (size_t q = 0; q < QUERY_LANES; q++)
            for (size_t r = 0; r < ROW_LANES; r++) {
                uint32_t sum = (uint32_t)bias[r];
                for (size_t w = 0; w < words; w++)
                    sum += dot_word(queries[w * QUERY_LANES + q], rows[w * ROW_LANES + r]);
                out[q * out_stride + r] = (int32_t)sum;
            }
}

/* ---- the table ---- */

void kith_fill_ref(kith_simd_table *table) {
    KITH_FILL_FLOATS(table);
    KITH_FILL_INTS(table);
    table->hamming = (kith_int_kernels)KITH_SHAPES(hamming);
    table->norm2_f32 = norm2_f32;
    table->norm2_f16 = norm2_f16;
    table->norm2_bf16 = norm2_bf16;
    table->norm2_i8 = norm2_i8;
    table->norm2_u8 = norm2_u8;
    table->f32_from_f16 = f32_from_f16;
    table->f32_from_bf16 = f32_from_bf16;
    table->f32_from_i8 = f32_from_i8;
    table->f32_from_u8 = f32_from_u8;
    table->f16_from_f32 = f16_from_f32;
    table->bf16_from_f32 = bf16_from_f32;
    table->filter_f32 = filter_f32;
    table->filter_i32 = filter_i32;
    table->filter_below_f32 = filter_below_f32;
    table->filter_below_i32 = filter_below_i32;
    table->pack = pack;
    table->tile_f32 = (kith_tile_f32){QUERY_LANES, ROW_LANES, tile_f32};
    table->tile_i8 = (kith_tile_i8){QUERY_LANES, ROW_LANES, GROUP, tile_prepare_query, tile_prepare_row, tile_i8};
}
