/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "eval/sweep_grid.h"
#include "faults.h"
#include "kith/eval.h"

enum { DIM = 12, ROWS = 2000, QUERIES = 50, DEPTH = 20 };

static float base[ROWS * DIM], queries[QUERIES * DIM];
static const kith_view base_view = {base, KITH_F32, ROWS, DIM, 0},
                       query_view = {queries, KITH_F32, QUERIES, DIM, 0};
static kith_index *flat;
static kith_neighbors *truth;

static void open_all(void) {
    for (size_t i = 0; i < ROWS * DIM; i++) base[i] = kith_random_normal(3, 1, i);
    for (size_t i = 0; i < QUERIES * DIM; i++) queries[i] = kith_random_normal(3, 2, i);
    kith_ground_truth *gather;
    cr_assert_eq(kith_ground_truth_create(&query_view, KITH_L2, DEPTH, 0, NULL, &gather), KITH_OK);
    cr_assert_eq(kith_ground_truth_feed(gather, &base_view, 0), KITH_OK);
    cr_assert_eq(kith_ground_truth_finish(gather, &truth), KITH_OK);
    kith_ground_truth_free(gather);
    cr_assert_eq(kith_index_create("Flat", DIM, KITH_L2, &flat), KITH_OK);
    cr_assert_eq(kith_index_add(flat, &base_view, NULL, NULL), KITH_OK);
}

