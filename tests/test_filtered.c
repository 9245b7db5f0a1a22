/* SPDX-License-Identifier: Apache-2.0
 *
 * test_filtered.c: graphs and inverted lists under filters that allow half of the vectors to none of them, chosen at random or the
 * ones around a point, told as bits, as what cannot be listed, and as callbacks.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "faults.h"
#include "hnsw/hnsw_inside.h"
#include "index_fixture.h"
#include "memory_faults.h"

#define OK(call) cr_assert_eq((call), KITH_OK, "%s: %s", #call, kith_error_message())

enum { NB = 8000, NQ = 60, DIM = 16, K = 10 };

/* Near a surface of six dimensions. */
static float *surface(size_t count, uint64_t stream) {
    enum { LATENT = 6 };
    float *values = malloc(count * DIM * sizeof *values);
    for (size_t i = 0; i < count; i++)
        for (size_t d = 0; d < DIM; d++) {
            double sum = 0;
            for (size_t l = 0; l < LATENT; l++)
                sum += (double)kith_random_normal(stream, 1, i * LATENT + l) *
                       (double)kith_random_f32(11, 2, d * LATENT + l);
            values[i * DIM + d] = (float)sin(sum * (2 * (double)kith_random_f32(11, 3, d) + 0.1));
        }
    return values;
}

typedef struct scene {
    float *base, *queries;
    kith_index *index, *exact;
    kith_view query_view;
    int64_t first_id, id_step; /* of vector i: first_id + i * id_step */
} scene;

static scene scene_make(const char *spec, kith_metric metric, int64_t id_step) {
    scene s = {.base = surface(NB, 1), .queries = surface(NQ, 2), .first_id = 5, .id_step = id_step};
    int64_t *ids = malloc(NB * sizeof *ids);
    for (size_t i = 0; i < NB; i++) ids[i] = s.first_id + (int64_t)i * id_step;
    kith_view view = {s.base, KITH_F32, NB, DIM, 0};
    s.query_view = (kith_view){s.queries, KITH_F32, NQ, DIM, 0};
    kith_job job;
    kith_job_init(&job);
    job.threads = 2;
    OK(kith_index_create(spec, DIM, metric, &s.index));
    OK(kith_index_create("Flat", DIM, metric, &s.exact));
    OK(kith_index_train(s.index, &view, &job));
    OK(kith_index_add(s.exact, &view, ids, &job));
    for (size_t first = 0; first < NB; first += NB / 4) { /* inverted lists of several segments */
        view = (kith_view){s.base + first * DIM, KITH_F32, NB / 4, DIM, 0};
        OK(kith_index_add(s.index, &view, ids + first, &job));
    }
    free(ids);
    return s;
}

static void scene_free(scene *s) {
    kith_index_free(s->index);
    kith_index_free(s->exact);
    free(s->base);
    free(s->queries);
}

/* ---- Filters ---------------------------------------------------------------------------------------------- */

/* Which vectors are allowed: a table, so that every kind of filter says the same. */
typedef struct table {
    const scene *scene;
    bool allowed[NB];
    size_t count;
    _Atomic size_t asked;
} table;

