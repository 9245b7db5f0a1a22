/* SPDX-License-Identifier: Apache-2.0
 *
 * spec.h: a factory string cut at its commas: what src/api hands to a structure.
 */
#ifndef KITH_INDEX_SPEC_H
#define KITH_INDEX_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "kith/status.h"

enum { KITH_SPEC_PARTS_MAX = 16 };

typedef struct kith_spec_part {
    const char *text; /* not terminated */
    size_t length;    /* at least 1 */
    size_t offset;    /* of its first character in the spec, from 0 */
} kith_spec_part;

typedef struct kith_spec {
    const char *text; /* the whole */
    kith_spec_part parts[KITH_SPEC_PARTS_MAX];
    size_t part_count; /* at least 1 for a structure */
} kith_spec;

/* KITH_ERR_ARGUMENT: "spec 'TEXT': character POSITION: ...". */
kith_status kith_spec_error(const char *text, size_t position, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Writes three texts one after the other, with a final zero. KITH_ERR_ARGUMENT when they do not fit bytes_max; `out` is
 * then as it was. */
kith_status kith_spec_join(const char *first, const char *between, const char *last, size_t bytes_max, char *out);

/* Reads the decimal number at character *at of a part and moves *at behind it. False where no digit stands, and for a
 * number above KITH_SPEC_NUMBER_MAX. */
#define KITH_SPEC_NUMBER_MAX ((size_t)1 << 31)
bool kith_spec_number(const kith_spec_part *part, size_t *at, size_t *value);

static inline bool kith_spec_part_is(const kith_spec_part *part, const char *name) {
    return strlen(name) == part->length && memcmp(part->text, name, part->length) == 0;
}

#endif
