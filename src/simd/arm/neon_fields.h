/* SPDX-License-Identifier: Apache-2.0
 *
 * neon_fields.h: the integer kernels of fields.h on NEON: included once by the file for each processor, which defines
 * sums (a register or two for four rows, or for one), clear, multiply_add, total, chunk_words and TILE_VECTORS.
 *
 * Fields are multiplied as signed bytes, which those of up to 4 bits are. Of those of 8 bits 128 is taken off, by their
 * top bit, and 128 times the sum of the query is put back at the end.
 */
enum { LANES = 4, TILE_QUERIES = 4, TILE_ROWS = TILE_VECTORS * LANES, TOP = 128 };

ALWAYS_INLINE int8x16_t field_of(uint32x4_t words, unsigned width, unsigned step) {
    uint8x16_t bytes = vreinterpretq_u8_u32(words);
    if (width == 8) return vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(TOP)));
    if (step > 0) bytes = vshlq_u8(bytes, vdupq_n_s8((int8_t) - (int)(step * width))); /* to the right */
    return vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8((uint8_t)((1u << width) - 1))));
}

/* What is to be put back: 0 for narrow fields. */
ALWAYS_INLINE int32_t shift_term(unsigned width, const int8_t *query, size_t bytes) {
    if (width != 8) return 0;
    int32x4_t four = vdupq_n_s32(0);
    size_t i = 0;
    for (; bytes - i >= 16; i += 16) four = vpadalq_s16(four, vpaddlq_s8(vld1q_s8(query + i)));
    int32_t sum = vaddvq_s32(four);
    for (; i < bytes; i++) sum += query[i];
    return TOP * sum;
}

/* ---- block ---- */

ALWAYS_INLINE void add_word(unsigned width, size_t count, const int8_t *const *queries, size_t at,
                            const uint32_t *words, sums tile[TILE_QUERIES][TILE_VECTORS]) {
    uint32x4_t raw[TILE_VECTORS];
#pragma GCC unroll 4
    for (size_t v = 0; v < TILE_VECTORS; v++) raw[v] = vld1q_u32(words + v * LANES);
#pragma GCC unroll 8
    for (unsigned step = 0; step < 8 / width; step++) {
        int8x16_t fields[TILE_VECTORS];
#pragma GCC unroll 4
        for (size_t v = 0; v < TILE_VECTORS; v++) fields[v] = field_of(raw[v], width, step);
#pragma GCC unroll 4
        for (size_t q = 0; q < count; q++) {
            int32_t four;
            memcpy(&four, queries[q] + at + step * 4, sizeof four);
            int8x16_t bytes = vreinterpretq_s8_s32(vdupq_n_s32(four));
#pragma GCC unroll 4
            for (size_t v = 0; v < TILE_VECTORS; v++) tile[q][v] = multiply_add(tile[q][v], fields[v], bytes);
        }
    }
}

/* TILE_ROWS rows, whose words are at words[w * KITH_BLOCK_ROWS]; `next`: those that are fetched meanwhile. */
ALWAYS_INLINE void block_part(unsigned width, size_t count, const int8_t *const *queries, const int32_t *terms,
                              const uint32_t *words, size_t word_count, const uint32_t *next, int32_t *out) {
    size_t w = 0;
    do {
        sums tile[TILE_QUERIES][TILE_VECTORS];
        bool is_first = w == 0;
        size_t chunk = chunk_words(width), end = word_count - w < chunk ? word_count : w + chunk;
#pragma GCC unroll 4
        for (size_t q = 0; q < count; q++) {
#pragma GCC unroll 4
            for (size_t v = 0; v < TILE_VECTORS; v++) tile[q][v] = clear();
        }
        for (; w < end; w++) {
            __builtin_prefetch(next + w * KITH_BLOCK_ROWS);
            add_word(width, count, queries, w * (32 / width), words + w * KITH_BLOCK_ROWS, tile);
        }
#pragma GCC unroll 4
        for (size_t q = 0; q < count; q++) {
#pragma GCC unroll 4
            for (size_t v = 0; v < TILE_VECTORS; v++) {
                int32_t *to = out + q * KITH_BLOCK_ROWS + v * LANES;
                int32x4_t before = is_first ? vdupq_n_s32(terms[q]) : vld1q_s32(to);
                vst1q_s32(to, vaddq_s32(before, total(tile[q][v])));
            }
        }
    } while (w < word_count);
}

ALWAYS_INLINE void block_tile(unsigned width, size_t count, const int8_t *const *queries, const uint32_t *words,
                              size_t word_count, const uint32_t *next, int32_t *out) {
    int32_t terms[TILE_QUERIES];
#pragma GCC unroll 4
    for (size_t q = 0; q < count; q++) terms[q] = shift_term(width, queries[q], word_count * (32 / width));
    for (size_t r = 0; r < KITH_BLOCK_ROWS; r += TILE_ROWS)
        block_part(width, count, queries, terms, words + r, word_count, next + r, out + r);
}

ALWAYS_INLINE void block(unsigned width, const int8_t *const *queries, size_t query_count, const uint32_t *words,
                         size_t word_count, const uint32_t *next, int32_t *out) {
    size_t count;
    for (; query_count > 0; queries += count, query_count -= count, out += count * KITH_BLOCK_ROWS) {
        if (query_count >= 4)
            block_tile(width, count = 4, queries, words, word_count, next, out);
        else if (query_count >= 2)
            block_tile(width, count = 2, queries, words, word_count, next, out);
        else
            block_tile(width, count = 1, queries, words, word_count, next, out);
    }
}