static int compare_f64(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* `count` vectors drawn at random, or the ones nearest to vector 17. */
static void table_fill(table *t, const scene *s, size_t count, bool is_clustered) {
    static double distances[NB], sorted[NB];
    memset(t, 0, sizeof *t);
    t->scene = s;
    for (size_t i = 0; i < NB; i++) {
        distances[i] = (double)kith_random_u64(3, 4, i);
        if (is_clustered)
            distances[i] = fixture_value(KITH_L2, s->base + 17 * DIM, s->base + i * DIM, DIM) + 1e-9 * (double)i;
    }
    memcpy(sorted, distances, sizeof sorted);
    qsort(sorted, NB, sizeof *sorted, compare_f64);
    for (size_t i = 0; i < NB && count > 0; i++) t->allowed[i] = distances[i] <= sorted[count - 1];
    for (size_t i = 0; i < NB; i++) t->count += t->allowed[i];
    cr_assert_eq(t->count, count);
}

static int ask(void *user, int64_t id) {
    table *t = user;
    atomic_fetch_add(&t->asked, 1);
    return t->allowed[(id - t->scene->first_id) / t->scene->id_step];
}

typedef enum filter_form { BITS, NOT_NOT_BITS, CALLBACK, FORMS } filter_form;

static kith_filter *table_filter(table *t, filter_form form) {
    static int64_t ids[NB];
    size_t count = 0;
    kith_filter *filter, *inner;
    for (size_t i = 0; i < NB; i++)
        if (t->allowed[i]) ids[count++] = t->scene->first_id + (int64_t)i * t->scene->id_step;
    if (form == CALLBACK) {
        OK(kith_filter_callback(ask, t, &filter));
        return filter;
    }
    OK(kith_filter_ids(ids, count, &filter));
    for (size_t i = 0; form == NOT_NOT_BITS && i < 2; i++) {
        inner = filter;
        OK(kith_filter_not(inner, &filter));
        kith_filter_free(inner);
    }
    return filter;
}

/* ---- Recall ----------------------------------------------------------------------------------------------- */

typedef struct results {
    int64_t ids[NQ * K];
    float distances[NQ * K];
    size_t counts[NQ];
} results;

static void search(const kith_index *index, const kith_view *view, const kith_search_params *params, results *out) {
    OK(kith_index_search(index, view, K, params, out->ids, out->distances, out->counts));
}

static double recall(const results *truth, const results *got) {
    size_t found = 0, all = 0;
    for (size_t q = 0; q < NQ; q++) {
        cr_assert_eq(got->counts[q], truth->counts[q], "query %zu: %zu of %zu", q, got->counts[q],
                     truth->counts[q]);
        all += truth->counts[q];
        for (size_t i = 0; i < got->counts[q]; i++)
            for (size_t j = 0; j < truth->counts[q]; j++) found += got->ids[q * K + i] == truth->ids[q * K + j];
    }
    return all > 0 ? (double)found / (double)all : 1;
}

static void check_only_allowed(const table *t, const results *got) {
    for (size_t q = 0; q < NQ; q++)
        for (size_t i = 0; i < K; i++) {
            int64_t id = got->ids[q * K + i];
            if (i >= got->counts[q])
                cr_assert_eq(id, KITH_NO_ID);
            else
                cr_assert(t->allowed[(id - t->scene->first_id) / t->scene->id_step], "id %lld", (long long)id);
        }
}

/* ef is small, so that a fifth is still walked over: what is searched one and all is exact anyway. */
static void check_recall(const char *spec, kith_metric metric, int64_t id_step, double at_least) {
    static const size_t counts[] = {NB, NB / 2, NB / 5, NB / 10, NB / 100, 11, 10, 9, 1, 0};
    static table t;
    static results truth, got;
    scene s = scene_make(spec, metric, id_step);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (size_t clustered = 0; clustered < 2; clustered++) {
            table_fill(&t, &s, counts[c], clustered == 1);
            for (filter_form f = 0; f < FORMS; f++) {
                kith_search_params params;
                kith_search_params_init(&params);
                kith_filter *filter = table_filter(&t, f);
                params.filter = filter;
                params.threads = 2;
                search(s.exact, &s.query_view, &params, &truth);
                params.ef = 16;
                params.nprobe = 8;
                search(s.index, &s.query_view, &params, &got);
                check_only_allowed(&t, &got);
                double share = recall(&truth, &got);
                cr_assert_geq(share, at_least, "%s: %zu allowed, %s, form %d: recall %g", spec, counts[c],
                              clustered ? "clustered" : "random", (int)f, share);
                kith_filter_free(filter);
            }
        }
    scene_free(&s);
}

Test(filtered, recall_graph_l2) { check_recall("HNSW16", KITH_L2, 1, 0.95); }
Test(filtered, recall_graph_cosine_ids_of_their_own) { check_recall("HNSW16,f16", KITH_COSINE, 3, 0.95); }
Test(filtered, recall_graph_codes_refined) { check_recall("HNSW16,SQ8,RFlat", KITH_L2, 1, 0.95); }
Test(filtered, recall_lists_raw) { check_recall("IVF80,Flat", KITH_L2, 1, 0.95); }
Test(filtered, recall_lists_codes) { check_recall("IVF80,SQ8", KITH_IP, 1, 0.9); }
Test(filtered, recall_lists_residuals_refined) { check_recall("IVF80,PQ8x4fs,RFlat", KITH_COSINE, 2, 0.9); }
Test(filtered, recall_lists_found_by_a_graph) { check_recall("IVF80_HNSW8,SQ8", KITH_L2, 1, 0.9); }
Test(filtered, recall_lists_of_two_copies) { check_recall("IVF80s,SQ8", KITH_L2, 1, 0.9); }
Test(filtered, recall_codes_without_lists) { check_recall("SQ8", KITH_L2, 1, 0.9); }

/* ---- One query, many, threads, files ------------------------------------------------------------------------ */

Test(filtered, a_query_alone_is_as_in_a_batch) {
    static const char *const specs[] = {"HNSW12", "HNSW12", "IVF64,SQ8", "IVF64,Flat"};
    static table t;
    static results batch, alone;
    for (size_t i = 0; i < 4; i++) {
        scene s = scene_make(specs[i], KITH_L2, 1 + (int64_t)i % 2);
        for (size_t c = 0; c < 4; c++) {
            table_fill(&t, &s, c < 2 ? NB / 2 : NB / 6, c % 2 == 1);
            for (filter_form f = 0; f < FORMS; f++) {
                kith_search_params params;
                kith_search_params_init(&params);
                kith_filter *filter = table_filter(&t, f);
                params.filter = filter;
                params.threads = 4;
                params.ef = 12;
                search(s.index, &s.query_view, &params, &batch);
                params.threads = 1;
                for (size_t q = 0; q < NQ; q += 7) {
                    kith_view one = {s.queries + q * DIM, KITH_F32, 1, DIM, 0};
                    search(s.index, &one, &params, &alone);
                    cr_assert_eq(memcmp(alone.ids, batch.ids + q * K, K * sizeof *alone.ids), 0);
                    cr_assert_eq(memcmp(alone.distances, batch.distances + q * K, K * sizeof(float)), 0);
                }
                kith_filter_free(filter);
            }
        }
        scene_free(&s);
    }
}

/* Few allowed vectors of raw lists are compared, one and all, whatever the lists; a bound on distances holds. */
Test(filtered, few_in_raw_lists_are_all_seen) {
    static table t;
    static results truth, got;
    static kith_search_report reports[NQ];
    scene s = scene_make("IVF256,Flat", KITH_L2, 3);
    for (size_t clustered = 0; clustered < 2; clustered++) {
        table_fill(&t, &s, 40, clustered == 1);
        kith_filter *filter = table_filter(&t, BITS);
        kith_search_params params;
        kith_search_params_init(&params);
        params.filter = filter;
        search(s.exact, &s.query_view, &params, &truth);
        params.reports = reports;
        search(s.index, &s.query_view, &params, &got);
        cr_assert_eq(memcmp(got.ids, truth.ids, sizeof got.ids), 0);
        for (size_t q = 0; q < NQ; q++) {
            cr_assert_eq(reports[q].strategy, KITH_STRATEGY_LISTED);
            cr_assert(reports[q].distances == 40 && reports[q].lists == 0 && reports[q].limits == 0);
        }
        params.max_distances = 7;
        search(s.index, &s.query_view, &params, &got);
        for (size_t q = 0; q < NQ; q++) {
            cr_assert(got.counts[q] == 7 && reports[q].distances == 7);
            cr_assert_eq(reports[q].limits, KITH_LIMIT_DISTANCES);
        }
        params.max_distances = 0;
        params.reports = NULL;
        kith_range_result *within;
        OK(kith_index_range_search(s.index, &s.query_view, 1e9f, &params, &within));
        cr_assert_eq(within->limits[NQ], NQ * 40);
        kith_range_result_free(within);
        kith_filter_free(filter);
    }
    scene_free(&s);
}

Test(filtered, mapped_files_and_range_searches) {
    static table t;
    scene s = scene_make("HNSW16", KITH_L2, 2);
    const char *folder = faults_folder(), *path = faults_path(folder, "x.kith");
    kith_index *mapped;
    OK(kith_index_save(s.index, path));
    OK(kith_index_map(path, &mapped));
    for (size_t c = 0; c < 4; c++) {
        table_fill(&t, &s, c < 2 ? NB / 2 : NB / 8, c % 2 == 1);
        for (filter_form f = 0; f < FORMS; f++) {
            kith_filter *filter = table_filter(&t, f);
            kith_search_params params;
            kith_search_params_init(&params);
            params.filter = filter;
            params.ef = 20;
            kith_range_result *truth, *got, *from_file;
            OK(kith_index_range_search(s.exact, &s.query_view, 1.5f, &params, &truth));
            OK(kith_index_range_search(s.index, &s.query_view, 1.5f, &params, &got));
            OK(kith_index_range_search(mapped, &s.query_view, 1.5f, &params, &from_file));
            size_t all = truth->limits[NQ], found = got->limits[NQ];
            cr_assert_gt(all, 100);
            cr_assert_leq(found, all);
            cr_assert_geq((double)found, 0.97 * (double)all, "%zu of %zu", found, all);
            cr_assert_eq(memcmp(got->limits, from_file->limits, (NQ + 1) * sizeof *got->limits), 0);
            cr_assert_eq(memcmp(got->ids, from_file->ids, found * sizeof *got->ids), 0);
            for (size_t i = 0; i < found; i++) cr_assert(t.allowed[(got->ids[i] - 5) / 2]);
            kith_range_result_free(truth);
            kith_range_result_free(got);
            kith_range_result_free(from_file);
            kith_filter_free(filter);
        }
    }
    kith_index_free(mapped);
    faults_folder_remove(folder);
    scene_free(&s);
}

/* ---- Work and bounds ---------------------------------------------------------------------------------------- */

Test(filtered, a_callback_is_asked_little_where_much_is_allowed) {
    static table t;
    static results got;
    scene s = scene_make("HNSW16", KITH_L2, 1);
    table_fill(&t, &s, NB - NB / 4, false);
    kith_filter *filter = table_filter(&t, CALLBACK);
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = filter;
    params.ef = 16;
    kith_view one = {s.queries, KITH_F32, 1, DIM, 0};
    search(s.index, &one, &params, &got);
    cr_assert_lt(t.asked, NB / 4);
    t.asked = 0;
    table_fill(&t, &s, NB / 50, false); /* each id once, and a sample beforehand */
    search(s.index, &s.query_view, &params, &got);
    cr_assert_leq(t.asked, NB + 1024);
    kith_filter_free(filter);
    scene_free(&s);
}

/* What the first query of a search for the nearest reports. */
static kith_search_report report_of(const scene *s, const table *t, size_t ef) {
    static results got;
    static kith_search_report reports[NQ];
    static table copy;
    copy = *t;
    kith_filter *filter = table_filter(&copy, BITS);
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = filter;
    params.ef = ef;
    params.reports = reports;
    search(s->index, &s->query_view, &params, &got);
    check_only_allowed(t, &got);
    kith_filter_free(filter);
    return reports[0];
}

Test(filtered, more_ef_and_fewer_allowed_make_a_look_at_all_the_shorter_way) {
    static const struct {
        size_t allowed, ef;
        uint32_t strategy;
    } cases[] = {
        {NB / 2, 10, KITH_STRATEGY_BRIDGED}, {NB / 5, 10, KITH_STRATEGY_BRIDGED},
        {NB / 20, 10, KITH_STRATEGY_LISTED}, {NB / 5, 100, KITH_STRATEGY_LISTED},
        {NB / 2, 40, KITH_STRATEGY_BRIDGED}, {NB / 2, 100, KITH_STRATEGY_LISTED},
        {NB / 100, 1, KITH_STRATEGY_LISTED}, /* so few are always listed */
    };
    static table t;
    scene s = scene_make("HNSW16", KITH_L2, 1);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        table_fill(&t, &s, cases[c].allowed, false);
        kith_search_report report = report_of(&s, &t, cases[c].ef);
        cr_assert_eq(report.strategy, cases[c].strategy, "%zu allowed, ef %zu: strategy %u", cases[c].allowed,
                     cases[c].ef, report.strategy);
        if (report.strategy == KITH_STRATEGY_LISTED) cr_assert_eq(report.distances, cases[c].allowed);
    }
    scene_free(&s);
}

