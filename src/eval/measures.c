/* SPDX-License-Identifier: Apache-2.0
 *
 * measures.c: how many of the true neighbours a result holds. docs/measures.md has the definitions.
 */
#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/idmap.h"
#include "base/options.h"
#include "eval/neighbors.h"

enum { RANKS_MAX = 1000, DEFAULT_RANK_COUNT = 3 };
static const size_t default_ranks[DEFAULT_RANK_COUNT] = {1, 10, 100};

/* Distances that differ by less count as one in big-ann-benchmarks. */
static const float big_ann_tie = 1e-6f;

/* What is handed out lives in one arena, which goes with it. */
typedef struct measures_object {
    kith_measures head;
    kith_arena arena;
} measures_object;

/* The writable side of one kith_measures_at, and what the present query needs of it. */
typedef struct rank_counter {
    uint32_t *intersection, *ties, *big_ann, *distance; /* one per query; NULL: not measured */
    size_t ties_end, big_ann_end;                       /* true neighbours that count: one past the last */
    double distance_max;                                /* as ann-benchmarks: results up to here count */
} rank_counter;

typedef struct judgement {
    kith_neighbors result, truth;
    kith_measures_options options;
    size_t *ranks, rank_count;
    kith_measures_at *at;
    rank_counter *counters;
    uint32_t *nearest_ranks;
    kith_idmap found; /* ids of the present row of results, with their ranks from 0 */
    kith_measures *out;
} judgement;

void kith_measures_options_init(kith_measures_options *options) {
    *options = (kith_measures_options){
        .size = sizeof *options, .epsilon = 1e-3, .truth_name = "truth", .result_name = "result"};
}

void kith_measures_free(kith_measures *measures) {
    if (measures == NULL) return;
    measures_object *object = (measures_object *)measures;
    kith_arena_free(&object->arena);
    kith_free(object);
}

/* ---- Ranks --------------------------------------------------------------------------------------------- */

static kith_status check_rank(const judgement *judge, size_t rank) {
    const kith_measures_options *options = &judge->options;
    if (rank < 1) return kith_error(KITH_ERR_ARGUMENT, "rank 0: ranks count from 1");
    if (rank > judge->result.k)
        return kith_error(KITH_ERR_ARGUMENT, "%s: rank %zu, but it has %zu results a query", options->result_name,
                          rank, judge->result.k);
    if (rank > judge->truth.k)
        return kith_error(KITH_ERR_ARGUMENT, "%s: rank %zu, but it has %zu true neighbours a query",
                          options->truth_name, rank, judge->truth.k);
    return KITH_OK;
}

/* Keeps the ranks sorted and distinct. */
static void insert_rank(judgement *judge, size_t rank) {
    size_t at = 0;
    while (at < judge->rank_count && judge->ranks[at] < rank) at++;
    if (at < judge->rank_count && judge->ranks[at] == rank) return;
    memmove(judge->ranks + at + 1, judge->ranks + at, (judge->rank_count - at) * sizeof *judge->ranks);
    judge->ranks[at] = rank;
    judge->rank_count++;
}

static kith_status choose_ranks(judgement *judge, kith_arena *arena) {
    size_t given = judge->options.ranks != NULL ? judge->options.rank_count : 0;
    if (given > RANKS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "rank_count = %zu is outside 0..%d", given, RANKS_MAX);
    KITH_TRY(kith_arena_take(arena, kith_max_size(given, DEFAULT_RANK_COUNT), sizeof(size_t), &judge->ranks));
    for (size_t i = 0; i < given; i++) {
        KITH_TRY(check_rank(judge, judge->options.ranks[i]));
        insert_rank(judge, judge->options.ranks[i]);
    }
    if (given != 0) return KITH_OK;
    size_t reach = kith_min_size(judge->result.k, judge->truth.k);
    for (size_t i = 0; i < DEFAULT_RANK_COUNT; i++)
        if (default_ranks[i] <= reach) insert_rank(judge, default_ranks[i]);
    return KITH_OK;
}

/* ---- One query ----------------------------------------------------------------------------------------- */

