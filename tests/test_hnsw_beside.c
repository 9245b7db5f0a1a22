/* SPDX-License-Identifier: Apache-2.0
 *
 * Searches of a graph beside two threads that add and one that updates and removes. Vectors are whole numbers, so that
 * every distance is exact: each result has to be a vector of its id, whole, in a form that it had or was about to get.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "hnsw_fixture.h"

enum {
    DIM = 16,
    STAY = 500, /* ids that are there all the time */
    EACH = 320, /* ids that each of the adders brings */
    ADDERS = 2,
    IDS = STAY + ADDERS * EACH,
    SEARCHERS = 2,
    K = 10,
    PIECE_MAX = 7,    /* vectors that are added at once */
    STEPS_MIN = 1000, /* of each searcher, so that the share of misses says something */
    MISSES_SHARE = 50
};

/* What becomes of an id that is added. */
typedef enum fate { FATE_REMOVED, FATE_UPDATED, FATE_STAYS } fate;
static fate fate_of(size_t id) { return id < STAY ? FATE_STAYS : (fate)(id % 3); }

typedef struct scene {
    kith_index *index;
    const kith_filter *stay, *listed; /* the ids that stay: a range; every seventh id of all, as a list */
    /* When it was known to have happened; 0: not yet. */
    _Atomic uint64_t added[IDS], changed[IDS];
    _Atomic uint64_t clock;
    _Atomic size_t adders_left, changers_left;
    _Atomic size_t searches, misses;
    bool is_exact; /* distances are those of the vectors */
} scene;

/* The vector of an id, in its first or its second form. */
static void fill(size_t id, int form, float *out) {
    for (size_t d = 0; d < DIM; d++) out[d] = (float)kith_random_below(77 + (uint64_t)form, id, d, 200);
}

static float distance_to(const float *query, size_t id, int form) {
    float other[DIM], sum = 0;
    fill(id, form, other);
    for (size_t d = 0; d < DIM; d++) sum += (query[d] - other[d]) * (query[d] - other[d]);
    return sum;
}

static uint64_t now(scene *all) { return atomic_fetch_add(&all->clock, 1) + 1; }

/* ---- Changes ---------------------------------------------------------------------------------------------- */

typedef struct part {
    scene *all;
    size_t number;
} part;

static void *adder(void *context) {
    const part *mine = context;
    scene *all = mine->all;
    size_t first = STAY + mine->number * EACH, end = first + EACH;
    for (size_t i = first, count; i < end; i += count) {
        float values[PIECE_MAX * DIM];
        int64_t ids[PIECE_MAX];
        count = 1 + (size_t)kith_random_below(5, mine->number, i, PIECE_MAX);
        if (count > end - i) count = end - i;
        for (size_t j = 0; j < count; j++) {
            fill(i + j, 0, values + j * DIM);
            ids[j] = (int64_t)(i + j);
        }
        kith_view view = view_of(values, count, DIM);
        OK(kith_index_add(all->index, &view, ids, NULL));
        uint64_t time = now(all);
        for (size_t j = 0; j < count; j++) atomic_store(&all->added[i + j], time);
    }
    atomic_fetch_sub(&all->adders_left, 1);
    return NULL;
}

static bool change_one(scene *all, size_t id) {
    if (fate_of(id) == FATE_STAYS || atomic_load(&all->added[id]) == 0 || atomic_load(&all->changed[id]) != 0)
        return false;
    const int64_t name = (int64_t)id;
    if (fate_of(id) == FATE_REMOVED) {
        size_t removed;
        OK(kith_index_remove(all->index, &name, 1, &removed));
        cr_assert_eq(removed, 1);
    } else {
        float values[DIM];
        fill(id, 1, values);
        kith_view view = view_of(values, 1, DIM);
        OK(kith_index_update(all->index, &view, &name));
    }
    atomic_store(&all->changed[id], now(all));
    return true;
}

/* Removes and updates whatever has come. */
static void *changer(void *context) {
    scene *all = context;
    for (bool last = false, idle = false; !last || !idle;) {
        last = atomic_load(&all->adders_left) == 0;
        idle = true;
        for (size_t id = STAY; id < IDS; id++) idle &= !change_one(all, id);
        if (idle) sched_yield();
    }
    atomic_fetch_sub(&all->changers_left, 1);
    return NULL;
}

/* ---- Searches --------------------------------------------------------------------------------------------- */

/* One result of a search that began at `start`. */
static void check_result(scene *all, const float *query, uint64_t start, int64_t id, float distance) {
    cr_assert(id >= 0 && id < IDS, "id %lld", (long long)id);
    size_t at = (size_t)id;
    uint64_t changed = atomic_load(&all->changed[at]);
    bool is_changed = changed != 0 && changed <= start;
    cr_assert(!is_changed || fate_of(at) == FATE_UPDATED, "id %zu was removed before the search", at);
    if (!all->is_exact) return;
    bool is_new = fate_of(at) == FATE_UPDATED && distance == distance_to(query, at, 1);
    bool is_old = distance == distance_to(query, at, 0);
    cr_assert(is_new || is_old, "id %zu: %g is no distance of it", at, (double)distance);
    cr_assert(is_new || !is_changed, "id %zu was updated before the search", at);
}

/* A vector that is there, and stays as it is. */
static size_t pick(scene *all, uint64_t step, uint64_t start) {
    size_t id = (size_t)kith_random_below(9, step, 1, IDS);
    uint64_t added = id < STAY ? 0 : atomic_load(&all->added[id]);
    bool is_there = id < STAY || (added != 0 && added <= start);
    return is_there && fate_of(id) == FATE_STAYS ? id : (size_t)kith_random_below(9, step, 2, STAY);
}

