/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_ids.c: finding vectors by their ids. As long as ids only rise none is ever looked for; the first call that has
 * to find one in an index that may change builds a map, which then follows all changes. Calls that only read go
 * without: they read all ids once.
 */
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "ivf/ivf_inside.h"

enum { KEYS_FEW = 64 };

void kith_list_visit(const kith_list *list, void (*visit)(void *context, int64_t id, size_t position),
                     void *context) {
    size_t position = 0;
    for (size_t s = 0; s < list->segment_count; s++) {
        const kith_list_segment *segment = kith_list_segment_at(list, s);
        for (size_t i = 0; i < segment->count; i++, position++)
            if (!kith_list_is_dead(list, position)) visit(context, kith_segment_id(segment, i), position);
    }
}

/* A list, and what visits its ids. */
typedef struct visitor {
    const kith_ivf *ivf;
    kith_idmap *map;
    size_t list;
} visitor;

static void put_id(void *context, int64_t id, size_t position) {
    const visitor *at = context;
    kith_idmap_put(at->map, id, kith_ivf_place(at->ivf, at->list, position));
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
    for (size_t l = 0; ivf->pages != NULL && l < kith_ivf_lists(ivf); l++) {
        visitor at = {ivf, kith_list_map(ivf, l), l};
        kith_list_visit(kith_ivf_list(ivf, l), put_id, &at);
    }
    ivf->has_map = true;
    return KITH_OK;
}

/* Replaces the place of an id that is looked for. */
static void note_id(void *context, int64_t id, size_t position) {
    const visitor *at = context;
    uint64_t before;
    if (kith_idmap_get(at->map, id, &before))
        kith_idmap_put(at->map, id, kith_ivf_place(at->ivf, at->list, position));
}

static kith_status find_by_reading(const kith_ivf *ivf, const int64_t *ids, size_t count, uint64_t *places) {
    kith_idmap wanted = {0};
    KITH_TRY(kith_idmap_reserve(&wanted, count));
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= 0) kith_idmap_put(&wanted, ids[i], KITH_IVF_NO_PLACE);
    for (size_t l = 0; ivf->pages != NULL && l < kith_ivf_lists(ivf); l += ivf->copies) { /* first copies alone */
        visitor at = {ivf, &wanted, l};
        kith_list_visit(kith_ivf_list(ivf, l), note_id, &at);
    }
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

kith_status kith_ivf_keys_of(const kith_ivf *ivf, const int64_t *ids, size_t count, int64_t **out,
                             size_t *key_count) {
    size_t most, found = 0;
    *out = NULL;
    *key_count = 0;
    if (kith_mul_overflows(count, ivf->copies, &most))
        return kith_error(KITH_ERR_OVERFLOW, "%zu ids do not fit the address space", count);
    KITH_TRY(kith_alloc(most, 2 * sizeof **out, out));
    int64_t *keys = *out;
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < ivf->copies; c++) {
            uint64_t place;
            if (!kith_idmap_get(&ivf->maps[c], ids[i], &place)) break;
            keys[found++] = kith_ivf_key(kith_place_list(ivf, place), kith_place_position(ivf, place));
        }
    kith_ivf_sort_keys(keys, found, keys + most);
    for (size_t i = 0; i < found; i++)
        if (i == 0 || keys[i] != keys[i - 1]) keys[(*key_count)++] = keys[i];
    return KITH_OK;
}

void kith_ivf_sort_keys(int64_t *keys, size_t count, int64_t *scratch) {
    (count <= KEYS_FEW ? kith_sort_few_i64 : kith_sort_i64)(keys, count, scratch);
}

kith_status kith_ivf_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed) {
    kith_ivf *ivf = kith_ivf_of(index);
    kith_edit edit = {.ivf = ivf, .id_bytes = ivf->id_bytes, .threads = kith_threads_default()};
    int64_t *keys = NULL;
    size_t key_count = 0;
    kith_status status;
    *removed = 0;
    if (index->count == 0) return KITH_OK;
    KITH_GO(kith_ivf_need_map(ivf));
    KITH_GO(kith_ivf_keys_of(ivf, ids, count, &keys, &key_count));
    KITH_GO(kith_edit_of_keys(keys, key_count, NULL, 0, &edit));
    KITH_GO(kith_edit_begin(&edit));
    kith_edit_keep(&edit);
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < ivf->copies; c++) kith_idmap_remove(&ivf->maps[c], ids[i]);
    kith_edit_map_moved(&edit);
    *removed = key_count / ivf->copies;
    index->count -= *removed;
done:
    kith_free(edit.lists);
    kith_free(keys);
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
