/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_lists.c: the lists' memory. What is set aside at once lies in one slab for codes and one for ids, list after
 * list. Lists that are filled for the first time, many vectors at once, get just the room that they need; later a list
 * gets whole blocks, and a sixteenth of what it has at least, so that adding one by one takes memory rarely.
 */
#include <string.h>

#include "base/error.h"
#include "base/parallel.h"
#include "ivf/ivf_inside.h"

enum {
    GROWTH_SHARE = 16,
    GROWTH_ROWS_MIN = 8,
    TIGHT_SHARE = 8 /* vectors for each list, on average, that are worth a layout without room to spare */
};

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
    KITH_GO(kith_alloc_zeroed(kith_ivf_lists(ivf), sizeof *ivf->lists, &ivf->lists));
    KITH_GO(kith_alloc_zeroed(kith_ivf_lists(ivf), sizeof *ivf->first_segments, &ivf->first_segments));
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        kith_ivf_list(ivf, l)->segments = &ivf->first_segments[l];
        kith_ivf_list(ivf, l)->segment_room = 1;
    }
done:
    if (status != KITH_OK) kith_lists_free(ivf);
    return status;
}

void kith_lists_clear(kith_ivf *ivf) {
    for (size_t l = 0; ivf->lists != NULL && l < kith_ivf_lists(ivf); l++) {
        kith_list *list = kith_ivf_list(ivf, l);
        if (list->segments != &ivf->first_segments[l]) kith_free(list->segments);
        *list = (kith_list){.segments = &ivf->first_segments[l], .segment_room = 1};
    }
    slabs_free(&ivf->code_slabs);
    slabs_free(&ivf->id_slabs);
}

void kith_lists_free(kith_ivf *ivf) {
    if (ivf->first_segments != NULL) kith_lists_clear(ivf);
    kith_free(ivf->lists);
    kith_free(ivf->first_segments);
    ivf->lists = NULL;
    ivf->first_segments = NULL;
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

static void set_id(const kith_ivf *ivf, const kith_list_segment *segment, size_t at, int64_t id) {
    if (ivf->id_bytes == 4)
        ((uint32_t *)segment->ids)[at] = (uint32_t)id;
    else
        ((int64_t *)segment->ids)[at] = id;
}

void kith_list_set_id(const kith_ivf *ivf, const kith_list *list, size_t position, int64_t id) {
    size_t at;
    const kith_list_segment *segment = kith_list_at(list, position, &at);
    set_id(ivf, segment, at, id);
}

int64_t kith_list_id(const kith_ivf *ivf, const kith_list *list, size_t position) {
    size_t at;
    const kith_list_segment *segment = kith_list_at(list, position, &at);
    return kith_segment_id(ivf, segment, at);
}

/* ---- Room for more -------------------------------------------------------------------------------------------- */

/* The vectors that a list gets room for so that `added` more find some. */
static size_t room_to_add(const kith_ivf *ivf, const kith_list *list, size_t added, bool is_tight) {
    size_t need = list->count + added; /* the index's count was checked: no overflow */
    if (need <= list->capacity) return 0;
    need -= list->capacity;
    if (is_tight && list->capacity == 0) return need;
    need = kith_max_size(need, list->capacity / GROWTH_SHARE);
    if (ivf->code->is_exact) return kith_max_size(need, GROWTH_ROWS_MIN);
    return kith_code_blocks(need) * KITH_BLOCK_ROWS;
}

/* Room in the list's array for one more segment. */
static kith_status reserve_segment(kith_ivf *ivf, size_t l) {
    kith_list *list = kith_ivf_list(ivf, l);
    if (list->segment_held < list->segment_room) return KITH_OK;
    uint32_t room = 2 * list->segment_room + 2;
    kith_list_segment *segments;
    KITH_TRY(kith_alloc(room, sizeof *segments, &segments));
    memcpy(segments, list->segments, list->segment_held * sizeof *segments);
    if (list->segments != &ivf->first_segments[l]) kith_free(list->segments);
    list->segments = segments;
    list->segment_room = room;
    return KITH_OK;
}

/* What one call sets aside. */
typedef struct reservation {
    kith_ivf *ivf;
    const size_t *added;
    bool is_tight; /* lists that were empty get no more than they need */
    size_t code_bytes, id_count;
} reservation;

/* Counts what is needed, and makes room for one more segment of each list that gets some. */
static kith_status count_room(reservation *r) {
    kith_ivf *ivf = r->ivf;
    kith_layout layout = {0};
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        size_t room = room_to_add(ivf, kith_ivf_list(ivf, l), r->added[l], r->is_tight);
        if (room == 0) continue;
        KITH_TRY(reserve_segment(ivf, l));
        r->id_count += room;
        (void)kith_layout_next(&layout, room, l);
    }
    size_t items, each;
    kith_layout_items(&layout, ivf->code, &items, &each);
    if (kith_mul_overflows(items, each, &r->code_bytes))
        return kith_error(KITH_ERR_OVERFLOW, "lists: %zu vectors do not fit the address space", r->id_count);
    return KITH_OK;
}

