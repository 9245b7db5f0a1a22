/* SPDX-License-Identifier: Apache-2.0 */
#include "index/idrows.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "index/convert.h"
#include "index/indexfile.h"

void kith_idrows_init(kith_idrows *rows) {
    *rows = (kith_idrows){.ids_rise = true};
    kith_chunks_init(&rows->ids, sizeof(int64_t));
}

void kith_idrows_free(kith_idrows *rows) {
    kith_chunks_free(&rows->ids);
    kith_idmap_free(&rows->map);
}

/* ---- Looking up ---------------------------------------------------------------------------------------------- */

static bool find_rising(const kith_idrows *rows, int64_t id, uint64_t *row) {
    size_t first = 0, count = rows->count;
    while (count > 0) {
        size_t half = count / 2;
        bool right = kith_idrows_id(rows, first + half) < id;
        first = right ? first + half + 1 : first;
        count = right ? count - half - 1 : half;
    }
    *row = first;
    return first < rows->count && kith_idrows_id(rows, first) == id;
}

bool kith_idrows_find_stored(const kith_idrows *rows, int64_t id, uint64_t *row) {
    assert(kith_idrows_can_find(rows));
    return rows->ids_rise ? find_rising(rows, id, row) : kith_idmap_get(&rows->map, id, row);
}

void kith_idrows_list(const kith_idrows *rows, int64_t *ids) {
    for (size_t r = 0; r < rows->count; r++) ids[r] = kith_idrows_id(rows, r);
}

/* One pass over all ids, past a map of those that are looked for. */
static kith_status scan(const kith_idrows *rows, const int64_t *ids, size_t count, uint64_t *out) {
    kith_idmap wanted = {0};
    KITH_TRY(kith_idmap_reserve(&wanted, count));
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= 0) kith_idmap_put(&wanted, ids[i], KITH_NO_ROW);
    for (size_t r = 0; r < rows->count; r++) {
        uint64_t before;
        int64_t id = kith_idrows_id(rows, r);
        if (kith_idmap_get(&wanted, id, &before)) kith_idmap_put(&wanted, id, r);
    }
    for (size_t i = 0; i < count; i++)
        if (!kith_idmap_get(&wanted, ids[i], &out[i])) out[i] = KITH_NO_ROW;
    kith_idmap_free(&wanted);
    return KITH_OK;
}

kith_status kith_idrows_find(const kith_idrows *rows, const int64_t *ids, size_t count, uint64_t *out) {
    if (!kith_idrows_can_find(rows)) return scan(rows, ids, count, out);
    for (size_t i = 0; i < count; i++)
        if (!kith_idrows_find_one(rows, ids[i], &out[i])) out[i] = KITH_NO_ROW;
    return KITH_OK;
}

kith_status kith_idrows_need(const char *what, const kith_idrows *rows, const int64_t *ids, size_t count,
                             uint64_t *out) {
    KITH_TRY(kith_idrows_find(rows, ids, count, out));
    for (size_t i = 0; i < count; i++)
        if (out[i] == KITH_NO_ROW)
            return kith_error(KITH_ERR_NOT_FOUND, "%s: id %lld is not in the index", what, (long long)ids[i]);
    return KITH_OK;
}

kith_status kith_idrows_holds(const kith_idrows *rows, const int64_t *ids, size_t count, bool *held) {
    uint64_t *found;
    KITH_TRY(kith_alloc(count, sizeof *found, &found));
    kith_status status = kith_idrows_find(rows, ids, count, found);
    for (size_t i = 0; i < count && status == KITH_OK; i++) held[i] = found[i] != KITH_NO_ROW;
    kith_free(found);
    return status;
}

/* ---- The form of the ids ------------------------------------------------------------------------------------- */

/* Room for the ids of `count` rows: written out where `stored`, in a map where not `rise`. On failure as before. */
static kith_status reserve(kith_idrows *rows, size_t count, bool stored, bool rise) {
    size_t had = rows->ids.chunk_count;
    kith_status status = stored ? kith_chunks_reserve(&rows->ids, count) : KITH_OK;
    if (status == KITH_OK && !rise) status = kith_idmap_reserve(&rows->map, count);
    if (status != KITH_OK) kith_chunks_trim(&rows->ids, 0, had);
    return status;
}

