/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/elements.h"
#include "base/random.h"

/* Every half, and back. */
Test(elements, halves_come_back) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f16 = kith_f32_from_f16((uint16_t)h), bf16 = kith_f32_from_bf16((uint16_t)h);
        if (isnan(f16))
            cr_assert(isnan(kith_f32_from_f16(kith_f16_from_f32(f16))));
        else
            cr_assert_eq(kith_f16_from_f32(f16), h);
        if (isnan(bf16))
            cr_assert(isnan(kith_f32_from_bf16(kith_bf16_from_f32(bf16))));
        else
            cr_assert_eq(kith_bf16_from_f32(bf16), h);
    }
}

/* The definition: of the two neighbours the nearer one, of two equally near the one with an even last bit. */
static void check_nearest(double value, uint16_t got, float (*widen)(uint16_t), uint16_t infinity) {
    uint16_t sign = signbit(value) ? 0x8000 : 0, size = got & 0x7fff;
    cr_assert_eq(got & 0x8000, sign, "%a", value);
    double at = fabs(value);
    if (size == infinity) { /* from half an ulp past the largest value on */
        double largest = widen((uint16_t)(infinity - 1));
        double half_ulp = (largest - (double)widen((uint16_t)(infinity - 2))) / 2;
        cr_assert_geq(at, largest + half_ulp, "%a", value);
        return;
    }
    double here = widen(size), error = fabs(at - here);
    if (size > 0) {
        double below = fabs(at - (double)widen((uint16_t)(size - 1)));
        cr_assert(error < below || (error == below && size % 2 == 0), "%a -> %#x", value, got);
    }
    if (size + 1 < infinity) {
        double above = fabs(at - (double)widen((uint16_t)(size + 1)));
        cr_assert(error < above || (error == above && size % 2 == 0), "%a -> %#x", value, got);
    }
}

/* Points between the halves, on the middles, and a hair beside them: where rounding twice would show. */
Test(elements, doubles_are_rounded_once) {
    static const double shifts[] = {0, 0x1p-12, -0x1p-12, 0x1p-30, -0x1p-30, 0.25, -0.25};
    for (uint32_t h = 0; h < 0x7c00; h++)
        for (size_t s = 0; s < sizeof shifts / sizeof *shifts; s++) {
            double low = kith_f32_from_f16((uint16_t)h);
            double high = h == 0x7bff ? 65536 : kith_f32_from_f16((uint16_t)(h + 1));
            double value = (low + high) / 2 + (high - low) * shifts[s];
            uint16_t got = 0;
            size_t stored = kith_convert(KITH_F64, &value, 1, KITH_F16, &got);
            if (value >= 65520)
                cr_assert_eq(stored, 0);
            else
                check_nearest(value, got, kith_f32_from_f16, 0x7c00);
        }
    for (uint32_t h = 0; h < 0x7f7f; h += 7)
        for (size_t s = 0; s < sizeof shifts / sizeof *shifts; s++) {
            double low = kith_f32_from_bf16((uint16_t)h), high = kith_f32_from_bf16((uint16_t)(h + 1));
            double value = -((low + high) / 2 + (high - low) * shifts[s]);
            uint16_t got = 0;
            cr_assert_eq(kith_convert(KITH_F64, &value, 1, KITH_BF16, &got), 1);
            check_nearest(value, got, kith_f32_from_bf16, 0x7f80);
        }
}

Test(elements, floats_are_rounded_to_nearest) {
    for (uint64_t i = 0; i < 2000000; i++) {
        uint32_t bits = (uint32_t)kith_random_u64(1, 2, i);
        float value;
        memcpy(&value, &bits, sizeof value);
        if (isnan(value)) continue;
        check_nearest((double)value, kith_f16_from_f32(value), kith_f32_from_f16, 0x7c00);
        check_nearest((double)value, kith_bf16_from_f32(value), kith_f32_from_bf16, 0x7f80);
    }
}

