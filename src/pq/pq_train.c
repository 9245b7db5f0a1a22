/* SPDX-License-Identifier: Apache-2.0
 *
 * pq_train.c: codebooks: k-means in every part (Lloyd), from random rows on.
 *
 * The kernel that encodes assigns here too: rows lie in groups of 32, coordinate by coordinate, so that a register
 * holds one coordinate of 16 rows and meets every codeword by one fused multiply-add a coordinate. At the few
 * dimensions of a part this is several times the speed of k-means by tiles.
 */
#include <math.h>
#include <string.h>

#include "base/bitset.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "pq/pq_inside.h"

enum { GROUP = KITH_BLOCK_ROWS, ITERATIONS = 30, ROWS_PER_CODEWORD = 256, GROUPS_PER_ITEM = 64 };
/* The first rounds, in which codewords have far to go, look at every fourth group alone, where there are many rows. */
enum { COARSE_ITERATIONS = 10, COARSE_STEP = 4, COARSE_ROWS_PER_CODEWORD = 64 };
enum { STREAM_SAMPLE = 0x70717361, STREAM_SEEDS = 0x70717365, STREAM_EMPTY = 0x7071656d, STREAM_FAR = 0x70716661 };
enum { SEED_DISTANCES = 1 << 19, SEED_ROWS_PER_CODEWORD = 8, FEW_CODEWORDS = 16 };

typedef struct trainer {
    const kith_pq *pq;
    const kith_code_rows *sample;
    const kith_job *job;
    kith_meter meter;
    size_t count, group_count; /* rows used; groups of 32, the last one perhaps not full */
    uint32_t *chosen;          /* the rows used, rising; NULL: all */
    uint32_t *seeds;           /* rows, of those used, that the codewords start from */
    float *columns;            /* parts x groups x width x 32 */
    float *codebooks;          /* parts x codewords x width */
    unsigned char *scratch;    /* of each worker */
    bool parts_side_by_side;   /* threads share the parts out, else the rows of a part */
} trainer;

/* ---- The sample -------------------------------------------------------------------------------------------------- */

/* A random choice of t->count rows, in rising order. */
static kith_status choose_rows(trainer *t) {
    size_t n = t->sample->count, count = 0;
    uint32_t *order = NULL;
    uint64_t *is_chosen = NULL;
    kith_status status;
    KITH_GO(kith_alloc(n, sizeof *order, &order));
    KITH_GO(kith_alloc_zeroed(kith_bitset_words(n), sizeof *is_chosen, &is_chosen));
    kith_random_permutation(t->job->seed, STREAM_SAMPLE, n, order);
    for (size_t i = 0; i < t->count; i++) kith_bitset_set(is_chosen, order[i]);
    for (size_t i = 0; i < n; i++)
        if (kith_bitset_get(is_chosen, i)) order[count++] = (uint32_t)i;
    t->chosen = order;
    order = NULL;
done:
    kith_free(order);
    kith_free(is_chosen);
    return status;
}

static float *columns_of(const trainer *t, size_t part, size_t group) {
    return t->columns + (part * t->group_count + group) * t->pq->width * GROUP;
}

/* Rows in group, or 32. */
static size_t rows_in(const trainer *t, size_t group) { return kith_min_size(GROUP, t->count - group * GROUP); }

static kith_status load_group(void *context, size_t group, size_t worker) {
    (void)worker;
    const trainer *t = context;
    const kith_code_rows *sample = t->sample;
    size_t dim = t->pq->base.dim, width = t->pq->width;
    for (size_t lane = 0; lane < GROUP; lane++) {
        bool is_there = lane < rows_in(t, group);
        size_t used = group * GROUP + (is_there ? lane : 0), i = t->chosen != NULL ? t->chosen[used] : used;
        const float *row = sample->rows + i * dim, *reference = kith_code_centroid(sample, i, dim);
        double norm2 = 0;
        for (size_t j = 0; j < dim; j++) {
            float value = reference != NULL ? row[j] - reference[j] : row[j];
            columns_of(t, j / width, group)[j % width * GROUP + lane] = value;
            norm2 += (double)value * (double)value;
        }
        /* Less the mean it is at most twice as long, and its products with codewords stay finite. */
        if (!(4 * norm2 <= (double)KITH_NORM2_MAX))
            return kith_error(KITH_ERR_RANGE, "train %s: row %zu is too large: squared norm %g", t->pq->base.name,
                              sample->first_row + i, norm2);
    }
    return KITH_OK;
}

