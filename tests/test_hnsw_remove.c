/* SPDX-License-Identifier: Apache-2.0
 *
 * Removing from a graph, and updating: what is gone is never seen again, what lives is always found.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "faults.h"
#include "hnsw_fixture.h"
#include "index_fixture.h"
#include "memory_faults.h"

/* ---- What the tests share --------------------------------------------------------------------------------- */

static size_t removed_of(kith_index *index, const int64_t *ids, size_t count) {
    size_t removed;
    OK(kith_index_remove(index, ids, count, &removed));
    return removed;
}

/* The vectors first, first + step, ... of `count`, under their numbers as ids. */
static kith_index *fresh_build(const char *spec, const float *base, const int64_t *ids, size_t count, size_t dim,
                               kith_metric metric) {
    float *values = malloc(count * dim * sizeof *values);
    for (size_t i = 0; i < count; i++) memcpy(values + i * dim, base + (size_t)ids[i] * dim, dim * sizeof *values);
    kith_index *index = created(spec, dim, metric);
    kith_view view = view_of(values, count, dim);
    OK(kith_index_add(index, &view, ids, NULL));
    free(values);
    return index;
}

/* Which of 0 .. count - 1 live; drawn in order. */
typedef struct census {
    size_t count, live_count;
    bool *lives;
    int64_t *live;
} census;

static census census_make(size_t count) {
    census all = {count, count, malloc(count), malloc(count * sizeof *all.live)};
    memset(all.lives, 1, count);
    for (size_t i = 0; i < count; i++) all.live[i] = (int64_t)i;
    return all;
}

static void census_free(census *all) {
    free(all->lives);
    free(all->live);
}

static void census_list(census *all) {
    all->live_count = 0;
    for (size_t i = 0; i < all->count; i++)
        if (all->lives[i]) all->live[all->live_count++] = (int64_t)i;
}

/* Removes vectors drawn at random until `left` live. */
static void remove_down_to(kith_index *index, census *all, size_t left, uint64_t stream) {
    size_t count = all->live_count - left;
    uint32_t *order = malloc(all->live_count * sizeof *order);
    int64_t *ids = malloc(count * sizeof *ids);
    kith_random_permutation(stream, 1, all->live_count, order);
    for (size_t i = 0; i < count; i++) all->lives[ids[i] = all->live[order[i]]] = false;
    cr_assert_eq(removed_of(index, ids, count), count);
    cr_assert_eq(kith_index_count(index), left);
    census_list(all);
    free(order);
    free(ids);
}

/* Recall in hits of a fresh build over the live ones, and of the index. All results live. */
static void compare_recall(const char *spec, const kith_index *index, const census *all, const float *base,
                           const float *queries, size_t query_count, size_t dim, size_t k, size_t ef,
                           size_t found[2]) {
    kith_metric metric = kith_index_metric(index);
    kith_index *indexes[2] = {fresh_build(spec, base, all->live, all->live_count, dim, metric), NULL};
    kith_index *flat = fresh_build("Flat", base, all->live, all->live_count, dim, metric);
    int64_t *truth = malloc(query_count * k * sizeof *truth), *ids = malloc(query_count * k * sizeof *ids);
    kith_view view = view_of(queries, query_count, dim);
    OK(kith_index_search(flat, &view, k, NULL, truth, NULL, NULL));
    kith_search_params params;
    kith_search_params_init(&params);
    params.ef = ef;
    for (size_t i = 0; i < 2; i++) {
        OK(kith_index_search(i == 0 ? indexes[0] : index, &view, k, &params, ids, NULL, NULL));
        for (size_t r = 0; r < query_count * k; r++) cr_assert(all->lives[ids[r]], "id %lld", (long long)ids[r]);
        found[i] = shared(ids, truth, query_count, k);
    }
    free(truth);
    free(ids);
    kith_index_free(flat);
    kith_index_free(indexes[0]);
}

/* ---- Against a model -------------------------------------------------------------------------------------- */

