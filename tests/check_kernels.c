/* SPDX-License-Identifier: Apache-2.0
 *
 * check_kernels.c: holds every kernel of every table that this machine runs against the reference table, and the
 * reference against plain arithmetic written again here.
 *
 * No test framework: the program is also cross-compiled and run under an emulator. It prints one line per table and
 * family of kernels; the exit status is 1 when any result differs. Operands lie between two unmapped pages, so that
 * a read or write past either end dies on the spot.
 */
#define _GNU_SOURCE
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "simd/simd.h"

/* Each line that is not there on this machine is skipped, and said so. */
static const char *const table_names[] = {
    "ref",         "avx2",        "avx512",
    "avx512-vnni", "avx512-vbmi", "avx512-vpopcntdq",
    "avx512-bf16", "avx512-fp16", "avx512-vnni-vbmi-vpopcntdq-bf16-fp16",
    "neon",        "neon-fp16",   "neon-dotprod-fp16",
};

static const size_t dims[] = {
    0,   1,   2,   3,   4,   5,   6,   7,   8,   9,   10,  11,  12,   13,   14,   15,   16,   17,  18,  19,
    20,  21,  22,  23,  24,  25,  26,  27,  28,  29,  30,  31,  32,   33,   34,   35,   36,   37,  38,  39,
    40,  41,  42,  43,  44,  45,  46,  47,  48,  49,  50,  51,  52,   53,   54,   55,   56,   57,  58,  59,
    60,  61,  62,  63,  64,  65,  66,  67,  68,  69,  70,  71,  72,   79,   80,   81,   95,   96,  97,  98,
    99,  100, 101, 104, 112, 120, 126, 127, 128, 129, 130, 135, 160,  191,  192,  193,  200,  223, 224, 225,
    255, 256, 257, 300, 384, 420, 511, 512, 513, 768, 784, 960, 1000, 1024, 1025, 1536, 2047, 3072};
enum { DIM_COUNT = sizeof dims / sizeof *dims };
static size_t dim_max = 4096;

static const kith_simd_table *ref;
static const kith_simd_table *table;
static uint64_t checks, failures;

static void report(bool ok, const char *format, ...) {
    checks++;
    if (ok) return;
    if (failures++ >= 40) return;
    va_list args;
    va_start(args, format);
    printf("FAIL %s: ", table->full_name);
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

/* ---- memory between unmapped pages ---- */

typedef struct guarded {
    unsigned char *first;
    size_t bytes;
} guarded;

enum { BIG_BYTES = 4 << 20 };
static guarded query_memory, row_memory[4], block_memory, out_memory, more_memory[2];

static guarded guarded_make(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    bytes = (bytes + page - 1) / page * page;
    unsigned char *all = mmap(NULL, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + page, bytes, PROT_READ | PROT_WRITE) != 0) {
        perror("mmap");
        exit(2);
    }
    return (guarded){all + page, bytes};
}

/* Where operands lie: the last byte before an unmapped page, or the first one after it. */
static bool at_start;
static void *place(guarded memory, size_t bytes) {
    if (bytes > memory.bytes) {
        fprintf(stderr, "check_kernels: operand of %zu bytes is too large\n", bytes);
        exit(2);
    }
    return at_start ? memory.first : memory.first + memory.bytes - bytes;
}

/* ---- values ---- */

static uint64_t random_state = 88172645463325252u;
static uint32_t random_bits(void) { /* xorshift64*: Marsaglia 2003, Vigna 2016 */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(random_state * 2685821657736338717u >> 32);
}

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Vanishing: products that round to zero, all of one sign, so that the sign of a zero sum shows how a tail is padded. */
typedef enum kind { KIND_PLAIN, KIND_WIDE, KIND_TINY, KIND_SPECIAL, KIND_HUGE, KIND_VANISHING, KIND_COUNT } kind;
static const char *const kind_names[] = {"plain", "wide", "tiny", "special", "huge", "vanishing"};

static float power_of_two(int exponent) { return float_of_bits((uint32_t)(127 + exponent) << 23); }

static float random_float(kind k) {
    static const float special[] = {NAN,     INFINITY, -INFINITY, 0.0f,     -0.0f,    FLT_MAX, -FLT_MAX,
                                    FLT_MIN, 1e-40f,   -1e-45f,   65504.0f, 65520.0f, 6e-8f,   1.0f};
    uint32_t bits = random_bits();
    float plain = (float)(int32_t)bits * 0x1p-31f;
    int shift = (int)(bits % 40);
    switch (k) {
        case KIND_WIDE: return plain * power_of_two(shift - 20);
        case KIND_TINY: return plain * 0x1p-60f * power_of_two(-2 * shift);
        case KIND_SPECIAL: return bits % 48 != 0 ? plain : special[bits / 48 % (sizeof special / sizeof *special)];
        case KIND_HUGE: return plain * 2 * power_of_two(127 - shift);
        default: return plain;
    }
}

static size_t element_bytes(kith_dtype dtype) { return dtype == KITH_B1 ? 1 : kith_dtype_row_bytes(dtype, 1); }

/* Bytes: any (plain, wide, tiny), either end of the range at random (special), one end for all (huge). */
static void fill_bytes(unsigned char *vector, kith_dtype dtype, size_t count, kind k) {
    unsigned char low = dtype == KITH_I8 ? 0x80 : 0, high = dtype == KITH_I8 ? 0x7f : 0xff;
    unsigned char end = random_bits() % 2 != 0 ? high : low;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = k == KIND_HUGE ? 0 : random_bits();
        vector[i] = (unsigned char)(bits & 0xff);
        if (k == KIND_HUGE) vector[i] = end;
        if (k == KIND_SPECIAL) vector[i] = bits & 0x100 ? high : low;
    }
}

static void fill(void *vector, kith_dtype dtype, size_t count, kind k) {
    if (dtype == KITH_I8 || dtype == KITH_U8 || dtype == KITH_B1) {
        fill_bytes(vector, dtype, count, k);
        return;
    }
    float vanishing = random_bits() % 2 != 0 ? 1e-30f : -1e-30f;
    for (size_t i = 0; i < count; i++) {
        float value = k == KIND_VANISHING ? vanishing : random_float(k);
        if (dtype == KITH_F32) ((float *)vector)[i] = value;
        if (dtype == KITH_F16) ref->f16_from_f32(&value, 1, (uint16_t *)vector + i);
        if (dtype == KITH_F16 && k == KIND_TINY) /* zeros and denormals */
            ((uint16_t *)vector)[i] = (uint16_t)(random_bits() & 0x83ff);
        if (dtype == KITH_BF16) ref->bf16_from_f32(&value, 1, (uint16_t *)vector + i);
    }
}

