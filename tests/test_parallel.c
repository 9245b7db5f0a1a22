/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "base/parallel.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

static const size_t thread_counts[] = {0, 1, 2, 3, 8, 64};
enum { THREAD_COUNTS = sizeof thread_counts / sizeof *thread_counts };

typedef struct visits {
    size_t threads, item_count;
    _Atomic uint32_t *seen;  /* per item */
    _Atomic uint32_t *owner; /* per worker: is it at work? */
    uint64_t *results;       /* per item, written without any lock */
} visits;

static kith_status visit(void *context, size_t item, size_t worker) {
    visits *all = context;
    if (item >= all->item_count) return kith_error(KITH_ERR_INTERNAL, "item %zu", item);
    if (worker != 0 && worker >= all->threads) return kith_error(KITH_ERR_INTERNAL, "worker %zu", worker);
    if (atomic_fetch_add(&all->owner[worker], 1) != 0)
        return kith_error(KITH_ERR_INTERNAL, "worker %zu twice", worker);
    atomic_fetch_add(&all->seen[item], 1);
    all->results[item] = item * item;
    atomic_fetch_sub(&all->owner[worker], 1);
    return KITH_OK;
}

static void check_loop(size_t threads, size_t item_count) {
    visits all = {.threads = threads, .item_count = item_count};
    all.seen = calloc(item_count + 1, sizeof *all.seen);
    all.owner = calloc(threads + 1, sizeof *all.owner);
    all.results = calloc(item_count + 1, sizeof *all.results);
    for (size_t i = 0; i < item_count; i++) all.results[i] = 1; /* the workers see what came before the loop */
    cr_assert_eq(kith_parallel_for(threads, item_count, visit, &all), KITH_OK, "%s", kith_error_message());
    for (size_t i = 0; i < item_count; i++) {
        cr_assert_eq(atomic_load(&all.seen[i]), 1, "%zu threads: item %zu", threads, i);
        cr_assert_eq(all.results[i], i * i, "the caller sees what the workers wrote");
    }
    free(all.seen);
    free(all.owner);
    free(all.results);
}

Test(parallel, each_item_once_at_any_thread_count) {
    static const size_t item_counts[] = {0, 1, 2, 3, 7, 100, 20000};
    for (size_t t = 0; t < THREAD_COUNTS; t++)
        for (size_t i = 0; i < sizeof item_counts / sizeof *item_counts; i++)
            check_loop(thread_counts[t], item_counts[i]);
}

Test(parallel, many_loops_with_far_more_threads_than_processors) {
    for (size_t round = 0; round < 50; round++) check_loop(4 * kith_threads_default() + 16, 500);
}

static kith_status fail_at_some(void *context, size_t item, size_t worker) {
    (void)worker;
    const size_t *first = context;
    if (item == *first) return kith_error(KITH_ERR_ZERO_VECTOR, "row %zu is zero", item);
    if (item > *first && item % 3 == 0) return kith_error(KITH_ERR_NOT_FINITE, "row %zu is not finite", item);
    return KITH_OK;
}

/* Items start in order, so that the first bad one always runs, whatever the others do. */
Test(parallel, the_first_failure_wins_with_its_message) {
    for (size_t t = 0; t < THREAD_COUNTS; t++)
        for (size_t first = 0; first < 60; first++) {
            char expected[64];
            (void)snprintf(expected, sizeof expected, "row %zu is zero", first);
            cr_assert_eq(kith_parallel_for(thread_counts[t], 1000, fail_at_some, &first), KITH_ERR_ZERO_VECTOR);
            cr_assert_str_eq(kith_error_message(), expected);
        }
}

static kith_status count_after_failure(void *context, size_t item, size_t worker) {
    (void)worker;
    atomic_fetch_add((_Atomic size_t *)context, 1);
    return item == 5 ? kith_error(KITH_ERR_RANGE, "stop") : KITH_OK;
}

Test(parallel, a_failure_stops_the_others) {
    for (size_t t = 0; t < THREAD_COUNTS; t++) {
        _Atomic size_t ran = 0;
        cr_assert_eq(kith_parallel_for(thread_counts[t], 100000000, count_after_failure, &ran), KITH_ERR_RANGE);
        cr_assert_lt(atomic_load(&ran), 100000000);
    }
}

static kith_status inner(void *context, size_t item, size_t worker) {
    (void)worker;
    atomic_fetch_add((_Atomic uint64_t *)context, item);
    return KITH_OK;
}

static kith_status outer(void *context, size_t item, size_t worker) {
    (void)item, (void)worker;
    return kith_parallel_for(4, 100, inner, context);
}

Test(parallel, loops_nest) {
    _Atomic uint64_t sum = 0;
    cr_assert_eq(kith_parallel_for(4, 10, outer, &sum), KITH_OK);
    cr_assert_eq(atomic_load(&sum), 10 * 4950);
}

