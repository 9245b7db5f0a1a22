/* SPDX-License-Identifier: Apache-2.0
 *
 * rabitq_train.c: what RaBitQ and line codes learn: the mean, a rotation or principal components, how large factors
 * are; and, for a line, how many bits.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "rabitq/rabitq_inside.h"

enum { FACTOR_ROWS = 4096, PCA_ROWS_MIN = 16384, PCA_ROWS_MAX = 65536, PCA_ROWS_PER_DIMENSION = 32 };
/* f16 factors: the largest of the sample has this exponent, which leaves a factor of 128 above it and twenty below
 * that are kept to 11 bits. The bits of a line that cannot be tested. */
enum { LARGEST_EXPONENT = 9, EXPONENT_MAX = 100, BITS_UNTESTED = 4 };

/* ---- Factors --------------------------------------------------------------------------------------------------- */

/* A power of two in which factors up to `largest` are held. */
static float unit_for(float largest) {
    int exponent;
    if (!(largest > 0)) return 1;
    (void)frexpf(largest, &exponent);
    exponent -= LARGEST_EXPONENT;
    exponent = exponent > EXPONENT_MAX ? EXPONENT_MAX : exponent < -EXPONENT_MAX ? -EXPONENT_MAX : exponent;
    return ldexpf(1, exponent);
}

