/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_edit.c: changes of lists, all or nothing. First each list that something happens to is made anew, as it will be,
 * aside; then pages with the new lists take the place of the old ones.
 *
 * What comes to a list goes behind what it has: raw vectors behind the others; codes into whole blocks behind the others,
 * and those that fill none into a block of their own, the tail, where they are copied to together with those that filled
 * none before. Then a list gets a new segment, with room for whole blocks, a sixteenth of what it has at least, so that
 * adding one by one takes memory rarely. Lists that are filled for the first time, many vectors at once, get just the
 * room that they need, in one slab.
 *
 * What leaves a list is marked. Once an eighth of a list is dead it moves to new memory. So removing a vector copies eight
 * others on average, and of what a search reads an eighth at most is in vain.
 */
#include <string.h>

#include "base/error.h"
#include "base/parallel.h"
#include "ivf/ivf_inside.h"

enum {
    GROWTH_SHARE = 16,
    GROWTH_ROWS_MIN = 8,
    DEAD_SHARE = 8,
    ROWS_PER_THREAD = 8192 /* fewer to be copied are not worth one */
};

/* ---- Which lists ---------------------------------------------------------------------------------------------- */

/* The keys of a list from the first of those that are left on. */
static size_t take_keys(const int64_t **keys, size_t *left, size_t list) {
    size_t count = 0;
    if (*left == 0) return 0; /* keys may be NULL then, to which nothing may be added, not even 0 */
    while (count < *left && kith_key_list((*keys)[count]) == list) count++;
    *keys += count;
    *left -= count;
    return count;
}

kith_status kith_edit_of_keys(const int64_t *gone, size_t gone_count, const int64_t *come, size_t come_count,
                              kith_edit *edit) {
    size_t most = kith_min_size(gone_count + come_count, kith_ivf_lists(edit->ivf));
    edit->count = 0;
    KITH_TRY(kith_alloc(most, sizeof *edit->lists, &edit->lists));
    while (gone_count + come_count > 0) {
        int64_t key = gone_count == 0 || (come_count > 0 && *come < *gone) ? *come : *gone;
        kith_list_edit *one = &edit->lists[edit->count++];
        *one = (kith_list_edit){.list = kith_key_list(key), .gone = gone, .come = come};
        one->gone_count = take_keys(&gone, &gone_count, one->list);
        one->added = take_keys(&come, &come_count, one->list);
    }
    return KITH_OK;
}

/* ---- One list ------------------------------------------------------------------------------------------------- */

static size_t words_of(size_t count) { return count / 64 + (count % 64 != 0); }

/* The bits of the dead, with those that go now. */
static kith_status mark_dead(const kith_list *old, kith_list_edit *one) {
    size_t word_count = words_of(old->count);
    kith_list_dead *dead;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *dead + word_count * sizeof *dead->words, &dead));
    dead->word_count = word_count;
    if (old->dead != NULL) memcpy(dead->words, old->dead->words, old->dead->word_count * sizeof *dead->words);
    for (size_t i = 0; i < one->gone_count; i++) {
        size_t position = kith_key_item(one->gone[i]);
        dead->words[position / 64] |= (uint64_t)1 << (position % 64);
    }
    one->dead = dead;
    return KITH_OK;
}

static kith_list_segment *last_segment(kith_list *list) {
    return list->segment_count == 0 ? NULL : kith_list_segment_of(list, list->segment_count - 1);
}

/* How many of `added` vectors the last segment takes. */
static size_t room_left(const kith_edit *edit, kith_list *list, size_t added) {
    const kith_list_segment *last = last_segment(list);
    if (last == NULL || last->id_bytes < edit->id_bytes) return 0;
    return kith_min_size(added, last->capacity - last->count);
}

/* A block for a tail, of zeros: lanes that stay empty have an estimate like any other code. */
static kith_status make_tail(const kith_code *code, kith_list_segment *segment) {
    KITH_TRY(kith_slab_make(code->block_bytes, 0, &segment->tail_slab));
    segment->tail = kith_slab_codes(segment->tail_slab);
    segment->tail_lane = 0;
    memset(segment->tail, 0, code->block_bytes);
    return KITH_OK;
}

/* Room for `added` vectors more that the segment has room for: some blocks become whole, the rest gets a new tail. */
static kith_status extend(const kith_code *code, kith_list_segment *segment, size_t added) {
    segment->count += added;
    if (code->is_exact) return KITH_OK;
    size_t block_room = segment->capacity / KITH_BLOCK_ROWS - 1;
    size_t whole = kith_min_size(segment->count / KITH_BLOCK_ROWS, block_room);
    segment->block_count = (uint32_t)whole;
    segment->tail = NULL;
    segment->tail_slab = NULL;
    return segment->count > whole * KITH_BLOCK_ROWS ? make_tail(code, segment) : KITH_OK;
}

