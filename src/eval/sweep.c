/* SPDX-License-Identifier: Apache-2.0
 *
 * sweep.c: operating points: what a search finds and how fast, at every point of a grid of parameters.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "base/parallel.h"
#include "base/sort.h"
#include "eval/neighbors.h"
#include "eval/sweep_grid.h"
#include "exact/check.h"

enum { RUNS_MAX = 1000, DEFAULT_RANK_COUNT = 3 };
static const size_t default_ranks[DEFAULT_RANK_COUNT] = {1, 10, 100};

/* What is handed out: the points lie in the arena, their measures are objects of their own. */
typedef struct sweep_object {
    kith_sweep head;
    kith_arena arena;
    kith_sweep_point *points;
} sweep_object;

typedef struct sweep_job {
    const kith_index *index;
    kith_view queries;
    kith_neighbors truth;
    kith_sweep_options options;
    kith_sweep_grid grid;
    size_t *ranks, rank_count;
    kith_meter meter;
    kith_search_params params; /* of the present point */
    kith_search_context *context;
    kith_neighbors *result;
    size_t *counts;
    /* Times of the present point: seconds per batch of each repeat; nanoseconds per query of one repeat. */
    double *batch_1, *batch_n, *latency_mean, *latency_p50, *latency_p99, *latency_p999;
    int64_t *query_ns, *sort_scratch;
    sweep_object *object;
} sweep_job;

void kith_sweep_options_init(kith_sweep_options *options) {
    *options =
        (kith_sweep_options){.size = sizeof *options, .k = 10, .repeats = 3, .warmup = 1, .latency_queries = 1000};
}

void kith_sweep_free(kith_sweep *sweep) {
    if (sweep == NULL) return;
    sweep_object *object = (sweep_object *)sweep;
    for (size_t i = 0; i < object->head.point_count; i++)
        kith_measures_free((kith_measures *)(uintptr_t)object->points[i].measures);
    kith_arena_free(&object->arena);
    kith_free(object);
}

/* ---- Statistics ---------------------------------------------------------------------------------------- */

/* The smallest value that at least `share` of them do not pass (nearest rank), in seconds. */
static double percentile(const int64_t *sorted_ns, size_t count, double share) {
    size_t rank = (size_t)ceil(share * (double)count);
    return (double)sorted_ns[rank == 0 ? 0 : rank - 1] * 1e-9;
}

/* ---- Runs ---------------------------------------------------------------------------------------------- */

static kith_status run_batch(sweep_job *work, size_t threads, double *seconds) {
    work->params.threads = threads;
    uint64_t start = kith_now_ns();
    KITH_TRY(kith_index_search(work->index, &work->queries, work->options.k, &work->params, work->result->ids,
                               work->result->distances, work->counts));
    *seconds = (double)(kith_now_ns() - start) * 1e-9;
    return kith_meter_add(&work->meter, 1);
}

static kith_status run_latencies(sweep_job *work, size_t repeat) {
    size_t n = work->options.latency_queries, k = work->options.k;
    int64_t sum = 0;
    work->params.threads = 1;
    for (size_t i = 0; i < n; i++) {
        kith_view query = work->queries;
        query.data = (const char *)query.data + i * query.stride;
        query.count = 1;
        uint64_t start = kith_now_ns();
        KITH_TRY(kith_index_search(work->index, &query, k, &work->params, work->result->ids + i * k,
                                   work->result->distances + i * k, work->counts + i));
        work->query_ns[i] = (int64_t)(kith_now_ns() - start);
        sum += work->query_ns[i];
    }
    kith_sort_i64(work->query_ns, n, work->sort_scratch);
    work->latency_mean[repeat] = (double)sum * 1e-9 / (double)n;
    work->latency_p50[repeat] = percentile(work->query_ns, n, 0.5);
    work->latency_p99[repeat] = percentile(work->query_ns, n, 0.99);
    work->latency_p999[repeat] = percentile(work->query_ns, n, 0.999);
    return kith_meter_add(&work->meter, 1);
}

