/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/parallel.h"
#include "base/random.h"
#include "hnsw_links.h"
#include "memory_faults.h"

/* Graphs of so many vectors that they are linked at once: hnsw_carve.c, hnsw_bulk.c. */

#define OK(call) cr_assert_eq((call), KITH_OK, "%s: %s", #call, kith_error_message())

enum { MANY = KITH_HNSW_BULK_MIN };

/* Bytes in clouds of two hundred points, each cloud `spread` wide, which lie on a coarse grid. */
static uint8_t *clouds(size_t count, size_t dim, uint64_t stream, uint64_t spread) {
    uint8_t *values = malloc(count * dim);
    for (size_t i = 0; i < count; i++)
        for (size_t d = 0; d < dim; d++) {
            uint64_t cloud = kith_random_below(3, stream, i, count / 200 + 1);
            values[i * dim + d] = (uint8_t)(kith_random_below(4, 1, cloud * dim + d, 256 - spread) +
                                            kith_random_below(5, stream, i * dim + d, spread));
        }
    return values;
}

static kith_view view_of(const uint8_t *values, size_t count, size_t dim) {
    return (kith_view){values, KITH_U8, count, dim, 0};
}

static kith_index *created(const char *spec, size_t dim, kith_metric metric) {
    kith_index *index;
    OK(kith_index_create(spec, dim, metric, &index));
    return index;
}

static void add_on(kith_index *index, const uint8_t *values, size_t count, size_t threads) {
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    kith_view view = view_of(values, count, index->dim);
    OK(kith_index_add(index, &view, NULL, &job));
}

static uint64_t hash_of(const kith_index *index) {
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    uint64_t hash = 14695981039346656037u;
    for (uint32_t v = 0; v < index->count; v++)
        for (size_t i = 0; i < graph->degree; i++) hash = (hash ^ kith_hnsw_links(graph, v)[i]) * 1099511628211u;
    for (size_t i = 0; i < graph->entry_count; i++) hash = (hash ^ graph->entries[i]) * 1099511628211u;
    return hash;
}

/* Of how many queries' k nearest the index finds at least the distance: equal vectors may stand for each other. */
static size_t found_of(const kith_index *index, const uint8_t *base, const uint8_t *queries, size_t query_count,
                       size_t k, size_t ef) {
    size_t dim = index->dim, found = 0;
    int64_t *ids = malloc(query_count * k * sizeof *ids);
    float *distances = malloc(query_count * k * sizeof *distances),
          *truth = malloc(query_count * k * sizeof *truth);
    kith_search_params params;
    kith_search_params_init(&params);
    kith_index *flat = created("Flat,u8", dim, index->metric);
    add_on(flat, base, index->count, 1);
    kith_view view = view_of(queries, query_count, dim);
    OK(kith_index_search(flat, &view, k, &params, ids, truth, NULL));
    params.ef = ef;
    OK(kith_index_search(index, &view, k, &params, ids, distances, NULL));
    bool similarity = kith_metric_is_similarity(index->metric) != 0;
    for (size_t q = 0; q < query_count; q++)
        for (size_t i = 0; i < k; i++) {
            float worst = truth[q * k + k - 1], own = distances[q * k + i];
            found += similarity ? own >= worst : own <= worst;
        }
    kith_index_free(flat);
    free(ids);
    free(distances);
    free(truth);
    return found;
}

/* ---- What it finds ---------------------------------------------------------------------------------------- */

/* At once, in two large parts, with a small part added later, and in many small parts: about as good, each of them
 * reached. */
static void check_parts(kith_metric metric, uint64_t spread) {
    enum { NB = 2 * MANY, NQ = 200, DIM = 12, K = 10 };
    static const size_t parts[] = {NB, NB / 2, NB / 8 * 5, NB / 16};
    size_t found[4];
    uint8_t *base = clouds(NB, DIM, 1, spread), *queries = clouds(NQ, DIM, 2, spread);
    for (size_t p = 0; p < 4; p++) {
        kith_index *index = created("HNSW12,u8", DIM, metric);
        for (size_t at = 0; at < NB; at += parts[p])
            add_on(index, base + at * DIM, kith_min_size(parts[p], NB - at), 2);
        cr_assert_eq(reachable(index), NB);
        found[p] = found_of(index, base, queries, NQ, K, 32);
        kith_index_free(index);
    }
    for (size_t p = 0; p < 3; p++)
        cr_assert_geq(found[p] + NQ * K / 100, found[3], "metric %d, spread %d: %zu %zu %zu %zu of %d", (int)metric,
                      (int)spread, found[0], found[1], found[2], found[3], NQ * K);
    cr_assert_geq(found[0], NQ * K * 94 / 100, "%zu", found[0]);
    free(base);
    free(queries);
}