/* A segment for `count` vectors of a list that has `before` more. */
static kith_status make_segment(const kith_edit *edit, size_t before, size_t count, kith_list_segment *segment) {
    const kith_code *code = edit->ivf->code;
    size_t room = kith_max_size(count, before / GROWTH_SHARE), code_bytes;
    *segment = (kith_list_segment){.id_bytes = (uint8_t)edit->id_bytes};
    if (code->is_exact) {
        if (before > 0) room = kith_max_size(room, GROWTH_ROWS_MIN);
        segment->capacity = room;
        code_bytes = room * code->code_bytes;
    } else {
        size_t blocks = room / KITH_BLOCK_ROWS;
        segment->capacity = (blocks + 1) * KITH_BLOCK_ROWS;
        code_bytes = blocks * code->block_bytes;
    }
    KITH_TRY(kith_slab_make(code_bytes, segment->capacity * edit->id_bytes, &segment->slab));
    segment->blocks = kith_slab_codes(segment->slab);
    segment->ids = kith_slab_ids(segment->slab);
    return extend(code, segment, count);
}

/* The array of a list's other segments becomes its own, for `count` segments in all. */
static kith_status own_segments(kith_list *list, size_t count) {
    kith_list_segment *more = NULL;
    if (count > 1) {
        KITH_TRY(kith_alloc(count - 1, sizeof *more, &more));
        if (list->segment_count > 1) memcpy(more, list->more, (list->segment_count - 1) * sizeof *more);
    }
    list->more = more;
    return KITH_OK;
}

/* Room for `added` vectors behind those of the list. */
static kith_status append_room(const kith_edit *edit, kith_list *list, size_t added) {
    size_t inside = room_left(edit, list, added), before = list->count;
    bool is_longer = inside < added;
    KITH_TRY(own_segments(list, list->segment_count + is_longer));
    if (inside > 0) KITH_TRY(extend(edit->ivf->code, last_segment(list), inside));
    list->count += inside;
    if (!is_longer) return KITH_OK;
    kith_list_segment *segment = kith_list_segment_of(list, list->segment_count++);
    *segment = (kith_list_segment){0};
    list->count += added - inside;
    return make_segment(edit, before, added - inside, segment);
}

/* Lists that begin anew, in one piece of memory with others. */
static bool is_packed(const kith_edit *edit, const kith_list_edit *one) {
    return edit->is_tight && one->next.segment_count == 0;
}

/* What the list will be, but for codes and ids. */
static kith_status make_list(const kith_edit *edit, kith_list_edit *one) {
    const kith_list *old = kith_ivf_list(edit->ivf, one->list);
    size_t dead = old->dead_count + one->gone_count;
    if (one->gone_count > 0) KITH_TRY(mark_dead(old, one));
    one->moves = one->gone_count > 0 && (dead == old->count || dead > old->count / DEAD_SHARE);
    one->first = one->moves ? old->count - dead : old->count;
    one->next = one->moves ? (kith_list){0} : *old;
    if (one->gone_count > 0 && !one->moves) {
        one->next.dead = one->dead;
        one->next.dead_count = (uint32_t)dead;
    }
    size_t added = one->moves ? one->first + one->added : one->added;
    if (added == 0 || is_packed(edit, one)) return KITH_OK;
    return append_room(edit, &one->next, added);
}

/* What make_list has taken. */
static void drop_list(const kith_edit *edit, kith_list_edit *one) {
    const kith_list *old = kith_ivf_list(edit->ivf, one->list);
    for (size_t s = 0; s < one->next.segment_count; s++) {
        const kith_list_segment *segment = kith_list_segment_at(&one->next, s);
        if (segment->slab != NULL && segment->slab->holders == 0) kith_free(segment->slab);
        if (segment->tail_slab != NULL && segment->tail_slab->holders == 0) kith_free(segment->tail_slab);
    }
    if (one->next.more != old->more) kith_free(one->next.more);
    kith_free(one->dead);
    one->dead = NULL;
    one->next = *old;
}

/* ---- Lists in one piece --------------------------------------------------------------------------------------- */

static size_t packed_count(const kith_edit *edit, const kith_list_edit *one) {
    if (!is_packed(edit, one)) return 0;
    return one->moves ? one->first + one->added : one->added;
}

