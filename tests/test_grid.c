/* SPDX-License-Identifier: Apache-2.0
 *
 * test_grid.c: rows, blocks, queries and estimates of src/code/grid.c.
 */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "code/grid.h"

enum { QUERIES = KITH_CODE_QUERIES_MAX, BLOCKS = 2, ROWS = BLOCKS * KITH_BLOCK_ROWS, PARTS_MAX = 2 };

static const kith_grid_factors factor_kinds[] = {KITH_FACTORS_F16, KITH_FACTORS_F32, KITH_FACTORS_ADD,
                                                 KITH_FACTORS_NONE};
enum { FACTOR_KINDS = sizeof factor_kinds / sizeof *factor_kinds };

static uint64_t counter;
static uint64_t bits_now(void) { return kith_random_u64(23, 1, counter++); }
static float normal_now(void) { return kith_random_normal(23, 2, counter++); }

/* 1..200, then 784 and 4,096, then 0. `step` leaves some out. */
static size_t dim_at(size_t i, size_t step) {
    size_t dim = 1 + i * step, past = 200 / step + (200 % step != 0);
    if (dim <= 200) return dim;
    return i == past ? 784 : i == past + 1 ? 4096 : 0;
}

static void *take(size_t bytes) {
    void *block = aligned_alloc(64, (bytes + 63) / 64 * 64);
    cr_assert_not_null(block);
    return block;
}

/* Rows, the same in blocks, and queries. */
typedef struct set {
    kith_grid grid;
    uint8_t *numbers;
    float add[ROWS], scale[ROWS];
    unsigned char *rows, *blocks;
    float *vectors, multiplier[QUERIES], offset[QUERIES], base[QUERIES];
    unsigned char *query_memory;
    const void *queries[QUERIES];
} set;

static void set_free(set *s) {
    free(s->numbers);
    free(s->rows);
    free(s->blocks);
    free(s->vectors);
    free(s->query_memory);
}

/* Factors as the grid holds them: what put rounds, or does not store. */
static void round_factors(const kith_grid *grid, float *add, float *scale) {
    if (grid->factors == KITH_FACTORS_NONE) *add = 0;
    if (grid->factor_words == 2) return;
    if (grid->factors != KITH_FACTORS_F16) {
        *scale = 1;
        return;
    }
    *add = (float)((int)(*add * 256)) / 256; /* |add| < 4 in units of 1/256: exact in f16 */
    *scale = (float)((int)(*scale * 256)) / 256;
}

static void make_rows(set *s) {
    const kith_grid *grid = &s->grid;
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t d = 0; d < grid->dim; d++)
            s->numbers[r * grid->dim + d] =
                (uint8_t)(r == 3 ? (1u << grid->bits) - 1 : bits_now() & ((1u << grid->bits) - 1));
        s->add[r] = fmaxf(-3.9f, fminf(3.9f, normal_now()));
        s->scale[r] = fmaxf(-3.9f, fminf(3.9f, normal_now()));
        round_factors(grid, &s->add[r], &s->scale[r]);
        kith_grid_put(grid, s->numbers + r * grid->dim, s->add[r] * grid->add_unit, s->scale[r] * grid->scale_unit,
                      s->rows + r * grid->row_bytes);
        s->add[r] *= grid->add_unit;
        s->scale[r] *= grid->scale_unit;
    }
    memset(s->blocks, 0, BLOCKS * grid->block_bytes);
    for (size_t r = 0; r < ROWS; r += 8)
        kith_grid_pack(grid, s->rows + r * grid->row_bytes, r % KITH_BLOCK_ROWS, 8,
                       s->blocks + r / KITH_BLOCK_ROWS * grid->block_bytes);
}

static void make_queries(set *s) {
    const kith_grid *grid = &s->grid;
    for (size_t q = 0; q < QUERIES; q++) {
        float *vector = s->vectors + q * grid->dim;
        for (size_t d = 0; d < grid->dim; d++) vector[d] = q == 5 ? 0 : normal_now() * (q == 6 ? 1e-3f : 1);
        s->multiplier[q] = normal_now();
        s->offset[q] = normal_now();
        s->base[q] = normal_now();
        void *query = s->query_memory + q * grid->query_bytes;
        memset(query, 0x77, grid->query_bytes);
        kith_grid_prepare(grid, vector, s->multiplier[q], s->offset[q], query);
        s->queries[q] = query;
    }
}

