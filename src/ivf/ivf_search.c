/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_search.c: searches of inverted lists.
 *
 * Queries are worked on in groups, each by one worker, so that nothing is shared and the number of threads changes no
 * result. A group goes list by list: its pairs of query and list are sorted by list, each list is read once for all its
 * queries, up to 16 of them against the same blocks, and a SIMD compare drops what is not among a query's k best so
 * far. The nearest lists of all queries come before all others: they lower the thresholds. A group of a few queries
 * goes query by query.
 *
 * Under a filter lists that hold nothing allowed are passed over, and more are read where few of the vectors in them are
 * allowed: ivf_filtered.c. Where so few are allowed that most lists would be asked about them, raw vectors are not
 * looked for by lists at all: the allowed ones are compared, one and all.
 *
 * Where a vector stands in two lists, twice as many hits are kept, and of those with one id the better one stays.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "index/convert.h"
#include "index/filter.h"
#include "ivf/ivf_call.h"
#include "simd/simd.h"
#include "sq/sq.h"

enum {
    GROUP_MAX = 1024,
    GROUP_SMALL = 4,                  /* so few queries hardly share a list */
    GATHER = KITH_EXACT_GATHERED_MAX, /* raw vectors that are compared by their addresses, at once at most */
    GATHER_QUARTERS = 3,              /* where no more quarters of a list are allowed */
    CACHE_LINE = 64,
    STREAM_SHARE = 16
};
static const size_t group_bytes_max = (size_t)4 << 20;    /* prepared queries and probes of a group */
static const size_t gather_bytes_max = (size_t)256 << 10; /* of vectors that are fetched before they are compared */

/* ---- Queries -------------------------------------------------------------------------------------------------- */

typedef struct convert_loop {
    const kith_ivf_call *call;
    float *out;
} convert_loop;

enum { CONVERT_ROWS = 64 };

static kith_status convert_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const convert_loop *loop = context;
    const kith_view *view = &loop->call->request->queries;
    size_t dim = view->dim, first = item * CONVERT_ROWS;
    size_t last = kith_min_size(view->count, first + CONVERT_ROWS);
    for (size_t q = first; q < last; q++) kith_ivf_row(loop->call->ivf->base.metric, view, q, loop->out + q * dim);
    return KITH_OK;
}

static kith_status take_queries(kith_ivf_call *call) {
    const kith_search_request *request = call->request;
    const kith_code *code = call->ivf->code;
    size_t count = call->query_count;
    KITH_TRY(kith_arena_take(request->arena, count * code->dim, sizeof(float), &call->queries));
    convert_loop loop = {call, call->queries};
    KITH_TRY(kith_parallel_for(request->threads, (count - 1) / CONVERT_ROWS + 1, convert_item, &loop));
    call->projected = call->queries;
    if (code->vtable->project == NULL) return KITH_OK;
    float *projected;
    KITH_TRY(kith_arena_take(request->arena, count * code->projected_dim, sizeof(float), &projected));
    call->projected = projected;
    return kith_code_project_queries(code, call->queries, count, request->threads, request->arena, projected);
}

/* ---- Scratch memory ------------------------------------------------------------------------------------------- */

static kith_status take_worker(const kith_ivf_call *call, kith_ivf_scratch *scratch) {
    kith_arena *arena = call->request->arena;
    const kith_ivf *ivf = call->ivf;
    size_t probes = call->group_size * call->nprobe;
    KITH_TRY(kith_arena_take(arena, call->group_size, ivf->code->query_bytes, &scratch->prepared));
    if (ivf->coarse_code != NULL)
        KITH_TRY(kith_arena_take(arena, KITH_CODE_QUERIES_MAX, ivf->coarse_code->query_bytes,
                                 &scratch->coarse_prepared));
    KITH_TRY(kith_arena_take(arena, KITH_CODE_QUERIES_MAX * KITH_IVF_STRIP, sizeof(float), &scratch->estimates));
    KITH_TRY(kith_arena_take(arena, KITH_IVF_STRIP, sizeof(uint32_t), &scratch->positions));
    KITH_TRY(kith_arena_take(arena, KITH_CODE_QUERIES_MAX * kith_topk_capacity(call->coarse_k), sizeof(kith_hit),
                             &scratch->coarse_hits));
    KITH_TRY(kith_arena_take(arena, probes, sizeof(kith_probed_list), &scratch->probes));
    KITH_TRY(kith_arena_take(arena, probes, sizeof(kith_visit), &scratch->visits));
    KITH_TRY(kith_arena_take(arena, probes, sizeof(uint32_t), &scratch->lists));
    KITH_TRY(kith_arena_take(arena, call->group_size, sizeof(uint32_t), &scratch->members));
    if (call->table_size > 0)
        KITH_TRY(kith_arena_take(arena, call->table_size, sizeof *scratch->table, &scratch->table));
    if (call->errors != NULL) KITH_TRY(kith_arena_take(arena, call->nprobe, sizeof(float), &scratch->spreads));
    if ((call->request->filter != NULL || ivf->dead_count > 0) && ivf->code->is_exact) {
        KITH_TRY(kith_arena_take(arena, GATHER, sizeof *scratch->rows, &scratch->rows));
        KITH_TRY(kith_arena_take(arena, GATHER, sizeof *scratch->row_ids, &scratch->row_ids));
    }
    return kith_arena_take(arena, ivf->list_count + 1, sizeof(size_t), &scratch->list_first);
}

