/* SPDX-License-Identifier: Apache-2.0
 *
 * test_concurrent.c: adders, updaters and removers beside searches, of every kind of index, held against a history.
 *
 * The vector of an id is known from the id and a version, and each id has one thread that changes it. That thread notes
 * what it is about to do, and what has been done. A search notes the history before and after: what it finds has to be
 * something that was there at a moment in between, and what was there all the time has to be found. KITH_CONCURRENT is
 * the number of seconds for each kind of index; the default is short.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/memory.h"
#include "faults.h"
#include "kith/kith.h"

enum { DIM = 12, WRITERS = 2, SEARCHERS = 2, IDS = 400, STILL = 200, GROUPS = 7 };

/* The state of an id after the last change that was begun, and after the last one that ended. Ids below STILL are there
 * from the beginning to the end and never change. */
typedef struct id_history {
    _Atomic uint32_t begun, done;
} id_history;

/* Every vector that comes in has a version of its own, which rises by one. */
static uint32_t state_of(uint32_t version, bool there) { return version * 2 + there; }

typedef struct trial {
    kith_index *index;
    kith_metric metric;
    bool is_exact;     /* what is found is exact, and all of it is */
    bool memory_fails; /* now and then */
    const char *spec;
    id_history ids[IDS];
    _Atomic int stop, failures;
    _Atomic size_t started; /* threads that have done something */
    uint64_t end_ns;
    size_t writer_count;
} trial;

/* The vector of an id in a version, of small whole numbers, so that 8 bits hold it. */
static void vector_of(int64_t id, uint32_t version, float *out) {
    uint64_t x = (uint64_t)id * 0x9e3779b97f4a7c15u + version * 0xbf58476d1ce4e5b9u + 1;
    for (size_t d = 0; d < DIM; d++) {
        x ^= x >> 30;
        x *= 0x94d049bb133111ebu;
        x ^= x >> 27;
        out[d] = (float)((x >> 40) % 200 + 1);
    }
}

static double value_of(kith_metric metric, const float *a, const float *b) {
    double l2 = 0, ip = 0, na = 0, nb = 0;
    for (size_t d = 0; d < DIM; d++) {
        double x = a[d], y = b[d];
        l2 += (x - y) * (x - y);
        ip += x * y;
        na += x * x;
        nb += y * y;
    }
    return metric == KITH_L2 ? l2 : metric == KITH_IP ? ip : ip / sqrt(na * nb);
}

static void fail(trial *t, const char *what, int64_t id) {
    if (atomic_fetch_add(&t->failures, 1) == 0)
        (void)fprintf(stderr, "%s: %s (id %lld): %s\n", t->spec, what, (long long)id, kith_error_message());
    atomic_store(&t->stop, 1);
}

static uint32_t next_random(uint32_t *state) { return (*state = *state * 1664525u + 1013904223u) >> 8; }

static bool is_over(const trial *t) { return atomic_load(&t->stop) != 0; }

static uint64_t now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Memory may have failed the one or the other. */
static bool worked(const trial *t, kith_status status) {
    return status == KITH_OK || (t->memory_fails && status == KITH_ERR_NO_MEMORY);
}

/* ---- Writers -------------------------------------------------------------------------------------------------- */

typedef struct thread_of {
    trial *t;
    size_t number;
    uint64_t calls;
    uint32_t random;
    kith_search_context *scratch; /* of a searcher */
    kith_filter *even, *late;
} thread_of;

