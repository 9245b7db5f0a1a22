/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>

#include "base/error.h"
#include "flat/flat_inside.h"

int64_t kith_flat_id(const kith_flat *flat, size_t row) {
    return flat->has_ids ? *(const int64_t *)kith_chunks_at(&flat->ids, row) : flat->first_id + (int64_t)row;
}

bool kith_flat_can_find(const kith_flat *flat) { return flat->ids_rise || !flat->base.is_mapped; }

static bool find_rising(const kith_flat *flat, int64_t id, uint64_t *row) {
    size_t first = 0, count = flat->base.count;
    while (count > 0) {
        size_t half = count / 2;
        bool right = kith_flat_id(flat, first + half) < id;
        first = right ? first + half + 1 : first;
        count = right ? count - half - 1 : half;
    }
    *row = first;
    return first < flat->base.count && kith_flat_id(flat, first) == id;
}

bool kith_flat_find_one(const kith_flat *flat, int64_t id, uint64_t *row) {
    assert(kith_flat_can_find(flat));
    if (!flat->ids_rise) return kith_idmap_get(&flat->map, id, row);
    if (flat->has_ids) return find_rising(flat, id, row);
    *row = (uint64_t)id - (uint64_t)flat->first_id;
    return id >= flat->first_id && *row < flat->base.count;
}

/* One pass over all ids, past a map of those that are looked for. */
static kith_status scan(const kith_flat *flat, const int64_t *ids, size_t count, uint64_t *rows) {
    kith_idmap wanted = {0};
    KITH_TRY(kith_idmap_reserve(&wanted, count));
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= 0) kith_idmap_put(&wanted, ids[i], KITH_FLAT_NO_ROW);
    for (size_t r = 0; r < flat->base.count; r++) {
        uint64_t before;
        int64_t id = kith_flat_id(flat, r);
        if (kith_idmap_get(&wanted, id, &before)) kith_idmap_put(&wanted, id, r);
    }
    for (size_t i = 0; i < count; i++)
        if (!kith_idmap_get(&wanted, ids[i], &rows[i])) rows[i] = KITH_FLAT_NO_ROW;
    kith_idmap_free(&wanted);
    return KITH_OK;
}

kith_status kith_flat_find(const kith_flat *flat, const int64_t *ids, size_t count, uint64_t *rows) {
    if (!kith_flat_can_find(flat)) return scan(flat, ids, count, rows);
    for (size_t i = 0; i < count; i++)
        if (!kith_flat_find_one(flat, ids[i], &rows[i])) rows[i] = KITH_FLAT_NO_ROW;
    return KITH_OK;
}

kith_status kith_flat_reserve_ids(kith_flat *flat, size_t count, bool stored, bool rise) {
    size_t had = flat->ids.chunk_count;
    kith_status status = stored ? kith_chunks_reserve(&flat->ids, count) : KITH_OK;
    if (status == KITH_OK && !rise) status = kith_idmap_reserve(&flat->map, count);
    if (status != KITH_OK) kith_chunks_trim(&flat->ids, 0, had);
    return status;
}

void kith_flat_settle_ids(kith_flat *flat, bool stored, bool rise) {
    if (stored && !flat->has_ids) {
        for (size_t r = 0; r < flat->base.count; r++)
            *(int64_t *)kith_chunks_at(&flat->ids, r) = flat->first_id + (int64_t)r;
        flat->has_ids = true;
    }
    if (!rise && flat->ids_rise) {
        for (size_t r = 0; r < flat->base.count; r++) kith_idmap_put(&flat->map, kith_flat_id(flat, r), r);
        flat->ids_rise = false;
    }
}

void kith_flat_clear_ids(kith_flat *flat) {
    kith_chunks_trim(&flat->ids, 0, 0);
    kith_idmap_free(&flat->map);
    flat->has_ids = false;
    flat->ids_rise = true;
    flat->first_id = 0;
}