/* Gives back what reserve took, where nothing was there before. */
static void give_back(kith_idrows *rows, size_t had_chunks, bool had_map) {
    kith_chunks_trim(&rows->ids, 0, had_chunks);
    if (!had_map) kith_idmap_free(&rows->map);
}

/* Brings the ids of the present rows into that form. Cannot fail: room has been reserved. */
static void settle(kith_idrows *rows, bool stored, bool rise) {
    if (stored && !rows->has_ids) {
        for (size_t r = 0; r < rows->count; r++)
            *(int64_t *)kith_chunks_at(&rows->ids, r) = rows->first_id + (int64_t)r;
        rows->has_ids = true;
    }
    if (!rise && rows->ids_rise) {
        for (size_t r = 0; r < rows->count; r++) kith_idmap_put(&rows->map, kith_idrows_id(rows, r), r);
        rows->ids_rise = false;
    }
}

void kith_idrows_clear(kith_idrows *rows) {
    kith_chunks_trim(&rows->ids, 0, 0);
    kith_idmap_free(&rows->map);
    rows->count = 0;
    rows->has_ids = false;
    rows->ids_rise = true;
    rows->first_id = 0;
}

/* Whether they do, even if nobody has noticed: removals at the end may leave ids that rise. */
static bool ids_rise(const kith_idrows *rows) {
    for (size_t r = 1; r < rows->count; r++)
        if (kith_idrows_id(rows, r) <= kith_idrows_id(rows, r - 1)) return false;
    return true;
}

/* ---- Adding -------------------------------------------------------------------------------------------------- */

static int64_t new_id(const kith_addition *addition, size_t i) {
    return addition->ids != NULL ? addition->ids[i] : addition->first_id + (int64_t)i;
}

static kith_status check_absent(const kith_idrows *rows, int64_t next_id, const kith_addition *addition) {
    if (addition->ids_rise && new_id(addition, 0) >= next_id) return KITH_OK;
    for (size_t i = 0; i < addition->view.count; i++) {
        uint64_t row;
        if (kith_idrows_find_one(rows, new_id(addition, i), &row))
            return kith_error(KITH_ERR_EXISTS, "add: id %lld is in the index already",
                              (long long)new_id(addition, i));
    }
    return KITH_OK;
}

/* How the ids will have to be kept once the new rows stand behind the present ones. */
static void plan_form(const kith_idrows *rows, kith_idrows_addition *plan) {
    const kith_addition *addition = plan->addition;
    int64_t first = new_id(addition, 0), last = new_id(addition, addition->view.count - 1);
    int64_t last_held = rows->count > 0 ? kith_idrows_id(rows, rows->count - 1) : -1;
    plan->rise = rows->ids_rise && addition->ids_rise && first > last_held;
    /* Rising ids are consecutive when the last is as far from the first as its row. */
    bool consecutive = plan->rise && (uint64_t)(last - first) == (uint64_t)(addition->view.count - 1);
    plan->stored = rows->has_ids || !consecutive || (rows->count > 0 && first != last_held + 1);
}

kith_status kith_idrows_add_begin(kith_idrows *rows, int64_t next_id, const kith_addition *addition,
                                  kith_idrows_addition *plan) {
    *plan = (kith_idrows_addition){
        .addition = addition, .had_map = rows->map.slot_count != 0, .had_chunks = rows->ids.chunk_count};
    KITH_TRY(check_absent(rows, next_id, addition));
    size_t total;
    if (kith_add_overflows(rows->count, addition->view.count, &total))
        return kith_error(KITH_ERR_OVERFLOW, "add: %zu vectors to %zu", addition->view.count, rows->count);
    plan_form(rows, plan);
    return reserve(rows, total, plan->stored, plan->rise);
}

void kith_idrows_add_keep(kith_idrows *rows, const kith_idrows_addition *plan) {
    const kith_addition *addition = plan->addition;
    size_t count = rows->count, added = addition->view.count;
    settle(rows, plan->stored, plan->rise);
    if (count == 0 && !plan->stored) rows->first_id = new_id(addition, 0);
    for (size_t i = 0; i < added && plan->stored; i++)
        *(int64_t *)kith_chunks_at(&rows->ids, count + i) = new_id(addition, i);
    for (size_t i = 0; i < added && !plan->rise; i++) kith_idmap_put(&rows->map, new_id(addition, i), count + i);
    rows->count = count + added;
}