/* Removals, updates and additions of small graphs, whose searches with a large ef are exact. */
static void check_changes(kith_dtype dtype, kith_metric metric, uint64_t stream) {
    enum { DIM = 6, ALL = 400, STEPS = 60 };
    char spec[32];
    snprintf(spec, sizeof spec, "HNSW6,%s", kith_dtype_name(dtype));
    fixture_vectors vectors = fixture_vectors_make(dtype, ALL, DIM, stream);
    fixture_vectors queries = fixture_vectors_make(KITH_F32, 5, DIM, stream + 1);
    fixture_model model;
    fixture_model_init(&model, DIM);
    kith_index *index = created(spec, DIM, metric);
    kith_search_params params;
    kith_search_params_init(&params);
    params.ef = ALL;
    size_t next_row = 0;
    for (uint64_t step = 0; step < STEPS; step++) {
        uint64_t action = kith_random_below(stream, 1, step, 3);
        size_t wanted = 1 + (size_t)kith_random_below(stream, 2, step, step % 5 == 0 ? 40 : 6), count = 0;
        int64_t ids[40];
        kith_view view = fixture_view(&vectors, next_row, wanted);
        if (next_row + wanted > ALL) break;
        for (size_t i = 0; i < wanted; i++) { /* distinct: those that are there, or that are not */
            int64_t id = (int64_t)kith_random_below(stream, 3, step * 64 + i, 150);
            bool is_there = fixture_model_find(&model, id) != NULL, is_twice = false;
            for (size_t j = 0; j < count; j++) is_twice |= ids[j] == id;
            if (!is_twice && (action == 1 || is_there == (action == 2))) ids[count++] = id;
        }
        view.count = count;
        if (count == 0) continue;
        if (action == 1) {
            size_t gone = 0;
            for (size_t i = 0; i < count; i++) gone += fixture_model_remove(&model, ids[i]);
            cr_assert_eq(removed_of(index, ids, count), gone);
        } else {
            if (action == 0)
                OK(kith_index_add(index, &view, ids, NULL));
            else
                OK(kith_index_update(index, &view, ids));
            for (size_t i = 0; i < count; i++)
                fixture_model_put(&model, ids[i], vectors.values + (next_row + i) * DIM);
            next_row += count;
        }
        cr_assert_eq(kith_index_count(index), model.count);
        if (model.count == 0) continue;
        cr_assert_eq(reachable(index), kith_hnsw_of(index)->node_count);
        fixture_check_search(index, &model, &queries, model.count < 4 ? model.count : 4, &params, NULL);
        fixture_check_search(index, &model, &queries, model.count, NULL, NULL);
        fixture_check_content(index, &model);
    }
    cr_assert_gt(next_row, 50);
    fixture_model_free(&model);
    fixture_vectors_free(&queries);
    fixture_vectors_free(&vectors);
    kith_index_free(index);
}

Test(hnsw_remove, changes_follow_a_model) {
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++) check_changes(fixture_types[t], fixture_metrics[m], 100 + 10 * t + m);
}

Test(hnsw_remove, unknown_and_repeated_ids) {
    enum { NB = 100, DIM = 4 };
    float *base = surface(NB, DIM, 71);
    kith_index *index = created("HNSW8", DIM, KITH_L2);
    int64_t some[] = {7, 500, 7, 3, -1, 7}, id;
    cr_assert_eq(removed_of(index, some, 6), 0);
    add_on(index, base, NB, 1);
    cr_assert_eq(removed_of(index, some, 6), 2);
    cr_assert_eq(removed_of(index, some, 6), 0);
    cr_assert_eq(index->count, NB - 2);
    kith_view view = view_of(base + 7 * DIM, 1, DIM);
    OK(kith_index_search(index, &view, 1, NULL, &id, NULL, NULL));
    cr_assert_neq(id, 7);
    float back[DIM];
    id = 7;
    cr_assert_eq(kith_index_reconstruct(index, &id, 1, back), KITH_ERR_NOT_FOUND);
    cr_assert_eq(kith_index_update(index, &view, &id), KITH_ERR_NOT_FOUND);
    OK(kith_index_add(index, &view, &id, NULL)); /* it may come again */
    cr_assert_eq(kith_index_add(index, &view, &id, NULL), KITH_ERR_EXISTS);
    OK(kith_index_search(index, &view, 1, NULL, &id, NULL, NULL));
    cr_assert_eq(id, 7);
    OK(kith_index_reconstruct(index, &id, 1, back));
    cr_assert_eq(memcmp(back, base + 7 * DIM, sizeof back), 0);
    id = 2;
    OK(kith_index_update(index, &view, &id)); /* two alike: the lower id first */
    int64_t two[2];
    OK(kith_index_search(index, &view, 2, NULL, two, NULL, NULL));
    cr_assert(two[0] == 2 && two[1] == 7);
    kith_index_free(index);
    free(base);
}

