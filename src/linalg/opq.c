/* SPDX-License-Identifier: Apache-2.0
 *
 * opq.c: the rotation under which a product quantiser loses least.
 *
 * The vectors are first taken to dim_out principal components, dealt out to the parts so that the products of their
 * variances are about equal: the parametric solution, optimal for Gaussian data. From there, in rounds: every part's
 * codewords are moved once (assign, mean), the vectors are replaced by their codewords, and the rotation that takes
 * the vectors nearest to those is found (Procrustes). All of that happens in dim_out dimensions; what the projection
 * cut off no rotation can bring back.
 *
 * With Z the vectors and Y their codewords, Procrustes needs Y^T Z. A part has few different codewords: it is enough to
 * add up the vectors of each and to multiply those sums. While there is far to go, a quarter of the vectors is looked at.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/random.h"
#include "linalg/transform_inside.h"
#include "simd/simd.h"

enum { BITS_MIN = 4, BITS_MAX = 12, ROUNDS_MAX = 1000, ROWS_PER_CODEWORD = 256 };
enum { GROUP = 32, BLOCK_ROWS = 2048, SUM_ROWS = 256, STREAM_SEEDS = 0x6f707173, STREAM_EMPTY = 0x6f707165 };
/* The first half of the rounds looks at every fourth row, where there are many. */
enum { COARSE_STEP = 4, COARSE_ROWS_PER_CODEWORD = 64 };
/* The rounds end when one lowers the error by less than this part of it. */
static const double gain_min = 1e-4;
/* A variance below this part of the largest counts as this much when variances are dealt out. */
static const double variance_min = 1e-12;

void kith_opq_options_init(kith_opq_options *options) {
    *options = (kith_opq_options){.bits = 8, .rounds = 20, .kmeans_iterations = 10};
}

typedef struct opq {
    const kith_transform *t;
    const kith_job *job;
    size_t count, dim, part_dim, codewords; /* rows; dim_out; dim / parts; 2^bits */
    size_t step, used;                      /* rows 0, step, 2 * step, ... are looked at: so many */
    size_t lloyd_rounds;                    /* done so far */
    double *basis;                          /* dim rows of the stride of dim_in: the components, as dealt out */
    double *rotation;                       /* dim x dim, row-major with a stride: it times a vector */
    double *best_rotation;                  /* the same */
    double *cross;                          /* Y^T Z, the same shape */
    float *z;                               /* count x dim: the rows, as components */
    float *rotated;                         /* used x dim: those looked at, times the rotation */
    float *codebooks;                       /* parts x codewords x part_dim */
    float *bias;                            /* parts x codewords: -|codeword|^2 / 2 */
    double *columns;                        /* parts x part_dim x codewords: the codebooks' columns */
    uint32_t *codes;                        /* parts x used */
    double *kept;    /* parts: the squared length of all codewords, each as often as it is used */
    double *sums;    /* parts x codewords x part_dim */
    uint32_t *sizes; /* parts x codewords */
    float *groups;   /* of each worker: part_dim x 32, a group of rows */
    double *strips; /* of each worker in use: parts x codewords x 32, sums of rows; part_dim x 32, their products */
} opq;

/* Doubles of a worker in o->strips. */
static size_t strip_doubles(const opq *o) { return (o->t->parts * o->codewords + o->part_dim) * KITH_STRIP; }

/* Workers that ever have a strip. */
static size_t strip_workers(const kith_transform *t, size_t threads) {
    return kith_min_size(threads, kith_matrix_stride(t->dim_out) / KITH_STRIP);
}

