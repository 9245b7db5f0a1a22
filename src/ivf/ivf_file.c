/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_file.c: the sections of inverted lists, all of version 1. Numbers are little-endian.
 *
 *   IVFLMETA  24 bytes: list_count u64, 0 when it is not known yet; id_bytes u32, 4 or 8; has_projected u32, 0 or 1;
 *             has_coarse_code u32, 0 or 1; zero u32
 *
 * when trained, with a coarse step ("IVF...") only:
 *   IVFLCENT  list_count x dim f32: the centroids
 *   IVFLPROJ  with has_projected only: list_count x projected_dim f32: the centroids in the code's own space
 *   IVFLCOAR  with has_coarse_code only: the blocks of the centroids' codes
 *
 * when trained:
 *   IVFLSIZE  list_count x u64: how many vectors each list has; with two copies ("IVF1024s") list_count x 2: first
 *             copies, second copies. All that follows takes these as lists of their own
 *   IVFLCODE  blocks of 32 codes as kith_layout_next lays lists of these sizes out (docs/format.md); lanes without a
 *             code are zero. Of raw codes count rows, list after list
 *   IVFLNIDS  count x copies x u32 or u64, as id_bytes says: ids, list after list, distinct, from 0 up to below next_id
 *
 * The code follows as the next part (codes.h), then, with has_coarse_code, that of the centroids: "SQ8" in
 * projected_dim dimensions. The index that finds the lists ("IVF1024_HNSW32") comes last: list_count centroids under
 * l2, whose ids are the numbers of their lists.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "index/codes.h"
#include "index/convert.h"
#include "ivf/ivf_inside.h"
#include "sq/sq.h"

enum { META_BYTES = 24, VERSION = 1 };
static const char meta_tag[] = "IVFLMETA", centroids_tag[] = "IVFLCENT", projected_tag[] = "IVFLPROJ",
                  coarse_tag[] = "IVFLCOAR", sizes_tag[] = "IVFLSIZE", codes_tag[] = "IVFLCODE",
                  ids_tag[] = "IVFLNIDS";

/* ---- Writing -------------------------------------------------------------------------------------------------- */

static kith_status write_meta(const kith_ivf *ivf, uint32_t instance, kith_container_writer *writer) {
    unsigned char bytes[META_BYTES] = {0};
    kith_put_u64(bytes, ivf->list_count);
    kith_put_u32(bytes + 8, (uint32_t)ivf->id_bytes);
    kith_put_u32(bytes + 12, ivf->projected != ivf->centroids);
    kith_put_u32(bytes + 16, ivf->coarse_code != NULL);
    return kith_container_writer_add(writer, meta_tag, instance, bytes, sizeof bytes);
}

static kith_status write_centroids(const kith_ivf *ivf, uint32_t instance, kith_container_writer *writer) {
    size_t count = ivf->list_count * sizeof(float);
    KITH_TRY(kith_container_writer_add(writer, centroids_tag, instance, ivf->centroids, count * ivf->base.dim));
    if (ivf->projected != ivf->centroids)
        KITH_TRY(kith_container_writer_add(writer, projected_tag, instance, ivf->projected,
                                           count * ivf->code->projected_dim));
    if (ivf->coarse_code == NULL) return KITH_OK;
    return kith_container_writer_add(writer, coarse_tag, instance, ivf->coarse_blocks,
                                     kith_code_blocks(ivf->list_count) * ivf->coarse_code->block_bytes);
}

static kith_status write_sizes(const kith_ivf *ivf, uint32_t instance, kith_container_writer *writer) {
    KITH_TRY(kith_container_writer_begin(writer, sizes_tag, instance, VERSION, 0));
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        unsigned char bytes[8];
        kith_put_u64(bytes, kith_list_live(kith_ivf_list(ivf, l)));
        KITH_TRY(kith_container_writer_write(writer, bytes, sizeof bytes));
    }
    return KITH_OK;
}

/* What writing codes needs: which tail follows another in its block, and scratch memory. */
typedef struct code_writer {
    const kith_ivf *ivf;
    kith_container_writer *writer;
    size_t *next;         /* list_count: the list whose tail comes next in the block; KITH_LAYOUT_NO_LIST: none */
    unsigned char *rows;  /* as many as a block has */
    unsigned char *block; /* and the block */
} code_writer;

