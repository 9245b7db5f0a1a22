/* SPDX-License-Identifier: Apache-2.0
 *
 * test_graph_stats.c: what is told of a graph's links, against a count of its own over the rows of links.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "hnsw/hnsw_inside.h"
#include "memory_faults.h"

enum { DIM = 8, DEGREES_MAX = 130 };

#define OK(call) cr_assert_eq((call), KITH_OK, "%s: %s", #call, kith_error_message())

static kith_index *built(const char *spec, size_t count, kith_metric metric) {
    kith_index *index;
    float *values = malloc((count + 1) * DIM * sizeof *values);
    for (size_t i = 0; i < count * DIM; i++) values[i] = kith_random_normal(5, 1, i);
    kith_view view = {values, KITH_F32, count, DIM, 0};
    OK(kith_index_create(spec, DIM, metric, &index));
    if (count > 0) {
        OK(kith_index_train(index, &view, NULL));
        OK(kith_index_add(index, &view, NULL, NULL));
    }
    free(values);
    return index;
}

static kith_graph_stats stats_of(const kith_index *index, uint64_t degrees[DEGREES_MAX]) {
    kith_graph_stats stats = {.size = sizeof stats};
    size_t count = 0;
    OK(kith_index_graph_stats(index, &stats, degrees, DEGREES_MAX, &count));
    cr_assert_eq(count, stats.degree_max + 1);
    return stats;
}

/* By repeated relaxation rather than a queue. Returns the sum of hops. */
static uint64_t hops_by_rounds(const kith_hnsw *graph, uint32_t *hops) {
    size_t count = graph->node_count;
    uint64_t sum = 0;
    for (size_t v = 0; v < count; v++) hops[v] = UINT32_MAX;
    for (size_t i = 0; i < graph->entry_count; i++) hops[graph->entries[i]] = 0;
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t v = 0; v < count; v++)
            for (size_t i = 0; hops[v] != UINT32_MAX && i < kith_hnsw_link_count(graph, kith_hnsw_links(graph, v));
                 i++) {
                uint32_t to = kith_hnsw_links(graph, v)[i];
                if (hops[to] <= hops[v] + 1) continue;
                hops[to] = hops[v] + 1;
                changed = true;
            }
    }
    for (size_t v = 0; v < count; v++) sum += hops[v] != UINT32_MAX ? hops[v] : 0;
    return sum;
}

static void check_against_rows(const kith_index *index) {
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    size_t count = graph->node_count, mutual = 0, links_all = 0, reached = 0, unlinked = 0;
    uint64_t degrees[DEGREES_MAX], expected[DEGREES_MAX] = {0}, in_max = 0, hops_max = 0;
    uint32_t *in = calloc(count, sizeof *in), *hops = malloc(count * sizeof *hops);
    unsigned char *is_linked = calloc(count, count);
    kith_graph_stats stats = stats_of(index, degrees);
    for (uint32_t v = 0; v < count; v++)
        for (size_t i = 0; i < kith_hnsw_link_count(graph, kith_hnsw_links(graph, v)); i++)
            is_linked[v * count + kith_hnsw_links(graph, v)[i]] = 1;
    for (size_t v = 0; v < count; v++) {
        size_t degree = 0;
        for (size_t w = 0; w < count; w++) {
            degree += is_linked[v * count + w];
            in[w] += is_linked[v * count + w];
            mutual += is_linked[v * count + w] && is_linked[w * count + v];
        }
        expected[degree]++;
        links_all += degree;
    }
    uint64_t sum = hops_by_rounds(graph, hops);
    for (size_t v = 0; v < count; v++) {
        reached += hops[v] != UINT32_MAX;
        if (hops[v] != UINT32_MAX && hops[v] > hops_max) hops_max = hops[v];
        if (in[v] > in_max) in_max = in[v];
        unlinked += in[v] == 0 && hops[v] != 0;
    }
    cr_assert(memcmp(degrees, expected, sizeof degrees) == 0);
    cr_assert_eq(stats.node_count, count);
    cr_assert_eq(stats.degree_max, graph->degree);
    cr_assert_eq(stats.link_count, links_all);
    cr_assert_eq(stats.mutual_count, mutual);
    cr_assert_eq(stats.in_degree_max, in_max);
    cr_assert_eq(stats.unlinked_count, unlinked);
    cr_assert_eq(stats.entry_count, graph->entry_count);
    cr_assert_eq(stats.reachable_count, reached);
    cr_assert_eq(stats.hops_max, hops_max);
    cr_assert_float_eq(stats.hops_mean, (double)sum / (double)reached, 1e-12);
    free(is_linked);
    free(in);
    free(hops);
}

Test(graph_stats, as_the_rows_say) {
    static const char *const specs[] = {"HNSW2", "HNSW4", "HNSW16"};
    static const size_t counts[] = {1, 2, 5, 300, 900};
    for (size_t s = 0; s < 3; s++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            kith_index *index = built(specs[s], counts[c], KITH_L2);
            check_against_rows(index);
            cr_assert_eq(stats_of(index, (uint64_t[DEGREES_MAX]){0}).reachable_count, counts[c]);
            kith_index_free(index);
        }
}

