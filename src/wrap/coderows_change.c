/* SPDX-License-Identifier: Apache-2.0
 *
 * coderows_change.c: train, add, remove, update, in two halves: all that may fail, and what cannot.
 */
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "index/codes.h"
#include "index/partition.h"
#include "wrap/coderows_inside.h"

/* Vectors that are encoded at a time. */
enum { BLOCK_ROWS = 2048 };
/* Codes that tell whether two were trained alike. */
enum { PROBE_ROWS = 64 };

struct kith_staged {
    kith_change_kind kind;
    kith_code *code;      /* train */
    kith_addition update; /* the vectors of an update as an addition, and its job */
    kith_job job;
    kith_idrows_addition addition;
    kith_idrows_removal removal;
    kith_idrows_merger merger;
    size_t had_chunks;
};

static kith_row_tables tables_of(kith_coderows *own) {
    return (kith_row_tables){.tables = {&own->rows}, .count = 1};
}

/* ---- Encoding ------------------------------------------------------------------------------------------------ */

/* Copies codes to rows of the table from `first` on. */
static void put(kith_chunks *rows, size_t first, const unsigned char *codes, size_t count) {
    size_t bytes = rows->item_bytes;
    for (size_t i = 0, run; i < count; i += run) {
        void *row = kith_chunks_run(rows, first + i, &run);
        run = kith_min_size(run, count - i);
        memcpy(row, codes + i * bytes, run * bytes);
    }
}

/* Encodes all rows of a view, block by block, into the rows behind those that there are. */
static kith_status encode(kith_coderows *own, const kith_view *view, size_t threads, kith_meter *meter) {
    const kith_code *code = own->code;
    size_t block = kith_min_size(view->count, BLOCK_ROWS), dim = code->dim, bytes = code->code_bytes;
    float *rows = NULL, *projected = NULL;
    unsigned char *codes = NULL;
    kith_arena arena = {0};
    kith_status status;
    KITH_GO(kith_alloc(block, dim * sizeof *rows, &rows));
    KITH_GO(kith_alloc(block, code->projected_dim * sizeof *projected, &projected));
    KITH_GO(kith_alloc(block, bytes, &codes));
    for (size_t first = 0; first < view->count; first += block) {
        size_t count = kith_min_size(block, view->count - first);
        for (size_t i = 0; i < count; i++) kith_coderows_take(view, first + i, own->base.metric, rows + i * dim);
        KITH_GO(kith_arena_begin(&arena));
        KITH_GO(kith_code_project(code, rows, count, threads, &arena, projected));
        const kith_code_rows part = {.rows = projected, .count = count, .first_row = first};
        KITH_GO(kith_code_encode(code, &part, threads, codes));
        put(&own->rows, own->ids.count + first, codes, count);
        KITH_GO(kith_meter_add(meter, count));
    }
done:
    kith_arena_free(&arena);
    kith_free(codes);
    kith_free(projected);
    kith_free(rows);
    return status;
}

/* ---- The changes --------------------------------------------------------------------------------------------- */

static kith_status train_begin(const kith_coderows *own, const kith_change *change, kith_staged *staged) {
    const kith_view *sample = change->vectors;
    if (own->code->vtable->train == NULL) return KITH_OK;
    size_t bytes;
    if (kith_mul_overflows(sample->count, sample->dim * sizeof(float), &bytes)) bytes = SIZE_MAX;
    if (change->job->memory_bytes_max != 0 && bytes > change->job->memory_bytes_max)
        return kith_error(KITH_ERR_BUDGET, "train %s: %zu vectors need %zu bytes, the budget is %llu",
                          own->code->name, sample->count, bytes, (unsigned long long)change->job->memory_bytes_max);
    const kith_spec spec = {
        .text = own->code->name, .parts = {{own->code->name, strlen(own->code->name), 0}}, .part_count = 1};
    float *rows = NULL;
    kith_status status;
    KITH_GO(kith_code_create(&spec, 0, own->code->dim, own->code->metric, &staged->code));
    KITH_GO(kith_alloc(sample->count, sample->dim * sizeof *rows, &rows));
    for (size_t i = 0; i < sample->count; i++)
        kith_coderows_take(sample, i, own->base.metric, rows + i * sample->dim);
    KITH_GO(kith_code_train(staged->code, &(kith_code_rows){.rows = rows, .count = sample->count}, change->job));
done:
    kith_free(rows);
    if (status != KITH_OK) kith_code_free(staged->code);
    return status;
}