static void plan_groups(kith_ivf_call *call) {
    size_t each = call->ivf->code->query_bytes +
                  call->nprobe * (sizeof(kith_probed_list) + sizeof(kith_visit) + sizeof(uint32_t));
    size_t most = kith_min_size(GROUP_MAX, kith_max_size(1, group_bytes_max / each));
    size_t share = (call->query_count - 1) / call->request->threads + 1;
    call->group_size = kith_min_size(most, share);
    call->group_count = (call->query_count - 1) / call->group_size + 1;
}

static kith_status take_scratch(kith_ivf_call *call) {
    plan_groups(call);
    size_t workers = kith_min_size(call->request->threads, call->group_count);
    KITH_TRY(kith_arena_take(call->request->arena, workers, sizeof *call->workers, &call->workers));
    for (size_t w = 0; w < workers; w++) KITH_TRY(take_worker(call, &call->workers[w]));
    return KITH_OK;
}

/* ---- The coarse step ------------------------------------------------------------------------------------------ */
/* ---- Reading lists -------------------------------------------------------------------------------------------- */

/* A query of the tile that reads a list. */
typedef struct reader {
    size_t query; /* of the call */
    size_t limit; /* codes of the list that it may look at */
    uint32_t before;
} reader;

/* Estimates of codes that lie side by side in a list. */
typedef struct strip {
    const kith_list *list;
    const kith_list_segment *segment;
    size_t first;  /* the first code, in its segment */
    size_t before; /* codes of the segments before */
} strip;

/* Code i of a strip has been removed. */
static inline bool is_dead(const strip *at, size_t i) {
    return at->list->dead != NULL && kith_list_is_dead(at->list, at->before + at->first + i);
}

/* Codes that have been removed get estimates that no bound on the k-th best counts. */
static void mask_dead(const strip *at, size_t count, float *estimates, size_t reader_count) {
    for (size_t i = 0; i < count; i += KITH_BLOCK_ROWS) {
        uint32_t rest = kith_list_dead_bits(at->list, at->before + at->first + i);
        for (; rest != 0; rest &= rest - 1) {
            size_t code = i + (size_t)__builtin_ctz(rest);
            for (size_t r = 0; code < count && r < reader_count; r++)
                estimates[r * KITH_IVF_STRIP + code] = INFINITY;
        }
    }
}

static void keep_in_top(const kith_ivf_call *call, kith_topk *top, const float *estimates, size_t count,
                        const strip *at, uint32_t number, uint32_t *positions) {
    kith_allow_fn allow = kith_filter_allow_fn(call->request->filter);
    size_t kept = kith_ivf_candidates(top, estimates, count, allow == NULL, positions);
    for (size_t i = 0; i < kept; i++) {
        int32_t key = kith_key_f32(estimates[positions[i]]);
        if (key > top->key_max || is_dead(at, positions[i])) continue;
        int64_t id = kith_segment_id(at->segment, at->first + positions[i]);
        if (allow == NULL || allow(call->request->filter, id)) kith_topk_push(top, key, id, number + positions[i]);
    }
}

static kith_status keep_in_list(const kith_ivf_call *call, kith_hit_list *list, const float *estimates,
                                size_t count, const strip *at, uint32_t *positions) {
    kith_allow_fn allow = kith_filter_allow_fn(call->request->filter);
    size_t kept = kith_simd()->filter_below_f32(estimates, count, call->radius, positions);
    for (size_t i = 0; i < kept; i++) {
        int64_t id = kith_segment_id(at->segment, at->first + positions[i]);
        if (is_dead(at, positions[i]) || (allow != NULL && !allow(call->request->filter, id))) continue;
        kith_hit hit = {.id = id, .key = kith_key_f32(estimates[positions[i]])};
        KITH_TRY(kith_hit_list_append(list, &hit));
    }
    return KITH_OK;
}

