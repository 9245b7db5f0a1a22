/* SPDX-License-Identifier: Apache-2.0
 *
 * refine.c: an index and the vectors, or better codes of them, that set its estimates right.
 *
 * A change is staged in the store first, then made in the base, then settled in the store: so the base is the only
 * one that can fail when there is something to be undone, and the store can undo without failing.
 *
 * Nothing of its own stands in a file: the base's parts come first, then the store's.
 */
#include "wrap/refine_inside.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "index/convert.h"
#include "index/live.h"
#include "index/partition.h"
#include "index/spec.h"
#include "wrap/filerows.h"
#include "wrap/transformed.h"

enum { K_FACTOR_MAX = 65536, ERROR_PERCENT_MAX = 10000, MEMORY_PARTS_MAX = 16 };

/* ---- Life ---------------------------------------------------------------------------------------------------- */

static void release(kith_index *index) {
    kith_refine *both = kith_refine_of(index);
    kith_index_free(both->base);
    kith_index_free(both->store);
    kith_free(both);
}

static kith_status clone(const kith_index *index, kith_index **out) {
    const kith_refine *both = kith_refine_of_const(index);
    kith_index *base = NULL, *store = NULL;
    kith_status status;
    KITH_GO(kith_index_copy(both->base, &base));
    KITH_GO(kith_index_copy(both->store, &store));
    KITH_GO(kith_refine_create(base, store, out));
    return KITH_OK;
done:
    kith_index_free(base);
    kith_index_free(store);
    return status;
}

static size_t memory(const kith_index *index, kith_memory_part *parts, size_t capacity) {
    const kith_refine *both = kith_refine_of_const(index);
    size_t count = both->base->vtable->memory(both->base, parts, capacity);
    kith_memory_part own[MEMORY_PARTS_MAX], all = {"refinement", 0};
    size_t own_count = both->store->vtable->memory(both->store, own, MEMORY_PARTS_MAX);
    for (size_t i = 0; i < kith_min_size(own_count, MEMORY_PARTS_MAX); i++) all.bytes += own[i].bytes;
    if (count < capacity) parts[count] = all;
    return count + 1;
}

static kith_status memory_for(const kith_index *index, size_t count, bool has_ids, uint64_t *bytes) {
    const kith_refine *both = kith_refine_of_const(index);
    KITH_TRY(kith_index_memory_for_inner(both->base, count, has_ids, bytes));
    return kith_index_memory_for_inner(both->store, count, has_ids, bytes);
}

static size_t list_sizes(const kith_index *index, uint64_t *sizes, size_t capacity) {
    const kith_index *base = kith_refine_of_const(index)->base;
    return base->vtable->list_sizes != NULL ? base->vtable->list_sizes(base, sizes, capacity) : 0;
}

static kith_prefetch *prefetch(kith_index *index) { return kith_index_prefetch_inner(kith_refine_of(index)->base); }

static kith_status graph_stats(const kith_index *index, kith_graph_stats *stats, uint64_t *degrees,
                               size_t capacity) {
    return kith_index_graph_stats_inner(kith_refine_of_const(index)->base, stats, degrees, capacity);
}

/* ---- What it is called, and its parameters --------------------------------------------------------------------- */

/* How many times k candidates make a good start: the fewer bits the base spends on a dimension, the more; and more when
 * its distances are those of vectors that a transform has made shorter. */
static uint64_t default_k_factor(const kith_index *base) {
    static const struct {
        const char *code; /* what the last part of the base's spec begins with; of several the longest first */
        uint64_t factor;
    } factors[] = {{"SQ4", 4},     {"SQ3", 8},     {"SQ2", 16},    {"SQ1", 32}, {"RaBitQ1", 16},
                   {"RaBitQ2", 6}, {"RaBitQ3", 4}, {"RaBitQ4", 3}, {"PQ", 16},  {"Line", 4}};
    enum { DIFFERENT_MIN = 8 };
    const char *last = strrchr(base->spec, ',');
    last = last != NULL ? last + 1 : base->spec;
    uint64_t factor = strcmp(last, "RaBitQ") == 0 ? 16 : 2;
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++)
        if (strncmp(last, factors[i].code, strlen(factors[i].code)) == 0) factor = factors[i].factor;
    return kith_transformed_differs(base) && factor < DIFFERENT_MIN ? DIFFERENT_MIN : factor;
}

bool kith_refine_has_errors(const kith_refine *both) {
    const kith_index *base = both->base;
    return base->vtable->bounds_errors != NULL && base->vtable->bounds_errors(base);
}