/* The next `count` codes of a list that are not dead, from *position on. */
static void get_live(const code_writer *w, const kith_list *list, size_t *position, size_t count) {
    unsigned char *rows = w->rows;
    while (count > 0) {
        size_t run = kith_min_size(count, kith_list_next_live(list, position));
        kith_list_get(w->ivf->code, list, *position, run, rows);
        rows += run * w->ivf->code->code_bytes;
        *position += run;
        count -= run;
    }
}

/* The position behind which `count` codes are left that are not dead. */
static size_t before_last(const kith_list *list, size_t count) {
    size_t position = list->count;
    for (; count > 0; count -= !kith_list_is_dead(list, position)) position--;
    return position;
}

static kith_status write_rows(const code_writer *w, size_t l) {
    const kith_list *list = kith_ivf_list(w->ivf, l);
    for (size_t left = kith_list_live(list), position = 0, count; left > 0; left -= count) {
        count = kith_min_size(KITH_BLOCK_ROWS, left);
        get_live(w, list, &position, count);
        KITH_TRY(kith_container_writer_write(w->writer, w->rows, count * w->ivf->code->code_bytes));
    }
    return KITH_OK;
}

/* The whole blocks of a list, then the block that its tail begins, with those that share it. */
static kith_status write_blocks(const code_writer *w, size_t l, bool begins_tail) {
    const kith_code *code = w->ivf->code;
    const kith_list *list = kith_ivf_list(w->ivf, l);
    size_t position = 0;
    for (size_t left = kith_list_live(list); left >= KITH_BLOCK_ROWS; left -= KITH_BLOCK_ROWS) {
        get_live(w, list, &position, KITH_BLOCK_ROWS);
        code->vtable->pack(code, w->rows, 0, KITH_BLOCK_ROWS, w->block);
        KITH_TRY(kith_container_writer_write(w->writer, w->block, code->block_bytes));
    }
    if (!begins_tail) return KITH_OK;
    memset(w->block, 0, code->block_bytes);
    for (size_t lane = 0, count; l != KITH_LAYOUT_NO_LIST; l = w->next[l], lane += count) {
        list = kith_ivf_list(w->ivf, l);
        count = kith_list_live(list) % KITH_BLOCK_ROWS;
        position = before_last(list, count);
        get_live(w, list, &position, count);
        code->vtable->pack(code, w->rows, lane, count, w->block);
    }
    return kith_container_writer_write(w->writer, w->block, code->block_bytes);
}

static kith_status write_lists(const code_writer *w) {
    const kith_ivf *ivf = w->ivf;
    kith_layout layout = {0};
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        kith_layout_place place = kith_layout_next(&layout, kith_list_live(kith_ivf_list(ivf, l)), l);
        w->next[l] = KITH_LAYOUT_NO_LIST;
        if (place.neighbour != KITH_LAYOUT_NO_LIST) w->next[place.neighbour] = l;
    }
    layout = (kith_layout){0};
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        size_t count = kith_list_live(kith_ivf_list(ivf, l));
        kith_layout_place place = kith_layout_next(&layout, count, l);
        bool begins_tail = count % KITH_BLOCK_ROWS > 0 && place.neighbour == KITH_LAYOUT_NO_LIST;
        KITH_TRY(ivf->code->is_exact ? write_rows(w, l) : write_blocks(w, l, begins_tail));
    }
    return KITH_OK;
}

static kith_status write_codes(const kith_ivf *ivf, uint32_t instance, kith_container_writer *writer) {
    code_writer w = {.ivf = ivf, .writer = writer};
    kith_status status;
    KITH_GO(kith_alloc(kith_ivf_lists(ivf), sizeof *w.next, &w.next));
    KITH_GO(kith_alloc(KITH_BLOCK_ROWS, ivf->code->code_bytes, &w.rows));
    KITH_GO(kith_alloc(1, ivf->code->block_bytes, &w.block));
    KITH_GO(kith_container_writer_begin(writer, codes_tag, instance, VERSION, 0));
    KITH_GO(write_lists(&w));
done:
    kith_free(w.block);
    kith_free(w.rows);
    kith_free(w.next);
    return status;
}

