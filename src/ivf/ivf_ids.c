/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_ids.c: finding vectors by their ids. As long as ids only rise none is ever looked for; the first call that has
 * to find one in an index that may change builds a map, which then follows all changes. Calls that only read go
 * without: they read all ids once.
 */
#include <string.h>

#include "base/error.h"
#include "ivf/ivf_inside.h"

/* Calls `visit` for each id that is held, list by list; with `only_first` for first copies alone. */
static void visit_ids(const kith_ivf *ivf, bool only_first,
                      void (*visit)(void *context, int64_t id, uint64_t place), void *context) {
    for (size_t l = 0; ivf->lists != NULL && l < kith_ivf_lists(ivf); l++) {
        const kith_list *list = kith_ivf_list(ivf, l);
        if (only_first && l % ivf->copies > 0) continue;
        size_t position = 0;
        for (size_t s = 0; s < list->segment_count; s++)
            for (size_t i = 0; i < list->segments[s].count; i++, position++)
                visit(context, kith_segment_id(ivf, &list->segments[s], i), kith_ivf_place(ivf, l, position));
    }
}

static void put_id(void *index, int64_t id, uint64_t place) {
    kith_ivf *ivf = index;
    kith_idmap_put(kith_list_map(ivf, kith_place_list(ivf, place)), id, place);
}

void kith_ivf_free_maps(kith_ivf *ivf) {
    for (size_t c = 0; c < 2; c++) kith_idmap_free(&ivf->maps[c]);
    ivf->has_map = false;
}

kith_status kith_ivf_need_map(kith_ivf *ivf) {
    if (ivf->has_map) return KITH_OK;
    for (size_t c = 0; c < ivf->copies; c++) {
        kith_idmap_clear(&ivf->maps[c]);
        KITH_TRY(kith_idmap_reserve(&ivf->maps[c], ivf->base.count));
    }
    visit_ids(ivf, false, put_id, ivf);
    ivf->has_map = true;
    return KITH_OK;
}

/* Replaces the place of an id that is looked for. */
static void note_id(void *wanted, int64_t id, uint64_t place) {
    uint64_t before;
    if (kith_idmap_get(wanted, id, &before)) kith_idmap_put(wanted, id, place);
}

static kith_status find_by_reading(const kith_ivf *ivf, const int64_t *ids, size_t count, uint64_t *places) {
    kith_idmap wanted = {0};
    KITH_TRY(kith_idmap_reserve(&wanted, count));
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= 0) kith_idmap_put(&wanted, ids[i], KITH_IVF_NO_PLACE);
    visit_ids(ivf, true, note_id, &wanted);
    for (size_t i = 0; i < count; i++)
        if (!kith_idmap_get(&wanted, ids[i], &places[i])) places[i] = KITH_IVF_NO_PLACE;
    kith_idmap_free(&wanted);
    return KITH_OK;
}

kith_status kith_ivf_find(const kith_ivf *ivf, const int64_t *ids, size_t count, uint64_t *places) {
    if (!ivf->has_map) return find_by_reading(ivf, ids, count, places);
    for (size_t i = 0; i < count; i++)
        if (!kith_idmap_get(&ivf->maps[0], ids[i], &places[i])) places[i] = KITH_IVF_NO_PLACE;
    return KITH_OK;
}

kith_status kith_ivf_holds(const kith_index *index, const int64_t *ids, size_t count, bool *held) {
    uint64_t *places;
    KITH_TRY(kith_alloc(count, sizeof *places, &places));
    kith_status status = kith_ivf_find(kith_ivf_of_const(index), ids, count, places);
    for (size_t i = 0; i < count && status == KITH_OK; i++) held[i] = places[i] != KITH_IVF_NO_PLACE;
    kith_free(places);
    return status;
}

/* ---- Remove --------------------------------------------------------------------------------------------------- */