/* Gives the lists that begin anew their places, one after the other. */
static kith_status pack_lists(kith_edit *edit) {
    const kith_code *code = edit->ivf->code;
    kith_layout layout = {0};
    size_t items, each, code_bytes;
    for (size_t i = 0; i < edit->count; i++) {
        size_t count = packed_count(edit, &edit->lists[i]);
        if (count > 0) (void)kith_layout_next(&layout, count, i);
    }
    if (layout.row_count == 0) return KITH_OK;
    kith_layout_items(&layout, code, &items, &each);
    if (kith_mul_overflows(items, each, &code_bytes))
        return kith_error(KITH_ERR_OVERFLOW, "lists: %zu vectors do not fit the address space", layout.row_count);
    KITH_TRY(kith_slab_make(code_bytes, layout.row_count * edit->id_bytes, &edit->slab));
    edit->slab->holders = 1; /* the edit */
    unsigned char *ids = kith_slab_ids(edit->slab);
    layout = (kith_layout){0};
    for (size_t i = 0; i < edit->count; i++) {
        kith_list *list = &edit->lists[i].next;
        size_t count = packed_count(edit, &edit->lists[i]);
        if (count == 0) continue;
        list->first = kith_segment_next(&layout, code, count, i, kith_slab_codes(edit->slab));
        list->first.ids = ids;
        list->first.id_bytes = (uint8_t)edit->id_bytes;
        list->first.slab = edit->slab;
        list->segment_count = 1;
        list->count = count;
        ids += count * edit->id_bytes;
        if (list->first.tail != NULL && list->first.tail_lane == 0) memset(list->first.tail, 0, code->block_bytes);
    }
    return KITH_OK;
}

/* ---- What stays ----------------------------------------------------------------------------------------------- */

typedef struct stay_loop {
    const kith_edit *edit;
    unsigned char *rows; /* of each worker: as many as a block has */
    size_t row_bytes;
} stay_loop;

/* Codes of the list that lie elsewhere from now on: all that live, or those of a tail. */
static kith_status copy_list(void *context, size_t item, size_t worker) {
    const stay_loop *loop = context;
    const kith_code *code = loop->edit->ivf->code;
    const kith_list_edit *one = &loop->edit->lists[item];
    const kith_list *old = kith_ivf_list(loop->edit->ivf, one->list);
    unsigned char *rows = loop->rows + worker * loop->row_bytes;
    if (one->moves) {
        kith_list live = *old;
        live.dead = one->dead;
        if (one->first > 0) kith_list_move_live(code, &live, &one->next, 0, 0, rows);
        return KITH_OK;
    }
    if (one->added == 0 || old->segment_count == 0 || code->is_exact) return KITH_OK;
    const kith_list_segment *last = kith_list_segment_at(old, old->segment_count - 1);
    size_t tail = last->count - (size_t)last->block_count * KITH_BLOCK_ROWS;
    if (tail == 0 || last->tail == kith_list_segment_at(&one->next, old->segment_count - 1)->tail) return KITH_OK;
    kith_list_get(code, old, old->count - tail, tail, rows);
    kith_list_put(code, &one->next, old->count - tail, tail, rows);
    return KITH_OK;
}

static kith_status copy_what_stays(const kith_edit *edit) {
    size_t rows = 0;
    for (size_t i = 0; i < edit->count; i++) rows += edit->lists[i].moves ? edit->lists[i].first : KITH_BLOCK_ROWS;
    size_t threads = kith_min_size(kith_min_size(edit->threads, edit->count), rows / ROWS_PER_THREAD + 1);
    stay_loop loop = {.edit = edit};
    loop.row_bytes = kith_round_up(KITH_BLOCK_ROWS * edit->ivf->code->code_bytes, KITH_ALIGNMENT);
    KITH_TRY(kith_alloc(threads, loop.row_bytes, &loop.rows));
    kith_status status = kith_parallel_for(threads, edit->count, copy_list, &loop);
    kith_free(loop.rows);
    return status;
}

/* ---- The table ------------------------------------------------------------------------------------------------ */

static size_t page_count(const kith_ivf *ivf) { return (kith_ivf_lists(ivf) - 1) / KITH_LISTS_PER_PAGE + 1; }

static size_t page_of(const kith_edit *edit, size_t i) { return edit->lists[i].list / KITH_LISTS_PER_PAGE; }

