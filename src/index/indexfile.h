/* SPDX-License-Identifier: Apache-2.0
 *
 * indexfile.h: the section INDXMETA, which says what index a file holds, whatever its structure.
 *
 *   offset  size  field
 *        0     4  dim         u32, 1..32768
 *        4     4  metric      u32, kith_metric: 1 l2, 2 ip, 3 cosine
 *        8     4  dtype       u32, kith_dtype of the stored vectors: 1..5
 *       12     4  trained     u32, 0 or 1
 *       16     8  count       u64, live vectors
 *       24     8  next_id     u64, one more than the largest id ever held; at most 2^63 - 1
 *       32   256  spec        the canonical spec, ASCII, padded with zeros (at least one)
 *
 * Numbers are little-endian. Version 1. The structure that the spec names owns all other sections.
 */
#ifndef KITH_INDEX_INDEXFILE_H
#define KITH_INDEX_INDEXFILE_H

#include "index/vtable.h"

typedef struct kith_index_meta {
    size_t dim, count;
    kith_metric metric;
    kith_dtype dtype;
    bool is_trained;
    int64_t next_id;
    char spec[KITH_SPEC_BYTES_MAX];
} kith_index_meta;

/* Reads the section and checks each field by itself; *section is for messages of the caller's cross-checks. */
kith_status kith_index_meta_read(kith_container *file, kith_index_meta *meta, const kith_section **section);

/* Little-endian numbers in sections. */
static inline void kith_put_u32(unsigned char *to, uint32_t value) {
    for (int i = 0; i < 4; i++) to[i] = (unsigned char)(value >> (8 * i));
}
static inline void kith_put_u64(unsigned char *to, uint64_t value) {
    for (int i = 0; i < 8; i++) to[i] = (unsigned char)(value >> (8 * i));
}
static inline uint32_t kith_get_u32(const unsigned char *from) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) value |= (uint32_t)from[i] << (8 * i);
    return value;
}
static inline uint64_t kith_get_u64(const unsigned char *from) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value |= (uint64_t)from[i] << (8 * i);
    return value;
}

#endif
