/* SPDX-License-Identifier: Apache-2.0 */
#include "index/codes.h"

#include <string.h>

#include "base/error.h"
#include "index/indexfile.h"
#include "pq/pq.h"
#include "rabitq/rabitq.h"
#include "sq/sq.h"

/* The families, in the order in which they are asked. No name belongs to two of them. */
static const kith_code_make_fn families[] = {kith_sq_make, kith_pq_make, kith_rabitq_make};
enum { FAMILY_COUNT = sizeof families / sizeof *families };

enum { META_BYTES = 16 + KITH_CODE_NAME_BYTES, META_VERSION = 1 };
static const char meta_tag[] = "CODEMETA";

/* ---- From a name ---------------------------------------------------------------------------------------------- */

/* The code of that name; KITH_OK and NULL when no family has it. */
static kith_status make(const char *name, size_t dim, kith_metric metric, kith_code **out, size_t *position) {
    *out = NULL;
    for (size_t f = 0; f < FAMILY_COUNT && *out == NULL; f++) {
        *position = 0;
        KITH_TRY(families[f](name, dim, metric, out, position));
    }
    return KITH_OK;
}

/* False for a part that is longer than any name. */
static bool copy_name(const kith_spec_part *part, char name[KITH_CODE_NAME_BYTES]) {
    if (part->length >= KITH_CODE_NAME_BYTES) return false;
    memcpy(name, part->text, part->length);
    name[part->length] = '\0';
    return true;
}

bool kith_code_is_named(const kith_spec_part *part) {
    enum { ANY_DIM = 64 }; /* a family refuses the numbers of its own names only */
    char name[KITH_CODE_NAME_BYTES];
    kith_code *code;
    size_t position;
    if (!copy_name(part, name)) return false;
    bool is_named = make(name, ANY_DIM, KITH_L2, &code, &position) != KITH_OK || code != NULL;
    kith_code_free(code);
    return is_named;
}

kith_status kith_code_create(const kith_spec *spec, size_t part, size_t dim, kith_metric metric, kith_code **out) {
    const kith_spec_part *text = &spec->parts[part];
    char name[KITH_CODE_NAME_BYTES];
    size_t position;
    *out = NULL;
    kith_status status = copy_name(text, name) ? make(name, dim, metric, out, &position) : KITH_OK;
    if (status == KITH_ERR_ARGUMENT)
        return kith_error_prefix(status, "spec '%s': character %zu", spec->text, text->offset + position);
    if (status == KITH_OK && *out == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "spec '%s': character %zu: '%.*s' is no code", spec->text,
                          text->offset, (int)text->length, text->text);
    return status;
}

/* ---- Files ---------------------------------------------------------------------------------------------------- */

kith_status kith_codes_agree(const kith_code *a, const kith_code *b, const unsigned char *codes, size_t count,
                             bool *agree) {
    *agree = a->code_bytes == b->code_bytes && a->projected_dim == b->projected_dim;
    if (!*agree) return KITH_OK;
    float *decoded;
    KITH_TRY(kith_alloc(count, 2 * a->dim * sizeof *decoded, &decoded));
    float *other = decoded + count * a->dim;
    const kith_code_rows rows = {.count = count};
    kith_status status = a->vtable->decode(a, &rows, codes, decoded);
    if (status == KITH_OK) status = b->vtable->decode(b, &rows, codes, other);
    *agree = status == KITH_OK && memcmp(decoded, other, count * a->dim * sizeof *decoded) == 0;
    kith_free(decoded);
    return status;
}

kith_status kith_code_save(const kith_code *code, kith_container_writer *writer, uint32_t *part) {
    unsigned char bytes[META_BYTES] = {0};
    kith_put_u32(bytes, (uint32_t)code->vtable->kind);
    kith_put_u32(bytes + 4, (uint32_t)code->metric);
    kith_put_u32(bytes + 8, (uint32_t)code->dim);
    kith_put_u32(bytes + 12, code->is_trained);
    memcpy(bytes + 16, code->name, strlen(code->name));
    KITH_TRY(kith_container_writer_add(writer, meta_tag, *part, bytes, sizeof bytes));
    if (code->is_trained && code->vtable->save != NULL) return code->vtable->save(code, writer, part);
    (*part)++;
    return KITH_OK;
}

static kith_status read_name(const kith_container *file, const kith_section *section,
                             char name[KITH_CODE_NAME_BYTES]) {
    memcpy(name, (const char *)section->data + 16, KITH_CODE_NAME_BYTES);
    size_t length = strnlen(name, KITH_CODE_NAME_BYTES);
    if (length == KITH_CODE_NAME_BYTES) return kith_section_error(file, section, "the name has no end");
    for (size_t i = 0; i < KITH_CODE_NAME_BYTES; i++)
        if (i < length ? name[i] <= ' ' || name[i] > '~' : name[i] != 0)
            return kith_section_error(file, section, "byte %zu of the name is %d", i, name[i]);
    return KITH_OK;
}

/* An untrained code as the section has it. */
static kith_status make_from(const kith_container *file, const kith_section *section, size_t dim,
                             kith_metric metric, kith_code **out) {
    if (section->bytes != META_BYTES)
        return kith_section_error(file, section, "has %zu bytes, not %d", section->bytes, META_BYTES);
    const unsigned char *bytes = section->data;
    uint32_t kind = kith_get_u32(bytes), stored_metric = kith_get_u32(bytes + 4),
             stored_dim = kith_get_u32(bytes + 8);
    if (stored_metric != (uint32_t)metric)
        return kith_section_error(file, section, "metric %u, not %d", stored_metric, (int)metric);
    if (stored_dim != dim) return kith_section_error(file, section, "dimension %u, not %zu", stored_dim, dim);
    if (kith_get_u32(bytes + 12) > 1)
        return kith_section_error(file, section, "trained is %u, not 0 or 1", kith_get_u32(bytes + 12));
    char name[KITH_CODE_NAME_BYTES];
    KITH_TRY(read_name(file, section, name));
    size_t position;
    kith_status status = make(name, dim, metric, out, &position);
    if (status == KITH_ERR_NO_MEMORY) return status;
    if (status != KITH_OK || *out == NULL)
        return kith_section_error(file, section, "'%s' is no code of %zu dimensions", name, dim);
    if ((uint32_t)(*out)->vtable->kind != kind)
        return kith_section_error(file, section, "'%s' is not of kind %u", name, kind);
    if (strcmp((*out)->name, name) != 0)
        return kith_section_error(file, section, "'%s' is not how '%s' is written", name, (*out)->name);
    return KITH_OK;
}

kith_status kith_code_load(kith_container *file, uint32_t *part, size_t dim, kith_metric metric, kith_code **out) {
    const kith_section *section;
    kith_code *code = NULL;
    kith_status status;
    *out = NULL;
    KITH_TRY(kith_container_need(file, meta_tag, *part, META_VERSION, &section));
    KITH_GO(make_from(file, section, dim, metric, &code));
    bool is_trained = kith_get_u32((const unsigned char *)section->data + 12) != 0;
    if (code->is_trained && !is_trained) {
        status = kith_section_error(file, section, "'%s' untrained", code->name);
        goto done;
    }
    if (is_trained && code->vtable->load != NULL)
        KITH_GO(code->vtable->load(code, file, part));
    else
        (*part)++;
    *out = code;
    code = NULL;
done:
    kith_code_free(code);
    return status;
}
