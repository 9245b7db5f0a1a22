/* SPDX-License-Identifier: Apache-2.0
 *
 * What a pass over a file finds. The file goes by in spans; the groups of rows in a span are measured in parallel, each
 * on its own, and joined in the order of the file, so that every sum is the same at any thread count.
 *
 * Rows are compared byte for byte when their hashes are equal. The hash has a seed that nobody knows before: a file
 * cannot be made so that all its rows hash alike and the comparisons take forever.
 */
#include <math.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/elements.h"
#include "base/error.h"
#include "base/idmap.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/parallel.h"
#include "io/vectorfile.h"

enum {
    SPAN_BYTES = 16 << 20,
    SPAN_ROWS_MAX = 1 << 18,
    GROUP_ROWS = 64,
    PIECE = 64, /* elements that are converted at a time: a multiple of LANES */
    LANES = 8,
};

typedef struct group {
    double min, max, norm_min, norm_max, norm_sum;
    size_t finite_row_count, zero_row_count;
    uint64_t nan_count, inf_count;
} group;

typedef struct pass {
    kith_vectors *vectors;
    kith_view span;
    size_t span_first, span_rows; /* rows of a full span: a multiple of GROUP_ROWS */
    size_t row_bytes;
    uint64_t seed;
    group *groups;
    uint64_t *hashes;
    unsigned char *row; /* one row of an earlier span */
    kith_idmap seen;
    size_t duplicate_count;
    group whole;
} pass;

static const group nothing = {.min = INFINITY, .max = -INFINITY, .norm_min = INFINITY, .norm_max = -INFINITY};

/* What the elements of one row add up to. */
typedef struct row_sums {
    double min, max, square_sum;
    bool finite, zero;
} row_sums;

/* Any elements, one by one. */
static void measure_slowly(const double *values, size_t count, row_sums *row, group *out) {
    for (size_t i = 0; i < count; i++) {
        double value = values[i];
        if (value != 0) row->zero = false;
        if (isfinite(value)) {
            if (value < row->min) row->min = value;
            if (value > row->max) row->max = value;
            row->square_sum += value * value;
        } else {
            row->finite = false;
            if (isnan(value))
                out->nan_count++;
            else
                out->inf_count++;
        }
    }
}

/* A full piece, in lanes that a compiler turns into SIMD; false, and nothing done, when an element is not finite. */
static bool measure_fast(const double values[PIECE], row_sums *row) {
    double low[LANES], high[LANES], sum[LANES] = {0}, strange[LANES] = {0};
    for (size_t j = 0; j < LANES; j++) low[j] = high[j] = values[j];
    for (size_t i = 0; i < PIECE; i += LANES)
        for (size_t j = 0; j < LANES; j++) {
            double value = values[i + j];
            low[j] = value < low[j] ? value : low[j];
            high[j] = value > high[j] ? value : high[j];
            sum[j] += value * value;
            strange[j] += value * 0.0; /* NaN once the value is not finite */
        }
    for (size_t j = 0; j < LANES; j++)
        if (strange[j] != 0) return false;
    for (size_t j = 0; j < LANES; j++) {
        if (low[j] < row->min) row->min = low[j];
        if (high[j] > row->max) row->max = high[j];
        row->square_sum += sum[j];
        if (low[j] != 0 || high[j] != 0) row->zero = false;
    }
    return true;
}

static void measure_row(const kith_view *span, const char *bytes, group *out) {
    double values[PIECE];
    row_sums row = {.min = out->min, .max = out->max, .finite = true, .zero = true};
    size_t element_bytes = kith_dtype_row_bytes(span->dtype, 1);
    for (size_t done = 0; done < span->dim; done += PIECE) {
        size_t count = kith_min_size(PIECE, span->dim - done);
        kith_convert_to_f64(span->dtype, bytes + done * element_bytes, count, values);
        if (count < PIECE || !measure_fast(values, &row)) measure_slowly(values, count, &row, out);
    }
    out->min = row.min;
    out->max = row.max;
    out->zero_row_count += row.zero;
    if (!row.finite) return;
    double norm = sqrt(row.square_sum);
    if (norm < out->norm_min) out->norm_min = norm;
    if (norm > out->norm_max) out->norm_max = norm;
    out->norm_sum += norm;
    out->finite_row_count++;
}

static kith_status measure_group(void *context, size_t item, size_t worker) {
    (void)worker;
    pass *work = context;
    const kith_view *span = &work->span;
    size_t first = item * GROUP_ROWS, last = kith_min_size(first + GROUP_ROWS, span->count);
    group found = nothing;
    for (size_t i = first; i < last; i++) {
        const char *row = (const char *)span->data + i * span->stride;
        measure_row(span, row, &found);
        work->hashes[i] = XXH3_64bits_withSeed(row, work->row_bytes, work->seed);
    }
    work->groups[item] = found;
    return KITH_OK;
}

static void join(group *whole, const group *part) {
    if (part->min < whole->min) whole->min = part->min;
    if (part->max > whole->max) whole->max = part->max;
    if (part->norm_min < whole->norm_min) whole->norm_min = part->norm_min;
    if (part->norm_max > whole->norm_max) whole->norm_max = part->norm_max;
    whole->norm_sum += part->norm_sum;
    whole->finite_row_count += part->finite_row_count;
    whole->zero_row_count += part->zero_row_count;
    whole->nan_count += part->nan_count;
    whole->inf_count += part->inf_count;
}

/* Does row `row` of the file, one before row `span_row` of the span, have the bytes of that? */
static kith_status row_equals(pass *work, size_t row, size_t span_row, bool *equal) {
    const kith_view *span = &work->span;
    const char *bytes = (const char *)span->data + span_row * span->stride, *other = (const char *)work->row;
    if (row >= work->span_first)
        other = (const char *)span->data + (row - work->span_first) * span->stride;
    else
        KITH_TRY(kith_vectors_copy_row(work->vectors, row, work->row));
    *equal = memcmp(other, bytes, work->row_bytes) == 0;
    return KITH_OK;
}

