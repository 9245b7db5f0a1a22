/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_inside.h: what the files of src/hnsw share: the graph, how a query is held against its nodes, the walk.
 *
 * A vector is a node; node v is row v of every array, in the order of addition. Its links are a row of `degree` node
 * numbers, nearest first, filled up with KITH_NO_NODE. A walk begins at the entry nodes.
 *
 * A removed node stays for a while: walks go over it, but it is no result. Once one node in so many has been removed,
 * what links to removed ones is linked to what lies behind them, and the others close up: hnsw_repair.c.
 *
 * Distances inside the graph are floats, smaller for nearer: squared L2, or inner products negated. Between nodes,
 * where links are chosen, cosine is the squared L2 of the normalised vectors. Under ip links are chosen by inner
 * product as well, so that they lead to long vectors, which are the nearest of many queries (Morozov and Babenko,
 * "Non-metric Similarity Graphs for Maximum Inner Product Search", NeurIPS 2018). Squared L2 with the coordinate that
 * makes all vectors equally long was tried: where lengths differ tenfold it found half as much.
 */
#ifndef KITH_HNSW_HNSW_INSIDE_H
#define KITH_HNSW_HNSW_INSIDE_H

#include <math.h>

#include "base/bitset.h"
#include "base/chunks.h"
#include "base/deadset.h"
#include "base/idlist.h"
#include "code/code.h"
#include "hnsw/hnsw.h"
#include "index/vtable.h"
#include "simd/simd.h"

enum {
    KITH_HNSW_M_MIN = 2,
    KITH_HNSW_M_MAX = 512,
    KITH_HNSW_EF_BUILD_MAX = 10000,
    KITH_HNSW_ALPHA_MIN = 100, /* per cent */
    KITH_HNSW_ALPHA_MAX = 300,
    KITH_HNSW_ENTRIES_MAX = 64,
    KITH_HNSW_EF_DEFAULT = 64
};
#define KITH_NO_NODE        UINT32_MAX
#define KITH_HNSW_NODES_MAX ((size_t)INT32_MAX)

/* What links are chosen by. */
typedef struct kith_hnsw_options {
    size_t m;             /* the degree is 2 * m, as that of HNSW's lowest level */
    size_t ef_build;      /* how many candidates a new node's links are chosen from */
    size_t alpha_percent; /* a candidate is dropped when a link is alpha times nearer to it than the node, in
                             squared distance */
} kith_hnsw_options;

/* The vectors in 8 bits, for as long as an addition takes: hnsw_sketch.c. */
typedef struct kith_hnsw_sketch {
    unsigned char *rows; /* `stride` bytes apart; NULL: 8 bits do not do, the stored rows are to be used */
    kith_dtype dtype;    /* u8; i8 under ip; f32 where 8 bits do not do */
    size_t dim, stride;
    float *centres; /* dim */
    float inverse_step;
    float
        *lengths; /* of each node: the rows are of directions, vectors of length 1; NULL: of vectors as they are */
} kith_hnsw_sketch;

typedef struct kith_hnsw {
    kith_index base;
    kith_hnsw_options options;
    size_t degree;
    kith_code *code;    /* what the vectors are stored as; NULL: as they are */
    kith_chunks rows;   /* the vectors as the stored type or their codes, at a stride that starts few cache lines */
    kith_chunks side;   /* cosine: 1 / |x|, a float each */
    kith_chunks links;  /* degree x uint32_t each */
    kith_chunks packed; /* links and codes side by side: hnsw_packed.c; empty: there are none */
    kith_idlist ids;
    uint32_t entries[KITH_HNSW_ENTRIES_MAX];
    size_t entry_count, entries_picked_at; /* the count for which they were picked */
    size_t
        node_count; /* those that links may name: base.count, the removed ones, and during an addition new ones */
    kith_deadset dead; /* nodes that were removed and are still there */
    bool is_live;      /* rows of links may change while a search reads them: hnsw_rows.c */
    uint32_t *parents; /* of the first parent_count nodes: kith_hnsw_plant; NULL: not known. Searches do
                                       not look at them */
    size_t parent_count, parent_room, parent_cursor;
    const kith_hnsw_sketch *sketch; /* what nodes are held against each other by; NULL: their rows */
    kith_prefetch prefetch;         /* what searches ask for ahead */
    bool has_lengths;               /* ip, for as long as the sketch: it is of directions, and has lengths */
    bool is_level;                  /* ip, for as long as the sketch: all vectors are about equally long */
    uint32_t instance;              /* of the sections of a mapped index */
} kith_hnsw;

extern const kith_index_vtable kith_hnsw_vtable;

