/* SPDX-License-Identifier: Apache-2.0
 *
 * Lists of neighbours in files, ground truth of a vector file, distances of given ids.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/random.h"
#include "faults.h"
#include "kith/eval.h"

enum { DIM = 24, ROWS = 3000, QUERIES = 40, K = 7 };

static const char *folder;
static float base[ROWS * DIM], queries[QUERIES * DIM];

static const char *in_folder(const char *name) { return faults_path(folder, name); }

static void open_folder(void) {
    folder = faults_folder();
    for (size_t i = 0; i < ROWS * DIM; i++) base[i] = kith_random_normal(1, 1, i);
    for (size_t i = 0; i < QUERIES * DIM; i++) queries[i] = kith_random_normal(1, 2, i);
}

static void close_folder(void) {
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

static void write_file(const char *path, const void *rows, kith_dtype dtype, kith_dtype file_dtype, size_t count,
                       size_t dim) {
    kith_vectors_writer *writer;
    kith_view view = {rows, dtype, count, dim, 0};
    cr_assert_eq(kith_vectors_writer_create(path, KITH_FORMAT_AUTO, file_dtype, dim, &writer), KITH_OK, "%s",
                 kith_error_message());
    cr_assert_eq(kith_vectors_writer_append(writer, &view), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_vectors_writer_commit(writer), KITH_OK);
}

static kith_vectors *open_base(int stream) {
    kith_vectors_options options;
    kith_vectors *file;
    kith_vectors_options_init(&options);
    options.stream = stream;
    write_file(in_folder("base.fvecs"), base, KITH_F32, KITH_F32, ROWS, DIM);
    cr_assert_eq(kith_vectors_open(in_folder("base.fvecs"), &options, &file), KITH_OK, "%s", kith_error_message());
    return file;
}

static const kith_view query_view = {queries, KITH_F32, QUERIES, DIM, 0};

static void expect(kith_status got, kith_status want, const char *part) {
    cr_assert_eq(got, want, "%s: %s", kith_status_name(got), kith_error_message());
    cr_assert(strstr(kith_error_message(), part) != NULL, "%s", kith_error_message());
}

/* ---- Files --------------------------------------------------------------------------------------------- */

Test(neighbors, every_format_comes_back, .init = open_folder, .fini = close_folder) {
    static const char *const names[] = {"n.ivecs", "n.ibin", "n.npy"};
    static const char *const distance_names[] = {"d.fvecs", "d.fbin", "d.npy"};
    kith_neighbors *made;
    cr_assert_eq(kith_neighbors_create(5, 3, 1, &made), KITH_OK);
    for (size_t i = 0; i < 15; i++) made->ids[i] = i == 14 ? KITH_NO_ID : (int64_t)(i * 7);
    for (size_t i = 0; i < 15; i++) made->distances[i] = (float)i * 0.5f;
    for (size_t f = 0; f < 3; f++) {
        kith_neighbors *found;
        kith_neighbors_options options;
        cr_assert_eq(kith_neighbors_save(made, in_folder(names[f]), in_folder(distance_names[f])), KITH_OK, "%s",
                     kith_error_message());
        cr_assert_eq(kith_neighbors_load(in_folder(names[f]), NULL, &found), KITH_OK, "%s", kith_error_message());
        cr_assert_eq(found->query_count, 5);
        cr_assert_eq(found->k, 3);
        cr_assert_arr_eq(found->ids, made->ids, 15 * sizeof *made->ids);
        cr_assert_null(found->distances);
        kith_neighbors_free(found);
        kith_neighbors_options_init(&options);
        options.distances_path = in_folder(distance_names[f]), options.max_queries = 4, options.max_k = 2;
        cr_assert_eq(kith_neighbors_load(in_folder(names[f]), &options, &found), KITH_OK, "%s",
                     kith_error_message());
        cr_assert_eq(found->query_count, 4);
        cr_assert_eq(found->k, 2);
        for (size_t i = 0; i < 8; i++) {
            cr_assert_eq(found->ids[i], made->ids[i / 2 * 3 + i % 2]);
            cr_assert_eq(found->distances[i], made->distances[i / 2 * 3 + i % 2]);
        }
        kith_neighbors_free(found);
    }
    kith_neighbors_free(made);
}

