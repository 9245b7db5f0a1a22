/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_lists.c: the table of lists, the slabs that these lie in, and copies of all of them.
 */
#include <string.h>

#include "base/error.h"
#include "base/parallel.h"
#include "ivf/ivf_inside.h"

/* ---- Slabs ---------------------------------------------------------------------------------------------------- */

kith_status kith_slab_make(size_t code_bytes, size_t id_bytes, kith_slab **out) {
    size_t bytes;
    *out = NULL;
    if (kith_add_overflows(code_bytes, 2 * KITH_ALIGNMENT, &bytes) || kith_add_overflows(bytes, id_bytes, &bytes))
        return kith_error(KITH_ERR_OVERFLOW, "lists: codes of %zu bytes do not fit the address space", code_bytes);
    KITH_TRY(kith_alloc(1, bytes, out));
    **out = (kith_slab){.code_bytes = code_bytes, .id_bytes = id_bytes};
    return KITH_OK;
}

static void hold(kith_ivf *ivf, kith_slab *slab) {
    if (slab == NULL || slab->holders++ > 0) return;
    ivf->code_bytes += slab->code_bytes;
    ivf->ids_bytes += slab->id_bytes;
}

static void release(kith_ivf *ivf, kith_slab *slab) {
    if (slab == NULL || --slab->holders > 0) return;
    ivf->code_bytes -= slab->code_bytes;
    ivf->ids_bytes -= slab->id_bytes;
    kith_epoch_retire(ivf->epoch, slab);
}

void kith_list_hold(kith_ivf *ivf, const kith_list *list) {
    for (size_t s = 0; s < list->segment_count; s++) {
        hold(ivf, kith_list_segment_at(list, s)->slab);
        hold(ivf, kith_list_segment_at(list, s)->tail_slab);
    }
}

void kith_list_release(kith_ivf *ivf, const kith_list *list) {
    for (size_t s = 0; s < list->segment_count; s++) {
        release(ivf, kith_list_segment_at(list, s)->slab);
        release(ivf, kith_list_segment_at(list, s)->tail_slab);
    }
}

/* ---- The table ------------------------------------------------------------------------------------------------ */

static size_t page_count(const kith_ivf *ivf) { return (kith_ivf_lists(ivf) - 1) / KITH_LISTS_PER_PAGE + 1; }

static size_t lists_of_page(const kith_ivf *ivf, size_t page) {
    return kith_min_size(KITH_LISTS_PER_PAGE, kith_ivf_lists(ivf) - page * KITH_LISTS_PER_PAGE);
}

kith_status kith_lists_create(kith_ivf *ivf) {
    kith_status status;
    KITH_GO(kith_alloc_zeroed(page_count(ivf), sizeof *ivf->pages, &ivf->pages));
    for (size_t p = 0; p < page_count(ivf); p++)
        KITH_GO(kith_alloc_zeroed(lists_of_page(ivf, p), sizeof **ivf->pages, &ivf->pages[p]));
done:
    if (status != KITH_OK) kith_lists_free(ivf);
    return status;
}

/* How many blocks of memory there are at most. */
static size_t memory_blocks(const kith_ivf *ivf) {
    size_t count = 1 + page_count(ivf);
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) count += 2 + 2 * kith_ivf_list(ivf, l)->segment_count;
    return count;
}

static void retire_list(kith_ivf *ivf, const kith_list *list) {
    kith_list_release(ivf, list);
    kith_epoch_retire(ivf->epoch, list->more);
    kith_epoch_retire(ivf->epoch, list->dead);
}

/* Room to retire them has been reserved. */
static void retire_lists(kith_ivf *ivf) {
    for (size_t p = 0; ivf->pages != NULL && p < page_count(ivf); p++) {
        for (size_t l = 0; ivf->pages[p] != NULL && l < lists_of_page(ivf, p); l++)
            retire_list(ivf, &ivf->pages[p][l]);
        kith_epoch_retire(ivf->epoch, ivf->pages[p]);
    }
    kith_epoch_retire(ivf->epoch, ivf->pages);
    ivf->pages = NULL;
    ivf->dead_count = 0;
}

