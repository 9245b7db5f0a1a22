/* SPDX-License-Identifier: Apache-2.0
 *
 * partition.c: changes by filter, indexes out of one and into one, and compaction.
 */
#include "index/partition.h"
#include "base/error.h"
#include "base/sort.h"
#include "index/filter.h"
#include "index/live.h"

/* The ids of an index: those that a filter allows come first. */
static kith_status divide_ids(const kith_index *index, const kith_filter *filter, int64_t **out, size_t *allowed) {
    int64_t *ids;
    size_t count = 0;
    kith_allow_fn allow = kith_filter_allow_fn(filter);
    KITH_TRY(kith_alloc(index->count, sizeof *ids, &ids));
    index->vtable->list_ids(index, ids);
    for (size_t i = 0; i < index->count; i++) {
        if (allow != NULL && !allow(filter, ids[i])) continue;
        int64_t id = ids[i];
        ids[i] = ids[count];
        ids[count++] = id;
    }
    *out = ids;
    *allowed = count;
    return KITH_OK;
}

static kith_status take_out(kith_index *index, const int64_t *ids, size_t count, size_t *removed) {
    *removed = 0;
    return count > 0 ? index->vtable->remove(index, ids, count, removed) : KITH_OK;
}

static kith_status remove_allowed(kith_index *index, const kith_filter *filter, size_t *removed) {
    size_t allowed;
    int64_t *ids;
    if (index->count == 0) return KITH_OK;
    KITH_TRY(divide_ids(index, filter, &ids, &allowed));
    kith_status status = take_out(index, ids, allowed, removed);
    kith_free(ids);
    return status;
}

kith_status kith_index_remove_filter(kith_index *index, const kith_filter *filter, size_t *removed) {
    size_t gone = 0;
    if (removed != NULL) *removed = 0;
    KITH_TRY(kith_index_check_writable("remove", index));
    if (filter == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "remove: filter must not be NULL; kith_index_reset takes all out");
    KITH_TRY(kith_change_begin(index));
    kith_status status = remove_allowed(index, filter, &gone);
    kith_change_end(index);
    if (removed != NULL && status == KITH_OK) *removed = gone;
    return status;
}

/* The part is a copy from which the others are taken; then its vectors are taken from the index. */
static kith_status split(kith_index *index, const kith_filter *filter, kith_index **out) {
    int64_t *ids = NULL;
    kith_index *part = NULL;
    size_t allowed = 0, removed;
    kith_status status;
    KITH_GO(kith_index_copy(index, &part));
    if (index->count > 0) {
        KITH_GO(divide_ids(index, filter, &ids, &allowed));
        KITH_GO(take_out(part, ids + allowed, index->count - allowed, &removed));
        if (part->vtable->compact != NULL && part->count > 0) KITH_GO(part->vtable->compact(part));
    }
    KITH_GO(kith_live_open(part));
    KITH_GO(take_out(index, ids, allowed, &removed));
    *out = part;
    part = NULL;
done:
    kith_index_free(part);
    kith_free(ids);
    return status;
}

kith_status kith_index_split(kith_index *index, const kith_filter *filter, kith_index **out) {
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "split: out must not be NULL");
    *out = NULL;
    KITH_TRY(kith_index_check_writable("split", index));
    if (filter == NULL) return kith_error(KITH_ERR_ARGUMENT, "split: filter must not be NULL");
    KITH_TRY(kith_change_begin(index));
    kith_status status = split(index, filter, out);
    kith_change_end(index);
    return status;
}

kith_status kith_index_compact(kith_index *index) {
    KITH_TRY(kith_index_check_writable("compact", index));
    if (index->vtable->compact == NULL) return KITH_OK;
    KITH_TRY(kith_change_begin(index));
    kith_status status = index->vtable->compact(index);
    if (status == KITH_OK)
        kith_change_show(index); /* waits for searches: what was given up is free when this returns */
    kith_change_end(index);
    return status;
}

kith_addition kith_addition_of(const kith_view *vectors, const int64_t *ids, size_t threads, kith_job *job) {
    kith_job_init(job);
    job->threads = kith_min_size(kith_threads_default(), threads);
    return (kith_addition){
        .view = *vectors, .ids = ids, .ids_rise = kith_rises_i64(ids, vectors->count), .job = job};
}

kith_status kith_merge_by_adding(kith_index *into, const kith_index *from, int64_t id_shift) {
    size_t count = from->count, dim = from->dim;
    int64_t *ids = NULL;
    float *vectors = NULL;
    kith_job job;
    kith_status status;
    KITH_GO(kith_alloc(count, sizeof *ids, &ids));
    KITH_GO(kith_alloc(count, dim * sizeof *vectors, &vectors));
    from->vtable->list_ids(from, ids);
    KITH_GO(from->vtable->reconstruct(from, ids, count, vectors));
    for (size_t i = 0; i < count; i++) ids[i] += id_shift;
    const kith_view view = {vectors, KITH_F32, count, dim, dim * sizeof *vectors};
    const kith_addition addition = kith_addition_of(&view, ids, SIZE_MAX, &job);
    status = into->vtable->add(into, &addition);
    if (status == KITH_ERR_EXISTS) status = kith_error_prefix(status, "merge");
done:
    kith_free(vectors);
    kith_free(ids);
    return status;
}