Test(neighbors, types_of_ids, .init = open_folder, .fini = close_folder) {
    int64_t wide[] = {5000000000, 3, KITH_NO_ID, 0};
    int32_t narrow[] = {5, 3, -1, 0};
    kith_neighbors *found, list = {sizeof list, 2, 2, wide, NULL};
    write_file(in_folder("i8.npy"), wide, KITH_I64, KITH_I64, 2, 2);
    write_file(in_folder("i4.npy"), narrow, KITH_I32, KITH_I32, 2, 2);
    cr_assert_eq(kith_neighbors_load(in_folder("i8.npy"), NULL, &found), KITH_OK, "%s", kith_error_message());
    cr_assert_arr_eq(found->ids, wide, sizeof wide);
    kith_neighbors_free(found);
    cr_assert_eq(kith_neighbors_load(in_folder("i4.npy"), NULL, &found), KITH_OK);
    for (size_t i = 0; i < 4; i++) cr_assert_eq(found->ids[i], narrow[i]);
    kith_neighbors_free(found);
    cr_assert_eq(kith_neighbors_save(&list, in_folder("wide.ivecs"), NULL), KITH_ERR_RANGE);
    cr_assert_neq(access(in_folder("wide.ivecs"), F_OK), 0); /* nothing half-written */
}

/* NumPy's u4, as other engines write their keys: the largest stands for "none". */
Test(neighbors, unsigned_padding, .init = open_folder, .fini = close_folder) {
    static const char header[] = "{'descr': '<u4', 'fortran_order': False, 'shape': (1, 2), }";
    char text[118];
    uint32_t ids[] = {7, UINT32_MAX};
    memset(text, ' ', sizeof text);
    memcpy(text, header, sizeof header - 1);
    text[117] = '\n';
    FILE *file = fopen(in_folder("u4.npy"), "wb");
    cr_assert_eq(fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, file), 10);
    cr_assert_eq(fwrite(text, 1, sizeof text, file), sizeof text);
    cr_assert_eq(fwrite(ids, sizeof *ids, 2, file), 2);
    cr_assert_eq(fclose(file), 0);
    kith_neighbors *found;
    cr_assert_eq(kith_neighbors_load(in_folder("u4.npy"), NULL, &found), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(found->ids[0], 7);
    cr_assert_eq(found->ids[1], KITH_NO_ID);
    kith_neighbors_free(found);
}

/* big-ann's ground truth: ids, then as many distances, behind one header. */
Test(neighbors, one_file_with_ids_and_distances, .init = open_folder, .fini = close_folder) {
    static const struct {
        uint32_t shape[2];
        int32_t ids[4];
        float distances[4];
    } truth = {{2, 2}, {3, 1, 0, 2}, {0.5f, 1.5f, 2.0f, 4.0f}};
    kith_neighbors *found;
    faults_write_file(in_folder("truth.ibin"), &truth, sizeof truth);
    cr_assert_eq(kith_neighbors_load(in_folder("truth.ibin"), NULL, &found), KITH_OK, "%s", kith_error_message());
    for (size_t i = 0; i < 4; i++) cr_assert_eq(found->ids[i], truth.ids[i]);
    cr_assert_arr_eq(found->distances, truth.distances, sizeof truth.distances);
    kith_neighbors_free(found);
#ifdef KITH_HAVE_HDF5
    cr_assert_eq(kith_neighbors_load(KITH_GOLDEN "/vectors/a.hdf5", NULL, &found), KITH_OK, "%s",
                 kith_error_message());
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(found->ids[i], i * 37 % 100);
        cr_assert_eq(found->distances[i], (float)(i * 37 % 100) / 2);
    }
    kith_neighbors_free(found);
#endif
}

Test(neighbors, distances_of_ann_benchmarks, .init = open_folder, .fini = close_folder) {
    int32_t ids[] = {1, 2};
    float distances[] = {2.0f, 0.25f};
    kith_neighbors_options options;
    kith_neighbors *found;
    write_file(in_folder("n.ivecs"), ids, KITH_I32, KITH_I32, 1, 2);
    write_file(in_folder("d.fvecs"), distances, KITH_F32, KITH_F32, 1, 2);
    kith_neighbors_options_init(&options);
    options.distances_path = in_folder("d.fvecs"), options.ann_benchmarks = 1;
    expect(kith_neighbors_load(in_folder("n.ivecs"), &options, &found), KITH_ERR_ARGUMENT, "need a metric");
    static const float want[3][2] = {{4.0f, 0.0625f}, {-2.0f, -0.25f}, {-1.0f, 0.75f}};
    for (int metric = KITH_L2; metric <= KITH_COSINE; metric++) {
        options.metric = (kith_metric)metric;
        cr_assert_eq(kith_neighbors_load(in_folder("n.ivecs"), &options, &found), KITH_OK);
        cr_assert_arr_eq(found->distances, want[metric - 1], sizeof want[0]);
        kith_neighbors_free(found);
    }
}

