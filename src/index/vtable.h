/* SPDX-License-Identifier: Apache-2.0
 *
 * vtable.h: what a structure (flat, ivf, hnsw, a wrapper) has to do to be an index.
 *
 * The public calls in index.c, search.c and save.c check everything once: views, types, dimensions, finite
 * values, norms, id ranges, k, sizes. A structure sees good input only and holds no argument checks of its own;
 * left to it is what it alone knows: which ids it holds, and its memory. Every change is all or nothing. One change runs
 * at a time; searches may run beside it, on an index that does not change: live.h says how, and what `concurrent` asks of
 * a structure.
 */
#ifndef KITH_INDEX_VTABLE_H
#define KITH_INDEX_VTABLE_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/epoch.h"
#include "base/parallel.h"
#include "base/topk.h"
#include "exact/exact.h"
#include "index/filter.h"
#include "index/param.h"
#include "io/container.h"
#include "kith/index.h"

enum {
    KITH_SPEC_BYTES_MAX = 256, /* a canonical spec with its final zero */
    KITH_SPEC_SPARE = 32, /* of these a wrapper leaves for numbers that training chooses: "IVF" becomes "IVF512" */
    KITH_TRAIN_COUNT = 65536 /* rows that a code is trained on */
};

typedef struct kith_index_vtable kith_index_vtable;

/* The part that every index begins with. */
struct kith_index {
    const kith_index_vtable *vtable;
    size_t dim;
    kith_metric metric;
    kith_dtype dtype; /* of the stored vectors */
    size_t count;     /* live vectors: the structure keeps it */
    int64_t next_id;  /* one more than the largest id ever held; index.c keeps it */
    bool is_trained;
    bool is_mapped;         /* the content lies in a mapped file: read-only */
    struct kith_live *live; /* of the outermost index; NULL: one thread alone uses it. See live.h */
    kith_container *file;   /* what kith_index_free closes: the mapped file, for the outermost index; else NULL */
    /* The search parameters it reads: the vtable's; or, where defaults or names depend on the index, a list of its
     * own that lies in it. */
    const kith_param *params;
    size_t param_count;
    char spec[KITH_SPEC_BYTES_MAX];
};

/* New vectors. `view` has a stride; all rows are finite, in range and convertible to the stored type. */
typedef struct kith_addition {
    kith_view view;
    const int64_t *ids; /* distinct, 0..INT64_MAX - 1; NULL: first_id, first_id + 1, ... (none of them held) */
    int64_t first_id;
    bool ids_rise; /* each id is larger than the one before (so it is too when ids is NULL) */
    const kith_job *job;
} kith_addition;

/* One call of search, or a part of its queries. */
typedef struct kith_search_request {
    kith_view queries; /* checked, with a stride */
    size_t k;          /* 1..count; range search: 0 */
    size_t wanted;     /* so many of the k will be kept, once they have been compared again; 0: that is not known */
    float radius;      /* range search only; not NaN */
    size_t threads;    /* at least 1 */
    const kith_search_params *params; /* of the library's own size, defaults filled in */
    const kith_filter *filter;        /* NULL: every id is allowed */
    kith_meter *meter;                /* counts queries x vectors; says when a deadline has passed */
    kith_search_report *reports; /* one per query, zeroed but for KITH_LIMIT_DEADLINE where there is a deadline;
                                         NULL: nobody asks */
    kith_arena *arena;           /* begun; good until the end of the call */
} kith_search_request;

/* How many candidates the index keeps for each query when k are asked for: k, or where it has the parameter k_factor
 * so many times k; at most its count. */
size_t kith_search_candidates(const kith_index *index, const kith_search_params *params, size_t k);
/* The value of k_factor, or its default; 1 without this parameter. */
size_t kith_search_k_factor(const kith_index *index, const kith_search_params *params);

/* Where results go: row q of the outputs of this request. */
typedef struct kith_search_results {
    size_t k;
    int64_t *ids;     /* queries x k */
    float *distances; /* queries x k, or NULL */
    size_t *counts;   /* queries, or NULL */
    float *errors; /* queries x k: how far each distance may lie from that of the vector itself; NULL: not asked. Of
                         an index that bounds_errors alone */
} kith_search_results;

/* A key in the metric's own terms. */
typedef float (*kith_key_value_fn)(const void *context, int32_t key);

/* Sorts the selections, one per query of the request, and writes them out. */
kith_status kith_search_emit(const kith_index *index, const kith_search_request *request,
                             const kith_search_results *results, kith_topk *tops, kith_key_value_fn value,
                             const void *context);

/* The `count` results of one query, at most k, that are sorted already. */
void kith_search_emit_hits(const kith_index *index, const kith_search_results *results, size_t query,
                           const kith_hit *hits, size_t count, kith_key_value_fn value, const void *context);

/* The selection of one query, on the caller's thread. */
void kith_search_emit_query(const kith_index *index, const kith_search_results *results, size_t query,
                            kith_topk *top, kith_key_value_fn value, const void *context);

