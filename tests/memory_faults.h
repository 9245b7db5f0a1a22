/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_faults.h: for tests with Criterion: a call that meets a failure at each of its allocations in turn.
 *
 *     memory_faults_install();
 *     MEMORY_FAULTS_EACH(status, kith_thing_create(&thing)) { ... the state after that failure ... }
 *     // here status == KITH_OK: the call went through
 */
#ifndef KITH_TESTS_MEMORY_FAULTS_H
#define KITH_TESTS_MEMORY_FAULTS_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "faults.h"
#include "kith/types.h"

static inline void memory_faults_install(void) { faults_install(); }

/* One step of MEMORY_FAULTS_EACH: was this a failure of the n-th allocation, after which the body is to run? Checks
 * the status and that nothing leaked. */
static inline int memory_faults_failed(kith_status status, size_t n, uint64_t live_before, const char *call) {
    int reached = faults_allocation_count() >= n;
    faults_fail_allocation(0);
    if (!reached) {
        cr_assert_eq(status, KITH_OK, "%s: %s", call, kith_error_message());
        return 0;
    }
    cr_assert_eq(status, KITH_ERR_NO_MEMORY, "%s with allocation %zu failing gave %s", call, n,
                 kith_status_name(status));
    cr_assert_eq(kith_memory_live_blocks(), live_before, "%s leaks when allocation %zu fails", call, n);
    return 1;
}

/* Calls `call` with allocation 1, 2, 3, ... failing until it gets by; the body runs after each failure. For calls
 * whose blocks in use are the same after a failure as before. */
#define MEMORY_FAULTS_EACH(status, call)                                                                           \
    for (uint64_t n_ = 1, live_ = kith_memory_live_blocks();                                                       \
         faults_fail_allocation(n_), (status) = (call), memory_faults_failed((status), n_, live_, #call); n_++)

#endif
