/* SPDX-License-Identifier: Apache-2.0
 *
 * spec_choice.c: "HNSW" without a number, alone or with an element type: a graph of kith's choice.
 *
 * A row of more than one cache line is walked on as a code of one line, and the vectors refine it: fast, and exact. Then
 * step by step less memory, first what costs the least: vectors in half the bytes, half the links, vectors in a quarter of
 * the bytes; last no line codes: what refined them is walked on itself. docs/graph.md says what each step costs.
 */
#include <stdio.h>
#include <string.h>

#include "api/structures.h"
#include "base/error.h"
#include "code/code.h"
#include "hnsw/hnsw.h"

enum { LINE_BYTES = 64, CHOICES_MAX = 5 };

typedef struct choice {
    const char *graph;  /* NULL: there are no more */
    const char *stored; /* what stands behind it; NULL: the element type that was asked for */
} choice;

static const choice of_short_rows[CHOICES_MAX + 1] = {{"HNSW32,", NULL}, {"HNSW16,", NULL}};
static const choice of_f32[CHOICES_MAX + 1] = {{"HNSW32,Line64,R", NULL},
                                               {"HNSW32,Line64,R", "f16"},
                                               {"HNSW16,Line64,R", "f16"},
                                               {"HNSW16,Line64,R", "SQ8"},
                                               {"HNSW16,", "SQ8"}};
static const choice of_halves[CHOICES_MAX + 1] = {
    {"HNSW32,Line64,R", NULL}, {"HNSW16,Line64,R", NULL}, {"HNSW16,Line64,R", "SQ8"}, {"HNSW16,", "SQ8"}};
static const choice of_bytes[CHOICES_MAX + 1] = {
    {"HNSW32,Line64,R", NULL}, {"HNSW16,Line64,R", NULL}, {"HNSW16,", NULL}};

static const choice *choices_of(kith_dtype dtype, size_t dim) {
    if (kith_dtype_row_bytes(dtype, dim) <= LINE_BYTES) return of_short_rows;
    switch (dtype) {
        case KITH_F32: return of_f32;
        case KITH_I8:
        case KITH_U8: return of_bytes;
        default: return of_halves;
    }
}

/* Is the spec "HNSW", alone or with an element type that an index stores? */
static bool leaves_choice(const char *spec, kith_dtype *dtype) {
    size_t name = strlen(KITH_HNSW_NAME);
    *dtype = KITH_F32;
    if (strncmp(spec, KITH_HNSW_NAME, name) != 0) return false;
    if (spec[name] == '\0') return true;
    return spec[name] == ',' && kith_dtype_parse(spec + name + 1, dtype) == KITH_OK && *dtype <= KITH_U8;
}

const char *kith_spec_choice(const char *spec, size_t dim, size_t number, char out[KITH_SPEC_BYTES_MAX]) {
    kith_dtype dtype;
    if (!leaves_choice(spec, &dtype)) return number == 0 ? spec : NULL;
    const choice *chosen = &choices_of(dtype, dim)[number];
    if (chosen->graph == NULL) return NULL;
    const char *name = dtype == KITH_F32 ? "Flat" : kith_dtype_name(dtype);
    (void)snprintf(out, KITH_SPEC_BYTES_MAX, "%s%s", chosen->graph, chosen->stored != NULL ? chosen->stored : name);
    return out;
}

/* At most what the codes of a choice learn: of a line a matrix of dim x its numbers, as it is, in panels and in 8 bits;
 * of each code a few numbers for every dimension. How many numbers a line holds, training decides. */
static uint64_t learnt_bytes_max(const char *chosen, size_t dim) {
    bool has_line = strstr(chosen, "Line") != NULL;
    size_t numbers = has_line ? kith_round_up(kith_min_size(dim, 8 * LINE_BYTES), KITH_BLOCK_ROWS) : 0;
    return (uint64_t)numbers * (9 * dim + 16) + 64 * dim + 4096;
}

kith_status kith_index_create_within(const char *spec, size_t dim, kith_metric metric, size_t count, int has_ids,
                                     uint64_t memory_bytes_max, kith_index **out) {
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "create: out must not be NULL");
    *out = NULL;
    if (spec == NULL) return kith_error(KITH_ERR_ARGUMENT, "create: spec must not be NULL");
    if (count == 0) return kith_error(KITH_ERR_EMPTY, "create: for no vectors");
    uint64_t bytes, least = UINT64_MAX;
    char text[KITH_SPEC_BYTES_MAX];
    const char *chosen;
    for (size_t number = 0; (chosen = kith_spec_choice(spec, dim, number, text)) != NULL; number++) {
        kith_index *index;
        KITH_TRY(kith_index_create(chosen, dim, metric, &index));
        kith_status status = kith_index_memory_for(index, count, has_ids, &bytes);
        if (chosen == text && !kith_index_is_trained(index)) bytes += learnt_bytes_max(text, dim);
        if (status == KITH_OK && (memory_bytes_max == 0 || bytes <= memory_bytes_max)) {
            *out = index;
            return KITH_OK;
        }
        kith_index_free(index);
        if (status != KITH_OK) return status;
        least = bytes < least ? bytes : least;
    }
    return kith_error(KITH_ERR_BUDGET,
                      "create %s: %zu vectors of %zu dimensions need %llu bytes, the budget is %llu", spec, count,
                      dim, (unsigned long long)least, (unsigned long long)memory_bytes_max);
}
