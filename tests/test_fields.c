/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fields.c: the kernels of fields.h on every instruction set of this machine, against the reference; the
 * reference against the definition. Operands end where an unmapped page begins. check_neon.sh runs this program under
 * an emulator as well.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/random.h"
#include "simd/simd.h"

static const char *const names[] = {"ref", "avx2", "avx512", "avx512-vbmi", "avx512-vnni", "neon", "neon-dotprod"};
#define EACH_TABLE(table)                                                                                          \
    for (size_t n_ = 0; n_ < sizeof names / sizeof *names; n_++)                                                   \
        for (const kith_simd_table *table = kith_simd_find(names[n_]); table != NULL; table = NULL)

enum { QUERIES = 16, WORDS_MAX = 8192, QUERY_BYTES_MAX = 1 << 17 };

/* ---- memory that ends at an unmapped page ---- */

typedef struct guarded {
    unsigned char *first;
    size_t bytes;
} guarded;

static guarded guarded_make(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    bytes = (bytes + page - 1) / page * page;
    unsigned char *all = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(all != MAP_FAILED);
    cr_assert_eq(mprotect(all + bytes, page, PROT_NONE), 0);
    return (guarded){all, bytes};
}

static void *place(guarded memory, size_t bytes) {
    cr_assert_leq(bytes, memory.bytes);
    return memory.first + memory.bytes - bytes;
}

/* Copies to the end of the memory. */
static void *put(guarded memory, const void *from, size_t bytes) {
    return memcpy(place(memory, bytes), from, bytes);
}

/* ---- values ---- */

typedef enum kind { RANDOM, LARGEST, SMALLEST, EXTREME_SIGNS, KIND_COUNT } kind;

static uint64_t counter;
static uint64_t bits_now(void) { return kith_random_u64(17, 4, counter++); }

static void fill_words(uint32_t *words, size_t count, kind k) {
    for (size_t w = 0; w < count; w++) words[w] = k == RANDOM ? (uint32_t)bits_now() : UINT32_MAX;
}

static void fill_query(int8_t *query, size_t count, kind k) {
    for (size_t i = 0; i < count; i++) {
        uint64_t bits = bits_now();
        query[i] = (int8_t)(k == RANDOM ? (int)(bits % 255) - 127 : k == LARGEST ? 127 : -127);
        if (k == EXTREME_SIGNS) query[i] = bits % 2 != 0 ? 127 : -127;
    }
}

/* From natural order; `padded` words a step. */
static void to_steps(unsigned width, const int8_t *natural, size_t word_count, size_t padded, int8_t *query) {
    const size_t steps = 8 / width;
    memset(query, 0, steps * padded * 4);
    for (size_t w = 0; w < word_count; w++)
        for (size_t j = 0; j < steps; j++) memcpy(query + (j * padded + w) * 4, natural + (w * steps + j) * 4, 4);
}

static size_t pad(size_t words) { return (words + 15) / 16 * 16; }

/* Dimension d of a row, by the definition of a plane. */
static int64_t field(unsigned width, const uint32_t *words, size_t stride, size_t d) {
    size_t per_word = 32 / width, in_word = d % per_word, i = in_word % 4, j = in_word / 4;
    return words[d / per_word * stride] >> (8 * i + width * j) & ((1u << width) - 1);
}

static const size_t large_counts[] = {79, 96, 127, 128, 129, 255, 300, 1024};

/* 1..70 and the large ones, then 0. */
static size_t word_count_at(size_t i) {
    if (i < 70) return i + 1;
    return i - 70 < sizeof large_counts / sizeof *large_counts ? large_counts[i - 70] : 0;
}

/* ---- block ---- */

typedef struct block_case {
    unsigned log2;
    size_t word_count, query_bytes;
    guarded words_at, out_at, query_at[QUERIES], split_at[QUERIES];
    const int8_t *queries[QUERIES];
    const uint32_t *words;
    int32_t want[QUERIES * KITH_BLOCK_ROWS];
} block_case;

