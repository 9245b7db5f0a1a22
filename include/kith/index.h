/* SPDX-License-Identifier: Apache-2.0
 *
 * kith/index.h: the index. Every structure is driven through these calls.
 *
 * Threads: all functions may be called at the same time from any number of threads, searches each with a context of its
 * own (or none), but for those that need the index to themselves: kith_index_free, kith_index_train,
 * kith_index_attach_vectors, kith_index_set_prefetch and kith_prefetch_tune.
 *   Searches (kith_index_search, _search_groups, _range_search) see the index as it is between two changes, all queries
 *     of a call at the same moment: each vector whole, an updated one in its old or its new form, none twice. They see
 *     every change that ended before the call began, in the order of the changes, and perhaps some that end later. They
 *     never wait: not on any kind of index of which the documentation says so ("Searches beside changes" in docs/live.md);
 *     on the others they wait until a change has ended.
 *   Changes (kith_index_add, _update, _upsert, _remove, _remove_filter, _compact, _split, _merge and _reset) follow one
 *     another: any number of threads may ask for one, each waits for those before it. What they replace is freed after
 *     the last search that may read it. A change may have to wait for searches that are under way, now and then.
 *   kith_index_save, _clone, _reconstruct, _memory, _memory_for, _list_sizes and _graph_stats, and merging from an index,
 *     wait for a change that is under way and keep others waiting; searches go on. What they give is the index between two
 *     changes.
 *   The questions what an index is (kith_index_dim to kith_index_spec, kith_index_param) never wait.
 * Between two calls of one thread others may change the index: k vectors, say, may have become fewer. A callback of a
 * search (filter, group, progress) may search any index, and of those that this thread is searching use nothing else, as a
 * change waits for the searches; one of a change (progress, filter) may search the same index where searches never wait;
 * all else of the same one is KITH_ERR_ARGUMENT. Both may use other indexes; that no two then wait for each other is the
 * caller's to see to. After a fork the child has all indexes; one that another thread was changing at that moment, or
 * saving, cloning or whatever else waits for changes, it may search where searches never wait, and nothing else.
 * Errors: a failed call leaves the index as it was (memory set aside for growth may stay); outputs that are one
 * pointer or one number are NULL or 0 then. A NULL where none is allowed is KITH_ERR_ARGUMENT, but the calls that
 * only ask what an index is (kith_index_dim to kith_index_spec) need one.
 */
#ifndef KITH_INDEX_H
#define KITH_INDEX_H

#include "kith/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kith_index kith_index;
/* Which ids are allowed, below. Immutable; may serve any number of searches at once, of any index; has to outlive them.
 * One that allows few ids makes a search cheaper, except a callback, whose answers nobody knows beforehand. */
typedef struct kith_filter kith_filter;

/* ---- Life ---------------------------------------------------------------------------------------------- */

/* Makes an empty index. `spec` is a factory string: "Flat" (stores f32), "Flat,f16", "Flat,bf16", "Flat,i8",
 * "Flat,u8"; a code alone, searched exhaustively: "SQ8"; or inverted lists of a code: "IVF1024,SQ8". "IVF,SQ8" takes
 * about 4 sqrt(n) lists for n training vectors, and the spec then has their number. A d after it ("IVF1024d,SQ8") has
 * vectors coded as they are: what is coded is the residual to the list's centroid else, but for raw codes ("Flat",
 * "f16"). Transforms may stand before a structure, and behind it vectors that set its estimates right:
 * "PCA64,IVF1024,SQ8,RFlat"; docs/specs.md has all. `dim` is 1..KITH_DIM_MAX; the metric l2, ip or cosine. Free *out
 * with kith_index_free.
 * Errors: KITH_ERR_ARGUMENT with the character of the spec that was not understood; KITH_ERR_UNSUPPORTED for the
 * metric hamming. */
KITH_API kith_status kith_index_create(const char *spec, size_t dim, kith_metric metric,
                                       kith_index **out) KITH_CHECK_RESULT;
