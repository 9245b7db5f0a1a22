/* SPDX-License-Identifier: Apache-2.0
 *
 * The index file's reader on hostile bytes: as they are, and with all checksums mended, so that what stands behind
 * them is reached too.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/memory.h"
#include "io/container.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

enum { HEADER_BYTES = 4096, ENTRY_BYTES = 48 };

static uint64_t get(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void put(uint8_t *at, uint64_t value) { memcpy(at, &value, sizeof value); }

static void mend(uint8_t *bytes, size_t count) {
    if (count < HEADER_BYTES) return;
    put(bytes + 16, count);
    uint64_t table = get(bytes + 24), sections = get(bytes + 32);
    if (table <= count && sections <= (count - table) / ENTRY_BYTES) {
        for (uint64_t i = 0; i < sections; i++) {
            uint8_t *entry = bytes + table + i * ENTRY_BYTES;
            uint64_t offset = get(entry + 24), length = get(entry + 32);
            if (offset <= count && length <= count - offset)
                put(entry + 40, XXH3_64bits(bytes + offset, (size_t)length));
        }
        put(bytes + 40, XXH3_64bits(bytes + table, (size_t)sections * ENTRY_BYTES));
    }
    put(bytes + 56, XXH3_64bits(bytes, 56));
}

static uint64_t sum; /* of all bytes that the reader hands out: each has to be there */

static void use(const uint8_t *bytes, size_t count) {
    kith_container *container;
    if (kith_container_open_memory("fuzz", bytes, count, &container) != KITH_OK) return;
    if (kith_container_verify(container) == KITH_OK)
        for (size_t i = 0; i < kith_container_section_count(container); i++) {
            const kith_section *listed = kith_container_section_at(container, i), *found;
            kith_status status = kith_container_need(container, listed->tag, listed->instance, UINT32_MAX, &found);
            if (status != KITH_OK || found != listed) abort();
            for (size_t b = 0; b < found->bytes; b++) sum += ((const uint8_t *)found->data)[b];
        }
    kith_container_close(container);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    uint8_t *copy;
    if (kith_alloc(count, 1, &copy) != KITH_OK) return 0;
    if (count != 0) memcpy(copy, bytes, count);
    use(copy, count);
    mend(copy, count);
    use(copy, count);
    kith_free(copy);
    if (kith_memory_live_blocks() != 0) abort();
    return 0;
}