static void train_end(kith_coderows *own, kith_staged *staged, bool keep) {
    kith_code *gone = staged->code;
    if (keep && staged->code != NULL) {
        gone = own->code;
        own->code = staged->code;
    }
    own->base.is_trained = own->code->is_trained;
    kith_code_free(gone);
}

static void add_drop(kith_coderows *own, const kith_staged *staged) {
    kith_chunks_trim(&own->rows, 0, staged->had_chunks);
    kith_idrows_add_drop(&own->ids, &staged->addition);
}

static kith_status add_begin(kith_coderows *own, const kith_addition *addition, kith_idrows_mode mode,
                             kith_staged *staged) {
    const kith_job *job = addition->job;
    kith_meter meter;
    KITH_TRY(kith_idrows_add_begin(&own->ids, own->base.next_id, addition, mode, &staged->addition));
    kith_meter_init(&meter, job->progress, job->progress_user, "add", addition->view.count);
    kith_status status;
    KITH_GO(kith_chunks_reserve(&own->rows, own->ids.count + addition->view.count));
    KITH_GO(encode(own, &addition->view, job->threads, &meter));
    KITH_GO(kith_meter_finish(&meter));
done:
    if (status != KITH_OK) add_drop(own, staged);
    return status;
}

static kith_status update_begin(kith_coderows *own, const kith_change *change, kith_staged *staged) {
    staged->update = kith_addition_of(change->vectors, change->ids, SIZE_MAX, &staged->job);
    return add_begin(own, &staged->update, KITH_ROWS_UPDATE, staged);
}

static kith_status check_alike(const kith_coderows *own, const kith_coderows *from) {
    size_t count = kith_min_size(PROBE_ROWS, from->ids.count), bytes = from->code->code_bytes;
    unsigned char *codes;
    bool agree;
    KITH_TRY(kith_alloc(count, bytes, &codes));
    for (size_t r = 0; r < count; r++) memcpy(codes + r * bytes, kith_chunks_at(&from->rows, r), bytes);
    kith_status status = kith_codes_agree(own->code, from->code, codes, count, &agree);
    kith_free(codes);
    if (status != KITH_OK || agree) return status;
    return kith_error(KITH_ERR_ARGUMENT, "merge: the two codes %s were not trained alike", own->code->name);
}

static kith_status merge_begin(kith_coderows *own, const kith_change *change, kith_staged *staged) {
    const kith_coderows *from = kith_coderows_of_const(change->from);
    KITH_TRY(check_alike(own, from));
    KITH_TRY(kith_idrows_merge_begin(&own->ids, own->base.next_id, &from->ids, change->id_shift, &staged->merger));
    kith_status status = kith_idrows_append(&from->ids, &from->rows, &own->rows, own->ids.count);
    if (status == KITH_OK) return KITH_OK;
    kith_chunks_trim(&own->rows, 0, staged->had_chunks);
    kith_idrows_merge_drop(&own->ids, &staged->merger);
    return status;
}

static void merge_end(kith_coderows *own, kith_staged *staged, bool keep) {
    if (keep) {
        kith_idrows_merge_keep(&own->ids, &staged->merger);
        return;
    }
    kith_chunks_trim(&own->rows, 0, staged->had_chunks);
    kith_idrows_merge_drop(&own->ids, &staged->merger);
}

/* ---- The two halves ------------------------------------------------------------------------------------------ */