/* The same for `count` vectors that shall take at most memory_bytes_max bytes as kith_index_memory_for tells them, with
 * has_ids as there; 0: no bound. "HNSW" without a number, alone or with an element type, stands for one of a few graphs,
 * the largest first (docs/graph.md, "Within a budget"), and *out is the first that fits, with the most that it may learn:
 * kith_index_spec says which. Any other spec stands for itself.
 * Errors: those of kith_index_create and kith_index_memory_for; KITH_ERR_BUDGET says how many bytes the smallest takes;
 * KITH_ERR_EMPTY for no vectors. */
KITH_API kith_status kith_index_create_within(const char *spec, size_t dim, kith_metric metric, size_t count,
                                              int has_ids, uint64_t memory_bytes_max,
                                              kith_index **out) KITH_CHECK_RESULT;
/* Takes NULL. */
KITH_API void kith_index_free(kith_index *index);
/* A deep copy, independent of the original. That of a mapped index lies in memory and can be changed; what loading
 * checks is checked first (KITH_ERR_FORMAT). */
KITH_API kith_status kith_index_clone(const kith_index *index, kith_index **out) KITH_CHECK_RESULT;

/* ---- What it is ---------------------------------------------------------------------------------------- */

KITH_API size_t kith_index_dim(const kith_index *index);
KITH_API size_t kith_index_count(const kith_index *index); /* live vectors */
KITH_API kith_metric kith_index_metric(const kith_index *index);
KITH_API kith_dtype kith_index_dtype(const kith_index *index); /* of the stored vectors */
KITH_API int kith_index_is_trained(const kith_index *index);
KITH_API int kith_index_is_mapped(const kith_index *index); /* 1: read-only, in place in a file */
/* The canonical spec, which kith_index_create takes. Owned by the index. */
KITH_API const char *kith_index_spec(const kith_index *index);

/* Memory by part. Writes up to `capacity` parts and the number that exist to *count; parts may be NULL. */
typedef struct kith_memory_part {
    const char *name; /* "vectors", "norms", "ids", ...: static */
    uint64_t bytes;   /* allocated, not only used; mapped bytes count as well */
} kith_memory_part;
KITH_API kith_status kith_index_memory(const kith_index *index, kith_memory_part *parts, size_t capacity,
                                       size_t *count) KITH_CHECK_RESULT;

/* What these parts will add up to with `count` vectors, added in one call to the index while it is empty, under the ids
 * 0, 1, ..., or (has_ids not 0) under ids that do not rise, which take the most: 8 bytes in each half of a refinement, and
 * the way back from an id. Exact but for what the index is still to learn when it is not trained. Each addition of a few
 * vectors to a graph of many makes it up to 4.5 bytes a vector more.
 * Errors: KITH_ERR_OVERFLOW for more vectors than it can hold; KITH_ERR_UNSUPPORTED where the memory depends on the
 * vectors (inverted lists), or is not told (transforms, RFile). */
KITH_API kith_status kith_index_memory_for(const kith_index *index, size_t count, int has_ids,
                                           uint64_t *bytes) KITH_CHECK_RESULT;

/* Vectors in each inverted list. Writes up to `capacity` numbers and that of the lists to *count, which is 0 for an
 * index without lists; sizes may be NULL. */
KITH_API kith_status kith_index_list_sizes(const kith_index *index, uint64_t *sizes, size_t capacity,
                                           size_t *count) KITH_CHECK_RESULT;

