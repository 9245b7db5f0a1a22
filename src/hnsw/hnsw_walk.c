/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_walk.c: the walk: follow the nearest node whose links have not been followed yet, until the ef nearest all
 * have been (best-first search: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
 * Hierarchical Navigable Small World graphs", TPAMI 2020, algorithm 2, with both of its heaps in one sorted array).
 *
 * What is waited for is memory: rows of vectors are prefetched as soon as their numbers are known, and the links of
 * the nodes that are likely to be followed next while distances are being computed.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "hnsw/hnsw_inside.h"

enum { LINE = 64, FOLLOWED = 1 };

void kith_walker_clear(kith_walker *walker) {
    if (walker->seen_words != 0)
        memset(walker->seen, 0, walker->seen_words * sizeof *walker->seen);
    else
        for (size_t i = 0; i < walker->touched_count; i++) walker->seen[walker->touched[i]] = 0;
    walker->touched_count = 0;
    walker->pool_count = 0;
    walker->distance_count = walker->hop_count = 0;
}

bool kith_walker_look(kith_walker *walker) {
    if (!walker->is_late && walker->looks++ % KITH_WALK_LOOK_EVERY == 0)
        walker->is_late = kith_now_ns() >= walker->deadline_ns;
    return walker->is_late;
}

/* A row that changes may name a node twice: each is kept once. Returns how many are left. */
static size_t drop_repeats(const kith_walker *walker, size_t count) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t node = walker->fresh[i], bit = (uint32_t)1 << (node % 32), *word = &walker->seen[node / 32];
        if ((*word & bit) != 0) continue;
        *word |= bit;
        walker->fresh[kept++] = node;
    }
    for (size_t i = 0; i < kept; i++) /* they are marked later, like those of other rows */
        walker->seen[walker->fresh[i] / 32] &= ~((uint32_t)1 << (walker->fresh[i] % 32));
    return kept;
}

typedef enum marking { MARK_BITS, MARK_BITS_LISTED, MARK_TABLE } marking;

/* Marks nodes that have not been seen, finds their rows and asks for them. Most rows are those of the graph and take one
 * line, and where marks are few nobody needs to know which were set: both are constants here. What is read again and
 * again is held in copies, which no store changes as far as the compiler knows. */
static inline __attribute__((always_inline)) void mark_by(kith_walker *walker, size_t count, bool is_line,
                                                          marking how) {
    const kith_probe *probe = walker->probe;
    const kith_chunks chunks = probe->graph->rows;
    const uint32_t *fresh = walker->fresh;
    const void **rows = walker->rows;
    const unsigned bits = walker->table_bits;
    uint32_t *seen = walker->seen,
             *touched = how == MARK_BITS_LISTED ? walker->touched + walker->touched_count : NULL;
    for (size_t i = 0; i < count; i++) {
        uint32_t node = fresh[i];
        if (how == MARK_TABLE) {
            seen[kith_seen_place(node, bits)] = ~node;
        } else {
            uint32_t word = seen[node / 32];
            if (how == MARK_BITS_LISTED) {
                *touched = node / 32;
                touched += word == 0;
            }
            seen[node / 32] = word | (uint32_t)1 << (node % 32);
        }
        const char *row = rows[i] = is_line ? kith_chunks_at(&chunks, node) : kith_probe_row(probe, node);
        if (is_line)
            __builtin_prefetch(row);
        else
            for (size_t at = 0; at < probe->prefetch_bytes; at += LINE) __builtin_prefetch(row + at);
    }
    if (how == MARK_BITS_LISTED) walker->touched_count = (size_t)(touched - walker->touched);
}

static inline __attribute__((always_inline)) void mark(kith_walker *walker, size_t count, bool is_line) {
    if (walker->table_bits != 0)
        mark_by(walker, count, is_line, MARK_TABLE);
    else if (walker->seen_words != 0)
        mark_by(walker, count, is_line, MARK_BITS);
    else
        mark_by(walker, count, is_line, MARK_BITS_LISTED);
}

/* Gathers the nodes that have not been seen in `fresh`, marks them, and asks for their rows. Numbers past the last
 * node, which end a row of links, and which a damaged file may hold, are passed over. So are those that the bound on
 * distances leaves no room for; these stay marked. */
