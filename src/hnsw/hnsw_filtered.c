/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_filtered.c: searches under a filter. How it is done follows from how many nodes the filter allows, and so never
 * from the other queries of the call:
 *
 *   listed   few: these are compared with the query, one and all
 *   bridged  the walk goes over allowed nodes alone. Where too few links of a node are allowed, links of its links
 *            take their place, so that the walk crosses what is not allowed without a distance spent on it (Patel et
 *            al., "ACORN: Performant and Predicate-Agnostic Search Over Vector Embeddings and Structured Data",
 *            SIGMOD 2024, section 5; here on the links of the ordinary graph). Before that a greedy descent over all
 *            nodes leads to the query, where allowed nodes may be islands that two steps do not join; and allowed nodes
 *            from all over the graph are offered, so that a group of them far from the query is met.
 *   asked    an answer for every node would cost more than the walk does, because the filter calls back or ids are
 *            stored: the walk goes over all nodes, further by as much as fewer are allowed, and only what it meets is
 *            asked about. A query around which fewer are allowed than elsewhere is searched again, bridged.
 *
 * A bridged walk that runs out of allowed nodes gives way to a look at all of them: k results come whenever k vectors
 * are allowed. So does one whose way down finds the query far from what is allowed, unless that is a great many.
 */
#include <string.h>

#include "base/bitset.h"
#include "base/error.h"
#include "hnsw/hnsw_inside.h"

enum {
    LISTED_MIN = 256,   /* so few are always listed */
    HOP_ROWS = 60,      /* a hop takes about the time of so many rows that are listed, */
    CROSS_ROWS = 12,    /* and of so many more for each node that it crosses */
    ASKED_PER_EF = 100, /* nodes that can be asked about in the time of following one, times its distances */
    SAMPLE = 1024,      /* nodes asked about to tell the share of allowed ones */
    SAMPLE_FEW = 32,    /* fewer of these allowed: the share is not known well enough */
    ALLOWED_LINKS = 24, /* allowed nodes that a hop offers at least, where two steps lead to as many */
    SEEDS_MIN = 4,      /* as in the plain walk */
    SEED_SHARE = 4,
    FAR_SHARE = 4,
    LINE = 64,
    FOLLOWED = 1
};

/* ---- Which nodes are allowed ------------------------------------------------------------------------------ */

static bool is_allowed(const kith_hnsw_filtered *filtered, uint32_t node) {
    return !kith_hnsw_is_dead(filtered->graph, node) &&
           filtered->allow(filtered->filter, kith_idlist_get(&filtered->graph->ids, node));
}

/* Ids that can be looked up: they are written down where they are few enough. */
static bool list_node(void *context, int64_t id) {
    kith_hnsw_filtered *filtered = context;
    uint64_t node;
    if (kith_hnsw_find_one(filtered->graph, id, &node))
        filtered->listed[filtered->allowed_count++] = (uint32_t)node;
    return true;
}

static void clear_dead(const kith_hnsw *graph, uint64_t *bits) {
    enum { PAGE_WORDS = 1 << (KITH_DEADSET_SHIFT - 6) };
    size_t words = kith_bitset_words(graph->node_count);
    for (size_t first = 0; first / PAGE_WORDS < graph->dead.page_count && first < words; first += PAGE_WORDS) {
        const uint64_t *dead = graph->dead.pages[first / PAGE_WORDS];
        for (size_t w = first; dead != NULL && w < kith_min_size(words, first + PAGE_WORDS); w++)
            bits[w] &= ~dead[w - first];
    }
}

/* A bit for every node. Where ids follow each other the filter's own bits are taken, many at a time. */
static kith_status resolve(kith_hnsw_filtered *filtered, kith_arena *arena) {
    const kith_hnsw *graph = filtered->graph;
    size_t count = graph->node_count, words = kith_bitset_words(count) + 1;
    uint64_t *bits;
    if (filtered->allowed != NULL) return KITH_OK;
    KITH_TRY(kith_arena_take(arena, words, sizeof *bits, &bits));
    memset(bits, 0, words * sizeof *bits);
    if (!graph->ids.is_stored) {
        kith_filter_bits(filtered->filter, graph->ids.first_id, count, bits);
        clear_dead(graph, bits);
    } else {
        for (size_t node = 0; node < count; node++)
            bits[node / 64] |= (uint64_t)is_allowed(filtered, (uint32_t)node) << (node % 64);
    }
    filtered->allowed = bits;
    filtered->allowed_count = kith_bitset_count(bits, count);
    return KITH_OK;
}

