/* SPDX-License-Identifier: Apache-2.0 */
#include "sq/sq.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "simd/simd.h"
#include "sq/sq_inside.h"

enum {
    FINE_BITS = 6,
    ARRAYS = 5,
    CUT_DEFAULT_PERMILLE = 10,
    CUT_MAX_PERMILLE = 499,
    QUICK_WEIGHT_MAX = 64 /* times the mean: with less than that the error's rank stays within a few places */
};

static kith_sq *sq_of(kith_code *code) { return (kith_sq *)code; }
static const kith_sq *sq_of_const(const kith_code *code) { return (const kith_sq *)code; }

/* ---- Names ---------------------------------------------------------------------------------------------------- */

/* Reads digits without a leading zero; *at moves past them. 0: there are none, or too many. */
static size_t read_number(const char *name, size_t *at) {
    size_t value = 0, begin = *at;
    while (name[*at] >= '0' && name[*at] <= '9' && *at - begin < 4)
        value = value * 10 + (size_t)(name[(*at)++] - '0');
    return name[begin] == '0' ? 0 : value;
}

/* Takes `word` when it stands at *at. */
static bool read_word(const char *name, size_t *at, const char *word) {
    size_t length = strlen(word);
    if (strncmp(name + *at, word, length) != 0) return false;
    *at += length;
    return true;
}

/* SQ<bits>[u][_quantile[<permille>] | _trained] */
static kith_status parse(const char *name, kith_sq *sq, size_t *position) {
    size_t at = 2, begin = at, bits = read_number(name, &at);
    *position = begin;
    if (bits == 0 || bits > 8)
        return kith_error(KITH_ERR_ARGUMENT, "expected a number of bits, 1..8, or fp16, bf16, 8_direct");
    sq->bits = (unsigned)bits;
    sq->is_uniform = read_word(name, &at, "u");
    if (read_word(name, &at, "_trained")) {
        sq->range = KITH_SQ_TRAINED;
    } else if (read_word(name, &at, "_quantile")) {
        sq->range = KITH_SQ_QUANTILE;
        begin = at;
        sq->cut_permille = read_number(name, &at);
        *position = begin;
        if (at == begin) sq->cut_permille = CUT_DEFAULT_PERMILLE;
        if (sq->cut_permille == 0 || sq->cut_permille > CUT_MAX_PERMILLE)
            return kith_error(KITH_ERR_ARGUMENT, "expected so many in a thousand to cut off, 1..%d",
                              CUT_MAX_PERMILLE);
    }
    *position = at;
    if (name[at] != '\0')
        return kith_error(KITH_ERR_ARGUMENT, "nothing can follow here but %s_trained or _quantile<1..%d>",
                          sq->is_uniform || at > 3 ? "" : "u, ", CUT_MAX_PERMILLE);
    return KITH_OK;
}

static const kith_code_vtable vtable;

kith_status kith_sq_make(const char *name, size_t dim, kith_metric metric, kith_code **out, size_t *position) {
    KITH_TRY(kith_raw_make(name, dim, metric, out));
    if (*out != NULL || strncmp(name, "SQ", 2) != 0) return KITH_OK;
    kith_sq parsed = {0}, *sq;
    KITH_TRY(parse(name, &parsed, position));
    KITH_TRY(kith_alloc(1, sizeof *sq, &sq));
    *sq = parsed;
    kith_grid_init(&sq->grid, dim, sq->bits, metric == KITH_L2 ? KITH_FACTORS_ADD : KITH_FACTORS_NONE,
                   sq->bits >= FINE_BITS ? 2 : 1);
    sq->base = (kith_code){
        .vtable = &vtable,
        .dim = dim,
        .projected_dim = dim,
        .metric = metric,
        .code_bytes = sq->grid.row_bytes,
        .block_bytes = sq->grid.block_bytes,
        /* The grid's query, and room for what it is made of. */
        .query_bytes = sq->grid.query_bytes + kith_round_up(dim * sizeof(float), KITH_ALIGNMENT),
    };
    memcpy(sq->base.name, name, strlen(name));
    *out = &sq->base;
    return KITH_OK;
}

