/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_carve.c: candidates for the links of all nodes at once, without a graph to walk on.
 *
 * Nodes are carved into balls: some of them, drawn at random, are leaders, and each node goes to the few leaders that
 * are nearest to it. A ball that is too large is carved again. In the leaves, which hold some hundred nodes, all pairs
 * are compared, and each node keeps the nearest of each of its leaves. As the leaves of a node lie around it in several
 * directions, so do its candidates. ("PiPNN", arXiv 2602.21247; instead of its hashes, every
 * leaf of a node has places of its own for what it finds.)
 *
 * Everything is a product of 8-bit vectors in tiles, and whole numbers: the same candidates on every instruction set.
 * Ties go to the node that was listed first. Nothing depends on the order of the work.
 *
 * The same is done with samples of the nodes, each a sixteenth of the one before, so that there are candidates far
 * away too: without them separate clusters would know nothing of each other.
 */
#include <string.h>

#include "base/error.h"
#include "base/random.h"
#include "hnsw/hnsw_inside.h"

enum {
    LEAF_MAX = 1024, /* nodes in a leaf */
    LEAF_MEAN = 680,
    LEADERS_MAX = 2048,
    FAN = 12,      /* leaders that a node goes to; */
    DEEP_FAN = 8,  /* where the balls are to be carved again: at first, */
    CHILD_FAN = 2, /* and then */
    DEEP_LEADERS_MAX = 1024,
    KEPT = 14, /* candidates from each leaf */
    SAMPLE_SHARE = 16,
    DEPTH_MAX = 6,
    SHRINK_PERCENT = 80, /* a ball that is hardly smaller than what it was carved from holds equal vectors */
    POINTS = 96,         /* nodes that a thread assigns at a time */
    LANES_MAX = 64,
    LEADER_STREAM = 0x6c65
};

/* A node in a ball, and where what is found there goes: place `slot` of row `place`. */
typedef struct member {
    uint32_t node, place, slot;
} member;

/* Vectors as rows of the integer tile. Its result is a score: <q, r> - |r|^2 / 2 (rounded up), less a term of q. */
typedef struct packed {
    uint32_t *words;
    int32_t *bias, *norms; /* norms: squared */
    size_t count, columns;
} packed;

typedef struct bench {
    packed rows;              /* of a leaf, or leaders */
    uint32_t *staged, *panel; /* vectors before and after they are packed */
    int32_t *scores;          /* a row for each lane of queries */
    uint32_t *positions;
} bench;

typedef struct carver {
    const kith_hnsw *graph;
    const kith_simd_table *simd;
    kith_dtype dtype;
    size_t dim, words, slot_count;
    bool is_deep; /* balls are carved again as a rule */
    uint64_t seed;
    size_t threads;
    bench *benches;
    kith_meter meter;
    /* Of the round: */
    uint32_t *slots; /* place x slot_count x KEPT */
    member *members;
    size_t member_count;
    packed leaders;
    uint32_t *assigned; /* member x root_fan */
    member *children;   /* by leader */
    size_t *starts;     /* where the children of each leader begin */
    uint64_t stream;
} carver;

/* ---- Packing ---------------------------------------------------------------------------------------------- */

static const void *row_of(const carver *all, uint32_t node) {
    const kith_hnsw_sketch *sketch = all->graph->sketch;
    return sketch != NULL ? sketch->rows + (size_t)node * sketch->stride : kith_hnsw_row(all->graph, node);
}

static kith_status take_packed(const carver *all, size_t capacity, packed *out) {
    out->columns = kith_round_up(capacity, LANES_MAX);
    KITH_TRY(kith_alloc(out->columns, all->words * sizeof *out->words, &out->words));
    KITH_TRY(kith_alloc(out->columns, sizeof *out->bias, &out->bias));
    return kith_alloc(out->columns, sizeof *out->norms, &out->norms);
}

