/* SPDX-License-Identifier: Apache-2.0 */
#include "base/idlist.h"

#include <assert.h>

#include "base/error.h"

void kith_idlist_init(kith_idlist *list) {
    *list = (kith_idlist){.rises = true};
    kith_chunks_init(&list->ids, sizeof(int64_t));
}

void kith_idlist_set_epoch(kith_idlist *list, kith_epoch *epoch) { list->ids.epoch = list->map.epoch = epoch; }

static void begin_again(kith_idlist *list) {
    kith_epoch *epoch = list->ids.epoch;
    kith_idlist_init(list);
    kith_idlist_set_epoch(list, epoch);
}

void kith_idlist_free(kith_idlist *list) {
    kith_chunks_free(&list->ids);
    kith_idmap_free(&list->map);
    begin_again(list);
}

void kith_idlist_retire(kith_idlist *list) {
    kith_chunks_retire(&list->ids);
    kith_idmap_retire(&list->map);
    begin_again(list);
}

kith_status kith_idlist_borrow(kith_idlist *list, const int64_t *ids, int64_t first_id, size_t count, bool rises) {
    kith_idlist_init(list);
    if (ids != NULL) {
        kith_status status = kith_chunks_borrow(&list->ids, sizeof *ids, ids, count);
        if (status != KITH_OK) return status;
    }
    list->first_id = ids != NULL ? 0 : first_id;
    list->count = count;
    list->is_stored = ids != NULL;
    list->rises = rises;
    return KITH_OK;
}

/* ---- From ids to rows ------------------------------------------------------------------------------------- */

bool kith_idlist_can_find(const kith_idlist *list) { return list->rises || !list->ids.borrowed; }

static bool find_rising(const kith_idlist *list, int64_t id, uint64_t *row) {
    size_t first = 0, count = list->count;
    while (count > 0) {
        size_t half = count / 2;
        bool right = kith_idlist_get(list, first + half) < id;
        first = right ? first + half + 1 : first;
        count = right ? count - half - 1 : half;
    }
    *row = first;
    return first < list->count && kith_idlist_get(list, first) == id;
}

bool kith_idlist_next(const kith_idlist *list, int64_t id, size_t *step, uint64_t *row) {
    assert(kith_idlist_can_find(list));
    if (!list->rises) return kith_idmap_next(&list->map, id, step, row);
    if ((*step)++ > 0) return false;
    if (list->is_stored) return find_rising(list, id, row);
    *row = (uint64_t)id - (uint64_t)list->first_id;
    return id >= list->first_id && *row < list->count;
}

kith_status kith_idlist_scan(const kith_idlist *list, const int64_t *ids, size_t count, uint64_t *rows) {
    kith_idmap wanted = {0}; /* past which the ids go */
    kith_status status = kith_idmap_reserve(&wanted, count);
    if (status != KITH_OK) return status;
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= 0) kith_idmap_put(&wanted, ids[i], KITH_IDLIST_NO_ROW);
    for (size_t r = 0; r < list->count; r++) {
        uint64_t before;
        int64_t id = kith_idlist_get(list, r);
        if (kith_idmap_get(&wanted, id, &before)) kith_idmap_put(&wanted, id, r);
    }
    for (size_t i = 0; i < count; i++)
        if (!kith_idmap_get(&wanted, ids[i], &rows[i])) rows[i] = KITH_IDLIST_NO_ROW;
    kith_idmap_free(&wanted);
    return KITH_OK;
}

/* ---- Appending -------------------------------------------------------------------------------------------- */

/* How the ids will have to be kept once the new ones stand behind the present ones. */
static void plan(const kith_idlist *list, const kith_new_ids *more, bool *stored, bool *rises) {
    int64_t first = kith_new_id(more, 0), last = kith_new_id(more, more->count - 1);
    int64_t last_held = list->count > 0 ? kith_idlist_get(list, list->count - 1) : -1;
    *rises = list->rises && more->rise && first > last_held;
    /* Rising ids follow each other when the last is as far from the first as its row. */
    bool consecutive = *rises && (uint64_t)(last - first) == (uint64_t)(more->count - 1);
    *stored = list->is_stored || !consecutive || (list->count > 0 && first != last_held + 1);
}

kith_status kith_idlist_reserve(kith_idlist *list, const kith_new_ids *more) {
    bool stored, rises;
    plan(list, more, &stored, &rises);
    size_t total = list->count + more->count;
    kith_status status = stored ? kith_chunks_reserve(&list->ids, total) : KITH_OK;
    if (status == KITH_OK && !rises) status = kith_idmap_reserve(&list->map, total);
    if (status != KITH_OK) kith_idlist_unreserve(list);
    return status;
}

void kith_idlist_unreserve(kith_idlist *list) {
    kith_chunks_trim(&list->ids, list->is_stored ? list->count : 0, 0);
    if (list->rises) kith_idmap_free(&list->map);
}

static void store(kith_idlist *list, size_t row, int64_t id) { *(int64_t *)kith_chunks_at(&list->ids, row) = id; }

void kith_idlist_append(kith_idlist *list, const kith_new_ids *more) {
    bool stored, rises;
    plan(list, more, &stored, &rises);
    if (stored && !list->is_stored)
        for (size_t r = 0; r < list->count; r++) store(list, r, list->first_id + (int64_t)r);
    if (!stored && list->count == 0) list->first_id = kith_new_id(more, 0);
    list->is_stored = stored;
    for (size_t i = 0; stored && i < more->count; i++) store(list, list->count + i, kith_new_id(more, i));
    if (!rises) {
        size_t first = list->rises ? 0 : list->count; /* those before are in the map */
        for (size_t r = first; r < list->count; r++) kith_idmap_append(&list->map, kith_idlist_get(list, r), r);
        for (size_t i = 0; i < more->count; i++)
            kith_idmap_append(&list->map, kith_new_id(more, i), list->count + i);
    }
    list->rises = rises;
    list->count += more->count;
}

uint64_t kith_idlist_bytes(const kith_idlist *list) {
    return kith_chunks_bytes(&list->ids) + (uint64_t)list->map.slot_count * sizeof *list->map.slots;
}

kith_status kith_idlist_bytes_for(size_t count, uint64_t *bytes) {
    KITH_TRY(kith_chunks_bytes_for(sizeof(int64_t), count, bytes));
    return kith_idmap_bytes_for(count, bytes);
}
