/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw.c: the graph as an index: its spec, its life, what it holds.
 */
#include "hnsw/hnsw.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "hnsw/hnsw_inside.h"
#include "index/codes.h"
#include "index/idrows.h"
#include "index/partition.h"

enum { M_DEFAULT = 32, EF_BUILD_DEFAULT = 128, ALPHA_DEFAULT = 115 };

/* ---- Spec ------------------------------------------------------------------------------------------------- */

static bool is_digits(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (text[i] < '0' || text[i] > '9') return false;
    return length > 0;
}

/* Is the part `word` and a number? */
static bool has_number(const kith_spec_part *part, const char *word) {
    size_t length = strlen(word);
    return part->length > length && memcmp(part->text, word, length) == 0 &&
           is_digits(part->text + length, part->length - length);
}

bool kith_hnsw_is_named(const kith_spec_part *part) {
    return kith_spec_part_is(part, KITH_HNSW_NAME) || has_number(part, KITH_HNSW_NAME);
}

/* The number behind `word`. */
static kith_status read_number(const kith_spec *spec, const kith_spec_part *part, const char *word, size_t min,
                               size_t max, size_t *out) {
    size_t value = 0;
    for (size_t i = strlen(word); i < part->length && value <= max; i++)
        value = 10 * value + (size_t)(part->text[i] - '0');
    if (value < min || value > max)
        return kith_error(KITH_ERR_ARGUMENT, "spec '%s': character %zu: the number after %s is not in %zu..%zu",
                          spec->text, part->offset + strlen(word), word, min, max);
    *out = value;
    return KITH_OK;
}

static bool read_dtype(const kith_spec_part *part, kith_dtype *dtype) {
    for (kith_dtype type = KITH_F32; type <= KITH_U8; type++)
        if (kith_spec_part_is(part, kith_dtype_name(type))) {
            *dtype = type;
            return true;
        }
    return false;
}

/* What a spec says. */
typedef struct wish {
    kith_hnsw_options options;
    kith_dtype dtype;
    size_t code_part; /* the part that names a code; 0: none */
} wish;

static kith_status read_part(const kith_spec *spec, size_t number, wish *out) {
    const kith_spec_part *part = &spec->parts[number];
    kith_hnsw_options *options = &out->options;
    if (has_number(part, "efc"))
        return read_number(spec, part, "efc", 1, KITH_HNSW_EF_BUILD_MAX, &options->ef_build);
    if (has_number(part, "alpha"))
        return read_number(spec, part, "alpha", KITH_HNSW_ALPHA_MIN, KITH_HNSW_ALPHA_MAX, &options->alpha_percent);
    if (kith_spec_part_is(part, "Flat") || read_dtype(part, &out->dtype)) return KITH_OK;
    if (kith_code_is_named(part)) {
        out->code_part = number;
        return KITH_OK;
    }
    return kith_error(KITH_ERR_ARGUMENT,
                      "spec '%s': character %zu: expected efc and a number, alpha and a number, Flat, an element "
                      "type or a code",
                      spec->text, part->offset);
}

static kith_status read_spec(const kith_spec *spec, wish *out) {
    *out = (wish){.options = {M_DEFAULT, EF_BUILD_DEFAULT, ALPHA_DEFAULT}, .dtype = KITH_F32};
    if (has_number(&spec->parts[0], KITH_HNSW_NAME))
        KITH_TRY(
            read_number(spec, &spec->parts[0], KITH_HNSW_NAME, KITH_HNSW_M_MIN, KITH_HNSW_M_MAX, &out->options.m));
    for (size_t p = 1; p < spec->part_count; p++) KITH_TRY(read_part(spec, p, out));
    if (out->code_part != 0 && out->dtype != KITH_F32)
        return kith_error(KITH_ERR_ARGUMENT, "spec '%s': character %zu: an element type and a code", spec->text,
                          spec->parts[out->code_part].offset);
    return KITH_OK;
}