Test(filtered, a_query_far_from_what_is_allowed_looks_at_all_of_it) {
    static table t;
    static results got, truth;
    static kith_search_report reports[NQ];
    scene s = scene_make("HNSW16", KITH_L2, 1);
    table_fill(&t, &s, NB / 5, true);
    kith_filter *filter = table_filter(&t, BITS);
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = filter;
    search(s.exact, &s.query_view, &params, &truth);
    params.ef = 10; /* by itself a bridged walk */
    params.reports = reports;
    search(s.index, &s.query_view, &params, &got);
    check_only_allowed(&t, &got);
    size_t looked = 0;
    for (size_t q = 0; q < NQ; q++) {
        bool is_listed = reports[q].strategy == KITH_STRATEGY_LISTED;
        looked += is_listed;
        cr_assert(is_listed || reports[q].strategy == KITH_STRATEGY_BRIDGED);
        cr_assert_eq(is_listed, reports[q].distances >= NB / 5, "query %zu", q);
        for (size_t i = 0; is_listed && i < K; i++) cr_assert_eq(got.ids[q * K + i], truth.ids[q * K + i]);
        cr_assert_eq(reports[q].limits, 0);
    }
    cr_assert_gt(looked, NQ / 4);
    cr_assert_lt(looked, NQ);
    kith_filter_free(filter);
    scene_free(&s);
}