static kith_status allocate(opq *o, size_t basis_stride) {
    size_t stride = kith_matrix_stride(o->dim), parts = o->t->parts, book = o->codewords * o->part_dim;
    KITH_TRY(kith_alloc_zeroed(o->dim, basis_stride * sizeof *o->basis, &o->basis));
    KITH_TRY(kith_alloc_zeroed(o->dim, stride * sizeof *o->rotation, &o->rotation));
    KITH_TRY(kith_alloc(o->dim, stride * sizeof *o->best_rotation, &o->best_rotation));
    KITH_TRY(kith_alloc(o->dim, stride * sizeof *o->cross, &o->cross));
    KITH_TRY(kith_alloc(o->count, o->dim * sizeof *o->z, &o->z));
    KITH_TRY(kith_alloc(o->count, o->dim * sizeof *o->rotated, &o->rotated));
    KITH_TRY(kith_alloc(parts, book * sizeof *o->codebooks, &o->codebooks));
    KITH_TRY(kith_alloc(parts, o->codewords * sizeof *o->bias, &o->bias));
    KITH_TRY(kith_alloc(parts, book * sizeof *o->columns, &o->columns));
    KITH_TRY(kith_alloc(parts, o->count * sizeof *o->codes, &o->codes));
    KITH_TRY(kith_alloc(parts, sizeof *o->kept, &o->kept));
    KITH_TRY(kith_alloc(parts, book * sizeof *o->sums, &o->sums));
    KITH_TRY(kith_alloc(parts, o->codewords * sizeof *o->sizes, &o->sizes));
    KITH_TRY(kith_alloc(o->job->threads, GROUP * o->part_dim * sizeof *o->groups, &o->groups));
    return kith_alloc(strip_workers(o->t, o->job->threads), strip_doubles(o) * sizeof *o->strips, &o->strips);
}

static void release(opq *o) {
    kith_free(o->basis);
    kith_free(o->rotation);
    kith_free(o->best_rotation);
    kith_free(o->cross);
    kith_free(o->z);
    kith_free(o->rotated);
    kith_free(o->codebooks);
    kith_free(o->codes);
    kith_free(o->kept);
    kith_free(o->columns);
    kith_free(o->sums);
    kith_free(o->sizes);
    kith_free(o->bias);
    kith_free(o->groups);
    kith_free(o->strips);
}

static size_t bytes_needed(const kith_transform *t, size_t count, size_t threads) {
    size_t rows, matrices = kith_components_bytes(t->dim_in),
                 square = 8 * t->dim_out * kith_matrix_stride(t->dim_out);
    size_t codewords = (size_t)1 << t->opq.bits,
           strips = strip_workers(t, threads) * (t->parts * codewords + t->dim_out) * KITH_STRIP * 8;
    size_t a_row = 2 * t->dim_out * sizeof(float) + t->parts * sizeof(uint32_t);
    if (kith_mul_overflows(count, a_row, &rows) || kith_add_overflows(rows, matrices, &rows) ||
        kith_add_overflows(rows, 8 * square + strips + 24 * codewords * t->dim_out, &rows))
        return SIZE_MAX;
    return rows;
}

/* ---- The start ----------------------------------------------------------------------------------------------- */

/* Deals the components out, the largest first, each to the part whose product of variances is smallest among those
 * that are not full (Ge and others, 4.3); slots[i] becomes the row of component i. */
static kith_status deal_out(const double *values, size_t value_count, size_t dim, size_t parts, size_t *slots) {
    double *logs = NULL, floor = values[0] * variance_min;
    size_t *filled = NULL, room = dim / parts, used = kith_min_size(value_count, dim);
    kith_status status;
    KITH_GO(kith_alloc_zeroed(parts, sizeof *logs, &logs));
    KITH_GO(kith_alloc_zeroed(parts, sizeof *filled, &filled));
    /* Variances are counted in units of the smallest, so that no product shrinks. */
    double unit = used < dim ? floor : fmax(values[used - 1], floor);
    for (size_t i = 0; i < dim; i++) {
        size_t best = parts;
        for (size_t p = 0; p < parts; p++)
            if (filled[p] < room && (best == parts || logs[p] < logs[best])) best = p;
        slots[i] = best * room + filled[best]++;
        double value = i < used ? fmax(values[i], unit) : unit;
        logs[best] += unit > 0 ? log(value / unit) : 0;
    }
done:
    kith_free(logs);
    kith_free(filled);
    return status;
}

