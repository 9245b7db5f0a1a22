/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_bridged.c: walks over the nodes that a filter allows, across those that it does not; hnsw_filtered.c says when. A
 * walk has four parts:
 *
 *   seeds    allowed nodes from all over the graph, and the entries, are compared with the query
 *   descent  the nearest node that was met, allowed or not, is followed until there is no nearer one
 *   around   what lies behind those where the descent ended
 *   walk     the nearest allowed nodes are followed, ef of them, as in the plain walk
 *
 * It goes in steps, of which each ends with rows of vectors on their way, so that a thread takes steps of several walks in
 * turn.
 */
#include <string.h>

#include "base/error.h"
#include "hnsw/hnsw_inside.h"

enum { FAR_SHARE = 4, LINE = 64, FOLLOWED = 1 };

/* The seeds and all entries; or the links of a node and, while these are too few, those of one more. */
static size_t fresh_count(const kith_hnsw *graph) {
    size_t links = 2 * graph->degree + KITH_FILTERED_LINKS, seeds = 2 * KITH_HNSW_ENTRIES_MAX;
    return kith_round_up(kith_max_size(links, seeds), KITH_WALK_ROOM) + KITH_WALK_ROOM;
}

kith_status kith_hnsw_crosser_take(const kith_hnsw_filtered *filtered, kith_arena *arena, uint32_t *zeros,
                                   kith_walker *walker, kith_crosser *out) {
    size_t words = kith_walk_seen_words(filtered->graph->node_count), fresh = fresh_count(filtered->graph);
    size_t links = filtered->graph->degree + KITH_WALK_ROOM;
    *out = (kith_crosser){.filtered = filtered, .walker = walker, .crossed = zeros};
    if (zeros == NULL) {
        KITH_TRY(kith_arena_take(arena, words, sizeof *out->crossed, &out->crossed));
        memset(out->crossed, 0, words * sizeof *out->crossed);
    }
    KITH_TRY(kith_arena_take(arena, words + 1, sizeof *out->touched, &out->touched));
    KITH_TRY(kith_arena_take(arena, links, sizeof *out->links, &out->links));
    KITH_TRY(kith_arena_take(arena, links, sizeof *out->bridges, &out->bridges));
    KITH_TRY(kith_arena_take(arena, kith_walk_pool_count(KITH_DESCENT), sizeof *out->nearest, &out->nearest));
    KITH_TRY(kith_arena_take(arena, fresh, sizeof *walker->fresh, &walker->fresh));
    KITH_TRY(kith_arena_take(arena, fresh, sizeof *walker->rows, &walker->rows));
    return kith_arena_take(arena, fresh, sizeof *walker->distances, &walker->distances);
}

void kith_hnsw_crosser_clear(kith_crosser *crosser) {
    for (size_t i = 0; i < crosser->touched_count; i++) crosser->crossed[crosser->touched[i]] = 0;
    crosser->touched_count = crosser->nearest_count = 0;
    kith_walker_clear(crosser->walker);
}

/* ---- What is met ------------------------------------------------------------------------------------------ */

/* Gathers those of some nodes that have not been seen behind the fresh ones that are there, each once even if a row that
 * changes names it twice, and asks for their rows. */
static void take(kith_crosser *crosser, const uint32_t *nodes, size_t count) {
    kith_walker *walker = crosser->walker;
    const kith_probe *probe = walker->probe;
    size_t kept = walker->fresh_count, end = kept;
    end += walker->kernels->unseen(walker->seen, nodes, count, (uint32_t)walker->graph->node_count,
                                   walker->fresh + kept);
    for (size_t i = kept; i < end; i++) {
        uint32_t node = walker->fresh[i];
        if ((walker->seen[node / 32] >> (node % 32) & 1) != 0) continue;
        kith_walker_mark(walker, node);
        const char *row = walker->rows[kept] = kith_probe_row(probe, node);
        for (size_t at = 0; at < probe->prefetch_bytes; at += LINE) __builtin_prefetch(row + at);
        walker->fresh[kept++] = node;
    }
    walker->fresh_count = kept;
}

/* Parts a row of links by whether the filter allows them; numbers past the last node are passed over. */
static size_t allowed_links(kith_crosser *crosser, const uint32_t *links) {
    const kith_hnsw *graph = crosser->filtered->graph;
    return crosser->walker->kernels->unseen(crosser->filtered->blocked, links, graph->degree,
                                            (uint32_t)graph->node_count, crosser->links);
}
static size_t blocked_links(kith_crosser *crosser, const uint32_t *links) {
    const kith_hnsw *graph = crosser->filtered->graph;
    return crosser->walker->kernels->unseen(crosser->filtered->open, links, graph->degree,
                                            (uint32_t)graph->node_count, crosser->bridges);
}