static void lay_out_block(block_case *c, kind k) {
    static uint32_t words[1024 * KITH_BLOCK_ROWS];
    static int8_t query[1024 * 32];
    fill_words(words, c->word_count * KITH_BLOCK_ROWS, k);
    c->words = put(c->words_at, words, c->word_count * KITH_BLOCK_ROWS * 4);
    for (size_t q = 0; q < QUERIES; q++) {
        fill_query(query, c->query_bytes, k);
        c->queries[q] = put(c->query_at[q], query, c->query_bytes);
    }
}

static void check_block_definition(const block_case *c) {
    unsigned width = 1u << c->log2;
    for (size_t q = 0; q < QUERIES; q += 5)
        for (size_t r = 0; r < KITH_BLOCK_ROWS; r++) {
            int64_t sum = 0;
            for (size_t d = 0; d < c->query_bytes; d++)
                sum += c->queries[q][d] * field(width, c->words + r, KITH_BLOCK_ROWS, d);
            cr_assert_eq(c->want[q * KITH_BLOCK_ROWS + r], sum, "width %u, %zu words", width, c->word_count);
        }
}

static void check_splits(const block_case *c, const kith_simd_table *table, size_t first, size_t count,
                         const uint32_t *ahead, int32_t *out) {
    const size_t split_bytes = kith_split_bytes(c->word_count), bytes = count * KITH_BLOCK_ROWS * sizeof *out;
    const int8_t *splits[QUERIES];
    for (size_t q = 0; q < count; q++) {
        int8_t *to = place(c->split_at[q], split_bytes);
        memset(to, 0x55, split_bytes);
        table->splits.split(c->queries[first + q], c->word_count, to);
        splits[q] = to;
    }
    memset(out, 0x55, bytes);
    table->splits.block(splits, count, c->words, c->word_count, ahead, out);
    cr_assert_arr_eq(out, c->want + first * KITH_BLOCK_ROWS, bytes, "%s: %zu words, %zu split queries",
                     table->full_name, c->word_count, count);
}

static void check_block_tables(const block_case *c) {
    EACH_TABLE(table) {
        for (size_t count = 1; count <= QUERIES; count++) {
            /* Many words: a choice of tiles is enough; what the reference gave is not asked of it again. */
            if (c->word_count > 20 && count % 5 > 1) continue;
            if (c->word_count > 4 && table == kith_simd_find("ref")) continue;
            size_t bytes = count * KITH_BLOCK_ROWS * sizeof(int32_t);
            int32_t *out = place(c->out_at, bytes);
            memset(out, 0x55, bytes);
            /* The last queries: another choice for each count. */
            size_t first = QUERIES - count;
            const uint32_t *ahead = count % 2 == 0 ? c->words : NULL;
            table->fields[c->log2].block(c->queries + first, count, c->words, c->word_count, ahead, out);
            cr_assert_arr_eq(out, c->want + first * KITH_BLOCK_ROWS, bytes, "%s: width %u, %zu words, %zu queries",
                             table->full_name, 1u << c->log2, c->word_count, count);
            if (c->log2 == 3 && table->splits.split != NULL) check_splits(c, table, first, count, ahead, out);
        }
    }
}

static void check_block(unsigned log2) {
    block_case c = {.log2 = log2};
    c.words_at = guarded_make(1024 * KITH_BLOCK_ROWS * 4);
    c.out_at = guarded_make(sizeof c.want);
    for (size_t q = 0; q < QUERIES; q++) c.query_at[q] = guarded_make(1024 * 32);
    for (size_t q = 0; log2 == 3 && q < QUERIES; q++) c.split_at[q] = guarded_make(kith_split_bytes(8192));
    for (size_t i = 0; (c.word_count = word_count_at(i)) > 0; i++) {
        if (c.word_count * 32 >> log2 > 32768) break; /* dimensions */
        c.query_bytes = c.word_count * 32 >> log2;
        for (kind k = 0; k < KIND_COUNT; k++) {
            lay_out_block(&c, k);
            kith_simd_find("ref")->fields[log2].block(c.queries, QUERIES, c.words, c.word_count, NULL, c.want);
            if (i % 9 == 0) check_block_definition(&c);
            check_block_tables(&c);
        }
    }
}

