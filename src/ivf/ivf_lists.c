/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_lists.c: the lists' memory. What is set aside at once lies in one slab for blocks and one for ids, list after
 * list. A list that has vectors already gets a sixteenth more than was asked for, so that adding one by one takes
 * memory rarely.
 */
#include <string.h>

#include "base/error.h"
#include "base/parallel.h"
#include "ivf/ivf_inside.h"

enum { GROWTH_SHARE = 16 };

/* ---- Slabs ---------------------------------------------------------------------------------------------------- */

/* Room for one more, so that slab_put cannot fail. */
static kith_status slab_reserve(kith_slabs *slabs) {
    if (slabs->count < slabs->capacity) return KITH_OK;
    size_t capacity = 2 * slabs->capacity + 4;
    KITH_TRY(kith_realloc(&slabs->slabs, slabs->capacity, capacity, sizeof *slabs->slabs));
    slabs->capacity = capacity;
    return KITH_OK;
}

static void slab_put(kith_slabs *slabs, void *memory, size_t bytes) {
    slabs->slabs[slabs->count++] = (struct kith_slab){memory, bytes};
}

static void slabs_cut(kith_slabs *slabs, size_t count) {
    while (slabs->count > count) kith_free(slabs->slabs[--slabs->count].memory);
}

static void slabs_free(kith_slabs *slabs) {
    slabs_cut(slabs, 0);
    kith_free(slabs->slabs);
    *slabs = (kith_slabs){0};
}

uint64_t kith_slabs_bytes(const kith_slabs *slabs) {
    uint64_t bytes = (uint64_t)slabs->capacity * sizeof *slabs->slabs;
    for (size_t s = 0; s < slabs->count; s++) bytes += slabs->slabs[s].bytes;
    return bytes;
}

/* ---- Lists ---------------------------------------------------------------------------------------------------- */

kith_status kith_lists_create(kith_ivf *ivf) {
    kith_status status;
    KITH_GO(kith_alloc_zeroed(ivf->list_count, sizeof *ivf->lists, &ivf->lists));
    KITH_GO(kith_alloc_zeroed(ivf->list_count, sizeof *ivf->first_segments, &ivf->first_segments));
    for (size_t l = 0; l < ivf->list_count; l++) {
        ivf->lists[l].segments = &ivf->first_segments[l];
        ivf->lists[l].segment_room = 1;
    }
done:
    if (status != KITH_OK) kith_lists_free(ivf);
    return status;
}

void kith_lists_clear(kith_ivf *ivf) {
    for (size_t l = 0; ivf->lists != NULL && l < ivf->list_count; l++) {
        kith_list *list = &ivf->lists[l];
        if (list->segments != &ivf->first_segments[l]) kith_free(list->segments);
        *list = (kith_list){.segments = &ivf->first_segments[l], .segment_room = 1};
    }
    slabs_free(&ivf->block_slabs);
    slabs_free(&ivf->id_slabs);
}

void kith_lists_free(kith_ivf *ivf) {
    if (ivf->first_segments != NULL) kith_lists_clear(ivf);
    kith_free(ivf->lists);
    kith_free(ivf->first_segments);
    ivf->lists = NULL;
    ivf->first_segments = NULL;
}

kith_list_segment *kith_list_at(const kith_list *list, size_t position, size_t *at) {
    kith_list_segment *segment = list->segments;
    while (position >= segment->capacity) position -= (segment++)->capacity;
    *at = position;
    return segment;
}

void kith_list_set_count(kith_list *list, size_t count) {
    list->count = count;
    list->segment_count = 0;
    for (size_t s = 0; s < list->segment_held; s++) {
        kith_list_segment *segment = &list->segments[s];
        segment->count = kith_min_size(count, segment->capacity);
        count -= segment->count;
        list->segment_count += segment->count > 0;
    }
}

void kith_segment_set_id(const kith_ivf *ivf, const kith_list_segment *segment, size_t at, int64_t id) {
    if (ivf->id_bytes == 4)
        ((uint32_t *)segment->ids)[at] = (uint32_t)id;
    else
        ((int64_t *)segment->ids)[at] = id;
}

/* ---- Room for more -------------------------------------------------------------------------------------------- */

/* Blocks that a list has to get so that `added` more vectors find room. */
static size_t blocks_to_add(const kith_list *list, size_t added) {
    size_t need = list->count + added; /* the index's count was checked: no overflow */
    if (need <= list->capacity) return 0;
    size_t blocks = kith_code_blocks(need - list->capacity);
    return kith_max_size(blocks, list->capacity / KITH_BLOCK_ROWS / GROWTH_SHARE);
}

/* Room in the list's array for one more segment. */
static kith_status reserve_segment(kith_ivf *ivf, size_t l) {
    kith_list *list = &ivf->lists[l];
    if (list->segment_held < list->segment_room) return KITH_OK;
    size_t room = 2 * list->segment_room + 2;
    kith_list_segment *segments;
    KITH_TRY(kith_alloc(room, sizeof *segments, &segments));
    memcpy(segments, list->segments, list->segment_held * sizeof *segments);
    if (list->segments != &ivf->first_segments[l]) kith_free(list->segments);
    list->segments = segments;
    list->segment_room = room;
    return KITH_OK;
}

