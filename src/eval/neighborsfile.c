/* SPDX-License-Identifier: Apache-2.0
 *
 * neighborsfile.c: lists of neighbours from and to files, and the distances of lists that came without.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "eval/neighbors.h"
#include "exact/check.h"
#include "exact/exact.h"

/* Files are read so many bytes at a time. */
enum { READ_BYTES = 1 << 20 };

void kith_neighbors_options_init(kith_neighbors_options *options) {
    *options = (kith_neighbors_options){.size = sizeof *options};
}

/* ---- Reading ------------------------------------------------------------------------------------------- */

static bool ends_with(const char *path, const char *ending) {
    size_t length = strlen(path), ending_length = strlen(ending);
    return length >= ending_length && strcmp(path + length - ending_length, ending) == 0;
}

/* Formats in which one file holds ids and distances: ann-benchmarks' and big-ann's. */
static bool holds_both(const char *path) {
    return ends_with(path, ".hdf5") || ends_with(path, ".h5") || ends_with(path, ".ibin");
}

/* Opens the data set `asked` for or, in such a file, the one that is usual. */
static kith_status open_part(const char *path, const char *asked, const char *usual, kith_vectors **out) {
    kith_vectors_options options;
    kith_vectors_options_init(&options);
    options.dataset = asked == NULL && holds_both(path) ? usual : asked;
    return kith_vectors_open(path, &options, out);
}

/* The first `k` columns of all rows of `target`, as ids or floats, into `out`. */
static kith_status read_columns(kith_vectors *file, kith_dtype dtype, const kith_neighbors *target, void *out) {
    size_t dim = kith_vectors_dim(file), row_bytes = kith_dtype_row_bytes(dtype, dim);
    size_t kept_bytes = kith_dtype_row_bytes(dtype, target->k);
    size_t block = kith_max_size(1, READ_BYTES / row_bytes);
    unsigned char *rows;
    KITH_TRY(kith_alloc(block, row_bytes, &rows));
    kith_status status = KITH_OK;
    for (size_t first = 0; first < target->query_count && status == KITH_OK; first += block) {
        size_t count = kith_min_size(block, target->query_count - first);
        status = kith_vectors_read(file, first, count, dtype, rows);
        for (size_t i = 0; i < count && status == KITH_OK; i++)
            memcpy((char *)out + (first + i) * kept_bytes, rows + i * row_bytes, kept_bytes);
    }
    kith_free(rows);
    return status;
}

/* Unsigned files pad with the largest number. */
static kith_status check_ids(const char *path, kith_dtype dtype, kith_neighbors *neighbors) {
    size_t count = neighbors->query_count * neighbors->k;
    for (size_t i = 0; i < count; i++) {
        if (dtype == KITH_U32 && neighbors->ids[i] == UINT32_MAX) neighbors->ids[i] = KITH_NO_ID;
        if (neighbors->ids[i] < KITH_NO_ID)
            return kith_error(KITH_ERR_RANGE, "%s: row %zu, column %zu has the id %lld", path, i / neighbors->k,
                              i % neighbors->k, (long long)neighbors->ids[i]);
    }
    return KITH_OK;
}

static size_t at_most(size_t there, size_t wanted) { return wanted != 0 && wanted < there ? wanted : there; }

static kith_status read_ids(const char *path, kith_vectors *file, const kith_neighbors_options *options,
                            kith_neighbors **out) {
    kith_dtype dtype = kith_vectors_dtype(file);
    if (dtype != KITH_I32 && dtype != KITH_U32 && dtype != KITH_I64)
        return kith_error(KITH_ERR_TYPE, "%s: element type %s; lists of neighbours are i32, u32 or i64", path,
                          kith_dtype_name(dtype));
    if (kith_vectors_count(file) == 0) return kith_error(KITH_ERR_EMPTY, "%s: no rows", path);
    KITH_TRY(kith_neighbors_create(at_most(kith_vectors_count(file), options->max_queries),
                                   at_most(kith_vectors_dim(file), options->max_k), 0, out));
    KITH_TRY(read_columns(file, KITH_I64, *out, (*out)->ids));
    return check_ids(path, dtype, *out);
}

static float from_ann_benchmarks(kith_metric metric, float distance) {
    switch (metric) {
        case KITH_L2: return distance * distance;
        case KITH_COSINE: return 1.0f - distance;
        case KITH_IP: return -distance;
        default: return distance;
    }
}