static void search_once(scene *all, uint64_t step) {
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = 1;
    params.filter = step % 4 == 1 ? all->stay : step % 4 == 2 ? all->listed : NULL;
    uint64_t start = atomic_load(&all->clock);
    size_t wanted = pick(all, step, start), count, position = SIZE_MAX;
    float query[DIM], distances[K];
    int64_t ids[K];
    fill(wanted, 0, query);
    kith_view view = view_of(query, 1, DIM);
    OK(kith_index_search(all->index, &view, K, &params, ids, distances, &count));
    cr_assert_eq(count, K);
    for (size_t i = 0; i < count; i++) {
        check_result(all, query, start, ids[i], distances[i]);
        for (size_t j = 0; j < i; j++) cr_assert_neq(ids[i], ids[j], "id %lld twice", (long long)ids[i]);
        if (ids[i] == (int64_t)wanted) position = i;
        if (params.filter == all->stay) cr_assert_lt(ids[i], STAY);
        if (params.filter == all->listed) cr_assert_eq(ids[i] % 7, 0);
    }
    bool is_allowed = params.filter == NULL || (params.filter == all->stay ? wanted < STAY : wanted % 7 == 0);
    if (!is_allowed) return;
    atomic_fetch_add(&all->searches, 1);
    atomic_fetch_add(&all->misses, position == SIZE_MAX);
}

static void range_once(scene *all, uint64_t step) {
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = 1;
    uint64_t start = atomic_load(&all->clock);
    float query[DIM];
    fill(pick(all, step, start), 0, query);
    kith_view view = view_of(query, 1, DIM);
    kith_range_result *found;
    OK(kith_index_range_search(all->index, &view, 30000, &params, &found));
    for (size_t i = 0; i < found->limits[1]; i++) {
        check_result(all, query, start, found->ids[i], found->distances[i]);
        for (size_t j = 0; j < i; j++) cr_assert_neq(found->ids[i], found->ids[j]);
    }
    kith_range_result_free(found);
}

static void *searcher(void *context) {
    const part *mine = context;
    for (uint64_t step = mine->number; atomic_load(&mine->all->changers_left) > 0 || step < STEPS_MIN * SEARCHERS;
         step += SEARCHERS)
        if (step % 16 < SEARCHERS)
            range_once(mine->all, step);
        else
            search_once(mine->all, step);
    return NULL;
}

/* ---- The test --------------------------------------------------------------------------------------------- */

/* All that ought to be there is, and nothing else; every node is reached. */
static void check_after(scene *all) {
    size_t count = 0;
    for (size_t id = 0; id < IDS; id++) count += fate_of(id) != FATE_REMOVED;
    cr_assert_eq(kith_index_count(all->index), count);
    OK(kith_index_compact(all->index));
    cr_assert_eq(reachable(all->index), count);
    for (size_t id = 0; id < IDS; id++) {
        if (fate_of(id) == FATE_REMOVED) continue;
        float query[DIM], value[DIM];
        const int64_t name = (int64_t)id;
        fill(id, fate_of(id) == FATE_UPDATED, query);
        OK(kith_index_reconstruct(all->index, &name, 1, value));
        if (all->is_exact) cr_assert_arr_eq(query, value, sizeof query);
    }
}

static void run_scene(const char *spec) {
    scene *all = calloc(1, sizeof *all);
    float *values = malloc(STAY * DIM * sizeof *values);
    int64_t listed[IDS / 7 + 1];
    pthread_t threads[ADDERS + SEARCHERS + 1];
    part parts[ADDERS + SEARCHERS];
    size_t listed_count = 0;
    kith_filter *stay, *every_seventh;
    for (size_t id = 0; id < STAY; id++) fill(id, 0, values + id * DIM);
    for (int64_t id = 0; id < IDS; id += 7) listed[listed_count++] = id;
    OK(kith_filter_range(0, STAY - 1, &stay));
    OK(kith_filter_ids(listed, listed_count, &every_seventh));
    all->stay = stay;
    all->listed = every_seventh;
    all->index = created(spec, DIM, KITH_L2);
    all->is_exact = kith_hnsw_of(all->index)->code == NULL;
    kith_view view = view_of(values, STAY, DIM);
    if (!kith_index_is_trained(all->index)) OK(kith_index_train(all->index, &view, NULL));
    add_on(all->index, values, STAY, 1);
    atomic_store(&all->adders_left, ADDERS);
    atomic_store(&all->changers_left, 1);
    for (size_t i = 0; i < ADDERS + SEARCHERS; i++) {
        parts[i] = (part){all, i < ADDERS ? i : i - ADDERS};
        cr_assert_eq(pthread_create(&threads[i], NULL, i < ADDERS ? adder : searcher, &parts[i]), 0);
    }
    cr_assert_eq(pthread_create(&threads[ADDERS + SEARCHERS], NULL, changer, all), 0);
    for (size_t i = 0; i < ADDERS + SEARCHERS + 1; i++) cr_assert_eq(pthread_join(threads[i], NULL), 0);
    cr_assert_leq(all->misses * MISSES_SHARE, all->searches, "%zu of %zu searches missed", all->misses,
                  all->searches);
    check_after(all);
    kith_index_free(all->index);
    kith_filter_free(every_seventh);
    kith_filter_free(stay);
    free(values);
    free(all);
}

Test(hnsw_beside, floats) { run_scene("HNSW6"); }
Test(hnsw_beside, bytes) { run_scene("HNSW12,u8"); }
Test(hnsw_beside, codes) { run_scene("HNSW6,SQ8"); }
Test(hnsw_beside, packed_codes) { run_scene("HNSW6,RaBitQ"); }