/* ---- One part ---------------------------------------------------------------------------------------------------- */

/* The codewords of a part and where its rows are; relative to the part's mean. */
typedef struct part_run {
    const trainer *t;
    size_t part;
    size_t step;       /* groups 0, step, 2 * step, ... are looked at */
    uint32_t *numbers; /* of each row its codeword */
    float *bias;       /* -|codeword|^2 / 2 */
    double *sums;      /* codewords x width */
    uint32_t *sizes;
    float *codewords;
    float *mean; /* width */
} part_run;

/* Bytes of the arrays of a run, one after the other: sums, mean, bias, sizes, numbers. */
static size_t scratch_bytes(const kith_pq *pq, size_t group_count) {
    size_t words = pq->width + 2 * pq->codewords + group_count * GROUP;
    return kith_round_up(pq->codewords * pq->width * sizeof(double) + words * sizeof(float), KITH_ALIGNMENT);
}

static part_run run_in(const trainer *t, size_t part, size_t worker) {
    const kith_pq *pq = t->pq;
    part_run run = {.t = t, .part = part, .codewords = t->codebooks + part * pq->codewords * pq->width};
    run.sums = (double *)(void *)(t->scratch + worker * scratch_bytes(pq, t->group_count));
    run.mean = (float *)(void *)(run.sums + pq->codewords * pq->width);
    run.bias = run.mean + pq->width;
    run.sizes = (uint32_t *)(void *)(run.bias + pq->codewords);
    run.numbers = run.sizes + pq->codewords;
    return run;
}

/* Takes the mean off the rows: products then do not cancel far from the origin. */
static void centre(part_run *run) {
    const trainer *t = run->t;
    size_t width = t->pq->width;
    for (size_t j = 0; j < width; j++) {
        double sum = 0;
        for (size_t g = 0; g < t->group_count; g++)
            for (size_t lane = 0; lane < rows_in(t, g); lane++)
                sum += (double)columns_of(t, run->part, g)[j * GROUP + lane];
        run->mean[j] = (float)(sum / (double)t->count);
        for (size_t g = 0; g < t->group_count; g++)
            for (size_t lane = 0; lane < GROUP; lane++)
                columns_of(t, run->part, g)[j * GROUP + lane] -= run->mean[j];
    }
}

static void copy_row(const part_run *run, size_t row, float *codeword) {
    const float *columns = columns_of(run->t, run->part, row / GROUP);
    for (size_t j = 0; j < run->t->pq->width; j++) codeword[j] = columns[j * GROUP + row % GROUP];
}

/* Codeword `number` becomes row t->seeds[which]. */
static void take_seed(const part_run *run, size_t number, size_t which) {
    copy_row(run, run->t->seeds[which], run->codewords + number * run->t->pq->width);
}

/* The squared distance of a row of a group to a codeword. */
static double distance_to(const part_run *run, size_t row, const float *codeword) {
    const float *columns = columns_of(run->t, run->part, row / GROUP) + row % GROUP;
    double sum = 0;
    for (size_t j = 0; j < run->t->pq->width; j++) {
        double difference = (double)columns[j * GROUP] - (double)codeword[j];
        sum += difference * difference;
    }
    return sum;
}

/* Each next codeword is one of `rows` random rows, drawn with a probability proportional to its squared distance from
 * those before (Arthur and Vassilvitskii, "k-means++", SODA 2007). */
static void seed_far_apart(part_run *run, size_t rows) {
    const trainer *t = run->t;
    size_t codewords = t->pq->codewords, width = t->pq->width;
    float *distances = (float *)(void *)run->numbers; /* numbers are not in use yet */
    for (size_t i = 0; i < rows; i++) distances[i] = INFINITY;
    take_seed(run, 0, 0);
    for (size_t c = 1; c < codewords; c++) {
        const float *last = run->codewords + (c - 1) * width;
        double total = 0;
        for (size_t i = 0; i < rows; i++) {
            float distance = (float)distance_to(run, t->seeds[i], last);
            if (distance < distances[i]) distances[i] = distance;
            total += (double)distances[i];
        }
        double left = (double)kith_random_f32(t->job->seed, STREAM_FAR, run->part * codewords + c) * total;
        size_t chosen = 0;
        while (chosen + 1 < rows && (left -= (double)distances[chosen]) >= 0) chosen++;
        take_seed(run, c, total > 0 ? chosen : c);
    }
}