Test(fields, blocks_of_1_bit) { check_block(0); }
Test(fields, blocks_of_2_bits) { check_block(1); }
Test(fields, blocks_of_4_bits) { check_block(2); }
Test(fields, blocks_of_8_bits) { check_block(3); }

/* ---- four, lines ---- */

typedef struct four_case {
    unsigned log2;
    size_t word_count;
    guarded query_at, row_at[4];
    int8_t *natural; /* query */
    const uint32_t *rows[4];
    int32_t want[4];
} four_case;

static const int8_t *steps_of(const four_case *c, size_t padded) {
    static int8_t query[QUERY_BYTES_MAX];
    to_steps(1u << c->log2, c->natural, c->word_count, padded, query);
    return put(c->query_at, query, padded * 4 * (8u >> c->log2));
}

static void check_four_tables(const four_case *c) {
    const int8_t *query = steps_of(c, pad(c->word_count));
    EACH_TABLE(table) {
        int32_t out[4] = {7, 7, 7, 7};
        table->fields[c->log2].four(query, c->rows, c->word_count, out);
        cr_assert_arr_eq(out, c->want, sizeof out, "%s: width %u, %zu words", table->full_name, 1u << c->log2,
                         c->word_count);
    }
}

static uint16_t finite_half(void) {
    uint16_t half = (uint16_t)bits_now();
    return (half & 0x7c00) == 0x7c00 ? (uint16_t)(half & 0x83ff) : half; /* infinity and NaN: a denormal instead */
}

static float float_of(uint16_t half) {
    float value;
    kith_simd_find("ref")->f32_from_f16(&half, 1, &value);
    return value;
}

/* By the definition; the products of the parts are `stride` apart. */
static float estimate(const kith_affine *a, size_t parts, const int32_t *dots, size_t stride, float add,
                      float scale) {
    float inner = fmaf((float)dots[(parts - 1) * stride], a->unit, a->offset);
    if (parts == 2) inner = fmaf((float)dots[0], 128 * a->unit, inner);
    return fmaf(a->step, fmaf(scale, inner, add), a->base);
}

enum { ROWS_MAX = 36 };

/* The same rows with a word of factors behind. */
static void check_lines(four_case *c, const uint32_t *const words[4]) {
    const kith_affine affine = {.unit = 0.0131f, .offset = -3.7f, .step = 0x1p-3f, .base = 11.3f};
    float add[4], scale[4];
    for (size_t r = 0; r < 4; r++) {
        uint16_t halves[2] = {finite_half(), finite_half()};
        uint32_t factors = halves[0] | (uint32_t)halves[1] << 16;
        add[r] = float_of(halves[0]);
        scale[r] = float_of(halves[1]);
        uint32_t *row = place(c->row_at[r], (c->word_count + 1) * 4);
        memcpy(row, words[r], c->word_count * 4);
        row[c->word_count] = factors;
        c->rows[r] = row;
    }
    const int8_t *query = steps_of(c, pad(c->word_count + 1));
    EACH_TABLE(table) {
        float out[4] = {7, 7, 7, 7};
        const unsigned char *rows[ROWS_MAX];
        for (size_t r = 0; r < ROWS_MAX; r++) rows[r] = (const unsigned char *)c->rows[(r + r / 4) % 4];
        table->estimates.lines[c->log2](query, rows, 4, c->word_count, &affine, out);
        for (size_t r = 0; r < 4; r++) {
            float want = estimate(&affine, 1, &c->want[r], 4, add[r], scale[r]);
            cr_assert_eq(memcmp(&want, &out[r], sizeof want), 0, "%s: width %u, %zu words: %a instead of %a",
                         table->full_name, 1u << c->log2, c->word_count, (double)out[r], (double)want);
        }
        for (size_t count = 8; count <= ROWS_MAX; count += 4) {
            float many[ROWS_MAX + 1];
            many[count] = 7;
            table->estimates.lines[c->log2](query, rows, count, c->word_count, &affine, many);
            for (size_t r = 0; r < count; r++)
                cr_assert_eq(memcmp(&many[r], &out[(r + r / 4) % 4], sizeof *out), 0,
                             "%s: width %u, %zu words, row %zu of %zu", table->full_name, 1u << c->log2,
                             c->word_count, r, count);
            cr_assert_eq(many[count], 7);
        }
    }
}