static void *filled(guarded memory, kith_dtype dtype, size_t count, kind k) {
    void *vector = place(memory, count * element_bytes(dtype));
    fill(vector, dtype, count, k);
    return vector;
}

static bool same_float(float a, float b) { return bits_of_float(a) == bits_of_float(b) || (isnan(a) && isnan(b)); }

/* ---- distances: one, four, block ---- */

static const struct {
    const char *name;
    kith_dtype query, row;
} float_pairs[KITH_FLOAT_PAIR_COUNT] = {
    [KITH_PAIR_F32_F32] = {"f32_f32", KITH_F32, KITH_F32},
    [KITH_PAIR_F32_F16] = {"f32_f16", KITH_F32, KITH_F16},
    [KITH_PAIR_F32_BF16] = {"f32_bf16", KITH_F32, KITH_BF16},
    [KITH_PAIR_F32_I8] = {"f32_i8", KITH_F32, KITH_I8},
    [KITH_PAIR_F32_U8] = {"f32_u8", KITH_F32, KITH_U8},
    [KITH_PAIR_F16_F16] = {"f16_f16", KITH_F16, KITH_F16},
    [KITH_PAIR_BF16_BF16] = {"bf16_bf16", KITH_BF16, KITH_BF16},
};
static const struct {
    const char *name;
    kith_dtype dtype;
} int_pairs[KITH_INT_PAIR_COUNT] = {[KITH_PAIR_I8_I8] = {"i8_i8", KITH_I8}, [KITH_PAIR_U8_U8] = {"u8_u8", KITH_U8}};
static const char *const op_names[] = {"l2sq", "ip"};

static double element(const void *vector, kith_dtype dtype, size_t i) {
    if (dtype == KITH_I8) return ((const int8_t *)vector)[i];
    if (dtype == KITH_U8) return ((const uint8_t *)vector)[i];
    if (dtype == KITH_F32) return ((const float *)vector)[i];
    uint16_t half = ((const uint16_t *)vector)[i];
    if (dtype == KITH_BF16) return float_of_bits((uint32_t)half << 16);
    int exponent = half >> 10 & 31;
    double mantissa = half & 0x3ff, sign = half & 0x8000 ? -1 : 1;
    if (exponent == 31) return mantissa != 0 ? NAN : sign * INFINITY;
    return exponent == 0 ? sign * ldexp(mantissa, -24) : sign * ldexp(mantissa + 1024, exponent - 25);
}

/* The sum that simd.h documents, written down once more. `error` becomes the sum of the terms' sizes: what bounds
 * for other orders are made of. */
