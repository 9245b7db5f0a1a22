/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "base/parallel.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"

/* ThreadSanitizer does not see the synchronisation inside the OpenMP runtime, so the loop tells it of the two
 * edges that exist: all before the region happens before its workers, all of them before what follows. */
#if defined(__SANITIZE_THREAD__)
#define KITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KITH_TSAN 1
#endif
#endif
#ifdef KITH_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define NO_TSAN               __attribute__((no_sanitize("thread")))
#define TSAN_ACQUIRE(address) __tsan_acquire(address)
#define TSAN_RELEASE(address) __tsan_release(address)
#else
#define NO_TSAN
#define TSAN_ACQUIRE(address) ((void)(address))
#define TSAN_RELEASE(address) ((void)(address))
#endif

typedef struct loop {
    kith_parallel_fn fn;
    void *context;
    const void *caller;
    size_t item_count;
    _Atomic size_t next;
    _Atomic int stop;
    pthread_mutex_t failure_lock;
    size_t failed_item;
    kith_status status;
    char message[512];
} loop;

static _Atomic int is_forked_child;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void note_fork(void) { atomic_store(&is_forked_child, 1); }
static void watch_forks(void) { (void)pthread_atfork(NULL, NULL, note_fork); }

size_t kith_threads_default(void) {
    cpu_set_t set; /* of 1024 processors: a larger machine has to be counted the other way */
    long count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count > KITH_THREADS_MAX ? KITH_THREADS_MAX : (size_t)count;
}

static void keep_failure(loop *work, size_t item, kith_status status) {
    (void)pthread_mutex_lock(&work->failure_lock);
    if (work->status == KITH_OK || item < work->failed_item) {
        work->failed_item = item;
        work->status = status;
        (void)snprintf(work->message, sizeof work->message, "%s", kith_error_message());
    }
    (void)pthread_mutex_unlock(&work->failure_lock);
    atomic_store(&work->stop, 1);
}

static _Thread_local const void *caller; /* NULL: the thread's own */

const void *kith_caller(void) {
    static _Thread_local char own;
    return caller != NULL ? caller : &own;
}

static void run_worker(loop *work, size_t worker) {
    while (!atomic_load_explicit(&work->stop, memory_order_relaxed)) {
        size_t item = atomic_fetch_add_explicit(&work->next, 1, memory_order_relaxed);
        if (item >= work->item_count) return;
        kith_status status = work->fn(work->context, item, worker);
        if (status != KITH_OK) keep_failure(work, item, status);
    }
}

NO_TSAN static void run_team(loop *work, int team) {
    TSAN_RELEASE(work);
#pragma omp parallel num_threads(team)
    {
        TSAN_ACQUIRE(work);
        const void *before = caller;
        caller = work->caller;
        run_worker(work, (size_t)omp_get_thread_num());
        caller = before;
        TSAN_RELEASE(work);
    }
    TSAN_ACQUIRE(work);
}

kith_status kith_parallel_for(size_t threads, size_t item_count, kith_parallel_fn fn, void *context) {
    if (threads > item_count) threads = item_count;
    if (threads <= 1 || atomic_load(&is_forked_child)) {
        for (size_t item = 0; item < item_count; item++) KITH_TRY(fn(context, item, 0));
        return KITH_OK;
    }
    (void)pthread_once(&fork_once, watch_forks); /* a process that has never got here may fork as it likes */
    loop work = {
        .fn = fn, .context = context, .caller = kith_caller(), .item_count = item_count, .status = KITH_OK};
    (void)pthread_mutex_init(&work.failure_lock, NULL);
    run_team(&work, (int)threads);
    (void)pthread_mutex_destroy(&work.failure_lock);
    return work.status == KITH_OK ? KITH_OK : kith_error(work.status, "%s", work.message);
}

uint64_t kith_now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static const uint64_t report_interval_ns = 50000000;

void kith_meter_init(kith_meter *meter, kith_progress_fn report, void *user, const char *phase, uint64_t total) {
    meter->report = report;
    meter->user = user;
    meter->phase = phase;
    meter->total = total;
    atomic_init(&meter->done, 0);
    atomic_init(&meter->next_report_ns, 0);
    atomic_init(&meter->cancelled, 0);
    atomic_init(&meter->busy, 0);
    meter->deadline_ns = 0;
    atomic_init(&meter->is_late, 0);
}

static kith_status cancelled(const kith_meter *meter) {
    return kith_error(KITH_ERR_CANCELLED, "%s: cancelled by the progress callback", meter->phase);
}

/* Calls the callback if it is still due: the thread that was here just before may have done it, or have been told
 * to cancel. */
static void report_if_due(kith_meter *meter) {
    if (atomic_load(&meter->cancelled) || kith_now_ns() < atomic_load(&meter->next_report_ns)) return;
    uint64_t done = atomic_load(&meter->done);
    if (done > meter->total) done = meter->total;
    if (meter->report(meter->user, meter->phase, done, meter->total) != 0) atomic_store(&meter->cancelled, 1);
    atomic_store(&meter->next_report_ns, kith_now_ns() + report_interval_ns);
}

kith_status kith_meter_add(kith_meter *meter, uint64_t units) {
    if (meter->deadline_ns != 0 && kith_now_ns() >= meter->deadline_ns) {
        atomic_store(&meter->is_late, 1);
        return kith_error(KITH_ERR_INCOMPLETE, "%s: the deadline has passed", meter->phase);
    }
    if (meter->report == NULL) return KITH_OK;
    atomic_fetch_add(&meter->done, units);
    if (kith_now_ns() >= atomic_load(&meter->next_report_ns) && !atomic_exchange(&meter->busy, 1)) {
        report_if_due(meter);
        atomic_store(&meter->busy, 0);
    }
    return atomic_load(&meter->cancelled) ? cancelled(meter) : KITH_OK;
}

kith_status kith_meter_finish(kith_meter *meter) {
    if (meter->report == NULL) return KITH_OK;
    if (!atomic_load(&meter->cancelled) &&
        meter->report(meter->user, meter->phase, meter->total, meter->total) != 0)
        atomic_store(&meter->cancelled, 1);
    return atomic_load(&meter->cancelled) ? cancelled(meter) : KITH_OK;
}
