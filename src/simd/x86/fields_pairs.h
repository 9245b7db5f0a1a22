/* SPDX-License-Identifier: Apache-2.0
 *
 * fields_pairs.h: the integer kernels of fields.h without an instruction that adds four products of bytes to 32 bits:
 * included once by the files of AVX2 and AVX-512, which define VEC, LANES (words in a register), TILE_QUERIES,
 * the operations below and the kernels of estimates.
 *
 * maddubs adds two products of an unsigned field with a signed byte in 16 bits. For fields of up to 4 bits that is
 * exact, and so are a few such sums added up, before madd takes them to 32 bits. Two products of fields of 8 bits may
 * overflow at once: block splits its queries (below), four widens even and odd bytes to 16 bits, and madd adds two
 * products of these in 32.
 */
#include <string.h>

#include "simd/unroll.h"

/* In a register, and made here: without it gcc takes the fields of later steps first and has no registers left. */
#define STAYS(sum) __asm__("" : "+v"(sum))

enum { TILE_VECTORS = 2, TILE_ROWS = TILE_VECTORS * LANES, SUM16_MAX = INT16_MAX, QUERY_MAX = 127 };

/* Words whose sums fit 16 bits: each adds 8 / width times two products, at most. */
INLINE size_t chunk_words(unsigned width) {
    return (size_t)SUM16_MAX / (2 * QUERY_MAX * ((1u << width) - 1)) * width / 8;
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

/* TILE_ROWS rows, whose words are at words[w * KITH_BLOCK_ROWS]; `next`: those that are fetched meanwhile. */
INLINE void block_part(unsigned width, size_t count, const int8_t *const *queries, const uint32_t *words,
                       size_t word_count, const uint32_t *next, int32_t *out) {
    const size_t word_bytes = 32 / width;
    size_t w = 0;
    do {
        VEC sums[TILE_QUERIES][TILE_VECTORS];
        KITH_UNROLL(8)
        for (size_t q = 0; q < count; q++) sums[q][0] = sums[q][1] = set_words(0);
        const size_t first = w, end = word_count - w > chunk_words(width) ? w + chunk_words(width) : word_count;
        for (; w < end; w++) {
            _mm_prefetch((const char *)(next + w * KITH_BLOCK_ROWS), _MM_HINT_T0);
            if (LANES == 16) _mm_prefetch((const char *)(next + w * KITH_BLOCK_ROWS + LANES), _MM_HINT_T0);
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

/* ---- block of bytes ---- */

/* Two products u q + u' q' of fields of up to 255 fit 16 bits where |q + q'| <= 128, and nearly all q and q' that
 * stand side by side have opposite signs or are that small. So a query is split once into
 *
 *   pairs    four bytes a word as maddubs takes them, but odd ones negated: they meet 255 - u, and `term`, 255 times
 *            their sum, makes up for that. Neighbours of one sign, as in pictures, so get opposite ones.
 *   wide     words of which a pair is too large nevertheless: their odd bytes are 0 among the pairs, and stand here,
 *            to be widened: in the odd bytes of a word whose even ones hold its number.
 *
 * It lies in memory as term, the number of wide words, pairs, wide words. */
enum { SPLIT_HEAD = 2 * sizeof(int32_t), PAIR_MAX = 128, FIELD_MAX = 255, SPLIT_WORDS = 64 };

typedef struct split_head {
    int32_t term;
    uint32_t wide_count;
} split_head;

INLINE uint32_t get_word(const int8_t *from) {
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}
INLINE void put_word(int8_t *to, uint32_t word) { memcpy(to, &word, sizeof word); }

/* Which words have a pair, of 16 bits each, beyond PAIR_MAX: a bit for each. */
INLINE uint32_t large_pairs(VEC pairs) {
    VEC left = sub_16(set_words(PAIR_MAX * 0x10001u), abs_16(pairs));
    return sign_bits(or_words(left, shift_left_by(left, 16)));
}

static void split(const int8_t *query, size_t word_count, int8_t *out) {
    const VEC odd = set_words(0xff00ff00u);
    int8_t *pairs = out + SPLIT_HEAD, *wide = pairs + word_count * 4;
    split_head head = {0, 0};
    VEC sums = set_words(0);
    for (size_t w = 0; w < word_count; w += LANES) {
        const size_t left = word_count - w;
        VEC bytes = left >= LANES ? load_words(query + w * 4)
                                  : load_part((const uint32_t *)(const void *)(query + w * 4), left);
        VEC signs = sub_8(xor_words(bytes, odd), odd);
        if (left >= LANES)
            store_words(pairs + w * 4, signs);
        else
            store_part(pairs + w * 4, signs, left);
        sums = add_32(sums, madd(shift_right_8_i16(bytes), set_words(0x10001)));
        for (uint32_t large = large_pairs(maddubs(set_words(0x01010101), signs)); large != 0; large &= large - 1) {
            const uint32_t at = (uint32_t)w + (uint32_t)__builtin_ctz(large), word = get_word(query + at * 4);
            put_word(pairs + at * 4, word & 0x00ff00ffu);
            put_word(wide + head.wide_count++ * 4, (word & 0xff00ff00u) | (at & 0xff) | (at & 0xff00) << 8);
            head.term -= query[at * 4 + 1] + query[at * 4 + 3];
        }
    }
    head.term = (head.term + sum_of_lanes(sums)) * FIELD_MAX;
    memcpy(out, &head, sizeof head);
}

INLINE void add_wide(size_t vectors, const int8_t *wide, size_t wide_count, const uint32_t *words,
                     VEC sums[VECTORS]) {
    for (; wide_count > 0; wide_count--, wide += 4) {
        const uint32_t word = get_word(wide);
        const uint32_t *at = words + ((word & 0xff) | (word >> 8 & 0xff00)) * KITH_BLOCK_ROWS;
        VEC bytes = odd_bytes(set_words(word));
        KITH_UNROLL(4)
        for (size_t v = 0; v < vectors; v++)
            sums[v] = add_32(sums[v], madd(odd_fields(load_words(at + v * LANES)), bytes));
    }
}

/* `vectors` registers of rows, whose words are at words[w * KITH_BLOCK_ROWS]. The sums are added to those in `out`, or
 * replace them; `next`: words that are fetched meanwhile. */
INLINE void split_part(size_t count, size_t vectors, const int8_t *const *queries, const uint32_t *words,
                       size_t word_count, const uint32_t *next, bool adds, int32_t *out) {
    const VEC odd = set_words(0xff00ff00u), ones = set_words(0x00010001);
    split_head heads[TILE_QUERIES];
    VEC sums[TILE_QUERIES][VECTORS];
    KITH_UNROLL(8)
    for (size_t q = 0; q < count; q++) {
        memcpy(&heads[q], queries[q], sizeof heads[q]);
        KITH_UNROLL(4)
        for (size_t v = 0; v < vectors; v++) sums[q][v] = set_words((uint32_t)heads[q].term);
    }
    for (size_t w = 0; w < word_count; w++) {
        const uint32_t *at = words + w * KITH_BLOCK_ROWS;
        VEC fields[VECTORS];
        KITH_UNROLL(4)
        for (size_t v = 0; v < vectors; v++) {
            fields[v] = xor_words(load_words(at + v * LANES), odd);
            if (v * LANES % 16 == 0)
                _mm_prefetch((const char *)(next + w * KITH_BLOCK_ROWS + v * LANES), _MM_HINT_T0);
        }
        KITH_UNROLL(8)
        for (size_t q = 0; q < count; q++) {
            VEC bytes = query_word(queries[q] + SPLIT_HEAD + w * 4);
            KITH_UNROLL(4)
            for (size_t v = 0; v < vectors; v++) {
                sums[q][v] = add_32(sums[q][v], madd(maddubs(fields[v], bytes), ones));
                STAYS(sums[q][v]);
            }
        }
    }
    KITH_UNROLL(8)
    for (size_t q = 0; q < count; q++) {
        add_wide(vectors, queries[q] + SPLIT_HEAD + word_count * 4, heads[q].wide_count, words, sums[q]);
        KITH_UNROLL(4)
        for (size_t v = 0; v < vectors; v++) {
            int32_t *to = out + q * KITH_BLOCK_ROWS + v * LANES;
            store_words(to, adds ? add_32(load_words(to), sums[q][v]) : sums[q][v]);
        }
    }
}

/* Rows `vectors` registers at a time for all queries: of many dimensions no more than these stay in the first level. */
INLINE void split_rows(size_t vectors, const int8_t *const *all_queries, size_t query_count, const uint32_t *words,
                       size_t word_count, const uint32_t *next, bool adds, int32_t *all_out) {
    for (size_t r = 0; r < KITH_BLOCK_ROWS; r += vectors * LANES) {
        const int8_t *const *queries = all_queries;
        const uint32_t *at = words + r, *ahead = next + r;
        int32_t *out = all_out + r;
        size_t left = query_count;
        for (; TILE_QUERIES == 8 && vectors == TILE_VECTORS && left >= 8;
             left -= 8, queries += 8, out += 8 * KITH_BLOCK_ROWS, ahead = at)
            split_part(8, vectors, queries, at, word_count, ahead, adds, out);
        for (; vectors == TILE_VECTORS && left >= 4;
             left -= 4, queries += 4, out += 4 * KITH_BLOCK_ROWS, ahead = at)
            split_part(4, vectors, queries, at, word_count, ahead, adds, out);
        if (vectors == TILE_VECTORS && left == 3)
            split_part(3, vectors, queries, at, word_count, ahead, adds, out);
        else if (left == 2)
            split_part(2, vectors, queries, at, word_count, ahead, adds, out);
        else if (left == 1)
            split_part(1, vectors, queries, at, word_count, ahead, adds, out);
    }
}

/* Few queries have registers to spare for all rows at once. */
static void split_sums(const int8_t *const *queries, size_t query_count, const uint32_t *words, size_t word_count,
                       const uint32_t *ahead, bool adds, int32_t *out) {
    if (ahead == NULL) ahead = words;
    if (query_count <= 2)
        split_rows(VECTORS, queries, query_count, words, word_count, ahead, adds, out);
    else
        split_rows(TILE_VECTORS, queries, query_count, words, word_count, ahead, adds, out);
}

static void split_block(const int8_t *const *queries, size_t query_count, const uint32_t *words, size_t word_count,
                        const uint32_t *ahead, int32_t *out) {
    split_sums(queries, query_count, words, word_count, ahead, false, out);
}

/* Queries that are not split yet: some words of a few of them at a time. */
static void block_8(const int8_t *const *queries, size_t query_count, const uint32_t *words, size_t word_count,
                    const uint32_t *ahead, int32_t *out) {
    int8_t splits[TILE_QUERIES][SPLIT_HEAD + 8 * SPLIT_WORDS];
    const int8_t *at[TILE_QUERIES];
    for (size_t q = 0; q < query_count; q += TILE_QUERIES) {
        const size_t count = query_count - q < TILE_QUERIES ? query_count - q : TILE_QUERIES;
        for (size_t w = 0; w < word_count; w += SPLIT_WORDS) {
            const size_t some = word_count - w < SPLIT_WORDS ? word_count - w : SPLIT_WORDS,
                         first = w * KITH_BLOCK_ROWS;
            for (size_t i = 0; i < count; i++) split(queries[q + i] + w * 4, some, splits[i]);
            for (size_t i = 0; i < count; i++) at[i] = splits[i];
            split_sums(at, count, words + first, some, ahead == NULL ? NULL : ahead + first, w > 0,
                       out + q * KITH_BLOCK_ROWS);
        }
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

#define BLOCK(WIDTH)                                                                                               \
    static void block_##WIDTH(const int8_t *const *queries, size_t query_count, const uint32_t *words,             \
                              size_t word_count, const uint32_t *ahead, int32_t *out) {                            \
        block(WIDTH, queries, query_count, words, word_count, ahead != NULL ? ahead : words, out);                 \
    }
BLOCK(1)
BLOCK(2)
BLOCK(4)

#define KERNELS(WIDTH)                                                                                             \
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
    table->splits = (kith_split_kernels){split, split_block};
    table->estimates.block = estimate_block;
    table->estimates.block_f16 = estimate_block_f16;
    table->estimates.four = estimate_four;
    table->estimates.next_plane = next_plane;
}