/* ---- What was trained ----------------------------------------------------------------------------------------- */

static void point_arrays(kith_sq *sq, float *block) {
    size_t dim = sq->base.dim;
    sq->minimum = block;
    sq->extent = block + dim;
    sq->centre = block + 2 * dim;
    sq->step = block + 3 * dim;
    sq->middle = block + 4 * dim;
}

/* In f32 and in this order, as FAISS does it. */
static float decoded(const kith_sq *sq, float number, size_t d) {
    float place = (number + 0.5f) / (float)kith_sq_levels(sq);
    return sq->minimum[d] + place * sq->extent[d];
}

static float half_levels(const kith_sq *sq) { return (float)kith_sq_levels(sq) / 2; }

/* Fills what follows from minimum and extent. */
static void settle(kith_sq *sq) {
    size_t dim = sq->base.dim;
    float largest = 0;
    for (size_t d = 0; d < dim; d++) largest = fmaxf(largest, sq->extent[d]);
    /* A power of two, so that steps times queries neither overflow nor vanish, however large or small both are. */
    int exponent;
    (void)frexp((double)largest / kith_sq_levels(sq), &exponent);
    double unit = ldexp(1, exponent);
    sq->step_unit = (float)unit;
    for (size_t d = 0; d < dim; d++) {
        sq->step[d] = (float)((double)sq->extent[d] / kith_sq_levels(sq) / unit);
        sq->middle[d] = decoded(sq, half_levels(sq), d);
    }
}

static void release(kith_code *code) {
    kith_free(sq_of(code)->minimum);
    kith_free(code);
}

void kith_sq_quicken(kith_code *code) {
    kith_sq *sq = sq_of(code);
    double largest = 0, sum = 0;
    for (size_t d = 0; d < code->dim; d++) {
        /* What the query and the code make of a dimension both grow with its extent: so does their product's square
         * with the fourth power. */
        double weight = pow((double)sq->step[d], 4);
        largest = fmax(largest, weight);
        sum += weight;
    }
    if (largest * (double)code->dim > QUICK_WEIGHT_MAX * sum) return;
    code->query_bytes -= sq->grid.query_bytes;
    kith_grid_init(&sq->grid, code->dim, sq->bits, sq->grid.factors, 1);
    code->query_bytes += sq->grid.query_bytes;
}

static kith_status clone(const kith_code *code, kith_code **out) {
    const kith_sq *sq = sq_of_const(code);
    kith_sq *copy;
    *out = NULL;
    KITH_TRY(kith_alloc(1, sizeof *copy, &copy));
    *copy = *sq;
    if (sq->minimum != NULL) {
        float *block;
        copy->minimum = NULL;
        kith_status status = kith_alloc(ARRAYS * code->dim, sizeof *block, &block);
        if (status != KITH_OK) {
            release(&copy->base);
            return status;
        }
        memcpy(block, sq->minimum, ARRAYS * code->dim * sizeof *block);
        point_arrays(copy, block);
    }
    *out = &copy->base;
    return KITH_OK;
}

static uint64_t memory(const kith_code *code) {
    size_t arrays = sq_of_const(code)->minimum != NULL ? ARRAYS : 0;
    return sizeof(kith_sq) + arrays * code->dim * sizeof(float);
}

/* Takes the block over, in which minimum, extent and centre are filled. */
static void adopt(kith_sq *sq, float *block) {
    kith_free(sq->minimum);
    point_arrays(sq, block);
    settle(sq);
    sq->base.is_trained = true;
}

