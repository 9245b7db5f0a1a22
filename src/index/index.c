/* SPDX-License-Identifier: Apache-2.0
 *
 * index.c: an index's life, what it is, and its filling: the checks that every structure relies on.
 */
#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "base/sort.h"
#include "index/convert.h"
#include "index/live.h"
#include "index/vtable.h"

void kith_index_init(kith_index *index, const kith_index_vtable *vtable, size_t dim, kith_metric metric,
                     kith_dtype dtype, const char *spec) {
    *index = (kith_index){
        .vtable = vtable,
        .dim = dim,
        .metric = metric,
        .dtype = dtype,
        .is_trained = vtable->train == NULL,
        .params = vtable->params,
        .param_count = vtable->param_count,
    };
    size_t bytes = strlen(spec);
    assert(bytes < sizeof index->spec);
    memcpy(index->spec, spec, bytes);
}

void kith_index_free(kith_index *index) {
    if (index == NULL) return;
    kith_container *file = index->file;
    if (index->live != NULL) kith_live_close(index);
    index->vtable->release(index);
    kith_container_close(file);
}

/* The common part of a copy. */
static void complete(const kith_index *index, kith_index *copy) {
    const kith_param *params = copy->params; /* they may lie in the copy */
    *copy = *index;
    copy->params = params;
    copy->is_mapped = false;
    copy->live = NULL;
    copy->file = NULL;
}

kith_status kith_index_copy(const kith_index *index, kith_index **out) {
    KITH_TRY(index->vtable->clone(index, out));
    complete(index, *out);
    return KITH_OK;
}

kith_status kith_index_copy_empty(const kith_index *index, kith_index **out) {
    KITH_TRY(index->vtable->clone_empty(index, out));
    complete(index, *out);
    (*out)->count = 0;
    (*out)->next_id = 0;
    return KITH_OK;
}

kith_status kith_index_clone(const kith_index *index, kith_index **out) {
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "clone: out must not be NULL");
    *out = NULL;
    if (index == NULL) return kith_error(KITH_ERR_ARGUMENT, "clone: index must not be NULL");
    if (index->is_mapped) KITH_TRY(index->vtable->verify(index));
    KITH_TRY(kith_hold_begin(index));
    kith_status status = kith_index_copy(index, out);
    kith_hold_end(index);
    return status == KITH_OK ? kith_live_hand_out(out) : status;
}

size_t kith_index_dim(const kith_index *index) { return index->dim; }
size_t kith_index_count(const kith_index *index) { return kith_live_count(index); }
kith_metric kith_index_metric(const kith_index *index) { return index->metric; }
kith_dtype kith_index_dtype(const kith_index *index) { return index->dtype; }
int kith_index_is_trained(const kith_index *index) { return index->is_trained; }
int kith_index_is_mapped(const kith_index *index) { return index->is_mapped; }
const char *kith_index_spec(const kith_index *index) { return index->spec; }

kith_status kith_index_memory(const kith_index *index, kith_memory_part *parts, size_t capacity, size_t *count) {
    if (count == NULL) return kith_error(KITH_ERR_ARGUMENT, "memory: count must not be NULL");
    *count = 0;
    if (index == NULL || (parts == NULL && capacity > 0))
        return kith_error(KITH_ERR_ARGUMENT, "memory: index and parts must not be NULL");
    KITH_TRY(kith_hold_begin(index));
    *count = index->vtable->memory(index, parts, capacity);
    kith_hold_end(index);
    return KITH_OK;
}

kith_status kith_index_memory_for_inner(const kith_index *index, size_t count, bool has_ids, uint64_t *bytes) {
    if (index->vtable->memory_for == NULL)
        return kith_error(KITH_ERR_UNSUPPORTED, "memory: what %s takes depends on the vectors", index->spec);
    return index->vtable->memory_for(index, count, has_ids, bytes);
}

kith_status kith_index_memory_for(const kith_index *index, size_t count, int has_ids, uint64_t *bytes) {
    if (bytes == NULL) return kith_error(KITH_ERR_ARGUMENT, "memory: bytes must not be NULL");
    *bytes = 0;
    if (index == NULL) return kith_error(KITH_ERR_ARGUMENT, "memory: index must not be NULL");
    uint64_t sum = 0;
    KITH_TRY(kith_hold_begin(index)); /* a repair or a compaction replaces whole arrays */
    kith_status status = kith_index_memory_for_inner(index, count, has_ids != 0, &sum);
    kith_hold_end(index);
    if (status == KITH_OK) *bytes = sum;
    return status;
}

