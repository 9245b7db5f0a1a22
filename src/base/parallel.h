/* SPDX-License-Identifier: Apache-2.0
 *
 * parallel.h: the one place where threads are started.
 */
#ifndef KITH_BASE_PARALLEL_H
#define KITH_BASE_PARALLEL_H

#include "kith/types.h"

/* The most threads that a call may ask for. */
enum { KITH_THREADS_MAX = 1024 };

/* Work on item `item` of the loop; `worker` is 0..threads-1 and owned by one thread at a time, so that it picks
 * scratch memory. A result must depend on `item` alone: items run in any order on any worker. */
typedef kith_status (*kith_parallel_fn)(void *context, size_t item, size_t worker);

/* Runs fn for every item 0..item_count-1 on at most `threads` threads (1: on the caller's own). The first failure
 * in item order among those that ran wins: its status is returned with its message; the others stop early.
 * In the child of a process that has run a loop on threads, loops run on one: OpenMP's pool does not survive a
 * fork. A loop inside a loop runs on one thread as well. */
kith_status kith_parallel_for(size_t threads, size_t item_count, kith_parallel_fn fn, void *context);

/* Stands for the call that a thread works for: the same for all threads of a loop as for the one that runs it. */
const void *kith_caller(void);

/* Progress of a long call, counted from any thread and reported from one at a time, at most 20 times a second. */
typedef struct kith_meter {
    kith_progress_fn report;
    void *user;
    const char *phase;
    uint64_t total;
    _Atomic uint64_t done;
    _Atomic uint64_t next_report_ns;
    _Atomic int cancelled;
    _Atomic int busy;
    uint64_t deadline_ns; /* on kith_now_ns; 0: none. Set after kith_meter_init */
    _Atomic int is_late;
} kith_meter;

void kith_meter_init(kith_meter *meter, kith_progress_fn report, void *user, const char *phase, uint64_t total);
/* Adds `units`; KITH_ERR_CANCELLED once the callback has asked for it; KITH_ERR_INCOMPLETE, and is_late set, past the
 * deadline. Cheap when there is neither. */
kith_status kith_meter_add(kith_meter *meter, uint64_t units);
/* The last report, done = total; call it from the thread that made the meter. */
kith_status kith_meter_finish(kith_meter *meter);

/* Monotonic time in nanoseconds. */
uint64_t kith_now_ns(void);

#endif