/* ---- four ---- */

ALWAYS_INLINE uint32x4_t load_some(const uint32_t *words, size_t count) {
    if (count >= LANES) return vld1q_u32(words);
    uint32_t some[LANES] = {0};
    memcpy(some, words, count * sizeof *words);
    return vld1q_u32(some);
}

ALWAYS_INLINE int32x4_t dots_of_four(unsigned width, const int8_t *query, const uint32_t *const rows[4],
                                     size_t word_count) {
    const size_t step_bytes = (word_count + 15) / 16 * 16 * sizeof **rows;
    int32x4_t totals[4];
#pragma GCC unroll 4
    for (size_t r = 0; r < 4; r++) totals[r] = vdupq_n_s32(0);
    for (size_t w = 0; w < word_count;) {
        sums row_sums[4];
#pragma GCC unroll 4
        for (size_t r = 0; r < 4; r++) row_sums[r] = clear();
        size_t groups = chunk_words(width);
        for (; groups-- > 0 && w < word_count; w += LANES) {
            uint32x4_t words[4];
#pragma GCC unroll 4
            for (size_t r = 0; r < 4; r++) words[r] = load_some(rows[r] + w, word_count - w);
#pragma GCC unroll 8
            for (unsigned step = 0; step < 8 / width; step++) {
                int8x16_t bytes = vld1q_s8(query + w * sizeof **rows + step * step_bytes);
#pragma GCC unroll 4
                for (size_t r = 0; r < 4; r++)
                    row_sums[r] = multiply_add(row_sums[r], field_of(words[r], width, step), bytes);
            }
        }
#pragma GCC unroll 4
        for (size_t r = 0; r < 4; r++) totals[r] = vaddq_s32(totals[r], total(row_sums[r]));
    }
    int32x4_t dots = vpaddq_s32(vpaddq_s32(totals[0], totals[1]), vpaddq_s32(totals[2], totals[3]));
    return vaddq_s32(dots, vdupq_n_s32(shift_term(width, query, step_bytes)));
}

ALWAYS_INLINE float32x4_t finish(const kith_affine *affine, float32x4_t inner, float32x4_t add, float32x4_t scale) {
    return vfmaq_f32(vdupq_n_f32(affine->base), vdupq_n_f32(affine->step), vfmaq_f32(add, scale, inner));
}

ALWAYS_INLINE const uint32_t *words_at(const unsigned char *row) { return (const uint32_t *)(const void *)row; }

ALWAYS_INLINE void finish_line(int32x4_t dots, const uint32_t *const rows[4], size_t word,
                               const kith_affine *affine, float out[4]) {
    const uint32_t factors[4] = {rows[0][word], rows[1][word], rows[2][word], rows[3][word]};
    uint32x4_t words = vld1q_u32(factors);
    float32x4_t add = vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(words)));
    float32x4_t scale = vcvt_f32_f16(vreinterpret_f16_u16(vshrn_n_u32(words, 16)));
    float32x4_t inner = vfmaq_f32(vdupq_n_f32(affine->offset), vcvtq_f32_s32(dots), vdupq_n_f32(affine->unit));
    vst1q_f32(out, finish(affine, inner, add, scale));
}

/* ---- the table ---- */

#define KERNELS(WIDTH)                                                                                             \
    static void block_##WIDTH(const int8_t *const *queries, size_t query_count, const uint32_t *words,             \
                              size_t word_count, const uint32_t *ahead, int32_t *out) {                            \
        block(WIDTH, queries, query_count, words, word_count, ahead != NULL ? ahead : words, out);                 \
    }                                                                                                              \
    static void four_##WIDTH(const int8_t *query, const uint32_t *const rows[4], size_t word_count,                \
                             int32_t out[4]) {                                                                     \
        vst1q_s32(out, dots_of_four(WIDTH, query, rows, word_count));                                              \
    }                                                                                                              \
    /* The word of the factors meets zeros of the query. */                                                        \
    static void lines_##WIDTH(const int8_t *query, const unsigned char *const *rows, size_t count,                 \
                              size_t word_count, const kith_affine *affine, float *out) {                          \
        for (size_t i = 0; i < count; i += 4) {                                                                    \
            const uint32_t *const four[4] = {words_at(rows[i]), words_at(rows[i + 1]), words_at(rows[i + 2]),      \
                                             words_at(rows[i + 3])};                                               \
            finish_line(dots_of_four(WIDTH, query, four, word_count + 1), four, word_count, affine, out + i);      \
        }                                                                                                          \
    }
KERNELS(1)
KERNELS(2)
KERNELS(4)
KERNELS(8)

static void fill_fields(kith_simd_table *table) {
    static const kith_field_kernels fields[KITH_FIELD_WIDTHS] = {
        {block_1, four_1}, {block_2, four_2}, {block_4, four_4}, {block_8, four_8}};
    memcpy(table->fields, fields, sizeof fields);
    table->estimates.lines[0] = lines_1;
    table->estimates.lines[1] = lines_2;
    table->estimates.lines[2] = lines_4;
    table->estimates.lines[3] = lines_8;
}
