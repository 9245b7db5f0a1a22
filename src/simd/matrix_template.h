/* SPDX-License-Identifier: Apache-2.0
 *
 * matrix_template.h: the kernels of matrix.h in the compiler's own vectors, of VECTOR_BYTES bytes: included once by
 * the file of each instruction set, which defines VECTOR_BYTES (16, 32 or 64). The width of a vector changes no
 * result: nothing is added across lanes but in update_dot, whose 32 partial sums do not depend on it either.
 */
#include <string.h>

#include "simd/matrix.h"

enum { F32_LANES = VECTOR_BYTES / 4, F64_LANES = VECTOR_BYTES / 8, STRIP_VECTORS = KITH_STRIP / F64_LANES };

/* The unaligned ones may stand over any float or double. */
typedef float f32_vector __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t i32_vector __attribute__((vector_size(VECTOR_BYTES)));
typedef double f64_vector __attribute__((vector_size(VECTOR_BYTES)));
typedef float f32_memory __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef int32_t i32_memory __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef double f64_memory __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));

#define LOAD_F32(from)         (*(const f32_memory *)(const void *)(from))
#define LOAD_I32(from)         (*(const i32_memory *)(const void *)(from))
#define STORE_F32(to, value)   (*(f32_memory *)(void *)(to) = (value))
#define LOAD_F64(from)         (*(const f64_memory *)(const void *)(from))
#define STORE_F64(to, value)   (*(f64_memory *)(void *)(to) = (value))
#define NEGATE_WHERE(v, signs) ((f32_vector)((i32_vector)(v) ^ (signs)))

#if defined(__clang__)
#define SHUFFLE(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#else
#define SHUFFLE(v, ...) __builtin_shuffle(v, (i32_vector){__VA_ARGS__})
#endif

/* One stage inside a register: lane i gets lane i ^ distance, plus itself or, where i has that bit, minus itself. */
#define STAGE(v, distance, ...)                                                                                    \
    (SHUFFLE(v, __VA_ARGS__) + NEGATE_WHERE(v, ((lane_number & (distance)) != 0) & INT32_MIN))

#if VECTOR_BYTES == 16
#define LANE_NUMBERS 0, 1, 2, 3
#define STAGE_1(v)   STAGE(v, 1, 1, 0, 3, 2)
#define STAGE_2(v)   STAGE(v, 2, 2, 3, 0, 1)
#define STAGE_4(v)   (v)
#define STAGE_8(v)   (v)
#elif VECTOR_BYTES == 32
#define LANE_NUMBERS 0, 1, 2, 3, 4, 5, 6, 7
#define STAGE_1(v)   STAGE(v, 1, 1, 0, 3, 2, 5, 4, 7, 6)
#define STAGE_2(v)   STAGE(v, 2, 2, 3, 0, 1, 6, 7, 4, 5)
#define STAGE_4(v)   STAGE(v, 4, 4, 5, 6, 7, 0, 1, 2, 3)
#define STAGE_8(v)   (v)
#else
#define LANE_NUMBERS 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define STAGE_1(v)   STAGE(v, 1, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
#define STAGE_2(v)   STAGE(v, 2, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
#define STAGE_4(v)   STAGE(v, 4, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)
#define STAGE_8(v)   STAGE(v, 8, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)
#endif

