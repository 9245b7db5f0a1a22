/* SPDX-License-Identifier: Apache-2.0
 *
 * sq_train.c: the ranges of the scalar quantiser: smallest to largest value, quantiles, or least squared error.
 *
 * Dimensions are shared out among threads, some at a time; each is found from all rows by one thread, so that the
 * result does not depend on their number.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/parallel.h"
#include "base/sort.h"
#include "sq/sq_inside.h"

enum {
    GROUP = 16,               /* dimensions of an item: a cache line of each row */
    SORTED_MAX = 1 << 16,     /* rows that are sorted for one dimension */
    SORTED_ALL_MAX = 1 << 21, /* values that are sorted for one range of all dimensions */
    FIT_ROUNDS = 16
};

typedef struct range_loop {
    const kith_sq *sq;
    const kith_code_rows *sample;
    kith_meter *meter;
    float *minimum, *extent, *mean;
} range_loop;

/* ---- One range of sorted values ------------------------------------------------------------------------------- */

/* What is sorted, and its sums: prefix[i] is the sum of the first i values less `shift`. */
typedef struct sorted_values {
    float *values;
    int64_t *keys, *scratch;
    double *prefix;
    size_t count;
    double shift, squares;
} sorted_values;

static void sorted_free(sorted_values *sorted) {
    kith_free(sorted->values);
    kith_free(sorted->keys);
    kith_free(sorted->scratch);
    kith_free(sorted->prefix);
}

static kith_status sorted_alloc(size_t count, sorted_values *sorted) {
    *sorted = (sorted_values){.count = count};
    kith_status status = kith_alloc(count, sizeof *sorted->values, &sorted->values);
    if (status == KITH_OK) status = kith_alloc(count, sizeof *sorted->keys, &sorted->keys);
    if (status == KITH_OK) status = kith_alloc(count, sizeof *sorted->scratch, &sorted->scratch);
    if (status == KITH_OK) status = kith_alloc(count + 1, sizeof *sorted->prefix, &sorted->prefix);
    return status;
}

/* Sorts values by way of integers in the same order. */
static void sort_values(sorted_values *sorted) {
    const uint32_t sign = UINT32_C(1) << 31;
    for (size_t i = 0; i < sorted->count; i++) {
        uint32_t bits;
        memcpy(&bits, &sorted->values[i], sizeof bits);
        sorted->keys[i] = (bits & sign) != 0 ? ~bits : bits | sign;
    }
    kith_sort_i64(sorted->keys, sorted->count, sorted->scratch);
    for (size_t i = 0; i < sorted->count; i++) {
        uint32_t key = (uint32_t)sorted->keys[i], bits = (key & sign) != 0 ? key & ~sign : ~key;
        memcpy(&sorted->values[i], &bits, sizeof bits);
    }
}

static void sum_values(sorted_values *sorted) {
    sorted->shift = (double)sorted->values[sorted->count / 2];
    sorted->prefix[0] = sorted->squares = 0;
    for (size_t i = 0; i < sorted->count; i++) {
        double value = (double)sorted->values[i] - sorted->shift;
        sorted->prefix[i + 1] = sorted->prefix[i] + value;
        sorted->squares += value * value;
    }
}

/* The values at the two ends when `permille` of all are cut off at either, as FAISS counts them. */
static void cut_ends(const sorted_values *sorted, size_t permille, float *lowest, float *highest) {
    size_t cut = sorted->count / 1000 * permille + sorted->count % 1000 * permille / 1000;
    if (cut > sorted->count - cut) cut = sorted->count / 2;
    *lowest = sorted->values[cut];
    *highest = sorted->values[kith_max_size(cut, sorted->count - 1 - cut)];
}

static size_t count_below(const sorted_values *sorted, double bound) {
    size_t first = 0, count = sorted->count;
    while (count > 0) {
        size_t half = count / 2;
        bool right = (double)sorted->values[first + half] < bound;
        first = right ? first + half + 1 : first;
        count = right ? count - half - 1 : half;
    }
    return first;
}

/* Numbers 0..levels stand for base + step * number, less the shift. */
typedef struct line {
    double base, step;
} line;