/* Does one change to some ids that are all there, or all not. */
static void change_some(thread_of *own) {
    trial *t = own->t;
    enum { AT_ONCE = 8 };
    int64_t ids[AT_ONCE];
    float vectors[AT_ONCE * DIM];
    uint32_t next[AT_ONCE];
    size_t count = 0, wanted = next_random(&own->random) % AT_ONCE + 1;
    bool there = next_random(&own->random) % 2 != 0;
    uint32_t kind = next_random(&own->random) % 3;
    for (size_t tries = 0; tries < 64 && count < wanted; tries++) {
        size_t share = (IDS - STILL) / WRITERS;
        int64_t id = (int64_t)(STILL + own->number * share + next_random(&own->random) % share);
        uint32_t state = atomic_load(&t->ids[id].done);
        bool repeated = false;
        for (size_t i = 0; i < count; i++) repeated = repeated || ids[i] == id;
        if (repeated || (state % 2 != 0) != there) continue;
        next[count] = there && kind == 0 ? state_of(state / 2, false) : state_of(state / 2 + 1, true);
        vector_of(id, state / 2 + 1, vectors + count * DIM);
        ids[count++] = id;
    }
    if (count == 0) return;
    for (size_t i = 0; i < count; i++) atomic_store(&t->ids[ids[i]].begun, next[i]);
    const kith_view view = {vectors, KITH_F32, count, DIM, 0};
    kith_status status;
    size_t changed = count;
    if (t->memory_fails) faults_fail_allocation(next_random(&own->random) % 16 + 1);
    if (!there)
        status = kind == 0 ? kith_index_upsert(t->index, &view, ids, NULL, NULL)
                           : kith_index_add(t->index, &view, ids, NULL);
    else if (kind == 0)
        status = kith_index_remove(t->index, ids, count, &changed);
    else if (kind == 1)
        status = kith_index_update(t->index, &view, ids);
    else
        status = kith_index_upsert(t->index, &view, ids, NULL, &changed);
    if (t->memory_fails) faults_fail_allocation(0);
    if (t->memory_fails && status == KITH_ERR_NO_MEMORY) {
        for (size_t i = 0; i < count; i++) atomic_store(&t->ids[ids[i]].begun, atomic_load(&t->ids[ids[i]].done));
        return;
    }
    if (status != KITH_OK) fail(t, "a change failed", ids[0]);
    if (changed != count) fail(t, "a change did not find all", ids[0]);
    for (size_t i = 0; i < count; i++) atomic_store(&t->ids[ids[i]].done, next[i]);
    if (own->calls++ == 0) atomic_fetch_add(&t->started, 1);
}

static void *write_on(void *context) {
    thread_of *own = context;
    while (!is_over(own->t)) {
        change_some(own);
        if (own->number == 0 && own->calls % 64 == 63 && !worked(own->t, kith_index_compact(own->t->index)))
            fail(own->t, "compact failed", 0);
    }
    return NULL;
}

/* ---- Searchers ------------------------------------------------------------------------------------------------ */

typedef struct seen {
    uint32_t before[IDS], after[IDS];
} seen;

static void note_before(const trial *t, seen *s) {
    for (size_t i = 0; i < IDS; i++) s->before[i] = atomic_load(&t->ids[i].done);
}
static void note_after(const trial *t, seen *s) {
    for (size_t i = 0; i < IDS; i++) s->after[i] = atomic_load(&t->ids[i].begun);
}

/* Was this distance that of the id at a moment between? States between are those from before to after: versions rise by
 * one, so each of them has been. */
static bool was_there(const trial *t, const seen *s, const float *query, int64_t id, float distance) {
    uint32_t first = s->before[id], last = s->after[id];
    for (uint32_t version = first / 2; version <= last / 2; version++) {
        if (version == 0 || (version == first / 2 && first % 2 == 0)) continue; /* it had gone before */
        float vector[DIM];
        vector_of(id, version, vector);
        double value = value_of(t->metric, query, vector);
        if (fabs(value - (double)distance) <= 1e-4 * (1 + fabs(value))) return true;
    }
    return false;
}

typedef bool (*expected_fn)(int64_t id);
static bool is_any(int64_t id) { return id >= 0 && id < IDS; }
static bool is_even(int64_t id) { return is_any(id) && id % 2 == 0; }
static bool is_late(int64_t id) { return is_any(id) && id >= STILL / 2; }

/* Holds the results of one query, nearest first, against what had been there. All that stayed has to be among them when
 * they are complete. */