/* A distance as ann-benchmarks has it: smaller is nearer, l2 not squared. */
static double ann_benchmarks_distance(kith_metric metric, float value) {
    switch (metric) {
        case KITH_L2: return sqrt((double)value);
        case KITH_COSINE: return 1.0 - (double)value;
        case KITH_IP: return -(double)value;
        default: return (double)value;
    }
}

/* True neighbours 0..end-1 of which the last ones tie with number rank - 1. */
static size_t find_ties_end(const float *distances, size_t depth, size_t rank) {
    size_t end = rank;
    while (end < depth && distances[end] == distances[rank - 1]) end++;
    return end;
}

/* True neighbours at the first `rank` distinct distances, where a distance is the same as the first of its group
 * when it lies within big_ann_tie of it. */
static size_t find_big_ann_end(const float *distances, size_t depth, size_t rank) {
    size_t groups = 1, end = 1;
    float group_start = distances[0];
    for (; end < depth; end++) {
        if (fabsf(distances[end] - group_start) < big_ann_tie) continue;
        if (++groups > rank) break;
        group_start = distances[end];
    }
    return end;
}

/* Sets the bounds that depend on the truth of this query. */
static kith_status open_query(judgement *judge, size_t query) {
    const int64_t *ids = judge->truth.ids + query * judge->truth.k;
    size_t depth = 0, needed = judge->ranks[judge->rank_count - 1];
    while (depth < judge->truth.k && ids[depth] >= 0) depth++;
    if (depth < judge->truth.k && ids[depth] < KITH_NO_ID)
        return kith_error(KITH_ERR_RANGE, "%s: query %zu, column %zu has the id %lld", judge->options.truth_name,
                          query, depth, (long long)ids[depth]);
    if (depth < needed)
        return kith_error(KITH_ERR_ARGUMENT, "%s: query %zu has %zu true neighbours, rank %zu asks for more",
                          judge->options.truth_name, query, depth, needed);
    for (size_t i = 0; i < judge->rank_count; i++) {
        rank_counter *counter = &judge->counters[i];
        counter->ties_end = counter->big_ann_end = judge->ranks[i];
        if (judge->truth.distances == NULL) continue;
        const float *distances = judge->truth.distances + query * judge->truth.k;
        counter->ties_end = find_ties_end(distances, depth, judge->ranks[i]);
        counter->big_ann_end = find_big_ann_end(distances, depth, judge->ranks[i]);
        counter->distance_max =
            ann_benchmarks_distance(judge->options.metric, distances[judge->ranks[i] - 1]) + judge->options.epsilon;
    }
    return KITH_OK;
}

static void count_near_enough(judgement *judge, size_t query, size_t place) {
    double distance =
        ann_benchmarks_distance(judge->options.metric, judge->result.distances[query * judge->result.k + place]);
    for (size_t i = 0; i < judge->rank_count; i++)
        judge->counters[i].distance[query] +=
            place < judge->ranks[i] && distance <= judge->counters[i].distance_max;
}

/* Notes where each id of the row of results stands first. */
static kith_status note_results(judgement *judge, size_t query) {
    const int64_t *ids = judge->result.ids + query * judge->result.k;
    bool is_short = false, has_duplicate = false;
    kith_idmap_clear(&judge->found);
    for (size_t place = 0; place < judge->result.k; place++) {
        uint64_t earlier;
        if (ids[place] < KITH_NO_ID)
            return kith_error(KITH_ERR_RANGE, "%s: query %zu, column %zu has the id %lld",
                              judge->options.result_name, query, place, (long long)ids[place]);
        if (ids[place] == KITH_NO_ID) {
            is_short = true;
        } else if (kith_idmap_get(&judge->found, ids[place], &earlier)) {
            has_duplicate = true;
        } else {
            kith_idmap_put(&judge->found, ids[place], place);
            if (judge->counters[0].distance != NULL) count_near_enough(judge, query, place);
        }
    }
    judge->out->short_query_count += is_short;
    judge->out->duplicate_query_count += has_duplicate;
    return KITH_OK;
}

