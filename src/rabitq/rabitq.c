/* SPDX-License-Identifier: Apache-2.0
 *
 * rabitq.c: the vtables of RaBitQ and line codes, and how they are made from their names.
 */
#include "rabitq/rabitq.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "rabitq/rabitq_inside.h"
#include "simd/simd.h"

enum { ROTATION_UNIT = 64, TWO_PARTS_FROM = 7, LINE_DIM_MAX = 1024 };
/* The bound of the paper: an estimate is off by so many standard deviations at most, 19 times in 20. */
static const float deviations = 1.9f;

/* ---- Sizes ---------------------------------------------------------------------------------------------------- */

static size_t words_of(size_t dim, size_t bits) {
    kith_grid grid;
    kith_grid_init(&grid, dim, bits, KITH_FACTORS_F16, 1);
    return grid.word_count;
}

size_t kith_line_dim(size_t line_bytes, size_t bits) {
    size_t words = line_bytes / sizeof(uint32_t) - 1, dim = words * 32 / bits;
    while (words_of(dim, bits) > words) dim--;
    return words_of(dim, bits) == words ? dim : 0;
}

void kith_rabitq_set_bits(kith_rabitq *own, size_t bits) {
    kith_code *code = &own->code;
    if (own->line_bytes == 0) {
        code->projected_dim = kith_round_up(code->dim, ROTATION_UNIT);
        kith_grid_init(&own->grid, code->projected_dim, bits, KITH_FACTORS_F32, bits < TWO_PARTS_FROM ? 1 : 2);
    } else {
        size_t places = kith_line_dim(own->line_bytes, bits);
        code->projected_dim = kith_min_size(code->dim, places);
        kith_grid_init(&own->grid, places, bits, KITH_FACTORS_F16, 1);
    }
    code->code_bytes = own->grid.row_bytes;
    code->block_bytes = own->grid.block_bytes;
    code->query_bytes = own->grid.query_bytes;
}

/* ---- What it does --------------------------------------------------------------------------------------------- */

void kith_rabitq_forget(kith_rabitq *own) {
    kith_transform_free(own->transform);
    kith_free(own->centre);
    kith_free(own->narrow);
    own->transform = NULL;
    own->centre = NULL;
    own->narrow = NULL;
    own->centre_norm = 0;
    own->code.is_trained = false;
}

static void release(kith_code *code) {
    kith_rabitq_forget((kith_rabitq *)code);
    kith_free(code);
}

kith_status kith_rabitq_copy(const kith_rabitq *own, kith_rabitq **out) {
    kith_rabitq *made;
    *out = NULL;
    KITH_TRY(kith_alloc(1, sizeof *made, &made));
    *made = *own;
    made->transform = NULL;
    made->centre = NULL;
    made->narrow = NULL;
    kith_status status = KITH_OK;
    if (own->transform != NULL) KITH_GO(kith_transform_clone(own->transform, &made->transform));
    if (own->centre != NULL) {
        KITH_GO(kith_alloc(own->code.projected_dim, sizeof *made->centre, &made->centre));
        memcpy(made->centre, own->centre, own->code.projected_dim * sizeof *made->centre);
    }
    if (own->narrow != NULL) KITH_GO(kith_line_narrow(made));
    *out = made;
    return KITH_OK;
done:
    release(&made->code);
    return status;
}

static kith_status clone(const kith_code *code, kith_code **out) {
    kith_rabitq *made;
    *out = NULL;
    KITH_TRY(kith_rabitq_copy(kith_rabitq_of(code), &made));
    *out = &made->code;
    return KITH_OK;
}

static uint64_t memory(const kith_code *code) {
    const kith_rabitq *own = kith_rabitq_of(code);
    return sizeof *own + (own->transform != NULL ? kith_transform_bytes(own->transform) : 0) +
           (own->centre != NULL ? code->projected_dim * sizeof *own->centre : 0) +
           (own->narrow != NULL ? kith_line_narrow_bytes(own) : 0);
}

kith_status kith_rabitq_project(const kith_code *code, const float *vectors, size_t count, size_t threads,
                                kith_arena *arena, float *out) {
    const kith_rabitq *own = kith_rabitq_of(code);
    if (own->transform == NULL) return kith_error(KITH_ERR_NOT_TRAINED, "%s: not trained", code->name);
    if (count == 0) return KITH_OK;
    kith_view view = {.data = vectors, .dtype = KITH_F32, .count = count, .dim = code->dim};
    return kith_transform_apply(own->transform, &view, threads, arena, out);
}