/* What the links of a graph look like. */
typedef struct kith_graph_stats {
    size_t size;              /* sizeof(kith_graph_stats) as the caller knows it */
    uint64_t node_count;      /* stored vectors, and removed ones that still lead on */
    uint64_t degree_max;      /* most links that a node may have */
    uint64_t link_count;      /* of all nodes */
    uint64_t mutual_count;    /* of these: links that are returned */
    uint64_t in_degree_max;   /* most links that lead to one node */
    uint64_t unlinked_count;  /* nodes that no link leads to, entries not counted */
    uint64_t entry_count;     /* nodes at which searches begin */
    uint64_t reachable_count; /* nodes that can be reached from the entries; the others are never found */
    uint64_t hops_max;        /* links on the shortest way from an entry to the farthest reachable node */
    double hops_mean;         /* the same on average over the reachable nodes */
} kith_graph_stats;
/* Follows all links of an index with a graph: time grows with their number, scratch memory is 12 bytes a node. Set
 * stats->size first. degrees[d] becomes the number of nodes with d links, for d below `capacity`; *count is
 * degree_max + 1, how many such numbers there are. degrees may be NULL when capacity is 0, count always.
 * Errors: KITH_ERR_UNSUPPORTED for an index without a graph; KITH_ERR_NO_MEMORY. */
KITH_API kith_status kith_index_graph_stats(const kith_index *index, kith_graph_stats *stats, uint64_t *degrees,
                                            size_t capacity, size_t *count) KITH_CHECK_RESULT;

/* How far ahead searches of a graph ask for memory, and how they share a core: speed alone, never what they find. Kept
 * in the file where it is not the default; kith_prefetch_tune (kith/tune.h) measures what is best here. */
typedef struct kith_prefetch {
    size_t size;    /* sizeof(kith_prefetch) as the caller knows it */
    uint32_t links; /* default 2: how many nodes' links are asked for when one is chosen: its own, and those of the
                           nodes behind it in the pool. 0..8 */
    uint32_t
        row_lines; /* default 8: cache lines of each vector that is to be compared; the hardware follows longer ones
                           by itself. 0..64 */
    uint32_t walks; /* default 2: queries of a batch that a thread answers in turns. 1..8 */
} kith_prefetch;
KITH_API void kith_prefetch_init(kith_prefetch *prefetch); /* the defaults */
/* What an index with a graph has; set prefetch->size first. KITH_ERR_UNSUPPORTED for an index without a graph. */
KITH_API kith_status kith_index_prefetch(const kith_index *index, kith_prefetch *prefetch) KITH_CHECK_RESULT;
/* Of a mapped index for as long as it is open. NULL: the defaults. KITH_ERR_ARGUMENT for numbers out of range. */
KITH_API kith_status kith_index_set_prefetch(kith_index *index, const kith_prefetch *prefetch) KITH_CHECK_RESULT;

/* ---- Filling ------------------------------------------------------------------------------------------- */

/* Learns what the structure needs from a sample. The sample is checked as vectors to be added are, also by a
 * structure that needs no training (Flat), which then does nothing. KITH_ERR_EMPTY for a sample without rows.
 * Inverted lists: KITH_ERR_ARGUMENT for fewer vectors than lists, and for an index that holds vectors. All or nothing;
 * what was learnt before is forgotten. job: threads, seed, progress (phase "k-means" and those of the code),
 * memory_bytes_max (the sample as f32; KITH_ERR_BUDGET). */
KITH_API kith_status kith_index_train(kith_index *index, const kith_view *sample,
                                      const kith_job *job) KITH_CHECK_RESULT;
/* How many rows training makes good use of: more hardly help, fewer cost quality. 0 for a structure that needs no
 * training, and for NULL. kith_vectors_sample draws them. */
KITH_API size_t kith_index_train_count(const kith_index *index);

/* Adds vectors of any accepted element type; they are converted to the stored one: f32 to f16 or bf16 rounds to
 * nearest even (KITH_ERR_RANGE when the result would be infinite); to i8 and u8 only values that the type holds
 * exactly are taken (KITH_ERR_RANGE else). What is checked is the vector as it will be stored.
 * `ids`: count distinct ids in 0..KITH_ID_MAX, or NULL to number on from the largest id that the index has held
 * since it was made or reset (from 0; KITH_ERR_OVERFLOW past KITH_ID_MAX).
 * Errors: KITH_ERR_EMPTY for a view without rows; KITH_ERR_EXISTS for an id that is there already or twice in the
 * call; KITH_ERR_NOT_FINITE, KITH_ERR_ZERO_VECTOR, KITH_ERR_RANGE name the first such row; KITH_ERR_READ_ONLY when
 * mapped; KITH_ERR_CANCELLED. All or nothing. */
