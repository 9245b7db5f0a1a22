/* SPDX-License-Identifier: Apache-2.0
 *
 * flat_file.c: the sections of a Flat index, all of version 1. Numbers are little-endian; rows are packed and
 * stand in the index's order of rows, the same in every section.
 *
 *   FLATMETA  16 bytes: first_id u64; has_ids u32, 0 or 1; ids_rise u32, 0 or 1
 *   FLATVECS  count x dim elements of the stored type
 *   FLATNORM  under cosine only: count x f32, 1 / |row| as kith_exact_inverse_norm computes it
 *   FLATROWI  with has_ids only: count x i64, the rows' ids, distinct, from 0 up to below next_id
 *
 * Without has_ids row r has the id first_id + r, and ids_rise is 1. ids_rise says that each row's id is larger
 * than the one before.
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "flat/flat_inside.h"
#include "index/convert.h"

enum { META_BYTES = 16, VERSION = 1 };
static const char meta_tag[] = "FLATMETA", vectors_tag[] = "FLATVECS", norms_tag[] = "FLATNORM",
                  ids_tag[] = "FLATROWI";

/* ---- Writing -------------------------------------------------------------------------------------------- */

static kith_status write_chunks(kith_container_writer *writer, const char *tag, uint32_t instance,
                                const kith_chunks *chunks, size_t count) {
    KITH_TRY(kith_container_writer_begin(writer, tag, instance, VERSION, 0));
    for (size_t i = 0, run; i < count; i += run) {
        const void *at = kith_chunks_run(chunks, i, &run);
        run = kith_min_size(run, count - i);
        KITH_TRY(kith_container_writer_write(writer, at, run * chunks->item_bytes));
    }
    return KITH_OK;
}

kith_status kith_flat_save(const kith_index *index, kith_container_writer *writer, uint32_t *part) {
    uint32_t instance = (*part)++;
    const kith_flat *flat = kith_flat_of_const(index);
    unsigned char meta[META_BYTES];
    kith_put_u64(meta, flat->has_ids ? 0 : (uint64_t)flat->first_id);
    kith_put_u32(meta + 8, flat->has_ids);
    kith_put_u32(meta + 12, flat->ids_rise);
    KITH_TRY(kith_container_writer_add(writer, meta_tag, instance, meta, sizeof meta));
    KITH_TRY(write_chunks(writer, vectors_tag, instance, &flat->vectors, index->count));
    if (kith_flat_has_norms(flat))
        KITH_TRY(write_chunks(writer, norms_tag, instance, &flat->inverse_norms, index->count));
    if (flat->has_ids) KITH_TRY(write_chunks(writer, ids_tag, instance, &flat->ids, index->count));
    return KITH_OK;
}

/* ---- Opening -------------------------------------------------------------------------------------------- */

static kith_status read_meta(kith_container *file, kith_flat *flat) {
    const kith_section *section;
    KITH_TRY(kith_container_need(file, meta_tag, flat->instance, VERSION, &section));
    if (section->bytes != META_BYTES)
        return kith_section_error(file, section, "has %zu bytes, not %d", section->bytes, META_BYTES);
    const unsigned char *bytes = section->data;
    uint64_t first_id = kith_get_u64(bytes), next_id = (uint64_t)flat->base.next_id;
    uint32_t has_ids = kith_get_u32(bytes + 8), ids_rise = kith_get_u32(bytes + 12);
    if (has_ids > 1 || ids_rise > 1 || (!has_ids && !ids_rise))
        return kith_section_error(file, section, "has_ids is %u and ids_rise %u", has_ids, ids_rise);
    if (has_ids ? first_id != 0 : first_id > next_id || flat->base.count > next_id - first_id)
        return kith_section_error(file, section, "%zu ids from %llu on, all below %llu", flat->base.count,
                                  (unsigned long long)first_id, (unsigned long long)next_id);
    flat->first_id = (int64_t)first_id;
    flat->has_ids = has_ids != 0;
    flat->ids_rise = ids_rise != 0;
    return KITH_OK;
}

static kith_status borrow(kith_container *file, const char *tag, uint32_t instance, size_t count,
                          kith_chunks *chunks) {
    const void *items;
    KITH_TRY(kith_container_need_items(file, tag, instance, count, chunks->item_bytes, &items));
    return kith_chunks_borrow(chunks, chunks->item_bytes, items, count);
}

