/* SPDX-License-Identifier: Apache-2.0
 *
 * live.h: searches beside changes.
 *
 * Changes of an index follow one another: each holds the writers' lock. Searches never wait. A search runs on a *view*: a
 * copy of the index's own struct, and of those of the indexes inside, that was made after a change and that nothing changes
 * any more. The next change works on the index itself and ends with the next view, which one store puts in the place of
 * the last. So a call of search sees the index as it was between two changes, all parts of it at the same moment.
 *
 * For that a structure keeps what views refer to, and says so by `concurrent` in its vtable:
 *   - Nothing is freed or moved that a view refers to: it is retired (base/epoch.h), and freed after the last reader.
 *   - Nothing is written that a view refers to, but for what lies past its counts: rows, slots and entries that it does not
 *     have. What is removed is marked in a set that is copied (base/deadset.h), what is replaced is appended. Single words
 *     may change by atomic stores where the old and the new are right for every view: links of a graph.
 *   - Of the common part, struct kith_index, `count` alone is written (training apart): calls read the rest unlocked.
 * An index with a part that does not say so has a readers-writer lock in place of views: its searches wait for changes.
 *
 * Whatever is not a search, and does not change anything, takes the writers' lock too, and works on the index itself.
 */
#ifndef KITH_INDEX_LIVE_H
#define KITH_INDEX_LIVE_H

#include "base/epoch.h"
#include "index/vtable.h"

/* Makes an index, which is complete, one that any thread may use: what is handed to the caller. A mapped one stays as it
 * is: nothing changes it. On failure it is as before. */
kith_status kith_live_open(kith_index *index);
/* The same for *out, which is freed on failure. */
kith_status kith_live_hand_out(kith_index **out);
/* The other way round. Takes an index that is not live. */
void kith_live_close(kith_index *index);

/* The live vectors, beside changes. */
size_t kith_live_count(const kith_index *index);

/* ---- Searches ------------------------------------------------------------------------------------------------ */

typedef struct kith_reading {
    const kith_index *view; /* what is to be searched */
    struct kith_live *live;
    kith_epoch_ticket ticket;
} kith_reading;

/* KITH_ERR_ARGUMENT in a callback of a change of the same index, where it has no views. */
kith_status kith_read_begin(const kith_index *index, kith_reading *reading);
void kith_read_end(const kith_reading *reading);

/* ---- Changes, and whatever else looks at the index itself ----------------------------------------------------- */

/* Takes the writers' lock, and the memory that ending the change needs. KITH_ERR_ARGUMENT within a change of the same
 * index, from one of its callbacks. Ends with kith_change_end unless it fails, whatever became of the change. */
kith_status kith_change_begin(kith_index *index);
void kith_change_end(kith_index *index);
/* Within a change, of the index or one inside: all searches from here on have a view of it as it is at this moment, and
 * those that have older ones have ended. Waits for them: for growth that happens now and then. */
void kith_change_show(kith_index *index);
/* The same of an index that has lost its last vector, whatever it lies in: from here on searches find nothing to look at,
 * and nothing has to be kept for them. Sets the count of the outermost, which is set anew when the change goes on. */
void kith_change_show_empty(kith_index *index);

/* The writers' lock alone. */
kith_status kith_hold_begin(const kith_index *index);
void kith_hold_end(const kith_index *index);

#endif