kith_status kith_index_list_sizes(const kith_index *index, uint64_t *sizes, size_t capacity, size_t *count) {
    if (count == NULL) return kith_error(KITH_ERR_ARGUMENT, "list sizes: count must not be NULL");
    *count = 0;
    if (index == NULL || (sizes == NULL && capacity > 0))
        return kith_error(KITH_ERR_ARGUMENT, "list sizes: index and sizes must not be NULL");
    if (index->vtable->list_sizes == NULL) return KITH_OK;
    KITH_TRY(kith_hold_begin(index));
    *count = index->vtable->list_sizes(index, sizes, capacity);
    kith_hold_end(index);
    return KITH_OK;
}

kith_status kith_index_graph_stats_inner(const kith_index *index, kith_graph_stats *stats, uint64_t *degrees,
                                         size_t capacity) {
    if (index->vtable->graph_stats == NULL)
        return kith_error(KITH_ERR_UNSUPPORTED, "graph statistics: an index %s has no graph", index->spec);
    return index->vtable->graph_stats(index, stats, degrees, capacity);
}

kith_status kith_index_graph_stats(const kith_index *index, kith_graph_stats *stats, uint64_t *degrees,
                                   size_t capacity, size_t *count) {
    if (count != NULL) *count = 0;
    if (index == NULL || stats == NULL || count == NULL || (degrees == NULL && capacity > 0))
        return kith_error(KITH_ERR_ARGUMENT, "graph statistics: index, stats, degrees and count must not be NULL");
    size_t size = stats->size;
    kith_graph_stats own = {.size = sizeof own};
    if (size < sizeof own.size || size > sizeof own)
        return kith_error(KITH_ERR_ARGUMENT, "kith_graph_stats: size %zu; this library knows %zu", size,
                          sizeof own);
    memset(stats, 0, size);
    stats->size = size;
    if (capacity > 0) memset(degrees, 0, capacity * sizeof *degrees);
    KITH_TRY(kith_hold_begin(index));
    kith_status status = kith_index_graph_stats_inner(index, &own, degrees, capacity);
    kith_hold_end(index);
    if (status != KITH_OK) return status;
    own.size = size;
    memcpy(stats, &own, size);
    *count = (size_t)own.degree_max + 1;
    return KITH_OK;
}

void kith_prefetch_init(kith_prefetch *prefetch) {
    *prefetch = (kith_prefetch){.size = sizeof *prefetch, .links = 2, .row_lines = 8, .walks = 2};
}

kith_status kith_prefetch_check(const kith_prefetch *prefetch) {
    if (prefetch->links > 8 || prefetch->row_lines > 64 || prefetch->walks < 1 || prefetch->walks > 8)
        return kith_error(KITH_ERR_ARGUMENT,
                          "prefetch: links = %u, row_lines = %u, walks = %u are not in 0..8, 0..64 and 1..8",
                          prefetch->links, prefetch->row_lines, prefetch->walks);
    return KITH_OK;
}

kith_prefetch *kith_index_prefetch_inner(kith_index *index) {
    return index->vtable->prefetch != NULL ? index->vtable->prefetch(index) : NULL;
}

static kith_status prefetch_of(const kith_index *index, kith_prefetch **out) {
    if (index == NULL) return kith_error(KITH_ERR_ARGUMENT, "prefetch: index must not be NULL");
    *out = kith_index_prefetch_inner((kith_index *)(uintptr_t)index);
    if (*out == NULL) return kith_error(KITH_ERR_UNSUPPORTED, "prefetch: an index %s has no graph", index->spec);
    return KITH_OK;
}

kith_status kith_index_prefetch(const kith_index *index, kith_prefetch *prefetch) {
    kith_prefetch *held;
    if (prefetch == NULL) return kith_error(KITH_ERR_ARGUMENT, "prefetch: where to write it must not be NULL");
    size_t size = prefetch->size;
    if (size < sizeof size || size > sizeof *prefetch)
        return kith_error(KITH_ERR_ARGUMENT, "kith_prefetch: size %zu; this library knows %zu", size,
                          sizeof *prefetch);
    KITH_TRY(prefetch_of(index, &held));
    memcpy(prefetch, held, size);
    prefetch->size = size;
    return KITH_OK;
}