static void set_params(kith_refine *both) {
    const kith_index *base = both->base;
    const kith_param factor =
        KITH_PARAM(k_factor, "candidates compared again for each result; 0: the default", 0, K_FACTOR_MAX, 0);
    const kith_param error = KITH_PARAM(
        error_percent, "candidates are compared that matter if estimates are off by so much of their error; 0: all",
        0, ERROR_PERCENT_MAX, 0);
    enum { OWN = 2 };
    assert(base->param_count <= KITH_REFINE_PARAMS_MAX - OWN);
    size_t count = kith_min_size(base->param_count, KITH_REFINE_PARAMS_MAX - OWN);
    memcpy(both->params, base->params, count * sizeof *both->params);
    both->params[count] = factor;
    both->params[count++].shown.default_value = default_k_factor(base);
    if (kith_refine_has_errors(both)) both->params[count++] = error;
    both->common.params = both->params;
    both->common.param_count = count;
}

/* "Flat,f16" as a refinement is "Rf16", "SQ8" is "RSQ8". */
static kith_status write_spec(const kith_index *base, const kith_index *store, size_t bytes_max, char *spec) {
    const char *name = strchr(store->spec, ',');
    return kith_spec_join(base->spec, ",R", name != NULL ? name + 1 : store->spec, bytes_max, spec);
}

/* Once made, and whenever the base may have chosen numbers of its own. */
static void describe(kith_refine *both) {
    (void)write_spec(both->base, both->store, KITH_SPEC_BYTES_MAX, both->common.spec); /* made with room to spare */
    set_params(both);
}

/* ---- Changes ------------------------------------------------------------------------------------------------- */

static void update_counts(kith_refine *both) {
    if (both->store->vtable->list_ids == NULL) both->store->count = both->base->count;
    assert(both->base->count == both->store->count);
    both->common.count = both->store->count;
}

static kith_status train(kith_index *index, const kith_view *sample, const kith_job *job) {
    kith_refine *both = kith_refine_of(index);
    if (index->count > 0)
        return kith_error(KITH_ERR_ARGUMENT, "train: the index holds %zu vectors; reset it first", index->count);
    kith_staged *staged;
    const kith_change change = {.kind = KITH_CHANGE_TRAIN, .vectors = sample, .job = job};
    KITH_TRY(both->store->vtable->stage(both->store, &change, &staged));
    const kith_index_vtable *base = both->base->vtable;
    kith_status status = base->train != NULL ? base->train(both->base, sample, job) : KITH_OK;
    both->store->vtable->settle(both->store, staged, status == KITH_OK);
    if (status != KITH_OK) return status;
    both->base->is_trained = true;
    both->store->is_trained = true;
    describe(both);
    return KITH_OK;
}

static size_t train_count(const kith_index *index) {
    const kith_refine *both = kith_refine_of_const(index);
    return kith_max_size(kith_index_train_count(both->base), kith_index_train_count(both->store));
}

/* What the base stores may be of another type than what the store does, which the vectors have been checked for. */
static kith_status check_for_base(const char *what, const kith_refine *both, const kith_view *view,
                                  const kith_job *job) {
    const kith_index *base = both->base;
    if (base->dtype == both->common.dtype || base->dtype == KITH_F32) return KITH_OK;
    size_t threads = job != NULL ? job->threads : kith_threads_default();
    return kith_check_storable(what, view, base->dtype, base->metric, threads,
                               job != NULL ? job->memory_bytes_max : 0);
}

static kith_status add(kith_index *index, const kith_addition *addition) {
    kith_refine *both = kith_refine_of(index);
    KITH_TRY(check_for_base("add", both, &addition->view, addition->job));
    kith_staged *staged;
    const kith_change change = {.kind = KITH_CHANGE_ADD, .addition = addition};
    KITH_TRY(both->store->vtable->stage(both->store, &change, &staged));
    kith_status status = kith_index_add_inner(both->base, addition);
    both->store->vtable->settle(both->store, staged, status == KITH_OK);
    if (status != KITH_OK) return status;
    both->store->next_id = both->base->next_id;
    update_counts(both);
    return KITH_OK;
}

static kith_status remove_ids(kith_index *index, const int64_t *ids, size_t count, size_t *removed) {
    kith_refine *both = kith_refine_of(index);
    kith_staged *staged;
    const kith_change change = {.kind = KITH_CHANGE_REMOVE, .ids = ids, .count = count};
    KITH_TRY(both->store->vtable->stage(both->store, &change, &staged));
    kith_status status = both->base->vtable->remove(both->base, ids, count, removed);
    both->store->vtable->settle(both->store, staged, status == KITH_OK);
    if (status == KITH_OK) update_counts(both);
    return status;
}