static kith_status read_distances(const char *path, kith_vectors *file, const kith_neighbors_options *options,
                                  size_t row_count, size_t dim, kith_neighbors *neighbors) {
    kith_dtype dtype = kith_vectors_dtype(file);
    if (kith_vectors_count(file) != row_count || kith_vectors_dim(file) != dim)
        return kith_error(KITH_ERR_DIMENSION, "%s: %zu x %zu distances for %zu x %zu neighbours", path,
                          kith_vectors_count(file), kith_vectors_dim(file), row_count, dim);
    if (dtype != KITH_F32 && dtype != KITH_F64 && dtype != KITH_F16)
        return kith_error(KITH_ERR_TYPE, "%s: element type %s; distances are f32, f64 or f16", path,
                          kith_dtype_name(dtype));
    size_t count = neighbors->query_count * neighbors->k;
    KITH_TRY(kith_alloc(count, sizeof *neighbors->distances, &neighbors->distances));
    KITH_TRY(read_columns(file, KITH_F32, neighbors, neighbors->distances));
    for (size_t i = 0; i < count && options->ann_benchmarks; i++)
        neighbors->distances[i] = from_ann_benchmarks(options->metric, neighbors->distances[i]);
    return KITH_OK;
}

/* The distances may stand in a file of their own, or beside the ids. */
static kith_status open_distances(const char *path, const kith_neighbors_options *options, kith_vectors **out) {
    *out = NULL;
    if (options->distances_path != NULL) return open_part(options->distances_path, NULL, "distances", out);
    if (!holds_both(path) || options->dataset != NULL) return KITH_OK;
    kith_status status = open_part(path, NULL, "distances", out);
    return status == KITH_ERR_NOT_FOUND ? KITH_OK : status;
}

kith_status kith_neighbors_load(const char *path, const kith_neighbors_options *given, kith_neighbors **out) {
    *out = NULL;
    kith_status status;
    kith_vectors *file = NULL, *distances = NULL;
    kith_neighbors *made = NULL;
    kith_neighbors_options options;
    kith_neighbors_options_init(&options);
    KITH_TRY(kith_options_read("neighbours options", &options, sizeof options, given));
    if (options.ann_benchmarks && kith_metric_name(options.metric)[0] == '?')
        return kith_error(KITH_ERR_ARGUMENT, "%s: distances of ann-benchmarks need a metric", path);
    KITH_GO(open_part(path, options.dataset, ends_with(path, ".ibin") ? NULL : "neighbors", &file));
    KITH_GO(read_ids(path, file, &options, &made));
    KITH_GO(open_distances(path, &options, &distances));
    if (distances != NULL)
        KITH_GO(read_distances(options.distances_path != NULL ? options.distances_path : path, distances, &options,
                               kith_vectors_count(file), kith_vectors_dim(file), made));
    *out = made;
    made = NULL;
done:
    kith_neighbors_free(made);
    kith_vectors_close(distances);
    kith_vectors_close(file);
    return status;
}

/* ---- Writing ------------------------------------------------------------------------------------------- */

static kith_status write_rows(const char *path, kith_dtype file_dtype, const kith_view *rows,
                              kith_vectors_writer **out) {
    KITH_TRY(kith_vectors_writer_create(path, KITH_FORMAT_AUTO, file_dtype, rows->dim, out));
    kith_status status = kith_vectors_writer_append(*out, rows);
    if (status == KITH_OK) return KITH_OK;
    kith_vectors_writer_abort(*out);
    *out = NULL;
    return status;
}

kith_status kith_neighbors_save(const kith_neighbors *neighbors, const char *path, const char *distances_path) {
    kith_status status;
    kith_vectors_writer *ids = NULL, *distances = NULL;
    kith_neighbors own;
    KITH_TRY(kith_neighbors_read("neighbours", neighbors, &own));
    if (distances_path != NULL && own.distances == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "%s: these neighbours have no distances", distances_path);
    kith_view id_rows = {own.ids, KITH_I64, own.query_count, own.k, 0};
    kith_view distance_rows = {own.distances, KITH_F32, own.query_count, own.k, 0};
    KITH_GO(write_rows(path, ends_with(path, ".npy") ? KITH_I64 : KITH_I32, &id_rows, &ids));
    if (distances_path != NULL) KITH_GO(write_rows(distances_path, KITH_F32, &distance_rows, &distances));
    status = kith_vectors_writer_commit(ids);
    ids = NULL;
    if (status != KITH_OK || distances == NULL) goto done;
    status = kith_vectors_writer_commit(distances);
    distances = NULL;
done:
    kith_vectors_writer_abort(ids);
    kith_vectors_writer_abort(distances);
    return status;
}

/* ---- Distances of given ids ---------------------------------------------------------------------------- */

typedef struct measure_job {
    kith_neighbors lists;
    kith_vectors *base;
    kith_view queries;
    kith_metric metric;
    size_t row_bytes;
    kith_arena arena;
    unsigned char *rows; /* k rows, gathered */
    size_t *places;      /* where each of them stands in its list */
    kith_hit *hits;
} measure_job;