static float sum_by_the_rule(kith_op op, const void *query, kith_dtype query_type, const void *row,
                             kith_dtype row_type, size_t dim, double *size) {
    float sums[32] = {0};
    *size = 0;
    for (size_t i = 0; i < (dim + 31) / 32 * 32; i++) {
        float q = i < dim ? (float)element(query, query_type, i) : 0;
        float r = i < dim ? (float)element(row, row_type, i) : 0;
        if (op == KITH_OP_L2SQ) q = r = q - r;
        sums[i % 32] = fmaf(q, r, sums[i % 32]);
        *size += fabs((double)q * r);
    }
    for (size_t j = 0; j < 16; j++) sums[j] = sums[j] + sums[j + 16];
    for (size_t j = 0; j < 8; j++) sums[j] = sums[j] + sums[j + 8];
    for (size_t j = 0; j < 4; j++) sums[j] = sums[j] + sums[j + 4];
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

/* The terms that a kernel which takes denormals for zeros does not see. */
static double lost_terms(const void *query, const void *row, size_t dim) {
    double lost = 0;
    for (size_t i = 0; i < dim; i++) {
        double q = fabs(element(query, KITH_BF16, i)), r = fabs(element(row, KITH_BF16, i));
        if (q < 0x1p-126 || r < 0x1p-126) lost += q * r;
    }
    return lost;
}

/* How far a native kernel may be from the fixed order; docs/kernels.md derives it. */
static bool native_is_close(kith_dtype dtype, const void *query, const void *row, size_t dim, double size,
                            float expected, float got) {
    bool half = dtype == KITH_F16;
    if (isnan(size)) return isnan(got);                  /* an infinity times zero, or a NaN among the elements */
    if (size >= (half ? 32768.0 : 0x1p127)) return true; /* partial sums may overflow; see the documented bound */
    double steps = half ? (double)dim / 32 + 8 : (double)dim / 8 + 16;
    double bound = steps * (half ? 0x1p-11 : 0x1p-24) * size + (double)dim * (half ? 0x1p-24 : 0x1p-126);
    if (!half) bound += lost_terms(query, row, dim);
    return fabs((double)expected - got) <= bound;
}

typedef enum law { LAW_SAME_BITS, LAW_NATIVE } law;

typedef struct float_case {
    const kith_float_kernels *kernels;
    law law;
    kith_op op;
    kith_float_pair pair;
    kind kind;
    size_t dim;
} float_case;

static void hold_float(const float_case *c, const char *shape, const void *query, const void *row, size_t at,
                       float got) {
    kith_dtype query_type = float_pairs[c->pair].query, row_type = float_pairs[c->pair].row;
    double size;
    float expected = sum_by_the_rule(c->op, query, query_type, row, row_type, c->dim, &size);
    bool ok = c->law == LAW_SAME_BITS ? same_float(expected, got)
                                      : native_is_close(query_type, query, row, c->dim, size, expected, got);
    report(ok, "%s%s %s %s dim %zu %s row %zu: %.9g (%08x), expected %.9g (%08x)", op_names[c->op],
           c->law == LAW_NATIVE ? " native" : "", float_pairs[c->pair].name, shape, c->dim, kind_names[c->kind], at,
           (double)got, bits_of_float(got), (double)expected, bits_of_float(expected));
}

static void check_float_case(const float_case *c) {
    kith_dtype query_type = float_pairs[c->pair].query, row_type = float_pairs[c->pair].row;
    const void *query = filled(query_memory, query_type, c->dim, c->kind);
    const void *rows[4];
    for (size_t r = 0; r < 4; r++) rows[r] = filled(row_memory[r], row_type, c->dim, c->kind);
    for (size_t r = 0; r < 4; r++) hold_float(c, "one", query, rows[r], r, c->kernels->one(query, rows[r], c->dim));

    float *out = place(out_memory, 4 * sizeof *out);
    c->kernels->four(query, rows, c->dim, out);
    for (size_t r = 0; r < 4; r++) hold_float(c, "four", query, rows[r], r, out[r]);

    size_t count = c->dim % 11, row_bytes = c->dim * element_bytes(row_type);
    size_t stride = row_bytes + c->dim % 3 * element_bytes(row_type);
    const char *block =
        filled(block_memory, row_type, count > 0 ? ((count - 1) * stride + row_bytes) / element_bytes(row_type) : 0,
               c->kind);
    out = place(out_memory, count * sizeof *out);
    c->kernels->block(query, block, stride, count, c->dim, out);
    for (size_t r = 0; r < count; r++) hold_float(c, "block", query, block + r * stride, r, out[r]);
}

static void check_floats(void) {
    for (kith_op op = 0; op < KITH_OP_COUNT; op++)
        for (kith_float_pair pair = 0; pair < KITH_FLOAT_PAIR_COUNT; pair++)
            for (kind k = 0; k < KIND_COUNT; k++)
                for (size_t d = 0; d < DIM_COUNT && dims[d] <= dim_max; d++)
                    check_float_case(&(float_case){&table->floats[op][pair], LAW_SAME_BITS, op, pair, k, dims[d]});
}

static void check_natives(void) {
    for (kith_op op = 0; op < KITH_OP_COUNT; op++)
        for (kith_float_pair pair = 0; pair < KITH_FLOAT_PAIR_COUNT; pair++)
            for (kind k = 0; k < KIND_COUNT && table->native[op][pair].one != NULL; k++)
                for (size_t d = 0; d < DIM_COUNT && dims[d] <= dim_max; d++)
                    check_float_case(&(float_case){&table->native[op][pair], LAW_NATIVE, op, pair, k, dims[d]});
}

typedef enum int_op { INT_L2SQ, INT_IP, INT_HAMMING } int_op;

static int64_t int_by_the_rule(int_op op, const void *query, const void *row, kith_dtype dtype, size_t dim) {
    int64_t sum = 0;
    for (size_t i = 0; i < dim; i++) {
        int64_t q = ((const uint8_t *)query)[i], r = ((const uint8_t *)row)[i];
        if (dtype == KITH_I8) q = ((const int8_t *)query)[i], r = ((const int8_t *)row)[i];
        if (op == INT_L2SQ) sum += (q - r) * (q - r);
        if (op == INT_IP) sum += q * r;
        if (op == INT_HAMMING)
            for (int64_t bits = q ^ r; bits != 0; bits >>= 1) sum += bits & 1;
    }
    return sum;
}

static void check_int_case(const kith_int_kernels *kernels, int_op op, kith_dtype dtype, kind k, size_t dim) {
    static const char *const names[] = {"l2sq", "ip", "hamming"};
    const void *query = filled(query_memory, dtype, dim, k);
    const void *rows[4];
    for (size_t r = 0; r < 4; r++) rows[r] = filled(row_memory[r], dtype, dim, k);
    const char *label = kith_dtype_name(dtype);
    int32_t *out = place(out_memory, 4 * sizeof *out);
    kernels->four(query, rows, dim, out);
    for (size_t r = 0; r < 4; r++) {
        int64_t expected = int_by_the_rule(op, query, rows[r], dtype, dim);
        int32_t one = kernels->one(query, rows[r], dim);
        report(one == expected, "%s %s one dim %zu: %d, expected %lld", names[op], label, dim, one,
               (long long)expected);
        report(out[r] == expected, "%s %s four dim %zu row %zu: %d, expected %lld", names[op], label, dim, r,
               out[r], (long long)expected);
    }
    size_t count = dim > 4096 ? 5 : dim % 11, stride = dim + dim % 3;
    const char *block = filled(block_memory, dtype, count > 0 ? (count - 1) * stride + dim : 0, k);
    out = place(out_memory, count * sizeof *out);
    kernels->block(query, block, stride, count, dim, out);
    for (size_t r = 0; r < count; r++) {
        int64_t expected = int_by_the_rule(op, query, block + r * stride, dtype, dim);
        report(out[r] == expected, "%s %s block dim %zu row %zu: %d, expected %lld", names[op], label, dim, r,
               out[r], (long long)expected);
    }
}

static void check_int_dim(size_t dim) {
    for (kind k = 0; k < KIND_COUNT; k++) {
        for (kith_int_pair pair = 0; pair < KITH_INT_PAIR_COUNT; pair++) {
            kith_dtype dtype = int_pairs[pair].dtype;
            check_int_case(&table->ints[KITH_OP_L2SQ][pair], INT_L2SQ, dtype, k, dim);
            check_int_case(&table->ints[KITH_OP_IP][pair], INT_IP, dtype, k, dim);
        }
        check_int_case(&table->hamming, INT_HAMMING, KITH_B1, k, dim);
    }
}

static void check_ints(void) {
    for (size_t d = 0; d < DIM_COUNT && dims[d] <= dim_max; d++) check_int_dim(dims[d]);
    for (size_t dim = KITH_DIM_MAX - 1; dim <= KITH_DIM_MAX; dim++)
        for (int again = 0; again < 4; again++) check_int_dim(dim); /* each end against each other end */
}

static void check_norms(void) {
    for (kind k = 0; k < KIND_COUNT; k++)
        for (size_t d = 0; d < DIM_COUNT && dims[d] <= dim_max; d++) {
            size_t dim = dims[d];
            double size;
            const void *v = filled(query_memory, KITH_F32, dim, k);
            report(same_float(sum_by_the_rule(KITH_OP_IP, v, KITH_F32, v, KITH_F32, dim, &size),
                              table->norm2_f32(v, dim)),
                   "norm2 f32 dim %zu", dim);
            v = filled(query_memory, KITH_F16, dim, k);
            report(same_float(sum_by_the_rule(KITH_OP_IP, v, KITH_F16, v, KITH_F16, dim, &size),
                              table->norm2_f16(v, dim)),
                   "norm2 f16 dim %zu", dim);
            v = filled(query_memory, KITH_BF16, dim, k);
            report(same_float(sum_by_the_rule(KITH_OP_IP, v, KITH_BF16, v, KITH_BF16, dim, &size),
                              table->norm2_bf16(v, dim)),
                   "norm2 bf16 dim %zu", dim);
            v = filled(query_memory, KITH_I8, dim, k);
            report(int_by_the_rule(INT_IP, v, v, KITH_I8, dim) == table->norm2_i8(v, dim), "norm2 i8 dim %zu", dim);
            v = filled(query_memory, KITH_U8, dim, k);
            report(int_by_the_rule(INT_IP, v, v, KITH_U8, dim) == table->norm2_u8(v, dim), "norm2 u8 dim %zu", dim);
        }
}

/* ---- conversions ---- */

enum { ALL_HALVES = 65536 };

/* An f32 conversion as it must be, from arithmetic in double; NaNs by their bits. */
static uint32_t f32_expected(kith_dtype dtype, uint16_t half) {
    if (dtype == KITH_BF16) return (uint32_t)half << 16;
    if ((half & 0x7c00) == 0x7c00 && (half & 0x3ff) != 0)
        return (uint32_t)(half & 0x8000) << 16 | 0x7fc00000 | (uint32_t)(half & 0x3ff) << 13;
    return bits_of_float((float)element(&half, KITH_F16, 0));
}

static void check_to_f32(void) {
    uint16_t *in = place(block_memory, ALL_HALVES * sizeof *in);
    float *out = place(out_memory, ALL_HALVES * sizeof *out);
    for (size_t i = 0; i < ALL_HALVES; i++) in[i] = (uint16_t)i;
    table->f32_from_f16(in, ALL_HALVES, out);
    for (size_t i = 0; i < ALL_HALVES; i++)
        report(bits_of_float(out[i]) == f32_expected(KITH_F16, in[i]), "f32_from_f16 %04zx: %08x", i,
               bits_of_float(out[i]));
    table->f32_from_bf16(in, ALL_HALVES, out);
    for (size_t i = 0; i < ALL_HALVES; i++)
        report(bits_of_float(out[i]) == f32_expected(KITH_BF16, in[i]), "f32_from_bf16 %04zx: %08x", i,
               bits_of_float(out[i]));
    for (size_t count = 0; count < 400; count++) {
        const int8_t *bytes = filled(query_memory, KITH_I8, count, KIND_PLAIN);
        out = place(out_memory, count * sizeof *out);
        table->f32_from_i8(bytes, count, out);
        for (size_t i = 0; i < count; i++) report(out[i] == bytes[i], "f32_from_i8 count %zu at %zu", count, i);
        table->f32_from_u8((const uint8_t *)bytes, count, out);
        for (size_t i = 0; i < count; i++)
            report(out[i] == (uint8_t)bytes[i], "f32_from_u8 count %zu at %zu", count, i);
        if (count > 100) continue;
        in = place(block_memory, count * sizeof *in);
        for (size_t i = 0; i < count; i++) in[i] = (uint16_t)random_bits();
        table->f32_from_f16(in, count, out);
        for (size_t i = 0; i < count; i++)
            report(bits_of_float(out[i]) == f32_expected(KITH_F16, in[i]), "f32_from_f16 count %zu", count);
        table->f32_from_bf16(in, count, out);
        for (size_t i = 0; i < count; i++)
            report(bits_of_float(out[i]) == f32_expected(KITH_BF16, in[i]), "f32_from_bf16 count %zu", count);
    }
}

/* Whether `half` is the nearest value to `value` of its type, the even one of two that are as near. */
static bool is_nearest(kith_dtype dtype, float value, uint16_t half) {
    double top = dtype == KITH_F16 ? 0x1p16 : 0x1p128; /* what infinity stands for when one rounds */
    uint16_t infinity = dtype == KITH_F16 ? 0x7c00 : 0x7f80, size = half & 0x7fff;
    if (isnan(value)) return size > infinity;
    if ((half >> 15) != (bits_of_float(value) >> 31) || size > infinity) return false;
    if (isinf(value)) return size == infinity;
    double exact = fabs((double)value), here, distance;
    here = size == infinity ? top : element(&size, dtype, 0);
    distance = fabs(exact - here);
    for (int step = -1; step <= 1; step += 2) {
        if ((step < 0 && size == 0) || (step > 0 && size == infinity)) continue;
        uint16_t other = (uint16_t)(size + step);
        double other_distance = fabs(exact - (other == infinity ? top : element(&other, dtype, 0)));
        if (other_distance < distance || (other_distance == distance && (size & 1) != 0)) return false;
    }
    return true;
}

static void hold_halves(const float *in, size_t count) {
    uint16_t *out = place(out_memory, count * sizeof *out);
    uint16_t *expected = place(more_memory[0], count * sizeof *expected);
    for (kith_dtype dtype = KITH_F16; dtype <= KITH_BF16; dtype++) {
        (dtype == KITH_F16 ? table->f16_from_f32 : table->bf16_from_f32)(in, count, out);
        (dtype == KITH_F16 ? ref->f16_from_f32 : ref->bf16_from_f32)(in, count, expected);
        for (size_t i = 0; i < count; i++)
            report(out[i] == expected[i] && (table != ref || is_nearest(dtype, in[i], out[i])),
                   "%s_from_f32 %08x: %04x, expected %04x", kith_dtype_name(dtype), bits_of_float(in[i]), out[i],
                   expected[i]);
    }
}

/* Every f16 and bf16 value, the middle to the next one, and the f32 values beside both. */
static void check_from_f32(void) {
    enum { AROUND = 6, ROUNDS = 8 };
    size_t per_round = ALL_HALVES / ROUNDS;
    for (size_t round = 0; round < ROUNDS; round++) {
        float *in = place(block_memory, 2 * AROUND * per_round * sizeof *in);
        for (size_t i = 0; i < per_round; i++) {
            uint16_t half = (uint16_t)(round * per_round + i);
            uint32_t f16 = f32_expected(KITH_F16, half), bf16 = (uint32_t)half << 16;
            bool denormal = (half & 0x7c00) == 0;
            uint16_t next = (uint16_t)(half + 1);
            float middle = denormal ? (float)(element(&half, KITH_F16, 0) / 2 + element(&next, KITH_F16, 0) / 2)
                                    : float_of_bits(f16 + 0x1000);
            uint32_t f16_middle = bits_of_float(middle);
            const uint32_t values[2 * AROUND] = {
                f16,  f16 + 1,  f16 - 1,       f16_middle,    f16_middle + 1, f16_middle - 1,
                bf16, bf16 + 1, bf16 + 0x7fff, bf16 + 0x8000, bf16 + 0x8001,  bf16 + 0xffff};
            for (size_t v = 0; v < 2 * AROUND; v++) in[2 * AROUND * i + v] = float_of_bits(values[v]);
        }
        hold_halves(in, 2 * AROUND * per_round);
    }
    for (size_t count = 0; count < 100; count++)
        for (kind k = 0; k < KIND_COUNT; k++) hold_halves(filled(block_memory, KITH_F32, count, k), count);
}

static void check_conversions(void) {
    check_to_f32();
    check_from_f32();
}

/* ---- filters ---- */

static void check_filter_f32(const float *values, size_t count, float threshold) {
    uint32_t *out = place(out_memory, count * sizeof *out);
    for (int below = 0; below < 2; below++) {
        size_t found = (below ? table->filter_below_f32 : table->filter_f32)(values, count, threshold, out);
        size_t expected = 0;
        bool same = true;
        for (size_t i = 0; i < count; i++) {
            bool rejected = below ? values[i] > threshold : values[i] < threshold;
            if (rejected) continue;
            if (expected >= found || out[expected] != i) same = false;
            expected++;
        }
        report(same && found == expected, "filter_%sf32 count %zu threshold %g: %zu found, expected %zu",
               below ? "below_" : "", count, (double)threshold, found, expected);
    }
}

static void check_filter_i32(const int32_t *values, size_t count, int32_t threshold) {
    uint32_t *out = place(out_memory, count * sizeof *out);
    for (int below = 0; below < 2; below++) {
        size_t found = (below ? table->filter_below_i32 : table->filter_i32)(values, count, threshold, out);
        size_t expected = 0;
        bool same = true;
        for (size_t i = 0; i < count; i++) {
            if (below ? values[i] > threshold : values[i] < threshold) continue;
            if (expected >= found || out[expected] != i) same = false;
            expected++;
        }
        report(same && found == expected, "filter_%si32 count %zu threshold %d: %zu found, expected %zu",
               below ? "below_" : "", count, threshold, found, expected);
    }
}

static void check_filters(void) {
    static const float f32_thresholds[] = {-2, -0.98f, -0.5f, 0, 0.5f, 0.98f, 1, 2, NAN, INFINITY, -INFINITY};
    static const int32_t i32_thresholds[] = {INT32_MIN, INT32_MIN + 1, -2000000000, 0, 2000000000, INT32_MAX};
    for (size_t count = 0; count < 1200; count += count < 300 ? 1 : 37)
        for (int sparse = 0; sparse < 2; sparse++) {
            float *floats = filled(query_memory, KITH_F32, count, KIND_SPECIAL);
            int32_t *ints = place(block_memory, count * sizeof *ints);
            for (size_t i = 0; i < count; i++) {
                ints[i] = (int32_t)random_bits();
                if (i % 7 == 3) ints[i] = i32_thresholds[random_bits() % 6];
                if (sparse && i % 61 != 5) floats[i] = 0.25f, ints[i] = 1;
            }
            for (size_t t = 0; t < sizeof f32_thresholds / sizeof *f32_thresholds; t++)
                check_filter_f32(floats, count, f32_thresholds[t]);
            for (size_t t = 0; t < sizeof i32_thresholds / sizeof *i32_thresholds; t++)
                check_filter_i32(ints, count, i32_thresholds[t]);
        }
}

/* ---- packing and tiles ---- */

static void check_pack_case(size_t lanes, size_t count, size_t words) {
    static guarded vectors_memory[64];
    const uint32_t *vectors[64];
    for (size_t v = 0; v < count; v++) {
        if (vectors_memory[v].first == NULL) vectors_memory[v] = guarded_make(1 << 16);
        uint32_t *vector = place(vectors_memory[v], words * sizeof *vector);
        for (size_t w = 0; w < words; w++) vector[w] = random_bits();
        vectors[v] = vector;
    }
    uint32_t *packed = place(out_memory, words * lanes * sizeof *packed);
    memset(packed, 0xa5, words * lanes * sizeof *packed);
    table->pack(vectors, count, lanes, words, packed);
    bool same = true;
    for (size_t w = 0; w < words; w++)
        for (size_t v = 0; v < lanes; v++) same &= packed[w * lanes + v] == (v < count ? vectors[v][w] : 0);
    report(same, "pack lanes %zu count %zu words %zu", lanes, count, words);
}

static void check_packs(void) {
    const size_t lanes[] = {table->tile_f32.query_lanes, table->tile_f32.row_lanes, table->tile_i8.query_lanes,
                            table->tile_i8.row_lanes};
    for (size_t l = 0; l < 4; l++)
        for (size_t count = 0; count <= lanes[l]; count++)
            for (size_t words = 0; words < 100; words += words < 40 ? 1 : 13)
                check_pack_case(lanes[l], count, words);
}

static const size_t tile_words[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 257};

static void check_tile_f32_case(size_t words, size_t panels, kind k) {
    const kith_tile_f32 *tile = &table->tile_f32;
    size_t rows = panels * tile->row_lanes, stride = rows + 3;
    const float *queries = filled(query_memory, KITH_F32, words * tile->query_lanes, k);
    const float *packed = filled(block_memory, KITH_F32, words * rows, k);
    const float *bias = filled(more_memory[0], KITH_F32, rows, KIND_WIDE);
    size_t out_count = rows > 0 ? (tile->query_lanes - 1) * stride + rows : 0;
    float *out = place(out_memory, out_count * sizeof *out);
    for (size_t i = 0; i < out_count; i++) out[i] = 12345.0f;
    tile->run(queries, packed, words, panels, bias, out, stride);
    for (size_t q = 0; q < tile->query_lanes; q++) {
        for (size_t r = 0; r < rows; r++) {
            float sum = bias[r];
            const float *panel = packed + r / tile->row_lanes * words * tile->row_lanes;
            for (size_t w = 0; w < words; w++)
                sum =
                    fmaf(queries[w * tile->query_lanes + q], panel[w * tile->row_lanes + r % tile->row_lanes], sum);
            report(same_float(sum, out[q * stride + r]), "tile_f32 words %zu query %zu row %zu: %g, expected %g",
                   words, q, r, (double)out[q * stride + r], (double)sum);
        }
        for (size_t i = q * stride + rows; i < (q + 1) * stride && i < out_count; i++)
            report(out[i] == 12345.0f, "tile_f32 words %zu: writes past its row %zu", words, q);
    }
}

static void check_tiles_f32(void) {
    for (kind k = 0; k < KIND_COUNT; k++)
        for (size_t w = 0; w < sizeof tile_words / sizeof *tile_words; w++)
            for (size_t panels = 0; panels < 4; panels++) check_tile_f32_case(tile_words[w], panels, k);
}

enum { LANES_MAX = 64, PANELS_MAX = 2 };

/* `terms` gets what prepare returns; the packed operand goes to `packed`. */
static void prepare_side(size_t lanes, int32_t (*prepare)(const void *, kith_dtype, size_t, uint32_t *),
                         const unsigned char *vectors, kith_dtype dtype, size_t dim, int32_t *terms,
                         uint32_t *packed) {
    size_t words = (dim + table->tile_i8.group - 1) / table->tile_i8.group;
    for (size_t v = 0; v < lanes; v++) {
        uint32_t *prepared = place(more_memory[1], words * sizeof *prepared);
        terms[v] = prepare(vectors + v * dim, dtype, dim, prepared);
        for (size_t w = 0; w < words; w++) packed[w * lanes + v] = prepared[w];
    }
}

static void check_tile_i8_case(kith_dtype dtype, size_t dim, size_t panels, kind k) {
    const kith_tile_i8 *tile = &table->tile_i8;
    size_t words = (dim + tile->group - 1) / tile->group, rows = panels * tile->row_lanes, stride = rows + 1;
    unsigned char *q = malloc(tile->query_lanes * dim + 1), *r = malloc(rows * dim + 1);
    fill(q, dtype, tile->query_lanes * dim, k);
    fill(r, dtype, rows * dim, k);
    int32_t query_terms[LANES_MAX], row_terms[PANELS_MAX * LANES_MAX];
    uint32_t *queries = place(query_memory, words * tile->query_lanes * sizeof *queries);
    uint32_t *packed = place(block_memory, words * rows * sizeof *packed);
    prepare_side(tile->query_lanes, tile->prepare_query, q, dtype, dim, query_terms, queries);
    for (size_t p = 0; p < panels; p++)
        prepare_side(tile->row_lanes, tile->prepare_row, r + p * tile->row_lanes * dim, dtype, dim,
                     row_terms + p * tile->row_lanes, packed + p * tile->row_lanes * words);
    int32_t *bias = place(more_memory[0], rows * sizeof *bias);
    memcpy(bias, row_terms, rows * sizeof *bias);
    int32_t *out = place(out_memory, (rows > 0 ? (tile->query_lanes - 1) * stride + rows : 0) * sizeof *out);
    tile->run(queries, packed, words, panels, bias, out, stride);
    for (size_t i = 0; i < tile->query_lanes; i++)
        for (size_t j = 0; j < rows; j++) {
            int64_t expected = int_by_the_rule(INT_IP, q + i * dim, r + j * dim, dtype, dim);
            int32_t got = (int32_t)((uint32_t)out[i * stride + j] + (uint32_t)query_terms[i]);
            report(got == expected, "tile_i8 %s dim %zu query %zu row %zu: %d, expected %lld",
                   kith_dtype_name(dtype), dim, i, j, got, (long long)expected);
        }
    free(q);
    free(r);
}

static void check_tiles_i8(void) {
    for (kith_dtype dtype = KITH_I8; dtype <= KITH_U8; dtype++) {
        for (kind k = 0; k < KIND_COUNT; k++)
            for (size_t w = 0; w < sizeof tile_words / sizeof *tile_words; w++)
                for (size_t panels = 0; panels <= PANELS_MAX; panels++)
                    check_tile_i8_case(dtype, tile_words[w], panels, k);
        check_tile_i8_case(dtype, KITH_DIM_MAX, 1, KIND_HUGE);
        check_tile_i8_case(dtype, KITH_DIM_MAX, 1, KIND_SPECIAL);
    }
}

/* ---- tables of product quantisers ---- */

/* What simd/tables.h says, written again: the sum of a row's entries, and its estimate. */
typedef struct lookup_case {
    size_t parts, queries, blocks, rows_bytes, block_bytes;
    bool is_nibbles, has_addend;
    uint16_t *entries;      /* query x part x 256 (16 for nibbles) */
    uint8_t *numbers;       /* row x part */
    float *addends;         /* row */
    kith_lookup lookups[9]; /* tables apart: as the kernels want them */
} lookup_case;

static float lookup_expected(const lookup_case *c, size_t q, size_t row) {
    size_t entries = c->is_nibbles ? 16 : 256;
    uint32_t sum = 0;
    for (size_t p = 0; p < c->parts; p++)
        sum += c->entries[(q * c->parts + p) * entries + c->numbers[row * c->parts + p]];
    const kith_lookup *lookup = &c->lookups[q];
    float term = fmaf((float)sum, lookup->unit, lookup->offset);
    return lookup->base + (c->has_addend ? c->addends[row] + term : term);
}

/* The tables of all queries as the kernels want them. */
static void lookup_tables(lookup_case *c) {
    size_t each = c->is_nibbles ? (c->parts + 7) / 8 * KITH_NIBBLE_WORD_BYTES : c->parts * KITH_BYTE_TABLE_BYTES;
    unsigned char *all = place(query_memory, each * c->queries);
    memset(all, 0, each * c->queries);
    for (size_t q = 0; q < c->queries; q++) {
        unsigned char *tables = all + q * each;
        for (size_t p = 0; c->is_nibbles && p < c->parts; p++)
            for (size_t i = 0; i < 16; i++)
                tables[p / 8 * 128 + p % 2 * 64 + p % 8 / 2 * 16 + i] =
                    (unsigned char)c->entries[(q * c->parts + p) * 16 + i];
        if (!c->is_nibbles) {
            memcpy(tables, c->entries + q * c->parts * 256, each);
            if (table->tables.arrange_bytes != NULL)
                table->tables.arrange_bytes((uint16_t *)(void *)tables, c->parts);
        }
        c->lookups[q].tables = tables;
    }
}

/* The rows' codes, one after the other, and as blocks. */
static void lookup_codes(lookup_case *c, kith_lookup_shape *shape, unsigned char **rows, unsigned char **blocks) {
    size_t words = c->is_nibbles ? (c->parts + 7) / 8 * 4 : (c->parts + 3) / 4 * 4, count = 32 * c->blocks;
    *shape = (kith_lookup_shape){.part_count = c->parts,
                                 .row_addend = c->has_addend ? words : KITH_NO_ADDEND,
                                 .block_addend = c->has_addend ? words * 32 : KITH_NO_ADDEND,
                                 .block_bytes = (words + (c->has_addend ? 4 : 0)) * 32};
    c->rows_bytes = words + (c->has_addend ? 4 : 0);
    *rows = place(row_memory[0], c->rows_bytes * count);
    *blocks = place(block_memory, shape->block_bytes * c->blocks);
    memset(*rows, 0, c->rows_bytes * count);
    memset(*blocks, 0, shape->block_bytes * c->blocks);
    for (size_t row = 0; row < count; row++) {
        unsigned char *own = *rows + row * c->rows_bytes, *block = *blocks + row / 32 * shape->block_bytes;
        for (size_t p = 0; p < c->parts; p++) {
            size_t byte = c->is_nibbles ? p / 2 : p, lane = row % 32;
            size_t at = c->is_nibbles ? (byte / 4 * 32 + lane) * 4 + byte % 4 : byte * 32 + lane;
            unsigned char number =
                (unsigned char)(c->numbers[row * c->parts + p] << (c->is_nibbles ? p % 2 * 4 : 0));
            own[byte] |= number;
            block[at] |= number;
        }
        if (!c->has_addend) continue;
        memcpy(own + shape->row_addend, &c->addends[row], 4);
        memcpy(block + shape->block_addend + row % 32 * 4, &c->addends[row], 4);
    }
}

static void check_lookup_case(lookup_case *c) {
    kith_lookup_shape shape;
    unsigned char *rows, *blocks;
    size_t count = 32 * c->blocks, entries = c->is_nibbles ? 16 : 256;
    c->entries = malloc(c->queries * c->parts * entries * sizeof *c->entries);
    c->numbers = malloc(count * c->parts);
    c->addends = malloc(count * sizeof *c->addends);
    bool is_largest = random_bits() % 4 == 0;
    for (size_t i = 0; i < c->queries * c->parts * entries; i++)
        c->entries[i] = (uint16_t)((is_largest ? 0xffff : random_bits() & 0xffff) >> (c->is_nibbles ? 8 : 0));
    for (size_t i = 0; i < count * c->parts; i++) c->numbers[i] = (uint8_t)(random_bits() >> 8 & (entries - 1));
    for (size_t i = 0; i < count; i++) c->addends[i] = random_float(KIND_WIDE);
    for (size_t q = 0; q < c->queries; q++)
        c->lookups[q] = (kith_lookup){.unit = random_float(KIND_PLAIN) * 0x1p-9f,
                                      .offset = random_float(KIND_WIDE),
                                      .base = random_float(KIND_WIDE)};
    lookup_tables(c);
    lookup_codes(c, &shape, &rows, &blocks);
    const kith_lookup_kernels *kernels = c->is_nibbles ? &table->tables.nibbles : &table->tables.bytes;
    float *out = place(out_memory, c->queries * count * sizeof *out), four[4];
    kernels->scan(c->lookups, c->queries, &shape, blocks, c->blocks, out, count);
    for (size_t q = 0; q < c->queries; q++)
        for (size_t row = 0; row < count; row++)
            report(bits_of_float(out[q * count + row]) == bits_of_float(lookup_expected(c, q, row)),
                   "%s scan, %zu parts, %zu blocks, %zu queries: row %zu of query %zu",
                   c->is_nibbles ? "nibbles" : "bytes", c->parts, c->blocks, c->queries, row, q);
    for (size_t round = 0; round < 8; round++) {
        size_t at[4], q = random_bits() % c->queries;
        const unsigned char *chosen[4];
        for (size_t r = 0; r < 4; r++) at[r] = random_bits() % count, chosen[r] = rows + at[r] * c->rows_bytes;
        kernels->four(&c->lookups[q], &shape, chosen, four);
        for (size_t r = 0; r < 4; r++)
            report(bits_of_float(four[r]) == bits_of_float(lookup_expected(c, q, at[r])),
                   "%s four, %zu parts: row %zu", c->is_nibbles ? "nibbles" : "bytes", c->parts, at[r]);
    }
    free(c->entries);
    free(c->numbers);
    free(c->addends);
}

static void check_gather(size_t parts, size_t entries) {
    uint16_t *tables = place(query_memory, parts * entries * 2 + 2), *numbers = place(block_memory, parts * 64);
    int32_t *sums = place(out_memory, 32 * sizeof *sums);
    for (size_t i = 0; i < parts * entries; i++) tables[i] = (uint16_t)random_bits();
    for (size_t i = 0; i < parts * 32; i++) numbers[i] = (uint16_t)(random_bits() >> 8 & (entries - 1));
    for (size_t p = 0; p < parts; p++) numbers[p * 32] = (uint16_t)(entries - 1);
    table->tables.gather(tables, entries, numbers, parts, sums);
    for (size_t r = 0; r < 32; r++) {
        int32_t expected = 0;
        for (size_t p = 0; p < parts; p++) expected += tables[p * entries + numbers[p * 32 + r]];
        report(sums[r] == expected, "gather, %zu parts of %zu entries: row %zu", parts, entries, r);
    }
}

static void check_affine(size_t count, kind k) {
    int32_t *sums = place(block_memory, count * sizeof *sums);
    float *addends = filled(query_memory, KITH_F32, count, k), *out = place(out_memory, count * sizeof *out);
    float unit = random_float(KIND_WIDE), offset = random_float(KIND_WIDE), base = random_float(KIND_WIDE);
    for (size_t i = 0; i < count; i++) sums[i] = (int32_t)(random_bits() >> 1);
    for (int has = 0; has < 2; has++) {
        table->tables.affine(sums, has ? addends : NULL, count, unit, offset, base, out);
        for (size_t i = 0; i < count; i++) {
            float term = fmaf((float)sums[i], unit, offset), expected = base + (has ? addends[i] + term : term);
            report(bits_of_float(out[i]) == bits_of_float(expected), "affine of %zu: %zu", count, i);
        }
    }
}

static void check_entries(size_t count, kind k) {
    float *values = filled(query_memory, KITH_F32, count, k), least, largest, low = INFINITY, high = -INFINITY;
    float *before = place(more_memory[0], count * sizeof *before), limit = 0x1p100f;
    memcpy(before, values, count * sizeof *before);
    table->tables.extent(values, count, limit, &least, &largest);
    for (size_t i = 0; i < count; i++) {
        float v = before[i] > -limit ? before[i] : -limit; /* a NaN as well */
        v = v < limit ? v : limit;
        low = v < low ? v : low;
        high = v > high ? v : high;
        report(values[i] == v, "extent of %zu, %s: value %zu", count, kind_names[k], i);
    }
    report(least == low && largest == high, "extent of %zu, %s", count, kind_names[k]);
    float range = high - low, inverse = range > 0x1p-100f ? 65535 / range : 0;
    uint16_t *wide = place(out_memory, count * sizeof *wide);
    table->tables.to_u16(values, count, least, inverse, wide);
    for (size_t i = 0; i < count; i++)
        report(wide[i] == (uint16_t)rintf((values[i] - low) * inverse), "to_u16 of %zu, %s: %zu", count,
               kind_names[k], i);
    inverse = range > 0x1p-100f ? 255 / range : 0;
    uint8_t *narrow = place(out_memory, count);
    table->tables.to_u8(values, count, least, inverse, narrow);
    for (size_t i = 0; i < count; i++)
        report(narrow[i] == (uint8_t)rintf((values[i] - low) * inverse), "to_u8 of %zu, %s: %zu", count,
               kind_names[k], i);
}

static void check_nearest(size_t dim, size_t count, bool equal) {
    float *codewords = place(query_memory, count * dim * sizeof *codewords);
    float *bias = place(more_memory[0], count * sizeof *bias);
    float *columns = (float *)(void *)block_memory.first;
    uint32_t *out = place(out_memory, 32 * sizeof *out);
    for (size_t i = 0; i < count * dim; i++) codewords[i] = equal ? 1 : random_float(KIND_PLAIN);
    for (size_t i = 0; i < count; i++) bias[i] = equal ? -(float)(random_bits() % 3) : random_float(KIND_PLAIN);
    for (size_t i = 0; i < 32 * dim; i++) columns[i] = random_float(KIND_PLAIN);
    table->tables.nearest(columns, dim, codewords, bias, count, out);
    for (size_t r = 0; r < 32; r++) {
        uint32_t best = 0;
        float most = -INFINITY;
        for (size_t i = 0; i < count; i++) {
            float sum = bias[i];
            for (size_t d = 0; d < dim; d++) sum = fmaf(codewords[i * dim + d], columns[d * 32 + r], sum);
            if (sum > most) most = sum, best = (uint32_t)i;
        }
        report(out[r] == best, "nearest of %zu, %zu dimensions: row %zu is %u, expected %u", count, dim, r, out[r],
               best);
    }
}

static void check_cheapest(size_t count, bool equal) {
    float *fixed = place(query_memory, count * sizeof *fixed), *along = place(block_memory, count * sizeof *along);
    float error = random_float(KIND_PLAIN), weight = random_float(KIND_PLAIN) + 1, least = INFINITY;
    size_t expected = 0;
    for (size_t i = 0; i < count; i++) {
        fixed[i] = equal ? (float)(random_bits() % 3) : random_float(KIND_PLAIN);
        along[i] = equal ? 0.25f : random_float(KIND_PLAIN);
        float cost = fixed[i] + weight * ((error - along[i]) * (error - along[i]));
        if (cost < least) least = cost, expected = i;
    }
    size_t found = table->tables.cheapest(fixed, along, count, error, weight);
    report(found == expected, "cheapest of %zu: %zu, expected %zu", count, found, expected);
}

static void check_tables(void) {
    static const size_t parts[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 64, 100, 255, 256, 257, 300, 513};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        for (unsigned choice = 0; choice < 4; choice++)
            for (size_t round = 0; round < 6; round++) {
                lookup_case c = {.parts = parts[i],
                                 .queries = 1 + (round == 0 ? 8 : random_bits() % (parts[i] > 100 ? 3 : 9)),
                                 .blocks = 1 + (round + choice) % 7,
                                 .is_nibbles = choice % 2 != 0,
                                 .has_addend = choice / 2 != 0};
                if (round == 1) c.queries = 1;
                at_start = !at_start;
                check_lookup_case(&c);
            }
    for (size_t i = 0; i < 12; i++)
        for (size_t bits = 4; bits <= 12; bits += 2) check_gather(parts[i], (size_t)1 << bits);
    check_gather(2, 65536);
    for (size_t count = 0; count <= 70; count++) check_affine(count, count % 2 != 0 ? KIND_PLAIN : KIND_WIDE);
    for (size_t count = 16; count <= 256; count += 16)
        for (kind k = 0; k < KIND_COUNT; k++) check_entries(count, k);
    for (size_t dim = 1; dim <= 24; dim++)
        for (size_t count = 4; count <= 64; count *= 2) check_nearest(dim, count, dim % 5 == 0);
    for (size_t count = 16; count <= 512; count += 16)
        for (int round = 0; round < 8; round++) check_cheapest(count, round % 2 != 0);
    check_nearest(8, 256, false);
    check_nearest(0, 16, false);
}

/* ---- families of kernels ---- */

static void check_distances(void (*check)(void)) {
    check();
    at_start = !at_start;
    check();
    at_start = !at_start;
}
static void check_floats_both_ends(void) { check_distances(check_floats); }
static void check_natives_both_ends(void) { check_distances(check_natives); }
static void check_ints_both_ends(void) { check_distances(check_ints); }

/* The members of the table that a family checks, so that what two tables share is checked and printed once. */
#define MEMBERS(first, last)                                                                                       \
    offsetof(kith_simd_table, first),                                                                              \
        offsetof(kith_simd_table, last) + sizeof((kith_simd_table *)NULL)->last - offsetof(kith_simd_table, first)
static const struct {
    const char *name;
    size_t at, bytes;
    void (*check)(void);
} families[] = {
    {"floats", MEMBERS(floats, floats), check_floats_both_ends},
    {"native", MEMBERS(native, native), check_natives_both_ends},
    {"integers", MEMBERS(ints, hamming), check_ints_both_ends},
    {"norms", MEMBERS(norm2_f32, norm2_u8), check_norms},
    {"conversions", MEMBERS(f32_from_f16, bf16_from_f32), check_conversions},
    {"filters", MEMBERS(filter_f32, filter_below_i32), check_filters},
    {"pack", MEMBERS(pack, tile_i8), check_packs}, /* the tiles say how many lanes */
    {"tile f32", MEMBERS(tile_f32, tile_f32), check_tiles_f32},
    {"tile i8", MEMBERS(tile_i8, tile_i8), check_tiles_i8},
    {"tables", MEMBERS(tables, tables), check_tables},
};
enum { FAMILY_COUNT = sizeof families / sizeof *families, NAME_COUNT = sizeof table_names / sizeof *table_names };

static void check_family(size_t f, const kith_simd_table *const *earlier, size_t earlier_count) {
    for (size_t t = 0; t < earlier_count; t++)
        if (memcmp((const char *)table + families[f].at, (const char *)earlier[t] + families[f].at,
                   families[f].bytes) == 0)
            return;
    uint64_t before = checks;
    families[f].check();
    printf("%-34s %-12s %8llu results\n", table->full_name, families[f].name,
           (unsigned long long)(checks - before));
}

/* Arguments: [--dim-max N] [TABLE...]. The tables have to be there; none stands for all of table_names that are. */
int main(int argc, char **argv) {
    if (argc > 2 && strcmp(argv[1], "--dim-max") == 0) {
        dim_max = (size_t)atol(argv[2]);
        argc -= 2;
        argv += 2;
    }
    const char *const *names = argc > 1 ? (const char *const *)argv + 1 : table_names;
    size_t name_count = argc > 1 ? (size_t)argc - 1 : NAME_COUNT;
    if (name_count > NAME_COUNT) return 1;
    const kith_simd_table *earlier[NAME_COUNT];
    size_t earlier_count = 0;
    ref = kith_simd_find("ref");
    query_memory = guarded_make(BIG_BYTES);
    for (size_t r = 0; r < 4; r++) row_memory[r] = guarded_make(1 << 18);
    block_memory = guarded_make(2 * BIG_BYTES);
    out_memory = guarded_make(BIG_BYTES);
    for (size_t m = 0; m < 2; m++) more_memory[m] = guarded_make(BIG_BYTES);
    for (size_t t = 0; t < name_count; t++) {
        table = kith_simd_find(names[t]);
        if (table == NULL) {
            printf("%-34s not on this machine\n", names[t]);
            if (argc > 1) return 1;
            continue;
        }
        at_start = t % 2 != 0;
        for (size_t f = 0; f < FAMILY_COUNT; f++) check_family(f, earlier, earlier_count);
        earlier[earlier_count++] = table;
    }
    printf("%llu results, %llu wrong\n", (unsigned long long)checks, (unsigned long long)failures);
    return failures != 0;
}