static kith_status list_bits(kith_hnsw_filtered *filtered, kith_arena *arena) {
    size_t at = 0;
    KITH_TRY(kith_arena_take(arena, filtered->allowed_count + 1, sizeof *filtered->listed, &filtered->listed));
    for (size_t w = 0; at < filtered->allowed_count; w++)
        for (uint64_t rest = filtered->allowed[w]; rest != 0; rest &= rest - 1)
            filtered->listed[at++] = (uint32_t)(w * 64 + (size_t)__builtin_ctzll(rest));
    return KITH_OK;
}

/* Every so many-th allowed node. */
static void pick_seeds(kith_hnsw_filtered *filtered) {
    size_t step = filtered->allowed_count / KITH_HNSW_ENTRIES_MAX + 1, next = step / 2, rank = 0;
    size_t words = kith_bitset_words(filtered->graph->node_count);
    for (size_t w = 0; w < words && filtered->seed_count < KITH_HNSW_ENTRIES_MAX; w++) {
        size_t here = (size_t)__builtin_popcountll(filtered->allowed[w]);
        for (; next < rank + here && filtered->seed_count < KITH_HNSW_ENTRIES_MAX; next += step) {
            uint64_t rest = filtered->allowed[w];
            for (size_t skip = next - rank; skip > 0; skip--) rest &= rest - 1;
            filtered->seeds[filtered->seed_count++] = (uint32_t)(w * 64 + (size_t)__builtin_ctzll(rest));
        }
        rank += here;
    }
}

/* ---- The choice ------------------------------------------------------------------------------------------- */

/* Where fewer are allowed the graph of them is a worse one: ef grows by 15% whenever their share halves. */
static size_t default_ef(float share) {
    float percent = 100, step = 15, above = 1;
    for (; share <= above / 2 && percent < 400; above /= 2) percent += step;
    percent += step * (above - share) / (above / 2);
    return (size_t)(KITH_HNSW_EF_DEFAULT * percent / 100);
}

/* A bridged walk that follows ef nodes takes about the time of a look at so many: the fewer links are allowed, the more
 * nodes a hop has to cross. */
static size_t listed_max(const kith_hnsw *graph, float share, size_t ef) {
    float links = share * (float)graph->degree;
    float crossed = links < ALLOWED_LINKS ? (ALLOWED_LINKS - links) / (links + 0.1f) : 0;
    float rows = HOP_ROWS + CROSS_ROWS * (crossed < (float)graph->degree ? crossed : (float)graph->degree);
    return kith_max_size(LISTED_MIN, (size_t)((float)ef * rows));
}

/* What follows from the share of allowed nodes, of which there is one at least. */
static void set_share(kith_hnsw_filtered *filtered, size_t ef, float share) {
    filtered->share = share;
    filtered->ef = kith_min_size(ef != 0 ? ef : default_ef(share), filtered->graph->base.count);
    filtered->listed_max = listed_max(filtered->graph, share, filtered->ef);
}

static float sampled_share(const kith_hnsw_filtered *filtered) {
    size_t count = filtered->graph->node_count, sample = kith_min_size(SAMPLE, count), yes = 0;
    for (size_t i = 0; i < sample; i++) yes += is_allowed(filtered, (uint32_t)(i * count / sample));
    return yes < SAMPLE_FEW ? 0 : (float)yes / (float)sample;
}

static float share_of(const kith_hnsw *graph, size_t allowed) {
    return (float)kith_max_size(1, allowed) / (float)graph->node_count;
}