Test(hnsw_remove, all_and_then_anew) {
    enum { NB = 300, DIM = 4 };
    float *base = surface(NB, DIM, 72);
    int64_t all[NB], id;
    for (size_t i = 0; i < NB; i++) all[i] = (int64_t)i;
    kith_index *index = created("HNSW8", DIM, KITH_COSINE);
    kith_view view = view_of(base, 1, DIM);
    for (size_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < NB; i++) all[i] = (int64_t)(round * NB + i);
        add_on(index, base, NB, 2);
        for (size_t i = 0; i < NB && round == 1; i++) cr_assert_eq(removed_of(index, all + i, 1), 1);
        if (round != 1) cr_assert_eq(removed_of(index, all, NB), NB);
        cr_assert_eq(index->count, 0);
        cr_assert_eq(kith_index_search(index, &view, 1, NULL, &id, NULL, NULL), KITH_ERR_EMPTY);
        cr_assert_eq(kith_hnsw_of(index)->rows.chunk_count, 0);
    }
    kith_index_free(index);
    free(base);
}

/* ---- Quality ---------------------------------------------------------------------------------------------- */

/* Half of the vectors removed, then all but one in a hundred: at once, or a few at a time. */
static void check_share(kith_metric metric, size_t pieces) {
    enum { NB = 6000, NQ = 200, DIM = 16, K = 10, EF = 24 };
    float *base = surface(NB, DIM, 73), *queries = surface(NQ, DIM, 74);
    kith_index *index = created("HNSW16", DIM, metric);
    add_on(index, base, NB, 2);
    census all = census_make(NB);
    static const size_t shares[] = {NB / 2, NB / 100};
    for (size_t s = 0; s < 2; s++) {
        size_t from = all.live_count, found[2];
        for (size_t p = 1; p <= pieces; p++)
            remove_down_to(index, &all, from - (from - shares[s]) * p / pieces, 10 * s + p);
        cr_assert_eq(reachable(index), kith_hnsw_of(index)->node_count);
        compare_recall("HNSW16", index, &all, base, queries, NQ, DIM, K, EF, found);
        cr_assert_geq(found[1] + NQ * K / 100, found[0], "%zu of %d live, %s: %zu, a fresh build %zu", shares[s],
                      NB, kith_metric_name(metric), found[1], found[0]);
    }
    census_free(&all);
    kith_index_free(index);
    free(base);
    free(queries);
}

/* Where no more live than went, the graph becomes the one that a fresh build makes of those that live. */
static void check_relinked(const char *spec, kith_metric metric, size_t count, size_t left) {
    enum { DIM = 12 };
    float *base = surface(count, DIM, 85);
    for (size_t i = 0; i < count && metric == KITH_IP; i++) { /* equally long */
        float *row = base + i * DIM, square = 0;
        for (size_t d = 0; d < DIM; d++) square += row[d] * row[d];
        for (size_t d = 0; d < DIM; d++) row[d] /= sqrtf(square);
    }
    kith_index *index = created(spec, DIM, metric);
    kith_view view = view_of(base, count, DIM);
    OK(kith_index_train(index, &view, NULL));
    kith_index *empty;
    OK(kith_index_clone(index, &empty));
    OK(kith_index_add(index, &view, NULL, NULL));
    census all = census_make(count);
    remove_down_to(index, &all, left, 86);
    float *live = malloc(left * DIM * sizeof *live);
    for (size_t i = 0; i < left; i++) memcpy(live + i * DIM, base + (size_t)all.live[i] * DIM, DIM * sizeof *live);
    view = view_of(live, left, DIM);
    OK(kith_index_add(empty, &view, all.live, NULL));
    cr_assert_eq(kith_hnsw_of(index)->dead.count, 0);
    cr_assert(same_graph(index, empty), "%s", spec);
    add_on(index, base, 10, 1); /* and goes on as that would */
    add_on(empty, base, 10, 1);
    cr_assert(same_graph(index, empty), "%s", spec);
    census_free(&all);
    kith_index_free(index);
    kith_index_free(empty);
    free(live);
    free(base);
}

