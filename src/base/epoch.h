/* SPDX-License-Identifier: Apache-2.0
 *
 * epoch.h: readers that never wait, beside one writer that never frees what they may still read.
 *
 * A reader enters, loads an address that the writer publishes, reads what lies behind it, and leaves. The writer puts a
 * new address in the place of the old one and retires what only the old one leads to: it is freed once every reader
 * that was inside has left. Readers are counted as in sleepable RCU (McKenney, "Sleepable read-copy update", LWN 2006):
 * two counters for each of a few groups of threads, of which those that enter use one and those that leave may use the
 * other, so that any number of threads may be inside, for any time, and none has to be registered.
 *
 * A child of a fork finds nobody inside: the readers of its parent are not its own.
 */
#ifndef KITH_BASE_EPOCH_H
#define KITH_BASE_EPOCH_H

#include <stdbool.h>

#include "base/memory.h"

typedef struct kith_epoch kith_epoch;

kith_status kith_epoch_create(kith_epoch **out);
/* Nobody is inside, nor will be. Frees what was retired. Takes NULL. */
void kith_epoch_free(kith_epoch *epoch);

/* ---- Readers: any thread ------------------------------------------------------------------------------------- */

/* Which counter a reader is counted by. May be handed to another thread, and nest. */
typedef struct kith_epoch_ticket {
    unsigned slot, turn, fork;
} kith_epoch_ticket;

kith_epoch_ticket kith_epoch_enter(kith_epoch *epoch);
void kith_epoch_leave(kith_epoch *epoch, kith_epoch_ticket ticket);

/* ---- The writer: one thread at a time ------------------------------------------------------------------------ */

/* A change begins: what an earlier one reserved and did not use is given up. */
void kith_epoch_begin(kith_epoch *epoch);
/* Makes room to retire `more` blocks on top of what has been reserved since the change began. NULL: nothing to do. */
kith_status kith_epoch_reserve(kith_epoch *epoch, size_t more);
/* Takes a block over that readers of what is published may read; room has been reserved. It is freed when something
 * else has been published and all who entered before that have left. NULL for the epoch: there are no readers, it is
 * freed at once. */
void kith_epoch_retire(kith_epoch *epoch, void *block);
/* The writer has replaced what it publishes (a seq_cst store of the address, before this call): nobody who enters from
 * now on reads what was retired. Frees what nobody reads any more; waits only where a great many blocks wait for one
 * reader. */
void kith_epoch_publish(kith_epoch *epoch);
/* Waits until all who entered before have left. Frees as publish does. */
void kith_epoch_synchronize(kith_epoch *epoch);

#endif
