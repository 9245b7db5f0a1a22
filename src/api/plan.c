/* SPDX-License-Identifier: Apache-2.0
 *
 * plan.c: from the text of a spec to a plan. Nothing is made here.
 */
#include <ctype.h>
#include <stdio.h>

#include "api/structures.h"
#include "base/error.h"
#include "flat/flat.h"
#include "hnsw/hnsw.h"
#include "index/codes.h"
#include "ivf/ivf.h"
#include "wrap/coderows.h"
#include "wrap/filerows.h"

/* ---- The structures ------------------------------------------------------------------------------------------ */

static bool is_flat(const kith_spec_part *first) { return kith_spec_part_is(first, KITH_FLAT_NAME); }

static const kith_structure structures[] = {
    {.example = KITH_FLAT_NAME, .claims = is_flat, .create = kith_flat_create, .open = kith_flat_open},
    {.example = KITH_HNSW_NAME "32",
     .claims = kith_hnsw_is_named,
     .create = kith_hnsw_create,
     .open = kith_hnsw_open},
    {.example = KITH_IVF_NAME "1024,SQ8",
     .claims = kith_ivf_is_named,
     .create = kith_ivf_create,
     .open = kith_ivf_open,
     .attach = kith_ivf_attach},
    {.example = "SQ8", .claims = kith_coded_is_named, .create = kith_ivf_create, .open = kith_ivf_open},
};
enum { STRUCTURE_COUNT = sizeof structures / sizeof *structures };

static kith_status find_structure(const char *text, const kith_spec_part *first, const kith_structure **out) {
    for (size_t i = 0; i < STRUCTURE_COUNT; i++)
        if (structures[i].claims(first)) {
            *out = &structures[i];
            return KITH_OK;
        }
    char names[128] = "";
    for (size_t i = 0, at = 0; i < STRUCTURE_COUNT && at < sizeof names; i++) {
        int wrote = snprintf(names + at, sizeof names - at, "%s%s", i > 0 ? ", " : "", structures[i].example);
        at += wrote > 0 ? (size_t)wrote : sizeof names;
    }
    return kith_spec_error(text, first->offset, "expected one of %s, or a transform before it", names);
}

/* ---- Cutting ------------------------------------------------------------------------------------------------- */

/* A part ends at a comma or at the end; within brackets there may be commas, and a closing bracket ends the part. */
static kith_status cut(const char *text, size_t first, size_t last, kith_spec *spec) {
    *spec = (kith_spec){.text = text};
    size_t begin = first, depth = 0, opened = 0;
    for (size_t i = first; i <= last; i++) {
        char c = i < last ? text[i] : '\0';
        if (c == '(') {
            if (i == begin) return kith_spec_error(text, i, "expected a name before '('");
            if (depth++ == 0) opened = i;
        } else if (c == ')') {
            if (depth == 0) return kith_spec_error(text, i, "')' without '('");
            if (--depth == 0 && i + 1 < last && text[i + 1] != ',')
                return kith_spec_error(text, i + 1, "expected ',' or the end after ')'");
        } else if (c == ',' || c == '\0') {
            if (i == last && depth > 0) return kith_spec_error(text, i, "expected ')' for '(' at %zu", opened);
            if (depth > 0) continue;
            if (i == begin) return kith_spec_error(text, i, "expected a name");
            if (spec->part_count == KITH_SPEC_PARTS_MAX)
                return kith_spec_error(text, begin, "more than %d parts", KITH_SPEC_PARTS_MAX);
            spec->parts[spec->part_count++] = (kith_spec_part){text + begin, i - begin, begin};
            begin = i + 1;
        } else if (!isalnum((unsigned char)c) && c != '_') {
            return kith_spec_error(text, i, "'%c' cannot stand in a spec", c);
        }
    }
    return KITH_OK;
}

static void push(kith_spec *spec, const kith_spec_part *part) { spec->parts[spec->part_count++] = *part; }

static kith_spec_part part_of(const char *text, size_t first, size_t last) {
    return (kith_spec_part){text + first, last - first, first};
}

/* ---- Refinement ---------------------------------------------------------------------------------------------- */

static const kith_spec_part flat_part = {KITH_FLAT_NAME, sizeof KITH_FLAT_NAME - 1, 0};

static bool names_dtype(const kith_spec_part *part) {
    for (kith_dtype type = KITH_F32; type <= KITH_U8; type++)
        if (kith_spec_part_is(part, kith_dtype_name(type))) return true;
    return false;
}

/* "RFlat", "Rf16", "RSQ8", "Refine(...)": the store's spec; false when the part is no refinement. */
static bool is_refinement(const kith_spec_part *part) {
    static const char word[] = "Refine(";
    if (part->length >= sizeof word - 1 && memcmp(part->text, word, sizeof word - 1) == 0) return true;
    if (part->length < 2 || part->text[0] != 'R') return false;
    const kith_spec_part rest = {part->text + 1, part->length - 1, part->offset + 1};
    return is_flat(&rest) || names_dtype(&rest) || kith_filerows_is_named(&rest) || kith_code_is_named(&rest);
}

