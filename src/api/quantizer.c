/* SPDX-License-Identifier: Apache-2.0
 *
 * quantizer.c: kith/quantizer.h: a code by itself. Vectors go through in blocks of some hundred rows, one thread a block.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "base/parallel.h"
#include "exact/check.h"
#include "exact/exact.h"
#include "index/codes.h"
#include "kith/quantizer.h"

struct kith_quantizer {
    kith_code *code;
    kith_metric metric;
};

enum { BLOCK_ROWS = 256, WORDS_ALIGNMENT = 4 };

/* ---- Making and asking ---------------------------------------------------------------------------------------- */

kith_status kith_quantizer_create(const char *spec, size_t dim, kith_metric metric, kith_quantizer **out) {
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "quantizer: out must not be NULL");
    *out = NULL;
    if (spec == NULL || *spec == '\0') return kith_error(KITH_ERR_ARGUMENT, "quantizer: spec must name a code");
    if (dim == 0 || dim > KITH_DIM_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "quantizer: dimension %zu is outside 1..%d", dim, KITH_DIM_MAX);
    if (metric == KITH_HAMMING)
        return kith_error(KITH_ERR_UNSUPPORTED, "quantizer: no code has the metric hamming");
    if (metric < KITH_L2 || metric > KITH_COSINE)
        return kith_error(KITH_ERR_ARGUMENT, "quantizer: metric %d is not one of l2, ip, cosine", (int)metric);
    const kith_spec parsed = {.text = spec, .parts = {{spec, strlen(spec), 0}}, .part_count = 1};
    kith_quantizer *made;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *made, &made));
    made->metric = metric;
    kith_status status = kith_code_create(&parsed, 0, dim, metric == KITH_L2 ? KITH_L2 : KITH_IP, &made->code);
    if (status == KITH_OK)
        *out = made;
    else
        kith_free(made);
    return status;
}

void kith_quantizer_free(kith_quantizer *quantizer) {
    if (quantizer == NULL) return;
    kith_code_free(quantizer->code);
    kith_free(quantizer);
}

const char *kith_quantizer_spec(const kith_quantizer *quantizer) { return quantizer->code->name; }
size_t kith_quantizer_dim(const kith_quantizer *quantizer) { return quantizer->code->dim; }
kith_metric kith_quantizer_metric(const kith_quantizer *quantizer) { return quantizer->metric; }
size_t kith_quantizer_code_bytes(const kith_quantizer *quantizer) { return quantizer->code->code_bytes; }
int kith_quantizer_is_trained(const kith_quantizer *quantizer) { return quantizer->code->is_trained; }
uint64_t kith_quantizer_memory(const kith_quantizer *quantizer) {
    return quantizer->code->vtable->memory(quantizer->code);
}

/* ---- Vectors -------------------------------------------------------------------------------------------------- */

/* The job with defaults, and the vectors checked, with a stride. */
static kith_status check(const char *what, const kith_quantizer *quantizer, const kith_view *vectors,
                         const kith_job *job, kith_job *own_job, kith_view *own) {
    if (quantizer == NULL || vectors == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "%s: quantizer and vectors must not be NULL", what);
    KITH_TRY(kith_job_read(own_job, job));
    KITH_TRY(kith_check_view_dim(what, vectors, quantizer->code->dim));
    *own = *vectors;
    own->stride = kith_view_stride(vectors);
    return kith_check_vectors(what, own, 0, quantizer->metric, own_job->threads);
}

static kith_status check_trained(const char *what, const kith_quantizer *quantizer) {
    if (quantizer != NULL && !quantizer->code->is_trained)
        return kith_error(KITH_ERR_NOT_TRAINED, "%s: %s has not been trained", what, quantizer->code->name);
    return KITH_OK;
}

/* Rows as f32, of unit length under cosine. */
static void read_rows(const kith_quantizer *quantizer, const kith_view *view, size_t first, size_t count,
                      float *out) {
    size_t dim = view->dim;
    for (size_t i = 0; i < count; i++, out += dim) {
        const void *row = (const char *)view->data + (first + i) * view->stride;
        kith_exact_to_f32(row, view->dtype, dim, out);
        if (quantizer->metric != KITH_COSINE) continue;
        float inverse = kith_exact_inverse_norm(row, view->dtype, dim);
        for (size_t d = 0; d < dim; d++) out[d] *= inverse;
    }
}

typedef struct vector_loop {
    const kith_quantizer *quantizer;
    kith_view view;       /* of read_rows */
    float *rows;          /* train: all of them */
    unsigned char *codes; /* encode, decode */
    size_t count;
    float *decoded;                     /* decode */
    double *squares, *errors, *moments; /* measure: sums of each block; moments: dim of each */
} vector_loop;

