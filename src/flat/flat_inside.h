/* SPDX-License-Identifier: Apache-2.0
 *
 * flat_inside.h: Flat's data, and how ids are found among them.
 *
 * Rows have no fixed order: a removed row is filled by the last one. Three things about ids follow:
 *   - Row r has the id first_id + r as long as vectors were only ever added in that order: no ids are stored. The
 *     first id out of turn, or a removal before the end, writes them out.
 *   - As long as the stored ids rise with the rows, an id is found by binary search.
 *   - Once they do not, an id map is kept in memory. A mapped file has none: there the ids are scanned.
 */
#ifndef KITH_FLAT_FLAT_INSIDE_H
#define KITH_FLAT_FLAT_INSIDE_H

#include "base/chunks.h"
#include "base/idmap.h"
#include "flat/flat.h"

typedef struct kith_flat {
    kith_index base;
    size_t row_bytes;
    kith_chunks vectors;       /* row_bytes each, as the stored type */
    kith_chunks inverse_norms; /* float each, under cosine: 1 / |row| */
    kith_chunks ids;           /* int64_t each, where has_ids */
    int64_t first_id;          /* else row r has the id first_id + r */
    bool has_ids;
    bool ids_rise;     /* each row's id is larger than the one before */
    kith_idmap map;    /* in memory: of all rows, exactly when ids do not rise */
    uint32_t instance; /* of the sections of a mapped index */
} kith_flat;

static inline kith_flat *kith_flat_of(kith_index *index) { return (kith_flat *)index; }
static inline const kith_flat *kith_flat_of_const(const kith_index *index) { return (const kith_flat *)index; }
static inline bool kith_flat_has_norms(const kith_flat *flat) { return flat->base.metric == KITH_COSINE; }

extern const kith_index_vtable kith_flat_vtable;

/* An empty index of the type that the spec names. */
kith_status kith_flat_make(const kith_spec *spec, size_t dim, kith_metric metric, kith_flat **out);

/* ---- flat_ids.c ---- */
int64_t kith_flat_id(const kith_flat *flat, size_t row);
/* Whether kith_flat_find_one works: not for mapped ids that do not rise. */
bool kith_flat_can_find(const kith_flat *flat);
bool kith_flat_find_one(const kith_flat *flat, int64_t id, uint64_t *row);
/* Writes the row of each id, KITH_FLAT_NO_ROW for those that are not there. Works always. */
#define KITH_FLAT_NO_ROW UINT64_MAX
kith_status kith_flat_find(const kith_flat *flat, const int64_t *ids, size_t count, uint64_t *rows);
/* Room for the ids of `count` rows: written out where `stored`, in a map where not `rise`. On failure as before. */
kith_status kith_flat_reserve_ids(kith_flat *flat, size_t count, bool stored, bool rise);
/* Brings the ids of the present rows into that form. Cannot fail: room has been reserved. */
void kith_flat_settle_ids(kith_flat *flat, bool stored, bool rise);
/* No rows any more: ids may start anywhere. */
void kith_flat_clear_ids(kith_flat *flat);

/* ---- flat_change.c ---- */
kith_status kith_flat_add(kith_index *index, const kith_addition *addition);
kith_status kith_flat_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed);
kith_status kith_flat_update(kith_index *index, const kith_view *vectors, const int64_t *ids);
void kith_flat_reset(kith_index *index);

/* ---- flat_search.c ---- */
kith_status kith_flat_search(const kith_index *index, const kith_search_request *request,
                             const kith_search_results *results);
kith_status kith_flat_range_search(const kith_index *index, const kith_search_request *request,
                                   kith_range_lists *lists);

/* ---- flat_file.c ---- */
kith_status kith_flat_save(const kith_index *index, kith_container_writer *writer, uint32_t *part);
kith_status kith_flat_verify(const kith_index *index);

#endif
