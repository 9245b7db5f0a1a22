/* SPDX-License-Identifier: Apache-2.0
 *
 * Pairs go through double, which holds every type exactly but i64. So that nothing is rounded twice, steps before
 * the last round to odd: the result is cut off and its last bit is set when anything was lost. Rounding that to
 * nearest afterwards is right when the step kept two more bits than the target has (Boldo and Melquiond, "When double
 * rounding is odd", IMACS 2005).
 */
#include "base/elements.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"

enum { BLOCK = 256 };

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float kith_f32_from_f16(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
    if (exponent == 31) return float_of(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) return float_of(sign | bits_of((float)fraction * 0x1p-24f));
    return float_of(sign | (exponent + 112) << 23 | fraction << 13);
}

float kith_f32_from_bf16(uint16_t half) { return float_of((uint32_t)half << 16); }

uint16_t kith_f16_from_f32(float value) {
    uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (size >> 13 & 0x3ffu));
    if (size >= 0x47800000u) return (uint16_t)(sign | 0x7c00u); /* 65536 and more */
    if (size < 0x38800000u) /* below 2^-14: 1/2 has its ulp where these have theirs */
        return (uint16_t)(sign | (bits_of(float_of(size) + 0.5f) - 0x3f000000u));
    size += 0xfffu + (size >> 13 & 1u);
    return (uint16_t)(sign | (size - 0x38000000u) >> 13);
}

uint16_t kith_bf16_from_f32(float value) {
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* Rounded to odd, so that it may be rounded once more. */
static float f32_odd_from_f64(double value) {
    float nearest = (float)value;
    if ((double)nearest == value || isnan(value)) return nearest;
    uint32_t bits = bits_of(nearest);
    if (fabs((double)nearest) > fabs(value)) bits--;
    return float_of(bits | 1u);
}

static double f64_odd_from_i64(int64_t value) {
    uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    double result = size >> 53 == 0 ? (double)size : (double)(size >> 11 | ((size & 2047u) != 0)) * 2048.0;
    return value < 0 ? -result : result;
}

bool kith_convert_exists(kith_dtype from, kith_dtype to) {
    if (kith_dtype_row_bytes(from, 8) == 0 || kith_dtype_row_bytes(to, 8) == 0) return false;
    return (from == KITH_B1) == (to == KITH_B1);
}

#define EACH(expression)                                                                                           \
    for (size_t i = 0; i < count; i++) out[i] = (expression)

void kith_convert_to_f64(kith_dtype from, const void *in, size_t count, double *out) {
    switch (from) {
        case KITH_F32: EACH((double)((const float *)in)[i]); return;
        case KITH_F16: EACH((double)kith_f32_from_f16(((const uint16_t *)in)[i])); return;
        case KITH_BF16: EACH((double)kith_f32_from_bf16(((const uint16_t *)in)[i])); return;
        case KITH_I8: EACH((double)((const int8_t *)in)[i]); return;
        case KITH_U8: EACH((double)((const uint8_t *)in)[i]); return;
        case KITH_F64: EACH(((const double *)in)[i]); return;
        case KITH_I32: EACH((double)((const int32_t *)in)[i]); return;
        case KITH_U32: EACH((double)((const uint32_t *)in)[i]); return;
        case KITH_I64: EACH(f64_odd_from_i64(((const int64_t *)in)[i])); return;
        case KITH_B1: return;
    }
}

double kith_element_f64(kith_dtype dtype, const void *elements, size_t i) {
    double value = 0;
    kith_convert_to_f64(dtype, (const char *)elements + i * kith_dtype_row_bytes(dtype, 1), 1, &value);
    return value;
}

/* One pass that may use SIMD says whether all are good, a second finds the first that is not. */
#define STORE_INTEGERS(type, lowest, above)                                                                        \
    static size_t store_##type(const double *in, size_t count, type *out) {                                        \
        int bad = 0;                                                                                               \
        for (size_t i = 0; i < count; i++)                                                                         \
            bad |= !(in[i] >= (lowest) && in[i] < (above) && in[i] == trunc(in[i]));                               \
        size_t good = count;                                                                                       \
        if (bad)                                                                                                   \
            for (good = 0; in[good] >= (lowest) && in[good] < (above) && in[good] == trunc(in[good]);) good++;     \
        for (size_t i = 0; i < good; i++) out[i] = (type)in[i];                                                    \
        return good;                                                                                               \
    }
