/* SPDX-License-Identifier: Apache-2.0
 *
 * fields_pairs.h: the integer kernels of fields.h without an instruction that adds four products of bytes to 32 bits:
 * included once by the files of AVX2 and AVX-512, which define VEC, LANES (words in a register), TILE_QUERIES,
 * the operations below and the kernels of estimates.
 *
 * maddubs adds two products of an unsigned field with a signed byte in 16 bits. For fields of up to 4 bits that is
 * exact, and so are a few such sums added up, before madd takes them to 32 bits. Fields of 8 bits would overflow at
 * once: even and odd bytes are widened to 16 bits, and madd adds two products of these in 32.
 */
#include <string.h>

#include "simd/unroll.h"

/* In a register, and made here: without it gcc takes the fields of later steps first and has no registers left. */
#define STAYS(sum) __asm__("" : "+v"(sum))

enum { TILE_VECTORS = 2, TILE_ROWS = TILE_VECTORS * LANES, SUM16_MAX = INT16_MAX, QUERY_MAX = 127 };
enum { WIDE_WORDS = 64 }; /* of queries of bytes that are widened at a time: a multiple of LANES */

/* Words whose sums fit 16 bits: each adds 8 / width times two products, at most. */
INLINE size_t chunk_words(unsigned width) {
    return width == 8 ? WIDE_WORDS : (size_t)SUM16_MAX / (2 * QUERY_MAX * ((1u << width) - 1)) * width / 8;
}

INLINE VEC field_of(VEC words, unsigned width, unsigned step) {
    return and_words(step == 0 ? words : shift_right(words, step * width),
                     set_words(0x01010101u * ((1u << width) - 1)));
}

/* Of 16 bits, for width 8 of 32. */
INLINE VEC flush(VEC sum, unsigned width) { return width == 8 ? sum : madd(sum, set_words(0x00010001)); }

INLINE VEC even_fields(VEC words) { return and_words(words, set_words(0x00ff00ff)); }
INLINE VEC odd_fields(VEC words) { return shift_right_8_u16(words); }
INLINE VEC even_bytes(VEC query) { return shift_right_8_i16(shift_left_8_16(query)); }
INLINE VEC odd_bytes(VEC query) { return shift_right_8_i16(query); }

/* ---- block ---- */

INLINE VEC query_word(const int8_t *query) {
    uint32_t word;
    memcpy(&word, query, sizeof word);
    return set_words(word);
}

INLINE void add_word(unsigned width, size_t count, const int8_t *const *queries, size_t at, const uint32_t *words,
                     VEC sums[TILE_QUERIES][TILE_VECTORS]) {
    VEC first = load_words(words), second = load_words(words + LANES);
    KITH_UNROLL(8)
    for (unsigned step = 0; step < 8 / width; step++) {
        VEC fields[2] = {field_of(first, width, step), field_of(second, width, step)};
        KITH_UNROLL(8)
        for (size_t q = 0; q < count; q++) {
            VEC bytes = query_word(queries[q] + at + step * 4);
            sums[q][0] = add_16(sums[q][0], maddubs(fields[0], bytes));
            sums[q][1] = add_16(sums[q][1], maddubs(fields[1], bytes));
            STAYS(sums[q][0]);
            STAYS(sums[q][1]);
        }
    }
}

/* Words of a tile's queries, their even and their odd bytes as 16 bits each. */
typedef struct wide_queries {
    int8_t even[TILE_QUERIES][WIDE_WORDS * 4], odd[TILE_QUERIES][WIDE_WORDS * 4];
} wide_queries;

INLINE void widen(size_t count, const int8_t *const *queries, size_t first, size_t word_count, wide_queries *wide) {
    KITH_UNROLL(8)
    for (size_t q = 0; q < count; q++)
        for (size_t w = 0; w < word_count; w += LANES) {
            const void *from = queries[q] + (first + w) * 4;
            VEC bytes = word_count - w >= LANES ? load_words(from) : load_part(from, word_count - w);
            store_words(wide->even[q] + w * 4, even_bytes(bytes));
            store_words(wide->odd[q] + w * 4, odd_bytes(bytes));
        }
}