static void write_spec(const kith_hnsw_options *options, kith_dtype dtype, const kith_code *code,
                       char out[KITH_SPEC_BYTES_MAX]) {
    int at = snprintf(out, KITH_SPEC_BYTES_MAX, "%s%zu", KITH_HNSW_NAME, options->m);
    if (options->ef_build != EF_BUILD_DEFAULT)
        at += snprintf(out + at, KITH_SPEC_BYTES_MAX - (size_t)at, ",efc%zu", options->ef_build);
    if (options->alpha_percent != ALPHA_DEFAULT)
        at += snprintf(out + at, KITH_SPEC_BYTES_MAX - (size_t)at, ",alpha%zu", options->alpha_percent);
    const char *stored = code != NULL ? code->name : dtype != KITH_F32 ? kith_dtype_name(dtype) : NULL;
    if (stored != NULL) (void)snprintf(out + at, KITH_SPEC_BYTES_MAX - (size_t)at, ",%s", stored);
}

/* ---- Life ------------------------------------------------------------------------------------------------- */

/* Bytes from one row to the next: short rows never straddle a cache line more than they must, long ones begin with
 * one. */
static size_t stride_of(size_t row_bytes) {
    size_t stride = 4;
    if (row_bytes > KITH_ALIGNMENT) return kith_round_up(row_bytes, KITH_ALIGNMENT);
    while (stride < row_bytes) stride *= 2;
    return stride;
}

/* Takes the code over, also when this fails. */
static kith_status make(const kith_hnsw_options *options, kith_dtype dtype, kith_code *code, size_t dim,
                        kith_metric metric, kith_hnsw **out) {
    kith_status status = kith_alloc_zeroed(1, sizeof **out, out);
    if (status != KITH_OK) {
        kith_code_free(code);
        return status;
    }
    kith_hnsw *graph = *out;
    char spec[KITH_SPEC_BYTES_MAX];
    write_spec(options, dtype, code, spec);
    kith_index_init(&graph->base, &kith_hnsw_vtable, dim, metric, dtype, spec);
    graph->base.is_trained = code == NULL || code->vtable->train == NULL || code->is_trained;
    graph->options = *options;
    graph->degree = 2 * options->m;
    kith_prefetch_init(&graph->prefetch);
    graph->code = code;
    kith_chunks_init(&graph->rows, stride_of(code != NULL ? code->code_bytes : kith_dtype_row_bytes(dtype, dim)));
    kith_chunks_init(&graph->side, sizeof(float));
    kith_chunks_init(&graph->links, graph->degree * sizeof(uint32_t));
    kith_chunks_init(&graph->packed, kith_hnsw_packs(code) ? kith_hnsw_packed_bytes(graph) : 1);
    kith_idlist_init(&graph->ids);
    return KITH_OK;
}

kith_status kith_hnsw_make(const kith_spec *spec, size_t dim, kith_metric metric, kith_hnsw **out) {
    wish all;
    kith_code *code = NULL;
    *out = NULL;
    KITH_TRY(read_spec(spec, &all));
    if (all.code_part != 0)
        KITH_TRY(kith_code_create(spec, all.code_part, dim, kith_hnsw_code_metric(metric), &code));
    return make(&all.options, all.dtype, code, dim, metric, out);
}

kith_status kith_hnsw_create(const kith_spec *spec, size_t dim, kith_metric metric, kith_index **out) {
    kith_hnsw *graph;
    KITH_TRY(kith_hnsw_make(spec, dim, metric, &graph));
    *out = &graph->base;
    return KITH_OK;
}

static void release(kith_index *index) {
    kith_hnsw *graph = kith_hnsw_of(index);
    kith_code_free(graph->code);
    kith_chunks_free(&graph->rows);
    kith_chunks_free(&graph->side);
    kith_chunks_free(&graph->links);
    kith_chunks_free(&graph->packed);
    kith_idlist_free(&graph->ids);
    kith_deadset_clear(&graph->dead, NULL);
    kith_hnsw_forget_parents(graph);
    kith_free(graph);
}

static void set_epoch(kith_index *index, kith_epoch *epoch) { kith_hnsw_set_epoch(kith_hnsw_of(index), epoch); }

