/* SPDX-License-Identifier: Apache-2.0
 *
 * flat_change.c: add, remove, update, reset. Each first sets aside all memory that it needs; from there on it
 * cannot fail, or gives the memory back.
 */
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "flat/flat_inside.h"
#include "index/convert.h"

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

static int64_t new_id(const kith_addition *addition, size_t i) {
    return addition->ids != NULL ? addition->ids[i] : addition->first_id + (int64_t)i;
}

static kith_status check_absent(const kith_flat *flat, const kith_addition *addition) {
    if (addition->ids_rise && new_id(addition, 0) >= flat->base.next_id) return KITH_OK;
    for (size_t i = 0; i < addition->view.count; i++) {
        uint64_t row;
        if (kith_flat_find_one(flat, new_id(addition, i), &row))
            return kith_error(KITH_ERR_EXISTS, "add: id %lld is in the index already",
                              (long long)new_id(addition, i));
    }
    return KITH_OK;
}

/* How the ids will have to be kept once the new rows stand behind the present ones. */
static void plan_ids(const kith_flat *flat, const kith_addition *addition, bool *stored, bool *rise) {
    size_t count = flat->base.count;
    int64_t first = new_id(addition, 0), last = new_id(addition, addition->view.count - 1);
    int64_t last_held = count > 0 ? kith_flat_id(flat, count - 1) : -1;
    *rise = flat->ids_rise && addition->ids_rise && first > last_held;
    /* Rising ids are consecutive when the last is as far from the first as its row. */
    bool consecutive = *rise && (uint64_t)(last - first) == (uint64_t)(addition->view.count - 1);
    *stored = flat->has_ids || !consecutive || (count > 0 && first != last_held + 1);
}

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
    for (size_t i = first; i < last; i++)
        KITH_TRY(store_row(loop->flat, loop->flat->base.count + i, loop->view, i));
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

static void publish(kith_flat *flat, const kith_addition *addition, bool stored, bool rise) {
    size_t count = flat->base.count, added = addition->view.count;
    kith_flat_settle_ids(flat, stored, rise);
    if (count == 0 && !stored) flat->first_id = new_id(addition, 0);
    for (size_t i = 0; i < added && stored; i++)
        *(int64_t *)kith_chunks_at(&flat->ids, count + i) = new_id(addition, i);
    for (size_t i = 0; i < added && !rise; i++) kith_idmap_put(&flat->map, new_id(addition, i), count + i);
    flat->base.count = count + added;
}

kith_status kith_flat_add(kith_index *index, const kith_addition *addition) {
    kith_flat *flat = kith_flat_of(index);
    KITH_TRY(check_absent(flat, addition));
    size_t total, had_vectors = flat->vectors.chunk_count, had_norms = flat->inverse_norms.chunk_count;
    size_t had_ids = flat->ids.chunk_count;
    if (kith_add_overflows(index->count, addition->view.count, &total))
        return kith_error(KITH_ERR_OVERFLOW, "add: %zu vectors to %zu", addition->view.count, index->count);
    bool stored, rise, had_map = flat->map.slot_count != 0;
    plan_ids(flat, addition, &stored, &rise);
    kith_status status;
    KITH_GO(kith_chunks_reserve(&flat->vectors, total));
    if (kith_flat_has_norms(flat)) KITH_GO(kith_chunks_reserve(&flat->inverse_norms, total));
    KITH_GO(kith_flat_reserve_ids(flat, total, stored, rise));
    KITH_GO(copy_rows(flat, addition));
    publish(flat, addition, stored, rise);
done:
    if (status != KITH_OK) {
        kith_chunks_trim(&flat->vectors, 0, had_vectors);
        kith_chunks_trim(&flat->inverse_norms, 0, had_norms);
        kith_chunks_trim(&flat->ids, 0, had_ids);
        if (!had_map) kith_idmap_free(&flat->map);
    }
    return status;
}

/* ---- Remove --------------------------------------------------------------------------------------------- */