static void check_row(trial *t, const seen *s, const float *query, const int64_t *ids, const float *distances,
                      size_t count, size_t k, expected_fn expected) {
    bool found[IDS] = {false};
    for (size_t i = 0; i < count; i++) {
        if (!expected(ids[i])) {
            fail(t, "an id that must not be found", ids[i]);
            return;
        }
        if (found[ids[i]]) fail(t, "an id twice", ids[i]);
        found[ids[i]] = true;
        if (t->is_exact && !was_there(t, s, query, ids[i], distances[i]))
            fail(t, "a distance of no moment", ids[i]);
        if (s->before[ids[i]] == s->after[ids[i]] && s->before[ids[i]] % 2 == 0) fail(t, "removed before", ids[i]);
    }
    for (size_t i = 1; i < count && t->is_exact; i++)
        if (t->metric == KITH_L2 ? distances[i] < distances[i - 1] : distances[i] > distances[i - 1])
            fail(t, "out of order", ids[i]);
    if (!t->is_exact) return;
    /* What is nearer than the last result and stayed there, or was exchanged, has to be found. */
    double last = count < k || count == 0 ? INFINITY : (double)distances[count - 1];
    for (int64_t id = 0; id < IDS; id++) {
        bool stayed = s->before[id] % 2 != 0 && s->before[id] == s->after[id];
        if (!stayed || found[id] || !expected(id)) continue;
        float vector[DIM];
        vector_of(id, s->before[id] / 2, vector);
        double value = value_of(t->metric, query, vector);
        bool nearer = t->metric == KITH_L2 ? value < last * (1 - 1e-5) : value > last * (1 + 1e-5);
        if (last == (double)INFINITY || nearer) fail(t, "an id that was there is not found", id);
    }
}

/* So that lists and refinements miss nothing. */
static void look_at_all(kith_search_params *params) { params->nprobe = params->k_factor = params->ef = IDS; }

/* A call for queries of vectors that are there, or near them. */
static void search_some(thread_of *own, seen *s) {
    trial *t = own->t;
    enum { QUERIES_MAX = 24, K_MAX = 60 };
    float queries[QUERIES_MAX * DIM], distances[QUERIES_MAX * K_MAX];
    int64_t ids[QUERIES_MAX * K_MAX];
    size_t counts[QUERIES_MAX];
    size_t query_count = next_random(&own->random) % 2 == 0 ? 1 : QUERIES_MAX;
    size_t k = next_random(&own->random) % K_MAX + 1;
    for (size_t q = 0; q < query_count; q++)
        vector_of((int64_t)(next_random(&own->random) % IDS), next_random(&own->random) % 3, queries + q * DIM);
    kith_search_params params;
    kith_search_params_init(&params);
    params.context = own->scratch;
    bool filtered = next_random(&own->random) % 3 == 0;
    if (filtered) params.filter = own->even;
    look_at_all(&params);
    const kith_view view = {queries, KITH_F32, query_count, DIM, 0};
    note_before(t, s);
    kith_status status = kith_index_search(t->index, &view, k, &params, ids, distances, counts);
    note_after(t, s);
    if (status != KITH_OK) {
        if (!worked(t, status)) fail(t, "a search failed", -1);
        return;
    }
    for (size_t q = 0; q < query_count && !is_over(t); q++) {
        if (!filtered && counts[q] != k) fail(t, "fewer than k", -1);
        check_row(t, s, queries + q * DIM, ids + q * k, distances + q * k, counts[q], k,
                  filtered ? is_even : is_any);
    }
}

static void search_range(thread_of *own, seen *s) {
    trial *t = own->t;
    float query[DIM];
    vector_of((int64_t)(next_random(&own->random) % IDS), 1, query);
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = own->late;
    look_at_all(&params);
    const kith_view view = {query, KITH_F32, 1, DIM, 0};
    kith_range_result *result;
    note_before(t, s);
    kith_status status =
        kith_index_range_search(t->index, &view, t->metric == KITH_L2 ? INFINITY : -INFINITY, &params, &result);
    note_after(t, s);
    if (status != KITH_OK) {
        if (!worked(t, status)) fail(t, "a range search failed", -1);
        return;
    }
    check_row(t, s, query, result->ids, result->distances, result->limits[1], SIZE_MAX, is_late);
    kith_range_result_free(result);
}