static inline kith_hnsw *kith_hnsw_of(kith_index *index) { return (kith_hnsw *)index; }
static inline const kith_hnsw *kith_hnsw_of_const(const kith_index *index) { return (const kith_hnsw *)index; }
static inline bool kith_hnsw_has_side(const kith_hnsw *graph) {
    return graph->base.metric == KITH_COSINE && graph->code == NULL;
}
static inline const void *kith_hnsw_row(const kith_hnsw *graph, uint32_t node) {
    return kith_chunks_at(&graph->rows, node);
}
static inline uint32_t *kith_hnsw_links(const kith_hnsw *graph, uint32_t node) {
    return kith_chunks_at(&graph->links, node);
}
static inline bool kith_hnsw_is_dead(const kith_hnsw *graph, size_t node) {
    return kith_deadset_has(&graph->dead, node);
}
static inline void kith_hnsw_prefetch_links(const kith_hnsw *graph, uint32_t node) {
    const char *links = (const char *)kith_hnsw_links(graph, node);
    for (size_t at = 0; at < graph->degree * sizeof(uint32_t); at += KITH_ALIGNMENT) __builtin_prefetch(links + at);
}
static inline float kith_hnsw_side(const kith_hnsw *graph, uint32_t node) {
    return *(const float *)kith_chunks_at(&graph->side, node);
}
/* Codes know l2 and ip: under cosine they are of normalised vectors. */
static inline kith_metric kith_hnsw_code_metric(kith_metric metric) {
    return metric == KITH_COSINE ? KITH_IP : metric;
}
/* Are links chosen by inner product? */
static inline bool kith_hnsw_links_by_ip(const kith_hnsw *graph) {
    return graph->base.metric == KITH_IP && !(graph->is_level && graph->sketch != NULL);
}
/* How many of a row's links are in use. */
static inline size_t kith_hnsw_link_count(const kith_hnsw *graph, const uint32_t *links) {
    size_t count = 0;
    while (count < graph->degree && links[count] != KITH_NO_NODE) count++;
    return count;
}

/* ---- hnsw_rows.c: rows of links that change while searches read them ---------------------------------------- */

/* Writes a row of links, or one link of it, beside searches. */
void kith_hnsw_put_links(const kith_hnsw *graph, uint32_t node, const uint32_t *links);
void kith_hnsw_put_link(const kith_hnsw *graph, uint32_t node, size_t place, uint32_t link);
/* Copies a row that may change meanwhile: each link is one that was there. `copy` is at a multiple of 8 bytes. */
void kith_hnsw_copy_links(const kith_hnsw *graph, uint32_t node, uint32_t *copy);
/* To be called before the first row of links that is known to searches changes. May wait for those under way. */
void kith_hnsw_go_live(kith_hnsw *graph);

/* ---- hnsw_probe.c: a query, or a node, held against nodes ------------------------------------------------- */

typedef enum kith_probe_kind {
    KITH_PROBE_PLAIN,   /* the kernel's value */
    KITH_PROBE_NEGATED, /* minus that */
    KITH_PROBE_COSINE,  /* minus that, over both norms */
    KITH_PROBE_UNIT,    /* squared L2 of the normalised vectors */
    KITH_PROBE_LENGTHS, /* from the squared L2 of directions, and lengths: the inner product negated */
    KITH_PROBE_CODE,    /* the code's estimate */
    KITH_PROBE_CODES    /* what it is more than the estimate of the vector itself */
} kith_probe_kind;

/* Nodes of a graph of codes made queries: what their codes stand for, prepared. Those used last are kept, each in the
 * place that its number says. One thread's, for one addition. */
typedef struct kith_restorer {
    uint32_t *nodes; /* slot_count: which node each slot has, KITH_NO_NODE for none */
    float *bases, *selves;
    unsigned char *prepared; /* query_bytes each */
    float *vector;           /* projected_dim */
    unsigned char *scratch;
    size_t slot_count; /* a power of two */
} kith_restorer;

kith_status kith_restorer_take(const kith_code *code, kith_restorer *out);
/* What one takes. */
double kith_restorer_bytes(const kith_code *code);
/* Takes an empty one. */
void kith_restorer_free(kith_restorer *restorer);

typedef struct kith_probe {
    const kith_hnsw *graph;
    kith_probe_kind kind;
    const kith_float_kernels *floats; /* one of the two */
    const kith_int_kernels *ints;
    size_t prefetch_bytes;          /* how much of a row is asked for ahead */
    const void *vector;             /* of a code: the prepared query */
    float side;                     /* cosine: 1 / |q|; of a code: the base of estimates */
    float self, factor;             /* of a node of codes: factor * (estimate - self), at least 0 */
    kith_restorer *restorer;        /* of a node of codes */
    const kith_hnsw_sketch *sketch; /* where the rows are; NULL: in the graph */
} kith_probe;

/* A node as it is held against other nodes. `restorer` is there where the graph is of codes and has no sketch: then the
 * probe is good until the next one of the same restorer. */