static kith_sweep_rate rate_of(size_t threads, double *seconds, size_t repeats, size_t query_count) {
    double n = (double)query_count, middle = kith_median(seconds, repeats);
    return (kith_sweep_rate){threads, n / middle, n / seconds[repeats - 1], n / seconds[0]};
}

/* The kinds of run take turns, so that a machine that slows down slows them all. */
static kith_status time_point(sweep_job *work, kith_sweep_point *point) {
    const kith_sweep_options *options = &work->options;
    size_t repeats = options->repeats;
    double ignored;
    for (size_t i = 0; i < options->warmup; i++) KITH_TRY(run_batch(work, options->threads, &ignored));
    for (size_t i = 0; i < repeats; i++) {
        KITH_TRY(run_batch(work, 1, &work->batch_1[i]));
        if (options->threads > 1) KITH_TRY(run_batch(work, options->threads, &work->batch_n[i]));
        if (options->latency_queries > 0) KITH_TRY(run_latencies(work, i));
    }
    point->qps_1 = point->qps_n = rate_of(1, work->batch_1, repeats, work->queries.count);
    if (options->threads > 1) point->qps_n = rate_of(options->threads, work->batch_n, repeats, work->queries.count);
    point->latency = (kith_sweep_latency){(double)NAN, (double)NAN, (double)NAN, (double)NAN};
    if (options->latency_queries > 0)
        point->latency = (kith_sweep_latency){
            .mean = kith_median(work->latency_mean, repeats),
            .p50 = kith_median(work->latency_p50, repeats),
            .p99 = kith_median(work->latency_p99, repeats),
            .p999 = kith_median(work->latency_p999, repeats),
        };
    return KITH_OK;
}

/* ---- Points -------------------------------------------------------------------------------------------- */

/* A flat index looks at every row, or at as many as it may. */
static double distances_per_query(const sweep_job *work) {
    if (strncmp(kith_index_spec(work->index), "Flat", 4) != 0) return (double)NAN;
    uint64_t rows = kith_index_count(work->index), bound = work->params.max_distances;
    return (double)(bound != 0 && bound < rows ? bound : rows);
}

static kith_status set_parameters(sweep_job *work, const kith_sweep_point *point) {
    kith_search_params_init(&work->params);
    work->params.context = work->context;
    for (size_t i = 0; i < work->grid.axis_count; i++)
        KITH_TRY(kith_search_params_set(&work->params, work->index, point->values[i].name, point->values[i].value));
    return KITH_OK;
}

static kith_status measure_point(sweep_job *work, kith_sweep_point *point) {
    kith_measures_options options;
    kith_measures *measures;
    kith_measures_options_init(&options);
    options.ranks = work->ranks;
    options.rank_count = work->rank_count;
    options.metric = work->options.metric != 0 ? work->options.metric : kith_index_metric(work->index);
    KITH_TRY(kith_measures_compute(work->result, &work->truth, &options, &measures));
    point->measures = measures;
    for (size_t i = 0; i < measures->rank_count; i++)
        if (measures->at[i]->rank == work->options.k) point->recall = measures->at[i]->intersection;
    return KITH_OK;
}

static kith_status run_point(sweep_job *work, kith_sweep_point *point) {
    KITH_TRY(set_parameters(work, point));
    KITH_TRY(time_point(work, point));
    point->distances_per_query = distances_per_query(work);
    return measure_point(work, point);
}

/* Lays out all points and tries their parameters before any of them is timed. */
static kith_status take_points(sweep_job *work) {
    sweep_object *object = work->object;
    size_t count = work->grid.point_count;
    const kith_sweep_point **pointers;
    KITH_TRY(kith_arena_take(&object->arena, count, sizeof *object->points, &object->points));
    KITH_TRY(kith_arena_take(&object->arena, count, sizeof *pointers, &pointers));
    memset(object->points, 0, count * sizeof *object->points);
    object->head.points = pointers;
    object->head.point_count = count;
    for (size_t i = 0; i < count; i++) {
        kith_sweep_point *point = &object->points[i];
        kith_sweep_value *values;
        pointers[i] = point;
        KITH_TRY(kith_sweep_grid_point(&work->grid, i, &object->arena, &values, &point->parameters));
        point->values = values;
        KITH_TRY(set_parameters(work, point));
    }
    return KITH_OK;
}

