/* SPDX-License-Identifier: Apache-2.0
 *
 * code.h: how a stored vector is encoded, and how its distance to a query is estimated from its code.
 *
 * A code is an object that has been trained and then never changes: any number of threads may use it at once. It
 * knows no structure, and no structure knows a code but through this interface.
 *
 * Vectors reach a code as f32. kith_code_project takes them, queries and centroids alike, into the code's own space
 * of projected_dim dimensions (a rotation, a PCA; for most codes nothing happens); everything else takes projected
 * vectors. Metrics are l2 and ip; under cosine the owner normalises and asks for ip.
 *
 * A vector may be encoded as it is or as the residual r = x - c of a reference point c (its list's centroid, a
 * graph's node). Either way
 *
 *     estimate(q, x) = base(q, c) + S(q, code(x)),
 *
 * where base is |q - c|^2 under l2 (with c = 0: |q|^2), -<q, c> under ip (0), and what c adds to the product with the
 * code, such as |r|^2 + 2 <c, r>, was folded into the code when it was made. So one prepared query serves every list
 * and every node, and a list contributes one number. Estimates are smaller for nearer vectors: squared distances, or
 * inner products negated. A code that is_exact takes no base: its S is the distance.
 *
 * A code is read in two forms. A *row* is one vector's code, code_bytes of it. A *block* holds 32 codes interleaved,
 * so that one query or several are held against all of them without a horizontal sum: an inverted list is a run of
 * blocks, and so is the neighbourhood of a graph's node. The same vector and query give the same bits in either form,
 * alone or among others, on every instruction set.
 */
#ifndef KITH_CODE_CODE_H
#define KITH_CODE_CODE_H

#include <stdbool.h>

#include "base/arena.h"
#include "io/container.h"
#include "kith/types.h"
#include "simd/fields.h"

enum {
    KITH_CODE_NAME_BYTES = 32,
    KITH_CODE_QUERIES_MAX = 16 /* of one call of scan */
};

/* Numbers stand in files: never reused. */
typedef enum kith_code_kind {
    KITH_CODE_RAW = 1,    /* f32, f16, bf16, i8, u8 as they are: src/sq */
    KITH_CODE_SQ = 2,     /* scalar quantiser: src/sq */
    KITH_CODE_PQ = 3,     /* product quantiser: src/pq */
    KITH_CODE_PQFS = 4,   /* product quantiser of 4 bits, by tables in registers: src/pq */
    KITH_CODE_RABITQ = 5, /* src/rabitq */
    KITH_CODE_LINE = 6    /* src/rabitq */
} kith_code_kind;

typedef struct kith_code_vtable kith_code_vtable;

/* The part that every code begins with. */
typedef struct kith_code {
    const kith_code_vtable *vtable;
    size_t dim, projected_dim; /* projected_dim and query_bytes are final once trained: a line chooses its bits */
    kith_metric metric;        /* l2 or ip */
    bool is_trained;
    bool is_exact; /* S is the distance itself: base is 0 */
    size_t
        code_bytes; /* of a row, its factors included; a multiple of 4 but for raw codes. Known before training */
    size_t block_bytes;              /* of a block; a multiple of 64 */
    size_t query_bytes;              /* of a prepared query; a multiple of 64 */
    char name[KITH_CODE_NAME_BYTES]; /* as in a spec: "SQ8", "PQ16x4fs" */
} kith_code;

/* Vectors to be encoded or learnt from. */
typedef struct kith_code_rows {
    const float *rows; /* count x dim (train) or count x projected_dim (encode, decode), packed, finite */
    size_t count;
    const float *centroids; /* reference points in the same space, packed; NULL: the vectors themselves are coded */
    const uint32_t *assigned; /* count: the number of each row's reference point; NULL with centroids: all 0 */
    size_t first_row;         /* what the first row is called in messages */
} kith_code_rows;