static kith_status choose_resolved(kith_hnsw_filtered *filtered, size_t ef, kith_arena *arena) {
    KITH_TRY(resolve(filtered, arena));
    set_share(filtered, ef, share_of(filtered->graph, filtered->allowed_count));
    if (filtered->allowed_count <= filtered->listed_max) {
        filtered->strategy = KITH_FILTERED_LISTED;
        return list_bits(filtered, arena);
    }
    filtered->strategy = KITH_FILTERED_BRIDGED;
    pick_seeds(filtered);
    return KITH_OK;
}

kith_status kith_hnsw_filtered_open(const kith_hnsw *graph, const kith_filter *filter, size_t ef, kith_arena *arena,
                                    kith_hnsw_filtered *out) {
    *out = (kith_hnsw_filtered){.graph = graph, .filter = filter, .allow = kith_filter_allow_fn(filter)};
    size_t count = graph->node_count;
    uint64_t allowed = kith_filter_allowed_max(filter);
    set_share(out, ef, allowed < count ? share_of(graph, (size_t)allowed) : 1);
    if (allowed <= out->listed_max && kith_idlist_can_find(&graph->ids)) {
        out->strategy = KITH_FILTERED_LISTED;
        KITH_TRY(kith_arena_take(arena, (size_t)allowed + 1, sizeof *out->listed, &out->listed));
        kith_filter_visit(filter, list_node, out);
        return KITH_OK;
    }
    if (kith_filter_asks(filter) || graph->ids.is_stored) {
        float share = sampled_share(out);
        size_t own_ef = ef != 0 ? ef : KITH_HNSW_EF_DEFAULT;
        if (share * (float)count > (float)(own_ef * ASKED_PER_EF)) {
            out->strategy = KITH_FILTERED_ASKED;
            out->share = share;
            out->ef = kith_min_size(own_ef, graph->base.count);
            return KITH_OK;
        }
    }
    return choose_resolved(out, ef, arena);
}

kith_status kith_hnsw_filtered_turn(kith_hnsw_filtered *filtered, kith_arena *arena) {
    KITH_TRY(resolve(filtered, arena));
    set_share(filtered, filtered->ef, share_of(filtered->graph, filtered->allowed_count));
    filtered->strategy = KITH_FILTERED_BRIDGED;
    pick_seeds(filtered);
    return KITH_OK;
}

/* ---- A bridged walk --------------------------------------------------------------------------------------- */

static size_t fresh_count(const kith_hnsw *graph) {
    return kith_round_up(2 * graph->degree + ALLOWED_LINKS + 2 * KITH_HNSW_ENTRIES_MAX, 4) + KITH_WALK_ROOM;
}

static kith_status take_marks(kith_arena *arena, size_t words, kith_marks *out) {
    KITH_TRY(kith_arena_take(arena, words, sizeof *out->bits, &out->bits));
    KITH_TRY(kith_arena_take(arena, words + 1, sizeof *out->touched, &out->touched));
    out->touched_count = 0;
    return KITH_OK;
}

kith_status kith_hnsw_crosser_take(const kith_hnsw_filtered *filtered, kith_arena *arena, kith_walker *walker,
                                   kith_crosser *out) {
    size_t words = kith_walk_seen_words(filtered->graph->node_count), fresh = fresh_count(filtered->graph);
    uint32_t *blocked;
    *out = (kith_crosser){.filtered = filtered, .walker = walker};
    KITH_TRY(kith_arena_take(arena, words, sizeof *blocked, &blocked));
    KITH_TRY(take_marks(arena, words, &out->crossed));
    KITH_TRY(take_marks(arena, words, &out->descended));
    KITH_TRY(kith_arena_take(arena, filtered->graph->degree, sizeof *out->bridges, &out->bridges));
    KITH_TRY(kith_arena_take(arena, kith_walk_pool_count(KITH_DESCENT), sizeof *out->nearest, &out->nearest));
    KITH_TRY(kith_arena_take(arena, fresh, sizeof *walker->fresh, &walker->fresh));
    KITH_TRY(kith_arena_take(arena, fresh, sizeof *walker->distances, &walker->distances));
    for (size_t w = 0; w < words; w++) {
        out->descended.bits[w] = (uint32_t)(filtered->allowed[w / 2] >> (w % 2 * 32));
        walker->seen[w] = blocked[w] = ~out->descended.bits[w];
    }
    memset(out->crossed.bits, 0, words * sizeof *out->crossed.bits);
    walker->touched_count = 0;
    out->blocked = blocked;
    return KITH_OK;
}

