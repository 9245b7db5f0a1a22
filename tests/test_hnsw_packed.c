/* SPDX-License-Identifier: Apache-2.0
 *
 * Graphs with packed rows: what walks over them find is what walks over links and codes find, bit for bit, and packed
 * rows are there, and right, after whatever has changed a graph.
 */
#include "faults.h"
#include "hnsw_fixture.h"

enum { DIM = 24, COUNT = 1500, QUERIES = 60, K = 7, EF = 20 };
static const kith_metric metrics[] = {KITH_L2, KITH_IP, KITH_COSINE};

typedef struct answers {
    int64_t ids[QUERIES * K];
    float distances[QUERIES * K];
    size_t counts[QUERIES];
} answers;

/* A bound on distances, however large, makes walks leave packed rows alone. */
static void search(const kith_index *index, const float *queries, bool over_links, size_t threads, answers *out) {
    kith_search_params params;
    kith_search_params_init(&params);
    params.ef = EF;
    params.threads = threads;
    params.max_distances = over_links ? (uint64_t)1 << 40 : 0;
    memset(out, 0, sizeof *out);
    kith_view view = view_of(queries, QUERIES, DIM);
    OK(kith_index_search(index, &view, K, &params, out->ids, out->distances, out->counts));
}

static bool is_packed(const kith_index *index) { return kith_hnsw_of_const(index)->packed.room > 0; }

/* Packed or not: the same answers. Where rows are packed, they are what they should be. */
static void check(const kith_index *index, const float *queries, bool packed) {
    static answers over_links, found;
    cr_assert_eq(is_packed(index), packed);
    if (packed) OK(kith_hnsw_verify_packed(kith_hnsw_of_const(index)));
    search(index, queries, true, 1, &over_links);
    for (size_t threads = 1; threads <= 3; threads += 2) {
        search(index, queries, false, threads, &found);
        cr_assert_eq(memcmp(&found, &over_links, sizeof found), 0, "%s, %zu threads", index->spec, threads);
    }
}

static kith_index *trained(const char *spec, kith_metric metric, const float *values) {
    kith_index *index = created(spec, DIM, metric);
    kith_view view = view_of(values, COUNT, DIM);
    OK(kith_index_train(index, &view, NULL));
    return index;
}

static kith_index *built(const char *spec, kith_metric metric, const float *values) {
    kith_index *index = trained(spec, metric, values);
    add_on(index, values, COUNT, 2);
    return index;
}

Test(hnsw_packed, finds_what_links_and_codes_find) {
    /* 4 and 32 links, one block; 40 and 128, two and four, the last of them not full */
    static const char *const specs[] = {"HNSW2,RaBitQ", "HNSW16,RaBitQ", "HNSW20,RaBitQ1", "HNSW64,RaBitQ"};
    float *values = surface(COUNT, DIM, 5), *queries = surface(QUERIES, DIM, 6);
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++)
        for (size_t m = 0; m < sizeof metrics / sizeof *metrics; m++) {
            kith_index *index = built(specs[s], metrics[m], values);
            check(index, queries, true);
            kith_index_free(index);
        }
    free(values);
    free(queries);
}

Test(hnsw_packed, other_codes_are_not_packed) {
    static const char *const specs[] = {"HNSW4", "HNSW4,SQ8", "HNSW4,RaBitQ2", "HNSW4,Line64x1"};
    float *values = surface(COUNT, DIM, 5), *queries = surface(QUERIES, DIM, 6);
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++) {
        kith_index *index = built(specs[s], KITH_L2, values);
        check(index, queries, false);
        kith_index_free(index);
    }
    free(values);
    free(queries);
}

Test(hnsw_packed, follow_changes) {
    float *values = surface(2 * COUNT, DIM, 5), *queries = surface(QUERIES, DIM, 6);
    int64_t ids[COUNT];
    size_t removed;
    for (size_t i = 0; i < COUNT; i++) ids[i] = (int64_t)i;
    kith_index *index = trained("HNSW16,RaBitQ", KITH_L2, values);
    cr_assert(!is_packed(index));
    add_on(index, values, 1, 1);
    add_on(index, values + DIM, COUNT - 1, 1);
    check(index, queries, true);
    add_on(index, values + COUNT * DIM, 3, 1); /* links change in place */
    check(index, queries, false);
    OK(kith_index_compact(index));
    check(index, queries, true);
    add_on(index, values + (COUNT + 3) * DIM, COUNT / 2, 1); /* links are made anew beside the old ones */
    check(index, queries, true);
    OK(kith_index_remove(index, ids, 2, &removed)); /* marked only */
    check(index, queries, true);
    OK(kith_index_remove(index, ids, COUNT / 2, &removed)); /* repaired */
    cr_assert_eq(kith_hnsw_of_const(index)->dead.count, 0);
    check(index, queries, true);
    kith_view view = view_of(values, 2, DIM);
    OK(kith_index_update(index, &view, ids + COUNT - 2));
    check(index, queries, false);
    OK(kith_index_compact(index));
    check(index, queries, true);
    OK(kith_index_reset(index));
    cr_assert(!is_packed(index));
    add_on(index, values, COUNT, 1);
    check(index, queries, true);
    kith_index_free(index);
    free(values);
    free(queries);
}