Test(hnsw_remove, most_of_all) {
    check_relinked("HNSW8", KITH_L2, 3000, 1500);
    check_relinked("HNSW8", KITH_COSINE, 3000, 30);
    check_relinked("HNSW8", KITH_IP, 900, 1);
    check_relinked("HNSW8", KITH_L2, 20000, 9000); /* all at once */
    check_relinked("HNSW8", KITH_IP, 20000, 9000);
}

Test(hnsw_remove, half_and_nearly_all_l2) { check_share(KITH_L2, 1); }
Test(hnsw_remove, half_and_nearly_all_ip) { check_share(KITH_IP, 1); }
Test(hnsw_remove, half_and_nearly_all_in_pieces) { check_share(KITH_L2, 97); }

/* A tenth goes and a tenth comes, thirty times over. */
Test(hnsw_remove, rounds_of_remove_and_add) {
    enum {
        NB = 3000,
        ROUNDS = 30,
        TENTH = NB / 10,
        NQ = 200,
        DIM = 16,
        K = 10,
        EF = 24,
        ALL = NB + ROUNDS * TENTH
    };
    float *base = surface(ALL, DIM, 75), *queries = surface(NQ, DIM, 76);
    kith_index *index = created("HNSW16", DIM, KITH_L2);
    add_on(index, base, NB, 2);
    census all = census_make(ALL);
    memset(all.lives + NB, 0, ALL - NB);
    census_list(&all);
    for (size_t round = 0; round < ROUNDS; round++) {
        remove_down_to(index, &all, NB - TENTH, round);
        size_t first = NB + round * TENTH;
        add_on(index, base + first * DIM, TENTH, 2);
        memset(all.lives + first, 1, TENTH);
        census_list(&all);
    }
    cr_assert_eq(reachable(index), kith_hnsw_of(index)->node_count);
    size_t found[2];
    compare_recall("HNSW16", index, &all, base, queries, NQ, DIM, K, EF, found);
    cr_assert_geq(found[1] + NQ * K / 100, found[0], "%zu, a fresh build %zu", found[1], found[0]);
    census_free(&all);
    kith_index_free(index);
    free(base);
    free(queries);
}

/* Everything near the queries is removed, in so small a part of all that no repair follows. */
Test(hnsw_remove, a_whole_cluster) {
    enum { NB = 6000, CENTRES = 60, EACH = NB / CENTRES, DIM = 8, K = 10 };
    float *base = clusters(NB, CENTRES, DIM);
    kith_index *index = created("HNSW8", DIM, KITH_L2);
    add_on(index, base, NB, 2);
    int64_t gone[EACH], ids[EACH * K];
    for (size_t i = 0; i < EACH; i++) gone[i] = (int64_t)(7 * EACH + i);
    cr_assert_eq(removed_of(index, gone, EACH), EACH);
    cr_assert_eq(kith_hnsw_of(index)->dead.count, EACH);
    kith_search_params params;
    kith_search_params_init(&params);
    params.ef = K;
    kith_view view = view_of(base + 7 * EACH * DIM, EACH, DIM);
    OK(kith_index_search(index, &view, K, &params, ids, NULL, NULL)); /* k for each, or it fails */
    for (size_t i = 0; i < EACH * K; i++) cr_assert(ids[i] / EACH != 7);
    /* Each walk that has to go farther counts: more is reported than the widest, which measures the cluster and what is
     * around it, and a bound holds for all of them together. */
    static kith_search_report reports[2 * EACH];
    size_t counts[EACH];
    params.reports = reports;
    OK(kith_index_search(index, &view, K, &params, ids, NULL, counts));
    params.ef = kith_hnsw_of(index)->dead.count + K;
    params.reports = reports + EACH;
    OK(kith_index_search(index, &view, K, &params, ids, NULL, counts));
    for (size_t i = 0; i < EACH; i++) cr_assert_gt(reports[i].distances, reports[EACH + i].distances);
    params.ef = K;
    params.reports = reports;
    for (params.max_distances = 50; params.max_distances < 800; params.max_distances += 50) {
        OK(kith_index_search(index, &view, K, &params, ids, NULL, counts));
        for (size_t i = 0; i < EACH; i++) {
            cr_assert_leq(reports[i].distances, params.max_distances);
            cr_assert(counts[i] == K || (reports[i].limits & KITH_LIMIT_DISTANCES) != 0);
        }
    }
    float radius = 1e30f;
    kith_range_result *within;
    view.count = 1;
    OK(kith_index_range_search(index, &view, radius, NULL, &within));
    cr_assert_eq(within->limits[1], NB - EACH);
    for (size_t i = 0; i < NB - EACH; i++) cr_assert(within->ids[i] / EACH != 7);
    kith_range_result_free(within);
    kith_index_free(index);
    free(base);
}

