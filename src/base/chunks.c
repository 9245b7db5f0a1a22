/* SPDX-License-Identifier: Apache-2.0 */
#include "base/chunks.h"

#include "base/error.h"

static const size_t full_chunk_bytes = (size_t)16 << 20;

static size_t chunk_items(const kith_chunks *chunks, size_t c) {
    size_t doubling = chunks->shift - KITH_CHUNK_FIRST_SHIFT;
    if (c == 0) return (size_t)1 << KITH_CHUNK_FIRST_SHIFT;
    return c <= doubling ? (size_t)1 << (c - 1 + KITH_CHUNK_FIRST_SHIFT) : (size_t)1 << chunks->shift;
}

void kith_chunks_init(kith_chunks *chunks, size_t item_bytes) {
    *chunks = (kith_chunks){.item_bytes = item_bytes, .shift = KITH_CHUNK_FIRST_SHIFT};
    while (item_bytes << (chunks->shift + 1) <= full_chunk_bytes) chunks->shift++;
}

static kith_status reserve_pointers(kith_chunks *chunks, size_t count) {
    if (count <= chunks->chunk_capacity) return KITH_OK;
    size_t capacity = kith_max_size(count, 2 * chunks->chunk_capacity);
    KITH_TRY(kith_realloc(&chunks->chunk, chunks->chunk_count, capacity, sizeof *chunks->chunk));
    chunks->chunk_capacity = capacity;
    return KITH_OK;
}

kith_status kith_chunks_borrow(kith_chunks *chunks, size_t item_bytes, const void *items, size_t count) {
    kith_chunks_init(chunks, item_bytes);
    chunks->borrowed = true;
    if (count == 0) return KITH_OK;
    size_t first, needed = kith_chunks_locate(chunks, count - 1, &first) + 1;
    KITH_TRY(reserve_pointers(chunks, needed));
    unsigned char *start = (unsigned char *)(uintptr_t)items;
    for (size_t c = 0, first_item = 0; c < needed; first_item += chunk_items(chunks, c++))
        chunks->chunk[c] = start + first_item * item_bytes;
    chunks->chunk_count = needed;
    return KITH_OK;
}

/* With so large a shift every chunk is one of the doubling ones, of which there are few. */
void kith_chunks_view(kith_chunks *chunks, size_t item_bytes, const void *items, size_t count,
                      unsigned char *pointers[KITH_CHUNKS_VIEW_POINTERS]) {
    *chunks = (kith_chunks){.chunk = pointers, .item_bytes = item_bytes, .shift = 62, .borrowed = true};
    unsigned char *at = (unsigned char *)(uintptr_t)items;
    for (size_t first = 0; first < count && chunks->chunk_count < KITH_CHUNKS_VIEW_POINTERS;) {
        pointers[chunks->chunk_count] = at + first * item_bytes;
        first += chunk_items(chunks, chunks->chunk_count++);
    }
}

void kith_chunks_free(kith_chunks *chunks) {
    if (!chunks->borrowed)
        for (size_t c = 0; c < chunks->chunk_count; c++) kith_free(chunks->chunk[c]);
    kith_free(chunks->chunk);
    chunks->chunk = NULL;
    chunks->chunk_count = chunks->chunk_capacity = 0;
}

kith_status kith_chunks_reserve(kith_chunks *chunks, size_t count) {
    if (count == 0) return KITH_OK;
    size_t bytes;
    if (kith_mul_overflows(count, chunks->item_bytes, &bytes))
        return kith_error(KITH_ERR_OVERFLOW, "memory: %zu items of %zu bytes do not fit the address space", count,
                          chunks->item_bytes);
    size_t first, needed = kith_chunks_locate(chunks, count - 1, &first) + 1;
    if (needed <= chunks->chunk_count) return KITH_OK;
    if (chunks->borrowed) return kith_error(KITH_ERR_READ_ONLY, "the vectors belong to a mapped file");
    KITH_TRY(reserve_pointers(chunks, needed));
    size_t had = chunks->chunk_count;
    for (size_t c = had; c < needed; c++) {
        kith_status status = kith_alloc(chunk_items(chunks, c), chunks->item_bytes, &chunks->chunk[c]);
        if (status != KITH_OK) {
            while (chunks->chunk_count > had) kith_free(chunks->chunk[--chunks->chunk_count]);
            return status;
        }
        chunks->chunk_count++;
    }
    return KITH_OK;
}

void kith_chunks_trim(kith_chunks *chunks, size_t count, size_t spare) {
    size_t first, kept = spare;
    if (count > 0) kept += kith_chunks_locate(chunks, count - 1, &first) + 1;
    while (chunks->chunk_count > kept) {
        chunks->chunk_count--;
        if (!chunks->borrowed) kith_free(chunks->chunk[chunks->chunk_count]);
    }
    if (chunks->chunk_count == 0) kith_chunks_free(chunks);
}

uint64_t kith_chunks_bytes(const kith_chunks *chunks) {
    uint64_t bytes = 0;
    for (size_t c = 0; c < chunks->chunk_count; c++) bytes += (uint64_t)chunk_items(chunks, c) * chunks->item_bytes;
    return bytes;
}

void *kith_chunks_run(const kith_chunks *chunks, size_t i, size_t *run) {
    size_t first, c = kith_chunks_locate(chunks, i, &first);
    *run = first + chunk_items(chunks, c) - i;
    return chunks->chunk[c] + (i - first) * chunks->item_bytes;
}