kith_status kith_index_set_prefetch(kith_index *index, const kith_prefetch *prefetch) {
    kith_prefetch own, *held;
    kith_prefetch_init(&own);
    KITH_TRY(kith_options_read("prefetch", &own, sizeof own, prefetch));
    KITH_TRY(prefetch_of(index, &held));
    KITH_TRY(kith_prefetch_check(&own));
    KITH_TRY(kith_change_begin(index)); /* searches have views of it */
    *held = own;
    kith_change_end(index);
    return KITH_OK;
}

size_t kith_index_train_count(const kith_index *index) {
    if (index == NULL || index->vtable->train == NULL) return 0;
    return index->vtable->train_count != NULL ? index->vtable->train_count(index) : KITH_TRAIN_COUNT;
}

/* ---- Filling -------------------------------------------------------------------------------------------- */

kith_status kith_index_check_writable(const char *what, const kith_index *index) {
    if (index == NULL) return kith_error(KITH_ERR_ARGUMENT, "%s: index must not be NULL", what);
    if (index->is_mapped)
        return kith_error(KITH_ERR_READ_ONLY, "%s: the index is mapped from a file; clone it to change it", what);
    return KITH_OK;
}

/* The shape of vectors that are to be stored; *out is the view with its stride set. */
static kith_status check_shape(const char *what, const kith_index *index, const kith_view *vectors,
                               kith_view *out) {
    if (vectors == NULL) return kith_error(KITH_ERR_ARGUMENT, "%s: the view of vectors must not be NULL", what);
    KITH_TRY(kith_check_view_dim(what, vectors, index->dim));
    *out = *vectors;
    out->stride = kith_view_stride(vectors);
    return KITH_OK;
}

/* Their values, as they will be stored. */
static kith_status check_values(const char *what, const kith_index *index, const kith_view *view,
                                const kith_job *job) {
    return kith_check_storable(what, view, index->dtype, index->metric, job->threads, job->memory_bytes_max);
}

static kith_status check_id_range(const char *what, const int64_t *ids, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] > KITH_ID_MAX)
            return kith_error(KITH_ERR_ARGUMENT, "%s: id %lld at position %zu is outside 0..2^63 - 2", what,
                              (long long)ids[i], i);
    return KITH_OK;
}

/* `repeated` is the status for an id that stands twice. */
static kith_status check_ids_distinct(const char *what, const int64_t *ids, size_t count, kith_status repeated,
                                      uint64_t memory_bytes_max) {
    size_t twice;
    if (kith_mul_overflows(count, 2 * sizeof *ids, &twice))
        return kith_error(KITH_ERR_OVERFLOW, "%s: %zu ids do not fit the address space", what, count);
    if (memory_bytes_max != 0 && twice > memory_bytes_max)
        return kith_error(KITH_ERR_BUDGET, "%s: checking %zu ids needs %zu bytes, the budget is %llu", what, count,
                          twice, (unsigned long long)memory_bytes_max);
    int64_t *sorted;
    KITH_TRY(kith_alloc(count, 2 * sizeof *ids, &sorted));
    memcpy(sorted, ids, count * sizeof *ids);
    kith_sort_i64(sorted, count, sorted + count);
    kith_status status = KITH_OK;
    for (size_t i = 1; i < count && status == KITH_OK; i++)
        if (sorted[i] == sorted[i - 1])
            status = kith_error(repeated, "%s: id %lld stands twice in the call", what, (long long)sorted[i]);
    kith_free(sorted);
    return status;
}

kith_status kith_index_train(kith_index *index, const kith_view *sample, const kith_job *job) {
    KITH_TRY(kith_index_check_writable("train", index));
    kith_job own;
    KITH_TRY(kith_job_read(&own, job));
    kith_view view;
    KITH_TRY(check_shape("train", index, sample, &view));
    KITH_TRY(check_values("train", index, &view, &own));
    KITH_TRY(kith_change_begin(index));
    kith_status status = index->vtable->train != NULL ? index->vtable->train(index, &view, &own) : KITH_OK;
    if (status == KITH_OK) index->is_trained = true;
    kith_change_end(index);
    return status;
}

/* Ids that are not given are numbered on, within the change. */
static kith_status number_on(const kith_index *index, kith_addition *addition) {
    size_t count = addition->view.count;
    addition->first_id = index->next_id;
    if (addition->ids == NULL && count > (uint64_t)(KITH_ID_MAX - index->next_id) + 1)
        return kith_error(KITH_ERR_OVERFLOW, "add: %zu ids from %lld on pass 2^63 - 2", count,
                          (long long)index->next_id);
    return KITH_OK;
}