static void clear(kith_crosser *crosser) {
    kith_walker *walker = crosser->walker;
    const uint32_t *blocked = crosser->blocked;
    kith_marks *descended = &crosser->descended, *crossed = &crosser->crossed;
    for (size_t i = 0; i < walker->touched_count; i++)
        walker->seen[walker->touched[i]] = blocked[walker->touched[i]];
    for (size_t i = 0; i < descended->touched_count; i++)
        descended->bits[descended->touched[i]] = ~blocked[descended->touched[i]];
    for (size_t i = 0; i < crossed->touched_count; i++) crossed->bits[crossed->touched[i]] = 0;
    walker->touched_count = descended->touched_count = crossed->touched_count = 0;
    kith_pool_clear(walker->pool, 0, walker->pool_capacity);
    kith_pool_clear(crosser->nearest, 0, KITH_DESCENT);
    walker->pool_count = crosser->nearest_count = 0;
    crosser->met_count = crosser->met_allowed_count = 0;
    walker->distance_count = walker->hop_count = 0;
}

static void prefetch_row(const kith_probe *probe, uint32_t node) {
    const char *row = kith_probe_row(probe, node);
    for (size_t at = 0; at < probe->prefetch_bytes; at += LINE) __builtin_prefetch(row + at);
}

/* Gathers allowed nodes that have not been seen behind the `fresh` that are there, each once even if a row that changes
 * names it twice; returns how many there are then. */
static size_t take(kith_crosser *crosser, const kith_probe *probe, const uint32_t *nodes, size_t count,
                   size_t fresh) {
    kith_walker *walker = crosser->walker;
    size_t more = walker->kernels->unseen(walker->seen, nodes, count, (uint32_t)walker->graph->node_count,
                                          walker->fresh + fresh);
    size_t kept = fresh;
    for (size_t i = fresh; i < fresh + more; i++) {
        uint32_t node = walker->fresh[i], word = walker->seen[node / 32], bit = (uint32_t)1 << (node % 32);
        if ((word & bit) != 0) continue;
        walker->touched[walker->touched_count] = node / 32;
        walker->touched_count += word == crosser->blocked[node / 32];
        walker->seen[node / 32] = word | bit;
        walker->fresh[kept++] = node;
        prefetch_row(probe, node);
    }
    return kept;
}

/* The same with nodes that are not allowed and that the descent has not met. */
static size_t take_blocked(kith_crosser *crosser, const kith_probe *probe, const uint32_t *nodes, size_t count,
                           size_t fresh) {
    kith_walker *walker = crosser->walker;
    kith_marks *marks = &crosser->descended;
    size_t more = walker->kernels->unseen(marks->bits, nodes, count, (uint32_t)walker->graph->node_count,
                                          walker->fresh + fresh);
    size_t kept = fresh;
    for (size_t i = fresh; i < fresh + more; i++) {
        uint32_t node = walker->fresh[i], word = marks->bits[node / 32], bit = (uint32_t)1 << (node % 32);
        if ((word & bit) != 0) continue;
        marks->touched[marks->touched_count] = node / 32;
        marks->touched_count += word == ~crosser->blocked[node / 32];
        marks->bits[node / 32] = word | bit;
        walker->fresh[kept++] = node;
        prefetch_row(probe, node);
    }
    return kept;
}

/* Parts a row of links: returns how many are allowed, and writes the others to `bridges`. Numbers past the last node,
 * which a row that changes and a damaged file may hold, are passed over. */