Test(filtered, few_links_leave_room_for_all_seeds) {
    /* Rows of four links: a walk begins with more nodes than it ever meets in a hop. */
    static table t;
    static results batch, one;
    scene s = scene_make("HNSW2", KITH_L2, 1);
    table_fill(&t, &s, NB / 2, true);
    kith_filter *filter = table_filter(&t, BITS);
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = filter;
    params.ef = 10;
    search(s.index, &s.query_view, &params, &batch);
    check_only_allowed(&t, &batch);
    for (size_t q = 0; q < NQ; q++) {
        kith_view view = {s.queries + q * DIM, KITH_F32, 1, DIM, 0};
        search(s.index, &view, &params, &one);
        cr_assert_eq(batch.counts[q], K);
        cr_assert_arr_eq(one.ids, batch.ids + q * K, K * sizeof *one.ids, "query %zu", q);
        cr_assert_arr_eq(one.distances, batch.distances + q * K, K * sizeof *one.distances, "query %zu", q);
    }
    kith_filter_free(filter);
    scene_free(&s);
}

Test(filtered, the_default_ef_grows_as_fewer_are_allowed) {
    static table t;
    scene s = scene_make("HNSW16", KITH_L2, 1);
    table_fill(&t, &s, NB / 4 * 3, false); /* halfway to 15% more */
    kith_search_report own = report_of(&s, &t, 0), same = report_of(&s, &t, 68), plain = report_of(&s, &t, 64);
    cr_assert_eq(own.strategy, KITH_STRATEGY_BRIDGED);
    cr_assert_eq(own.hops, same.hops);
    cr_assert_eq(own.distances, same.distances);
    cr_assert_gt(own.hops, plain.hops);
    table_fill(&t, &s, NB, false);
    own = report_of(&s, &t, 0);
    plain = report_of(&s, &t, 64);
    cr_assert_eq(own.hops, plain.hops);
    scene_free(&s);
}

