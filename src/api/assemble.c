/* SPDX-License-Identifier: Apache-2.0
 *
 * assemble.c: from a plan to an index: the structure first, then what is put around it; new, or in place in a file.
 */
#include <stdio.h>

#include "api/structures.h"
#include "base/error.h"
#include "index/live.h"
#include "wrap/refine.h"
#include "wrap/transformed.h"

/* Where the parts of an index come from: made anew, or opened from a file. */
typedef struct source {
    kith_container *file; /* NULL: anew */
    uint32_t part;
    kith_index_meta meta; /* of the index that is to come; when made anew dim and metric alone */
} source;

static kith_status make_structure(source *from, const kith_spec *spec, const kith_structure *structure,
                                  kith_index **out) {
    if (from->file != NULL) return structure->open(from->file, &from->part, &from->meta, spec, out);
    return structure->create(spec, from->meta.dim, from->meta.metric, out);
}

/* What an index of centroids is like: as many vectors as its owner has lists. */
static kith_index_meta meta_of_coarse(const source *from, const kith_index *owner) {
    kith_index_meta meta = {.dim = from->meta.dim, .metric = KITH_L2, .is_trained = from->meta.is_trained};
    if (owner->vtable->list_sizes != NULL) meta.count = owner->vtable->list_sizes(owner, NULL, 0);
    meta.next_id = (int64_t)meta.count;
    (void)snprintf(meta.spec, sizeof meta.spec, "of the lists of %.200s", from->meta.spec);
    return meta;
}

/* The structure, and the index that finds its lists when the spec names one: its parts follow in a file. */
static kith_status make_inner(const kith_plan *plan, source *from, kith_index **out) {
    if (plan->coarse.part_count > 0 && plan->structure->attach == NULL)
        return kith_spec_error(plan->text, plan->coarse.parts[0].offset, "no other index can stand in %s",
                               plan->structure->example);
    kith_index *index = NULL, *coarse = NULL;
    kith_status status;
    KITH_GO(make_structure(from, &plan->inner, plan->structure, &index));
    if (plan->coarse.part_count > 0) {
        source own = {.file = from->file, .part = from->part, .meta = meta_of_coarse(from, index)};
        KITH_GO(make_structure(&own, &plan->coarse, plan->coarse_structure, &coarse));
        from->part = own.part;
        KITH_GO(plan->structure->attach(index, coarse));
    }
    *out = index;
    return KITH_OK;
done:
    kith_index_free(coarse);
    kith_index_free(index);
    return status;
}

static kith_status take_transform(const kith_plan *plan, source *from, kith_transform **out) {
    if (from->file == NULL) return kith_plan_transforms(plan, from->meta.dim, from->meta.metric, out);
    KITH_TRY(kith_transform_load(from->file, &from->part, out));
    size_t dim = kith_transform_dim_in(*out);
    if (dim == from->meta.dim) return KITH_OK;
    kith_transform_free(*out);
    *out = NULL;
    return kith_error(KITH_ERR_FORMAT, "%s: a transform of %zu dimensions in an index of %zu",
                      kith_container_path(from->file), dim, from->meta.dim);
}

static kith_status make_transformed(const kith_plan *plan, source *from, kith_index **out) {
    if (plan->transforms.part_count == 0) return make_inner(plan, from, out);
    kith_transform *transform;
    kith_index *inner = NULL;
    size_t dim = from->meta.dim;
    KITH_TRY(take_transform(plan, from, &transform));
    from->meta.dim = kith_transform_dim_out(transform);
    kith_status status;
    KITH_GO(make_inner(plan, from, &inner));
    KITH_GO(kith_transformed_create(transform, inner, out));
    from->meta.dim = dim;
    return KITH_OK;
done:
    kith_transform_free(transform);
    kith_index_free(inner);
    return status;
}

static kith_status make(const kith_plan *plan, source *from, kith_index **out) {
    if (plan->store.part_count == 0) return make_transformed(plan, from, out);
    kith_index *base = NULL, *store = NULL;
    kith_status status;
    KITH_GO(make_transformed(plan, from, &base));
    KITH_GO(make_structure(from, &plan->store, plan->store_structure, &store));
    KITH_GO(kith_refine_create(base, store, out));
    return KITH_OK;
done:
    kith_index_free(base);
    kith_index_free(store);
    return status;
}

kith_status kith_plan_open(const kith_plan *plan, kith_container *file, const kith_index_meta *meta,
                           kith_index **out) {
    source from = {.file = file, .meta = *meta};
    return make(plan, &from, out);
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
    kith_plan plan;
    char chosen[KITH_SPEC_BYTES_MAX];
    KITH_TRY(kith_plan_read(kith_spec_choice(spec, dim, 0, chosen), &plan));
    source from = {.meta = {.dim = dim, .metric = metric}};
    KITH_TRY(make(&plan, &from, out));
    return kith_live_hand_out(out);
}