KITH_API kith_status kith_index_add(kith_index *index, const kith_view *vectors, const int64_t *ids,
                                    const kith_job *job) KITH_CHECK_RESULT;
/* Removes the vectors with these ids. Ids that are not there, or stand twice, are passed over; *removed (may be
 * NULL) says how many went. No ids at all is no error. All or nothing. */
KITH_API kith_status kith_index_remove(kith_index *index, const int64_t *ids, size_t count,
                                       size_t *removed) KITH_CHECK_RESULT;
/* Replaces the vectors of `vectors->count` distinct ids that are there (KITH_ERR_NOT_FOUND else;
 * KITH_ERR_ARGUMENT for an id that stands twice). Converted and checked as in kith_index_add. All or nothing. */
KITH_API kith_status kith_index_update(kith_index *index, const kith_view *vectors,
                                       const int64_t *ids) KITH_CHECK_RESULT;
/* Adds vectors as kith_index_add does, and replaces those whose ids are there: `ids` are needed, and distinct
 * (KITH_ERR_ARGUMENT else). *replaced (may be NULL) says how many were there. All or nothing. */
KITH_API kith_status kith_index_upsert(kith_index *index, const kith_view *vectors, const int64_t *ids,
                                       const kith_job *job, size_t *replaced) KITH_CHECK_RESULT;
/* Removes the vectors whose ids a filter allows; *removed (may be NULL) says how many. All or nothing. */
KITH_API kith_status kith_index_remove_filter(kith_index *index, const kith_filter *filter,
                                              size_t *removed) KITH_CHECK_RESULT;
/* Takes out what removals and updates have left: removed nodes of a graph, whose neighbours are linked past them, room
 * in lists and tables, maps of ids that can be made again. What the index holds stays as it is. Needs memory for a
 * while, of inverted lists for all of them once more; KITH_ERR_NO_MEMORY leaves the index as it was, or in part
 * compacted. */
KITH_API kith_status kith_index_compact(kith_index *index) KITH_CHECK_RESULT;
/* Moves the vectors whose ids a filter allows into an index of their own, *out, with the same training. Needs memory
 * for a copy of the index for a while. All or nothing. */
KITH_API kith_status kith_index_split(kith_index *index, const kith_filter *filter,
                                      kith_index **out) KITH_CHECK_RESULT;
/* Adds all vectors of `from`, each under its id + id_shift (0 or more). `from` stays as it is and may be mapped.
 * Codes are not made anew, so it is for an index that was filled in parts, each part in a clone of the same trained,
 * empty index. A graph adds the vectors of the other one as new ones, for which they are held as f32 for a while; so
 * does a graph of codes with vectors behind it. One that has codes alone cannot: KITH_ERR_UNSUPPORTED. A mapped `from`
 * is verified first (KITH_ERR_FORMAT).
 * Errors: KITH_ERR_ARGUMENT for an index of another spec, dimension, metric or training, or `into` itself;
 * KITH_ERR_EXISTS for an id that is there already; KITH_ERR_OVERFLOW for one past KITH_ID_MAX. All or nothing. */
KITH_API kith_status kith_index_merge(kith_index *into, const kith_index *from, int64_t id_shift) KITH_CHECK_RESULT;
/* Drops all vectors, keeps what was trained; ids are numbered from 0 again. */
KITH_API kith_status kith_index_reset(kith_index *index) KITH_CHECK_RESULT;
/* Writes the stored vectors of `count` ids, in any order, repeats allowed, as f32, count x dim; under cosine, too,
 * as they were given, not normalised. What a code stores comes back as the code has it, and under cosine, raw codes
 * among them, normalised. KITH_ERR_NOT_FOUND names a missing id; nothing is written then. A mapped index whose ids do
 * not rise from row to row (after removals), and inverted lists from which nothing has been removed yet, have to scan
 * all ids for this. */