Test(filtered, the_bound_on_distances_holds) {
    static table t;
    static results got;
    scene s = scene_make("HNSW16", KITH_L2, 1);
    for (size_t count = 100; count <= NB / 2; count *= 8)
        for (filter_form f = 0; f < FORMS; f++) {
            table_fill(&t, &s, count, false);
            kith_filter *filter = table_filter(&t, f);
            kith_search_params params;
            kith_search_params_init(&params);
            params.filter = filter;
            params.ef = 10;
            params.max_distances = 4;
            search(s.index, &s.query_view, &params, &got);
            for (size_t q = 0; q < NQ; q++) cr_assert_leq(got.counts[q], 4);
            check_only_allowed(&t, &got);
            kith_filter_free(filter);
        }
    scene_free(&s);
}

/* However short a walk, as many come back as it has compared, with a filter and without. */
Test(filtered, a_bound_that_ends_at_the_seeds_leaves_a_full_row) {
    static table t;
    static results got;
    scene s = scene_make("HNSW16", KITH_L2, 1);
    table_fill(&t, &s, NB / 2, false);
    kith_filter *filter = table_filter(&t, BITS);
    for (size_t is_filtered = 0; is_filtered < 2; is_filtered++)
        for (uint64_t bound = K; bound <= 130; bound += 20) {
            kith_search_params params;
            kith_search_params_init(&params);
            params.filter = is_filtered == 1 ? filter : NULL;
            params.ef = K;
            params.max_distances = bound;
            search(s.index, &s.query_view, &params, &got);
            for (size_t q = 0; q < NQ; q++)
                cr_assert_eq(got.counts[q], K, "at most %zu distances: %zu results", (size_t)bound, got.counts[q]);
        }
    kith_filter_free(filter);
    scene_free(&s);
}