/* Ids on their way to a file. */
typedef struct id_writer {
    kith_container_writer *writer;
    unsigned char *bytes; /* of a list's ids */
    size_t id_bytes, count;
} id_writer;

static void put_id(void *context, int64_t id, size_t position) {
    (void)position;
    id_writer *w = context;
    if (w->id_bytes == 4)
        kith_put_u32(w->bytes + 4 * w->count++, (uint32_t)id);
    else
        kith_put_u64(w->bytes + 8 * w->count++, (uint64_t)id);
}

static kith_status write_ids(const kith_ivf *ivf, uint32_t instance, kith_container_writer *writer) {
    id_writer w = {.writer = writer, .id_bytes = ivf->id_bytes};
    size_t most = 0;
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++)
        most = kith_max_size(most, kith_list_live(kith_ivf_list(ivf, l)));
    KITH_TRY(kith_alloc(most, w.id_bytes, &w.bytes));
    kith_status status = kith_container_writer_begin(writer, ids_tag, instance, VERSION, 0);
    for (size_t l = 0; l < kith_ivf_lists(ivf) && status == KITH_OK; l++) {
        w.count = 0;
        kith_list_visit(kith_ivf_list(ivf, l), put_id, &w);
        status = kith_container_writer_write(writer, w.bytes, w.count * w.id_bytes);
    }
    kith_free(w.bytes);
    return status;
}

kith_status kith_ivf_save(const kith_index *index, kith_container_writer *writer, uint32_t *part) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    uint32_t instance = (*part)++;
    KITH_TRY(write_meta(ivf, instance, writer));
    if (ivf->centroids != NULL) KITH_TRY(write_centroids(ivf, instance, writer));
    if (ivf->pages != NULL) {
        KITH_TRY(write_sizes(ivf, instance, writer));
        KITH_TRY(write_codes(ivf, instance, writer));
        KITH_TRY(write_ids(ivf, instance, writer));
    }
    KITH_TRY(kith_code_save(ivf->code, writer, part));
    if (ivf->coarse_code != NULL) KITH_TRY(kith_code_save(ivf->coarse_code, writer, part));
    return ivf->coarse != NULL ? ivf->coarse->vtable->save(ivf->coarse, writer, part) : KITH_OK;
}

/* ---- Opening -------------------------------------------------------------------------------------------------- */

typedef struct opening {
    kith_container *file;
    kith_ivf *ivf;
    bool has_projected, has_coarse_code;
} opening;

static kith_status read_meta(opening *o, const kith_index_meta *meta) {
    kith_ivf *ivf = o->ivf;
    const kith_section *section;
    KITH_TRY(kith_container_need(o->file, meta_tag, ivf->instance, VERSION, &section));
    if (section->bytes != META_BYTES)
        return kith_section_error(o->file, section, "has %zu bytes, not %d", section->bytes, META_BYTES);
    const unsigned char *bytes = section->data;
    uint64_t list_count = kith_get_u64(bytes);
    uint32_t id_bytes = kith_get_u32(bytes + 8), projected = kith_get_u32(bytes + 12);
    uint32_t coarse = kith_get_u32(bytes + 16), zero = kith_get_u32(bytes + 20);
    if (list_count != ivf->list_count || (meta->is_trained && list_count == 0))
        return kith_section_error(o->file, section, "%llu lists, an index %s", (unsigned long long)list_count,
                                  meta->spec);
    if (id_bytes != 4 && id_bytes != 8) return kith_section_error(o->file, section, "ids of %u bytes", id_bytes);
    if (projected > 1 || coarse > 1 || zero != 0 ||
        ((projected || coarse) && !(ivf->has_coarse && meta->is_trained)))
        return kith_section_error(o->file, section, "has_projected is %u, has_coarse_code %u, zero %u", projected,
                                  coarse, zero);
    if (!meta->is_trained && meta->count > 0)
        return kith_section_error(o->file, section, "an index that is not trained has %zu vectors", meta->count);
    ivf->id_bytes = id_bytes;
    o->has_projected = projected != 0;
    o->has_coarse_code = coarse != 0;
    return KITH_OK;
}

