/* SPDX-License-Identifier: Apache-2.0
 *
 * fields_estimates.h: the estimates and the rounding of fields.h: included once by the files of AVX2 and AVX-512, which
 * define VEC and FVEC (words and floats in a register), LANES (how many), and the operations below.
 */
#include <string.h>

#include "simd/unroll.h"

enum { VECTORS = KITH_BLOCK_ROWS / LANES };

/* ---- estimates ---- */

INLINE FVEC f32_of_dots(const int32_t *dots) { return f32_of_words(load_words(dots)); }

/* The rows of a register for one query. */
INLINE void estimate_some(const kith_affine *query, size_t parts, const int32_t *dots, FVEC add, FVEC scale,
                          float *out) {
    FVEC inner = multiply_add(f32_of_dots(dots + (parts - 1) * KITH_BLOCK_ROWS), set_f32(query->unit),
                              set_f32(query->offset));
    if (parts == 2) inner = multiply_add(f32_of_dots(dots), set_f32(128 * query->unit), inner);
    FVEC in_steps = multiply_add(scale, inner, add);
    store_f32(out, multiply_add(set_f32(query->step), in_steps, set_f32(query->base)));
}

INLINE void estimate_queries(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                             const FVEC add[VECTORS], const FVEC scale[VECTORS], float *out, size_t out_stride) {
    for (size_t q = 0; q < query_count; q++, dots += parts * KITH_BLOCK_ROWS, out += out_stride) {
        KITH_UNROLL(4)
        for (size_t v = 0; v < VECTORS; v++)
            estimate_some(&queries[q], parts, dots + v * LANES, add[v], scale[v], out + v * LANES);
    }
}

INLINE void estimate_all(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                         const FVEC add[VECTORS], const FVEC scale[VECTORS], float *out, size_t out_stride) {
    if (parts == 1)
        estimate_queries(queries, query_count, 1, dots, add, scale, out, out_stride);
    else
        estimate_queries(queries, query_count, 2, dots, add, scale, out, out_stride);
}

static void estimate_block(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                           const float *add, const float *scale, float *out, size_t out_stride) {
    FVEC adds[VECTORS], scales[VECTORS];
    KITH_UNROLL(4)
    for (size_t v = 0; v < VECTORS; v++) {
        adds[v] = load_f32(add + v * LANES);
        scales[v] = load_f32(scale + v * LANES);
    }
    estimate_all(queries, query_count, parts, dots, adds, scales, out, out_stride);
}

static void estimate_block_f16(const kith_affine *queries, size_t query_count, size_t parts, const int32_t *dots,
                               const uint16_t *add, const uint16_t *scale, float *out, size_t out_stride) {
    FVEC adds[VECTORS], scales[VECTORS];
    KITH_UNROLL(4)
    for (size_t v = 0; v < VECTORS; v++) {
        adds[v] = f32_of_f16(add + v * LANES);
        scales[v] = f32_of_f16(scale + v * LANES);
    }
    estimate_all(queries, query_count, parts, dots, adds, scales, out, out_stride);
}

static void next_plane(int32_t *sums, const int32_t *dots, unsigned bits, size_t count) {
    size_t i = 0;
    for (; count - i >= LANES; i += LANES)
        store_words(sums + i, add_32(shift_left_by(load_words(sums + i), bits), load_words(dots + i)));
    for (; i < count; i++) sums[i] = (int32_t)((uint32_t)sums[i] << bits) + dots[i];
}

/* ---- rounding ---- */

static float largest(const float *values, size_t count) {
    FVEC first = set_f32(0), second = first;
    size_t i = 0;
    for (; count - i >= 2 * LANES; i += 2 * LANES) {
        first = max_f32(first, magnitude(load_f32(values + i)));
        second = max_f32(second, magnitude(load_f32(values + i + LANES)));
    }
    for (; i < count; i += LANES) first = max_f32(first, magnitude(load_f32_part(values + i, count - i)));
    return largest_lane(max_f32(first, second));
}

INLINE FVEC load_some(const float *values, size_t count) {
    return count >= LANES ? load_f32(values) : load_f32_part(values, count);
}

INLINE VEC whole(FVEC values, FVEC factor, FVEC limit, FVEC least) {
    return words_of_f32(max_f32(min_f32(multiply_f32(values, factor), limit), least));
}

static int32_t to_s8(const float *values, size_t count, float factor, int8_t *out) {
    VEC sums = set_words(0);
    for (size_t i = 0; i < count; i += LANES) {
        VEC value = whole(load_some(values + i, count - i), set_f32(factor), set_f32(127), set_f32(-127));
        sums = add_32(sums, value);
        store_bytes(out + i, value, count - i);
    }
    return sum_of_lanes(sums);
}

static int32_t to_s15(const float *values, size_t count, float factor, int8_t *high, int8_t *low) {
    enum { LIMIT = 127 * 128 };
    VEC sums = set_words(0);
    for (size_t i = 0; i < count; i += LANES) {
        VEC value = whole(load_some(values + i, count - i), set_f32(factor), set_f32(LIMIT), set_f32(-LIMIT));
        VEC top = shift_right_signed(add_32(value, set_words(64)), 7);
        sums = add_32(sums, value);
        store_bytes(high + i, top, count - i);
        store_bytes(low + i, sub_32(value, shift_left_by(top, 7)), count - i);
    }
    return sum_of_lanes(sums);
}

/* Values as bytes; what comes back has bits where one is no whole number, or none of lowest..lowest + 255. */
INLINE VEC some_as_bytes(const float *values, size_t count, int32_t lowest, uint8_t *out) {
    FVEC value = load_some(values, count);
    VEC words = words_of_f32(value);
    store_bytes((int8_t *)out, words, count);
    VEC above = and_words(sub_32(words, set_words((uint32_t)lowest)), set_words(0xffffff00));
    return or_words(above, xor_words(bits_of_f32(f32_of_words(words)), bits_of_f32(value)));
}

static bool as_bytes(const float *values, size_t count, int32_t lowest, uint8_t *out) {
    enum { AT_ONCE = 4 };
    size_t i = 0;
    VEC wrong = set_words(0);
    for (; count - i >= AT_ONCE * LANES; i += AT_ONCE * LANES) {
        KITH_UNROLL(4)
        for (size_t v = 0; v < AT_ONCE; v++)
            wrong = or_words(wrong, some_as_bytes(values + i + v * LANES, LANES, lowest, out + i + v * LANES));
        if (has_bits(wrong)) return false;
    }
    for (; i < count; i += LANES) wrong = or_words(wrong, some_as_bytes(values + i, count - i, lowest, out + i));
    return !has_bits(wrong);
}
