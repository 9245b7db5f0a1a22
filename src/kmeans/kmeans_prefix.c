/* SPDX-License-Identifier: Apache-2.0
 *
 * kmeans_prefix.c: a few orthonormal directions that hold most of the centroids, and whether they are worth their while.
 *
 * Centroids are means: what points have in common is left in them, and lies in few directions, while noise has gone.
 * Seen through those directions alone a product is short by <x', c'> <= |x'| |c'|, where x' and c' are what is left out,
 * and c' is small. So the tile works on a few dimensions, and few centroids pass.
 * (Products over a prefix of rotated dimensions, then pruning: Kuffo, Hepkema, Boncz, "SuperKMeans", arXiv 2603.20009,
 * after Gao and Long, "ADSampling", SIGMOD 2023, who rotate at random and prune by a test that may err, rarely. Here
 * the directions follow the data, and the bound, from the lengths of what is left out, never errs: such a bound is in
 * Hwang, Han, Ahn, "A fast nearest neighbor search algorithm by nonlinear embedding", CVPR 2012.)
 *
 * The directions come from orthogonal iteration on the centroids' second moments (Golub and Van Loan, "Matrix
 * computations", 8.2.4; Halko, Martinsson, Tropp, SIAM Review 2011, for why few rounds do).
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "kmeans/kmeans_inside.h"
#include "simd/simd.h"

enum {
    ROUNDS = 4,
    PASSES_MAX = 6,
    MOMENT_ROWS = 2048,
    SAMPLE_POINTS = 256,
    STREAM_START = 0x64697265,
    LANES_MAX = 64
};

/* What work costs, in multiply-adds of the 8-bit tile: of one in f32; of a score beside its products; of a centroid that
 * passes, at least and for each dimension; of all of an assignment, the least share of it that must be gained. */
static const double cost_f32 = 5.5, cost_score = 16, cost_passed = 6000, cost_passed_dim = 4, gain_min = 0.15;
/* What passes in later rounds, by what passes in the first: centroids move less, so that the bounds get tighter. */
static const double passing_later = 0.35;
/* The rests of two sketches, for vectors of length 1: see range_in_rms of kmeans_sketch.c. */
static const double sketch_error = 0.02;

/* ---- Products ------------------------------------------------------------------------------------------------ */

typedef struct matrix {
    const float *rows;
    size_t count, stride;
} matrix;

typedef struct product_loop {
    matrix left;
    size_t depth, right_count, panels;
    const float *packed, *bias; /* of the right side */
    unsigned char *scratch;
    size_t scratch_bytes;
    float *out;
} product_loop;

static kith_status multiply_group(void *context, size_t group, size_t worker) {
    const product_loop *loop = context;
    const kith_simd_table *simd = kith_simd();
    size_t lanes = simd->tile_f32.query_lanes, first = group * lanes,
           width = loop->panels * simd->tile_f32.row_lanes;
    size_t count = kith_min_size(lanes, loop->left.count - first);
    uint32_t *packed = (uint32_t *)(void *)(loop->scratch + worker * loop->scratch_bytes);
    float *products = (float *)(void *)(packed + lanes * loop->depth);
    const uint32_t *vectors[LANES_MAX];
    for (size_t i = 0; i < count; i++)
        vectors[i] = (const uint32_t *)(const void *)(loop->left.rows + (first + i) * loop->left.stride);
    simd->pack(vectors, count, lanes, loop->depth, packed);
    simd->tile_f32.run((const float *)packed, loop->packed, loop->depth, loop->panels, loop->bias, products, width);
    for (size_t i = 0; i < count; i++)
        memcpy(loop->out + (first + i) * loop->right_count, products + i * width,
               loop->right_count * sizeof(float));
    return KITH_OK;
}

/* out[i * right.count + j] = <left i, right j> over `depth` elements. */
static kith_status multiply(matrix left, matrix right, size_t depth, size_t threads, float *out) {
    const kith_simd_table *simd = kith_simd();
    size_t lanes = simd->tile_f32.row_lanes, query_lanes = simd->tile_f32.query_lanes;
    product_loop loop = {.left = left, .depth = depth, .right_count = right.count, .out = out};
    uint32_t *packed = NULL;
    float *bias = NULL;
    const uint32_t *vectors[LANES_MAX];
    if (lanes > LANES_MAX || query_lanes > LANES_MAX) return kith_error(KITH_ERR_INTERNAL, "a tile of %zu", lanes);
    loop.panels = (right.count + lanes - 1) / lanes;
    loop.scratch_bytes =
        kith_round_up((query_lanes * depth + query_lanes * loop.panels * lanes) * sizeof(float), KITH_ALIGNMENT);
    kith_status status;
    KITH_GO(kith_alloc(loop.panels * lanes, depth * sizeof *packed, &packed));
    KITH_GO(kith_alloc_zeroed(loop.panels * lanes, sizeof *bias, &bias));
    KITH_GO(kith_alloc(threads, loop.scratch_bytes, &loop.scratch));
    for (size_t p = 0; p < loop.panels; p++) {
        size_t count = kith_min_size(lanes, right.count - p * lanes);
        for (size_t i = 0; i < count; i++)
            vectors[i] = (const uint32_t *)(const void *)(right.rows + (p * lanes + i) * right.stride);
        simd->pack(vectors, count, lanes, depth, packed + p * lanes * depth);
    }
    loop.packed = (const float *)packed;
    loop.bias = bias;
    KITH_GO(kith_parallel_for(threads, (left.count + query_lanes - 1) / query_lanes, multiply_group, &loop));
done:
    kith_free(loop.scratch);
    kith_free(bias);
    kith_free(packed);
    return status;
}