kith_probe kith_probe_node(const kith_hnsw *graph, uint32_t node, kith_restorer *restorer);
/* Makes a node's probe another node's. */
void kith_probe_restore(kith_probe *probe, uint32_t node);
/* How queries of an element type are held against nodes: all but the vector and its side. */
kith_probe kith_probe_query(const kith_hnsw *graph, kith_dtype dtype);
static inline const void *kith_probe_row(const kith_probe *probe, uint32_t node) {
    return probe->sketch != NULL ? probe->sketch->rows + (size_t)node * probe->sketch->stride
                                 : kith_hnsw_row(probe->graph, node);
}
static inline void kith_probe_move(kith_probe *probe, uint32_t node) {
    if (probe->restorer != NULL) {
        kith_probe_restore(probe, node);
        return;
    }
    probe->vector = kith_probe_row(probe, node);
    if (probe->kind == KITH_PROBE_UNIT) probe->side = kith_hnsw_side(probe->graph, node);
    if (probe->kind == KITH_PROBE_LENGTHS) probe->side = probe->sketch->lengths[node];
}
void kith_probe_four(const kith_probe *probe, const uint32_t nodes[4], float out[4]);
/* `count` distances. nodes and out have room for KITH_WALK_ROOM more. */
void kith_probe_many(const kith_probe *probe, uint32_t *nodes, size_t count, float *out);
/* The same where the rows of the nodes have been found; `rows` has such room as well. */
void kith_probe_rows(const kith_probe *probe, uint32_t *nodes, const void **rows, size_t count, float *out);

/* ---- hnsw_walk.c ------------------------------------------------------------------------------------------ */

/* A node of the pool: ordered by distance, then number. The lowest bit says that its links have been followed. */
static inline uint32_t kith_pool_node(int64_t entry) { return (uint32_t)entry >> 1; }
static inline float kith_pool_distance(int64_t entry) { return kith_key_to_f32((int32_t)(entry >> 32)); }

/* What a walk does next. Between two steps memory is on its way, so that a thread takes steps of several walks in
 * turn. */
typedef enum kith_walk_stage {
    KITH_WALK_ENTRIES,  /* distances of the entries */
    KITH_WALK_LINKS,    /* reads the links of the node at `at` */
    KITH_WALK_DISTANCES /* distances of these */
} kith_walk_stage;

/* Where a walk ends that does not follow ef nodes: at a node that is further than the `rank`-th nearest live one by more
 * than so large a share of that one's distance. `kept` >= rank of the nearest stay in the pool however far they are. */
typedef struct kith_walk_stop {
    size_t rank, kept; /* 0: it follows ef nodes */
    float share, zero; /* distances count from `zero` on */
} kith_walk_stop;

/* What a walk owns. Nodes that a walk has seen are marked in `seen` until it is cleared: a bit per node, or, in a graph so
 * large that these would be read from afar, a small table of those seen last (graph.h: forgotten). A node that the table
 * has forgotten costs one more distance, and the pool knows it. */
typedef struct kith_walker {
    _Alignas(KITH_ALIGNMENT) const kith_hnsw *graph; /* no two walkers share a cache line */
    const kith_graph_kernels *kernels;
    uint32_t *seen;
    unsigned table_bits; /* a table of 2^table_bits nodes; 0: a bit per node */
    size_t seen_words;   /* of `seen`: few enough to be cleared one and all; 0: those in `touched` are */
    uint32_t *touched;   /* words of it that are not 0; room for one more than there are */
    size_t touched_count;
    int64_t *pool; /* of graph.h: nearest first; room for kith_walk_pool_count(pool_capacity) */
    size_t pool_count, pool_capacity;
    uint32_t *fresh; /* nodes met for the first time: room for a row of links or all entries */
    size_t fresh_count;
    const void **rows; /* theirs */
    float *distances;
    uint32_t
        *copy; /* of a row of links: of a graph that is live; NULL: rows stay as they are while they are read */
    const kith_probe *probe; /* of the walk that is under way */
    size_t ef, at;           /* the place in the pool that was followed last */
    kith_walk_stage stage;
    uint64_t distance_count, distances_max; /* of the walk; 0: no bound */
    uint64_t hop_count;
    kith_walk_stop stop;
    float reach,
        limit; /* the walk ends at a node further than `reach`; none further than `limit` comes into the pool */
    uint64_t deadline_ns; /* on kith_now_ns; 0: none */
    uint32_t looks;       /* how often it was asked for; the clock is read for one in KITH_WALK_LOOK_EVERY */
    bool is_late;         /* the deadline has passed: walks end, and so do all later ones */
    float *
        estimates; /* kith_hnsw_estimates_count: the walk goes over packed rows, has no bound on distances and tells
                         nobody what it meets; NULL: over links and codes */
    uint32_t *places; /* degree: those of them that are near */
    /* Called for every node whose distance was computed; NULL: not. The seam of filters and range searches. */
    kith_status (*met)(void *context, uint32_t node, float distance);
    void *met_context;
} kith_walker;

