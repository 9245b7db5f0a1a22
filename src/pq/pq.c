/* SPDX-License-Identifier: Apache-2.0
 *
 * pq.c: making, copying and freeing product quantisers.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "pq/pq_inside.h"

enum { CACHE_LINE = 64, WIDTH_DEFAULT = 8, WIDTH_DEFAULT_FAST = 2, READ_PAST_BYTES = 2 };
enum { SHAPED_WIDTH_MAX = 64 /* their training solves systems of so many unknowns */ };
/* Products that prepare keeps on the stack. */
enum { STACK_PRODUCTS = 8192 };

/* ---- What follows from the codebooks --------------------------------------------------------------------------- */

typedef struct derived {
    float *panels, *centres, *centred, *bias, *norms;
} derived;

static void derived_free(derived *d) {
    kith_free(d->panels);
    kith_free(d->centres);
    kith_free(d->centred);
    kith_free(d->bias);
    kith_free(d->norms);
}

static void derive_part(const kith_pq *pq, const float *codebook, size_t part, derived *d) {
    size_t width = pq->width, first = part * pq->codewords;
    float *centre = d->centres + part * width;
    for (size_t j = 0; j < width; j++) {
        double sum = 0;
        for (size_t c = 0; c < pq->codewords; c++) sum += (double)codebook[c * width + j];
        centre[j] = (float)(sum / (double)pq->codewords);
    }
    for (size_t c = 0; c < pq->codewords; c++) {
        size_t group = c / KITH_PQ_LANES * KITH_PQ_LANES;
        float *panel = d->panels + (first + group) * width + c % KITH_PQ_LANES;
        float *centred = d->centred + (first + c) * width;
        double norm = 0, centred_norm = 0;
        for (size_t j = 0; j < width; j++) {
            float value = codebook[c * width + j];
            panel[j * KITH_PQ_LANES] = value;
            centred[j] = value - centre[j];
            norm += (double)value * (double)value;
            centred_norm += (double)centred[j] * (double)centred[j];
        }
        d->norms[first + c] = (float)norm;
        d->bias[first + c] = (float)(-0.5 * centred_norm);
    }
}

static kith_status derive(const kith_pq *pq, const float *codebooks, derived *d) {
    size_t book = pq->codewords * pq->width;
    kith_status status;
    KITH_GO(kith_alloc(pq->parts, book * sizeof *d->panels, &d->panels));
    KITH_GO(kith_alloc(pq->parts, book * sizeof *d->centred, &d->centred));
    KITH_GO(kith_alloc(pq->base.dim, sizeof *d->centres, &d->centres));
    KITH_GO(kith_alloc(pq->parts, pq->codewords * sizeof *d->bias, &d->bias));
    KITH_GO(kith_alloc(pq->parts, pq->codewords * sizeof *d->norms, &d->norms));
    for (size_t p = 0; p < pq->parts; p++) {
        derive_part(pq, codebooks + p * book, p, d);
        for (size_t c = p * pq->codewords; c < (p + 1) * pq->codewords; c++)
            if (!(d->norms[c] <= KITH_NORM2_MAX) || !isfinite(d->bias[c])) {
                status = kith_error(KITH_ERR_RANGE, "%s: codeword %zu of part %zu has the squared norm %g",
                                    pq->base.name, c - p * pq->codewords, p, (double)d->norms[c]);
                goto done;
            }
    }
done:
    return status;
}

void kith_pq_free_arrays(kith_pq *pq) {
    derived own = {pq->panels, pq->centres, pq->centred, pq->bias, pq->norms};
    derived_free(&own);
    kith_free(pq->codebooks);
}

kith_status kith_pq_adopt(kith_pq *pq, float *codebooks) {
    derived made = {0};
    kith_status status = derive(pq, codebooks, &made);
    if (status != KITH_OK) {
        derived_free(&made);
        kith_free(codebooks);
        return status;
    }
    kith_pq_free_arrays(pq);
    pq->codebooks = codebooks;
    pq->panels = made.panels;
    pq->centres = made.centres;
    pq->centred = made.centred;
    pq->bias = made.bias;
    pq->norms = made.norms;
    pq->base.is_trained = true;
    return KITH_OK;
}