/* Each value goes to its nearest number. *next is the line with the least squared error for these numbers; the
 * result is the squared error of `now`. */
static double refit(const sorted_values *sorted, unsigned levels, line now, line *next) {
    double numbers = 0, numbers2 = 0, products = 0, count = (double)sorted->count,
           all = sorted->prefix[sorted->count];
    size_t below = 0;
    for (unsigned n = 0; n <= levels; n++) {
        double bound = sorted->shift + now.base + now.step * (n + 0.5);
        size_t end = n < levels ? count_below(sorted, bound) : sorted->count;
        if (end <= below) continue;
        double here = (double)(end - below);
        numbers += n * here;
        numbers2 += (double)n * n * here;
        products += n * (sorted->prefix[end] - sorted->prefix[below]);
        below = end;
    }
    double error = sorted->squares - 2 * (now.base * all + now.step * products) + now.base * now.base * count +
                   2 * now.base * now.step * numbers + now.step * now.step * numbers2;
    double determinant = numbers2 * count - numbers * numbers;
    *next = now;
    if (determinant > 0) {
        next->step = (products * count - numbers * all) / determinant;
        next->base = (all - next->step * numbers) / count;
    }
    return error;
}

/* Alternates between numbers and line (Lloyd's method on one line), from several starts; least squared error for
 * numbers that are decoded to the middle of their cells. */
static void fit_range(const sorted_values *sorted, unsigned levels, float *minimum, float *extent) {
    static const size_t starts_permille[] = {0, 2, 10, 25, 60};
    double least = INFINITY;
    *minimum = sorted->values[0];
    *extent = 0;
    for (size_t s = 0; s < sizeof starts_permille / sizeof *starts_permille; s++) {
        float lowest, highest;
        cut_ends(sorted, starts_permille[s], &lowest, &highest);
        if (!(lowest < highest)) continue;
        line now, next;
        now.step = ((double)highest - (double)lowest) / (levels + 1.0);
        now.base = (double)lowest - sorted->shift + now.step / 2;
        for (size_t round = 0; round <= FIT_ROUNDS; round++, now = next) {
            double error = refit(sorted, levels, now, &next);
            if (error < least) {
                least = error;
                *minimum = (float)(sorted->shift + now.base - now.step / 2);
                *extent = (float)(now.step * levels);
            }
            if (!(next.step > 0)) break;
        }
    }
}

static void sorted_range(const kith_sq *sq, sorted_values *sorted, float *minimum, float *extent) {
    sort_values(sorted);
    if (sq->range == KITH_SQ_QUANTILE) {
        float highest;
        cut_ends(sorted, sq->cut_permille, minimum, &highest);
        *extent = highest - *minimum;
        return;
    }
    sum_values(sorted);
    fit_range(sorted, kith_sq_levels(sq), minimum, extent);
}

/* ---- All ranges ----------------------------------------------------------------------------------------------- */

static float value_of(const kith_sq *sq, const kith_code_rows *sample, size_t row, size_t d) {
    size_t dim = sq->base.dim;
    const float *centroid = kith_code_centroid(sample, row, dim);
    float value = sample->rows[row * dim + d];
    return centroid != NULL ? value - centroid[d] : value;
}

/* Ranges from end to end and means of the dimensions first..last - 1. */
static void find_ends(const range_loop *loop, size_t first, size_t last) {
    const kith_code_rows *sample = loop->sample;
    size_t dim = loop->sq->base.dim;
    float lowest[GROUP], highest[GROUP];
    double sums[GROUP] = {0};
    for (size_t d = first; d < last; d++) lowest[d - first] = highest[d - first] = value_of(loop->sq, sample, 0, d);
    for (size_t i = 0; i < sample->count; i++) {
        const float *row = sample->rows + i * dim, *centroid = kith_code_centroid(sample, i, dim);
        for (size_t d = first; d < last; d++) {
            float value = centroid != NULL ? row[d] - centroid[d] : row[d];
            sums[d - first] += (double)row[d];
            if (value < lowest[d - first]) lowest[d - first] = value;
            if (value > highest[d - first]) highest[d - first] = value;
        }
    }
    for (size_t d = first; d < last; d++) {
        loop->minimum[d] = lowest[d - first];
        loop->extent[d] = highest[d - first] - lowest[d - first];
        loop->mean[d] = (float)(sums[d - first] / (double)sample->count);
    }
}

