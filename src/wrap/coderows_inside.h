/* SPDX-License-Identifier: Apache-2.0
 *
 * coderows_inside.h: what the files of rows of codes share.
 */
#ifndef KITH_WRAP_CODEROWS_INSIDE_H
#define KITH_WRAP_CODEROWS_INSIDE_H

#include "code/code.h"
#include "index/idrows.h"
#include "wrap/coderows.h"

typedef struct kith_coderows {
    kith_index base;
    kith_code *code;
    kith_chunks rows; /* code->code_bytes each */
    kith_idrows ids;
    uint32_t instance; /* of the sections of a mapped index */
} kith_coderows;

static inline kith_coderows *kith_coderows_of(kith_index *index) { return (kith_coderows *)index; }
static inline const kith_coderows *kith_coderows_of_const(const kith_index *index) {
    return (const kith_coderows *)index;
}

/* What a code is asked for under a metric: vectors are normalised for cosine. */
static inline kith_metric kith_coderows_metric(kith_metric metric) { return metric == KITH_L2 ? KITH_L2 : KITH_IP; }

/* Row `row` of a view as f32, of unit length under cosine. */
void kith_coderows_take(const kith_view *view, size_t row, kith_metric metric, float *out);

/* ---- coderows_change.c ---- */
kith_status kith_coderows_train(kith_index *index, const kith_view *sample, const kith_job *job);
kith_status kith_coderows_add(kith_index *index, const kith_addition *addition);
kith_status kith_coderows_upsert(kith_index *index, const kith_addition *addition, size_t *replaced);
kith_status kith_coderows_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed);
kith_status kith_coderows_update(kith_index *index, const kith_view *vectors, const int64_t *ids);
kith_status kith_coderows_compact(kith_index *index);
void kith_coderows_reset(kith_index *index);
kith_status kith_coderows_stage(kith_index *index, const kith_change *change, kith_staged **out);
void kith_coderows_settle(kith_index *index, kith_staged *staged, bool keep);

#endif