enum {
    KITH_WALK_ROOM = KITH_UNSEEN_ROOM, /* past the end of fresh and distances */
    KITH_WALK_LOOK_EVERY = 16          /* hops from one look at the clock to the next */
};

bool kith_walker_look(kith_walker *walker);
/* Asked before each hop: whether the bound on distances is reached, or the deadline has passed. What the pool holds
 * then is the answer. */
static inline bool kith_walker_is_spent(kith_walker *walker) {
    if (walker->distances_max != 0 && walker->distance_count >= walker->distances_max) return true;
    return walker->deadline_ns != 0 && kith_walker_look(walker);
}
/* How many of so many more distances the bound on them leaves room for, and whether for all. */
static inline size_t kith_walker_room(const kith_walker *walker, size_t count) {
    if (walker->distances_max == 0) return count;
    uint64_t left = walker->distances_max - kith_min_size(walker->distance_count, walker->distances_max);
    return left < count ? (size_t)left : count;
}
static inline bool kith_walker_has_left(const kith_walker *walker, size_t count) {
    return kith_walker_room(walker, count) == count;
}

/* How many of the nodes that a walk begins from are put into its pool. They lie far apart: a few are enough, and the fewer
 * the better. But all that there is room for where the bound on distances may end the walk soon after them. */
static inline size_t kith_walker_seeds_max(const kith_walker *walker) {
    enum { SEEDS_MIN = 4, SEED_SHARE = 4, SOON = 2 * KITH_HNSW_ENTRIES_MAX };
    if (walker->distances_max != 0 && walker->distances_max <= SOON) return walker->pool_capacity;
    size_t followed = walker->stop.rank != 0 ? kith_min_size(walker->ef, walker->stop.kept) : walker->ef;
    return kith_min_size(walker->pool_capacity, kith_max_size(SEEDS_MIN, followed / SEED_SHARE));
}

/* Before a walk: nothing is too far. */
static inline void kith_walker_widen(kith_walker *walker) { walker->reach = walker->limit = INFINITY; }
/* Whether enough is in the pool to say how far it goes. */
static inline bool kith_walker_has_reach(const kith_walker *walker) { return walker->reach < INFINITY; }
/* Afterwards: whether it has followed all that lies within its reach, before it had followed ef. */
static inline bool kith_walker_ended_by_reach(const kith_walker *walker) {
    return kith_walker_has_reach(walker) && walker->at < walker->ef;
}
/* Is an entry of the pool further than the walk goes? */
static inline bool kith_walker_is_far(const kith_walker *walker, int64_t entry) {
    return kith_pool_distance(entry) > walker->reach;
}

/* How many items each array of a walker for a graph of `node_count` nodes has room for. */
static inline size_t kith_walk_seen_words(size_t node_count) { return node_count / 32 + 1; }
/* Of so many marks a walk need not remember which it has set: to clear 32 KiB takes no longer than to write a list. */
static inline size_t kith_walk_few_words(size_t words) { return words <= 8192 ? words : 0; }
/* The table for a plain walk, which nobody is told of; 0: bits are as well. A walk sees about degree / 2 nodes for each of
 * the ef that it follows, and it goes on until it has met `kept`. */
static inline unsigned kith_walk_table_bits(const kith_hnsw *graph, size_t node_count, size_t ef, size_t kept) {
    enum { BITS_MIN = 12, BITS_MAX = 24 };
    unsigned bits = BITS_MIN;
    while (bits < BITS_MAX && (size_t)1 << bits < kith_max_size(graph->degree * ef, 4 * kept)) bits++;
    return (size_t)1 << bits <= kith_walk_seen_words(node_count) / 2 ? bits : 0;
}
/* Words of the marks of a walker with this table. */
static inline size_t kith_walk_mark_words(unsigned table_bits, size_t node_count) {
    return table_bits != 0 ? (size_t)1 << table_bits : kith_walk_seen_words(node_count);
}
/* Marks one node. */
static inline void kith_walker_mark(kith_walker *walker, uint32_t node) {
    if (walker->table_bits != 0) {
        walker->seen[kith_seen_place(node, walker->table_bits)] = ~node;
        return;
    }
    uint32_t word = walker->seen[node / 32];
    if (walker->seen_words == 0) {
        walker->touched[walker->touched_count] = node / 32;
        walker->touched_count += word == 0;
    }
    walker->seen[node / 32] = word | (uint32_t)1 << (node % 32);
}
static inline size_t kith_walk_fresh_count(const kith_hnsw *graph) {
    return kith_max_size(graph->degree, KITH_HNSW_ENTRIES_MAX) + KITH_WALK_ROOM;
}

