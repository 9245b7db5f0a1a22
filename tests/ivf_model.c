/* SPDX-License-Identifier: Apache-2.0 */
#include "ivf_model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/random.h"
#include "base/topk.h"
#include "kith/kmeans.h"

const char *const ivf_codes[] = {"Flat",  "f16",     "bf16",   "SQ8",     "SQ6",    "SQ4", "PQ6",
                                 "PQ6x4", "PQ8x4fs", "RaBitQ", "RaBitQ4", "Line32", NULL};

const char *ivf_spec(size_t lists, const char *code) {
    static char buffers[8][64];
    static size_t next;
    char *out = buffers[next++ % 8];
    if (lists > 0)
        (void)snprintf(out, 64, "IVF%zu,%s", lists, code);
    else
        (void)snprintf(out, 64, "%s", code);
    return out;
}

kith_index *ivf_trained(const char *spec, kith_metric metric, const fixture_vectors *vectors) {
    kith_index *index;
    kith_view view = fixture_view(vectors, 0, vectors->count);
    cr_assert_eq(kith_index_create(spec, vectors->dim, metric, &index), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_OK, "%s: %s", spec, kith_error_message());
    return index;
}

void ivf_add(kith_index *index, const fixture_vectors *vectors, size_t first, size_t count, const int64_t *ids) {
    kith_view view = fixture_view(vectors, first, count);
    cr_assert_eq(kith_index_add(index, &view, ids, NULL), KITH_OK, "%s", kith_error_message());
}

fixture_vectors ivf_clustered(size_t count, size_t dim, size_t centres, uint64_t stream) {
    fixture_vectors out = fixture_vectors_make(KITH_F32, count, dim, stream);
    float *rows = (float *)(void *)out.stored;
    for (size_t i = 0; i < count; i++)
        for (size_t d = 0; d < dim; d++) {
            rows[i * dim + d] =
                0.3f * rows[i * dim + d] + kith_random_normal(stream, 99, (i * 7919 % 104729 % centres) * dim + d);
            out.values[i * dim + d] = rows[i * dim + d];
        }
    return out;
}

/* ---- One vector at a time ------------------------------------------------------------------------------------- */

static void unit_row(const kith_ivf *ivf, const float *values, float *out) {
    const kith_view view = {values, KITH_F32, 1, ivf->base.dim, ivf->base.dim * sizeof(float)};
    kith_ivf_row(ivf->base.metric, &view, 0, out);
}

static void project(const kith_ivf *ivf, const float *row, bool is_query, float *out) {
    kith_arena arena = {0};
    cr_assert_eq(kith_arena_begin(&arena), KITH_OK);
    cr_assert_eq((is_query ? kith_code_project_queries : kith_code_project)(ivf->code, row, 1, 1, &arena, out),
                 KITH_OK);
    kith_arena_free(&arena);
}

/* The number of the list that a vector's first copy belongs to. */
static uint32_t first_list(const kith_ivf *ivf, const float *values) {
    float *row = malloc(ivf->base.dim * sizeof *row);
    uint32_t list = 0;
    unit_row(ivf, values, row);
    const kith_view view = {row, KITH_F32, 1, ivf->base.dim, 0};
    if (ivf->has_coarse)
        cr_assert_eq(kith_kmeans_assign(&view, ivf->centroids, ivf->list_count, ivf->base.metric != KITH_L2, NULL,
                                        &list, NULL),
                     KITH_OK);
    free(row);
    return list;
}

/* That of its second copy, as the index has it. */
static uint32_t second_list(const kith_ivf *ivf, int64_t id) {
    for (size_t l = 0; l < ivf->list_count; l++)
        for (size_t p = 0; p < kith_ivf_list(ivf, 2 * l + 1)->count; p++) {
            const kith_list *list = kith_ivf_list(ivf, 2 * l + 1);
            if (!kith_list_is_dead(list, p) && kith_list_id(list, p) == id) return (uint32_t)l;
        }
    cr_assert_fail("id %lld has no second copy", (long long)id);
    return 0;
}

/* What the second list of a vector is chosen by, in double. */
static double spill_loss(const kith_ivf *ivf, const float *row, size_t first, size_t list) {
    double square = 0, along = 0, length = 0;
    for (size_t d = 0; d < ivf->base.dim; d++) {
        double r = (double)row[d] - (double)ivf->centroids[first * ivf->base.dim + d];
        double s = (double)row[d] - (double)ivf->centroids[list * ivf->base.dim + d];
        square += s * s;
        along += r * s;
        length += r * r;
    }
    return length > 0 ? square + along * along / length : square;
}