static set set_make(size_t dim, size_t bits, kith_grid_factors factors, size_t parts) {
    set s;
    kith_grid_init(&s.grid, dim, bits, factors, parts);
    if (factors == KITH_FACTORS_F16) {
        s.grid.add_unit = 0x1p9f;
        s.grid.scale_unit = 0x1p-5f;
    }
    s.numbers = take(ROWS * dim);
    s.rows = take(ROWS * s.grid.row_bytes);
    s.blocks = take(BLOCKS * s.grid.block_bytes);
    s.vectors = take(QUERIES * dim * sizeof(float));
    s.query_memory = take(QUERIES * s.grid.query_bytes);
    make_rows(&s);
    make_queries(&s);
    return s;
}

/* Runs `check` on every number of bits, kind of factors, parts of the query and a choice of dimensions. */
static void check_all(size_t dim_step, void (*check)(const set *s)) {
    size_t dim;
    for (size_t i = 0; (dim = dim_at(i, dim_step)) > 0; i++)
        for (size_t bits = 1; bits <= 8; bits++)
            for (size_t parts = 1; parts <= PARTS_MAX; parts++) {
                set s = set_make(dim, bits, factor_kinds[(i + bits) % FACTOR_KINDS], parts);
                check(&s);
                set_free(&s);
            }
}

/* ---- layout ---- */

static void check_layout(const set *s) {
    const kith_grid *grid = &s->grid;
    size_t bits = 0, words = 0;
    for (size_t p = 0; p < grid->plane_count; p++) {
        const kith_grid_plane *plane = &grid->planes[p];
        bits += plane->width;
        cr_assert_eq(plane->shift, grid->bits - bits);
        cr_assert_eq(plane->first_word, words);
        words += plane->word_count;
        cr_assert_eq(plane->word_count, (grid->dim * plane->width + 31) / 32);
    }
    cr_assert_eq(bits, grid->bits);
    cr_assert_eq(grid->row_bytes, (words + grid->factor_words) * 4);
    cr_assert_eq(grid->block_bytes, 32 * grid->row_bytes);
    cr_assert_eq(grid->block_bytes % 64, 0);
    cr_assert_eq(grid->query_bytes % 64, 0);
    const uint32_t *row = (const uint32_t *)(const void *)s->rows;
    /* The place of each number, by the definition of a plane. */
    for (size_t p = 0; p < grid->plane_count; p++) {
        const kith_grid_plane *plane = &grid->planes[p];
        for (size_t d = 0; d < plane->word_count * 32 / plane->width; d++) {
            size_t per_word = 32 / plane->width, in_word = d % per_word;
            uint32_t field =
                row[plane->first_word + d / per_word] >> (in_word % 4 * 8 + in_word / 4 * plane->width);
            uint32_t want = d < grid->dim ? (uint32_t)s->numbers[d] >> plane->shift : 0;
            cr_assert_eq((field ^ want) & ((1u << plane->width) - 1), 0, "dim %zu, %zu bits: number %zu", grid->dim,
                         grid->bits, d);
        }
    }
}
Test(grid, planes_lie_as_documented) { check_all(3, check_layout); }

/* ---- round trips ---- */

static void check_round_trips(const set *s) {
    const kith_grid *grid = &s->grid;
    uint8_t *numbers = take(grid->dim);
    unsigned char *row = take(grid->row_bytes);
    for (size_t r = 0; r < ROWS; r++) {
        const unsigned char *from = s->rows + r * grid->row_bytes;
        float add = 7, scale = 7;
        memset(numbers, 0x33, grid->dim);
        kith_grid_get(grid, from, numbers, &add, &scale);
        cr_assert_arr_eq(numbers, s->numbers + r * grid->dim, grid->dim, "dim %zu, %zu bits", grid->dim,
                         grid->bits);
        cr_assert_eq(add, s->add[r], "dim %zu, factors %d: %g, %g", grid->dim, grid->factors, (double)add,
                     (double)s->add[r]);
        cr_assert_eq(scale, s->scale[r]);
        kith_grid_get(grid, from, NULL, NULL, NULL);
        memset(row, 0x33, grid->row_bytes);
        kith_grid_unpack(grid, s->blocks + r / KITH_BLOCK_ROWS * grid->block_bytes, r % KITH_BLOCK_ROWS, row);
        cr_assert_arr_eq(row, from, grid->row_bytes, "dim %zu, %zu bits, row %zu", grid->dim, grid->bits, r);
    }
    free(numbers);
    free(row);
}
Test(grid, rows_and_blocks_give_back_what_was_put) { check_all(1, check_round_trips); }

