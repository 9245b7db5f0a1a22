/* SPDX-License-Identifier: Apache-2.0 */
#include "code/grid.h"

#include <string.h>

#include "simd/simd.h"

enum { MAX_MAGNITUDE = 127, PART_BASE = 128, CACHE_LINE = 64, BLOCK_WORDS = KITH_BLOCK_ROWS };
static const float f16_max = 65504.0f;
static const float nothing = 1e-34f; /* a query this small is 0: the inverse of its step would not be finite */

/* ---- Layout --------------------------------------------------------------------------------------------------- */

/* A prepared query begins with its kith_affine, whose base is the query's shift; then, for each part, its bytes in
 * natural order and those in step order for each plane. For a plane of 8 bits, which is alone, both are the same, and
 * behind them comes the split form (fields.h) where this processor has one. */

static size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

static size_t factor_words(kith_grid_factors factors) {
    return factors == KITH_FACTORS_F32 ? 2 : factors == KITH_FACTORS_NONE ? 0 : 1;
}

/* Are rows estimated by `lines`, which takes the word of the factors along? */
static bool has_lines(const kith_grid *grid) {
    return grid->factors == KITH_FACTORS_F16 && grid->plane_count == 1 && grid->query_parts == 1;
}

static size_t padded_words(const kith_grid *grid, size_t plane) {
    return round_up(grid->planes[plane].word_count + has_lines(grid), 16);
}

void kith_grid_init(kith_grid *grid, size_t dim, size_t bits, kith_grid_factors factors, size_t query_parts) {
    *grid = (kith_grid){.dim = dim, .bits = bits, .factors = factors, .query_parts = query_parts};
    grid->add_unit = grid->scale_unit = 1;
    unsigned left = (unsigned)bits;
    for (unsigned log2 = 4; log2-- > 0;) {
        unsigned width = 1u << log2;
        if (left < width) continue;
        left -= width;
        size_t words = round_up(dim * width, 32) / 32;
        grid->planes[grid->plane_count++] = (kith_grid_plane){width, log2, left, grid->word_count, words};
        grid->word_count += words;
        grid->natural_bytes = kith_max_size(grid->natural_bytes, words * 32 / width);
    }
    grid->factor_words = factor_words(factors);
    grid->row_bytes = (grid->word_count + grid->factor_words) * sizeof(uint32_t);
    grid->block_bytes = grid->row_bytes * KITH_BLOCK_ROWS;
    grid->natural_bytes = round_up(grid->natural_bytes, CACHE_LINE);
    grid->part_bytes = grid->natural_bytes;
    for (size_t p = 0; p < grid->plane_count; p++) {
        if (grid->planes[p].width == 8) {
            grid->natural_bytes = grid->part_bytes = padded_words(grid, p) * sizeof(uint32_t);
            if (kith_simd()->splits.split != NULL) {
                grid->split_first = grid->natural_bytes;
                grid->part_bytes += round_up(kith_split_bytes(grid->word_count), CACHE_LINE);
            }
            continue; /* step order is natural order */
        }
        grid->step_first[p] = grid->part_bytes;
        grid->part_bytes += padded_words(grid, p) * sizeof(uint32_t) * (8 / grid->planes[p].width);
    }
    grid->query_bytes = CACHE_LINE + query_parts * grid->part_bytes;
}

/* ---- Rows and blocks ------------------------------------------------------------------------------------------ */

static uint16_t finite_f16(float value) {
    value = value > f16_max ? f16_max : value < -f16_max ? -f16_max : value;
    uint16_t bits;
    kith_simd()->f16_from_f32(&value, 1, &bits);
    return bits;
}

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

/* Four numbers side by side are a word of four bytes, and the four fields of a step lie in the same bytes of a plane's
 * word: so numbers move into planes and back four at a time, by a shift and a mask. */
enum { WORD_NUMBERS_MAX = 32 };

static uint32_t byte_masks(unsigned width) { return ((1u << width) - 1) * 0x01010101u; }

static uint32_t load_four(const uint8_t *numbers) {
    return numbers[0] | (uint32_t)numbers[1] << 8 | (uint32_t)numbers[2] << 16 | (uint32_t)numbers[3] << 24;
}

