/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_call.h: a search of inverted lists while it runs: ivf_search.c, its coarse step, ivf_probes.c, and batches whose
 * lists threads share out, ivf_together.c.
 */
#ifndef KITH_IVF_IVF_CALL_H
#define KITH_IVF_IVF_CALL_H

#include "ivf/ivf_inside.h"

/* Codes whose estimates, for 16 queries, stay in the first-level cache. */
enum { KITH_IVF_STRIP = 16 * KITH_BLOCK_ROWS };

#define KITH_NO_PROBE UINT32_MAX /* as the `before` of a probe that stands for no list */
/* A list to be read for a query: the query's base there, and how many of its codes may be looked at. The codes that a
 * query looks at are counted from its nearest list on, so that a number says where a hit lies. */
typedef struct kith_probed_list {
    uint32_t list;
    float base;
    size_t limit;
    uint32_t before; /* codes of nearer lists */
    float distance;  /* squared, of the centroid; with `early` */
} kith_probed_list;

/* The same, sorted by list. */
typedef struct kith_visit {
    uint32_t query; /* in the group */
    float base;
    size_t limit;
    uint32_t before;
} kith_visit;

typedef struct kith_ivf_scratch {
    unsigned char *prepared;        /* group_size x code->query_bytes */
    unsigned char *coarse_prepared; /* KITH_CODE_QUERIES_MAX x coarse_code->query_bytes */
    float *estimates;               /* KITH_CODE_QUERIES_MAX x KITH_IVF_STRIP */
    uint32_t *positions;            /* KITH_IVF_STRIP */
    kith_hit *coarse_hits;          /* KITH_CODE_QUERIES_MAX x kith_topk_capacity(coarse_k) */
    kith_probed_list *probes;       /* group_size x nprobe */
    kith_visit *visits;             /* group_size x nprobe */
    size_t *list_first;             /* list_count + 1 */
    const void **rows;              /* filter, dead vectors: where GATHER raw vectors lie, and their ids */
    int64_t *row_ids;
    uint32_t *members; /* group_size: the queries of a list, for exact codes */
    uint32_t *lists;   /* group_size x nprobe: the lists that have visits, in order */
    uint32_t *table;   /* table_size of the call, where vectors have two copies */
    float *spreads;    /* nprobe: of one query, for errors */
} kith_ivf_scratch;

typedef struct kith_ivf_call {
    const kith_ivf *ivf;
    const kith_search_request *request;
    size_t query_count, nprobe, coarse_k, group_size, group_count;
    float *queries;         /* query_count x dim, f32, of unit length under cosine */
    const float *projected; /* query_count x projected_dim */
    kith_topk *tops;        /* query_count, or NULL */
    kith_hit_list *lists;   /* query_count, or NULL */
    float radius;           /* of range search, as an estimate */
    kith_exact *exact;      /* the queries as exact search takes them, for raw codes; NULL else */
    float *errors;          /* query_count x k, or NULL */
    int64_t *near; /* query_count x coarse_k: the lists that the index of centroids finds; NULL: there is none */
    size_t *near_counts;      /* query_count */
    size_t top_k, table_size; /* hits that are kept: k of each copy; a power of two above twice as many */
    kith_ivf_scratch *workers;
    kith_ivf_filtered filtered; /* where there is a filter */
    bool is_listed;             /* all allowed vectors are compared, and no lists are looked for */
    size_t probes_wanted;       /* lists that a query reads at least; nprobe is how many at most */
} kith_ivf_call;

/* ---- ivf_probes.c: the coarse step ---------------------------------------------------------------------------- */

/* Sets `nprobe` and `coarse_k`: how many lists a query reads at most, and how many are ranked for that. Opens the
 * filter. */
kith_status kith_ivf_plan_probes(kith_ivf_call *call);
/* Asks the index of centroids for the lists of all queries at once, where there is one. */
kith_status kith_ivf_ask_index(kith_ivf_call *call);
/* The probes of `count` queries of the call from `first` on, into those of the scratch memory, each query's nearest list
 * first. */
void kith_ivf_find_probes(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t first, size_t count);
/* How many of a query's probes are read before kith_ivf_stop_early is asked; 0: it is not. */
size_t kith_ivf_early_near(const kith_ivf_call *call);
/* Takes away the probes of a query, from `near` on, that are too far for their rank by what it has found in those
 * before. What it comes to depends on the query alone. */
void kith_ivf_stop_early(const kith_ivf_call *call, kith_topk *top, kith_probed_list *probes, size_t near);
/* The vectors in all lists of a centroid. */
size_t kith_ivf_centroid_count(const kith_ivf *ivf, size_t list);

/* The positions of the estimates that a selection may still take. Where it would take many, its threshold is lowered
 * beforehand by a bound on the k-th of them: that is sound as long as all of them are offered (`all_allowed`). */
size_t kith_ivf_candidates(kith_topk *top, const float *estimates, size_t count, bool all_allowed,
                           uint32_t *positions);

/* ---- ivf_search.c: reading lists ------------------------------------------------------------------------------- */

/* Raw vectors whose lists so few of `visits` share: to read these takes longer than to compare them. */
bool kith_ivf_is_streamed(const kith_ivf_call *call, size_t visits);
/* Sorts probes rank_first..rank_last - 1 of all queries by list, and returns how many lists they name. */
size_t kith_ivf_sort_probes(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t count, size_t rank_first,
                            size_t rank_last);
/* Holds the lists named_first..named_last - 1 of those against the queries that visit them, which are counted from
 * query_first of the call on. */
kith_status kith_ivf_read_named(const kith_ivf_call *call, kith_ivf_scratch *scratch, size_t worker,
                                size_t query_first, size_t named_first, size_t named_last);
/* What the probes of `count` queries from `first` on come to. */
void kith_ivf_report_group(const kith_ivf_call *call, const kith_ivf_scratch *scratch, size_t first, size_t count);

/* ---- ivf_together.c: threads that share lists out -------------------------------------------------------------- */

bool kith_ivf_is_together(const kith_ivf_call *call);
kith_status kith_ivf_search_together(const kith_ivf_call *call);

#endif
