/* SPDX-License-Identifier: Apache-2.0
 *
 * structures.h: the list of structures, the one place that knows them all; and what a spec says, as a plan.
 *
 *     spec       [IDMap,] [transform,]... structure [,refinement] [,IDMap]
 *     transform  PCA64 PCAW64 PCAR64 PCAWR64 RR64 HR OPQ16_64 Centre L2norm Pad128
 *     structure  Flat[,TYPE] and what the structures below claim, with the parts that follow
 *                NAME_COARSE or NAME(COARSE): lists that are found by the index that the structure COARSE names
 *     refinement RFlat RTYPE RFile RCODE, or Refine(Flat), Refine(Flat,TYPE), Refine(File), Refine(CODE)
 *
 * docs/specs.md is the user's description.
 */
#ifndef KITH_API_STRUCTURES_H
#define KITH_API_STRUCTURES_H

#include "index/indexfile.h"
#include "index/spec.h"
#include "linalg/transform.h"

typedef struct kith_structure {
    const char *example; /* of its first part, for messages: "Flat", "IVF1024" */
    bool (*claims)(const kith_spec_part *first);
    kith_status (*create)(const kith_spec *spec, size_t dim, kith_metric metric, kith_index **out);
    /* An index in place in a file, from its parts *part and on; raises *part by how many there are, as the vtable's
     * save does. On failure the file stays open. */
    kith_status (*open)(kith_container *file, uint32_t *part, const kith_index_meta *meta, const kith_spec *spec,
                        kith_index **out);
    /* Gives an index the one that finds the lists of a vector, "IVF65536_HNSW32": of the same dimension, under l2, empty
     * before training and with every list's centroid after it. It becomes the index's own on success alone. NULL: the
     * structure takes none. */
    kith_status (*attach)(kith_index *index, kith_index *coarse);
} kith_structure;

/* What a spec says. The slices point into one text, so that every message can name the character. */
typedef struct kith_plan {
    const char *text;
    kith_spec transforms;            /* may have no parts */
    kith_spec inner;                 /* the structure's own parts, at least one */
    const kith_structure *structure; /* of inner */
    kith_spec coarse;                /* the structure that finds the lists; no parts: none */
    const kith_structure *coarse_structure;
    kith_spec store; /* of a refinement, as a spec: "Flat", "Flat,f16"; no parts: none */
    const kith_structure *store_structure;
} kith_plan;

/* KITH_ERR_ARGUMENT names the character that was not understood, and what was expected there. `text` has to outlive
 * *plan. */
kith_status kith_plan_read(const char *text, kith_plan *plan);

/* ---- spec_transforms.c ---------------------------------------------------------------------------------------- */

/* Does a part name a transform, whether its numbers are good or not? */
bool kith_transform_is_named(const kith_spec_part *part);
/* The plan's transforms, untrained, as one: a chain when there are several. Errors as above. */
kith_status kith_plan_transforms(const kith_plan *plan, size_t dim, kith_metric metric, kith_transform **out);

/* ---- spec_choice.c -------------------------------------------------------------------------------------------- */

/* Number `number`, from 0, of the graphs that "HNSW", alone or with an element type, stands for: from the largest to the
 * smallest. Another spec stands for itself. `out` has room for the text, which is returned. NULL: there are no more. */
const char *kith_spec_choice(const char *spec, size_t dim, size_t number, char out[KITH_SPEC_BYTES_MAX]);

/* ---- assemble.c ----------------------------------------------------------------------------------------------- */

/* The index in place in a file: the common part is `meta`, whose spec the plan was read from. */
kith_status kith_plan_open(const kith_plan *plan, kith_container *file, const kith_index_meta *meta,
                           kith_index **out);

#endif