static inline size_t kith_walk_pool_count(size_t capacity) { return kith_round_up(capacity, KITH_POOL_UNIT); }

/* A node's links, until the next call. In a copy a link may stand twice. */
static inline const uint32_t *kith_walker_links(const kith_walker *walker, uint32_t node) {
    if (walker->copy == NULL) return kith_hnsw_links(walker->graph, node);
    kith_hnsw_copy_links(walker->graph, node, walker->copy);
    return walker->copy;
}

/* Walks from the entries until the `ef` nearest nodes that were met have all been followed; the pool_capacity
 * nearest stand in the pool. The walker has been cleared. */
kith_status kith_hnsw_walk(kith_walker *walker, const kith_probe *probe, size_t ef);
/* The same in steps: until *more is false. The probe stays until then. */
void kith_walk_begin(kith_walker *walker, const kith_probe *probe, size_t ef);
kith_status kith_walk_step(kith_walker *walker, bool *more);
/* Offers the links of one node that have not been seen. */
kith_status kith_hnsw_follow(kith_walker *walker, const kith_probe *probe, uint32_t node);
void kith_walker_clear(kith_walker *walker);
/* Empties the places of a pool from `first` on. */
static inline void kith_pool_clear(int64_t *pool, size_t first, size_t capacity) {
    for (size_t i = first; i < kith_walk_pool_count(capacity); i++) pool[i] = KITH_POOL_NOTHING;
}
/* Another capacity, no smaller than the entries that are there. */
static inline void kith_walker_resize(kith_walker *walker, size_t capacity) {
    walker->pool_capacity = capacity;
    kith_pool_clear(walker->pool, walker->pool_count, capacity);
}
/* Offers the first `count` nodes in `fresh`, whose distances are there, to the pool. Places before *changed are as they
 * were. */
kith_status kith_walker_offer(kith_walker *walker, size_t count, size_t *changed);

/* ---- hnsw_packed.c: links and codes side by side ------------------------------------------------------------- */

/* Is a graph of such codes packed? */
bool kith_hnsw_packs(const kith_code *code);
/* Bytes of a packed row of a graph whose code packs. */
size_t kith_hnsw_packed_bytes(const kith_hnsw *graph);
/* Makes the packed rows of all nodes, where there are none and the code packs. */
kith_status kith_hnsw_pack(kith_hnsw *graph, size_t threads);
/* That packed rows are those of the links and codes: KITH_ERR_FORMAT. */
kith_status kith_hnsw_verify_packed(const kith_hnsw *graph);
void kith_hnsw_prefetch_packed(const kith_hnsw *graph, uint32_t node);
/* Offers the links of a node to a walk that has `estimates`; *changed as kith_walker_offer. */
kith_status kith_hnsw_follow_packed(kith_walker *walker, uint32_t node, size_t *changed);
static inline size_t kith_hnsw_estimates_count(const kith_hnsw *graph) {
    return kith_code_blocks(graph->degree) * KITH_BLOCK_ROWS;
}

/* ---- hnsw_filtered.c -------------------------------------------------------------------------------------- */

typedef enum kith_filtered_strategy {
    KITH_FILTERED_LISTED,  /* the allowed nodes, one and all */
    KITH_FILTERED_BRIDGED, /* a walk over allowed nodes */
    KITH_FILTERED_ASKED    /* a walk over all nodes, which asks about those that it meets */
} kith_filtered_strategy;

/* What a call knows about its filter. */
typedef struct kith_hnsw_filtered {
    const kith_hnsw *graph;
    const kith_filter *filter;
    kith_allow_fn allow;
    kith_filtered_strategy strategy;
    float share;          /* of allowed nodes; asked: an estimate */
    size_t ef;            /* the caller's, or the default for this share */
    size_t listed_max;    /* a look at so many takes about as long as a bridged walk that follows ef nodes */
    uint64_t *allowed;    /* a bit per node; NULL: not known */
    uint32_t *open;       /* bridged: the same as kernels take it, */
    uint32_t *blocked;    /* and its complement */
    size_t allowed_count; /* where listed or allowed is there */
    uint32_t *listed;     /* listed: the allowed nodes, with room for one more */
    uint32_t seeds[KITH_HNSW_ENTRIES_MAX];
    size_t seed_count; /* bridged: allowed nodes from all over the graph */
} kith_hnsw_filtered;

/* Chooses the strategy for a filter, which is not NULL. ef 0: the default, which grows as fewer are allowed. */
kith_status kith_hnsw_filtered_open(const kith_hnsw *graph, const kith_filter *filter, size_t ef, kith_arena *arena,
                                    kith_hnsw_filtered *out);