/* The second list is another than the first, and among all others the best, but for rounding. */
static void check_second(const kith_ivf *ivf, const float *values, uint32_t first, size_t list) {
    float *row = malloc(ivf->base.dim * sizeof *row);
    unit_row(ivf, values, row);
    double best = INFINITY, own = spill_loss(ivf, row, first, list);
    for (size_t l = 0; l < ivf->list_count; l++)
        if (l != first) best = fmin(best, spill_loss(ivf, row, first, l));
    cr_assert_neq(first, list);
    cr_assert(own <= best * 1.0001 + 1e-6, "list %zu is chosen by %g, the best is %g", list, own, best);
    free(row);
}

/* The code of a vector in a list. */
static void encode(const kith_ivf *ivf, const float *values, uint32_t list, unsigned char *code) {
    float *row = malloc(ivf->base.dim * sizeof *row), *projected = malloc(ivf->code->projected_dim * sizeof *row);
    unit_row(ivf, values, row);
    project(ivf, row, false, projected);
    kith_code_rows rows = {.rows = projected, .count = 1};
    if (ivf->by_residual) {
        rows.centroids = ivf->projected;
        rows.assigned = &list;
    }
    cr_assert_eq(ivf->code->vtable->encode(ivf->code, &rows, code), KITH_OK, "%s", kith_error_message());
    free(projected);
    free(row);
}

/* Copy c of vector i is number c * count + i. */
typedef struct encoded {
    unsigned char *codes;
    uint32_t *lists;
} encoded;

static encoded encode_all(const kith_ivf *ivf, const fixture_model *model) {
    size_t count = model->count * ivf->copies;
    encoded out = {aligned_alloc(64, (count * ivf->code->code_bytes + 127) / 64 * 64),
                   malloc((count + 1) * sizeof *out.lists)};
    for (size_t e = 0; e < count; e++) {
        const float *values = model->values + e % model->count * model->dim;
        out.lists[e] = e < model->count ? first_list(ivf, values) : second_list(ivf, model->ids[e - model->count]);
        encode(ivf, values, out.lists[e], out.codes + e * ivf->code->code_bytes);
    }
    return out;
}

static float value_of(const kith_ivf *ivf, int32_t key) {
    float value = kith_key_to_f32(key);
    return ivf->base.metric != KITH_L2 ? -value : value > 0 ? value : 0;
}

static void check_query(const kith_ivf *ivf, const fixture_model *model, const encoded *all, const float *values,
                        const int64_t *ids, const float *distances, size_t k) {
    const kith_code *code = ivf->code;
    float *row = malloc(model->dim * sizeof *row), *query = malloc(code->projected_dim * sizeof *query);
    void *prepared = aligned_alloc(64, code->query_bytes);
    kith_hit *hits = malloc((model->count + 1) * sizeof *hits);
    unit_row(ivf, values, row);
    project(ivf, row, true, query);
    code->vtable->prepare(code, query, prepared);
    for (size_t e = 0; e < model->count * ivf->copies; e++) {
        const float *centroid = ivf->by_residual ? ivf->projected + all->lists[e] * code->projected_dim : NULL;
        float estimate =
            kith_code_one(code, prepared, kith_code_base(code, query, centroid), all->codes + e * code->code_bytes);
        kith_hit *hit = &hits[e % model->count], own = {.id = model->ids[e % model->count]};
        own.key = kith_key_f32(estimate);
        if (e < model->count || own.key < hit->key) *hit = own; /* the better of two */
    }
    kith_hits_sort(hits, model->count);
    for (size_t i = 0; i < k; i++) {
        cr_assert_eq(ids[i], hits[i].id, "%s: rank %zu is id %lld, not %lld", ivf->base.spec, i, (long long)ids[i],
                     (long long)hits[i].id);
        cr_assert_eq(distances[i], value_of(ivf, hits[i].key), "%s: rank %zu is at %.9g, not %.9g", ivf->base.spec,
                     i, (double)distances[i], (double)value_of(ivf, hits[i].key));
    }
    free(hits);
    free(prepared);
    free(query);
    free(row);
}

void ivf_check_search(const kith_index *index, const fixture_model *model, const fixture_vectors *queries,
                      size_t k) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    kith_search_params params;
    kith_search_params_init(&params);
    params.nprobe = ivf->list_count;
    int64_t *ids = malloc(queries->count * k * sizeof *ids);
    float *distances = malloc(queries->count * k * sizeof *distances);
    encoded all = encode_all(ivf, model);
    /* All together, then one by one: the same. */
    for (size_t step = queries->count; step > 0; step = step > 1 ? 1 : 0) {
        for (size_t q = 0; q < queries->count; q += step) {
            kith_view view = fixture_view(queries, q, step);
            cr_assert_eq(kith_index_search(index, &view, k, &params, ids + q * k, distances + q * k, NULL), KITH_OK,
                         "%s", kith_error_message());
        }
        for (size_t q = 0; q < queries->count; q++)
            check_query(ivf, model, &all, queries->values + q * model->dim, ids + q * k, distances + q * k, k);
    }
    free(all.codes);
    free(all.lists);
    free(distances);
    free(ids);
}