static kith_status count_duplicates(pass *work) {
    for (size_t i = 0; i < work->span.count; i++) {
        bool equal = false;
        uint64_t other;
        /* Another row with this hash: the next free number stands for it. */
        int64_t key = (int64_t)(work->hashes[i] >> 1);
        while (kith_idmap_get(&work->seen, key, &other)) {
            KITH_TRY(row_equals(work, (size_t)other, i, &equal));
            if (equal) break;
            key = key == INT64_MAX ? 0 : key + 1;
        }
        if (equal)
            work->duplicate_count++;
        else
            kith_idmap_put(&work->seen, key, work->span_first + i);
    }
    return KITH_OK;
}

static kith_status run(pass *work, const kith_job *job) {
    size_t count = kith_vectors_count(work->vectors);
    kith_meter meter;
    kith_meter_init(&meter, job->progress, job->progress_user, "info", count);
    for (size_t first = 0; first < count; first += work->span_rows) {
        size_t rows = kith_min_size(work->span_rows, count - first);
        size_t group_count = rows / GROUP_ROWS + (rows % GROUP_ROWS != 0);
        KITH_TRY(kith_vectors_rows(work->vectors, first, rows, &work->span));
        work->span_first = first;
        KITH_TRY(kith_parallel_for(job->threads, group_count, measure_group, work));
        for (size_t g = 0; g < group_count; g++) join(&work->whole, &work->groups[g]);
        KITH_TRY(count_duplicates(work));
        KITH_TRY(kith_meter_add(&meter, rows));
    }
    return kith_meter_finish(&meter);
}

/* The map of hashes is what takes memory: at most 8/7 slots a row, rounded up to a power of two. */
static kith_status check_budget(const pass *work, size_t count, const kith_job *job) {
    size_t slots = 64;
    while (slots / 8 * 7 < count && slots <= SIZE_MAX / 64) slots *= 2;
    uint64_t bytes = (uint64_t)slots * sizeof(kith_idmap_slot) +
                     (uint64_t)work->span_rows * (sizeof(uint64_t) + sizeof(group) / GROUP_ROWS) + work->row_bytes;
    if (job->memory_bytes_max != 0 && bytes > job->memory_bytes_max)
        return kith_error(KITH_ERR_BUDGET,
                          "info: finding duplicates among %zu rows takes %llu bytes, allowed are %llu", count,
                          (unsigned long long)bytes, (unsigned long long)job->memory_bytes_max);
    return KITH_OK;
}

static kith_status prepare(pass *work, const kith_job *job) {
    size_t count = kith_vectors_count(work->vectors);
    size_t rows = kith_min_size(kith_min_size(SPAN_BYTES / work->row_bytes, SPAN_ROWS_MAX), count);
    size_t groups = rows / GROUP_ROWS + 1;
    work->span_rows = groups * GROUP_ROWS;
    KITH_TRY(check_budget(work, count, job));
    KITH_TRY(kith_alloc(groups, sizeof *work->groups, &work->groups));
    KITH_TRY(kith_alloc(work->span_rows, sizeof *work->hashes, &work->hashes));
    KITH_TRY(kith_alloc(work->row_bytes, 1, &work->row));
    KITH_TRY(kith_idmap_reserve(&work->seen, count));
    return KITH_OK;
}

static void report(const pass *work, size_t count, size_t dim, kith_vectors_stats *out) {
    const group *whole = &work->whole;
    bool any_value = whole->min <= whole->max, any_row = whole->finite_row_count > 0;
    out->count = count;
    out->dim = dim;
    out->min = any_value ? whole->min : 0;
    out->max = any_value ? whole->max : 0;
    out->norm_min = any_row ? whole->norm_min : 0;
    out->norm_max = any_row ? whole->norm_max : 0;
    out->norm_mean = any_row ? whole->norm_sum / (double)whole->finite_row_count : 0;
    out->nan_count = whole->nan_count;
    out->inf_count = whole->inf_count;
    out->zero_row_count = whole->zero_row_count;
    out->duplicate_count = work->duplicate_count;
}

kith_status kith_vectors_stats_compute(kith_vectors *vectors, const kith_job *job, kith_vectors_stats *out) {
    size_t size = out->size;
    kith_vectors_stats own = {.size = size};
    if (size < sizeof own.size || size > sizeof own)
        return kith_error(KITH_ERR_ARGUMENT, "kith_vectors_stats: size %zu; this library knows %zu", size,
                          sizeof own);
    memset(out, 0, size);
    out->size = size;
    kith_job own_job;
    KITH_TRY(kith_job_read(&own_job, job));
    size_t dim = kith_vectors_dim(vectors);
    kith_dtype dtype = kith_vectors_dtype(vectors);
    if (dtype == KITH_B1) return kith_error(KITH_ERR_TYPE, "info: packed bits have no values to measure");
    pass work = {.vectors = vectors, .row_bytes = kith_dtype_row_bytes(dtype, dim), .whole = nothing};
    work.seed = kith_now_ns() ^ (uint64_t)getpid() << 40 ^ (uint64_t)(uintptr_t)&work << 16;
    kith_status status = prepare(&work, &own_job);
    if (status == KITH_OK) status = run(&work, &own_job);
    if (status == KITH_OK) {
        report(&work, kith_vectors_count(vectors), dim, &own);
        memcpy(out, &own, size);
    }
    kith_free(work.groups);
    kith_free(work.hashes);
    kith_free(work.row);
    kith_idmap_free(&work.seen);
    return status;
}