static void prepare(const kith_code *code, const float *vector, void *query) {
    const kith_rabitq *own = kith_rabitq_of(code);
    float padded[LINE_DIM_MAX], half = (float)((1u << own->grid.bits) - 1) / 2;
    const float *given = vector;
    if (own->grid.dim > code->projected_dim) { /* a line that has more places than dimensions */
        memcpy(padded, vector, code->projected_dim * sizeof *padded);
        memset(padded + code->projected_dim, 0, (own->grid.dim - code->projected_dim) * sizeof *padded);
        given = padded;
    }
    kith_grid_prepare_centred(&own->grid, given, 1, half, query);
    if (own->centre != NULL)
        kith_grid_shift(query, -kith_simd()->floats[KITH_OP_IP][KITH_PAIR_F32_F32].one(vector, own->centre,
                                                                                       code->projected_dim));
}

static void estimate(const kith_code *code, const void *query, float base, const unsigned char *const *rows,
                     size_t count, float *out) {
    kith_grid_rows(&kith_rabitq_of(code)->grid, query, base, rows, count, out);
}

static void scan(const kith_code *code, const void *const *queries, const float *bases, size_t query_count,
                 const unsigned char *blocks, size_t block_count, float *out, size_t out_stride) {
    kith_grid_scan(&kith_rabitq_of(code)->grid, queries, bases, query_count, blocks, block_count, out, out_stride);
}

static void pack(const kith_code *code, const unsigned char *rows, size_t first, size_t count,
                 unsigned char *block) {
    kith_grid_pack(&kith_rabitq_of(code)->grid, rows, first, count, block);
}

static void unpack(const kith_code *code, const unsigned char *block, size_t lane, unsigned char *row) {
    kith_grid_unpack(&kith_rabitq_of(code)->grid, block, lane, row);
}

/* ---- The bound of an error -------------------------------------------------------------------------------------- */

/* |x|^2 for each dimension of a normal variable that is rounded at the step which loses least: 1 / step^2 less the loss
 * (Max, "Quantizing for Minimum Distortion", 1960). Rows come close enough, and their numbers need not be read. */
static const float x_norm2_each[KITH_RABITQ_BITS_MAX + 1] = {0,      0.25f,  0.8888f, 2.803f, 8.797f,
                                                             28.16f, 92.18f, 308.8f,  1054.0f};

/* k x is r / cosine, turned by the angle between the two; a random rotation spreads what is turned over dim - 1
 * directions, of which y sees one: section 3.2 of the first paper. The cosine is not stored; it is known from the
 * sample, and hardly differs from vector to vector. What the query loses by rounding, a uniform error in each
 * dimension, adds its variance. */
static float error_of(const kith_code *code, const void *query, float spread, float scale) {
    const kith_rabitq *own = kith_rabitq_of(code);
    float x_norm2 = (float)code->projected_dim * x_norm2_each[own->grid.bits];
    float others = (float)kith_max_size(code->projected_dim - 1, 1), step = kith_grid_query_step(&own->grid, query);
    float turned = (1 - own->cosine2_low) / others * (spread + own->centre_norm) * (spread + own->centre_norm);
    return deviations * fabsf(scale) * sqrtf(x_norm2 * (turned + step * step / 12));
}

static float error_of_row(const kith_code *code, const void *query, float spread, const unsigned char *row) {
    float scale;
    kith_grid_get(&kith_rabitq_of(code)->grid, row, NULL, NULL, &scale);
    return error_of(code, query, spread, scale);
}

static float error_in_block(const kith_code *code, const void *query, float spread, const unsigned char *block,
                            size_t lane) {
    float scale;
    kith_grid_block_factors(&kith_rabitq_of(code)->grid, block, lane, NULL, &scale);
    return error_of(code, query, spread, scale);
}

/* ---- Making ---------------------------------------------------------------------------------------------------- */

static const kith_code_vtable rabitq_vtable = {
    .kind = KITH_CODE_RABITQ,
    .release = release,
    .clone = clone,
    .memory = memory,
    .train = kith_rabitq_train,
    .project = kith_rabitq_project,
    .encode = kith_rabitq_encode,
    .decode = kith_rabitq_decode,
    .restore = kith_rabitq_restore,
    .prepare = prepare,
    .rows = estimate,
    .scan = scan,
    .error = error_of_row,
    .error_in_block = error_in_block,
    .pack = pack,
    .unpack = unpack,
    .save = kith_rabitq_save,
    .load = kith_rabitq_load,
};