void kith_idrows_add_drop(kith_idrows *rows, const kith_idrows_addition *plan) {
    give_back(rows, plan->had_chunks, plan->had_map);
}

/* ---- Merging ------------------------------------------------------------------------------------------------- */

kith_status kith_idrows_merge_begin(kith_idrows *rows, int64_t next_id, const kith_idrows *from, int64_t shift,
                                    kith_idrows_merger *merger) {
    *merger = (kith_idrows_merger){.addition = {
                                       .view.count = from->count,
                                       .first_id = kith_idrows_id(from, 0) + shift,
                                       .ids_rise = from->ids_rise,
                                   }};
    if (from->has_ids) {
        KITH_TRY(kith_alloc(from->count, sizeof *merger->ids, &merger->ids));
        for (size_t r = 0; r < from->count; r++) merger->ids[r] = kith_idrows_id(from, r) + shift;
        merger->addition.ids = merger->ids;
    }
    kith_status status = kith_idrows_add_begin(rows, next_id, &merger->addition, &merger->plan);
    if (status != KITH_OK) kith_free(merger->ids);
    return status;
}

void kith_idrows_merge_keep(kith_idrows *rows, kith_idrows_merger *merger) {
    kith_idrows_add_keep(rows, &merger->plan);
    kith_free(merger->ids);
}

void kith_idrows_merge_drop(kith_idrows *rows, kith_idrows_merger *merger) {
    kith_idrows_add_drop(rows, &merger->plan);
    kith_free(merger->ids);
}

/* ---- Removing ------------------------------------------------------------------------------------------------ */

/* The rows of those ids that are there, rising, each once. `found` and `rows` have room for 2 x count each. */
static kith_status rows_to_remove(const kith_idrows *held, const int64_t *ids, size_t count, uint64_t *found,
                                  int64_t *rows, size_t *row_count) {
    KITH_TRY(kith_idrows_find(held, ids, count, found));
    size_t found_count = 0, kept = 0;
    for (size_t i = 0; i < count; i++)
        if (found[i] != KITH_NO_ROW) rows[found_count++] = (int64_t)found[i];
    if (!kith_rises_i64(rows, found_count)) kith_sort_i64(rows, found_count, rows + count);
    for (size_t i = 0; i < found_count; i++)
        if (kept == 0 || rows[i] != rows[kept - 1]) rows[kept++] = rows[i];
    *row_count = kept;
    return KITH_OK;
}

/* Are these the last rows? Then what is left keeps the form of its ids. */
static bool is_at_end(const kith_idrows *rows, const kith_idrows_removal *removal) {
    return removal->count == 0 || (size_t)removal->rows[0] == rows->count - removal->count;
}

kith_status kith_idrows_remove_begin(kith_idrows *rows, const int64_t *ids, size_t count,
                                     kith_idrows_removal *removal) {
    *removal = (kith_idrows_removal){.had_chunks = rows->ids.chunk_count, .had_map = rows->map.slot_count != 0};
    uint64_t *found = NULL;
    kith_status status;
    KITH_GO(kith_alloc(count, sizeof *found, &found));
    KITH_GO(kith_alloc(count, 2 * sizeof *removal->rows, &removal->rows));
    KITH_GO(rows_to_remove(rows, ids, count, found, removal->rows, &removal->count));
    if (!is_at_end(rows, removal)) KITH_GO(reserve(rows, rows->count, true, false));
done:
    kith_free(found);
    if (status != KITH_OK) kith_free(removal->rows);
    return status;
}

void kith_idrows_remove_keep(kith_idrows *rows, kith_idrows_removal *removal, kith_move_row_fn move, void *owner) {
    if (!is_at_end(rows, removal)) settle(rows, true, false);
    for (size_t i = removal->count; i-- > 0;) {
        size_t row = (size_t)removal->rows[i], last = rows->count - 1;
        if (!rows->ids_rise) kith_idmap_remove(&rows->map, kith_idrows_id(rows, row));
        if (row != last) {
            int64_t moved = kith_idrows_id(rows, last);
            move(owner, last, row);
            *(int64_t *)kith_chunks_at(&rows->ids, row) = moved;
            kith_idmap_put(&rows->map, moved, row);
        }
        rows->count = last;
    }
    if (rows->count == 0) kith_idrows_clear(rows);
    kith_chunks_trim(&rows->ids, rows->count, 1);
    kith_free(removal->rows);
}