void kith_lists_free(kith_ivf *ivf) {
    kith_epoch *epoch = ivf->epoch;
    ivf->epoch = NULL;
    retire_lists(ivf);
    ivf->epoch = epoch;
}

void kith_lists_clear(kith_ivf *ivf) {
    kith_epoch *epoch = ivf->epoch;
    ivf->epoch = NULL;
    for (size_t p = 0; ivf->pages != NULL && p < page_count(ivf); p++)
        for (size_t l = 0; l < lists_of_page(ivf, p); l++) {
            kith_list *list = &ivf->pages[p][l];
            retire_list(ivf, list);
            *list = (kith_list){0};
        }
    ivf->dead_count = 0;
    ivf->epoch = epoch;
}

uint64_t kith_lists_bytes(const kith_ivf *ivf) {
    if (ivf->pages == NULL) return 0;
    uint64_t bytes = page_count(ivf) * sizeof *ivf->pages + kith_ivf_lists(ivf) * sizeof **ivf->pages;
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        const kith_list *list = kith_ivf_list(ivf, l);
        if (list->segment_count > 1) bytes += (list->segment_count - 1) * sizeof *list->more;
        if (list->dead != NULL) bytes += sizeof *list->dead + list->dead->word_count * sizeof *list->dead->words;
    }
    return bytes;
}

/* ---- Copies --------------------------------------------------------------------------------------------------- */

typedef struct copy_loop {
    const kith_ivf *from;
    kith_list_edit *to;  /* one for each list that is not empty */
    unsigned char *rows; /* of each worker: as many as a block has */
    size_t row_bytes;
} copy_loop;

static kith_status copy_list(void *context, size_t item, size_t worker) {
    const copy_loop *loop = context;
    const kith_list_edit *to = &loop->to[item];
    kith_list_move_live(loop->from->code, kith_ivf_list(loop->from, to->list), &to->next, 0, 0,
                        loop->rows + worker * loop->row_bytes);
    return KITH_OK;
}

kith_status kith_lists_copy(const kith_ivf *from, kith_ivf *to) {
    size_t threads = kith_min_size(kith_threads_default(), kith_ivf_lists(from));
    copy_loop loop = {.from = from};
    kith_edit edit = {.ivf = to, .id_bytes = from->id_bytes, .is_tight = true, .threads = threads};
    kith_status status;
    loop.row_bytes = kith_round_up(KITH_BLOCK_ROWS * from->code->code_bytes, KITH_ALIGNMENT);
    KITH_GO(kith_alloc(threads, loop.row_bytes, &loop.rows));
    KITH_GO(kith_alloc(kith_ivf_lists(from), sizeof *edit.lists, &edit.lists));
    for (size_t l = 0; l < kith_ivf_lists(from); l++) {
        size_t live = kith_list_live(kith_ivf_list(from, l));
        if (live > 0) edit.lists[edit.count++] = (kith_list_edit){.list = l, .added = live};
    }
    loop.to = edit.lists;
    KITH_GO(kith_edit_begin(&edit));
    status = kith_parallel_for(threads, edit.count, copy_list, &loop);
    if (status == KITH_OK)
        kith_edit_keep(&edit);
    else
        kith_edit_drop(&edit);
done:
    kith_free(edit.lists);
    kith_free(loop.rows);
    return status;
}

kith_status kith_lists_compact(kith_ivf *ivf) {
    if (ivf->pages == NULL) return KITH_OK;
    kith_ivf fresh = {
        .code = ivf->code, .list_count = ivf->list_count, .copies = ivf->copies, .id_bytes = ivf->id_bytes};
    kith_status status;
    KITH_GO(kith_epoch_reserve(ivf->epoch, memory_blocks(ivf)));
    KITH_GO(kith_lists_create(&fresh));
    KITH_GO(kith_lists_copy(ivf, &fresh));
    retire_lists(ivf);
    ivf->pages = fresh.pages;
    ivf->code_bytes = fresh.code_bytes;
    ivf->ids_bytes = fresh.ids_bytes;
    return KITH_OK;
done:
    if (fresh.pages != NULL) kith_lists_free(&fresh);
    return status;
}
