/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_faults.h: an allocator for tests that fails at the n-th allocation, fills what it hands out with a
 * pattern, and notices writes just past the end of a block.
 *
 *     MEMORY_FAULTS_EACH(status, kith_thing_create(&thing)) { ... the state after that failure ... }
 *     // here status == KITH_OK: the call went through, having met a failure at each of its allocations in turn
 */
#ifndef KITH_TESTS_MEMORY_FAULTS_H
#define KITH_TESTS_MEMORY_FAULTS_H

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kith/types.h"

static struct memory_faults {
    _Atomic uint64_t allocations; /* since memory_faults_at */
    uint64_t fail_at;             /* 1: the first one; 0: none */
} memory_faults;

enum { MEMORY_FAULTS_HEAD = 64, MEMORY_FAULTS_GUARD = 16, MEMORY_FAULTS_BYTE = 0xa5 };

/* Before the block: where malloc's own begins, and its size; after it: a guard. */
static void *memory_faults_alloc(void *user, size_t alignment, size_t bytes) {
    (void)user;
    uint64_t number = atomic_fetch_add(&memory_faults.allocations, 1) + 1;
    if (memory_faults.fail_at != 0 && number == memory_faults.fail_at) return NULL;
    unsigned char *base = malloc(alignment + MEMORY_FAULTS_HEAD + bytes + MEMORY_FAULTS_GUARD);
    if (base == NULL) return NULL;
    uintptr_t start = ((uintptr_t)base + MEMORY_FAULTS_HEAD + alignment - 1) & ~(uintptr_t)(alignment - 1);
    unsigned char *block = base + (start - (uintptr_t)base);
    memcpy(block - MEMORY_FAULTS_HEAD, &base, sizeof base);
    memcpy(block - MEMORY_FAULTS_HEAD / 2, &bytes, sizeof bytes);
    memset(block, MEMORY_FAULTS_BYTE, bytes + MEMORY_FAULTS_GUARD);
    return block;
}

static void memory_faults_release(void *user, void *block) {
    (void)user;
    unsigned char *start = block, *base;
    size_t bytes;
    memcpy(&base, start - MEMORY_FAULTS_HEAD, sizeof base);
    memcpy(&bytes, start - MEMORY_FAULTS_HEAD / 2, sizeof bytes);
    for (size_t i = 0; i < MEMORY_FAULTS_GUARD; i++)
        cr_assert_eq(start[bytes + i], MEMORY_FAULTS_BYTE, "byte %zu past a block of %zu was written", i, bytes);
    memset(start, 0x5a, bytes);
    free(base);
}

/* Makes kith allocate here from now on. Nothing of kith's may be live. */
static inline void memory_faults_install(void) {
    const kith_allocator hooks = {memory_faults_alloc, memory_faults_release, NULL};
    cr_assert_eq(kith_allocator_set(&hooks), KITH_OK, "%s", kith_error_message());
}

/* The n-th allocation from now on fails; 0: none does. */
static inline void memory_faults_at(uint64_t n) {
    memory_faults.fail_at = n;
    atomic_store(&memory_faults.allocations, 0);
}

/* One step of MEMORY_FAULTS_EACH: was this a failure of the n-th allocation, after which the body is to run? Checks
 * the status and that nothing leaked. */
static inline int memory_faults_failed(kith_status status, uint64_t n, uint64_t live_before, const char *call) {
    int reached = atomic_load(&memory_faults.allocations) >= n;
    memory_faults_at(0);
    if (!reached) {
        cr_assert_eq(status, KITH_OK, "%s: %s", call, kith_error_message());
        return 0;
    }
    cr_assert_eq(status, KITH_ERR_NO_MEMORY, "%s with allocation %llu failing gave %s", call, (unsigned long long)n,
                 kith_status_name(status));
    cr_assert_eq(kith_memory_live_blocks(), live_before, "%s leaks when allocation %llu fails", call,
                 (unsigned long long)n);
    return 1;
}

/* Calls `call` with allocation 1, 2, 3, ... failing until it gets by; the body runs after each failure. For calls
 * whose blocks in use are the same after a failure as before. */
#define MEMORY_FAULTS_EACH(status, call)                                                                           \
    for (uint64_t n_ = 1, live_ = kith_memory_live_blocks();                                                       \
         memory_faults_at(n_), (status) = (call), memory_faults_failed((status), n_, live_, #call); n_++)

#endif