void kith_idrows_remove_drop(kith_idrows *rows, kith_idrows_removal *removal) {
    give_back(rows, removal->had_chunks, removal->had_map);
    kith_free(removal->rows);
}

/* ---- Compacting ---------------------------------------------------------------------------------------------- */

kith_status kith_idrows_compact(kith_idrows *rows) {
    kith_idmap map = {0};
    bool rise = ids_rise(rows);
    if (!rise) {
        KITH_TRY(kith_idmap_reserve(&map, rows->count));
        for (size_t r = 0; r < rows->count; r++) kith_idmap_put(&map, kith_idrows_id(rows, r), r);
    }
    kith_idmap_free(&rows->map);
    rows->map = map;
    rows->ids_rise = rise;
    if (rows->has_ids && rise && rows->count > 0) {
        int64_t first = kith_idrows_id(rows, 0), last = kith_idrows_id(rows, rows->count - 1);
        rows->has_ids = (uint64_t)(last - first) != (uint64_t)(rows->count - 1);
        if (!rows->has_ids) rows->first_id = first;
    }
    kith_chunks_trim(&rows->ids, rows->has_ids ? rows->count : 0, 0);
    return KITH_OK;
}

/* ---- Copies -------------------------------------------------------------------------------------------------- */

/* A copy of `count` items, pieces of a chunk at a time. */
typedef struct copy_loop {
    const kith_chunks *from;
    kith_chunks *to;
    size_t first; /* of the items of `to` */
    size_t count, items_per_piece;
} copy_loop;

static kith_status copy_piece(void *context, size_t piece, size_t worker) {
    (void)worker;
    const copy_loop *loop = context;
    size_t first = piece * loop->items_per_piece;
    size_t last = kith_min_size(loop->count, first + loop->items_per_piece);
    for (size_t i = first, run; i < last; i += run) {
        size_t from_run;
        void *at = kith_chunks_run(loop->to, loop->first + i, &run);
        const void *source = kith_chunks_run(loop->from, i, &from_run);
        run = kith_min_size(kith_min_size(run, from_run), last - i);
        memcpy(at, source, run * loop->to->item_bytes);
    }
    return KITH_OK;
}

kith_status kith_chunks_copy(const kith_chunks *from, size_t count, kith_chunks *to) {
    return kith_chunks_append(from, count, to, 0);
}

kith_status kith_chunks_append(const kith_chunks *from, size_t count, kith_chunks *to, size_t first) {
    KITH_TRY(kith_chunks_reserve(to, first + count));
    if (count == 0) return KITH_OK;
    copy_loop loop = {from, to, first, count, kith_rows_per_item(to->item_bytes)};
    size_t pieces = (count - 1) / loop.items_per_piece + 1;
    return kith_parallel_for(kith_threads_default(), pieces, copy_piece, &loop);
}

kith_status kith_idrows_copy(const kith_idrows *from, kith_idrows *to) {
    if (from->has_ids) KITH_TRY(kith_chunks_copy(&from->ids, from->count, &to->ids));
    KITH_TRY(reserve(to, from->count, from->has_ids, from->ids_rise));
    to->count = from->count;
    to->has_ids = from->has_ids;
    to->first_id = from->first_id;
    settle(to, from->has_ids, from->ids_rise);
    return KITH_OK;
}

/* ---- Files --------------------------------------------------------------------------------------------------- */

enum { META_BYTES = 16, VERSION = 1 };

kith_status kith_chunks_save(const kith_chunks *chunks, size_t count, const char *tag, uint32_t instance,
                             kith_container_writer *writer) {
    KITH_TRY(kith_container_writer_begin(writer, tag, instance, VERSION, 0));
    for (size_t i = 0, run; i < count; i += run) {
        const void *at = kith_chunks_run(chunks, i, &run);
        run = kith_min_size(run, count - i);
        KITH_TRY(kith_container_writer_write(writer, at, run * chunks->item_bytes));
    }
    return KITH_OK;
}