/* A file whose instructions have it as one defines it before. */
#if !defined(FUSED_MULTIPLY_ADD)
static inline f32_vector fused_multiply_add(f32_vector a, f32_vector b, f32_vector c) {
    for (size_t i = 0; i < F32_LANES; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
}
#define FUSED_MULTIPLY_ADD fused_multiply_add
#endif

/* ---- Vectors of f32 ------------------------------------------------------------------------------------------ */

/* Two stages in one pass over memory: distances h and 2h. */
static void hadamard_pair_of_stages(float *vector, size_t count, size_t h) {
    for (size_t first = 0; first < count; first += 4 * h)
        for (float *at = vector + first; at < vector + first + h; at += F32_LANES) {
            f32_vector a = LOAD_F32(at), b = LOAD_F32(at + h), c = LOAD_F32(at + 2 * h), d = LOAD_F32(at + 3 * h);
            f32_vector sum_ab = a + b, sum_cd = c + d, less_ab = a - b, less_cd = c - d;
            STORE_F32(at, sum_ab + sum_cd);
            STORE_F32(at + h, less_ab + less_cd);
            STORE_F32(at + 2 * h, sum_ab - sum_cd);
            STORE_F32(at + 3 * h, less_ab - less_cd);
        }
}

static void hadamard_stage(float *vector, size_t count, size_t h) {
    for (size_t first = 0; first < count; first += 2 * h)
        for (float *at = vector + first; at < vector + first + h; at += F32_LANES) {
            f32_vector a = LOAD_F32(at), b = LOAD_F32(at + h);
            STORE_F32(at, a + b);
            STORE_F32(at + h, a - b);
        }
}

static void hadamard(float *vector, size_t count) {
    const i32_vector lane_number = {LANE_NUMBERS};
    for (float *at = vector; at < vector + count; at += F32_LANES) {
        f32_vector v = LOAD_F32(at);
        v = STAGE_1(v);
        v = STAGE_2(v);
        v = STAGE_4(v);
        v = STAGE_8(v);
        STORE_F32(at, v);
    }
    size_t h = F32_LANES;
    for (; 4 * h <= count; h *= 4) hadamard_pair_of_stages(vector, count, h);
    if (h < count) hadamard_stage(vector, count, h);
}

static void flip(float *vector, const uint32_t *signs, float scale, size_t count) {
    const i32_vector lane_number = {LANE_NUMBERS};
    const i32_vector lane_bit = ((i32_vector){0} + 1) << lane_number;
    for (size_t i = 0; i < count; i += F32_LANES) {
        int32_t bits = (int32_t)(signs[i / 32] >> i % 32);
        i32_vector is_set = ((lane_bit & bits) != 0) & INT32_MIN;
        STORE_F32(vector + i, NEGATE_WHERE(LOAD_F32(vector + i) * scale, is_set));
    }
}

static void butterfly(float *vector, size_t half, float scale) {
    for (size_t i = 0; i < half; i += F32_LANES) {
        f32_vector a = LOAD_F32(vector + i), b = LOAD_F32(vector + half + i);
        STORE_F32(vector + i, (a + b) * scale);
        STORE_F32(vector + half + i, (a - b) * scale);
    }
}

/* So many results are summed side by side that the latency of an addition does not show. */
enum { PANEL_PARTS = 8, PANEL_PART = F32_LANES > 8 ? 16 : 8, PART_VECTORS = PANEL_PART / F32_LANES };

/* `parts` parts of PANEL_PART results each; rows[i] is where the first word of part i stands. */
static inline __attribute__((always_inline)) void
panel_parts(const float *vector, const float *const *rows, size_t words, size_t lanes, size_t parts, float *out) {
    f32_vector sums[PANEL_PARTS * PART_VECTORS] = {0};
    for (size_t w = 0; w < words; w++) {
        f32_vector element = vector[w] - (f32_vector){0}; /* 0 + x would be an addition */
#pragma GCC unroll 8
        for (size_t i = 0; i < parts; i++)
#pragma GCC unroll 4
            for (size_t p = 0; p < PART_VECTORS; p++)
                sums[i * PART_VECTORS + p] = FUSED_MULTIPLY_ADD(
                    element, LOAD_F32(rows[i] + w * lanes + p * F32_LANES), sums[i * PART_VECTORS + p]);
    }
    for (size_t i = 0; i < parts * PART_VECTORS; i++) STORE_F32(out + i * F32_LANES, sums[i]);
}

static void panels_one(const float *vector, const float *rows, size_t words, size_t lanes, size_t row_panels,
                       float *out) {
    size_t parts_each = lanes / PANEL_PART, part_count = row_panels * parts_each;
    const float *starts[PANEL_PARTS];
    for (size_t part = 0; part < part_count;) {
        size_t count = part + PANEL_PARTS <= part_count ? PANEL_PARTS : 1;
        for (size_t i = 0; i < count; i++)
            starts[i] = rows + (part + i) / parts_each * words * lanes + (part + i) % parts_each * PANEL_PART;
        if (count == PANEL_PARTS)
            panel_parts(vector, starts, words, lanes, PANEL_PARTS, out + part * PANEL_PART);
        else
            panel_parts(vector, starts, words, lanes, 1, out + part * PANEL_PART);
        part += count;
    }
}

/* Two runs side by side, so that one comparison need not wait for the one before. */
enum { LARGEST_STEP = 2 * F32_LANES };

#define CHOOSE(where, yes, no) (((where) & (i32_vector)(yes)) | (~(where) & (i32_vector)(no)))

enum { BOUND_COLUMNS = 256, BOUND_ROUNDS = 16 };

static size_t count_up_to(const float *columns, size_t count, float most) {
    i32_vector sums = {0};
    for (size_t i = 0; i < count; i += F32_LANES) sums -= (LOAD_F32(columns + i) <= most);
    int32_t lanes[F32_LANES];
    size_t total = 0;
    memcpy(lanes, &sums, sizeof lanes);
    for (size_t l = 0; l < F32_LANES; l++) total += (size_t)lanes[l];
    return total;
}

/* Column c stands for values c, c + 256, ... by the least of them: k columns up to a value are k values up to it. */
static float bound(const float *values, size_t count, size_t k) {
    float columns[BOUND_COLUMNS], least = __builtin_inff(), most = -__builtin_inff();
    size_t width = count < BOUND_COLUMNS ? count : BOUND_COLUMNS;
    if (k == 0 || k > width) return __builtin_inff();
    size_t padded = (width + F32_LANES - 1) / F32_LANES * F32_LANES, whole = count / BOUND_COLUMNS * BOUND_COLUMNS;
    memcpy(columns, values, width * sizeof *columns);
    for (size_t first = BOUND_COLUMNS; first < whole; first += BOUND_COLUMNS)
        for (size_t i = 0; i < BOUND_COLUMNS; i += F32_LANES) {
            f32_vector a = LOAD_F32(columns + i), b = LOAD_F32(values + first + i);
            STORE_F32(columns + i, (f32_vector)CHOOSE(a < b, a, b));
        }
    for (size_t i = whole > 0 ? whole : width; i < count; i++)
        if (values[i] < columns[i % BOUND_COLUMNS]) columns[i % BOUND_COLUMNS] = values[i];
    for (size_t i = 0; i < width; i++) {
        least = columns[i] < least ? columns[i] : least;
        most = columns[i] > most ? columns[i] : most;
    }
    for (size_t i = width; i < padded; i++) columns[i] = __builtin_inff();
    for (size_t round = 0; round < BOUND_ROUNDS; round++) {
        float middle = least + (most - least) * 0.5f;
        size_t below = count_up_to(columns, padded, middle);
        if (below < k) {
            least = middle;
            continue;
        }
        most = middle;
        if (below <= k + k / 4) break;
    }
    return most;
}

/* ---- The same for the greatest of whole numbers -------------------------------------------------------------- */

enum { GREATEST_COLUMNS = 64, GREATEST_ROUNDS = 12 };

static size_t count_from(const int32_t *columns, int32_t least) {
    typedef int32_t quarter __attribute__((vector_size(16)));
    quarter parts[VECTOR_BYTES / 16], all = {0};
    i32_vector sums = {0};
    for (size_t i = 0; i < GREATEST_COLUMNS; i += F32_LANES) sums -= (LOAD_I32(columns + i) >= least);
    memcpy(parts, &sums, sizeof parts);
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) all += parts[p];
    return (size_t)(all[0] + all[1] + all[2] + all[3]);
}

