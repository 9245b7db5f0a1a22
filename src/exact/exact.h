/* SPDX-License-Identifier: Apache-2.0
 *
 * exact.h: exact nearest neighbours of a batch of queries over rows in memory: what Flat, ground truth and, later,
 * re-ranking and k-means stand on.
 *
 * Two paths give the same bits. A few queries stream over the rows, one kernel call a block. Many queries go
 * through tiles: a matrix product estimates every pair, a SIMD compare drops all pairs that cannot be among the k
 * best by more than the product's rounding error, and the survivors' distances are computed by the `one` kernel.
 * Integer pairs (u8 x u8, i8 x i8 under l2 and ip) are exact in the tile already.
 */
#ifndef KITH_EXACT_EXACT_H
#define KITH_EXACT_EXACT_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/chunks.h"
#include "base/deadset.h"
#include "base/parallel.h"
#include "base/topk.h"

/* Rows to search: chunks, or one extent of rows `stride` bytes apart. */
typedef struct kith_rows {
    kith_dtype dtype; /* f32, f16, bf16, i8, u8 */
    size_t dim, count;
    const kith_chunks *chunks; /* NULL: base and stride are used */
    const void *base;
    size_t stride;
    const kith_chunks *ids;  /* int64_t each; NULL: row r has id first_id + r */
    const uint32_t *ids_u32; /* ids of 32 bits, in place of `ids`; NULL: none */
    int64_t first_id;
    const kith_chunks *inverse_norms; /* float each, for cosine: 1 / |row|; NULL: computed as needed */
    const kith_deadset *dead;         /* rows that are passed over; NULL: none */
} kith_rows;

/* May this id be returned? Called at most once per id and query. */
typedef bool (*kith_allow_fn)(const void *context, int64_t id);

typedef struct kith_exact_request {
    kith_view queries;  /* any element type of an index; finite; nonzero under cosine (the caller has checked) */
    kith_metric metric; /* l2, ip, cosine */
    kith_dtype row_dtype;
    size_t threads;      /* at least 1 */
    bool gathers;        /* for kith_exact_four alone: nothing is packed */
    kith_allow_fn allow; /* NULL: all */
    const void *allow_context;
    kith_meter *meter; /* NULL, or counts queries x rows */
    bool by_members;   /* kith_exact_offer will be called, not topk or range; for float pairs */
    kith_arena *arena; /* begun by the caller; everything below is taken from it */
} kith_exact_request;

/* A prepared batch: queries converted, normed and packed. Lives in the request's arena. */
typedef struct kith_exact kith_exact;
kith_status kith_exact_open(const kith_exact_request *request, kith_exact **out);

/* Offers every row to every query's selection; tops[q] belongs to query q. May be called for one set of rows
 * after the other. */
kith_status kith_exact_topk(kith_exact *exact, const kith_rows *rows, kith_topk *tops);

/* Offers every row to the queries that `members` names (member_count of them, distinct) and to no others: inverted
 * lists, each with its own queries. On the caller's thread, as worker 0..threads - 1 of the batch; workers run at the
 * same time as long as they name different queries or have selections of their own. Hits go to tops[query] or, where
 * tops is NULL, to lists[query], within `radius`. Does not count on the meter. */
typedef struct kith_hit_list kith_hit_list;
kith_status kith_exact_offer(kith_exact *exact, const kith_rows *rows, const uint32_t *members, size_t member_count,
                             size_t worker, kith_topk *tops, kith_hit_list *lists, float radius);

/* The same for rows that lie anywhere, at most KITH_EXACT_GATHERED_MAX of them, with these ids. `allow` is not asked. */
enum { KITH_EXACT_GATHERED_MAX = 256 };
kith_status kith_exact_offer_gathered(kith_exact *exact, const void *const *rows, const int64_t *ids, size_t count,
                                      const uint32_t *members, size_t member_count, size_t worker, kith_topk *tops,
                                      kith_hit_list *lists, float radius);

/* Hits of a range search, gathered per query. All zero is empty. */
struct kith_hit_list {
    kith_hit *hits;
    size_t count, capacity;
};
/* Grows the list; KITH_ERR_NO_MEMORY leaves it as it was. */
kith_status kith_hit_list_append(kith_hit_list *list, const kith_hit *hit);
/* Adds every row within `radius` (in the metric's terms) of query q to lists[q], unsorted. */
kith_status kith_exact_range(kith_exact *exact, const kith_rows *rows, float radius, kith_hit_list *lists);

/* Opened with `gathers`: the keys of four rows that lie anywhere and may repeat, the same that a search would give.
 * inverse_norms are those of the rows, for cosine. Any number of threads may call it at once. */
void kith_exact_four(const kith_exact *exact, size_t query, const void *const rows[4], const float inverse_norms[4],
                     int32_t keys[4]);

/* The largest float that a key up to key_max stands for: what a filter compares with. */
static inline float kith_exact_value_max(int32_t key_max) {
    return key_max >= kith_key_f32(__builtin_inff()) ? __builtin_inff() : kith_key_to_f32(key_max);
}

/* A hit's distance in the metric's own terms (l2: squared; ip, cosine: similarity). */
float kith_exact_value(const kith_exact *exact, int32_t key);

/* What cosine multiplies by: 1 / |row| in f32, from a sum in the fixed order; 0 for a row whose squared norm is below
 * FLT_MIN (the zero row, and rows too short to have a direction in f32). */
float kith_exact_inverse_norm(const void *row, kith_dtype dtype, size_t dim);
/* The sum of squares of a row, in the fixed order for floats; exact, then rounded, for i8 and u8. */
float kith_exact_norm2(const void *row, kith_dtype dtype, size_t dim);
/* At least one query as f32, one after the other, of unit length if so asked: where they lie, if they are so already, or
 * taken from the arena. */
kith_status kith_exact_queries(const kith_view *view, bool to_unit, size_t threads, kith_arena *arena,
                               const float **out);
/* `count` elements of an index's element type as f32: exact. */
void kith_exact_to_f32(const void *in, kith_dtype dtype, size_t count, float *out);

#endif