INLINE void add_byte_word(size_t count, const wide_queries *wide, size_t at, const uint32_t *words,
                          VEC sums[TILE_QUERIES][TILE_VECTORS]) {
    VEC first = load_words(words), second = load_words(words + LANES);
    VEC even[2] = {even_fields(first), even_fields(second)}, odd[2] = {odd_fields(first), odd_fields(second)};
    KITH_UNROLL(8)
    for (size_t q = 0; q < count; q++) {
        VEC even_query = query_word(wide->even[q] + at), odd_query = query_word(wide->odd[q] + at);
        KITH_UNROLL(2)
        for (size_t v = 0; v < TILE_VECTORS; v++) {
            sums[q][v] = add_32(sums[q][v], add_32(madd(even[v], even_query), madd(odd[v], odd_query)));
            STAYS(sums[q][v]);
        }
    }
}

/* TILE_ROWS rows, whose words are at words[w * KITH_BLOCK_ROWS]; `next`: those that are fetched meanwhile. */
INLINE void block_part(unsigned width, size_t count, const int8_t *const *queries, const uint32_t *words,
                       size_t word_count, const uint32_t *next, int32_t *out) {
    const size_t word_bytes = 32 / width;
    wide_queries wide;
    size_t w = 0;
    do {
        VEC sums[TILE_QUERIES][TILE_VECTORS];
        KITH_UNROLL(8)
        for (size_t q = 0; q < count; q++) sums[q][0] = sums[q][1] = set_words(0);
        const size_t first = w, end = word_count - w > chunk_words(width) ? w + chunk_words(width) : word_count;
        if (width == 8) widen(count, queries, first, end - first, &wide);
        for (; w < end; w++) {
            _mm_prefetch((const char *)(next + w * KITH_BLOCK_ROWS), _MM_HINT_T0);
            if (LANES == 16) _mm_prefetch((const char *)(next + w * KITH_BLOCK_ROWS + LANES), _MM_HINT_T0);
            if (width == 8)
                add_byte_word(count, &wide, (w - first) * word_bytes, words + w * KITH_BLOCK_ROWS, sums);
            else
                add_word(width, count, queries, w * word_bytes, words + w * KITH_BLOCK_ROWS, sums);
        }
        KITH_UNROLL(8)
        for (size_t q = 0; q < count; q++) {
            KITH_UNROLL(2)
            for (size_t v = 0; v < TILE_VECTORS; v++) {
                int32_t *to = out + q * KITH_BLOCK_ROWS + v * LANES;
                VEC sum = flush(sums[q][v], width);
                store_words(to, first == 0 ? sum : add_32(load_words(to), sum));
            }
        }
    } while (w < word_count);
}

INLINE void block_tile(unsigned width, size_t count, const int8_t *const *all_queries, const uint32_t *words,
                       size_t word_count, const uint32_t *next, int32_t *out) {
    const int8_t *queries[TILE_QUERIES];
    KITH_UNROLL(8)
    for (size_t q = 0; q < count; q++) queries[q] = all_queries[q];
    for (size_t r = 0; r < KITH_BLOCK_ROWS; r += TILE_ROWS)
        block_part(width, count, queries, words + r, word_count, next + r, out + r);
}

INLINE void block(unsigned width, const int8_t *const *queries, size_t query_count, const uint32_t *words,
                  size_t word_count, const uint32_t *next, int32_t *out) {
    size_t count = TILE_QUERIES;
    for (; query_count > 0; queries += count, query_count -= count, out += count * KITH_BLOCK_ROWS) {
        if (TILE_QUERIES == 8 && query_count >= 8) {
            block_tile(width, count = TILE_QUERIES, queries, words, word_count, next, out);
            continue;
        }
        if (query_count >= 4)
            block_tile(width, count = 4, queries, words, word_count, next, out);
        else if (query_count == 3)
            block_tile(width, count = 3, queries, words, word_count, next, out);
        else if (query_count == 2)
            block_tile(width, count = 2, queries, words, word_count, next, out);
        else
            block_tile(width, count = 1, queries, words, word_count, next, out);
    }
}

/* ---- four ---- */