/* For the queries that are left: from asked to bridged, from bridged to listed. */
kith_status kith_hnsw_filtered_turn(kith_hnsw_filtered *filtered, kith_arena *arena);

/* ---- hnsw_bridged.c --------------------------------------------------------------------------------------- */

enum {
    KITH_DESCENT = 4,         /* nodes that the way down to a query keeps */
    KITH_FILTERED_FAR = 5,    /* a query around which few are allowed is answered with so many times ef */
    KITH_FILTERED_LINKS = 24, /* allowed nodes that a hop offers at least, where two steps lead to as many */
};

typedef enum kith_bridged_part {
    KITH_BRIDGED_SEEDS,
    KITH_BRIDGED_DESCENT,
    KITH_BRIDGED_AROUND,
    KITH_BRIDGED_WALK
} kith_bridged_part;

/* What a bridged walk owns beside its walker, whose fresh nodes have room for those of a hop across others. */
typedef struct kith_crosser {
    _Alignas(KITH_ALIGNMENT) const kith_hnsw_filtered *filtered;
    kith_walker *walker;
    uint32_t *crossed; /* a bit per node that is not allowed: its links have been offered in place of it */
    uint32_t *touched; /* words of it that are not 0 */
    size_t touched_count;
    uint32_t *links, *bridges; /* degree + KITH_WALK_ROOM: of a row those that are allowed, and the others */
    int64_t *nearest;          /* kith_walk_pool_count(KITH_DESCENT) */
    size_t nearest_count, around;
    kith_bridged_part part;
    size_t fresh_allowed; /* so many of the fresh nodes are allowed: the first ones */
    size_t k;
    size_t around_all, around_allowed; /* links of the nodes where the way down ended */
    bool gives_up;                     /* the last walk would take longer than a look at all allowed nodes */
} kith_crosser;

/* `zeros`: a bit per node, all zero; NULL: they are made. The walker has been taken. */
kith_status kith_hnsw_crosser_take(const kith_hnsw_filtered *filtered, kith_arena *arena, uint32_t *zeros,
                                   kith_walker *walker, kith_crosser *out);
/* The bits of both are zero again. */
void kith_hnsw_crosser_clear(kith_crosser *crosser);
/* As kith_hnsw_walk, but only allowed nodes come into the pool: the nearest max(ef, k), or more for a query that few
 * are allowed around, for which the pool has room; or it gives up. The walker is cleared at the beginning. */
kith_status kith_hnsw_bridged_walk(kith_crosser *crosser, const kith_probe *probe, size_t ef, size_t k);
/* The same in steps, as kith_walk_begin and kith_walk_step; the walker and the crosser have been cleared. */
void kith_bridged_begin(kith_crosser *crosser, const kith_probe *probe, size_t ef, size_t k);
kith_status kith_bridged_step(kith_crosser *crosser, bool *more);
/* As kith_hnsw_follow. */
kith_status kith_hnsw_cross(kith_crosser *crosser, const kith_probe *probe, uint32_t node);

/* ---- hnsw_prune.c ----------------------------------------------------------------------------------------- */

typedef struct kith_candidate {
    float distance;
    uint32_t node;
    bool is_new; /* not yet held against the other candidates */
} kith_candidate;

static inline bool kith_candidate_before(const kith_candidate *a, const kith_candidate *b) {
    return a->distance < b->distance || (a->distance == b->distance && a->node < b->node);
}

typedef struct kith_pruner {
    uint32_t *kept_old, *kept_new; /* degree + KITH_WALK_ROOM each */
    kith_restorer *restorer;       /* of kith_probe_node; where it is there, so are these */
    uint32_t *left, *places;       /* as many as there are candidates, and KITH_WALK_ROOM more */
    float *distances;
} kith_pruner;

/* How near a link has to be to a candidate at this distance from a node to cover it. */
float kith_hnsw_cover_limit(const kith_hnsw *graph, float distance);
/* Chooses at most `degree` links from candidates in order of distance, writes them to a row of links and returns how
 * many. The node numbers of the candidates may be gone afterwards, but for those of links. */
size_t kith_hnsw_prune(const kith_hnsw *graph, kith_pruner *pruner, kith_candidate *candidates, size_t count,
                       uint32_t *links);
/* Would pruning drop a candidate at this distance from a node for one of its nearer links? These have room for
 * KITH_WALK_ROOM more. */
bool kith_hnsw_covers(const kith_hnsw *graph, const kith_pruner *pruner, uint32_t *links, size_t count,
                      uint32_t node, float distance);

/* ---- hnsw_sketch.c, hnsw_store.c -------------------------------------------------------------------------- */

/* An empty sketch for node_count nodes, whose range comes from a sample of them (normalised under cosine). Vectors of
 * type `dtype` are to come: those of bytes are taken as they are under l2. */
