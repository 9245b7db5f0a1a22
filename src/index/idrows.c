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

kith_status kith_idrows_bytes_for(size_t count, uint64_t *bytes) {
    KITH_TRY(kith_chunks_bytes_for(sizeof(int64_t), count, bytes));
    return kith_idmap_bytes_for(count, bytes);
}

void kith_idrows_free(kith_idrows *rows) {
    kith_chunks_free(&rows->ids);
    kith_idmap_free(&rows->map);
    kith_deadset_clear(&rows->dead, NULL);
}

void kith_idrows_set_epoch(kith_idrows *rows, kith_epoch *epoch) {
    rows->ids.epoch = epoch;
    rows->map.epoch = epoch;
}

static bool is_dead(const kith_idrows *rows, size_t row) {
    return rows->dead.count > 0 && kith_deadset_has(&rows->dead, row);
}

/* The next rows that follow on another and are live, from *first on: *first is the first of them. 0: there are none. */
static size_t live_run(const kith_idrows *rows, size_t *first) {
    if (rows->dead.count == 0) return rows->count - *first;
    while (*first < rows->count && is_dead(rows, *first)) ++*first;
    size_t end = *first;
    while (end < rows->count && !is_dead(rows, end)) end++;
    return end - *first;
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
    if (rows->ids_rise) return find_rising(rows, id, row) && !is_dead(rows, (size_t)*row);
    size_t step = 0;
    while (kith_idmap_next(&rows->map, id, &step, row))
        if (*row < rows->count && !is_dead(rows, (size_t)*row)) return true;
    return false;
}

void kith_idrows_list(const kith_idrows *rows, int64_t *ids) {
    size_t count = 0;
    for (size_t r = 0; r < rows->count; r++)
        if (!is_dead(rows, r)) ids[count++] = kith_idrows_id(rows, r);
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
        for (size_t r = 0; r < rows->count; r++)
            if (!is_dead(rows, r)) kith_idmap_append(&rows->map, kith_idrows_id(rows, r), r);
        rows->ids_rise = false;
    }
}

void kith_idrows_clear(kith_idrows *rows) {
    kith_chunks_trim(&rows->ids, 0, 0);
    kith_idmap_free(&rows->map);
    kith_deadset_clear(&rows->dead, NULL);
    rows->count = 0;
    rows->has_ids = false;
    rows->ids_rise = true;
    rows->first_id = 0;
}

/* How the ids of the live rows have to be kept, whatever form they have now: removals may leave ids that rise. */
static void form_of_live(const kith_idrows *rows, bool *stored, bool *rise) {
    int64_t first_id = 0, last_id = -1;
    size_t count = 0;
    *rise = true;
    for (size_t r = 0; r < rows->count && *rise; r++) {
        if (is_dead(rows, r)) continue;
        int64_t id = kith_idrows_id(rows, r);
        if (count++ == 0) first_id = id;
        *rise = count == 1 || id > last_id;
        last_id = id;
    }
    *stored = !*rise || (count > 0 && (uint64_t)(last_id - first_id) != (uint64_t)(count - 1));
}

static int64_t first_live_id(const kith_idrows *rows) {
    size_t row = 0;
    return live_run(rows, &row) > 0 ? kith_idrows_id(rows, row) : 0;
}

/* ---- Adding -------------------------------------------------------------------------------------------------- */

static int64_t new_id(const kith_addition *addition, size_t i) {
    return addition->ids != NULL ? addition->ids[i] : addition->first_id + (int64_t)i;
}

/* Finds the rows whose ids come again, and marks them. */
static kith_status plan_replaced(const kith_idrows *rows, int64_t next_id, kith_idrows_mode mode,
                                 kith_idrows_addition *plan) {
    const kith_addition *addition = plan->addition;
    if (mode != KITH_ROWS_UPDATE && addition->ids_rise && new_id(addition, 0) >= next_id) return KITH_OK;
    uint64_t *old = NULL;
    kith_status status;
    if (mode != KITH_ROWS_ADD) KITH_TRY(kith_alloc(addition->view.count, sizeof *old, &old));
    for (size_t i = 0; i < addition->view.count; i++) {
        uint64_t row;
        int64_t id = new_id(addition, i);
        bool held = kith_idrows_find_one(rows, id, &row);
        if (held && mode == KITH_ROWS_ADD)
            KITH_GO(kith_error(KITH_ERR_EXISTS, "add: id %lld is in the index already", (long long)id));
        if (!held && mode == KITH_ROWS_UPDATE)
            KITH_GO(kith_error(KITH_ERR_NOT_FOUND, "update: id %lld is not in the index", (long long)id));
        if (held) old[plan->replaced++] = row;
    }
    status = KITH_OK;
    if (plan->replaced > 0)
        KITH_GO(kith_deadset_plan(&rows->dead, old, plan->replaced, rows->ids.epoch, &plan->dead));
done:
    kith_free(old);
    return status;
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
                                  kith_idrows_mode mode, kith_idrows_addition *plan) {
    *plan = (kith_idrows_addition){
        .addition = addition, .had_map = rows->map.slot_count != 0, .had_chunks = rows->ids.chunk_count};
    KITH_TRY(plan_replaced(rows, next_id, mode, plan));
    size_t total;
    kith_status status;
    if (kith_add_overflows(rows->count, addition->view.count, &total))
        KITH_GO(kith_error(KITH_ERR_OVERFLOW, "add: %zu vectors to %zu", addition->view.count, rows->count));
    plan_form(rows, plan);
    KITH_GO(reserve(rows, total, plan->stored, plan->rise));
    return KITH_OK;
done:
    if (plan->replaced > 0) kith_deadset_drop(&rows->dead, &plan->dead);
    return status;
}