kith_status kith_chunks_open(kith_container *file, const char *tag, uint32_t instance, size_t count,
                             kith_chunks *chunks) {
    const void *items;
    KITH_TRY(kith_container_need_items(file, tag, instance, count, chunks->item_bytes, &items));
    return kith_chunks_borrow(chunks, chunks->item_bytes, items, count);
}

kith_status kith_idrows_save(const kith_idrows *rows, const kith_idrows_tags *tags, uint32_t instance,
                             kith_container_writer *writer) {
    unsigned char meta[META_BYTES];
    kith_put_u64(meta, rows->has_ids ? 0 : (uint64_t)rows->first_id);
    kith_put_u32(meta + 8, rows->has_ids);
    kith_put_u32(meta + 12, rows->ids_rise || ids_rise(rows));
    KITH_TRY(kith_container_writer_add(writer, tags->meta, instance, meta, sizeof meta));
    return rows->has_ids ? kith_chunks_save(&rows->ids, rows->count, tags->ids, instance, writer) : KITH_OK;
}

kith_status kith_idrows_open(kith_container *file, const kith_idrows_tags *tags, uint32_t instance, size_t count,
                             int64_t next_id, kith_idrows *rows) {
    const kith_section *section;
    KITH_TRY(kith_container_need(file, tags->meta, instance, VERSION, &section));
    if (section->bytes != META_BYTES)
        return kith_section_error(file, section, "has %zu bytes, not %d", section->bytes, META_BYTES);
    const unsigned char *bytes = section->data;
    uint64_t first_id = kith_get_u64(bytes);
    uint32_t has_ids = kith_get_u32(bytes + 8), ids_rise = kith_get_u32(bytes + 12);
    if (has_ids > 1 || ids_rise > 1 || (!has_ids && !ids_rise))
        return kith_section_error(file, section, "has_ids is %u and ids_rise %u", has_ids, ids_rise);
    if (has_ids ? first_id != 0 : first_id > (uint64_t)next_id || count > (uint64_t)next_id - first_id)
        return kith_section_error(file, section, "%zu ids from %llu on, all below %llu", count,
                                  (unsigned long long)first_id, (unsigned long long)next_id);
    rows->count = count;
    rows->first_id = (int64_t)first_id;
    rows->has_ids = has_ids != 0;
    rows->ids_rise = ids_rise != 0;
    rows->is_mapped = true;
    return rows->has_ids ? kith_chunks_open(file, tags->ids, instance, count, &rows->ids) : KITH_OK;
}

kith_status kith_content_error(const kith_index *index, const char *tag, uint32_t instance, const char *what) {
    const char *path = index->file != NULL ? kith_container_path(index->file) : "index";
    return kith_error(KITH_ERR_FORMAT, "%s: section %s.%u: %s", path, tag, instance, what);
}

kith_status kith_idrows_verify(const kith_index *index, const kith_idrows *rows, const kith_idrows_tags *tags,
                               uint32_t instance) {
    size_t count = rows->count;
    if (count == 0 || !rows->has_ids) return KITH_OK;
    const int64_t *ids = kith_chunks_at(&rows->ids, 0);
    for (size_t r = 0; r < count; r++)
        if (ids[r] < 0 || ids[r] >= index->next_id)
            return kith_content_error(index, tags->ids, instance, "an id is not in 0 .. next_id - 1");
    bool rise = kith_rises_i64(ids, count);
    if (rise != rows->ids_rise)
        return kith_content_error(index, tags->meta, instance, "ids_rise does not say how the ids are");
    if (rise) return KITH_OK;
    int64_t *sorted, *scratch;
    KITH_TRY(kith_alloc(count, sizeof *sorted, &sorted));
    kith_status status = kith_alloc(count, sizeof *scratch, &scratch);
    if (status == KITH_OK) {
        memcpy(sorted, ids, count * sizeof *sorted);
        kith_sort_i64(sorted, count, scratch);
        if (!kith_rises_i64(sorted, count))
            status = kith_content_error(index, tags->ids, instance, "an id stands twice");
    }
    kith_free(scratch);
    kith_free(sorted);
    return status;
}