static void check_four_case(four_case *c, kind k) {
    static uint32_t words[4][WORDS_MAX];
    const uint32_t *const from[4] = {words[0], words[1], words[2], words[3]};
    size_t dims = c->word_count * 32 >> c->log2;
    fill_query(c->natural, dims, k);
    for (size_t r = 0; r < 4; r++) {
        fill_words(words[r], c->word_count, k);
        c->rows[r] = put(c->row_at[r], words[r], c->word_count * 4);
        c->want[r] = 0;
        for (size_t d = 0; d < dims; d++)
            c->want[r] += (int32_t)(c->natural[d] * field(1u << c->log2, words[r], 1, d));
    }
    check_four_tables(c);
    if (c->word_count < WORDS_MAX) check_lines(c, from);
}

static void check_four(unsigned log2) {
    static int8_t natural[QUERY_BYTES_MAX];
    four_case c = {.log2 = log2, .natural = natural};
    c.query_at = guarded_make(QUERY_BYTES_MAX);
    for (size_t r = 0; r < 4; r++) c.row_at[r] = guarded_make((WORDS_MAX + 16) * 4);
    for (size_t i = 0; (c.word_count = word_count_at(i)) > 0; i++)
        for (kind k = 0; k < KIND_COUNT; k++) check_four_case(&c, k);
    c.word_count = (size_t)1024 << log2; /* 32,768 dimensions */
    for (kind k = 0; k < KIND_COUNT; k++) check_four_case(&c, k);
}

Test(fields, four_rows_of_1_bit) { check_four(0); }
Test(fields, four_rows_of_2_bits) { check_four(1); }
Test(fields, four_rows_of_4_bits) { check_four(2); }
Test(fields, four_rows_of_8_bits) { check_four(3); }

/* ---- estimates ---- */

static float random_float(void) {
    return ldexpf((float)(int64_t)(bits_now() >> 20) - 0x1p43f, (int)(bits_now() % 60) - 70);
}

enum { ESTIMATE_QUERIES = 5, STRIDE = KITH_BLOCK_ROWS + 1 };