static const kith_code_vtable line_vtable = {
    .kind = KITH_CODE_LINE,
    .release = release,
    .clone = clone,
    .memory = memory,
    .train = kith_line_train,
    .project = kith_rabitq_project,
    .project_queries = kith_line_project_queries,
    .encode = kith_rabitq_encode,
    .decode = kith_rabitq_decode,
    .restore = kith_rabitq_restore,
    .prepare = prepare,
    .rows = estimate,
    .scan = scan,
    .pack = pack,
    .unpack = unpack,
    .save = kith_rabitq_save,
    .load = kith_rabitq_load,
};

/* Reads a number of at most three digits and without leading zeros; 0 when there is none. */
static size_t read_number(const char *text, size_t *at) {
    size_t value = 0, digits = 0;
    if (text[*at] == '0') return 0;
    while (digits < 3 && text[*at] >= '0' && text[*at] <= '9') {
        value = value * 10 + (size_t)(text[(*at)++] - '0');
        digits++;
    }
    return value;
}

static kith_status read_rabitq(const char *name, size_t at, kith_rabitq *filled, size_t *position) {
    filled->code.vtable = &rabitq_vtable;
    *position = at;
    filled->bits_wanted = name[at] == '\0' ? 1 : read_number(name, &at);
    if (filled->bits_wanted < 1 || filled->bits_wanted > KITH_RABITQ_BITS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "RaBitQ has 1..%d bits for each dimension", KITH_RABITQ_BITS_MAX);
    *position = at;
    if (name[at] != '\0') return kith_error(KITH_ERR_ARGUMENT, "RaBitQ is followed by its bits and nothing else");
    return KITH_OK;
}

static kith_status read_line(const char *name, size_t at, kith_rabitq *filled, size_t *position) {
    filled->code.vtable = &line_vtable;
    *position = at;
    filled->line_bytes = read_number(name, &at);
    if (filled->line_bytes != 32 && filled->line_bytes != 64 && filled->line_bytes != 128)
        return kith_error(KITH_ERR_ARGUMENT, "a line has 32, 64 or 128 bytes");
    *position = at;
    if (name[at] == '\0') return KITH_OK;
    if (name[at] != 'x') return kith_error(KITH_ERR_ARGUMENT, "a line is followed by x and its bits");
    *position = ++at;
    filled->bits_wanted = read_number(name, &at);
    if (filled->bits_wanted < 1 || filled->bits_wanted > KITH_RABITQ_BITS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "a line has 1..%d bits for each dimension", KITH_RABITQ_BITS_MAX);
    if (kith_line_dim(filled->line_bytes, filled->bits_wanted) == 0)
        return kith_error(KITH_ERR_ARGUMENT, "numbers of %zu bits do not fill a line of %zu bytes",
                          filled->bits_wanted, filled->line_bytes);
    *position = at;
    if (name[at] != '\0') return kith_error(KITH_ERR_ARGUMENT, "nothing follows the bits of a line");
    return KITH_OK;
}

kith_status kith_rabitq_make(const char *name, size_t dim, kith_metric metric, kith_code **out, size_t *position) {
    static const char rabitq[] = "RaBitQ", line[] = "Line";
    kith_rabitq filled = {.code = {.dim = dim, .metric = metric}, .cosine2_mean = 1, .cosine2_low = 1}, *made;
    *out = NULL;
    *position = 0;
    if (strncmp(name, rabitq, sizeof rabitq - 1) == 0)
        KITH_TRY(read_rabitq(name, sizeof rabitq - 1, &filled, position));
    else if (strncmp(name, line, sizeof line - 1) == 0)
        KITH_TRY(read_line(name, sizeof line - 1, &filled, position));
    else
        return KITH_OK;
    *position = 0;
    if (metric != KITH_L2 && metric != KITH_IP)
        return kith_error(KITH_ERR_ARGUMENT, "%s under %s", name, kith_metric_name(metric));
    (void)snprintf(filled.code.name, sizeof filled.code.name, "%s", name);
    /* What a line without its bits says before training is of 1 bit, which has the most dimensions. */
    kith_rabitq_set_bits(&filled, filled.bits_wanted != 0 ? filled.bits_wanted : 1);
    KITH_TRY(kith_alloc(1, sizeof *made, &made));
    *made = filled;
    *out = &made->code;
    return KITH_OK;
}