/* The reference point of row i; NULL: none. `dim` is that of the rows. */
static inline const float *kith_code_centroid(const kith_code_rows *rows, size_t i, size_t dim) {
    if (rows->centroids == NULL) return NULL;
    return rows->centroids + (rows->assigned != NULL ? rows->assigned[i] : 0) * dim;
}

struct kith_code_vtable {
    kith_code_kind kind;
    void (*release)(kith_code *code); /* takes half-built ones */
    kith_status (*clone)(const kith_code *code, kith_code **out);
    uint64_t (*memory)(const kith_code *code); /* bytes: codebooks, rotations */

    /* Learns from rows before projection, finite and at least one; with reference points from the residuals. All or
     * nothing; trained again, it forgets. NULL: nothing to learn. job: threads (at least 1), seed, progress. */
    kith_status (*train)(kith_code *code, const kith_code_rows *sample, const kith_job *job);
    /* count x dim to count x projected_dim. NULL: projected_dim == dim and nothing happens. */
    kith_status (*project)(const kith_code *code, const float *vectors, size_t count, size_t threads,
                           kith_arena *arena, float *out);
    /* The same for queries, normalised first if `to_unit`, faster and no more exact than their use asks for; a query's
     * result depends on it alone. NULL: as project. */
    kith_status (*project_queries)(const kith_code *code, const float *queries, size_t count, bool to_unit,
                                   size_t threads, kith_arena *arena, float *out);
    /* One after the other on the caller's thread: callers share the rows out. `codes` gets count rows of code_bytes.
     * KITH_ERR_RANGE names a row (from rows->first_row) that the code cannot hold. */
    kith_status (*encode)(const kith_code *code, const kith_code_rows *rows, unsigned char *codes);
    /* The vectors that the codes stand for, reference points added back: rows->rows is ignored. Back in `dim`
     * dimensions. */
    kith_status (*decode)(const kith_code *code, const kith_code_rows *rows, const unsigned char *codes,
                          float *out);
    /* The same for one row without a reference point, left in projected_dim dimensions, so that it can be prepared as a
     * query. `scratch` has kith_code_restore_bytes. */
    void (*restore)(const kith_code *code, const unsigned char *row, unsigned char *scratch, float *out);

    /* Prepares a query (projected_dim) for what follows; `query` is aligned to 64. */
    void (*prepare)(const kith_code *code, const float *vector, void *query);
    /* Estimates for `count` rows anywhere, a multiple of 4. Rows may repeat. */
    void (*rows)(const kith_code *code, const void *query, float base, const unsigned char *const *rows,
                 size_t count, float *out);
    /* Estimates of query_count <= KITH_CODE_QUERIES_MAX queries for block_count blocks one after the other:
     * out[q * out_stride + 32 * b + i]. Lanes that hold no code give any finite number. */
    void (*scan)(const kith_code *code, const void *const *queries, const float *bases, size_t query_count,
                 const unsigned char *blocks, size_t block_count, float *out, size_t out_stride);
    /* How far an estimate may lie from the distance, with the confidence that the code states; `base` as it was
     * for the estimate, `spread` = |q - c|. NULL: the code does not know. */
    float (*error)(const kith_code *code, const void *query, float spread, const unsigned char *row);
    /* The same of one lane of a block, a cache line or two of it being read. There where error is. */
    float (*error_in_block)(const kith_code *code, const void *query, float spread, const unsigned char *block,
                            size_t lane);

    /* Puts rows into lanes first..first + count - 1 of a block (first + count <= 32), leaves other lanes alone. No two
     * lanes share a byte: threads may fill different lanes of a block at once. */
    void (*pack)(const kith_code *code, const unsigned char *rows, size_t first, size_t count,
                 unsigned char *block);
    /* Gets the row of one lane back. */
    void (*unpack)(const kith_code *code, const unsigned char *block, size_t lane, unsigned char *row);