/* The transform that takes rows to the components: a dense one with the mean, on the caller's arrays. */
static kith_status project(opq *o, const kith_components *found, const kith_sample *sample) {
    size_t dim_in = o->t->dim_in, stride = kith_matrix_stride(dim_in);
    kith_transform projection = {
        .vtable = &kith_transform_rotation, .dim_in = dim_in, .dim_out = o->dim, .is_trained = true};
    kith_status status;
    KITH_GO(kith_alloc(dim_in, sizeof(float), &projection.arrays.mean));
    KITH_GO(kith_alloc(o->dim, dim_in * sizeof(float), &projection.arrays.matrix));
    for (size_t j = 0; j < dim_in; j++) projection.arrays.mean[j] = (float)found->mean[j];
    for (size_t i = 0; i < o->dim; i++)
        for (size_t j = 0; j < dim_in; j++)
            projection.arrays.matrix[i * dim_in + j] = (float)o->basis[i * stride + j];
    KITH_GO(kith_affine_pack(dim_in, o->dim, projection.arrays.matrix, &projection.arrays.panels));
    KITH_GO(kith_sample_transform(sample, &projection, o->job->threads, o->z));
done:
    kith_transform_arrays_free(&projection.arrays);
    return status;
}

static kith_status start(opq *o, const kith_sample *sample, const kith_view *rows) {
    size_t dim_in = o->t->dim_in, stride = kith_matrix_stride(dim_in);
    kith_components found;
    size_t *slots = NULL;
    KITH_TRY(kith_components_find(rows, sample->count, true, o->job, NULL, &found));
    kith_status status;
    KITH_GO(kith_alloc(o->dim, sizeof *slots, &slots));
    KITH_GO(deal_out(found.values, dim_in, o->dim, o->t->parts, slots));
    for (size_t i = 0; i < kith_min_size(o->dim, dim_in); i++)
        memcpy(o->basis + slots[i] * stride, found.vectors + i * stride, stride * sizeof *o->basis);
    KITH_GO(project(o, &found, sample));
    for (size_t i = 0; i < o->dim; i++) o->rotation[i * kith_matrix_stride(o->dim) + i] = 1;
done:
    kith_free(slots);
    kith_components_free(&found);
    return status;
}

/* ---- Parts --------------------------------------------------------------------------------------------------- */

static float *book_of(const opq *o, size_t part) { return o->codebooks + part * o->codewords * o->part_dim; }

/* Codewords to start with: rows, drawn without repetition, the same for each part. */
static kith_status seed_codewords(opq *o) {
    uint32_t *order;
    KITH_TRY(kith_alloc(o->used, sizeof *order, &order));
    kith_random_permutation(o->job->seed, STREAM_SEEDS, o->used, order);
    for (size_t part = 0; part < o->t->parts; part++)
        for (size_t c = 0; c < o->codewords; c++)
            memcpy(book_of(o, part) + c * o->part_dim, o->rotated + order[c] * o->dim + part * o->part_dim,
                   o->part_dim * sizeof(float));
    kith_free(order);
    return KITH_OK;
}

static void fill_bias(const opq *o) {
    for (size_t c = 0; c < o->t->parts * o->codewords; c++)
        o->bias[c] = -0.5f * kith_simd()->norm2_f32(o->codebooks + c * o->part_dim, o->part_dim);
}

static kith_status assign_block(void *context, size_t item, size_t worker) {
    const opq *o = context;
    size_t width = o->part_dim, parts = o->t->parts, part = item % parts;
    size_t first = item / parts * BLOCK_ROWS, last = kith_min_size(first + BLOCK_ROWS, o->used);
    float *group = o->groups + worker * GROUP * width;
    for (size_t at = first; at < last; at += GROUP) {
        uint32_t numbers[GROUP];
        size_t present = kith_min_size(GROUP, last - at);
        for (size_t lane = 0; lane < GROUP; lane++) { /* lanes past the rows repeat the last one */
            const float *row = o->rotated + (at + kith_min_size(lane, present - 1)) * o->dim + part * width;
            for (size_t j = 0; j < width; j++) group[j * GROUP + lane] = row[j];
        }
        kith_simd()->tables.nearest(group, width, book_of(o, part), o->bias + part * o->codewords, o->codewords,
                                    numbers);
        memcpy(o->codes + part * o->count + at, numbers, present * sizeof *numbers);
    }
    return KITH_OK;
}

