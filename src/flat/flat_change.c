/* SPDX-License-Identifier: Apache-2.0
 *
 * flat_change.c: add, remove, update, compact, reset. Each change has two halves: the first sets aside all memory that is
 * needed and does whatever may fail, the second cannot fail, or gives the memory back. Rows are appended, and marked dead:
 * what searches beside a change look at stays as it is.
 */
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "flat/flat_inside.h"
#include "index/convert.h"
#include "index/partition.h"

struct kith_staged {
    kith_change_kind kind;
    kith_addition update; /* the vectors of an update as an addition, and its job */
    kith_job job;
    kith_idrows_addition addition;
    size_t had_vectors, had_norms; /* chunks */
    kith_idrows_removal removal;
    kith_idrows_merger merger;
};

static kith_row_tables tables_of(kith_flat *flat) {
    return (kith_row_tables){.tables = {&flat->vectors, &flat->inverse_norms}, .count = 2};
}

/* Converts row `number` of a view that has been checked into row `row` of the index. */
static kith_status store_row(kith_flat *flat, size_t row, const kith_view *from, size_t number) {
    const kith_index *base = &flat->base;
    void *at = kith_chunks_at(&flat->vectors, row);
    KITH_TRY(
        kith_row_convert("vectors", number, kith_view_row(from, number), from->dtype, base->dtype, base->dim, at));
    if (kith_flat_has_norms(flat)) {
        float inverse_norm = kith_exact_inverse_norm(at, base->dtype, base->dim);
        memcpy(kith_chunks_at(&flat->inverse_norms, row), &inverse_norm, sizeof inverse_norm);
    }
    return KITH_OK;
}

/* ---- Add ------------------------------------------------------------------------------------------------ */

typedef struct copy_loop {
    kith_flat *flat;
    const kith_view *view;
    size_t rows_per_item;
    kith_meter meter;
} copy_loop;

static kith_status copy_item(void *context, size_t item, size_t worker) {
    (void)worker;
    copy_loop *loop = context;
    size_t first = item * loop->rows_per_item;
    size_t last = kith_min_size(loop->view->count, first + loop->rows_per_item);
    for (size_t i = first; i < last; i++) KITH_TRY(store_row(loop->flat, loop->flat->ids.count + i, loop->view, i));
    return kith_meter_add(&loop->meter, last - first);
}

/* Fills the rows past the present ones, which nobody can see yet. */
static kith_status copy_rows(kith_flat *flat, const kith_addition *addition) {
    const kith_job *job = addition->job;
    copy_loop loop = {.flat = flat, .view = &addition->view, .rows_per_item = kith_rows_per_item(flat->row_bytes)};
    kith_meter_init(&loop.meter, job->progress, job->progress_user, "add", addition->view.count);
    size_t items = (addition->view.count - 1) / loop.rows_per_item + 1;
    KITH_TRY(kith_parallel_for(job->threads, items, copy_item, &loop));
    return kith_meter_finish(&loop.meter);
}

static void give_rows_back(kith_flat *flat, const kith_staged *staged) {
    kith_chunks_trim(&flat->vectors, 0, staged->had_vectors);
    kith_chunks_trim(&flat->inverse_norms, 0, staged->had_norms);
}

static void add_drop(kith_flat *flat, const kith_staged *staged) {
    give_rows_back(flat, staged);
    kith_idrows_add_drop(&flat->ids, &staged->addition);
}

static kith_status add_begin(kith_flat *flat, const kith_addition *addition, kith_idrows_mode mode,
                             kith_staged *staged) {
    KITH_TRY(kith_idrows_add_begin(&flat->ids, flat->base.next_id, addition, mode, &staged->addition));
    size_t total = flat->ids.count + addition->view.count;
    kith_status status;
    KITH_GO(kith_chunks_reserve(&flat->vectors, total));
    if (kith_flat_has_norms(flat)) KITH_GO(kith_chunks_reserve(&flat->inverse_norms, total));
    KITH_GO(copy_rows(flat, addition));
done:
    if (status != KITH_OK) add_drop(flat, staged);
    return status;
}

/* ---- Merge ---------------------------------------------------------------------------------------------- */

static kith_status merge_begin(kith_flat *flat, const kith_change *change, kith_staged *staged) {
    const kith_flat *from = kith_flat_of_const(change->from);
    kith_idrows_merger *merger = &staged->merger;
    size_t count = flat->ids.count;
    KITH_TRY(kith_idrows_merge_begin(&flat->ids, flat->base.next_id, &from->ids, change->id_shift, merger));
    kith_status status;
    KITH_GO(kith_idrows_append(&from->ids, &from->vectors, &flat->vectors, count));
    if (kith_flat_has_norms(flat))
        KITH_GO(kith_idrows_append(&from->ids, &from->inverse_norms, &flat->inverse_norms, count));
    return KITH_OK;
done:
    give_rows_back(flat, staged);
    kith_idrows_merge_drop(&flat->ids, merger);
    return status;
}

