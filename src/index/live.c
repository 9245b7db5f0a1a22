/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "index/live.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/parallel.h"

enum { SPARE_VIEWS = 2 }; /* one for the end of a change, one for kith_change_show */

struct kith_live {
    kith_index *index; /* the outermost */
    pthread_mutex_t writers;
    _Atomic(const void *) holder; /* kith_caller of the one who has it */
    pthread_rwlock_t everything;  /* where there are no views: searches share it */
    kith_epoch *epoch;            /* NULL: no views */
    _Atomic(kith_index *) view;
    kith_index *spares[SPARE_VIEWS]; /* memory for views */
    size_t view_bytes;
    _Atomic size_t count;
};

/* ---- Views --------------------------------------------------------------------------------------------------- */

static kith_index **inner_of(kith_index *index, size_t i) {
    return (kith_index **)(void *)((char *)index + index->vtable->inner_offsets[i]);
}

static bool is_concurrent(kith_index *index) {
    for (size_t i = 0; i < index->vtable->inner_count; i++)
        if (!is_concurrent(*inner_of(index, i))) return false;
    return index->vtable->concurrent;
}

static size_t view_bytes(kith_index *index) {
    size_t bytes = kith_round_up(index->vtable->struct_bytes, KITH_ALIGNMENT);
    for (size_t i = 0; i < index->vtable->inner_count; i++) bytes += view_bytes(*inner_of(index, i));
    return bytes;
}

/* Copies an index and those inside to *at, and moves *at past them. */
static kith_index *copy_view(kith_index *index, unsigned char **at) {
    kith_index *view = (kith_index *)(void *)*at;
    memcpy(view, index, index->vtable->struct_bytes);
    *at += kith_round_up(index->vtable->struct_bytes, KITH_ALIGNMENT);
    for (size_t i = 0; i < index->vtable->inner_count; i++) *inner_of(view, i) = copy_view(*inner_of(index, i), at);
    return view;
}

/* A view of the index as it is takes the place of the last one. */
static void publish(struct kith_live *live) {
    kith_index *old = NULL;
    if (live->epoch != NULL) {
        size_t s = live->spares[0] != NULL ? 0 : 1;
        unsigned char *memory = (unsigned char *)live->spares[s];
        live->spares[s] = NULL;
        old = atomic_exchange(&live->view, copy_view(live->index, &memory));
    }
    /* After the view: who reads a count finds as many. */
    atomic_store_explicit(&live->count, live->index->count, memory_order_release);
    if (live->epoch == NULL) return;
    kith_epoch_retire(live->epoch, old);
    kith_epoch_publish(live->epoch);
}

static kith_status take_spares(struct kith_live *live) {
    if (live->epoch == NULL) return KITH_OK;
    kith_epoch_begin(live->epoch);
    KITH_TRY(kith_epoch_reserve(live->epoch, SPARE_VIEWS));
    for (size_t s = 0; s < SPARE_VIEWS; s++)
        if (live->spares[s] == NULL) KITH_TRY(kith_alloc(1, live->view_bytes, &live->spares[s]));
    return KITH_OK;
}

/* ---- Life ---------------------------------------------------------------------------------------------------- */

static void set_live(kith_index *index, struct kith_live *live) {
    index->live = live;
    if (index->vtable->set_epoch != NULL) index->vtable->set_epoch(index, live != NULL ? live->epoch : NULL);
    for (size_t i = 0; i < index->vtable->inner_count; i++) set_live(*inner_of(index, i), live);
}

