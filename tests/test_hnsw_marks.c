/* SPDX-License-Identifier: Apache-2.0
 *
 * What a walk remembers of the nodes that it has seen: bits for all, or a table of the last ones.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "hnsw/hnsw_inside.h"
#include "kith/kith.h"

/* More nodes than where all entries are kept. */
enum { DIM = 6, NODES = 5000, EF = 40, CAPACITY = 60, QUERIES = 50 };

static kith_index *make_graph(void) {
    static float vectors[NODES * DIM];
    kith_index *index;
    for (size_t i = 0; i < NODES * DIM; i++) vectors[i] = (float)kith_random_below(7, 0, i, 1000);
    cr_assert_eq(kith_index_create("HNSW8", DIM, KITH_L2, &index), KITH_OK, "%s", kith_error_message());
    kith_view view = {.data = vectors, .dtype = KITH_F32, .count = NODES, .dim = DIM};
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK, "%s", kith_error_message());
    return index;
}

/* table_bits = 0: bits. */
static void make_walker(const kith_hnsw *graph, unsigned table_bits, kith_walker *walker) {
    size_t fresh = kith_walk_fresh_count(graph), bit_words = kith_walk_seen_words(NODES);
    *walker = (kith_walker){.graph = graph,
                            .kernels = &kith_simd()->graph,
                            .table_bits = table_bits,
                            .seen_words = table_bits != 0 ? (size_t)1 << table_bits : bit_words,
                            .pool_capacity = CAPACITY};
    walker->seen = calloc(walker->seen_words, sizeof *walker->seen);
    walker->pool = aligned_alloc(64, kith_walk_pool_count(CAPACITY) * sizeof *walker->pool);
    walker->fresh = malloc(fresh * sizeof *walker->fresh);
    walker->rows = malloc(fresh * sizeof *walker->rows);
    walker->distances = malloc(fresh * sizeof *walker->distances);
}

static void free_walker(kith_walker *walker) {
    free(walker->seen);
    free(walker->pool);
    free(walker->fresh);
    free((void *)walker->rows);
    free(walker->distances);
}

/* A node that was forgotten is compared again, and nothing else comes of it: not in a table that holds nearly all, nor in
 * one that holds next to nothing. */
Test(hnsw_marks, a_table_finds_what_bits_do) {
    kith_index *index = make_graph();
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    uint64_t most = 0, exact = 0;
    for (unsigned bits = 2; bits <= 14; bits += 3) {
        kith_walker walkers[2];
        uint64_t distances[2] = {0, 0};
        make_walker(graph, 0, &walkers[0]);
        make_walker(graph, bits, &walkers[1]);
        for (size_t q = 0; q < QUERIES; q++) {
            float query[DIM];
            for (size_t d = 0; d < DIM; d++) query[d] = (float)kith_random_below(8, q, d, 1000);
            for (size_t w = 0; w < 2; w++) {
                kith_probe probe = kith_probe_query(graph, KITH_F32);
                probe.vector = query;
                cr_assert_eq(kith_hnsw_walk(&walkers[w], &probe, EF), KITH_OK);
                distances[w] += walkers[w].distance_count;
            }
            cr_assert_eq(walkers[1].pool_count, walkers[0].pool_count);
            cr_assert_eq(walkers[1].hop_count, walkers[0].hop_count);
            cr_assert_eq(memcmp(walkers[1].pool, walkers[0].pool, CAPACITY * sizeof *walkers[0].pool), 0,
                         "query %zu, table of 2^%u", q, bits);
            for (size_t w = 0; w < 2; w++) kith_walker_clear(&walkers[w]);
        }
        cr_assert_geq(distances[1], distances[0]);
        most = bits == 2 ? distances[1] : most;
        if (bits == 14) cr_assert_eq(distances[1], distances[0], "no two nodes share a place");
        exact = distances[0];
        for (size_t w = 0; w < 2; w++) free_walker(&walkers[w]);
    }
    cr_assert_gt(most, exact, "a table of 4 places forgets");
    kith_index_free(index);
}

/* Only graphs whose bits would take more than twice the table's bytes have one. */
Test(hnsw_marks, tables_are_for_large_graphs) {
    kith_index *index = make_graph();
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    cr_assert_eq(kith_walk_table_bits(graph, 100000, 64, 10), 0);
    cr_assert_eq(kith_walk_table_bits(graph, 300000, 64, 10), 12);
    cr_assert_eq(kith_walk_table_bits(graph, 300000, 5000, 10), 0);
    cr_assert_eq(kith_walk_table_bits(graph, 100000000, 5000, 10), 17);
    cr_assert_eq(kith_walk_table_bits(graph, 100000000, 64, 100000), 19);
    kith_index_free(index);
}

/* A walk that goes on until so many have been met finds them all, each once, whatever it has forgotten. */
Test(hnsw_marks, all_are_found_in_the_end) {
    kith_index *index = make_graph();
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    for (unsigned bits = 0; bits <= 8; bits += 4) {
        static bool is_met[NODES];
        kith_walker walker;
        float query[DIM] = {500, 400, 300, 200, 100, 0};
        make_walker(graph, bits, &walker);
        walker.pool_capacity = NODES;
        free(walker.pool);
        walker.pool = aligned_alloc(64, kith_walk_pool_count(NODES) * sizeof *walker.pool);
        kith_probe probe = kith_probe_query(graph, KITH_F32);
        probe.vector = query;
        cr_assert_eq(kith_hnsw_walk(&walker, &probe, EF), KITH_OK);
        cr_assert_lt(walker.pool_count, NODES);
        cr_assert_eq(kith_hnsw_walk_on(&walker, &probe, NODES), KITH_OK);
        cr_assert_eq(walker.pool_count, NODES);
        memset(is_met, 0, sizeof is_met);
        for (size_t i = 0; i < NODES; i++) {
            uint32_t node = kith_pool_node(walker.pool[i]);
            cr_assert(!is_met[node], "table of 2^%u: node %u twice", bits, node);
            is_met[node] = true;
        }
        free_walker(&walker);
    }
    kith_index_free(index);
}