static size_t block_count(size_t count) { return count / BLOCK_ROWS + (count % BLOCK_ROWS != 0); }
static size_t rows_of_block(size_t count, size_t block) {
    return kith_min_size(BLOCK_ROWS, count - block * BLOCK_ROWS);
}

static kith_status read_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const vector_loop *loop = context;
    size_t first = item * BLOCK_ROWS;
    read_rows(loop->quantizer, &loop->view, first, rows_of_block(loop->count, item),
              loop->rows + first * loop->view.dim);
    return KITH_OK;
}

kith_status kith_quantizer_train(kith_quantizer *quantizer, const kith_view *sample, const kith_job *job) {
    kith_job own;
    vector_loop loop = {.quantizer = quantizer};
    KITH_TRY(check("train", quantizer, sample, job, &own, &loop.view));
    size_t bytes, dim = quantizer->code->dim;
    loop.count = loop.view.count;
    if (kith_mul_overflows(loop.count, dim * sizeof(float), &bytes))
        return kith_error(KITH_ERR_OVERFLOW, "train: %zu vectors of dimension %zu", loop.count, dim);
    if (own.memory_bytes_max != 0) {
        if (bytes >= own.memory_bytes_max)
            return kith_error(KITH_ERR_BUDGET, "train: the sample takes %zu bytes, the budget is %llu", bytes,
                              (unsigned long long)own.memory_bytes_max);
        own.memory_bytes_max -= bytes;
    }
    KITH_TRY(kith_alloc(loop.count, dim * sizeof(float), &loop.rows));
    const kith_code_rows rows = {.rows = loop.rows, .count = loop.count};
    kith_status status = kith_parallel_for(own.threads, block_count(loop.count), read_item, &loop);
    if (status == KITH_OK) status = kith_code_train(quantizer->code, &rows, &own);
    kith_free(loop.rows);
    return status;
}

/* ---- Codes ---------------------------------------------------------------------------------------------------- */

/* Encodes a block of the view; *rows has room for it, and is left as read_rows gives it. */
static kith_status encode_block(const vector_loop *loop, size_t block, float *rows, unsigned char *codes) {
    const kith_code *code = loop->quantizer->code;
    size_t first = block * BLOCK_ROWS, count = rows_of_block(loop->count, block);
    kith_arena arena = {0};
    float *projected = rows;
    kith_status status;
    read_rows(loop->quantizer, &loop->view, first, count, rows);
    if (code->vtable->project != NULL) {
        KITH_TRY(kith_alloc(count, code->projected_dim * sizeof *projected, &projected));
        KITH_GO(kith_arena_begin(&arena));
        KITH_GO(kith_code_project(code, rows, count, 1, &arena, projected));
    }
    const kith_code_rows input = {.rows = projected, .count = count, .first_row = first};
    KITH_GO(code->vtable->encode(code, &input, codes));
done:
    kith_arena_free(&arena);
    if (projected != rows) kith_free(projected);
    return status;
}

static kith_status encode_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const vector_loop *loop = context;
    float *rows;
    KITH_TRY(kith_alloc(BLOCK_ROWS, loop->view.dim * sizeof *rows, &rows));
    const size_t block_bytes = BLOCK_ROWS * loop->quantizer->code->code_bytes;
    kith_status status = encode_block(loop, item, rows, loop->codes + item * block_bytes);
    kith_free(rows);
    return status;
}

static kith_status check_codes(const char *what, const void *codes) {
    if (codes == NULL || (uintptr_t)codes % WORDS_ALIGNMENT != 0)
        return kith_error(KITH_ERR_ARGUMENT, "%s: codes must be aligned to %d bytes and not NULL", what,
                          WORDS_ALIGNMENT);
    return KITH_OK;
}

kith_status kith_quantizer_encode(const kith_quantizer *quantizer, const kith_view *vectors, const kith_job *job,
                                  void *codes) {
    kith_job own;
    vector_loop loop = {.quantizer = quantizer, .codes = codes};
    KITH_TRY(check_codes("encode", codes));
    KITH_TRY(check_trained("encode", quantizer));
    KITH_TRY(check("encode", quantizer, vectors, job, &own, &loop.view));
    loop.count = loop.view.count;
    return kith_parallel_for(own.threads, block_count(loop.count), encode_item, &loop);
}

static kith_status decode_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const vector_loop *loop = context;
    const kith_code *code = loop->quantizer->code;
    size_t first = item * BLOCK_ROWS;
    const kith_code_rows shape = {.count = rows_of_block(loop->count, item), .first_row = first};
    return code->vtable->decode(code, &shape, loop->codes + first * code->code_bytes,
                                loop->decoded + first * code->dim);
}