/* Gives each list the room that it needs, from the start of the slabs on. Lanes that may stay empty begin as zeros,
 * which have an estimate like any other code. */
static void hand_out(const reservation *r, unsigned char *codes, unsigned char *ids) {
    kith_ivf *ivf = r->ivf;
    const kith_code *code = ivf->code;
    kith_layout layout = {0};
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        kith_list *list = kith_ivf_list(ivf, l);
        size_t room = room_to_add(ivf, list, r->added[l], r->is_tight);
        if (room == 0) continue;
        kith_list_segment *segment = &list->segments[list->segment_held++];
        *segment = kith_segment_next(&layout, code, room, l, codes);
        segment->ids = ids;
        list->capacity += room;
        ids += room * ivf->id_bytes;
        if (code->is_exact) continue;
        if (segment->tail == NULL)
            memset(segment->blocks, 0, room / KITH_BLOCK_ROWS * code->block_bytes);
        else if (segment->tail_lane == 0)
            memset(segment->tail, 0, code->block_bytes);
    }
}

static kith_status reserve(kith_ivf *ivf, const size_t *added, bool is_tight) {
    reservation r = {.ivf = ivf, .added = added, .is_tight = is_tight};
    KITH_TRY(count_room(&r));
    if (r.id_count == 0) return KITH_OK;
    unsigned char *code_slab = NULL, *id_slab = NULL;
    kith_status status;
    KITH_GO(slab_reserve(&ivf->code_slabs));
    KITH_GO(slab_reserve(&ivf->id_slabs));
    KITH_GO(kith_alloc(1, r.code_bytes, &code_slab));
    KITH_GO(kith_alloc(r.id_count, ivf->id_bytes, &id_slab));
    slab_put(&ivf->code_slabs, code_slab, r.code_bytes);
    slab_put(&ivf->id_slabs, id_slab, r.id_count * ivf->id_bytes);
    hand_out(&r, code_slab, id_slab);
    return KITH_OK;
done:
    kith_free(code_slab);
    kith_free(id_slab);
    return status;
}

kith_status kith_lists_reserve(kith_ivf *ivf, const size_t *added) {
    size_t total = 0;
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) total += added[l];
    return reserve(ivf, added, total / TIGHT_SHARE >= kith_ivf_lists(ivf));
}

void kith_lists_unreserve(kith_ivf *ivf, size_t slab_count) {
    if (ivf->code_slabs.count == slab_count) return;
    const struct kith_slab *slab = &ivf->id_slabs.slabs[ivf->id_slabs.count - 1];
    const unsigned char *first = slab->memory, *last = first + slab->bytes;
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        kith_list *list = kith_ivf_list(ivf, l);
        if (list->segment_held == 0) continue;
        const kith_list_segment *segment = &list->segments[list->segment_held - 1];
        const unsigned char *ids = segment->ids;
        if (ids < first || ids >= last) continue;
        list->capacity -= segment->capacity;
        list->segment_held--;
    }
    slabs_cut(&ivf->code_slabs, slab_count);
    slabs_cut(&ivf->id_slabs, ivf->id_slabs.count - 1);
}