static int dominates(double recall, double qps, double other_recall, double other_qps) {
    return recall >= other_recall && qps >= other_qps && (recall > other_recall || qps > other_qps);
}

static void mark_pareto(sweep_object *object) {
    size_t count = object->head.point_count;
    for (size_t i = 0; i < count; i++) {
        kith_sweep_point *point = &object->points[i];
        point->is_pareto_1 = point->is_pareto_n = 1;
        for (size_t j = 0; j < count; j++) {
            const kith_sweep_point *other = &object->points[j];
            if (dominates(other->recall, other->qps_1.median, point->recall, point->qps_1.median))
                point->is_pareto_1 = 0;
            if (dominates(other->recall, other->qps_n.median, point->recall, point->qps_n.median))
                point->is_pareto_n = 0;
        }
    }
}

double kith_sweep_qps_at(const kith_sweep *sweep, double recall, int on_n) {
    double low = (double)-INFINITY, low_qps = 0, high = (double)INFINITY, high_qps = (double)NAN;
    for (size_t i = 0; i < sweep->point_count; i++) {
        const kith_sweep_point *point = sweep->points[i];
        double qps = on_n != 0 ? point->qps_n.median : point->qps_1.median;
        if (on_n != 0 ? !point->is_pareto_n : !point->is_pareto_1) continue;
        if (point->recall >= recall && point->recall < high) {
            high = point->recall;
            high_qps = qps;
        } else if (point->recall < recall && point->recall > low) {
            low = point->recall;
            low_qps = qps;
        }
    }
    if (isnan(high_qps) || isinf(low) || high <= recall) return high_qps;
    double share = (recall - low) / (high - low);
    return exp(log(low_qps) * (1.0 - share) + log(high_qps) * share);
}

/* ---- The call ------------------------------------------------------------------------------------------ */

static kith_status check_runs(const kith_sweep_options *options) {
    if (options->repeats < 1 || options->repeats > RUNS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "sweep: repeats = %zu is outside 1..%d", options->repeats, RUNS_MAX);
    if (options->warmup > RUNS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "sweep: warmup = %zu is outside 0..%d", options->warmup, RUNS_MAX);
    if (options->rank_count > RUNS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "sweep: rank_count = %zu is outside 0..%d", options->rank_count,
                          RUNS_MAX);
    return KITH_OK;
}

static kith_status read_arguments(sweep_job *work, const kith_index *index, const kith_view *queries,
                                  const kith_neighbors *truth, const kith_sweep_options *given) {
    kith_sweep_options *options = &work->options;
    kith_sweep_options_init(options);
    KITH_TRY(kith_options_read("sweep options", options, sizeof *options, given));
    KITH_TRY(check_runs(options));
    KITH_TRY(kith_threads_read(options->threads, &options->threads));
    if (index == NULL || queries == NULL) return kith_error(KITH_ERR_ARGUMENT, "sweep: index or queries: NULL");
    KITH_TRY(kith_check_view_dim("queries", queries, kith_index_dim(index)));
    KITH_TRY(kith_neighbors_read("truth", truth, &work->truth));
    if (work->truth.query_count != queries->count)
        return kith_error(KITH_ERR_DIMENSION, "truth: of %zu queries, but %zu are given", work->truth.query_count,
                          queries->count);
    if (options->k < 1 || options->k > work->truth.k)
        return kith_error(KITH_ERR_ARGUMENT, "sweep: k = %zu is outside 1..%zu, the depth of the truth", options->k,
                          work->truth.k);
    work->index = index;
    work->queries = *queries;
    work->queries.stride = kith_view_stride(queries);
    options->latency_queries = kith_min_size(options->latency_queries, queries->count);
    return KITH_OK;
}