/* Passes over a query under a callback share its bound. A wide one is none; where a later pass might not get through,
 * what was found stays, and the report says so. */
Test(filtered, a_bound_is_shared_by_all_passes) {
    enum { MANY = 400 };
    static table t;
    static int64_t free_ids[NQ * MANY], ids[NQ * MANY];
    static kith_search_report reports[NQ];
    size_t counts[NQ], again = 0, cut = 0;
    scene s = scene_make("HNSW16", KITH_L2, 1);
    table_fill(&t, &s, NB / 2, false);
    kith_filter *filter = table_filter(&t, CALLBACK);
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = filter;
    params.ef = 16; /* the first walk keeps room for fewer than MANY */
    params.reports = reports;
    params.threads = 2;
    OK(kith_index_search(s.index, &s.query_view, MANY, &params, free_ids, NULL, counts));
    params.max_distances = 1000000000;
    OK(kith_index_search(s.index, &s.query_view, MANY, &params, ids, NULL, counts));
    cr_assert_arr_eq(ids, free_ids, sizeof ids);
    for (size_t q = 0; q < NQ; q++) {
        again += reports[q].strategy != KITH_STRATEGY_ASKED;
        cr_assert_eq(reports[q].limits, 0);
        cr_assert_eq(counts[q], MANY);
    }
    cr_assert_gt(again, 0);
    for (uint64_t bound = 600; bound <= 16200; bound += 1200) {
        params.max_distances = bound;
        OK(kith_index_search(s.index, &s.query_view, MANY, &params, ids, NULL, counts));
        for (size_t q = 0; q < NQ; q++) {
            cr_assert_leq(reports[q].distances, bound, "query %zu: %zu of %zu", q, (size_t)reports[q].distances,
                          (size_t)bound);
            cr_assert(counts[q] == MANY || reports[q].limits == KITH_LIMIT_DISTANCES, "query %zu has %zu", q,
                      counts[q]);
            cut += reports[q].limits != 0;
        }
    }
    cr_assert_gt(cut, 0);
    kith_filter_free(filter);
    scene_free(&s);
}

/* A ring of groups far from each other, of which single members are allowed: two steps seldom lead from one to the
 * next. */
enum { GROUPS = 100, EACH = 60, ISLANDS = GROUPS * EACH };

typedef struct islands {
    float *values;
    kith_index *index, *exact;
    kith_filter *filter; /* a tenth */
} islands;

static islands islands_make(void) {
    islands all = {.values = malloc(ISLANDS * 2 * sizeof *all.values)};
    int64_t allowed[ISLANDS / 10];
    for (size_t i = 0; i < ISLANDS; i++) {
        double angle = 6.283185307 * (double)(i / EACH) / GROUPS;
        all.values[2 * i] = (float)(1e4 * cos(angle)) + kith_random_normal(8, 0, i);
        all.values[2 * i + 1] = (float)(1e4 * sin(angle)) + kith_random_normal(8, 1, i);
    }
    for (size_t i = 0; i < ISLANDS / 10; i++) allowed[i] = (int64_t)(10 * i);
    kith_view view = {all.values, KITH_F32, ISLANDS, 2, 0};
    OK(kith_index_create("HNSW8", 2, KITH_L2, &all.index));
    OK(kith_index_create("Flat", 2, KITH_L2, &all.exact));
    OK(kith_index_add(all.index, &view, NULL, NULL));
    OK(kith_index_add(all.exact, &view, NULL, NULL));
    OK(kith_filter_ids(allowed, ISLANDS / 10, &all.filter));
    return all;
}

