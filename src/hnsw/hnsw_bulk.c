/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_bulk.c: many new nodes linked at once, from the candidates of hnsw_carve.c: no walks.
 *
 * First each new node chooses its links from its candidates by pruning. Then the links are turned round, and each node
 * takes those that lead to it: appended while there is room, pruned with its own otherwise. In both steps a row has one
 * writer, and what it writes depends on a set of candidates in a total order: the same bytes at any thread count.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/bitset.h"
#include "base/error.h"
#include "base/random.h"
#include "base/sort.h"
#include "hnsw/hnsw_inside.h"

enum {
    LINE = 64,
    NODES = 1024,
    ORDER_STREAM = 0x6f72,
    PARTS_MAX = 16, /* each part goes through all leaves, */
    PARTS_PAY = 4   /* so that more are made of it only where memory has to be saved */
};
static const double bytes_free = 1 << 30; /* less is not worth saving */
#define HASH_FACTOR 2654435769u           /* 2^32 over the golden ratio: spreads neighbouring numbers */

typedef struct bench {
    kith_pruner pruner;
    uint32_t *nodes;
    float *distances;
    int64_t *entries, *scratch;
    kith_candidate *candidates;
    uint32_t *table; /* table_count, a power of two: of the nodes that have been gathered */
    size_t table_count;
} bench;

typedef struct bulk {
    kith_hnsw *graph;
    size_t first, threads; /* first: the first new node */
    uint32_t *order;       /* all nodes in a random order, or mix_by_length's */
    kith_carved carved;
    bench *benches;
    _Atomic uint32_t *incoming; /* of each node: how many links lead to it, later how many are not yet listed */
    size_t *starts;             /* where in `sources` those of each node begin */
    uint32_t *sources;
    kith_meter meter;
} bulk;

/* ---- Memory of a worker ----------------------------------------------------------------------------------- */

static void free_benches(bulk *work) {
    for (size_t w = 0; work->benches != NULL && w < work->threads; w++) {
        bench *own = &work->benches[w];
        kith_free(own->pruner.kept_old);
        kith_free(own->pruner.kept_new);
        kith_free(own->nodes);
        kith_free(own->distances);
        kith_free(own->entries);
        kith_free(own->scratch);
        kith_free(own->candidates);
        kith_free(own->table);
    }
    kith_free(work->benches);
    work->benches = NULL;
}

/* Room for `count` candidates of a node. */
static kith_status take_benches(bulk *work, size_t count) {
    size_t row = work->graph->degree + KITH_WALK_ROOM, padded = count + KITH_WALK_ROOM;
    KITH_TRY(kith_alloc_zeroed(work->threads, sizeof *work->benches, &work->benches));
    for (size_t w = 0; w < work->threads; w++) {
        bench *own = &work->benches[w];
        KITH_TRY(kith_alloc(row, sizeof(uint32_t), &own->pruner.kept_old));
        KITH_TRY(kith_alloc(row, sizeof(uint32_t), &own->pruner.kept_new));
        KITH_TRY(kith_alloc(padded, sizeof *own->nodes, &own->nodes));
        KITH_TRY(kith_alloc(padded, sizeof *own->distances, &own->distances));
        KITH_TRY(kith_alloc(padded, sizeof *own->entries, &own->entries));
        KITH_TRY(kith_alloc(padded, sizeof *own->scratch, &own->scratch));
        KITH_TRY(kith_alloc(padded, sizeof *own->candidates, &own->candidates));
        for (own->table_count = 1; own->table_count < 2 * count;) own->table_count *= 2;
        KITH_TRY(kith_alloc(own->table_count, sizeof *own->table, &own->table));
    }
    return KITH_OK;
}

/* ---- Candidates in order ---------------------------------------------------------------------------------- */

/* Turns the `count` nodes of the bench, of which the first `old_count` have been held against each other, into
 * candidates for a node, each once, nearest first. */