Test(neighbors, bad_files, .init = open_folder, .fini = close_folder) {
    float floats[] = {1, 2, 3, 4};
    int32_t ids[] = {1, 2, 3, -9};
    kith_neighbors *found = (kith_neighbors *)ids, list = {sizeof list, 1, 4, (int64_t[]){1, 2, 3, 4}, NULL};
    kith_neighbors_options options;
    kith_neighbors_options_init(&options);
    write_file(in_folder("f.fvecs"), floats, KITH_F32, KITH_F32, 2, 2);
    write_file(in_folder("n.ivecs"), ids, KITH_I32, KITH_I32, 2, 2);
    expect(kith_neighbors_load(in_folder("f.fvecs"), NULL, &found), KITH_ERR_TYPE, "f.fvecs: element type f32");
    cr_assert_null(found);
    expect(kith_neighbors_load(in_folder("n.ivecs"), NULL, &found), KITH_ERR_RANGE,
           "n.ivecs: row 1, column 1 has the id -9");
    expect(kith_neighbors_load(in_folder("none.ivecs"), NULL, &found), KITH_ERR_IO, "none.ivecs");
    ids[3] = 4;
    write_file(in_folder("n.ivecs"), ids, KITH_I32, KITH_I32, 1, 4);
    options.distances_path = in_folder("f.fvecs");
    expect(kith_neighbors_load(in_folder("n.ivecs"), &options, &found), KITH_ERR_DIMENSION,
           "f.fvecs: 2 x 2 distances for 1 x 4 neighbours");
    options.distances_path = in_folder("n.ivecs");
    expect(kith_neighbors_load(in_folder("n.ivecs"), &options, &found), KITH_ERR_TYPE, "distances are f32");
    expect(kith_neighbors_save(&list, in_folder("o.ivecs"), in_folder("o.fvecs")), KITH_ERR_ARGUMENT,
           "have no distances");
    cr_assert_neq(kith_neighbors_save(&list, in_folder("no/o.ivecs"), NULL), KITH_OK);
    cr_assert_null(found);
}

/* ---- Ground truth of a file ---------------------------------------------------------------------------- */

static kith_neighbors *truth_of(kith_vectors *file, kith_metric metric, uint64_t budget, size_t threads,
                                kith_ground_truth_report *report) {
    kith_job job;
    kith_neighbors *found;
    kith_job_init(&job);
    job.memory_bytes_max = budget, job.threads = threads;
    *report = (kith_ground_truth_report){.size = sizeof *report};
    cr_assert_eq(kith_ground_truth_compute(file, &query_view, metric, K, &job, report, &found), KITH_OK, "%s",
                 kith_error_message());
    if (budget != 0) cr_assert_leq(report->memory_bytes_peak, budget);
    cr_assert_eq(report->result_bytes, (uint64_t)QUERIES * K * 12);
    return found;
}

/* However the budget cuts the work, mapped or streamed, the result is the same to the last bit. */
Test(neighbors, ground_truth_under_budgets, .init = open_folder, .fini = close_folder) {
    for (int stream = 0; stream < 2; stream++) {
        kith_vectors *file = open_base(stream);
        for (int metric = KITH_L2; metric <= KITH_COSINE; metric++) {
            kith_ground_truth_report report, whole;
            kith_neighbors *want = truth_of(file, (kith_metric)metric, 0, 2, &whole);
            size_t most_passes = 0;
            cr_assert_eq(whole.passes, 1);
            cr_assert_eq(whole.query_block, QUERIES);
            for (uint64_t budget = whole.memory_bytes_peak; budget > 60000; budget = budget * 4 / 5) {
                kith_job job;
                kith_neighbors *found = NULL;
                kith_job_init(&job);
                job.memory_bytes_max = budget, job.threads = 1;
                report = (kith_ground_truth_report){.size = sizeof report};
                kith_status status =
                    kith_ground_truth_compute(file, &query_view, (kith_metric)metric, K, &job, &report, &found);
                cr_assert(status == KITH_OK || status == KITH_ERR_BUDGET);
                if (status != KITH_OK) break;
                cr_assert_leq(report.memory_bytes_peak, budget);
                cr_assert_arr_eq(found->ids, want->ids, QUERIES * K * sizeof *found->ids);
                cr_assert_arr_eq(found->distances, want->distances, QUERIES * K * sizeof *found->distances);
                if (report.passes > most_passes) most_passes = report.passes;
                kith_neighbors_free(found);
            }
            cr_assert_gt(most_passes, 1); /* the budget did cut the queries */
            kith_neighbors_free(want);
        }
        kith_vectors_close(file);
    }
}