kith_pq kith_pq_blank(const kith_pq *pq) {
    kith_pq blank = *pq;
    blank.base.is_trained = false;
    blank.codebooks = blank.panels = blank.centres = blank.centred = blank.bias = blank.norms = NULL;
    return blank;
}

/* ---- The vtable's smaller functions ----------------------------------------------------------------------------- */

static void release(kith_code *code) {
    kith_pq_free_arrays(kith_pq_of(code));
    kith_free(code);
}

static kith_status clone(const kith_code *code, kith_code **out) {
    const kith_pq *pq = kith_pq_of_const(code);
    size_t book = pq->codewords * pq->width;
    kith_pq *copy = NULL;
    float *codebooks = NULL;
    *out = NULL;
    kith_status status;
    KITH_GO(kith_alloc_zeroed(1, sizeof *copy, &copy));
    *copy = kith_pq_blank(pq);
    if (pq->base.is_trained) {
        KITH_GO(kith_alloc(pq->parts, book * sizeof *codebooks, &codebooks));
        memcpy(codebooks, pq->codebooks, pq->parts * book * sizeof *codebooks);
        KITH_GO(kith_pq_adopt(copy, codebooks));
    }
    *out = &copy->base;
    copy = NULL;
done:
    if (copy != NULL) release(&copy->base);
    return status;
}

static uint64_t memory(const kith_code *code) {
    const kith_pq *pq = kith_pq_of_const(code);
    uint64_t bytes = sizeof *pq;
    if (!code->is_trained) return bytes;
    uint64_t codewords = (uint64_t)pq->parts * pq->codewords;
    return bytes + 3 * codewords * pq->width * sizeof(float) + code->dim * sizeof(float) +
           2 * codewords * sizeof(float);
}

#define FUNCTIONS                                                                                                  \
    .release = release, .clone = clone, .memory = memory, .train = kith_pq_train, .encode = kith_pq_encode,        \
    .decode = kith_pq_decode, .restore = kith_pq_restore, .prepare = kith_pq_prepare, .rows = kith_pq_rows,        \
    .scan = kith_pq_scan, .pack = kith_pq_pack, .unpack = kith_pq_unpack, .save = kith_pq_save,                    \
    .load = kith_pq_load

static const kith_code_vtable vtable = {.kind = KITH_CODE_PQ, FUNCTIONS};
static const kith_code_vtable fast_vtable = {.kind = KITH_CODE_PQFS, FUNCTIONS};

/* ---- From a name ------------------------------------------------------------------------------------------------ */

size_t kith_pq_parts_default(size_t dim, bool is_fast) {
    size_t parts = kith_max_size(dim / (is_fast ? WIDTH_DEFAULT_FAST : WIDTH_DEFAULT), 1);
    while (dim % parts != 0) parts--;
    return parts;
}

/* A number from *at on, which moves past it. Digits beyond what a dimension or a number of bits needs are cut off: such
 * a number is too large for either. */