static void store_four(uint8_t *numbers, uint32_t four) {
    for (size_t i = 0; i < 4; i++) numbers[i] = (uint8_t)(four >> (8 * i));
}

/* 32 / width numbers, at their places in a word. */
static uint32_t word_of(const uint8_t *numbers, unsigned width, unsigned shift) {
    uint32_t word = 0;
    for (unsigned place = 0; place < 8; place += width, numbers += 4)
        word |= (load_four(numbers) >> shift & byte_masks(width)) << place;
    return word;
}

/* Adds what a plane's word holds to its numbers. */
static void add_numbers(uint32_t word, unsigned width, unsigned shift, uint8_t *numbers) {
    for (unsigned place = 0; place < 8; place += width, numbers += 4)
        store_four(numbers, load_four(numbers) | (word >> place & byte_masks(width)) << shift);
}

void kith_grid_put(const kith_grid *grid, const uint8_t *numbers, float add, float scale, unsigned char *row) {
    uint32_t *words = (uint32_t *)(void *)row;
    for (size_t p = 0; p < grid->plane_count; p++) {
        const kith_grid_plane *plane = &grid->planes[p];
        size_t per_word = 32 / plane->width;
        for (size_t w = 0; w < plane->word_count; w++) {
            uint8_t last[WORD_NUMBERS_MAX] = {0};
            const uint8_t *at = numbers + w * per_word;
            if ((w + 1) * per_word > grid->dim) at = memcpy(last, at, grid->dim - w * per_word);
            words[plane->first_word + w] = word_of(at, plane->width, plane->shift);
        }
    }
    uint32_t *factors = words + grid->word_count;
    if (grid->factors == KITH_FACTORS_F16)
        factors[0] = finite_f16(add / grid->add_unit) | (uint32_t)finite_f16(scale / grid->scale_unit) << 16;
    if (grid->factors == KITH_FACTORS_F32 || grid->factors == KITH_FACTORS_ADD) factors[0] = bits_of(add);
    if (grid->factors == KITH_FACTORS_F32) factors[1] = bits_of(scale);
}

/* `factors` are a row's last words. */
static void get_factors(const kith_grid *grid, const uint32_t *factors, float *add, float *scale) {
    float both[2] = {0, 1};
    if (grid->factors == KITH_FACTORS_F16) {
        uint16_t halves[2] = {(uint16_t)factors[0], (uint16_t)(factors[0] >> 16)};
        kith_simd()->f32_from_f16(halves, 2, both);
        both[0] *= grid->add_unit;
        both[1] *= grid->scale_unit;
    } else if (grid->factor_words > 0) {
        both[0] = float_of(factors[0]);
        if (grid->factor_words == 2) both[1] = float_of(factors[1]);
    }
    if (add != NULL) *add = both[0];
    if (scale != NULL) *scale = both[1];
}

void kith_grid_get(const kith_grid *grid, const unsigned char *row, uint8_t *numbers, float *add, float *scale) {
    const uint32_t *words = (const uint32_t *)(const void *)row;
    if (numbers != NULL) {
        memset(numbers, 0, grid->dim);
        for (size_t p = 0; p < grid->plane_count; p++) {
            const kith_grid_plane *plane = &grid->planes[p];
            size_t per_word = 32 / plane->width, whole = grid->dim / per_word, left = grid->dim % per_word;
            for (size_t w = 0; w < whole; w++)
                add_numbers(words[plane->first_word + w], plane->width, plane->shift, numbers + w * per_word);
            if (left == 0) continue;
            uint8_t last[WORD_NUMBERS_MAX] = {0};
            memcpy(last, numbers + whole * per_word, left);
            add_numbers(words[plane->first_word + whole], plane->width, plane->shift, last);
            memcpy(numbers + whole * per_word, last, left);
        }
    }
    get_factors(grid, words + grid->word_count, add, scale);
}

/* Estimates are made of f16 factors as they are stored, in units of add_unit: what turns scale * (...) into these. */
static float stored_ratio(const kith_grid *grid) { return grid->scale_unit / grid->add_unit; }

/* In a block, 32 f16 of add come before 32 of scale, so that a kernel converts either in one go. */
static uint16_t *half_factors(const kith_grid *grid, unsigned char *block) {
    return (uint16_t *)(void *)(block + grid->word_count * BLOCK_WORDS * sizeof(uint32_t));
}