static size_t order_candidates(const bulk *work, bench *own, uint32_t node, size_t count, size_t old_count) {
    kith_probe probe = kith_probe_node(work->graph, node, NULL);
    size_t unique = 0;
    if (count == 0) return 0;
    for (size_t i = 0; i < count; i++) {
        const char *row = kith_probe_row(&probe, own->nodes[i]);
        for (size_t at = 0; at < probe.prefetch_bytes; at += LINE) __builtin_prefetch(row + at);
    }
    kith_probe_many(&probe, own->nodes, count, own->distances);
    for (size_t i = 0; i < count; i++)
        own->entries[i] = kith_pool_entry(own->distances[i], own->nodes[i]) | (int64_t)(i >= old_count);
    kith_sort_few_i64(own->entries, count, own->scratch);
    for (size_t i = 0; i < count; i++) {
        int64_t entry = own->entries[i];
        if (i > 0 && entry >> 1 == own->entries[i - 1] >> 1) continue;
        own->candidates[unique++] =
            (kith_candidate){kith_pool_distance(entry), kith_pool_node(entry), (entry & 1) != 0};
    }
    return unique;
}

/* ---- Forward links ---------------------------------------------------------------------------------------- */

/* Gathers those of a row of slots that have not been gathered for this node yet. */
static size_t gather(bench *own, const uint32_t *slots, size_t slot_count, size_t count) {
    for (size_t i = 0; i < slot_count; i++) {
        uint32_t node = slots[i];
        if (node == KITH_NO_NODE) continue;
        size_t at = (node * HASH_FACTOR >> 8) & (own->table_count - 1);
        while (own->table[at] != node && own->table[at] != KITH_NO_NODE) at = (at + 1) & (own->table_count - 1);
        own->nodes[count] = node;
        count += own->table[at] != node;
        own->table[at] = node;
    }
    return count;
}

static kith_status link_forward(void *context, size_t item, size_t worker) {
    bulk *work = context;
    bench *own = &work->benches[worker];
    const kith_carved *carved = &work->carved;
    uint32_t node = work->order[item];
    size_t count = 0;
    if (node < work->first || node < carved->first || node >= carved->end) return KITH_OK;
    memset(own->table, 0xff, own->table_count * sizeof *own->table);
    for (size_t r = 0; r < carved->round_count && (r == 0 || item < carved->counts[r]); r++) {
        const uint32_t *slots = carved->slots[r] + (r == 0 ? node - carved->first : item) * carved->per_node;
        count = gather(own, slots, carved->per_node, count);
    }
    count = order_candidates(work, own, node, count, 0);
    count = kith_min_size(count, work->graph->options.ef_build);
    kith_hnsw_prune(work->graph, &own->pruner, own->candidates, count, kith_hnsw_links(work->graph, node));
    return kith_meter_add(&work->meter, 1);
}

/* ---- Reverse links ---------------------------------------------------------------------------------------- */

static size_t node_blocks(const bulk *work) { return (work->graph->node_count - work->first + NODES - 1) / NODES; }

/* Counts the links of a block of new nodes by where they lead; or lists them. */
static kith_status turn_links(void *context, size_t item, size_t worker) {
    bulk *work = context;
    const kith_hnsw *graph = work->graph;
    size_t from = work->first + item * NODES, to = kith_min_size(from + NODES, graph->node_count);
    (void)worker;
    for (size_t node = from; node < to; node++) {
        const uint32_t *links = kith_hnsw_links(graph, (uint32_t)node);
        for (size_t i = 0; i < graph->degree && links[i] != KITH_NO_NODE; i++)
            __builtin_prefetch((const void *)&work->incoming[links[i]], 1);
        for (size_t i = 0; i < graph->degree && links[i] != KITH_NO_NODE; i++) {
            if (work->sources == NULL) {
                atomic_fetch_add_explicit(&work->incoming[links[i]], 1, memory_order_relaxed);
                continue;
            }
            size_t left = atomic_fetch_sub_explicit(&work->incoming[links[i]], 1, memory_order_relaxed);
            work->sources[work->starts[links[i]] + left - 1] = (uint32_t)node;
        }
    }
    return KITH_OK;
}