/* A code as the file has it. It must be the one named. */
static kith_status open_code(opening *o, uint32_t *part, const char *name, size_t dim, kith_metric metric,
                             bool is_trained, kith_code **code) {
    uint32_t own = *part;
    kith_code *loaded;
    KITH_TRY(kith_code_load(o->file, part, dim, metric, &loaded));
    bool trained = loaded->is_trained || loaded->vtable->train == NULL;
    kith_status status = KITH_OK;
    if (strcmp(loaded->name, name) != 0)
        status = kith_error(KITH_ERR_FORMAT, "%s: part %u is a code %s, not %s", kith_container_path(o->file), own,
                            loaded->name, name);
    else if (is_trained ? !trained : loaded->is_trained && loaded->vtable->train != NULL)
        status = kith_error(KITH_ERR_FORMAT, "%s: part %u: whether the code %s is trained differs from the index",
                            kith_container_path(o->file), own, name);
    if (status != KITH_OK) {
        kith_code_free(loaded);
        return status;
    }
    kith_code_free(*code);
    *code = loaded;
    return KITH_OK;
}

static kith_status open_items(opening *o, const char *tag, size_t count, size_t each, void *out) {
    const void *items;
    KITH_TRY(kith_container_need_items(o->file, tag, o->ivf->instance, count, each, &items));
    void *mutable = (void *)(uintptr_t)items; /* nobody writes to a mapped index */
    memcpy(out, &mutable, sizeof mutable);
    return KITH_OK;
}

static kith_status open_centroids(opening *o, uint32_t *part) {
    kith_ivf *ivf = o->ivf;
    size_t projected_dim = ivf->code->projected_dim, count = ivf->list_count;
    KITH_TRY(open_items(o, centroids_tag, count, ivf->base.dim * sizeof(float), &ivf->centroids));
    ivf->projected = ivf->centroids;
    if (o->has_projected != (ivf->code->vtable->project != NULL))
        return kith_error(KITH_ERR_FORMAT, "%s: section %s.%u: has_projected is %d, the code is %s",
                          kith_container_path(o->file), meta_tag, ivf->instance, o->has_projected, ivf->code->name);
    if (o->has_projected)
        KITH_TRY(open_items(o, projected_tag, count, projected_dim * sizeof(float), &ivf->projected));
    if (!o->has_coarse_code) return KITH_OK;
    KITH_TRY(open_code(o, part, KITH_IVF_COARSE_CODE, projected_dim, ivf->code->metric, true, &ivf->coarse_code));
    kith_sq_quicken(ivf->coarse_code);
    return open_items(o, coarse_tag, kith_code_blocks(count), ivf->coarse_code->block_bytes, &ivf->coarse_blocks);
}

/* Checks the sizes of the lists and lays them out. */
static kith_status read_sizes(opening *o, const unsigned char **sizes, kith_layout *layout) {
    kith_ivf *ivf = o->ivf;
    const kith_section *section;
    KITH_TRY(kith_container_need(o->file, sizes_tag, ivf->instance, VERSION, &section));
    KITH_TRY(open_items(o, sizes_tag, kith_ivf_lists(ivf), sizeof(uint64_t), sizes));
    size_t left[2] = {ivf->base.count, ivf->base.count}; /* of each copy */
    *layout = (kith_layout){0};
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        uint64_t size = kith_get_u64(*sizes + 8 * l);
        if (size > left[l % ivf->copies])
            return kith_section_error(o->file, section, "the lists up to %zu hold more than the %zu vectors", l,
                                      ivf->base.count);
        left[l % ivf->copies] -= (size_t)size;
        (void)kith_layout_next(layout, (size_t)size, l);
    }
    for (size_t c = 0; c < ivf->copies; c++)
        if (left[c] > 0)
            return kith_section_error(o->file, section, "the lists hold %zu vectors less than the %zu of the index",
                                      left[c], ivf->base.count);
    return KITH_OK;
}