static int64_t group_of(void *user, int64_t id) {
    (void)user;
    return id % GROUPS;
}

static void search_groups(thread_of *own) {
    trial *t = own->t;
    float query[DIM], distances[GROUPS];
    int64_t ids[GROUPS], groups[GROUPS];
    size_t count;
    vector_of((int64_t)(next_random(&own->random) % IDS), 1, query);
    const kith_view view = {query, KITH_F32, 1, DIM, 0};
    kith_status status =
        kith_index_search_groups(t->index, &view, GROUPS, group_of, NULL, NULL, ids, groups, distances, &count);
    if (status != KITH_OK || count != GROUPS) {
        if (!worked(t, status)) fail(t, "a group search failed", -1);
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (groups[i] != ids[i] % GROUPS) fail(t, "a group that is not the id's", ids[i]);
}

/* What is neither a search nor a change. */
static void look(thread_of *own) {
    trial *t = own->t;
    float vector[DIM];
    int64_t id = next_random(&own->random) % STILL;
    kith_memory_part parts[32];
    size_t count;
    if (kith_index_reconstruct(t->index, &id, 1, vector) != KITH_OK) fail(t, "reconstruct failed", id);
    if (kith_index_memory(t->index, parts, 32, &count) != KITH_OK) fail(t, "memory failed", -1);
    uint64_t bytes;
    kith_status told = kith_index_memory_for(t->index, STILL, 0, &bytes);
    if (told != KITH_OK && told != KITH_ERR_UNSUPPORTED) fail(t, "what memory will be failed", -1);
    if (kith_index_count(t->index) < STILL) fail(t, "the count is too small", -1);
    kith_index *copy;
    if (next_random(&own->random) % 8 != 0) return;
    if (kith_index_clone(t->index, &copy) != KITH_OK) fail(t, "clone failed", -1);
    if (kith_index_count(copy) < STILL) fail(t, "a clone has lost something", -1);
    kith_index_free(copy);
}

static void *search_on(void *context) {
    thread_of *own = context;
    seen *s = malloc(sizeof *s);
    while (!is_over(own->t)) {
        search_some(own, s);
        if (own->calls % 8 == 0) search_range(own, s);
        if (own->calls % 16 == 0) search_groups(own);
        if (own->calls % 32 == 0 && !own->t->memory_fails) look(own);
        if (own->calls++ == 0) atomic_fetch_add(&own->t->started, 1);
        bool all_started = atomic_load(&own->t->started) == WRITERS + SEARCHERS;
        if (all_started && now_ns() > own->t->end_ns) atomic_store(&own->t->stop, 1);
    }
    free(s);
    return NULL;
}

/* ---- Trials --------------------------------------------------------------------------------------------------- */

static void fill(trial *t) {
    float *vectors = malloc((size_t)STILL * DIM * sizeof *vectors);
    int64_t ids[STILL];
    for (int64_t id = 0; id < STILL; id++) {
        vector_of(id, 1, vectors + id * DIM);
        ids[id] = id;
        atomic_store(&t->ids[id].begun, state_of(1, true));
        atomic_store(&t->ids[id].done, state_of(1, true));
    }
    const kith_view view = {vectors, KITH_F32, STILL, DIM, 0};
    cr_assert_eq(kith_index_train(t->index, &view, NULL), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_add(t->index, &view, ids, NULL), KITH_OK, "%s", kith_error_message());
    free(vectors);
}

static void prepare(thread_of *own) {
    uint64_t words[(IDS + 63) / 64];
    for (size_t w = 0; w < sizeof words / sizeof *words; w++) words[w] = 0x5555555555555555u;
    cr_assert_eq(kith_search_context_create(&own->scratch), KITH_OK);
    cr_assert_eq(kith_filter_bitset(words, IDS, &own->even), KITH_OK);
    cr_assert_eq(kith_filter_range(STILL / 2, IDS, &own->late), KITH_OK);
}

static void let_go(thread_of *own) {
    kith_search_context_free(own->scratch);
    kith_filter_free(own->even);
    kith_filter_free(own->late);
}

static uint64_t trial_ns(void) {
    const char *seconds = getenv("KITH_CONCURRENT");
    return seconds != NULL ? (uint64_t)(atof(seconds) * 1e9) : 150000000;
}

/* When all is quiet: a search for all gives what the history says, and nothing else. */
static void check_end(trial *t) {
    size_t there = 0, found = 0;
    for (size_t id = 0; id < IDS; id++) there += atomic_load(&t->ids[id].done) % 2;
    cr_assert_eq(kith_index_count(t->index), there, "%s", t->spec);
    float query[DIM];
    int64_t ids[IDS];
    kith_search_params params;
    kith_search_params_init(&params);
    look_at_all(&params);
    vector_of(1, 1, query);
    const kith_view view = {query, KITH_F32, 1, DIM, 0};
    cr_assert_eq(kith_index_search(t->index, &view, there, &params, ids, NULL, NULL), KITH_OK, "%s: %s", t->spec,
                 kith_error_message());
    bool seen_already[IDS] = {false};
    for (size_t i = 0; i < there; i++) {
        cr_assert(is_any(ids[i]) && atomic_load(&t->ids[ids[i]].done) % 2 != 0, "%s", t->spec);
        found += !seen_already[ids[i]];
        seen_already[ids[i]] = true;
    }
    cr_assert_eq(found, there, "%s", t->spec);
}

static void run_trial(const trial *kind) {
    trial *t = malloc(sizeof *t);
    *t = *kind;
    const char *spec = t->spec;
    kith_metric metric = t->metric;
    cr_assert_eq(kith_index_create(spec, DIM, metric, &t->index), KITH_OK, "%s", kith_error_message());
    fill(t);
    pthread_t threads[WRITERS + SEARCHERS];
    thread_of own[WRITERS + SEARCHERS];
    t->end_ns = now_ns() + trial_ns();
    for (size_t i = 0; i < WRITERS + SEARCHERS; i++) {
        own[i] = (thread_of){.t = t, .number = i, .random = (uint32_t)i * 77 + 5};
        prepare(&own[i]);
    }
    for (size_t i = 0; i < WRITERS + SEARCHERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, i < WRITERS ? write_on : search_on, &own[i]), 0);
    uint64_t changes = 0, searches = 0;
    for (size_t i = 0; i < WRITERS + SEARCHERS; i++) {
        (void)pthread_join(threads[i], NULL);
        *(i < WRITERS ? &changes : &searches) += own[i].calls;
        let_go(&own[i]);
    }
    cr_assert_eq(atomic_load(&t->failures), 0, "%s", spec);
    cr_assert(changes > 0 && searches > 0, "%s: %llu changes, %llu searches", spec, (unsigned long long)changes,
              (unsigned long long)searches);
    check_end(t);
    kith_index_free(t->index);
    cr_assert_eq(kith_memory_live_blocks(), 0, "%s", spec);
    free(t);
}