/* What a loop over queries ended with: a deadline that has passed is no failure, what was found is emitted. */
kith_status kith_search_unless_late(const kith_search_request *request, kith_status status);
/* A query has been answered whole. */
static inline void kith_search_answered(const kith_search_request *request, size_t query) {
    if (request->reports != NULL) request->reports[query].limits &= ~(uint32_t)KITH_LIMIT_DEADLINE;
}

/* Hits of a range search: one list per query, zeroed by the caller, who sorts and frees the hits, after a failure
 * as well. */
typedef struct kith_range_lists {
    kith_hit_list *lists;
    kith_key_value_fn value; /* set by the structure; `context` lies in the request's arena */
    const void *context;
} kith_range_lists;

/* A change of an index in two halves: see stage. What it points to stays until it is settled. */
typedef enum kith_change_kind {
    KITH_CHANGE_TRAIN,
    KITH_CHANGE_ADD,
    KITH_CHANGE_REMOVE,
    KITH_CHANGE_UPDATE,
    KITH_CHANGE_UPSERT,
    KITH_CHANGE_MERGE
} kith_change_kind;

typedef struct kith_change {
    kith_change_kind kind;
    const kith_addition *addition; /* add, upsert */
    const kith_view *vectors;      /* train: the sample; update */
    const int64_t *ids;            /* remove, update */
    size_t count;                  /* of ids */
    const kith_job *job;           /* train */
    const kith_index *from;        /* merge: see the vtable's merge */
    int64_t id_shift;              /* merge */
} kith_change;

typedef struct kith_staged kith_staged; /* each structure has its own */

/* Candidates of each query of a request: row q of ids, of which the first counts[q] stand for vectors, all distinct. */
typedef struct kith_candidates {
    const int64_t *ids; /* queries x per_query */
    size_t per_query;
    const size_t *counts; /* queries */
    /* queries x per_query, in the metric's terms: no candidate is nearer than its bound. Those that cannot be among the
     * k nearest for that need not be looked at. NULL: nothing is known. */
    const float *bounds;
} kith_candidates;

/* Fills the common part of an empty index whose memory is zeroed. `spec` is canonical. */
void kith_index_init(kith_index *index, const kith_index_vtable *vtable, size_t dim, kith_metric metric,
                     kith_dtype dtype, const char *spec);

enum { KITH_INNER_MAX = 2 };

struct kith_index_vtable {
    const char *name; /* as in a spec: "Flat" */
    /* What a view of the index is: see live.h. */
    size_t struct_bytes; /* of the structure's own struct, which begins with kith_index */
    size_t inner_offsets
        [KITH_INNER_MAX]; /* where it points to the indexes that it is made of, and that change with it */
    size_t inner_count;
    bool concurrent; /* keeps the rules of live.h, so that searches run beside changes */
    /* From now on memory that views refer to is retired there; NULL: there are no views. NULL: nothing to be told. */
    void (*set_epoch)(kith_index *index, kith_epoch *epoch);
    const kith_param *params;
    size_t param_count;

    /* Frees what the structure holds and the index itself, but not `file`; takes half-built ones. */
    void (*release)(kith_index *index);
    /* A copy in memory, complete but for the common part, which index.c copies. A mapped original is verified. */
    kith_status (*clone)(const kith_index *index, kith_index **out);
    /* The same without the vectors: what was trained. There where merge is, or NULL. */
    kith_status (*clone_empty)(const kith_index *index, kith_index **out);
    /* Writes at most `capacity` parts and returns how many there are. */
    size_t (*memory)(const kith_index *index, kith_memory_part *parts, size_t capacity);
    /* Adds to *bytes what these parts would be with `count` vectors: kith_index_memory_for. NULL: it depends on the
     * vectors. */
    kith_status (*memory_for)(const kith_index *index, size_t count, bool has_ids, uint64_t *bytes);
    /* The vectors of each inverted list: writes at most `capacity` numbers and returns how many lists there are. A
     * wrapper hands it on. NULL: no lists. */
    size_t (*list_sizes)(const kith_index *index, uint64_t *sizes, size_t capacity);

    /* What kith_index_graph_stats tells; `stats` is zeroed but for its size, `degrees` has room for `capacity` numbers. A
     * wrapper hands it on by kith_index_graph_stats_inner. NULL: no graph. */
    kith_status (*graph_stats)(const kith_index *index, kith_graph_stats *stats, uint64_t *degrees,
                               size_t capacity);

    /* Where the settings of its walks are. A wrapper hands it on by kith_index_prefetch_inner. NULL: no graph. */
    kith_prefetch *(*prefetch)(kith_index *index);

