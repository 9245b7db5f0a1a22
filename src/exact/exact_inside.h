/* SPDX-License-Identifier: Apache-2.0
 *
 * exact_inside.h: what the two paths of exact search share.
 */
#ifndef KITH_EXACT_EXACT_INSIDE_H
#define KITH_EXACT_EXACT_INSIDE_H

#include "exact/exact.h"
#include "simd/simd.h"

/* Rows that are looked at together: their distances to a dozen queries stay in the first-level cache. */
enum {
    KITH_EXACT_BLOCK_ROWS = KITH_EXACT_GATHERED_MAX,
    KITH_EXACT_LANES_MAX = 64 /* queries of a tile, on any ISA */
};

/* Scratch memory of one worker thread. */
typedef struct kith_exact_worker {
    void *values;                 /* tile: query_lanes x BLOCK_ROWS; stream: BLOCK_ROWS; f32 or i32 */
    void *bias;                   /* BLOCK_ROWS f32 or i32 */
    uint32_t *panel;              /* packed rows of a block */
    uint32_t *words;              /* row_lanes rows converted to words, before they are packed */
    uint32_t *positions;          /* BLOCK_ROWS survivors of the filter */
    const unsigned char **row_at; /* BLOCK_ROWS: where each row of the block lies */
    int64_t *ids;                 /* BLOCK_ROWS */
    float *inverse_norms;         /* BLOCK_ROWS, cosine */
    int32_t *norm2;               /* BLOCK_ROWS, integer pairs under l2 */
    uint32_t *members;            /* by_members: query_lanes queries packed for the tile */
} kith_exact_worker;

struct kith_exact {
    kith_exact_request request;
    const kith_simd_table *simd;
    const kith_float_kernels *float_pair; /* f32 x row type; NULL when int_pair is used */
    const kith_int_kernels *int_pair;     /* u8 x u8 or i8 x i8 under l2 and ip */
    kith_op op;
    size_t dim, query_count;
    const unsigned char *query_rows; /* f32, or the native integers */
    size_t query_stride;
    double *query_norm;        /* float pairs */
    float *query_inverse_norm; /* cosine */
    int32_t *query_norm2_int;  /* integer pairs */
    /* Queries of whole numbers held against rows of bytes, where rows are gathered: exact_gather.c. */
    const kith_int_kernels *whole_pair; /* NULL: rows are not of bytes, or too long for it */
    uint8_t *whole_rows;                /* dim for each query */
    bool *is_whole;
    /* Tiles; NULL when the batch is small and streams. */
    uint32_t *packed_queries;
    int32_t *query_terms;
    size_t query_lanes, row_lanes, words, block_rows;
    kith_exact_worker *workers;
    size_t worker_count;
};

/* Where hits go: to selections or to lists, one for each query. */
typedef struct kith_exact_sinks {
    kith_topk *tops;      /* or NULL */
    kith_hit_list *lists; /* or NULL */
    int32_t range_key_max;
} kith_exact_sinks;

static inline int32_t kith_exact_key_max(const kith_exact_sinks *sinks, size_t query) {
    return sinks->tops != NULL ? sinks->tops[query].key_max : sinks->range_key_max;
}
/* Keeps a hit that the allow function has let through. */
kith_status kith_exact_keep(const kith_exact_sinks *sinks, size_t query, int32_t key, int64_t id);

static inline int64_t kith_exact_row_id(const kith_rows *rows, size_t row) {
    if (rows->ids_u32 != NULL) return rows->ids_u32[row];
    return rows->ids != NULL ? *(const int64_t *)kith_chunks_at(rows->ids, row) : rows->first_id + (int64_t)row;
}
/* The address of `row`, and in *run how many rows from it on lie rows->stride bytes apart. */
const unsigned char *kith_exact_run(const kith_rows *rows, size_t row, size_t *run);
float kith_exact_row_inverse_norm(const kith_rows *rows, size_t row, const void *at);

/* The exact key of one pair of the float kind. */
int32_t kith_exact_float_key(const kith_exact *exact, size_t query, const void *row, float inverse_norm);

/* Both look at rows row_first .. row_last - 1 for queries query_first .. query_last - 1. With `members` (not NULL) query
 * i stands for number members[i]. The meter counts unless there are members. */
kith_status kith_exact_stream(const kith_exact *exact, const kith_rows *rows, kith_exact_worker *worker,
                              const uint32_t *members, size_t query_first, size_t query_last, size_t row_first,
                              size_t row_last, const kith_exact_sinks *sinks);
kith_status kith_exact_tiles(const kith_exact *exact, const kith_rows *rows, kith_exact_worker *worker,
                             const uint32_t *members, size_t query_first, size_t query_last, size_t row_first,
                             size_t row_last, const kith_exact_sinks *sinks);

/* The same for `count` rows that lie anywhere, at most KITH_EXACT_BLOCK_ROWS, with these ids: all are allowed. */
kith_status kith_exact_stream_gathered(const kith_exact *exact, const void *const *rows, const int64_t *ids,
                                       size_t count, const uint32_t *members, size_t member_count,
                                       const kith_exact_sinks *sinks);
kith_status kith_exact_tiles_gathered(const kith_exact *exact, const void *const *rows, const int64_t *ids,
                                      size_t count, kith_exact_worker *worker, const uint32_t *members,
                                      size_t member_count, const kith_exact_sinks *sinks);

/* Finds the queries of whole numbers; part of opening where rows are gathered. */
kith_status kith_exact_take_whole(kith_exact *exact);

/* Packs all queries; part of opening. */
kith_status kith_exact_pack_queries(kith_exact *exact);

#endif
