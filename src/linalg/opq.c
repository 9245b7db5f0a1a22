/* SPDX-License-Identifier: Apache-2.0
 *
 * opq.c: the rotation under which a product quantiser loses least.
 *
 * The vectors are first taken to dim_out principal components, dealt out to the parts so that the products of their
 * variances are about equal: the parametric solution, optimal for Gaussian data. From there, in rounds: every part's
 * codewords are moved once (assign, mean), the vectors are replaced by their codewords, and the rotation that takes
 * the vectors nearest to those is found (Procrustes). All of that happens in dim_out dimensions; what the projection
 * cut off no rotation can bring back.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/random.h"
#include "linalg/transform_inside.h"
#include "simd/simd.h"

enum { BITS_MIN = 4, BITS_MAX = 12, ROUNDS_MAX = 1000, ROWS_PER_CODEWORD = 256 };
enum { BLOCK_ROWS = 2048, LANES_MAX = 64, STREAM_SEEDS = 0x6f707173, STREAM_EMPTY = 0x6f707165 };
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
    size_t padded;                          /* codewords, rounded up to the tile's rows */
    size_t lloyd_rounds;                    /* done so far */
    double *basis;                          /* dim rows of the stride of dim_in: the components, as dealt out */
    double *rotation;                       /* dim x dim, row-major with a stride: a row vector times it */
    double *best_rotation;
    double *cross;    /* Z^T Y */
    float *z;         /* count x dim: the rows, as components */
    float *rotated;   /* z times the rotation */
    float *decoded;   /* the rows' codewords */
    float *codebooks; /* parts x codewords x part_dim */
    uint32_t *codes;  /* parts x count */
    double *errors;   /* parts */
    double *sums;     /* parts x codewords x part_dim */
    uint32_t *sizes;  /* parts x codewords */
    float *panels;    /* parts: the codebook, packed for the tile kernel */
    float *bias;      /* parts x padded: -|codeword|^2 / 2 */
    float *scratch;   /* for each thread: packed rows, then scores */
    size_t scratch_floats;
} opq;

static kith_status allocate(opq *o, size_t basis_stride) {
    size_t stride = kith_matrix_stride(o->dim), parts = o->t->parts, book = o->codewords * o->part_dim;
    KITH_TRY(kith_alloc_zeroed(o->dim, basis_stride * sizeof *o->basis, &o->basis));
    KITH_TRY(kith_alloc_zeroed(o->dim, stride * sizeof *o->rotation, &o->rotation));
    KITH_TRY(kith_alloc(o->dim, stride * sizeof *o->best_rotation, &o->best_rotation));
    KITH_TRY(kith_alloc(o->dim, stride * sizeof *o->cross, &o->cross));
    KITH_TRY(kith_alloc(o->count, o->dim * sizeof *o->z, &o->z));
    KITH_TRY(kith_alloc(o->count, o->dim * sizeof *o->rotated, &o->rotated));
    KITH_TRY(kith_alloc(o->count, o->dim * sizeof *o->decoded, &o->decoded));
    KITH_TRY(kith_alloc(parts, book * sizeof *o->codebooks, &o->codebooks));
    KITH_TRY(kith_alloc(parts, o->count * sizeof *o->codes, &o->codes));
    KITH_TRY(kith_alloc(parts, sizeof *o->errors, &o->errors));
    KITH_TRY(kith_alloc(parts, book * sizeof *o->sums, &o->sums));
    KITH_TRY(kith_alloc(parts, o->codewords * sizeof *o->sizes, &o->sizes));
    const kith_tile_f32 *tile = &kith_simd()->tile_f32;
    o->padded = kith_round_up(o->codewords, tile->row_lanes);
    o->scratch_floats = kith_round_up(tile->query_lanes * (o->part_dim + o->padded), KITH_ALIGNMENT);
    KITH_TRY(kith_alloc(parts, o->padded * o->part_dim * sizeof *o->panels, &o->panels));
    KITH_TRY(kith_alloc(parts, o->padded * sizeof *o->bias, &o->bias));
    return kith_alloc(o->job->threads, o->scratch_floats * sizeof *o->scratch, &o->scratch);
}

static void release(opq *o) {
    kith_free(o->basis);
    kith_free(o->rotation);
    kith_free(o->best_rotation);
    kith_free(o->cross);
    kith_free(o->z);
    kith_free(o->rotated);
    kith_free(o->decoded);
    kith_free(o->codebooks);
    kith_free(o->codes);
    kith_free(o->errors);
    kith_free(o->sums);
    kith_free(o->sizes);
    kith_free(o->panels);
    kith_free(o->bias);
    kith_free(o->scratch);
}