static int allow_third_fn(void *user, int64_t id) {
    (void)user;
    return id % 3 == 0;
}

Test(hnsw_remove, filters) {
    enum { NB = 2000, DIM = 8, NQ = 20, K = 5 };
    float *base = surface(NB, DIM, 77);
    kith_index *index = created("HNSW16", DIM, KITH_L2);
    add_on(index, base, NB, 2);
    int64_t gone[100], few[100], ids[NQ * K];
    for (size_t i = 0; i < 100; i++) gone[i] = (int64_t)(i * 3), few[i] = (int64_t)(i * 3 + (i % 2) * 300);
    removed_of(index, gone, 100);
    cr_assert_gt(kith_hnsw_of(index)->dead.count, 0);
    kith_filter *filters[2]; /* one that is listed, one that is asked */
    OK(kith_filter_ids(few, 100, &filters[0]));
    OK(kith_filter_callback(allow_third_fn, NULL, &filters[1]));
    for (size_t f = 0; f < 2; f++) {
        kith_search_params params;
        kith_search_params_init(&params);
        params.filter = filters[f];
        params.ef = 200;
        kith_view view = view_of(base, NQ, DIM);
        OK(kith_index_search(index, &view, K, &params, ids, NULL, NULL));
        for (size_t i = 0; i < NQ * K; i++) cr_assert(ids[i] % 3 == 0 && ids[i] >= 300);
        kith_filter_free(filters[f]);
    }
    kith_index_free(index);
    free(base);
}

/* ---- Codes and wrappers ----------------------------------------------------------------------------------- */

static void check_wrapped(const char *spec) {
    enum { NB = 3000, NQ = 100, DIM = 32, K = 10, ROUNDS = 4 };
    float *base = surface(NB, DIM, 78), *queries = surface(NQ, DIM, 79);
    for (size_t i = 0; i < (size_t)NB * DIM; i++) base[i] = roundf(100 + 50 * base[i]); /* for u8 */
    for (size_t i = 0; i < (size_t)NQ * DIM; i++) queries[i] = roundf(100 + 50 * queries[i]);
    kith_index *index = created(spec, DIM, KITH_L2);
    kith_view view = view_of(base, NB, DIM);
    OK(kith_index_train(index, &view, NULL));
    OK(kith_index_add(index, &view, NULL, NULL));
    int64_t gone[NB / 4], ids[NQ * K], *all = malloc(NB * sizeof *all);
    size_t live = 0;
    for (size_t i = 0; i < NB / 4; i++) gone[i] = (int64_t)(4 * i + 1);
    cr_assert_eq(removed_of(index, gone, NB / 4), NB / 4, "%s", spec);
    for (size_t i = 0; i < NB; i++)
        if (i % 4 != 1) all[live++] = (int64_t)i;
    kith_index *flat = fresh_build("Flat", base, all, live, DIM, KITH_L2);
    for (size_t i = 0; i < 50; i++) { /* one at a time: some are left in the graph */
        kith_view one = view_of(base + (size_t)gone[i] * DIM, 1, DIM);
        OK(kith_index_update(index, &one, &all[i]));
        OK(kith_index_update(flat, &one, &all[i]));
    }
    cr_assert_eq(kith_index_count(index), live);
    kith_view some = view_of(queries, NQ, DIM);
    int64_t truth[NQ * K];
    OK(kith_index_search(flat, &some, K, NULL, truth, NULL, NULL));
    OK(kith_index_search(index, &some, K, NULL, ids, NULL, NULL));
    size_t found = shared(ids, truth, NQ, K);
    cr_assert_geq(found, NQ * K * 9 / 10, "%s: %zu of %d", spec, found, NQ * K);
    kith_index *copy;
    const char *folder = faults_folder(), *path = faults_path(folder, "a");
    int64_t again[NQ * K];
    OK(kith_index_save(index, path));
    OK(kith_file_verify(path));
    OK(kith_index_load(path, &copy));
    OK(kith_index_search(copy, &some, K, NULL, again, NULL, NULL));
    cr_assert_eq(memcmp(again, ids, sizeof ids), 0);
    OK(kith_index_add(copy, &some, NULL, NULL));
    faults_folder_remove(folder);
    kith_index_free(copy);
    kith_index_free(flat);
    kith_index_free(index);
    free(all);
    free(base);
    free(queries);
}

