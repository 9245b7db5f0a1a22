/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_prune.c: which candidates become links: robust pruning.
 *
 * Candidates are taken nearest first. One is dropped when a link taken before is so much nearer to it than the node
 * itself that a walk gets there by that link: alpha * d(link, candidate) <= d(node, candidate). Equal vectors, all at
 * distance 0, are dropped but for one, which keeps rows short where thousands of vectors are the same.
 */
#include <math.h>

#include "hnsw/hnsw_inside.h"

/* How near a link has to be to a candidate at this distance from the node. */
float kith_hnsw_cover_limit(const kith_hnsw *graph, float distance) {
    float alpha = (float)graph->options.alpha_percent / 100;
    if (!kith_hnsw_links_by_ip(graph)) return distance / alpha;
    return distance - (alpha - 1) * fabsf(distance); /* negative for most */
}

/* Is one of the links that near? Pads them to a multiple of four. */
static bool is_covered(const kith_probe *candidate, uint32_t *links, size_t count, float limit) {
    for (size_t i = count; i % 4 != 0; i++) links[i] = links[count - 1];
    for (size_t i = 0; i < count; i += 4) {
        float between[4];
        kith_probe_four(candidate, links + i, between);
        for (size_t j = 0; j < 4; j++)
            if (between[j] <= limit) return true;
    }
    return false;
}

bool kith_hnsw_covers(const kith_hnsw *graph, const kith_pruner *pruner, uint32_t *links, size_t count,
                      uint32_t node, float distance) {
    kith_probe probe = kith_probe_node(graph, node, pruner->restorer);
    return is_covered(&probe, links, count, kith_hnsw_cover_limit(graph, distance));
}

/* The same with codes, where a vector that is held against others has to be made a query first: only those that become
 * links are. Each is held against the candidates that are left. */
static size_t prune_codes(const kith_hnsw *graph, const kith_pruner *pruner, kith_candidate *candidates,
                          size_t count, uint32_t *links) {
    size_t kept = 0;
    for (size_t i = 0; i < count && kept < graph->degree; i++) {
        if (candidates[i].node == KITH_NO_NODE) continue;
        links[kept++] = candidates[i].node;
        size_t left = 0;
        for (size_t j = i + 1; j < count; j++)
            if (candidates[j].node != KITH_NO_NODE && (candidates[i].is_new || candidates[j].is_new)) {
                pruner->places[left] = (uint32_t)j;
                pruner->left[left++] = candidates[j].node;
            }
        if (left == 0) continue;
        kith_probe probe = kith_probe_node(graph, candidates[i].node, pruner->restorer);
        kith_probe_many(&probe, pruner->left, left, pruner->distances);
        for (size_t j = 0; j < left; j++) {
            kith_candidate *candidate = &candidates[pruner->places[j]];
            if (pruner->distances[j] <= kith_hnsw_cover_limit(graph, candidate->distance))
                candidate->node = KITH_NO_NODE;
        }
    }
    for (size_t i = kept; i < graph->degree; i++) links[i] = KITH_NO_NODE;
    return kept;
}

size_t kith_hnsw_prune(const kith_hnsw *graph, kith_pruner *pruner, kith_candidate *candidates, size_t count,
                       uint32_t *links) {
    if (pruner->restorer != NULL) return prune_codes(graph, pruner, candidates, count, links);
    size_t kept = 0, old_count = 0, new_count = 0;
    kith_probe probe = kith_probe_node(graph, count > 0 ? candidates[0].node : 0, pruner->restorer);
    for (size_t i = 0; i < count && kept < graph->degree; i++) {
        const kith_candidate *candidate = &candidates[i];
        kith_probe_move(&probe, candidate->node);
        float limit = kith_hnsw_cover_limit(graph, candidate->distance);
        if (is_covered(&probe, pruner->kept_new, new_count, limit)) continue;
        if (candidate->is_new && is_covered(&probe, pruner->kept_old, old_count, limit)) continue;
        if (candidate->is_new)
            pruner->kept_new[new_count++] = candidate->node;
        else
            pruner->kept_old[old_count++] = candidate->node;
        links[kept++] = candidate->node;
    }
    for (size_t i = kept; i < graph->degree; i++) links[i] = KITH_NO_NODE;
    return kept;
}
