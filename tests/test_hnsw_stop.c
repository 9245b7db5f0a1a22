/* SPDX-License-Identifier: Apache-2.0
 *
 * Walks that end by distance (stop_percent): they follow what a plain best-first search follows that ends so, whatever
 * room their pools have; and what is found depends on nothing but the query.
 */
#include "hnsw_fixture.h"

enum { NB = 3000, DIM = 16, NQ = 60, K = 10, EF_WIDE = 1000 };
static const kith_metric metrics[] = {KITH_L2, KITH_IP, KITH_COSINE};
enum { METRICS = 3 };

typedef struct answers {
    int64_t ids[NQ * K];
    float distances[NQ * K];
    size_t counts[NQ];
    kith_search_report reports[NQ];
} answers;

typedef struct scene {
    float *base, *queries;
    kith_index *index;
} scene;

static scene scene_make(const char *spec, kith_metric metric) {
    scene s = {surface(NB, DIM, 5), surface(NQ, DIM, 6), created(spec, DIM, metric)};
    kith_view view = view_of(s.base, NB, DIM);
    OK(kith_index_train(s.index, &view, NULL));
    add_on(s.index, s.base, NB, 2);
    return s;
}

static void scene_free(scene *s) {
    kith_index_free(s->index);
    free(s->base);
    free(s->queries);
}

static kith_search_params params_of(size_t ef, size_t percent) {
    kith_search_params params;
    kith_search_params_init(&params);
    params.ef = ef;
    params.stop_percent = percent;
    return params;
}

static void search(const scene *s, kith_search_params params, answers *out) {
    memset(out, 0, sizeof *out);
    params.reports = out->reports;
    kith_view view = view_of(s->queries, NQ, DIM);
    OK(kith_index_search(s->index, &view, K, &params, out->ids, out->distances, out->counts));
}

static bool same_results(const answers *a, const answers *b) {
    return memcmp(a->ids, b->ids, sizeof a->ids) == 0 &&
           memcmp(a->distances, b->distances, sizeof a->distances) == 0 &&
           memcmp(a->counts, b->counts, sizeof a->counts) == 0;
}

static uint64_t hops_of(const answers *all) {
    uint64_t hops = 0;
    for (size_t q = 0; q < NQ; q++) hops += all->reports[q].hops;
    return hops;
}

/* ---- Against a plain search ----------------------------------------------------------------------------------- */

typedef struct met_node {
    float distance;
    uint32_t node;
    bool is_followed;
} met_node;

typedef struct plain_walk {
    met_node met[NB]; /* nearest first */
    size_t count, hops;
    bool seen[NB];
} plain_walk;

static void meet(plain_walk *walk, const kith_probe *probe, const uint32_t *nodes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (nodes[i] == KITH_NO_NODE || walk->seen[nodes[i]]) continue;
        walk->seen[nodes[i]] = true;
        float four[4];
        const uint32_t same[4] = {nodes[i], nodes[i], nodes[i], nodes[i]};
        kith_probe_four(probe, same, four);
        size_t at = walk->count++;
        for (; at > 0 && (walk->met[at - 1].distance > four[0] ||
                          (walk->met[at - 1].distance == four[0] && walk->met[at - 1].node > nodes[i]));
             at--)
            walk->met[at] = walk->met[at - 1];
        walk->met[at] = (met_node){four[0], nodes[i], false};
    }
}

static void walk_plainly(plain_walk *walk, const kith_hnsw *graph, const kith_probe *probe, size_t percent) {
    float zero = graph->base.metric == KITH_COSINE ? -1 : 0;
    memset(walk, 0, sizeof *walk);
    meet(walk, probe, graph->entries, graph->entry_count);
    for (;;) {
        size_t at = 0;
        while (at < walk->count && walk->met[at].is_followed) at++;
        if (at == walk->count) return;
        float kth = walk->met[K - 1].distance, share = ((float)percent - 100) / 100;
        if (kth < zero && share > 1) share = 1; /* a product below 0 is too far, however large the k-th is */
        if (walk->met[at].distance > kth + share * fabsf(kth - zero)) return;
        walk->met[at].is_followed = true;
        walk->hops++;
        meet(walk, probe, kith_hnsw_links(graph, walk->met[at].node), graph->degree);
    }
}