/* The next table, with pages of its own for the lists that change. */
static kith_status make_pages(kith_edit *edit) {
    const kith_ivf *ivf = edit->ivf;
    KITH_TRY(kith_alloc(page_count(ivf), sizeof *edit->pages, &edit->pages));
    memcpy(edit->pages, ivf->pages, page_count(ivf) * sizeof *edit->pages);
    for (size_t i = 0; i < edit->count; i++) {
        size_t page = page_of(edit, i), first = page * KITH_LISTS_PER_PAGE;
        size_t lists = kith_min_size(KITH_LISTS_PER_PAGE, kith_ivf_lists(ivf) - first);
        if (edit->pages[page] == ivf->pages[page]) {
            kith_list *fresh;
            KITH_TRY(kith_alloc(lists, sizeof *fresh, &fresh));
            memcpy(fresh, ivf->pages[page], lists * sizeof *fresh);
            edit->pages[page] = fresh;
        }
        edit->pages[page][edit->lists[i].list - first] = edit->lists[i].next;
    }
    return KITH_OK;
}

/* Room to retire everything that the change may replace. */
static kith_status reserve_retired(const kith_edit *edit) {
    size_t count = 1, page = SIZE_MAX;
    for (size_t i = 0; i < edit->count; i++) {
        count += 2 + 2 * kith_ivf_list(edit->ivf, edit->lists[i].list)->segment_count + (page_of(edit, i) != page);
        page = page_of(edit, i);
    }
    return kith_epoch_reserve(edit->ivf->epoch, count);
}

/* ---- All of it ------------------------------------------------------------------------------------------------ */

kith_status kith_edit_begin(kith_edit *edit) {
    kith_status status;
    size_t made = 0;
    edit->pages = NULL;
    edit->slab = NULL;
    for (size_t i = 0; i < edit->count; i++) edit->lists[i].next = *kith_ivf_list(edit->ivf, edit->lists[i].list);
    if (edit->count == 0) return KITH_OK;
    KITH_GO(reserve_retired(edit));
    for (; made < edit->count; made++) KITH_GO(make_list(edit, &edit->lists[made]));
    if (edit->is_tight) KITH_GO(pack_lists(edit));
    KITH_GO(make_pages(edit));
    KITH_GO(copy_what_stays(edit));
done:
    if (status != KITH_OK) kith_edit_drop(edit);
    return status;
}

void kith_edit_drop(kith_edit *edit) {
    const kith_ivf *ivf = edit->ivf;
    for (size_t i = 0; i < edit->count; i++) drop_list(edit, &edit->lists[i]);
    for (size_t p = 0; edit->pages != NULL && p < page_count(ivf); p++)
        if (edit->pages[p] != ivf->pages[p]) kith_free(edit->pages[p]);
    kith_free(edit->pages);
    kith_free(edit->slab);
}

void kith_edit_keep(kith_edit *edit) {
    kith_ivf *ivf = edit->ivf;
    if (edit->count == 0) return;
    if (edit->slab != NULL) edit->slab->holders = 0; /* its lists hold it from now on */
    for (size_t i = 0; i < edit->count; i++) kith_list_hold(ivf, &edit->lists[i].next);
    for (size_t i = 0; i < edit->count; i++) {
        const kith_list *old = kith_ivf_list(ivf, edit->lists[i].list), *next = &edit->lists[i].next;
        kith_list_release(ivf, old);
        if (old->more != next->more) kith_epoch_retire(ivf->epoch, old->more);
        if (old->dead != next->dead) kith_epoch_retire(ivf->epoch, old->dead);
        if (edit->lists[i].moves) kith_free(edit->lists[i].dead);
        ivf->dead_count += (size_t)next->dead_count - old->dead_count;
    }
    for (size_t p = 0; p < page_count(ivf); p++)
        if (edit->pages[p] != ivf->pages[p]) kith_epoch_retire(ivf->epoch, ivf->pages[p]);
    kith_epoch_retire(ivf->epoch, ivf->pages);
    ivf->pages = edit->pages;
}

/* ---- The maps ------------------------------------------------------------------------------------------------- */

typedef struct mapped_list {
    kith_ivf *ivf;
    size_t list;
} mapped_list;

static void map_id(void *context, int64_t id, size_t position) {
    const mapped_list *at = context;
    kith_idmap_put(kith_list_map(at->ivf, at->list), id, kith_ivf_place(at->ivf, at->list, position));
}

void kith_edit_map_moved(const kith_edit *edit) {
    for (size_t i = 0; i < edit->count && edit->ivf->has_map; i++) {
        mapped_list at = {edit->ivf, edit->lists[i].list};
        if (edit->lists[i].moves) kith_list_visit(kith_ivf_list(edit->ivf, at.list), map_id, &at);
    }
}
