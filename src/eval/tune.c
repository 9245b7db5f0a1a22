/* SPDX-License-Identifier: Apache-2.0
 *
 * tune.c: search parameters chosen on one half of the queries and checked on the other.
 */
#include "kith/tune.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "base/random.h"
#include "base/sort.h"
#include "eval/neighbors.h"
#include "eval/tune_inside.h"
#include "exact/check.h"

enum {
    QUERIES_MIN = 20,
    REPEATS_MAX = 1000,
    DRAWS = 2000, /* of the bootstrap */
    SPLIT_STREAM = 0x73706c69,
    DRAW_STREAM = 0x64726177
};

/* What is handed out; everything in it lies in the arena. */
typedef struct tune_object {
    kith_tuning head;
    kith_arena arena;
} tune_object;

void kith_tune_options_init(kith_tune_options *options) {
    *options = (kith_tune_options){.size = sizeof *options,
                                   .k = 10,
                                   .recall = 0.95,
                                   .sure = 0.9,
                                   .threads = 1,
                                   .repeats = 3,
                                   .latency_queries = 1000,
                                   .seed = 1};
}

void kith_tuning_free(kith_tuning *tuning) {
    if (tuning == NULL) return;
    tune_object *object = (tune_object *)tuning;
    kith_arena_free(&object->arena);
    kith_free(object);
}

/* ---- Arguments -------------------------------------------------------------------------------------------------- */

/* x with P(N(0, 1) <= x) = share, by bisection of the error function; 0 for a half. */
static double normal_quantile(double share) {
    double low = 0, high = 8;
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        *(0.5 * (1 + erf(middle / sqrt(2.0))) < share ? &low : &high) = middle;
    }
    return low;
}

static kith_status check_options(kith_tune_options *options) {
    if (!(options->recall > 0 && options->recall <= 1))
        return kith_error(KITH_ERR_ARGUMENT, "tune: recall = %g is not above 0 and up to 1", options->recall);
    if (!(options->sure >= 0.5 && options->sure <= 0.999))
        return kith_error(KITH_ERR_ARGUMENT, "tune: sure = %g is outside 0.5..0.999", options->sure);
    if (options->repeats < 1 || options->repeats > REPEATS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "tune: repeats = %zu is outside 1..%d", options->repeats, REPEATS_MAX);
    return kith_threads_read(options->threads, &options->threads);
}

static kith_status read_arguments(kith_tune_work *work, const kith_index *index, const kith_view *queries,
                                  const kith_neighbors *truth, const kith_tune_options *given) {
    kith_tune_options *options = &work->options;
    kith_neighbors own;
    kith_tune_options_init(options);
    KITH_TRY(kith_options_read("tune options", options, sizeof *options, given));
    KITH_TRY(check_options(options));
    if (index == NULL || queries == NULL) return kith_error(KITH_ERR_ARGUMENT, "tune: index or queries: NULL");
    KITH_TRY(kith_check_view_dim("queries", queries, kith_index_dim(index)));
    KITH_TRY(kith_neighbors_read("truth", truth, &own));
    if (own.query_count != queries->count)
        return kith_error(KITH_ERR_DIMENSION, "truth: of %zu queries, but %zu are given", own.query_count,
                          queries->count);
    if (queries->count < QUERIES_MIN)
        return kith_error(KITH_ERR_ARGUMENT, "tune: %zu queries, at least %d are needed", queries->count,
                          QUERIES_MIN);
    if (options->k < 1 || options->k > own.k)
        return kith_error(KITH_ERR_ARGUMENT, "tune: k = %zu is outside 1..%zu, the depth of the truth", options->k,
                          own.k);
    work->index = index;
    work->deviations = normal_quantile(options->sure);
    return KITH_OK;
}

/* Copies the queries that `rows` names and the first k of their true neighbours. */
static kith_status take_half(kith_tune_work *work, kith_arena *scratch, const kith_view *queries,
                             const kith_neighbors *truth, const uint32_t *rows, size_t count,
                             kith_tune_half *half) {
    size_t row_bytes = kith_dtype_row_bytes(queries->dtype, queries->dim), k = work->options.k;
    size_t stride = queries->stride != 0 ? queries->stride : row_bytes;
    unsigned char *data;
    int64_t *ids;
    KITH_TRY(kith_arena_take(scratch, count, row_bytes, &data));
    KITH_TRY(kith_arena_take(scratch, count, k * sizeof *ids, &ids));
    KITH_TRY(kith_arena_take(scratch, count, sizeof *half->counts, &half->counts));
    for (size_t i = 0; i < count; i++) {
        memcpy(data + i * row_bytes, (const char *)queries->data + rows[i] * stride, row_bytes);
        memcpy(ids + i * k, truth->ids + rows[i] * truth->k, k * sizeof *ids);
    }
    half->queries = (kith_view){data, queries->dtype, count, queries->dim, row_bytes};
    half->truth = (kith_neighbors){.size = sizeof half->truth, .query_count = count, .k = k, .ids = ids};
    return KITH_OK;
}

