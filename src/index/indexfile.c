/* SPDX-License-Identifier: Apache-2.0 */
#include "index/indexfile.h"

#include <string.h>

#include "base/error.h"
#include "index/live.h"

enum { META_BYTES = 32 + KITH_SPEC_BYTES_MAX, META_VERSION = 1 };
static const char meta_tag[] = "INDXMETA";

static kith_status write_meta(const kith_index *index, kith_container_writer *writer) {
    unsigned char bytes[META_BYTES] = {0};
    kith_put_u32(bytes, (uint32_t)index->dim);
    kith_put_u32(bytes + 4, (uint32_t)index->metric);
    kith_put_u32(bytes + 8, (uint32_t)index->dtype);
    kith_put_u32(bytes + 12, index->is_trained);
    kith_put_u64(bytes + 16, index->count);
    kith_put_u64(bytes + 24, (uint64_t)index->next_id);
    memcpy(bytes + 32, index->spec, strlen(index->spec));
    return kith_container_writer_add(writer, meta_tag, 0, bytes, sizeof bytes);
}

/* While no change runs; searches go on. */
static kith_status write_sections(const kith_index *index, kith_container_writer *writer) {
    uint32_t part = 0;
    KITH_TRY(kith_hold_begin(index));
    kith_status status = write_meta(index, writer);
    if (status == KITH_OK) status = index->vtable->save(index, writer, &part);
    kith_hold_end(index);
    return status;
}

kith_status kith_index_save(const kith_index *index, const char *path) {
    if (index == NULL || path == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "save: index and path must not be NULL");
    kith_container_writer *writer;
    KITH_TRY(kith_container_writer_create(path, &writer));
    kith_status status = write_sections(index, writer);
    if (status == KITH_OK) return kith_container_writer_commit(writer);
    kith_container_writer_abort(writer);
    return status;
}

static kith_status parse_meta(const kith_container *file, const kith_section *section, kith_index_meta *meta) {
    const unsigned char *bytes = section->data;
    if (section->bytes != META_BYTES)
        return kith_section_error(file, section, "has %zu bytes, not %d", section->bytes, META_BYTES);
    uint32_t dim = kith_get_u32(bytes), metric = kith_get_u32(bytes + 4), dtype = kith_get_u32(bytes + 8);
    uint32_t trained = kith_get_u32(bytes + 12);
    uint64_t count = kith_get_u64(bytes + 16), next_id = kith_get_u64(bytes + 24);
    if (dim == 0 || dim > KITH_DIM_MAX)
        return kith_section_error(file, section, "dimension %u is outside 1..%d", dim, KITH_DIM_MAX);
    if (metric < KITH_L2 || metric > KITH_COSINE)
        return kith_section_error(file, section, "metric %u is outside 1..3", metric);
    if (dtype < KITH_F32 || dtype > KITH_U8)
        return kith_section_error(file, section, "element type %u is outside 1..5", dtype);
    if (trained > 1) return kith_section_error(file, section, "trained is %u, not 0 or 1", trained);
    if (next_id > (uint64_t)KITH_ID_MAX + 1 || count > next_id)
        return kith_section_error(file, section, "%llu vectors with ids below %llu", (unsigned long long)count,
                                  (unsigned long long)next_id);
    size_t rows;
    if (__builtin_add_overflow(count, 0u, &rows))
        return kith_section_error(file, section, "%llu vectors do not fit the address space",
                                  (unsigned long long)count);
    const char *spec = (const char *)bytes + 32;
    size_t length = strnlen(spec, KITH_SPEC_BYTES_MAX);
    if (length == KITH_SPEC_BYTES_MAX) return kith_section_error(file, section, "the spec has no end");
    for (size_t i = 0; i < KITH_SPEC_BYTES_MAX; i++)
        if (i < length ? spec[i] < ' ' || spec[i] > '~' : spec[i] != 0)
            return kith_section_error(file, section, "byte %zu of the spec is %d", i, spec[i]);
    *meta = (kith_index_meta){
        .dim = dim,
        .count = rows,
        .metric = (kith_metric)metric,
        .dtype = (kith_dtype)dtype,
        .is_trained = trained != 0,
        .next_id = (int64_t)next_id,
    };
    memcpy(meta->spec, spec, length);
    return KITH_OK;
}

kith_status kith_index_meta_read(kith_container *file, kith_index_meta *meta, const kith_section **section) {
    KITH_TRY(kith_container_need(file, meta_tag, 0, META_VERSION, section));
    return parse_meta(file, *section, meta);
}
