/* SPDX-License-Identifier: Apache-2.0 */
#include "base/chunks.h"

#include <string.h>

#include "base/error.h"

static const size_t granule_bytes = (size_t)64 << 10, full_chunk_bytes = (size_t)16 << 20;
enum { WHOLE_SHIFT = 63 }; /* of memory that is all one granule */

/* The first granule of chunk c: 0, 1, 2, 4, ... up to full chunks. */
static size_t first_granule(const kith_chunks *chunks, size_t c) {
    if (c == 0) return 0;
    return c <= chunks->full_shift ? (size_t)1 << (c - 1) : (c - chunks->full_shift) << chunks->full_shift;
}

static size_t chunk_of(const kith_chunks *chunks, size_t granule) {
    if (granule == 0) return 0;
    size_t full = granule >> chunks->full_shift;
    return full != 0 ? chunks->full_shift + full : 64u - (unsigned)__builtin_clzll(granule);
}

static size_t chunks_for(const kith_chunks *chunks, size_t count) {
    return count == 0 ? 0 : chunk_of(chunks, (count - 1) >> chunks->shift) + 1;
}

void kith_chunks_init(kith_chunks *chunks, size_t item_bytes) {
    *chunks = (kith_chunks){.item_bytes = item_bytes};
    while (item_bytes << (chunks->shift + 1) <= granule_bytes) chunks->shift++;
    while ((item_bytes << chunks->shift) << (chunks->full_shift + 1) <= full_chunk_bytes) chunks->full_shift++;
}

void kith_chunks_view(kith_chunks *chunks, size_t item_bytes, const void *items, size_t count,
                      unsigned char **table) {
    *table = (unsigned char *)(uintptr_t)items;
    *chunks = (kith_chunks){
        .granule = table, .room = count, .item_bytes = item_bytes, .shift = WHOLE_SHIFT, .borrowed = true};
}

kith_status kith_chunks_borrow(kith_chunks *chunks, size_t item_bytes, const void *items, size_t count) {
    unsigned char **table;
    KITH_TRY(kith_alloc(1, sizeof *table, &table));
    kith_chunks_view(chunks, item_bytes, items, count, table);
    chunks->granule_capacity = 1;
    return KITH_OK;
}

void kith_chunks_free(kith_chunks *chunks) {
    if (!chunks->borrowed) kith_chunks_trim(chunks, 0, 0);
    kith_free(chunks->granule);
    chunks->granule = NULL;
    chunks->granule_capacity = chunks->room = 0;
}

static void set_chunk_count(kith_chunks *chunks, size_t count) {
    chunks->chunk_count = count;
    chunks->room = first_granule(chunks, count) << chunks->shift;
}

static kith_status reserve_table(kith_chunks *chunks, size_t count) {
    if (count <= chunks->granule_capacity) return KITH_OK;
    size_t capacity = kith_max_size(count, 2 * chunks->granule_capacity);
    unsigned char **table;
    KITH_TRY(kith_epoch_reserve(chunks->epoch, 1));
    KITH_TRY(kith_alloc(capacity, sizeof *table, &table));
    size_t kept = first_granule(chunks, chunks->chunk_count);
    if (kept > 0) memcpy(table, chunks->granule, kept * sizeof *table);
    kith_epoch_retire(chunks->epoch, chunks->granule);
    chunks->granule = table;
    chunks->granule_capacity = capacity;
    return KITH_OK;
}

static kith_status add_chunk(kith_chunks *chunks) {
    size_t first = first_granule(chunks, chunks->chunk_count), end = first_granule(chunks, chunks->chunk_count + 1);
    size_t bytes = chunks->item_bytes << chunks->shift;
    unsigned char *memory;
    KITH_TRY(kith_alloc(end - first, bytes, &memory));
    for (size_t g = first; g < end; g++) chunks->granule[g] = memory + (g - first) * bytes;
    set_chunk_count(chunks, chunks->chunk_count + 1);
    return KITH_OK;
}

static void drop_chunks(kith_chunks *chunks, size_t kept) {
    for (; chunks->chunk_count > kept; set_chunk_count(chunks, chunks->chunk_count - 1))
        kith_free(chunks->granule[first_granule(chunks, chunks->chunk_count - 1)]);
}

static kith_status check_bytes(size_t item_bytes, size_t count, size_t bytes_max) {
    size_t bytes;
    if (!kith_mul_overflows(count, item_bytes, &bytes) && bytes <= bytes_max) return KITH_OK;
    return kith_error(KITH_ERR_OVERFLOW, "memory: %zu items of %zu bytes do not fit the address space", count,
                      item_bytes);
}

kith_status kith_chunks_reserve(kith_chunks *chunks, size_t count) {
    KITH_TRY(check_bytes(chunks->item_bytes, count, SIZE_MAX));
    if (count <= chunks->room) return KITH_OK;
    if (chunks->borrowed) return kith_error(KITH_ERR_READ_ONLY, "the vectors belong to a mapped file");
    size_t had = chunks->chunk_count, needed = chunks_for(chunks, count);
    KITH_TRY(reserve_table(chunks, first_granule(chunks, needed)));
    while (chunks->chunk_count < needed) {
        kith_status status = add_chunk(chunks);
        if (status != KITH_OK) {
            drop_chunks(chunks, had);
            return status;
        }
    }
    return KITH_OK;
}

void kith_chunks_trim(kith_chunks *chunks, size_t count, size_t spare) {
    if (chunks->borrowed) return;
    drop_chunks(chunks, chunks_for(chunks, count) + spare);
    if (chunks->chunk_count > 0) return;
    kith_free(chunks->granule);
    chunks->granule = NULL;
    chunks->granule_capacity = 0;
}

void kith_chunks_retire(kith_chunks *chunks) {
    for (; chunks->chunk_count > 0; set_chunk_count(chunks, chunks->chunk_count - 1))
        kith_epoch_retire(chunks->epoch, chunks->granule[first_granule(chunks, chunks->chunk_count - 1)]);
    kith_epoch_retire(chunks->epoch, chunks->granule);
    chunks->granule = NULL;
    chunks->granule_capacity = 0;
}

uint64_t kith_chunks_bytes(const kith_chunks *chunks) {
    return (uint64_t)chunks->granule_capacity * sizeof *chunks->granule +
           (uint64_t)chunks->room * chunks->item_bytes;
}

kith_status kith_chunks_bytes_for(size_t item_bytes, size_t count, uint64_t *bytes) {
    KITH_TRY(check_bytes(item_bytes, count, SIZE_MAX / 16)); /* room for what rounding up adds, and for sums */
    kith_chunks empty;
    kith_chunks_init(&empty, item_bytes);
    size_t granules = first_granule(&empty, chunks_for(&empty, count));
    *bytes += (uint64_t)granules * (sizeof *empty.granule + (item_bytes << empty.shift));
    return KITH_OK;
}

void *kith_chunks_run(const kith_chunks *chunks, size_t i, size_t *run) {
    size_t end = chunks->room;
    if (!chunks->borrowed) end = first_granule(chunks, chunk_of(chunks, i >> chunks->shift) + 1) << chunks->shift;
    *run = end - i;
    return kith_chunks_at(chunks, i);
}