KITH_API kith_status kith_index_reconstruct(const kith_index *index, const int64_t *ids, size_t count,
                                            float *out) KITH_CHECK_RESULT;

/* Names the file of the vectors that an index refines by ("IVF4096,PQ32x4fs,RFile"): any vector file of f32, f16,
 * bf16, i8 or u8 that can be mapped as it is; it is only read, when a search compares candidates, and has to stay as
 * it is. Ids are its rows. Needed before adding, whose vectors have to be those rows (KITH_ERR_RANGE,
 * KITH_ERR_ARGUMENT), and after every load or map, for an index file names none; until then searches are
 * KITH_ERR_NOT_FOUND. Such an index cannot be updated or merged, and kith_index_reconstruct gives any row of the
 * file, whether it is in the index or not. Attached again, the file from before is let go; on failure it stays.
 * Errors: KITH_ERR_UNSUPPORTED for any other index; KITH_ERR_DIMENSION; KITH_ERR_TYPE; KITH_ERR_FORMAT for a file of
 * other rows than the index was made with (their number, their type, 256 of them are held against it); those of
 * kith_vectors_open. */
KITH_API kith_status kith_index_attach_vectors(kith_index *index, const char *path) KITH_CHECK_RESULT;
/* 1 for an index that refines by a file, attached or not. */
KITH_API int kith_index_wants_vectors(const kith_index *index);

/* ---- Filters: which ids a search may return ------------------------------------------------------------ */

/* Ids i with bit (i % 64) of words[i / 64] set; ids at or past bit_count are not allowed. The words are copied. */
KITH_API kith_status kith_filter_bitset(const uint64_t *words, size_t bit_count,
                                        kith_filter **out) KITH_CHECK_RESULT;
/* The listed ids, 0..KITH_ID_MAX, in any order, repeats allowed. Copied. */
KITH_API kith_status kith_filter_ids(const int64_t *ids, size_t count, kith_filter **out) KITH_CHECK_RESULT;
/* Ids with first <= id < last; none when last <= first. */
KITH_API kith_status kith_filter_range(int64_t first, int64_t last, kith_filter **out) KITH_CHECK_RESULT;
/* Ids for which allow(user, id) is not 0. Called from the searching threads, at most once per id and query, or twice
 * where inverted lists hold each vector twice ("IVF1024s"); a graph asks about some 1,000 ids more in each call, to
 * learn how many are allowed, and where few are, or few around a query, it asks about all of them once; inverted lists do the
 * same list by list, where several threads that come to a list at once may each ask about all of it. */
typedef int (*kith_filter_fn)(void *user, int64_t id);
KITH_API kith_status kith_filter_callback(kith_filter_fn allow, void *user, kith_filter **out) KITH_CHECK_RESULT;
/* Ids that all of `count` filters allow, that at least one of them allows, or that one does not. The new filter shares
 * its parts: they may be freed at once, and stay as long as it does. Callbacks among the parts are asked last, and only
 * about ids that the others leave open.
 * Errors: KITH_ERR_ARGUMENT for no parts, for a part that is NULL (it is named), and for filters of filters more than
 * KITH_FILTER_DEPTH_MAX deep. */
#define KITH_FILTER_DEPTH_MAX 64
KITH_API kith_status kith_filter_and(const kith_filter *const *parts, size_t count,
                                     kith_filter **out) KITH_CHECK_RESULT;
KITH_API kith_status kith_filter_or(const kith_filter *const *parts, size_t count,
                                    kith_filter **out) KITH_CHECK_RESULT;
KITH_API kith_status kith_filter_not(const kith_filter *part, kith_filter **out) KITH_CHECK_RESULT;
KITH_API void kith_filter_free(kith_filter *filter);

/* ---- Search -------------------------------------------------------------------------------------------- */