/* A node that nothing leads to is seen as lost, and so is what only it leads to. */
Test(graph_stats, lost_nodes) {
    kith_index *index = built("HNSW2", 900, KITH_L2);
    kith_hnsw *graph = kith_hnsw_of(index);
    uint32_t lost = 0, hops[900];
    (void)hops_by_rounds(graph, hops);
    while (hops[lost] == 0) lost++;
    for (uint32_t v = 0; v < 900; v++) {
        uint32_t *links = kith_hnsw_links(graph, v);
        size_t count = kith_hnsw_link_count(graph, links), kept = 0;
        for (size_t i = 0; i < count; i++)
            if (links[i] != lost) links[kept++] = links[i];
        for (; kept < count; kept++) links[kept] = KITH_NO_NODE;
    }
    kith_graph_stats stats = stats_of(index, (uint64_t[DEGREES_MAX]){0});
    cr_assert_eq(stats.unlinked_count, 1);
    cr_assert_lt(stats.reachable_count, 900);
    check_against_rows(index);
    kith_index_free(index);
}

/* Links past the last node, as a damaged file may have them, lead nowhere. */
Test(graph_stats, damaged_links) {
    kith_index *index = built("HNSW4", 200, KITH_L2);
    kith_hnsw *graph = kith_hnsw_of(index);
    uint64_t degrees[DEGREES_MAX];
    kith_hnsw_links(graph, 7)[0] = 200;
    kith_hnsw_links(graph, 8)[1] = UINT32_MAX - 1;
    graph->entries[0] = 1000;
    kith_graph_stats stats = stats_of(index, degrees);
    cr_assert_geq(degrees[0], 1);
    cr_assert_geq(degrees[1], 1);
    cr_assert_eq(stats.entry_count, graph->entry_count - 1);
    kith_index_free(index);
}

Test(graph_stats, in_wrappers) {
    uint64_t degrees[DEGREES_MAX], inner[DEGREES_MAX];
    kith_index *plain = built("HNSW4,SQ8", 300, KITH_COSINE), *refined = built("HNSW4,SQ8,RFlat", 300, KITH_COSINE);
    kith_graph_stats expected = stats_of(plain, inner), found = stats_of(refined, degrees);
    cr_assert(memcmp(&found, &expected, sizeof found) == 0 && memcmp(degrees, inner, sizeof degrees) == 0);
    kith_index_free(plain);
    kith_index_free(refined);
    kith_index *both = built("PCA4,HNSW4,SQ8,RFlat", 300, KITH_L2);
    found = stats_of(both, degrees);
    cr_assert_eq(found.node_count, 300);
    cr_assert_eq(found.reachable_count, 300);
    kith_index_free(both);
}

Test(graph_stats, empty) {
    kith_index *index = built("HNSW4", 0, KITH_L2);
    uint64_t degrees[DEGREES_MAX];
    kith_graph_stats stats = stats_of(index, degrees);
    cr_assert(stats.node_count == 0 && stats.link_count == 0 && stats.reachable_count == 0 &&
              stats.degree_max == 8);
    for (size_t d = 0; d < DEGREES_MAX; d++) cr_assert_eq(degrees[d], 0);
    kith_index_free(index);
}

Test(graph_stats, arguments) {
    static const char *const without[] = {"Flat", "SQ8", "IVF4,SQ8", "PCA4,Flat", "SQ4,RFlat"};
    kith_index *index = built("HNSW4", 100, KITH_L2);
    kith_graph_stats stats = {.size = sizeof stats};
    uint64_t degrees[DEGREES_MAX];
    size_t count;
    cr_assert_eq(kith_index_graph_stats(NULL, &stats, NULL, 0, &count), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_graph_stats(index, NULL, NULL, 0, &count), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_graph_stats(index, &stats, NULL, 1, &count), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_index_graph_stats(index, &stats, degrees, DEGREES_MAX, NULL), KITH_ERR_ARGUMENT);
    stats.size = sizeof stats + 1;
    cr_assert_eq(kith_index_graph_stats(index, &stats, NULL, 0, &count), KITH_ERR_ARGUMENT);
    cr_assert_eq(count, 0);
    /* A caller that knows fewer fields gets these, and no byte past them. */
    kith_graph_stats older = {.size = offsetof(kith_graph_stats, link_count), .link_count = 77};
    OK(kith_index_graph_stats(index, &older, NULL, 0, &count));
    cr_assert(older.node_count == 100 && older.degree_max == 8 && older.link_count == 77 && count == 9);
    /* Fewer numbers than there are. */
    stats.size = sizeof stats;
    degrees[3] = 77;
    OK(kith_index_graph_stats(index, &stats, degrees, 3, &count));
    cr_assert(degrees[3] == 77 && count == 9);
    kith_index_free(index);
    for (size_t i = 0; i < sizeof without / sizeof *without; i++) {
        index = built(without[i], 100, KITH_L2);
        cr_assert_eq(kith_index_graph_stats(index, &stats, NULL, 0, &count), KITH_ERR_UNSUPPORTED, "%s",
                     without[i]);
        cr_assert(stats.node_count == 0 && count == 0);
        kith_index_free(index);
    }
}

Test(graph_stats, allocations_fail) {
    memory_faults_install();
    kith_index *index = built("HNSW4", 100, KITH_L2);
    kith_graph_stats stats = {.size = sizeof stats};
    kith_status status;
    size_t count;
    MEMORY_FAULTS_EACH(status, kith_index_graph_stats(index, &stats, NULL, 0, &count)) cr_assert_eq(count, 0);
    cr_assert_eq(stats.node_count, 100);
    kith_index_free(index);
}