static kith_status range_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const range_loop *loop = context;
    const kith_sq *sq = loop->sq;
    size_t first = item * GROUP, last = kith_min_size(first + GROUP, sq->base.dim);
    find_ends(loop, first, last);
    kith_status status = KITH_OK;
    if (sq->range != KITH_SQ_MINMAX && !sq->is_uniform) {
        size_t count = loop->sample->count;
        sorted_values sorted;
        status = sorted_alloc(kith_min_size(count, SORTED_MAX), &sorted);
        for (size_t d = first; d < last && status == KITH_OK; d++) {
            for (size_t i = 0; i < sorted.count; i++)
                sorted.values[i] = value_of(sq, loop->sample, i * count / sorted.count, d);
            sorted_range(sq, &sorted, &loop->minimum[d], &loop->extent[d]);
        }
        sorted_free(&sorted);
    }
    return status == KITH_OK ? kith_meter_add(loop->meter, last - first) : status;
}

/* One range for all dimensions. */
static kith_status find_uniform(const range_loop *loop) {
    const kith_sq *sq = loop->sq;
    size_t dim = sq->base.dim, count = loop->sample->count;
    float minimum = loop->minimum[0], maximum = minimum + loop->extent[0], extent;
    for (size_t d = 1; d < dim; d++) {
        minimum = fminf(minimum, loop->minimum[d]);
        maximum = fmaxf(maximum, loop->minimum[d] + loop->extent[d]);
    }
    extent = maximum - minimum;
    if (sq->range != KITH_SQ_MINMAX) {
        size_t taken = kith_min_size(count, SORTED_ALL_MAX / dim);
        sorted_values sorted;
        kith_status status = sorted_alloc(taken * dim, &sorted);
        for (size_t i = 0; i < taken && status == KITH_OK; i++)
            for (size_t d = 0; d < dim; d++)
                sorted.values[i * dim + d] = value_of(sq, loop->sample, i * count / taken, d);
        if (status == KITH_OK) sorted_range(sq, &sorted, &minimum, &extent);
        sorted_free(&sorted);
        KITH_TRY(status);
    }
    for (size_t d = 0; d < dim; d++) {
        loop->minimum[d] = minimum;
        loop->extent[d] = extent;
    }
    return KITH_OK;
}

/* The most scratch memory that the sorts take. */
static uint64_t scratch_bytes(const kith_sq *sq, size_t count, size_t items, size_t threads) {
    enum { VALUE_BYTES = sizeof(float) + 2 * sizeof(int64_t) + sizeof(double) };
    if (sq->range == KITH_SQ_MINMAX) return 0;
    if (sq->is_uniform)
        return (uint64_t)kith_min_size(count, SORTED_ALL_MAX / sq->base.dim) * sq->base.dim * VALUE_BYTES;
    return (uint64_t)kith_min_size(items, threads) * kith_min_size(count, SORTED_MAX) * VALUE_BYTES;
}

kith_status kith_sq_find_ranges(const kith_sq *sq, const kith_code_rows *sample, const kith_job *job,
                                float *minimum, float *extent, float *mean) {
    size_t dim = sq->base.dim, items = (dim - 1) / GROUP + 1;
    uint64_t needed = scratch_bytes(sq, sample->count, items, job->threads);
    if (job->memory_bytes_max != 0 && needed > job->memory_bytes_max)
        return kith_error(KITH_ERR_BUDGET, "train %s: needs %llu bytes, more than the budget of %llu",
                          sq->base.name, (unsigned long long)needed, (unsigned long long)job->memory_bytes_max);
    kith_meter meter;
    kith_meter_init(&meter, job->progress, job->progress_user, "train", dim);
    range_loop loop = {sq, sample, &meter, minimum, extent, mean};
    KITH_TRY(kith_parallel_for(job->threads, items, range_item, &loop));
    if (sq->is_uniform) KITH_TRY(find_uniform(&loop));
    return kith_meter_finish(&meter);
}
