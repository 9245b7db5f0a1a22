/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/elements.h"
#include "base/error.h"
#include "exact/exact.h"
#include "simd/simd.h"
#include "sq/sq.h"

typedef struct raw_code {
    kith_code base;
    kith_dtype dtype;
    const kith_float_kernels *kernels; /* f32 query x row, of the metric */
} raw_code;

static const raw_code *raw_of(const kith_code *code) { return (const raw_code *)code; }

kith_dtype kith_raw_dtype(const kith_code *code) { return raw_of(code)->dtype; }

/* ---- Making --------------------------------------------------------------------------------------------------- */

static const struct raw_name {
    const char *name, *alias;
    kith_dtype dtype;
} raw_names[] = {
    {"Flat", NULL, KITH_F32},      {"f16", "SQfp16", KITH_F16},
    {"bf16", "SQbf16", KITH_BF16}, {"i8", "SQ8_direct_signed", KITH_I8},
    {"u8", "SQ8_direct", KITH_U8},
};

static const kith_code_vtable vtable;

kith_status kith_raw_make(const char *name, size_t dim, kith_metric metric, kith_code **out) {
    const struct raw_name *found = NULL;
    *out = NULL;
    for (size_t i = 0; i < sizeof raw_names / sizeof *raw_names; i++) {
        const struct raw_name *entry = &raw_names[i];
        if (strcmp(name, entry->name) == 0 || (entry->alias != NULL && strcmp(name, entry->alias) == 0))
            found = entry;
    }
    if (found == NULL) return KITH_OK;
    raw_code *raw;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *raw, &raw));
    raw->dtype = found->dtype;
    raw->kernels =
        kith_simd_floats(kith_simd(), metric == KITH_L2 ? KITH_OP_L2SQ : KITH_OP_IP, KITH_F32, found->dtype);
    size_t row_bytes = kith_dtype_row_bytes(found->dtype, dim);
    raw->base = (kith_code){
        .vtable = &vtable,
        .dim = dim,
        .projected_dim = dim,
        .metric = metric,
        .is_trained = true,
        .is_exact = true,
        .code_bytes = row_bytes,
        .block_bytes = kith_round_up(KITH_BLOCK_ROWS * row_bytes, KITH_ALIGNMENT),
        .query_bytes = kith_round_up(dim * sizeof(float), KITH_ALIGNMENT),
    };
    memcpy(raw->base.name, found->name, strlen(found->name));
    *out = &raw->base;
    return KITH_OK;
}

static void release(kith_code *code) { kith_free(code); }

static kith_status clone(const kith_code *code, kith_code **out) {
    raw_code *copy;
    *out = NULL;
    KITH_TRY(kith_alloc(1, sizeof *copy, &copy));
    *copy = *raw_of(code);
    *out = &copy->base;
    return KITH_OK;
}

static uint64_t memory(const kith_code *code) {
    (void)code;
    return sizeof(raw_code);
}

/* ---- Rows ----------------------------------------------------------------------------------------------------- */

/* f16 and bf16: rounded; the position of the first element that became infinite, or count. */
static size_t round_row(kith_dtype dtype, const float *in, size_t count, unsigned char *out) {
    const kith_simd_table *simd = kith_simd();
    uint16_t *halves = (uint16_t *)(void *)out;
    const uint16_t infinity = dtype == KITH_F16 ? 0x7c00 : 0x7f80;
    if (dtype == KITH_F16)
        simd->f16_from_f32(in, count, halves);
    else
        simd->bf16_from_f32(in, count, halves);
    for (size_t d = 0; d < count; d++)
        if ((halves[d] & 0x7fff) == infinity) return d;
    return count;
}

static kith_status encode(const kith_code *code, const kith_code_rows *rows, unsigned char *codes) {
    const raw_code *raw = raw_of(code);
    size_t dim = code->dim;
    for (size_t i = 0; i < rows->count; i++) {
        const float *row = rows->rows + i * dim;
        unsigned char *out = codes + i * code->code_bytes;
        size_t good = raw->dtype == KITH_F16 || raw->dtype == KITH_BF16
                          ? round_row(raw->dtype, row, dim, out)
                          : kith_convert(KITH_F32, row, dim, raw->dtype, out);
        if (good < dim)
            return kith_error(KITH_ERR_RANGE, "row %zu: element %zu is %.9g, which %s cannot hold",
                              rows->first_row + i, good, (double)row[good], kith_dtype_name(raw->dtype));
    }
    return KITH_OK;
}

static kith_status decode(const kith_code *code, const kith_code_rows *rows, const unsigned char *codes,
                          float *out) {
    kith_exact_to_f32(codes, raw_of(code)->dtype, rows->count * code->dim, out);
    return KITH_OK;
}

static void restore(const kith_code *code, const unsigned char *row, unsigned char *scratch, float *out) {
    (void)scratch;
    kith_exact_to_f32(row, raw_of(code)->dtype, code->dim, out);
}

static void pack(const kith_code *code, const unsigned char *rows, size_t first, size_t count,
                 unsigned char *block) {
    memcpy(block + first * code->code_bytes, rows, count * code->code_bytes);
}

static void unpack(const kith_code *code, const unsigned char *block, size_t lane, unsigned char *row) {
    memcpy(row, block + lane * code->code_bytes, code->code_bytes);
}

/* ---- Distances ------------------------------------------------------------------------------------------------ */

static void prepare(const kith_code *code, const float *vector, void *query) {
    memcpy(query, vector, code->dim * sizeof *vector);
}

static void negate_products(const kith_code *code, float *values, size_t count) {
    if (code->metric == KITH_L2) return;
    for (size_t i = 0; i < count; i++) values[i] = -values[i];
}

static void estimate(const kith_code *code, const void *query, float base, const unsigned char *const *rows,
                     size_t count, float *out) {
    (void)base;
    for (size_t i = 0; i < count; i += 4) {
        const void *const operands[4] = {rows[i], rows[i + 1], rows[i + 2], rows[i + 3]};
        raw_of(code)->kernels->four(query, operands, code->dim, out + i);
    }
    negate_products(code, out, count);
}

static void scan(const kith_code *code, const void *const *queries, const float *bases, size_t query_count,
                 const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    (void)bases;
    for (size_t b = 0; b < block_count; b++)
        for (size_t q = 0; q < query_count; q++) {
            float *values = out + q * out_stride + b * KITH_BLOCK_ROWS;
            raw_of(code)->kernels->block(queries[q], blocks + b * code->block_bytes, code->code_bytes,
                                         KITH_BLOCK_ROWS, code->dim, values);
            negate_products(code, values, KITH_BLOCK_ROWS);
        }
}

static const kith_code_vtable vtable = {
    .kind = KITH_CODE_RAW,
    .release = release,
    .clone = clone,
    .memory = memory,
    .encode = encode,
    .decode = decode,
    .restore = restore,
    .prepare = prepare,
    .rows = estimate,
    .scan = scan,
    .pack = pack,
    .unpack = unpack,
};