kith_status kith_hnsw_sketch_make(const kith_hnsw *graph, kith_dtype dtype, const float *sample,
                                  size_t sample_count, size_t node_count, kith_hnsw_sketch *out);
/* Are all vectors, the first so many nodes and new ones, about as long as each other? Then the nearest by inner product
 * are the nearest by squared L2, and links can be chosen by that, as of many nodes at once they are. */
bool kith_hnsw_is_level(const kith_hnsw *graph, size_t first, const kith_view *view);
/* Do the lengths of a sample, of the new vectors or where there are none of the first so many nodes, vary so little that
 * many nodes can be linked at once by inner product? Their standard deviation is at most .45 of their mean. */
bool kith_hnsw_is_even(const kith_hnsw *graph, size_t first, const kith_view *view);
void kith_hnsw_sketch_put(kith_hnsw_sketch *sketch, uint32_t node, const float *vector);
/* Takes an empty one. */
void kith_hnsw_sketch_free(kith_hnsw_sketch *sketch);

/* Fills the rows of new nodes from `first` on, which have been reserved, and a sketch of all nodes unless it is NULL. */
kith_status kith_hnsw_store(kith_hnsw *graph, const kith_view *view, size_t first, size_t threads,
                            kith_hnsw_sketch *sketch);
/* A sketch of the nodes that there are; empty where 8 bits do not do. */
kith_status kith_hnsw_sketch_nodes(kith_hnsw *graph, size_t threads, kith_hnsw_sketch *sketch);
/* Under cosine: to unit length. */
void kith_hnsw_normalise(const kith_hnsw *graph, float *vectors, size_t count);
/* What the codes of nodes stand for. `codes` has room for count codes. */
kith_status kith_hnsw_decode(const kith_hnsw *graph, uint32_t node, size_t count, unsigned char *codes, float *out);
kith_status kith_hnsw_train(kith_index *index, const kith_view *sample, const kith_job *job);

/* ---- hnsw_live.c: walks past removed nodes ------------------------------------------------------------------ */

/* How many nodes the pool of a walk needs room for that is to keep `kept` live ones, whatever was removed. */
static inline size_t kith_hnsw_pool_capacity(const kith_hnsw *graph, size_t kept) {
    return kith_min_size(graph->node_count, kept + graph->dead.count);
}
/* A walk that follows the `ef` nearest live nodes that it meets, and those removed between them. At least k live ones
 * stand in the pool afterwards if so many live, unless the bound on distances ends it. There is room for
 * kith_hnsw_pool_capacity(max(ef, k)). */
kith_status kith_hnsw_walk_live(kith_walker *walker, const kith_probe *probe, size_t ef, size_t k);
/* Goes on after a walk until k live nodes stand in the pool: over the links of the pool's nodes, and where they lead no
 * further over all nodes. So many live, and the pool's capacity is that for k or more. */
kith_status kith_hnsw_walk_on(kith_walker *walker, const kith_probe *probe, size_t k);

/* ---- hnsw.c ----------------------------------------------------------------------------------------------- */

/* Those who read copies of the struct. */
static inline void kith_hnsw_set_epoch(kith_hnsw *graph, kith_epoch *epoch) {
    graph->rows.epoch = graph->side.epoch = graph->links.epoch = graph->packed.epoch = epoch;
    kith_idlist_set_epoch(&graph->ids, epoch);
}

/* ---- hnsw_remove.c, hnsw_repair.c --------------------------------------------------------------------------- */

/* The node of each id, KITH_IDLIST_NO_ROW for those that are not there or were removed. Works always. */
kith_status kith_hnsw_find(const kith_hnsw *graph, const int64_t *ids, size_t count, uint64_t *nodes);
/* The same for one, where kith_idlist_can_find. */
bool kith_hnsw_find_one(const kith_hnsw *graph, int64_t id, uint64_t *node);
/* Marks `count` nodes, distinct and not marked. */
kith_status kith_hnsw_mark_dead(kith_hnsw *graph, const uint64_t *nodes, size_t count);
kith_status kith_hnsw_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed);
kith_status kith_hnsw_update(kith_index *index, const kith_view *vectors, const int64_t *ids);
kith_status kith_hnsw_upsert(kith_index *index, const kith_addition *addition, size_t *replaced);
kith_status kith_hnsw_holds(const kith_index *index, const int64_t *ids, size_t count, bool *held);
kith_status kith_hnsw_compact(kith_index *index);
/* Takes the removed nodes out, of which some live. All or nothing. */
kith_status kith_hnsw_repair(kith_hnsw *graph);

/* ---- hnsw_carve.c, hnsw_bulk.c: many nodes at once --------------------------------------------------------- */

enum { KITH_HNSW_BULK_MIN = 8192, KITH_CARVE_ROUNDS = 8 };