Test(elements, large_integers_are_rounded_once) {
    static const int64_t values[] = {INT64_MAX,
                                     INT64_MIN,
                                     (1LL << 53) + 1,
                                     -(1LL << 53) - 1,
                                     (1LL << 62) + (1LL << 38),
                                     (1LL << 62) + (1LL << 38) + 1,
                                     (1LL << 62) + (1LL << 38) - 1,
                                     (1LL << 62) + (1LL << 54) + 1,
                                     3,
                                     -3,
                                     0};
    enum { COUNT = sizeof values / sizeof *values };
    float f32[COUNT];
    double f64[COUNT];
    uint16_t bf16[COUNT];
    int64_t i64[COUNT];
    cr_assert_eq(kith_convert(KITH_I64, values, COUNT, KITH_F32, f32), COUNT);
    cr_assert_eq(kith_convert(KITH_I64, values, COUNT, KITH_F64, f64), COUNT);
    cr_assert_eq(kith_convert(KITH_I64, values, COUNT, KITH_BF16, bf16), COUNT);
    cr_assert_eq(kith_convert(KITH_I64, values, COUNT, KITH_I64, i64), COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        cr_assert_eq(f32[i], (float)values[i], "%zu", i);
        cr_assert_eq(f64[i], (double)values[i]);
        cr_assert_eq(i64[i], values[i]);
    }
    /* Just above the middle of two bf16 numbers: via float it would be the middle itself, and go down to even. */
    cr_assert_eq(kith_f32_from_bf16(bf16[7]), 0x1p62f + 0x1p55f);
}

Test(elements, integer_targets_take_what_they_hold_exactly) {
    static const struct {
        kith_dtype to;
        double good[3], bad[3];
    } cases[] = {
        {KITH_U8, {0, 255, 7}, {-1, 256, 0.5}},
        {KITH_I8, {-128, 127, -0.0}, {-129, 128, 1e-9}},
        {KITH_I32, {-2147483648.0, 2147483647.0, 5}, {-2147483649.0, 2147483648.0, NAN}},
        {KITH_U32, {0, 4294967295.0, 5}, {-1, 4294967296.0, INFINITY}},
        {KITH_I64, {-0x1p63, 0x1.fffffffffffffp62, 5}, {-0x1.0000000000001p63, 0x1p63, -INFINITY}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int64_t out[4];
        double back[3];
        cr_assert_eq(kith_convert(KITH_F64, cases[c].good, 3, cases[c].to, out), 3);
        cr_assert_eq(kith_convert(cases[c].to, out, 3, KITH_F64, back), 3);
        for (size_t i = 0; i < 3; i++) {
            cr_assert_eq(back[i], cases[c].good[i]);
            double mixed[3] = {1, 1, cases[c].bad[i]};
            cr_assert_eq(kith_convert(KITH_F64, mixed, 3, cases[c].to, out), 2, "case %zu, %g", c, cases[c].bad[i]);
        }
    }
}

Test(elements, what_would_become_infinite_is_refused) {
    double values[3] = {1, -INFINITY, 1e39};
    uint64_t out[3];
    cr_assert_eq(kith_convert(KITH_F64, values, 3, KITH_F32, out), 2);
    cr_assert_eq(kith_convert(KITH_F64, values, 3, KITH_F16, out), 2);
    cr_assert_eq(kith_convert(KITH_F64, values, 3, KITH_BF16, out), 2);
    float limit = 65520;
    cr_assert_eq(kith_convert(KITH_F32, &limit, 1, KITH_F16, out), 0);
    limit = nextafterf(limit, 0);
    cr_assert_eq(kith_convert(KITH_F32, &limit, 1, KITH_F16, out), 1);
}

/* Every pair, at lengths around the block, with values that all types hold. */
Test(elements, every_pair_there_and_back) {
    static const kith_dtype types[] = {KITH_F32, KITH_F16, KITH_BF16, KITH_I8, KITH_U8,
                                       KITH_F64, KITH_I32, KITH_U32,  KITH_I64};
    static const size_t counts[] = {0, 1, 255, 256, 257, 600};
    double start[600], first[600], second[600], end[600];
    for (size_t i = 0; i < 600; i++) start[i] = (double)(i * 13 % 128);
    for (size_t a = 0; a < 9; a++)
        for (size_t b = 0; b < 9; b++) {
            cr_assert(kith_convert_exists(types[a], types[b]));
            for (size_t c = 0; c < 6; c++) {
                cr_assert_eq(kith_convert(KITH_F64, start, counts[c], types[a], first), counts[c]);
                cr_assert_eq(kith_convert(types[a], first, counts[c], types[b], second), counts[c]);
                cr_assert_eq(kith_convert(types[b], second, counts[c], KITH_F64, end), counts[c]);
                for (size_t i = 0; i < counts[c]; i++) cr_assert_eq(end[i], start[i]);
            }
        }
    cr_assert(kith_convert_exists(KITH_B1, KITH_B1));
    cr_assert_not(kith_convert_exists(KITH_B1, KITH_F32));
    cr_assert_not(kith_convert_exists(KITH_F32, (kith_dtype)0));
    cr_assert_not(kith_convert_exists((kith_dtype)99, KITH_F32));
}
