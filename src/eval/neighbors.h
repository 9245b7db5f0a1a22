/* SPDX-License-Identifier: Apache-2.0
 *
 * neighbors.h: reading lists of neighbours that a caller hands over.
 */
#ifndef KITH_EVAL_NEIGHBORS_H
#define KITH_EVAL_NEIGHBORS_H

#include "kith/eval.h"

/* Ranks are kept in 32 bits. */
#define KITH_NEIGHBORS_K_MAX ((size_t)1 << 30)

/* Copies the struct (not the arrays) of a caller who may know fewer fields, and checks its shape: at least one
 * query, k of 1..KITH_NEIGHBORS_K_MAX, ids there, a size that does not wrap. `what` names it in messages. */
kith_status kith_neighbors_read(const char *what, const kith_neighbors *given, kith_neighbors *own);

#endif