static kith_status open_sections(kith_container *file, kith_flat *flat) {
    size_t count = flat->base.count;
    KITH_TRY(read_meta(file, flat));
    KITH_TRY(borrow(file, vectors_tag, flat->instance, count, &flat->vectors));
    if (kith_flat_has_norms(flat)) KITH_TRY(borrow(file, norms_tag, flat->instance, count, &flat->inverse_norms));
    if (flat->has_ids) KITH_TRY(borrow(file, ids_tag, flat->instance, count, &flat->ids));
    return KITH_OK;
}

kith_status kith_flat_open(kith_container *file, uint32_t *part, const kith_index_meta *meta, const kith_spec *spec,
                           kith_index **out) {
    kith_flat *flat;
    KITH_TRY(kith_flat_make(spec, meta->dim, meta->metric, &flat));
    flat->base.count = meta->count;
    flat->base.next_id = meta->next_id;
    flat->base.is_mapped = true;
    flat->instance = (*part)++;
    kith_status status = open_sections(file, flat);
    if (status != KITH_OK) {
        flat->base.vtable->release(&flat->base);
        return status;
    }
    *out = &flat->base;
    return KITH_OK;
}

/* ---- Verifying ------------------------------------------------------------------------------------------ */

static kith_status bad_content(const kith_flat *flat, const char *tag, const char *what) {
    const char *path = flat->base.file != NULL ? kith_container_path(flat->base.file) : "index";
    return kith_error(KITH_ERR_FORMAT, "%s: section %s.%u: %s", path, tag, flat->instance, what);
}

static kith_status verify_vectors(const kith_flat *flat) {
    const kith_view view = {kith_chunks_at(&flat->vectors, 0), flat->base.dtype, flat->base.count, flat->base.dim,
                            flat->row_bytes};
    if (kith_check_vectors("stored vectors", &view, 0, flat->base.metric, kith_threads_default()) == KITH_OK)
        return KITH_OK;
    char message[512];
    (void)snprintf(message, sizeof message, "%s", kith_error_message());
    return bad_content(flat, vectors_tag, message);
}

static kith_status verify_norm_rows(void *context, size_t item, size_t worker) {
    (void)worker;
    const kith_flat *flat = context;
    size_t rows = kith_rows_per_item(flat->row_bytes), first = item * rows;
    for (size_t r = first; r < kith_min_size(flat->base.count, first + rows); r++) {
        float norm = kith_exact_inverse_norm(kith_chunks_at(&flat->vectors, r), flat->base.dtype, flat->base.dim);
        if (memcmp(&norm, kith_chunks_at(&flat->inverse_norms, r), sizeof norm) != 0)
            return bad_content(flat, norms_tag, "a norm is not that of its row");
    }
    return KITH_OK;
}

static kith_status verify_norms(const kith_flat *flat) {
    size_t items = (flat->base.count - 1) / kith_rows_per_item(flat->row_bytes) + 1;
    return kith_parallel_for(kith_threads_default(), items, verify_norm_rows, (void *)(uintptr_t)flat);
}

static kith_status verify_ids(const kith_flat *flat) {
    size_t count = flat->base.count;
    const int64_t *ids = kith_chunks_at(&flat->ids, 0);
    for (size_t r = 0; r < count; r++)
        if (ids[r] < 0 || ids[r] >= flat->base.next_id)
            return bad_content(flat, ids_tag, "an id is not in 0 .. next_id - 1");
    bool rise = kith_rises_i64(ids, count);
    if (rise != flat->ids_rise) return bad_content(flat, meta_tag, "ids_rise does not say how the ids are");
    if (rise) return KITH_OK;
    int64_t *sorted, *scratch;
    KITH_TRY(kith_alloc(count, sizeof *sorted, &sorted));
    kith_status status = kith_alloc(count, sizeof *scratch, &scratch);
    if (status == KITH_OK) {
        memcpy(sorted, ids, count * sizeof *sorted);
        kith_sort_i64(sorted, count, scratch);
        if (!kith_rises_i64(sorted, count)) status = bad_content(flat, ids_tag, "an id stands twice");
    }
    kith_free(scratch);
    kith_free(sorted);
    return status;
}

kith_status kith_flat_verify(const kith_index *index) {
    const kith_flat *flat = kith_flat_of_const(index);
    if (index->count == 0) return KITH_OK;
    KITH_TRY(verify_vectors(flat));
    if (kith_flat_has_norms(flat)) KITH_TRY(verify_norms(flat));
    return flat->has_ids ? verify_ids(flat) : KITH_OK;
}
