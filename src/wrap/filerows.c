/* SPDX-License-Identifier: Apache-2.0
 *
 * filerows.c: rows of a vector file. In an index file the part is one section:
 *
 *   FILEROWS  version 1, 32 bytes, little-endian: what the vector file has to be
 *      0  u64  rows; 0: none was attached yet, and all others are 0
 *      8  u32  dimension
 *     12  u32  element type, kith_dtype
 *     16  u64  XXH3 of up to 256 of its rows, evenly spread, the first and the last among them
 *     24  u64  0
 *
 * No path stands there: an index file that comes from elsewhere opens nothing. The caller names the vectors.
 */
#include "wrap/filerows.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/error.h"
#include "exact/exact.h"
#include "index/convert.h"
#include "index/rescore.h"
#include "io/mappedfile.h"
#include "kith/vectors.h"

enum { HEAD_BYTES = 32, HEAD_VERSION = 1, MARKED_ROWS = 256 };
static const char head_tag[] = "FILEROWS";

/* What tells one vector file from another. */
typedef struct mark {
    uint64_t rows, hash;
    kith_dtype dtype;
} mark;

typedef struct filerows {
    kith_index base;
    mark mark;
    char *path; /* NULL: no file is attached */
    kith_vectors *file;
    kith_view rows;
    kith_chunks table; /* of the rows, for kith_rescore */
    kith_idrows ids;   /* 0, 1, 2, ... */
} filerows;

static filerows *of(kith_index *index) { return (filerows *)index; }
static const filerows *of_const(const kith_index *index) { return (const filerows *)index; }

struct kith_staged {
    kith_change_kind kind;
};

/* ---- The file ------------------------------------------------------------------------------------------------ */

static void detach(filerows *own) {
    kith_chunks_free(&own->table);
    kith_vectors_close(own->file);
    kith_free(own->path);
    own->file = NULL;
    own->path = NULL;
}

static uint64_t hash_rows(const kith_view *rows) {
    XXH3_state_t state;
    size_t bytes = kith_dtype_row_bytes(rows->dtype, rows->dim), last = rows->count - 1;
    size_t count = kith_min_size(rows->count, MARKED_ROWS);
    (void)XXH3_64bits_reset(&state);
    for (size_t i = 0; i < count; i++) {
        size_t step = count > 1 ? last / (count - 1) : 0, row = i + 1 < count ? i * step : last;
        (void)XXH3_64bits_update(&state, kith_view_row(rows, row), bytes);
    }
    return XXH3_64bits_digest(&state);
}

static kith_status check_mark(const filerows *own, const char *path, const mark *found) {
    const mark *wanted = &own->mark;
    if (wanted->rows == 0) return KITH_OK;
    if (found->rows != wanted->rows || found->dtype != wanted->dtype)
        return kith_error(KITH_ERR_FORMAT, "%s: %llu rows of %s, the index was made with %llu of %s", path,
                          (unsigned long long)found->rows, kith_dtype_name(found->dtype),
                          (unsigned long long)wanted->rows, kith_dtype_name(wanted->dtype));
    if (found->hash != wanted->hash)
        return kith_error(KITH_ERR_FORMAT, "%s: other rows than those that the index was made with", path);
    return KITH_OK;
}

/* Opens a file into `own`, whose file members are zero, but for the mark. */
static kith_status attach(filerows *own, const char *path) {
    KITH_TRY(kith_vectors_open(path, NULL, &own->file));
    size_t count = kith_vectors_count(own->file), dim = kith_vectors_dim(own->file);
    kith_dtype dtype = kith_vectors_dtype(own->file);
    if (count == 0) return kith_error(KITH_ERR_EMPTY, "%s: has no rows", path);
    if (dim != own->base.dim)
        return kith_error(KITH_ERR_DIMENSION, "%s: dimension %zu, the index has %zu", path, dim, own->base.dim);
    if (dtype < KITH_F32 || dtype > KITH_U8)
        return kith_error(KITH_ERR_TYPE, "%s: elements of type %s; needs f32, f16, bf16, i8 or u8", path,
                          kith_dtype_name(dtype));
    KITH_TRY(kith_vectors_rows(own->file, 0, count, &own->rows));
    own->rows.stride = kith_view_stride(&own->rows);
    kith_mappedfile_expect_random(own->rows.data, count * own->rows.stride);
    const mark found = {count, hash_rows(&own->rows), dtype};
    KITH_TRY(check_mark(own, path, &found));
    KITH_TRY(kith_chunks_borrow(&own->table, own->rows.stride, own->rows.data, count));
    kith_idrows_init(&own->ids);
    own->ids.count = count;
    own->mark = found;
    size_t bytes = strlen(path) + 1;
    KITH_TRY(kith_alloc(bytes, 1, &own->path));
    memcpy(own->path, path, bytes);
    return KITH_OK;
}

kith_status kith_filerows_attach(kith_index *index, const char *path) {
    filerows *own = of(index), fresh = {.base = *index, .mark = own->mark};
    kith_status status = attach(&fresh, path);
    if (status != KITH_OK) {
        detach(&fresh);
        return status;
    }
    detach(own);
    *own = fresh;
    return KITH_OK;
}