void kith_grid_pack(const kith_grid *grid, const unsigned char *rows, size_t first, size_t count,
                    unsigned char *block) {
    uint32_t *words = (uint32_t *)(void *)block;
    bool halves = grid->factors == KITH_FACTORS_F16;
    size_t plain = grid->word_count + (halves ? 0 : grid->factor_words);
    for (size_t i = 0; i < count; i++) {
        const uint32_t *row = (const uint32_t *)(const void *)(rows + i * grid->row_bytes);
        for (size_t w = 0; w < plain; w++) words[w * BLOCK_WORDS + first + i] = row[w];
        if (halves) {
            uint16_t *factors = half_factors(grid, block);
            factors[first + i] = (uint16_t)row[plain];
            factors[KITH_BLOCK_ROWS + first + i] = (uint16_t)(row[plain] >> 16);
        }
    }
}

static void unpack_factors(const kith_grid *grid, const unsigned char *block, size_t lane, uint32_t *out) {
    const uint32_t *words = (const uint32_t *)(const void *)block + grid->word_count * BLOCK_WORDS;
    if (grid->factors == KITH_FACTORS_F16) {
        const uint16_t *halves = (const uint16_t *)(const void *)words;
        out[0] = halves[lane] | (uint32_t)halves[KITH_BLOCK_ROWS + lane] << 16;
        return;
    }
    for (size_t f = 0; f < grid->factor_words; f++) out[f] = words[f * BLOCK_WORDS + lane];
}

void kith_grid_unpack(const kith_grid *grid, const unsigned char *block, size_t lane, unsigned char *row) {
    const uint32_t *words = (const uint32_t *)(const void *)block;
    uint32_t *out = (uint32_t *)(void *)row;
    for (size_t w = 0; w < grid->word_count; w++) out[w] = words[w * BLOCK_WORDS + lane];
    unpack_factors(grid, block, lane, out + grid->word_count);
}

void kith_grid_block_factors(const kith_grid *grid, const unsigned char *block, size_t lane, float *add,
                             float *scale) {
    uint32_t factors[2];
    unpack_factors(grid, block, lane, factors);
    get_factors(grid, factors, add, scale);
}

/* ---- Queries -------------------------------------------------------------------------------------------------- */

static int8_t *part_of(const kith_grid *grid, void *query, size_t part) {
    return (int8_t *)query + CACHE_LINE + part * grid->part_bytes;
}

static const int8_t *part_of_const(const kith_grid *grid, const void *query, size_t part) {
    return (const int8_t *)query + CACHE_LINE + part * grid->part_bytes;
}

static void fill_steps(const kith_grid *grid, int8_t *part) {
    for (size_t p = 0; p < grid->plane_count; p++) {
        const kith_grid_plane *plane = &grid->planes[p];
        size_t padded = padded_words(grid, p), steps = 8 / plane->width;
        unsigned char *at = (unsigned char *)part + grid->step_first[p];
        if (grid->step_first[p] == 0) continue; /* bytes, in natural order already */
        for (size_t j = 0; j < steps; j++) {
            for (size_t w = 0; w < plane->word_count; w++) memcpy(at + w * 4, part + (w * steps + j) * 4, 4);
            memset(at + plane->word_count * 4, 0, (padded - plane->word_count) * 4);
            at += padded * 4;
        }
    }
}

/* The query's bytes in natural order; returns their sum, in units of the last part. */
static int32_t round_query(const kith_grid *grid, const float *vector, float inverse, void *query) {
    const kith_rounding_kernels *rounding = &kith_simd()->rounding;
    int8_t *high = part_of(grid, query, 0);
    memset(high + grid->dim, 0, grid->natural_bytes - grid->dim);
    if (grid->query_parts == 1) return rounding->to_s8(vector, grid->dim, inverse, high);
    int8_t *low = part_of(grid, query, 1);
    memset(low + grid->dim, 0, grid->natural_bytes - grid->dim);
    return rounding->to_s15(vector, grid->dim, inverse, high, low);
}

