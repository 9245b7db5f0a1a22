/* SPDX-License-Identifier: Apache-2.0
 *
 * transformed.c: what goes in is transformed, and the index inside knows nothing of it.
 *
 * In a file the transform's parts come first, then those of the index inside.
 */
#include "wrap/transformed.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "exact/check.h"
#include "index/convert.h"
#include "index/spec.h"

/* Queries that are transformed at a time take so much memory. */
static const size_t query_bytes_max = (size_t)32 << 20;
/* So do vectors of one addition, where the inner index can take them in parts. */
static const size_t addition_bytes_max = (size_t)256 << 20;
enum { BUDGET_SHARE = 16 }; /* of a budget; the rest is for what the inner index does with a part */

typedef struct transformed {
    kith_index common;
    kith_transform *transform;
    kith_index *inner;
} transformed;

static transformed *of(kith_index *index) { return (transformed *)index; }
static const transformed *of_const(const kith_index *index) { return (const transformed *)index; }

/* ---- Life ---------------------------------------------------------------------------------------------------- */

static void release(kith_index *index) {
    transformed *own = of(index);
    kith_transform_free(own->transform);
    kith_index_free(own->inner);
    kith_free(own);
}

static kith_status clone(const kith_index *index, kith_index **out) {
    const transformed *own = of_const(index);
    kith_transform *transform = NULL;
    kith_index *inner = NULL;
    kith_status status;
    KITH_GO(kith_transform_clone(own->transform, &transform));
    KITH_GO(kith_index_copy(own->inner, &inner));
    KITH_GO(kith_transformed_create(transform, inner, out));
    return KITH_OK;
done:
    kith_transform_free(transform);
    kith_index_free(inner);
    return status;
}

static size_t memory(const kith_index *index, kith_memory_part *parts, size_t capacity) {
    const transformed *own = of_const(index);
    size_t count = own->inner->vtable->memory(own->inner, parts, capacity);
    if (count < capacity) parts[count] = (kith_memory_part){"transform", kith_transform_bytes(own->transform)};
    return count + 1;
}

static size_t list_sizes(const kith_index *index, uint64_t *sizes, size_t capacity) {
    const kith_index *inner = of_const(index)->inner;
    return inner->vtable->list_sizes != NULL ? inner->vtable->list_sizes(inner, sizes, capacity) : 0;
}

static kith_prefetch *prefetch(kith_index *index) { return kith_index_prefetch_inner(of(index)->inner); }

static kith_status graph_stats(const kith_index *index, kith_graph_stats *stats, uint64_t *degrees,
                               size_t capacity) {
    return kith_index_graph_stats_inner(of_const(index)->inner, stats, degrees, capacity);
}

/* The transform's names, then the inner index's spec. */
static kith_status write_spec(const kith_transform *transform, const kith_index *inner, size_t bytes_max,
                              char *spec) {
    char names[KITH_SPEC_BYTES_MAX];
    kith_transform_describe(transform, names, sizeof names);
    return kith_spec_join(names, ",", inner->spec, bytes_max, spec);
}

/* ---- Applying ------------------------------------------------------------------------------------------------ */

/* All rows of a view, transformed, and checked as the inner index needs them: *out has `floats`, which the caller
 * frees. */
static kith_status apply_all(const char *what, const kith_transform *transform, const kith_index *inner,
                             const kith_view *view, const kith_job *job, float **floats, kith_view *out) {
    size_t dim = kith_transform_dim_out(transform), bytes;
    *floats = NULL;
    if (kith_mul_overflows(view->count, dim * sizeof **floats, &bytes))
        return kith_error(KITH_ERR_OVERFLOW, "%s: %zu vectors of dimension %zu do not fit the address space", what,
                          view->count, dim);
    if (job->memory_bytes_max != 0 && bytes > job->memory_bytes_max)
        return kith_error(KITH_ERR_BUDGET, "%s: %zu transformed vectors need %zu bytes, the budget is %llu", what,
                          view->count, bytes, (unsigned long long)job->memory_bytes_max);
    kith_arena arena = {0};
    kith_status status;
    KITH_GO(kith_alloc(view->count, dim * sizeof **floats, floats));
    KITH_GO(kith_transform_apply(transform, view, job->threads, &arena, *floats));
    *out = (kith_view){*floats, KITH_F32, view->count, dim, dim * sizeof **floats};
    KITH_GO(kith_check_storable(what, out, inner->dtype, inner->metric, job->threads, job->memory_bytes_max));
done:
    kith_arena_free(&arena);
    if (status != KITH_OK) {
        kith_free(*floats);
        *floats = NULL;
    }
    return status;
}