/* Codewords start as random rows. Far apart they would begin at outliers and stay there, and the error would be larger;
 * but on a line, where codewords cannot pass each other, and where there are few, random ones leave the ends to too few. */
static void seed(part_run *run) {
    size_t codewords = run->t->pq->codewords, rows = kith_min_size(run->t->count, SEED_DISTANCES / codewords);
    if ((run->t->pq->width == 1 || codewords <= FEW_CODEWORDS) && rows >= SEED_ROWS_PER_CODEWORD * codewords) {
        seed_far_apart(run, rows);
        return;
    }
    for (size_t c = 0; c < codewords; c++) take_seed(run, c, c);
}

static kith_status assign_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const part_run *run = context;
    const trainer *t = run->t;
    const kith_table_kernels *kernels = &kith_simd()->tables;
    size_t first = item * GROUPS_PER_ITEM, last = kith_min_size(first + GROUPS_PER_ITEM, t->group_count);
    for (size_t g = first; g < last; g += run->step)
        kernels->nearest(columns_of(t, run->part, g), t->pq->width, run->codewords, run->bias, t->pq->codewords,
                         run->numbers + g * GROUP);
    return KITH_OK;
}

static kith_status assign(part_run *run) {
    const kith_pq *pq = run->t->pq;
    for (size_t c = 0; c < pq->codewords; c++) {
        double norm = 0;
        const float *codeword = run->codewords + c * pq->width;
        for (size_t j = 0; j < pq->width; j++) norm += (double)codeword[j] * (double)codeword[j];
        run->bias[c] = (float)(-0.5 * norm);
    }
    size_t items = (run->t->group_count + GROUPS_PER_ITEM - 1) / GROUPS_PER_ITEM;
    return kith_parallel_for(run->t->parts_side_by_side ? 1 : run->t->job->threads, items, assign_item, run);
}

/* Codewords become the means of their rows; one without rows becomes some row. Returns whether any one moved. */
static bool move(part_run *run, size_t iteration) {
    const trainer *t = run->t;
    size_t width = t->pq->width, codewords = t->pq->codewords;
    memset(run->sums, 0, codewords * width * sizeof *run->sums);
    memset(run->sizes, 0, codewords * sizeof *run->sizes);
    for (size_t g = 0; g < t->group_count; g += run->step) {
        const float *columns = columns_of(t, run->part, g);
        for (size_t lane = 0; lane < rows_in(t, g); lane++) {
            uint32_t number = run->numbers[g * GROUP + lane];
            double *sum = run->sums + number * width;
            for (size_t j = 0; j < width; j++) sum[j] += (double)columns[j * GROUP + lane];
            run->sizes[number]++;
        }
    }
    bool moved = false;
    for (size_t c = 0; c < codewords; c++) {
        float *codeword = run->codewords + c * width;
        if (run->sizes[c] == 0) {
            uint64_t draw = (iteration * t->pq->parts + run->part) * codewords + c;
            copy_row(run, kith_random_below(t->job->seed, STREAM_EMPTY, draw, t->count), codeword);
            moved = true;
            continue;
        }
        for (size_t j = 0; j < width; j++) {
            float mean = (float)(run->sums[c * width + j] / run->sizes[c]);
            moved = moved || mean != codeword[j];
            codeword[j] = mean;
        }
    }
    return moved;
}

static kith_status train_part(void *context, size_t part, size_t worker) {
    trainer *t = context;
    const kith_pq *pq = t->pq;
    part_run run = run_in(t, part, worker);
    centre(&run);
    seed(&run);
    bool moved = true, is_large = t->count / COARSE_ROWS_PER_CODEWORD >= pq->codewords;
    for (size_t i = 0; i < ITERATIONS; i++) {
        run.step = is_large && i < COARSE_ITERATIONS ? COARSE_STEP : 1;
        if (moved || i == COARSE_ITERATIONS) {
            KITH_TRY(assign(&run));
            moved = move(&run, i);
        }
        KITH_TRY(kith_meter_add(&t->meter, 1));
    }
    for (size_t c = 0; c < pq->codewords; c++)
        for (size_t j = 0; j < pq->width; j++) run.codewords[c * pq->width + j] += run.mean[j];
    return KITH_OK;
}

