/* SPDX-License-Identifier: Apache-2.0
 *
 * idrows.h: which id each row of a table has, and which row an id.
 *
 * Rows are only ever appended, until the live ones among them are written anew: a removal marks its row dead, an update
 * appends a row and marks the old one. So a copy of the struct stays good for searches beside changes (live.h). Three
 * things about ids follow:
 *   - Row r has the id first_id + r as long as vectors were only ever added in that order: no ids are stored. The first
 *     id out of turn writes them out.
 *   - As long as the stored ids rise with the rows, an id is found by binary search.
 *   - Once they do not, an id map is kept in memory, in which an id may have several rows, of which one at most is live.
 *     A mapped file has none: there the ids are scanned.
 *
 * The owner has the tables of what else there is to a row. Changes come in two steps: what may fail, with nothing changed
 * that anybody could see, and what cannot.
 */
#ifndef KITH_INDEX_IDROWS_H
#define KITH_INDEX_IDROWS_H

#include "base/chunks.h"
#include "base/deadset.h"
#include "base/idmap.h"
#include "index/vtable.h"

typedef struct kith_idrows {
    size_t count;      /* rows, dead ones among them */
    kith_deadset dead; /* not of a mapped file */
    kith_chunks ids;   /* int64_t each, where has_ids */
    int64_t first_id;  /* else row r has the id first_id + r */
    bool has_ids;
    bool ids_rise;  /* each row's id is larger than the one before */
    bool is_mapped; /* the ids lie in a file */
    kith_idmap map; /* in memory: of all rows, exactly when ids do not rise */
} kith_idrows;

void kith_idrows_init(kith_idrows *rows);
void kith_idrows_free(kith_idrows *rows);

/* What the vtable's set_epoch asks for. */
void kith_idrows_set_epoch(kith_idrows *rows, kith_epoch *epoch);

/* Adds to *bytes what an empty table takes once it holds `count` ids that do not rise. KITH_ERR_OVERFLOW. */
kith_status kith_idrows_bytes_for(size_t count, uint64_t *bytes);

/* ---- Looking up ---------------------------------------------------------------------------------------------- */

static inline size_t kith_idrows_live(const kith_idrows *rows) { return rows->count - rows->dead.count; }
/* The dead rows, or NULL where there are none. */
static inline const kith_deadset *kith_idrows_dead(const kith_idrows *rows) {
    return rows->dead.count > 0 ? &rows->dead : NULL;
}

static inline int64_t kith_idrows_id(const kith_idrows *rows, size_t row) {
    return rows->has_ids ? *(const int64_t *)kith_chunks_at(&rows->ids, row) : rows->first_id + (int64_t)row;
}

/* Whether kith_idrows_find_one works: not for mapped ids that do not rise. */
static inline bool kith_idrows_can_find(const kith_idrows *rows) { return rows->ids_rise || !rows->is_mapped; }
/* The live row of an id. */
bool kith_idrows_find_stored(const kith_idrows *rows, int64_t id, uint64_t *row);
static inline bool kith_idrows_find_one(const kith_idrows *rows, int64_t id, uint64_t *row) {
    if (rows->has_ids || rows->dead.count > 0) return kith_idrows_find_stored(rows, id, row);
    *row = (uint64_t)id - (uint64_t)rows->first_id;
    return id >= rows->first_id && *row < rows->count;
}

/* Writes the ids of all live rows. */
void kith_idrows_list(const kith_idrows *rows, int64_t *ids);
/* Writes the row of each id, KITH_NO_ROW for those that are not there. Works always. */
#define KITH_NO_ROW UINT64_MAX
kith_status kith_idrows_find(const kith_idrows *rows, const int64_t *ids, size_t count, uint64_t *out);
/* Which of the ids are there. */
kith_status kith_idrows_holds(const kith_idrows *rows, const int64_t *ids, size_t count, bool *held);
/* The same; KITH_ERR_NOT_FOUND names the first id that is not there. */
kith_status kith_idrows_need(const char *what, const kith_idrows *rows, const int64_t *ids, size_t count,
                             uint64_t *out);

/* ---- Adding and replacing ------------------------------------------------------------------------------------ */

/* What new vectors are to ids that are held. */
typedef enum kith_idrows_mode {
    KITH_ROWS_ADD,    /* KITH_ERR_EXISTS for an id that is held */
    KITH_ROWS_UPDATE, /* KITH_ERR_NOT_FOUND for one that is not */
    KITH_ROWS_UPSERT  /* either */
} kith_idrows_mode;

/* How the ids will have to be kept, and what was there before. */
typedef struct kith_idrows_addition {
    const kith_addition *addition;
    bool stored, rise;
    bool had_map;
    size_t had_chunks;
    size_t replaced;   /* rows that will be dead */
    kith_deadset dead; /* with these, where there are some */
} kith_idrows_addition;

/* Finds the rows that the new ones take the place of, and makes room for the new ones, which are to be the rows from
 * rows->count on. Ends with one of the next two. */
kith_status kith_idrows_add_begin(kith_idrows *rows, int64_t next_id, const kith_addition *addition,
                                  kith_idrows_mode mode, kith_idrows_addition *plan);