/* Codewords become the means of their rows; one without rows becomes some row. */
static kith_status move_part(void *context, size_t part, size_t worker) {
    const opq *o = context;
    size_t width = o->part_dim;
    float *book = book_of(o, part);
    double *sums = o->sums + part * o->codewords * width, kept = 0;
    uint32_t *sizes = o->sizes + part * o->codewords;
    const uint32_t *codes = o->codes + part * o->count;
    (void)worker;
    memset(sums, 0, o->codewords * width * sizeof *sums);
    memset(sizes, 0, o->codewords * sizeof *sizes);
    for (size_t i = 0; i < o->used; i++) {
        kith_simd()->matrix.accumulate(sums + codes[i] * width, o->rotated + i * o->dim + part * width, width);
        sizes[codes[i]]++;
    }
    for (size_t c = 0; c < o->codewords; c++) {
        uint64_t number = (o->lloyd_rounds * o->t->parts + part) * o->codewords + c;
        const float *row = o->rotated + part * width;
        if (sizes[c] == 0) row += kith_random_below(o->job->seed, STREAM_EMPTY, number, o->used) * o->dim;
        for (size_t j = 0; j < width; j++) {
            double sum = sums[c * width + j];
            book[c * width + j] = sizes[c] == 0 ? row[j] : (float)(sum / sizes[c]);
            kept += sizes[c] == 0 ? 0 : sum * (sum / sizes[c]);
        }
    }
    o->kept[part] = kept;
    return KITH_OK;
}

/* One round of Lloyd's algorithm in every part. *kept becomes the squared length of what the moved codewords make of the
 * rows: what the rows have beyond that is the error. */
static kith_status improve(opq *o, double *kept) {
    size_t threads = o->job->threads, parts = o->t->parts, blocks = (o->used + BLOCK_ROWS - 1) / BLOCK_ROWS;
    fill_bias(o);
    KITH_TRY(kith_parallel_for(threads, parts * blocks, assign_block, o));
    KITH_TRY(kith_parallel_for(threads, parts, move_part, o));
    o->lloyd_rounds++;
    *kept = 0;
    for (size_t p = 0; p < parts; p++) *kept += o->kept[p];
    return KITH_OK;
}

/* ---- Rounds -------------------------------------------------------------------------------------------------- */

/* A strip of Y^T Z: 32 columns. */
static kith_status cross_strip(void *context, size_t strip, size_t worker) {
    const opq *o = context;
    const kith_matrix_kernels *kernels = &kith_simd()->matrix;
    size_t width = o->part_dim, parts = o->t->parts, book = o->codewords * KITH_STRIP, at = strip * KITH_STRIP;
    size_t present = kith_min_size(KITH_STRIP, o->dim - at);
    double *sums = o->strips + worker * strip_doubles(o), *product = sums + parts * book;
    memset(sums, 0, parts * book * sizeof *sums);
    for (size_t first = 0; first < o->used; first += SUM_ROWS)
        for (size_t p = 0; p < parts; p++) {
            const uint32_t *codes = o->codes + p * o->count;
            for (size_t i = first; i < kith_min_size(first + SUM_ROWS, o->used); i++)
                kernels->accumulate(sums + p * book + codes[i] * KITH_STRIP, o->z + i * o->step * o->dim + at,
                                    present);
        }
    for (size_t p = 0; p < parts; p++) {
        kernels->strip_multiply(o->columns + p * width * o->codewords, o->codewords, width, o->codewords,
                                sums + p * book, product);
        for (size_t j = 0; j < width; j++)
            memcpy(o->cross + (p * width + j) * kith_matrix_stride(o->dim) + at, product + j * KITH_STRIP,
                   KITH_STRIP * sizeof *product);
    }
    return KITH_OK;
}

/* Y^T Z of the rows looked at. */
static kith_status find_cross(opq *o) {
    for (size_t p = 0; p < o->t->parts; p++)
        for (size_t c = 0; c < o->codewords; c++)
            for (size_t j = 0; j < o->part_dim; j++)
                o->columns[(p * o->part_dim + j) * o->codewords + c] = (double)book_of(o, p)[c * o->part_dim + j];
    return kith_parallel_for(o->job->threads, kith_matrix_stride(o->dim) / KITH_STRIP, cross_strip, o);
}