static int cancel(void *user, const char *phase, uint64_t done, uint64_t total) {
    (void)phase;
    (void)done;
    (void)total;
    return *(const int *)user;
}

Test(hnsw_packed, stay_when_an_addition_is_cancelled) {
    int stop = 1;
    float *values = surface(2 * COUNT, DIM, 5), *queries = surface(QUERIES, DIM, 6);
    kith_index *index = built("HNSW16,RaBitQ", KITH_L2, values);
    kith_job job;
    kith_job_init(&job);
    job.progress = cancel;
    job.progress_user = &stop;
    kith_view view = view_of(values + COUNT * DIM, COUNT, DIM);
    cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_ERR_CANCELLED);
    check(index, queries, true);
    kith_index_free(index);
    free(values);
    free(queries);
}

Test(hnsw_packed, survive_files_and_copies) {
    const char *folder = faults_folder(), *path = faults_path(folder, "graph.kith");
    float *values = surface(COUNT + 3, DIM, 5), *queries = surface(QUERIES, DIM, 6);
    kith_index *index = built("HNSW16,RaBitQ", KITH_COSINE, values), *other;
    static answers before, after;
    for (int packed = 1; packed >= 0; packed--) {
        search(index, queries, false, 1, &before);
        OK(kith_index_save(index, path));
        OK(kith_index_map(path, &other));
        check(other, queries, packed != 0);
        search(other, queries, false, 1, &after);
        cr_assert_eq(memcmp(&before, &after, sizeof before), 0);
        kith_index_free(other);
        OK(kith_index_load(path, &other));
        check(other, queries, packed != 0);
        add_on(other, values + COUNT * DIM, 3, 1);
        check(other, queries, false);
        kith_index_free(other);
        OK(kith_index_clone(index, &other));
        check(other, queries, packed != 0);
        kith_index_free(other);
        if (packed != 0) add_on(index, values + COUNT * DIM, 3, 1);
    }
    kith_index_free(index);
    faults_folder_remove(folder);
    free(values);
    free(queries);
}

Test(hnsw_packed, are_counted) {
    enum { PARTS = 16 };
    float *values = surface(COUNT, DIM, 5);
    kith_index *index = built("HNSW20,RaBitQ", KITH_L2, values);
    kith_memory_part parts[PARTS];
    size_t count;
    uint64_t bytes = 0;
    OK(kith_index_memory(index, parts, PARTS, &count));
    for (size_t i = 0; i < count && i < PARTS; i++)
        if (strcmp(parts[i].name, "packed") == 0) bytes = parts[i].bytes;
    /* 40 links in 192 bytes, two blocks of 32 codes of 8 + 8 bytes */
    cr_assert_geq(bytes, (uint64_t)COUNT * (192 + 2 * 32 * 16));
    kith_index_free(index);
    free(values);
}

Test(hnsw_packed, without_memory_there_are_none) {
    enum { FEW = 300 };
    float *values = surface(COUNT, DIM, 5), *queries = surface(QUERIES, DIM, 6);
    size_t unpacked = 0;
    faults_install();
    kith_index *index = trained("HNSW16,RaBitQ", KITH_L2, values);
    kith_view view = view_of(values, FEW, DIM);
    for (size_t n = 1;; n++) {
        kith_index *copy;
        OK(kith_index_clone(index, &copy));
        faults_fail_allocation(n);
        kith_status status = kith_index_add(copy, &view, NULL, NULL);
        bool reached = faults_allocation_count() >= n;
        faults_fail_allocation(0);
        cr_assert(status == KITH_OK || status == KITH_ERR_NO_MEMORY);
        cr_assert_eq(copy->count, status == KITH_OK ? (size_t)FEW : 0);
        unpacked += status == KITH_OK && !is_packed(copy);
        if (status == KITH_OK) check(copy, queries, is_packed(copy));
        OK(kith_index_compact(copy));
        if (status == KITH_OK) check(copy, queries, true);
        kith_index_free(copy);
        if (!reached) break;
    }
    cr_assert_gt(unpacked, 0);
    kith_index_free(index);
    free(values);
    free(queries);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