static size_t read_number(const char *name, size_t *at) {
    size_t value = 0;
    for (; name[*at] >= '0' && name[*at] <= '9'; ++*at)
        if (value < 1000000) value = value * 10 + (size_t)(name[*at] - '0');
    return value;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* The numbers that divide dim next to `parts`. */
static kith_status say_what_divides(size_t parts, size_t dim) {
    size_t below = kith_min_size(parts, dim), above = parts;
    while (below > 0 && dim % below != 0) below--;
    while (above < dim && (above == 0 || dim % above != 0)) above++;
    if (parts == 0 || parts > dim)
        return kith_error(KITH_ERR_ARGUMENT, "PQ: %zu parts of %zu dimensions; %zu would fit", parts, dim,
                          parts == 0 ? (size_t)1 : dim);
    return kith_error(KITH_ERR_ARGUMENT, "PQ: %zu parts do not divide %zu dimensions; %zu and %zu do", parts, dim,
                      below, above);
}

/* parts, bits, is_fast and is_anisotropic from the name; parts = 0 where it is left out. */
static kith_status parse(const char *name, size_t dim, kith_pq *pq, size_t *position) {
    size_t at = 2, bits_at;
    bool has_parts = is_digit(name[at]);
    pq->bits = 8;
    *position = at;
    if (has_parts) {
        pq->parts = read_number(name, &at);
        if (pq->parts == 0 || pq->parts > dim || dim % pq->parts != 0) return say_what_divides(pq->parts, dim);
    }
    bits_at = at + 1;
    if (name[at] == 'x') {
        at++;
        *position = at;
        if (!is_digit(name[at])) return kith_error(KITH_ERR_ARGUMENT, "PQ: a number of bits is missing");
        pq->bits = read_number(name, &at);
        if (pq->bits < KITH_PQ_BITS_MIN || pq->bits > KITH_PQ_BITS_MAX)
            return kith_error(KITH_ERR_ARGUMENT, "PQ: %zu bits are outside %d..%d", pq->bits, KITH_PQ_BITS_MIN,
                              KITH_PQ_BITS_MAX);
    }
    if (name[at] == 'f' && name[at + 1] == 's') {
        *position = bits_at;
        if (pq->bits != 4)
            return kith_error(KITH_ERR_ARGUMENT, "PQ: fast-scan takes 4 bits, not %zu: x4fs", pq->bits);
        pq->is_fast = true;
        at += 2;
    }
    if (name[at] == 'a') pq->is_anisotropic = true, at++;
    *position = at;
    if (name[at] != '\0')
        return kith_error(KITH_ERR_ARGUMENT, "PQ: expected PQ<parts>[x<bits>][fs][a], found \"%.16s\"", name + at);
    if (!has_parts) pq->parts = kith_pq_parts_default(dim, pq->is_fast);
    if (pq->is_anisotropic && dim / pq->parts > SHAPED_WIDTH_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "PQ: score-aware codes take at most %d dimensions a part, not %zu",
                          SHAPED_WIDTH_MAX, dim / pq->parts);
    return KITH_OK;
}

/* Everything that the parameters say. */
static void lay_out(kith_pq *pq, size_t dim, kith_metric metric) {
    pq->codewords = (size_t)1 << pq->bits;
    pq->width = dim / pq->parts;
    pq->word_count = (pq->parts * pq->bits + 31) / 32;
    size_t entries = pq->parts * pq->codewords;
    pq->table_bytes = pq->is_fast ? pq->word_count * KITH_NIBBLE_WORD_BYTES
                                  : kith_round_up(entries * sizeof(uint16_t) + READ_PAST_BYTES, CACHE_LINE);
    pq->product_count = entries <= STACK_PRODUCTS ? 0 : entries + pq->parts;
    kith_code *base = &pq->base;
    base->vtable = pq->is_fast ? &fast_vtable : &vtable;
    base->dim = base->projected_dim = dim;
    base->metric = metric;
    base->code_bytes = (pq->word_count + (metric == KITH_L2)) * sizeof(uint32_t);
    base->block_bytes = base->code_bytes * KITH_BLOCK_ROWS;
    base->query_bytes = CACHE_LINE + pq->table_bytes + kith_round_up(pq->product_count * sizeof(float), CACHE_LINE);
    char bits[8] = "";
    if (pq->bits != 8 || pq->is_fast) (void)snprintf(bits, sizeof bits, "x%u", (unsigned)pq->bits);
    (void)snprintf(base->name, sizeof base->name, "PQ%u%s%s%s", (unsigned)pq->parts, bits, pq->is_fast ? "fs" : "",
                   pq->is_anisotropic ? "a" : "");
}

kith_status kith_pq_make(const char *name, size_t dim, kith_metric metric, kith_code **out, size_t *position) {
    *out = NULL;
    *position = 0;
    if (strncmp(name, "PQ", 2) != 0) return KITH_OK;
    if (metric != KITH_L2 && metric != KITH_IP)
        return kith_error(KITH_ERR_ARGUMENT, "PQ: metric %s; codes take l2 and ip", kith_metric_name(metric));
    if (dim < 1 || dim > KITH_DIM_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "PQ: %zu dimensions, outside 1..%d", dim, KITH_DIM_MAX);
    kith_pq parsed = {0}, *pq;
    KITH_TRY(parse(name, dim, &parsed, position));
    lay_out(&parsed, dim, metric);
    KITH_TRY(kith_alloc_zeroed(1, sizeof *pq, &pq));
    *pq = parsed;
    *out = &pq->base;
    return KITH_OK;
}