static void take_unseen(kith_walker *walker, const uint32_t *nodes, size_t count) {
    const kith_probe *probe = walker->probe;
    const uint32_t node_count = (uint32_t)walker->graph->node_count;
    size_t fresh =
        walker->table_bits != 0
            ? walker->kernels->forgotten(walker->seen, walker->table_bits, nodes, count, node_count, walker->fresh)
            : walker->kernels->unseen(walker->seen, nodes, count, node_count, walker->fresh);
    if (walker->copy != NULL && walker->table_bits == 0) fresh = drop_repeats(walker, fresh);
    if (probe->sketch == NULL && probe->prefetch_bytes > 0 && probe->prefetch_bytes <= LINE)
        mark(walker, fresh, true);
    else
        mark(walker, fresh, false);
    walker->fresh_count = kith_walker_room(walker, fresh);
}

/* Leaves out those of the first `count` fresh nodes that are too far. Returns how many are left. */
static size_t drop_far(kith_walker *walker, size_t count) {
    enum { PIECE = 64 };
    uint32_t places[PIECE];
    size_t kept = 0;
    for (size_t i = 0; i < count; i += PIECE) {
        size_t piece = kith_min_size(PIECE, count - i);
        size_t near = kith_simd()->filter_below_f32(walker->distances + i, piece, walker->limit, places);
        for (size_t n = 0; n < near; n++, kept++) {
            walker->distances[kept] = walker->distances[i + places[n]];
            walker->fresh[kept] = walker->fresh[i + places[n]];
        }
    }
    return kept;
}

/* The place of the n-th nearest live node of the pool; the pool's count, if there are fewer. */
static size_t place_of_live(const kith_walker *walker, size_t n) {
    size_t place = 0;
    if (walker->graph->dead.count == 0) return kith_min_size(n - 1, walker->pool_count);
    for (; place < walker->pool_count; place++) {
        n -= !kith_hnsw_is_dead(walker->graph, kith_pool_node(walker->pool[place]));
        if (n == 0) break;
    }
    return place;
}

/* How far the walk still goes, by what is in the pool now. The nearer the one that counts, the less far: so what lies
 * too far once does so for ever. */
static void narrow(kith_walker *walker) {
    size_t rank = place_of_live(walker, walker->stop.rank);
    if (rank == walker->pool_count) return;
    float distance = kith_pool_distance(walker->pool[rank]), above = distance - walker->stop.zero;
    walker->reach = distance + (above < 0 ? -fminf(walker->stop.share, 1) : walker->stop.share) * above;
}

/* What lies further than the walk goes, and is not to be kept, leaves the pool; it is not let in either. */
static void trim(kith_walker *walker) {
    size_t last = place_of_live(walker, walker->stop.kept);
    if (last == walker->pool_count || !kith_walker_has_reach(walker)) return;
    walker->limit = fmaxf(walker->reach, kith_pool_distance(walker->pool[last]));
    while (kith_pool_distance(walker->pool[walker->pool_count - 1]) > walker->limit)
        walker->pool[--walker->pool_count] = KITH_POOL_NOTHING;
}

/* The same for a walk that ends by distance. A pool with room for more than kernels hold in registers, AVX2 SHORT and
 * AVX-512 MIDDLE of them, is kept as short as it can be, which changes nothing of what is followed or found. */
static void offer_within(kith_walker *walker, size_t count, size_t *changed) {
    enum { SHORT = 40, MIDDLE = 64 };
    size_t capacity = walker->pool_capacity;
    if (capacity > SHORT) {
        if (walker->limit < INFINITY) count = drop_far(walker, count);
        size_t needed = walker->pool_count + count;
        capacity = kith_min_size(capacity, needed <= SHORT ? SHORT : kith_max_size(MIDDLE, needed));
    }
    *changed = capacity;
    if (count == 0) return;
    walker->pool_count = walker->kernels->offer(walker->pool, walker->pool_count, capacity, walker->distances,
                                                walker->fresh, count, walker->table_bits != 0, changed);
    narrow(walker);
    if (walker->pool_capacity > SHORT) trim(walker);
}

kith_status kith_walker_offer(kith_walker *walker, size_t count, size_t *changed) {
    if (walker->stop.rank != 0)
        offer_within(walker, count, changed);
    else
        walker->pool_count =
            walker->kernels->offer(walker->pool, walker->pool_count, walker->pool_capacity, walker->distances,
                                   walker->fresh, count, walker->table_bits != 0, changed);
    for (size_t i = 0; walker->met != NULL && i < count; i++)
        KITH_TRY(walker->met(walker->met_context, walker->fresh[i], walker->distances[i]));
    return KITH_OK;
}

/* Computes the distances of the nodes in `fresh` and offers them. */
static kith_status offer(kith_walker *walker, size_t *changed) {
    size_t count = walker->fresh_count;
    *changed = walker->pool_capacity;
    if (count == 0) return KITH_OK;
    kith_probe_rows(walker->probe, walker->fresh, walker->rows, count, walker->distances);
    walker->distance_count += count;
    return kith_walker_offer(walker, count, changed);
}