/* Gives each list the blocks that it needs, from the start of the slabs on. */
static void hand_out(kith_ivf *ivf, const size_t *added, unsigned char *blocks, unsigned char *ids) {
    for (size_t l = 0; l < ivf->list_count; l++) {
        kith_list *list = &ivf->lists[l];
        size_t block_count = blocks_to_add(list, added[l]);
        if (block_count == 0) continue;
        size_t capacity = block_count * KITH_BLOCK_ROWS;
        list->segments[list->segment_held++] =
            (kith_list_segment){.blocks = blocks, .ids = ids, .capacity = capacity};
        list->capacity += capacity;
        blocks += block_count * ivf->code->block_bytes;
        ids += capacity * ivf->id_bytes;
    }
}

kith_status kith_lists_reserve(kith_ivf *ivf, const size_t *added) {
    size_t blocks = 0, id_count;
    for (size_t l = 0; l < ivf->list_count; l++) {
        size_t block_count = blocks_to_add(&ivf->lists[l], added[l]);
        if (block_count > 0) KITH_TRY(reserve_segment(ivf, l));
        blocks += block_count;
    }
    if (blocks == 0) return KITH_OK;
    if (kith_mul_overflows(blocks, KITH_BLOCK_ROWS, &id_count))
        return kith_error(KITH_ERR_OVERFLOW, "lists: %zu blocks do not fit the address space", blocks);
    unsigned char *block_slab = NULL, *id_slab = NULL;
    kith_status status;
    KITH_GO(slab_reserve(&ivf->block_slabs));
    KITH_GO(slab_reserve(&ivf->id_slabs));
    KITH_GO(kith_alloc(blocks, ivf->code->block_bytes, &block_slab));
    KITH_GO(kith_alloc(id_count, ivf->id_bytes, &id_slab));
    slab_put(&ivf->block_slabs, block_slab, blocks * ivf->code->block_bytes);
    slab_put(&ivf->id_slabs, id_slab, id_count * ivf->id_bytes);
    hand_out(ivf, added, block_slab, id_slab);
    return KITH_OK;
done:
    kith_free(block_slab);
    kith_free(id_slab);
    return status;
}

void kith_lists_unreserve(kith_ivf *ivf, size_t slab_count) {
    if (ivf->block_slabs.count == slab_count) return;
    const struct kith_slab *slab = &ivf->block_slabs.slabs[slab_count];
    const unsigned char *first = slab->memory, *last = first + slab->bytes;
    for (size_t l = 0; l < ivf->list_count; l++) {
        kith_list *list = &ivf->lists[l];
        if (list->segment_held == 0) continue;
        const kith_list_segment *segment = &list->segments[list->segment_held - 1];
        if (segment->blocks < first || segment->blocks >= last) continue;
        list->capacity -= segment->capacity;
        list->segment_held--;
    }
    slabs_cut(&ivf->block_slabs, slab_count);
    slabs_cut(&ivf->id_slabs, ivf->id_slabs.count - 1);
}

kith_status kith_lists_widen_ids(kith_ivf *ivf) {
    if (ivf->id_bytes == 8) return KITH_OK;
    size_t total = 0;
    for (size_t l = 0; l < ivf->list_count; l++) total += ivf->lists[l].capacity;
    kith_slabs wide = {0};
    int64_t *ids = NULL;
    kith_status status;
    if (total > 0) {
        KITH_GO(slab_reserve(&wide));
        KITH_GO(kith_alloc(total, sizeof *ids, &ids));
        slab_put(&wide, ids, total * sizeof *ids);
    }
    for (size_t l = 0; l < ivf->list_count; l++)
        for (size_t s = 0; s < ivf->lists[l].segment_held; s++) {
            kith_list_segment *segment = &ivf->lists[l].segments[s];
            for (size_t i = 0; i < segment->count; i++) ids[i] = kith_segment_id(ivf, segment, i);
            segment->ids = ids;
            ids += segment->capacity;
        }
    slabs_free(&ivf->id_slabs);
    ivf->id_slabs = wide;
    ivf->id_bytes = 8;
    return KITH_OK;
done:
    slabs_free(&wide);
    return status;
}

/* ---- Copies --------------------------------------------------------------------------------------------------- */

typedef struct copy_loop {
    const kith_ivf *from;
    kith_ivf *to;
} copy_loop;

static kith_status copy_list(void *context, size_t l, size_t worker) {
    (void)worker;
    const copy_loop *loop = context;
    const kith_list *from = &loop->from->lists[l];
    kith_list *to = &loop->to->lists[l];
    size_t block_bytes = loop->from->code->block_bytes, id_bytes = loop->from->id_bytes;
    unsigned char *blocks = from->count > 0 ? to->segments->blocks : NULL;
    unsigned char *ids = from->count > 0 ? to->segments->ids : NULL;
    for (size_t s = 0; s < from->segment_count; s++) {
        const kith_list_segment *segment = &from->segments[s];
        size_t block_count = kith_code_blocks(segment->count);
        memcpy(blocks, segment->blocks, block_count * block_bytes);
        memcpy(ids, segment->ids, segment->count * id_bytes);
        blocks += block_count * block_bytes;
        ids += segment->count * id_bytes;
    }
    kith_list_set_count(to, from->count);
    return KITH_OK;
}

kith_status kith_lists_copy(const kith_ivf *from, kith_ivf *to) {
    size_t *counts;
    KITH_TRY(kith_alloc(from->list_count, sizeof *counts, &counts));
    for (size_t l = 0; l < from->list_count; l++) counts[l] = from->lists[l].count;
    to->id_bytes = from->id_bytes;
    kith_status status = kith_lists_reserve(to, counts);
    kith_free(counts);
    if (status != KITH_OK) return status;
    copy_loop loop = {from, to};
    return kith_parallel_for(kith_threads_default(), from->list_count, copy_list, &loop);
}