/* ---- Changes ------------------------------------------------------------------------------------------------- */

static kith_status train(kith_index *index, const kith_view *sample, const kith_job *job) {
    transformed *own = of(index);
    if (index->count > 0)
        return kith_error(KITH_ERR_ARGUMENT, "train: the index holds %zu vectors; reset it first", index->count);
    kith_transform *fresh = NULL;
    float *floats = NULL;
    kith_view inner_sample;
    kith_status status;
    KITH_GO(kith_transform_clone(own->transform, &fresh));
    KITH_GO(kith_transform_train(fresh, sample, job));
    if (own->inner->vtable->train != NULL) {
        KITH_GO(apply_all("train", fresh, own->inner, sample, job, &floats, &inner_sample));
        KITH_GO(own->inner->vtable->train(own->inner, &inner_sample, job));
    }
    own->inner->is_trained = true;
    kith_transform *old = own->transform;
    own->transform = fresh;
    fresh = old;
    /* The inner index may have chosen numbers; the spec was made with room to spare. */
    (void)write_spec(own->transform, own->inner, KITH_SPEC_BYTES_MAX, index->spec);
done:
    kith_free(floats);
    kith_transform_free(fresh);
    return status;
}

static size_t train_count(const kith_index *index) {
    const transformed *own = of_const(index);
    size_t count = kith_transform_needs_rows(own->transform) ? KITH_TRAIN_COUNT : 0;
    return kith_max_size(count, kith_index_train_count(own->inner));
}

/* Progress of a part, as that of the whole. */
typedef struct part_progress {
    const kith_job *job; /* of the whole */
    size_t first, count, total;
} part_progress;

static int report_part(void *user, const char *phase, uint64_t done, uint64_t total) {
    const part_progress *part = user;
    double share = total > 0 ? (double)done / (double)total : 0;
    return part->job->progress(part->job->progress_user, phase,
                               part->first + (uint64_t)(share * (double)part->count), part->total);
}

/* Transforms a part of an addition and adds it to `into`. */
static kith_status add_part(const transformed *own, kith_index *into, const kith_addition *addition, size_t first,
                            size_t count) {
    part_progress progress = {addition->job, first, count, addition->view.count};
    kith_job job = *addition->job;
    kith_addition inner = *addition;
    kith_view view = addition->view;
    float *floats;
    view.data = kith_view_row(&addition->view, first);
    view.count = count;
    if (job.progress != NULL) {
        job.progress = report_part;
        job.progress_user = &progress;
    }
    inner.job = &job;
    inner.first_id = addition->first_id + (int64_t)first;
    if (addition->ids != NULL) inner.ids = addition->ids + first;
    KITH_TRY(apply_all("add", own->transform, into, &view, &job, &floats, &inner.view));
    kith_status status = kith_index_add_inner(into, &inner);
    kith_free(floats);
    return status;
}

/* The rows of an addition that are transformed at a time. */
static size_t rows_per_part(const transformed *own, const kith_addition *addition) {
    const kith_index_vtable *inner = own->inner->vtable;
    size_t bytes = addition_bytes_max, row_bytes = own->inner->dim * sizeof(float);
    uint64_t budget = addition->job->memory_bytes_max;
    if (inner->clone_empty == NULL || inner->merge == NULL) return addition->view.count;
    if (budget != 0 && budget / BUDGET_SHARE < bytes) bytes = (size_t)(budget / BUDGET_SHARE);
    return kith_min_size(addition->view.count, kith_max_size(1, bytes / row_bytes));
}

/* Part by part into an index of their own, which the inner one then takes in as a whole: so that a failure in between
 * leaves nothing behind. Costs what is stored of the addition once more, for a while. */
static kith_status add_parts(transformed *own, const kith_addition *addition, size_t rows) {
    kith_index *parts;
    KITH_TRY(kith_index_copy_empty(own->inner, &parts));
    kith_status status = KITH_OK;
    for (size_t first = 0; first < addition->view.count && status == KITH_OK; first += rows) {
        status = add_part(own, parts, addition, first, kith_min_size(rows, addition->view.count - first));
        if (status != KITH_OK && first > 0) { /* which counts from the part's first row */
            char message[512];
            (void)snprintf(message, sizeof message, "%s", kith_error_message());
            status = kith_error(status, "%s (of the vectors from %zu on)", message, first);
        }
    }
    if (status == KITH_OK) status = kith_index_merge_inner(own->inner, parts, 0);
    kith_index_free(parts);
    return status;
}