Test(hnsw_stop, follows_what_a_plain_search_follows) {
    static const size_t percents[] = {90, 100, 105, 130, 250};
    static answers got;
    static plain_walk walk;
    for (size_t m = 0; m < METRICS; m++) {
        scene s = scene_make("HNSW8", metrics[m]);
        const kith_hnsw *graph = kith_hnsw_of_const(s.index);
        for (size_t p = 0; p < sizeof percents / sizeof *percents; p++) {
            search(&s, params_of(NB, percents[p]), &got);
            for (size_t q = 0; q < NQ; q++) {
                kith_probe probe = kith_probe_query(graph, KITH_F32);
                probe.vector = s.queries + q * DIM;
                probe.side = kith_exact_inverse_norm(probe.vector, KITH_F32, DIM);
                walk_plainly(&walk, graph, &probe, percents[p]);
                cr_assert_eq(got.reports[q].hops, walk.hops, "%s, %zu%%, query %zu", kith_metric_name(metrics[m]),
                             percents[p], q);
                for (size_t i = 0; i < K; i++) cr_assert_eq(got.ids[q * K + i], walk.met[i].node);
            }
        }
        scene_free(&s);
    }
}

/* ---- What it depends on --------------------------------------------------------------------------------------- */

/* At 100% no more than the k nearest are ever followed, for which the shortest pool has room. */
Test(hnsw_stop, room_in_the_pool_changes_nothing) {
    static const char *const specs[] = {"HNSW8", "HNSW16,RaBitQ", "HNSW16,Line64x4,RFlat"};
    static answers narrow, wide;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        scene s = scene_make(specs[i], KITH_L2);
        search(&s, params_of(60, 100), &narrow);
        search(&s, params_of(EF_WIDE, 100), &wide);
        cr_assert(same_results(&narrow, &wide), "%s", specs[i]);
        cr_assert_eq(hops_of(&narrow), hops_of(&wide), "%s", specs[i]);
        scene_free(&s);
    }
}

Test(hnsw_stop, one_that_stops_nowhere_is_as_none) {
    static answers without, with;
    static const size_t efs[] = {20, 200};
    scene s = scene_make("HNSW8,f16", KITH_L2);
    for (size_t e = 0; e < 2; e++) {
        search(&s, params_of(efs[e], 0), &without);
        search(&s, params_of(efs[e], 10000), &with);
        cr_assert(same_results(&without, &with));
        cr_assert_eq(hops_of(&without), hops_of(&with));
    }
    scene_free(&s);
}

/* Further on, more is followed and no less found; and with as many nodes more than by ef alone. */
Test(hnsw_stop, more_per_cent_find_more) {
    static const size_t percents[] = {100, 105, 110, 120, 140};
    static answers got;
    int64_t *truth = malloc(NQ * K * sizeof *truth);
    scene s = scene_make("HNSW8", KITH_L2);
    truth_of(KITH_L2, s.base, NB, s.queries, NQ, DIM, K, truth);
    size_t found_before = 0;
    uint64_t hops_before = 0;
    for (size_t p = 0; p < sizeof percents / sizeof *percents; p++) {
        search(&s, params_of(EF_WIDE, percents[p]), &got);
        size_t found = shared(got.ids, truth, NQ, K);
        cr_assert_gt(hops_of(&got), hops_before);
        cr_assert_geq(found, found_before);
        found_before = found;
        hops_before = hops_of(&got);
    }
    cr_assert_geq(found_before, NQ * K * 99 / 100);
    cr_assert_lt(hops_before, NQ * NB / 4);
    free(truth);
    scene_free(&s);
}

/* k of the results count, not the candidates that are compared again. */
Test(hnsw_stop, candidates_do_not_count) {
    static answers few, many;
    scene s = scene_make("HNSW16,Line64x4,RFlat", KITH_COSINE);
    kith_search_params params = params_of(EF_WIDE, 105);
    params.k_factor = 1;
    search(&s, params, &few);
    params.k_factor = 12;
    search(&s, params, &many);
    for (size_t q = 0; q < NQ; q++) {
        cr_assert_eq(few.reports[q].hops, many.reports[q].hops);
        cr_assert_eq(many.reports[q].refined, 12 * K);
    }
    scene_free(&s);
}

