/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "simd/simd.h"

/* Every instruction set of this machine, held against loops as plain as they can be: the same bits. */
static const char *const names[] = {"ref", "avx2", "avx512", "neon"};
#define EACH_TABLE(table)                                                                                          \
    for (size_t n_ = 0; n_ < sizeof names / sizeof *names; n_++)                                                   \
        for (const kith_simd_table *table = kith_simd_find(names[n_]); table != NULL; table = NULL)

static float *random_floats(uint64_t stream, size_t count) {
    float *out = malloc(count * sizeof *out);
    for (size_t i = 0; i < count; i++) out[i] = kith_random_normal(3, stream, i);
    return out;
}

static double *random_doubles(uint64_t stream, size_t count) {
    double *out = malloc(count * sizeof *out);
    for (size_t i = 0; i < count; i++) out[i] = (double)kith_random_normal(4, stream, i);
    return out;
}

static void *copy_of(const void *from, size_t bytes) { return memcpy(malloc(bytes), from, bytes); }

Test(matrix_kernels, hadamard_is_its_definition_and_the_same_on_every_isa) {
    for (size_t count = 64; count <= 4096; count *= 2) {
        float *in = random_floats(1, count), *want = copy_of(in, count * 4);
        for (size_t h = 1; h < count; h *= 2)
            for (size_t i = 0; i < count; i++)
                if ((i & h) == 0) {
                    float a = want[i], b = want[i + h];
                    want[i] = a + b;
                    want[i + h] = a - b;
                }
        for (size_t i = 0; i < count; i += count / 16) {
            double sum = 0, size = 0;
            for (size_t j = 0; j < count; j++) {
                sum += (__builtin_popcountll(i & j) & 1) != 0 ? -(double)in[j] : (double)in[j];
                size += fabs((double)in[j]);
            }
            cr_assert_lt(fabs(sum - (double)want[i]), 1e-6 * size);
        }
        EACH_TABLE(table) {
            float *got = copy_of(in, count * 4);
            table->matrix.hadamard(got, count);
            cr_assert_arr_eq(got, want, count * 4, "%s, %zu", table->name, count);
            free(got);
        }
        free(in);
        free(want);
    }
}

Test(matrix_kernels, flip_and_butterfly) {
    enum { COUNT = 192 };
    float *in = random_floats(2, COUNT), flipped[COUNT], mixed[COUNT];
    uint32_t signs[COUNT / 32];
    for (size_t i = 0; i < COUNT / 32; i++) signs[i] = (uint32_t)kith_random_u64(9, 9, i);
    for (size_t i = 0; i < COUNT; i++)
        flipped[i] = (signs[i / 32] >> i % 32 & 1) != 0 ? -(in[i] * 0.3f) : in[i] * 0.3f;
    for (size_t i = 0; i < COUNT / 2; i++) {
        mixed[i] = (in[i] + in[i + COUNT / 2]) * 0.7f;
        mixed[i + COUNT / 2] = (in[i] - in[i + COUNT / 2]) * 0.7f;
    }
    EACH_TABLE(table) {
        float got[COUNT];
        memcpy(got, in, sizeof got);
        table->matrix.flip(got, signs, 0.3f, COUNT);
        cr_assert_arr_eq(got, flipped, sizeof got, "%s", table->name);
        memcpy(got, in, sizeof got);
        table->matrix.butterfly(got, COUNT / 2, 0.7f);
        cr_assert_arr_eq(got, mixed, sizeof got, "%s", table->name);
    }
    free(in);
}

/* One vector through packed rows gives what the tile gives for it, bit for bit. */
Test(matrix_kernels, one_vector_equals_the_tile) {
    static const size_t words_of[] = {1, 7, 96, 301};
    EACH_TABLE(table) {
        const kith_tile_f32 *tile = &table->tile_f32;
        for (size_t c = 0; c < 4; c++)
            for (size_t panels = 1; panels <= 19; panels += 3) {
                size_t words = words_of[c], rows = panels * tile->row_lanes;
                float *packed = random_floats(5, words * rows), *query = random_floats(6, words);
                float *queries = calloc(words * tile->query_lanes, 4), *bias = calloc(rows, 4);
                float *want = malloc(rows * tile->query_lanes * 4), *got = malloc(rows * 4);
                for (size_t w = 0; w < words; w++) queries[w * tile->query_lanes] = query[w];
                tile->run(queries, packed, words, panels, bias, want, rows);
                table->matrix.panels_one(query, packed, words, tile->row_lanes, panels, got);
                cr_assert_arr_eq(got, want, rows * 4, "%s: %zu words, %zu panels", table->name, words, panels);
                free(packed);
                free(query);
                free(queries);
                free(bias);
                free(want);
                free(got);
            }
    }
}

