/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_model.h: for tests of inverted lists: what an index should hold and find, worked out vector by vector through the
 * interface of codes, without lists and blocks.
 */
#ifndef KITH_TESTS_IVF_MODEL_H
#define KITH_TESTS_IVF_MODEL_H

#include "index_fixture.h"
#include "ivf/ivf_inside.h"

/* Every code, with numbers that suit 24 dimensions; NULL ends. */
extern const char *const ivf_codes[];

/* "IVF8,SQ8" for lists = 8, "SQ8" for 0. One of eight static buffers, in turn. */
const char *ivf_spec(size_t lists, const char *code);
/* Made and trained on all the vectors. */
kith_index *ivf_trained(const char *spec, kith_metric metric, const fixture_vectors *vectors);
void ivf_add(kith_index *index, const fixture_vectors *vectors, size_t first, size_t count, const int64_t *ids);

/* Asserts that a search of all lists finds exactly what the model's vectors, encoded one by one, give: ids in order,
 * and the same bits of distances. */
void ivf_check_search(const kith_index *index, const fixture_model *model, const fixture_vectors *queries,
                      size_t k);
/* Asserts that the lists hold the model's ids, each once and in the list of its nearest centroid, with the code that
 * encoding it alone gives. */
void ivf_check_content(const kith_index *index, const fixture_model *model);
/* Asserts that both give the same bits for the same queries, with nprobe lists. */
void ivf_check_same(const kith_index *a, const kith_index *b, const fixture_vectors *queries, size_t k,
                    size_t nprobe);

/* A mixture of Gaussians: rows near one of `centres` points. */
fixture_vectors ivf_clustered(size_t count, size_t dim, size_t centres, uint64_t stream);

#endif