/* The true neighbour number `place` stands at `found_place` of the results. */
static void count_match(judgement *judge, size_t query, size_t place, size_t found_place) {
    for (size_t i = 0; i < judge->rank_count; i++) {
        rank_counter *counter = &judge->counters[i];
        if (found_place >= judge->ranks[i]) continue;
        counter->intersection[query] += place < judge->ranks[i];
        if (counter->ties == NULL) continue;
        counter->ties[query] += place < counter->ties_end;
        counter->big_ann[query] += place < counter->big_ann_end;
    }
}

static kith_status judge_query(judgement *judge, size_t query) {
    KITH_TRY(open_query(judge, query));
    KITH_TRY(note_results(judge, query));
    const int64_t *ids = judge->truth.ids + query * judge->truth.k;
    uint64_t found_place;
    if (kith_idmap_get(&judge->found, ids[0], &found_place))
        judge->nearest_ranks[query] = (uint32_t)found_place + 1;
    for (size_t place = 0; place < judge->truth.k; place++) {
        if (!kith_idmap_get(&judge->found, ids[place], &found_place)) continue;
        count_match(judge, query, place, (size_t)found_place);
        kith_idmap_remove(&judge->found, ids[place]); /* an id that the truth repeats counts once */
    }
    return KITH_OK;
}

/* ---- Means --------------------------------------------------------------------------------------------- */

static double share(const uint32_t *counts, size_t query_count, size_t rank) {
    if (counts == NULL) return (double)NAN;
    uint64_t sum = 0;
    for (size_t query = 0; query < query_count; query++) sum += counts[query];
    return (double)sum / ((double)query_count * (double)rank);
}

/* As both benchmarks round it: the mean first, then its share. */
static double share_of_mean(const uint32_t *counts, size_t query_count, size_t rank) {
    return counts == NULL ? (double)NAN : share(counts, query_count, 1) / (double)rank;
}

static void fill_ranks(judgement *judge) {
    size_t query_count = judge->out->query_count;
    for (size_t i = 0; i < judge->rank_count; i++) {
        const rank_counter *counter = &judge->counters[i];
        kith_measures_at *at = &judge->at[i];
        size_t rank = judge->ranks[i], hits = 0;
        for (size_t query = 0; query < query_count; query++)
            hits += judge->nearest_ranks[query] != 0 && judge->nearest_ranks[query] <= rank;
        at->rank = rank;
        at->recall_1 = (double)hits / (double)query_count;
        at->intersection = share(counter->intersection, query_count, rank);
        at->recall_ties = share(counter->ties, query_count, rank);
        at->recall_big_ann = share_of_mean(counter->big_ann, query_count, rank);
        at->recall_distance = share_of_mean(counter->distance, query_count, rank);
        at->intersection_counts = counter->intersection;
        at->ties_counts = counter->ties;
        at->big_ann_counts = counter->big_ann;
        at->distance_counts = counter->distance;
    }
}

/* Mean and median of the ranks at which the true nearest was found, from a histogram of them. */
static kith_status fill_nearest(judgement *judge) {
    kith_measures *out = judge->out;
    size_t *histogram, found = 0;
    uint64_t sum = 0;
    KITH_TRY(kith_alloc_zeroed(judge->result.k + 1, sizeof *histogram, &histogram));
    for (size_t query = 0; query < out->query_count; query++) histogram[judge->nearest_ranks[query]]++;
    for (size_t rank = 1; rank <= judge->result.k; rank++) {
        found += histogram[rank];
        sum += (uint64_t)histogram[rank] * rank;
    }
    out->nearest_found = (double)found / (double)out->query_count;
    out->nearest_rank_mean = found == 0 ? (double)NAN : (double)sum / (double)found;
    size_t lower = 0, upper = 0, seen = 0; /* the middle one, or the middle two */
    for (size_t rank = 1; rank <= judge->result.k && found != 0 && upper == 0; rank++) {
        seen += histogram[rank];
        if (lower == 0 && seen >= (found + 1) / 2) lower = rank;
        if (seen >= found / 2 + 1) upper = rank;
    }
    out->nearest_rank_median = found == 0 ? (double)NAN : (double)(lower + upper) / 2.0;
    kith_free(histogram);
    return KITH_OK;
}

/* ---- The call ------------------------------------------------------------------------------------------ */