void kith_idrows_add_keep(kith_idrows *rows, const kith_idrows_addition *plan);
void kith_idrows_add_drop(kith_idrows *rows, const kith_idrows_addition *plan);

/* The live rows of another table, each under its id + shift, as an addition. */
typedef struct kith_idrows_merger {
    kith_addition addition;
    kith_idrows_addition plan;
    int64_t *ids;
} kith_idrows_merger;

/* `from` has live rows; ids + shift do not overflow. Ends with one of the next two. */
kith_status kith_idrows_merge_begin(kith_idrows *rows, int64_t next_id, const kith_idrows *from, int64_t shift,
                                    kith_idrows_merger *merger);
void kith_idrows_merge_keep(kith_idrows *rows, kith_idrows_merger *merger);
void kith_idrows_merge_drop(kith_idrows *rows, kith_idrows_merger *merger);

/* ---- Removing ------------------------------------------------------------------------------------------------ */

typedef struct kith_idrows_removal {
    kith_deadset dead; /* with the rows that go */
    size_t count;      /* of these */
} kith_idrows_removal;

/* Marks the rows of those ids that are there. Ends with one of the next two. */
kith_status kith_idrows_remove_begin(kith_idrows *rows, const int64_t *ids, size_t count,
                                     kith_idrows_removal *removal);
void kith_idrows_remove_keep(kith_idrows *rows, const kith_idrows_removal *removal);
void kith_idrows_remove_drop(kith_idrows *rows, const kith_idrows_removal *removal);

/* No rows any more: ids may start anywhere. Nobody reads a copy. */
void kith_idrows_clear(kith_idrows *rows);

/* ---- Writing anew -------------------------------------------------------------------------------------------- */

enum { KITH_ROW_TABLES_MAX = 2 };

/* The owner's tables, as many items each as there are rows; one that is not used has none. */
typedef struct kith_row_tables {
    kith_chunks *tables[KITH_ROW_TABLES_MAX];
    size_t count;
} kith_row_tables;

/* Writes the live rows anew where some are dead, in their order, and keeps no more of tables, ids and map than they
 * need. On failure as before. */
kith_status kith_idrows_compact(kith_idrows *rows, const kith_row_tables *tables);
/* The same once a share of the rows are dead; when memory fails they stay for now. */
void kith_idrows_compact_when_due(kith_idrows *rows, const kith_row_tables *tables);
/* A copy of the live rows: what from_tables[i] has of them goes to to_tables[i], which is empty, for i < table_count. What
 * was copied is freed by the caller, after a failure too. */
kith_status kith_idrows_copy(const kith_idrows *from, const kith_chunks *const *from_tables, kith_idrows *to,
                             kith_chunks *const *to_tables, size_t table_count);
/* Copies what a table of the owner has of the live rows behind the first `first` items of another one. */
kith_status kith_idrows_append(const kith_idrows *from, const kith_chunks *from_table, kith_chunks *to,
                               size_t first);

/* ---- Copies and files ---------------------------------------------------------------------------------------- */

/* Copies `count` items of one array to another. */
kith_status kith_chunks_copy(const kith_chunks *from, size_t count, kith_chunks *to, size_t threads);
/* The same to the items from `first` on, on all processors. */
kith_status kith_chunks_append(const kith_chunks *from, size_t count, kith_chunks *to, size_t first);

/* Where the ids stand in a file:
 *   meta  16 bytes: first_id u64; has_ids u32, 0 or 1; ids_rise u32, 0 or 1
 *   ids   with has_ids only: count x i64, the live rows' ids, distinct, from 0 up to below next_id
 * Numbers are little-endian. Without has_ids row r has the id first_id + r, and ids_rise is 1. */
typedef struct kith_idrows_tags {
    const char *meta, *ids;
} kith_idrows_tags;

kith_status kith_idrows_save(const kith_idrows *rows, const kith_idrows_tags *tags, uint32_t instance,
                             kith_container_writer *writer);
/* In place. `rows` is initialised; next_id as in INDXMETA. */
kith_status kith_idrows_open(kith_container *file, const kith_idrows_tags *tags, uint32_t instance, size_t count,
                             int64_t next_id, kith_idrows *rows);
/* Checks every id of a mapped table; `index` is for messages. */
kith_status kith_idrows_verify(const kith_index *index, const kith_idrows *rows, const kith_idrows_tags *tags,
                               uint32_t instance);
/* A section that holds what a table of the owner has of the live rows. */
kith_status kith_idrows_save_table(const kith_idrows *rows, const kith_chunks *table, const char *tag,
                                   uint32_t instance, kith_container_writer *writer);
/* A section that holds `count` items of an array, with the flags of io/container.h, and the same in place. */
kith_status kith_chunks_save(const kith_chunks *chunks, size_t count, const char *tag, uint32_t instance,
                             uint32_t flags, kith_container_writer *writer);
kith_status kith_chunks_open(kith_container *file, const char *tag, uint32_t instance, size_t count,
                             kith_chunks *chunks);
/* KITH_ERR_FORMAT: content of a section of a mapped index. */
kith_status kith_content_error(const kith_index *index, const char *tag, uint32_t instance, const char *what);

#endif