Test(grid, packing_leaves_other_lanes_alone) {
    kith_grid grid;
    kith_grid_init(&grid, 45, 3, KITH_FACTORS_F16, 1);
    unsigned char *block = take(grid.block_bytes), *row = take(3 * grid.row_bytes), *got = take(grid.row_bytes);
    for (size_t first = 0; first <= KITH_BLOCK_ROWS - 3; first += 7) {
        memset(block, 0xa5, grid.block_bytes);
        for (size_t i = 0; i < 3 * grid.row_bytes; i++) row[i] = (unsigned char)bits_now();
        kith_grid_pack(&grid, row, first, 3, block);
        for (size_t lane = 0; lane < KITH_BLOCK_ROWS; lane++) {
            kith_grid_unpack(&grid, block, lane, got);
            for (size_t i = 0; i < grid.row_bytes; i++)
                cr_assert_eq(got[i],
                             lane >= first && lane < first + 3 ? row[(lane - first) * grid.row_bytes + i] : 0xa5);
        }
    }
    free(block);
    free(row);
    free(got);
}

Test(grid, f16_factors_are_rounded_and_held_finite) {
    kith_grid grid;
    kith_grid_init(&grid, 8, 8, KITH_FACTORS_F16, 1);
    static const float in[][2] = {
        {1e30f, 65504}, {-1e30f, -65504}, {0x1.0005p0f, 1}, {0x1.002p0f, 1}, {0x1.006p0f, 0x1.008p0f}};
    uint8_t numbers[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    unsigned char *row = take(grid.row_bytes);
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) {
        float add, scale;
        kith_grid_put(&grid, numbers, in[i][0], in[i][0], row);
        kith_grid_get(&grid, row, NULL, &add, &scale);
        cr_assert_eq(add, in[i][1]);
        cr_assert_eq(scale, in[i][1]);
    }
    free(row);
}

/* ---- estimates ---- */

/* The estimate in double from the numbers and the query's own vector; in *error how far rounding may take it. */
static double exact_estimate(const set *s, size_t q, size_t r, double *error) {
    const kith_grid *grid = &s->grid;
    const float *vector = s->vectors + q * grid->dim;
    double sum = 0, size = 0, largest = 0;
    for (size_t d = 0; d < grid->dim; d++) {
        double number = s->numbers[r * grid->dim + d];
        sum += number * (double)vector[d];
        size += number;
        largest = fmax(largest, fabs((double)vector[d]));
    }
    double unit = largest / (grid->query_parts == 1 ? 127 : 127 * 128), scale = (double)s->scale[r];
    double inner = (double)s->multiplier[q] * sum + (double)s->offset[q];
    double terms = fabs((double)s->base[q]) + fabs((double)s->add[r]) +
                   fabs(scale) * (fabs((double)s->multiplier[q]) * (largest * size) + fabs((double)s->offset[q]));
    /* Each byte of the query is off by half a unit at most, and a few steps of f32 round. */
    *error = fabs(scale * (double)s->multiplier[q]) * unit * 0.501 * size + 8 * (double)FLT_EPSILON * terms;
    return (double)s->base[q] + (double)s->add[r] + scale * inner;
}

static void scan_all(const set *s, size_t first, size_t count, float *out) {
    kith_grid_scan(&s->grid, s->queries + first, s->base + first, count, s->blocks, BLOCKS, out, ROWS + 3);
}

enum { CALL_ROWS = 20 }; /* at most, of rows in one call: a multiple of 4 */

static void check_estimates(const set *s) {
    const kith_grid *grid = &s->grid;
    static float all[QUERIES * (ROWS + 3)], some[QUERIES * (ROWS + 3)];
    scan_all(s, 0, QUERIES, all);
    for (size_t count = 1; count < QUERIES; count += 4) {
        scan_all(s, QUERIES - count, count, some);
        for (size_t q = 0; q < count; q++)
            cr_assert_arr_eq(some + q * (ROWS + 3), all + (QUERIES - count + q) * (ROWS + 3), ROWS * sizeof *all,
                             "dim %zu, %zu bits, %zu queries", grid->dim, grid->bits, count);
    }
    for (size_t q = 0; q < QUERIES; q++)
        for (size_t r = 0, count; r < ROWS; r += count) {
            const unsigned char *rows[CALL_ROWS];
            float got[CALL_ROWS];
            count = kith_min_size(4 + (r + 4 * q) % CALL_ROWS, ROWS - r);
            for (size_t i = 0; i < count; i++) rows[i] = s->rows + (r + i) * grid->row_bytes;
            kith_grid_rows(grid, s->queries[q], s->base[q], rows, count, got);
            cr_assert_arr_eq(got, all + q * (ROWS + 3) + r, count * sizeof *got,
                             "dim %zu, %zu bits, factors %d, %zu parts, %zu rows", grid->dim, grid->bits,
                             grid->factors, grid->query_parts, count);
        }
    for (size_t q = 0; q < QUERIES; q += 3)
        for (size_t r = 0; r < ROWS; r += 3) {
            double error, want = exact_estimate(s, q, r, &error), got = (double)all[q * (ROWS + 3) + r];
            cr_assert(fabs(got - want) <= error,
                      "dim %zu, %zu bits, factors %d, %zu parts: %g instead of %g, not within %g", grid->dim,
                      grid->bits, grid->factors, grid->query_parts, got, want, error);
        }
}
Test(grid, estimates_of_rows_and_blocks_are_the_same_and_near_the_exact_ones) { check_all(7, check_estimates); }