/* Rows that are not searched, but found by their ids. */
static const kith_structure flat_rows = {
    .example = KITH_FLAT_NAME, .claims = is_flat, .create = kith_flat_create, .open = kith_flat_open};
static const kith_structure code_rows = {
    .example = "SQ8", .claims = kith_code_is_named, .create = kith_coderows_create, .open = kith_coderows_open};
static const kith_structure file_rows = {.example = KITH_FILEROWS_NAME,
                                         .claims = kith_filerows_is_named,
                                         .create = kith_filerows_create,
                                         .open = kith_filerows_open};

static kith_status find_store(const char *text, const kith_spec *store, const kith_structure **structure) {
    static const kith_structure *const stores[] = {&flat_rows, &file_rows, &code_rows};
    for (size_t i = 0; i < sizeof stores / sizeof *stores; i++)
        if (stores[i]->claims(&store->parts[0])) {
            *structure = stores[i];
            return KITH_OK;
        }
    return kith_spec_error(text, store->parts[0].offset, "expected Flat, Flat,TYPE, File or a code to refine with");
}

static kith_status read_refinement(const char *text, const kith_spec_part *part, kith_spec *store,
                                   const kith_structure **structure) {
    size_t last = part->offset + part->length;
    *store = (kith_spec){.text = text};
    if (part->text[part->length - 1] != ')') {
        const kith_spec_part rest = part_of(text, part->offset + 1, last);
        if (names_dtype(&rest)) push(store, &flat_part);
        push(store, &rest);
        return find_store(text, store, structure);
    }
    size_t inside = part->offset + sizeof "Refine(" - 1;
    KITH_TRY(cut(text, inside, last - 1, store));
    return find_store(text, store, structure);
}

/* ---- Structure ----------------------------------------------------------------------------------------------- */

/* Takes "_HNSW32" or "(HNSW32,SQ8)" off the first part of an inverted file's spec. */
static kith_status split_coarse(kith_plan *plan) {
    static const char lists[] = "IVF";
    kith_spec_part *first = &plan->inner.parts[0];
    const char *text = plan->text;
    size_t at = sizeof lists - 1, end = first->offset + first->length;
    if (first->length < at || memcmp(first->text, lists, at) != 0) at = first->length;
    while (at < first->length && first->text[at] >= '0' && first->text[at] <= '9') at++;
    if (at < first->length && first->text[at] == 'd') at++; /* codes without residuals */
    if (at < first->length && first->text[at] == 's') at++; /* two lists for each vector */
    if (at < first->length && (first->text[at] == '_' || first->text[at] == '(')) {
        size_t inside = first->offset + at + 1;
        KITH_TRY(cut(text, inside, first->text[at] == '(' ? end - 1 : end, &plan->coarse));
        KITH_TRY(find_structure(text, &plan->coarse.parts[0], &plan->coarse_structure));
        first->length = at;
    }
    for (size_t p = 0; p < plan->inner.part_count; p++) /* brackets mean nothing anywhere else */
        for (size_t i = 0; i < plan->inner.parts[p].length; i++)
            if (plan->inner.parts[p].text[i] == '(')
                return kith_spec_error(text, plan->inner.parts[p].offset + i, "'(' cannot stand here");
    return KITH_OK;
}

static bool is_idmap(const kith_spec_part *part) {
    return kith_spec_part_is(part, "IDMap") || kith_spec_part_is(part, "IDMap2");
}

kith_status kith_plan_read(const char *text, kith_plan *plan) {
    size_t length = strnlen(text, KITH_SPEC_BYTES_MAX);
    *plan = (kith_plan){.text = text, .transforms.text = text, .inner.text = text};
    if (length == KITH_SPEC_BYTES_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "spec: longer than %d characters", KITH_SPEC_BYTES_MAX - 1);
    kith_spec all;
    KITH_TRY(cut(text, 0, length, &all));
    size_t first = 0, last = all.part_count;
    while (first < last && is_idmap(&all.parts[first])) first++; /* every index of kith's takes the caller's ids */
    while (last > first && is_idmap(&all.parts[last - 1])) last--;
    for (; first < last && kith_transform_is_named(&all.parts[first]); first++)
        push(&plan->transforms, &all.parts[first]);
    if (first == last) return kith_spec_error(text, length, "expected a structure, such as Flat");
    KITH_TRY(find_structure(text, &all.parts[first], &plan->structure));
    if (last > first + 1 && is_refinement(&all.parts[last - 1]))
        KITH_TRY(read_refinement(text, &all.parts[--last], &plan->store, &plan->store_structure));
    for (; first < last; first++) push(&plan->inner, &all.parts[first]);
    return split_coarse(plan);
}