/* Keeps what a strip holds for one query, of whose codes its first one is number `number`. */
static kith_status keep(const kith_ivf_call *call, size_t query, const float *estimates, size_t count,
                        const strip *at, uint32_t number, uint32_t *positions) {
    if (call->tops == NULL) return keep_in_list(call, &call->lists[query], estimates, count, at, positions);
    keep_in_top(call, &call->tops[query], estimates, count, at, number, positions);
    return KITH_OK;
}

/* A run of blocks of a segment. */
typedef struct block_run {
    size_t first, count; /* codes; `first` is a multiple of 32 */
} block_run;

/* The next run of blocks from code `at` of a segment to `end` that hold an allowed vector; all of them without a
 * filter. `before`: codes of the list before the segment. */
static block_run next_run(const kith_ivf_call *call, size_t list, size_t before, size_t at, size_t end) {
    if (call->request->filter == NULL) return (block_run){at, end - at};
    while (at < end && kith_ivf_filtered_bits(&call->filtered, list, before + at) == 0) at += KITH_BLOCK_ROWS;
    size_t next = at;
    while (next < end && kith_ivf_filtered_bits(&call->filtered, list, before + next) != 0) next += KITH_BLOCK_ROWS;
    return at < end ? (block_run){at, kith_min_size(next, end) - at} : (block_run){end, 0};
}

/* Holds a list against up to 16 queries. */
static kith_status read_list(const kith_ivf_call *call, const kith_ivf_scratch *scratch, size_t number,
                             const void *const *prepared, const float *bases, const reader *readers,
                             size_t reader_count) {
    const kith_code *code = call->ivf->code;
    const kith_list *list = kith_ivf_list(call->ivf, number);
    size_t limit = 0, before = 0; /* codes of the segments before */
    for (size_t r = 0; r < reader_count; r++) limit = kith_max_size(limit, readers[r].limit);
    for (size_t s = 0; s < list->segment_count && before < limit; s++) {
        const kith_list_segment *segment = kith_list_segment_at(list, s);
        size_t end = kith_min_size(segment->count, limit - before);
        for (size_t first = 0; first < end;) {
            block_run next = next_run(call, number, before, first, kith_min_size(end, first + KITH_IVF_STRIP));
            first = next.first + next.count;
            if (next.count == 0) continue;
            kith_segment_scan(code, segment, next.first, next.count, prepared, bases, reader_count,
                              scratch->estimates, KITH_IVF_STRIP);
            const strip at = {list, segment, next.first, before};
            size_t number_first = before + next.first;
            if (list->dead != NULL) mask_dead(&at, next.count, scratch->estimates, reader_count);
            for (size_t r = 0; r < reader_count; r++) {
                if (readers[r].limit <= number_first) continue;
                KITH_TRY(keep(call, readers[r].query, scratch->estimates + r * KITH_IVF_STRIP,
                              kith_min_size(next.count, readers[r].limit - number_first), &at,
                              readers[r].before + (uint32_t)number_first, scratch->positions));
            }
        }
        before += segment->count;
    }
    return KITH_OK;
}

/* Of 32 vectors from a position on those that are allowed, and not dead. */
static uint32_t allowed_bits(const kith_ivf_call *call, size_t number, size_t position) {
    if (call->request->filter != NULL) return kith_ivf_filtered_bits(&call->filtered, number, position);
    const kith_list *list = kith_ivf_list(call->ivf, number);
    size_t left = list->count - position;
    uint32_t all = left < KITH_BLOCK_ROWS ? ((uint32_t)1 << left) - 1 : UINT32_MAX;
    return all & ~kith_list_dead_bits(list, position);
}

/* Raw vectors from one list or many, to be held against some queries. Where they lie is in the worker's scratch
 * memory. */
typedef struct gathering {
    const kith_ivf_call *call;
    size_t worker;
    const uint32_t *members;
    size_t member_count;
    size_t count, count_max; /* GATHER at most; a block fits in below count_max */
} gathering;

static gathering gather_for(const kith_ivf_call *call, size_t worker, const uint32_t *members, size_t count) {
    size_t most = gather_bytes_max / call->ivf->code->code_bytes;
    return (gathering){.call = call,
                       .worker = worker,
                       .members = members,
                       .member_count = count,
                       .count_max = kith_max_size(2 * KITH_BLOCK_ROWS, kith_min_size(GATHER, most))};
}