static void close_all(void) {
    kith_index_free(flat);
    kith_neighbors_free(truth);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(sweep, of_a_flat_index_finds_everything, .init = open_all, .fini = close_all) {
    kith_sweep *sweep;
    cr_assert_eq(kith_sweep_run(flat, &query_view, truth, NULL, &sweep), KITH_OK, "%s", kith_error_message());
    cr_assert_str_eq(sweep->spec, "Flat");
    cr_assert_eq(sweep->index_count, ROWS);
    cr_assert_eq(sweep->dim, DIM);
    cr_assert_eq(sweep->query_count, QUERIES);
    cr_assert_eq(sweep->k, 10);
    cr_assert_geq(sweep->index_memory_bytes, sizeof base);
    cr_assert_eq(sweep->point_count, 1);
    const kith_sweep_point *point = sweep->points[0];
    cr_assert_str_eq(point->parameters, "");
    cr_assert_eq(point->recall, 1.0);
    cr_assert_eq(point->measures->rank_count, 2);
    cr_assert_eq(point->measures->at[0]->rank, 1);
    cr_assert_eq(point->measures->at[1]->rank, 10);
    cr_assert_eq(point->measures->at[1]->recall_distance, 1.0);
    cr_assert_eq(point->distances_per_query, (double)ROWS);
    cr_assert(point->is_pareto_1 && point->is_pareto_n);
    cr_assert(point->qps_1.min > 0 && point->qps_1.min <= point->qps_1.median &&
              point->qps_1.median <= point->qps_1.max);
    cr_assert_eq(point->qps_1.threads, 1);
    cr_assert_eq(point->qps_n.threads, kith_threads_default());
    cr_assert(point->latency.p50 > 0 && point->latency.p50 <= point->latency.p99);
    cr_assert(point->latency.p99 <= point->latency.p999 && point->latency.mean > 0);
    kith_sweep_free(sweep);
    kith_sweep_free(NULL);
}

/* More rows looked at, more found; the last axis runs fastest; the results are the same at any thread count. */
Test(sweep, of_a_grid, .init = open_all, .fini = close_all) {
    static const char *const grid[] = {"max_distances=100,1000,0"};
    static const size_t threads[] = {1, 3};
    double recalls[2][3];
    for (size_t t = 0; t < 2; t++) {
        kith_sweep_options options;
        kith_sweep *sweep;
        kith_sweep_options_init(&options);
        options.grid = grid, options.grid_count = 1, options.k = DEPTH, options.repeats = 2, options.warmup = 0;
        options.threads = threads[t], options.latency_queries = 0;
        cr_assert_eq(kith_sweep_run(flat, &query_view, truth, &options, &sweep), KITH_OK, "%s",
                     kith_error_message());
        cr_assert_eq(sweep->point_count, 3);
        cr_assert_eq(sweep->value_count, 1);
        cr_assert_str_eq(sweep->points[1]->parameters, "max_distances=1000");
        cr_assert_str_eq(sweep->points[1]->values[0].name, "max_distances");
        cr_assert_str_eq(sweep->points[1]->values[0].value, "1000");
        cr_assert_eq(sweep->points[0]->distances_per_query, 100.0);
        cr_assert_eq(sweep->points[2]->distances_per_query, (double)ROWS);
        cr_assert(isnan(sweep->points[0]->latency.p50));
        size_t first = 0;
        for (size_t i = 0; i < QUERIES * DEPTH; i++) first += truth->ids[i] < 100;
        cr_assert_eq(sweep->points[0]->recall, (double)first / (QUERIES * DEPTH));
        for (size_t i = 0; i < 3; i++) recalls[t][i] = sweep->points[i]->recall;
        cr_assert(recalls[t][0] < recalls[t][1] && recalls[t][1] < recalls[t][2]);
        cr_assert_eq(recalls[t][2], 1.0);
        cr_assert(sweep->points[2]->is_pareto_1 && sweep->points[2]->is_pareto_n); /* no other finds everything */
        kith_sweep_free(sweep);
    }
    cr_assert_arr_eq(recalls[0], recalls[1], sizeof recalls[0]);
}

Test(sweep, grid_points, .init = open_all, .fini = close_all) {
    static const char *const axes[] = {"a=1,2", "b=x", "c=0.5,y z,-3"};
    static const char *const want[] = {"a=1,b=x,c=0.5", "a=1,b=x,c=y z", "a=1,b=x,c=-3",
                                       "a=2,b=x,c=0.5", "a=2,b=x,c=y z", "a=2,b=x,c=-3"};
    kith_arena arena = {0};
    kith_sweep_grid grid;
    cr_assert_eq(kith_sweep_grid_read(axes, 3, &arena, &grid), KITH_OK);
    cr_assert_eq(grid.point_count, 6);
    for (size_t i = 0; i < 6; i++) {
        kith_sweep_value *values;
        const char *text;
        cr_assert_eq(kith_sweep_grid_point(&grid, i, &arena, &values, &text), KITH_OK);
        cr_assert_str_eq(text, want[i]);
        cr_assert_str_eq(values[1].value, "x");
    }
    kith_arena_free(&arena);
}

/* Several axes in one text. */
Test(sweep, grid_texts_are_cut_at_names) {
    static const char *const axes[] = {"a=1,2,b=3", "c=4,5,6,d=7,e=8"};
    static const size_t counts[] = {2, 1, 3, 1, 1};
    kith_arena arena = {0};
    kith_sweep_grid grid;
    cr_assert_eq(kith_sweep_grid_read(axes, 2, &arena, &grid), KITH_OK);
    cr_assert_eq(grid.axis_count, 5);
    cr_assert_eq(grid.point_count, 6);
    for (size_t i = 0; i < 5; i++) {
        cr_assert_eq(grid.axes[i].name[0], "abcde"[i]);
        cr_assert_eq(grid.axes[i].value_count, counts[i]);
    }
    cr_assert_str_eq(grid.axes[2].values[2], "6");
    kith_arena_free(&arena);
}

/* Rates on the front, of points made by hand. */
Test(sweep, rates_at_a_recall) {
    const kith_sweep_point made[] = {
        {.recall = 0.5, .qps_1.median = 800, .qps_n.median = 900, .is_pareto_1 = 1, .is_pareto_n = 1},
        {.recall = 0.7, .qps_1.median = 1, .qps_n.median = 1},
        {.recall = 0.9, .qps_1.median = 200, .qps_n.median = 100, .is_pareto_1 = 1, .is_pareto_n = 1},
        {.recall = 0.95, .qps_1.median = 300, .qps_n.median = 50}, /* not on the front, whatever it says */
    };
    const kith_sweep_point *points[4];
    for (size_t i = 0; i < 4; i++) points[i] = &made[i];
    const kith_sweep sweep = {.point_count = 4, .points = points};
    cr_assert_eq(kith_sweep_qps_at(&sweep, 0.3, 0), 800);
    cr_assert_eq(kith_sweep_qps_at(&sweep, 0.5, 0), 800);
    cr_assert_float_eq(kith_sweep_qps_at(&sweep, 0.7, 0), 400, 1e-9); /* half way, log-linear */
    cr_assert_float_eq(kith_sweep_qps_at(&sweep, 0.7, 1), 300, 1e-9);
    cr_assert_eq(kith_sweep_qps_at(&sweep, 0.9, 1), 100);
    cr_assert(isnan(kith_sweep_qps_at(&sweep, 0.93, 0)));
}

static void expect(const char *const *grid, size_t grid_count, size_t k, kith_status want, const char *part) {
    kith_sweep_options options;
    kith_sweep *sweep = (kith_sweep *)&options;
    kith_sweep_options_init(&options);
    options.grid = grid, options.grid_count = grid_count, options.k = k;
    cr_assert_eq(kith_sweep_run(flat, &query_view, truth, &options, &sweep), want, "%s", kith_error_message());
    cr_assert_null(sweep);
    cr_assert(strstr(kith_error_message(), part) != NULL, "%s", kith_error_message());
}

#define EXPECT_GRID(want, part, ...)                                                                               \
    expect((const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), 10,    \
           want, part)

Test(sweep, refuses, .init = open_all, .fini = close_all) {
    EXPECT_GRID(KITH_ERR_ARGUMENT, "grid 'nprobe': expected name=value,value,...", "nprobe");
    EXPECT_GRID(KITH_ERR_ARGUMENT, "grid '=3': expected name=value,value,...", "=3");
    EXPECT_GRID(KITH_ERR_ARGUMENT, "grid 'max_distances=1,,3': value 2 is empty", "max_distances=1,,3");
    EXPECT_GRID(KITH_ERR_ARGUMENT, "grid 'max_distances=1,': value 2 is empty", "max_distances=1,");
    EXPECT_GRID(KITH_ERR_ARGUMENT, "grid 'max_distances=': value 1 is empty", "max_distances=");
    EXPECT_GRID(KITH_ERR_ARGUMENT, "max_distances stands twice", "max_distances=1", "max_distances=2");
    EXPECT_GRID(KITH_ERR_ARGUMENT, "max_distances stands twice", "max_distances=1,max_distances=2");
    EXPECT_GRID(KITH_ERR_ARGUMENT, "grid '=4': expected name=value,value,...", "max_distances=1,=4");
    EXPECT_GRID(KITH_ERR_ARGUMENT, "grid 'max_distances=': value 1 is empty", "a=1,max_distances=");
    EXPECT_GRID(KITH_ERR_ARGUMENT, "grid: NULL", NULL);
    EXPECT_GRID(KITH_ERR_ARGUMENT, "speed is measured on 1", "threads=1,2");
    EXPECT_GRID(KITH_ERR_NOT_FOUND, "no_such", "no_such=1");
    EXPECT_GRID(KITH_ERR_ARGUMENT, "max_distances", "max_distances=many");
    expect(NULL, 0, DEPTH + 1, KITH_ERR_ARGUMENT, "sweep: k = 21 is outside 1..20");
    expect(NULL, 0, 0, KITH_ERR_ARGUMENT, "sweep: k = 0 is outside 1..20");
    kith_sweep *sweep;
    kith_sweep_options options;
    kith_sweep_options_init(&options);
    options.repeats = 0;
    cr_assert_eq(kith_sweep_run(flat, &query_view, truth, &options, &sweep), KITH_ERR_ARGUMENT);
    kith_view fewer = query_view, narrow = query_view;
    fewer.count--, narrow.dim--;
    cr_assert_eq(kith_sweep_run(flat, &fewer, truth, NULL, &sweep), KITH_ERR_DIMENSION);
    cr_assert_eq(kith_sweep_run(flat, &narrow, truth, NULL, &sweep), KITH_ERR_DIMENSION);
    cr_assert_eq(kith_sweep_run(NULL, &query_view, truth, NULL, &sweep), KITH_ERR_ARGUMENT);
    cr_assert_null(sweep);
}

static int note_progress(void *user, const char *phase, uint64_t done, uint64_t total) {
    uint64_t *seen = user;
    cr_assert_str_eq(phase, "sweep");
    seen[0] = done, seen[1] = total;
    return seen[2] != 0;
}

Test(sweep, progress_and_cancelling, .init = open_all, .fini = close_all) {
    uint64_t seen[3] = {0, 0, 0};
    kith_sweep_options options;
    kith_sweep *sweep;
    kith_sweep_options_init(&options);
    options.progress = note_progress, options.progress_user = seen, options.threads = 1;
    cr_assert_eq(kith_sweep_run(flat, &query_view, truth, &options, &sweep), KITH_OK);
    cr_assert_eq(seen[0], 7); /* a warm-up, three batches, three rounds of single queries */
    cr_assert_eq(seen[1], 7);
    kith_sweep_free(sweep);
    seen[2] = 1;
    cr_assert_eq(kith_sweep_run(flat, &query_view, truth, &options, &sweep), KITH_ERR_CANCELLED);
    cr_assert_null(sweep);
}

Test(sweep, every_allocation_may_fail, .init = open_all, .fini = close_all) {
    static const char *const grid[] = {"max_distances=50,0"};
    kith_sweep_options options;
    kith_status status = KITH_ERR_NO_MEMORY;
    uint64_t live = 0;
    close_all(); /* the allocator is put in place before anything is live */
    faults_fail_allocation(0);
    open_all();
    live = kith_memory_live_blocks();
    kith_sweep_options_init(&options);
    options.grid = grid, options.grid_count = 1, options.repeats = 1, options.threads = 2;
    options.latency_queries = 2;
    for (size_t n = 1; status != KITH_OK; n++) {
        kith_sweep *sweep;
        faults_fail_allocation(n);
        status = kith_sweep_run(flat, &query_view, truth, &options, &sweep);
        cr_assert(status == KITH_OK ? sweep->points[1]->recall == 1.0 : sweep == NULL);
        cr_assert(status == KITH_OK || status == KITH_ERR_NO_MEMORY, "%s", kith_error_message());
        kith_sweep_free(sweep);
        cr_assert_eq(kith_memory_live_blocks(), live);
        cr_assert_lt(n, 1000);
    }
    faults_fail_allocation(0);
}
