/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_filtered.c: searches under a filter. How it is done follows from how many nodes the filter allows, and so never
 * from the other queries of the call:
 *
 *   listed   few: these are compared with the query, one and all
 *   bridged  the walk goes over allowed nodes alone. Where too few links of a node are allowed, links of its links
 *            take their place, so that the walk crosses what is not allowed without a distance spent on it (Patel et
 *            al., "ACORN: Performant and Predicate-Agnostic Search Over Vector Embeddings and Structured Data",
 *            SIGMOD 2024, section 5; here on the links of the ordinary graph): hnsw_bridged.c
 *   asked    an answer for every node would cost more than the walk does, because the filter calls back or ids are
 *            stored: the walk goes over all nodes, further by as much as fewer are allowed, and only what it meets is
 *            asked about. A query around which fewer are allowed than elsewhere is searched again, bridged.
 *
 * A bridged walk that runs out of allowed nodes leaves its query for a look at all of them: k results come whenever k
 * vectors are allowed. So does one whose way down finds the query far from what is allowed, unless that is a great many.
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
    WORD = 32
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

/* Entries that are allowed, which lie all over the graph; then every so many-th allowed node until there are as many as
 * entries. */
static void pick_seeds(kith_hnsw_filtered *filtered) {
    const kith_hnsw *graph = filtered->graph;
    filtered->seed_count = 0;
    for (size_t i = 0; i < graph->entry_count; i++)
        if (kith_bitset_get(filtered->allowed, graph->entries[i]))
            filtered->seeds[filtered->seed_count++] = graph->entries[i];
    size_t wanted = KITH_HNSW_ENTRIES_MAX - filtered->seed_count;
    if (wanted == 0) return;
    size_t step = filtered->allowed_count / wanted + 1, next = step / 2, rank = 0;
    size_t words = kith_bitset_words(graph->node_count);
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

/* What a bridged walk asks of the bits: for each node in 32 bits at a time, as its kernels take them. */
static kith_status open_bridged(kith_hnsw_filtered *filtered, kith_arena *arena) {
    size_t words = kith_walk_seen_words(filtered->graph->node_count);
    filtered->strategy = KITH_FILTERED_BRIDGED;
    pick_seeds(filtered);
    KITH_TRY(kith_arena_take(arena, words, sizeof *filtered->open, &filtered->open));
    KITH_TRY(kith_arena_take(arena, words, sizeof *filtered->blocked, &filtered->blocked));
    for (size_t w = 0; w < words; w++) {
        filtered->open[w] = (uint32_t)(filtered->allowed[w / 2] >> (w % 2 * WORD));
        filtered->blocked[w] = ~filtered->open[w];
    }
    return KITH_OK;
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
    float crossed = links < KITH_FILTERED_LINKS ? (KITH_FILTERED_LINKS - links) / (links + 0.1f) : 0;
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
    return open_bridged(filtered, arena);
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
    if (filtered->strategy == KITH_FILTERED_BRIDGED) {
        filtered->strategy = KITH_FILTERED_LISTED;
        return list_bits(filtered, arena);
    }
    KITH_TRY(resolve(filtered, arena));
    set_share(filtered, filtered->ef, share_of(filtered->graph, filtered->allowed_count));
    return open_bridged(filtered, arena);
}