static kith_status offer_gathered(gathering *all) {
    const kith_ivf_call *call = all->call;
    const kith_ivf_scratch *scratch = &call->workers[all->worker];
    size_t count = all->count;
    all->count = 0;
    if (count == 0) return KITH_OK;
    return kith_exact_offer_gathered(call->exact, scratch->rows, scratch->row_ids, count, all->members,
                                     all->member_count, all->worker, call->tops, call->lists,
                                     call->request->radius);
}

/* The first `most` allowed vectors of the first `limit` ones of a list, which has been counted. They are fetched into
 * the second-level cache all at once: one after the other, each would be waited for. */
static kith_status gather_list(gathering *all, size_t number, size_t limit, size_t most) {
    const kith_ivf_call *call = all->call;
    const kith_list *list = kith_ivf_list(call->ivf, number);
    const kith_ivf_scratch *scratch = &call->workers[all->worker];
    size_t row_bytes = call->ivf->code->code_bytes;
    limit = kith_min_size(limit, list->count);
    for (size_t at = 0; at < limit && most > 0; at += KITH_BLOCK_ROWS) {
        uint32_t rest = allowed_bits(call, number, at);
        for (; rest != 0 && most > 0; rest &= rest - 1, most--) {
            size_t position = at + (size_t)__builtin_ctz(rest), place;
            if (position >= limit) break;
            const kith_list_segment *segment = kith_list_find(list, position, &place);
            const unsigned char *row = segment->blocks + place * row_bytes;
            for (size_t b = 0; b < row_bytes; b += CACHE_LINE) __builtin_prefetch(row + b, 0, 2);
            scratch->rows[all->count] = row;
            scratch->row_ids[all->count++] = kith_segment_id(segment, place);
        }
        if (all->count + KITH_BLOCK_ROWS > all->count_max) KITH_TRY(offer_gathered(all));
    }
    return KITH_OK;
}

static kith_status read_gathered(const kith_ivf_call *call, size_t worker, size_t number, const uint32_t *members,
                                 size_t member_count, size_t limit) {
    gathering all = gather_for(call, worker, members, member_count);
    KITH_TRY(gather_list(&all, number, limit, SIZE_MAX));
    return offer_gathered(&all);
}

/* All allowed vectors, whichever list they are in, as far as the bound on distances goes. */
static kith_status read_allowed(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t worker, size_t first,
                                size_t count) {
    const kith_search_request *request = call->request;
    uint64_t bound = request->params->max_distances;
    size_t most = bound != 0 && bound < SIZE_MAX ? (size_t)bound : SIZE_MAX, left = most, all_count = 0;
    for (size_t q = 0; q < count; q++) scratch->members[q] = (uint32_t)(first + q);
    gathering all = gather_for(call, worker, scratch->members, count);
    for (size_t l = 0; l < kith_ivf_lists(call->ivf); l++) {
        size_t here = kith_ivf_filtered_list(&call->filtered, l);
        all_count += here;
        if (here == 0) continue;
        KITH_TRY(gather_list(&all, l, SIZE_MAX, left));
        left -= kith_min_size(left, here);
        KITH_TRY(kith_meter_add(request->meter, 0)); /* a deadline */
    }
    for (size_t q = 0; q < count && request->reports != NULL; q++) {
        kith_search_report *one = &request->reports[first + q];
        one->strategy = KITH_STRATEGY_LISTED;
        one->visited += kith_min_size(all_count, most);
        one->distances += kith_min_size(all_count, most);
        if (all_count > most) one->limits |= KITH_LIMIT_DISTANCES;
    }
    return offer_gathered(&all);
}

/* Are the vectors that a search of a raw list may find to be picked out? */
static bool is_sparse(const kith_ivf_call *call, size_t number) {
    if (kith_ivf_list(call->ivf, number)->dead != NULL) return true;
    if (call->request->filter == NULL) return false;
    size_t all = kith_ivf_list(call->ivf, number)->count;
    return 4 * kith_ivf_filtered_list(&call->filtered, number) <= GATHER_QUARTERS * all;
}

/* The same for raw vectors: products by tiles, for any number of queries with one limit. */
static kith_status read_raw_list(const kith_ivf_call *call, size_t worker, size_t number, const uint32_t *members,
                                 size_t member_count, size_t limit) {
    const kith_ivf *ivf = call->ivf;
    const kith_list *list = kith_ivf_list(ivf, number);
    if (is_sparse(call, number)) return read_gathered(call, worker, number, members, member_count, limit);
    for (size_t s = 0; s < list->segment_count && limit > 0; s++) {
        const kith_list_segment *segment = kith_list_segment_at(list, s);
        size_t count = kith_min_size(segment->count, limit);
        unsigned char *id_table;
        kith_chunks ids;
        kith_rows rows = {.dtype = kith_raw_dtype(ivf->code),
                          .dim = ivf->code->dim,
                          .count = count,
                          .base = segment->blocks,
                          .stride = ivf->code->code_bytes};
        if (segment->id_bytes == 4) {
            rows.ids_u32 = segment->ids;
        } else {
            kith_chunks_view(&ids, sizeof(int64_t), segment->ids, count, &id_table);
            rows.ids = &ids;
        }
        KITH_TRY(kith_exact_offer(call->exact, &rows, members, member_count, worker, call->tops, call->lists,
                                  call->request->radius));
        limit -= count;
    }
    return KITH_OK;
}