Test(hnsw_bulk, parts_l2) { check_parts(KITH_L2, 128); }
Test(hnsw_bulk, parts_cosine) { check_parts(KITH_COSINE, 128); }
Test(hnsw_bulk, parts_ip) { check_parts(KITH_IP, 128); }
/* Clouds that lie far from each other. */
Test(hnsw_bulk, parts_of_far_clouds) { check_parts(KITH_L2, 8); }

/* Each vector forty times: others than its copies are found too. */
Test(hnsw_bulk, copies) {
    enum { COPIES = 40, DISTINCT = 500, NB = COPIES * DISTINCT, DIM = 8, K = 80 };
    uint8_t *distinct = clouds(DISTINCT, DIM, 1, 100), *base = malloc(NB * DIM);
    for (size_t i = 0; i < NB; i++) memcpy(base + i * DIM, distinct + i % DISTINCT * DIM, DIM);
    kith_index *index = created("HNSW16,u8", DIM, KITH_L2);
    add_on(index, base, NB, 2);
    cr_assert_eq(reachable(index), NB);
    size_t found = found_of(index, base, distinct, 200, K, 256);
    cr_assert_geq(found, 200 * K * 9 / 10, "%zu of %d", found, 200 * K);
    kith_index_free(index);
    free(distinct);
    free(base);
}

static void build_of_equal(const void *base, size_t count) {
    kith_index *index = created("HNSW16,u8", 4, KITH_L2);
    add_on(index, base, count, 2);
    cr_assert_eq(reachable(index), count);
    kith_index_free(index);
}

Test(hnsw_bulk, equal_vectors_take_linear_time) {
    enum { NB = 100000, DIM = 4 };
    uint8_t *base = calloc(NB, DIM);
    check_is_no_quadratic(build_of_equal, base, NB);
    free(base);
}

Test(hnsw_bulk, points_on_a_line) {
    enum { NB = 2 * MANY, DIM = 70 };
    uint8_t *base = calloc(NB, DIM);
    for (size_t i = 0; i < NB; i++)
        memset(base + i * DIM, 255, i * DIM / NB), base[i * DIM + i * DIM / NB] = (uint8_t)(i % 256);
    kith_index *index = created("HNSW8,u8", DIM, KITH_L2);
    add_on(index, base, NB, 2);
    cr_assert_eq(reachable(index), NB);
    size_t found = found_of(index, base, base, 2000, 1, 64);
    cr_assert_geq(found, 1980, "%zu", found);
    kith_index_free(index);
    free(base);
}

/* ---- The same everywhere ---------------------------------------------------------------------------------- */

static void check_threads(size_t count, size_t dim, size_t threads_max) {
    uint8_t *base = clouds(count, dim, 1, 128);
    kith_index *one = created("HNSW8,u8", dim, KITH_L2);
    add_on(one, base, count, 1);
    for (size_t threads = 2; threads <= threads_max; threads *= 2) {
        kith_index *many = created("HNSW8,u8", dim, KITH_L2);
        add_on(many, base, count, threads);
        cr_assert_eq(hash_of(many), hash_of(one), "%zu threads", threads);
        kith_index_free(many);
    }
    cr_assert_eq(reachable(one), count);
    kith_index_free(one);
    free(base);
}

Test(hnsw_bulk, same_bytes_at_any_thread_count) { check_threads(MANY + 77, 9, 16); }
/* So many that balls are carved again. */
Test(hnsw_bulk, same_bytes_of_a_deep_carving) { check_threads(130000, 4, 2); }

/* A hash of a graph of f32 under cosine, built in a process that runs on the named instruction set; 0: it lacks it. */
static uint64_t hash_on(kith_metric metric, const char *isa) {
    enum { NB = MANY + 5, DIM = 21 };
    int ends[2];
    uint64_t hash = 0;
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        setenv("KITH_ISA", isa, 1);
        if (kith_simd_status() == KITH_OK) {
            uint8_t *bytes = clouds(NB, DIM, 1, 128);
            float *base = malloc(NB * DIM * sizeof *base);
            for (size_t i = 0; i < (size_t)NB * DIM; i++) base[i] = (float)bytes[i] - 99.5f;
            kith_index *index;
            kith_view view = {base, KITH_F32, NB, DIM, 0};
            if (kith_index_create("HNSW8,f16", DIM, metric, &index) == KITH_OK &&
                kith_index_add(index, &view, NULL, NULL) == KITH_OK)
                hash = hash_of(index);
        }
        _exit(write(ends[1], &hash, sizeof hash) == (ssize_t)sizeof hash ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    cr_assert_eq(read(ends[0], &hash, sizeof hash), (ssize_t)sizeof hash);
    close(ends[0]);
    close(ends[1]);
    return hash;
}

Test(hnsw_bulk, same_bytes_on_every_instruction_set) {
    static const char *const sets[] = {"avx2", "avx512-vnni", "avx512", "neon"};
    for (kith_metric metric = KITH_L2; metric <= KITH_COSINE; metric++) {
        uint64_t want = hash_on(metric, "ref");
        cr_assert_neq(want, 0);
        for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
            uint64_t hash = hash_on(metric, sets[i]);
            if (hash != 0) cr_assert_eq(hash, want, "%s", sets[i]);
        }
    }
}