static kith_status update(kith_index *index, const kith_view *vectors, const int64_t *ids) {
    kith_refine *both = kith_refine_of(index);
    KITH_TRY(check_for_base("update", both, vectors, NULL));
    kith_staged *staged;
    const kith_change change = {
        .kind = KITH_CHANGE_UPDATE, .vectors = vectors, .ids = ids, .count = vectors->count};
    KITH_TRY(both->store->vtable->stage(both->store, &change, &staged));
    kith_status status = both->base->vtable->update(both->base, vectors, ids);
    both->store->vtable->settle(both->store, staged, status == KITH_OK);
    return status;
}

static kith_status upsert(kith_index *index, const kith_addition *addition, size_t *replaced) {
    kith_refine *both = kith_refine_of(index);
    KITH_TRY(check_for_base("upsert", both, &addition->view, addition->job));
    kith_staged *staged;
    const kith_change change = {.kind = KITH_CHANGE_UPSERT, .addition = addition};
    KITH_TRY(both->store->vtable->stage(both->store, &change, &staged));
    kith_status status = kith_index_upsert_inner(both->base, addition, replaced);
    both->store->vtable->settle(both->store, staged, status == KITH_OK);
    if (status != KITH_OK) return status;
    both->store->next_id = both->base->next_id;
    update_counts(both);
    return KITH_OK;
}

static kith_status holds(const kith_index *index, const int64_t *ids, size_t count, bool *held) {
    const kith_refine *both = kith_refine_of_const(index);
    const kith_index *half = both->store->vtable->holds != NULL ? both->store : both->base;
    return half->vtable->holds(half, ids, count, held);
}

/* One half may be compacted and the other not: they hold the same either way. */
static kith_status compact(kith_index *index) {
    kith_index *halves[] = {kith_refine_of(index)->base, kith_refine_of(index)->store};
    for (size_t i = 0; i < 2; i++)
        if (halves[i]->vtable->compact != NULL) KITH_TRY(halves[i]->vtable->compact(halves[i]));
    return KITH_OK;
}

static void reset(kith_index *index) {
    kith_refine *both = kith_refine_of(index);
    kith_index_reset_inner(both->base);
    kith_index_reset_inner(both->store);
    update_counts(both);
}

static kith_status merge(kith_index *index, const kith_index *other, int64_t id_shift) {
    kith_refine *both = kith_refine_of(index);
    const kith_refine *from = kith_refine_of_const(other);
    kith_staged *staged;
    const kith_change change = {.kind = KITH_CHANGE_MERGE, .from = from->store, .id_shift = id_shift};
    KITH_TRY(both->store->vtable->stage(both->store, &change, &staged));
    kith_status status = kith_index_merge_inner(both->base, from->base, id_shift);
    both->store->vtable->settle(both->store, staged, status == KITH_OK);
    /* A graph of codes: vectors of the store, which it can do with, are coded anew. */
    if (status == KITH_ERR_UNSUPPORTED && strncmp(both->store->spec, "Flat", 4) == 0)
        return kith_merge_by_adding(index, other, id_shift);
    if (status != KITH_OK) return status;
    both->store->next_id = both->base->next_id;
    update_counts(both);
    return KITH_OK;
}

static kith_status reconstruct(const kith_index *index, const int64_t *ids, size_t count, float *out) {
    const kith_index *store = kith_refine_of_const(index)->store;
    return store->vtable->reconstruct(store, ids, count, out);
}

/* ---- Files --------------------------------------------------------------------------------------------------- */

static kith_status save(const kith_index *index, kith_container_writer *writer, uint32_t *part) {
    const kith_refine *both = kith_refine_of_const(index);
    KITH_TRY(both->base->vtable->save(both->base, writer, part));
    return both->store->vtable->save(both->store, writer, part);
}

/* The ids of an index, rising. */
static kith_status sorted_ids(const kith_index *index, int64_t *scratch, int64_t **out) {
    KITH_TRY(kith_alloc(index->count, sizeof **out, out));
    index->vtable->list_ids(index, *out);
    kith_sort_i64(*out, index->count, scratch);
    return KITH_OK;
}