kith_status kith_quantizer_decode(const kith_quantizer *quantizer, const void *codes, size_t count,
                                  const kith_job *job, float *out) {
    kith_job own;
    if (quantizer == NULL || out == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "decode: quantizer and out must not be NULL");
    KITH_TRY(check_codes("decode", codes));
    KITH_TRY(check_trained("decode", quantizer));
    KITH_TRY(kith_job_read(&own, job));
    vector_loop loop = {
        .quantizer = quantizer, .codes = (unsigned char *)(uintptr_t)codes, .count = count, .decoded = out};
    return kith_parallel_for(own.threads, block_count(count), decode_item, &loop);
}

/* ---- Loss ----------------------------------------------------------------------------------------------------- */

/* Sums of a block: squares of rows, of their errors, and the rows themselves. */
static kith_status measure_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const vector_loop *loop = context;
    const kith_code *code = loop->quantizer->code;
    size_t dim = code->dim, count = rows_of_block(loop->count, item);
    float *rows = NULL, *decoded = NULL;
    unsigned char *codes = NULL;
    kith_status status;
    KITH_GO(kith_alloc(BLOCK_ROWS, dim * sizeof *rows, &rows));
    KITH_GO(kith_alloc(BLOCK_ROWS, dim * sizeof *decoded, &decoded));
    KITH_GO(kith_alloc(BLOCK_ROWS, code->code_bytes, &codes));
    KITH_GO(encode_block(loop, item, rows, codes));
    const kith_code_rows shape = {.count = count};
    KITH_GO(code->vtable->decode(code, &shape, codes, decoded));
    double *moments = loop->moments + item * dim, squares = 0, errors = 0;
    memset(moments, 0, dim * sizeof *moments);
    for (size_t i = 0; i < count; i++)
        for (size_t d = 0; d < dim; d++) {
            double value = (double)rows[i * dim + d], error = value - (double)decoded[i * dim + d];
            squares += value * value;
            errors += error * error;
            moments[d] += value;
        }
    loop->squares[item] = squares;
    loop->errors[item] = errors;
done:
    kith_free(codes);
    kith_free(decoded);
    kith_free(rows);
    return status;
}

static kith_quantizer_error sum_blocks(const vector_loop *loop) {
    size_t blocks = block_count(loop->count), dim = loop->view.dim;
    double squares = 0, errors = 0, mean_square = 0, count = (double)loop->count;
    for (size_t b = 0; b < blocks; b++) {
        squares += loop->squares[b] / count;
        errors += loop->errors[b] / count;
    }
    for (size_t d = 0; d < dim; d++) {
        double mean = 0;
        for (size_t b = 0; b < blocks; b++) mean += loop->moments[b * dim + d] / count;
        mean_square += mean * mean;
    }
    double variance = squares - mean_square;
    bool is_spread = variance > squares * 1e-12; /* less is rounding */
    return (kith_quantizer_error){sizeof(kith_quantizer_error), loop->count, errors,
                                  is_spread ? errors / variance : (double)NAN};
}

kith_status kith_quantizer_measure(const kith_quantizer *quantizer, const kith_view *vectors, const kith_job *job,
                                   kith_quantizer_error *out) {
    kith_job own;
    vector_loop loop = {.quantizer = quantizer};
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "measure: out must not be NULL");
    size_t known = out->size;
    if (known < sizeof known) return kith_error(KITH_ERR_ARGUMENT, "measure: size %zu; was it initialised?", known);
    KITH_TRY(check_trained("measure", quantizer));
    KITH_TRY(check("measure", quantizer, vectors, job, &own, &loop.view));
    loop.count = loop.view.count;
    size_t blocks = block_count(loop.count), dim = quantizer->code->dim;
    kith_status status;
    KITH_GO(kith_alloc(blocks, sizeof *loop.squares, &loop.squares));
    KITH_GO(kith_alloc(blocks, sizeof *loop.errors, &loop.errors));
    KITH_GO(kith_alloc(blocks, dim * sizeof *loop.moments, &loop.moments));
    KITH_GO(kith_parallel_for(own.threads, blocks, measure_item, &loop));
    kith_quantizer_error found = sum_blocks(&loop);
    found.size = known;
    memcpy(out, &found, kith_min_size(known, sizeof found));
done:
    kith_free(loop.moments);
    kith_free(loop.errors);
    kith_free(loop.squares);
    return status;
}

/* ---- Distances ------------------------------------------------------------------------------------------------ */

enum { QUERIES_PER_ITEM = 16 };

typedef struct distance_loop {
    const kith_quantizer *quantizer;
    kith_view view;             /* the queries, or */
    const unsigned char *codes; /* their codes */
    size_t count;
    const unsigned char *others; /* codes that they are held against */
    size_t other_count;
    float *out;
} distance_loop;