static size_t part_links(const kith_crosser *crosser, const uint32_t *links, size_t *bridge_count) {
    const kith_hnsw *graph = crosser->filtered->graph;
    size_t allowed = 0, bridges = 0;
    for (size_t i = 0; i < graph->degree && links[i] != KITH_NO_NODE; i++) {
        if (links[i] >= graph->node_count) continue;
        bool is_blocked = (crosser->blocked[links[i] / 32] >> (links[i] % 32) & 1) != 0;
        crosser->bridges[bridges] = links[i];
        bridges += is_blocked;
        allowed += !is_blocked;
    }
    *bridge_count = bridges;
    return allowed;
}

static size_t count_allowed(const kith_crosser *crosser, const uint32_t *links) {
    const kith_hnsw *graph = crosser->filtered->graph;
    size_t allowed = 0;
    for (size_t i = 0; i < graph->degree && links[i] != KITH_NO_NODE; i++)
        allowed += links[i] < graph->node_count && (~crosser->blocked[links[i] / 32] >> (links[i] % 32) & 1) != 0;
    return allowed;
}

/* Whether a bridge is crossed for the first time; it is marked. */
static bool cross(kith_crosser *crosser, uint32_t node) {
    kith_marks *marks = &crosser->crossed;
    uint32_t word = marks->bits[node / 32], bit = (uint32_t)1 << (node % 32);
    if ((word & bit) != 0) return false;
    marks->touched[marks->touched_count] = node / 32;
    marks->touched_count += word == 0;
    marks->bits[node / 32] = word | bit;
    return true;
}

/* The allowed nodes around one: its links, and those of the nearest links that are not allowed, until there are
 * ALLOWED_LINKS, seen before or not. Returns how many of them are fresh. */
static size_t gather(kith_crosser *crosser, const kith_probe *probe, uint32_t node) {
    const kith_hnsw *graph = crosser->filtered->graph;
    const uint32_t *links = kith_walker_links(crosser->walker, node);
    size_t bridges, allowed = part_links(crosser, links, &bridges), fresh = 0;
    if (allowed > 0) fresh = take(crosser, probe, links, graph->degree, 0);
    if (allowed >= ALLOWED_LINKS) return fresh;
    float each = crosser->filtered->share * (float)(allowed + bridges) + 0.1f;
    size_t ahead = kith_min_size(bridges, (size_t)((float)(ALLOWED_LINKS - allowed) / each) + 1);
    for (size_t b = 0; b < ahead; b++) kith_hnsw_prefetch_links(graph, crosser->bridges[b]);
    for (size_t b = 0; b < bridges && allowed < ALLOWED_LINKS; b++) {
        const uint32_t *further = kith_walker_links(crosser->walker, crosser->bridges[b]);
        size_t there = count_allowed(crosser, further);
        allowed += there;
        if (there > 0 && cross(crosser, crosser->bridges[b]))
            fresh = take(crosser, probe, further, graph->degree, fresh);
    }
    return fresh;
}

/* Distances of the nodes in `fresh`, as far as the bound on them goes; *count becomes how many these are. */
static void measure(kith_walker *walker, const kith_probe *probe, size_t *count) {
    if (walker->distances_max != 0)
        *count = (size_t)kith_min_size(*count, walker->distances_max - walker->distance_count);
    if (*count == 0) return;
    kith_probe_many(probe, walker->fresh, *count, walker->distances);
    walker->distance_count += *count;
}

static kith_status hop(kith_crosser *crosser, const kith_probe *probe, uint32_t node, size_t *changed) {
    size_t count = gather(crosser, probe, node);
    crosser->walker->hop_count++;
    measure(crosser->walker, probe, &count);
    return kith_walker_offer(crosser->walker, count, changed);
}

/* ---- The descent ------------------------------------------------------------------------------------------- */

/* Offers nodes, allowed or not, to the descent, and the allowed ones to the pool. */
static kith_status descend_to(kith_crosser *crosser, const kith_probe *probe, const uint32_t *nodes, size_t count) {
    kith_walker *walker = crosser->walker;
    size_t changed, allowed = take(crosser, probe, nodes, count, 0);
    size_t all = take_blocked(crosser, probe, nodes, count, allowed);
    crosser->met_count += all;
    crosser->met_allowed_count += allowed;
    measure(walker, probe, &all);
    crosser->nearest_count = walker->kernels->offer(crosser->nearest, crosser->nearest_count, KITH_DESCENT,
                                                    walker->distances, walker->fresh, all, &changed);
    return kith_walker_offer(walker, kith_min_size(allowed, all), &changed);
}