static void islands_free(islands *all) {
    kith_filter_free(all->filter);
    kith_index_free(all->index);
    kith_index_free(all->exact);
    free(all->values);
}

Test(filtered, islands_that_no_walk_joins_are_all_seen) {
    islands all = islands_make();
    kith_search_report report;
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = all.filter;
    params.ef = 2; /* more, and all would be listed at once */
    params.reports = &report;
    size_t left = 0;
    for (size_t q = 0; q < GROUPS; q++) {
        kith_view one = {all.values + 2 * (q * EACH + 1), KITH_F32, 1, 2, 0};
        int64_t ids[K], truth[K];
        OK(kith_index_search(all.exact, &one, K, &params, truth, NULL, NULL));
        OK(kith_index_search(all.index, &one, K, &params, ids, NULL, NULL)); /* a short row would be an error */
        if (report.strategy != KITH_STRATEGY_LISTED) continue;
        left++;
        cr_assert_gt(report.distances, ISLANDS / 10); /* after a walk */
        cr_assert_arr_eq(ids, truth, sizeof ids, "query %zu", q);
    }
    cr_assert_gt(left, 0);
    islands_free(&all);
}

Test(filtered, a_bound_too_short_for_a_look_at_all_keeps_what_the_walk_found) {
    enum { MANY = 20, BOUND = 300 };
    islands all = islands_make();
    kith_search_report report;
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = all.filter;
    params.ef = 2;
    params.reports = &report;
    size_t same = 0, cut = 0, looked = 0;
    for (size_t q = 0; q < GROUPS; q++) {
        kith_view one = {all.values + 2 * (q * EACH + 1), KITH_F32, 1, 2, 0};
        int64_t ids[MANY], truth[MANY];
        size_t count, full;
        OK(kith_index_search(all.exact, &one, MANY, &params, truth, NULL, &full));
        params.max_distances = BOUND;
        OK(kith_index_search(all.index, &one, MANY, &params, ids, NULL, &count));
        cr_assert_leq(report.distances, BOUND);
        cr_assert_eq(report.strategy, KITH_STRATEGY_BRIDGED);
        cr_assert(count == full || report.limits == KITH_LIMIT_DISTANCES, "query %zu has %zu", q, count);
        cut += report.limits != 0;
        for (size_t i = 0; i < 6 && i < count; i++) same += ids[i] == truth[i]; /* those of its own group */
        params.max_distances = 2 * ISLANDS;                                     /* enough */
        OK(kith_index_search(all.index, &one, MANY, &params, ids, NULL, &count));
        looked += report.strategy == KITH_STRATEGY_LISTED;
        cr_assert(count == full && report.limits == 0);
        params.max_distances = 0;
    }
    cr_assert(cut > 0 && looked > 0, "%zu cut, %zu looked at all", cut, looked);
    cr_assert_geq(same, 6 * GROUPS * 75 / 100, "%zu of %d", same, 6 * GROUPS);
    islands_free(&all);
}

Test(filtered, failing_memory_loses_nothing) {
    memory_faults_install();
    static table t;
    scene s = scene_make("HNSW8", KITH_L2, 1);
    for (filter_form f = 0; f < FORMS; f++) {
        table_fill(&t, &s, NB / 4, true);
        kith_filter *filter = table_filter(&t, f);
        kith_search_params params;
        kith_search_params_init(&params);
        params.filter = filter;
        params.ef = 10;
        int64_t ids[2 * K];
        kith_view two = {s.queries, KITH_F32, 2, DIM, 0};
        kith_status status;
        MEMORY_FAULTS_EACH(status, kith_index_search(s.index, &two, K, &params, ids, NULL, NULL)) {
            cr_assert_eq(status, KITH_ERR_NO_MEMORY);
            cr_assert_eq(ids[0], KITH_NO_ID);
        }
        cr_assert_eq(status, KITH_OK);
        kith_filter_free(filter);
    }
    scene_free(&s);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