kith_status kith_project(const float *vectors, size_t count, size_t stride, const kith_directions *directions,
                         size_t threads, float *out) {
    matrix right = {directions->rows, directions->count, directions->dim};
    return multiply((matrix){vectors, count, stride}, right, directions->dim, threads, out);
}

/* ---- Directions ---------------------------------------------------------------------------------------------- */

size_t kith_directions_bytes(size_t dim) { return dim * (dim + 2 * MOMENT_ROWS) * sizeof(float); }

double kith_directions_cost(size_t k, size_t dim, size_t count) {
    const double products = 3 * ROUNDS; /* of each direction with all others, and by the moments */
    return cost_f32 * (double)dim * (double)dim *
           ((double)kith_min_size(k, MOMENT_ROWS) + products * (double)count);
}

/* Takes off what lies along the `count` orthonormal rows, and makes it 1 long; returns how long it was. */
static float take_off(const float *rows, size_t count, size_t dim, float *row) {
    const kith_simd_table *simd = kith_simd();
    for (size_t j = 0; j < count; j++) {
        const float *other = rows + j * dim;
        float along = simd->floats[KITH_OP_IP][KITH_PAIR_F32_F32].one(row, other, dim);
        for (size_t d = 0; d < dim; d++) row[d] -= along * other[d];
    }
    float length = sqrtf(simd->norm2_f32(row, dim));
    if (!(length > 1e-18f) || !isfinite(length)) return 0;
    for (size_t d = 0; d < dim; d++) row[d] /= length;
    return length;
}

/* Makes the rows orthonormal, in their order (Gram and Schmidt, again until a row stays as it is: what little is left
 * of one that depends on those before has mostly rounding in it, and serves as well as any). Drops rows of zeros. Returns
 * how many are left. */
static size_t make_orthonormal(float *rows, size_t count, size_t dim) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        float *row = rows + kept * dim, left = 0;
        if (kept != i) memcpy(row, rows + i * dim, dim * sizeof *row);
        if (take_off(rows, 0, dim, row) == 0) continue;
        for (size_t pass = 0; pass < PASSES_MAX && left < 0.5f; pass++) {
            left = take_off(rows, kept, dim, row);
            if (left == 0) break;
        }
        if (left >= 0.5f) kept++;
    }
    return kept;
}

/* Some of the centroids, one a column, so long that the longest is 1; *count is 0 when they have no length. */
static kith_status take_columns(const float *centroids, size_t k, size_t dim, float **out, size_t *count) {
    size_t rows = kith_min_size(k, MOMENT_ROWS);
    float longest = 0;
    for (size_t i = 0; i < rows; i++) {
        float norm2 = kith_simd()->norm2_f32(centroids + i * k / rows * dim, dim);
        if (!(norm2 <= longest)) longest = norm2;
    }
    *count = longest > 1e-30f && longest < 1e30f ? rows : 0;
    KITH_TRY(kith_alloc(dim, rows * sizeof **out, out));
    float scale = 1 / sqrtf(longest);
    for (size_t i = 0; i < *count; i++)
        for (size_t d = 0; d < dim; d++) (*out)[d * rows + i] = centroids[i * k / rows * dim + d] * scale;
    return KITH_OK;
}

