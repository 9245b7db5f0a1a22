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
 *
 * What is found takes most of the memory, so that many nodes get it part by part: of each leaf only the members that
 * belong to the part look for their nearest. Which they are is the same however many parts there are.
 *
 * Under inner product with vectors of unequal lengths balls are of directions, and in a leaf the nearest are those by
 * inner product; half of each sample are the longest nodes, which are the nearest of many, and half are random ones.
 */
#include <math.h>
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
    CLEARED = 4096, /* places */
    LEADER_STREAM = 0x6c65
};

/* A node in a ball, by its place in the round, and the slot of its row where what is found there goes. */
typedef struct member {
    uint32_t place, slot;
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
    float *lengths; /* of a leaf's members */
} bench;

struct kith_carver {
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
    const uint32_t *order; /* the node at each place; NULL: its number is its place */
    uint32_t *slots;       /* slot_count x KEPT for each place from `first` to before `end`, which are the part */
    size_t first, end;
    member *members;
    size_t member_count;
    packed leaders;
    uint32_t *assigned; /* member x root_fan */
    member *children;   /* by leader, and in each ball by place */
    size_t *starts;     /* where the children of each leader begin */
    size_t ball_count;
    uint64_t stream;
};
typedef struct kith_carver carver;

/* ---- Packing ---------------------------------------------------------------------------------------------- */

static uint32_t node_of(const carver *all, const member *of) {
    return all->order != NULL ? all->order[of->place] : of->place;
}