Test(matrix_kernels, largest_is_the_first_of_equals) {
    enum { MOST = 140 };
    float values[MOST];
    EACH_TABLE(table) {
        cr_assert_eq(table->matrix.largest(NULL, 0), 0);
        for (size_t count = 1; count <= MOST; count++)
            for (uint64_t round = 0; round < 12; round++) {
                size_t want = 0;
                for (size_t i = 0; i < count; i++)
                    values[i] =
                        round == 0 ? -INFINITY : (float)kith_random_below(round, count, i, 1 + 3 * round) - 9;
                for (size_t i = 1; i < count; i++)
                    if (values[i] > values[want]) want = i;
                cr_assert_eq(table->matrix.largest(values, count), want, "%s, %zu values", table->name, count);
            }
    }
}

static float add_in_halves(float sums[KITH_GRID_LANES]) {
    for (size_t half = KITH_GRID_LANES / 2; half > 0; half /= 2)
        for (size_t p = 0; p < half; p++) sums[p] += sums[p + half];
    return sums[0];
}

/* Numbers and sums as matrix.h says, on grids of 1 to 8 bits, with values far outside and on the borders. */
Test(matrix_kernels, vectors_on_a_grid) {
    enum { MOST = 208 };
    static const float inverses[KITH_GRID_STEPS] = {0.25f, 1, 3.7f, 1e6f};
    float *values = random_floats(11, MOST);
    for (size_t i = 0; i < MOST; i += 5) values[i] = (float)(i % 9) - 4;
    for (size_t i = 3; i < MOST; i += 50) values[i] = i % 4 < 2 ? -700 : 700;
    EACH_TABLE(table) {
        for (size_t bits = 1; bits <= 8; bits++)
            for (size_t count = 16; count <= MOST; count += 48) {
                float levels = (float)((1 << bits) - 1), products[KITH_GRID_STEPS], norms[KITH_GRID_STEPS];
                table->matrix.grid_sums(values, count, inverses, levels, products, norms);
                for (size_t s = 0; s < KITH_GRID_STEPS; s++) {
                    float product[KITH_GRID_LANES] = {0}, norm[KITH_GRID_LANES] = {0};
                    uint8_t numbers[MOST];
                    table->matrix.grid_numbers(values, count, inverses[s], levels, numbers);
                    for (size_t i = 0; i < count; i++) {
                        float place = floorf(values[i] * inverses[s] + (levels + 1) / 2);
                        place = place < 0 ? 0 : place > levels ? levels : place;
                        cr_assert_eq((float)numbers[i], place, "%s: %g", table->name, (double)values[i]);
                        float x = place - levels / 2;
                        product[i % KITH_GRID_LANES] += x * values[i];
                        norm[i % KITH_GRID_LANES] += x * x;
                    }
                    cr_assert_eq(products[s], add_in_halves(product), "%s: %zu bits", table->name, bits);
                    cr_assert_eq(norms[s], add_in_halves(norm), "%s: %zu bits", table->name, bits);
                }
            }
    }
    free(values);
}

Test(matrix_kernels, accumulate_and_update_dot) {
    enum { COUNT = 160 };
    double *row = random_doubles(1, COUNT), *x = random_doubles(2, COUNT), *y = random_doubles(3, COUNT),
           *v = random_doubles(4, COUNT), sums[32] = {0};
    float *values = random_floats(5, COUNT);
    double *updated = copy_of(row, COUNT * 8);
    for (size_t j = 0; j < COUNT; j++) {
        updated[j] -= 0.3 * x[j] + 1.7 * y[j];
        sums[j % 32] += updated[j] * v[j];
    }
    for (size_t half = 16; half > 0; half /= 2)
        for (size_t p = 0; p < half; p++) sums[p] += sums[p + half];
    EACH_TABLE(table) {
        double *got = copy_of(row, COUNT * 8);
        cr_assert_eq(table->matrix.update_dot(got, 0.3, x, 1.7, y, v, COUNT), sums[0], "%s", table->name);
        cr_assert_arr_eq(got, updated, COUNT * 8, "%s", table->name);
        memcpy(got, row, COUNT * 8);
        table->matrix.accumulate(got, values, 157);
        for (size_t j = 0; j < COUNT; j++)
            cr_assert_eq(got[j], j < 157 ? row[j] + (double)values[j] : row[j], "%s", table->name);
        free(got);
    }
    free(row);
    free(x);
    free(y);
    free(v);
    free(values);
    free(updated);
}

