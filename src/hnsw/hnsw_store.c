/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_store.c: new vectors into rows: stored as they are, or as codes; and, for the time of an addition, in 8 bits.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "hnsw/hnsw_inside.h"
#include "index/convert.h"

enum { PIECE = 128, SAMPLE = 2048 };

/* What a worker needs for a piece of vectors. */
typedef struct bench {
    float *vectors, *projected; /* PIECE each */
    unsigned char *codes;
    kith_arena arena;
} bench;

typedef struct storing {
    kith_hnsw *graph;
    const kith_view *view;
    size_t first, from; /* the first new node; the first node of the loop */
    size_t to;
    kith_hnsw_sketch *sketch; /* NULL: none */
    bench *benches;
    size_t threads;
} storing;

void kith_hnsw_normalise(const kith_hnsw *graph, float *vectors, size_t count) {
    size_t dim = graph->base.dim;
    if (graph->base.metric != KITH_COSINE && !graph->has_lengths) return;
    for (size_t i = 0; i < count; i++) {
        float inverse = kith_exact_inverse_norm(vectors + i * dim, KITH_F32, dim);
        for (size_t d = 0; d < dim; d++) vectors[i * dim + d] *= inverse;
    }
}

/* New vector `number` into its row, as the stored type. */
static kith_status store_row(const storing *work, size_t number) {
    kith_hnsw *graph = work->graph;
    const kith_index *base = &graph->base;
    size_t node = work->first + number, row_bytes = kith_dtype_row_bytes(base->dtype, base->dim);
    unsigned char *row = kith_chunks_at(&graph->rows, node);
    KITH_TRY(kith_row_convert("vectors", number, kith_view_row(work->view, number), work->view->dtype, base->dtype,
                              base->dim, row));
    memset(row + row_bytes, 0, graph->rows.item_bytes - row_bytes);
    if (kith_hnsw_has_side(graph))
        *(float *)kith_chunks_at(&graph->side, node) = kith_exact_inverse_norm(row, base->dtype, base->dim);
    return KITH_OK;
}

/* New vectors into their rows, as codes; `vectors` are theirs, normalised. */
static kith_status store_codes(const storing *work, bench *own, size_t number, size_t count) {
    kith_hnsw *graph = work->graph;
    const kith_code *code = graph->code;
    KITH_TRY(kith_arena_begin(&own->arena));
    KITH_TRY(kith_code_project(code, own->vectors, count, 1, &own->arena, own->projected));
    const kith_code_rows rows = {.rows = own->projected, .count = count, .first_row = number};
    KITH_TRY(code->vtable->encode(code, &rows, own->codes));
    for (size_t i = 0; i < count; i++) {
        unsigned char *row = kith_chunks_at(&graph->rows, work->first + number + i);
        memcpy(row, own->codes + i * code->code_bytes, code->code_bytes);
        memset(row + code->code_bytes, 0, graph->rows.item_bytes - code->code_bytes);
    }
    return KITH_OK;
}

/* Nodes that the index has held before, as f32. */
static kith_status load_old(const storing *work, bench *own, size_t node, size_t count) {
    const kith_hnsw *graph = work->graph;
    size_t dim = graph->base.dim;
    if (graph->code == NULL) {
        for (size_t i = 0; i < count; i++)
            kith_exact_to_f32(kith_hnsw_row(graph, (uint32_t)(node + i)), graph->base.dtype, dim,
                              own->vectors + i * dim);
        return KITH_OK;
    }
    return kith_hnsw_decode(graph, (uint32_t)node, count, own->codes, own->vectors);
}

kith_status kith_hnsw_decode(const kith_hnsw *graph, uint32_t node, size_t count, unsigned char *codes,
                             float *out) {
    const kith_code *code = graph->code;
    for (size_t i = 0; i < count; i++)
        memcpy(codes + i * code->code_bytes, kith_hnsw_row(graph, (uint32_t)(node + i)), code->code_bytes);
    const kith_code_rows rows = {.count = count};
    return code->vtable->decode(code, &rows, codes, out);
}

static void load_new(const storing *work, float *out, size_t number, size_t count) {
    size_t dim = work->graph->base.dim;
    for (size_t i = 0; i < count; i++)
        kith_exact_to_f32(kith_view_row(work->view, number + i), work->view->dtype, dim, out + i * dim);
}

static kith_status store_piece(void *context, size_t item, size_t worker) {
    const storing *work = context;
    bench *own = &work->benches[worker];
    const kith_hnsw *graph = work->graph;
    size_t node = work->from + item * PIECE;
    /* A piece is of old nodes or of new ones. */
    size_t end = node < work->first ? work->first : work->to, count = kith_min_size(PIECE, end - node);
    bool needs_floats = work->sketch != NULL || graph->code != NULL;
    if (node < work->first) {
        KITH_TRY(load_old(work, own, node, count));
    } else {
        size_t number = node - work->first;
        if (needs_floats) load_new(work, own->vectors, number, count);
        for (size_t i = 0; graph->code == NULL && i < count; i++) KITH_TRY(store_row(work, number + i));
    }
    if (!needs_floats) return KITH_OK;
    if (!graph->has_lengths) kith_hnsw_normalise(graph, own->vectors, count);
    if (graph->code != NULL && node >= work->first) KITH_TRY(store_codes(work, own, node - work->first, count));
    for (size_t i = 0; work->sketch != NULL && work->sketch->lengths != NULL && i < count; i++) {
        float inverse = kith_exact_inverse_norm(own->vectors + i * graph->base.dim, KITH_F32, graph->base.dim);
        work->sketch->lengths[node + i] = inverse > 0 && isfinite(inverse) ? 1 / inverse : 0;
    }
    if (graph->has_lengths) kith_hnsw_normalise(graph, own->vectors, count);
    for (size_t i = 0; work->sketch != NULL && i < count; i++)
        kith_hnsw_sketch_put(work->sketch, (uint32_t)(node + i), own->vectors + i * graph->base.dim);
    return KITH_OK;
}