/* Lists the links of new nodes by where they lead. *most: how many lead to one node. */
static kith_status list_sources(bulk *work, size_t *most) {
    size_t total = work->graph->node_count, sum = 0;
    KITH_TRY(kith_alloc_zeroed(total, sizeof *work->incoming, &work->incoming));
    KITH_TRY(kith_alloc(total + 1, sizeof *work->starts, &work->starts));
    KITH_TRY(kith_parallel_for(work->threads, node_blocks(work), turn_links, work));
    *most = 0;
    for (size_t v = 0; v < total; v++) {
        size_t here = work->incoming[v];
        work->starts[v] = sum;
        sum += here;
        *most = kith_max_size(*most, here);
    }
    work->starts[total] = sum;
    KITH_TRY(kith_alloc(sum, sizeof *work->sources, &work->sources));
    return sum == 0 ? KITH_OK : kith_parallel_for(work->threads, node_blocks(work), turn_links, work);
}

static kith_status link_reverse(void *context, size_t item, size_t worker) {
    bulk *work = context;
    bench *own = &work->benches[worker];
    const kith_hnsw *graph = work->graph;
    uint32_t node = (uint32_t)item, *links = kith_hnsw_links(graph, node);
    size_t first = work->starts[item], incoming = work->starts[item + 1] - first;
    if (incoming == 0) return KITH_OK;
    size_t old_count = kith_hnsw_link_count(graph, links);
    memcpy(own->nodes, links, old_count * sizeof *links);
    memcpy(own->nodes + old_count, work->sources + first, incoming * sizeof *links);
    size_t count = order_candidates(work, own, node, old_count + incoming, old_count);
    if (count > graph->degree)
        kith_hnsw_prune(graph, &own->pruner, own->candidates, count, links);
    else
        for (size_t i = 0; i < count; i++) links[i] = own->candidates[i].node;
    return kith_meter_add(&work->meter, 1);
}

/* ---- The call --------------------------------------------------------------------------------------------- */

/* Are there so many that linking them at once pays? */
static bool is_bulk(const kith_hnsw *graph, size_t first, size_t count) {
    return kith_hnsw_is_many(first, count) &&
           (graph->base.metric != KITH_IP || graph->is_level || graph->has_lengths);
}

bool kith_hnsw_can_bulk(const kith_hnsw *graph, size_t first, size_t count) {
    if (!is_bulk(graph, first, count)) return false;
    if (graph->sketch != NULL) return graph->sketch->dtype != KITH_F32;
    return graph->base.metric == KITH_L2 && graph->code == NULL &&
           (graph->base.dtype == KITH_U8 || graph->base.dtype == KITH_I8);
}

static double larger(double a, double b) { return a > b ? a : b; }

/* Into how many parts the nodes go, and what that takes. */
static size_t choose_parts(const kith_hnsw *graph, size_t total, double bytes_max, double *bytes) {
    double turned = (double)total * (double)(12 + 4 * graph->degree), ordered = 4 * (double)total;
    double wanted = bytes_max > 0 ? bytes_max - ordered : larger(bytes_free, turned);
    size_t parts = 1, most = bytes_max > 0 ? PARTS_MAX : PARTS_PAY;
    while (parts < most && kith_hnsw_carve_bytes(total, parts) > wanted) parts++;
    *bytes = ordered + larger(kith_hnsw_carve_bytes(total, parts), turned);
    return parts;
}

double kith_hnsw_bulk_bytes(const kith_hnsw *graph, size_t first, size_t count, double bytes_max) {
    double bytes = 0;
    if (is_bulk(graph, first, count)) (void)choose_parts(graph, first + count, bytes_max, &bytes);
    return bytes;
}