Test(hnsw_stop, batches_threads_and_packed_rows) {
    static const char *const specs[] = {"HNSW8", "HNSW16,RaBitQ", "HNSW16,Line64x4,RFlat"};
    static answers batch, other;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        for (size_t m = 0; m < METRICS; m++) {
            scene s = scene_make(specs[i], metrics[m]);
            kith_search_params params = params_of(200, 115);
            search(&s, params, &batch);
            params.threads = 3;
            search(&s, params, &other);
            cr_assert(same_results(&batch, &other));
            params.threads = 1;
            params.max_distances = (uint64_t)1 << 40; /* goes over links and codes, not packed rows */
            search(&s, params, &other);
            cr_assert(same_results(&batch, &other));
            for (size_t q = 0; q < NQ; q++) {
                int64_t ids[K];
                kith_view one = view_of(s.queries + q * DIM, 1, DIM);
                params = params_of(200, 115);
                OK(kith_index_search(s.index, &one, K, &params, ids, NULL, NULL));
                cr_assert_eq(memcmp(ids, batch.ids + q * K, sizeof ids), 0);
            }
            scene_free(&s);
        }
}

/* ---- Removed nodes, filters, radii ----------------------------------------------------------------------------- */

static int64_t *first_ids(size_t count, size_t step) {
    int64_t *ids = malloc(count * sizeof *ids);
    for (size_t i = 0; i < count; i++) ids[i] = (int64_t)(i * step);
    return ids;
}

Test(hnsw_stop, removed_nodes_do_not_count) {
    enum { GONE = NB / 20 };
    static answers got;
    scene s = scene_make("HNSW8", KITH_L2);
    int64_t *gone = first_ids(GONE, 20);
    size_t removed;
    OK(kith_index_remove(s.index, gone, GONE, &removed));
    cr_assert_eq(kith_hnsw_of_const(s.index)->dead.count, GONE);
    search(&s, params_of(EF_WIDE, 10000), &got); /* all that can be reached */
    static answers near;
    for (size_t percent = 100; percent <= 140; percent += 40) {
        search(&s, params_of(EF_WIDE, percent), &near);
        for (size_t q = 0; q < NQ; q++) cr_assert_eq(near.counts[q], K);
        for (size_t i = 0; i < NQ * K; i++) cr_assert_neq(near.ids[i] % 20, 0);
        cr_assert_lt(hops_of(&near), hops_of(&got) / 2);
        cr_assert_geq(shared(near.ids, got.ids, NQ, K), NQ * K * 9 / 10);
    }
    free(gone);
    scene_free(&s);
}

/* Candidates for a refinement are more than what says where the walk ends: removed ones among them do not send it to the
 * end of the graph. */
Test(hnsw_stop, removed_nodes_among_candidates) {
    enum { GONE = NB / 20 };
    static answers near;
    scene s = scene_make("HNSW8,SQ8,RFlat", KITH_L2);
    int64_t *gone = first_ids(GONE, 20);
    size_t removed;
    OK(kith_index_remove(s.index, gone, GONE, &removed));
    cr_assert_eq(removed, GONE);
    kith_search_params params = params_of(12, 102);
    params.k_factor = 3;
    search(&s, params, &near);
    for (size_t q = 0; q < NQ; q++) {
        cr_assert_eq(near.counts[q], K);
        cr_assert_lt(near.reports[q].distances, NB / 2, "query %zu", q);
    }
    free(gone);
    scene_free(&s);
}