/* Sets the step, and puts those rows under the present rotation. */
static kith_status rotate(opq *o, size_t step) {
    size_t dim = o->dim, stride = kith_matrix_stride(dim);
    kith_transform turned = {.vtable = &kith_transform_rotation, .dim_in = dim, .dim_out = dim, .is_trained = true};
    o->step = step;
    o->used = (o->count + step - 1) / step;
    kith_view z = {
        .data = o->z, .dtype = KITH_F32, .count = o->used, .dim = dim, .stride = step * dim * sizeof *o->z};
    kith_arena arena = {0};
    kith_status status;
    KITH_GO(kith_alloc(dim, dim * sizeof(float), &turned.arrays.matrix));
    for (size_t i = 0; i < dim; i++)
        for (size_t j = 0; j < dim; j++) turned.arrays.matrix[i * dim + j] = (float)o->rotation[i * stride + j];
    KITH_GO(kith_affine_pack(dim, dim, turned.arrays.matrix, &turned.arrays.panels));
    KITH_GO(kith_arena_begin(&arena));
    KITH_GO(kith_transform_apply(&turned, &z, o->job->threads, &arena, o->rotated));
done:
    kith_arena_free(&arena);
    kith_transform_arrays_free(&turned.arrays);
    return status;
}

/* The squared length of the rows looked at. */
static double length2_of(const opq *o) {
    double sum = 0;
    for (size_t i = 0; i < o->used; i++) sum += (double)kith_simd()->norm2_f32(o->z + i * o->step * o->dim, o->dim);
    return sum;
}

static kith_status alternate(opq *o, kith_meter *meter) {
    size_t bytes = o->dim * kith_matrix_stride(o->dim) * sizeof *o->rotation, rounds = o->t->opq.rounds;
    bool is_large = o->count / COARSE_ROWS_PER_CODEWORD >= o->codewords;
    double best = INFINITY, kept, length2;
    memcpy(o->best_rotation, o->rotation, bytes);
    if (rounds == 0) return KITH_OK;
    KITH_TRY(rotate(o, is_large ? COARSE_STEP : 1));
    length2 = length2_of(o);
    KITH_TRY(seed_codewords(o));
    for (size_t i = 1; i < o->t->opq.kmeans_iterations; i++) KITH_TRY(improve(o, &kept));
    for (size_t round = 0; round <= rounds; round++) {
        KITH_TRY(improve(o, &kept));
        double error = fmax(length2 - kept, 0);
        bool is_over = !(error < best * (1 - gain_min));
        if (error < best) memcpy(o->best_rotation, o->rotation, bytes);
        best = fmin(best, error);
        KITH_TRY(kith_meter_add(meter, 1));
        if (round == rounds || (is_over && o->step == 1)) break;
        KITH_TRY(find_cross(o));
        KITH_TRY(kith_procrustes(o->cross, o->dim, o->job->threads, o->rotation));
        bool is_next = o->step > 1 && (is_over || 2 * (round + 1) >= rounds);
        KITH_TRY(rotate(o, is_next ? 1 : o->step));
        if (!is_next) continue;
        best = INFINITY; /* errors of other rows do not compare */
        length2 = length2_of(o);
    }
    return KITH_OK;
}

/* matrix = rotation * basis. */
static kith_status make_matrix(const opq *o, float **out) {
    size_t dim_in = o->t->dim_in, stride = kith_matrix_stride(o->dim), basis_stride = kith_matrix_stride(dim_in);
    double *strips = NULL, *product = NULL;
    kith_status status;
    KITH_GO(kith_alloc(o->dim, dim_in * sizeof **out, out));
    KITH_GO(kith_alloc(o->dim, basis_stride * sizeof *strips, &strips));
    KITH_GO(kith_alloc(o->dim, KITH_STRIP * sizeof *product, &product));
    kith_to_strips(o->basis, basis_stride, o->dim, dim_in, strips);
    for (size_t first = 0; first < dim_in; first += KITH_STRIP) {
        kith_simd()->matrix.strip_multiply(o->best_rotation, stride, o->dim, o->dim, strips + first * o->dim,
                                           product);
        for (size_t i = 0; i < o->dim; i++)
            for (size_t j = first; j < kith_min_size(first + KITH_STRIP, dim_in); j++)
                (*out)[i * dim_in + j] = (float)product[i * KITH_STRIP + j - first];
    }
done:
    kith_free(strips);
    kith_free(product);
    return status;
}