/* Whether a bridge is crossed for the first time; it is marked. */
static bool cross(kith_crosser *crosser, uint32_t node) {
    uint32_t word = crosser->crossed[node / 32], bit = (uint32_t)1 << (node % 32);
    if ((word & bit) != 0) return false;
    crosser->touched[crosser->touched_count] = node / 32;
    crosser->touched_count += word == 0;
    crosser->crossed[node / 32] = word | bit;
    return true;
}

/* Meets the allowed nodes around one: its links, and those of the nearest links that are not allowed, until there are
 * KITH_FILTERED_LINKS, seen before or not. */
static void meet_across(kith_crosser *crosser, uint32_t node) {
    const kith_hnsw *graph = crosser->filtered->graph;
    const uint32_t *links = kith_walker_links(crosser->walker, node);
    size_t allowed = allowed_links(crosser, links);
    take(crosser, crosser->links, allowed);
    crosser->fresh_allowed = crosser->walker->fresh_count;
    if (allowed >= KITH_FILTERED_LINKS) return;
    size_t bridges = blocked_links(crosser, links);
    float each = crosser->filtered->share * (float)(allowed + bridges) + 0.1f;
    size_t ahead = kith_min_size(bridges, (size_t)((float)(KITH_FILTERED_LINKS - allowed) / each) + 1);
    for (size_t b = 0; b < ahead; b++) kith_hnsw_prefetch_links(graph, crosser->bridges[b]);
    for (size_t b = 0; b < bridges && allowed < KITH_FILTERED_LINKS; b++) {
        size_t there = allowed_links(crosser, kith_walker_links(crosser->walker, crosser->bridges[b]));
        allowed += there;
        if (there > 0 && cross(crosser, crosser->bridges[b])) take(crosser, crosser->links, there);
    }
    crosser->fresh_allowed = crosser->walker->fresh_count;
}

/* Meets the links of a node, the allowed ones first. */
static void meet_links(kith_crosser *crosser, uint32_t node) {
    const uint32_t *links = kith_walker_links(crosser->walker, node);
    size_t allowed = allowed_links(crosser, links), blocked = blocked_links(crosser, links);
    take(crosser, crosser->links, allowed);
    crosser->fresh_allowed = crosser->walker->fresh_count;
    take(crosser, crosser->bridges, blocked);
}

/* Computes the distances of the fresh nodes, as far as the bound on them goes, and offers them: the allowed ones to the
 * pool, on the way down all of them to the descent. Before *changed the pool is as it was. */
static kith_status offer(kith_crosser *crosser, size_t *changed) {
    kith_walker *walker = crosser->walker;
    size_t count = kith_walker_room(walker, walker->fresh_count), first;
    walker->fresh_count = 0;
    *changed = walker->pool_capacity;
    if (count == 0) return KITH_OK;
    kith_probe_rows(walker->probe, walker->fresh, walker->rows, count, walker->distances);
    walker->distance_count += count;
    if (crosser->part <= KITH_BRIDGED_DESCENT)
        crosser->nearest_count = walker->kernels->offer(crosser->nearest, crosser->nearest_count, KITH_DESCENT,
                                                        walker->distances, walker->fresh, count, false, &first);
    return kith_walker_offer(walker, kith_min_size(count, crosser->fresh_allowed), changed);
}

/* ---- Steps -------------------------------------------------------------------------------------------------- */

void kith_bridged_begin(kith_crosser *crosser, const kith_probe *probe, size_t ef, size_t k) {
    kith_walker *walker = crosser->walker;
    const kith_hnsw_filtered *filtered = crosser->filtered;
    kith_pool_clear(crosser->nearest, 0, KITH_DESCENT);
    kith_pool_clear(walker->pool, 0, kith_max_size(ef, k));
    kith_walker_widen(walker);
    walker->probe = probe;
    walker->ef = ef;
    crosser->k = k;
    walker->at = walker->fresh_count = crosser->around = 0;
    crosser->around_all = crosser->around_allowed = 0;
    crosser->gives_up = false;
    crosser->part = KITH_BRIDGED_SEEDS;
    walker->pool_capacity = kith_max_size(ef, k);
    walker->pool_capacity = kith_walker_seeds_max(walker);
    take(crosser, filtered->seeds, filtered->seed_count);
    crosser->fresh_allowed = walker->fresh_count;
    take(crosser, filtered->graph->entries, filtered->graph->entry_count);
}