static kith_status gather_rows(const measure_job *work, size_t query, size_t *count) {
    const int64_t *ids = work->lists.ids + query * work->lists.k;
    *count = 0;
    for (size_t place = 0; place < work->lists.k; place++) {
        kith_view row;
        if (ids[place] == KITH_NO_ID) continue;
        if (ids[place] < 0 || (uint64_t)ids[place] >= kith_vectors_count(work->base))
            return kith_error(KITH_ERR_NOT_FOUND,
                              "neighbours: query %zu, column %zu has the id %lld, the base has %zu rows", query,
                              place, (long long)ids[place], kith_vectors_count(work->base));
        KITH_TRY(kith_vectors_rows(work->base, (size_t)ids[place], 1, &row));
        KITH_TRY(kith_check_vectors("base", &row, (size_t)ids[place], work->metric, 1));
        memcpy(work->rows + *count * work->row_bytes, row.data, work->row_bytes);
        work->places[(*count)++] = place;
    }
    return KITH_OK;
}

/* An exact search among the listed rows alone: the same code, so the same bits. */
static kith_status measure_query(measure_job *work, size_t query, float *distances) {
    size_t count;
    kith_exact *exact;
    kith_topk top;
    for (size_t i = 0; i < work->lists.k; i++) distances[i] = work->metric == KITH_L2 ? INFINITY : -INFINITY;
    KITH_TRY(gather_rows(work, query, &count));
    if (count == 0) return KITH_OK;
    kith_exact_request request = {.queries = work->queries,
                                  .metric = work->metric,
                                  .row_dtype = kith_vectors_dtype(work->base),
                                  .threads = 1,
                                  .arena = &work->arena};
    request.queries.data = (const char *)work->queries.data + query * work->queries.stride;
    request.queries.count = 1;
    kith_rows rows = {.dtype = request.row_dtype,
                      .dim = work->queries.dim,
                      .count = count,
                      .base = work->rows,
                      .stride = work->row_bytes};
    KITH_TRY(kith_arena_begin(&work->arena));
    KITH_TRY(kith_exact_open(&request, &exact));
    kith_topk_init(&top, work->hits, count);
    KITH_TRY(kith_exact_topk(exact, &rows, &top));
    kith_topk_finish(&top);
    for (size_t i = 0; i < top.count; i++)
        distances[work->places[top.hits[i].id]] = kith_exact_value(exact, top.hits[i].key);
    return KITH_OK;
}

static kith_status open_measure(measure_job *work, const kith_neighbors *neighbors, const kith_view *queries,
                                const kith_job *job) {
    kith_view first_row;
    KITH_TRY(kith_neighbors_read("neighbours", neighbors, &work->lists));
    if (work->metric != KITH_L2 && work->metric != KITH_IP && work->metric != KITH_COSINE)
        return kith_error(KITH_ERR_ARGUMENT, "neighbours: metric %s; l2, ip and cosine are known here",
                          kith_metric_name(work->metric));
    if (work->base == NULL || queries == NULL) return kith_error(KITH_ERR_ARGUMENT, "base or queries: NULL");
    KITH_TRY(kith_check_view("queries", queries));
    KITH_TRY(kith_check_vectors("queries", queries, 0, work->metric, job->threads));
    if (queries->count != work->lists.query_count)
        return kith_error(KITH_ERR_DIMENSION, "neighbours: of %zu queries, but %zu are given",
                          work->lists.query_count, queries->count);
    KITH_TRY(kith_vectors_rows(work->base, 0, 1, &first_row));
    KITH_TRY(kith_check_view_dim("base", &first_row, queries->dim));
    work->queries = *queries;
    work->queries.stride = kith_view_stride(queries);
    work->row_bytes = kith_dtype_row_bytes(first_row.dtype, first_row.dim);
    KITH_TRY(kith_alloc(work->lists.k, work->row_bytes, &work->rows));
    KITH_TRY(kith_alloc(work->lists.k, sizeof *work->places, &work->places));
    return kith_alloc(kith_topk_capacity(work->lists.k), sizeof *work->hits, &work->hits);
}

kith_status kith_neighbors_measure(const kith_neighbors *neighbors, kith_vectors *base, const kith_view *queries,
                                   kith_metric metric, const kith_job *job, kith_neighbors **out) {
    *out = NULL;
    kith_status status;
    kith_neighbors *made = NULL;
    measure_job work = {.base = base, .metric = metric};
    kith_job own;
    kith_meter meter;
    KITH_TRY(kith_job_read(&own, job));
    KITH_GO(open_measure(&work, neighbors, queries, &own));
    KITH_GO(kith_neighbors_create(work.lists.query_count, work.lists.k, 1, &made));
    memcpy(made->ids, work.lists.ids, made->query_count * made->k * sizeof *made->ids);
    kith_meter_init(&meter, own.progress, own.progress_user, "distances", made->query_count);
    for (size_t query = 0; query < made->query_count; query++) {
        KITH_GO(measure_query(&work, query, made->distances + query * made->k));
        KITH_GO(kith_meter_add(&meter, 1));
    }
    KITH_GO(kith_meter_finish(&meter));
    *out = made;
    made = NULL;
done:
    kith_neighbors_free(made);
    kith_free(work.rows);
    kith_free(work.places);
    kith_free(work.hits);
    kith_arena_free(&work.arena);
    return status;
}
