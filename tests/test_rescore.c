/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "index/rescore.h"
#include "index_fixture.h"

/* Rows of one float: the distance of row r to query q is |values[r] - q|, under ip the similarity is its negative. */
enum { ROWS = 400, QUERIES = 5, K = 10 };

typedef struct counting {
    size_t keys[QUERIES]; /* rows that were looked at, each as often as it was */
    kith_metric metric;
} counting;

static void keys_of(const void *context, size_t query, size_t worker, const void *const rows[4],
                    const float norms[4], int32_t keys[4]) {
    (void)worker, (void)norms;
    counting *c = (counting *)(uintptr_t)context;
    for (size_t r = 0; r < 4; r++) {
        keys[r] = kith_key_f32(fabsf(*(const float *)rows[r] - (float)query));
        c->keys[query] += r == 0 || rows[r] != rows[0]; /* a group that is not full repeats its first */
    }
}

static float value_of(const void *context, int32_t key) {
    float distance = kith_key_to_f32(key);
    return ((const counting *)context)->metric == KITH_L2 ? distance : 0.0f - distance;
}

typedef struct scene {
    kith_index *index;
    kith_idrows ids;
    kith_chunks rows;
    float values[ROWS];
    int64_t candidates[QUERIES * ROWS];
    size_t counts[QUERIES];
    float bounds[QUERIES * ROWS];
} scene;

static float noise(size_t query, size_t row) { return (float)kith_random_below(4, query, row, 1000) / 1000; }

static float distance(const scene *s, size_t query, int64_t id) { return fabsf(s->values[id] - (float)query); }

/* Candidates in the order of estimates that are off by up to 1 to either side. */
static void fill(scene *s, kith_metric metric, float wide) {
    for (size_t q = 0; q < QUERIES; q++) {
        int64_t *ids = s->candidates + q * ROWS;
        float estimates[ROWS];
        for (size_t r = 0; r < ROWS; r++) {
            size_t at = r;
            float estimate = distance(s, q, (int64_t)r) + 2 * noise(q, r) - 1;
            for (; at > 0 && estimates[at - 1] > estimate; at--) {
                estimates[at] = estimates[at - 1];
                ids[at] = ids[at - 1];
            }
            estimates[at] = estimate;
            ids[at] = (int64_t)r;
        }
        for (size_t r = 0; r < ROWS; r++)
            s->bounds[q * ROWS + r] = metric == KITH_L2 ? estimates[r] - wide : wide - estimates[r];
        s->counts[q] = ROWS;
    }
}

static void run(const scene *s, kith_metric metric, bool bounded, size_t k, size_t threads, counting *count,
                int64_t *ids, float *distances) {
    kith_arena arena = {0};
    *count = (counting){.metric = metric};
    const kith_search_request request = {
        .queries = {.count = QUERIES}, .k = k, .threads = threads, .arena = &arena};
    const kith_candidates candidates = {
        .ids = s->candidates, .per_query = ROWS, .counts = s->counts, .bounds = bounded ? s->bounds : NULL};
    const kith_rescoring table = {
        .index = s->index, .ids = &s->ids, .rows = &s->rows, .keys = keys_of, .value = value_of, .context = count};
    const kith_search_results results = {.k = k, .ids = ids, .distances = distances};
    cr_assert_eq(kith_arena_begin(&arena), KITH_OK);
    cr_assert_eq(kith_rescore(&table, &request, &candidates, &results), KITH_OK, "%s", kith_error_message());
    kith_arena_free(&arena);
}

static void begin(scene *s, kith_metric metric) {
    cr_assert_eq(kith_index_create("Flat", 1, metric, &s->index), KITH_OK);
    for (size_t r = 0; r < ROWS; r++) s->values[r] = 30 * noise(100, r) - 10;
    cr_assert_eq(kith_chunks_borrow(&s->rows, sizeof(float), s->values, ROWS), KITH_OK);
    kith_idrows_init(&s->ids);
    s->ids.count = ROWS;
}

static void end(scene *s) {
    kith_chunks_free(&s->rows);
    kith_idrows_free(&s->ids);
    kith_index_free(s->index);
}

/* Bounds that hold lose nothing, and save; those that reach nowhere save all but the first k; wide ones nothing. */
Test(rescore, looks_at_what_can_still_matter) {
    for (size_t m = 0; m < 2; m++)
        for (size_t k = 1; k <= K; k += 3) {
            kith_metric metric = m == 0 ? KITH_L2 : KITH_IP;
            scene *s = malloc(sizeof *s);
            begin(s, metric);
            int64_t all[QUERIES * K], some[QUERIES * K];
            float all_distances[QUERIES * K], some_distances[QUERIES * K];
            counting count;
            fill(s, metric, 1);
            run(s, metric, false, k, 1, &count, all, all_distances);
            for (size_t q = 0; q < QUERIES; q++) cr_assert_eq(count.keys[q], ROWS);
            for (size_t threads = 1; threads <= 3; threads++) {
                run(s, metric, true, k, threads, &count, some, some_distances);
                cr_assert_eq(memcmp(all, some, QUERIES * k * sizeof *all), 0);
                cr_assert_eq(memcmp(all_distances, some_distances, QUERIES * k * sizeof *all_distances), 0);
                for (size_t q = 0; q < QUERIES; q++) {
                    /* What the k-th distance leaves, and a few more before it was known. */
                    size_t needed = 0;
                    float last = metric == KITH_L2 ? all_distances[q * k + k - 1] : -all_distances[q * k + k - 1];
                    for (size_t i = 0; i < ROWS; i++) {
                        float bound = s->bounds[q * ROWS + i];
                        needed += (metric == KITH_L2 ? bound : -bound) <= last;
                    }
                    cr_assert_geq(count.keys[q], needed);
                    cr_assert_leq(count.keys[q], needed + 2 * k + 8, "%zu of %zu", count.keys[q], needed);
                    cr_assert_lt(count.keys[q], ROWS / 2);
                }
            }
            fill(s, metric, -1000);
            run(s, metric, true, k, 1, &count, some, some_distances);
            for (size_t q = 0; q < QUERIES; q++) cr_assert(count.keys[q] >= k && count.keys[q] < k + 4);
            fill(s, metric, 1000);
            run(s, metric, true, k, 1, &count, some, some_distances);
            for (size_t q = 0; q < QUERIES; q++) cr_assert_eq(count.keys[q], ROWS);
            cr_assert_eq(memcmp(all, some, QUERIES * k * sizeof *all), 0);
            end(s);
            free(s);
        }
}