static kith_status need_file(const char *what, const filerows *own) {
    if (own->file != NULL) return KITH_OK;
    return kith_error(KITH_ERR_NOT_FOUND, "%s: the index needs the file of its vectors: kith_index_attach_vectors",
                      what);
}

size_t kith_filerows_count(const kith_index *index) { return (size_t)of_const(index)->mark.rows; }

/* ---- Life ---------------------------------------------------------------------------------------------------- */

static void release(kith_index *index) {
    detach(of(index));
    kith_free(index);
}

static const kith_index_vtable filerows_vtable;

bool kith_filerows_is(const kith_index *index) { return index->vtable == &filerows_vtable; }

bool kith_filerows_is_named(const kith_spec_part *first) { return kith_spec_part_is(first, KITH_FILEROWS_NAME); }

static kith_status make(size_t dim, kith_metric metric, filerows **out) {
    KITH_TRY(kith_alloc_zeroed(1, sizeof **out, out));
    kith_index_init(&(*out)->base, &filerows_vtable, dim, metric, KITH_F32, KITH_FILEROWS_NAME);
    return KITH_OK;
}

kith_status kith_filerows_create(const kith_spec *spec, size_t dim, kith_metric metric, kith_index **out) {
    if (spec->part_count > 1) return kith_spec_error(spec->text, spec->parts[1].offset, "nothing can follow File");
    filerows *own;
    KITH_TRY(make(dim, metric, &own));
    *out = &own->base;
    return KITH_OK;
}

static kith_status clone(const kith_index *index, kith_index **out) {
    const filerows *own = of_const(index);
    filerows *copy;
    KITH_TRY(make(index->dim, index->metric, &copy));
    copy->mark = own->mark;
    copy->base.count = index->count;
    kith_status status = own->path != NULL ? kith_filerows_attach(&copy->base, own->path) : KITH_OK;
    if (status != KITH_OK)
        release(&copy->base);
    else
        *out = &copy->base;
    return status;
}

/* Rows in the file are not memory: the system takes their pages away when it needs them. */
static size_t memory(const kith_index *index, kith_memory_part *parts, size_t capacity) {
    (void)index;
    if (capacity > 0) parts[0] = (kith_memory_part){"fixed", sizeof(filerows)};
    return 1;
}

/* ---- Changes ------------------------------------------------------------------------------------------------- */

/* What is added has to be what the file has under those numbers. */
static kith_status check_added(const filerows *own, const kith_addition *addition) {
    const kith_view *view = &addition->view;
    size_t dim = view->dim;
    float *rows;
    KITH_TRY(need_file("add", own));
    KITH_TRY(kith_alloc(2, dim * sizeof *rows, &rows));
    kith_status status = KITH_OK;
    for (size_t i = 0; i < view->count && status == KITH_OK; i++) {
        int64_t id = addition->ids != NULL ? addition->ids[i] : addition->first_id + (int64_t)i;
        if ((uint64_t)id >= own->mark.rows) {
            status = kith_error(KITH_ERR_RANGE, "add: id %lld is no row of %s, which has %llu", (long long)id,
                                own->path, (unsigned long long)own->mark.rows);
            break;
        }
        kith_exact_to_f32(kith_view_row(view, i), view->dtype, dim, rows);
        kith_exact_to_f32(kith_view_row(&own->rows, (size_t)id), own->rows.dtype, dim, rows + dim);
        if (memcmp(rows, rows + dim, dim * sizeof *rows) != 0)
            status =
                kith_error(KITH_ERR_ARGUMENT, "add: vector %zu is not row %lld of %s", i, (long long)id, own->path);
    }
    kith_free(rows);
    return status;
}

static kith_status check_change(const filerows *own, const kith_change *change) {
    switch (change->kind) {
        case KITH_CHANGE_ADD: return check_added(own, change->addition);
        case KITH_CHANGE_UPDATE:
            return kith_error(KITH_ERR_READ_ONLY, "update: the vectors of the index lie in a file");
        case KITH_CHANGE_UPSERT:
            return kith_error(KITH_ERR_UNSUPPORTED,
                              "upsert: the vectors of the index lie in a file; add and remove");
        case KITH_CHANGE_MERGE:
            return kith_error(KITH_ERR_UNSUPPORTED, "merge: the ids of the index are rows of its file");
        default: return KITH_OK;
    }
}

static kith_status stage(kith_index *index, const kith_change *change, kith_staged **out) {
    KITH_TRY(check_change(of(index), change));
    return kith_alloc_zeroed(1, sizeof **out, out);
}

static void settle(kith_index *index, kith_staged *staged, bool keep) {
    (void)index, (void)keep;
    kith_free(staged);
}

static void reset(kith_index *index) { index->count = 0; }

static kith_status reconstruct(const kith_index *index, const int64_t *ids, size_t count, float *out) {
    const filerows *own = of_const(index);
    KITH_TRY(need_file("reconstruct", own));
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || (uint64_t)ids[i] >= own->mark.rows)
            return kith_error(KITH_ERR_NOT_FOUND, "reconstruct: id %lld is not in the index", (long long)ids[i]);
    for (size_t i = 0; i < count; i++)
        kith_exact_to_f32(kith_view_row(&own->rows, (size_t)ids[i]), own->rows.dtype, index->dim,
                          out + i * index->dim);
    return KITH_OK;
}