INLINE void add_group(unsigned width, const int8_t *query, size_t step_bytes, const VEC words[4], VEC sums[4]) {
    KITH_UNROLL(8)
    for (unsigned step = 0; step < 8 / width; step++) {
        VEC bytes = load_words(query + step * step_bytes);
        KITH_UNROLL(4)
        for (size_t r = 0; r < 4; r++) {
            sums[r] = add_16(sums[r], maddubs(field_of(words[r], width, step), bytes));
            STAYS(sums[r]);
        }
    }
}

INLINE void add_byte_group(const int8_t *query, const VEC words[4], VEC sums[4]) {
    VEC bytes = load_words(query), even_query = even_bytes(bytes), odd_query = odd_bytes(bytes);
    KITH_UNROLL(4)
    for (size_t r = 0; r < 4; r++)
        sums[r] =
            add_32(sums[r], add_32(madd(even_fields(words[r]), even_query), madd(odd_fields(words[r]), odd_query)));
}

INLINE __m128i dots_of_four(unsigned width, const int8_t *query, const uint32_t *const rows[4], size_t word_count) {
    const size_t step_bytes = (word_count + 15) / 16 * 16 * sizeof **rows;
    VEC totals[4];
    KITH_UNROLL(4)
    for (size_t r = 0; r < 4; r++) totals[r] = set_words(0);
    for (size_t w = 0; w < word_count;) {
        VEC sums[4], words[4];
        KITH_UNROLL(4)
        for (size_t r = 0; r < 4; r++) sums[r] = set_words(0);
        size_t end = w + (width == 8 ? word_count : chunk_words(width) * LANES);
        for (; w < end && w < word_count; w += LANES) {
            KITH_UNROLL(4)
            for (size_t r = 0; r < 4; r++)
                words[r] =
                    word_count - w >= LANES ? load_words(rows[r] + w) : load_part(rows[r] + w, word_count - w);
            if (width == 8)
                add_byte_group(query + w * sizeof **rows, words, sums);
            else
                add_group(width, query + w * sizeof **rows, step_bytes, words, sums);
        }
        KITH_UNROLL(4)
        for (size_t r = 0; r < 4; r++) totals[r] = add_32(totals[r], flush(sums[r], width));
    }
    return fold_four(totals);
}

/* ---- estimates of four rows ---- */

INLINE __m128 f32_of_four(const int32_t *dots) {
    return _mm_cvtepi32_ps(_mm_loadu_si128((const __m128i *)(const void *)dots));
}

static void estimate_four(const kith_affine *query, size_t parts, const int32_t *dots, const float add[4],
                          const float scale[4], float out[4]) {
    __m128 unit = _mm_set1_ps(query->unit), offset = _mm_set1_ps(query->offset);
    __m128 inner = _mm_fmadd_ps(f32_of_four(dots + (parts - 1) * 4), unit, offset);
    if (parts == 2) inner = _mm_fmadd_ps(f32_of_four(dots), _mm_set1_ps(128 * query->unit), inner);
    _mm_storeu_ps(out, finish_four(query, inner, _mm_loadu_ps(add), _mm_loadu_ps(scale)));
}

/* ---- the table ---- */

#define KERNELS(WIDTH)                                                                                             \
    static void block_##WIDTH(const int8_t *const *queries, size_t query_count, const uint32_t *words,             \
                              size_t word_count, const uint32_t *ahead, int32_t *out) {                            \
        block(WIDTH, queries, query_count, words, word_count, ahead != NULL ? ahead : words, out);                 \
    }                                                                                                              \
    static void four_##WIDTH(const int8_t *query, const uint32_t *const rows[4], size_t word_count,                \
                             int32_t out[4]) {                                                                     \
        _mm_storeu_si128((__m128i *)(void *)out, dots_of_four(WIDTH, query, rows, word_count));                    \
    }
KERNELS(1)
KERNELS(2)
KERNELS(4)
KERNELS(8)

static void fill_fields(kith_simd_table *table) {
    static const kith_field_kernels fields[KITH_FIELD_WIDTHS] = {
        {block_1, four_1}, {block_2, four_2}, {block_4, four_4}, {block_8, four_8}};
    memcpy(table->fields, fields, sizeof fields);
    table->estimates.block = estimate_block;
    table->estimates.block_f16 = estimate_block_f16;
    table->estimates.four = estimate_four;
    table->estimates.next_plane = next_plane;
}