Test(matrix_kernels, strips) {
    enum { ROWS = 9, W = KITH_STRIP };
    double *strip = random_doubles(1, ROWS * W), *v = random_doubles(2, ROWS), *c = random_doubles(3, ROWS),
           *s = random_doubles(4, ROWS), *a = random_doubles(5, 3 * 11);
    double *reflected = copy_of(strip, ROWS * W * 8), *rotated = copy_of(strip, ROWS * W * 8), product[3 * W];
    for (size_t j = 0; j < W; j++) {
        double sum = 0;
        for (size_t r = 0; r < ROWS; r++) sum += v[r] * strip[r * W + j];
        sum *= 0.8;
        for (size_t r = 0; r < ROWS; r++) reflected[r * W + j] -= v[r] * sum;
        for (size_t i = ROWS - 1; i-- > 0;) {
            double upper = rotated[i * W + j], lower = rotated[(i + 1) * W + j];
            rotated[i * W + j] = c[i] * upper - s[i] * lower;
            rotated[(i + 1) * W + j] = s[i] * upper + c[i] * lower;
        }
        for (size_t r = 0; r < 3; r++) {
            double term = 0;
            for (size_t k = 0; k < ROWS; k++) term += a[r * 11 + k] * strip[k * W + j];
            product[r * W + j] = term;
        }
    }
    EACH_TABLE(table) {
        double *got = copy_of(strip, ROWS * W * 8), got_product[3 * W];
        table->matrix.strip_reflect(got, ROWS, v, 0.8);
        cr_assert_arr_eq(got, reflected, ROWS * W * 8, "%s", table->name);
        memcpy(got, strip, ROWS * W * 8);
        table->matrix.strip_rotate(got, c, s, ROWS - 1);
        cr_assert_arr_eq(got, rotated, ROWS * W * 8, "%s", table->name);
        table->matrix.strip_multiply(a, 11, 3, ROWS, strip, got_product);
        cr_assert_arr_eq(got_product, product, sizeof product, "%s", table->name);
        free(got);
    }
    free(strip);
    free(v);
    free(c);
    free(s);
    free(a);
    free(reflected);
    free(rotated);
}

/* At least k values are up to the bound; where each column holds one value, not many more. */
Test(matrix_kernels, bound) {
    static const size_t counts[] = {1, 2, 31, 32, 33, 255, 256, 257, 511, 512, 513, 1000};
    static const size_t ks[] = {1, 2, 10, 28, 33, 100, 256};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
            for (int ties = 0; ties < 2; ties++) {
                size_t count = counts[c], k = ks[i], up_to = 0;
                float *values = random_floats(40 + c, count);
                for (size_t v = 0; ties == 1 && v < count; v++) values[v] = rintf(values[v]);
                float want = kith_simd_find("ref")->matrix.bound(values, count, k);
                EACH_TABLE(table)
                cr_assert_eq(table->matrix.bound(values, count, k), want, "%s %zu %zu", table->name, count, k);
                for (size_t v = 0; v < count; v++) up_to += values[v] <= want;
                cr_assert_geq(up_to, k < count ? k : count, "%zu of %zu: %zu", k, count, up_to);
                cr_assert_eq(isinf(want) != 0, k > count);
                if (ties == 0 && count <= 256 && k < count)
                    cr_assert_leq(up_to, k + k / 4 + 1, "%zu of %zu: %zu", k, count, up_to);
                free(values);
            }
    cr_assert(isinf(kith_simd()->matrix.bound(NULL, 0, 0)));
}

/* The same for whole numbers, from above. */
Test(matrix_kernels, bound_i32) {
    static const size_t counts[] = {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 500, 1001};
    static const size_t ks[] = {1, 2, 8, 17, 33, 64};
    static const uint64_t ranges[] = {1, 3, 1000, 0x100000000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
            for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
                size_t count = counts[c], k = ks[i], from = 0;
                int32_t *values = malloc(count * sizeof *values);
                for (size_t v = 0; v < count; v++)
                    values[v] = (int32_t)(uint32_t)(kith_random_below(50, c, v, ranges[r]) + 0x80000000u);
                int32_t want = kith_simd_find("ref")->matrix.bound_i32(values, count, k);
                EACH_TABLE(table)
                cr_assert_eq(table->matrix.bound_i32(values, count, k), want, "%s %zu %zu", table->name, count, k);
                for (size_t v = 0; v < count; v++) from += values[v] >= want;
                cr_assert_geq(from, k < count ? k : count, "%zu of %zu: %zu", k, count, from);
                if (k > count) cr_assert_eq(want, INT32_MIN);
                if (ranges[r] > 1000 && count <= 64 && k < count)
                    cr_assert_leq(from, k + k / 4 + 1, "%zu of %zu: %zu", k, count, from);
                free(values);
            }
    cr_assert_eq(kith_simd()->matrix.bound_i32(NULL, 0, 0), INT32_MIN);
}