static kith_status open_lists(opening *o) {
    kith_ivf *ivf = o->ivf;
    const unsigned char *sizes;
    unsigned char *codes, *ids;
    kith_layout layout;
    size_t items, each;
    KITH_TRY(read_sizes(o, &sizes, &layout));
    kith_layout_items(&layout, ivf->code, &items, &each);
    KITH_TRY(open_items(o, codes_tag, items, each, &codes));
    KITH_TRY(open_items(o, ids_tag, ivf->base.count, ivf->copies * ivf->id_bytes, &ids));
    KITH_TRY(kith_lists_create(ivf));
    ivf->mapped_bytes = (uint64_t)items * each;
    layout = (kith_layout){0};
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        kith_list *list = &ivf->pages[l / KITH_LISTS_PER_PAGE][l % KITH_LISTS_PER_PAGE];
        size_t count = (size_t)kith_get_u64(sizes + 8 * l);
        if (count == 0) continue;
        list->first = kith_segment_next(&layout, ivf->code, count, l, codes);
        list->first.ids = ids;
        list->first.id_bytes = (uint8_t)ivf->id_bytes;
        list->segment_count = 1;
        list->count = count;
        ids += count * ivf->id_bytes;
    }
    return KITH_OK;
}

static kith_status open_sections(opening *o, uint32_t *part, const kith_index_meta *meta) {
    kith_ivf *ivf = o->ivf;
    KITH_TRY(read_meta(o, meta));
    KITH_TRY(open_code(o, part, ivf->code->name, ivf->base.dim, ivf->code->metric, meta->is_trained, &ivf->code));
    if (!meta->is_trained) return KITH_OK;
    if (ivf->has_coarse) KITH_TRY(open_centroids(o, part));
    return open_lists(o);
}

kith_status kith_ivf_open(kith_container *file, uint32_t *part, const kith_index_meta *meta, const kith_spec *spec,
                          kith_index **out) {
    kith_ivf *ivf;
    KITH_TRY(kith_ivf_make(spec, meta->dim, meta->metric, &ivf));
    ivf->base.count = meta->count;
    ivf->base.next_id = meta->next_id;
    ivf->base.is_trained = meta->is_trained || (!ivf->has_coarse && ivf->code->vtable->train == NULL);
    ivf->base.is_mapped = true;
    ivf->instance = (*part)++;
    opening o = {.file = file, .ivf = ivf};
    kith_status status = open_sections(&o, part, meta);
    if (status != KITH_OK) {
        kith_ivf_release(&ivf->base);
        return status;
    }
    *out = &ivf->base;
    return KITH_OK;
}

/* ---- Verifying ------------------------------------------------------------------------------------------------ */

static kith_status bad_content(const kith_ivf *ivf, const char *tag, const char *what) {
    const char *path = ivf->base.file != NULL ? kith_container_path(ivf->base.file) : "index";
    return kith_error(KITH_ERR_FORMAT, "%s: section %s.%u: %s", path, tag, ivf->instance, what);
}

static kith_status verify_vectors(const kith_ivf *ivf, const char *tag, const float *rows, size_t dim) {
    const kith_view view = {rows, KITH_F32, ivf->list_count, dim, dim * sizeof(float)};
    kith_status status = kith_check_vectors("centroids", &view, 0, KITH_L2, kith_threads_default());
    if (status == KITH_OK || status == KITH_ERR_NO_MEMORY) return status;
    char message[512];
    (void)snprintf(message, sizeof message, "%s", kith_error_message());
    return bad_content(ivf, tag, message);
}

enum { STRIP_BLOCKS = 16, STRIP = STRIP_BLOCKS * KITH_BLOCK_ROWS };

static bool all_finite(const float *estimates, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!isfinite(estimates[i])) return false;
    return true;
}

static bool rows_are_finite(const kith_code *code, const void *query, const kith_list_segment *segment) {
    for (size_t i = 0; i < segment->count; i += 4) {
        const unsigned char *rows[4];
        float estimates[4];
        for (size_t r = 0; r < 4; r++)
            rows[r] = segment->blocks + kith_min_size(i + r, segment->count - 1) * code->code_bytes;
        code->vtable->rows(code, query, 0, rows, 4, estimates);
        if (!all_finite(estimates, 4)) return false;
    }
    return true;
}

static bool are_finite(const kith_code *code, const void *query, const kith_list_segment *segment) {
    float estimates[STRIP];
    const float base = 0;
    if (code->is_exact) return rows_are_finite(code, query, segment);
    for (size_t first = 0; first < segment->count; first += STRIP) {
        size_t part = kith_min_size(STRIP, segment->count - first);
        kith_segment_scan(code, segment, first, part, &query, &base, 1, estimates, STRIP);
        if (!all_finite(estimates, part)) return false;
    }
    return true;
}