kith_status kith_lists_widen_ids(kith_ivf *ivf) {
    if (ivf->id_bytes == 8) return KITH_OK;
    size_t total = 0;
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) total += kith_ivf_list(ivf, l)->capacity;
    kith_slabs wide = {0};
    int64_t *ids = NULL;
    kith_status status;
    if (total > 0) {
        KITH_GO(slab_reserve(&wide));
        KITH_GO(kith_alloc(total, sizeof *ids, &ids));
        slab_put(&wide, ids, total * sizeof *ids);
    }
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++)
        for (size_t s = 0; s < kith_ivf_list(ivf, l)->segment_held; s++) {
            kith_list_segment *segment = &kith_ivf_list(ivf, l)->segments[s];
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
    unsigned char *rows; /* of each worker: as many as a block has */
    size_t row_bytes;
} copy_loop;

static kith_status copy_list(void *context, size_t l, size_t worker) {
    const copy_loop *loop = context;
    const kith_code *code = loop->from->code;
    const kith_list *from = kith_ivf_list(loop->from, l);
    kith_list *to = kith_ivf_list(loop->to, l);
    unsigned char *rows = loop->rows + worker * loop->row_bytes, *ids = from->count > 0 ? to->segments->ids : NULL;
    for (size_t p = 0; p < from->count; p += KITH_BLOCK_ROWS) {
        size_t count = kith_min_size(KITH_BLOCK_ROWS, from->count - p), at;
        const kith_list_segment *segment = kith_list_at(from, p, &at);
        bool is_whole = !code->is_exact && count == KITH_BLOCK_ROWS && at % KITH_BLOCK_ROWS == 0 &&
                        at + count <= segment->capacity;
        if (is_whole) { /* a block as it is */
            memcpy(to->segments->blocks + p / KITH_BLOCK_ROWS * code->block_bytes,
                   segment->blocks + at / KITH_BLOCK_ROWS * code->block_bytes, code->block_bytes);
            continue;
        }
        kith_list_get(code, from, p, count, rows);
        kith_list_put(code, to, p, count, rows);
    }
    for (size_t s = 0; s < from->segment_count; s++) {
        size_t bytes = from->segments[s].count * loop->from->id_bytes;
        memcpy(ids, from->segments[s].ids, bytes);
        ids += bytes;
    }
    kith_list_set_count(to, from->count);
    return KITH_OK;
}

kith_status kith_lists_copy(const kith_ivf *from, kith_ivf *to) {
    size_t *counts = NULL, threads = kith_min_size(kith_threads_default(), kith_ivf_lists(from));
    copy_loop loop = {.from = from, .to = to};
    loop.row_bytes = kith_round_up(KITH_BLOCK_ROWS * from->code->code_bytes, KITH_ALIGNMENT);
    kith_status status;
    KITH_GO(kith_alloc(threads, loop.row_bytes, &loop.rows));
    KITH_GO(kith_alloc(kith_ivf_lists(from), sizeof *counts, &counts));
    for (size_t l = 0; l < kith_ivf_lists(from); l++) counts[l] = kith_ivf_list(from, l)->count;
    to->id_bytes = from->id_bytes;
    KITH_GO(reserve(to, counts, true));
    KITH_GO(kith_parallel_for(threads, kith_ivf_lists(from), copy_list, &loop));
done:
    kith_free(counts);
    kith_free(loop.rows);
    return status;
}

kith_status kith_lists_compact(kith_ivf *ivf) {
    if (ivf->lists == NULL) return KITH_OK;
    kith_ivf fresh = {.code = ivf->code, .list_count = ivf->list_count, .copies = ivf->copies};
    KITH_TRY(kith_lists_create(&fresh));
    kith_status status = kith_lists_copy(ivf, &fresh);
    if (status == KITH_OK) { /* the fresh one gets the old lists, which are freed with it */
        kith_list *lists = ivf->lists;
        kith_list_segment *first_segments = ivf->first_segments;
        kith_slabs codes = ivf->code_slabs, ids = ivf->id_slabs;
        ivf->lists = fresh.lists;
        ivf->first_segments = fresh.first_segments;
        ivf->code_slabs = fresh.code_slabs;
        ivf->id_slabs = fresh.id_slabs;
        fresh.lists = lists;
        fresh.first_segments = first_segments;
        fresh.code_slabs = codes;
        fresh.id_slabs = ids;
    }
    kith_lists_free(&fresh);
    return status;
}