/* ---- Groups --------------------------------------------------------------------------------------------------- */

size_t kith_ivf_sort_probes(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t count, size_t rank_first,
                            size_t rank_last) {
    size_t list_count = call->ivf->list_count, named = 0, at = 0;
    size_t *first = scratch->list_first;
    memset(first, 0, (list_count + 1) * sizeof *first);
    for (size_t q = 0; q < count; q++)
        for (size_t p = rank_first; p < rank_last; p++) {
            const kith_probed_list *one = &scratch->probes[q * call->nprobe + p];
            if (one->limit > 0) first[one->list]++;
        }
    for (size_t list = 0; list < list_count; list++) {
        size_t visits = first[list];
        if (visits > 0) scratch->lists[named++] = (uint32_t)list;
        first[list] = at;
        at += visits;
    }
    for (size_t q = 0; q < count; q++)
        for (size_t p = rank_first; p < rank_last; p++) {
            const kith_probed_list *one = &scratch->probes[q * call->nprobe + p];
            if (one->limit > 0)
                scratch->visits[first[one->list]++] = (kith_visit){(uint32_t)q, one->base, one->limit, one->before};
        }
    return named; /* first[list] is now where the visits of the list end */
}

/* What is left of a limit behind the lists of a centroid that have been read. */
static size_t limit_behind(size_t limit, size_t read) { return limit > read ? limit - read : 0; }

/* One list for its visits at..end - 1; `read` vectors of the same centroid lie in the list before it. */
static kith_status read_visits(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t number, size_t read,
                               size_t query_first, size_t at, size_t end) {
    const kith_code *code = call->ivf->code;
    while (at < end) {
        const void *prepared[KITH_CODE_QUERIES_MAX];
        float bases[KITH_CODE_QUERIES_MAX];
        reader readers[KITH_CODE_QUERIES_MAX];
        size_t tile = 0;
        for (; tile < KITH_CODE_QUERIES_MAX && at < end; tile++, at++) {
            const kith_visit *one = &scratch->visits[at];
            prepared[tile] = scratch->prepared + one->query * code->query_bytes;
            bases[tile] = one->base;
            readers[tile] =
                (reader){query_first + one->query, limit_behind(one->limit, read), one->before + (uint32_t)read};
        }
        KITH_TRY(read_list(call, scratch, number, prepared, bases, readers, tile));
    }
    return KITH_OK;
}

/* The same for raw vectors: those that see the whole list together, others one by one. */
static kith_status read_raw_visits(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t worker,
                                   size_t number, size_t read, size_t query_first, size_t at, size_t end) {
    size_t whole = 0, all = kith_ivf_list(call->ivf, number)->count;
    for (; at < end; at++) {
        const kith_visit *one = &scratch->visits[at];
        uint32_t query = (uint32_t)(query_first + one->query);
        size_t limit = limit_behind(one->limit, read);
        if (limit >= all)
            scratch->members[whole++] = query;
        else
            KITH_TRY(read_raw_list(call, worker, number, &query, 1, limit));
    }
    return read_raw_list(call, worker, number, scratch->members, whole, all);
}

kith_status kith_ivf_read_named(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t worker,
                                size_t query_first, size_t named_first, size_t named_last) {
    size_t at = named_first > 0 ? scratch->list_first[scratch->lists[named_first - 1]] : 0;
    for (size_t n = named_first; n < named_last; n++) {
        size_t end = scratch->list_first[scratch->lists[n]], copies = call->ivf->copies, read = 0;
        for (size_t c = 0; c < copies; c++) {
            size_t number = scratch->lists[n] * copies + c;
            if (call->exact != NULL)
                KITH_TRY(read_raw_visits(call, scratch, worker, number, read, query_first, at, end));
            else
                KITH_TRY(read_visits(call, scratch, number, read, query_first, at, end));
            read += kith_ivf_list(call->ivf, number)->count;
        }
        KITH_TRY(kith_meter_add(call->request->meter, 0)); /* a deadline */
        at = end;
    }
    return KITH_OK;
}