static const void *row_of(const carver *all, const member *of) {
    uint32_t node = node_of(all, of);
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
            const void *row = row_of(all, &members[first + i]);
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
            tile->prepare_query(row_of(all, &members[i]), all->dtype, all->dim, own->staged + i * all->words);
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

/* How many members of a ball stand at places before this one. */
static size_t count_before(const member *members, size_t count, size_t place) {
    size_t from = 0;
    while (from < count) {
        size_t middle = from + (count - from) / 2;
        if (members[middle].place < place)
            from = middle + 1;
        else
            count = middle;
    }
    return from;
}

/* Where nodes have lengths: those of a leaf, in units of which the longest has 2^28. */
static void gather_lengths(const carver *all, bench *own, const member *members, size_t count) {
    float longest = 0;
    for (size_t i = 0; i < count; i++) {
        own->lengths[i] = all->graph->sketch->lengths[node_of(all, &members[i])];
        longest = fmaxf(longest, own->lengths[i]);
    }
    for (size_t i = 0; longest > 0 && i < count; i++) own->lengths[i] = own->lengths[i] / longest * (1 << 28);
}

/* The nearest by inner product, which is, up to a factor, a length less half of a squared distance of directions times
 * it. */
static size_t longest(const carver *all, bench *own, int32_t *scores, size_t self, int32_t term, uint32_t *out) {
    const float step = 1 / all->graph->sketch->inverse_step, half = step * step / 2;
    int32_t norm = own->rows.norms[self] - 2 * term;
    for (size_t i = 0; i < own->rows.count; i++)
        scores[i] = (int32_t)(own->lengths[i] * (1 - half * (float)(norm - 2 * scores[i])));
    scores[self] = INT32_MIN;
    return largest(all, own, scores, own->rows.count, KEPT, out);
}

/* Members of the part look for their nearest among all of a leaf. */
static void compare_leaf(const carver *all, bench *own, const member *members, size_t count) {
    size_t lanes = all->simd->tile_i8.query_lanes, end = count_before(members, count, all->end);
    int32_t terms[LANES_MAX];
    uint32_t near[KEPT];
    pack_rows(all, own, members, count, &own->rows);
    if (all->graph->has_lengths) gather_lengths(all, own, members, count);
    for (size_t first = count_before(members, count, all->first); first < end; first += lanes) {
        size_t here = kith_min_size(lanes, end - first);
        score(all, own, members + first, here, &own->rows, terms);
        for (size_t i = 0; i < here; i++) {
            const member *to = &members[first + i];
            int32_t *scores = own->scores + i * own->rows.columns;
            size_t found = all->graph->has_lengths ? longest(all, own, scores, first + i, terms[i], near)
                                                   : nearest(all, own, scores, first + i, terms[i], near);
            uint32_t *slot = all->slots + ((to->place - all->first) * all->slot_count + to->slot) * KEPT;
            for (size_t k = 0; k < found; k++) slot[k] = node_of(all, &members[near[k]]);
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
    if (count_before(members, count, all->first) == count_before(members, count, all->end)) return KITH_OK;
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
    const member *members = all->children + first;
    KITH_TRY(carve(all, &all->benches[worker], members, count, all->member_count, 1,
                   (all->stream + item + 1) * LEADERS_MAX));
    return kith_meter_add(&all->meter,
                          count_before(members, count, all->end) - count_before(members, count, all->first));
}

static void free_round(carver *all) {
    free_packed(&all->leaders);
    kith_free(all->members);
    kith_free(all->assigned);
    kith_free(all->children);
    kith_free(all->starts);
    all->members = all->children = NULL;
    all->assigned = NULL;
    all->starts = NULL;
}

/* The members of a round, of `count` nodes, and unless these are few its balls instead of them. */
static kith_status begin_round(carver *all, size_t round, size_t count, const uint32_t *order) {
    size_t fan = root_fan(all), wanted = leader_count(all, count, fan);
    free_round(all);
    all->order = order;
    all->member_count = count;
    all->ball_count = 0;
    all->stream = LEADER_STREAM + ((uint64_t)round << 40);
    KITH_TRY(kith_alloc(count, sizeof *all->members, &all->members));
    for (size_t i = 0; i < count; i++) all->members[i] = (member){(uint32_t)i, 0};
    if (count <= LEAF_MAX) return KITH_OK;
    KITH_TRY(take_packed(all, wanted, &all->leaders));
    KITH_TRY(kith_alloc(count, fan * sizeof *all->assigned, &all->assigned));
    KITH_TRY(kith_alloc(count, fan * sizeof *all->children, &all->children));
    KITH_TRY(kith_alloc(wanted + 2, sizeof *all->starts, &all->starts));
    pick_leaders(all, &all->benches[0], all->members, count, wanted, all->stream, &all->leaders);
    KITH_TRY(kith_parallel_for(all->threads, (count + POINTS - 1) / POINTS, assign_points, all));
    distribute(all->members, count, fan, child_fan(all), all->assigned, wanted, all->starts, all->children);
    all->ball_count = wanted;
    kith_free(all->members);
    kith_free(all->assigned);
    all->members = NULL;
    all->assigned = NULL;
    return KITH_OK;
}

/* Empties the slots of a piece of the part: it is the first to touch this memory, which takes as long as some of the
 * work in it. */
static kith_status clear_slots(void *context, size_t item, size_t worker) {
    const carver *all = context;
    size_t first = item * CLEARED, count = kith_min_size(CLEARED, all->end - all->first - first);
    size_t per_place = all->slot_count * KEPT;
    (void)worker;
    memset(all->slots + first * per_place, 0xff, count * per_place * sizeof *all->slots);
    return KITH_OK;
}

/* Fills the slots of the places from `first` to before `end`. */
static kith_status run_part(carver *all, size_t first, size_t end, uint32_t *slots) {
    all->slots = slots;
    all->first = first;
    all->end = end;
    KITH_TRY(kith_parallel_for(all->threads, (end - first + CLEARED - 1) / CLEARED, clear_slots, all));
    if (all->ball_count > 0) return kith_parallel_for(all->threads, all->ball_count, carve_child, all);
    compare_leaf(all, &all->benches[0], all->members, all->member_count);
    return kith_meter_add(&all->meter, (end - first) * root_fan(all));
}

/* ---- The call --------------------------------------------------------------------------------------------- */

static kith_status take_bench(const carver *all, bench *own) {
    const kith_tile_i8 *tile = &all->simd->tile_i8;
    KITH_TRY(take_packed(all, LEADERS_MAX, &own->rows));
    KITH_TRY(kith_alloc(LANES_MAX, all->words * sizeof *own->staged, &own->staged));
    KITH_TRY(kith_alloc(tile->query_lanes, all->words * sizeof *own->panel, &own->panel));
    KITH_TRY(kith_alloc(LEAF_MAX, sizeof *own->lengths, &own->lengths));
    KITH_TRY(kith_alloc(tile->query_lanes, own->rows.columns * sizeof *own->scores, &own->scores));
    return kith_alloc(own->rows.columns, sizeof *own->positions, &own->positions);
}

static void free_bench(bench *own) {
    free_packed(&own->rows);
    kith_free(own->staged);
    kith_free(own->panel);
    kith_free(own->scores);
    kith_free(own->positions);
    kith_free(own->lengths);
}

void kith_carved_free(kith_carved *carved) {
    carver *all = carved->carver;
    for (size_t r = 0; r < KITH_CARVE_ROUNDS; r++) kith_free(carved->slots[r]);
    if (all != NULL) free_round(all);
    for (size_t w = 0; all != NULL && all->benches != NULL && w < all->threads; w++) free_bench(&all->benches[w]);
    if (all != NULL) kith_free(all->benches);
    kith_free(all);
    *carved = (kith_carved){0};
}

static bool is_deep(size_t node_count) { return node_count / LEADERS_MAX * FAN > LEAF_MEAN; }

static size_t rounds(size_t node_count) {
    size_t count = 1;
    while (count < KITH_CARVE_ROUNDS && (node_count /= SAMPLE_SHARE) > 1) count++;
    return count;
}

/* Balls while they are made are larger than when they have been. */
double kith_hnsw_carve_bytes(size_t node_count, size_t part_count) {
    size_t fan = is_deep(node_count) ? DEEP_FAN : FAN, leaves = is_deep(node_count) ? DEEP_FAN * CHILD_FAN : FAN;
    double slots = (double)(leaves * KEPT * sizeof(uint32_t)), balls = (double)(fan * sizeof(member));
    double making = balls + (double)(sizeof(member) + fan * sizeof(uint32_t));
    double looking = balls + slots / (double)part_count;
    return (double)node_count * (slots / (SAMPLE_SHARE - 1) + (making > looking ? making : looking));
}

static kith_status open_carver(const kith_hnsw *graph, const kith_job *job, size_t threads, kith_carved *out) {
    size_t count = graph->node_count, sum = 0;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *out->carver, &out->carver));
    carver *all = out->carver;
    *all = (carver){
        .graph = graph, .simd = kith_simd(), .dim = graph->base.dim, .seed = job->seed, .threads = threads};
    size_t group = all->simd->tile_i8.group;
    all->dtype = graph->sketch != NULL ? graph->sketch->dtype : graph->base.dtype;
    all->words = (all->dim + group - 1) / group;
    all->is_deep = is_deep(count);
    all->slot_count = root_fan(all) * child_fan(all);
    out->per_node = all->slot_count * KEPT;
    out->round_count = rounds(count);
    for (size_t r = 0; r < out->round_count; r++, count /= SAMPLE_SHARE) sum += out->counts[r] = count;
    kith_meter_init(&all->meter, job->progress, job->progress_user, "partition", sum * root_fan(all));
    KITH_TRY(kith_alloc_zeroed(threads, sizeof *all->benches, &all->benches));
    for (size_t w = 0; w < threads; w++) KITH_TRY(take_bench(all, &all->benches[w]));
    return KITH_OK;
}

kith_status kith_hnsw_carve(const kith_hnsw *graph, const uint32_t *order, const kith_job *job, size_t threads,
                            size_t part_count, kith_carved *out) {
    size_t row_bytes;
    *out = (kith_carved){0};
    kith_status status;
    KITH_GO(open_carver(graph, job, threads, out));
    row_bytes = out->per_node * sizeof(uint32_t);
    for (size_t r = out->round_count; r-- > 1;) {
        KITH_GO(kith_alloc(out->counts[r], row_bytes, &out->slots[r]));
        KITH_GO(begin_round(out->carver, r, out->counts[r], order));
        KITH_GO(run_part(out->carver, 0, out->counts[r], out->slots[r]));
    }
    KITH_GO(begin_round(out->carver, 0, graph->node_count, NULL));
    out->part_nodes = (graph->node_count - 1) / part_count + 1;
    KITH_GO(kith_alloc(out->part_nodes, row_bytes, &out->slots[0]));
done:
    if (status != KITH_OK) kith_carved_free(out);
    return status;
}

kith_status kith_hnsw_carve_part(kith_carved *carved, size_t part) {
    carver *all = carved->carver;
    carved->first = kith_min_size(part * carved->part_nodes, all->member_count);
    carved->end = kith_min_size(carved->first + carved->part_nodes, all->member_count);
    KITH_TRY(run_part(all, carved->first, carved->end, carved->slots[0]));
    return carved->end < all->member_count ? KITH_OK : kith_meter_finish(&all->meter);
}
