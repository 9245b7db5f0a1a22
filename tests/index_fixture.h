/* SPDX-License-Identifier: Apache-2.0
 *
 * index_fixture.h: for tests of indexes: vectors of any element type, a plain model of what an index should hold,
 * and the comparison of its searches with brute force over that model in double precision.
 */
#ifndef KITH_TESTS_INDEX_FIXTURE_H
#define KITH_TESTS_INDEX_FIXTURE_H

#include <stdbool.h>

#include "kith/kith.h"

/* Rows as an element type, and their exact values. */
typedef struct fixture_vectors {
    kith_dtype dtype;
    size_t count, dim;
    float *values;
    unsigned char *stored;
} fixture_vectors;

/* Random vectors; `stream` names the set. Integers come from -20..20 or 0..40, so that ties are common. */
fixture_vectors fixture_vectors_make(kith_dtype dtype, size_t count, size_t dim, uint64_t stream);
void fixture_vectors_free(fixture_vectors *vectors);
kith_view fixture_view(const fixture_vectors *vectors, size_t first, size_t count);

/* What an index should hold: entry i is vectors row `row[i]` under id `id[i]`. */
typedef struct fixture_model {
    size_t dim, count, capacity;
    int64_t *ids;
    float *values; /* capacity x dim */
} fixture_model;

void fixture_model_init(fixture_model *model, size_t dim);
void fixture_model_free(fixture_model *model);
/* Adds or replaces. */
void fixture_model_put(fixture_model *model, int64_t id, const float *values);
bool fixture_model_remove(fixture_model *model, int64_t id);
const float *fixture_model_find(const fixture_model *model, int64_t id);

double fixture_value(kith_metric metric, const float *a, const float *b, size_t dim);

typedef bool (*fixture_allow)(int64_t id);
/* Asserts that search and range search of the index give what brute force over the model gives, up to rounding, and
 * that it holds what the model holds. */
void fixture_check_search(const kith_index *index, const fixture_model *model, const fixture_vectors *queries,
                          size_t k, const kith_search_params *params, fixture_allow allow);
void fixture_check_range(const kith_index *index, const fixture_model *model, const fixture_vectors *queries,
                         float radius, const kith_search_params *params, fixture_allow allow);
void fixture_check_content(const kith_index *index, const fixture_model *model);

/* An index of `count` f32 vectors, trained on them. */
kith_index *fixture_index(const char *spec, size_t count, size_t dim, kith_metric metric);

/* "Flat", "Flat,f16", ... */
const char *fixture_spec(kith_dtype dtype);

extern const kith_dtype fixture_types[5];
extern const kith_metric fixture_metrics[3];

#endif
