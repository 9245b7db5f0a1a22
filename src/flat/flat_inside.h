/* SPDX-License-Identifier: Apache-2.0
 *
 * flat_inside.h: Flat's data.
 */
#ifndef KITH_FLAT_FLAT_INSIDE_H
#define KITH_FLAT_FLAT_INSIDE_H

#include "flat/flat.h"
#include "index/idrows.h"

typedef struct kith_flat {
    kith_index base;
    size_t row_bytes;
    kith_chunks vectors;       /* row_bytes each, as the stored type */
    kith_chunks inverse_norms; /* float each, under cosine: 1 / |row| */
    kith_idrows ids;           /* counts the rows; base.count the live ones */
    uint32_t instance;         /* of the sections of a mapped index */
} kith_flat;

static inline kith_flat *kith_flat_of(kith_index *index) { return (kith_flat *)index; }
static inline const kith_flat *kith_flat_of_const(const kith_index *index) { return (const kith_flat *)index; }
static inline bool kith_flat_has_norms(const kith_flat *flat) { return flat->base.metric == KITH_COSINE; }

extern const kith_index_vtable kith_flat_vtable;

/* An empty index of the type that the spec names. */
kith_status kith_flat_make(const kith_spec *spec, size_t dim, kith_metric metric, kith_flat **out);

/* ---- flat_change.c ---- */
kith_status kith_flat_add(kith_index *index, const kith_addition *addition);
kith_status kith_flat_upsert(kith_index *index, const kith_addition *addition, size_t *replaced);
kith_status kith_flat_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed);
kith_status kith_flat_update(kith_index *index, const kith_view *vectors, const int64_t *ids);
kith_status kith_flat_merge(kith_index *into, const kith_index *from, int64_t id_shift);
kith_status kith_flat_compact(kith_index *index);
void kith_flat_reset(kith_index *index);
kith_status kith_flat_stage(kith_index *index, const kith_change *change, kith_staged **out);
void kith_flat_settle(kith_index *index, kith_staged *staged, bool keep);

/* ---- flat_search.c ---- */
kith_status kith_flat_search(const kith_index *index, const kith_search_request *request,
                             const kith_search_results *results);
kith_status kith_flat_range_search(const kith_index *index, const kith_search_request *request,
                                   kith_range_lists *lists);

/* ---- flat_rescore.c ---- */
kith_status kith_flat_rescore(const kith_index *index, const kith_search_request *request,
                              const kith_candidates *candidates, const kith_search_results *results);

/* ---- flat_file.c ---- */
kith_status kith_flat_save(const kith_index *index, kith_container_writer *writer, uint32_t *part);
kith_status kith_flat_verify(const kith_index *index);

#endif