Test(grid, a_shift_is_added_to_all_estimates) {
    for (size_t f = 0; f < FACTOR_KINDS; f++) {
        set s = set_make(50, 4, factor_kinds[f], 1 + f % 2);
        static float want[ROWS + 3], got[ROWS + 3];
        float base = s.base[0] + 2.5f;
        kith_grid_scan(&s.grid, s.queries, &base, 1, s.blocks, BLOCKS, want, ROWS + 3);
        kith_grid_shift(s.query_memory, 2.5f);
        kith_grid_scan(&s.grid, s.queries, s.base, 1, s.blocks, BLOCKS, got, ROWS + 3);
        cr_assert_arr_eq(got, want, ROWS * sizeof *got);
        const unsigned char *rows[4] = {s.rows, s.rows, s.rows, s.rows};
        float four[4];
        kith_grid_rows(&s.grid, s.queries[0], s.base[0], rows, 4, four);
        cr_assert_eq(four[3], got[0]);
        set_free(&s);
    }
}

/* Numbers that count from a centre: what is multiplied is number - centre. */
Test(grid, centred_queries) {
    for (size_t parts = 1; parts <= PARTS_MAX; parts++) {
        set s = set_make(77, 5, factor_kinds[parts - 1], parts);
        static float out[ROWS + 3];
        const float centre = 15.5f;
        kith_grid_prepare_centred(&s.grid, s.vectors, s.multiplier[0], centre, s.query_memory);
        kith_grid_scan(&s.grid, s.queries, s.base, 1, s.blocks, BLOCKS, out, ROWS + 3);
        double sum = 0, largest = 0;
        for (size_t d = 0; d < s.grid.dim; d++) {
            sum += (double)s.vectors[d];
            largest = fmax(largest, fabs((double)s.vectors[d]));
        }
        s.offset[0] = (float)(-(double)centre * (double)s.multiplier[0] * sum);
        /* The offset stands on the rounded query: half a unit for each element more. */
        double half_unit = 0.501 * largest / (parts == 1 ? 127 : 127 * 128) * (double)s.grid.dim;
        for (size_t r = 0; r < ROWS; r++) {
            double error, want = exact_estimate(&s, 0, r, &error);
            error += fabs((double)(s.scale[r] * s.multiplier[0] * centre)) * half_unit;
            cr_assert(fabs((double)out[r] - want) <= error, "%g instead of %g, not within %g", (double)out[r], want,
                      error);
        }
        set_free(&s);
    }
}

/* Neither a query of nothing nor the smallest and largest floats give anything but finite estimates near base. */
Test(grid, queries_of_any_magnitude) {
    static const float magnitudes[] = {0, 1e-45f, 1e-40f, 1e-36f, 1e-30f, 1, 1e30f};
    for (size_t parts = 1; parts <= PARTS_MAX; parts++)
        for (size_t m = 0; m < sizeof magnitudes / sizeof *magnitudes; m++) {
            set s = set_make(37, 8, KITH_FACTORS_F32, parts);
            for (size_t d = 0; d < s.grid.dim; d++) s.vectors[d] = d % 2 != 0 ? magnitudes[m] : -magnitudes[m] / 3;
            kith_grid_prepare(&s.grid, s.vectors, s.multiplier[0], s.offset[0], s.query_memory);
            static float out[ROWS + 3];
            kith_grid_scan(&s.grid, s.queries, s.base, 1, s.blocks, BLOCKS, out, ROWS + 3);
            for (size_t r = 0; r < ROWS; r++) {
                double error, want = exact_estimate(&s, 0, r, &error);
                cr_assert(fabs((double)out[r] - want) <= error, "%g: %g instead of %g", (double)magnitudes[m],
                          (double)out[r], want);
            }
            set_free(&s);
        }
}
