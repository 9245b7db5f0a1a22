/* SPDX-License-Identifier: Apache-2.0
 *
 * filter.h: what a structure asks a filter.
 */
#ifndef KITH_INDEX_FILTER_H
#define KITH_INDEX_FILTER_H

#include "exact/exact.h"
#include "kith/index.h"

/* The function that tests one id; its context is the filter. NULL for a NULL filter: every id is allowed. */
kith_allow_fn kith_filter_allow_fn(const kith_filter *filter);

/* An upper bound of how many ids the filter allows; UINT64_MAX when it cannot be told without asking (a callback, a
 * negation). A structure that finds it small looks at the listed ids instead of at all rows. */
uint64_t kith_filter_allowed_max(const kith_filter *filter);
/* Calls `visit` for each allowed id, in rising order, until it returns false. Not where kith_filter_allowed_max is
 * UINT64_MAX. */
void kith_filter_visit(const kith_filter *filter, bool (*visit)(void *context, int64_t id), void *context);

/* Whether a callback is among what the filter is made of: then testing an id is the caller's code. */
bool kith_filter_asks(const kith_filter *filter);
/* Bit i of `words` becomes whether id first + i is allowed, for i < count; bits past these in the last word are 0. A
 * callback is asked at most once per id, and not about ids that other parts of the filter have decided. Ids are at most
 * KITH_ID_MAX. */
void kith_filter_bits(const kith_filter *filter, int64_t first, size_t count, uint64_t *words);

#endif
