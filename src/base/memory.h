/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.h: allocation through the caller's hooks, and size arithmetic that notices overflow.
 */
#ifndef KITH_BASE_MEMORY_H
#define KITH_BASE_MEMORY_H

#include <stdbool.h>

#include "kith/types.h"

/* All blocks are aligned to 64 bytes; those of 4 MiB and more to 2 MiB, and the kernel is asked for huge pages. */
enum { KITH_ALIGNMENT = 64 };

/* Uninitialised memory for `count` items of `each` bytes into *out; NULL and KITH_OK when the product is 0.
 * KITH_ERR_OVERFLOW or KITH_ERR_NO_MEMORY with the size in the message, *out NULL. */
kith_status kith_alloc(size_t count, size_t each, void *out);
/* The same, zeroed. */
kith_status kith_alloc_zeroed(size_t count, size_t each, void *out);
/* Moves an array to a new size, keeping the first min(old, new) items; on failure the old block stays. `array`
 * points to the caller's pointer, which is replaced. */
kith_status kith_realloc(void *array, size_t old_count, size_t new_count, size_t each);
/* Takes NULL. */
void kith_free(void *block);

/* True when the result does not fit: *out is then unspecified. */
static inline bool kith_mul_overflows(size_t a, size_t b, size_t *out) { return __builtin_mul_overflow(a, b, out); }
static inline bool kith_add_overflows(size_t a, size_t b, size_t *out) { return __builtin_add_overflow(a, b, out); }

static inline size_t kith_min_size(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t kith_max_size(size_t a, size_t b) { return a > b ? a : b; }
/* `value` rounded up to a multiple of `unit`, a power of two; the caller knows that it does not overflow. */
static inline size_t kith_round_up(size_t value, size_t unit) { return (value + unit - 1) & ~(unit - 1); }

#endif