static kith_status read_by_list(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t worker,
                                size_t query_first, size_t count, size_t rank_first, size_t rank_last) {
    size_t named = kith_ivf_sort_probes(call, scratch, count, rank_first, rank_last);
    return kith_ivf_read_named(call, scratch, worker, query_first, 0, named);
}

/* The lists of one probe of query number `query` of the call. */
static kith_status read_probe(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t worker, size_t query,
                              const kith_probed_list *one, const void *prepared) {
    size_t copies = call->ivf->copies, read = 0;
    for (size_t c = 0; c < copies && read < one->limit; c++) {
        size_t number = one->list * copies + c, limit = one->limit - read;
        reader by = {query, limit, one->before + (uint32_t)read};
        uint32_t member = (uint32_t)query;
        if (call->exact != NULL)
            KITH_TRY(read_raw_list(call, worker, number, &member, 1, limit));
        else
            KITH_TRY(read_list(call, scratch, number, &prepared, &one->base, &by, 1));
        read += kith_ivf_list(call->ivf, number)->count;
    }
    return KITH_OK;
}

static kith_status read_by_query(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t worker,
                                 size_t query_first, size_t count) {
    size_t early = kith_ivf_early_near(call);
    for (size_t q = 0; q < count; q++)
        for (size_t p = 0; p < call->nprobe; p++) {
            if (early > 0 && p == early)
                kith_ivf_stop_early(call, &call->tops[query_first + q], scratch->probes + q * call->nprobe, early);
            KITH_TRY(read_probe(call, scratch, worker, query_first + q, &scratch->probes[q * call->nprobe + p],
                                scratch->prepared + q * call->ivf->code->query_bytes));
            KITH_TRY(kith_meter_add(call->request->meter, 0)); /* a deadline */
        }
    return KITH_OK;
}

/* ---- Vectors found twice ---------------------------------------------------------------------------------------- */

/* A power of two that is more than twice `count`. */
static size_t table_size_of(size_t count) {
    size_t size = 8;
    while (size <= 2 * count) size *= 2;
    return size;
}

/* Of hits with the same id keeps the better one, and returns how many are left. `table`: table_size_of(count). */
static size_t drop_repeats(kith_hit *hits, size_t count, uint32_t *table, size_t table_size) {
    size_t left = 0;
    memset(table, 0, table_size * sizeof *table); /* of what is left, number + 1 */
    for (size_t i = 0; i < count; i++) {
        kith_hit hit = hits[i];
        size_t at = (size_t)((uint64_t)hit.id * 0x9e3779b97f4a7c15u >> 32) & (table_size - 1);
        while (table[at] != 0 && hits[table[at] - 1].id != hit.id) at = (at + 1) & (table_size - 1);
        if (table[at] == 0) {
            hits[left++] = hit;
            table[at] = (uint32_t)left;
            continue;
        }
        kith_hit *other = &hits[table[at] - 1];
        if (hit.key < other->key || (hit.key == other->key && hit.row < other->row)) *other = hit;
    }
    return left;
}

/* Of a vector that was found in both of its lists the better estimate stays. Among the 2k best of all copies there are
 * the k best vectors. */
static kith_status merge_copies(const kith_ivf_call *call, const kith_ivf_scratch *scratch, size_t query) {
    if (call->tops != NULL) {
        kith_topk *top = &call->tops[query];
        kith_topk_shrink(top);
        top->count = drop_repeats(top->hits, top->count, scratch->table, table_size_of(top->count));
        top->k = call->request->k;
        return KITH_OK;
    }
    kith_hit_list *list = &call->lists[query];
    uint32_t *table;
    size_t size = table_size_of(list->count);
    if (list->count > UINT32_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "search: %zu vectors within the radius", list->count);
    KITH_TRY(kith_alloc(size, sizeof *table, &table));
    list->count = drop_repeats(list->hits, list->count, table, size);
    kith_free(table);
    return KITH_OK;
}

/* ---- How far estimates may be off ---------------------------------------------------------------------------- */

/* |q - c| of a query and a list, c = 0 where codes are not of residuals. */
static float spread_of(const kith_ivf *ivf, const float *vector, size_t list) {
    const kith_float_kernels *l2 = &kith_simd()->floats[KITH_OP_L2SQ][KITH_PAIR_F32_F32];
    size_t dim = ivf->code->projected_dim;
    if (!ivf->by_residual)
        return sqrtf(kith_simd()->floats[KITH_OP_IP][KITH_PAIR_F32_F32].one(vector, vector, dim));
    return sqrtf(l2->one(vector, ivf->projected + list * dim, dim));
}