static kith_status train(kith_code *code, const kith_code_rows *sample, const kith_job *job) {
    kith_sq *sq = sq_of(code);
    size_t dim = code->dim;
    float *block;
    KITH_TRY(kith_alloc(ARRAYS * dim, sizeof *block, &block));
    kith_status status = kith_sq_find_ranges(sq, sample, job, block, block + dim, block + 2 * dim);
    if (status != KITH_OK) {
        kith_free(block);
        return status;
    }
    if (code->metric == KITH_IP) memset(block + 2 * dim, 0, dim * sizeof *block);
    adopt(sq, block);
    return KITH_OK;
}

/* ---- Rows ----------------------------------------------------------------------------------------------------- */

/* Cut off, not rounded, and the product with 255 in f32, those with less in f64: as FAISS does it. */
static void find_numbers(const kith_sq *sq, const float *row, uint8_t *numbers) {
    const double levels = kith_sq_levels(sq);
    for (size_t d = 0; d < sq->base.dim; d++) {
        float place = sq->extent[d] > 0 ? (row[d] - sq->minimum[d]) / sq->extent[d] : 0;
        place = place > 0 ? place : 0; /* also where the quotient is no number */
        place = place < 1 ? place : 1;
        numbers[d] = sq->bits == 8 ? (uint8_t)(255 * place) : (uint8_t)((double)place * levels);
    }
}

static void decode_numbers(const kith_sq *sq, const uint8_t *numbers, float *out) {
    for (size_t d = 0; d < sq->base.dim; d++) out[d] = decoded(sq, (float)numbers[d], d);
}

/* What a row adds to its estimates: |x|^2 + 2 <c - m, x>, x decoded and m what is taken off the query. */
static float find_add(const kith_sq *sq, const float *row, const float *centroid, float *scratch) {
    const kith_simd_table *simd = kith_simd();
    size_t dim = sq->base.dim;
    for (size_t d = 0; d < dim; d++) scratch[d] = (centroid != NULL ? centroid[d] : 0) - sq->centre[d];
    return simd->norm2_f32(row, dim) + 2 * simd->floats[KITH_OP_IP][KITH_PAIR_F32_F32].one(scratch, row, dim);
}

static kith_status encode(const kith_code *code, const kith_code_rows *rows, unsigned char *codes) {
    const kith_sq *sq = sq_of_const(code);
    size_t dim = code->dim;
    float *values;
    uint8_t *numbers;
    KITH_TRY(kith_alloc(dim, 2 * sizeof *values + sizeof *numbers, &values));
    numbers = (uint8_t *)(values + 2 * dim);
    for (size_t i = 0; i < rows->count; i++) {
        const float *row = rows->rows + i * dim, *centroid = kith_code_centroid(rows, i, dim);
        for (size_t d = 0; d < dim; d++) values[d] = centroid != NULL ? row[d] - centroid[d] : row[d];
        find_numbers(sq, values, numbers);
        float add = 0;
        if (code->metric == KITH_L2) {
            decode_numbers(sq, numbers, values);
            add = find_add(sq, values, centroid, values + dim);
        }
        kith_grid_put(&sq->grid, numbers, add, 1, codes + i * code->code_bytes);
    }
    kith_free(values);
    return KITH_OK;
}

static void restore(const kith_code *code, const unsigned char *row, unsigned char *scratch, float *out) {
    const kith_sq *sq = sq_of_const(code);
    kith_grid_get(&sq->grid, row, scratch, NULL, NULL);
    decode_numbers(sq, scratch, out);
}

static kith_status decode(const kith_code *code, const kith_code_rows *rows, const unsigned char *codes,
                          float *out) {
    size_t dim = code->dim;
    uint8_t *numbers;
    KITH_TRY(kith_alloc(dim, sizeof *numbers, &numbers));
    for (size_t i = 0; i < rows->count; i++) {
        const float *centroid = kith_code_centroid(rows, i, dim);
        float *row = out + i * dim;
        restore(code, codes + i * code->code_bytes, numbers, row);
        for (size_t d = 0; centroid != NULL && d < dim; d++) row[d] += centroid[d];
    }
    kith_free(numbers);
    return KITH_OK;
}