static size_t bytes_needed(const kith_transform *t, size_t count) {
    size_t rows, matrices = kith_components_bytes(t->dim_in),
                 square = 8 * t->dim_out * kith_matrix_stride(t->dim_out);
    size_t a_row = 3 * t->dim_out * sizeof(float) + t->parts * sizeof(uint32_t);
    if (kith_mul_overflows(count, a_row, &rows) || kith_add_overflows(rows, matrices, &rows) ||
        kith_add_overflows(rows, 8 * square, &rows))
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
    memcpy(o->rotated, o->z, o->count * o->dim * sizeof *o->z);
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
    KITH_TRY(kith_alloc(o->count, sizeof *order, &order));
    kith_random_permutation(o->job->seed, STREAM_SEEDS, o->count, order);
    for (size_t part = 0; part < o->t->parts; part++)
        for (size_t c = 0; c < o->codewords; c++)
            memcpy(book_of(o, part) + c * o->part_dim, o->rotated + order[c] * o->dim + part * o->part_dim,
                   o->part_dim * sizeof(float));
    kith_free(order);
    return KITH_OK;
}

/* A codebook as the tile kernel wants it; <row, c> - |c|^2 / 2 is largest for the nearest codeword. */
static kith_status pack_part(void *context, size_t part, size_t worker) {
    const opq *o = context;
    const kith_simd_table *simd = kith_simd();
    size_t lanes = simd->tile_f32.row_lanes, width = o->part_dim;
    (void)worker;
    for (size_t first = 0; first < o->padded; first += lanes) {
        const uint32_t *vectors[LANES_MAX];
        size_t count = kith_min_size(lanes, o->codewords - kith_min_size(first, o->codewords));
        for (size_t i = 0; i < lanes; i++) {
            const float *codeword = book_of(o, part) + (first + i) * width;
            if (i < count) vectors[i] = (const uint32_t *)(const void *)codeword;
            o->bias[part * o->padded + first + i] =
                i < count ? -0.5f * simd->norm2_f32(codeword, width) : -INFINITY;
        }
        float *panel = o->panels + (part * o->padded + first) * width;
        simd->pack(vectors, count, lanes, width, (uint32_t *)(void *)panel);
    }
    return KITH_OK;
}

static kith_status assign_block(void *context, size_t item, size_t worker) {
    const opq *o = context;
    const kith_simd_table *simd = kith_simd();
    size_t lanes = simd->tile_f32.query_lanes, width = o->part_dim, part = item % o->t->parts;
    size_t first = item / o->t->parts * BLOCK_ROWS, last = kith_min_size(first + BLOCK_ROWS, o->count);
    float *packed = o->scratch + worker * o->scratch_floats, *scores = packed + lanes * width;
    for (size_t group = first; group < last; group += lanes) {
        const uint32_t *vectors[LANES_MAX];
        size_t present = kith_min_size(lanes, last - group);
        for (size_t i = 0; i < present; i++)
            vectors[i] = (const uint32_t *)(const void *)(o->rotated + (group + i) * o->dim + part * width);
        simd->pack(vectors, present, lanes, width, (uint32_t *)(void *)packed);
        simd->tile_f32.run(packed, o->panels + part * o->padded * width, width,
                           o->padded / simd->tile_f32.row_lanes, o->bias + part * o->padded, scores, o->padded);
        for (size_t i = 0; i < present; i++)
            o->codes[part * o->count + group + i] =
                (uint32_t)simd->matrix.largest(scores + i * o->padded, o->codewords);
    }
    return KITH_OK;
}

/* Codewords become the means of their rows; one without rows becomes some row. */
static void move_codewords(const opq *o, size_t part) {
    size_t width = o->part_dim;
    float *book = book_of(o, part);
    double *sums = o->sums + part * o->codewords * width;
    uint32_t *sizes = o->sizes + part * o->codewords;
    const uint32_t *codes = o->codes + part * o->count;
    memset(sums, 0, o->codewords * width * sizeof *sums);
    memset(sizes, 0, o->codewords * sizeof *sizes);
    for (size_t i = 0; i < o->count; i++) {
        const float *row = o->rotated + i * o->dim + part * width;
        double *sum = sums + codes[i] * width;
        for (size_t j = 0; j < width; j++) sum[j] += (double)row[j];
        sizes[codes[i]]++;
    }
    for (size_t c = 0; c < o->codewords; c++) {
        uint64_t number = (o->lloyd_rounds * o->t->parts + part) * o->codewords + c;
        const float *row = o->rotated + part * width;
        if (sizes[c] == 0) row += kith_random_below(o->job->seed, STREAM_EMPTY, number, o->count) * o->dim;
        for (size_t j = 0; j < width; j++)
            book[c * width + j] = sizes[c] == 0 ? row[j] : (float)(sums[c * width + j] / sizes[c]);
    }
}

/* Moves, decodes, and measures the error. */
static kith_status move_part(void *context, size_t part, size_t worker) {
    const opq *o = context;
    size_t width = o->part_dim;
    const float *book = book_of(o, part);
    const uint32_t *codes = o->codes + part * o->count;
    (void)worker;
    move_codewords(o, part);
    double error = 0;
    for (size_t i = 0; i < o->count; i++) {
        size_t at = i * o->dim + part * width;
        const float *codeword = book + codes[i] * width;
        for (size_t j = 0; j < width; j++) {
            double difference = (double)o->rotated[at + j] - (double)codeword[j];
            error += difference * difference;
            o->decoded[at + j] = codeword[j];
        }
    }
    o->errors[part] = error;
    return KITH_OK;
}