/* After a fork OpenMP's threads are gone: the child's loops must end all the same. */
Test(parallel, a_forked_child_can_loop) {
    check_loop(8, 1000);
    for (int round = 0; round < 3; round++) {
        pid_t child = fork();
        cr_assert_geq(child, 0);
        if (child == 0) {
            (void)alarm(300);
            _Atomic uint64_t sum = 0;
            kith_status status = kith_parallel_for(8, 1000, inner, &sum);
            _exit(status == KITH_OK && atomic_load(&sum) == 499500 ? 0 : 1);
        }
        int how = 0;
        cr_assert_eq(waitpid(child, &how, 0), child);
        cr_assert(WIFEXITED(how) && WEXITSTATUS(how) == 0, "the child ended with %#x", (unsigned)how);
        check_loop(8, 1000);
    }
}

typedef struct report_log {
    _Atomic int inside;
    bool overlapped, fell, passed_total;
    _Atomic size_t calls;
    size_t cancel_at;
    uint64_t last_done;
    char phase[16];
} report_log;

static size_t calls_of(const report_log *log) { return atomic_load(&log->calls); }

static int report(void *user, const char *phase, uint64_t done, uint64_t total) {
    report_log *log = user;
    if (atomic_fetch_add(&log->inside, 1) != 0) log->overlapped = true;
    log->fell |= done < log->last_done;
    log->passed_total |= done > total;
    log->last_done = done;
    atomic_fetch_add(&log->calls, 1);
    (void)snprintf(log->phase, sizeof log->phase, "%s", phase);
    sched_yield();
    atomic_fetch_sub(&log->inside, 1);
    return log->cancel_at != 0 && calls_of(log) >= log->cancel_at;
}

typedef struct metered {
    kith_meter meter;
    const report_log *log;
    uint64_t until_ns;
    size_t calls_min; /* and until there were so many reports */
} metered;

static kith_status step_until(void *context, size_t item, size_t worker) {
    (void)item, (void)worker;
    metered *work = context;
    while (kith_now_ns() < work->until_ns || calls_of(work->log) < work->calls_min)
        KITH_TRY(kith_meter_add(&work->meter, 1));
    return KITH_OK;
}

Test(parallel, progress_comes_one_at_a_time_and_not_too_often) {
    report_log log = {0};
    metered work = {.log = &log, .until_ns = kith_now_ns() + 400000000, .calls_min = 4};
    kith_meter_init(&work.meter, report, &log, "search", 1000000000000);
    uint64_t start_ns = kith_now_ns();
    cr_assert_eq(kith_parallel_for(4, 4, step_until, &work), KITH_OK);
    cr_assert_eq(kith_meter_finish(&work.meter), KITH_OK);
    double seconds = (double)(kith_now_ns() - start_ns) * 1e-9;
    cr_assert_not(log.overlapped);
    cr_assert_not(log.fell, "progress never goes back");
    cr_assert_not(log.passed_total);
    cr_assert_leq((double)calls_of(&log), 20 * seconds + 2, "%zu calls in %g s", calls_of(&log), seconds);
    cr_assert_eq(log.last_done, 1000000000000, "the last report says: done");
    cr_assert_str_eq(log.phase, "search");
}

Test(parallel, progress_never_passes_the_total) {
    report_log log = {0};
    kith_meter meter;
    kith_meter_init(&meter, report, &log, "add", 10);
    cr_assert_eq(kith_meter_add(&meter, 25), KITH_OK);
    cr_assert_eq(calls_of(&log), 1);
    cr_assert_eq(log.last_done, 10);
    cr_assert_eq(kith_meter_finish(&meter), KITH_OK);
    cr_assert_not(log.passed_total);
}

Test(parallel, cancelling_ends_the_loop) {
    for (size_t t = 0; t < THREAD_COUNTS; t++) {
        report_log log = {.cancel_at = 2};
        metered work = {.log = &log, .until_ns = UINT64_MAX};
        kith_meter_init(&work.meter, report, &log, "add", 1000000000000);
        cr_assert_eq(kith_parallel_for(thread_counts[t], 64, step_until, &work), KITH_ERR_CANCELLED);
        cr_assert(strstr(kith_error_message(), "add: cancelled") != NULL, "%s", kith_error_message());
        cr_assert_eq(calls_of(&log), 2, "no report after the one that cancelled");
        cr_assert_eq(kith_meter_add(&work.meter, 1), KITH_ERR_CANCELLED);
        cr_assert_eq(kith_meter_finish(&work.meter), KITH_ERR_CANCELLED);
        cr_assert_eq(calls_of(&log), 2);
    }
}

Test(parallel, the_last_report_may_cancel) {
    report_log log = {.cancel_at = 1};
    kith_meter meter;
    kith_meter_init(&meter, report, &log, "add", 10);
    cr_assert_eq(kith_meter_finish(&meter), KITH_ERR_CANCELLED);
}

Test(parallel, no_callback_is_no_work) {
    kith_meter meter;
    kith_meter_init(&meter, NULL, NULL, "add", 10);
    cr_assert_eq(kith_meter_add(&meter, 5), KITH_OK);
    cr_assert_eq(kith_meter_finish(&meter), KITH_OK);
}

Test(parallel, processors_follow_the_affinity) {
    cpu_set_t before, one;
    cr_assert_eq(sched_getaffinity(0, sizeof before, &before), 0);
    cr_assert_eq(kith_threads_default(), (size_t)CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &before)) {
            CPU_SET(cpu, &one);
            break;
        }
    cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
    cr_assert_eq(kith_threads_default(), 1);
}