static kith_status split(kith_tune_work *work, kith_arena *scratch, const kith_view *queries,
                         const kith_neighbors *truth) {
    uint32_t *order;
    size_t count = queries->count, half = count / 2;
    if (count > UINT32_MAX) return kith_error(KITH_ERR_OVERFLOW, "tune: %zu queries, at most 2^32 - 1", count);
    KITH_TRY(kith_arena_take(scratch, count, sizeof *order, &order));
    kith_random_permutation(work->options.seed, SPLIT_STREAM, count, order);
    KITH_TRY(take_half(work, scratch, queries, truth, order, half, &work->choose));
    KITH_TRY(take_half(work, scratch, queries, truth, order + half, count - half, &work->check));
    return kith_neighbors_create(half, work->options.k, 0, &work->choose.result);
}

/* ---- Choosing --------------------------------------------------------------------------------------------------- */

/* Leaves those whose trial took up to three times the least time. */
static void drop_slow(kith_tune_work *work) {
    double least = (double)INFINITY;
    size_t kept = 0;
    for (size_t i = 0; i < work->setting_count; i++)
        if (work->settings[i].seconds < least) least = work->settings[i].seconds;
    for (size_t i = 0; i < work->setting_count; i++)
        if (work->settings[i].seconds <= 3 * least) work->settings[kept++] = work->settings[i];
    work->setting_count = kept;
}

/* Times the settings in turns and puts the fastest first. */
static kith_status time_settings(kith_tune_work *work) {
    size_t count = work->setting_count, repeats = work->options.repeats, best = 0;
    double *seconds;
    KITH_TRY(kith_arena_take(work->arena, count, repeats * sizeof *seconds, &seconds));
    for (size_t turn = 0; turn < repeats; turn++)
        for (size_t i = 0; i < count; i++) {
            kith_tune_setting again = work->settings[i];
            KITH_TRY(kith_tune_try(work, &again));
            work->trial_count--; /* nothing new was tried */
            seconds[i * repeats + turn] = again.seconds;
        }
    for (size_t i = 0; i < count; i++) {
        work->settings[i].seconds = kith_median(seconds + i * repeats, repeats);
        if (work->settings[i].seconds < work->settings[best].seconds) best = i;
    }
    kith_tune_setting fastest = work->settings[best];
    work->settings[best] = work->settings[0];
    work->settings[0] = fastest;
    return KITH_OK;
}

static kith_status choose(kith_tune_work *work, kith_tuning *out) {
    KITH_TRY(kith_tune_gather(work));
    out->is_reached = work->setting_count > 0;
    if (!out->is_reached) work->settings[work->setting_count++] = work->most;
    drop_slow(work);
    KITH_TRY(time_settings(work));
    kith_tune_candidate *candidates;
    KITH_TRY(kith_arena_take(work->arena, work->setting_count, sizeof *candidates, &candidates));
    for (size_t i = 0; i < work->setting_count; i++) {
        const kith_tune_setting *setting = &work->settings[i];
        candidates[i].recall = setting->recall;
        candidates[i].qps = (double)work->choose.queries.count / setting->seconds;
        KITH_TRY(kith_tune_text(work, setting, &candidates[i].parameters));
    }
    out->candidates = candidates;
    out->candidate_count = work->setting_count;
    out->parameters = candidates[0].parameters;
    out->recall_chosen = candidates[0].recall;
    out->trial_count = work->trial_count;
    return KITH_OK;
}

/* ---- Checking --------------------------------------------------------------------------------------------------- */

/* Means of queries drawn with replacement: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13
 * (percentile interval). Hits are counted, so that the draws sort as whole numbers. */