static kith_status add(kith_index *index, const kith_addition *addition) {
    transformed *own = of(index);
    size_t rows = rows_per_part(own, addition), count = addition->view.count;
    kith_status status =
        rows < count ? add_parts(own, addition, rows) : add_part(own, own->inner, addition, 0, count);
    index->count = own->inner->count;
    return status;
}

static kith_status remove_ids(kith_index *index, const int64_t *ids, size_t count, size_t *removed) {
    kith_index *inner = of(index)->inner;
    kith_status status = inner->vtable->remove(inner, ids, count, removed);
    index->count = inner->count;
    return status;
}

static kith_status update(kith_index *index, const kith_view *vectors, const int64_t *ids) {
    transformed *own = of(index);
    kith_job job;
    KITH_TRY(kith_job_read(&job, NULL));
    kith_view view;
    float *floats;
    KITH_TRY(apply_all("update", own->transform, own->inner, vectors, &job, &floats, &view));
    kith_status status = own->inner->vtable->update(own->inner, &view, ids);
    kith_free(floats);
    return status;
}

static kith_status upsert(kith_index *index, const kith_addition *addition, size_t *replaced) {
    transformed *own = of(index);
    kith_addition inner = *addition;
    float *floats;
    KITH_TRY(apply_all("upsert", own->transform, own->inner, &addition->view, addition->job, &floats, &inner.view));
    kith_status status = kith_index_upsert_inner(own->inner, &inner, replaced);
    kith_free(floats);
    index->count = own->inner->count;
    return status;
}

static kith_status holds(const kith_index *index, const int64_t *ids, size_t count, bool *held) {
    const kith_index *inner = of_const(index)->inner;
    return inner->vtable->holds(inner, ids, count, held);
}

static kith_status compact(kith_index *index) {
    kith_index *inner = of(index)->inner;
    return inner->vtable->compact != NULL ? inner->vtable->compact(inner) : KITH_OK;
}

static void reset(kith_index *index) {
    kith_index_reset_inner(of(index)->inner);
    index->count = 0;
}

static kith_status merge(kith_index *index, const kith_index *other, int64_t id_shift) {
    transformed *own = of(index);
    const transformed *from = of_const(other);
    if (!kith_transform_is_same(own->transform, from->transform))
        return kith_error(KITH_ERR_ARGUMENT, "merge: the transforms of the two indexes %s were not trained alike",
                          index->spec);
    kith_status status = kith_index_merge_inner(own->inner, from->inner, id_shift);
    index->count = own->inner->count;
    return status;
}

static kith_status reconstruct(const kith_index *index, const int64_t *ids, size_t count, float *out) {
    const transformed *own = of_const(index);
    size_t dim = kith_transform_dim_out(own->transform);
    kith_arena arena = {0};
    float *floats;
    size_t bytes;
    if (kith_mul_overflows(count, dim * sizeof *floats, &bytes))
        return kith_error(KITH_ERR_OVERFLOW, "reconstruct: %zu vectors do not fit the address space", count);
    KITH_TRY(kith_alloc(count, dim * sizeof *floats, &floats));
    kith_status status;
    KITH_GO(own->inner->vtable->reconstruct(own->inner, ids, count, floats));
    const kith_view view = {floats, KITH_F32, count, dim, 0};
    KITH_GO(kith_transform_invert(own->transform, &view, kith_threads_default(), &arena, out));
done:
    kith_arena_free(&arena);
    kith_free(floats);
    return status;
}

/* ---- Searches ------------------------------------------------------------------------------------------------ */

/* Queries first .. of a request, as many as `floats` has room for, as a request to the inner index. */
static kith_status next_queries(const transformed *own, const kith_search_request *request, size_t first,
                                size_t count, float *floats, kith_search_request *inner) {
    size_t dim = own->inner->dim;
    kith_view view = request->queries;
    view.data = kith_view_row(&request->queries, first);
    view.count = count;
    KITH_TRY(kith_transform_apply(own->transform, &view, request->threads, request->arena, floats));
    *inner = *request;
    inner->queries = (kith_view){floats, KITH_F32, count, dim, dim * sizeof *floats};
    if (request->reports != NULL) inner->reports = request->reports + first;
    return kith_check_vectors("transformed queries", &inner->queries, first, own->inner->metric, request->threads);
}

/* How many queries are transformed at a time, and room for them. */
static kith_status take_room(const transformed *own, const kith_search_request *request, size_t *block,
                             float **floats) {
    size_t row_bytes = own->inner->dim * sizeof **floats;
    *block = kith_min_size(request->queries.count, kith_max_size(1, query_bytes_max / row_bytes));
    return kith_arena_take(request->arena, *block, row_bytes, floats);
}