/* Each half is in order by itself; they also have to hold the same ids. */
static kith_status verify(const kith_index *index) {
    const kith_refine *both = kith_refine_of_const(index);
    size_t count = index->count;
    int64_t *base = NULL, *store = NULL, *scratch = NULL;
    kith_status status;
    KITH_GO(both->base->vtable->verify(both->base));
    KITH_GO(both->store->vtable->verify(both->store));
    if (count == 0) return KITH_OK;
    KITH_GO(kith_alloc(count, sizeof *scratch, &scratch));
    KITH_GO(sorted_ids(both->base, scratch, &base));
    if (both->store->vtable->list_ids == NULL) {
        size_t rows = kith_filerows_count(both->store);
        if ((uint64_t)base[count - 1] >= rows)
            status = kith_error(KITH_ERR_FORMAT, "%s: id %lld in an index of %zu rows of a file",
                                index->file != NULL ? kith_container_path(index->file) : "index",
                                (long long)base[count - 1], rows);
        goto done;
    }
    KITH_GO(sorted_ids(both->store, scratch, &store));
    if (memcmp(base, store, count * sizeof *base) != 0)
        status = kith_error(KITH_ERR_FORMAT, "%s: the two halves of a refinement hold different ids",
                            index->file != NULL ? kith_container_path(index->file) : "index");
done:
    kith_free(store);
    kith_free(base);
    kith_free(scratch);
    return status;
}

static void list_ids(const kith_index *index, int64_t *ids) {
    const kith_refine *both = kith_refine_of_const(index);
    const kith_index *half = both->store->vtable->list_ids != NULL ? both->store : both->base;
    half->vtable->list_ids(half, ids);
}

/* ---- Making -------------------------------------------------------------------------------------------------- */

static bool shares_search(const kith_index *index) {
    const kith_refine *both = kith_refine_of_const(index);
    const kith_index_vtable *base = both->base->vtable, *store = both->store->vtable;
    return base->shares_search != NULL && base->shares_search(both->base) && store->shares_rescore != NULL &&
           store->shares_rescore(both->store);
}

static const kith_index_vtable refine_vtable = {
    .name = "Refine",
    .struct_bytes = sizeof(kith_refine),
    .inner_offsets = {offsetof(kith_refine, base), offsetof(kith_refine, store)},
    .inner_count = 2,
    .concurrent = true,
    .release = release,
    .clone = clone,
    .memory = memory,
    .memory_for = memory_for,
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
    .search = kith_refine_search,
    .shares_search = shares_search,
    .range_search = kith_refine_range_search,
    .save = save,
    .verify = verify,
    .list_ids = list_ids,
};

kith_status kith_refine_create(kith_index *base, kith_index *store, kith_index **out) {
    char spec[KITH_SPEC_BYTES_MAX];
    *out = NULL;
    if (store->vtable->rescore == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "an index %s cannot refine another", store->spec);
    if (base->count != store->count)
        return kith_error(KITH_ERR_FORMAT, "the two halves of a refinement hold %zu and %zu vectors", base->count,
                          store->count);
    KITH_TRY(write_spec(base, store, KITH_SPEC_BYTES_MAX - KITH_SPEC_SPARE, spec));
    kith_refine *both;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *both, &both));
    kith_index_init(&both->common, &refine_vtable, base->dim, base->metric, store->dtype, spec);
    both->common.count = base->count;
    both->common.next_id = base->next_id;
    both->common.is_trained = base->is_trained && store->is_trained;
    both->common.is_mapped = base->is_mapped;
    both->base = base;
    both->store = store;
    describe(both);
    *out = &both->common;
    return KITH_OK;
}

/* ---- The file of vectors ------------------------------------------------------------------------------------- */

/* The half that is the rows of a file, or NULL. */
static kith_index *file_half(const kith_index *index) {
    if (index->vtable != &refine_vtable) return NULL;
    kith_index *store = kith_refine_of_const(index)->store;
    return kith_filerows_is(store) ? store : NULL;
}

int kith_index_wants_vectors(const kith_index *index) { return index != NULL && file_half(index) != NULL; }

kith_status kith_index_attach_vectors(kith_index *index, const char *path) {
    if (index == NULL || path == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "attach vectors: index and path must not be NULL");
    kith_index *store = file_half(index);
    if (store == NULL)
        return kith_error(KITH_ERR_UNSUPPORTED, "attach vectors: an index %s has no use for a file of vectors",
                          index->spec);
    KITH_TRY(kith_change_begin(index));
    kith_status status = kith_filerows_attach(store, path);
    kith_change_end(index);
    return status;
}