/* Candidates in rows of per_node, of which those are not filled that hold KITH_NO_NODE: round 0 has a row for each
 * node of a part, from node `first` to before `end`; round r for each of the first counts[r] nodes of an order. */
typedef struct kith_carved {
    size_t round_count, per_node, counts[KITH_CARVE_ROUNDS];
    uint32_t *slots[KITH_CARVE_ROUNDS];
    size_t part_nodes, first, end;
    struct kith_carver *carver;
} kith_carved;

/* Carves all nodes, whose vectors or sketches are of 8 bits; `order` is a permutation of them that stays. */
kith_status kith_hnsw_carve(const kith_hnsw *graph, const uint32_t *order, const kith_job *job, size_t threads,
                            size_t part_count, kith_carved *out);
/* Finds the candidates of a part, the last one last. */
kith_status kith_hnsw_carve_part(kith_carved *carved, size_t part);
/* Takes an empty one. */
void kith_carved_free(kith_carved *carved);
/* Bytes that it takes at most, but for what does not grow with the count. */
double kith_hnsw_carve_bytes(size_t node_count, size_t part_count);

/* Are there so many new nodes behind `first` old ones that linking them at once pays? */
static inline bool kith_hnsw_is_many(size_t first, size_t count) {
    return count >= KITH_HNSW_BULK_MIN && count >= first;
}
/* Are so many new nodes behind `first` old ones linked at once, where vectors or sketches are of 8 bits? */
bool kith_hnsw_can_bulk(const kith_hnsw *graph, size_t first, size_t count);
/* Links the nodes from `first` on, whose rows of links are empty, in memory of the job's budget: see
 * kith_hnsw_bulk_bytes. After a failure rows of old nodes are as they were unless it was cancelled. */
kith_status kith_hnsw_link_bulk(kith_hnsw *graph, size_t first, double bytes_max, const kith_job *job,
                                size_t threads);
/* Bytes that it may take: no more than bytes_max, where it can do with so few; 0: as many as it pays to take. 0 where so
 * many nodes are not linked at once. */
double kith_hnsw_bulk_bytes(const kith_hnsw *graph, size_t first, size_t count, double bytes_max);

/* ---- hnsw_add.c, hnsw_reach.c, hnsw_search.c, hnsw_file.c --------------------------------------------------- */

kith_status kith_hnsw_add(kith_index *index, const kith_addition *addition);
/* The same without asking whether the ids are there: an update removes those that have them afterwards. */
kith_status kith_hnsw_append(kith_hnsw *graph, const kith_addition *addition);
/* Links the nodes of a graph, whose rows of links may hold anything, as if all had just been added. After a failure
 * they are not linked. */
kith_status kith_hnsw_link_anew(kith_hnsw *graph, size_t threads);
/* Searches look at nothing that it holds. */
void kith_hnsw_reset(kith_index *index);
/* The same, once those that do have ended. */
void kith_hnsw_let_go(kith_hnsw *graph);

/* Gives every node that no walk can reach a link from a near one that it can. Each scratch has room for a number per
 * node. */
void kith_hnsw_connect(kith_hnsw *graph, uint32_t *scratch, uint32_t *more_scratch);
/* The same, and chooses the parent of each node: one that links to it and can be reached without it. While every node is
 * linked to by its parent all are reached. Entries are their own. */
void kith_hnsw_plant(kith_hnsw *graph, uint32_t *parents, uint32_t *scratch);
/* Finds a parent for a new node, whose links and reverse links stand; where none of its links is returned one of the
 * nodes near it has to link to it. */
void kith_hnsw_adopt(kith_hnsw *graph, uint32_t node);
static inline bool kith_hnsw_is_child(const kith_hnsw *graph, uint32_t node, uint32_t of) {
    return graph->parents[node] == of;
}
/* After the graph has been changed otherwise. */
static inline void kith_hnsw_forget_parents(kith_hnsw *graph) {
    kith_free(graph->parents);
    graph->parents = NULL;
    graph->parent_count = graph->parent_room = graph->parent_cursor = 0;
}

/* hnsw_stats.c */
kith_status kith_hnsw_graph_stats(const kith_index *index, kith_graph_stats *stats, uint64_t *degrees,
                                  size_t capacity);

kith_status kith_hnsw_search(const kith_index *index, const kith_search_request *request,
                             const kith_search_results *results);
kith_status kith_hnsw_range_search(const kith_index *index, const kith_search_request *request,
                                   kith_range_lists *lists);

kith_status kith_hnsw_make(const kith_spec *spec, size_t dim, kith_metric metric, kith_hnsw **out);
kith_status kith_hnsw_save(const kith_index *index, kith_container_writer *writer, uint32_t *part);
kith_status kith_hnsw_verify(const kith_index *index);
void kith_hnsw_list_ids(const kith_index *index, int64_t *ids);

#endif