Test(hnsw_remove, codes_and_wrappers) {
    static const char *const specs[] = {"HNSW16,SQ8", "HNSW16,Line64x4,Ru8", "PCA32,HNSW16,f16,RFlat", "HNSW16,u8"};
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++) check_wrapped(specs[s]);
}

/* ---- Files, threads, memory ------------------------------------------------------------------------------- */

Test(hnsw_remove, saved_with_removed_nodes) {
    enum { NB = 400, DIM = 5, GONE = 20 };
    float *base = surface(2 * NB, DIM, 81);
    const char *folder = faults_folder(), *path = faults_path(folder, "a"), *twice = faults_path(folder, "b");
    for (size_t own_ids = 0; own_ids < 2; own_ids++) {
        int64_t ids[NB], gone[GONE];
        for (size_t i = 0; i < NB; i++) ids[i] = (int64_t)((i * 7 + 3) % NB);
        for (size_t i = 0; i < GONE; i++) gone[i] = (int64_t)(11 * i);
        kith_index *index = created("HNSW8", DIM, KITH_COSINE), *copies[3];
        kith_view view = view_of(base, NB, DIM);
        OK(kith_index_add(index, &view, own_ids ? ids : NULL, NULL));
        cr_assert_eq(removed_of(index, gone, GONE), GONE);
        cr_assert_eq(kith_hnsw_of(index)->dead.count, GONE);
        kith_view one = view_of(base + NB * DIM, 1, DIM);
        OK(kith_index_add(index, &one, &gone[3], NULL)); /* one id comes again */
        OK(kith_index_save(index, path));
        OK(kith_file_verify(path));
        OK(kith_index_map(path, &copies[0]));
        OK(kith_index_load(path, &copies[1]));
        OK(kith_index_clone(copies[0], &copies[2]));
        int64_t expected[10], got[10];
        OK(kith_index_search(index, &one, 10, NULL, expected, NULL, NULL));
        cr_assert_eq(expected[0], gone[3]);
        float back[DIM];
        for (size_t c = 0; c < 3; c++) {
            cr_assert(same_graph(index, copies[c]));
            OK(kith_index_search(copies[c], &one, 10, NULL, got, NULL, NULL));
            cr_assert_eq(memcmp(got, expected, sizeof got), 0);
            OK(kith_index_reconstruct(copies[c], &gone[3], 1, back));
            cr_assert_eq(memcmp(back, base + NB * DIM, sizeof back), 0);
            cr_assert_eq(kith_index_reconstruct(copies[c], &gone[4], 1, back), KITH_ERR_NOT_FOUND);
            OK(kith_index_save(copies[c], twice));
            size_t bytes[2];
            unsigned char *files[2] = {faults_read_file(path, &bytes[0]), faults_read_file(twice, &bytes[1])};
            cr_assert(bytes[0] == bytes[1] && memcmp(files[0], files[1], bytes[0]) == 0);
            free(files[0]);
            free(files[1]);
        }
        cr_assert_eq(removed_of(index, ids, 30), removed_of(copies[1], ids, 30)); /* and changes as the original */
        cr_assert(same_graph(index, copies[1]));
        cr_assert_eq(kith_hnsw_of(index)->dead.count, 0);
        for (size_t c = 0; c < 3; c++) kith_index_free(copies[c]);
        kith_index_free(index);
    }
    faults_folder_remove(folder);
    free(base);
}