static kith_status copy_ids(const kith_idlist *from, kith_idlist *to) {
    if (from->count == 0) return KITH_OK;
    int64_t *ids = NULL;
    kith_new_ids all = {.first_id = from->first_id, .count = from->count, .rise = from->rises};
    kith_status status;
    if (from->is_stored) {
        KITH_GO(kith_alloc(from->count, sizeof *ids, &ids));
        for (size_t r = 0; r < from->count; r++) ids[r] = kith_idlist_get(from, r);
        all.ids = ids;
    }
    KITH_GO(kith_idlist_reserve(to, &all));
    kith_idlist_append(to, &all);
done:
    kith_free(ids);
    return status;
}

static kith_status copy_dead(const kith_hnsw *from, kith_hnsw *to) {
    uint64_t *nodes;
    size_t count = 0;
    if (from->dead.count == 0) return KITH_OK;
    KITH_TRY(kith_alloc(from->dead.count, sizeof *nodes, &nodes));
    for (size_t v = 0; v < from->node_count; v++)
        if (kith_hnsw_is_dead(from, v)) nodes[count++] = v;
    kith_status status = kith_hnsw_mark_dead(to, nodes, count);
    kith_free(nodes);
    return status;
}

static kith_status clone(const kith_index *index, kith_index **out) {
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    kith_hnsw *copy;
    kith_code *code = NULL;
    if (graph->code != NULL) KITH_TRY(graph->code->vtable->clone(graph->code, &code));
    KITH_TRY(make(&graph->options, index->dtype, code, index->dim, index->metric, &copy));
    size_t threads = kith_threads_default();
    kith_status status;
    KITH_GO(kith_chunks_copy(&graph->rows, graph->node_count, &copy->rows, threads));
    if (kith_hnsw_has_side(graph)) KITH_GO(kith_chunks_copy(&graph->side, graph->node_count, &copy->side, threads));
    KITH_GO(kith_chunks_copy(&graph->links, graph->node_count, &copy->links, threads));
    if (graph->packed.room > 0)
        KITH_GO(kith_chunks_copy(&graph->packed, graph->node_count, &copy->packed, threads));
    KITH_GO(copy_ids(&graph->ids, &copy->ids));
    KITH_GO(copy_dead(graph, copy));
    memcpy(copy->entries, graph->entries, sizeof copy->entries);
    copy->entry_count = graph->entry_count;
    copy->entries_picked_at = graph->entries_picked_at;
    copy->node_count = graph->node_count;
    copy->prefetch = graph->prefetch;
    *out = &copy->base;
    return KITH_OK;
done:
    release(&copy->base);
    return status;
}

/* ---- Contents --------------------------------------------------------------------------------------------- */

static size_t memory(const kith_index *index, kith_memory_part *parts, size_t capacity) {
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    const kith_memory_part all[] = {
        {"vectors", kith_chunks_bytes(&graph->rows)},
        {"norms", kith_chunks_bytes(&graph->side)},
        {"links", kith_chunks_bytes(&graph->links)},
        {"ids", kith_idlist_bytes(&graph->ids)},
        {"removed", kith_deadset_bytes(&graph->dead)},
        {"parents", graph->parent_room * sizeof *graph->parents},
        {"codebooks", graph->code != NULL ? graph->code->vtable->memory(graph->code) : 0},
        {"fixed", sizeof *graph},
        {"packed", kith_chunks_bytes(&graph->packed)},
    };
    size_t count = sizeof all / sizeof *all - (kith_hnsw_packs(graph->code) ? 0 : 1);
    if (capacity > 0) memcpy(parts, all, kith_min_size(count, capacity) * sizeof *all);
    return count;
}

static kith_status memory_for(const kith_index *index, size_t count, bool has_ids, uint64_t *bytes) {
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    if (count > KITH_HNSW_NODES_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "memory: %zu vectors; a graph holds at most %zu", count,
                          KITH_HNSW_NODES_MAX);
    KITH_TRY(kith_chunks_bytes_for(graph->rows.item_bytes, count, bytes));
    if (kith_hnsw_has_side(graph)) KITH_TRY(kith_chunks_bytes_for(graph->side.item_bytes, count, bytes));
    KITH_TRY(kith_chunks_bytes_for(graph->links.item_bytes, count, bytes));
    if (kith_hnsw_packs(graph->code)) KITH_TRY(kith_chunks_bytes_for(graph->packed.item_bytes, count, bytes));
    if (has_ids) KITH_TRY(kith_idlist_bytes_for(count, bytes));
    *bytes += sizeof *graph + (graph->code != NULL ? graph->code->vtable->memory(graph->code) : 0);
    return KITH_OK;
}