static void check_estimates(size_t parts, size_t query_count, const guarded at[6]) {
    const size_t dot_count = query_count * parts * KITH_BLOCK_ROWS;
    int32_t *dots = place(at[0], dot_count * 4);
    float *add = place(at[1], KITH_BLOCK_ROWS * 4), *scale = place(at[2], KITH_BLOCK_ROWS * 4);
    uint16_t *half_add = place(at[3], KITH_BLOCK_ROWS * 2), *half_scale = place(at[4], KITH_BLOCK_ROWS * 2);
    size_t out_count = (query_count - 1) * STRIDE + KITH_BLOCK_ROWS;
    float *out = place(at[5], out_count * 4);
    kith_affine queries[ESTIMATE_QUERIES];
    for (size_t q = 0; q < query_count; q++)
        queries[q] =
            (kith_affine){random_float(), random_float(), ldexpf(1, (int)(bits_now() % 80) - 40), random_float()};
    for (size_t i = 0; i < dot_count; i++) dots[i] = (int32_t)bits_now() >> (bits_now() % 24);
    float want[ESTIMATE_QUERIES * STRIDE], want_f16[ESTIMATE_QUERIES * STRIDE];
    memset(want, 0, sizeof want); /* between the rows of one query and those of the next nothing is written */
    memset(want_f16, 0, sizeof want_f16);
    for (size_t r = 0; r < KITH_BLOCK_ROWS; r++) {
        add[r] = random_float();
        scale[r] = random_float();
        half_add[r] = finite_half();
        half_scale[r] = finite_half();
        for (size_t q = 0; q < query_count; q++) {
            const int32_t *from = dots + q * parts * KITH_BLOCK_ROWS + r;
            want[q * STRIDE + r] = estimate(&queries[q], parts, from, KITH_BLOCK_ROWS, add[r], scale[r]);
            want_f16[q * STRIDE + r] =
                estimate(&queries[q], parts, from, KITH_BLOCK_ROWS, float_of(half_add[r]), float_of(half_scale[r]));
        }
    }
    EACH_TABLE(table) {
        const kith_estimate_kernels *k = &table->estimates;
        memset(out, 0, out_count * 4);
        k->block(queries, query_count, parts, dots, add, scale, out, STRIDE);
        cr_assert_arr_eq(out, want, out_count * 4, "%s: %zu queries of %zu parts", table->full_name, query_count,
                         parts);
        memset(out, 0, out_count * 4);
        k->block_f16(queries, query_count, parts, dots, half_add, half_scale, out, STRIDE);
        cr_assert_arr_eq(out, want_f16, out_count * 4, "%s: %zu queries of %zu parts, f16", table->full_name,
                         query_count, parts);
        int32_t four_dots[8];
        for (size_t i = 0; i < 8; i++) four_dots[i] = dots[i / 4 * KITH_BLOCK_ROWS % dot_count + i % 4];
        k->four(queries, parts, four_dots, add, scale, out);
        cr_assert_arr_eq(out, want, 4 * sizeof *out, "%s: four, %zu parts", table->full_name, parts);
    }
}

Test(fields, estimates) {
    guarded at[6];
    for (size_t i = 0; i < 6; i++) at[i] = guarded_make(ESTIMATE_QUERIES * 2 * STRIDE * 4);
    for (size_t round = 0; round < 20; round++)
        for (size_t parts = 1; parts <= 2; parts++)
            for (size_t count = 1; count <= ESTIMATE_QUERIES; count++) check_estimates(parts, count, at);
}

Test(fields, planes_are_taken_in) {
    enum { MOST = 70 };
    guarded sums_at = guarded_make(MOST * 4), dots_at = guarded_make(MOST * 4);
    for (size_t count = 0; count <= MOST; count++)
        for (unsigned bits = 1; bits <= 4; bits++) {
            int32_t *sums = place(sums_at, count * 4), *dots = place(dots_at, count * 4), from[MOST];
            for (size_t i = 0; i < count; i++) {
                from[i] = (int32_t)bits_now() >> 6;
                dots[i] = (int32_t)bits_now() >> 6;
            }
            EACH_TABLE(table) {
                memcpy(sums, from, count * 4);
                table->estimates.next_plane(sums, dots, bits, count);
                for (size_t i = 0; i < count; i++)
                    cr_assert_eq(sums[i], from[i] * (1 << bits) + dots[i], "%s, %zu", table->full_name, count);
            }
        }
}

/* ---- rounding ---- */