static void pack(const kith_code *code, const unsigned char *rows, size_t first, size_t count,
                 unsigned char *block) {
    kith_grid_pack(&sq_of_const(code)->grid, rows, first, count, block);
}

static void unpack(const kith_code *code, const unsigned char *block, size_t lane, unsigned char *row) {
    kith_grid_unpack(&sq_of_const(code)->grid, block, lane, row);
}

/* ---- Estimates ------------------------------------------------------------------------------------------------ */

/* <q - m, x> = <q - m, middle> + <(q - m) step, numbers - levels / 2>, times -2 under l2, -1 under ip; what m takes
 * away is in the code (find_add). The nearer to zero what multiplies the query, the less its rounding does. */
static void prepare(const kith_code *code, const float *vector, void *query) {
    const kith_sq *sq = sq_of_const(code);
    size_t dim = code->dim;
    float *shifted = (float *)(void *)((char *)query + sq->grid.query_bytes);
    float factor = code->metric == KITH_L2 ? -2 : -1;
    for (size_t d = 0; d < dim; d++) shifted[d] = vector[d] - sq->centre[d];
    float product = kith_simd()->floats[KITH_OP_IP][KITH_PAIR_F32_F32].one(shifted, sq->middle, dim);
    for (size_t d = 0; d < dim; d++) shifted[d] *= sq->step[d];
    kith_grid_prepare_centred(&sq->grid, shifted, factor * sq->step_unit, half_levels(sq), query);
    kith_grid_shift(query, factor * product);
}

static void estimate(const kith_code *code, const void *query, float base, const unsigned char *const *rows,
                     size_t count, float *out) {
    kith_grid_rows(&sq_of_const(code)->grid, query, base, rows, count, out);
}

static void scan(const kith_code *code, const void *const *queries, const float *bases, size_t query_count,
                 const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    kith_grid_scan(&sq_of_const(code)->grid, queries, bases, query_count, blocks, block_count, out, out_stride);
}

/* ---- Files ---------------------------------------------------------------------------------------------------- */

static const char ranges_tag[] = "SQRANGES";

static kith_status save(const kith_code *code, kith_container_writer *writer, uint32_t *part) {
    return kith_container_writer_add(writer, ranges_tag, (*part)++, sq_of_const(code)->minimum,
                                     3 * code->dim * sizeof(float));
}

static kith_status load(kith_code *code, kith_container *file, uint32_t *part) {
    /* What no vectors within KITH_NORM2_MAX, and no residuals of theirs, have. */
    const float largest = 1e20f;
    kith_sq *sq = sq_of(code);
    size_t dim = code->dim;
    const void *stored;
    float *block;
    KITH_TRY(kith_container_need_items(file, ranges_tag, *part, 3 * dim, sizeof *block, &stored));
    KITH_TRY(kith_alloc(ARRAYS * dim, sizeof *block, &block));
    memcpy(block, stored, 3 * dim * sizeof *block);
    for (size_t i = 0; i < 3 * dim; i++)
        if (!(fabsf(block[i]) <= largest) || (i >= dim && i < 2 * dim && block[i] < 0)) {
            kith_status status = kith_error(KITH_ERR_FORMAT, "%s: section %s.%u: element %zu is %g",
                                            kith_container_path(file), ranges_tag, *part, i, (double)block[i]);
            kith_free(block);
            return status;
        }
    (*part)++;
    adopt(sq, block);
    return KITH_OK;
}

static const kith_code_vtable vtable = {
    .kind = KITH_CODE_SQ,
    .release = release,
    .clone = clone,
    .memory = memory,
    .train = train,
    .encode = encode,
    .decode = decode,
    .restore = restore,
    .prepare = prepare,
    .rows = estimate,
    .scan = scan,
    .pack = pack,
    .unpack = unpack,
    .save = save,
    .load = load,
};