#if !defined(MAXIMUM_I32)
#define MAXIMUM_I32(a, b) CHOOSE((a) < (b), b, a)
#endif

static int32_t bound_i32(const int32_t *values, size_t count, size_t k) {
    enum { VECTORS = GREATEST_COLUMNS / F32_LANES };
    i32_vector greatest[VECTORS];
    int32_t columns[GREATEST_COLUMNS], least = INT32_MAX, most = INT32_MIN;
    size_t width = count < GREATEST_COLUMNS ? count : GREATEST_COLUMNS, whole = count - count % GREATEST_COLUMNS;
    if (k == 0 || k > width) return INT32_MIN;
    for (size_t p = 0; p < VECTORS; p++) greatest[p] = (i32_vector){0} + INT32_MIN;
    for (size_t first = 0; first < whole; first += GREATEST_COLUMNS)
#pragma GCC unroll 16
        for (size_t p = 0; p < VECTORS; p++) {
            i32_vector value = LOAD_I32(values + first + p * F32_LANES);
            greatest[p] = MAXIMUM_I32(greatest[p], value);
        }
    memcpy(columns, greatest, sizeof columns);
    for (size_t i = whole; i < count; i++)
        if (values[i] > columns[i - whole]) columns[i - whole] = values[i];
    for (size_t i = 0; i < width; i++) {
        least = columns[i] < least ? columns[i] : least;
        most = columns[i] > most ? columns[i] : most;
    }
    for (size_t round = 0; round < GREATEST_ROUNDS && least < most; round++) {
        int32_t middle = (int32_t)(most - (int64_t)(((int64_t)most - least) / 2));
        size_t above = count_from(columns, middle);
        if (above < k) {
            most = middle - 1;
            continue;
        }
        least = middle;
        if (above <= k + k / 4) break;
    }
    return least;
}