/* The errors of a query's hits, in the order of its results. `probes` are its own. */
static void find_errors(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t query,
                        const kith_probed_list *probes, const void *prepared) {
    const kith_ivf *ivf = call->ivf;
    const kith_code *code = ivf->code;
    kith_topk *top = &call->tops[query];
    float *errors = call->errors + query * call->request->k;
    for (size_t p = 0; p < call->nprobe; p++) scratch->spreads[p] = -1;
    kith_topk_finish(top);
    for (size_t i = 0; i < top->count; i++) {
        uint32_t number = top->hits[i].row;
        size_t p = 0, lane;
        for (size_t most = call->nprobe - 1; p < most;) { /* the last list that begins at the number or before */
            size_t middle = most - (most - p) / 2;
            if (probes[middle].before <= number)
                p = middle;
            else
                most = middle - 1;
        }
        if (scratch->spreads[p] < 0)
            scratch->spreads[p] = spread_of(ivf, call->projected + query * code->projected_dim, probes[p].list);
        size_t list = probes[p].list * ivf->copies, position = number - probes[p].before;
        if (position >= kith_ivf_list(ivf, list)->count)
            position -= kith_ivf_list(ivf, list++)->count; /* a second copy */
        const unsigned char *block = kith_list_block(code, kith_ivf_list(ivf, list), position, &lane);
        errors[i] = code->vtable->error_in_block(code, prepared, scratch->spreads[p], block, lane);
    }
}

bool kith_ivf_bounds_errors(const kith_index *index) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    return ivf->code->vtable->error != NULL && index->count * ivf->copies + ivf->dead_count <= UINT32_MAX;
}

/* ---- A group of queries ---------------------------------------------------------------------------------------- */

/* What the group's probes come to. Under a filter only blocks with something allowed are compared: here their allowed
 * vectors count. */
void kith_ivf_report_group(const kith_ivf_call *call, const kith_ivf_scratch *scratch, size_t first, size_t count) {
    const kith_search_request *request = call->request;
    for (size_t q = 0; q < count && request->reports != NULL; q++) {
        kith_search_report *one = &request->reports[first + q];
        one->strategy = request->filter != NULL ? KITH_STRATEGY_LISTS : KITH_STRATEGY_ALL;
        for (size_t p = 0; p < call->nprobe; p++) {
            const kith_probed_list *at = &scratch->probes[q * call->nprobe + p];
            if (at->before == KITH_NO_PROBE) continue;
            size_t size = kith_ivf_centroid_count(call->ivf, at->list), allowed = size;
            if (request->filter != NULL) allowed = kith_ivf_filtered_count(&call->filtered, at->list);
            one->visited += at->limit;
            one->distances += kith_min_size(at->limit, allowed);
            one->lists += call->ivf->has_coarse && at->limit > 0;
            if (at->limit < size) one->limits |= KITH_LIMIT_DISTANCES;
        }
    }
}

bool kith_ivf_is_streamed(const kith_ivf_call *call, size_t visits) {
    return call->exact != NULL && visits < STREAM_SHARE * call->ivf->list_count;
}

static size_t count_visits(const kith_ivf_call *call, const kith_ivf_scratch *scratch, size_t count) {
    size_t visits = 0;
    for (size_t p = 0; p < count * call->nprobe; p++) visits += scratch->probes[p].before != KITH_NO_PROBE;
    return visits;
}

/* The nearest lists first: after them most of the rest is dropped by the compare alone. But what is streamed is read
 * once. */
static kith_status read_group(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t worker, size_t first,
                              size_t count) {
    if (count < GROUP_SMALL) return read_by_query(call, scratch, worker, first, count);
    size_t early = kith_ivf_early_near(call), near = kith_min_size(call->nprobe, 1 + call->nprobe / 8);
    if (early > 0)
        near = kith_min_size(call->nprobe, early);
    else if (kith_ivf_is_streamed(call, count_visits(call, scratch, count)))
        near = call->nprobe;
    KITH_TRY(read_by_list(call, scratch, worker, first, count, 0, near));
    for (size_t q = 0; q < count && early > 0; q++)
        kith_ivf_stop_early(call, &call->tops[first + q], scratch->probes + q * call->nprobe, near);
    return near < call->nprobe ? read_by_list(call, scratch, worker, first, count, near, call->nprobe) : KITH_OK;
}

