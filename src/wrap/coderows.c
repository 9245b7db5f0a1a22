/* SPDX-License-Identifier: Apache-2.0
 *
 * coderows.c: rows of codes: life, looking up, files. In a file the parts are, all sections of version 1:
 *
 *   CODEMETA  and what else the code writes: index/codes.h
 *   CROWMETA  16 bytes: the form of the ids, index/idrows.h
 *   CROWROWI  where ids are stored: index/idrows.h
 *   CROWCODE  count x code_bytes: one code after the other
 */
#include "wrap/coderows.h"

#include <string.h>

#include "base/error.h"
#include "exact/exact.h"
#include "index/codes.h"
#include "index/convert.h"
#include "index/rescore.h"
#include "wrap/coderows_inside.h"

static const char codes_tag[] = "CROWCODE";
static const kith_idrows_tags id_tags = {.meta = "CROWMETA", .ids = "CROWROWI"};

void kith_coderows_take(const kith_view *view, size_t row, kith_metric metric, float *out) {
    kith_exact_to_f32(kith_view_row(view, row), view->dtype, view->dim, out);
    if (metric != KITH_COSINE) return;
    float inverse = kith_exact_inverse_norm(out, KITH_F32, view->dim);
    for (size_t i = 0; i < view->dim; i++) out[i] *= inverse;
}

/* ---- Life ---------------------------------------------------------------------------------------------------- */

static void release(kith_index *index) {
    kith_coderows *own = kith_coderows_of(index);
    kith_code_free(own->code);
    kith_chunks_free(&own->rows);
    kith_idrows_free(&own->ids);
    kith_free(own);
}

static const kith_index_vtable coderows_vtable;

/* Takes the code over on success alone. */
static kith_status make(kith_code *code, kith_metric metric, kith_coderows **out) {
    KITH_TRY(kith_alloc_zeroed(1, sizeof **out, out));
    kith_coderows *own = *out;
    kith_index_init(&own->base, &coderows_vtable, code->dim, metric, KITH_F32, code->name);
    own->base.is_trained = code->is_trained;
    own->code = code;
    kith_chunks_init(&own->rows, code->code_bytes);
    kith_idrows_init(&own->ids);
    return KITH_OK;
}

kith_status kith_coderows_create(const kith_spec *spec, size_t dim, kith_metric metric, kith_index **out) {
    kith_code *code;
    if (spec->part_count > 1)
        return kith_spec_error(spec->text, spec->parts[1].offset, "nothing can follow a code to refine with");
    KITH_TRY(kith_code_create(spec, 0, dim, kith_coderows_metric(metric), &code));
    kith_coderows *own;
    kith_status status = make(code, metric, &own);
    if (status != KITH_OK) {
        kith_code_free(code);
        return status;
    }
    *out = &own->base;
    return KITH_OK;
}

static void set_epoch(kith_index *index, kith_epoch *epoch) {
    kith_coderows *own = kith_coderows_of(index);
    own->rows.epoch = epoch;
    kith_idrows_set_epoch(&own->ids, epoch);
}

static kith_status clone(const kith_index *index, kith_index **out) {
    const kith_coderows *own = kith_coderows_of_const(index);
    kith_code *code;
    kith_coderows *copy = NULL;
    KITH_TRY(own->code->vtable->clone(own->code, &code));
    kith_status status = make(code, index->metric, &copy);
    if (status != KITH_OK) {
        kith_code_free(code);
        return status;
    }
    KITH_GO(kith_idrows_copy(&own->ids, (const kith_chunks *const[]){&own->rows}, &copy->ids,
                             (kith_chunks *const[]){&copy->rows}, 1));
    copy->base.count = index->count;
    *out = &copy->base;
    return KITH_OK;
done:
    release(&copy->base);
    return status;
}

static size_t memory(const kith_index *index, kith_memory_part *parts, size_t capacity) {
    const kith_coderows *own = kith_coderows_of_const(index);
    const kith_memory_part all[] = {
        {"codes", kith_chunks_bytes(&own->rows)},
        {"ids", kith_chunks_bytes(&own->ids.ids)},
        {"id map", (uint64_t)own->ids.map.slot_count * sizeof *own->ids.map.slots},
        {"dead rows", kith_deadset_bytes(&own->ids.dead)},
        {"codebooks", own->code->vtable->memory(own->code)},
        {"fixed", sizeof *own},
    };
    size_t count = sizeof all / sizeof *all;
    if (capacity > 0) memcpy(parts, all, kith_min_size(count, capacity) * sizeof *all);
    return count;
}

