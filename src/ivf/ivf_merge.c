/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_merge.c: the vectors of one index into another that was trained alike: codes move as they are, list by list.
 */
#include <string.h>

#include "base/error.h"
#include "base/parallel.h"
#include "index/codes.h"
#include "ivf/ivf_inside.h"

enum { PROBE_ROWS = 64 };

/* ---- Are they trained alike? ---------------------------------------------------------------------------------- */

/* The codes of the first vectors of an index, at most PROBE_ROWS. */
static size_t first_codes(const kith_ivf *ivf, unsigned char *codes) {
    size_t count = 0;
    for (size_t l = 0; l < kith_ivf_lists(ivf) && count < PROBE_ROWS; l++) {
        size_t part = kith_min_size(PROBE_ROWS - count, kith_ivf_list(ivf, l)->count); /* dead ones do as well */
        kith_list_get(ivf->code, kith_ivf_list(ivf, l), 0, part, codes + count * ivf->code->code_bytes);
        count += part;
    }
    return count;
}

static kith_status codes_agree(const kith_ivf *into, const kith_ivf *from, bool *agree) {
    unsigned char *codes;
    KITH_TRY(kith_alloc(PROBE_ROWS, from->code->code_bytes, &codes));
    kith_status status = kith_codes_agree(into->code, from->code, codes, first_codes(from, codes), agree);
    kith_free(codes);
    return status;
}

static kith_status check_alike(const kith_ivf *into, const kith_ivf *from) {
    size_t centroid_bytes = into->list_count * into->base.dim * sizeof(float);
    bool agree = into->list_count == from->list_count;
    if (agree && into->centroids != NULL) agree = memcmp(into->centroids, from->centroids, centroid_bytes) == 0;
    if (agree) KITH_TRY(codes_agree(into, from, &agree));
    if (agree) return KITH_OK;
    return kith_error(KITH_ERR_ARGUMENT, "merge: the two indexes %s were not trained alike", into->base.spec);
}

/* ---- Ids ------------------------------------------------------------------------------------------------------ */

static void visit_ids(const kith_ivf *ivf, void (*visit)(void *context, int64_t id, size_t position),
                      void *context) {
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) kith_list_visit(kith_ivf_list(ivf, l), visit, context);
}

typedef struct id_range {
    int64_t least, largest;
} id_range;

static void widen(void *context, int64_t id, size_t position) {
    (void)position;
    id_range *range = context;
    if (id < range->least) range->least = id;
    if (id > range->largest) range->largest = id;
}

typedef struct lookup {
    const kith_idmap *map;
    int64_t shift, found;
} lookup;

static void look_up(void *context, int64_t id, size_t position) {
    (void)position;
    lookup *look = context;
    uint64_t place;
    if (kith_idmap_get(look->map, id + look->shift, &place)) look->found = id + look->shift;
}

static kith_status check_ids(kith_ivf *into, const kith_ivf *from, int64_t shift, int64_t *largest) {
    id_range range = {INT64_MAX, -1};
    visit_ids(from, widen, &range);
    *largest = range.largest + shift;
    if (range.least + shift >= into->base.next_id) return KITH_OK;
    KITH_TRY(kith_ivf_need_map(into));
    lookup look = {&into->maps[0], shift, KITH_NO_ID};
    visit_ids(from, look_up, &look);
    if (look.found == KITH_NO_ID) return KITH_OK;
    return kith_error(KITH_ERR_EXISTS, "merge: id %lld is in the index already", (long long)look.found);
}

/* ---- Moving --------------------------------------------------------------------------------------------------- */

typedef struct move_loop {
    const kith_edit *edit;
    const kith_ivf *from;
    int64_t shift;
    unsigned char *scratch; /* of each worker: a block's rows */
    size_t scratch_bytes;
} move_loop;

static kith_status move_list(void *context, size_t item, size_t worker) {
    const move_loop *loop = context;
    const kith_list_edit *to = &loop->edit->lists[item];
    kith_list_move_live(loop->from->code, kith_ivf_list(loop->from, to->list), &to->next, to->first, loop->shift,
                        loop->scratch + worker * loop->scratch_bytes);
    return KITH_OK;
}

static void publish(kith_edit *edit, const kith_ivf *from) {
    kith_ivf *into = edit->ivf;
    kith_edit_keep(edit);
    for (size_t i = 0; i < edit->count && into->has_map; i++) {
        const kith_list_edit *one = &edit->lists[i];
        for (size_t p = one->first; p < one->next.count; p++)
            kith_idmap_put(kith_list_map(into, one->list), kith_list_id(&one->next, p),
                           kith_ivf_place(into, one->list, p));
    }
    into->id_bytes = edit->id_bytes;
    into->base.count += from->base.count;
}

kith_status kith_ivf_merge(kith_index *index, const kith_index *other, int64_t shift) {
    kith_ivf *into = kith_ivf_of(index);
    const kith_ivf *from = kith_ivf_of_const(other);
    size_t threads = kith_threads_default();
    kith_edit edit = {.ivf = into, .is_tight = true, .threads = threads};
    move_loop loop = {.edit = &edit, .from = from, .shift = shift};
    loop.scratch_bytes = kith_round_up(KITH_BLOCK_ROWS * into->code->code_bytes, KITH_ALIGNMENT);
    int64_t largest;
    KITH_TRY(check_alike(into, from));
    KITH_TRY(check_ids(into, from, shift, &largest));
    kith_status status;
    edit.id_bytes = largest > UINT32_MAX ? 8 : into->id_bytes;
    KITH_GO(kith_alloc(kith_ivf_lists(into), sizeof *edit.lists, &edit.lists));
    KITH_GO(kith_alloc(threads, loop.scratch_bytes, &loop.scratch));
    for (size_t l = 0; l < kith_ivf_lists(into); l++) {
        size_t live = kith_list_live(kith_ivf_list(from, l));
        if (live > 0) edit.lists[edit.count++] = (kith_list_edit){.list = l, .added = live};
    }
    for (size_t c = 0; c < into->copies && into->has_map; c++)
        KITH_GO(kith_idmap_reserve(&into->maps[c], into->base.count + from->base.count));
    KITH_GO(kith_edit_begin(&edit));
    status = kith_parallel_for(threads, edit.count, move_list, &loop);
    if (status == KITH_OK)
        publish(&edit, from);
    else
        kith_edit_drop(&edit);
done:
    kith_free(loop.scratch);
    kith_free(edit.lists);
    return status;
}