static int compare_floats(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Sets units and cosines from projected rows and their own reference points (NULL: none). */
static kith_status measure_factors(kith_rabitq *made, const float *rows, const float *references, size_t count) {
    size_t dim = made->code.projected_dim;
    kith_rounder rounder;
    float *cosines = NULL, add_max = 0, scale_max = 0;
    double sum = 0;
    kith_status status;
    KITH_TRY(kith_rounder_begin(&rounder, made));
    KITH_GO(kith_alloc(count, sizeof *cosines, &cosines));
    for (size_t i = 0; i < count; i++) {
        kith_rounded rounded;
        const float *reference = references != NULL ? references + i * dim : NULL;
        if (!kith_rounder_row(&rounder, rows + i * dim, reference, &rounded)) {
            status = kith_error(KITH_ERR_RANGE, "train %s: vectors are too large", made->code.name);
            goto done;
        }
        add_max = fmaxf(add_max, fabsf(rounded.add));
        scale_max = fmaxf(scale_max, fabsf(rounded.scale));
        cosines[i] = rounded.cosine2;
        sum += (double)rounded.cosine2;
    }
    qsort(cosines, count, sizeof *cosines, compare_floats);
    made->cosine2_mean = (float)(sum / (double)count);
    made->cosine2_low = cosines[count / 100];
    if (made->grid.factors == KITH_FACTORS_F16) {
        made->grid.add_unit = unit_for(add_max);
        made->grid.scale_unit = unit_for(scale_max);
    }
done:
    kith_free(cosines);
    kith_rounder_end(&rounder);
    return status;
}

/* The same from rows of the sample, taken at equal distances. */
static kith_status learn_factors(kith_rabitq *made, const kith_code_rows *sample, size_t threads) {
    size_t dim = made->code.dim, projected = made->code.projected_dim;
    size_t count = kith_min_size(sample->count, FACTOR_ROWS), each = sample->centroids != NULL ? 2 : 1;
    float *rows = NULL, *out = NULL;
    kith_arena arena = {0};
    kith_status status;
    KITH_GO(kith_alloc(count * each, dim * sizeof *rows, &rows));
    KITH_GO(kith_alloc(count * each, projected * sizeof *out, &out));
    for (size_t i = 0; i < count; i++) {
        size_t row = i * sample->count / count;
        memcpy(rows + i * dim, sample->rows + row * dim, dim * sizeof *rows);
        if (each == 2) memcpy(rows + (count + i) * dim, kith_reference_of(sample, dim, row), dim * sizeof *rows);
    }
    KITH_GO(kith_arena_begin(&arena));
    KITH_GO(kith_rabitq_project(&made->code, rows, count * each, threads, &arena, out));
    KITH_GO(measure_factors(made, out, each == 2 ? out + count * projected : NULL, count));
done:
    kith_free(rows);
    kith_free(out);
    kith_arena_free(&arena);
    return status;
}

/* ---- Transforms ------------------------------------------------------------------------------------------------ */

static kith_status find_mean(const kith_code_rows *sample, size_t dim, const kith_job *job, kith_transform **out) {
    kith_view view = {.data = sample->rows, .dtype = KITH_F32, .count = sample->count, .dim = dim};
    KITH_TRY(kith_centre_create(dim, out));
    kith_status status = kith_transform_train(*out, &view, job);
    if (status == KITH_OK) return KITH_OK;
    kith_transform_free(*out);
    *out = NULL;
    return status;
}

/* What the transform makes of the mean. */
static kith_status project_mean(const kith_transform *mean, const kith_transform *transform, float **out) {
    size_t dim = kith_transform_dim_in(mean), projected = kith_transform_dim_out(transform);
    float *vector = NULL;
    kith_arena arena = {0};
    kith_view view = {.dtype = KITH_F32, .count = 1, .dim = dim};
    kith_status status;
    *out = NULL;
    KITH_GO(kith_alloc_zeroed(2 * dim, sizeof *vector, &vector));
    KITH_GO(kith_alloc(projected, sizeof **out, out));
    KITH_GO(kith_arena_begin(&arena));
    view.data = vector;
    KITH_GO(kith_transform_apply(mean, &view, 1, &arena, vector + dim));
    for (size_t d = 0; d < dim; d++) vector[d] = -vector[dim + d];
    KITH_GO(kith_transform_apply(transform, &view, 1, &arena, *out));
done:
    kith_free(vector);
    kith_arena_free(&arena);
    if (status != KITH_OK) {
        kith_free(*out);
        *out = NULL;
    }
    return status;
}

/* Sets transform and centre of a code from `linear`, which is taken over whatever happens. Under l2 the mean is
 * subtracted first: distances do not notice. Inner products would, so there the code's own centre stands for it; next
 * to reference points it is not needed. */
static kith_status set_transform(kith_rabitq *made, const kith_transform *mean, bool has_references,
                                 kith_transform *linear) {
    kith_transform *members[2] = {NULL, linear};
    kith_status status = KITH_OK;
    if (made->code.metric == KITH_L2) {
        KITH_GO(kith_transform_clone(mean, &members[0]));
        KITH_GO(kith_chain_create(members, 2, &made->transform));
        return KITH_OK;
    }
    if (!has_references) {
        KITH_GO(project_mean(mean, linear, &made->centre));
        double sum = 0;
        for (size_t d = 0; d < made->code.projected_dim; d++)
            sum += (double)made->centre[d] * (double)made->centre[d];
        made->centre_norm = (float)sqrt(sum);
    }
    made->transform = linear;
    return KITH_OK;
done:
    kith_transform_free(members[0]);
    kith_transform_free(linear);
    return status;
}

/* An untrained copy that training fills, so that a failure leaves the code as it was. */
static kith_rabitq start_from(const kith_rabitq *own) {
    kith_rabitq made = *own;
    made.transform = NULL;
    made.centre = NULL;
    made.narrow = NULL;
    made.centre_norm = 0;
    return made;
}

static void finish_into(kith_rabitq *own, const kith_rabitq *made) {
    kith_rabitq_forget(own);
    *own = *made;
    own->code.is_trained = true;
}

kith_status kith_rabitq_train(kith_code *code, const kith_code_rows *sample, const kith_job *job) {
    kith_rabitq made = start_from(kith_rabitq_of(code));
    kith_transform *mean = NULL, *rotation = NULL;
    kith_job own;
    kith_status status;
    KITH_TRY(kith_job_read(&own, job));
    KITH_GO(find_mean(sample, code->dim, &own, &mean));
    KITH_GO(kith_fast_rotation_create(code->dim, &rotation));
    KITH_GO(kith_transform_train(rotation, NULL, &own));
    status = set_transform(&made, mean, sample->centroids != NULL, rotation);
    rotation = NULL;
    if (status != KITH_OK) goto done;
    KITH_GO(learn_factors(&made, sample, own.threads));
    finish_into((kith_rabitq *)code, &made);
    made.transform = NULL;
    made.centre = NULL;
done:
    kith_rabitq_forget(&made);
    kith_transform_free(mean);
    kith_transform_free(rotation);
    return status;
}

/* ---- Lines ----------------------------------------------------------------------------------------------------- */

/* What all candidates for a line's bits share. */
typedef struct line_training {
    const kith_rabitq *code;
    const kith_code_rows *sample;
    kith_job job;
    kith_transform *mean;
    kith_transform *components; /* NULL: every candidate has room for all dimensions */
    kith_rank_test *test;       /* NULL: no need for one, or too few rows */
} line_training;

/* Rows less their reference points or, under l2, the mean: their second moments are what matters. Under ip the mean
 * stays, so that the components hold it. */
static kith_status find_components(line_training *line, size_t dim_out) {
    const kith_code_rows *sample = line->sample;
    size_t dim = line->code->code.dim;
    size_t count = kith_max_size(PCA_ROWS_MIN, kith_min_size(PCA_ROWS_MAX, PCA_ROWS_PER_DIMENSION * dim));
    count = kith_min_size(count, sample->count);
    float *rows = NULL;
    kith_arena arena = {0};
    kith_pca_options options;
    kith_view view = {.dtype = KITH_F32, .count = count, .dim = dim};
    kith_status status;
    kith_pca_options_init(&options);
    options.is_centred = false;
    options.rows_max = count;
    KITH_GO(kith_alloc(count, dim * sizeof *rows, &rows));
    for (size_t i = 0; i < count; i++) {
        size_t row = i * sample->count / count;
        const float *from = sample->rows + row * dim, *reference = kith_reference_of(sample, dim, row);
        for (size_t d = 0; d < dim; d++) rows[i * dim + d] = from[d] - (reference != NULL ? reference[d] : 0);
    }
    view.data = rows;
    if (sample->centroids == NULL && line->code->code.metric == KITH_L2) {
        KITH_GO(kith_arena_begin(&arena));
        KITH_GO(kith_transform_apply(line->mean, &view, line->job.threads, &arena, rows));
    }
    KITH_GO(kith_pca_create(dim, dim_out, &options, &line->components));
    KITH_GO(kith_transform_train(line->components, &view, &line->job));
done:
    kith_free(rows);
    kith_arena_free(&arena);
    return status;
}

/* The code with these bits, trained. */
static kith_status train_candidate(const line_training *line, size_t bits, kith_rabitq *made) {
    kith_transform *linear = NULL;
    kith_status status;
    *made = start_from(line->code);
    kith_rabitq_set_bits(made, bits);
    size_t dim = made->code.projected_dim;
    if (line->components != NULL) {
        KITH_GO(kith_pca_narrow(line->components, dim, &line->job, &linear));
    } else {
        KITH_GO(kith_rotation_create(dim, dim, &linear));
        KITH_GO(kith_transform_train(linear, NULL, &line->job));
    }
    status = set_transform(made, line->mean, line->sample->centroids != NULL, linear);
    linear = NULL;
    if (status != KITH_OK) goto done;
    KITH_GO(learn_factors(made, line->sample, line->job.threads));
    KITH_GO(kith_line_narrow(made));
    made->code.is_trained = true;
    return KITH_OK;
done:
    kith_transform_free(linear);
    kith_rabitq_forget(made);
    return status;
}

/* In this order are they tried: numbers that lie in one plane come first, those that a kernel takes in fewer steps
 * before others. */
static const size_t trial_order[KITH_RABITQ_BITS_MAX] = {8, 4, 2, 1, 6, 5, 3, 7};

/* The bits worth trying: not those that leave room for all dimensions where more bits do so as well. */
static size_t list_candidates(const kith_rabitq *own, size_t candidates[KITH_RABITQ_BITS_MAX]) {
    size_t count = 0, most = 0;
    for (size_t bits = 1; bits <= KITH_RABITQ_BITS_MAX; bits++)
        if (kith_line_dim(own->line_bytes, bits) >= own->code.dim) most = bits;
    for (size_t i = 0; i < KITH_RABITQ_BITS_MAX; i++) {
        size_t bits = trial_order[i];
        bool is_worth = kith_line_dim(own->line_bytes, bits) > 0 && bits >= most;
        if (own->bits_wanted != 0 ? bits == own->bits_wanted : is_worth) candidates[count++] = bits;
    }
    return count;
}

/* Are the bits tried later worth more than those tried before? Numbers in two planes cost twice the time of a scan:
 * they have to spare a fifth of the rows to look at again. */
static bool is_better(const kith_rank_result *now, size_t bits, const kith_rank_result *before) {
    bool one_plane = (bits & (bits - 1)) == 0;
    if (!one_plane) return 5 * now->at_95 <= 4 * before->at_95;
    return now->at_95 < before->at_95 || (now->at_95 == before->at_95 && 5 * now->at_99 < 4 * before->at_99);
}

static kith_status choose(const line_training *line, const size_t *candidates, size_t count, kith_rabitq *best) {
    kith_rank_result best_result = {0};
    *best = start_from(line->code);
    for (size_t c = 0; c < count; c++) {
        kith_rabitq made;
        kith_rank_result result;
        KITH_TRY(train_candidate(line, candidates[c], &made));
        kith_status status = kith_rank_test_run(line->test, &made, line->job.threads, &result);
        if (status != KITH_OK) {
            kith_rabitq_forget(&made);
            return status;
        }
        bool is_best = c == 0 || is_better(&result, candidates[c], &best_result);
        kith_rabitq_forget(is_best ? best : &made);
        if (!is_best) continue;
        *best = made;
        best_result = result;
    }
    return KITH_OK;
}

/* Without a test: those that take all dimensions, or else the usual ones. */
static size_t untested(const kith_rabitq *own, const size_t *candidates, size_t count) {
    for (size_t c = 0; c < count; c++)
        if (kith_line_dim(own->line_bytes, candidates[c]) >= own->code.dim) return candidates[c];
    return count == 1 ? candidates[0] : BITS_UNTESTED;
}

kith_status kith_line_train(kith_code *code, const kith_code_rows *sample, const kith_job *job) {
    kith_rabitq *own = (kith_rabitq *)code, made = start_from(own);
    line_training line = {.code = own, .sample = sample};
    size_t candidates[KITH_RABITQ_BITS_MAX], count = list_candidates(own, candidates), dim_max = 0;
    kith_status status;
    KITH_TRY(kith_job_read(&line.job, job));
    for (size_t c = 0; c < count; c++)
        dim_max = kith_max_size(dim_max, kith_line_dim(own->line_bytes, candidates[c]));
    KITH_GO(find_mean(sample, code->dim, &line.job, &line.mean));
    if (count > 1 || dim_max < code->dim) KITH_GO(find_components(&line, kith_min_size(dim_max, code->dim)));
    if (count > 1) KITH_GO(kith_rank_test_create(sample, code->dim, code->metric, line.job.threads, &line.test));
    if (line.test != NULL)
        KITH_GO(choose(&line, candidates, count, &made));
    else
        KITH_GO(train_candidate(&line, untested(own, candidates, count), &made));
    finish_into(own, &made);
    made.transform = NULL;
    made.centre = NULL;
    made.narrow = NULL;
done:
    kith_rabitq_forget(&made);
    kith_transform_free(line.mean);
    kith_transform_free(line.components);
    kith_rank_test_free(line.test);
    return status;
}