/* ---- Failures --------------------------------------------------------------------------------------------- */

static int cancel_at(void *user, const char *phase, uint64_t done, uint64_t total) {
    cr_assert(done <= total, "%s: %llu of %llu", phase, (unsigned long long)done, (unsigned long long)total);
    return strcmp(phase, user) == 0 && done > 0;
}

/* Cancelled in each of its phases, an addition to old nodes leaves them as they were. */
Test(hnsw_bulk, a_cancelled_addition_changes_nothing) {
    enum { DIM = 6 };
    static const char *const phases[] = {"partition", "add", "reverse links"};
    uint8_t *base = clouds(2 * MANY, DIM, 1, 128);
    kith_index *index = created("HNSW8,u8", DIM, KITH_L2);
    add_on(index, base, MANY, 1);
    uint64_t before = hash_of(index);
    for (size_t p = 0; p < 3; p++) {
        kith_job job;
        kith_job_init(&job);
        job.progress = cancel_at;
        job.progress_user = (void *)(uintptr_t)phases[p];
        kith_view view = view_of(base + MANY * DIM, MANY, DIM);
        cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_ERR_CANCELLED, "%s", phases[p]);
        cr_assert_eq(index->count, MANY);
        cr_assert_eq(hash_of(index), before, "%s", phases[p]);
    }
    kith_index_free(index);
    free(base);
}

Test(hnsw_bulk, every_allocation_may_fail) {
    enum { DIM = 2 };
    memory_faults_install();
    uint8_t *base = clouds(2 * MANY, DIM, 1, 200);
    kith_index *index = created("HNSW4,u8", DIM, KITH_L2);
    add_on(index, base, MANY, 1);
    uint64_t before = hash_of(index);
    kith_job job;
    kith_job_init(&job);
    job.threads = 2;
    kith_status status;
    kith_view view = view_of(base + MANY * DIM, MANY, DIM);
    MEMORY_FAULTS_EACH(status, kith_index_add(index, &view, NULL, &job)) {
        cr_assert_eq(index->count, MANY);
        cr_assert_eq(hash_of(index), before);
    }
    cr_assert_eq(reachable(index), 2 * MANY);
    kith_index_free(index);
    cr_assert_eq(kith_memory_live_blocks(), 0);
    free(base);
}

/* Within a budget candidates are found part by part: the same graph. Whatever is allowed is not exceeded. */
Test(hnsw_bulk, a_budget_is_kept_or_refused) {
    enum { DIM = 8, NB = 2 * MANY };
    uint8_t *base = clouds(NB, DIM, 1, 128);
    kith_index *index = created("HNSW8,u8", DIM, KITH_L2), *free_one = created("HNSW8,u8", DIM, KITH_L2);
    add_on(free_one, base, NB, 2);
    kith_job job;
    kith_job_init(&job);
    kith_view view = view_of(base, NB, DIM);
    size_t refused = 0, kept = 0;
    for (size_t each = 128; each <= 1024; each *= 2) {
        job.memory_bytes_max = (uint64_t)NB * each;
        if (kith_index_add(index, &view, NULL, &job) != KITH_OK) {
            cr_assert_eq(index->count, 0);
            cr_assert_not_null(strstr(kith_error_message(), "needs"));
            refused++;
            continue;
        }
        cr_assert_eq(hash_of(index), hash_of(free_one), "%zu bytes a vector", each);
        kith_hnsw_reset(index);
        kept++;
    }
    cr_assert(refused > 0 && kept > 1, "%zu refused, %zu kept", refused, kept);
    kith_index_free(free_one);
    kith_index_free(index);
    free(base);
}

/* The bytes that are said to be needed fall with the number of parts. */
Test(hnsw_bulk, parts_take_less_memory) {
    enum { MILLIONS = 100000000 };
    for (size_t parts = 1; parts < 16; parts++)
        cr_assert_leq(kith_hnsw_carve_bytes(MILLIONS, parts + 1), kith_hnsw_carve_bytes(MILLIONS, parts));
    cr_assert_lt(kith_hnsw_carve_bytes(MILLIONS, 16), 256.0 * MILLIONS);
}

/* Under ip vectors are linked at once, as by cosine where they are equally long, but by walks where their lengths vary
 * very much. */