Test(neighbors, ground_truth_refuses, .init = open_folder, .fini = close_folder) {
    kith_vectors *file = open_base(0);
    kith_neighbors *found = (kith_neighbors *)file;
    kith_job job;
    kith_job_init(&job);
    job.memory_bytes_max = 5000;
    expect(kith_ground_truth_compute(file, &query_view, KITH_L2, K, &job, NULL, &found), KITH_ERR_BUDGET,
           "the budget is 5000");
    cr_assert_null(found);
    expect(kith_ground_truth_compute(file, &query_view, KITH_L2, ROWS + 1, NULL, NULL, &found), KITH_ERR_ARGUMENT,
           "k = 3001 is outside 1..3000");
    expect(kith_ground_truth_compute(file, &query_view, KITH_L2, 0, NULL, NULL, &found), KITH_ERR_ARGUMENT,
           "k = 0");
    kith_view narrow = query_view;
    narrow.dim = DIM - 1;
    expect(kith_ground_truth_compute(file, &narrow, KITH_L2, K, NULL, NULL, &found), KITH_ERR_DIMENSION,
           "base: dimension 24, expected 23");
    expect(kith_ground_truth_compute(NULL, &query_view, KITH_L2, K, NULL, NULL, &found), KITH_ERR_ARGUMENT, "base");
    kith_range_result *range;
    expect(kith_ground_truth_range(file, &query_view, KITH_L2, NAN, NULL, NULL, &range), KITH_ERR_ARGUMENT, "NaN");
    kith_vectors_close(file);
    base[2999 * DIM + 5] = NAN;
    file = open_base(0);
    expect(kith_ground_truth_compute(file, &query_view, KITH_L2, K, NULL, NULL, &found), KITH_ERR_NOT_FINITE,
           "base: row 2999, column 5 is nan");
    cr_assert_null(found);
    kith_vectors_close(file);
}

/* ---- Range --------------------------------------------------------------------------------------------- */

Test(neighbors, range_holds_what_is_within_the_radius, .init = open_folder, .fini = close_folder) {
    static const float radii[] = {0, 20.0f, 30.0f, 3.0f, 0.5f};
    static const kith_metric metrics[] = {KITH_L2, KITH_L2, KITH_L2, KITH_IP, KITH_COSINE};
    kith_vectors *file = open_base(1);
    for (size_t r = 0; r < 5; r++) {
        kith_range_result *range, *again;
        kith_ground_truth_report report = {.size = sizeof report};
        kith_job job;
        cr_assert_eq(kith_ground_truth_range(file, &query_view, metrics[r], radii[r], NULL, &report, &range),
                     KITH_OK);
        cr_assert_eq(range->limits[0], 0);
        size_t total = range->limits[QUERIES];
        cr_assert_eq(total == 0, radii[r] == 0);
        for (size_t query = 0; query < QUERIES; query++)
            for (size_t i = range->limits[query]; i < range->limits[query + 1]; i++) {
                bool near =
                    metrics[r] == KITH_L2 ? range->distances[i] <= radii[r] : range->distances[i] >= radii[r];
                cr_assert(near);
                if (i == range->limits[query]) continue;
                bool sorted = metrics[r] == KITH_L2 ? range->distances[i - 1] <= range->distances[i]
                                                    : range->distances[i - 1] >= range->distances[i];
                cr_assert(sorted);
            }
        /* The k nearest of all rows tell how many there have to be. */
        kith_neighbors *all;
        cr_assert_eq(kith_ground_truth_compute(file, &query_view, metrics[r], ROWS, NULL, NULL, &all), KITH_OK);
        for (size_t query = 0; query < QUERIES; query++) {
            size_t count = range->limits[query + 1] - range->limits[query], at = query * ROWS;
            if (count > 0)
                cr_assert_arr_eq(range->ids + range->limits[query], all->ids + at, count * sizeof *all->ids);
            float next = count < ROWS ? all->distances[at + count] : INFINITY;
            cr_assert(metrics[r] == KITH_L2 ? next > radii[r] : next < radii[r]);
        }
        kith_neighbors_free(all);
        kith_job_init(&job);
        job.threads = 1, job.memory_bytes_max = report.memory_bytes_peak;
        cr_assert_eq(kith_ground_truth_range(file, &query_view, metrics[r], radii[r], &job, &report, &again),
                     KITH_OK, "%s", kith_error_message());
        cr_assert_eq(again->limits[QUERIES], total);
        if (total > 0) cr_assert_arr_eq(again->ids, range->ids, total * sizeof *range->ids);
        kith_range_result_free(range);
        kith_range_result_free(again);
    }
    kith_vectors_close(file);
}

/* ---- Distances of given ids ---------------------------------------------------------------------------- */