static kith_status run(storing *work, size_t from, size_t to) {
    if (from >= to) return KITH_OK;
    work->from = from;
    work->to = to;
    return kith_parallel_for(work->threads, (to - from - 1) / PIECE + 1, store_piece, work);
}

static void free_benches(storing *work) {
    for (size_t w = 0; work->benches != NULL && w < work->threads; w++) {
        kith_free(work->benches[w].vectors);
        kith_free(work->benches[w].projected);
        kith_free(work->benches[w].codes);
        kith_arena_free(&work->benches[w].arena);
    }
    kith_free(work->benches);
}

static kith_status take_benches(storing *work) {
    const kith_hnsw *graph = work->graph;
    KITH_TRY(kith_alloc_zeroed(work->threads, sizeof *work->benches, &work->benches));
    for (size_t w = 0; w < work->threads; w++) {
        bench *own = &work->benches[w];
        KITH_TRY(kith_alloc(PIECE, graph->base.dim * sizeof(float), &own->vectors));
        if (graph->code == NULL) continue;
        KITH_TRY(kith_alloc(PIECE, graph->code->projected_dim * sizeof(float), &own->projected));
        KITH_TRY(kith_alloc(PIECE, graph->code->code_bytes, &own->codes));
    }
    return KITH_OK;
}

/* Evenly spread rows of the view, or of the graph where there is none, as they go into the sketch. */
static kith_status fit_sketch(const storing *work, kith_hnsw_sketch *sketch) {
    const kith_hnsw *graph = work->graph;
    const kith_view *view = work->view;
    size_t all = view != NULL ? view->count : work->first, count = kith_min_size(all, SAMPLE);
    size_t dim = graph->base.dim, nodes = view != NULL ? work->first + all : all;
    kith_dtype dtype = view != NULL ? view->dtype : graph->code == NULL ? graph->base.dtype : KITH_F32;
    bench *own = &work->benches[0];
    kith_status status = KITH_OK;
    float *sample;
    KITH_TRY(kith_alloc(count, dim * sizeof *sample, &sample));
    for (size_t i = 0; i < count && status == KITH_OK; i++) {
        if (view != NULL)
            load_new(work, sample + i * dim, all / count * i, 1);
        else if ((status = load_old(work, own, all / count * i, 1)) == KITH_OK)
            memcpy(sample + i * dim, own->vectors, dim * sizeof *sample);
    }
    kith_hnsw_normalise(graph, sample, count);
    if (status == KITH_OK) status = kith_hnsw_sketch_make(graph, dtype, sample, count, nodes, sketch);
    kith_free(sample);
    return status;
}

kith_status kith_hnsw_store(kith_hnsw *graph, const kith_view *view, size_t first, size_t threads,
                            kith_hnsw_sketch *sketch) {
    storing work = {.graph = graph, .view = view, .first = first, .sketch = sketch, .threads = threads};
    kith_status status;
    KITH_GO(take_benches(&work));
    if (sketch != NULL) {
        KITH_GO(fit_sketch(&work, sketch));
        if (sketch->rows == NULL) work.sketch = NULL;
    }
    KITH_GO(run(&work, first, first + view->count));
    if (work.sketch != NULL) KITH_GO(run(&work, 0, first));
done:
    if (status != KITH_OK && sketch != NULL) kith_hnsw_sketch_free(sketch);
    free_benches(&work);
    return status;
}

kith_status kith_hnsw_sketch_nodes(kith_hnsw *graph, size_t threads, kith_hnsw_sketch *sketch) {
    storing work = {.graph = graph, .first = graph->node_count, .sketch = sketch, .threads = threads};
    kith_status status;
    KITH_GO(take_benches(&work));
    KITH_GO(fit_sketch(&work, sketch));
    if (sketch->rows != NULL) KITH_GO(run(&work, 0, work.first));
done:
    if (status != KITH_OK) kith_hnsw_sketch_free(sketch);
    free_benches(&work);
    return status;
}

/* A sample as f32. */
typedef struct loading {
    const storing *from;
    float *out;
} loading;

static kith_status load_piece(void *context, size_t item, size_t worker) {
    const loading *work = context;
    const kith_hnsw *graph = work->from->graph;
    size_t first = item * PIECE, count = kith_min_size(PIECE, work->from->view->count - first);
    float *out = work->out + first * graph->base.dim;
    (void)worker;
    load_new(work->from, out, first, count);
    kith_hnsw_normalise(graph, out, count);
    return KITH_OK;
}

kith_status kith_hnsw_train(kith_index *index, const kith_view *sample, const kith_job *job) {
    kith_hnsw *graph = kith_hnsw_of(index);
    if (graph->code == NULL) return KITH_OK;
    if (index->count > 0)
        return kith_error(KITH_ERR_ARGUMENT, "train: an index %s that holds vectors cannot be trained again",
                          index->spec);
    const storing from = {.graph = graph, .view = sample};
    loading work = {.from = &from};
    kith_status status;
    KITH_GO(kith_alloc(sample->count, index->dim * sizeof *work.out, &work.out));
    KITH_GO(kith_parallel_for(job->threads, (sample->count + PIECE - 1) / PIECE, load_piece, &work));
    status = kith_code_train(graph->code, &(kith_code_rows){.rows = work.out, .count = sample->count}, job);
done:
    kith_free(work.out);
    return status;
}