/* Follows the nearest node until it has been followed; then the pool is given what lies two steps from there. */
static kith_status descend(kith_crosser *crosser, const kith_probe *probe) {
    const kith_hnsw *graph = crosser->filtered->graph;
    size_t changed;
    crosser->met_count = crosser->met_allowed_count = 0;
    while (crosser->nearest_count > 0 && (crosser->nearest[0] & FOLLOWED) == 0 &&
           !kith_walker_is_spent(crosser->walker)) {
        uint32_t node = kith_pool_node(crosser->nearest[0]);
        crosser->nearest[0] |= FOLLOWED;
        crosser->walker->hop_count++;
        KITH_TRY(descend_to(crosser, probe, kith_walker_links(crosser->walker, node), graph->degree));
    }
    for (size_t i = 0; i < crosser->nearest_count && !kith_walker_is_spent(crosser->walker); i++)
        KITH_TRY(hop(crosser, probe, kith_pool_node(crosser->nearest[i]), &changed));
    return KITH_OK;
}

/* ---- The walk ---------------------------------------------------------------------------------------------- */

kith_status kith_hnsw_cross(kith_crosser *crosser, const kith_probe *probe, uint32_t node) {
    size_t changed;
    return hop(crosser, probe, node, &changed);
}

/* Entries and seeds lie far apart: only few of them are put into the pool, as in the plain walk. */
static kith_status begin(kith_crosser *crosser, const kith_probe *probe, size_t ef) {
    kith_walker *walker = crosser->walker;
    const kith_hnsw_filtered *filtered = crosser->filtered;
    size_t changed, capacity = walker->pool_capacity;
    clear(crosser);
    walker->pool_capacity = kith_min_size(capacity, kith_max_size(SEEDS_MIN, ef / SEED_SHARE));
    kith_status status;
    KITH_GO(descend_to(crosser, probe, filtered->graph->entries, filtered->graph->entry_count));
    size_t count = take(crosser, probe, filtered->seeds, filtered->seed_count, 0);
    measure(walker, probe, &count);
    KITH_GO(kith_walker_offer(walker, count, &changed));
done:
    walker->pool_capacity = capacity;
    return status == KITH_OK ? descend(crosser, probe) : status;
}

/* The way down to the query met far fewer allowed nodes than there are elsewhere. */
static bool is_far(const kith_crosser *crosser) {
    return (float)crosser->met_allowed_count < crosser->filtered->share * (float)crosser->met_count / FAR_SHARE;
}

kith_status kith_hnsw_bridged_walk(kith_crosser *crosser, const kith_probe *probe, size_t ef, size_t k) {
    kith_walker *walker = crosser->walker;
    size_t changed, at = 0;
    walker->pool_capacity = kith_max_size(ef, k);
    crosser->gives_up = false;
    KITH_TRY(begin(crosser, probe, ef));
    if (is_far(crosser)) {
        crosser->gives_up = walker->distances_max == 0 &&
                            crosser->filtered->allowed_count <= KITH_FILTERED_FAR * crosser->filtered->listed_max;
        if (crosser->gives_up) return KITH_OK;
        ef *= KITH_FILTERED_FAR;
        kith_walker_resize(walker, kith_max_size(ef, k));
    }
    while (at < kith_min_size(walker->pool_count, ef) && !kith_walker_is_spent(walker)) {
        int64_t entry = walker->pool[at];
        if ((entry & FOLLOWED) != 0) {
            at++;
            continue;
        }
        walker->pool[at] = entry | FOLLOWED;
        if (at + 1 < walker->pool_count)
            kith_hnsw_prefetch_links(walker->graph, kith_pool_node(walker->pool[at + 1]));
        KITH_TRY(hop(crosser, probe, kith_pool_node(entry), &changed));
        at = kith_min_size(at + 1, changed);
    }
    return KITH_OK;
}