static kith_status reconstruct(const kith_index *index, const int64_t *ids, size_t count, float *out) {
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    uint64_t *rows;
    unsigned char *code = NULL;
    KITH_TRY(kith_alloc(count, sizeof *rows, &rows));
    kith_status status;
    KITH_GO(kith_hnsw_find(graph, ids, count, rows));
    for (size_t i = 0; i < count; i++)
        if (rows[i] == KITH_IDLIST_NO_ROW)
            KITH_GO(kith_error(KITH_ERR_NOT_FOUND, "reconstruct: id %lld is not in the index", (long long)ids[i]));
    if (graph->code != NULL) KITH_GO(kith_alloc(1, graph->code->code_bytes, &code));
    for (size_t i = 0; i < count; i++) {
        float *vector = out + i * index->dim;
        if (graph->code != NULL)
            KITH_GO(kith_hnsw_decode(graph, (uint32_t)rows[i], 1, code, vector));
        else
            kith_exact_to_f32(kith_hnsw_row(graph, (uint32_t)rows[i]), index->dtype, index->dim, vector);
    }
done:
    kith_free(code);
    kith_free(rows);
    return status;
}

static kith_prefetch *prefetch(kith_index *index) { return &kith_hnsw_of(index)->prefetch; }

static size_t train_count(const kith_index *index) {
    const kith_code *code = kith_hnsw_of_const(index)->code;
    return code != NULL && code->vtable->train != NULL ? KITH_TRAIN_COUNT : 0;
}

static kith_status merge(kith_index *into, const kith_index *from, int64_t id_shift) {
    if (kith_hnsw_of(into)->code != NULL)
        return kith_error(KITH_ERR_UNSUPPORTED,
                          "merge: an index %s has codes only, which cannot be coded again; put RFlat behind it",
                          into->spec);
    return kith_merge_by_adding(into, from, id_shift);
}

static const kith_param params[] = {
    KITH_PARAM_THREADS,
    KITH_PARAM_MAX_DISTANCES,
    KITH_PARAM(ef, "how many of the nearest nodes are followed; more find more and take longer", 0, UINT32_MAX,
               KITH_HNSW_EF_DEFAULT),
    KITH_PARAM(stop_percent,
               "stop at a node so many per cent as far as the k-th nearest, see docs/graph.md; 0: never", 0, 10000,
               0),
};

/* Where nodes have been removed a walker's marks are made for the call, which is to be done once. */
static bool shares_search(const kith_index *index) { return kith_hnsw_of_const(index)->dead.count == 0; }

const kith_index_vtable kith_hnsw_vtable = {
    .name = KITH_HNSW_NAME,
    .struct_bytes = sizeof(kith_hnsw),
    .concurrent = true,
    .set_epoch = set_epoch,
    .params = params,
    .param_count = sizeof params / sizeof *params,
    .release = release,
    .clone = clone,
    .memory = memory,
    .memory_for = memory_for,
    .graph_stats = kith_hnsw_graph_stats,
    .prefetch = prefetch,
    .train = kith_hnsw_train,
    .train_count = train_count,
    .add = kith_hnsw_add,
    .remove = kith_hnsw_remove,
    .update = kith_hnsw_update,
    .upsert = kith_hnsw_upsert,
    .holds = kith_hnsw_holds,
    .compact = kith_hnsw_compact,
    .reset = kith_hnsw_reset,
    .merge = merge,
    .reconstruct = reconstruct,
    .search = kith_hnsw_search,
    .shares_search = shares_search,
    .range_search = kith_hnsw_range_search,
    .save = kith_hnsw_save,
    .verify = kith_hnsw_verify,
    .list_ids = kith_hnsw_list_ids,
};