/* The ids of an addition, where the caller gives them. */
static kith_status check_new_ids(const int64_t *ids, kith_addition *addition) {
    size_t count = addition->view.count;
    addition->ids = ids;
    addition->ids_rise = true;
    if (ids == NULL) return KITH_OK;
    KITH_TRY(check_id_range("add", ids, count));
    addition->ids_rise = kith_rises_i64(ids, count);
    if (addition->ids_rise) return KITH_OK;
    return check_ids_distinct("add", ids, count, KITH_ERR_EXISTS, addition->job->memory_bytes_max);
}

static int64_t largest_id(const kith_addition *addition) {
    if (addition->ids == NULL) return addition->first_id + (int64_t)(addition->view.count - 1);
    int64_t largest = 0;
    for (size_t i = 0; i < addition->view.count; i++)
        if (addition->ids[i] > largest) largest = addition->ids[i];
    return largest;
}

static void note_ids(kith_index *index, const kith_addition *addition) {
    int64_t next_id = largest_id(addition) + 1;
    if (next_id > index->next_id) index->next_id = next_id;
}

kith_status kith_index_add_inner(kith_index *index, const kith_addition *addition) {
    KITH_TRY(index->vtable->add(index, addition));
    note_ids(index, addition);
    return KITH_OK;
}

kith_status kith_index_upsert_inner(kith_index *index, const kith_addition *addition, size_t *replaced) {
    KITH_TRY(index->vtable->upsert(index, addition, replaced));
    note_ids(index, addition);
    return KITH_OK;
}

kith_status kith_index_add(kith_index *index, const kith_view *vectors, const int64_t *ids, const kith_job *job) {
    KITH_TRY(kith_index_check_writable("add", index));
    kith_job own;
    KITH_TRY(kith_job_read(&own, job));
    if (!index->is_trained)
        return kith_error(KITH_ERR_NOT_TRAINED, "add: an index %s needs kith_index_train first", index->spec);
    kith_addition addition = {.job = &own};
    KITH_TRY(check_shape("add", index, vectors, &addition.view));
    KITH_TRY(check_new_ids(ids, &addition));
    KITH_TRY(check_values("add", index, &addition.view, &own));
    KITH_TRY(kith_change_begin(index));
    kith_status status = number_on(index, &addition);
    if (status == KITH_OK) status = kith_index_add_inner(index, &addition);
    kith_change_end(index);
    return status;
}

kith_status kith_index_upsert(kith_index *index, const kith_view *vectors, const int64_t *ids, const kith_job *job,
                              size_t *replaced) {
    size_t old = 0;
    if (replaced != NULL) *replaced = 0;
    KITH_TRY(kith_index_check_writable("upsert", index));
    if (ids == NULL) return kith_error(KITH_ERR_ARGUMENT, "upsert: ids must not be NULL");
    kith_job own;
    KITH_TRY(kith_job_read(&own, job));
    if (!index->is_trained)
        return kith_error(KITH_ERR_NOT_TRAINED, "upsert: an index %s needs kith_index_train first", index->spec);
    kith_addition addition = {.ids = ids, .job = &own};
    KITH_TRY(check_shape("upsert", index, vectors, &addition.view));
    KITH_TRY(check_id_range("upsert", ids, addition.view.count));
    addition.ids_rise = kith_rises_i64(ids, addition.view.count);
    if (!addition.ids_rise)
        KITH_TRY(check_ids_distinct("upsert", ids, addition.view.count, KITH_ERR_ARGUMENT, own.memory_bytes_max));
    KITH_TRY(check_values("upsert", index, &addition.view, &own));
    KITH_TRY(kith_change_begin(index));
    kith_status status = kith_index_upsert_inner(index, &addition, &old);
    kith_change_end(index);
    if (replaced != NULL && status == KITH_OK) *replaced = old;
    return status;
}

kith_status kith_index_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed) {
    size_t gone = 0;
    if (removed != NULL) *removed = 0;
    KITH_TRY(kith_index_check_writable("remove", index));
    if (ids == NULL && count > 0) return kith_error(KITH_ERR_ARGUMENT, "remove: ids is NULL, count is %zu", count);
    if (count == 0) return KITH_OK;
    KITH_TRY(kith_change_begin(index));
    kith_status status = index->vtable->remove(index, ids, count, &gone);
    kith_change_end(index);
    if (removed != NULL && status == KITH_OK) *removed = gone;
    return status;
}