/* A whole neighbourhood is gone: what stands in its place lies far away, and is found all the same. */
Test(hnsw_stop, where_all_around_is_gone) {
    enum { EACH = NB / 20 };
    float *base = clusters(NB, 20, DIM);
    kith_index *index = created("HNSW8", DIM, KITH_L2);
    add_on(index, base, NB, 2);
    int64_t gone[EACH], ids[EACH * K];
    for (size_t i = 0; i < EACH; i++) gone[i] = (int64_t)(7 * EACH + i);
    size_t removed;
    OK(kith_index_remove(index, gone, EACH, &removed));
    kith_view view = view_of(base + 7 * EACH * DIM, EACH, DIM);
    for (size_t percent = 90; percent <= 120; percent += 10) {
        kith_search_params params = params_of(200, percent);
        OK(kith_index_search(index, &view, K, &params, ids, NULL, NULL)); /* k for each, or it fails */
        for (size_t i = 0; i < EACH * K; i++) cr_assert(ids[i] / EACH != 7);
    }
    kith_index_free(index);
    free(base);
}

static int allow_half(void *user, int64_t id) {
    (void)user;
    return id % 2 == 0;
}

Test(hnsw_stop, filters) {
    static answers plain, near;
    scene s = scene_make("HNSW32", KITH_L2);
    kith_filter *asks, *lists;
    int64_t *allowed = first_ids(NB / 2, 2);
    OK(kith_filter_callback(allow_half, NULL, &asks));
    OK(kith_filter_ids(allowed, NB / 2, &lists));
    const struct {
        const kith_filter *filter;
        uint32_t strategy;
        size_t ef;
    } cases[] = {{asks, KITH_STRATEGY_ASKED, 14}, {lists, KITH_STRATEGY_BRIDGED, 24}};
    for (size_t c = 0; c < 2; c++) {
        kith_search_params params = params_of(cases[c].ef, 0);
        params.filter = cases[c].filter;
        search(&s, params, &plain);
        params.stop_percent = 101;
        search(&s, params, &near);
        for (size_t q = 0; q < NQ; q++) {
            cr_assert_eq(near.counts[q], K);
            cr_assert_eq(near.reports[q].strategy, cases[c].strategy);
        }
        for (size_t i = 0; i < NQ * K; i++) cr_assert_eq(near.ids[i] % 2, 0);
        if (cases[c].filter == asks) /* the k nearest that are allowed are not known while it walks */
            cr_assert(same_results(&near, &plain));
        else
            cr_assert_lt(hops_of(&near), hops_of(&plain));
        cr_assert_geq(shared(near.ids, plain.ids, NQ, K), NQ * K * 8 / 10);
    }
    kith_filter_free(asks);
    kith_filter_free(lists);
    free(allowed);
    scene_free(&s);
}

Test(hnsw_stop, range_searches_have_radii) {
    static const char *const specs[] = {"HNSW8", "HNSW8,SQ8,RFlat"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        scene s = scene_make(specs[i], KITH_L2);
        kith_view view = view_of(s.queries, NQ, DIM);
        kith_range_result *plain, *near;
        kith_search_params params = params_of(50, 0);
        OK(kith_index_range_search(s.index, &view, 3, &params, &plain));
        params.stop_percent = 1;
        OK(kith_index_range_search(s.index, &view, 3, &params, &near));
        cr_assert_gt(plain->limits[NQ], 0, "%s", specs[i]);
        cr_assert_eq(memcmp(plain->limits, near->limits, (NQ + 1) * sizeof *plain->limits), 0, "%s", specs[i]);
        cr_assert_eq(memcmp(plain->ids, near->ids, plain->limits[NQ] * sizeof *plain->ids), 0, "%s", specs[i]);
        kith_range_result_free(plain);
        kith_range_result_free(near);
        scene_free(&s);
    }
}

Test(hnsw_stop, by_name) {
    kith_search_params params;
    kith_search_params_init(&params);
    kith_index *graph = created("HNSW8", DIM, KITH_L2), *flat = created("Flat", DIM, KITH_L2);
    OK(kith_search_params_set(&params, graph, "stop_percent", "115"));
    cr_assert_eq(params.stop_percent, 115);
    cr_assert_eq(kith_search_params_set(&params, graph, "stop_percent", "10001"), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_search_params_set(&params, flat, "stop_percent", "115"), KITH_ERR_NOT_FOUND);
    kith_index_free(graph);
    kith_index_free(flat);
}