kith_status kith_hnsw_follow(kith_walker *walker, const kith_probe *probe, uint32_t node) {
    size_t changed;
    walker->probe = probe;
    walker->hop_count++;
    take_unseen(walker, kith_walker_links(walker, node), walker->graph->degree);
    return offer(walker, &changed);
}

/* Asks for the rows of the entries. They are marked later: those that are not kept may be met again, and kept then. */
static void take_entries(kith_walker *walker) {
    const kith_probe *probe = walker->probe;
    const kith_hnsw *graph = walker->graph;
    size_t count = 0;
    for (size_t i = 0; i < graph->entry_count; i++) {
        if (graph->entries[i] >= graph->node_count) continue;
        const char *row = kith_probe_row(probe, graph->entries[i]);
        for (size_t at = 0; at < probe->prefetch_bytes; at += LINE) __builtin_prefetch(row + at);
        walker->rows[count] = row;
        walker->fresh[count++] = graph->entries[i];
    }
    walker->fresh_count = kith_walker_room(walker, count);
}

/* In a small graph all entries may be results. */
static kith_status offer_entries(kith_walker *walker) {
    size_t changed, capacity = walker->pool_capacity;
    if (walker->graph->node_count >= (size_t)KITH_HNSW_ENTRIES_MAX * KITH_HNSW_ENTRIES_MAX)
        walker->pool_capacity = kith_walker_seeds_max(walker);
    kith_status status = offer(walker, &changed);
    walker->pool_capacity = capacity;
    walker->at = 0;
    if (walker->met != NULL) /* who is told of nodes has been told of all of these */
        for (size_t i = 0; i < walker->fresh_count; i++) kith_walker_mark(walker, walker->fresh[i]);
    else
        for (size_t i = 0; i < walker->pool_count; i++) kith_walker_mark(walker, kith_pool_node(walker->pool[i]));
    return status;
}

/* Chooses the node to be followed next: the nearest that was not. Those after it may be the next. */
static bool choose(kith_walker *walker) {
    size_t end = kith_min_size(walker->pool_count, walker->ef), at = walker->at;
    if (kith_walker_is_spent(walker)) return false;
    while (at < end && (walker->pool[at] & FOLLOWED) != 0) at++;
    walker->at = at;
    if (at >= end || kith_walker_is_far(walker, walker->pool[at])) return false;
    walker->pool[at] |= FOLLOWED;
    if (walker->estimates != NULL) {
        kith_hnsw_prefetch_packed(walker->graph, kith_pool_node(walker->pool[at]));
        return true;
    }
    end = kith_min_size(walker->pool_count, at + walker->graph->prefetch.links);
    for (; at < end; at++) kith_hnsw_prefetch_links(walker->graph, kith_pool_node(walker->pool[at]));
    return true;
}

void kith_walk_begin(kith_walker *walker, const kith_probe *probe, size_t ef) {
    walker->probe = probe;
    walker->ef = ef;
    walker->stage = KITH_WALK_ENTRIES;
    kith_walker_widen(walker);
    kith_pool_clear(walker->pool, 0, walker->pool_capacity);
    take_entries(walker);
}

/* A hop over a packed row. */
static kith_status step_packed(kith_walker *walker, uint32_t node, bool *more) {
    size_t changed;
    KITH_TRY(kith_hnsw_follow_packed(walker, node, &changed));
    walker->at = kith_min_size(walker->at + 1, changed);
    *more = choose(walker);
    return KITH_OK;
}

kith_status kith_walk_step(kith_walker *walker, bool *more) {
    *more = true;
    if (walker->stage == KITH_WALK_LINKS) {
        uint32_t node = kith_pool_node(walker->pool[walker->at]);
        walker->hop_count++;
        if (walker->estimates != NULL) return step_packed(walker, node, more);
        take_unseen(walker, kith_walker_links(walker, node), walker->graph->degree);
        walker->stage = KITH_WALK_DISTANCES;
        return KITH_OK;
    }
    if (walker->stage == KITH_WALK_ENTRIES) {
        KITH_TRY(offer_entries(walker));
    } else {
        size_t changed;
        KITH_TRY(offer(walker, &changed));
        walker->at = kith_min_size(walker->at + 1, changed);
    }
    *more = choose(walker);
    walker->stage = KITH_WALK_LINKS;
    return KITH_OK;
}

kith_status kith_hnsw_walk(kith_walker *walker, const kith_probe *probe, size_t ef) {
    kith_walk_begin(walker, probe, ef);
    for (bool more = true; more;) KITH_TRY(kith_walk_step(walker, &more));
    return KITH_OK;
}