/* Writes all of a query but its offset; returns the sum of its rounded elements. */
static float fill_query(const kith_grid *grid, const float *vector, float multiplier, void *query) {
    float largest = kith_simd()->rounding.largest(vector, grid->dim);
    float steps = grid->query_parts == 1 ? MAX_MAGNITUDE : MAX_MAGNITUDE * PART_BASE;
    float inverse = largest > nothing ? steps / largest : 0, step = largest > nothing ? largest / steps : 0;
    *(kith_affine *)query = (kith_affine){multiplier * step * stored_ratio(grid), 0, grid->add_unit, 0};
    int32_t sum = round_query(grid, vector, inverse, query);
    for (size_t p = 0; p < grid->query_parts; p++) {
        int8_t *part = part_of(grid, query, p);
        fill_steps(grid, part);
        if (grid->split_first > 0) kith_simd()->splits.split(part, grid->word_count, part + grid->split_first);
    }
    return (float)sum * step;
}

void kith_grid_prepare(const kith_grid *grid, const float *vector, float multiplier, float offset, void *query) {
    fill_query(grid, vector, multiplier, query);
    ((kith_affine *)query)->offset = offset * stored_ratio(grid);
}

void kith_grid_prepare_centred(const kith_grid *grid, const float *vector, float multiplier, float centre,
                               void *query) {
    float sum = fill_query(grid, vector, multiplier, query);
    ((kith_affine *)query)->offset = -centre * multiplier * sum * stored_ratio(grid);
}

int32_t kith_grid_query_norm2(const kith_grid *grid, const void *query) {
    return kith_simd()->norm2_i8(part_of_const(grid, query, 0), grid->dim);
}

float kith_grid_query_step(const kith_grid *grid, const void *query) {
    return ((const kith_affine *)query)->unit / stored_ratio(grid);
}

void kith_grid_shift(void *query, float shift) { ((kith_affine *)query)->base = shift; }

/* ---- Estimates ------------------------------------------------------------------------------------------------ */

/* How the products of a query become estimates, with this base. */
static kith_affine affine_of(const void *query, float base) {
    kith_affine affine = *(const kith_affine *)query;
    affine.base += base;
    return affine;
}

/* The products of four rows with one part of the query. */
static void dots_of_four(const kith_grid *grid, const int8_t *part, const uint32_t *const rows[4],
                         int32_t sums[4]) {
    const kith_simd_table *simd = kith_simd();
    for (size_t p = 0; p < grid->plane_count; p++) {
        const kith_grid_plane *plane = &grid->planes[p];
        const uint32_t *words[4];
        for (size_t r = 0; r < 4; r++) words[r] = rows[r] + plane->first_word;
        int32_t dots[4];
        simd->fields[plane->width_log2].four(part + grid->step_first[p], words, plane->word_count, dots);
        for (size_t r = 0; r < 4; r++)
            sums[r] = (p == 0 ? 0 : (int32_t)((uint32_t)sums[r] << plane->width)) + dots[r];
    }
}

/* The factors of four rows as estimates take them: all add, then all scale. */
static void factors_of_four(const kith_grid *grid, const uint32_t *const rows[4], float factors[8]) {
    if (grid->factors == KITH_FACTORS_F16) {
        uint16_t halves[8];
        for (size_t r = 0; r < 4; r++) {
            halves[r] = (uint16_t)rows[r][grid->word_count];
            halves[4 + r] = (uint16_t)(rows[r][grid->word_count] >> 16);
        }
        kith_simd()->f32_from_f16(halves, 8, factors);
        return;
    }
    for (size_t r = 0; r < 4; r++) {
        factors[r] = grid->factor_words > 0 ? float_of(rows[r][grid->word_count]) : 0;
        factors[4 + r] = grid->factor_words == 2 ? float_of(rows[r][grid->word_count + 1]) : 1;
    }
}

static void estimate_four(const kith_grid *grid, const void *query, const kith_affine *affine,
                          const unsigned char *const rows[4], float out[4]) {
    const uint32_t *words[4];
    int32_t dots[2 * 4];
    float factors[8];
    for (size_t r = 0; r < 4; r++) words[r] = (const uint32_t *)(const void *)rows[r];
    for (size_t p = 0; p < grid->query_parts; p++)
        dots_of_four(grid, part_of_const(grid, query, p), words, dots + 4 * p);
    factors_of_four(grid, words, factors);
    kith_simd()->estimates.four(affine, grid->query_parts, dots, factors, factors + 4, out);
}

