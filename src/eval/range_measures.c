/* SPDX-License-Identifier: Apache-2.0
 *
 * range_measures.c: precision and recall of range searches, to FAISS's definition (contrib.evaluation.range_PR).
 */
#include <math.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/idmap.h"
#include "kith/eval.h"

typedef struct range_object {
    kith_range_measures head;
    kith_arena arena;
} range_object;

void kith_range_measures_free(kith_range_measures *measures) {
    if (measures == NULL) return;
    range_object *object = (range_object *)measures;
    kith_arena_free(&object->arena);
    kith_free(object);
}

static kith_status check_range(const char *what, const kith_range_result *range) {
    if (range == NULL || range->limits == NULL) return kith_error(KITH_ERR_ARGUMENT, "%s: NULL", what);
    if (range->query_count == 0) return kith_error(KITH_ERR_EMPTY, "%s: no queries", what);
    for (size_t query = 0; query < range->query_count; query++)
        if (range->limits[query] > range->limits[query + 1])
            return kith_error(KITH_ERR_ARGUMENT, "%s: limits fall from %zu to %zu at query %zu", what,
                              range->limits[query], range->limits[query + 1], query);
    if (range->limits[range->query_count] > range->limits[0] && range->ids == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "%s: ids is NULL", what);
    for (size_t i = range->limits[0]; i < range->limits[range->query_count]; i++)
        if (range->ids[i] < 0)
            return kith_error(KITH_ERR_RANGE, "%s: hit %zu has the id %lld", what, i, (long long)range->ids[i]);
    return KITH_OK;
}

static size_t count_of(const kith_range_result *range, size_t query) {
    return range->limits[query + 1] - range->limits[query];
}

/* Distinct ids that both have. `map` has room for the query's true ones. */
static size_t count_common(kith_idmap *map, const kith_range_result *truth, const kith_range_result *result,
                           size_t query) {
    size_t common = 0;
    kith_idmap_clear(map);
    for (size_t i = truth->limits[query]; i < truth->limits[query + 1]; i++) kith_idmap_put(map, truth->ids[i], i);
    for (size_t i = result->limits[query]; i < result->limits[query + 1]; i++) {
        uint64_t row;
        if (!kith_idmap_get(map, result->ids[i], &row)) continue;
        common++;
        kith_idmap_remove(map, result->ids[i]);
    }
    return common;
}

/* The sum in the order in which NumPy's mean takes it, so that the means agree to the last bit: up to 128 values in
 * eight partial sums, more by halves (pairwise summation; Higham, SIAM J. Sci. Comput. 14(4), 1993, section 4). */
static double sum_pairwise(const double *values, size_t count) {
    if (count < 8) {
        double sum = 0;
        for (size_t i = 0; i < count; i++) sum += values[i];
        return sum;
    }
    if (count > 128) {
        size_t half = count / 2 / 8 * 8;
        return sum_pairwise(values, half) + sum_pairwise(values + half, count - half);
    }
    double part[8];
    size_t i = 0;
    for (; i < 8; i++) part[i] = values[i];
    for (; i + 8 <= count; i += 8)
        for (size_t j = 0; j < 8; j++) part[j] += values[i + j];
    double sum = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
    for (; i < count; i++) sum += values[i];
    return sum;
}

static void fill_overall(kith_range_measures *out) {
    uint64_t truth = 0, result = 0, common = 0;
    for (size_t query = 0; query < out->query_count; query++) {
        truth += out->truth_counts[query];
        result += out->result_counts[query];
        common += out->common_counts[query];
    }
    out->precision_overall = result > 0 ? (double)common / (double)result : 1.0;
    out->recall_overall = truth > 0 ? (double)common / (double)truth : result == 0 ? 1.0 : 0.0;
}

static void fill_average(kith_range_measures *out, double *precisions, double *recalls) {
    for (size_t query = 0; query < out->query_count; query++) {
        double truth = (double)out->truth_counts[query], result = (double)out->result_counts[query];
        double common = (double)out->common_counts[query];
        precisions[query] = result > 0 ? common / result : 1.0;
        recalls[query] = truth > 0 ? common / truth : result == 0 ? 1.0 : 0.0;
    }
    out->precision_average = sum_pairwise(precisions, out->query_count) / (double)out->query_count;
    out->recall_average = sum_pairwise(recalls, out->query_count) / (double)out->query_count;
}

static kith_status fill(range_object *object, const kith_range_result *result, const kith_range_result *truth,
                        kith_idmap *map) {
    size_t query_count = truth->query_count, *truth_counts, *result_counts, *common_counts;
    double *precisions, *recalls;
    KITH_TRY(kith_arena_take(&object->arena, query_count, sizeof(size_t), &truth_counts));
    KITH_TRY(kith_arena_take(&object->arena, query_count, sizeof(size_t), &result_counts));
    KITH_TRY(kith_arena_take(&object->arena, query_count, sizeof(size_t), &common_counts));
    KITH_TRY(kith_arena_take(&object->arena, query_count, sizeof(double), &precisions));
    KITH_TRY(kith_arena_take(&object->arena, query_count, sizeof(double), &recalls));
    for (size_t query = 0; query < query_count; query++) {
        truth_counts[query] = count_of(truth, query);
        result_counts[query] = count_of(result, query);
        KITH_TRY(kith_idmap_reserve(map, truth_counts[query] + 1));
        common_counts[query] = count_common(map, truth, result, query);
    }
    object->head = (kith_range_measures){.size = sizeof object->head,
                                         .query_count = query_count,
                                         .truth_counts = truth_counts,
                                         .result_counts = result_counts,
                                         .common_counts = common_counts};
    fill_overall(&object->head);
    fill_average(&object->head, precisions, recalls);
    return KITH_OK;
}

kith_status kith_range_measures_compute(const kith_range_result *result, const kith_range_result *truth,
                                        kith_range_measures **out) {
    *out = NULL;
    kith_status status;
    range_object *object = NULL;
    kith_idmap map = {0};
    KITH_GO(check_range("result", result));
    KITH_GO(check_range("truth", truth));
    if (result->query_count != truth->query_count) {
        status = kith_error(KITH_ERR_DIMENSION, "result has %zu queries, truth has %zu", result->query_count,
                            truth->query_count);
        goto done;
    }
    KITH_GO(kith_alloc_zeroed(1, sizeof *object, &object));
    KITH_GO(fill(object, result, truth, &map));
    *out = &object->head;
    object = NULL;
done:
    kith_idmap_free(&map);
    if (object != NULL) kith_range_measures_free(&object->head);
    return status;
}
