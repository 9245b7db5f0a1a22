/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_tools.h: what the programs that measure have in common. An error ends them; who includes
 * this defines PROGRAM, the name that its messages begin with.
 */
#ifndef KITH_BENCH_BENCH_TOOLS_H
#define KITH_BENCH_BENCH_TOOLS_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kith/kith.h"

static inline void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", PROGRAM, what);
    exit(1);
}

static inline void must(kith_status status) {
    if (status != KITH_OK) fail(kith_error_message());
}

/* Zeros. */
static inline void *memory(size_t count, size_t each) {
    void *block = calloc(count > 0 ? count : 1, each);
    if (block == NULL) fail("out of memory");
    return block;
}

static inline double seconds_of(clockid_t clock) {
    struct timespec time;
    (void)clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

#endif