void kith_idrows_add_keep(kith_idrows *rows, const kith_idrows_addition *plan) {
    const kith_addition *addition = plan->addition;
    size_t count = rows->count, added = addition->view.count;
    settle(rows, plan->stored, plan->rise);
    if (count == 0 && !plan->stored) rows->first_id = new_id(addition, 0);
    for (size_t i = 0; i < added && plan->stored; i++)
        *(int64_t *)kith_chunks_at(&rows->ids, count + i) = new_id(addition, i);
    for (size_t i = 0; i < added && !plan->rise; i++) kith_idmap_append(&rows->map, new_id(addition, i), count + i);
    rows->count = count + added;
    if (plan->replaced > 0) kith_deadset_keep(&rows->dead, &plan->dead, rows->ids.epoch);
}

void kith_idrows_add_drop(kith_idrows *rows, const kith_idrows_addition *plan) {
    give_back(rows, plan->had_chunks, plan->had_map);
    if (plan->replaced > 0) kith_deadset_drop(&rows->dead, &plan->dead);
}

/* ---- Merging ------------------------------------------------------------------------------------------------- */

kith_status kith_idrows_merge_begin(kith_idrows *rows, int64_t next_id, const kith_idrows *from, int64_t shift,
                                    kith_idrows_merger *merger) {
    size_t count = kith_idrows_live(from);
    *merger = (kith_idrows_merger){.addition = {
                                       .view.count = count,
                                       .first_id = first_live_id(from) + shift,
                                       .ids_rise = from->ids_rise,
                                   }};
    if (from->has_ids || from->dead.count > 0) {
        KITH_TRY(kith_alloc(count, sizeof *merger->ids, &merger->ids));
        kith_idrows_list(from, merger->ids);
        for (size_t i = 0; i < count; i++) merger->ids[i] += shift;
        merger->addition.ids = merger->ids;
    }
    kith_status status = kith_idrows_add_begin(rows, next_id, &merger->addition, KITH_ROWS_ADD, &merger->plan);
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

kith_status kith_idrows_remove_begin(kith_idrows *rows, const int64_t *ids, size_t count,
                                     kith_idrows_removal *removal) {
    *removal = (kith_idrows_removal){0};
    uint64_t *found = NULL;
    int64_t *gone = NULL;
    kith_status status;
    KITH_GO(kith_alloc(count, sizeof *found, &found));
    KITH_GO(kith_alloc(count, 2 * sizeof *gone, &gone));
    KITH_GO(kith_idrows_find(rows, ids, count, found));
    size_t found_count = 0;
    for (size_t i = 0; i < count; i++)
        if (found[i] != KITH_NO_ROW) gone[found_count++] = (int64_t)found[i];
    if (!kith_rises_i64(gone, found_count)) kith_sort_i64(gone, found_count, gone + count);
    for (size_t i = 0; i < found_count; i++) /* ids may stand twice */
        if (i == 0 || gone[i] != gone[i - 1]) found[removal->count++] = (uint64_t)gone[i];
    KITH_GO(kith_deadset_plan(&rows->dead, found, removal->count, rows->ids.epoch, &removal->dead));
done:
    kith_free(gone);
    kith_free(found);
    return status;
}

void kith_idrows_remove_keep(kith_idrows *rows, const kith_idrows_removal *removal) {
    kith_deadset_keep(&rows->dead, &removal->dead, rows->ids.epoch);
}

void kith_idrows_remove_drop(kith_idrows *rows, const kith_idrows_removal *removal) {
    kith_deadset_drop(&rows->dead, &removal->dead);
}

/* ---- Writing anew -------------------------------------------------------------------------------------------- */

enum { DEAD_SHARE = 4, DEAD_MIN = 64 }; /* dead rows, so many at least, among so many, are taken out */

/* The ids and the map in the form that they need; no row is dead. */
static kith_status compact_ids(kith_idrows *rows) {
    bool stored, rise;
    kith_idmap map = {.epoch = rows->map.epoch};
    form_of_live(rows, &stored, &rise);
    KITH_TRY(kith_epoch_reserve(rows->ids.epoch, kith_chunks_blocks(&rows->ids) + 1));
    if (!rise) {
        KITH_TRY(kith_idmap_reserve(&map, rows->count));
        for (size_t r = 0; r < rows->count; r++) kith_idmap_append(&map, kith_idrows_id(rows, r), r);
    }
    kith_idmap_retire(&rows->map);
    rows->map = map;
    rows->ids_rise = rise;
    rows->first_id = first_live_id(rows);
    if (rows->has_ids && !stored) kith_chunks_retire(&rows->ids);
    rows->has_ids = rows->has_ids && stored;
    kith_chunks_trim(&rows->ids, rows->has_ids ? rows->count : 0, 0);
    return KITH_OK;
}

/* The live rows, in `fresh`, take the place of all rows, whose memory is retired. */
static void replace_rows(kith_idrows *rows, const kith_row_tables *tables, const kith_idrows *fresh,
                         const kith_chunks *fresh_tables) {
    kith_epoch *epoch = rows->ids.epoch;
    for (size_t t = 0; t < tables->count; t++) {
        kith_chunks old = *tables->tables[t];
        *tables->tables[t] = fresh_tables[t];
        tables->tables[t]->epoch = epoch;
        kith_chunks_retire(&old);
    }
    kith_idrows old = *rows;
    *rows = *fresh;
    kith_idrows_set_epoch(rows, epoch);
    kith_chunks_retire(&old.ids);
    kith_idmap_retire(&old.map);
    kith_deadset_clear(&old.dead, epoch);
}

static kith_status compact_rows(kith_idrows *rows, const kith_row_tables *tables) {
    kith_chunks chunks[KITH_ROW_TABLES_MAX];
    kith_chunks *fresh_tables[KITH_ROW_TABLES_MAX];
    const kith_chunks *old_tables[KITH_ROW_TABLES_MAX];
    kith_idrows fresh;
    size_t blocks = kith_chunks_blocks(&rows->ids) + 1 + kith_deadset_blocks(&rows->dead);
    kith_idrows_init(&fresh);
    for (size_t t = 0; t < tables->count; t++) {
        kith_chunks_init(&chunks[t], tables->tables[t]->item_bytes);
        fresh_tables[t] = &chunks[t];
        old_tables[t] = tables->tables[t];
        blocks += kith_chunks_blocks(tables->tables[t]);
    }
    kith_status status = kith_epoch_reserve(rows->ids.epoch, blocks);
    if (status == KITH_OK) status = kith_idrows_copy(rows, old_tables, &fresh, fresh_tables, tables->count);
    if (status == KITH_OK) {
        replace_rows(rows, tables, &fresh, chunks);
        return KITH_OK;
    }
    for (size_t t = 0; t < tables->count; t++) kith_chunks_free(&chunks[t]);
    kith_idrows_free(&fresh);
    return status;
}

kith_status kith_idrows_compact(kith_idrows *rows, const kith_row_tables *tables) {
    if (rows->dead.count > 0) return compact_rows(rows, tables);
    KITH_TRY(compact_ids(rows));
    for (size_t t = 0; t < tables->count; t++) kith_chunks_trim(tables->tables[t], rows->count, 0);
    return KITH_OK;
}

void kith_idrows_compact_when_due(kith_idrows *rows, const kith_row_tables *tables) {
    size_t dead = rows->dead.count;
    if (dead == 0) return;
    if (dead == rows->count || (dead >= DEAD_MIN && dead > rows->count / DEAD_SHARE))
        (void)kith_idrows_compact(rows, tables);
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

static kith_status copy_behind(const kith_chunks *from, size_t count, kith_chunks *to, size_t first,
                               size_t threads) {
    KITH_TRY(kith_chunks_reserve(to, first + count));
    if (count == 0) return KITH_OK;
    copy_loop loop = {from, to, first, count, kith_rows_per_item(to->item_bytes)};
    size_t pieces = (count - 1) / loop.items_per_piece + 1;
    return kith_parallel_for(threads, pieces, copy_piece, &loop);
}

kith_status kith_chunks_copy(const kith_chunks *from, size_t count, kith_chunks *to, size_t threads) {
    return copy_behind(from, count, to, 0, threads);
}

kith_status kith_chunks_append(const kith_chunks *from, size_t count, kith_chunks *to, size_t first) {
    return copy_behind(from, count, to, first, kith_threads_default());
}

kith_status kith_idrows_append(const kith_idrows *from, const kith_chunks *from_table, kith_chunks *to,
                               size_t first) {
    if (from->dead.count == 0) return kith_chunks_append(from_table, from->count, to, first);
    KITH_TRY(kith_chunks_reserve(to, first + kith_idrows_live(from)));
    for (size_t row = 0, live; (live = live_run(from, &row)) > 0;) {
        for (size_t end = row + live, run, to_run; row < end; row += run, first += run) {
            const void *source = kith_chunks_run(from_table, row, &run);
            void *at = kith_chunks_run(to, first, &to_run);
            run = kith_min_size(kith_min_size(run, to_run), end - row);
            memcpy(at, source, run * to->item_bytes);
        }
    }
    return KITH_OK;
}

/* The ids of live rows, and a map of them unless they rise. */
static kith_status copy_ids(const kith_idrows *from, kith_idrows *to) {
    bool stored = from->has_ids, rise = from->ids_rise;
    if (from->dead.count > 0) form_of_live(from, &stored, &rise);
    KITH_TRY(reserve(to, kith_idrows_live(from), stored, rise));
    for (size_t row = 0, live; (stored || !rise) && (live = live_run(from, &row)) > 0;)
        for (size_t end = row + live; row < end; row++) {
            int64_t id = kith_idrows_id(from, row);
            if (stored) *(int64_t *)kith_chunks_at(&to->ids, to->count) = id;
            if (!rise) kith_idmap_append(&to->map, id, to->count);
            to->count++;
        }
    to->count = kith_idrows_live(from);
    to->has_ids = stored;
    to->ids_rise = rise;
    to->first_id = from->dead.count > 0 ? first_live_id(from) : from->first_id;
    return KITH_OK;
}

kith_status kith_idrows_copy(const kith_idrows *from, const kith_chunks *const *from_tables, kith_idrows *to,
                             kith_chunks *const *to_tables, size_t table_count) {
    for (size_t t = 0; t < table_count; t++)
        if (from_tables[t]->room > 0) KITH_TRY(kith_idrows_append(from, from_tables[t], to_tables[t], 0));
    return copy_ids(from, to);
}

/* ---- Files --------------------------------------------------------------------------------------------------- */

enum { META_BYTES = 16, VERSION = 1 };

kith_status kith_chunks_save(const kith_chunks *chunks, size_t count, const char *tag, uint32_t instance,
                             uint32_t flags, kith_container_writer *writer) {
    KITH_TRY(kith_container_writer_begin(writer, tag, instance, VERSION, flags));
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

kith_status kith_idrows_save_table(const kith_idrows *rows, const kith_chunks *table, const char *tag,
                                   uint32_t instance, kith_container_writer *writer) {
    KITH_TRY(kith_container_writer_begin(writer, tag, instance, VERSION, 0));
    for (size_t row = 0, live; (live = live_run(rows, &row)) > 0;)
        for (size_t end = row + live, run; row < end; row += run) {
            const void *at = kith_chunks_run(table, row, &run);
            run = kith_min_size(run, end - row);
            KITH_TRY(kith_container_writer_write(writer, at, run * table->item_bytes));
        }
    return KITH_OK;
}

/* The ids of live rows that are not stored. */
static kith_status save_counted(const kith_idrows *rows, const char *tag, uint32_t instance,
                                kith_container_writer *writer) {
    int64_t ids[256];
    size_t room = sizeof ids / sizeof *ids, count = 0;
    KITH_TRY(kith_container_writer_begin(writer, tag, instance, VERSION, 0));
    for (size_t r = 0; r < rows->count; r++) {
        if (is_dead(rows, r)) continue;
        ids[count++] = kith_idrows_id(rows, r);
        if (count < room) continue;
        KITH_TRY(kith_container_writer_write(writer, ids, sizeof ids));
        count = 0;
    }
    return count > 0 ? kith_container_writer_write(writer, ids, count * sizeof *ids) : KITH_OK;
}

kith_status kith_idrows_save(const kith_idrows *rows, const kith_idrows_tags *tags, uint32_t instance,
                             kith_container_writer *writer) {
    unsigned char meta[META_BYTES];
    bool stored, rise;
    form_of_live(rows, &stored, &rise);
    if (rows->dead.count == 0) stored = rows->has_ids;
    kith_put_u64(meta, stored ? 0 : (uint64_t)(rows->dead.count > 0 ? first_live_id(rows) : rows->first_id));
    kith_put_u32(meta + 8, stored);
    kith_put_u32(meta + 12, rise);
    KITH_TRY(kith_container_writer_add(writer, tags->meta, instance, meta, sizeof meta));
    if (!stored) return KITH_OK;
    return rows->has_ids ? kith_idrows_save_table(rows, &rows->ids, tags->ids, instance, writer)
                         : save_counted(rows, tags->ids, instance, writer);
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