static size_t largest(const float *values, size_t count) {
    f32_vector best[2];
    i32_vector at[2], now = {LANE_NUMBERS};
    size_t first = count / LARGEST_STEP * LARGEST_STEP, found = 0;
    float most = count > 0 ? values[0] : 0;
    if (first > 0) {
        for (size_t p = 0; p < 2; p++) best[p] = LOAD_F32(values + p * F32_LANES), at[p] = now;
        for (size_t i = LARGEST_STEP; i < first; i += LARGEST_STEP) {
            now += LARGEST_STEP;
            for (size_t p = 0; p < 2; p++) {
                f32_vector value = LOAD_F32(values + i + p * F32_LANES);
                i32_vector better = value > best[p];
                best[p] = (f32_vector)CHOOSE(better, value, best[p]);
                at[p] = CHOOSE(better, now, at[p]);
            }
        }
        for (size_t p = 0; p < 2; p++)
            for (size_t l = 0; l < F32_LANES; l++) {
                size_t position = (size_t)at[p][l] + p * F32_LANES;
                if (best[p][l] > most || (best[p][l] == most && position < found))
                    most = best[p][l], found = position;
            }
    }
    for (size_t i = first; i < count; i++)
        if (values[i] > most) most = values[i], found = i;
    return found;
}

/* ---- Numbers on a grid --------------------------------------------------------------------------------------- */

#if !defined(MAXIMUM)
#define MAXIMUM(a, b) ((f32_vector)CHOOSE((a) > (b), a, b))
#define MINIMUM(a, b) ((f32_vector)CHOOSE((a) < (b), a, b))
#endif

enum { GRID_VECTORS = KITH_GRID_LANES / F32_LANES };

static inline i32_vector numbers_of(f32_vector v, float inverse, float levels) {
    const f32_vector zero = {0};
    f32_vector place = v * inverse + (levels + 1) / 2;
    place = MINIMUM(MAXIMUM(place, zero), zero + levels);
    return __builtin_convertvector(place, i32_vector); /* towards 0 */
}

static inline float sum_of_lanes(const f32_vector *sums) {
    typedef float quarter __attribute__((vector_size(16)));
    quarter parts[KITH_GRID_LANES / 4];
    memcpy(parts, sums, sizeof parts);
    quarter all = (parts[0] + parts[2]) + (parts[1] + parts[3]);
    return (all[0] + all[2]) + (all[1] + all[3]);
}

static void grid_sums(const float *vector, size_t count, const float inverses[KITH_GRID_STEPS], float levels,
                      float products[KITH_GRID_STEPS], float norms[KITH_GRID_STEPS]) {
    f32_vector product[KITH_GRID_STEPS][GRID_VECTORS] = {0}, norm[KITH_GRID_STEPS][GRID_VECTORS] = {0};
    for (size_t i = 0; i < count; i += KITH_GRID_LANES)
#pragma GCC unroll 4
        for (size_t p = 0; p < GRID_VECTORS; p++) {
            f32_vector v = LOAD_F32(vector + i + p * F32_LANES);
#pragma GCC unroll 4
            for (size_t s = 0; s < KITH_GRID_STEPS; s++) {
                f32_vector x = __builtin_convertvector(numbers_of(v, inverses[s], levels), f32_vector) - levels / 2;
                product[s][p] += x * v;
                norm[s][p] += x * x;
            }
        }
    for (size_t s = 0; s < KITH_GRID_STEPS; s++) {
        products[s] = sum_of_lanes(product[s]);
        norms[s] = sum_of_lanes(norm[s]);
    }
}