static kith_status memory_for(const kith_index *index, size_t count, bool has_ids, uint64_t *bytes) {
    const kith_coderows *own = kith_coderows_of_const(index);
    KITH_TRY(kith_chunks_bytes_for(own->rows.item_bytes, count, bytes));
    if (has_ids) KITH_TRY(kith_idrows_bytes_for(count, bytes));
    *bytes += sizeof *own + own->code->vtable->memory(own->code);
    return KITH_OK;
}

/* ---- Looking up ---------------------------------------------------------------------------------------------- */

static kith_status reconstruct(const kith_index *index, const int64_t *ids, size_t count, float *out) {
    const kith_coderows *own = kith_coderows_of_const(index);
    uint64_t *rows = NULL;
    unsigned char *codes = NULL;
    size_t bytes = own->code->code_bytes;
    kith_status status;
    KITH_GO(kith_alloc(count, sizeof *rows, &rows));
    KITH_GO(kith_alloc(count, bytes, &codes));
    KITH_GO(kith_idrows_need("reconstruct", &own->ids, ids, count, rows));
    for (size_t i = 0; i < count; i++)
        memcpy(codes + i * bytes, kith_chunks_at(&own->rows, (size_t)rows[i]), bytes);
    KITH_GO(own->code->vtable->decode(own->code, &(kith_code_rows){.count = count}, codes, out));
done:
    kith_free(codes);
    kith_free(rows);
    return status;
}

typedef struct scoring {
    const kith_code *code;
    const float *queries; /* projected */
    float *bases;         /* one for each worker: of the query that it prepared last */
    unsigned char *prepared;
} scoring;

static void prepare(const void *context, size_t query, size_t worker) {
    const scoring *s = context;
    const float *vector = s->queries + query * s->code->projected_dim;
    s->code->vtable->prepare(s->code, vector, s->prepared + worker * s->code->query_bytes);
    s->bases[worker] = kith_code_base(s->code, vector, NULL);
}

static void keys_of(const void *context, size_t query, size_t worker, const void *const rows[4],
                    const float norms[4], int32_t keys[4]) {
    (void)query, (void)norms;
    const scoring *s = context;
    const unsigned char *const codes[4] = {rows[0], rows[1], rows[2], rows[3]};
    float estimates[4];
    s->code->vtable->rows(s->code, s->prepared + worker * s->code->query_bytes, s->bases[worker], codes, 4,
                          estimates);
    for (size_t i = 0; i < 4; i++) keys[i] = kith_key_f32(estimates[i]);
}

static float value_of(const void *context, int32_t key) {
    const scoring *s = context;
    float estimate = kith_key_to_f32(key);
    return s->code->metric == KITH_L2 ? estimate : 0.0f - estimate;
}

static kith_status rescore(const kith_index *index, const kith_search_request *request,
                           const kith_candidates *candidates, const kith_search_results *results) {
    const kith_coderows *own = kith_coderows_of_const(index);
    const kith_code *code = own->code;
    size_t query_count = request->queries.count, workers = request->threads;
    kith_arena *arena = request->arena;
    scoring s = {.code = code};
    const float *vectors;
    float *projected;
    KITH_TRY(
        kith_exact_queries(&request->queries, index->metric == KITH_COSINE, request->threads, arena, &vectors));
    KITH_TRY(kith_arena_take(arena, query_count, code->projected_dim * sizeof *projected, &projected));
    KITH_TRY(kith_code_project_queries(code, vectors, query_count, request->threads, arena, projected));
    s.queries = projected;
    KITH_TRY(kith_arena_take(arena, workers, sizeof *s.bases, &s.bases));
    KITH_TRY(kith_arena_take(arena, workers, code->query_bytes, &s.prepared));
    const kith_rescoring rescoring = {
        .index = index,
        .ids = &own->ids,
        .rows = &own->rows,
        .prepare = prepare,
        .keys = keys_of,
        .value = value_of,
        .context = &s,
    };
    return kith_rescore(&rescoring, request, candidates, results);
}

