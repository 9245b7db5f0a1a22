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

/* An upper bound of how many ids the filter allows; UINT64_MAX when it cannot be told without asking (callback). A
 * structure that finds it small looks at the listed ids instead of at all rows. */
uint64_t kith_filter_allowed_max(const kith_filter *filter);
/* Calls `visit` for each allowed id, in rising order, until it returns false. Not for callbacks. */
void kith_filter_visit(const kith_filter *filter, bool (*visit)(void *context, int64_t id), void *context);

#endif