Test(hnsw_remove, damaged_files) {
    enum { NB = 40, DIM = 3 };
    const char *folder = faults_folder(), *path = faults_path(folder, "a");
    float *base = surface(NB, DIM, 82);
    kith_index *index = created("HNSW4", DIM, KITH_L2), *damaged;
    add_on(index, base, NB, 1);
    int64_t gone[2] = {5, 17};
    cr_assert_eq(removed_of(index, gone, 2), 2);
    cr_assert_eq(kith_hnsw_of(index)->dead.count, 2);
    OK(kith_index_save(index, path));
    kith_index_free(index);
    size_t bytes;
    unsigned char *content = faults_read_file(path, &bytes);
    for (size_t at = 0; at < bytes; at += 3) {
        content[at] ^= 0x41;
        faults_write_file(path, content, bytes);
        cr_assert_neq(kith_index_load(path, &damaged), KITH_OK, "byte %zu", at);
        content[at] ^= 0x41;
    }
    free(content);
    free(base);
    faults_folder_remove(folder);
}

/* The repair runs on as many threads as there are processors: on one, and on all. */
Test(hnsw_remove, same_bytes_at_any_thread_count) {
    enum { NB = 4000, DIM = 12 };
    float *base = surface(NB, DIM, 83);
    cpu_set_t every, one;
    cr_assert_eq(sched_getaffinity(0, sizeof every, &every), 0);
    CPU_ZERO(&one);
    for (size_t c = 0; c < CPU_SETSIZE && CPU_COUNT(&one) == 0; c++)
        if (CPU_ISSET(c, &every)) CPU_SET(c, &one);
    kith_index *indexes[2];
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(sched_setaffinity(0, sizeof every, i == 0 ? &one : &every), 0);
        indexes[i] = created("HNSW8,SQ8", DIM, KITH_L2);
        kith_view view = view_of(base, NB, DIM);
        OK(kith_index_train(indexes[i], &view, NULL));
        add_on(indexes[i], base, NB, 2);
        census all = census_make(NB);
        remove_down_to(indexes[i], &all, NB - NB / 4, 1);
        cr_assert_eq(kith_hnsw_of(indexes[i])->dead.count, 0);
        census_free(&all);
    }
    cr_assert(same_graph(indexes[0], indexes[1]));
    for (size_t i = 0; i < 2; i++) kith_index_free(indexes[i]);
    free(base);
}

/* Each allocation fails in turn: the call is refused and nothing changed; or only the repair is put off, and the next
 * call makes up for it. */
Test(hnsw_remove, every_allocation_may_fail) {
    enum { NB = 300, DIM = 4, FEW = 60, MOST = 200 };
    memory_faults_install();
    float *base = surface(2 * NB, DIM, 84);
    int64_t gone[MOST];
    kith_view view = view_of(base + NB * DIM, FEW, DIM);
    for (size_t change = 0; change < 3; change++) {
        /* Some removed, some updated, most removed. */
        size_t count = change == 2 ? MOST : FEW;
        for (size_t i = 0; i < count; i++) gone[i] = (int64_t)(change == 2 ? i * 3 / 2 : 5 * i);
        for (uint64_t n = 1, done = 0; done == 0; n++) {
            kith_index *index = created("HNSW4", DIM, KITH_IP), *before;
            size_t removed = 0;
            add_on(index, base, NB, 1);
            OK(kith_index_clone(index, &before));
            faults_fail_allocation(n);
            kith_status status = change != 1 ? kith_index_remove(index, gone, count, &removed)
                                             : kith_index_update(index, &view, gone);
            done = faults_allocation_count() < n;
            faults_fail_allocation(0);
            if (status != KITH_OK) {
                cr_assert_eq(status, KITH_ERR_NO_MEMORY);
                cr_assert_eq(removed, 0);
                cr_assert(same_graph(index, before), "failure %llu left something", (unsigned long long)n);
            } else {
                cr_assert_eq(index->count, change != 1 ? NB - count : NB);
                kith_view query = view_of(base, 1, DIM);
                int64_t ids[NB], last = NB - 1;
                OK(kith_index_search(index, &query, index->count, NULL, ids, NULL, NULL));
                for (size_t i = 0; i < index->count && change == 0; i++) cr_assert(ids[i] % 5 != 0);
                for (size_t i = 0; i < index->count && change == 2; i++) cr_assert(ids[i] % 3 == 2);
                cr_assert_eq(removed_of(index, &last, 1), 1);
                cr_assert_eq(kith_hnsw_of(index)->dead.count, done ? 1 : 0, "failure %llu", (unsigned long long)n);
            }
            kith_index_free(before);
            kith_index_free(index);
            cr_assert_eq(kith_memory_live_blocks(), 0);
        }
    }
    free(base);
}