static kith_status search(const kith_index *index, const kith_search_request *request,
                          const kith_search_results *results) {
    const transformed *own = of_const(index);
    size_t block, k = results->k;
    float *floats;
    KITH_TRY(take_room(own, request, &block, &floats));
    for (size_t first = 0; first < request->queries.count; first += block) {
        kith_search_request inner;
        size_t count = kith_min_size(block, request->queries.count - first);
        KITH_TRY(next_queries(own, request, first, count, floats, &inner));
        const kith_search_results part = {
            .k = k,
            .ids = results->ids + first * k,
            .distances = results->distances != NULL ? results->distances + first * k : NULL,
            .counts = results->counts != NULL ? results->counts + first : NULL,
            .errors = results->errors != NULL ? results->errors + first * k : NULL,
        };
        KITH_TRY(own->inner->vtable->search(own->inner, &inner, &part));
    }
    return KITH_OK;
}

/* All at once: what turns keys into values leans on the queries of the call. */
static kith_status range_search(const kith_index *index, const kith_search_request *request,
                                kith_range_lists *lists) {
    const transformed *own = of_const(index);
    kith_search_request inner;
    float *floats;
    KITH_TRY(kith_arena_take(request->arena, request->queries.count, own->inner->dim * sizeof *floats, &floats));
    KITH_TRY(next_queries(own, request, 0, request->queries.count, floats, &inner));
    return own->inner->vtable->range_search(own->inner, &inner, lists);
}

/* Errors are those against the transformed vectors' distances: of use where these are the vectors' own. */
static bool bounds_errors(const kith_index *index) {
    const kith_index *inner = of_const(index)->inner;
    return !kith_transformed_differs(index) && inner->vtable->bounds_errors != NULL &&
           inner->vtable->bounds_errors(inner);
}

/* ---- Files --------------------------------------------------------------------------------------------------- */

static kith_status save(const kith_index *index, kith_container_writer *writer, uint32_t *part) {
    const transformed *own = of_const(index);
    KITH_TRY(kith_transform_save(own->transform, writer, part));
    return own->inner->vtable->save(own->inner, writer, part);
}

static kith_status verify(const kith_index *index) {
    const kith_index *inner = of_const(index)->inner;
    return inner->vtable->verify(inner);
}

static void list_ids(const kith_index *index, int64_t *ids) {
    const kith_index *inner = of_const(index)->inner;
    inner->vtable->list_ids(inner, ids);
}

/* ---- Making -------------------------------------------------------------------------------------------------- */

static const kith_index_vtable transformed_vtable = {
    .name = "Transformed",
    .struct_bytes = sizeof(transformed),
    .inner_offsets = {offsetof(transformed, inner)},
    .inner_count = 1,
    .concurrent = true,
    .release = release,
    .clone = clone,
    .memory = memory,
    .list_sizes = list_sizes,
    .graph_stats = graph_stats,
    .prefetch = prefetch,
    .train = train,
    .train_count = train_count,
    .add = add,
    .remove = remove_ids,
    .update = update,
    .upsert = upsert,
    .holds = holds,
    .compact = compact,
    .reset = reset,
    .merge = merge,
    .reconstruct = reconstruct,
    .search = search,
    .range_search = range_search,
    .bounds_errors = bounds_errors,
    .save = save,
    .verify = verify,
    .list_ids = list_ids,
};

kith_status kith_transformed_create(kith_transform *transform, kith_index *inner, kith_index **out) {
    char spec[KITH_SPEC_BYTES_MAX];
    *out = NULL;
    KITH_TRY(write_spec(transform, inner, KITH_SPEC_BYTES_MAX - KITH_SPEC_SPARE, spec));
    if (!kith_transform_is_trained(transform) && !kith_transform_needs_rows(transform))
        KITH_TRY(kith_transform_train(transform, NULL, NULL));
    transformed *own;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *own, &own));
    kith_index_init(&own->common, &transformed_vtable, kith_transform_dim_in(transform), inner->metric, KITH_F32,
                    spec);
    own->common.count = inner->count;
    own->common.next_id = inner->next_id;
    own->common.is_trained = kith_transform_is_trained(transform) && inner->is_trained;
    own->common.is_mapped = inner->is_mapped;
    own->common.params = inner->params;
    own->common.param_count = inner->param_count;
    own->transform = transform;
    own->inner = inner;
    *out = &own->common;
    return KITH_OK;
}

bool kith_transformed_differs(const kith_index *index) {
    if (index->vtable != &transformed_vtable) return false;
    unsigned needed = index->metric == KITH_L2 ? KITH_KEEPS_L2 : KITH_KEEPS_IP;
    return (kith_transform_keeps(of_const(index)->transform) & needed) == 0;
}