void kith_grid_rows(const kith_grid *grid, const void *query, float base, const unsigned char *const *rows,
                    size_t count, float *out) {
    const kith_affine affine = affine_of(query, base);
    if (has_lines(grid)) {
        kith_simd()->estimates.lines[grid->planes[0].width_log2](
            part_of_const(grid, query, 0) + grid->step_first[0], rows, count, grid->word_count, &affine, out);
        return;
    }
    for (size_t i = 0; i < count; i += 4) estimate_four(grid, query, &affine, rows + i, out + i);
}

/* How far from its use a word is fetched from memory: no more, as a block of many dimensions fills half of the first
 * level. */
enum { PARTS_MAX = 2 * KITH_CODE_QUERIES_MAX, AHEAD_BYTES = 4096 };
typedef int32_t block_dots[PARTS_MAX * KITH_BLOCK_ROWS];

/* `parts`: in natural order, or split. `ahead`: a block to come, or NULL. */
static void dots_of_block(const kith_grid *grid, const int8_t *const *parts, size_t part_count,
                          const uint32_t *words, const uint32_t *ahead, block_dots sums) {
    const kith_simd_table *simd = kith_simd();
    for (size_t p = 0; p < grid->plane_count; p++) {
        const kith_grid_plane *plane = &grid->planes[p];
        block_dots more;
        size_t first = plane->first_word * BLOCK_WORDS;
        (grid->split_first > 0 ? simd->splits.block : simd->fields[plane->width_log2].block)(
            parts, part_count, words + first, plane->word_count, ahead == NULL ? NULL : ahead + first,
            p == 0 ? sums : more);
        if (p > 0) simd->estimates.next_plane(sums, more, plane->width, part_count * KITH_BLOCK_ROWS);
    }
}

/* The estimates of all queries for a block; `factors` begins behind its planes. */
static void estimate_block(const kith_grid *grid, const kith_affine *affines, size_t query_count,
                           const int32_t *dots, const uint32_t *factors, float *out, size_t out_stride) {
    static const float zeros[KITH_BLOCK_ROWS];
    static const float ones[KITH_BLOCK_ROWS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                                1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    const kith_estimate_kernels *estimates = &kith_simd()->estimates;
    if (grid->factors == KITH_FACTORS_F16) {
        const uint16_t *add = (const uint16_t *)(const void *)factors;
        estimates->block_f16(affines, query_count, grid->query_parts, dots, add, add + KITH_BLOCK_ROWS, out,
                             out_stride);
        return;
    }
    const float *add = grid->factor_words > 0 ? (const float *)(const void *)factors : zeros;
    const float *scale = grid->factor_words == 2 ? add + KITH_BLOCK_ROWS : ones;
    estimates->block(affines, query_count, grid->query_parts, dots, add, scale, out, out_stride);
}

void kith_grid_scan(const kith_grid *grid, const void *const *queries, const float *bases, size_t query_count,
                    const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    const int8_t *parts[PARTS_MAX];
    kith_affine affines[KITH_CODE_QUERIES_MAX];
    for (size_t q = 0; q < query_count; q++) {
        for (size_t p = 0; p < grid->query_parts; p++)
            parts[q * grid->query_parts + p] = part_of_const(grid, queries[q], p) + grid->split_first;
        affines[q] = affine_of(queries[q], bases[q]);
    }
    const size_t block_words = grid->block_bytes / sizeof(uint32_t);
    block_dots dots;
    for (size_t b = 0; b < block_count; b++) {
        const uint32_t *words = (const uint32_t *)(const void *)(blocks + b * grid->block_bytes), *ahead = NULL;
        if (b + 1 < block_count) {
            ahead = words + kith_min_size(AHEAD_BYTES / sizeof *words, (block_count - 1 - b) * block_words);
            for (size_t w = grid->word_count * BLOCK_WORDS; w < block_words; w += CACHE_LINE / sizeof *words)
                __builtin_prefetch(ahead + w);
        }
        dots_of_block(grid, parts, query_count * grid->query_parts, words, ahead, dots);
        estimate_block(grid, affines, query_count, dots, words + grid->word_count * BLOCK_WORDS,
                       out + b * KITH_BLOCK_ROWS, out_stride);
    }
}
