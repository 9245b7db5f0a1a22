/* SPDX-License-Identifier: Apache-2.0 */
#include "base/idmap.h"

#include "base/error.h"

/* The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA'14): consecutive ids spread over the table. */
static size_t home_of(const kith_idmap *map, int64_t id) {
    uint64_t x = (uint64_t)id + 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (size_t)(x ^ (x >> 31)) & (map->slot_count - 1);
}

/* The slot that holds the id, or the free one where it would go. The table is never full. */
static kith_idmap_slot *find(const kith_idmap *map, int64_t id) {
    size_t at = home_of(map, id);
    while (map->slots[at].id != id && map->slots[at].id != KITH_NO_ID) at = (at + 1) & (map->slot_count - 1);
    return &map->slots[at];
}

void kith_idmap_free(kith_idmap *map) {
    kith_free(map->slots);
    *map = (kith_idmap){.epoch = map->epoch};
}

void kith_idmap_retire(kith_idmap *map) {
    kith_epoch_retire(map->epoch, map->slots);
    *map = (kith_idmap){.epoch = map->epoch};
}

void kith_idmap_clear(kith_idmap *map) {
    for (size_t i = 0; i < map->slot_count; i++) map->slots[i].id = KITH_NO_ID;
    map->count = 0;
}

/* How many slots a table of *slot_count grows to for `count` ids. */
static kith_status grow(size_t count, size_t *slot_count) {
    if (*slot_count == 0) *slot_count = 16;
    while (*slot_count / 8 * 7 < count)
        if (kith_mul_overflows(*slot_count, 2, slot_count))
            return kith_error(KITH_ERR_OVERFLOW, "id map: %zu ids do not fit the address space", count);
    return KITH_OK;
}

kith_status kith_idmap_bytes_for(size_t count, uint64_t *bytes) {
    size_t slot_count = 0, table;
    KITH_TRY(grow(count, &slot_count));
    if (kith_mul_overflows(slot_count, sizeof(kith_idmap_slot), &table) || table > SIZE_MAX / 16)
        return kith_error(KITH_ERR_OVERFLOW, "id map: %zu ids do not fit the address space", count);
    *bytes += table;
    return KITH_OK;
}

kith_status kith_idmap_reserve(kith_idmap *map, size_t count) {
    if (count <= map->slot_count / 8 * 7) return KITH_OK;
    size_t slot_count = map->slot_count;
    KITH_TRY(grow(count, &slot_count));
    kith_idmap grown = {.slot_count = slot_count, .epoch = map->epoch};
    KITH_TRY(kith_epoch_reserve(map->epoch, 1));
    KITH_TRY(kith_alloc(slot_count, sizeof *grown.slots, &grown.slots));
    for (size_t i = 0; i < slot_count; i++) grown.slots[i].id = KITH_NO_ID;
    for (size_t i = 0; i < map->slot_count; i++)
        if (map->slots[i].id != KITH_NO_ID) kith_idmap_append(&grown, map->slots[i].id, map->slots[i].row);
    kith_epoch_retire(map->epoch, map->slots);
    *map = grown;
    return KITH_OK;
}

void kith_idmap_put(kith_idmap *map, int64_t id, uint64_t row) {
    kith_idmap_slot *slot = find(map, id);
    map->count += slot->id == KITH_NO_ID;
    *slot = (kith_idmap_slot){id, row};
}

bool kith_idmap_get(const kith_idmap *map, int64_t id, uint64_t *row) {
    if (map->slot_count == 0 || id < 0) return false;
    const kith_idmap_slot *slot = find(map, id);
    if (slot->id != id) return false;
    *row = slot->row;
    return true;
}

/* Closes the gap by moving later members of the run back (Knuth, TAOCP 3, 6.4, algorithm R): no tombstones. */
void kith_idmap_remove(kith_idmap *map, int64_t id) {
    if (map->slot_count == 0 || id < 0) return;
    kith_idmap_slot *slot = find(map, id);
    if (slot->id != id) return;
    size_t mask = map->slot_count - 1, gap = (size_t)(slot - map->slots);
    for (size_t at = (gap + 1) & mask; map->slots[at].id != KITH_NO_ID; at = (at + 1) & mask) {
        size_t home = home_of(map, map->slots[at].id);
        if (((at - home) & mask) < ((at - gap) & mask)) continue;
        map->slots[gap] = map->slots[at];
        gap = at;
    }
    map->slots[gap].id = KITH_NO_ID;
    map->count--;
}

/* ---- Append and next ------------------------------------------------------------------------------------------ */

void kith_idmap_append(kith_idmap *map, int64_t id, uint64_t row) {
    size_t at = home_of(map, id);
    while (map->slots[at].id != KITH_NO_ID) at = (at + 1) & (map->slot_count - 1);
    map->slots[at].row = row;
    __atomic_store_n(&map->slots[at].id, id, __ATOMIC_RELEASE); /* a reader that sees the id sees its row */
    map->count++;
}

bool kith_idmap_next(const kith_idmap *map, int64_t id, size_t *step, uint64_t *row) {
    if (map->slot_count == 0 || id < 0) return false;
    size_t home = home_of(map, id);
    for (;;) {
        const kith_idmap_slot *slot = &map->slots[(home + (*step)++) & (map->slot_count - 1)];
        int64_t held = __atomic_load_n(&slot->id, __ATOMIC_ACQUIRE);
        if (held == KITH_NO_ID) return false;
        if (held != id) continue;
        *row = slot->row;
        return true;
    }
}