static void run(const char *spec, kith_metric metric, bool is_exact) {
    run_trial(&(trial){.spec = spec, .metric = metric, .is_exact = is_exact});
}

static void run_without_memory(const char *spec, kith_metric metric) {
    faults_install();
    run_trial(&(trial){.spec = spec, .metric = metric, .is_exact = true, .memory_fails = true});
}

Test(concurrent, flat) {
    run("Flat", KITH_L2, true);
    run("Flat,u8", KITH_IP, true);
    run("Flat", KITH_COSINE, true);
}

Test(concurrent, refinements) {
    run("SQ8,RFlat", KITH_L2, true);
    run("SQ8,RSQ8", KITH_COSINE, false);
    run("PCA12,Flat", KITH_L2, true);
    run("PCA8,Flat", KITH_L2, false);
}

/* A change that has failed has changed nothing, for those who search meanwhile either. */
Test(concurrent, failing_memory) {
    run_without_memory("Flat", KITH_COSINE);
    run_without_memory("SQ8,RFlat", KITH_L2);
    run_without_memory("IVF8s,Flat", KITH_IP);
    run_without_memory("IVF8,PQ6x4fs,RFlat", KITH_L2);
}

Test(concurrent, lists) {
    run("SQ8", KITH_L2, false);
    run("IVF8,Flat", KITH_L2, true);
    run("IVF8s,SQ4,RFlat", KITH_COSINE, true);
}