Test(neighbors, measured_distances_are_those_of_the_search, .init = open_folder, .fini = close_folder) {
    for (int stream = 0; stream < 2; stream++) {
        kith_vectors *file = open_base(stream);
        for (int metric = KITH_L2; metric <= KITH_COSINE; metric++) {
            kith_ground_truth_report report;
            kith_neighbors *want = truth_of(file, (kith_metric)metric, 0, 2, &report), *found;
            want->ids[3] = KITH_NO_ID;
            want->distances[3] = metric == KITH_L2 ? INFINITY : -INFINITY;
            want->ids[K] = want->ids[K + 1]; /* the same id twice */
            want->distances[K] = want->distances[K + 1];
            cr_assert_eq(kith_neighbors_measure(want, file, &query_view, (kith_metric)metric, NULL, &found),
                         KITH_OK, "%s", kith_error_message());
            cr_assert_arr_eq(found->ids, want->ids, QUERIES * K * sizeof *want->ids);
            cr_assert_arr_eq(found->distances, want->distances, QUERIES * K * sizeof *want->distances);
            kith_neighbors_free(found);
            kith_neighbors_free(want);
        }
        kith_vectors_close(file);
    }
}

Test(neighbors, measuring_refuses, .init = open_folder, .fini = close_folder) {
    kith_vectors *file = open_base(0);
    kith_neighbors *lists, *found;
    cr_assert_eq(kith_neighbors_create(QUERIES, 2, 0, &lists), KITH_OK);
    lists->ids[5] = ROWS;
    expect(kith_neighbors_measure(lists, file, &query_view, KITH_L2, NULL, &found), KITH_ERR_NOT_FOUND,
           "query 2, column 1 has the id 3000, the base has 3000 rows");
    cr_assert_null(found);
    lists->query_count = QUERIES - 1;
    expect(kith_neighbors_measure(lists, file, &query_view, KITH_L2, NULL, &found), KITH_ERR_DIMENSION,
           "of 39 queries, but 40 are given");
    expect(kith_neighbors_measure(lists, file, &query_view, KITH_HAMMING, NULL, &found), KITH_ERR_ARGUMENT,
           "hamming");
    kith_neighbors_free(lists);
    kith_vectors_close(file);
}

/* ---- Failing allocations ------------------------------------------------------------------------------- */

static kith_status whole_run(kith_neighbors *lists) {
    kith_neighbors_options options;
    kith_neighbors *loaded = NULL, *measured = NULL, *truth = NULL;
    kith_range_result *range = NULL;
    kith_vectors *file = NULL;
    kith_neighbors_options_init(&options);
    options.distances_path = in_folder("d.fvecs");
    kith_status status = kith_neighbors_save(lists, in_folder("n.ivecs"), in_folder("d.fvecs"));
    if (status == KITH_OK) status = kith_neighbors_load(in_folder("n.ivecs"), &options, &loaded);
    if (status == KITH_OK) status = kith_vectors_open(in_folder("base.fvecs"), NULL, &file);
    if (status == KITH_OK) status = kith_neighbors_measure(loaded, file, &query_view, KITH_COSINE, NULL, &measured);
    if (status == KITH_OK) status = kith_ground_truth_compute(file, &query_view, KITH_L2, K, NULL, NULL, &truth);
    if (status == KITH_OK) status = kith_ground_truth_range(file, &query_view, KITH_L2, 15.0f, NULL, NULL, &range);
    kith_range_result_free(range);
    kith_neighbors_free(truth);
    kith_neighbors_free(measured);
    kith_vectors_close(file);
    kith_neighbors_free(loaded);
    return status;
}

Test(neighbors, every_allocation_may_fail, .init = open_folder, .fini = close_folder) {
    faults_fail_allocation(0);
    kith_neighbors *lists;
    cr_assert_eq(kith_neighbors_create(QUERIES, K, 1, &lists), KITH_OK);
    for (size_t i = 0; i < QUERIES * K; i++) lists->ids[i] = (int64_t)i;
    kith_vectors_close(open_base(0));
    uint64_t live = kith_memory_live_blocks();
    kith_status status = KITH_ERR_NO_MEMORY;
    for (size_t n = 1; status != KITH_OK; n++) {
        faults_fail_allocation(n);
        status = whole_run(lists);
        cr_assert(status == KITH_OK || status == KITH_ERR_NO_MEMORY, "%s", kith_error_message());
        cr_assert_eq(kith_memory_live_blocks(), live, "allocation %zu", n);
        cr_assert_lt(n, 100000);
    }
    faults_fail_allocation(0);
    kith_neighbors_free(lists);
}