static void free_packed(packed *rows) {
    kith_free(rows->words);
    kith_free(rows->bias);
    kith_free(rows->norms);
    *rows = (packed){0};
}

static void pack_rows(const carver *all, bench *own, const member *members, size_t count, packed *out) {
    const kith_tile_i8 *tile = &all->simd->tile_i8;
    const uint32_t *vectors[LANES_MAX];
    out->count = count;
    for (size_t first = 0; first < count; first += tile->row_lanes) {
        size_t here = kith_min_size(tile->row_lanes, count - first);
        for (size_t i = 0; i < tile->row_lanes; i++) {
            out->bias[first + i] = 0;
            if (i >= here) continue;
            const void *row = row_of(all, members[first + i].node);
            vectors[i] = own->staged + i * all->words;
            int32_t norm =
                all->dtype == KITH_U8 ? all->simd->norm2_u8(row, all->dim) : all->simd->norm2_i8(row, all->dim);
            out->norms[first + i] = norm;
            out->bias[first + i] =
                tile->prepare_row(row, all->dtype, all->dim, own->staged + i * all->words) - norm / 2;
        }
        all->simd->pack(vectors, here, tile->row_lanes, all->words, out->words + first * all->words);
    }
}

/* Scores of up to query_lanes members against the rows; terms[i] is what score i lacks. */
static void score(const carver *all, bench *own, const member *members, size_t count, const packed *rows,
                  int32_t *terms) {
    const kith_tile_i8 *tile = &all->simd->tile_i8;
    const uint32_t *vectors[LANES_MAX];
    for (size_t i = 0; i < count; i++) {
        vectors[i] = own->staged + i * all->words;
        terms[i] =
            tile->prepare_query(row_of(all, members[i].node), all->dtype, all->dim, own->staged + i * all->words);
    }
    all->simd->pack(vectors, count, tile->query_lanes, all->words, own->panel);
    size_t panels = (rows->count + tile->row_lanes - 1) / tile->row_lanes;
    tile->run(own->panel, rows->words, all->words, panels, rows->bias, own->scores, own->rows.columns);
}

/* Positions of the `k` largest of `count` scores, the lower position first where they are equal. Those of INT32_MIN are
 * not there. */
static size_t largest(const carver *all, bench *own, const int32_t *scores, size_t count, size_t k, uint32_t *out) {
    int32_t bound = all->simd->matrix.bound_i32(scores, count, k), held[FAN > KEPT ? FAN : KEPT];
    size_t passed = all->simd->filter_i32(scores, count, bound, own->positions), found = 0;
    for (size_t p = 0; p < passed; p++) {
        uint32_t position = own->positions[p];
        int32_t value = scores[position];
        if (value == INT32_MIN || (found == k && value <= held[k - 1])) continue;
        size_t at = found < k ? found++ : k - 1;
        for (; at > 0 && held[at - 1] < value; at--) {
            held[at] = held[at - 1];
            out[at] = out[at - 1];
        }
        held[at] = value;
        out[at] = position;
    }
    return found;
}

/* ---- Leaves ----------------------------------------------------------------------------------------------- */

/* The nearest of a leaf to one of its members. Where more of them are equal to it than there are places, one of these
 * stands for all, so that there is room for others. */
static size_t nearest(const carver *all, bench *own, int32_t *scores, size_t self, int32_t term, uint32_t *out) {
    const packed *rows = &own->rows;
    int32_t norm = rows->norms[self] - 2 * term;
    scores[self] = INT32_MIN;
    size_t found = largest(all, own, scores, rows->count, KEPT, out);
    if (found < KEPT || norm - 2 * scores[out[KEPT - 1]] + (rows->norms[out[KEPT - 1]] & 1) > 0) return found;
    uint32_t equal = out[0];
    for (size_t i = 0; i < rows->count; i++)
        if (i != self && norm - 2 * scores[i] + (rows->norms[i] & 1) == 0) scores[i] = INT32_MIN;
    found = largest(all, own, scores, rows->count, KEPT - 1, out);
    out[found++] = equal;
    return found;
}