void kith_ivf_take_out(kith_ivf *ivf, uint64_t place, unsigned char *row) {
    const kith_code *code = ivf->code;
    size_t number = kith_place_list(ivf, place);
    kith_list *list = kith_ivf_list(ivf, number);
    size_t position = kith_place_position(ivf, place), last = list->count - 1;
    if (position != last) {
        int64_t moved = kith_list_id(ivf, list, last);
        kith_list_get(code, list, last, 1, row);
        kith_list_put(code, list, position, 1, row);
        kith_list_set_id(ivf, list, position, moved);
        kith_idmap_put(kith_list_map(ivf, number), moved, place);
    }
    kith_list_set_count(list, last);
}

kith_status kith_ivf_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed) {
    kith_ivf *ivf = kith_ivf_of(index);
    unsigned char *row;
    *removed = 0;
    if (index->count == 0) return KITH_OK;
    KITH_TRY(kith_alloc(1, ivf->code->code_bytes, &row));
    kith_status status = kith_ivf_need_map(ivf);
    for (size_t i = 0; status == KITH_OK && i < count; i++) {
        uint64_t place;
        if (ids[i] < 0 || !kith_idmap_get(&ivf->maps[0], ids[i], &place)) continue;
        for (size_t c = 0; c < ivf->copies; c++) {
            (void)kith_idmap_get(&ivf->maps[c], ids[i], &place);
            kith_idmap_remove(&ivf->maps[c], ids[i]);
            kith_ivf_take_out(ivf, place, row);
        }
        index->count--;
        ++*removed;
    }
    if (index->count == 0) kith_lists_clear(ivf);
    kith_free(row);
    return status;
}

/* ---- Reconstruct ---------------------------------------------------------------------------------------------- */

enum { DECODE_ROWS = 64 };

typedef struct decode_loop {
    const kith_ivf *ivf;
    const uint64_t *places;
    size_t count, scratch_bytes;
    unsigned char *scratch; /* of each worker: codes */
    float *out;
} decode_loop;

static kith_status decode_item(void *context, size_t item, size_t worker) {
    const decode_loop *loop = context;
    const kith_ivf *ivf = loop->ivf;
    const kith_code *code = ivf->code;
    unsigned char *codes = loop->scratch + worker * loop->scratch_bytes;
    uint32_t assigned[DECODE_ROWS];
    size_t first = item * DECODE_ROWS, count = kith_min_size(DECODE_ROWS, loop->count - first);
    for (size_t i = 0; i < count; i++) {
        size_t l = kith_place_list(ivf, loop->places[first + i]);
        kith_list_get(code, kith_ivf_list(ivf, l), kith_place_position(ivf, loop->places[first + i]), 1,
                      codes + i * code->code_bytes);
        assigned[i] = (uint32_t)(l / ivf->copies);
    }
    const kith_code_rows rows = {.count = count,
                                 .centroids = ivf->by_residual ? ivf->projected : NULL,
                                 .assigned = ivf->by_residual ? assigned : NULL};
    return code->vtable->decode(code, &rows, codes, loop->out + first * code->dim);
}

kith_status kith_ivf_reconstruct(const kith_index *index, const int64_t *ids, size_t count, float *out) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    size_t items = (count - 1) / DECODE_ROWS + 1, threads = kith_min_size(kith_threads_default(), items);
    decode_loop loop = {.ivf = ivf, .count = count, .out = out};
    loop.scratch_bytes = kith_round_up(DECODE_ROWS * ivf->code->code_bytes, KITH_ALIGNMENT);
    uint64_t *places;
    KITH_TRY(kith_alloc(count, sizeof *places, &places));
    loop.places = places;
    kith_status status;
    if (index->count > 0)
        KITH_GO(kith_ivf_find(ivf, ids, count, places));
    else
        memset(places, 0xff, count * sizeof *places);
    for (size_t i = 0; i < count; i++)
        if (places[i] == KITH_IVF_NO_PLACE)
            KITH_GO(kith_error(KITH_ERR_NOT_FOUND, "reconstruct: id %lld is not in the index", (long long)ids[i]));
    KITH_GO(kith_alloc(threads, loop.scratch_bytes, &loop.scratch));
    KITH_GO(kith_parallel_for(threads, items, decode_item, &loop));
done:
    kith_free(loop.scratch);
    kith_free(places);
    return status;
}