static kith_status bootstrap(const kith_tune_work *work, const uint32_t *hits, size_t count, kith_tuning *out) {
    int64_t *sums, most = (int64_t)(count * work->options.k), enough = 0;
    KITH_TRY(kith_arena_take(work->arena, (size_t)2 * DRAWS, sizeof *sums, &sums));
    for (size_t draw = 0; draw < DRAWS; draw++) {
        sums[draw] = 0;
        for (size_t i = 0; i < count; i++)
            sums[draw] += hits[kith_random_below(work->options.seed, DRAW_STREAM, draw * count + i, count)];
        enough += (double)sums[draw] >= work->options.recall * (double)most;
    }
    kith_sort_i64(sums, DRAWS, sums + DRAWS);
    out->recall_low = (double)sums[DRAWS * 25 / 1000] / (double)most;
    out->recall_high = (double)sums[DRAWS * 975 / 1000 - 1] / (double)most;
    out->sure = (double)enough / DRAWS;
    return KITH_OK;
}

/* The chosen setting on the queries that had no say. */
static kith_status check(kith_tune_work *work, kith_tuning *out) {
    kith_sweep_options options;
    kith_sweep *sweep;
    kith_sweep_options_init(&options);
    options.k = work->options.k;
    options.grid = &out->parameters;
    options.grid_count = out->parameters[0] != '\0';
    options.ranks = &work->options.k;
    options.rank_count = 1;
    options.threads = work->options.threads;
    options.repeats = work->options.repeats;
    options.latency_queries = work->options.latency_queries;
    KITH_TRY(kith_sweep_run(work->index, &work->check.queries, &work->check.truth, &options, &sweep));
    const kith_sweep_point *point = sweep->points[0];
    out->recall = point->recall;
    out->qps_1 = point->qps_1;
    out->qps_n = point->qps_n;
    out->latency = point->latency;
    out->index_memory_bytes = sweep->index_memory_bytes;
    kith_status status =
        bootstrap(work, point->measures->at[0]->intersection_counts, work->check.queries.count, out);
    kith_sweep_free(sweep);
    return status;
}

/* The values one by one, for those who set them by name. */
static kith_status take_values(kith_tune_work *work, kith_tuning *out) {
    kith_sweep_value *values;
    KITH_TRY(kith_arena_take(work->arena, work->param_count, sizeof *values, &values));
    const char *at = out->parameters;
    for (size_t i = 0; i < work->param_count; i++) {
        char *value;
        at = strchr(at, '=') + 1;
        size_t bytes = strcspn(at, ",");
        KITH_TRY(kith_arena_take(work->arena, bytes + 1, 1, &value));
        memcpy(value, at, bytes);
        value[bytes] = '\0';
        values[i] = (kith_sweep_value){work->params[i].name, value};
    }
    out->values = values;
    out->value_count = work->param_count;
    return KITH_OK;
}

/* An upper bound of the searches, for the progress report. */
static uint64_t trials_max(const kith_tune_work *work) {
    uint64_t combinations = 1, each = 1;
    for (size_t i = 0; i < work->param_count; i++) {
        const kith_tune_param *param = &work->params[i];
        if (i != work->lead)
            combinations *= param->value_count;
        else
            each = param->is_free ? 5 + (uint64_t)ceil(log2((double)param->last + 1)) : param->value_count;
    }
    return combinations * (each + work->options.repeats) + work->options.repeats;
}

kith_status kith_tune(const kith_index *index, const kith_view *queries, const kith_neighbors *truth,
                      const kith_tune_options *options, kith_tuning **out) {
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "tune: out must not be NULL");
    *out = NULL;
    kith_status status;
    kith_arena scratch = {0};
    kith_tune_work *work = NULL;
    tune_object *object = NULL;
    KITH_GO(kith_alloc_zeroed(1, sizeof *work, &work));
    KITH_GO(read_arguments(work, index, queries, truth, options));
    KITH_GO(kith_alloc_zeroed(1, sizeof *object, &object));
    work->arena = &object->arena;
    KITH_GO(kith_tune_read_params(work));
    KITH_GO(split(work, &scratch, queries, truth));
    KITH_GO(kith_search_context_create(&work->context));
    kith_meter_init(&work->meter, work->options.progress, work->options.progress_user, "tune", trials_max(work));
    object->head = (kith_tuning){.size = sizeof object->head,
                                 .choose_count = work->choose.queries.count,
                                 .check_count = work->check.queries.count};
    KITH_GO(choose(work, &object->head));
    KITH_GO(take_values(work, &object->head));
    KITH_GO(check(work, &object->head));
    KITH_GO(kith_meter_finish(&work->meter));
    *out = &object->head;
    object = NULL;
done:
    if (object != NULL) kith_tuning_free(&object->head);
    if (work != NULL) {
        kith_neighbors_free(work->choose.result);
        kith_search_context_free(work->context);
    }
    kith_free(work);
    kith_arena_free(&scratch);
    return status;
}