kith_status kith_index_update(kith_index *index, const kith_view *vectors, const int64_t *ids) {
    KITH_TRY(kith_index_check_writable("update", index));
    if (ids == NULL) return kith_error(KITH_ERR_ARGUMENT, "update: ids must not be NULL");
    kith_job job;
    KITH_TRY(kith_job_read(&job, NULL));
    kith_view view;
    KITH_TRY(check_shape("update", index, vectors, &view));
    KITH_TRY(check_id_range("update", ids, view.count));
    if (!kith_rises_i64(ids, view.count))
        KITH_TRY(check_ids_distinct("update", ids, view.count, KITH_ERR_ARGUMENT, 0));
    KITH_TRY(check_values("update", index, &view, &job));
    KITH_TRY(kith_change_begin(index));
    kith_status status = index->vtable->update(index, &view, ids);
    kith_change_end(index);
    return status;
}

kith_status kith_index_merge_inner(kith_index *into, const kith_index *from, int64_t id_shift) {
    if (into->vtable->merge == NULL)
        return kith_error(KITH_ERR_UNSUPPORTED, "merge: an index %s cannot take another one in", into->spec);
    int64_t next_id;
    if (__builtin_add_overflow(from->next_id, id_shift, &next_id))
        return kith_error(KITH_ERR_OVERFLOW, "merge: ids up to %lld shifted by %lld pass 2^63 - 2",
                          (long long)from->next_id - 1, (long long)id_shift);
    KITH_TRY(into->vtable->merge(into, from, id_shift));
    if (next_id > into->next_id) into->next_id = next_id;
    return KITH_OK;
}

/* Within the change. */
static kith_status merge(kith_index *into, const kith_index *from, int64_t id_shift) {
    if (from->count == 0) return KITH_OK;
    if (from->is_mapped) KITH_TRY(from->vtable->verify(from));
    return kith_index_merge_inner(into, from, id_shift);
}

/* Both are held, in the order of their addresses, so that two merges the other way round do not wait for each other. */
static kith_status merge_alone(kith_index *into, const kith_index *from, int64_t id_shift) {
    bool from_first = (uintptr_t)from < (uintptr_t)into;
    if (from_first) KITH_TRY(kith_hold_begin(from));
    kith_status status = kith_change_begin(into);
    if (status == KITH_OK) {
        if (!from_first) status = kith_hold_begin(from);
        if (status == KITH_OK) {
            status = merge(into, from, id_shift);
            if (!from_first) kith_hold_end(from);
        }
        kith_change_end(into);
    }
    if (from_first) kith_hold_end(from);
    return status;
}

kith_status kith_index_merge(kith_index *into, const kith_index *from, int64_t id_shift) {
    KITH_TRY(kith_index_check_writable("merge", into));
    if (from == NULL || from == into || id_shift < 0)
        return kith_error(KITH_ERR_ARGUMENT, "merge: needs another index and a shift of 0 or more");
    if (into->vtable != from->vtable || into->dim != from->dim || into->metric != from->metric ||
        strcmp(into->spec, from->spec) != 0)
        return kith_error(KITH_ERR_ARGUMENT, "merge: %s, %s, dimension %zu into %s, %s, dimension %zu", from->spec,
                          kith_metric_name(from->metric), from->dim, into->spec, kith_metric_name(into->metric),
                          into->dim);
    if (kith_live_count(from) == 0) return KITH_OK;
    if (!into->is_trained)
        return kith_error(KITH_ERR_NOT_TRAINED, "merge: an index %s needs kith_index_train first", into->spec);
    return merge_alone(into, from, id_shift);
}

void kith_index_reset_inner(kith_index *index) {
    index->vtable->reset(index);
    index->next_id = 0;
}

kith_status kith_index_reset(kith_index *index) {
    KITH_TRY(kith_index_check_writable("reset", index));
    KITH_TRY(kith_change_begin(index));
    kith_change_show_empty(index);
    kith_index_reset_inner(index);
    kith_change_end(index);
    return KITH_OK;
}

kith_status kith_index_reconstruct(const kith_index *index, const int64_t *ids, size_t count, float *out) {
    if (index == NULL) return kith_error(KITH_ERR_ARGUMENT, "reconstruct: index must not be NULL");
    if (count == 0) return KITH_OK;
    if (ids == NULL || out == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "reconstruct: ids and out must not be NULL");
    size_t bytes;
    if (kith_mul_overflows(count, index->dim * sizeof *out, &bytes))
        return kith_error(KITH_ERR_OVERFLOW, "reconstruct: %zu vectors do not fit the address space", count);
    KITH_TRY(kith_hold_begin(index));
    kith_status status = index->vtable->reconstruct(index, ids, count, out);
    kith_hold_end(index);
    return status;
}