/* Far fewer nodes are allowed around the end of the way down than elsewhere. */
static bool is_far(const kith_crosser *crosser) {
    return (float)crosser->around_allowed < crosser->filtered->share * (float)crosser->around_all / FAR_SHARE;
}

/* The end of the way down. False: a look at all allowed nodes takes no longer than a walk far enough. */
static bool begin_walk(kith_crosser *crosser) {
    kith_walker *walker = crosser->walker;
    crosser->part = KITH_BRIDGED_WALK;
    if (!is_far(crosser)) return true;
    crosser->gives_up = kith_walker_has_left(walker, crosser->filtered->allowed_count) &&
                        crosser->filtered->allowed_count <= KITH_FILTERED_FAR * crosser->filtered->listed_max;
    walker->ef *= KITH_FILTERED_FAR;
    kith_walker_resize(walker, kith_max_size(walker->ef, crosser->k));
    return !crosser->gives_up;
}

/* Meets what lies around the next node of the walk; false: there is none. */
static bool follow(kith_crosser *crosser) {
    kith_walker *walker = crosser->walker;
    size_t end = kith_min_size(walker->pool_count, walker->ef), at = walker->at;
    while (at < end && (walker->pool[at] & FOLLOWED) != 0) at++;
    walker->at = at;
    if (at >= end || kith_walker_is_far(walker, walker->pool[at])) return false;
    walker->pool[at] |= FOLLOWED;
    walker->hop_count++;
    end = kith_min_size(end, at + 1 + walker->graph->prefetch.links);
    for (size_t next = at + 1; next < end; next++)
        kith_hnsw_prefetch_links(walker->graph, kith_pool_node(walker->pool[next]));
    meet_across(crosser, kith_pool_node(walker->pool[at]));
    return true;
}

/* The same on the way down. */
static bool descend(kith_crosser *crosser) {
    if (crosser->nearest_count == 0 || (crosser->nearest[0] & FOLLOWED) != 0) return false;
    crosser->nearest[0] |= FOLLOWED;
    crosser->walker->hop_count++;
    if (crosser->nearest_count > 1)
        kith_hnsw_prefetch_links(crosser->filtered->graph, kith_pool_node(crosser->nearest[1]));
    meet_links(crosser, kith_pool_node(crosser->nearest[0]));
    return true;
}

/* The same around its end, where links are counted. Allowed nodes are left to the walk, which begins with them. */
static bool look_around(kith_crosser *crosser) {
    while (crosser->around < crosser->nearest_count) {
        uint32_t node = kith_pool_node(crosser->nearest[crosser->around++]);
        const uint32_t *links = kith_walker_links(crosser->walker, node);
        size_t allowed = allowed_links(crosser, links);
        crosser->around_allowed += allowed;
        crosser->around_all += allowed + blocked_links(crosser, links);
        if ((crosser->filtered->open[node / 32] >> (node % 32) & 1) != 0) continue;
        crosser->walker->hop_count++;
        meet_across(crosser, node);
        return true;
    }
    return false;
}

kith_status kith_bridged_step(kith_crosser *crosser, bool *more) {
    kith_walker *walker = crosser->walker;
    size_t changed;
    KITH_TRY(offer(crosser, &changed));
    if (crosser->part == KITH_BRIDGED_WALK) walker->at = kith_min_size(walker->at + 1, changed);
    *more = !kith_walker_is_spent(walker);
    if (!*more) return KITH_OK;
    if (crosser->part == KITH_BRIDGED_SEEDS) {
        walker->pool_capacity = kith_max_size(walker->ef, crosser->k);
        crosser->part = KITH_BRIDGED_DESCENT;
    }
    if (crosser->part == KITH_BRIDGED_DESCENT) {
        if (descend(crosser)) return KITH_OK;
        crosser->part = KITH_BRIDGED_AROUND;
    }
    if (crosser->part == KITH_BRIDGED_AROUND) {
        if (look_around(crosser)) return KITH_OK;
        *more = begin_walk(crosser);
        if (!*more) return KITH_OK;
    }
    *more = follow(crosser);
    return KITH_OK;
}

kith_status kith_hnsw_bridged_walk(kith_crosser *crosser, const kith_probe *probe, size_t ef, size_t k) {
    kith_hnsw_crosser_clear(crosser);
    kith_bridged_begin(crosser, probe, ef, k);
    for (bool more = true; more;) KITH_TRY(kith_bridged_step(crosser, &more));
    return KITH_OK;
}

kith_status kith_hnsw_cross(kith_crosser *crosser, const kith_probe *probe, uint32_t node) {
    size_t changed;
    crosser->walker->probe = probe;
    crosser->walker->hop_count++;
    meet_across(crosser, node);
    return offer(crosser, &changed);
}