Test(hnsw_bulk, inner_products) {
    enum { DIM = 12, QUERIES = 200, K = 10 };
    float *vectors = malloc(sizeof(float) * (MANY + QUERIES) * DIM);
    kith_view base = {vectors, KITH_F32, MANY, DIM, DIM * sizeof(float)},
              queries = {vectors + MANY * DIM, KITH_F32, QUERIES, DIM, 0};
    int64_t *truth = malloc(sizeof *truth * QUERIES * K), *ids = malloc(sizeof *ids * QUERIES * K);
    for (size_t kind = 0; kind < 3; kind++) { /* very unequal, unequal, equally long */
        for (size_t i = 0; i < MANY + QUERIES; i++) {
            float sum = 0, length = 1;
            if (i < MANY && kind == 0) length = expf(kith_random_normal(9, 1, i));
            if (i < MANY && kind == 1) length = 1 + kith_random_f32(9, 1, i);
            for (size_t d = 0; d < DIM; d++) {
                float value = kith_random_normal(8, 2, i * DIM + d) + kith_random_normal(8, 3, i % 300 * DIM + d);
                vectors[i * DIM + d] = value;
                sum += value * value;
            }
            for (size_t d = 0; d < DIM; d++) vectors[i * DIM + d] *= length / sqrtf(sum);
        }
        kith_index *flat = created("Flat", DIM, KITH_IP), *index = created("HNSW16", DIM, KITH_IP);
        cr_assert_eq(kith_hnsw_is_level(kith_hnsw_of(index), 0, &base), kind == 2);
        cr_assert_eq(kith_hnsw_is_even(kith_hnsw_of(index), 0, &base), kind >= 1);
        OK(kith_index_add(flat, &base, NULL, NULL));
        kith_job job;
        kith_job_init(&job);
        uint64_t hashes[2];
        for (size_t t = 0; t < 2; t++) {
            job.threads = 3 - 2 * t;
            OK(kith_index_reset(index));
            OK(kith_index_add(index, &base, NULL, &job));
            hashes[t] = hash_of(index);
        }
        cr_assert_eq(hashes[0], hashes[1]);
        cr_assert_eq(reachable(index), MANY);
        OK(kith_index_search(flat, &queries, K, NULL, truth, NULL, NULL));
        OK(kith_index_search(index, &queries, K, NULL, ids, NULL, NULL));
        size_t found = 0;
        for (size_t q = 0; q < QUERIES; q++)
            for (size_t i = 0; i < K; i++)
                for (size_t j = 0; j < K; j++) found += ids[q * K + i] == truth[q * K + j];
        cr_assert_geq(found, QUERIES * K * 97 / 100, "%zu of %d", found, QUERIES * K);
        kith_index_free(flat);
        kith_index_free(index);
    }
    free(vectors);
    free(truth);
    free(ids);
}

/* Removed nodes that have not been repaired away may be candidates, and lead on, but are no results. */
Test(hnsw_bulk, after_removals) {
    enum { DIM = 12, ALL = 3 * MANY, GONE = MANY / 20, QUERIES = 200, K = 10 };
    uint8_t *base = clouds(ALL, DIM, 31, 60), *queries = clouds(QUERIES, DIM, 32, 60);
    kith_index *index = created("HNSW12,u8", DIM, KITH_L2), *flat = created("Flat,u8", DIM, KITH_L2);
    static int64_t gone[GONE], ids[QUERIES * K];
    static float truth[QUERIES * K], distances[QUERIES * K];
    size_t removed;
    for (size_t i = 0; i < GONE; i++) gone[i] = (int64_t)(20 * i);
    add_on(index, base, MANY, 2);
    OK(kith_index_remove(index, gone, GONE, &removed));
    cr_assert_eq(kith_hnsw_of(index)->dead.count, GONE, "they are marked, not repaired away");
    add_on(index, base + (size_t)MANY * DIM, ALL - MANY, 2);
    add_on(flat, base, ALL, 2);
    OK(kith_index_remove(flat, gone, GONE, &removed));
    cr_assert_eq(index->count, flat->count);
    kith_view view = view_of(queries, QUERIES, DIM);
    kith_search_params params;
    kith_search_params_init(&params);
    OK(kith_index_search(flat, &view, K, &params, ids, truth, NULL));
    for (size_t round = 0; round < 2; round++) {
        size_t found = 0;
        OK(kith_index_search(index, &view, K, &params, ids, distances, NULL));
        for (size_t i = 0; i < (size_t)QUERIES * K; i++) {
            cr_assert(ids[i] >= MANY || ids[i] % 20 != 0, "%lld was removed", (long long)ids[i]);
            found += distances[i] <= truth[i / K * K + K - 1];
        }
        cr_assert_geq(found, QUERIES * K * 97 / 100, "round %zu: %zu found", round, found);
        OK(kith_index_compact(index));
    }
    cr_assert_eq(reachable(index), index->count);
    kith_index_free(flat);
    kith_index_free(index);
    free(queries);
    free(base);
}
