/* SPDX-License-Identifier: Apache-2.0
 *
 * assemble.c: from a plan to an index: the structure first, then what is put around it; new, or in place in a file.
 */
#include "api/structures.h"
#include "base/error.h"
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

/* The structure, over the index that finds its lists when the spec names one. */
static kith_status make_inner(const kith_plan *plan, source *from, kith_index **out) {
    if (plan->coarse.part_count == 0) return make_structure(from, &plan->inner, plan->structure, out);
    const kith_spec_part *part = &plan->coarse.parts[0];
    if (plan->structure->create_over == NULL || from->file != NULL)
        return kith_spec_error(plan->text, part->offset, "lists found by another index are not there yet");
    kith_index *coarse;
    source own = {.meta = {.dim = from->meta.dim, .metric = KITH_L2}};
    KITH_TRY(make_structure(&own, &plan->coarse, plan->coarse_structure, &coarse));
    kith_status status = plan->structure->create_over(&plan->inner, from->meta.dim, from->meta.metric, coarse, out);
    if (status != KITH_OK) kith_index_free(coarse);
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
    KITH_TRY(kith_plan_read(spec, &plan));
    source from = {.meta = {.dim = dim, .metric = metric}};
    return make(&plan, &from, out);
}