kith_status kith_directions_find(kith_directions *directions, const float *centroids, size_t k, size_t dim,
                                 size_t count_max, size_t threads) {
    *directions = (kith_directions){.dim = dim};
    float *columns = NULL, *moments = NULL, *next = NULL;
    size_t rows, count = kith_min_size(kith_min_size(count_max, dim), k);
    kith_status status;
    KITH_GO(take_columns(centroids, k, dim, &columns, &rows));
    if (rows == 0) goto done;
    KITH_GO(kith_alloc(dim, dim * sizeof *moments, &moments));
    KITH_GO(kith_alloc(count, dim * sizeof *next, &next));
    KITH_GO(kith_alloc(count, dim * sizeof *directions->rows, &directions->rows));
    matrix of_columns = {columns, dim, rows}, of_moments = {moments, dim, dim};
    KITH_GO(multiply(of_columns, of_columns, rows, threads, moments));
    for (size_t i = 0; i < count * dim; i++) directions->rows[i] = kith_random_normal(1, STREAM_START, i);
    for (size_t round = 0; round < ROUNDS && count > 0; round++) {
        KITH_GO(multiply((matrix){directions->rows, count, dim}, of_moments, dim, threads, next));
        count = make_orthonormal(next, count, dim);
        memcpy(directions->rows, next, count * dim * sizeof *next);
    }
    directions->count = count;
done:
    if (status != KITH_OK) kith_directions_free(directions);
    kith_free(next);
    kith_free(moments);
    kith_free(columns);
    return status;
}

void kith_directions_free(kith_directions *directions) {
    kith_free(directions->rows);
    *directions = (kith_directions){0};
}

typedef struct skew_loop {
    const kith_directions *directions;
    double *sums;
} skew_loop;

static kith_status measure_skew_of(void *context, size_t i, size_t worker) {
    const skew_loop *loop = context;
    (void)worker;
    size_t dim = loop->directions->dim;
    const float *row = loop->directions->rows + i * dim;
    loop->sums[i] = 0;
    for (size_t j = 0; j < loop->directions->count; j++) {
        const float *other = loop->directions->rows + j * dim;
        double products[4] = {i == j ? -1 : 0, 0, 0, 0};
        for (size_t d = 0; d < dim; d++) products[d % 4] += (double)row[d] * (double)other[d];
        loop->sums[i] += fabs(products[0] + products[1] + products[2] + products[3]);
    }
    return KITH_OK;
}

/* How far the directions are from orthonormal: a bound on the norm of D D^T - I, the largest sum of a row. */
static kith_status measure_skew(const kith_directions *directions, size_t threads, double *skew) {
    skew_loop loop = {.directions = directions};
    KITH_TRY(kith_alloc(directions->count, sizeof *loop.sums, &loop.sums));
    kith_status status = kith_parallel_for(threads, directions->count, measure_skew_of, &loop);
    *skew = 1e-9;
    for (size_t i = 0; status == KITH_OK && i < directions->count; i++) *skew = fmax(*skew, loop.sums[i]);
    kith_free(loop.sums);
    return status;
}

/* Direction i becomes the sum over j of cas(2 pi i j / count) / sqrt(count) times direction j (the Hartley transform, an
 * orthogonal matrix for any count). */
kith_status kith_directions_turn(kith_directions *directions, size_t count, size_t threads, double *slack) {
    const double turn = 6.283185307179586;
    size_t dim = directions->dim;
    float *turned;
    double skew;
    KITH_TRY(kith_alloc_zeroed(count, dim * sizeof *turned, &turned));
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) {
            double angle = turn * (double)(i * j % count) / (double)count;
            float share = (float)((cos(angle) + sin(angle)) / sqrt((double)count));
            for (size_t d = 0; d < dim; d++) turned[i * dim + d] += share * directions->rows[j * dim + d];
        }
    kith_free(directions->rows);
    directions->rows = turned;
    directions->count = count;
    KITH_TRY(measure_skew(directions, threads, &skew));
    /* Each coordinate is a chain of `dim` steps: its rounding is at most dim 2^-24 |x|, all of them sqrt(count) times
     * that. Once for each side of a product, and the skew once. */
    double rounding = sqrt((double)count) * (double)dim * 0x1p-24 * (1 + skew);
    *slack = 2.2 * rounding + 1.2 * skew;
    return KITH_OK;
}

void kith_tails_of(const float *lengths, const float *projection_norms, size_t count, double slack, float *tails) {
    for (size_t i = 0; i < count; i++) {
        double length = (double)lengths[i], norm = (double)projection_norms[i];
        double rest2 = length * length - norm * norm;
        tails[i] = (float)(sqrt(fmax(rest2, 0) + (2 * slack + 1e-4) * length * length) * (1 + 1e-6));
    }
}

/* ---- The choice ---------------------------------------------------------------------------------------------- */

/* A sample of points and all centroids, through all directions that were found. */
typedef struct trial {
    const kith_directions *directions;
    size_t point_count, k, dim;
    bool spherical;
    float *points, *centroids;                /* projections */
    double *point_squares, *centroid_squares; /* squared lengths */
    float *halves;                            /* of the squared lengths; zeros when spherical */
    double *needs;                            /* what the score of a centroid must reach */
    float *scores;                            /* point_count x k */
} trial;

static void trial_free(trial *t) {
    kith_free(t->points);
    kith_free(t->centroids);
    kith_free(t->point_squares);
    kith_free(t->centroid_squares);
    kith_free(t->halves);
    kith_free(t->needs);
    kith_free(t->scores);
}