static void note_id(void *context, int64_t id, size_t position) {
    (void)position;
    int64_t **at = context;
    *(*at)++ = id;
}

void ivf_check_content(const kith_index *index, const fixture_model *model) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    const kith_code *code = ivf->code;
    unsigned char *row = malloc(code->code_bytes), *expected = malloc(code->code_bytes);
    size_t seen = 0;
    cr_assert_eq(index->count, model->count);
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        const kith_list *list = kith_ivf_list(ivf, l);
        size_t in_list = 0, dead = 0;
        for (size_t s = 0; s < list->segment_count; s++) {
            const kith_list_segment *segment = kith_list_segment_at(list, s);
            size_t lanes = segment->count - segment->block_count * KITH_BLOCK_ROWS;
            cr_assert(segment->count > 0 && segment->count <= segment->capacity);
            cr_assert(segment->count == segment->capacity || s + 1 == list->segment_count ||
                      segment->id_bytes < kith_list_segment_at(list, s + 1)->id_bytes);
            cr_assert_eq(segment->tail != NULL, !code->is_exact && lanes > 0);
            cr_assert(code->is_exact || segment->tail_lane + lanes <= KITH_BLOCK_ROWS);
            for (size_t i = 0; i < segment->count; i++) {
                int64_t id = kith_segment_id(segment, i);
                if (kith_list_is_dead(list, in_list + i)) {
                    dead++;
                    continue;
                }
                const float *values = fixture_model_find(model, id);
                cr_assert_not_null(values, "id %lld is not in the model", (long long)id);
                uint32_t first = first_list(ivf, values), own = (uint32_t)(l / ivf->copies);
                if (l % ivf->copies == 0)
                    cr_assert_eq(first, own, "id %lld is in list %u", (long long)id, own);
                else
                    check_second(ivf, values, first, own);
                encode(ivf, values, own, expected);
                kith_list_get(code, list, in_list + i, 1, row);
                cr_assert_eq(memcmp(row, expected, code->code_bytes), 0, "id %lld has another code", (long long)id);
            }
            in_list += segment->count;
        }
        cr_assert_eq(in_list, list->count);
        cr_assert_eq(dead, list->dead_count);
        cr_assert(dead <= list->count / 8);
        seen += in_list - dead;
    }
    cr_assert_eq(seen, model->count * ivf->copies); /* with the ids all in the model: needs them distinct as well */
    int64_t *ids = malloc((seen + 1) * sizeof *ids);
    int64_t *next = ids;
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) kith_list_visit(kith_ivf_list(ivf, l), note_id, &next);
    for (size_t i = 0; i < model->count; i++) {
        size_t times = 0;
        for (size_t j = 0; j < seen; j++) times += ids[j] == model->ids[i];
        cr_assert_eq(times, ivf->copies, "id %lld stands %zu times", (long long)model->ids[i], times);
    }
    free(ids);
    free(expected);
    free(row);
}

void ivf_check_same(const kith_index *a, const kith_index *b, const fixture_vectors *queries, size_t k,
                    size_t nprobe) {
    kith_search_params params;
    kith_search_params_init(&params);
    params.nprobe = nprobe;
    size_t n = queries->count * k;
    int64_t *ids[2] = {malloc(n * sizeof **ids), malloc(n * sizeof **ids)};
    float *distances[2] = {malloc(n * sizeof(float)), malloc(n * sizeof(float))};
    size_t *counts[2] = {malloc(queries->count * sizeof(size_t)), malloc(queries->count * sizeof(size_t))};
    kith_view view = fixture_view(queries, 0, queries->count);
    cr_assert_str_eq(kith_index_spec(a), kith_index_spec(b));
    cr_assert_eq(kith_index_count(a), kith_index_count(b));
    cr_assert_eq(kith_index_is_trained(a), kith_index_is_trained(b));
    const kith_index *both[2] = {a, b};
    for (size_t i = 0; i < 2; i++) {
        params.threads = i + 1;
        cr_assert_eq(kith_index_search(both[i], &view, k, &params, ids[i], distances[i], counts[i]), KITH_OK, "%s",
                     kith_error_message());
    }
    cr_assert_eq(memcmp(ids[0], ids[1], n * sizeof **ids), 0);
    cr_assert_eq(memcmp(distances[0], distances[1], n * sizeof(float)), 0);
    for (size_t i = 0; i < 2; i++) {
        free(ids[i]);
        free(distances[i]);
        free(counts[i]);
    }
}