static void init_locks(struct kith_live *live) {
    (void)pthread_mutex_init(&live->writers, NULL);
    pthread_rwlockattr_t order;
    (void)pthread_rwlockattr_init(&order);
    /* A search that follows on another at once would keep changes waiting for ever. */
    (void)pthread_rwlockattr_setkind_np(&order, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(&live->everything, &order);
    (void)pthread_rwlockattr_destroy(&order);
}

void kith_live_close(kith_index *index) {
    struct kith_live *live = index->live;
    if (live == NULL) return;
    set_live(index, NULL);
    for (size_t s = 0; s < SPARE_VIEWS; s++) kith_free(live->spares[s]);
    kith_free(atomic_load(&live->view));
    kith_epoch_free(live->epoch);
    (void)pthread_mutex_destroy(&live->writers);
    (void)pthread_rwlock_destroy(&live->everything);
    kith_free(live);
}

kith_status kith_live_open(kith_index *index) {
    if (index->is_mapped) return KITH_OK;
    struct kith_live *live;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *live, &live));
    init_locks(live);
    live->index = index;
    live->view_bytes = view_bytes(index);
    kith_status status = KITH_OK;
    if (is_concurrent(index)) status = kith_epoch_create(&live->epoch);
    set_live(index, live);
    if (status == KITH_OK) status = take_spares(live);
    if (status == KITH_OK)
        publish(live);
    else
        kith_live_close(index);
    return status;
}

kith_status kith_live_hand_out(kith_index **out) {
    kith_status status = kith_live_open(*out);
    if (status == KITH_OK) return KITH_OK;
    kith_index_free(*out);
    *out = NULL;
    return status;
}

size_t kith_live_count(const kith_index *index) {
    return index->live != NULL ? atomic_load_explicit(&index->live->count, memory_order_acquire) : index->count;
}

/* ---- Searches ------------------------------------------------------------------------------------------------ */

kith_status kith_read_begin(const kith_index *index, kith_reading *reading) {
    struct kith_live *live = index->live;
    *reading = (kith_reading){.view = index, .live = live};
    if (live == NULL) return KITH_OK;
    if (live->epoch == NULL) {
        if (pthread_rwlock_rdlock(&live->everything) == 0) return KITH_OK;
        return kith_error(KITH_ERR_ARGUMENT, "search: called from a callback of a change of the same index");
    }
    reading->ticket = kith_epoch_enter(live->epoch);
    reading->view = atomic_load(&live->view);
    return KITH_OK;
}

void kith_read_end(const kith_reading *reading) {
    if (reading->live == NULL) return;
    if (reading->live->epoch == NULL)
        (void)pthread_rwlock_unlock(&reading->live->everything);
    else
        kith_epoch_leave(reading->live->epoch, reading->ticket);
}

/* ---- Changes ------------------------------------------------------------------------------------------------- */

kith_status kith_hold_begin(const kith_index *index) {
    struct kith_live *live = index->live;
    if (live == NULL) return KITH_OK;
    if (atomic_load(&live->holder) == kith_caller())
        return kith_error(KITH_ERR_ARGUMENT, "an index was used from a callback of one of its own changes");
    (void)pthread_mutex_lock(&live->writers);
    atomic_store(&live->holder, kith_caller());
    return KITH_OK;
}

void kith_hold_end(const kith_index *index) {
    if (index->live == NULL) return;
    atomic_store(&index->live->holder, NULL);
    (void)pthread_mutex_unlock(&index->live->writers);
}

kith_status kith_change_begin(kith_index *index) {
    struct kith_live *live = index->live;
    KITH_TRY(kith_hold_begin(index));
    if (live == NULL) return KITH_OK;
    kith_status status = take_spares(live);
    if (status != KITH_OK)
        kith_hold_end(index);
    else if (live->epoch == NULL)
        (void)pthread_rwlock_wrlock(&live->everything);
    return status;
}

void kith_change_end(kith_index *index) {
    struct kith_live *live = index->live;
    if (live == NULL) return;
    publish(live);
    if (live->epoch == NULL) (void)pthread_rwlock_unlock(&live->everything);
    kith_hold_end(index);
}

void kith_change_show(kith_index *index) {
    struct kith_live *live = index->live;
    if (live == NULL || live->epoch == NULL) return;
    publish(live);
    kith_epoch_synchronize(live->epoch);
}

void kith_change_show_empty(kith_index *index) {
    if (index->live != NULL) index->live->index->count = 0;
    kith_change_show(index);
}