static void compare_leaf(const carver *all, bench *own, const member *members, size_t count) {
    size_t lanes = all->simd->tile_i8.query_lanes;
    int32_t terms[LANES_MAX];
    uint32_t near[KEPT];
    pack_rows(all, own, members, count, &own->rows);
    for (size_t first = 0; first < count; first += lanes) {
        size_t here = kith_min_size(lanes, count - first);
        score(all, own, members + first, here, &own->rows, terms);
        for (size_t i = 0; i < here; i++) {
            const member *to = &members[first + i];
            size_t found = nearest(all, own, own->scores + i * own->rows.columns, first + i, terms[i], near);
            uint32_t *slot = all->slots + ((size_t)to->place * all->slot_count + to->slot) * KEPT;
            for (size_t k = 0; k < found; k++) slot[k] = members[near[k]].node;
        }
    }
}

/* ---- Balls ------------------------------------------------------------------------------------------------ */

static size_t root_fan(const carver *all) { return all->is_deep ? DEEP_FAN : FAN; }
static size_t child_fan(const carver *all) { return all->is_deep ? CHILD_FAN : 1; }

static size_t leader_count(const carver *all, size_t count, size_t fan) {
    size_t most = all->is_deep ? DEEP_LEADERS_MAX : LEADERS_MAX;
    return kith_max_size(kith_min_size(count * fan / LEAF_MEAN + 1, most), fan);
}

/* One from each of `wanted` equal parts of the members; more than there are leaders. */
static void pick_leaders(const carver *all, bench *own, const member *members, size_t count, size_t wanted,
                         uint64_t stream, packed *leaders) {
    member chosen[LEADERS_MAX];
    for (size_t i = 0; i < wanted; i++) {
        size_t from = count * i / wanted, to = count * (i + 1) / wanted;
        chosen[i] = members[from + (size_t)kith_random_below(all->seed, stream, i, to - from)];
    }
    pack_rows(all, own, chosen, wanted, leaders);
}

static void assign(const carver *all, bench *own, const member *members, size_t count, const packed *leaders,
                   size_t fan, uint32_t *assigned) {
    size_t lanes = all->simd->tile_i8.query_lanes;
    int32_t terms[LANES_MAX];
    for (size_t first = 0; first < count; first += lanes) {
        size_t here = kith_min_size(lanes, count - first);
        score(all, own, members + first, here, leaders, terms);
        for (size_t i = 0; i < here; i++)
            (void)largest(all, own, own->scores + i * own->rows.columns, leaders->count, fan,
                          assigned + (first + i) * fan);
    }
}

/* Sorts members by the leaders that they go to; starts has room for leader_count + 2. */
static void distribute(const member *members, size_t count, size_t fan, size_t step, const uint32_t *assigned,
                       size_t leaders, size_t *starts, member *children) {
    memset(starts, 0, (leaders + 2) * sizeof *starts);
    for (size_t i = 0; i < count * fan; i++) starts[assigned[i] + 2]++;
    for (size_t l = 2; l < leaders + 2; l++) starts[l] += starts[l - 1];
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < fan; k++) {
            member child = members[i];
            child.slot += (uint32_t)(k * step);
            children[starts[assigned[i * fan + k] + 1]++] = child;
        }
}

static kith_status carve(const carver *all, bench *own, const member *members, size_t count, size_t from_count,
                         size_t depth, uint64_t stream);