Test(fields, queries_are_rounded_to_whole_numbers) {
    enum { MOST = 300 };
    guarded values_at = guarded_make(MOST * 4), high_at = guarded_make(MOST), low_at = guarded_make(MOST);
    for (size_t count = 0; count <= MOST; count += count < 70 ? 1 : 23) {
        float *values = place(values_at, count * 4);
        float most = 0, factor = 0.25f;
        for (size_t i = 0; i < count; i++) {
            values[i] = (float)(int64_t)(bits_now() % 140000) -
                        70000.0f; /* with the factor: ties, and beyond both limits */
            if (i % 2 != 0) values[i] = (float)(int64_t)(bits_now() % 1200) - 600.0f;
            most = fmaxf(most, fabsf(values[i]));
        }
        EACH_TABLE(table) {
            const kith_rounding_kernels *k = &table->rounding;
            int8_t *high = place(high_at, count), *low = place(low_at, count);
            cr_assert_eq(k->largest(values, count), most, "%s, %zu", table->full_name, count);
            int32_t sum = k->to_s8(values, count, factor, high);
            for (size_t i = 0; i < count; i++) {
                sum -= high[i];
                float want = fminf(fmaxf(rintf(values[i] * factor), -127), 127);
                cr_assert_eq((float)high[i], want, "%s, %zu of %zu", table->full_name, i, count);
            }
            cr_assert_eq(sum, 0, "%s, %zu", table->full_name, count);
            sum = k->to_s15(values, count, factor, high, low);
            for (size_t i = 0; i < count; i++) {
                sum -= 128 * high[i] + low[i];
                float want = fminf(fmaxf(rintf(values[i] * factor), -16256), 16256);
                cr_assert_eq((float)(128 * high[i] + low[i]), want, "%s, %zu of %zu", table->full_name, i, count);
                cr_assert(low[i] >= -64 && low[i] < 64 && high[i] >= -127);
            }
            cr_assert_eq(sum, 0, "%s, %zu", table->full_name, count);
        }
    }
}

/* One value among whole numbers: `is_byte` says whether it is one of lowest..lowest + 255. */
static void check_bytes(const guarded at[2], size_t count, int32_t lowest, float odd, bool is_byte) {
    float *values = place(at[0], count * 4);
    size_t odd_at = count == 0 ? 0 : (size_t)(bits_now() % count);
    for (size_t i = 0; i < count; i++) values[i] = (float)((int32_t)(bits_now() % 256) + lowest);
    if (count > 0) values[odd_at] = odd;
    EACH_TABLE(table) {
        uint8_t *bytes = place(at[1], count);
        bool are_bytes = table->rounding.as_bytes(values, count, lowest, bytes);
        cr_assert_eq(are_bytes, is_byte || count == 0, "%s: %g at %zu of %zu, from %d on", table->full_name,
                     (double)odd, odd_at, count, lowest);
        for (size_t i = 0; are_bytes && i < count; i++)
            cr_assert_eq(lowest == 0 ? (float)bytes[i] : (float)(int8_t)bytes[i], values[i], "%s, %zu of %zu",
                         table->full_name, i, count);
    }
}

Test(fields, queries_of_bytes_are_known) {
    enum { MOST = 300 };
    const guarded at[2] = {guarded_make(MOST * 4), guarded_make(MOST)};
    static const float no_bytes[] = {-0.0f, 0.5f,  -0x1p-140f, 254.99998f, 256,      -129,      1e9f,
                                     3e9f,  -3e9f, 1e30f,      -1e30f,     INFINITY, -INFINITY, NAN};
    for (size_t count = 0; count <= MOST; count += count < 140 ? 1 : 23)
        for (int32_t lowest = -128; lowest <= 0; lowest += 128) {
            check_bytes(at, count, lowest, (float)lowest, true);
            check_bytes(at, count, lowest, (float)(lowest + 255), true);
            check_bytes(at, count, lowest, (float)(lowest + 256), false);
            check_bytes(at, count, lowest, (float)(lowest - 1), false);
            for (size_t i = 0; i < sizeof no_bytes / sizeof *no_bytes; i++)
                check_bytes(at, count, lowest, no_bytes[i], false);
        }
}
