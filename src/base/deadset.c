/* SPDX-License-Identifier: Apache-2.0 */
#include "base/deadset.h"

#include <string.h>

enum { PAGE_WORDS = 1 << (KITH_DEADSET_SHIFT - 6), WORD_BITS = 64 };

static kith_status plan_page(const kith_deadset *set, size_t page, kith_epoch *epoch, kith_deadset *plan) {
    uint64_t *old = page < set->page_count ? set->pages[page] : NULL, *fresh;
    kith_status status = kith_epoch_reserve(epoch, 1);
    if (status == KITH_OK) status = kith_alloc(PAGE_WORDS, sizeof *fresh, &fresh);
    if (status != KITH_OK) return status;
    if (old != NULL)
        memcpy(fresh, old, PAGE_WORDS * sizeof *fresh);
    else
        memset(fresh, 0, PAGE_WORDS * sizeof *fresh);
    plan->pages[page] = fresh;
    return KITH_OK;
}

kith_status kith_deadset_plan(const kith_deadset *set, const uint64_t *rows, size_t count, kith_epoch *epoch,
                              kith_deadset *plan) {
    size_t last = 0;
    *plan = (kith_deadset){.page_count = set->page_count, .count = set->count + count};
    for (size_t i = 0; i < count; i++) last = kith_max_size(last, (size_t)rows[i] >> KITH_DEADSET_SHIFT);
    if (count > 0) plan->page_count = kith_max_size(plan->page_count, last + 1);
    kith_status status = kith_epoch_reserve(epoch, 1);
    if (status == KITH_OK) status = kith_alloc_zeroed(plan->page_count, sizeof *plan->pages, &plan->pages);
    if (status != KITH_OK) return status;
    if (set->page_count > 0) memcpy(plan->pages, set->pages, set->page_count * sizeof *plan->pages);
    for (size_t i = 0; i < count && status == KITH_OK; i++) {
        size_t page = (size_t)rows[i] >> KITH_DEADSET_SHIFT;
        size_t bit = (size_t)rows[i] & (((size_t)1 << KITH_DEADSET_SHIFT) - 1);
        const uint64_t *old = page < set->page_count ? set->pages[page] : NULL;
        if (plan->pages[page] == old) status = plan_page(set, page, epoch, plan);
        if (status == KITH_OK) plan->pages[page][bit / WORD_BITS] |= (uint64_t)1 << (bit % WORD_BITS);
    }
    if (status != KITH_OK) kith_deadset_drop(set, plan);
    return status;
}

void kith_deadset_keep(kith_deadset *set, const kith_deadset *plan, kith_epoch *epoch) {
    for (size_t page = 0; page < set->page_count; page++)
        if (set->pages[page] != plan->pages[page]) kith_epoch_retire(epoch, set->pages[page]);
    kith_epoch_retire(epoch, set->pages);
    *set = *plan;
}

void kith_deadset_drop(const kith_deadset *set, const kith_deadset *plan) {
    for (size_t page = 0; page < plan->page_count; page++)
        if (page >= set->page_count || plan->pages[page] != set->pages[page]) kith_free(plan->pages[page]);
    kith_free(plan->pages);
}

void kith_deadset_clear(kith_deadset *set, kith_epoch *epoch) {
    for (size_t page = 0; page < set->page_count; page++) kith_epoch_retire(epoch, set->pages[page]);
    kith_epoch_retire(epoch, set->pages);
    *set = (kith_deadset){0};
}

size_t kith_deadset_blocks(const kith_deadset *set) { return set->page_count + 1; }

uint64_t kith_deadset_bytes(const kith_deadset *set) {
    uint64_t bytes = (uint64_t)set->page_count * sizeof *set->pages;
    for (size_t page = 0; page < set->page_count; page++)
        if (set->pages[page] != NULL) bytes += PAGE_WORDS * sizeof **set->pages;
    return bytes;
}