STORE_INTEGERS(int8_t, -128.0, 128.0)
STORE_INTEGERS(uint8_t, 0.0, 256.0)
STORE_INTEGERS(int32_t, -0x1p31, 0x1p31)
STORE_INTEGERS(uint32_t, 0.0, 0x1p32)
STORE_INTEGERS(int64_t, -0x1p63, 0x1p63)

static size_t store_f32(const double *in, size_t count, float *out) {
    int bad = 0;
    for (size_t i = 0; i < count; i++) {
        out[i] = (float)in[i];
        bad |= fabsf(out[i]) > FLT_MAX && fabs(in[i]) <= DBL_MAX;
    }
    size_t good = count;
    if (bad)
        for (good = 0; !(fabsf(out[good]) > FLT_MAX && fabs(in[good]) <= DBL_MAX);) good++;
    return good;
}

static size_t store_f16(const double *in, size_t count, uint16_t *out) {
    for (size_t i = 0; i < count; i++) {
        out[i] = kith_f16_from_f32(f32_odd_from_f64(in[i]));
        if ((out[i] & 0x7fffu) == 0x7c00u && !isinf(in[i])) return i;
    }
    return count;
}

static size_t store_bf16(const double *in, size_t count, uint16_t *out) {
    for (size_t i = 0; i < count; i++) {
        out[i] = kith_bf16_from_f32(f32_odd_from_f64(in[i]));
        if ((out[i] & 0x7fffu) == 0x7f80u && !isinf(in[i])) return i;
    }
    return count;
}

static size_t store(const double *in, size_t count, kith_dtype to, void *out) {
    switch (to) {
        case KITH_F32: return store_f32(in, count, out);
        case KITH_F16: return store_f16(in, count, out);
        case KITH_BF16: return store_bf16(in, count, out);
        case KITH_I8: return store_int8_t(in, count, out);
        case KITH_U8: return store_uint8_t(in, count, out);
        case KITH_F64: memcpy(out, in, count * sizeof *in); return count;
        case KITH_I32: return store_int32_t(in, count, out);
        case KITH_U32: return store_uint32_t(in, count, out);
        case KITH_I64: return store_int64_t(in, count, out);
        case KITH_B1: return 0;
    }
    return 0;
}

/* What files are asked for most, without the way through double: one exact or once rounded step. */
static bool convert_to_f32(kith_dtype from, const void *in, size_t count, float *out) {
    switch (from) {
        case KITH_F16: EACH(kith_f32_from_f16(((const uint16_t *)in)[i])); return true;
        case KITH_BF16: EACH(kith_f32_from_bf16(((const uint16_t *)in)[i])); return true;
        case KITH_I8: EACH((float)((const int8_t *)in)[i]); return true;
        case KITH_U8: EACH((float)((const uint8_t *)in)[i]); return true;
        case KITH_I32: EACH((float)((const int32_t *)in)[i]); return true;
        case KITH_U32: EACH((float)((const uint32_t *)in)[i]); return true;
        default: return false;
    }
}

size_t kith_convert(kith_dtype from, const void *in, size_t count, kith_dtype to, void *out) {
    if (count == 0) return 0;
    if (from == to) {
        memcpy(out, in, kith_dtype_row_bytes(from, count));
        return count;
    }
    if (from == KITH_I64 && to == KITH_F64) { /* the one pair that double does not stand between */
        for (size_t i = 0; i < count; i++) ((double *)out)[i] = (double)((const int64_t *)in)[i];
        return count;
    }
    if (to == KITH_F32 && convert_to_f32(from, in, count, out)) return count;
    size_t in_bytes = kith_dtype_row_bytes(from, 1), out_bytes = kith_dtype_row_bytes(to, 1);
    for (size_t done = 0; done < count;) {
        double block[BLOCK];
        size_t piece = kith_min_size(BLOCK, count - done);
        kith_convert_to_f64(from, (const char *)in + done * in_bytes, piece, block);
        size_t stored = store(block, piece, to, (char *)out + done * out_bytes);
        done += stored;
        if (stored < piece) return done;
    }
    return count;
}