    /* NULL: needs no training. */
    kith_status (*train)(kith_index *index, const kith_view *sample, const kith_job *job);
    /* How many rows training makes good use of. NULL: KITH_TRAIN_COUNT where there is training. */
    size_t (*train_count)(const kith_index *index);
    /* KITH_ERR_EXISTS for an id that is held. */
    kith_status (*add)(kith_index *index, const kith_addition *addition);
    /* `ids` as the caller gave them: unknown and repeated ones are passed over. */
    kith_status (*remove)(kith_index *index, const int64_t *ids, size_t count, size_t *removed);
    /* KITH_ERR_NOT_FOUND for an id that is not held. The ids are distinct. */
    kith_status (*update)(kith_index *index, const kith_view *vectors, const int64_t *ids);
    /* Adds vectors, or replaces those whose ids are held. The ids are given. *replaced: how many were. */
    kith_status (*upsert)(kith_index *index, const kith_addition *addition, size_t *replaced);
    /* Which of the ids are held. NULL for a store that leaves its ids to others. */
    kith_status (*holds)(const kith_index *index, const int64_t *ids, size_t count, bool *held);
    /* Takes out what changes have left behind, and gives memory back; what is held stays as it is. NULL: nothing to
     * do. */
    kith_status (*compact)(kith_index *index);
    void (*reset)(kith_index *index);
    /* Adds the vectors of an index of the same vtable, spec, dimension and metric, which has some; ids + id_shift do
     * not overflow. KITH_ERR_ARGUMENT when it was trained otherwise, KITH_ERR_EXISTS for an id that is held. NULL: it
     * cannot. */
    kith_status (*merge)(kith_index *into, const kith_index *from, int64_t id_shift);
    kith_status (*reconstruct)(const kith_index *index, const int64_t *ids, size_t count, float *out);

    kith_status (*search)(const kith_index *index, const kith_search_request *request,
                          const kith_search_results *results);
    /* Does a search without a filter do nothing for its queries together, but a few at a time? Then they are shared out
     * among the threads before it is called, each of which calls it again and again. NULL: no. */
    bool (*shares_search)(const kith_index *index);
    kith_status (*range_search)(const kith_index *index, const kith_search_request *request,
                                kith_range_lists *lists);
    /* Does a search know how far its distances may be off, with the confidence that its code states? NULL: no. */
    bool (*bounds_errors)(const kith_index *index);

    /* Appends the structure's own sections, under the numbers *part and on, and raises *part by how many it took:
     * one for itself, then those of its code or of the index inside. */
    kith_status (*save)(const kith_index *index, kith_container_writer *writer, uint32_t *part);
    /* Checks of a mapped index what only reading every byte can tell: values, norms, ids. Messages name the
     * section. Whatever a mapped index is to become part of memory passes it first: load and clone. */
    kith_status (*verify)(const kith_index *index);
    /* Writes the ids of all vectors, in any order: `count` of them. Of a mapped index after verify. */
    void (*list_ids)(const kith_index *index, int64_t *ids);

    /* What makes an index fit to be the exact half of a refinement: these three, or none. */

    /* The first half of a change: all of it that can fail, and nothing that anybody could see. */
    kith_status (*stage)(kith_index *index, const kith_change *change, kith_staged **out);
    /* The second half: the change happens (keep), or never was. Frees *staged. */
    void (*settle)(kith_index *index, kith_staged *staged, bool keep);
    /* The k nearest of each query among its own candidates; the distances are those of a search. Ids that are not held
     * are passed over. */
    kith_status (*rescore)(const kith_index *index, const kith_search_request *request,
                           const kith_candidates *candidates, const kith_search_results *results);
    /* As shares_search, of rescore. */
    bool (*shares_rescore)(const kith_index *index);
};

/* KITH_ERR_ARGUMENT for NULL, KITH_ERR_READ_ONLY for a mapped index; `what` begins the message. */
kith_status kith_index_check_writable(const char *what, const kith_index *index);

/* kith_index_search for an index that nothing changes meanwhile. */
kith_status kith_index_search_view(const kith_index *index, const kith_view *queries, size_t k,
                                   const kith_search_params *params, int64_t *ids, float *distances,
                                   size_t *counts) KITH_CHECK_RESULT;

/* ---- For indexes made of indexes ------------------------------------------------------------------------------ */

/* The vtable's call, or KITH_ERR_UNSUPPORTED. */
kith_status kith_index_graph_stats_inner(const kith_index *index, kith_graph_stats *stats, uint64_t *degrees,
                                         size_t capacity);
/* The vtable's call, or KITH_ERR_UNSUPPORTED. */
kith_status kith_index_memory_for_inner(const kith_index *index, size_t count, bool has_ids, uint64_t *bytes);
/* The vtable's call, or NULL. */
kith_prefetch *kith_index_prefetch_inner(kith_index *index);
/* KITH_ERR_ARGUMENT for settings out of range. */
kith_status kith_prefetch_check(const kith_prefetch *prefetch);
/* A copy without the check that kith_index_clone makes of a mapped index. */
kith_status kith_index_copy(const kith_index *index, kith_index **out);
/* vtable->clone_empty, complete: as after a reset. */
kith_status kith_index_copy_empty(const kith_index *index, kith_index **out);
/* The vtable's calls on an inner index whose arguments have been checked for the outer one; they keep its next_id. */
kith_status kith_index_add_inner(kith_index *index, const kith_addition *addition);
/* KITH_ERR_UNSUPPORTED for an index that cannot. */
kith_status kith_index_merge_inner(kith_index *into, const kith_index *from, int64_t id_shift);
kith_status kith_index_upsert_inner(kith_index *index, const kith_addition *addition, size_t *replaced);
void kith_index_reset_inner(kith_index *index);

#endif