/* ---- All parts ----------------------------------------------------------------------------------------------------- */

static kith_status check(const kith_pq *pq, const kith_code_rows *sample) {
    if (sample->count < pq->codewords)
        return kith_error(KITH_ERR_ARGUMENT, "train %s: %zu vectors, fewer than its %zu codewords", pq->base.name,
                          sample->count, pq->codewords);
    if (sample->count > UINT32_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "train %s: %zu vectors, more than %u", pq->base.name, sample->count,
                          UINT32_MAX);
    kith_warn_few(pq->base.name, sample->count, pq->codewords, "codewords");
    return KITH_OK;
}

static kith_status check_budget(const trainer *t) {
    size_t columns, all = t->pq->base.dim * GROUP * sizeof(float);
    bool is_too_much = kith_mul_overflows(t->group_count, all, &columns) ||
                       kith_add_overflows(columns, t->sample->count * 5, &all) ||
                       kith_add_overflows(all, t->pq->codewords * t->pq->base.dim * 4 * sizeof(float), &all);
    if (t->job->memory_bytes_max == 0 || (!is_too_much && all <= t->job->memory_bytes_max)) return KITH_OK;
    return kith_error(KITH_ERR_BUDGET, "train %s: needs %zu bytes, the budget is %llu", t->pq->base.name,
                      is_too_much ? SIZE_MAX : all, (unsigned long long)t->job->memory_bytes_max);
}

static kith_status prepare(trainer *t) {
    const kith_pq *pq = t->pq;
    KITH_TRY(check_budget(t));
    if (t->count < t->sample->count) KITH_TRY(choose_rows(t));
    KITH_TRY(kith_alloc(t->group_count, pq->base.dim * GROUP * sizeof *t->columns, &t->columns));
    KITH_TRY(kith_alloc(pq->parts, pq->codewords * pq->width * sizeof *t->codebooks, &t->codebooks));
    KITH_TRY(kith_alloc(t->count, sizeof *t->seeds, &t->seeds));
    KITH_TRY(
        kith_alloc(t->parts_side_by_side ? t->job->threads : 1, scratch_bytes(pq, t->group_count), &t->scratch));
    kith_random_permutation(t->job->seed, STREAM_SEEDS, t->count, t->seeds);
    return kith_parallel_for(t->job->threads, t->group_count, load_group, t);
}

/* Codebooks for score-aware codes, from those of plain ones. */
static kith_status shape(trainer *t) {
    kith_pq shaped = kith_pq_blank(t->pq);
    float *plain = t->codebooks;
    t->codebooks = NULL;
    kith_status status = kith_pq_adopt(&shaped, plain);
    if (status == KITH_OK)
        status = kith_pq_shape_codebooks(&shaped, t->sample, t->chosen, t->count, t->job->threads);
    if (status == KITH_OK) {
        t->codebooks = shaped.codebooks;
        shaped.codebooks = NULL;
    }
    kith_pq_free_arrays(&shaped);
    return status;
}

kith_status kith_pq_train(kith_code *code, const kith_code_rows *sample, const kith_job *job) {
    kith_pq *pq = kith_pq_of(code);
    KITH_TRY(check(pq, sample));
    size_t count = kith_min_size(sample->count, pq->codewords * ROWS_PER_CODEWORD);
    trainer t = {.pq = pq,
                 .sample = sample,
                 .job = job,
                 .count = count,
                 .group_count = (count + GROUP - 1) / GROUP,
                 .parts_side_by_side = pq->parts >= job->threads};
    kith_meter_init(&t.meter, job->progress, job->progress_user, "train", (uint64_t)pq->parts * ITERATIONS);
    kith_status status;
    KITH_GO(prepare(&t));
    KITH_GO(kith_parallel_for(t.parts_side_by_side ? job->threads : 1, pq->parts, train_part, &t));
    KITH_GO(kith_meter_finish(&t.meter));
    if (pq->is_anisotropic) KITH_GO(shape(&t));
    float *made = t.codebooks;
    t.codebooks = NULL;
    status = kith_pq_adopt(pq, made);
done:
    kith_free(t.chosen);
    kith_free(t.seeds);
    kith_free(t.scratch);
    kith_free(t.columns);
    kith_free(t.codebooks);
    return status;
}