static kith_status carve_again(const carver *all, bench *own, const member *members, size_t count, size_t depth,
                               uint64_t stream) {
    size_t fan = depth == 1 ? child_fan(all) : 1, wanted = leader_count(all, count, fan);
    uint32_t *assigned = NULL;
    member *children = NULL;
    size_t *starts = NULL;
    kith_status status;
    KITH_GO(kith_alloc(count, fan * sizeof *assigned, &assigned));
    KITH_GO(kith_alloc(count, fan * sizeof *children, &children));
    KITH_GO(kith_alloc(wanted + 2, sizeof *starts, &starts));
    pick_leaders(all, own, members, count, wanted, stream, &own->rows);
    assign(all, own, members, count, &own->rows, fan, assigned);
    distribute(members, count, fan, 1, assigned, wanted, starts, children);
    for (size_t l = 0; l < wanted; l++)
        KITH_GO(carve(all, own, children + starts[l], starts[l + 1] - starts[l], count, depth + 1,
                      stream * LEADERS_MAX + l + 1));
done:
    kith_free(assigned);
    kith_free(children);
    kith_free(starts);
    return status;
}

static kith_status carve(const carver *all, bench *own, const member *members, size_t count, size_t from_count,
                         size_t depth, uint64_t stream) {
    if (count > LEAF_MAX && depth < DEPTH_MAX && count <= from_count / 100 * SHRINK_PERCENT)
        return carve_again(all, own, members, count, depth, stream);
    for (size_t first = 0; first < count; first += LEAF_MAX)
        compare_leaf(all, own, members + first, kith_min_size(LEAF_MAX, count - first));
    return KITH_OK;
}

/* ---- Rounds ----------------------------------------------------------------------------------------------- */

static kith_status assign_points(void *context, size_t item, size_t worker) {
    carver *all = context;
    size_t first = item * POINTS, count = kith_min_size(POINTS, all->member_count - first);
    assign(all, &all->benches[worker], all->members + first, count, &all->leaders, root_fan(all),
           all->assigned + first * root_fan(all));
    return kith_meter_add(&all->meter, 0);
}

static kith_status carve_child(void *context, size_t item, size_t worker) {
    carver *all = context;
    size_t first = all->starts[item], count = all->starts[item + 1] - first;
    KITH_TRY(carve(all, &all->benches[worker], all->children + first, count, all->member_count, 1,
                   (all->stream + item + 1) * LEADERS_MAX));
    return kith_meter_add(&all->meter, count);
}

static kith_status run_round(carver *all) {
    size_t count = all->member_count, fan = root_fan(all), wanted = leader_count(all, count, fan);
    kith_status status;
    if (count <= LEAF_MAX) {
        compare_leaf(all, &all->benches[0], all->members, count);
        return kith_meter_add(&all->meter, count * fan);
    }
    KITH_GO(take_packed(all, wanted, &all->leaders));
    KITH_GO(kith_alloc(count, fan * sizeof *all->assigned, &all->assigned));
    KITH_GO(kith_alloc(count, fan * sizeof *all->children, &all->children));
    KITH_GO(kith_alloc(wanted + 2, sizeof *all->starts, &all->starts));
    pick_leaders(all, &all->benches[0], all->members, count, wanted, all->stream, &all->leaders);
    KITH_GO(kith_parallel_for(all->threads, (count + POINTS - 1) / POINTS, assign_points, all));
    distribute(all->members, count, fan, child_fan(all), all->assigned, wanted, all->starts, all->children);
    KITH_GO(kith_parallel_for(all->threads, wanted, carve_child, all));
done:
    free_packed(&all->leaders);
    kith_free(all->assigned);
    kith_free(all->children);
    kith_free(all->starts);
    all->assigned = NULL;
    all->children = NULL;
    all->starts = NULL;
    return status;
}

/* Round 0 is of all nodes, each later one of the first of `order`. */
static kith_status carve_round(carver *all, const uint32_t *order, kith_carved *out) {
    size_t round = out->round_count, count = out->counts[round];
    kith_status status;
    all->member_count = count;
    all->stream = LEADER_STREAM + ((uint64_t)round << 40);
    KITH_GO(kith_alloc(count, out->per_node * sizeof(uint32_t), &out->slots[round]));
    out->round_count++;
    KITH_GO(kith_alloc(count, sizeof *all->members, &all->members));
    memset(out->slots[round], 0xff, count * out->per_node * sizeof(uint32_t));
    all->slots = out->slots[round];
    for (size_t i = 0; i < count; i++)
        all->members[i] = (member){round == 0 ? (uint32_t)i : order[i], (uint32_t)i, 0};
    KITH_GO(run_round(all));
done:
    kith_free(all->members);
    all->members = NULL;
    return status;
}