/* Scratch memory that a thread keeps between its searches, so that they allocate nothing once it has grown to
 * its size; for searches on several threads some for each of these, which grows with the largest part of a call that this
 * thread has had. Serves any index, one search at a time: KITH_ERR_ARGUMENT for a second one meanwhile. */
typedef struct kith_search_context kith_search_context;
KITH_API kith_status kith_search_context_create(kith_search_context **out) KITH_CHECK_RESULT;
KITH_API void kith_search_context_free(kith_search_context *context);

/* How a filter was met. */
typedef enum kith_search_strategy {
    KITH_STRATEGY_ALL = 0,     /* there was none */
    KITH_STRATEGY_TESTED = 1,  /* Flat: all vectors were compared, and those near enough tested */
    KITH_STRATEGY_LISTED = 2,  /* the allowed vectors were compared, one and all */
    KITH_STRATEGY_BRIDGED = 3, /* graphs: a walk over allowed nodes, across the others */
    KITH_STRATEGY_ASKED = 4,   /* graphs: a walk over all nodes, wider by as much as fewer are allowed */
    KITH_STRATEGY_LISTS = 5 /* inverted lists: those that hold something allowed, more of them where it is little */
} kith_search_strategy;
/* "all", "tested", ...; "?" for another number. Static. */
KITH_API const char *kith_search_strategy_name(kith_search_strategy strategy);

/* What cut a query short: bits. */
#define KITH_LIMIT_DISTANCES 1 /* max_distances */
#define KITH_LIMIT_DEADLINE  2 /* deadline_us: the row holds what had been found, or nothing */

/* What one query took. */
typedef struct kith_search_report {
    uint64_t visited;   /* vectors that were looked at, if only by the filter. Graphs: nodes met */
    uint64_t distances; /* of these: compared with the query */
    uint64_t hops;      /* graphs: nodes whose links were followed */
    uint64_t lists;     /* inverted lists that were read */
    uint64_t refined;   /* candidates of a refinement */
    uint32_t strategy;  /* kith_search_strategy */
    uint32_t limits;    /* KITH_LIMIT_... */
} kith_search_report;

/* Parameters of one call. NULL stands for the defaults. Initialise with kith_search_params_init. */
typedef struct kith_search_params {
    size_t size;                  /* sizeof(kith_search_params) as the caller knows it */
    size_t threads;               /* default 1; 0: all processors; 1..1024. Results are the same at any count */
    const kith_filter *filter;    /* default NULL: every id is allowed */
    kith_search_context *context; /* default NULL: scratch is allocated for the call */
    uint64_t max_distances;       /* default 0: no bound; else at most so many distances per query (Flat: the
                                     first so many rows are looked at) */
    kith_progress_fn progress;    /* default NULL */
    void *progress_user;
    size_t nprobe; /* inverted lists: how many of the nearest lists are searched; more than there are: all of them;
                        under a filter lists that hold something allowed count, and more of them where that is
                        little. Default 0: the index's own default, which kith_index_param tells */
    size_t
        k_factor; /* refinement: k x k_factor candidates are compared again, exactly; by a range search, at least so many
                     for each hit. Default 0: the index's own, and twice that under a filter */
    size_t ef; /* graphs, and inverted lists that a graph finds: how many of the nearest nodes are followed; where k
                        is larger, k are kept all the same. Default 0: the index's own, and more under a filter that
                        allows few */
    size_t
        error_percent; /* refinement of codes that know their error (RaBitQ in lists or alone): of the k x k_factor
                             candidates those alone are compared that can still be among the k nearest when their
                             estimates are off by so many hundredths of that error. Default 0: all are compared */
    uint64_t deadline_us; /* default 0: none; else queries that are not answered so many microseconds after the call
                             began are cut short. It is looked at every 16 hops (graphs), between lists, or tiles (Flat). A
                             call that cut any short ends with KITH_ERR_INCOMPLETE, with all outputs filled, unless
                             `reports` takes the news */
    kith_search_report *reports; /* default NULL; else one per query of kith_index_search. Zeroed when it fails */
    size_t early; /* inverted lists, l2 and cosine: each query stops by itself before nprobe lists. After the first
                        1 + nprobe / 32 the next list, of rank p from 1 on, is read only while p (C / D)^4 <= early; C is the
                        squared distance of its centroid, D that of the worst of the k results so far, k_factor times as many
                        under a refinement. Default 0: nprobe lists are read */
    size_t
        stop_percent; /* graphs: a walk ends before ef nodes have been followed, at the first one that is further away than so
                         many per cent of the k-th nearest found so far. Distances are squared (l2; cosine: of vectors of
                         length 1); under ip it ends where the product is less by (stop_percent - 100) % of the k-th,
                         or below 0. Range searches, and filters that are asked about each node, do without. Up to 10000;
                         default 0: ef nodes are followed */
} kith_search_params;