static kith_status train(const kith_transform *t, const kith_view *rows, const kith_job *job,
                         kith_transform_arrays *arrays) {
    opq o = {.t = t, .job = job, .dim = t->dim_out, .part_dim = t->dim_out / t->parts};
    o.codewords = (size_t)1 << t->opq.bits;
    if (rows->count < o.codewords)
        return kith_error(KITH_ERR_ARGUMENT, "opq: %zu rows to train on, fewer than the %zu codewords of %zu bits",
                          rows->count, o.codewords, t->opq.bits);
    kith_warn_few("opq", rows->count, o.codewords, "codewords");
    size_t rows_max = t->opq.rows_max != 0 ? t->opq.rows_max : ROWS_PER_CODEWORD * o.codewords;
    kith_sample sample = kith_sample_of(rows, kith_max_size(rows_max, o.codewords), job->seed);
    o.count = o.used = sample.count;
    KITH_TRY(kith_budget_check("opq", bytes_needed(t, o.count, job->threads), job));
    kith_meter meter;
    kith_meter_init(&meter, job->progress, job->progress_user, "opq", t->opq.rounds + 1);
    kith_status status;
    KITH_GO(allocate(&o, kith_matrix_stride(t->dim_in)));
    KITH_GO(start(&o, &sample, rows));
    KITH_GO(alternate(&o, &meter));
    KITH_GO(make_matrix(&o, &arrays->matrix));
    KITH_GO(kith_meter_finish(&meter));
done:
    release(&o);
    return status;
}

/* ---- The transform ------------------------------------------------------------------------------------------- */

static kith_status check(const kith_transform *t) {
    const kith_opq_options *options = &t->opq;
    if (t->parts < 1 || t->parts > t->dim_out || t->dim_out % t->parts != 0)
        return kith_error(KITH_ERR_ARGUMENT, "opq: %zu dimensions cannot be cut into %zu equal parts", t->dim_out,
                          t->parts);
    if (options->bits < BITS_MIN || options->bits > BITS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "opq: bits = %zu is outside %d..%d", options->bits, BITS_MIN,
                          BITS_MAX);
    if (options->rounds > ROUNDS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "opq: rounds = %zu is more than %d", options->rounds, ROUNDS_MAX);
    if (options->kmeans_iterations < 1 || options->kmeans_iterations > ROUNDS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "opq: kmeans_iterations = %zu is outside 1..%d",
                          options->kmeans_iterations, ROUNDS_MAX);
    return KITH_OK;
}

static void describe(const kith_transform *t, char *text, size_t bytes) {
    (void)snprintf(text, bytes, "OPQ%zu_%zu", t->parts, t->dim_out);
}

static unsigned keeps(const kith_transform *t) {
    return t->dim_out >= t->dim_in ? KITH_KEEPS_L2 | KITH_KEEPS_IP : 0;
}

const kith_transform_vtable kith_transform_opq = {
    .kind = KITH_TRANSFORM_OPQ,
    .name = "opq",
    .needs_rows = true,
    .arrays = 1 << KITH_ARRAY_MATRIX,
    .check = check,
    .describe = describe,
    .keeps = keeps,
    .train = train,
    .scratch = kith_affine_scratch,
    .apply = kith_affine_apply,
    .invert = kith_affine_invert,
};

kith_status kith_opq_create(size_t dim_in, size_t dim_out, size_t parts, const kith_opq_options *options,
                            kith_transform **out) {
    kith_transform filled = {.vtable = &kith_transform_opq, .dim_in = dim_in, .dim_out = dim_out, .parts = parts};
    kith_opq_options_init(&filled.opq);
    if (options != NULL) filled.opq = *options;
    return kith_transform_create(&filled, out);
}
