/* SPDX-License-Identifier: Apache-2.0 */
#include "index/upsert.h"

#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "index/convert.h"

/* Copies the vectors of each kind together: those to add first. */
static kith_status gather(const kith_addition *addition, const bool *held, size_t old_count, kith_upsert *out) {
    const kith_view *view = &addition->view;
    size_t row_bytes = kith_dtype_row_bytes(view->dtype, view->dim), next[2] = {0, view->count - old_count};
    unsigned char *rows;
    KITH_TRY(kith_alloc(view->count, row_bytes, &rows));
    out->rows = rows;
    KITH_TRY(kith_alloc(view->count, sizeof *out->ids, &out->ids));
    for (size_t i = 0; i < view->count; i++) {
        size_t to = next[held[i]]++;
        memcpy(rows + to * row_bytes, kith_view_row(view, i), row_bytes);
        out->ids[to] = addition->ids[i];
    }
    size_t fresh_count = view->count - old_count;
    out->fresh.view = (kith_view){rows, view->dtype, fresh_count, view->dim, row_bytes};
    out->fresh.ids = out->ids;
    out->fresh.ids_rise = kith_rises_i64(out->ids, fresh_count);
    out->old = (kith_view){rows + fresh_count * row_bytes, view->dtype, old_count, view->dim, row_bytes};
    out->old_ids = out->ids + fresh_count;
    return KITH_OK;
}

static kith_status divide(const kith_index *index, const kith_addition *addition, kith_upsert *out) {
    size_t count = addition->view.count, old_count = 0;
    bool *held;
    *out = (kith_upsert){.fresh = *addition, .old = addition->view, .old_ids = addition->ids};
    KITH_TRY(kith_alloc(count, sizeof *held, &held));
    kith_status status = index->vtable->holds(index, addition->ids, count, held);
    for (size_t i = 0; i < count && status == KITH_OK; i++) old_count += held[i];
    if (old_count == 0)
        out->old.count = 0;
    else if (old_count == count)
        out->fresh.view.count = 0;
    else
        status = gather(addition, held, old_count, out);
    kith_free(held);
    return status;
}

static kith_status stage_one(kith_index *index, const kith_change *change, kith_staged **out) {
    kith_staged *staged;
    KITH_TRY(index->vtable->stage(index, change, &staged));
    *out = staged;
    return KITH_OK;
}

static kith_status stage_both(kith_index *index, kith_upsert *upsert) {
    const kith_change addition = {.kind = KITH_CHANGE_ADD, .addition = &upsert->fresh};
    const kith_change update = {
        .kind = KITH_CHANGE_UPDATE, .vectors = &upsert->old, .ids = upsert->old_ids, .count = upsert->old.count};
    if (upsert->fresh.view.count > 0) KITH_TRY(stage_one(index, &addition, &upsert->addition));
    return upsert->old.count > 0 ? stage_one(index, &update, &upsert->update) : KITH_OK;
}

kith_status kith_upsert_stage(kith_index *index, const kith_addition *addition, kith_upsert *out) {
    if (index->vtable->holds == NULL)
        return kith_error(KITH_ERR_UNSUPPORTED, "upsert: the vectors of the index lie in a file; add and remove");
    kith_status status = divide(index, addition, out);
    if (status == KITH_OK) status = stage_both(index, out);
    if (status != KITH_OK) (void)kith_upsert_settle(index, out, false);
    return status;
}

size_t kith_upsert_settle(kith_index *index, kith_upsert *upsert, bool keep) {
    if (upsert->update != NULL) index->vtable->settle(index, upsert->update, keep);
    if (upsert->addition != NULL) index->vtable->settle(index, upsert->addition, keep);
    kith_free(upsert->rows);
    kith_free(upsert->ids);
    return upsert->old.count;
}

kith_status kith_upsert_staged(kith_index *index, const kith_addition *addition, size_t *replaced) {
    kith_upsert upsert;
    KITH_TRY(kith_upsert_stage(index, addition, &upsert));
    *replaced = kith_upsert_settle(index, &upsert, true);
    return KITH_OK;
}