/* ---- Comparing again ----------------------------------------------------------------------------------------- */

typedef struct scoring {
    const filerows *own;
    kith_exact *exact;
} scoring;

/* Norms are not stored: a row that is read anyway gives its own. */
static void keys_of(const void *context, size_t query, size_t worker, const void *const rows[4],
                    const float norms[4], int32_t keys[4]) {
    (void)worker, (void)norms;
    const scoring *s = context;
    float own[4] = {0};
    for (size_t r = 0; r < 4 && s->own->base.metric == KITH_COSINE; r++)
        own[r] = kith_exact_inverse_norm(rows[r], s->own->rows.dtype, s->own->base.dim);
    kith_exact_four(s->exact, query, rows, own, keys);
}

static float value_of(const void *context, int32_t key) {
    return kith_exact_value(((const scoring *)context)->exact, key);
}

static kith_status rescore(const kith_index *index, const kith_search_request *request,
                           const kith_candidates *candidates, const kith_search_results *results) {
    const filerows *own = of_const(index);
    KITH_TRY(need_file("search", own));
    const kith_exact_request exact_request = {
        .queries = request->queries,
        .metric = index->metric,
        .row_dtype = own->rows.dtype,
        .threads = request->threads,
        .gathers = true,
        .arena = request->arena,
    };
    scoring s = {.own = own};
    KITH_TRY(kith_exact_open(&exact_request, &s.exact));
    const kith_rescoring rescoring = {
        .index = index, .ids = &own->ids, .rows = &own->table, .keys = keys_of, .value = value_of, .context = &s};
    return kith_rescore(&rescoring, request, candidates, results);
}

/* ---- Files --------------------------------------------------------------------------------------------------- */

static kith_status save(const kith_index *index, kith_container_writer *writer, uint32_t *part) {
    const mark *m = &of_const(index)->mark;
    unsigned char head[HEAD_BYTES] = {0};
    kith_put_u64(head, m->rows);
    kith_put_u32(head + 8, m->rows != 0 ? (uint32_t)index->dim : 0);
    kith_put_u32(head + 12, (uint32_t)m->dtype);
    kith_put_u64(head + 16, m->hash);
    return kith_container_writer_add(writer, head_tag, (*part)++, head, sizeof head);
}

static kith_status read_head(kith_container *file, uint32_t part, const kith_index_meta *meta, mark *out) {
    const kith_section *section;
    KITH_TRY(kith_container_need(file, head_tag, part, HEAD_VERSION, &section));
    if (section->bytes != HEAD_BYTES)
        return kith_section_error(file, section, "has %zu bytes, not %d", section->bytes, HEAD_BYTES);
    const unsigned char *head = section->data;
    uint64_t rows = kith_get_u64(head), hash = kith_get_u64(head + 16);
    uint32_t dim = kith_get_u32(head + 8), dtype = kith_get_u32(head + 12);
    if (kith_get_u64(head + 24) != 0) return kith_section_error(file, section, "what has to be zero is not");
    if (rows > (uint64_t)KITH_ID_MAX || rows > SIZE_MAX || rows < meta->count)
        return kith_section_error(file, section, "%llu rows for %zu vectors", (unsigned long long)rows,
                                  meta->count);
    bool is_known = dtype >= KITH_F32 && dtype <= KITH_U8;
    if (rows == 0 ? dim != 0 || dtype != 0 || hash != 0 : dim != meta->dim || !is_known)
        return kith_section_error(file, section, "%llu rows of dimension %u and element type %u",
                                  (unsigned long long)rows, dim, dtype);
    *out = (mark){rows, hash, (kith_dtype)dtype};
    return KITH_OK;
}

kith_status kith_filerows_open(kith_container *file, uint32_t *part, const kith_index_meta *meta,
                               const kith_spec *spec, kith_index **out) {
    filerows *own;
    mark found;
    (void)spec;
    KITH_TRY(read_head(file, (*part)++, meta, &found));
    KITH_TRY(make(meta->dim, meta->metric, &own));
    own->mark = found;
    own->base.count = meta->count;
    own->base.next_id = meta->next_id;
    own->base.is_mapped = true;
    *out = &own->base;
    return KITH_OK;
}

static kith_status verify(const kith_index *index) {
    (void)index; /* the head was checked when it was read */
    return KITH_OK;
}

static bool shares_rescore(const kith_index *index) { return kith_idrows_can_find(&of_const(index)->ids); }

static const kith_index_vtable filerows_vtable = {
    .name = KITH_FILEROWS_NAME,
    .struct_bytes = sizeof(filerows),
    .concurrent = true,
    .release = release,
    .clone = clone,
    .memory = memory,
    .reset = reset,
    .reconstruct = reconstruct,
    .save = save,
    .verify = verify,
    .stage = stage,
    .settle = settle,
    .rescore = rescore,
    .shares_rescore = shares_rescore,
};