KITH_API void kith_search_params_init(kith_search_params *params);
/* Sets a parameter by its name to a whole number in decimal digits, as the command line's --set does. Every index
 * has "threads" and "max_distances"; kith_index_param lists them.
 * KITH_ERR_NOT_FOUND lists the names that this index has; KITH_ERR_ARGUMENT gives the range. */
KITH_API kith_status kith_search_params_set(kith_search_params *params, const kith_index *index, const char *name,
                                            const char *value) KITH_CHECK_RESULT;

/* The parameters that an index has: what a sweep may vary. Static storage. */
typedef struct kith_search_param {
    const char *name;
    const char *help; /* one line, without a full stop */
    uint64_t min, max, default_value;
} kith_search_param;
KITH_API size_t kith_index_param_count(const kith_index *index);
/* Parameter i, or NULL from kith_index_param_count on. */
KITH_API const kith_search_param *kith_index_param(const kith_index *index, size_t i);

/* The k nearest of each query, nearest first, ties by lower id. A query's result depends on the index, the query
 * and k alone: not on the other queries of the call, on threads, or on whether the index is mapped.
 *   queries    any accepted element type, of the index's dimension. They are not converted to the stored type:
 *              u8 x u8 and i8 x i8 are computed exactly in integers, all other pairs in f32 (exact too as long as
 *              every sum stays below 2^24: u8 values given as f32 then find the same)
 *   k          1..kith_index_count(index)
 *   ids        queries->count x k; KITH_NO_ID pads
 *   distances  queries->count x k, or NULL; in the metric's own terms; padded with +infinity (l2) or -infinity
 *   counts     queries->count: how many results each row holds; fewer than k only under a filter or a bound.
 *              May be NULL: a row with fewer than k then makes the call end with KITH_ERR_INCOMPLETE, with all
 *              outputs filled. Padding is never silent.
 * Errors: KITH_ERR_NOT_TRAINED; KITH_ERR_EMPTY for an index or a view without vectors; KITH_ERR_DIMENSION,
 * KITH_ERR_TYPE; KITH_ERR_NOT_FINITE, KITH_ERR_RANGE, KITH_ERR_ZERO_VECTOR name the first such query. When a call
 * fails after its arguments have passed (memory, cancelled, a bad value in a query), all rows are padding and all
 * counts 0. */
KITH_API kith_status kith_index_search(const kith_index *index, const kith_view *queries, size_t k,
                                       const kith_search_params *params, int64_t *ids, float *distances,
                                       size_t *counts) KITH_CHECK_RESULT;

/* The k nearest groups of each query, each as its nearest vector: chunks of documents, say, where group(user, id) is the
 * document of a chunk. Vectors of KITH_NO_GROUP, or any number below 0, are passed over. `group` is called from the
 * searching threads, and gives an id the same group for as long as the call lasts.
 * Nearest first, ties by lower id; k groups, as long as there are so many (under the filter): a query whose nearest
 * vectors belong to fewer is searched again, for vectors of other groups. As near as kith_index_search finds them.
 *   k          1..kith_index_count(index)
 *   ids        queries->count x k; KITH_NO_ID pads
 *   groups     queries->count x k, or NULL; KITH_NO_GROUP pads
 *   distances, counts, params, errors: as in kith_index_search, with groups for results. max_distances bounds each of
 *              a query's searches. Progress is that of 256 queries at a time */