static void grid_numbers(const float *vector, size_t count, float inverse, float levels, uint8_t *numbers) {
    for (size_t i = 0; i < count; i += F32_LANES) {
        i32_vector u = numbers_of(LOAD_F32(vector + i), inverse, levels);
        for (size_t l = 0; l < F32_LANES; l++) numbers[i + l] = (uint8_t)u[l];
    }
}

/* ---- Matrices of f64 ----------------------------------------------------------------------------------------- */

static void accumulate(double *sums, const float *values, size_t count) {
    for (size_t i = 0; i < count; i++) sums[i] += (double)values[i];
}

static double update_dot(double *row, double a, const double *x, double b, const double *y, const double *v,
                         size_t count) {
    f64_vector sums[STRIP_VECTORS] = {0};
    for (size_t j = 0; j < count; j += KITH_STRIP)
#pragma GCC unroll 16
        for (size_t p = 0; p < STRIP_VECTORS; p++) {
            size_t at = j + p * F64_LANES;
            f64_vector value = LOAD_F64(row + at) - (a * LOAD_F64(x + at) + b * LOAD_F64(y + at));
            STORE_F64(row + at, value);
            sums[p] += value * LOAD_F64(v + at);
        }
    double partial[KITH_STRIP];
    memcpy(partial, sums, sizeof partial);
    for (size_t half = KITH_STRIP / 2; half > 0; half /= 2)
        for (size_t p = 0; p < half; p++) partial[p] += partial[p + half];
    return partial[0];
}

static void strip_reflect(double *strip, size_t rows, const double *v, double tau) {
    f64_vector sums[STRIP_VECTORS] = {0};
    for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (size_t p = 0; p < STRIP_VECTORS; p++)
            sums[p] += v[r] * LOAD_F64(strip + r * KITH_STRIP + p * F64_LANES);
#pragma GCC unroll 16
    for (size_t p = 0; p < STRIP_VECTORS; p++) sums[p] *= tau;
    for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (size_t p = 0; p < STRIP_VECTORS; p++) {
            double *at = strip + r * KITH_STRIP + p * F64_LANES;
            STORE_F64(at, LOAD_F64(at) - v[r] * sums[p]);
        }
}

static void strip_rotate(double *strip, const double *c, const double *s, size_t count) {
    f64_vector lower[STRIP_VECTORS]; /* row i + 1 as it stands */
    double *at = strip + count * KITH_STRIP;
    for (size_t p = 0; p < STRIP_VECTORS; p++) lower[p] = LOAD_F64(at + p * F64_LANES);
    for (size_t i = count; i-- > 0; at -= KITH_STRIP) {
        double cosine = c[i], sine = s[i];
#pragma GCC unroll 16
        for (size_t p = 0; p < STRIP_VECTORS; p++) {
            f64_vector upper = LOAD_F64(at - KITH_STRIP + p * F64_LANES);
            STORE_F64(at + p * F64_LANES, sine * upper + cosine * lower[p]);
            lower[p] = cosine * upper - sine * lower[p];
        }
    }
    for (size_t p = 0; p < STRIP_VECTORS; p++) STORE_F64(at + p * F64_LANES, lower[p]);
}

static void strip_multiply_row(const double *a, size_t depth, const double *strip, double *out) {
    f64_vector sums[STRIP_VECTORS] = {0};
    for (size_t k = 0; k < depth; k++)
#pragma GCC unroll 16
        for (size_t p = 0; p < STRIP_VECTORS; p++)
            sums[p] += a[k] * LOAD_F64(strip + k * KITH_STRIP + p * F64_LANES);
    for (size_t p = 0; p < STRIP_VECTORS; p++) STORE_F64(out + p * F64_LANES, sums[p]);
}

static void strip_multiply(const double *a, size_t stride, size_t rows, size_t depth, const double *strip,
                           double *out) {
    for (size_t r = 0; r < rows; r++) strip_multiply_row(a + r * stride, depth, strip, out + r * KITH_STRIP);
}

static const kith_matrix_kernels matrix_kernels = {
    hadamard,  flip,         butterfly,  panels_one, largest,       bound,        bound_i32,
    grid_sums, grid_numbers, accumulate, update_dot, strip_reflect, strip_rotate, strip_multiply};