Test(concurrent, lists_of_codes) {
    run("IVF8,SQ8", KITH_L2, false);
    run("IVF8s,Flat", KITH_IP, true);
    run("IVF8,PQ6x4fs,RFlat", KITH_L2, true);
    run("IVF8,Line32,Rf16", KITH_COSINE, false);
    run("IVF8_HNSW8,RaBitQ,RFlat", KITH_L2, true);
}

Test(concurrent, graphs) {
    run("HNSW8", KITH_L2, false);
    run("HNSW8,SQ8,Rf16", KITH_COSINE, false);
    run("PCA8,HNSW8,RFlat", KITH_IP, false);
}

/* ---- The last vector ------------------------------------------------------------------------------------------ */

typedef struct emptied {
    kith_index *index;
    _Atomic bool is_over, is_wrong;
} emptied;

static void *search_until_over(void *context) {
    emptied *e = context;
    float query[DIM], distance;
    vector_of(1, 1, query);
    const kith_view view = {query, KITH_F32, 1, DIM, 0};
    while (!atomic_load(&e->is_over)) {
        int64_t id;
        size_t count = 0;
        kith_status status = kith_index_search(e->index, &view, 1, NULL, &id, &distance, &count);
        if (status != KITH_ERR_EMPTY && (status != KITH_OK || count != 1)) atomic_store(&e->is_wrong, true);
    }
    return NULL;
}

/* A search finds something or is told that there is nothing, also while the last vectors go. */
Test(concurrent, emptied_and_filled) {
    const char *specs[] = {"Flat", "HNSW8", "HNSW8,SQ8,Rf16", "PCA8,HNSW8"};
    float *vectors = calloc(STILL, DIM * sizeof *vectors);
    int64_t ids[STILL];
    for (size_t i = 0; i < STILL; i++) vector_of((int64_t)i, 1, vectors + i * DIM), ids[i] = (int64_t)i;
    const kith_view view = {vectors, KITH_F32, STILL, DIM, 0};
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++) {
        emptied e = {0};
        cr_assert_eq(kith_index_create(specs[s], DIM, KITH_L2, &e.index), KITH_OK);
        cr_assert_eq(kith_index_train(e.index, &view, NULL), KITH_OK, "%s", kith_error_message());
        pthread_t searcher;
        cr_assert_eq(pthread_create(&searcher, NULL, search_until_over, &e), 0);
        for (size_t round = 0; round < 20; round++) {
            cr_assert_eq(kith_index_add(e.index, &view, ids, NULL), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_index_remove(e.index, ids, STILL, NULL), KITH_OK, "%s", kith_error_message());
        }
        atomic_store(&e.is_over, true);
        (void)pthread_join(searcher, NULL);
        cr_assert(!atomic_load(&e.is_wrong), "%s", specs[s]);
        kith_index_free(e.index);
    }
    free(vectors);
}

/* ---- Callbacks ------------------------------------------------------------------------------------------------ */

typedef struct called {
    kith_index *index, *others[2]; /* the others lie before and behind it in memory, or as it comes */
    size_t calls, count;
} called;