/* What a search of an index has for each pair, in the metric's own terms. `query`: room for a prepared one. */
static void measure_row(const distance_loop *loop, const float *vector, void *query, float *out) {
    const kith_code *code = loop->quantizer->code;
    const unsigned char *rows[BLOCK_ROWS];
    float estimates[BLOCK_ROWS], base = kith_code_base(code, vector, NULL);
    code->vtable->prepare(code, vector, query);
    for (size_t first = 0; first < loop->other_count; first += BLOCK_ROWS) {
        size_t count = kith_min_size(BLOCK_ROWS, loop->other_count - first);
        for (size_t i = 0; i < count; i++) rows[i] = loop->others + (first + i) * code->code_bytes;
        kith_code_rows_estimate(code, query, base, rows, count, estimates);
        for (size_t i = 0; i < count; i++)
            out[first + i] = code->metric == KITH_IP ? -estimates[i] : fmaxf(estimates[i], 0);
    }
}

/* The queries in the code's own space. */
static kith_status project_queries(const distance_loop *loop, size_t first, size_t count, float *projected) {
    const kith_code *code = loop->quantizer->code;
    kith_arena arena = {0};
    float *rows = NULL;
    kith_status status;
    KITH_GO(kith_arena_begin(&arena));
    KITH_GO(kith_alloc(count, code->dim * sizeof *rows, &rows));
    read_rows(loop->quantizer, &loop->view, first, count, rows);
    KITH_GO(kith_code_project_queries(code, rows, count, 1, &arena, projected));
done:
    kith_free(rows);
    kith_arena_free(&arena);
    return status;
}

/* The same for what codes stand for. */
static kith_status restore_codes(const distance_loop *loop, size_t first, size_t count, float *projected) {
    const kith_code *code = loop->quantizer->code;
    unsigned char *scratch;
    KITH_TRY(kith_alloc(1, kith_code_restore_bytes(code), &scratch));
    for (size_t i = 0; i < count; i++)
        code->vtable->restore(code, loop->codes + (first + i) * code->code_bytes, scratch,
                              projected + i * code->projected_dim);
    kith_free(scratch);
    return KITH_OK;
}

static kith_status distance_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const distance_loop *loop = context;
    const kith_code *code = loop->quantizer->code;
    size_t first = item * QUERIES_PER_ITEM, count = kith_min_size(QUERIES_PER_ITEM, loop->count - first);
    float *projected = NULL;
    void *query = NULL;
    kith_status status;
    KITH_GO(kith_alloc(count, code->projected_dim * sizeof *projected, &projected));
    KITH_GO(kith_alloc(1, code->query_bytes, &query));
    KITH_GO((loop->codes != NULL ? restore_codes : project_queries)(loop, first, count, projected));
    for (size_t i = 0; i < count; i++)
        measure_row(loop, projected + i * code->projected_dim, query, loop->out + (first + i) * loop->other_count);
done:
    kith_free(query);
    kith_free(projected);
    return status;
}

static kith_status run_distances(const char *what, const distance_loop *loop, size_t threads) {
    size_t bytes;
    if (kith_mul_overflows(loop->count, loop->other_count, &bytes) ||
        kith_mul_overflows(bytes, sizeof(float), &bytes))
        return kith_error(KITH_ERR_OVERFLOW, "%s: %zu times %zu distances", what, loop->count, loop->other_count);
    if (bytes == 0) return KITH_OK;
    size_t items = (loop->count - 1) / QUERIES_PER_ITEM + 1;
    return kith_parallel_for(threads, items, distance_item, (void *)(uintptr_t)loop);
}

kith_status kith_quantizer_distances(const kith_quantizer *quantizer, const kith_view *vectors, const void *codes,
                                     size_t code_count, const kith_job *job, float *out) {
    kith_job own;
    distance_loop loop = {.quantizer = quantizer, .others = codes, .other_count = code_count, .out = out};
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "distances: out must not be NULL");
    KITH_TRY(check_codes("distances", codes));
    KITH_TRY(check_trained("distances", quantizer));
    KITH_TRY(check("distances", quantizer, vectors, job, &own, &loop.view));
    loop.count = loop.view.count;
    return run_distances("distances", &loop, own.threads);
}

kith_status kith_quantizer_code_distances(const kith_quantizer *quantizer, const void *codes, size_t count,
                                          const void *others, size_t other_count, const kith_job *job, float *out) {
    kith_job own;
    const distance_loop loop = {.quantizer = quantizer,
                                .codes = codes,
                                .count = count,
                                .others = others,
                                .other_count = other_count,
                                .out = out};
    if (quantizer == NULL || out == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "code distances: quantizer and out must not be NULL");
    KITH_TRY(check_codes("code distances", codes));
    KITH_TRY(check_codes("code distances", others));
    KITH_TRY(check_trained("code distances", quantizer));
    KITH_TRY(kith_job_read(&own, job));
    return run_distances("code distances", &loop, own.threads);
}
