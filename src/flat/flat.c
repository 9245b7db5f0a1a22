/* SPDX-License-Identifier: Apache-2.0 */
#include "flat/flat.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "flat/flat_inside.h"
#include "index/convert.h"

static void release(kith_index *index) {
    kith_flat *flat = kith_flat_of(index);
    kith_chunks_free(&flat->vectors);
    kith_chunks_free(&flat->inverse_norms);
    kith_idrows_free(&flat->ids);
    kith_free(flat);
}

static kith_status read_dtype(const kith_spec *spec, kith_dtype *dtype) {
    *dtype = KITH_F32;
    if (spec->part_count == 1) return KITH_OK;
    if (spec->part_count > 2)
        return kith_error(KITH_ERR_ARGUMENT, "spec '%s': character %zu: nothing can follow the element type",
                          spec->text, spec->parts[2].offset);
    for (kith_dtype type = KITH_F32; type <= KITH_U8; type++)
        if (kith_spec_part_is(&spec->parts[1], kith_dtype_name(type))) {
            *dtype = type;
            return KITH_OK;
        }
    return kith_error(KITH_ERR_ARGUMENT, "spec '%s': character %zu: expected f32, f16, bf16, i8 or u8", spec->text,
                      spec->parts[1].offset);
}

static kith_status make(kith_dtype dtype, size_t dim, kith_metric metric, kith_flat **out) {
    KITH_TRY(kith_alloc_zeroed(1, sizeof **out, out));
    char spec[KITH_SPEC_BYTES_MAX] = KITH_FLAT_NAME;
    if (dtype != KITH_F32) (void)snprintf(spec, sizeof spec, "%s,%s", KITH_FLAT_NAME, kith_dtype_name(dtype));
    kith_flat *flat = *out;
    kith_index_init(&flat->base, &kith_flat_vtable, dim, metric, dtype, spec);
    flat->row_bytes = kith_dtype_row_bytes(dtype, dim);
    kith_chunks_init(&flat->vectors, flat->row_bytes);
    kith_chunks_init(&flat->inverse_norms, sizeof(float));
    kith_idrows_init(&flat->ids);
    return KITH_OK;
}

kith_status kith_flat_make(const kith_spec *spec, size_t dim, kith_metric metric, kith_flat **out) {
    kith_dtype dtype;
    KITH_TRY(read_dtype(spec, &dtype));
    return make(dtype, dim, metric, out);
}

kith_status kith_flat_create(const kith_spec *spec, size_t dim, kith_metric metric, kith_index **out) {
    kith_flat *flat;
    KITH_TRY(kith_flat_make(spec, dim, metric, &flat));
    *out = &flat->base;
    return KITH_OK;
}

static void set_epoch(kith_index *index, kith_epoch *epoch) {
    kith_flat *flat = kith_flat_of(index);
    flat->vectors.epoch = epoch;
    flat->inverse_norms.epoch = epoch;
    kith_idrows_set_epoch(&flat->ids, epoch);
}

static kith_status clone(const kith_index *index, kith_index **out) {
    const kith_flat *flat = kith_flat_of_const(index);
    kith_flat *copy;
    KITH_TRY(make(index->dtype, index->dim, index->metric, &copy));
    const kith_chunks *const from[] = {&flat->vectors, &flat->inverse_norms};
    kith_chunks *const to[] = {&copy->vectors, &copy->inverse_norms};
    kith_status status;
    KITH_GO(kith_idrows_copy(&flat->ids, from, &copy->ids, to, sizeof to / sizeof *to));
    copy->base.count = index->count;
    *out = &copy->base;
    return KITH_OK;
done:
    release(&copy->base);
    return status;
}

static kith_status clone_empty(const kith_index *index, kith_index **out) {
    kith_flat *copy;
    KITH_TRY(make(index->dtype, index->dim, index->metric, &copy));
    *out = &copy->base;
    return KITH_OK;
}

static size_t memory(const kith_index *index, kith_memory_part *parts, size_t capacity) {
    const kith_flat *flat = kith_flat_of_const(index);
    const kith_memory_part all[] = {
        {"vectors", kith_chunks_bytes(&flat->vectors)},
        {"norms", kith_chunks_bytes(&flat->inverse_norms)},
        {"ids", kith_chunks_bytes(&flat->ids.ids)},
        {"id map", (uint64_t)flat->ids.map.slot_count * sizeof *flat->ids.map.slots},
        {"dead rows", kith_deadset_bytes(&flat->ids.dead)},
        {"fixed", sizeof *flat},
    };
    size_t count = sizeof all / sizeof *all;
    if (capacity > 0) memcpy(parts, all, kith_min_size(count, capacity) * sizeof *all);
    return count;
}

static kith_status memory_for(const kith_index *index, size_t count, bool has_ids, uint64_t *bytes) {
    const kith_flat *flat = kith_flat_of_const(index);
    KITH_TRY(kith_chunks_bytes_for(flat->vectors.item_bytes, count, bytes));
    if (kith_flat_has_norms(flat)) KITH_TRY(kith_chunks_bytes_for(flat->inverse_norms.item_bytes, count, bytes));
    if (has_ids) KITH_TRY(kith_idrows_bytes_for(count, bytes));
    *bytes += sizeof *flat;
    return KITH_OK;
}

static kith_status reconstruct(const kith_index *index, const int64_t *ids, size_t count, float *out) {
    const kith_flat *flat = kith_flat_of_const(index);
    uint64_t *rows;
    KITH_TRY(kith_alloc(count, sizeof *rows, &rows));
    kith_status status;
    KITH_GO(kith_idrows_need("reconstruct", &flat->ids, ids, count, rows));
    for (size_t i = 0; i < count; i++)
        kith_exact_to_f32(kith_chunks_at(&flat->vectors, (size_t)rows[i]), index->dtype, index->dim,
                          out + i * index->dim);
done:
    kith_free(rows);
    return status;
}

static void list_ids(const kith_index *index, int64_t *ids) {
    kith_idrows_list(&kith_flat_of_const(index)->ids, ids);
}

static kith_status holds(const kith_index *index, const int64_t *ids, size_t count, bool *held) {
    return kith_idrows_holds(&kith_flat_of_const(index)->ids, ids, count, held);
}

static const kith_param params[] = {KITH_PARAM_THREADS, KITH_PARAM_MAX_DISTANCES};

static bool shares_rescore(const kith_index *index) {
    return kith_idrows_can_find(&kith_flat_of_const(index)->ids);
}

const kith_index_vtable kith_flat_vtable = {
    .name = KITH_FLAT_NAME,
    .struct_bytes = sizeof(kith_flat),
    .concurrent = true,
    .set_epoch = set_epoch,
    .params = params,
    .param_count = sizeof params / sizeof *params,
    .release = release,
    .clone = clone,
    .clone_empty = clone_empty,
    .memory = memory,
    .memory_for = memory_for,
    .train = NULL,
    .add = kith_flat_add,
    .remove = kith_flat_remove,
    .update = kith_flat_update,
    .upsert = kith_flat_upsert,
    .holds = holds,
    .compact = kith_flat_compact,
    .reset = kith_flat_reset,
    .merge = kith_flat_merge,
    .reconstruct = reconstruct,
    .search = kith_flat_search,
    .range_search = kith_flat_range_search,
    .save = kith_flat_save,
    .verify = kith_flat_verify,
    .list_ids = list_ids,
    .stage = kith_flat_stage,
    .settle = kith_flat_settle,
    .rescore = kith_flat_rescore,
    .shares_rescore = shares_rescore,
};