/* Candidates and forward links, part by part. */
static kith_status link_parts(bulk *work, const kith_job *job, size_t parts) {
    size_t total = work->graph->node_count;
    kith_carved *carved = &work->carved;
    KITH_TRY(kith_hnsw_carve(work->graph, work->order, job, work->threads, parts, carved));
    kith_meter_init(&work->meter, job->progress, job->progress_user, "add", total - work->first);
    KITH_TRY(take_benches(work, carved->round_count * carved->per_node));
    for (size_t part = 0; carved->end < total; part++) {
        KITH_TRY(kith_hnsw_carve_part(carved, part));
        KITH_TRY(kith_parallel_for(work->threads, total, link_forward, work));
    }
    KITH_TRY(kith_meter_finish(&work->meter));
    kith_carved_free(carved);
    free_benches(work);
    return KITH_OK;
}

/* By inner product the long ones are the nearest of many, so half of the samples are the longest nodes. But those alone
 * may all lie in a few directions, and then nothing would lead to the others: the other half are random. */
static kith_status mix_by_length(bulk *work) {
    size_t total = work->graph->node_count, longest = 0, next = 0;
    uint32_t *mixed = NULL;
    uint64_t *taken = NULL; /* bits, by place in the random order */
    int64_t *keys = NULL, *scratch = NULL;
    kith_status status;
    KITH_GO(kith_alloc(total, sizeof *mixed, &mixed));
    KITH_GO(kith_alloc_zeroed(kith_bitset_words(total), sizeof *taken, &taken));
    KITH_GO(kith_alloc(total, sizeof *keys, &keys));
    KITH_GO(kith_alloc(total, sizeof *scratch, &scratch));
    for (size_t i = 0; i < total; i++) { /* keys of lengths, which are not negative, are not negative either */
        int32_t key = INT32_MAX - kith_key_f32(work->graph->sketch->lengths[work->order[i]]);
        keys[i] = (int64_t)key << 32 | (int64_t)i;
    }
    kith_sort_i64(keys, total, scratch);
    for (size_t i = 0; i < total; i++) {
        while (i % 2 == 0 && kith_bitset_get(taken, (uint32_t)keys[longest])) longest++;
        while (i % 2 == 1 && kith_bitset_get(taken, next)) next++;
        size_t place = i % 2 == 0 ? (uint32_t)keys[longest] : next;
        kith_bitset_set(taken, place);
        mixed[i] = work->order[place];
    }
    kith_free(work->order);
    work->order = mixed;
    mixed = NULL;
done:
    kith_free(mixed);
    kith_free(taken);
    kith_free(keys);
    kith_free(scratch);
    return status;
}

static kith_status run(bulk *work, double bytes_max, const kith_job *job) {
    size_t total = work->graph->node_count, most;
    double bytes;
    KITH_TRY(kith_alloc(total, sizeof *work->order, &work->order));
    kith_random_permutation(job->seed, ORDER_STREAM, total, work->order);
    if (work->graph->has_lengths) KITH_TRY(mix_by_length(work));
    KITH_TRY(link_parts(work, job, choose_parts(work->graph, total, bytes_max, &bytes)));
    KITH_TRY(list_sources(work, &most));
    KITH_TRY(take_benches(work, most + work->graph->degree));
    kith_meter_init(&work->meter, job->progress, job->progress_user, "reverse links", total);
    KITH_TRY(kith_parallel_for(work->threads, total, link_reverse, work));
    return kith_meter_finish(&work->meter);
}

kith_status kith_hnsw_link_bulk(kith_hnsw *graph, size_t first, double bytes_max, const kith_job *job,
                                size_t threads) {
    bulk work = {.graph = graph, .first = first, .threads = threads};
    kith_status status = run(&work, bytes_max, job);
    free_benches(&work);
    kith_carved_free(&work.carved);
    kith_free(work.order);
    kith_free(work.incoming);
    kith_free(work.starts);
    kith_free(work.sources);
    return status;
}