static kith_status take_ranks(sweep_job *work, kith_arena *arena) {
    const size_t *given = work->options.ranks != NULL ? work->options.ranks : default_ranks;
    size_t count = work->options.ranks != NULL ? work->options.rank_count : DEFAULT_RANK_COUNT;
    KITH_TRY(kith_arena_take(arena, count + 1, sizeof *work->ranks, &work->ranks));
    for (size_t i = 0; i < count; i++)
        if (work->options.ranks != NULL || given[i] < work->options.k) work->ranks[work->rank_count++] = given[i];
    work->ranks[work->rank_count++] = work->options.k; /* once more does no harm */
    return KITH_OK;
}

static kith_status take_buffers(sweep_job *work, kith_arena *arena) {
    size_t repeats = work->options.repeats, latencies = work->options.latency_queries;
    double **times[] = {&work->batch_1,     &work->batch_n,     &work->latency_mean,
                        &work->latency_p50, &work->latency_p99, &work->latency_p999};
    KITH_TRY(take_ranks(work, arena));
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        KITH_TRY(kith_arena_take(arena, repeats, sizeof(double), times[i]));
    KITH_TRY(kith_arena_take(arena, latencies, sizeof *work->query_ns, &work->query_ns));
    KITH_TRY(kith_arena_take(arena, latencies, sizeof *work->sort_scratch, &work->sort_scratch));
    KITH_TRY(kith_arena_take(arena, work->queries.count, sizeof *work->counts, &work->counts));
    KITH_TRY(kith_neighbors_create(work->queries.count, work->options.k, 1, &work->result));
    return kith_search_context_create(&work->context);
}

static kith_status describe_index(sweep_job *work) {
    kith_sweep *head = &work->object->head;
    kith_memory_part parts[64];
    size_t count, spec_bytes = strlen(kith_index_spec(work->index)) + 1;
    char *spec;
    KITH_TRY(kith_arena_take(&work->object->arena, spec_bytes, 1, &spec));
    memcpy(spec, kith_index_spec(work->index), spec_bytes);
    *head = (kith_sweep){
        .size = sizeof *head,
        .spec = spec,
        .index_count = kith_index_count(work->index),
        .dim = kith_index_dim(work->index),
        .query_count = work->queries.count,
        .k = work->options.k,
        .value_count = work->grid.axis_count,
    };
    KITH_TRY(kith_index_memory(work->index, parts, sizeof parts / sizeof *parts, &count));
    for (size_t i = 0; i < count && i < sizeof parts / sizeof *parts; i++)
        head->index_memory_bytes += parts[i].bytes;
    return KITH_OK;
}

static kith_status run_points(sweep_job *work) {
    const kith_sweep_options *options = &work->options;
    size_t runs =
        options->warmup + options->repeats * (1u + (options->threads > 1) + (options->latency_queries > 0));
    kith_meter_init(&work->meter, options->progress, options->progress_user, "sweep",
                    (uint64_t)work->grid.point_count * runs);
    for (size_t i = 0; i < work->grid.point_count; i++) {
        kith_sweep_point *point = &work->object->points[i];
        kith_status status = run_point(work, point);
        if (status != KITH_OK && work->grid.axis_count > 0)
            return kith_error_prefix(status, "%s", point->parameters);
        KITH_TRY(status);
    }
    mark_pareto(work->object);
    return kith_meter_finish(&work->meter);
}

kith_status kith_sweep_run(const kith_index *index, const kith_view *queries, const kith_neighbors *truth,
                           const kith_sweep_options *options, kith_sweep **out) {
    *out = NULL;
    kith_status status;
    kith_arena scratch = {0};
    sweep_job work = {0};
    KITH_GO(read_arguments(&work, index, queries, truth, options));
    KITH_GO(kith_alloc_zeroed(1, sizeof *work.object, &work.object));
    KITH_GO(kith_sweep_grid_read(work.options.grid, work.options.grid_count, &work.object->arena, &work.grid));
    KITH_GO(describe_index(&work));
    KITH_GO(take_buffers(&work, &scratch));
    KITH_GO(take_points(&work));
    KITH_GO(run_points(&work));
    *out = &work.object->head;
    work.object = NULL;
done:
    if (work.object != NULL) kith_sweep_free(&work.object->head);
    kith_neighbors_free(work.result);
    kith_search_context_free(work.context);
    kith_arena_free(&scratch);
    return status;
}