    /* Writes what was trained: sections of the parts *part and on, and raises *part by their number, at least by 1.
     * The section CODEMETA, which kith_code_save writes before, says kind and name. NULL: nothing to write. */
    kith_status (*save)(const kith_code *code, kith_container_writer *writer, uint32_t *part);
    /* Fills a code that was just made by its name: all that train would, is_trained among it. */
    kith_status (*load)(kith_code *code, kith_container *file, uint32_t *part);
};

/* Makes an untrained code of a family from its name in a spec, such as "PQ16x4fs". A name of another family:
 * KITH_OK and *out NULL. KITH_ERR_ARGUMENT (a message without the spec) and in *position the character of the name that
 * is wrong, from 0. Each family has one; src/index/codes.c lists them. */
typedef kith_status (*kith_code_make_fn)(const char *name, size_t dim, kith_metric metric, kith_code **out,
                                         size_t *position);

/* ---- code.c: for every code ----------------------------------------------------------------------------------- */

/* Takes NULL. */
void kith_code_free(kith_code *code);

/* base(q, c) of projected vectors; c may be NULL. 0 for an exact code. Sums in the fixed order of simd.h. */
float kith_code_base(const kith_code *code, const float *query, const float *centroid);

/* vtable->train with its arguments checked: KITH_ERR_EMPTY without rows, KITH_ERR_NOT_FINITE and KITH_ERR_RANGE (too
 * large) name the row. job may be NULL. */
kith_status kith_code_train(kith_code *code, const kith_code_rows *sample, const kith_job *job);
/* vtable->project, or a copy. */
kith_status kith_code_project(const kith_code *code, const float *vectors, size_t count, size_t threads,
                              kith_arena *arena, float *out);
/* vtable->project_queries, or kith_code_project: for queries, which meet codes of rows that the latter took. */
kith_status kith_code_project_queries(const kith_code *code, const float *queries, size_t count, size_t threads,
                                      kith_arena *arena, float *out);
/* The same for queries that are to be normalised first. */
kith_status kith_code_project_to_unit(const kith_code *code, const float *queries, size_t count, size_t threads,
                                      kith_arena *arena, float *out);
/* What a code without a faster way does. */
kith_status kith_code_project_plainly(const kith_code *code, const float *queries, size_t count, bool to_unit,
                                      size_t threads, kith_arena *arena, float *out);
/* vtable->encode on `threads` threads. */
kith_status kith_code_encode(const kith_code *code, const kith_code_rows *rows, size_t threads,
                             unsigned char *codes);
/* Estimates of `count` rows anywhere. `rows` and `out` have room for the next multiple of 4. Multiples of
 * KITH_CODE_ROWS_UNIT are the fastest, on every instruction set. */
enum { KITH_CODE_ROWS_UNIT = 16 };
void kith_code_rows_estimate(const kith_code *code, const void *query, float base, const unsigned char **rows,
                             size_t count, float *out);
/* One estimate. */
static inline float kith_code_one(const kith_code *code, const void *query, float base, const unsigned char *row) {
    const unsigned char *const rows[4] = {row, row, row, row};
    float out[4];
    code->vtable->rows(code, query, base, rows, 4, out);
    return out[0];
}

/* For files that nobody vouches for. Codes of finite numbers give a query of zeros finite estimates, whatever else they
 * say; others do not. Free *out, the prepared query, with kith_free. */
kith_status kith_code_zero_query(const kith_code *code, void *out);
bool kith_code_is_finite(const kith_code *code, const void *zero_query, const unsigned char *row);

/* Room for the fields of a row, of one bit at least, one by one: vtable->restore. */
static inline size_t kith_code_restore_bytes(const kith_code *code) { return 8 * code->code_bytes; }

static inline size_t kith_code_blocks(size_t count) {
    return count / KITH_BLOCK_ROWS + (count % KITH_BLOCK_ROWS != 0);
}

#endif