static kith_status take_counts(kith_arena *arena, size_t query_count, uint32_t **out) {
    KITH_TRY(kith_arena_take(arena, query_count, sizeof **out, out));
    memset(*out, 0, query_count * sizeof **out);
    return KITH_OK;
}

static kith_status take_counters(judgement *judge, kith_arena *arena) {
    size_t query_count = judge->out->query_count, rank_count = judge->rank_count;
    bool has_ties = judge->truth.distances != NULL;
    bool has_distances = has_ties && judge->result.distances != NULL && judge->options.metric != 0;
    const kith_measures_at **pointers;
    KITH_TRY(take_counts(arena, query_count, &judge->nearest_ranks));
    KITH_TRY(kith_arena_take(arena, rank_count, sizeof *judge->at, &judge->at));
    KITH_TRY(kith_arena_take(arena, rank_count, sizeof *judge->counters, &judge->counters));
    KITH_TRY(kith_arena_take(arena, rank_count, sizeof *pointers, &pointers));
    for (size_t i = 0; i < rank_count; i++) {
        rank_counter *counter = &judge->counters[i];
        *counter = (rank_counter){0};
        judge->at[i] = (kith_measures_at){0};
        pointers[i] = &judge->at[i];
        KITH_TRY(take_counts(arena, query_count, &counter->intersection));
        if (has_ties) KITH_TRY(take_counts(arena, query_count, &counter->ties));
        if (has_ties) KITH_TRY(take_counts(arena, query_count, &counter->big_ann));
        if (has_distances) KITH_TRY(take_counts(arena, query_count, &counter->distance));
    }
    judge->out->at = pointers;
    judge->out->rank_count = rank_count;
    judge->out->nearest_ranks = judge->nearest_ranks;
    return KITH_OK;
}

static kith_status read_arguments(judgement *judge, const kith_neighbors *result, const kith_neighbors *truth,
                                  const kith_measures_options *given) {
    kith_measures_options *options = &judge->options;
    kith_measures_options_init(options);
    KITH_TRY(kith_options_read("measures options", options, sizeof *options, given));
    if (options->truth_name == NULL) options->truth_name = "truth";
    if (options->result_name == NULL) options->result_name = "result";
    if (!(options->epsilon >= 0 && options->epsilon <= (double)INFINITY))
        return kith_error(KITH_ERR_ARGUMENT, "epsilon = %g is negative or no number", options->epsilon);
    if (options->metric != 0 && kith_metric_name(options->metric)[0] == '?')
        return kith_error(KITH_ERR_ARGUMENT, "metric = %d is not a metric", (int)options->metric);
    KITH_TRY(kith_neighbors_read(options->result_name, result, &judge->result));
    KITH_TRY(kith_neighbors_read(options->truth_name, truth, &judge->truth));
    if (judge->result.query_count != judge->truth.query_count)
        return kith_error(KITH_ERR_DIMENSION, "%s has %zu queries, %s has %zu", options->result_name,
                          judge->result.query_count, options->truth_name, judge->truth.query_count);
    return KITH_OK;
}

kith_status kith_measures_compute(const kith_neighbors *result, const kith_neighbors *truth,
                                  const kith_measures_options *options, kith_measures **out) {
    *out = NULL;
    kith_status status;
    measures_object *object = NULL;
    judgement judge = {0};
    KITH_GO(read_arguments(&judge, result, truth, options));
    KITH_GO(kith_alloc_zeroed(1, sizeof *object, &object));
    object->head.size = sizeof object->head;
    object->head.query_count = judge.result.query_count;
    judge.out = &object->head;
    KITH_GO(choose_ranks(&judge, &object->arena));
    KITH_GO(take_counters(&judge, &object->arena));
    KITH_GO(kith_idmap_reserve(&judge.found, judge.result.k));
    for (size_t query = 0; query < judge.result.query_count; query++) KITH_GO(judge_query(&judge, query));
    fill_ranks(&judge);
    KITH_GO(fill_nearest(&judge));
    *out = &object->head;
    object = NULL;
done:
    kith_idmap_free(&judge.found);
    if (object != NULL) kith_measures_free(&object->head);
    return status;
}