/* Within an addition: what was there before it can be searched, and nothing else be done. */
static int look_around(void *user, const char *phase, uint64_t done, uint64_t total) {
    (void)phase, (void)done, (void)total;
    called *c = user;
    float query[DIM], vector[DIM], distance;
    int64_t id;
    size_t count;
    uint64_t bytes;
    vector_of(0, 1, query);
    const kith_view view = {query, KITH_F32, 1, DIM, 0};
    cr_assert_eq(kith_index_search(c->index, &view, 1, NULL, &id, &distance, &count), KITH_OK);
    cr_assert(id == 0 && count == 1);
    cr_assert_eq(kith_index_count(c->index), c->count);
    cr_assert_eq(kith_index_remove(c->index, &id, 1, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_add(c->index, &view, NULL, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_reconstruct(c->index, &id, 1, vector), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_memory_for(c->index, 1, 0, &bytes), KITH_ERR_ARGUMENT);
    for (size_t i = 0; i < 2; i++)
        cr_assert_eq(kith_index_merge(c->others[i], c->index, 1 << 20), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_compact(c->index), KITH_ERR_ARGUMENT); /* what failed has left it as it is: held */
    c->calls++;
    return 0;
}

/* From the caller's thread, and from whichever of several is first. */
Test(concurrent, callbacks_of_a_change_may_search) {
    enum { MANY = 4096 };
    trial *t = calloc(1, sizeof *t);
    called c = {.count = STILL};
    cr_assert_eq(kith_index_create("Flat", DIM, KITH_L2, &c.others[0]), KITH_OK);
    cr_assert_eq(kith_index_create("Flat", DIM, KITH_L2, &t->index), KITH_OK);
    cr_assert_eq(kith_index_create("Flat", DIM, KITH_L2, &c.others[1]), KITH_OK);
    fill(t);
    c.index = t->index;
    kith_job job;
    kith_job_init(&job);
    job.progress = look_around;
    job.progress_user = &c;
    float *vectors = calloc(MANY, DIM * sizeof *vectors);
    for (size_t i = 0; i < MANY; i++) vector_of(STILL, 1, vectors + i * DIM);
    kith_view view = {vectors, KITH_F32, 1, DIM, 0};
    cr_assert_eq(kith_index_add(t->index, &view, NULL, &job), KITH_OK, "%s", kith_error_message());
    cr_assert_gt(c.calls, 0);
    c.count++;
    c.calls = 0;
    job.threads = 4;
    view.count = MANY;
    cr_assert_eq(kith_index_add(t->index, &view, NULL, &job), KITH_OK, "%s", kith_error_message());
    cr_assert_gt(c.calls, 1);
    cr_assert_eq(kith_index_count(t->index), STILL + 1 + MANY);
    for (size_t i = 0; i < 2; i++) kith_index_free(c.others[i]);
    kith_index_free(t->index);
    free(vectors);
    free(t);
}

/* Two indexes that are merged into each other at the same time. */
static void *merge_on(void *context) {
    kith_index **both = context;
    for (size_t i = 0; i < 20; i++) {
        int64_t shift = 1 + (int64_t)kith_index_count(both[0]) + ((int64_t)i << 32);
        if (kith_index_count(both[0]) > 20000) break;
        kith_status status = kith_index_merge(both[0], both[1], shift);
        if (status != KITH_OK && status != KITH_ERR_EXISTS) return both;
    }
    return NULL;
}

Test(concurrent, merges_the_other_way_round) {
    kith_index *indexes[2];
    float vector[DIM];
    vector_of(1, 1, vector);
    const kith_view view = {vector, KITH_F32, 1, DIM, 0};
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(kith_index_create("Flat", DIM, KITH_L2, &indexes[i]), KITH_OK);
        cr_assert_eq(kith_index_add(indexes[i], &view, NULL, NULL), KITH_OK);
    }
    kith_index *pairs[2][2] = {{indexes[0], indexes[1]}, {indexes[1], indexes[0]}};
    pthread_t threads[2];
    void *results[2];
    for (size_t i = 0; i < 2; i++) cr_assert_eq(pthread_create(&threads[i], NULL, merge_on, pairs[i]), 0);
    for (size_t i = 0; i < 2; i++) (void)pthread_join(threads[i], &results[i]);
    cr_assert(results[0] == NULL && results[1] == NULL);
    for (size_t i = 0; i < 2; i++) kith_index_free(indexes[i]);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