/* ---- The call --------------------------------------------------------------------------------------------- */

static kith_status take_bench(const carver *all, bench *own) {
    const kith_tile_i8 *tile = &all->simd->tile_i8;
    KITH_TRY(take_packed(all, LEADERS_MAX, &own->rows));
    KITH_TRY(kith_alloc(LANES_MAX, all->words * sizeof *own->staged, &own->staged));
    KITH_TRY(kith_alloc(tile->query_lanes, all->words * sizeof *own->panel, &own->panel));
    KITH_TRY(kith_alloc(tile->query_lanes, own->rows.columns * sizeof *own->scores, &own->scores));
    return kith_alloc(own->rows.columns, sizeof *own->positions, &own->positions);
}

static void free_bench(bench *own) {
    free_packed(&own->rows);
    kith_free(own->staged);
    kith_free(own->panel);
    kith_free(own->scores);
    kith_free(own->positions);
}

void kith_carved_free(kith_carved *carved) {
    for (size_t r = 0; r < carved->round_count; r++) kith_free(carved->slots[r]);
    *carved = (kith_carved){0};
}

static bool is_deep(size_t node_count) { return node_count / LEADERS_MAX * FAN > LEAF_MEAN; }

static size_t rounds(size_t node_count) {
    size_t count = 1;
    while (count < KITH_CARVE_ROUNDS && (node_count /= SAMPLE_SHARE) > 1) count++;
    return count;
}

double kith_hnsw_carve_bytes(size_t node_count) {
    size_t fan = is_deep(node_count) ? DEEP_FAN : FAN, leaves = is_deep(node_count) ? DEEP_FAN * CHILD_FAN : FAN;
    double slots = (double)(leaves * KEPT * sizeof(uint32_t));
    double balls = (double)(sizeof(member) + fan * (sizeof(member) + sizeof(uint32_t)));
    return (double)node_count * (slots * (1 + 1.0 / (SAMPLE_SHARE - 1)) + balls);
}

kith_status kith_hnsw_carve(const kith_hnsw *graph, const uint32_t *order, const kith_job *job, size_t threads,
                            kith_carved *out) {
    carver all = {
        .graph = graph, .simd = kith_simd(), .dim = graph->base.dim, .seed = job->seed, .threads = threads};
    size_t count = graph->node_count, group = all.simd->tile_i8.group, sum = 0;
    kith_status status;
    *out = (kith_carved){0};
    all.dtype = graph->sketch != NULL ? graph->sketch->dtype : graph->base.dtype;
    all.words = (all.dim + group - 1) / group;
    all.is_deep = is_deep(count);
    all.slot_count = root_fan(&all) * child_fan(&all);
    out->per_node = all.slot_count * KEPT;
    KITH_GO(kith_alloc_zeroed(threads, sizeof *all.benches, &all.benches));
    for (size_t w = 0; w < threads; w++) KITH_GO(take_bench(&all, &all.benches[w]));
    for (size_t r = 0, c = count; r < rounds(count); r++, c /= SAMPLE_SHARE) {
        out->counts[r] = c;
        sum += c;
    }
    kith_meter_init(&all.meter, job->progress, job->progress_user, "partition", sum * root_fan(&all));
    for (size_t r = 0; r < rounds(count); r++) KITH_GO(carve_round(&all, order, out));
    KITH_GO(kith_meter_finish(&all.meter));
done:
    for (size_t w = 0; all.benches != NULL && w < threads; w++) free_bench(&all.benches[w]);
    kith_free(all.benches);
    if (status != KITH_OK) kith_carved_free(out);
    return status;
}
