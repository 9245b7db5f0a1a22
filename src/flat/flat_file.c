/* SPDX-License-Identifier: Apache-2.0
 *
 * flat_file.c: the sections of a Flat index, all of version 1. Numbers are little-endian; rows are packed and
 * stand in the index's order of rows, the same in every section.
 *
 *   FLATMETA  16 bytes: the form of the ids, index/idrows.h
 *   FLATROWI  where ids are stored: index/idrows.h
 *   FLATVECS  count x dim elements of the stored type
 *   FLATNORM  under cosine only: count x f32, 1 / |row| as kith_exact_inverse_norm computes it
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "flat/flat_inside.h"
#include "index/convert.h"

static const char vectors_tag[] = "FLATVECS", norms_tag[] = "FLATNORM";
static const kith_idrows_tags id_tags = {.meta = "FLATMETA", .ids = "FLATROWI"};

/* ---- Writing and opening -------------------------------------------------------------------------------- */

kith_status kith_flat_save(const kith_index *index, kith_container_writer *writer, uint32_t *part) {
    uint32_t instance = (*part)++;
    const kith_flat *flat = kith_flat_of_const(index);
    KITH_TRY(kith_idrows_save_table(&flat->ids, &flat->vectors, vectors_tag, instance, writer));
    if (kith_flat_has_norms(flat))
        KITH_TRY(kith_idrows_save_table(&flat->ids, &flat->inverse_norms, norms_tag, instance, writer));
    return kith_idrows_save(&flat->ids, &id_tags, instance, writer);
}

static kith_status open_sections(kith_container *file, kith_flat *flat) {
    size_t count = flat->base.count;
    KITH_TRY(kith_chunks_open(file, vectors_tag, flat->instance, count, &flat->vectors));
    if (kith_flat_has_norms(flat))
        KITH_TRY(kith_chunks_open(file, norms_tag, flat->instance, count, &flat->inverse_norms));
    return kith_idrows_open(file, &id_tags, flat->instance, count, flat->base.next_id, &flat->ids);
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

static kith_status verify_vectors(const kith_flat *flat) {
    const kith_view view = {kith_chunks_at(&flat->vectors, 0), flat->base.dtype, flat->base.count, flat->base.dim,
                            flat->row_bytes};
    if (kith_check_vectors("stored vectors", &view, 0, flat->base.metric, kith_threads_default()) == KITH_OK)
        return KITH_OK;
    char message[512];
    (void)snprintf(message, sizeof message, "%s", kith_error_message());
    return kith_content_error(&flat->base, vectors_tag, flat->instance, message);
}

static kith_status verify_norm_rows(void *context, size_t item, size_t worker) {
    (void)worker;
    const kith_flat *flat = context;
    size_t rows = kith_rows_per_item(flat->row_bytes), first = item * rows;
    for (size_t r = first; r < kith_min_size(flat->base.count, first + rows); r++) {
        float norm = kith_exact_inverse_norm(kith_chunks_at(&flat->vectors, r), flat->base.dtype, flat->base.dim);
        if (memcmp(&norm, kith_chunks_at(&flat->inverse_norms, r), sizeof norm) != 0)
            return kith_content_error(&flat->base, norms_tag, flat->instance, "a norm is not that of its row");
    }
    return KITH_OK;
}

static kith_status verify_norms(const kith_flat *flat) {
    size_t items = (flat->base.count - 1) / kith_rows_per_item(flat->row_bytes) + 1;
    return kith_parallel_for(kith_threads_default(), items, verify_norm_rows, (void *)(uintptr_t)flat);
}

kith_status kith_flat_verify(const kith_index *index) {
    const kith_flat *flat = kith_flat_of_const(index);
    if (index->count == 0) return KITH_OK;
    KITH_TRY(verify_vectors(flat));
    if (kith_flat_has_norms(flat)) KITH_TRY(verify_norms(flat));
    return kith_idrows_verify(index, &flat->ids, &id_tags, flat->instance);
}