#define KITH_NO_GROUP ((int64_t)-1)
typedef int64_t (*kith_group_fn)(void *user, int64_t id);
KITH_API kith_status kith_index_search_groups(const kith_index *index, const kith_view *queries, size_t k,
                                              kith_group_fn group, void *user, const kith_search_params *params,
                                              int64_t *ids, int64_t *groups, float *distances,
                                              size_t *counts) KITH_CHECK_RESULT;

/* All vectors within `radius` of each query: value <= radius for l2, value >= radius for ip and cosine; nearest
 * first, ties by lower id. Inverted lists, graphs and refinements may miss some, as kith_index_search may: what is
 * found is in the radius by the index's own distances, which a refinement takes from its exact half. The radius may be
 * infinite, not NaN (KITH_ERR_ARGUMENT). Other errors as in kith_index_search. Reports are not
 * written; past a deadline the call ends with KITH_ERR_INCOMPLETE, and *out has what had been found. Free *out with
 * kith_range_result_free. */
typedef struct kith_range_result {
    size_t query_count;
    size_t *limits;   /* query_count + 1: query i has results limits[i] .. limits[i + 1] - 1 */
    int64_t *ids;     /* limits[query_count] */
    float *distances; /* limits[query_count] */
} kith_range_result;
KITH_API kith_status kith_index_range_search(const kith_index *index, const kith_view *queries, float radius,
                                             const kith_search_params *params,
                                             kith_range_result **out) KITH_CHECK_RESULT;
KITH_API void kith_range_result_free(kith_range_result *result);

/* ---- Files --------------------------------------------------------------------------------------------- */

/* Writes the index to `path`, all or nothing: into a temporary file beside it, synced, then renamed. An
 * index made by the same calls gives the same bytes, at any thread count, on every machine. KITH_ERR_IO. */
KITH_API kith_status kith_index_save(const kith_index *index, const char *path) KITH_CHECK_RESULT;
/* Reads an index into memory. Every checksum is verified, and that the content is that of an index: vectors finite
 * and in range, ids distinct. KITH_ERR_IO, KITH_ERR_FORMAT, KITH_ERR_CHECKSUM or KITH_ERR_VERSION name file,
 * section and value. */
KITH_API kith_status kith_index_load(const char *path, kith_index **out) KITH_CHECK_RESULT;
/* Uses the file in place, read-only, in milliseconds whatever its size: header, section table and sizes are
 * checked; the checksums of large sections and the content of vectors and ids are not (kith_file_verify does that).
 * A file that lies there gives wrong results, never a crash. Changes are KITH_ERR_READ_ONLY. The file may be
 * replaced or unlinked meanwhile, but not cut. */
KITH_API kith_status kith_index_map(const char *path, kith_index **out) KITH_CHECK_RESULT;
/* Reads the whole file and checks all that loading checks, without a copy of the vectors in memory. */
KITH_API kith_status kith_file_verify(const char *path) KITH_CHECK_RESULT;

/* A section of an index file: docs/format.md says what each holds. */
typedef struct kith_file_section {
    char tag[9];       /* 8 characters and a NUL */
    uint32_t instance; /* tells parts of one kind apart */
    uint32_t version;
    int is_skippable; /* 1: a reader that does not know the tag passes over it */
    uint64_t offset, bytes;
} kith_file_section;
/* The table of an index file, in the order of the file. Writes up to `capacity` sections and the number that exist
 * to *count; sections may be NULL. Only the header and the table are read and checked. */
KITH_API kith_status kith_file_sections(const char *path, kith_file_section *sections, size_t capacity,
                                        size_t *count) KITH_CHECK_RESULT;

#ifdef __cplusplus
}
#endif
#endif
