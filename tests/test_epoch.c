/* SPDX-License-Identifier: Apache-2.0 */
#include "base/epoch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/chunks.h"
#include "base/deadset.h"
#include "base/idmap.h"
#include "memory_faults.h"

static void retire(kith_epoch *epoch, size_t bytes) {
    void *block;
    cr_assert_eq(kith_epoch_reserve(epoch, 1), KITH_OK);
    cr_assert_eq(kith_alloc(1, bytes, &block), KITH_OK);
    kith_epoch_retire(epoch, block);
}

Test(epoch, what_is_retired_waits_for_those_inside) {
    kith_epoch *epoch;
    cr_assert_eq(kith_epoch_create(&epoch), KITH_OK);
    kith_epoch_begin(epoch);
    retire(epoch, 100);
    uint64_t live = kith_memory_live_blocks();
    kith_epoch_ticket before = kith_epoch_enter(epoch);
    kith_epoch_publish(epoch);
    cr_assert_eq(kith_memory_live_blocks(), live);
    kith_epoch_ticket after = kith_epoch_enter(epoch); /* does not matter to the first block */
    kith_epoch_publish(epoch);
    cr_assert_eq(kith_memory_live_blocks(), live);
    kith_epoch_leave(epoch, before);
    kith_epoch_ticket last = kith_epoch_enter(epoch);
    kith_epoch_leave(epoch, after);
    kith_epoch_publish(epoch);
    cr_assert_eq(kith_memory_live_blocks(), live - 1);
    retire(epoch, 100);
    kith_epoch_publish(epoch);
    retire(epoch, 100); /* not published */
    kith_epoch_leave(epoch, last);
    kith_epoch_synchronize(epoch);
    cr_assert_eq(kith_memory_live_blocks(), live);
    kith_epoch_free(epoch);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(epoch, without_one_blocks_are_freed_at_once) {
    void *block;
    cr_assert_eq(kith_epoch_reserve(NULL, 5), KITH_OK);
    cr_assert_eq(kith_alloc(1, 10, &block), KITH_OK);
    kith_epoch_retire(NULL, block);
    kith_epoch_synchronize(NULL);
    kith_epoch_free(NULL);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(epoch, reserving_may_fail_and_retiring_does_not) {
    memory_faults_install();
    kith_epoch *epoch;
    faults_fail_allocation(1);
    cr_assert_eq(kith_epoch_create(&epoch), KITH_ERR_NO_MEMORY);
    cr_assert_eq(kith_epoch_create(&epoch), KITH_OK);
    kith_epoch_begin(epoch);
    faults_fail_allocation(1);
    cr_assert_eq(kith_epoch_reserve(epoch, 100), KITH_ERR_NO_MEMORY);
    cr_assert_eq(kith_epoch_reserve(epoch, 50), KITH_OK);
    cr_assert_eq(kith_epoch_reserve(epoch, 50), KITH_OK); /* on top of the others */
    void *blocks[100];
    for (size_t i = 0; i < 100; i++) cr_assert_eq(kith_alloc(1, 1, &blocks[i]), KITH_OK);
    faults_fail_allocation(1);
    for (size_t i = 0; i < 100; i++) kith_epoch_retire(epoch, blocks[i]);
    kith_epoch_publish(epoch);
    faults_fail_allocation(0);
    kith_epoch_free(epoch);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* The child has one thread, which was not inside. */
Test(epoch, a_child_does_not_wait_for_readers_of_its_parent) {
    kith_epoch *epoch;
    cr_assert_eq(kith_epoch_create(&epoch), KITH_OK);
    kith_epoch_ticket inside = kith_epoch_enter(epoch);
    pid_t child = fork();
    if (child == 0) {
        (void)alarm(300);
        kith_epoch_synchronize(epoch);
        kith_epoch_leave(epoch, inside); /* of another process: counts for nothing */
        kith_epoch_synchronize(epoch);
        kith_epoch_ticket own = kith_epoch_enter(epoch);
        kith_epoch_leave(epoch, own);
        kith_epoch_synchronize(epoch);
        _exit(7);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    kith_epoch_leave(epoch, inside);
    kith_epoch_synchronize(epoch);
    kith_epoch_free(epoch);
}

/* ---- Readers of what one writer replaces -------------------------------------------------------------------------- */

enum { READERS = 20, ROUNDS = 3000, WORDS = 32 }; /* more readers than there are counters */

typedef struct stage {
    kith_epoch *epoch;
    _Atomic(uint64_t *) shown; /* WORDS equal numbers */
    _Atomic int stop, wrong;
} stage;

static void *read_on(void *context) {
    stage *s = context;
    uint64_t last = 0;
    while (!atomic_load(&s->stop)) {
        kith_epoch_ticket ticket = kith_epoch_enter(s->epoch);
        const uint64_t *words = atomic_load(&s->shown);
        for (size_t w = 0; w < WORDS; w++)
            if (words[w] != words[0]) atomic_store(&s->wrong, 1);
        if (words[0] < last) atomic_store(&s->wrong, 2);
        last = words[0];
        kith_epoch_leave(s->epoch, ticket);
    }
    return NULL;
}

static uint64_t *words_of(uint64_t value) {
    uint64_t *words;
    cr_assert_eq(kith_alloc(WORDS, sizeof *words, &words), KITH_OK);
    for (size_t w = 0; w < WORDS; w++) words[w] = value;
    return words;
}

Test(epoch, readers_see_whole_blocks_in_order) {
    memory_faults_install(); /* fills what is freed */
    stage s = {.epoch = NULL};
    pthread_t threads[READERS];
    cr_assert_eq(kith_epoch_create(&s.epoch), KITH_OK);
    atomic_store(&s.shown, words_of(0));
    for (size_t i = 0; i < READERS; i++) cr_assert_eq(pthread_create(&threads[i], NULL, read_on, &s), 0);
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        kith_epoch_begin(s.epoch);
        cr_assert_eq(kith_epoch_reserve(s.epoch, 1), KITH_OK);
        kith_epoch_retire(s.epoch, atomic_exchange(&s.shown, words_of(round)));
        kith_epoch_publish(s.epoch);
        if (round % 500 == 0) kith_epoch_synchronize(s.epoch);
    }
    atomic_store(&s.stop, 1);
    for (size_t i = 0; i < READERS; i++) (void)pthread_join(threads[i], NULL);
    cr_assert_eq(atomic_load(&s.wrong), 0);
    kith_free(atomic_load(&s.shown));
    kith_epoch_free(s.epoch);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- What stands on it ----------------------------------------------------------------------------------------- */

Test(epoch, a_copy_of_a_dead_set_keeps_what_was) {
    enum { ROWS = 100000, STEP = 997 };
    kith_epoch *epoch;
    cr_assert_eq(kith_epoch_create(&epoch), KITH_OK);
    kith_epoch_ticket inside = kith_epoch_enter(epoch);
    kith_deadset set = {0}, first = {0}, plan;
    for (uint64_t row = 0; row < ROWS; row += STEP) {
        kith_epoch_begin(epoch);
        uint64_t rows[] = {row, row + 1};
        cr_assert_eq(kith_deadset_plan(&set, rows, 2, epoch, &plan), KITH_OK);
        kith_deadset_drop(&set, &plan);
        cr_assert_eq(kith_deadset_plan(&set, rows, 2, epoch, &plan), KITH_OK);
        kith_deadset_keep(&set, &plan, epoch);
        kith_epoch_publish(epoch);
        if (row == 0) first = set;
    }
    for (size_t row = 0; row < ROWS + STEP; row++) {
        cr_assert_eq(kith_deadset_has(&set, row), row <= ROWS && row % STEP < 2 && row / STEP <= (ROWS - 1) / STEP);
        cr_assert_eq(kith_deadset_has(&first, row), row < 2);
    }
    cr_assert_eq(set.count, 2 * ((ROWS - 1) / STEP + 1));
    kith_epoch_leave(epoch, inside);
    cr_assert_eq(kith_epoch_reserve(epoch, kith_deadset_blocks(&set)), KITH_OK);
    kith_deadset_clear(&set, epoch);
    kith_epoch_publish(epoch);
    kith_epoch_synchronize(epoch);
    kith_epoch_free(epoch);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(epoch, a_map_of_entries_gives_all_of_an_id) {
    kith_idmap map = {0};
    for (uint64_t row = 0; row < 5000; row++) {
        cr_assert_eq(kith_idmap_reserve(&map, map.count + 1), KITH_OK);
        kith_idmap_append(&map, (int64_t)(row % 1000), row);
    }
    for (int64_t id = 0; id < 1001; id++) {
        size_t step = 0, count = 0;
        uint64_t row, sum = 0;
        while (kith_idmap_next(&map, id, &step, &row)) {
            cr_assert_eq(row % 1000, (uint64_t)id);
            sum += row / 1000;
            count++;
        }
        cr_assert_eq(count, id < 1000 ? 5 : 0);
        cr_assert_eq(sum, id < 1000 ? 0 + 1 + 2 + 3 + 4 : 0);
    }
    kith_idmap_retire(&map);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(epoch, a_copy_of_chunks_outlives_their_growth) {
    kith_epoch *epoch;
    kith_chunks chunks;
    cr_assert_eq(kith_epoch_create(&epoch), KITH_OK);
    kith_chunks_init(&chunks, 4096);
    chunks.epoch = epoch;
    kith_epoch_begin(epoch);
    cr_assert_eq(kith_chunks_reserve(&chunks, 10), KITH_OK);
    for (size_t i = 0; i < 10; i++) memset(kith_chunks_at(&chunks, i), (int)i, 4096);
    kith_epoch_ticket inside = kith_epoch_enter(epoch);
    const kith_chunks before = chunks;
    for (size_t count = 10; count < 20000; count *= 2) {
        kith_epoch_begin(epoch);
        cr_assert_eq(kith_chunks_reserve(&chunks, count), KITH_OK);
        kith_epoch_publish(epoch);
    }
    cr_assert_neq(before.granule, chunks.granule);
    kith_epoch_begin(epoch);
    cr_assert_eq(kith_epoch_reserve(epoch, kith_chunks_blocks(&chunks)), KITH_OK);
    kith_chunks_retire(&chunks);
    kith_epoch_publish(epoch);
    for (size_t i = 0; i < 10; i++) cr_assert_eq(*(const unsigned char *)kith_chunks_at(&before, i), i);
    kith_epoch_leave(epoch, inside);
    kith_epoch_free(epoch);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