static void merge_end(kith_flat *flat, kith_staged *staged, bool keep) {
    if (keep) {
        kith_idrows_merge_keep(&flat->ids, &staged->merger);
        return;
    }
    give_rows_back(flat, staged);
    kith_idrows_merge_drop(&flat->ids, &staged->merger);
}

/* ---- Update ---------------------------------------------------------------------------------------------- */

static kith_status update_begin(kith_flat *flat, const kith_change *change, kith_staged *staged) {
    staged->update = kith_addition_of(change->vectors, change->ids, SIZE_MAX, &staged->job);
    return add_begin(flat, &staged->update, KITH_ROWS_UPDATE, staged);
}

/* ---- The two halves ------------------------------------------------------------------------------------- */

static kith_status begin(kith_flat *flat, const kith_change *change, kith_staged *staged) {
    *staged = (kith_staged){.kind = change->kind,
                            .had_vectors = flat->vectors.chunk_count,
                            .had_norms = flat->inverse_norms.chunk_count};
    switch (change->kind) {
        case KITH_CHANGE_ADD: return add_begin(flat, change->addition, KITH_ROWS_ADD, staged);
        case KITH_CHANGE_UPSERT: return add_begin(flat, change->addition, KITH_ROWS_UPSERT, staged);
        case KITH_CHANGE_UPDATE: return update_begin(flat, change, staged);
        case KITH_CHANGE_REMOVE:
            return kith_idrows_remove_begin(&flat->ids, change->ids, change->count, &staged->removal);
        case KITH_CHANGE_MERGE: return merge_begin(flat, change, staged);
        default: return KITH_OK; /* nothing to learn */
    }
}

static void end(kith_flat *flat, kith_staged *staged, bool keep) {
    const kith_row_tables tables = tables_of(flat);
    switch (staged->kind) {
        case KITH_CHANGE_ADD:
        case KITH_CHANGE_UPSERT:
        case KITH_CHANGE_UPDATE:
            if (keep)
                kith_idrows_add_keep(&flat->ids, &staged->addition);
            else
                add_drop(flat, staged);
            break;
        case KITH_CHANGE_REMOVE:
            if (keep)
                kith_idrows_remove_keep(&flat->ids, &staged->removal);
            else
                kith_idrows_remove_drop(&flat->ids, &staged->removal);
            break;
        case KITH_CHANGE_MERGE: merge_end(flat, staged, keep); break;
        default: break;
    }
    if (keep) kith_idrows_compact_when_due(&flat->ids, &tables);
    flat->base.count = kith_idrows_live(&flat->ids);
}

kith_status kith_flat_stage(kith_index *index, const kith_change *change, kith_staged **out) {
    KITH_TRY(kith_alloc(1, sizeof **out, out));
    kith_status status = begin(kith_flat_of(index), change, *out);
    if (status != KITH_OK) kith_free(*out);
    return status;
}

void kith_flat_settle(kith_index *index, kith_staged *staged, bool keep) {
    end(kith_flat_of(index), staged, keep);
    kith_free(staged);
}

/* Both at once. *count: the vectors that were removed or replaced. */
static kith_status change_now(kith_index *index, const kith_change *change, size_t *count) {
    kith_staged staged;
    KITH_TRY(begin(kith_flat_of(index), change, &staged));
    if (count != NULL) *count = staged.removal.count + staged.addition.replaced;
    end(kith_flat_of(index), &staged, true);
    return KITH_OK;
}

kith_status kith_flat_add(kith_index *index, const kith_addition *addition) {
    return change_now(index, &(kith_change){.kind = KITH_CHANGE_ADD, .addition = addition}, NULL);
}

kith_status kith_flat_upsert(kith_index *index, const kith_addition *addition, size_t *replaced) {
    return change_now(index, &(kith_change){.kind = KITH_CHANGE_UPSERT, .addition = addition}, replaced);
}

kith_status kith_flat_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed) {
    return change_now(index, &(kith_change){.kind = KITH_CHANGE_REMOVE, .ids = ids, .count = count}, removed);
}

kith_status kith_flat_update(kith_index *index, const kith_view *vectors, const int64_t *ids) {
    const kith_change change = {
        .kind = KITH_CHANGE_UPDATE, .vectors = vectors, .ids = ids, .count = vectors->count};
    return change_now(index, &change, NULL);
}

kith_status kith_flat_merge(kith_index *into, const kith_index *from, int64_t id_shift) {
    return change_now(into, &(kith_change){.kind = KITH_CHANGE_MERGE, .from = from, .id_shift = id_shift}, NULL);
}

kith_status kith_flat_compact(kith_index *index) {
    kith_flat *flat = kith_flat_of(index);
    const kith_row_tables tables = tables_of(flat);
    return kith_idrows_compact(&flat->ids, &tables);
}

void kith_flat_reset(kith_index *index) {
    kith_flat *flat = kith_flat_of(index);
    kith_chunks_trim(&flat->vectors, 0, 0);
    kith_chunks_trim(&flat->inverse_norms, 0, 0);
    kith_idrows_clear(&flat->ids);
    index->count = 0;
}
