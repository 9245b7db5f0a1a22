/* SPDX-License-Identifier: Apache-2.0
 *
 * files.c: indexes from files. All three ways go through the mapped index: loading verifies it and copies it.
 */
#include <stdio.h>
#include <string.h>

#include "api/files.h"
#include "base/error.h"

/* The message of the call that just failed, as content of the section that names the index. */
static kith_status bad_spec(const kith_container *file, const kith_section *section) {
    char message[512];
    (void)snprintf(message, sizeof message, "%s", kith_error_message());
    return kith_section_error(file, section, "%s", message);
}

/* The index in place in an open file, which still belongs to the caller after a failure. */
static kith_status open_index(kith_container *file, kith_index **out) {
    kith_index_meta meta;
    const kith_section *section;
    kith_plan plan;
    kith_index *index;
    KITH_TRY(kith_index_meta_read(file, &meta, &section));
    if (kith_plan_read(meta.spec, &plan) != KITH_OK) return bad_spec(file, section);
    kith_status status = kith_plan_open(&plan, file, &meta, &index);
    if (status == KITH_ERR_ARGUMENT) return bad_spec(file, section);
    if (status != KITH_OK) return status;
    if (strcmp(index->spec, meta.spec) != 0 || index->dtype != meta.dtype)
        status = kith_section_error(file, section, "spec '%s' and element type %s do not go together", meta.spec,
                                    kith_dtype_name(meta.dtype));
    else if (index->is_trained != meta.is_trained)
        status = kith_section_error(file, section, "trained is %d, an index %s is not", meta.is_trained, meta.spec);
    else
        status = kith_container_finish(file);
    if (status != KITH_OK) {
        kith_index_free(index);
        return status;
    }
    index->file = file;
    *out = index;
    return KITH_OK;
}

kith_status kith_index_open_container(kith_container *file, kith_index **out) {
    *out = NULL;
    kith_status status = open_index(file, out);
    if (status != KITH_OK) kith_container_close(file);
    return status;
}

/* Opens the index in place; `verify` reads and checks every byte. */
static kith_status open_path(const char *what, const char *path, bool verify, kith_index **out) {
    if (path == NULL) return kith_error(KITH_ERR_ARGUMENT, "%s: path must not be NULL", what);
    kith_container *file;
    KITH_TRY(kith_container_open(path, &file));
    kith_status status = verify ? kith_container_verify(file) : KITH_OK;
    if (status != KITH_OK) {
        kith_container_close(file);
        return status;
    }
    return kith_index_open_container(file, out);
}

kith_status kith_index_map(const char *path, kith_index **out) {
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "map: out must not be NULL");
    *out = NULL;
    return open_path("map", path, false, out);
}

kith_status kith_index_load(const char *path, kith_index **out) {
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "load: out must not be NULL");
    *out = NULL;
    kith_index *mapped;
    KITH_TRY(open_path("load", path, true, &mapped));
    kith_status status = kith_index_clone(mapped, out);
    kith_index_free(mapped);
    return status;
}

kith_status kith_file_verify(const char *path) {
    kith_index *mapped;
    KITH_TRY(open_path("verify", path, true, &mapped));
    kith_status status = mapped->vtable->verify(mapped);
    kith_index_free(mapped);
    return status;
}

kith_status kith_file_sections(const char *path, kith_file_section *sections, size_t capacity, size_t *count) {
    if (count == NULL) return kith_error(KITH_ERR_ARGUMENT, "sections: count must not be NULL");
    *count = 0;
    if (path == NULL) return kith_error(KITH_ERR_ARGUMENT, "sections: path must not be NULL");
    kith_container *file;
    KITH_TRY(kith_container_open(path, &file));
    *count = kith_container_section_count(file);
    uint64_t offset = KITH_SECTION_ALIGNMENT; /* behind the header; each one follows from those before it */
    for (size_t i = 0; i < *count && i < capacity && sections != NULL; i++) {
        const kith_section *section = kith_container_section_at(file, i);
        sections[i] = (kith_file_section){.instance = section->instance,
                                          .version = section->version,
                                          .is_skippable = (section->flags & KITH_SECTION_SKIPPABLE) != 0,
                                          .offset = offset,
                                          .bytes = section->bytes};
        memcpy(sections[i].tag, section->tag, sizeof sections[i].tag);
        uint64_t padding =
            (KITH_SECTION_ALIGNMENT - section->bytes % KITH_SECTION_ALIGNMENT) % KITH_SECTION_ALIGNMENT;
        offset += section->bytes + padding;
    }
    kith_container_close(file);
    return KITH_OK;
}