static kith_status trial_take(trial *t, const kith_points *points, const float *centroids, const uint32_t *assigned,
                              size_t threads) {
    const kith_simd_table *simd = kith_simd();
    size_t width = t->directions->count, dim = t->dim, step = points->count / t->point_count;
    kith_status status;
    KITH_GO(kith_alloc(t->point_count, width * sizeof(float), &t->points));
    KITH_GO(kith_alloc(t->k, width * sizeof(float), &t->centroids));
    KITH_GO(kith_alloc(t->point_count, sizeof(double), &t->point_squares));
    KITH_GO(kith_alloc(t->k, sizeof(double), &t->centroid_squares));
    KITH_GO(kith_alloc(t->k, sizeof(float), &t->halves));
    KITH_GO(kith_alloc(t->point_count, sizeof(double), &t->needs));
    KITH_GO(kith_alloc(t->point_count, t->k * sizeof(float), &t->scores));
    KITH_GO(kith_project(points->rows, t->point_count, step * dim, t->directions, threads, t->points));
    KITH_GO(kith_project(centroids, t->k, dim, t->directions, threads, t->centroids));
    for (size_t c = 0; c < t->k; c++) {
        t->centroid_squares[c] = (double)simd->norm2_f32(centroids + c * dim, dim);
        t->halves[c] = t->spherical ? 0 : (float)(t->centroid_squares[c] / 2);
    }
    for (size_t i = 0; i < t->point_count; i++) {
        const float *row = points->rows + i * step * dim, *own = centroids + assigned[i * step] * dim;
        kith_op op = t->spherical ? KITH_OP_IP : KITH_OP_L2SQ;
        double cost = (double)simd->floats[op][KITH_PAIR_F32_F32].one(row, own, dim);
        t->point_squares[i] = (double)simd->norm2_f32(row, dim);
        t->needs[i] = t->spherical ? cost : (t->point_squares[i] - cost) / 2;
    }
done:
    return status;
}

/* Centroids that pass for a point, on average, when the first `count` directions are used. */
static kith_status count_passing(trial *t, size_t count, size_t threads, double *passing) {
    const kith_simd_table *simd = kith_simd();
    size_t width = t->directions->count, passed = 0;
    float *norms, *tails;
    KITH_TRY(kith_alloc(t->k, 2 * sizeof *norms, &norms));
    tails = norms + t->k;
    for (size_t c = 0; c < t->k; c++) {
        double norm2 = (double)simd->norm2_f32(t->centroids + c * width, count);
        norms[c] = (float)(sketch_error * sqrt(norm2));
        tails[c] = (float)sqrt(fmax(t->centroid_squares[c] - norm2, 0));
    }
    kith_status status = multiply((matrix){t->points, t->point_count, width}, (matrix){t->centroids, t->k, width},
                                  count, threads, t->scores);
    for (size_t i = 0; status == KITH_OK && i < t->point_count; i++) {
        double norm2 = (double)simd->norm2_f32(t->points + i * width, count);
        float norm = (float)sqrt(norm2), tail = (float)sqrt(fmax(t->point_squares[i] - norm2, 0)),
              need = (float)t->needs[i];
        const float *scores = t->scores + i * t->k;
        for (size_t c = 0; c < t->k; c++)
            passed += scores[c] + norm * norms[c] + tail * tails[c] >= need + t->halves[c];
    }
    kith_free(norms);
    *passing = (double)passed / (double)t->point_count;
    return status;
}

kith_status kith_directions_choose(const kith_directions *directions, const kith_points *points,
                                   const float *centroids, size_t k, const uint32_t *assigned, bool spherical,
                                   size_t rounds, size_t threads, size_t *count) {
    static const size_t counts[] = {KITH_DIRECTIONS_MIN, 64, 96, 128, 192};
    double average = (1 + passing_later * ((double)rounds - 1)) / (double)rounds;
    double dim = (double)points->dim, least = (double)k * (dim + cost_score) * (1 - gain_min);
    trial t = {.directions = directions,
               .point_count = kith_min_size(points->count, SAMPLE_POINTS),
               .k = k,
               .dim = points->dim,
               .spherical = spherical};
    *count = 0;
    kith_status status;
    KITH_GO(trial_take(&t, points, centroids, assigned, threads));
    for (size_t i = 0; i < sizeof counts / sizeof *counts && counts[i] <= directions->count; i++) {
        double passing, own = (double)counts[i];
        KITH_GO(count_passing(&t, counts[i], threads, &passing));
        double cost = (double)k * (own + cost_score) + average * passing * (cost_passed + cost_passed_dim * dim) +
                      cost_f32 * dim * own / (double)rounds;
        if (cost >= least) continue;
        least = cost;
        *count = counts[i];
    }
done:
    trial_free(&t);
    return status;
}