static kith_status begin(kith_coderows *own, const kith_change *change, kith_staged *staged) {
    *staged = (kith_staged){.kind = change->kind, .had_chunks = own->rows.chunk_count};
    switch (change->kind) {
        case KITH_CHANGE_ADD: return add_begin(own, change->addition, KITH_ROWS_ADD, staged);
        case KITH_CHANGE_UPSERT: return add_begin(own, change->addition, KITH_ROWS_UPSERT, staged);
        case KITH_CHANGE_UPDATE: return update_begin(own, change, staged);
        case KITH_CHANGE_REMOVE:
            return kith_idrows_remove_begin(&own->ids, change->ids, change->count, &staged->removal);
        case KITH_CHANGE_MERGE: return merge_begin(own, change, staged);
        default: return train_begin(own, change, staged);
    }
}

static void end(kith_coderows *own, kith_staged *staged, bool keep) {
    const kith_row_tables tables = tables_of(own);
    switch (staged->kind) {
        case KITH_CHANGE_ADD:
        case KITH_CHANGE_UPSERT:
        case KITH_CHANGE_UPDATE:
            if (keep)
                kith_idrows_add_keep(&own->ids, &staged->addition);
            else
                add_drop(own, staged);
            break;
        case KITH_CHANGE_REMOVE:
            if (keep)
                kith_idrows_remove_keep(&own->ids, &staged->removal);
            else
                kith_idrows_remove_drop(&own->ids, &staged->removal);
            break;
        case KITH_CHANGE_MERGE: merge_end(own, staged, keep); break;
        default: train_end(own, staged, keep); break;
    }
    if (keep) kith_idrows_compact_when_due(&own->ids, &tables);
    own->base.count = kith_idrows_live(&own->ids);
}

kith_status kith_coderows_stage(kith_index *index, const kith_change *change, kith_staged **out) {
    KITH_TRY(kith_alloc(1, sizeof **out, out));
    kith_status status = begin(kith_coderows_of(index), change, *out);
    if (status != KITH_OK) kith_free(*out);
    return status;
}

void kith_coderows_settle(kith_index *index, kith_staged *staged, bool keep) {
    end(kith_coderows_of(index), staged, keep);
    kith_free(staged);
}

/* Both at once. *count: the vectors that were removed or replaced. */
static kith_status change_now(kith_index *index, const kith_change *change, size_t *count) {
    kith_staged staged;
    KITH_TRY(begin(kith_coderows_of(index), change, &staged));
    if (count != NULL) *count = staged.removal.count + staged.addition.replaced;
    end(kith_coderows_of(index), &staged, true);
    return KITH_OK;
}

kith_status kith_coderows_train(kith_index *index, const kith_view *sample, const kith_job *job) {
    return change_now(index, &(kith_change){.kind = KITH_CHANGE_TRAIN, .vectors = sample, .job = job}, NULL);
}

kith_status kith_coderows_add(kith_index *index, const kith_addition *addition) {
    return change_now(index, &(kith_change){.kind = KITH_CHANGE_ADD, .addition = addition}, NULL);
}

kith_status kith_coderows_upsert(kith_index *index, const kith_addition *addition, size_t *replaced) {
    return change_now(index, &(kith_change){.kind = KITH_CHANGE_UPSERT, .addition = addition}, replaced);
}

kith_status kith_coderows_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed) {
    return change_now(index, &(kith_change){.kind = KITH_CHANGE_REMOVE, .ids = ids, .count = count}, removed);
}

kith_status kith_coderows_update(kith_index *index, const kith_view *vectors, const int64_t *ids) {
    const kith_change change = {
        .kind = KITH_CHANGE_UPDATE, .vectors = vectors, .ids = ids, .count = vectors->count};
    return change_now(index, &change, NULL);
}

kith_status kith_coderows_compact(kith_index *index) {
    kith_coderows *own = kith_coderows_of(index);
    const kith_row_tables tables = tables_of(own);
    return kith_idrows_compact(&own->ids, &tables);
}

void kith_coderows_reset(kith_index *index) {
    kith_coderows *own = kith_coderows_of(index);
    kith_chunks_trim(&own->rows, 0, 0);
    kith_idrows_clear(&own->ids);
    index->count = 0;
}