typedef struct verify_loop {
    const kith_ivf *ivf;
    const void *query;
} verify_loop;

static kith_status verify_list(void *context, size_t l, size_t worker) {
    (void)worker;
    const verify_loop *loop = context;
    const kith_list *list = kith_ivf_list(loop->ivf, l);
    for (size_t s = 0; s < list->segment_count; s++)
        if (!are_finite(loop->ivf->code, loop->query, kith_list_segment_at(list, s)))
            return bad_content(loop->ivf, codes_tag, "a code does not stand for finite numbers");
    return KITH_OK;
}

static kith_status verify_codes(const kith_ivf *ivf) {
    void *query;
    KITH_TRY(kith_code_zero_query(ivf->code, &query));
    verify_loop loop = {ivf, query};
    kith_status status = kith_parallel_for(kith_threads_default(), kith_ivf_lists(ivf), verify_list, &loop);
    kith_free(query);
    if (status != KITH_OK || ivf->coarse_code == NULL) return status;
    KITH_TRY(kith_code_zero_query(ivf->coarse_code, &query));
    const kith_list_segment centroids = {.blocks = ivf->coarse_blocks,
                                         .count = ivf->list_count,
                                         .block_count = (uint32_t)kith_code_blocks(ivf->list_count)};
    if (!are_finite(ivf->coarse_code, query, &centroids))
        status = bad_content(ivf, coarse_tag, "a code does not stand for finite numbers");
    kith_free(query);
    return status;
}

static void list_id(void *context, int64_t id, size_t position) {
    (void)position;
    int64_t **at = context;
    *(*at)++ = id;
}

/* The ids in the lists of one copy. */
static void list_copy_ids(const kith_ivf *ivf, size_t copy, int64_t *ids) {
    for (size_t l = copy; l < kith_ivf_lists(ivf) && ivf->base.count > 0; l += ivf->copies)
        kith_list_visit(kith_ivf_list(ivf, l), list_id, &ids);
}

void kith_ivf_list_ids(const kith_index *index, int64_t *ids) { list_copy_ids(kith_ivf_of_const(index), 0, ids); }

/* Ids are distinct, and each has all of its copies. */
static kith_status verify_ids(const kith_ivf *ivf) {
    size_t count = ivf->base.count;
    int64_t *ids, *scratch = NULL;
    kith_status status;
    KITH_TRY(kith_alloc(count, ivf->copies * sizeof *ids, &ids));
    KITH_GO(kith_alloc(count, sizeof *scratch, &scratch));
    for (size_t c = 0; c < ivf->copies; c++) {
        list_copy_ids(ivf, c, ids + c * count);
        for (size_t i = c * count; i < (c + 1) * count; i++)
            if (ids[i] < 0 || ids[i] >= ivf->base.next_id)
                KITH_GO(bad_content(ivf, ids_tag, "an id is not in 0 .. next_id - 1"));
        kith_sort_i64(ids + c * count, count, scratch);
        if (!kith_rises_i64(ids + c * count, count)) KITH_GO(bad_content(ivf, ids_tag, "an id stands twice"));
        if (memcmp(ids, ids + c * count, count * sizeof *ids) != 0)
            KITH_GO(bad_content(ivf, ids_tag, "an id has one copy"));
    }
done:
    kith_free(scratch);
    kith_free(ids);
    return status;
}

kith_status kith_ivf_verify(const kith_index *index) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    if (ivf->centroids != NULL) {
        KITH_TRY(verify_vectors(ivf, centroids_tag, ivf->centroids, index->dim));
        if (ivf->projected != ivf->centroids)
            KITH_TRY(verify_vectors(ivf, projected_tag, ivf->projected, ivf->code->projected_dim));
    }
    if (ivf->coarse != NULL) KITH_TRY(ivf->coarse->vtable->verify(ivf->coarse));
    if (ivf->pages == NULL) return KITH_OK;
    KITH_TRY(verify_codes(ivf));
    return index->count > 0 ? verify_ids(ivf) : KITH_OK;
}
