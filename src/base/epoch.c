/* SPDX-License-Identifier: Apache-2.0 */
#include "base/epoch.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

enum { SLOTS = 16, WAITING_MAX = 16384, ROOM_MIN = 32 };

/* Readers of some threads that are inside, by the turn in which they entered. */
typedef struct slot {
    _Alignas(KITH_ALIGNMENT) _Atomic uint64_t inside[2];
} slot;

/* How far the writer is in waiting for those who entered before. A reader may take a turn to be the present one, stop,
 * and be counted by it when it no longer is: so both turns have to be seen empty, the other one first. */
typedef enum phase { IDLE, OTHER_TURN, LAST_TURN } phase;

struct kith_epoch {
    slot slots[SLOTS];
    _Atomic unsigned turn; /* of those who enter: 0 or 1 */
    phase phase;
    void **
        blocks; /* retired: first those waited for, then those published later, then those that are published yet */
    size_t count, covered, published, room, reserved;
    kith_epoch *next, *before; /* of all that there are */
};

/* ---- Forks --------------------------------------------------------------------------------------------------- */

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static kith_epoch *all;
static _Atomic unsigned fork_count; /* between this process and the first */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void before_fork(void) { (void)pthread_mutex_lock(&all_lock); }
static void after_fork(void) { (void)pthread_mutex_unlock(&all_lock); }

static void in_child(void) {
    atomic_fetch_add(&fork_count, 1);
    for (kith_epoch *epoch = all; epoch != NULL; epoch = epoch->next)
        for (size_t s = 0; s < SLOTS; s++)
            for (size_t t = 0; t < 2; t++) atomic_store(&epoch->slots[s].inside[t], 0);
    (void)pthread_mutex_unlock(&all_lock);
}

static void watch_forks(void) { (void)pthread_atfork(before_fork, after_fork, in_child); }

/* ---- Life ---------------------------------------------------------------------------------------------------- */

kith_status kith_epoch_create(kith_epoch **out) {
    kith_status status = kith_alloc_zeroed(1, sizeof **out, out);
    if (status != KITH_OK) return status;
    (void)pthread_once(&fork_once, watch_forks);
    (void)pthread_mutex_lock(&all_lock);
    (*out)->next = all;
    if (all != NULL) all->before = *out;
    all = *out;
    (void)pthread_mutex_unlock(&all_lock);
    return KITH_OK;
}

void kith_epoch_free(kith_epoch *epoch) {
    if (epoch == NULL) return;
    (void)pthread_mutex_lock(&all_lock);
    if (epoch->next != NULL) epoch->next->before = epoch->before;
    *(epoch->before != NULL ? &epoch->before->next : &all) = epoch->next;
    (void)pthread_mutex_unlock(&all_lock);
    for (size_t i = 0; i < epoch->count; i++) kith_free(epoch->blocks[i]);
    kith_free(epoch->blocks);
    kith_free(epoch);
}

/* ---- Readers ------------------------------------------------------------------------------------------------- */

static unsigned slot_of_thread(void) {
    static _Atomic unsigned threads;
    static _Thread_local unsigned own; /* one more than the slot; 0: none yet */
    if (own == 0) own = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) % SLOTS + 1;
    return own - 1;
}

kith_epoch_ticket kith_epoch_enter(kith_epoch *epoch) {
    kith_epoch_ticket ticket = {
        .slot = slot_of_thread(),
        .turn = atomic_load_explicit(&epoch->turn, memory_order_relaxed),
        .fork = atomic_load_explicit(&fork_count, memory_order_relaxed),
    };
    /* Before the load of the address: either the writer sees this reader, or the reader what the writer published. */
    atomic_fetch_add(&epoch->slots[ticket.slot].inside[ticket.turn], 1);
    return ticket;
}

void kith_epoch_leave(kith_epoch *epoch, kith_epoch_ticket ticket) {
    if (ticket.fork != atomic_load_explicit(&fork_count, memory_order_relaxed)) return;
    atomic_fetch_sub_explicit(&epoch->slots[ticket.slot].inside[ticket.turn], 1, memory_order_release);
}

/* ---- The writer ---------------------------------------------------------------------------------------------- */

void kith_epoch_begin(kith_epoch *epoch) {
    if (epoch != NULL) epoch->reserved = 0;
}

kith_status kith_epoch_reserve(kith_epoch *epoch, size_t more) {
    if (epoch == NULL) return KITH_OK;
    size_t needed = epoch->count + epoch->reserved + more;
    if (needed > epoch->room) {
        size_t room = kith_max_size(needed, 2 * kith_max_size(epoch->room, ROOM_MIN));
        kith_status status = kith_realloc(&epoch->blocks, epoch->count, room, sizeof *epoch->blocks);
        if (status != KITH_OK) return status;
        epoch->room = room;
    }
    epoch->reserved += more;
    return KITH_OK;
}

void kith_epoch_retire(kith_epoch *epoch, void *block) {
    if (block == NULL) return;
    if (epoch == NULL) {
        kith_free(block);
        return;
    }
    assert(epoch->reserved > 0);
    epoch->blocks[epoch->count++] = block;
    epoch->reserved--;
}

static bool is_empty(const kith_epoch *epoch, unsigned turn) {
    for (size_t s = 0; s < SLOTS; s++)
        if (atomic_load(&epoch->slots[s].inside[turn]) != 0) return false;
    return true;
}

/* Frees the blocks that were waited for. */
static void free_covered(kith_epoch *epoch) {
    for (size_t i = 0; i < epoch->covered; i++) kith_free(epoch->blocks[i]);
    epoch->count -= epoch->covered;
    epoch->published -= epoch->covered;
    for (size_t i = 0; i < epoch->count; i++) epoch->blocks[i] = epoch->blocks[epoch->covered + i];
    epoch->covered = 0;
}

/* Begins to wait for those who are inside. */
static void begin_to_wait(kith_epoch *epoch) {
    epoch->covered = epoch->published;
    epoch->phase = OTHER_TURN;
}

/* Goes on waiting as far as it can; true: all have left. */
static bool have_left(kith_epoch *epoch) {
    if (epoch->phase == IDLE) return true;
    unsigned turn = atomic_load_explicit(&epoch->turn, memory_order_relaxed);
    if (epoch->phase == OTHER_TURN) {
        if (!is_empty(epoch, 1 - turn)) return false;
        turn = 1 - turn;
        atomic_store(&epoch->turn, turn);
        epoch->phase = LAST_TURN;
    }
    if (!is_empty(epoch, 1 - turn)) return false;
    epoch->phase = IDLE;
    free_covered(epoch);
    return true;
}

static void wait_for_all(kith_epoch *epoch) {
    while (!have_left(epoch)) (void)sched_yield();
}

void kith_epoch_publish(kith_epoch *epoch) {
    epoch->published = epoch->count;
    if (epoch->phase != IDLE && !have_left(epoch)) {
        if (epoch->published > WAITING_MAX) kith_epoch_synchronize(epoch);
        return;
    }
    if (epoch->published == 0) return;
    begin_to_wait(epoch);
    (void)have_left(epoch);
}

void kith_epoch_synchronize(kith_epoch *epoch) {
    if (epoch == NULL) return;
    wait_for_all(epoch);
    begin_to_wait(epoch);
    wait_for_all(epoch);
}