/* Gives back memory, but keeps a chunk in hand for the next vectors. */
static void trim(kith_flat *flat) {
    size_t count = flat->base.count;
    if (count == 0) kith_flat_clear_ids(flat);
    kith_chunks_trim(&flat->vectors, count, 1);
    kith_chunks_trim(&flat->inverse_norms, count, 1);
    kith_chunks_trim(&flat->ids, count, 1);
}

/* Takes a row out; the last one moves to its place. */
static void take_out(kith_flat *flat, size_t row) {
    size_t last = flat->base.count - 1;
    if (!flat->ids_rise) kith_idmap_remove(&flat->map, kith_flat_id(flat, row));
    if (row != last) {
        int64_t moved = kith_flat_id(flat, last);
        memcpy(kith_chunks_at(&flat->vectors, row), kith_chunks_at(&flat->vectors, last), flat->row_bytes);
        if (kith_flat_has_norms(flat))
            memcpy(kith_chunks_at(&flat->inverse_norms, row), kith_chunks_at(&flat->inverse_norms, last),
                   sizeof(float));
        *(int64_t *)kith_chunks_at(&flat->ids, row) = moved;
        kith_idmap_put(&flat->map, moved, row);
    }
    flat->base.count = last;
}

/* The rows of those ids that are there, rising, each once. `found` and `rows` have room for 2 x count each. */
static kith_status rows_to_remove(const kith_flat *flat, const int64_t *ids, size_t count, uint64_t *found,
                                  int64_t *rows, size_t *row_count) {
    KITH_TRY(kith_flat_find(flat, ids, count, found));
    size_t found_count = 0, kept = 0;
    for (size_t i = 0; i < count; i++)
        if (found[i] != KITH_FLAT_NO_ROW) rows[found_count++] = (int64_t)found[i];
    if (!kith_rises_i64(rows, found_count)) kith_sort_i64(rows, found_count, rows + count);
    for (size_t i = 0; i < found_count; i++)
        if (kept == 0 || rows[i] != rows[kept - 1]) rows[kept++] = rows[i];
    *row_count = kept;
    return KITH_OK;
}

kith_status kith_flat_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed) {
    kith_flat *flat = kith_flat_of(index);
    size_t row_count = 0;
    uint64_t *found = NULL;
    int64_t *rows = NULL;
    kith_status status;
    KITH_GO(kith_alloc(count, sizeof *found, &found));
    KITH_GO(kith_alloc(count, 2 * sizeof *rows, &rows));
    KITH_GO(rows_to_remove(flat, ids, count, found, rows, &row_count));
    bool at_end = row_count == 0 || (size_t)rows[0] == index->count - row_count;
    if (!at_end) {
        KITH_GO(kith_flat_reserve_ids(flat, index->count, true, false));
        kith_flat_settle_ids(flat, true, false);
    }
    for (size_t i = row_count; i-- > 0;) take_out(flat, (size_t)rows[i]);
    trim(flat);
    *removed = row_count;
done:
    kith_free(rows);
    kith_free(found);
    return status;
}

/* ---- Update and reset ----------------------------------------------------------------------------------- */

kith_status kith_flat_update(kith_index *index, const kith_view *vectors, const int64_t *ids) {
    kith_flat *flat = kith_flat_of(index);
    uint64_t *rows;
    KITH_TRY(kith_alloc(vectors->count, sizeof *rows, &rows));
    kith_status status;
    KITH_GO(kith_flat_find(flat, ids, vectors->count, rows));
    for (size_t i = 0; i < vectors->count; i++)
        if (rows[i] == KITH_FLAT_NO_ROW)
            KITH_GO(kith_error(KITH_ERR_NOT_FOUND, "update: id %lld is not in the index", (long long)ids[i]));
    for (size_t i = 0; i < vectors->count; i++) KITH_GO(store_row(flat, (size_t)rows[i], vectors, i));
done:
    kith_free(rows);
    return status;
}

void kith_flat_reset(kith_index *index) {
    kith_flat *flat = kith_flat_of(index);
    kith_chunks_trim(&flat->vectors, 0, 0);
    kith_chunks_trim(&flat->inverse_norms, 0, 0);
    kith_flat_clear_ids(flat);
    index->count = 0;
}
