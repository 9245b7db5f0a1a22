/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_inside.h: what the files of src/ivf share: the index and its lists.
 *
 * A list is a row of segments, each with room for some blocks of 32 codes and their ids. What is added together is
 * put into one slab, list after list, so that a list that was filled in one go is one segment and a scan of all lists
 * is one stream; later additions fill the last block first and then append segments. Nothing that is there moves. A
 * removed vector's place is taken by the last one of its list.
 */
#ifndef KITH_IVF_IVF_INSIDE_H
#define KITH_IVF_IVF_INSIDE_H

#include "code/code.h"
#include "index/vtable.h"
#include "ivf/ivf.h"

typedef struct kith_list_segment {
    unsigned char *blocks;  /* capacity / 32 of the code's blocks */
    void *ids;              /* capacity of them: uint32_t or int64_t, as id_bytes says */
    size_t count, capacity; /* vectors; capacity is a multiple of 32. All but the last segment are full */
} kith_list_segment;

typedef struct kith_list {
    kith_list_segment *segments;
    size_t segment_count, segment_capacity;
    size_t count; /* vectors in all segments */
} kith_list;

typedef struct kith_ivf {
    kith_index base;
    kith_code *code;
    size_t list_count;  /* 1 when there is no coarse step */
    bool has_coarse;    /* false: one list, searched whole: "SQ8" */
    bool by_residual;   /* codes are of x - centroid */
    kith_index *coarse; /* finds the lists of a vector, instead of the centroids' own code; NULL: none */
    float *centroids;   /* list_count x dim; NULL without coarse step */
    float *projected;   /* list_count x code->projected_dim; centroids themselves when the code projects nothing */
    kith_code *coarse_code;       /* 8-bit scalar code of the projected centroids; NULL for few lists */
    unsigned char *coarse_blocks; /* its blocks, kith_code_blocks(list_count) of them */
    size_t id_bytes;              /* 4 while all ids are below 2^32, then 8 */
    kith_list *lists;
} kith_ivf;

extern const kith_index_vtable kith_ivf_vtable;

static inline kith_ivf *kith_ivf_of(kith_index *index) { return (kith_ivf *)index; }
static inline const kith_ivf *kith_ivf_of_const(const kith_index *index) { return (const kith_ivf *)index; }

static inline int64_t kith_segment_id(const kith_ivf *ivf, const kith_list_segment *segment, size_t i) {
    return ivf->id_bytes == 4 ? (int64_t)((const uint32_t *)segment->ids)[i] : ((const int64_t *)segment->ids)[i];
}

/* The lists that a search reads when it does not say: 1/64 of them, at least 8. */
static inline size_t kith_ivf_nprobe_default(const kith_ivf *ivf) { return kith_max_size(8, ivf->list_count / 64); }

/* ---- ivf_search.c --------------------------------------------------------------------------------------------- */

kith_status kith_ivf_search(const kith_index *index, const kith_search_request *request,
                            const kith_search_results *results);
kith_status kith_ivf_range_search(const kith_index *index, const kith_search_request *request,
                                  kith_range_lists *lists);

#endif
