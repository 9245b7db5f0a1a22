/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <stdio.h>

#include "api/structures.h"
#include "base/error.h"
#include "flat/flat.h"
#include "hnsw/hnsw.h"
#include "ivf/ivf.h"

static bool is_flat(const kith_spec_part *first) { return kith_spec_part_is(first, KITH_FLAT_NAME); }

static const kith_structure structures[] = {
    {KITH_FLAT_NAME, is_flat, kith_flat_create, kith_flat_open},
    {KITH_HNSW_NAME "32", kith_hnsw_is_named, kith_hnsw_create, kith_hnsw_open},
    {KITH_IVF_NAME "1024,SQ8", kith_ivf_is_named, kith_ivf_create, kith_ivf_open},
    {"SQ8", kith_coded_is_named, kith_ivf_create, kith_ivf_open},
};
enum { STRUCTURE_COUNT = sizeof structures / sizeof *structures };

/* Cuts the text at its commas. Letters, digits and '_' make a part. */
static kith_status cut(const char *text, kith_spec *spec) {
    *spec = (kith_spec){.text = text};
    size_t begin = 0;
    for (size_t i = 0;; i++) {
        char c = text[i];
        if (i >= KITH_SPEC_BYTES_MAX)
            return kith_error(KITH_ERR_ARGUMENT, "spec: longer than %d characters", KITH_SPEC_BYTES_MAX - 1);
        if (isalnum((unsigned char)c) || c == '_') continue;
        if (c != ',' && c != '\0')
            return kith_error(KITH_ERR_ARGUMENT, "spec '%s': character %zu: '%c' cannot stand in a spec", text, i,
                              c);
        if (i == begin) return kith_error(KITH_ERR_ARGUMENT, "spec '%s': character %zu: expected a name", text, i);
        if (spec->part_count == KITH_SPEC_PARTS_MAX)
            return kith_error(KITH_ERR_ARGUMENT, "spec '%s': character %zu: more than %d parts", text, begin,
                              KITH_SPEC_PARTS_MAX);
        spec->parts[spec->part_count++] = (kith_spec_part){text + begin, i - begin, begin};
        begin = i + 1;
        if (c == '\0') return KITH_OK;
    }
}

static kith_status unknown_structure(const kith_spec *spec) {
    char names[128] = "";
    for (size_t i = 0, at = 0; i < STRUCTURE_COUNT && at < sizeof names; i++) {
        int wrote = snprintf(names + at, sizeof names - at, "%s%s", i > 0 ? ", " : "", structures[i].example);
        at += wrote > 0 ? (size_t)wrote : sizeof names;
    }
    return kith_error(KITH_ERR_ARGUMENT, "spec '%s': character %zu: expected one of %s", spec->text,
                      spec->parts[0].offset, names);
}

kith_status kith_spec_parse(const char *text, kith_spec *spec, const kith_structure **structure) {
    KITH_TRY(cut(text, spec));
    for (size_t i = 0; i < STRUCTURE_COUNT; i++)
        if (structures[i].claims(&spec->parts[0])) {
            *structure = &structures[i];
            return KITH_OK;
        }
    return unknown_structure(spec);
}

kith_status kith_index_create(const char *spec, size_t dim, kith_metric metric, kith_index **out) {
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "create: out must not be NULL");
    *out = NULL;
    if (spec == NULL) return kith_error(KITH_ERR_ARGUMENT, "create: spec must not be NULL");
    if (dim == 0 || dim > KITH_DIM_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "create: dimension %zu is outside 1..%d", dim, KITH_DIM_MAX);
    if (metric == KITH_HAMMING)
        return kith_error(KITH_ERR_UNSUPPORTED, "create: no index has the metric hamming yet");
    if (metric < KITH_L2 || metric > KITH_COSINE)
        return kith_error(KITH_ERR_ARGUMENT, "create: metric %d is not one of l2, ip, cosine", (int)metric);
    kith_spec parsed;
    const kith_structure *structure;
    KITH_TRY(kith_spec_parse(spec, &parsed, &structure));
    return structure->create(&parsed, dim, metric, out);
}
