/* SPDX-License-Identifier: Apache-2.0
 *
 * Random sequences of changes, searches, saves and loads against a model that holds the vectors in a plain list: for
 * every kind of index that can be changed. A sample runs by default; KITH_SEQUENCES says how many sequences each kind
 * is to run instead (10000 for the long run), KITH_SEQUENCE_FIRST the number of the first, to see one again.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "faults.h"
#include "index_fixture.h"
#include "memory_faults.h"

#define OK(call) cr_assert_eq((call), KITH_OK, "%s, %s: %s", where, #call, kith_error_message())

enum { DIM = 5, ROWS = 512, IDS = 60, STEPS = 24, BATCH = 24, ALL = ROWS + IDS, TRAINED = 64 };

/* What is running, for messages. */
static char where[96];

typedef struct kind {
    const char *spec;
    kith_metric metric;
    bool is_exact; /* with the parameters below every search is */
} index_kind;

static const index_kind kinds[] = {
    {"Flat", KITH_L2, true},           {"Flat,f16", KITH_COSINE, true},       {"SQ8,RFlat", KITH_IP, true},
    {"IVF5,Flat", KITH_L2, true},      {"IVF5,SQ8,RFlat", KITH_COSINE, true}, {"HNSW4", KITH_L2, false},
    {"HNSW6,f16", KITH_COSINE, false}, {"HNSW4,SQ8,RFlat", KITH_IP, false},   {"RR5,HNSW4,RFlat", KITH_L2, false},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

typedef struct sequence {
    const index_kind *kind;
    kith_index *index;
    fixture_model model;
    const fixture_vectors *vectors;
    size_t next_row;
    int64_t next_id;
    uint64_t number, drawn;
    const char *folder;
} sequence;

static size_t draw(sequence *run, size_t bound) {
    return (size_t)kith_random_below(run->number, 1, run->drawn++, bound);
}

/* Up to `wanted` distinct ids of 0 .. IDS - 1: of those that are there, of those that are not, or of all (-1). */
static size_t draw_ids(sequence *run, size_t wanted, int there, int64_t *ids) {
    size_t count = 0;
    for (size_t tries = 0; tries < 4 * wanted && count < wanted; tries++) {
        int64_t id = (int64_t)draw(run, IDS);
        bool is_twice = false, is_there = fixture_model_find(&run->model, id) != NULL;
        for (size_t i = 0; i < count; i++) is_twice |= ids[i] == id;
        if (!is_twice && (there < 0 || is_there == (there != 0))) ids[count++] = id;
    }
    return count;
}

/* The next vectors, as the index gets them. */
static kith_view take_rows(sequence *run, size_t count) {
    if (run->next_row + count > ROWS) run->next_row = 0;
    kith_view view = fixture_view(run->vectors, run->next_row, count);
    run->next_row += count;
    return view;
}

static void put_rows(sequence *run, const int64_t *ids, size_t count) {
    const float *values = run->vectors->values + (run->next_row - count) * DIM;
    for (size_t i = 0; i < count; i++) {
        fixture_model_put(&run->model, ids[i], values + i * DIM);
        if (ids[i] >= run->next_id) run->next_id = ids[i] + 1;
    }
}

/* ---- Steps ------------------------------------------------------------------------------------------------ */

static void step_add(sequence *run) {
    int64_t ids[BATCH];
    bool numbered = draw(run, 4) == 0;
    size_t count = draw_ids(run, 1 + draw(run, BATCH), 0, ids);
    if (numbered && run->next_id < IDS + ROWS / 2) {
        count = 1 + draw(run, 4);
        for (size_t i = 0; i < count; i++) ids[i] = run->next_id + (int64_t)i;
    } else {
        numbered = false;
    }
    if (count == 0) return;
    kith_view view = take_rows(run, count);
    OK(kith_index_add(run->index, &view, numbered ? NULL : ids, NULL));
    put_rows(run, ids, count);
}

/* An id that is there: refused, and nothing changes. */
static void step_add_again(sequence *run) {
    int64_t ids[2];
    if (draw_ids(run, 1, 1, ids) == 0 || draw_ids(run, 1, 0, ids + 1) == 0) return;
    size_t row = run->next_row;
    kith_view view = take_rows(run, 2);
    cr_assert_eq(kith_index_add(run->index, &view, ids, NULL), KITH_ERR_EXISTS, "%s", where);
    run->next_row = row;
}

static void step_remove(sequence *run) {
    int64_t ids[BATCH];
    size_t count = draw_ids(run, 1 + draw(run, draw(run, 2) ? 3 : BATCH), -1, ids), gone = 0, removed;
    for (size_t i = 0; i < count; i++) gone += fixture_model_remove(&run->model, ids[i]);
    OK(kith_index_remove(run->index, ids, count, &removed));
    cr_assert_eq(removed, gone, "%s", where);
}

static void step_remove_filter(sequence *run) {
    int64_t first = (int64_t)draw(run, IDS), last = first + (int64_t)draw(run, IDS / 3);
    size_t gone = 0, removed;
    kith_filter *filter;
    OK(kith_filter_range(first, last, &filter));
    for (int64_t id = first; id < last; id++) gone += fixture_model_remove(&run->model, id);
    OK(kith_index_remove_filter(run->index, filter, &removed));
    cr_assert_eq(removed, gone, "%s", where);
    kith_filter_free(filter);
}

static void step_update(sequence *run) {
    int64_t ids[BATCH];
    size_t count = draw_ids(run, 1 + draw(run, BATCH / 2), 1, ids);
    if (count == 0) return;
    kith_view view = take_rows(run, count);
    OK(kith_index_update(run->index, &view, ids));
    put_rows(run, ids, count);
    if (draw_ids(run, 1, 0, ids) == 0) return;
    view.count = 1;
    cr_assert_eq(kith_index_update(run->index, &view, ids), KITH_ERR_NOT_FOUND, "%s", where);
}

static void step_upsert(sequence *run) {
    int64_t ids[BATCH];
    size_t count = draw_ids(run, 1 + draw(run, BATCH), -1, ids), there = 0, replaced;
    for (size_t i = 0; i < count; i++) there += fixture_model_find(&run->model, ids[i]) != NULL;
    kith_view view = take_rows(run, count);
    OK(kith_index_upsert(run->index, &view, ids, NULL, &replaced));
    cr_assert_eq(replaced, there, "%s", where);
    put_rows(run, ids, count);
}

static void step_save(sequence *run) {
    const char *path = faults_path(run->folder, "s");
    kith_index *other;
    OK(kith_index_save(run->index, path));
    if (draw(run, 2) == 0) {
        OK(kith_index_load(path, &other));
    } else {
        kith_index *mapped;
        OK(kith_index_map(path, &mapped));
        OK(kith_index_clone(mapped, &other));
        kith_index_free(mapped);
    }
    kith_index_free(run->index);
    run->index = other;
}

static void step_compact(sequence *run) { OK(kith_index_compact(run->index)); }

/* A part leaves, is what it should be, and comes back. */
static void step_split(sequence *run) {
    int64_t first = (int64_t)draw(run, IDS), last = first + (int64_t)draw(run, IDS);
    size_t inside = 0, all = run->model.count;
    kith_filter *filter;
    kith_index *part;
    for (size_t i = 0; i < all; i++) inside += run->model.ids[i] >= first && run->model.ids[i] < last;
    OK(kith_filter_range(first, last, &filter));
    OK(kith_index_split(run->index, filter, &part));
    kith_filter_free(filter);
    cr_assert_eq(kith_index_count(part), inside, "%s", where);
    cr_assert_eq(kith_index_count(run->index), all - inside, "%s", where);
    OK(kith_index_merge(run->index, part, 0));
    if (inside > 0) cr_assert_eq(kith_index_merge(run->index, part, 0), KITH_ERR_EXISTS, "%s", where);
    kith_index_free(part);
}

static void step_reset(sequence *run) {
    if (draw(run, 8) != 0) return;
    OK(kith_index_reset(run->index));
    run->model.count = 0;
    run->next_id = 0;
}

static void (*const steps[])(sequence *) = {step_add,    step_add,    step_add,    step_add_again,     step_remove,
                                            step_remove, step_update, step_upsert, step_remove_filter, step_save,
                                            step_split,  step_reset,  step_compact};

/* ---- What has to hold after each -------------------------------------------------------------------------- */

/* All vectors, each with its distance; and the nearest few. */
static void check(sequence *run, const fixture_vectors *queries) {
    size_t count = run->model.count;
    cr_assert_eq(kith_index_count(run->index), count, "%s", where);
    if (count == 0) return;
    fixture_check_content(run->index, &run->model);
    kith_search_params params;
    kith_search_params_init(&params);
    params.ef = params.nprobe = params.k_factor = ALL;
    fixture_check_search(run->index, &run->model, queries, count, &params, NULL);
    size_t k = count < 3 ? count : 3;
    if (run->kind->is_exact) {
        fixture_check_search(run->index, &run->model, queries, k, &params, NULL);
        return;
    }
    int64_t ids[3 * 4];
    size_t counts[4];
    kith_search_params_init(&params);
    kith_view view = fixture_view(queries, 0, queries->count);
    OK(kith_index_search(run->index, &view, k, &params, ids, NULL, counts));
    for (size_t q = 0; q < queries->count; q++) {
        cr_assert_eq(counts[q], k, "%s: %zu results of %zu", where, counts[q], k);
        for (size_t i = 0; i < k; i++)
            cr_assert_not_null(fixture_model_find(&run->model, ids[q * k + i]), "%s", where);
    }
}

static void run_sequence(const index_kind *kind, const kith_index *trained, uint64_t number,
                         const fixture_vectors *vectors, const fixture_vectors *queries, const char *folder) {
    sequence run = {.kind = kind, .vectors = vectors, .number = number, .folder = folder};
    snprintf(where, sizeof where, "%s, sequence %llu", kind->spec, (unsigned long long)number);
    fixture_model_init(&run.model, DIM);
    OK(kith_index_clone(trained, &run.index));
    run.next_row = draw(&run, ROWS);
    for (size_t s = 0; s < STEPS; s++) {
        size_t step = draw(&run, sizeof steps / sizeof *steps);
        snprintf(where, sizeof where, "%s, sequence %llu, step %zu (%zu)", kind->spec, (unsigned long long)number,
                 s, step);
        steps[step](&run);
        check(&run, queries);
    }
    fixture_model_free(&run.model);
    kith_index_free(run.index);
}

static size_t number_from(const char *name, size_t otherwise) {
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void run_kind(const index_kind *kind) {
    size_t first = number_from("KITH_SEQUENCE_FIRST", 0), count = number_from("KITH_SEQUENCES", 40);
    const char *folder = faults_folder();
    fixture_vectors vectors = fixture_vectors_make(KITH_F16, ROWS, DIM, 91); /* every type here holds them */
    fixture_vectors queries = fixture_vectors_make(KITH_F16, 4, DIM, 92);
    kith_index *trained;
    kith_view sample = fixture_view(&vectors, ROWS - TRAINED, TRAINED);
    OK(kith_index_create(kind->spec, DIM, kind->metric, &trained));
    OK(kith_index_train(trained, &sample, NULL));
    for (size_t i = 0; i < count; i++) run_sequence(kind, trained, first + i, &vectors, &queries, folder);
    kith_index_free(trained);
    fixture_vectors_free(&queries);
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}

Test(sequences, flat) { run_kind(&kinds[0]); }
Test(sequences, flat_f16) { run_kind(&kinds[1]); }
Test(sequences, codes_refined) { run_kind(&kinds[2]); }
Test(sequences, inverted_lists) { run_kind(&kinds[3]); }
Test(sequences, inverted_lists_refined) { run_kind(&kinds[4]); }
Test(sequences, graph) { run_kind(&kinds[5]); }
Test(sequences, graph_f16) { run_kind(&kinds[6]); }
Test(sequences, graph_of_codes_refined) { run_kind(&kinds[7]); }
Test(sequences, graph_transformed_refined) { run_kind(&kinds[8]); }

/* ---- What a sequence has found ---------------------------------------------------------------------------- */

/* Ids that do not rise, until the last one goes: what was saved then was refused when loaded. */
Test(sequences, ids_that_rise_again) {
    static const char *const specs[] = {"Flat", "SQ8,RFlat", "HNSW4", "IVF2,Flat"};
    const char *folder = faults_folder(), *path = faults_path(folder, "s");
    fixture_vectors vectors = fixture_vectors_make(KITH_F16, TRAINED, DIM, 94);
    kith_view all = fixture_view(&vectors, 0, TRAINED), view = fixture_view(&vectors, 0, 3);
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++) {
        kith_index *index, *copy;
        const int64_t ids[] = {5, 9, 3};
        snprintf(where, sizeof where, "%s", specs[s]);
        OK(kith_index_create(specs[s], DIM, KITH_L2, &index));
        OK(kith_index_train(index, &all, NULL));
        OK(kith_index_add(index, &view, ids, NULL));
        OK(kith_index_remove(index, ids + 2, 1, NULL));
        OK(kith_index_save(index, path));
        OK(kith_index_load(path, &copy));
        cr_assert_eq(kith_index_count(copy), 2);
        kith_index_free(copy);
        kith_index_free(index);
    }
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}

/* Everything goes, in one call or one at a time, and other vectors come under the same ids. */
static void check_emptied(const index_kind *kind, const fixture_vectors *vectors, const fixture_vectors *queries) {
    enum { NB = 50 };
    kith_index *index;
    int64_t ids[NB], nothing;
    kith_view view = fixture_view(vectors, 0, TRAINED), one = fixture_view(queries, 0, 1);
    OK(kith_index_create(kind->spec, DIM, kind->metric, &index));
    OK(kith_index_train(index, &view, NULL));
    for (size_t round = 0; round < 4; round++) {
        snprintf(where, sizeof where, "%s, round %zu", kind->spec, round);
        fixture_model model;
        fixture_model_init(&model, DIM);
        for (size_t i = 0; i < NB; i++) ids[i] = (int64_t)(round < 2 ? i : (i * 7 + round) % NB);
        view = fixture_view(vectors, 60 * round, NB);
        OK(kith_index_add(index, &view, ids, NULL));
        for (size_t i = 0; i < NB; i++) fixture_model_put(&model, ids[i], vectors->values + (60 * round + i) * DIM);
        sequence run = {.kind = kind, .index = index, .model = model};
        check(&run, queries);
        size_t removed, step = round % 2 == 0 ? NB : 1;
        for (size_t i = 0; i < NB; i += step) {
            OK(kith_index_remove(index, ids + i, step, &removed));
            cr_assert_eq(removed, step, "%s", where);
        }
        cr_assert_eq(kith_index_count(index), 0, "%s", where);
        cr_assert_eq(kith_index_search(index, &one, 1, NULL, &nothing, NULL, NULL), KITH_ERR_EMPTY, "%s", where);
        fixture_model_free(&model);
    }
    kith_index_free(index);
}

Test(sequences, emptied_and_filled_again) {
    fixture_vectors vectors = fixture_vectors_make(KITH_F16, ROWS, DIM, 95);
    fixture_vectors queries = fixture_vectors_make(KITH_F16, 4, DIM, 96);
    for (size_t k = 0; k < KINDS; k++) check_emptied(&kinds[k], &vectors, &queries);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
}

/* What cannot be done is said, and nothing is lost. */
static void check_bad_input(const index_kind *kind, const fixture_vectors *vectors, const char *path) {
    kith_index *index, *mapped;
    kith_view view = fixture_view(vectors, 0, TRAINED), two = fixture_view(vectors, 100, 2);
    snprintf(where, sizeof where, "%s", kind->spec);
    OK(kith_index_create(kind->spec, DIM, kind->metric, &index));
    OK(kith_index_train(index, &view, NULL));
    OK(kith_index_add(index, &view, NULL, NULL));
    OK(kith_index_save(index, path));
    OK(kith_index_map(path, &mapped));
    size_t removed = 9;
    const int64_t unknown[] = {1000, -5}, twice[] = {500, 500}, one_there[] = {500, 3}, there = 3;
    OK(kith_index_remove(index, unknown, 2, &removed));
    cr_assert_eq(removed, 0, "%s", where);
    cr_assert_eq(kith_index_add(index, &two, one_there, NULL), KITH_ERR_EXISTS, "%s", where);
    cr_assert_not_null(strstr(kith_error_message(), "3"), "%s", where);
    cr_assert_neq(kith_index_add(index, &two, twice, NULL), KITH_OK, "%s", where);
    cr_assert_neq(kith_index_upsert(index, &two, twice, NULL, NULL), KITH_OK, "%s", where);
    cr_assert_eq(kith_index_update(index, &two, one_there), KITH_ERR_NOT_FOUND, "%s", where);
    cr_assert_not_null(strstr(kith_error_message(), "500"), "%s", where);
    cr_assert_eq(kith_index_remove(mapped, &there, 1, &removed), KITH_ERR_READ_ONLY, "%s", where);
    cr_assert_eq(kith_index_compact(mapped), KITH_ERR_READ_ONLY, "%s", where);
    cr_assert_eq(kith_index_count(index), TRAINED, "%s", where);
    fixture_model model;
    fixture_model_init(&model, DIM);
    for (size_t i = 0; i < TRAINED; i++) fixture_model_put(&model, (int64_t)i, vectors->values + i * DIM);
    fixture_check_content(index, &model);
    fixture_check_content(mapped, &model);
    fixture_model_free(&model);
    kith_index_free(mapped);
    kith_index_free(index);
}

Test(sequences, bad_input_changes_nothing) {
    const char *folder = faults_folder(), *path = faults_path(folder, "s");
    fixture_vectors vectors = fixture_vectors_make(KITH_F16, ROWS, DIM, 97);
    for (size_t k = 0; k < KINDS; k++) check_bad_input(&kinds[k], &vectors, path);
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}

/* ---- Failures --------------------------------------------------------------------------------------------- */

typedef kith_status (*change_fn)(kith_index *index, const fixture_vectors *vectors, kith_index **out);

static kith_status upsert_some(kith_index *index, const fixture_vectors *vectors, kith_index **out) {
    int64_t ids[BATCH];
    (void)out;
    for (size_t i = 0; i < BATCH; i++) ids[i] = (int64_t)(7 * i);
    kith_view view = fixture_view(vectors, 200, BATCH);
    return kith_index_upsert(index, &view, ids, NULL, NULL);
}

static kith_status add_some(kith_index *index, const fixture_vectors *vectors, kith_index **out) {
    int64_t ids[BATCH];
    (void)out;
    for (size_t i = 0; i < BATCH; i++) ids[i] = (int64_t)(1000 - 11 * i);
    kith_view view = fixture_view(vectors, 200, BATCH);
    return kith_index_add(index, &view, ids, NULL);
}

static kith_status remove_some(kith_index *index, const fixture_vectors *vectors, kith_index **out) {
    static const int64_t ids[] = {0, 119, 7, 3, 60, 500, 7, 61, 62, 63};
    (void)vectors, (void)out;
    return kith_index_remove(index, ids, sizeof ids / sizeof *ids, NULL);
}

static kith_status remove_most(kith_index *index, const fixture_vectors *vectors, kith_index **out) {
    kith_filter *filter;
    (void)vectors, (void)out;
    kith_status status = kith_filter_range(10, 100, &filter);
    if (status == KITH_OK) status = kith_index_remove_filter(index, filter, NULL);
    kith_filter_free(filter);
    return status;
}

static kith_status update_some(kith_index *index, const fixture_vectors *vectors, kith_index **out) {
    static const int64_t ids[] = {0, 119, 60, 7};
    (void)out;
    kith_view view = fixture_view(vectors, 200, 4);
    return kith_index_update(index, &view, ids);
}

static kith_status split_some(kith_index *index, const fixture_vectors *vectors, kith_index **out) {
    kith_filter *filter;
    (void)vectors;
    kith_status status = kith_filter_range(20, 70, &filter);
    if (status == KITH_OK) status = kith_index_split(index, filter, out);
    kith_filter_free(filter);
    return status;
}

static kith_status compact_it(kith_index *index, const fixture_vectors *vectors, kith_index **out) {
    (void)vectors, (void)out;
    return kith_index_compact(index);
}

static kith_status merge_itself(kith_index *index, const fixture_vectors *vectors, kith_index **out) {
    (void)vectors;
    kith_status status = kith_index_clone(index, out);
    return status == KITH_OK ? kith_index_merge(index, *out, 1000) : status;
}

/* The same ids with the same vectors? */
static bool is_same(const kith_index *a, const kith_index *b) {
    enum { MAX = 2048 };
    static int64_t ids[MAX];
    static float one[MAX * DIM], other[MAX * DIM];
    size_t count = 0;
    if (kith_index_count(a) != kith_index_count(b)) return false;
    for (int64_t id = 0; id < MAX; id++) {
        float vector[DIM];
        if (kith_index_reconstruct(a, &id, 1, vector) == KITH_OK) ids[count++] = id;
    }
    cr_assert_eq(count, kith_index_count(a));
    return kith_index_reconstruct(a, ids, count, one) == KITH_OK &&
           kith_index_reconstruct(b, ids, count, other) == KITH_OK &&
           memcmp(one, other, count * DIM * sizeof *one) == 0;
}

/* After a failure the index is as before, and the same call does what it does on one that never saw it. */
static void check_failures(const index_kind *kind, change_fn change) {
    enum { NB = 120 };
    fixture_vectors vectors = fixture_vectors_make(KITH_F16, ROWS, DIM, 93);
    kith_view view = fixture_view(&vectors, 0, NB);
    kith_index *before, *expected, *out = NULL;
    int64_t gone[] = {3, 14, 15, 92, 65};
    snprintf(where, sizeof where, "%s", kind->spec);
    OK(kith_index_create(kind->spec, DIM, kind->metric, &before));
    OK(kith_index_train(before, &view, NULL));
    OK(kith_index_add(before, &view, NULL, NULL));
    OK(kith_index_remove(before, gone, 5, NULL));
    OK(kith_index_clone(before, &expected));
    OK(change(expected, &vectors, &out));
    kith_index_free(out);
    for (uint64_t n = 1, done = 0; done == 0; n++) {
        kith_index *index;
        OK(kith_index_clone(before, &index));
        out = NULL;
        faults_fail_allocation(n);
        kith_status status = change(index, &vectors, &out);
        done = faults_allocation_count() < n;
        faults_fail_allocation(0);
        cr_assert(status == KITH_OK || status == KITH_ERR_NO_MEMORY, "%s: %s", where, kith_error_message());
        cr_assert(status == KITH_OK || !done);
        cr_assert(is_same(index, status == KITH_OK ? expected : before), "%s: failure %llu", where,
                  (unsigned long long)n);
        kith_index_free(out);
        kith_index_free(index);
    }
    kith_index_free(expected);
    kith_index_free(before);
    fixture_vectors_free(&vectors);
    cr_assert_eq(kith_memory_live_blocks(), 0, "%s", where);
}

static void check_all_failures(change_fn change) {
    memory_faults_install();
    for (size_t k = 0; k < KINDS; k++) check_failures(&kinds[k], change);
}

Test(sequences, add_may_fail) { check_all_failures(add_some); }
Test(sequences, remove_may_fail) { check_all_failures(remove_some); }
Test(sequences, remove_of_most_may_fail) { check_all_failures(remove_most); }
Test(sequences, update_may_fail) { check_all_failures(update_some); }
Test(sequences, upsert_may_fail) { check_all_failures(upsert_some); }
Test(sequences, split_may_fail) { check_all_failures(split_some); }
Test(sequences, compact_may_fail) { check_all_failures(compact_it); }
Test(sequences, merge_may_fail) { check_all_failures(merge_itself); }
