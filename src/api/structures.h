/* SPDX-License-Identifier: Apache-2.0
 *
 * structures.h: the list of structures. The one place that knows them all.
 */
#ifndef KITH_API_STRUCTURES_H
#define KITH_API_STRUCTURES_H

#include "index/indexfile.h"
#include "index/spec.h"

typedef struct kith_structure {
    const char *example;                         /* the first part of a spec, for messages */
    bool (*claims)(const kith_spec_part *first); /* is this first part of a spec its own? */
    kith_status (*create)(const kith_spec *spec, size_t dim, kith_metric metric, kith_index **out);
    /* An index in place in a file, from its parts *part and on; raises *part by how many there are, as the vtable's
     * save does. On failure the file stays open. */
    kith_status (*open)(kith_container *file, uint32_t *part, const kith_index_meta *meta, const kith_spec *spec,
                        kith_index **out);
} kith_structure;

/* Cuts a spec and finds its structure. KITH_ERR_ARGUMENT names the character that was not understood. `text` has to
 * outlive *spec. */
kith_status kith_spec_parse(const char *text, kith_spec *spec, const kith_structure **structure);

#endif
