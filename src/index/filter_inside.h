/* SPDX-License-Identifier: Apache-2.0
 *
 * filter_inside.h: what filter.c and filter_combine.c share: a filter as a tree, whose leaves say which ids they allow.
 *
 * A filter counts those who hold it: its owner and the filters that it is a part of. It never changes otherwise.
 */
#ifndef KITH_INDEX_FILTER_INSIDE_H
#define KITH_INDEX_FILTER_INSIDE_H

#include "index/filter.h"

typedef enum kith_filter_kind {
    KITH_FILTER_BITSET,
    KITH_FILTER_IDS,
    KITH_FILTER_RANGE,
    KITH_FILTER_CALLBACK,
    KITH_FILTER_AND,
    KITH_FILTER_OR,
    KITH_FILTER_NOT
} kith_filter_kind;

struct kith_filter {
    kith_filter_kind kind;
    _Atomic size_t holders;
    kith_allow_fn allow;
    uint64_t allowed_max; /* UINT64_MAX: unknown, and then the allowed ids cannot be listed */
    size_t depth;         /* of the tree: 1 for a leaf */
    bool asks;            /* a callback is among its leaves */
    int64_t first, last;  /* RANGE: first <= id < last; BITSET: bit b is id first + b, `last` past all bits */
    uint64_t *words;      /* BITSET; bits past the last one are 0 */
    int64_t *ids;         /* IDS: rising */
    size_t id_count;      /* IDS */
    kith_filter_fn fn;    /* CALLBACK */
    void *user;
    const kith_filter **parts; /* AND, OR, NOT: held; those that ask come last */
    size_t part_count;
};

/* A filter of a kind that its maker holds, all else zero. */
kith_status kith_filter_make(kith_filter_kind kind, kith_allow_fn allow, kith_filter **out);
/* The smallest allowed id from `id` (at least 0) on; INT64_MAX: there is none. Not where allowed_max is unknown. */
int64_t kith_filter_next(const kith_filter *filter, int64_t id);

#endif