/* ---- Files --------------------------------------------------------------------------------------------------- */

static kith_status save(const kith_index *index, kith_container_writer *writer, uint32_t *part) {
    const kith_coderows *own = kith_coderows_of_const(index);
    uint32_t instance = *part;
    KITH_TRY(kith_code_save(own->code, writer, part));
    KITH_TRY(kith_idrows_save_table(&own->ids, &own->rows, codes_tag, instance, writer));
    return kith_idrows_save(&own->ids, &id_tags, instance, writer);
}

/* The code in a file has to be the one that the spec names. */
static kith_status check_name(const kith_spec *spec, const kith_code *code, kith_metric metric,
                              const kith_container *file) {
    kith_code *named;
    KITH_TRY(kith_code_create(spec, 0, code->dim, metric, &named));
    bool same = strcmp(named->name, code->name) == 0;
    kith_code_free(named);
    return same ? KITH_OK
                : kith_error(KITH_ERR_FORMAT, "%s: the code of the refinement is %s, the spec is '%s'",
                             kith_container_path(file), code->name, spec->text);
}

kith_status kith_coderows_open(kith_container *file, uint32_t *part, const kith_index_meta *meta,
                               const kith_spec *spec, kith_index **out) {
    uint32_t instance = *part;
    kith_metric metric = kith_coderows_metric(meta->metric);
    kith_code *code = NULL;
    kith_coderows *own = NULL;
    kith_status status;
    KITH_GO(kith_code_load(file, part, meta->dim, metric, &code));
    KITH_GO(check_name(spec, code, metric, file));
    KITH_GO(make(code, meta->metric, &own));
    code = NULL;
    own->instance = instance;
    own->base.count = meta->count;
    own->base.next_id = meta->next_id;
    own->base.is_mapped = true;
    KITH_GO(kith_chunks_open(file, codes_tag, instance, meta->count, &own->rows));
    KITH_GO(kith_idrows_open(file, &id_tags, instance, meta->count, meta->next_id, &own->ids));
    *out = &own->base;
    return KITH_OK;
done:
    kith_code_free(code);
    if (own != NULL) release(&own->base);
    return status;
}

static kith_status verify_codes(const kith_coderows *own, const void *zero_query) {
    for (size_t r = 0; r < own->base.count; r++)
        if (!kith_code_is_finite(own->code, zero_query, kith_chunks_at(&own->rows, r)))
            return kith_content_error(&own->base, codes_tag, own->instance,
                                      "a code does not stand for finite numbers");
    return KITH_OK;
}

static kith_status verify(const kith_index *index) {
    const kith_coderows *own = kith_coderows_of_const(index);
    void *zero_query;
    KITH_TRY(kith_idrows_verify(index, &own->ids, &id_tags, own->instance));
    if (index->count == 0) return KITH_OK;
    KITH_TRY(kith_code_zero_query(own->code, &zero_query));
    kith_status status = verify_codes(own, zero_query);
    kith_free(zero_query);
    return status;
}

static void list_ids(const kith_index *index, int64_t *ids) {
    kith_idrows_list(&kith_coderows_of_const(index)->ids, ids);
}

static kith_status holds(const kith_index *index, const int64_t *ids, size_t count, bool *held) {
    return kith_idrows_holds(&kith_coderows_of_const(index)->ids, ids, count, held);
}

static bool shares_rescore(const kith_index *index) {
    return kith_idrows_can_find(&kith_coderows_of_const(index)->ids);
}

static const kith_index_vtable coderows_vtable = {
    .name = "CodeRows",
    .struct_bytes = sizeof(kith_coderows),
    .concurrent = true,
    .set_epoch = set_epoch,
    .release = release,
    .clone = clone,
    .memory = memory,
    .memory_for = memory_for,
    .train = kith_coderows_train,
    .add = kith_coderows_add,
    .remove = kith_coderows_remove,
    .update = kith_coderows_update,
    .upsert = kith_coderows_upsert,
    .holds = holds,
    .compact = kith_coderows_compact,
    .reset = kith_coderows_reset,
    .reconstruct = reconstruct,
    .save = save,
    .verify = verify,
    .list_ids = list_ids,
    .stage = kith_coderows_stage,
    .settle = kith_coderows_settle,
    .rescore = rescore,
    .shares_rescore = shares_rescore,
};
