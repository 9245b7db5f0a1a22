/* SPDX-License-Identifier: Apache-2.0
 *
 * pq_inside.h: what the files of src/pq share.
 *
 * A row is the numbers of its parts, packed from the lowest bit on as FAISS packs them, filled up to whole words, and
 * under l2 an f32, its addend: |r|^2 + 2 <c, r> for the decoded residual r, so that S = addend - 2 <q, r>. Under ip
 * S = -<q, r>. A block is the words interleaved (8 bits: the bytes), and then 32 addends.
 *
 * The products <q, r> come from one table per query, which knows nothing of c. Its entries are whole numbers with one
 * step for all parts, of 8 bits for fast-scan, else of 16: the sum is exact and the same on every instruction set. 16
 * bits lose no more than 2^-17 of the largest part's range in each part.
 */
#ifndef KITH_PQ_PQ_INSIDE_H
#define KITH_PQ_PQ_INSIDE_H

#include "base/parallel.h"
#include "pq/pq.h"
#include "simd/simd.h"

enum { KITH_PQ_LANES = 16 /* of panels */ };

typedef struct kith_pq {
    kith_code base;
    size_t parts, bits, codewords, width; /* codewords: 2^bits; width: dim / parts */
    bool is_fast, is_anisotropic;
    size_t word_count;    /* of a row's numbers */
    size_t table_bytes;   /* of a prepared query */
    size_t product_count; /* floats after them that prepare works on; 0: few enough for the stack */

    float *codebooks; /* parts x codewords x width: what training makes */
    /* What follows from it. */
    float *panels;  /* the same for matrix.panels_one: in each part, groups of 16 codewords, interleaved */
    float *centres; /* dim: mean of each part's codewords; assignments are made relative to it, as products would
                       cancel far from the origin */
    float *centred; /* codebooks less the centres */
    float *bias;    /* parts x codewords: -|centred|^2 / 2 */
    float *norms;   /* parts x codewords: |codeword|^2 */
} kith_pq;

static inline kith_pq *kith_pq_of(kith_code *code) { return (kith_pq *)code; }
static inline const kith_pq *kith_pq_of_const(const kith_code *code) { return (const kith_pq *)code; }

static inline bool kith_pq_has_addend(const kith_pq *pq) { return pq->base.metric == KITH_L2; }

static inline const float *kith_pq_codeword(const kith_pq *pq, size_t part, size_t number) {
    return pq->codebooks + (part * pq->codewords + number) * pq->width;
}

/* ---- pq.c ----------------------------------------------------------------------------------------------------- */

/* Takes the codebooks over (also on failure: frees them) and makes what follows from them, all or nothing.
 * KITH_ERR_RANGE: a codeword whose squared norm is not finite. */
kith_status kith_pq_adopt(kith_pq *pq, float *codebooks);
/* A copy without codebooks, on the caller's stack, and the end of it. */
kith_pq kith_pq_blank(const kith_pq *pq);
void kith_pq_free_arrays(kith_pq *pq);

/* ---- pq_train.c ------------------------------------------------------------------------------------------------ */

kith_status kith_pq_train(kith_code *code, const kith_code_rows *sample, const kith_job *job);

/* ---- pq_codes.c ------------------------------------------------------------------------------------------------ */

kith_status kith_pq_encode(const kith_code *code, const kith_code_rows *rows, unsigned char *codes);
kith_status kith_pq_decode(const kith_code *code, const kith_code_rows *rows, const unsigned char *codes,
                           float *out);
void kith_pq_restore(const kith_code *code, const unsigned char *row, unsigned char *scratch, float *out);
void kith_pq_pack(const kith_code *code, const unsigned char *rows, size_t first, size_t count,
                  unsigned char *block);
void kith_pq_unpack(const kith_code *code, const unsigned char *block, size_t lane, unsigned char *row);
/* The number of a part in words one after the other, `stride` words apart. */
static inline uint32_t kith_pq_number(const uint32_t *words, size_t stride, size_t bits, size_t part) {
    size_t bit = part * bits, word = bit / 32, shift = bit % 32;
    uint32_t value = words[word * stride] >> shift;
    if (shift + bits > 32) value |= words[(word + 1) * stride] << (32 - shift);
    return value & ((1u << bits) - 1);
}

/* ---- pq_shape.c: score-aware codes -------------------------------------------------------------------------- */

/* Floats of scratch that kith_pq_shape takes; 0 for plain codes. */
size_t kith_pq_shape_floats(const kith_pq *pq);
/* Improves the numbers of a vector's code, `stride` apart, where `rest` is what is coded (the vector less its reference
 * point). */
void kith_pq_shape(const kith_pq *pq, const float *vector, const float *rest, float *scratch, uint32_t *numbers,
                   size_t stride);
/* Improves trained codebooks on `count` rows: chosen[i], or i where that is NULL. On failure the codebooks may have
 * changed. */
kith_status kith_pq_shape_codebooks(kith_pq *pq, const kith_code_rows *rows, const uint32_t *chosen, size_t count,
                                    size_t threads);

/* ---- pq_query.c ------------------------------------------------------------------------------------------------ */

void kith_pq_prepare(const kith_code *code, const float *vector, void *query);
void kith_pq_rows(const kith_code *code, const void *query, float base, const unsigned char *const *rows,
                  size_t count, float *out);
void kith_pq_scan(const kith_code *code, const void *const *queries, const float *bases, size_t query_count,
                  const unsigned char *blocks, size_t block_count, float *out, size_t out_stride);

/* ---- pq_file.c ------------------------------------------------------------------------------------------------- */

kith_status kith_pq_save(const kith_code *code, kith_container_writer *writer, uint32_t *part);
kith_status kith_pq_load(kith_code *code, kith_container *file, uint32_t *part);

#endif