/* One round of Lloyd's algorithm in every part; the error is that of the moved codewords. */
static kith_status improve(opq *o, double *error) {
    size_t threads = o->job->threads, parts = o->t->parts;
    size_t blocks = (o->count + BLOCK_ROWS - 1) / BLOCK_ROWS;
    KITH_TRY(kith_parallel_for(threads, parts, pack_part, o));
    KITH_TRY(kith_parallel_for(threads, parts * blocks, assign_block, o));
    KITH_TRY(kith_parallel_for(threads, parts, move_part, o));
    o->lloyd_rounds++;
    *error = 0;
    for (size_t p = 0; p < parts; p++) *error += o->errors[p];
    return KITH_OK;
}

/* ---- Rounds -------------------------------------------------------------------------------------------------- */

/* The rotation nearest to the present codewords, and the rows under it. */
static kith_status turn(opq *o) {
    size_t dim = o->dim, stride = kith_matrix_stride(dim), threads = o->job->threads;
    kith_transform turned = {.vtable = &kith_transform_rotation, .dim_in = dim, .dim_out = dim, .is_trained = true};
    kith_view z = {.data = o->z, .dtype = KITH_F32, .count = o->count, .dim = dim}, y = z;
    kith_arena arena = {0};
    y.data = o->decoded;
    double largest = 0;
    for (size_t i = 0; i < o->count * dim; i++) {
        largest = fmax(largest, fabs((double)o->z[i]));
        largest = fmax(largest, fabs((double)o->decoded[i]));
    }
    kith_moment_side left = {.sample = kith_sample_of(&z, 0, 0), .scale = kith_scale_of(largest)};
    kith_moment_side right = {.sample = kith_sample_of(&y, 0, 0), .scale = left.scale};
    kith_status status;
    KITH_GO(kith_moments(&left, &right, threads, NULL, o->cross));
    KITH_GO(kith_procrustes(o->cross, dim, threads, o->rotation));
    KITH_GO(kith_alloc(dim, dim * sizeof(float), &turned.arrays.matrix));
    for (size_t i = 0; i < dim; i++)
        for (size_t j = 0; j < dim; j++) turned.arrays.matrix[j * dim + i] = (float)o->rotation[i * stride + j];
    KITH_GO(kith_affine_pack(dim, dim, turned.arrays.matrix, &turned.arrays.panels));
    KITH_GO(kith_arena_begin(&arena));
    KITH_GO(kith_transform_apply(&turned, &z, threads, &arena, o->rotated));
done:
    kith_arena_free(&arena);
    kith_transform_arrays_free(&turned.arrays);
    return status;
}

static kith_status alternate(opq *o, kith_meter *meter) {
    size_t bytes = o->dim * kith_matrix_stride(o->dim) * sizeof *o->rotation;
    double best = INFINITY;
    memcpy(o->best_rotation, o->rotation, bytes);
    if (o->t->opq.rounds == 0) return KITH_OK;
    double error;
    KITH_TRY(seed_codewords(o));
    for (size_t i = 1; i < o->t->opq.kmeans_iterations; i++) KITH_TRY(improve(o, &error));
    for (size_t round = 0; round <= o->t->opq.rounds; round++) {
        KITH_TRY(improve(o, &error));
        bool is_over = round == o->t->opq.rounds || !(error < best * (1 - gain_min));
        if (error < best) memcpy(o->best_rotation, o->rotation, bytes);
        best = fmin(best, error);
        KITH_TRY(kith_meter_add(meter, 1));
        if (is_over || error == 0) break;
        KITH_TRY(turn(o));
    }
    return KITH_OK;
}

/* matrix = rotation^T * basis. */
static kith_status make_matrix(const opq *o, float **out) {
    size_t dim_in = o->t->dim_in, stride = kith_matrix_stride(o->dim), basis_stride = kith_matrix_stride(dim_in);
    double *turned = NULL, *strips = NULL, *product = NULL;
    kith_status status;
    KITH_GO(kith_alloc(o->dim, dim_in * sizeof **out, out));
    KITH_GO(kith_alloc(o->dim, stride * sizeof *turned, &turned));
    KITH_GO(kith_alloc(o->dim, basis_stride * sizeof *strips, &strips));
    KITH_GO(kith_alloc(o->dim, KITH_STRIP * sizeof *product, &product));
    for (size_t i = 0; i < o->dim; i++)
        for (size_t j = 0; j < o->dim; j++) turned[j * stride + i] = o->best_rotation[i * stride + j];
    kith_to_strips(o->basis, basis_stride, o->dim, dim_in, strips);
    for (size_t first = 0; first < dim_in; first += KITH_STRIP) {
        kith_simd()->matrix.strip_multiply(turned, stride, o->dim, o->dim, strips + first * o->dim, product);
        for (size_t i = 0; i < o->dim; i++)
            for (size_t j = first; j < kith_min_size(first + KITH_STRIP, dim_in); j++)
                (*out)[i * dim_in + j] = (float)product[i * KITH_STRIP + j - first];
    }
done:
    kith_free(turned);
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
    o.count = sample.count;
    KITH_TRY(kith_budget_check("opq", bytes_needed(t, o.count), job));
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