static kith_status search_group(void *context, size_t group, size_t worker) {
    const kith_ivf_call *call = context;
    const kith_code *code = call->ivf->code;
    kith_ivf_scratch *scratch = &call->workers[worker];
    size_t first = group * call->group_size, count = kith_min_size(call->group_size, call->query_count - first);
    for (size_t q = 0; q < count && call->exact == NULL; q++)
        code->vtable->prepare(code, call->projected + (first + q) * code->projected_dim,
                              scratch->prepared + q * code->query_bytes);
    kith_status status;
    if (call->is_listed) {
        status = read_allowed(call, scratch, worker, first, count);
    } else {
        kith_ivf_find_probes(call, scratch, first, count);
        status = read_group(call, scratch, worker, first, count);
        kith_ivf_report_group(call, scratch, first, count);
    }
    if (status != KITH_OK && status != KITH_ERR_INCOMPLETE) return status;
    for (size_t q = 0; q < count && call->ivf->copies > 1; q++) KITH_TRY(merge_copies(call, scratch, first + q));
    for (size_t q = 0; q < count && call->errors != NULL; q++)
        find_errors(call, scratch, first + q, scratch->probes + q * call->nprobe,
                    scratch->prepared + q * code->query_bytes);
    if (status != KITH_OK) return status; /* a deadline has passed */
    for (size_t q = first; q < first + count; q++) kith_search_answered(call->request, q);
    return kith_meter_add(call->request->meter, (uint64_t)count * call->ivf->base.count);
}

/* ---- Both searches -------------------------------------------------------------------------------------------- */

static float l2_value(const void *context, int32_t key) {
    (void)context;
    float value = kith_key_to_f32(key);
    return value > 0 ? value : 0; /* an estimate may fall below */
}

static float ip_value(const void *context, int32_t key) {
    (void)context;
    return -kith_key_to_f32(key);
}

static kith_key_value_fn value_fn(const kith_ivf *ivf) { return ivf->base.metric == KITH_L2 ? l2_value : ip_value; }

/* Raw vectors go through exact search, which answers batches by tiles and gives Flat's bits. */
static kith_status open_exact(kith_ivf_call *call) {
    const kith_ivf *ivf = call->ivf;
    if (!ivf->code->is_exact) return KITH_OK;
    const kith_search_request *request = call->request;
    kith_exact_request exact = {
        .queries = {.data = call->queries, .dtype = KITH_F32, .count = call->query_count, .dim = ivf->code->dim},
        .metric = ivf->code->metric,
        .row_dtype = kith_raw_dtype(ivf->code),
        .threads = request->threads,
        .allow = kith_filter_allow_fn(request->filter),
        .allow_context = request->filter,
        .by_members = true,
        .arena = request->arena,
    };
    return kith_exact_open(&exact, &call->exact);
}

static kith_status begin(kith_ivf_call *call, const kith_index *index, const kith_search_request *request,
                         float *errors) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    *call =
        (kith_ivf_call){.ivf = ivf, .request = request, .query_count = request->queries.count, .errors = errors};
    KITH_TRY(kith_ivf_plan_probes(call));
    call->top_k = request->k * ivf->copies;
    if (ivf->copies > 1) call->table_size = table_size_of(call->top_k);
    KITH_TRY(take_queries(call));
    KITH_TRY(kith_ivf_ask_index(call));
    KITH_TRY(open_exact(call));
    return take_scratch(call);
}

static kith_status run(kith_ivf_call *call) {
    if (kith_ivf_is_together(call)) return kith_ivf_search_together(call);
    return kith_parallel_for(call->request->threads, call->group_count, search_group, call);
}

kith_status kith_ivf_search(const kith_index *index, const kith_search_request *request,
                            const kith_search_results *results) {
    kith_ivf_call call;
    KITH_TRY(begin(&call, index, request, results->errors));
    size_t capacity = kith_topk_capacity(call.top_k);
    kith_hit *hits;
    KITH_TRY(kith_arena_take(request->arena, call.query_count, sizeof *call.tops, &call.tops));
    KITH_TRY(kith_arena_take(request->arena, call.query_count * capacity, sizeof *hits, &hits));
    for (size_t q = 0; q < call.query_count; q++) kith_topk_init(&call.tops[q], hits + q * capacity, call.top_k);
    KITH_TRY(kith_search_unless_late(request, run(&call)));
    return kith_search_emit(index, request, results, call.tops, value_fn(call.ivf), NULL);
}

kith_status kith_ivf_range_search(const kith_index *index, const kith_search_request *request,
                                  kith_range_lists *lists) {
    kith_ivf_call call;
    KITH_TRY(begin(&call, index, request, NULL));
    call.lists = lists->lists;
    call.radius = index->metric == KITH_L2 ? request->radius : -request->radius;
    lists->value = value_fn(call.ivf);
    return run(&call);
}
